//! The catalogue of events.

use std::time::Duration;

use multilangd_protocol::Action;

use crate::sequence::Position;

/// Something that happened to a shard of this worker.
#[derive(Debug, Clone, Copy)]
pub enum OfShard<'a> {
    /// Its lease is held now.
    Held {
        /// What is stored.
        checkpoint: &'a Position,
    },
    /// A child runs.
    ChildStarted {
        /// Its process id.
        pid: u32,
    },
    /// A child failed and will be replaced, or not.
    ChildFailed {
        /// How often in a row.
        times: u32,
        /// The cause.
        reason: &'a str,
        /// Its last lines on stderr, the last one last.
        stderr: &'a [String],
    },
    /// Its child failed so often that the pauses between restarts are long.
    Parked,
    /// It is not parked any more.
    Recovered,
    /// No child could be started, because the machine or a limit has no room for it.
    Shortage {
        /// Which resource is short.
        reason: &'a str,
    },
    /// The child is gone.
    ChildGone,
    /// The child was asked for something.
    Asked(Action),
    /// It has answered.
    Answered {
        /// What.
        action: Action,
        /// After how long.
        took: Duration,
    },
    /// Reading begins: nothing was read yet.
    Opening,
    /// Reading waits for room in memory, or does so no longer.
    WaitsForRoom(bool),
    /// Kinesis was asked for an iterator.
    IteratorAsked {
        /// How long that took.
        took: Duration,
        /// Whether there is one.
        ok: bool,
    },
    /// Kinesis has answered.
    Fetched {
        /// How many records.
        records: usize,
        /// How far behind the tip that was.
        millis_behind_latest: Option<i64>,
        /// How long the call took; none where records are pushed.
        took: Option<Duration>,
    },
    /// Kinesis couldn't be asked, or has refused.
    FetchFailed {
        /// How long the call took; none where records are pushed.
        took: Option<Duration>,
        /// Why.
        error: &'a str,
    },
    /// Records lie between the reader and the child.
    Waiting {
        /// How many.
        records: usize,
    },
    /// Records were handed to the child.
    Delivered {
        /// How many; not 0.
        records: usize,
        /// Bytes of their data.
        bytes: usize,
        /// Where the last one stands.
        last: &'a Position,
        /// When it reached Kinesis, in milliseconds since 1970.
        arrival: Option<i64>,
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
        /// How long the write took.
        took: Duration,
    },
    /// The child's progress could not be stored.
    CheckpointFailed {
        /// How long that took.
        took: Duration,
    },
    /// The leases of what the shard became can't be made yet.
    EndDelayed,
    /// This worker has no more to do with it.
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
    /// Read and checkpointed to its end.
    ShardEnded,
    /// The worker stops: the lease was given back.
    Released,
    /// A leader wanted another worker to have it: the hand-off was carried out.
    HandedOff,
    /// Another worker has the lease.
    Lost,
    /// Its children fail again and again.
    Hopeless,
}

impl Ending {
    /// One word for it.
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
    /// A lease was made.
    Create {
        /// Where it begins: a sentinel's name, or `SEQUENCE_NUMBER`.
        at: &'static str,
    },
    /// A lease was taken.
    Take,
    /// A lease was renewed.
    Renew,
    /// The leases that the stream's shards need at the start were made.
    Sync,
    /// The worker that audits the leases compared them with the range of hash keys.
    Audit(Coverage),
    /// This worker's load was reported.
    Report,
}

/// The result of an audit: whether the leases cover every hash key. In KCL: `ShardSyncResponse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// They do.
    Whole,
    /// Hash keys without a lease that were not seen often enough to be believed: a reshard passes through such states.
    Hole,
    /// Hash keys have had no lease in several audits in a row: a shard sync is needed.
    Confirmed {
        /// It was done. If not, the one before was less than `shardSyncIntervalMillis` ago.
        synced: bool,
    },
}

/// The stages of the move into one table, in the order of `TableMigrationStatus`, whose ordinals CloudWatch gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Three tables, and no stage is stored.
    Unknown,
    /// Every worker supports one table.
    Init,
    /// Workers may be told to move.
    Deployed,
    /// The rows have moved, the leader lock has not.
    Pending,
    /// One table.
    Complete,
}

/// The table layouts that the workers of a fleet support, as the leader counts them before a step of the move into one table. In KCL:
/// `TableMigrationSummary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supporters {
    /// The least support code among the owners of leases; none where no lease has a live owner.
    pub least: Option<i64>,
    /// Owners of leases.
    pub owners: usize,
    /// Those of them that support one table.
    pub able: usize,
    /// Workers that report to the lease table.
    pub moved: usize,
}

/// A write of the leader during the move into one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// A stage.
    Stage,
    /// The stage was taken back.
    Withdrawal,
    /// The coordinator's rows went to the lease table.
    Rows,
    /// The last stage, to both tables.
    Completion,
}

/// Something that happened to this worker.
#[derive(Debug, Clone, Copy)]
pub enum OfWorker<'a> {
    /// The tables are there and leases can be taken.
    Ready,
    /// It stops.
    Stopping,
    /// It has looked at the lease table.
    Looked {
        /// Leases of shards that aren't finished.
        leases: usize,
        /// Those of them that nobody keeps alive.
        free: usize,
        /// Workers that keep theirs alive, this one among them.
        workers: usize,
        /// Whether this one looks after all leases; none where the owners decide.
        leads: Option<bool>,
    },
    /// It has compared the open shards of the stream with the leases.
    Unread {
        /// Open shards that no live worker reads; none where another worker counts them.
        shards: Option<usize>,
        /// Those of them that no worker read at the comparison before either.
        lasting: usize,
    },
    /// It was looked for what was given to this worker.
    Discovered {
        /// Leases that were found and that it didn't have.
        leases: usize,
        /// How long it took to read their rows, which a leader has already.
        took: Duration,
    },
    /// It leads, and has planned who gets which lease.
    Planned {
        /// How long it took to plan for those that nobody has.
        assigning: Duration,
        /// Those of them for which nobody has room.
        left: usize,
        /// How long it took to even the rest out, and how many leases move for it; none where that wasn't due.
        balancing: Option<(Duration, usize)>,
    },
    /// That plan was carried out.
    GaveOut {
        /// How many of its writes failed, or were of no use any more.
        failed: usize,
        /// How long it took.
        took: Duration,
    },
    /// It leads, and has deleted the reports of workers that are long gone.
    Swept {
        /// How many.
        reports: usize,
        /// How long it took.
        took: Duration,
    },
    /// How far the fleet's move into one table is.
    Tables(Tables),
    /// It leads, and has read what the next step of that move depends on.
    Surveyed {
        /// Its result; none if the tables could not be read.
        found: Option<Supporters>,
        /// How long it took.
        took: Duration,
    },
    /// It leads, and has written a step of that move.
    Moved {
        /// The row that was written.
        what: Move,
        /// How long it took.
        took: Duration,
        /// Whether it was written.
        ok: bool,
    },
    /// A step of its work on the lease table is over.
    Did {
        /// Which.
        step: Step,
        /// How long it took.
        took: Duration,
        /// Whether it worked.
        ok: bool,
    },
    /// An attempt at a call of an AWS service is over.
    Called {
        /// `Kinesis`, `DynamoDB`.
        service: &'a str,
        /// `GetRecords`, `UpdateItem`.
        operation: &'a str,
        /// From the request to the answer.
        took: Duration,
        /// Whether it was answered with success, or a condition didn't hold.
        ok: bool,
    },
}
