//! Leases held by this worker: taken, kept alive, given back.
//!
//! One task looks at the table now and then and takes what is free; each held lease has a task of
//! its own that renews it, so that one slow answer costs one lease at most. What is taken goes to
//! the scheduler; orders come back through a [`Handle`].
//!
//! Renewing stops last: the coordinator ends when every [`Handle`] is gone, and gives back what is
//! still held then.
//!
//! In KCL: `DynamoDBLeaseCoordinator`, `DynamoDBLeaseRenewer`, `DynamoDBLeaseTaker`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::lease::take::{self, Asker, Observations};
use crate::lease::{Held, Lease, Table, WorkerId, held, table, update};
use crate::shard::ShardId;

/// KCL's `epsilonMillis`, by which its timers differ from round numbers.
const EPSILON: Duration = Duration::from_millis(25);
/// Giving everything back at the end of a stop takes no longer than this.
const RELEASE: Duration = Duration::from_secs(3);
/// Two looks at the table are never closer than this, unless an order asks for one.
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// How leases are held.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// `clientVersionConfig` is one of those that get along with KCL 2: then nobody leads.
    pub compatible_with_2x: bool,
}

impl Settings {
    /// A third of the failover time less ε, so that a renewal may fail twice.
    fn renewal(&self) -> Duration {
        (self.failover / 3).saturating_sub(EPSILON).max(Duration::from_millis(1))
    }

    /// Twice the failover time plus ε.
    fn look(&self) -> Duration {
        (self.failover + EPSILON) * 2
    }
}

enum Order {
    Look,
    Release(Arc<Held>),
}

/// Orders to the coordinator.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::UnboundedSender<Order>);

impl Handle {
    /// There may be leases to take: rows were made, or given back.
    pub fn look(&self) {
        self.order(Order::Look);
    }

    /// The lease isn't needed any more: others may have it at once.
    pub fn release(&self, held: Arc<Held>) {
        self.order(Order::Release(held));
    }

    fn order(&self, order: Order) {
        if self.0.send(order).is_err() {
            warn!("the coordinator is gone, an order is lost");
        }
    }
}

/// Takes, keeps and gives back leases.
pub struct Coordinator {
    table: Arc<dyn Table>,
    settings: Settings,
    taken: mpsc::Sender<Arc<Held>>,
    // Unbounded in type only: a few orders a lease. A bound could make coordinator and scheduler wait
    // for each other.
    orders: mpsc::UnboundedReceiver<Order>,
    held: BTreeMap<ShardId, Arc<Held>>,
    renewals: JoinSet<()>,
    renewed: BTreeMap<Id, Arc<Held>>,
    releases: JoinSet<()>,
    seen: Observations,
    /// Leases of others are stolen no more often than KCL's taker runs, however often the table is
    /// looked at.
    next_steal: Instant,
    random: fastrand::Rng,
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
    /// A coordinator, the handle to it, and the leases that it will take.
    pub fn new(table: Arc<dyn Table>, settings: Settings) -> (Self, Handle, mpsc::Receiver<Arc<Held>>) {
        let (taken, leases) = mpsc::channel(16);
        let (handle, orders) = mpsc::unbounded_channel();
        let coordinator = Self {
            table,
            settings,
            taken,
            orders,
            held: BTreeMap::new(),
            renewals: JoinSet::new(),
            renewed: BTreeMap::new(),
            releases: JoinSet::new(),
            seen: Observations::default(),
            next_steal: Instant::now(),
            random: fastrand::Rng::new(),
        };
        (coordinator, Handle(handle), leases)
    }

