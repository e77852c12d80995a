//! The status page, probes and metrics of a running daemon.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::rig::*;

pub async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub async fn status(address: &str) -> Value {
    let answer = get(address, "/status").await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Polls until the status satisfies a condition.
pub async fn until(address: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let wait = async {
        let mut looks = interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            last = status(address).await;
            if reached(&last) {
                return;
            }
        }
    };
    let there = timeout(LIMIT, wait).await.is_ok();
    assert!(there, "not reached: {what}\n{last:#}");
    last
}

pub fn states(status: &Value) -> Vec<&str> {
    status["shards"].as_array().unwrap().iter().map(|shard| shard["state"].as_str().unwrap()).collect()
}

pub fn metric(text: &str, begin: &str) -> f64 {
    let line =
        text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_shard_is_distinguished_from_idle_ones() {
    let mut rig = Rig::start("status").await;
    rig.stream(3).await;
    let hung = rig.folder.join("hung");
    let more = "multilangd.status = 0\nmultilangd.stuckAfterMillis = 1500\n";
    let file = rig.properties(&rig.scripted(&format!("each hangs-once={}", hung.display())), more);
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    let mut daemon = rig.daemon(&file);
    let address = rig.status_address().await;
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    until(&address, "three idle shards", |status| states(status) == ["idle"; 3]).await;
    assert!(get(&address, "/readyz").await.starts_with("HTTP/1.1 200"));

    let records: Vec<_> = (0..300).map(|n| (format!("key-{n}"), b"0123456789".to_vec())).collect();
    rig.put(&records).await;
    let stuck = until(&address, "one shard stuck, the others done", |status| {
        let delivered = |shard: &Value| shard["delivered"]["records"].as_u64().unwrap();
        let all: u64 = status["shards"].as_array().unwrap().iter().map(delivered).sum();
        let mut states = states(status);
        states.sort_unstable();
        all == 300 && states == ["idle", "idle", "stuck"]
    })
    .await;
    let shards = stuck["shards"].as_array().unwrap();
    let shard = shards.iter().find(|shard| shard["state"] == "stuck").unwrap();
    let reason = shard["reason"].as_str().unwrap();
    assert!(reason.contains("processRecords"), "{reason}");
    assert!(reason.contains("hangs until"), "the last stderr line of the living child: {reason}");
    assert_eq!((shard["openAction"].as_str(), shard["held"].as_bool()), (Some("processRecords"), Some(true)));
    let pid = i32::try_from(shard["childPid"].as_i64().unwrap()).unwrap();
    assert!(pid > 1 && !is_gone(pid));
    assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200"), "a stuck child is no stuck daemon");
    let name = shard["shard"].as_str().unwrap();
    // All records are read, so the reader of the stuck shard is at the tip like the others.
    let uncheckpointed = |shard: &Value| shard["uncheckpointedMillis"].as_i64().unwrap();
    assert!((1_500..60_000).contains(&uncheckpointed(shard)), "{shard:#}");
    let others = shards.iter().filter(|other| other["shard"] != shard["shard"]);
    assert_eq!(others.map(uncheckpointed).collect::<Vec<_>>(), [0, 0]);
    let text = get(&address, "/metrics").await;
    let age = metric(&text, &format!("multilangd_shard_uncheckpointed_age_seconds{{shard=\"{name}\"}}"));
    assert!(age >= 1.5, "{age}");
    assert!(metric(&text, &format!("multilangd_shard_state{{shard=\"{name}\",state=\"stuck\"}}")) > 0.9);
    assert!(metric(&text, &format!("multilangd_shard_progress_age_seconds{{shard=\"{name}\"}}")) >= 1.5);
    assert!(
        metric(&text, "multilangd_calls_total{service=\"DynamoDB\",operation=\"UpdateItem\",outcome=\"ok\"}")
            >= 3.0
    );

    std::fs::write(format!("{}.go", hung.display()), "").unwrap();
    let idle = until(&address, "all idle", |status| states(status) == ["idle"; 3]).await;
    let sum = |part: &str, name: &str| -> u64 {
        idle["shards"].as_array().unwrap().iter().map(|shard| shard[part][name].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("delivered", "records"), sum("delivered", "bytes")), (300, 3_000));
    let text = get(&address, "/metrics").await;
    let delivered: f64 = text
        .lines()
        .filter(|line| line.starts_with("multilangd_records_delivered_total{"))
        .map(|line| metric(line, "multilangd"))
        .sum();
    assert!((delivered - 300.0).abs() < 0.5, "{delivered}");
    rig.until("300 records", |log| count(log) == 300).await;
    for shard in idle["shards"].as_array().unwrap() {
        let row = &rig.rows().await[shard["shard"].as_str().unwrap()];
        assert_eq!(
            shard["checkpoint"]["position"].as_str(),
            row["checkpoint"].as_s().ok().map(String::as_str)
        );
    }
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_one_worker_has_the_leases_of_all() {
    let mut rig = Rig::start("fleet-page").await;
    rig.stream(4).await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    let file = rig.properties(&rig.scripted("each"), "failoverTimeMillis = 3000\n");
    let mut first = rig.daemon(&file);
    let address = rig.status_address().await;
    let leases = |status: &Value| -> Vec<(String, String)> {
        let text = |lease: &Value, field: &str| lease[field].as_str().unwrap_or("-").to_owned();
        let leases = status["fleet"]["leases"].as_array();
        leases.into_iter().flatten().map(|lease| (text(lease, "owner"), text(lease, "state"))).collect()
    };
    let workers = |status: &Value| status["fleet"]["workers"].as_array().cloned().unwrap_or_default();
    let alone = until(&address, "a worker with all leases", |status| {
        let me = status["worker"].as_str().unwrap();
        leases(status) == vec![(me.to_owned(), "owned".to_owned()); 4]
    })
    .await;
    let mut second = rig.daemon(&file);
    let both = until(&address, "two workers with two leases each", |status| {
        let is_equal = |worker: &Value| worker["leases"] == 2 && worker["live"] == true;
        workers(status).len() == 2 && workers(status).iter().all(is_equal)
    })
    .await;
    assert_eq!(leases(&both).iter().filter(|lease| lease.0 == alone["worker"].as_str().unwrap()).count(), 2);
    assert!(workers(&both).iter().all(|worker| worker["acceptsLeases"] == true), "{both:#}");
    second.signal(rustix::process::Signal::KILL);
    second.ended().await;
    let taken =
        until(&address, "the first has all leases again", |status| leases(status) == leases(&alone)).await;
    assert!(taken["fleet"]["scannedSecondsAgo"].as_u64().unwrap() <= 60, "{taken:#}");
    assert_eq!(first.stop().await, Some(0));
}

/// The IAM action for an operation.
fn permission(service: &str, operation: &str) -> String {
    let operation = if operation == "TransactWriteItems" { "ConditionCheckItem" } else { operation };
    format!("`{}:{operation}`", service.to_lowercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_aws_call_has_its_permission_in_the_table() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let section = page.split("\n## Permissions\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let allowed = |permission: &str| {
        let row = section.lines().find(|line| line.starts_with(&format!("| {permission} |")));
        row.map(|row| row.rsplit(" | ").next().unwrap().to_owned())
    };
    for (mode, absent) in [("POLLING", "enhanced fan-out"), ("FANOUT", "polling;")] {
        let mut rig = Rig::start("permissions").await;
        rig.stream(2).await;
        rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
        rig.put(&[("key".to_owned(), b"x".to_vec())]).await;
        let file = rig.properties(&rig.scripted("each"), &format!("retrievalMode = {mode}\n"));
        let mut daemon = rig.daemon(&file);
        let address = rig.status_address().await;
        let status = until(&address, "a checkpoint", |status| {
            let shards = status["shards"].as_array().unwrap();
            shards.iter().any(|shard| shard["checkpoint"]["stored"].as_u64() > Some(0))
        })
        .await;
        let calls = status["calls"].as_array().unwrap();
        assert!(calls.len() > 6, "{calls:?}");
        for call in calls {
            let permission =
                permission(call["service"].as_str().unwrap(), call["operation"].as_str().unwrap());
            let when = allowed(&permission).unwrap_or_else(|| panic!("{permission} in {mode}"));
            assert!(!when.starts_with(absent), "{permission} is said to be needed for {when}");
        }
        assert_eq!(daemon.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_status_address_in_use_stops_the_start() {
    let mut rig = Rig::start("status-taken").await;
    rig.stream(1).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    rig.environment.push(("MULTILANGD_STATUS".into(), address.clone().into()));
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    assert_eq!(daemon.ended().await.code(), Some(i32::from(multilangd::exit::Exit::Taken.code())));
    let message = fatal_error(&daemon);
    assert!(message.contains(&address) && message.contains("MULTILANGD_STATUS"), "{message}");
    let last = log_lines(&daemon.stderr).pop().unwrap();
    assert!(last["timestamp"].as_str().unwrap().ends_with('Z') && last["level"] == "ERROR", "{last}");
}
