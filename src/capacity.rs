//! The number of leases that this worker may hold now: the limits of the process allow a maximum, a shortage
//! of resources lowers it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long no more leases are acquired after a shortage.
const SHORT: Duration = Duration::from_secs(60);

/// Shared by the tasks that acquire leases and the tasks that start record processors.
#[derive(Debug)]
pub struct Capacity {
    limit: usize,
    /// When a record processor last failed to start for lack of resources.
    shortage: Mutex<Option<Instant>>,
    peers: AtomicBool,
}

impl Capacity {
    /// A capacity of at most `limit` leases.
    pub fn new(limit: usize) -> Self {
        Self { limit, shortage: Mutex::default(), peers: AtomicBool::new(false) }
    }

    /// The most leases that the limits of this process allow; none without a limit.
    pub fn limit(&self) -> Option<usize> {
        Some(self.limit).filter(|limit| *limit < usize::MAX)
    }

    /// Records whether there are other live workers.
    pub fn note(&self, peers: bool) {
        self.peers.store(peers, Ordering::Relaxed);
    }

    /// Records that a record processor failed to start for lack of resources.
    pub fn shortage(&self, now: Instant) {
        *self.lock() = Some(now);
    }

    /// Records that a record processor started after such a failure.
    pub fn recovered(&self) {
        *self.lock() = None;
    }

    /// Whether another live worker could hold a lease for which this one lacks resources.
    pub fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed)
    }

    /// Most leases that this worker may hold now; during a shortage, the number that it holds.
    pub fn most(&self, held: usize, now: Instant) -> usize {
        if self.is_short(now) { self.limit.min(held) } else { self.limit }
    }

    /// Whether resources are short now, so that the leader should assign no more leases to this worker. A
    /// worker at its limit is not short: one that reports so is not relieved of leases either.
    pub fn is_short(&self, now: Instant) -> bool {
        self.lock().is_some_and(|at| now.saturating_duration_since(at) < SHORT)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Capacity {
    /// A capacity without a limit.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_frozen_for_a_minute_after_a_shortage() {
        let (capacity, now) = (Capacity::new(10), Instant::now());
        assert_eq!((capacity.most(9, now), capacity.is_short(now)), (10, false));
        capacity.shortage(now);
        assert!(capacity.is_short(now + SHORT / 2));
        assert_eq!(capacity.most(4, now + SHORT / 2), 4);
        assert!(!capacity.is_short(now + SHORT));
        assert_eq!(capacity.most(4, now + SHORT), 10);
        capacity.shortage(now);
        capacity.recovered();
        assert!(!capacity.is_short(now));
        assert_eq!((capacity.limit(), Capacity::default().limit()), (Some(10), None));
    }
}
