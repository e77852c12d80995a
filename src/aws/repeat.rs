//! GetRecords without the orchestrator of the SDK, which is most of what an idle polled shard costs: for each call it
//! merges layers of configuration and runs some twenty interceptors.
//!
//! The SDK makes the first call of a stream. When that has succeeded, the next calls repeat its request with another
//! body. They keep these parts of the SDK's call:
//!
//! | part | taken from |
//! |---|---|
//! | method, URI, headers, user agent | the request that the SDK sent, to the endpoint that it resolved |
//! | HTTP: proxy, CA certificates, connections, connect and read timeout, [`Capture`] | the SDK's HTTP client, with its settings |
//! | time limit of the call | the SDK's timeouts |
//! | credentials | the SDK's cache and provider, asked for each call: they are refreshed before they expire |
//! | signature | the SDK's signer with the SDK's options |
//! | clock | the offset to the service's clock, measured at each answer by the SDK's rule |
//! | errors | the SDK's deserializer of GetRecords |
//! | the count of calls, and the retirement of connections without an answer, or with the status 500, 502, 503 or 504 | [`super::calls`] |
//!
//! There are no retries, as in the SDK's call of this client. The SDK makes a call again if there are no credentials, if
//! the request cannot be signed, if the last one that it made is [`AGE`] ago, and if a repeated request was refused for
//! a reason that does not concern the shard, such as its signature: the SDK's answer then counts, with what the SDK does
//! about it. Unsigned calls are never repeated.

use std::error::Error as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_runtime::auth::sigv4;
use aws_runtime::service_clock_skew::DisableClockSkewCorrection;
use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsError};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::{AuthScheme as _, AuthSchemeEndpointConfig, SharedAuthScheme};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{
    Identity, ResolveCachedIdentity as _, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::{GetIdentityResolver as _, RuntimeComponents};
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin as _;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse as _, SharedResponseDeserializer};
use aws_smithy_schema::protocol::SharedClientProtocol;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::{ConfigBag, Layer};
use aws_smithy_types::date_time::Format;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::calls::{Count, is_broken};
use super::capture::Capture;
use super::error::{Failure, answered, causes, failure};
use crate::unique;

/// The SDK makes a call of its own after this time, in case that it would send another request by now.
const AGE: Duration = Duration::from_secs(300);
/// Most bytes of an error that are read.
const LARGEST_ERROR: usize = 1 << 20;
/// A clock offset measured by a slower call is not trusted (as in the SDK).
const SLOWEST: Duration = Duration::from_secs(15 * 60);

/// Headers that differ from call to call. The signer writes the first three.
const OWN_HEADERS: [&str; 5] =
    ["authorization", "x-amz-date", "x-amz-security-token", INVOCATION, "content-length"];
/// The id of a call, by which AWS finds it.
const INVOCATION: &str = "amz-sdk-invocation-id";

/// The input of GetRecords.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Input<'a> {
    pub(super) shard_iterator: &'a str,
    pub(super) limit: i32,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    pub(super) stream_arn: Option<&'a str>,
}

/// Repeats GetRecords of one stream.
#[derive(Debug)]
pub(super) struct Repeat {
    count: Count,
    pattern: Mutex<Option<Arc<Pattern>>>,
}

