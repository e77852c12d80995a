//! Time: the only place that asks the wall clock, and the wait for a deadline. Decisions take
//! [`tokio::time::Instant`] instead, which tests pause.

use std::sync::{Arc, OnceLock};
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
#[cfg(not(test))]
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

#[cfg(test)]
pub use suspension::{slept, suspend};

/// A machine that tests suspend, each the one of its thread.
#[cfg(test)]
mod suspension {
    use std::cell::Cell;
    use std::time::Duration;

    std::thread_local! {
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// For how long this thread's machine has been suspended.
    pub fn slept() -> Duration {
        SLEPT.get()
    }

    /// Suspends it for that long, and resumes it.
    pub fn suspend(time: Duration) {
        SLEPT.set(SLEPT.get() + time);
    }
}

/// No machine sleeps for less; what is shorter is the time between two looks at two clocks.
const SLEEP: Duration = Duration::from_millis(200);

/// A point in time that comes sooner, by this machine's clock, if the machine sleeps before it: others, who
/// count too, don't sleep with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    at: Instant,
    /// [`slept`] when the count began.
    slept: Duration,
}

impl Expiry {
    /// `slept` is from when the count began, which is before `at`.
    pub fn new(at: Instant, slept: Duration) -> Self {
        Self { at, slept }
    }

    /// When it is if the machine sleeps no more.
    pub fn instant(self) -> Instant {
        let slept = slept().saturating_sub(self.slept);
        if slept < SLEEP { self.at } else { self.at.checked_sub(slept).unwrap_or(self.at) }
    }

    /// When it would have been without any sleep.
    pub fn awake(self) -> Instant {
        self.at
    }
}

/// Waits for a deadline; for ever if none stands. Cancel-safe.
pub async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The rest of the time that a stop may take: the steps at its end are short where those before were long.
#[derive(Debug, Clone)]
pub struct Stop {
    since: Arc<OnceLock<Instant>>,
    within: Duration,
}

/// A step at the end of a stop has this long, however long the steps before took.
const LAST: Duration = Duration::from_millis(100);

impl Stop {
    /// All steps but the last ones take no longer than this.
    pub fn within(within: Duration) -> Self {
        Self { since: Arc::default(), within }
    }

    /// It begins now, unless it has begun.
    pub fn begin(&self) {
        self.since.get_or_init(Instant::now);
    }

    /// How long a step at its end may take that takes no longer than `most`.
    pub fn left(&self, most: Duration) -> Duration {
        let spent = self.since.get().map_or(Duration::ZERO, Instant::elapsed);
        self.within.saturating_sub(spent).max(LAST).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn last_steps_of_a_long_stop_are_short() {
        let second = Duration::from_secs(1);
        let stop = Stop::within(second * 9);
        assert_eq!(stop.left(second * 3), second * 3);
        stop.begin();
        tokio::time::advance(second * 7).await;
        assert_eq!(stop.left(second * 3), second * 2);
        tokio::time::advance(second * 7).await;
        stop.begin();
        assert_eq!(stop.left(second * 3), LAST);
    }
}
