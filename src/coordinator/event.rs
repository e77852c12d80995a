//! The events and effects of the coordinator.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{Snapshot, Standing};
use crate::backoff::Backoff;
use crate::lease::held::Rival;
use crate::lease::history::History;
use crate::lease::update::Update;
use crate::lease::{Held, Lease, LeaseKey, WorkerId, table};
use crate::metrics::OfWorker;
use crate::shard::some;
use crate::stream::StreamIdentifier;

/// A lease that this worker holds, or held. The state only passes it on and compares it: a lease that was lost
/// and acquired again is another one.
pub trait Holding: Clone {
    /// The lease's key.
    fn key(&self) -> &LeaseKey;
    /// Whether both are the same, not only of the same key.
    fn is(&self, other: &Self) -> bool;
    /// Whether it is known why it was lost.
    fn is_settled(&self) -> bool;
}

impl Holding for Arc<Held> {
    fn key(&self) -> &LeaseKey {
        Held::key(self)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }

    fn is_settled(&self) -> bool {
        Held::is_settled(self)
    }
}

/// Why a request about a lease is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intent {
    /// This worker reads a lease that the index of lease owners lists.
    Read,
    /// This worker writes the row to acquire the lease.
    Acquire,
    /// This worker releases the lease.
    Release,
}

/// Work in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// The scan of the table, or the query of the index of lease owners.
    Look,
    /// A request about a lease.
    Lease(LeaseKey, Intent),
    /// A request whose result decides nothing: a nudge, the restoration of a row.
    Other,
}

/// An event.
#[derive(Debug)]
pub enum Event<H> {
    /// The scan ended.
    Scanned(Result<Vec<Lease>, table::Error>),
    /// The query of the index of lease owners ended: the leases whose rows name this worker.
    OwnedListed(Result<Vec<LeaseKey>, table::Error>),
    /// A lease that the index must list and does not was read.
    IndexChecked(Option<Lease>),
    /// A lease that the index lists was read; none if its row does not exist.
    RowRead(LeaseKey, Result<Option<Lease>, table::Error>),
    /// The write that acquires a lease ended. On success with the holding, and when the write began.
    Acquired(LeaseKey, Result<(H, Instant), table::Error>),
    /// The release of a lease ended; with the successor, if it has one.
    Released(LeaseKey, Option<WorkerId>),
    /// Renewing a lease ended: it is lost, or was released.
    RenewalEnded(H),
    /// The scheduler releases a lease.
    ReleaseOrdered(H),
    /// There may be leases to acquire.
    ScanOrdered,
    /// This worker has assigned a lease to that one.
    NudgeOrdered(WorkerId),
    /// The row of a finished shard is about to be deleted.
    ForgetOrdered(LeaseKey),
    /// The write of a peer showed that there is something to see in the table.
    Nudged,
    /// Another process writes under this worker's id.
    RivalMet(Rival),
    /// The place of this worker in its fleet changed.
    Standing(Standing),
    /// [`State::nudge_due`](super::state::State::nudge_due) is over.
    NudgeDue,
    /// [`State::scan_due`](super::state::State::scan_due) is over.
    ScanDue,
    /// This work ended by a panic.
    Panicked(Work),
    /// The shutdown has begun.
    Stop,
    /// No handle is left: the last leases are released.
    End,
    /// The table after they were released.
    LastScan(Vec<Lease>),
}

