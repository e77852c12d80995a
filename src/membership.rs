//! This worker's part in a fleet of KCL 3: it reports its host metrics, takes part in the leader election,
//! and follows the fleet's migration between KCL versions.
//!
//! One task owns all state and waits only for events; requests are tasks that end with events. Its state is
//! published as a [`Standing`], by which the coordinator acquires leases.
//!
//! Order of a shutdown: the lock is released first, so that another worker can become the leader; a report
//! states that no lease is wanted; it stays fresh until every lease was released, then it is deleted.
//!
//! In KCL: `DynamicMigrationComponentsInitializer`, `DynamoDBLockBasedLeaderDecider`,
//! `WorkerMetricStatsReporter`, `ClientVersionChangeMonitor`, `MigrationReadyMonitor`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, warn};

use crate::clock::{self, Expiry};
use crate::coordinator::{Handle, Snapshot, Standing, SuccessorQuery};
use crate::cpu::{self, Gauge};
use crate::fleet::layout::Layout;
use crate::fleet::lock::{Election, Terms};
use crate::fleet::report::{Ahead, Recorder, Verdict};
use crate::fleet::rows::{Lock, Report, Stage, StateLocation};
use crate::fleet::table_migration::{Mover, Step};
use crate::fleet::vacancy::{Unled, Vacancy};
use crate::fleet::version::Readiness;
use crate::fleet::{Mode, Store};
use crate::lease::held::Rival;
use crate::lease::outage::Outage;
use crate::lease::{Table, table};
use crate::metrics::{self, OfWorker};
use crate::unique::uuid;

mod begin;
mod follow;
mod judging;
mod leave;
mod lock;
mod table_migration;

pub use begin::{Begun, Error, Settings, begin};
use follow::Monitored;
use table_migration::Surveyed;

/// Between looks at the generation of the fleet, and at whether it could go on. KCL's are as far apart.
const MONITOR: Duration = Duration::from_secs(60);
/// The first of them a little later, so that a fleet that starts together doesn't ask together.
const MONITOR_SPREAD: Duration = Duration::from_secs(30);
/// A leader that has not seen the leases for this number of failover times releases the lock.
const PATIENCE: u32 = 6;
/// The time between two reads of the worker metrics by the leader; the nudge of a worker that joins also causes one.
const JUDGE: Duration = Duration::from_secs(45);
/// The number of failover times between two reads where worker metrics have a table of their own, as in Java: a read
/// costs little there, and some workers of the fleet do not nudge.
const JUDGE_APART: u32 = 2;

/// The channels of a member.
#[derive(Debug)]
pub struct Ends {
    /// The published state.
    pub standing: watch::Sender<Standing>,
    /// A peer called: there may be a new leader, or a new worker.
    pub calls: mpsc::Receiver<()>,
    /// The result of the coordinator's scans.
    pub seen: watch::Receiver<Snapshot>,
    /// The coordinator, which ends when nobody needs it: gone once this worker stops.
    pub coordinator: Option<Handle>,
    /// The daemon stops.
    pub stop: CancellationToken,
    /// Questions of a worker that stops.
    pub successors: mpsc::Receiver<SuccessorQuery>,
    /// Every lease has gone.
    pub gone: CancellationToken,
    /// An older process has this worker's id, and reports under it.
    pub rival: watch::Receiver<Option<Rival>>,
}

/// The end of a request.
enum Done {
    LockRead(StateLocation, Result<Option<Lock>, table::Error>),
    /// With the stage of the move into one table, where the lock may be in the old one by mistake.
    LockWritten(
        StateLocation,
        &'static str,
        Result<(), table::Error>,
        Option<Result<Option<Stage>, table::Error>>,
    ),
    Reported(Result<(), table::Error>),
    Judged(Result<Vec<Report>, table::Error>),
    Monitored(Result<Monitored, table::Error>),
    /// With the time that it took.
    Surveyed(Result<Box<Surveyed>, table::Error>, Duration),
    Moved(Step, Result<(), table::Error>),
    Checked(Result<(bool, Vec<Report>), table::Error>),
    Advanced(Result<(), table::Error>),
    Indexed(Result<bool, table::Error>),
    Retracted,
    Found(Option<Gauge>),
    Sampled(Box<Gauge>, Option<f64>),
}

/// When each kind of request is due.
#[derive(Debug)]
struct Due {
    lock: Instant,
    report: Instant,
    judge: Instant,
    monitor: Instant,
    table_migration: Instant,
    sample: Instant,
    /// While the index of owners isn't there.
    index: Option<Instant>,
}

