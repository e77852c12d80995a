//! Tests of the plans of `seek` and `release`.

use proptest::prelude::*;

use super::*;
use crate::lease::orders::{Park, Pause};
use crate::sequence::SequenceNumber;
use crate::shard::HashRange;

fn number(value: usize) -> SequenceNumber {
    SequenceNumber::parse(&value.to_string()).unwrap()
}

fn at(value: usize) -> Position {
    Position::record(number(value), 0)
}

fn oldest() -> Position {
    Position::new(Sequence::TrimHorizon)
}

fn id(n: usize) -> ShardId {
    ShardId::from(format!("shard-{n:02}").as_str())
}

/// A shard whose first number is a hundred times its own.
fn shard(n: usize, parents: &[usize], is_closed: bool) -> Shard {
    Shard {
        id: id(n),
        parent: parents.first().map(|parent| id(*parent)),
        adjacent_parent: parents.get(1).map(|parent| id(*parent)),
        range: HashRange { start: 0, end: 9 },
        starting: number(100 * n),
        ending: is_closed.then(|| number(100 * n + 99)),
    }
}

fn row(shard: &Shard, checkpoint: Position) -> Lease {
    Lease { checkpoint, counter: 7, ..sync::new_lease(shard, Sequence::TrimHorizon) }
}

/// 0 was split into 1 and 2, and 2 into 3 and 4.
fn split() -> Vec<Shard> {
    vec![
        shard(0, &[], true),
        shard(1, &[0], false),
        shard(2, &[0], true),
        shard(3, &[2], false),
        shard(4, &[2], false),
    ]
}

struct Given {
    leases: Vec<Lease>,
    live: BTreeSet<WorkerId>,
    selected: Option<BTreeSet<ShardId>>,
    force: bool,
}

impl Given {
    fn new(leases: Vec<Lease>) -> Self {
        Self { leases, live: BTreeSet::new(), selected: None, force: false }
    }

    fn only(mut self, shards: &[usize]) -> Self {
        self.selected = Some(shards.iter().copied().map(id).collect());
        self
    }

    fn rows(&self) -> Rows<'_> {
        Rows { leases: &self.leases, live: &self.live, selected: self.selected.as_ref(), force: self.force }
    }

    fn seek(&self, listed: &[Shard], to: &To) -> Vec<(ShardId, Action)> {
        actions(&seek(&self.rows(), listed, to))
    }

    fn refusals(&self, listed: &[Shard], to: &To) -> Vec<Refusal> {
        let actions = self.seek(listed, to).into_iter();
        actions
            .filter_map(|(_, action)| if let Action::Refuse(why) = action { Some(why) } else { None })
            .collect()
    }
}

fn actions(steps: &[Step]) -> Vec<(ShardId, Action)> {
    steps.iter().map(|step| (step.key.shard().clone(), step.action.clone())).collect()
}

fn found(of: &[(usize, Option<usize>, bool)]) -> To {
    To::Found(
        of.iter()
            .map(|(n, before, follows)| (id(*n), Found { before: before.map(at), follows: *follows }))
            .collect(),
    )
}

#[test]
fn trim_horizon_reads_finished_shards_again_before_their_children() {
    let listed = split();
    let given = Given::new(vec![
        row(&listed[1], at(150)),
        row(&listed[2], Position::shard_end()),
        row(&listed[3], at(350)),
        row(&listed[4], oldest()),
    ]);
    let planned = given.seek(&listed, &To::TrimHorizon);
    assert_eq!(
        planned,
        [
            (id(0), Action::Create(Box::new(sync::new_lease(&listed[0], Sequence::TrimHorizon)))),
            (id(1), Action::Move(oldest())),
            (id(2), Action::Move(oldest())),
            (id(3), Action::Move(oldest())),
            (id(4), Action::Keep(Kept::AlreadyThere)),
        ]
    );
}

#[test]
fn latest_is_refused_for_a_parked_or_paused_lease() {
    let listed = split();
    let orders = [
        Lease { park: Some(Park::new(7, "ann")), ..row(&listed[3], at(350)) },
        Lease { pause: Some(Pause::new(true, 7, "ann")), ..row(&listed[3], Position::new(Sequence::Latest)) },
    ];
    for parked in orders {
        let given = Given::new(vec![row(&listed[2], Position::shard_end()), parked.clone()]).only(&[3]);
        assert_eq!(given.refusals(&listed, &To::Latest), [Refusal::Parked], "{parked:?}");
        assert_eq!(given.refusals(&listed, &found(&[(3, Some(370), true)])), []);
    }
    let resumed = Lease { pause: Some(Pause::new(false, 8, "ann")), ..row(&listed[3], at(350)) };
    let given = Given::new(vec![row(&listed[2], Position::shard_end()), resumed]).only(&[3]);
    assert_eq!(given.refusals(&listed, &To::Latest), []);
}

