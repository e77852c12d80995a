//! A fleet whose leases begin at the latest record, with faults before the first checkpoints: records put since the first
//! owner began to read are delivered, whoever owns the lease when its first checkpoint is stored.
//!
//! ```text
//! SEED=123 cargo test --test fleet latest                    one run
//! SEEDS=10000 cargo test --release --test fleet latest       many
//! ```

use std::time::Duration;

use tokio::time::sleep;

use crate::story::{Plan, Report, Story, simulate};
use crate::streams::runs;
use crate::world::{Bug, Network};

const SECOND: Duration = Duration::from_secs(1);
/// Seconds in which nothing fails, so that every shard is being read at its latest record.
const QUIET: u32 = 20;
/// Seconds of faults from the first record on.
const FAULTS: u32 = 60;

async fn begun_at_latest(plan: Plan) -> Report {
    let mut story = Story::new(plan.seed, 4, plan.bug, plan.led);
    story.begins_at_latest();
    story.join(None);
    story.join(None);
    // Records that are put before a shard is first read are not required.
    while !(story.is_settled() && story.is_begun()) {
        sleep(SECOND).await;
        story.reap();
    }
    sleep(SECOND * QUIET).await;
    for _ in 0..FAULTS {
        let records = story.pick(2);
        story.put(records);
        sleep(SECOND).await;
        story.reap();
        match story.pick(16) {
            0 | 1 => story.join_one(),
            2 => story.stop_one(),
            3 | 4 => story.kill_one(),
            5 => story.cut_off(),
            6 => story.freeze(),
            7 => story.world.state().network = Network::BAD,
            8 => story.world.state().network = Network::FINE,
            _ => {}
        }
    }
    story.calm(plan).await;
    story.end().await
}

#[test]
fn records_before_the_first_checkpoint_outlive_their_worker() {
    runs(|plan| simulate(plan.seed, begun_at_latest(plan)));
}

#[test]
fn owner_that_begins_at_latest_again_skips_records() {
    let found = (0..40).any(|seed| {
        let plan = Plan { bug: Some(Bug::BeginsAtLatestAgain), long: false, ..Plan::of(seed) };
        let report = simulate(plan.seed, begun_at_latest(plan));
        report.violations.iter().any(|violation| violation.starts_with("undelivered:"))
    });
    assert!(found, "no record is skipped");
}
