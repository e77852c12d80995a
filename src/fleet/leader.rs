//! The leader's decisions about leases.
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
use crate::lease::handoff::{HandOffs, Limits};
use crate::lease::take::Observations;
use crate::lease::{Lease, WorkerId};
use crate::shard::ShardId;

/// By then the report of a worker that died is over.
const FORGIVEN: Duration = Duration::from_secs(90);

/// How a leader decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// `reBalanceThresholdPercentage`.
    pub threshold: f64,
    /// `dampeningPercentage`.
    pub dampening: f64,
    /// `allowThroughputOvershoot`.
    pub overshoot: bool,
    /// `maxThroughputPerHostKBps`.
    pub max_throughput: f64,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Past {
    owner: Option<WorkerId>,
    checkpoint_owner: Option<WorkerId>,
    counter: i64,
    /// When the owner was first seen there; none once it has moved the counter.
    fresh: Option<Instant>,
}

/// State that the leader keeps between its scans.
#[derive(Debug, Default)]
pub struct Leader {
    past: BTreeMap<ShardId, Past>,
    hand_offs: HandOffs,
    members: BTreeSet<WorkerId>,
    balanced: Option<Instant>,
    /// Workers that let a lease expire and have renewed none since. The metrics of a dead worker are fresh
    /// for a while, and since it holds nothing it would be the first to be assigned leases.
    late: BTreeMap<WorkerId, Late>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Late {
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

    /// Plans the assignments. `seen` has noted these leases.
    pub fn plan<'l>(
        &mut self,
        leases: &'l [Lease],
        seen: &Observations,
        workers: Workers<'_>,
        rules: &Rules,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Vec<Order<'l>> {
        let Workers { members, signs } = workers;
        self.note(leases, now);
        self.hand_offs.note(leases, now);
        let open: Vec<&Lease> = leases.iter().filter(|lease| !lease.is_complete()).collect();
        let candidates: Vec<Candidate<'_>> =
            open.iter().map(|lease| self.candidate(lease, seen, rules, now)).collect();
        self.note_late(&candidates, signs, now);
        let ids: BTreeSet<WorkerId> = members.iter().map(|member| member.id.clone()).collect();
        let due = self.balanced.is_none_or(|last| now >= last + rules.balance_every);
        let balance = due || !ids.is_subset(&self.members);
        if balance && !members.is_empty() {
            self.balanced = Some(now);
        }
        self.members = ids;
        let rules_of_plan = balance::Rules {
            threshold: rules.threshold,
            dampening: rules.dampening,
            overshoot: rules.overshoot,
            max_throughput: rules.max_throughput,
            max_leases: rules.max_leases,
            balance,
        };
        let punctual: Vec<Member> =
            members.iter().filter(|member| self.is_trusted(&member.id)).cloned().collect();
        // If all are late there is nobody better.
        let members = if punctual.is_empty() { members } else { &punctual };
        let (began, mut assigned) = (Instant::now(), None);
        let plan = balance::plan(&candidates, members, &rules_of_plan, random, || {
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
            if !candidate.available && self.is_fresh(lease) {
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

    fn note_late(&mut self, candidates: &[Candidate<'_>], signs: &BTreeMap<WorkerId, Instant>, now: Instant) {
        self.late.retain(|_, late| now.saturating_duration_since(late.since) < FORGIVEN);
        for (worker, late) in &mut self.late {
            late.trusted |= signs.get(worker).is_some_and(|sign| *sign > late.since);
        }
        for candidate in candidates.iter().filter(|candidate| candidate.available) {
            let Some(owner) = candidate.checkpoint_owner.or(candidate.owner) else { continue };
            let given = self.past.get(candidate.shard).and_then(|past| past.fresh);
            match self.late.get_mut(owner) {
                // It has had its chance: this was given to it since.
                Some(late) if late.trusted && given.is_some_and(|given| given > late.since) => {
                    *late = Late { since: now + FORGIVEN, trusted: false };
                }
                Some(late) if late.trusted => {}
                Some(late) => late.since = late.since.max(now),
                None => {
                    self.late.insert(owner.clone(), Late { since: now, trusted: false });
                }
            }
        }
    }

    fn is_trusted(&self, worker: &WorkerId) -> bool {
        self.late.get(worker).is_none_or(|late| late.trusted)
    }

    /// Its owner has not renewed it so far.
    fn is_fresh(&self, lease: &Lease) -> bool {
        self.past.get(&lease.shard).is_some_and(|past| past.fresh.is_some())
    }

    fn note(&mut self, leases: &[Lease], now: Instant) {
        let mut next = BTreeMap::new();
        for lease in leases {
            let before = self.past.remove(&lease.shard);
            let same = before.as_ref().is_some_and(|past| past.owner == lease.owner);
            let fresh = match &before {
                Some(past) if same && past.counter == lease.counter => past.fresh,
                // Its former owner has let go of it: the one it was for has yet to begin.
                Some(past) if same && past.checkpoint_owner.is_some() && lease.checkpoint_owner.is_none() => {
                    Some(now)
                }
                Some(_) if same && lease.checkpoint_owner.is_none() => {
                    lease.owner.as_ref().map(|owner| self.late.remove(owner));
                    None
                }
                Some(_) if !same => Some(now),
                Some(_) | None => None,
            };
            let past = Past {
                owner: lease.owner.clone(),
                checkpoint_owner: lease.checkpoint_owner.clone(),
                counter: lease.counter,
                fresh,
            };
            next.insert(lease.shard.clone(), past);
        }
        self.past = next;
    }

    fn candidate<'l>(
        &self,
        lease: &'l Lease,
        seen: &Observations,
        rules: &Rules,
        now: Instant,
    ) -> Candidate<'l> {
        let still = seen.stood_still(lease, now).unwrap_or_default();
        let limit = if self.is_fresh(lease) { rules.failover * 2 } else { rules.failover };
        // An owner that doesn't let go of what it was to hand over is no better than a dead one, as far as this lease
        // is concerned: no leader of Java's forces it, and its shard may have no reader.
        let stalled = self.hand_offs.is_stalled(lease, rules.limits(), now);
        let available = lease.actual_owner().is_none() || still > limit || stalled;
        Candidate {
            shard: &lease.shard,
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
        seen: &Observations,
        rules: &Rules,
        now: Instant,
    ) -> Option<Instant> {
        let suspects = leases.iter().filter(|lease| !lease.is_complete() && lease.actual_owner().is_some());
        suspects
            .filter_map(|lease| {
                let still = seen.suspected_for(lease, now)?;
                let limit = if self.is_fresh(lease) { rules.failover * 2 } else { rules.failover };
                (still <= limit).then(|| now + (limit - still) + Duration::from_millis(1))
            })
            .min()
    }
}

/// A leader that renews its lock but leaves a lease without a live owner for so many failover times does not
/// do its work. No worker can become leader in its place, so the operator has to know.
const NEGLECT: u32 = 12;

/// How many leases a member has seen without a live owner for as long.
pub fn neglected<'a>(
    leases: impl IntoIterator<Item = &'a Lease>,
    seen: &Observations,
    failover: Duration,
    now: Instant,
) -> usize {
    let stands =
        |lease: &&Lease| seen.stood_still(lease, now).is_some_and(|still| still > failover * NEGLECT);
    leases.into_iter().filter(|lease| !lease.is_complete()).filter(stands).count()
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
