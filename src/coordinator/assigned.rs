//! The coordinator of a worker in a fleet whose leader assigns the leases; this worker may be the leader.
//!
//! A member queries the index of lease owners for its leases and starts renewing them. The leader scans the
//! whole table instead, as often as needed to see in time that a worker died, and so does a member while the
//! leader may be dead: the next leader then knows already which leases expired. A worker that assigns a lease
//! to another one nudges it, so that a multilangd worker knows at once; a Java worker finds the lease at its
//! next query.
//!
//! A worker that shuts down offers each lease to the live worker with the fewest leases instead of only
//! releasing it: that successor needs no leader to acquire it.
//!
//! In KCL: `DynamoDBLeaseDiscoverer`, `LeaseAssignmentManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::index::OwnerIndex;
use super::listing::log_assigned;
use super::successors::{CHOOSE, Successors, asker};
use super::{ALERT, Coordinator, Done, MIN_PAUSE, Snapshot, Standing, SuccessorQuery, call, take};
use crate::fleet::leader::{self, How, Leader, Run, Workers};
use crate::lease::outage::Outage;
use crate::lease::update::{Mark, Next};
use crate::lease::{Lease, ProcessId, WorkerId, table, update};
use crate::metrics::OfWorker;
use crate::shard::ShardId;

/// A member looks at the whole table so many failover times after the last time: for what it has finished
/// itself, and to know whom to call.
const SURVEY: u32 = 6;
/// Interval at which a worker designated by a graceful handoff checks for its lease.
const NAMED: Duration = Duration::from_millis(1_500);
/// Between two words about a leader that doesn't do its work.
const SAY_AGAIN: Duration = Duration::from_secs(300);
/// Of each worker so many rows are nudged: by one of them it soon knows.
const ROWS: usize = 8;

/// State that is kept between scans.
#[derive(Default)]
pub(super) struct Assigned {
    leader: Leader,
    /// When the whole table was seen last.
    surveyed: Option<Instant>,
    /// Workers that were assigned a lease and must be nudged.
    newly_assigned: BTreeSet<WorkerId>,
    /// Whether all workers are to be nudged: there are leases to assign.
    everybody: bool,
    /// When it was last said that the leader doesn't do its work.
    complained: Option<Instant>,
    /// Whether this worker has introduced itself.
    introduced: bool,
    ask: Option<mpsc::Sender<SuccessorQuery>>,
    pub(super) stop: CancellationToken,
    successors: Option<Arc<Successors>>,
    giving: Option<Giving>,
    /// Leases that this worker, as the leader, has given to itself and does not hold yet.
    given_to_me: BTreeMap<ShardId, Instant>,
    pub(super) index: OwnerIndex,
    /// Since the present calls of peers nothing new was found.
    in_vain: bool,
    /// Scans that fail.
    pub(super) listing: Outage,
    /// Writes by which leases are acquired, and that fail for other reasons than that somebody else was faster.
    pub(super) acquiring: Outage,
    /// Leases acquired since the last line that counts them.
    pub(super) acquired: Vec<ShardId>,
    /// When each lease was acquired.
    pub(super) held_since: BTreeMap<ShardId, Instant>,
}

/// Orders of one plan that are being carried out.
struct Giving {
    began: Instant,
    /// Those that are no hand-offs.
    assigned: usize,
    left: usize,
    failed: usize,
    /// Assignments that failed, handoffs apart.
    unassigned: usize,
}

impl Assigned {
    pub(super) fn new(ask: mpsc::Sender<SuccessorQuery>) -> Self {
        Self { ask: Some(ask), ..Self::default() }
    }

    /// A peer has called.
    pub(super) fn seek(&mut self) {
        self.in_vain = true;
    }
}

pub(super) fn tell_of_stalled(lease: &Lease) {
    let from = lease.actual_owner().map(WorkerId::as_str);
    warn!(shard = %lease.shard, from, "graceful handoff timed out, acquiring the lease");
}

impl Coordinator {
    /// Whether the index says enough for this look.
    pub(super) fn may_ask_the_index(&self, now: Instant) -> bool {
        let standing = self.standing.borrow();
        let recent = |at: Instant| now < at + self.settings.failover * SURVEY;
        standing.is_led()
            && !standing.leads(now)
            && !standing.suspect
            && self.rivals.watches_until().is_none()
            && self.assigned.surveyed.is_some_and(recent)
            && self.assigned.index.may_query(now, !self.held.is_empty(), self.settings.failover)
            // The index may lack the lease that a peer called for.
            && (self.look.alert != 1
                || !self.assigned.in_vain
                || self.assigned.index.scanned_within(self.settings.failover, now))
    }

