//! An operator pauses and parks beside a live Java worker: ours obeys, Java preserves the orders and continues, and the
//! command names it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fleet::{Fleet, SOON, all_have};
use crate::java::{JAVA_3, properties};
use crate::load::{Load, Rows};
use crate::rig::{Report, records, said};

const OURS: &str = "ours-1";
const JAVA: &str = "java-1";

/// Runs a verb, and returns its exit code and its plan.
pub async fn run(fleet: &Fleet, arguments: &[&str]) -> (Option<i32>, Value) {
    let rig = &fleet.load.rig;
    let file = properties(rig, "operator", &format!("{}{}", fleet.lines, fleet.peer.ours));
    let mut command = rig.command(&[&["leases", file.to_str().unwrap(), "--json"], arguments].concat());
    let code = command.ended().await.code();
    let plan = serde_json::from_str(&command.printed.join("\n"));
    (code, plan.unwrap_or_else(|_| panic!("{arguments:?}: {code:?}\n{}", rig.daemon_log())))
}

/// Runs a verb that must succeed, and returns its plan.
async fn verb(fleet: &Fleet, arguments: &[&str]) -> Value {
    let (code, plan) = run(fleet, arguments).await;
    assert_eq!(code, Some(0), "{arguments:?}: {plan}");
    plan
}

/// The leases of a worker.
pub fn of(rows: &Rows, worker: &str) -> Vec<String> {
    rows.iter().filter(|(_, row)| row.owner == worker).map(|(shard, _)| shard.clone()).collect()
}

/// The leases with an attribute, and its value.
pub async fn attribute(fleet: &Fleet, name: &str) -> BTreeMap<String, String> {
    let rows = fleet.load.rig.rows().await;
    let value = |row: &BTreeMap<String, aws_sdk_dynamodb::types::AttributeValue>| {
        row.get(name).map(|value| value.as_s().unwrap().clone())
    };
    rows.iter().filter_map(|(shard, row)| Some((shard.clone(), value(row)?))).collect()
}

fn count(log: &[Report], shards: &[String]) -> usize {
    let seen = records(log);
    shards.iter().map(|shard| seen.get(shard).map_or(0, Vec::len)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_beside_java_are_obeyed_by_ours_and_kept_by_java() {
    let _turn = crate::turn(2).await;
    let mut fleet = Fleet::new(Load::start("orders", 4).await, JAVA_3, SOON);
    fleet.ours(OURS);
    fleet.load.feed();
    fleet.java(JAVA);
    let both = |rows: &Rows| {
        all_have(rows, &[OURS, JAVA])
            && of(rows, OURS).len() == 2
            && rows.values().all(|row| row.from.is_none())
    };
    fleet.load.until_rows("both own leases", both).await;
    let rows = fleet.load.rows().await;
    let (ours, java) = (of(&rows, OURS), of(&rows, JAVA));

    let paused = verb(&fleet, &["pause"]).await;
    assert_eq!(paused["written"], 4);
    assert_eq!(paused["unknownWorkers"], serde_json::json!([{"worker": JAVA, "shards": java}]));
    let at = fleet.load.rig.log.len();
    let stopped = |log: &[Report]| {
        let said = said(&log[at..], "shutdownRequested");
        ours.iter().all(|shard| said.contains(&shard.as_str()))
    };
    fleet.load.rig.until("the end of our record processors", stopped).await;
    let (before, from) = (fleet.load.rows().await, fleet.load.rig.log.len());
    // Java renews, checkpoints and delivers as before.
    fleet.load.rig.until("deliveries by Java", |log| count(&log[from..], &java) > 200).await;
    let java_goes_on =
        |rows: &Rows| java.iter().all(|shard| rows[shard].checkpoint != before[shard].checkpoint);
    fleet.load.until_rows("Java's checkpoints have moved", java_goes_on).await;
    let rows = fleet.load.rows().await;
    for shard in &ours {
        assert_eq!(rows[shard], before[shard], "owner and checkpoint of {shard}");
    }
    assert_eq!(count(&fleet.load.rig.log[from..], &ours), 0, "ours delivers nothing");
    let orders = attribute(&fleet, "multilangdPause").await;
    assert!(orders.len() == 4 && orders.values().all(|order| order.starts_with("paused ")), "{orders:?}");

    // Our worker stops: Java acquires its leases, and does not know the order.
    fleet.stop(OURS).await;
    fleet.load.until_rows("Java owns all leases", |rows| all_have(rows, &[JAVA])).await;
    assert_eq!(attribute(&fleet, "multilangdPause").await, orders, "Java preserves the orders");
    fleet.ours(OURS);
    fleet.load.until_rows("both own leases again", both).await;
    let ours = of(&fleet.load.rows().await, OURS);

    assert_eq!(verb(&fleet, &["resume"]).await["written"], 4);
    let from = fleet.load.rig.log.len();
    fleet.load.rig.until("deliveries by ours", |log| count(&log[from..], &ours) > 50).await;
    let of_java = &of(&fleet.load.rows().await, JAVA)[0];
    let parked = verb(&fleet, &["park", "--shard", of_java]).await;
    assert_eq!(parked["unknownWorkers"], serde_json::json!([{"worker": JAVA, "shards": [of_java]}]));
    assert_eq!(attribute(&fleet, "multilangdParked").await.len(), 1);
    verb(&fleet, &["unpark"]).await;
    assert!(attribute(&fleet, "multilangdParked").await.is_empty());
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{put} records, {delivered} deliveries");
    fleet.stop_all().await;
}
