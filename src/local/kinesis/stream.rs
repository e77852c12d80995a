//! A stream: its shards and their lineage, its settings and its consumers.
//!
//! A [`Stream`] is changed under the write lock, and put to and read from under the read lock: a reshard
//! never runs concurrently with a put, so that each record goes to an open shard, and a shard that reports
//! its end has all its records.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::{Now, Timestamp};
use super::filter::Life;
use super::hash::{self, HashRange};
pub(super) use super::journal::{Birth, Change, Consumer};
use super::limits::Limits;
use super::reshard::Step;
use super::shard::{Lineage, Shard, shard_id};
use super::store::{DataError, ShardFile};

/// A stream and its state.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) birth: Birth,
    /// When its status changes from CREATING to ACTIVE.
    pub(super) active_at: Instant,
    inner: RwLock<Inner>,
}

/// The mutable state of a stream.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) deleted: bool,
    pub(super) on_demand: bool,
    pub(super) retention: Duration,
    pub(super) max_record_kib: u32,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    shards: Vec<Arc<Shard>>,
    /// Open shards by the start of their hash key range.
    open: BTreeMap<u128, u32>,
    limited: bool,
    /// The folder of the shards' logs.
    folder: Option<PathBuf>,
}

impl Stream {
    pub(super) fn new(birth: Birth, active_at: Instant, limited: bool, folder: Option<PathBuf>) -> Self {
        let mut inner = Inner {
            deleted: false,
            on_demand: birth.on_demand,
            retention: Duration::from_hours(24),
            max_record_kib: birth.max_record_kib,
            tags: BTreeMap::new(),
            consumers: BTreeMap::new(),
            shards: Vec::new(),
            open: BTreeMap::new(),
            limited,
            folder,
        };
        for range in hash::uniform(birth.shards) {
            inner.add(Parents::default(), range, birth.epoch, birth.created());
        }
        Self { birth, active_at, inner: RwLock::new(inner) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_active(&self, now: Now) -> bool {
        self.active_at <= now.instant
    }

    /// Reads the logs of an earlier run. `reopen` is called before anything is changed.
    pub(super) fn restore(
        &self,
        now: Timestamp,
        reopen: &dyn Fn() -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let inner = self.read();
        let Some(folder) = &inner.folder else {
            return Ok(());
        };
        let horizon = self.trim_horizon(&inner, now);
        for shard in &inner.shards {
            shard.restore(ShardFile::new(folder, &shard.id()).restore(horizon, reopen)?);
        }
        Ok(())
    }

    /// Records that arrived before this time have expired.
    pub(super) fn trim_horizon(&self, inner: &Inner, now: Timestamp) -> Timestamp {
        now.minus(inner.retention).max(self.birth.created())
    }
}

#[derive(Clone, Copy, Default)]
struct Parents {
    parent: Option<u32>,
    adjacent: Option<u32>,
}

impl Inner {
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    pub(super) fn shard(&self, number: u32) -> Option<&Arc<Shard>> {
        self.shards.get(usize::try_from(number).ok()?)
    }

    /// The open shards in the order of their ranges.
    pub(super) fn open(&self) -> Vec<(u32, HashRange)> {
        self.open.values().filter_map(|number| Some((*number, self.shard(*number)?.lineage.range))).collect()
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The open shard that covers a hash key.
    pub(super) fn route(&self, key: u128) -> Option<u32> {
        self.open.range(..=key).next_back().map(|(_, number)| *number)
    }

    /// The number of the next shard.
    pub(super) fn next_number(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    /// The time of a change that closes shards: not before the last arrival in them.
    pub(super) fn date(&self, now: Timestamp) -> Timestamp {
        self.open
            .values()
            .filter_map(|number| self.shard(*number))
            .map(|shard| shard.last_arrival())
            .fold(now, Timestamp::max)
    }

    /// Applies a change. Returns false if it is inconsistent; it cannot fail otherwise.
    pub(super) fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Delete => {
                self.deleted = true;
                for shard in &self.shards {
                    shard.wake();
                }
            }
            Change::Reshard { at_millis, steps } => {
                let at = Timestamp::from_millis(at_millis);
                return steps.into_iter().all(|step| self.apply(step, at));
            }
            Change::Retention { hours } => self.retention = Duration::from_hours(hours.into()),
            Change::Mode { on_demand } => self.on_demand = on_demand,
            Change::MaxRecord { kib } => self.max_record_kib = kib,
            Change::Tag { mut tags } => self.tags.append(&mut tags),
            Change::Untag { keys } => self.tags.retain(|key, _| !keys.contains(key)),
            Change::Register(consumer) => {
                self.consumers.insert(consumer.name.clone(), consumer);
            }
            Change::Deregister { consumer } => {
                self.consumers.remove(&consumer);
                for shard in &self.shards {
                    shard.wake();
                }
            }
        }
        true
    }

    /// The highest epoch of the shards.
    pub(super) fn highest_epoch(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lineage.epoch).max().unwrap_or_default()
    }

    /// Applies a step. Returns false and changes nothing if it does not match the open shards.
    fn apply(&mut self, step: Step, at: Timestamp) -> bool {
        match step {
            Step::Split { shard, at: key } => self.split(shard, key, at),
            Step::Merge { left, right } => self.merge(left, right, at),
        }
    }

    fn split(&mut self, number: u32, key: u128, at: Timestamp) -> bool {
        let Some(shard) = self.open_shard(number) else {
            return false;
        };
        let HashRange { start, end } = shard.lineage.range;
        if key <= start || key > end {
            return false;
        }
        let epoch = at.seconds().max(shard.lineage.epoch + 1);
        let first = self.next_number();
        self.open.remove(&start);
        let parents = Parents { parent: Some(number), adjacent: None };
        self.add(parents, HashRange { start, end: key - 1 }, epoch, at);
        self.add(parents, HashRange { start: key, end }, epoch, at);
        shard.close(at, vec![first, first + 1]);
        true
    }

    fn merge(&mut self, left: u32, right: u32, at: Timestamp) -> bool {
        let (Some(l), Some(r)) = (self.open_shard(left), self.open_shard(right)) else {
            return false;
        };
        if l.lineage.range.end.checked_add(1) != Some(r.lineage.range.start) {
            return false;
        }
        let epoch = at.seconds().max(l.lineage.epoch.max(r.lineage.epoch) + 1);
        let number = self.next_number();
        let range = HashRange { start: l.lineage.range.start, end: r.lineage.range.end };
        self.open.remove(&l.lineage.range.start);
        self.open.remove(&r.lineage.range.start);
        let parents = Parents { parent: Some(left), adjacent: Some(right) };
        self.add(parents, range, epoch, at);
        l.close(at, vec![number]);
        r.close(at, vec![number]);
        true
    }

    fn open_shard(&self, number: u32) -> Option<Arc<Shard>> {
        let shard = self.shard(number)?;
        (self.open.get(&shard.lineage.range.start) == Some(&number)).then(|| Arc::clone(shard))
    }

    fn add(&mut self, parents: Parents, range: HashRange, epoch: u64, opened: Timestamp) {
        let lineage = Lineage {
            number: self.next_number(),
            parent: parents.parent,
            adjacent_parent: parents.adjacent,
            range,
            epoch,
            opened,
        };
        let limits = self.limited.then(|| Limits::new(Instant::now()));
        self.open.insert(range.start, lineage.number);
        let id = shard_id(lineage.number);
        let file = self.folder.as_deref().map(|folder| ShardFile::new(folder, &id));
        self.shards.push(Arc::new(Shard::new(lineage, file, limits)));
    }
}

/// When a shard was open, for the filters.
pub(super) fn life(shard: &Shard) -> Life {
    Life {
        number: shard.lineage.number,
        opened: shard.lineage.opened,
        closed: shard.closed().map(|closed| closed.at),
    }
}
