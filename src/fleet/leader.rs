//! When a leader assigns leases, and which ones: those that are free, and those that have been so for too long. To which
//! worker each goes is in [`crate::lease::balance`].
//!
//! Unowned and expired leases are assigned at once. A lease of a live worker moves by a graceful handoff: its
//! row names the next owner, while the present one reads on until it has finished. A pending handoff is left
//! alone; one that is never completed ([`crate::lease::handoff`]) is assigned again, where Java's leader only
//! stops protecting it.
//!
//! In KCL: `LeaseAssignmentManager`. Different on purpose: leases are scanned more often, so that the leases
//! of a dead worker are seen within half a failover time; a new worker is assigned its share in the next
//! round instead of the third; and a newly assigned lease has twice the time for its first renewal, because a
//! Java worker looks for new leases only every ten seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::balance::{self, Candidate, Member};
use crate::lease::handoff::Limits;
use crate::lease::history::History;
use crate::lease::liveness::has_expired;
use crate::lease::{Lease, LeaseKey, WorkerId};

/// By then the report of a worker that died is over.
const FORGIVEN: Duration = Duration::from_secs(90);

/// How a leader decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// How leases are assigned and balanced in one round.
    pub balance: balance::Rules,
    /// `varianceBalancingFrequency` rounds of `leaseAssignmentIntervalMillis`.
    pub balance_every: Duration,
    /// `isGracefulLeaseHandoffEnabled`.
    pub graceful: bool,
    /// `gracefulLeaseHandoffTimeoutMillis`.
    pub hand_off: Duration,
}

impl Rules {
    /// How long a hand-off may take.
    pub fn limits(&self) -> Limits {
        Limits { hand_off: self.hand_off, failover: self.failover }
    }
}

/// How a lease goes to its next owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// At once.
    Assign,
    /// When the present owner has finished.
    HandOff,
}

/// One lease for one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Order<'l> {
    /// The lease as it was seen.
    pub lease: &'l Lease,
    /// Its next owner.
    pub to: WorkerId,
    /// How.
    pub how: How,
}

/// The workers as they report themselves.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'a> {
    /// Workers that may be assigned leases.
    pub members: &'a [Member],
    /// When each wrote its last report.
    pub signs: &'a BTreeMap<WorkerId, Instant>,
}

/// State that the leader keeps between its scans.
#[derive(Debug, Default)]
pub struct Leader {
    /// Its first plan. The time of an earlier change does not count: it was noted by the scans of a member, which may be
    /// far apart.
    began: Option<Instant>,
    /// Its last plan.
    planned: Option<Instant>,
    members: BTreeSet<WorkerId>,
    balanced: Option<Instant>,
    /// Workers that let a lease expire and have renewed none since. The metrics of a dead worker are fresh
    /// for a while, and since it holds nothing it would be the first to be assigned leases.
    lapses: BTreeMap<WorkerId, Lapse>,
    run: Run,
}

/// Figures of the last plan, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run {
    /// How long it took to give the available leases.
    pub assigning: Duration,
    /// Those of them that got nobody.
    pub left: usize,
    /// How long it took to even out, and how many leases move for it; none where that wasn't due.
    pub balancing: Option<(Duration, usize)>,
}

/// A worker let a lease expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lapse {
    /// When a lease of it was seen expired last.
    since: Instant,
    /// It has reported since, so it is live: most likely a process that was restarted. That counts once: a worker that
    /// reports and still renews nothing is stuck.
    trusted: bool,
}

impl Leader {
    /// Whether it has looked before since it leads.
    pub fn is_new(&self) -> bool {
        self.balanced.is_none()
    }

    /// Of the last [`Leader::plan`].
    pub fn run(&self) -> Run {
        self.run
    }

