//! Records that are too old to be delivered (`multilangd.maxRecordAgeMillis`), beside bad records and the faults of
//! [`bad`](crate::bad): every record put is processed, in a dead letter, or skipped where the settings say so, and none is
//! passed for its age while it is young.
//!
//! ```text
//! SEED=123 cargo test --test fleet aged                    one run
//! SEEDS=10000 cargo test --release --test fleet aged       many
//! ```

use std::collections::BTreeMap;

use crate::bad::{Kind, calm, inject_faults};
use crate::story::{Report, Story, simulate};
use crate::world::Bug;
use crate::{number, run_seeds};

/// The number of seeds in a run without `SEEDS`.
const SEEDS: u64 = 60;
/// The greatest age of a record: shorter than many of the faults.
const MAX_AGE: i64 = 15_000;

fn run(seed: u64, bug: Option<Bug>) -> Report {
    simulate(seed, async {
        let mut story = Story::new(seed, 3, bug, seed.is_multiple_of(2));
        let kind = Kind { outages: false, ..Kind::of(seed / 4) };
        story.has_bad_records(kind.bad_rate);
        let (skips, is_ahead) = (seed % 4 >= 2, seed % 8 >= 4 && bug.is_none());
        story.limits_age(MAX_AGE, skips, is_ahead);
        inject_faults(&mut story, kind).await;
        calm(&mut story).await;
        {
            let mut state = story.world.state();
            let unsettled = state.ledger.as_ref().unwrap().all_unsettled(&state.stream);
            if !unsettled.is_empty() {
                state.oracle.violated("neither", format!("neither processed nor passed: {unsettled:?}"));
            }
        }
        story.end().await
    })
}

#[test]
fn aged_records_are_in_letters_or_skipped_and_no_other_is_lost() {
    let seeds: Vec<u64> = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
    };
    let many = seeds.len() >= 60;
    let mut coverage: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut failures, mut records, mut count) = (Vec::new(), 0, 0);
    for (seed, report) in run_seeds(seeds.into_iter(), |seed| run(seed, None)) {
        if !report.violations.is_empty() {
            failures.push(format!("SEED={seed}:\n  {}", report.violations.join("\n  ")));
        }
        report.coverage.iter().for_each(|(what, count)| *coverage.entry(what).or_default() += count);
        (records, count) = (records + report.records, count + 1);
    }
    println!("{count} runs, {records} records; {coverage:#?}");
    let shown = failures[..failures.len().min(5)].join("\n");
    assert!(failures.is_empty(), "{} of {count} failed:\n{shown}", failures.len());
    for what in [
        "wrote a letter of an old record",
        "stored some of several letters",
        "skipped old records",
        "a dead letter was rejected",
    ] {
        let times = coverage.get(what).copied().unwrap_or(0);
        assert!(!many || times >= 10, "rarely covered: {what}: {coverage:#?}");
    }
}

/// Each invariant is effective: the fault that it covers violates it by name.
#[test]
fn aged_records_each_fault_violates_its_invariant() {
    for (bug, invariant, seeds) in [
        (Bug::ClockIsAhead, "young-passed", 0..20),
        (Bug::LosesLetters, "checkpoint-unsettled", 0..40),
        (Bug::ConfirmsTooMany, "checkpoint-unsettled", 0..40),
        (Bug::SkipsARecord, "gap", 0..40),
    ] {
        let name = format!("{invariant}:");
        let found = seeds
            .clone()
            .find(|seed| run(*seed, Some(bug)).violations.iter().any(|one| one.starts_with(&name)));
        assert!(found.is_some(), "{bug:?} does not violate {invariant}");
    }
}
