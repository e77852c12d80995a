//! Leases held by this worker: acquired, renewed, released.
//!
//! One loop owns the state and waits only for events: everything that takes time (a scan, a write) is a task
//! that ends with an event. A task of its own renews each held lease, so that one slow answer costs one lease
//! at most. Acquired leases are sent to the scheduler; its orders arrive through a [`Handle`].
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
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::capacity::Capacity;
use crate::clock;
use crate::fleet::leader;
use crate::lease::handoff;
use crate::lease::held::{Owner, Rival};
use crate::lease::history::History;
use crate::lease::take::Asker;
use crate::lease::update::{Mark, Update};
use crate::lease::watch as rhythm;
use crate::lease::{Held, Lease, ProcessId, Table, WorkerId, table, update};
use crate::metrics::Sink;
use crate::reach::Reach;
use crate::recognition::Recognition;
use crate::shard::ShardId;

mod assigned;
mod handle;
mod index;
mod listing;
mod marks;
mod release;
mod renewal;
mod standing;
mod successors;

use assigned::{Assigned, tell_of_stalled};
pub use handle::Handle;
use handle::Order;
use renewal::Pace;
pub use standing::{Standing, SuccessorQuery};

/// Peers who don't take what they should are not called more often than this.
const CALL_AGAIN: Duration = Duration::from_secs(2);
/// Leases that are released within this time share one nudge of the peers.
const GATHER: Duration = Duration::from_millis(100);
/// Two looks at the table are hardly ever closer than this, unless an order asks for one.
const MIN_PAUSE: Duration = Duration::from_millis(250);
/// A nudged worker scans at once and then after these pauses: released leases come one by one.
const ALERT: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
];
/// When a look leaves more to take, the next is this soon.
const MORE: Duration = Duration::from_millis(500);
/// Where a leader may be at work, a lease counts as expired only after so many failover times: the leader gives a new
/// owner as long to begin.
const UNSURE: u32 = 2;
/// A worker that has renewed none of its leases for this many failover times is considered dead, unless it
/// was just assigned its first lease.
const GONE: u32 = 2;
/// Writes that are under way at once, renewals apart.
const PARALLEL: usize = 12;

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
    /// How a leader gives leases out.
    pub rules: leader::Rules,
    /// Receives the events of scans and assignments.
    pub sink: Arc<dyn Sink>,
    /// Which stream's leases are acquired.
    pub recognition: Arc<Recognition>,
    /// This process.
    pub process: ProcessId,
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
    /// Whether it falls to this worker to look after all leases; none where the owners in the table decide.
    pub leads: Option<bool>,
    /// When the scan ended; none before the first one.
    pub at: Option<Instant>,
    /// Since when this worker can acquire no lease: it can't list them, or can't write them.
    pub unable: Option<Instant>,
}

