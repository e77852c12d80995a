//! Several streams with one lease table: `multilangd.streams`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aws_sdk_kinesis::primitives::Blob;
use rustix::process::Signal;
use serde_json::Value;

use crate::denying::Denying;
use crate::rig::*;

/// The account of the local endpoint.
const ACCOUNT: &str = "000000000000";

async fn create(rig: &Rig, stream: &str, shards: i32) {
    rig.clients.kinesis.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
}

/// The identifier of a stream, with the time of its creation.
async fn identifier(rig: &Rig, stream: &str) -> String {
    let described = rig.clients.kinesis.describe_stream_summary().stream_name(stream).send().await.unwrap();
    let created = described.stream_description_summary.unwrap().stream_creation_timestamp.secs();
    format!("{ACCOUNT}:{stream}:{created}")
}

/// Puts a record into each shard of a stream, and returns the keys of their leases.
async fn put(rig: &Rig, stream: &str, identifier: &str, text: &str) -> BTreeSet<String> {
    let listed = rig.clients.kinesis.list_shards().stream_name(stream).send().await.unwrap();
    let mut keys = BTreeSet::new();
    for shard in listed.shards() {
        let begin = shard.hash_key_range().unwrap().starting_hash_key();
        let put = rig.clients.kinesis.put_record().stream_name(stream).partition_key("k");
        put.explicit_hash_key(begin).data(Blob::new(text.as_bytes())).send().await.unwrap();
        keys.insert(format!("{identifier}:{}", shard.shard_id()));
    }
    keys
}

/// The leases whose records with this text were delivered.
fn delivered(log: &[Report], text: &str) -> BTreeSet<String> {
    let with_text = |seen: &Vec<Seen>| seen.iter().any(|record| record.data == text.as_bytes());
    records(log).into_iter().filter(|(_, seen)| with_text(seen)).map(|(lease, _)| lease).collect()
}

/// A properties file of these streams.
fn file(rig: &Rig, name: &str, child: &str, streams: &str, more: &str) -> PathBuf {
    let file = rig.properties(&rig.scripted(child), &format!("workerId = {name}\n{more}"));
    let text = std::fs::read_to_string(&file).unwrap();
    let text =
        text.replace(&format!("streamName = {STREAM}\n"), &format!("multilangd.streams = {streams}\n"));
    let file = rig.folder.join(format!("{name}.properties"));
    std::fs::write(&file, text).unwrap();
    file
}

/// The exit code of a daemon that refuses to start, on a table that it does not change.
async fn refused(rig: &Rig, file: &std::path::Path) -> Option<i32> {
    let before = rig.all_rows().await;
    let code = rig.daemon(file).ended().await.code();
    assert_eq!(rig.all_rows().await, before, "a row was changed");
    code
}

/// The variables of each child, by the key of its lease.
fn environments(log: &[Report]) -> BTreeMap<String, Value> {
    let of = |report: &Report| match report {
        Report::Said { what, body, .. } if what == "environment" => {
            Some((body["LEASE_KEY"].as_str().unwrap().to_owned(), body.clone()))
        }
        _ => None,
    };
    log.iter().filter_map(of).collect()
}

