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

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::{Lease, LeaseKey};

/// No leases.
pub static NONE: BTreeSet<LeaseKey> = BTreeSet::new();

/// Time limits of a handoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `gracefulLeaseHandoffTimeoutMillis`.
    pub hand_off: Duration,
    /// `failoverTimeMillis`.
    pub failover: Duration,
}

impl Limits {
    /// Whether a handoff that has made no progress for this long is stalled: for twice the time that the rules of
    /// Java's leader allow.
    pub fn are_exceeded(self, open_for: Duration) -> bool {
        open_for > (self.hand_off + self.failover) * 2
    }
}

/// The shards of all stalled handoffs.
pub fn stalled(leases: &[Lease], history: &History, limits: Limits, now: Instant) -> BTreeSet<LeaseKey> {
    let is_stalled =
        |lease: &&Lease| history.handoff_open_for(lease, now).is_some_and(|open| limits.are_exceeded(open));
    leases.iter().filter(is_stalled).map(|lease| lease.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    const LIMITS: Limits = Limits { hand_off: Duration::from_secs(30), failover: Duration::from_secs(10) };

    #[test]
    fn handoff_is_stalled_after_twice_its_time() {
        let range = HashRange { start: 0, end: 9 };
        let mut lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        (lease.owner, lease.checkpoint_owner) = (Some("next".into()), Some("present".into()));
        let (start, mut history) = (Instant::now(), History::default());
        for second in 0..=80 {
            let now = start + Duration::from_secs(second);
            lease.counter += 1;
            history.note_scan(std::slice::from_ref(&lease), now);
            assert_eq!(stalled(&[lease.clone()], &history, LIMITS, now), NONE, "after {second} s");
        }
        let now = start + Duration::from_secs(81);
        assert_eq!(stalled(&[lease.clone()], &history, LIMITS, now), BTreeSet::from(["s".into()]));
        history.note_row(&lease, now);
        assert_eq!(
            stalled(&[lease], &history, LIMITS, now).len(),
            1,
            "a read of the row alone says the same"
        );
    }
}