#[test]
fn latest_finishes_closed_shards_and_names_their_children() {
    let listed = split();
    let given = Given::new(vec![row(&listed[1], at(150)), row(&listed[2], at(220))]);
    let steps = seek(&given.rows(), &listed, &To::Latest);
    let created = |n: usize| {
        let new = sync::new_lease(&listed[n], Sequence::Latest);
        Action::Create(Box::new(new))
    };
    assert_eq!(
        actions(&steps),
        [
            (id(1), Action::Move(Position::new(Sequence::Latest))),
            (id(2), Action::Move(Position::shard_end())),
            (id(3), created(3)),
            (id(4), created(4)),
        ]
    );
    let closed = steps.iter().find(|step| *step.key.shard() == id(2)).unwrap();
    let mut after = given.leases[1].clone();
    closed.update(&after.clone()).unwrap().apply(&mut after);
    assert_eq!(after.children, BTreeSet::from([id(3), id(4)]));
}

#[test]
fn time_leaves_finished_shards_without_records_alone() {
    let listed = split();
    let given =
        Given::new(vec![row(&listed[1], at(150)), row(&listed[3], at(350)), row(&listed[4], at(450))]);
    let to = found(&[
        (0, Some(40), false),
        (1, Some(120), true),
        (2, Some(210), true),
        (3, None, true),
        (4, None, false),
    ]);
    let planned = given.seek(&listed, &to);
    let create = |n: usize, to| Action::Create(Box::new(Lease { counter: 0, ..row(&listed[n], to) }));
    assert_eq!(
        planned,
        [
            (id(1), Action::Move(at(120))),
            (id(2), create(2, at(210))),
            (id(3), Action::Move(oldest())),
            (id(4), Action::Move(oldest())),
        ]
    );
    // Without a row for the empty shard 2, its children would not wait for shard 0.
    let to =
        found(&[(0, Some(40), true), (1, None, true), (2, None, false), (3, None, true), (4, None, false)]);
    let planned = given.seek(&listed, &to);
    assert_eq!(planned[0], (id(0), create(0, at(40))));
    assert!(planned.contains(&(id(2), create(2, oldest()))), "{planned:?}");
}

#[test]
fn lease_of_a_live_owner_is_refused_unless_forced() {
    let listed = [shard(0, &[], false), shard(1, &[], false)];
    let mut leases = vec![row(&listed[0], at(10)), row(&listed[1], at(110))];
    leases[0].owner = Some("dead".into());
    leases[1].owner = Some("alive".into());
    let mut given = Given::new(leases);
    given.live = BTreeSet::from(["alive".into()]);
    assert_eq!(given.refusals(&listed, &To::TrimHorizon), [Refusal::Live("alive".into())]);
    assert_eq!(
        actions(&release(&given.rows())),
        [(id(0), Action::Release), (id(1), Action::Refuse(Refusal::Live("alive".into())))]
    );
    // A lease that was assigned and is not adopted yet belongs to a live worker, too.
    given.leases[0].owner = Some("alive".into());
    assert_eq!(given.refusals(&listed, &To::TrimHorizon).len(), 2);
    given.force = true;
    assert!(given.refusals(&listed, &To::TrimHorizon).is_empty());
    let step = &release(&given.rows())[1];
    let mut after = given.leases[1].clone();
    step.update(&after.clone()).unwrap().apply(&mut after);
    assert_eq!((after.owner, after.counter), (None, 8));
}

