//! A lease table whose scans are shared. The streams of one table are synchronised at the same time, and each would scan
//! the whole table: callers that wait receive one scan, which began after each of them had asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Mutex;

use super::table::{Error, Found, Table};
use super::update::Update;
use super::{Lease, LeaseKey, WorkerId};
use crate::shard::BoxFuture;

/// A scan.
struct Scan {
    /// It began after the callers with lesser numbers had asked.
    covers: u64,
    leases: Result<Arc<Vec<Lease>>, Error>,
}

/// A table with shared scans.
pub struct SharedScan {
    table: Arc<dyn Table>,
    /// Number of callers so far.
    asked: AtomicU64,
    /// Number of callers that wait.
    waiting: AtomicUsize,
    /// The last scan, as long as callers wait. Locked during a scan.
    last: Mutex<Option<Scan>>,
}

impl std::fmt::Debug for SharedScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedScan").finish_non_exhaustive()
    }
}

/// Counts a caller while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SharedScan {
    /// The table with shared scans.
    pub fn new(table: Arc<dyn Table>) -> Self {
        Self { table, asked: AtomicU64::new(0), waiting: AtomicUsize::new(0), last: Mutex::new(None) }
    }

    async fn scan(&self) -> Result<Arc<Vec<Lease>>, Error> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting(&self.waiting);
        let number = self.asked.fetch_add(1, Ordering::AcqRel);
        let mut last = self.last.lock().await;
        let leases = match &*last {
            Some(scan) if number < scan.covers => scan.leases.clone(),
            _ => {
                let covers = self.asked.load(Ordering::Acquire);
                let leases = self.table.list().await.map(Arc::new);
                *last = Some(Scan { covers, leases: leases.clone() });
                leases
            }
        };
        drop(waiting);
        if self.waiting.load(Ordering::Acquire) == 0 {
            *last = None;
        }
        leases
    }
}

impl Table for SharedScan {
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
        self.table.ensure()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
        Box::pin(async { self.scan().await.map(Arc::unwrap_or_clone) })
    }

    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        self.table.get(key)
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        self.table.create(lease)
    }

    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        self.table.update(key, update)
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
        self.table.owned(worker)
    }

    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>> {
        self.table.index(make)
    }

    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        self.table.delete(key)
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        self.table.forget(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::lease::memory::Memory;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    /// Rows whose scans take a second: each returns the rows of its begin.
    #[derive(Default)]
    struct Slow {
        rows: Memory,
        scans: AtomicUsize,
    }

    impl Table for Slow {
        fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
            self.rows.ensure()
        }
        fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
            Box::pin(async {
                self.scans.fetch_add(1, Ordering::Relaxed);
                let leases = self.rows.list().await;
                sleep(Duration::from_secs(1)).await;
                leases
            })
        }
        fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
            self.rows.get(key)
        }
        fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
            self.rows.create(lease)
        }
        fn update<'a>(
            &'a self,
            key: &'a LeaseKey,
            update: &'a Update,
        ) -> BoxFuture<'a, Result<Lease, Error>> {
            self.rows.update(key, update)
        }
        fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
            self.rows.owned(worker)
        }
        fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>> {
            self.rows.index(make)
        }
        fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
            self.rows.delete(key)
        }

        fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
            self.rows.forget(key)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_callers_share_a_scan_that_sees_what_each_had_written() {
        let slow = Arc::new(Slow::default());
        let table = Arc::new(SharedScan::new(slow.clone()));
        let mut tasks = JoinSet::new();
        for n in 0..20 {
            let table = table.clone();
            tasks.spawn(async move {
                // Some ask while the first scan is made.
                sleep(Duration::from_millis(if n < 10 { 0 } else { 500 })).await;
                let key = LeaseKey::from(format!("{n:02}").as_str());
                let at = Position::new(Sequence::TrimHorizon);
                let lease = Lease::new(key.clone(), at, BTreeSet::new(), HashRange { start: 0, end: 9 });
                table.create(&lease).await.unwrap();
                let leases = table.list().await.unwrap();
                assert!(leases.iter().any(|lease| lease.key == key), "the scan began after the write");
            });
        }
        tasks.join_all().await;
        let scans = slow.scans.load(Ordering::Relaxed);
        assert!((2..=3).contains(&scans), "{scans} scans for twenty callers");
        assert!(table.last.lock().await.is_none(), "nothing is kept");
        table.list().await.unwrap();
        assert_eq!(slow.scans.load(Ordering::Relaxed), scans + 1);
    }
}
