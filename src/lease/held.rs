//! The proof that this worker owns a lease.
//!
//! A lease can be renewed, checkpointed or released only through its [`Held`], and a [`Held`] that was lost
//! is inert: every call returns [`Error::Lost`] and nothing is sent. It is lost
//!
//! * when the row names another owner,
//! * when no write of this worker succeeded for a whole failover time on the local monotonic clock: from then
//!   on other workers may acquire the lease, so no more records are delivered, whatever the table says later.
//!
//! The period of the proof starts *before* the write that succeeded, so that no observer can measure a
//! shorter one. Writes of one lease are sent one after the other; those of different leases do not wait for
//! each other.
//!
//! In KCL: the authoritative leases within `DynamoDBLeaseRenewer`. Different on purpose: an ambiguous answer
//! is always followed by a consistent read, for checkpoints too, and reading the state never waits for a
//! request in progress. The meaning of an answer is decided in [`super::holding`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::holding::{Holding, Intent, Step};
use super::meter::Meter;
use super::orders::{Parking, Pause};
use super::table::{self, Table};
use super::update::{self, Next};
use super::{Lease, LeaseKey, ProcessId, WorkerId};
use crate::clock::{self, Expiry};
use crate::recognition::Recognitions;
use crate::sequence::Position;
use crate::shard::{self, ShardId};
use crate::stream::StreamId;

/// Why a write on a held lease didn't happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease is not ours any more. Final.
    #[error("this worker no longer holds the lease")]
    Lost,
    /// The row is further than that: a write whose answer was lost had been applied after all.
    #[error("the stored checkpoint {0} is ahead")]
    Behind(Position),
    /// Still ours; the write did not happen, or it isn't known whether it did.
    #[error(transparent)]
    Table(#[from] table::Error),
}

/// The part that all leases of a worker share.
#[derive(Clone)]
pub struct Owner {
    /// The worker.
    pub me: WorkerId,
    /// Where its leases are.
    pub table: Arc<dyn Table>,
    /// How long a lease lasts without a renewal.
    pub failover: Duration,
    /// Notified when a row shows a nudge of a peer.
    pub nudged: Arc<Notify>,
    /// This process, as it marks the rows that it acquires.
    pub process: ProcessId,
    /// Notified when a row shows that another process writes under this worker id.
    pub rivals: mpsc::Sender<Rival>,
    /// Whether a shard whose row somebody has deleted is still there.
    pub recognitions: Recognitions,
}

/// Another process that writes under this worker's id: the one that the row is marked with, if it is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The lease that it has written.
    pub key: LeaseKey,
    /// The process; none where the row is not marked by it, as with a Java worker.
    pub process: Option<ProcessId>,
}

/// A lease of ours.
pub struct Held {
    key: LeaseKey,
    owner: Owner,
    /// Held across requests: this is what puts the writes of one lease in a row.
    holding: tokio::sync::Mutex<Holding>,
    /// As the holding has it, readable while a request is under way. Never held across an await.
    expires: Mutex<Expiry>,
    lost: CancellationToken,
    /// Cancelled once a leader wants another worker to have the lease.
    wanted: CancellationToken,
    /// The order of an operator by which the shard is parked, as the row had it last.
    orders: watch::Sender<Option<Parking>>,
    meter: Mutex<Meter>,
    /// It is known why the lease is over: another worker has it, its shard is gone, or this worker has released it.
    settled: AtomicBool,
    /// The row when the lease became ours.
    initial: Lease,
    /// Where an earlier owner began to read at `LATEST`.
    latest_from: Option<i64>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("shard", &self.key).field("lost", &self.lost.is_cancelled()).finish()
    }
}

impl Held {
    /// A lease whose row was written by us in a request that began at `proven`; `slept` is [`clock::slept`] at that time,
    /// because a suspension during the request shortens the lease too.
    pub fn new(lease: Lease, proven: Instant, slept: Duration, owner: &Owner) -> Arc<Self> {
        Self::resuming(lease, None, proven, slept, owner)
    }

