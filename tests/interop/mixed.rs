//! Two of ours and two of Java's on one table: they share, take over from each other, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::java::{COMMON, JAVA_2, JAVA_3, Java, Peer, properties};
use crate::rig::*;

type Rows = BTreeMap<String, BTreeMap<String, AttributeValue>>;

/// The longest that a change takes to settle: Java's workers steal one lease in six seconds here, and need
/// twice that to see that a lease stands still.
const SETTLE: Duration = Duration::from_secs(120);

fn text<'a>(row: &'a BTreeMap<String, AttributeValue>, name: &str) -> Option<&'a str> {
    row.get(name).and_then(|value| value.as_s().ok()).map(String::as_str)
}

/// Leases by owner; nobody's under "". Those of finished shards count, as they do in Java: its workers keep
/// theirs for five minutes and take no others for them. Ours go after a minute.
pub fn shares(rows: &Rows) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for row in rows.values().filter(|row| row.contains_key("leaseCounter")) {
        *shares.entry(text(row, "leaseOwner").unwrap_or_default().to_owned()).or_default() += 1;
    }
    shares
}

/// All leases are with these workers, nobody has over one more than another.
pub fn even(rows: &Rows, workers: &[&str]) -> bool {
    let shares = shares(rows);
    let all: usize = shares.values().sum();
    let of = |worker: &&str| shares.get(*worker).copied().unwrap_or(0);
    let counts: Vec<usize> = workers.iter().map(of).collect();
    all > 0
        && counts.iter().sum::<usize>() == all
        && counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
}

/// One stream under load, with everything that was put and seen.
pub struct Load {
    pub rig: Rig,
    put: usize,
    checkpoints: BTreeMap<String, String>,
}

impl Load {
    pub fn new(rig: Rig) -> Self {
        Self { rig, put: 0, checkpoints: BTreeMap::new() }
    }

    pub async fn put(&mut self, count: usize) {
        let records: Vec<_> =
            (self.put..self.put + count).map(|n| (format!("key-{n}"), vec![b'x'; 20])).collect();
        self.rig.put(&records).await;
        self.put += count;
    }

