//! Determines which stream the rows of a lease table belong to, and which open shards no worker reads.
//!
//! Pure: takes rows and listed shards, and returns decisions. Each row that a multilangd worker acquires is
//! marked with the stream's identity. The decisions by the marks:
//!
//! | rows | decision |
//! |---|---|
//! | one is marked with another ARN | [`Foreign`]: the daemon does not start |
//! | marked with this ARN and an earlier creation time | the stream was created again: [`start_over`] |
//! | none is marked, and no checkpoint can be of this stream | [`Foreign`] |
//! | none is marked, some checkpoints are of this stream | they are marked when they are acquired; the others are left alone |
//!
//! A row with `SHARD_END` for an open shard is never right: [`impossible`]. KCL has no counterpart: there a
//! table that is used for another stream loses its checkpoints, or its leases make no progress.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::orders::{self, Pause};
use super::{Lease, LeaseKey, WorkerId, sync};
use crate::sequence::{Sequence, SequenceNumber};
use crate::shard::{Shard, ShardId};
use crate::stream::{Relation, StreamId};

/// The lease table belongs to another stream. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A row is marked with another stream.
    #[error(
        "the lease table belongs to stream {stored} (lease {lease}), not to {configured} (correct \
         streamName, or set another applicationName or tableName)"
    )]
    Marked {
        /// The first row with another mark.
        lease: LeaseKey,
        /// The stream of the row.
        stored: String,
        /// The configured stream.
        configured: String,
    },
    /// No row is marked, and no checkpoint can be of this stream.
    #[error(
        "the checkpoints in the lease table do not belong to stream {configured}: {example} (if \
         streamName is wrong, correct it; if it is right, because the stream was deleted and recreated \
         or no shard of the checkpoints is left, set initialPositionInStream = TRIM_HORIZON so that no \
         record is skipped, and delete the rows of the lease table)"
    )]
    Positions {
        /// The configured stream.
        configured: String,
        /// One lease, and why its checkpoint is of another stream.
        example: String,
    },
}

/// How the marks of a table relate to the configured stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marks {
    /// Some marks are of this stream and none of another one; or the table is empty.
    Same,
    /// Some marks are of an earlier stream of this name.
    CreatedAgain,
    /// Some marks are of a stream of this name that was created later than this one, which should not happen.
    Later(StreamId),
    /// There are rows, but none is marked.
    None,
}

/// Compares the marks with the configured stream, of which only the name may be known.
///
/// # Errors
/// [`Foreign::Marked`].
pub fn marks(leases: &[Lease], current: Option<&StreamId>, name: &str) -> Result<Marks, Foreign> {
    let mut found = if leases.is_empty() { Marks::Same } else { Marks::None };
    for lease in leases {
        let Some(mark) = &lease.stream else { continue };
        let relation = match current {
            Some(current) => mark.relation(current),
            None if mark.name() == name => Relation::Same,
            None => Relation::Different,
        };
        match relation {
            Relation::Different => {
                let configured = current.map_or(name, |current| current.arn()).to_owned();
                return Err(Foreign::Marked {
                    lease: lease.key.clone(),
                    stored: mark.arn().to_owned(),
                    configured,
                });
            }
            Relation::CreatedAgain => found = Marks::CreatedAgain,
            Relation::Older if found != Marks::CreatedAgain => found = Marks::Later(mark.clone()),
            Relation::Same if found == Marks::None => found = Marks::Same,
            Relation::Older | Relation::Same => {}
        }
    }
    Ok(found)
}

/// Whether a stored sequence number can be of the listed shard. None for a row without a number.
fn fits(lease: &Lease, shard: &Shard) -> Option<bool> {
    let Sequence::Number(number) = &lease.checkpoint.sequence else { return None };
    let begun = number.order(&shard.starting) != Ordering::Less;
    let ended = shard.ending.as_ref().is_some_and(|ending| number.order(ending) == Ordering::Greater);
    Some(begun && !ended)
}

