//! `multilangd leases FILE seek` and `release`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::{interval, timeout};

use crate::denying::Denying;
use crate::life::aggregate;
use crate::rig::*;

/// The owner renews a lease every 1.2 s.
pub const FAST: &str = "failoverTimeMillis = 3000\nmaxRecords = 100\nshardSyncIntervalMillis = 1000\n";

pub fn numbered(range: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    range.map(|n| (format!("key-{n}"), format!("record {n}").into_bytes())).collect()
}

pub fn expected(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|n| format!("record {n}")).collect()
}

pub fn delivered(log: &[Report]) -> BTreeSet<String> {
    let seen = records(log);
    seen.values().flatten().map(|record| String::from_utf8(record.data.clone()).unwrap()).collect()
}

/// Runs a verb, and returns its exit code and what it printed.
pub async fn verb(rig: &Rig, file: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["leases", file.to_str().unwrap()], arguments].concat();
    let mut command = rig.command(&arguments);
    let code = command.ended().await.code();
    (code, command.printed.join("\n"))
}

pub async fn succeeds(rig: &Rig, file: &Path, arguments: &[&str]) {
    let (code, printed) = verb(rig, file, arguments).await;
    assert_eq!(code, Some(0), "{printed}\n{}", rig.daemon_log());
}

/// Runs the daemon until it has delivered these records, and returns all that it delivered.
async fn run(rig: &mut Rig, file: &Path, wanted: &BTreeSet<String>) -> BTreeSet<String> {
    let from = rig.log.len();
    let mut daemon = rig.daemon(file);
    rig.until(&format!("{} records", wanted.len()), |log| delivered(&log[from..]).is_superset(wanted)).await;
    assert_eq!(daemon.stop().await, Some(0));
    delivered(&rig.log[from..])
}

type Row = BTreeMap<String, aws_sdk_dynamodb::types::AttributeValue>;

/// The rows without what the renewals of their owners change.
async fn rows(rig: &Rig) -> BTreeMap<String, Row> {
    let mut rows = rig.rows().await;
    for row in rows.values_mut() {
        row.remove("leaseCounter");
        row.remove("throughputKBps");
    }
    rows
}

