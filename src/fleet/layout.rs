//! One table or three. KCL before 3.5 keeps the leader's lock and the reports in tables of their own, and
//! where those exist they are used until every worker can do without.
//!
//! In KCL: `TableMigrationStateMachineImpl`, `TableMigrationStatusProvider`.

use super::rows::{Stage, StateLocation};

/// The progress of the table migration for this worker: the stored stage and its own configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// Three tables.
    Init,
    /// Three tables, ready to move.
    Deployed,
    /// The rows go to the lease table, the lock is still in the old one.
    Pending,
    /// One table.
    Complete,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Init => "three tables",
            Self::Deployed => "three tables, ready to migrate",
            Self::Pending => "three tables, migrating",
            Self::Complete => "single table",
        })
    }
}

/// `migrateAllEntitiesToLeaseTable` came too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "migrateAllEntitiesToLeaseTable = true is not possible yet: the leader has not set \
     TABLE_MIGRATION_STATUS_DEPLOYED (run every worker of the application without it first, for at least \
     an hour)"
)]
pub struct TooEarly;

impl Layout {
    /// At the start of a worker: `old` says whether the old table is there.
    ///
    /// # Errors
    /// [`TooEarly`] if `migrate` can't be done yet.
    pub fn at_start(old: bool, stored: Option<Stage>, migrate: bool) -> Result<Self, TooEarly> {
        match stored {
            None if !old => Ok(Self::Complete),
            None | Some(Stage::Init) if migrate => Err(TooEarly),
            stored => Ok(Self::of(stored, migrate)),
        }
    }

    fn of(stored: Option<Stage>, migrate: bool) -> Self {
        match stored {
            None | Some(Stage::Init) => Self::Init,
            Some(Stage::Deployed | Stage::Pending) => {
                if migrate {
                    Self::Pending
                } else {
                    Self::Deployed
                }
            }
            Some(Stage::Complete) => Self::Complete,
        }
    }

    /// The layout after the stored stage was read again. A complete one stays complete.
    #[must_use]
    pub fn after(self, stored: Option<Stage>, migrate: bool) -> Self {
        if self == Self::Complete { self } else { Self::of(stored, migrate) }
    }

    /// Where rows of the coordinator are looked for, in turn.
    pub fn reads(self) -> &'static [StateLocation] {
        match self {
            Self::Init | Self::Deployed | Self::Pending => &[StateLocation::Legacy, StateLocation::Leases],
            Self::Complete => &[StateLocation::Leases],
        }
    }

    /// Where they and the reports are written. Does not change while a worker runs.
    pub fn writes(self) -> StateLocation {
        match self {
            Self::Init | Self::Deployed => StateLocation::Legacy,
            Self::Pending | Self::Complete => StateLocation::Leases,
        }
    }

    /// Where the leader's lock is.
    pub fn lock(self) -> StateLocation {
        match self {
            Self::Init | Self::Deployed | Self::Pending => StateLocation::Legacy,
            Self::Complete => StateLocation::Leases,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_application_has_one_table_and_old_ones_three() {
        assert_eq!(Layout::at_start(false, None, false), Ok(Layout::Complete));
        assert_eq!(Layout::at_start(false, None, true), Ok(Layout::Complete));
        assert_eq!(Layout::at_start(true, None, false), Ok(Layout::Init));
        assert_eq!(Layout::at_start(true, None, true), Err(TooEarly));
        assert_eq!(Layout::at_start(true, Some(Stage::Init), true), Err(TooEarly));
        assert_eq!(Layout::at_start(true, Some(Stage::Deployed), true), Ok(Layout::Pending));
        assert_eq!(Layout::at_start(true, Some(Stage::Pending), false), Ok(Layout::Deployed));
        assert_eq!(Layout::at_start(true, Some(Stage::Complete), false), Ok(Layout::Complete));
    }

    #[test]
    fn complete_layout_stays_complete() {
        assert_eq!(Layout::Complete.after(Some(Stage::Pending), false), Layout::Complete);
        assert_eq!(Layout::Pending.after(Some(Stage::Complete), true), Layout::Complete);
        assert_eq!(Layout::Init.after(Some(Stage::Init), true), Layout::Init);
    }
}
