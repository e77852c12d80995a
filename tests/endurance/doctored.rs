//! Shows that each check can fail: one correct ledger, and variants with one violation each.
//!
//! The run, in seconds. Shard `p` is split, with the child `q`. Daemon a1 reads `p` and is killed at 3; b1
//! acquires it at 13.5, ends it at 14.7, reads `q` and is frozen at 16; c1 acquires `q` at 26.5, b1 wakes at
//! 30, c1 is stopped at 31, and b1 acquires `q` again at 32.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checks::*;
use crate::handover::{handovers, late, newcomers};
use crate::ledger::*;

/// One millisecond, the unit of the ledger's times below.
const MILLI: Micros = SECOND / 1000;

fn mark(number: u64) -> Mark {
    Mark::parse(&number.to_string(), 0)
}

fn row(owner: Option<&str>, counter: i64, checkpoint: Mark) -> Row {
    Row { owner: owner.map(Into::into), counter, checkpoint }
}

fn writes() -> Vec<Write> {
    vec![
        (1000, "p", row(None, 0, Mark::Horizon)),
        (1500, "p", row(Some("a"), 1, Mark::Horizon)),
        (2200, "p", row(Some("a"), 2, mark(20))),
        (13_500, "p", row(Some("b"), 3, mark(20))),
        (14_200, "p", row(Some("b"), 4, mark(40))),
        (14_400, "q", row(None, 0, Mark::Horizon)),
        (14_700, "p", row(Some("b"), 5, Mark::End)),
        (15_000, "q", row(Some("b"), 1, Mark::Horizon)),
        (15_500, "q", row(Some("b"), 2, mark(50))),
        (26_500, "q", row(Some("c"), 3, mark(50))),
        (27_200, "q", row(Some("c"), 4, mark(60))),
        (31_500, "q", row(None, 5, mark(60))),
        (32_000, "q", row(Some("b"), 6, mark(60))),
    ]
}

fn samples(writes: &[Write]) -> Vec<Sample> {
    let at = |at: Micros| {
        let mut rows: BTreeMap<Shard, Arc<Row>> = BTreeMap::new();
        for (_, shard, row) in writes.iter().filter(|(written, ..)| *written <= at) {
            rows.insert((*shard).into(), Arc::new(row.clone()));
        }
        Sample { before: at * MILLI, after: (at + 10) * MILLI, rows }
    };
    (1000..40_000).step_by(200).map(at).collect()
}

fn said(at: Micros, child: &str, daemon: &str, shard: &str, what: What) -> Said {
    Said { at: at * MILLI, child: child.into(), daemon: daemon.into(), shard: shard.into(), what }
}

/// Record `id` has the sequence number `10 * id`.
fn given(ids: &[u64]) -> What {
    What::Given(ids.iter().map(|id| (mark(id * 10), *id)).collect())
}

fn stored(asked: Micros, mark: Mark) -> What {
    What::Stored { asked: asked * MILLI, mark }
}

