//! The shard sync at the start of a worker: creates the leases that the stream's shards need.

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::ShardSync;
use super::event::{Error, Made};
use super::open_shards::{filter, needed, wrong};
use super::orders;
use crate::lease::orders::in_force;
use crate::lease::{Lease, LeaseKey, origin};
use crate::metrics::{OfWorker, Step};
use crate::sequence::Sequence;
use crate::shard::Filter;

impl ShardSync {
    /// Creates the leases that the stream's shards need at the start, and the table itself.
    ///
    /// # Errors
    /// The table or the stream cannot be used now; another attempt is safe.
    pub async fn begin(&self) -> Result<(), Error> {
        let began = Instant::now();
        let outcome = self.sync().await;
        let (step, took, ok) = (Step::Sync, began.elapsed(), outcome.is_ok());
        self.settings.sink.worker(OfWorker::Did { step, took, ok });
        outcome
    }

    async fn sync(&self) -> Result<(), Error> {
        self.table.ensure().await?;
        let mut leases = self.table.list().await?;
        // A worker of another stream may have created the first rows since the table was compared.
        origin::marks(&leases, self.recognition.current().as_ref(), &self.settings.stream)?;
        if self.start_over(&leases).await? {
            leases = self.table.list().await?;
        }
        if !leases.is_empty() && self.settings.skip_if_leases_exist {
            info!(
                event = "shard_sync_skipped",
                leases = leases.len(),
                "skipped the shard sync at start because leases exist \
                 (skipShardSyncAtWorkerInitializationIfLeasesExist)"
            );
            return Ok(());
        }
        // Sequence numbers are compared in the audits: a start lists no more than necessary.
        if leases.iter().any(Lease::is_complete) {
            // A shard with children may have ended just now: the audits check twice.
            let childless = |key: &LeaseKey| leases.iter().all(|lease| !lease.parents.contains(key.shard()));
            let listed = self.shards.list(Filter::All).await?;
            self.reset(&wrong(&leases, &listed, &self.recognition.identity(), childless)).await?;
        }
        let mut missing = self.needed(&leases).await?;
        let skips = |lease: &Lease| lease.checkpoint.sequence != Sequence::TrimHorizon;
        if missing.iter().any(skips) && leases.iter().any(|lease| lease.owner.is_some()) {
            // The owner of a lease whose row was deleted knows the position, and restores the row with its
            // next renewal.
            sleep(self.settings.failover / 2).await;
            leases = self.table.list().await?;
            missing = self.needed(&leases).await?;
        }
        let mut first = Made::default();
        if leases.is_empty() {
            first = self.make_first(&missing).await?;
            missing.drain(..first.new.min(missing.len()));
            if first.new == 0 {
                // Another worker was faster: the first row decides where the stream begins.
                leases = self.table.list().await?;
                missing = self.needed(&leases).await?;
            }
        }
        let made = self.make(&missing).await?;
        let new = first.new + made.new;
        let leases = leases.len() + new + made.there;
        if made.occupied > 0 {
            let unreadable = made.occupied;
            warn!(
                event = "shard_sync_incomplete",
                leases,
                created = new,
                unreadable,
                "completed the shard sync: some shards of the stream have no readable lease"
            );
        } else {
            info!(event = "shard_sync_completed", leases, created = new, "completed the shard sync");
        }
        Ok(())
    }

    /// The leases to be created.
    pub(super) async fn needed(&self, leases: &[Lease]) -> Result<Vec<Lease>, Error> {
        let listed = self.shards.list(filter(leases, &self.settings)).await?;
        // A stream that is new in a table of several has no row with the order.
        let order = match &self.whole {
            Some(whole) => in_force(&whole.list().await?).cloned(),
            None => None,
        };
        Ok(needed(leases, &listed, &self.settings, order.as_ref(), self.clock.past())?)
    }

    /// Brings the order in force to all rows that lack it.
    pub(super) async fn bring_orders(&self, leases: &[Lease]) -> Result<(), Error> {
        let Some(pause) = in_force(leases) else { return Ok(()) };
        let corrections = orders::corrections(leases, pause, None, self.clock.past());
        orders::log_corrected(&self.correct(&corrections).await?, pause);
        Ok(())
    }
}
