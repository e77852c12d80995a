//! Tests of the history: each fact by itself, and all of them against a naive model that keeps every read.

use proptest::prelude::*;

use super::*;
use crate::lease::liveness::{DEAD_AFTER, dead_workers};
use crate::sequence::{Position, Sequence, SequenceNumber};
use crate::shard::HashRange;

const SECOND: Duration = Duration::from_secs(1);

fn lease(key: &str, owner: Option<&str>, counter: i64) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let mut lease = Lease::new(key.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    (lease.owner, lease.counter) = (owner.map(Into::into), counter);
    lease
}

fn number(value: u64) -> Position {
    Position::record(SequenceNumber::parse(&value.to_string()).unwrap(), 0)
}

#[test]
fn counter_is_unchanged_since_the_read_that_first_showed_it() {
    let (start, key) = (Instant::now(), "s".into());
    let mut history = History::default();
    assert_eq!(history.unchanged_for(&key, start), None);
    for second in 0..=3 {
        history.note_scan(&[lease("s", Some("a"), 1)], start + SECOND * second);
    }
    assert_eq!(history.unchanged_for(&key, start + SECOND * 4), Some(SECOND * 4));
    history.note_row(&lease("s", Some("a"), 2), start + SECOND * 5);
    assert_eq!(history.unchanged_for(&key, start + SECOND * 7), Some(SECOND * 2));
    history.note_scan(&[], start + SECOND * 8);
    assert_eq!(history.unchanged_for(&key, start + SECOND * 8), None, "the row was deleted");
}

#[test]
fn checkpoint_of_a_deleted_row_is_kept_until_the_row_is_seen_again() {
    let now = Instant::now();
    let mut history = History::default();
    let read = Lease { checkpoint: number(7), ..lease("s", Some("a"), 1) };
    let finished = Lease { checkpoint: Position::shard_end(), ..lease("t", None, 1) };
    history.note_scan(&[lease("s", Some("a"), 0), finished.clone()], now);
    history.note_scan(&[read.clone(), finished], now);
    assert_eq!(history.deleted(&"s".into()), None);
    history.note_scan(&[], now);
    assert_eq!(history.deleted(&"s".into()), Some(&Known::of(&read)));
    assert_eq!(history.deleted_for(&"s".into(), now + SECOND), Some(SECOND));
    assert_eq!(history.deleted(&"t".into()), None, "finished leases are deleted as a rule");
    history.note_row(&lease("s", None, 0), now);
    assert_eq!(history.deleted(&"s".into()), None);
}

#[test]
fn number_of_kept_checkpoints_is_bounded() {
    let mut history = History::default();
    let rows: Vec<Lease> = (0..=DELETED).map(|key| lease(&key.to_string(), None, 0)).collect();
    history.note_scan(&rows, Instant::now());
    history.note_scan(&[], Instant::now());
    assert_eq!(history.deleted.len(), DELETED);
}

#[test]
fn expiry_is_planned_only_for_leases_seen_unchanged() {
    let (start, limit) = (Instant::now(), SECOND * 10);
    let mut history = History::default();
    history.note_scan(&[lease("s", Some("a"), 1)], start);
    assert_eq!(history.expires_at(&"s".into(), limit, start), None, "seen once");
    history.note_scan(&[lease("s", Some("a"), 1)], start + SECOND);
    let expiry = Some(start + limit + Duration::from_millis(1));
    assert_eq!(history.expires_at(&"s".into(), limit, start + SECOND), expiry);
    assert_eq!(history.expires_at(&"s".into(), limit, start + limit), expiry);
    assert_eq!(history.expires_at(&"s".into(), limit, start + limit * 2), None, "expired already");
}

#[test]
fn handoff_time_restarts_with_any_progress() {
    type Change = fn(&mut Lease);
    let start = Instant::now();
    let mut open = lease("s", Some("next"), 1);
    open.checkpoint_owner = Some("present".into());
    let changes: [(Change, Option<Duration>); 6] = [
        (|lease| lease.counter += 1, Some(SECOND * 100)),
        (|lease| lease.owner = Some("another".into()), Some(Duration::ZERO)),
        (|lease| lease.checkpoint_owner = Some("another".into()), Some(Duration::ZERO)),
        (|lease| lease.checkpoint = number(7), Some(Duration::ZERO)),
        (|lease| lease.checkpoint_owner = None, None),
        (|lease| lease.checkpoint = Position::shard_end(), None),
    ];
    for (index, (change, expected)) in changes.into_iter().enumerate() {
        let (mut history, mut lease) = (History::default(), open.clone());
        history.note_scan(std::slice::from_ref(&lease), start);
        change(&mut lease);
        let later = start + SECOND * 100;
        if expected != Some(SECOND * 100) {
            assert_eq!(history.handoff_open_for(&lease, later), None, "change {index}, not noted yet");
        }
        history.note_row(&lease, later);
        assert_eq!(history.handoff_open_for(&lease, later), expected, "change {index}");
        assert_eq!(history.is_designated(&"next".into()), expected.is_some() && index != 1);
    }
}

