//! Shards whose record processors fail repeatedly are parked: other shards and other workers are not affected,
//! and a parked shard recovers by itself once its program works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use serde_json::Value;
use tokio::time::Instant;

use crate::rig::*;
use crate::status::{get, metric, until};

const SHARDS: u128 = 8;
/// The maximum time from the put of a record to its delivery in a shard that is not parked.
pub const GAP: Duration = Duration::from_secs(2);

pub fn shard(n: u128) -> String {
    format!("shardId-{n:012}")
}

pub async fn put_to(rig: &Rig, n: u128, data: &[u8]) -> String {
    let put = rig.clients.kinesis.put_record().stream_name(STREAM).partition_key("k").data(Blob::new(data));
    let key = (u128::MAX / SHARDS) * n + 1_000;
    put.explicit_hash_key(key.to_string()).send().await.unwrap().sequence_number().to_owned()
}

/// Puts a record into each of those shards, and returns the time until all were delivered.
pub async fn round(rig: &mut Rig, shards: &[u128]) -> Duration {
    let start = Instant::now();
    let mut wanted = BTreeMap::new();
    for n in shards {
        wanted.insert(shard(*n), put_to(rig, *n, b"fine").await);
    }
    rig.until("a record of each healthy shard", |log| {
        let seen = records(log);
        wanted.iter().all(|(shard, sequence)| {
            seen.get(shard).is_some_and(|seen| seen.iter().any(|record| record.sequence == *sequence))
        })
    })
    .await;
    start.elapsed()
}

pub struct Worker {
    pub daemon: Daemon,
    pub address: String,
}

/// Starts a worker with its own log file and status page.
pub async fn worker(rig: &Rig, name: &str, file: &std::path::Path) -> Worker {
    let path = rig.folder.join(format!("{name}.log"));
    let output = std::fs::File::create(&path).unwrap();
    let mut daemon = rig.command_to(&["--properties-file", file.to_str().unwrap()], output.into());
    daemon.stderr = path;
    let address = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            if let Some(line) = logged(&daemon.stderr, "status_page_started").first() {
                return address_of(line);
            }
        }
    };
    let address = tokio::time::timeout(LIMIT, address).await.expect("a status page");
    Worker { daemon, address }
}

