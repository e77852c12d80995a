//! The words between a shard's state machine and the task around it.
//!
//! [`Event`]s go in, [`Effect`]s come out; [`Settings`] are the times and limits it is measured by.

use std::time::Duration;

use multilangd_protocol::{Action, CheckpointFailure};

use crate::batch::{Batch, Records};
use crate::lease::held;
use crate::multilang::{self, Stop};
use crate::sequence::{Position, Sequence};
use crate::shard::ChildShard;

/// What a shard's life is measured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `parentShardPollIntervalMillis`: between looks at unfinished parents.
    pub parent_poll: Duration,
    /// `taskBackoffTimeMillis`: after a step of ours failed, and the first pause after a child did.
    pub task_backoff: Duration,
    /// `timeoutInSeconds`: for each message of the child while an action is open.
    pub answer: Option<Duration>,
    /// `logWarningForTaskAfterMillis`: a batch that takes longer is warned about.
    pub warn_after: Option<Duration>,
    /// `shutdownGraceMillis`: from the stop to the last answer of the child.
    pub shutdown_grace: Duration,
    /// `gracefulLeaseHandoffTimeoutMillis`: from a leader's wish to give the lease to another to the last answer
    /// of the child.
    pub hand_off: Duration,
    /// From a lost lease to the last answer of the child.
    pub lost_grace: Duration,
    /// From the end of its stdin to the exit of a child.
    pub exit_grace: Duration,
    /// The same while the daemon stops, and from SIGTERM to SIGKILL.
    pub kill_grace: Duration,
    /// `callProcessRecordsEvenForEmptyRecordList`.
    pub keep_empty: bool,
    /// `multilangd.maxChildFailures`: the shard is parked, or the daemon exits, after this many failures of the child in
    /// a row without a checkpoint between them.
    pub max_failures: u32,
    /// `multilangd.maxParkedPauseMillis`: the longest pause between restarts of the child of a parked shard. None where
    /// the daemon exits instead (`multilangd.onHopelessShard`, `multilangd.onChildFailure`).
    pub parked_pause: Option<Duration>,
}

/// Why no child was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSpawned {
    /// The program can't be run: this counts as a failure of the child.
    Failed(String),
    /// The machine, or a limit of this process, has no room for another process.
    Shortage(String),
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The lease is ours.
    Begin,
    /// Whether all parents are finished, or why that isn't known.
    Parents(Result<bool, String>),
    /// A shard was finished by this daemon: a parent, perhaps.
    ShardFinished,
    /// The child runs.
    Spawned,
    /// No child was started.
    NotSpawned(NotSpawned),
    /// There is no room here for the child, and another worker may have it.
    Surplus,
    /// The child did something.
    Child(multilang::Event),
    /// Records, from the feed that was opened last.
    Batch(Batch),
    /// Reading broke down.
    FeedBroke,
    /// [`Effect::Store`] is done.
    Stored(Position, Result<(), held::Error>),
    /// [`Effect::PrepareEnd`] is done.
    EndPrepared(Result<(), EndError>),
    /// The daemon stops.
    Stop,
    /// Another worker is to have the lease.
    Wanted,
    /// The lease is not ours any more.
    LeaseLost,
    /// [`super::state::State::deadline`] has come.
    Deadline,
}

/// Why a shard's end could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndError {
    /// The lease is not ours any more.
    Lost,
    /// Try again.
    NotNow(String),
}

/// A message for the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The shard and its checkpoint.
    Initialize(Position),
    /// Records and how far behind they are.
    ProcessRecords(Records, Option<i64>),
    /// The last chance to checkpoint.
    ShutdownRequested,
    /// No checkpoint any more.
    LeaseLost,
    /// The shard is read to its end.
    ShardEnded,
}

impl Message {
    /// The action that it opens.
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

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look whether all parents are finished; answers with [`Event::Parents`].
    CheckParents,
    /// Drop the feed and read from here.
    OpenFeed(Sequence),
    /// Drop the feed.
    CloseFeed,
    /// Start a child; answers with [`Event::Spawned`] or [`Event::NotSpawned`].
    Spawn,
    /// Open an action.
    Send(Message),
    /// Answer the checkpoint that is owed.
    Acknowledge(Result<(), CheckpointFailure>),
    /// Write a checkpoint; answers with [`Event::Stored`].
    Store(Position),
    /// Make the leases of the shard's children; answers with [`Event::EndPrepared`].
    PrepareEnd(Vec<ChildShard>),
    /// The leases of the shard's children can't be made yet, for this reason. Worth a log line now and then.
    EndDelayed(String),
    /// Tell the child by the end of its stdin that it is over.
    CloseStdin,
    /// Signal the child's group.
    Signal(Stop),
    /// The child failed, for this reason; so many in a row. Worth a log line.
    Failed(String, u32),
    /// The shard is parked, for this reason, and the child is restarted after this pause. Worth a log line.
    Parked(String, Duration),
    /// A parked shard works again. Worth a log line.
    Recovered,
    /// No child was started, because the machine has no room for it. Worth a log line now and then.
    Shortage(String),
    /// The child has had its batch for so long. Worth a log line.
    Slow(Duration),
    /// The parents of the shard cannot be read yet, for this reason. Worth a log line.
    ParentsUnknown(String),
    /// The child answered `shutdownRequested` with something else than its status. Worth a log line.
    ShutdownRefused(String),
    /// The time that a child has to stop is over. Worth a log line.
    StopTimedOut,
    /// The child failed when nothing more was expected of it, for this reason. Worth a log line.
    FailedWhileStopping(String),
    /// Over. The child is gone.
    Finish(Outcome),
}

/// How a shard's life under this daemon ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Read and checkpointed to its end.
    ShardEnded,
    /// The lease went to somebody else.
    LeaseLost,
    /// The daemon stops, or another worker is to have the lease, which is still ours.
    Stopped,
    /// The child failed too often, and shards are not parked; the reason of the last failure.
    Hopeless(String),
}
