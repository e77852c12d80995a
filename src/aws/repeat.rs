//! Calls without the orchestrator of the SDK, which is most of what an idle shard costs: for each call it merges layers
//! of configuration and runs some twenty interceptors.
//!
//! The SDK makes the first call of an operation. When that has succeeded, the next calls repeat its request with another
//! body. They keep these parts of the SDK's call:
//!
//! | part | taken from |
//! |---|---|
//! | method, URI, headers, user agent | the request that the SDK sent, to the endpoint that it resolved |
//! | body | the SDK's serializer of the operation |
//! | HTTP: proxy, CA certificates, connections, connect and read timeout, [`Capture`](super::capture::Capture) | the SDK's HTTP client, with its settings |
//! | time limit | the SDK's timeouts, those of one attempt |
//! | credentials | the SDK's cache and provider, asked for each call: they are refreshed before they expire |
//! | signature | the SDK's signer with the SDK's options |
//! | clock | the offset to the service's clock, measured at each answer by the SDK's rule |
//! | answers and errors | the SDK's deserializer of the operation |
//! | the count of calls, and the retirement of connections without an answer, or with the status 500, 502, 503 or 504 | [`super::calls`] |
//!
//! The SDK makes a call again if there are no credentials, if the request cannot be signed, if the last one that it made
//! is [`AGE`] ago, and after each failure that is not [final](Operation::is_final), such as a refused signature: the
//! SDK's answer then counts, with what the SDK does about it, its retries included. Unsigned calls are never repeated.

use std::error::Error as _;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_runtime::auth::sigv4;
use aws_runtime::service_clock_skew::DisableClockSkewCorrection;
use aws_sdk_dynamodb::operation::update_item::{
    UpdateItem, UpdateItemError, UpdateItemInput, UpdateItemOutput,
};
use aws_sdk_kinesis::operation::get_records::{
    GetRecords, GetRecordsError, GetRecordsInput, GetRecordsOutput,
};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::{AuthScheme as _, AuthSchemeEndpointConfig, SharedAuthScheme};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{
    ResolveCachedIdentity as _, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut, Input,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::{GetIdentityResolver as _, RuntimeComponents};
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin as _;
use aws_smithy_runtime_api::client::ser_de::{
    DeserializeResponse as _, SerializeRequest as _, SharedRequestSerializer, SharedResponseDeserializer,
};
use aws_smithy_schema::protocol::SharedClientProtocol;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer, Layer};
use aws_smithy_types::date_time::Format;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::{Instant, sleep, timeout};

use super::calls::{Count, is_broken};
use super::error::{Failure, answered, causes, failure};
use super::skew::Watch;
use crate::unique;

/// The SDK makes a call of its own after this time, in case that it would send another request by now.
const AGE: Duration = Duration::from_secs(300);
/// Most bytes of an answer that are read. A row of DynamoDB has up to 400 KB.
const LARGEST: usize = 4 << 20;
/// Longest pause between a throttled call and the SDK's.
const THROTTLED: Duration = Duration::from_millis(100);
/// A clock offset measured by a slower call is not trusted (as in the SDK).
const SLOWEST: Duration = Duration::from_secs(15 * 60);

/// Headers that differ from call to call. The signer writes the first three.
const OWN_HEADERS: [&str; 5] =
    ["authorization", "x-amz-date", "x-amz-security-token", INVOCATION, "content-length"];
/// The id of a call, by which AWS finds it.
const INVOCATION: &str = "amz-sdk-invocation-id";

/// The number of the attempt, and how many there may be.
const ATTEMPT: &str = "amz-sdk-request";

/// An operation of a service.
pub(super) trait Operation: fmt::Debug {
    type Input: fmt::Debug + Send + Sync + 'static;
    type Output: fmt::Debug + Send + Sync + 'static;
    type Error: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static;
    const SERVICE: &'static str;
    const NAME: &'static str;

    /// The SDK's settings of the operation.
    fn config() -> Option<FrozenLayer>;

    /// Whether the SDK would be given this failure, too, and would not make the call again.
    fn is_final(failure: &Failure) -> bool;