    /// Puts records until a condition on the table holds, and no checkpoint ever goes back.
    pub async fn until(&mut self, what: &str, reached: impl Fn(&Rows) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            self.put(4).await;
            self.drain();
            let made =
                self.rig.clients.dynamodb.describe_table().table_name(APPLICATION).send().await.is_ok();
            let rows = if made { self.rig.rows().await } else { Rows::new() };
            self.watch(&rows);
            if !rows.is_empty() && reached(&rows) {
                eprintln!("{what}: {:.1} s, {:?}", start.elapsed().as_secs_f64(), shares(&rows));
                return start.elapsed();
            }
            assert!(
                start.elapsed() < SETTLE,
                "{what}: not within {SETTLE:?}: {:?}\n{}",
                shares(&rows),
                self.rig.daemon_log()
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Nothing is put: the fleet is at rest.
    pub async fn settle(&mut self, reached: impl Fn(&Rows) -> bool) {
        let start = Instant::now();
        loop {
            let made =
                self.rig.clients.dynamodb.describe_table().table_name(APPLICATION).send().await.is_ok();
            if made && reached(&self.rig.rows().await) {
                return;
            }
            assert!(start.elapsed() < SETTLE * 3, "not settled");
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Shares are even.
    pub async fn settled(&mut self, what: &str, workers: &[&str]) {
        self.until(what, |rows| even(rows, workers)).await;
    }

    fn drain(&mut self) {
        while let Ok(report) = self.rig.reports.try_recv() {
            self.rig.log.push(report);
        }
    }

    fn watch(&mut self, rows: &Rows) {
        let rank = |text: &str| match text {
            "TRIM_HORIZON" => (0, 0, String::new()),
            "SHARD_END" => (2, 0, String::new()),
            number => (1, number.len(), number.to_owned()),
        };
        for (shard, row) in rows.iter().filter(|(_, row)| row.contains_key("leaseCounter")) {
            let now = text(row, "checkpoint").unwrap();
            if let Some(before) = self.checkpoints.insert(shard.clone(), now.to_owned()) {
                assert!(rank(&before) <= rank(now), "the checkpoint of {shard} went from {before} to {now}");
            }
        }
    }

    /// Every record came, in order to each child; and how many came in all.
    pub async fn all_seen(&mut self) -> (usize, usize) {
        let put = self.put;
        let mut keys = BTreeSet::new();
        let mut next = 0;
        self.rig
            .until("every record", |log| {
                for report in &log[next..] {
                    keys.extend(keys_of(report));
                }
                next = log.len();
                keys.len() == put
            })
            .await;
        assert_in_order(&self.rig.log);
        (put, count(&self.rig.log))
    }
}

fn keys_of(report: &Report) -> Vec<String> {
    match report {
        Report::Said { what, body, .. } if what == "processRecords" => {
            let records = body["records"].as_array().unwrap().iter();
            records.map(|record| record["partitionKey"].as_str().unwrap().to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

fn ours(load: &Load, peer: Peer, worker: &str) -> Daemon {
    let file = properties(&load.rig, worker, &format!("{COMMON}{}", peer.mode()));
    load.rig.daemon(&file)
}

fn java(load: &Load, peer: Peer, worker: &str) -> Java {
    Java::start(&load.rig, peer, worker, COMMON)
}

async fn mixed(peer: Peer, name: &str, java_first: bool) {
    let _turn = crate::TURN.lock().await;
    let rig = Rig::start(name).await;
    rig.stream(8).await;
    let mut load = Load::new(rig);
    load.put(100).await;
    let (mut a, mut b, mut j, mut k);
    if java_first {
        (j, k) = (java(&load, peer, "java-1"), java(&load, peer, "java-2"));
        load.settled("Java has all", &["java-1", "java-2"]).await;
        (a, b) = (ours(&load, peer, "ours-1"), ours(&load, peer, "ours-2"));
    } else {
        (a, b) = (ours(&load, peer, "ours-1"), ours(&load, peer, "ours-2"));
        load.settled("ours have all", &["ours-1", "ours-2"]).await;
        (j, k) = (java(&load, peer, "java-1"), java(&load, peer, "java-2"));
    }
    let all = ["ours-1", "ours-2", "java-1", "java-2"];
    load.settled("the others have joined", &all).await;
    load.put(4_000).await;
    // Read at rest: the claim about duplicates is about changes of hands, not about what a batch holds.
    load.all_seen().await;

    j.end(Signal::TERM).await;
    load.settled("one of Java's was stopped", &["ours-1", "ours-2", "java-2"]).await;
    assert_eq!(b.stop().await, Some(0));
    load.settled("one of ours was stopped", &["ours-1", "java-2"]).await;
    b = ours(&load, peer, "ours-2");
    j = java(&load, peer, "java-1");
    load.settled("both are back", &all).await;

    k.end(Signal::KILL).await;
    load.settled("one of Java's was killed", &["ours-1", "ours-2", "java-1"]).await;
    a.signal(Signal::KILL);
    a.ended().await;
    load.settled("one of ours was killed", &["ours-2", "java-1"]).await;
    a = ours(&load, peer, "ours-1");
    k = java(&load, peer, "java-2");
    load.settled("both are back again", &all).await;

    reshard(&load.rig).await;
    load.until("the new shards are read", |rows| {
        let begun = |row: &BTreeMap<_, _>| text(row, "checkpoint").is_some_and(|at| at != "TRIM_HORIZON");
        rows.values().filter(|row| row.contains_key("parentShardId")).filter(|row| begun(row)).count() == 3
    })
    .await;
    load.settled("shares are even after splitting and merging", &all).await;
    load.put(4_000).await;
    let (put, delivered) = load.all_seen().await;
    eprintln!("{peer:?}: {put} records, {delivered} deliveries");
    assert!(delivered * 100 <= put * 105, "{delivered} deliveries of {put} records");
    assert_eq!((a.stop().await, b.stop().await), (Some(0), Some(0)));
    j.end(Signal::TERM).await;
    k.end(Signal::TERM).await;
}

/// One shard split, two others merged.
async fn reshard(rig: &Rig) {
    let kinesis = &rig.clients.kinesis;
    let split = kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 120).to_string()).send().await.unwrap();
    let merge = kinesis.merge_shards().stream_name(STREAM).shard_to_merge("shardId-000000000004");
    merge.adjacent_shard_to_merge("shardId-000000000005").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn java_2_joins_a_fleet_of_ours() {
    mixed(JAVA_2, "java-2-joins", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_join_a_fleet_of_java_2() {
    mixed(JAVA_2, "ours-join-2", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_3_in_its_compatible_mode_joins_a_fleet_of_ours() {
    mixed(JAVA_3, "java-3-joins", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_join_a_fleet_of_java_3_in_its_compatible_mode() {
    mixed(JAVA_3, "ours-join-3", true).await;
}
