//! How many leases this worker may hold now: what the limits of the process bear, and less while resources are short.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After a shortage no more leases are acquired for so long.
const SHORT: Duration = Duration::from_secs(60);

/// Shared by whoever acquires leases and whoever starts record processors.
#[derive(Debug)]
pub struct Capacity {
    limit: usize,
    /// When a record processor could not be started last, for lack of resources.
    shortage: Mutex<Option<Instant>>,
    peers: AtomicBool,
}

impl Capacity {
    /// `limit` leases at most.
    pub fn new(limit: usize) -> Self {
        Self { limit, shortage: Mutex::default(), peers: AtomicBool::new(false) }
    }

    /// Whether there are other live workers.
    pub fn note(&self, peers: bool) {
        self.peers.store(peers, Ordering::Relaxed);
    }

    /// A record processor could not be started for lack of resources.
    pub fn shortage(&self, now: Instant) {
        *self.lock() = Some(now);
    }

    /// One that could not be started before could be started now.
    pub fn recovered(&self) {
        *self.lock() = None;
    }

    /// Whether another live worker could have a lease for which this one has no room.
    pub fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed)
    }

    /// Leases that this worker may hold now; while resources are short, no more than it holds.
    pub fn most(&self, held: usize, now: Instant) -> usize {
        if self.is_short(now) { self.limit.min(held) } else { self.limit }
    }

    /// Whether resources are short now: no more leases are to be given to this worker. One at its limit is none of these: a
    /// worker that says that it wants no leases is not relieved of any either.
    pub fn is_short(&self, now: Instant) -> bool {
        self.lock().is_some_and(|at| now.saturating_duration_since(at) < SHORT)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Capacity {
    /// Without a limit.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_acquires_up_to_its_limit_and_nothing_for_a_minute_after_a_shortage() {
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
    }
}
