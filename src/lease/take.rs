//! Which leases to take, and which to steal.
//!
//! Workers' clocks are never compared. A worker that wants to know whether a lease is alive watches
//! its counter: if it stands still for a whole failover time *of the watcher*, counted from the scan
//! that first saw it, its owner is gone.
//!
//! The shares are those of KCL 2.x, so that workers of both kinds settle on one table: every worker
//! with a live lease, and the asker, counts; each may hold as many as an even share, rounded up. On
//! purpose different from Java:
//! * leases that nobody ever had are shared like any other. Java's first taker grabs all of them,
//!   past its share, and gives them up one steal at a time;
//! * the victim of a steal is drawn among all that hold more than their share, by how much more. In
//!   Java everyone steals from the one that holds most, which then has to steal back;
//! * a lease that is being handed over is left alone while its old owner is alive;
//! * a shard that was read to its end needs no worker: it is neither counted nor taken. Java counts it until
//!   its row goes, so that open leases stay uneven as long; ours go sooner (`upkeep`);
//! * a fleet that starts takes its leases in parts, so that its first worker doesn't get all of them; and who
//!   misses many leases steals several at once.
//!
//! In KCL: `DynamoDBLeaseTaker`. Rules D10 to D16 are those of its `computeLeasesToTake` in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Lease, WorkerId};
use crate::shard::ShardId;

/// Expired for so many failover times, a lease is taken whatever the share (D5, D13).
const VERY_OLD: u32 = 3;

/// Free for such a part of a failover time, a lease is taken whatever the share: whoever it was meant for
/// doesn't come. Java's takers do so at once, and then nobody gets a share of what is new.
const FREE: u32 = 4;

/// Of many free leases no more than such a part is taken in one look, and no fewer than so many. When a fleet
/// starts, all its workers take their parts so, where Java's first takes everything.
const PORTION: usize = 4;
const AT_ONCE: usize = 16;
/// Of what is missing to the share, such a part may be stolen in one look, where that is more than
/// `maxLeasesToStealAtOneTime`.
const STOLEN: usize = 8;

/// What a worker remembers of the leases between its scans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Observations {
    rows: BTreeMap<ShardId, Seen>,
    last: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    counter: i64,
    since: Instant,
}

impl Observations {
    /// Notes a scan that began at `scanned`. Leases that are gone are forgotten.
    pub fn note(&mut self, leases: &[Lease], scanned: Instant) {
        let mut now = BTreeMap::new();
        for lease in leases {
            let since = match self.rows.get(&lease.shard) {
                Some(seen) if seen.counter == lease.counter => seen.since,
                Some(_) | None => scanned,
            };
            now.insert(lease.shard.clone(), Seen { counter: lease.counter, since });
        }
        *self = Self { rows: now, last: Some(scanned) };
    }

    fn stood_still(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        self.rows.get(&lease.shard).map(|seen| now.saturating_duration_since(seen.since))
    }
}

/// Whether a leader of KCL 3 may be moving these leases: it weighs them by their load, and a steal by
/// count would undo what it does.
pub fn may_be_led(leases: &[Lease]) -> bool {
    leases.iter().any(|lease| lease.measured)
}

/// Who asks.
#[derive(Debug)]
pub struct Asker<'a> {
    /// The worker.
    pub me: &'a WorkerId,
    /// What it holds already.
    pub held: &'a BTreeSet<ShardId>,
    /// How long a lease stands still before it counts as abandoned.
    pub failover: Duration,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
    /// `maxLeasesToStealAtOneTime`.
    pub max_steals: usize,
    /// `enablePriorityLeaseAssignment`: what is very old is taken whatever the share.
    pub priority: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan<'l> {
    /// Leases that nobody has, or whose owner is gone.
    pub take: Vec<&'l Lease>,
    /// Leases of live workers that hold more than their share.
    pub steal: Vec<&'l Lease>,
    /// There is more to take, and it should be looked for soon.
    pub more: bool,
}

