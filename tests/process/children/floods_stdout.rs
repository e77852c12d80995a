//! A child that prints noise to stdout without end: its messages are still found, other shards are not slowed
//! down, and the log stays small.

use super::scene::{Scene, shard};
use crate::rig::fatal_error;

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_and_the_log_stays_small() {
    let run = Scene::new("chatter", 2).await.plan(0, "processRecords", "chatter:200000").play().await;
    run.assert_sound();
    assert_eq!(run.failures(), []);
    let from: Vec<_> =
        run.lines.iter().filter(|line| line["target"] == "child" && line["shard"] == shard(0)).collect();
    let left_out: u64 = from.iter().filter_map(|line| line["lines"].as_u64()).sum();
    let shown = from.iter().filter(|line| line["lines"].is_null()).count() as u64;
    assert_eq!(shown + left_out, 200_000);
    assert!(left_out > 100_000, "{left_out}");
}

/// Noise does not count as progress: the timeout for an answer keeps running.
#[tokio::test(flavor = "multi_thread")]
async fn noise_does_not_extend_the_answer_timeout() {
    let mut scene = Scene::new("chatterbox", 1).await.lines("timeoutInSeconds = 1\n");
    let script = scene.rig.folder.join("chatterbox.py");
    let text = "import sys, json\nfor line in sys.stdin:\n    m = json.loads(line)\n    while m['action'] == 'processRecords':\n        sys.stdout.write('la la la\\n' * 1000)\n        sys.stdout.flush()\n    sys.stdout.write(json.dumps({'action': 'status', 'responseFor': m['action']}) + '\\n')\n    sys.stdout.flush()\n";
    std::fs::write(&script, text).unwrap();
    let lines = "timeoutInSeconds = 1\ntaskBackoffTimeMillis = 20\nmultilangd.childExitGraceMillis = 200\nmultilangd.maxChildFailures = 2\nmultilangd.onHopelessShard = exit\n";
    let file = scene.rig.properties(&format!("python3 -S -E {}", script.display()), lines);
    let mut daemon = scene.rig.daemon(&file);
    scene.put().await;
    assert_eq!(daemon.ended().await.code(), Some(1));
    assert!(fatal_error(&daemon).contains("timeoutInSeconds"), "{}", scene.rig.daemon_log());
}
