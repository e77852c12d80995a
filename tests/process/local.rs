//! `multilangd local`: the first command of README.md.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::rig::*;

/// The numbers of records put and delivered, if the line reports progress.
#[tokio::test(flavor = "multi_thread")]
async fn example_exits_cleanly_and_resumes_at_its_checkpoints() {
    let rig = Rig::start("local").await;
    let data = rig.folder.join("data");
    let arguments =
        ["local", "--kinesis-port", "0", "--dynamodb-port", "0", "--data", data.to_str().unwrap()];
    let mut daemon = rig.command(&arguments);
    daemon
        .until(|text| progress(text).is_some_and(|(taken, delivered)| taken >= 1000 && delivered >= 1000))
        .await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let (taken, delivered) = last(&daemon);
    assert!(delivered <= taken, "nothing is delivered twice");
    let log = std::fs::read_to_string(&daemon.stderr).unwrap();
    assert_eq!(log.matches("starting after TRIM_HORIZON").count(), 4, "{log}");

    std::fs::remove_file(&daemon.stderr).unwrap();
    let mut daemon = rig.command(&arguments);
    // Records put but not delivered when the first run ended are delivered now, and no others.
    let level = |(t, d): (u64, u64)| d >= 5 && delivered + d == taken + t;
    daemon.until(|line| progress(line).is_some_and(level)).await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let log = std::fs::read_to_string(&daemon.stderr).unwrap();
    assert_eq!(log.matches("starting after 49").count(), 4, "{log}");
    let (taken_then, delivered_then) = last(&daemon);
    assert!(
        delivered + delivered_then <= taken + taken_then,
        "nothing that was checkpointed is delivered again"
    );
}

/// The last line that reports progress.
fn last(daemon: &Daemon) -> (u64, u64) {
    daemon.printed.iter().rev().find_map(|line| progress(line)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_file_reach_the_users_processor() {
    let mut rig = Rig::start("local-put").await;
    let lines = rig.folder.join("lines.txt");
    std::fs::write(&lines, "one\ntwo\n\nfour").unwrap();
    let file = rig.properties(&rig.scripted("each"), "");
    let put = ["--put", lines.to_str().unwrap(), "--shards", "2"];
    let mut daemon = rig.command(
        &[&["local", file.to_str().unwrap(), "--kinesis-port", "0", "--dynamodb-port", "0"], &put[..]]
            .concat(),
    );
    rig.until("four records, two children", |log| count(log) == 4 && said(log, "initialize").len() == 2)
        .await;
    assert_eq!(daemon.stop().await, Some(0));
    let mut seen: Vec<Vec<u8>> =
        records(&rig.log).into_values().flatten().map(|record| record.data).collect();
    seen.sort();
    assert_eq!(seen, [&b""[..], b"four", b"one", b"two"]);
    assert_eq!(said(&rig.log, "initialize").len(), 2);
}

/// Local mode with --exit-when-done, on free ports.
fn until_done(rig: &Rig, file: &Path, put: &str, more: &[&str]) -> Daemon {
    let ports = ["--kinesis-port", "0", "--dynamodb-port", "0"];
    let put = ["--shards", "2", "--put", put, "--exit-when-done"];
    rig.command(&[&["local", file.to_str().unwrap()], &ports[..], &put, more].concat())
}

/// The port of the local Kinesis endpoint.
pub async fn kinesis_port(daemon: &mut Daemon) -> String {
    daemon.until(|line| line.contains("Kinesis at ")).await;
    let line = daemon.printed.last().unwrap();
    line.split("127.0.0.1:").nth(1).unwrap().split(',').next().unwrap().to_owned()
}

/// The consumer of the file is one at AWS.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_of_the_file_is_not_looked_for_at_the_local_endpoint() {
    let stream = format!("arn:aws:kinesis:us-east-1:111122223333:stream/{STREAM}");
    let consumer = format!("{stream}/consumer/mine:1700000000");
    for (name, settings) in [
        ("one", format!("streamName = {STREAM}\nfanoutConfig.consumerArn = {consumer}\n")),
        ("several", format!("multilangd.streams = {consumer}\nmultilangd.useStreamArn = true\n")),
    ] {
        let mut rig = Rig::start(&format!("local-consumer-{name}")).await;
        let input = lines(&rig, "a\nb\n");
        let file = rig.properties(&rig.scripted("each"), "retrievalMode = FANOUT\nregionName = us-east-1\n");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace(&format!("streamName = {STREAM}\n"), &settings)).unwrap();
        let ports = ["--kinesis-port", "0", "--dynamodb-port", "0", "--shards", "2"];
        let mut daemon = rig.command(&[&["local", file.to_str().unwrap()][..], &ports].concat());
        let port = kinesis_port(&mut daemon).await;
        daemon.until(|line| line.contains("with 2 open shards")).await;
        let put = ["put", STREAM, input.to_str().unwrap(), "--local", "--kinesis-port", &port];
        assert_eq!(rig.command(&put).ended().await.code(), Some(0), "{name}: {}", rig.daemon_log());
        rig.until("both records", |log| count(log) == 2).await;
        assert_eq!(daemon.stop().await, Some(0));
    }
}

