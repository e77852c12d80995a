//! The names that stand in the `error` field of a checkpoint's answer.
//!
//! Java answers with the simple class name of the exception; clients compare it as text.

/// Why a checkpoint was refused, by what the child should do next.
///
/// Source: `CheckpointMessage` and `MultiLangProtocol.checkpoint` of KCL's multilang module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFailure {
    /// There is no right to checkpoint in this state (`initialize`, `leaseLost`), or the lease
    /// table is gone. Retrying doesn't help.
    InvalidState,
    /// The lease is no longer held: stop work on the shard.
    Shutdown,
    /// DynamoDB refused for throughput: wait, then ask again.
    Throttling,
    /// DynamoDB could not be asked or its answer is unknown: ask again.
    Dependency,
    /// The number is malformed, behind the last checkpoint or beyond what was delivered.
    IllegalArgument,
}

impl CheckpointFailure {
    /// The Java class name that the child sees.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidState => "InvalidStateException",
            Self::Shutdown => "ShutdownException",
            Self::Throttling => "ThrottlingException",
            Self::Dependency => "KinesisClientLibDependencyException",
            Self::IllegalArgument => "IllegalArgumentException",
        }
    }
}

impl std::fmt::Display for CheckpointFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
