//! Multi-stream workers of the KCL library 3.5.1 (`MultiStreamTracker`) on three streams: the rows of every stage,
//! compared with those of `tests/process/java-3.5.1/multi-stream-*.json`, and each kind of worker on a table of the
//! other kind.
//!
//! With `MULTILANGD_RECORD=DIR` the tables of every stage are written to that folder instead of compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Value, json};
use tokio::time::{interval, timeout};

use crate::fleet::{Fleet, all_have, until};
use crate::identity::{all_checkpointed, dump, start};
use crate::java::{LIBRARY_LED, properties, rewrite};
use crate::library::SOON;
use crate::load::{Load, Rows, Source};
use crate::rig::{APPLICATION, LIMIT, records};

const FIRST: &str = "java-1";
const SECOND: &str = "java-2";
/// Our single-stream worker, and one that is refused.
const OURS: &str = "ours-1";
const REFUSED: &str = "refused-1";
/// Streams and their numbers of shards. The last one is removed.
const STREAMS: [(&str, i32); 3] = [("orders", 2), ("payments", 2), ("returns", 2)];
const SHARDS: usize = 6;
/// The shard that is split, and its child shards.
const SPLIT: &str = "shardId-000000000000";
const CHILDREN: [&str; 2] = ["shardId-000000000002", "shardId-000000000003"];

/// The lines of a multi-stream worker of these streams.
fn lines(load: &Load) -> String {
    let ids: Vec<&str> = load.sources.iter().map(|source| source.id.as_deref().unwrap()).collect();
    format!(
        "{SOON}formerStreams = FORMER_STREAMS_AUTO_DETECTION_DEFERRED_DELETION\nstreamName = {}\n",
        ids.join(",")
    )
}

fn json(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::Ss(texts) => json!({"SS": texts.iter().collect::<BTreeSet<_>>()}),
        AttributeValue::L(values) => json!({"L": values.iter().map(json).collect::<Vec<_>>()}),
        AttributeValue::M(values) => {
            let values = values.iter().map(|(name, value)| (name.clone(), json(value)));
            json!({"M": values.collect::<Map<_, _>>()})
        }
        other => panic!("KCL writes no such type: {other:?}"),
    }
}

/// Every row of every table, in the form of the recorded dumps.
async fn tables(fleet: &Fleet) -> Value {
    let mut tables = Map::new();
    for (table, rows) in dump(&fleet.load.rig).await {
        let mut items: Vec<Value> = rows
            .iter()
            .map(|row| row.iter().map(|(name, value)| (name.clone(), json(value))).collect::<Map<_, _>>())
            .map(Value::Object)
            .collect();
        items.sort_by_key(|item| (item["leaseKey"].to_string(), item.to_string()));
        tables.insert(table, json!({"items": items}));
    }
    json!({"tables": tables})
}

/// The rows of the lease table by their kind, with the names and types of the attributes of leases. A lease has a
/// throughput from its second renewal on, and a `checkpointOwner` during a handoff.
fn shapes(dump: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut shapes = BTreeMap::new();
    for row in dump["tables"][APPLICATION]["items"].as_array().unwrap() {
        let row = row.as_object().unwrap();
        let has = |name: &str| row.contains_key(name);
        let entity = row.get("entityType").map_or("none", |kind| kind["S"].as_str().unwrap());
        let mut shape = BTreeSet::new();
        let mut kind = entity.to_owned();
        if entity == "LEASE" {
            let name = ["plain", "child", "finished"]
                [if has("childShardIds") { 2 } else { usize::from(has("parentShardId")) }];
            kind = format!("{name} {}", if has("leaseOwner") { "owned" } else { "unowned" });
            let differs = ["throughputKBps", "checkpointOwner"];
            let attributes = row.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
            shape.extend(attributes.map(|(name, value)| {
                format!("{name} {}", value.as_object().unwrap().keys().next().unwrap())
            }));
        }
        if has("checkpointOwner") {
            shapes.insert("in handoff".to_owned(), BTreeSet::new());
        }
        let known = shapes.entry(kind).or_insert_with(|| shape.clone());
        assert_eq!(*known, shape, "rows of one kind have the same attributes: {row:?}");
    }
    shapes
}

/// The stages that are recorded.
const RECORDED: [&str; 7] =
    ["start", "running", "handoff", "after-split", "after-shard-end", "after-removal", "stopped"];