const TWO: [(&str, i32); 2] = [("orders", 2), ("payments", 3)];

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_read_with_one_table_and_one_that_is_missing_delays_no_other() {
    let mut rig = Rig::start("streams").await;
    let mut expected = BTreeSet::new();
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        expected.extend(put(&rig, stream, &identifier, "first").await);
    }
    let listed = file(&rig, "w-1", "each environment", "orders, payments, refunds", "");
    let mut daemon = rig.daemon(&listed);
    rig.until("records of two streams", |log| delivered(log, "first") == expected).await;
    rig.logged_where("stream_unavailable", |line| line["stream"] == "refunds").await;
    for (lease, environment) in environments(&rig.log) {
        let stream = lease.split(':').nth(1).unwrap();
        assert_eq!(environment["STREAM_NAME"], stream);
        let arn = format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}");
        assert_eq!(
            (&environment["STREAM_ARN"], &environment["LEASE_KEY"]),
            (&arn.into(), &lease.clone().into())
        );
        assert!(lease.ends_with(environment["SHARD_ID"].as_str().unwrap()));
    }

    create(&rig, "refunds", 1).await;
    let refunds = identifier(&rig, "refunds").await;
    let third = put(&rig, "refunds", &refunds, "third").await;
    rig.until("records of the third", |log| delivered(log, "third") == third).await;

    // Child shards belong to the stream of their parent.
    let begin = (1u128 << 127).to_string();
    let split = rig.clients.kinesis.split_shard().stream_name("refunds");
    split.shard_to_split("shardId-000000000000").new_starting_hash_key(begin).send().await.unwrap();
    let children: BTreeSet<_> = [1, 2].map(|n| format!("{refunds}:shardId-{n:012}")).into();
    let begun = |log: &[Report]| {
        let begun: BTreeSet<_> = said(log, "initialize").into_iter().map(str::to_owned).collect();
        children.is_subset(&begun)
    };
    rig.until("both child shards are read", begun).await;
    put(&rig, "refunds", &refunds, "after").await;
    rig.until("records of the child shards", |log| delivered(log, "after") == children).await;
    assert_in_order(&rig.log);
    assert_eq!(daemon.stop().await, Some(0));

    for (key, row) in rig.rows().await {
        let (stream, shard) = key.rsplit_once(':').unwrap();
        assert_eq!(row["streamName"].as_s().unwrap(), stream);
        assert_eq!(row["shardId"].as_s().unwrap(), shard);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_is_created_later_is_read_from_its_first_record() {
    let mut rig = Rig::start("streams-latest").await;
    create(&rig, "orders", 1).await;
    let file = file(&rig, "w-1", "each", "orders,refunds", "");
    let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON", "= LATEST");
    std::fs::write(&file, text).unwrap();
    let mut daemon = rig.daemon(&file);
    rig.logged_where("stream_unavailable", |line| line["stream"] == "refunds").await;
    create(&rig, "refunds", 2).await;
    let refunds = identifier(&rig, "refunds").await;
    let keys = put(&rig, "refunds", &refunds, "first").await;
    rig.until("its first records", |log| delivered(log, "first") == keys).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_reads_leases_of_a_stream_that_it_does_not_list() {
    let mut rig = Rig::start("streams-unlisted").await;
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
    }
    let [orders, payments] = [identifier(&rig, "orders").await, identifier(&rig, "payments").await];
    let fast = "failoverTimeMillis = 3000\n";
    let both = file(&rig, "w-1", "each as=w-1", "orders,payments", fast);
    let mut first = rig.daemon(&both);
    let mut expected = put(&rig, "orders", &orders, "one").await;
    expected.extend(put(&rig, "payments", &payments, "one").await);
    rig.until("all are read", |log| delivered(log, "one") == expected).await;
    // The second one has an older, or a newer, configuration.
    let one = file(&rig, "w-2", "each as=w-2", "orders", fast);
    let mut second = rig.daemon(&one);
    rig.logged_where("stream_admitted", |line| {
        line["worker"] == "w-2" && line["stream"] == payments.as_str()
    })
    .await;
    first.signal(Signal::KILL);
    first.ended().await;
    let mut expected = put(&rig, "orders", &orders, "two").await;
    expected.extend(put(&rig, "payments", &payments, "two").await);
    rig.until("the other worker reads all", |log| delivered(log, "two") == expected).await;
    // The shards that end are followed, although no audit looks after the stream.
    let begin = (1u128 << 100).to_string();
    let split = rig.clients.kinesis.split_shard().stream_name("payments");
    split.shard_to_split("shardId-000000000000").new_starting_hash_key(begin).send().await.unwrap();
    let children: BTreeSet<_> = [3, 4].map(|n| format!("{payments}:shardId-{n:012}")).into();
    rig.until("its child shards are read", |log| {
        let begun: BTreeSet<_> = said(log, "initialize").into_iter().map(str::to_owned).collect();
        children.is_subset(&begun)
    })
    .await;
    assert_eq!(second.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_in_the_table_decide_the_epoch() {
    let mut rig = Rig::start("streams-epoch").await;
    create(&rig, "orders", 1).await;
    let with_epoch = file(&rig, "w-1", "each", "orders@7", "");
    let key = format!("{ACCOUNT}:orders:7:shardId-000000000000");
    put(&rig, "orders", "", "one").await;
    let mut daemon = rig.daemon(&with_epoch);
    rig.until("a record", |log| delivered(log, "one").contains(&key)).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(refused(&rig, &file(&rig, "w-2", "each", "orders@8", "")).await, Some(78));
    // Without a configured epoch, no record is read under a second key.
    let mut daemon = rig.daemon(&file(&rig, "w-3", "each", "orders", ""));
    put(&rig, "orders", "", "two").await;
    rig.until("a record", |log| delivered(log, "two").contains(&key)).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(rig.rows().await.into_keys().collect::<Vec<_>>(), [key]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_any_account_continue_at_a_local_endpoint() {
    let mut rig = Rig::start("streams-account").await;
    create(&rig, "orders", 1).await;
    // A local endpoint knows no account, so that leases of any account are taken for those of its stream.
    let more = "multilangd.useStreamArn = false\n";
    let arn = "arn:aws:kinesis:us-east-1:111122223333:stream/orders";
    let mut daemon = rig.daemon(&file(&rig, "w-1", "each", &format!("{arn}@5"), more));
    put(&rig, "orders", "", "one").await;
    let key = "111122223333:orders:5:shardId-000000000000".to_owned();
    rig.until("a record", |log| delivered(log, "one").contains(&key)).await;
    assert_eq!(daemon.stop().await, Some(0));
    let mut daemon = rig.daemon(&file(&rig, "w-2", "each", "orders", ""));
    put(&rig, "orders", "", "two").await;
    rig.until("a record", |log| delivered(log, "two").contains(&key)).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(rig.rows().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_cannot_be_described_are_read_by_arn_only() {
    let mut rig = Rig::start("streams-denied").await;
    let mut keys = BTreeSet::new();
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        keys.extend(put(&rig, stream, &identifier, "one").await);
    }
    let mut daemon = rig.daemon(&file(&rig, "w-1", "each", "orders,payments", ""));
    rig.until("all are read", |log| delivered(log, "one") == keys).await;
    assert_eq!(daemon.stop().await, Some(0));

    let proxy = Denying::before(&rig.url).await;
    proxy.permit_only(["ListShards", "GetShardIterator", "GetRecords"].map(str::to_owned).into());
    let denied = |rig: &Rig, name: &str, streams: &str, more: &str| {
        let file = file(rig, name, "each", streams, more);
        let text = std::fs::read_to_string(&file).unwrap().replace(&rig.url, &proxy.url);
        std::fs::write(&file, text).unwrap();
        file
    };
    let arn = format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders");
    for streams in ["orders", &arn] {
        assert_eq!(refused(&rig, &denied(&rig, "w-2", streams, "")).await, Some(77), "{streams}");
    }
    let at = rig.log.len();
    let mut daemon = rig.daemon(&denied(&rig, "w-3", &arn, "multilangd.useStreamArn = true\n"));
    for (stream, _) in TWO {
        put(&rig, stream, "", "two").await;
    }
    rig.until("all are read", |log| delivered(&log[at..], "two") == keys).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_one_and_of_several_streams_are_refused_by_the_other_kind() {
    for begins_with_several in [true, false] {
        let mut rig = Rig::start("streams-guard").await;
        create(&rig, STREAM, 1).await;
        let several = file(&rig, "several", "each", STREAM, "");
        let one = rig.properties(&rig.scripted("each"), "workerId = one\n");
        let (first, other) = if begins_with_several { (several, one) } else { (one, several) };
        rig.put(&[("k".to_owned(), b"x".to_vec())]).await;
        let mut daemon = rig.daemon(&first);
        rig.until("a checkpoint", |log| !said(log, "checkpointed").is_empty()).await;
        assert_eq!(daemon.stop().await, Some(0));
        assert_eq!(refused(&rig, &other).await, Some(78), "{begins_with_several}: {}", rig.daemon_log());
        // Also by a worker that finds none of its streams.
        for streams in ["none-*", "missing"].into_iter().filter(|_| !begins_with_several) {
            let other = file(&rig, "none", "each", streams, "");
            assert_eq!(refused(&rig, &other).await, Some(78), "{streams}: {}", rig.daemon_log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_has_its_own_fan_out_consumer() {
    let mut rig = Rig::start("streams-fanout").await;
    let mut expected = BTreeSet::new();
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        expected.extend(put(&rig, stream, &identifier, "one").await);
    }
    let mut daemon = rig.daemon(&file(&rig, "w-1", "each", "orders,payments", "retrievalMode = FANOUT\n"));
    rig.until("all are read", |log| delivered(log, "one") == expected).await;
    for (stream, _) in TWO {
        let arn = format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}");
        let consumers = rig.clients.kinesis.list_stream_consumers().stream_arn(arn).send().await.unwrap();
        let names: Vec<&str> =
            consumers.consumers().iter().map(|consumer| consumer.consumer_name()).collect();
        assert_eq!(names, [APPLICATION]);
    }
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_can_have_an_initial_position_and_a_consumer_of_its_own() {
    let mut rig = Rig::start("streams-own").await;
    let arn = |stream: &str| format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}");
    let mut keys = BTreeMap::new();
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        keys.insert(stream, (put(&rig, stream, &identifier, "before").await, identifier));
    }
    let kinesis = &rig.clients.kinesis;
    let register = kinesis.register_stream_consumer().stream_arn(arn("orders")).consumer_name("mine");
    let consumer = register.send().await.unwrap().consumer.unwrap().consumer_arn;
    let streams = format!("{consumer}=TRIM_HORIZON, pay*=LATEST");
    let file = file(&rig, "w-1", "each", &streams, "retrievalMode = FANOUT\n");
    let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON\n", "= LATEST\n");
    std::fs::write(&file, text).unwrap();
    let (code, checked) = command(&rig, &["check", file.to_str().unwrap(), "--aws", "--json"]).await;
    assert_eq!(code, Some(0), "{checked:#}");
    let mut daemon = rig.daemon(&file);
    let (orders, _) = &keys["orders"];
    rig.until("the old records of one stream", |log| delivered(log, "before") == *orders).await;
    // `LATEST` begins with the subscription.
    let (payments, identifier) = &keys["payments"];
    let mut rounds = 0;
    while !payments.is_subset(&delivered(&rig.log, "after")) {
        rounds += 1;
        assert!(rounds < 500, "{}", rig.daemon_log());
        put(&rig, "payments", identifier, "after").await;
        let text = format!("round {rounds}");
        let orders = put(&rig, "orders", &keys["orders"].1, &text).await;
        rig.until("a round of the other stream", |log| delivered(log, &text) == orders).await;
    }
    assert_eq!(delivered(&rig.log, "before"), *orders);
    for (stream, expected) in [("orders", "mine"), ("payments", APPLICATION)] {
        let listed =
            rig.clients.kinesis.list_stream_consumers().stream_arn(arn(stream)).send().await.unwrap();
        let names: Vec<&str> = listed.consumers().iter().map(|consumer| consumer.consumer_name()).collect();
        assert_eq!(names, [expected]);
    }
    assert_eq!(daemon.stop().await, Some(0));
    for (key, row) in rig.rows().await {
        let marked = row.get("multilangdInitialPosition").map(|value| value.as_s().unwrap().as_str());
        assert_eq!(marked, key.contains(":orders:").then_some("TRIM_HORIZON"), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_ends_if_no_stream_exists() {
    let rig = Rig::start("streams-none").await;
    let more = "schedulerInitializationBackoffTimeMillis = 10\n";
    let mut daemon = rig.daemon(&file(&rig, "w-1", "each", "orders,payments", more));
    assert_eq!(daemon.ended().await.code(), Some(69), "{}", rig.daemon_log());
    for (streams, more) in [("orders", "streamName = other\n"), ("orders,orders", ""), ("a b", "")] {
        let mut daemon = rig.daemon(&file(&rig, "w-2", "each", streams, more));
        assert_eq!(daemon.ended().await.code(), Some(78), "{streams}");
    }
}

/// Prints what a command prints with `--json`.
async fn command(rig: &Rig, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = rig.command(arguments);
    let code = command.ended().await.code();
    (code, serde_json::from_str(&command.printed.join("\n")).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_move_the_leases_of_one_stream() {
    let mut rig = Rig::start("streams-verbs").await;
    let mut expected = BTreeSet::new();
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        expected.extend(put(&rig, stream, &identifier, "one").await);
    }
    let listed = file(&rig, "w-1", "each", "orders,payments", "");
    let path = listed.to_str().unwrap();
    let mut daemon = rig.daemon(&listed);
    rig.until("checkpoints of all", |log| said(log, "checkpointed").len() >= 5).await;
    assert_eq!(daemon.stop().await, Some(0));
    let before = rig.rows().await;

    let (code, shown) = command(&rig, &["leases", path, "--json", "--watch", "0"]).await;
    assert_eq!((code, shown["leases"].as_array().unwrap().len()), (Some(0), 5));
    let (code, shown) =
        command(&rig, &["leases", path, "--stream", "payments", "--json", "--watch", "0"]).await;
    assert_eq!((code, shown["leases"].as_array().unwrap().len()), (Some(0), 3));
    let seek = ["leases", path, "seek", "--to", "TRIM_HORIZON", "--json"];
    assert_eq!(command(&rig, &seek).await.0, Some(64), "which stream is meant");
    assert_eq!(command(&rig, &["leases", path, "release", "--stream", "refunds"]).await.0, Some(1));
    assert_eq!(command(&rig, &["leases", path, "pause", "--stream", "orders"]).await.0, Some(64));
    let shard = ["leases", path, "park", "--shard", "shardId-000000000000"];
    assert_eq!(command(&rig, &shard).await.0, Some(64), "of which stream");
    assert_eq!(rig.rows().await, before);
    let (code, shown) = command(&rig, &[&seek[..], &["--stream", "orders"]].concat()).await;
    assert_eq!((code, &shown["written"]), (Some(0), &2.into()), "{shown}");
    for (key, row) in rig.rows().await {
        let is_moved = row["checkpoint"].as_s().unwrap() == "TRIM_HORIZON";
        assert_eq!(is_moved, key.contains(":orders:"), "{key}");
    }

    // An order for the application concerns all streams.
    let (code, shown) = command(&rig, &["leases", path, "pause", "--json"]).await;
    assert_eq!((code, shown.as_array().unwrap().len()), (Some(0), 2));
    assert!(rig.rows().await.values().all(|row| row.contains_key("multilangdPause")));
    let at = rig.log.len();
    // The leases of a stream that is new are paused, too.
    create(&rig, "refunds", 1).await;
    let refunds = identifier(&rig, "refunds").await;
    let third = put(&rig, "refunds", &refunds, "one").await;
    let listed = file(&rig, "w-2", "each", "orders,payments,refunds", "");
    let mut daemon = rig.daemon(&listed);
    rig.logged_where("shard_sync_completed", |line| line["stream"] == refunds.as_str()).await;
    let rows = rig.rows().await;
    assert!(rows[third.first().unwrap()].contains_key("multilangdPause"));
    let (code, _) = command(&rig, &["leases", path, "resume", "--json"]).await;
    assert_eq!(code, Some(0));
    let mut again: BTreeSet<_> = expected.iter().filter(|key| key.contains(":orders:")).cloned().collect();
    again.extend(third);
    rig.until("the moved leases and the new one are read", |log| delivered(&log[at..], "one") == again).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_one_stream_are_copied_into_the_table_of_several() {
    let mut rig = Rig::start("streams-copy").await;
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
    }
    // A split shard, and records before and after it.
    let old = rig.folder.join("old.properties");
    let more = "workerId = old\nfailoverTimeMillis = 2000\n";
    std::fs::rename(rig.properties(&rig.scripted("each"), more), &old).unwrap();
    let first = put(&rig, "orders", "", "one").await;
    let mut daemon = rig.daemon(&old);
    let bare = |keys: &BTreeSet<String>| -> BTreeSet<String> {
        keys.iter().map(|key| key.rsplit(':').next().unwrap().to_owned()).collect()
    };
    rig.until("a first record", |log| delivered(log, "one") == bare(&first)).await;
    let split =
        rig.clients.kinesis.split_shard().stream_name("orders").shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 100).to_string()).send().await.unwrap();
    rig.until("the child shards are read", |log| said(log, "initialize").len() >= 4).await;

    let into = file(&rig, "new", "each", "orders,payments", "tableName = several\n");
    let copy = |more: &[&str]| -> Vec<String> {
        let words = ["leases", into.to_str().unwrap(), "copy", "--from", old.to_str().unwrap(), "--json"];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let run = async |rig: &Rig, more: &[&str]| {
        let words = copy(more);
        command(rig, &words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let (code, shown) = run(&rig, &[]).await;
    assert_eq!((code, &shown["written"]), (Some(1), &Value::Null), "its worker is alive");
    assert_eq!(daemon.stop().await, Some(0));
    // The child shards get records that nobody has read.
    put(&rig, "orders", "", "two").await;
    let (code, shown) = run(&rig, &["--dry-run"]).await;
    assert_eq!((code, &shown["written"]), (Some(0), &Value::Null));
    let before = rig.all_rows().await;
    let (code, shown) = run(&rig, &[]).await;
    assert_eq!((code, shown["written"].as_u64()), (Some(0), Some(4)));
    let (code, shown) = run(&rig, &[]).await;
    assert_eq!((code, &shown["written"]), (Some(0), &0.into()), "a second run");
    assert_eq!(rig.all_rows().await, before, "the old table stays as it is");

    let orders = identifier(&rig, "orders").await;
    let payments = put(&rig, "payments", &identifier(&rig, "payments").await, "two").await;
    let at = rig.log.len();
    let mut daemon = rig.daemon(&into);
    let mut expected: BTreeSet<String> = [1, 2, 3].map(|n| format!("{orders}:shardId-{n:012}")).into();
    expected.extend(payments);
    rig.until("both streams are read", |log| delivered(&log[at..], "two") == expected).await;
    assert!(
        delivered(&rig.log[at..], "one").is_empty(),
        "the new application continues where the old one ended"
    );
    assert_eq!(daemon.stop().await, Some(0));
    let (code, _) = run(&rig, &[]).await;
    assert_eq!(code, Some(1), "the new application has begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_selected_by_the_beginning_of_their_names() {
    let mut rig = Rig::start("streams-prefix").await;
    let mut expected = BTreeSet::new();
    for (stream, shards) in [("logs-a", 2), ("logs-b", 1), ("other", 1)] {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        let keys = put(&rig, stream, &identifier, "one").await;
        if stream != "other" {
            expected.extend(keys);
        }
    }
    let file = file(&rig, "w-1", "each", "logs-*", "");
    let mut daemon = rig.daemon(&file);
    rig.until("all that match are read", |log| delivered(log, "one") == expected).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert!(rig.rows().await.keys().all(|key| key.contains(":logs-")));
    let mut checked = rig.command(&["check", file.to_str().unwrap(), "--aws", "--json"]);
    assert_eq!(checked.ended().await.code(), Some(0), "{}", rig.daemon_log());

    // With none that matches, the worker waits for one, and lists the streams once a minute.
    let file = self::file(&rig, "w-2", "each", "metrics-*", "tableName = metrics\n");
    let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON", "= LATEST");
    std::fs::write(&file, text).unwrap();
    let mut daemon = rig.daemon(&file);
    rig.logged_where("leadership_acquired", |line| line["worker"] == "w-2").await;
    create(&rig, "metrics-a", 1).await;
    let keys = put(&rig, "metrics-a", &identifier(&rig, "metrics-a").await, "two").await;
    rig.until("its first record", |log| delivered(log, "two") == keys).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_former_stream_are_deleted_after_the_time() {
    let mut rig = Rig::start("streams-former").await;
    let mut expected = BTreeSet::new();
    for (stream, shards) in TWO {
        create(&rig, stream, shards).await;
        let identifier = identifier(&rig, stream).await;
        expected.extend(put(&rig, stream, &identifier, "one").await);
    }
    let fast = "failoverTimeMillis = 3000\n";
    let mut daemon = rig.daemon(&file(&rig, "w-1", "each", "orders,payments", fast));
    rig.until("all are read", |log| delivered(log, "one") == expected).await;
    assert_eq!(daemon.stop().await, Some(0));

    let former = format!("{fast}multilangd.deleteFormerStreamsAfterMillis = 2500\n");
    let from = rig.log.len();
    let mut workers = Vec::new();
    for name in ["w-2", "w-3"] {
        workers.push(rig.daemon(&file(&rig, name, "each", "orders", &former)));
    }
    rig.logged_where("former_stream_deleted", |line| line["leases"] == 3).await;
    let ended = |log: &[Report]| {
        said(&log[from..], "leaseLost").into_iter().any(|lease| lease.contains(":payments:"))
    };
    rig.until("a record processor of the former stream has lost its lease", ended).await;
    // Records of the other stream are delivered as before, over more than the time after which a row would be restored.
    let orders = identifier(&rig, "orders").await;
    for round in 0..40 {
        let text = format!("round {round}");
        let keys = put(&rig, "orders", &orders, &text).await;
        rig.until("a round of the other stream", |log| delivered(log, &text) == keys).await;
    }
    for worker in &mut workers {
        assert_eq!(worker.stop().await, Some(0));
    }
    let rows = rig.rows().await;
    assert!(rows.len() == 2 && rows.keys().all(|key| key.contains(":orders:")), "{}", rig.daemon_log());
    assert_in_order(&rig.log);
}
