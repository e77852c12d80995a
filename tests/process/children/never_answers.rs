//! A child that doesn't answer within `timeoutInSeconds`, which Java ends for at once, telling nobody.

use super::scene::{Scene, of_kind};

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_when_its_time_is_over() {
    let scene = Scene::new("silent", 3).await.plan(0, "processRecords", "hang").plan(1, "initialize", "hang");
    let run = scene.lines("timeoutInSeconds = 1\n").play().await;
    run.assert_sound();
    run.assert_told_once("it did not answer within timeoutInSeconds");
}

/// Without the key a child may take as long as it likes; a stop has its own limit.
#[tokio::test(flavor = "multi_thread")]
async fn is_waited_for_without_a_limit_but_not_by_a_stop() {
    let mut scene = Scene::new("patience", 2)
        .await
        .plan(0, "processRecords", "hang")
        .lines("shutdownGraceMillis = 500\n");
    let daemon = scene.daemon();
    scene.put().await;
    scene.deeds().await;
    let run = scene.stop(daemon).await;
    assert_eq!((run.exit, run.failures().len()), (Some(0), 0), "{}", run.text());
    assert_eq!(of_kind(&run.log, "initialize").count(), 2, "nobody was replaced");
    assert!(run.text().contains("shutdownGraceMillis"));
}

#[tokio::test(flavor = "multi_thread")]
async fn is_everyones_end_under_the_policy_exit() {
    let scene = Scene::new("silent-exit", 2).await.plan(0, "processRecords", "hang");
    let run = scene.lines("timeoutInSeconds = 1\nmultilangd.onChildFailure = exit\n").play_to_the_end().await;
    run.assert_others_suffer();
}
