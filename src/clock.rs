//! Time: the only place that asks the wall clock, and the wait for a deadline. Decisions take
//! [`tokio::time::Instant`] instead, which tests pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};

/// Milliseconds since 1970, for what has to agree with Kinesis: time stamps, never durations.
pub fn wall_millis() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long this machine has slept (suspended, or a virtual machine paused by its host) since it was started.
/// [`Instant`] stands still meanwhile, while leases expire for others. Only differences mean something.
pub fn slept() -> Duration {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        // In this order: what passes between the two counts as sleep, never as waking.
        let awake = clock_gettime(ClockId::Monotonic);
        let whole = clock_gettime(ClockId::Boottime);
        Duration::try_from(whole)
            .unwrap_or_default()
            .saturating_sub(Duration::try_from(awake).unwrap_or_default())
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

/// Waits for a deadline; for ever if none stands. Cancel-safe.
pub async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