    /// A lease as from [`Self::new`], where `latest_from` is [`Lease::latest_from`] of the row before.
    pub fn resuming(
        lease: Lease,
        latest_from: Option<i64>,
        proven: Instant,
        slept: Duration,
        owner: &Owner,
    ) -> Arc<Self> {
        let Owner { me, failover, .. } = owner;
        Arc::new(Self {
            key: lease.key.clone(),
            expires: Mutex::new(Expiry::new(proven + *failover, slept)),
            lost: CancellationToken::new(),
            wanted: CancellationToken::new(),
            orders: watch::Sender::new(lease.parking()),
            meter: Mutex::new(Meter::new(proven, lease.throughput)),
            settled: AtomicBool::new(false),
            initial: lease.clone(),
            latest_from,
            holding: tokio::sync::Mutex::new(Holding::new(lease, me.clone(), proven, *failover)),
            owner: owner.clone(),
        })
    }

    /// The lease's key.
    pub fn key(&self) -> &LeaseKey {
        &self.key
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        self.key.shard()
    }

    /// The row as it was when the lease became ours.
    pub fn initial(&self) -> &Lease {
        &self.initial
    }

    /// Where an earlier owner began to read at `LATEST`, in milliseconds since 1970; none if this one is the first.
    pub fn latest_from(&self) -> Option<i64> {
        self.latest_from
    }

    /// The parents of the shard as the row names them now.
    pub async fn parents(&self) -> BTreeSet<ShardId> {
        self.holding.lock().await.row().parents.clone()
    }

    /// Cancelled once the lease is lost.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Cancelled once a leader has named the worker that is to have the lease next. This one keeps it until
    /// it is released, or lost.
    pub fn wanted(&self) -> &CancellationToken {
        &self.wanted
    }

    /// The order of an operator by which the shard is parked; none if it is not. Each write of this worker reads it, so it
    /// is known within the failover time, or the lease is lost.
    pub fn orders(&self) -> watch::Receiver<Option<Parking>> {
        self.orders.subscribe()
    }

    /// The last order for the whole application that the row has received.
    pub async fn pause(&self) -> Option<Pause> {
        self.holding.lock().await.row().pause.clone()
    }

