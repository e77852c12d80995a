//! How long a shard could not be read, and which of its failures are worth a log line.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Error;

/// Between two lines about reads of one shard that keep failing.
const AGAIN: Duration = Duration::from_secs(60);
/// Failures of the usual kind are reported once they have lasted for so long.
const USUAL: Duration = Duration::from_secs(10);

/// How unusual a failed read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One alone is normal: an iterator that expired during a pause, a subscription that another worker has for a
    /// few seconds.
    Usual,
    /// Never normal.
    Unusual,
    /// There was no answer: all shards of this worker may have the same trouble.
    Unreachable,
    /// The caller has logged it.
    Logged,
}

impl Kind {
    /// Of an error that is not one of the usual.
    pub(super) fn of(error: &Error) -> Self {
        if matches!(error, Error::Unavailable(_)) { Self::Unreachable } else { Self::Unusual }
    }
}

/// Without an answer to any shard for so long, Kinesis cannot be reached.
const OUT: Duration = Duration::from_secs(5);
/// Between lines about a service that cannot be reached.
const REMIND: Duration = Duration::from_secs(600);

/// Whether Kinesis can be reached, as all shards of a worker see it: a service that is away for an hour is some lines, and
/// not as many for each shard.
#[derive(Debug, Default)]
pub struct Reach(Mutex<Out>);

#[derive(Debug, Default)]
struct Out {
    /// When the first failure since the last answer was.
    since: Option<Instant>,
    reported: Option<Instant>,
}

impl Reach {
    /// There was no answer. Since when there is none, if that is to be reported now.
    pub(super) fn failed(&self, now: Instant) -> Option<Duration> {
        let mut out = self.lock();
        let lasted = now.saturating_duration_since(*out.since.get_or_insert(now));
        let due = lasted >= OUT && out.reported.is_none_or(|at| now >= at + REMIND);
        due.then(|| {
            out.reported = Some(now);
            lasted
        })
    }

    /// There was an answer. How long there was none, if that was reported.
    pub(super) fn answered(&self, now: Instant) -> Option<Duration> {
        let Out { since, reported } = std::mem::take(&mut *self.lock());
        since.filter(|_| reported.is_some()).map(|since| now.saturating_duration_since(since))
    }

    /// Whether it is reported that Kinesis cannot be reached.
    pub(super) fn is_out(&self) -> bool {
        self.lock().reported.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reads of one shard that failed since the last one that did not.
#[derive(Debug, Default)]
pub(super) struct Failing {
    since: Option<Instant>,
    times: u32,
    reported: Option<Instant>,
}

impl Failing {
    /// A read has failed. Whether it is to be reported now.
    pub(super) fn failed(&mut self, now: Instant, kind: Kind) -> bool {
        let since = *self.since.get_or_insert(now);
        self.times += 1;
        let due = self.reported.is_none_or(|at| now >= at + AGAIN);
        let lasts = self.reported.is_some() || (self.times > 1 && now >= since + USUAL);
        let unusual = match kind {
            Kind::Usual => lasts,
            Kind::Unusual => true,
            // One line for all shards is there, or will be.
            Kind::Unreachable => false,
            Kind::Logged => {
                self.reported.get_or_insert(now);
                return false;
            }
        };
        if due && unusual {
            self.reported = Some(now);
        }
        due && unusual
    }

    /// For how long reads have failed by now, and how often.
    pub(super) fn lasted(&self, now: Instant) -> (Duration, u32) {
        (self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)), self.times)
    }

    /// A read has not failed. For how long those before did, if that was reported.
    pub(super) fn recovered(&mut self, now: Instant) -> Option<Duration> {
        let (lasted, _) = self.lasted(now);
        std::mem::take(self).reported.map(|_| lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which seconds failures of one a second are reported.
    fn reported(kind: Kind, seconds: u64) -> Vec<u64> {
        let (mut failing, start) = (Failing::default(), Instant::now());
        (0..seconds).filter(|second| failing.failed(start + Duration::from_secs(*second), kind)).collect()
    }

    #[test]
    fn failures_that_last_are_reported_at_once_and_then_each_minute() {
        assert_eq!(reported(Kind::Unusual, 150), [0, 60, 120]);
        assert_eq!(reported(Kind::Usual, 150), [10, 70, 130]);
        assert_eq!(reported(Kind::Logged, 150), [0; 0]);
    }

    #[test]
    fn outage_is_reported_once_for_all_shards_with_reminders_and_its_length() {
        let (reach, start) = (Reach::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        let reported = |from: u64, to: u64| -> Vec<u64> {
            let shards = (from..to).flat_map(|second| [second; 30]);
            shards.filter(|second| reach.failed(at(*second)).is_some()).collect()
        };
        assert_eq!(reported(0, 5), [0; 0]);
        assert_eq!(reach.answered(at(5)), None, "too short");
        assert_eq!(reported(10, 1_000), [15, 615]);
        assert!(reach.is_out());
        assert_eq!(reach.answered(at(1_000)), Some(Duration::from_secs(990)));
        assert!(!reach.is_out() && reach.answered(at(1_001)).is_none());
    }

    #[test]
    fn one_usual_failure_is_not_reported_and_neither_is_its_recovery() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        assert!(!failing.failed(now, Kind::Usual));
        assert_eq!(failing.recovered(now + USUAL), None);
        assert!(!failing.failed(now + USUAL, Kind::Usual), "the one before is over");
    }

    #[test]
    fn recovery_is_reported_once_with_its_duration() {
        for kind in [Kind::Unusual, Kind::Logged] {
            let (mut failing, now) = (Failing::default(), Instant::now());
            failing.failed(now, kind);
            failing.failed(now + AGAIN / 2, kind);
            assert_eq!(failing.lasted(now + AGAIN), (AGAIN, 2));
            assert_eq!(failing.recovered(now + AGAIN), Some(AGAIN));
            assert_eq!(failing.recovered(now + AGAIN), None);
        }
    }
}