fn by_id(listed: &[Shard]) -> BTreeMap<&ShardId, &Shard> {
    listed.iter().map(|shard| (&shard.id, shard)).collect()
}

/// The sequence numbers of a table without marks, compared with the stream. Needed once for a table that KCL
/// created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions {
    /// Numbers that can be of the stream.
    pub fit: Vec<(ShardId, SequenceNumber)>,
    /// Numbers that cannot be of the stream, with the reason.
    doubtful: BTreeMap<ShardId, String>,
    /// Numbers of shards that the stream does not list although it lists younger ones: it may have had them.
    /// They are no evidence for the stream, and doubtful only if there is no other evidence.
    gone: BTreeMap<ShardId, String>,
    accepted: usize,
    refused: usize,
}

/// Compares the sequence numbers of leases with the listed shards. A number within its shard proves little,
/// because the numbers of all streams grow with time. Kinesis knows more ([`crate::shard::Api::has_number`]).
pub fn positions(leases: &[Lease], listed: &[Shard]) -> Positions {
    let youngest = listed.iter().map(|shard| &shard.id).max();
    let listed = by_id(listed);
    let mut found = Positions::default();
    for lease in leases {
        let Sequence::Number(number) = &lease.checkpoint.sequence else { continue };
        let why = match listed.get(lease.shard()) {
            Some(shard) if fits(lease, shard) == Some(true) => {
                found.fit.push((lease.shard().clone(), number.clone()));
                continue;
            }
            Some(shard) => format!(
                "the checkpoint {number} of {} is outside its shard, which starts at {}",
                lease.shard(),
                shard.starting
            ),
            None => {
                let why =
                    format!("the stream has no shard {}, which has the checkpoint {number}", lease.shard());
                if youngest.is_some_and(|youngest| lease.shard() < youngest) {
                    found.gone.insert(lease.shard().clone(), why);
                    continue;
                }
                why
            }
        };
        found.doubtful.insert(lease.shard().clone(), why);
    }
    found
}

impl Positions {
    /// Notes whether Kinesis accepts a number as one of this stream.
    pub fn answered(&mut self, shard: &ShardId, has: bool) {
        if has {
            self.accepted += 1;
            return;
        }
        self.refused += 1;
        if let Some(at) = self.fit.iter().position(|(fits, _)| fits == shard) {
            let (shard, number) = self.fit.remove(at);
            let why = format!(
                "Kinesis rejects the checkpoint {number} of {shard}: it does not belong to this stream"
            );
            self.doubtful.insert(shard, why);
        }
    }

    /// Whether Kinesis accepted some numbers and refused others.
    pub fn is_mixed(&self) -> bool {
        self.accepted > 0 && self.refused > 0
    }

    /// The leases to be left alone, because their checkpoints cannot be of this stream.
    ///
    /// # Errors
    /// [`Foreign::Positions`] if there are sequence numbers and none of them can be of this stream, or
    /// Kinesis refused all that it was asked about.
    pub fn judge(self, name: &str) -> Result<BTreeSet<ShardId>, Foreign> {
        let none_fits = self.fit.is_empty() || self.refused > 0 && self.accepted == 0;
        match self.doubtful.values().chain(self.gone.values()).next() {
            Some(example) if none_fits => {
                Err(Foreign::Positions { configured: name.to_owned(), example: example.clone() })
            }
            _ => Ok(self.doubtful.into_keys().collect()),
        }
    }
}

