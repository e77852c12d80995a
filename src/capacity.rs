//! How many leases this worker may hold now: what the limits of the process bear, and less while resources are short.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    held: AtomicUsize,
    peers: AtomicBool,
}

impl Capacity {
    /// `limit` leases at most.
    pub fn new(limit: usize) -> Self {
        Self { limit, shortage: Mutex::default(), held: AtomicUsize::new(0), peers: AtomicBool::new(false) }
    }

    /// How many leases the limits bear.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The leases that this worker holds, and whether there are other live workers.
    pub fn note(&self, held: usize, peers: bool) {
        self.held.store(held, Ordering::Relaxed);
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

    /// Whether this worker should be given no more leases.
    pub fn is_full(&self, now: Instant) -> bool {
        self.is_short(now) || self.held.load(Ordering::Relaxed) >= self.limit
    }

    fn is_short(&self, now: Instant) -> bool {
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
    fn worker_is_full_at_its_limit_and_for_a_minute_after_a_shortage() {
        let (capacity, now) = (Capacity::new(10), Instant::now());
        capacity.note(9, true);
        assert!(!capacity.is_full(now));
        assert_eq!(capacity.most(9, now), 10);
        capacity.note(10, true);
        assert!(capacity.is_full(now));
        capacity.note(4, true);
        capacity.shortage(now);
        assert!(capacity.is_full(now + SHORT / 2));
        assert_eq!(capacity.most(4, now + SHORT / 2), 4);
        assert!(!capacity.is_full(now + SHORT));
        capacity.recovered();
        assert!(!capacity.is_full(now));
        capacity.shortage(now);
        assert_eq!(capacity.most(4, now + SHORT), 10);
    }
}
