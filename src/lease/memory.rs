//! The lease table in memory, for tests of everything above it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::table::{Error, Found, Table};
use super::update::Update;
use super::{Lease, WorkerId};
use crate::shard::{BoxFuture, ShardId};

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
    rows: BTreeMap<ShardId, Lease>,
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
    pub fn row(&self, shard: &ShardId) -> Option<Lease> {
        self.state().rows.get(shard).cloned()
    }

    /// Puts a row, as another worker might have.
    pub fn put(&self, lease: Lease) {
        self.state().rows.insert(lease.shard.clone(), lease);
    }

    /// Deletes a row, as an operator does.
    pub fn remove(&self, shard: &ShardId) {
        self.state().rows.remove(shard);
    }

    /// Another worker takes the lease.
    pub fn steal(&self, shard: &ShardId, thief: &WorkerId) {
        if let Some(row) = self.state().rows.get_mut(shard) {
            super::update::take(&row.clone(), thief).apply(row);
        }
    }

    /// How many writes were carried out.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    fn write(&self, shard: &ShardId, update: &Update) -> Result<Lease, Error> {
        let mut state = self.state();
        if state.fault == Fault::Unavailable {
            return Err(Error::Unavailable("fault".into()));
        }
        let conflict = || Error::Conflict(shard.clone());
        let row = state.rows.get_mut(shard).filter(|row| update.holds(row)).ok_or_else(conflict)?;
        let before = row.clone();
        update.apply(row);
        state.writes += 1;
        match state.fault {
            Fault::None | Fault::Unavailable => Ok(before),
            Fault::LostAnswer => Err(Error::Ambiguous("fault".into())),
            Fault::Unreadable => Err(Error::Written {
                table: "memory".to_owned(),
                shard: shard.clone(),
                why: "fault".to_owned(),
            }),
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

    fn get<'a>(&'a self, shard: &'a ShardId) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        Box::pin(async move { Ok(self.row(shard)) })
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut state = self.state();
            if state.rows.contains_key(&lease.shard) {
                return Ok(false);
            }
            state.rows.insert(lease.shard.clone(), lease.clone());
            Ok(true)
        })
    }

    fn update<'a>(&'a self, shard: &'a ShardId, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move { self.write(shard, update) })
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<ShardId>, Error>> {
        Box::pin(async move {
            let state = self.state();
            let theirs = state.rows.values().filter(|lease| lease.owner.as_ref() == Some(worker));
            Ok(theirs.map(|lease| lease.shard.clone()).collect())
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

    fn delete<'a>(&'a self, shard: &'a ShardId) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut state = self.state();
            let finished = state.rows.get(shard).is_some_and(Lease::is_complete);
            Ok(finished && state.rows.remove(shard).is_some())
        })
    }
}
