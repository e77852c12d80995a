//! Tests of the stream of rows: marks, positions, starting over, open shards without a reader.

use super::*;
use crate::lease::update;
use crate::sequence::{Position, SequenceNumber};
use crate::shard::HashRange;
use proptest::prelude::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";

fn stream(created: i64) -> StreamId {
    StreamId::new(ARN, created)
}

fn other() -> StreamId {
    StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/orders-staging", 9)
}

fn number(n: u32) -> SequenceNumber {
    SequenceNumber::parse(&n.to_string()).unwrap()
}

fn shard(id: u32, parents: &[u32], starting: u32, ending: Option<u32>) -> Shard {
    let name = |n: u32| ShardId::from(n.to_string().as_str());
    Shard {
        id: name(id),
        parent: parents.first().map(|p| name(*p)),
        adjacent_parent: parents.get(1).map(|p| name(*p)),
        range: HashRange { start: 0, end: 9 },
        starting: number(starting),
        ending: ending.map(number),
    }
}

fn lease(id: u32, checkpoint: &str, mark: Option<StreamId>) -> Lease {
    let at = Position::new(Sequence::parse(checkpoint).unwrap());
    let lease =
        Lease::new(id.to_string().as_str().into(), at, BTreeSet::new(), HashRange { start: 0, end: 9 });
    Lease { stream: mark, ..lease }
}

fn owned(lease: Lease, owner: &str) -> Lease {
    Lease { owner: Some(owner.into()), ..lease }
}

#[test]
fn marks_distinguish_this_other_and_earlier_streams() {
    let of = |leases: &[Lease], current: Option<&StreamId>| marks(leases, current, "orders");
    let now = stream(5);
    assert_eq!(of(&[], Some(&now)), Ok(Marks::Same));
    assert_eq!(of(&[lease(0, "7", None)], Some(&now)), Ok(Marks::None));
    assert_eq!(of(&[lease(0, "7", None), lease(1, "7", Some(stream(5)))], Some(&now)), Ok(Marks::Same));
    let both = [lease(0, "7", Some(stream(5))), lease(1, "7", Some(stream(4)))];
    assert_eq!(of(&both, Some(&now)), Ok(Marks::CreatedAgain), "half of the rows were reset");
    assert_eq!(of(&[lease(0, "7", Some(stream(6)))], Some(&now)), Ok(Marks::Later(stream(6))));
    let foreign = of(&[lease(0, "7", Some(stream(5))), lease(1, "7", Some(other()))], Some(&now));
    assert!(matches!(foreign, Err(Foreign::Marked { lease, .. }) if lease == "1".into()));
}

#[test]
fn name_reveals_another_stream_without_identity() {
    assert_eq!(marks(&[lease(0, "7", Some(stream(5)))], None, "orders"), Ok(Marks::Same));
    let foreign = marks(&[lease(0, "7", Some(other()))], None, "orders");
    assert!(matches!(foreign, Err(Foreign::Marked { .. })));
}

#[test]
fn unmarked_checkpoints_outside_all_shards_are_foreign() {
    let listed = [shard(0, &[], 100, Some(200)), shard(1, &[0], 201, None)];
    let of = |leases: &[Lease]| positions(leases, &listed).judge("orders");
    assert_eq!(of(&[]), Ok(BTreeSet::new()));
    assert_eq!(of(&[lease(0, "SHARD_END", None), lease(1, "LATEST", None)]), Ok(BTreeSet::new()));
    assert_eq!(of(&[lease(0, "150", None), lease(1, "99999", None)]), Ok(BTreeSet::new()));
    for foreign in [
        vec![lease(0, "99", None)],
        vec![lease(0, "201", None), lease(1, "TRIM_HORIZON", None)],
        vec![lease(7, "150", None)],
    ] {
        assert!(matches!(of(&foreign), Err(Foreign::Positions { .. })), "{foreign:?}");
    }
    let some = of(&[lease(0, "150", None), lease(1, "7", None), lease(8, "9", None)]).unwrap();
    assert_eq!(some.into_iter().map(|id| id.to_string()).collect::<Vec<_>>(), ["1", "8"], "left alone");
}

