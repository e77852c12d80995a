//! Which leases to take, and which to steal.
//!
//! The shares are those of KCL 2.x, so that workers of both kinds settle on one table: every worker
//! with a live lease, and the asker, counts; each may hold as many as an even share, rounded up. On
//! purpose different from Java:
//! * leases that nobody ever had are shared like any other. Java's first taker grabs all of them,
//!   past its share, and gives them up one steal at a time;
//! * the victim of a steal is drawn among all that hold more than their share, by how much more. In
//!   Java everyone steals from the one that holds most, which then has to steal back;
//! * a lease that is being handed over is left alone while its old owner is alive, unless that one doesn't let go;
//! * a shard that was read to its end needs no worker: it is neither counted nor taken. Java counts it until
//!   its row goes, so that open leases stay uneven as long; ours go sooner (`shard_sync`);
//! * a fleet that starts takes its leases in parts, so that its first worker doesn't get all of them; and who
//!   misses many leases steals several at once.
//!
//! In KCL: `DynamoDBLeaseTaker`, with the rules of its `computeLeasesToTake`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::liveness::has_expired;
use super::{Lease, LeaseKey, WorkerId};

/// A lease that expired this many failover times ago is acquired whatever the share.
const VERY_OLD: u32 = 3;

/// Free for such a part of a failover time, a lease is acquired whatever the share: the worker that it was meant for
/// doesn't come. Java's takers do so at once, and then nobody gets a share of what is new.
const FREE: u32 = 4;

/// Of many free leases no more than such a part is taken in one look, and no fewer than so many. When a fleet
/// starts, all its workers take their parts so, where Java's first takes everything.
const PORTION: usize = 4;
const AT_ONCE: usize = 16;
/// Of what is missing to the share, such a part may be stolen in one look, where that is more than
/// `maxLeasesToStealAtOneTime`.
const STOLEN: usize = 8;

/// The worker that plans, and its limits.
#[derive(Debug)]
pub struct Asker<'a> {
    /// The worker.
    pub me: &'a WorkerId,
    /// The leases that it holds.
    pub held: &'a BTreeSet<LeaseKey>,
    /// How long a lease stands still before it counts as abandoned.
    pub failover: Duration,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
    /// `maxLeasesToStealAtOneTime`.
    pub max_steals: usize,
    /// `enablePriorityLeaseAssignment`: leases that expired long ago are acquired whatever the share.
    pub priority: bool,
    /// Leases whose hand-off nobody completes ([`super::handoff`]): abandoned, though somebody renews them.
    pub stalled: &'a BTreeSet<LeaseKey>,
}

/// The planned acquisitions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan<'l> {
    /// Leases that nobody has, or whose owner is gone.
    pub take: Vec<&'l Lease>,
    /// Leases of live workers that hold more than their share.
    pub steal: Vec<&'l Lease>,
    /// There is more to take, and it should be looked for soon.
    pub more: bool,
}

impl<'a> Asker<'a> {
    /// The view of one scan. All decisions after a scan are based on it, so that the table is traversed once,
    /// however large it is.
    pub fn view(&'a self, leases: &'a [Lease], history: &'a History, now: Instant) -> View<'a> {
        let mut counts = BTreeMap::from([(self.me, 0)]);
        let mut available = Vec::new();
        let (mut open, mut busy) = (0, 0);
        for lease in leases.iter().filter(|lease| !lease.is_complete()) {
            open += 1;
            if self.held.contains(&lease.key) {
                busy += 1;
            } else if self.is_available(lease, history, now) {
                available.push(lease);
            } else if let Some(owner) = &lease.owner {
                *counts.entry(owner).or_default() += 1;
            }
        }
        // The row of what is held may be older than the holding.
        counts.insert(self.me, counts.get(self.me).copied().unwrap_or(0) + busy);
        let room = self.max_leases.saturating_sub(busy);
        View { asker: self, leases, history, now, counts, open, available, room }
    }

    /// Free, our own from before, or expired.
    fn is_available(&self, lease: &Lease, history: &History, now: Instant) -> bool {
        match (&lease.owner, &lease.checkpoint_owner) {
            (None, None) => true,
            (Some(owner), None) if owner == self.me => true,
            (_, Some(_)) if self.stalled.contains(&lease.key) => true,
            _ => has_expired(&lease.key, history, self.failover, now),
        }
    }
}

/// The open leases as one look shows them to a worker.
#[derive(Debug)]
pub struct View<'a> {
    asker: &'a Asker<'a>,
    leases: &'a [Lease],
    history: &'a History,
    now: Instant,
    /// Number of leases of each live worker, by the rows; the asker is always included.
    counts: BTreeMap<&'a WorkerId, usize>,
    open: usize,
    /// Not held by the asker, and nobody's, or the asker's from before, or abandoned.
    available: Vec<&'a Lease>,
    /// How many more may be held at all. A shard that was read to its end needs no worker.
    room: usize,
}