/// Waits for the next full second, in which no record has arrived yet.
pub async fn next_second() -> i64 {
    let now = || multilangd::clock::wall_millis() / 1_000;
    let next = now() + 1;
    let mut looks = interval(Duration::from_millis(20));
    while now() < next {
        looks.tick().await;
    }
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_application_is_delivered_from_the_position() {
    let mut rig = Rig::start("seek-stopped").await;
    rig.stream(2).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    rig.put(&numbered(0..40)).await;
    let middle = next_second().await;
    rig.put(&numbered(40..80)).await;
    assert_eq!(run(&mut rig, &file, &expected(0..80)).await, expected(0..80));

    let before = rig.all_rows().await;
    let dry = ["seek", "--to", "TRIM_HORIZON", "--dry-run", "--json"];
    let (code, printed) = verb(&rig, &file, &dry).await;
    assert_eq!(code, Some(0), "{}", rig.daemon_log());
    let planned: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(planned["steps"].as_array().unwrap().len(), 2);
    assert!(
        planned["steps"].as_array().unwrap().iter().all(|step| step["after"] == "TRIM_HORIZON"),
        "{planned}"
    );
    assert_eq!(planned["written"], serde_json::Value::Null);
    assert_eq!(rig.all_rows().await, before, "a dry run writes nothing");

    succeeds(&rig, &file, &["seek", "--to", "TRIM_HORIZON"]).await;
    for (key, row) in rig.rows().await {
        let earlier = row["multilangdEarlierCheckpoint"].as_s().unwrap();
        assert!(earlier.contains(before[&key]["checkpoint"].as_s().unwrap()), "{earlier}");
    }
    assert_eq!(run(&mut rig, &file, &expected(0..80)).await, expected(0..80));

    succeeds(&rig, &file, &["seek", "--to", &middle.to_string()]).await;
    assert_eq!(run(&mut rig, &file, &expected(40..80)).await, expected(40..80));

    // The record with the sequence number is the first one, only in that shard.
    let shard = "shardId-000000000001";
    let mut all: Vec<Seen> = records(&rig.log)[shard].clone();
    all.sort();
    all.dedup();
    for first in [0, all.len() / 2, all.len() - 1] {
        let number = &all[first].sequence;
        succeeds(&rig, &file, &["seek", "--to", number, "--shard", shard]).await;
        let wanted =
            all[first..].iter().map(|record| String::from_utf8(record.data.clone()).unwrap()).collect();
        assert_eq!(run(&mut rig, &file, &wanted).await, wanted, "from record {first} of {}", all.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_skips_the_records_put_before_the_start() {
    let mut rig = Rig::start("seek-latest").await;
    rig.stream(1).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    rig.put(&numbered(0..10)).await;
    let mut daemon = rig.daemon(&file);
    rig.until("10 records", |log| delivered(log) == expected(0..10)).await;
    // The row keeps its dead owner.
    daemon.signal(rustix::process::Signal::KILL);
    daemon.ended().await;
    rig.put(&numbered(10..20)).await;
    succeeds(&rig, &file, &["seek", "--to", "LATEST"]).await;
    let from = rig.log.len();
    let mut daemon = rig.daemon(&file);
    // The first delivered record shows that reading has begun.
    while delivered(&rig.log[from..]).is_empty() {
        rig.put(&[("key".to_owned(), b"begins".to_vec())]).await;
        if let Ok(Some(report)) = timeout(Duration::from_millis(200), rig.reports.recv()).await {
            rig.log.push(report);
        }
    }
    rig.put(&numbered(20..30)).await;
    rig.until("the new records", |log| delivered(&log[from..]).is_superset(&expected(20..30))).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert!(delivered(&rig.log[from..]).is_disjoint(&expected(0..20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn running_fleet_is_refused_and_no_row_changes() {
    let mut rig = Rig::start("seek-running").await;
    rig.stream(2).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    let mut daemon = rig.daemon(&file);
    rig.put(&numbered(0..40)).await;
    rig.until("all records", |log| {
        delivered(log) == expected(0..40)
            && said(log, "checkpointed").len() >= said(log, "processRecords").len()
    })
    .await;
    let before = rows(&rig).await;
    for arguments in [&["seek", "--to", "TRIM_HORIZON"][..], &["seek", "--to", "LATEST"], &["release"]] {
        let (code, printed) = verb(&rig, &file, arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {printed}");
        assert_eq!(printed.matches("refuse ").count(), 2, "{printed}");
        assert_eq!(rows(&rig).await, before, "{arguments:?} changed a row");
    }
    rig.put(&numbered(40..60)).await;
    rig.until("new records", |log| delivered(log) == expected(0..60)).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(count(&rig.log), 60, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_verbs_on_a_running_fleet_lose_nothing() {
    let mut rig = Rig::start("seek-forced").await;
    rig.stream(2).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    let mut daemon = rig.daemon(&file);
    rig.put(&numbered(0..40)).await;
    rig.until("all records", |log| delivered(log) == expected(0..40)).await;

    let from = rig.log.len();
    succeeds(&rig, &file, &["seek", "--to", "TRIM_HORIZON", "--force"]).await;
    rig.put(&numbered(40..60)).await;
    rig.until("all records again", |log| delivered(&log[from..]) == expected(0..60)).await;
    assert_eq!(said(&rig.log[from..], "leaseLost").len(), 2, "the children are told");

    let from = rig.log.len();
    let shard = "shardId-000000000000";
    succeeds(&rig, &file, &["release", "--shard", shard, "--force"]).await;
    rig.until("another child", |log| said(&log[from..], "initialize") == [shard]).await;
    rig.put(&numbered(60..80)).await;
    rig.until("new records", |log| delivered(log) == expected(0..80)).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_in_order(&rig.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_parents_are_read_again_before_their_children() {
    let mut rig = Rig::start("seek-split").await;
    rig.stream(1).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    let parent = "shardId-000000000000";
    rig.put(&numbered(0..20)).await;
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(parent);
    split.new_starting_hash_key((1u128 << 127).to_string()).send().await.unwrap();
    rig.put(&numbered(20..40)).await;
    run(&mut rig, &file, &expected(0..40)).await;
    // The lease cleanup deletes the row a minute later.
    let delete = rig.clients.dynamodb.delete_item().table_name(APPLICATION);
    delete
        .key("leaseKey", aws_sdk_dynamodb::types::AttributeValue::S(parent.to_owned()))
        .send()
        .await
        .unwrap();

    let before = rig.all_rows().await;
    let only = ["seek", "--to", "15m", "--shard", parent];
    assert_eq!(verb(&rig, &file, &only).await.0, Some(1), "the children have begun");
    assert_eq!(rig.all_rows().await, before);

    for to in ["TRIM_HORIZON", "15m"] {
        succeeds(&rig, &file, &["seek", "--to", to]).await;
        let from = rig.log.len();
        assert_eq!(run(&mut rig, &file, &expected(0..40)).await, expected(0..40));
        let at = |wanted: &str, of: &dyn Fn(&str) -> bool| {
            rig.log[from..].iter().position(
                |report| matches!(report, Report::Said { shard, what, .. } if what == wanted && of(shard)),
            )
        };
        let ended = at("shardEnded", &|shard| shard == parent).unwrap();
        assert!(at("initialize", &|shard| shard != parent).unwrap() > ended, "a child started first");
    }
}

/// The calls of a worker must be answered within a part of `failoverTimeMillis`, those of a command need not.
#[tokio::test(flavor = "multi_thread")]
async fn verb_waits_for_slow_answers_of_dynamodb() {
    let mut rig = Rig::start("seek-slow").await;
    rig.stream(1).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    rig.put(&numbered(0..10)).await;
    run(&mut rig, &file, &expected(0..10)).await;
    let proxy = Denying::before(&rig.tables.url()).await;
    proxy.delay(Duration::from_millis(1_500));
    let endpoint = format!("dynamoDBEndpoint={}", proxy.url);
    succeeds(&rig, &file, &["seek", "--to", "TRIM_HORIZON", "--set", &endpoint]).await;
    assert_eq!(run(&mut rig, &file, &expected(0..10)).await, expected(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_refused_and_no_row_changes() {
    let mut rig = Rig::start("seek-wrong").await;
    rig.stream(2).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    rig.put(&numbered(0..20)).await;
    run(&mut rig, &file, &expected(0..20)).await;
    rig.clients.kinesis.create_stream().stream_name("other").shard_count(2).send().await.unwrap();
    let before = rig.all_rows().await;
    let shard = "shardId-000000000000";
    let long = "9".repeat(56);
    for (arguments, code) in [
        (&["seek", "--to", "TRIM_HORIZON", "--set", "streamName=other"][..], 78),
        (&["seek", "--to", "yesterday"], 64),
        (&["seek", "--to", "99999999999"], 64),
        (&["seek", "--to", &long], 64),
        (&["seek", "--to", "1000000000000000", "--shard", shard], 64),
        (&["seek", "--to", "LATEST", "--shard", "shardId-000000000007"], 1),
        (&["release", "--shard", "shardId-000000000007"], 1),
    ] {
        let (ended, printed) = verb(&rig, &file, arguments).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {printed}\n{}", rig.daemon_log());
        assert_eq!(rig.all_rows().await, before, "{arguments:?} changed a row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_are_delivered_whole_or_not_at_all() {
    let mut rig = Rig::start("seek-aggregate").await;
    rig.stream(1).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    rig.put(&[("outer".to_owned(), aggregate(&["one", "two"]))]).await;
    let later = next_second().await.to_string();
    rig.put(&[("outer".to_owned(), aggregate(&["three", "four"]))]).await;
    run(&mut rig, &file, &of(&["one", "two", "three", "four"])).await;
    let shard = "shardId-000000000000";
    let number = records(&rig.log)[shard].last().unwrap().sequence.clone();
    for to in [&later, &number] {
        succeeds(&rig, &file, &["seek", "--to", to, "--shard", shard]).await;
        assert_eq!(run(&mut rig, &file, &of(&["three", "four"])).await, of(&["three", "four"]), "{to}");
    }
    // No record is left from this second on: nothing is skipped, nothing is delivered again.
    let last = next_second().await.to_string();
    succeeds(&rig, &file, &["seek", "--to", &last]).await;
    rig.put(&[("outer".to_owned(), aggregate(&["five"]))]).await;
    assert_eq!(run(&mut rig, &file, &of(&["five"])).await, of(&["five"]));
}
