//! A reverse proxy that counts DynamoDB requests by operation.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

pub struct Counter {
    pub url: String,
    counts: Counts,
    _task: JoinSet<()>,
}

impl Counter {
    pub async fn before(endpoint: &str) -> Self {
        let to: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Counts::default();
        let mut task = JoinSet::new();
        task.spawn(listen(listener, to, counts.clone()));
        Self { url, counts, _task: task }
    }

    /// The counts since the last call of this function.
    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn listen(listener: TcpListener, to: SocketAddr, counts: Counts) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        connections.spawn(pass_on(client, to, counts.clone()));
    }
}

/// Forwards a connection until either side closes it.
async fn pass_on(client: TcpStream, to: SocketAddr, counts: Counts) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut from_client = BufReader::new(from_client);
    let requests = async {
        while let Some(head) = head(&mut from_client).await {
            if let Some(target) = value(&head, "x-amz-target") {
                let operation = target.rsplit('.').next().unwrap().to_owned();
                *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
            }
            let length = value(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            let sent = to_server.write_all(head.as_bytes()).await;
            if sent.is_err() || copy(&mut (&mut from_client).take(length), &mut to_server).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// Reads the header of a request.
async fn head(from: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
