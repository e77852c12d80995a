//! Requests that fail again and again: when to log it, and how long to wait before the next one.
//!
//! Pure. One [`Outage`] stands for one kind of request. The first failure is logged at once, then at most once a
//! minute while it lasts, and the end of it once. A request without an answer is logged only if it keeps failing while
//! the service answers others: that it answers nothing is one line for all of them ([`Reach`]).

use std::time::Duration;

use tokio::time::Instant;

use crate::lease::table::Error;
use crate::reach::Reach;

/// Between two log lines about requests that still fail.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// A request of one kind that has had no answer for this long is logged, unless no request has one.
const UNANSWERED: Duration = Duration::from_secs(10);

/// Requests of one kind that have failed since the last one that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Outage {
    since: Option<Instant>,
    last: Option<Instant>,
    said: Option<Instant>,
    failures: u32,
    denied: bool,
}

impl Outage {
    /// Notes a failure. Returns whether it is to be logged now.
    pub fn failed(&mut self, now: Instant, error: &Error, reach: &Reach) -> bool {
        let since = *self.since.get_or_insert(now);
        self.last = Some(now);
        self.failures = self.failures.saturating_add(1);
        self.denied |= matches!(error, Error::Denied(_) | Error::Missing(_));
        let alone = !error.is_unanswered() || (now >= since + UNANSWERED && !reach.is_out(now));
        let due = alone && self.said.is_none_or(|said| now >= said + SAY_AGAIN);
        if due {
            self.said = Some(now);
        }
        due
    }

    /// Notes a failure that the caller logs itself.
    pub fn logged(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        (self.last, self.said) = (Some(now), Some(now));
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether a failure since the last success was logged.
    pub fn is_logged(&self) -> bool {
        self.said.is_some()
    }

    /// Notes a success. Returns how long the outage lasted, if it was logged.
    pub fn worked(&mut self, now: Instant) -> Option<Duration> {
        let Self { since, said, .. } = std::mem::take(self);
        since.filter(|_| said.is_some()).map(|since| now.saturating_duration_since(since))
    }

    /// When the first of these failures was.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When the last of these failures was.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Whether it is no passing fault: the request is denied, or has failed for `grace`.
    pub fn lasts(&self, now: Instant, grace: Duration) -> bool {
        self.since.is_some_and(|since| self.denied || now >= since + grace)
    }

    /// How long to wait before the next request: `first`, then twice as long each time, up to `most`.
    pub fn pause(&self, first: Duration, most: Duration) -> Duration {
        let doubled = self.failures.saturating_sub(1).min(16);
        first.saturating_mul(1 << doubled).min(most.max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_are_logged_at_once_and_then_once_a_minute() {
        let (start, error) = (Instant::now(), Error::Throttled(String::new()));
        let (mut outage, reach) = (Outage::default(), Reach::default());
        let logged = (0..150).filter(|second| outage.failed(start + SECOND * *second, &error, &reach));
        assert_eq!(logged.collect::<Vec<_>>(), [0, 60, 120]);
        assert_eq!(outage.worked(start + SECOND * 150), Some(SECOND * 150));
        assert_eq!(outage.worked(start + SECOND * 151), None, "logged once");
        assert!(outage.failed(start + SECOND * 152, &error, &reach), "a new outage");
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        let error = Error::Throttled(String::new());
        let mut outage = Outage::default();
        let pauses = (0..6).map(|_| {
            outage.failed(Instant::now(), &error, &Reach::default());
            outage.pause(SECOND, SECOND * 10).as_secs()
        });
        assert_eq!(pauses.collect::<Vec<_>>(), [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_denied_request_is_no_passing_fault() {
        let now = Instant::now();
        let (mut outage, reach) = (Outage::default(), Reach::default());
        assert!(!outage.lasts(now, Duration::ZERO));
        outage.failed(now, &Error::Unavailable(String::new()), &reach);
        assert!(!outage.lasts(now, SECOND) && outage.lasts(now + SECOND, SECOND));
        outage.failed(now, &Error::Denied(String::new()), &reach);
        assert!(outage.lasts(now, SECOND));
    }
    #[test]
    fn unanswered_request_is_logged_after_ten_seconds_unless_none_is_answered() {
        let (start, error) = (Instant::now(), Error::Ambiguous(String::new()));
        let logged = |reach: &Reach| {
            let mut outage = Outage::default();
            let seconds = (0..30).filter(|second| outage.failed(start + SECOND * *second, &error, reach));
            (seconds.collect::<Vec<_>>(), outage.worked(start + SECOND * 30).is_some())
        };
        assert_eq!(logged(&Reach::default()), (vec![10], true));
        let out = Reach::default();
        for second in [0, 5] {
            out.failed(start + SECOND * second, &error);
        }
        assert!(out.is_out(start + SECOND * 5));
        assert_eq!(logged(&out), (vec![], false));
    }
}
