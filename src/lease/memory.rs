//! The lease table in memory, for tests of everything above it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::table::{Error, Found, Table};
use super::update::Update;
use super::{Lease, LeaseKey, WorkerId};
use crate::shard::BoxFuture;

/// The fault of the next writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing: answer as DynamoDB does.
    #[default]
    None,
    /// Don't write, answer that nobody can be reached.
    Unavailable,
    /// Write, but lose the answer.
    LostAnswer,
    /// Write, and answer that the row was not readable as a lease before.
    Unreadable,
    /// Write, lose the answer, and let the SDK's own retry see its own write: a conflict.
    Retried,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<LeaseKey, Lease>,
    fault: Fault,
    writes: u64,
    unindexed: bool,
    /// When [`Table::ensure`] was first called.
    created: Option<Instant>,
}

/// Rows in a map, one request at a time.
#[derive(Debug, Default)]
pub struct Memory(Mutex<State>);

impl Memory {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without the index of owners, and unable to make it.
    #[must_use]
    pub fn without_index(self) -> Self {
        self.state().unindexed = true;
        self
    }

    /// Sets what happens to writes from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// A row, as a test wants to see it.
    pub fn row(&self, key: &LeaseKey) -> Option<Lease> {
        self.state().rows.get(key).cloned()
    }

    /// Puts a row, as another worker might have.
    pub fn put(&self, lease: Lease) {
        self.state().rows.insert(lease.key.clone(), lease);
    }

    /// Deletes a row, as an operator does.
    pub fn remove(&self, key: &LeaseKey) {
        self.state().rows.remove(key);
    }

    /// Another worker takes the lease.
    pub fn steal(&self, key: &LeaseKey, thief: &WorkerId) {
        if let Some(row) = self.state().rows.get_mut(key) {
            super::update::take(&row.clone(), thief).apply(row);
        }
    }

    /// How many writes were carried out.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    fn write(&self, key: &LeaseKey, update: &Update) -> Result<Lease, Error> {
        let mut state = self.state();
        if state.fault == Fault::Unavailable {
            return Err(Error::Unavailable("fault".into()));
        }
        let conflict = || Error::Conflict(key.clone());
        let row = state.rows.get_mut(key).filter(|row| update.holds(row)).ok_or_else(conflict)?;
        let before = row.clone();
        update.apply(row);
        state.writes += 1;
        match state.fault {
            Fault::None | Fault::Unavailable => Ok(before),
            Fault::LostAnswer => Err(Error::Ambiguous("fault".into())),
            Fault::Unreadable => {
                Err(Error::Written { table: "memory".to_owned(), key: key.clone(), why: "fault".to_owned() })
            }
            Fault::Retried => Err(conflict()),
        }
    }
}

impl Table for Memory {
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
        let now = Instant::now();
        let before = self.state().created;
        self.state().created.get_or_insert(now);
        Box::pin(async move { Ok(before.map_or(Found::Created, |at| Found::Existed(now - at))) })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
        Box::pin(async { Ok(self.state().rows.values().cloned().collect()) })
    }

    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        Box::pin(async move { Ok(self.row(key)) })
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut state = self.state();
            if state.rows.contains_key(&lease.key) {
                return Ok(false);
            }
            state.rows.insert(lease.key.clone(), lease.clone());
            Ok(true)
        })
    }

    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move { self.write(key, update) })
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
        Box::pin(async move {
            let state = self.state();
            let theirs = state.rows.values().filter(|lease| lease.owner.as_ref() == Some(worker));
            Ok(theirs.map(|lease| lease.key.clone()).collect())
        })
    }

    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            match (self.state().unindexed, make) {
                (true, true) => Err(Error::Denied("dynamodb:UpdateTable".to_owned())),
                (unindexed, _) => Ok(!unindexed),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut state = self.state();
            let finished = state.rows.get(key).is_some_and(Lease::is_complete);
            Ok(finished && state.rows.remove(key).is_some())
        })
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { Ok(self.state().rows.remove(key).is_some()) })
    }
}
