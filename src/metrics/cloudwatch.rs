//! The metrics that KCL sends to CloudWatch, with the same names, units and dimensions, so that dashboards
//! and alarms made for KCL continue to work.
//!
//! [`Queue`] aggregates events: each metric with its dimensions has one set of statistics. [`run`] sends them
//! as often as KCL does. In KCL: `MetricsUtil`, `FilteringMetricsScope`, `MetricAccumulatingQueue`,
//! `CloudWatchPublisherRunnable`, `CloudWatchMetricsPublisher`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multilangd_protocol::Action;
use tokio::sync::Notify;

use super::events::{Coverage, Ending, Move, OfShard, OfWorker, Step, Supporters, Tables};
use super::sink::Sink;
use crate::shard::ShardId;
use crate::stream::StreamIdentifier;

mod sending;

pub use sending::{Publisher, run};

/// At this number of metrics the queue is sent at once (`CloudWatchMetricsFactory.FLUSH_SIZE`,
/// `publisherFlushBuffer`).
const FLUSH: usize = 200;

/// `metricsLevel`: the metrics that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All metrics.
    Detailed,
    /// The most important metrics.
    Summary,
}

/// The unit of a metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// `Count`.
    Count,
    /// `Milliseconds`.
    Milliseconds,
    /// `Bytes`.
    Bytes,
    /// `None`: a number without a unit.
    None,
}

/// Settings of the CloudWatch metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `metricsLevel`, which is not `NONE`.
    pub level: Level,
    /// `metricsEnabledDimensions`; none for all. Other dimensions are removed from what is sent.
    pub dimensions: Option<BTreeSet<String>>,
    /// `metricsBufferTimeMillis`: the interval between sends.
    pub every: Duration,
    /// `metricsMaxQueueSize`: the number of metrics that may wait.
    pub most: usize,
    /// `workerId`.
    pub worker: String,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
    /// The renewal interval, at which the sums of renewals are reported.
    pub renewals: Duration,
}

/// A metric with its dimensions, under which values are aggregated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Name, such as `MillisBehindLatest`.
    pub name: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Names and values of the dimensions.
    pub dimensions: Vec<(&'static str, String)>,
}

/// Aggregated values, as a CloudWatch statistic set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Number of values.
    pub count: f64,
    /// Sum of the values.
    pub sum: f64,
    /// The lowest value.
    pub least: f64,
    /// The highest value.
    pub most: f64,
}

impl Statistics {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }
}

/// Metrics that wait to be sent.
#[derive(Debug)]
pub struct Queue {
    settings: Settings,
    state: Mutex<State>,
    full: Notify,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Key>,
    waiting: BTreeMap<Key, Statistics>,
    dropped: u64,
    /// Leases held, and the results of their renewals since the last report.
    held: BTreeSet<ShardId>,
    lost: u32,
    failed: bool,
    longest: Duration,
    /// Whether a leader assigns leases; none before the first scan.
    led: Option<bool>,
    /// Whether leases were discovered before. At first the discovery finds those that this worker had before.
    looked: bool,
    /// Leases acquired, and leases that another worker acquired first, since the last scan of the lease
    /// table.
    taken: usize,
    untaken: usize,
    /// Stage of the table migration, if this worker knows it.
    tables: Option<Tables>,
    /// The open action of each shard's child.
    asked: BTreeMap<ShardId, Action>,
}

impl Queue {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default(), full: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes and returns all metrics, oldest first, and the number of dropped values.
    fn drain(&self) -> (Vec<(Key, Statistics)>, u64) {
        let mut state = self.lock();
        let many = state.order.len().min(FLUSH);
        let keys: Vec<Key> = state.order.drain(..many).collect();
        let data = keys.into_iter().filter_map(|key| state.waiting.remove_entry(&key)).collect();
        (data, std::mem::take(&mut state.dropped))
    }

    fn is_full(&self) -> bool {
        self.lock().order.len() >= FLUSH
    }

