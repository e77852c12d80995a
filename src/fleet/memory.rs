//! The rows beside the leases in memory, for tests of everything above them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::rows::{Dated, Generation, Lock, Report, Stage, StateLocation};
use super::store::{Generations, LeaderLock, Legacy, LockWrite, Over, Reports, TableMigration};
use crate::lease::WorkerId;
use crate::lease::table::Error;
use crate::shard::BoxFuture;

/// Everything there is.
#[derive(Debug, Default)]
pub struct Rows {
    /// Which tables of earlier versions there are.
    pub legacy: Legacy,
    /// Nothing is permitted on the tables of earlier versions.
    pub legacy_denied: bool,
    /// The lock.
    pub lock: BTreeMap<StateLocation, Lock>,
    /// The generation.
    pub generation: BTreeMap<StateLocation, Dated<Generation>>,
    /// The move into one table.
    pub stage: Option<Dated<Stage>>,
    /// The reports.
    pub reports: BTreeMap<(StateLocation, String), Report>,
}

impl Rows {
    fn is_there(&self, place: StateLocation) -> Result<(), Error> {
        match place {
            StateLocation::Legacy if !self.legacy.state => Err(Error::Missing("CoordinatorState".to_owned())),
            StateLocation::Legacy | StateLocation::Leases => Ok(()),
        }
    }

    /// As DynamoDB would.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition doesn't hold.
    pub fn write_lock(&mut self, place: StateLocation, write: &LockWrite) -> Result<(), Error> {
        self.is_there(place)?;
        let lock = self.lock.get(&place);
        let holds = match write {
            LockWrite::Acquire { over: Over::Nothing, .. } => lock.is_none(),
            LockWrite::Acquire { over: Over::Released, .. } => lock.is_some_and(|lock| lock.released),
            LockWrite::Acquire { over: Over::Stale(was), .. } => {
                lock.is_some_and(|lock| lock.version == *was)
            }
            LockWrite::Acquire { over: Over::Broken, .. } => lock.is_some_and(Lock::is_broken),
            LockWrite::Beat { row, was } => {
                lock.is_some_and(|lock| lock.version == *was && lock.owner == row.owner)
            }
            LockWrite::Release { owner, was } => {
                lock.is_some_and(|lock| lock.version == *was && lock.owner == *owner)
            }
        };
        if !holds {
            return Err(Error::Conflict("Leader".into()));
        }
        match write {
            LockWrite::Acquire { row, .. } | LockWrite::Beat { row, .. } => {
                self.lock.insert(place, row.clone());
            }
            LockWrite::Release { .. } => {
                self.lock.remove(&place);
            }
        }
        Ok(())
    }

    /// As DynamoDB would.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition doesn't hold.
    pub fn write_generation(
        &mut self,
        place: StateLocation,
        over: Option<Generation>,
        row: &Dated<Generation>,
    ) -> Result<(), Error> {
        self.is_there(place)?;
        if self.generation.get(&place).map(|row| row.now.state) != over {
            return Err(Error::Conflict("Migration3.0".into()));
        }
        self.generation.insert(place, row.clone());
        Ok(())
    }

    /// As DynamoDB would.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition doesn't hold.
    pub fn write_stage(&mut self, over: Option<Stage>, row: Option<&Dated<Stage>>) -> Result<(), Error> {
        self.is_there(StateLocation::Legacy)?;
        if self.stage.as_ref().map(|row| row.now.state) != over {
            return Err(Error::Conflict("TableMigration3.5".into()));
        }
        self.stage = row.cloned();
        Ok(())
    }

    fn is_leader(&self, leader: &WorkerId) -> Result<(), Error> {
        let leads = self.lock.get(&StateLocation::Legacy).is_some_and(|lock| lock.owner == *leader);
        if leads { Ok(()) } else { Err(Error::Conflict("Leader".into())) }
    }

