//! What must never happen, and what must happen sometimes.
//!
//! The oracle sees every write as the table carries it out and every batch as a child gets it. Each
//! invariant has a name; a violation begins with it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multilangd::fleet::rows::StateLocation;
use multilangd::fleet::store::LockWrite;
use multilangd::lease::update::{Change, Requirement, Update};
use multilangd::lease::{Lease, WorkerId};
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::ShardId;
use tokio::time::Instant;

use crate::stream::Stream;

#[derive(Debug, Default)]
pub struct Oracle {
    pub violations: Vec<String>,
    /// How often something worth having in a run has happened.
    pub coverage: BTreeMap<&'static str, u64>,
    /// A digest of everything that happened, to compare two runs of one seed.
    pub trace: u64,
    /// When the last write began by which a worker has a lease.
    proven: BTreeMap<(WorkerId, ShardId), Instant>,
    /// How many records of a shard were handed to children, each counted once.
    delivered: BTreeMap<ShardId, BTreeSet<u64>>,
    pub deliveries: u64,
    created: BTreeSet<ShardId>,
    /// When another worker was given a lease.
    given: BTreeMap<ShardId, Instant>,
    /// Everybody who ever had the lock.
    terms: Vec<Term>,
    /// When the lock of the lease table began to count; from the beginning where there are no others.
    moved: Option<Instant>,
    pub three_tables: bool,
    /// Shards whose end was stored.
    pub ended: BTreeSet<ShardId>,
    /// Shards whose rows somebody has finished by hand.
    by_hand: BTreeSet<ShardId>,
    /// Shards whose rows somebody has deleted or finished by hand.
    touched: BTreeSet<ShardId>,
    /// Worker and shard of each lease that its owner has written since it acquired it.
    renewed: BTreeSet<(WorkerId, ShardId)>,
    /// Shards of which a child has begun.
    pub begun: BTreeSet<ShardId>,
}

/// From when until when a worker might think that it has the lock.
#[derive(Debug, Clone)]
struct Term {
    place: StateLocation,
    worker: WorkerId,
    from: Instant,
    until: Instant,
}

