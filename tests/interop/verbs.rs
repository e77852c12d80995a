//! `multilangd leases FILE seek`, `release`, `pause` and `park` beside one worker that leads the fleet: Java 3.1.3, the
//! KCL library 3.5.1, or ours, for comparison. Each story prints a table of what each verb did.
//!
//! `orders.rs` has `pause` and `park` in the mode that is compatible with KCL 2.x.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::interval;

use crate::denying::Denying;
use crate::fleet::{Fleet, all_have, until};
use crate::identity::{all_checkpointed, by_worker};
use crate::java::{JAVA_3, JAVA_3_LED, LIBRARY_LED, Peer, properties};
use crate::library::SOON;
use crate::load::{Load, Rows};
use crate::orders::{attribute, of, run};
use crate::rig::{Report, alive, records, said};

const OURS: &str = "ours-1";
const SHARDS: i32 = 4;

static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());
const HEAD: &str = "| beside | step | exit | written | rows before | rows after | what the workers did |\n\
                    |---|---|---|---|---|---|---|";

type Item = BTreeMap<String, AttributeValue>;
/// A record by its lease and sequence number.
type Place = (String, String);

/// How often each record was delivered.
fn deliveries(log: &[Report]) -> BTreeMap<Place, usize> {
    let mut times = BTreeMap::new();
    for (lease, seen) in records(log) {
        for record in seen {
            *times.entry((lease.clone(), record.sequence)).or_default() += 1;
        }
    }
    times
}

/// Deliveries of records that were delivered before.
fn repeated(log: &[Report], lease: &str) -> usize {
    deliveries(log).iter().filter(|((of, _), _)| of == lease).map(|(_, times)| times - 1).sum()
}

/// The rows without what a live owner changes while it has no record to deliver.
fn at_rest(mut rows: BTreeMap<String, Item>) -> BTreeMap<String, Item> {
    for row in rows.values_mut() {
        row.remove("leaseCounter");
        row.remove("throughputKBps");
    }
    rows
}

/// One line for each lease: the shard, the owner, the lease counter and the end of the checkpoint.
fn shown(rows: &BTreeMap<String, Item>) -> String {
    let line = |(lease, row): (&String, &Item)| {
        let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok()).map_or("-", String::as_str);
        let (shard, checkpoint) = (&lease[lease.len() - 2..], text("checkpoint"));
        let counter = row["leaseCounter"].as_n().unwrap();
        let end = if checkpoint.len() > 20 { &checkpoint[checkpoint.len() - 6..] } else { checkpoint };
        let paused = if text("multilangdPause").starts_with("paused ") { " paused" } else { "" };
        let parked = if row.contains_key("multilangdParked") { " parked" } else { "" };
        format!("{shard} {} {counter} {end}{paused}{parked}", text("leaseOwner"))
    };
    rows.iter().map(line).collect::<Vec<_>>().join("<br>")
}

/// The workers and leases whose record processors received a message.
fn told<'a>(log: &'a [Report], since: usize, wanted: &str) -> BTreeSet<(&'a str, &'a str)> {
    let mut workers = BTreeMap::new();
    let mut told = BTreeSet::new();
    for (index, report) in log.iter().enumerate() {
        let Report::Said { pid, shard, what, body } = report else { continue };
        if what == "initialize" {
            workers.insert(*pid, body["worker"].as_str().unwrap());
        }
        if what == wanted && index >= since {
            told.insert((workers[pid], shard.as_str()));
        }
    }
    told
}

/// Waits for the next full second, in which no record has arrived yet.
async fn next_second() -> String {
    let now = || multilangd::clock::wall_millis() / 1_000;
    let next = now() + 1;
    let mut looks = interval(Duration::from_millis(20));
    while now() < next {
        looks.tick().await;
    }
    next.to_string()
}

struct Story {
    fleet: Fleet,
    beside: &'static str,
    /// The worker beside ours.
    other: &'static str,
}

impl Story {
    fn is_java(&self) -> bool {
        self.other.starts_with("java")
    }

    fn start_other(&mut self) {
        if self.is_java() { self.fleet.java(self.other) } else { self.fleet.ours(self.other) }
    }

    async fn rows(&self) -> BTreeMap<String, Item> {
        self.fleet.load.rig.rows().await
    }

