//! Enhanced fan-out: renewals, reshards and errors of SubscribeToShard; no record is lost or delivered twice.

use std::time::Duration;

use multilangd::local::kinesis::{Effect, Fault, Operation, Options};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::forwarding::{Wire, trust};
use crate::rig::*;

const FANOUT: &str = "retrievalMode = FANOUT\ntaskBackoffTimeMillis = 50\nshardSyncIntervalMillis = 500\n";

fn short(length: u64) -> Options {
    Options {
        subscription_length: Duration::from_millis(length),
        subscription_cooldown: Duration::from_millis(500),
        heartbeat: Duration::from_millis(500),
        ..Options::default()
    }
}

fn numbered(from: usize, count: usize) -> Vec<(String, Vec<u8>)> {
    (from..from + count).map(|n| (format!("k{}", n % 97), format!("{n}").into_bytes())).collect()
}

/// The records that children received, by their number.
async fn all_of(rig: &mut Rig, count: usize) -> Vec<usize> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let Report::Said { what, body, .. } = rig.report().await else { continue };
        if what == "processRecords" {
            seen.extend(body["records"].as_array().unwrap().iter().map(text));
        }
    }
    seen
}

fn text(record: &Value) -> usize {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.decode(record["data"].as_str().unwrap()).unwrap();
    String::from_utf8(data).unwrap().parse().unwrap()
}

fn assert_each_once(mut seen: Vec<usize>, count: usize) {
    seen.sort_unstable();
    let twice: Vec<&[usize]> = seen.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "twice: {:?}", &twice[..twice.len().min(9)]);
    assert!(seen.iter().copied().eq(0..count), "{} of {count}", seen.len());
}

/// Puts records while a daemon reads, for as long as the renewals take, reshards the stream, and injects the
/// faults of `trouble`. Returns the lines of the daemon's log.
async fn pushed(mut rig: Rig, count: usize, span: Duration, trouble: impl Fn(&Rig, usize)) -> Vec<Value> {
    let (rounds, part) = (50, count / 50);
    rig.put(&numbered(0, part)).await;
    let file = rig.properties(&rig.scripted("each"), FANOUT);
    let mut daemon = rig.daemon(&file);
    let mut next = Instant::now();
    let mut seen = all_of(&mut rig, part).await;
    for round in 1..rounds {
        next += span / rounds;
        tokio::time::sleep_until(next).await;
        trouble(&rig, usize::try_from(round).unwrap());
        if round == 15 {
            split(&rig, "shardId-000000000000").await;
        }
        if round == 30 {
            merge(&rig, "shardId-000000000001", "shardId-000000000002").await;
        }
        let round = usize::try_from(round).unwrap();
        rig.put(&numbered(round * part, part)).await;
        seen.extend(all_of(&mut rig, part).await);
    }
    let stopped = Instant::now();
    assert_eq!(daemon.stop().await, Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_eq!(count, count_of(&rig), "nothing comes after all");
    assert_each_once(seen, count);
    assert_in_order(&rig.log);
    assert_eq!(said(&rig.log, "shardEnded").len(), 3);
    let failures = logged(&daemon.stderr, "get_records_failed");
    assert!(failures.is_empty(), "{failures:#?}");
    log_lines(&daemon.stderr)
}

fn count_of(rig: &Rig) -> usize {
    crate::rig::count(&rig.log)
}

async fn split(rig: &Rig, shard: &str) {
    // The faults are not meant for these calls.
    rig.kinesis.faults().clear();
    let shards = rig.clients.kinesis.list_shards().stream_name(STREAM).send().await.unwrap();
    let of = shards.shards().iter().find(|one| one.shard_id() == shard).unwrap();
    let range = of.hash_key_range().unwrap();
    let (from, to): (u128, u128) =
        (range.starting_hash_key().parse().unwrap(), range.ending_hash_key().parse().unwrap());
    let middle = from + (to - from) / 2;
    let call = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard);
    call.new_starting_hash_key(middle.to_string()).send().await.unwrap();
    active(rig).await;
}

async fn merge(rig: &Rig, left: &str, right: &str) {
    let call = rig.clients.kinesis.merge_shards().stream_name(STREAM);
    call.shard_to_merge(left).adjacent_shard_to_merge(right).send().await.unwrap();
    active(rig).await;
}

