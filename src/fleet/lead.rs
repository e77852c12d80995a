//! What a leader does with the leases it sees.
//!
//! What nobody has, or what stood still for a failover time, is given to somebody at once. What a live worker
//! has moves by a hand-off: its row names the next owner, while the present one reads on until it has finished
//! properly. A hand-off that is open is left alone; one that nobody completes ([`crate::lease::handoff`]) is given out
//! anew, where a leader of Java's merely protects it no longer.
//!
//! In KCL: `LeaseAssignmentManager`. On purpose different: the leases are looked at more often, so that what a
//! dead worker leaves is seen within half a failover time; a worker that comes new is given its part in the
//! next look instead of the third; what was assigned a moment ago gets twice the time for its first sign of
//! life, as a Java worker looks for new leases every ten seconds only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::assign::{self, Candidate, Member};
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

/// What the workers say of themselves.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'a> {
    /// Who may be given leases.
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

/// What a leader remembers between its looks.
#[derive(Debug, Default)]
pub struct Leader {
    past: BTreeMap<ShardId, Past>,
    hand_offs: HandOffs,
    members: BTreeSet<WorkerId>,
    balanced: Option<Instant>,
    /// Who let a lease expire and has moved none since. The report of a dead worker is fresh for a while, and as
    /// it has nothing it would be the first to be given something.
    late: BTreeMap<WorkerId, Late>,
    run: Run,
}

