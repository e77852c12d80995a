//! Whether the index of lease owners can be trusted.
//!
//! Pure. A Query that fails is followed by a scan at once, and so is one whose answer lacks a lease that this worker
//! holds: the index lags then. Afterwards the table is scanned for some minutes before the index is asked again. A
//! worker that holds nothing can't check an answer, so it scans once per failover time.
//!
//! KCL's `DynamoDBLeaseDiscoverer` relies on the index alone.

use std::time::Duration;

use tokio::time::Instant;

use crate::lease::outage::Outage;
use crate::lease::table::Error;
use crate::reach::Reach;

/// An index that lags is not asked for so long.
const DISTRUST: Duration = Duration::from_secs(300);
/// An index is as far behind as this without anything being wrong.
pub(super) const SETTLED: Duration = Duration::from_secs(5);

/// The index as this worker knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnerIndex {
    outage: Outage,
    /// It is not asked before.
    distrusted: Option<Instant>,
    /// Its last failure was that it lagged.
    lagged: bool,
    /// The last scan of the whole table.
    scanned: Option<Instant>,
}

impl OwnerIndex {
    /// Whether to ask the index instead of scanning the table.
    pub(super) fn may_query(&self, now: Instant, holds: bool, failover: Duration) -> bool {
        let trusted = self.distrusted.is_none_or(|until| now >= until);
        trusted && (holds || self.scanned_within(failover, now))
    }

    /// Whether the whole table was scanned so recently.
    pub(super) fn scanned_within(&self, time: Duration, now: Instant) -> bool {
        self.scanned.is_some_and(|at| now < at + time)
    }

    /// Whether it is out of use now.
    pub(super) fn is_distrusted(&self, now: Instant) -> bool {
        self.distrusted.is_some_and(|until| now < until)
    }

    pub(super) fn scanned(&mut self, now: Instant) {
        self.scanned = Some(now);
    }

    /// The Query failed. Returns whether to log it.
    pub(super) fn failed(&mut self, now: Instant, error: &Error, failover: Duration, reach: &Reach) -> bool {
        let logged = self.outage.is_logged();
        let first = self.outage.failed(now, error, reach) && !logged;
        self.distrusted = Some(now + self.outage.pause(failover * 3, DISTRUST));
        self.lagged = false;
        first
    }

    /// The answer lacks a lease that this worker has held for [`SETTLED`]. Returns whether to log it.
    pub(super) fn lags(&mut self, now: Instant) -> bool {
        let first = !self.outage.is_logged();
        self.outage.logged(now);
        self.distrusted = Some(now + DISTRUST);
        self.lagged = true;
        first
    }

    /// The Query succeeded; `checked` if leases of this worker were in the answer. Returns how long the index was out
    /// of use, if that is to be logged.
    pub(super) fn answered(&mut self, now: Instant, checked: bool) -> Option<Duration> {
        if self.lagged && !checked {
            return None;
        }
        (self.distrusted, self.lagged) = (None, false);
        self.outage.worked(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FAILOVER: Duration = Duration::from_secs(10);

    #[test]
    fn worker_without_leases_scans_once_per_failover_time() {
        let now = Instant::now();
        let mut index = OwnerIndex::default();
        assert!(!index.may_query(now, false, FAILOVER), "nothing was scanned so far");
        assert!(index.may_query(now, true, FAILOVER));
        index.scanned(now);
        assert!(index.may_query(now + SECOND * 9, false, FAILOVER));
        assert!(!index.may_query(now + SECOND * 10, false, FAILOVER));
    }

    #[test]
    fn failing_index_is_queried_less_often_and_logged_once() {
        let mut now = Instant::now();
        let mut index = OwnerIndex::default();
        let mut logged = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..5 {
            logged.push(index.failed(now, &Error::Denied(String::new()), FAILOVER, &Reach::default()));
            let before = now;
            while !index.may_query(now, true, FAILOVER) {
                now += SECOND;
            }
            pauses.push((now - before).as_secs());
        }
        assert_eq!((pauses, logged), (vec![30, 60, 120, 240, 300], vec![true, false, false, false, false]));
        assert!(index.answered(now, false).is_some_and(|lasted| lasted > SECOND * 700));
        assert_eq!(index.answered(now, true), None, "logged once");
    }

    #[test]
    fn lagging_index_is_trusted_after_a_checked_answer() {
        let now = Instant::now();
        let mut index = OwnerIndex::default();
        assert!(index.lags(now) && index.is_distrusted(now + SECOND * 299));
        let now = now + SECOND * 300;
        assert!(index.may_query(now, true, FAILOVER));
        assert_eq!(index.answered(now, false), None);
        assert!(!index.lags(now), "logged once");
        assert!(index.answered(now + SECOND * 300, true).is_some());
    }
}