impl Repeat {
    pub(super) fn new(count: Count) -> Self {
        Self { count, pattern: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Pattern>>> {
        self.pattern.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats calls like the one that this has observed, which has succeeded.
    pub(super) fn learn(&self, observed: &Observe) {
        let pattern = observed.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        *self.lock() = pattern.map(Arc::new);
    }

    /// Makes the call. The answer is in `capture`. None if the SDK has to make it, and `capture` is then unused.
    pub(super) async fn call(&self, input: &Input<'_>, capture: &Capture) -> Option<Result<(), Failure>> {
        let pattern = self.lock().as_ref().filter(|pattern| pattern.learned.elapsed() < AGE)?.clone();
        let mut began = None;
        let connection = CaptureSmithyConnection::new();
        let sent = pattern.send(input, capture, &connection, &mut began);
        let outcome = match timeout(pattern.limit, sent).await {
            Ok(outcome) => outcome,
            Err(_) if began.is_none() => return None,
            Err(_) => Err(Unsuccessful::Late(pattern.limit)),
        };
        let unsuccessful = match outcome {
            Ok(()) => None,
            Err(Unsuccessful::NotSent) => {
                *self.lock() = None;
                return None;
            }
            Err(other) => Some(other),
        };
        if unsuccessful.as_ref().is_some_and(Unsuccessful::retires)
            && let Some(connection) = connection.get()
        {
            connection.poison();
        }
        if let Some(began) = began {
            self.count.called("Kinesis", "GetRecords", began.elapsed(), unsuccessful.is_none());
        }
        match unsuccessful {
            None => Some(Ok(())),
            Some(Unsuccessful::Answered(failure, _)) if !concerns_shard(&failure) => {
                *self.lock() = None;
                None
            }
            Some(other) => Some(Err(other.failure())),
        }
    }
}

/// Whether the SDK would be given this answer, too, however the request is made.
fn concerns_shard(failure: &Failure) -> bool {
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

    fn failure(self) -> Failure {
        type Error = SdkError<GetRecordsError, HttpResponse>;
        match self {
            Self::NotSent => Failure::NotSent("not signed".to_owned()),
            Self::Connector(error) => failure(&Error::dispatch_failure(error)),
            Self::Late(limit) => {
                failure(&Error::timeout_error(format!("no answer to GetRecords within {limit:?}")))
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
    /// The time limit of a call.
    limit: Duration,
    /// Components of the SDK: for credentials with the local clock, for signatures with that of the service.
    local: RuntimeComponents,
    signing: RuntimeComponents,
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    scheme: SharedAuthScheme,
    time: SharedTimeSource,
    /// The offset of the service's clock in milliseconds; none if the SDK does not correct clocks.
    offset: Option<Arc<AtomicI64>>,
    bag: ConfigBag,
}

impl Pattern {
    /// None if the call has a part that is not repeated.
    fn of(request: &HttpRequest, components: &RuntimeComponents, bag: &ConfigBag) -> Option<Self> {
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
        let settings = HttpConnectorSettings::builder();
        let settings =
            timeouts.connect_timeout().into_iter().fold(settings, |made, time| made.connect_timeout(time));
        let settings =
            timeouts.read_timeout().into_iter().fold(settings, |made, time| made.read_timeout(time));

        let mut layer = Layer::new("repeated GetRecords");
        layer.store_put(timeouts.clone());
        layer.store_put(bag.load::<RetryConfig>()?.clone());
        layer.store_put(bag.load::<SharedClientProtocol>()?.clone());
        layer.store_put(bag.load::<SigningRegion>()?.clone());
        layer.store_put(bag.load::<SigningName>()?.clone());
        let mut own = ConfigBag::base();
        own.push_shared_layer(GetRecords::new().config()?).push_layer(layer);

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
            RuntimeComponents::builder("repeated GetRecords")
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
            cache: components.identity_cache(),
            resolver,
            scheme,
            local,
            signing,
            time,
            offset,
            bag: own,
        })
    }

    async fn send(
        &self,
        input: &Input<'_>,
        capture: &Capture,
        connection: &CaptureSmithyConnection,
        began: &mut Option<Instant>,
    ) -> Result<(), Unsuccessful> {
        let resolver = self.resolver.clone();
        let identity = self.cache.resolve_cached_identity(resolver, &self.local, &self.bag).await;
        let identity = identity.map_err(|_| Unsuccessful::NotSent)?;
        let mut request = self.signed(input, &identity).ok_or(Unsuccessful::NotSent)?;
        request.add_extension(capture.clone());
        request.add_extension(connection.clone());
        *began = Some(Instant::now());
        let sent = self.time.now();
        let response = self.connector.call(request).await.map_err(Unsuccessful::Connector)?;
        if let Some(offset) = &self.offset
            && let Some(millis) = measured(&response, sent, self.time.now())
        {
            offset.store(millis, Ordering::Relaxed);
        }
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status().as_u16();
        Err(Unsuccessful::Answered(self.refused(response).await, status))
    }

    /// The request with this input; none if it cannot be signed.
    fn signed(&self, input: &Input<'_>, identity: &Identity) -> Option<HttpRequest> {
        let body = serde_json::to_vec(input).ok()?;
        let mut request = self.request.try_clone()?;
        let headers = request.headers_mut();
        headers.insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body);
        let endpoint = AuthSchemeEndpointConfig::empty();
        let signer = self.scheme.signer();
        signer.sign_http_request(&mut request, identity, endpoint, &self.signing, &self.bag).ok()?;
        let headers = request.headers_mut();
        headers.insert(INVOCATION, unique::uuid(fastrand::u128(..)));
        for (name, value) in &self.unsigned {
            headers.insert(name.clone(), value.clone());
        }
        Some(request)
    }

    /// The failure that the SDK makes of that answer.
    async fn refused(&self, response: HttpResponse) -> Failure {
        type Error = SdkError<GetRecordsError, HttpResponse>;
        let mut response = response;
        let body = Limited::new(std::mem::replace(response.body_mut(), SdkBody::taken()), LARGEST_ERROR);
        match body.collect().await {
            Ok(body) => *response.body_mut() = SdkBody::from(body.to_bytes()),
            Err(error) => return failure(&Error::response_error(error, response)),
        }
        let Some(deserializer) = self.bag.load::<SharedResponseDeserializer>() else {
            return Failure::Unanswered("no deserializer".to_owned());
        };
        let error = match deserializer.deserialize_nonstreaming_with_config(&response, &self.bag) {
            Ok(_) => return failure(&Error::response_error("not an error", response)),
            Err(error) => error,
        };
        match error.as_operation_error().and_then(|error| error.downcast_ref::<GetRecordsError>()) {
            Some(error) => answered(error, response.status()),
            None => failure(&Error::response_error(error.source().map(causes).unwrap_or_default(), response)),
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
#[derive(Debug, Clone, Default)]
pub(super) struct Observe(Arc<Mutex<Option<Pattern>>>);

impl Observe {
    fn lock(&self) -> MutexGuard<'_, Option<Pattern>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Observe {
    fn name(&self) -> &'static str {
        "Observe"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.lock() = Pattern::of(context.request(), components, bag);
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
