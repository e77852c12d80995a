//! The log: its first line and its colours; a blocked reader never stalls processing.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::rig::*;

/// stderr is a full pipe that is never read, and the child prints continuously: records are still processed.
#[tokio::test(flavor = "multi_thread")]
async fn blocked_log_reader_does_not_stall_processing() {
    let mut rig = Rig::start("unread").await;
    rig.stream(2).await;
    let script = rig.folder.join("chatty.sh");
    let text =
        format!("#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' '\\n' >&2\nexec {}\n", rig.scripted("each"));
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = rig.properties(script.to_str().unwrap(), "failoverTimeMillis = 6000\n");
    let (unread, stderr) = std::io::pipe().unwrap();
    let mut daemon =
        rig.command_to(&["--log", "trace", file.to_str().unwrap()], Stdio::from(OwnedFd::from(stderr)));
    for round in 0..5 {
        let records: Vec<_> = (0..50).map(|n| (format!("{round}-{n}"), vec![b'x'; 1000])).collect();
        rig.put(&records).await;
        rig.until("a round of records", |log| count(log) == 50 * (round + 1)).await;
    }
    assert_eq!(said(&rig.log, "initialize").len(), 2, "no lease was lost");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    drop(unread);
}

/// The build is the first question about any log, and log collectors keep the first line of a crash loop.
#[tokio::test(flavor = "multi_thread")]
async fn first_line_names_version_commit_target_and_features() {
    let rig = Rig::start("first-line").await;
    let file = rig.properties("cat", "maxRecords = 20000\n");
    let mut daemon = rig.command(&[file.to_str().unwrap()]);
    assert_eq!(daemon.ended().await.code(), Some(78));
    let first = log_lines(&daemon.stderr).swap_remove(0);
    assert_eq!(first["event"], "daemon_starting");
    let mut version = rig.command(&["--version"]);
    assert_eq!(version.ended().await.code(), Some(0));
    let [shown] = &version.printed[..] else { panic!("{:?}", version.printed) };
    for field in ["version", "commit", "target", "features"] {
        let value = first[field].as_str().unwrap_or_else(|| panic!("{field} in {first}"));
        assert!(!value.is_empty() && shown.contains(value), "{field}: {value} in {shown}");
    }
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_ne!(first["target"], "multilangd", "the target of the build, not of the event");
}

/// Runs the binary on a pseudo-terminal and returns its output.
fn on_a_terminal(rig: &Rig, variables: &[(&str, &str)]) -> String {
    // One warning and one error, without any AWS call.
    let file = rig.properties("cat", "failoverTimeMilis = 5\nmaxRecords = 20000\n");
    let output = std::process::Command::new("python3")
        .args(["-c", "import pty, sys; pty.spawn(sys.argv[1:])", env!("CARGO_BIN_EXE_multilangd")])
        .arg(file)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("failoverTimeMilis"), "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_gets_colours_unless_disabled() {
    let rig = Rig::start("colours").await;
    assert!(on_a_terminal(&rig, &[]).contains('\x1b'));
    assert!(on_a_terminal(&rig, &[("NO_COLOR", "")]).contains('\x1b'), "empty is as good as not there");
    assert!(!on_a_terminal(&rig, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!on_a_terminal(&rig, &[("TERM", "dumb")]).contains('\x1b'));
}

/// A record processor that writes these bytes to stderr, and a line to stdout, before it starts.
fn noisy(rig: &Rig, stderr: &[u8], more: &str) -> std::path::PathBuf {
    let (script, text) = (rig.folder.join("noisy.sh"), rig.folder.join("text"));
    std::fs::write(&text, stderr).unwrap();
    let child = rig.scripted("each");
    let commands = format!("#!/bin/sh\ncat {} >&2\necho on stdout\nexec {child}\n", text.display());
    std::fs::write(&script, commands).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.properties(script.to_str().unwrap(), more)
}

/// The log of a daemon that ran until its only child answered a batch.
async fn log_of(rig: &mut Rig, file: &std::path::Path) -> Vec<u8> {
    rig.stream(1).await;
    rig.put(&[("k".to_owned(), b"one".to_vec())]).await;
    let mut daemon = rig.daemon(file);
    rig.until("the record", |log| count(log) == 1).await;
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    std::fs::read(&daemon.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_child_output_is_passed_byte_for_byte() {
    let mut rig = Rig::start("raw").await;
    let long = "x".repeat(30_000);
    let text =
        [b"\x1b[31mred\x1b[0m\xff\xfe\r\n\n", long.as_bytes(), b"\n  Traceback:\n    at line 1\nno end"]
            .concat();
    let file = noisy(&rig, &text, "multilangd.childLog = raw\n");
    let log = log_of(&mut rig, &file).await;
    // Entries of the daemon may stand between two lines.
    let mut lines = log.split(|byte| *byte == b'\n');
    for line in text.split(|byte| *byte == b'\n') {
        assert!(lines.any(|logged| logged == line), "{line:?}\n{}", String::from_utf8_lossy(&log));
    }
    assert!(log.split(|byte| *byte == b'\n').any(|line| line == b"on stdout"), "as a line of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_a_child_is_merged_into_the_entry() {
    let mut rig = Rig::start("json-child").await;
    let long = "y".repeat(20_000);
    let text = format!("{{\"level\":\"WARN\",\"order\":7,\"long\":\"{long}\"}}\nplain\n");
    let more = "multilangd.childLog = json\nmultilangd.logFormat = json\n";
    let file = noisy(&rig, text.as_bytes(), more);
    let log = String::from_utf8(log_of(&mut rig, &file).await).unwrap();
    let entries: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let merged = entries.iter().find(|entry| entry["order"] == 7).unwrap();
    assert_eq!((&merged["level"], &merged["shard"]), (&"WARN".into(), &"shardId-000000000000".into()));
    assert_eq!(merged["long"].as_str().unwrap().len(), 20_000);
    assert!(merged["pid"].is_u64() && merged["pipe"] == "stderr" && merged["worker"].is_string(), "{merged}");
    let plain = entries.iter().find(|entry| entry["message"] == "plain").unwrap();
    assert_eq!(plain["level"], "INFO");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_a_child_is_a_line_like_any_other_in_a_text_log() {
    let mut rig = Rig::start("json-child-text").await;
    rig.environment.push(("MULTILANGD_LOG_FORMAT".into(), "text".into()));
    let long = "y".repeat(20_000);
    let file = noisy(
        &rig,
        format!("{{\"order\":7,\"long\":\"{long}\"}}\n").as_bytes(),
        "multilangd.childLog = json\n",
    );
    let log = String::from_utf8(log_of(&mut rig, &file).await).unwrap();
    let line = log.lines().find(|line| line.contains("\"order\":7")).unwrap();
    assert!(line.len() < 10_000 && !line.contains("object="), "{line}");
}
