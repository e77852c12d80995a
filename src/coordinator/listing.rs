//! Degraded operation: the worker can't list its leases, or can't write them.
//!
//! The index of lease owners is replaced by scans while it fails or lags ([`super::index`]). A worker that can
//! acquire nothing for long shows it in [`Snapshot::unable`](super::Snapshot::unable), so that it is given nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, info, warn};

use super::index::SETTLED;
use super::renewal::pause;
use super::{Coordinator, Done, MIN_PAUSE};
use crate::fleet::vacancy::Unled;
use crate::lease::{Held, Lease, table};
use crate::shard::{ShardId, some};

/// Writes that failed so many failover times ago say nothing any more.
const FORGOTTEN: u32 = 30;
/// The index of lease owners.
const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// One line for each lease that another worker had; the others are counted ([`Coordinator::tried`]).
pub(super) fn log_acquired(before: &Lease, acquired: &Lease) {
    let (shard, checkpoint) = (&before.shard, &before.checkpoint);
    match &before.owner {
        Some(from) if before.owner != acquired.owner => {
            info!(%shard, %checkpoint, %from, "acquired a lease of another worker");
        }
        Some(_) | None => debug!(%shard, %checkpoint, "acquired a lease"),
    }
}

/// One line for the leases that a plan of the leader has assigned.
pub(super) fn log_assigned(planned: usize, failed: usize) {
    let count = planned.saturating_sub(failed);
    if count > 0 {
        let failed = (failed > 0).then_some(failed);
        info!(failed, "assigned {count} {}", if count == 1 { "lease" } else { "leases" });
    }
}

impl Coordinator {
    /// Starts a task in the current span; its end is an event.
    pub(super) fn spawn(&mut self, task: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        self.work.spawn(task.in_current_span())
    }

    pub(super) fn scan(&mut self) {
        let table = self.table.clone();
        self.spawn(async move { Done::Looked(table.list().await) });
    }

    pub(super) fn cannot_list(&mut self, error: &table::Error) {
        let now = Instant::now();
        if self.assigned.listing.failed(now, error, &self.settings.reach) {
            warn!(%error, action = "dynamodb:Scan", "failed to list the leases");
        }
        self.show_ability();
        self.look.under_way = 0;
        self.look.next = now + MIN_PAUSE.max(pause(self.settings.failover));
    }

    pub(super) fn can_list(&mut self, now: Instant) {
        if let Some(lasted) = self.assigned.listing.worked(now) {
            info!(?lasted, "listing the leases works again");
        }
    }

    /// Whether nobody knows if somebody leads.
    pub(super) fn is_unsure(&self) -> bool {
        self.standing.borrow().unled == Some(Unled::Unknown)
    }

    /// The index is of no use now: the table is scanned at once.
    pub(super) fn cannot_query(&mut self, error: &table::Error) {
        if self.assigned.index.failed(Instant::now(), error, self.settings.failover, &self.settings.reach) {
            warn!(
                %error,
                index = INDEX,
                action = "dynamodb:Query",
                "failed to query the index of lease owners, scanning the lease table instead (allow dynamodb:Query on \
                 the index, and check its capacity)"
            );
        }
        self.scan();
    }

    /// A lease that this worker holds is not in the index: is it this worker's?
    pub(super) fn unlisted(&mut self, lease: Option<&Lease>) {
        let me = &self.settings.me;
        let mine = |lease: &&Lease| lease.owner.as_ref() == Some(me) && lease.checkpoint_owner.is_none();
        let Some(lease) = lease.filter(mine).filter(|lease| self.held.contains_key(&lease.shard)) else {
            return;
        };
        let now = Instant::now();
        if self.assigned.index.lags(now) {
            warn!(
                shard = %lease.shard,
                index = INDEX,
                "the index of lease owners lacks a lease of this worker, scanning the lease table instead"
            );
        }
        self.look.next = now;
    }

    pub(super) fn let_go(&mut self, shard: &ShardId) -> Option<Arc<Held>> {
        self.assigned.held_since.remove(shard);
        self.held.remove(shard)
    }

    /// Reads a lease that the index must list and does not.
    pub(super) fn check_index(&mut self, listed: &[ShardId], now: Instant) {
        let listed: BTreeSet<&ShardId> = listed.iter().collect();
        let settled = |since: &Instant| now >= *since + SETTLED;
        let settled =
            self.assigned.held_since.iter().filter(|(_, since)| settled(since)).map(|(shard, _)| shard);
        let mut missing = settled.filter(|shard| !listed.contains(shard) && !self.releasing.contains(*shard));
        if let Some(shard) = missing.next().cloned() {
            let table = self.table.clone();
            self.spawn(async move { Done::Unlisted(table.get(&shard).await.ok().flatten().map(Box::new)) });
        } else if let Some(lasted) = self.assigned.index.answered(now, !self.held.is_empty()) {
            info!(index = INDEX, ?lasted, "the index of lease owners works again");
        }
    }

    /// A lease was to be acquired.
    pub(super) fn tried(&mut self, shard: &ShardId, outcome: &Result<(), table::Error>) {
        let now = Instant::now();
        match outcome {
            Err(error) if !matches!(error, table::Error::Conflict(_) | table::Error::Ambiguous(_)) => {
                if self.assigned.acquiring.failed(now, error, &self.settings.reach) {
                    warn!(%error, action = "dynamodb:UpdateItem", "failed to acquire leases");
                }
            }
            Ok(()) | Err(_) => {
                if let Some(lasted) = self.assigned.acquiring.worked(now) {
                    info!(?lasted, "acquiring leases works again");
                }
            }
        }
        self.show_ability();
        if outcome.is_ok() {
            self.assigned.acquired.push(shard.clone());
        }
    }

    /// Logs the leases that were acquired since the last such line, once nothing is under way.
    pub(super) fn log_acquisitions(&mut self) {
        if self.look.under_way == 0 && !self.assigned.acquired.is_empty() {
            let acquired = std::mem::take(&mut self.assigned.acquired);
            let (count, leases) = (acquired.len(), if acquired.len() == 1 { "lease" } else { "leases" });
            info!(held = self.held.len(), shards = some(&acquired), "acquired {count} {leases}");
        }
    }

    /// Since when this worker can acquire no lease. A worker that wants none is assigned none and so attempts
    /// no writes, so failed writes count only for a while.
    pub(super) fn unable(&self) -> Option<Instant> {
        let limit = self.settings.failover * FORGOTTEN;
        let recent = self.assigned.acquiring.last().is_some_and(|last| Instant::now() < last + limit);
        // One failure says little, and who is given nothing has no second.
        let repeated = |since: &Instant| self.assigned.acquiring.last().is_some_and(|last| last > *since);
        let acquiring = self.assigned.acquiring.since().filter(|since| recent && repeated(since));
        self.assigned.listing.since().into_iter().chain(acquiring).min()
    }

    pub(super) fn show_ability(&self) {
        let unable = self.unable();
        self.shown.send_if_modified(|seen| std::mem::replace(&mut seen.unable, unable) != unable);
    }
}
