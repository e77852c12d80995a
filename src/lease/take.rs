//! Which leases to take.
//!
//! Workers' clocks are never compared. A worker that wants to know whether a lease is alive watches
//! its counter: if it stands still for a whole failover time *of the watcher*, counted from the scan
//! that first saw it, its owner is gone.
//!
//! For now every lease that is free or has stood still is taken; sharing with other workers is the
//! next thing to be built here. In KCL: `DynamoDBLeaseTaker`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Lease, WorkerId};
use crate::shard::ShardId;

/// What a worker remembers of the leases between its scans.
#[derive(Debug, Default)]
pub struct Observations(BTreeMap<ShardId, Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    counter: i64,
    since: Instant,
}

impl Observations {
    /// Notes a scan that began at `scanned`. Leases that are gone are forgotten.
    pub fn note(&mut self, leases: &[Lease], scanned: Instant) {
        let mut now = BTreeMap::new();
        for lease in leases {
            let since = match self.0.get(&lease.shard) {
                Some(seen) if seen.counter == lease.counter => seen.since,
                Some(_) | None => scanned,
            };
            now.insert(lease.shard.clone(), Seen { counter: lease.counter, since });
        }
        self.0 = now;
    }

    fn stood_still(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        self.0.get(&lease.shard).map(|seen| now.saturating_duration_since(seen.since))
    }
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
}

impl Asker<'_> {
    /// Free, our own from before, or abandoned. Strictly longer than the failover time, as in Java.
    fn may_take(&self, lease: &Lease, seen: &Observations, now: Instant) -> bool {
        if self.held.contains(&lease.shard) {
            return false;
        }
        match (&lease.owner, &lease.checkpoint_owner) {
            (None, None) => true,
            (Some(owner), None) if owner == self.me => true,
            _ => seen.stood_still(lease, now).is_some_and(|still| still > self.failover),
        }
    }

    /// How many more leases may be held. A shard that was read to its end needs no worker.
    fn room(&self, leases: &[Lease]) -> usize {
        let busy = leases.iter().filter(|lease| self.held.contains(&lease.shard) && !lease.is_complete());
        self.max_leases.saturating_sub(busy.count())
    }

    /// The leases to take now, in the order of their keys.
    pub fn plan<'l>(&self, leases: &'l [Lease], seen: &Observations, now: Instant) -> Vec<&'l Lease> {
        let wanted = leases.iter().filter(|lease| !lease.is_complete() && self.may_take(lease, seen, now));
        wanted.take(self.room(leases)).collect()
    }

    /// When the next lease of somebody else could turn out to be abandoned, if it could be taken.
    pub fn next_expiry(&self, leases: &[Lease], seen: &Observations, now: Instant) -> Option<Instant> {
        if self.room(leases) == 0 {
            return None;
        }
        let others = leases.iter().filter(|lease| !lease.is_complete() && !self.held.contains(&lease.shard));
        let expiries = others.filter_map(|lease| seen.0.get(&lease.shard));
        let expiries = expiries.map(|seen| seen.since + self.failover + Duration::from_millis(1));
        expiries.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    const FAILOVER: Duration = Duration::from_secs(10);

    fn lease(shard: &str, owner: Option<&str>, counter: i64) -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let mut lease =
            Lease::new(shard.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        lease.owner = owner.map(Into::into);
        lease.counter = counter;
        lease
    }

    fn taken(
        leases: &[Lease],
        seen: &Observations,
        now: Instant,
        held: &[&str],
        max_leases: usize,
    ) -> Vec<String> {
        let held = held.iter().map(|id| ShardId::from(*id)).collect();
        let asker = Asker { me: &"me".into(), held: &held, failover: FAILOVER, max_leases };
        asker.plan(leases, seen, now).iter().map(|lease| lease.shard.to_string()).collect()
    }

    #[test]
    fn free_leases_and_own_ones_from_before_are_taken_at_once_others_when_they_stood_still() {
        let start = Instant::now();
        let mut leases = vec![
            lease("a", None, 0),
            lease("b", Some("me"), 7),
            lease("c", Some("x"), 3),
            lease("d", Some("y"), 1),
        ];
        let mut seen = Observations::default();
        seen.note(&leases, start);
        assert_eq!(taken(&leases, &seen, start, &[], 9), ["a", "b"]);
        leases[3].counter = 2;
        let later = start + FAILOVER;
        seen.note(&leases, later);
        assert_eq!(
            taken(&leases, &seen, later, &["a", "b"], 9),
            [""; 0],
            "exactly the failover time is not yet over"
        );
        let later = later + Duration::from_millis(1);
        assert_eq!(taken(&leases, &seen, later, &["a", "b"], 9), ["c"]);
    }

    #[test]
    fn a_lease_that_is_being_handed_to_us_is_left_to_its_old_owner_while_that_is_alive() {
        let start = Instant::now();
        let mut handing = lease("a", Some("me"), 1);
        handing.checkpoint_owner = Some("old".into());
        let mut seen = Observations::default();
        seen.note(std::slice::from_ref(&handing), start);
        assert_eq!(taken(std::slice::from_ref(&handing), &seen, start, &[], 9), [""; 0]);
    }

    #[test]
    fn no_more_than_the_limit_is_held() {
        let start = Instant::now();
        let leases =
            [lease("a", None, 0), lease("b", None, 0), lease("c", None, 0), lease("x", Some("me"), 1)];
        let seen = Observations::default();
        assert_eq!(taken(&leases, &seen, start, &["x"], 2), ["a"]);
    }

    #[test]
    fn finished_shards_take_no_room_and_are_not_taken() {
        let start = Instant::now();
        let mut leases = [lease("a", Some("me"), 1), lease("b", None, 0), lease("c", None, 0)];
        leases[0].checkpoint = Position::shard_end();
        leases[1].checkpoint = Position::shard_end();
        assert_eq!(taken(&leases, &Observations::default(), start, &["a"], 1), ["c"]);
    }

    #[test]
    fn the_next_look_is_for_the_next_that_can_expire_and_only_if_it_could_be_taken() {
        let start = Instant::now();
        let leases = [lease("a", Some("x"), 1), lease("b", Some("me"), 1)];
        let mut seen = Observations::default();
        seen.note(&leases, start);
        let held = ["b".into()].into();
        let asker = |max_leases| {
            Asker { me: &"me".into(), held: &held, failover: FAILOVER, max_leases }
                .next_expiry(&leases, &seen, start)
        };
        assert_eq!(asker(2), Some(start + FAILOVER + Duration::from_millis(1)));
        assert_eq!(asker(1), None);
    }
}
