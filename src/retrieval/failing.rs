//! How long a shard could not be read, and which of its failures are worth a log line.

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
