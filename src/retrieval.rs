//! Records out of a shard.
//!
//! A [`Feed`] is one reading of one shard from a position on: a task that fetches ahead within bounds, and a
//! queue from which the consumer takes batches when its child is ready. Nothing here knows what was processed:
//! to read again from somewhere, drop the feed and open another.
//!
//! Invariant: what a feed gives is what the shard has, from the start position on, in order, each
//! record once, none left out, whatever fails on the way. A feed never gives up; it says the end of
//! a shard only if Kinesis said so.
//!
//! | module | holds |
//! |---|---|
//! | [`polling`] | GetRecords at a pace |
//! | [`fanout`] | SubscribeToShard: records pushed to a registered consumer |
//! | [`registration`] | that consumer, found or registered |
//! | `closed` | which shards take no more records |
//! | `failing` | which failed reads are logged |
//! | `place` | where a reading stands, and how it goes on after trouble |
//! | `queue` | batches fetched ahead, within bounds |
//! | [`aggregation`] | the user records within a KPL aggregate |
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
mod ticks;

pub use closed::Closed;
pub use queue::PrefetchLimits;
pub use ticks::Ticks;

/// Where reading starts, as `GetShardIterator` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    TrimHorizon,
    /// What comes from now on.
    Latest,
    /// The first record that arrived then or later, in milliseconds since 1970.
    AtTimestamp(i64),
    /// That record.
    At(SequenceNumber),
    /// The record after that one.
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
    /// Where to begin for a checkpoint: at the record itself, because user records of its aggregate
    /// may still be due (the consumer hides what is done). None at the end of a shard, and none for
    /// `AT_TIMESTAMP` when no time is configured any more.
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

/// One answer to `GetRecords`, or one event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The records, in order, aggregates as they came.
    pub records: Records,
    /// Where to go on, an iterator or a sequence number; none at the end of a shard.
    pub next: Option<String>,
    /// How far behind the tip.
    pub millis_behind_latest: Option<i64>,
    /// At the end of a shard: what it became.
    pub children: Vec<ChildShard>,
}

/// Why nothing was read, by what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Get a new iterator.
    #[error("the shard iterator is no longer valid: {0}")]
    IteratorExpired(String),
    /// Wait, then ask again.
    #[error("Kinesis throttled the request: {0}")]
    Throttled(String),
    /// There is no such shard or no such stream.
    #[error("Kinesis does not know the shard: {0}")]
    ShardMissing(String),
    /// No answer or a fault of the service: ask again.
    #[error("cannot reach Kinesis: {0}")]
    Unavailable(String),
    /// Refused for good, as far as one can tell: ask again, seldom, and say so.
    #[error("Kinesis rejected the request: {0}")]
    Denied(String),
    /// Another subscription of the same consumer has the shard.
    #[error("another subscription of the same consumer reads the shard: {0}")]
    Taken(String),
    /// This endpoint can't do it at all.
    #[error("the endpoint does not support the operation: {0}")]
    Unsupported(String),
    /// The answer has so many bytes, for which there is no room now: reserve it, then ask again.
    #[error("no room for a response of {0} bytes")]
    NoRoom(usize),
}

/// Reads shards of the one stream.
pub trait Api: Send + Sync {
    /// `GetShardIterator`.
    fn iterator<'a>(&'a self, shard: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>>;

    /// `GetRecords`: at most `limit` records. The answer takes the place of `room`, or as much as it needs.
    fn read<'a>(
        &'a self,
        iterator: &'a str,
        limit: usize,
        room: Reservation,
    ) -> BoxFuture<'a, Result<Answer, Error>>;
}

/// How to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `maxRecords`: records a call.
    pub max_records: usize,
    /// `idleTimeBetweenReadsInMillis`: from one good answer to the next call.
    pub idle: Duration,
    /// `multilangd.idleWhenBehindMillis`: the same while there is more to read.
    pub idle_behind: Duration,
    /// `millisBehindLatestThresholdForReducedTps`: nearer to the tip than this, this is the pause.
    pub near: Duration,
    /// `callProcessRecordsEvenForEmptyRecordList`: whether answers without records are of interest.
    pub keep_empty: bool,
    /// The first pause after a failure; they grow from there.
    pub retry: Duration,
    /// What is fetched ahead of one child at most.
    pub ahead: PrefetchLimits,
}

/// Everything that reading needs, of which there is one for the whole daemon.
#[derive(Clone)]
pub struct Source {
    /// Reads.
    pub api: Arc<dyn Api>,
    /// Tells whether a shard is really gone.
    pub shards: Arc<dyn shard::Api>,
    /// Which stream that is, and whether it is still the same.
    pub recognition: Arc<Recognition>,
    /// Who subscribes; none if records are polled.
    pub consumer: Option<Arc<registration::StreamConsumer>>,
    /// How.
    pub settings: Settings,
    /// What all shards may hold together.
    pub budget: Arc<Budget>,
    /// Which shards are closed, for those whose end Kinesis does not say.
    pub closed: Arc<Closed>,
    /// Whether Kinesis can be reached at all.
    pub reach: Arc<Reach>,
    /// Calls that may be under way at once.
    pub calls: Arc<Semaphore>,
    /// Common times for the reads of quiet shards.
    pub ticks: Arc<Ticks>,
    /// Counts.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A shard that is read, as its lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOfStream {
    /// Its id.
    pub id: ShardId,
    /// Its hash keys, against which the user records of aggregates are checked; without them they are not.
    pub range: Option<HashRange>,
    /// The stream that the lease is of; none if that is unknown.
    pub stream: Option<StreamId>,
}

/// One reading of one shard. Dropping it stops its task.
pub struct Feed {
    batches: queue::Batches,
    task: JoinSet<()>,
}

impl Feed {
    /// Starts reading.
    pub fn open(source: &Source, shard: ShardOfStream, start: Start) -> Self {
        let (sink, of) = (source.sink.clone(), shard.id.clone());
        sink.shard(&of, OfShard::Opening);
        let tell = Arc::new(move |records| sink.shard(&of, OfShard::Waiting { records }));
        let (ahead, batches) = queue::queue(source.settings.ahead, source.budget.share(), tell);
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

    /// The next batch. None only if the reading broke down, which is a bug. Cancel-safe.
    pub async fn next(&mut self) -> Option<Batch> {
        let batch = self.batches.next().await;
        if batch.is_none() {
            while let Some(ended) = self.task.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "task that reads the shard panicked");
                }
            }
        }
        batch
    }
}
