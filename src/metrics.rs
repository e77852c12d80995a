//! What is worth counting, told once at the place where it happens.
//!
//! [`events`] is the catalogue of what is told; a [`Sink`] does with it what it likes. [`board`] keeps the present
//! state by shard, which [`prometheus`] writes out; [`cloudwatch`] adds up what KCL sends to CloudWatch.

use std::fmt;
use std::sync::Arc;

use crate::shard::ShardId;

pub mod board;
pub mod cloudwatch;
pub mod events;
pub mod prometheus;

pub use board::{Board, Totals};
pub use events::{Coverage, Ending, Move, OfShard, OfWorker, Step, Supporters, Tables};

/// Takes events. Called on the way of the records: it must not wait.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Something happened to a shard of this worker.
    fn shard(&self, shard: &ShardId, event: OfShard<'_>);

    /// Something happened to this worker.
    fn worker(&self, event: OfWorker<'_>);
}

/// Nobody is interested.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl Sink for Discard {
    fn shard(&self, _: &ShardId, _: OfShard<'_>) {}

    fn worker(&self, _: OfWorker<'_>) {}
}

/// Two who are interested.
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
