//! Limits the attempts to start that make no progress.

/// The progress of an attempt to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// The stage that failed: the table, joining the fleet, the leases.
    pub(super) stage: u8,
    /// Lease rows that this worker has created since the process started.
    pub(super) rows: usize,
}

/// Counts failed attempts since the last progress.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    furthest: Progress,
}

impl Attempts {
    /// Counts a failed attempt with this progress. Returns the number of attempts without progress; 0 if this
    /// one made progress.
    ///
    /// A stage counts as progress only when it is reached for the first time: a table that becomes unusable
    /// again and again does not extend the limit.
    pub(super) fn failed(&mut self, progress: Progress) -> u32 {
        let moved = progress.stage > self.furthest.stage || progress.rows > self.furthest.rows;
        let stage = progress.stage.max(self.furthest.stage);
        self.furthest = Progress { stage, rows: progress.rows.max(self.furthest.rows) };
        self.failed = if moved { 0 } else { self.failed + 1 };
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::lease::sync::InitialPosition;
    use crate::lease::update::Update;
    use crate::lease::{Lease, LeaseKey, Table, WorkerId, memory::Memory, table};
    use crate::recognition::Recognition;
    use crate::sequence::SequenceNumber;
    use crate::shard::{self, BoxFuture, Filter, HashRange, Shard};
    use crate::shard_sync::{self, ShardSync};
    use crate::stream::StreamId;

    fn at(stage: u8, rows: usize) -> Progress {
        Progress { stage, rows }
    }

    #[test]
    fn attempts_that_create_rows_do_not_count() {
        let mut attempts = Attempts::default();
        let counted: Vec<u32> = (1..=60).map(|rows| attempts.failed(at(2, rows))).collect();
        assert_eq!(counted, vec![0; 60]);
    }

    #[test]
    fn attempts_without_progress_count_until_rows_are_created() {
        let mut attempts = Attempts::default();
        assert_eq!([0, 0, 0].map(|rows| attempts.failed(at(0, rows))), [1, 2, 3]);
        assert_eq!([4, 4, 5, 5].map(|rows| attempts.failed(at(2, rows))), [0, 1, 0, 1]);
    }

    #[test]
    fn repeated_stage_is_no_progress() {
        let mut attempts = Attempts::default();
        assert_eq!([1, 0, 1, 0, 1].map(|stage| attempts.failed(at(stage, 0))), [0, 1, 2, 3, 4]);
    }

    /// A table that accepts two rows and then refuses more until it is scanned, and a stream of sixty shards.
    #[derive(Default)]
    struct Slow {
        rows: Memory,
        taken: AtomicUsize,
    }

    impl Table for Slow {
        fn ensure(&self) -> BoxFuture<'_, Result<table::Found, table::Error>> {
            self.rows.ensure()
        }
        fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, table::Error>> {
            self.taken.store(0, Ordering::Relaxed);
            self.rows.list()
        }
        fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, table::Error>> {
            self.rows.get(key)
        }
        fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, table::Error>> {
            if self.taken.fetch_add(1, Ordering::Relaxed) >= 2 {
                return Box::pin(async { Err(table::Error::Throttled("t".to_owned())) });
            }
            self.rows.create(lease)
        }
        fn update<'a>(
            &'a self,
            key: &'a LeaseKey,
            update: &'a Update,
        ) -> BoxFuture<'a, Result<Lease, table::Error>> {
            self.rows.update(key, update)
        }
        fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, table::Error>> {
            self.rows.owned(worker)
        }
        fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, table::Error>> {
            self.rows.index(make)
        }
        fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, table::Error>> {
            self.rows.delete(key)
        }

        fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, table::Error>> {
            self.rows.forget(key)
        }
    }

    impl shard::Api for Slow {
        fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
            let shard = |n: u32| Shard {
                id: format!("{n:03}").as_str().into(),
                parent: None,
                adjacent_parent: None,
                range: HashRange { start: 0, end: u128::MAX },
                starting: SequenceNumber::parse("1").unwrap(),
                ending: None,
            };
            Box::pin(async move { Ok((0..60).map(shard).collect()) })
        }
        fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
            Box::pin(async { Err(shard::Error::Denied("d".to_owned())) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_table_starts_sixty_shards() {
        let slow = Arc::new(Slow::default());
        let settings = shard_sync::Settings {
            reaches: crate::reach::Reaches::default(),
            me: "me".into(),
            initial: InitialPosition::Latest,
            first: None,
            ignore_unexpected_children: false,
            skip_if_leases_exist: false,
            sync_pause: std::time::Duration::from_secs(60),
            stream: "s".to_owned(),
            listed: true,
            failover: std::time::Duration::from_secs(10),
            sink: Arc::new(crate::metrics::Discard),
        };
        let shard_sync = ShardSync::new(slow.clone(), slow.clone(), Recognition::new(slow.clone()), settings);
        let (mut attempts, mut times) = (Attempts::default(), 1);
        while shard_sync.clone().typed(true).begin().await.is_err() {
            times += 1;
            assert_eq!(attempts.failed(at(2, shard_sync.made())), 0);
        }
        assert_eq!((times, shard_sync.made()), (30, 60));
    }
}
