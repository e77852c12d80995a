//! Brings the order to pause or resume the application to rows that lack it: those that were created since by a Java
//! worker or at the same moment, and those that an interrupted command has not reached.

use tracing::info;

use super::{Error, ShardSync};
use crate::lease::{Lease, orders, table};
use crate::shard::some;

impl ShardSync {
    /// Corrects rows, by a scan that may be old: a row that has received another order since is left alone.
    /// A worker that does not audit the leases corrects its own: the one that does may be a Java worker.
    pub(super) async fn bring_orders(&self, leases: &[Lease], leads: bool) -> Result<(), Error> {
        let Some(in_force) = orders::in_force(leases) else { return Ok(()) };
        let mut corrected = Vec::new();
        let is_mine = |lease: &&Lease| leads || lease.owner.as_ref() == Some(&self.settings.me);
        for lease in orders::lagging(leases, in_force).into_iter().filter(is_mine) {
            match self.table.update(&lease.key, &orders::correct(lease, in_force, self.clock.past())).await {
                Ok(_) | Err(table::Error::Written { .. }) => corrected.push(&lease.key),
                Err(table::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !corrected.is_empty() {
            info!(
                event = "pause_completed",
                shards = some(corrected.iter().copied()),
                paused = in_force.is_on(),
                by = in_force.by(),
                "brought the order to pause or resume the application to leases that lacked it"
            );
        }
        Ok(())
    }
}
