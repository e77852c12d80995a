//! A child that does not answer within `timeoutInSeconds`. Java exits at once, without notifying any child.

use super::scene::{Scene, of_kind};

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_when_its_time_is_over() {
    let scene = Scene::new("silent", 3).await.plan(0, "processRecords", "hang").plan(1, "initialize", "hang");
    let run = scene.lines("timeoutInSeconds = 1\n").play().await;
    run.assert_sound();
    run.assert_failures_logged("timeoutInSeconds");
}

/// Without the key a child may take any time; a graceful shutdown has its own limit.
#[tokio::test(flavor = "multi_thread")]
async fn is_awaited_without_limit_except_during_shutdown() {
    let mut scene = Scene::new("patience", 2)
        .await
        .plan(0, "processRecords", "hang")
        .lines("shutdownGraceMillis = 500\n");
    let daemon = scene.daemon();
    scene.put().await;
    scene.wait_for_faults().await;
    let run = scene.stop(daemon).await;
    assert_eq!((run.exit, run.failures().len()), (Some(0), 0), "{}", run.text());
    assert_eq!(of_kind(&run.log, "initialize").count(), 2, "no child was replaced");
    assert_eq!(run.events("shutdown_grace_exceeded").len(), 1, "{}", run.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_under_policy_exit() {
    let scene = Scene::new("silent-exit", 2).await.plan(0, "processRecords", "hang");
    let run = scene.lines("timeoutInSeconds = 1\nmultilangd.onChildFailure = exit\n").play_to_the_end().await;
    run.assert_daemon_ends();
}