#[test]
fn lease_in_a_handoff_is_refused_while_an_owner_is_alive() {
    let listed = [shard(0, &[], false)];
    let mut leases = vec![row(&listed[0], at(10))];
    leases[0].owner = Some("next".into());
    leases[0].checkpoint_owner = Some("now".into());
    let mut given = Given::new(leases);
    for owner in ["now", "next"] {
        given.live = BTreeSet::from([owner.into()]);
        assert_eq!(given.refusals(&listed, &To::Latest), [Refusal::Live(owner.into())]);
    }
    // A fleet that stops during a handoff leaves it open.
    given.live = BTreeSet::from(["other".into()]);
    assert!(given.refusals(&listed, &To::Latest).is_empty());
    assert_eq!(actions(&release(&given.rows())), [(id(0), Action::Release)]);
    given.live = BTreeSet::from(["now".into()]);
    given.force = true;
    let step = &seek(&given.rows(), &listed, &To::Latest)[0];
    let before = given.leases[0].clone();
    let update = step.update(&before).unwrap();
    let mut after = before.clone();
    update.apply(&mut after);
    assert_eq!((&after.owner, &after.checkpoint_owner, after.counter), (&None, &None, 8));
    assert!(!update.holds(&Lease { checkpoint_owner: None, ..before.clone() }), "the handoff ended");
    assert!(!update.holds(&Lease { counter: 8, ..before }), "the owner renewed the lease");
}

#[test]
fn selected_shard_with_begun_descendants_is_refused() {
    let listed = split();
    let leases =
        || vec![row(&listed[0], Position::shard_end()), row(&listed[1], at(150)), row(&listed[3], at(350))];
    let refusals = |only: &[usize]| Given::new(leases()).only(only).refusals(&listed, &To::TrimHorizon);
    assert_eq!(refusals(&[0]), [Refusal::Descendant(id(1))]);
    // The finished shard 2 has no row: shard 3 would not wait for shard 0.
    assert_eq!(refusals(&[0, 1, 3]), [Refusal::Descendant(id(2))]);
    assert_eq!(refusals(&[0, 1, 2, 3]), []);
    assert_eq!(refusals(&[3]), [], "its parents stay finished");
    let waiting = vec![row(&listed[0], Position::shard_end()), row(&listed[1], oldest())];
    let only_first = Given::new(waiting).only(&[0]);
    assert_eq!(only_first.refusals(&listed[..2], &To::TrimHorizon), [], "its child has not begun");
}

#[test]
fn selected_shard_at_latest_is_refused_unless_it_is_read_now() {
    let listed = split();
    let leases = vec![row(&listed[0], at(10)), row(&listed[1], oldest()), row(&listed[2], oldest())];
    let refusals = |only: &[usize]| Given::new(leases.clone()).only(only).refusals(&listed, &To::Latest);
    assert_eq!(refusals(&[1]), [Refusal::Ancestor(id(0))]);
    assert_eq!(refusals(&[2]), [Refusal::Closed]);
    assert_eq!(refusals(&[9]), [Refusal::Unlisted]);
}

#[test]
fn rows_of_unlisted_shards_are_kept() {
    let listed = [shard(1, &[0], false)];
    let given = Given::new(vec![row(&shard(0, &[], true), Position::shard_end()), row(&listed[0], at(150))]);
    assert_eq!(
        given.seek(&listed, &To::TrimHorizon),
        [(id(1), Action::Move(oldest())), (id(0), Action::Keep(Kept::Unlisted))]
    );
}

fn apply(table: &mut BTreeMap<ShardId, Lease>, step: &Step) {
    match &step.action {
        Action::Create(lease) => {
            table.entry(lease.shard().clone()).or_insert_with(|| (**lease).clone());
        }
        Action::Move(_) | Action::Release => {
            let row = table.get_mut(step.key.shard()).unwrap();
            let update = step.update(&row.clone()).unwrap();
            assert!(update.holds(row));
            update.apply(row);
        }
        Action::Keep(_) => {}
        Action::Refuse(why) => panic!("{why}"),
        Action::Order(order) => panic!("{order:?}"),
    }
}

/// A stream after some splits and merges, from two shards.
fn stream(reshards: &[(bool, usize)]) -> Vec<Shard> {
    let (mut all, mut open) = (vec![shard(0, &[], false), shard(1, &[], false)], vec![0, 1]);
    for (is_split, which) in reshards {
        let first = open.remove(which % open.len());
        let mut parents = vec![first];
        if !is_split && !open.is_empty() {
            parents.push(open.remove(which % open.len()));
        }
        for parent in &parents {
            all[*parent].ending = Some(number(100 * parent + 99));
        }
        for _ in 0..if parents.len() == 1 { 2 } else { 1 } {
            open.push(all.len());
            all.push(shard(all.len(), &parents, false));
        }
    }
    all
}