    /// Waits until the other worker alone owns all leases.
    async fn other_owns_all(&mut self) {
        let (other, what) = (self.other, format!("{}: the other worker owns all leases", self.beside));
        let all = |rows: &Rows| all_have(rows, &[other]) && rows.values().all(|row| row.from.is_none());
        self.fleet.load.until_rows(&what, all).await;
    }

    /// Waits until both workers own leases, and ours reads those that it owns. Returns the rows.
    async fn both_own(&mut self) -> Rows {
        let (other, what) = (self.other, format!("{}: both own leases", self.beside));
        let since = self.now();
        let both =
            |rows: &Rows| all_have(rows, &[OURS, other]) && rows.values().all(|row| row.from.is_none());
        loop {
            self.fleet.load.until_rows(&what, both).await;
            let rows = self.fleet.load.rows().await;
            let ours = of(&rows, OURS);
            self.until("ours reads its leases", |log| {
                let read = told(log, since, "processRecords");
                ours.iter().all(|lease| read.contains(&(OURS, lease)))
            })
            .await;
            let now = self.fleet.load.rows().await;
            if both(&now) && of(&now, OURS) == ours {
                return now;
            }
        }
    }

    /// The number of reports so far.
    fn now(&mut self) -> usize {
        let rig = &mut self.fleet.load.rig;
        while let Ok(report) = rig.reports.try_recv() {
            rig.log.push(report);
        }
        rig.log.len()
    }

    async fn until(&mut self, what: &str, reached: impl FnMut(&[Report]) -> bool) {
        let what = format!("{}: {what}", self.beside);
        self.fleet.load.rig.until(&what, reached).await;
    }

    /// Runs a verb that must succeed. Returns its plan, and the rows before and after it.
    async fn verb(&self, arguments: &[&str]) -> (Value, String) {
        let before = shown(&self.rows().await);
        let (code, plan) = run(&self.fleet, arguments).await;
        let after = shown(&self.rows().await);
        assert_eq!(code, Some(0), "{}: {arguments:?}: {plan}", self.beside);
        let cells = format!("{} | 0 | {} | {before} | {after}", arguments.join(" "), plan["written"]);
        (plan, cells)
    }

