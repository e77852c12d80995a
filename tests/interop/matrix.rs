//! The matrix of lease assignment mode × first worker and leader, each with the same scenario for two of our
//! workers and two of Java on eight shards: 3.1.3, or, with a single table, the KCL library 3.5.1. Each cell prints one
//! row of a table.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::Instant;

use crate::fleet::{Fleet, SOON, all_have, leader, started_at_previous_checkpoints};
use crate::java::{JAVA_3, JAVA_3_FIRST, JAVA_3_LED, LIBRARY_LED, Peer};
use crate::library;
use crate::load::{Load, Rows};
use crate::rig::{APPLICATION, said};

static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());
const HEAD: &str = "| mode | leader | all joined s | one stopped s | restarted, resharded s | leader killed s | restarted s | \
                    records | deliveries |\n|---|---|---|---|---|---|---|---|---|";

struct Cell {
    name: &'static str,
    mode: &'static str,
    peer: Peer,
    /// Whether a leader assigns the leases.
    led: bool,
    /// Whether our workers start first.
    ours: bool,
    /// Whether the table has the leases of three streams, eight shards in all.
    several: bool,
}

struct Story {
    fleet: Fleet,
    cell: Cell,
    /// The duration of each step.
    took: Vec<f64>,
}

impl Story {
    fn start(&mut self, worker: &'static str) {
        if worker.starts_with("java") { self.fleet.java(worker) } else { self.fleet.ours(worker) }
    }

    /// Waits for the expected state: with a leader, live owners for all leases and a lease for each worker;
    /// otherwise, stable even shares.
    async fn settled(&mut self, what: &str) {
        let start = Instant::now();
        if self.cell.led {
            let names = self.fleet.names();
            self.fleet.load.until_rows(what, |rows| all_have(rows, &names)).await;
        } else {
            self.fleet.settled(what).await;
        }
        self.took.push(start.elapsed().as_secs_f64());
    }

    /// All records were delivered, and with graceful handoffs none of them twice.
    async fn assert_each_delivered_once(&mut self, what: &str) {
        if !self.cell.led {
            return;
        }
        let (put, delivered) = self.fleet.load.all_seen().await;
        assert_eq!(put, delivered, "{what} repeats nothing");
        assert!(started_at_previous_checkpoints(&self.fleet.load.rig.log), "{what}");
        self.fleet.load.feed();
    }
}

async fn play(cell: Cell) {
    let _turn = crate::turn(2).await;
    let mut load = if cell.several {
        Load::of_several_streams(cell.name, &[("orders", 4), ("payments", 2), ("returns", 2)]).await
    } else {
        Load::start(cell.name, 8).await
    };
    load.feed();
    let single_table = cell.peer.is_library();
    let fleet = match (cell.several, single_table) {
        (true, _) => Fleet::of_several_streams(load, cell.peer, library::SOON),
        (false, true) => Fleet::new(load, cell.peer, library::SOON),
        (false, false) => Fleet::new(load, cell.peer, SOON),
    };
    let [first, second, third, fourth] = if cell.ours {
        ["ours-1", "ours-2", "java-1", "java-2"]
    } else {
        ["java-1", "java-2", "ours-1", "ours-2"]
    };
    let mut story = Story { fleet, cell, took: Vec::new() };
    if story.cell.led && story.cell.ours && !single_table {
        // Alone, our workers keep everything in one table, which 3.1.3 does not support. So Java starts the
        // application and its last worker leaves: it deletes its leader lock, and its leases expire.
        story.start("java-1");
        let all = |rows: &Rows| rows.len() == 8 && all_have(rows, &["java-1"]);
        story.fleet.load.until_rows("java-1 owns all leases", all).await;
        story.start(first);
        story.fleet.load.until_rows("our worker has joined", |rows| all_have(rows, &["java-1", first])).await;
        story.fleet.stop("java-1").await;
    } else {
        story.start(first);
    }
    let fleet = &mut story.fleet;
    fleet
        .load
        .until_rows("the first worker owns all leases", |rows| rows.len() == 8 && all_have(rows, &[first]))
        .await;
    fleet.load.rig.until("its children run", |log| said(log, "initialize").len() >= 8).await;
    // The records of the time that a JVM needs to start.
    fleet.load.catch_up().await;
    if story.cell.led {
        assert_eq!(leader(&story.fleet).await.as_deref(), Some(first));
    }

    for worker in [third, second, fourth] {
        story.start(worker);
    }
    story.settled("four workers").await;
    story.fleet.load.put_and_catch_up(500).await;
    story.assert_each_delivered_once("a hand-off").await;

    story.fleet.stop(fourth).await;
    story.settled("one was stopped").await;
    story.assert_each_delivered_once("a clean stop").await;

    story.fleet.load.reshard().await;
    story.start(fourth);
    if story.cell.led {
        // Graceful handoffs repeat nothing, even under a burst.
        story.fleet.load.put(500).await;
    }
    story.settled("it is back, shards were split and merged").await;
    story.fleet.load.put_and_catch_up(500).await;

    // The batch in flight of each shard of the killed worker is delivered twice. These batches are small,
    // because nothing delays processing.
    story.fleet.kill(first).await;
    story.settled("the leader was killed").await;
    if story.cell.led {
        let leads = leader(&story.fleet).await;
        assert!(leads.as_deref().is_some_and(|leads| leads != first), "{leads:?} leads");
    }
    if story.cell.ours {
        let took = story.took.last().copied().unwrap();
        assert!(took < 30.0, "the leases of a leader of ours are read again after {took:.1} s");
    }
    story.start(first);
    story.settled("it is back").await;
    if story.cell.led && story.cell.ours && !single_table {
        move_waits_for_java(&mut story).await;
    }
    let (put, delivered) = story.fleet.all_seen_few_twice().await;
    let Story { fleet, cell, took } = story;
    fleet.stop_all().await;

    let took: Vec<String> = took.iter().map(|seconds| format!("{seconds:.1}")).collect();
    let leads = if cell.ours { "ours" } else { "Java" };
    let line = format!("| {} | {leads} | {} | {put} | {delivered} |", cell.mode, took.join(" | "));
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    table.push(line);
    eprintln!("{HEAD}\n{}", table.join("\n"));
}