    /// The whole table, in a fleet that is led.
    pub(super) fn looked_led(&mut self, leases: Vec<Lease>, stop: &CancellationToken) {
        let now = Instant::now();
        Arc::make_mut(&mut self.history).note_scan(&leases, now);
        self.assigned.surveyed = Some(now);
        self.assigned.index.scanned(now);
        self.can_list(now);
        let leases = Arc::new(leases);
        self.leases = leases.clone();
        self.look_at_marks();
        let standing = self.standing.borrow().clone();
        let leads = standing.leads(now);
        let held: BTreeSet<ShardId> = self.held.keys().cloned().collect();
        let (me, failover) = (self.settings.me.clone(), self.settings.failover);
        let renewing = asker(&me, &held, failover).view(&leases, &self.history, now).live();
        let mut live = renewing.clone();
        live.extend(standing.verdict.reporting.iter().cloned());
        self.note_live(&live);
        self.shown.send_replace(Snapshot {
            leases: leases.clone(),
            history: self.history.clone(),
            live,
            renewing,
            leads: Some(leads),
            at: Some(now),
            unable: self.unable(),
        });
        self.look.under_way = 0;
        if stop.is_cancelled() {
            return;
        }
        let own = |lease: &&Lease| lease.owner.as_ref() == Some(&me) && lease.checkpoint_owner.is_none();
        let own: Vec<Lease> = leases.iter().filter(own).filter(|lease| self.is_new(lease)).cloned().collect();
        self.settings.sink.worker(OfWorker::Discovered { leases: own.len(), took: Duration::ZERO });
        self.adopt(own);
        if !leads {
            self.force(&leases, now);
        }
        if leads {
            self.give_out(&leases, &standing);
            let expiry = self.assigned.leader.next_expiry(&leases, &self.history, &self.settings.rules, now);
            let pause = (failover / 2).mul_f64(0.96 + 0.04 * self.random.f64());
            self.look.next = expiry.map_or(now + pause, |at| at.min(now + pause)).max(now + MIN_PAUSE);
        } else {
            self.assigned.leader = Leader::default();
            self.look.next = now + self.member_pause();
            self.look_at_the_leader(&leases, &standing, now);
        }
        let watched = self.rivals.watches_until().map(|until| until.max(now + MIN_PAUSE));
        self.look.next = watched.map_or(self.look.next, |until| self.look.next.min(until));
        if !std::mem::replace(&mut self.assigned.introduced, true) && !leads {
            self.assigned.everybody = true;
            self.call.get_or_insert(now + super::GATHER);
        }
    }

    /// Held leases of shards that are not finished: each needs a record processor.
    fn open(&self) -> usize {
        let finished =
            self.leases.iter().filter(|lease| lease.is_complete() && self.held.contains_key(&lease.shard));
        self.held.len() - finished.count()
    }

    /// How many leases this worker has room for.
    pub(super) fn most(&self, now: Instant) -> usize {
        self.settings.capacity.most(self.open(), now)
    }

    /// Notes whether other workers could have leases for which this one has no room.
    pub(super) fn note_live(&self, live: &BTreeSet<WorkerId>) {
        // A leader may have no leases and so not be seen to renew any.
        let led = {
            let standing = self.standing.borrow();
            standing.led && !standing.leads(Instant::now())
        };
        self.settings.capacity.note(live.len() > 1 || led);
    }

    /// Whether the leader does its work, as far as a member can tell.
    fn look_at_the_leader(&mut self, leases: &[Lease], standing: &Standing, now: Instant) {
        // Those of another stream are nobody's to assign.
        let leases = leases.iter().filter(|lease| self.settings.recognition.accepts(lease.stream.as_ref()));
        let left = leader::neglected(leases, &self.history, self.settings.failover, now);
        let said = self.assigned.complained.is_some_and(|at| now < at + SAY_AGAIN);
        if left == 0 || said || standing.suspect || !standing.led || standing.mode.is_none() {
            return;
        }
        self.assigned.complained = Some(now);
        error!(
            left,
            "the leader renews its lock, but {left} leases have had no live owner for minutes (no other worker can \
             become the leader while its process runs: restart it; `multilangd leases` names it)"
        );
    }

