//! `multilangd leases FILE park` and `unpark`, `pause` and `resume`, with real children.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::parked::{Worker, put_to, shard, worker};
use crate::rig::*;
use crate::seek::{FAST, delivered, expected, numbered, succeeds, verb};
use crate::status::{get, metric, until};

/// `failoverTimeMillis` of [`FAST`].
const FAILOVER: Duration = Duration::from_secs(3);
/// `shutdownGraceMillis`.
const GRACE: Duration = Duration::from_secs(5);

fn properties(rig: &mut Rig, child: &str, more: &str) -> PathBuf {
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    rig.properties(&rig.scripted(child), &format!("{FAST}multilangd.status = 0\n{more}"))
}

/// The states of the shards that a worker holds.
fn held(status: &Value) -> Vec<(&str, &str)> {
    let shards = status["shards"].as_array().unwrap().iter().filter(|shard| shard["held"] == true);
    shards.map(|shard| (shard["shard"].as_str().unwrap(), shard["state"].as_str().unwrap())).collect()
}

async fn until_state(worker: &Worker, wanted: &[(&str, &str)]) -> Value {
    until(&worker.address, &format!("{wanted:?}"), |status| held(status) == wanted).await
}

async fn listed(rig: &Rig, file: &Path) -> Value {
    let (code, printed) = verb(rig, file, &["--json", "--watch", "1"]).await;
    assert_eq!(code, Some(0), "{printed}");
    serde_json::from_str(&printed).unwrap()
}

fn has(metrics: &str, name: &str, value: f64) -> bool {
    (metric(metrics, name) - value).abs() < 0.1
}

const PARKED: &str = "parked by operator";