/// The steps that convert the table of an earlier stream to the recreated stream, in the order in which they
/// must be executed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartOver<'a> {
    /// Unmarked rows that belong to the earlier stream too. They are marked with it before any row is reset:
    /// once no row has the old mark, nothing shows that they must be reset.
    pub mark: Vec<(&'a Lease, StreamId)>,
    /// One step for each listed shard, ancestors first, so that no child starts before its parents. The rows
    /// keep their old marks, so that a worker that continues after a crash finds the remaining steps.
    pub steps: Vec<Step<'a>>,
    /// Rows whose old mark is then replaced by the present stream's, if they [`belongs`] to it by then.
    pub remark: Vec<(Lease, &'a Shard)>,
    /// Marked rows of shards that the present stream does not have. A shard of it may get the same id later,
    /// and would start at their checkpoints.
    pub remove: Vec<Lease>,
}

/// The step for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Creates a row that starts at the oldest record.
    Create(Lease),
    /// Resets the marked row to the oldest record.
    Reset(Lease, &'a Shard),
}

impl StartOver<'_> {
    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.mark.is_empty() && self.steps.is_empty() && self.remark.is_empty() && self.remove.is_empty()
    }
}

/// The rows of an earlier stream whose numbers are within the shards of the present one, which occurs if it
/// was created again within a second: Kinesis must decide which stream they belong to.
pub fn to_ask<'a>(
    leases: &'a [Lease],
    listed: &[Shard],
    current: &StreamId,
) -> Vec<(&'a Lease, &'a SequenceNumber)> {
    let listed = by_id(listed);
    let earlier = leases.iter().filter(|lease| is_of_an_earlier_stream(lease, Some(current)));
    let number = |lease: &'a Lease| {
        let shard = listed.get(lease.shard())?;
        let Sequence::Number(number) = &lease.checkpoint.sequence else { return None };
        (fits(lease, shard) == Some(true)).then_some((lease, number))
    };
    earlier.filter_map(number).collect()
}

/// Plans the steps for a table with rows of an earlier stream of this name. The plan is empty if there are
/// none. `refused` are the shards whose sequence numbers Kinesis refused.
pub fn start_over<'a>(
    leases: &'a [Lease],
    listed: &'a [Shard],
    current: &StreamId,
    refused: &BTreeSet<ShardId>,
) -> StartOver<'a> {
    let is_earlier = |lease: &Lease| is_of_an_earlier_stream(lease, Some(current));
    let earlier = leases.iter().find(|lease| is_earlier(lease)).and_then(|lease| lease.stream.clone());
    let Some(earlier) = earlier.filter(|_| !listed.is_empty()) else {
        // A stream without shards is not plausible.
        return StartOver::default();
    };
    let rows: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (lease.shard(), lease)).collect();
    let mut plan = StartOver::default();
    for shard in sync::in_order(listed) {
        let Some(lease) = rows.get(&shard.id).copied() else {
            if was_finished(shard, leases, listed, Some(current)) {
                continue;
            }
            plan.steps.push(Step::Create(first(shard, current, orders::in_force(leases))));
            continue;
        };
        let fits = fits(lease, shard).map(|fits| fits && !refused.contains(lease.shard()));
        let mut row = lease.clone();
        if lease.stream.is_none() && (fits == Some(false) || lease.is_complete()) {
            // Java created it, before or after the stream was created again.
            plan.mark.push((lease, earlier.clone()));
            row.stream = Some(earlier.clone());
        } else if !is_earlier(lease) {
            continue;
        }
        // The lease owner may have read beyond the stored TRIM_HORIZON, and continues after its last sequence
        // number.
        let is_held = lease.owner.is_some() || lease.checkpoint_owner.is_some();
        if fits != Some(true) && (is_held || !is_reset(lease, shard)) {
            plan.steps.push(Step::Reset(row.clone(), shard));
        }
        plan.remark.push((row, shard));
    }
    let known = by_id(listed);
    // The rows are older than the listing, so none belongs to a shard that was created since.
    let precedes_all = |lease: &Lease| {
        let Sequence::Number(number) = &lease.checkpoint.sequence else { return lease.is_complete() };
        listed.iter().all(|shard| number.order(&shard.starting) == Ordering::Less)
    };
    for lease in leases.iter().filter(|lease| !known.contains_key(lease.shard())) {
        if is_earlier(lease) {
            plan.remove.push(lease.clone());
        } else if lease.stream.is_none() && precedes_all(lease) {
            // Only Java workers have owned it.
            plan.mark.push((lease, earlier.clone()));
            plan.remove.push(Lease { stream: Some(earlier.clone()), ..lease.clone() });
        }
    }
    plan
}

