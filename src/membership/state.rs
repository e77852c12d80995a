//! This worker's part in its fleet as a pure state machine: events in, effects out, no I/O, no clock.
//!
//! | event | effects |
//! |---|---|
//! | `Begin` | `FindGauge` |
//! | `Wake` | a request of each [`Kind`] that is due: `ReadLock` or `WriteLock`, `Report`, `ReadReports`, `Monitor`, `Survey`, `MakeIndex`, `Sample`; with `Monitor` also `Check` |
//! | `Scanned` | as the leader `Assign` for the first assignments of a plan |
//! | `Assigned` | `Assign` for the next ones; `NudgeSoon` for the new owner; after the last `ScanNow`, if one is this worker |
//! | `Nudged` | none; other requests become due |
//! | `LockRead` | `WriteLock`, or none |
//! | `LockWritten` | `ReadReports` for a new leader; `ReleaseLock` if the lock has moved |
//! | `Reported` | none: when the next report is due |
//! | `Judged` | `Sweep`; `ScanNow` for new workers |
//! | `Monitored` | `ScanNow` and `MakeIndex` in another mode; `ReleaseLock` if this worker must not lead |
//! | `Checked` | `Advance`, once all workers have supported KCL 3.x for long enough |
//! | `Advanced`, `Indexed`, `GaugeFound`, `Sampled`, `Panicked` | none; other requests become due |
//! | `Surveyed` | `Migrate`, if a step is due |
//! | `Migrated` | none, or `ReleaseLock` of the lock that has moved |
//! | `Stop` | `LastRelease`, if this worker holds the lock |
//!
//! After each event `Publish` follows if the place of this worker in its fleet has changed, and `ScanNow` if that
//! concerns its leases. Any event can have `Emit` as effect, and log lines.
//!
//! When a request is due and whether it is in flight stands in one table, by [`Kind`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::assignments::Assigning;
use super::begin::{Begun, Settings};
use super::event::{Effect, Event, Kind, Moment};
use crate::clock::Expiry;
use crate::coordinator::{Snapshot, Standing};
use crate::fleet::Mode;
use crate::fleet::layout::Layout;
use crate::fleet::lock::{Election, Terms};
use crate::fleet::report::{Ahead, Recorder, Verdict};
use crate::fleet::rows::StateLocation;
use crate::fleet::table_migration::Mover;
use crate::fleet::vacancy::{Unled, Vacancy};
use crate::fleet::version::Readiness;
use crate::lease::outage::Outage;
use crate::unique::uuid;

/// Between looks at the generation of the fleet, and at whether it could go on. KCL's are as far apart.
pub(super) const MONITOR: Duration = Duration::from_secs(60);
/// The first of them a little later, so that a fleet that starts together doesn't ask together.
const MONITOR_SPREAD: Duration = Duration::from_secs(30);
/// A leader that has not seen the leases for this number of failover times releases the lock.
const PATIENCE: u32 = 6;

