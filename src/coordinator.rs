//! Leases held by this worker: acquired, renewed, released.
//!
//! [`state`] decides, without I/O; this module waits for events and performs the effects. Everything that takes time
//! (a scan, a write) is a task that ends with an event. A task of its own renews each held lease, so that one slow
//! answer costs one lease at most. Acquired leases are sent to the scheduler; its orders arrive through a [`Handle`].
//!
//! Renewing stops last: the coordinator ends when every [`Handle`] is dropped, and then releases the
//! remaining leases.
//!
//! In KCL: `DynamoDBLeaseCoordinator`, `DynamoDBLeaseRenewer`, `DynamoDBLeaseTaker`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, warn};

use crate::capacity::Capacity;
use crate::clock::{self, ServiceClock};
use crate::lease::held::{Owner, Rival};
use crate::lease::history::History;
use crate::lease::orders::{Pause, in_force};
use crate::lease::{Held, Lease, LeaseKey, ProcessId, Table, WorkerId, audit, handoff, liveness, of_stream};
use crate::metrics::Sink;
use crate::reach::Reach;
use crate::recognition::Recognitions;
use crate::stream::StreamIdentifier;

mod assigned;
pub mod event;
mod handle;
mod index;
mod listing;
mod marks;
pub mod overview;
mod release;
mod renewal;
mod shared;
mod standing;
pub mod state;
mod successors;
mod tasks;

use event::{Effect, Event, Intent, Work};
pub use handle::Handle;
use handle::Order;
use renewal::Pace;
pub use standing::{Standing, SuccessorQuery};
use state::State;
use successors::Successors;
use tasks::{Done, Tools};

/// Writes that are in flight at once, renewals apart.
const PARALLEL: usize = 12;
/// Reports about other processes with this worker's id that wait: more say nothing new.
const WAITING: usize = 16;

/// How leases are held.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `workerId`.
    pub me: WorkerId,
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
    /// `maxLeasesToStealAtOneTime`.
    pub max_steals: usize,
    /// `enablePriorityLeaseAssignment`.
    pub priority: bool,
    /// How long a graceful handoff may take.
    pub handoff: handoff::Limits,
    /// Receives the events of scans and assignments.
    pub sink: Arc<dyn Sink>,
    /// Which stream's leases are acquired.
    pub recognitions: Recognitions,
    /// This process.
    pub process: ProcessId,
    /// The time at AWS, which dates the start of reading at `LATEST`.
    pub clock: ServiceClock,
    /// `multilangd.resumeLatest`: whether this worker stores where it begins to read at `LATEST`. A date that is stored
    /// already is honoured in any case: it may be the one of an order.
    pub resume_latest: bool,
    /// How many leases it has room for.
    pub capacity: Arc<Capacity>,
    /// Whether DynamoDB can be reached.
    pub reach: Arc<Reach>,
    /// How long a stop may take.
    pub stop: clock::Stop,
}

/// The lease table as of the last scan.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Every lease.
    pub leases: Arc<Vec<Lease>>,
    /// Since when each of their facts has been so.
    pub history: Arc<History>,
    /// The workers that move their leases, this one always among them.
    pub live: BTreeSet<WorkerId>,
    /// Of them, those that are seen to renew leases, whatever the reports say.
    pub renewing: BTreeSet<WorkerId>,
    /// The leases that this worker holds.
    pub held: Arc<BTreeSet<LeaseKey>>,
    /// Leases that the leader must not assign now.
    pub excluded: Arc<BTreeSet<LeaseKey>>,
    /// Whether it falls to this worker to look after all leases; none where the owners in the table decide.
    pub leads: Option<bool>,
    /// When the scan ended; none before the first one.
    pub at: Option<Instant>,
    /// Since when this worker can acquire no lease: it can't list them, or can't write them.
    pub unable: Option<Instant>,
    /// In the part of one of several streams: the order of an operator that is in force for all of them.
    pub order: Option<Pause>,
}

impl Snapshot {
    /// The part of one of several streams, as of a table of its own ([`of_stream`]).
    #[must_use]
    pub fn of_stream(&self, stream: &StreamIdentifier) -> Self {
        Self {
            leases: Arc::new(of_stream::leases(&self.leases, stream)),
            history: Arc::new(self.history.of_stream(stream)),
            held: Arc::new(of_stream::keys(&self.held, stream)),
            excluded: Arc::new(of_stream::keys(&self.excluded, stream)),
            order: in_force(&self.leases).cloned(),
            ..self.clone()
        }
    }

    /// The order of an operator for the whole application that is in force.
    pub fn in_force(&self) -> Option<&Pause> {
        self.order.as_ref().or_else(|| in_force(&self.leases))
    }

    /// Whether this worker looks after all leases: as the leader or, where there is none, by the owners in the table.
    pub fn audits(&self, me: &WorkerId, failover: Duration) -> bool {
        self.leads.unwrap_or_else(|| audit::leads(me, &self.leases, &self.dead_workers(failover)))
    }

