//! How long a shard could not be read, and which of its failed reads are logged.

use std::time::Duration;

use tokio::time::Instant;

use super::port::Error;

/// Interval between log lines about failing reads of one shard.
const AGAIN: Duration = Duration::from_secs(60);
/// Usual failures are logged after they have lasted this long.
const USUAL: Duration = Duration::from_secs(10);

/// How unusual a failed read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Normal if it occurs alone: an iterator that expired during a pause, a subscription that another worker
    /// holds for a few seconds.
    Usual,
    /// Never normal.
    Unusual,
    /// No answer: all shards of this worker may fail in the same way.
    Unreachable,
    /// Already logged by the caller.
    Logged,
}

impl Kind {
    /// The kind of an error that is not a usual one.
    pub(super) fn of(error: &Error) -> Self {
        if matches!(error, Error::Unavailable(_)) { Self::Unreachable } else { Self::Unusual }
    }
}

/// The failed reads of one shard since its last successful one.
#[derive(Debug, Default)]
pub(super) struct Failing {
    since: Option<Instant>,
    times: u32,
    reported: Option<Instant>,
}

impl Failing {
    /// Notes a failed read. Returns whether it must be logged now.
    pub(super) fn failed(&mut self, now: Instant, kind: Kind) -> bool {
        let since = *self.since.get_or_insert(now);
        self.times += 1;
        let due = self.reported.is_none_or(|at| now >= at + AGAIN);
        let lasts = self.reported.is_some() || (self.times > 1 && now >= since + USUAL);
        let unusual = match kind {
            Kind::Usual => lasts,
            Kind::Unusual => true,
            // The log line for all shards exists or will follow.
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

    /// How long reads have failed by now, and how often.
    pub(super) fn lasted(&self, now: Instant) -> (Duration, u32) {
        (self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)), self.times)
    }

    /// Notes a successful read. Returns how long reads failed before, if that was logged.
    pub(super) fn recovered(&mut self, now: Instant) -> Option<Duration> {
        let (lasted, _) = self.lasted(now);
        std::mem::take(self).reported.map(|_| lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which failures, one per second, are logged.
    fn reported(kind: Kind, seconds: u64) -> Vec<u64> {
        let (mut failing, start) = (Failing::default(), Instant::now());
        (0..seconds).filter(|second| failing.failed(start + Duration::from_secs(*second), kind)).collect()
    }

    #[test]
    fn lasting_failures_are_logged_once_a_minute() {
        assert_eq!(reported(Kind::Unusual, 150), [0, 60, 120]);
        assert_eq!(reported(Kind::Usual, 150), [10, 70, 130]);
        assert_eq!(reported(Kind::Logged, 150), [0; 0]);
    }

    #[test]
    fn single_usual_failure_and_recovery_are_not_logged() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        assert!(!failing.failed(now, Kind::Usual));
        assert_eq!(failing.recovered(now + USUAL), None);
        assert!(!failing.failed(now + USUAL, Kind::Usual), "the one before is over");
    }

    #[test]
    fn recovery_is_logged_once_with_its_duration() {
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