    /// Reports the metrics of KCL's pass over all leases; here each lease is renewed by its own task.
    fn renewals(&self) {
        let (held, lost, failed, longest) = {
            let mut state = self.lock();
            let lost = std::mem::take(&mut state.lost);
            let (failed, longest) = (std::mem::take(&mut state.failed), std::mem::take(&mut state.longest));
            (state.held.len(), lost, failed, longest)
        };
        let scope = self.scope("RenewAllLeases").worker();
        scope.summary("LostLeases", Unit::Count, f64::from(lost));
        scope.summary("CurrentLeases", Unit::Count, count(held));
        scope.success(Level::Summary, "", !failed, Some(longest));
    }

    fn discovered(&self, took: Duration, ok: bool) {
        let scope = self.scope("LeaseDiscovery").worker();
        scope.detailed("ListLeaseKeysForWorker.Time", Unit::Milliseconds, millis(took));
        scope.success(Level::Summary, "", ok, Some(took));
    }

    /// Reports a pass of `DynamoDBLeaseTaker.computeLeasesToTake`, for fleets in which each worker takes its
    /// share.
    fn shares(&self, leases: usize, workers: usize) {
        let (taken, untaken, held) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.taken), std::mem::take(&mut state.untaken), state.held.len())
        };
        let scope = self.scope("TakeLeases").worker();
        scope.summary("TakenLeases", Unit::Count, count(taken));
        scope.summary("UntakenLeases", Unit::Count, count(untaken));
        let (target, spillover) = if workers >= leases {
            (1, 0)
        } else {
            let share = leases.div_ceil(workers.max(1));
            (share.min(self.settings.max_leases), share.saturating_sub(self.settings.max_leases))
        };
        let needed = if leases == 0 { 0 } else { target.saturating_sub(held) };
        scope.summary("LeaseSpillover", Unit::Count, count(spillover));
        scope.detailed("LeasesToTake", Unit::Count, count(taken + untaken));
        scope.detailed("NeededLeases", Unit::Count, count(needed));
    }

    /// Reports the leader's part of a pass of `TableMigrationStateMachineImpl`.
    fn surveyed(&self, found: Option<Supporters>, took: Duration) {
        let scope = self.scope("TableMigration");
        scope.summary("ReadFault", Unit::Count, fault(found.is_some()));
        scope.summary("Time", Unit::Milliseconds, millis(took));
        let Some(Supporters { least, owners, able, moved }) = found else { return };
        scope.summary("PrePhase1Worker", Unit::Count, count(owners.saturating_sub(able)));
        scope.summary("Phase1Worker", Unit::Count, count(able.saturating_sub(moved)));
        scope.summary("Phase2Worker", Unit::Count, count(moved));
        if let Some(least) = least {
            let least = count(usize::try_from(least).unwrap_or(0));
            self.scope("WorkerMetrics").summary("FleetMinSupportCode", Unit::None, least);
        }
    }

    fn moved(&self, what: Move, took: Duration, ok: bool) {
        let scope = self.scope("TableMigration");
        match what {
            Move::Stage => scope.summary("WriteFault", Unit::Count, fault(ok)),
            Move::Withdrawal => scope.summary("DeleteFault", Unit::Count, fault(ok)),
            Move::Completion => scope.summary("CompletionFault", Unit::Count, fault(ok)),
            Move::Rows => self.scope("TableMigrationAsyncMove").success(Level::Summary, "", ok, Some(took)),
        }
    }

    fn scope(&self, operation: &'static str) -> Scope<'_> {
        Scope { queue: self, dimensions: Vec::new() }.with("Operation", operation)
    }
}

/// An operation with its dimensions. In KCL: `MetricsScope`.
struct Scope<'a> {
    queue: &'a Queue,
    dimensions: Vec<(&'static str, String)>,
}