fn sound() -> Ledger {
    let start = |from: Mark| What::Started { from };
    let happened =
        |(at, daemon, fate): (Micros, &str, Fate)| Happened { at: at * MILLI, daemon: daemon.into(), fate };
    Ledger {
        puts: (1..=6)
            .map(|id| Put {
                id,
                key: id % 2,
                shard: if id <= 4 { "p" } else { "q" }.into(),
                mark: mark(id * 10),
            })
            .collect(),
        said: vec![
            said(1600, "A", "a1", "p", start(Mark::Horizon)),
            said(2000, "A", "a1", "p", given(&[1, 2])),
            said(2300, "A", "a1", "p", stored(2100, mark(20))),
            said(2900, "A", "a1", "p", given(&[3])),
            said(13_700, "B", "b1", "p", start(mark(20))),
            said(14_000, "B", "b1", "p", given(&[3, 4])),
            said(14_300, "B", "b1", "p", stored(14_100, mark(40))),
            said(14_500, "B", "b1", "p", What::Ended),
            said(14_800, "B", "b1", "p", stored(14_600, Mark::End)),
            said(15_100, "Q", "b1", "q", start(Mark::Horizon)),
            said(15_300, "Q", "b1", "q", given(&[5])),
            said(15_600, "Q", "b1", "q", stored(15_400, mark(50))),
            said(26_700, "C", "c1", "q", start(mark(50))),
            said(27_000, "C", "c1", "q", given(&[6])),
            said(27_300, "C", "c1", "q", stored(27_100, mark(60))),
            said(30_100, "Q", "b1", "q", What::LeaseLost),
            said(31_100, "C", "c1", "q", What::StopAsked),
            said(32_100, "R", "b1", "q", start(mark(60))),
        ],
        samples: samples(&writes()),
        happened: [
            (500, "a1", Fate::Started),
            (500, "b1", Fate::Started),
            (500, "c1", Fate::Started),
            (3000, "a1", Fate::Killed),
            (16_000, "b1", Fate::Frozen),
            (30_000, "b1", Fate::Woken),
            (31_000, "c1", Fate::Stopped),
            (39_000, "b1", Fate::Dismissed),
        ]
        .map(happened)
        .into(),
        parents: [("p".into(), vec![]), ("q".into(), vec!["p".into()])].into(),
    }
}

fn doctored(change: impl FnOnce(&mut Ledger)) -> Ledger {
    let mut ledger = sound();
    change(&mut ledger);
    ledger.sort();
    ledger
}

/// The report of a child at the given time.
fn of(ledger: &mut Ledger, at: Micros) -> &mut Said {
    ledger.said.iter_mut().find(|said| said.at == at * MILLI).unwrap()
}

