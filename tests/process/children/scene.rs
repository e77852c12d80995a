//! A stream of some shards, a record processor that misbehaves in some of them, and the resulting run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::rig::*;

/// The number of records put at the start, and again once the fleet has settled.
const RECORDS: usize = 40;
/// Short delays, so that a scene takes seconds.
const BRISK: &str = "taskBackoffTimeMillis = 20\nmultilangd.childExitGraceMillis = 200\n\
                     multilangd.childKillGraceMillis = 200\n";

/// A scene that is being played.
pub struct Scene {
    pub rig: Rig,
    shards: usize,
    /// Shard, time and action of each fault.
    plan: Vec<(usize, &'static str, String)>,
    lines: String,
    put: Vec<(String, Vec<u8>)>,
}

/// The outcome of a scene.
#[derive(Clone)]
pub struct Run {
    pub log: Vec<Report>,
    /// The daemon's log lines, as JSON.
    pub lines: Vec<Value>,
    pub exit: Option<i32>,
    /// The number of grandchildren that still ran when everything else had ended.
    pub holding: usize,
    put: BTreeSet<String>,
    /// The shards with a fault.
    hit: BTreeSet<String>,
}

pub fn shard(index: usize) -> String {
    format!("shardId-{index:012}")
}

impl Scene {
    pub async fn new(name: &str, shards: usize) -> Self {
        let rig = Rig::start(name).await;
        rig.stream(i32::try_from(shards).unwrap()).await;
        Self { rig, shards, plan: Vec::new(), lines: BRISK.to_owned(), put: Vec::new() }
    }

    /// Adds a fault: in this shard, at this time, the child does this.
    pub fn plan(mut self, index: usize, moment: &'static str, fault: impl Into<String>) -> Self {
        self.plan.push((index, moment, fault.into()));
        self
    }

    pub fn lines(mut self, lines: &str) -> Self {
        self.lines.push_str(lines);
        self
    }

    pub fn daemon(&self) -> Daemon {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/unruly.py");
        let plan: Vec<String> = self
            .plan
            .iter()
            .map(|(index, moment, fault)| format!("{}@{moment}={fault}", shard(*index)))
            .collect();
        let (port, folder) = (self.rig.port(), self.rig.folder.display().to_string());
        let executable = format!("python3 -S -E {} {port} {folder} {}", script.display(), plan.join(" "));
        self.rig.daemon(&self.rig.properties(&executable, &self.lines))
    }

    /// Puts more records, spread over all shards.
    pub async fn put(&mut self) {
        let from = self.put.len();
        let records: Vec<_> = (from..from + RECORDS).map(|n| (format!("key-{n}"), vec![b'x'; 10])).collect();
        self.rig.put(&records).await;
        self.put.extend(records);
    }

    /// Waits until every record has been checkpointed by the child that received it.
    pub async fn settled(&mut self) {
        let put: BTreeSet<String> = self.put.iter().map(|(key, _)| key.clone()).collect();
        self.rig.until("every record checkpointed", |log| put.is_subset(&checkpointed_keys(log))).await;
    }

    /// Puts records, waits for the faults, puts records again, and stops the daemon. Every fault must occur.
    pub async fn play(mut self) -> Run {
        let daemon = self.daemon();
        self.put().await;
        self.wait_for_faults().await;
        self.settled().await;
        self.put().await;
        self.settled().await;
        self.stop(daemon).await
    }

    /// Waits until every fault of the plan is about to occur.
    pub async fn wait_for_faults(&mut self) {
        let faults = self.plan.len();
        self.rig.until("the faults", |log| said(log, "fault").len() == faults).await;
    }

    pub async fn stop(self, mut daemon: Daemon) -> Run {
        // The daemon has reaped every replaced child long before.
        let replaced = self.rig.log.iter().filter_map(|report| match report {
            Report::Gone { pid } => Some(*pid),
            Report::Said { .. } => None,
        });
        // A grandchild in another session is reaped by the system's init, if at all.
        let kept: BTreeSet<i32> = of_kind(&self.rig.log, "grandchild").map(|(pid, ..)| pid).collect();
        let zombies: Vec<i32> = replaced.filter(|pid| !kept.contains(pid) && !is_reaped(*pid)).collect();
        assert_eq!(zombies, [0; 0], "zombies under the running daemon");
        let exit = daemon.stop().await;
        self.end(&daemon, exit).await
    }

    /// Plays the scene until the daemon exits by itself.
    pub async fn play_to_the_end(mut self) -> Run {
        let mut daemon = self.daemon();
        self.put().await;
        self.wait_for_faults().await;
        let exit = daemon.ended().await.code();
        self.end(&daemon, exit).await
    }

