//! `multilangd tail` and `multilangd put`.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::life::aggregate;
use crate::rig::*;

fn file(rig: &Rig) -> String {
    rig.properties("none", "").display().to_string()
}

fn write(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn parsed(daemon: &Daemon) -> Vec<Value> {
    daemon.printed.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `tail` from the oldest record to the tip.
async fn all(rig: &Rig, more: &[&str]) -> Vec<Value> {
    let file = file(rig);
    let mut tail = rig.command(&[&["tail", &file, "--from", "TRIM_HORIZON", "--no-follow"], more].concat());
    assert_eq!(tail.ended().await.code(), Some(0), "{}", rig.daemon_log());
    parsed(&tail)
}

fn texts(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["text"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_put_are_printed_once() {
    let rig = Rig::start("tail-all").await;
    rig.stream(3).await;
    let lines: Vec<String> = (0..1_200).map(|n| format!("line {n} é")).collect();
    let input = write(&rig, "lines.txt", &lines.join("\n"));
    let file = file(&rig);
    let mut put = rig.command(&["put", &file, input.to_str().unwrap()]);
    assert_eq!(put.ended().await.code(), Some(0), "{}", rig.daemon_log());
    assert!(put.printed[0].contains("1200 records"), "{:?}", put.printed);

    let records = all(&rig, &["--text"]).await;
    let mut seen = texts(&records);
    seen.sort_unstable();
    let mut expected: Vec<&str> = lines.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    let one = all(&rig, &["--shard", "shardId-000000000001"]).await;
    assert!(!one.is_empty() && one.iter().all(|record| record["shard"] == "shardId-000000000001"));
    assert_eq!(all(&rig, &["--limit", "7"]).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_tail_is_input_of_put() {
    let rig = Rig::start("tail-copy").await;
    rig.stream(1).await;
    rig.put(&[("a \"key\"".to_owned(), vec![0, 255, 10, 13]), ("b".to_owned(), Vec::new())]).await;
    let before = all(&rig, &[]).await;
    let lines: String = before.iter().map(|record| format!("{record}\n")).collect();
    let input = write(&rig, "records.jsonl", &lines);
    let file = file(&rig);
    let mut put = rig.command(&["put", "--json", &file, input.to_str().unwrap()]);
    assert_eq!(put.ended().await.code(), Some(0), "{}", rig.daemon_log());
    let after = all(&rig, &[]).await;
    let content = |record: &Value| (record["partitionKey"].clone(), record["data"].clone());
    assert_eq!(after.len(), 4);
    let (first, second): (Vec<_>, Vec<_>) =
        (after[..2].iter().map(content).collect(), after[2..].iter().map(content).collect());
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregate_is_printed_as_its_user_records() {
    let rig = Rig::start("tail-aggregate").await;
    rig.stream(1).await;
    rig.put(&[("outer".to_owned(), aggregate(&["one", "two"])), ("k".to_owned(), b"three".to_vec())]).await;
    let records = all(&rig, &["--text"]).await;
    assert_eq!(texts(&records), ["one", "two", "three"]);
    let subs: Vec<u64> = records.iter().map(|record| record["subSequenceNumber"].as_u64().unwrap()).collect();
    assert_eq!(subs, [0, 1, 0]);
    assert_eq!(records[0]["sequenceNumber"], records[1]["sequenceNumber"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn child_shards_follow_their_parent() {
    let rig = Rig::start("tail-split").await;
    rig.stream(1).await;
    let batch = |from: u32| -> Vec<(String, Vec<u8>)> {
        (from..from + 40).map(|n| (format!("key-{n}"), n.to_string().into_bytes())).collect()
    };
    rig.put(&batch(0)).await;
    let split = rig.clients.kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((u128::MAX / 2).to_string()).send().await.unwrap();
    rig.put(&batch(40)).await;
    let records = all(&rig, &["--text"]).await;
    assert_eq!(records.len(), 80);
    let shards: Vec<&str> = records.iter().map(|record| record["shard"].as_str().unwrap()).collect();
    assert!(shards[..40].iter().all(|shard| *shard == "shardId-000000000000"), "{shards:?}");
    assert!(shards[40..].contains(&"shardId-000000000001") && shards[40..].contains(&"shardId-000000000002"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_until_a_signal() {
    let rig = Rig::start("tail-follow").await;
    rig.stream(2).await;
    let file = file(&rig);
    rig.put(&[("k".to_owned(), b"first".to_vec())]).await;
    let mut tail = rig.command(&["tail", &file, "--from", "1h", "--text"]);
    tail.until(|line| line.contains("\"first\"")).await;
    rig.put(&[("k".to_owned(), b"second".to_vec())]).await;
    tail.until(|line| line.contains("\"second\"")).await;
    tail.signal(Signal::INT);
    assert_eq!(tail.ended().await.code(), Some(0), "{}", rig.daemon_log());
    assert_eq!(tail.printed.len(), 2, "complete lines only");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_reader_ends_tail_without_an_error() {
    let mut rig = Rig::start("tail-head").await;
    rig.stream(1).await;
    rig.wrapper =
        ["bash", "-c", "\"$@\" | head -n 1; echo ${PIPESTATUS[0]}", "bash"].map(Into::into).to_vec();
    let file = file(&rig);
    rig.put(&[("k".to_owned(), b"first".to_vec())]).await;
    let mut tail = rig.command(&["tail", &file, "--from", "TRIM_HORIZON"]);
    tail.until(|line| line.starts_with('{')).await;
    // The second write finds the pipe closed, or the third, if the first of them was still buffered.
    while tail.printed.len() < 2 {
        rig.put(&[("k".to_owned(), b"more".to_vec())]).await;
        tail.until(|line| !line.is_empty()).await;
    }
    assert_eq!(tail.printed[1], "0");
    assert_eq!(rig.daemon_log().matches("failed").count(), 0, "{}", rig.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_stream_shard_or_line_is_named() {
    let rig = Rig::start("tail-invalid").await;
    rig.stream(1).await;
    let file = file(&rig);
    let bad = write(&rig, "bad.jsonl", "{\"text\":\"fine\"}\nno record\n");
    let other = format!("{file}.missing.properties");
    let set = ["--set", "streamName=other"];
    for (arguments, code, parts) in [
        (&["tail", &file, "--shard", "shardId-9"][..], 64, ["shardId-9", "shardId-000000000000"]),
        (&["tail", &file, "--from", "latest"], 64, ["--from latest", "TRIM_HORIZON"]),
        (&["tail", &file, "--from", "4960000000000000000000"], 64, ["--from", "--shard"]),
        (&["tail", &file, set[0], set[1]], 69, ["other", "does not exist"]),
        (&["tail", &other], 66, ["missing.properties", "failed to read"]),
        (&["put", "--json", &file, bad.to_str().unwrap()], 66, ["line 2", "bad.jsonl"]),
        (&["put", &file, "/no/such/input"], 66, ["/no/such/input", "0 records"]),
    ] {
        let mut command = rig.command(arguments);
        assert_eq!(command.ended().await.code(), Some(code), "{arguments:?} {}", rig.daemon_log());
        let log = std::fs::read_to_string(&command.stderr).unwrap();
        let last = log.lines().last().unwrap();
        assert!(parts.iter().all(|part| last.contains(part)), "{arguments:?} {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn name_of_a_stream_is_sufficient() {
    let mut rig = Rig::start("tail-name").await;
    rig.stream(1).await;
    let input = write(&rig, "lines.txt", "one\ntwo\n");
    let port = rig.url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let local = ["--local", "--kinesis-port", &port];
    let mut put = rig.command(&[&["put", STREAM, input.to_str().unwrap()], &local[..]].concat());
    assert_eq!(put.ended().await.code(), Some(0), "{}", rig.daemon_log());
    let tail = ["tail", STREAM, "--from", "TRIM_HORIZON", "--no-follow", "--text"];
    let mut on_this_machine = rig.command(&[&tail[..], &local].concat());
    assert_eq!(on_this_machine.ended().await.code(), Some(0), "{}", rig.daemon_log());
    assert_eq!(texts(&parsed(&on_this_machine)), ["one", "two"]);

    rig.environment.push(("AWS_ENDPOINT_URL_KINESIS".into(), rig.url.clone().into()));
    rig.environment.push(("AWS_REGION".into(), "us-east-1".into()));
    let mut by_environment = rig.command(&tail);
    assert_eq!(by_environment.ended().await.code(), Some(0), "{}", rig.daemon_log());
    assert_eq!(texts(&parsed(&by_environment)), ["one", "two"]);
    assert_eq!(rig.daemon_log(), "", "no warnings about a file that the user has not written");
}
