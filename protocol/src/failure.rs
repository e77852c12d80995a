//! The error names in the `error` field of a checkpoint answer.
//!
//! Java answers with the simple class name of the exception; clients compare it as text.

/// Why a checkpoint failed, grouped by how the child should react.
///
/// Source: `CheckpointMessage` and `MultiLangProtocol.checkpoint` of KCL's multilang module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFailure {
    /// The child may not checkpoint in this state (`initialize`, `leaseLost`), or the lease table does not
    /// exist. Retrying does not help.
    InvalidState,
    /// The lease is lost: stop processing the shard.
    Shutdown,
    /// DynamoDB throttled the write: retry after a pause.
    Throttling,
    /// The call to DynamoDB failed or its result is unknown: retry.
    Dependency,
    /// The sequence number is malformed, less than the last checkpoint or greater than the last delivered
    /// record.
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
