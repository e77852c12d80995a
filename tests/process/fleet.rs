//! Several daemons on one table: shares, and records that go on through every change of hands.

use std::collections::BTreeMap;

use crate::rig::*;

/// How many leases each worker has.
async fn shares(rig: &Rig) -> Vec<usize> {
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for row in rig.rows().await.values() {
        if let Some(owner) = row.get("leaseOwner") {
            *shares.entry(owner.as_s().unwrap().clone()).or_default() += 1;
        }
    }
    let mut shares: Vec<usize> = shares.into_values().collect();
    shares.sort_unstable();
    shares
}

async fn put(rig: &Rig, from: usize) {
    let records: Vec<_> = (from..from + 100).map(|n| (format!("key-{n}"), vec![b'x'; 10])).collect();
    rig.put(&records).await;
}

fn keys(log: &[Report]) -> usize {
    let seen = records(log).into_values().flatten().map(|record| record.key);
    seen.collect::<std::collections::BTreeSet<String>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_joins_gets_its_share_and_gives_it_back_when_it_leaves() {
    let mut rig = Rig::start("join").await;
    rig.stream(4).await;
    let file = rig.properties(&rig.scripted("each"), "failoverTimeMillis = 1500\n");
    let mut first = rig.daemon(&file);
    put(&rig, 0).await;
    rig.until("a worker with four shards", |log| said(log, "initialize").len() == 4 && keys(log) == 100)
        .await;
    let mut second = rig.daemon(&file);
    rig.until("two shards change hands", |log| said(log, "initialize").len() == 6).await;
    put(&rig, 100).await;
    rig.until("more records", |log| keys(log) == 200).await;
    assert_eq!(shares(&rig).await, [2, 2]);
    assert_eq!(said(&rig.log, "leaseLost").len(), 2, "and no more than that");

    assert_eq!(second.stop().await, Some(0));
    put(&rig, 200).await;
    rig.until("the first has all again", |log| said(log, "initialize").len() == 8 && keys(log) == 300).await;
    assert_eq!(shares(&rig).await, [4]);
    assert_eq!(first.stop().await, Some(0));
    rig.until("all children gone", |log| alive(log) == 0).await;
    for (shard, records) in records(&rig.log) {
        assert!(
            records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence),
            "{shard}: out of order, or twice"
        );
    }
    assert!(pids(&rig.log).into_iter().all(is_gone), "no orphans");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_of_a_worker_that_was_killed_are_read_on_by_another() {
    let mut rig = Rig::start("take-over").await;
    rig.stream(4).await;
    let file = rig.properties(&rig.scripted("each"), "failoverTimeMillis = 1500\n");
    let mut first = rig.daemon(&file);
    put(&rig, 0).await;
    rig.until("a worker with four shards", |log| said(log, "initialize").len() == 4 && keys(log) == 100)
        .await;
    let mut second = rig.daemon(&file);
    rig.until("two shards change hands", |log| said(log, "initialize").len() == 6).await;
    first.signal(rustix::process::Signal::KILL);
    first.ended().await;
    put(&rig, 100).await;
    rig.until("all shards are read", |log| said(log, "initialize").len() == 8 && keys(log) == 200).await;
    assert_eq!(shares(&rig).await, [4]);
    assert_eq!(second.stop().await, Some(0));
}
