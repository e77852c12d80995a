//! An endpoint under test, and operations that many cases share.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Region, StalledStreamProtectionConfig};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ConsumerStatus, Record, Shard, ShardIteratorType, StreamStatus};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use multilangd::local::kinesis::{Kinesis, Options};

/// The reason why a case failed.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

pub(crate) type Outcome = Result<(), Failure>;

impl<E: Debug, R: Debug> From<SdkError<E, R>> for Failure {
    fn from(error: SdkError<E, R>) -> Self {
        Self(format!("a call failed: {error:?}"))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::endpoint::Failure(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

macro_rules! ensure_eq {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::endpoint::Failure(format!(
                "{}:{}: {} is {left:?}, wanted {right:?}",
                file!(),
                line!(),
                stringify!($left)
            )));
        }
    }};
}
pub(crate) use ensure_eq;

/// Unwraps a field of a response; the error names the missing field.
pub(crate) fn some<T>(value: Option<T>, what: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure(format!("{what} is missing")))
}

/// The error code and message of a call that must be rejected.
pub(crate) fn refused<T: Debug, E, R>(answer: Result<T, SdkError<E, R>>) -> Result<(String, String), Failure>
where
    E: ProvideErrorMetadata + Debug,
    R: Debug,
{
    match answer {
        Ok(answer) => Err(Failure(format!("not refused: {answer:?}"))),
        Err(SdkError::ServiceError(error)) => {
            let meta = error.err().meta();
            Ok((meta.code().unwrap_or_default().to_owned(), meta.message().unwrap_or_default().to_owned()))
        }
        Err(error) => Err(Failure(format!("not refused by the service: {error:?}"))),
    }
}

/// Adds the headers of a signed request, without which kinesis-local rejects it. Neither endpoint verifies the
/// signature.
#[derive(Debug)]
struct LooksSigned;

impl Intercept for LooksSigned {
    fn name(&self) -> &'static str {
        "LooksSigned"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.insert("authorization", AUTHORIZATION);
        headers.insert("x-amz-date", "20300101T000000Z");
        Ok(())
    }
}

pub(crate) const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=test/20300101/us-east-1/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";

/// An endpoint under test.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) client: Client,
}

static NAMES: AtomicU64 = AtomicU64::new(0);

impl Endpoint {
    pub(crate) fn new(url: &str) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .allow_no_auth()
            .interceptor(LooksSigned)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().read_timeout(Duration::from_secs(30)).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self { url: url.to_owned(), client: Client::from_conf(config) }
    }

    pub(crate) fn of(kinesis: &Kinesis) -> Self {
        Self::new(&kinesis.url())
    }

    /// A stream name that no other case uses.
    pub(crate) fn name(&self) -> String {
        let number = NAMES.fetch_add(1, Ordering::SeqCst);
        format!("contract-{}-{number}", std::process::id())
    }

    /// Creates a stream with `shards` shards, waits until it is active, and returns its name.
    pub(crate) async fn stream(&self, shards: i32) -> Result<String, Failure> {
        let name = self.name();
        self.client.create_stream().stream_name(&name).shard_count(shards).send().await?;
        self.ready(&name).await?;
        Ok(name)
    }

    /// Polls until the stream is active.
    pub(crate) async fn ready(&self, name: &str) -> Outcome {
        for _ in 0..10_000 {
            let answer = self.client.describe_stream_summary().stream_name(name).send().await?;
            let summary = some(answer.stream_description_summary, "the summary")?;
            if summary.stream_status == StreamStatus::Active {
                return Ok(());
            }
        }
        Err(Failure(format!("stream {name} did not become active")))
    }

    pub(crate) async fn shards(&self, stream: &str) -> Result<Vec<Shard>, Failure> {
        let answer = self.client.list_shards().stream_name(stream).send().await?;
        Ok(answer.shards.unwrap_or_default())
    }

    /// Puts a record and returns its sequence number.
    pub(crate) async fn put(&self, stream: &str, data: &str) -> Result<String, Failure> {
        let answer = self
            .client
            .put_record()
            .stream_name(stream)
            .partition_key("k")
            .data(Blob::new(data))
            .send()
            .await?;
        Ok(answer.sequence_number)
    }

    pub(crate) async fn put_with_hash_key(
        &self,
        stream: &str,
        hash_key: &str,
        data: &str,
    ) -> Result<String, Failure> {
        let put = self.client.put_record().stream_name(stream).partition_key("k");
        let answer = put.explicit_hash_key(hash_key).data(Blob::new(data)).send().await?;
        Ok(answer.sequence_number)
    }

    pub(crate) async fn arn(&self, stream: &str) -> Result<String, Failure> {
        let answer = self.client.describe_stream_summary().stream_name(stream).send().await?;
        Ok(some(answer.stream_description_summary, "the summary")?.stream_arn)
    }

    /// Registers a consumer, polls until it is active, and returns its ARN.
    pub(crate) async fn consumer(&self, stream_arn: &str, name: &str) -> Result<String, Failure> {
        let register = self.client.register_stream_consumer().stream_arn(stream_arn).consumer_name(name);
        let arn = some(register.send().await?.consumer, "the consumer")?.consumer_arn;
        for _ in 0..10_000 {
            let answer = self.client.describe_stream_consumer().consumer_arn(&arn).send().await?;
            let description = some(answer.consumer_description, "the description")?;
            if description.consumer_status == ConsumerStatus::Active {
                return Ok(arn);
            }
        }
        Err(Failure(format!("consumer {arn} did not become active")))
    }

    pub(crate) async fn split(&self, stream: &str, shard: &str, at: &str) -> Outcome {
        let split = self.client.split_shard().stream_name(stream).shard_to_split(shard);
        split.new_starting_hash_key(at).send().await?;
        self.ready(stream).await
    }

    pub(crate) async fn merge(&self, stream: &str, left: &str, right: &str) -> Outcome {
        let merge = self.client.merge_shards().stream_name(stream).shard_to_merge(left);
        merge.adjacent_shard_to_merge(right).send().await?;
        self.ready(stream).await
    }

    pub(crate) async fn iterator(
        &self,
        stream: &str,
        shard: &str,
        kind: ShardIteratorType,
    ) -> Result<String, Failure> {
        let answer = self
            .client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard)
            .shard_iterator_type(kind)
            .send()
            .await?;
        some(answer.shard_iterator, "the iterator")
    }

    /// Reads a shard from its beginning to its tip or end.
    pub(crate) async fn read_all(&self, stream: &str, shard: &str) -> Result<Vec<Record>, Failure> {
        let mut iterator = self.iterator(stream, shard, ShardIteratorType::TrimHorizon).await?;
        let mut records = Vec::new();
        for _ in 0..1000 {
            let answer = self.client.get_records().shard_iterator(&iterator).send().await?;
            records.extend(answer.records);
            match answer.next_shard_iterator {
                Some(next) if answer.millis_behind_latest != Some(0) => iterator = next,
                Some(_) | None => return Ok(records),
            }
        }
        Err(Failure("the shard has no end".to_owned()))
    }
}

/// A record's data as text.
pub(crate) fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.data.as_ref()).into_owned()
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(text).collect()
}

/// Starts an embedded endpoint with the options of a case.
pub(crate) async fn ours(options: Options) -> Kinesis {
    match Kinesis::start(options).await {
        Ok(kinesis) => kinesis,
        Err(error) => panic!("the endpoint does not start: {error}"),
    }
}
