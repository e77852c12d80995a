//! A child that answers with another action's name, with the wrong case, or with none.

use super::scene::{Scene, of_kind};

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced() {
    let scene = Scene::new("wrong", 4).await;
    let scene =
        scene.plan(0, "processRecords", "answer:initialize").plan(1, "initialize", "answer:Initialize");
    let run = scene.plan(2, "processRecords", "answer-null").play().await;
    run.assert_sound();
    run.assert_failures_logged("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_under_policy_exit() {
    let scene = Scene::new("wrong-exit", 2).await.plan(0, "processRecords", "answer-null");
    let run = scene.lines("multilangd.onChildFailure = exit\n").play_to_the_end().await;
    run.assert_daemon_ends();
    run.assert_failures_logged("responseFor");
}

/// Clever's Go client answers "shutdown"; Java continues as well.
#[tokio::test(flavor = "multi_thread")]
async fn is_ignored_at_shutdown_requested() {
    let mut scene = Scene::new("wrong-stop", 2).await.plan(0, "shutdownRequested", "answer:shutdown");
    let daemon = scene.daemon();
    scene.put().await;
    scene.settled().await;
    let run = scene.stop(daemon).await;
    run.assert_sound();
    assert_eq!(of_kind(&run.log, "leaseLost").count(), 2, "both receive leaseLost");
}
