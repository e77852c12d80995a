//! Faults of Kinesis: rejected calls, errors, connections that end before or within a response, expired
//! iterators. No record is lost or delivered twice, the order is preserved, and processing recovers soon after
//! the faults end.

use std::time::Duration;

use multilangd::local::kinesis::{Effect, Fault, Operation};
use tokio::time::Instant;

use crate::rig::*;

const KEYS: u32 = 40;

async fn put(rig: &Rig, round: u32) {
    let data = |key: u32| format!("{round}-{key}").into_bytes();
    rig.put(&(0..KEYS).map(|key| (key.to_string(), data(key))).collect::<Vec<_>>()).await;
}

async fn deliver_despite_faults(seed: u64) {
    let mut rig = Rig::start("troubled").await;
    rig.stream(4).await;
    let file = rig.properties(&rig.scripted("each"), "taskBackoffTimeMillis = 50\n");
    let mut daemon = rig.daemon(&file);
    put(&rig, 0).await;
    rig.until("the first records", |log| count(log) == 40).await;

    let mut random = fastrand::Rng::with_seed(seed);
    let calls =
        [Operation::GetRecords, Operation::GetRecords, Operation::GetShardIterator, Operation::ListShards];
    let effects = [
        Effect::Throttle,
        Effect::Fail,
        Effect::LoseAnswer,
        Effect::CutAnswer,
        Effect::Delay(Duration::from_millis(300)),
    ];
    let rounds = 12;
    for round in 1..=rounds {
        for _ in 0..4 {
            let (call, effect) = (random.choice(calls).unwrap(), random.choice(effects).unwrap());
            rig.kinesis.faults().add(Fault::on(call, effect).times(random.u32(1..4)));
        }
        if random.u32(0..3) == 0 {
            rig.kinesis.expire_iterators();
        }
        put(&rig, round).await;
        let all = usize::try_from((round + 1) * KEYS).unwrap();
        rig.until("what was put in trouble", |log| count(log) >= all).await;
    }
    rig.kinesis.faults().clear();
    put(&rig, rounds + 1).await;
    let start = Instant::now();
    let all = usize::try_from((rounds + 2) * KEYS).unwrap();
    rig.until("what was put after the trouble", |log| count(log) >= all).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?} after the trouble", start.elapsed());
    assert_eq!(daemon.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert_eq!(count(&rig.log), all, "nothing comes twice");
    assert_in_order(&rig.log);
    assert_eq!(said(&rig.log, "initialize").len(), 4, "no child was restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_faults_lose_or_repeat_nothing() {
    tokio::join!(deliver_despite_faults(0), deliver_despite_faults(1));
}