    /// Plans the assignments. `history` has noted these leases.
    pub fn plan<'l>(
        &mut self,
        leases: &'l [Lease],
        history: &History,
        workers: Workers<'_>,
        rules: &Rules,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Vec<Order<'l>> {
        let Workers { members, signs } = workers;
        self.forgive_renewing(leases, history);
        self.began.get_or_insert(now);
        self.planned = Some(now);
        let open: Vec<&Lease> = leases.iter().filter(|lease| !lease.is_complete()).collect();
        let candidates: Vec<Candidate<'_>> =
            open.iter().map(|lease| self.candidate(lease, history, rules, now)).collect();
        // A worker that has let its leases expire and reports again is as new as one that joins.
        let returned = self.note_lapses(&candidates, history, signs, now);
        let ids: BTreeSet<WorkerId> = members.iter().map(|member| member.id.clone()).collect();
        let due = self.balanced.is_none_or(|last| now >= last + rules.balance_every);
        let balance = due || returned || !ids.is_subset(&self.members);
        if balance && !members.is_empty() {
            self.balanced = Some(now);
        }
        self.members = ids;
        let run = if balance { rules.balance.balancing() } else { rules.balance.assigning() };
        let punctual: Vec<Member> =
            members.iter().filter(|member| self.is_trusted(&member.id)).cloned().collect();
        // If all are late there is nobody better.
        let members = if punctual.is_empty() { members } else { &punctual };
        let (began, mut assigned) = (Instant::now(), None);
        let plan = balance::plan(&candidates, members, run, random, || {
            assigned = Some(Instant::now());
        });
        let assigned = assigned.unwrap_or(began);
        self.run = Run {
            assigning: assigned - began,
            left: plan.left,
            balancing: plan.balanced.map(|count| (assigned.elapsed(), count)),
        };
        let mut early = false;
        let orders = plan.moves.into_iter().filter_map(|step| {
            let (lease, candidate) = (*open.get(step.lease)?, candidates.get(step.lease)?);
            // A worker that has not started yet cannot finish: later.
            if !candidate.available && self.unrenewed_since(&lease.key, history).is_some() {
                early = true;
                return None;
            }
            let direct = candidate.available || !rules.graceful;
            Some(Order { lease, to: step.to, how: if direct { How::Assign } else { How::HandOff } })
        });
        let orders = orders.collect();
        if early {
            self.balanced = None;
        }
        orders
    }

    /// A worker that has renewed a lease since the last plan is live.
    fn forgive_renewing(&mut self, leases: &[Lease], history: &History) {
        let Some(planned) = self.planned else { return };
        for lease in leases.iter().filter(|lease| lease.checkpoint_owner.is_none()) {
            if let Some(owner) = &lease.owner
                && history.renewed_at(&lease.key).is_some_and(|at| at > planned)
            {
                self.lapses.remove(owner);
            }
        }
    }

    /// Returns whether a worker is trusted again because it has reported since its leases expired.
    fn note_lapses(
        &mut self,
        candidates: &[Candidate<'_>],
        history: &History,
        signs: &BTreeMap<WorkerId, Instant>,
        now: Instant,
    ) -> bool {
        self.lapses.retain(|_, lapse| now.saturating_duration_since(lapse.since) < FORGIVEN);
        let mut returned = false;
        for (worker, lapse) in &mut self.lapses {
            let reports = signs.get(worker).is_some_and(|sign| *sign > lapse.since);
            returned |= reports && !lapse.trusted;
            lapse.trusted |= reports;
        }
        for candidate in candidates.iter().filter(|candidate| candidate.available) {
            let Some(owner) = candidate.checkpoint_owner.or(candidate.owner) else { continue };
            let given = self.unrenewed_since(candidate.key, history);
            match self.lapses.get_mut(owner) {
                // It has had its chance: this was given to it since.
                Some(lapse) if lapse.trusted && given.is_some_and(|given| given > lapse.since) => {
                    *lapse = Lapse { since: now + FORGIVEN, trusted: false };
                }
                Some(lapse) if lapse.trusted => {}
                Some(lapse) => lapse.since = lapse.since.max(now),
                None => {
                    self.lapses.insert(owner.clone(), Lapse { since: now, trusted: false });
                }
            }
        }
        returned
    }

    fn is_trusted(&self, worker: &WorkerId) -> bool {
        self.lapses.get(worker).is_none_or(|lapse| lapse.trusted)
    }

    /// Since when its owner could have renewed it and has not.
    fn unrenewed_since(&self, key: &LeaseKey, history: &History) -> Option<Instant> {
        history.unrenewed_since(key).filter(|since| self.began.is_some_and(|began| *since > began))
    }

    /// How long a lease may stay unchanged: a new owner has twice the time for its first renewal.
    fn limit(&self, key: &LeaseKey, history: &History, rules: &Rules) -> Duration {
        rules.failover * if self.unrenewed_since(key, history).is_some() { 2 } else { 1 }
    }

    /// Whether a handoff has made no progress for longer than allowed, and all of it under this leader.
    fn is_stalled(&self, lease: &Lease, history: &History, rules: &Rules, now: Instant) -> bool {
        let led = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        history.handoff_open_for(lease, now).is_some_and(|open| rules.limits().are_exceeded(open.min(led)))
    }

    fn candidate<'l>(
        &self,
        lease: &'l Lease,
        history: &History,
        rules: &Rules,
        now: Instant,
    ) -> Candidate<'l> {
        let still = history.unchanged_for(&lease.key, now).unwrap_or_default();
        let limit = self.limit(&lease.key, history, rules);
        // An owner that doesn't let go of what it was to hand over is no better than a dead one, as far as this lease
        // is concerned: no leader of Java's forces it, and its shard may have no reader.
        let stalled = self.is_stalled(lease, history, rules, now);
        let expired = has_expired(&lease.key, history, limit, now);
        let available = lease.actual_owner().is_none() || expired || stalled;
        Candidate {
            key: &lease.key,
            owner: lease.owner.as_ref(),
            checkpoint_owner: lease.checkpoint_owner.as_ref(),
            throughput: lease.throughput.map(|throughput| throughput.kilobytes()),
            available,
            rank: if lease.actual_owner().is_none() {
                0
            } else {
                u64::MAX - u64::try_from(still.as_millis()).unwrap_or(u64::MAX - 1)
            },
        }
    }

    /// When the next of these leases could turn out to be abandoned.
    pub fn next_expiry(
        &self,
        leases: &[Lease],
        history: &History,
        rules: &Rules,
        now: Instant,
    ) -> Option<Instant> {
        let suspects = leases.iter().filter(|lease| !lease.is_complete() && lease.actual_owner().is_some());
        let expiry =
            |lease: &Lease| history.expires_at(&lease.key, self.limit(&lease.key, history, rules), now);
        suspects.filter_map(expiry).min()
    }
}

/// A leader that renews its lock but leaves a lease without a live owner for so many failover times does not
/// do its work. No worker can become leader in its place, so the operator has to know.
const NEGLECT: u32 = 12;

/// How many leases a member has seen without a live owner for as long.
pub fn neglected<'a>(
    leases: impl IntoIterator<Item = &'a Lease>,
    history: &History,
    failover: Duration,
    now: Instant,
) -> usize {
    let stands = |lease: &&Lease| has_expired(&lease.key, history, failover * NEGLECT, now);
    leases.into_iter().filter(|lease| !lease.is_complete()).filter(stands).count()
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