#[test]
fn refused_checkpoints_are_foreign() {
    let listed = [shard(0, &[], 100, None), shard(1, &[], 100, None)];
    let mut found = positions(&[lease(0, "150", None), lease(1, "160", None)], &listed);
    assert_eq!(found.fit.len(), 2);
    found.answered(&"0".into(), false);
    assert!(matches!(found.clone().judge("orders"), Err(Foreign::Positions { .. })), "1 was not asked for");
    let mut mixed = found.clone();
    mixed.answered(&"1".into(), true);
    assert!(mixed.is_mixed());
    assert_eq!(mixed.judge("orders"), Ok(BTreeSet::from(["0".into()])));
    found.answered(&"1".into(), false);
    assert!(matches!(found.judge("orders"), Err(Foreign::Positions { .. })));
}

#[test]
fn expired_checkpoints_are_doubtful_only_without_others() {
    let listed = [shard(2, &[], 100, None), shard(5, &[], 300, None)];
    let gone = lease(3, "250", None);
    let of = |leases: &[Lease]| positions(leases, &listed).judge("orders");
    assert_eq!(of(&[lease(2, "150", None), gone.clone()]), Ok(BTreeSet::new()));
    let younger = lease(7, "250", None);
    assert_eq!(of(&[lease(2, "150", None), younger]), Ok(BTreeSet::from(["7".into()])), "it was never there");
    assert!(matches!(of(&[gone]), Err(Foreign::Positions { .. })));
}

fn ids<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Vec<&'a str> {
    leases.into_iter().map(|lease| lease.shard().as_str()).collect()
}

#[test]
fn recreated_stream_starts_every_shard_at_its_oldest_record() {
    let now = stream(5);
    let old = || Some(stream(4));
    // Shard 0 was split into 2 and 3 before the first listing; 1 is new.
    let listed = [
        shard(0, &[], 1000, Some(1100)),
        shard(1, &[], 1001, None),
        shard(2, &[0], 1101, None),
        shard(3, &[0], 1102, None),
    ];
    let leases = [
        lease(0, "SHARD_END", old()),
        lease(2, "50", old()),
        lease(3, "1200", old()),
        lease(9, "60", old()),
        lease(8, "60", None),
        lease(7, "SHARD_END", None),
        lease(6, "1150", None),
        lease(5, "TRIM_HORIZON", None),
    ];
    let plan = start_over(&leases, &listed, &now, &BTreeSet::new());
    let steps: Vec<String> = plan.steps.iter().map(described).collect();
    assert_eq!(steps, ["reset 0", "create 1", "reset 2"], "ancestors first");
    assert_eq!(
        ids(plan.remark.iter().map(|(lease, _)| lease)),
        ["0", "2", "3"],
        "the checkpoint of 3 is of the present stream"
    );
    assert_eq!(
        ids(&plan.remove),
        ["9", "8", "7"],
        "Java's rows too, unless they can be of the present stream"
    );
    assert_eq!(ids(plan.mark.iter().map(|(lease, _)| *lease)), ["8", "7"]);
    assert!(plan.remove.iter().all(|lease| lease.stream == old()));
    assert_eq!(to_ask(&leases, &listed, &now).len(), 1);
    let refused = BTreeSet::from(["3".into()]);
    let plan = start_over(&leases, &listed, &now, &refused);
    assert!(
        plan.steps.iter().any(|step| described(step) == "reset 3"),
        "a number of the earlier stream after all"
    );
    assert!(
        start_over(&leases, &[], &now, &BTreeSet::new()).is_empty(),
        "a stream without shards is not believed"
    );
}

