//! A table written by one kind of worker is resumed by the other from its checkpoints: no record is lost and,
//! as everything was checkpointed, none is delivered twice.

use crate::fleet::{Fleet, SOON};
use crate::java::{JAVA_2, JAVA_3, Peer};
use crate::load::{Load, Rows, even};
use crate::rig::*;

const OURS: &str = "ours-1";
const JAVA: &str = "java-1";

/// A single worker reads all records, checkpoints them and is stopped. Returns the table afterwards.
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

/// Asserts that the children started since then began at the checkpoints of the table.
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

/// The workers run one after the other; no worker runs while records are put.
async fn resumed(name: &str, peer: Peer, workers: [&'static str; 3]) {
    let _turn = crate::turn(2).await;
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
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_java_2_is_resumed_by_ours_and_back() {
    resumed("resumed-2", JAVA_2, [JAVA, OURS, JAVA]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_table_is_resumed_by_java_2_then_ours() {
    resumed("resumed-2-ours", JAVA_2, [OURS, JAVA, OURS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_java_3_is_resumed_by_ours_and_back() {
    resumed("resumed-3", JAVA_3, [JAVA, OURS, JAVA]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_table_is_resumed_by_java_3_then_ours() {
    resumed("resumed-3-ours", JAVA_3, [OURS, JAVA, OURS]).await;
}
