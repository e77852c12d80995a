//! The environment of the workers: puts records, samples the lease table, and compares the children's reports
//! with the records that were put.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::operation::scan::ScanError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use multilangd::aws::client::Clients;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::rig::*;

/// 40 records a second: about five for each of eight shards.
const BATCH: usize = 4;
const FEEDING: Duration = Duration::from_millis(100);
const SAMPLING: Duration = Duration::from_millis(200);
/// Upper bound of any change on the table: with default times a Java worker steals one lease in 20 s, and needs
/// four after a cold start.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The attributes of a lease that these tests use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub owner: String,
    /// The `checkpointOwner`: the worker from which a graceful handoff is in progress.
    pub from: Option<String>,
    pub checkpoint: String,
    pub sub: u64,
    /// `multilangdStream`.
    pub stream: Option<String>,
    /// `multilangdEarlierCheckpoint`: the checkpoint that a reset replaced.
    pub earlier: Option<String>,
}

impl Row {
    pub fn is_open(&self) -> bool {
        self.checkpoint != "SHARD_END"
    }

    /// Whether the row was reset with its old mark: the present mark follows once every shard is reset.
    fn is_reset_of(&self, before: &Row) -> bool {
        let kept = self.earlier.as_ref().is_some_and(|kept| kept.contains(&before.checkpoint));
        self.checkpoint == "TRIM_HORIZON" && kept
    }

    /// The order of the checkpoint among all possible values.
    fn rank(&self) -> (u8, usize, &str, u64) {
        match self.checkpoint.as_str() {
            "TRIM_HORIZON" => (0, 0, "", 0),
            "SHARD_END" => (2, 0, "", 0),
            number => (1, number.len(), number, self.sub),
        }
    }
}

/// The leases by shard. Other rows of a KCL 3.x table are omitted.
pub type Rows = BTreeMap<String, Row>;

/// Open leases by owner; those without an owner are under "".
pub fn shares(rows: &Rows) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for row in rows.values().filter(|row| row.is_open()) {
        *shares.entry(row.owner.as_str()).or_default() += 1;
    }
    shares
}

/// Whether these workers own all open leases, and their shares differ by at most one: each side has at least
/// its share, rounded down. A Java worker counts a finished lease like any other: it keeps it for five minutes
/// or more, and acquires no open one instead. While Java owns a finished lease, a distribution that is even
/// with finished leases counted is also accepted.
pub fn even(rows: &Rows, workers: &[&str]) -> bool {
    let within_one = |counted: &dyn Fn(&Row) -> bool| {
        let count = |worker: &&str| rows.values().filter(|row| row.owner == **worker && counted(row)).count();
        let counts = || workers.iter().map(count);
        counts().max().unwrap_or(0) - counts().min().unwrap_or(0) <= 1
    };
    let owned = |row: &Row| !row.is_open() || workers.contains(&row.owner.as_str());
    let kept_by_java = |row: &Row| !row.is_open() && row.owner.starts_with("java");
    !rows.is_empty()
        && rows.values().all(owned)
        && (within_one(&Row::is_open) || rows.values().any(kept_by_java) && within_one(&|_| true))
}

/// The records that were put: lease and sequence number to key and data.
type Puts = BTreeMap<(String, String), (String, Vec<u8>)>;

/// A stream into which records are put.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    /// The identifier of the stream in a multi-stream application, `ACCOUNT:NAME:EPOCH`; none if it is the only stream.
    pub id: Option<String>,
}

impl Source {
    /// The key of the lease of a shard.
    pub fn lease(&self, shard: &str) -> String {
        self.id.as_ref().map_or(shard.to_owned(), |id| format!("{id}:{shard}"))
    }
}

/// The streams, their lease table and their children.
pub struct Load {
    // The tasks end before the endpoints do.
    feeding: JoinSet<()>,
    _sampling: JoinSet<()>,
    pub rig: Rig,
    /// The streams that are fed.
    pub sources: Vec<Source>,
    puts: Arc<Mutex<Puts>>,
    samples: watch::Receiver<Arc<Rows>>,
    faults: Arc<Mutex<Vec<String>>>,
    recreated: Arc<AtomicBool>,
    moved: Arc<AtomicBool>,
    fed: CancellationToken,
}

