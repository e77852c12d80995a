//! The catalogue of events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use multilangd_protocol::Action;

use super::fleet::FleetReader;
use crate::sequence::Position;

/// Reads the last lines that a child wrote to stderr, in order, while it lives.
#[derive(Clone)]
pub struct LastLines(Arc<dyn Fn() -> Vec<String> + Send + Sync>);

impl LastLines {
    /// Reads them by `read`.
    pub fn new(read: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The lines by now.
    pub fn read(&self) -> Vec<String> {
        (self.0)()
    }
}

impl Default for LastLines {
    /// No lines.
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastLines")
    }
}

/// An event of a shard of this worker.
#[derive(Debug, Clone, Copy)]
pub enum OfShard<'a> {
    /// The lease was acquired.
    Held {
        /// The stored checkpoint.
        checkpoint: &'a Position,
    },
    /// A child was started.
    ChildStarted {
        /// Its process id.
        pid: u32,
    },
    /// Gives access to what the started child writes to stderr.
    Stderr(&'a LastLines),
    /// A child failed, whether or not it will be restarted.
    ChildFailed {
        /// Number of failures in a row.
        times: u32,
        /// The cause.
        reason: &'a str,
        /// The child's last lines on stderr, in order.
        stderr: &'a [String],
    },
    /// The child failed so often that restarts are suspended for longer pauses.
    Parked,
    /// The shard is no longer parked.
    Recovered,
    /// An operator has parked the shard: no child runs, and nothing is read.
    ParkedByOperator {
        /// Whether the whole application is paused.
        application: bool,
        /// Since when, in milliseconds since 1970.
        since: i64,
        /// The operator.
        by: &'a str,
    },
    /// The order of the operator has ended.
    UnparkedByOperator,
    /// The child failed at one of these records, which are delivered again in smaller batches.
    Bisecting {
        /// Number of records.
        records: usize,
    },
    /// No record is being searched any more.
    Bisected,
    /// A record was written to the dead letters.
    DeadLetter {
        /// Its position.
        position: &'a Position,
        /// The last line on stderr, or the cause of its last failure.
        error: &'a str,
    },
    /// Records were passed because they were too old: all from `first` to `last`. Each has a dead letter, or is skipped.
    Aged {
        /// Their number.
        records: usize,
        /// The position of the first one.
        first: &'a Position,
        /// The position of the last one.
        last: &'a Position,
    },
    /// A dead letter was rejected; the shard waits.
    LetterRefused {
        /// The cause.
        reason: &'a str,
    },
    /// No child could be started for lack of resources.
    Shortage {
        /// The resource that is short.
        reason: &'a str,
    },
    /// The child has exited.
    ChildGone,
    /// An action was sent to the child.
    Asked(Action),
    /// The child answered an action.
    Answered {
        /// The action.
        action: Action,
        /// Time from the action to the answer.
        took: Duration,
    },
    /// Reading starts; nothing was read yet.
    Opening,
    /// The next read waits for memory, or no longer does.
    WaitsForRoom(bool),
    /// `GetShardIterator` was called.
    IteratorAsked {
        /// Duration of the call.
        took: Duration,
        /// Whether it succeeded.
        ok: bool,
    },
    /// Kinesis answered with records or with none.
    Fetched {
        /// Number of records.
        records: usize,
        /// `MillisBehindLatest`.
        millis_behind_latest: Option<i64>,
        /// Duration of the call; none for a subscription.
        took: Option<Duration>,
    },
    /// Records are in memory, where they stay until they are delivered.
    Received {
        /// Arrival time of the first record, in milliseconds since 1970.
        first_arrival: Option<i64>,
        /// The greatest position.
        last: &'a Position,
        /// Arrival time of the last record, in milliseconds since 1970.
        last_arrival: Option<i64>,
    },
    /// A read failed.
    FetchFailed {
        /// Duration of the call; none for a subscription.
        took: Option<Duration>,
        /// The error.
        error: &'a str,
    },
    /// The number of records that wait between retrieval and child changed.
    Waiting {
        /// Number of records.
        records: usize,
    },
    /// A batch was delivered to the child.
    Delivered {
        /// Number of records; not 0.
        records: usize,
        /// Decoded bytes of their data.
        bytes: usize,
        /// Position of the last record.
        last: &'a Position,
        /// Arrival time of the last record, in milliseconds since 1970.
        arrival: Option<i64>,
    },
    /// User records were dropped with their aggregates, because their hash keys belong to another shard.
    Dropped {
        /// Number of user records.
        records: usize,
    },
    /// A checkpoint was stored.
    Checkpointed {
        /// Its position.
        position: &'a Position,
        /// Duration of the write.
        took: Duration,
    },
    /// A checkpoint could not be stored.
    CheckpointFailed {
        /// Duration of the attempt.
        took: Duration,
    },
    /// The leases of the child shards cannot be created yet.
    EndDelayed,
    /// This worker left the shard.
    Over(Ending),
}

#[cfg(test)]
impl OfShard<'static> {
    /// A failure, for tests.
    pub(crate) fn failed(times: u32) -> Self {
        Self::ChildFailed { times, reason: "exit code 1", stderr: &[] }
    }
}

