//! A fleet without a leader: when workers share the leases among themselves.
//!
//! Pure. There is no leader while the leader lock is absent, released or expired; it is unknown whether there
//! is one while the lock cannot be read. After some failover times in either state leases are acquired as in
//! KCL 2.x, until a lock is fresh again. A KCL 3.x worker waits for a leader for ever.

use std::time::Duration;

use tokio::time::Instant;

/// Failover times without a leader before leases are shared: the workers that can become leader need that long.
const WAIT: u32 = 3;

/// How workers find their leases while nobody assigns them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unled {
    /// There is no leader: leases are shared, as in KCL 2.x.
    Vacant,
    /// It is unknown whether there is a leader: unowned and expired leases are acquired, and none is stolen.
    Unknown,
}

/// The state of the leader lock, as its reads have shown it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Vacancy {
    /// Since when every answer shows that nobody leads.
    vacant: Option<Instant>,
    /// Since when every read has failed.
    unreadable: Option<Instant>,
}

impl Vacancy {
    /// The lock was read; `vacant` if nobody leads, this worker included.
    pub fn read(&mut self, now: Instant, vacant: bool) {
        self.unreadable = None;
        self.vacant = vacant.then(|| self.vacant.unwrap_or(now));
    }

    /// The lock can't be read.
    pub fn unreadable(&mut self, now: Instant) {
        self.unreadable.get_or_insert(now);
    }

    /// This worker has written the lock, so there is a leader.
    pub fn leads(&mut self) {
        *self = Self::default();
    }

    /// How leases find their owners now; none while a leader assigns them.
    pub fn unled(&self, now: Instant, failover: Duration) -> Option<Unled> {
        let long = |since: Option<Instant>| since.is_some_and(|since| now >= since + failover * WAIT);
        match (long(self.vacant), self.unreadable.is_some(), long(self.unreadable)) {
            (_, _, true) | (true, true, _) => Some(Unled::Unknown),
            (true, false, _) => Some(Unled::Vacant),
            (false, _, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FAILOVER: Duration = Duration::from_secs(10);

    #[test]
    fn leases_are_shared_after_three_failover_times_without_leader() {
        let start = Instant::now();
        let mut vacancy = Vacancy::default();
        let unled = |vacancy: &Vacancy, second| vacancy.unled(start + SECOND * second, FAILOVER);
        assert_eq!(unled(&vacancy, 100), None, "nothing was read so far");
        vacancy.read(start, true);
        vacancy.read(start + SECOND * 20, true);
        assert_eq!((unled(&vacancy, 29), unled(&vacancy, 30)), (None, Some(Unled::Vacant)));
        vacancy.read(start + SECOND * 40, false);
        assert_eq!(unled(&vacancy, 40), None, "a lock is fresh");
        vacancy.read(start + SECOND * 41, true);
        assert_eq!((unled(&vacancy, 70), unled(&vacancy, 71)), (None, Some(Unled::Vacant)));
        vacancy.leads();
        assert_eq!(unled(&vacancy, 200), None);
    }

    #[test]
    fn nothing_is_stolen_while_the_lock_cannot_be_read() {
        let start = Instant::now();
        let mut vacancy = Vacancy::default();
        let unled = |vacancy: &Vacancy, second| vacancy.unled(start + SECOND * second, FAILOVER);
        vacancy.read(start, false);
        vacancy.unreadable(start + SECOND);
        vacancy.unreadable(start + SECOND * 9);
        assert_eq!((unled(&vacancy, 30), unled(&vacancy, 31)), (None, Some(Unled::Unknown)));
        vacancy.read(start + SECOND * 40, true);
        assert_eq!(unled(&vacancy, 41), None);
        vacancy.unreadable(start + SECOND * 75);
        assert_eq!(unled(&vacancy, 75), Some(Unled::Unknown), "somebody may lead since");
    }
}