    fn note(&self, cells: &str, did: &str) {
        let line = format!("| {} | {cells} | {did} |", self.beside);
        TABLE.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Waits until these records are delivered, since then, and asserts that no other one is, and each once.
    async fn delivered_once(&mut self, since: usize, wanted: &[Place]) {
        let mut missing: BTreeSet<Place> = wanted.iter().cloned().collect();
        let mut next = since;
        self.until("the records since the position", |log| {
            for place in deliveries(&log[next..]).into_keys() {
                missing.remove(&place);
            }
            next = log.len();
            missing.is_empty()
        })
        .await;
        all_checkpointed(&mut self.fleet.load.rig).await;
        let once: BTreeMap<Place, usize> = wanted.iter().map(|place| (place.clone(), 1)).collect();
        let seen = deliveries(&self.fleet.load.rig.log[since..]);
        let wrong: Vec<_> = seen.iter().filter(|(place, times)| once.get(place) != Some(times)).collect();
        assert!(wrong.is_empty() && seen.len() == once.len(), "{}: {wrong:?}", self.beside);
    }
}

/// The command is killed at each of its writes; a second run completes it.
async fn interrupted(story: &Story, time: &str) {
    let fleet = &story.fleet;
    let rig = &fleet.load.rig;
    let proxy = Denying::before(&rig.tables.url()).await;
    let endpoint = format!("dynamoDBEndpoint={}", proxy.url);
    let file = properties(rig, "operator", &format!("{}{}", fleet.lines, fleet.peer.ours));
    for passes in 0..usize::try_from(SHARDS).unwrap() {
        let (to, applied) = ([time, "TRIM_HORIZON"][(passes + 1) % 2], passes % 2 == 0);
        let seek = ["seek", "--to", to];
        let before = fleet.load.rows().await;
        let reached = proxy.hold("UpdateItem", passes, applied);
        let arguments = [&["leases", file.to_str().unwrap()], &seek[..], &["--set", &endpoint]].concat();
        let mut command = rig.command(&arguments);
        tokio::select! {
            biased;
            () = reached.notified() => {}
            status = command.ended() => panic!("{seek:?}: {status}: {}", rig.daemon_log()),
        }
        command.signal(Signal::KILL);
        command.ended().await;
        let cut = fleet.load.rows().await;
        let (code, plan) = run(fleet, &seek).await;
        let after = fleet.load.rows().await;
        let moved = cut.iter().filter(|(lease, row)| row.checkpoint != before[*lease].checkpoint).count();
        assert_eq!(moved, passes + usize::from(applied), "{before:?}, then {cut:?}");
        for (lease, row) in &cut {
            let is_whole =
                [&before[lease], &after[lease]].iter().any(|whole| whole.checkpoint == row.checkpoint);
            assert!(is_whole && row.owner.is_empty(), "{lease}: {row:?}");
        }
        assert_eq!((code, &plan["written"]), (Some(0), &json!(before.len() - moved)), "{plan}");
        let place = if applied { "after" } else { "before" };
        let cells = format!(
            "seek --to {to}, killed {place} write {}, and a second run | 0 | {moved} + {} | |",
            passes + 1,
            plan["written"]
        );
        story.note(&cells, "each lease had its old or its new checkpoint; the second run wrote the others");
    }
}

async fn play(beside: &'static str, peer: Peer, other: &'static str) {
    let name = format!("verbs-{}", beside.replace(' ', "-"));
    // Of a table that our workers began in 3.x mode, Java 3.1.3 reads nothing.
    let begins = if peer == JAVA_3_LED { JAVA_3.ours } else { peer.ours };
    let fleet = Fleet::new(Load::start(&name, SHARDS).await, Peer { ours: begins, ..peer }, SOON);
    let mut story = Story { fleet, beside, other };
    story.fleet.load.operator_moves();

    // Our worker begins the table, and delivers records of both sides of the position.
    story.fleet.ours(OURS);
    story.fleet.load.put(200).await;
    let (earlier, _) = story.fleet.load.all_seen().await;
    let time = next_second().await;
    let old = story.fleet.load.places();
    story.fleet.load.put(200).await;
    let (put, delivered) = story.fleet.load.all_seen().await;
    assert_eq!((earlier, put, delivered), (200, 400, 400));
    all_checkpointed(&mut story.fleet.load.rig).await;
    story.fleet.stop(OURS).await;

    // The fleet is stopped: the other worker reads from the position.
    interrupted(&story, &time).await;
    let (plan, _) = story.verb(&["seek", "--to", "TRIM_HORIZON"]).await;
    assert_eq!(plan["written"], 4);
    let (plan, cells) = story.verb(&["seek", "--to", &time]).await;
    assert_eq!(plan["written"], 4);
    let since = story.now();
    story.fleet.peer = peer;
    story.start_other();
    story.other_owns_all().await;
    let new: Vec<Place> = story.fleet.load.places().difference(&old).cloned().collect();
    story.delivered_once(since, &new).await;
    story.note(&cells, &format!("{other} delivered the {} records from there on, each once", new.len()));

    refused(&mut story).await;
    forced(&mut story).await;
    story.fleet.ours(OURS);
    paused(&mut story).await;
    parked(&mut story).await;
    stopped(&mut story, &time, &old).await;
    story.fleet.load.assert_no_checkpoint_moved_back();
    story.fleet.stop_all().await;
    let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let prefix = format!("| {beside} |");
    let lines: Vec<&str> =
        table.iter().filter(|line| line.starts_with(&prefix)).map(String::as_str).collect();
    eprintln!("{HEAD}\n{}", lines.join("\n"));
}

/// The owner is alive, and has nothing to deliver: nothing but its renewals changes a row.
async fn refused(story: &mut Story) {
    story.other_owns_all().await;
    let rows = story.rows().await;
    let before = at_rest(rows.clone());
    let verbs: [&[&str]; 3] = [&["seek", "--to", "TRIM_HORIZON"], &["seek", "--to", "LATEST"], &["release"]];
    let [first, second, third] = verbs.map(|verb| run(&story.fleet, verb));
    let ran = tokio::join!(first, second, third);
    let after = story.rows().await;
    for (verb, (code, plan)) in verbs.iter().zip([ran.0, ran.1, ran.2]) {
        assert_eq!(code, Some(1), "{verb:?}: {plan}");
        let steps = plan["steps"].as_array().unwrap();
        assert!(steps.len() == 4 && steps.iter().all(|step| step["action"] == "refuse"), "{plan}");
        let cells = format!("{} | 1 | - | {} | {}", verb.join(" "), shown(&rows), shown(&after));
        story.note(&cells, "refused: only renewals changed the rows");
    }
    assert_eq!(at_rest(after), before, "{}: a refused verb changed a row", story.beside);
}

/// `--force` takes leases from the live owner, which loses them; a worker reads from the checkpoint of the row.
async fn forced(story: &mut Story) {
    story.fleet.load.feed();
    let shard = |number: usize| format!("shardId-{number:012}");
    for (number, verb) in [&["release"][..], &["seek", "--to", "TRIM_HORIZON"]].into_iter().enumerate() {
        let lease = shard(number);
        let (since, repeats) = (story.fleet.load.rig.log.len(), repeated(&story.fleet.load.rig.log, &lease));
        let (plan, cells) = story.verb(&[verb, &["--shard", &lease, "--force"]].concat()).await;
        assert_eq!(plan["written"], 1);
        let all: Vec<Place> = story.fleet.load.places().into_iter().filter(|(of, _)| *of == lease).collect();
        let lost = |log: &[Report]| said(&log[since..], "leaseLost").contains(&lease.as_str());
        story.until("the owner loses the lease", lost).await;
        let begun = |log: &[Report]| said(&log[since..], "initialize").contains(&lease.as_str());
        story.until("a worker acquires the lease", begun).await;
        let start = story.fleet.load.rig.log[since..].iter().find_map(|report| match report {
            Report::Said { shard, what, body, .. } if *shard == lease && what == "initialize" => {
                body["sequenceNumber"].as_str().map(str::to_owned)
            }
            _ => None,
        });
        if verb[0] == "seek" {
            assert_eq!(start.as_deref(), Some("TRIM_HORIZON"));
            let mut missing: BTreeSet<Place> = all.iter().cloned().collect();
            story
                .until("all records again", |log| {
                    let seen = records(&log[since..]).remove(&lease).unwrap_or_default();
                    for record in seen {
                        missing.remove(&(lease.clone(), record.sequence));
                    }
                    missing.is_empty()
                })
                .await;
        }
        story.fleet.load.catch_up().await;
        let repeats = repeated(&story.fleet.load.rig.log, &lease) - repeats;
        let did = format!(
            "{} lost the lease of {} and began again at {}; {repeats} records of the shard were delivered again",
            story.other,
            &lease[lease.len() - 2..],
            start.map_or("-".to_owned(), |at| if at.len() > 20 { at[at.len() - 6..].to_owned() } else { at }),
        );
        story.note(&cells, &did);
    }
}

/// Our worker obeys the order, and Java delivers further.
async fn paused(story: &mut Story) {
    let other = story.other;
    let rows = story.both_own().await;
    let at = story.now();
    let (plan, cells) = story.verb(&["pause"]).await;
    assert_eq!(plan["written"], 4);
    let unknown =
        if story.is_java() { json!([{"worker": other, "shards": of(&rows, other)}]) } else { json!([]) };
    assert_eq!(plan["unknownWorkers"], unknown, "{}", story.beside);
    let obey = if story.is_java() { &[OURS][..] } else { &[OURS, other] };
    let stopped = |log: &[Report]| {
        let told = told(log, at, "shutdownRequested");
        let mut of_ours = rows.iter().filter(|(_, row)| obey.contains(&row.owner.as_str()));
        of_ours.all(|(lease, row)| told.contains(&(row.owner.as_str(), lease.as_str())))
    };
    story.until("our record processors end", stopped).await;
    all_checkpointed(&mut story.fleet.load.rig).await;
    let from = story.now();
    let by =
        |log: &[Report], worker: &str| by_worker(log, from, "processRecords").remove(worker).unwrap_or(0);
    if story.is_java() {
        story.until("Java delivers further", |log| by(log, other) > 100).await;
    } else {
        // Two failover times.
        let start = tokio::time::Instant::now();
        story
            .fleet
            .load
            .until_rows("two failover times in a pause", |_| start.elapsed() > Duration::from_secs(6))
            .await;
    }
    let log = &story.fleet.load.rig.log;
    let (of_ours, of_other) = (by(log, OURS), by(log, other));
    assert!(of_ours == 0 && (of_other > 0) == story.is_java(), "{}: {of_ours}, {of_other}", story.beside);
    let orders = attribute(&story.fleet, "multilangdPause").await;
    assert!(orders.len() == 4 && orders.values().all(|order| order.starts_with("paused ")), "{orders:?}");
    story.note(&cells, &format!("during the pause ours delivered {of_ours} records, {other} {of_other}"));
    let (plan, cells) = story.verb(&["resume"]).await;
    assert_eq!(plan["written"], 4);
    let from = story.now();
    let goes_on = |log: &[Report]| by_worker(log, from, "processRecords").contains_key(OURS);
    story.until("ours delivers again", goes_on).await;
    story.fleet.load.catch_up().await;
    story.note(&cells, "ours delivered the records of the pause");
}

/// A lease of the other worker is parked with and without `--force`.
async fn parked(story: &mut Story) {
    let other = story.other;
    let lease = of(&story.both_own().await, other)[0].clone();
    let (plan, cells) = story.verb(&["park", "--shard", &lease]).await;
    let unknown = if story.is_java() { json!([{"worker": other, "shards": [lease]}]) } else { json!([]) };
    assert_eq!(plan["unknownWorkers"], unknown, "{}", story.beside);
    story.note(&cells, &format!("unknown workers: {unknown}").replace('|', "/"));

    let since = story.now();
    let (plan, cells) = story.verb(&["park", "--shard", &lease, "--force"]).await;
    assert_eq!((&plan["written"], &plan["unknownWorkers"]), (&json!(1), &json!([])));
    if story.is_java() {
        let lost = |log: &[Report]| told(log, since, "leaseLost").contains(&(other, lease.as_str()));
        story.until("Java loses the parked lease", lost).await;
    }
    let fleet = &story.fleet;
    let mut owner = String::new();
    until(&format!("{}: a worker acquires the parked lease", story.beside), async || {
        owner.clone_from(&fleet.load.rows().await[&lease].owner);
        !owner.is_empty()
    })
    .await;
    assert_eq!(attribute(&story.fleet, "multilangdParked").await.len(), 1);
    story
        .note(&cells, &format!("{other} lost the lease; {owner} acquired it, and the order is still stored"));
    let (plan, cells) = story.verb(&["unpark"]).await;
    assert_eq!(plan["written"], 1);
    story.fleet.load.catch_up().await;
    story.note(&cells, "every record of the shard was delivered");
}

/// Leases that name a stopped owner are released and moved; our worker reads from the position.
async fn stopped(story: &mut Story, time: &str, old: &BTreeSet<Place>) {
    let (put, delivered) = story.fleet.load.all_seen().await;
    eprintln!("{}: {put} records, {delivered} deliveries", story.beside);
    all_checkpointed(&mut story.fleet.load.rig).await;
    story.fleet.stop(OURS).await;
    if story.is_java() {
        story.fleet.stop(story.other).await
    } else {
        story.fleet.kill(story.other).await
    }
    story.until("all children gone", |log| alive(log) == 0).await;
    story.fleet.load.put(100).await;
    let before = story.fleet.load.rows().await;
    let owned = before.values().filter(|row| !row.owner.is_empty()).count();
    assert!(owned > 0, "{before:?}");
    let (plan, cells) = story.verb(&["release"]).await;
    assert_eq!(plan["written"], owned);
    let after = story.fleet.load.rows().await;
    for (lease, row) in &after {
        assert!(row.owner.is_empty() && row.checkpoint == before[lease].checkpoint, "{lease}: {row:?}");
    }
    story.note(
        &cells,
        &format!("{owned} leases named a stopped owner; all are unowned, at their checkpoints"),
    );
    let (plan, cells) = story.verb(&["seek", "--to", time]).await;
    assert_eq!(plan["written"], 4);
    let since = story.now();
    story.fleet.ours(OURS);
    let new: Vec<Place> = story.fleet.load.places().difference(old).cloned().collect();
    story.delivered_once(since, &new).await;
    story.note(&cells, &format!("ours delivered the {} records from there on, each once", new.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_beside_a_live_leader_lose_nothing() {
    let _turn = crate::turn(2).await;
    tokio::join!(
        play("Java 3.1.3", JAVA_3_LED, "java-1"),
        play("library 3.5.1", LIBRARY_LED, "java-1"),
        play("ours", LIBRARY_LED, "ours-2"),
    );
}
