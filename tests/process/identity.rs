//! Which stream a lease table belongs to: a wrong stream name, a stream that is deleted and created again, rows
//! that are deleted or finished by hand, two processes with one worker id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::Signal;
use tokio::time::{Duration, Instant, timeout};

use crate::rig::*;

const OTHER: &str = "orders-staging";
/// Short expiry times, so that each scene takes seconds.
const FAST: &str = "failoverTimeMillis = 3000\nmaxRecords = 100\nshardSyncIntervalMillis = 1000\n";

fn numbered(range: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    range.map(|n| (format!("key-{n}"), format!("record {n}").into_bytes())).collect()
}

fn delivered(log: &[Report]) -> BTreeSet<String> {
    let seen = records(log);
    seen.values().flatten().map(|record| String::from_utf8(record.data.clone()).unwrap()).collect()
}

fn expected(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|n| format!("record {n}")).collect()
}

async fn create(rig: &Rig, stream: &str, shards: i32) {
    rig.clients.kinesis.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
}

/// Writes a separate properties file, for another stream or another worker.
fn file(rig: &Rig, name: &str, stream: &str, more: &str) -> PathBuf {
    let file = rig.properties(&rig.scripted("each"), &format!("{FAST}{more}"));
    let text = std::fs::read_to_string(&file).unwrap();
    let own = rig.folder.join(format!("{name}.properties"));
    std::fs::write(
        &own,
        text.replace(&format!("streamName = {STREAM}\n"), &format!("streamName = {stream}\n")),
    )
    .unwrap();
    own
}

type Rows = BTreeMap<String, BTreeMap<String, AttributeValue>>;

/// The checkpoints, which a daemon with the wrong stream must not change.
fn positions(rows: &Rows) -> BTreeMap<String, String> {
    rows.iter().map(|(key, row)| (key.clone(), row["checkpoint"].as_s().unwrap().clone())).collect()
}

