//! Whether a service can be reached, as all parts of a worker see it together.
//!
//! A service that is away for an hour is a few log lines, not as many for each shard or each kind of request: one when it
//! has given no answer to anything for five seconds, a reminder every ten minutes, and one with the length of the outage
//! when it answers again. A caller without an answer checks [`Reach::is_out`] before it logs a line of its own.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// Without any answer for this long, the service cannot be reached.
const OUT: Duration = Duration::from_secs(5);
/// A failure this long after the last one begins anew: nothing is known of the time between them.
const GAP: Duration = Duration::from_secs(120);
/// The time between lines about a service that still cannot be reached.
const REMIND: Duration = Duration::from_secs(600);

/// Whether the services that a worker needs can be reached.
#[derive(Debug, Clone, Default)]
pub struct Reaches {
    /// The lease table's.
    pub dynamodb: Arc<Reach>,
    /// The stream's.
    pub kinesis: Arc<Reach>,
}

impl Reaches {
    /// Of services at these URLs, or in these regions.
    pub fn at(kinesis: &str, dynamodb: &str) -> Self {
        Self {
            dynamodb: Arc::new(Reach {
                endpoint: dynamodb.to_owned(),
                lost: "cannot reach DynamoDB: no lease is renewed until it responds",
                back: "DynamoDB responds again",
                out: Mutex::default(),
            }),
            kinesis: Arc::new(Reach {
                endpoint: kinesis.to_owned(),
                lost: "cannot reach Kinesis: no shard is read until it responds",
                back: "Kinesis responds again",
                out: Mutex::default(),
            }),
        }
    }
}

/// Whether one service can be reached.
#[derive(Debug, Default)]
pub struct Reach {
    /// The URL of the service, or its region.
    endpoint: String,
    /// The message of an outage.
    lost: &'static str,
    /// The message of its end.
    back: &'static str,
    out: Mutex<Out>,
}

#[derive(Debug, Default)]
struct Out {
    /// When the first failure since the last answer was.
    since: Option<Instant>,
    /// When the last of these failures was.
    last: Option<Instant>,
    reported: Option<Instant>,
}

impl Reach {
    /// Notes a call without an answer, and logs that there is none when that is due.
    pub fn failed(&self, now: Instant, error: &dyn fmt::Display) {
        if let Some(lasted) = self.note_failure(now) {
            warn!(event = "endpoint_unreachable", %error, ?lasted, endpoint = self.endpoint, "{}", self.lost);
        }
    }

    /// Notes an answer, and logs it if it ends an outage that was logged.
    pub fn answered(&self, now: Instant) {
        if let Some(lasted) = self.note_answer(now) {
            info!(event = "endpoint_reachable", ?lasted, endpoint = self.endpoint, "{}", self.back);
        }
    }

    /// For how long there has been no answer, if that is to be logged now.
    fn note_failure(&self, now: Instant) -> Option<Duration> {
        let mut out = self.lock();
        if out.last.replace(now).is_some_and(|last| now > last + GAP) {
            (out.since, out.reported) = (None, None);
        }
        let lasted = now.saturating_duration_since(*out.since.get_or_insert(now));
        let due = lasted >= OUT && out.reported.is_none_or(|at| now >= at + REMIND);
        due.then(|| {
            out.reported = Some(now);
            lasted
        })
    }

    /// For how long there was no answer, if that was logged.
    fn note_answer(&self, now: Instant) -> Option<Duration> {
        let Out { since, reported, .. } = std::mem::take(&mut *self.lock());
        since.filter(|_| reported.is_some()).map(|since| now.saturating_duration_since(since))
    }

    /// Whether it is logged that the service cannot be reached, and calls still fail.
    pub fn is_out(&self, now: Instant) -> bool {
        let out = self.lock();
        out.reported.is_some() && out.last.is_some_and(|last| now <= last + GAP)
    }

    /// Whether calls fail and none has been answered since the first of them.
    pub fn is_silent(&self, now: Instant) -> bool {
        let out = self.lock();
        out.since.is_some() && out.last.is_some_and(|last| now <= last + GAP)
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_is_reported_once_for_all_shards_with_reminders_and_its_length() {
        let (reach, start) = (Reach::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        let reported = |from: u64, to: u64| -> Vec<u64> {
            let shards = (from..to).flat_map(|second| [second; 30]);
            shards.filter(|second| reach.note_failure(at(*second)).is_some()).collect()
        };
        assert_eq!(reported(0, 5), [0; 0]);
        assert!(reach.is_silent(at(5)) && !reach.is_out(at(5)));
        assert_eq!(reach.note_answer(at(5)), None, "too short");
        assert_eq!(reported(10, 1_000), [15, 615]);
        assert!(reach.is_out(at(999)) && !reach.is_out(at(1_200)), "nothing failed for long");
        assert_eq!(reach.note_answer(at(1_000)), Some(Duration::from_secs(990)));
        assert!(!reach.is_out(at(1_001)) && reach.note_answer(at(1_001)).is_none());
    }
}
