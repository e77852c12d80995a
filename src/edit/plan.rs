//! Plans the writes of a verb: pure steps over the rows of the lease table and the listed shards.
//!
//! The steps are in the order in which they must be written, ancestors first: a child shard waits only for parents whose
//! rows say that they are unfinished. Whatever prefix of the steps is written, each shard is at its old or at its new
//! position, no child is at its new position while an ancestor still is at its old one, and a second run plans the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::order::Order;
use crate::lease::update::{self, Update};
use crate::lease::{Lease, LeaseKey, WorkerId, sync};
use crate::sequence::{Position, Sequence};
use crate::shard::{Shard, ShardId};

/// The position of a time or a sequence number in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The last record that precedes it, which the checkpoint then names; none if no record in the stream does.
    pub before: Option<Position>,
    /// Whether a record follows.
    pub follows: bool,
}

/// The target of a seek.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// The oldest record of each shard.
    TrimHorizon,
    /// The newest record of each open shard; closed shards are finished.
    Latest,
    /// A time or a sequence number, as it was found in each shard.
    Found(BTreeMap<ShardId, Found>),
}

/// Why a lease is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is at the position, and unowned.
    AlreadyThere,
    /// The shard is finished and has no record at or after the time.
    NothingLeft,
    /// The shard is finished.
    Finished,
    /// Kinesis does not list the shard any more.
    Unlisted,
    /// It has no owner.
    Unowned,
    /// It is parked by an operator.
    AlreadyParked,
    /// It is not.
    NotParked,
    /// It is paused with its application.
    AlreadyPaused,
    /// It is not.
    NotPaused,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyThere => "already at this position",
            Self::NothingLeft => "finished, no record follows",
            Self::Finished => "finished",
            Self::Unlisted => "no longer listed by Kinesis",
            Self::Unowned => "has no owner",
            Self::AlreadyParked => "already parked",
            Self::NotParked => "not parked",
            Self::AlreadyPaused => "already paused",
            Self::NotPaused => "not paused",
        })
    }
}

/// Why a verb cannot be executed, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A worker renews the lease.
    #[error("worker {0} owns the lease and is alive (stop the workers, or take the lease away with --force)")]
    Live(WorkerId),
    /// Kinesis lists no such shard.
    #[error("Kinesis does not list the shard (multilangd leases FILE prints the leases)")]
    Unlisted,
    /// The shard has no lease to release.
    #[error("the shard has no lease (multilangd leases FILE prints the leases)")]
    NoLease,
    /// LATEST would skip the records that are put until an order of an operator ends.
    #[error(
        "it is parked or paused by an operator, so that LATEST would skip records that are put until that ends (unpark \
         or resume first, or seek to the present time)"
    )]
    Parked,
    /// LATEST would finish a closed shard.
    #[error(
        "the shard is closed, so that LATEST has no record (leave out --shard to finish all closed shards)"
    )]
    Closed,
    /// The shard waits for this ancestor.
    #[error("its ancestor {0} is not finished (wait until it is, or leave out --shard)")]
    Ancestor(ShardId),
    /// This descendant has begun, or would start before its ancestors are finished.
    #[error(
        "its descendant {0} must be read after it (add --shard {0} or seek {0} first, or leave out --shard)"
    )]
    Descendant(ShardId),
}

/// The action for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Moves the lease to a position, and clears its owner.
    Move(Position),
    /// Creates a row.
    Create(Box<Lease>),
    /// Clears the owner.
    Release,
    /// Stores an order of an operator.
    Order(Order),
    /// Writes nothing.
    Keep(Kept),
    /// Refuses the whole verb.
    Refuse(Refusal),
}

/// The step for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The key of its lease.
    pub key: LeaseKey,
    /// Its row; none if there is none.
    pub lease: Option<Lease>,
    /// The child shards, which the row of a shard names that a seek finishes.
    pub children: BTreeSet<ShardId>,
    /// The write, or the reason for none.
    pub action: Action,
}

