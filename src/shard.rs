//! Shards, their ranges and their relations, and the port through which they are listed.
//!
//! In KCL: `ShardDetector`, `HashKeyRangeForLease`; at AWS: the Kinesis `Shard` data type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::sequence::SequenceNumber;
use crate::stream::StreamId;

/// A future behind a port.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A shard's id, such as `shardId-000000000003`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

/// The first ten of some shards and the number of the others, for one field of a log line.
pub fn some<'a>(shards: impl IntoIterator<Item = &'a ShardId>) -> String {
    let mut shards = shards.into_iter();
    let shown: Vec<&str> = shards.by_ref().take(10).map(ShardId::as_str).collect();
    match shards.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl ShardId {
    /// The text.
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

/// The hash keys that a shard takes, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashRange {
    /// The lowest.
    pub start: u128,
    /// The highest.
    pub end: u128,
}

impl HashRange {
    /// Whether a hash key belongs to the shard.
    pub fn contains(&self, key: u128) -> bool {
        (self.start..=self.end).contains(&key)
    }
}

/// A shard as `ListShards` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The shard that it came from.
    pub parent: Option<ShardId>,
    /// The other shard that it came from, after a merge.
    pub adjacent_parent: Option<ShardId>,
    /// The hash keys that it takes.
    pub range: HashRange,
    /// Where it starts.
    pub starting: SequenceNumber,
    /// Where it ended; none while it is open.
    pub ending: Option<SequenceNumber>,
}

impl Shard {
    /// Its parents, one or two, as Kinesis gives them.
    pub fn parents(&self) -> impl Iterator<Item = &ShardId> {
        self.parent.iter().chain(self.adjacent_parent.iter())
    }
}

/// A shard as the last answer of its parent tells of it (`ChildShards`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildShard {
    /// Its id.
    pub id: ShardId,
    /// All shards that it came from.
    pub parents: Vec<ShardId>,
    /// The hash keys that it takes.
    pub range: HashRange,
}

/// Which shards to list, as `ShardFilter` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Every shard within retention.
    All,
    /// The shards that are open now.
    AtLatest,
    /// The shards that were open at the trim horizon.
    AtTrimHorizon,
    /// The shards that were open then, in milliseconds since 1970.
    AtTimestamp(i64),
}

/// Why shards could not be listed, by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such stream.
    #[error("stream {0} does not exist")]
    StreamMissing(String),
    /// Ask again later.
    #[error("Kinesis throttled ListShards: {0}")]
    Throttled(String),
    /// Nobody answered, or not in time: ask again.
    #[error("cannot reach Kinesis: {0}")]
    Unavailable(String),
    /// Asking again won't help.
    #[error("Kinesis rejected ListShards: {0}")]
    Denied(String),
}

/// Lists the shards of the one stream.
pub trait Api: Send + Sync {
    /// All pages of `ListShards`.
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, Error>>;

    /// The stream's ARN and creation time, of `DescribeStreamSummary`. [`Error::Denied`] where that call is not allowed
    /// or not known.
    fn identity(&self) -> BoxFuture<'_, Result<StreamId, Error>>;

    /// Whether a sequence number can be of this stream: `GetShardIterator` refuses the others with
    /// `InvalidArgumentException`. Whoever cannot tell says yes.
    fn has_number<'a>(
        &'a self,
        _shard: &'a ShardId,
        _number: &'a SequenceNumber,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Ok(true) })
    }
}

/// A stream with these shards, for tests: its shards and its identity change only when told to.
#[derive(Debug, Default)]
pub struct Listed {
    shards: std::sync::Mutex<Vec<Shard>>,
    identity: std::sync::Mutex<Option<StreamId>>,
}

impl Listed {
    /// With an identity that is unknown.
    pub fn new(shards: Vec<Shard>) -> Self {
        Self { shards: shards.into(), ..Self::default() }
    }

    /// It becomes this stream.
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
