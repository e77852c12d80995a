//! Java workers preserve attributes of lease rows that they do not know.
//!
//! Four string attributes are added to each lease row. Then two workers of one kind renew and checkpoint leases,
//! one gets leases of the other (it steals them in KCL 2.x mode, in 3.x mode it is a graceful handoff), a split
//! shard is read to its end, and both stop, one after the other. The attributes must be unchanged after all of it.
//! This is what allows multilangd to keep attributes of its own on lease rows.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::fleet::{Fleet, all_have};
use crate::java::{JAVA_2, JAVA_3, JAVA_3_LED, LIBRARY_COMPATIBLE, LIBRARY_LED, Peer};
use crate::library::{HALVES, SOON, SPLIT, assert_halves_follow, halves_are_read};
use crate::load::{Load, Rows};
use crate::rig::{APPLICATION, Rig};

type Row = BTreeMap<String, AttributeValue>;

const ADDED: [(&str, &str); 4] = [
    ("multilangdStream", "arn:aws:kinesis:us-east-1:000000000000:stream/orders@1795000000123"),
    ("multilangdProcess", "x"),
    ("multilangdEarlierCheckpoint", "y"),
    ("multilangdLatestFrom", "z"),
];

/// Adds the attributes to every lease row that lacks them. Our worker has marked the rows that it created.
async fn add(rig: &Rig) {
    for (lease, row) in rig.rows().await {
        let (name, value) = ADDED[0];
        if row.get(name).and_then(|found| found.as_s().ok()).is_some_and(|found| found == value) {
            continue;
        }
        let mut update = rig.clients.dynamodb.update_item().table_name(APPLICATION);
        update = update
            .key("leaseKey", AttributeValue::S(lease))
            .condition_expression("attribute_exists(leaseKey)");
        for (number, (name, value)) in ADDED.iter().enumerate() {
            update = update.expression_attribute_names(format!("#{number}"), *name);
            update = update
                .expression_attribute_values(format!(":{number}"), AttributeValue::S((*value).to_owned()));
        }
        update.update_expression("SET #0 = :0, #1 = :1, #2 = :2, #3 = :3").send().await.unwrap();
    }
}

/// Every lease row has the attributes, unchanged. The only rows without `leaseCounter` are those that KCL 3.5 keeps
/// on a single table: a partial lease row would have no such entity type.
fn assert_kept(what: &str, peer: Peer, rows: &BTreeMap<String, Row>) {
    for (key, row) in rows {
        if row.contains_key("leaseCounter") {
            for (name, value) in ADDED {
                let found = row.get(name).and_then(|value| value.as_s().ok()).map(String::as_str);
                assert_eq!(found, Some(value), "{what}: {name} of {key}: {row:?}");
            }
        } else {
            let kind = row.get("entityType").and_then(|kind| kind.as_s().ok()).map(String::as_str);
            let known = ["LEADER", "CLIENT_VERSION_MIGRATION", "TABLE_MIGRATION", "WORKER_METRIC_STATS"];
            let single = peer.is_library() && kind.is_some_and(|kind| known.contains(&kind));
            assert!(single, "{what}: {key} is not a lease: {row:?}");
        }
    }
}

/// Prints names and types of all attributes, one line per row.
fn print(what: &str, rows: &BTreeMap<String, Row>) {
    let mut text = format!("{what}:\n");
    for (key, row) in rows {
        let attributes = row.iter().map(|(name, value)| {
            let kind = match value {
                AttributeValue::B(_) => "B",
                AttributeValue::L(_) => "L",
                AttributeValue::M(_) => "M",
                AttributeValue::N(_) => "N",
                AttributeValue::S(_) => "S",
                AttributeValue::Ss(_) => "SS",
                _ => "?",
            };
            format!("{name} {kind}")
        });
        text += &format!("  {key}: {}\n", attributes.collect::<Vec<_>>().join(", "));
    }
    eprint!("{text}");
}

fn counter(row: &Row) -> u64 {
    row["leaseCounter"].as_n().unwrap().parse().unwrap()
}

async fn play(name: &str, peer: Peer) {
    let mut fleet = Fleet::new(Load::start(name, 4).await, peer, SOON);
    let all = |worker| move |rows: &Rows| rows.len() >= 4 && all_have(rows, &[worker]);

    // Our worker creates the leases: on an empty table, Java waits up to half a minute before it does.
    fleet.ours("ours-1");
    fleet.load.until_rows(&format!("{name}: there are leases"), all("ours-1")).await;
    fleet.stop("ours-1").await;
    add(&fleet.load.rig).await;
    let before = fleet.load.rig.all_rows().await;
    print(&format!("{name}: before"), &before);
    assert_kept("before", peer, &before);

    fleet.load.feed();
    fleet.java("java-1");
    fleet.load.until_rows(&format!("{name}: the first worker owns all leases"), all("java-1")).await;
    fleet.java("java-2");
    let both =
        |rows: &Rows| all_have(rows, &["java-1", "java-2"]) && rows.values().all(|row| row.from.is_none());
    fleet.load.until_rows(&format!("{name}: both own leases"), both).await;
    fleet.load.split().await;
    let listed = |rows: &Rows| HALVES.iter().all(|shard| rows.contains_key(*shard));
    fleet.load.until_rows(&format!("{name}: the halves have leases"), listed).await;
    add(&fleet.load.rig).await;
    fleet.load.until_rows(&format!("{name}: the halves are read"), halves_are_read).await;

    fleet.stop("java-2").await;
    fleet.load.until_rows(&format!("{name}: the first worker owns all leases again"), all("java-1")).await;
    fleet.load.put(500).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{name}: {put} records, {delivered} deliveries");
    assert_halves_follow(&fleet.load.rig.log);
    fleet.stop("java-1").await;

    let after = fleet.load.rig.all_rows().await;
    print(&format!("{name}: after"), &after);
    assert_kept("after", peer, &after);
    for (lease, row) in before.iter().filter(|(_, row)| row.contains_key("leaseCounter")) {
        let Some(after) = after.get(lease) else {
            assert_eq!(lease, SPLIT, "only the lease of the ended shard is deleted");
            continue;
        };
        assert!(counter(after) > counter(row), "{lease} was renewed");
        assert_ne!(after["checkpoint"], row["checkpoint"], "{lease} was checkpointed");
    }
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_workers_keep_unknown_attributes_of_lease_rows() {
    let _turn = crate::turn(1).await;
    // Each fleet waits most of the time, so all run concurrently.
    tokio::join!(
        play("attributes-2.5.4", JAVA_2),
        play("attributes-3.1.3-compatible", JAVA_3),
        // 3.1.3 cannot read the single table that our workers create in 3.x mode.
        play("attributes-3.1.3", Peer { ours: JAVA_3.ours, ..JAVA_3_LED }),
        play("attributes-3.5.1-compatible", LIBRARY_COMPATIBLE),
        play("attributes-3.5.1", LIBRARY_LED),
    );
}
