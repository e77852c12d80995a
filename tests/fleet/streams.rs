//! Streams that are deleted and created again with another number of shards, workers that are configured with
//! another stream, and rows of the lease table that an operator deletes or finishes: within two audits every
//! open shard of the configured stream is read, and none of its checkpoints is lost.
//!
//! ```text
//! SEED=123 cargo test --test fleet streams                    one run
//! SEEDS=10000 cargo test --release --test fleet streams       many
//! ```

use std::time::Duration;

use multilangd::sequence::Sequence;
use tokio::time::{Instant, sleep};

use crate::story::{Plan, Report, Story, simulate};
use crate::world::{Bug, Network};
use crate::{number, run_seeds};

/// The number of seeds in a run without `SEEDS`.
const SEEDS: u64 = 150;
const SECOND: Duration = Duration::from_secs(1);
/// `shardSyncIntervalMillis`, the minimum interval between two audits that list the shards.
const AUDIT: Duration = Duration::from_secs(60);
/// Two audits, until leases have owners, and until failed children have restarted.
const READ: Duration = Duration::from_secs(2 * 60 + 60);

/// Waits until everything is read and every open shard has a live owner.
async fn settle(story: &mut Story, what: &str) {
    let began = Instant::now();
    while !(story.is_settled() && story.is_read()) {
        sleep(SECOND).await;
        story.reap();
        if began.elapsed() > READ {
            let owners = story.owners();
            let (rows, open) = {
                let state = story.world.state();
                (format!("{:?}", state.rows.values().collect::<Vec<_>>()), state.stream.open_shards())
            };
            let what = format!("{what}: after {READ:?} of {open:?}: {owners:?}, rows {rows}");
            story.world.state().oracle.violated("unread", what);
            return;
        }
    }
}

/// Ends all faults.
fn end_faults(story: &Story) {
    let mut state = story.world.state();
    state.network = Network::FINE;
    state.faults.clear();
}

/// Injects faults and operator mistakes for some seconds.
async fn inject_faults(story: &mut Story, seconds: u32, by_hand: bool) {
    for _ in 0..seconds {
        sleep(SECOND).await;
        story.reap();
        let records = story.pick(8);
        story.put(records);
        match story.pick(24) {
            0 => story.join_one(),
            1 => story.stop_one(),
            2 => story.kill_one(),
            3 => story.join_with_another_stream(),
            4 => story.cut_off(),
            5 => story.freeze(),
            6 => story.world.state().network = Network::BAD,
            7 => story.world.state().network = Network::FINE,
            8 if by_hand => story.finish_by_hand(),
            9 if by_hand => story.delete_some_row(),
            _ => {}
        }
    }
}

async fn recreated(plan: Plan) -> Report {
    let mut story = Story::new(plan.seed, 4, plan.bug, plan.led);
    story.join(None);
    story.join(None);
    story.put(40);
    settle(&mut story, "the first stream").await;
    for round in 0..2 {
        inject_faults(&mut story, 15, false).await;
        let shards = 1 + story.pick(6) as u128;
        story.create_again(shards);
        story.put(30);
        inject_faults(&mut story, 15, false).await;
        end_faults(&story);
        settle(&mut story, "the stream was recreated").await;
        // Its shards get the names of shards of the earlier stream.
        for _ in 0..3 {
            story.reshard(8);
            story.put(20);
        }
        inject_faults(&mut story, 10, false).await;
        end_faults(&story);
        settle(&mut story, "the stream was resharded").await;
        if round == 0 {
            inject_faults(&mut story, 20, true).await;
            end_faults(&story);
            settle(&mut story, "rows were deleted and finished by hand").await;
        }
    }
    story.calm(plan).await;
    story.end().await
}

/// If created leases begin at the latest record, only the holder of a lease knows the checkpoint of a deleted
/// row.
async fn deleted(plan: Plan) -> Report {
    let mut story = Story::new(plan.seed, 4, plan.bug, plan.led);
    story.begins_at_latest();
    story.join(None);
    story.join(None);
    // Records that are put before a shard is first read are not required.
    while !(story.is_settled() && story.is_begun()) {
        sleep(SECOND).await;
    }
    sleep(SECOND * 20).await;
    // Nor are records put while a lease that was never checkpointed is missing.
    story.put(60);
    let is_stored = |story: &Story| {
        let state = story.world.state();
        state.rows.values().all(|row| matches!(row.checkpoint.sequence, Sequence::Number(_)))
    };
    while !(story.is_read() && is_stored(&story)) {
        story.put(1);
        sleep(SECOND).await;
    }
    for _ in 0..40 {
        story.put(3);
        sleep(SECOND).await;
        match story.pick(6) {
            0 => story.delete_some_row(),
            1 => story.world.state().network = Network { refused: 60, answer_lost: 60, ..Network::FINE },
            2 => story.world.state().network = Network::FINE,
            _ => {}
        }
    }
    end_faults(&story);
    settle(&mut story, "rows were deleted by hand").await;
    story.calm(plan).await;
    story.end().await
}

pub fn runs(story: impl Fn(Plan) -> Report + Sync) {
    let seeds: Vec<u64> = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
    };
    let reports = run_seeds(seeds.into_iter(), |seed| story(Plan { long: false, ..Plan::of(seed) }));
    let failures = reports.iter().filter(|(_, report)| !report.violations.is_empty());
    let failures: Vec<String> = failures
        .map(|(seed, report)| format!("SEED={seed}:\n  {}", report.violations.join("\n  ")))
        .collect();
    let shown = failures.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
    let mut coverage = std::collections::BTreeMap::<&str, u64>::new();
    for (_, report) in &reports {
        report.coverage.iter().for_each(|(what, count)| *coverage.entry(what).or_default() += count);
    }
    println!("{} runs: {coverage:#?}", reports.len());
    assert!(failures.is_empty(), "{} of {} runs failed:\n{shown}", failures.len(), reports.len());
}

#[test]
fn recreated_streams_and_changed_rows_leave_no_shard_unread() {
    assert!(AUDIT * 2 < READ);
    runs(|plan| simulate(plan.seed, recreated(plan)));
}

#[test]
fn rows_deleted_by_hand_skip_no_record_at_latest() {
    runs(|plan| simulate(plan.seed, deleted(plan)));
}

/// Each rule is necessary: without it an invariant is violated.
#[test]
fn each_missing_rule_about_streams_violates_an_invariant() {
    let cases = [
        (Bug::SeesOneStream, "unread", false),
        (Bug::TakesTheWrongStream, "foreign-write", false),
        (Bug::BelievesFinishedRows, "unread", false),
        (Bug::ForgetsDeletedRows, "undelivered", true),
    ];
    for (bug, invariant, deletes) in cases {
        let found = (0..40).find(|seed| {
            let plan = Plan { bug: Some(bug), long: false, ..Plan::of(*seed) };
            let report = simulate(plan.seed, async {
                if deletes { deleted(plan).await } else { recreated(plan).await }
            });
            report.violations.iter().any(|violation| violation.starts_with(&format!("{invariant}:")))
        });
        assert!(found.is_some(), "{bug:?} does not violate {invariant}");
    }
}
