//! A worker that uses the KCL library 3.5.1 (`worker/Worker.java`), alone. With our workers it is in `matrix.rs` and
//! `table_migration.rs`.
//!
//! A scenario starts one as it starts any Java worker: `Fleet::new(load, LIBRARY_LED, lines)`, then
//! `fleet.java(name)`. The worker reads the same properties file as the MultiLangDaemon and reports to the rig as
//! the scripted children do, so that `Load` checks its records, too. Its `initialize` reports also hold the worker
//! and the stream.

use crate::fleet::{Fleet, all_have};
use crate::java::LIBRARY_LED;
use crate::load::{Load, Rows};
use crate::rig::{Report, said};

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
