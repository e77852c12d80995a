//! Machines without resources for another record processor, and workers whose limits allow only a few leases.

use std::collections::BTreeMap;
use std::time::Duration;

use multilangd::lease::WorkerId;
use tokio::time::sleep;

use crate::denied::until_read;
use crate::story::{Story, simulate};
use crate::world::FAILOVER;

const SECOND: Duration = Duration::from_secs(1);

/// Open leases by owner.
fn owned(story: &Story) -> BTreeMap<WorkerId, usize> {
    let mut owned = BTreeMap::new();
    for lease in story.world.state().rows.values().filter(|lease| !lease.is_complete()) {
        if let Some(owner) = lease.actual_owner() {
            *owned.entry(owner.clone()).or_default() += 1;
        }
    }
    owned
}

/// The longest time, over several seeds, until three workers read everything, although the first has resources
/// for one child only.
fn longest(led: bool) -> Duration {
    let times = (0..8).map(|seed| {
        simulate(seed, async {
            let mut story = Story::new(seed, 9, None, led);
            story.world.state().child_limits.insert("w001".into(), 1);
            for _ in 0..3 {
                story.join(None);
            }
            story.put(60);
            let time = until_read(&story, SECOND * 600).await;
            assert_eq!(story.world.state().oracle.violations, Vec::<String>::new());
            time
        })
    });
    let times: Vec<Duration> = times.collect();
    println!("led: {led}: {times:?}");
    times.into_iter().max().unwrap()
}

#[test]
fn led_worker_without_resources_releases_leases() {
    let longest = longest(true);
    assert!(longest <= FAILOVER * 7, "{longest:?}");
}

#[test]
fn kcl_2_worker_without_resources_releases_leases() {
    let longest = longest(false);
    assert!(longest <= FAILOVER * 7, "{longest:?}");
}

#[test]
fn lone_worker_without_resources_keeps_its_leases() {
    for led in [true, false] {
        simulate(1, async {
            let mut story = Story::new(1, 6, None, led);
            story.world.state().child_limits.insert("w001".into(), 2);
            story.join(None);
            story.put(60);
            sleep(FAILOVER * 2).await;
            let before = owned(&story);
            assert!(before[&WorkerId::from("w001")] > 2, "{before:?}");
            sleep(FAILOVER * 12).await;
            assert!(!story.is_read());
            assert!(owned(&story) >= before, "no other worker can acquire them: {:?}", owned(&story));
            story.world.state().child_limits.clear();
            let time = until_read(&story, SECOND * 60).await;
            // A worker in a led fleet reports with its next worker metrics, at most 30 s later, that it can
            // take more leases.
            assert!(time <= SECOND * 45, "{time:?}");
        });
    }
}

#[test]
fn worker_acquires_no_more_leases_than_allowed() {
    for led in [true, false] {
        simulate(2, async {
            let mut story = Story::new(2, 8, None, led);
            story.capacity = 3;
            let first = story.join(None);
            for _ in 0..40 {
                sleep(FAILOVER / 4).await;
                assert!(owned(&story).get(&first).copied().unwrap_or(0) <= 3, "{:?}", owned(&story));
            }
            assert_eq!(owned(&story)[&first], 3);
            story.join(None);
            story.join(None);
            story.put(60);
            let time = until_read(&story, SECOND * 300).await;
            assert!(time <= FAILOVER * 4, "{time:?}");
            assert!(owned(&story).values().all(|leases| *leases <= 3), "{:?}", owned(&story));
        });
    }
}

/// The owners of the open leases, with the next ones during handoffs.
fn owners(story: &Story) -> Vec<(Option<WorkerId>, Option<WorkerId>)> {
    let state = story.world.state();
    let open = state.rows.values().filter(|lease| !lease.is_complete());
    open.map(|lease| (lease.owner.clone(), lease.checkpoint_owner.clone())).collect()
}

#[test]
fn limited_worker_gets_no_more_than_it_reports() {
    for seed in 0..8 {
        simulate(seed, async {
            let mut story = Story::new(seed, 9, None, true);
            let leader = story.join(None);
            sleep(FAILOVER * 3).await;
            story.capacity = 2;
            let limited = story.join(None);
            // Two reports of the new worker, and the leader's rounds that follow.
            sleep(FAILOVER * 12).await;
            let settled = owners(&story);
            let mut moves = 0;
            for _ in 0..160 {
                sleep(FAILOVER / 8).await;
                let now = owners(&story);
                moves += now.iter().zip(&settled).filter(|(now, before)| now != before).count();
            }
            let owned = owned(&story);
            assert_eq!(moves, 0, "seed {seed}: {owned:?}");
            assert_eq!((owned[&leader], owned[&limited]), (7, 2), "seed {seed}");
            story.put(60);
            let time = until_read(&story, SECOND * 60).await;
            assert!(time <= FAILOVER * 2, "seed {seed}: {time:?}");
            assert_eq!(story.world.state().oracle.violations, Vec::<String>::new());
        });
    }
}

#[test]
fn stopping_worker_passes_leases_only_to_workers_with_room() {
    for seed in 0..8 {
        simulate(seed, async {
            let mut story = Story::new(seed, 9, None, true);
            story.join(None);
            story.join(None);
            sleep(FAILOVER * 6).await;
            story.capacity = 1;
            let limited = story.join(None);
            sleep(FAILOVER * 12).await;
            assert_eq!(owned(&story).get(&limited), Some(&1), "seed {seed}: {:?}", owned(&story));
            story.stop(1);
            for _ in 0..40 {
                sleep(SECOND / 4).await;
                let named =
                    owners(&story).into_iter().filter(|(owner, _)| owner.as_ref() == Some(&limited)).count();
                assert!(named <= 1, "seed {seed}: {named} leases for a worker with room for one");
            }
            assert!(story.is_covered_by_live_workers(), "seed {seed}: {:?}", owned(&story));
        });
    }
}
