//! Shards, their hash key ranges and relations, and the port through which they are listed.
//!
//! In KCL: `ShardDetector`, `HashKeyRangeForLease`; at AWS: the Kinesis `Shard` data type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::sequence::SequenceNumber;
use crate::stream::StreamId;

/// A boxed future, as the methods of ports return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A shard's id, such as `shardId-000000000003`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

/// The first ten of some shards or leases and the number of the others, for one field of a log line.
pub fn some(shards: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let mut shards = shards.into_iter();
    let shown: Vec<String> = shards.by_ref().take(10).map(|shard| shard.to_string()).collect();
    match shards.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl ShardId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ShardId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The range of hash keys that a shard covers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashRange {
    /// The lowest hash key.
    pub start: u128,
    /// The highest hash key.
    pub end: u128,
}

impl HashRange {
    /// Whether `key` is in the range.
    pub fn contains(&self, key: u128) -> bool {
        (self.start..=self.end).contains(&key)
    }
}

/// A shard as `ListShards` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The shard's id.
    pub id: ShardId,
    /// The shard that this one was split or merged from.
    pub parent: Option<ShardId>,
    /// The second parent, after a merge.
    pub adjacent_parent: Option<ShardId>,
    /// The hash keys that the shard covers.
    pub range: HashRange,
    /// `StartingSequenceNumber`.
    pub starting: SequenceNumber,
    /// `EndingSequenceNumber`; none while the shard is open.
    pub ending: Option<SequenceNumber>,
}

impl Shard {
    /// The one or two parents, in the order in which Kinesis reports them.
    pub fn parents(&self) -> impl Iterator<Item = &ShardId> {
        self.parent.iter().chain(self.adjacent_parent.iter())
    }
}

/// A child shard as the last answer of its parent reports it (`ChildShards`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildShard {
    /// The shard's id.
    pub id: ShardId,
    /// All parents of the shard.
    pub parents: Vec<ShardId>,
    /// The hash keys that the shard covers.
    pub range: HashRange,
}

/// The shards to list. At AWS: `ShardFilter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// All shards within the retention period.
    All,
    /// The shards that are open now.
    AtLatest,
    /// The shards that were open at the trim horizon.
    AtTrimHorizon,
    /// The shards that were open at that time, in milliseconds since 1970.
    AtTimestamp(i64),
}

/// A failure to list shards, distinguished by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stream does not exist.
    #[error("stream {0} does not exist")]
    StreamMissing(String),
    /// The configured ARN is of another region or account than the stream that was found by its name.
    #[error(
        "streamArn is {configured}, but the stream of that name is {found} for these credentials and this region (set \
         multilangd.useStreamArn = true to read the stream of another account, or correct streamArn, \
         the region or the credentials)"
    )]
    Namesake {
        /// `streamArn`.
        configured: String,
        /// The ARN that `DescribeStreamSummary` returned.
        found: String,
    },
    /// The call was throttled: retry later.
    #[error("Kinesis throttled ListShards: {0}")]
    Throttled(String),
    /// No answer arrived, or not in time: retry.
    #[error("cannot reach Kinesis: {0}")]
    Unavailable(String),
    /// The call was refused: a retry does not help.
    #[error("Kinesis rejected ListShards: {0}")]
    Denied(String),
}

/// Lists the shards of one stream.
pub trait Api: Send + Sync {
    /// All pages of `ListShards`.
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, Error>>;

    /// The stream's ARN and creation time, of `DescribeStreamSummary`. [`Error::Denied`] if that call is not
    /// allowed or not supported.
    fn identity(&self) -> BoxFuture<'_, Result<StreamId, Error>>;

    /// Whether a sequence number can be of this stream: `GetShardIterator` refuses others with
    /// `InvalidArgumentException`. An implementation that cannot decide returns true.
    fn has_number<'a>(
        &'a self,
        _shard: &'a ShardId,
        _number: &'a SequenceNumber,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Ok(true) })
    }
}

/// A stream with these shards, for tests. Its shards and identity change only by [`Listed::become_stream`].
#[derive(Debug, Default)]
pub struct Listed {
    shards: std::sync::Mutex<Vec<Shard>>,
    identity: std::sync::Mutex<Option<StreamId>>,
}

impl Listed {
    /// A stream with these shards and an unknown identity.
    pub fn new(shards: Vec<Shard>) -> Self {
        Self { shards: shards.into(), ..Self::default() }
    }

    /// Replaces the identity and the shards.
    pub fn become_stream(&self, identity: Option<StreamId>, shards: Vec<Shard>) {
        *self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = identity;
        *self.shards.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = shards;
    }
}

impl Api for Listed {
    fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, Error>> {
        let shards = self.shards.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Box::pin(async { Ok(shards) })
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, Error>> {
        let identity = self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Box::pin(async { identity.ok_or_else(|| Error::Denied("not described".to_owned())) })
    }
}