/// Which kinds are under way.
#[derive(Debug, Default)]
struct Busy {
    lock: bool,
    report: bool,
    judge: bool,
    monitor: bool,
    table_migration: bool,
}

/// Requests that fail, by their kind.
#[derive(Debug, Default)]
struct Outages {
    lock_reads: Outage,
    lock_writes: Outage,
    report_reads: Outage,
    report_writes: Outage,
    monitor: Outage,
    index: Outage,
}

struct Member {
    store: Arc<dyn Store>,
    table: Arc<dyn Table>,
    settings: Settings,
    mode: Mode,
    layout: Layout,
    /// Where this worker writes, whatever comes.
    writes: StateLocation,
    alone: bool,
    /// Something forbids to lead; it is said once.
    barred: bool,
    election: Election,
    recorder: Recorder,
    gauge: Option<Box<Gauge>>,
    readiness: Readiness,
    mover: Mover,
    /// The lock is about to be another row, which the first worker that sees it acquires: no lease is assigned.
    finishing: bool,
    /// How long the machine had slept when the lock was written last, and when the write began that is known to
    /// have happened.
    slept: (Duration, Duration),
    /// Whether somebody leads, as the lock was read last.
    led: bool,
    vacancy: Vacancy,
    outages: Outages,
    /// Reports dated ahead of the clock.
    ahead: Ahead,
    /// The verdict of the reports alone, without workers that are known by other means.
    read: Arc<Verdict>,
    /// Whether this worker's last report says that it wants no leases.
    withdrawn: bool,
    /// Since when this worker leads.
    worked: Option<Instant>,
    /// The last report that was written.
    reported: Option<i64>,
    verdict: Arc<Verdict>,
    judged: Option<Instant>,
    led_by_ours: bool,
    due: Due,
    busy: Busy,
    work: JoinSet<Done>,
    ends: Ends,
    random: fastrand::Rng,
}

/// Takes part until every lease has gone.
pub async fn run(store: Arc<dyn Store>, table: Arc<dyn Table>, settings: Settings, begun: Begun, ends: Ends) {
    let now = Instant::now();
    let mut random = fastrand::Rng::new();
    let terms = Terms::new(settings.me.clone(), settings.failover);
    let monitor = now + MONITOR + MONITOR_SPREAD.mul_f64(random.f64());
    let mut member = Member {
        recorder: Recorder::new(false, settings.averages),
        election: Election::new(terms),
        mode: begun.mode,
        layout: begun.layout,
        writes: begun.layout.writes(),
        alone: begun.alone,
        barred: false,
        gauge: None,
        readiness: Readiness::default(),
        mover: Mover::default(),
        finishing: false,
        slept: (clock::slept(), clock::slept()),
        led: false,
        vacancy: Vacancy::default(),
        outages: Outages::default(),
        ahead: Ahead::default(),
        read: Arc::default(),
        withdrawn: false,
        worked: None,
        reported: None,
        verdict: Arc::default(),
        judged: None,
        led_by_ours: false,
        due: Due {
            lock: now,
            report: now,
            judge: now,
            monitor,
            table_migration: now,
            sample: now,
            index: (!begun.indexed).then_some(now),
        },
        busy: Busy::default(),
        work: JoinSet::new(),
        ends,
        random,
        store,
        table,
        settings,
    };
    member.show();
    // Where there is nothing to move, nothing reads a stage later.
    if member.layout == Layout::Complete {
        member.report_tables(None);
    }
    member.look_for_a_gauge();
    member.take_part().await;
    member.take_leave().await;
}

impl Member {
    async fn take_part(&mut self) {
        let stop = self.ends.stop.clone();
        loop {
            self.show();
            let now = Instant::now();
            let next = self.next(now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.work.join_next() => self.done(done),
                Some(()) = self.ends.calls.recv() => self.called(now),
                () = clock::reached(next) => self.begin_what_is_due(Instant::now()),
            }
        }
    }

