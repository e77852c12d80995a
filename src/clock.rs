//! Time: the only module that reads the wall clock, and the wait for a deadline. Decisions use
//! [`tokio::time::Instant`] instead, which tests can pause.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};

#[cfg(all(target_os = "linux", not(test)))]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod other;

#[cfg(all(target_os = "linux", not(test)))]
use linux as platform;
#[cfg(all(not(target_os = "linux"), not(test)))]
use other as platform;

/// Most milliseconds by which the date of a response of AWS may differ from this machine's clock: AWS's own clocks are
/// much more accurate, and no response takes longer than this.
pub const TOLERATED_SKEW_MILLIS: i64 = 5_000;

/// Milliseconds since 1970, for timestamps that are compared with Kinesis's, never for durations.
pub fn wall_millis() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since 1970 as a date and time in UTC.
pub fn date(seconds: i64) -> String {
    const DAY: i64 = 24 * 60 * 60;
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // In the Gregorian calendar, with years that begin in March and eras of 400 years.
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Milliseconds since 1970 as a date and time in UTC, with milliseconds.
pub fn utc(millis: i64) -> String {
    let date = date(millis.div_euclid(1_000));
    format!("{}.{:03}Z", date.trim_end_matches('Z'), millis.rem_euclid(1_000))
}

/// Milliseconds since 1970 of a text that [`utc`] wrote.
pub fn parse_utc(text: &str) -> Option<i64> {
    let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        text.split(by).map(|part| part.parse().ok().filter(|number| *number >= 0)).collect()
    };
    let (time, millis) = time.split_once('.')?;
    let [year, month, of_month] = numbers(day, '-')?.try_into().ok()?;
    let [hour, minute, second] = numbers(time, ':')?.try_into().ok()?;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + of_month - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let millis: i64 = millis.parse().ok()?;
    let found = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + millis;
    (utc(found) == text).then_some(found)
}

/// How long this machine has been suspended (or paused by its host, if it is virtual) since its start.
/// [`Instant`] does not advance during that time, but leases expire for other workers. Only differences of
/// this value are meaningful.
#[cfg(not(test))]
pub fn slept() -> Duration {
    platform::slept()
}

#[cfg(test)]
pub use suspension::{slept, suspend};

/// A simulated suspension for tests, one per thread.
#[cfg(test)]
mod suspension {
    use std::cell::Cell;
    use std::time::Duration;

    std::thread_local! {
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// How long this thread's machine has been suspended.
    pub fn slept() -> Duration {
        SLEPT.get()
    }

    /// Suspends the machine for that long and resumes it.
    pub fn suspend(time: Duration) {
        SLEPT.set(SLEPT.get() + time);
    }
}

/// A shorter difference is no suspension but the time between the reads of two clocks.
const SLEEP: Duration = Duration::from_millis(200);

/// A deadline that comes sooner, by this machine's clock, if the machine is suspended before it: the clocks
/// of other workers advance meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    at: Instant,
    /// [`slept`] at the start of the period.
    slept: Duration,
}

impl Expiry {
    /// `slept` is its value at the start of the period that ends at `at`.
    pub fn new(at: Instant, slept: Duration) -> Self {
        Self { at, slept }
    }

    /// The deadline if the machine is not suspended again.
    pub fn instant(self) -> Instant {
        self.instant_after(slept())
    }

    /// The deadline if `slept` is the value of [`slept`] now.
    pub fn instant_after(self, slept: Duration) -> Instant {
        let slept = slept.saturating_sub(self.slept);
        if slept < SLEEP { self.at } else { self.at.checked_sub(slept).unwrap_or(self.at) }
    }

    /// The deadline without any suspension.
    pub fn awake(self) -> Instant {
        self.at
    }
}

/// The time at AWS, by the dates of its responses. The wall clock of a machine can be wrong or jump; a decision that
/// drops records must not depend on it alone.
#[derive(Debug, Clone, Default)]
pub struct ServiceTime(Arc<Mutex<Option<(i64, Instant)>>>);

impl ServiceTime {
    /// A response arrived at `now` with this date, in milliseconds since 1970.
    pub fn received(&self, date: i64, now: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((date, now));
    }

    /// The earlier one of the wall clock and the time at AWS, in milliseconds since 1970: the wall clock alone if no
    /// response had a date. Time during which the machine was suspended counts from the next response on.
    pub fn earliest(&self, wall: i64, now: Instant) -> i64 {
        self.known(now).map_or(wall, |time| wall.min(time))
    }

    /// Milliseconds by which a wall clock is ahead of AWS's, negative if it is behind; none if no response had a date.
    /// Dates are in seconds, so that up to a second does not count.
    pub fn ahead(&self, wall: i64, now: Instant) -> Option<i64> {
        let ahead = wall.saturating_sub(self.known(now)?);
        Some(if ahead > 0 { (ahead - 999).max(0) } else { ahead })
    }

