//! A table that one kind of daemon has written is read on by the other, from its checkpoints: nothing is lost
//! and, as everything was checkpointed, nothing comes twice.

use rustix::process::Signal;

use crate::java::{COMMON, JAVA_2, JAVA_3, Java, Peer, properties};
use crate::mixed::{Load, even};
use crate::rig::*;

async fn run_ours(load: &mut Load, peer: Peer) {
    let file = properties(&load.rig, "ours-1", &format!("{COMMON}{}", peer.mode()));
    let mut daemon = load.rig.daemon(&file);
    read(load, "ours-1").await;
    assert_eq!(daemon.stop().await, Some(0));
}

async fn run_java(load: &mut Load, peer: Peer) {
    let mut java = Java::start(&load.rig, peer, "java-1", COMMON);
    read(load, "java-1").await;
    java.end(Signal::TERM).await;
}

/// Everything put so far and what is put meanwhile is read and checkpointed.
async fn read(load: &mut Load, worker: &str) {
    load.until("all leases are taken", |rows| even(rows, &[worker])).await;
    load.put(500).await;
    load.all_seen().await;
    let checkpoints = |log: &[Report]| said(log, "checkpointed").len();
    let batches = said(&load.rig.log, "processRecords").len();
    load.rig.until("every batch is checkpointed", |log| checkpoints(log) >= batches).await;
}

async fn resumed(peer: Peer, name: &str, java_first: bool) {
    let _turn = crate::TURN.lock().await;
    let rig = Rig::start(name).await;
    rig.stream(4).await;
    let mut load = Load::new(rig);
    load.put(500).await;
    if java_first {
        run_java(&mut load, peer).await;
        run_ours(&mut load, peer).await;
        run_java(&mut load, peer).await;
    } else {
        run_ours(&mut load, peer).await;
        run_java(&mut load, peer).await;
        run_ours(&mut load, peer).await;
    }
    let (put, delivered) = load.all_seen().await;
    assert_eq!(put, delivered, "every record once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_2_has_read_is_read_on_by_ours_and_again_by_java() {
    resumed(JAVA_2, "resumed-2-java", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ours_has_read_is_read_on_by_java_2_and_again_by_ours() {
    resumed(JAVA_2, "resumed-2-ours", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_3_has_read_is_read_on_by_ours_and_again_by_java() {
    resumed(JAVA_3, "resumed-3-java", true).await;
}
