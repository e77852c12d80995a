//! A child that fails permanently, with `multilangd.onHopelessShard = exit`: five failures in a row end the
//! daemon with exit code 1, with increasing pauses between them; progress resets the count.
//! `tests/process/parked.rs` covers the default, which parks the shard.

use super::scene::Scene;
use crate::rig::*;

/// Runs a child that fails at every batch: the exit code, the number of failures logged, and the error that ended the
/// daemon.
async fn failing(name: &str, lines: &str) -> (Option<i32>, usize, String) {
    let mut scene = Scene::new(name, 2).await;
    scene.put().await;
    let file = scene.rig.properties(
        &scene.rig.scripted("dies"),
        &format!(
            "taskBackoffTimeMillis = 20\n\
                 multilangd.onHopelessShard = exit\n{lines}"
        ),
    );
    let mut daemon = scene.rig.daemon(&file);
    let exit = daemon.ended().await.code();
    (exit, logged(&daemon.stderr, "processor_failed").len(), fatal_error(&daemon))
}

#[tokio::test(flavor = "multi_thread")]
async fn five_failures_in_a_row_end_the_daemon() {
    let (exit, failures, error) = failing("five", "").await;
    assert_eq!(exit, Some(1), "{error}");
    // Two shards fail; the first one that reaches the limit ends the daemon.
    assert!((5..=10).contains(&failures), "{failures}");
    assert!(error.contains("multilangd.maxChildFailures"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_number_of_failures_ends_the_daemon() {
    let (exit, failures, _) = failing("two", "multilangd.maxChildFailures = 2\n").await;
    assert_eq!(exit, Some(1));
    assert!((2..=4).contains(&failures), "{failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_resets_the_failure_count() {
    // Each child crashes at its second batch, after it has checkpointed the first: there are more than five
    // failures, and the daemon keeps running.
    let mut scene = Scene::new("row", 1).await;
    let script = scene.rig.folder.join("second.py");
    let text = format!(
        "import sys, json, os, socket\ntest = socket.create_connection(('127.0.0.1', {})).makefile('w')\n\
         def report(what):\n    test.write(json.dumps({{'pid': os.getpid(), 'shard': 's', 'what': what, 'body': None}}) + '\\n')\n    test.flush()\n\
         report('hello')\nbatches = 0\nfor line in sys.stdin:\n    m = json.loads(line)\n    report(m['action'])\n    if m['action'] == 'processRecords':\n        batches += 1\n        \
         if batches == 2:\n            os._exit(3)\n        sys.stdout.write('{{\"action\":\"checkpoint\"}}\\n')\n        sys.stdout.flush()\n        sys.stdin.readline()\n        report('done')\n    \
         sys.stdout.write(json.dumps({{'action': 'status', 'responseFor': m['action']}}) + '\\n')\n    sys.stdout.flush()\n",
        scene.rig.port()
    );
    std::fs::write(&script, text).unwrap();
    let lines = "taskBackoffTimeMillis = 20\nmaxRecords = 5\n";
    let file = scene.rig.properties(&format!("python3 -S -E {}", script.display()), lines);
    scene.put().await;
    let mut daemon = scene.rig.daemon(&file);
    scene.rig.until("seven batches", |log| said(log, "done").len() == 7).await;
    assert!(said(&scene.rig.log, "initialize").len() >= 6, "it failed more often than five times");
    assert_eq!(daemon.stop().await, Some(0), "{}", scene.rig.daemon_log());
}