impl Load {
    pub async fn start(name: &str, shards: i32) -> Self {
        let rig = Rig::start(name).await;
        rig.stream(shards).await;
        Self::of(rig, vec![Source { name: STREAM.to_owned(), id: None }])
    }

    /// Several streams of a multi-stream application. `created` are their names and numbers of shards.
    pub async fn of_several_streams(name: &str, created: &[(&str, i32)]) -> Self {
        let rig = Rig::start(name).await;
        let kinesis = &rig.clients.kinesis;
        let mut sources = Vec::new();
        for (name, shards) in created {
            kinesis.create_stream().stream_name(*name).shard_count(*shards).send().await.unwrap();
            let answer = kinesis.describe_stream_summary().stream_name(*name).send().await.unwrap();
            let summary = answer.stream_description_summary().unwrap();
            let account = summary.stream_arn().split(':').nth(4).unwrap();
            let epoch = summary.stream_creation_timestamp().secs();
            sources.push(Source { name: (*name).to_owned(), id: Some(format!("{account}:{name}:{epoch}")) });
        }
        Self::of(rig, sources)
    }

    fn of(rig: Rig, sources: Vec<Source>) -> Self {
        let (sender, samples) = watch::channel(Arc::default());
        let faults = Arc::<Mutex<Vec<String>>>::default();
        let (recreated, moved) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut sampling = JoinSet::new();
        let allowed = Allowed { recreated: recreated.clone(), moved: moved.clone() };
        sampling.spawn(sample(rig.clients.clone(), sender, faults.clone(), allowed));
        Self {
            feeding: JoinSet::new(),
            _sampling: sampling,
            rig,
            sources,
            puts: Arc::default(),
            samples,
            faults,
            recreated,
            moved,
            fed: CancellationToken::new(),
        }
    }

    /// Puts records from now on, until `all_seen`.
    pub fn feed(&mut self) {
        self.fed = CancellationToken::new();
        let (clients, sources) = (self.rig.clients.clone(), self.sources.clone());
        self.feeding.spawn(feed(clients, sources, self.puts.clone(), self.fed.clone()));
    }

    /// Puts many records at once.
    pub async fn put(&self, count: usize) {
        put(&self.rig.clients, &self.sources, &self.puts, count).await;
    }

    /// Waits until every record so far was delivered. In the mode of KCL 2.x a lease is taken from a living owner,
    /// which delivers for up to a renewal more: a backlog at that moment is delivered twice in every shard that
    /// moves.
    pub async fn catch_up(&mut self) {
        self.delivered(self.places()).await;
    }

    /// Puts many records at once, and waits until they were delivered.
    pub async fn put_and_catch_up(&mut self, count: usize) {
        self.put(count).await;
        self.catch_up().await;
    }

    /// Waits until these records, by shard and sequence number, were delivered.
    async fn delivered(&mut self, mut missing: BTreeSet<(String, String)>) {
        let mut next = 0;
        self.rig
            .until("every record that was put", |log| {
                for (shard, seen) in records(&log[next..]) {
                    for record in seen {
                        missing.remove(&(shard.clone(), record.sequence));
                    }
                }
                next = log.len();
                missing.is_empty()
            })
            .await;
    }

    /// The current table; samples lag a little.
    pub async fn rows(&self) -> Rows {
        scan(&self.rig.clients).await.expect("there is a table")
    }

