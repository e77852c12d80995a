//! How fast one busy shard is read among idle ones, and when the largest records arrive; all settings at their defaults.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use tokio::time::sleep;

use crate::process::Daemon;
use crate::world::{STREAM, World, now};

/// Kinesis sends at most 2 MB/s of one shard: more than this is no bottleneck of the daemon.
const DATA: usize = 40_000_000;
/// Bytes of the largest record: `UpdateMaxRecordSize` allows no more.
const LARGEST: usize = 10 * 1024 * 1024;
const MODES: [(&str, &str); 2] =
    [("polled", "retrievalMode = POLLING\n"), ("subscribed", "retrievalMode = FANOUT\n")];
/// Each lease takes some open files, and the earlier build does not raise its limit.
const EARLIER_LEASES: i32 = 64;

pub async fn drain() {
    println!("\n## drain: MB/s of one busy shard with 40 MB in records of 10 KB, all other shards idle\n");
    println!("| leases | daemon | polled | subscribed |\n|---|---|---|---|");
    for leases in [1, 16, 64, 256, 1_000] {
        for daemon in Daemon::builds() {
            if daemon == Daemon::Earlier && leases > EARLIER_LEASES {
                continue;
            }
            let mut rates = Vec::new();
            for (_, more) in MODES {
                rates.push(rate(leases, daemon, more).await);
            }
            println!("| {leases} | {} | {:.1} | {:.1} |", daemon.name(), rates[0], rates[1]);
        }
    }
}

/// From the first put of the data until the shard has ended, once all children run.
async fn rate(leases: i32, daemon: Daemon, more: &str) -> f64 {
    let mut world = World::new(leases).await;
    let file = world.file("drain", "", more);
    let running = daemon.start(&file);
    world.wait_for("begun", usize::try_from(leases).unwrap()).await;
    // The first read of each shard is over.
    sleep(Duration::from_secs(5)).await;
    let started = now();
    world.put(DATA, 10_000, 1).await;
    world.split(1).await;
    let (_, last) = world.wait_for("last", 1).await;
    running.stop().await;
    DATA as f64 / 1e6 / (last - started).as_secs_f64()
}

pub async fn large() {
    println!(
        "\n## large: seconds from the put, 32 shards with a record of 10 MiB each and a small one behind it\n"
    );
    println!("| daemon | retrieval | first record | last small record |\n|---|---|---|---|");
    for daemon in Daemon::builds() {
        for (retrieval, more) in MODES {
            let mut world = World::new(32).await;
            world.allow_large_records().await;
            let file = world.file("large", "count", more);
            let running = daemon.start(&file);
            world.wait_for("begun", 32).await;
            sleep(Duration::from_secs(5)).await;
            let started = now();
            let mut put = started;
            for shard in 0..32 {
                for size in [LARGEST - 10, 100] {
                    let hash = (u128::MAX / 32 * shard + 1).to_string();
                    let call = world.clients.kinesis.put_record().stream_name(STREAM).partition_key("k");
                    call.explicit_hash_key(hash).data(Blob::new(vec![7; size])).send().await.unwrap();
                }
                put = now();
            }
            let (first, last) = world.wait_for("record", 64).await;
            println!(
                "| {} | {retrieval} | {:.1} | {:.1} |",
                daemon.name(),
                first.saturating_sub(started).as_secs_f64(),
                last.saturating_sub(put).as_secs_f64()
            );
            running.stop().await;
        }
    }
}
