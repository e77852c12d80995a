//! Every write of an existing lease row, as condition and changes.
//!
//! Pure: an adapter translates the writes, and tests compare them with requests recorded from Java. The conditions
//! include those of Java, because workers of both kinds rely on each other's: acquiring, renewing and checkpointing check
//! the counter; handing off and releasing check the owners. Writes of multilangd's own leases also check its marks
//! ([`Update::fenced`], [`Update::marked`]).
//!
//! In KCL: `DynamoDBLeaseSerializer`.

use std::collections::BTreeSet;

use super::orders::{Park, Pause};
use super::{Lease, ProcessId, Throughput, WorkerId};
use crate::clock::SIGNATURE_MILLIS;
use crate::sequence::{Position, Sequence};
use crate::shard::{HashRange, ShardId};
use crate::stream::StreamId;

/// A condition of a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// `leaseCounter = n`.
    Counter(i64),
    /// `leaseOwner = w`, or no owner.
    Owner(Option<WorkerId>),
    /// `checkpointOwner = w`, or none.
    CheckpointOwner(Option<WorkerId>),
    /// `multilangdStream = s`, or none.
    Stream(Option<StreamId>),
    /// `multilangdProcess = p`.
    Process(ProcessId),
    /// `multilangdParked` is as it was read, or none.
    Park(Option<Park>),
    /// `multilangdPause` is as it was read, or none.
    Pause(Option<Pause>),
    /// `multilangdLatestFrom` does not exist.
    Undated,
    /// The row exists.
    Exists,
}

/// A change of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// SET `leaseCounter`.
    SetCounter(i64),
    /// ADD `leaseCounter` 1.
    BumpCounter,
    /// SET `leaseOwner`.
    SetOwner(WorkerId),
    /// REMOVE `leaseOwner`.
    ClearOwner,
    /// SET `checkpointOwner`.
    SetCheckpointOwner(WorkerId),
    /// REMOVE `checkpointOwner`.
    ClearCheckpointOwner,
    /// SET `throughputKBps`.
    SetThroughput(Throughput),
    /// ADD `ownerSwitchesSinceCheckpoint` 1.
    BumpOwnerSwitches,
    /// SET `ownerSwitchesSinceCheckpoint`.
    SetOwnerSwitches(i64),
    /// SET `checkpoint`, `checkpointSubSequenceNumber`.
    SetCheckpoint(Position),
    /// REMOVE the three `pendingCheckpoint…` attributes.
    ClearPending,
    /// SET `childShardIds`; never with an empty set.
    SetChildren(BTreeSet<ShardId>),
    /// SET `startingHashKey`, `endingHashKey`.
    SetRange(HashRange),
    /// REMOVE `childShardIds`.
    ClearChildren,
    /// SET `parentShardId`, or REMOVE it for an empty set.
    SetParents(BTreeSet<ShardId>),
    /// SET `multilangdStream`.
    SetStream(StreamId),
    /// SET `multilangdProcess`.
    SetProcess(ProcessId),
    /// SET `multilangdLatestFrom` to the time at which the write is sent: [`Update::date`].
    SetLatestFrom(i64),
    /// REMOVE `multilangdLatestFrom`.
    ClearLatestFrom,
    /// SET `multilangdEarlierCheckpoint`: the stream and the checkpoint that a reset replaces, for operators.
    SetEarlier(String),
    /// SET `multilangdParked`.
    SetPark(Park),
    /// REMOVE `multilangdParked`.
    ClearPark,
    /// SET `multilangdPause`.
    SetPause(Pause),
}

/// A conditional write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Update {
    /// The conditions, all of which must hold.
    pub requires: Vec<Requirement>,
    /// The changes, all of which are made.
    pub changes: Vec<Change>,
}

/// The owner renews its lease. The condition on `checkpointOwner` is how a 3.x owner learns of a graceful
/// handoff: without it no handoff would be noticed.
pub fn renew(lease: &Lease) -> Update {
    let mut requires = vec![Requirement::Counter(lease.counter)];
    if lease.checkpoint_owner.is_none() {
        requires.push(Requirement::CheckpointOwner(None));
    }
    let mut changes = vec![Change::SetCounter(lease.counter + 1)];
    changes.extend(lease.throughput.map(Change::SetThroughput));
    Update { requires, changes }
}

