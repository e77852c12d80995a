//! Workers of multilangd and Java on one table.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::java::{Java, Peer, log, properties, rewrite};
use crate::load::{Load, Rows, even, shares};
use crate::rig::{APPLICATION, Daemon, Report, STREAM, alive, is_gone, pids};

/// The default settings of all workers: short expiry times, and small batches, because a batch in flight is
/// delivered twice when its lease changes the owner.
pub const SOON: &str = "failoverTimeMillis = 3000\nshardSyncIntervalMillis = 1000\nmetricsLevel = NONE\n\
                        maxRecords = 100\nshutdownGraceMillis = 5000\n";
/// Two failover times: every worker has scanned the table by then.
const STILL: Duration = Duration::from_secs(6);

/// Some steps are made once a minute, the first time up to half a minute later.
const SEEN: Duration = Duration::from_secs(120);

enum Worker {
    Ours(Daemon),
    Java(Java),
}

pub struct Fleet {
    pub load: Load,
    pub peer: Peer,
    pub lines: String,
    /// Further lines for Java's workers.
    pub of_java: String,
    /// `multilangd.streams` of ours, in place of `streamName`.
    pub streams: Option<String>,
    workers: BTreeMap<&'static str, Worker>,
}

impl Fleet {
    pub fn new(load: Load, peer: Peer, lines: &str) -> Self {
        let workers = BTreeMap::new();
        Self { load, peer, lines: lines.to_owned(), of_java: String::new(), streams: None, workers }
    }

    /// Workers of several streams, with the identifiers of the load.
    pub fn of_several_streams(load: Load, peer: Peer, lines: &str) -> Self {
        let ids = || load.sources.iter().filter_map(|source| source.id.as_deref());
        let ours = ids().map(|id| id.split(':').nth(1).unwrap()).collect::<Vec<_>>().join(",");
        let java = ids().collect::<Vec<_>>().join(",");
        let of_java = format!("streamName = {java}\n");
        Self { of_java, streams: Some(ours), ..Self::new(load, peer, lines) }
    }

    pub fn ours(&mut self, name: &'static str) {
        let rig = &self.load.rig;
        let file = properties(rig, name, &format!("{}{}", self.lines, self.peer.ours));
        if let Some(streams) = &self.streams {
            let one = format!("streamName = {STREAM}\n");
            rewrite(rig, name, &one, &format!("multilangd.streams = {streams}\n"));
        }
        let (path, output) = log(rig, name);
        let mut daemon = rig.command_to(&["--properties-file", file.to_str().unwrap()], output.into());
        daemon.stderr = path;
        assert!(self.workers.insert(name, Worker::Ours(daemon)).is_none());
    }

    pub fn java(&mut self, name: &'static str) {
        let lines = format!("{}{}", self.lines, self.of_java);
        let java = Java::start(&self.load.rig, self.peer, name, &lines);
        assert!(self.workers.insert(name, Worker::Java(java)).is_none());
    }

    /// Sends SIGTERM and waits for the exit.
    pub async fn stop(&mut self, name: &str) {
        match self.workers.remove(name).unwrap() {
            Worker::Ours(mut daemon) => assert_eq!(daemon.stop().await, Some(0)),
            Worker::Java(mut java) => java.stop().await,
        }
    }

    /// Sends SIGKILL and waits for the exit.
    pub async fn kill(&mut self, name: &str) {
        match self.workers.remove(name).unwrap() {
            Worker::Ours(mut daemon) => {
                daemon.signal(Signal::KILL);
                daemon.ended().await;
            }
            Worker::Java(mut java) => {
                java.end(Signal::KILL).await;
            }
        }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.workers.keys().copied().collect()
    }

    /// Waits until exactly the open shards have open leases, the live workers share them evenly for a while,
    /// and records are delivered in every shard.
    pub async fn settled(&mut self, what: &str) {
        let open = self.load.open_shards().await;
        let workers = self.names();
        let mut since = None;
        self.load
            .until_rows(what, |rows| {
                let leases = || rows.iter().filter(|(_, row)| row.is_open());
                if !even(rows, &workers) || !leases().map(|(shard, _)| shard).eq(&open) {
                    since = None;
                    return false;
                }
                let (start, first) = since.get_or_insert_with(|| (Instant::now(), rows.clone()));
                if leases().any(|(shard, row)| first.get(shard).is_none_or(|first| first.owner != row.owner))
                {
                    since = None;
                    return false;
                }
                start.elapsed() >= STILL
                    && leases().all(|(shard, row)| first[shard].checkpoint != row.checkpoint)
            })
            .await;
    }

