//! Leases: the assignment of shards to workers, and their checkpoints. Each lease is a row in DynamoDB,
//! shared with Java workers of every KCL version.
//!
//! | module | holds |
//! |---|---|
//! | [`key`] | the key of a row: the stream, in a table of several, and the shard |
//! | [`table`] | the port to the lease table, and its errors |
//! | [`update`] | every write of a lease as condition and changes: pure |
//! | [`held`] | the proof that this worker owns a lease, and the only way to renew, checkpoint or release it |
//! | [`holding`] | the effect of each answer of the table on a held lease: pure |
//! | [`history`] | each fact of a row, and since when it has been so: pure |
//! | [`liveness`] | which leases have expired, which workers are live or dead: pure |
//! | [`balance`] | the lease assignment by the leader: pure |
//! | [`handoff`] | graceful handoffs that are never completed: pure |
//! | [`origin`] | the stream that the rows of a table belong to, and the open shards that no worker reads: pure |
//! | [`meter`] | the throughput of a lease: pure |
//! | [`take`] | which leases to acquire and which to steal: pure |
//! | [`watch`] | how often to scan the table, and which owners to nudge: pure |
//! | [`audit`] | whether the leases cover all hash keys, and which worker checks that: pure |
//! | [`cleanup`] | which finished leases can be deleted: pure |
//! | [`sync`] | which leases the shards of a stream need: pure |
//! | [`of_stream`] | the leases of one of several streams, as a table of their own |
//! | [`orders`] | parked shards and a paused application: the marks of an operator: pure |
//! | [`outage`] | requests that fail again and again: when to log it, how long to wait: pure |
//! | [`memory`] | the table in memory, for tests |
//!
//! Invariants:
//! * an existing row is written by attribute, never as a whole, so that unknown attributes are preserved;
//! * this worker owns a lease only while a [`held::Held`] of it says so, by the counter and the local clock;
//! * after an ambiguous answer the row is read back before anything else.
//!
//! In KCL: package `software.amazon.kinesis.leases`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use self::orders::{Park, Pause};
use self::sync::InitialPosition;
use crate::recognition::Recognitions;
use crate::sequence::Position;
use crate::shard::{HashRange, ShardId};
use crate::stream::StreamId;

pub mod audit;
pub mod balance;
pub mod cleanup;
pub mod handoff;
pub mod held;
pub mod history;
pub mod holding;
pub mod key;
pub mod liveness;
pub mod memory;
pub mod meter;
pub mod of_stream;
pub mod orders;
pub mod origin;
pub mod outage;
pub mod shared_scan;
pub mod sync;
pub mod table;
pub mod take;
pub mod update;
pub mod watch;

pub use held::Held;
pub use key::LeaseKey;
pub use table::Table;

/// A worker's id, the value of `leaseOwner`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// The id as text.
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

/// One run of a worker: its start time, a random part, and the worker id. Of two processes with one worker id
/// the one that started later exits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Start time in milliseconds since 1970, by the worker's clock.
    started: i64,
    unique: Arc<str>,
    worker: WorkerId,
}

impl ProcessId {
    /// The process of a worker with that start time, and a random part without `-`.
    pub fn new(started: i64, unique: &str, worker: &WorkerId) -> Self {
        Self { started, unique: unique.into(), worker: worker.clone() }
    }

    /// Parses the output of [`fmt::Display`]: `MILLISECONDS-UNIQUE-WORKER`.
    pub fn parse(text: &str) -> Option<Self> {
        let (started, rest) = text.split_once('-')?;
        let (unique, worker) = rest.split_once('-')?;
        Some(Self::new(started.parse().ok()?, unique, &worker.into()))
    }

    /// Whether it is a process of that worker. A row keeps the mark of its last owner when it is assigned to
    /// another worker.
    pub fn is_of(&self, worker: &WorkerId) -> bool {
        self.worker == *worker
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.started, self.unique, self.worker.as_str())
    }
}

/// The throughput of a shard in KB per second, with six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Throughput(u64);

impl Throughput {
    const PARTS: f64 = 1e6;

    /// From KB per second. Java rounds to six decimals too.
    pub fn from_kilobytes(kilobytes: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and NaN is 0"
        )]
        Self((kilobytes * Self::PARTS).round() as u64)
    }

    /// In KB per second.
    pub fn kilobytes(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "six digits are asked for, fifteen are there")]
        let parts = self.0 as f64;
        parts / Self::PARTS
    }
}

/// A row of the lease table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// `leaseKey`, with `streamName` and `shardId` in a table of several streams.
    pub key: LeaseKey,
    /// `leaseOwner`; none on an unowned row.
    pub owner: Option<WorkerId>,
    /// `leaseCounter`: incremented by every write of the owner.
    pub counter: i64,
    /// `ownerSwitchesSinceCheckpoint`.
    pub owner_switches: i64,
    /// `checkpoint` and `checkpointSubSequenceNumber`.
    pub checkpoint: Position,
    /// `pendingCheckpoint` and its companions. The MultiLang protocol does not use them.
    pub pending: Option<Position>,
    /// `checkpointOwner`: the worker that still reads the shard during a graceful handoff.
    pub checkpoint_owner: Option<WorkerId>,
    /// `parentShardId`: shards of the same stream.
    pub parents: BTreeSet<ShardId>,
    /// `childShardIds`: shards of the same stream.
    pub children: BTreeSet<ShardId>,
    /// `startingHashKey` and `endingHashKey`; none on rows of KCL before 2.3.
    pub range: Option<HashRange>,
    /// `throughputKBps`: the recent throughput, by the owner's measurement.
    pub throughput: Option<Throughput>,
    /// Whether the row has an `entityType`, as in KCL 3.5. A fleet of KCL 2 is recognised by rows without
    /// one, so workers in such a fleet create them without one too.
    pub typed: bool,
    /// `multilangdStream`: the stream for which a multilangd worker last acquired the row. Every version of
    /// KCL preserves it.
    pub stream: Option<StreamId>,
    /// `multilangdProcess`: the multilangd process that last acquired the row.
    pub process: Option<ProcessId>,
    /// `multilangdLatestFrom`: when the first owner of a lease at `LATEST` began to read, in milliseconds since 1970 by
    /// AWS's clock. Until the first checkpoint, the next owner starts there. KCL starts at the newest record again.
    pub latest_from: Option<i64>,
    /// `multilangdInitialPosition`: the initial position of the stream's first leases, if it was another one than that of
    /// the application. A worker that completes them creates the missing ones there.
    pub initial: Option<InitialPosition>,
    /// `multilangdParked`: the order of an operator to park the shard.
    pub park: Option<Park>,
    /// `multilangdPause`: the last order of an operator to pause or resume the application.
    pub pause: Option<Pause>,
}

impl Lease {
    /// A new row: unowned, with the counter 0.
    pub fn new(key: LeaseKey, checkpoint: Position, parents: BTreeSet<ShardId>, range: HashRange) -> Self {
        Self {
            key,
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
            latest_from: None,
            initial: None,
            park: None,
            pause: None,
        }
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        self.key.shard()
    }

    /// Whether its row is of one of these streams, and not of an earlier one of the same name.
    pub fn is_of(&self, streams: &Recognitions) -> bool {
        streams.accept(self.key.stream(), self.stream.as_ref())
    }

    /// The worker that reads the shard now: the previous owner during a graceful handoff.
    pub fn actual_owner(&self) -> Option<&WorkerId> {
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }

    /// Whether the shard was processed to its end.
    pub fn is_complete(&self) -> bool {
        self.checkpoint.is_shard_end()
    }
}
