//! Invariants of a held lease, for every answer of the table.

use super::*;
use crate::lease::memory::{Fault, Memory};
use crate::lease::orders::{self, Park};
use crate::recognition::Recognition;
use crate::sequence::{Sequence, SequenceNumber};
use crate::shard::{HashRange, Listed, Shard};
use crate::stream::{ByStream, StreamId};
use std::collections::BTreeSet;

const FAILOVER: Duration = Duration::from_secs(10);

fn held() -> (Arc<Memory>, Arc<Held>) {
    let table = Arc::new(Memory::default());
    let range = HashRange { start: 0, end: u128::MAX };
    let mut lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    lease.owner = Some("me".into());
    table.put(lease.clone());
    (table.clone(), Held::new(lease, Instant::now(), clock::slept(), &owner(table)))
}

fn owner(table: Arc<Memory>) -> Owner {
    Owner {
        me: "me".into(),
        table,
        failover: FAILOVER,
        nudged: Arc::default(),
        process: ProcessId::new(5, "one", &"me".into()),
        rivals: mpsc::channel(1).0,
        recognitions: ByStream::One(Recognition::new(Arc::new(Listed::new(vec![shard()])))),
    }
}

fn shard() -> Shard {
    Shard {
        id: "s".into(),
        parent: None,
        adjacent_parent: None,
        range: HashRange { start: 0, end: u128::MAX },
        starting: SequenceNumber::parse("1").unwrap(),
        ending: None,
    }
}

fn at(number: &str) -> Position {
    Position::record(SequenceNumber::parse(number).unwrap(), 0)
}

#[tokio::test(start_paused = true)]
async fn renewal_increments_the_counter_and_extends_the_expiry() {
    let (table, held) = held();
    tokio::time::advance(Duration::from_secs(9)).await;
    held.renew().await.unwrap();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(held.is_live(Instant::now()));
    assert_eq!(table.row(&"s".into()).unwrap().counter, 1);
}