/// Requests that fail, by their kind.
#[derive(Debug, Default)]
pub(super) struct Outages {
    pub(super) lock_reads: Outage,
    pub(super) lock_writes: Outage,
    pub(super) report_reads: Outage,
    pub(super) report_writes: Outage,
    pub(super) monitor: Outage,
    pub(super) index: Outage,
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
struct Request {
    /// When it is made next; none while it is not needed.
    due: Option<Instant>,
    in_flight: bool,
}

/// The state of a member.
#[derive(Debug)]
pub struct State {
    pub(super) settings: Settings,
    pub(super) moment: Moment,
    pub(super) effects: Vec<Effect>,
    requests: BTreeMap<Kind, Request>,
    pub(super) mode: Mode,
    pub(super) layout: Layout,
    /// Where this worker writes, whatever comes.
    pub(super) writes: StateLocation,
    pub(super) alone: bool,
    /// Something forbids to lead; it is logged once.
    pub(super) barred: bool,
    pub(super) election: Election,
    pub(super) recorder: Recorder,
    /// Whether the CPU utilisation can be measured.
    measures: bool,
    pub(super) readiness: Readiness,
    pub(super) mover: Mover,
    /// The lock is about to be another row, which the first worker that sees it acquires: no lease is assigned.
    pub(super) finishing: bool,
    /// How long the machine had been suspended when the lock was last written, and when the last write began that is
    /// known to have happened.
    pub(super) slept: (Duration, Duration),
    /// Whether there is a leader, as the lock was last read.
    pub(super) led: bool,
    pub(super) vacancy: Vacancy,
    pub(super) outages: Outages,
    /// Reports dated ahead of the clock.
    pub(super) ahead: Ahead,
    /// The verdict of the reports alone, without workers that are known by other means.
    pub(super) read: Arc<Verdict>,
    /// Whether this worker's last report says that it wants no leases.
    pub(super) withdrawn: bool,
    /// Since when this worker leads.
    leads_since: Option<Instant>,
    /// The time of the last report that was written.
    pub(super) reported: Option<i64>,
    pub(super) verdict: Arc<Verdict>,
    pub(super) judged: Option<Instant>,
    pub(super) led_by_ours: bool,
    /// The result of the coordinator's last scan.
    pub(super) snapshot: Snapshot,
    pub(super) assigning: Assigning,
    /// As last published.
    standing: Standing,
    pub(super) random: fastrand::Rng,
}

impl State {
    /// The state of a worker that has found out how its fleet works.
    pub fn new(settings: Settings, begun: Begun, mut random: fastrand::Rng, moment: Moment) -> Self {
        let now = moment.now;
        let monitor = now + MONITOR + MONITOR_SPREAD.mul_f64(random.f64());
        let first = |kind: Kind| match kind {
            Kind::Monitor => Some(monitor),
            Kind::Index => (!begun.indexed).then_some(now),
            Kind::Rescan => None,
            Kind::Lock | Kind::Report | Kind::Judge | Kind::TableMigration | Kind::Sample => Some(now),
        };
        let request = |kind: Kind| (kind, Request { due: first(kind), in_flight: false });
        Self {
            recorder: Recorder::new(false, settings.averages),
            election: Election::new(Terms::new(settings.me.clone(), settings.failover)),
            moment,
            effects: Vec::new(),
            requests: Kind::ALL.into_iter().map(request).collect(),
            mode: begun.mode,
            layout: begun.layout,
            writes: begun.layout.writes(),
            alone: begun.alone,
            barred: false,
            measures: false,
            readiness: Readiness::default(),
            mover: Mover::default(),
            finishing: false,
            slept: (moment.slept, moment.slept),
            led: false,
            vacancy: Vacancy::default(),
            outages: Outages::default(),
            ahead: Ahead::default(),
            read: Arc::default(),
            withdrawn: false,
            leads_since: None,
            reported: None,
            verdict: Arc::default(),
            judged: None,
            led_by_ours: false,
            snapshot: Snapshot::default(),
            assigning: Assigning::default(),
            standing: Standing::default(),
            random,
            settings,
        }
    }

    /// The effects of an event.
    pub fn on(&mut self, moment: Moment, event: Event) -> Vec<Effect> {
        self.moment = moment;
        if let Event::Scanned(snapshot) = event {
            self.snapshot = snapshot;
            self.scanned();
            self.show();
            return std::mem::take(&mut self.effects);
        }
        self.handle(event);
        self.show();
        std::mem::take(&mut self.effects)
    }

    /// When something is due: [`Event::Wake`].
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let led = self.mode.is_led();
        let due = Kind::ALL
            .into_iter()
            .filter(|kind| self.is_needed(*kind, now))
            .filter_map(|kind| self.request(kind).due);
        // Leading ends by itself, and so does trust in a leader.
        let suspect = self.election.suspect_at().filter(|at| led && *at > now);
        due.chain(suspect).chain(self.election.until().filter(|until| *until > now)).min()
    }