impl Oracle {
    pub fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    pub fn violated(&mut self, invariant: &str, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(format!("{invariant}: {what}"));
        }
    }

    pub fn note(&mut self, what: &str) {
        for byte in what.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A write that was carried out.
    pub fn written(
        &mut self,
        worker: &WorkerId,
        started: Instant,
        rows: &BTreeMap<ShardId, Lease>,
        before: &Lease,
        update: &Update,
        stream: &Stream,
    ) {
        let mut after = before.clone();
        update.apply(&mut after);
        let shard = &before.shard;
        self.note(&format!("{worker} {shard} {:?}", update.changes));
        let reset = update.changes.iter().any(|change| matches!(change, Change::SetEarlier(_)));
        if reset {
            return self.reset(worker, before, &after, stream);
        }
        let by_hand = self.by_hand.contains(shard);
        if before.checkpoint.order(&after.checkpoint) == Ordering::Greater && !by_hand {
            self.violated(
                "checkpoint-back",
                format!("{worker} moved {shard} from {} to {}", before.checkpoint, after.checkpoint),
            );
        }
        // Whoever takes or passes on what it has knows the counter.
        let knows = update.requires.iter().any(|requirement| matches!(requirement, Requirement::Counter(_)));
        if !knows && update.changes.iter().any(|change| matches!(change, Change::SetOwner(_))) {
            self.acted(worker, started, shard);
        }
        let key = (worker.clone(), shard.clone());
        if update.changes.iter().any(|change| matches!(change, Change::SetOwner(_))) {
            self.renewed.remove(&key);
        } else if update.changes.iter().any(|change| matches!(change, Change::SetCounter(_))) {
            self.renewed.insert(key);
        }
        let opened = update.changes.iter().any(|change| matches!(change, Change::SetCheckpointOwner(_)));
        for change in &update.changes {
            match change {
                Change::SetCheckpoint(position) => {
                    if before.actual_owner() != Some(worker) {
                        let owner = before.actual_owner();
                        self.violated("fence", format!("{worker} checkpoints {shard}, which {owner:?} has"));
                    }
                    if position.is_shard_end() {
                        self.end(rows, shard, stream);
                    }
                }
                Change::SetOwner(to) if to != worker => {
                    self.given.insert(shard.clone(), Instant::now());
                    if !opened {
                        self.count("gave a lease to another");
                    }
                }
                // By a leader; to itself, perhaps.
                Change::SetCheckpointOwner(_) => {
                    self.given.insert(shard.clone(), Instant::now());
                    self.count("opened a hand-off");
                }
                Change::ClearCheckpointOwner if before.checkpoint_owner.as_ref() == Some(worker) => {
                    self.given.insert(shard.clone(), Instant::now());
                    self.count("closed a hand-off");
                }
                // A leader, itself.
                Change::SetOwner(_) if update.changes.contains(&Change::BumpCounter) => {
                    self.given.insert(shard.clone(), Instant::now());
                }
                Change::SetOwner(_) if opened => {}
                Change::SetOwner(_) => match &before.owner {
                    None => self.count("took a free lease"),
                    Some(owner) if owner == worker => self.count("took its own lease again"),
                    Some(_) => self.count("took another's lease"),
                },
                Change::ClearOwner => self.count("released"),
                Change::BumpOwnerSwitches if update.changes.len() == 1 => self.count("nudged"),
                _ => {}
            }
        }
        if after.actual_owner() == Some(worker)
            && update.changes.iter().any(|change| matches!(change, Change::SetCounter(_)))
        {
            let proven = self.proven.entry((worker.clone(), shard.clone())).or_insert(started);
            *proven = started.max(*proven);
        }
    }

    /// A row begins at the oldest record, or is finished for good: only one of an earlier stream, or one that says
    /// `SHARD_END` of an open shard.
    fn reset(&mut self, worker: &WorkerId, before: &Lease, after: &Lease, stream: &Stream) {
        let current = stream.identity();
        let earlier = before.stream.as_ref().is_some_and(|mark| mark.created() < current.created());
        let line = stream.shards.get(&before.shard);
        let is_open = line.is_some_and(|line| line.ending.is_none());
        let wrong = before.is_complete() && is_open;
        let number = match &before.checkpoint.sequence {
            Sequence::Number(number) => number.as_str().parse().unwrap_or(0),
            _ => 0,
        };
        if !(earlier && number <= stream.first || wrong) || after.is_complete() && line.is_some() {
            self.violated("wrong-reset", format!("{worker} resets {before:?} of {current}"));
        }
        self.by_hand.remove(&before.shard);
        self.count(if earlier { "reset a lease of an earlier stream" } else { "read a finished row again" });
    }

    /// The stream was deleted and created again.
    pub fn created_again(&mut self) {
        self.delivered.clear();
        self.ended.clear();
        self.created.clear();
        self.count("the stream was created again");
    }

    /// An operator writes `SHARD_END` into a row.
    pub fn finished_by_hand(&mut self, shard: &ShardId) {
        self.by_hand.insert(shard.clone());
        self.touched.insert(shard.clone());
        self.count("a row was finished by hand");
    }

    fn end(&mut self, rows: &BTreeMap<ShardId, Lease>, shard: &ShardId, stream: &Stream) {
        // A write for an earlier stream arrives late.
        let Some(line) = stream.shards.get(shard) else { return };
        let delivered = self.delivered.get(shard).map_or(0, BTreeSet::len);
        if line.ending.is_none() || delivered < line.records.len() {
            self.violated(
                "early-end",
                format!("{shard} after {delivered} of {} records", line.records.len()),
            );
        }
        for child in &line.children {
            if !rows.contains_key(child) && !self.created.contains(child) {
                self.violated("early-end", format!("{shard} ended before its child {child} had a lease"));
            }
        }
        if !self.ended.insert(shard.clone()) {
            self.count("ended a shard again");
        }
        self.count("ended a shard");
    }

    pub fn made(&mut self, lease: &Lease, started: Instant) {
        self.note(&format!("made {}", lease.shard));
        if let Some(owner) = &lease.owner {
            // Its holder restores it.
            let proven = self.proven.entry((owner.clone(), lease.shard.clone())).or_insert(started);
            *proven = started.max(*proven);
        }
        if !self.created.insert(lease.shard.clone()) {
            self.violated("created-twice", lease.shard.to_string());
        }
    }

    pub fn deleted(&mut self, rows: &BTreeMap<ShardId, Lease>, lease: &Lease, stream: &Stream) {
        self.note(&format!("deleted {}", lease.shard));
        self.count("deleted a finished lease");
        let begun = |child: &ShardId| {
            // A request for the stream before may have been on its way; the child's row is there.
            stream.created > 1 && rows.contains_key(child)
                || self.touched.contains(child)
                || rows.get(child).is_some_and(|row| row.checkpoint != Position::new(Sequence::TrimHorizon))
        };
        let Some(line) = stream.shards.get(&lease.shard) else {
            self.created.remove(&lease.shard);
            return;
        };
        if !lease.is_complete() || !line.children.iter().all(begun) {
            self.violated("early-delete", format!("{lease:?}"));
        }
    }

    /// Whether a worker has renewed a lease lately, and not only been given it.
    pub fn is_held(&self, worker: &WorkerId, shard: &ShardId) -> bool {
        let proven = self.proven.get(&(worker.clone(), shard.clone()));
        let given = self.given.get(shard);
        let recently = proven
            .is_some_and(|at| at.elapsed() < Duration::from_secs(5) && given.is_none_or(|given| given < at));
        recently && self.renewed.contains(&(worker.clone(), shard.clone()))
    }

    /// A row was deleted by hand: it may be made again.
    pub fn lost_by_hand(&mut self, shard: &ShardId) {
        self.touched.insert(shard.clone());
        self.created.remove(shard);
    }

    /// A child was told to begin.
    pub fn begins(
        &mut self,
        rows: &BTreeMap<ShardId, Lease>,
        worker: &WorkerId,
        shard: &ShardId,
        stream: &Stream,
    ) {
        self.note(&format!("{worker} begins {shard}"));
        self.begun.insert(shard.clone());
        let Some(line) = stream.shards.get(shard) else { return };
        for parent in &line.parents {
            let row_says = rows.get(parent).is_none_or(Lease::is_complete);
            // After a stream was created again its leases may be reset once more: then the parent is read again beside its
            // child, which began when it had been read.
            let line = stream.shards.get(parent);
            let delivered = self.delivered.get(parent).map_or(0, BTreeSet::len);
            let read = stream.created > 1 && line.is_some_and(|line| line.records.len() == delivered);
            if (!row_says || !self.ended.contains(parent)) && !read {
                self.violated("parents-first", format!("{worker} begins {shard} before {parent} has ended"));
            }
        }
    }

    /// A record was handed to a child.
    pub fn delivered(
        &mut self,
        worker: &WorkerId,
        shard: &ShardId,
        number: u64,
        now: Instant,
        failover: Duration,
    ) {
        self.deliveries += 1;
        if !self.delivered.entry(shard.clone()).or_default().insert(number) {
            self.count("delivered a record again");
        }
        let proven = self.proven.get(&(worker.clone(), shard.clone()));
        if proven.is_none_or(|proven| now > *proven + failover) {
            self.violated(
                "expired-lease",
                format!("{worker} hands out {number} of {shard}, last proven {proven:?}, now {now:?}"),
            );
        }
    }

    /// The lock is another row from now on.
    pub fn lock_moves(&mut self) {
        self.count("moved the lock into the lease table");
        self.moved = Some(Instant::now());
    }

    /// Somebody gives a lease to somebody else, or itself, as only the leader may.
    fn acted(&mut self, worker: &WorkerId, started: Instant, shard: &ShardId) {
        let old = self.three_tables && self.moved.is_none_or(|moved| started < moved);
        let place = if old { StateLocation::Legacy } else { StateLocation::Leases };
        let is_in = |term: &&Term| term.place == place && term.worker == *worker;
        let mut terms = self.terms.iter().filter(is_in);
        if !terms.any(|term| (term.from..term.until).contains(&started)) {
            let last = self.terms.last().cloned();
            self.violated(
                "acts-without-lead",
                format!("{worker} gives {shard} out at {started:?}, the lock in {place:?}: {last:?}"),
            );
        }
    }

    /// The lock was written.
    pub fn led(&mut self, worker: &WorkerId, place: StateLocation, started: Instant, write: &LockWrite) {
        let last = self.terms.iter_mut().rfind(|term| term.place == place);
        match write {
            LockWrite::Acquire { row, .. } => {
                // The holder before must have stopped to count on its own clock.
                let early = last.filter(|last| last.worker != *worker && Instant::now() < last.until);
                if let Some(before) = early.map(|last| last.worker.clone()) {
                    self.violated("two-leaders", format!("{worker} took the lead from {before} too early"));
                }
                self.count("took the lead");
                let (worker, until) = (worker.clone(), started + row.lease);
                self.terms.push(Term { place, worker, from: started, until });
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
                self.count("gave the lead back");
            }
        }
    }

    /// A lease that somebody is given in the moment when he stops is left to expire.
    pub fn was_just_given(&self, shard: &ShardId) -> bool {
        self.given.get(shard).is_some_and(|at| at.elapsed() < Duration::from_secs(3))
    }

    /// Everything was read to its end.
    pub fn finished(&mut self, stream: &Stream) {
        let mut lost = Vec::new();
        for line in stream.shards.values() {
            let empty = BTreeSet::new();
            let seen = self.delivered.get(&line.id).unwrap_or(&empty);
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
            self.delivered.get(&line.id).map_or(0, BTreeSet::len) == line.records.len()
                && (line.ending.is_none() || self.ended.contains(&line.id))
        })
    }
}
