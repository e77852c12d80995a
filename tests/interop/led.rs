//! Two of ours and two of Java's in a fleet of KCL 3, where one leads: of either kind, stopped and killed. Leases
//! go over without a record twice, and nothing is lost.

use std::collections::BTreeMap;

use crate::fleet::{Fleet, SOON};
use crate::java::JAVA_3_LED;
use crate::load::{Load, Rows, shares};
use crate::rig::{Report, said};

/// Every lease has a living owner, nobody is without, and no hand-off is open.
pub fn all_have(rows: &Rows, workers: &[&str]) -> bool {
    let shares = shares(rows);
    shares.keys().all(|owner| workers.contains(owner))
        && workers.iter().all(|worker| shares.contains_key(*worker))
}

pub async fn leader(fleet: &Fleet) -> Option<String> {
    let table = format!("{}-CoordinatorState", crate::rig::APPLICATION);
    let key = aws_sdk_dynamodb::types::AttributeValue::S("Leader".to_owned());
    let read =
        fleet.load.rig.clients.dynamodb.get_item().table_name(table).key("key", key).consistent_read(true);
    let item = read.send().await.unwrap().item?;
    item.get("ownerName").map(|owner| owner.as_s().unwrap().clone())
}

/// Each child of a shard began where the one before had ended: it checkpoints each batch.
fn begun_where_the_last_ended(log: &[Report]) -> bool {
    let mut last: BTreeMap<&str, String> = BTreeMap::new();
    log.iter().all(|report| {
        let Report::Said { shard, what, body, .. } = report else { return true };
        match what.as_str() {
            "initialize" => {
                let at = body["sequenceNumber"].as_str().unwrap_or_default().to_owned();
                last.insert(shard, at.clone()).is_none_or(|before| before == at)
            }
            "processRecords" => {
                let records = body["records"].as_array().unwrap();
                if let Some(at) = records.last().and_then(|record| record["sequenceNumber"].as_str()) {
                    last.insert(shard, at.to_owned());
                }
                true
            }
            _ => true,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_join_a_fleet_that_java_3_leads_and_lead_it_when_java_is_gone() {
    let _turn = crate::TURN.lock().await;
    let mut load = Load::start("led", 8).await;
    load.feed();
    let mut fleet = Fleet::new(load, JAVA_3_LED, SOON);
    fleet.java("java-1");
    fleet.load.until_rows("java-1 has all", |rows| rows.len() == 8 && all_have(rows, &["java-1"])).await;
    fleet.load.rig.until("its children run", |log| said(log, "initialize").len() >= 8).await;
    assert_eq!(leader(&fleet).await.as_deref(), Some("java-1"));

    fleet.ours("ours-1");
    fleet.ours("ours-2");
    let three = ["java-1", "ours-1", "ours-2"];
    fleet.load.until_rows("java-1 has given some to ours", |rows| all_have(rows, &three)).await;
    fleet.load.put(500).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("Java leads, ours join: {put} records, {delivered} deliveries");
    assert_eq!(put, delivered, "hand-offs repeat nothing");
    assert!(begun_where_the_last_ended(&fleet.load.rig.log));
    fleet.load.feed();

    fleet.stop("ours-2").await;
    fleet.load.until_rows("what ours-2 had went over", |rows| all_have(rows, &["java-1", "ours-1"])).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("one of ours was stopped: {put} records, {delivered} deliveries");
    assert_eq!(put, delivered, "a clean stop repeats nothing");
    assert!(begun_where_the_last_ended(&fleet.load.rig.log));
    fleet.load.feed();

    // Java deletes its lock when it stops, and leaves its leases to expire.
    fleet.stop("java-1").await;
    fleet.load.until_rows("ours-1 has all", |rows| all_have(rows, &["ours-1"])).await;
    assert_eq!(leader(&fleet).await.as_deref(), Some("ours-1"));

    fleet.java("java-1");
    fleet.java("java-2");
    let three = ["java-1", "java-2", "ours-1"];
    fleet.load.until_rows("ours-1 has given some to Java's", |rows| all_have(rows, &three)).await;
    fleet.load.reshard().await;
    fleet.load.put(500).await;
    fleet.ours("ours-2");
    let four = ["java-1", "java-2", "ours-1", "ours-2"];
    fleet.load.until_rows("ours-2 is back, shards were split and merged", |rows| all_have(rows, &four)).await;

    fleet.kill("ours-1").await;
    let three = ["java-1", "java-2", "ours-2"];
    let start = tokio::time::Instant::now();
    fleet
        .load
        .until_rows("the leader was killed, another gave its leases out", |rows| all_have(rows, &three))
        .await;
    eprintln!(
        "read again {:.1?} after the leader was killed; now leads {:?}",
        start.elapsed(),
        leader(&fleet).await
    );
    assert!(start.elapsed() < std::time::Duration::from_secs(30));
    fleet.kill("java-2").await;
    fleet.load.until_rows("one of Java's was killed", |rows| all_have(rows, &["java-1", "ours-2"])).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("at the end: {put} records, {delivered} deliveries");
    assert!(delivered * 100 <= put * 105, "{delivered} deliveries of {put} records");
    fleet.dismiss().await;
}