/// What is worth telling of the last plan.
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
    /// It has reported since, so it lives: a process that was started anew, most likely. That counts once: who
    /// reports and still moves nothing is stuck.
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

    /// What to do now. `seen` has noted these leases.
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
        let rules_of_plan = assign::Rules {
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
        let plan = assign::plan(&candidates, members, &rules_of_plan, random, || {
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
            // Who hasn't begun can't finish: later.
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

    /// Its owner has given no sign of life so far.
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

/// A leader that gives signs of life but leaves a lease without a live owner for so many failover times does not
/// do its work: nobody can take the lead from it, so somebody has to be told.
const NEGLECT: u32 = 12;

/// How many leases a member has seen without a live owner for as long.
pub fn neglected(leases: &[Lease], seen: &Observations, failover: Duration, now: Instant) -> usize {
    let stands = |lease: &Lease| seen.stood_still(lease, now).is_some_and(|still| still > failover * NEGLECT);
    leases.iter().filter(|lease| !lease.is_complete() && stands(lease)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            failover: SECOND * 10,
            threshold: 10.0,
            dampening: 60.0,
            overshoot: true,
            max_throughput: f64::MAX,
            max_leases: usize::MAX,
            balance_every: SECOND * 60,
            graceful: true,
            hand_off: SECOND * 30,
        }
    }

    fn lease(shard: &str, owner: Option<&str>) -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let mut lease =
            Lease::new(shard.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        lease.owner = owner.map(Into::into);
        lease
    }

    fn members(ids: &[&str]) -> Vec<Member> {
        ids.iter().map(|id| Member { id: (*id).into(), metrics: Vec::new() }).collect()
    }

    struct Table {
        leases: Vec<Lease>,
        seen: Observations,
        leader: Leader,
        signs: BTreeMap<WorkerId, Instant>,
    }

    impl Table {
        fn new(leases: Vec<Lease>) -> Self {
            Self { leases, seen: Observations::default(), leader: Leader::default(), signs: BTreeMap::new() }
        }

        /// What one look leads to: shard, next owner, how.
        fn look(&mut self, ids: &[&str], now: Instant) -> Vec<(String, String, How)> {
            self.seen.note(&self.leases, now);
            let mut random = fastrand::Rng::with_seed(1);
            let workers = Workers { members: &members(ids), signs: &self.signs };
            let orders = self.leader.plan(&self.leases, &self.seen, workers, &rules(), now, &mut random);
            let mut shown: Vec<_> =
                orders.iter().map(|o| (o.lease.shard.to_string(), o.to.to_string(), o.how)).collect();
            shown.sort_by(|a, b| a.0.cmp(&b.0));
            shown
        }
    }

    #[test]
    fn what_nobody_has_is_assigned_at_once_and_evenly() {
        let mut table = Table::new((0..4).map(|n| lease(&n.to_string(), None)).collect());
        let orders = table.look(&["a", "b"], Instant::now());
        assert!(orders.iter().all(|(_, _, how)| *how == How::Assign));
        assert_eq!(orders.iter().filter(|(_, to, _)| to == "a").count(), 2);
        assert_eq!(orders.len(), 4);
    }

    #[test]
    fn a_worker_that_comes_new_gets_its_part_by_hand_offs_at_the_next_look() {
        let start = Instant::now();
        let mut table = Table::new((0..4).map(|n| lease(&n.to_string(), Some("a"))).collect());
        assert_eq!(table.look(&["a"], start), []);
        let orders = table.look(&["a", "b"], start + SECOND * 5);
        assert_eq!(orders.len(), 2, "{orders:?}");
        assert!(orders.iter().all(|(_, to, how)| to == "b" && *how == How::HandOff));
    }

    #[test]
    fn what_stands_still_goes_to_another_and_a_new_owner_has_twice_the_time() {
        let start = Instant::now();
        let mut table = Table::new(vec![lease("0", Some("a")), lease("1", Some("b"))]);
        table.look(&["a", "b"], start);
        for step in 1..=2 {
            // Only b is alive.
            table.leases[1].counter += 1;
            if step == 1 {
                table.leases[0].counter += 1;
            }
            assert_eq!(table.look(&["a", "b"], start + SECOND * 5 * step), []);
        }
        table.leases[1].counter += 1;
        let orders = table.look(&["a", "b"], start + SECOND * 16);
        assert_eq!(orders, [("0".to_owned(), "b".to_owned(), How::Assign)]);
        // It is given to b, which says nothing for a while.
        table.leases[0].owner = Some("b".into());
        table.leases[0].counter += 1;
        for seconds in [18, 25, 35] {
            table.leases[1].counter += 1;
            assert_eq!(table.look(&["a", "b"], start + SECOND * seconds), [], "after {seconds} s");
        }
        table.leases[1].counter += 1;
        assert_eq!(table.look(&["a", "b"], start + SECOND * 39).len(), 1);
    }

    #[test]
    fn whom_a_lease_was_handed_over_to_has_twice_the_time_for_its_first_sign_of_life() {
        let start = Instant::now();
        let mut table = Table::new(vec![lease("0", Some("b")), lease("1", Some("a")), lease("2", Some("b"))]);
        table.leases[0].checkpoint_owner = Some("a".into());
        for second in [0, 5] {
            table.leases.iter_mut().for_each(|lease| lease.counter += 1);
            table.look(&["a", "b"], start + SECOND * second);
        }
        table.leases[0].checkpoint_owner = None;
        table.leases[0].counter += 1;
        for second in [10, 15, 20, 25, 30] {
            table.leases[1..].iter_mut().for_each(|lease| lease.counter += 1);
            assert_eq!(table.look(&["a", "b"], start + SECOND * second), [], "after {second} s");
        }
        table.leases[1..].iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * 31), [("0".into(), "a".into(), How::Assign)]);
    }

    #[test]
    fn the_dead_are_given_nothing_though_their_reports_are_fresh() {
        let start = Instant::now();
        let mut table = Table::new(vec![lease("0", Some("dead")), lease("1", Some("b"))]);
        table.look(&["b", "dead"], start);
        table.leases[0].counter += 1;
        for second in [5, 10] {
            table.leases[1].counter += 1;
            table.look(&["b", "dead"], start + SECOND * second);
        }
        table.leases[1].counter += 1;
        let orders = table.look(&["b", "dead"], start + SECOND * 16);
        assert_eq!(orders, [("0".to_owned(), "b".to_owned(), How::Assign)]);
        // Now it has nothing, and something is free.
        table.leases[0].owner = Some("b".into());
        table.leases.push(lease("2", None));
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        let orders = table.look(&["b", "dead"], start + SECOND * 20);
        assert_eq!(orders, [("2".to_owned(), "b".to_owned(), How::Assign)]);
        // It was not dead after all: it moves a lease.
        table.leases[1].owner = Some("dead".into());
        table.leases.push(lease("3", Some("b")));
        table.look(&["b", "dead"], start + SECOND * 21);
        table.leases[1].counter += 1;
        table.leases[2].counter += 1;
        let orders = table.look(&["b", "dead"], start + SECOND * 22);
        assert_eq!(orders, [("2".to_owned(), "dead".to_owned(), How::Assign)]);
    }

    #[test]
    fn who_reports_after_its_leases_expired_is_trusted_once() {
        let start = Instant::now();
        let mut table = Table::new(vec![lease("0", Some("a")), lease("1", Some("b"))]);
        table.look(&["a", "b"], start);
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        table.look(&["a", "b"], start + SECOND);
        // Only b goes on; a wrote its last report before its lease expired.
        table.signs.insert("a".into(), start + SECOND * 2);
        table.leases[1].counter += 1;
        assert_eq!(table.look(&["a", "b"], start + SECOND * 12), [("0".into(), "b".into(), How::Assign)]);
        table.leases[0].owner = Some("b".into());
        table.leases.push(lease("2", None));
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * 13), [("2".into(), "b".into(), How::Assign)]);
        // Started anew it reports, and is given what is free.
        table.signs.insert("a".into(), start + SECOND * 14);
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * 15), [("2".into(), "a".into(), How::Assign)]);
        // It does nothing with it, and reports on.
        table.leases[2].owner = Some("a".into());
        for second in [16, 20, 25, 30, 35] {
            table.leases[..2].iter_mut().for_each(|lease| lease.counter += 1);
            assert_eq!(table.look(&["a", "b"], start + SECOND * second), []);
        }
        table.signs.insert("a".into(), start + SECOND * 36);
        table.leases[..2].iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * 40), [("2".into(), "b".into(), How::Assign)]);
        table.signs.insert("a".into(), start + SECOND * 60);
        table.leases[2].owner = None;
        table.leases.iter_mut().for_each(|lease| lease.counter += 1);
        assert_eq!(table.look(&["a", "b"], start + SECOND * 61), [("2".into(), "b".into(), How::Assign)]);
    }

    #[test]
    fn an_open_hand_off_is_left_alone_until_its_owner_dies() {
        let start = Instant::now();
        let mut table = Table::new(vec![lease("0", Some("b")), lease("1", Some("a"))]);
        table.leases[0].checkpoint_owner = Some("a".into());
        for second in 0..30 {
            table.leases.iter_mut().for_each(|lease| lease.counter += 1);
            assert_eq!(table.look(&["a", "b"], start + SECOND * second), []);
        }
        let orders = table.look(&["b"], start + SECOND * 41);
        assert_eq!(orders.len(), 2, "{orders:?}");
        assert!(orders.iter().all(|(_, to, how)| to == "b" && *how == How::Assign));
    }

    #[test]
    fn a_hand_off_whose_owner_renews_for_ever_is_given_out_anew_after_twice_its_time() {
        let start = Instant::now();
        for named in ["b", "gone"] {
            let mut table = Table::new(vec![lease("0", Some(named)), lease("1", Some("a"))]);
            table.leases[0].checkpoint_owner = Some("a".into());
            for second in 0..=80 {
                table.leases.iter_mut().for_each(|lease| lease.counter += 1);
                assert_eq!(table.look(&["a", "b"], start + SECOND * second), [], "after {second} s");
            }
            table.leases.iter_mut().for_each(|lease| lease.counter += 1);
            let orders = table.look(&["a", "b"], start + SECOND * 81);
            assert_eq!(orders, [("0".to_owned(), "b".to_owned(), How::Assign)], "named: {named}");
        }
    }

    #[test]
    fn a_lease_that_a_live_leader_leaves_alone_for_long_is_noticed() {
        let start = Instant::now();
        let mut leases = vec![lease("0", None), lease("1", Some("a"))];
        let mut seen = Observations::default();
        for look in 0..=2 {
            leases[1].counter += 1;
            seen.note(&leases, start + SECOND * 60 * look);
        }
        assert_eq!(neglected(&leases, &seen, SECOND * 10, start + SECOND * 120), 0);
        assert_eq!(neglected(&leases, &seen, SECOND * 10, start + SECOND * 121), 1);
    }

    #[test]
    fn without_anybody_who_reports_nothing_moves() {
        let mut table = Table::new(vec![lease("0", None)]);
        assert_eq!(table.look(&[], Instant::now()), []);
    }
}