/// A worker acquires an unowned or expired lease, or steals one.
pub fn take(lease: &Lease, me: &WorkerId) -> Update {
    let mut changes = vec![
        Change::SetCounter(lease.counter + 1),
        Change::SetOwner(me.clone()),
        Change::ClearCheckpointOwner,
    ];
    let from_another = lease.owner.as_ref().is_some_and(|owner| owner != me);
    if from_another || lease.checkpoint_owner.as_ref() == Some(me) {
        changes.push(Change::BumpOwnerSwitches);
    }
    Update {
        requires: vec![
            Requirement::Counter(lease.counter),
            // Stricter than Java, which checks only the counter: the start of a handoff does not change the
            // counter, and an acquisition that was planned before must not end the handoff.
            Requirement::CheckpointOwner(lease.checkpoint_owner.clone()),
        ],
        changes,
    }
}

/// The owner stores a checkpoint, which is a renewal too.
pub fn checkpoint(lease: &Lease, target: &Position) -> Update {
    let mut changes = vec![
        Change::SetCounter(lease.counter + 1),
        Change::SetCheckpoint(target.clone()),
        Change::SetOwnerSwitches(0),
        Change::ClearPending,
    ];
    changes.extend(lease.throughput.map(Change::SetThroughput));
    if !lease.children.is_empty() {
        changes.push(Change::SetChildren(lease.children.clone()));
    }
    if lease.latest_from.is_some() && target.sequence != Sequence::Latest {
        changes.push(Change::ClearLatestFrom);
    }
    Update { requires: vec![Requirement::Counter(lease.counter)], changes }
}

/// The next owner of a released lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Any worker, or the one that the leader designated already.
    Nobody,
    /// The successor: a worker that waits for leases from the leader, so that it need not wait for the
    /// leader's next round; or the one that the leader designated.
    Worker(WorkerId),
    /// This worker or none, in place of the one that the leader designated, which has left the fleet.
    Instead(Option<WorkerId>),
}

/// The owner releases its lease, so that no worker has to wait for its expiry. During a graceful handoff only
/// `checkpointOwner` is cleared: the new owner starts at once.
pub fn release(lease: &Lease, to: &Next) -> Update {
    let mut changes = vec![Change::ClearCheckpointOwner, Change::BumpCounter];
    match to {
        Next::Nobody | Next::Worker(_) if lease.checkpoint_owner.is_some() => {}
        Next::Worker(to) | Next::Instead(Some(to)) => {
            changes.extend([Change::SetOwner(to.clone()), Change::BumpOwnerSwitches]);
        }
        Next::Nobody | Next::Instead(None) => changes.push(Change::ClearOwner),
    }
    Update {
        requires: vec![
            // Stricter than Java, which checks only the owners: a late release must not end a new ownership
            // of the same worker.
            Requirement::Counter(lease.counter),
            Requirement::Owner(lease.owner.clone()),
            Requirement::CheckpointOwner(lease.checkpoint_owner.clone()),
            Requirement::Exists,
        ],
        changes,
    }
}

/// A worker takes over a lease that the leader assigned to it, and starts renewing it.
pub fn adopt(lease: &Lease, me: &WorkerId) -> Update {
    let requires = vec![
        Requirement::Counter(lease.counter),
        Requirement::Owner(Some(me.clone())),
        Requirement::CheckpointOwner(None),
    ];
    Update { requires, changes: vec![Change::SetCounter(lease.counter + 1)] }
}

/// The mark that a multilangd worker writes to each row that it acquires.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The stream that the worker reads; none if unknown.
    pub stream: Option<StreamId>,
    /// The worker's process.
    pub process: ProcessId,
    /// Whether [`Lease::latest_from`] is stored.
    pub stores_start: bool,
}

/// Resets a finished row of an open shard, or a row of an earlier stream of the same name, so that the shard
/// is read from its oldest record. The replaced checkpoint is kept in an attribute for operators. An owner
/// loses the lease.
pub fn reset(
    lease: &Lease,
    parents: BTreeSet<ShardId>,
    range: HashRange,
    stream: Option<&StreamId>,
) -> Update {
    let mut changes = forsake(lease, Position::new(Sequence::TrimHorizon));
    changes.extend([Change::SetParents(parents), Change::SetRange(range), Change::ClearChildren]);
    changes.extend(stream.cloned().map(Change::SetStream));
    Update { requires: unchanged(lease), changes }
}

