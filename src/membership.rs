//! This worker's part in a fleet of KCL 3: it reports its host metrics, takes part in the leader election,
//! and follows the fleet's migration between KCL versions.
//!
//! [`state`] decides, without I/O; this module waits for events and performs the effects. Requests are tasks that end
//! with events. The place of this worker in its fleet is published as a [`Standing`], by which the coordinator acquires
//! leases.
//!
//! Order of a shutdown: the lock is released first, so that another worker can become the leader; a report
//! states that no lease is wanted; it stays fresh until every lease was released, then it is deleted.
//!
//! In KCL: `DynamicMigrationComponentsInitializer`, `DynamoDBLockBasedLeaderDecider`,
//! `WorkerMetricStatsReporter`, `ClientVersionChangeMonitor`, `MigrationReadyMonitor`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error};

use crate::clock;
use crate::coordinator::{Handle, Snapshot, Standing, SuccessorQuery};
use crate::cpu::{self, Gauge};
use crate::fleet::Store;
use crate::lease::held::Rival;
use crate::lease::{LeaseKey, Table, table};

mod assigning;
mod assignments;
mod begin;
pub mod event;
mod follow;
mod judging;
mod leave;
mod lock;
pub mod state;
mod table_migration;
mod tasks;

pub use begin::{Begun, Error, Settings, begin};
use event::{Effect, Event, Kind, Moment};
use state::State;
use tasks::Tools;

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

/// The end of a task.
enum Done {
    Event(Box<Event>),
    /// The search for a gauge.
    Found(Option<Gauge>),
    /// A measurement.
    Sampled(Box<Gauge>, Option<f64>),
    /// Nothing follows from it.
    Nothing,
}

/// Work in flight.
enum Work {
    Kind(Kind),
    Assignment(LeaseKey),
}

struct Member {
    state: State,
    store: Arc<dyn Store>,
    tools: Tools,
    /// None while it measures.
    gauge: Option<Box<Gauge>>,
    work: JoinSet<Done>,
    /// The work of each task, if a panic in it must be noticed.
    tasks: BTreeMap<Id, Work>,
    ends: Ends,
}

/// Takes part until every lease has been released.
pub async fn run(store: Arc<dyn Store>, table: Arc<dyn Table>, settings: Settings, begun: Begun, ends: Ends) {
    let moment = Moment { now: Instant::now(), wall: (settings.wall)(), slept: clock::slept() };
    let (sink, me) = (settings.sink.clone(), settings.me.clone());
    let mut member = Member {
        state: State::new(settings, begun, fastrand::Rng::new(), moment),
        tools: Tools { store: store.clone(), table, sink, me },
        store,
        gauge: None,
        work: JoinSet::new(),
        tasks: BTreeMap::new(),
        ends,
    };
    member.handle(Event::Begin);
    member.take_part().await;
    member.take_leave().await;
}

