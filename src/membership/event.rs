//! The events and effects of a member of the fleet.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Expiry;
use crate::coordinator::{Snapshot, Standing};
use crate::fleet::layout::Layout;
use crate::fleet::leader::How;
use crate::fleet::rows::{Dated, Generation, Lock, Report, Stage, StateLocation};
use crate::fleet::store::LockWrite;
use crate::fleet::table_migration::Step;
use crate::lease::update::Update;
use crate::lease::{Lease, LeaseKey, WorkerId, table};
use crate::metrics::OfWorker;

/// The clocks when an event is handled.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic clock.
    pub now: Instant,
    /// The wall clock, in milliseconds since 1970.
    pub wall: i64,
    /// How long this machine has been suspended ([`crate::clock::slept`]).
    pub slept: Duration,
}

/// The kinds of requests that are made again and again. At most one of each is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The next step of the leader election: the lock is read or written.
    Lock,
    /// The worker metrics of this worker are written.
    Report,
    /// The leader reads the worker metrics of all.
    Judge,
    /// The state of the fleet that other workers write is read.
    Monitor,
    /// The leader takes the next step of the table migration.
    TableMigration,
    /// The CPU utilisation is measured.
    Sample,
    /// The index of lease owners is created.
    Index,
    /// The leader asks for a scan: a lease expires, or a row turned out to have changed.
    Rescan,
}

impl Kind {
    /// Every kind, in the order in which requests that are due together begin.
    pub const ALL: [Self; 8] = [
        Self::Lock,
        Self::Report,
        Self::Judge,
        Self::Monitor,
        Self::TableMigration,
        Self::Index,
        Self::Sample,
        Self::Rescan,
    ];
}

/// The state that other workers write.
#[derive(Debug)]
pub struct Monitored {
    pub(super) generation: Option<Dated<Generation>>,
    pub(super) stage: Option<Stage>,
    pub(super) old: bool,
}

/// The inputs of a step of the table migration.
#[derive(Debug)]
pub struct Surveyed {
    pub(super) stage: Option<Dated<Stage>>,
    pub(super) old: Vec<Report>,
    pub(super) new: Vec<Report>,
    pub(super) left: Vec<String>,
}

/// An event.
#[derive(Debug)]
pub enum Event {
    /// This worker takes part from now on.
    Begin,
    /// [`State::due`](super::state::State::due) is over.
    Wake,
    /// A peer has nudged this worker: there may be a new leader, or a new worker.
    Nudged,
    /// The coordinator scanned the lease table.
    Scanned(Snapshot),
    /// The lock was read.
    LockRead(StateLocation, Result<Option<Lock>, table::Error>),
    /// The lock was written.
    LockWritten {
        /// Where.
        place: StateLocation,
        /// The action that a role must allow.
        action: &'static str,
        /// The outcome.
        outcome: Result<(), table::Error>,
        /// The stage of the table migration after the write, where the lock may be in the old table by mistake.
        stage: Option<Result<Option<Stage>, table::Error>>,
    },
    /// The worker metrics of this worker were written.
    Reported(Result<(), table::Error>),
    /// The worker metrics of all workers were read.
    Judged(Result<Vec<Report>, table::Error>),
    /// The state of the fleet was read.
    Monitored(Result<Monitored, table::Error>),
    /// Whether the index of lease owners is usable, and the worker metrics of all.
    Checked(Result<(bool, Vec<Report>), table::Error>),
    /// The next generation of the fleet was written.
    Advanced(Result<(), table::Error>),
    /// Whether the index of lease owners is usable.
    Indexed(Result<bool, table::Error>),
    /// The inputs of the next step of the table migration were read; with the time that it took.
    Surveyed(Result<Box<Surveyed>, table::Error>, Duration),
    /// A step of the table migration was taken.
    Migrated(Step, Result<(), table::Error>),
    /// The CPU utilisation can be measured, by the gauge of this name.
    GaugeFound(&'static str),
    /// The CPU utilisation in percent; none if it could not be measured.
    Sampled(Option<f64>),
    /// A request of that kind ended by a panic; none if it was none of them.
    Panicked(Option<Kind>),
    /// The write that assigns a lease ended.
    Assigned(LeaseKey, Result<(), table::Error>),
    /// The shutdown has begun.
    Stop,
}

/// A lease for a worker.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The row as it was scanned.
    pub lease: Lease,
    /// The write.
    pub update: Update,
    /// The next owner.
    pub to: WorkerId,
    /// How it becomes the owner.
    pub how: How,
    /// Until when this worker leads, for the last check right before the write.
    pub leads_until: Option<Expiry>,
}

/// An effect.
#[derive(Debug)]
pub enum Effect {
    /// Publishes the place of this worker in its fleet.
    Publish(Box<Standing>),
    /// Asks the coordinator to scan the lease table now.
    ScanNow,
    /// Asks the coordinator to nudge a worker soon: it was assigned a lease.
    NudgeSoon(WorkerId),
    /// Writes the next owner of a lease.
    Assign(Box<Assignment>),
    /// Looks for a way to measure the CPU utilisation.
    FindGauge,
    /// Measures it.
    Sample,
    /// Reads the lock.
    ReadLock(StateLocation),
    /// Writes the lock, and then reads the stage of the table migration, if that is asked for.
    WriteLock(StateLocation, LockWrite, bool),
    /// Releases the lock.
    ReleaseLock(StateLocation, LockWrite),
    /// Releases the lock as the first step of a shutdown.
    LastRelease(StateLocation, LockWrite),
    /// Writes the worker metrics of this worker.
    Report(StateLocation, Report),
    /// Reads the worker metrics of all workers.
    ReadReports(Layout),
    /// Deletes worker metrics, each unless it has changed.
    Sweep(Layout, Vec<(String, i64)>),
    /// Reads the state that other workers write.
    Monitor {
        /// Where.
        layout: Layout,
        /// Whether the generation of the fleet can change.
        changes: bool,
        /// Whether tables of an earlier version may appear.
        alone: bool,
    },
    /// Reads what shows whether all workers support KCL 3.x.
    Check(Layout),
    /// Writes the next generation of the fleet.
    Advance(Layout),
    /// Creates the index of lease owners.
    MakeIndex,
    /// Reads the inputs of the next step of the table migration.
    Survey,
    /// Takes that step.
    Migrate(Step, Box<Surveyed>),
    /// A metric.
    Emit(OfWorker<'static>),
}