/// Marks a row of an earlier stream as finished, because the present stream has no such shard; the row can
/// then be deleted.
pub fn retire(lease: &Lease) -> Update {
    Update { requires: unchanged(lease), changes: forsake(lease, Position::shard_end()) }
}

/// An operator moves a lease to another position, and a shard that is thereby finished gets its child shards. An owner
/// loses the lease: its next write fails on the counter. The replaced checkpoint is kept in an attribute.
///
/// At `LATEST`, the orders must be as they were read, and records that are put while the shard is parked are delivered
/// afterwards: reading begins where it has begun, or at the time of the order by the operator's clock.
pub fn seek(lease: &Lease, to: &Position, children: &BTreeSet<ShardId>) -> Update {
    let mut changes = forsake(lease, to.clone());
    let mut requires = as_seen(lease);
    if to.sequence == Sequence::Latest {
        requires.extend([Requirement::Park(lease.park.clone()), Requirement::Pause(lease.pause.clone())]);
        if let Some(order) = lease.parking() {
            changes.retain(|change| *change != Change::ClearLatestFrom);
            changes.push(Change::SetLatestFrom(
                lease.latest_from.unwrap_or(order.since.saturating_sub(SIGNATURE_MILLIS)),
            ));
        }
    }
    if !children.is_empty() {
        changes.push(Change::SetChildren(children.clone()));
    }
    Update { requires, changes }.fenced(lease)
}

/// An operator takes a lease from its owner, and ends a handoff. The next write of each fails on the counter.
pub fn take_away(lease: &Lease) -> Update {
    let changes =
        vec![Change::SetCounter(lease.counter + 1), Change::ClearOwner, Change::ClearCheckpointOwner];
    Update { requires: as_seen(lease), changes }.fenced(lease)
}

/// The start of a handoff and an assignment do not change the counter.
fn as_seen(lease: &Lease) -> Vec<Requirement> {
    vec![
        Requirement::Counter(lease.counter),
        Requirement::Owner(lease.owner.clone()),
        Requirement::CheckpointOwner(lease.checkpoint_owner.clone()),
    ]
}

/// Marks a row with the earlier stream to which it belongs.
pub fn mark(lease: &Lease, stream: &StreamId) -> Update {
    Update {
        requires: vec![Requirement::Exists, Requirement::Stream(lease.stream.clone())],
        changes: vec![Change::SetStream(stream.clone())],
    }
}

/// Replaces the mark of a row whose checkpoint is of the present stream. The other attributes may be those of an earlier
/// stream's shard with this id: its lease would wait for parents that never end.
pub fn remark(lease: &Lease, parents: &BTreeSet<ShardId>, range: HashRange, stream: &StreamId) -> Update {
    let mut update = mark(lease, stream);
    if lease.parents != *parents {
        update.changes.push(Change::SetParents(parents.clone()));
    }
    if lease.range != Some(range) {
        update.changes.push(Change::SetRange(range));
    }
    if !lease.is_complete() && !lease.children.is_empty() {
        update.changes.push(Change::ClearChildren);
    }
    update
}

fn unchanged(lease: &Lease) -> Vec<Requirement> {
    vec![Requirement::Counter(lease.counter), Requirement::Stream(lease.stream.clone())]
}

fn forsake(lease: &Lease, checkpoint: Position) -> Vec<Change> {
    let stream = lease.stream.as_ref().map_or("-".to_owned(), ToString::to_string);
    let note = format!("{stream} {}/{}", lease.checkpoint.sequence.as_str(), lease.checkpoint.sub);
    // A second attempt replaces nothing, and keeps the note of the first one.
    let note = (lease.checkpoint != checkpoint).then_some(Change::SetEarlier(note));
    let changes = [
        Change::SetCounter(lease.counter + 1),
        Change::ClearOwner,
        Change::ClearCheckpointOwner,
        Change::SetCheckpoint(checkpoint),
        Change::ClearPending,
        Change::ClearLatestFrom,
    ];
    changes.into_iter().chain(note).collect()
}