impl<'a> View<'a> {
    /// The worker that plans.
    pub fn asker(&self) -> &'a Asker<'a> {
        self.asker
    }

    /// Every lease, the finished ones too.
    pub fn leases(&self) -> &'a [Lease] {
        self.leases
    }

    /// How many leases are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many open leases each live worker has.
    pub fn counts(&self) -> &BTreeMap<&'a WorkerId, usize> {
        &self.counts
    }

    /// How many open leases the asker has.
    pub fn mine(&self) -> usize {
        self.counts.get(self.asker.me).copied().unwrap_or(0)
    }

    /// The workers whose leases move, the asker always among them.
    pub fn live(&self) -> BTreeSet<WorkerId> {
        self.counts.keys().copied().cloned().collect()
    }

    /// Plans the leases to acquire and to steal. `random` shuffles them, so that workers that plan at the
    /// same time choose different leases.
    pub fn plan(&self, random: &mut fastrand::Rng) -> Plan<'a> {
        // With more workers than leases the share is one lease.
        let share = self.open.div_ceil(self.counts.len()).max(1);
        let need = share.saturating_sub(self.mine()).min(self.room);
        if self.available.is_empty() {
            return Plan { steal: self.steals(share, need, random), ..Plan::default() };
        }
        // No lease is stolen in a round that finds leases to acquire.
        let Asker { me, failover, priority, stalled, .. } = *self.asker;
        let mut available = self.available.clone();
        random.shuffle(&mut available);
        let free = available.len();
        let must = |lease: &&Lease| {
            let old = if lease.owner.is_none() { failover / FREE } else { failover * VERY_OLD };
            // A lease that this worker owned before a restart, or that no other worker acquires.
            lease.owner.as_ref() == Some(me)
                || stalled.contains(&lease.key)
                || (priority && has_expired(&lease.key, self.history, old, self.now))
        };
        let (mut take, others): (Vec<&Lease>, Vec<&Lease>) = available.into_iter().partition(must);
        let missing = need.saturating_sub(take.len());
        take.extend(others.into_iter().take(missing));
        take.truncate(self.room);
        // This worker's former leases first; of the others a part, so that other workers that start now get
        // theirs.
        take.sort_by_key(|lease| lease.owner.as_ref() != Some(me));
        let own = take.iter().take_while(|lease| lease.owner.as_ref() == Some(me)).count();
        let most = own + (free / PORTION).max(AT_ONCE);
        let more = take.len() > most;
        take.truncate(most);
        Plan { take, steal: Vec::new(), more }
    }

    /// Steals from a worker with more than its share; or, if more than one lease is missing here, from one
    /// with exactly its share, so that no worker stays without leases.
    fn steals(&self, share: usize, need: usize, random: &mut fastrand::Rng) -> Vec<&'a Lease> {
        let Asker { me, held, max_steals, .. } = *self.asker;
        let may = |lease: &&Lease| {
            !held.contains(&lease.key) && !lease.is_complete() && lease.checkpoint_owner.is_none()
        };
        let over_share = self.counts.values().any(|count| *count > share);
        let surplus = |count: usize| match count {
            _ if count > share => count - share,
            // Workers with more than their share precede those with exactly their share.
            _ if count == share && need > 1 && share > 1 && !over_share => 1,
            _ => 0,
        };
        let victims: Vec<(&WorkerId, usize)> = self
            .counts
            .iter()
            .filter(|(owner, _)| **owner != me)
            .map(|(owner, count)| (*owner, surplus(*count)))
            .collect();
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
            self.leases.iter().filter(|lease| lease.owner.as_ref() == Some(victim)).filter(may).collect();
        random.shuffle(&mut theirs);
        // None where stealing is not allowed at all.
        let most = if max_steals == 0 { 0 } else { max_steals.max(need / STOLEN) };
        theirs.truncate(need.min(over).min(most));
        theirs
    }

    /// How much could be taken by anybody and is left out of this plan: no room here, or past the share.
    pub fn left(&self, plan: &Plan<'_>) -> usize {
        self.available.len() - plan.take.len()
    }

    /// When the next lease that stood still between the last two scans could turn out to be abandoned, if
    /// it could be taken.
    pub fn next_expiry(&self) -> Option<Instant> {
        if self.room == 0 {
            return None;
        }
        let open = self.leases.iter().filter(|lease| !lease.is_complete());
        let others = open.filter(|lease| !self.asker.held.contains(&lease.key));
        let expiry = |lease: &Lease| self.history.expires_at(&lease.key, self.asker.failover, self.now);
        others.filter_map(expiry).min()
    }
}

#[cfg(test)]
#[path = "take_tests.rs"]
mod tests;
