//! Compares the daemon's decisions with transcripts of the Java daemon 3.5.1: the state machine of a shard
//! receives the events of Kinesis, the lease table and the operator (inferred from Java's next line), and every
//! line of the child. Every line that it sends must equal Java's, byte for byte, including each checkpoint
//! error.
//!
//! `protocol/tests/transcripts.rs` replays the same files through the protocol crate alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "test code")]

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use multilangd::batch::Batch;
use multilangd::consumer::event::{Effect, Event, Message, Settings};
use multilangd::consumer::state::State;
use multilangd::lease::held;
use multilangd::multilang::{self, Outgoing};
use multilangd::record::{Data, Record};
use multilangd::sequence::{Position, Sequence, SequenceNumber};
use multilangd::shard::{ChildShard, HashRange};
use multilangd_protocol::{LineSplitter, Session, ToChild};
use serde_json::Value;
use tokio::time::Instant;

fn settings() -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        parent_poll: second,
        task_backoff: second,
        answer: None,
        warn_after: None,
        shutdown_grace: second,
        hand_off: std::time::Duration::from_secs(30),
        lost_grace: second,
        exit_grace: second,
        kill_grace: second,
        keep_empty: true,
        max_failures: 5,
        parked_pause: None,
        shape: multilangd::consumer::event::Shape::default(),
        dead_letters: None,
        max_age: None,
    }
}

fn number(text: &str) -> SequenceNumber {
    SequenceNumber::parse(text).unwrap()
}

fn record(json: &Value) -> Record {
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    Record {
        sequence: number(&text("sequenceNumber")),
        sub: json["subSequenceNumber"].as_u64().unwrap(),
        partition_key: text("partitionKey").into(),
        data: Data::of_base64(text("data").into()).unwrap(),
        arrival: json["approximateArrivalTimestamp"].as_i64(),
    }
}

struct Replay {
    shard: String,
    state: State,
    session: Session,
    splitter: LineSplitter,
    now: Instant,
    /// Lines that the state machine has sent and that are not compared with Java's yet.
    sent: VecDeque<Vec<u8>>,
    /// Whether the lease belongs to another worker, so that every conditional write fails.
    stolen: bool,
    over: bool,
    counts: BTreeMap<String, usize>,
}

impl Replay {
    fn new(first: &Value, stolen: bool) -> Self {
        let line: Value = serde_json::from_str(first["line"].as_str().unwrap()).unwrap();
        let stored = Position {
            sequence: Sequence::parse(line["sequenceNumber"].as_str().unwrap()).unwrap(),
            sub: line["subSequenceNumber"].as_u64().unwrap(),
        };
        Self {
            shard: line["shardId"].as_str().unwrap().to_owned(),
            state: State::new(settings(), stored, false, fastrand::Rng::with_seed(1)),
            session: Session::default(),
            splitter: LineSplitter::default(),
            now: Instant::now(),
            sent: VecDeque::new(),
            stolen,
            over: false,
            counts: BTreeMap::new(),
        }
    }