    /// The generation is the only row that can be left.
    pub fn left(&self) -> Vec<String> {
        self.generation.get(&StateLocation::Legacy).map(|_| "Migration3.0".to_owned()).into_iter().collect()
    }

    /// As DynamoDB would.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody else has the lock.
    pub fn relocate(&mut self, leader: &WorkerId) -> Result<(), Error> {
        self.is_leader(leader)?;
        if let Some(row) = self.generation.remove(&StateLocation::Legacy) {
            self.generation.insert(StateLocation::Leases, row);
        }
        Ok(())
    }

    /// As DynamoDB would.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the condition doesn't hold.
    pub fn finish(&mut self, leader: &WorkerId, row: &Dated<Stage>) -> Result<(), Error> {
        self.is_leader(leader)?;
        self.write_stage(Some(Stage::Pending), Some(row))
    }

    /// As DynamoDB would.
    pub fn retract(&mut self, place: StateLocation, worker: &str, at: i64) -> bool {
        let key = (place, worker.to_owned());
        let found = self.reports.get(&key).is_some_and(|report| report.at == Some(at));
        found && self.reports.remove(&key).is_some()
    }

    /// Those of one place.
    pub fn reports_of(&self, place: StateLocation) -> Vec<Report> {
        self.reports.iter().filter(|((at, _), _)| *at == place).map(|(_, report)| report.clone()).collect()
    }
}

/// Rows in maps, one request at a time.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Rows>);

impl Memory {
    /// Everything, to look at and to change. Never held across an await.
    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaderLock for Memory {
    fn lock(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Lock>, Error>> {
        Box::pin(async move { Ok(self.rows().lock.get(&place).cloned()) })
    }

    fn write_lock<'a>(
        &'a self,
        place: StateLocation,
        write: &'a LockWrite,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.rows().write_lock(place, write) })
    }
}

impl Generations for Memory {
    fn generation(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Dated<Generation>>, Error>> {
        Box::pin(async move { Ok(self.rows().generation.get(&place).cloned()) })
    }

    fn write_generation<'a>(
        &'a self,
        place: StateLocation,
        over: Option<Generation>,
        row: &'a Dated<Generation>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.rows().write_generation(place, over, row) })
    }
}

impl Reports for Memory {
    fn make_reports(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.rows().legacy.reports = true;
            Ok(())
        })
    }

    fn reports(&self, place: StateLocation) -> BoxFuture<'_, Result<Vec<Report>, Error>> {
        Box::pin(async move { Ok(self.rows().reports_of(place)) })
    }

    fn report<'a>(&'a self, place: StateLocation, report: &'a Report) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.rows().reports.insert((place, report.worker.clone()), report.clone());
            Ok(())
        })
    }

    fn retract<'a>(
        &'a self,
        place: StateLocation,
        worker: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { Ok(self.rows().retract(place, worker, at)) })
    }
}

impl TableMigration for Memory {
    fn legacy(&self) -> BoxFuture<'_, Result<Legacy, Error>> {
        Box::pin(async {
            let rows = self.rows();
            if rows.legacy_denied {
                Err(Error::Denied("CoordinatorState".to_owned()))
            } else {
                Ok(rows.legacy)
            }
        })
    }

    fn stage(&self) -> BoxFuture<'_, Result<Option<Dated<Stage>>, Error>> {
        Box::pin(async { Ok(self.rows().stage.clone()) })
    }

    fn write_stage<'a>(
        &'a self,
        over: Option<Stage>,
        row: &'a Dated<Stage>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.rows().write_stage(over, Some(row)) })
    }

    fn withdraw_stage(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.rows().write_stage(Some(Stage::Init), None) })
    }

    fn left(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async { Ok(self.rows().left()) })
    }

    fn relocate<'a>(&'a self, leader: &'a WorkerId, _: &'a [String]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.rows().relocate(leader) })
    }

    fn finish<'a>(&'a self, leader: &'a WorkerId, row: &'a Dated<Stage>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.rows().finish(leader, row) })
    }
}
