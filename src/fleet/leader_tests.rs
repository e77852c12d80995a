//! Tests of the leader: each shows it a table, look by look.

use super::*;
use crate::sequence::{Position, Sequence};
use crate::shard::HashRange;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    Rules {
        failover: SECOND * 10,
        balance: balance::Rules {
            threshold: 10.0,
            dampening: 60.0,
            overshoot: true,
            max_throughput: f64::MAX,
            max_leases: usize::MAX,
        },
        balance_every: SECOND * 60,
        graceful: true,
        hand_off: SECOND * 30,
    }
}

fn lease(key: &str, owner: Option<&str>) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let mut lease = Lease::new(key.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    lease.owner = owner.map(Into::into);
    lease
}

fn members(ids: &[&str]) -> Vec<Member> {
    ids.iter().map(|id| Member { id: (*id).into(), metrics: Vec::new(), most: usize::MAX }).collect()
}

struct Table {
    leases: Vec<Lease>,
    history: History,
    leader: Leader,
    signs: BTreeMap<WorkerId, Instant>,
}

impl Table {
    fn new(leases: Vec<Lease>) -> Self {
        Self { leases, history: History::default(), leader: Leader::default(), signs: BTreeMap::new() }
    }

    /// The orders of one scan: shard, next owner, how.
    fn look(&mut self, ids: &[&str], now: Instant) -> Vec<(String, String, How)> {
        self.history.note_scan(&self.leases, now);
        let mut random = fastrand::Rng::with_seed(1);
        let workers = Workers { members: &members(ids), signs: &self.signs };
        let orders = self.leader.plan(&self.leases, &self.history, workers, &rules(), now, &mut random);
        let mut shown: Vec<_> =
            orders.iter().map(|o| (o.lease.key.to_string(), o.to.to_string(), o.how)).collect();
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        shown
    }
}

#[test]
fn unowned_leases_are_assigned_at_once_and_evenly() {
    let mut table = Table::new((0..4).map(|n| lease(&n.to_string(), None)).collect());
    let orders = table.look(&["a", "b"], Instant::now());
    assert!(orders.iter().all(|(_, _, how)| *how == How::Assign));
    assert_eq!(orders.iter().filter(|(_, to, _)| to == "a").count(), 2);
    assert_eq!(orders.len(), 4);
}

#[test]
fn new_worker_gets_its_share_by_handoffs() {
    let start = Instant::now();
    let mut table = Table::new((0..4).map(|n| lease(&n.to_string(), Some("a"))).collect());
    assert_eq!(table.look(&["a"], start), []);
    let orders = table.look(&["a", "b"], start + SECOND * 5);
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert!(orders.iter().all(|(_, to, how)| to == "b" && *how == How::HandOff));
}

#[test]
fn expired_lease_is_reassigned_with_twice_the_time() {
    let start = Instant::now();
    let mut table = Table::new(vec![lease("0", Some("a")), lease("1", Some("b"))]);
    table.look(&["a", "b"], start);
    for step in 1..=2 {
        // Only b is alive.
        table.leases[1].counter += 1;
        if step == 1 {
            table.leases[0].counter += 1;
        }
        assert_eq!(table.look(&["a", "b"], start + SECOND * 5 * step), []);
    }
    table.leases[1].counter += 1;
    let orders = table.look(&["a", "b"], start + SECOND * 16);
    assert_eq!(orders, [("0".to_owned(), "b".to_owned(), How::Assign)]);
    // It is given to b, which says nothing for a while.
    table.leases[0].owner = Some("b".into());
    table.leases[0].counter += 1;
    for seconds in [18, 25, 35] {
        table.leases[1].counter += 1;
        assert_eq!(table.look(&["a", "b"], start + SECOND * seconds), [], "after {seconds} s");
    }
    table.leases[1].counter += 1;
    assert_eq!(table.look(&["a", "b"], start + SECOND * 39).len(), 1);
}

#[test]
fn new_owner_has_twice_the_time_for_its_first_renewal() {
    let start = Instant::now();
    let mut table = Table::new(vec![lease("0", Some("b")), lease("1", Some("a")), lease("2", Some("b"))]);
    table.leases[0].checkpoint_owner = Some("a".into());
    for second in [0, 5] {
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        table.look(&["a", "b"], start + SECOND * second);
    }
    table.leases[0].checkpoint_owner = None;
    table.leases[0].counter += 1;
    for second in [10, 15, 20, 25, 30] {
        table.leases[1..].iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * second), [], "after {second} s");
    }
    table.leases[1..].iter_mut().for_each(|lease| lease.counter += 1);
    assert_eq!(table.look(&["a", "b"], start + SECOND * 31), [("0".into(), "a".into(), How::Assign)]);
}

