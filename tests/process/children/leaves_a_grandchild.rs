//! A child that exits and leaves a process in another session that holds its pipes open. Java waits for that
//! process without a limit, and renews the lease meanwhile.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_while_its_pipes_are_still_open() {
    let run = Scene::new("grandchild", 2).await.plan(0, "processRecords", "grandchild").play().await;
    run.assert_sound();
    run.assert_failures_logged("exit code 0");
    assert_eq!(run.holding, 1, "the pipes were held all the time");
}

/// The output of the grandchild never ends, so the daemon must not wait for its end.
#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_although_the_grandchild_keeps_printing() {
    let run =
        Scene::new("noisy-grandchild", 2).await.plan(0, "processRecords", "noisy-grandchild").play().await;
    run.assert_sound();
    run.assert_failures_logged("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_under_policy_exit() {
    let scene = Scene::new("grandchild-exit", 2).await.plan(0, "processRecords", "grandchild");
    scene.lines("multilangd.onChildFailure = exit\n").play_to_the_end().await.assert_daemon_ends();
}