    pub async fn end(mut self, daemon: &Daemon, exit: Option<i32>) -> Run {
        self.rig.until("all children gone", |log| alive_children(log) == 0).await;
        // Grandchildren exit with the fixture, which holds their sockets.
        let holding = of_kind(&self.rig.log, "grandchild").filter(|(pid, ..)| !is_gone(*pid)).count();
        let text = std::fs::read_to_string(&daemon.stderr).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line)));
        Run {
            log: std::mem::take(&mut self.rig.log),
            lines: lines.collect(),
            exit,
            holding,
            put: self.put.iter().map(|(key, _)| key.clone()).collect(),
            hit: self.plan.iter().map(|(index, ..)| shard(*index)).collect(),
        }
    }

    pub fn all_shards(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.shards).map(shard)
    }
}

/// The number of running children, without grandchildren, which run as long as the test lets them.
fn alive_children(log: &[Report]) -> usize {
    let kept: BTreeSet<i32> = of_kind(log, "grandchild").map(|(pid, ..)| pid).collect();
    let mut alive = BTreeSet::new();
    for report in log {
        match report {
            Report::Said { pid, .. } if !kept.contains(pid) => alive.insert(*pid),
            Report::Said { .. } => false,
            Report::Gone { pid } => alive.remove(pid),
        };
    }
    alive.len()
}

/// The reports of one kind: pid, shard, body.
pub fn of_kind<'a>(log: &'a [Report], kind: &'a str) -> impl Iterator<Item = (i32, &'a str, &'a Value)> {
    log.iter().filter_map(move |report| match report {
        Report::Said { pid, shard, what, body } if what == kind => Some((*pid, shard.as_str(), body)),
        _ => None,
    })
}

/// The keys of batches that the same child then checkpointed successfully.
fn checkpointed_keys(log: &[Report]) -> BTreeSet<String> {
    let mut open: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let mut done = BTreeSet::new();
    for report in log {
        let Report::Said { pid, what, body, .. } = report else { continue };
        if what == "processRecords" {
            let keys = body["records"].as_array().unwrap().iter();
            open.entry(*pid)
                .or_default()
                .extend(keys.map(|r| r["partitionKey"].as_str().unwrap().to_owned()));
        } else if what == "checkpointed" && body["error"].is_null() {
            done.extend(open.remove(pid).unwrap_or_default());
        }
    }
    done
}

type Checked = Result<(), String>;

impl Run {
    /// Asserts every claim that holds for all faults.
    pub fn assert_sound(&self) {
        for (name, check) in CHECKS {
            if let Err(why) = check(self) {
                panic!("{name}: {why}\n{:#?}\n{}", self.log, self.text());
            }
        }
    }

    /// Asserts that the fault ends the daemon, so that the claim about other shards is false.
    pub fn assert_daemon_ends(&self) {
        assert_eq!(self.exit, Some(1), "{}", self.text());
        assert!(only_its_shard(self).is_err(), "the check cannot fail");
        assert!(no_process_remains(self).is_ok());
    }

    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The log lines about failed children: shard, pid and reason.
    pub fn failures(&self) -> Vec<(&str, i64, &str)> {
        let parse = |line| -> Option<(&str, i64, &str)> {
            let line: &Value = line;
            Some((line["shard"].as_str()?, line["pid"].as_i64()?, line["error"].as_str()?))
        };
        self.events("processor_failed").into_iter().filter_map(parse).collect()
    }

    /// The log lines with this event code.
    pub fn events(&self, event: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["event"] == event).collect()
    }

    /// The children of a shard, in the order of their starts.
    pub fn children(&self, shard: &str) -> Vec<i32> {
        of_kind(&self.log, "initialize").filter(|(_, of, _)| *of == shard).map(|(pid, ..)| pid).collect()
    }

    /// Asserts that each failure of the plan's shards is logged once, with shard, pid and the given text.
    pub fn assert_failures_logged(&self, words: &str) {
        let failures = self.failures();
        assert_eq!(failures.len(), self.hit.len(), "{failures:?}\n{}", self.text());
        for (shard, pid, reason) in failures {
            assert!(self.hit.contains(shard) && reason.contains(words), "{shard} {reason}");
            assert!(self.children(shard).contains(&i32::try_from(pid).unwrap()), "{pid}");
        }
    }
}

type Check = fn(&Run) -> Checked;

const CHECKS: [(&str, Check); 5] = [
    ("only its shard", only_its_shard),
    ("records are checkpointed in order", records_are_checkpointed_in_order),
    ("children start at the checkpoint", children_start_at_the_checkpoint),
    ("no process remains", no_process_remains),
    ("no line per message", log_is_bounded),
];

/// Shards outside the plan have a single child throughout, and the daemon exited on request.
fn only_its_shard(run: &Run) -> Checked {
    if run.exit != Some(0) {
        return Err(format!("the daemon ended with {:?}", run.exit));
    }
    let shards: BTreeSet<&str> = of_kind(&run.log, "initialize").map(|(_, shard, _)| shard).collect();
    for shard in shards.into_iter().filter(|shard| !run.hit.contains(*shard)) {
        if run.children(shard).len() != 1 {
            return Err(format!("{shard} had {} children", run.children(shard).len()));
        }
    }
    Ok(())
}