impl Step {
    /// The write to a row, which may have been renewed since the plan was made; none if nothing is updated.
    pub fn update(&self, row: &Lease) -> Option<Update> {
        match &self.action {
            Action::Move(to) => Some(update::seek(row, to, &self.children)),
            Action::Release => Some(update::take_away(row)),
            Action::Order(order) => Some(order.update(row)),
            Action::Create(_) | Action::Keep(_) | Action::Refuse(_) => None,
        }
    }

    /// Whether a row is as the step writes it.
    pub fn is_done(&self, row: &Lease) -> bool {
        match &self.action {
            Action::Move(to) => is_at(row, to),
            Action::Release => is_unowned(row),
            Action::Order(order) => order.is_done(row),
            Action::Create(new) => row.checkpoint == new.checkpoint,
            Action::Keep(_) | Action::Refuse(_) => true,
        }
    }

    /// Whether the step writes.
    pub fn writes(&self) -> bool {
        matches!(self.action, Action::Move(_) | Action::Create(_) | Action::Release | Action::Order(_))
    }

    /// Whether it leaves the lease to its owner, whose renewals are no obstacle.
    pub fn is_order(&self) -> bool {
        matches!(self.action, Action::Order(_))
    }
}

/// The rows, and what is known about them.
#[derive(Debug)]
pub struct Rows<'a> {
    /// All leases.
    pub leases: &'a [Lease],
    /// Owners that renewed a lease between two scans.
    pub live: &'a BTreeSet<WorkerId>,
    /// The shards of `--shard`; none for all.
    pub selected: Option<&'a BTreeSet<ShardId>>,
    /// Whether leases are taken away from live owners.
    pub force: bool,
}

fn is_unowned(lease: &Lease) -> bool {
    lease.owner.is_none() && lease.checkpoint_owner.is_none()
}

fn is_at(lease: &Lease, to: &Position) -> bool {
    // A seek keeps the date of a lease that was parked meanwhile.
    let is_undated = lease.latest_from.is_none() || lease.parking().is_some();
    lease.checkpoint == *to && is_unowned(lease) && lease.pending.is_none() && is_undated
}

impl Rows<'_> {
    pub(super) fn selects(&self, shard: &ShardId) -> bool {
        self.selected.is_none_or(|selected| selected.contains(shard))
    }

    /// The live worker from which a write would take the lease: in a graceful handoff, one of its two owners. A fleet that
    /// stops during a handoff leaves it open.
    fn refusal(&self, lease: &Lease) -> Option<Refusal> {
        let mut owners = lease.checkpoint_owner.iter().chain(&lease.owner);
        let live = owners.find(|owner| self.live.contains(owner));
        live.filter(|_| !self.force).map(|owner| Refusal::Live(owner.clone()))
    }

    fn step(&self, lease: &Lease, action: Action) -> Step {
        let refused = match action {
            Action::Move(_) | Action::Release => self.refusal(lease),
            Action::Create(_) | Action::Order(_) | Action::Keep(_) | Action::Refuse(_) => None,
        };
        Step {
            key: lease.key.clone(),
            lease: Some(lease.clone()),
            children: BTreeSet::new(),
            action: refused.map_or(action, Action::Refuse),
        }
    }

    /// The selected shards that are neither listed nor in the table.
    pub(super) fn unknown(&self, known: &BTreeSet<&ShardId>, refusal: &Refusal) -> Vec<Step> {
        let selected = self.selected.into_iter().flatten().filter(|shard| !known.contains(shard));
        let step = |shard: &ShardId| Step {
            key: shard.clone().into(),
            lease: self.leases.iter().find(|lease| lease.shard() == shard).cloned(),
            children: BTreeSet::new(),
            action: Action::Refuse(refusal.clone()),
        };
        selected.map(step).collect()
    }
}

