//! A file tree and a metadata service, for tests.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Files in a temporary folder, which is removed on drop.
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("multilangd-processor-{}-{count}", std::process::id());
        let tree = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(tree.root()).unwrap();
        for (file, text) in files {
            tree.write(file, text);
        }
        tree
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn remove(&self, file: &str) {
        std::fs::remove_file(self.0.join(file)).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A folder that could not be removed does no harm.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Raw bytes that a server sends.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Close(String),
    /// Sends the text and keeps the connection open.
    Keep(String),
}

impl Reply {
    pub(super) fn ok(body: &str) -> Self {
        Self::Close(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    pub(super) fn chunked(body: &str) -> Self {
        let (one, two) = body.split_at(body.len() / 2);
        let chunks: String = [one, two].map(|part| format!("{:x}\r\n{part}\r\n", part.len())).concat();
        Self::Close(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"))
    }

    pub(super) fn status(status: &str) -> Self {
        Self::Close(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    }
}

/// Answers requests by their prefix until it is dropped.
pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _work: JoinSet<()>,
}

impl Server {
    pub(super) async fn start(replies: Vec<(&'static str, Reply)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut work = JoinSet::new();
        work.spawn(serve(listener, replies, asked.clone()));
        Self { url, asked, _work: work }
    }

    /// The heads of all requests so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, replies: Vec<(&'static str, Reply)>, asked: Arc<Mutex<Vec<String>>>) {
    let mut kept = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        let reply = replies.iter().find(|(start, _)| head.starts_with(start));
        let reply = reply.map_or_else(|| Reply::status("404 Not Found"), |(_, reply)| reply.clone());
        asked.lock().unwrap().push(head);
        match reply {
            // The client may have closed the connection.
            Reply::Close(text) => drop(stream.write_all(text.as_bytes()).await),
            Reply::Keep(text) => {
                drop(stream.write_all(text.as_bytes()).await);
                kept.push(stream);
            }
        }
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n")
        && let Ok(byte) = stream.read_u8().await
    {
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

/// An address that refuses connections, and the socket that reserves it.
pub(super) fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}