#[test]
fn pause_outlives_the_rows_of_an_earlier_stream() {
    let (on, off) = (Pause::new(true, 7, "ann"), Pause::new(false, 6, "ann"));
    let mut leases = [lease(8, "60", Some(stream(4))), lease(9, "60", Some(stream(4)))];
    (leases[0].pause, leases[1].pause) = (Some(on.clone()), Some(off));
    let listed = [shard(0, &[], 1000, None)];
    let now = stream(5);
    let plan = start_over(&leases, &listed, &now, &BTreeSet::new());
    assert_eq!(plan.remove.len(), 2);
    let [Step::Create(new)] = &plan.steps[..] else { panic!("{:?}", plan.steps) };
    assert_eq!(new.pause, Some(on));
}

fn described(step: &Step<'_>) -> String {
    match step {
        Step::Create(lease) => format!("create {}", lease.key),
        Step::Reset(lease, _) => format!("reset {}", lease.key),
    }
}

#[test]
fn shard_that_was_read_and_cleaned_away_is_not_created_again() {
    let now = stream(5);
    let listed = [
        shard(0, &[], 1000, Some(1100)),
        shard(1, &[0], 1101, Some(1200)),
        shard(2, &[1], 1201, None),
        shard(3, &[], 1000, None),
    ];
    let created = |descendant: &str, mark| {
        let leases = [lease(2, descendant, mark), lease(3, "50", Some(stream(4)))];
        let plan = start_over(&leases, &listed, &now, &BTreeSet::new());
        plan.steps.iter().map(described).filter(|step| step.starts_with("create")).collect::<Vec<_>>()
    };
    assert_eq!(created("1201", Some(now.clone())), [""; 0]);
    assert_eq!(created("TRIM_HORIZON", Some(now.clone())), ["create 0", "create 1"], "not begun");
    assert_eq!(created("1201", Some(stream(4))), ["create 0", "create 1"], "of the earlier stream");
}

#[test]
fn row_that_was_read_beyond_the_change_of_streams_gets_the_parents_of_its_shard() {
    let now = stream(5);
    let listed = [shard(1, &[], 1000, None), shard(3, &[], 1000, None)];
    let mut row = lease(3, "1200", Some(stream(4)));
    row.parents = BTreeSet::from(["1".into()]);
    let converted = done(&[row, lease(1, "40", Some(stream(4)))], &listed, &now, usize::MAX);
    let row = converted.iter().find(|row| row.shard().as_str() == "3").unwrap();
    assert_eq!(row.parents, BTreeSet::new(), "shard 1 is open: it would be waited for");
    assert_eq!(row.checkpoint.to_string(), "1200");
    assert_eq!(row.stream, Some(now));
}

#[test]
fn owned_row_at_the_oldest_record_is_reset() {
    let listed = [shard(0, &[], 1000, None)];
    let free = lease(0, "TRIM_HORIZON", Some(stream(4)));
    for (row, resets) in [(owned(free.clone(), "w"), 1), (free, 0)] {
        let leases = [row];
        let plan = start_over(&leases, &listed, &stream(5), &BTreeSet::new());
        assert_eq!((plan.steps.len(), plan.remark.len()), (resets, 1), "{leases:?}");
    }
}

#[test]
fn plan_is_empty_without_rows_of_an_earlier_stream() {
    let listed = [shard(0, &[], 1000, None), shard(1, &[], 1000, None)];
    let leases = [lease(0, "7", None), lease(1, "8", Some(stream(5)))];
    assert!(
        start_over(&leases, &listed, &stream(5), &BTreeSet::new()).is_empty(),
        "a live worker may hold it"
    );
    let half = [lease(0, "7", None), lease(1, "8", Some(stream(4)))];
    assert_eq!(
        start_over(&half, &listed, &stream(5), &BTreeSet::new()).steps.len(),
        2,
        "a table that is known to be of this name"
    );
}

