//! The port to the lease table.
//!
//! Implementations: [`crate::aws`] with DynamoDB, [`super::memory`] for tests; one contract suite tests both
//! (`tests/contract`). In KCL: `LeaseRefresher`.

use std::time::Duration;

use super::update::Update;
use super::{Lease, LeaseKey, WorkerId};
use crate::shard::BoxFuture;
use crate::stream::Selection;

/// A failed request, distinguished by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// The condition did not hold: another worker was faster, or the row does not exist. This attempt wrote
    /// nothing, but an earlier attempt of the same request may have.
    #[error("the row of {0} was changed by another worker")]
    Conflict(LeaseKey),
    /// No answer, or an ambiguous one: the write may have been applied. Read the row back first.
    #[error("no response from DynamoDB, the write may have been applied: {0}")]
    Ambiguous(String),
    /// The request was throttled: retry later.
    #[error("DynamoDB throttled the request: {0}")]
    Throttled(String),
    /// The request was refused or the service is unreachable; nothing was written: retry later.
    #[error("cannot reach DynamoDB: {0}")]
    Unavailable(String),
    /// The table does not exist.
    #[error("the lease table {0} does not exist")]
    Missing(String),
    /// The request was refused permanently: access or validation.
    #[error("DynamoDB rejected the request: {0}")]
    Denied(String),
    /// The row exists but is not readable as a lease.
    #[error("table {table}: the row {key} cannot be read as a lease: {why}")]
    Unreadable {
        /// The table.
        table: String,
        /// The row's key.
        key: LeaseKey,
        /// The attribute and its value.
        why: String,
    },
    /// The write was applied, but the row could not be read as a lease before it: its other attributes are unknown.
    #[error("table {table}: the row {key} was written, but cannot be read as a lease: {why}")]
    Written {
        /// The table.
        table: String,
        /// The row's key.
        key: LeaseKey,
        /// The attribute and its value.
        why: String,
    },
    /// The table belongs to an application that reads several streams (`MultiStreamTracker`).
    #[error(
        "table {table} is the lease table of an application that reads several streams: its lease \
         {lease} names stream {stream} (set another tableName or applicationName)"
    )]
    SeveralStreams {
        /// The table.
        table: String,
        /// The key of a row.
        lease: String,
        /// The stream that the key names.
        stream: String,
    },
    /// The table belongs to an application that reads one stream.
    #[error(
        "table {table} is the lease table of an application that reads one stream: its lease {lease} names no \
         stream (set another tableName or applicationName)"
    )]
    OneStream {
        /// The table.
        table: String,
        /// The key of a row.
        lease: String,
    },
    /// The table exists but is no lease table.
    #[error(
        "table {table} is not a lease table: {found} (expected the single hash key leaseKey of type S; \
         set another tableName or applicationName)"
    )]
    Shape {
        /// The table.
        table: String,
        /// The key that it has instead.
        found: String,
    },
}

impl Error {
    /// Whether the table is not one of this application.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Shape { .. } | Self::SeveralStreams { .. } | Self::OneStream { .. })
    }

    /// Whether DynamoDB gave no answer, or failed itself: another request is likely to fail too.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Ambiguous(_) | Self::Unavailable(_))
    }
}

/// Whether a lease table holds the leases of one stream or of several. All workers of an application agree: a row of the
/// other kind belongs to another application. In KCL: single-stream and multi-stream mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// The keys are the ids of the shards. All that a KCL MultiLangDaemon supports.
    #[default]
    One,
    /// The keys begin with the identifier of the stream.
    Several,
}

impl Streams {
    /// The kind of table for the streams of `multilangd.streams`; for the only stream if none is selected.
    pub fn of(selection: &Selection) -> Self {
        if selection.is_empty() { Self::One } else { Self::Several }
    }
}

/// How [`Table::ensure`] found the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It did not exist, and this call created it.
    Created,
    /// It existed, and was created this long ago.
    Existed(Duration),
}

/// The lease table. Every request has a timeout of its own.
pub trait Table: Send + Sync {
    /// Creates the table as Java does if it does not exist, and waits until it is usable.
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>>;

    /// All leases, sorted by key; other rows are skipped. Eventually consistent.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>>;

    /// One lease, by a consistent read; none if the row does not exist or is no lease.
    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>>;

    /// Creates a row unless it exists. Returns whether it was created.
    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>>;

    /// Writes attributes under a condition. Returns the row as it was before the write.
    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>>;

    /// The shards whose rows name this worker as owner, including pending handoffs to it. Eventually
    /// consistent; uses the index of KCL 3 if it is usable.
    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>>;

    /// Whether the index of owners is usable. Creates it if `make` is set and it does not exist.
    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>>;

    /// Deletes the row of a finished shard, and no other. Returns whether there was one.
    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>>;

    /// Deletes the row of a lease of a former stream, in a table of several, and with it the checkpoint. Returns whether
    /// there was one.
    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>>;
}
