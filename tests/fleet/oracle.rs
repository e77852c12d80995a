//! The invariants, and the events that a run should cover.
//!
//! The oracle sees every write when the table executes it, and every batch when a child receives it. Each
//! invariant has a name, with which its violations begin.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multilangd::fleet::rows::StateLocation;
use multilangd::fleet::store::LockWrite;
use multilangd::lease::update::{Change, Requirement, Update};
use multilangd::lease::{Lease, LeaseKey, WorkerId};
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::ShardId;
use tokio::time::Instant;

use crate::stream::{Line, Stream};

#[derive(Debug, Default)]
/// Records violations and events.
pub struct Oracle {
    pub violations: Vec<String>,
    /// The number of occurrences of each event.
    pub coverage: BTreeMap<&'static str, u64>,
    /// A digest of all events, to compare two runs of one seed.
    pub trace: u64,
    /// The start of the last write by which a worker proved that it holds a lease.
    proven: BTreeMap<(WorkerId, LeaseKey), Instant>,
    /// The records of a shard that were delivered to children.
    delivered: BTreeMap<LeaseKey, BTreeSet<u64>>,
    pub deliveries: u64,
    created: BTreeSet<LeaseKey>,
    /// The time at which a lease was last assigned to another worker.
    given: BTreeMap<LeaseKey, Instant>,
    /// All holders of the leader lock so far.
    leaders: Vec<Term>,
    /// The time from which the lock in the lease table counts: the beginning, unless the fleet has three tables.
    moved: Option<Instant>,
    pub three_tables: bool,
    /// Shards whose end was checkpointed.
    pub ended: BTreeSet<LeaseKey>,
    /// Shards into whose row an operator wrote `SHARD_END`.
    by_hand: BTreeSet<LeaseKey>,
    /// Shards whose row an operator deleted or finished.
    touched: BTreeSet<LeaseKey>,
    /// Shards that a command of an operator was to move, and did not.
    unmoved: BTreeSet<LeaseKey>,
    /// When an operator last moved the lease of each shard.
    moved_at: BTreeMap<LeaseKey, Instant>,
    /// Shards that an operator has parked at least once.
    ordered: BTreeSet<LeaseKey>,
    /// Worker and shard where an answer of the table showed an order to the worker.
    told: BTreeSet<(WorkerId, LeaseKey)>,
    /// Shards whose reading has begun at the latest record.
    at_latest: BTreeSet<LeaseKey>,
    /// Worker and shard of each lease that its owner has written since it acquired it.
    renewed: BTreeSet<(WorkerId, LeaseKey)>,
    /// Since when a shard is parked by an order of the operator.
    parked: BTreeMap<LeaseKey, Instant>,
    /// Shards for which a child was initialized.
    pub begun: BTreeSet<LeaseKey>,
}

/// The period in which a worker may assume that it holds the lock.
#[derive(Debug, Clone)]
struct Term {
    place: StateLocation,
    worker: WorkerId,
    from: Instant,
    until: Instant,
}

/// The id of an operator who moves and releases leases, which is no worker.
pub const OPERATOR: &str = "operator";

impl Oracle {
    pub fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    pub fn violated(&mut self, invariant: &str, what: String) {
        let begin = format!("{invariant}: ");
        if self.violations.iter().filter(|violation| violation.starts_with(&begin)).count() < 20 {
            self.violations.push(begin + &what);
        }
    }

