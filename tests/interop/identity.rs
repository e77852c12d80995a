//! Which stream a lease table belongs to, in a fleet with Java: a wrong stream name, a table created by Java, a
//! stream that is deleted and created again, one `workerId` used twice.
//!
//! Java does not write the marks, so a table can have rows with and without them. Each scene runs with 2.5.4,
//! 3.1.3 and 3.5.1 concurrently, and prints the lease rows and a summary of each side.
//! `tests/process/identity.rs` has the same scenes without Java.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::{Instant, timeout};

use crate::fleet::{Fleet, all_have};
use crate::java::{JAVA_2, JAVA_3_LED, LIBRARY_LED, Peer, log, properties};
use crate::library::SOON;
use crate::load::{Load, Row, Rows};
use crate::rig::{APPLICATION, Daemon, Report, Rig, STREAM, alive, count, logged, records, said};

const PEERS: [Peer; 3] = [JAVA_2, JAVA_3_LED, LIBRARY_LED];
/// A stream that is created later than the one to which the leases belong.
const OTHER: &str = "orders-staging";
/// The shards of a recreated stream, and the child shards of the first one. The earlier stream had shards with
/// all these names.
const PARENTS: [&str; 2] = ["shardId-000000000000", "shardId-000000000001"];
const CHILDREN: [&str; 2] = ["shardId-000000000002", "shardId-000000000003"];
/// How long Java alone is observed on a recreated stream.
const ALONE: Duration = Duration::from_secs(20);
const JAVA: &str = "java-1";
const OURS: &str = "ours-1";
/// The worker with the wrong stream name.
const WRONG: &str = "wrong-1";

type Item = BTreeMap<String, AttributeValue>;

fn text(row: &Item, name: &str) -> Option<String> {
    row.get(name)?.as_s().ok().cloned()
}

/// Prints the attributes of the lease rows for positions, owners and marks.
fn print(what: &str, rows: &BTreeMap<String, Item>) {
    let mut lines = format!("{what}:\n");
    for (lease, row) in rows {
        lines += &format!("  {lease}:");
        for (name, value) in row {
            let is_shown = ["checkpoint", "leaseCounter", "leaseOwner", "checkpointOwner"];
            if is_shown.contains(&name.as_str()) || name.starts_with("multilangd") {
                let value = value.as_s().or_else(|value| value.as_n()).unwrap();
                lines += &format!(" {name}={value}");
            }
        }
        lines.push('\n');
    }
    eprint!("{lines}");
}

/// Every row of every table.
pub async fn dump(rig: &Rig) -> BTreeMap<String, Vec<HashMap<String, AttributeValue>>> {
    let mut all = BTreeMap::new();
    let tables = rig.clients.dynamodb.list_tables().send().await.unwrap();
    for table in tables.table_names() {
        let scan = rig.clients.dynamodb.scan().table_name(table).consistent_read(true);
        all.insert(table.clone(), scan.send().await.unwrap().items().to_vec());
    }
    all
}

fn assert_absent(tables: &BTreeMap<String, Vec<HashMap<String, AttributeValue>>>, words: &[&str]) {
    for (table, row) in tables.iter().flat_map(|(table, rows)| rows.iter().map(move |row| (table, row))) {
        let text = format!("{row:?}");
        assert!(!words.iter().any(|word| text.contains(word)), "{table}: {text}");
    }
}

/// Runs a multilangd worker with the wrong stream name: it exits with the code for a configuration error.
async fn assert_rejected(fleet: &Fleet) -> Duration {
    let rig = &fleet.load.rig;
    rig.clients.kinesis.create_stream().stream_name(OTHER).shard_count(4).send().await.unwrap();
    let file = properties(rig, WRONG, &format!("{}{}", fleet.lines, fleet.peer.ours));
    let right = std::fs::read_to_string(&file).unwrap();
    let wrong = right.replace(&format!("streamName = {STREAM}\n"), &format!("streamName = {OTHER}\n"));
    assert_ne!(right, wrong);
    std::fs::write(&file, wrong).unwrap();
    let (mut daemon, start) = (start(rig, WRONG, &file), Instant::now());
    let code = daemon.ended().await.code();
    assert_eq!(code, Some(78), "{}", std::fs::read_to_string(&daemon.stderr).unwrap());
    start.elapsed()
}

