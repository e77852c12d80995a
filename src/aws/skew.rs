//! Warns about a wrong clock. A fleet compares times of different machines: of worker metrics, and of the
//! steps of a migration. The leader does not see a worker whose clock is a minute off, or never considers it
//! dead.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use tokio::time::Instant;
use tracing::warn;

use crate::clock::{self, ServiceTime, TOLERATED_SKEW_MILLIS};

/// Interval between warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(600);

/// Compares this machine's wall clock with the date of each answer, and notes the date.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    warned: Arc<Mutex<Option<Instant>>>,
    service: ServiceTime,
}

impl Watch {
    /// Notes dates in `service`.
    pub(super) fn new(service: ServiceTime) -> Self {
        Self { service, ..Self::default() }
    }

    /// Notes the date of an answer.
    pub(super) fn answered(&self, response: &HttpResponse) {
        let Some(theirs) = response.headers().get("date").and_then(millis_of) else { return };
        self.service.received(theirs, Instant::now());
        let Some(millis) = ahead(theirs, clock::wall_millis()) else { return };
        let mut last = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= WARN_INTERVAL) {
            *last = Some(Instant::now());
            let (seconds, way) = (millis.abs() / 1_000, if millis > 0 { "ahead of" } else { "behind" });
            warn!(
                event = "clock_skewed",
                "the clock of this machine is {seconds} s {way} the clock of DynamoDB: other workers \
                 misjudge the age of its worker metrics (synchronise the clock with NTP)"
            );
        }
    }
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "Watch"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.answered(context.response());
        Ok(())
    }
}

/// An HTTP date in milliseconds since 1970. It has a resolution of a second.
fn millis_of(date: &str) -> Option<i64> {
    DateTime::from_str(date, Format::HttpDate).ok()?.to_millis().ok()
}

/// Milliseconds by which `now` is ahead of the date of a response, if that is more than tolerated.
fn ahead(theirs: i64, now: i64) -> Option<i64> {
    let ahead = if now > theirs { (now - theirs - 999).max(0) } else { now - theirs };
    (ahead.abs() > TOLERATED_SKEW_MILLIS).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_off_by_more_than_five_seconds_is_reported() {
        let date = "Mon, 23 Nov 2026 12:00:00 GMT";
        let theirs = millis_of(date).unwrap();
        for millis in [0, 999, 5_999, -5_000] {
            assert_eq!(ahead(theirs, theirs + millis), None, "{millis}");
        }
        assert_eq!(ahead(theirs, theirs + 61_000), Some(60_001));
        assert_eq!(ahead(theirs, theirs - 60_000), Some(-60_000));
        assert_eq!(millis_of("no date"), None);
    }
}
