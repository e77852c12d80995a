//! The fixture of end-to-end tests: endpoints in this process, the daemon as a process, and children that
//! report everything they receive over a socket, so that a test waits for events and never sleeps.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use multilangd::aws::client::{Clients, Settings, clients};
use multilangd::local::kinesis::{Kinesis, Options};
use multilangd::local::tables::Tables;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[path = "system.rs"]
mod system;

pub use system::*;

/// Upper bound of any wait; it turns a hang into a failure.
pub const LIMIT: Duration = Duration::from_secs(90);
pub const STREAM: &str = "orders";
pub const APPLICATION: &str = "app";

/// A report of a child: a message that it received, or its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The kind is an action of the protocol, or `checkpointed`.
    Said { pid: i32, shard: String, what: String, body: Value },
    /// The child process has ended.
    Gone { pid: i32 },
}

/// A record as a child received it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub sequence: String,
    pub sub: u64,
    pub key: String,
    pub data: Vec<u8>,
}

/// The fixture of one test.
pub struct Rig {
    pub kinesis: Kinesis,
    /// The Kinesis endpoint for the daemon.
    pub url: String,
    pub tables: Tables,
    pub clients: Clients,
    pub folder: PathBuf,
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// The command that starts the daemon and is replaced by it: `sh -c 'ulimit …; exec "$@"' sh`, for example.
    pub wrapper: Vec<OsString>,
    /// Environment variables of the daemon, which its children inherit.
    pub environment: Vec<(OsString, OsString)>,
    /// A signal that the daemon ignores from its start, as under nohup: its name without SIG.
    pub ignored: Option<&'static str>,
    port: u16,
    _listener: JoinSet<()>,
    /// All reports so far, in order.
    pub log: Vec<Report>,
}

impl Rig {
    pub async fn start(name: &str) -> Self {
        Self::with(name, Options::default()).await
    }

    /// Starts the fixture with options for the embedded Kinesis endpoint.
    pub async fn with(name: &str, options: Options) -> Self {
        let kinesis = Kinesis::start(options).await.unwrap();
        let url = kinesis.url();
        Self::on(name, kinesis, url).await
    }

    /// Starts the fixture with Kinesis at the given URL instead of the embedded endpoint.
    pub async fn at(name: &str, url: String) -> Self {
        let kinesis = Kinesis::start(Options::default()).await.unwrap();
        Self::on(name, kinesis, url).await
    }

