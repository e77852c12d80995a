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
