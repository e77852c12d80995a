//! Reads the state of a fleet from its tables: leases, owners, workers and their load, the leader, and the
//! stage of the table migration. Nothing is written, and no worker has to answer; Java's workers are
//! included.
//!
//! Only a change of its counter shows that a lease or the leader lock is alive, so the tables are read twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::Store;
use crate::fleet::layout::Layout;
use crate::fleet::report::{Rules, judge};
use crate::fleet::rows::{Dated, Generation, Lock, Report, Stage, Word};
use crate::lease::orders::Pause;
use crate::lease::{Lease, Table, WorkerId, table};

/// The content of the tables at one time.
#[derive(Debug, Clone)]
pub struct Look {
    leases: Vec<Lease>,
    layout: Layout,
    stage: Option<Dated<Stage>>,
    generation: Option<Dated<Generation>>,
    lock: Option<Lock>,
    reports: Vec<Report>,
}

impl Look {
    /// The leases.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// In which tables the rows are.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The stage of the table migration.
    pub fn stage(&self) -> Option<&Dated<Stage>> {
        self.stage.as_ref()
    }

    /// The KCL version of the fleet.
    pub fn generation(&self) -> Option<&Dated<Generation>> {
        self.generation.as_ref()
    }
}

/// Reads the tables once.
///
/// # Errors
/// A table could not be read.
pub async fn look(store: &dyn Store, table: &dyn Table) -> Result<Look, table::Error> {
    let old = store.legacy().await?.state;
    let stage = if old { store.stage().await? } else { None };
    let stored = stage.as_ref().map(|row| row.now.state);
    // Whether this worker is configured to migrate the tables does not affect what they contain.
    let layout = Layout::at_start(old, stored, false).unwrap_or(Layout::Init);
    let (mut generation, mut reports) = (None, Vec::new());
    for place in layout.reads() {
        if generation.is_none() {
            generation = store.generation(*place).await?;
        }
        reports.extend(store.reports(*place).await?);
    }
    let lock = store.lock(layout.lock()).await?;
    Ok(Look { leases: table.list().await?, layout, stage, generation, lock, reports })
}

/// The content of the tables at two times.
#[derive(Debug)]
pub struct Overview {
    name: String,
    before: Look,
    now: Look,
    between: Duration,
    /// Seconds since 1970.
    at: i64,
    rules: Rules,
}

/// Reads the tables twice.
///
/// # Errors
/// A table could not be read.
pub async fn inspect(
    name: &str,
    store: &dyn Store,
    table: &dyn Table,
    between: Duration,
    rules: Rules,
    wall: fn() -> i64,
) -> Result<Overview, table::Error> {
    let before = look(store, table).await?;
    sleep(between).await;
    let now = look(store, table).await?;
    Ok(Overview { name: name.to_owned(), before, now, between, at: wall() / 1_000, rules })
}

/// A worker, by its leases and its worker metrics.
struct Worker {
    id: WorkerId,
    leases: usize,
    moving: usize,
    reported: Option<i64>,
    metrics: BTreeMap<String, f64>,
    wants_leases: bool,
}

impl Overview {
    fn moves(&self, lease: &Lease) -> bool {
        let before = self.before.leases.iter().find(|before| before.key == lease.key);
        before.is_some_and(|before| before.counter != lease.counter)
    }

    fn lock_moves(&self) -> bool {
        let version = |look: &Look| look.lock.as_ref().map(|lock| lock.version.clone());
        version(&self.before) != version(&self.now)
    }

    fn workers(&self) -> Vec<Worker> {
        let verdict = judge(&self.now.reports, self.at, &self.rules);
        let open = || self.now.leases.iter().filter(|lease| !lease.is_complete());
        let owners = open().filter_map(|lease| lease.actual_owner().cloned());
        let reporting = self.now.reports.iter().map(|report| WorkerId::from(report.worker.as_str()));
        let all: BTreeSet<WorkerId> = owners.chain(reporting).collect();
        let worker = |id: WorkerId| {
            let theirs = || open().filter(|lease| lease.actual_owner() == Some(&id));
            let reports = self.now.reports.iter().filter(|report| report.worker == id.as_str());
            let member = verdict.members.iter().find(|member| member.id == id);
            let metrics = member.map(|member| member.metrics.as_slice()).unwrap_or_default();
            Worker {
                leases: theirs().count(),
                moving: theirs().filter(|lease| self.moves(lease)).count(),
                reported: reports.filter_map(|report| report.at).max().map(|at| self.at.saturating_sub(at)),
                metrics: metrics.iter().map(|metric| (metric.name.clone(), metric.value)).collect(),
                wants_leases: member.is_some(),
                id,
            }
        };
        all.into_iter().map(worker).collect()
    }

