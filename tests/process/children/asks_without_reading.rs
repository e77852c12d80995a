//! A child that requests checkpoints much faster than it reads the answers: it is throttled, and does not fail.

use crate::rig::*;

/// Sends more requests than the pipe and the daemon buffer answers for; then it reads all answers.
const SCRIPT: &str = r#"
import json, os, socket, sys, threading
test = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("w")
def report(what, body=None):
    test.write(json.dumps({"pid": os.getpid(), "shard": "s", "what": what, "body": body}) + "\n")
    test.flush()
report("hello")
ASKED, BEFORE = 8000, 5000
written = threading.Event()
def ask():
    for n in range(ASKED):
        sys.stdout.write('{"action":"checkpoint"}\n')
        sys.stdout.flush()
        if n == BEFORE:
            written.set()
for line in sys.stdin:
    action = json.loads(line)["action"]
    report(action)
    if action == "processRecords":
        asking = threading.Thread(target=ask)
        asking.start()
        written.wait()
        answers = [json.loads(sys.stdin.readline()) for _ in range(ASKED)]
        asking.join()
        report("answered", len([one for one in answers if one.get("error") is None]))
    sys.stdout.write(json.dumps({"action": "status", "responseFor": action}) + "\n")
    sys.stdout.flush()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn is_throttled_until_it_reads_the_answers() {
    let mut rig = Rig::start("asks").await;
    rig.stream(1).await;
    rig.put(&[("k".to_owned(), b"x".to_vec())]).await;
    let script = rig.folder.join("asks.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let file = rig.properties(&format!("python3 -S -E {} {}", script.display(), rig.port()), "");
    let mut daemon = rig.daemon(&file);
    rig.until("all checkpoints answered", |log| said(log, "answered").len() == 1).await;
    let answered = rig.log.iter().find_map(|report| match report {
        Report::Said { what, body, .. } if what == "answered" => body.as_u64(),
        _ => None,
    });
    assert_eq!(answered, Some(8_000));
    assert_eq!(said(&rig.log, "initialize").len(), 1, "it was not restarted");
    assert_eq!(daemon.stop().await, Some(0));
}
