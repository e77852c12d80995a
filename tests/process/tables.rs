//! A fleet with the three tables of KCL before 3.5: all rows move into the lease table, and each stage is
//! compared with what Java 3.5.1 wrote (`java-3.5.1/move-*.json`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use rustix::process::Signal;

use crate::java::{Row, kind, rows_in, shape};
use crate::rig::*;

const STATE: &str = "app-CoordinatorState";
const REPORTS: &str = "app-WorkerMetricStats";
/// Worker metrics are reported every second, and expire after two.
const QUICK: &str = "failoverTimeMillis = 2000\nworkerMetricsReporterFreqInMillis = 1000\n\
     tableMigrationCompleteBakeTimeSeconds = 3600\n";
/// Upper bound of a wait for a condition on the tables.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The rows of one table, by key.
async fn rows(rig: &Rig, table: &str) -> BTreeMap<String, Row> {
    let answer = rig.clients.dynamodb.scan().table_name(table).consistent_read(true).send().await;
    let answer = answer.unwrap();
    let name = |row: &Row| ["key", "wid", "leaseKey"].into_iter().find_map(|key| row.get(key)).cloned();
    let rows = answer.items().iter().map(|item| {
        let row: Row = item.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        (name(&row).unwrap().as_s().unwrap().clone(), row)
    });
    rows.collect()
}