    /// Waits for a condition on the table.
    pub async fn until_rows(&mut self, what: &str, mut reached: impl FnMut(&Rows) -> bool) {
        let start = Instant::now();
        let wait = async {
            loop {
                let rows = self.samples.borrow_and_update().clone();
                if reached(&rows) {
                    return;
                }
                self.samples.changed().await.expect("the sampling task runs");
            }
        };
        let there = timeout(TIMEOUT, wait).await.is_ok();
        let rows = self.samples.borrow().clone();
        let (shares, finished) = (shares(&rows), rows.values().filter(|row| !row.is_open()).count());
        assert!(
            there,
            "{what}: not within {TIMEOUT:?}: {shares:?}: {rows:#?}\nlogs: {}",
            self.rig.folder.display()
        );
        eprintln!("{:6.1} s  {what}: {shares:?}, finished: {finished}", start.elapsed().as_secs_f64());
        self.assert_no_checkpoint_moved_back();
    }

    pub fn assert_no_checkpoint_moved_back(&self) {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            faults.is_empty(),
            "checkpoints moved back: {faults:#?}\nlogs: {}",
            self.rig.folder.display()
        );
    }

    /// Stops the puts, and waits until every record was delivered, unchanged and in order for each child.
    /// Returns the number of records and of deliveries.
    pub async fn all_seen(&mut self) -> (usize, usize) {
        self.fed.cancel();
        while let Some(ended) = self.feeding.join_next().await {
            ended.unwrap();
        }
        let puts = std::mem::take(&mut *self.puts.lock().unwrap_or_else(PoisonError::into_inner));
        self.delivered(puts.keys().cloned().collect()).await;
        assert_in_order(&self.rig.log);
        for (shard, seen) in records(&self.rig.log) {
            for record in seen {
                let put = puts.get(&(shard.clone(), record.sequence));
                assert_eq!(put, Some(&(record.key, record.data)), "{shard} has only what was put");
            }
        }
        let put = puts.len();
        *self.puts.lock().unwrap_or_else(PoisonError::into_inner) = puts;
        (put, count(&self.rig.log))
    }

    /// The keys of the leases of the open shards.
    pub async fn open_shards(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for source in &self.sources {
            let answer =
                self.rig.clients.kinesis.list_shards().stream_name(&source.name).send().await.unwrap();
            let is_open = |range: &aws_sdk_kinesis::types::SequenceNumberRange| {
                range.ending_sequence_number().is_none()
            };
            let open =
                answer.shards().iter().filter(|shard| shard.sequence_number_range().is_some_and(is_open));
            all.extend(open.map(|shard| source.lease(shard.shard_id())));
        }
        all
    }

    /// Deletes the stream and creates it again. From now on a checkpoint may move back where the row is reset,
    /// its mark changes or it was deleted.
    pub async fn create_stream_again(&self, shards: i32) {
        self.recreated.store(true, Ordering::Relaxed);
        self.rig.recreate_stream(shards).await;
    }

    /// From now on an operator may move checkpoints back: where the earlier checkpoint is stored anew.
    pub fn operator_moves(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    /// The records so far, by lease and sequence number.
    pub fn places(&self) -> BTreeSet<(String, String)> {
        self.puts.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Splits the first of eight shards in the middle: each half receives records within a second.
    pub async fn split(&self) {
        let kinesis = &self.rig.clients.kinesis;
        let split = kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
        split.new_starting_hash_key((1u128 << 124).to_string()).send().await.unwrap();
    }

    /// Splits one shard and merges two others: the number of open shards stays the same. The first stream of several has
    /// four shards.
    pub async fn reshard(&self) {
        self.split().await;
        let merged = if self.sources.len() == 1 { [4, 5] } else { [2, 3] };
        let [one, other] = merged.map(|number| format!("shardId-{number:012}"));
        let merge = self.rig.clients.kinesis.merge_shards().stream_name(STREAM).shard_to_merge(one);
        merge.adjacent_shard_to_merge(other).send().await.unwrap();
    }
}

async fn feed(clients: Clients, sources: Vec<Source>, puts: Arc<Mutex<Puts>>, fed: CancellationToken) {
    let mut ticks = interval(FEEDING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !fed.is_cancelled() {
        ticks.tick().await;
        put(&clients, &sources, &puts, BATCH).await;
    }
}

/// Puts records into all streams in equal parts.
async fn put(clients: &Clients, sources: &[Source], puts: &Mutex<Puts>, count: usize) {
    for (index, source) in sources.iter().enumerate() {
        put_into(clients, source, puts, (count + index) / sources.len()).await;
    }
}

async fn put_into(clients: &Clients, source: &Source, puts: &Mutex<Puts>, count: usize) {
    for portion in (0..count).step_by(500).map(|from| (count - from).min(500)) {
        // Each record has its own partition key, which spreads them over all shards.
        let keys: Vec<_> = (0..portion).map(|_| format!("{:016x}", fastrand::u64(..))).collect();
        let entry = |key: &String| {
            let data = Blob::new(format!("data of {key}"));
            PutRecordsRequestEntry::builder().partition_key(key).data(data).build().unwrap()
        };
        let entries = keys.iter().map(entry).collect();
        let answer =
            clients.kinesis.put_records().stream_name(&source.name).set_records(Some(entries)).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.failed_record_count(), Some(0));
        let mut puts = puts.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, record) in keys.into_iter().zip(answer.records()) {
            let lease = source.lease(record.shard_id().unwrap());
            let place = (lease, record.sequence_number().unwrap().to_owned());
            let data = format!("data of {key}").into_bytes();
            puts.insert(place, (key, data));
        }
    }
}

