//! The actions of the protocol, which are requests of the daemon to a child.

use std::fmt;

/// A request of the daemon to a child. The child ends each with a `status` that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The first message: the shard and the checkpoint to start from.
    Initialize,
    /// A batch of records.
    ProcessRecords,
    /// The worker shuts down or hands the lease over: the last opportunity to checkpoint.
    ShutdownRequested,
    /// The lease is lost: checkpoints fail from now on.
    LeaseLost,
    /// All records of the shard were delivered: the child must checkpoint the end of the shard.
    ShardEnded,
}

impl Action {
    /// The name in the fields `action` and `responseFor`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::ProcessRecords => "processRecords",
            Self::ShutdownRequested => "shutdownRequested",
            Self::LeaseLost => "leaseLost",
            Self::ShardEnded => "shardEnded",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