    async fn on(name: &str, kinesis: Kinesis, url: String) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let tables = Tables::start(any, None).await.unwrap();
        let settings = Settings::local(&url, &tables.url(), "us-east-1", Duration::from_secs(30));
        let clients = clients(&settings, std::sync::Arc::new(multilangd::metrics::Discard)).await.unwrap();
        // Two tests may use the same name.
        static RIGS: AtomicUsize = AtomicUsize::new(0);
        let (number, pid) = (RIGS.fetch_add(1, Ordering::Relaxed), std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{pid}-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = TcpListener::bind(any).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, sender));
        Self {
            kinesis,
            url,
            tables,
            clients,
            folder,
            reports,
            wrapper: Vec::new(),
            environment: Vec::new(),
            ignored: None,
            port,
            _listener: tasks,
            log: Vec::new(),
        }
    }

    /// Creates the stream.
    pub async fn stream(&self, shards: i32) {
        self.clients.kinesis.create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
    }

    /// Deletes the stream, which the local endpoint does at once, and creates it again.
    pub async fn recreate_stream(&self, shards: i32) {
        self.clients.kinesis.delete_stream().stream_name(STREAM).send().await.unwrap();
        self.stream(shards).await;
    }

    /// Writes a properties file with the given child command and further lines.
    pub fn properties(&self, executable: &str, more: &str) -> PathBuf {
        let path = self.folder.join("daemon.properties");
        let metrics = if more.contains("metricsLevel") { "" } else { "metricsLevel = NONE\n" };
        let text = format!(
            "executableName = {executable}\nstreamName = {STREAM}\napplicationName = {APPLICATION}\n\
             AWSCredentialsProvider = DefaultCredentialsProvider\nregionName = us-east-1\n\
             kinesisEndpoint = {}\ndynamoDBEndpoint = {}\ninitialPositionInStream = TRIM_HORIZON\n\
             idleTimeBetweenReadsInMillis = 200\n{metrics}parentShardPollIntervalMillis = 1000\n{more}",
            self.url,
            self.tables.url()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command of the scripted child with the given behaviours.
    pub fn scripted(&self, behaviour: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/processor.py");
        assert!(!script.to_str().unwrap().contains(' '), "executableName is split at blanks");
        format!("python3 -S -E {} {} {behaviour}", script.display(), self.port)
    }

    /// The port to which children report.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts the daemon on a properties file.
    pub fn daemon(&self, properties: &Path) -> Daemon {
        self.command(&["--properties-file", properties.to_str().unwrap()])
    }

    /// Starts the binary. Its output goes to files of the test's folder.
    pub fn command(&self, arguments: &[&str]) -> Daemon {
        let append =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("stderr.log"));
        self.command_to(arguments, append.unwrap().into())
    }

    /// Starts the binary with its stderr redirected.
    pub fn command_to(&self, arguments: &[&str], to: Stdio) -> Daemon {
        let stderr = self.folder.join("stderr.log");
        // A signal that is ignored where the tests run (nohup, a background job) would stay ignored. `env` is
        // replaced by the binary, so the process is the same.
        let mut command = Command::new("env");
        // Variables of the machine where the tests run.
        let is_outer = |name: &str| {
            let ends = ["_proxy", "_java_options", "java_tool_options"];
            name.starts_with("AWS_")
                || name.starts_with("SSL_CERT_")
                || ends.iter().any(|end| name.to_lowercase().ends_with(end))
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_outer)) {
            command.env_remove(name);
        }
        // The option is one of GNU; on other systems the signals of the tests' shell apply.
        let defaults = cfg!(target_os = "linux").then_some("--default-signal=INT,HUP,QUIT,TERM");
        let mut child = command
            .args(defaults)
            .args(self.ignored.map(|signal| format!("--ignore-signal={signal}")))
            .args(&self.wrapper)
            .arg(env!("CARGO_BIN_EXE_multilangd"))
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("RUST_LOG")
            // Tests read events, not sentences.
            .env("MULTILANGD_LOG_FORMAT", "json")
            // Tests run concurrently, so that a fixed port would conflict.
            .env("MULTILANGD_STATUS", "off")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(to)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Daemon { child, stderr, stdout, printed: Vec::new() }
    }

    /// Puts records, in order within each partition key, and returns when all are acknowledged.
    pub async fn put(&self, records: &[(String, Vec<u8>)]) {
        for chunk in chunks(records) {
            let entries = chunk.iter().map(|(key, data)| {
                PutRecordsRequestEntry::builder()
                    .partition_key(key)
                    .data(Blob::new(data.clone()))
                    .build()
                    .unwrap()
            });
            let request =
                self.clients.kinesis.put_records().stream_name(STREAM).set_records(Some(entries.collect()));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.failed_record_count(), Some(0));
        }
    }

    /// The next report. Fails with the daemon's log if none arrives.
    pub async fn report(&mut self) -> Report {
        match timeout(LIMIT, self.reports.recv()).await {
            Ok(Some(report)) => {
                self.log.push(report.clone());
                report
            }
            _ => panic!("no child reported anything any more; the daemon's log:\n{}", self.daemon_log()),
        }
    }

    /// Waits until the daemon has logged an event, and returns its first line.
    pub async fn logged(&self, event: &str) -> Value {
        self.logged_where(event, |_| true).await
    }

    /// Waits until the daemon has logged an event whose line satisfies a condition, and returns the first such line.
    pub async fn logged_where(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let file = self.folder.join("stderr.log");
        let wait = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            loop {
                looks.tick().await;
                if let Some(line) = logged(&file, event).into_iter().find(&wanted) {
                    return line;
                }
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no {event} in\n{}", self.daemon_log()))
    }

    /// Waits until a child has written a line with this text to its stderr.
    pub async fn child_wrote(&self, text: &str) {
        let wait = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            let of_child = |line: &Value| {
                line["target"] == "child"
                    && line["message"].as_str().is_some_and(|message| message.contains(text))
            };
            while !log_lines(&self.folder.join("stderr.log")).iter().any(of_child) {
                looks.tick().await;
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("no {text:?} in\n{}", self.daemon_log()));
    }

    /// The address of the daemon's status page, without the scheme.
    pub async fn status_address(&self) -> String {
        address_of(&self.logged("status_page_started").await)
    }

    /// Waits until the reports so far satisfy a condition.
    pub async fn until(&mut self, what: &str, mut reached: impl FnMut(&[Report]) -> bool) {
        let wait = async {
            while !reached(&self.log) {
                let report = self.reports.recv().await.unwrap();
                self.log.push(report);
            }
        };
        if timeout(LIMIT, wait).await.is_err() {
            panic!(
                "not reached: {what}; {} reports; the daemon's log:\n{}",
                self.log.len(),
                self.daemon_log()
            );
        }
    }

    pub fn daemon_log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("stderr.log")).unwrap_or_default();
        let from = text.len().saturating_sub(12_000);
        text[text.ceil_char_boundary(from)..].to_owned()
    }

    /// The lease rows of the lease table; since KCL 3.5 the table has other rows too.
    pub async fn rows(&self) -> BTreeMap<String, BTreeMap<String, AttributeValue>> {
        let mut rows = self.all_rows().await;
        rows.retain(|_, row| row.contains_key("leaseCounter"));
        rows
    }

    /// All rows of the lease table.
    pub async fn all_rows(&self) -> BTreeMap<String, BTreeMap<String, AttributeValue>> {
        let answer =
            self.clients.dynamodb.scan().table_name(APPLICATION).consistent_read(true).send().await.unwrap();
        let rows = answer.items().iter().map(|item| {
            let row: BTreeMap<_, _> =
                item.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            (row["leaseKey"].as_s().unwrap().clone(), row)
        });
        rows.collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _left_behind = std::fs::remove_dir_all(&self.folder).is_err();
        }
    }
}

