//! A child that writes more to stderr than the log accepts: it is never blocked, and the log stays small.

use super::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn is_never_blocked_and_dropped_lines_are_counted() {
    // A hundred thousand lines, and eight megabytes without a line end.
    let scene = Scene::new("stderr", 3).await.plan(0, "processRecords", "stderr:10000000");
    let run = scene.plan(1, "processRecords", "endless:8388608").play().await;
    run.assert_sound();
    assert_eq!(run.failures(), [], "a flood is no failure");
    let from = |shard: usize| {
        run.lines
            .iter()
            .filter(move |line| line["target"] == "child" && line["shard"] == super::scene::shard(shard))
    };
    assert!(from(0).all(|line| line["pipe"] == "stderr" && line["pid"].is_u64()));
    let left_out: u64 = from(0).filter_map(|line| line["lines"].as_u64()).sum();
    let shown = from(0).filter(|line| line["lines"].is_null()).count() as u64;
    assert_eq!(shown + left_out, 100_000, "every line is shown or counted");
    assert!(left_out > 50_000, "{left_out}");
    assert!(from(1).all(|line| line["message"].as_str().unwrap().len() < 5_000), "a line is cut");
}
