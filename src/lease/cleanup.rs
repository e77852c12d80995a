//! Decides which finished leases can be deleted.
//!
//! The row of a finished shard tells its children that they may start, so it is kept until they have: until
//! each of them has a lease with a checkpoint beyond its beginning. Ancestors are deleted before descendants,
//! so that the remaining rows are always connected. Stricter than Java on purpose, which deletes a row at
//! once if Kinesis does not know the shard or names no children: here every known child must have its lease,
//! otherwise its hash keys would be read again from the initial position, with a gap if that is the latest
//! record.
//!
//! In KCL: `LeaseCleanupManager`.

use std::collections::{BTreeMap, BTreeSet};

use super::Lease;
use crate::sequence::Sequence;
use crate::shard::{Shard, ShardId};

/// The finished leases that are no longer needed.
pub fn done(leases: &[Lease]) -> Vec<&Lease> {
    let rows: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (lease.shard(), lease)).collect();
    let started = |child: &ShardId| rows.get(child).is_some_and(|lease| has_started(lease));
    let finished = leases.iter().filter(|lease| lease.is_complete() && !lease.children.is_empty());
    finished
        .filter(|lease| lease.children.iter().all(started))
        .filter(|lease| !lease.parents.iter().any(|parent| rows.contains_key(parent)))
        .collect()
}

/// The finished leases whose shards Kinesis no longer lists: they are past retention, so no worker can read
/// them or wait for them. Their children, by the row or by Kinesis, must have leases nevertheless.
pub fn forgotten<'l>(leases: &'l [Lease], listed: &[Shard]) -> Vec<&'l Lease> {
    if listed.is_empty() {
        // A stream without shards is not plausible.
        return Vec::new();
    }
    let rows: BTreeSet<&ShardId> = leases.iter().map(|lease| lease.shard()).collect();
    let known: BTreeSet<&ShardId> = listed.iter().map(|shard| &shard.id).collect();
    let mut children: BTreeMap<&ShardId, Vec<&ShardId>> = BTreeMap::new();
    for shard in listed {
        for parent in shard.parents() {
            children.entry(parent).or_default().push(&shard.id);
        }
    }
    let with_lease = |lease: &Lease| {
        let of_this = children.get(lease.shard()).into_iter().flatten().copied();
        lease.children.iter().chain(of_this).all(|child| rows.contains(child))
    };
    leases
        .iter()
        .filter(|lease| lease.is_complete() && !known.contains(lease.shard()))
        .filter(|lease| with_lease(lease))
        .filter(|lease| !lease.parents.iter().any(|parent| rows.contains(parent)))
        .collect()
}

fn has_started(lease: &Lease) -> bool {
    !matches!(lease.checkpoint.sequence, Sequence::TrimHorizon | Sequence::AtTimestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{Position, SequenceNumber};
    use crate::shard::HashRange;

    fn lease(shard: &str, checkpoint: &str, parents: &[&str], children: &[&str]) -> Lease {
        let at = Position::new(Sequence::parse(checkpoint).unwrap());
        let parents = parents.iter().map(|id| (*id).into()).collect();
        let mut lease = Lease::new(shard.into(), at, parents, HashRange { start: 0, end: 9 });
        lease.children = children.iter().map(|id| (*id).into()).collect();
        lease
    }

    fn shard(id: &str, parent: Option<&str>) -> Shard {
        Shard {
            id: id.into(),
            parent: parent.map(Into::into),
            adjacent_parent: None,
            range: HashRange { start: 0, end: 9 },
            starting: SequenceNumber::parse("1").unwrap(),
            ending: None,
        }
    }

    fn names(leases: Vec<&Lease>) -> Vec<&str> {
        leases.into_iter().map(|lease| lease.shard().as_str()).collect()
    }

    #[test]
    fn finished_lease_is_deleted_once_every_child_has_started() {
        let parent = lease("p", "SHARD_END", &[], &["a", "b"]);
        let rest =
            |a: &str, b: &str| vec![parent.clone(), lease("a", a, &["p"], &[]), lease("b", b, &["p"], &[])];
        assert_eq!(names(done(&rest("5", "7"))), ["p"]);
        assert_eq!(names(done(&rest("SHARD_END", "LATEST"))), ["p"]);
        assert_eq!(names(done(&rest("5", "TRIM_HORIZON"))), [""; 0]);
        assert_eq!(names(done(&rest("5", "AT_TIMESTAMP"))), [""; 0]);
        assert_eq!(names(done(&rest("5", "7")[..2])), [""; 0], "a child without a lease");
    }

    #[test]
    fn ancestors_are_deleted_before_descendants() {
        let leases = [
            lease("g", "SHARD_END", &[], &["p"]),
            lease("p", "SHARD_END", &["g"], &["c"]),
            lease("c", "8", &["p"], &[]),
        ];
        assert_eq!(names(done(&leases)), ["g"]);
        assert_eq!(names(done(&leases[1..])), ["p"]);
        assert_eq!(names(done(&leases[2..])), [""; 0]);
    }

    #[test]
    fn finished_lease_without_children_is_kept_while_listed() {
        let leases = [lease("p", "SHARD_END", &[], &[]), lease("c", "TRIM_HORIZON", &["p"], &[])];
        assert_eq!(names(done(&leases)), [""; 0]);
        assert_eq!(names(forgotten(&leases, &[shard("p", None), shard("c", Some("p"))])), [""; 0]);
        assert_eq!(names(forgotten(&leases, &[shard("c", Some("p"))])), ["p"], "past retention");
        assert_eq!(
            names(forgotten(&leases[..1], &[shard("c", Some("p"))])),
            [""; 0],
            "its child has no lease"
        );
        assert_eq!(names(forgotten(&leases, &[])), [""; 0], "a stream without shards is not believed");
    }
}
