//! A Java worker that doesn't hand over: its shard waited for its parents when it was to, and the wait ended before
//! its time for that did. From then on it renews the lease without reading (mended in 3.4.3). Nobody leads who could
//! see to it, as after the way back from KCL 3.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::{Instant, interval, timeout};

use crate::fleet::{Fleet, SOON};
use crate::java::JAVA_3;
use crate::load::{Load, Rows};
use crate::rig::{APPLICATION, LIMIT};

const CHILD: &str = "shardId-000000000002";
/// Twice `gracefulLeaseHandoffTimeoutMillis` and `failoverTimeMillis`.
const STALLED: Duration = Duration::from_secs(66);

/// The lease of the shard that a merge will make.
async fn make_child(fleet: &Fleet) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let zero = || AttributeValue::N("0".to_owned());
    let parents = ["shardId-000000000000", "shardId-000000000001"].map(str::to_owned).to_vec();
    let write = fleet.load.rig.clients.dynamodb.put_item().table_name(APPLICATION);
    let write = write
        .item("leaseKey", text(CHILD))
        .item("checkpoint", text("TRIM_HORIZON"))
        .item("checkpointSubSequenceNumber", zero())
        .item("leaseCounter", zero())
        .item("ownerSwitchesSinceCheckpoint", zero())
        .item("parentShardId", AttributeValue::Ss(parents))
        .item("startingHashKey", text("0"))
        .item("endingHashKey", text(&u128::MAX.to_string()));
    write.send().await.unwrap();
}

/// As a leader opens a hand-off.
async fn hand_off(fleet: &Fleet, from: &str, to: &str) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let write = fleet.load.rig.clients.dynamodb.update_item().table_name(APPLICATION);
    let write = write
        .key("leaseKey", text(CHILD))
        .update_expression("SET leaseOwner = :to, checkpointOwner = :from")
        .condition_expression("leaseOwner = :from AND attribute_not_exists(checkpointOwner)")
        .expression_attribute_values(":from", text(from))
        .expression_attribute_values(":to", text(to));
    write.send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_java_never_hands_over_is_read_by_ours() {
    let _turn = crate::TURN.write().await;
    let mut fleet = Fleet::new(Load::start("stalled", 2).await, JAVA_3, SOON);
    fleet.java("java-1");
    let all = |rows: &Rows, count| rows.len() == count && rows.values().all(|row| row.owner == "java-1");
    fleet.load.until_rows("Java has its shards", |rows| all(rows, 2)).await;
    make_child(&fleet).await;
    fleet.load.until_rows("and the one that waits for them", |rows| all(rows, 3)).await;
    hand_off(&fleet, "java-1", "ours-1").await;
    let start = Instant::now();
    fleet.ours("ours-1");
    // It is asked to shut the consumer down while that waits, and then the wait is over.
    let log = fleet.load.rig.folder.join("java-1.log");
    let asked = format!("Calling graceful shutdown for lease {CHILD}");
    let is_asked = async {
        let mut ticks = interval(Duration::from_millis(100));
        while !std::fs::read_to_string(&log).unwrap().contains(&asked) {
            ticks.tick().await;
        }
    };
    timeout(LIMIT, is_asked).await.expect("Java says that it was asked");
    fleet.load.feed();
    let merge = fleet.load.rig.clients.kinesis.merge_shards().stream_name(crate::rig::STREAM);
    let merge = merge.shard_to_merge("shardId-000000000000").adjacent_shard_to_merge("shardId-000000000001");
    merge.send().await.unwrap();
    let ended = |rows: &Rows| rows.iter().all(|(shard, row)| shard == CHILD || !row.is_open());
    fleet.load.until_rows("its parents ended", ended).await;
    let is_ours = |rows: &Rows| rows[CHILD].owner == "ours-1" && rows[CHILD].from.is_none();
    fleet.load.until_rows("it is ours", is_ours).await;
    assert!(start.elapsed() >= STALLED, "Java did hand it over, after {:?}", start.elapsed());
    let read = |rows: &Rows| rows[CHILD].checkpoint != "TRIM_HORIZON";
    fleet.load.until_rows("it is read", read).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{put} records, {delivered} deliveries");
    fleet.dismiss().await;
}
