//! Decides whether the leases cover all hash keys, and which worker checks that.
//!
//! No worker reads a shard without a lease, and nothing would report it. So one worker looks for hash keys
//! that no open lease covers. A hole that is unchanged in several audits is not caused by a reshard in
//! progress, and the stream's shards are listed to fill it.
//!
//! There is no election: every worker computes from the lease owners which one it is, by the same shuffle as
//! Java's workers, so that in a mixed fleet they agree.
//!
//! In KCL: `PeriodicShardSyncManager`, `DeterministicShuffleShardSyncLeaderDecider`.

use std::collections::BTreeSet;

use super::{Lease, WorkerId};

/// KCL's `leasesRecoveryAuditorInconsistencyConfidenceThreshold`.
const CONFIDENCE: u32 = 3;

/// Hash keys that no open lease covers, between two covered ones, if there are such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The last covered key before the hole.
    pub after: Option<u128>,
    /// The first covered key after the hole.
    pub before: Option<u128>,
}

/// In how many audits in a row the same hole was found. It counts audits instead of time: each is a comparison of
/// its own.
#[derive(Debug, Default)]
pub struct HoleCount {
    hole: Option<Hole>,
    times: u32,
}

impl HoleCount {
    /// Handles one audit. Returns the hole if it was found in enough audits in a row, and again at every
    /// audit while it remains.
    pub fn note(&mut self, leases: &[Lease]) -> Option<Hole> {
        let hole = find(leases);
        self.times = if hole.is_some() && hole == self.hole { self.times + 1 } else { 1 };
        self.hole = hole;
        hole.filter(|_| self.times >= CONFIDENCE)
    }

    /// Whether the last audit found a hole, whether or not it is confirmed.
    pub fn has_hole(&self) -> bool {
        self.hole.is_some()
    }
}

/// The first hole. Finished leases cover nothing; leases without a range are ignored.
pub fn find(leases: &[Lease]) -> Option<Hole> {
    let mut ranges: Vec<_> =
        leases.iter().filter(|lease| !lease.is_complete()).filter_map(|lease| lease.range).collect();
    ranges.sort();
    let mut covered: Option<u128> = None;
    for range in &ranges {
        let joins = match covered {
            None => range.start == 0,
            Some(end) => range.start <= end.saturating_add(1),
        };
        if !joins {
            return Some(Hole { after: covered, before: Some(range.start) });
        }
        covered = covered.max(Some(range.end));
    }
    (covered != Some(u128::MAX)).then_some(Hole { after: covered, before: None })
}

/// Open leases without hash keys, as KCL wrote them before 2.3.
pub fn without_range(leases: &[Lease]) -> impl Iterator<Item = &Lease> {
    leases.iter().filter(|lease| !lease.is_complete() && lease.range.is_none())
}

/// Whether this worker runs the audits: it is the first owner of a shuffle that every worker computes alike.
/// Without owners every worker does. Workers that left the fleet do not count: a finished lease keeps the
/// name of its last owner, and no worker acquires it.
pub fn leads(me: &WorkerId, leases: &[Lease], gone: &BTreeSet<WorkerId>) -> bool {
    let owners = leases.iter().filter_map(|lease| lease.owner.as_ref());
    let owners: BTreeSet<&WorkerId> = owners.filter(|owner| !gone.contains(owner)).collect();
    // Java compares strings by UTF-16 units; worker ids outside the basic plane are not known to occur.
    let mut owners: Vec<&WorkerId> = owners.into_iter().collect();
    shuffle(&mut owners);
    owners.first().is_none_or(|first| *first == me)
}

/// `Collections.shuffle(list, new Random(1947))`.
fn shuffle<T>(list: &mut [T]) {
    let mut random = JavaRandom::new(1947);
    for length in (2..=list.len()).rev() {
        let other = random.below(length);
        list.swap(length - 1, other);
    }
}

/// The 48-bit generator of `java.util.Random`.
struct JavaRandom(u64);

