//! The requests of the coordinator. Each is a task that ends with an event.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Settings;
use super::event::Event;
use crate::backoff::Backoff;
use crate::clock;
use crate::lease::held::Owner;
use crate::lease::update::Update;
use crate::lease::{Held, Lease, LeaseKey, Table, WorkerId, update, watch as rhythm};
use crate::sequence::Sequence;

/// No attempt to restore a row begins later: well before an audit creates it at the initial position.
const RESTORE: Duration = Duration::from_secs(30);

/// The context of all tasks.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) table: Arc<dyn Table>,
    /// Bounds the writes in flight, renewals apart.
    pub(super) writes: Arc<Semaphore>,
    pub(super) settings: Settings,
    pub(super) owner: Owner,
}

/// The end of a task; none if it decides nothing.
pub(super) type Done = Option<Event<Arc<Held>>>;

impl Tools {
    /// Writes a row to acquire its lease.
    pub(super) async fn acquire(self, key: LeaseKey, mut update: Update) -> Done {
        let _permit = self.writes.acquire().await;
        update.date(self.settings.clock.past());
        let (proven, slept) = (Instant::now(), clock::slept());
        let outcome = self.table.update(&key, &update).await.map(|before| {
            let mut lease = before.clone();
            update.apply(&mut lease);
            log_acquired(&before, &lease);
            (Held::resuming(lease, before.latest_from, proven, slept, &self.owner), proven)
        });
        Some(Event::Acquired(key, outcome))
    }

    /// Nudges the owners of these rows.
    pub(super) async fn nudge(self, nudges: Vec<(LeaseKey, Update)>) -> Done {
        let mut writes = JoinSet::new();
        for (key, update) in nudges {
            let Self { table, writes: permits, .. } = self.clone();
            writes.spawn(async move {
                let _permit = permits.acquire().await;
                if let Err(error) = table.update(&key, &update).await {
                    debug!(shard = %key, %error, "failed to nudge a worker");
                }
            });
        }
        while writes.join_next().await.is_some() {}
        None
    }

    /// Nudges these workers, or all, by their rows as they are: a member knows the whole table from long ago only.
    pub(super) async fn nudge_owners(self, workers: Option<Vec<WorkerId>>) -> Done {
        let Ok(leases) = self.table.list().await else { return None };
        let me = &self.settings.me;
        let is_nudged = |worker: &WorkerId| {
            worker != me && workers.as_ref().is_none_or(|workers| workers.contains(worker))
        };
        let rows = rhythm::nudged_of(&leases, is_nudged);
        let nudges: Vec<_> = rows.into_iter().map(|row| (row.key.clone(), update::nudge(row))).collect();
        debug!(leases = nudges.len(), "nudging other workers");
        self.nudge(nudges).await
    }

    /// A lease expired, or was lost for an unknown reason: if its row is missing, only this worker knows its content. It
    /// is created again without an owner, unless another worker was faster.
    pub(super) async fn restore(self, held: Arc<Held>, mut backoff: Backoff) -> Done {
        let row = held.last_row().await?;
        let until = Instant::now() + RESTORE;
        while Instant::now() < until {
            let permit = self.writes.acquire().await;
            let read = self.table.get(&row.key).await;
            drop(permit);
            if matches!(read, Ok(Some(_))) {
                break;
            }
            tokio::time::sleep(backoff.pause()).await;
            if read.is_err() {
                continue;
            }
            match self.table.list().await {
                // Another worker has read the shard to its end meanwhile, and the row was cleaned away.
                Ok(leases) if leases.iter().any(|lease| has_begun_after(lease, &row.key)) => break,
                Ok(_) => {}
                Err(_) => continue,
            }
            match self
                .settings
                .recognitions
                .have_shard(row.key.stream(), row.shard(), row.stream.as_ref())
                .await
            {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => continue,
            }
            match self.table.create(&row).await {
                Ok(made) => {
                    if made {
                        warn!(event = "lease_restored", shard = %row.key, checkpoint = %row.checkpoint, "restored a deleted lease");
                    }
                    break;
                }
                Err(error) => debug!(shard = %row.key, %error,
                    "failed to restore a deleted lease, retrying"),
            }
        }
        None
    }
}

/// Whether a lease is of a child of that lease's shard, and was read.
fn has_begun_after(lease: &Lease, parent: &LeaseKey) -> bool {
    let read = matches!(lease.checkpoint.sequence, Sequence::Number(_) | Sequence::ShardEnd);
    read && lease.parents.iter().any(|id| lease.key.relative(id) == *parent)
}

/// One line for each lease that another worker had; the others are counted.
fn log_acquired(before: &Lease, acquired: &Lease) {
    let (key, checkpoint) = (&before.key, &before.checkpoint);
    match &before.owner {
        Some(from) if before.owner != acquired.owner => {
            info!(event = "lease_stolen", shard = %key, %checkpoint, %from, "acquired a lease of another worker");
        }
        Some(_) | None => debug!(shard = %key, %checkpoint, "acquired a lease"),
    }
}
