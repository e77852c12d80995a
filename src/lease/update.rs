//! Every write on an existing lease row, as condition and changes.
//!
//! Pure: an adapter translates it, and tests compare it with what Java was seen to send. The
//! conditions are Java's to the letter, because workers of both kinds rely on each other's: taking,
//! renewing and checkpointing check the counter, handing over and releasing check the owners.
//!
//! In KCL: `DynamoDBLeaseSerializer`.

use std::collections::BTreeSet;

use super::{Lease, ProcessId, Throughput, WorkerId};
use crate::sequence::{Position, Sequence};
use crate::shard::{HashRange, ShardId};
use crate::stream::StreamId;

/// What must hold for the write to happen. All of it.
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
    /// The row exists.
    Exists,
}

/// What the write does.
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
    /// SET `multilangdEarlierCheckpoint`: the stream and the checkpoint that a reset replaces, for people.
    SetEarlier(String),
}

/// One conditional write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Update {
    /// All must hold.
    pub requires: Vec<Requirement>,
    /// All are done.
    pub changes: Vec<Change>,
}

/// The owner says that it is alive (B3). The clause on `checkpointOwner` is how a 3.x owner learns
/// of a hand-off: leave it out and hand-offs are never noticed.
pub fn renew(lease: &Lease) -> Update {
    let mut requires = vec![Requirement::Counter(lease.counter)];
    if lease.checkpoint_owner.is_none() {
        requires.push(Requirement::CheckpointOwner(None));
    }
    let mut changes = vec![Change::SetCounter(lease.counter + 1)];
    changes.extend(lease.throughput.map(Change::SetThroughput));
    Update { requires, changes }
}

/// A worker takes a lease that nobody has or that stood still (B4).
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
            // Stricter than Java, which checks the counter alone: opening a hand-off doesn't move that, and
            // a take that was planned before must not end it.
            Requirement::CheckpointOwner(lease.checkpoint_owner.clone()),
        ],
        changes,
    }
}

/// The owner stores progress (B8). It is a renewal too.
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
    Update { requires: vec![Requirement::Counter(lease.counter)], changes }
}

/// Who has a lease after its owner has let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Whoever takes it, or whom a leader has named already.
    Nobody,
    /// A worker that waits for leases from a leader and need not wait for the leader too; or whom the leader
    /// has named.
    Worker(WorkerId),
    /// This worker or nobody, whomever the leader has named: that one has gone.
    Instead(Option<WorkerId>),
}

/// The owner lets go, so that nobody has to wait for the lease to stand still (B7). With a hand-off
/// open only that is closed: the next owner starts at once.
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
            // Stricter than Java, which checks the owners alone: a release that comes late must not undo
            // a new holding by the same worker.
            Requirement::Counter(lease.counter),
            Requirement::Owner(lease.owner.clone()),
            Requirement::CheckpointOwner(lease.checkpoint_owner.clone()),
            Requirement::Exists,
        ],
        changes,
    }
}

/// A worker finds a lease that a leader has given to it, and begins to keep it (D7).
pub fn adopt(lease: &Lease, me: &WorkerId) -> Update {
    let requires = vec![
        Requirement::Counter(lease.counter),
        Requirement::Owner(Some(me.clone())),
        Requirement::CheckpointOwner(None),
    ];
    Update { requires, changes: vec![Change::SetCounter(lease.counter + 1)] }
}

/// The mark that a multilangd worker writes into each row that it acquires.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The stream that it reads; none if that is unknown.
    pub stream: Option<StreamId>,
    /// The process.
    pub process: ProcessId,
}

/// A finished row of a shard that is open, or any row of an earlier stream of the same name: the shard is read from its
/// oldest record. What the row said is kept in an attribute for people. Whoever owns the lease loses it.
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

/// A row of an earlier stream of the same name whose shard the stream does not have: it is finished, and can be deleted.
pub fn retire(lease: &Lease) -> Update {
    Update { requires: unchanged(lease), changes: forsake(lease, Position::shard_end()) }
}

/// A row of this stream that is marked with an identity which the stream no longer has.
pub fn remark(lease: &Lease, stream: &StreamId) -> Update {
    Update {
        requires: vec![Requirement::Exists, Requirement::Stream(lease.stream.clone())],
        changes: vec![Change::SetStream(stream.clone())],
    }
}

fn unchanged(lease: &Lease) -> Vec<Requirement> {
    vec![Requirement::Counter(lease.counter), Requirement::Stream(lease.stream.clone())]
}

