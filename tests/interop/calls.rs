//! What a fleet at rest asks of DynamoDB: two workers, eight leases, no records, default times.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::java::{JAVA_2, JAVA_3_LED, Java, Peer, properties};
use crate::mixed::{Load, even, shares};
use crate::rig::*;

/// Long enough for four of the slowest timers that matter (Java's scans, every 20 s).
const WINDOW: Duration = Duration::from_secs(80);
const LEASES: f64 = 8.0;
const AT_REST: &str = "shardSyncIntervalMillis = 1000\nmetricsLevel = NONE\nmaxRecords = 1000\n";

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// Passes everything on and counts requests by their `X-Amz-Target`.
struct Counter {
    url: String,
    counts: Counts,
    _task: JoinSet<()>,
}

impl Counter {
    async fn before(endpoint: &str) -> Self {
        let to: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Counts::default();
        let mut task = JoinSet::new();
        let counted = counts.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                while connections.try_join_next().is_some() {}
                connections.spawn(pass_on(client, to, counted.clone()));
            }
        });
        Self { url, counts, _task: task }
    }

    fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.counts.lock().unwrap())
    }
}

async fn pass_on(client: TcpStream, to: SocketAddr, counts: Counts) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        // The end of what came before: a header can lie across two reads.
        let mut rest = String::new();
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            rest.push_str(&String::from_utf8_lossy(&buffer[..count]));
            while let Some((operation, end)) = target(&rest) {
                *counts.lock().unwrap().entry(operation).or_default() += 1;
                rest.drain(..end);
            }
            let keep = rest.floor_char_boundary(rest.len().saturating_sub(120));
            rest.drain(..keep);
            if to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// The first whole target header, and where it ends.
fn target(text: &str) -> Option<(String, usize)> {
    let start = text.to_ascii_lowercase().find("x-amz-target: dynamodb_20120810.")?;
    let line = &text[start..];
    let end = line.find("\r\n")?;
    let operation = line[..end].rsplit('.').next().unwrap().to_owned();
    Some((operation, start + end))
}

/// Calls a lease-hour by operation, once the fleet has settled.
async fn at_rest(name: &str, peer: Option<Peer>) -> BTreeMap<String, f64> {
    let rig = Rig::start(name).await;
    rig.stream(8).await;
    let counter = Counter::before(&rig.tables.url()).await;
    let counted = |worker: &str| format!("dynamoDBEndpoint = {}\n# {worker}\n{AT_REST}", counter.url);
    let mut load = Load::new(rig);
    let workers = ["w-1", "w-2"];
    let (mut ours, mut java) = (Vec::new(), Vec::new());
    for worker in workers {
        match peer {
            None => ours.push(load.rig.daemon(&properties(&load.rig, worker, &counted(worker)))),
            Some(peer) => java.push(Java::start(&load.rig, peer, worker, &counted(worker))),
        }
    }
    // What Java's workers ask doesn't hang on how even their shares are, and they take long about it.
    let settled = |rows: &_| match peer {
        Some(_) => !shares(rows).contains_key("") && shares(rows).values().sum::<usize>() >= 8,
        None => even(rows, &workers),
    };
    load.settle(settled).await;
    sleep(Duration::from_secs(10)).await;
    counter.take();
    sleep(WINDOW).await;
    let counts = counter.take();
    for daemon in &mut ours {
        assert_eq!(daemon.stop().await, Some(0));
    }
    for daemon in &mut java {
        daemon.end(Signal::KILL).await;
    }
    let hours = WINDOW.as_secs_f64() / 3_600.0;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let rate = |count: u64| count as f64 / hours / LEASES;
    counts.into_iter().map(|(operation, count)| (operation, rate(count))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_at_rest_makes_no_more_calls_than_javas() {
    let _turn = crate::TURN.lock().await;
    let fleets = [
        ("multilangd", "calls-ours", None),
        ("Java 2.5.4", "calls-2", Some(JAVA_2)),
        ("Java 3.1.3", "calls-3-led", Some(JAVA_3_LED)),
    ];
    let mut totals = Vec::new();
    for (what, name, peer) in fleets {
        let calls = at_rest(name, peer).await;
        let total: f64 = calls.values().sum();
        eprintln!("{what}: {total:.0} calls a lease-hour: {calls:.0?}");
        totals.push((what, total));
    }
    let ours = totals[0].1;
    for (what, total) in &totals[1..] {
        eprintln!("ours are {:.2} of those of {what}", ours / total);
    }
    assert!(totals.last().is_some_and(|(_, java)| ours <= *java), "{totals:?}");
}
