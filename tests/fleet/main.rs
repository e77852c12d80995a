//! Whole fleets in one process: the daemon as it is, on ports in memory, one paused clock and one seed.
//!
//! Everything but the ports is what runs in production: leases, consumers, the conversation with children.
//! The ports delay, refuse, lose answers, carry writes out late or twice and show stale rows; workers are
//! killed, stopped, cut off and frozen; shards split and merge. After every write and every batch the
//! invariants of [`oracle`] hold. What chance does hangs on the seed alone, so a run that fails is run again
//! by it:
//!
//! ```text
//! SEED=123 cargo test --test fleet a_fleet_keeps                  one run
//! SEEDS=10000 cargo test --release --test fleet a_fleet_keeps     many
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

mod calm;
mod child;
mod denied;
mod expired;
mod generations;
mod links;
mod oracle;
mod scale;
mod shortage;
mod story;
mod stream;
mod streams;
mod world;

use std::collections::BTreeMap;

use story::{Plan, Report, run};
use world::{Bug, Denied};

/// The number of seeds of a plain run; CONTRIBUTING.md has the command for more.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} = {text:?} is no number")))
}

/// Runs of many seeds, on as many threads as there are processors.
fn runs(seeds: impl Iterator<Item = u64>, plan: impl Fn(u64) -> Plan + Sync) -> Vec<(u64, Report)> {
    run_seeds(seeds, |seed| run(plan(seed)))
}

fn run_seeds(seeds: impl Iterator<Item = u64>, story: impl Fn(u64) -> Report + Sync) -> Vec<(u64, Report)> {
    let seeds = std::sync::Mutex::new(seeds.collect::<Vec<_>>().into_iter());
    let reports = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else { return };
                    let report = story(seed);
                    reports.lock().unwrap().push((seed, report));
                }
            });
        }
    });
    reports.into_inner().unwrap()
}

#[test]
fn a_fleet_keeps_every_promise_whatever_happens_to_it() {
    let seeds: Vec<u64> = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).collect(),
        (None, None) => (0..SEEDS).collect(),
    };
    let many = seeds.len() > 100;
    let reports = runs(seeds.into_iter(), Plan::of);
    let mut coverage: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut records, mut deliveries) = (0, 0);
    let mut failures = Vec::new();
    for (seed, report) in &reports {
        if !report.violations.is_empty() {
            failures.push(format!("SEED={seed}:\n  {}", report.violations.join("\n  ")));
        }
        report.coverage.iter().for_each(|(what, count)| *coverage.entry(what).or_default() += count);
        records += report.records;
        deliveries += report.deliveries;
    }
    println!("{} runs, {records} records, {deliveries} deliveries; {coverage:#?}", reports.len());
    let shown = failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {} runs failed:\n{shown}", failures.len(), reports.len());
    // A run in which nothing happens would prove nothing.
    let interesting = [
        "took a free lease",
        "took its own lease again",
        "took another's lease",
        "released",
        "nudged",
        "refused a write",
        "refused",
        "throttled",
        "an answer was lost",
        "a write came late",
        "a write was tried twice",
        "a shard was split",
        "two shards were merged",
        "ended a shard",
        "deleted a finished lease",
        "delivered a record again",
        "a checkpoint was refused",
        "a child died",
        "a worker joined",
        "a worker was stopped",
        "a worker was killed",
        "a worker was cut off",
        "a worker froze",
        "a permission was taken away",
        "denied a request",
        "took the lead",
        "gave the lead back",
        "gave a lease to another",
        "opened a hand-off",
        "closed a hand-off",
        "moved the rows into one table",
        "went back to three tables",
        "moved the lock into the lease table",
    ];
    for what in interesting.iter().filter(|_| many) {
        assert!(coverage.get(what).is_some_and(|count| *count >= 10), "hardly ever: {what}: {coverage:#?}");
    }
}

#[test]
fn a_seed_is_a_run_and_the_same_one_each_time() {
    let traces = |seed| (run(Plan::of(seed)).trace, run(Plan::of(seed)).trace);
    let (one, again) = traces(7);
    assert_eq!(one, again);
    assert_ne!(one, traces(8).0);
}

/// Each invariant is watched: the fault that it is about is found by its name.
#[test]
fn every_invariant_fails_when_the_program_has_that_fault() {
    for (bug, invariant) in [
        (Bug::IgnoresConditions, "fence"),
        (Bug::ForgetsTheCheckpoint, "checkpoint-back"),
        (Bug::TakesParentsForEnded, "parents-first"),
        (Bug::SkipsARecord, "gap"),
        (Bug::SkipsARecord, "undelivered"),
        (Bug::TrustsALeaseTooLong, "expired-lease"),
        (Bug::MakesRowsAnew, "created-twice"),
        (Bug::EndsEarly, "early-end"),
        (Bug::TakesChildrenForBegun, "early-delete"),
        (Bug::TakesTooLittle, "unsettled"),
        (Bug::NeverSteals, "unsettled"),
        (Bug::ShortensTheLock, "two-leaders"),
        (Bug::MissesTheMove, "acts-without-lead"),
        (Bug::HidesOwnLeases, "undelivered"),
        (Bug::InventsALeader, "unsettled"),
        (Bug::EmptiesTheReports, "unsettled"),
    ] {
        let found = (0..60).find(|seed| {
            let denied = match bug {
                Bug::HidesOwnLeases => Denied { query: true, ..Denied::default() },
                Bug::InventsALeader => Denied { lock_writes: true, ..Denied::default() },
                Bug::EmptiesTheReports => Denied { report_reads: true, ..Denied::default() },
                _ => Plan::of(*seed).denied,
            };
            let plan = Plan { bug: Some(bug), long: true, denied, ..Plan::of(*seed) };
            run(plan).violations.iter().any(|violation| violation.starts_with(&format!("{invariant}:")))
        });
        assert!(found.is_some(), "{bug:?} does not violate {invariant}");
    }
}
