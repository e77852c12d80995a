//! The environment variables by which a record processor learns what it reads.

use serde_json::{Value, json};

use crate::rig::*;

/// The environments of the children, in the order of their starts.
fn environments(log: &[Report]) -> Vec<Value> {
    let of = |report: &Report| match report {
        Report::Said { what, body, .. } if what == "environment" => Some(body.clone()),
        _ => None,
    };
    log.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn child_gets_its_shard_stream_and_attempt_as_variables() {
    let mut rig = Rig::start("environment").await;
    rig.stream(1).await;
    // A daemon that itself runs below another one does not pass the values of that one on.
    rig.environment.push(("MULTILANGD_SHARD_ID".into(), "of another".into()));
    rig.put(&[("k".to_owned(), b"x".to_vec())]).await;
    let once = rig.folder.join("died");
    let child = rig.scripted(&format!("each environment dies-once={}", once.display()));
    let file = rig.properties(&child, "workerId = w-1\ntaskBackoffTimeMillis = 20\n");
    let mut daemon = rig.daemon(&file);
    rig.until("a checkpoint", |log| !said(log, "checkpointed").is_empty()).await;
    let pid = rig.log.iter().rev().find_map(|report| match report {
        Report::Said { pid, .. } => Some(*pid),
        Report::Gone { .. } => None,
    });
    crate::parked::end(pid.unwrap());
    rig.until("a third child", |log| environments(log).len() == 3).await;
    assert_eq!(daemon.stop().await, Some(0));
    let expected = |attempt: &str| {
        json!({
            "APPLICATION_NAME": APPLICATION,
            "STREAM_NAME": STREAM,
            "STREAM_ARN": format!("arn:aws:kinesis:us-east-1:000000000000:stream/{STREAM}"),
            "SHARD_ID": "shardId-000000000000",
            "LEASE_KEY": "shardId-000000000000",
            "WORKER_ID": "w-1",
            "CHILD_ATTEMPT": attempt,
        })
    };
    // The first child died at its first batch, the second one after a checkpoint.
    assert_eq!(environments(&rig.log), [expected("1"), expected("2"), expected("1")]);
}
