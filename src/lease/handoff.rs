//! Graceful handoffs that the owner does not complete.
//!
//! The leader designates the next owner of a lease; the present owner finishes and releases it within
//! `gracefulLeaseHandoffTimeoutMillis`. Java's workers up to 3.4.2 forget the handoff if the shard waited for
//! its parents or its consumer has ended: they renew the lease for ever and no worker reads the shard,
//! because their leaders do not enforce it, and a fleet that went back to KCL 2 has no leader
//! (`tests/interop/stalled.rs`). So a worker that sees neither the owners nor the checkpoint change for twice
//! the allowed time treats the lease as expired. Its owner learns of that as of any lost lease: by its next
//! write. An owner that continues to read changes the checkpoint and is left alone.
//!
//! In KCL: `LeaseGracefulShutdownHandler`, whose gap this closes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Lease, WorkerId};
use crate::sequence::Position;
use crate::shard::ShardId;

/// No leases.
pub static NONE: BTreeSet<ShardId> = BTreeSet::new();

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    owner: Option<WorkerId>,
    checkpoint_owner: Option<WorkerId>,
    checkpoint: Position,
}

impl Open {
    fn of(lease: &Lease) -> Option<Self> {
        let is_open = lease.checkpoint_owner.is_some() && !lease.is_complete();
        is_open.then(|| Self {
            owner: lease.owner.clone(),
            checkpoint_owner: lease.checkpoint_owner.clone(),
            checkpoint: lease.checkpoint.clone(),
        })
    }
}

/// The pending handoffs, with the time since when each is unchanged.
#[derive(Debug, Clone, Default)]
pub struct HandOffs(BTreeMap<ShardId, (Open, Instant)>);

impl HandOffs {
    /// Notes a scan of the whole table. Handoffs that are no longer pending are removed.
    pub fn note(&mut self, leases: &[Lease], now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for lease in leases {
            if let Some(open) = Open::of(lease) {
                let since = before.remove(&lease.shard).filter(|(known, _)| *known == open);
                self.0.insert(lease.shard.clone(), (open, since.map_or(now, |(_, since)| since)));
            }
        }
    }

    /// Notes a read of one row.
    pub fn note_one(&mut self, lease: &Lease, now: Instant) {
        match Open::of(lease) {
            Some(open) if self.0.get(&lease.shard).is_some_and(|(known, _)| *known == open) => {}
            Some(open) => drop(self.0.insert(lease.shard.clone(), (open, now))),
            None => drop(self.0.remove(&lease.shard)),
        }
    }

    /// Removes all handoffs except for those of these shards.
    pub fn keep(&mut self, shards: &[ShardId]) {
        self.0.retain(|shard, _| shards.contains(shard));
    }

    /// Whether a pending handoff designates this worker.
    pub fn is_named(&self, worker: &WorkerId) -> bool {
        self.0.values().any(|(open, _)| open.owner.as_ref() == Some(worker))
    }

    /// Whether the handoff of this lease has been pending for twice the allowed time.
    pub fn is_stalled(&self, lease: &Lease, limits: Limits, now: Instant) -> bool {
        let same = |(open, _): &&(Open, Instant)| Open::of(lease).as_ref() == Some(open);
        let since = self.0.get(&lease.shard).filter(same).map(|(_, since)| *since);
        since.is_some_and(|since| now.saturating_duration_since(since) > limits.stalled())
    }

    /// The shards of all stalled handoffs.
    pub fn stalled(&self, leases: &[Lease], limits: Limits, now: Instant) -> BTreeSet<ShardId> {
        let stalled = leases.iter().filter(|lease| self.is_stalled(lease, limits, now));
        stalled.map(|lease| lease.shard.clone()).collect()
    }
}

/// Time limits of a handoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `gracefulLeaseHandoffTimeoutMillis`.
    pub hand_off: Duration,
    /// `failoverTimeMillis`.
    pub failover: Duration,
}

impl Limits {
    /// Twice the time that the rules of Java's leader allow.
    fn stalled(self) -> Duration {
        (self.hand_off + self.failover) * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Sequence;
    use crate::shard::HashRange;

    const LIMITS: Limits = Limits { hand_off: Duration::from_secs(30), failover: Duration::from_secs(10) };

    fn handed_off() -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let mut lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        (lease.owner, lease.checkpoint_owner) = (Some("next".into()), Some("present".into()));
        lease
    }

    #[test]
    fn handoff_is_stalled_after_twice_its_time() {
        let (start, mut open, mut lease) = (Instant::now(), HandOffs::default(), handed_off());
        for second in 0..=80 {
            let now = start + Duration::from_secs(second);
            lease.counter += 1;
            open.note(std::slice::from_ref(&lease), now);
            assert!(!open.is_stalled(&lease, LIMITS, now), "after {second} s");
        }
        let now = start + Duration::from_secs(81);
        assert_eq!(open.stalled(&[lease.clone()], LIMITS, now), BTreeSet::from(["s".into()]));
        open.note_one(&lease, now);
        assert!(open.is_stalled(&lease, LIMITS, now), "a look at the row alone says the same");
        open.keep(&[]);
        assert!(!open.is_stalled(&lease, LIMITS, now));
    }

    #[test]
    fn changed_owner_or_checkpoint_restarts_the_time() {
        type Change = fn(&mut Lease);
        let number = |lease: &mut Lease| lease.checkpoint = Position::new(Sequence::parse("7").unwrap());
        let changes: [Change; 4] = [
            |lease| lease.owner = Some("another".into()),
            |lease| lease.checkpoint_owner = None,
            |lease| lease.checkpoint_owner = Some("another".into()),
            number,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let (start, mut open, mut lease) = (Instant::now(), HandOffs::default(), handed_off());
            open.note(std::slice::from_ref(&lease), start);
            change(&mut lease);
            let late = start + Duration::from_secs(100);
            assert!(!open.is_stalled(&lease, LIMITS, late), "change {index}, not noted yet");
            open.note(std::slice::from_ref(&lease), late);
            assert!(!open.is_stalled(&lease, LIMITS, late), "change {index}");
        }
        let mut ended = handed_off();
        ended.checkpoint = Position::shard_end();
        let (start, mut open) = (Instant::now(), HandOffs::default());
        open.note(std::slice::from_ref(&ended), start);
        assert!(
            !open.is_stalled(&ended, LIMITS, start + Duration::from_secs(100)),
            "nobody needs it any more"
        );
    }
}