    fn known(&self, now: Instant) -> Option<i64> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|(date, at)| {
            let since = i64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(i64::MAX);
            date.saturating_add(since)
        })
    }
}

/// Most difference between the clocks of two services at AWS.
const SERVICES_MILLIS: i64 = 1_000;
/// Most difference between AWS's clock and this machine's that is expected: AWS refuses a larger one in a signature.
pub const SIGNATURE_MILLIS: i64 = 5 * 60_000;

/// AWS's clock, by this machine's wall clock and the dates of AWS's responses.
#[derive(Debug, Clone)]
pub struct ServiceClock {
    wall: fn() -> i64,
    service: ServiceTime,
}

impl ServiceClock {
    /// That wall clock, corrected by those dates.
    pub fn new(wall: fn() -> i64, service: ServiceTime) -> Self {
        Self { wall, service }
    }

    /// [`ServiceTime::earliest`] now.
    pub fn earliest(&self) -> i64 {
        self.service.earliest((self.wall)(), Instant::now())
    }

    /// A time that is past at AWS, in milliseconds since 1970: about two seconds ago, as dates are in seconds; five
    /// minutes while no response had a date.
    pub fn past(&self) -> i64 {
        let (wall, now) = ((self.wall)(), Instant::now());
        self.service.known(now).map_or(wall - SIGNATURE_MILLIS, |time| time - SERVICES_MILLIS)
    }
}

/// Waits for a deadline; for ever if there is none. Cancel-safe.
pub async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The time left for a shutdown. Its last steps are given less time if the earlier ones took long.
#[derive(Debug, Clone)]
pub struct Stop {
    since: Arc<OnceLock<Instant>>,
    within: Duration,
}

/// The least time of each last step of a shutdown.
const LAST: Duration = Duration::from_millis(100);

impl Stop {
    /// A shutdown whose steps, the last ones aside, take at most `within`.
    pub fn within(within: Duration) -> Self {
        Self { since: Arc::default(), within }
    }

    /// Starts the shutdown's clock on the first call.
    pub fn begin(&self) {
        self.since.get_or_init(Instant::now);
    }

    /// Time for one of the last steps, at most `most`.
    pub fn left(&self, most: Duration) -> Duration {
        let spent = self.since.get().map_or(Duration::ZERO, Instant::elapsed);
        self.within.saturating_sub(spent).max(LAST).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_read_back() {
        for millis in [0, 1, 951_782_400_000, 1_709_164_799_999, 1_795_996_799_123, 4_102_444_800_000] {
            assert_eq!(parse_utc(&utc(millis)), Some(millis), "{}", utc(millis));
        }
        for text in ["", "2026-13-01T00:00:00.000Z", "2026-02-30T00:00:00.000Z", "x", "2026-01-01T00:00:00Z"]
        {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }

    #[test]
    fn past_time_is_early_by_the_precision_of_what_is_known() {
        let service = ServiceTime::default();
        let clock = ServiceClock::new(|| 1_000_000, service.clone());
        assert_eq!(clock.past(), 1_000_000 - 300_000, "no date is known");
        let at = Instant::now();
        for date in [940_000, 1_060_000] {
            service.received(date, at);
            let past = clock.past();
            assert!((date - 1_000..date).contains(&past), "{past}");
        }
    }

    #[test]
    fn wall_clock_is_compared_with_the_service() {
        let (service, now) = (ServiceTime::default(), Instant::now());
        assert_eq!(service.ahead(9_000, now), None);
        service.received(5_000, now);
        let later = now + Duration::from_millis(700);
        for (wall, ahead) in [(5_700, 0), (6_699, 0), (6_700, 1), (4_700, -1_000), (65_700, 59_001)] {
            assert_eq!(service.ahead(wall, later), Some(ahead), "{wall}");
        }
    }

    #[test]
    fn earliest_time_is_that_of_the_service_if_the_clock_is_ahead() {
        let (service, now) = (ServiceTime::default(), Instant::now());
        assert_eq!(service.earliest(9_000, now), 9_000, "no date is known");
        service.received(5_000, now);
        let later = now + Duration::from_millis(700);
        for (wall, expected) in [(i64::MAX, 5_700), (5_701, 5_700), (5_699, 5_699), (0, 0)] {
            assert_eq!(service.earliest(wall, later), expected, "{wall}");
        }
        service.received(4_000, later);
        assert_eq!(service.clone().earliest(9_000, later), 4_000, "the last response counts");
    }

    #[tokio::test(start_paused = true)]
    async fn last_steps_of_a_long_shutdown_are_short() {
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