    /// Handles the leases that the index reports for this worker.
    pub(super) fn found(&mut self, shards: Vec<ShardId>, stop: &CancellationToken) {
        self.look.under_way = 0;
        self.look.next = Instant::now() + self.member_pause();
        if stop.is_cancelled() {
            return;
        }
        self.check_index(&shards, Instant::now());
        if !self.held.is_empty() {
            self.can_list(Instant::now());
            self.show_ability();
        }
        let new = |shard: &ShardId| !self.held.contains_key(shard) && !self.releasing.contains(shard);
        let new: Vec<ShardId> = shards.into_iter().filter(new).collect();
        self.history.note_listed(&new);
        self.assigned.in_vain &= new.is_empty();
        if new.is_empty() {
            self.settings.sink.worker(OfWorker::Discovered { leases: 0, took: Duration::ZERO });
        }
        let began = Instant::now();
        for shard in new {
            let sink = self.settings.sink.clone();
            let (table, writes, me) = (self.table.clone(), self.writes.clone(), self.settings.me.clone());
            let recognition = self.settings.recognition.clone();
            let stream = recognition.mark(&shard);
            let mark = Mark { stream, process: self.settings.process.clone() };
            self.look.under_way += 1;
            self.spawn(async move {
                let read = table.get(&shard).await;
                let found = matches!(&read, Ok(Some(lease)) if lease.owner.as_ref() == Some(&me));
                let found = usize::from(found);
                sink.worker(OfWorker::Discovered { leases: found, took: began.elapsed() });
                match read {
                    Ok(Some(lease))
                        if lease.owner.as_ref() == Some(&me)
                            && lease.checkpoint_owner.is_none()
                            && recognition.accepts(lease.stream.as_ref())
                            && !lease.is_complete() =>
                    {
                        let update = update::adopt(&lease, &me).marked(&lease, &mark);
                        Done::Took(Box::new(take(table, writes, lease, update).await))
                    }
                    Ok(Some(lease))
                        if lease.owner.as_ref() == Some(&me)
                            && lease.checkpoint_owner.is_some()
                            && recognition.accepts(lease.stream.as_ref())
                            && !lease.is_complete() =>
                    {
                        Done::Named(Box::new(lease))
                    }
                    // Not any more.
                    Ok(_) => Done::Passed,
                    Err(error) => {
                        debug!(%shard, %error, "failed to read a lease that was assigned to this worker");
                        Done::Passed
                    }
                }
            });
        }
    }

    /// Another worker is to hand this lease over to this one.
    pub(super) fn named(&mut self, lease: Lease, stop: &CancellationToken) {
        self.look.under_way = self.look.under_way.saturating_sub(1);
        let now = Instant::now();
        Arc::make_mut(&mut self.history).note_row(&lease, now);
        self.look.next = self.look.next.min(now + NAMED);
        if !stop.is_cancelled() {
            self.force(std::slice::from_ref(&lease), now);
        }
    }

    /// Acquires leases that were assigned to this worker but never handed off: a Java leader does not enforce
    /// that.
    fn force(&mut self, leases: &[Lease], now: Instant) {
        let me = self.settings.me.clone();
        let stalled = self.stalled(leases, now);
        for lease in leases.iter().filter(|lease| stalled.contains(&lease.shard)) {
            if lease.owner.as_ref() == Some(&me) && self.accepts(lease) {
                tell_of_stalled(lease);
                let (table, writes, lease) = (self.table.clone(), self.writes.clone(), lease.clone());
                let update = self.acquire(update::take(&lease, &me), &lease);
                self.look.under_way += 1;
                self.spawn(async move { Done::Took(Box::new(take(table, writes, lease, update).await)) });
            }
        }
    }

    fn is_new(&self, lease: &Lease) -> bool {
        !lease.is_complete()
            && self.accepts(lease)
            && !self.held.contains_key(&lease.shard)
            && !self.releasing.contains(&lease.shard)
    }

    fn adopt(&mut self, leases: Vec<Lease>) {
        for lease in leases {
            let (table, writes) = (self.table.clone(), self.writes.clone());
            let update = self.acquire(update::adopt(&lease, &self.settings.me), &lease);
            self.look.under_way += 1;
            self.spawn(async move { Done::Took(Box::new(take(table, writes, lease, update).await)) });
        }
    }

