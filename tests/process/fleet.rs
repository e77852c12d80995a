//! Several daemons on one table: shares, and processing across every change of lease owners.

use std::collections::{BTreeMap, BTreeSet};

use crate::rig::*;

/// Every worker acquires its share (KCL 2.x mode).
const SHARES: &str = "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1\n";
/// A leader assigns the leases, the default of KCL 3.x.
const LED: &str = "";

/// The number of leases of each worker.
async fn shares(rig: &Rig) -> Vec<usize> {
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for row in rig.rows().await.values() {
        if let Some(owner) = row.get("leaseOwner") {
            *shares.entry(owner.as_s().unwrap().clone()).or_default() += 1;
        }
    }
    let mut shares: Vec<usize> = shares.into_values().collect();
    shares.sort_unstable();
    shares
}

async fn put(rig: &Rig, from: usize) {
    let records: Vec<_> = (from..from + 100).map(|n| (format!("key-{n}"), vec![b'x'; 10])).collect();
    rig.put(&records).await;
}

fn keys(log: &[Report]) -> usize {
    let seen = records(log).into_values().flatten().map(|record| record.key);
    seen.collect::<BTreeSet<String>>().len()
}

/// Starts a worker that owns all four shards, and a second one that then gets its share.
async fn two_workers(name: &str, mode: &str) -> (Rig, Daemon, Daemon) {
    let mut rig = Rig::start(name).await;
    rig.stream(4).await;
    let file = rig.properties(&rig.scripted("each"), &format!("failoverTimeMillis = 3000\n{mode}"));
    let first = rig.daemon(&file);
    put(&rig, 0).await;
    rig.until("a worker with four shards", |log| said(log, "initialize").len() >= 4 && keys(log) == 100)
        .await;
    let second = rig.daemon(&file);
    rig.until("two shards change hands", |log| {
        said(log, "initialize").len() >= 6 && said(log, "leaseLost").len() >= 2
    })
    .await;
    (rig, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_gets_its_share_and_releases_it_on_shutdown() {
    let (mut rig, mut first, mut second) = two_workers("join", SHARES).await;
    put(&rig, 100).await;
    rig.until("more records", |log| keys(log) == 200).await;
    assert_eq!(shares(&rig).await, [2, 2]);

    assert_eq!(second.stop().await, Some(0));
    put(&rig, 200).await;
    rig.until("the first has all again", |log| said(log, "initialize").len() >= 8 && keys(log) == 300).await;
    assert_eq!(shares(&rig).await, [4]);
    assert_eq!(first.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_in_order(&rig.log);
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child process remains");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_a_killed_worker_are_resumed_by_another() {
    let (mut rig, mut first, mut second) = two_workers("take-over", SHARES).await;
    first.signal(rustix::process::Signal::KILL);
    first.ended().await;
    put(&rig, 100).await;
    rig.until("all shards are read", |log| said(log, "initialize").len() >= 8 && keys(log) == 200).await;
    assert_eq!(shares(&rig).await, [4]);
    assert_eq!(second.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_in_order(&rig.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_hands_leases_off_and_is_replaced_when_killed() {
    let (mut rig, mut first, mut second) = two_workers("led", LED).await;
    put(&rig, 100).await;
    rig.until("more records", |log| keys(log) == 200).await;
    let repeated = records(&rig.log).into_values().flatten().count();
    assert_eq!(repeated, 200, "a hand-off repeats nothing");
    let rows = rig.all_rows().await;
    assert_eq!(rows["Leader"]["entityType"].as_s().unwrap(), "LEADER");
    assert_eq!(rows.values().filter(|row| row.contains_key("lut")).count(), 2, "each reports");
    let file = rig.folder.join("daemon.properties");
    let mut show = rig.command(&["leases", "--json", "--watch", "3", file.to_str().unwrap()]);
    assert_eq!(show.ended().await.code(), Some(0));
    let shown: serde_json::Value = serde_json::from_str(&show.printed.join("\n")).unwrap();
    assert_eq!(shown["generation"]["state"], "CLIENT_VERSION_3X");
    assert_eq!(shown["leader"]["worker"].as_str().unwrap(), rows["Leader"]["ownerName"].as_s().unwrap());
    let moving = |worker: &serde_json::Value| worker["moving"].as_u64().unwrap();
    assert_eq!(shown["workers"].as_array().unwrap().iter().map(moving).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(rig.all_rows().await.len(), rows.len(), "nothing is written");

    first.signal(rustix::process::Signal::KILL);
    first.ended().await;
    put(&rig, 200).await;
    rig.until("the other reads all", |log| keys(log) == 300).await;
    assert_in_order(&rig.log);

    assert_eq!(second.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    let rows = rig.all_rows().await;
    assert!(!rows.contains_key("Leader"), "the leader lock is released");
    assert_eq!(
        rows.values().filter(|row| row.contains_key("lut")).count(),
        1,
        "the dead one's report is left"
    );
    assert_eq!(shares(&rig).await, [0; 0], "no worker remains to own them");
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child process remains");
}