impl JavaRandom {
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: u64) -> Self {
        Self((seed ^ 0x0005_DEEC_E66D) & Self::MASK)
    }

    /// The next 31 bits.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x0005_DEEC_E66D).wrapping_add(0xB) & Self::MASK;
        self.0 >> 17
    }

    /// `nextInt(bound)`.
    fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        let drawn = if bound.is_power_of_two() {
            (bound * self.next()) >> 31
        } else {
            loop {
                let bits = self.next();
                let drawn = bits % bound;
                // Java detects the last, incomplete range of values by an overflow of its 32-bit int.
                if bits - drawn + (bound - 1) < 1 << 31 {
                    break drawn;
                }
            }
        };
        usize::try_from(drawn).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    fn lease(start: u128, end: u128) -> Lease {
        let range = HashRange { start, end };
        let shard = format!("{start}-{end}").as_str().into();
        Lease::new(shard, Position::new(Sequence::Latest), BTreeSet::new(), range)
    }

    fn ended(start: u128, end: u128) -> Lease {
        Lease { checkpoint: Position::shard_end(), ..lease(start, end) }
    }

    #[test]
    fn adjacent_or_overlapping_leases_leave_no_hole() {
        assert_eq!(find(&[lease(10, u128::MAX), lease(0, 9)]), None);
        assert_eq!(find(&[lease(0, 20), lease(5, 7), lease(15, u128::MAX), ended(3, 4)]), None);
    }

    #[test]
    fn first_hole_is_found_anywhere() {
        let hole = |after, before| Some(Hole { after, before });
        assert_eq!(find(&[]), hole(None, None));
        assert_eq!(find(&[lease(5, u128::MAX)]), hole(None, Some(5)));
        assert_eq!(find(&[lease(0, 9), lease(11, u128::MAX)]), hole(Some(9), Some(11)));
        assert_eq!(find(&[lease(0, 9)]), hole(Some(9), None));
        assert_eq!(find(&[lease(0, 9), ended(10, 19), lease(20, u128::MAX)]), hole(Some(9), Some(20)));
    }

    #[test]
    fn hole_is_confirmed_after_three_audits_in_a_row() {
        let mut holes = HoleCount::default();
        let (one, other, none) = ([lease(0, 9)], [lease(0, 8)], [lease(0, u128::MAX)]);
        assert_eq!(holes.note(&one), None);
        assert_eq!(holes.note(&one), None);
        assert_eq!(holes.note(&other), None, "another hole begins anew");
        assert_eq!(holes.note(&other), None);
        assert_eq!(holes.note(&none), None);
        assert_eq!(holes.note(&other), None, "so does one that was closed");
        assert_eq!(holes.note(&other), None);
        assert!(holes.note(&other).is_some());
        assert!(holes.note(&other).is_some(), "and is told while it stays");
    }

    #[test]
    fn shuffle_equals_the_jvms() {
        let first = |n: usize| {
            let mut list: Vec<usize> = (0..n).collect();
            shuffle(&mut list);
            list[0]
        };
        let chosen: Vec<usize> = (1..=20).map(first).collect();
        assert_eq!(chosen, [0, 0, 2, 3, 4, 2, 2, 2, 3, 8, 6, 9, 12, 4, 10, 11, 13, 11, 0, 14]);
    }

    #[test]
    fn one_owner_audits_or_all_workers_without_owners() {
        let mut leases = vec![lease(0, 9), lease(10, 19), lease(20, 29)];
        assert!(leads(&"x".into(), &leases, &BTreeSet::new()));
        for (lease, owner) in leases.iter_mut().zip(["a", "b", "c"]) {
            lease.owner = Some(owner.into());
        }
        let leading: Vec<&str> = ["a", "b", "c", "x"]
            .into_iter()
            .filter(|me| leads(&(*me).into(), &leases, &BTreeSet::new()))
            .collect();
        assert_eq!(leading, ["c"], "the third of three, as on a JVM");
        let gone = BTreeSet::from(["c".into()]);
        let leading = |me: &str| leads(&me.into(), &leases, &gone);
        assert!(!leading("c") && leading("a") != leading("b"), "one that is gone leaves it to another");
    }
}
