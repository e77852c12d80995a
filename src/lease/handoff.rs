//! Hand-offs that their owner does not complete.
//!
//! A leader names the next owner of a lease; the present one finishes and lets go, within
//! `gracefulLeaseHandoffTimeoutMillis`. Java's workers up to 3.4.2 forget that where the shard waited for its
//! parents, or its consumer has ended: they renew the lease for ever and nobody reads the shard, as a leader of
//! theirs does not force it, and a fleet that went back to KCL 2 has no leader at all (`tests/interop/stalled.rs`). So whoever sees for twice the
//! time that it may take that neither owners nor checkpoint move treats the lease as abandoned. Its holder learns
//! of it as of any lost lease: by its next write. One that reads on, hand-off or not, moves the checkpoint and is
//! left alone.
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

/// What was seen of the hand-offs that are open.
#[derive(Debug, Clone, Default)]
pub struct HandOffs(BTreeMap<ShardId, (Open, Instant)>);

impl HandOffs {
    /// Notes a look at the whole table. What isn't there any more is forgotten.
    pub fn note(&mut self, leases: &[Lease], now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for lease in leases {
            if let Some(open) = Open::of(lease) {
                let since = before.remove(&lease.shard).filter(|(known, _)| *known == open);
                self.0.insert(lease.shard.clone(), (open, since.map_or(now, |(_, since)| since)));
            }
        }
    }

    /// Notes a look at one row.
    pub fn note_one(&mut self, lease: &Lease, now: Instant) {
        match Open::of(lease) {
            Some(open) if self.0.get(&lease.shard).is_some_and(|(known, _)| *known == open) => {}
            Some(open) => drop(self.0.insert(lease.shard.clone(), (open, now))),
            None => drop(self.0.remove(&lease.shard)),
        }
    }

    /// Forgets all but these.
    pub fn keep(&mut self, shards: &[ShardId]) {
        self.0.retain(|shard, _| shards.contains(shard));
    }

    /// Whether this worker is to be given a lease.
    pub fn is_named(&self, worker: &WorkerId) -> bool {
        self.0.values().any(|(open, _)| open.owner.as_ref() == Some(worker))
    }

    /// Whether the hand-off of this lease has stood for twice the time that it may take.
    pub fn is_stalled(&self, lease: &Lease, limits: Limits, now: Instant) -> bool {
        let same = |(open, _): &&(Open, Instant)| Open::of(lease).as_ref() == Some(open);
        let since = self.0.get(&lease.shard).filter(same).map(|(_, since)| *since);
        since.is_some_and(|since| now.saturating_duration_since(since) > limits.stalled())
    }

    /// All of those leases.
    pub fn stalled(&self, leases: &[Lease], limits: Limits, now: Instant) -> BTreeSet<ShardId> {
        let stalled = leases.iter().filter(|lease| self.is_stalled(lease, limits, now));
        stalled.map(|lease| lease.shard.clone()).collect()
    }
}

/// How long a hand-off may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `gracefulLeaseHandoffTimeoutMillis`.
    pub hand_off: Duration,
    /// `failoverTimeMillis`.
    pub failover: Duration,
}

impl Limits {
    /// Twice what it may take by the rules of Java's leader.
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
    fn one_that_nobody_completes_has_stalled_after_twice_its_time() {
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
    fn owners_or_a_checkpoint_that_move_begin_anew() {
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
