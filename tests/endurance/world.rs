//! The environment of the daemons: puts records, splits and merges shards, samples the lease table, and
//! collects the reports of the children.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::operation::scan::ScanError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Shard as Listed};
use multilangd::aws::client::Clients;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ledger::*;
use crate::rig::{APPLICATION, Report, STREAM};

/// Records per batch; a partition key occurs at most once in a batch.
const BATCH: u64 = 10;
const BATCHES_PER_SECOND: u64 = 10;
const KEYS: u64 = 211;
const SAMPLING: Duration = Duration::from_millis(200);
const POLLING: Duration = Duration::from_millis(50);
/// Minimum and maximum number of open shards.
const FEWEST: usize = 8;
const MOST: usize = 16;

pub fn now() -> Micros {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * SECOND + u64::try_from(now.tv_nsec).unwrap() / 1000
}

/// Everything recorded so far.
#[derive(Default)]
pub struct Notes {
    pub ledger: Ledger,
    /// Ids of the records that were delivered.
    pub delivered: HashSet<u64>,
    pub alive: HashSet<i32>,
    pub reshards: Vec<(Micros, String)>,
}

/// The tasks that surround the daemons.
pub struct World {
    pub clients: Clients,
    pub notes: Arc<Mutex<Notes>>,
    tasks: JoinSet<()>,
    feeding: CancellationToken,
    watching: CancellationToken,
    workers: JoinSet<()>,
}

impl World {
    pub fn start(clients: Clients, reports: mpsc::UnboundedReceiver<Report>) -> Self {
        let mut world = Self {
            clients,
            notes: Arc::default(),
            tasks: JoinSet::new(),
            feeding: CancellationToken::new(),
            watching: CancellationToken::new(),
            workers: JoinSet::new(),
        };
        world.tasks.spawn(write_down(reports, world.notes.clone()));
        world
    }

    /// Starts to sample the lease table.
    pub fn watch(&mut self) {
        self.tasks.spawn(sample(self.clients.clone(), self.notes.clone(), self.watching.clone()));
    }

    pub fn feed(&mut self, seed: u64, pause: Duration) {
        let (clients, notes, stop) = (self.clients.clone(), self.notes.clone(), self.feeding.clone());
        self.workers.spawn(feed(clients.clone(), notes.clone(), stop.clone()));
        self.workers.spawn(reshard(clients, notes, stop, fastrand::Rng::with_seed(seed), pause));
    }

    /// Stops puts and reshards.
    pub async fn stop_feeding(&mut self) {
        self.feeding.cancel();
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
    }

    pub fn stop_watching(&self) {
        self.watching.cancel();
    }

    pub fn read<T>(&self, read: impl FnOnce(&mut Notes) -> T) -> T {
        read(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn happened(&self, daemon: &str, fate: Fate) {
        self.read(|notes| {
            notes.ledger.happened.push(Happened { at: now(), daemon: daemon.into(), fate });
        });
    }

    /// Waits for a condition; false if it is not reached in time.
    pub async fn until(&self, limit: Duration, mut reached: impl FnMut(&mut Notes) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut polling = interval(POLLING);
        loop {
            if self.read(&mut reached) {
                return true;
            }
            if polling.tick().await >= end {
                return false;
            }
        }
    }

    /// Fails if a task panicked, which would otherwise look like silence.
    pub fn assert_sound(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.unwrap();
        }
        while let Some(ended) = self.workers.try_join_next() {
            ended.unwrap();
            assert!(self.feeding.is_cancelled(), "the feeding task ended early");
        }
    }

    /// Every shard of the stream, with its range and whether it is open.
    pub async fn lineage(&self) -> Vec<Listed> {
        list(&self.clients).await
    }
}

fn note<T>(notes: &Mutex<Notes>, write: impl FnOnce(&mut Notes) -> T) -> T {
    write(&mut notes.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Puts one batch after the other, each when the previous one is acknowledged.
async fn feed(clients: Clients, notes: Arc<Mutex<Notes>>, stop: CancellationToken) {
    let mut ticks = interval(Duration::from_millis(1000 / BATCHES_PER_SECOND));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let ids = next..next + BATCH;
        next = ids.end;
        let entries = ids.clone().map(|id| {
            PutRecordsRequestEntry::builder()
                .partition_key(format!("key-{}", id % KEYS))
                .data(Blob::new(id.to_string()))
                .build()
                .unwrap()
        });
        let request = clients.kinesis.put_records().stream_name(STREAM).set_records(Some(entries.collect()));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.failed_record_count(), Some(0));
        note(&notes, |notes| {
            for (id, record) in ids.zip(answer.records()) {
                notes.ledger.puts.push(Put {
                    id,
                    key: id % KEYS,
                    shard: record.shard_id().unwrap().into(),
                    mark: Mark::parse(record.sequence_number().unwrap(), 0),
                });
            }
        });
    }
}

async fn list(clients: &Clients) -> Vec<Listed> {
    let mut shards = Vec::new();
    let mut answer = clients.kinesis.list_shards().stream_name(STREAM).send().await.unwrap();
    loop {
        shards.extend(answer.shards.take().unwrap_or_default());
        let Some(token) = answer.next_token.take() else { return shards };
        answer = clients.kinesis.list_shards().next_token(token).send().await.unwrap();
    }
}

pub fn is_open(shard: &Listed) -> bool {
    shard.sequence_number_range().unwrap().ending_sequence_number().is_none()
}

fn range(shard: &Listed) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (range.starting_hash_key().parse().unwrap(), range.ending_hash_key().parse().unwrap())
}

