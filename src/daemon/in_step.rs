//! Keeps the shard sync of a stream running.

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error};

use crate::coordinator::{Handle, Snapshot};
use crate::shard_sync::ShardSync;

/// Restarts the shard sync after a panic: a bug in it ends one round, not the daemon. The next round sees
/// what was missed.
pub(super) async fn keep_in_step(
    shard_sync: ShardSync,
    seen: watch::Receiver<Snapshot>,
    handle: Handle,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let mut task = JoinSet::new();
        let run = shard_sync.clone().run(seen.clone(), handle.clone(), stop.clone());
        task.spawn(run.in_current_span());
        if let Some(Err(error)) = task.join_next().await {
            error!(event = "shard_sync_panicked", %error, "shard sync task panicked, restarting it");
        }
    }
}