/// Chunks of at most 500 records and about 4 MiB, the limits of PutRecords.
fn chunks(records: &[(String, Vec<u8>)]) -> Vec<Vec<(String, Vec<u8>)>> {
    let mut chunks = vec![Vec::new()];
    let mut size = 0;
    for (key, data) in records {
        size += key.len() + data.len();
        let last = chunks.last_mut().unwrap();
        if last.len() == 500 || (size > 4 << 20 && !last.is_empty()) {
            chunks.push(Vec::new());
            size = key.len() + data.len();
        }
        chunks.last_mut().unwrap().push((key.clone(), data.clone()));
    }
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

/// Receives reports. Each connection is one child; its first line contains its pid.
async fn listen(listener: TcpListener, reports: mpsc::UnboundedSender<Report>) {
    let mut children = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Joins ended connections first, so that the set stays small.
            Some(_) = children.join_next() => {}
            accepted = listener.accept() => {
                let (socket, _) = accepted.unwrap();
                children.spawn(follow(BufReader::new(socket), reports.clone()));
            }
        }
    }
}

async fn follow(mut socket: BufReader<tokio::net::TcpStream>, reports: mpsc::UnboundedSender<Report>) {
    let mut pid = 0;
    let mut process = None;
    let mut line = String::new();
    while socket.read_line(&mut line).await.is_ok_and(|count| count > 0) {
        let mut body: Value = serde_json::from_str(&line).unwrap();
        line.clear();
        pid = i32::try_from(body["pid"].as_i64().unwrap()).unwrap();
        // The inner value is none if the child was dead and reaped before its first line was read.
        process.get_or_insert_with(|| watch(pid));
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (shard, what) = (field("shard"), field("what"));
        let body = body["body"].take();
        if what != "hello" && reports.send(Report::Said { pid, shard, what, body }).is_err() {
            return;
        }
    }
    // The socket closes shortly before the process ends.
    let Some(process) = process else { return };
    if let Some(process) = process {
        process.ended().await;
    }
    let _test_is_over = reports.send(Report::Gone { pid }).is_err();
}

/// A running daemon.
pub struct Daemon {
    child: tokio::process::Child,
    pub stderr: PathBuf,
    stdout: Lines<BufReader<ChildStdout>>,
    /// The lines of stdout read so far.
    pub printed: Vec<String>,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Whether the daemon ignores a signal (`SigIgn` of proc(5)).
    #[cfg(target_os = "linux")]
    pub fn ignores(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    }

    /// Sends a signal to the daemon alone, by its pid.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        assert!(pid > 1);
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Reads stdout until a line satisfies a condition.
    pub async fn until(&mut self, reached: impl Fn(&str) -> bool) {
        let wait = async {
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                self.printed.push(line);
                if reached(self.printed.last().unwrap()) {
                    return true;
                }
            }
            false
        };
        let there = timeout(LIMIT, wait).await.unwrap_or(false);
        assert!(there, "{:?}\n{}", self.printed, std::fs::read_to_string(&self.stderr).unwrap());
    }

    /// Reads stdout to its end, and returns the exit status.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = async {
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                self.printed.push(line);
            }
            self.child.wait().await
        };
        match timeout(LIMIT, end).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the daemon does not end:\n{}", std::fs::read_to_string(&self.stderr).unwrap()),
        }
    }

    /// Sends SIGTERM and returns the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended().await.code()
    }
}

