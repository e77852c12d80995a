//! Tests of the coordinator with a table that answers late, ambiguously or not at all.

use tokio::time::timeout;

use std::collections::BTreeSet;

use super::*;
use crate::lease::memory::{Fault, Memory};
use crate::lease::update::{Change, Update};
use crate::lease::{LeaseKey, table};
use crate::recognition::Recognition;
use crate::sequence::{Position, Sequence};
use crate::shard::{BoxFuture, HashRange};
use crate::stream::{ByStream, StreamIdentifier};

pub(crate) fn settings() -> Settings {
    Settings {
        me: "me".into(),
        failover: Duration::from_secs(10),
        max_leases: 10,
        max_steals: 1,
        priority: true,
        handoff: handoff::Limits { hand_off: Duration::from_secs(30), failover: Duration::from_secs(10) },
        sink: Arc::new(crate::metrics::Discard),
        recognitions: ByStream::One(Recognition::new(Arc::new(crate::shard::Listed::default()))),
        capacity: Arc::default(),
        reach: Arc::default(),
        stop: crate::clock::Stop::within(Duration::from_secs(9)),
        process: ProcessId::new(5, "one", &"me".into()),
        clock: crate::clock::ServiceClock::new(crate::clock::wall_millis, Default::default()),
        resume_latest: false,
    }
}

fn table() -> Arc<Memory> {
    let table = Arc::new(Memory::default());
    let range = HashRange { start: 0, end: 9 };
    table.put(Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range));
    table
}

