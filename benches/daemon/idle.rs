//! Resources that an idle daemon and a daemon with stuck children need, and the time until the first record.

use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::process::{Daemon, Running};
use crate::world::{World, now};

const MINUTE: Duration = Duration::from_secs(60);
/// Shards that make as many child processes.
const MANY: i32 = 1_000;

/// Measures the time from the start of the process to the first record at a child.
pub async fn first() {
    println!("\n## first: seconds from the start of the process to the first record, 4 shards\n");
    println!("| daemon | new table | its table exists |\n|---|---|---|");
    for daemon in Daemon::all() {
        let mut world = World::new(4).await;
        world.fill(40_000, 100).await;
        let mut took = Vec::new();
        for _ in 0..2 {
            let file = world.file(&format!("{daemon:?}"), "", "maxRecords = 1000\n");
            world.discard_reports();
            let started = now();
            let running = daemon.start(&file);
            let (first, _) = world.wait_for("first", 1).await;
            took.push((first - started).as_secs_f64());
            running.stop().await;
        }
        println!("| {} | {:.2} | {:.2} |", daemon.name(), took[0], took[1]);
    }
}

/// Measures memory, threads and CPU of a daemon without records to process. `only` selects the cases with that
/// number of shards or that retrieval; [`MANY`] shards are measured only if it names them, without Java.
pub async fn idle(only: &str) {
    println!("\n## idle: one minute without new records\n");
    println!("| shards | retrieval | daemon | MiB | threads | CPU seconds |\n|---|---|---|---|---|---|");
    let cases = [
        (4, "polled", "retrievalMode = POLLING\n"),
        (4, "subscribed", "retrievalMode = FANOUT\n"),
        (32, "polled", "retrievalMode = POLLING\n"),
        (32, "subscribed", "retrievalMode = FANOUT\n"),
        (MANY, "polled", "retrievalMode = POLLING\n"),
        (MANY, "subscribed", "retrievalMode = FANOUT\n"),
    ];
    let is_chosen = |shards: i32, retrieval: &str| {
        let is_asked_for = shards != MANY || only.split('-').any(|word| word == MANY.to_string());
        is_asked_for
            && only.split('-').all(|word| word.is_empty() || word == retrieval || word == shards.to_string())
    };
    for (shards, retrieval, more) in cases.into_iter().filter(|case| is_chosen(case.0, case.1)) {
        for daemon in if shards == MANY { Daemon::builds() } else { Daemon::all() } {
            let mut world = World::new(shards).await;
            // One record per shard shows that all of them are read.
            world.fill(1_600 * 16, 100).await;
            let file = world.file(&format!("{daemon:?}"), "", more);
            let running = daemon.start(&file);
            world.wait_for("first", usize::try_from(shards.min(16)).unwrap()).await;
            // The children of many shards start a few at a time.
            sleep(if shards == MANY { MINUTE } else { Duration::from_secs(10) }).await;
            let before = running.cpu_seconds();
            sleep(MINUTE).await;
            println!(
                "| {shards} | {retrieval} | {} | {} | {} | {:.2} |",
                daemon.name(),
                running.status("VmRSS") / 1024,
                running.status("Threads"),
                running.cpu_seconds() - before
            );
            running.stop().await;
        }
    }
}

/// Measures the daemon's memory with 1,000 idle leases and with children that do not read or answer.
pub async fn memory() {
    println!("\n## memory: MiB of the daemon\n");
    println!("| load | at rest | peak |\n|---|---|---|");
    let start = |file: &std::path::Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("without-processes").arg(file);
        Running::spawn(command, &file.with_extension("log"))
    };
    for (how, more) in [("polled", "maxRecords = 10000\n"), ("pushed", "retrievalMode = FANOUT\n")] {
        let mut world = World::new(1_000).await;
        let file = world.file("without-processes", "", more);
        let running = start(&file);
        wait_for_owners(&world, "without-processes", 1_000).await;
        sleep(MINUTE).await;
        println!(
            "| 1,000 idle shards, {how}, without child processes | {} | {} |",
            running.status("VmRSS") / 1024,
            running.status("VmHWM") / 1024
        );
        running.stop().await;
    }
    for (word, what) in [("stuck", "never answer"), ("unread", "do not read")] {
        for (how, more) in [("polled", "maxRecords = 10000\n"), ("pushed", "retrievalMode = FANOUT\n")] {
            let mut world = World::new(4).await;
            world.fill(512_000_000, 10_000).await;
            let application = format!("{word}-{how}");
            let file = world.file(&application, word, &format!("{more}multilangd.bufferMegabytes = 32\n"));
            let running = Daemon::Ours.start(&file);
            world.wait_for("first", 4).await;
            sleep(Duration::from_secs(45)).await;
            println!(
                "| 4 shards with 512 MB, {how}, children that {what}, bufferMegabytes = 32 | {} | {} |",
                running.status("VmRSS") / 1024,
                running.status("VmHWM") / 1024
            );
            running.stop().await;
        }
    }
}

/// Waits until at least `count` leases of the table have an owner.
async fn wait_for_owners(world: &World, table: &str, count: usize) {
    let limit = Instant::now() + 5 * MINUTE;
    loop {
        sleep(Duration::from_secs(1)).await;
        let rows = world.clients.dynamodb.scan().table_name(table).into_paginator().items().send();
        let mut rows = rows;
        let mut owned = 0;
        while let Some(Ok(row)) = rows.next().await {
            owned += usize::from(row.contains_key("leaseOwner") && row.contains_key("checkpoint"));
        }
        if owned >= count {
            return;
        }
        assert!(Instant::now() < limit, "{owned} of {count} leases have an owner");
    }
}
