//! Compares the lease rows with those that Java wrote: dumps of its tables are in `java-3.5.1/`.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use multilangd::aws::dynamodb::{Leases, Options};
use serde_json::Value;

use crate::rig::*;

pub type Row = BTreeMap<String, AttributeValue>;

fn dump(name: &str) -> Value {
    let path = format!("{}/tests/process/java-3.5.1/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The items of a dump in DynamoDB's representation.
fn rows_of(name: &str) -> Vec<Row> {
    rows_in(name, "")
}

/// The items of the table with the given suffix after the application's name.
pub fn rows_in(name: &str, suffix: &str) -> Vec<Row> {
    let dump = dump(name);
    let tables = dump["tables"].as_object().unwrap();
    let is_wanted = |table: &str| match suffix {
        "" => !table.ends_with("-CoordinatorState") && !table.ends_with("-WorkerMetricStats"),
        suffix => table.ends_with(suffix),
    };
    let (_, table) = tables.iter().find(|(table, _)| is_wanted(table)).unwrap();
    let items = table["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item.as_object().unwrap().iter().map(|(k, v)| (k.clone(), attribute(v))).collect())
        .collect()
}

fn attribute(value: &Value) -> AttributeValue {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(text(value)),
        "N" => AttributeValue::N(text(value)),
        "SS" => AttributeValue::Ss(value.as_array().unwrap().iter().map(text).collect()),
        "L" => AttributeValue::L(value.as_array().unwrap().iter().map(attribute).collect()),
        "M" => AttributeValue::M(
            value.as_object().unwrap().iter().map(|(k, v)| (k.clone(), attribute(v))).collect(),
        ),
        other => panic!("a type that no dump should have: {other}"),
    }
}

pub fn kind(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "S",
        AttributeValue::N(_) => "N",
        AttributeValue::Ss(_) => "SS",
        AttributeValue::L(_) => "L",
        AttributeValue::M(_) => "M",
        _ => "other",
    }
}

/// Names and types of the attributes, including those of history entries, but without the metrics that depend
/// on the machine.
pub fn shape(row: &Row) -> BTreeMap<String, &'static str> {
    let mut shape = BTreeMap::new();
    for (name, value) in row {
        // It appears with the second renewal.
        if name == "throughputKBps" {
            continue;
        }
        // Our own attributes, which every version of KCL preserves (`tests/interop/kept_attributes.rs`).
        if name.starts_with("multilangd") {
            continue;
        }
        shape.insert(name.clone(), kind(value));
        for entry in value.as_l().into_iter().flatten().filter_map(|entry| entry.as_m().ok()) {
            shape.extend(entry.iter().map(|(inner, value)| (format!("{name}.{inner}"), kind(value))));
        }
    }
    shape
}

fn is_lease(row: &Row) -> bool {
    row.contains_key("leaseCounter")
}