/// The JSON lines of a log. The last line is left out while it is being written.
pub fn log_lines(file: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(file).unwrap_or_default();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of a log with this event code.
pub fn logged(file: &Path, event: &str) -> Vec<Value> {
    let mut lines = log_lines(file);
    lines.retain(|line| line["event"] == event);
    lines
}

/// The address in the line `status_page_started`.
pub fn address_of(line: &Value) -> String {
    line["url"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// The error that ended a daemon, which is the last line of its log.
pub fn fatal_error(daemon: &Daemon) -> String {
    let lines = log_lines(&daemon.stderr);
    let last = lines.last().filter(|line| line["event"] == "fatal_error");
    last.unwrap_or_else(|| panic!("no fatal_error at the end of {lines:#?}"))["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The numbers of records put and delivered in a progress line of local mode.
pub fn progress(line: &str) -> Option<(u64, u64)> {
    let number = |after: &str| line.split(after).nth(1)?.split(' ').next()?.parse().ok();
    Some((number(": in ")?, number("delivered ")?))
}

/// Whether a line of local mode reports that records were delivered.
pub fn has_progress(line: &str) -> bool {
    progress(line).is_some_and(|(_, delivered)| delivered > 0)
}

/// The records that children received, by shard, in order, including repetitions after restarts.
pub fn records(log: &[Report]) -> BTreeMap<String, Vec<Seen>> {
    use base64::Engine as _;
    let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for report in log {
        if let Report::Said { shard, what, body, .. } = report
            && what == "processRecords"
        {
            let list = seen.entry(shard.clone()).or_default();
            for record in body["records"].as_array().unwrap() {
                list.push(Seen {
                    sequence: record["sequenceNumber"].as_str().unwrap().to_owned(),
                    sub: record["subSequenceNumber"].as_u64().unwrap(),
                    key: record["partitionKey"].as_str().unwrap().to_owned(),
                    data: base64::engine::general_purpose::STANDARD
                        .decode(record["data"].as_str().unwrap())
                        .unwrap(),
                });
            }
        }
    }
    seen
}

/// The number of records that children received, repetitions included.
pub fn count(log: &[Report]) -> usize {
    let count = |report: &Report| match report {
        Report::Said { what, body, .. } if what == "processRecords" => {
            body["records"].as_array().unwrap().len()
        }
        _ => 0,
    };
    log.iter().map(count).sum()
}

/// The shards whose children reported `wanted`, in order.
pub fn said<'a>(log: &'a [Report], wanted: &str) -> Vec<&'a str> {
    let shard = |report: &'a Report| match report {
        Report::Said { shard, what, .. } if what == wanted => Some(shard.as_str()),
        _ => None,
    };
    log.iter().filter_map(shard).collect()
}

/// Checks that each child receives its records in order and none twice. Two children may receive the same
/// record when a lease changes its owner: records delivered but not yet checkpointed are delivered again.
pub fn assert_in_order(log: &[Report]) {
    let mut last: BTreeMap<i32, String> = BTreeMap::new();
    for report in log {
        let Report::Said { pid, what, body, .. } = report else { continue };
        for record in body["records"].as_array().into_iter().flatten().filter(|_| what == "processRecords") {
            let sequence = record["sequenceNumber"].as_str().unwrap();
            assert!(last.get(pid).is_none_or(|last| last.as_str() < sequence), "{pid}: {sequence}");
            last.insert(*pid, sequence.to_owned());
        }
    }
}

/// The number of children that are running.
pub fn alive(log: &[Report]) -> usize {
    let mut alive = HashSet::new();
    for report in log {
        match report {
            Report::Said { pid, .. } => alive.insert(*pid),
            Report::Gone { pid } => alive.remove(pid),
        };
    }
    alive.len()
}

/// The process ids of all children.
pub fn pids(log: &[Report]) -> HashSet<i32> {
    let pid = |report: &Report| match report {
        Report::Said { pid, .. } | Report::Gone { pid } => *pid,
    };
    log.iter().map(pid).collect()
}
