//! Every attempt at a call is counted, whichever service, with how long it took; and a connection on which nothing came
//! is not used again.
//!
//! The SDK's own interceptor for that sees answers alone. An HTTP/2 connection whose other end is gone without a
//! word would be shared by every call until TCP gives up, a quarter of an hour later.

use std::fmt;
use std::sync::Arc;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use tokio::time::Instant;

use crate::metrics::{OfWorker, Sink};

/// An interceptor for a client.
#[derive(Clone)]
pub(super) struct Count(pub(super) Arc<dyn Sink>);

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Count")
    }
}

/// When the present attempt began.
#[derive(Debug)]
struct Began(Instant);

impl Storable for Began {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Count {
    fn name(&self) -> &'static str {
        "Count"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Began(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if is_unanswered(context)
            && let Some(connection) =
                bag.load::<CaptureSmithyConnection>().and_then(CaptureSmithyConnection::get)
        {
            connection.poison();
        }
        // Without it the attempt ended before anything was sent: no credentials, for one.
        let (Some(Began(began)), Some(metadata)) = (bag.load::<Began>(), bag.load::<Metadata>()) else {
            return Ok(());
        };
        let answered = context.response().is_some_and(|response| response.status().is_success());
        let failed = context.output_or_error().is_some_and(|outcome| outcome.is_err());
        let refused = context.response().is_some_and(|response| is_condition(response.body().bytes()));
        self.0.worker(OfWorker::Called {
            service: metadata.service(),
            operation: metadata.name(),
            took: began.elapsed(),
            ok: (answered && !failed) || refused,
        });
        Ok(())
    }
}

/// Nothing came in time, or the connection broke. What was answered and not taken is no fault of the connection.
fn is_unanswered(context: &FinalizerInterceptorContextRef<'_>) -> bool {
    let Some(Err(error)) = context.output_or_error() else { return false };
    let broke = |error: &ConnectorError| !error.is_other() && !error.is_user();
    context.response().is_none()
        && (error.is_timeout_error() || error.as_connector_error().is_some_and(broke))
}

/// A condition that doesn't hold is an answer like any other: somebody else was first.
fn is_condition(body: Option<&[u8]>) -> bool {
    const NAME: &[u8] = b"ConditionalCheckFailedException";
    body.is_some_and(|body| body.windows(NAME.len()).any(|part| part == NAME))
}
