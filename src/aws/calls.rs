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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
    use aws_smithy_runtime_api::client::connection::ConnectionMetadata;
    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::timeout::TimeoutConfig;

    use super::*;
    use crate::metrics::Discard;

    /// One connection, which answers like that, and whether it is to be given up.
    #[derive(Debug, Clone)]
    struct One {
        answers: fn() -> HttpConnectorFuture,
        given_up: Arc<AtomicU32>,
    }

    impl HttpConnector for One {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let given_up = self.given_up.clone();
            let connection = ConnectionMetadata::builder().proxied(false).poison_fn(move || {
                given_up.fetch_add(1, Ordering::Relaxed);
            });
            let connection = connection.build();
            if let Some(capture) = request.extension::<CaptureSmithyConnection>() {
                capture.set_connection_retriever(move || Some(connection.clone()));
            }
            (self.answers)()
        }
    }

    impl HttpClient for One {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    async fn given_up(answers: fn() -> HttpConnectorFuture) -> u32 {
        let one = One { answers, given_up: Arc::default() };
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::for_tests())
            .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build())
            .interceptor(Count(Arc::new(Discard)))
            .http_client(one.clone())
            .build();
        let client = aws_sdk_kinesis::Client::from_conf(config);
        let _outcome = client.get_records().shard_iterator("i").send().await.is_ok();
        one.given_up.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_came_is_given_up() {
        assert_eq!(given_up(|| HttpConnectorFuture::new(std::future::pending())).await, 1);
        let broken = || HttpConnectorFuture::ready(Err(ConnectorError::io("reset".into())));
        assert_eq!(given_up(broken).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_is_kept_and_one_whose_answer_had_no_room_too() {
        let answered = || {
            let body = SdkBody::from("{\"Records\":[]}");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), body)))
        };
        assert_eq!(given_up(answered).await, 0);
        let no_room = || HttpConnectorFuture::ready(Err(ConnectorError::other("no room".into(), None)));
        assert_eq!(given_up(no_room).await, 0);
    }
}
