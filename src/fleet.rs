//! The fleet of KCL 3: one worker is the leader and assigns the leases by the worker metrics of all; the KCL
//! versions that the fleet is compatible with; and the tables that store all of it.
//!
//! Decisions and rows, no I/O. [`crate::membership`] implements this worker's part, the leader's included.
//!
//! | module | holds |
//! |---|---|
//! | [`rows`] | the rows beside the leases |
//! | [`store`] | the ports to them |
//! | [`lock`] | the leader lock for its observers and its holder: pure |
//! | [`vacancy`] | a fleet without a leader: when leases are shared: pure |
//! | [`report`] | worker metrics, and how the leader judges them: pure |
//! | [`version`] | from KCL 2 to 3 and back: the mode of this worker: pure |
//! | [`layout`] | one table or three: pure |
//! | [`table_migration`] | the steps of the table migration, by the leader: pure |
//! | [`leader`] | the leader's decisions about leases: pure |
//! | [`memory`] | the rows in memory, for tests |
//!
//! In KCL: packages `coordinator`, `coordinator.migration`, `coordinator.assignment`, `worker.metricstats`.

pub mod layout;
pub mod leader;
pub mod lock;
pub mod memory;
pub mod report;
pub mod rows;
pub mod store;
pub mod table_migration;
pub mod vacancy;
pub mod version;

pub use store::Store;

/// How leases find their owners, as far as this worker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Every worker takes its share; nothing of KCL 3 is written. `CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1`.
    Phase1,
    /// As `Phase1`, after a rollback: this worker monitors whether the fleet rolls forward.
    TwoX,
    /// As `Phase1`, and worker metrics are reported, so that a leader can take over.
    Upgrade,
    /// A leader gives the leases out; the fleet can still go back.
    Revocable,
    /// A leader gives the leases out.
    ThreeX,
}

impl Mode {
    /// Whether a leader gives the leases out.
    pub fn is_led(self) -> bool {
        matches!(self, Self::Revocable | Self::ThreeX)
    }

    /// Whether this worker says how loaded it is.
    pub fn reports(self) -> bool {
        matches!(self, Self::Upgrade | Self::Revocable | Self::ThreeX)
    }

    /// Whether it can change while the worker runs.
    pub fn may_change(self) -> bool {
        matches!(self, Self::TwoX | Self::Upgrade | Self::Revocable)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Phase1 => "KCL 2.x (each worker takes its share)",
            Self::TwoX => "KCL 2.x (rolled back from 3.x)",
            Self::Upgrade => "KCL 2.x (upgrading to 3.x)",
            Self::Revocable => "KCL 3.x (leader-assigned, roll-back possible)",
            Self::ThreeX => "KCL 3.x (leader-assigned)",
        })
    }
}