fn forsake(lease: &Lease, checkpoint: Position) -> Vec<Change> {
    let stream = lease.stream.as_ref().map_or("-".to_owned(), ToString::to_string);
    let Position { sequence, sub } = &lease.checkpoint;
    vec![
        Change::SetCounter(lease.counter + 1),
        Change::ClearOwner,
        Change::ClearCheckpointOwner,
        Change::SetCheckpoint(checkpoint),
        Change::ClearPending,
        Change::SetEarlier(format!("{stream} {}/{sub}", sequence.as_str())),
    ]
}

/// A leader, or the owner itself that stops, gives the lease to a worker at once. The counter moves, so
/// that whatever the owner before still sends is refused.
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

/// A leader opens a hand-off: the present owner reads on until it has finished. The counter stays, so that
/// no write of the owner fails by it.
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

/// A shard's end names its children (B9). Counter and owner stay.
pub fn children(children: BTreeSet<ShardId>) -> Update {
    Update { requires: vec![Requirement::Exists], changes: vec![Change::SetChildren(children)] }
}

/// Calls the owner of a lease: there is something to take. It sees at its next renewal that the number
/// of switches has moved, and looks at the table at once. Java's workers count switches for people and
/// decide nothing by them; the owner's next checkpoint sets them to 0. Counter and owner stay, so that no
/// write of the owner fails by it.
pub fn nudge(lease: &Lease) -> Update {
    Update {
        requires: vec![Requirement::Owner(lease.owner.clone()), Requirement::Exists],
        changes: vec![Change::BumpOwnerSwitches],
    }
}

/// Hash keys of a row that an early version of KCL made without (B9). Counter and owner stay.
pub fn range(range: HashRange) -> Update {
    Update { requires: vec![Requirement::Exists], changes: vec![Change::SetRange(range)] }
}

impl Update {
    /// Requires that the row still has the mark of the lease owner's process. A row that was deleted and made anew goes
    /// through counters that it had before: a late write must not fit one of them.
    #[must_use]
    pub fn fenced(mut self, lease: &Lease) -> Self {
        self.requires.extend(lease.process.clone().map(Requirement::Process));
        self
    }

    /// Marks the row of a lease that is acquired, and requires that it still has the mark that was read.
    #[must_use]
    pub fn marked(mut self, lease: &Lease, mark: &Mark) -> Self {
        self.requires.push(Requirement::Stream(lease.stream.clone()));
        let stream = mark.stream.as_ref().filter(|stream| lease.stream.as_ref() != Some(stream));
        self.changes.extend(stream.cloned().map(Change::SetStream));
        if lease.process.as_ref() != Some(&mark.process) {
            self.changes.push(Change::SetProcess(mark.process.clone()));
        }
        self
    }

    /// Whether the write would happen on this row.
    pub fn holds(&self, lease: &Lease) -> bool {
        self.requires.iter().all(|requirement| match requirement {
            Requirement::Counter(counter) => lease.counter == *counter,
            Requirement::Owner(owner) => lease.owner == *owner,
            Requirement::CheckpointOwner(owner) => lease.checkpoint_owner == *owner,
            Requirement::Stream(stream) => lease.stream == *stream,
            Requirement::Process(process) => lease.process.as_ref() == Some(process),
            Requirement::Exists => true,
        })
    }

    /// What the write makes of the row.
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
                Change::SetEarlier(_) => {}
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
    fn a_renewal_fails_once_a_hand_off_was_opened_that_its_owner_does_not_know() {
        let mine = lease(Some("a"), None);
        let update = renew(&mine);
        assert_eq!(applied(&update, &mine).counter, 5);
        assert!(!update.holds(&lease(Some("b"), Some("a"))));
        let known = lease(Some("b"), Some("a"));
        assert!(renew(&known).holds(&known), "who knows of the hand-off renews by the counter alone");
    }

    #[test]
    fn taking_counts_a_switch_only_if_somebody_else_had_it() {
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
    fn a_checkpoint_clears_switches_and_pending_and_checks_the_counter_only() {
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
    fn a_release_leaves_the_row_to_the_next_owner_if_a_hand_off_is_open() {
        let mine = lease(Some("a"), None);
        assert_eq!(applied(&release(&mine, &Next::Nobody), &mine).owner, None);
        let handing = lease(Some("b"), Some("a"));
        let after = applied(&release(&handing, &Next::Nobody), &handing);
        assert_eq!((after.owner, after.checkpoint_owner, after.counter), (Some("b".into()), None, 5));
        assert!(!release(&mine, &Next::Nobody).holds(&lease(Some("b"), None)));
    }

    #[test]
    fn a_leader_assigns_at_once_or_opens_a_hand_off_that_no_write_of_the_owner_fails_by() {
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