pub fn start(rig: &Rig, name: &str, file: &Path) -> Daemon {
    let (path, output) = log(rig, name);
    let mut daemon = rig.command_to(&["--properties-file", file.to_str().unwrap()], output.into());
    daemon.stderr = path;
    daemon
}

/// Asserts that the first delivery of each record follows those of all preceding records of its shard.
fn assert_first_deliveries_in_order(log: &[Report]) {
    for (shard, seen) in records(log) {
        let (mut known, mut last) = (BTreeSet::new(), String::new());
        for record in seen {
            if known.insert(record.sequence.clone()) {
                assert!(last < record.sequence, "{shard}: {} after {last}", record.sequence);
                last = record.sequence;
            }
        }
    }
}

/// By worker, the number of records delivered to its record processors since then, or of processors that
/// received the given message.
pub fn by_worker(log: &[Report], since: usize, wanted: &str) -> BTreeMap<String, usize> {
    let mut workers = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (index, report) in log.iter().enumerate() {
        let Report::Said { pid, what, body, .. } = report else { continue };
        if what == "initialize" {
            workers.insert(*pid, body["worker"].as_str().unwrap().to_owned());
        }
        if what == wanted && index >= since {
            let count = body["records"].as_array().map_or(1, Vec::len);
            *counts.entry(workers[pid].clone()).or_default() += count;
        }
    }
    counts
}

fn deliveries(log: &[Report], since: usize) -> BTreeMap<String, usize> {
    by_worker(log, since, "processRecords")
}

/// Waits until the last batch of every shard is checkpointed, so that any later repetition is a fault.
pub async fn all_checkpointed(rig: &mut Rig) {
    let checkpointed = |log: &[Report]| {
        let mut last = BTreeMap::new();
        for report in log {
            if let Report::Said { shard, what, .. } = report
                && ["processRecords", "checkpointed"].contains(&what.as_str())
            {
                last.insert(shard, what);
            }
        }
        last.values().all(|what| *what == "checkpointed")
    };
    rig.until("every batch is checkpointed", checkpointed).await;
}

async fn stopped(fleet: &mut Fleet, workers: &[&str]) {
    for worker in workers {
        fleet.stop(worker).await;
    }
    fleet.load.rig.until("their record processors are gone", |log| alive(log) == 0).await;
}

fn owns_all(worker: &str) -> impl Fn(&Rows) -> bool {
    move |rows| rows.len() >= 4 && all_have(rows, &[worker])
}

/// Both workers own leases, and no graceful handoff is in progress.
fn both(rows: &Rows) -> bool {
    all_have(rows, &[JAVA, OURS]) && rows.values().all(|row| row.from.is_none())
}

fn is_of(mark: Option<&str>, stream: &str) -> bool {
    mark.is_some_and(|mark| mark.contains(&format!(":stream/{stream}@")))
}

