//! A reverse proxy before an endpoint that denies calls as AWS does, leaves one without an answer or delays all, and notes the
//! operations of all calls.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A call that gets no answer.
struct Held {
    operation: String,
    /// How many calls pass before it.
    passes: usize,
    /// Whether it reaches the endpoint.
    applied: bool,
    reached: Arc<Notify>,
}

#[derive(Default)]
struct Shared {
    held: Option<Held>,
    /// The time before each response.
    delay: Option<Duration>,
    /// The operation that is denied, and the code.
    denied: Option<(String, String)>,
    /// The only operations that are permitted, if they are limited.
    only: Option<BTreeSet<String>>,
    operations: Vec<String>,
    /// The date of every response.
    date: Option<String>,
}

/// A running proxy.
pub struct Denying {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
    _task: JoinSet<()>,
}

impl Denying {
    pub async fn before(endpoint: &str) -> Self {
        let to: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<Mutex<Shared>>::default();
        let mut task = JoinSet::new();
        let state = shared.clone();
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                while open.try_join_next().is_some() {}
                open.spawn(serve(client, to, state.clone()));
            }
        });
        Self { url, shared, _task: task }
    }

    /// Denies this operation with this code, and no other.
    pub fn deny(&self, operation: &str, code: &str) {
        self.shared.lock().unwrap().denied = Some((operation.to_owned(), code.to_owned()));
    }

    /// Denies all operations but these.
    pub fn permit_only(&self, operations: BTreeSet<String>) {
        self.shared.lock().unwrap().only = Some(operations);
    }

    /// Leaves a call of this operation without an answer, after some that pass. Returns what is notified of it.
    pub fn hold(&self, operation: &str, passes: usize, applied: bool) -> Arc<Notify> {
        let reached = Arc::<Notify>::default();
        let held = Held { operation: operation.to_owned(), passes, applied, reached: reached.clone() };
        self.shared.lock().unwrap().held = Some(held);
        reached
    }

    /// Delays every response.
    pub fn delay(&self, by: Duration) {
        self.shared.lock().unwrap().delay = Some(by);
    }

    /// Sets the date of all responses, in the form of HTTP.
    pub fn set_date(&self, date: &str) {
        self.shared.lock().unwrap().date = Some(date.to_owned());
    }

    /// The operations since the last call of this function, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().operations)
    }
}

/// Answers the requests of a connection until either side closes it.
async fn serve(client: TcpStream, to: SocketAddr, shared: Arc<Mutex<Shared>>) {
    let server = TcpStream::connect(to).await.unwrap();
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (mut from_client, mut from_server) = (BufReader::new(from_client), BufReader::new(from_server));
    while let Some((head, body)) = message(&mut from_client).await {
        let target = value(&head, "x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap().to_owned();
        if let Some((applied, reached)) = holds(&shared, &operation) {
            if applied {
                to_server.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
                let _unread = message(&mut from_server).await;
            }
            reached.notify_one();
            return std::future::pending().await;
        }
        let delay = shared.lock().unwrap().delay;
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let code = {
            let mut shared = shared.lock().unwrap();
            shared.operations.push(operation.clone());
            let denied = shared.denied.as_ref().filter(|(denied, _)| *denied == operation);
            let is_other = shared.only.as_ref().is_some_and(|only| !only.contains(&operation));
            let denied = denied.map(|(_, code)| code.clone());
            denied.or_else(|| is_other.then(|| "AccessDeniedException".to_owned()))
        };
        let answer = match code {
            // As a proxy or an emulator that does not know the protocol of the service.
            Some(code) if code == "XML" => {
                let body = "<Error><Code>AccessDenied</Code><Message>user/u may not</Message></Error>";
                let length = body.len();
                format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
            }
            Some(code) => {
                let text = format!("User: arn:aws:iam::1:user/u may not perform: {operation}");
                let body = format!("{{\"__type\":\"{code}\",\"message\":\"{text}\",\"Message\":\"{text}\"}}");
                let kind = value(&head, "content-type").unwrap_or_default().to_owned();
                let length = body.len();
                format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .into_bytes()
            }
            None => {
                to_server.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
                let Some((mut head, body)) = message(&mut from_server).await else { return };
                let date = shared.lock().unwrap().date.clone();
                if let Some(date) = date {
                    let is_other = |line: &&str| !line.to_lowercase().starts_with("date:");
                    let lines: Vec<&str> = head.trim_end().split("\r\n").filter(is_other).collect();
                    head = format!("{}\r\ndate: {date}\r\n\r\n", lines.join("\r\n"));
                }
                [head.as_bytes(), &body].concat()
            }
        };
        if to_client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Whether a call is held, and if so, whether it is applied.
fn holds(shared: &Mutex<Shared>, operation: &str) -> Option<(bool, Arc<Notify>)> {
    let mut shared = shared.lock().unwrap();
    let held = shared.held.as_mut().filter(|held| held.operation == operation)?;
    if held.passes == 0 {
        return Some((held.applied, held.reached.clone()));
    }
    held.passes -= 1;
    None
}

/// A request or a response: its head, and its body of the length in the head.
async fn message(from: &mut (impl AsyncBufRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = value(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
