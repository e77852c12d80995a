//! Plans the leases that the shards of a stream need.
//!
//! Pure: takes the shards that Kinesis lists and the leases of the table, and returns new rows, ancestors
//! first, so that after a crash the missing ones are planned again. The rules are those of Java's
//! `HierarchicalShardSyncer`: two algorithms on one table would disagree about which ancestors need a lease.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lease, LeaseKey};
use crate::sequence::{Position, Sequence};
use crate::shard::{ChildShard, Filter, HashRange, Shard, ShardId};

/// The position of a stream's first leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitialPosition {
    /// Only new records.
    Latest,
    /// The oldest record.
    TrimHorizon,
    /// The first record that arrived at this time or later, in milliseconds since 1970. Only the name is
    /// stored in the table; each worker uses its own configured time.
    AtTimestamp(i64),
}

impl InitialPosition {
    /// The position `LATEST` or `TRIM_HORIZON`.
    pub fn named(name: &str) -> Option<Self> {
        let known = [Self::Latest, Self::TrimHorizon].into_iter();
        known.into_iter().find(|position| position.sequence().as_str() == name)
    }

    /// The checkpoint of a new lease.
    pub fn sequence(self) -> Sequence {
        match self {
            Self::Latest => Sequence::Latest,
            Self::TrimHorizon => Sequence::TrimHorizon,
            Self::AtTimestamp(_) => Sequence::AtTimestamp,
        }
    }

    /// The shards with which an empty table starts.
    pub fn filter(self) -> Filter {
        match self {
            Self::Latest => Filter::AtLatest,
            Self::TrimHorizon => Filter::AtTrimHorizon,
            Self::AtTimestamp(millis) => Filter::AtTimestamp(millis),
        }
    }
}

/// Why no leases can be planned for a list of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Some hash keys are not covered by the list, which occurs during a reshard.
    #[error("ListShards returned no shard for the hash keys after {after} (the stream may be resharding)")]
    Hole {
        /// The last covered hash key, or 0.
        after: u128,
    },
    /// The parent of a listed shard is still open.
    #[error(
        "shard {child} is listed although its parent {parent} is still open (set \
         ignoreUnexpectedChildShards = true to ignore it)"
    )]
    UnexpectedChild {
        /// The child shard.
        child: ShardId,
        /// The open parent.
        parent: ShardId,
    },
    /// A shard is its own ancestor.
    #[error("the listed shards have no oldest ancestor: {}", circle(.shards))]
    Cycle {
        /// The shards of the cycle: each is followed by one of its parents, the last one by the first.
        shards: Vec<ShardId>,
    },
}

/// Describes a cycle of shards, of any length, in a message.
fn circle(shards: &[ShardId]) -> String {
    const NAMED: usize = 10;
    let mut text: Vec<String> = shards.iter().take(NAMED).map(ToString::to_string).collect();
    if shards.len() > NAMED {
        text.push(format!("({} more)", shards.len() - NAMED));
    }
    text.extend(shards.first().map(ToString::to_string));
    text.join(" is a child of ")
}

pub(crate) fn new_lease(shard: &Shard, sequence: Sequence) -> Lease {
    let parents = shard.parents().cloned().collect();
    Lease::new(shard.id.clone().into(), Position::new(sequence), parents, shard.range)
}

pub(crate) fn in_order(shards: &[Shard]) -> Vec<&Shard> {
    let mut ordered: Vec<&Shard> = shards.iter().collect();
    ordered.sort_by(|a, b| a.starting.order(&b.starting).then_with(|| a.id.cmp(&b.id)));
    ordered
}

/// The leases of an empty table: one for each shard of the list that [`InitialPosition::filter`] requested.
/// Leases of descendants are created when these shards end.
///
/// # Errors
/// [`Error::Hole`] if the shards do not cover all hash keys.
pub fn plan_first(shards: &[Shard], initial: InitialPosition) -> Result<Vec<Lease>, Error> {
    covers(shards.iter().map(|shard| shard.range))?;
    Ok(in_order(shards).into_iter().map(|shard| new_lease(shard, initial.sequence())).collect())
}