#[test]
fn impossible_rows_are_found() {
    let listed = [
        shard(0, &[], 1, Some(9)),
        shard(1, &[], 1, None),
        shard(2, &[], 5, None),
        shard(3, &[], 5, None),
        shard(4, &[], 5, None),
    ];
    let leases = [
        lease(0, "SHARD_END", None),
        lease(1, "SHARD_END", None),
        lease(2, "5", None),
        lease(3, "4", None),
        lease(4, "LATEST", None),
        lease(9, "4", None),
    ];
    let found = impossible(&leases, &listed);
    assert_eq!(ids(found.iter().map(|(lease, _)| *lease)), ["1", "3"]);
}

#[test]
fn open_shard_without_live_readers_is_unread() {
    let live = BTreeSet::from(["a".into()]);
    let listed = [shard(0, &[], 1, Some(9)), shard(1, &[0], 10, Some(19)), shard(2, &[1], 20, None)];
    let unread = |leases: &[Lease]| unread(leases, &listed, &live).len();
    assert_eq!(unread(&[]), 1);
    assert_eq!(unread(&[owned(lease(2, "5", None), "a")]), 0);
    assert_eq!(unread(&[owned(lease(2, "5", None), "dead")]), 1);
    assert_eq!(unread(&[lease(2, "5", None)]), 1, "nobody's");
    assert_eq!(unread(&[owned(lease(2, "SHARD_END", None), "a")]), 1, "finished");
    assert_eq!(unread(&[owned(lease(0, "5", None), "a")]), 0, "its row comes when its ancestors end");
    assert_eq!(unread(&[owned(lease(0, "SHARD_END", None), "a")]), 1, "they have ended, and made none");
    let waits = |parent: Lease| {
        let mut child = owned(lease(2, "TRIM_HORIZON", None), "a");
        child.parents = ["1".into()].into();
        unread(&[parent, child])
    };
    assert_eq!(waits(owned(lease(1, "5", None), "a")), 0, "it waits for its parent");
    assert_eq!(waits(owned(lease(1, "5", None), "dead")), 1, "which nobody reads");
    assert_eq!(waits(lease(1, "SHARD_END", None)), 0);
}

#[test]
fn missing_row_of_finished_parents_child_is_planned() {
    let listed = [
        shard(0, &[], 1, Some(9)),
        shard(1, &[], 1, Some(9)),
        shard(2, &[0, 1], 10, Some(19)),
        shard(3, &[2], 20, None),
    ];
    let finished = |id| lease(id, "SHARD_END", None);
    let found = |leases: &[Lease]| ids(&orphans(leases, &listed)).join(",");
    assert_eq!(found(&[finished(0), finished(1)]), "2");
    assert_eq!(found(&[finished(0), lease(1, "5", None)]), "", "its other parent will make it");
    assert_eq!(found(&[finished(0)]), "", "its other parent is unknown");
    assert_eq!(found(&[finished(0), finished(1), lease(3, "25", None)]), "", "it was finished before");
    assert_eq!(found(&[finished(2)]), "3");
    assert_eq!(found(&[]), "");
}

#[test]
fn cyclic_or_deep_lineage_terminates() {
    let live = BTreeSet::from(["a".into()]);
    let mut listed: Vec<Shard> = (0..20_000).map(|n| shard(n, &[n.saturating_sub(1)], 1, Some(2))).collect();
    listed.push(shard(20_000, &[19_999], 1, None));
    assert_eq!(unread(&[owned(lease(0, "5", None), "a")], &listed, &live).len(), 0);
    let circle = [shard(0, &[1], 1, None), shard(1, &[0], 1, None)];
    assert_eq!(unread(&[], &circle, &live).len(), 2);
}

