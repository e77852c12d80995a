//! A child that ends and leaves a process in another session that holds its pipes open. Java waits for it
//! without a limit, the lease renewed meanwhile.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_while_the_pipes_are_still_held() {
    let run = Scene::new("grandchild", 2).await.plan(0, "processRecords", "grandchild").play().await;
    run.assert_sound();
    run.assert_told_once("exit code 0");
    assert_eq!(run.holding, 1, "the pipes were held all the time");
}

/// What the heir prints never ends, so it must not be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn is_replaced_although_its_heir_never_stops_talking() {
    let run = Scene::new("heir", 2).await.plan(0, "processRecords", "heir").play().await;
    run.assert_sound();
    run.assert_told_once("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_everyones_end_under_the_policy_exit() {
    let scene = Scene::new("grandchild-exit", 2).await.plan(0, "processRecords", "grandchild");
    scene.lines("multilangd.onChildFailure = exit\n").play_to_the_end().await.assert_others_suffer();
}
