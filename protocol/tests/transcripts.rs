//! Replays transcripts of the Java MultiLangDaemon 3.5.1 with real and scripted children: our writer must
//! produce every line to a child byte for byte, and our session must interpret every line of a child as Java
//! did.
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "test code")]

use std::collections::BTreeMap;
use std::path::Path;

use multilangd_protocol::{
    Action, CheckpointFailure, Dialect, Event, LineSplitter, Record, Session, ToChild,
};
use serde_json::Value;

/// Transcripts in which the daemon differs from Java on purpose, with the reason.
const DIFFERENT: [(&str, &str); 1] =
    [("f_double_status.jsonl", "Java accepts a status from before an action as its answer; ours drops it")];

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

/// Parses a line to the child and calls `use_it` with the message.
fn with_message<T>(line: &str, use_it: impl FnOnce(&ToChild<'_>) -> T) -> T {
    let json: Value = serde_json::from_str(line).unwrap();
    match text(&json["action"]).unwrap() {
        "initialize" => use_it(&ToChild::Initialize {
            shard_id: text(&json["shardId"]).unwrap(),
            sequence_number: text(&json["sequenceNumber"]),
            sub_sequence_number: json["subSequenceNumber"].as_u64(),
        }),
        "processRecords" => {
            let records = json["records"].as_array().unwrap();
            let records: Vec<_> = records.iter().map(record).collect();
            let millis_behind_latest = json["millisBehindLatest"].as_i64();
            use_it(&ToChild::ProcessRecords { records: &records, millis_behind_latest })
        }
        "shutdownRequested" => use_it(&ToChild::ShutdownRequested),
        "leaseLost" => use_it(&ToChild::LeaseLost),
        "shardEnded" => use_it(&ToChild::ShardEnded),
        "checkpoint" => use_it(&ToChild::Checkpoint {
            sequence_number: text(&json["sequenceNumber"]),
            sub_sequence_number: json["subSequenceNumber"].as_i64(),
            error: text(&json["error"]),
        }),
        other => panic!("unexpected action in a transcript: {other}"),
    }
}

fn record(json: &Value) -> Record<'_> {
    Record {
        data: text(&json["data"]).unwrap().as_bytes(),
        partition_key: text(&json["partitionKey"]).unwrap().as_bytes(),
        sequence_number: text(&json["sequenceNumber"]).unwrap().as_bytes(),
        approximate_arrival_timestamp: json["approximateArrivalTimestamp"].as_i64(),
        sub_sequence_number: json["subSequenceNumber"].as_u64().unwrap(),
    }
}

fn failure(name: &str) -> CheckpointFailure {
    use CheckpointFailure::*;
    [InvalidState, Shutdown, Throttling, Dependency, IllegalArgument]
        .into_iter()
        .find(|failure| failure.name() == name)
        .unwrap_or_else(|| panic!("unknown error name: {name}"))
}

#[derive(Default)]
struct Replay {
    session: Session,
    splitter: LineSplitter,
    counts: BTreeMap<&'static str, usize>,
}

impl Replay {
    /// Replays a line that Java wrote to the child.
    fn replay_daemon_line(&mut self, line: &str) -> Result<(), String> {
        let mut written = Vec::new();
        with_message(line, |message| message.write_line(Dialect::Current, &mut written));
        if written != format!("{line}\n").as_bytes() {
            return Err(format!("ours writes {}", String::from_utf8_lossy(&written)));
        }
        *self.counts.entry("lines written").or_default() += 1;
        with_message(line, |message| match message {
            ToChild::Checkpoint { error, .. } => self.replay_answer(line, *error),
            _ => self.replay_action(message),
        })
    }

    /// Replays a checkpoint answer of Java: the session must have exactly that answer pending.
    fn replay_answer(&mut self, line: &str, error: Option<&str>) -> Result<(), String> {
        match self.session.next() {
            Some(Event::Checkpoint { .. }) => {
                let mut written = Vec::new();
                self.session.acknowledge(error.map_or(Ok(()), |name| Err(failure(name))), &mut written);
                *self.counts.entry("checkpoints answered").or_default() += 1;
                let ours = String::from_utf8_lossy(&written).trim_end().to_owned();
                (ours == line).then_some(()).ok_or(format!("ours answers {ours}"))
            }
            other => Err(format!("Java answered a checkpoint, ours understood {other:?}")),
        }
    }

    /// Replays an action that Java opened: the session must have completed the previous action.
    fn replay_action(&mut self, message: &ToChild<'_>) -> Result<(), String> {
        while let Some(event) = self.session.next() {
            match event {
                Event::Done(_) | Event::Foreign { .. } => {}
                Event::Wrong { open: Action::ShutdownRequested, .. } => {}
                other => return Err(format!("Java opened the next action, ours has {other:?}")),
            }
        }
        let mut out = Vec::new();
        self.session.begin(message, &mut out).map_err(|busy| format!("Java went on, but {busy}"))?;
        // Foreign messages may precede it; an earlier checkpoint is interpreted within this action.
        *self.counts.entry("actions").or_default() += 1;
        Ok(())
    }

    /// Replays bytes that the child wrote.
    fn replay_child_bytes(&mut self, bytes: &[u8]) {
        let mut lines = Vec::new();
        self.splitter.push(bytes, &mut lines);
        for line in lines {
            self.session.receive(&line);
        }
        *self.counts.entry("lines read").or_default() += 1;
    }
}

fn replay(file: &Path, counts: &mut BTreeMap<&'static str, usize>) -> Result<(), String> {
    let mut replay = Replay::default();
    for (index, entry) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
        let entry: Value = serde_json::from_str(entry).unwrap();
        let outcome = match (text(&entry["dir"]).unwrap(), text(&entry["line"])) {
            ("to_child", Some(line)) => replay.replay_daemon_line(line),
            // Long lines (batches of many records) are stored in the transcript as a digest only.
            ("to_child", None) => {
                replay.replay_action(&ToChild::ProcessRecords { records: &[], millis_behind_latest: None })
            }
            ("from_child", Some(line)) => {
                let end = if entry["nl"] == Value::Bool(false) { "" } else { "\n" };
                replay.replay_child_bytes(format!("{line}{end}").as_bytes());
                Ok(())
            }
            ("from_child", None) => {
                replay.replay_child_bytes(b"xxx\n");
                Ok(())
            }
            _ => Ok(()),
        };
        outcome.map_err(|what| format!("line {}: {what}", index + 1))?;
    }
    for (key, count) in replay.counts {
        *counts.entry(key).or_default() += count;
    }
    Ok(())
}

#[test]
fn every_java_transcript_replays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java-3.5.1");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 70, "the transcripts are missing: {} files", files.len());
    let mut counts = BTreeMap::new();
    let mut faults = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let different = DIFFERENT.iter().find(|(file, _)| *file == name);
        match (replay(file, &mut counts), different) {
            (Err(fault), None) => faults.push(format!("{name}: {fault}")),
            (Ok(()), Some((_, why))) => {
                faults.push(format!("{name}: listed as different ({why}), but isn't"))
            }
            (Ok(()), None) | (Err(_), Some(_)) => {}
        }
    }
    println!("{} transcripts: {counts:?}", files.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(counts["lines written"] > 300 && counts["checkpoints answered"] > 50, "{counts:?}");
}
