//! Repeated calls beside those of the SDK, both through an HTTP client that records requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU32;
use std::time::UNIX_EPOCH;

use aws_credential_types::provider::{ProvideCredentials, future};
use aws_runtime::invocation_id::{InvocationId, InvocationIdGenerator};
use aws_sdk_kinesis::config::{BehaviorVersion, Builder, Credentials, Region, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient,
};

use super::*;
use crate::aws::calls::tests::connect;
use crate::aws::capture::Capturing;
use crate::aws::http::Http;
use crate::aws::kinesis::Stream;
use crate::budget::Budget;
use crate::metrics::{OfShard, OfWorker, Sink};
use crate::retrieval::{self, Answer, Api as _};
use crate::shard::ShardId;
use crate::stream::ConfiguredArn;

/// 2026-11-30 00:00 UTC.
pub(super) const START: u64 = 1_795_996_800;
const NOTHING_NEW: &str = r#"{"Records":[],"NextShardIterator":"next","MillisBehindLatest":0}"#;

/// The reaction of the endpoint to a request.
#[derive(Debug, Clone)]
pub(super) enum Does {
    Answers(u16, &'static str),
    /// Gives the usual answer, with that header.
    Says(&'static str, String),
    Refuses(&'static str),
    /// Ends the body after these bytes with an error.
    Cuts(&'static str),
    Resets,
    Hangs,
    RejectsRequest,
}

/// An endpoint with these reactions to the next requests; then it gives the usual answer, or one without records.
#[derive(Debug, Clone, Default)]
pub(super) struct Endpoint {
    pub(super) next: Arc<Mutex<VecDeque<Does>>>,
    pub(super) requests: Arc<Mutex<Vec<HttpRequest>>>,
    pub(super) retired: Arc<AtomicU32>,
    /// The answer without a reaction.
    pub(super) usual: Option<&'static str>,
}

impl Endpoint {
    pub(super) fn will(&self, does: Does) {
        self.next.lock().unwrap().push_back(does);
    }

    pub(super) fn requests(&self) -> Vec<HttpRequest> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

struct Cut(Option<&'static str>);

impl hyper::body::Body for Cut {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>>> {
        let part =
            self.0.take().map(|text| hyper::body::Frame::data(bytes::Bytes::from_static(text.as_bytes())));
        std::task::Poll::Ready(Some(part.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())))
    }
}

impl HttpConnector for Endpoint {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        connect(&request, &self.retired);
        self.requests.lock().unwrap().push(request.try_clone().unwrap());
        let answer = |status: u16, body: SdkBody| HttpResponse::new(status.try_into().unwrap(), body);
        let usual = self.usual.unwrap_or(NOTHING_NEW);
        let does = self.next.lock().unwrap().pop_front().unwrap_or(Does::Answers(200, usual));
        HttpConnectorFuture::ready(Ok(match does {
            Does::Answers(status, body) => answer(status, SdkBody::from(body)),
            Does::Says(name, value) => {
                let mut answer = answer(200, SdkBody::from(usual));
                answer.headers_mut().insert(name, value);
                answer
            }
            Does::Refuses(code) => {
                let body = format!(r#"{{"__type":"com.amazonaws.kinesis#{code}","message":"because"}}"#);
                answer(400, SdkBody::from(body))
            }
            Does::Cuts(part) => answer(200, SdkBody::from_body_1_x(Cut(Some(part)))),
            Does::Resets => return HttpConnectorFuture::ready(Err(ConnectorError::io("reset".into()))),
            Does::RejectsRequest => {
                return HttpConnectorFuture::ready(Err(ConnectorError::user("URI".into())));
            }
            Does::Hangs => return HttpConnectorFuture::new(std::future::pending()),
        }))
    }
}

impl HttpClient for Endpoint {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// A clock that tests set, in seconds after [`START`].
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(pub(super) Arc<AtomicI64>);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(START + self.0.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// Marks the calls that the SDK makes.
#[derive(Debug)]
pub(super) struct Marked;

impl InvocationIdGenerator for Marked {
    fn generate(&self) -> Result<Option<InvocationId>, BoxError> {
        Ok(Some(InvocationId::new("sdk".to_owned())))
    }
}

pub(super) fn is_of_sdk(request: &HttpRequest) -> bool {
    request.headers().get(INVOCATION) == Some("sdk")
}

/// Credentials that last for an hour; each load gives others.
#[derive(Debug, Clone, Default)]
pub(super) struct Rotating(pub(super) Clock, pub(super) Arc<AtomicU32>);

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        let (expiry, token) = (self.0.now() + Duration::from_secs(3_600), Some(format!("token{number}")));
        let id = format!("ID{number}");
        future::ProvideCredentials::ready(Ok(Credentials::new(id, "secret", token, Some(expiry), "test")))
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls(pub(super) Mutex<Vec<(String, bool)>>);

impl Sink for Calls {
    fn worker(&self, event: OfWorker<'_>) {
        if let OfWorker::Called { operation, ok, .. } = event {
            self.0.lock().unwrap().push((operation.to_owned(), ok));
        }
    }

    fn shard(&self, _: &ShardId, _: OfShard<'_>) {}
}

struct Rig {
    endpoint: Endpoint,
    clock: Clock,
    credentials: Rotating,
    calls: Arc<Calls>,
    stream: Stream,
}

impl Rig {
    fn new(configured: impl FnOnce(Builder) -> Builder) -> Self {
        Self::with(|config, credentials| configured(config.credentials_provider(credentials)))
    }

    fn unsigned() -> Self {
        Self::with(|config, _| config.allow_no_auth())
    }

    fn with(configured: impl FnOnce(Builder, SharedCredentialsProvider) -> Builder) -> Self {
        let (endpoint, clock) = (Endpoint::default(), Clock::default());
        let credentials = Rotating(clock.clone(), Arc::default());
        let calls = Arc::new(Calls::default());
        let count = Count(calls.clone());
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build())
            .time_source(clock.clone())
            .invocation_id_generator(Marked)
            .interceptor(count.clone())
            .http_client(Capturing(SharedHttpClient::new(endpoint.clone())));
        let client = aws_sdk_kinesis::Client::from_conf(
            configured(config, SharedCredentialsProvider::new(credentials.clone())).build(),
        );
        let http = Http::new(&crate::config::sdk::network::Network::default()).unwrap();
        let stream = Stream::new(client, "s".to_owned(), None, http, count);
        Self { endpoint, clock, credentials, calls, stream }
    }

    fn usual() -> Self {
        Self::new(|config| config)
    }

    async fn read(&self) -> Result<Answer, retrieval::Error> {
        self.stream.read("iterator\"1", 10, Budget::new(100_000).nothing()).await
    }

    /// One call of the SDK has succeeded: the next is repeated.
    async fn learned(self) -> Self {
        self.read().await.unwrap();
        self.endpoint.requests();
        self
    }

    async fn request(&self) -> HttpRequest {
        self.read().await.unwrap();
        let mut requests = self.endpoint.requests();
        assert_eq!(requests.len(), 1);
        requests.remove(0)
    }
}

pub(super) fn headers(request: &HttpRequest) -> BTreeMap<String, String> {
    request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The `authorization` of a request as the signing library makes it, apart from the SDK.
fn authorization(request: &HttpRequest, id: &str, time: SystemTime) -> String {
    let token = request.headers().get("x-amz-security-token").map(str::to_owned);
    let identity = Credentials::new(id, "secret", token, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-west-1")
        .name("kinesis")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let present = request.headers().get("authorization").unwrap();
    let signed = present.split_once("SignedHeaders=").unwrap().1.split(',').next().unwrap();
    let signed: Vec<&str> =
        signed.split(';').filter(|name| !["x-amz-date", "x-amz-security-token"].contains(name)).collect();
    let headers = request.headers().iter().filter(|(name, _)| signed.contains(name));
    let body = SignableBody::Bytes(request.body().bytes().unwrap());
    let signable = SignableRequest::new(request.method(), request.uri(), headers, body).unwrap();
    let (signed, _) = sign(signable, &params.into()).unwrap().into_parts();
    let found =
        signed.headers().find(|(name, _)| *name == "authorization").map(|(_, value)| value.to_owned());
    found.unwrap()
}

#[tokio::test(start_paused = true)]
async fn repeated_request_equals_the_request_of_the_sdk() {
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/s";
    let fips: fn(Builder) -> Builder = |config| config.use_fips(true).use_dual_stack(true);
    let elsewhere: fn(Builder) -> Builder = |config| config.endpoint_url("http://127.0.0.1:4567/path");
    for (configured, used) in [(fips, true), (fips, false), (elsewhere, true), (elsewhere, false)] {
        let mut rig = Rig::new(configured);
        let configured = ConfiguredArn { arn: arn.to_owned(), used };
        rig.stream = rig.stream.clone().with_arn(Some(configured));
        let (first, repeated) = (rig.request().await, rig.request().await);
        assert!(is_of_sdk(&first) && !is_of_sdk(&repeated));
        assert_eq!((first.method(), first.uri()), (repeated.method(), repeated.uri()));
        let json = |request: &HttpRequest| -> serde_json::Value {
            serde_json::from_slice(request.body().bytes().unwrap()).unwrap()
        };
        assert_eq!(json(&first), json(&repeated));
        let (mut theirs, mut ours) = (headers(&first), headers(&repeated));
        // The signatures differ if the order of the fields in the body does; both are verified below.
        for headers in [&mut theirs, &mut ours] {
            let authorization = headers.remove("authorization").unwrap();
            assert!(headers.remove(INVOCATION).is_some(), "it is not signed");
            headers.insert("signed".to_owned(), authorization.split("Signature=").next().unwrap().to_owned());
        }
        assert_eq!(ours, theirs);
        assert!(ours.contains_key("x-amz-security-token"));
        for request in [&first, &repeated] {
            let expected = authorization(request, "ID0", rig.clock.now());
            assert_eq!(request.headers().get("authorization"), Some(expected.as_str()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failure_is_that_of_the_sdk() {
    let all = [
        Does::Refuses("ProvisionedThroughputExceededException"),
        Does::Refuses("LimitExceededException"),
        Does::Refuses("KMSThrottlingException"),
        Does::Refuses("ExpiredIteratorException"),
        Does::Refuses("InvalidArgumentException"),
        Does::Refuses("ResourceNotFoundException"),
        Does::Refuses("AccessDeniedException"),
        Does::Refuses("ExpiredTokenException"),
        Does::Refuses("InvalidSignatureException"),
        Does::Refuses("UnrecognizedClientException"),
        Does::Refuses("KMSDisabledException"),
        Does::Refuses("UnknownOperationException"),
        Does::Answers(500, r#"{"__type":"InternalFailureException"}"#),
        Does::Answers(500, "<html>broken</html>"),
        Does::Answers(500, "{"),
        Does::Answers(501, r#"{"__type":"X"}"#),
        Does::Answers(503, ""),
        Does::Answers(404, "not here"),
        Does::Answers(302, ""),
        Does::Answers(200, ""),
        Does::Answers(200, r#"{"Records":[{"SequenceNumber":"1","#),
        Does::Answers(200, r#"{"Records":[{"SequenceNumber":"x","Data":"","PartitionKey":""}]}"#),
        Does::Cuts(&NOTHING_NEW[..20]),
        Does::Cuts(NOTHING_NEW),
        Does::Resets,
        Does::RejectsRequest,
        Does::Hangs,
    ];
    for does in all {
        let (first, second) = (Rig::usual(), Rig::usual().learned().await);
        for rig in [&first, &second] {
            // If the SDK makes the call again, the answer is as before.
            rig.endpoint.will(does.clone());
            rig.endpoint.will(does.clone());
        }
        let (theirs, ours) = (first.read().await.unwrap_err(), second.read().await.unwrap_err());
        assert!(!is_of_sdk(&second.endpoint.requests()[0]), "{does:?}");
        if matches!(does, Does::Hangs) {
            assert!(matches!(
                (&theirs, &ours),
                (retrieval::Error::Unavailable(_), retrieval::Error::Unavailable(_))
            ));
        } else {
            assert_eq!(ours, theirs, "{does:?}");
        }
        let retired = |rig: &Rig| rig.endpoint.retired.load(Ordering::Relaxed);
        assert_eq!(retired(&second) > 0, retired(&first) > 0, "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_refusal_of_the_request_is_sent_to_the_sdk() {
    for (code, again) in [
        ("ExpiredTokenException", true),
        ("InvalidSignatureException", true),
        ("AccessDeniedException", true),
        ("ProvisionedThroughputExceededException", false),
        ("ExpiredIteratorException", false),
        ("ResourceNotFoundException", false),
    ] {
        let rig = Rig::usual().learned().await;
        rig.endpoint.will(Does::Refuses(code));
        assert_eq!(rig.read().await.is_ok(), again, "{code}");
        let made: Vec<bool> = rig.endpoint.requests().iter().map(is_of_sdk).collect();
        assert_eq!(made, if again { vec![false, true] } else { vec![false] }, "{code}");
        assert!(!is_of_sdk(&rig.request().await), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_refreshed_once() {
    let rig = Rig::usual().learned().await;
    let id = |request: &HttpRequest| {
        let text = request.headers().get("authorization").unwrap().to_owned();
        text.split_once("Credential=").unwrap().1.split('/').next().unwrap().to_owned()
    };
    assert_eq!(id(&rig.request().await), "ID0");
    rig.clock.0.store(3_700, Ordering::Relaxed);
    let repeated = rig.request().await;
    assert!(!is_of_sdk(&repeated));
    assert_eq!(
        (id(&repeated).as_str(), repeated.headers().get("x-amz-security-token")),
        ("ID1", Some("token1"))
    );
    // The cache is that of the SDK.
    let _listed = rig.stream.client().list_shards().stream_name("s").send().await.is_ok();
    assert_eq!(id(&rig.endpoint.requests()[0]), "ID1");
    assert_eq!(rig.credentials.1.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn clock_follows_the_date_of_answers() {
    let rig = Rig::usual();
    let date = |seconds: u64| {
        let time = DateTime::from_secs(i64::try_from(START + seconds).unwrap());
        Does::Says("date", time.fmt(Format::HttpDate).unwrap())
    };
    let signed_at = |request: &HttpRequest| request.headers().get("x-amz-date").unwrap().to_owned();
    rig.endpoint.will(date(3_600));
    rig.endpoint.will(date(0));
    assert_eq!(signed_at(&rig.request().await), "20261130T000000Z");
    assert_eq!(signed_at(&rig.request().await), "20261130T010000Z", "an hour ahead, as the SDK measured");
    assert_eq!(signed_at(&rig.request().await), "20261130T000000Z", "as the repeated call measured");
    let rig = Rig::new(|config| config.disable_clock_skew_correction(true)).learned().await;
    rig.endpoint.will(date(3_600));
    rig.request().await;
    assert_eq!(signed_at(&rig.request().await), "20261130T000000Z");
}

#[tokio::test(start_paused = true)]
async fn sdk_makes_a_call_after_five_minutes() {
    let rig = Rig::usual().learned().await;
    tokio::time::advance(AGE - Duration::from_secs(1)).await;
    assert!(!is_of_sdk(&rig.request().await));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(is_of_sdk(&rig.request().await));
    assert!(!is_of_sdk(&rig.request().await));
}

#[tokio::test(start_paused = true)]
async fn unsigned_or_failed_call_is_not_repeated() {
    let rig = Rig::usual();
    rig.endpoint.will(Does::Refuses("AccessDeniedException"));
    rig.read().await.unwrap_err();
    rig.endpoint.requests();
    assert!(is_of_sdk(&rig.request().await));
    let unsigned = Rig::unsigned();
    assert!(is_of_sdk(&unsigned.request().await) && is_of_sdk(&unsigned.request().await));
}

#[tokio::test(start_paused = true)]
async fn repeated_calls_are_counted() {
    let rig = Rig::usual().learned().await;
    rig.request().await;
    rig.endpoint.will(Does::Refuses("LimitExceededException"));
    rig.read().await.unwrap_err();
    let calls: Vec<bool> = rig.calls.0.lock().unwrap().iter().map(|(_, ok)| *ok).collect();
    assert_eq!(calls, [true, true, false]);
    assert!(rig.calls.0.lock().unwrap().iter().all(|(operation, _)| operation == "GetRecords"));
}