fn covers(ranges: impl Iterator<Item = HashRange>) -> Result<(), Error> {
    let mut ranges: Vec<HashRange> = ranges.collect();
    ranges.sort();
    // The next hash key to be covered; none once all are covered.
    let mut next = Some(0u128);
    for range in ranges {
        match next {
            Some(key) if range.start > key => return Err(Error::Hole { after: key.saturating_sub(1) }),
            Some(key) if range.end >= key => next = range.end.checked_add(1),
            Some(_) | None => {}
        }
    }
    next.map_or(Ok(()), |key| Err(Error::Hole { after: key.saturating_sub(1) }))
}

/// The missing leases, given all listed shards and all leases.
///
/// # Errors
/// [`Error::UnexpectedChild`] unless `ignore_unexpected`, in which case the child gets no lease.
/// [`Error::Cycle`] if a shard that needs a lease has an ancestor that is its own ancestor.
pub fn plan_missing(
    shards: &[Shard],
    leases: &[Lease],
    initial: InitialPosition,
    ignore_unexpected: bool,
) -> Result<Vec<Lease>, Error> {
    let listed: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    let mut unexpected = BTreeSet::new();
    for shard in shards {
        for parent in shard.parents().filter_map(|id| listed.get(id)).filter(|parent| parent.ending.is_none())
        {
            if !ignore_unexpected {
                return Err(Error::UnexpectedChild { child: shard.id.clone(), parent: parent.id.clone() });
            }
            unexpected.insert(&shard.id);
        }
    }
    let have = leases.iter().map(|lease| lease.shard()).collect();
    let mut plan = Plan {
        listed,
        have,
        initial,
        descendants: BTreeMap::new(),
        marked: BTreeSet::new(),
        planned: BTreeMap::new(),
    };
    for shard in in_order(shards) {
        let needed =
            shard.ending.is_none() && !plan.have.contains(&shard.id) && !unexpected.contains(&shard.id);
        if needed && !plan.visit(shard)? {
            plan.planned.insert(shard.id.clone(), initial.sequence());
        }
    }
    let Plan { planned, .. } = plan;
    let planned =
        in_order(shards).into_iter().filter_map(|s| planned.get(&s.id).map(|at| new_lease(s, at.clone())));
    Ok(planned.collect())
}

struct Plan<'a> {
    listed: BTreeMap<&'a ShardId, &'a Shard>,
    have: BTreeSet<&'a ShardId>,
    initial: InitialPosition,
    /// The results of [`Plan::visit`].
    descendants: BTreeMap<&'a ShardId, bool>,
    /// Ancestors from which all records must be read again.
    marked: BTreeSet<&'a ShardId>,
    planned: BTreeMap<ShardId, Sequence>,
}

/// A shard on the path from an open shard to the ancestor that is being visited.
struct Visit<'a> {
    shard: &'a Shard,
    /// The parents that are listed.
    parents: Vec<&'a ShardId>,
    /// Number of parents that were visited.
    visited: usize,
    /// Parents whose lease will exist, or that are read again.
    through: BTreeSet<&'a ShardId>,
}