    /// The state as one JSON object.
    pub fn json(&self) -> Value {
        let entry = |word: &str, by: &str, at: i64| json!({"state": word, "by": by, "atMillis": at});
        let generation =
            self.now.generation.as_ref().map(|row| entry(row.now.state.word(), &row.now.by, row.now.at));
        let stage = self.now.stage.as_ref().map(|row| entry(row.now.state.word(), &row.now.by, row.now.at));
        let leader = self.now.lock.as_ref().map(|lock| {
            let millis = u64::try_from(lock.lease.as_millis()).unwrap_or(u64::MAX);
            json!({"worker": lock.owner.as_str(), "lockMillis": millis, "moved": self.lock_moves()})
        });
        let workers = self.workers().into_iter().map(|worker| {
            json!({
                "worker": worker.id.as_str(), "leases": worker.leases, "moving": worker.moving,
                "reportedSecondsAgo": worker.reported, "metrics": worker.metrics,
                "wantsLeases": worker.wants_leases,
            })
        });
        let leases = self.now.leases.iter().map(|lease| {
            json!({
                "shard": lease.key.to_string(),
                "owner": lease.owner.as_ref().map(WorkerId::as_str),
                "checkpointOwner": lease.checkpoint_owner.as_ref().map(WorkerId::as_str),
                "counter": lease.counter,
                "moved": self.moves(lease),
                "checkpoint": lease.checkpoint.sequence.as_str(),
                "subSequenceNumber": lease.checkpoint.sub,
                "parked": lease.park.as_ref().map(|park| json!({"sinceMillis": park.since(), "by": park.by()})),
                "paused": paused(lease).map(|pause| json!({"sinceMillis": pause.since(), "by": pause.by()})),
                "throughputKBps": lease.throughput.map(|throughput| throughput.kilobytes()),
                "parents": lease.parents.iter().map(|shard| shard.as_str()).collect::<Vec<_>>(),
            })
        });
        json!({
            "table": self.name,
            "watchedMillis": u64::try_from(self.between.as_millis()).unwrap_or(u64::MAX),
            "tables": if self.now.layout == Layout::Complete { 1 } else { 3 },
            "tableMigration": stage,
            "generation": generation,
            "leader": leader,
            "workers": workers.collect::<Vec<_>>(),
            "leases": leases.collect::<Vec<_>>(),
        })
    }

    /// The state as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let generation = self.now.generation.as_ref();
        let state = generation.map_or("no KCL 3.x state", |row| row.now.state.word());
        let leader = match &self.now.lock {
            Some(lock) => {
                let sign = if self.lock_moves() { "alive" } else { "not renewed" };
                format!("{} ({sign}; lock duration {:?})", lock.owner, lock.lease)
            }
            None => "none".to_owned(),
        };
        let tables = if self.now.layout == Layout::Complete { "one table" } else { "three tables" };
        let moving = self.now.stage.as_ref().map(|row| format!(", {}", row.now.state.word()));
        let _infallible = writeln!(
            out,
            "{}: {state}, {tables}{}; leader: {leader}\n",
            self.name,
            moving.unwrap_or_default()
        );
        let mut workers = vec![["WORKER", "LEASES", "RENEWED", "REPORTED", "LOAD"].map(str::to_owned)];
        for worker in self.workers() {
            let load = match (&worker.metrics, worker.wants_leases, worker.reported) {
                (_, _, None) => "no metrics".to_owned(),
                (metrics, true, _) if metrics.is_empty() => "by throughput".to_owned(),
                (metrics, true, _) => {
                    let shown = metrics.iter().map(|(name, value)| format!("{name} {value:.1} %"));
                    shown.collect::<Vec<_>>().join(", ")
                }
                (_, false, _) => "accepts no leases".to_owned(),
            };
            let reported = worker.reported.map_or("-".to_owned(), |seconds| format!("{seconds} s ago"));
            let (leases, moving) = (worker.leases.to_string(), worker.moving.to_string());
            workers.push([worker.id.to_string(), leases, moving, reported, load]);
        }
        columns(&mut out, &workers);
        let head = ["LEASE", "OWNER", "COUNTER", "RENEWED", "KB/S", "ORDER", "CHECKPOINT"].map(str::to_owned);
        let mut leases = vec![head];
        for lease in &self.now.leases {
            let owner = match (&lease.owner, &lease.checkpoint_owner) {
                (Some(next), Some(now)) => format!("{now} -> {next}"),
                (Some(owner), None) => owner.to_string(),
                (None, _) => "-".to_owned(),
            };
            let throughput =
                lease.throughput.map_or("-".to_owned(), |rate| format!("{:.1}", rate.kilobytes()));
            let moved = if self.moves(lease) { "yes" } else { "no" };
            leases.push([
                lease.key.to_string(),
                owner,
                lease.counter.to_string(),
                moved.to_owned(),
                throughput,
                ordered(lease).to_owned(),
                lease.checkpoint.to_string(),
            ]);
        }
        out.push('\n');
        columns(&mut out, &leases);
        let _infallible = writeln!(out, "\nrenewals observed for {:?}", self.between);
        out
    }
}