    /// Feeds an event, and all events that follow from it, to the state machine.
    fn on(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.state.on(self.now, event) {
                events.extend(self.perform(effect));
            }
            while let Some(said) = self.session.next() {
                events.push_back(Event::Child(multilang::Event::Said(said)));
                if !events.is_empty() {
                    break;
                }
            }
        }
    }

    /// Carries out an effect, and returns the event that results from it.
    fn perform(&mut self, effect: Effect) -> Option<Event> {
        let mut line = Vec::new();
        match effect {
            Effect::Spawn => return Some(Event::Spawned),
            Effect::PrepareEnd(_) => return Some(Event::EndPrepared(Ok(()))),
            Effect::Store(position) => {
                return Some(Event::Stored(
                    position,
                    if self.stolen { Err(held::Error::Lost) } else { Ok(()) },
                ));
            }
            Effect::Acknowledge(outcome) => self.session.acknowledge(outcome, &mut line),
            Effect::Send(message) => self.begin(&message, &mut line),
            Effect::CloseStdin | Effect::Failed(..) | Effect::Finish(_) => self.over = true,
            Effect::OpenFeed(_)
            | Effect::CloseFeed
            | Effect::CheckParents
            | Effect::Signal(_)
            | Effect::Abandon
            | Effect::ParentsUnknown(_)
            | Effect::ShutdownRefused(_)
            | Effect::StopTimedOut
            | Effect::FailedWhileStopping(_)
            | Effect::EndDelayed(..)
            | Effect::Parked(..)
            | Effect::ParkedByOperator(_)
            | Effect::UnparkedByOperator
            | Effect::Bisecting(..)
            | Effect::Bisected
            | Effect::Letter(_)
            | Effect::AgedLetters(_)
            | Effect::Aged { .. }
            | Effect::LetterRefused(..)
            | Effect::Recovered
            | Effect::Shortage(_)
            | Effect::Slow(_) => {}
        }
        self.sent.extend((!line.is_empty()).then_some(line));
        None
    }

    fn begin(&mut self, message: &Message, line: &mut Vec<u8>) {
        match message {
            Message::Initialize(position) => {
                let message = ToChild::Initialize {
                    shard_id: &self.shard,
                    sequence_number: Some(position.sequence.as_str()),
                    sub_sequence_number: Some(position.sub),
                };
                self.session.begin(&message, line).unwrap();
            }
            Message::ProcessRecords(records, millis_behind_latest) => {
                self.session.begin_batch().unwrap();
                let (records, millis_behind_latest) = (records.clone(), *millis_behind_latest);
                line.extend(Outgoing::batch(records, millis_behind_latest).into_line());
            }
            Message::ShutdownRequested => self.session.begin(&ToChild::ShutdownRequested, line).unwrap(),
            Message::LeaseLost => self.session.begin(&ToChild::LeaseLost, line).unwrap(),
            Message::ShardEnded => self.session.begin(&ToChild::ShardEnded, line).unwrap(),
        }
    }

    /// Compares with a line that Java sent. If the state machine has sent nothing, an external event happened
    /// first, which Java's line implies.
    fn compare_with_java(&mut self, entry: &Value) -> Result<(), String> {
        let line = entry["line"].as_str();
        if self.sent.is_empty() && !self.over {
            self.feed_external_event(entry);
        }
        let Some(ours) = self.sent.pop_front() else {
            return Err(format!("Java sends {}, ours nothing", line.unwrap_or("a batch")));
        };
        let ours = String::from_utf8(ours).unwrap();
        match line {
            // Stored in the transcript as a digest only.
            None => Ok(()),
            Some(line) if ours == format!("{line}\n") => {
                *self.counts.entry("lines".to_owned()).or_default() += 1;
                let error = serde_json::from_str::<Value>(line).unwrap()["error"].clone();
                if let Some(error) = error.as_str() {
                    *self.counts.entry(error.to_owned()).or_default() += 1;
                }
                Ok(())
            }
            Some(line) => Err(format!("Java sends {line}, ours {ours}")),
        }
    }

    /// Feeds the external event that a line of Java implies.
    fn feed_external_event(&mut self, entry: &Value) {
        let Some(line) = entry["line"].as_str() else {
            let tail = entry["line_tail"].as_str().unwrap();
            let last = tail.rsplit("\"sequenceNumber\":\"").next().unwrap().split('"').next().unwrap();
            let plain = Record {
                sequence: number(last),
                sub: 0,
                partition_key: "".into(),
                data: Data::default(),
                arrival: None,
            };
            return self.on(Event::Batch(Batch { records: vec![plain].into(), ..Batch::default() }));
        };
        let json: Value = serde_json::from_str(line).unwrap();
        match json["action"].as_str().unwrap() {
            "initialize" => self.on(Event::Begin),
            "processRecords" => self.on(Event::Batch(Batch {
                records: json["records"].as_array().unwrap().iter().map(record).collect(),
                millis_behind_latest: json["millisBehindLatest"].as_i64(),
                ..Batch::default()
            })),
            "shutdownRequested" => self.on(Event::Stop),
            "leaseLost" => self.on(Event::LeaseLost),
            "shardEnded" => {
                let range = HashRange { start: 0, end: 9 };
                let child =
                    ChildShard { id: "child".into(), parents: vec![self.shard.as_str().into()], range };
                self.on(Event::Batch(Batch { end: Some(vec![child]), ..Batch::default() }));
            }
            _ => {}
        }
    }

    /// Feeds a line of the child.
    fn feed_child_line(&mut self, entry: &Value) {
        let end = if entry["nl"] == Value::Bool(false) { "" } else { "\n" };
        let line = entry["line"].as_str().unwrap_or("not UTF-8, or very long");
        let mut lines = Vec::new();
        self.splitter.push(format!("{line}{end}").as_bytes(), &mut lines);
        for line in lines {
            self.session.receive(&line);
        }
        while let Some(said) = self.session.next() {
            self.on(Event::Child(multilang::Event::Said(said)));
        }
    }
}

fn replay(file: &Path, counts: &mut BTreeMap<String, usize>) -> Result<(), String> {
    let text = std::fs::read_to_string(file).unwrap();
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A lost lease does not follow from the child's lines.
    let is_lost_lease =
        |entry: &Value| entry["line"].as_str().is_some_and(|line| line.contains("ShutdownException"));
    let mut replay = Replay::new(&entries[0], entries.iter().any(is_lost_lease));
    for (index, entry) in entries.iter().enumerate() {
        match entry["dir"].as_str().unwrap() {
            "to_child" => {
                replay.compare_with_java(entry).map_err(|what| format!("line {}: {what}", index + 1))?
            }
            "from_child" => replay.feed_child_line(entry),
            _ => {}
        }
    }
    // Java may have stopped before it sent leaseLost.
    let more: Vec<String> =
        replay.sent.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    if more.iter().any(|line| *line != "{\"action\":\"leaseLost\"}\n") {
        return Err(format!("ours sends more lines: {more:?}"));
    }
    for (what, count) in replay.counts {
        *counts.entry(what).or_default() += count;
    }
    Ok(())
}

#[test]
fn every_transcript_of_java_is_reproduced() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/tests/java-3.5.1");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 75, "the transcripts are missing: {} files", files.len());
    let (mut counts, mut faults) = (BTreeMap::new(), Vec::new());
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(fault) = replay(file, &mut counts) {
            faults.push(format!("{name}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} transcripts: {counts:?}", files.len());
    for error in ["InvalidStateException", "IllegalArgumentException", "ShutdownException"] {
        assert!(counts[error] > 0, "no {error} was compared");
    }
    assert!(counts["lines"] > 300, "{counts:?}");
}
