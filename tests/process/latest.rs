//! Leases at `LATEST` whose first owner dies before the first checkpoint.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use crate::rig::*;

const SHARD: &str = "shardId-000000000000";

fn delivered(log: &[Report], text: &str) -> bool {
    records(log).values().flatten().any(|record| record.data == text.as_bytes())
}

async fn put(rig: &Rig, text: &str) {
    rig.put(&[("key".to_owned(), text.as_bytes().to_vec())]).await;
}

async fn latest_from(rig: &Rig) -> Option<String> {
    let row = rig.rows().await.remove(SHARD).unwrap();
    row.get("multilangdLatestFrom").map(|value| value.as_n().unwrap().clone())
}

/// Puts records until the first one is delivered: then reading has begun.
async fn until_reading(rig: &mut Rig, from: usize) {
    while !delivered(&rig.log[from..], "begins") {
        put(rig, "begins").await;
        if let Ok(Some(report)) = timeout(Duration::from_millis(200), rig.reports.recv()).await {
            rig.log.push(report);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn next_owner_starts_where_the_first_one_began() {
    for mode in ["POLLING", "FANOUT"] {
        let mut rig = Rig::start(&format!("latest-{mode}")).await;
        rig.stream(1).await;
        let more = format!("failoverTimeMillis = 3000\nretrievalMode = {mode}\n");
        let file = |rig: &Rig, child: &str| {
            let file = rig.properties(&rig.scripted(child), &more);
            let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON", "= LATEST");
            std::fs::write(&file, text).unwrap();
            file
        };
        put(&rig, "before").await;
        let first = file(&rig, "");
        let mut daemon = rig.daemon(&first);
        until_reading(&mut rig, 0).await;
        put(&rig, "uncheckpointed").await;
        rig.until("its record", |log| delivered(log, "uncheckpointed")).await;
        let began = latest_from(&rig).await.expect("a stored start");
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        put(&rig, "meanwhile").await;

        let at = rig.log.len();
        let second = file(&rig, "each");
        let mut daemon = rig.daemon(&second);
        rig.until("both records", |log| {
            ["uncheckpointed", "meanwhile"].iter().all(|text| delivered(&log[at..], text))
        })
        .await;
        rig.until("a checkpoint", |log| !said(&log[at..], "checkpointed").is_empty()).await;
        assert_eq!(latest_from(&rig).await, None, "began at {began}");
        assert_eq!(daemon.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn start_is_not_stored_if_latest_is_not_resumed() {
    let mut rig = Rig::start("latest-off").await;
    rig.stream(1).await;
    let file = rig.properties(&rig.scripted(""), "multilangd.resumeLatest = false\n");
    let text = std::fs::read_to_string(&file).unwrap().replace("= TRIM_HORIZON", "= LATEST");
    std::fs::write(&file, text).unwrap();
    let mut daemon = rig.daemon(&file);
    until_reading(&mut rig, 0).await;
    assert_eq!(latest_from(&rig).await, None);
    assert_eq!(daemon.stop().await, Some(0));
}
