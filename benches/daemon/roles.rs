//! The other roles of this binary: a child that only answers, the raw reader, a daemon without child processes.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use multilangd::aws::client::{Settings, clients};
use multilangd::aws::dynamodb::Options;
use multilangd::aws::state::State;
use multilangd::budget::Budget;
use multilangd::config::resolve::{self, Given};
use multilangd::daemon::{self, Ports, StreamPorts, Streams};
use multilangd::metrics::Discard;
use multilangd::multilang::Outgoing;
use multilangd::multilang::launch::{Happened, Launch, Process, SpawnError, Stop};
use multilangd::shard::BoxFuture;
use multilangd_protocol::Line;
use tokio_util::sync::CancellationToken;

use crate::world::now;

/// `child PORT [stuck|unread]`: answers each message, and reports the first and the last record over a socket.
/// `stuck`: never answers a batch; `unread`: does not read the first batch; `count`: reports each record.
pub fn child(words: &[String]) {
    let mut socket = TcpStream::connect(("127.0.0.1", words[0].parse().unwrap())).unwrap();
    let is = |word: &str| words.iter().any(|given| given == word);
    let mut input = BufReader::with_capacity(1 << 18, std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let mut first = true;
    report(&mut socket, "begun");
    while let Some(head) = head(&mut input) {
        let action = ["initialize", "processRecords", "shardEnded", "leaseLost", "shutdownRequested"]
            .into_iter()
            .find(|action| head.ends_with(&action.as_bytes()[..4]))
            .unwrap();
        if action == "processRecords" && std::mem::take(&mut first) {
            report(&mut socket, "first");
            if is("stuck") || is("unread") {
                park_forever();
            }
        }
        if is("count") && action == "processRecords" {
            for _ in 0..records_of_line(&mut input) {
                report(&mut socket, "record");
            }
        } else {
            rest_of_line(&mut input);
        }
        if action == "initialize" && is("unread") {
            // The batch stays in the pipe.
            output.write_all(b"{\"action\":\"status\",\"responseFor\":\"initialize\"}\n").unwrap();
            output.flush().unwrap();
            report(&mut socket, "first");
            park_forever();
        }
        if action == "shardEnded" {
            report(&mut socket, "last");
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

/// Reports an event with the current time in milliseconds.
fn report(socket: &mut TcpStream, word: &str) {
    socket.write_all(format!("{word} {}\n", now().as_millis()).as_bytes()).unwrap();
}

/// Waits for the next line and reads its beginning, up to the first four letters of the action; none at the end
/// of stdin.
fn head(input: &mut impl io::BufRead) -> Option<Vec<u8>> {
    let mut head = vec![0; b"{\"action\":\"".len() + 4];
    input.read_exact(&mut head).ok().map(|()| head)
}

/// Skips the rest of the current line.
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

/// Reads the rest of a line and returns the number of records in it.
fn records_of_line(input: &mut impl io::BufRead) -> usize {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).unwrap();
    memchr::memmem::find_iter(&line, b"\"sequenceNumber\"").count()
}

/// Blocks until the process is killed.
fn park_forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts a child of the raw reader, which reads and discards its stdin.
fn sink(port: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["raw", "sink", port])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// `raw polled|pushed ADDRESS TARGET PORT SHARD...`: for each shard a connection whose responses are written to
/// a child unparsed. With `polled`, TARGET is a stream: GetRecords in a loop, parsing only the next shard
/// iterator. With `pushed`, TARGET is a consumer ARN: the SubscribeToShard response is not parsed at all.
pub fn raw(words: &[String]) {
    if words[0] == "sink" {
        return drain(&words[1]);
    }
    let [how, address, target, port] = &words[..4] else { panic!("too few arguments") };
    let read = if how == "pushed" { push_raw } else { poll_raw };
    std::thread::scope(|scope| {
        for shard in &words[4..] {
            scope.spawn(move || read(address, target, shard, port));
        }
    });
    // The parent still reads this process's resource usage.
    park_forever();
}

/// `raw sink PORT`: reads and discards stdin, and reports the first and the last byte.
fn drain(port: &str) {
    let mut socket = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; 1 << 18];
    let mut first = true;
    report(&mut socket, "begun");
    while input.read(&mut buffer).unwrap() > 0 {
        if std::mem::take(&mut first) {
            report(&mut socket, "first");
        }
    }
    report(&mut socket, "last");
}

/// Polls a shard with GetRecords.
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

/// Subscribes to a shard.
fn push_raw(address: &str, consumer: &str, shard: &str, port: &str) {
    let mut child = sink(port);
    let mut pipe = child.stdin.take().unwrap();
    let mut connection = Connection::to(address);
    let body = format!(
        "{{\"ConsumerARN\":\"{consumer}\",\"ShardId\":\"{shard}\",\"StartingPosition\":{{\"Type\":\"TRIM_HORIZON\"}}}}"
    );
    connection.send("SubscribeToShard", &body);
    // HTTP chunk headers go to the child too. The response ends with an empty chunk.
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

/// The string value of a JSON field. Searches from the end, where the field is.
fn field(body: &[u8], name: &str) -> Option<String> {
    let tail = &body[body.len().saturating_sub(4_096)..];
    let at = tail.windows(name.len()).rposition(|part| part == name.as_bytes())? + name.len();
    let length = tail[at..].iter().position(|byte| *byte == b'"')?;
    Some(String::from_utf8(tail[at..at + length].to_vec()).unwrap())
}

/// A minimal HTTP/1.1 client.
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

/// `without-processes FILE`: the whole daemon, with in-memory children that answer every message.
pub fn without_processes(words: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let given = Given { bytes: std::fs::read(&words[0]).unwrap(), ..Given::default() };
        let (config, _) = resolve::resolve(&given).config("without-processes").unwrap();
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
            table: Arc::new(clients.leases(config.table.clone(), Options::default())),
            state: Arc::new(State::new(
                clients.dynamodb,
                config.table.clone(),
                config.state_table.clone(),
                config.reports_table.clone(),
            )),
            streams: Streams::One(StreamPorts {
                shards: stream.clone(),
                records: stream.clone(),
                fanout: Some(stream),
            }),
            children: Arc::new(InMemoryChildren),
            capacity: Arc::default(),
            sink: Arc::new(Discard),
            budget: Budget::new(config.buffer),
            wall: multilangd::clock::wall_millis,
            service: multilangd::clock::ServiceTime::default(),
            surroundings: None,
            letters: None,
        };
        daemon::run(&config, ports, CancellationToken::new()).await.unwrap();
    });
}

struct InMemoryChildren;

impl fmt::Display for InMemoryChildren {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in-memory child")
    }
}

impl Launch for InMemoryChildren {
    fn launch<'a>(
        &'a self,
        _: &'a multilangd::multilang::ForShard,
    ) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>> {
        Box::pin(async { Ok(Box::new(InMemoryChild { says: None }) as Box<dyn Process>) })
    }
}

#[derive(Debug)]
/// A child that answers each message at once.
struct InMemoryChild {
    says: Option<String>,
}

impl Process for InMemoryChild {
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