/// An effect.
#[derive(Debug)]
pub enum Effect<H> {
    /// Scans the table.
    Scan,
    /// Queries the index of lease owners.
    ListOwned,
    /// Reads a lease that the index must list and does not.
    CheckIndex(LeaseKey),
    /// Reads a lease that the index lists.
    Read(LeaseKey),
    /// Writes a row to acquire its lease.
    Acquire(LeaseKey, Update),
    /// Renews a lease from that time on, and tells the scheduler.
    Hold(H, Instant),
    /// The lease is lost in memory.
    MarkLost(H),
    /// Releases a lease.
    Release(H, Recipient),
    /// Releases a lease that was assigned to this worker and not acquired.
    PassOn(Box<Lease>, Recipient),
    /// Creates the row of a lost lease again if it is missing, with pauses.
    Restore(H, Backoff),
    /// Nudges the owners of these rows.
    Nudge(Vec<(LeaseKey, Update)>),
    /// Scans the table, and nudges these workers: all of them for none.
    NudgeOwners(Option<Vec<WorkerId>>),
    /// Tells the membership that a peer has nudged this worker.
    PassOnNudge,
    /// Publishes the result of a scan.
    Publish(Snapshot),
    /// Publishes since when this worker has been unable to acquire leases.
    PublishUnable(Option<Instant>),
    /// Says whether other workers could hold leases.
    NotePeers(bool),
    /// Rows of another stream were seen, under the name of this one.
    SuspectStream(Option<StreamIdentifier>),
    /// An older process has this worker's id.
    GiveWay(Rival),
    /// A metric.
    Emit(OfWorker<'static>),
    /// A log line.
    Log(Line),
}

/// The worker that a released lease is offered to.
#[derive(Debug, Clone)]
pub enum Recipient {
    /// None.
    Nobody,
    /// The other process with this worker's id.
    Namesake,
    /// The live worker with the fewest leases, by this history.
    Successor(Arc<History>),
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A peer has nudged this worker.
    Nudged,
    /// Peers are nudged by that many rows.
    Nudging(usize),
    /// A handoff took too long.
    StalledHandoff(LeaseKey, Option<WorkerId>),
    /// A lease that the index lists could not be read.
    CannotRead(LeaseKey, table::Error),
    /// A lease could not be acquired.
    NotAcquired(LeaseKey, table::Error),
    /// Leases were acquired; with the number of those held.
    Acquired(Vec<LeaseKey>, usize),
    /// The leader leaves this many leases without an owner.
    Neglected(usize),
    /// The table cannot be scanned.
    CannotScan(table::Error),
    /// It can be scanned again, after that time.
    ScansAgain(Duration),
    /// The index cannot be queried.
    CannotQuery(table::Error),
    /// The index lacks a lease.
    IndexLacks(LeaseKey),
    /// The index can be used again, after that time.
    QueriesAgain(Duration),
    /// Leases cannot be acquired.
    CannotAcquire(table::Error),
    /// They can be again, after that time.
    AcquiresAgain(Duration),
    /// A process that started later has this worker's id.
    LaterNamesake(LeaseKey, WorkerId),
    /// As [`Line::LaterNamesake`], logged before.
    LaterNamesakeAgain(LeaseKey, WorkerId),
    /// A process that does not mark its rows has this worker's id.
    UnmarkedNamesake(LeaseKey, WorkerId),
    /// The counter of a lease was incremented once under this worker's id.
    UnmarkedWrite(LeaseKey, WorkerId),
}

/// The index of lease owners.
const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

impl Line {
    /// Logs it.
    pub(super) fn log(self) {
        match self {
            Self::Nudged => debug!("received a nudge from another worker, checking the lease table"),
            Self::Nudging(leases) => debug!(leases, "nudging other workers"),
            Self::StalledHandoff(key, from) => {
                let from = from.as_ref().map(WorkerId::as_str);
                warn!(event = "handoff_timed_out", shard = %key, from, "graceful handoff timed out, acquiring the lease");
            }
            Self::CannotRead(key, error) => {
                debug!(shard = %key, %error, "failed to read a lease that was assigned to this worker");
            }
            Self::NotAcquired(key, error) => debug!(shard = %key, %error, "failed to acquire a lease"),
            Self::Acquired(keys, held) => {
                let (count, leases) = (keys.len(), if keys.len() == 1 { "lease" } else { "leases" });
                info!(event = "leases_acquired", held, shards = some(&keys), "acquired {count} {leases}");
            }
            Self::Neglected(left) => error!(
                event = "leases_without_owner",
                left,
                "the leader renews its lock, but {left} leases have had no live owner for minutes (no other worker \
                 can become the leader while its process runs: restart it; `multilangd leases` names it)"
            ),
            Self::CannotScan(error) => {
                warn!(event = "lease_listing_failed", %error, action = "dynamodb:Scan", "failed to list the leases")
            }
            Self::ScansAgain(lasted) => {
                info!(event = "lease_listing_recovered", ?lasted, "listing the leases works again")
            }
            Self::CannotQuery(error) => warn!(event = "owner_index_failed",
                %error,
                index = INDEX,
                action = "dynamodb:Query",
                "failed to query the index of lease owners, scanning the lease table instead (allow dynamodb:Query \
                 on the index, and check its capacity)"
            ),
            Self::IndexLacks(key) => warn!(event = "owner_index_incomplete",
                shard = %key,
                index = INDEX,
                "the index of lease owners lacks a lease of this worker, scanning the lease table instead"
            ),
            Self::QueriesAgain(lasted) => {
                info!(
                    event = "owner_index_recovered",
                    index = INDEX,
                    ?lasted,
                    "the index of lease owners works again"
                );
            }
            Self::CannotAcquire(error) => {
                warn!(event = "lease_acquisition_failed", %error, action = "dynamodb:UpdateItem", "failed to acquire leases");
            }
            Self::AcquiresAgain(lasted) => {
                info!(event = "lease_acquisition_recovered", ?lasted, "acquiring leases works again")
            }
            Self::LaterNamesake(key, worker) => error!(event = "worker_id_in_use",
                shard = %key, %worker,
                "another process that started later uses the same workerId: it acquired this lease and \
                 is expected to exit (set a different workerId for each process, or \
                 multilangd.workerIdSuffix)"
            ),
            Self::LaterNamesakeAgain(key, worker) => debug!(shard = %key, %worker,
                "another process with the same workerId, started later, acquired this lease"),
            Self::UnmarkedNamesake(key, worker) => error!(event = "worker_id_in_use",
                shard = %key, %worker,
                "another process, perhaps a Java worker, renews leases under the same workerId: records \
                 are delivered twice, or one of the two processes receives none (set a different \
                 workerId for each process, or multilangd.workerIdSuffix)"
            ),
            Self::UnmarkedWrite(key, worker) => debug!(shard = %key, %worker,
                "another process incremented the lease counter under this workerId"),
        }
    }
}