/// The parked shards of all workers, with their status.
pub async fn parked(workers: &[Worker]) -> BTreeMap<String, Value> {
    let mut parked = BTreeMap::new();
    for worker in workers {
        let status = crate::status::status(&worker.address).await;
        for shard in status["shards"].as_array().unwrap() {
            if shard["state"] == "parked" {
                parked.insert(shard["shard"].as_str().unwrap().to_owned(), shard.clone());
            }
        }
    }
    parked
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_shards_are_parked_while_other_shards_continue() {
    let mut rig = Rig::start("parked").await;
    rig.stream(8).await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    // The test removes the interpreter of the program later.
    let (fixed, interpreter) = (rig.folder.join("fixed"), rig.folder.join("interpreter"));
    let program = rig.folder.join("program");
    let script = rig.scripted(&format!("each poison={0} no-end={0}", fixed.display()));
    std::fs::write(&program, format!("#!{}\nexec {script}\n", interpreter.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/bin/sh", &interpreter).unwrap();
    let more = "failoverTimeMillis = 3000\ntaskBackoffTimeMillis = 50\nmultilangd.maxParkedPauseMillis = 1000\n\
                multilangd.status = 0\n";
    let file = rig.properties(program.to_str().unwrap(), more);
    let mut workers = Vec::new();
    for name in ["one", "two", "three"] {
        workers.push(worker(&rig, name, &file).await);
    }
    round(&mut rig, &[0, 1, 2, 3, 4, 5, 6, 7]).await;
    // A lease that moves after its shard was parked is reported by its next owner, too: first each has its share.
    for worker in &workers {
        until(&worker.address, "two shards of each worker", |status| {
            status["shards"].as_array().unwrap().len() >= 2
        })
        .await;
    }

    // One record that no child can process, one shard whose end is not checkpointed, and one whose program
    // cannot be run.
    put_to(&rig, 1, b"poison").await;
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard(0));
    split.new_starting_hash_key((u128::MAX / SHARDS / 2).to_string()).send().await.unwrap();
    let healthy = [2, 3, 4, 5, 6, 7];
    let mut largest = Duration::ZERO;
    while parked(&workers).await.len() < 2 {
        largest = largest.max(round(&mut rig, &healthy).await);
    }
    std::fs::remove_file(&interpreter).unwrap();
    let child = |log: &[Report]| {
        let said = log.iter().rev().find_map(|report| match report {
            Report::Said { pid, shard: of, .. } if *of == shard(2) => Some(*pid),
            _ => None,
        });
        said.unwrap()
    };
    end(child(&rig.log));
    let healthy = [3, 4, 5, 6, 7];
    while parked(&workers).await.len() < 3 {
        largest = largest.max(round(&mut rig, &healthy).await);
    }
    for _ in 0..10 {
        largest = largest.max(round(&mut rig, &healthy).await);
    }
    eprintln!("largest gap of the healthy shards: {largest:?}");
    assert!(largest < GAP, "{largest:?}");

    // Each parked shard appears on the status page, in the metrics and in the log.
    let shown = parked(&workers).await;
    assert_eq!(shown.keys().cloned().collect::<Vec<_>>(), [shard(0), shard(1), shard(2)]);
    let poisoned = &shown[&shard(1)];
    assert!(poisoned["reason"].as_str().unwrap().len() > 20, "{poisoned:#}");
    let mut metrics = 0.0;
    let mut reported = BTreeSet::new();
    for worker in &workers {
        let text = get(&worker.address, "/metrics").await;
        metrics += metric(&text, "multilangd_shards_parked ");
        assert!(get(&worker.address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let errors = logged(&worker.daemon.stderr, "shard_parked");
        assert!(errors.iter().all(|line| line["level"] == "ERROR"), "{errors:#?}");
        let mut of_worker: Vec<_> =
            errors.iter().map(|line| line["shard"].as_str().unwrap_or_default().to_owned()).collect();
        let count = of_worker.len();
        of_worker.sort();
        of_worker.dedup();
        assert_eq!(of_worker.len(), count, "one error for each parked shard: {errors:#?}");
        reported.extend(of_worker);
        let of_poison = errors.iter().filter(|line| line["shard"] == shard(1).as_str());
        for line in of_poison {
            assert_eq!(line["stderr"], "ValueError: cannot parse poison", "{line}");
        }
    }
    assert_eq!(reported, BTreeSet::from([shard(0), shard(1), shard(2)]));
    assert!((metrics - 3.0).abs() < 0.1, "{metrics}");

    // The program works again.
    std::os::unix::fs::symlink("/bin/sh", &interpreter).unwrap();
    std::fs::write(&fixed, "").unwrap();
    round(&mut rig, &[1, 2, 3, 4, 5, 6, 7]).await;
    rig.until("the children of the shard that was split", |log| {
        let shards: Vec<_> = said(log, "initialize").into_iter().collect();
        [8, 9].iter().all(|n| shards.contains(&shard(*n).as_str()))
    })
    .await;
    for worker in &workers {
        until(&worker.address, "no parked shard", |status| {
            status["shards"].as_array().unwrap().iter().all(|shard| shard["state"] != "parked")
        })
        .await;
    }
    for worker in &mut workers {
        assert_eq!(worker.daemon.stop().await, Some(0), "no worker has exited");
    }
}

/// Kills a child of a daemon of this test, by its pid.
pub fn end(pid: i32) {
    assert!(pid > 1);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn never_working_program_ends_the_daemon_with_stderr_line() {
    let rig = Rig::start("never-worked").await;
    rig.stream(3).await;
    let script = rig.folder.join("broken.py");
    std::fs::write(&script, "import no_such_module\n").unwrap();
    let file = rig.properties(&format!("python3 -S -E {}", script.display()), "taskBackoffTimeMillis = 20\n");
    let mut daemon = rig.daemon(&file);
    assert_eq!(daemon.ended().await.code(), Some(1));
    assert!(fatal_error(&daemon).contains("ModuleNotFoundError"), "{}", rig.daemon_log());
    let parked = logged(&daemon.stderr, "shard_parked");
    assert_eq!(parked.len(), 3, "each shard was tried and parked: {}", rig.daemon_log());
    assert!(parked.iter().all(|line| line["stderr"].as_str().unwrap().contains("ModuleNotFoundError")));
}
