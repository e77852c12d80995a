//! The interface between a shard's state machine and the task around it.
//!
//! [`Event`]s are its input, [`Effect`]s its output; [`Settings`] are its times and limits.

use std::time::Duration;

use multilangd_protocol::{Action, CheckpointFailure};

use crate::batch::{Batch, Records};
use crate::lease::held;
use crate::lease::orders::Parking;
use crate::letters::Limits;
use crate::multilang::{self, Stop};
use crate::record::Record;
use crate::sequence::{Position, Sequence};
use crate::shard::ChildShard;

/// Times and limits of a shard consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `parentShardPollIntervalMillis`: interval between checks of unfinished parents.
    pub parent_poll: Duration,
    /// `taskBackoffTimeMillis`: pause after a failed request of the daemon, and the first pause after a
    /// failure of the child.
    pub task_backoff: Duration,
    /// `timeoutInSeconds`: time for each message of the child while an action is open.
    pub answer: Option<Duration>,
    /// `logWarningForTaskAfterMillis`: a warning is logged for a batch that takes longer.
    pub warn_after: Option<Duration>,
    /// `shutdownGraceMillis`: from the stop to the last answer of the child.
    pub shutdown_grace: Duration,
    /// `gracefulLeaseHandoffTimeoutMillis`: from the leader's request for a graceful handoff to the last
    /// answer of the child.
    pub hand_off: Duration,
    /// From the loss of the lease to the last answer of the child.
    pub lost_grace: Duration,
    /// From the end of a child's stdin to its exit.
    pub exit_grace: Duration,
    /// As `exit_grace`, during a shutdown; and from SIGTERM to SIGKILL.
    pub kill_grace: Duration,
    /// `callProcessRecordsEvenForEmptyRecordList`.
    pub keep_empty: bool,
    /// `multilangd.maxChildFailures`: the shard is parked, or the daemon exits, after this many failures of
    /// the child in a row without a checkpoint between them.
    pub max_failures: u32,
    /// `multilangd.maxParkedPauseMillis`: the longest pause between restarts of a parked shard's child. None
    /// if the daemon exits instead (`multilangd.onHopelessShard`, `multilangd.onChildFailure`).
    pub parked_pause: Option<Duration>,
    /// How batches are shaped.
    pub shape: Shape,
    /// When a record becomes a dead letter; none without `multilangd.deadLetters`.
    pub dead_letters: Option<Limits>,
    /// `multilangd.maxRecordAgeMillis`: the age from which records are not delivered; none if all are.
    pub max_age: Option<MaxAge>,
}

/// From which age records are not delivered, and what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxAge {
    /// Greatest age of a record that is delivered, in milliseconds since it arrived at Kinesis.
    pub millis: i64,
    /// Whether older records are written to the dead letters; otherwise they are skipped.
    pub writes_letters: bool,
}

/// How the records of a shard are grouped into batches. By default a batch is a response of Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// `multilangd.maxBatchRecords`: most records of one batch.
    pub most: Option<usize>,
    /// `multilangd.batchWindowMillis`: how long a batch waits for more records.
    pub window: Option<Duration>,
}

/// Why no child was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSpawned {
    /// The program cannot be run: counts as a failure of the child.
    Failed(String),
    /// The machine or a limit of this process allows no further process.
    Shortage(String),
}

/// An input of the state machine.
#[derive(Debug)]
pub enum Event {
    /// The lease was acquired.
    Begin,
    /// Whether all parents are finished, or why that is unknown.
    Parents(Result<bool, String>),
    /// This daemon finished a shard, which may be a parent.
    ShardFinished,
    /// The child was started.
    Spawned,
    /// No child was started.
    NotSpawned(NotSpawned),
    /// The child exited for lack of resources before it answered `initialize`: for example a script that could
    /// not start the next process.
    Starved {
        /// How it exited.
        end: String,
        /// Its last line on stderr.
        line: String,
    },
    /// Resources for the child are short here, and another worker may acquire the lease.
    Surplus,
    /// An event of the child.
    Child(multilang::Event),
    /// A batch of the feed that was opened last.
    Batch(Batch),
    /// The rest of the last batch can be delivered.
    Rest,
    /// The retrieval task panicked.
    FeedBroke,
    /// [`Effect::Store`] completed.
    Stored(Position, Result<(), held::Error>),
    /// [`Effect::Letter`] completed for the record at this position: the letter has a durable copy, or the reason
    /// why it has none.
    Lettered(Position, Result<(), String>),
    /// [`Effect::AgedLetters`] completed.
    AgedLettered {
        /// The position of the first of the records.
        first: Position,
        /// The positions of the records whose letters have a durable copy, from the first one on; or the reason why that
        /// has none.
        outcome: Result<Vec<Position>, String>,
    },
    /// [`Effect::PrepareEnd`] completed.
    EndPrepared(Result<(), EndError>),
    /// The daemon shuts down.
    Stop,
    /// The leader requested a graceful handoff to another worker.
    Wanted,
    /// An operator has parked the shard: [`Effect::ParkedByOperator`] follows once no child runs.
    Park(Parking),
    /// The order of the operator has ended.
    Unpark,
    /// The lease was lost.
    LeaseLost,
    /// [`super::state::State::deadline`] was reached.
    Deadline,
}