/// Compares the tables with the recorded ones, or records them. Rows of the given kinds must be there.
async fn stage(fleet: &Fleet, name: &str, kinds: &[&str]) {
    compare(&tables(fleet).await, name, kinds);
}

fn compare(seen: &Value, name: &str, kinds: &[&str]) {
    let file = |name: &str| format!("multi-stream-{name}.json");
    if let Some(folder) = std::env::var_os("MULTILANGD_RECORD") {
        let text = serde_json::to_string_pretty(seen).unwrap();
        return std::fs::write(PathBuf::from(folder).join(file(name)), format!("{text}\n")).unwrap();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/java-3.5.1");
    let mut recorded = BTreeMap::new();
    for name in RECORDED {
        let text = std::fs::read_to_string(folder.join(file(name))).unwrap();
        recorded.extend(shapes(&serde_json::from_str(&text).unwrap()));
    }
    let shapes = shapes(seen);
    for (kind, shape) in &shapes {
        assert_eq!(Some(shape), recorded.get(kind), "{name}: {kind}: {seen:#}");
    }
    for kind in kinds {
        assert!(shapes.contains_key(*kind), "{name}: no row is {kind}: {seen:#}");
    }
}

/// Waits for a graceful handoff, which takes about a second, and returns the tables meanwhile.
async fn handoff(fleet: &Fleet) -> Value {
    let begins = async {
        let mut ticks = interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let seen = tables(fleet).await;
            if shapes(&seen).contains_key("in handoff") {
                return seen;
            }
        }
    };
    timeout(LIMIT, begins).await.expect("the leader hands a lease off")
}

/// The tables without what live Java workers change while there is no record to deliver.
async fn at_rest(fleet: &Fleet, live: bool) -> Value {
    let mut seen = tables(fleet).await;
    if live {
        let tables = seen["tables"].as_object_mut().unwrap();
        tables.retain(|table, _| table == APPLICATION);
        let items = tables[APPLICATION]["items"].as_array_mut().unwrap();
        items.retain(|item| item.get("leaseCounter").is_some());
        for item in items {
            let item = item.as_object_mut().unwrap();
            let of_owner = ["leaseOwner", "checkpointOwner", "ownerSwitchesSinceCheckpoint"];
            item.retain(|name, _| {
                !["leaseCounter", "throughputKBps"].contains(&name.as_str())
                    && !of_owner.contains(&name.as_str())
            });
        }
    }
    seen
}

/// Our single-stream worker and every verb refuse the table of several streams, and change no row.
async fn refused(fleet: &Fleet, live: bool) {
    let rig = &fleet.load.rig;
    let file = properties(rig, REFUSED, SOON);
    let before = at_rest(fleet, live).await;
    let verbs: [&[&str]; 5] = [
        &[],
        &["seek", "--to", "TRIM_HORIZON", "--force"],
        &["release", "--force"],
        &["park", "--force"],
        &["pause"],
    ];
    let mut daemon = start(rig, REFUSED, &file);
    assert_eq!(daemon.ended().await.code(), Some(78), "{}", std::fs::read_to_string(&daemon.stderr).unwrap());
    for verb in verbs {
        let mut command = rig.command(&[&["leases", file.to_str().unwrap()], verb].concat());
        assert_eq!(command.ended().await.code(), Some(78), "{verb:?}: {}", rig.daemon_log());
    }
    assert_eq!(at_rest(fleet, live).await, before, "a row was changed");
    assert!(!tables(fleet).await.to_string().contains(REFUSED), "a row names our worker");
    eprintln!("our worker and its commands refuse the table (Java is alive: {live})");
}

