//! Delivery, checkpoints, graceful shutdown, resume, resharding, `kill -9`.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;

use crate::rig::*;

fn numbered(range: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    range.map(|n| (format!("key-{}", n % 251), format!("record {n}").into_bytes())).collect()
}

fn data(seen: &BTreeMap<String, Vec<Seen>>) -> BTreeSet<Vec<u8>> {
    seen.values().flatten().map(|record| record.data.clone()).collect()
}

/// Asserts that each shard's records were delivered in ascending order of sequence numbers, none twice.
fn assert_in_order(seen: &BTreeMap<String, Vec<Seen>>) {
    for (shard, records) in seen {
        let numbers: Vec<u128> = records.iter().map(|r| r.sequence[20..].parse().unwrap()).collect();
        let texts: Vec<&str> = records.iter().map(|r| r.sequence.as_str()).collect();
        assert!(
            texts.windows(2).all(|pair| pair[0].len() == pair[1].len() && pair[0] < pair[1]),
            "{shard}: {numbers:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_in_order_and_once_across_restart() {
    let mut rig = Rig::start("life").await;
    rig.stream(4).await;
    rig.put(&numbered(0..1000)).await;
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("1000 records", |log| count(log) == 1000).await;
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;

    assert_eq!(said(&rig.log, "initialize").len(), 4);
    assert_eq!(said(&rig.log, "shutdownRequested").len(), 4);
    assert_eq!(said(&rig.log, "leaseLost").len(), 4);
    assert_in_order(&records(&rig.log));
    assert!(rig.rows().await.values().all(|row| !row.contains_key("leaseOwner")), "leases are released");
    assert!(pids(&rig.log).into_iter().all(is_gone));

    rig.put(&numbered(1000..1500)).await;
    let mut daemon = rig.daemon(&file);
    rig.until("500 more", |log| count(log) >= 1500).await;
    assert_eq!(daemon.stop().await, Some(0));
    let seen = records(&rig.log);
    assert_in_order(&seen);
    let expected: BTreeSet<Vec<u8>> = numbered(0..1500).into_iter().map(|(_, data)| data).collect();
    assert_eq!((count(&rig.log), data(&seen)), (1500, expected), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_shards_start_after_all_parents_ended() {
    let mut rig = Rig::start("reshard").await;
    rig.stream(2).await;
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    rig.put(&numbered(0..200)).await;
    rig.until("200 records", |log| count(log) == 200).await;

    let kinesis = &rig.clients.kinesis;
    let quarter = (1u128 << 126).to_string();
    let split = kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key(quarter).send().await.unwrap();
    rig.put(&numbered(200..400)).await;
    // Shard 0 is split into 2 and 3; 3 and 1 are merged into 4.
    let merge = kinesis.merge_shards().stream_name(STREAM).shard_to_merge("shardId-000000000003");
    merge.adjacent_shard_to_merge("shardId-000000000001").send().await.unwrap();
    rig.put(&numbered(400..600)).await;
    rig.until("600 records and three ended shards", |log| {
        count(log) >= 600 && said(log, "shardEnded").len() == 3
    })
    .await;
    assert_eq!(daemon.stop().await, Some(0));

    let seen = records(&rig.log);
    assert_in_order(&seen);
    let expected: BTreeSet<Vec<u8>> = numbered(0..600).into_iter().map(|(_, data)| data).collect();
    assert_eq!((count(&rig.log), data(&seen)), (600, expected));
    let place = |wanted: &str, of: &str| {
        let is = |report: &Report| matches!(report, Report::Said { shard, what, .. } if shard.ends_with(of) && what == wanted);
        rig.log.iter().position(is).unwrap_or_else(|| panic!("{wanted} of {of}"))
    };
    for (parent, child) in [("000", "002"), ("000", "003"), ("003", "004"), ("001", "004")] {
        assert!(place("shardEnded", parent) < place("initialize", child), "{parent} before {child}");
    }
    let rows = rig.rows().await;
    let text = |shard: &str, name: &str| rows[&format!("shardId-000000000{shard}")][name].clone();
    for shard in ["000", "001", "003"] {
        assert_eq!(text(shard, "checkpoint").as_s().unwrap(), "SHARD_END");
    }
    let mut children = text("000", "childShardIds").as_ss().unwrap().clone();
    children.sort();
    assert_eq!(children, ["shardId-000000000002", "shardId-000000000003"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_daemon_leaves_no_child_and_checkpoints_hold() {
    let mut rig = Rig::start("kill").await;
    rig.stream(4).await;
    rig.put(&numbered(0..2000)).await;
    let file = rig.properties(&rig.scripted("each"), "workerId = fixed\nmaxRecords = 100\n");
    let mut daemon = rig.daemon(&file);
    rig.until("some checkpoints", |log| said(log, "checkpointed").len() >= 6).await;
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert!(pids(&rig.log).into_iter().all(is_gone), "children exit with their daemon");

    let mut stored: BTreeMap<String, String> = BTreeMap::new();
    for (shard, row) in rig.rows().await {
        let checkpoint = row["checkpoint"].as_s().unwrap();
        let number = if checkpoint == "TRIM_HORIZON" { "" } else { checkpoint };
        stored.insert(shard, number.to_owned());
    }
    assert!(stored.values().any(|number| !number.is_empty()), "{stored:?}");
    let before = rig.log.len();
    rig.put(&numbered(2000..2100)).await;
    let mut daemon = rig.daemon(&file);
    let all: BTreeSet<Vec<u8>> = numbered(0..2100).into_iter().map(|(_, data)| data).collect();
    rig.until("every record at least once", |log| data(&records(log)) == all).await;
    assert_eq!(daemon.stop().await, Some(0));
    for (shard, records) in records(&rig.log[before..]) {
        assert!(
            records.iter().all(|record| record.sequence > stored[&shard]),
            "{shard} repeats what was checkpointed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_within_an_aggregate_continues_with_next_record() {
    let mut rig = Rig::start("aggregate").await;
    rig.stream(1).await;
    rig.put(&[("outer".to_owned(), aggregate(&["a", "b", "c", "d"]))]).await;
    let file = rig.properties(&rig.scripted("second"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("a checkpoint", |log| said(log, "checkpointed").len() == 1).await;
    assert_eq!(daemon.stop().await, Some(0));
    let row = rig.rows().await.remove("shardId-000000000000").unwrap();
    assert_eq!(row["checkpointSubSequenceNumber"].as_n().unwrap(), "1");

    let before = rig.log.len();
    let mut daemon = rig.daemon(&file);
    rig.until("the rest", |log| count(&log[before..]) > 0).await;
    assert_eq!(daemon.stop().await, Some(0));
    let rest = records(&rig.log[before..]).remove("shardId-000000000000").unwrap();
    let rest: Vec<_> = rest.iter().map(|r| (r.sub, r.data.clone())).collect();
    assert_eq!(rest, [(2, b"c".to_vec()), (3, b"d".to_vec())]);
}

/// A KPL aggregate of user records with the partition key `k`.
pub fn aggregate(users: &[&str]) -> Vec<u8> {
    use md5::Digest as _;
    let mut message = vec![0x0A, 1, b'k'];
    for user in users {
        let data = user.as_bytes();
        let size = u8::try_from(data.len()).unwrap();
        message.extend([0x1A, size + 4, 0x08, 0, 0x1A, size]);
        message.extend(data);
    }
    let digest = md5::Md5::digest(&message);
    [&[0xF3, 0x89, 0x9A, 0xC2], message.as_slice(), digest.as_slice()].concat()
}