    fn next(&self, now: Instant) -> Option<Instant> {
        let led = self.mode.is_led();
        let leads = led && self.election.leads(now);
        [
            (led && !self.busy.lock).then_some(self.due.lock),
            (self.mode.reports() && !self.busy.report).then_some(self.due.report),
            (leads && !self.busy.judge).then_some(self.due.judge),
            (!self.busy.monitor && self.monitors()).then_some(self.due.monitor),
            (!self.busy.table_migration && self.moves(now)).then_some(self.due.table_migration),
            self.gauge.is_some().then_some(self.due.sample),
            self.due.index,
            // Leading ends by itself, and so does trust in a leader.
            self.election.suspect_at().filter(|at| led && *at > now),
            self.election.until().filter(|until| *until > now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether anything can still change that others write.
    fn monitors(&self) -> bool {
        self.mode.may_change() || self.layout != Layout::Complete || self.alone
    }

    fn begin_what_is_due(&mut self, now: Instant) {
        self.check_own_work(now);
        if self.mode.is_led() && !self.busy.lock && now >= self.due.lock {
            let next = self.election.next(now, || uuid(self.random.u128(..)));
            self.lock(next);
        }
        let turned = self.withdrawn != (self.is_unable(now) || self.settings.capacity.is_short(now));
        if self.mode.reports() && !self.busy.report && (turned || now >= self.due.report) {
            self.report(now);
        }
        if self.mode.is_led() && self.election.leads(now) && !self.busy.judge && now >= self.due.judge {
            self.judge(now);
        }
        if self.monitors() && !self.busy.monitor && now >= self.due.monitor {
            self.monitor(now);
        }
        if self.moves(now) && !self.busy.table_migration && now >= self.due.table_migration {
            self.survey(now);
        }
        if self.due.index.is_some_and(|at| now >= at) {
            self.make_index();
        }
        if now >= self.due.sample
            && let Some(mut gauge) = self.gauge.take()
        {
            self.due.sample = now + self.settings.sample_every;
            self.spawn(async move {
                let sample = gauge.measure(now).await;
                Done::Sampled(gauge, sample)
            });
        }
    }

    /// Asked for again until it is there: DynamoDB may have been busy with the table.
    pub(super) fn make_index(&mut self) {
        self.due.index = None;
        let table = self.table.clone();
        self.spawn(async move { Done::Indexed(table.index(true).await) });
    }

    /// A leader that assigns no leases must not keep other workers from leading.
    fn check_own_work(&mut self, now: Instant) {
        if !self.election.leads(now) {
            self.worked = None;
            return;
        }
        let scanned = self.ends.seen.borrow().at;
        let since = *self.worked.get_or_insert(now);
        let last = scanned.map_or(since, |scanned| scanned.max(since));
        if now.saturating_duration_since(last) > self.settings.failover * PATIENCE {
            error!(
                "this worker is the leader but has failed to list the leases for too long: releasing the \
                 leader lock"
            );
            self.step_down();
        }
    }

    /// Starts a request in the current span; its end is an event.
    fn spawn(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.work.spawn(task.in_current_span());
    }

    fn report(&mut self, now: Instant) {
        self.due.report = now + self.settings.rules.every;
        self.busy.report = true;
        let at = (self.settings.wall)() / 1_000;
        self.withdraw(now);
        let report = match self.withdrawn {
            true => Recorder::farewell(&self.settings.me, at),
            false => self.recorder.report(&self.settings.me, at),
        };
        self.reported = Some(at);
        let (store, place, sink) = (self.store.clone(), self.writes, self.settings.sink.clone());
        self.spawn(async move {
            let outcome = store.report(place, &report).await;
            sink.worker(OfWorker::Did {
                step: metrics::Step::Report,
                took: now.elapsed(),
                ok: outcome.is_ok(),
            });
            Done::Reported(outcome)
        });
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        let now = Instant::now();
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // A bug in one request: the others go on, and it is made again.
                error!(%error, "fleet membership task panicked");
                self.busy = Busy::default();
                self.due.lock = now + self.settings.failover / 4;
                return;
            }
        };
        match done {
            Done::LockRead(place, _) | Done::LockWritten(place, ..) if place != self.layout.lock() => {
                self.lock_done();
            }
            Done::LockRead(_, outcome) => self.lock_read(&outcome, now),
            Done::LockWritten(_, write, outcome, stage) => self.lock_written(write, &outcome, stage, now),
            Done::Reported(outcome) => {
                self.busy.report = false;
                self.noted(&outcome, now);
                if outcome.is_ok() && !self.verdict.reporting.contains(&self.settings.me) {
                    // The leader is a worker too.
                    self.due.judge = now;
                }
            }
            Done::Judged(outcome) => {
                self.busy.judge = false;
                match outcome {
                    Ok(reports) => self.judged(&reports),
                    Err(error) => self.cannot_judge(&error, now),
                }
            }
            Done::Monitored(Ok(seen)) => {
                if let Some(lasted) = self.outages.monitor.worked(now) {
                    info!(?lasted, "reading the fleet state works again");
                }
                self.monitored(&seen);
            }
            Done::Monitored(Err(error)) => {
                self.busy.monitor = false;
                if self.outages.monitor.failed(now, &error, &self.settings.reach) {
                    warn!(%error, "failed to read the fleet state");
                }
            }
            Done::Surveyed(Ok(seen), took) => self.surveyed(*seen, took),
            Done::Surveyed(Err(error), took) => self.cannot_survey(&error, took),
            Done::Moved(step, outcome) => self.moved(step, outcome),
            Done::Checked(Ok((index, reports))) => self.checked(index, &reports, now),
            Done::Checked(Err(error)) => {
                if error.is_unanswered() {
                    debug!(%error, "failed to check whether all workers support KCL 3.x");
                } else {
                    warn!(%error, "failed to check whether all workers support KCL 3.x");
                }
                self.readiness = Readiness::default();
            }
            Done::Advanced(Ok(())) => {
                info!("all workers support KCL 3.x: leader-assigned leases start within two minutes")
            }
            Done::Advanced(Err(error)) => warn!(%error, "failed to write the new fleet state"),
            Done::Indexed(Ok(there)) => self.due.index = (!there).then(|| now + MONITOR),
            Done::Retracted => {}
            Done::Indexed(Err(error)) => {
                // Once: the table is scanned instead.
                let logged = self.outages.index.is_logged();
                if self.outages.index.failed(now, &error, &self.settings.reach) && !logged {
                    warn!(
                        %error,
                        action = "dynamodb:UpdateTable",
                        "failed to create the index of lease owners, scanning the lease table instead"
                    );
                }
                self.due.index = Some(now + MONITOR);
            }
            Done::Found(gauge) => {
                if let Some(gauge) = gauge {
                    info!(source = gauge.name(), "measuring CPU utilisation");
                    self.recorder = Recorder::new(true, self.settings.averages);
                    self.gauge = Some(Box::new(gauge));
                    self.due.sample = now + self.settings.sample_every.mul_f64(self.random.f64());
                }
            }
            Done::Sampled(gauge, sample) => {
                self.gauge = Some(gauge);
                if let Some(percent) = sample {
                    self.recorder.sample(percent);
                }
            }
        }
    }

    fn look(&self) {
        if let Some(coordinator) = &self.ends.coordinator {
            coordinator.look();
        }
    }

    /// A peer called: a worker is new, or the leader has gone.
    fn called(&mut self, now: Instant) {
        if self.mode.is_led() {
            self.due.lock = self.due.lock.min(now);
            self.due.judge = now;
        }
    }

    fn show(&self) {
        let now = Instant::now();
        let acts = self.mode.is_led() && !self.finishing;
        let until = self.election.until().filter(|_| acts);
        let (mode, leads_until) = (Some(self.mode), until.map(|at| Expiry::new(at, self.slept.1)));
        let suspect = self.mode.is_led() && self.election.is_suspect(now);
        let unled = self.vacancy.unled(now, self.settings.failover).filter(|_| self.mode.is_led());
        let unled = unled.filter(|_| !self.election.leads(now));
        let (led, mut before) = (self.led, None);
        let mut turned = false;
        self.ends.standing.send_if_modified(|shown| {
            turned = suspect && !shown.suspect;
            let same = shown.mode == mode
                && shown.leads_until == leads_until
                && shown.suspect == suspect
                && (shown.unled, shown.led) == (unled, led)
                && shown.led_by_ours == self.led_by_ours
                && Arc::ptr_eq(&shown.verdict, &self.verdict);
            if !same {
                let (verdict, led_by_ours, judged) = (self.verdict.clone(), self.led_by_ours, self.judged);
                before = (shown.unled != unled).then_some(shown.unled);
                *shown = Standing { mode, leads_until, unled, led, suspect, led_by_ours, verdict, judged };
            }
            !same
        });
        match (before, unled) {
            (None, _) => {}
            (Some(_), Some(Unled::Vacant)) => {
                warn!(
                    actions = "dynamodb:PutItem, dynamodb:UpdateItem",
                    "no worker has been the leader for three failover times: leases are shared without a \
                     leader, as in KCL 2.x (allow at least one worker to write the leader lock)"
                );
            }
            (Some(_), Some(Unled::Unknown)) => {
                warn!(
                    action = "dynamodb:GetItem",
                    "failed to read the leader lock: acquiring only unowned and expired leases"
                );
            }
            (Some(_), None) => info!("a leader assigns leases again"),
        }
        if before.is_some() {
            self.look();
        }
        if turned {
            debug!("the leader may be dead, scanning the lease table");
            // Leases that expire from now on are known to the next leader.
            self.look();
        }
    }

    fn look_for_a_gauge(&mut self) {
        if let Some(surroundings) = self.settings.surroundings.clone() {
            self.spawn(async move { Done::Found(cpu::detect(&surroundings).await) });
        }
    }
}