/// Waits until the stream is active; kinesis-local takes a moment.
async fn active(rig: &Rig) {
    let limit = Instant::now() + LIMIT;
    loop {
        let summary = rig.clients.kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let status = summary.stream_description_summary.unwrap().stream_status;
        if status == aws_sdk_kinesis::types::StreamStatus::Active {
            return;
        }
        assert!(Instant::now() < limit, "{status:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_reshards_and_faults_lose_or_repeat_nothing() {
    let mut rigs = JoinSet::new();
    for seed in 0..2 {
        rigs.spawn(async move {
            let rig = Rig::with("fanout", short(1_500)).await;
            rig.stream(4).await;
            let random = std::sync::Mutex::new(fastrand::Rng::with_seed(seed));
            let span = Duration::from_secs(20);
            pushed(rig, 50_000, span, |rig, round| {
                let mut random = random.lock().unwrap();
                let effects = [
                    Effect::Throttle,
                    Effect::Fail,
                    Effect::LoseAnswer,
                    Effect::CutAnswer,
                    Effect::Delay(Duration::from_millis(300)),
                ];
                let calls = [Operation::SubscribeToShard, Operation::ListShards];
                if random.u32(0..3) == 0 {
                    let (call, effect) = (random.choice(calls).unwrap(), random.choice(effects).unwrap());
                    rig.kinesis.faults().add(Fault::on(call, effect).times(random.u32(1..3)));
                }
                if random.u32(0..3) == 0 {
                    rig.kinesis.drop_subscriptions(Some(STREAM), None);
                }
                if round == 40 {
                    let subscribed = rig.kinesis.faults().calls(Operation::SubscribeToShard);
                    assert!(subscribed > 40, "{subscribed} subscriptions");
                    assert_eq!(rig.kinesis.faults().calls(Operation::GetRecords), 0);
                }
            })
            .await;
        });
    }
    while let Some(ended) = rigs.join_next().await {
        ended.unwrap();
    }
}

/// As with AWS: TLS, and one HTTP/2 connection for two subscriptions, which is also cut at times.
#[tokio::test(flavor = "multi_thread")]
async fn tls_and_http_2_lose_or_repeat_nothing() {
    let mut rig = Rig::with("tls", short(1_500)).await;
    let wire = Wire::over_tls(rig.url.strip_prefix("http://").unwrap()).await;
    rig.url = wire.url.clone();
    rig.environment.push(trust());
    rig.stream(4).await;
    pushed(rig, 20_000, Duration::from_secs(10), |rig, round| {
        if round % 8 == 0 {
            wire.cut();
        }
        if round == 40 {
            let subscribed = rig.kinesis.faults().calls(Operation::SubscribeToShard);
            assert!(subscribed > 20, "{subscribed} subscriptions");
            assert_eq!(rig.kinesis.faults().calls(Operation::GetRecords), 0);
        }
    })
    .await;
    let (connections, of_http_2) = *wire.connections.borrow();
    assert_eq!(connections, of_http_2, "AWS pushes by HTTP/2 alone");
    // Each cut closes all connections.
    assert!((6..100).contains(&connections), "{connections} connections");
}

/// Reads from npm's kinesis-local, for `tests/kinesis_local`; it must be newly started. Its subscriptions last five
/// minutes, so the test cuts them at the beginning. A subscription to a closed shard never ends
/// (`tests/contract/suite.rs`), so the daemon must detect the end by itself. `MULTILANGD_KINESIS_LOCAL_RECORDS=100000`
/// takes 25 minutes and includes renewals.
#[allow(dead_code, reason = "tests/kinesis_local uses it")]
pub async fn assert_all_delivered_from_kinesis_local(url: String) {
    let wire = Wire::to(url.strip_prefix("http://").unwrap()).await;
    let mut rig = Rig::at("kinesis-local", url).await;
    rig.url = wire.url.clone();
    rig.stream(4).await;
    active(&rig).await;
    let records =
        std::env::var("MULTILANGD_KINESIS_LOCAL_RECORDS").map_or(5_000, |count| count.parse().unwrap());
    let is_long = records >= 100_000;
    let span = Duration::from_millis(if is_long { 15 } else { 3 }) * u32::try_from(records).unwrap();
    rig.environment.push(("RUST_LOG".into(), "info,multilangd::retrieval=debug".into()));
    let log = pushed(rig, records, span, |_, round| {
        if round <= 12 {
            wire.cut();
        }
    })
    .await;
    assert!(wire.connections.borrow().0 > 40, "twelve cuts, four shards");
    let renewals = log.iter().filter(|line| line["event"] == "subscription_expired").count();
    assert!(!is_long || renewals >= 10, "{renewals} renewals");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fan_out_records_are_polled_with_one_warning() {
    let mut rig = Rig::start("no-fanout").await;
    rig.stream(4).await;
    rig.put(&numbered(0, 400)).await;
    rig.kinesis.faults().add(Fault::on(Operation::RegisterStreamConsumer, Effect::Unknown));
    let file = rig.properties(&rig.scripted("each"), FANOUT);
    let mut daemon = rig.daemon(&file);
    let seen = all_of(&mut rig, 400).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_each_once(seen, 400);
    assert_eq!(logged(&daemon.stderr, "fanout_unsupported").len(), 1, "{}", rig.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_consumer_is_registered_again_without_loss() {
    let mut rig = Rig::with("deregistered", short(60_000)).await;
    rig.stream(2).await;
    rig.put(&numbered(0, 100)).await;
    let file = rig.properties(&rig.scripted("each"), FANOUT);
    let mut daemon = rig.daemon(&file);
    let mut seen = all_of(&mut rig, 100).await;
    let kinesis = &rig.clients.kinesis;
    let summary = kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let arn = summary.stream_description_summary.unwrap().stream_arn;
    let call = kinesis.deregister_stream_consumer().stream_arn(&arn).consumer_name(APPLICATION);
    call.send().await.unwrap();
    rig.put(&numbered(100, 100)).await;
    seen.extend(all_of(&mut rig, 100).await);
    assert_eq!(daemon.stop().await, Some(0));
    assert_each_once(seen, 200);
    let consumers = rig.clients.kinesis.list_stream_consumers().stream_arn(&arn).send().await.unwrap();
    assert_eq!(consumers.consumers().len(), 1, "it is there, and stays when the daemon goes");
    assert_eq!(consumers.consumers()[0].consumer_name(), APPLICATION);
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_consumer_arn_is_used_without_registration() {
    let mut rig = Rig::start("by-arn").await;
    rig.stream(1).await;
    rig.put(&numbered(0, 10)).await;
    let kinesis = &rig.clients.kinesis;
    let summary = kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let arn = summary.stream_description_summary.unwrap().stream_arn;
    let made =
        kinesis.register_stream_consumer().stream_arn(&arn).consumer_name("mine").send().await.unwrap();
    let consumer = made.consumer.unwrap().consumer_arn;
    let more = format!("{FANOUT}fanoutConfig.consumerArn = {consumer}\n");
    let file = rig.properties(&rig.scripted("each"), &more);
    let mut daemon = rig.daemon(&file);
    assert_each_once(all_of(&mut rig, 10).await, 10);
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(rig.kinesis.faults().calls(Operation::RegisterStreamConsumer), 1);
}

/// A child that does not answer for longer than the daemon keeps an unread subscription.
#[tokio::test(flavor = "multi_thread")]
async fn slow_child_delays_only_its_own_shard() {
    let mut rig = Rig::with("slow", short(2_000)).await;
    rig.stream(2).await;
    rig.put(&numbered(0, 200)).await;
    let once = rig.folder.join("once");
    let file = rig.properties(&rig.scripted(&format!("each hangs-once={}", once.display())), FANOUT);
    let mut daemon = rig.daemon(&file);
    let stuck = loop {
        if let Report::Said { what, shard, .. } = rig.report().await
            && what == "hangs"
        {
            break shard;
        }
    };
    for round in 1..10 {
        rig.put(&numbered(200 * round, 200)).await;
        let before = others(&rig, &stuck);
        rig.until("the other shard's", |log| others_of(log, &stuck) > before).await;
    }
    std::fs::write(rig.folder.join("once.go"), "").unwrap();
    rig.until("everything", |log| crate::rig::count(log) >= 2_000).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_in_order(&rig.log);
    assert_eq!(crate::rig::count(&rig.log), 2_000);
}

fn others(rig: &Rig, stuck: &str) -> usize {
    others_of(&rig.log, stuck)
}

/// The number of records that children of other shards received.
fn others_of(log: &[Report], stuck: &str) -> usize {
    let of = |report: &&Report| matches!(report, Report::Said { shard, .. } if shard != stuck);
    crate::rig::count(&log.iter().filter(of).cloned().collect::<Vec<_>>())
}