async fn until(rig: &Rig, what: &str, reached: impl AsyncFn(&Rig) -> bool) {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        while !reached(rig).await {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(TIMEOUT, wait).await.is_err() {
        panic!("not reached: {what}; the daemons' log:\n{}", rig.daemon_log());
    }
}

fn stage(rows: &BTreeMap<String, Row>) -> &str {
    rows.get("TableMigration3.5").map_or("", |row| row["tm"].as_s().unwrap())
}

async fn until_stage(rig: &Rig, wanted: &str) {
    let wanted = format!("TABLE_MIGRATION_STATUS_{wanted}");
    until(rig, &wanted, async |rig| stage(&rows(rig, STATE).await) == wanted).await;
}

/// Dates the stage back by the given number of seconds.
async fn age(rig: &Rig, seconds: i64) {
    let row = rows(rig, STATE).await.remove("TableMigration3.5").unwrap();
    let then = row["mts"].as_n().unwrap().parse::<i64>().unwrap() - seconds * 1_000;
    let update = rig.clients.dynamodb.update_item().table_name(STATE);
    let update = update.key("key", AttributeValue::S("TableMigration3.5".into()));
    let update = update.update_expression("SET mts = :t");
    update.expression_attribute_values(":t", AttributeValue::N(then.to_string())).send().await.unwrap();
}

/// Asserts that rows of the same name have attributes of the same names and types as Java's, in the same table;
/// this includes worker metrics.
async fn assert_as_java(rig: &Rig, dump: &str) {
    for (suffix, table) in [("", APPLICATION), ("-CoordinatorState", STATE), ("-WorkerMetricStats", REPORTS)]
    {
        let java = rows_in(dump, suffix);
        let name = |row: &Row| {
            let key = ["key", "wid", "leaseKey"].into_iter().find_map(|key| row.get(key)).unwrap();
            let key = key.as_s().unwrap().clone();
            if row.contains_key("lut") { "a report".to_owned() } else { key }
        };
        // Java's dumps still contain worker metrics of 3.1.3.
        let is_old = |row: &Row| row.contains_key("lut") && !row.contains_key("sup");
        let by_name = |rows: &mut dyn Iterator<Item = Row>| -> BTreeMap<String, BTreeSet<_>> {
            let mut shapes: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
            for row in rows.filter(|row| !row.contains_key("leaseCounter") && !is_old(row)) {
                shapes.entry(name(&row)).or_default().insert(shape(&row));
            }
            shapes
        };
        let ours = by_name(&mut rows(rig, table).await.into_values());
        let mut java = by_name(&mut java.into_iter());
        // Our workers delete their worker metrics when they stop.
        if table == REPORTS && !ours.contains_key("a report") {
            java.remove("a report");
        }
        assert_eq!(ours, java, "{dump}, table {table}");
    }
}

async fn make(rig: &Rig, table: &str, key: &str, items: &[Row]) {
    let dynamodb = &rig.clients.dynamodb;
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    let string = AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
    let made = dynamodb.create_table().table_name(table).key_schema(schema);
    let made = made.attribute_definitions(string.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
    made.send().await.unwrap();
    for row in items {
        let item = row.clone().into_iter().collect();
        dynamodb.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }
}

fn worker(rig: &Rig, id: &str, more: &str) -> std::path::PathBuf {
    let file = rig.properties(&rig.scripted("each"), &format!("{QUICK}workerId = {id}\n{more}"));
    let own = file.with_file_name(format!("{id}.properties"));
    std::fs::rename(file, &own).unwrap();
    own
}

async fn put(rig: &Rig, from: usize) {
    let records: Vec<_> = (from..from + 100).map(|n| (format!("key-{n}"), vec![b'x'; 10])).collect();
    rig.put(&records).await;
}

const MOVE: &str = "migrateAllEntitiesToLeaseTable = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn three_tables_migrate_into_one_as_in_java() {
    let mut rig = Rig::start("tables").await;
    rig.stream(4).await;
    // As KCL 3.1.3 left it, except that the worker metrics table is missing, because the roll-back tool deletes
    // it.
    let generation = rows_in("move-init", "-CoordinatorState");
    let generation: Vec<Row> = generation.into_iter().filter(|row| row.contains_key("cv")).collect();
    make(&rig, STATE, "key", &generation).await;

    let too_early = worker(&rig, "a", &format!("{MOVE}schedulerInitializationBackoffTimeMillis = 1\n"));
    let mut daemon = rig.daemon(&too_early);
    assert_ne!(daemon.ended().await.code(), Some(0));
    assert!(rig.daemon_log().contains("migrateAllEntitiesToLeaseTable"), "{}", rig.daemon_log());

    let (mut a, mut b) = (rig.daemon(&worker(&rig, "a", "")), rig.daemon(&worker(&rig, "b", "")));
    put(&rig, 0).await;
    until_stage(&rig, "INIT").await;
    assert_as_java(&rig, "move-init").await;
    let first = rows(&rig, STATE).await;
    assert_eq!(first["Migration3.0"], generation[0], "what KCL 3.1.3 wrote stays as it is");
    age(&rig, 3_700).await;
    until_stage(&rig, "DEPLOYED").await;
    assert_as_java(&rig, "move-deployed").await;

    // One worker is configured to migrate; nothing moves while the other writes to the old tables.
    assert_eq!(a.stop().await, Some(0));
    a = rig.daemon(&worker(&rig, "a", MOVE));
    until(&rig, "a reports to the lease table", async |rig| rows(rig, APPLICATION).await.contains_key("a"))
        .await;
    put(&rig, 100).await;
    assert!(rows(&rig, STATE).await.contains_key("Migration3.0"));
    assert_eq!(b.stop().await, Some(0));
    b = rig.daemon(&worker(&rig, "b", MOVE));
    until_stage(&rig, "PENDING").await;
    assert_as_java(&rig, "move-pending").await;
    let moved = rows(&rig, APPLICATION).await;
    let shared: Vec<_> = ["cv", "mb", "mts", "h"].iter().map(|name| &moved["Migration3.0"][*name]).collect();
    let before: Vec<_> = ["cv", "mb", "mts", "h"].iter().map(|name| &generation[0][*name]).collect();
    assert_eq!(shared, before);

    put(&rig, 200).await;
    age(&rig, 3_700).await;
    until_stage(&rig, "COMPLETE").await;
    let leads = async |rig: &Rig| {
        let (new, old) = (rows(rig, APPLICATION).await, rows(rig, STATE).await);
        new.contains_key("Leader") && !old.contains_key("Leader")
    };
    until(&rig, "the lock in the lease table", leads).await;
    assert_as_java(&rig, "move-complete").await;

    // The fleet continues without its leader, and with a worker that starts in the present state.
    let leader = rows(&rig, APPLICATION).await["Leader"]["ownerName"].as_s().unwrap().clone();
    let (dead, alive) = if leader == "a" { (&mut a, &mut b) } else { (&mut b, &mut a) };
    dead.signal(Signal::KILL);
    dead.ended().await;
    let other = async |rig: &Rig| {
        let rows = rows(rig, APPLICATION).await;
        rows.get("Leader").is_some_and(|row| *row["ownerName"].as_s().unwrap() != leader)
    };
    until(&rig, "another leader", other).await;
    let mut c = rig.daemon(&worker(&rig, "c", ""));
    put(&rig, 300).await;
    let keys = |log: &[Report]| {
        let seen = records(log).into_values().flatten().map(|record| record.key);
        seen.collect::<BTreeSet<String>>().len()
    };
    rig.until("400 records", |log| keys(log) == 400).await;
    until(&rig, "c reports", async |rig| rows(rig, APPLICATION).await.contains_key("c")).await;
    assert!(!rows(&rig, STATE).await.contains_key("Leader"));
    assert_eq!((alive.stop().await, c.stop().await), (Some(0), Some(0)));
    rig.until("all children gone", |log| crate::rig::alive(log) == 0).await;
    assert_in_order(&rig.log);
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child process remains");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_table_has_the_rows_of_java() {
    let mut rig = Rig::start("one-table").await;
    rig.stream(4).await;
    let (mut a, mut b) = (rig.daemon(&worker(&rig, "a", "")), rig.daemon(&worker(&rig, "b", "")));
    put(&rig, 0).await;
    rig.until("100 records", |log| count(log) >= 100).await;
    let java = rows_in("steady-2-workers-4-shards", "");
    let shapes =
        |rows: &mut dyn Iterator<Item = Row>| -> BTreeSet<_> { rows.map(|row| shape(&row)).collect() };
    let java = shapes(&mut java.into_iter());
    until(&rig, "all of Java's rows", async |rig| {
        shapes(&mut rows(rig, APPLICATION).await.into_values()) == java
    })
    .await;
    let measured = |row: &Row| row.get("throughputKBps").is_some_and(|value| kind(value) == "N");
    // Throughput is updated by renewals; meanwhile leases move from the first worker to the second.
    until(&rig, "the throughput of every lease", async |rig| {
        put(rig, 0).await;
        rig.rows().await.values().all(measured)
    })
    .await;
    assert_eq!((a.stop().await, b.stop().await), (Some(0), Some(0)));
    let tables = rig.clients.dynamodb.list_tables().send().await.unwrap();
    assert_eq!(tables.table_names(), [APPLICATION]);
}