#[test]
fn dead_worker_with_fresh_metrics_is_assigned_nothing() {
    let start = Instant::now();
    let mut table = Table::new(vec![lease("0", Some("dead")), lease("1", Some("b"))]);
    table.look(&["b", "dead"], start);
    table.leases[0].counter += 1;
    for second in [5, 10] {
        table.leases[1].counter += 1;
        table.look(&["b", "dead"], start + SECOND * second);
    }
    table.leases[1].counter += 1;
    let orders = table.look(&["b", "dead"], start + SECOND * 16);
    assert_eq!(orders, [("0".to_owned(), "b".to_owned(), How::Assign)]);
    // Now it has nothing, and something is free.
    table.leases[0].owner = Some("b".into());
    table.leases.push(lease("2", None));
    table.leases.iter_mut().for_each(|lease| lease.counter += 1);
    let orders = table.look(&["b", "dead"], start + SECOND * 20);
    assert_eq!(orders, [("2".to_owned(), "b".to_owned(), How::Assign)]);
    // It was not dead after all: it moves a lease.
    table.leases[1].owner = Some("dead".into());
    table.leases.push(lease("3", Some("b")));
    table.look(&["b", "dead"], start + SECOND * 21);
    table.leases[1].counter += 1;
    table.leases[2].counter += 1;
    let orders = table.look(&["b", "dead"], start + SECOND * 22);
    assert_eq!(orders, [("2".to_owned(), "dead".to_owned(), How::Assign)]);
}

#[test]
fn worker_reporting_after_expiry_is_trusted_once() {
    let start = Instant::now();
    let mut table = Table::new(vec![lease("0", Some("a")), lease("1", Some("b"))]);
    table.look(&["a", "b"], start);
    table.leases.iter_mut().for_each(|lease| lease.counter += 1);
    table.look(&["a", "b"], start + SECOND);
    // Only b continues; a wrote its last report before its lease expired.
    table.signs.insert("a".into(), start + SECOND * 2);
    table.leases[1].counter += 1;
    assert_eq!(table.look(&["a", "b"], start + SECOND * 12), [("0".into(), "b".into(), How::Assign)]);
    table.leases[0].owner = Some("b".into());
    table.leases.push(lease("2", None));
    table.leases.iter_mut().for_each(|lease| lease.counter += 1);
    assert_eq!(table.look(&["a", "b"], start + SECOND * 13), [("2".into(), "b".into(), How::Assign)]);
    // Started anew it reports, and is given what is free.
    table.signs.insert("a".into(), start + SECOND * 14);
    table.leases.iter_mut().for_each(|lease| lease.counter += 1);
    assert_eq!(table.look(&["a", "b"], start + SECOND * 15), [("2".into(), "a".into(), How::Assign)]);
    // It does nothing with it, and reports on.
    table.leases[2].owner = Some("a".into());
    for second in [16, 20, 25, 30, 35] {
        table.leases[..2].iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * second), []);
    }
    table.signs.insert("a".into(), start + SECOND * 36);
    table.leases[..2].iter_mut().for_each(|lease| lease.counter += 1);
    assert_eq!(table.look(&["a", "b"], start + SECOND * 40), [("2".into(), "b".into(), How::Assign)]);
    table.signs.insert("a".into(), start + SECOND * 60);
    table.leases[2].owner = None;
    table.leases.iter_mut().for_each(|lease| lease.counter += 1);
    assert_eq!(table.look(&["a", "b"], start + SECOND * 61), [("2".into(), "b".into(), How::Assign)]);
}