/// Plans `release`: clears the owners, so that other workers acquire the leases.
pub fn release(rows: &Rows<'_>) -> Vec<Step> {
    let mut steps = rows.unknown(&rows.leases.iter().map(|lease| lease.shard()).collect(), &Refusal::NoLease);
    for lease in rows.leases.iter().filter(|lease| rows.selects(lease.shard())) {
        let action = if lease.is_complete() {
            Action::Keep(Kept::Finished)
        } else if is_unowned(lease) {
            Action::Keep(Kept::Unowned)
        } else {
            Action::Release
        };
        steps.push(rows.step(lease, action));
    }
    steps
}

/// Plans `seek`. `listed` are all shards that Kinesis lists.
pub fn seek(rows: &Rows<'_>, listed: &[Shard], to: &To) -> Vec<Step> {
    let lineage = Lineage::new(rows.leases, listed);
    let mut steps = rows.unknown(&listed.iter().map(|shard| &shard.id).collect(), &Refusal::Unlisted);
    // The shards that are not finished once the steps before are written.
    let mut unfinished: BTreeSet<&ShardId> = BTreeSet::new();
    for shard in sync::in_order(listed) {
        let lease = lineage.rows.get(&shard.id).copied();
        let waits = shard.parents().any(|parent| unfinished.contains(parent));
        let action = if rows.selects(&shard.id) {
            let action = target(shard, lease, to, waits, rows.selected.is_none());
            rows.selected
                .and_then(|of| lineage.refusal(shard, &action, to, of))
                .map_or(action, Action::Refuse)
        } else {
            if lease.is_some_and(|lease| !lease.is_complete()) {
                unfinished.insert(&shard.id);
            }
            continue;
        };
        let finished = match &action {
            Action::Move(position) => position.is_shard_end(),
            Action::Create(_) => false,
            Action::Keep(_) | Action::Release | Action::Order(_) | Action::Refuse(_) => {
                lease.is_none_or(Lease::is_complete)
            }
        };
        if !finished {
            unfinished.insert(&shard.id);
        }
        let mut step = match lease {
            Some(lease) => rows.step(lease, action),
            None => Step { key: shard.id.clone().into(), lease: None, children: BTreeSet::new(), action },
        };
        if finished {
            step.children =
                lineage.children.get(&shard.id).into_iter().flatten().map(|id| (*id).clone()).collect();
        }
        // A shard without a row that needs none is not worth a line.
        if step.lease.is_some() || !matches!(step.action, Action::Keep(_)) {
            steps.push(step);
        }
    }
    if rows.selected.is_none() {
        let unlisted = rows.leases.iter().filter(|lease| !lineage.shards.contains_key(lease.shard()));
        steps.extend(unlisted.map(|lease| rows.step(lease, Action::Keep(Kept::Unlisted))));
    }
    steps
}

/// The action for a shard, its relatives aside. `waits` tells whether one of its parents is read before it.
fn target(shard: &Shard, lease: Option<&Lease>, to: &To, waits: bool, all: bool) -> Action {
    let is_closed = shard.ending.is_some();
    let is_finished = lease.is_none_or(Lease::is_complete);
    let position = match to {
        To::TrimHorizon => Position::new(Sequence::TrimHorizon),
        To::Latest if !is_closed => Position::new(Sequence::Latest),
        To::Latest if !all => return Action::Refuse(Refusal::Closed),
        To::Latest if is_finished => return Action::Keep(Kept::Finished),
        To::Latest => Position::shard_end(),
        To::Found(found) => match found.get(&shard.id) {
            // A finished shard without a row lets its children start, so that one whose parents are read again needs one.
            Some(found) if is_closed && is_finished && !found.follows && !waits => {
                return Action::Keep(Kept::NothingLeft);
            }
            Some(Found { before: Some(before), .. }) => before.clone(),
            // Without a record before the position, reading from the oldest record skips none.
            Some(Found { before: None, .. }) | None => Position::new(Sequence::TrimHorizon),
        },
    };
    match lease {
        Some(lease) if position.sequence == Sequence::Latest && lease.parking().is_some() => {
            Action::Refuse(Refusal::Parked)
        }
        Some(lease) if is_at(lease, &position) => Action::Keep(Kept::AlreadyThere),
        Some(_) => Action::Move(position),
        None => {
            let new = sync::new_lease(shard, Sequence::TrimHorizon);
            Action::Create(Box::new(Lease { checkpoint: position, ..new }))
        }
    }
}