/// Why a worker leaves a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The shard was processed and checkpointed to its end.
    ShardEnded,
    /// The worker shuts down and released the lease.
    Released,
    /// The lease was handed off gracefully to another worker, as the leader requested.
    HandedOff,
    /// The lease was lost to another worker.
    Lost,
    /// The children fail permanently.
    Hopeless,
}

impl Ending {
    /// The name of the variant, in metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::ShardEnded => "ended",
            Self::Released => "released",
            Self::HandedOff => "handed off",
            Self::Lost => "lost",
            Self::Hopeless => "hopeless",
        }
    }
}

/// A step of the work on the lease table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All leases were read.
    List,
    /// This worker's leases were read.
    Discover,
    /// A lease was created.
    Create {
        /// Its first checkpoint: a sentinel's name, or `SEQUENCE_NUMBER`.
        at: &'static str,
    },
    /// A lease was acquired.
    Take,
    /// A lease was renewed.
    Renew,
    /// The leases for the stream's shards were created at the start.
    Sync,
    /// The worker that audits the leases compared them with the range of hash keys.
    Audit(Coverage),
    /// Host metrics of this worker were reported.
    Report,
}

/// The result of an audit: whether the leases cover all hash keys. In KCL: `ShardSyncResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All hash keys are covered.
    Whole,
    /// Some hash keys have no lease, but not in enough audits in a row: a reshard passes through such states.
    Hole,
    /// Some hash keys had no lease in several audits in a row: a shard sync is needed.
    Confirmed {
        /// Whether it was run. If not, the previous one was less than `shardSyncIntervalMillis` ago.
        synced: bool,
    },
}

/// The stages of the table migration, in the order of `TableMigrationStatus`, whose ordinals are sent to
/// CloudWatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Three tables; no stage is stored.
    Unknown,
    /// Every worker supports one table.
    Init,
    /// Workers may be configured to migrate.
    Deployed,
    /// The rows were moved; the leader lock was not.
    Pending,
    /// One table.
    Complete,
}

/// The table layouts that the workers of a fleet support, as the leader counts them before a step of the
/// table migration. In KCL: `TableMigrationSummary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supporters {
    /// The lowest support code among lease owners; none if no lease has a live owner.
    pub least: Option<i64>,
    /// Number of lease owners.
    pub owners: usize,
    /// Number of lease owners that support one table.
    pub able: usize,
    /// Number of workers that write their worker metrics to the lease table.
    pub moved: usize,
}

/// A write of the leader during the table migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// A stage was stored.
    Stage,
    /// The stage was reverted.
    Withdrawal,
    /// The coordinator's rows were moved to the lease table.
    Rows,
    /// The last stage was written to both tables.
    Completion,
}

/// An event of this worker.
#[derive(Debug, Clone, Copy)]
pub enum OfWorker<'a> {
    /// The tables exist and leases can be acquired.
    Ready,
    /// The worker is shutting down.
    Stopping,
    /// Gives access to what the worker knows of its fleet.
    Fleet(&'a FleetReader),
    /// The worker scanned the lease table.
    Looked {
        /// Leases of shards that are not finished.
        leases: usize,
        /// Those leases that are unowned or expired.
        free: usize,
        /// Number of live workers, including this one.
        workers: usize,
        /// Whether this worker is the leader; none if each worker takes its share.
        leads: Option<bool>,
    },
    /// The worker compared the stream's open shards with the leases.
    Unread {
        /// Open shards that no live worker reads; none if another worker counts them.
        shards: Option<usize>,
        /// Those of `shards` that no worker read at the previous comparison either.
        lasting: usize,
    },
    /// The worker looked for leases that were assigned to it.
    Discovered {
        /// Number of leases that it did not hold before.
        leases: usize,
        /// Duration of the read; a leader has read them already.
        took: Duration,
    },
    /// The leader planned the lease assignment.
    Planned {
        /// Time to assign unassigned leases.
        assigning: Duration,
        /// Unassigned leases that no worker can take.
        left: usize,
        /// Time to balance the others, and the number of leases that move; none if balancing was not due.
        balancing: Option<(Duration, usize)>,
    },
    /// The leader wrote the planned assignments.
    GaveOut {
        /// Number of writes that failed or were no longer needed.
        failed: usize,
        /// Duration.
        took: Duration,
    },
    /// The leader deleted worker metrics of workers that are long dead.
    Swept {
        /// Number of deleted rows.
        reports: usize,
        /// Duration.
        took: Duration,
    },
    /// The stage of the table migration.
    Tables(Tables),
    /// The leader read the state that the next step of the table migration depends on.
    Surveyed {
        /// The result; none if the tables could not be read.
        found: Option<Supporters>,
        /// Duration.
        took: Duration,
    },
    /// The leader wrote a step of the table migration.
    Moved {
        /// The row that was written.
        what: Move,
        /// Duration.
        took: Duration,
        /// Whether the write succeeded.
        ok: bool,
    },
    /// The worker finished a step of its work on the lease table.
    Did {
        /// The step.
        step: Step,
        /// Duration.
        took: Duration,
        /// Whether it succeeded.
        ok: bool,
    },
    /// An attempt at a call of an AWS service ended.
    Called {
        /// `Kinesis` or `DynamoDB`.
        service: &'a str,
        /// Such as `GetRecords` or `UpdateItem`.
        operation: &'a str,
        /// Time from the request to the answer.
        took: Duration,
        /// Whether it succeeded. A failed condition counts as success.
        ok: bool,
    },
}
