//! Whole fleets in one process: the real daemon, with in-memory ports, a paused clock and one seed.
//!
//! Everything except the ports is production code: leases, consumers, the conversation with children. The ports
//! delay and reject requests, lose responses, execute writes late or twice and return stale rows; workers are
//! killed, stopped, partitioned and frozen; shards split and merge. After every write and every batch the
//! invariants of [`oracle`] must hold. All randomness derives from the seed, so a failed run can be repeated:
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

mod aged;
mod bad;
mod calm;
mod child;
mod denied;
mod destination;
mod expired;
mod generations;
mod latest;
mod ledger;
mod links;
mod opening;
mod operator;
mod oracle;
mod orders;
mod scale;
mod several;
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

/// Runs many seeds, on as many threads as there are CPUs.
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
fn a_fleet_keeps_every_invariant_under_faults() {
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
    // A run without any events would prove nothing.
    let required = [
        "acquired an unowned lease",
        "reacquired its own lease",
        "stole a lease",
        "released a lease",
        "notified a peer",
        "rejected a conditional write",
        "a request was rejected",
        "a request was throttled",
        "a response was lost",
        "a write arrived late",
        "a write was retried",
        "a shard was split",
        "two shards were merged",
        "checkpointed a shard end",
        "deleted a finished lease",
        "delivered a record again",
        "a checkpoint was rejected",
        "a child crashed",
        "a worker joined",
        "a worker was stopped",
        "a worker was killed",
        "a worker was partitioned",
        "a worker froze",
        "a permission was removed",
        "denied a request",
        "became leader",
        "released the leader lock",
        "assigned a lease to another worker",
        "started a graceful handoff",
        "completed a graceful handoff",
        "moved the rows into one table",
        "went back to three tables",
        "moved the leader lock into the lease table",
    ];
    for what in required.iter().filter(|_| many) {
        assert!(
            coverage.get(what).is_some_and(|count| *count >= 10),
            "rarely covered: {what}: {coverage:#?}"
        );
    }
}

#[test]
fn seed_determines_the_whole_run() {
    let traces = |seed| (run(Plan::of(seed)).trace, run(Plan::of(seed)).trace);
    let (one, again) = traces(7);
    assert_eq!(one, again);
    assert_ne!(one, traces(8).0);
}

/// Each invariant is effective: the fault that it covers violates it by name.
#[test]
fn each_injected_fault_violates_its_invariant() {
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