impl Scope<'_> {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        if self.queue.settings.dimensions.as_ref().is_none_or(|enabled| enabled.contains(name)) {
            self.dimensions.push((name, value.to_owned()));
        }
        self
    }

    /// The shard, and the stream of an application that reads several ([`super::of_stream`]).
    fn shard(self, shard: &ShardId) -> Self {
        match StreamIdentifier::split(shard.as_str()) {
            Some((stream, id)) => self.with("ShardId", id).with("StreamId", stream.as_str()),
            None => self.with("ShardId", shard.as_str()),
        }
    }

    fn worker(self) -> Self {
        let worker = self.queue.settings.worker.clone();
        self.with("WorkerIdentifier", &worker)
    }

    fn summary(&self, name: &str, unit: Unit, value: f64) {
        self.add(Level::Summary, name, unit, value);
    }

    fn detailed(&self, name: &str, unit: Unit, value: f64) {
        self.add(Level::Detailed, name, unit, value);
    }

    /// `MetricsUtil.addSuccessAndLatency`.
    fn success(&self, level: Level, of: &str, ok: bool, took: Option<Duration>) {
        let name = |name: &str| if of.is_empty() { name.to_owned() } else { format!("{of}.{name}") };
        self.add(level, &name("Success"), Unit::Count, f64::from(u8::from(ok)));
        if let Some(took) = took {
            self.add(level, &name("Time"), Unit::Milliseconds, millis(took));
        }
    }

    fn add(&self, level: Level, name: &str, unit: Unit, value: f64) {
        if level < self.queue.settings.level {
            return;
        }
        let key = Key { name: name.to_owned(), unit, dimensions: self.dimensions.clone() };
        let mut state = self.queue.lock();
        if let Some(statistics) = state.waiting.get_mut(&key) {
            statistics.add(value);
        } else if state.order.len() >= self.queue.settings.most {
            state.dropped += 1;
        } else {
            state.order.push_back(key.clone());
            state.waiting.insert(key, Statistics { count: 1.0, sum: value, least: value, most: value });
            if state.order.len() >= FLUSH {
                self.queue.full.notify_one();
            }
        }
    }
}

fn fault(ok: bool) -> f64 {
    f64::from(u8::from(!ok))
}

