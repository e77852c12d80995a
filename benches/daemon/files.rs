//! The cost of several applications: in one process, and in a process each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::process::{Daemon, Running};
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

/// Measures an idle minute of `count` applications, with one polled shard each, beside one application.
pub async fn files(count: usize) {
    println!("\n## files: one minute without new records, one polled shard for each application\n");
    println!(
        "| applications | processes | RSS, MiB | PSS, MiB | threads | CPU seconds | calls of DynamoDB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (applications, processes) in [(1, 1), (count, 1), (count, count)] {
        let mut world = World::new(1).await;
        let mut written = Vec::new();
        for number in 0..applications {
            written.push(write(&mut world, number).await);
        }
        let running: Vec<(Running, PathBuf)> = if processes == 1 {
            let log = world.folder.join("all.log");
            vec![(Daemon::Ours.start_on(&written, &log), log)]
        } else {
            let one = |file: &PathBuf| {
                let log = file.with_extension("log");
                (Daemon::Ours.start_on(std::slice::from_ref(file), &log), log)
            };
            written.iter().map(one).collect()
        };
        world.wait_for("first", applications).await;
        sleep(Duration::from_secs(20)).await;
        let cpu =
            |running: &[(Running, PathBuf)]| running.iter().map(|(one, _)| one.cpu_seconds()).sum::<f64>();
        let (before, calls_before) = (cpu(&running), calls(&running).await);
        sleep(MINUTE).await;
        let (after, calls_after) = (cpu(&running), calls(&running).await);
        let sum = |name: &str| running.iter().map(|(one, _)| one.status(name)).sum::<u64>();
        let pss: u64 = running.iter().map(|(one, _)| one.pss()).sum();
        println!(
            "| {applications} | {processes} | {} | {} | {} | {:.2} | {} |",
            sum("VmRSS") / 1024,
            pss / 1024,
            sum("Threads"),
            after - before,
            calls_after - calls_before
        );
        for (one, _) in running {
            one.stop().await;
        }
    }
}

/// Creates a stream with one record, and writes the properties file of its application.
async fn write(world: &mut World, number: usize) -> PathBuf {
    let stream = format!("bench-{number}");
    let kinesis = &world.clients.kinesis;
    kinesis.create_stream().stream_name(&stream).shard_count(1).send().await.unwrap();
    let put = kinesis.put_record().stream_name(&stream).partition_key("k");
    put.data(Blob::new(b"record".to_vec())).send().await.unwrap();
    // The key that stands last takes precedence.
    let more = format!("retrievalMode = POLLING\nstreamName = {stream}\nmultilangd.status = 127.0.0.1:0\n");
    world.file(&stream, "", &more)
}

/// The calls of DynamoDB so far, by the metrics of the daemons.
async fn calls(running: &[(Running, PathBuf)]) -> u64 {
    let mut all = 0;
    for (_, log) in running {
        let metrics = metrics(&address(log).await).await;
        let lines = metrics.lines().filter(|line| {
            line.starts_with("multilangd_calls_total{") && line.contains("service=\"DynamoDB\"")
        });
        all += lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>();
    }
    all
}

/// The address of a status page, as its daemon logged it.
async fn address(log: &Path) -> String {
    let limit = Instant::now() + MINUTE;
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        if let Some((_, rest)) = text.split_once("url=http://") {
            return rest.split('/').next().unwrap().to_owned();
        }
        assert!(Instant::now() < limit, "no status page in {text}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
