//! Fleets whose workers lack a permission, or whose index, leader lock or worker metrics fail: every shard is
//! read nevertheless.

use std::time::Duration;

use multilangd::fleet::report::Recorder;
use multilangd::fleet::rows::StateLocation;
use multilangd::lease::WorkerId;
use tokio::time::{Instant, sleep};

use crate::story::{Story, simulate, wall};
use crate::world::{Denied, FAILOVER};

const SECOND: Duration = Duration::from_secs(1);

/// The virtual time until every record is read.
pub async fn until_read(story: &Story, limit: Duration) -> Duration {
    let start = Instant::now();
    while !(story.is_read() && story.is_covered_by_live_workers()) {
        if start.elapsed() > limit {
            return Duration::MAX;
        }
        sleep(SECOND / 10).await;
    }
    start.elapsed()
}

/// The longest time, over several seeds, until a new fleet reads everything.
fn longest(workers: usize, denied: Denied, tables: bool) -> Duration {
    let times = (0..8).map(|seed| {
        simulate(seed, async {
            let mut story = Story::new(seed, 8, None, true);
            if tables {
                story.with_side_tables();
            }
            story.world.state().denied = denied;
            for _ in 0..workers {
                story.join(None);
            }
            story.put(60);
            let first = until_read(&story, SECOND * 300).await;
            // The child shards of a later split are read as well.
            sleep(FAILOVER * 2).await;
            story.reshard(16);
            story.put(60);
            let second = until_read(&story, SECOND * 300).await;
            assert_eq!(story.world.state().oracle.violations, Vec::<String>::new());
            first.max(second)
        })
    });
    let times: Vec<Duration> = times.collect();
    println!("{denied:?}, {workers} workers: {times:?}");
    times.into_iter().max().unwrap()
}

#[test]
fn every_shard_is_read_when_nothing_is_denied() {
    let longest = longest(3, Denied::default(), false);
    assert!(longest <= FAILOVER * 5 / 2, "{longest:?}");
}

#[test]
fn denied_owner_index_leaves_no_shard_unread() {
    let denied = Denied { query: true, ..Denied::default() };
    let longest = [1, 3].map(|workers| longest(workers, denied, false));
    // About as long as with all permissions: of 60 seeds the longest take 25.6 and 24.1 s.
    assert!(longest.iter().all(|time| *time <= FAILOVER * 3), "{longest:?}");
}

#[test]
fn empty_owner_index_leaves_no_shard_unread() {
    let denied = Denied { empty_index: true, ..Denied::default() };
    let longest = [1, 3].map(|workers| longest(workers, denied, false));
    // A worker without leases scans every half failover time.
    assert!(longest.iter().all(|time| *time <= FAILOVER * 3), "{longest:?}");
}

#[test]
fn unwritable_leader_lock_leaves_no_shard_unread() {
    let denied = Denied { lock_writes: true, ..Denied::default() };
    let longest = [1, 3].map(|workers| longest(workers, denied, false));
    assert!(longest.iter().all(|time| *time <= FAILOVER * 6), "{longest:?}");
}

#[test]
fn unreadable_leader_lock_leaves_no_shard_unread() {
    let denied = Denied { lock_reads: true, lock_writes: true, ..Denied::default() };
    let longest = [1, 3].map(|workers| longest(workers, denied, false));
    assert!(longest.iter().all(|time| *time <= FAILOVER * 6), "{longest:?}");
}

#[test]
fn unreadable_worker_metrics_leave_no_shard_unread() {
    let denied = Denied { report_reads: true, ..Denied::default() };
    let longest = [(1, false), (3, false), (1, true), (3, true)]
        .map(|(workers, tables)| longest(workers, denied, tables));
    assert!(longest.iter().all(|time| *time <= FAILOVER * 3), "{longest:?}");
}

#[test]
fn unwritable_worker_metrics_leave_no_shard_unread() {
    let denied = Denied { report_writes: true, ..Denied::default() };
    let longest = [(1, false), (3, false), (1, true), (3, true)]
        .map(|(workers, tables)| longest(workers, denied, tables));
    assert!(longest.iter().all(|time| *time <= FAILOVER * 3), "{longest:?}");
}

/// With backoff, a throttled table is not called several times a second.
#[test]
fn denied_leader_lock_is_retried_with_backoff() {
    let calls = simulate(1, async {
        let mut story = Story::new(1, 4, None, true);
        story.world.state().denied.lock_writes = true;
        story.join(None);
        sleep(SECOND * 600).await;
        story.world.state().calls.get("LockItem").copied().unwrap_or(0)
    });
    println!("{calls} writes of the leader lock in 10 minutes");
    assert!(calls <= 60, "{calls}");
}

/// A worker that can list leases neither by the index nor by a scan gets no leases, because it would not read
/// them.
#[test]
fn worker_that_cannot_list_leases_is_assigned_none() {
    let took = simulate(2, async {
        let mut story = Story::new(2, 8, None, true);
        story.join(None);
        story.join(None);
        story.put(30);
        assert!(until_read(&story, SECOND * 60).await < SECOND * 60);
        sleep(FAILOVER * 6).await;
        let blind = story.join(None);
        sleep(FAILOVER * 6).await;
        let denied = Denied { query: true, scan: true, ..Denied::default() };
        let until = Instant::now() + SECOND * 3_600;
        story.world.state().faults.entry(blind.clone()).or_default().denied = Some((until, denied));
        // Until the worker has noticed and reported it.
        sleep(FAILOVER * 4).await;
        let mut longest = Duration::ZERO;
        for _ in 0..12 {
            // The leader assigns new leases to the worker with the fewest.
            story.reshard(40);
            story.put(40);
            longest = longest.max(until_read(&story, SECOND * 300).await);
            sleep(FAILOVER * 3).await;
        }
        longest
    });
    println!("{took:?}");
    assert!(took <= FAILOVER * 3 / 2, "{took:?}");
}

/// A dead worker whose clock was an hour ahead, or whose report was dated in milliseconds instead of seconds.
#[test]
fn dead_worker_with_future_report_is_assigned_no_leases() {
    for ahead in [3_600, wall()] {
        let took = simulate(3, async {
            let mut story = Story::new(3, 8, None, true);
            let ghost = WorkerId::from("ghost");
            let report = Recorder::new(false, 1).report(&ghost, wall() / 1_000 + ahead);
            story.world.state().fleet.reports.insert((StateLocation::Leases, ghost.to_string()), report);
            story.join(None);
            story.join(None);
            let mut unread = Duration::ZERO;
            for _ in 0..1_200 {
                sleep(SECOND).await;
                unread += SECOND * u32::from(story.owners().contains_key(&Some(ghost.clone())));
            }
            let reports = &story.world.state().fleet.reports;
            let there = reports.contains_key(&(StateLocation::Leases, ghost.to_string()));
            println!("leases of a dead worker for {unread:?} of 1200 s, its report there: {there}");
            assert!(!there);
            unread
        });
        assert!(took <= FAILOVER * 12, "{took:?}");
    }
}