    /// The owners that renewed none of their leases any more, finished ones included, when the table was scanned.
    pub fn dead_workers(&self, failover: Duration) -> BTreeSet<WorkerId> {
        self.at.map(|at| liveness::dead_workers(&self.history, failover, at)).unwrap_or_default()
    }
}

/// The channels of a coordinator.
#[derive(Debug)]
pub struct Ends {
    /// Orders to it.
    pub handle: Handle,
    /// The leases that it takes.
    pub leases: mpsc::Receiver<Arc<Held>>,
    /// The result of its scans.
    pub seen: watch::Receiver<Snapshot>,
    /// The place of this worker in its fleet, which `membership` publishes here.
    pub standing: watch::Sender<Standing>,
    /// Peers that call.
    pub calls: mpsc::Receiver<()>,
    /// Queries for the successors of this worker's leases during its shutdown.
    pub successors: mpsc::Receiver<SuccessorQuery>,
    /// An older process with this worker's id, once it was met: this one must end.
    pub rival: watch::Receiver<Option<Rival>>,
}

/// Acquires, renews and releases leases.
pub struct Coordinator {
    settings: Settings,
    state: State<Arc<Held>>,
    tools: Tools,
    taken: mpsc::Sender<Arc<Held>>,
    // Unbounded in type only: a few orders a lease. A bound could make coordinator and scheduler wait
    // for each other.
    orders: mpsc::UnboundedReceiver<Order>,
    shown: watch::Sender<Snapshot>,
    renewals: JoinSet<()>,
    renewed: BTreeMap<Id, Arc<Held>>,
    pace: Arc<Pace>,
    /// Notified by the write that saw a nudge of a peer.
    nudged: Arc<Notify>,
    work: JoinSet<Done>,
    /// The work of each task.
    tasks: BTreeMap<Id, Work>,
    returns: Arc<Semaphore>,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    calls: mpsc::Sender<()>,
    ask: mpsc::Sender<SuccessorQuery>,
    successors: Option<Arc<Successors>>,
    /// Other processes that write under this worker's id.
    rivals: mpsc::Receiver<Rival>,
    /// One of them that started before this process.
    older: watch::Sender<Option<Rival>>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("settings", &self.settings)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A coordinator and what connects it.
    pub fn new(table: Arc<dyn Table>, settings: Settings) -> (Self, Ends) {
        let (taken, leases) = mpsc::channel(16);
        let (handle, orders) = mpsc::unbounded_channel();
        let shown = watch::Sender::new(Snapshot::default());
        let standing = watch::Sender::new(Standing::default());
        let (call, calls) = mpsc::channel(1);
        let (ask, successors) = mpsc::channel(PARALLEL);
        let (tell, rivals) = mpsc::channel(WAITING);
        let older = watch::Sender::new(None);
        let nudged = Arc::new(Notify::new());
        let owner = Owner {
            me: settings.me.clone(),
            failover: settings.failover,
            table: table.clone(),
            nudged: nudged.clone(),
            process: settings.process.clone(),
            rivals: tell,
            recognitions: settings.recognitions.clone(),
        };
        let writes = Arc::new(Semaphore::new(PARALLEL));
        let coordinator = Self {
            state: State::new(settings.clone(), fastrand::Rng::new(), Instant::now()),
            tools: Tools { table, writes, settings: settings.clone(), owner },
            settings,
            taken,
            orders,
            shown,
            renewals: JoinSet::new(),
            renewed: BTreeMap::new(),
            pace: Pace::new(),
            nudged,
            work: JoinSet::new(),
            tasks: BTreeMap::new(),
            returns: Arc::new(Semaphore::new(release::AT_ONCE)),
            standing: standing.subscribe(),
            stop: CancellationToken::new(),
            calls: call,
            ask,
            successors: None,
            rivals,
            older,
        };
        let (seen, rival) = (coordinator.shown.subscribe(), coordinator.older.subscribe());
        let ends = Ends { handle: Handle::new(handle), leases, seen, standing, calls, successors, rival };
        (coordinator, ends)
    }

    /// Runs until every handle is gone. After `stop` no lease is acquired any more.
    pub async fn run(mut self, stop: CancellationToken) {
        self.stop = stop;
        let nudged = self.nudged.clone();
        loop {
            self.refresh();
            tokio::select! {
                biased;
                // Leases that were lost are removed before any is acquired.
                Some(ended) = self.renewals.join_next_with_id() => self.renewal_ended(&ended).await,
                order = self.orders.recv() => match order {
                    Some(Order::Release(held)) => self.handle(Event::ReleaseOrdered(held)).await,
                    Some(Order::Look) => self.handle(Event::ScanOrdered).await,
                    Some(Order::Nudge(worker)) => self.handle(Event::NudgeOrdered(worker)).await,
                    Some(Order::Forget(key)) => self.handle(Event::ForgetOrdered(key)).await,
                    None => break,
                },
                Some(done) = self.work.join_next_with_id() => self.work_ended(done).await,
                Some(rival) = self.rivals.recv() => self.handle(Event::RivalMet(rival)).await,
                () = clock::reached(self.state.nudge_due()) => self.handle(Event::NudgeDue).await,
                () = nudged.notified() => self.handle(Event::Nudged).await,
                // Last: nothing is acquired while anything else is due.
                () = clock::reached(self.state.scan_due()) => self.handle(Event::ScanDue).await,
            }
        }
        self.release_all().await;
    }

