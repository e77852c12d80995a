//! Counts every attempt at a call of an AWS service with its duration, and retires connections on which no
//! answer came.
//!
//! The SDK's own interceptor for that sees only answers. An HTTP/2 connection whose other end has vanished
//! would be shared by every call until TCP gives up, a quarter of an hour later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

/// The interceptor, one for each client.
#[derive(Clone)]
pub(super) struct Count(pub(super) Arc<dyn Sink>);

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Count")
    }
}

impl Count {
    /// Counts an attempt.
    pub(super) fn called(&self, service: &str, operation: &str, took: Duration, ok: bool) {
        self.0.worker(OfWorker::Called { service, operation, took, ok });
    }
}

/// The start of the present attempt.
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
        // Without it the attempt ended before a request was sent, for example for lack of credentials.
        let (Some(Began(began)), Some(metadata)) = (bag.load::<Began>(), bag.load::<Metadata>()) else {
            return Ok(());
        };
        let answered = context.response().is_some_and(|response| response.status().is_success());
        let failed = context.output_or_error().is_some_and(|outcome| outcome.is_err());
        let refused = context.response().is_some_and(|response| is_condition(response.body().bytes()));
        let ok = (answered && !failed) || refused;
        self.called(metadata.service(), metadata.name(), began.elapsed(), ok);
        Ok(())
    }
}

/// Whether no answer came in time, or the connection broke. An answer that was received but not accepted is
/// no fault of the connection.
fn is_unanswered(context: &FinalizerInterceptorContextRef<'_>) -> bool {
    let Some(Err(error)) = context.output_or_error() else { return false };
    context.response().is_none()
        && (error.is_timeout_error() || error.as_connector_error().is_some_and(is_broken))
}

/// Whether the connection is at fault.
pub(super) fn is_broken(error: &ConnectorError) -> bool {
    !error.is_other() && !error.is_user()
}

/// Whether the body reports a failed condition, which is a normal answer: another worker was faster.
fn is_condition(body: Option<&[u8]>) -> bool {
    const NAME: &[u8] = b"ConditionalCheckFailedException";
    body.is_some_and(|body| body.windows(NAME.len()).any(|part| part == NAME))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

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

    /// A connection with these answers, and the number of times that it was retired.
    #[derive(Debug, Clone)]
    struct One {
        answers: fn() -> HttpConnectorFuture,
        retired: Arc<AtomicU32>,
    }

    /// Gives the request a connection that counts when it is retired.
    pub(in crate::aws) fn connect(request: &HttpRequest, retired: &Arc<AtomicU32>) {
        let retired = retired.clone();
        let connection = ConnectionMetadata::builder().proxied(false).poison_fn(move || {
            retired.fetch_add(1, Ordering::Relaxed);
        });
        let connection = connection.build();
        if let Some(capture) = request.extension::<CaptureSmithyConnection>() {
            capture.set_connection_retriever(move || Some(connection.clone()));
        }
    }

    impl HttpConnector for One {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            connect(&request, &self.retired);
            (self.answers)()
        }
    }

    impl HttpClient for One {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    async fn retired(answers: fn() -> HttpConnectorFuture) -> u32 {
        let one = One { answers, retired: Arc::default() };
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
        one.retired.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn unanswered_connection_is_retired() {
        assert_eq!(retired(|| HttpConnectorFuture::new(std::future::pending())).await, 1);
        let broken = || HttpConnectorFuture::ready(Err(ConnectorError::io("reset".into())));
        assert_eq!(retired(broken).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answered_connection_is_kept() {
        let answered = || {
            let body = SdkBody::from("{\"Records\":[]}");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), body)))
        };
        assert_eq!(retired(answered).await, 0);
        let no_room = || HttpConnectorFuture::ready(Err(ConnectorError::other("no room".into(), None)));
        assert_eq!(retired(no_room).await, 0);
    }
}