    /// Whether this failure is a normal answer.
    fn is_normal(failure: &Failure) -> bool;
}

impl Operation for GetRecords {
    type Input = GetRecordsInput;
    type Output = GetRecordsOutput;
    type Error = GetRecordsError;
    const SERVICE: &'static str = "Kinesis";
    const NAME: &'static str = "GetRecords";

    fn config() -> Option<FrozenLayer> {
        Self::new().config()
    }

    /// The client does not retry: only a refusal that does not concern the shard is not final.
    fn is_final(failure: &Failure) -> bool {
        match failure {
            Failure::Answered { service_fault: true, .. } | Failure::Unanswered(_) => true,
            Failure::Answered { code, .. } => {
                failure.is_throttling()
                    || matches!(
                        code.as_str(),
                        "ExpiredIteratorException" | "InvalidArgumentException" | "ResourceNotFoundException"
                    )
            }
            Failure::NotSent(_) => false,
        }
    }

    fn is_normal(_: &Failure) -> bool {
        false
    }
}

impl Operation for UpdateItem {
    type Input = UpdateItemInput;
    type Output = UpdateItemOutput;
    type Error = UpdateItemError;
    const SERVICE: &'static str = "DynamoDB";
    const NAME: &'static str = "UpdateItem";

    fn config() -> Option<FrozenLayer> {
        Self::new().config()
    }

    /// The client retries: all that it might retry is left to it.
    fn is_final(failure: &Failure) -> bool {
        Self::is_normal(failure)
    }

    fn is_normal(failure: &Failure) -> bool {
        failure.code() == "ConditionalCheckFailedException"
    }
}

/// The outcome of a call.
pub(super) enum Made<T> {
    Done(Result<T, Failure>),
    /// The SDK has to make the call, and this is left of the time for it; none if no request was sent.
    Not(Option<Duration>),
}

/// Repeats one operation of a client.
#[derive(Debug)]
pub(super) struct Repeat<O> {
    count: Count,
    /// Notes the dates of answers.
    watch: Option<Watch>,
    pattern: Mutex<Option<Arc<Pattern>>>,
    operation: PhantomData<O>,
}

