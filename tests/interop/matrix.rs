//! The matrix: how leases find their owners × who comes first and leads, each with the same story for two of ours
//! and two of Java 3.1.3 on eight shards. Each cell adds its line to a table that is printed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::Instant;

use crate::fleet::{Fleet, SOON, all_have, begun_where_the_last_ended, leader};
use crate::java::{JAVA_3, JAVA_3_FIRST, JAVA_3_LED, Peer};
use crate::load::{Load, Rows};
use crate::rig::{APPLICATION, said};

static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());
const HEAD: &str = "| mode | leads | both join s | one leaves s | back, reshard s | leader killed s | it is back s | \
                    records | deliveries |\n|---|---|---|---|---|---|---|---|---|";

struct Cell {
    name: &'static str,
    mode: &'static str,
    peer: Peer,
    /// A leader gives the leases out.
    led: bool,
    /// Whether ours come first.
    ours: bool,
}

struct Story {
    fleet: Fleet,
    cell: Cell,
    /// How long each chapter took.
    took: Vec<f64>,
}

impl Story {
    fn start(&mut self, worker: &'static str) {
        if worker.starts_with("java") { self.fleet.java(worker) } else { self.fleet.ours(worker) }
    }

    /// What was asked for is there: living owners for all, and for each some; by shares, even ones that stay.
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

    /// All that was put came, where a leader hands over: nothing of it twice.
    async fn nothing_twice(&mut self, what: &str) {
        if !self.cell.led {
            return;
        }
        let (put, delivered) = self.fleet.load.all_seen().await;
        assert_eq!(put, delivered, "{what} repeats nothing");
        assert!(begun_where_the_last_ended(&self.fleet.load.rig.log), "{what}");
        self.fleet.load.feed();
    }
}

async fn play(cell: Cell) {
    let _turn = crate::TURN.write().await;
    let mut load = Load::start(cell.name, 8).await;
    load.feed();
    let fleet = Fleet::new(load, cell.peer, SOON);
    let [first, second, third, fourth] = if cell.ours {
        ["ours-1", "ours-2", "java-1", "java-2"]
    } else {
        ["java-1", "java-2", "ours-1", "ours-2"]
    };
    let mut story = Story { fleet, cell, took: Vec::new() };
    if story.cell.led && story.cell.ours {
        // Alone, ours keep everything in one table, which 3.1.3 doesn't know. This is an application of Java's,
        // whose last worker leaves; it deletes its lock, and its leases expire.
        story.start("java-1");
        let all = |rows: &Rows| rows.len() == 8 && all_have(rows, &["java-1"]);
        story.fleet.load.until_rows("an application of Java's", all).await;
        story.start(first);
        story.fleet.load.until_rows("ours has joined", |rows| all_have(rows, &["java-1", first])).await;
        story.fleet.stop("java-1").await;
    } else {
        story.start(first);
    }
    let fleet = &mut story.fleet;
    fleet.load.until_rows("the first has all", |rows| rows.len() == 8 && all_have(rows, &[first])).await;
    fleet.load.rig.until("its children run", |log| said(log, "initialize").len() >= 8).await;
    if story.cell.led {
        assert_eq!(leader(&story.fleet).await.as_deref(), Some(first));
    }

    for worker in [third, second, fourth] {
        story.start(worker);
    }
    story.settled("four workers").await;
    story.fleet.load.put(500).await;
    story.nothing_twice("a hand-off").await;

    story.fleet.stop(fourth).await;
    story.settled("one was stopped").await;
    story.nothing_twice("a clean stop").await;

    story.fleet.load.reshard().await;
    story.start(fourth);
    story.fleet.load.put(500).await;
    story.settled("it is back, shards were split and merged").await;

    // What a worker has in hand when it is killed comes twice: a batch for each of its shards, and as nothing is
    // held up here these are small.
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
    if story.cell.led && story.cell.ours {
        move_waits_for_java(&mut story).await;
    }
    let (put, delivered) = story.fleet.load.all_seen().await;
    assert!(delivered * 100 <= put * 105, "{delivered} deliveries of {put} records");
    let Story { fleet, cell, took } = story;
    fleet.dismiss().await;

    let took: Vec<String> = took.iter().map(|seconds| format!("{seconds:.1}")).collect();
    let leads = if cell.ours { "ours" } else { "Java" };
    let line = format!("| {} | {leads} | {} | {put} | {delivered} |", cell.mode, took.join(" | "));
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    table.push(line);
    eprintln!("{HEAD}\n{}", table.join("\n"));
}

/// KCL 3.1.3 can't do with one table: as long as one of its workers has a lease the move isn't even announced, and
/// it is called off when one comes back.
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
async fn compatible_with_kcl_2_and_java_first() {
    play(Cell { name: "matrix-2-java", mode: SHARED, peer: JAVA_3_FIRST, led: false, ours: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compatible_with_kcl_2_and_ours_first() {
    play(Cell { name: "matrix-2-ours", mode: SHARED, peer: JAVA_3, led: false, ours: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_3_and_java_leads() {
    play(Cell { name: "matrix-3-java", mode: LED, peer: JAVA_3_LED, led: true, ours: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_3_and_ours_lead() {
    play(Cell { name: "matrix-3-ours", mode: LED, peer: JAVA_3_LED, led: true, ours: true }).await;
}
