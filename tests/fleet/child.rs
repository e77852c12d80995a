//! A record processor in memory: it takes a moment for each batch, checkpoints most of them, and sometimes
//! crashes.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use multilangd::lease::LeaseKey;
use multilangd::multilang::launch::{Happened, Process};
use multilangd::multilang::{Outgoing, Stop};
use multilangd::sequence::Sequence;
use multilangd::shard::BoxFuture;
use multilangd_protocol::Line;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::links::Link;
use crate::story::wall;
use crate::world::{Bug, FAILOVER, stream_of};

/// An action that ends with the exit of the child.
const EXIT: &str = "exit";

#[derive(Debug)]
enum Output {
    Said(String),
    Exited(i32),
}

/// The pending outputs of the child.
#[derive(Debug, Default)]
struct Pending {
    outputs: VecDeque<(Instant, Output)>,
    /// The action whose status follows when the checkpoint is answered.
    owes: Option<String>,
    dying: bool,
}

pub struct Child {
    link: Link,
    key: LeaseKey,
    pid: u32,
    mind: Mutex<Pending>,
    /// The index of the next expected record.
    next: Option<usize>,
    gone: bool,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child").field("key", &self.key).field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        *self.link.world.state().running.get_mut(&self.link.worker).unwrap() -= 1;
    }
}

impl Child {
    pub fn start(link: Link, key: LeaseKey) -> Self {
        let pid = {
            let mut state = link.world.state();
            state.next_pid += 1;
            state.next_pid
        };
        Self { link, key, pid, mind: Mutex::default(), next: None, gone: false }
    }

    fn after(&self, most: u64) -> Instant {
        let pause = self.link.world.state().random.u64(1..=most);
        Instant::now() + Duration::from_millis(pause)
    }

    fn say(&self, most: u64, text: String) {
        let at = self.after(most);
        self.mind.lock().unwrap().outputs.push_back((at, Output::Said(text)));
    }

    fn exit(&self, code: i32) {
        let at = self.after(50);
        let mut mind = self.mind.lock().unwrap();
        if !std::mem::replace(&mut mind.dying, true) {
            mind.outputs.push_back((at, Output::Exited(code)));
        }
    }

