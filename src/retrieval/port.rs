//! The port of polling, and the words that both ways of retrieval share: where reading starts, an answer, an error.

use crate::batch::Records;
use crate::budget::Reservation;
use crate::sequence::{Sequence, SequenceNumber};
use crate::shard::{BoxFuture, ChildShard, ShardId};

/// The position at which reading starts, as in `GetShardIterator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    TrimHorizon,
    /// Only new records.
    Latest,
    /// The first record that arrived at that time or later, in milliseconds since 1970.
    AtTimestamp(i64),
    /// The record with that sequence number.
    At(SequenceNumber),
    /// The record that follows the one with that sequence number.
    After(SequenceNumber),
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Latest => f.write_str("LATEST"),
            Self::AtTimestamp(millis) => write!(f, "AT_TIMESTAMP {millis}"),
            Self::At(number) => write!(f, "AT_SEQUENCE_NUMBER {number}"),
            Self::After(number) => write!(f, "AFTER_SEQUENCE_NUMBER {number}"),
        }
    }
}

impl Start {
    /// The start for a checkpoint: the record itself, because some user records of its aggregate may still be
    /// undelivered (the consumer filters out the delivered ones). None for `SHARD_END`, and for
    /// `AT_TIMESTAMP` if no timestamp is configured any more.
    pub fn of_checkpoint(sequence: &Sequence, timestamp: Option<i64>) -> Option<Self> {
        match sequence {
            Sequence::AtTimestamp => timestamp.map(Self::AtTimestamp),
            Sequence::TrimHorizon => Some(Self::TrimHorizon),
            Sequence::Latest => Some(Self::Latest),
            Sequence::Number(number) => Some(Self::At(number.clone())),
            Sequence::ShardEnd => None,
        }
    }
}

/// An answer of `GetRecords`, or an event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The records in order, with aggregates unexpanded.
    pub records: Records,
    /// The next position, an iterator or a sequence number; none at the end of the shard.
    pub next: Option<String>,
    /// `MillisBehindLatest`.
    pub millis_behind_latest: Option<i64>,
    /// The child shards, at the end of the shard.
    pub children: Vec<ChildShard>,
}

/// A failed read, distinguished by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The iterator has expired: get a new one.
    #[error("the shard iterator is no longer valid: {0}")]
    IteratorExpired(String),
    /// The call was throttled: wait, then retry.
    #[error("Kinesis throttled the request: {0}")]
    Throttled(String),
    /// The shard or the stream does not exist.
    #[error("Kinesis does not know the shard: {0}")]
    ShardMissing(String),
    /// The service did not answer or failed: retry.
    #[error("cannot reach Kinesis: {0}")]
    Unavailable(String),
    /// The call was refused, probably permanently: retry seldom and log it.
    #[error("Kinesis rejected the request: {0}")]
    Denied(String),
    /// Another subscription of the same consumer reads the shard.
    #[error("another subscription of the same consumer reads the shard: {0}")]
    Taken(String),
    /// The endpoint does not support the operation.
    #[error("the endpoint does not support the operation: {0}")]
    Unsupported(String),
    /// The answer has this many bytes and there is no memory for it now: reserve them, then retry.
    #[error("no room for a response of {0} bytes")]
    NoRoom(usize),
}

/// Reads shards of one stream.
pub trait Api: Send + Sync {
    /// `GetShardIterator`.
    fn iterator<'a>(&'a self, shard: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>>;

    /// `GetRecords`, with at most `limit` records. The answer uses the reservation `room`, or the part that
    /// it needs.
    fn read<'a>(
        &'a self,
        iterator: &'a str,
        limit: usize,
        room: Reservation,
    ) -> BoxFuture<'a, Result<Answer, Error>>;
}