/// Every record was checkpointed, and no child received records out of order or twice.
fn records_are_checkpointed_in_order(run: &Run) -> Checked {
    let done = checkpointed_keys(&run.log);
    if let Some(key) = run.put.iter().find(|key| !done.contains(*key)) {
        return Err(format!("{key} was never checkpointed"));
    }
    let mut last: BTreeMap<i32, String> = BTreeMap::new();
    for (pid, _, body) in of_kind(&run.log, "processRecords") {
        for record in body["records"].as_array().unwrap() {
            let sequence = record["sequenceNumber"].as_str().unwrap();
            if last.get(&pid).is_some_and(|last| last.as_str() >= sequence) {
                return Err(format!("{pid} saw {sequence} after {}", last[&pid]));
            }
            last.insert(pid, sequence.to_owned());
        }
    }
    Ok(())
}

/// A child starts at the last checkpoint of its predecessors.
fn children_start_at_the_checkpoint(run: &Run) -> Checked {
    let mut stored: BTreeMap<&str, &str> = BTreeMap::new();
    for report in &run.log {
        let Report::Said { shard, what, body, .. } = report else { continue };
        if what == "checkpointed"
            && body["error"].is_null()
            && let Some(at) = body["sequenceNumber"].as_str()
        {
            stored.insert(shard, at);
        }
        if what == "initialize" {
            let (starts, wanted) = (body["sequenceNumber"].as_str().unwrap(), stored.get(shard.as_str()));
            if starts != *wanted.unwrap_or(&"TRIM_HORIZON") {
                return Err(format!("{shard} starts at {starts}, stored is {wanted:?}"));
            }
        }
    }
    Ok(())
}

/// No process and no zombie remains, except a grandchild in another session.
fn no_process_remains(run: &Run) -> Checked {
    let kept: BTreeSet<i32> = of_kind(&run.log, "grandchild").map(|(pid, ..)| pid).collect();
    let left: Vec<i32> =
        pids(&run.log).into_iter().filter(|pid| !kept.contains(pid) && !is_gone(*pid)).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still run")) }
}

/// The number of log lines grows with children, not with messages.
fn log_is_bounded(run: &Run) -> Checked {
    let ours = run
        .lines
        .iter()
        .filter(|line| line["target"].as_str().is_some_and(|target| target.starts_with("multilangd")));
    let children = of_kind(&run.log, "initialize").count();
    let (ours, most) = (ours.count(), 15 + 10 * children);
    if ours <= most { Ok(()) } else { Err(format!("{ours} lines for {children} children")) }
}

mod tests {
    use super::*;
    use serde_json::json;

    fn said(pid: i32, what: &str, body: Value) -> Report {
        let shard = if pid == 1 { shard(0) } else { shard(1) };
        Report::Said { pid, shard, what: what.to_owned(), body }
    }

    fn batch(keys: &[(&str, &str)]) -> Value {
        let record =
            |(key, sequence): &(&str, &str)| json!({"partitionKey": key, "sequenceNumber": sequence});
        json!({"records": keys.iter().map(record).collect::<Vec<_>>()})
    }

    /// A run without violations; its pids do not exist.
    fn good() -> Run {
        let start = |at: &str| json!({"sequenceNumber": at});
        let done = |at: &str| json!({"sequenceNumber": at, "error": null});
        let log = vec![
            said(1, "initialize", start("TRIM_HORIZON")),
            said(i32::MAX, "initialize", start("TRIM_HORIZON")),
            said(1, "processRecords", batch(&[("a", "10"), ("b", "11")])),
            said(1, "checkpointed", done("11")),
            said(i32::MAX, "processRecords", batch(&[("c", "12")])),
            said(i32::MAX, "checkpointed", done("12")),
        ];
        let put = ["a", "b", "c"].map(str::to_owned).into();
        Run { log, lines: vec![], exit: Some(0), holding: 0, put, hit: [shard(1)].into() }
    }

    fn assert_detects(check: Check, doctor: impl FnOnce(&mut Run)) {
        let mut run = good();
        assert_eq!(check(&run), Ok(()));
        doctor(&mut run);
        assert!(check(&run).is_err());
    }

    #[test]
    fn each_check_can_fail() {
        assert_detects(only_its_shard, |run| run.exit = Some(1));
        assert_detects(only_its_shard, |run| run.log.push(run.log[0].clone()));
        assert_detects(records_are_checkpointed_in_order, |run| run.log.truncate(5));
        assert_detects(records_are_checkpointed_in_order, |run| run.put = ["d".to_owned()].into());
        assert_detects(records_are_checkpointed_in_order, |run| run.log.push(run.log[2].clone()));
        assert_detects(children_start_at_the_checkpoint, |run| run.log.push(run.log[0].clone()));
        assert_detects(log_is_bounded, |run| run.lines = vec![json!({"target": "multilangd"}); 100]);
        let own = i32::try_from(std::process::id()).unwrap();
        let mut run = good();
        run.log.retain(|report| matches!(report, Report::Said { pid, .. } if *pid != 1));
        assert_eq!(no_process_remains(&run), Ok(()));
        run.log.push(Report::Gone { pid: own });
        assert!(no_process_remains(&run).is_err());
    }
}