impl<'a> Plan<'a> {
    /// Whether an ancestor will create the shard's lease when it ends. Plans the leases of ancestors that are
    /// needed for that.
    ///
    /// Java recurses over the parents (`checkIfDescendantAndAddNewLeasesForAncestors`). Here the path is kept
    /// on the heap, because a lineage can be deeper than the stack.
    fn visit(&mut self, shard: &'a Shard) -> Result<bool, Error> {
        let mut path: Vec<Visit<'a>> = Vec::new();
        let mut on_path = BTreeSet::new();
        let mut next = Some(shard);
        loop {
            if let Some(shard) = next.take()
                && !self.descendants.contains_key(&shard.id)
            {
                if self.have.contains(&shard.id) {
                    self.descendants.insert(&shard.id, true);
                } else if on_path.insert(&shard.id) {
                    let parents = shard.parents().filter(|id| self.listed.contains_key(id)).collect();
                    path.push(Visit { shard, parents, visited: 0, through: BTreeSet::new() });
                } else {
                    let cycle = path.iter().map(|visit| &visit.shard.id).skip_while(|id| **id != shard.id);
                    return Err(Error::Cycle { shards: cycle.cloned().collect() });
                }
            }
            let Some(mut visit) = path.pop() else { break };
            // The result of a visited parent is known; another parent is visited first.
            while let Some(parent) = visit.parents.get(visit.visited) {
                let Some(descendant) = self.descendants.get(parent) else { break };
                if *descendant || self.marked.contains(parent) {
                    visit.through.insert(parent);
                }
                visit.visited += 1;
            }
            if let Some(parent) = visit.parents.get(visit.visited) {
                next = self.listed.get(parent).copied();
                path.push(visit);
            } else {
                on_path.remove(&visit.shard.id);
                let answer = self.plan_parents(&visit);
                self.descendants.insert(&visit.shard.id, answer);
            }
        }
        Ok(self.descendants.get(&shard.id).copied().unwrap_or_default())
    }

    /// Plans the leases of a shard's parents, once all of them were visited.
    fn plan_parents(&mut self, visit: &Visit<'a>) -> bool {
        if visit.through.is_empty() {
            if self.initial != InitialPosition::Latest {
                self.marked.insert(&visit.shard.id);
            }
            return false;
        }
        for parent in visit.parents.iter().copied().filter(|id| !self.have.contains(id)) {
            let descendant = visit.through.contains(parent);
            let wanted = self.planned.contains_key(parent) || self.marked.contains(parent) || !descendant;
            if wanted {
                let replay = descendant && !matches!(self.initial, InitialPosition::AtTimestamp(_));
                let at = if replay { Sequence::TrimHorizon } else { self.initial.sequence() };
                self.planned.insert(parent.clone(), at);
            }
        }
        true
    }
}

