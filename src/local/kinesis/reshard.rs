//! Splits and merges of shards, and the plan of UpdateShardCount.
//!
//! Planning is arithmetic over hash key ranges; [`super::stream::Stream`] executes the steps. A plan can name
//! the shards that its earlier steps will create, since numbers are assigned in order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hash::{self, HashRange};

/// A change of the shards of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Closes `shard`. The second child starts at the hash key `at`, where the first one ends.
    Split { shard: u32, at: u128 },
    /// Closes both shards; their child covers both ranges. `left` becomes its parent, `right` its adjacent
    /// parent.
    Merge { left: u32, right: u32 },
}

/// The steps that turn the open shards into `target` shards of equal ranges.
///
/// Every boundary of the new ranges within a shard splits it; then all shards within one new range are
/// merged, neighbour with neighbour. This creates the short-lived shards that AWS warns of
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_UpdateShardCount.html>. A shard whose range
/// does not change stays open.
pub(super) fn plan_uniform(open: &[(u32, HashRange)], next: u32, target: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut next = next;
    let mut shards: BTreeMap<u128, (u32, HashRange)> =
        open.iter().map(|(number, range)| (range.start, (*number, *range))).collect();
    let ranges = hash::uniform(target);

    for HashRange { start: at, .. } in &ranges {
        let Some((_, (shard, range))) = shards.range(..=*at).next_back() else {
            continue;
        };
        let (shard, range) = (*shard, *range);
        if range.start == *at || !range.contains(*at) {
            continue;
        }
        steps.push(Step::Split { shard, at: *at });
        let left = HashRange { start: range.start, end: at - 1 };
        let right = HashRange { start: *at, end: range.end };
        shards.insert(left.start, (next, left));
        shards.insert(right.start, (next + 1, right));
        next += 2;
    }

    for wanted in ranges {
        let inside: Vec<_> = shards.range(wanted.start..=wanted.end).map(|(_, s)| *s).collect();
        let mut inside = inside.into_iter();
        let Some((mut left, mut range)) = inside.next() else {
            continue;
        };
        for (right, right_range) in inside {
            steps.push(Step::Merge { left, right });
            shards.remove(&right_range.start);
            range.end = right_range.end;
            left = next;
            next += 1;
            shards.insert(range.start, (left, range));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opened(count: u32) -> Vec<(u32, HashRange)> {
        (0..).zip(hash::uniform(count)).collect()
    }

    fn apply(open: &[(u32, HashRange)], next: u32, steps: &[Step]) -> Vec<(u32, HashRange)> {
        let mut shards: BTreeMap<u32, HashRange> = open.iter().copied().collect();
        let mut next = next;
        for step in steps {
            match *step {
                Step::Split { shard, at } => {
                    let range = shards.remove(&shard).unwrap();
                    assert!(range.start < at && at <= range.end);
                    let (start, end) = (range.start, range.end);
                    shards.insert(next, HashRange { start, end: at - 1 });
                    shards.insert(next + 1, HashRange { start: at, end });
                    next += 2;
                }
                Step::Merge { left, right } => {
                    let (l, r) = (shards.remove(&left).unwrap(), shards.remove(&right).unwrap());
                    assert_eq!(l.end + 1, r.start);
                    let (start, end) = (l.start, r.end);
                    shards.insert(next, HashRange { start, end });
                    next += 1;
                }
            }
        }
        let mut open: Vec<_> = shards.into_iter().collect();
        open.sort_by_key(|(_, range)| range.start);
        open
    }

    proptest! {
        #[test]
        fn plan_reaches_any_count_from_any_other(from in 1_u32..40, to in 1_u32..40, then in 1_u32..40) {
            let first = opened(from);
            let steps = plan_uniform(&first, from, to);
            let second = apply(&first, from, &steps);
            let ranges: Vec<_> = second.iter().map(|(_, range)| *range).collect();
            prop_assert_eq!(ranges, hash::uniform(to));

            let next = second.iter().map(|(number, _)| number + 1).max().unwrap_or(0).max(from);
            let steps = plan_uniform(&second, next, then);
            let ranges: Vec<_> =
                apply(&second, next, &steps).iter().map(|(_, range)| *range).collect();
            prop_assert_eq!(ranges, hash::uniform(then));
        }
    }

    #[test]
    fn doubling_splits_each_shard_once() {
        let steps = plan_uniform(&opened(2), 2, 4);
        let quarter = 1_u128 << 126;
        assert_eq!(
            steps,
            [Step::Split { shard: 0, at: quarter }, Step::Split { shard: 1, at: 3 * quarter },]
        );
    }

    #[test]
    fn halving_merges_neighbours() {
        let steps = plan_uniform(&opened(4), 4, 2);
        assert_eq!(steps, [Step::Merge { left: 0, right: 1 }, Step::Merge { left: 2, right: 3 }]);
    }

    #[test]
    fn same_count_changes_nothing() {
        assert_eq!(plan_uniform(&opened(3), 3, 3), []);
    }
}
