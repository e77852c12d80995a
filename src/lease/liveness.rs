//! Which leases have expired, and which workers are live or dead.
//!
//! Workers never compare their clocks: a worker is live that is seen to increment the counter of a lease. The history of
//! the rows ([`History`]) knows since when a counter has not changed, by this worker's clock.
//!
//! | question | asked by | answer |
//! |---|---|---|
//! | has a lease expired? | a worker that acquires leases, and the leader | [`has_expired`]: unchanged for longer than the failover time |
//! | is a worker dead? | the shard sync, and the table migration | [`dead_workers`]: all its leases, finished ones included, unchanged for longer than twice the failover time |
//! | is a worker live, without a history? | a command of an operator | [`renewed_between`]: it renewed a lease between two scans |
//! | may a worker be assigned leases? | the leader | its worker metrics are fresh ([`crate::fleet::report::judge`]), and it has renewed a lease since it let one expire ([`crate::fleet::leader`]) |
//!
//! Pure. In KCL: `DynamoDBLeaseTaker.getExpiredLeases`, `LeaseAssignmentManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::{Lease, LeaseKey, WorkerId};

/// A worker that has renewed none of its leases for this many failover times is considered dead, unless it
/// was just assigned its first lease.
pub const DEAD_AFTER: u32 = 2;

/// Whether the counter of a lease has not changed for longer than `limit`, which is the failover time or a multiple of
/// it. Strictly longer, as in Java. A lease that was never read has not expired.
pub fn has_expired(key: &LeaseKey, history: &History, limit: Duration, now: Instant) -> bool {
    history.unchanged_for(key, now).is_some_and(|unchanged| unchanged > limit)
}

/// The owners whose leases, finished ones included, have all been unchanged for longer than [`DEAD_AFTER`] failover
/// times, except for workers that take part in a graceful handoff.
pub fn dead_workers(history: &History, failover: Duration, now: Instant) -> BTreeSet<WorkerId> {
    let is_unchanged = |since: Instant| now.saturating_duration_since(since) > failover * DEAD_AFTER;
    let live: BTreeSet<&WorkerId> = history
        .owners()
        .filter(|row| row.checkpoint_owner.is_some() || !is_unchanged(row.unchanged))
        .flat_map(|row| row.checkpoint_owner.into_iter().chain(row.owner))
        .collect();
    let owners = history.owners().filter_map(|row| row.owner);
    owners.filter(|owner| !live.contains(owner)).cloned().collect()
}

/// The owners that renewed at least one lease between two scans. The previous owner renews a lease during a handoff.
pub fn renewed_between(before: &[Lease], now: &[Lease]) -> BTreeSet<WorkerId> {
    let counters: BTreeMap<&LeaseKey, i64> = before.iter().map(|lease| (&lease.key, lease.counter)).collect();
    let moved = |lease: &&Lease| counters.get(&lease.key).is_none_or(|counter| *counter != lease.counter);
    now.iter().filter(moved).filter_map(|lease| lease.actual_owner().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(key: &str, owner: Option<&str>, counter: i64) -> Lease {
        let at = Position::new(Sequence::TrimHorizon);
        let lease = Lease::new(key.into(), at, BTreeSet::new(), HashRange { start: 0, end: 9 });
        Lease { owner: owner.map(Into::into), counter, ..lease }
    }

    #[test]
    fn lease_expires_only_after_the_whole_limit() {
        let (start, mut history) = (Instant::now(), History::default());
        history.note_row(&lease("a", Some("w"), 1), start);
        let has_expired = |key: &str, seconds: u32| {
            super::has_expired(&key.into(), &history, SECOND * 10, start + SECOND * seconds)
        };
        assert!(!has_expired("a", 10) && has_expired("a", 11));
        assert!(!has_expired("never-read", 1_000));
    }

    #[test]
    fn worker_without_renewals_is_considered_dead() {
        let (start, failover) = (Instant::now(), SECOND * 5);
        let mut leases =
            vec![lease("a", Some("dead"), 1), lease("b", Some("alive"), 1), lease("c", Some("alive"), 1)];
        leases[0].checkpoint = Position::shard_end();
        // The lease was not handed off to the new worker yet.
        leases.push(lease("d", Some("new"), 1));
        leases[3].checkpoint_owner = Some("alive".into());
        let mut history = History::default();
        history.note_scan(&leases, start);
        assert!(dead_workers(&history, failover, start + failover * DEAD_AFTER).is_empty());
        let later = start + failover * DEAD_AFTER + Duration::from_millis(1);
        leases[1].counter += 1;
        history.note_scan(&leases, later);
        assert_eq!(dead_workers(&history, failover, later), BTreeSet::from(["dead".into()]));
    }

    #[test]
    fn owner_is_live_if_any_of_its_leases_is_renewed() {
        let before = [lease("0", Some("a"), 7), lease("1", Some("a"), 7), lease("2", Some("b"), 7)];
        let mut now = before.clone();
        now[0].counter += 1;
        assert_eq!(renewed_between(&before, &now), BTreeSet::from(["a".into()]));
        let created = renewed_between(&before[..2], &before);
        assert_eq!(created, BTreeSet::from(["b".into()]), "a row that was just created");
    }
}
