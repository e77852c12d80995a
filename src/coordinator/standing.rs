//! Where this worker stands in a fleet of KCL 3: the member shows it, the coordinator goes by it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::Expiry;
use crate::fleet::Mode;
use crate::fleet::report::Verdict;
use crate::fleet::vacancy::Unled;

/// Requests the members that may be assigned leases, by the present worker metrics.
pub type SuccessorQuery = oneshot::Sender<Arc<Verdict>>;

/// Where this worker stands in a fleet of KCL 3.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// How leases find their owners; none before that is known.
    pub mode: Option<Mode>,
    /// Until when this worker leads, if it is never heard of again.
    pub leads_until: Option<Expiry>,
    /// How leases find their owners while nobody leads; none while a leader assigns them.
    pub unled: Option<Unled>,
    /// Whether the lock shows a leader that lives.
    pub led: bool,
    /// The leader may be gone.
    pub suspect: bool,
    /// The leader is one of ours, which calls whoever it gives a lease to.
    pub led_by_ours: bool,
    /// The verdict on the worker metrics, as last read.
    pub verdict: Arc<Verdict>,
}

impl Standing {
    /// Whether a leader assigns the leases, as far as this worker knows.
    pub fn is_led(&self) -> bool {
        self.is_three_x() && self.unled.is_none()
    }

    /// Whether it is a fleet of KCL 3, whose leases a leader assigns as soon as there is one.
    pub fn is_three_x(&self) -> bool {
        self.mode.is_some_and(Mode::is_led)
    }

    /// Whether this worker is the leader.
    pub fn leads(&self, now: Instant) -> bool {
        self.leads_until.is_some_and(|until| now < until.instant())
    }
}
