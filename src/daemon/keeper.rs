//! Keeps the streams of the daemon: the only one, or those of a lease table of several.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::in_step::keep_in_step;
use super::opener::{Opened, Opener, Place};
use super::ports::Streams;
use super::several::Several;
use crate::config::Config;
use crate::coordinator::{Handle, Snapshot};
use crate::lease::Table;
use crate::recognition::Recognitions;
use crate::retrieval::Source;
use crate::shard_sync::ShardSync;
use crate::stream::ByStream;

/// The streams of a daemon.
pub(super) enum Keeper {
    One(Box<ShardSync>),
    Several(Box<Several>),
}

/// The streams, shared with the other modules.
pub(super) struct Shared {
    pub(super) sources: ByStream<Source>,
    pub(super) recognitions: Recognitions,
}

impl Keeper {
    /// Makes no call.
    pub(super) fn new(
        config: &Config,
        streams: Streams,
        table: Arc<dyn Table>,
        opener: Opener,
    ) -> (Self, Shared) {
        match streams {
            Streams::One(ports) => {
                let found = opener.find(ports);
                let Opened { recognition, source, shard_sync } = opener.open(None, found, Place::Listed);
                let (sources, recognitions) = (ByStream::One(source), ByStream::One(recognition));
                (Self::One(Box::new(shard_sync)), Shared { sources, recognitions })
            }
            Streams::Several { wanted, open } => {
                let several = Several::new(config, wanted, open, table, opener);
                let (sources, recognitions) = (several.sources.clone(), several.recognitions.clone());
                (Self::Several(Box::new(several)), Shared { sources, recognitions })
            }
        }
    }

    /// Compares the lease table, which exists, with the streams, before anything is written.
    ///
    /// # Errors
    /// The table belongs to other streams, or none of the streams can be used now.
    pub(super) async fn recognise(&mut self) -> Result<(), Error> {
        match self {
            Self::One(shard_sync) => Ok(shard_sync.recognise().await?),
            Self::Several(several) => several.identify().await,
        }
    }

    /// Creates the leases that the shards need at the start.
    ///
    /// # Errors
    /// The table belongs to other streams, or the leases of none of the streams can be created now.
    pub(super) async fn begin(&mut self, typed: bool) -> Result<(), Error> {
        match self {
            Self::One(shard_sync) => Ok(shard_sync.clone().typed(typed).begin().await?),
            Self::Several(several) => several.begin(typed).await,
        }
    }

    /// Number of lease rows created since the process started.
    pub(super) fn made(&self) -> usize {
        match self {
            Self::One(shard_sync) => shard_sync.made(),
            Self::Several(several) => several.made(),
        }
    }

    /// Keeps the leases in step with the shards until `stop`.
    pub(super) async fn run(
        self,
        seen: watch::Receiver<Snapshot>,
        handle: Handle,
        typed: bool,
        stop: CancellationToken,
    ) {
        match self {
            Self::One(shard_sync) => keep_in_step(shard_sync.typed(typed), seen, handle, stop).await,
            Self::Several(several) => several.run(seen, handle, stop).await,
        }
    }
}
