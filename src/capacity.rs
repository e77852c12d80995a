//! The number of leases that this worker may hold now: the limits of the process allow a maximum, a shortage
//! of resources lowers it.
//!
//! Several applications of one process share its limits. Each may acquire its part of what none of them uses, rounded up:
//! the last free lease is for any application that needs it. Those that acquire leases at the same time exceed the limit
//! together by less than one lease each, which the descriptors reserved for each application cover.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long no more leases are acquired after a shortage.
const SHORT: Duration = Duration::from_secs(60);

/// The limit of the process, and what its applications use of it.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    /// The number of applications, of which some may have failed.
    applications: usize,
    /// When a record processor last failed to start for lack of resources, which are those of the process.
    shortage: Mutex<Option<Instant>>,
    /// The number of leases that each application holds.
    held: Mutex<BTreeMap<u64, usize>>,
}

impl Pool {
    /// A pool of at most `limit` leases for a number of applications.
    pub fn new(limit: usize, applications: usize) -> Arc<Self> {
        Arc::new(Self { limit, applications, shortage: Mutex::default(), held: Mutex::default() })
    }

    /// The most leases of an application that holds `own`: these, and its part of the leases that all of them together
    /// leave. The part counts applications that hold none yet, since all may acquire leases at one time.
    fn part(&self, own: usize, held: &BTreeMap<u64, usize>) -> usize {
        if self.applications <= 1 {
            return self.limit;
        }
        let used = held.values().fold(0_usize, |sum, held| sum.saturating_add(*held));
        // Beyond the limit, nothing is taken away: that is up to the resources themselves.
        let free = self.limit.saturating_sub(used);
        // At least one is tried.
        own.saturating_add(free.div_ceil(self.applications)).max(1)
    }

    /// The capacity of one more application, until it is dropped.
    pub fn capacity(self: &Arc<Self>) -> Capacity {
        let mut held = lock(&self.held);
        let id = held.last_key_value().map_or(0, |(last, _)| last + 1);
        held.insert(id, 0);
        Capacity { pool: self.clone(), id, peers: AtomicBool::new(false) }
    }
}

/// Shared by the tasks that acquire leases and the tasks that start record processors.
#[derive(Debug)]
pub struct Capacity {
    pool: Arc<Pool>,
    id: u64,
    peers: AtomicBool,
}

impl Capacity {
    /// A capacity of at most `limit` leases, of an application that has the process to itself.
    pub fn new(limit: usize) -> Self {
        Pool::new(limit, 1).capacity()
    }

    /// The most leases that the limits of this process allow; none without a limit.
    pub fn limit(&self) -> Option<usize> {
        let held = lock(&self.pool.held);
        let own = held.get(&self.id).copied().unwrap_or_default();
        Some(self.pool.part(own, &held)).filter(|_| self.pool.limit < usize::MAX)
    }

    /// Records whether there are other live workers.
    pub fn note(&self, peers: bool) {
        self.peers.store(peers, Ordering::Relaxed);
    }

    /// Records that a record processor failed to start for lack of resources.
    pub fn shortage(&self, now: Instant) {
        *lock(&self.pool.shortage) = Some(now);
    }

    /// Records that a record processor started after such a failure.
    pub fn recovered(&self) {
        *lock(&self.pool.shortage) = None;
    }

    /// Whether another live worker could hold a lease for which this one lacks resources.
    pub fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed)
    }

    /// Most leases that this worker may hold now, if it holds `held`; during a shortage, the number that it holds.
    pub fn most(&self, held: usize, now: Instant) -> usize {
        let most = {
            let mut all = lock(&self.pool.held);
            all.insert(self.id, held);
            self.pool.part(held, &all)
        };
        if self.is_short(now) { most.min(held) } else { most }
    }

    /// Whether resources are short now, so that the leader should assign no more leases to this worker. A
    /// worker at its limit is not short: one that reports so is not relieved of leases either.
    pub fn is_short(&self, now: Instant) -> bool {
        lock(&self.pool.shortage).is_some_and(|at| now.saturating_duration_since(at) < SHORT)
    }
}

impl Default for Capacity {
    /// A capacity without a limit.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Drop for Capacity {
    fn drop(&mut self) {
        lock(&self.pool.held).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn applications_that_acquire_at_once_stay_within_the_limit() {
        let (pool, now) = (Pool::new(100, 4), Instant::now());
        let capacities: Vec<Capacity> = (0..4).map(|_| pool.capacity()).collect();
        let mut held = [0; 4];
        for _ in 0..8 {
            // All see the room that is left before any of them acquires a lease.
            let most: Vec<usize> = std::iter::zip(&capacities, &held)
                .map(|(capacity, held)| capacity.most(*held, now))
                .collect();
            held = [most[0], most[1], 10.min(most[2]), 0];
            assert!(held.iter().sum::<usize>() <= 103, "{held:?}");
        }
        assert!(held[0] + held[1] >= 88, "the room of idle applications is used: {held:?}");
        assert_eq!(capacities[0].limit(), Some(capacities[0].most(held[0], now)));
    }

    #[test]
    fn ended_application_leaves_its_leases_to_the_others() {
        let (pool, now) = (Pool::new(10, 2), Instant::now());
        let (one, other) = (pool.capacity(), pool.capacity());
        assert_eq!((one.most(10, now), other.most(0, now)), (10, 1), "one is tried at least");
        other.shortage(now);
        assert!(one.is_short(now), "resources are those of the process");
        one.recovered();
        drop(one);
        let used = (0..4).fold(0, |held, _| other.most(held, now));
        assert_eq!(used, 10, "all of them, in a few rounds");
    }

    proptest::proptest! {
        #[test]
        fn parts_never_exceed_what_is_left(limit in 0_usize..2_000, held in proptest::collection::vec(0_usize..500, 2..50)) {
            let all: BTreeMap<u64, usize> = (0..).zip(held.iter().copied()).collect();
            let pool = Pool::new(limit, held.len());
            let used: usize = held.iter().sum();
            let grants: usize = held.iter().map(|own| pool.part(*own, &all) - own).sum();
            let free = limit.saturating_sub(used);
            // Rounding up lets the last free leases be found by any application that needs them; at most one more for each.
            proptest::prop_assert!(grants <= free + held.len());
            proptest::prop_assert!(free == 0 || grants >= free);
            for own in &held {
                proptest::prop_assert!(pool.part(*own, &all) >= *own, "no lease is taken away");
            }
        }
    }
}