/// Why the end of a shard could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndError {
    /// The lease was lost.
    Lost,
    /// A temporary failure: retry.
    NotNow(String),
}

/// A message for the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Starts a child with the shard's checkpoint.
    Initialize(Position),
    /// Records, and their `MillisBehindLatest`.
    ProcessRecords(Records, Option<i64>),
    /// The last chance to checkpoint.
    ShutdownRequested,
    /// Checkpoints are no longer possible.
    LeaseLost,
    /// The shard was read to its end.
    ShardEnded,
}

impl Message {
    /// The action that the message opens.
    pub fn action(&self) -> Action {
        match self {
            Self::Initialize(_) => Action::Initialize,
            Self::ProcessRecords(..) => Action::ProcessRecords,
            Self::ShutdownRequested => Action::ShutdownRequested,
            Self::LeaseLost => Action::LeaseLost,
            Self::ShardEnded => Action::ShardEnded,
        }
    }
}

/// An output of the state machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check whether all parents are finished; completes with [`Event::Parents`].
    CheckParents,
    /// Drop the feed and open one at this position.
    OpenFeed(Sequence),
    /// Drop the feed.
    CloseFeed,
    /// Start a child; completes with [`Event::Spawned`] or [`Event::NotSpawned`].
    Spawn,
    /// Open an action.
    Send(Message),
    /// Answer the pending checkpoint request.
    Acknowledge(Result<(), CheckpointFailure>),
    /// Write a checkpoint; completes with [`Event::Stored`].
    Store(Position),
    /// Create the leases of the child shards; completes with [`Event::EndPrepared`].
    PrepareEnd(Vec<ChildShard>),
    /// Report that the leases of the child shards cannot be created yet, for this reason.
    EndDelayed(String),
    /// Close the child's stdin, so that it exits.
    CloseStdin,
    /// Signal the child's process group.
    Signal(Stop),
    /// Drop the child, which survived SIGKILL. Nothing that it does from now on is an event.
    Abandon,
    /// Report a failure of the child: the reason, and the number of failures in a row.
    Failed(String, u32),
    /// Report that the child failed at one of this many records, which are delivered again in smaller
    /// batches: the reason, the number of records, and how often the record failed alone.
    Bisecting(String, usize, u32),
    /// Report that no record is being searched any more.
    Bisected,
    /// Write a record to the dead letters; completes with [`Event::Lettered`].
    Letter(Box<Record>),
    /// Write records that are too old to the dead letters; completes with [`Event::AgedLettered`].
    AgedLetters(Vec<Record>),
    /// Report that records that were too old were passed: all from `first` to `last`.
    Aged {
        /// Their number.
        records: usize,
        /// The position of the first one.
        first: Position,
        /// The position of the last one.
        last: Position,
    },
    /// Report that the dead letter was rejected, for this reason, and is written again after this pause.
    LetterRefused(String, Duration),
    /// Report that the shard is parked: the reason, and the pause before the child is restarted.
    Parked(String, Duration),
    /// Report that a parked shard works again.
    Recovered,
    /// Report that the shard is parked by this order of an operator: no child runs, and nothing is read.
    ParkedByOperator(Parking),
    /// Report that the order has ended, and the shard continues.
    UnparkedByOperator,
    /// Report that no child was started for lack of resources.
    Shortage(String),
    /// Report that the child has held its batch for this long.
    Slow(Duration),
    /// Report that the parents of the shard cannot be read yet, for this reason.
    ParentsUnknown(String),
    /// Report that the child answered `shutdownRequested` with another message than its status.
    ShutdownRefused(String),
    /// Report that the time for a child to stop is over.
    StopTimedOut,
    /// Report that the child failed while it was being stopped, for this reason.
    FailedWhileStopping(String),
    /// The consumer ends. The child has exited.
    Finish(Outcome),
}

/// How the processing of a shard by this daemon ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The shard was processed and checkpointed to its end.
    ShardEnded,
    /// The lease was lost to another worker.
    LeaseLost,
    /// The daemon shuts down or the lease is handed off; this worker still owns it.
    Stopped,
    /// The child failed too often, and shards are not parked. The reason of the last failure.
    Hopeless(String),
}