    /// Waits until every record was delivered. At most 5 in 100 may be delivered twice. Returns the number of
    /// records and of deliveries.
    pub async fn all_seen_few_twice(&mut self) -> (usize, usize) {
        let (put, delivered) = self.load.all_seen().await;
        let repeats = repeats(&self.load.rig.log);
        eprintln!("{put} records, {delivered} deliveries");
        assert!(delivered * 100 <= put * 105, "{delivered} deliveries of {put} records{repeats}");
        (put, delivered)
    }

    /// Stops all workers, and asserts that no child remains. All Java workers at once: KCL's graceful shutdown does not
    /// end while the worker acquires a lease of another one that has stopped.
    pub async fn stop_all(mut self) {
        let mut stopping = JoinSet::new();
        for (name, worker) in std::mem::take(&mut self.workers) {
            match worker {
                Worker::Java(mut java) => drop(stopping.spawn(async move { java.stop().await })),
                Worker::Ours(_) => drop(self.workers.insert(name, worker)),
            }
        }
        stopping.join_all().await;
        for name in self.names() {
            self.stop(name).await;
        }
        self.load.rig.until("all children gone", |log| alive(log) == 0).await;
        assert!(pids(&self.load.rig.log).into_iter().all(is_gone), "no child process remains");
        self.load.assert_no_checkpoint_moved_back();
    }
}

/// Whether every lease has a live owner, every worker has a lease, and no graceful handoff is in progress.
pub fn all_have(rows: &Rows, workers: &[&str]) -> bool {
    let shares = shares(rows);
    shares.keys().all(|owner| workers.contains(owner))
        && workers.iter().all(|worker| shares.contains_key(*worker))
}

/// The owner of the leader lock: in the lease table, or in the table of KCL 3.0 to 3.4.
pub async fn leader(fleet: &Fleet) -> Option<String> {
    let own = fleet.load.rig.all_rows().await.remove("Leader");
    let row = match own {
        Some(row) => row.into_iter().collect(),
        None => coordinator_row(fleet, "Leader").await?,
    };
    row.get("ownerName").map(|owner| owner.as_s().unwrap().clone())
}

/// A row of the coordinator table of KCL 3.0 to 3.4.
pub async fn coordinator_row(fleet: &Fleet, key: &str) -> Option<HashMap<String, AttributeValue>> {
    let read = fleet.load.rig.clients.dynamodb.get_item().consistent_read(true);
    let read = read.table_name(format!("{APPLICATION}-CoordinatorState"));
    match read.key("key", AttributeValue::S(key.to_owned())).send().await {
        Ok(answer) => answer.item,
        Err(error) if error.as_service_error().is_some_and(GetItemError::is_resource_not_found_exception) => {
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Waits until this is so.
pub async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    let wait = async {
        let mut ticks = interval(Duration::from_millis(500));
        while !reached().await {
            ticks.tick().await;
        }
    };
    assert!(timeout(SEEN, wait).await.is_ok(), "{what}: not within {SEEN:?}");
    eprintln!("{:6.1} s  {what}", start.elapsed().as_secs_f64());
}

/// Whether each child of a shard started at the checkpoint of the previous one, given that each batch is
/// checkpointed.
pub fn started_at_previous_checkpoints(log: &[Report]) -> bool {
    let mut last: BTreeMap<&str, String> = BTreeMap::new();
    log.iter().all(|report| {
        let Report::Said { shard, what, body, .. } = report else { return true };
        match what.as_str() {
            "initialize" => {
                let at = body["sequenceNumber"].as_str().unwrap_or_default().to_owned();
                last.insert(shard, at.clone()).is_none_or(|before| before == at)
            }
            "processRecords" => {
                let records = body["records"].as_array().unwrap();
                if let Some(at) = records.last().and_then(|record| record["sequenceNumber"].as_str()) {
                    last.insert(shard, at.to_owned());
                }
                true
            }
            _ => true,
        }
    })
}

/// The records that were delivered again, as a description for a failed assertion: a line for each shard and
/// pair of workers, in order.
fn repeats(log: &[Report]) -> String {
    let mut workers: BTreeMap<i32, &str> = BTreeMap::new();
    let mut delivered: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut lines: Vec<(String, usize)> = Vec::new();
    for report in log {
        let Report::Said { pid, shard, what, body } = report else { continue };
        if what == "initialize" {
            workers.insert(*pid, body["worker"].as_str().unwrap_or_default());
        }
        for record in body["records"].as_array().into_iter().flatten().filter(|_| what == "processRecords") {
            let worker = workers[pid];
            let sequence = record["sequenceNumber"].as_str().unwrap();
            let Some(earlier) = delivered.insert((shard, sequence), worker) else { continue };
            let line = format!("{shard}: by {worker} after {earlier}");
            match lines.last_mut() {
                Some((last, count)) if *last == line => *count += 1,
                _ => lines.push((line, 1)),
            }
        }
    }
    lines.into_iter().map(|(line, count)| format!("\n{line}: {count}")).collect()
}