/// Starts commands with their stdin from this path.
fn stdin_from(rig: &mut Rig, path: &Path) {
    let script = format!("exec \"$@\" < {}", path.display());
    rig.wrapper = ["sh", "-c", &script, "sh"].map(Into::into).to_vec();
}

async fn pipe(rig: &Rig) -> PathBuf {
    let path = rig.folder.join("pipe");
    let made = tokio::process::Command::new("mkfifo").arg(&path).status().await.unwrap();
    assert!(made.success());
    path
}

/// The writing end of the pipe. Opens once the daemon's shell has opened the other end.
async fn writer(pipe: &Path) -> tokio::fs::File {
    tokio::fs::OpenOptions::new().write(true).open(pipe).await.unwrap()
}

async fn write(writer: &mut tokio::fs::File, text: &[u8]) {
    writer.write_all(text).await.unwrap();
    writer.flush().await.unwrap();
}

fn lines(rig: &Rig, text: &str) -> PathBuf {
    let path = rig.folder.join("lines.txt");
    std::fs::write(&path, text).unwrap();
    path
}

/// Asserts that the error that ended the daemon contains these names and values.
fn assert_reason(daemon: &Daemon, parts: &[&str]) {
    let error = fatal_error(daemon);
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_stdin_are_put_as_they_arrive() {
    let mut rig = Rig::start("local-stdin").await;
    let pipe = pipe(&rig).await;
    stdin_from(&mut rig, &pipe);
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = until_done(&rig, &file, "-", &[]);
    let mut writer = writer(&pipe).await;
    write(&mut writer, b"one\ntw").await;
    rig.until("the first line, while the input is open", |log| count(log) == 1).await;
    write(&mut writer, b"o\nthree").await;
    rig.until("the second line", |log| count(log) == 2).await;
    drop(writer);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", rig.daemon_log());
    let printed = daemon.printed.join("\n");
    assert!(printed.contains("put 3 lines of stdin") && printed.contains("done: 3 records"), "{printed}");
    rig.until("the third line", |log| count(log) == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_record_ends_the_run_with_1() {
    let mut rig = Rig::start("local-poison").await;
    let input = lines(&rig, "fine\nfine\npoison\n");
    stdin_from(&mut rig, &input);
    let never = rig.folder.join("never");
    let script = rig.scripted(&format!("each poison={}", never.display()));
    let file = rig.properties(&script, "taskBackoffTimeMillis = 50\n");
    let mut daemon = until_done(&rig, &file, "-", &["--max-child-failures", "2"]);
    assert_eq!(daemon.ended().await.code(), Some(1), "{}", rig.daemon_log());
    let parts = ["shardId-00000000000", "exit code 1", "ValueError: cannot parse poison"];
    assert_reason(&daemon, &parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_checkpoint_ends_the_run_with_1() {
    let rig = Rig::start("local-no-checkpoint").await;
    let input = lines(&rig, "one\ntwo\nthree\n");
    // It checkpoints at the stop, which is too late.
    let file = rig.properties(&rig.scripted("end"), "");
    let mut daemon = until_done(&rig, &file, input.to_str().unwrap(), &["--exit-timeout", "1"]);
    assert_eq!(daemon.ended().await.code(), Some(1), "{}", rig.daemon_log());
    let parts = ["--exit-timeout", "1 s", "shardId-00000000000", "line 3"];
    assert_reason(&daemon, &parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_stdin_ends_the_run_with_66() {
    let mut rig = Rig::start("local-no-input").await;
    let folder = rig.folder.clone();
    stdin_from(&mut rig, &folder);
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = until_done(&rig, &file, "-", &[]);
    assert_eq!(daemon.ended().await.code(), Some(66), "{}", rig.daemon_log());
    assert_reason(&daemon, &["--put -", "directory"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_before_the_end_of_the_input_ends_the_run_with_1() {
    let mut rig = Rig::start("local-interrupted").await;
    let pipe = pipe(&rig).await;
    stdin_from(&mut rig, &pipe);
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = until_done(&rig, &file, "-", &[]);
    let mut writer = writer(&pipe).await;
    write(&mut writer, b"one\n").await;
    rig.until("the first line", |log| count(log) == 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(1), "{}", rig.daemon_log());
    assert_reason(&daemon, &["--exit-when-done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_program_is_restarted_and_parked_shards_with_it() {
    let mut rig = Rig::start("local-watch").await;
    let input = lines(&rig, "fine\nfine\npoison\nfine\n");
    let (program, never) = (rig.folder.join("program/run"), rig.folder.join("never"));
    std::fs::create_dir(rig.folder.join("program")).unwrap();
    let write = |behaviour: &str| {
        let script = format!("#!/bin/sh\nexec {}\n", rig.scripted(behaviour));
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    write(&format!("each poison={}", never.display()));
    let file = rig.properties(program.to_str().unwrap(), "taskBackoffTimeMillis = 50\n");
    let ports = ["--kinesis-port", "0", "--dynamodb-port", "0", "--shards", "2", "--watch"];
    let put = ["--put", input.to_str().unwrap(), "--max-child-failures", "2"];
    let mut daemon = rig.command(&[&["local", file.to_str().unwrap()], &ports[..], &put].concat());
    rig.logged("shard_parked").await;
    write("each");
    daemon.until(|line| line.contains("program/run changed: restarting")).await;
    rig.until("the poison record, checkpointed", |log| {
        // The first program exits at the record, so its pid stores no checkpoint after it.
        let received = log.iter().enumerate().filter(|(_, report)| {
            matches!(report, Report::Said { what, body, .. }
                if what == "processRecords" && body.to_string().contains("cG9pc29u"))
        });
        received.into_iter().any(|(index, received)| {
            let Report::Said { pid: receiver, .. } = received else { return false };
            log[index..].iter().any(|report| {
                matches!(report, Report::Said { pid, what, body, .. }
                    if pid == receiver && what == "checkpointed" && body["error"].is_null())
            })
        })
    })
    .await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", rig.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn program_that_never_worked_is_started_again_once_it_changed() {
    let mut rig = Rig::start("local-watch-broken").await;
    let program = rig.folder.join("run");
    let write = |text: &str| {
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("exit 7");
    let file = rig.properties(program.to_str().unwrap(), "taskBackoffTimeMillis = 50\n");
    let ports = ["--kinesis-port", "0", "--dynamodb-port", "0", "--shards", "1", "--watch"];
    // The log is in the folder of the program: it causes no restart.
    let mut daemon = rig
        .command(&[&["local", file.to_str().unwrap()], &ports[..], &["--max-child-failures", "1"]].concat());
    daemon.until(|line| line.contains("exit code 7") && line.contains("waiting for a change")).await;
    write(&format!("exec {}", rig.scripted("each")));
    daemon.until(|line| line.contains("run changed: starting")).await;
    rig.until("a record processor", |log| said(log, "initialize").len() == 1).await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", rig.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_stream_reports_how_to_put_records() {
    let rig = Rig::start("local-empty").await;
    let file = rig.properties(&rig.scripted("each"), "");
    let ports = ["--kinesis-port", "0", "--dynamodb-port", "0"];
    let mut daemon = rig.command(&[&["local", file.to_str().unwrap()], &ports[..]].concat());
    daemon.until(|line| line.contains("is empty") && line.contains("--put -")).await;
    assert!(daemon.printed.last().unwrap().contains("--endpoint-url http://127.0.0.1:"));
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
}