async fn wrong_stream_beside_java(peer: Peer) {
    let name = format!("wrong-stream-{}", peer.version);
    let mut load = Load::start(&name, 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, peer, SOON);
    fleet.java(JAVA);
    fleet.load.until_rows(&format!("{name}: Java owns all leases"), owns_all(JAVA)).await;
    fleet.ours(OURS);
    // Our worker has marked its leases, and every row has a sequence number.
    let begun = |rows: &Rows| {
        both(rows)
            && rows.values().all(|row| row.checkpoint != "TRIM_HORIZON")
            && rows.values().any(|row| row.stream.is_some())
            && rows.values().any(|row| row.stream.is_none())
    };
    fleet.load.until_rows(&format!("{name}: both read, some rows are marked"), begun).await;

    let before = fleet.load.rig.rows().await;
    print(&format!("{name}: before"), &before);
    let marked = before.values().filter(|row| row.contains_key("multilangdStream")).count();
    let took = assert_rejected(&fleet).await;
    let after = fleet.load.rig.rows().await;
    print(&format!("{name}: after"), &after);
    assert_absent(&dump(&fleet.load.rig).await, &[WRONG, OTHER]);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    // The live workers change these attributes. That checkpoints only move forward is checked throughout.
    let of_progress = ["leaseCounter", "checkpoint", "throughputKBps", "ownerSwitchesSinceCheckpoint"];
    // These attributes change as well if a lease changes its owner meanwhile.
    let of_owner = ["leaseOwner", "checkpointOwner", "multilangdProcess", "multilangdStream"];
    for (lease, row) in &before {
        let later = &after[lease];
        let names: BTreeSet<&String> = row.keys().chain(later.keys()).collect();
        for name in names {
            if !of_progress.contains(&name.as_str()) && !of_owner.contains(&name.as_str()) {
                assert_eq!(row.get(name), later.get(name), "{name} of {lease}");
            }
        }
        match (text(row, "multilangdStream"), text(later, "multilangdStream")) {
            (None, None) => {}
            (None, new) => assert!(is_of(new.as_deref(), STREAM), "{lease}: {new:?}"),
            (mark, later) => assert_eq!(mark, later, "{lease}"),
        }
    }

    let worked = fleet.load.rows().await;
    let continues = |rows: &Rows| {
        both(rows) && rows.iter().all(|(shard, row)| worked[shard].checkpoint != row.checkpoint)
    };
    fleet.load.until_rows(&format!("{name}: both continue in every shard"), continues).await;
    fleet.load.put(500).await;
    let (put, delivered) = fleet.load.all_seen().await;
    assert_first_deliveries_in_order(&fleet.load.rig.log);
    eprintln!(
        "SUMMARY wrong stream beside live Java {}: {marked} of 4 rows marked; exit 78 after {:.1} s; {put} records, \
         {delivered} deliveries {:?}",
        peer.version,
        took.as_secs_f64(),
        deliveries(&fleet.load.rig.log, 0)
    );
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_stream_name_beside_live_java_is_rejected() {
    let _turn = crate::turn(1).await;
    let [first, second, third] = PEERS.map(wrong_stream_beside_java);
    tokio::join!(first, second, third);
}

async fn table_of_java(peer: Peer) {
    let name = format!("table-of-java-{}", peer.version);
    let mut load = Load::start(&name, 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, peer, SOON);
    fleet.java(JAVA);
    fleet.load.until_rows(&format!("{name}: Java owns all leases"), owns_all(JAVA)).await;
    fleet.load.put(200).await;
    fleet.load.all_seen().await;
    all_checkpointed(&mut fleet.load.rig).await;
    stopped(&mut fleet, &[JAVA]).await;
    print(&format!("{name}: begun by Java"), &fleet.load.rig.rows().await);

    let before = dump(&fleet.load.rig).await;
    assert_absent(&before, &["multilangd"]);
    let took = assert_rejected(&fleet).await;
    assert_eq!(dump(&fleet.load.rig).await, before, "a row was changed");

    let (left, log) = (fleet.load.rows().await, fleet.load.rig.log.len());
    fleet.load.put(200).await;
    fleet.ours(OURS);
    let (put, delivered) = fleet.load.all_seen().await;
    assert_eq!(put, delivered, "every record once");
    for report in &fleet.load.rig.log[log..] {
        if let Report::Said { shard, what, body, .. } = report
            && what == "initialize"
        {
            assert_eq!(body["sequenceNumber"], left[shard].checkpoint, "{shard}");
        }
    }
    let rows = fleet.load.rig.rows().await;
    print(&format!("{name}: continued by ours"), &rows);
    assert!(
        rows.values().all(|row| is_of(text(row, "multilangdStream").as_deref(), STREAM)),
        "all are marked"
    );

    fleet.java(JAVA);
    fleet.load.until_rows(&format!("{name}: both own leases"), both).await;
    fleet.load.put(200).await;
    fleet.load.all_seen().await;
    all_checkpointed(&mut fleet.load.rig).await;
    fleet.stop(OURS).await;
    fleet.load.until_rows(&format!("{name}: Java owns all leases again"), owns_all(JAVA)).await;
    fleet.load.put(200).await;
    let (put, delivered) = fleet.load.all_seen().await;
    assert_first_deliveries_in_order(&fleet.load.rig.log);
    print(&format!("{name}: left to Java"), &fleet.load.rig.rows().await);
    eprintln!(
        "SUMMARY table that Java {} began: exit 78 after {:.1} s with a wrong stream, no row changed; {put} records, \
         {delivered} deliveries {:?}",
        peer.version,
        took.as_secs_f64(),
        deliveries(&fleet.load.rig.log, 0)
    );
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_begun_by_java_is_bound_to_its_stream() {
    let _turn = crate::turn(1).await;
    let [first, second, third] = PEERS.map(table_of_java);
    tokio::join!(first, second, third);
}

/// Java alone reads no record of a recreated stream and keeps the old checkpoints. Returns its other actions
/// for the summary.
async fn stalls_alone(fleet: &mut Fleet, before: &BTreeMap<String, Item>, name: &str) -> String {
    fleet.java(JAVA);
    let rig = &mut fleet.load.rig;
    let since = rig.log.len();
    rig.until("Java starts a record processor", |log| !said(&log[since..], "initialize").is_empty()).await;
    let _over = timeout(ALONE, async {
        while let Some(report) = rig.reports.recv().await {
            rig.log.push(report);
        }
    })
    .await;
    let rows = rig.rows().await;
    print(&format!("{name}: Java alone for {} s", ALONE.as_secs()), &rows);
    assert_eq!(count(&rig.log[since..]), 0, "Java reads nothing");
    for shard in PARENTS {
        assert_eq!(rows[shard]["checkpoint"], before[shard]["checkpoint"], "{shard}");
        assert_eq!(text(&rows[shard], "leaseOwner").as_deref(), Some(JAVA), "{shard}");
    }
    let others = CHILDREN.map(|shard| rows.get(shard).and_then(|row| text(row, "checkpoint")));
    format!(
        "Java alone for {} s: owns both shards, delivers nothing, keeps their checkpoints; of shards that are not listed \
         {others:?}, record processors started for {:?}; ",
        ALONE.as_secs(),
        said(&rig.log[since..], "initialize")
    )
}

/// The stream had four shards before and has two afterwards.
async fn recreated_stream(peer: Peer, java_first: bool) {
    let first = if java_first { "java" } else { "ours" };
    let name = format!("recreated-{first}-first-{}", peer.version);
    let mut load = Load::start(&name, 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, peer, SOON);
    fleet.java(JAVA);
    fleet.load.until_rows(&format!("{name}: Java owns all leases"), owns_all(JAVA)).await;
    fleet.ours(OURS);
    let marked = |rows: &Rows| both(rows) && rows.values().any(|row| row.stream.is_some());
    fleet.load.until_rows(&format!("{name}: both own leases, some rows are marked"), marked).await;
    fleet.load.put(200).await;
    let (earlier, _) = fleet.load.all_seen().await;
    all_checkpointed(&mut fleet.load.rig).await;
    stopped(&mut fleet, &[OURS, JAVA]).await;
    // The recreated stream reuses two names for child shards; one of them is the name of a lease that only Java
    // has owned.
    let mut before = fleet.load.rig.rows().await;
    let is_marked = |row: &Item| row.contains_key("multilangdStream");
    let of_java =
        CHILDREN.into_iter().find(|shard| before.iter().any(|(lease, row)| lease != shard && is_marked(row)));
    unmark(&fleet.load.rig, of_java.unwrap()).await;
    before = fleet.load.rig.rows().await;
    print(&format!("{name}: before"), &before);
    let earlier_mark = before.values().find_map(|row| text(row, "multilangdStream"));

    fleet.load.create_stream_again(2).await;
    let log = fleet.load.rig.log.len();
    fleet.load.put(200).await;
    let mut alone = String::new();
    if java_first {
        alone = stalls_alone(&mut fleet, &before, &name).await;
    }
    let start = Instant::now();
    fleet.ours(OURS);
    let reset = |rows: &Rows| {
        let is_reset = |row: &Row| row.stream.is_some() && row.stream != earlier_mark;
        PARENTS.iter().all(|shard| rows.get(*shard).is_some_and(is_reset))
    };
    fleet.load.until_rows(&format!("{name}: the leases are reset"), reset).await;
    let rows = fleet.load.rig.rows().await;
    print(&format!("{name}: reset"), &rows);
    for shard in PARENTS {
        let stored = text(&before[shard], "checkpoint").unwrap();
        let kept = text(&rows[shard], "multilangdEarlierCheckpoint").unwrap_or_default();
        assert!(kept.contains(&stored), "{shard}: {kept}");
    }
    fleet.load.all_seen().await;
    let took = start.elapsed().as_secs_f64();
    if !java_first {
        // Java's earlier worker metrics may still count: a row that names the worker does not prove that the
        // new process runs.
        let since = fleet.load.rig.log.len();
        fleet.java(JAVA);
        let reads = |log: &[Report]| by_worker(log, since, "initialize").contains_key(JAVA);
        fleet.load.rig.until(&format!("{name}: Java reads"), reads).await;
    }
    let both_own = |rows: &Rows| rows.keys().eq(PARENTS) && both(rows);
    fleet.load.until_rows(&format!("{name}: both own leases of the recreated stream"), both_own).await;
    fleet.load.put(200).await;
    let (put, _) = fleet.load.all_seen().await;

    let kinesis = &fleet.load.rig.clients.kinesis;
    let split = kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    fleet.load.put(500).await;
    let since = Instant::now();
    let (all, _) = fleet.load.all_seen().await;
    let after = since.elapsed().as_secs_f64();
    assert_eq!(all, put + 500);
    let children: BTreeSet<String> = records(&fleet.load.rig.log[log..]).into_keys().collect();
    assert_eq!(children.len(), 4, "the children have the names of earlier shards: {children:?}");
    assert_first_deliveries_in_order(&fleet.load.rig.log);
    print(&format!("{name}: after"), &fleet.load.rig.rows().await);
    let delivered = deliveries(&fleet.load.rig.log, log);
    assert!(delivered.contains_key(JAVA), "Java reads its leases too: {delivered:?}");
    eprintln!(
        "SUMMARY recreated stream, {first} first, Java {}: {alone}with ours, read after {took:.1} s, after a \
         split {after:.1} s; {} records of the recreated stream, {} deliveries {delivered:?}",
        peer.version,
        all - earlier,
        count(&fleet.load.rig.log[log..])
    );
    fleet.stop_all().await;
}

async fn unmark(rig: &Rig, lease: &str) {
    let update = rig.clients.dynamodb.update_item().table_name(APPLICATION);
    let update = update.key("leaseKey", AttributeValue::S(lease.to_owned()));
    update.update_expression("REMOVE multilangdStream, multilangdProcess").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_stream_is_read_by_ours_and_java() {
    let _turn = crate::turn(1).await;
    let [first, second, third] = PEERS.map(|peer| recreated_stream(peer, false));
    let [fourth, fifth, sixth] = PEERS.map(|peer| recreated_stream(peer, true));
    tokio::join!(first, second, third, fourth, fifth, sixth);
}

/// The worker of each logged error about a worker id that another process uses.
fn errors(path: &Path) -> Vec<String> {
    let lines = logged(path, "worker_id_in_use").into_iter().filter(|line| line["level"] == "ERROR");
    lines.filter_map(|line| line["worker"].as_str().map(str::to_owned)).collect()
}

/// Java reads with a worker id, then our worker starts with the same id. It leaves one lease alone for half a
/// failover time, sees Java renew it, and reports an error. Then it acquires all leases, because they name it
/// as owner, and Java loses them. From then on Java 2.x is idle; 3.x acquires the leases each failover time and
/// loses them at its next renewal.
async fn one_worker_id(peer: Peer) {
    let name = format!("one-id-{}", peer.version);
    let mut load = Load::start(&name, 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, peer, SOON);
    fleet.java(JAVA);
    let reads =
        |rows: &Rows| owns_all(JAVA)(rows) && rows.values().all(|row| row.checkpoint != "TRIM_HORIZON");
    fleet.load.until_rows(&format!("{name}: Java reads every shard"), reads).await;
    print(&format!("{name}: before"), &fleet.load.rig.rows().await);

    let rig = &fleet.load.rig;
    let more = format!("{}{}", fleet.lines, peer.ours);
    let file = properties(rig, OURS, &more);
    let lines = std::fs::read_to_string(&file).unwrap();
    let same = lines.replace(&format!("workerId = {OURS}\n"), &format!("workerId = {JAVA}\n"));
    assert_ne!(lines, same);
    std::fs::write(&file, same).unwrap();
    let (mut daemon, start) = (start(rig, OURS, &file), Instant::now());
    let acquired = |rows: &Rows| rows.values().all(|row| row.stream.is_some());
    fleet.load.until_rows(&format!("{name}: ours has acquired all leases"), acquired).await;
    // A lease of ours that is lost and reacquired is not counted.
    let lost = |log: &[Report]| by_worker(log, 0, "leaseLost").get(JAVA).is_some_and(|leases| *leases >= 4);
    fleet.load.rig.until("Java has lost its leases", lost).await;
    let since = fleet.load.rig.log.len();
    fleet.load.put(200).await;
    let (put, delivered) = fleet.load.all_seen().await;
    print(&format!("{name}: together"), &fleet.load.rig.rows().await);
    let log = &fleet.load.rig.log;
    if peer == JAVA_2 {
        assert_eq!(deliveries(log, since).get(JAVA), None, "Java delivers nothing any more");
    }
    let (together, lost) = (deliveries(log, 0), by_worker(log, 0, "leaseLost"));
    let started = by_worker(log, 0, "initialize");
    let (together_for, reported) = (start.elapsed(), errors(&daemon.stderr));
    assert!(!reported.is_empty() && reported.iter().all(|worker| worker == JAVA), "{reported:?}");
    assert_eq!(daemon.stop().await, Some(0), "{}", std::fs::read_to_string(&daemon.stderr).unwrap());

    let since = fleet.load.rig.log.len();
    fleet.load.until_rows(&format!("{name}: Java owns all leases again"), owns_all(JAVA)).await;
    fleet.load.feed();
    fleet.load.put(200).await;
    let (after, _) = fleet.load.all_seen().await;
    assert_first_deliveries_in_order(&fleet.load.rig.log);
    print(&format!("{name}: after"), &fleet.load.rig.rows().await);
    eprintln!(
        "SUMMARY one workerId twice, Java {}: {:.1} s together, {} errors logged, {put} records, {delivered} deliveries \
         {together:?}, record processors started {started:?}, leases lost {lost:?}; after ours {} records, deliveries {:?}",
        peer.version,
        together_for.as_secs_f64(),
        reported.len(),
        after - put,
        deliveries(&fleet.load.rig.log, since)
    );
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_id_beside_java_loses_no_record() {
    let _turn = crate::turn(1).await;
    let [first, second, third] = PEERS.map(one_worker_id);
    tokio::join!(first, second, third);
}