    fn request(&self, kind: Kind) -> Request {
        self.requests.get(&kind).copied().unwrap_or(Request { due: None, in_flight: false })
    }

    pub(super) fn due_of(&self, kind: Kind) -> Option<Instant> {
        self.request(kind).due
    }

    pub(super) fn is_in_flight(&self, kind: Kind) -> bool {
        self.request(kind).in_flight
    }

    /// Sets when a kind of request is made next.
    pub(super) fn plan(&mut self, kind: Kind, due: Option<Instant>) {
        self.requests.entry(kind).and_modify(|request| request.due = due);
    }

    /// A request of that kind begins.
    pub(super) fn begun(&mut self, kind: Kind) {
        self.requests.entry(kind).and_modify(|request| request.in_flight = true);
    }

    /// It has ended.
    pub(super) fn ended(&mut self, kind: Kind) {
        self.requests.entry(kind).and_modify(|request| request.in_flight = false);
    }

    pub(super) fn now(&self) -> Instant {
        self.moment.now
    }

    /// The wall clock in seconds since 1970.
    pub(super) fn wall_seconds(&self) -> i64 {
        self.moment.wall / 1_000
    }

    /// Whether requests of that kind are made now, none being in flight.
    fn is_needed(&self, kind: Kind, now: Instant) -> bool {
        let is_needed = match kind {
            Kind::Lock => self.mode.is_led(),
            Kind::Report => self.mode.reports(),
            Kind::Judge => self.mode.is_led() && self.election.leads(now),
            Kind::Monitor => self.monitors(),
            Kind::TableMigration => self.moves(now),
            Kind::Sample => self.measures,
            Kind::Index => true,
            Kind::Rescan => !self.is_assigning(),
        };
        is_needed && !self.is_in_flight(kind)
    }

    fn is_due(&self, kind: Kind, now: Instant) -> bool {
        self.is_needed(kind, now) && self.request(kind).due.is_some_and(|at| now >= at)
    }

    /// Whether anything can still change that others write.
    fn monitors(&self) -> bool {
        self.mode.may_change() || self.layout != Layout::Complete || self.alone
    }

    fn wake(&mut self) {
        let now = self.now();
        self.check_own_work(now);
        for kind in Kind::ALL {
            let turned = kind == Kind::Report
                && self.is_needed(kind, now)
                && self.withdrawn != (self.is_unable(now) || self.settings.capacity.is_short(now));
            if !turned && !self.is_due(kind, now) {
                continue;
            }
            match kind {
                Kind::Lock => {
                    let next = self.election.next(now, || uuid(self.random.u128(..)));
                    self.lock(next);
                }
                Kind::Report => self.report(now),
                Kind::Judge => self.judge(now),
                Kind::Monitor => self.monitor(now),
                Kind::TableMigration => self.survey(now),
                Kind::Index => self.make_index(),
                Kind::Rescan => {
                    self.plan(Kind::Rescan, None);
                    self.scan_now();
                }
                Kind::Sample => {
                    self.plan(Kind::Sample, Some(now + self.settings.sample_every));
                    self.begun(Kind::Sample);
                    self.effects.push(Effect::Sample);
                }
            }
        }
    }

    /// Asked for again until it is there: DynamoDB may have been busy with the table.
    pub(super) fn make_index(&mut self) {
        self.plan(Kind::Index, None);
        self.effects.push(Effect::MakeIndex);
    }

    /// A leader that assigns no leases must not keep other workers from leading.
    fn check_own_work(&mut self, now: Instant) {
        if !self.election.leads(now) {
            self.leads_since = None;
            return;
        }
        let since = *self.leads_since.get_or_insert(now);
        let last = self.assigning.worked_at().map_or(since, |worked| worked.max(since));
        if now.saturating_duration_since(last) > self.settings.failover * PATIENCE {
            error!(
                event = "leader_listing_failed",
                "this worker is the leader but has failed to list the leases for too long: releasing the \
                 leader lock"
            );
            self.step_down();
        }
    }

