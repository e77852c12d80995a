//! From KCL 2's way to KCL 3's: a fleet that is ready for ten minutes goes on by itself, an operator's tool
//! takes it back, and it goes on again. What is told here in a moment takes half an hour.

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

fn tool_sets(story: &Story, from: Generation, to: Generation) {
    let mut state = story.world.state();
    let row = state.fleet.generation[&StateLocation::Leases].next(to, &WorkerId::from("a tool"), wall());
    state.fleet.write_generation(StateLocation::Leases, Some(from), &row).unwrap();
}

/// Records are put, read and shared out all the while.
async fn goes_on(story: &Story) {
    story.put(20);
    until("what was put is read", MINUTE, || story.is_read()).await;
    let violations = &story.world.state().oracle.violations;
    assert!(violations.is_empty(), "{violations:?}");
}

async fn there_and_back(seed: u64) {
    let mut story = Story::new(seed, 8, None, false);
    story.is_compatible();
    for _ in 0..3 {
        story.join(None);
    }
    until("the shares are even", MINUTE * 2, || story.is_settled()).await;
    assert_eq!(state(&story), Some(Generation::Upgrade));
    assert!(!leader(&story), "KCL 2's way");

    // Ten minutes, looked at each minute: a worker that is gone for less is noticed only if a look falls into that time,
    // and then the ten minutes begin again.
    let ready = Instant::now();
    sleep(MINUTE * 5).await;
    assert_eq!(state(&story), Some(Generation::Upgrade));
    let silent = story.kill(0);
    until("the others have all", MINUTE, || story.is_settled()).await;
    story.join(Some(silent));
    until("the fleet is ready", MINUTE * 14, || state(&story) == Some(Generation::Revocable)).await;
    assert!(ready.elapsed() >= MINUTE * 10 && ready.elapsed() < MINUTE * 18, "{:?}", ready.elapsed());
    until("somebody leads", MINUTE * 2, || leader(&story)).await;
    goes_on(&story).await;
    story.kill(1);
    until("its leases are given to the others", SECOND * 30, || story.is_covered_by_the_living()).await;
    story.join(None);
    goes_on(&story).await;

    tool_sets(&story, Generation::Revocable, Generation::TwoX);
    until("nobody leads", MINUTE * 2, || !leader(&story)).await;
    until("the shares are even again", MINUTE * 3, || story.is_settled()).await;
    goes_on(&story).await;
    tool_sets(&story, Generation::TwoX, Generation::Upgrade);
    until("it is ready again", MINUTE * 15, || state(&story) == Some(Generation::Revocable)).await;
    until("somebody leads again", MINUTE * 2, || leader(&story)).await;
    goes_on(&story).await;
}

#[test]
fn a_fleet_goes_to_kcl_3_by_itself_back_when_it_is_told_to_and_on_again() {
    for seed in 0..8 {
        simulate(seed, there_and_back(seed));
    }
}