    /// As a member: until the next look.
    fn member_pause(&mut self) -> Duration {
        let failover = self.settings.failover;
        let standing = self.standing.borrow();
        let pause = match self.look.alert {
            0 if standing.suspect => failover / 4,
            // Java's workers call nobody when they let go, and a lease that stands still for long is given to another.
            0 if self.history.is_designated(&self.settings.me) => NAMED.min(failover / 4),
            // A scan costs more than a Query: as often as a leader looks.
            0 if self.held.is_empty() && self.assigned.index.is_distrusted(Instant::now()) => failover / 2,
            // A worker without leases cannot be nudged.
            0 if self.held.is_empty() => failover / 6,
            0 if standing.led_by_ours => failover * 3,
            0 => failover,
            alert => ALERT[ALERT.len() - alert],
        };
        self.look.alert = self.look.alert.saturating_sub(1);
        pause.mul_f64(0.93 + 0.04 * self.random.f64())
    }

    /// As the leader.
    fn give_out(&mut self, leases: &[Lease], standing: &Standing) {
        let now = Instant::now();
        let mut members = standing.verdict.members.clone();
        let (most, open) = (self.most(now), self.open());
        for member in members.iter_mut().filter(|member| member.id == self.settings.me) {
            member.most = most;
        }
        let workers = Workers { members: &members, signs: &standing.signs() };
        let rules = self.settings.rules.clone();
        let mut orders =
            self.assigned.leader.plan(leases, &self.history, workers, &rules, now, &mut self.random);
        let recognition = &self.settings.recognition;
        orders.retain(|order| {
            !self.releasing.contains(&order.lease.shard) && recognition.accepts(order.lease.stream.as_ref())
        });
        // Rows that were read a little early do not show what this worker was given just before.
        let given = &mut self.assigned.given_to_me;
        given.retain(|shard, at| now < *at + self.settings.failover && !self.held.contains_key(shard));
        let mut room = most.saturating_sub(open + given.len());
        orders.retain(|order| {
            let mine = order.to == self.settings.me;
            if mine && room > 0 {
                room -= 1;
                given.insert(order.lease.shard.clone(), now);
                return true;
            }
            !mine
        });
        let Run { assigning, left, balancing } = self.assigned.leader.run();
        self.settings.sink.worker(OfWorker::Planned { assigning, left, balancing });
        let assigned = orders.iter().filter(|order| order.how == How::Assign).count();
        self.assigned.giving =
            Some(Giving { began: now, assigned, left: orders.len(), failed: 0, unassigned: 0 });
        self.gave_some();
        for order in orders {
            let update = match order.how {
                How::Assign => update::assign(order.lease, &order.to),
                How::HandOff => update::initiate(order.lease, &order.to),
            };
            let from = order.lease.actual_owner().map(ToString::to_string);
            let (table, writes, standing) = (self.table.clone(), self.writes.clone(), self.standing.clone());
            let (shard, to, how) = (order.lease.shard.clone(), order.to.clone(), order.how);
            self.look.under_way += 1;
            self.spawn(async move {
                let _permit = writes.acquire().await;
                if !standing.borrow().leads(Instant::now()) {
                    return Done::Given(to, how, Err(table::Error::Conflict(shard)));
                }
                let outcome = table.update(&shard, &update).await.map(drop);
                match (&outcome, how) {
                    (Ok(()), How::HandOff) => info!(%shard, from, %to, "requested a graceful handoff"),
                    (Ok(()), How::Assign) if from.is_some() => info!(%shard, from, %to, "assigned a lease"),
                    (Ok(()), How::Assign) => debug!(%shard, %to, "assigned a lease"),
                    (Err(error), _) => debug!(%shard, %to, %error, "failed to assign a lease"),
                }
                Done::Given(to, how, outcome)
            });
        }
    }

    /// A lease was released: to this worker, if it was offered to one.
    pub(super) fn gave_back(&mut self, to: Option<WorkerId>) {
        self.assigned.newly_assigned.extend(to);
    }

    /// A lease was given out, or not.
    pub(super) fn given(&mut self, to: &WorkerId, how: How, outcome: &Result<(), table::Error>) {
        self.look.under_way = self.look.under_way.saturating_sub(1);
        if let Some(giving) = &mut self.assigned.giving {
            giving.left = giving.left.saturating_sub(1);
            giving.failed += usize::from(outcome.is_err());
            giving.unassigned += usize::from(outcome.is_err() && how == How::Assign);
        }
        self.gave_some();
        let now = Instant::now();
        match outcome {
            Ok(()) if *to == self.settings.me => self.look.next = now,
            Ok(()) => {
                self.assigned.newly_assigned.insert(to.clone());
                self.call.get_or_insert(now + super::GATHER);
            }
            // The next scan shows the present state of the row.
            Err(table::Error::Conflict(_) | table::Error::Ambiguous(_)) => {
                self.look.next = self.look.next.min(now + MIN_PAUSE);
            }
            // A table that refuses is not asked more often for it.
            Err(_) => {}
        }
    }

