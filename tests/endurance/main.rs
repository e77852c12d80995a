//! A fleet under load for minutes: three daemons on one table, a continuous flow of records, shards that split
//! and merge, and one daemon after the other killed, stopped or frozen. Then every invariant is checked on the
//! recorded ledger.
//!
//! ```text
//! cargo test --test endurance                                         two and a half minutes
//! MULTILANGD_ENDURANCE_SECONDS=600 cargo test --test endurance        ten minutes
//! ```
//!
//! `MULTILANGD_ENDURANCE_SEED` selects another order of events. The figures are printed on stderr.
//!
//! | file | holds |
//! |---|---|
//! | `world.rs` | puts records, reshards, samples the lease table and records everything |
//! | `fleet.rs` | the daemons, and their faults |
//! | `ledger.rs` | the record of a run |
//! | `checks.rs` | the invariants, as pure functions of the ledger |
//! | `handover.rs` | how long shards have no live owner |
//! | `doctored.rs` | ledgers with one violation each: every check can fail |
//! | `processor.py` | the child, which needs python3 |
#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

#[path = "../support/rig.rs"]
mod rig;

mod checks;
mod doctored;
mod fleet;
mod handover;
mod ledger;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fleet::{Fleet, script};
use crate::handover::Handover;
use crate::ledger::*;
use crate::rig::*;
use crate::world::{Notes, World, is_open};

const SECONDS: u64 = 150;
/// Seconds at the end that are reserved for reading the remaining records.
const REST_SECONDS: u64 = 10;
const SHARDS: i32 = 12;
const RESHARDING: Duration = Duration::from_secs(10);
/// The maximum number of shards for which a failure includes the history.
const SHARDS_SHOWN: usize = 3;
const LINES_SHOWN: usize = 200;
/// Upper bound of a wait for a condition.
const TIMEOUT: Duration = Duration::from_secs(60);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Bypasses the capture of the test runner: the figures are useful for successful runs too.
#[expect(clippy::explicit_write, reason = "a macro that prints would be captured")]
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_under_faults_and_resharding_keeps_every_invariant() {
    let seconds = setting("MULTILANGD_ENDURANCE_SECONDS", SECONDS);
    let seed = setting("MULTILANGD_ENDURANCE_SEED", 1);
    say(&format!("{seconds} s with seed {seed}"));
    let end = Instant::now() + Duration::from_secs(seconds - REST_SECONDS);
    let mut rig = Rig::start("endurance").await;
    rig.stream(SHARDS).await;
    let reports = std::mem::replace(&mut rig.reports, mpsc::unbounded_channel().1);
    let mut world = World::start(rig.clients.clone(), reports);
    world.feed(seed, RESHARDING);
    let mut fleet = Fleet::start(&rig, &world);
    world.watch();
    let ready = world.until(TIMEOUT, all_owned).await;
    assert!(ready, "some shards have no owner");
    fleet.inject_faults(&rig, &mut world, seed, end).await;
    world.stop_feeding().await;

    let mut faults = remaining_records(&world).await;
    fleet.stop_all(&world).await;
    world.stop_watching();
    world.assert_sound();
    faults.extend(remaining_processes(&rig, &world).await);
    for (daemon, took, code) in &fleet.stops {
        say(&format!("{daemon} ended {:.1} s after SIGTERM with {code:?}", took.as_secs_f64()));
        if *code != Some(0) {
            faults.push(format!("{daemon} ended with {code:?}"));
        }
    }
    let mut ledger = world.read(|notes| std::mem::take(&mut notes.ledger));
    ledger.parents = parents(&world).await;
    ledger.sort();
    let history = history(&ledger, &world);
    std::fs::write(rig.folder.join("ledger.txt"), history.concat()).unwrap();
    judge(&rig, &ledger, &history, faults);
}

fn all_owned(notes: &mut Notes) -> bool {
    let owned =
        |sample: &Sample| !sample.rows.is_empty() && sample.rows.values().all(|row| row.owner.is_some());
    notes.ledger.samples.last().is_some_and(owned)
}

/// Waits until every record is delivered and the end of every closed shard is checkpointed. Returns what is
/// missing.
async fn remaining_records(world: &World) -> Vec<String> {
    let closed: Vec<Shard> = {
        let shards = world.lineage().await;
        shards.iter().filter(|shard| !is_open(shard)).map(|shard| shard.shard_id().into()).collect()
    };
    let missing = |notes: &Notes| {
        let rows = notes.ledger.samples.last().map(|sample| &sample.rows);
        // The lease of a finished shard may be deleted.
        let ended = |shard: &Shard| {
            notes.ledger.said.iter().any(|said| said.what == What::Ended && said.shard == *shard)
        };
        let at_end = |shard: &&Shard| match rows.and_then(|rows| rows.get(*shard)) {
            Some(row) => row.checkpoint == Mark::End,
            None => ended(shard),
        };
        let open = closed.iter().filter(|shard| !at_end(shard)).map(|shard| format!("the end of {shard}"));
        let puts = notes.ledger.puts.iter().filter(|put| !notes.delivered.contains(&put.id));
        open.chain(puts.map(|put| format!("record {} of {}", put.id, put.shard))).collect::<Vec<_>>()
    };
    world.until(TIMEOUT, |notes| missing(notes).is_empty()).await;
    let left = world.read(|notes| missing(notes));
    left.into_iter().map(|what| format!("not completed: {what}")).collect()
}