/// The lease of a shard of the recreated stream, which is read from its oldest record. An order for the whole application
/// is in force for it too: the rows that store the order may be deleted.
pub fn first(shard: &Shard, current: &StreamId, in_force: Option<&Pause>) -> Lease {
    let new = sync::new_lease(shard, Sequence::TrimHorizon);
    Lease { stream: Some(current.clone()), pause: in_force.cloned(), ..new }
}

/// Whether a row's checkpoint can be of that shard: the row was reset, or the shard was read since. Its
/// former owner may have written once more before it lost the lease.
pub fn belongs(lease: &Lease, shard: &Shard) -> bool {
    is_reset(lease, shard) || fits(lease, shard) == Some(true)
}

/// Whether a row's checkpoint is a position of that shard: one of its sequence numbers, its oldest record, or the time at
/// which reading began at the newest one.
pub fn is_within(lease: &Lease, shard: &Shard) -> bool {
    match lease.checkpoint.sequence {
        Sequence::TrimHorizon => true,
        Sequence::Latest => lease.latest_from.is_some(),
        Sequence::AtTimestamp | Sequence::Number(_) | Sequence::ShardEnd => fits(lease, shard) == Some(true),
    }
}

/// Whether rows with that mark show that the shard, which has no row, was read to its end and its row cleaned away since:
/// one of its descendants was read.
pub fn was_finished(shard: &Shard, leases: &[Lease], listed: &[Shard], mark: Option<&StreamId>) -> bool {
    let mut lineage = BTreeSet::from([&shard.id]);
    // Parents precede their children.
    for descendant in sync::in_order(listed) {
        if descendant.parents().any(|parent| lineage.contains(parent)) {
            lineage.insert(&descendant.id);
        }
    }
    let was_read = |lease: &Lease| match lease.checkpoint.sequence {
        Sequence::Number(_) | Sequence::ShardEnd => lease.stream.as_ref() == mark,
        Sequence::TrimHorizon | Sequence::Latest | Sequence::AtTimestamp => false,
    };
    let is_descendant = |lease: &Lease| *lease.shard() != shard.id && lineage.contains(lease.shard());
    leases.iter().any(|lease| is_descendant(lease) && was_read(lease))
}

/// Whether a row starts at the shard's oldest record, with the shard's own parents.
fn is_reset(lease: &Lease, shard: &Shard) -> bool {
    lease.checkpoint.sequence == Sequence::TrimHorizon
        && lease.range == Some(shard.range)
        && lease.parents.iter().eq(shard.parents().collect::<BTreeSet<_>>())
}

/// Rows that cannot be right, although they belong to the stream, with their shards: `SHARD_END` for an open
/// shard, or a number before the shard's first one. Starting at the oldest record skips nothing.
pub fn impossible<'a>(leases: &'a [Lease], listed: &'a [Shard]) -> Vec<(&'a Lease, &'a Shard)> {
    let listed = by_id(listed);
    let is_wrong = |lease: &Lease, shard: &Shard| match &lease.checkpoint.sequence {
        Sequence::ShardEnd => shard.ending.is_none(),
        Sequence::Number(number) => number.order(&shard.starting) == Ordering::Less,
        Sequence::TrimHorizon | Sequence::Latest | Sequence::AtTimestamp => false,
    };
    let pairs = leases.iter().filter_map(|lease| listed.get(lease.shard()).map(|shard| (lease, *shard)));
    pairs.filter(|(lease, shard)| is_wrong(lease, shard)).collect()
}