/// The kind of a lease row: plain, child shard, or finished parent.
fn stage(row: &Row) -> &'static str {
    if row.contains_key("childShardIds") {
        "finished"
    } else if row.contains_key("parentShardId") {
        "child"
    } else {
        "plain"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_equal_those_of_java_at_every_stage() {
    let mut rig = Rig::start("java-rows").await;
    rig.stream(2).await;
    let records: Vec<_> = (0..40).map(|n: u32| (n.to_string(), b"x".to_vec())).collect();
    rig.put(&records).await;
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("40 records", |log| count(log) == 40).await;
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    rig.put(&records).await;
    rig.until("80 records and children", |log| count(log) == 80 && said(log, "initialize").len() == 4).await;
    let ours = rig.rows().await;
    assert_eq!(daemon.stop().await, Some(0));

    let java: Vec<Row> = rows_of("after-split-children-running").into_iter().filter(is_lease).collect();
    let java: HashMap<&str, _> = java.iter().map(|row| (stage(row), shape(row))).collect();
    assert_eq!(java.len(), 3);
    let mut stages: Vec<&str> = ours.values().map(stage).collect();
    stages.sort_unstable();
    assert_eq!(stages, ["child", "child", "finished", "plain"]);
    for row in ours.values() {
        assert_eq!(shape(row), java[stage(row)], "{row:?}");
        for mark in ["multilangdStream", "multilangdProcess"] {
            assert!(row[mark].is_s(), "{mark}: {row:?}");
        }
    }
    assert_eq!(ours.keys().map(String::len).max(), Some("shardId-000000000000".len()), "and no other rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn table_is_created_as_by_java() {
    let rig = Rig::start("java-table").await;
    rig.stream(1).await;
    let file = rig.properties("no-such-child", "");
    drop(file);
    let leases = Leases::new(rig.clients.dynamodb.clone(), APPLICATION.to_owned(), Options::default());
    multilangd::lease::Table::ensure(&leases).await.unwrap();
    let made =
        rig.clients.dynamodb.describe_table().table_name(APPLICATION).send().await.unwrap().table.unwrap();
    let java = dump("create-table");
    let keys: Vec<_> =
        made.key_schema().iter().map(|k| (k.attribute_name(), k.key_type().as_str())).collect();
    let java_key = &java["KeySchema"][0];
    assert_eq!(keys, [(java_key["AttributeName"].as_str().unwrap(), java_key["KeyType"].as_str().unwrap())]);
    let types: Vec<_> = made
        .attribute_definitions()
        .iter()
        .map(|a| (a.attribute_name(), a.attribute_type().as_str()))
        .collect();
    let java_type = &java["AttributeDefinitions"][0];
    assert_eq!(
        types,
        [(java_type["AttributeName"].as_str().unwrap(), java_type["AttributeType"].as_str().unwrap())]
    );
    let billing = made.billing_mode_summary().and_then(|summary| summary.billing_mode());
    assert_eq!(billing.map(BillingMode::as_str), java["BillingMode"].as_str());
    assert_eq!(
        made.deletion_protection_enabled().unwrap_or(false),
        java["DeletionProtectionEnabled"] == Value::Bool(true)
    );
    let client = rig.clients.dynamodb.clone();
    let options = Options { protected: true, ..Options::default() };
    let other = Leases::new(client.clone(), "protected".to_owned(), options);
    multilangd::lease::Table::ensure(&other).await.unwrap();
    let made = client.describe_table().table_name("protected").send().await.unwrap().table.unwrap();
    assert_eq!(made.deletion_protection_enabled(), Some(true));
}

/// A table left by Java 3.5.1 (a single table) or 2.5.4, with the checkpoints replaced by sequence numbers of
/// this stream: its leases are acquired after the failover time, and reading resumes at the checkpoints.
async fn resumes(name: &str, dump: &str) {
    let mut rig = Rig::start(name).await;
    rig.stream(2).await;
    rig.put(&(0..60).map(|n: u32| (n.to_string(), n.to_string().into_bytes())).collect::<Vec<_>>()).await;
    let mut left = Vec::new();
    let mut stored = BTreeMap::new();
    for mut row in rows_of(dump) {
        let key = row["leaseKey"].as_s().unwrap().clone();
        if is_lease(&row) {
            if !["shardId-000000000000", "shardId-000000000001"].contains(&key.as_str()) {
                continue;
            }
            row.remove("childShardIds");
            let tenth = tenth_record(&rig, &key).await;
            row.insert("checkpoint".into(), AttributeValue::S(tenth.clone()));
            stored.insert(key, tenth);
        }
        // The dump is old, and worker metrics older than a day are deleted; this row gets the current time.
        if let Some(reported) = row.get_mut("lut") {
            *reported = AttributeValue::N((multilangd::clock::wall_millis() / 1_000).to_string());
        }
        left.push(row);
    }
    fill(&rig, &left).await;
    let file = rig.properties(&rig.scripted("each"), "failoverTimeMillis = 1000\n");
    let mut daemon = rig.daemon(&file);
    rig.until("the other 40 records", |log| count(log) == 40).await;
    rig.until("their checkpoints", |log| said(log, "checkpointed").len() >= 2).await;
    let rows = rig.all_rows().await;
    assert_eq!(daemon.stop().await, Some(0));
    for report in &rig.log {
        if let Report::Said { shard, what, body, .. } = report
            && what == "initialize"
        {
            assert_eq!(body["sequenceNumber"].as_str(), Some(stored[shard].as_str()));
        }
    }
    for row in left {
        let now = &rows[row["leaseKey"].as_s().unwrap()];
        if is_lease(&row) {
            assert!(row.keys().all(|name| now.contains_key(name)), "nothing of Java's is deleted: {now:?}");
            assert_ne!(now["leaseOwner"], row["leaseOwner"]);
        } else {
            assert_eq!(*now, row, "rows that are no leases stay as they were");
        }
    }
}

async fn tenth_record(rig: &Rig, shard: &str) -> String {
    let kinesis = &rig.clients.kinesis;
    let request = kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard);
    let iterator =
        request.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap().shard_iterator.unwrap();
    let answer = kinesis.get_records().shard_iterator(iterator).send().await.unwrap();
    answer.records()[9].sequence_number().to_owned()
}

async fn fill(rig: &Rig, rows: &[Row]) {
    let dynamodb = &rig.clients.dynamodb;
    let key = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build().unwrap();
    let string =
        AttributeDefinition::builder().attribute_name("leaseKey").attribute_type(ScalarAttributeType::S);
    let made = dynamodb.create_table().table_name(APPLICATION).key_schema(key);
    let made = made.attribute_definitions(string.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
    made.send().await.unwrap();
    for row in rows {
        let item = row.clone().into_iter().collect();
        dynamodb.put_item().table_name(APPLICATION).set_item(Some(item)).send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_java_3_is_resumed_at_its_checkpoints() {
    resumes("java-3-left", "after-graceful-stop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_java_2_is_resumed_at_its_checkpoints() {
    resumes("java-2-left", "v2.5.4-stopped").await;
}

/// The stages of two multi-stream workers, recorded by `tests/interop/multi_stream.rs`.
const OF_SEVERAL_STREAMS: [&str; 7] =
    ["start", "running", "handoff", "after-split", "after-shard-end", "after-removal", "stopped"];

#[tokio::test(flavor = "multi_thread")]
async fn multi_stream_table_of_java_is_rejected_unchanged_at_every_stage() {
    for stage in OF_SEVERAL_STREAMS {
        let rig = Rig::start("java-several-streams").await;
        rig.stream(2).await;
        fill(&rig, &rows_of(&format!("multi-stream-{stage}"))).await;
        let before = rig.all_rows().await;
        assert!(before.values().filter(|row| is_lease(row)).count() >= 6, "{stage}");
        let mut daemon = rig.daemon(&rig.properties(&rig.scripted("each"), ""));
        assert_eq!(daemon.ended().await.code(), Some(78), "{stage}: {}", rig.daemon_log());
        assert_eq!(rig.all_rows().await, before, "{stage}: a row was changed");
    }
}