    async fn renewal_ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                warn!(event = "lease_renewal_panicked", %error, "lease renewal task panicked");
                error.id()
            }
        };
        if let Some(held) = self.renewed.remove(&id) {
            self.handle(Event::RenewalEnded(held)).await;
        }
    }

    async fn work_ended(&mut self, done: Result<(Id, Done), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let work = self.tasks.remove(&id);
        match done {
            Ok((_, Some(event))) => self.handle(event).await,
            Ok((_, None)) => {}
            Err(error) => {
                warn!(event = "coordinator_panicked", %error, "coordinator task panicked");
                self.handle(Event::Panicked(work.unwrap_or(Work::Other))).await;
            }
        }
    }

    /// Each event is handled by the present standing of this worker, and no lease is acquired once a shutdown has begun.
    fn refresh(&mut self) {
        let now = Instant::now();
        let standing = self.standing.borrow_and_update();
        if standing.has_changed() {
            self.state.on(now, Event::Standing(standing.clone()));
        }
        drop(standing);
        if self.stop.is_cancelled() {
            self.state.on(now, Event::Stop);
        }
    }

    async fn handle(&mut self, event: Event<Arc<Held>>) {
        self.refresh();
        for effect in self.state.on(Instant::now(), event) {
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect<Arc<Held>>) {
        let tools = self.tools.clone();
        match effect {
            Effect::Scan => {
                self.spawn(Work::Look, async move { Some(Event::Scanned(tools.table.list().await)) });
            }
            Effect::ListOwned => self.spawn(Work::Look, async move {
                Some(Event::OwnedListed(tools.table.owned(&tools.settings.me).await))
            }),
            Effect::CheckIndex(key) => self.spawn(Work::Other, async move {
                Some(Event::IndexChecked(tools.table.get(&key).await.ok().flatten()))
            }),
            Effect::Read(key) => {
                self.spawn(Work::Lease(key.clone(), Intent::Read), async move {
                    let outcome = tools.table.get(&key).await;
                    Some(Event::RowRead(key, outcome))
                });
            }
            Effect::Acquire(key, update) => {
                let work = Work::Lease(key.clone(), Intent::Acquire);
                self.spawn(work, tools.acquire(key, update));
            }
            Effect::Hold(held, first) => self.hold(held, first).await,
            Effect::MarkLost(held) => held.mark_lost(),
            Effect::Release(held, to) => {
                let work = Work::Lease(held.key().clone(), Intent::Release);
                let task = self.release(held, to);
                self.spawn(work, task);
            }
            // Performed at the end, one after the other.
            Effect::PassOn(..) => {}
            Effect::Restore(held, backoff) => self.spawn(Work::Other, tools.restore(held, backoff)),
            Effect::Nudge(nudges) => self.spawn(Work::Other, tools.nudge(nudges)),
            Effect::NudgeOwners(workers) => self.spawn(Work::Other, tools.nudge_owners(workers)),
            // Full means that one is waiting already.
            Effect::PassOnNudge => drop(self.calls.try_send(())),
            Effect::Publish(snapshot) => drop(self.shown.send_replace(snapshot)),
            Effect::PublishUnable(unable) => {
                self.shown.send_if_modified(|shown| std::mem::replace(&mut shown.unable, unable) != unable);
            }
            Effect::NotePeers(peers) => self.settings.capacity.note(peers),
            Effect::SuspectStream(stream) => {
                if let Some(recognition) = self.settings.recognitions.get(stream.as_ref()) {
                    recognition.suspect();
                }
            }
            Effect::GiveWay(rival) => drop(self.older.send_replace(Some(rival))),
            Effect::Emit(event) => self.settings.sink.worker(event),
            Effect::Log(line) => line.log(),
        }
    }

    /// Starts a task in the current span; its end is an event.
    fn spawn(&mut self, work: Work, task: impl Future<Output = Done> + Send + 'static) {
        let task = self.work.spawn(task.in_current_span());
        self.tasks.insert(task.id(), work);
    }

    /// Renews a lease from now on, whatever becomes of others.
    async fn hold(&mut self, held: Arc<Held>, first: Instant) {
        let pause = renewal::pause(self.settings.failover);
        let (pace, reach) = (self.pace.clone(), self.settings.reach.clone());
        let task = self.renewals.spawn(renewal::traced(held.clone(), pause, first, pace, reach));
        self.renewed.insert(task.id(), held.clone());
        if self.taken.send(held).await.is_err() {
            debug!("the scheduler has ended, dropped an acquired lease");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
