//! A child that closes its stdout and keeps running cannot answer any more. Java waits for its exit.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_although_it_lives() {
    let scene = Scene::new("stdout", 3).await;
    let run = scene.plan(0, "processRecords", "close-stdout").plan(1, "idle", "close-stdout").play().await;
    run.assert_sound();
    run.assert_failures_logged("stdout");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_under_policy_exit() {
    let scene = Scene::new("stdout-exit", 2).await.plan(0, "processRecords", "close-stdout");
    scene.lines("multilangd.onChildFailure = exit\n").play_to_the_end().await.assert_daemon_ends();
}
