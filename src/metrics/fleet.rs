//! A fleet as one of its workers knows it, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The state of a lease, as far as the lease table shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// A live worker owns the lease.
    Owned,
    /// A live worker owns the lease, and is to hand it off to another worker.
    HandingOff,
    /// An operator has parked the shard or paused the application.
    Parked,
    /// The lease has no owner.
    Unowned,
    /// The owner is not alive: it renews none of its leases.
    Expired,
    /// The shard was processed to its end.
    Ended,
}

impl LeaseState {
    /// The state in a few words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::HandingOff => "handing off",
            Self::Parked => "parked by operator",
            Self::Unowned => "unowned",
            Self::Expired => "expired",
            Self::Ended => "ended",
        }
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetLease {
    /// The key of the lease: in a table of one stream, the id of the shard.
    pub key: String,
    /// The worker that reads it; none if there is none.
    pub owner: Option<String>,
    /// The worker that gets it by a graceful handoff.
    pub next_owner: Option<String>,
    /// The state.
    pub state: LeaseState,
    /// For how long, by the scans of this worker, the checkpoint has not changed.
    pub checkpoint_unchanged: Duration,
    /// For how long, by the scans of this worker, no live worker has owned it: zero if only the last scan showed it so; none
    /// if one owns it, or the shard has ended.
    pub unread: Option<Duration>,
    /// Its throughput as its owner measured it, in KB per second.
    pub kilobytes_per_second: Option<f64>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetWorker {
    /// Its id.
    pub worker: String,
    /// Number of unfinished leases that it owns.
    pub leases: usize,
    /// Whether it renews leases or reports worker metrics.
    pub live: bool,
    /// Whether it may be assigned leases, by its worker metrics; none where this worker does not read them.
    pub accepts_leases: Option<bool>,
    /// Its worker metrics in percent, by their short names (`C`: CPU).
    pub metrics: BTreeMap<String, f64>,
}

/// A fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// When the lease table was scanned.
    pub scanned: Instant,
    /// The workers.
    pub workers: Vec<FleetWorker>,
    /// The leases.
    pub leases: Vec<FleetLease>,
}

/// Reads the fleet as the worker knows it; none before the first scan of the lease table.
#[derive(Clone)]
pub struct FleetReader(Arc<dyn Fn() -> Option<Fleet> + Send + Sync>);

impl FleetReader {
    /// Reads it by `read`, which must not block for long.
    pub fn new(read: impl Fn() -> Option<Fleet> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The fleet by now.
    pub fn read(&self) -> Option<Fleet> {
        (self.0)()
    }
}

impl Default for FleetReader {
    /// Nothing is known.
    fn default() -> Self {
        Self::new(|| None)
    }
}

impl fmt::Debug for FleetReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetReader")
    }
}
