//! What this binary is under other words: a child that only answers, the raw reader, a daemon without children.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use multilangd::aws::client::{Settings, clients};
use multilangd::aws::dynamodb::{Leases, Options};
use multilangd::aws::state::State;
use multilangd::budget::Budget;
use multilangd::config::resolve::{self, Given};
use multilangd::daemon::{self, Ports};
use multilangd::metrics::Discard;
use multilangd::multilang::Outgoing;
use multilangd::multilang::launch::{Happened, Launch, Process, SpawnError, Stop};
use multilangd::shard::{BoxFuture, ShardId};
use multilangd_protocol::Line;
use tokio_util::sync::CancellationToken;

use crate::world::now;

/// `child PORT [stuck|deaf]`: answers, and says over a socket when the first and the last record came.
/// stuck: never answers a batch; deaf: doesn't even read it; count: reports each record.
pub fn child(words: &[String]) {
    let mut tell = TcpStream::connect(("127.0.0.1", words[0].parse().unwrap())).unwrap();
    let is = |word: &str| words.iter().any(|given| given == word);
    let mut input = BufReader::with_capacity(1 << 18, std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let mut first = true;
    say(&mut tell, "begun");
    while let Some(head) = head(&mut input) {
        let action = ["initialize", "processRecords", "shardEnded", "leaseLost", "shutdownRequested"]
            .into_iter()
            .find(|action| head.ends_with(&action.as_bytes()[..4]))
            .unwrap();
        if action == "processRecords" && std::mem::take(&mut first) {
            say(&mut tell, "first");
            if is("stuck") || is("deaf") {
                stay();
            }
        }
        if is("count") && action == "processRecords" {
            for _ in 0..records_of_line(&mut input) {
                say(&mut tell, "record");
            }
        } else {
            rest_of_line(&mut input);
        }
        if action == "initialize" && is("deaf") {
            // The next line stays in the pipe.
            output.write_all(b"{\"action\":\"status\",\"responseFor\":\"initialize\"}\n").unwrap();
            output.flush().unwrap();
            say(&mut tell, "first");
            stay();
        }
        if action == "shardEnded" {
            say(&mut tell, "last");
            output.write_all(b"{\"action\":\"checkpoint\",\"sequenceNumber\":null}\n").unwrap();
            output.flush().unwrap();
            rest_of_line(&mut input);
        }
        output
            .write_all(format!("{{\"action\":\"status\",\"responseFor\":\"{action}\"}}\n").as_bytes())
            .unwrap();
        output.flush().unwrap();
    }
}

fn say(tell: &mut TcpStream, word: &str) {
    tell.write_all(format!("{word} {}\n", now().as_millis()).as_bytes()).unwrap();
}

/// The next line as far as it takes to know which it is, once that is there; none at the end of all.
fn head(input: &mut impl io::BufRead) -> Option<Vec<u8>> {
    let mut head = vec![0; b"{\"action\":\"".len() + 4];
    input.read_exact(&mut head).ok().map(|()| head)
}

fn rest_of_line(input: &mut impl io::BufRead) {
    loop {
        let read = input.fill_buf().unwrap();
        let end = memchr::memchr(b'\n', read);
        let count = end.map_or(read.len(), |end| end + 1);
        input.consume(count);
        if end.is_some() || count == 0 {
            return;
        }
    }
}

/// Reads the rest of a line; the number of records in it.
fn records_of_line(input: &mut impl io::BufRead) -> usize {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).unwrap();
    memchr::memmem::find_iter(&line, b"\"sequenceNumber\"").count()
}

/// Until it is killed.
fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// `sink PORT` is a child of the raw reader: reads all there is.
fn sink(tell: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["raw", "sink", tell])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// `raw polled|pushed ADDRESS WHAT PORT SHARD...`: for each shard a connection, and what comes on it written to a child
/// as it came. Polled from the stream WHAT: GetRecords in a row, of whose answers nothing is looked at but where the
/// next one begins. Pushed to the consumer WHAT: not even that.
pub fn raw(words: &[String]) {
    if words[0] == "sink" {
        return drain(&words[1]);
    }
    let [how, address, what, port] = &words[..4] else { panic!("too few words") };
    let read = if how == "pushed" { push_raw } else { poll_raw };
    std::thread::scope(|scope| {
        for shard in &words[4..] {
            scope.spawn(move || read(address, what, shard, port));
        }
    });
    // What it needed is still to be seen.
    stay();
}

fn drain(port: &str) {
    let mut tell = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; 1 << 18];
    let mut first = true;
    say(&mut tell, "begun");
    while input.read(&mut buffer).unwrap() > 0 {
        if std::mem::take(&mut first) {
            say(&mut tell, "first");
        }
    }
    say(&mut tell, "last");
}

fn poll_raw(address: &str, stream: &str, shard: &str, port: &str) {
    let mut child = sink(port);
    let mut pipe = child.stdin.take().unwrap();
    let mut connection = Connection::to(address);
    let open = format!(
        "{{\"StreamName\":\"{stream}\",\"ShardId\":\"{shard}\",\"ShardIteratorType\":\"TRIM_HORIZON\"}}"
    );
    let mut iterator = field(connection.call("GetShardIterator", &open), "\"ShardIterator\":\"");
    while let Some(next) = iterator {
        let body =
            connection.call("GetRecords", &format!("{{\"ShardIterator\":\"{next}\",\"Limit\":10000}}"));
        pipe.write_all(body).unwrap();
        iterator = field(body, "\"NextShardIterator\":\"");
    }
    drop(pipe);
    child.wait().unwrap();
}

