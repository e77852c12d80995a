//! The endpoints, a stream with records, and a listener for the reports of children.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use multilangd::aws::client::{Clients, Settings, clients};
use multilangd::local::kinesis::{Kinesis, Options};
use multilangd::local::tables::Tables;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub const STREAM: &str = "bench";
/// The Java daemon takes two minutes to start with a new table.
const TIMEOUT: Duration = Duration::from_secs(400);

/// The environment of one run.
pub struct World {
    pub kinesis: Kinesis,
    /// The Kinesis endpoint for daemons.
    pub url: String,
    pub tables: Tables,
    pub clients: Clients,
    pub folder: PathBuf,
    pub port: u16,
    reports: mpsc::UnboundedReceiver<(String, Duration)>,
    _listener: JoinSet<()>,
    files: u32,
}

impl World {
    pub async fn new(shards: i32) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let kinesis = Kinesis::start(Options::default()).await.unwrap();
        let tables = Tables::start(any, None).await.unwrap();
        let settings = Settings::local(&kinesis.url(), &tables.url(), "us-east-1", Duration::from_secs(30));
        let clients = clients(&settings, std::sync::Arc::new(multilangd::metrics::Discard)).await.unwrap();
        clients.kinesis.create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = TcpListener::bind(any).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, reports) = mpsc::unbounded_channel();
        let mut accepting = JoinSet::new();
        accepting.spawn(listen(listener, sender));
        Self {
            url: kinesis.url(),
            kinesis,
            tables,
            clients,
            folder,
            port,
            reports,
            _listener: accepting,
            files: 0,
        }
    }

    /// Puts `bytes` of record data in records of `size` bytes, evenly over 16 hash key ranges.
    pub async fn fill(&self, bytes: usize, size: usize) {
        self.put(bytes, size, 16).await;
    }

    /// Puts `bytes` of record data in records of `size` bytes, evenly over `parts` equal ranges of the hash keys; into the
    /// first shard alone if that is 1.
    pub async fn put(&self, bytes: usize, size: usize, parts: u64) {
        let (count, most) = (bytes / size, (4 * 1024 * 1024 / (size + 100)).clamp(1, 500));
        let mut random = fastrand::Rng::with_seed(1);
        let mut data = vec![0; size];
        let mut tasks = JoinSet::new();
        let mut number = 0_u64;
        while number < count as u64 {
            let entries = (0..most.min(count - usize::try_from(number).unwrap())).map(|_| {
                number += 1;
                random.fill(&mut data);
                let key = PutRecordsRequestEntry::builder().partition_key(number.to_string());
                // Spreads the records evenly over the shards.
                let hash = (u128::MAX / u128::from(parts) * u128::from(number % parts)).to_string();
                key.explicit_hash_key(hash).data(Blob::new(data.clone())).build().unwrap()
            });
            let call =
                self.clients.kinesis.put_records().stream_name(STREAM).set_records(Some(entries.collect()));
            tasks.spawn(async move { assert_eq!(call.send().await.unwrap().failed_record_count(), Some(0)) });
            if tasks.len() > 4 {
                tasks.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(put) = tasks.join_next().await {
            put.unwrap();
        }
    }

    /// Splits each shard, so that it has an end, and returns the ids of the parents.
    pub async fn close(&self) -> Vec<String> {
        self.split(usize::MAX).await
    }

    /// Splits the first `count` shards, so that they have an end, and returns their ids.
    pub async fn split(&self, count: usize) -> Vec<String> {
        let shards = self.clients.kinesis.list_shards().stream_name(STREAM).send().await.unwrap();
        let mut names = Vec::new();
        for shard in shards.shards().iter().take(count) {
            let range = shard.hash_key_range().unwrap();
            let number = |text: &str| text.parse::<u128>().unwrap();
            let (from, to) = (number(range.starting_hash_key()), number(range.ending_hash_key()));
            let call =
                self.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard.shard_id());
            call.new_starting_hash_key((from + (to - from) / 2).to_string()).send().await.unwrap();
            names.push(shard.shard_id().to_owned());
        }
        names
    }

    /// Raises the stream's limit of the record size to the largest that Kinesis allows.
    pub async fn allow_large_records(&self) {
        let kinesis = &self.clients.kinesis;
        let stream = kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let arn = stream.stream_description_summary.unwrap().stream_arn;
        kinesis.update_max_record_size().stream_arn(arn).max_record_size_in_kib(10_240).send().await.unwrap();
    }

    /// Registers an enhanced fan-out consumer and returns its ARN.
    pub async fn consumer(&self, name: &str) -> String {
        let kinesis = &self.clients.kinesis;
        let stream = kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let arn = stream.stream_description_summary.unwrap().stream_arn;
        let call = kinesis.register_stream_consumer().stream_arn(arn).consumer_name(name);
        call.send().await.unwrap().consumer.unwrap().consumer_arn
    }

    /// Writes a properties file for an application of the given name.
    pub fn file(&mut self, application: &str, child: &str, more: &str) -> PathBuf {
        self.files += 1;
        let path = self.folder.join(format!("{}.properties", self.files));
        let executable = std::env::current_exe().unwrap();
        let text = format!(
            "executableName = {} child {} {child}\nstreamName = {STREAM}\napplicationName = {application}\n\
             AWSCredentialsProvider = DefaultCredentialsProvider\nregionName = us-east-1\nkinesisEndpoint = {}\n\
             dynamoDBEndpoint = {}\ninitialPositionInStream = TRIM_HORIZON\nmetricsLevel = NONE\n{more}",
            executable.display(),
            self.port,
            self.url,
            self.tables.url()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Waits until children have reported `word` `times` times. Returns the times of the first and the last
    /// report, in the children's wall clock.
    pub async fn wait_for(&mut self, word: &str, times: usize) -> (Duration, Duration) {
        let mut received_at = Vec::new();
        while received_at.len() < times {
            let received = timeout(TIMEOUT, self.reports.recv()).await;
            let (what, at) = received
                .unwrap_or_else(|_| panic!("{word}: {} of {times} reports", received_at.len()))
                .unwrap();
            if what == word {
                received_at.push(at);
            }
        }
        (received_at[0], received_at[times - 1])
    }

    /// Drops all reports so far.
    pub fn discard_reports(&mut self) {
        while self.reports.try_recv().is_ok() {}
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _left_behind = std::fs::remove_dir_all(&self.folder).is_err();
        }
    }
}

/// Time since 1970 by the wall clock, which all processes share.
pub fn now() -> Duration {
    Duration::from_millis(multilangd::clock::wall_millis().try_into().unwrap())
}

/// Receives the reports of all children.
async fn listen(listener: TcpListener, reports: mpsc::UnboundedSender<(String, Duration)>) {
    let mut children = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let reports = reports.clone();
        children.spawn(async move {
            let mut lines = BufReader::new(socket).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let (word, millis) = line.split_once(' ').unwrap();
                let _over =
                    reports.send((word.to_owned(), Duration::from_millis(millis.parse().unwrap()))).is_err();
            }
        });
    }
}
