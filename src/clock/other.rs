//! Suspended time on macOS. `linux.rs` has the same function for Linux.
//!
//! On macOS `CLOCK_MONOTONIC` continues while the machine sleeps (clock_gettime(3)), while [`Instant`] reads
//! `CLOCK_UPTIME_RAW`, which does not. On a system where both clocks stop, suspended time is not noticed, and
//! where both continue, it is part of each [`Instant`] already.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Added to each result: the frequency of `CLOCK_MONOTONIC` is adjusted, that of [`Instant`] is not, so their
/// difference may fall by some seconds a week, and must not reach zero.
const BASE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// See [`super::slept`].
pub(super) fn slept() -> Duration {
    static FIRST: OnceLock<(Instant, Duration)> = OnceLock::new();
    // In this order, time that passes between the two calls counts as suspended, never as awake.
    #[expect(
        clippy::disallowed_methods,
        reason = "the two clocks must be read together, also if tests pause one"
    )]
    let awake = Instant::now();
    let whole = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    let (first_awake, first_whole) = *FIRST.get_or_init(|| (awake, whole));
    (BASE + whole.saturating_sub(first_whole)).saturating_sub(awake.saturating_duration_since(first_awake))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awake_time_is_not_suspended_time() {
        let before = slept();
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(slept().abs_diff(before) < super::super::SLEEP);
    }
}
