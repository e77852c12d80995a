//! What is worth counting, told once at the place where it happens.
//!
//! [`Event`] is the catalogue; a [`Sink`] does with it what it likes. [`Board`] keeps totals by
//! shard, for the progress line of local mode and for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::sequence::Position;
use crate::shard::ShardId;

/// Something that happened to a shard.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A child runs.
    ChildStarted {
        /// Its process id.
        pid: u32,
    },
    /// A child failed and will be replaced, or not.
    ChildFailed,
    /// Records were handed to the child.
    Delivered {
        /// How many.
        records: usize,
    },
    /// User records were left out with their aggregates, whose hash keys are another shard's.
    Dropped {
        /// How many.
        records: usize,
    },
    /// The child's progress was stored.
    Checkpointed {
        /// Where.
        position: &'a Position,
    },
    /// The shard was read and checkpointed to its end.
    ShardEnded,
    /// This daemon doesn't read the shard any more.
    Left,
}

/// Takes events. Called on the way of the records: it must not wait.
pub trait Sink: Send + Sync {
    /// One event of one shard.
    fn tell(&self, shard: &ShardId, event: Event<'_>);
}

/// Nobody is interested.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl Sink for Discard {
    fn tell(&self, _: &ShardId, _: Event<'_>) {}
}

/// The totals of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// The running child's process id.
    pub pid: Option<u32>,
    /// Records handed out.
    pub delivered: usize,
    /// User records left out.
    pub dropped: usize,
    /// Checkpoints stored.
    pub checkpoints: usize,
    /// Failures of children.
    pub failures: usize,
    /// Read to its end.
    pub ended: bool,
}

/// Totals by shard.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<ShardId, Totals>>);

impl Board {
    /// A copy of the totals as they are now.
    pub fn totals(&self) -> BTreeMap<ShardId, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Board {
    fn tell(&self, shard: &ShardId, event: Event<'_>) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = board.entry(shard.clone()).or_default();
        match event {
            Event::ChildStarted { pid } => totals.pid = Some(pid),
            Event::ChildFailed => totals.failures += 1,
            Event::Delivered { records } => totals.delivered += records,
            Event::Dropped { records } => totals.dropped += records,
            Event::Checkpointed { .. } => totals.checkpoints += 1,
            Event::ShardEnded => totals.ended = true,
            Event::Left => totals.pid = None,
        }
    }
}
