//! The open shards of the stream compared with the leases: the stream is the measure, not the table.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::warn;

use super::identity::some;
use super::{AUDIT, Error, Memory, Upkeep};
use crate::coordinator::{Handle, Seen};
use crate::lease::{Lease, origin, update};
use crate::metrics::OfWorker;
use crate::shard::{Filter, Shard, ShardId};

impl Upkeep {
    /// One audit: shards without a lease get one, a finished row of an open shard is reset, and what no worker reads is
    /// counted. One `ListShards`.
    pub(super) async fn compare(
        &self,
        seen: &Seen,
        memory: &mut Memory,
        coordinator: &Handle,
    ) -> Result<(), Error> {
        let listed = self.shards.list(Filter::All).await?;
        let unread: BTreeSet<ShardId> =
            origin::unread(&seen.leases, &listed, &seen.live).into_iter().collect();
        let lasting: BTreeSet<ShardId> = unread.intersection(&memory.unread).cloned().collect();
        if !lasting.is_empty() {
            warn!(count = lasting.len(), shards = ?some(&lasting), "no live worker reads these open shards");
        }
        self.settings.sink.worker(OfWorker::Unread { shards: Some(unread.len()), lasting: lasting.len() });
        memory.unread = unread;
        if memory.unread.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        // ListShards may be a little behind the end of a shard.
        let mut changed =
            self.reopen(&seen.leases, &listed, |shard| memory.finished_for(shard, now) >= AUDIT).await?;
        if memory.unread.iter().any(|shard| seen.leases.iter().all(|lease| lease.shard != *shard)) {
            // The rows as they are now: the look may be some seconds old.
            let missing = self.needed(&self.table.list().await?).await?;
            let made = self.make(&missing).await?;
            changed |= made.new + made.there > 0;
        }
        if changed {
            coordinator.look();
        }
        Ok(())
    }

    /// Rows that say `SHARD_END` for shards that are open are of an earlier stream, or wrong: these shards are read from
    /// their oldest records. Says whether there were any.
    pub(super) async fn reopen(
        &self,
        leases: &[Lease],
        listed: &[Shard],
        is_settled: impl Fn(&ShardId) -> bool,
    ) -> Result<bool, Error> {
        let mut changed = false;
        for (lease, shard) in origin::finished_but_open(leases, listed) {
            let ours = self.recognition.accepts(lease.stream.as_ref());
            if is_settled(&lease.shard) && ours && self.recognition.is_unchanged(&lease.shard).await {
                warn!(
                    shard = %lease.shard,
                    "the lease says SHARD_END, but the shard is open: it is read from its oldest record"
                );
                let stream = self.recognition.mark(&lease.shard);
                let parents = shard.parents().cloned().collect();
                let reset = update::reset(lease, parents, shard.range, stream.as_ref());
                self.rewrite(std::iter::once((lease, reset))).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Another worker counts from now on.
    pub(super) fn forget_unread(&self, memory: &mut Memory) {
        memory.unread.clear();
        self.settings.sink.worker(OfWorker::Unread { shards: None, lasting: 0 });
    }
}