async fn put_row(rig: &Rig, key: &str, name: &str, value: Option<AttributeValue>) {
    let update = rig.clients.dynamodb.update_item().table_name(APPLICATION).key("leaseKey", text(key));
    let update = update.expression_attribute_names("#n", name);
    match value {
        Some(value) => update.update_expression("SET #n = :v").expression_attribute_values(":v", value),
        None => update.update_expression("REMOVE #n"),
    }
    .send()
    .await
    .unwrap();
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

async fn put_and_deliver(rig: &mut Rig, range: std::ops::Range<usize>) {
    rig.put(&numbered(range.clone())).await;
    until_delivered(rig, range).await;
}

/// Waits until each of these records has been delivered at least once.
async fn until_delivered(rig: &mut Rig, range: std::ops::Range<usize>) {
    let wanted = expected(range);
    rig.until(&format!("{} records", wanted.len()), |log| delivered(log).is_superset(&wanted)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_stream_name_is_rejected_and_changes_no_row() {
    for shards_of_the_other in [2, 1] {
        let mut rig = Rig::start("wrong-name").await;
        rig.stream(2).await;
        rig.put(&numbered(0..40)).await;
        let right = file(&rig, "right", STREAM, "");
        let mut daemon = rig.daemon(&right);
        until_delivered(&mut rig, 0..40).await;
        assert_eq!(daemon.stop().await, Some(0));
        let before = rig.all_rows().await;

        create(&rig, OTHER, shards_of_the_other).await;
        let mut wrong = rig.daemon(&file(&rig, "wrong", OTHER, ""));
        assert_eq!(wrong.ended().await.code(), Some(78), "{}", rig.daemon_log());
        assert_eq!(rig.all_rows().await, before, "a row was changed");

        rig.put(&numbered(40..60)).await;
        let mut daemon = rig.daemon(&right);
        until_delivered(&mut rig, 40..60).await;
        assert_eq!(daemon.stop().await, Some(0));
        assert_eq!(count(&rig.log), 60, "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_live_worker_with_another_stream_is_rejected() {
    let mut rig = Rig::start("two-streams").await;
    rig.stream(2).await;
    create(&rig, OTHER, 2).await;
    let mut daemon = rig.daemon(&file(&rig, "right", STREAM, "workerId = right\n"));
    put_and_deliver(&mut rig, 0..40).await;
    let mut wrong = rig.daemon(&file(&rig, "wrong", OTHER, "workerId = wrong\n"));
    assert_eq!(wrong.ended().await.code(), Some(78), "{}", rig.daemon_log());
    put_and_deliver(&mut rig, 40..160).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(count(&rig.log), 160, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_starting_on_one_table_conflict() {
    let rig = Rig::start("begin-together").await;
    rig.stream(4).await;
    create(&rig, OTHER, 4).await;
    rig.put(&numbered(0..40)).await;
    let files =
        [file(&rig, "one", STREAM, "workerId = one\n"), file(&rig, "other", OTHER, "workerId = other\n")];
    let [mut one, mut other] = files.map(|file| rig.daemon(&file));
    tokio::select! {
        status = one.ended() => assert_eq!(status.code(), Some(78)),
        status = other.ended() => assert_eq!(status.code(), Some(78)),
    }
    let rows = rig.rows().await;
    let streams: BTreeSet<&str> =
        rows.values().map(|row| row["multilangdStream"].as_s().unwrap().split('@').next().unwrap()).collect();
    assert_eq!(streams.len(), 1, "{streams:?}");
}

/// A table created by KCL has no marks.
#[tokio::test(flavor = "multi_thread")]
async fn unmarked_checkpoints_of_another_stream_are_rejected() {
    let mut rig = Rig::start("unmarked").await;
    rig.stream(2).await;
    rig.put(&numbered(0..40)).await;
    let right = file(&rig, "right", STREAM, "");
    let mut daemon = rig.daemon(&right);
    until_delivered(&mut rig, 0..40).await;
    assert_eq!(daemon.stop().await, Some(0));
    for key in rig.rows().await.into_keys() {
        put_row(&rig, &key, "multilangdStream", None).await;
        put_row(&rig, &key, "multilangdProcess", None).await;
    }
    let before = rig.all_rows().await;
    create(&rig, OTHER, 2).await;
    let mut wrong = rig.daemon(&file(&rig, "wrong", OTHER, ""));
    assert_eq!(wrong.ended().await.code(), Some(78), "{}", rig.daemon_log());
    assert_eq!(rig.all_rows().await, before, "a row was changed");

    rig.put(&numbered(40..60)).await;
    let mut daemon = rig.daemon(&right);
    until_delivered(&mut rig, 40..60).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(count(&rig.log), 60, "each once");
    assert!(rig.rows().await.values().all(|row| row.contains_key("multilangdStream")), "marked from now on");
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_stream_is_read_from_its_oldest_record() {
    let mut rig = Rig::start("recreated").await;
    rig.stream(4).await;
    rig.put(&numbered(0..40)).await;
    let right = file(&rig, "right", STREAM, "");
    let mut daemon = rig.daemon(&right);
    until_delivered(&mut rig, 0..40).await;
    assert_eq!(daemon.stop().await, Some(0));
    let stored = positions(&rig.rows().await);
    // The row of a lease that only Java has owned; a child shard gets its name below.
    put_row(&rig, "shardId-000000000003", "multilangdStream", None).await;

    rig.recreate_stream(2).await;
    rig.put(&numbered(100..140)).await;
    // The initial position does not apply, because no record of this stream was delivered.
    let text = std::fs::read_to_string(&right).unwrap().replace("= TRIM_HORIZON", "= LATEST");
    std::fs::write(&right, text).unwrap();
    let mut daemon = rig.daemon(&right);
    until_delivered(&mut rig, 100..140).await;
    let rows = rig.rows().await;
    assert_eq!(rows.len(), 2, "rows of shards that the stream does not have: {:?}", positions(&rows));
    for key in ["shardId-000000000000", "shardId-000000000001"] {
        let earlier = rows[key]["multilangdEarlierCheckpoint"].as_s().unwrap();
        assert!(earlier.contains(&stored[key]), "{earlier} of {key}");
    }
    // Child shards get the names of shards of the earlier stream.
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    put_and_deliver(&mut rig, 140..340).await;
    assert_eq!(daemon.stop().await, Some(0));
}

/// Java leaves such a table, as multilangd did before rows were marked: finished rows have the names of the
/// child shards.
#[tokio::test(flavor = "multi_thread")]
async fn finished_rows_of_open_shards_are_read_again() {
    let mut rig = Rig::start("finished-open").await;
    rig.stream(2).await;
    let right = file(&rig, "right", STREAM, "");
    let mut daemon = rig.daemon(&right);
    put_and_deliver(&mut rig, 0..20).await;
    assert_eq!(daemon.stop().await, Some(0));
    let mut row = rig.rows().await["shardId-000000000000"].clone();
    for shard in ["shardId-000000000002", "shardId-000000000003"] {
        row.insert("leaseKey".to_owned(), text(shard));
        row.insert("checkpoint".to_owned(), text("SHARD_END"));
        row.remove("multilangdStream");
        let item = row.clone().into_iter().collect();
        rig.clients.dynamodb.put_item().table_name(APPLICATION).set_item(Some(item)).send().await.unwrap();
    }
    let mut daemon = rig.daemon(&right);
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    rig.put(&numbered(20..220)).await;
    let began = Instant::now();
    until_delivered(&mut rig, 20..220).await;
    println!("all records of open shards whose rows were finished: after {:?}", began.elapsed());
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_row_is_restored_by_its_owner_without_gap() {
    let mut rig = Rig::start("deleted-row").await;
    rig.stream(2).await;
    let file = rig.properties(&rig.scripted("each"), FAST);
    let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON", "= LATEST");
    std::fs::write(&file, text).unwrap();
    let mut daemon = rig.daemon(&file);
    rig.until("both children are initialized", |log| said(log, "initialize").len() == 2).await;
    // Reading begins at LATEST: the first delivered record shows that it has begun.
    let mut first = 0;
    while delivered(&rig.log).is_empty() {
        rig.put(&[(format!("key-{first}"), b"begins".to_vec())]).await;
        first += 1;
        let _more = timeout(Duration::from_millis(200), rig.reports.recv()).await.map(|report| {
            rig.log.extend(report);
        });
    }
    for n in 0..150 {
        if n == 20 {
            for key in rig.rows().await.into_keys() {
                let delete = rig.clients.dynamodb.delete_item().table_name(APPLICATION);
                delete.key("leaseKey", AttributeValue::S(key)).send().await.unwrap();
            }
        }
        rig.put(&numbered(n..n + 1)).await;
    }
    let began = Instant::now();
    until_delivered(&mut rig, 0..150).await;
    println!("150 of 150 records, the last after {:?}", began.elapsed());
    assert_eq!(daemon.stop().await, Some(0));
    let rows = rig.rows().await;
    assert_eq!(rows.len(), 2);
    assert!(rows.values().all(|row| row["checkpoint"].as_s().unwrap() != "LATEST"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_recreated_while_polled_is_read_within_seconds() {
    let mut rig = Rig::start("recreated-live").await;
    rig.stream(2).await;
    let mut daemon = rig.daemon(&file(&rig, "right", STREAM, ""));
    put_and_deliver(&mut rig, 0..20).await;
    rig.recreate_stream(2).await;
    rig.put(&numbered(20..40)).await;
    let began = Instant::now();
    until_delivered(&mut rig, 20..40).await;
    let took = began.elapsed();
    println!("read the recreated stream after {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_with_the_same_worker_id_exits() {
    let mut rig = Rig::start("one-id").await;
    rig.stream(2).await;
    for mode in ["", "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1\n"] {
        let first = rig.log.len();
        let file = file(&rig, "one", STREAM, &format!("workerId = w\n{mode}"));
        let mut older = rig.daemon(&file);
        rig.until("it reads", |log| said(&log[first..], "initialize").len() >= 2).await;
        let began = Instant::now();
        let mut newer = rig.daemon(&file);
        assert_eq!(newer.ended().await.code(), Some(78), "{}", rig.daemon_log());
        println!("the newer process exited after {:?}", began.elapsed());
        for (shard, row) in rig.all_rows().await.into_iter().filter(|(_, row)| row.contains_key("checkpoint"))
        {
            let owner = row.get("leaseOwner").and_then(|owner| owner.as_s().ok());
            assert_eq!(
                owner.map(String::as_str),
                Some("w"),
                "{shard} was taken from the older process: {row:?}"
            );
        }
        let from = delivered(&rig.log).len();
        put_and_deliver(&mut rig, from..from + 40).await;
        assert_eq!(older.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_process_with_same_worker_id_is_ignored() {
    let mut rig = Rig::start("crashed-id").await;
    rig.stream(2).await;
    let file = file(&rig, "one", STREAM, "workerId = w\n");
    let mut crashed = rig.daemon(&file);
    put_and_deliver(&mut rig, 0..20).await;
    crashed.signal(Signal::KILL);
    crashed.ended().await;
    let mut daemon = rig.daemon(&file);
    put_and_deliver(&mut rig, 20..40).await;
    assert_eq!(daemon.stop().await, Some(0));
}