/// Two workers from the first row to a stop; then our worker on their table.
async fn several_streams() {
    let mut load = Load::of_several_streams("multi-stream", &STREAMS).await;
    load.feed();
    let lines = lines(&load);
    let mut fleet = Fleet::new(load, LIBRARY_LED, &lines);
    fleet.java(FIRST);
    fleet.load.until_rows("leases of all streams are created", |rows| rows.len() == SHARDS).await;
    stage(&fleet, "start", &["LEADER", "CLIENT_VERSION_MIGRATION"]).await;
    let running =
        |rows: &Rows| all_have(rows, &[FIRST]) && rows.values().all(|row| row.checkpoint != "TRIM_HORIZON");
    fleet.load.until_rows("the first worker reads all shards", running).await;
    stage(&fleet, "running", &["plain owned", "WORKER_METRIC_STATS"]).await;

    fleet.java(SECOND);
    let reports = async || fleet.load.rig.all_rows().await.contains_key(SECOND);
    until("the second worker reports its metrics", reports).await;
    compare(&handoff(&fleet).await, "handoff", &["plain owned", "in handoff"]);
    let both = |rows: &Rows| all_have(rows, &[FIRST, SECOND]) && rows.values().all(|row| row.from.is_none());
    fleet.load.until_rows("both own leases", both).await;

    // The workers ask for their streams once a minute, so the removal begins here.
    fleet.load.all_seen().await;
    let removed = fleet.load.sources.pop().unwrap().id.unwrap();
    for worker in [FIRST, SECOND] {
        rewrite(&fleet.load.rig, worker, &format!(",{removed}\n"), "\n");
    }
    let orders = fleet.load.sources[0].clone();
    let kinesis = &fleet.load.rig.clients.kinesis;
    let split = kinesis.split_shard().stream_name(&orders.name).shard_to_split(SPLIT);
    split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    let parent = orders.lease(SPLIT);
    let children = CHILDREN.map(|shard| orders.lease(shard));
    let created = |rows: &Rows| children.iter().all(|child| rows.contains_key(child));
    fleet.load.until_rows("the child shards have leases", created).await;
    stage(&fleet, "after-split", &[]).await;
    fleet.load.feed();
    let read = |rows: &Rows| {
        rows.get(&parent).is_none_or(|row| !row.is_open())
            && children.iter().all(|child| rows[child].checkpoint != "TRIM_HORIZON")
    };
    fleet.load.until_rows("the child shards are read", read).await;
    stage(&fleet, "after-shard-end", &["child owned"]).await;

    let prefix = format!("{removed}:");
    let gone = |rows: &Rows| !rows.keys().any(|lease| lease.starts_with(&prefix));
    fleet.load.until_rows("the leases of the removed stream are deleted", gone).await;
    stage(&fleet, "after-removal", &["child owned"]).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{put} records, {delivered} deliveries");
    all_checkpointed(&mut fleet.load.rig).await;
    refused(&fleet, true).await;
    fleet.stop(SECOND).await;
    // KCL's graceful shutdown does not end while a lease is being acquired: the first worker reads all shards before.
    let all = |rows: &Rows| all_have(rows, &[FIRST]) && rows.values().all(|row| row.from.is_none());
    fleet.load.until_rows("the first worker owns all leases", all).await;
    fleet.load.feed();
    fleet.load.all_seen().await;
    all_checkpointed(&mut fleet.load.rig).await;
    fleet.stop(FIRST).await;
    stage(&fleet, "stopped", &["child owned", "plain owned"]).await;
    refused(&fleet, false).await;
    fleet.stop_all().await;
}

/// A multi-stream worker on the table of our single-stream worker cannot read our rows, and changes none. Beside our
/// leader it only reports its metrics. Once it leads, it creates rows of its own and reads the stream by them, and our
/// worker does not start any more.
async fn on_our_table() {
    let mut load = Load::of_several_streams("multi-stream-ours", &[("orders", 4)]).await;
    let lines = lines(&load);
    let source = load.sources[0].clone();
    load.sources[0].id = None;
    load.feed();
    let mut fleet = Fleet::new(load, LIBRARY_LED, SOON);
    fleet.ours(OURS);
    let all = |rows: &Rows| rows.len() == 4 && all_have(rows, &[OURS]);
    fleet.load.until_rows("our worker owns all leases", all).await;
    fleet.lines = lines;
    fleet.java(FIRST);
    let log = fleet.load.rig.folder.join(format!("{FIRST}.log"));
    until("Java reports its metrics, and cannot read our rows", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        let rows = fleet.load.rig.all_rows().await;
        rows.contains_key(FIRST) && text.contains("streamIdentifier is marked non-null but is null")
    })
    .await;
    let (put, delivered) = fleet.load.all_seen().await;
    assert_eq!(put, delivered, "our worker delivers every record once");
    all_checkpointed(&mut fleet.load.rig).await;
    assert!(fleet.load.rows().await.keys().all(|lease| lease.starts_with("shardId-")), "Java creates no row");
    fleet.stop(OURS).await;

    let of_ours = async |fleet: &Fleet| {
        let mut rows = fleet.load.rig.rows().await;
        rows.retain(|lease, _| lease.starts_with("shardId-"));
        rows
    };
    let before = of_ours(&fleet).await;
    assert_eq!(before.len(), 4);
    let created = |rows: &Rows| rows.values().filter(|row| row.owner == FIRST).count() == 4;
    fleet.load.until_rows("Java owns rows of its own", created).await;
    let places = fleet.load.places().into_iter();
    let mut missing: BTreeSet<_> = places.map(|(shard, number)| (source.lease(&shard), number)).collect();
    let mut next = 0;
    fleet
        .load
        .rig
        .until("Java delivers every record by rows of its own", |log| {
            for (lease, seen) in records(&log[next..]) {
                for record in seen {
                    missing.remove(&(lease.clone(), record.sequence));
                }
            }
            next = log.len();
            missing.is_empty()
        })
        .await;
    all_checkpointed(&mut fleet.load.rig).await;
    assert_eq!(of_ours(&fleet).await, before, "Java changed a row of ours");
    refused(&fleet, true).await;
    fleet.stop_all().await;
}

