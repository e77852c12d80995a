//! The migration from KCL 2.x to KCL 3.x: a fleet that has been ready for ten minutes switches to KCL 3.x, an
//! operator's tool rolls it back, and it switches again. Virtual time: half an hour takes moments.

use std::time::Duration;

use multilangd::fleet::rows::{Generation, StateLocation};
use multilangd::lease::WorkerId;
use tokio::time::{Instant, sleep};

use crate::story::{Story, simulate, wall};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn state(story: &Story) -> Option<Generation> {
    story.world.state().fleet.generation.get(&StateLocation::Leases).map(|row| row.now.state)
}

fn leader(story: &Story) -> bool {
    !story.world.state().fleet.lock.is_empty()
}

async fn until(what: &str, limit: Duration, mut reached: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() <= limit, "{what}: not within {limit:?}");
        sleep(SECOND).await;
    }
    start.elapsed()
}

fn set_generation_by_tool(story: &Story, from: Generation, to: Generation) {
    let mut state = story.world.state();
    let row = state.fleet.generation[&StateLocation::Leases].next(to, &WorkerId::from("a tool"), wall());
    state.fleet.write_generation(StateLocation::Leases, Some(from), &row).unwrap();
}

/// Checks that records are put and read and that the leases are evenly shared.
async fn assert_reading_and_even(story: &Story) {
    story.put(20);
    until("every record is read", MINUTE, || story.is_read()).await;
    let violations = &story.world.state().oracle.violations;
    assert!(violations.is_empty(), "{violations:?}");
}

async fn switch_roll_back_and_switch(seed: u64) {
    let mut story = Story::new(seed, 8, None, false);
    story.is_compatible();
    for _ in 0..3 {
        story.join(None);
    }
    until("the shares are even", MINUTE * 2, || story.is_settled()).await;
    assert_eq!(state(&story), Some(Generation::Upgrade));
    assert!(!leader(&story), "KCL 2.x mode");

    // Ten minutes, checked each minute: a shorter absence of a worker is noticed only if a check falls into it,
    // and then the ten minutes start again.
    let ready = Instant::now();
    sleep(MINUTE * 5).await;
    assert_eq!(state(&story), Some(Generation::Upgrade));
    let silent = story.kill(0);
    until("the other workers own all leases", MINUTE, || story.is_settled()).await;
    story.join(Some(silent));
    until("the fleet is ready", MINUTE * 14, || state(&story) == Some(Generation::Revocable)).await;
    assert!(ready.elapsed() >= MINUTE * 10 && ready.elapsed() < MINUTE * 18, "{:?}", ready.elapsed());
    until("a leader is elected", MINUTE * 2, || leader(&story)).await;
    assert_reading_and_even(&story).await;
    story.kill(1);
    until("its leases are assigned to other workers", SECOND * 30, || story.is_covered_by_live_workers())
        .await;
    story.join(None);
    assert_reading_and_even(&story).await;

    set_generation_by_tool(&story, Generation::Revocable, Generation::TwoX);
    until("no worker leads", MINUTE * 2, || !leader(&story)).await;
    until("the shares are even again", MINUTE * 3, || story.is_settled()).await;
    assert_reading_and_even(&story).await;
    set_generation_by_tool(&story, Generation::TwoX, Generation::Upgrade);
    until("the fleet is ready again", MINUTE * 15, || state(&story) == Some(Generation::Revocable)).await;
    until("a leader is elected again", MINUTE * 2, || leader(&story)).await;
    assert_reading_and_even(&story).await;
}

#[test]
fn migration_to_kcl_3_can_be_rolled_back_and_repeated() {
    for seed in 0..8 {
        simulate(seed, switch_roll_back_and_switch(seed));
    }
}
