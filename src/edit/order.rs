//! An order of an operator for one lease, and its write: pure.

use crate::lease::Lease;
use crate::lease::orders::{self, Park, Pause};
use crate::lease::update::{self, Update};

/// An order for one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Parks the shard.
    Park {
        /// The order.
        park: Park,
        /// Where reading at `LATEST` begins if it has not begun yet.
        latest_from: i64,
        /// Whether the lease is taken away from its owners too.
        takes: bool,
    },
    /// Ends that.
    Unpark,
    /// Pauses or resumes the application.
    Pause {
        /// The order.
        pause: Pause,
        /// Where reading at `LATEST` begins if it has not begun yet.
        latest_from: i64,
    },
}

impl Order {
    /// The write to a row.
    pub fn update(&self, row: &Lease) -> Update {
        match self {
            Self::Park { park, latest_from, takes } => {
                let mut update = orders::park(row, park, *latest_from);
                if *takes && has_owner(row) {
                    let taken = update::take_away(row);
                    update.requires.extend(taken.requires);
                    update.changes.extend(taken.changes);
                }
                update
            }
            Self::Unpark => orders::unpark(row),
            Self::Pause { pause, latest_from } => orders::pause(row, pause, *latest_from),
        }
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self, row: &Lease) -> bool {
        match self {
            Self::Park { takes, .. } => {
                row.is_complete() || row.park.is_some() && !(*takes && has_owner(row))
            }
            // A finished row that keeps a mark would be parked by it if a seek moved it back.
            Self::Unpark => row.park.is_none(),
            Self::Pause { pause, .. } => match &row.pause {
                // Another operator may have given a later order.
                Some(known) if known.covers(pause) => true,
                Some(_) => row.is_complete() && pause.is_on(),
                None => row.is_complete(),
            },
        }
    }

    /// The verb.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Park { .. } => "park",
            Self::Unpark => "unpark",
            Self::Pause { pause, .. } if pause.is_on() => "pause",
            Self::Pause { .. } => "resume",
        }
    }

    /// Whether it stops deliveries.
    pub fn stops(&self) -> bool {
        match self {
            Self::Park { .. } => true,
            Self::Unpark => false,
            Self::Pause { pause, .. } => pause.is_on(),
        }
    }
}

/// Whether a lease has an owner, or is handed off by one.
pub fn has_owner(lease: &Lease) -> bool {
    lease.owner.is_some() || lease.checkpoint_owner.is_some()
}
