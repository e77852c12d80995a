//! Retrieval of the records of a shard.
//!
//! A [`Feed`] reads one shard from a position: a task prefetches batches within limits, and the consumer
//! takes them from a queue when its child is ready. This module does not know what was processed: to read
//! again from a position, drop the feed and open another.
//!
//! Invariant: a feed delivers every record of the shard from its start position, in order, once, whatever
//! fails. A feed never stops trying, and reports the end of a shard only if Kinesis reported it.
//!
//! | module | holds |
//! |---|---|
//! | [`polling`] | polling by GetRecords |
//! | [`fanout`] | enhanced fan-out: SubscribeToShard for a registered consumer |
//! | [`registration`] | finding or registering that consumer |
//! | `closed` | the shards that accept no more records |
//! | `failing` | the failed reads that are logged |
//! | `place` | the position of a feed, and how it resumes after a failure |
//! | `queue` | prefetched batches, within limits |
//! | [`aggregation`] | the user records of a KPL aggregate |
//!
//! In KCL: package `software.amazon.kinesis.retrieval`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::batch::{Batch, Records};
use crate::budget::{Budget, Reservation};
use crate::metrics::{OfShard, Sink};
use crate::reach::Reach;
use crate::recognition::Recognition;
use crate::sequence::{Sequence, SequenceNumber};
use crate::shard::{self, BoxFuture, ChildShard, HashRange, ShardId};
use crate::stream::StreamId;

pub mod aggregation;
mod closed;
mod failing;
pub mod fanout;
#[cfg(test)]
mod logged;
mod place;
pub mod polling;
mod queue;
pub mod registration;

pub use closed::Closed;
pub use queue::PrefetchLimits;

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

/// Settings of retrieval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `maxRecords`: most records per call.
    pub max_records: usize,
    /// `idleTimeBetweenReadsInMillis`: from an answer to the next call.
    pub idle: Duration,
    /// `multilangd.idleWhenBehindMillis`: this pause while `MillisBehindLatest` is not 0.
    pub idle_behind: Duration,
    /// `millisBehindLatestThresholdForReducedTps`: closer to the tip than this, this is the pause.
    pub near: Duration,
    /// `callProcessRecordsEvenForEmptyRecordList`: whether answers without records are delivered.
    pub keep_empty: bool,
    /// The first pause after a failure; later ones grow exponentially.
    pub retry: Duration,
    /// Limits of the prefetch queue of one shard.
    pub ahead: PrefetchLimits,
}

/// Shared dependencies of all feeds of the daemon.
#[derive(Clone)]
pub struct Source {
    /// Reads shards by polling.
    pub api: Arc<dyn Api>,
    /// Lists shards, to check whether a missing shard has ended.
    pub shards: Arc<dyn shard::Api>,
    /// The stream's identity, and whether it is unchanged.
    pub recognition: Arc<Recognition>,
    /// The registered consumer; none if records are polled.
    pub consumer: Option<Arc<registration::StreamConsumer>>,
    /// Settings of retrieval.
    pub settings: Settings,
    /// Memory that all shards share.
    pub budget: Arc<Budget>,
    /// The closed shards, for endpoints that do not report the end of a shard.
    pub closed: Arc<Closed>,
    /// Whether Kinesis can be reached.
    pub reach: Arc<Reach>,
    /// Limits the number of concurrent calls.
    pub calls: Arc<Semaphore>,
    /// Receives events.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A shard to read, by its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOfStream {
    /// The shard's id.
    pub id: ShardId,
    /// The shard's hash keys, by which user records of aggregates are checked; none for no check.
    pub range: Option<HashRange>,
    /// The stream that the lease belongs to; none if unknown.
    pub stream: Option<StreamId>,
}

/// Reads one shard. Dropping a feed stops its task.
pub struct Feed {
    batches: queue::Batches,
    task: JoinSet<()>,
}

impl Feed {
    /// Starts reading.
    pub fn open(source: &Source, shard: ShardOfStream, start: Start) -> Self {
        let (sink, of) = (source.sink.clone(), shard.id.clone());
        sink.shard(&of, OfShard::Opening);
        let on_change = Arc::new(move |records| sink.shard(&of, OfShard::Waiting { records }));
        let (ahead, batches) = queue::queue(source.settings.ahead, source.budget.share(), on_change);
        let place = place::Place::new(source.clone(), shard, start);
        let consumer = source.consumer.clone();
        let mut task = JoinSet::new();
        let read = async move {
            let left = match consumer {
                Some(consumer) => fanout::Fanout::new(place, consumer).run(&ahead).await,
                None => Some(place),
            };
            if let Some(place) = left {
                polling::Polling::new(place).run(&ahead).await;
            }
        };
        task.spawn(read.in_current_span());
        Self { batches, task }
    }

    /// The next batch. None only if the task panicked, which is a bug. Cancel-safe.
    pub async fn next(&mut self) -> Option<Batch> {
        let batch = self.batches.next().await;
        if batch.is_none() {
            while let Some(ended) = self.task.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(event = "reader_panicked", %error, "task that reads the shard panicked");
                }
            }
        }
        batch
    }
}