#[test]
fn reset_applies_only_to_an_unchanged_row() {
    let before = owned(lease(0, "50", Some(stream(4))), "a");
    let shard = shard(0, &[7], 1000, None);
    let parents = shard.parents().cloned().collect();
    let reset = update::reset(&before, parents, shard.range, Some(&stream(5)));
    let mut after = before.clone();
    reset.apply(&mut after);
    assert_eq!(after.checkpoint, Position::new(Sequence::TrimHorizon));
    assert_eq!((after.owner.clone(), after.stream.clone(), after.counter), (None, Some(stream(5)), 1));
    assert_eq!(after.parents, BTreeSet::from(["7".into()]));
    assert!(
        reset
            .changes
            .iter()
            .any(|change| matches!(change, update::Change::SetEarlier(was) if was.contains("50")))
    );
    assert!(!reset.holds(&Lease { counter: 1, ..before.clone() }), "its owner has renewed it");
    assert!(!reset.holds(&after), "it was done");
    // The leader has assigned it since, and another attempt follows.
    let again = update::reset(&owned(after, "java"), BTreeSet::new(), shard.range, Some(&stream(5)));
    let notes = |change: &update::Change| matches!(change, update::Change::SetEarlier(_));
    assert!(!again.changes.iter().any(notes), "the earlier checkpoint is kept");
}

proptest! {
    /// However far a worker came, the one that continues produces the same rows.
    #[test]
    fn starting_over_is_idempotent_after_any_interruption(
        rows in proptest::collection::vec((0u32..8, 0u32..3, 0u32..2000), 1..8),
        stop in 0usize..12,
    ) {
        let now = stream(5);
        let listed: Vec<Shard> = (0..5)
            .map(|n| shard(n, &if n > 2 { vec![n - 3] } else { vec![] }, 1000 + n, (n < 2).then_some(1500)))
            .collect();
        let mut leases: Vec<Lease> = Vec::new();
        for (id, mark, at) in rows {
            let mark = [None, Some(stream(4)), Some(stream(5))][mark as usize].clone();
            let at = if at < 300 { "SHARD_END".to_owned() } else { at.to_string() };
            if leases.iter().all(|lease| lease.shard().as_str() != id.to_string()) {
                leases.push(lease(id, &at, mark));
            }
        }
        let whole = done(&leases, &listed, &now, usize::MAX);
        let part = done(&leases, &listed, &now, stop);
        // The counter is the number of writes of a row.
        let rows = |leases: Vec<Lease>| {
            leases.into_iter().map(|lease| Lease { counter: 0, ..lease }).collect::<Vec<_>>()
        };
        prop_assert_eq!(rows(done(&part, &listed, &now, usize::MAX)), rows(whole.clone()));
        prop_assert!(start_over(&whole, &listed, &now, &BTreeSet::new()).is_empty());
    }
}

/// Executes this many steps of the plan, in order.
fn done(leases: &[Lease], listed: &[Shard], now: &StreamId, steps: usize) -> Vec<Lease> {
    let plan = start_over(leases, listed, now, &BTreeSet::new());
    let mut rows: BTreeMap<ShardId, Lease> =
        leases.iter().map(|lease| (lease.shard().clone(), lease.clone())).collect();
    let mut left = steps;
    let mut step = || {
        let go = left > 0;
        left = left.saturating_sub(1);
        go
    };
    for (lease, earlier) in plan.mark.iter().filter(|_| step()) {
        update::mark(lease, earlier).apply(rows.get_mut(lease.shard()).unwrap());
    }
    for next in plan.steps.iter().filter(|_| step()) {
        let (shard, update) = match next {
            Step::Create(lease) => {
                rows.insert(lease.shard().clone(), lease.clone());
                continue;
            }
            Step::Reset(lease, shard) => {
                let parents = shard.parents().cloned().collect();
                (lease.shard(), update::reset(lease, parents, shard.range, None))
            }
        };
        let row = rows.get_mut(shard).unwrap();
        assert!(update.holds(row));
        update.apply(row);
    }
    for (lease, shard) in plan.remark.iter().filter(|_| step()) {
        let row = rows.get_mut(lease.shard()).unwrap();
        if belongs(row, shard) {
            let parents = shard.parents().cloned().collect();
            update::remark(lease, &parents, shard.range, now).apply(row);
            assert_eq!((&row.parents, row.range), (&parents, Some(shard.range)));
        }
    }
    for lease in plan.remove.iter().filter(|_| step()) {
        rows.remove(lease.shard());
    }
    rows.into_values().collect()
}