impl<O: Operation> Repeat<O> {
    pub(super) fn new(count: Count, watch: Option<Watch>) -> Self {
        Self { count, watch, pattern: Mutex::default(), operation: PhantomData }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Pattern>>> {
        self.pattern.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats calls like the one that this has observed, which has succeeded.
    pub(super) fn learn(&self, observed: &Observe<O>) {
        *self.lock() = observed.lock().take().map(Arc::new);
    }

    /// Makes the call. `prepare` is given the signed request.
    pub(super) async fn call(
        &self,
        input: O::Input,
        prepare: impl FnOnce(&mut HttpRequest),
    ) -> Made<O::Output> {
        let Some(pattern) = self.lock().clone().filter(|pattern| pattern.learned.elapsed() < AGE) else {
            return Made::Not(None);
        };
        let mut began = None;
        let connection = CaptureSmithyConnection::new();
        let sent = async {
            let mut request = pattern.signed::<O>(input).await.ok_or(Unsuccessful::NotSent)?;
            prepare(&mut request);
            request.add_extension(connection.clone());
            began = Some(Instant::now());
            pattern.send::<O>(request, self.watch.as_ref()).await
        };
        let outcome = match timeout(pattern.limit, sent).await {
            Ok(outcome) => outcome,
            Err(_) if began.is_none() => return Made::Not(None),
            Err(_) => Err(Unsuccessful::Late(pattern.limit)),
        };
        let Some(began) = began else {
            *self.lock() = None;
            return Made::Not(None);
        };
        let unsuccessful = match outcome {
            Ok(output) => {
                self.count.called(O::SERVICE, O::NAME, began.elapsed(), true);
                return Made::Done(Ok(output));
            }
            Err(unsuccessful) => unsuccessful,
        };
        if unsuccessful.retires()
            && let Some(connection) = connection.get()
        {
            connection.poison();
        }
        let failure = unsuccessful.failure::<O>();
        self.count.called(O::SERVICE, O::NAME, began.elapsed(), O::is_normal(&failure));
        if O::is_final(&failure) {
            return Made::Done(Err(failure));
        }
        *self.lock() = None;
        if failure.is_throttling() {
            // As before the SDK's second attempt.
            sleep(THROTTLED.mul_f64(fastrand::f64())).await;
        }
        Made::Not(Some(pattern.whole.saturating_sub(began.elapsed())))
    }
}

/// A repeated call without success.
#[derive(Debug)]
enum Unsuccessful {
    /// There are no credentials, or they do not suffice for a signature.
    NotSent,
    Connector(ConnectorError),
    Late(Duration),
    /// With the status.
    Answered(Failure, u16),
}

impl Unsuccessful {
    /// Whether the SDK would not use the connection again.
    fn retires(&self) -> bool {
        match self {
            Self::Connector(error) => is_broken(error),
            Self::Late(_) => true,
            Self::Answered(_, status) => matches!(status, 500 | 502 | 503 | 504),
            Self::NotSent => false,
        }
    }

    fn failure<O: Operation>(self) -> Failure {
        type Error<O> = SdkError<<O as Operation>::Error, HttpResponse>;
        match self {
            Self::NotSent => Failure::NotSent("not signed".to_owned()),
            Self::Connector(error) => failure(&Error::<O>::dispatch_failure(error)),
            Self::Late(limit) => {
                failure(&Error::<O>::timeout_error(format!("no answer to {} within {limit:?}", O::NAME)))
            }
            Self::Answered(failure, _) => failure,
        }
    }
}

/// A call that the SDK made, without its body, signature and ids.
#[derive(Debug)]
struct Pattern {
    learned: Instant,
    /// With the headers that are signed.
    request: HttpRequest,
    /// Headers that the SDK adds after signing.
    unsigned: Vec<(String, String)>,
    connector: SharedHttpConnector,
    /// The time limit of an attempt.
    limit: Duration,
    /// The time limit of a call with its retries.
    whole: Duration,
    /// Components of the SDK: for credentials with the local clock, for signatures with that of the service.
    local: RuntimeComponents,
    signing: RuntimeComponents,
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    scheme: SharedAuthScheme,
    time: SharedTimeSource,
    /// The offset of the service's clock in milliseconds; none if the SDK does not correct clocks.
    offset: Option<Arc<AtomicI64>>,
    /// The settings of the SDK's call, alone and with those of the operation.
    layer: FrozenLayer,
    bag: ConfigBag,
}

impl Pattern {
    /// None if the call has a part that is not repeated.
    fn of<O: Operation>(
        request: &HttpRequest,
        components: &RuntimeComponents,
        bag: &ConfigBag,
    ) -> Option<Self> {
        // A later attempt says when the earlier one began.
        if !request.headers().get(ATTEMPT)?.starts_with("attempt=1") {
            return None;
        }
        let authorization = request.headers().get("authorization")?;
        let signed = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?.split_once("SignedHeaders=")?.1;
        let signed: Vec<&str> = signed.split(',').next()?.split(';').collect();
        let mut repeated = request.try_clone()?;
        *repeated.body_mut() = SdkBody::empty();
        OWN_HEADERS.iter().for_each(|name| drop(repeated.headers_mut().remove(*name)));
        let unsigned = repeated.headers().iter().filter(|(name, _)| !signed.contains(name));
        let unsigned: Vec<(String, String)> =
            unsigned.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        unsigned.iter().for_each(|(name, _)| drop(repeated.headers_mut().remove(name)));
        if bag.load::<Endpoint>()?.properties().contains_key("authSchemes") {
            return None;
        }
        let timeouts = bag.load::<TimeoutConfig>()?;
        let limits = [timeouts.operation_timeout(), timeouts.operation_attempt_timeout()];
        let limit = limits.into_iter().flatten().min()?;
        let whole = timeouts.operation_timeout().unwrap_or(limit);
        let settings = HttpConnectorSettings::builder();
        let settings =
            timeouts.connect_timeout().into_iter().fold(settings, |made, time| made.connect_timeout(time));
        let settings =
            timeouts.read_timeout().into_iter().fold(settings, |made, time| made.read_timeout(time));

        let mut layer = Layer::new("repeated call");
        layer.store_put(timeouts.clone());
        layer.store_put(bag.load::<RetryConfig>()?.clone());
        // Of Kinesis; DynamoDB's operations know theirs.
        if let Some(protocol) = bag.load::<SharedClientProtocol>() {
            layer.store_put(protocol.clone());
        }
        layer.store_put(bag.load::<SigningRegion>()?.clone());
        layer.store_put(bag.load::<SigningName>()?.clone());
        let mut own = ConfigBag::base();
        let layer = layer.freeze();
        own.push_shared_layer(O::config()?).push_shared_layer(layer.clone());

        let time = components.time_source()?;
        let uncorrected = bag.load::<DisableClockSkewCorrection>();
        let is_corrected = !uncorrected.is_some_and(DisableClockSkewCorrection::is_disabled);
        let offset = is_corrected.then(Arc::<AtomicI64>::default);
        let service = match &offset {
            Some(offset) => SharedTimeSource::new(Offset { time: time.clone(), millis: offset.clone() }),
            None => time.clone(),
        };
        let scheme = components.auth_scheme(sigv4::SCHEME_ID)?;
        let resolver = components.identity_resolver(sigv4::SCHEME_ID)?;
        // Without the interceptors, which refer to this pattern.
        let part = |time: &SharedTimeSource| {
            RuntimeComponents::builder("repeated call")
                .with_auth_scheme(scheme.clone())
                .with_auth_scheme_option_resolver(Some(components.auth_scheme_option_resolver()))
                .with_endpoint_resolver(Some(components.endpoint_resolver()))
                .with_http_client(components.http_client())
                .with_identity_cache(Some(components.identity_cache()))
                .with_identity_resolver(sigv4::SCHEME_ID, resolver.clone())
                .with_retry_strategy(Some(components.retry_strategy()))
                .with_sleep_impl(components.sleep_impl())
                .with_time_source(Some(time.clone()))
                .build()
                .ok()
        };
        let (local, signing) = (part(&time)?, part(&service)?);
        Some(Self {
            learned: Instant::now(),
            request: repeated,
            unsigned,
            connector: components.http_client()?.http_connector(&settings.build(), &local),
            limit,
            whole,
            cache: components.identity_cache(),
            resolver,
            scheme,
            local,
            signing,
            time,
            offset,
            layer,
            bag: own,
        })
    }

    /// The request with this input; none if it cannot be signed.
    async fn signed<O: Operation>(&self, input: O::Input) -> Option<HttpRequest> {
        let resolver = self.resolver.clone();
        let identity = self.cache.resolve_cached_identity(resolver, &self.local, &self.bag).await.ok()?;
        let serializer = self.bag.load::<SharedRequestSerializer>()?;
        let mut settings = ConfigBag::base();
        settings.push_shared_layer(self.layer.clone());
        let mut made = serializer.serialize_input(Input::erase(input), &mut settings).ok()?;
        let body = std::mem::replace(made.body_mut(), SdkBody::taken());
        let mut request = self.request.try_clone()?;
        request.headers_mut().insert("content-length", body.bytes()?.len().to_string());
        *request.body_mut() = body;
        let endpoint = AuthSchemeEndpointConfig::empty();
        let signer = self.scheme.signer();
        signer.sign_http_request(&mut request, &identity, endpoint, &self.signing, &self.bag).ok()?;
        let headers = request.headers_mut();
        headers.insert(INVOCATION, unique::uuid(fastrand::u128(..)));
        for (name, value) in &self.unsigned {
            headers.insert(name.clone(), value.clone());
        }
        Some(request)
    }

    async fn send<O: Operation>(
        &self,
        request: HttpRequest,
        watch: Option<&Watch>,
    ) -> Result<O::Output, Unsuccessful> {
        let sent = self.time.now();
        let response = self.connector.call(request).await.map_err(Unsuccessful::Connector)?;
        if let Some(offset) = &self.offset
            && let Some(millis) = measured(&response, sent, self.time.now())
        {
            offset.store(millis, Ordering::Relaxed);
        }
        if let Some(watch) = watch {
            watch.answered(&response);
        }
        let status = response.status().as_u16();
        self.output::<O>(response).await.map_err(|failure| Unsuccessful::Answered(failure, status))
    }

    /// The output or the failure that the SDK makes of that answer.
    async fn output<O: Operation>(&self, response: HttpResponse) -> Result<O::Output, Failure> {
        let refuse = |error: BoxError, response| -> Failure {
            failure(&SdkError::<O::Error, HttpResponse>::response_error(error, response))
        };
        let mut response = response;
        let body = Limited::new(std::mem::replace(response.body_mut(), SdkBody::taken()), LARGEST);
        match body.collect().await {
            Ok(body) => *response.body_mut() = SdkBody::from(body.to_bytes()),
            Err(error) => return Err(refuse(error, response)),
        }
        let Some(deserializer) = self.bag.load::<SharedResponseDeserializer>() else {
            return Err(Failure::Unanswered("no deserializer".to_owned()));
        };
        let error = match deserializer.deserialize_nonstreaming_with_config(&response, &self.bag) {
            Ok(output) => {
                let output = output.downcast::<O::Output>();
                return output.map_err(|_| Failure::Unanswered("output of another operation".to_owned()));
            }
            Err(error) => error,
        };
        match error.as_operation_error().and_then(|error| error.downcast_ref::<O::Error>()) {
            Some(error) => Err(answered(error, response.status())),
            None => Err(refuse(error.source().map(causes).unwrap_or_default().into(), response)),
        }
    }
}

/// The clock of the service.
#[derive(Debug)]
struct Offset {
    time: SharedTimeSource,
    millis: Arc<AtomicI64>,
}

impl TimeSource for Offset {
    fn now(&self) -> SystemTime {
        let (now, millis) = (self.time.now(), self.millis.load(Ordering::Relaxed));
        let by = Duration::from_millis(millis.unsigned_abs());
        let moved = if millis < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        moved.unwrap_or(now)
    }
}

/// Milliseconds by which the service's clock is ahead of this machine's, by the date of an answer: half of the call's
/// duration has passed since then. None if the answer has no date, comes from a cache or is too slow.
fn measured(response: &HttpResponse, sent: SystemTime, received: SystemTime) -> Option<i64> {
    let took = received.duration_since(sent).unwrap_or_default();
    if response.headers().get("age").is_some() || took > SLOWEST {
        return None;
    }
    let date = DateTime::from_str(response.headers().get("date")?, Format::HttpDate).ok()?;
    let service = SystemTime::try_from(date).ok()?;
    let ours = sent + took / 2;
    match service.duration_since(ours) {
        Ok(ahead) => i64::try_from(ahead.as_millis()).ok(),
        Err(behind) => i64::try_from(behind.duration().as_millis()).ok().map(|millis| -millis),
    }
}

/// Observes a call of the SDK: an interceptor for that call.
#[derive(Debug)]
pub(super) struct Observe<O>(Arc<Mutex<Option<Pattern>>>, PhantomData<O>);

impl<O> Clone for Observe<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<O> Default for Observe<O> {
    fn default() -> Self {
        Self(Arc::default(), PhantomData)
    }
}

impl<O> Observe<O> {
    fn lock(&self) -> MutexGuard<'_, Option<Pattern>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Operation + Send + Sync + 'static> Intercept for Observe<O> {
    fn name(&self) -> &'static str {
        "Observe"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.lock() = Pattern::of::<O>(context.request(), components, bag);
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(pattern) = &*self.lock()
            && let (Some(offset), Some(time)) = (&pattern.offset, components.time_source())
        {
            // The call began when the pattern was made.
            let now = time.now();
            let sent = now.checked_sub(pattern.learned.elapsed()).unwrap_or(now);
            if let Some(millis) = measured(context.response(), sent, now) {
                offset.store(millis, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "repeat_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "repeat_write_tests.rs"]
mod write_tests;
