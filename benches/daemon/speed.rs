//! Throughput of record data through the daemon, compared with a ceiling.

use tokio::process::Command;

use crate::process::{Daemon, Running};
use crate::wire::Wire;
use crate::world::{STREAM, World};

pub const SHARDS: usize = 4;
const REPEATS: usize = 3;
/// Label, record size in bytes, and total record data in bytes.
const SIZES: [(&str, usize, usize); 3] =
    [("1 KB", 1_000, 1_024_000_000), ("100 KB", 100_000, 2_048_000_000), ("100 B", 100, 384_000_000)];
pub const MODES: [(&str, &str); 2] = [
    ("pushed", "retrievalMode = FANOUT\n"),
    ("polled", "idleTimeBetweenReadsInMillis = 200\nmultilangd.idleWhenBehindMillis = 0\n"),
];

/// The result of one run.
pub struct Run {
    pub seconds: f64,
    pub cpu: f64,
    peak: u64,
}

/// Measures throughput; `only` restricts it to one record size, such as `100B`.
pub async fn speed(only: &str) {
    println!("\n## speed: 4 shards, children that only answer; MB of decoded record data\n");
    println!("| record | reader | MB/s | of the ceiling | CPU s/GB | peak MiB |");
    println!("|---|---|---|---|---|---|");
    for (label, size, bytes) in SIZES {
        if !only.is_empty() && label.replace(' ', "") != only {
            continue;
        }
        let mut world = World::new(i32::try_from(SHARDS).unwrap()).await;
        world.fill(bytes, size).await;
        let shards = world.close().await;
        let megabytes = (bytes / size * size) as f64 / 1e6;
        let row = |name: &str, result: &Run, ceiling: Option<f64>| {
            let rate = megabytes / result.seconds;
            let ceiling = ceiling.unwrap_or(rate);
            println!(
                "| {label} | {name} | {rate:.0} | {:.2} | {:.1} | {} |",
                rate / ceiling,
                result.cpu / megabytes * 1e3,
                result.peak / 1024
            );
            rate
        };
        for (how, more) in MODES {
            let mut runs = Vec::new();
            for number in 0..REPEATS {
                runs.push(raw(&mut world, how, number, &shards).await);
            }
            let ceiling = row(&format!("raw, {how}: the ceiling"), median(&mut runs), None);
            for daemon in Daemon::all() {
                let mut runs = Vec::new();
                // A start of Java takes minutes.
                for number in 0..if daemon == Daemon::Java { 1 } else { REPEATS } {
                    let file = world.file(&format!("{daemon:?}-{how}-{number}"), "", more);
                    runs.push(through(&mut world, daemon.start(&file)).await);
                }
                row(&format!("{}, {how}", daemon.name()), median(&mut runs), Some(ceiling));
            }
        }
    }
}

/// Measures multilangd over plain HTTP and over TLS with HTTP/2.
pub async fn tls() {
    println!("\n## tls: throughput over plain HTTP and over TLS with HTTP/2\n");
    println!("| record | transport | MB/s | CPU s/GB | connections | peak MiB |");
    println!("|---|---|---|---|---|---|");
    for (label, size, bytes) in SIZES {
        let mut world = World::new(i32::try_from(SHARDS).unwrap()).await;
        world.fill(bytes, size).await;
        world.close().await;
        let address = world.kinesis.address().to_string();
        let megabytes = (bytes / size * size) as f64 / 1e6;
        for (how, more) in MODES {
            for way in ["bare", "TLS"] {
                let wire =
                    if way == "TLS" { Wire::over_tls(&address).await } else { Wire::to(&address).await };
                world.url = wire.url.clone();
                let mut runs = Vec::new();
                for number in 0..REPEATS {
                    let file = world.file(&format!("{way}-{how}-{number}"), "", more);
                    runs.push(through(&mut world, Daemon::Ours.start(&file)).await);
                }
                let result = median(&mut runs);
                println!(
                    "| {label} | {how}, {way} | {:.0} | {:.1} | {} | {} |",
                    megabytes / result.seconds,
                    result.cpu / megabytes * 1e3,
                    wire.connections.borrow().0 / REPEATS,
                    result.peak / 1024
                );
            }
        }
    }
}

/// The run with the median duration.
fn median(runs: &mut [Run]) -> &Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    &runs[runs.len() / 2]
}

/// Runs the raw reader, which sets the ceiling.
async fn raw(world: &mut World, how: &str, number: usize, shards: &[String]) -> Run {
    let what =
        if how == "pushed" { world.consumer(&format!("raw-{number}")).await } else { STREAM.to_owned() };
    let mut command = Command::new(std::env::current_exe().unwrap());
    let address = world.kinesis.address().to_string();
    command.args(["raw", how, &address, &what, &world.port.to_string()]).args(shards);
    let log = world.folder.join("raw.log");
    through(world, Running::spawn(command, &log)).await
}

/// Measures from the first record at any child to the last record at the last child.
pub async fn through(world: &mut World, running: Running) -> Run {
    world.discard_reports();
    // The children report this before the daemon reads any record.
    world.wait_for("begun", 1).await;
    let before = running.cpu_seconds();
    let (first, _) = world.wait_for("first", 1).await;
    let (_, last) = world.wait_for("last", SHARDS).await;
    let cpu = running.cpu_seconds() - before;
    let result = Run { seconds: (last - first).as_secs_f64(), cpu, peak: running.status("VmHWM") };
    running.stop().await;
    result
}
