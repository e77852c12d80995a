//! What a daemon needs that has nothing to do, or whose children are stuck; and how soon it begins.

use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::process::{Daemon, Running};
use crate::world::{World, now};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn first() {
    println!("\n## first: seconds from the start of the process to the first record, 4 shards\n");
    println!("| daemon | new table | its table exists |\n|---|---|---|");
    for daemon in Daemon::all() {
        let mut world = World::new(4).await;
        world.fill(40_000, 100).await;
        let mut took = Vec::new();
        for _ in 0..2 {
            let file = world.file(&format!("{daemon:?}"), "", "maxRecords = 1000\n");
            world.forget();
            let started = now();
            let running = daemon.start(&file);
            let (first, _) = world.heard("first", 1).await;
            took.push((first - started).as_secs_f64());
            running.stop().await;
        }
        println!("| {} | {:.2} | {:.2} |", daemon.name(), took[0], took[1]);
    }
}

pub async fn idle() {
    println!("\n## idle: a minute of nothing\n");
    println!("| shards | retrieval | daemon | MiB | threads | CPU seconds |\n|---|---|---|---|---|---|");
    for (shards, retrieval, more) in [
        (4, "polled", "retrievalMode = POLLING\n"),
        (4, "subscribed", "retrievalMode = FANOUT\n"),
        (32, "polled", "retrievalMode = POLLING\n"),
        (32, "subscribed", "retrievalMode = FANOUT\n"),
    ] {
        for daemon in Daemon::all() {
            let mut world = World::new(shards).await;
            // One record a shard shows that it is read.
            world.fill(1_600 * 16, 100).await;
            let file = world.file(&format!("{daemon:?}"), "", more);
            let running = daemon.start(&file);
            world.heard("first", usize::try_from(shards.min(16)).unwrap()).await;
            sleep(Duration::from_secs(10)).await;
            let before = running.processor();
            sleep(MINUTE).await;
            println!(
                "| {shards} | {retrieval} | {} | {} | {} | {:.2} |",
                daemon.name(),
                running.status("VmRSS") / 1024,
                running.status("Threads"),
                running.processor() - before
            );
            running.stop().await;
        }
    }
}

pub async fn memory() {
    println!("\n## memory: MiB of the daemon\n");
    println!("| what | at rest | peak |\n|---|---|---|");
    let hollow = |file: &std::path::Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("hollow").arg(file);
        Running::spawn(command, &file.with_extension("log"))
    };
    for (how, more) in [("polled", "maxRecords = 10000\n"), ("pushed", "retrievalMode = FANOUT\n")] {
        let mut world = World::new(1_000).await;
        let file = world.file("hollow", "", more);
        let running = hollow(&file);
        held(&world, "hollow", 1_000).await;
        sleep(MINUTE).await;
        println!(
            "| 1,000 idle shards, {how}, children left out | {} | {} |",
            running.status("VmRSS") / 1024,
            running.status("VmHWM") / 1024
        );
        running.stop().await;
    }
    for (word, what) in [("stuck", "never answer"), ("deaf", "don't read")] {
        for (how, more) in [("polled", "maxRecords = 10000\n"), ("pushed", "retrievalMode = FANOUT\n")] {
            let mut world = World::new(4).await;
            world.fill(512_000_000, 10_000).await;
            let application = format!("{word}-{how}");
            let file = world.file(&application, word, &format!("{more}multilangd.bufferMegabytes = 32\n"));
            let running = Daemon::Ours.start(&file);
            world.heard("first", 4).await;
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

/// Waits until so many leases have an owner.
async fn held(world: &World, table: &str, count: usize) {
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
