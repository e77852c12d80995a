//! Leases in a fleet whose leader assigns them. If this worker is the leader, `membership` assigns them, by the scans of
//! the coordinator.
//!
//! A member queries the index of lease owners for its leases and starts renewing them. The leader scans the
//! whole table instead, as often as needed to see in time that a worker died, and so does a member while the
//! leader may be dead: the next leader then knows already which leases expired. A worker that was assigned a lease
//! is nudged, so that a multilangd worker knows at once; a Java worker finds the lease at its next query.
//!
//! A worker that shuts down offers each lease to the live worker with the fewest leases instead of only
//! releasing it: that successor needs no leader to acquire it.
//!
//! In KCL: `DynamoDBLeaseDiscoverer`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Snapshot;
use super::event::{Effect, Holding, Intent, Line};
use super::index::OwnerIndex;
use super::shared::stalled_line;
use super::state::{ALERT, Effects, MIN_PAUSE, State};
use super::successors::asker;
use crate::fleet::leader;
use crate::lease::outage::Outage;
use crate::lease::{Lease, LeaseKey, WorkerId, table, update};
use crate::metrics::OfWorker;

/// A member scans the whole table this many failover times after the last scan: for what it has finished
/// itself, and to know which workers to nudge.
const SURVEY: u32 = 6;
/// Interval at which a worker designated by a graceful handoff checks for its lease.
const DESIGNATED: Duration = Duration::from_millis(1_500);
/// Interval between two log lines about a leader that leaves leases without an owner.
const LOG_AGAIN: Duration = Duration::from_secs(300);

/// State that is kept between scans.
#[derive(Debug, Clone, Default)]
pub(super) struct Assigned {
    /// Workers that were assigned a lease and must be nudged.
    pub(super) newly_assigned: BTreeSet<WorkerId>,
    /// Whether all workers are to be nudged: there are leases to assign.
    pub(super) nudge_all: bool,
    /// When it was last logged that the leader leaves leases without an owner.
    complained: Option<Instant>,
    /// Whether this worker has introduced itself.
    introduced: bool,
    pub(super) index: OwnerIndex,
    /// When the index was last queried.
    listed: Option<Instant>,
    /// Since the present nudge of a peer nothing new was found.
    pub(super) in_vain: bool,
    /// Scans that fail.
    pub(super) listing: Outage,
    /// Writes that acquire leases and fail for other reasons than that another worker was faster.
    pub(super) acquiring: Outage,
    /// Leases acquired since the last line that counts them.
    pub(super) acquired: Vec<LeaseKey>,
}

impl<H: Holding> State<H> {
    /// Whether a query of the index says enough for this look.
    pub(super) fn may_query_the_index(&self, now: Instant) -> bool {
        let Self { standing, assigned, settings, .. } = self;
        standing.is_led()
            && !standing.leads(now)
            && !standing.suspect
            && self.rivals.watches_until().is_none()
            && assigned.index.scanned_within(settings.failover * SURVEY, now)
            && assigned.index.may_query(now, !self.held.is_empty(), settings.failover)
            // The index may lack the lease for which a peer nudged this worker.
            && (self.look.alert != 1
                || !assigned.in_vain
                || assigned.index.scanned_within(settings.failover, now))
    }

