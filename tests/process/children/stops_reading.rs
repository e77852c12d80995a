//! A child that leaves its stdin unread: more waits for it than the pipe holds. `timeoutInSeconds` ends it,
//! and nobody else waits for that pipe.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_when_its_time_is_over_and_the_others_go_on() {
    let mut scene = Scene::new("deaf", 2).await.plan(0, "initialize", "deaf").lines("timeoutInSeconds = 1\n");
    let daemon = scene.daemon();
    scene.deeds().await;
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    run.assert_told_once("timeoutInSeconds");
}

/// A batch of a megabyte and a half lies in front of a child that doesn't read: the write blocks, the
/// daemon doesn't.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_pipe_holds_nobody_up() {
    let mut scene = Scene::new("full", 2).await.plan(0, "idle", "deaf").lines("timeoutInSeconds = 1\n");
    let daemon = scene.daemon();
    scene.put().await;
    scene.deeds().await;
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
    run.assert_told_once("timeoutInSeconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_everyones_end_under_the_policy_exit() {
    let scene = Scene::new("deaf-exit", 2).await.plan(0, "initialize", "deaf");
    let run = scene.lines("timeoutInSeconds = 1\nmultilangd.onChildFailure = exit\n").play_to_the_end().await;
    run.assert_others_suffer();
}
