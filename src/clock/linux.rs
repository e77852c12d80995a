//! Suspended time on Linux. `other.rs` has the same function for other systems.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// See [`super::slept`].
pub(super) fn slept() -> Duration {
    // In this order, time that passes between the two calls counts as suspended, never as awake.
    let awake = clock_gettime(ClockId::Monotonic);
    let whole = clock_gettime(ClockId::Boottime);
    Duration::try_from(whole)
        .unwrap_or_default()
        .saturating_sub(Duration::try_from(awake).unwrap_or_default())
}
