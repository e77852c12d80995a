//! The port through which events are emitted.

use std::fmt;
use std::sync::Arc;

use super::events::{OfShard, OfWorker};
use crate::shard::ShardId;

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
