//! Published MultiLang clients, unmodified, under the real binary.
//!
//! Not part of `cargo test`: the packages come from their registries.
//!
//! ```text
//! tests/clients/get-kclpy.sh DIR
//! MULTILANGD_KCLPY=DIR/amazon_kclpy-3.2.0 cargo test --test clients
//! ```
//!
//! | package | covered |
//! |---|---|
//! | PyPI amazon_kclpy 3.2.0 | 10,000 records, split and merge, SIGTERM, resume, kill -9 |
#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

#[path = "../support/rig.rs"]
mod rig;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rig::*;
use rustix::process::Signal;

fn package() -> PathBuf {
    let folder = std::env::var_os("MULTILANGD_KCLPY").map(PathBuf::from);
    let folder = folder.expect("MULTILANGD_KCLPY must name the folder that tests/clients/get-kclpy.sh made");
    assert!(folder.join("amazon_kclpy/kcl.py").is_file(), "{} holds no amazon_kclpy", folder.display());
    folder
}

async fn start(name: &str, more: &str) -> (Rig, PathBuf) {
    let mut rig = Rig::start(name).await;
    rig.environment.push(("PYTHONPATH".into(), package().into_os_string()));
    rig.stream(4).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kclpy_processor.py");
    let file = rig.properties(&format!("python3 {} {}", script.display(), rig.port()), more);
    (rig, file)
}

/// Ten thousand records: most are small, some are empty, binary, one MiB, under keys of every script.
fn everything() -> Vec<(String, Vec<u8>)> {
    let one = |n: usize| {
        let key = match n % 7 {
            0 => format!("ключ-{n}"),
            1 => format!("鍵😀-{n}"),
            2 => format!("quote\"back\\slash/{n}\u{7f}"),
            _ => format!("key-{n}"),
        };
        let data = match n % 1000 {
            1 => Vec::new(),
            2 => (0..=255).collect(),
            3 if n < 4000 => vec![u8::try_from(n % 251).unwrap(); (1 << 20) - key.len()],
            _ => format!("record {n}").into_bytes(),
        };
        (key, data)
    };
    (0..10_000).map(one).collect()
}

/// What each key's records are, in order; every key here has one.
fn by_key(records: &[(String, Vec<u8>)]) -> BTreeMap<&str, &[u8]> {
    records.iter().map(|(key, data)| (key.as_str(), data.as_slice())).collect()
}

fn assert_right_bytes_and_order(log: &[Report], put: &[(String, Vec<u8>)]) {
    let expected = by_key(put);
    for (shard, records) in records(log) {
        for record in &records {
            assert_eq!(
                expected.get(record.key.as_str()),
                Some(&record.data.as_slice()),
                "{shard} {}",
                record.key
            );
        }
    }
}

/// Nothing twice, and rising within each shard.
fn assert_each_once(log: &[Report]) {
    for (shard, records) in records(log) {
        assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "{shard}");
    }
}

async fn reshard(rig: &Rig) {
    let kinesis = &rig.clients.kinesis;
    let split = kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 125).to_string()).send().await.unwrap();
    let merge = kinesis.merge_shards().stream_name(STREAM).shard_to_merge("shardId-000000000001");
    merge.adjacent_shard_to_merge("shardId-000000000002").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kclpy_sees_ten_thousand_records_through_a_reshard_and_a_restart() {
    let (mut rig, file) = start("kclpy", "").await;
    let all = everything();
    let mut daemon = rig.daemon(&file);
    rig.put(&all[..4000]).await;
    rig.until("some records", |log| count(log) >= 1000).await;
    reshard(&rig).await;
    rig.put(&all[4000..9000]).await;
    rig.until("9000 records and three ended shards", |log| {
        count(log) >= 9000 && said(log, "shardEnded").len() == 3
    })
    .await;
    let notified = said(&rig.log, "shutdownRequested").len();
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_eq!(
        (notified, said(&rig.log, "shutdownRequested").len()),
        (0, 4),
        "each open shard's child is told"
    );
    assert_eq!(count(&rig.log), 9000);
    for (parent, child) in [("000", "004"), ("000", "005"), ("001", "006"), ("002", "006")] {
        let place = |wanted: &str, of: &str| {
            let is = |report: &Report| matches!(report, Report::Said { shard, what, .. } if shard.ends_with(of) && what == wanted);
            rig.log.iter().position(is).unwrap_or_else(|| panic!("{wanted} of {of}"))
        };
        assert!(place("shardEnded", parent) < place("initialize", child), "{child} only after {parent}");
    }

    rig.put(&all[9000..]).await;
    let mut daemon = rig.daemon(&file);
    rig.until("the last thousand", |log| count(log) >= 10_000).await;
    assert_eq!(daemon.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_eq!(count(&rig.log), 10_000, "the next start repeats nothing");
    assert_each_once(&rig.log);
    assert_right_bytes_and_order(&rig.log, &all);
    assert!(pids(&rig.log).into_iter().all(is_gone), "no orphans");
    assert!(rig.daemon_log().contains("a user's print on stdout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kclpy_sees_every_record_at_least_once_through_a_kill_of_the_daemon() {
    let (mut rig, file) = start("kclpy-kill", "failoverTimeMillis = 2000\nmaxRecords = 200\n").await;
    let all = everything();
    let mut daemon = rig.daemon(&file);
    rig.put(&all[..5000]).await;
    rig.until("some checkpoints", |log| said(log, "checkpointed").len() >= 5).await;
    reshard(&rig).await;
    daemon.signal(Signal::KILL);
    daemon.ended().await;
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert!(pids(&rig.log).into_iter().all(is_gone), "no child outlives its daemon");
    let stored: BTreeMap<String, String> = rig
        .rows()
        .await
        .into_iter()
        .map(|(shard, row)| (shard, row["checkpoint"].as_s().unwrap().clone()))
        .filter(|(_, checkpoint)| checkpoint.starts_with('4'))
        .collect();
    assert!(!stored.is_empty());

    let before = rig.log.len();
    rig.put(&all[5000..]).await;
    let mut daemon = rig.daemon(&file);
    let keys = |log: &[Report]| {
        records(log).into_values().flatten().map(|r| r.key).collect::<std::collections::HashSet<_>>()
    };
    let mut seen = keys(&rig.log);
    while seen.len() < all.len() {
        let report = rig.report().await;
        seen.extend(keys(std::slice::from_ref(&report)));
    }
    assert_eq!(daemon.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_right_bytes_and_order(&rig.log, &all);
    for (shard, records) in records(&rig.log[before..]) {
        if let Some(stored) = stored.get(&shard) {
            assert!(
                records.iter().all(|record| record.sequence > *stored),
                "{shard} repeats what was checkpointed"
            );
        }
    }
}
