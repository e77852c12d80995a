//! A table that one kind of daemon has written is read on by the other, from its checkpoints: nothing is lost
//! and, as everything was checkpointed, nothing comes twice.

use crate::fleet::{Fleet, SOON};
use crate::java::{JAVA_2, JAVA_3, Peer};
use crate::load::{Load, Rows, even};
use crate::rig::*;

const OURS: &str = "ours-1";
const JAVA: &str = "java-1";

/// One worker alone reads what was put, checkpoints all of it and is stopped. The table as it left it.
async fn run(fleet: &mut Fleet, worker: &'static str) -> Rows {
    if worker == OURS {
        fleet.ours(worker)
    } else {
        fleet.java(worker)
    }
    fleet.load.until_rows(&format!("{worker} has all"), |rows| even(rows, &[worker])).await;
    fleet.load.all_seen().await;
    let batches = said(&fleet.load.rig.log, "processRecords").len();
    fleet
        .load
        .rig
        .until("every batch is checkpointed", |log| said(log, "checkpointed").len() >= batches)
        .await;
    fleet.stop(worker).await;
    fleet.load.rig.until("its children gone", |log| alive(log) == 0).await;
    fleet.load.rows().await
}

/// The children that were started since began at what the table said.
fn assert_begun_at(rows: &Rows, log: &[Report]) {
    let mut begun = 0;
    for report in log {
        if let Report::Said { shard, what, body, .. } = report
            && what == "initialize"
        {
            assert_eq!(body["sequenceNumber"], rows[shard].checkpoint, "{shard}");
            begun += 1;
        }
    }
    assert_eq!(begun, rows.len(), "one child for each shard");
}

/// The workers run one after the other; nobody runs while records are put.
async fn resumed(name: &str, peer: Peer, workers: [&'static str; 3]) {
    let _turn = crate::TURN.write().await;
    let mut fleet = Fleet::new(Load::start(name, 4).await, peer, SOON);
    let mut left: Option<Rows> = None;
    for worker in workers {
        fleet.load.put(500).await;
        let before = fleet.load.rig.log.len();
        let rows = run(&mut fleet, worker).await;
        if let Some(left) = left.replace(rows) {
            assert_begun_at(&left, &fleet.load.rig.log[before..]);
        }
    }
    let (put, delivered) = fleet.load.all_seen().await;
    assert_eq!((put, delivered), (1_500, 1_500), "every record once");
    fleet.dismiss().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_2_has_read_is_read_on_by_ours_and_then_by_java_2() {
    resumed("resumed-2", JAVA_2, [JAVA, OURS, JAVA]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ours_has_read_is_read_on_by_java_2_and_then_by_ours() {
    resumed("resumed-2-ours", JAVA_2, [OURS, JAVA, OURS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_3_has_read_is_read_on_by_ours_and_then_by_java_3() {
    resumed("resumed-3", JAVA_3, [JAVA, OURS, JAVA]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ours_has_read_is_read_on_by_java_3_and_then_by_ours() {
    resumed("resumed-3-ours", JAVA_3, [OURS, JAVA, OURS]).await;
}
