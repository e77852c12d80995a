//! The inputs of a feed: the shard, and the parts that all feeds of a daemon share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::closed::Closed;
use super::port::Api;
use super::queue::PrefetchLimits;
use super::registration::StreamConsumer;
use crate::budget::Budget;
use crate::clock::ServiceClock;
use crate::metrics::Sink;
use crate::reach::Reach;
use crate::recognition::Recognition;
use crate::shard::{self, HashRange, ShardId};
use crate::stream::StreamId;

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
    pub consumer: Option<Arc<StreamConsumer>>,
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
    /// AWS's clock.
    pub clock: ServiceClock,
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
