//! The whole fleet as JSON.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::metrics::fleet::{Fleet, FleetLease, FleetWorker};

/// The fleet as one JSON object.
pub(super) fn fleet_json(fleet: &Fleet, now: Instant) -> Value {
    let worker = |worker: &FleetWorker| {
        json!({
            "worker": worker.worker, "leases": worker.leases, "live": worker.live,
            "acceptsLeases": worker.accepts_leases, "metrics": worker.metrics,
        })
    };
    let lease = |lease: &FleetLease| {
        json!({
            "shard": lease.key, "owner": lease.owner, "nextOwner": lease.next_owner,
            "state": lease.state.word(),
            "checkpointUnchangedSeconds": lease.checkpoint_unchanged.as_secs(),
            "unreadSeconds": lease.unread.map(|lasted| lasted.as_secs()),
            "throughputKBps": lease.kilobytes_per_second,
        })
    };
    json!({
        "scannedSecondsAgo": now.saturating_duration_since(fleet.scanned).as_secs(),
        "workers": fleet.workers.iter().map(worker).collect::<Vec<_>>(),
        "leases": fleet.leases.iter().map(lease).collect::<Vec<_>>(),
    })
}
