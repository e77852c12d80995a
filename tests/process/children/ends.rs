//! A child that exits with 0, with 1, or by a signal: the daemon treats all of these alike, at any point.

use multilangd::lease::WorkerId;

use super::scene::{Run, Scene, of_kind, shard};
use crate::rig::*;

const FAULTS: [(&str, &str); 3] =
    [("exit:0", "exit code 0"), ("exit:1", "exit code 1"), ("signal:9", "signal 9")];

/// Three shards whose child exits in different ways, and one whose child is correct.
async fn scene(moment: &'static str) -> Scene {
    let mut scene = Scene::new(&format!("ends-{moment}"), 4).await;
    for (index, (fault, _)) in FAULTS.iter().enumerate() {
        scene = scene.plan(index, moment, *fault);
    }
    scene
}

fn assert_each_failure_logged(run: &Run) {
    let failures = run.failures();
    assert_eq!(failures.len(), 3, "{}", run.text());
    for (index, (_, words)) in FAULTS.iter().enumerate() {
        let reason = failures.iter().find(|(of, ..)| *of == shard(index)).unwrap().2;
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_initialize() {
    let run = scene("initialize").await.play().await;
    run.assert_sound();
    assert_each_failure_logged(&run);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_records() {
    let run = scene("processRecords").await.play().await;
    run.assert_sound();
    assert_each_failure_logged(&run);
}

/// Java notices the exit only when the next record arrives.
#[tokio::test(flavor = "multi_thread")]
async fn idle() {
    let run = scene("idle").await.play().await;
    run.assert_sound();
    assert_each_failure_logged(&run);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shard_ended() {
    let mut scene = scene("shardEnded").await;
    let daemon = scene.daemon();
    scene.put().await;
    scene.settled().await;
    let all: Vec<String> = scene.all_shards().collect();
    for parent in &all {
        let split = scene.rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split(parent);
        let quarter = (1u128 << 126) * u128::from(parent.as_bytes()[parent.len() - 1] - b'0');
        split.new_starting_hash_key((quarter + (1 << 125)).to_string()).send().await.unwrap();
    }
    scene.wait_for_faults().await;
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_each_failure_logged(&run);
    for parent in &all[..3] {
        let count = of_kind(&run.log, "shardEnded").filter(|(_, of, _)| of == parent).count();
        assert_eq!(count, 2, "{parent} gets shardEnded again until its end is checkpointed");
    }
}

/// Another worker owns the lease by then, so this worker does not replace the child.
#[tokio::test(flavor = "multi_thread")]
async fn in_lease_lost() {
    let mut scene = scene("leaseLost").await.lines("failoverTimeMillis = 2000\n");
    let daemon = scene.daemon();
    scene.put().await;
    scene.settled().await;
    for index in 0..3 {
        steal(&scene.rig, &shard(index)).await;
    }
    scene.wait_for_faults().await;
    // The other owner does not renew, so the leases expire and return.
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_eq!(run.failures(), [], "nothing of this shard is ours to fail");
    assert!((0..3).all(|index| run.children(&shard(index)).len() == 2));
}

/// Steals a lease as another worker would: changes the counter and the owner.
pub async fn steal(rig: &Rig, shard: &str) {
    let thief = WorkerId::from("thief");
    let update = rig.clients.dynamodb.update_item().table_name(APPLICATION);
    let key = aws_sdk_dynamodb::types::AttributeValue::S(shard.to_owned());
    let owner = aws_sdk_dynamodb::types::AttributeValue::S(thief.to_string());
    let one = aws_sdk_dynamodb::types::AttributeValue::N("1".to_owned());
    let update = update.key("leaseKey", key).update_expression("SET leaseOwner = :o ADD leaseCounter :one");
    let update = update.expression_attribute_values(":o", owner).expression_attribute_values(":one", one);
    update.send().await.unwrap();
}

/// A graceful shutdown continues as if the child had answered.
#[tokio::test(flavor = "multi_thread")]
async fn in_shutdown_requested() {
    let mut scene = scene("shutdownRequested").await;
    let daemon = scene.daemon();
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_eq!(of_kind(&run.log, "fault").count(), 3);
    let shards: Vec<&str> = of_kind(&run.log, "leaseLost").map(|(_, of, _)| of).collect();
    assert_eq!(shards, [shard(3)], "the other children have exited by then");
}

#[tokio::test(flavor = "multi_thread")]
async fn first_exit_ends_the_daemon_under_policy_exit() {
    for (moment, fault) in [("initialize", "exit:0"), ("processRecords", "signal:9"), ("idle", "exit:1")] {
        let scene = Scene::new(&format!("exit-{moment}"), 2).await.plan(0, moment, fault);
        let run = scene.lines("multilangd.onChildFailure = exit\n").play_to_the_end().await;
        run.assert_daemon_ends();
        assert_eq!(run.failures().len(), 1);
    }
}