/// The leader, or an owner that shuts down, assigns the lease to a worker at once. The counter is
/// incremented, so that later writes of the previous owner fail.
pub fn assign(lease: &Lease, to: &WorkerId) -> Update {
    let mut changes = vec![Change::SetOwner(to.clone()), Change::ClearCheckpointOwner, Change::BumpCounter];
    let from_another = lease.owner.as_ref().is_some_and(|owner| owner != to);
    if from_another || lease.checkpoint_owner.as_ref() == Some(to) {
        changes.push(Change::BumpOwnerSwitches);
    }
    Update {
        requires: vec![
            Requirement::Exists,
            Requirement::Owner(lease.owner.clone()),
            Requirement::CheckpointOwner(lease.checkpoint_owner.clone()),
        ],
        changes,
    }
}

/// The leader starts a graceful handoff: the present owner reads on until it has finished. The counter is
/// unchanged, so that no checkpoint of the owner fails.
pub fn initiate(lease: &Lease, to: &WorkerId) -> Update {
    let requires = vec![
        Requirement::Exists,
        Requirement::Owner(lease.owner.clone()),
        Requirement::CheckpointOwner(None),
    ];
    let mut changes = vec![Change::SetOwner(to.clone())];
    changes.extend(lease.owner.clone().map(Change::SetCheckpointOwner));
    Update { requires, changes }
}

/// Stores the children of a shard at its end. Counter and owner are unchanged.
pub fn children(children: BTreeSet<ShardId>) -> Update {
    Update { requires: vec![Requirement::Exists], changes: vec![Change::SetChildren(children)] }
}

/// Nudges the owner of a lease because a lease can be acquired: at its next renewal it sees that the number
/// of owner switches has changed, and scans the table at once. Java's workers only count switches, for
/// operators; the owner's next checkpoint resets them to 0. Counter and owner are unchanged, so that no write
/// of the owner fails.
pub fn nudge(lease: &Lease) -> Update {
    Update {
        requires: vec![Requirement::Owner(lease.owner.clone()), Requirement::Exists],
        changes: vec![Change::BumpOwnerSwitches],
    }
}

/// Adds the hash keys to a row of an early version of KCL. Counter and owner are unchanged.
pub fn range(range: HashRange) -> Update {
    Update { requires: vec![Requirement::Exists], changes: vec![Change::SetRange(range)] }
}

impl Update {
    /// Also requires that the row still has the marks of the owner's process and of its stream. A row that was deleted
    /// and created again passes through counters that it had before: a late write must not match one of them, nor one
    /// for an earlier stream.
    #[must_use]
    pub fn fenced(mut self, lease: &Lease) -> Self {
        self.requires.extend(lease.process.clone().map(Requirement::Process));
        self.requires.push(Requirement::Stream(lease.stream.clone()));
        self
    }

    /// Also marks the row of an acquired lease, and requires that it still has the mark that was read.
    #[must_use]
    pub fn marked(mut self, lease: &Lease, mark: &Mark) -> Self {
        self.requires.push(Requirement::Stream(lease.stream.clone()));
        let stream = mark.stream.as_ref().filter(|stream| lease.stream.as_ref() != Some(stream));
        self.changes.extend(stream.cloned().map(Change::SetStream));
        if lease.process.as_ref() != Some(&mark.process) {
            self.changes.push(Change::SetProcess(mark.process.clone()));
        }
        if mark.stores_start && lease.checkpoint.sequence == Sequence::Latest && lease.latest_from.is_none() {
            self.begin_latest();
        }
        self
    }

    /// Stores where reading at `LATEST` begins. An order may have stored an earlier date since the row was read, without a
    /// change of the counter: that date is kept.
    pub(super) fn begin_latest(&mut self) {
        if !self.changes.iter().any(|change| matches!(change, Change::SetLatestFrom(_))) {
            self.requires.push(Requirement::Undated);
            // Without a date, nothing is skipped.
            self.changes.push(Change::SetLatestFrom(0));
        }
    }

    /// Fills in the time at AWS at which it is sent, in milliseconds since 1970.
    pub fn date(&mut self, millis: i64) {
        for change in &mut self.changes {
            if let Change::SetLatestFrom(at) = change {
                *at = millis;
            }
        }
    }

    /// Whether the conditions hold for this row.
    pub fn holds(&self, lease: &Lease) -> bool {
        self.requires.iter().all(|requirement| match requirement {
            Requirement::Counter(counter) => lease.counter == *counter,
            Requirement::Owner(owner) => lease.owner == *owner,
            Requirement::CheckpointOwner(owner) => lease.checkpoint_owner == *owner,
            Requirement::Stream(stream) => lease.stream == *stream,
            Requirement::Process(process) => lease.process.as_ref() == Some(process),
            Requirement::Park(park) => lease.park == *park,
            Requirement::Pause(pause) => lease.pause == *pause,
            Requirement::Undated => lease.latest_from.is_none(),
            Requirement::Exists => true,
        })
    }

