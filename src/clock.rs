//! Time: the only place that asks the wall clock, and the wait for a deadline. Decisions take
//! [`tokio::time::Instant`] instead, which tests pause.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};

/// Milliseconds since 1970, for what has to agree with Kinesis: time stamps, never durations.
pub fn wall_millis() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Waits for a deadline; for ever if none stands. Cancel-safe.
pub async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