/// The rows of an application that has read some of the shards.
fn application(listed: &[Shard], progress: &[u8]) -> BTreeMap<ShardId, Lease> {
    let (mut rows, mut finished) = (BTreeMap::new(), BTreeSet::new());
    for (n, shard) in listed.iter().enumerate() {
        let dice = progress[n % progress.len()];
        if shard.parents().all(|parent| finished.contains(parent)) {
            if shard.ending.is_some() && !dice.is_multiple_of(3) {
                finished.insert(shard.id.clone());
                if dice % 3 == 1 {
                    rows.insert(shard.id.clone(), row(shard, Position::shard_end()));
                }
            } else {
                rows.insert(shard.id.clone(), row(shard, at(100 * n + usize::from(dice % 90))));
            }
        } else if dice.is_multiple_of(2)
            && shard.parents().all(|parent| finished.contains(parent) || rows.contains_key(parent))
        {
            rows.insert(shard.id.clone(), row(shard, oldest()));
        }
    }
    rows
}

proptest! {
    #[test]
    fn seek_cut_at_any_point_is_completed_by_a_second_run(
        reshards in proptest::collection::vec((any::<bool>(), 0usize..8), 0..8),
        progress in proptest::collection::vec(any::<u8>(), 1..24),
        places in proptest::collection::vec((any::<bool>(), any::<bool>()), 24),
        target in 0usize..3,
    ) {
        let listed = stream(&reshards);
        let to = match target {
            0 => To::TrimHorizon,
            1 => To::Latest,
            _ => To::Found(listed.iter().enumerate().map(|(n, shard)| {
                let (has_before, follows) = places[n % places.len()];
                (shard.id.clone(), Found { before: has_before.then(|| at(100 * n + 50)), follows })
            }).collect()),
        };
        let before = application(&listed, &progress);
        let plan = |rows: &BTreeMap<ShardId, Lease>| {
            let given = Given::new(rows.values().cloned().collect());
            seek(&given.rows(), &listed, &to)
        };
        let steps = plan(&before);
        let mut whole = before.clone();
        steps.iter().for_each(|step| apply(&mut whole, step));
        let positions = |rows: &BTreeMap<ShardId, Lease>| {
            rows.iter().map(|(shard, lease)| (shard.clone(), lease.checkpoint.clone())).collect::<BTreeMap<_, _>>()
        };
        // No shard is read before an unfinished ancestor: it waits for a parent, which waits for the others.
        let leases: Vec<Lease> = whole.values().cloned().collect();
        let lineage = Lineage::new(&leases, &listed);
        let is_open = |id: &ShardId| whole.get(id).is_some_and(|row| !row.is_complete());
        for shard in listed.iter().filter(|shard| is_open(&shard.id)) {
            let has_open_ancestor = lineage.ancestors(&shard.id).into_iter().any(is_open);
            prop_assert!(!has_open_ancestor || shard.parents().any(is_open), "{} of {:?}", shard.id, positions(&whole));
        }
        // Every record from the position on is delivered: a shard with such records has a row, or an ancestor that
        // creates it.
        for (n, shard) in listed.iter().enumerate() {
            let wanted = match &to {
                To::TrimHorizon => true,
                To::Latest => shard.ending.is_none(),
                To::Found(found) => found[&shard.id].follows || shard.ending.is_none(),
            };
            prop_assert!(!wanted || is_open(&shard.id), "shard {n} is not read");
        }
        let written: Vec<&Step> = steps.iter().filter(|step| step.writes()).collect();
        for cut in 0..=written.len() {
            let mut rows = before.clone();
            written[..cut].iter().for_each(|step| apply(&mut rows, step));
            let is_new = |id: &ShardId| rows.get(id).map(|row| &row.checkpoint) == whole.get(id).map(|row| &row.checkpoint);
            let is_old = |id: &ShardId| rows.get(id) == before.get(id);
            for shard in &listed {
                prop_assert!(is_new(&shard.id) || is_old(&shard.id));
            }
            for step in &written[..cut] {
                prop_assert!(lineage.ancestors(step.key.shard()).into_iter().all(is_new), "after {cut}: {}", step.key);
            }
            let again = plan(&rows);
            again.iter().for_each(|step| apply(&mut rows, step));
            prop_assert_eq!(positions(&rows), positions(&whole), "cut after {}", cut);
            prop_assert!(plan(&rows).iter().all(|step| !step.writes()), "a third run has nothing to write");
        }
    }
}