impl Snapshot {
    /// The owners that renewed none of their leases any more, finished ones included, when the table was scanned.
    pub fn dead_workers(&self, failover: Duration) -> BTreeSet<WorkerId> {
        self.at.map(|at| self.history.dead_workers(failover * GONE, at)).unwrap_or_default()
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

/// The end of a task.
enum Done {
    Looked(Result<Vec<Lease>, table::Error>),
    /// The index says that these are this worker's.
    Found(Result<Vec<ShardId>, table::Error>),
    /// A lease of this worker that the index doesn't list, as it is now.
    Unlisted(Option<Box<Lease>>),
    /// One of them is still another's, who is to let go of it.
    Named(Box<Lease>),
    /// A lease was given to somebody.
    Given(WorkerId, leader::How, Result<(), table::Error>),
    /// There was nothing to take after all.
    Passed,
    Took(Box<Taken>),
    /// With its next owner, where there is one.
    Released(ShardId, Option<WorkerId>),
    Called,
}

/// A lease that was to be taken.
struct Taken {
    lease: Lease,
    /// When the write began.
    proven: Instant,
    outcome: Result<(), table::Error>,
}

/// Where the present look at the table stands.
struct Look {
    next: Instant,
    /// The scan, or the takes that follow from it, are under way; so many.
    under_way: usize,
    /// A write had no answer: the lease may be ours without being renewed.
    unsure: bool,
    /// Number of [`ALERT`] scans still to come.
    alert: usize,
}

/// Acquires, renews and releases leases.
pub struct Coordinator {
    table: Arc<dyn Table>,
    settings: Settings,
    taken: mpsc::Sender<Arc<Held>>,
    // Unbounded in type only: a few orders a lease. A bound could make coordinator and scheduler wait
    // for each other.
    orders: mpsc::UnboundedReceiver<Order>,
    shown: watch::Sender<Snapshot>,
    held: BTreeMap<ShardId, Arc<Held>>,
    renewals: JoinSet<()>,
    renewed: BTreeMap<Id, Arc<Held>>,
    pace: Arc<Pace>,
    /// Notified by the write that saw a nudge of a peer.
    nudged: Arc<Notify>,
    work: JoinSet<Done>,
    writes: Arc<Semaphore>,
    returns: Arc<Semaphore>,
    /// Leases being released: they are not acquired again before that has ended.
    releasing: BTreeSet<ShardId>,
    /// By the task that does it.
    releases: BTreeMap<Id, ShardId>,
    look: Look,
    history: Arc<History>,
    leases: Arc<Vec<Lease>>,
    /// When the peers are to be called, if they are.
    call: Option<Instant>,
    last_call: Option<Instant>,
    /// Leases of others are stolen no more often than this, however often the table is looked at.
    next_steal: Instant,
    random: fastrand::Rng,
    standing: watch::Receiver<Standing>,
    calls: mpsc::Sender<()>,
    assigned: Assigned,
    rivals: marks::Rivals,
    /// When the shard sync last learned that rows are of another stream.
    odd_marks: Option<Instant>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("settings", &self.settings)
            .field("held", &self.held)
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
        let stands = standing.subscribe();
        let (ask, successors) = mpsc::channel(PARALLEL);
        let now = Instant::now();
        let coordinator = Self {
            table,
            settings,
            rivals: marks::Rivals::new(),
            odd_marks: None,
            taken,
            orders,
            shown,
            held: BTreeMap::new(),
            renewals: JoinSet::new(),
            renewed: BTreeMap::new(),
            pace: Pace::new(),
            nudged: Arc::new(Notify::new()),
            work: JoinSet::new(),
            writes: Arc::new(Semaphore::new(PARALLEL)),
            returns: Arc::new(Semaphore::new(release::AT_ONCE)),
            releasing: BTreeSet::new(),
            releases: BTreeMap::new(),
            look: Look { next: now, under_way: 0, unsure: false, alert: 0 },
            history: Arc::default(),
            leases: Arc::default(),
            call: None,
            last_call: None,
            next_steal: now,
            random: fastrand::Rng::new(),
            standing: stands,
            calls: call,
            assigned: Assigned::new(ask),
        };
        let seen = coordinator.shown.subscribe();
        let rival = coordinator.rivals.older();
        let ends = Ends { handle: Handle(handle), leases, seen, standing, calls, successors, rival };
        (coordinator, ends)
    }

    /// Runs until every handle is gone. After `stop` no lease is taken any more.
    pub async fn run(mut self, stop: CancellationToken) {
        self.assigned.stop = stop.clone();
        let nudged = self.nudged.clone();
        loop {
            let idle = self.look.under_way == 0 && !stop.is_cancelled();
            tokio::select! {
                biased;
                // Leases that were lost must leave the books before any is taken.
                Some(ended) = self.renewals.join_next_with_id() => self.renewal_ended(&ended),
                order = self.orders.recv() => match order {
                    Some(Order::Release(held)) => self.release(held),
                    Some(Order::Look) => self.look.next = Instant::now(),
                    Some(Order::Forget(shard)) => self.forget_finished(&shard),
                    None => break,
                },
                Some(done) = self.work.join_next_with_id() => self.done(done, &stop).await,
                Some(rival) = self.rivals.next() => self.rivals.met(&rival, &self.settings),
                () = clock::reached(self.call) => self.call_peers(),
                () = nudged.notified() => self.called(),
                // Last: nothing is taken while anything else is due.
                () = sleep_until(self.look.next), if idle => self.begin_look(),
            }
        }
        self.release_all().await;
    }

    /// The renewal task of a lease has ended: the lease is lost, whatever the reason.
    fn renewal_ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                warn!(%error, "lease renewal task panicked");
                error.id()
            }
        };
        if let Some(held) = self.renewed.remove(&id) {
            held.mark_lost();
            self.rescue(&held);
            if self.forget(&held) {
                // Another worker exists, which may not have existed at the last scan.
                self.look.next = self.look.next.min(Instant::now() + MIN_PAUSE);
            }
        }
    }

    /// Takes a holding out of the books, but not a later one of the same shard.
    fn forget(&mut self, held: &Arc<Held>) -> bool {
        let known = self.held.get(held.shard()).is_some_and(|known| Arc::ptr_eq(known, held));
        known && self.let_go(held.shard()).is_some()
    }

    fn forget_finished(&mut self, shard: &ShardId) {
        if let Some(held) = self.let_go(shard) {
            held.mark_lost();
        }
    }

    async fn done(&mut self, done: Result<(Id, Done), JoinError>, stop: &CancellationToken) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let released = self.releases.remove(&id);
        match done.map(|(_, done)| done) {
            Ok(Done::Looked(Ok(leases))) if self.standing.borrow().is_led() => self.looked_led(leases, stop),
            Ok(Done::Looked(Ok(leases))) => self.looked(leases, stop),
            Ok(Done::Found(Ok(shards))) => self.found(shards, stop),
            Ok(Done::Given(to, how, outcome)) => self.given(&to, how, &outcome),
            Ok(Done::Looked(Err(error))) => self.cannot_list(&error),
            Ok(Done::Found(Err(error))) => self.cannot_query(&error),
            Ok(Done::Unlisted(lease)) => self.unlisted(lease.as_deref()),
            Ok(Done::Took(taken)) => self.took(*taken).await,
            Ok(Done::Passed) => self.look.under_way = self.look.under_way.saturating_sub(1),
            Ok(Done::Named(lease)) => self.named(*lease, stop),
            Ok(Done::Released(shard, to)) => {
                self.gave_back(to);
                self.releasing.remove(&shard);
                self.look.next = self.look.next.min(Instant::now() + MIN_PAUSE);
                self.call.get_or_insert(Instant::now() + GATHER);
            }
            Ok(Done::Called) => {}
            Err(error) => {
                // A bug in a step. The next scan sees what the step was about.
                warn!(%error, "coordinator task panicked");
                self.look.under_way = 0;
                if let Some(shard) = released {
                    self.releasing.remove(&shard);
                }
            }
        }
        self.log_acquisitions();
    }

    fn called(&mut self) {
        debug!("received a nudge from another worker, checking the lease table");
        // Full means that a call is there already.
        let _called = self.calls.try_send(()).is_ok();
        self.look.next = Instant::now();
        self.look.alert = ALERT.len();
        self.assigned.seek();
    }

    fn begin_look(&mut self) {
        self.look.under_way = 1;
        // Should the scan's task break down, the next is due all the same.
        self.look.next = Instant::now() + self.settings.failover;
        let (table, me) = (self.table.clone(), self.settings.me.clone());
        if self.may_ask_the_index(Instant::now()) {
            self.spawn(async move { Done::Found(table.owned(&me).await) });
        } else {
            self.scan();
        }
    }

    fn asker<'a>(
        &'a self,
        held: &'a BTreeSet<ShardId>,
        stalled: &'a BTreeSet<ShardId>,
        may_steal: bool,
    ) -> Asker<'a> {
        Asker {
            me: &self.settings.me,
            held,
            failover: self.settings.failover * if self.is_unsure() { UNSURE } else { 1 },
            max_leases: self.settings.max_leases.min(self.most(Instant::now())),
            max_steals: if may_steal { self.settings.max_steals } else { 0 },
            priority: self.settings.priority,
            stalled,
        }
    }

    /// Decides what to take of what was seen, and when to look again.
    fn looked(&mut self, leases: Vec<Lease>, stop: &CancellationToken) {
        // After the answer: a row that was read early may have been renewed while later pages came.
        let now = Instant::now();
        Arc::make_mut(&mut self.history).note_scan(&leases, now);
        self.leases = Arc::new(leases);
        self.look_at_marks();
        let leases = self.leases.clone();
        let stalled = self.stalled(&leases, now);
        let held: BTreeSet<ShardId> = self.held.keys().cloned().collect();
        let may_steal = now >= self.next_steal && !self.is_unsure();
        let mut random = self.random.fork();
        let asker = self.asker(&held, &stalled, may_steal);
        let view = asker.view(&leases, &self.history, now);
        let plan = view.plan(&mut random);
        let pause = rhythm::pause(&view).mul_f64(0.93 + 0.04 * random.f64());
        let expiry = view.next_expiry();
        let left = view.left(&plan) > 0;
        let live = view.live();
        let more = plan.more;
        let mut wanted: Vec<Lease> = plan.take.into_iter().chain(plan.steal).cloned().collect();
        // Giving back may read the row again and would take a new holding for the old one.
        wanted.retain(|lease| !self.releasing.contains(&lease.shard) && self.accepts(lease));

        if may_steal {
            self.next_steal = now + self.settings.failover / 2;
        }
        let pause = match self.look.alert {
            _ if more => MORE,
            0 => pause,
            alert => ALERT[ALERT.len() - alert].min(pause),
        };
        self.look.alert = self.look.alert.saturating_sub(1);
        let next = expiry.into_iter().chain(self.rivals.watches_until()).fold(now + pause, Instant::min);
        self.look.next = next.max(now + MIN_PAUSE);
        // Leases that others should have: they may not know.
        if left && !more && self.last_call.is_none_or(|last| now > last + CALL_AGAIN) {
            self.call.get_or_insert(now + GATHER);
        }
        self.can_list(now);
        self.note_live(&live);
        let (renewing, unable) = (live.clone(), self.unable());
        self.shown.send_replace(Snapshot {
            leases,
            history: self.history.clone(),
            live,
            renewing,
            leads: None,
            at: Some(now),
            unable,
        });
        self.look.under_way = 0;
        if stop.is_cancelled() {
            return;
        }
        self.look.under_way = wanted.len();
        for lease in wanted {
            if stalled.contains(&lease.shard) {
                tell_of_stalled(&lease);
            }
            let (table, writes) = (self.table.clone(), self.writes.clone());
            let update = self.acquire(update::take(&lease, &self.settings.me), &lease);
            self.spawn(async move { Done::Took(Box::new(take(table, writes, lease, update).await)) });
        }
    }

    /// Hand-offs that nobody completes, other than those of this worker.
    fn stalled(&self, leases: &[Lease], now: Instant) -> BTreeSet<ShardId> {
        let mut stalled = handoff::stalled(leases, &self.history, self.settings.rules.limits(), now);
        stalled.retain(|shard| !self.held.contains_key(shard) && !self.releasing.contains(shard));
        stalled
    }

    async fn took(&mut self, taken: Taken) {
        self.look.under_way = self.look.under_way.saturating_sub(1);
        self.tried(&taken.lease.shard, &taken.outcome);
        match taken.outcome {
            Ok(()) => self.hold(taken.lease, taken.proven).await,
            Err(error) => {
                debug!(shard = %taken.lease.shard, %error, "failed to acquire a lease");
                self.look.unsure |= matches!(error, table::Error::Ambiguous(_));
            }
        }
        // A lease acquired by an ambiguous write is owned but not renewed: the next scan acquires it.
        if self.look.under_way == 0 && std::mem::take(&mut self.look.unsure) {
            self.look.next = Instant::now() + MIN_PAUSE;
        }
    }

    fn owner(&self) -> Owner {
        let Settings { me, failover, process, recognition, .. } = self.settings.clone();
        Owner {
            me,
            failover,
            table: self.table.clone(),
            nudged: self.nudged.clone(),
            process,
            rivals: self.rivals.tell(),
            recognition,
        }
    }

    /// Enters one lease as soon as it is ours, whatever becomes of the others.
    async fn hold(&mut self, lease: Lease, proven: Instant) {
        let held = Held::new(lease, proven, &self.owner());
        let pause = renewal::pause(self.settings.failover);
        let first = proven + pause.mul_f64(0.2 + 0.8 * self.random.f64());
        let task = self.renewals.spawn(renewal::traced(
            held.clone(),
            pause,
            first,
            self.pace.clone(),
            self.settings.reach.clone(),
        ));
        self.renewed.insert(task.id(), held.clone());
        self.assigned.held_since.insert(held.shard().clone(), Instant::now());
        self.held.insert(held.shard().clone(), held.clone());
        if self.taken.send(held).await.is_err() {
            debug!("the scheduler has ended, dropped an acquired lease");
        }
    }

    /// Calls every live peer: there is something to take.
    fn call_peers(&mut self) {
        (self.call, self.last_call) = (None, Some(Instant::now()));
        if self.standing.borrow().is_led() {
            self.call_led();
            return;
        }
        let held: BTreeSet<ShardId> = self.held.keys().cloned().collect();
        let mut random = self.random.fork();
        let asker = self.asker(&held, &handoff::NONE, false);
        let rows = rhythm::nudged(&asker.view(&self.leases, &self.history, Instant::now()), &mut random);
        let nudges: Vec<_> = rows.into_iter().map(|row| (row.shard.clone(), update::nudge(row))).collect();
        if nudges.is_empty() {
            return;
        }
        debug!(leases = nudges.len(), "nudging other workers");
        let (table, writes) = (self.table.clone(), self.writes.clone());
        self.spawn(async move {
            call(&table, &writes, nudges).await;
            Done::Called
        });
    }
}

async fn take(table: Arc<dyn Table>, writes: Arc<Semaphore>, mut lease: Lease, update: Update) -> Taken {
    let _permit = writes.acquire().await;
    let proven = Instant::now();
    let outcome = table.update(&lease.shard, &update).await.map(|before| {
        lease = before.clone();
        update.apply(&mut lease);
        listing::log_acquired(&before, &lease);
    });
    Taken { lease, proven, outcome }
}

async fn call(table: &Arc<dyn Table>, writes: &Arc<Semaphore>, nudges: Vec<(ShardId, update::Update)>) {
    let mut calls = JoinSet::new();
    for (shard, update) in nudges {
        let (table, writes) = (table.clone(), writes.clone());
        calls.spawn(async move {
            let _permit = writes.acquire().await;
            if let Err(error) = table.update(&shard, &update).await {
                debug!(%shard, %error, "failed to nudge a worker");
            }
        });
    }
    while calls.join_next().await.is_some() {}
}

#[cfg(test)]
pub(crate) mod tests;
