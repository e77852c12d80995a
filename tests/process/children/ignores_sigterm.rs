//! A child that exits only on SIGKILL.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_killed_and_replaced() {
    let scene = Scene::new("stubborn", 2).await.plan(0, "processRecords", "stubborn");
    let run = scene.lines("timeoutInSeconds = 1\n").play().await;
    run.assert_sound();
    run.assert_told_once("it did not answer");
    let steps: Vec<_> = run.lines.iter().filter_map(|line| line["stop"].as_str()).collect();
    assert_eq!(steps, ["Politely", "AtOnce"], "{}", run.text());
}

/// A child that exits when its stdin closes receives no signal.
#[tokio::test(flavor = "multi_thread")]
async fn child_exiting_on_closed_stdin_gets_no_signal() {
    let run = Scene::new("obedient", 1).await.plan(0, "processRecords", "answer-null").play().await;
    run.assert_sound();
    assert!(run.lines.iter().all(|line| line["stop"].is_null()), "{}", run.text());
}