/// The time, the shard and the new row of a write.
type Write = (Micros, &'static str, Row);

/// The ledger with other writes to the table.
fn rewritten(change: impl FnOnce(&mut Vec<Write>)) -> Ledger {
    let mut writes = writes();
    change(&mut writes);
    writes.sort_by_key(|(at, ..)| *at);
    Ledger { samples: samples(&writes), ..sound() }
}

fn write(writes: &mut [Write], at: Micros) -> &mut Write {
    writes.iter_mut().find(|(of, ..)| *of == at).unwrap()
}

#[test]
fn correct_ledger_has_no_violations() {
    let ledger = sound();
    assert_eq!(violations(&ledger), [""; 0]);
    let (counts, faults) = duplicates(&ledger);
    assert_eq!((counts, faults), ([("the former daemon was killed", 1)].into(), vec![]));
    let handovers = handovers(&ledger);
    let tenths: Vec<_> = handovers.iter().map(|h| (h.fate, h.took.unwrap() / (SECOND / 10))).collect();
    assert_eq!(tenths, [(Fate::Killed, 106), (Fate::Frozen, 106), (Fate::Stopped, 4)]);
    assert_eq!(late(&handovers), [""; 0]);
    assert_eq!(newcomers(&ledger), [(&"q".into(), SECOND * 6 / 10)]);
}

#[test]
fn positions_compare_as_integers_between_sentinels() {
    let order = ["TRIM_HORIZON", "9", "0010", "100", "SHARD_END"].map(|text| Mark::parse(text, 0));
    assert!(order.is_sorted_by(|a, b| a < b));
    assert!(Mark::parse("9", 1) > Mark::parse("9", 0));
    assert!(Mark::parse("9", 7) < Mark::parse("10", 0));
}

#[test]
fn undelivered_record_is_detected() {
    let ledger = doctored(|l| of(l, 27_000).what = given(&[]));
    assert_eq!(undelivered(&ledger).len(), 1);
    let ledger = doctored(|l| of(l, 27_000).shard = "p".into());
    assert_eq!(undelivered(&ledger).len(), 2, "not delivered, and one that was never put to p");
}

#[test]
fn duplicate_disorder_and_gap_within_a_child_are_detected() {
    for wrong in [&[4, 3][..], &[3, 3, 4], &[4], &[2, 3, 4]] {
        let ledger = doctored(|l| of(l, 14_000).what = given(wrong));
        assert_eq!(skipped(&ledger).len(), 1, "{wrong:?}");
    }
}

#[test]
fn out_of_order_records_of_a_key_are_detected() {
    let ledger = doctored(|l| of(l, 15_300).at = 1900 * MILLI);
    assert_eq!(out_of_order(&ledger).len(), 1, "5 before 1, and 3 behind it");
}

#[test]
fn checkpoint_beyond_delivered_records_is_detected() {
    let ledger = doctored(|l| of(l, 2300).what = stored(2100, mark(30)));
    assert_eq!(checkpointed_before_delivery(&ledger).len(), 1, "by an acknowledgement");
    let ledger = rewritten(|writes| write(writes, 14_200).2.checkpoint = mark(50));
    assert_eq!(checkpointed_before_delivery(&ledger).len(), 0, "there is no such record in p");
    let ledger = rewritten(|writes| write(writes, 2200).2.checkpoint = mark(30));
    assert_eq!(checkpointed_before_delivery(&ledger).len(), 1, "by a row");
    let ledger = rewritten(|writes| write(writes, 14_700).0 = 13_800);
    assert_eq!(checkpointed_before_delivery(&ledger).len(), 1, "by a shard's end");
    let ledger = doctored(|l| of(l, 13_700).what = What::Started { from: mark(40) });
    assert_eq!(checkpointed_before_delivery(&ledger).len(), 1, "by a child's start");
    let ledger = doctored(|l| of(l, 27_000).what = given(&[]));
    assert_eq!(
        checkpointed_before_delivery(&ledger).len(),
        5,
        "all statements about a record that was never delivered"
    );
}

#[test]
fn child_shard_starting_before_its_parents_end_is_detected() {
    let ledger = doctored(|l| of(l, 15_100).at = 14_400 * MILLI);
    assert_eq!(early(&ledger).len(), 1);
    let ledger = doctored(|l| of(l, 14_500).what = What::LeaseLost);
    assert_eq!(early(&ledger).len(), 1, "the end of its parent was not reported");
    let ledger = doctored(|l| {
        l.parents.insert("q".into(), vec!["p".into(), "o".into()]);
    });
    assert_eq!(early(&ledger).len(), 1, "only one of two parents ended");
}

#[test]
fn checkpoint_moved_back_or_not_stored_is_detected() {
    let ledger = rewritten(|writes| writes.push((20_000, "q", row(Some("b"), 3, Mark::Horizon))));
    // The next owner's write also has the counter 3, and moves the checkpoint forward again.
    assert_eq!(moved_back(&ledger).len(), 2);
    let ledger = rewritten(|writes| writes.push((20_000, "p", row(Some("b"), 6, mark(40)))));
    assert_eq!(moved_back(&ledger).len(), 1, "back from the end");
    let ledger = rewritten(|writes| write(writes, 31_500).2.counter = 4);
    assert_eq!(moved_back(&ledger).len(), 1, "a write that other samples do not show");
    let ledger = rewritten(|writes| writes.retain(|(at, ..)| *at != 2200));
    assert_eq!(moved_back(&ledger).len(), 1, "acknowledged, but not stored");
}

#[test]
fn checkpoint_stored_by_a_non_owner_is_detected() {
    // The frozen daemon's child received the record, not the owner's.
    let ledger = doctored(|l| of(l, 27_000).daemon = "b1".into());
    assert_eq!(moved_by_non_owners(&ledger).len(), 1);
    let ledger = doctored(|l| of(l, 14_500).daemon = "a1".into());
    assert_eq!(moved_by_non_owners(&ledger).len(), 1, "a shard's end");
}

#[test]
fn checkpoint_acknowledged_by_a_non_owner_is_detected() {
    let ledger = doctored(|l| l.said.push(said(29_100, "Q", "b1", "q", stored(29_000, mark(60)))));
    assert_eq!(acknowledged_to_non_owners(&ledger).len(), 1);
}

#[test]
fn start_before_the_former_owners_checkpoint_is_detected() {
    let ledger = doctored(|l| of(l, 26_700).what = What::Started { from: Mark::Horizon });
    assert_eq!(repeated(&ledger).len(), 1);
    // c1 acquires the lease, and b1 acquires it again before c1's child has started: the child starts where c1
    // acquired the lease.
    let stolen = |from: Mark| {
        let ledger = rewritten(|writes| {
            writes.push((26_700, "q", row(Some("b"), 4, mark(50))));
            write(writes, 27_200).2 = row(Some("b"), 5, mark(60));
        });
        let mut said = ledger.said.clone();
        said.iter_mut().find(|said| said.at == 26_700 * MILLI).unwrap().at = 27_450 * MILLI;
        said.iter_mut().find(|said| said.at == 27_450 * MILLI).unwrap().what = What::Started { from };
        let mut ledger = Ledger { said, ..ledger };
        ledger.sort();
        repeated(&ledger).len()
    };
    assert_eq!(stolen(mark(50)), 0, "c1 has not noticed the loss yet");
    assert_eq!(stolen(Mark::Horizon), 1, "b1 had stored more before");
}

#[test]
fn duplicates_are_counted_by_cause_or_detected() {
    let ledger = doctored(|l| of(l, 14_000).what = given(&[3, 4, 4]));
    assert_eq!(duplicates(&ledger).1.len(), 1, "twice to one child");
    let counts = |ledger: &Ledger| {
        let (counts, faults) = duplicates(ledger);
        assert!(faults.is_empty(), "{faults:?}");
        counts
    };
    let ledger = doctored(|l| of(l, 27_000).what = given(&[5, 6]));
    assert_eq!(counts(&ledger)["the former daemon was frozen"], 1);
    let ledger = doctored(|l| l.said.push(said(32_200, "R", "b1", "q", given(&[6]))));
    assert_eq!(counts(&ledger)["the former daemon was stopped"], 1);
    let ledger = doctored(|l| l.said.push(said(30_050, "Q", "b1", "q", given(&[6]))));
    assert_eq!(counts(&ledger)["the former owner continued until it noticed the loss"], 1);
    let ledger = doctored(|l| of(l, 13_700).daemon = "a1".into());
    assert_eq!(counts(&ledger).values().sum::<usize>(), 1);
    let ledger = doctored(|l| l.happened.retain(|it| it.fate != Fate::Killed));
    assert_eq!(counts(&ledger)["the lease was stolen from a live daemon"], 1);
}

#[test]
fn leases_without_owner_for_too_long_are_detected() {
    let late_in = |ledger: &Ledger| late(&handovers(ledger)).len();
    let ledger = rewritten(|writes| write(writes, 32_000).0 = 34_000);
    assert_eq!(late_in(&ledger), 1, "2.4 s after a stop");
    let ledger = rewritten(|writes| writes.retain(|(at, ..)| *at != 32_000));
    assert_eq!(late_in(&ledger), 1, "never after a stop");
    let ledger = rewritten(|writes| writes.retain(|(at, ..)| ![31_500, 32_000].contains(at)));
    assert_eq!(late_in(&ledger), 1, "never released");
    let ledger = doctored(|l| l.happened[3].at = 1700 * MILLI);
    assert_eq!(late_in(&ledger), 0, "12 s after a kill");
    let ledger = rewritten(|writes| {
        writes.retain(|(at, ..)| !(13_500..15_000).contains(at));
        writes.push((18_500, "p", row(Some("c"), 3, mark(20))));
        writes.push((19_000, "p", row(Some("c"), 4, Mark::End)));
    });
    assert_eq!(late_in(&ledger), 1, "15.6 s after a kill");
    let ledger = rewritten(|writes| {
        writes.retain(|(_, shard, _)| *shard == "p");
        write(writes, 13_500).2.owner = Some("a".into());
        writes.retain(|(at, ..)| *at <= 13_500);
    });
    assert_eq!(late_in(&ledger), 1, "the dead worker's row changes, but the worker has not returned");
    let returned = Ledger {
        happened: [
            ledger.happened.clone(),
            vec![Happened { at: 13_000 * MILLI, daemon: "a2".into(), fate: Fate::Started }],
        ]
        .concat(),
        ..ledger
    };
    assert_eq!(late_in(&returned), 0, "the worker has returned and reacquired its lease");
}
