//! A child that requests checkpoints at every point of its life, and many before it reads an answer. The error
//! names are Java's (transcripts `a_*`, `b_*`, `e_*`).

use super::scene::{Scene, of_kind, shard};
use crate::rig::*;

fn errors(log: &[Report], moment: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut at = false;
    for report in log {
        let Report::Said { what, body, .. } = report else { continue };
        if what == "fault" {
            at = body["moment"] == moment;
        } else if what == "answered" && at {
            errors.push(body["error"].as_str().unwrap_or("none").to_owned());
            at = false;
        }
    }
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_the_answers_of_java() {
    let mut scene = Scene::new("ask", 1).await;
    for moment in ["initialize", "processRecords", "shutdownRequested", "leaseLost"] {
        scene = scene.plan(0, moment, "ask");
    }
    let daemon = scene.daemon();
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_eq!(errors(&run.log, "initialize"), ["InvalidStateException"]);
    assert_eq!(errors(&run.log, "processRecords"), ["none"]);
    assert_eq!(errors(&run.log, "shutdownRequested"), ["none"]);
    assert_eq!(errors(&run.log, "leaseLost"), ["InvalidStateException"]);
}

/// Java stores it, and a restart then skips the records put in between.
#[tokio::test(flavor = "multi_thread")]
async fn latest_is_rejected_while_trim_horizon_is_stored() {
    let run = Scene::new("ask-latest", 1).await.plan(0, "processRecords", "ask:LATEST").play().await;
    run.assert_sound();
    assert_eq!(errors(&run.log, "processRecords"), ["IllegalArgumentException"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_end_can_be_checkpointed() {
    let mut scene = Scene::new("ask-end", 1).await.plan(0, "shardEnded", "ask");
    let daemon = scene.daemon();
    scene.put().await;
    scene.settled().await;
    let split = scene.rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(shard(0));
    split.new_starting_hash_key((1u128 << 127).to_string()).send().await.unwrap();
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_eq!(errors(&run.log, "shardEnded"), ["none"]);
    let own =
        |(_, of, body): &(i32, &str, &serde_json::Value)| *of == shard(0) && body["sequenceNumber"].is_null();
    let ends: Vec<_> = of_kind(&run.log, "checkpointed").filter(own).collect();
    assert!(ends.len() == 1 && ends[0].2["error"].is_null(), "a second time is a success too");
}

/// The lease was lost during a batch: the checkpoint is rejected with Java's error.
#[tokio::test(flavor = "multi_thread")]
async fn lost_lease_answers_shutdown_exception() {
    let mut scene = Scene::new("ask-lost", 2).await.lines("failoverTimeMillis = 3000\n");
    let go = scene.rig.folder.join("go");
    scene = scene.plan(0, "processRecords", format!("waits:{}", go.display()));
    let daemon = scene.daemon();
    scene.put().await;
    scene.wait_for_faults().await;
    super::ends::steal(&scene.rig, &shard(0)).await;
    std::fs::write(&go, "").unwrap();
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_eq!(errors(&run.log, "processRecords"), ["ShutdownException"]);
    assert_eq!(
        of_kind(&run.log, "leaseLost").filter(|(_, of, _)| *of == shard(0)).count(),
        2,
        "then, and at the stop"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pending_requests_are_answered_in_order() {
    let run = Scene::new("in-flight", 2).await.plan(0, "processRecords", "checkpoints:200").play().await;
    run.assert_sound();
    assert_eq!(of_kind(&run.log, "answered").filter(|(_, _, body)| body["error"].is_null()).count(), 200);
}
