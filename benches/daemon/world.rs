//! The endpoints, a stream with records in it, and the ear for what children tell.

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
/// Java takes two minutes to start on a new table.
const PATIENCE: Duration = Duration::from_secs(400);

pub struct World {
    pub kinesis: Kinesis,
    /// Where daemons find it.
    pub url: String,
    pub tables: Tables,
    pub clients: Clients,
    pub folder: PathBuf,
    pub port: u16,
    told: mpsc::UnboundedReceiver<(String, Duration)>,
    _ear: JoinSet<()>,
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
        let (sender, told) = mpsc::unbounded_channel();
        let mut ear = JoinSet::new();
        ear.spawn(listen(listener, sender));
        Self { url: kinesis.url(), kinesis, tables, clients, folder, port, told, _ear: ear, files: 0 }
    }

    /// Puts so much data in records of that size, evenly over the shards.
    pub async fn fill(&self, bytes: usize, size: usize) {
        self.put(bytes, size, 16).await;
    }

    /// Puts so much data in records of that size, evenly over so many equal parts of the hash keys; all of it into the
    /// first shard if that is one.
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
                // Spread evenly.
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

    /// Splits each shard; their names.
    pub async fn close(&self) -> Vec<String> {
        self.split(usize::MAX).await
    }

    /// Splits so many shards, the first ones; their names.
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

    /// Lets records be as large as Kinesis allows.
    pub async fn allow_large_records(&self) {
        let kinesis = &self.clients.kinesis;
        let stream = kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let arn = stream.stream_description_summary.unwrap().stream_arn;
        kinesis.update_max_record_size().stream_arn(arn).max_record_size_in_kib(10_240).send().await.unwrap();
    }

    /// Registers one; its ARN.
    pub async fn consumer(&self, name: &str) -> String {
        let kinesis = &self.clients.kinesis;
        let stream = kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let arn = stream.stream_description_summary.unwrap().stream_arn;
        let call = kinesis.register_stream_consumer().stream_arn(arn).consumer_name(name);
        call.send().await.unwrap().consumer.unwrap().consumer_arn
    }

    /// A properties file for an application of that name.
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

    /// When children have told a word so many times: the first time and the last, by their own clocks, which are
    /// this machine's.
    pub async fn heard(&mut self, word: &str, times: usize) -> (Duration, Duration) {
        let mut heard = Vec::new();
        while heard.len() < times {
            let told = timeout(PATIENCE, self.told.recv()).await;
            let (what, at) =
                told.unwrap_or_else(|_| panic!("{word}: heard {} of {times}", heard.len())).unwrap();
            if what == word {
                heard.push(at);
            }
        }
        (heard[0], heard[times - 1])
    }

    pub fn forget(&mut self) {
        while self.told.try_recv().is_ok() {}
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _left_behind = std::fs::remove_dir_all(&self.folder).is_err();
        }
    }
}

/// By the wall clock, which all processes share.
pub fn now() -> Duration {
    Duration::from_millis(multilangd::clock::wall_millis().try_into().unwrap())
}

async fn listen(listener: TcpListener, told: mpsc::UnboundedSender<(String, Duration)>) {
    let mut children = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let told = told.clone();
        children.spawn(async move {
            let mut lines = BufReader::new(socket).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let (word, millis) = line.split_once(' ').unwrap();
                let _over =
                    told.send((word.to_owned(), Duration::from_millis(millis.parse().unwrap()))).is_err();
            }
        });
    }
}
