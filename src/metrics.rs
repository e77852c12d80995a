//! Events that are counted, each emitted once, at the place where it happens.
//!
//! [`events`] is the catalogue of events; each [`Sink`] uses those that it needs. [`board`] keeps the present
//! state by shard, which [`prometheus`] renders; [`cloudwatch`] aggregates the metrics that KCL sends to
//! CloudWatch.

use std::fmt;
use std::sync::Arc;

use crate::shard::ShardId;

pub mod board;
pub mod cloudwatch;
pub mod events;
pub mod prometheus;

pub use board::{Board, Totals};
pub use events::{Coverage, Ending, LastLines, Move, OfShard, OfWorker, Step, Supporters, Tables};

/// Receives events. Called on the path of the records, so implementations must not block.
pub trait Sink: fmt::Debug + Send + Sync {
    /// An event of a shard of this worker.
    fn shard(&self, shard: &ShardId, event: OfShard<'_>);

    /// An event of this worker.
    fn worker(&self, event: OfWorker<'_>);
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl Sink for Discard {
    fn shard(&self, _: &ShardId, _: OfShard<'_>) {}

    fn worker(&self, _: OfWorker<'_>) {}
}

/// Forwards all events to two sinks.
#[derive(Debug, Clone)]
pub struct Both(pub Arc<dyn Sink>, pub Arc<dyn Sink>);

impl Sink for Both {
    fn shard(&self, shard: &ShardId, event: OfShard<'_>) {
        self.0.shard(shard, event);
        self.1.shard(shard, event);
    }

    fn worker(&self, event: OfWorker<'_>) {
        self.0.worker(event);
        self.1.worker(event);
    }
}