#[tokio::test(flavor = "multi_thread")]
async fn parked_shard_is_not_read_until_it_is_unparked() {
    let mut rig = Rig::start("park").await;
    rig.stream(2).await;
    let file = properties(&mut rig, "each", "");
    let [zero, one] = [shard(0), shard(1)];
    let mut daemon = worker(&rig, "first", &file).await;
    rig.put(&numbered(0..40)).await;
    rig.until("all records", |log| delivered(log) == expected(0..40)).await;
    let idle = [(zero.as_str(), "idle"), (one.as_str(), "idle")];
    until_state(&daemon, &idle).await;

    let (code, dry) = verb(&rig, &file, &["park", "--shard", &zero, "--dry-run", "--json"]).await;
    let dry: Value = serde_json::from_str(&dry).unwrap();
    assert_eq!((code, &dry["steps"][0]["action"], &dry["written"]), (Some(0), &"park".into(), &Value::Null));
    assert_eq!(dry["unknownWorkers"], Value::Array(Vec::new()), "{dry:#}");
    assert_eq!(listed(&rig, &file).await["leases"][0]["parked"], Value::Null);

    let before = rig.rows().await;
    let began = Instant::now();
    succeeds(&rig, &file, &["park", "--shard", &zero]).await;
    let parked = [(zero.as_str(), PARKED), (one.as_str(), "idle")];
    let shown = until_state(&daemon, &parked).await;
    assert!(began.elapsed() < FAILOVER + GRACE, "{:?}", began.elapsed());
    let of_zero = &shown["shards"][0];
    assert_eq!(of_zero["parkedByOperator"]["application"], false);
    assert_eq!((&of_zero["childPid"], of_zero["reason"].as_str().unwrap().is_empty()), (&Value::Null, false));
    rig.until("the end of its child", |log| said(log, "shutdownRequested") == [zero.as_str()]).await;
    let after = rig.rows().await;
    assert_eq!(after[&zero]["leaseOwner"], before[&zero]["leaseOwner"]);
    let shown = listed(&rig, &file).await;
    assert!(shown["leases"][0]["parked"]["sinceMillis"].as_i64() > Some(0), "{shown:#}");

    // Records of the other shard are delivered, and the lease is renewed.
    for (half, range) in [(0, 40..60), (4, 60..80)] {
        for (_, data) in numbered(range) {
            put_to(&rig, half, &data).await;
        }
    }
    rig.until("the records of the other shard", |log| delivered(log).is_superset(&expected(60..80))).await;
    assert_eq!(shown["workers"][0]["leases"], 2, "{shown:#}");
    let metrics = get(&daemon.address, "/metrics").await;
    assert!(has(&metrics, "multilangd_shards_parked_by_operator ", 1.0), "{metrics}");
    assert!(has(&metrics, "multilangd_shards_parked ", 0.0), "{metrics}");
    assert!(get(&daemon.address, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert_eq!(logged(&daemon.daemon.stderr, "shard_parked_by_operator").len(), 1);
    assert!(logged(&daemon.daemon.stderr, "shard_stuck").is_empty());

    // A restart keeps the order: no child is started.
    assert_eq!(daemon.daemon.stop().await, Some(0));
    let at_restart = rig.log.len();
    let mut daemon = worker(&rig, "second", &file).await;
    until_state(&daemon, &parked).await;
    assert!(!said(&rig.log[at_restart..], "initialize").contains(&zero.as_str()));
    assert!(delivered(&rig.log).is_disjoint(&expected(40..60)), "delivered while parked");

    succeeds(&rig, &file, &["unpark", "--shard", &zero]).await;
    rig.until("all records", |log| delivered(log) == expected(0..80)).await;
    until_state(&daemon, &idle).await;
    assert_eq!(logged(&daemon.daemon.stderr, "shard_unparked").len(), 1);
    assert_eq!(daemon.daemon.stop().await, Some(0));
    assert_in_order(&rig.log);
    assert_eq!(count(&rig.log), 80, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_at_latest_skips_no_record_while_parked() {
    for (name, more) in [("on", ""), ("off", "multilangd.resumeLatest = false\n")] {
        let mut rig = Rig::start(&format!("park-latest-{name}")).await;
        rig.stream(1).await;
        let file = properties(&mut rig, "each", more);
        let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON", "= LATEST");
        std::fs::write(&file, text).unwrap();
        let zero = shard(0);
        let mut daemon = worker(&rig, "first", &file).await;
        until_state(&daemon, &[(zero.as_str(), "idle")]).await;
        succeeds(&rig, &file, &["park"]).await;
        until_state(&daemon, &[(zero.as_str(), PARKED)]).await;
        let dated = rig.rows().await[&zero].contains_key("multilangdLatestFrom");
        assert!(dated, "{name}");
        rig.put(&numbered(5..10)).await;
        succeeds(&rig, &file, &["unpark"]).await;
        rig.until("the records put meanwhile", |log| delivered(log).is_superset(&expected(5..10))).await;
        rig.until("its checkpoint", |log| !said(log, "checkpointed").is_empty()).await;
        assert_eq!(daemon.daemon.stop().await, Some(0));

        // An owner that never delivered anything: the row is as new.
        succeeds(&rig, &file, &["seek", "--to", "LATEST"]).await;
        succeeds(&rig, &file, &["park"]).await;
        rig.put(&numbered(10..15)).await;
        let mut daemon = worker(&rig, "second", &file).await;
        until_state(&daemon, &[(zero.as_str(), PARKED)]).await;
        rig.put(&numbered(15..20)).await;
        succeeds(&rig, &file, &["unpark"]).await;
        rig.until("the records put while parked", |log| delivered(log).is_superset(&expected(5..20))).await;
        assert_eq!(daemon.daemon.stop().await, Some(0));
        assert_in_order(&rig.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_shard_is_parked_by_the_operator_without_alarm() {
    let mut rig = Rig::start("park-failing").await;
    rig.stream(1).await;
    let fixed = rig.folder.join("fixed");
    let child = format!("each poison={}", fixed.display());
    let file =
        properties(&mut rig, &child, "taskBackoffTimeMillis = 50\nmultilangd.maxParkedPauseMillis = 60000\n");
    let zero = shard(0);
    let mut daemon = worker(&rig, "first", &file).await;
    rig.put(&[("key".to_owned(), b"poison".to_vec())]).await;
    until_state(&daemon, &[(zero.as_str(), "parked")]).await;
    succeeds(&rig, &file, &["park"]).await;
    until_state(&daemon, &[(zero.as_str(), PARKED)]).await;
    assert!(has(&get(&daemon.address, "/metrics").await, "multilangd_shards_parked ", 0.0));
    std::fs::write(&fixed, "").unwrap();
    // Long before the restart of a shard that is parked for its failures.
    succeeds(&rig, &file, &["unpark"]).await;
    rig.until("the record", |log| !said(log, "checkpointed").is_empty()).await;
    until_state(&daemon, &[(zero.as_str(), "idle")]).await;
    assert_eq!(daemon.daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_application_continues_where_it_stopped() {
    let mut rig = Rig::start("pause").await;
    rig.stream(2).await;
    let file = properties(&mut rig, "each", "");
    let mut workers = vec![worker(&rig, "first", &file).await];
    rig.put(&numbered(0..40)).await;
    rig.until("all records", |log| delivered(log) == expected(0..40)).await;
    workers.push(worker(&rig, "second", &file).await);
    let is_idle = |status: &Value| matches!(held(status)[..], [(_, "idle")]);
    until(&workers[1].address, "a lease of the second worker", is_idle).await;
    rig.until("its child", |log| said(log, "initialize").len() == 3).await;

    succeeds(&rig, &file, &["park", "--shard", &shard(1)]).await;
    succeeds(&rig, &file, &["pause"]).await;
    for worker in &workers {
        let all_parked = |status: &Value| held(status).iter().all(|(_, state)| *state == PARKED);
        until(&worker.address, "all shards parked", all_parked).await;
    }
    rig.until("the end of all children", |log| alive(log) == 0).await;
    let at = rig.log.len();
    let from = delivered(&rig.log);
    let shown = listed(&rig, &file).await;
    for lease in shown["leases"].as_array().unwrap() {
        assert!(lease["paused"]["sinceMillis"].as_i64() > Some(0), "{shown:#}");
    }
    let zero = shard(0);
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(&zero);
    split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    rig.put(&numbered(40..100)).await;
    // A worker that takes the leases of the other one over keeps the pause.
    let mut left = workers.remove(0);
    assert_eq!(left.daemon.stop().await, Some(0));
    let parked = [(zero.as_str(), PARKED), (&shard(1), PARKED)];
    until_state(&workers[0], &parked).await;

    succeeds(&rig, &file, &["resume"]).await;
    until(&workers[0].address, "only the parked shard", |status| {
        held(status).iter().all(|(of, state)| (*of == shard(1)) == (*state == PARKED))
    })
    .await;
    rig.until("the child shards", |log| {
        let begun = said(&log[at..], "initialize");
        [shard(2), shard(3)].iter().all(|child| begun.contains(&child.as_str()))
    })
    .await;
    assert!(delivered(&rig.log).is_superset(&from));
    assert!(!said(&rig.log[at..], "initialize").contains(&shard(1).as_str()), "it is parked, too");
    succeeds(&rig, &file, &["unpark"]).await;
    rig.until("all records", |log| delivered(log) == expected(0..100)).await;
    assert_eq!(workers[0].daemon.stop().await, Some(0));
    assert_in_order(&rig.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_orders_are_refused_and_no_row_changes() {
    let mut rig = Rig::start("park-wrong").await;
    rig.stream(1).await;
    let file = properties(&mut rig, "each", "");
    assert_eq!(verb(&rig, &file, &["pause"]).await.0, Some(69), "there is no table");
    let mut daemon = worker(&rig, "first", &file).await;
    until_state(&daemon, &[(&shard(0), "idle")]).await;
    assert_eq!(daemon.daemon.stop().await, Some(0));
    let before = rig.all_rows().await;
    for (arguments, code) in [
        (&["park", "--shard", "shardId-000000000007"][..], 1),
        (&["unpark", "--shard", "shardId-000000000007"], 1),
        (&["resume", "--shard", "shardId-000000000000"], 64),
        (&["unpark"], 0),
        (&["resume"], 0),
        (&["park", "--dry-run"], 0),
        (&["pause", "--dry-run"], 0),
    ] {
        let (ended, printed) = verb(&rig, &file, arguments).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {printed}\n{}", rig.daemon_log());
        assert_eq!(rig.all_rows().await, before, "{arguments:?} changed a row");
    }
}
