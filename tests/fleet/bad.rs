//! Children that fail at certain records, at random, or at all records for a while; workers that are killed
//! between a dead letter and its checkpoint; destinations that are down. Every record put is processed or in a
//! dead letter, in order, and no checkpoint passes one that is neither.
//!
//! ```text
//! SEED=123 cargo test --test fleet bad                    one run
//! SEEDS=10000 cargo test --release --test fleet bad       many
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::story::{Report, Story, simulate};
use crate::world::{Bug, Network};
use crate::{number, run_seeds};

/// The number of seeds in a run without `SEEDS`.
const SEEDS: u64 = 60;
const SECOND: Duration = Duration::from_secs(1);
/// From the last fault until everything is settled: each bad record takes about ten restarts.
const CALM: Duration = Duration::from_secs(3_600);
/// `multilangd.maxDeadLettersInARow` by default.
const IN_A_ROW: usize = 10;

/// How children fail.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Thousandths of the records put.
    pub bad_rate: u32,
    /// Thousandths of the batches.
    pub flaky: u32,
    /// Whether all records fail for a while.
    pub outages: bool,
}

impl Kind {
    pub fn of(seed: u64) -> Self {
        match seed % 4 {
            0 => Self { bad_rate: 40, flaky: 0, outages: false },
            1 => Self { bad_rate: 20, flaky: 60, outages: false },
            2 => Self { bad_rate: 10, flaky: 0, outages: true },
            _ => Self { bad_rate: 150, flaky: 20, outages: false },
        }
    }
}

fn run(seed: u64, kind: Kind, bug: Option<Bug>) -> Report {
    simulate(seed, async {
        let mut story = Story::new(seed, 3, bug, seed % 2 == 1);
        story.has_bad_records(kind.bad_rate);
        inject_faults(&mut story, kind).await;
        calm(&mut story).await;
        let (needless, unsettled) = {
            let state = story.world.state();
            let ledger = state.ledger.as_ref().unwrap();
            (ledger.needless(), ledger.all_unsettled(&state.stream))
        };
        if !unsettled.is_empty() {
            story
                .world
                .state()
                .oracle
                .violated("neither", format!("processed nor in a letter: {unsettled:?}"));
        }
        if !needless.is_empty() && kind.flaky == 0 && !kind.outages {
            let what = format!("records that can be processed are in letters: {needless:?}");
            story.world.state().oracle.violated("needless-letter", what);
        }
        story.end().await
    })
}

pub async fn inject_faults(story: &mut Story, kind: Kind) {
    story.join(None);
    story.join(None);
    story.world.state().ledger.as_mut().unwrap().flaky = kind.flaky;
    for _ in 0..90 {
        sleep(SECOND).await;
        story.reap();
        check_outage(story);
        let records = story.pick(6);
        story.put(records);
        match story.pick(40) {
            0 | 1 if story.len() < 3 => drop(story.join(None)),
            2 if story.len() > 1 => {
                story.stop_one();
                story.count("a worker was stopped");
            }
            3..=5 => {
                let index = story.pick(story.len());
                let id = story.kill(index);
                story.count("a worker was killed");
                story.join((story.pick(2) == 0).then_some(id));
            }
            6 => story.reshard(5),
            7 => story.cut_off(),
            8 => story.freeze(),
            9 | 10 => story.world.state().network = Network { child_dies: 0, ..Network::BAD },
            11 | 12 => story.world.state().network = Network::FINE,
            13 | 14 => story.world.state().ledger.as_mut().unwrap().is_down = true,
            15..=17 => story.world.state().ledger.as_mut().unwrap().is_down = false,
            18 | 19 if kind.outages => story.world.state().ledger.as_mut().unwrap().outage = true,
            20 if kind.outages => end_outage(story),
            _ => {}
        }
    }
}

/// While every record fails, one holding of a shard writes a few letters and then no more. A worker may have held it
/// twice.
fn check_outage(story: &Story) {
    let mut state = story.world.state();
    let ledger = state.ledger.as_ref().unwrap();
    let most = ledger.during_outage.values().map(std::collections::BTreeSet::len).max().unwrap_or(0);
    if most > IN_A_ROW * 2 {
        state.oracle.violated("outage-emptied", format!("{most} letters of one shard during an outage"));
    }
}

fn end_outage(story: &Story) {
    let mut state = story.world.state();
    let ledger = state.ledger.as_mut().unwrap();
    (ledger.outage, ledger.during_outage) = (false, BTreeMap::new());
}

