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

use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::batch::Batch;
use crate::metrics::OfShard;

pub mod aggregation;
mod closed;
mod failing;
pub mod fanout;
#[cfg(test)]
mod logged;
mod place;
pub mod polling;
mod port;
pub mod push;
mod queue;
pub mod registration;
mod source;

pub use closed::Closed;
pub use port::{Answer, Api, Error, Start};
pub use queue::PrefetchLimits;
pub use source::{Settings, ShardOfStream, Source};

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
                // At the end of the process the runtime cancels what still runs.
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(event = "reader_panicked", %error, "task that reads the shard panicked");
                }
            }
        }
        batch
    }
}
