//! The ports to the rows beside the leases.
//!
//! Implementations: [`crate::aws`] over DynamoDB, [`super::memory`] for tests; one contract suite runs on
//! both (`tests/contract`). Errors are those of the lease table: a condition that didn't hold is
//! [`Error::Conflict`], an answer that says nothing is [`Error::Ambiguous`].

use super::rows::{Dated, Generation, Lock, Report, Stage, StateLocation};
use crate::lease::WorkerId;
use crate::lease::table::Error;
use crate::shard::BoxFuture;

/// Over which row a lock is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Over {
    /// There is none.
    Nothing,
    /// One whose owner has let go of it.
    Released,
    /// One that stood still: with this version.
    Stale(String),
    /// One without a version.
    Broken,
}

/// A write on the lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LockWrite {
    /// It becomes this worker's.
    Acquire {
        /// The row.
        row: Lock,
        /// The state that the write requires.
        over: Over,
    },
    /// A heartbeat of its holder.
    Beat {
        /// The row, with a new version.
        row: Lock,
        /// The version it must have.
        was: String,
    },
    /// Its holder lets go: the row is deleted.
    Release {
        /// Its holder.
        owner: WorkerId,
        /// The version it must have.
        was: String,
    },
}

/// Which of the tables of KCL before 3.5 there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Legacy {
    /// `…-CoordinatorState`.
    pub state: bool,
    /// `…-WorkerMetricStats`.
    pub reports: bool,
}

/// The leader lock. In KCL: `AmazonDynamoDBLockClient`.
pub trait LeaderLock: Send + Sync {
    /// The lock.
    fn lock(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Lock>, Error>>;

    /// Writes the lock.
    fn write_lock<'a>(
        &'a self,
        place: StateLocation,
        write: &'a LockWrite,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

/// The KCL version that the fleet has come to. In KCL: `CoordinatorStateDAO`.
pub trait Generations: Send + Sync {
    /// The generation of the fleet. A row that can't be read is [`Error::Denied`].
    fn generation(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Dated<Generation>>, Error>>;

    /// Writes it over a row with this state, or over none.
    fn write_generation<'a>(
        &'a self,
        place: StateLocation,
        over: Option<Generation>,
        row: &'a Dated<Generation>,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

/// The worker metrics. In KCL: `WorkerMetricStatsDAO`.
pub trait Reports: Send + Sync {
    /// Makes the table of the reports of KCL before 3.5, where somebody has deleted it.
    fn make_reports(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// The worker metrics of all workers.
    fn reports(&self, place: StateLocation) -> BoxFuture<'_, Result<Vec<Report>, Error>>;

    /// Says what this worker does, whatever it said before.
    fn report<'a>(&'a self, place: StateLocation, report: &'a Report) -> BoxFuture<'a, Result<(), Error>>;

    /// Takes back a report if it is still the one of that time; says whether it was.
    fn retract<'a>(
        &'a self,
        place: StateLocation,
        worker: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool, Error>>;
}

/// The tables of earlier versions, and the migration into one. In KCL: `TableMigrationStateMachineImpl`.
pub trait TableMigration: Send + Sync {
    /// Which tables of earlier versions there are.
    fn legacy(&self) -> BoxFuture<'_, Result<Legacy, Error>>;

    /// How far the move into one table has come. Kept in the legacy table.
    fn stage(&self) -> BoxFuture<'_, Result<Option<Dated<Stage>>, Error>>;

    /// Writes it over a row with this stage, or over none.
    fn write_stage<'a>(
        &'a self,
        over: Option<Stage>,
        row: &'a Dated<Stage>,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Deletes it if it is the first stage.
    fn withdraw_stage(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// The names of the coordinator's rows in the legacy table, but for the lock and the stage.
    fn left(&self) -> BoxFuture<'_, Result<Vec<String>, Error>>;

    /// Moves these rows into the lease table, each as a whole, and only while `leader` holds the legacy lock.
    /// A row that cannot be moved safely is [`Error::Denied`].
    fn relocate<'a>(&'a self, leader: &'a WorkerId, names: &'a [String]) -> BoxFuture<'a, Result<(), Error>>;

    /// Writes the last stage to both tables at once, over [`Stage::Pending`] and while `leader` has the lock.
    fn finish<'a>(&'a self, leader: &'a WorkerId, row: &'a Dated<Stage>) -> BoxFuture<'a, Result<(), Error>>;
}

/// All rows beside the leases. Every request has a deadline of its own. Reads of single rows are consistent.
pub trait Store: LeaderLock + Generations + Reports + TableMigration {}

impl<T: LeaderLock + Generations + Reports + TableMigration> Store for T {}
