//! The errors that end the daemon.

use crate::exit::Exit;
use crate::fleet::layout::TooEarly;
use crate::lease::origin::Foreign;
use crate::lease::sync;
use crate::lease::{LeaseKey, WorkerId, table};
use crate::membership;
use crate::scheduler::Hopeless;
use crate::shard;
use crate::shard_sync;
use crate::stream::Unidentified;

/// Why the daemon exits by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A child failed permanently.
    #[error(transparent)]
    Hopeless(#[from] Hopeless),
    /// The lease table cannot be used.
    #[error("cannot use the lease table: {0}")]
    Table(#[from] table::Error),
    /// A table beside the lease table cannot be used.
    #[error("cannot use a table beside the lease table: {0}")]
    Beside(table::Error),
    /// The stream cannot be used.
    #[error(
        "cannot use the stream: {0} (check streamName, regionName, kinesisEndpoint, and the permissions \
         of the credentials)"
    )]
    Stream(#[from] shard::Error),
    /// The stream's shards are inconsistent now.
    #[error(transparent)]
    Sync(#[from] sync::Error),
    /// A setting cannot be applied yet.
    #[error(transparent)]
    TooEarly(#[from] TooEarly),
    /// The lease table belongs to another stream.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// A stream of several has no identifier.
    #[error(transparent)]
    Unidentified(#[from] Unidentified),
    /// Another process that started before this one uses the same worker id.
    #[error(
        "another process uses workerId {worker}: it wrote the lease of shard {lease} after this process \
         had acquired it (set a different workerId for each process, leave workerId out, or set \
         multilangd.workerIdSuffix)"
    )]
    WorkerIdTwice {
        /// The worker id.
        worker: WorkerId,
        /// The lease that shows it.
        lease: LeaseKey,
    },
    /// A task of the daemon panicked or ended unexpectedly.
    #[error("internal error: {0}")]
    Broken(String),
}

impl Error {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Hopeless(_) => Exit::ChildFailed,
            Self::Table(error) if error.is_foreign() => Exit::Config,
            Self::TooEarly(_) | Self::Foreign(_) => Exit::Config,
            Self::Unidentified(Unidentified::Unknown(_)) => Exit::Denied,
            Self::Unidentified(Unidentified::OtherEpoch { .. } | Unidentified::OtherAccount { .. }) => {
                Exit::Config
            }
            Self::WorkerIdTwice { .. } | Self::Stream(shard::Error::Namesake { .. }) => Exit::Config,
            Self::Table(table::Error::Denied(_))
            | Self::Beside(table::Error::Denied(_))
            | Self::Stream(shard::Error::Denied(_)) => Exit::Denied,
            Self::Table(_) | Self::Beside(_) | Self::Stream(_) | Self::Sync(_) => Exit::Unavailable,
            Self::Broken(_) => Exit::Internal,
        }
    }

    /// Whether there was no answer, or one that is temporary.
    pub(super) fn is_unreachable(&self) -> bool {
        use table::Error::{Ambiguous, Throttled, Unavailable};
        matches!(
            self,
            Self::Table(Ambiguous(_) | Throttled(_) | Unavailable(_))
                | Self::Beside(Ambiguous(_) | Throttled(_) | Unavailable(_))
                | Self::Stream(shard::Error::Unavailable(_) | shard::Error::Throttled(_))
        )
    }

    /// Whether another attempt can succeed.
    pub(super) fn may_pass(&self) -> bool {
        let foreign = matches!(self, Self::Stream(shard::Error::Namesake { .. }))
            || matches!(self, Self::Table(error) if error.is_foreign());
        // Denied is permanent: granting a permission is followed by a restart of the daemon.
        let denied = matches!(
            self,
            Self::Table(table::Error::Denied(_))
                | Self::Beside(table::Error::Denied(_))
                | Self::Stream(shard::Error::Denied(_))
        );
        !foreign
            && !denied
            && !matches!(
                self,
                Self::Hopeless(_) | Self::TooEarly(_) | Self::Foreign(_) | Self::Unidentified(_)
            )
    }
}

impl From<membership::Error> for Error {
    fn from(error: membership::Error) -> Self {
        match error {
            membership::Error::Table(error) => Self::Table(error),
            membership::Error::Beside(error) => Self::Beside(error),
            membership::Error::TooEarly(error) => Self::TooEarly(error),
        }
    }
}

impl From<shard_sync::Error> for Error {
    fn from(error: shard_sync::Error) -> Self {
        match error {
            shard_sync::Error::Table(error) => Self::Table(error),
            shard_sync::Error::Stream(error) => Self::Stream(error),
            shard_sync::Error::Shards(error) => Self::Sync(error),
            shard_sync::Error::Foreign(error) => Self::Foreign(error),
        }
    }
}