/// Ends all faults except those of the records, and waits until everything is settled.
pub async fn calm(story: &mut Story) {
    end_outage(story);
    {
        let mut state = story.world.state();
        (state.network, state.faults) = (Network::FINE, BTreeMap::new());
        let ledger = state.ledger.as_mut().unwrap();
        (ledger.is_down, ledger.flaky) = (false, 0);
    }
    // As in `Story::calm`: requests in flight have timed out by then, and a graceful shutdown would not wait for them.
    sleep(SECOND * 10).await;
    let began = Instant::now();
    let is_settled = |story: &Story| {
        let state = story.world.state();
        state.ledger.as_ref().unwrap().all_unsettled(&state.stream).is_empty()
    };
    let mut restarted = false;
    while began.elapsed() < CALM && !(is_settled(story) && story.is_read() && story.is_settled()) {
        sleep(SECOND).await;
        story.reap();
        // A shard whose next record after an outage is a bad one stays parked until its worker restarts.
        if began.elapsed() > CALM / 2 && !std::mem::replace(&mut restarted, true) {
            story.count("workers were restarted after an outage");
            for _ in 0..story.len() {
                let id = story.kill(0);
                story.join(Some(id));
            }
        }
    }
}

#[test]
fn bad_records_are_processed_or_in_letters_under_faults() {
    let seeds: Vec<u64> = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).collect(),
        (None, None) => (0..SEEDS).collect(),
    };
    let many = seeds.len() >= 60;
    let mut coverage: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut records, mut failures, mut count) = (0, Vec::new(), 0);
    for (seed, report) in run_seeds(seeds.into_iter(), |seed| run(seed, Kind::of(seed), None)) {
        if !report.violations.is_empty() {
            failures.push(format!("SEED={seed}:\n  {}", report.violations.join("\n  ")));
        }
        report.coverage.iter().for_each(|(what, count)| *coverage.entry(what).or_default() += count);
        records += report.records;
        count += 1;
    }
    println!("{count} runs, {records} records; {coverage:#?}");
    assert!(
        failures.is_empty(),
        "{} of {count} failed:\n{}",
        failures.len(),
        failures[..failures.len().min(5)].join("\n")
    );
    for what in [
        "a child failed at a record",
        "wrote a dead letter",
        "wrote a dead letter again",
        "a dead letter was rejected",
        "a worker was killed",
        "a response was lost",
        "delivered a record again",
    ] {
        let times = coverage.get(what).copied().unwrap_or(0);
        assert!(!many || times >= 10, "rarely covered: {what}: {coverage:#?}");
    }
}

/// Every record fails for ten minutes, without other faults; then all are processed.
fn outage(bug: Option<Bug>) -> Report {
    simulate(1, async {
        let mut story = Story::new(1, 2, bug, false);
        story.has_bad_records(0);
        story.join(None);
        story.put(80);
        story.world.state().ledger.as_mut().unwrap().outage = true;
        for _ in 0..600 {
            sleep(SECOND).await;
            check_outage(&story);
        }
        calm(&mut story).await;
        {
            let mut state = story.world.state();
            let unsettled = state.ledger.as_ref().unwrap().all_unsettled(&state.stream);
            if !unsettled.is_empty() {
                state.oracle.violated("neither", format!("processed nor in a letter: {unsettled:?}"));
            }
        }
        story.end().await
    })
}

#[test]
fn outage_ends_without_emptying_the_stream() {
    let report = outage(None);
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.coverage["wrote a dead letter"], 2 * IN_A_ROW as u64);
    let emptied = outage(Some(Bug::EmptiesTheStream)).violations;
    assert!(emptied.iter().any(|violation| violation.starts_with("outage-emptied:")), "{emptied:?}");
}

/// Each invariant is effective: the fault that it covers violates it by name.
#[test]
fn each_fault_of_letters_violates_its_invariant() {
    let bad = Kind { bad_rate: 100, flaky: 0, outages: false };
    for (bug, invariant) in [
        (Bug::LosesLetters, "neither"),
        (Bug::SwallowsErrors, "neither"),
        (Bug::SwallowsErrors, "checkpoint-unsettled"),
        (Bug::CheckpointsFirst, "checkpoint-unsettled"),
        (Bug::SkipsARecord, "gap"),
        (Bug::SkipsARecord, "neither"),
    ] {
        let name = format!("{invariant}:");
        let found = (0..40).find(|seed| {
            run(*seed, bad, Some(bug)).violations.iter().any(|violation| violation.starts_with(&name))
        });
        assert!(found.is_some(), "{bug:?} does not violate {invariant}");
    }
}