fn push_raw(address: &str, consumer: &str, shard: &str, port: &str) {
    let mut child = sink(port);
    let mut pipe = child.stdin.take().unwrap();
    let mut connection = Connection::to(address);
    let body = format!(
        "{{\"ConsumerARN\":\"{consumer}\",\"ShardId\":\"{shard}\",\"StartingPosition\":{{\"Type\":\"TRIM_HORIZON\"}}}}"
    );
    connection.send("SubscribeToShard", &body);
    // What is around the events goes to the child too. The answer ends with its last chunk, which is empty.
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n0\r\n\r\n") {
        let read = connection.stream.fill_buf().unwrap();
        assert!(!read.is_empty(), "the connection ended before the shard");
        pipe.write_all(read).unwrap();
        end.extend_from_slice(&read[read.len().saturating_sub(7)..]);
        end.drain(..end.len().saturating_sub(7));
        let count = read.len();
        connection.stream.consume(count);
    }
    drop(pipe);
    child.wait().unwrap();
}

/// The text behind a name, looked for from the end, where it stands.
fn field(body: &[u8], name: &str) -> Option<String> {
    let tail = &body[body.len().saturating_sub(4_096)..];
    let at = tail.windows(name.len()).rposition(|part| part == name.as_bytes())? + name.len();
    let length = tail[at..].iter().position(|byte| *byte == b'"')?;
    Some(String::from_utf8(tail[at..at + length].to_vec()).unwrap())
}

/// As little HTTP as that takes.
struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    body: Vec<u8>,
}

impl Connection {
    fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::with_capacity(1 << 18, stream), host: address.to_owned(), body: Vec::new() }
    }

    fn send(&mut self, operation: &str, body: &str) {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\nx-amz-target: Kinesis_20131202.{operation}\r\ncontent-type: \
             application/x-amz-json-1.1\r\nauthorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/kinesis/\
             aws4_request, SignedHeaders=host, Signature=0\r\nx-amz-date: 20260101T000000Z\r\ncontent-length: {}\r\n\
             \r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    fn call(&mut self, operation: &str, body: &str) -> &[u8] {
        self.send(operation, body);
        let mut length = None;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                length = Some(text.trim().parse::<usize>().unwrap());
            }
            if line == "\r\n" {
                break;
            }
        }
        self.body.resize(length.expect("a length"), 0);
        self.stream.read_exact(&mut self.body).unwrap();
        &self.body
    }
}

/// `hollow FILE`: the daemon with everything but processes: its children answer from memory.
pub fn hollow(words: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let given = Given { bytes: std::fs::read(&words[0]).unwrap(), ..Given::default() };
        let (config, _) = resolve::resolve(&given).config("hollow").unwrap();
        let address = |client: &multilangd::config::ClientConfig| client.endpoint.clone().unwrap();
        let settings = Settings::local(
            &address(&config.kinesis),
            &address(&config.dynamodb),
            "us-east-1",
            config.failover,
        );
        let clients = clients(&settings, Arc::new(Discard)).await.unwrap();
        let stream = Arc::new(clients.stream(config.stream.clone()));
        let ports = Ports {
            table: Arc::new(Leases::new(clients.dynamodb.clone(), config.table.clone(), Options::default())),
            state: Arc::new(State::new(
                clients.dynamodb,
                config.table.clone(),
                config.state_table.clone(),
                config.reports_table.clone(),
            )),
            shards: stream.clone(),
            records: stream.clone(),
            fanout: Some(stream),
            children: Arc::new(Hollow),
            capacity: Arc::default(),
            sink: Arc::new(Discard),
            budget: Budget::new(config.buffer),
            wall: multilangd::clock::wall_millis,
            surroundings: None,
        };
        daemon::run(&config, ports, CancellationToken::new()).await.unwrap();
    });
}

struct Hollow;

impl fmt::Display for Hollow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody")
    }
}

impl Launch for Hollow {
    fn launch<'a>(&'a self, _: &'a ShardId) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>> {
        Box::pin(async { Ok(Box::new(Nobody { says: None }) as Box<dyn Process>) })
    }
}

#[derive(Debug)]
struct Nobody {
    says: Option<String>,
}

impl Process for Nobody {
    fn pid(&self) -> u32 {
        0
    }
    fn write(&mut self, message: Outgoing) {
        let message: serde_json::Value = serde_json::from_slice(&message.into_line()).unwrap();
        let action = &message["action"];
        self.says = Some(format!("{{\"action\":\"status\",\"responseFor\":{action}}}"));
    }
    fn close_stdin(&mut self) {}
    fn next(&mut self, _: bool, _: bool) -> BoxFuture<'_, Happened> {
        match self.says.take() {
            Some(said) => Box::pin(async { Happened::Said(Some(Line::Whole(said.into_bytes()))) }),
            None => Box::pin(std::future::pending()),
        }
    }
    fn stop(&self, _: Stop) {}
}