#[test]
fn handoff_of_an_unlisted_lease_is_timed_anew() {
    let start = Instant::now();
    let mut open = lease("s", Some("next"), 1);
    open.checkpoint_owner = Some("present".into());
    let mut history = Arc::new(History::default());
    Arc::make_mut(&mut history).note_row(&open, start);
    history.note_listed(&["s".into()]);
    assert_eq!(history.handoff_open_for(&open, start + SECOND), Some(SECOND));
    history.note_listed(&[]);
    assert_eq!(history.handoff_open_for(&open, start + SECOND), None);
    assert!(!history.is_designated(&"next".into()));
    Arc::make_mut(&mut history).note_row(&open, start + SECOND * 2);
    assert_eq!(history.handoff_open_for(&open, start + SECOND * 3), Some(SECOND));
    assert_eq!(history.unchanged_for(&"s".into(), start + SECOND * 3), Some(SECOND * 3));
}

#[test]
fn new_owner_counts_as_unrenewed_until_its_first_write() {
    let (start, key) = (Instant::now(), LeaseKey::from("s"));
    let mut history = History::default();
    let mut note = |owner: &str, reading: Option<&str>, counter, second| {
        let mut row = lease("s", Some(owner), counter);
        row.checkpoint_owner = reading.map(Into::into);
        history.note_row(&row, start + SECOND * second);
        history.unrenewed_since(&key).map(|since| (since - start).as_secs())
    };
    assert_eq!(note("a", None, 1, 0), None, "its past is unknown");
    assert_eq!(note("b", None, 2, 1), Some(1));
    assert_eq!(note("b", None, 2, 2), Some(1));
    assert_eq!(note("b", None, 3, 3), None, "renewed");
    assert_eq!(note("c", Some("b"), 3, 4), Some(4));
    assert_eq!(note("c", Some("b"), 4, 5), None, "the present owner renews it");
    assert_eq!(note("c", None, 5, 6), Some(6), "handed over");
    assert_eq!(note("c", None, 6, 7), None);
}

#[test]
fn finished_time_restarts_after_a_reset() {
    let (start, key) = (Instant::now(), LeaseKey::from("s"));
    let (open, mut ended) = (lease("s", None, 1), lease("s", None, 2));
    ended.checkpoint = Position::shard_end();
    let mut history = History::default();
    history.note_row(&ended, start);
    history.note_row(&ended, start + SECOND * 5);
    assert_eq!(history.finished_for(&key, start + SECOND * 6), SECOND * 6);
    history.note_row(&open, start + SECOND * 7);
    assert_eq!(history.finished_for(&key, start + SECOND * 8), Duration::ZERO);
    history.note_row(&ended, start + SECOND * 9);
    assert_eq!(history.finished_for(&key, start + SECOND * 10), SECOND);
}

/// Every read of one row, the newest last. The answers are computed from all of them.
#[derive(Default)]
struct Naive(BTreeMap<LeaseKey, Vec<(Instant, Lease)>>);

impl Naive {
    fn reads(&self, key: &LeaseKey) -> &[(Instant, Lease)] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The first of the last reads for which all this holds.
    fn since(&self, key: &LeaseKey, holds: impl Fn(&Lease, &Lease) -> bool) -> Option<Instant> {
        let reads = self.reads(key);
        let (_, last) = reads.last()?;
        reads.iter().rev().take_while(|(_, read)| holds(read, last)).last().map(|(at, _)| *at)
    }

    /// The last change of the owner or the counter: whether it was a renewal, and when.
    fn change(&self, key: &LeaseKey) -> Option<(bool, Instant)> {
        let reads = self.reads(key);
        let (at, read, before) = reads.windows(2).rev().find_map(|two| {
            let [(_, before), (at, read)] = two else { return None };
            let is_change = before.owner != read.owner || before.counter != read.counter;
            is_change.then_some((*at, read, before))
        })?;
        let is_new = before.owner != read.owner;
        let handed_over = before.checkpoint_owner.is_some() && read.checkpoint_owner.is_none();
        Some((!is_new && !handed_over, at))
    }
}

