//! A child that closes its stdin and keeps running: the next message detects this, and the child is replaced.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_with_the_next_message() {
    let mut scene = Scene::new("stdin", 2).await.plan(0, "idle", "close-stdin");
    let daemon = scene.daemon();
    scene.put().await;
    scene.wait_for_faults().await;
    scene.settled().await;
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    run.assert_failures_logged("stdin");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_under_policy_exit() {
    let mut scene = Scene::new("stdin-exit", 2).await.plan(0, "idle", "close-stdin");
    scene = scene.lines("multilangd.onChildFailure = exit\n");
    let mut daemon = scene.daemon();
    scene.put().await;
    scene.wait_for_faults().await;
    scene.put().await;
    let exit = daemon.ended().await.code();
    scene.end(&daemon, exit).await.assert_daemon_ends();
}
