//! The memory of a leader about the lease assignment.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::event::Assignment;
use crate::fleet::leader::{How, Leader};
use crate::lease::{LeaseKey, WorkerId};

/// The lease assignment.
#[derive(Debug, Default)]
pub(super) struct Assigning {
    pub(super) leader: Leader,
    /// The scan that was last planned for.
    pub(super) planned: Option<Instant>,
    /// When a plan was last made, or one of its writes ended.
    pub(super) worked_at: Option<Instant>,
    /// The last scan was too old for a plan.
    pub(super) stale: bool,
    pub(super) waiting: VecDeque<Assignment>,
    pub(super) in_flight: BTreeMap<LeaseKey, (WorkerId, How)>,
    pub(super) round: Option<Round>,
    /// Leases that the leader has assigned to itself and did not hold at the last scan.
    pub(super) own: BTreeMap<LeaseKey, Instant>,
}

impl Assigning {
    /// When the leader last did its work. A scan alone is none.
    pub(super) fn worked_at(&self) -> Option<Instant> {
        self.worked_at
    }
}

/// One plan, while it is being written.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) began: Instant,
    /// Assignments, handoffs apart.
    pub(super) assigned: usize,
    pub(super) failed: usize,
    /// Assignments that failed, handoffs apart.
    pub(super) unassigned: usize,
    /// The table is to be scanned once all is written: this worker was assigned a lease, or a scan ended meanwhile.
    pub(super) scan: bool,
}
