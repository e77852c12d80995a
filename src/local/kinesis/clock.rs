//! Time of the endpoint: the only module that reads the wall clock.
//!
//! Records, shards and tokens contain wall time; expiry within a run uses the runtime's monotonic clock, so
//! that tests can pause it and a step of the wall clock expires nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch, the resolution of Kinesis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(u64);

impl Timestamp {
    pub(super) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(super) const fn millis(self) -> u64 {
        self.0
    }

    pub(super) const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub(super) fn seconds_with_fraction(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(super) fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_millis(span)))
    }

    #[cfg(test)]
    pub(super) fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(saturating_millis(span)))
    }
}

/// The readings of both clocks, which decisions take as an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) instant: Instant,
}

/// Reads both clocks.
pub(super) fn now() -> Now {
    Now { wall: wall(), instant: Instant::now() }
}

#[expect(
    clippy::disallowed_methods,
    reason = "arrival times of records are wall time, and this is the only place that reads it"
)]
fn wall() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, saturating_millis))
}

/// Whole milliseconds of a duration, saturating at 500 million years.
pub(super) fn saturating_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
