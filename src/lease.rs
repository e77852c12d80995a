//! Leases: who reads which shard, and how far it got. One row a lease in DynamoDB, shared with
//! Java workers of every generation.
//!
//! | module | holds |
//! |---|---|
//! | [`table`] | the port to the table and what can go wrong with it |
//! | [`update`] | every write on a lease as condition and changes: pure |
//! | [`held`] | the proof that a lease is ours, and the only way to renew, checkpoint or release it |
//! | [`holding`] | what each answer of the table makes of a lease that is held: pure |
//! | [`balance`] | which worker a leader gives each lease to: pure |
//! | [`handoff`] | which hand-offs nobody completes: pure |
//! | [`origin`] | which stream the rows of a table belong to, and which open shards no worker reads: pure |
//! | [`meter`] | what goes through a lease: pure |
//! | [`take`] | which leases to take, and which to steal: pure |
//! | [`watch`] | how often to look at the table, and whom to call: pure |
//! | [`audit`] | whether the leases cover every hash key, and who has to see to it: pure |
//! | [`cleanup`] | which finished leases can go: pure |
//! | [`sync`] | which leases a stream's shards need: pure |
//! | [`outage`] | requests that fail again and again: when to log it, how long to wait: pure |
//! | [`memory`] | the table in memory, for tests |
//!
//! Invariants:
//! * a row is written by attribute, never as a whole once it exists; what we don't know survives;
//! * a lease is ours only while a [`held::Held`] of it says so, by the counter and the local clock;
//! * after an answer that is neither yes nor no the row is read back before anything else.
//!
//! In KCL: package `software.amazon.kinesis.leases`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::sequence::Position;
use crate::shard::{HashRange, ShardId};
use crate::stream::StreamId;

pub mod audit;
pub mod balance;
pub mod cleanup;
pub mod handoff;
pub mod held;
pub mod holding;
pub mod memory;
pub mod meter;
pub mod origin;
pub mod outage;
pub mod sync;
pub mod table;
pub mod take;
pub mod update;
pub mod watch;

pub use held::Held;
pub use table::Table;

/// A worker's id, the value of `leaseOwner`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for WorkerId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of a worker: the time of its start, a random part, and the worker id. Of two processes with one worker id the
/// one that started later gives way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// In milliseconds since 1970, by its own clock.
    started: i64,
    unique: Arc<str>,
    worker: WorkerId,
}

impl ProcessId {
    /// A process of that worker that started at that time, with a random part without `-`.
    pub fn new(started: i64, unique: &str, worker: &WorkerId) -> Self {
        Self { started, unique: unique.into(), worker: worker.clone() }
    }

    /// Reads what [`fmt::Display`] writes: `MILLISECONDS-UNIQUE-WORKER`.
    pub fn parse(text: &str) -> Option<Self> {
        let (started, rest) = text.split_once('-')?;
        let (unique, worker) = rest.split_once('-')?;
        Some(Self::new(started.parse().ok()?, unique, &worker.into()))
    }

    /// Whether it is a process of that worker. A row keeps the mark of its last holder when it is assigned to another.
    pub fn is_of(&self, worker: &WorkerId) -> bool {
        self.worker == *worker
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.started, self.unique, self.worker.as_str())
    }
}

/// What goes through a shard, to a thousandth of a byte a second or so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Throughput(u64);

impl Throughput {
    const PARTS: f64 = 1e6;

    /// From KB a second. Java rounds to six decimals as well.
    pub fn from_kilobytes(kilobytes: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and NaN is 0"
        )]
        Self((kilobytes * Self::PARTS).round() as u64)
    }

    /// In KB a second.
    pub fn kilobytes(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "six digits are asked for, fifteen are there")]
        let parts = self.0 as f64;
        parts / Self::PARTS
    }
}

/// A lease as its row says. The key is the shard's id: MultiLang has one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// `leaseKey`.
    pub shard: ShardId,
    /// `leaseOwner`; none on a row that nobody has.
    pub owner: Option<WorkerId>,
    /// `leaseCounter`: moves with every write of the owner.
    pub counter: i64,
    /// `ownerSwitchesSinceCheckpoint`.
    pub owner_switches: i64,
    /// `checkpoint` and `checkpointSubSequenceNumber`.
    pub checkpoint: Position,
    /// `pendingCheckpoint` and its companions. Never passed on by the MultiLang protocol.
    pub pending: Option<Position>,
    /// `checkpointOwner`: while a hand-off is open, who still reads the shard.
    pub checkpoint_owner: Option<WorkerId>,
    /// `parentShardId`.
    pub parents: BTreeSet<ShardId>,
    /// `childShardIds`.
    pub children: BTreeSet<ShardId>,
    /// `startingHashKey` and `endingHashKey`; old rows have none.
    pub range: Option<HashRange>,
    /// `throughputKBps`: what went through it lately, as its owner says.
    pub throughput: Option<Throughput>,
    /// `entityType` is there, as KCL 3.5 makes rows. By rows without one a fleet of KCL 2 is known, so whoever
    /// works beside one makes them so too.
    pub typed: bool,
    /// `multilangdStream`: the stream that the row was last acquired for by a worker of ours. Every version of KCL
    /// preserves it.
    pub stream: Option<StreamId>,
    /// `multilangdProcess`: the process of ours that acquired the row last.
    pub process: Option<ProcessId>,
}

impl Lease {
    /// A row that doesn't exist yet: nobody's, never moved.
    pub fn new(shard: ShardId, checkpoint: Position, parents: BTreeSet<ShardId>, range: HashRange) -> Self {
        Self {
            shard,
            owner: None,
            counter: 0,
            owner_switches: 0,
            checkpoint,
            pending: None,
            checkpoint_owner: None,
            parents,
            children: BTreeSet::new(),
            range: Some(range),
            throughput: None,
            typed: true,
            stream: None,
            process: None,
        }
    }

    /// Who reads the shard at the moment: the old owner while a hand-off is open.
    pub fn actual_owner(&self) -> Option<&WorkerId> {
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }

    /// Whether the shard was read to its end.
    pub fn is_complete(&self) -> bool {
        self.checkpoint.is_shard_end()
    }
}