impl Asker<'_> {
    /// Free, our own from before, or abandoned. Strictly longer than the failover time, as in Java.
    fn is_available(&self, lease: &Lease, seen: &Observations, now: Instant) -> bool {
        if self.held.contains(&lease.shard) {
            return false;
        }
        match (&lease.owner, &lease.checkpoint_owner) {
            (None, None) => true,
            (Some(owner), None) if owner == self.me => true,
            _ => seen.stood_still(lease, now).is_some_and(|still| still > self.failover),
        }
    }

    /// How many open shards each live worker has, by the row; the asker is always among them (D10).
    pub(super) fn counts<'l>(
        &'l self,
        leases: &'l [Lease],
        seen: &Observations,
        now: Instant,
    ) -> BTreeMap<&'l WorkerId, usize> {
        let mut counts = BTreeMap::from([(self.me, 0)]);
        for lease in leases.iter().filter(|lease| !lease.is_complete()) {
            if self.held.contains(&lease.shard) {
                *counts.entry(self.me).or_default() += 1;
            } else if let (Some(owner), false) = (&lease.owner, self.is_available(lease, seen, now)) {
                *counts.entry(owner).or_default() += 1;
            }
        }
        counts
    }

    /// The workers whose leases move, the asker always among them.
    pub fn live(&self, leases: &[Lease], seen: &Observations, now: Instant) -> BTreeSet<WorkerId> {
        self.counts(leases, seen, now).into_keys().cloned().collect()
    }

    /// How many more leases may be held at all. A shard that was read to its end needs no worker.
    fn room(&self, leases: &[Lease]) -> usize {
        let busy = leases.iter().filter(|lease| self.held.contains(&lease.shard) && !lease.is_complete());
        self.max_leases.saturating_sub(busy.count())
    }

    /// What to take and to steal. `random` shuffles, so that workers that ask at the same time ask for
    /// different leases.
    pub fn plan<'l>(
        &self,
        leases: &'l [Lease],
        seen: &Observations,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Plan<'l> {
        let counts = self.counts(leases, seen, now);
        // D11: more workers than leases means one each.
        let all = leases.iter().filter(|lease| !lease.is_complete()).count();
        let share = all.div_ceil(counts.len()).max(1);
        let mine = counts.get(self.me).copied().unwrap_or(0);
        let room = self.room(leases);
        let need = share.saturating_sub(mine).min(room);
        let open = |lease: &&Lease| !lease.is_complete() && self.is_available(lease, seen, now);
        let mut available: Vec<&Lease> = leases.iter().filter(open).collect();
        if available.is_empty() {
            let steal = self.steals(leases, &counts, share, need, random);
            return Plan { steal, ..Plan::default() };
        }
        // D15: nothing is stolen in a round that finds leases to take.
        random.shuffle(&mut available);
        let free = available.len();
        let must = |lease: &&Lease| {
            let old = if lease.owner.is_none() { self.failover / FREE } else { self.failover * VERY_OLD };
            // What was ours before a restart; what nobody else cares for.
            lease.owner.as_ref() == Some(self.me)
                || (self.priority && seen.stood_still(lease, now).is_some_and(|still| still > old))
        };
        let (mut take, others): (Vec<&Lease>, Vec<&Lease>) = available.into_iter().partition(must);
        let missing = need.saturating_sub(take.len());
        take.extend(others.into_iter().take(missing));
        take.truncate(room);
        // What was ours first; of the rest so much that others who start now get their part.
        take.sort_by_key(|lease| lease.owner.as_ref() != Some(self.me));
        let own = take.iter().take_while(|lease| lease.owner.as_ref() == Some(self.me)).count();
        let most = own + (free / PORTION).max(AT_ONCE);
        let more = take.len() > most;
        take.truncate(most);
        Plan { take, steal: Vec::new(), more }
    }

    /// D16: from a worker over its share; or, if more than one is missing here, from one that has just
    /// its share, so that nobody stays without.
    fn steals<'l>(
        &self,
        leases: &'l [Lease],
        counts: &BTreeMap<&WorkerId, usize>,
        share: usize,
        need: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<&'l Lease> {
        let may = |lease: &&Lease| {
            !self.held.contains(&lease.shard) && !lease.is_complete() && lease.checkpoint_owner.is_none()
        };
        let surplus = |owner: &WorkerId| match counts.get(owner) {
            Some(count) if *count > share => count - share,
            Some(count) if *count == share && need > 1 && share > 1 => 1,
            _ => 0,
        };
        let mut victims: Vec<(&WorkerId, usize)> =
            counts.keys().filter(|owner| **owner != self.me).map(|owner| (*owner, surplus(owner))).collect();
        // Who is over the share comes before who has just it.
        if victims.iter().any(|(owner, _)| counts.get(owner).is_some_and(|count| *count > share)) {
            victims.retain(|(owner, _)| counts.get(owner).is_some_and(|count| *count > share));
        }
        let total: usize = victims.iter().map(|(_, surplus)| surplus).sum();
        if total == 0 || need == 0 {
            return Vec::new();
        }
        let mut draw = random.usize(0..total);
        let drawn = victims.into_iter().find(|(_, surplus)| {
            let found = draw < *surplus;
            draw = draw.saturating_sub(*surplus);
            found
        });
        let Some((victim, over)) = drawn else { return Vec::new() };
        let mut theirs: Vec<&Lease> =
            leases.iter().filter(|lease| lease.owner.as_ref() == Some(victim)).filter(may).collect();
        random.shuffle(&mut theirs);
        // None where stealing is not allowed at all.
        let most = if self.max_steals == 0 { 0 } else { self.max_steals.max(need / STOLEN) };
        theirs.truncate(need.min(over).min(most));
        theirs
    }

    /// What could be taken by anybody and is left out of this plan: no room here, or past the share.
    pub fn left<'l>(
        &self,
        leases: &'l [Lease],
        plan: &Plan<'_>,
        seen: &Observations,
        now: Instant,
    ) -> Vec<&'l Lease> {
        let free = leases.iter().filter(|lease| !lease.is_complete() && self.is_available(lease, seen, now));
        let taken: BTreeSet<&ShardId> = plan.take.iter().map(|lease| &lease.shard).collect();
        free.filter(|lease| !taken.contains(&lease.shard)).collect()
    }

    /// When the next lease that stood still between the last two scans could turn out to be abandoned, if
    /// it could be taken.
    pub fn next_expiry(&self, leases: &[Lease], seen: &Observations, now: Instant) -> Option<Instant> {
        if self.room(leases) == 0 {
            return None;
        }
        let others = leases.iter().filter(|lease| !lease.is_complete() && !self.held.contains(&lease.shard));
        let suspects = others
            .filter_map(|lease| seen.rows.get(&lease.shard))
            .filter(|row| seen.last.is_some_and(|last| row.since < last));
        let expiries = suspects.map(|row| row.since + self.failover + Duration::from_millis(1));
        expiries.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
#[path = "take_tests.rs"]
mod tests;
