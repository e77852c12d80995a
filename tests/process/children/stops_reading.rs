//! A child that does not read its stdin, while more data waits than the pipe holds. `timeoutInSeconds` ends the
//! child, and no other shard waits for that pipe.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_after_its_timeout_while_others_continue() {
    let mut scene =
        Scene::new("unread", 2).await.plan(0, "initialize", "unread").lines("timeoutInSeconds = 1\n");
    let daemon = scene.daemon();
    scene.wait_for_faults().await;
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    run.assert_failures_logged("timeoutInSeconds");
}

/// A batch of a megabyte and a half waits for a child that does not read: the write blocks, the daemon does
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn full_pipe_blocks_no_other_shard() {
    let mut scene = Scene::new("full", 2).await.plan(0, "idle", "unread").lines("timeoutInSeconds = 1\n");
    let daemon = scene.daemon();
    scene.put().await;
    scene.wait_for_faults().await;
    let big: Vec<_> = (0..20).map(|n| (format!("big-{n}"), vec![b'x'; 150_000])).collect();
    scene.rig.put(&big).await;
    scene
        .rig
        .until("all big ones", |log| {
            let keys = |records: &[crate::rig::Seen]| {
                records.iter().filter(|r| r.key.starts_with("big")).map(|r| r.key.clone()).collect::<Vec<_>>()
            };
            let seen: std::collections::BTreeSet<String> =
                crate::rig::records(log).values().flat_map(|records| keys(records)).collect();
            seen.len() == 20
        })
        .await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    run.assert_failures_logged("timeoutInSeconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_under_policy_exit() {
    let scene = Scene::new("unread-exit", 2).await.plan(0, "initialize", "unread");
    let run = scene.lines("timeoutInSeconds = 1\nmultilangd.onChildFailure = exit\n").play_to_the_end().await;
    run.assert_daemon_ends();
}
