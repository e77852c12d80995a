//! A Java worker that never completes a graceful handoff: it was to hand the lease over while its shard waited
//! for the parents, and the wait ended before the handoff's timeout. From then on it renews the lease without
//! reading (fixed in KCL 3.4.3). There is no leader that could force the handoff, as after a roll-back from KCL
//! 3.x.

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

/// Creates the lease of the shard that a merge will create.
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

/// Starts a graceful handoff, as a leader does.
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
async fn handoff_never_completed_by_java_is_forced_by_ours() {
    let _turn = crate::turn(2).await;
    let mut fleet = Fleet::new(Load::start("stalled", 2).await, JAVA_3, SOON);
    fleet.java("java-1");
    let all = |rows: &Rows, count| rows.len() == count && rows.values().all(|row| row.owner == "java-1");
    fleet.load.until_rows("Java owns the parent shards", |rows| all(rows, 2)).await;
    make_child(&fleet).await;
    fleet.load.until_rows("Java owns the child shard", |rows| all(rows, 3)).await;
    hand_off(&fleet, "java-1", "ours-1").await;
    let start = Instant::now();
    fleet.ours("ours-1");
    // The consumer is asked to shut down while it waits, and then the wait ends.
    let log = fleet.load.rig.folder.join("java-1.log");
    let asked = format!("Calling graceful shutdown for lease {CHILD}");
    let is_asked = async {
        let mut ticks = interval(Duration::from_millis(100));
        while !std::fs::read_to_string(&log).unwrap().contains(&asked) {
            ticks.tick().await;
        }
    };
    timeout(LIMIT, is_asked).await.expect("Java logs that it was asked");
    fleet.load.feed();
    let merge = fleet.load.rig.clients.kinesis.merge_shards().stream_name(crate::rig::STREAM);
    let merge = merge.shard_to_merge("shardId-000000000000").adjacent_shard_to_merge("shardId-000000000001");
    merge.send().await.unwrap();
    let ended = |rows: &Rows| rows.iter().all(|(shard, row)| shard == CHILD || !row.is_open());
    fleet.load.until_rows("the parents ended", ended).await;
    let is_ours = |rows: &Rows| rows[CHILD].owner == "ours-1" && rows[CHILD].from.is_none();
    fleet.load.until_rows("our worker owns the child shard", is_ours).await;
    assert!(start.elapsed() >= STALLED, "Java completed the handoff after {:?}", start.elapsed());
    let read = |rows: &Rows| rows[CHILD].checkpoint != "TRIM_HORIZON";
    fleet.load.until_rows("the child shard is read", read).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{put} records, {delivered} deliveries");
    fleet.stop_all().await;
}
