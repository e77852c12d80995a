//! The operations: one type for each request, which implements its answer.

pub(super) mod consumers;
pub(super) mod reading;
pub(super) mod records;
pub(super) mod shards;
pub(super) mod streams;
pub(super) mod tags;
pub(super) mod writing;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::clock::Now;
use super::codec::Format;
use super::error::Exception;
use super::service::Service;

/// A request with a single answer: all operations except for SubscribeToShard.
pub(super) trait Request: DeserializeOwned {
    type Answer;

    /// The stream and shard of the request, for injected faults.
    fn scope(&self, service: &Service) -> Scope;

    fn answer(self, service: &Service, now: Now) -> Result<Self::Answer, Exception>;

    fn encode(answer: &Self::Answer, format: Format) -> Result<Bytes, Exception>;
}

/// The stream and shard that a request names, if it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) stream: Option<String>,
    pub(super) shard: Option<String>,
}

impl Scope {
    pub(super) fn stream(name: Option<&str>, arn: Option<&str>) -> Self {
        let of_arn = || arn.and_then(|arn| arn.rsplit_once("stream/")).map(|(_, name)| name);
        let name = name.or_else(of_arn).map(|name| name.split('/').next().unwrap_or(name));
        Self { stream: name.map(str::to_owned), shard: None }
    }

    pub(super) fn with_shard(mut self, shard: Option<&str>) -> Self {
        self.shard = shard.map(str::to_owned);
        self
    }
}

/// Encodes an answer that has a body.
pub(super) fn body<T: Serialize>(answer: &T, format: Format) -> Result<Bytes, Exception> {
    format.encode(answer)
}

macro_rules! operations {
    ($($name:ident),+ $(,)?) => {
        /// The operations of the endpoint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $(
                #[doc = concat!("<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_", stringify!($name), ".html>")]
                $name,
            )+
        }

        impl Operation {
            /// All operations.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name in the API and in `X-Amz-Target`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

operations! {
    AddTagsToStream,
    CreateStream,
    DecreaseStreamRetentionPeriod,
    DeleteStream,
    DeregisterStreamConsumer,
    DescribeLimits,
    DescribeStream,
    DescribeStreamConsumer,
    DescribeStreamSummary,
    GetRecords,
    GetShardIterator,
    IncreaseStreamRetentionPeriod,
    ListShards,
    ListStreamConsumers,
    ListStreams,
    ListTagsForStream,
    MergeShards,
    PutRecord,
    PutRecords,
    RegisterStreamConsumer,
    RemoveTagsFromStream,
    SplitShard,
    SubscribeToShard,
    UpdateMaxRecordSize,
    UpdateShardCount,
    UpdateStreamMode,
}

impl Operation {
    /// The operation of an `X-Amz-Target`.
    pub(super) fn of_target(target: &str) -> Option<Self> {
        let name = target.strip_prefix("Kinesis_20131202.")?;
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    /// The index in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Implements the methods of [`Request`] that most requests share.
macro_rules! about_stream {
    (answer = $answer:ty) => {
        type Answer = $answer;

        fn scope(&self, _: &Service) -> Scope {
            Scope::stream(self.stream_name.as_deref(), self.stream_arn.as_deref())
        }

        fn encode(answer: &Self::Answer, format: Format) -> Result<Bytes, Exception> {
            super::body(answer, format)
        }
    };
    (empty) => {
        type Answer = ();

        fn scope(&self, _: &Service) -> Scope {
            Scope::stream(self.stream_name.as_deref(), self.stream_arn.as_deref())
        }

        fn encode(_: &(), _: Format) -> Result<Bytes, Exception> {
            // AWS answers these without a body, in both formats.
            Ok(Bytes::new())
        }
    };
}
pub(super) use about_stream;