/// KCL 3.1.3 does not support a single table: as long as one of its workers owns a lease the migration is not
/// announced, and it is cancelled when one returns.
async fn move_waits_for_java(story: &mut Story) {
    let announced = async |story: &mut Story, wanted: bool, what: &str| {
        let client = story.fleet.load.rig.clients.dynamodb.clone();
        let wait = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            loop {
                ticks.tick().await;
                let key = AttributeValue::S("TableMigration3.5".to_owned());
                let read = client.get_item().table_name(format!("{APPLICATION}-CoordinatorState"));
                let row = read.key("key", key).consistent_read(true).send().await.unwrap().item;
                if row.is_some() == wanted {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(120), wait).await.is_ok(), "{what}");
        eprintln!("{what}");
    };
    let chapters = story.took.len();
    announced(story, false, "beside Java 3.1.3 no move is announced").await;
    for java in ["java-1", "java-2"] {
        story.fleet.stop(java).await;
    }
    story.settled("without Java's").await;
    announced(story, true, "without Java's it is").await;
    story.start("java-1");
    story.settled("one of Java's is back").await;
    announced(story, false, "and called off when one is back").await;
    story.took.truncate(chapters);
}

const SHARED: &str = "2.x-compatible";
const LED: &str = "3.x";

#[tokio::test(flavor = "multi_thread")]
async fn kcl_2_compatible_mode_with_java_first() {
    play(Cell {
        name: "matrix-2-java",
        mode: SHARED,
        peer: JAVA_3_FIRST,
        led: false,
        ours: false,
        several: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_2_compatible_mode_with_ours_first() {
    play(Cell { name: "matrix-2-ours", mode: SHARED, peer: JAVA_3, led: false, ours: true, several: false })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_3_mode_with_java_leader() {
    play(Cell { name: "matrix-3-java", mode: LED, peer: JAVA_3_LED, led: true, ours: false, several: false })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_3_mode_with_our_leader() {
    play(Cell { name: "matrix-3-ours", mode: LED, peer: JAVA_3_LED, led: true, ours: true, several: false })
        .await;
}

const SINGLE: &str = "3.x, single table";

#[tokio::test(flavor = "multi_thread")]
async fn single_table_with_library_leader() {
    play(Cell {
        name: "matrix-3.5-java",
        mode: SINGLE,
        peer: LIBRARY_LED,
        led: true,
        ours: false,
        several: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_table_with_our_leader() {
    play(Cell {
        name: "matrix-3.5-ours",
        mode: SINGLE,
        peer: LIBRARY_LED,
        led: true,
        ours: true,
        several: false,
    })
    .await;
}

const SEVERAL: &str = "3.x, several streams";

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_with_library_leader() {
    let name = "matrix-several-java";
    play(Cell { name, mode: SEVERAL, peer: LIBRARY_LED, led: true, ours: false, several: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_with_our_leader() {
    let name = "matrix-several-ours";
    play(Cell { name, mode: SEVERAL, peer: LIBRARY_LED, led: true, ours: true, several: true }).await;
}