    pub fn note(&mut self, what: &str) {
        for byte in what.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Checks a write that the table executed.
    pub fn written(
        &mut self,
        worker: &WorkerId,
        started: Instant,
        rows: &BTreeMap<LeaseKey, Lease>,
        before: &Lease,
        update: &Update,
        stream: &Stream,
    ) {
        let mut after = before.clone();
        update.apply(&mut after);
        let key = &before.key;
        self.note(&format!("{worker} {key} {:?}", update.changes));
        self.ordered(&after);
        // No other write clears the owner and sets a checkpoint.
        let has = |wanted: fn(&Change) -> bool| update.changes.iter().any(wanted);
        let reset = has(|change| matches!(change, Change::ClearOwner))
            && has(|change| matches!(change, Change::SetCheckpoint(_)));
        if reset && worker.as_str() == OPERATOR {
            return self.moved(key);
        }
        if reset {
            return self.reset(worker, before, &after, stream);
        }
        let by_hand = self.by_hand.contains(key);
        if before.checkpoint.order(&after.checkpoint) == Ordering::Greater && !by_hand {
            self.violated(
                "checkpoint-back",
                format!("{worker} moved {key} from {} to {}", before.checkpoint, after.checkpoint),
            );
        }
        // An acquisition requires the lease counter; an assignment by the leader does not.
        let knows = update.requires.iter().any(|requirement| matches!(requirement, Requirement::Counter(_)));
        if !knows && update.changes.iter().any(|change| matches!(change, Change::SetOwner(_))) {
            self.acted(worker, started, key);
        }
        let pair = (worker.clone(), key.clone());
        if update.changes.iter().any(|change| matches!(change, Change::SetOwner(_))) {
            self.renewed.remove(&pair);
        } else if update.changes.iter().any(|change| matches!(change, Change::SetCounter(_))) {
            self.renewed.insert(pair);
        }
        let opened = update.changes.iter().any(|change| matches!(change, Change::SetCheckpointOwner(_)));
        for change in &update.changes {
            match change {
                Change::SetCheckpoint(position) => {
                    if before.actual_owner() != Some(worker) {
                        let owner = before.actual_owner();
                        self.violated("fence", format!("{worker} checkpoints {key}, which {owner:?} owns"));
                    }
                    if position.is_shard_end() {
                        self.end(rows, key, stream);
                    }
                }
                Change::SetOwner(to) if to != worker => {
                    self.given.insert(key.clone(), Instant::now());
                    if !opened {
                        self.count("assigned a lease to another worker");
                    }
                }
                // By a leader, possibly for itself.
                Change::SetCheckpointOwner(_) => {
                    self.given.insert(key.clone(), Instant::now());
                    self.count("started a graceful handoff");
                }
                Change::ClearCheckpointOwner if before.checkpoint_owner.as_ref() == Some(worker) => {
                    self.given.insert(key.clone(), Instant::now());
                    self.count("completed a graceful handoff");
                }
                // A leader assigned the lease to itself.
                Change::SetOwner(_) if update.changes.contains(&Change::BumpCounter) => {
                    self.given.insert(key.clone(), Instant::now());
                }
                Change::SetOwner(_) if opened => {}
                Change::SetOwner(_) => match &before.owner {
                    None => self.count("acquired an unowned lease"),
                    Some(owner) if owner == worker => self.count("reacquired its own lease"),
                    Some(_) => self.count("stole a lease"),
                },
                Change::ClearOwner => self.count("released a lease"),
                Change::BumpOwnerSwitches if update.changes.len() == 1 => self.count("notified a peer"),
                _ => {}
            }
        }
        if after.actual_owner() == Some(worker)
            && update.changes.iter().any(|change| matches!(change, Change::SetCounter(_)))
        {
            let proven = self.proven.entry((worker.clone(), key.clone())).or_insert(started);
            *proven = started.max(*proven);
        }
    }

    /// Notes whether a row as it is from now on is parked by an order of the operator.
    fn ordered(&mut self, lease: &Lease) {
        if lease.parking().is_some() {
            self.ordered.insert(lease.key.clone());
            self.parked.entry(lease.key.clone()).or_insert_with(Instant::now);
        } else {
            self.parked.remove(&lease.key);
        }
    }

    /// A worker received that row as the answer to a write.
    pub fn answered(&mut self, worker: &WorkerId, row: &Lease) {
        if row.parking().is_some() {
            self.told.insert((worker.clone(), row.key.clone()));
        }
    }

    /// A worker begins at the latest record. The first one to do so cannot know an order that was written since its last
    /// write: for it, reading begins here, whenever the order was given.
    pub fn begins_at_latest(&mut self, worker: &WorkerId, key: &LeaseKey, records: &[u64]) {
        let is_first = self.at_latest.insert(key.clone());
        let knows = self.told.contains(&(worker.clone(), key.clone()));
        if is_first && !knows && self.ordered.contains(key) && !records.is_empty() {
            self.count("began at the latest record before it knew of an order");
            self.passed(key, records.iter().copied());
        }
    }

    /// Checks a reset: a row begins at the oldest record, or is finished for good. Only a row of an earlier
    /// stream may be reset, or one that says `SHARD_END` for an open shard.
    fn reset(&mut self, worker: &WorkerId, before: &Lease, after: &Lease, stream: &Stream) {
        let current = stream.identity();
        let earlier = before.stream.as_ref().is_some_and(|mark| mark.created() < current.created());
        let line = stream.shards.get(before.shard());
        let is_open = line.is_some_and(|line| line.ending.is_none());
        let wrong = before.is_complete() && is_open;
        let number = match &before.checkpoint.sequence {
            Sequence::Number(number) => number.as_str().parse().unwrap_or(0),
            _ => 0,
        };
        // A row of an earlier stream that is finished for good is deleted next. If its id is by now that of a child of the
        // present stream, a parent that ends later creates the row again; one that has ended has reset it.
        let created_later = |line: &Line| {
            line.parents.iter().any(|parent| !self.ended.contains(&before.key.relative(parent)))
        };
        let removed = after.is_complete() && line.is_some_and(|line| !created_later(line));
        if !(earlier && number <= stream.first || wrong) || removed {
            self.violated("wrong-reset", format!("{worker} resets {before:?} of {current}"));
        }
        self.by_hand.remove(&before.key);
        self.count(if earlier { "reset a lease of an earlier stream" } else { "read a finished row again" });
    }

    /// An operator moved a lease to the oldest record: every record must be delivered again before the shard ends.
    fn moved(&mut self, key: &LeaseKey) {
        self.delivered.remove(key);
        self.ended.remove(key);
        self.touched.insert(key.clone());
        self.unmoved.remove(key);
        self.moved_at.insert(key.clone(), Instant::now());
        self.count("moved a lease");
    }

    /// A command of an operator was cut short before it moved this lease, after it had moved those of its ancestors.
    pub fn not_moved(&mut self, key: &LeaseKey) {
        self.unmoved.insert(key.clone());
    }

    /// An operator creates the deleted row of a finished shard again.
    pub fn moved_again(&mut self, key: &LeaseKey) {
        self.created.remove(key);
        self.moved(key);
    }

    /// The stream was deleted and created again.
    pub fn created_again(&mut self) {
        self.delivered.clear();
        self.ended.clear();
        self.created.clear();
        self.count("the stream was recreated");
    }

    /// An operator wrote `SHARD_END` into a row.
    pub fn finished_by_hand(&mut self, key: &LeaseKey) {
        self.by_hand.insert(key.clone());
        self.touched.insert(key.clone());
        self.count("a row was finished by hand");
    }

    /// Checks that the checkpoint of a shard's end follows all its records.
    fn end(&mut self, rows: &BTreeMap<LeaseKey, Lease>, key: &LeaseKey, stream: &Stream) {
        // A write for an earlier stream arrived late.
        let Some(line) = stream.shards.get(key.shard()) else { return };
        let delivered = self.delivered.get(key).map_or(0, BTreeSet::len);
        if line.ending.is_none() || delivered < line.records.len() {
            self.violated("early-end", format!("{key} after {delivered} of {} records", line.records.len()));
        }
        for child in &line.children {
            let child = &key.relative(child);
            if !rows.contains_key(child) && !self.created.contains(child) {
                self.violated("early-end", format!("{key} ended before its child {child} had a lease"));
            }
        }
        if !self.ended.insert(key.clone()) {
            self.count("checkpointed a shard end again");
        }
        self.count("checkpointed a shard end");
    }

    /// Checks a created lease.
    pub fn made(&mut self, lease: &Lease, started: Instant) {
        self.note(&format!("made {}", lease.key));
        self.ordered(lease);
        if let Some(owner) = &lease.owner {
            // The holder of the lease restores its row.
            let proven = self.proven.entry((owner.clone(), lease.key.clone())).or_insert(started);
            *proven = started.max(*proven);
        }
        if !self.created.insert(lease.key.clone()) {
            self.violated("created-twice", lease.key.to_string());
        }
    }

    /// Checks a deleted lease.
    pub fn deleted(&mut self, rows: &BTreeMap<LeaseKey, Lease>, lease: &Lease, stream: &Stream) {
        self.note(&format!("deleted {}", lease.key));
        self.count("deleted a finished lease");
        let begun = |child: &ShardId| {
            let child = &lease.key.relative(child);
            // A request for the previous stream may have been in flight; the row of the child exists.
            stream.created > 1 && rows.contains_key(child)
                || self.touched.contains(child)
                || rows.get(child).is_some_and(|row| row.checkpoint != Position::new(Sequence::TrimHorizon))
        };
        let Some(line) = stream.shards.get(lease.shard()) else {
            self.created.remove(&lease.key);
            return;
        };
        if !lease.is_complete() || !line.children.iter().all(begun) {
            self.violated("early-delete", format!("{lease:?}"));
        }
    }

    /// Whether a worker has renewed a lease recently, rather than only having been assigned it.
    pub fn is_held(&self, worker: &WorkerId, key: &LeaseKey) -> bool {
        let proven = self.proven.get(&(worker.clone(), key.clone()));
        let given = self.given.get(key);
        let recently = proven
            .is_some_and(|at| at.elapsed() < Duration::from_secs(5) && given.is_none_or(|given| given < at));
        recently && self.renewed.contains(&(worker.clone(), key.clone()))
    }

    /// An operator deleted a row; it may be created again.
    pub fn lost_by_hand(&mut self, key: &LeaseKey) {
        self.touched.insert(key.clone());
        self.created.remove(key);
    }

    /// Checks the initialization of a child.
    pub fn begins(
        &mut self,
        rows: &BTreeMap<LeaseKey, Lease>,
        worker: &WorkerId,
        key: &LeaseKey,
        stream: &Stream,
    ) {
        self.note(&format!("{worker} begins {key}"));
        self.begun.insert(key.clone());
        let Some(line) = stream.shards.get(key.shard()) else { return };
        // A worker that has just checked the parents, or whose child has failed, does not know yet that the lease was taken
        // away, even if it was assigned to this worker again since, or that only the leases of the parents were moved.
        let is_taken = rows.get(key).is_none_or(|row| row.actual_owner() != Some(worker));
        let proven = self.proven.get(&(worker.clone(), key.clone()));
        let is_old = self.moved_at.get(key).is_some_and(|moved| proven.is_none_or(|proven| proven <= moved));
        let is_excused = is_taken || is_old || self.unmoved.contains(key);
        if self.coverage.contains_key("moved a lease") && is_excused {
            return;
        }
        for id in &line.parents {
            let parent = &key.relative(id);
            let row_says = rows.get(parent).is_none_or(Lease::is_complete);
            // After a stream was created again, its leases may be reset once more: then the parent is read
            // again while its child, which started after the parent was first read, continues.
            let line = stream.shards.get(id);
            let delivered = self.delivered.get(parent).map_or(0, BTreeSet::len);
            let read = stream.created > 1 && line.is_some_and(|line| line.records.len() == delivered);
            if (!row_says || !self.ended.contains(parent)) && !read {
                self.violated("parents-first", format!("{worker} begins {key} before {parent} has ended"));
            }
        }
    }

    /// Checks a record that was delivered to a child.
    pub fn delivered(
        &mut self,
        worker: &WorkerId,
        key: &LeaseKey,
        number: u64,
        now: Instant,
        failover: Duration,
    ) {
        self.deliveries += 1;
        if !self.delivered.entry(key.clone()).or_default().insert(number) {
            self.count("delivered a record again");
        }
        // The owner has renewed the lease since, or has lost it; the record may have been on its way.
        let ordered = self.parked.get(key);
        if ordered.is_some_and(|since| now > *since + failover + Duration::from_secs(1)) {
            let what = format!("{worker} delivers {number} of {key}, parked since {ordered:?}, now {now:?}");
            self.violated("delivered-while-parked", what);
        }
        let proven = self.proven.get(&(worker.clone(), key.clone()));
        if proven.is_none_or(|proven| now > *proven + failover) {
            self.violated(
                "expired-lease",
                format!("{worker} delivers {number} of {key}, last proven {proven:?}, now {now:?}"),
            );
        }
    }

    /// These records are not delivered any more, because they are too old.
    pub fn passed(&mut self, key: &LeaseKey, numbers: impl IntoIterator<Item = u64>) {
        self.delivered.entry(key.clone()).or_default().extend(numbers);
    }

    /// From now on the lock is a row of the lease table.
    pub fn lock_moves(&mut self) {
        self.count("moved the leader lock into the lease table");
        self.moved = Some(Instant::now());
    }

    /// Checks that a worker that assigns a lease to another worker or itself is the leader.
    fn acted(&mut self, worker: &WorkerId, started: Instant, key: &LeaseKey) {
        let old = self.three_tables && self.moved.is_none_or(|moved| started < moved);
        let place = if old { StateLocation::Legacy } else { StateLocation::Leases };
        let is_in = |term: &&Term| term.place == place && term.worker == *worker;
        let mut leaders = self.leaders.iter().filter(is_in);
        if !leaders.any(|term| (term.from..term.until).contains(&started)) {
            let last = self.leaders.last().cloned();
            self.violated(
                "acts-without-lead",
                format!("{worker} assigns {key} at {started:?}, the lock in {place:?}: {last:?}"),
            );
        }
    }

    /// Checks a write of the leader lock.
    pub fn led(&mut self, worker: &WorkerId, place: StateLocation, started: Instant, write: &LockWrite) {
        let last = self.leaders.iter_mut().rfind(|term| term.place == place);
        match write {
            LockWrite::Acquire { row, .. } => {
                // The previous holder must have stopped by its own clock.
                let early = last.filter(|last| last.worker != *worker && Instant::now() < last.until);
                if let Some(before) = early.map(|last| last.worker.clone()) {
                    self.violated(
                        "two-leaders",
                        format!("{worker} became leader before the lock of {before} expired"),
                    );
                }
                self.count("became leader");
                let (worker, until) = (worker.clone(), started + row.lease);
                self.leaders.push(Term { place, worker, from: started, until });
            }
            LockWrite::Beat { row, .. } => {
                if let Some(last) = last {
                    last.until = started + row.lease;
                }
            }
            LockWrite::Release { .. } => {
                if let Some(last) = last {
                    last.until = Instant::now();
                }
                self.count("released the leader lock");
            }
        }
    }

    /// Whether a lease was assigned to a worker just when it stopped; such a lease is left to expire.
    pub fn was_just_given(&self, key: &LeaseKey) -> bool {
        self.given.get(key).is_some_and(|at| at.elapsed() < Duration::from_secs(3))
    }

    /// Checks that everything was read to its end.
    pub fn finished(&mut self, stream: &Stream) {
        let mut lost = Vec::new();
        for line in stream.shards.values() {
            let empty = BTreeSet::new();
            let seen = self.delivered.get(&stream.key(&line.id)).unwrap_or(&empty);
            lost.extend(
                line.records.iter().filter(|n| !seen.contains(n)).map(|n| format!("{n} of {}", line.id)),
            );
        }
        if !lost.is_empty() {
            self.violated("undelivered", lost.join(", "));
        }
    }

    pub fn is_delivered(&self, stream: &Stream) -> bool {
        stream.shards.values().all(|line| {
            self.delivered.get(&stream.key(&line.id)).map_or(0, BTreeSet::len) == line.records.len()
                && (line.ending.is_none() || self.ended.contains(&stream.key(&line.id)))
        })
    }
}
