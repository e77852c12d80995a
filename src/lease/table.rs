//! The port to the lease table.
//!
//! Implementations: [`crate::aws`] over DynamoDB, [`super::memory`] for tests; one contract suite
//! runs on both (`tests/contract`). In KCL: `LeaseRefresher`.

use super::update::Update;
use super::{Lease, WorkerId};
use crate::shard::{BoxFuture, ShardId};

/// What went wrong with a request, by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// The condition didn't hold: somebody else was faster, or the row is gone. Nothing was written
    /// by this attempt, though an earlier attempt of the same request may have been.
    #[error("the row of {0} was changed by another worker")]
    Conflict(ShardId),
    /// No answer, or one that says nothing: it may have been applied. Read back first.
    #[error("no response from DynamoDB, the write may have been applied: {0}")]
    Ambiguous(String),
    /// Refused for throughput: later.
    #[error("DynamoDB throttled the request: {0}")]
    Throttled(String),
    /// Refused or unreachable, nothing was written: later.
    #[error("cannot reach DynamoDB: {0}")]
    Unavailable(String),
    /// There is no such table.
    #[error("the lease table {0} does not exist")]
    Missing(String),
    /// Refused for good: access, validation.
    #[error("DynamoDB rejected the request: {0}")]
    Denied(String),
    /// There is a row, but it can't be read as a lease.
    #[error("table {table}: the row {shard} cannot be read as a lease: {why}")]
    Unreadable {
        /// The table.
        table: String,
        /// The row's key.
        shard: ShardId,
        /// The attribute and its value.
        why: String,
    },
    /// The table is one of an application that reads several streams (`MultiStreamTracker`).
    #[error(
        "table {table} is the lease table of an application that reads several streams: its lease \
         {lease} names stream {stream} (set another tableName or applicationName)"
    )]
    SeveralStreams {
        /// The table.
        table: String,
        /// The key of a row.
        lease: String,
        /// The stream that it names.
        stream: String,
    },
    /// The table exists but is no lease table.
    #[error(
        "table {table} is not a lease table: {found} (expected the single hash key leaseKey of type S; \
         set another tableName or applicationName)"
    )]
    Shape {
        /// The table.
        table: String,
        /// What it has instead.
        found: String,
    },
}

impl Error {
    /// Whether DynamoDB gave no answer, or failed itself: another request is likely to fail too.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Ambiguous(_) | Self::Unavailable(_))
    }
}

/// The lease table. Every request has a deadline of its own.
pub trait Table: Send + Sync {
    /// Creates the table as Java does if it is missing, and waits until it can be used.
    fn ensure(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Every lease, in the order of their keys; rows that aren't leases are skipped. Eventually
    /// consistent.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>>;

    /// One lease as it is now (consistent); none if there is no such row or it isn't a lease.
    fn get<'a>(&'a self, shard: &'a ShardId) -> BoxFuture<'a, Result<Option<Lease>, Error>>;

    /// Makes a row unless there is one; says whether it was made.
    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>>;

    /// Writes attributes under a condition. Gives the row as it was right before.
    fn update<'a>(&'a self, shard: &'a ShardId, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>>;

    /// The shards whose rows name this worker, hand-offs that are not its own yet included. Eventually
    /// consistent; by the index of KCL 3 where that can be used.
    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<ShardId>, Error>>;

    /// Whether the index of owners can be used; it is made if it is to be and is not there.
    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>>;

    /// Deletes the row of a shard that was read to its end, and no other; says whether there was one.
    fn delete<'a>(&'a self, shard: &'a ShardId) -> BoxFuture<'a, Result<bool, Error>>;
}
