//! A mixed fleet migrates from KCL 2.x to KCL 3.x, is rolled back half way, and migrates again: with the rows
//! that the operator's tool and a leader write into the coordinator table of 3.1.3.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::fleet::{Fleet, SOON, all_have, leader, until};
use crate::java::JAVA_3_FIRST;
use crate::load::Load;
use crate::rig::{APPLICATION, logged};

const FOUR: [&str; 4] = ["java-1", "java-2", "ours-1", "ours-2"];

/// Writes the state as the tool does: the previous state becomes the first entry of the history.
async fn set_generation(fleet: &Fleet, from: &str, to: &str) {
    let table = format!("{APPLICATION}-CoordinatorState");
    let client = &fleet.load.rig.clients.dynamodb;
    let key = AttributeValue::S("Migration3.0".to_owned());
    let read = client.get_item().table_name(&table).key("key", key.clone()).consistent_read(true);
    let item = read.send().await.unwrap().item.unwrap();
    assert_eq!(item["cv"].as_s().unwrap(), from);
    let entry = ["cv", "mb", "mts"].map(|name| (name.to_owned(), item[name].clone()));
    let mut past = vec![AttributeValue::M(entry.into_iter().collect())];
    past.extend(item.get("h").and_then(|past| past.as_l().ok()).cloned().unwrap_or_default());
    let write = client.update_item().table_name(&table).key("key", key);
    let millis = multilangd::clock::wall_millis().to_string();
    let write = write
        .update_expression("SET cv = :to, mb = :by, mts = :at, h = :past")
        .condition_expression("cv = :from")
        .expression_attribute_values(":from", AttributeValue::S(from.to_owned()))
        .expression_attribute_values(":to", AttributeValue::S(to.to_owned()))
        .expression_attribute_values(":by", AttributeValue::S("a tool".to_owned()))
        .expression_attribute_values(":at", AttributeValue::N(millis))
        .expression_attribute_values(":past", AttributeValue::L(past));
    write.send().await.unwrap();
    eprintln!("the operator sets the fleet state from {from} to {to}");
}

/// The number of workers that have reported worker metrics since then (seconds since 1970).
async fn reporting(fleet: &Fleet, since: i64) -> usize {
    let table = format!("{APPLICATION}-WorkerMetricStats");
    let rows = fleet.load.rig.clients.dynamodb.scan().table_name(table).send().await.unwrap();
    let at = |row: &std::collections::HashMap<String, AttributeValue>| {
        row["lut"].as_n().unwrap().parse::<i64>().unwrap()
    };
    rows.items().iter().filter(|row| at(row) > since).count()
}

/// How often each of our workers has logged that the fleet switched to the next state.
fn state_changes(fleet: &Fleet) -> [usize; 2] {
    count_logged(fleet, "assignment_mode_changed")
}

fn count_logged(fleet: &Fleet, event: &str) -> [usize; 2] {
    ["ours-1", "ours-2"].map(|name| logged(&fleet.load.rig.folder.join(format!("{name}.log")), event).len())
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_fleet_migration_can_be_rolled_back_and_repeated() {
    let _turn = crate::turn(2).await;
    let mut load = Load::start("migrate", 8).await;
    load.feed();
    let mut fleet = Fleet::new(load, JAVA_3_FIRST, SOON);
    fleet.java("java-1");
    fleet.java("java-2");
    fleet
        .load
        .until_rows("Java workers own all leases", |rows| {
            rows.len() == 8 && rows.values().all(|row| row.owner.starts_with("java"))
        })
        .await;
    fleet.load.catch_up().await;
    fleet.ours("ours-1");
    fleet.ours("ours-2");
    fleet.settled("leases are evenly shared").await;
    assert_eq!(leader(&fleet).await, None);

    set_generation(&fleet, "CLIENT_VERSION_UPGRADE_FROM_2X", "CLIENT_VERSION_3X_WITH_ROLLBACK").await;
    until("our workers follow", async || state_changes(&fleet) == [1, 1]).await;
    until("a leader is elected", async || leader(&fleet).await.is_some()).await;
    fleet.load.put(500).await;
    fleet.load.reshard().await;
    fleet.load.until_rows("each worker has leases", |rows| all_have(rows, &FOUR)).await;
    fleet.stop("ours-2").await;
    let three = ["java-1", "java-2", "ours-1"];
    fleet.load.until_rows("the leases of ours-2 have new owners", |rows| all_have(rows, &three)).await;
    fleet.ours("ours-2");
    until("ours-2 is back", async || count_logged(&fleet, "assignment_mode_determined")[1] == 2).await;

    set_generation(&fleet, "CLIENT_VERSION_3X_WITH_ROLLBACK", "CLIENT_VERSION_2X").await;
    until("our workers roll back", async || state_changes(&fleet) == [2, 2]).await;
    fleet.settled("leases are evenly shared again").await;
    until("no worker leads", async || leader(&fleet).await.is_none()).await;

    let now = multilangd::clock::wall_millis() / 1_000;
    set_generation(&fleet, "CLIENT_VERSION_2X", "CLIENT_VERSION_UPGRADE_FROM_2X").await;
    until("ours go on", async || state_changes(&fleet) == [3, 3]).await;
    until("all report again", async || reporting(&fleet, now).await == 4).await;
    fleet.all_seen_few_twice().await;
    fleet.stop_all().await;
}