/// Splits and merges random shards, within the bounds.
async fn reshard(
    clients: Clients,
    notes: Arc<Mutex<Notes>>,
    stop: CancellationToken,
    mut random: fastrand::Rng,
    pause: Duration,
) {
    let mut next = Instant::now() + pause;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next) => next += pause.mul_f64(0.8 + random.f64() * 0.4),
        }
        let mut open: Vec<Listed> = list(&clients).await.into_iter().filter(is_open).collect();
        open.sort_by_key(range);
        let splits = open.len() <= FEWEST || (open.len() < MOST && random.bool());
        let number = random.usize(..open.len() - usize::from(!splits));
        let name = open[number].shard_id().to_owned();
        let what = if splits {
            let (start, end) = range(&open[number]);
            let at = start + (end - start) / 4 + random.u128(..(end - start) / 2) + 1;
            let split = clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(&name);
            split.new_starting_hash_key(at.to_string()).send().await.unwrap();
            format!("split {name} at {at}")
        } else {
            let other = open[number + 1].shard_id();
            let merge = clients.kinesis.merge_shards().stream_name(STREAM).shard_to_merge(&name);
            merge.adjacent_shard_to_merge(other).send().await.unwrap();
            format!("merge {name} and {other}")
        };
        note(&notes, |notes| notes.reshards.push((now(), what)));
    }
}

/// Scans the lease table repeatedly.
async fn sample(clients: Clients, notes: Arc<Mutex<Notes>>, stop: CancellationToken) {
    let mut ticks = interval(SAMPLING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: BTreeMap<Shard, Arc<Row>> = BTreeMap::new();
    while !stop.is_cancelled() {
        ticks.tick().await;
        let before = now();
        let mut rows = BTreeMap::new();
        let mut from = None;
        loop {
            let scan = clients.dynamodb.scan().table_name(APPLICATION).consistent_read(true);
            let answer = match scan.set_exclusive_start_key(from).send().await {
                Ok(answer) => answer,
                // The first daemon creates the table; from then on it must exist.
                Err(error)
                    if last.is_empty()
                        && error
                            .as_service_error()
                            .is_some_and(ScanError::is_resource_not_found_exception) =>
                {
                    break;
                }
                Err(error) => panic!("the lease table cannot be read: {error:?}"),
            };
            for item in answer.items() {
                let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
                let number = |name: &str| item.get(name).and_then(|value| value.as_n().ok()?.parse().ok());
                // Rows that are not leases have no checkpoint.
                let (Some(key), Some(checkpoint)) = (text("leaseKey"), text("checkpoint")) else { continue };
                let sub = number("checkpointSubSequenceNumber").unwrap_or(0);
                let row = Row {
                    owner: text("leaseOwner").map(|owner| owner.as_str().into()),
                    counter: number("leaseCounter").map_or(0, u64::cast_signed),
                    checkpoint: Mark::parse(checkpoint, sub),
                };
                let (key, row) = match last.get_key_value(key.as_str()) {
                    Some((key, same)) if **same == row => (key.clone(), same.clone()),
                    Some((key, _)) => (key.clone(), Arc::new(row)),
                    None => (key.as_str().into(), Arc::new(row)),
                };
                rows.insert(key, row);
            }
            from = answer.last_evaluated_key;
            if from.is_none() {
                break;
            }
        }
        last.clone_from(&rows);
        let after = now();
        note(&notes, |notes| notes.ledger.samples.push(Sample { before, after, rows }));
    }
}

async fn write_down(mut reports: mpsc::UnboundedReceiver<Report>, notes: Arc<Mutex<Notes>>) {
    while let Some(report) = reports.recv().await {
        note(&notes, |notes| match report {
            Report::Gone { pid } => {
                notes.alive.remove(&pid);
            }
            Report::Said { pid, shard, what, body } => {
                notes.alive.insert(pid);
                if let Some(what) = understood(&what, &body) {
                    if let What::Given(records) = &what {
                        notes.delivered.extend(records.iter().map(|(_, id)| id));
                    }
                    notes.ledger.said.push(Said {
                        at: body["at"].as_u64().unwrap(),
                        child: body["child"].as_str().unwrap().into(),
                        daemon: body["daemon"].as_str().unwrap().into(),
                        shard: shard.as_str().into(),
                        what,
                    });
                }
            }
        });
    }
}

fn understood(what: &str, body: &Value) -> Option<What> {
    let mark = |sequence: &Value, sub: &Value| Mark::parse(sequence.as_str().unwrap(), sub.as_u64().unwrap());
    Some(match what {
        "initialize" => What::Started { from: mark(&body["sequence"], &body["sub"]) },
        "processRecords" => {
            let record = |record: &Value| (mark(&record[0], &record[1]), record[2].as_u64().unwrap());
            What::Given(body["records"].as_array().unwrap().iter().map(record).collect())
        }
        "checkpointed" if !body["error"].is_null() => What::Refused,
        // At shutdownRequested the child repeats its last checkpoint, which is acknowledged without a write.
        "checkpointed" if body["of"] == "shutdownRequested" => return None,
        "checkpointed" => What::Stored {
            asked: body["asked"].as_u64().unwrap(),
            mark: mark(&body["sequence"], &body["sub"]),
        },
        "shardEnded" => What::Ended,
        "leaseLost" => What::LeaseLost,
        "shutdownRequested" => What::StopAsked,
        other => panic!("a child reported {other}"),
    })
}