#[derive(Debug, Clone)]
enum Read {
    Scan(Vec<Option<Lease>>),
    Row(Box<Lease>),
}

fn any_lease(key: &'static str) -> impl Strategy<Value = Lease> {
    let owner = || prop::sample::select(vec![None, Some("a"), Some("b")]);
    (owner(), owner(), 0..3i64, 0..3u64).prop_map(move |(owner, reading, counter, position)| {
        let mut lease = lease(key, owner, counter);
        lease.checkpoint_owner = reading.map(Into::into);
        lease.checkpoint = if position == 2 { Position::shard_end() } else { number(position + 1) };
        lease
    })
}

fn any_read() -> impl Strategy<Value = Read> {
    let row = || prop::option::weighted(0.8, any_lease("s"));
    let other = || prop::option::weighted(0.8, any_lease("t"));
    prop_oneof![
        3 => (row(), other()).prop_map(|(row, other)| Read::Scan(vec![row, other])),
        1 => any_lease("s").prop_map(|row| Read::Row(Box::new(row))),
    ]
}

proptest! {
    #[test]
    fn history_equals_a_model_that_keeps_every_read(
        reads in prop::collection::vec((any_read(), 0..5u32), 1..30),
        limit in 0..20u32,
    ) {
        let (mut now, limit) = (Instant::now(), SECOND * limit);
        let (mut history, mut naive, mut scanned) = (History::default(), Naive::default(), None);
        for (read, pause) in reads {
            now += SECOND * pause;
            match read {
                Read::Scan(rows) => {
                    let rows: Vec<Lease> = rows.into_iter().flatten().collect();
                    history.note_scan(&rows, now);
                    naive.0.retain(|key, _| rows.iter().any(|row| row.key == *key));
                    for row in rows {
                        naive.0.entry(row.key.clone()).or_default().push((now, row));
                    }
                    scanned = Some(now);
                }
                Read::Row(row) => {
                    history.note_row(&row, now);
                    naive.0.entry(row.key.clone()).or_default().push((now, *row));
                }
            }
            for key in ["s", "t"].map(LeaseKey::from) {
                let age = |since: Instant| now - since;
                let unchanged = naive.since(&key, |read, last| read.counter == last.counter);
                prop_assert_eq!(history.unchanged_for(&key, now), unchanged.map(age));
                let due = unchanged.filter(|since| scanned.is_some_and(|last| *since < last));
                let expiry = due.filter(|since| age(*since) <= limit).map(|since| since + limit + AFTER);
                prop_assert_eq!(history.expires_at(&key, limit, now), expiry);
                let finished = naive.since(&key, |read, _| read.is_complete());
                prop_assert_eq!(history.finished_for(&key, now), finished.map_or(Duration::ZERO, age));
                let change = |renewal| naive.change(&key).filter(|(is, _)| *is == renewal).map(|(_, at)| at);
                prop_assert_eq!(history.unrenewed_since(&key), change(false));
                prop_assert_eq!(history.renewed_at(&key), change(true));
                if let Some((_, last)) = naive.reads(&key).last() {
                    let same = |read: &Lease, last: &Lease| {
                        (&read.owner, &read.checkpoint_owner, &read.checkpoint)
                            == (&last.owner, &last.checkpoint_owner, &last.checkpoint)
                    };
                    let open = naive.since(&key, same).filter(|_| has_open_handoff(last));
                    prop_assert_eq!(history.handoff_open_for(last, now), open.map(age));
                }
            }
            let rows: Vec<&Lease> = naive.0.values().filter_map(|reads| reads.last()).map(|(_, row)| row).collect();
            for worker in ["a", "b"].map(WorkerId::from) {
                let designated = rows.iter().any(|row| has_open_handoff(row) && row.owner.as_ref() == Some(&worker));
                prop_assert_eq!(history.is_designated(&worker), designated);
                let is_live = rows.iter().any(|row| {
                    let fresh = history.unchanged_for(&row.key, now).is_some_and(|still| still <= limit);
                    let named = row.owner.as_ref() == Some(&worker) || row.checkpoint_owner.as_ref() == Some(&worker);
                    named && (row.checkpoint_owner.is_some() || fresh)
                });
                let owns = rows.iter().any(|row| row.owner.as_ref() == Some(&worker));
                let dead = dead_workers(&history, limit / DEAD_AFTER, now);
                prop_assert_eq!(dead.contains(&worker), owns && !is_live);
            }
        }
    }
}