#[tokio::test(start_paused = true)]
async fn lease_expired_during_sleep_writes_nothing() {
    let (table, held) = held();
    tokio::time::advance(FAILOVER).await;
    assert!(!held.is_live(Instant::now()));
    assert_eq!(held.checkpoint(&at("5")).await, Err(Error::Lost));
    assert_eq!(held.renew().await, Err(Error::Lost));
    assert_eq!(held.release(&Next::Nobody).await, Err(Error::Lost));
    assert_eq!(table.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn lease_marked_lost_writes_nothing() {
    let (table, held) = held();
    held.mark_lost();
    assert_eq!(held.checkpoint(&at("5")).await, Err(Error::Lost));
    assert_eq!(held.renew().await, Err(Error::Lost));
    assert_eq!(held.set_children(&BTreeSet::from(["c".into()])).await, Err(Error::Lost));
    assert_eq!(held.release(&Next::Nobody).await, Err(Error::Lost));
    assert_eq!(table.writes(), 0);
}

/// Every write requires the counter that this worker knows, so that of several at most one is applied.
#[tokio::test(start_paused = true)]
async fn counter_two_ahead_is_no_write_of_this_worker() {
    for fault in [Fault::None, Fault::Unavailable] {
        let (table, held) = held();
        table.set_fault(fault);
        assert_eq!(held.renew().await.is_ok(), fault == Fault::None);
        table.set_fault(Fault::None);
        let row = table.row(&"s".into()).unwrap();
        let ahead = Lease { counter: row.counter + 2, ..row };
        table.put(ahead.clone());
        assert_eq!(held.checkpoint(&at("5")).await, Err(Error::Lost));
        assert!(held.lost().is_cancelled());
        assert_eq!(table.row(&"s".into()), Some(ahead), "nothing is written");
    }
    let (table, held) = held();
    let ahead = Lease { counter: 2, ..table.row(&"s".into()).unwrap() };
    table.put(ahead.clone());
    assert_eq!(held.release(&Next::Nobody).await, Err(Error::Lost));
    assert_eq!(table.row(&"s".into()), Some(ahead), "nor is it released");
}

#[tokio::test(start_paused = true)]
async fn lease_expires_while_the_machine_is_suspended() {
    let (table, held) = held();
    clock::suspend(Duration::from_millis(199));
    assert_eq!(held.expires(), Instant::now() + FAILOVER, "the clocks are not read at the same time");
    clock::suspend(FAILOVER / 2 - Duration::from_millis(199));
    assert!(held.is_live(Instant::now()));
    assert_eq!(held.expires(), Instant::now() + FAILOVER / 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    held.renew().await.unwrap();
    assert_eq!(held.expires(), Instant::now() + FAILOVER, "the suspension came before the proof");
    clock::suspend(FAILOVER);
    assert!(!held.is_live(Instant::now()));
    assert_eq!(held.checkpoint(&at("5")).await, Err(Error::Lost));
    assert_eq!(table.writes(), 1, "the renewal");
}

#[tokio::test(start_paused = true)]
async fn stolen_lease_is_lost_and_its_checkpoint_rejected() {
    let (table, held) = held();
    table.steal(&"s".into(), &"thief".into());
    assert_eq!(held.checkpoint(&at("5")).await, Err(Error::Lost));
    assert!(held.lost().is_cancelled());
    assert_eq!(table.row(&"s".into()).unwrap().checkpoint, Position::new(Sequence::TrimHorizon));
}

#[tokio::test(start_paused = true)]
async fn lost_answer_is_resolved_by_reading_back() {
    for fault in [Fault::LostAnswer, Fault::Retried] {
        let (table, held) = held();
        table.set_fault(fault);
        held.renew().await.unwrap();
        held.checkpoint(&at("5")).await.unwrap();
        let row = table.row(&"s".into()).unwrap();
        assert_eq!((row.counter, row.checkpoint), (2, at("5")), "{fault:?}");
        table.set_fault(Fault::None);
        held.checkpoint(&at("6")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn write_to_an_unreadable_row_was_applied() {
    let (table, held) = held();
    let start = Instant::now();
    table.set_fault(Fault::Unreadable);
    tokio::time::advance(Duration::from_secs(5)).await;
    held.renew().await.unwrap();
    assert_eq!(held.expires(), start + Duration::from_secs(5) + FAILOVER);
    held.checkpoint(&at("5")).await.unwrap();
    held.set_children(&BTreeSet::from(["c".into()])).await.unwrap();
    let row = table.row(&"s".into()).unwrap();
    assert_eq!((row.counter, row.checkpoint, row.children.len()), (2, at("5"), 1));
    assert_eq!(table.writes(), 3, "none is repeated");
    table.set_fault(Fault::None);
    held.checkpoint(&at("6")).await.unwrap();
    table.set_fault(Fault::Unreadable);
    assert_eq!(held.release(&Next::Nobody).await, Ok(None));
    assert_eq!(table.row(&"s".into()).unwrap().owner, None);
}

#[tokio::test(start_paused = true)]
async fn late_confirmation_counts_from_the_first_attempt() {
    let (table, held) = held();
    let start = Instant::now();
    table.set_fault(Fault::Unavailable);
    assert!(held.renew().await.is_err());
    let mut row = table.row(&"s".into()).unwrap();
    row.counter += 1;
    table.put(row);
    table.set_fault(Fault::None);
    tokio::time::advance(Duration::from_secs(5)).await;
    held.renew().await.unwrap();
    assert_eq!(held.expires(), start + FAILOVER);
}

#[tokio::test(start_paused = true)]
async fn unreachable_table_does_not_lose_the_lease_early() {
    let (table, held) = held();
    table.set_fault(Fault::Unavailable);
    assert!(matches!(held.checkpoint(&at("5")).await, Err(Error::Table(table::Error::Unavailable(_)))));
    assert!(held.is_live(Instant::now()));
    table.set_fault(Fault::None);
    held.checkpoint(&at("5")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deleted_row_is_restored_with_its_position() {
    for fault in [Fault::None, Fault::LostAnswer] {
        let (table, held) = held();
        held.checkpoint(&at("5")).await.unwrap();
        table.remove(&"s".into());
        table.set_fault(fault);
        held.checkpoint(&at("6")).await.unwrap();
        let row = table.row(&"s".into()).unwrap();
        assert_eq!((row.checkpoint, row.owner), (at("6"), Some("me".into())), "{fault:?}");
        assert!(held.is_live(Instant::now()));
    }
}

#[tokio::test(start_paused = true)]
async fn marked_row_is_not_restored_in_another_stream() {
    let mark = |created| StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/orders", created);
    for (described, restored) in [(None, true), (Some(mark(5)), true), (Some(mark(6)), false)] {
        let (table, held) = held();
        let owner = owner(table.clone());
        let listed = Listed::new(Vec::new());
        listed.become_stream(described.clone(), vec![shard()]);
        let owner = Owner { recognitions: ByStream::One(Recognition::new(Arc::new(listed))), ..owner };
        let lease = Lease { stream: Some(mark(5)), ..held.initial().clone() };
        let held = Held::new(lease, Instant::now(), clock::slept(), &owner);
        table.remove(&"s".into());
        assert_eq!(held.renew().await.is_ok(), restored, "{described:?}");
        assert_eq!(table.row(&"s".into()).is_some(), restored, "{described:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_row_of_a_finished_shard_is_not_restored() {
    let (table, held) = held();
    table.remove(&"s".into());
    let gone = Held::new(
        held.initial().clone(),
        Instant::now(),
        clock::slept(),
        &Owner {
            recognitions: ByStream::One(Recognition::new(Arc::new(Listed::default()))),
            ..owner(table.clone())
        },
    );
    assert_eq!(gone.renew().await, Err(Error::Lost));
    let finished = Lease { checkpoint: Position::shard_end(), ..held.initial().clone() };
    let finished = Held::new(finished, Instant::now(), clock::slept(), &owner(table.clone()));
    assert_eq!(finished.renew().await, Err(Error::Lost));
    assert_eq!(table.row(&"s".into()), None);
}

#[tokio::test(start_paused = true)]
async fn row_of_a_rival_process_is_lost_and_reported() {
    let (table, _) = held();
    let (tell, mut told) = mpsc::channel(4);
    let owner = Owner { rivals: tell, ..owner(table.clone()) };
    let mine = Lease { process: Some(owner.process.clone()), ..table.row(&"s".into()).unwrap() };
    table.put(mine.clone());
    let held = Held::new(mine.clone(), Instant::now(), clock::slept(), &owner);
    held.renew().await.unwrap();
    let other = ProcessId::new(9, "other", &"me".into());
    let row = table.row(&"s".into()).unwrap();
    table.put(Lease { counter: row.counter + 1, process: Some(other.clone()), ..row });
    assert_eq!(held.renew().await, Err(Error::Lost), "one step ahead is no write of ours");
    assert_eq!(told.try_recv().unwrap().process, Some(other));
}

#[tokio::test(start_paused = true)]
async fn process_of_another_worker_is_no_rival() {
    let (table, _) = held();
    let (tell, mut told) = mpsc::channel(4);
    let owner = Owner { rivals: tell, ..owner(table.clone()) };
    let mine = Lease { process: Some(owner.process.clone()), ..table.row(&"s".into()).unwrap() };
    table.put(mine.clone());
    let held = Held::new(mine, Instant::now(), clock::slept(), &owner);
    let row = table.row(&"s".into()).unwrap();
    let between = Some(ProcessId::new(1, "older", &"heir".into()));
    table.put(Lease { counter: row.counter + 3, process: between, ..row });
    assert_eq!(held.renew().await, Err(Error::Lost));
    assert!(told.try_recv().is_err(), "the process of another worker is no rival");
}

#[tokio::test(start_paused = true)]
async fn checkpoint_never_moves_back_after_a_lost_answer() {
    let (table, held) = held();
    let mut row = table.row(&"s".into()).unwrap();
    (row.owner, row.counter, row.checkpoint) = (Some("me".into()), 1, at("20"));
    table.put(row);
    assert_eq!(held.checkpoint(&at("15")).await, Err(Error::Behind(at("20"))));
    held.checkpoint(&at("21")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pending_handoff_does_not_stop_renewals() {
    let (table, held) = held();
    let mut row = table.row(&"s".into()).unwrap();
    (row.owner, row.checkpoint_owner) = (Some("next".into()), Some("me".into()));
    table.put(row);
    held.renew().await.unwrap();
    held.checkpoint(&at("5")).await.unwrap();
    let row = table.row(&"s".into()).unwrap();
    assert_eq!((row.counter, row.owner), (2, Some("next".into())));
}

#[tokio::test(start_paused = true)]
async fn release_after_an_unknown_write_clears_the_owner() {
    let (table, held) = held();
    let mut row = table.row(&"s".into()).unwrap();
    row.counter += 1;
    table.put(row);
    held.release(&Next::Nobody).await.unwrap();
    assert_eq!(table.row(&"s".into()).unwrap().owner, None);
}

#[tokio::test(start_paused = true)]
async fn nudge_is_noticed_once_by_renewal_or_checkpoint() {
    for checkpoint in [false, true] {
        let (table, held) = held();
        let heard = || {
            let notified = std::pin::pin!(held.owner.nudged.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            notified.poll(&mut context).is_ready()
        };
        held.renew().await.unwrap();
        assert!(!heard(), "nobody called");
        let row = table.row(&"s".into()).unwrap();
        table.update(&"s".into(), &update::nudge(&row)).await.unwrap();
        if checkpoint {
            held.checkpoint(&at("5")).await.unwrap();
        } else {
            held.renew().await.unwrap();
        }
        assert!(heard());
        held.renew().await.unwrap();
        assert!(!heard());
    }
}

#[tokio::test(start_paused = true)]
async fn release_clears_the_owner_and_the_proof() {
    let (table, held) = held();
    held.release(&Next::Nobody).await.unwrap();
    assert_eq!(table.row(&"s".into()).unwrap().owner, None);
    assert_eq!(held.renew().await, Err(Error::Lost));
}

#[tokio::test(start_paused = true)]
async fn order_of_an_operator_is_seen_by_the_next_write() {
    for fault in [Fault::None, Fault::LostAnswer, Fault::Retried] {
        let (table, held) = held();
        let mut orders = held.orders();
        assert_eq!(*orders.borrow_and_update(), None);
        let give = |update: fn(&Lease) -> update::Update| {
            let mut row = table.row(&"s".into()).unwrap();
            update(&row).apply(&mut row);
            table.put(row);
        };
        give(|row| orders::park(row, &Park::new(7, "ann"), 0));
        table.set_fault(fault);
        let _answer = held.renew().await;
        let order = Parking { is_pause: false, since: 7, by: "ann".into() };
        assert_eq!(*orders.borrow_and_update(), Some(order), "{fault:?}");
        give(|row| orders::pause(row, &Pause::new(true, 8, "bob"), 0));
        give(orders::unpark);
        let _answer = held.renew().await;
        let order = Parking { is_pause: true, since: 8, by: "bob".into() };
        assert_eq!(*orders.borrow_and_update(), Some(order), "{fault:?}");
        table.set_fault(Fault::None);
        give(|row| orders::pause(row, &Pause::new(false, 9, "bob"), 0));
        held.checkpoint(&at("5")).await.unwrap();
        assert_eq!(*orders.borrow_and_update(), None, "a checkpoint sees it, too");
        assert!(held.is_live(Instant::now()), "no order ends the lease");
    }
}