/// `TableMigrationStatus.ordinal`.
fn ordinal(tables: Tables) -> f64 {
    match tables {
        Tables::Unknown => 0.0,
        Tables::Init => 1.0,
        Tables::Deployed => 2.0,
        Tables::Pending => 3.0,
        Tables::Complete => 4.0,
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round()
}

#[expect(clippy::cast_precision_loss, reason = "CloudWatch has floating-point numbers only")]
fn count(count: usize) -> f64 {
    count as f64
}

impl Sink for Queue {
    fn shard(&self, shard: &ShardId, event: OfShard<'_>) {
        let process = || self.scope("ProcessTask").shard(shard);
        match event {
            OfShard::Held { .. } => drop(self.lock().held.insert(shard.clone())),
            OfShard::Over(ending) => {
                let mut state = self.lock();
                state.held.remove(shard);
                state.asked.remove(shard);
                state.lost += u32::from(ending == Ending::Lost);
            }
            OfShard::Asked(action) => drop(self.lock().asked.insert(shard.clone(), action)),
            OfShard::Answered { action, took } => {
                self.lock().asked.remove(shard);
                match action {
                    Action::Initialize => self.scope("InitializeTask").summary(
                        "RecordProcessor.initialize.Time",
                        Unit::Milliseconds,
                        millis(took),
                    ),
                    Action::ProcessRecords => {
                        let scope = process();
                        let time = "RecordProcessor.processRecords.Time";
                        scope.summary(time, Unit::Milliseconds, millis(took));
                        scope.success(Level::Summary, "", true, Some(took));
                    }
                    Action::ShardEnded | Action::LeaseLost => {
                        let time = "RecordProcessor.shutdown.Time";
                        self.scope("ShutdownTask").summary(time, Unit::Milliseconds, millis(took));
                    }
                    Action::ShutdownRequested => {}
                }
            }
            OfShard::ChildFailed { .. } => {
                let asked = self.lock().asked.remove(shard);
                if asked == Some(Action::ProcessRecords) {
                    process().success(Level::Summary, "", false, None);
                }
            }
            OfShard::Parked
            | OfShard::Bisecting { .. }
            | OfShard::Bisected
            | OfShard::DeadLetter { .. }
            | OfShard::Aged { .. }
            | OfShard::LetterRefused { .. }
            | OfShard::Recovered
            | OfShard::ParkedByOperator { .. }
            | OfShard::UnparkedByOperator
            | OfShard::Shortage { .. }
            | OfShard::Opening
            | OfShard::WaitsForRoom(_) => {}
            OfShard::IteratorAsked { took, ok } => {
                process().success(Level::Detailed, "KinesisDataFetcher.getShardIterator", ok, Some(took));
            }
            OfShard::Fetched { records, millis_behind_latest, took } => {
                let scope = process();
                if let Some(took) = took {
                    scope.success(Level::Detailed, "KinesisDataFetcher.getRecords", true, Some(took));
                }
                if let Some(behind) = millis_behind_latest {
                    let behind = millis(Duration::from_millis(u64::try_from(behind).unwrap_or(0)));
                    scope.summary("MillisBehindLatest", Unit::Milliseconds, behind);
                    let all = self.scope("ApplicationTracker");
                    all.summary("MillisBehindLatest", Unit::Milliseconds, behind);
                }
                if records == 0 {
                    // KCL runs a task for an empty batch, although the child is not called.
                    scope.summary("RecordsProcessed", Unit::Count, 0.0);
                    scope.summary("DataBytesProcessed", Unit::Bytes, 0.0);
                    scope.success(Level::Summary, "", true, Some(Duration::ZERO));
                }
            }
            OfShard::FetchFailed { took, .. } => {
                process().success(Level::Detailed, "KinesisDataFetcher.getRecords", false, took);
            }
            OfShard::Delivered { records, bytes, .. } => {
                let scope = process();
                scope.summary("RecordsProcessed", Unit::Count, count(records));
                scope.summary("DataBytesProcessed", Unit::Bytes, count(bytes));
            }
            OfShard::Checkpointed { took, .. } | OfShard::CheckpointFailed { took } => {
                let ok = matches!(event, OfShard::Checkpointed { .. });
                let in_batch = self.lock().asked.get(shard) == Some(&Action::ProcessRecords);
                let operation = if in_batch { "ProcessTask" } else { "ShutdownTask" };
                let scope = self.scope(operation).shard(shard);
                scope.success(Level::Detailed, "UpdateLease", ok, Some(took));
            }
            OfShard::ChildStarted { .. }
            | OfShard::Stderr(_)
            | OfShard::ChildGone
            | OfShard::Received { .. }
            | OfShard::Waiting { .. }
            | OfShard::EndDelayed
            | OfShard::Dropped { .. } => {}
        }
    }

    fn worker(&self, event: OfWorker<'_>) {
        match event {
            OfWorker::Ready => {
                self.scope("Scheduler:Initialize").success(Level::Summary, "Initialize", true, None);
            }
            OfWorker::Did { step, took, ok } => match step {
                Step::Renew => {
                    {
                        let mut state = self.lock();
                        state.failed |= !ok;
                        state.longest = state.longest.max(took);
                    }
                    let scope = self.scope("RenewAllLeases").worker();
                    scope.success(Level::Detailed, "RenewLease", ok, Some(took));
                }
                Step::Take => {
                    let scope = self.scope("TakeLeases").worker();
                    scope.success(Level::Detailed, "TakeLease", ok, Some(took));
                    let mut state = self.lock();
                    *if ok { &mut state.taken } else { &mut state.untaken } += 1;
                }
                Step::Create { at } => {
                    let scope = self.scope("ShardSyncTask");
                    scope.success(Level::Detailed, "CreateLease", ok, Some(took));
                    // As in KCL: 1 whether the lease was created or not.
                    scope.success(Level::Detailed, &format!("CreateLease_{at}"), true, None);
                }
                Step::Sync => {
                    let scope = self.scope("ShardSyncTask");
                    scope.success(Level::Detailed, "SyncShards", ok, None);
                    scope.success(Level::Summary, "", ok, Some(took));
                }
                Step::Audit(coverage) => {
                    let scope = self.scope("PeriodicShardSyncManager");
                    let (partial, needed, skipped) = match coverage {
                        Coverage::Whole => (0.0, 0.0, 0.0),
                        Coverage::Hole => (1.0, 0.0, 0.0),
                        Coverage::Confirmed { synced } => (1.0, 1.0, f64::from(u8::from(!synced))),
                    };
                    scope.summary("NumStreamsWithPartialLeases", Unit::Count, partial);
                    scope.summary("NumStreamsToSync", Unit::Count, needed);
                    scope.summary("NumSkippedShardSyncTask", Unit::Count, skipped);
                    scope.success(Level::Summary, "", ok, Some(took));
                }
                Step::Report => {
                    let scope = self.scope("WorkerMetricStatsReporter").worker();
                    scope.success(Level::Summary, "", ok, Some(took));
                }
                Step::Discover => self.discovered(took, ok),
                Step::List => {
                    let (led, looked) = {
                        let mut state = self.lock();
                        (state.led, std::mem::replace(&mut state.looked, true))
                    };
                    if !looked {
                        self.scope("LeaseRenewerInitialize").detailed("Fault", Unit::Count, fault(ok));
                    }
                    let scope = match led {
                        None => return,
                        Some(false) => self.scope("TakeLeases").worker(),
                        Some(true) => self.scope("LeaseAssignmentManager"),
                    };
                    if led == Some(true) {
                        let time = "LeaseAndWorkerMetricsLoad.Time";
                        scope.detailed(time, Unit::Milliseconds, millis(took));
                        // A leader sees its own leases in the scan of all leases.
                        self.discovered(took, ok);
                    } else {
                        scope.success(Level::Detailed, "ListLeases", ok, Some(took));
                    }
                    scope.success(Level::Summary, "", ok, Some(took));
                }
            },
            OfWorker::Looked { leases, free, workers, leads } => {
                self.lock().led = Some(leads.is_some());
                let (scope, total) = match leads {
                    None => {
                        self.shares(leases, workers);
                        (self.scope("TakeLeases").worker(), Level::Detailed)
                    }
                    Some(leads) => {
                        let leader = self.scope("LeaderDecider");
                        let is = f64::from(u8::from(leads));
                        leader.detailed("LeaderDecider:IsLeader", Unit::Count, is);
                        if !leads {
                            // In KCL every worker starts the assignment; where it does not lead, the run ends
                            // without one.
                            let scope = self.scope("LeaseAssignmentManager");
                            return scope.success(Level::Summary, "", true, Some(Duration::ZERO));
                        }
                        let tables = self.lock().tables;
                        if let Some(tables) = tables {
                            self.scope("TableMigration").summary(
                                "StatusOrdinal",
                                Unit::None,
                                ordinal(tables),
                            );
                        }
                        (self.scope("LeaseAssignmentManager"), Level::Summary)
                    }
                };
                scope.add(total, "TotalLeases", Unit::Count, count(leases));
                scope.summary("ExpiredLeases", Unit::Count, count(free));
                scope.summary("NumWorkers", Unit::Count, count(workers));
            }
            OfWorker::Discovered { leases, took } => {
                let scope = self.scope("LeaseDiscovery").worker();
                scope.detailed("FetchNewLeases.Time", Unit::Milliseconds, millis(took));
                scope.detailed("NewLeasesDiscovered", Unit::Count, count(leases));
            }
            OfWorker::Planned { assigning, left, balancing } => {
                let scope = self.scope("LeaseAssignmentManager");
                let time = "AssignExpiredOrUnassignedLeases.Time";
                scope.detailed(time, Unit::Milliseconds, millis(assigning));
                if left > 0 {
                    scope.summary("LeaseSpillover", Unit::Count, count(left));
                }
                if let Some((took, moves)) = balancing {
                    scope.detailed("BalanceWorkerVariance.Time", Unit::Milliseconds, millis(took));
                    scope.summary("NumOfLeasesReassignment", Unit::Count, count(moves));
                }
            }
            OfWorker::GaveOut { failed, took } => {
                let scope = self.scope("LeaseAssignmentManager");
                scope.detailed("FailedAssignmentCount", Unit::Count, count(failed));
                scope.success(Level::Detailed, "ParallelyAssignLeases", true, Some(took));
            }
            OfWorker::Swept { reports, took } => {
                let scope = self.scope("LeaseAssignmentManager");
                scope.detailed("TotalStaleWorkerMetricsEntry", Unit::Count, count(reports));
                scope.detailed("StaleWorkerMetricsCleanup.Time", Unit::Milliseconds, millis(took));
            }
            OfWorker::Tables(tables) => self.lock().tables = Some(tables),
            OfWorker::Surveyed { found, took } => self.surveyed(found, took),
            OfWorker::Moved { what, took, ok } => self.moved(what, took, ok),
            OfWorker::Stopping | OfWorker::Fleet(_) | OfWorker::Unread { .. } | OfWorker::Called { .. } => {}
        }
    }
}

#[cfg(test)]
#[path = "cloudwatch/tests.rs"]
mod tests;
