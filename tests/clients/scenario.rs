//! The scenario of each client: records, a graceful shutdown among them, a resume, a split and a merge.

use std::collections::BTreeSet;
use std::path::Path;

use crate::client::{Client, End};
use crate::records::*;
use crate::rig::*;
use crate::table::KCLPY;

/// Small batches, so that the shutdown comes between two of them.
const SETTINGS: &str = "maxRecords = 20\ntaskBackoffTimeMillis = 50\n";

/// Runs the scenario and asserts that every record is received once.
pub async fn run_scenario(name: &str, client: &Client) {
    let mut rig = Rig::start(name).await;
    rig.stream(4).await;
    let file = client.properties(&mut rig, SETTINGS);
    let all = sample_records(700);
    if let End::Never(_) = client.end {
        // With the default `park`, the closed shards would be parked and the daemon would continue.
        rig.environment.push(("MULTILANGD_ON_HOPELESS_SHARD".into(), "exit".into()));
    }

    rig.put(&all[..200]).await;
    let mut daemon = rig.daemon(&file);
    until(&mut rig, &mut daemon, "half of 200 records, from each shard", |log| {
        count(log) >= 100 && records(log).len() == 4
    })
    .await;
    stop(&mut rig, &mut daemon, client).await;

    rig.put(&all[200..400]).await;
    let mut daemon = rig.daemon(&file);
    until(&mut rig, &mut daemon, "400 records", |log| count(log) >= 400).await;
    assert_each_once(&rig.log, &all[..400]);

    reshard(&rig).await;
    rig.put(&all[400..600]).await;
    match client.end {
        End::Checkpointed => continue_after_reshard(&mut rig, daemon, &file, client, &all).await,
        End::Never(reason) => exit_after_reshard(&mut rig, daemon, reason, &all).await,
    }
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child process remains");
}

async fn continue_after_reshard(
    rig: &mut Rig,
    mut daemon: Daemon,
    file: &Path,
    client: &Client,
    all: &[Record],
) {
    until(rig, &mut daemon, "600 records, three ended shards and children on the three new ones", |log| {
        let begun: BTreeSet<&str> = said(log, "initialize").into_iter().collect();
        count(log) >= 600 && said(log, "shardEnded").len() == 3 && begun.len() == 7
    })
    .await;
    stop(rig, &mut daemon, client).await;
    assert_children_after_parents(&rig.log);

    rig.put(&all[600..]).await;
    let mut daemon = rig.daemon(file);
    until(rig, &mut daemon, "700 records", |log| count(log) >= 700).await;
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_each_once(&rig.log, all);
    assert_eq!(said(&rig.log, "shardEnded").len(), 3, "each shard ends once");
    for (shard, row) in rig.rows().await {
        let ended = LINEAGE.iter().any(|(parent, _)| shard.ends_with(parent));
        assert_eq!(row["checkpoint"].as_s().unwrap() == "SHARD_END", ended, "{shard}");
    }
}

/// The daemon exits with a clear message; no record is lost, and another client resumes.
async fn exit_after_reshard(rig: &mut Rig, mut daemon: Daemon, reason: &str, all: &[Record]) {
    assert_eq!(daemon.ended().await.code(), Some(1), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    let error = fatal_error(&daemon);
    assert!(error.contains(reason), "{reason:?} is not in {error:?}");
    assert_eq!(said(&rig.log, "shardEnded").len(), 0);
    for (_, child) in LINEAGE {
        assert!(!said(&rig.log, "initialize").iter().any(|shard| shard.ends_with(child)), "{child}");
    }
    for (shard, row) in rig.rows().await {
        assert_ne!(row["checkpoint"].as_s().unwrap(), "SHARD_END", "{shard}");
    }

    let file = KCLPY.properties(rig, SETTINGS);
    rig.put(&all[600..]).await;
    let mut daemon = rig.daemon(&file);
    until(rig, &mut daemon, "700 records", |log| count(log) >= 700).await;
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_each_once(&rig.log, all);
    assert_children_after_parents(&rig.log);
}

/// Sends SIGTERM while four children run: the daemon exits cleanly, and each child receives the messages that
/// it supports.
async fn stop(rig: &mut Rig, daemon: &mut Daemon, client: &Client) {
    let counts = |log: &[Report]| ["shutdownRequested", "leaseLost"].map(|what| said(log, what).len());
    let before = counts(&rig.log);
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    let after = counts(&rig.log);
    let expected =
        ["shutdownRequested", "leaseLost"].map(|what| if client.stop.contains(&what) { 4 } else { 0 });
    assert_eq!([after[0] - before[0], after[1] - before[1]], expected, "{}", rig.daemon_log());
}

/// Waits for a condition while the daemon runs; its exit is an immediate failure.
async fn until(rig: &mut Rig, daemon: &mut Daemon, what: &str, reached: impl FnMut(&[Report]) -> bool) {
    let ended = tokio::select! {
        status = daemon.ended() => Some(status),
        () = rig.until(what, reached) => None,
    };
    assert!(ended.is_none(), "not reached: {what}; the daemon ended: {ended:?}\n{}", rig.daemon_log());
}