/// The current leases, if the table exists.
async fn scan(clients: &Clients) -> Option<Rows> {
    let answer = clients.dynamodb.scan().table_name(APPLICATION).consistent_read(true).send().await;
    let none = |error: &ScanError| error.is_resource_not_found_exception();
    if answer.as_ref().is_err_and(|error| error.as_service_error().is_some_and(none)) {
        return None;
    }
    let answer = answer.expect("the lease table can be read");
    let rows = answer.items().iter().filter_map(|item| {
        let text = |name: &str| item.get(name)?.as_s().ok().cloned();
        let sub = item.get("checkpointSubSequenceNumber")?.as_n().ok()?.parse().ok()?;
        let owner = text("leaseOwner").unwrap_or_default();
        Some((
            text("leaseKey")?,
            Row {
                owner,
                from: text("checkpointOwner"),
                checkpoint: text("checkpoint")?,
                sub,
                stream: text("multilangdStream"),
                earlier: text("multilangdEarlierCheckpoint"),
            },
        ))
    });
    Some(rows.collect())
}

/// The causes that may move a checkpoint back.
struct Allowed {
    recreated: Arc<AtomicBool>,
    moved: Arc<AtomicBool>,
}

/// Scans the table repeatedly. A checkpoint that moved back is a fault, even across the deletion of its row.
async fn sample(
    clients: Clients,
    sender: watch::Sender<Arc<Rows>>,
    faults: Arc<Mutex<Vec<String>>>,
    Allowed { recreated, moved }: Allowed,
) {
    let mut ticks = interval(SAMPLING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut furthest = Rows::new();
    while !sender.is_closed() {
        ticks.tick().await;
        let rows = match scan(&clients).await {
            Some(rows) => rows,
            // The first worker creates the table; from then on it must exist.
            None if furthest.is_empty() => continue,
            None => panic!("the lease table does not exist any more"),
        };
        if recreated.load(Ordering::Relaxed) {
            // A row of the earlier stream is deleted, and its name may be used again.
            furthest.retain(|shard, _| rows.contains_key(shard));
        }
        for (shard, row) in &rows {
            if let Some(before) = furthest.insert(shard.clone(), row.clone())
                && before.rank() > row.rank()
                && !(recreated.load(Ordering::Relaxed)
                    && (before.stream != row.stream || row.is_reset_of(&before)))
                && !(moved.load(Ordering::Relaxed) && before.earlier != row.earlier)
            {
                let fault = format!("{shard}: {before:?}, then {row:?}");
                faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
            }
        }
        sender.send_replace(Arc::new(rows));
    }
}