    fn status(&self, action: &str, most: u64) {
        self.say(most, format!(r#"{{"action":"status","responseFor":"{action}"}}"#));
    }

    fn checkpoint(&self, action: &str, number: Option<&str>) {
        self.mind.lock().unwrap().owes = Some(action.to_owned());
        let number = number.map_or("null".to_owned(), |number| format!("\"{number}\""));
        self.say(
            150,
            format!(r#"{{"action":"checkpoint","sequenceNumber":{number},"subSequenceNumber":null}}"#),
        );
    }

    fn receive(&mut self, message: &Value) {
        let action = message["action"].as_str().unwrap().to_owned();
        let (dies, checkpoints) = {
            let mut state = self.link.world.state();
            let dies = state.network.child_dies;
            (state.chance(dies), state.random.u32(0..10) > 1)
        };
        if dies {
            self.link.world.state().oracle.count("a child crashed");
            self.exit(1);
        }
        match action.as_str() {
            "initialize" => {
                self.begin(message["sequenceNumber"].as_str().unwrap());
                self.status(&action, 50);
            }
            "processRecords" => {
                let (last, numbers) = self.records(&message["records"]);
                if !dies && !self.process(&numbers) {
                    return;
                }
                if checkpoints {
                    self.checkpoint(&action, last.as_deref())
                } else {
                    self.status(&action, 150)
                }
            }
            "shardEnded" | "shutdownRequested" => self.checkpoint(&action, None),
            "checkpoint" => {
                let owed = self.mind.lock().unwrap().owes.take().unwrap();
                if message["error"].is_string() {
                    self.link.world.state().oracle.count("a checkpoint was rejected");
                }
                if owed == EXIT { self.exit(1) } else { self.status(&owed, 20) }
            }
            "leaseLost" => self.status(&action, 50),
            other => panic!("unknown message to a child: {other}"),
        }
    }

    /// Processes a batch. If it fails at a record, the child exits, with or without a checkpoint of the records
    /// before it.
    fn process(&self, numbers: &[u64]) -> bool {
        let mut state = self.link.world.state();
        let failed = state.fails_at(numbers).filter(|_| {
            state.bug != Some(Bug::SwallowsErrors) || {
                let ledger = state.ledger.as_ref().unwrap();
                !numbers.iter().any(|number| ledger.bad.contains(number))
            }
        });
        let early = state.bug == Some(Bug::CheckpointsFirst);
        let checkpoints = state.ledger.is_some() && state.random.bool();
        let Some(ledger) = &mut state.ledger else { return true };
        let can_process = |number: &u64| !ledger.bad.contains(number);
        let good: Vec<u64> = match failed {
            Some(at) => numbers[..at].to_vec(),
            None => numbers.iter().copied().filter(can_process).collect(),
        };
        ledger.processed(self.key.shard(), &good);
        if !good.is_empty() {
            ledger.during_outage.retain(|(_, shard), _| shard != self.key.shard());
        }
        if failed.is_none() {
            return true;
        }
        state.oracle.count("a child failed at a record");
        drop(state);
        let last = if early { numbers.last() } else { good.last() };
        match last.filter(|_| checkpoints) {
            Some(last) => self.checkpoint(EXIT, Some(&last.to_string())),
            None => self.exit(1),
        }
        false
    }

    fn begin(&mut self, stored: &str) {
        let mut state = self.link.world.state();
        let state = &mut *state;
        let stream = stream_of(&state.stream, &state.more, self.key.stream());
        let Some(line) = stream.shards.get(self.key.shard()) else {
            // The lease is of an earlier stream, whose records are gone. Until the lease is lost, the present
            // stream may get a shard of this name, which must then be read from its oldest record.
            self.next = (stored == "TRIM_HORIZON").then_some(0);
            return;
        };
        let records = &line.records;
        self.next = Some(match stored {
            "TRIM_HORIZON" => 0,
            // The first record shows where reading begins.
            "LATEST" => usize::MAX,
            number => {
                let number: u64 = number.parse().unwrap();
                records.partition_point(|n| *n <= number)
            }
        });
        state.oracle.begins(&state.rows, &self.link.worker, &self.key, stream);
    }

    /// Checks a batch, and returns its last sequence number and all of them.
    fn records(&mut self, records: &Value) -> (Option<String>, Vec<u64>) {
        let mut state = self.link.world.state();
        let state = &mut *state;
        let stream = stream_of(&state.stream, &state.more, self.key.stream());
        let (mut last, mut numbers) = (None, Vec::new());
        for record in records.as_array().unwrap() {
            let text = record["sequenceNumber"].as_str().unwrap();
            let number: u64 = text.parse().unwrap();
            last = Some(text.to_owned());
            if number <= stream.first {
                // A record of an earlier stream: the batch was in flight.
                continue;
            }
            let Some(line) = stream.shards.get(self.key.shard()) else {
                state.oracle.violated("another-stream", format!("{number} of {}", self.key));
                continue;
            };
            let all = &line.records;
            let place = all.partition_point(|n| *n < number);
            // Records with a letter may be left out; and those up to the stored checkpoint, of which the child learned
            // nothing at its start, because the answer to the write was lost.
            if let (Some(ledger), Some(next)) = (&state.ledger, &mut self.next) {
                let stored: u64 = match state.rows.get(&self.key).map(|row| &row.checkpoint.sequence) {
                    Some(Sequence::Number(number)) => number.as_str().parse().unwrap(),
                    _ => 0,
                };
                let is_settled = |record: u64| ledger.is_passed(self.key.shard(), record) || record <= stored;
                while *next < place && is_settled(all[*next]) {
                    *next += 1;
                }
            }
            numbers.push(number);
            if state.ledger.as_ref().is_some_and(|ledger| ledger.is_old(number, wall())) {
                state.oracle.violated("old-delivered", format!("{number} of {} is too old", self.key));
            }
            if self.next != Some(place) && self.next != Some(usize::MAX) {
                let expected = self.next;
                state.oracle.violated(
                    "gap",
                    format!("{} of {} comes at {expected:?}, is at {place}", number, self.key),
                );
            }
            self.next = Some(place + 1);
            state.oracle.delivered(&self.link.worker, &self.key, number, Instant::now(), FAILOVER);
        }
        let noted = format!("{} {} {last:?}", self.link.worker, self.key);
        state.oracle.note(&noted);
        (last, numbers)
    }
}

impl Process for Child {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn write(&mut self, message: Outgoing) {
        let line = message.into_line();
        if line.is_empty() || self.gone || self.mind.lock().unwrap().dying {
            return;
        }
        let message: Value = serde_json::from_slice(&line).unwrap();
        self.receive(&message);
    }

    fn close_stdin(&mut self) {
        self.exit(0);
    }

    fn next(&mut self, listen: bool, alive: bool) -> BoxFuture<'_, Happened> {
        Box::pin(async move {
            loop {
                if self.gone && listen {
                    return Happened::Said(None);
                }
                let due = self.mind.lock().unwrap().outputs.front().map(|(at, _)| *at);
                match due {
                    Some(at) if alive || listen => sleep_until(at).await,
                    _ => std::future::pending().await,
                }
                self.link.world.thawed(&self.link.worker).await;
                let output = self.mind.lock().unwrap().outputs.pop_front();
                match output {
                    Some((_, Output::Said(text))) => {
                        return Happened::Said(Some(Line::Whole(text.into_bytes())));
                    }
                    Some((_, Output::Exited(code))) => {
                        self.gone = true;
                        return Happened::Exited(Ok(ExitStatus::from_raw(code << 8)));
                    }
                    None => {}
                }
            }
        })
    }

    fn stop(&self, _: Stop) {
        self.exit(143);
    }
}
