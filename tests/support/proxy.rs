//! An HTTP proxy that records its requests: CONNECT, and requests in absolute form.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::rig::LIMIT;

/// The first request of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRequest {
    /// `CONNECT`, or the method of a request in absolute form.
    pub method: String,
    /// Host and port, or a URL.
    pub target: String,
    /// The `Proxy-Authorization` header.
    pub authorization: Option<String>,
}

/// A running proxy.
pub struct Proxy {
    /// Host and port.
    pub address: String,
    asked: watch::Receiver<Vec<ProxyRequest>>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy that maps the given hosts to addresses and rejects all other hosts.
    pub async fn to(places: &[(&str, &str)]) -> Self {
        let owned = |(host, address): &(&str, &str)| ((*host).to_owned(), (*address).to_owned());
        let places: Arc<BTreeMap<String, String>> = Arc::new(places.iter().map(owned).collect());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, asked) = watch::channel(Vec::new());
        let sender = Arc::new(Mutex::new(sender));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    // Joins ended connections first, so that the set stays small.
                    Some(_) = open.join_next() => {}
                    accepted = listener.accept() => {
                        let (near, _) = accepted.unwrap();
                        open.spawn(serve(near, places.clone(), sender.clone()));
                    }
                }
            }
        });
        Self { address, asked, _task: task }
    }

    /// All requests so far, in order.
    pub fn asked(&self) -> Vec<ProxyRequest> {
        self.asked.borrow().clone()
    }

    /// Waits for a request that satisfies a condition.
    pub async fn until(&self, what: &str, reached: impl Fn(&ProxyRequest) -> bool) {
        let mut asked = self.asked.clone();
        let wait = asked.wait_for(|asked| asked.iter().any(&reached));
        if timeout(LIMIT, wait).await.is_err() {
            panic!("the proxy was not asked for {what}: {:?}", self.asked());
        }
    }
}

type Log = Arc<Mutex<watch::Sender<Vec<ProxyRequest>>>>;

async fn serve(mut near: TcpStream, places: Arc<BTreeMap<String, String>>, log: Log) {
    let Some(head) = head(&mut near).await else { return };
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = lines.filter_map(|line| line.split_once(": "));
    let authorization = header
        .filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
        .map(|(_, value)| value.to_owned())
        .next();
    let (method, target) = (method.to_owned(), target.to_owned());
    let host = target.trim_start_matches("http://").split(['/', ':']).next().unwrap_or_default().to_owned();
    let is_tunnel = method == "CONNECT";
    log.lock().unwrap().send_modify(|asked| asked.push(ProxyRequest { method, target, authorization }));
    let Some(address) = places.get(&host) else {
        let _gone = near.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await.is_err();
        return;
    };
    let mut far = TcpStream::connect(address).await.unwrap();
    let begun = if is_tunnel {
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
    } else {
        far.write_all(head.as_bytes()).await
    };
    if begun.is_ok() {
        let _either_left = tokio::io::copy_bidirectional(&mut near, &mut far).await.is_err();
    }
}

/// Reads up to the empty line that ends the header, and not a byte more.
async fn head(near: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.ok()?);
        assert!(head.len() < 1 << 16, "no end of a request's head");
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
