//! What KCL 3 adds to leases: one worker leads and gives the leases out, by what each worker says of its
//! load; which generation of workers the fleet gets along with; in which tables all that is kept.
//!
//! Decisions and rows, no I/O. [`crate::membership`] plays this worker's part in it, the coordinator carries out
//! what a leader decides.
//!
//! | module | holds |
//! |---|---|
//! | [`rows`] | the rows beside the leases |
//! | [`store`] | the port to them |
//! | [`lock`] | who leads: the lock as its observers and its holder see it: pure |
//! | [`vacancy`] | nobody leads: from when on leases are shared without a leader: pure |
//! | [`report`] | what a worker says of its load, and how a leader judges it: pure |
//! | [`version`] | from KCL 2 to 3 and back: which part this worker plays: pure |
//! | [`layout`] | one table or three: pure |
//! | [`table_migration`] | from three tables to one, as a leader leads it: pure |
//! | [`leader`] | what a leader does with the leases it sees: pure |
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
    /// The same, after a roll-back: it is watched whether the fleet rolls forward.
    TwoX,
    /// The same, and load is reported, so that the fleet can go on to be led.
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