    /// The whole table was scanned.
    pub(super) fn scanned_assigned(&mut self, now: Instant, effects: &mut Effects<H>) {
        self.assigned.index.scanned(now);
        self.can_scan(now, effects);
        self.evaluate_marks(now, effects);
        let leases = self.leases.clone();
        let leads = self.standing.leads(now);
        let held: BTreeSet<LeaseKey> = self.held.keys().cloned().collect();
        let (me, failover) = (self.settings.me.clone(), self.settings.failover);
        let renewing = asker(&me, &held, failover).view(&leases, &self.history, now).live();
        let mut live = renewing.clone();
        live.extend(self.standing.verdict.reporting.iter().cloned());
        self.note_peers(&live, now, effects);
        effects.push(Effect::Publish(Snapshot {
            leases: leases.clone(),
            history: self.history.clone(),
            live,
            renewing,
            held: Arc::new(held),
            excluded: Arc::new(self.excluded(&leases)),
            leads: Some(leads),
            at: Some(now),
            unable: self.unable(now),
            order: None,
        }));
        if self.stopping {
            return;
        }
        let own = |lease: &&Lease| lease.owner.as_ref() == Some(&me) && lease.checkpoint_owner.is_none();
        let own: Vec<Lease> = leases.iter().filter(own).filter(|lease| self.is_new(lease)).cloned().collect();
        effects.push(Effect::Emit(OfWorker::Discovered { leases: own.len(), took: Duration::ZERO }));
        for lease in own {
            let update = update::adopt(&lease, &me);
            self.acquire(&lease, update, effects);
        }
        if leads {
            // Membership asks for an earlier scan when a lease expires.
            self.look.next = now + (failover / 2).mul_f64(0.96 + 0.04 * self.random.f64()).max(MIN_PAUSE);
        } else {
            self.force(&leases, now, effects);
            self.look.next = now + self.member_pause(now);
            self.watch_the_leader(&leases, now, effects);
        }
        let watched = self.rivals.watches_until().map(|until| until.max(now + MIN_PAUSE));
        self.look.next = watched.map_or(self.look.next, |until| self.look.next.min(until));
        if !std::mem::replace(&mut self.assigned.introduced, true) && !leads {
            self.assigned.nudge_all = true;
            self.nudge_soon(now);
        }
    }

    /// Leases that the leader must not assign now: this worker is releasing them, or they are of another stream.
    fn excluded(&self, leases: &[Lease]) -> BTreeSet<LeaseKey> {
        let is_of_another = |lease: &&Lease| !lease.is_of(&self.settings.recognitions);
        let releasing = self.in_flight.keys().filter(|(_, intent)| *intent == Intent::Release);
        let others = leases.iter().filter(is_of_another).map(|lease| &lease.key);
        releasing.map(|(key, _)| key).chain(others).cloned().collect()
    }

    /// Notices a leader that does not assign leases, as far as a member can tell.
    fn watch_the_leader(&mut self, leases: &[Lease], now: Instant, effects: &mut Effects<H>) {
        // Leases of another stream are not this fleet's to assign.
        let leases = leases.iter().filter(|lease| lease.is_of(&self.settings.recognitions));
        let left = leader::neglected(leases, &self.history, self.settings.failover, now);
        let logged = self.assigned.complained.is_some_and(|at| now < at + LOG_AGAIN);
        let standing = &self.standing;
        if left == 0 || logged || standing.suspect || !standing.led || standing.mode.is_none() {
            return;
        }
        self.assigned.complained = Some(now);
        effects.push(Effect::Log(Line::Neglected(left)));
    }

    /// The index was queried.
    pub(super) fn owned_listed(
        &mut self,
        now: Instant,
        outcome: Result<Vec<LeaseKey>, table::Error>,
        effects: &mut Effects<H>,
    ) {
        let keys = match outcome {
            _ if self.ending => {
                self.look.in_flight = false;
                return;
            }
            Ok(keys) => keys,
            Err(error) => return self.cannot_query(now, error, effects),
        };
        self.look.in_flight = false;
        self.look.next = now + self.member_pause(now);
        if self.stopping {
            return;
        }
        self.check_index(&keys, now, effects);
        if !self.held.is_empty() {
            self.can_scan(now, effects);
            effects.push(Effect::PublishUnable(self.unable(now)));
        }
        let is_new = |key: &LeaseKey| !self.held.contains_key(key) && !self.is_releasing(key);
        let new: Vec<LeaseKey> = keys.into_iter().filter(is_new).collect();
        self.history.note_listed(&new);
        self.assigned.in_vain &= new.is_empty();
        if new.is_empty() {
            effects.push(Effect::Emit(OfWorker::Discovered { leases: 0, took: Duration::ZERO }));
        }
        self.assigned.listed = Some(now);
        for key in new {
            self.begun(&key, Intent::Read);
            effects.push(Effect::Read(key));
        }
    }

