//! `multilangd leases FILE` with each verb that stops or moves leases, killed at each of its writes.
//!
//! A write that the proxy holds is either lost, or applied without an answer. Whatever part is written, each lease is as
//! before or as the verb leaves it, and a second run completes the verb.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::Signal;
use serde_json::Value;

use crate::denying::Denying;
use crate::rig::*;
use crate::seek::{delivered, expected, next_second, numbered};

const SHARDS: i32 = 3;

type Rows = BTreeMap<String, BTreeMap<String, AttributeValue>>;

/// Of a lease, what a verb changes: its checkpoint, whether it has an owner, whether it is parked and paused. Times and
/// counters differ between two runs.
fn changed(rows: &Rows) -> BTreeMap<&str, (String, [bool; 3])> {
    let of = |row: &BTreeMap<String, AttributeValue>| {
        let has = ["leaseOwner", "multilangdParked", "multilangdPause"].map(|name| row.contains_key(name));
        (row["checkpoint"].as_s().unwrap().clone(), has)
    };
    rows.iter().map(|(lease, row)| (lease.as_str(), of(row))).collect()
}

async fn restore(rig: &Rig, rows: &Rows) {
    for row in rows.values() {
        let item = row.clone().into_iter().collect();
        rig.clients.dynamodb.put_item().table_name(APPLICATION).set_item(Some(item)).send().await.unwrap();
    }
}

/// Runs a verb to its end, and returns the number of leases that it wrote.
async fn completed(rig: &Rig, file: &Path, verb: &[&str]) -> usize {
    let mut command = rig.command(&[&["leases", file.to_str().unwrap(), "--json"], verb].concat());
    let code = command.ended().await.code();
    assert_eq!(code, Some(0), "{verb:?}: {:?}\n{}", command.printed, rig.daemon_log());
    let plan: Value = serde_json::from_str(&command.printed.join("\n")).unwrap();
    usize::try_from(plan["written"].as_u64().unwrap()).unwrap()
}

/// Kills the verb at a write, after some that pass.
async fn cut(rig: &Rig, proxy: &Denying, file: &Path, verb: &[&str], passes: usize, applied: bool) {
    let reached = proxy.hold("UpdateItem", passes, applied);
    let endpoint = format!("dynamoDBEndpoint={}", proxy.url);
    let mut command =
        rig.command(&[&["leases", file.to_str().unwrap()], verb, &["--set", &endpoint]].concat());
    tokio::select! {
        biased;
        () = reached.notified() => {}
        status = command.ended() => panic!("{verb:?}: {status}: {}", rig.daemon_log()),
    }
    command.signal(Signal::KILL);
    command.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verb_killed_at_any_write_is_completed_by_a_second_run() {
    let mut rig = Rig::start("interrupted").await;
    rig.stream(SHARDS).await;
    // The commands wait a failover time for renewals.
    let file =
        rig.properties(&rig.scripted("each"), "failoverTimeMillis = 300\nshardSyncIntervalMillis = 1000\n");
    rig.put(&numbered(0..80)).await;
    let middle = next_second().await.to_string();
    rig.put(&numbered(80..160)).await;
    let mut daemon = rig.daemon(&file);
    let all = |log: &[Report]| {
        delivered(log) == expected(0..160)
            && said(log, "checkpointed").len() >= said(log, "processRecords").len()
    };
    rig.until("all records", all).await;
    // The rows keep their dead owner.
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    let before = rig.rows().await;
    assert!(before.len() == 3 && before.values().all(|row| row.contains_key("leaseOwner")), "{before:?}");

    let proxy = Denying::before(&rig.tables.url()).await;
    let seek = ["seek", "--to", &middle];
    for verb in [&seek[..], &["release"], &["park"], &["pause"]] {
        let leases = before.len();
        assert_eq!(completed(&rig, &file, verb).await, leases);
        let whole = rig.rows().await;
        let cuts = (0..leases).flat_map(|passes| [(passes, false), (passes, true)]);
        // The writes of orders depend on no other one: each is cut in one of both ways.
        let is_order = ["park", "pause"].contains(&verb[0]);
        for (passes, applied) in cuts.filter(|(passes, applied)| !is_order || (passes % 2 == 0) == *applied) {
            restore(&rig, &before).await;
            cut(&rig, &proxy, &file, verb, passes, applied).await;
            let part = rig.rows().await;
            let (old, new, now) = (changed(&before), changed(&whole), changed(&part));
            assert!(
                now.iter().all(|(lease, is)| *is == old[lease] || *is == new[lease]),
                "{verb:?}: {now:?}"
            );
            let written = now.iter().filter(|(lease, is)| **is == new[**lease]).count();
            assert_eq!(written, passes + usize::from(applied), "{verb:?}: {now:?}");
            assert_eq!(completed(&rig, &file, verb).await, leases - written, "{verb:?}");
            assert_eq!(changed(&rig.rows().await), new, "{verb:?}");
        }
        restore(&rig, &before).await;
    }

    // A worker reads each shard from its row, whichever part is written.
    cut(&rig, &proxy, &file, &seek, 1, true).await;
    let part = rig.rows().await;
    let moved: BTreeSet<&String> = part
        .iter()
        .filter(|(lease, row)| row["checkpoint"] != before[*lease]["checkpoint"])
        .map(|(l, _)| l)
        .collect();
    assert_eq!(moved.len(), 2);
    let wanted: BTreeSet<String> = records(&rig.log)
        .into_iter()
        .filter(|(shard, _)| moved.contains(shard))
        .flat_map(|(_, seen)| seen)
        .map(|record| String::from_utf8(record.data).unwrap())
        .filter(|text| expected(80..160).contains(text))
        .chain(expected(160..200))
        .collect();
    rig.put(&numbered(160..200)).await;
    let from = rig.log.len();
    let mut daemon = rig.daemon(&file);
    rig.until("what the rows say", |log| delivered(&log[from..]).is_superset(&wanted)).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(delivered(&rig.log[from..]), wanted);
}
