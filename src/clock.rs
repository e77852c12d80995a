//! The only place that asks the wall clock. Decisions take [`tokio::time::Instant`] instead, which
//! tests pause.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, for what has to agree with Kinesis: time stamps, never durations.
pub fn wall_millis() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
