//! A worker that uses the KCL library 3.5.1 (`worker/Worker.java`): alone, and with our workers on a new single
//! table.
//!
//! A scenario starts one as it starts any Java worker: `Fleet::new(load, LIBRARY_LED, lines)`, then
//! `fleet.java(name)`. The worker reads the same properties file as the MultiLangDaemon and reports to the rig as
//! the scripted children do, so that `Load` checks its records, too. Its `initialize` reports also hold the worker
//! and the stream.

use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

use crate::fleet::{Fleet, all_have};
use crate::java::LIBRARY_LED;
use crate::load::{Load, Rows};
use crate::rig::{LIMIT, Report, said};

/// Short times, as a JVM starts slowly. A leader counts a worker as live until its metrics are older than twice the
/// reporting time. The grace leaves room for a busy machine; the MultiLangDaemon can use up all of it.
pub const SOON: &str = "failoverTimeMillis = 3000\nshardSyncIntervalMillis = 1000\nmetricsLevel = NONE\n\
                        maxRecords = 100\nshutdownGraceMillis = 10000\nworkerMetricsReporterFreqInMillis = 5000\n";
pub const SPLIT: &str = "shardId-000000000000";
pub const HALVES: [&str; 2] = ["shardId-000000000004", "shardId-000000000005"];

/// Whether the split shard has been read to its end, and both halves have delivered records.
pub fn halves_are_read(rows: &Rows) -> bool {
    rows.get(SPLIT).is_none_or(|row| !row.is_open())
        && HALVES.iter().all(|shard| rows.get(*shard).is_some_and(|row| row.checkpoint != "TRIM_HORIZON"))
}

/// Asserts that no record processor of a half starts before the split shard has ended.
pub fn assert_halves_follow(log: &[Report]) {
    let at = |wanted: &str, shards: &[&str]| {
        let is = |report: &Report| match report {
            Report::Said { shard, what, .. } => what == wanted && shards.contains(&shard.as_str()),
            Report::Gone { .. } => false,
        };
        log.iter().position(is).unwrap_or_else(|| panic!("no {wanted} of {shards:?}"))
    };
    assert!(at("shardEnded", &[SPLIT]) < at("initialize", &HALVES), "the halves follow the shard's end");
}

/// Waits until the worker holds the leader lock of the single table.
async fn leads(fleet: &Fleet, worker: &str) {
    let is_leader = async {
        let mut ticks = interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            let rows = fleet.load.rig.all_rows().await;
            let owner = rows.get("Leader").and_then(|row| row.get("ownerName")?.as_s().ok());
            if owner.is_some_and(|owner| owner == worker) {
                return;
            }
        }
    };
    let start = Instant::now();
    timeout(LIMIT, is_leader).await.unwrap_or_else(|_| panic!("{worker} does not become the leader"));
    eprintln!("{:6.1} s  {worker} is the leader", start.elapsed().as_secs_f64());
}

async fn alone(name: &str, more: &str) {
    let mut load = Load::start(name, 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, LIBRARY_LED, &format!("{SOON}{more}"));
    fleet.java("java-1");
    let owns_all = |rows: &Rows| rows.len() == 4 && all_have(rows, &["java-1"]);
    fleet.load.until_rows(&format!("{name}: the worker owns all leases"), owns_all).await;
    fleet.load.put(500).await;
    fleet.load.split().await;
    fleet.load.until_rows(&format!("{name}: both halves of the split shard are read"), halves_are_read).await;
    fleet.load.put(500).await;
    let (put, delivered) = fleet.load.all_seen().await;
    eprintln!("{name}: {put} records, {delivered} deliveries");
    assert_halves_follow(&fleet.load.rig.log);
    fleet.stop("java-1").await;
    // Three of the four shards and the two halves are open.
    let requested = |log: &[Report]| said(log, "shutdownRequested").len() == 5;
    fleet.load.rig.until("every record processor is asked to shut down", requested).await;
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn library_worker_reads_a_stream_across_a_split() {
    let _turn = crate::turn(1).await;
    tokio::join!(
        alone("library-polling", "retrievalMode = POLLING\n"),
        alone("library-fan-out", "retrievalMode = FANOUT\n"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn library_worker_and_ours_exchange_leases() {
    let _turn = crate::turn(1).await;
    let mut load = Load::start("library-beside-ours", 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, LIBRARY_LED, SOON);
    let all = |worker| move |rows: &Rows| rows.len() >= 4 && all_have(rows, &[worker]);
    let both =
        |rows: &Rows| all_have(rows, &["java-1", "ours-1"]) && rows.values().all(|row| row.from.is_none());

    fleet.ours("ours-1");
    fleet.load.until_rows("our worker owns all leases of a new table", all("ours-1")).await;
    fleet.java("java-1");
    fleet.load.until_rows("the library worker has joined", both).await;
    fleet.load.put(500).await;
    fleet.stop("ours-1").await;
    fleet.load.until_rows("our worker has stopped", all("java-1")).await;
    leads(&fleet, "java-1").await;
    fleet.load.put(500).await;
    fleet.ours("ours-1");
    fleet.load.until_rows("our worker has joined", both).await;
    fleet.stop("java-1").await;
    fleet.load.until_rows("the library worker has stopped", all("ours-1")).await;
    fleet.all_seen_few_twice().await;
    fleet.stop_all().await;
}