/// The order by which the application is paused, as far as this lease says.
fn paused(lease: &Lease) -> Option<&Pause> {
    lease.pause.as_ref().filter(|pause| pause.is_on())
}

/// The orders of an operator by which the lease is not delivered.
fn ordered(lease: &Lease) -> &'static str {
    match (&lease.park, paused(lease)) {
        // Nothing is left to deliver.
        _ if lease.is_complete() => "-",
        (Some(_), Some(_)) => "parked, paused",
        (Some(_), None) => "parked",
        (None, Some(_)) => "paused",
        (None, None) => "-",
    }
}

/// Aligned columns, each as wide as its widest cell, the last one unpadded.
pub(crate) fn columns<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(|column| if column + 1 < N { width(column) } else { 0 }).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _infallible = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::memory::Memory as State;
    use crate::fleet::report::Recorder;
    use crate::fleet::rows::StateLocation;
    use crate::lease::memory::Memory;
    use crate::lease::orders::Park;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    fn rules() -> Rules {
        let second = Duration::from_secs(1);
        Rules { every: second * 30, alpha: 0.5, stale: second * 86_400 }
    }

    fn lease(shard: &str, owner: Option<&str>) -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let mut lease =
            Lease::new(shard.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        lease.owner = owner.map(Into::into);
        lease
    }

    #[tokio::test(start_paused = true)]
    async fn live_leases_and_locks_are_distinguished_from_expired() {
        let (state, table) = (State::default(), Memory::default());
        table.put(lease("a", Some("w1")));
        table.put(lease("b", Some("w2")));
        table.put(Lease {
            park: Some(Park::new(8, "ann")),
            pause: Some(Pause::new(false, 9, "bob")),
            ..lease("c", None)
        });
        let now = 1_795_000_000;
        {
            let mut rows = state.rows();
            let me = WorkerId::from("w1");
            rows.generation
                .insert(StateLocation::Leases, Dated::first(Generation::ThreeX, Generation::Init, &me, 7));
            let lock =
                Lock { owner: me, lease: Duration::from_secs(16), version: "v".into(), released: false };
            rows.lock.insert(StateLocation::Leases, lock);
            for (worker, at) in [("w1", now - 4), ("w3", now)] {
                let mut recorder = Recorder::new(worker == "w3", 10);
                recorder.sample(12.5);
                let report = recorder.report(&worker.into(), at);
                rows.reports.insert((StateLocation::Leases, worker.to_owned()), report);
            }
        }
        let watch = inspect("app", &state, &table, Duration::from_secs(5), rules(), || 1_795_000_000_000);
        let renew = async {
            sleep(Duration::from_secs(1)).await;
            let mut row = table.row(&"a".into()).unwrap();
            row.counter += 1;
            table.put(row);
        };
        let (seen, ()) = tokio::join!(watch, renew);
        let seen = seen.unwrap();
        let shown = seen.json();
        let workers: Vec<_> = shown["workers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                (
                    one["worker"].as_str().unwrap(),
                    one["leases"].as_u64().unwrap(),
                    one["moving"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(workers, [("w1", 1, 1), ("w2", 1, 0), ("w3", 0, 0)]);
        assert_eq!(shown["workers"][2]["metrics"]["C"], json!(12.5));
        assert_eq!(shown["leader"], json!({"worker": "w1", "lockMillis": 16_000, "moved": false}));
        assert_eq!(shown["generation"]["state"], "CLIENT_VERSION_3X");
        assert_eq!(shown["leases"][0]["moved"], true);
        assert_eq!(shown["leases"][2]["parked"], json!({"sinceMillis": 8, "by": "ann"}));
        assert_eq!(shown["leases"][2]["paused"], json!(null), "resumed");
        let text = seen.text();
        assert!(text.contains("app: CLIENT_VERSION_3X, one table; leader: w1 (not renewed"), "{text}");
        assert!(text.contains("\nw3      0       0        0 s ago   C 12.5 %\n"), "{text}");
        assert!(text.contains("\nw2      1       0        -         no metrics\n"), "{text}");
        assert!(text.contains("\nc      -      0        no       -     parked  TRIM"), "{text}");
    }
}