#[tokio::test(start_paused = true)]
async fn lease_acquired_without_an_answer_is_held_in_time() {
    let table = table();
    table.set_fault(Fault::LostAnswer);
    let (coordinator, mut ends) = Coordinator::new(table.clone(), settings());
    let mut tasks = JoinSet::new();
    tasks.spawn(coordinator.run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(table.row(&"s".into()).unwrap().owner, Some("me".into()));
    table.set_fault(Fault::None);
    let held = timeout(Duration::from_secs(2), ends.leases.recv()).await.unwrap().unwrap();
    assert!(held.is_live(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_until_the_last_handle_then_released() {
    let table = table();
    let (coordinator, mut ends) = Coordinator::new(table.clone(), settings());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(coordinator.run(stop.clone()));
    let held = ends.leases.recv().await.unwrap();
    stop.cancel();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(held.is_live(Instant::now()), "renewing stops last");
    drop(ends);
    tasks.join_all().await;
    assert!(held.lost().is_cancelled());
    assert_eq!(table.row(&"s".into()).unwrap().owner, None);
}

#[tokio::test(start_paused = true)]
async fn stored_start_is_honoured_by_a_worker_that_stores_none() {
    for (row, began) in [(Some(77), Some(77)), (None, None)] {
        let table = table();
        let lease = table.row(&"s".into()).unwrap();
        let checkpoint = Position::new(crate::sequence::Sequence::Latest);
        table.put(Lease { checkpoint, latest_from: row, ..lease });
        let (coordinator, mut ends) = Coordinator::new(table.clone(), settings());
        let mut tasks = JoinSet::new();
        tasks.spawn(coordinator.run(CancellationToken::new()));
        let held = ends.leases.recv().await.unwrap();
        assert_eq!((held.latest_from(), held.initial().latest_from), (began, began));
    }
}

/// A table on which the write of a release takes a second, and during the write that acquires a lease the machine is
/// suspended.
struct Slow {
    rows: Arc<Memory>,
    suspended: Duration,
}

impl Table for Slow {
    fn ensure(&self) -> BoxFuture<'_, Result<table::Found, table::Error>> {
        self.rows.ensure()
    }
    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, table::Error>> {
        self.rows.list()
    }
    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, table::Error>> {
        self.rows.get(key)
    }
    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, table::Error>> {
        self.rows.create(lease)
    }
    fn update<'a>(
        &'a self,
        key: &'a LeaseKey,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<Lease, table::Error>> {
        Box::pin(async move {
            if update.changes.contains(&Change::ClearOwner) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            if update.changes.contains(&Change::SetOwner("me".into())) {
                clock::suspend(self.suspended);
            }
            self.rows.update(key, update).await
        })
    }
    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, table::Error>> {
        self.rows.owned(worker)
    }
    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, table::Error>> {
        self.rows.index(make)
    }
    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, table::Error>> {
        self.rows.delete(key)
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, table::Error>> {
        self.rows.forget(key)
    }
}

#[tokio::test(start_paused = true)]
async fn suspension_during_the_write_that_acquires_a_lease_shortens_it() {
    let suspended = settings().failover;
    let (coordinator, mut ends) = Coordinator::new(Arc::new(Slow { rows: table(), suspended }), settings());
    let mut tasks = JoinSet::new();
    tasks.spawn(coordinator.run(CancellationToken::new()));
    let held = ends.leases.recv().await.unwrap();
    assert!(!held.is_live(Instant::now()), "other workers have seen it expire");
}

#[tokio::test(start_paused = true)]
async fn lease_is_not_acquired_again_during_its_release() {
    let memory = table();
    let slow = Slow { rows: memory.clone(), suspended: Duration::ZERO };
    let (coordinator, mut ends) = Coordinator::new(Arc::new(slow), settings());
    let mut tasks = JoinSet::new();
    tasks.spawn(coordinator.run(CancellationToken::new()));
    let first = ends.leases.recv().await.unwrap();
    ends.handle.release(first);
    ends.handle.look();
    let second = timeout(Duration::from_secs(4), ends.leases.recv()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(second.is_live(Instant::now()));
    assert_eq!(memory.row(&"s".into()).unwrap().owner, Some("me".into()), "the former holding took it away");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_without_known_successors() {
    let table = table();
    for number in 0..20 {
        let mut lease = table.row(&"s".into()).unwrap();
        (lease.key, lease.owner) = (number.to_string().as_str().into(), Some("me".into()));
        table.put(lease);
    }
    let (coordinator, ends) = Coordinator::new(table.clone(), settings());
    ends.standing.send_modify(|standing| standing.mode = Some(crate::fleet::Mode::ThreeX));
    let Ends { handle, successors: nobody_answers, .. } = ends;
    let stop = CancellationToken::new();
    stop.cancel();
    let mut tasks = JoinSet::new();
    tasks.spawn(coordinator.run(stop));
    drop(handle);
    assert!(timeout(Duration::from_secs(5), tasks.join_all()).await.is_ok());
    drop(nobody_answers);
}

/// A Java worker up to 3.4.2 whose shard waits for parents: it renews a lease that it is to hand over, for ever.
async fn never_lets_go(table: Arc<Memory>, key: LeaseKey) {
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut row = table.row(&key).unwrap();
        if row.checkpoint_owner.is_none() {
            return;
        }
        row.counter += 1;
        table.put(row);
    }
}

fn handed_over(to: &str) -> Arc<Memory> {
    let table = table();
    let mut row = table.row(&"s".into()).unwrap();
    (row.owner, row.checkpoint_owner) = (Some(to.into()), Some("java".into()));
    table.put(row);
    table
}

#[tokio::test(start_paused = true)]
async fn stalled_handoff_is_acquired_without_a_leader() {
    for named in ["me", "another"] {
        let table = handed_over(named);
        let (coordinator, mut ends) = Coordinator::new(table.clone(), settings());
        let mut tasks = JoinSet::new();
        tasks.spawn(coordinator.run(CancellationToken::new()));
        tasks.spawn(never_lets_go(table.clone(), "s".into()));
        let early = timeout(Duration::from_secs(80), ends.leases.recv()).await;
        assert!(early.is_err(), "it has its time, twice");
        let held = timeout(Duration::from_secs(20), ends.leases.recv()).await.expect(named).unwrap();
        let row = table.row(held.key()).unwrap();
        assert_eq!((row.owner, row.checkpoint_owner), (Some("me".into()), None));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(held.is_live(Instant::now()), "what is written to the row is this worker's");
    }
}

#[tokio::test(start_paused = true)]
async fn member_acquires_its_own_stalled_handoff() {
    for (named, taken) in [("me", true), ("another", false)] {
        let table = handed_over(named);
        let (coordinator, mut ends) = Coordinator::new(table.clone(), settings());
        ends.standing.send_modify(|standing| standing.mode = Some(crate::fleet::Mode::ThreeX));
        let mut tasks = JoinSet::new();
        tasks.spawn(coordinator.run(CancellationToken::new()));
        tasks.spawn(never_lets_go(table.clone(), "s".into()));
        let early = timeout(Duration::from_secs(80), ends.leases.recv()).await;
        assert!(early.is_err(), "it has its time, twice");
        let late = timeout(Duration::from_secs(60), ends.leases.recv()).await;
        assert_eq!(late.is_ok(), taken, "{named}: what others were named for is a leader's to see to");
    }
}

#[tokio::test(start_paused = true)]
async fn member_finds_its_handoff_without_a_nudge() {
    let table = handed_over("me");
    let mut other = table.row(&"s".into()).unwrap();
    (other.key, other.owner, other.checkpoint_owner) = ("t".into(), Some("me".into()), None);
    table.put(other);
    let (coordinator, mut ends) = Coordinator::new(table.clone(), settings());
    ends.standing.send_modify(|standing| {
        (standing.mode, standing.led_by_ours) = (Some(crate::fleet::Mode::ThreeX), true);
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(coordinator.run(CancellationToken::new()));
    tasks.spawn(never_lets_go(table.clone(), "s".into()));
    let first = ends.leases.recv().await.unwrap();
    assert_eq!(first.key(), &"t".into());
    for seconds in [20, 21, 23] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let mut row = table.row(&"s".into()).unwrap();
        (row.owner, row.checkpoint_owner) = (Some("me".into()), None);
        row.counter += 1;
        table.put(row);
        let held = timeout(Duration::from_secs(3), ends.leases.recv())
            .await
            .unwrap_or_else(|_| panic!("not soon, after {seconds} s"))
            .unwrap();
        assert_eq!(held.key(), &"s".into());
        // It is handed over once more, after this worker gave it back.
        ends.handle.release(held);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut row = table.row(&"s".into()).unwrap();
        (row.owner, row.checkpoint_owner) = (Some("me".into()), Some("java".into()));
        table.put(row);
        tasks.spawn(never_lets_go(table.clone(), "s".into()));
        // A call of the leader: it looks, and sees that it has been named.
        ends.handle.look();
    }
}

#[test]
fn part_of_a_stream_has_the_order_that_is_in_force_for_all() {
    let stream = StreamIdentifier::parse("1:orders:5").unwrap();
    let row = |key: &str, pause| {
        let range = HashRange { start: 0, end: 9 };
        let row = Lease::new(key.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        Lease { pause, ..row }
    };
    let order = Pause::new(true, 5, "ann");
    let leases = [row("1:orders:5:s", None), row("1:refunds:5:s", Some(order.clone()))];
    let (mut history, now) = (History::default(), Instant::now());
    history.note_scan(&leases, now);
    let all = Snapshot {
        held: Arc::new(leases.iter().map(|lease| lease.key.clone()).collect()),
        leases: Arc::new(leases.to_vec()),
        history: Arc::new(history),
        at: Some(now),
        ..Snapshot::default()
    };
    let part = all.of_stream(&stream);
    assert_eq!(*part.leases, [row("s", None)]);
    assert_eq!(*part.held, BTreeSet::from(["s".into()]));
    assert_eq!(part.history.unchanged_for(&"s".into(), now), Some(Duration::ZERO));
    assert_eq!((part.in_force(), all.in_force()), (Some(&order), Some(&order)));
}