impl Member {
    async fn take_part(&mut self) {
        let stop = self.ends.stop.clone();
        loop {
            let due = self.state.due(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.work.join_next_with_id() => self.done(done),
                Some(()) = self.ends.calls.recv() => self.handle(Event::Nudged),
                Ok(()) = self.ends.seen.changed() => self.refresh(),
                () = clock::reached(due) => self.handle(Event::Wake),
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: Instant::now(), wall: (self.state.settings.wall)(), slept: clock::slept() }
    }

    fn done(&mut self, done: Result<(Id, Done), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let work = self.tasks.remove(&id);
        match done.map(|(_, done)| done) {
            Ok(Done::Event(event)) => self.handle(*event),
            Ok(Done::Found(None) | Done::Nothing) => {}
            Ok(Done::Found(Some(gauge))) => {
                let name = gauge.name();
                self.gauge = Some(Box::new(gauge));
                self.handle(Event::GaugeFound(name));
            }
            Ok(Done::Sampled(gauge, sample)) => {
                self.gauge = Some(gauge);
                self.handle(Event::Sampled(sample));
            }
            Err(error) => {
                error!(event = "membership_panicked", %error, "fleet membership task panicked");
                self.handle(match work {
                    // The row shows what has become of it.
                    Some(Work::Assignment(key)) => {
                        Event::Assigned(key.clone(), Err(table::Error::Ambiguous(error.to_string())))
                    }
                    Some(Work::Kind(kind)) => Event::Panicked(Some(kind)),
                    None => Event::Panicked(None),
                });
            }
        }
    }

    /// Each event is handled by what the coordinator knows of the lease table now.
    fn handle(&mut self, event: Event) {
        if self.ends.seen.has_changed().unwrap_or(false) {
            self.refresh();
        }
        self.step(event);
    }

    fn refresh(&mut self) {
        let snapshot = self.ends.seen.borrow_and_update().clone();
        self.step(Event::Scanned(snapshot));
    }

    fn step(&mut self, event: Event) {
        for effect in self.state.on(self.moment(), event) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let (tools, wall) = (self.tools.clone(), self.moment().wall);
        match effect {
            Effect::Publish(standing) => drop(self.ends.standing.send_replace(*standing)),
            Effect::ScanNow => {
                if let Some(coordinator) = &self.ends.coordinator {
                    coordinator.look();
                }
            }
            Effect::NudgeSoon(worker) => {
                if let Some(coordinator) = &self.ends.coordinator {
                    coordinator.nudge(worker);
                }
            }
            Effect::Assign(assignment) => {
                let work = Work::Assignment(assignment.lease.key.clone());
                let request = tools.assign(*assignment);
                self.spawn(Some(work), async move { Done::Event(Box::new(request.await)) });
            }
            Effect::FindGauge => {
                if let Some(surroundings) = self.state.settings.surroundings.clone() {
                    self.spawn(None, async move { Done::Found(cpu::detect(&surroundings).await) });
                }
            }
            Effect::Sample => {
                if let Some(mut gauge) = self.gauge.take() {
                    let now = Instant::now();
                    self.spawn(Some(Work::Kind(Kind::Sample)), async move {
                        let sample = gauge.measure(now).await;
                        Done::Sampled(gauge, sample)
                    });
                }
            }
            Effect::ReadLock(place) => self.request(Some(Kind::Lock), async move {
                Event::LockRead(place, tools.store.lock(place).await)
            }),
            Effect::WriteLock(place, write, ask) => {
                self.request(Some(Kind::Lock), tools.write_lock(place, write, ask));
            }
            Effect::ReleaseLock(place, write) | Effect::LastRelease(place, write) => {
                self.spawn(None, async move {
                    tools.release_lock(place, write).await;
                    Done::Nothing
                });
            }
            Effect::Report(place, report) => self.request(Some(Kind::Report), tools.report(place, report)),
            Effect::ReadReports(layout) => self.request(Some(Kind::Judge), async move {
                Event::Judged(begin::reports(&*tools.store, layout).await)
            }),
            Effect::Sweep(layout, stale) => self.spawn(None, async move {
                tools.sweep(layout, stale).await;
                Done::Nothing
            }),
            Effect::Monitor { layout, changes, alone } => {
                self.request(Some(Kind::Monitor), tools.monitor(layout, changes, alone));
            }
            Effect::Check(layout) => self.request(None, tools.check(layout)),
            Effect::Advance(layout) => self.request(None, tools.advance(layout, wall)),
            Effect::MakeIndex => {
                self.request(Some(Kind::Index), async move { Event::Indexed(tools.table.index(true).await) })
            }
            Effect::Survey => self.request(Some(Kind::TableMigration), tools.survey()),
            Effect::Migrate(step, seen) => {
                self.request(Some(Kind::TableMigration), tools.migrate(step, seen, wall));
            }
            Effect::Emit(event) => self.state.settings.sink.worker(event),
        }
    }

    fn request(&mut self, kind: Option<Kind>, request: impl Future<Output = Event> + Send + 'static) {
        self.spawn(kind.map(Work::Kind), async move { Done::Event(Box::new(request.await)) });
    }

    /// Starts a task in the current span; its end is an event.
    fn spawn(&mut self, work: Option<Work>, task: impl Future<Output = Done> + Send + 'static) {
        let task = self.work.spawn(task.in_current_span());
        self.tasks.extend(work.map(|work| (task.id(), work)));
    }
}