/// The leases of a shard's children, created when it ends: always at their first record.
pub fn plan_children(parent: &LeaseKey, children: &[ChildShard]) -> Vec<Lease> {
    let lease = |child: &ChildShard| {
        let parents = child.parents.iter().cloned().collect();
        Lease::new(parent.relative(&child.id), Position::new(Sequence::TrimHorizon), parents, child.range)
    };
    children.iter().map(lease).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sequence::SequenceNumber;

    fn shard(id: u32, parents: &[u32], open: bool) -> Shard {
        let name = |n: u32| ShardId::from(n.to_string().as_str());
        Shard {
            id: name(id),
            parent: parents.first().map(|p| name(*p)),
            adjacent_parent: parents.get(1).map(|p| name(*p)),
            range: HashRange { start: 0, end: u128::MAX },
            starting: SequenceNumber::parse(&(100 + id).to_string()).unwrap(),
            ending: (!open).then(|| SequenceNumber::parse("999").unwrap()),
        }
    }

    /// The lineage of the documentation of Java's syncer: 0,1→6; 2,3→7; 6,7→8; 4; 5→9,10.
    fn lineage() -> Vec<Shard> {
        let closed = [
            (0, vec![]),
            (1, vec![]),
            (2, vec![]),
            (3, vec![]),
            (5, vec![]),
            (6, vec![0, 1]),
            (7, vec![2, 3]),
        ];
        let open = [(4, vec![]), (8, vec![6, 7]), (9, vec![5]), (10, vec![5])];
        let closed = closed.iter().map(|(id, parents)| shard(*id, parents, false));
        closed.chain(open.iter().map(|(id, parents)| shard(*id, parents, true))).collect()
    }

    fn lease(id: u32) -> Lease {
        new_lease(&shard(id, &[], true), Sequence::TrimHorizon)
    }

    fn planned(leases: &[Lease], initial: InitialPosition) -> Vec<(String, String)> {
        let plan = plan_missing(&lineage(), leases, initial, false).unwrap();
        plan.iter().map(|lease| (lease.shard().to_string(), lease.checkpoint.to_string())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    /// The values that Java's syncer returns for this lineage.
    #[test]
    fn missing_leases_are_those_of_java() {
        let have = [lease(4), lease(5), lease(7)];
        assert_eq!(planned(&have, InitialPosition::Latest), pairs(&[("6", "LATEST")]));
        assert_eq!(
            planned(&have, InitialPosition::TrimHorizon),
            pairs(&[("0", "TRIM_HORIZON"), ("1", "TRIM_HORIZON")])
        );
        assert_eq!(
            planned(&have, InitialPosition::AtTimestamp(5)),
            pairs(&[("0", "AT_TIMESTAMP"), ("1", "AT_TIMESTAMP")])
        );
    }

    #[test]
    fn replanning_after_a_partial_plan_yields_the_rest() {
        let have = vec![lease(4), lease(5), lease(7)];
        for initial in
            [InitialPosition::Latest, InitialPosition::TrimHorizon, InitialPosition::AtTimestamp(5)]
        {
            let whole = plan_missing(&lineage(), &have, initial, false).unwrap();
            for made in 0..=whole.len() {
                let mut leases = have.clone();
                leases.extend_from_slice(&whole[..made]);
                let rest = plan_missing(&lineage(), &leases, initial, false).unwrap();
                assert_eq!(rest, whole[made..], "{initial:?} after {made}");
            }
        }
    }

    #[test]
    fn child_of_an_open_parent_is_unexpected() {
        let shards = [shard(0, &[], true), shard(1, &[0], true)];
        let refused = plan_missing(&shards, &[], InitialPosition::Latest, false);
        assert_eq!(refused, Err(Error::UnexpectedChild { child: "1".into(), parent: "0".into() }));
        let plan = plan_missing(&shards, &[], InitialPosition::Latest, true).unwrap();
        assert_eq!(plan.iter().map(|l| l.shard().as_str()).collect::<Vec<_>>(), ["0"]);
    }

    #[test]
    fn first_leases_need_shards_for_every_hash_key() {
        let mut shards = vec![shard(0, &[], true), shard(1, &[], true)];
        shards[0].range.end = 99;
        shards[1].range.start = 100;
        assert_eq!(plan_first(&shards, InitialPosition::Latest).unwrap().len(), 2);
        shards[1].range.start = 101;
        assert_eq!(plan_first(&shards, InitialPosition::Latest), Err(Error::Hole { after: 99 }));
        assert_eq!(plan_first(&[], InitialPosition::Latest), Err(Error::Hole { after: 0 }));
    }

    /// One open shard after this many splits or merges, each with one listed child.
    fn generations(count: u32) -> Vec<Shard> {
        (0..=count)
            .map(|id| shard(id, &id.checked_sub(1).into_iter().collect::<Vec<_>>(), id == count))
            .collect()
    }

    /// Runs on a stack with a few hundred frames at most.
    fn on_a_small_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::Builder::new().stack_size(128 * 1024).spawn(run).unwrap().join().unwrap()
    }

    #[test]
    fn lineage_of_25000_generations_fits_a_small_stack() {
        let planned = on_a_small_stack(|| {
            plan_missing(&generations(25_000), &[lease(99_999)], InitialPosition::TrimHorizon, false).unwrap()
        });
        assert_eq!(planned.iter().map(|lease| lease.shard().as_str()).collect::<Vec<_>>(), ["0"]);
    }

    #[test]
    fn cyclic_lineage_is_an_error_that_names_the_cycle() {
        let shards =
            [shard(0, &[2], false), shard(1, &[0], false), shard(2, &[1], false), shard(3, &[2], true)];
        let error =
            on_a_small_stack(move || plan_missing(&shards, &[], InitialPosition::Latest, false)).unwrap_err();
        assert_eq!(error, Error::Cycle { shards: vec!["2".into(), "1".into(), "0".into()] });
        assert!(error.to_string().contains("2 is a child of 1 is a child of 0 is a child of 2"), "{error}");
    }

    /// The recursion of KCL's `HierarchicalShardSyncer`, for lineages that fit on a stack.
    struct Recursive<'a> {
        listed: BTreeMap<&'a ShardId, &'a Shard>,
        have: BTreeSet<&'a ShardId>,
        initial: InitialPosition,
        descendants: BTreeMap<ShardId, bool>,
        marked: BTreeSet<ShardId>,
        planned: BTreeMap<ShardId, Sequence>,
    }

    impl Recursive<'_> {
        fn visit(&mut self, id: &ShardId) -> bool {
            if let Some(known) = self.descendants.get(id) {
                return *known;
            }
            let Some(shard) = self.listed.get(id).copied() else { return false };
            let answer = self.have.contains(id) || self.visit_parents(shard);
            self.descendants.insert(id.clone(), answer);
            answer
        }

        fn visit_parents(&mut self, shard: &Shard) -> bool {
            let parents: Vec<ShardId> =
                shard.parents().filter(|id| self.listed.contains_key(id)).cloned().collect();
            let mut through = BTreeSet::new();
            for parent in &parents {
                if self.visit(parent) || self.marked.contains(parent) {
                    through.insert(parent.clone());
                }
            }
            if through.is_empty() {
                if self.initial != InitialPosition::Latest {
                    self.marked.insert(shard.id.clone());
                }
                return false;
            }
            for parent in parents.iter().filter(|id| !self.have.contains(*id)) {
                let descendant = through.contains(parent);
                let wanted = self.planned.contains_key(parent) || self.marked.contains(parent) || !descendant;
                if wanted {
                    let replay = descendant && !matches!(self.initial, InitialPosition::AtTimestamp(_));
                    let at = if replay { Sequence::TrimHorizon } else { self.initial.sequence() };
                    self.planned.insert(parent.clone(), at);
                }
            }
            true
        }
    }

    fn plan_recursively(shards: &[Shard], leases: &[Lease], initial: InitialPosition) -> Vec<Lease> {
        let mut plan = Recursive {
            listed: shards.iter().map(|shard| (&shard.id, shard)).collect(),
            have: leases.iter().map(|lease| lease.shard()).collect(),
            initial,
            descendants: BTreeMap::new(),
            marked: BTreeSet::new(),
            planned: BTreeMap::new(),
        };
        for shard in in_order(shards) {
            let needed = shard.ending.is_none() && !plan.have.contains(&shard.id);
            if needed && !plan.visit(&shard.id) {
                plan.planned.insert(shard.id.clone(), initial.sequence());
            }
        }
        let planned = &plan.planned;
        let lease = |shard: &Shard| planned.get(&shard.id).map(|at| new_lease(shard, at.clone()));
        in_order(shards).into_iter().filter_map(lease).collect()
    }

    proptest! {
        #[test]
        fn plan_equals_the_recursive_version(
            // For each shard: up to two older parents, and whether it is open without children, listed,
            // leased.
            lineage in proptest::collection::vec((0u32..40, 0u32..40, 0u8..3, any::<bool>(), 0u8..8, 0u8..4), 1..30),
            initial in 0u8..3,
        ) {
            let mut shards = Vec::new();
            let mut leases = Vec::new();
            for (id, (first, second, parents, open, listed, leased)) in (0u32..).zip(&lineage) {
                let older = [*first, *second].map(|at| at.checked_rem(id)).into_iter().flatten();
                let parents: Vec<u32> = older.take((*parents).into()).collect();
                if *listed > 0 {
                    shards.push(shard(id, &parents, *open));
                }
                if *leased == 0 {
                    leases.push(lease(id));
                }
            }
            let parents: BTreeSet<ShardId> = shards.iter().flat_map(Shard::parents).cloned().collect();
            for shard in &mut shards {
                if parents.contains(&shard.id) {
                    shard.ending = SequenceNumber::parse("999");
                }
            }
            let initial = [InitialPosition::Latest, InitialPosition::TrimHorizon, InitialPosition::AtTimestamp(5)]
                [usize::from(initial)];
            prop_assert_eq!(
                plan_missing(&shards, &leases, initial, false).unwrap(),
                plan_recursively(&shards, &leases, initial)
            );
        }
    }
}
