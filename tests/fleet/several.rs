//! Fleets that read several streams of one lease table, with the faults of [`crate::a_fleet_keeps_every_invariant_under_faults`].
//! The invariants hold for each stream: their shards have the same ids.
//!
//! ```text
//! SEED=123 cargo test --test fleet several                    one run
//! SEEDS=10000 cargo test --release --test fleet several       many
//! ```

use crate::story::{Listing, Plan, Report, Story, simulate};
use crate::world::Bug;
use crate::{number, run_seeds};

/// The number of seeds in a run without `SEEDS`.
const SEEDS: u64 = 24;
/// Shards of each stream.
const SHARDS: u128 = 8;

fn run(plan: Plan) -> Report {
    simulate(plan.seed, async {
        let names = ["orders", "payments", "refunds"];
        let mut story = Story::of_streams(plan.seed, &names, SHARDS, plan.bug, plan.led);
        story.world.state().denied = plan.denied;
        let after = 2 + usize::try_from(plan.seed % 5).unwrap();
        story.listing = match plan.seed % 3 {
            0 => Listing::All,
            1 => Listing::Added { after },
            _ => Listing::Removed { after },
        };
        story.inject_faults(plan.faults).await;
        story.calm(plan).await;
        story.end().await
    })
}

#[test]
fn several_streams_keep_every_invariant_under_faults() {
    let seeds: Vec<u64> = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).collect(),
        (None, None) => (0..SEEDS).collect(),
    };
    let many = seeds.len() >= 24;
    let reports = run_seeds(seeds.into_iter(), |seed| run(Plan::of(seed)));
    let failures: Vec<String> = reports
        .iter()
        .filter(|(_, report)| !report.violations.is_empty())
        .map(|(seed, report)| format!("SEED={seed}:\n  {}", report.violations.join("\n  ")))
        .collect();
    let shown = failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {} runs failed:\n{shown}", failures.len(), reports.len());
    for what in [
        "checkpointed a shard end",
        "deleted a finished lease",
        "stole a lease",
        "a worker was killed",
        "a worker does not list a stream",
    ] {
        let count: u64 = reports.iter().filter_map(|(_, report)| report.coverage.get(what)).sum();
        assert!(!many || count >= 10, "rarely covered: {what}: {count}");
    }
}

/// Each invariant is effective with several streams.
#[test]
fn several_streams_violate_each_invariant_by_an_injected_fault() {
    for (bug, invariant) in [
        (Bug::MixesStreams, "undelivered"),
        (Bug::MixesStreams, "another-stream"),
        (Bug::ReadsListedOnly, "undelivered"),
        (Bug::TakesParentsForEnded, "parents-first"),
        (Bug::SkipsARecord, "gap"),
        (Bug::IgnoresConditions, "fence"),
        (Bug::TakesChildrenForBegun, "early-delete"),
        (Bug::EndsEarly, "early-end"),
    ] {
        let found = (0..60).find(|seed| {
            let plan = Plan { bug: Some(bug), long: true, ..Plan::of(*seed) };
            run(plan).violations.iter().any(|violation| violation.starts_with(&format!("{invariant}:")))
        });
        assert!(found.is_some(), "{bug:?} does not violate {invariant}");
    }
}
