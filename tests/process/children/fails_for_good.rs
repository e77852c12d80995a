//! A child that never gets further, under `multilangd.onHopelessShard = exit`: five failures in a row end the daemon
//! with exit code 1, with pauses that grow between them; progress begins a new row. `tests/process/parked.rs` has the
//! default, under which the shard is parked.

use super::scene::Scene;
use crate::rig::*;

/// Fails at every batch: the marker of each deed is another.
async fn failing(name: &str, lines: &str) -> (Option<i32>, String) {
    let mut scene = Scene::new(name, 2).await;
    scene.put().await;
    let file = scene.rig.properties(
        &scene.rig.scripted("dies"),
        &format!(
            "taskBackoffTimeMillis = 20\nmultilangd.logFormat = json\n\
                 multilangd.onHopelessShard = exit\n{lines}"
        ),
    );
    let mut daemon = scene.rig.daemon(&file);
    let exit = daemon.ended().await.code();
    (exit, std::fs::read_to_string(&daemon.stderr).unwrap())
}

fn failures(text: &str) -> usize {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["failures"].is_u64() && line["max_failures"].is_u64()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_daemon_after_five() {
    let (exit, text) = failing("five", "").await;
    assert_eq!(exit, Some(1), "{text}");
    // Two shards fail, and the first that is hopeless ends both.
    assert!((5..=10).contains(&failures(&text)), "{text}");
    assert!(text.lines().last().unwrap().contains("multilangd.maxChildFailures"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_it_after_as_many_as_are_set() {
    let (exit, text) = failing("two", "multilangd.maxChildFailures = 2\n").await;
    assert_eq!(exit, Some(1));
    assert!((2..=4).contains(&failures(&text)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_begins_a_new_row() {
    // Each child dies at its second batch, having checkpointed the first: more failures than five, and
    // the daemon lives.
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