    /// Tells when all of a plan is done.
    fn gave_some(&mut self) {
        if let Some(giving) = self.assigned.giving.take_if(|giving| giving.left == 0) {
            let (failed, took) = (giving.failed, giving.began.elapsed());
            log_assigned(giving.assigned, giving.unassigned);
            self.settings.sink.worker(OfWorker::GaveOut { failed, took });
        }
    }

    /// Calls who was given something, or everybody.
    pub(super) fn call_led(&mut self) {
        let newly_assigned = std::mem::take(&mut self.assigned.newly_assigned);
        let everybody = std::mem::take(&mut self.assigned.everybody);
        let (table, writes, me) = (self.table.clone(), self.writes.clone(), self.settings.me.clone());
        self.spawn(async move {
            // The rows as they are: a member knows the whole table from long ago only.
            let Ok(leases) = table.list().await else { return Done::Called };
            let mut rows: BTreeMap<&WorkerId, usize> = BTreeMap::new();
            let nudges = leases.iter().filter_map(|lease| {
                // While a hand-off is open its old owner is the one that renews.
                let owner = lease.actual_owner().filter(|owner| **owner != me)?;
                let called = everybody || newly_assigned.contains(owner);
                let count = rows.entry(owner).or_default();
                *count += 1;
                (called && *count <= ROWS).then(|| (lease.shard.clone(), update::nudge(lease)))
            });
            let nudges: Vec<_> = nudges.collect();
            debug!(leases = nudges.len(), "nudging other workers");
            call(&table, &writes, nudges).await;
            Done::Called
        });
    }

    /// The successors of released leases: if this worker shuts down and a worker waits for leases from a
    /// leader.
    pub(super) fn successors(&mut self) -> Option<Arc<Successors>> {
        if !self.assigned.stop.is_cancelled() || !self.standing.borrow().is_three_x() {
            return None;
        }
        self.assigned.everybody = true;
        let ask = self.assigned.ask.clone()?;
        let successors = self.assigned.successors.get_or_insert_with(|| {
            Arc::new(Successors {
                ask,
                me: self.settings.me.clone(),
                failover: self.settings.failover,
                table: self.table.clone(),
                history: self.history.clone(),
                live: OnceCell::new(),
                given: Mutex::default(),
            })
        });
        Some(successors.clone())
    }

    /// Passes leases that were assigned to this worker during its shutdown to the next one.
    pub(super) async fn pass_on(&mut self) {
        // The leases that name this worker are held by the other process with its id.
        if !self.standing.borrow().is_three_x() || self.rivals.gives_way() {
            return;
        }
        let me = self.settings.me.clone();
        let Ok(Ok(leases)) = timeout(CHOOSE, self.table.list()).await else {
            warn!(
                "failed to list the leases during shutdown: leases that were assigned to this worker \
                 meanwhile will expire"
            );
            return;
        };
        let mut writes = JoinSet::new();
        for lease in leases {
            let mine = lease.owner.as_ref() == Some(&me) && lease.checkpoint_owner.is_none();
            let of_a_later = |process: &ProcessId| process.is_of(&me) && *process > self.settings.process;
            if mine && !lease.is_complete() && !lease.process.as_ref().is_some_and(of_a_later) {
                let to = match self.successors() {
                    Some(successors) => match successors.ask().await {
                        Some(verdict) => successors.next(&verdict).await,
                        None => None,
                    },
                    None => None,
                };
                let to = to.map_or(Next::Nobody, Next::Worker);
                let table = self.table.clone();
                let update = update::release(&lease, &to);
                writes.spawn(async move { table.update(&lease.shard, &update).await.map(drop) });
            }
        }
        let all = async {
            while let Some(written) = writes.join_next().await {
                if let Ok(Err(error)) = written {
                    debug!(%error, "failed to release a lease that was assigned during shutdown");
                }
            }
        };
        if timeout(CHOOSE, all).await.is_err() {
            debug!("timed out releasing leases that were assigned during shutdown");
        }
    }
}
