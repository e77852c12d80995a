//! The lease assignment by the leader: after each scan it plans, and then it writes, a few rows at a time.
//!
//! Before each write the leader checks that it still is the leader. A plan is made of a scan that has just ended, and by
//! the time of that scan: a lease may have been renewed since.
//!
//! In KCL: `LeaseAssignmentManager`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::assignments::Round;
use super::event::{Assignment, Effect, Kind};
use super::state::State;
use crate::clock::Expiry;
use crate::fleet::leader::{How, Leader, Order, Run, Workers};
use crate::lease::{LeaseKey, WorkerId, table, update};
use crate::metrics::OfWorker;

/// Assignments that are written at once.
const PARALLEL: usize = 12;
/// Two scans that the leader asks for are at least this far apart.
const MIN_PAUSE: Duration = Duration::from_millis(250);
/// A plan is made within this part of the failover time after its scan.
const STALE: u32 = 4;

impl State {
    /// Whether this worker is the leader now. To be asked before each write of a leader.
    pub(super) fn may_assign(&self) -> bool {
        self.leads_until().is_some_and(|until| self.now() < until.instant_after(self.moment.slept))
    }

    fn leads_until(&self) -> Option<Expiry> {
        let until = self.election.until().filter(|_| self.mode.is_led() && !self.finishing);
        until.map(|until| Expiry::new(until, self.slept.1))
    }

    /// The table was scanned: the leader plans the assignments.
    pub(super) fn scanned(&mut self) {
        let Some(at) = self.snapshot.at.filter(|at| self.assigning.planned.is_none_or(|last| *at > last))
        else {
            return;
        };
        self.assigning.planned = Some(at);
        if !self.may_assign() {
            self.assigning.leader = Leader::default();
            return self.plan(Kind::Rescan, None);
        }
        if let Some(round) = &mut self.assigning.round {
            round.scan = true;
            return;
        }
        // On a machine that is always late, an old plan is better than none.
        let is_stale = self.now() > at + self.settings.failover / STALE;
        if is_stale && !std::mem::replace(&mut self.assigning.stale, true) {
            let soon = self.now() + MIN_PAUSE;
            let due = self.due_of(Kind::Rescan).map_or(soon, |due| due.min(soon));
            return self.plan(Kind::Rescan, Some(due));
        }
        self.assigning.stale = false;
        self.plan_assignments(at);
    }

    fn plan_assignments(&mut self, at: Instant) {
        let (leases, history) = (self.snapshot.leases.clone(), self.snapshot.history.clone());
        let (held, excluded) = (self.snapshot.held.clone(), self.snapshot.excluded.clone());
        let finished = leases.iter().filter(|lease| lease.is_complete() && held.contains(&lease.key)).count();
        let open = held.len().saturating_sub(finished);
        let most = self.settings.capacity.most(open, self.now());
        let mut members = self.verdict.members.clone();
        for member in members.iter_mut().filter(|member| member.id == self.settings.me) {
            member.most = most;
        }
        let signs = self.signs();
        let workers = Workers { members: &members, signs: &signs };
        let (rules, assigning) = (&self.settings.assignment, &mut self.assigning);
        // Nothing is known of the leases after the scan.
        let mut orders = assigning.leader.plan(&leases, &history, workers, rules, at, &mut self.random);
        orders.retain(|order| !excluded.contains(&order.lease.key));
        // Rows that were read a little early do not show what this worker was assigned just before.
        let own = &mut assigning.own;
        own.retain(|key, since| at < *since + self.settings.failover && !held.contains(key));
        let mut room = most.saturating_sub(open + own.len());
        orders.retain(|order| {
            let mine = order.to == self.settings.me;
            if mine && room > 0 {
                room -= 1;
                own.insert(order.lease.key.clone(), at);
                return true;
            }
            !mine
        });
        let Run { assigning: took, left, balancing } = assigning.leader.run();
        self.effects.push(Effect::Emit(OfWorker::Planned { assigning: took, left, balancing }));
        let expiry = assigning.leader.next_expiry(&leases, &history, rules, at);
        let assigned = orders.iter().filter(|order| order.how == How::Assign).count();
        let began = self.moment.now;
        assigning.worked_at = Some(began);
        assigning.round = Some(Round { began, assigned, failed: 0, unassigned: 0, scan: false });
        assigning.waiting = orders.into_iter().map(assignment).collect();
        let earliest = self.now() + MIN_PAUSE;
        self.plan(Kind::Rescan, expiry.map(|expiry| expiry.max(earliest)));
        self.write_assignments();
    }