/// The relations of the listed shards.
struct Lineage<'a> {
    rows: BTreeMap<&'a ShardId, &'a Lease>,
    shards: BTreeMap<&'a ShardId, &'a Shard>,
    children: BTreeMap<&'a ShardId, BTreeSet<&'a ShardId>>,
}

impl<'a> Lineage<'a> {
    fn new(leases: &'a [Lease], listed: &'a [Shard]) -> Self {
        let mut children: BTreeMap<&ShardId, BTreeSet<&ShardId>> = BTreeMap::new();
        for shard in listed {
            for parent in shard.parents() {
                children.entry(parent).or_default().insert(&shard.id);
            }
        }
        Self {
            rows: leases.iter().map(|lease| (lease.shard(), lease)).collect(),
            shards: listed.iter().map(|shard| (&shard.id, shard)).collect(),
            children,
        }
    }

    /// All that are reached from a shard by some relation, without the shard.
    fn reached(
        &self,
        from: &'a ShardId,
        next: impl Fn(&'a ShardId) -> Vec<&'a ShardId>,
    ) -> BTreeSet<&'a ShardId> {
        let (mut reached, mut open) = (BTreeSet::new(), next(from));
        while let Some(id) = open.pop() {
            if self.shards.contains_key(id) && reached.insert(id) {
                open.extend(next(id));
            }
        }
        reached
    }

    fn ancestors(&self, of: &'a ShardId) -> BTreeSet<&'a ShardId> {
        self.reached(of, |id| self.shards.get(id).into_iter().flat_map(|shard| shard.parents()).collect())
    }

    fn descendants(&self, of: &'a ShardId) -> BTreeSet<&'a ShardId> {
        self.reached(of, |id| self.children.get(id).into_iter().flatten().copied().collect())
    }

    /// Why a shard cannot be moved without others that are not selected: the records of a shard and of its descendants
    /// would be delivered out of order.
    fn refusal(
        &self,
        shard: &'a Shard,
        action: &Action,
        to: &To,
        selected: &BTreeSet<ShardId>,
    ) -> Option<Refusal> {
        if !matches!(action, Action::Move(_) | Action::Create(_)) {
            return None;
        }
        // At LATEST a shard that waits would skip the records that arrive meanwhile; a new row waits only for its parents.
        if *to == To::Latest || matches!(action, Action::Create(_)) {
            let is_parent = |id: &ShardId| *to != To::Latest && shard.parents().any(|parent| parent == id);
            let is_open =
                |id: &&ShardId| self.rows.get(*id).is_some_and(|row| !row.is_complete()) && !is_parent(id);
            if let Some(ancestor) = self.ancestors(&shard.id).into_iter().find(is_open) {
                return Some(Refusal::Ancestor(ancestor.clone()));
            }
        }
        let has_row = |id: &ShardId| self.rows.contains_key(id) || selected.contains(id);
        let is_wrong = |id: &&ShardId| match self.rows.get(*id) {
            _ if selected.contains(*id) => false,
            Some(row) => has_begun(row),
            None => self.descendants(id).into_iter().any(has_row),
        };
        let wrong = self.descendants(&shard.id).into_iter().find(is_wrong);
        wrong.map(|descendant| Refusal::Descendant(descendant.clone()))
    }
}

/// Whether records of the shard may have been delivered, or an owner may be about to.
fn has_begun(lease: &Lease) -> bool {
    !matches!(lease.checkpoint.sequence, Sequence::TrimHorizon | Sequence::AtTimestamp) || !is_unowned(lease)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