#[test]
fn restarted_worker_gets_its_share_at_its_next_report() {
    let start = Instant::now();
    let owned = |key: &str, owner| lease(key, Some(owner));
    let mut table = Table::new(vec![owned("0", "a"), owned("1", "b"), owned("2", "a"), owned("3", "b")]);
    table.look(&["a", "b"], start);
    let renew = |table: &mut Table, owner: &str| {
        let renewed = table.leases.iter_mut().filter(|lease| lease.owner == Some(owner.into()));
        renewed.for_each(|lease| lease.counter += 1);
    };
    ["a", "b"].iter().for_each(|owner| renew(&mut table, owner));
    table.look(&["a", "b"], start + SECOND * 5);
    // a dies without releasing its leases. Its last report is fresh for a while.
    for seconds in [10, 15] {
        renew(&mut table, "b");
        assert_eq!(table.look(&["a", "b"], start + SECOND * seconds), [], "after {seconds} s");
    }
    renew(&mut table, "b");
    let orders = table.look(&["a", "b"], start + SECOND * 16);
    assert!(orders.len() == 2 && orders.iter().all(|(_, to, _)| to == "b"), "{orders:?}");
    table
        .leases
        .iter_mut()
        .for_each(|lease| (lease.owner, lease.counter) = (Some("b".into()), lease.counter + 1));
    for seconds in [18, 20] {
        renew(&mut table, "b");
        assert_eq!(table.look(&["a", "b"], start + SECOND * seconds), [], "after {seconds} s");
    }
    table.signs.insert("a".into(), start + SECOND * 21);
    renew(&mut table, "b");
    let orders = table.look(&["a", "b"], start + SECOND * 22);
    let handed: Vec<_> = orders.iter().map(|(_, to, how)| (to.as_str(), *how)).collect();
    assert_eq!(handed, [("a", How::HandOff); 2]);
}

#[test]
fn single_expired_lease_causes_no_balance() {
    let start = Instant::now();
    let owned =
        |shards: std::ops::Range<usize>, owner| shards.map(move |n| lease(&n.to_string(), Some(owner)));
    let leases = owned(0..7, "a").chain(owned(7..8, "b"));
    let mut table = Table::new(leases.collect());
    // It has just ordered what is to move, which takes a while.
    assert!(!table.look(&["a", "b"], start).is_empty());
    for second in [2, 7, 12, 17, 22] {
        // a renews all but one, and reports.
        table.leases.iter_mut().skip(1).for_each(|lease| lease.counter += 1);
        if second == 2 {
            table.leases[0].counter += 1;
        }
        table.signs.insert("a".into(), start + SECOND * second);
        let orders = table.look(&["a", "b"], start + SECOND * second);
        assert!(orders.iter().all(|(key, _, how)| key == "0" && *how == How::Assign), "{orders:?}");
        if !orders.is_empty() {
            (table.leases[0].owner, table.leases[0].counter) = (Some("b".into()), 100);
        }
    }
}

#[test]
fn pending_handoff_is_left_alone_until_its_owner_dies() {
    let start = Instant::now();
    let mut table = Table::new(vec![lease("0", Some("b")), lease("1", Some("a"))]);
    table.leases[0].checkpoint_owner = Some("a".into());
    for second in 0..30 {
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * second), []);
    }
    let orders = table.look(&["b"], start + SECOND * 41);
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert!(orders.iter().all(|(_, to, how)| to == "b" && *how == How::Assign));
}

#[test]
fn stalled_handoff_is_assigned_again() {
    let start = Instant::now();
    for named in ["b", "gone"] {
        let mut table = Table::new(vec![lease("0", Some(named)), lease("1", Some("a"))]);
        table.leases[0].checkpoint_owner = Some("a".into());
        for second in 0..=80 {
            table.leases.iter_mut().for_each(|lease| lease.counter += 1);
            assert_eq!(table.look(&["a", "b"], start + SECOND * second), [], "after {second} s");
        }
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        let orders = table.look(&["a", "b"], start + SECOND * 81);
        assert_eq!(orders, [("0".to_owned(), "b".to_owned(), How::Assign)], "named: {named}");
    }
}

#[test]
fn lease_neglected_by_a_live_leader_is_noticed() {
    let start = Instant::now();
    let mut leases = vec![lease("0", None), lease("1", Some("a"))];
    let mut history = History::default();
    for look in 0..=2 {
        leases[1].counter += 1;
        history.note_scan(&leases, start + SECOND * 60 * look);
    }
    assert_eq!(neglected(&leases, &history, SECOND * 10, start + SECOND * 120), 0);
    assert_eq!(neglected(&leases, &history, SECOND * 10, start + SECOND * 121), 1);
}

#[test]
fn nothing_moves_without_reporting_workers() {
    let mut table = Table::new(vec![lease("0", None)]);
    assert_eq!(table.look(&[], Instant::now()), []);
}