/// Java's workers read the list of streams again once a minute, ours at their start. Each kind reads the leases of streams
/// that only the other kind lists.
#[tokio::test(flavor = "multi_thread")]
async fn streams_listed_by_one_kind_are_read_by_both() {
    let _turn = crate::turn(1).await;
    let all = [("orders", 2), ("payments", 2), ("returns", 2)];
    let mut load = Load::of_several_streams("multi-stream-listed", &all).await;
    // `returns` exists, and neither kind lists it yet.
    let returns = load.sources.pop().unwrap();
    load.feed();
    let mut fleet = Fleet::of_several_streams(load, LIBRARY_LED, SOON);
    fleet.java(FIRST);
    fleet.load.until_rows("Java owns all leases", |rows| rows.len() == 4 && all_have(rows, &[FIRST])).await;
    fleet.ours(OURS);
    fleet.load.until_rows("both own leases", |rows| all_have(rows, &[FIRST, OURS])).await;
    fleet.load.all_seen().await;

    let id = returns.id.clone().unwrap();
    fleet.load.sources.push(returns);
    fleet.load.feed();
    let last = fleet.load.sources[1].id.clone().unwrap();
    rewrite(&fleet.load.rig, FIRST, &format!("{last}\n"), &format!("{last},{id}\n"));
    let is_added = |rows: &Rows| {
        let added = || rows.iter().filter(|(lease, _)| lease.starts_with(&id));
        added().count() == 2
            && added().all(|(_, row)| !row.owner.is_empty() && row.checkpoint != "TRIM_HORIZON")
    };
    fleet.load.until_rows("a stream that Java adds is read", is_added).await;
    fleet.stop(FIRST).await;
    fleet.load.until_rows("ours reads all three", |rows| rows.len() == 6 && all_have(rows, &[OURS])).await;
    fleet.load.all_seen().await;

    // Another worker of ours adds the fourth; Java's second worker lists only the first two.
    let kinesis = &fleet.load.rig.clients.kinesis;
    kinesis.create_stream().stream_name("refunds").shard_count(2).send().await.unwrap();
    let described = kinesis.describe_stream_summary().stream_name("refunds").send().await.unwrap();
    let created = described.stream_description_summary().unwrap().stream_creation_timestamp().secs();
    let account = id.split(':').next().unwrap();
    let fourth = format!("{account}:refunds:{created}");
    fleet.load.sources.push(Source { name: "refunds".to_owned(), id: Some(fourth.clone()) });
    fleet.load.feed();
    fleet.streams = fleet.streams.map(|streams| format!("{streams},refunds"));
    fleet.ours("ours-2");
    fleet.java(SECOND);
    let shared = |rows: &Rows| {
        let of_fourth = || rows.iter().filter(|(lease, _)| lease.starts_with(&fourth));
        of_fourth().count() == 2 && all_have(rows, &[OURS, "ours-2", SECOND])
    };
    fleet.load.until_rows("a stream that ours adds is read by all", shared).await;
    fleet.stop(OURS).await;
    fleet.stop("ours-2").await;
    fleet.load.until_rows("Java reads all four", |rows| all_have(rows, &[SECOND])).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{put} records, {delivered} deliveries");
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn multi_stream_tables_of_the_library_and_ours_stay_apart() {
    let _turn = crate::turn(1).await;
    tokio::join!(several_streams(), on_our_table());
}
