//! The writes of the shard sync: creates, corrects, resets and deletes rows.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tracing::{Instrument as _, debug, error, info, warn};

use super::ShardSync;
use super::event::{Error, Made, Wrong};
use crate::coordinator::Handle;
use crate::lease::update::{self, Update};
use crate::lease::{Lease, LeaseKey, table};
use crate::sequence::Sequence;
use crate::shard::ShardId;

/// Most rows that are created at a time.
const PARALLEL: usize = 8;

/// The item that already has the key of a lease to be created.
enum InTheWay {
    Lease,
    /// An item that is no lease, or cannot be read.
    Other,
    /// The row was deleted since: the lease was created at the second attempt.
    Nothing,
}

impl ShardSync {
    /// Creates leases: ancestors before descendants, so that after a crash the missing ones are planned
    /// again; unrelated ones at the same time.
    pub(super) async fn make(&self, leases: &[Lease]) -> Result<Made, Error> {
        let mut outcome = Made::default();
        for together in unrelated(leases) {
            let mut making = JoinSet::new();
            for lease in together {
                let (table, count) = (self.table.clone(), self.made.clone());
                let stream = lease.stream.clone().or_else(|| self.recognition.current());
                let lease = Lease { typed: self.typed, stream, ..lease.clone() };
                let create = async move {
                    let made = table.create(&lease).await;
                    if let Ok(made) = made {
                        count.fetch_add(usize::from(made), Ordering::Relaxed);
                        let Lease { key, checkpoint, .. } = &lease;
                        let is_restored = matches!(checkpoint.sequence, Sequence::Number(_));
                        if made && is_restored {
                            warn!(event = "lease_restored", shard = %key, %checkpoint, "restored a deleted lease");
                        } else {
                            let what = if made { "created lease" } else { "lease exists already" };
                            debug!(shard = %key, %checkpoint, "{what}");
                        }
                    }
                    made.map(|made| (lease, made))
                };
                making.spawn(create.in_current_span());
            }
            for made in making.join_all().await {
                match made? {
                    (_, true) => outcome.new += 1,
                    (lease, false) => match self.in_the_way(&lease).await? {
                        InTheWay::Lease => outcome.there += 1,
                        InTheWay::Nothing => outcome.new += 1,
                        InTheWay::Other => outcome.occupied += 1,
                    },
                }
            }
        }
        Ok(outcome)
    }

    /// Determines why a lease cannot be created. If the item with its key is no lease, no worker reads the
    /// shard.
    async fn in_the_way(&self, lease: &Lease) -> Result<InTheWay, Error> {
        let key = &lease.key;
        let why = match self.table.get(key).await {
            Ok(Some(_)) => None,
            // The row may have been deleted meanwhile.
            Ok(None) if self.table.create(lease).await? => return Ok(InTheWay::Nothing),
            Ok(None) => Some("its entityType is not LEASE".to_owned()),
            Err(table::Error::Unreadable { why, .. }) => Some(why),
            Err(error) => return Err(error.into()),
        };
        let mut occupied = self.occupied.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = why else {
            occupied.remove(key);
            return Ok(InTheWay::Lease);
        };
        if occupied.get(key) != Some(&why) {
            error!(event = "lease_row_invalid",
                shard = %key, error = why,
                "no worker can acquire the lease of this shard: the row with its key in the lease table is not a \
                 valid lease (correct the attribute; a row that is deleted loses its checkpoint)"
            );
            occupied.insert(key.clone(), why);
        }
        Ok(InTheWay::Other)
    }

    /// Writes rows that may have changed since: those are left alone. Returns the others.
    pub(super) async fn correct(&self, rows: &[(LeaseKey, Update)]) -> Result<Vec<LeaseKey>, Error> {
        let mut corrected = Vec::new();
        for (key, update) in rows {
            match self.table.update(key, update).await {
                Ok(_) | Err(table::Error::Written { .. }) => corrected.push(key.clone()),
                Err(table::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(corrected)
    }

    /// Resets rows that cannot be right, while the stream is certainly unchanged. Returns whether there were any.
    pub(super) async fn reset(&self, rows: &[Wrong]) -> Result<bool, Error> {
        let mut changed = false;
        for Wrong { lease, shard, stream } in rows {
            if self.recognition.is_unchanged(lease.shard()).await {
                warn!(event = "lease_reset",
                    shard = %lease.key, checkpoint = %lease.checkpoint, starting = %shard.starting,
                    "the checkpoint of the lease does not belong to this shard: resetting it to \
                     TRIM_HORIZON"
                );
                let reset = |row: &Lease| {
                    update::reset(row, shard.parents().cloned().collect(), shard.range, Some(stream))
                };
                self.rewrite(lease, reset).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Deletes the leases of finished shards.
    pub(super) async fn delete(&self, leases: Vec<LeaseKey>, coordinator: &Handle) -> Result<(), Error> {
        for key in leases {
            coordinator.forget(key.clone());
            let deleted = self.table.delete(&key).await?;
            info!(event = "lease_deleted", shard = %key, deleted, "deleted the lease of a finished shard");
        }
        Ok(())
    }
}

/// Splits leases in which ancestors come first into parts: no lease of a part is a parent of another one in
/// it.
fn unrelated(leases: &[Lease]) -> Vec<&[Lease]> {
    let (mut parts, mut rest) = (Vec::new(), leases);
    while !rest.is_empty() {
        let mut together: BTreeSet<&ShardId> = BTreeSet::new();
        let count = rest
            .iter()
            .take(PARALLEL)
            .take_while(|lease| {
                let unrelated = lease.parents.iter().all(|parent| !together.contains(parent));
                together.insert(lease.shard());
                unrelated
            })
            .count();
        // The first lease belongs to the part even if it is its own parent.
        let (part, later) = rest.split_at(count.max(1));
        parts.push(part);
        rest = later;
    }
    parts
}
