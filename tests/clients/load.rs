//! Ten thousand records with amazon_kclpy: across a reshard and a restart, and across a `kill -9`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use rustix::process::Signal;

use crate::records::*;
use crate::rig::*;
use crate::table::KCLPY;

async fn start(name: &str, more: &str) -> (Rig, PathBuf) {
    let mut rig = Rig::start(name).await;
    rig.stream(4).await;
    let file = KCLPY.properties(&mut rig, more);
    (rig, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn kclpy_receives_each_record_once_across_reshard_and_restart() {
    let (mut rig, file) = start("kclpy", "").await;
    let all = sample_records(10_000);
    let mut daemon = rig.daemon(&file);
    rig.put(&all[..4000]).await;
    rig.until("some records", |log| count(log) >= 1000).await;
    reshard(&rig).await;
    rig.put(&all[4000..9000]).await;
    rig.until("9000 records and three ended shards", |log| {
        count(log) >= 9000 && said(log, "shardEnded").len() == 3
    })
    .await;
    let notified = said(&rig.log, "shutdownRequested").len();
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_eq!(
        (notified, said(&rig.log, "shutdownRequested").len()),
        (0, 4),
        "each open shard's child receives shutdownRequested"
    );
    assert_eq!(count(&rig.log), 9000);
    assert_children_after_parents(&rig.log);

    rig.put(&all[9000..]).await;
    let mut daemon = rig.daemon(&file);
    rig.until("the last thousand", |log| count(log) >= 10_000).await;
    assert_eq!(daemon.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_each_once(&rig.log, &all);
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child process remains");
    assert!(rig.daemon_log().contains("a user's print on stdout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kclpy_receives_records_at_least_once_across_a_kill() {
    let (mut rig, file) = start("kclpy-kill", "failoverTimeMillis = 2000\nmaxRecords = 200\n").await;
    let all = sample_records(10_000);
    let mut daemon = rig.daemon(&file);
    rig.put(&all[..5000]).await;
    rig.until("some checkpoints", |log| said(log, "checkpointed").len() >= 5).await;
    reshard(&rig).await;
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child outlives its daemon");
    let stored: BTreeMap<String, String> = rig
        .rows()
        .await
        .into_iter()
        .map(|(shard, row)| (shard, row["checkpoint"].as_s().unwrap().clone()))
        .filter(|(_, checkpoint)| checkpoint.starts_with('4'))
        .collect();
    assert!(!stored.is_empty());

    let before = rig.log.len();
    rig.put(&all[5000..]).await;
    let mut daemon = rig.daemon(&file);
    let keys = |log: &[Report]| {
        records(log).into_values().flatten().map(|record| record.key).collect::<HashSet<_>>()
    };
    let mut seen = keys(&rig.log);
    while seen.len() < all.len() {
        let report = rig.report().await;
        seen.extend(keys(std::slice::from_ref(&report)));
    }
    assert_eq!(daemon.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_right_bytes(&rig.log, &all);
    for (shard, records) in records(&rig.log[before..]) {
        if let Some(stored) = stored.get(&shard) {
            assert!(
                records.iter().all(|record| record.sequence > *stored),
                "{shard} repeats what was checkpointed"
            );
        }
    }
}
