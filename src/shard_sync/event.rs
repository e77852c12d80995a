//! The events and effects of the shard sync, its settings and its errors.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::coordinator::Snapshot;
use crate::lease::origin::Foreign;
use crate::lease::sync::{self, InitialPosition};
use crate::lease::update::Update;
use crate::lease::{Lease, LeaseKey, WorkerId, table};
use crate::metrics::{OfWorker, Sink};
use crate::reach::Reaches;
use crate::recognition::Identity;
use crate::sequence::SequenceNumber;
use crate::shard::{self, Filter, Shard, ShardId};
use crate::stream::StreamId;

/// Settings of the shard sync.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `workerId`.
    pub me: WorkerId,
    /// `initialPositionInStream`, `initialPositionInStreamExtended`.
    pub initial: InitialPosition,
    /// That of the first leases of the stream, where it is another one.
    pub first: Option<InitialPosition>,
    /// `ignoreUnexpectedChildShards`.
    pub ignore_unexpected_children: bool,
    /// `skipShardSyncAtWorkerInitializationIfLeasesExist`.
    pub skip_if_leases_exist: bool,
    /// `shardSyncIntervalMillis`: least time between listings of the stream's shards.
    pub sync_pause: Duration,
    /// Name of the stream.
    pub stream: String,
    /// Whether the stream is configured. One that is not, in a table of several streams, is looked after as long as it has
    /// leases.
    pub listed: bool,
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// Whether DynamoDB and Kinesis can be reached.
    pub reaches: Reaches,
    /// Receives events.
    pub sink: Arc<dyn Sink>,
}

/// Why leases could not be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lease table could not be used.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The stream could not be used.
    #[error(transparent)]
    Stream(#[from] shard::Error),
    /// The stream's shards are inconsistent now.
    #[error(transparent)]
    Shards(#[from] sync::Error),
    /// The lease table belongs to another stream.
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

/// The surroundings of an event.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The monotonic clock.
    pub now: Instant,
    /// A time that is past at AWS, in milliseconds since 1970 ([`crate::clock::ServiceClock::past`]).
    pub past: i64,
    /// The stream, as it is recognised.
    pub identity: Identity,
}

/// Why the shards of the stream are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// A lease has been finished for long: its shard may be past retention.
    Cleanup,
    /// Rows lack their hash keys.
    Ranges,
    /// The open shards are compared with the leases.
    Comparison,
    /// Leases are missing.
    Missing,
}

/// Why the lease table is compared with the identity of the stream, or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A consumer, or a scan, suspects another stream.
    Suspicion,
    /// An audit has found a row with an unexpected mark, or the identity is unknown.
    Audit,
    /// The open shards are about to be compared with the leases.
    Comparison,
}

/// The kinds of corrections of rows that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// The order to pause or resume the application.
    Orders,
    /// The hash keys of the shard.
    Ranges,
}

/// A row that cannot be right, and is reset to the oldest record of its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The row.
    pub lease: Lease,
    /// Its shard, as it is listed.
    pub shard: Shard,
    /// The stream with which it is marked.
    pub stream: StreamId,
}

/// The outcome of creating leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Made {
    /// Rows that this worker created.
    pub new: usize,
    /// Rows that another worker created first.
    pub there: usize,
    /// Items that exist and are no leases.
    pub occupied: usize,
}

/// The outcome of a comparison of the lease table with the identity of the stream.
#[derive(Debug)]
pub struct Compared {
    /// Rows of another stream, if there are any.
    pub foreign: Option<Foreign>,
    /// Whether leases of an earlier stream started over.
    pub started_over: Result<bool, Error>,
}

/// An event.
#[derive(Debug)]
pub enum Event {
    /// [`State::audit_due`](super::state::State::audit_due) is over. With the last scan of the lease table.
    AuditDue(Snapshot),
    /// A consumer or a scan suspects another stream.
    Suspected,
    /// [`State::suspicion_due`](super::state::State::suspicion_due) is over.
    SuspicionDue,
    /// Shards were listed.
    Listed(Listing, Result<Vec<Shard>, Error>),
    /// Leases of finished shards were deleted.
    Deleted(Result<(), Error>),
    /// The lease table was compared with the identity of the stream.
    IdentityCompared(Occasion, Compared),
    /// Rows were corrected: these, unless they had changed meanwhile.
    Corrected(Correction, Result<Vec<LeaseKey>, Error>),
    /// Rows that cannot be right were reset; whether there were any of this stream.
    Reset(Result<bool, Error>),
    /// The lease table was read.
    RowsRead(Occasion, Result<Vec<Lease>, Error>),
    /// Kinesis has verified sequence numbers. With the shards whose numbers it refused.
    NumbersVerified(Result<BTreeSet<ShardId>, Error>),
    /// Leases were created.
    Created(Result<Made, Error>),
}

/// An effect. Each except the last two is a request, whose outcome is the next event.
#[derive(Debug)]
pub enum Effect {
    /// Lists shards: [`Event::Listed`].
    List(Listing, Filter),
    /// Deletes the leases of finished shards: [`Event::Deleted`].
    Delete(Vec<LeaseKey>),
    /// Requests the identity of the stream and compares it with these leases: [`Event::IdentityCompared`].
    CompareIdentity(Occasion, Arc<Vec<Lease>>),
    /// Writes rows, unless they have changed: [`Event::Corrected`].
    Correct(Correction, Vec<(LeaseKey, Update)>),
    /// Resets rows, unless the stream has changed: [`Event::Reset`].
    Reset(Vec<Wrong>),
    /// Reads the lease table: [`Event::RowsRead`].
    ReadRows(Occasion),
    /// Verifies sequence numbers with Kinesis: [`Event::NumbersVerified`].
    VerifyNumbers(Vec<(ShardId, SequenceNumber)>),
    /// Creates leases, in this order: [`Event::Created`].
    Create(Vec<Lease>),
    /// Asks the coordinator to scan the lease table.
    Scan,
    /// A metric.
    Emit(OfWorker<'static>),
}