/// The leases of shards whose finished parents created none, or whose rows were deleted: KCL's shard sync
/// assumes that their ancestors will create these leases, so no worker would. Descendants with rows show that
/// a shard was finished before its parents' rows were deleted. Ancestors first.
pub fn orphans(leases: &[Lease], listed: &[Shard]) -> Vec<Lease> {
    let rows: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (lease.shard(), lease)).collect();
    let shards = by_id(listed);
    let mut with_descendants = BTreeSet::new();
    for shard in listed.iter().filter(|shard| rows.contains_key(&shard.id)) {
        let mut next: Vec<&ShardId> = shard.parents().collect();
        while let Some(id) = next.pop() {
            if with_descendants.insert(id) {
                next.extend(shards.get(id).into_iter().flat_map(|shard| shard.parents()));
            }
        }
    }
    let is_orphan = |shard: &&&Shard| {
        let mut parents = shard.parents().filter(|id| shards.contains_key(id)).peekable();
        !rows.contains_key(&shard.id)
            && !with_descendants.contains(&shard.id)
            && parents.peek().is_some()
            && parents.all(|parent| rows.get(parent).is_some_and(|lease| lease.is_complete()))
    };
    let orphans = sync::in_order(listed);
    orphans.iter().filter(is_orphan).map(|shard| sync::new_lease(shard, Sequence::TrimHorizon)).collect()
}

/// The open shards that no live worker reads, and that none will read once their ancestors are finished,
/// sorted by id. A shard without a row is covered by the nearest ancestors that have one; a row that waits
/// for its parents is covered while they are being read.
pub fn unread(leases: &[Lease], listed: &[Shard], live: &BTreeSet<WorkerId>) -> Vec<ShardId> {
    let lineage = Lineage {
        rows: leases.iter().map(|lease| (lease.shard(), lease)).collect(),
        shards: by_id(listed),
        live,
    };
    let open = lineage.shards.values().filter(|shard| shard.ending.is_none());
    open.filter(|shard| !lineage.covers(&shard.id)).map(|shard| shard.id.clone()).collect()
}

struct Lineage<'a> {
    rows: BTreeMap<&'a ShardId, &'a Lease>,
    shards: BTreeMap<&'a ShardId, &'a Shard>,
    live: &'a BTreeSet<WorkerId>,
}

impl<'a> Lineage<'a> {
    fn covers(&self, shard: &'a ShardId) -> bool {
        if let Some(lease) = self.rows.get(shard) {
            return !lease.is_complete() && self.moves(lease);
        }
        // The nearest ancestors with rows.
        let (mut next, mut seen) = (vec![shard], BTreeSet::new());
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.rows.get(id) {
                Some(lease) if !lease.is_complete() && self.moves(lease) => return true,
                // Its lease expired, or it created no row when it ended.
                Some(_) => {}
                None => next.extend(self.shards.get(id).into_iter().flat_map(|shard| shard.parents())),
            }
        }
        false
    }

    /// Whether a live worker owns the lease, and the leases of all unfinished parents that it waits for.
    fn moves(&self, lease: &'a Lease) -> bool {
        let (mut next, mut seen) = (vec![lease], BTreeSet::new());
        while let Some(lease) = next.pop() {
            if lease.is_complete() || !seen.insert(lease.shard()) {
                continue;
            }
            if !lease.actual_owner().is_some_and(|owner| self.live.contains(owner)) {
                return false;
            }
            next.extend(lease.parents.iter().filter_map(|parent| self.rows.get(parent).copied()));
        }
        true
    }
}

/// Whether the row of a child shard, which existed before its parent ended, belongs to an earlier stream: the
/// child then starts at its oldest record.
pub fn is_of_an_earlier_stream(child: &Lease, current: Option<&StreamId>) -> bool {
    match (&child.stream, current) {
        (Some(mark), Some(current)) => mark.relation(current) == Relation::CreatedAgain,
        _ => false,
    }
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
