//! Rows of the lease table that other programs wrote: read if possible, otherwise reported once.

use aws_sdk_dynamodb::types::AttributeValue;
use multilangd::aws::dynamodb::{Leases, Options};
use multilangd::lease::Table as _;

use crate::rig::*;

async fn put(rig: &Rig, key: &str, attributes: &[(&str, AttributeValue)]) {
    let put = rig.clients.dynamodb.put_item().table_name(APPLICATION);
    let put = put.item("leaseKey", AttributeValue::S(key.into()));
    attributes.iter().fold(put, |put, (name, value)| put.item(*name, value.clone())).send().await.unwrap();
}

/// The first row is in the form of zio-kinesis; the second has no lease counter.
#[tokio::test(flavor = "multi_thread")]
async fn row_without_checkpoint_is_read_unreadable_row_reported() {
    let mut rig = Rig::start("rows").await;
    rig.stream(2).await;
    let leases = Leases::new(rig.clients.dynamodb.clone(), APPLICATION.to_owned(), Options::default());
    leases.ensure().await.unwrap();
    let null = AttributeValue::Null(true);
    let first = [("leaseCounter", AttributeValue::N("0".into())), ("checkpoint", null.clone())];
    put(&rig, "shardId-000000000000", &first).await;
    put(&rig, "shardId-000000000001", &[("checkpoint", null)]).await;
    put(&rig, "other", &[("entityType", AttributeValue::S("SOMETHING_NEW".into()))]).await;
    rig.put(&(0..40).map(|key| (key.to_string(), vec![b'x'])).collect::<Vec<_>>()).await;
    let mut daemon = rig.daemon(&rig.properties(&rig.scripted("each"), "failoverTimeMillis = 1000\n"));
    // Both shards receive records; the child checkpoints those of the first.
    rig.until("records of the first shard", |log| count(log) > 0).await;
    // Waits for many scans of the table.
    let counter = async |rig: &Rig| match rig.rows().await.get("shardId-000000000000") {
        Some(row) => row["leaseCounter"].as_n().unwrap().parse::<u32>().unwrap(),
        None => 0,
    };
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    while counter(&rig).await < 20 {
        ticks.tick().await;
    }
    let about = |event: &str, field: &str, value: &str| {
        let lines = logged(&daemon.stderr, event);
        lines.iter().filter(|line| line[field].as_str().is_some_and(|text| text.contains(value))).count()
    };
    let log = rig.daemon_log();
    assert_eq!(about("lease_row_invalid", "error", "leaseCounter"), 1, "{log}");
    assert_eq!(about("lease_row_skipped", "error", "leaseCounter"), 1, "{log}");
    assert_eq!(about("rows_skipped", "entity", "SOMETHING_NEW"), 1, "{log}");
    assert_eq!(logged(&daemon.stderr, "shard_sync_incomplete").len(), 1, "{log}");
    assert_eq!(logged(&daemon.stderr, "shard_sync_completed").len(), 0, "{log}");
    assert_eq!(daemon.stop().await, Some(0));
}