    /// Counts bytes delivered to the record processor.
    pub fn count(&self, bytes: usize) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).count(bytes);
    }

    /// When the lease expires for us unless it is renewed.
    pub fn expires(&self) -> Instant {
        self.expiry().instant()
    }

    fn expiry(&self) -> Expiry {
        *self.expires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the last write began that is known to have happened.
    pub fn proven(&self) -> Instant {
        self.expiry().awake() - self.owner.failover
    }

    /// Whether records may be handed out and progress be stored. Doesn't wait for anything.
    pub fn is_live(&self, now: Instant) -> bool {
        !self.lost.is_cancelled() && now < self.expires()
    }

    /// Gives the lease up in memory alone, as after seeing it expire.
    pub fn mark_lost(&self) {
        self.lost.cancel();
    }

    /// Says to everybody that we are alive.
    ///
    /// # Errors
    /// [`Error::Lost`], finally; else try again before [`Held::expires`].
    pub async fn renew(&self) -> Result<(), Error> {
        let mut holding = self.holding.lock().await;
        self.write(&mut holding, &Intent::Renew).await
    }

    /// Stores progress. The caller has checked that it doesn't go back.
    ///
    /// # Errors
    /// [`Error::Lost`], finally; else it is not stored, or not known to be: ask again.
    pub async fn checkpoint(&self, target: &Position) -> Result<(), Error> {
        let mut holding = self.holding.lock().await;
        self.write(&mut holding, &Intent::Checkpoint(target.clone())).await
    }

    /// Stores the ids of the shard's children in its row.
    ///
    /// # Errors
    /// As [`Held::checkpoint`]; safe to repeat.
    pub async fn set_children(&self, children: &BTreeSet<ShardId>) -> Result<(), Error> {
        let mut holding = self.holding.lock().await;
        if !self.is_live(Instant::now()) {
            return Err(Error::Lost);
        }
        let update = update::children(children.clone());
        match timeout_at(self.expires(), self.owner.table.update(&self.key, &update)).await {
            Ok(Ok(mut row)) => {
                update.apply(&mut row);
                holding.note_children(row);
                Ok(())
            }
            Ok(Err(table::Error::Written { .. })) => {
                let mut row = holding.row().clone();
                update.apply(&mut row);
                holding.note_children(row);
                Ok(())
            }
            // The only condition is that the row exists.
            Ok(Err(table::Error::Conflict(_))) => match self.restore(&mut holding).await {
                Step::Failed(error) => Err(self.failed(&mut holding, error)),
                // Safe to repeat, and repeated.
                Step::Done | Step::ReadBack | Step::Again => {
                    Err(table::Error::Conflict(self.key.clone()).into())
                }
            },
            Err(_) => Err(self.lose(&mut holding)),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Whom a leader has named to have the lease next.
    pub async fn named(&self) -> Option<WorkerId> {
        let holding = self.holding.lock().await;
        holding.is_handing_over().then(|| holding.row().owner.clone()).flatten()
    }

    /// Lets go, and says who has the lease next, if that is known: the row loses its owner, so that others needn't wait for it to stand still. The
    /// lease counts as lost from the moment of the call. `to` is its next owner, if there is one already.
    ///
    /// # Errors
    /// The row may then keep its owner until it expires; nothing is lost by that.
    pub async fn release(&self, to: &Next) -> Result<Option<WorkerId>, Error> {
        let mut holding = self.holding.lock().await;
        if !self.is_live(Instant::now()) {
            return Err(Error::Lost);
        }
        self.settle();
        self.lost.cancel();
        // The row can turn out to be one step ahead of memory, once.
        for _ in 0..2 {
            let update = update::release(holding.row(), to).fenced(holding.row());
            match timeout_at(self.expires(), self.owner.table.update(&self.key, &update)).await {
                Ok(Ok(mut row)) => {
                    update.apply(&mut row);
                    return Ok(row.owner);
                }
                Ok(Err(table::Error::Written { .. })) => {
                    let mut row = holding.row().clone();
                    update.apply(&mut row);
                    return Ok(row.owner);
                }
                Ok(Err(table::Error::Conflict(_) | table::Error::Ambiguous(_))) => {
                    let seen = self.read().await?;
                    if seen.is_none() && !holding.row().is_complete() {
                        // No other worker knows the position.
                        let row = Lease { owner: None, ..holding.restored() };
                        let is_there = self.has_shard(row.stream.as_ref()).await;
                        if is_there == Ok(true) && self.owner.table.create(&row).await? {
                            return Ok(None);
                        }
                    }
                    if !holding.read_for_release(seen) {
                        return Err(Error::Lost);
                    }
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Error::Lost),
            }
        }
        Err(Error::Lost)
    }

    async fn has_shard(&self, mark: Option<&StreamId>) -> Result<bool, shard::Error> {
        self.owner.recognitions.have_shard(self.key.stream(), self.shard(), mark).await
    }

    fn lose(&self, holding: &mut Holding) -> Error {
        self.lost.cancel();
        holding.lose()
    }

    /// One conditional write that moves the counter, with everything that its answers can lead to.
    async fn write(&self, holding: &mut Holding, intent: &Intent) -> Result<(), Error> {
        // The row can turn out to be one step ahead of memory once, and once to have a hand-off.
        for _ in 0..3 {
            let (started, slept) = (Instant::now(), clock::slept());
            if !self.is_live(started) {
                return Err(self.lose(holding));
            }
            holding.measured(self.meter.lock().unwrap_or_else(PoisonError::into_inner).read(started));
            let before = holding.expires();
            let update = match holding.plan(started, intent) {
                Ok(update) => update,
                Err(error) => return Err(self.failed(holding, error)),
            };
            let Ok(answer) = timeout_at(self.expires(), self.owner.table.update(&self.key, &update)).await
            else {
                return Err(self.lose(holding));
            };
            let mut step = holding.answered(started, &update, answer);
            if step == Step::ReadBack {
                step = match self.read().await? {
                    None => self.restore(holding).await,
                    Some(seen) => {
                        self.look_for_rivals(holding, &seen);
                        let step = holding.read(Some(seen), intent);
                        if step == Step::Failed(Error::Lost) {
                            self.settle();
                        }
                        step
                    }
                };
            }
            if holding.expires() != before {
                *self.expires.lock().unwrap_or_else(PoisonError::into_inner) =
                    Expiry::new(holding.expires(), slept);
            }
            if holding.is_handing_over() {
                self.wanted.cancel();
            }
            let order = holding.row().parking();
            self.orders.send_if_modified(|known| {
                let is_news = *known != order;
                *known = order;
                is_news
            });
            if holding.take_nudge() {
                self.owner.nudged.notify_one();
            }
            match step {
                Step::Done => return Ok(()),
                Step::Failed(error) => return Err(self.failed(holding, error)),
                Step::Again | Step::ReadBack => {}
            }
        }
        Err(self.lose(holding))
    }

    /// Whether it is known why the lease is over. If not, its row may be missing, and then only this worker knows what it
    /// said.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// The row as it would be made again without an owner; none for a finished shard.
    pub async fn last_row(&self) -> Option<Lease> {
        let holding = self.holding.lock().await;
        (!holding.row().is_complete()).then(|| Lease { owner: None, ..holding.restored() })
    }

    /// Restores the row of a shard that still exists, after the row was deleted. Only the lease owner knows the position: a
    /// row that another worker creates begins at the initial position, and skips records where that is `LATEST`.
    async fn restore(&self, holding: &mut Holding) -> Step {
        if holding.row().is_complete() {
            return Step::Failed(holding.lose());
        }
        let mark = holding.row().stream.clone();
        match timeout_at(self.expires(), self.has_shard(mark.as_ref())).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                self.settle();
                return Step::Failed(holding.lose());
            }
            Err(_) => return Step::Failed(holding.lose()),
            // Still ours: the next write asks again.
            Ok(Err(error)) => return Step::Failed(table::Error::Unavailable(error.to_string()).into()),
        }
        let (began, slept) = (Instant::now(), clock::slept());
        let row = holding.restored();
        match timeout_at(self.expires(), self.owner.table.create(&row)).await {
            Ok(Ok(true)) => {
                warn!(event = "lease_restored", shard = %self.key, checkpoint = %row.checkpoint, "restored a deleted lease");
                holding.note_restored(row, began);
                *self.expires.lock().unwrap_or_else(PoisonError::into_inner) =
                    Expiry::new(holding.expires(), slept);
                Step::Again
            }
            // Another worker has created the row, or an earlier attempt of this write has.
            Ok(Ok(false)) => match self.read().await {
                Ok(Some(seen)) if seen == row => {
                    holding.note_restored(row, began);
                    Step::Again
                }
                Ok(_) => Step::Failed(holding.lose()),
                Err(error) => Step::Failed(error),
            },
            Err(_) => Step::Failed(holding.lose()),
            Ok(Err(error)) => Step::Failed(error.into()),
        }
    }

    /// A row that names this worker but was written by none of this process's writes was written by another process.
    fn look_for_rivals(&self, holding: &Holding, seen: &Lease) {
        // A row that carries the mark of another worker was that worker's, and was assigned to this one since.
        let assigned = seen.process.as_ref().is_some_and(|process| !process.is_of(&self.owner.me));
        if seen.actual_owner() == Some(&self.owner.me) && !assigned && !holding.knows(seen) {
            let process = seen.process.clone().filter(|process| *process != self.owner.process);
            let rival = Rival { key: self.key.clone(), process };
            if self.owner.rivals.try_send(rival).is_err() {
                debug!(shard = %self.key, "already reported another process with this workerId");
            }
        }
    }

    fn failed(&self, holding: &mut Holding, error: Error) -> Error {
        if error == Error::Lost { self.lose(holding) } else { error }
    }

    /// Asks the row itself, for no longer than the lease lasts.
    async fn read(&self) -> Result<Option<Lease>, Error> {
        match timeout_at(self.expires(), self.owner.table.get(&self.key)).await {
            Ok(read) => Ok(read?),
            Err(_) => {
                self.lost.cancel();
                Err(Error::Lost)
            }
        }
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