    /// A lease that the index lists was read.
    pub(super) fn row_read(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        outcome: Result<Option<Lease>, table::Error>,
        effects: &mut Effects<H>,
    ) {
        self.ended(key, Intent::Read);
        if self.ending {
            return;
        }
        let me = self.settings.me.clone();
        let is_mine = |lease: &Lease| lease.owner.as_ref() == Some(&me);
        let found = outcome.as_ref().is_ok_and(|read| read.as_ref().is_some_and(is_mine));
        let took = self.assigned.listed.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        effects.push(Effect::Emit(OfWorker::Discovered { leases: usize::from(found), took }));
        let lease = match outcome {
            Ok(lease) => lease,
            Err(error) => return effects.push(Effect::Log(Line::CannotRead(key.clone(), error))),
        };
        let accepts = |lease: &Lease| lease.is_of(&self.settings.recognitions);
        let is_usable = |lease: &Lease| is_mine(lease) && accepts(lease) && !lease.is_complete();
        let Some(lease) = lease.filter(is_usable) else { return };
        if lease.checkpoint_owner.is_some() {
            // Another worker is to hand this lease over to this one.
            Arc::make_mut(&mut self.history).note_row(&lease, now);
            self.scan_within(now, DESIGNATED);
            if !self.stopping {
                self.force(std::slice::from_ref(&lease), now, effects);
            }
        } else if !self.stopping {
            self.acquire(&lease, update::adopt(&lease, &me), effects);
        }
    }

    /// Acquires leases that were assigned to this worker but never handed off: a Java leader does not enforce
    /// that.
    fn force(&mut self, leases: &[Lease], now: Instant, effects: &mut Effects<H>) {
        let me = self.settings.me.clone();
        let stalled = self.stalled(leases, now);
        for lease in leases.iter().filter(|lease| stalled.contains(&lease.key)) {
            if lease.owner.as_ref() == Some(&me) && self.accepts(lease) {
                effects.push(Effect::Log(stalled_line(lease)));
                self.acquire(lease, update::take(lease, &me), effects);
            }
        }
    }

    fn is_new(&self, lease: &Lease) -> bool {
        !lease.is_complete()
            && self.accepts(lease)
            && !self.held.contains_key(&lease.key)
            && !self.is_releasing(&lease.key)
    }

    /// The time until a member looks at the table again.
    fn member_pause(&mut self, now: Instant) -> Duration {
        let failover = self.settings.failover;
        let pause = match self.look.alert {
            0 if self.standing.suspect => failover / 4,
            // Java's workers nudge nobody when they release a lease, and one that is not renewed for long is
            // assigned to another worker.
            0 if self.history.is_designated(&self.settings.me) => DESIGNATED.min(failover / 4),
            // A scan costs more than a query: as often as a leader scans.
            0 if self.held.is_empty() && self.assigned.index.is_distrusted(now) => failover / 2,
            // A worker without leases cannot be nudged.
            0 if self.held.is_empty() => failover / 6,
            0 if self.standing.led_by_ours => failover * 3,
            0 => failover,
            alert => ALERT[ALERT.len() - alert],
        };
        self.look.alert = self.look.alert.saturating_sub(1);
        pause.mul_f64(0.93 + 0.04 * self.random.f64())
    }

    /// Nudges the workers that were assigned a lease, or all workers.
    pub(super) fn nudge_assigned(&mut self, effects: &mut Effects<H>) {
        let workers = std::mem::take(&mut self.assigned.newly_assigned);
        let all = std::mem::take(&mut self.assigned.nudge_all);
        effects.push(Effect::NudgeOwners((!all).then(|| workers.into_iter().collect())));
    }
}
