//! A child that exits only on SIGKILL.

use super::scene::{Run, Scene};

/// The signals that were sent to children.
fn signals(run: &Run) -> Vec<&str> {
    let to_children = run.lines.iter().filter(|line| line["pid"].is_u64());
    to_children.filter_map(|line| line["signal"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn is_killed_and_replaced() {
    let scene = Scene::new("stubborn", 2).await.plan(0, "processRecords", "stubborn");
    let run = scene.lines("timeoutInSeconds = 1\n").play().await;
    run.assert_sound();
    run.assert_failures_logged("timeoutInSeconds");
    assert_eq!(signals(&run), ["SIGTERM", "SIGKILL"], "{}", run.text());
}

/// A child that exits when its stdin closes receives no signal.
#[tokio::test(flavor = "multi_thread")]
async fn child_exiting_on_closed_stdin_gets_no_signal() {
    let run = Scene::new("obedient", 1).await.plan(0, "processRecords", "answer-null").play().await;
    run.assert_sound();
    assert!(signals(&run).is_empty(), "{}", run.text());
}