    /// Whether a plan is being written. The table is not scanned for the leader before that has ended.
    pub(super) fn is_assigning(&self) -> bool {
        self.assigning.round.is_some()
    }

    /// When each worker wrote its last report.
    fn signs(&self) -> BTreeMap<WorkerId, Instant> {
        let Some(judged) = self.judged else { return BTreeMap::new() };
        let sign = |(worker, age): (&WorkerId, &Duration)| Some((worker.clone(), judged.checked_sub(*age)?));
        self.verdict.ages.iter().filter_map(sign).collect()
    }

    /// Begins the next writes of the present plan.
    pub(super) fn write_assignments(&mut self) {
        while self.assigning.in_flight.len() < PARALLEL {
            let Some(mut next) = self.assigning.waiting.pop_front() else { break };
            if self.may_assign() {
                next.leads_until = self.leads_until();
                let place = (next.to.clone(), next.how);
                self.assigning.in_flight.insert(next.lease.key.clone(), place);
                self.effects.push(Effect::Assign(Box::new(next)));
            } else {
                self.count_failure(next.how);
            }
        }
        if self.assigning.waiting.is_empty() && self.assigning.in_flight.is_empty() {
            self.round_ended();
        }
    }

    fn count_failure(&mut self, how: How) {
        if let Some(round) = &mut self.assigning.round {
            round.failed += 1;
            round.unassigned += usize::from(how == How::Assign);
        }
    }

    /// A lease was assigned to a worker, or not.
    pub(super) fn assignment_ended(&mut self, key: &LeaseKey, outcome: &Result<(), table::Error>) {
        let Some((to, how)) = self.assigning.in_flight.remove(key) else { return };
        self.assigning.worked_at = Some(self.moment.now);
        match outcome {
            Ok(()) if to == self.settings.me => {
                self.assigning.round.iter_mut().for_each(|round| round.scan = true)
            }
            Ok(()) => self.effects.push(Effect::NudgeSoon(to)),
            Err(error) => {
                self.count_failure(how);
                // The next scan shows the present state of the row. A table that refuses is not asked more often for it.
                if matches!(
                    error,
                    table::Error::Conflict(_) | table::Error::Ambiguous(_) | table::Error::Written { .. }
                ) {
                    let soon = self.now() + MIN_PAUSE;
                    let due = self.due_of(Kind::Rescan).map_or(soon, |due| due.min(soon));
                    self.plan(Kind::Rescan, Some(due));
                }
            }
        }
        self.write_assignments();
    }

    /// Reports a plan once all its writes have ended.
    fn round_ended(&mut self) {
        let Some(round) = self.assigning.round.take() else { return };
        let count = round.assigned.saturating_sub(round.unassigned);
        if count > 0 {
            let failed = (round.unassigned > 0).then_some(round.unassigned);
            info!(
                event = "leases_assigned",
                failed,
                "assigned {count} {}",
                if count == 1 { "lease" } else { "leases" }
            );
        }
        let took = self.now().saturating_duration_since(round.began);
        self.effects.push(Effect::Emit(OfWorker::GaveOut { failed: round.failed, took }));
        if round.scan {
            self.scan_now();
        }
    }
}

fn assignment(order: Order<'_>) -> Assignment {
    let Order { lease, to, how } = order;
    let update = match how {
        How::Assign => update::assign(lease, &to),
        How::HandOff => update::initiate(lease, &to),
    };
    Assignment { lease: lease.clone(), update, to, how, leads_until: None }
}
