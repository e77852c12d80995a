//! Brings the order to pause or resume the application to rows that lack it: those that were created since by a Java
//! worker or at the same moment, and those that an interrupted command has not reached.
//!
//! Pure.

use tracing::info;

use crate::lease::orders::{self, Pause};
use crate::lease::update::Update;
use crate::lease::{Lease, LeaseKey, WorkerId};
use crate::shard::some;

/// The writes that correct rows, by a scan that may be old: a row that has received another order since is left alone.
/// A worker that does not audit the leases corrects only its own (`only`): the one that does may be a Java worker.
pub(super) fn corrections(
    leases: &[Lease],
    in_force: &Pause,
    only: Option<&WorkerId>,
    past: i64,
) -> Vec<(LeaseKey, Update)> {
    let is_concerned = |lease: &&Lease| only.is_none() || lease.owner.as_ref() == only;
    let lagging = orders::lagging(leases, in_force).into_iter().filter(is_concerned);
    lagging.map(|lease| (lease.key.clone(), orders::correct(lease, in_force, past))).collect()
}

/// Logs the rows that were corrected.
pub(super) fn log_corrected(leases: &[LeaseKey], in_force: &Pause) {
    if !leases.is_empty() {
        info!(
            event = "pause_completed",
            shards = some(leases),
            paused = in_force.is_on(),
            by = in_force.by(),
            "brought the order to pause or resume the application to leases that lacked it"
        );
    }
}