    /// Applies the changes to a row.
    pub fn apply(&self, lease: &mut Lease) {
        for change in &self.changes {
            match change {
                Change::SetCounter(counter) => lease.counter = *counter,
                Change::BumpCounter => lease.counter += 1,
                Change::SetOwner(owner) => lease.owner = Some(owner.clone()),
                Change::ClearOwner => lease.owner = None,
                Change::SetCheckpointOwner(owner) => lease.checkpoint_owner = Some(owner.clone()),
                Change::ClearCheckpointOwner => lease.checkpoint_owner = None,
                Change::SetThroughput(throughput) => lease.throughput = Some(*throughput),
                Change::BumpOwnerSwitches => lease.owner_switches += 1,
                Change::SetOwnerSwitches(switches) => lease.owner_switches = *switches,
                Change::SetCheckpoint(position) => lease.checkpoint = position.clone(),
                Change::ClearPending => lease.pending = None,
                Change::SetChildren(children) => lease.children.clone_from(children),
                Change::SetRange(range) => lease.range = Some(*range),
                Change::ClearChildren => lease.children.clear(),
                Change::SetParents(parents) => lease.parents.clone_from(parents),
                Change::SetStream(stream) => lease.stream = Some(stream.clone()),
                Change::SetProcess(process) => lease.process = Some(process.clone()),
                Change::SetLatestFrom(millis) => lease.latest_from = Some(*millis),
                Change::ClearLatestFrom => lease.latest_from = None,
                Change::SetEarlier(_) => {}
                Change::SetPark(park) => lease.park = Some(park.clone()),
                Change::ClearPark => lease.park = None,
                Change::SetPause(pause) => lease.pause = Some(pause.clone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Sequence;

    fn lease(owner: Option<&str>, checkpoint_owner: Option<&str>) -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let mut lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        lease.owner = owner.map(Into::into);
        lease.checkpoint_owner = checkpoint_owner.map(Into::into);
        lease.counter = 4;
        lease
    }

    fn applied(update: &Update, lease: &Lease) -> Lease {
        assert!(update.holds(lease));
        let mut after = lease.clone();
        update.apply(&mut after);
        after
    }

    #[test]
    fn renewal_fails_after_an_unknown_handoff_started() {
        let mine = lease(Some("a"), None);
        let update = renew(&mine);
        assert_eq!(applied(&update, &mine).counter, 5);
        assert!(!update.holds(&lease(Some("b"), Some("a"))));
        let known = lease(Some("b"), Some("a"));
        assert!(renew(&known).holds(&known), "who knows of the hand-off renews by the counter alone");
    }

    #[test]
    fn acquiring_counts_a_switch_only_from_another_owner() {
        let me = WorkerId::from("me");
        for (owner, checkpoint_owner, switches) in [
            (None, None, 0),
            (Some("me"), None, 0),
            (Some("x"), None, 1),
            (Some("me"), Some("x"), 0),
            (Some("me"), Some("me"), 1),
        ] {
            let before = lease(owner, checkpoint_owner);
            let after = applied(&take(&before, &me), &before);
            assert_eq!(after.owner_switches, switches, "{before:?}");
            assert_eq!((after.owner, after.checkpoint_owner, after.counter), (Some(me.clone()), None, 5));
        }
    }

    #[test]
    fn checkpoint_clears_switches_and_pending() {
        let mut before = lease(Some("a"), None);
        before.owner_switches = 3;
        before.pending = Some(Position::shard_end());
        let target = Position::new(Sequence::parse("12").unwrap());
        let update = checkpoint(&before, &target);
        assert_eq!(update.requires, [Requirement::Counter(4)]);
        let after = applied(&update, &before);
        assert_eq!(
            (after.checkpoint, after.owner_switches, after.pending, after.counter),
            (target, 0, None, 5)
        );
    }

    #[test]
    fn start_at_latest_is_stored_until_the_first_checkpoint() {
        let mark =
            |stores_start| Mark { stream: None, process: ProcessId::new(5, "a", &"me".into()), stores_start };
        let me = "me".into();
        let taken = |lease: &Lease, millis| {
            let mut update = take(lease, &me).marked(lease, &mark(true));
            update.date(millis);
            applied(&update, lease)
        };
        let new = Lease { checkpoint: Position::new(Sequence::Latest), ..lease(None, None) };
        assert_eq!(applied(&take(&new, &me).marked(&new, &mark(false)), &new).latest_from, None);
        let begun = taken(&new, 100);
        assert_eq!(begun.latest_from, Some(100));
        let next = taken(&begun, 200);
        assert_eq!(next.latest_from, Some(100), "the first owner's");
        let same = applied(&checkpoint(&next, &next.checkpoint), &next);
        assert_eq!(same.latest_from, Some(100));
        let stored = applied(&checkpoint(&next, &Position::new(Sequence::parse("12").unwrap())), &next);
        assert_eq!(stored.latest_from, None);
        let reset = applied(&reset(&next, BTreeSet::new(), HashRange { start: 0, end: 9 }, None), &next);
        assert_eq!(reset.latest_from, None);
        for other in [Sequence::TrimHorizon, Sequence::AtTimestamp, Sequence::parse("12").unwrap()] {
            let row = Lease { checkpoint: Position::new(other), ..lease(None, None) };
            assert_eq!(taken(&row, 100).latest_from, None);
        }
    }

    #[test]
    fn seek_to_latest_keeps_the_start_of_a_parked_lease() {
        let sought = |row: &Lease| seek(row, &Position::new(Sequence::Latest), &BTreeSet::new());
        let start = |row: &Lease| applied(&sought(row), row).latest_from;
        let free = Lease { latest_from: Some(3), ..lease(None, None) };
        assert_eq!(start(&free), None);
        let parked = Lease { park: Some(Park::new(7, "ann")), ..free.clone() };
        assert!(!sought(&free).holds(&parked), "parked since");
        assert_eq!(start(&parked), Some(3));
        let paused = Lease { pause: Some(Pause::new(true, 8, "ann")), latest_from: None, ..free };
        assert_eq!(start(&paused), Some(8 - SIGNATURE_MILLIS));
    }

    #[test]
    fn late_write_for_an_earlier_stream_is_refused() {
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
        let before = Lease { stream: Some(StreamId::new(arn, 1)), ..lease(Some("a"), None) };
        let update = renew(&before).fenced(&before);
        assert!(update.holds(&before));
        assert!(!update.holds(&Lease { stream: Some(StreamId::new(arn, 2)), ..before }));
    }

    #[test]
    fn release_during_a_handoff_keeps_the_new_owner() {
        let mine = lease(Some("a"), None);
        assert_eq!(applied(&release(&mine, &Next::Nobody), &mine).owner, None);
        let handing = lease(Some("b"), Some("a"));
        let after = applied(&release(&handing, &Next::Nobody), &handing);
        assert_eq!((after.owner, after.checkpoint_owner, after.counter), (Some("b".into()), None, 5));
        assert!(!release(&mine, &Next::Nobody).holds(&lease(Some("b"), None)));
    }

    #[test]
    fn handoff_does_not_fail_the_owners_writes() {
        let mine = lease(Some("a"), None);
        let after = applied(&assign(&mine, &"b".into()), &mine);
        assert_eq!((after.owner.clone(), after.counter, after.owner_switches), (Some("b".into()), 5, 1));
        let mut free = lease(None, None);
        assert_eq!(applied(&assign(&free, &"b".into()), &free).owner_switches, 0);
        free.checkpoint_owner = Some("b".into());
        assert_eq!(applied(&assign(&free, &"b".into()), &free).owner_switches, 1);
        let handing = applied(&initiate(&mine, &"b".into()), &mine);
        assert_eq!((handing.owner.clone(), handing.counter), (Some("b".into()), 4));
        assert_eq!(handing.actual_owner(), Some(&"a".into()));
        assert!(!renew(&mine).holds(&handing) && renew(&handing).holds(&handing));
        assert!(!initiate(&handing, &"c".into()).holds(&handing), "one at a time");
        assert!(!adopt(&handing, &"b".into()).holds(&handing), "not before it is closed");
        let closed = applied(&release(&handing, &Next::Nobody), &handing);
        assert!(adopt(&closed, &"b".into()).holds(&closed));
    }
}