async fn remaining_processes(rig: &Rig, world: &World) -> Vec<String> {
    let (script, port) = (script(), rig.port().to_string());
    let is_ours = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == script.as_os_str().as_encoded_bytes())
            && words.next() == Some(port.as_bytes())
    };
    world.until(TIMEOUT, |notes| notes.alive.is_empty()).await;
    let mut left = world.read(|notes| notes.alive.clone());
    // Includes children that never reported anything.
    let all = std::fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    left.extend(all.filter(|pid| is_ours(*pid) && !is_gone(*pid)));
    left.into_iter().map(|pid| format!("process {pid} still runs")).collect()
}

async fn parents(world: &World) -> BTreeMap<Shard, Vec<Shard>> {
    let of = |shard: &aws_sdk_kinesis::types::Shard| {
        let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
        (shard.shard_id().into(), parents.into_iter().flatten().map(Into::into).collect())
    };
    world.lineage().await.iter().map(of).collect()
}

/// Everything except samples without changes, as evidence beside the logs.
fn history(ledger: &Ledger, world: &World) -> Vec<String> {
    let mut lines: Vec<(Micros, String)> = Vec::new();
    lines.extend(ledger.happened.iter().map(|it| (it.at, format!("{} {:?}", it.daemon, it.fate))));
    let said = |it: &Said| (it.at, format!("{} {} {} {:?}", it.daemon, it.child, it.shard, it.what));
    lines.extend(ledger.said.iter().map(said));
    let row =
        |change: &checks::Change<'_>| (change.sample.after, format!("row {} {:?}", change.shard, change.row));
    lines.extend(checks::changes(ledger).iter().map(row));
    lines.extend(world.read(|notes| std::mem::take(&mut notes.reshards)));
    lines.sort();
    lines.into_iter().map(|(at, line)| format!("{at} {line}\n")).collect()
}

/// Conditions that make the checks weaker than they appear.
fn weaknesses(ledger: &Ledger, handovers: &[Handover]) -> Vec<String> {
    let mut faults = Vec::new();
    let far = ledger.samples.windows(2).filter(|pair| pair[1].after - pair[0].before > checks::CLOSE).count();
    if far * 10 > ledger.samples.len() {
        faults.push(format!("{far} of {} samples were too late to judge by", ledger.samples.len()));
    }
    for blow in [Fate::Killed, Fate::Stopped, Fate::Frozen] {
        let dealt = ledger.happened.iter().any(|happened| happened.fate == blow);
        if dealt && !handovers.iter().any(|handover| handover.fate == blow) {
            faults.push(format!("no daemon that was {blow:?} had an open lease"));
        }
    }
    faults
}

/// The history of the shards that a failure names, because the files of a test machine may not be kept.
fn history_of(faults: &[String], history: &[String]) -> String {
    let names = |fault: &String| {
        let words = fault.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        words.filter(|word| word.starts_with("shardId-")).map(str::to_owned).collect::<Vec<_>>()
    };
    let shards: BTreeSet<String> = faults.iter().flat_map(names).take(SHARDS_SHOWN).collect();
    let of = |line: &&String| {
        shards.iter().any(|shard| line.contains(shard))
            && !(line.contains(" Given(") || line.contains("Stored"))
    };
    history.iter().filter(of).take(LINES_SHOWN).cloned().collect()
}

fn judge(rig: &Rig, ledger: &Ledger, history: &[String], mut faults: Vec<String>) {
    let shards = ledger.parents.len();
    let runs = ledger.runs();
    let given: usize = runs.iter().map(|run| run.given.len()).sum();
    let refused = ledger.said.iter().filter(|said| said.what == What::Refused).count();
    let gaps = ledger.samples.windows(2).map(|pair| pair[1].after - pair[0].before).max().unwrap_or(0);
    say(&format!(
        "{} records put, {given} delivered, {shards} shards, {} children, {} samples at most {} ms apart",
        ledger.puts.len(),
        runs.len(),
        ledger.samples.len(),
        gaps / 1000
    ));
    say(&format!("checkpoints rejected: {refused}"));
    let (causes, unexplained) = checks::duplicates(ledger);
    for (cause, count) in causes {
        say(&format!("delivered again, {cause}: {count}"));
    }
    faults.extend(unexplained);
    let handovers = handover::handovers(ledger);
    if let Some((shard, longest)) = handover::newcomers(ledger).into_iter().max_by_key(|(_, waited)| *waited)
    {
        say(&format!(
            "longest time until a new shard's lease had its first owner: {} ({shard})",
            handover::seconds(longest)
        ));
    }
    handover::figures(&handovers).iter().for_each(|line| say(line));
    faults.extend(checks::violations(ledger));
    faults.extend(weaknesses(ledger, &handovers));
    let evidence = format!("see the logs and ledger.txt in {}", rig.folder.display());
    assert!(
        faults.is_empty(),
        "{} faults; {evidence}\n{}\n{}",
        faults.len(),
        faults.join("\n"),
        history_of(&faults, history)
    );
    let late = handover::late(&handovers);
    assert!(
        late.is_empty(),
        "{} leases were too long without an owner; {evidence}\n{}",
        late.len(),
        late.join("\n")
    );
}