    fn report(&mut self, now: Instant) {
        self.plan(Kind::Report, Some(now + self.settings.rules.every));
        self.begun(Kind::Report);
        let at = self.wall_seconds();
        self.withdraw(now);
        let mut report = match self.withdrawn {
            true => Recorder::farewell(&self.settings.me, at),
            false => self.recorder.report(&self.settings.me, at),
        };
        report.most = self.settings.capacity.limit();
        self.reported = Some(at);
        self.effects.push(Effect::Report(self.writes, report));
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Begin => {
                // Where there is nothing to move, nothing reads a stage later.
                if self.layout == Layout::Complete {
                    self.report_tables(None);
                }
                self.effects.push(Effect::FindGauge);
            }
            Event::Wake => self.wake(),
            Event::Nudged if self.mode.is_led() => {
                let lock = self.request(Kind::Lock).due.map_or(now, |due| due.min(now));
                self.plan(Kind::Lock, Some(lock));
                self.plan(Kind::Judge, Some(now));
            }
            Event::Nudged | Event::Scanned(_) => {}
            Event::LockRead(place, _) | Event::LockWritten { place, .. } if place != self.layout.lock() => {
                self.lock_done();
            }
            Event::LockRead(_, outcome) => self.lock_read(&outcome, now),
            Event::LockWritten { action, outcome, stage, .. } => {
                self.lock_written(action, &outcome, stage, now)
            }
            Event::Reported(outcome) => {
                self.ended(Kind::Report);
                self.noted(&outcome, now);
                if outcome.is_ok() && !self.verdict.reporting.contains(&self.settings.me) {
                    // The leader is a worker too.
                    self.plan(Kind::Judge, Some(now));
                }
            }
            Event::Judged(outcome) => {
                self.ended(Kind::Judge);
                match outcome {
                    Ok(reports) => self.judged(&reports),
                    Err(error) => self.cannot_judge(&error, now),
                }
            }
            Event::Monitored(Ok(seen)) => {
                if let Some(lasted) = self.outages.monitor.worked(now) {
                    info!(event = "fleet_state_recovered", ?lasted, "reading the fleet state works again");
                }
                self.monitored(&seen);
            }
            Event::Monitored(Err(error)) => {
                self.ended(Kind::Monitor);
                if self.outages.monitor.failed(now, &error, &self.settings.reach) {
                    warn!(event = "fleet_state_failed", %error, "failed to read the fleet state");
                }
            }
            Event::Surveyed(Ok(seen), took) => self.surveyed(seen, took),
            Event::Surveyed(Err(error), took) => self.cannot_survey(&error, took),
            Event::Migrated(step, outcome) => self.moved(step, outcome),
            Event::Checked(Ok((index, reports))) => self.checked(index, &reports, now),
            Event::Checked(Err(error)) => {
                if error.is_unanswered() {
                    debug!(%error, "failed to check whether all workers support KCL 3.x");
                } else {
                    warn!(event = "version_check_failed", %error, "failed to check whether all workers support KCL 3.x");
                }
                self.readiness = Readiness::default();
            }
            Event::Advanced(Ok(())) => {
                info!(
                    event = "fleet_ready_for_v3",
                    "all workers support KCL 3.x: leader-assigned leases start within two minutes"
                )
            }
            Event::Advanced(Err(error)) => {
                warn!(event = "fleet_state_failed", %error, "failed to write the new fleet state")
            }
            Event::Indexed(Ok(there)) => self.plan(Kind::Index, (!there).then(|| now + MONITOR)),
            Event::Indexed(Err(error)) => {
                // Once: the table is scanned instead.
                let logged = self.outages.index.is_logged();
                if self.outages.index.failed(now, &error, &self.settings.reach) && !logged {
                    warn!(event = "owner_index_failed",
                        %error,
                        action = "dynamodb:UpdateTable",
                        "failed to create the index of lease owners, scanning the lease table instead"
                    );
                }
                self.plan(Kind::Index, Some(now + MONITOR));
            }
            Event::GaugeFound(source) => {
                info!(event = "cpu_measured", source, "measuring CPU utilisation");
                self.recorder = Recorder::new(true, self.settings.averages);
                self.measures = true;
                let first = self.settings.sample_every.mul_f64(self.random.f64());
                self.plan(Kind::Sample, Some(now + first));
            }
            Event::Sampled(sample) => {
                self.ended(Kind::Sample);
                if let Some(percent) = sample {
                    self.recorder.sample(percent);
                }
            }
            Event::Assigned(key, outcome) => self.assignment_ended(&key, &outcome),
            Event::Panicked(kind) => self.panicked(kind, now),
            Event::Stop => {
                if let Some(write) = self.election.stand_back(now + Duration::from_secs(3_600)) {
                    self.effects.push(Effect::LastRelease(self.layout.lock(), write));
                }
            }
        }
    }

    /// A bug in one request: the others continue, and it is made again.
    fn panicked(&mut self, kind: Option<Kind>, now: Instant) {
        match kind {
            Some(Kind::Lock) => {
                self.ended(Kind::Lock);
                self.plan(Kind::Lock, Some(now + self.settings.failover / 4));
            }
            Some(Kind::Index) => self.plan(Kind::Index, Some(now + MONITOR)),
            // The gauge is lost with its task.
            Some(Kind::Sample) => self.measures = false,
            Some(kind) => self.ended(kind),
            None => {}
        }
    }

    pub(super) fn scan_now(&mut self) {
        self.effects.push(Effect::ScanNow);
    }

    /// Publishes the place of this worker in its fleet, if it has changed.
    pub(super) fn show(&mut self) {
        let now = self.now();
        let acts = self.mode.is_led() && !self.finishing;
        let until = self.election.until().filter(|_| acts);
        let unled = self.vacancy.unled(now, self.settings.failover).filter(|_| self.mode.is_led());
        let next = Standing {
            mode: Some(self.mode),
            leads_until: until.map(|at| Expiry::new(at, self.slept.1)),
            unled: unled.filter(|_| !self.election.leads(now)),
            led: self.led,
            suspect: self.mode.is_led() && self.election.is_suspect(now),
            led_by_ours: self.led_by_ours,
            verdict: self.verdict.clone(),
        };
        let shown = &self.standing;
        let is_same = shown.mode == next.mode
            && shown.leads_until == next.leads_until
            && shown.suspect == next.suspect
            && (shown.unled, shown.led) == (next.unled, next.led)
            && shown.led_by_ours == next.led_by_ours
            && Arc::ptr_eq(&shown.verdict, &next.verdict);
        if is_same {
            return;
        }
        let before = std::mem::replace(&mut self.standing, next.clone());
        self.effects.push(Effect::Publish(Box::new(next.clone())));
        if before.unled != next.unled {
            match next.unled {
                Some(Unled::Vacant) => warn!(
                    event = "leader_absent",
                    actions = "dynamodb:PutItem, dynamodb:UpdateItem",
                    "no worker has been the leader for three failover times: leases are shared without a \
                     leader, as in KCL 2.x (allow at least one worker to write the leader lock)"
                ),
                Some(Unled::Unknown) => warn!(
                    event = "leader_lock_failed",
                    action = "dynamodb:GetItem",
                    "failed to read the leader lock: acquiring only unowned and expired leases"
                ),
                None => info!(event = "leader_returned", "a leader assigns leases again"),
            }
            self.scan_now();
        }
        if next.suspect && !before.suspect {
            debug!("the leader may be dead, scanning the lease table");
            // Leases that expire from now on are known to the next leader.
            self.scan_now();
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;