    /// Runs until every handle is gone. After `stop` no lease is taken any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                // Leases that were lost must leave the books before any is taken.
                Some(ended) = self.renewals.join_next_with_id() => self.renewal_ended(&ended),
                order = self.orders.recv() => match order {
                    Some(Order::Release(held)) => self.release(held),
                    Some(Order::Look) => next = Instant::now(),
                    None => break,
                },
                Some(_) = self.releases.join_next() => {}
                () = sleep_until(next), if !stop.is_cancelled() => next = self.look(&stop).await,
            }
        }
        self.release_all().await;
    }

    /// Nobody renews this holding any more: it is over, whatever the reason.
    fn renewal_ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                warn!(%error, "a renewal broke down");
                error.id()
            }
        };
        if let Some(held) = self.renewed.remove(&id) {
            held.mark_lost();
            self.forget(&held);
        }
    }

    /// Takes a holding out of the books, but not a later one of the same shard.
    fn forget(&mut self, held: &Arc<Held>) {
        if self.held.get(held.shard()).is_some_and(|known| Arc::ptr_eq(known, held)) {
            self.held.remove(held.shard());
        }
    }

    /// Looks at the table, takes what can be taken, and says when to look again.
    async fn look(&mut self, stop: &CancellationToken) -> Instant {
        let scanned = Instant::now();
        let pause = self.settings.look().mul_f64(0.9 + self.random.f64() / 10.0);
        let leases = match self.table.list().await {
            Ok(leases) => leases,
            Err(error) => {
                warn!(%error, "can't list the leases");
                return scanned + MIN_PAUSE.max(self.settings.renewal());
            }
        };
        // After the answer: a row that was read early may have been renewed while later pages came.
        self.seen.note(&leases, Instant::now());
        let held: BTreeSet<ShardId> = self.held.keys().cloned().collect();
        let now = Instant::now();
        let unled = self.settings.compatible_with_2x || !take::may_be_led(&leases);
        let may_steal = unled && now >= self.next_steal;
        let asker = Asker {
            me: &self.settings.me,
            held: &held,
            failover: self.settings.failover,
            max_leases: self.settings.max_leases,
            max_steals: if may_steal { self.settings.max_steals } else { 0 },
            priority: self.settings.priority,
        };
        let plan = asker.plan(&leases, &self.seen, now, &mut self.random);
        if may_steal {
            self.next_steal = scanned + pause;
        }
        let wanted: Vec<Lease> = plan.take.into_iter().chain(plan.steal).cloned().collect();
        let expiry = asker.next_expiry(&leases, &self.seen, now);
        let mut unsure = false;
        for lease in wanted {
            if stop.is_cancelled() {
                break;
            }
            let shard = lease.shard.clone();
            if let Err(error) = self.take(lease).await {
                debug!(%shard, %error, "did not take a lease");
                unsure |= !matches!(error, table::Error::Conflict(_));
            }
        }
        // What was written without an answer is ours without being renewed: the next look takes it.
        let next = if unsure { scanned } else { scanned + pause };
        expiry.map_or(next, |at| at.min(next)).max(Instant::now() + MIN_PAUSE)
    }

    async fn take(&mut self, mut lease: Lease) -> Result<(), table::Error> {
        let proven = Instant::now();
        let update = update::take(&lease, &self.settings.me);
        self.table.update(&lease.shard, &update).await?;
        let from = lease.owner.take();
        update.apply(&mut lease);
        info!(shard = %lease.shard, checkpoint = %lease.checkpoint, from = from.as_ref().map(WorkerId::as_str), "took a lease");
        self.hold(lease, proven).await;
        Ok(())
    }

    /// Enters one lease as soon as it is ours, whatever becomes of the others.
    async fn hold(&mut self, lease: Lease, proven: Instant) {
        let Settings { me, failover, .. } = &self.settings;
        let held = Held::new(lease, me.clone(), self.table.clone(), proven, *failover);
        let pause = self.settings.renewal();
        // The first renewals are spread, and so are all that follow.
        let first = proven + pause.mul_f64(0.3 + 0.7 * self.random.f64());
        let task = self.renewals.spawn(renew(held.clone(), pause, first));
        self.renewed.insert(task.id(), held.clone());
        self.held.insert(held.shard().clone(), held.clone());
        if self.taken.send(held).await.is_err() {
            debug!("nobody takes leases any more");
        }
    }

    fn release(&mut self, held: Arc<Held>) {
        self.forget(&held);
        self.releases.spawn(async move { give_back(&held).await });
    }

    async fn release_all(&mut self) {
        let held: Vec<Arc<Held>> = std::mem::take(&mut self.held).into_values().collect();
        for held in held {
            self.release(held);
        }
        let all = async { while self.releases.join_next().await.is_some() {} };
        if timeout(RELEASE, all).await.is_err() {
            warn!(left = self.releases.len(), "leases could not be given back in time: they will expire");
        }
    }
}

async fn give_back(held: &Held) {
    match held.release().await {
        Ok(()) => info!(shard = %held.shard(), "gave the lease back"),
        Err(held::Error::Lost) => {
            debug!(shard = %held.shard(), "the lease was lost before it could be given back")
        }
        Err(error) => {
            warn!(shard = %held.shard(), %error, "the lease could not be given back: it will expire")
        }
    }
}

/// Keeps one lease alive until it is lost. A failure is retried with jitter until the lease expires.
async fn renew(held: Arc<Held>, pause: Duration, first: Instant) {
    let mut backoff = Backoff::new(pause / 8, pause, fastrand::Rng::new());
    let mut next = first;
    loop {
        tokio::select! {
            biased;
            // Lost leases aren't renewed.
            () = held.lost().cancelled() => break,
            () = sleep_until(next.min(held.expires())) => {}
        }
        let started = Instant::now();
        match held.renew().await {
            Ok(_) => {
                backoff.reset();
                next = started + pause;
            }
            Err(held::Error::Lost) => {
                warn!(shard = %held.shard(), "the lease is lost");
                break;
            }
            Err(error) => {
                let again = backoff.pause();
                warn!(shard = %held.shard(), %error, ?again, "a renewal failed, will try again");
                next = Instant::now() + again;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::memory::{Fault, Memory};
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    fn settings() -> Settings {
        Settings {
            me: "me".into(),
            failover: Duration::from_secs(10),
            max_leases: 10,
            max_steals: 1,
            priority: true,
            compatible_with_2x: false,
        }
    }

    fn table() -> Arc<Memory> {
        let table = Arc::new(Memory::default());
        let range = HashRange { start: 0, end: 9 };
        table.put(Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range));
        table
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_taken_without_an_answer_is_held_well_before_it_could_be_lost() {
        let table = table();
        table.set_fault(Fault::LostAnswer);
        let (coordinator, _handle, mut leases) = Coordinator::new(table.clone(), settings());
        let mut tasks = JoinSet::new();
        tasks.spawn(coordinator.run(CancellationToken::new()));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(table.row(&"s".into()).unwrap().owner, Some("me".into()));
        table.set_fault(Fault::None);
        let held = timeout(Duration::from_secs(2), leases.recv()).await.unwrap().unwrap();
        assert!(held.is_live(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn leases_are_renewed_until_the_last_handle_is_gone_and_then_given_back() {
        let table = table();
        let (coordinator, handle, mut leases) = Coordinator::new(table.clone(), settings());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(coordinator.run(stop.clone()));
        let held = leases.recv().await.unwrap();
        stop.cancel();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(held.is_live(Instant::now()), "renewing stops last");
        drop(handle);
        tasks.join_all().await;
        assert!(held.lost().is_cancelled());
        assert_eq!(table.row(&"s".into()).unwrap().owner, None);
    }
}
