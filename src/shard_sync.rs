//! Shard sync and lease cleanup: creates missing leases for the shards of the stream, and deletes the leases
//! of finished shards.
//!
//! One task, which uses the scans that the coordinator makes anyway. [`state`] decides, without I/O; this module waits
//! for events and performs the effects, one request at a time. The start of a worker ([`ShardSync::begin`],
//! [`ShardSync::recognise`]) follows the plans of pure functions in `open_shards` and [`crate::lease::origin`].
//!
//! In KCL: `PeriodicShardSyncManager`, `ShardSyncTask`, `LeaseCleanupManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, ServiceClock, ServiceTime};
use crate::coordinator::{Handle, Snapshot};
use crate::lease::of_stream::OfStream;
use crate::lease::{LeaseKey, Table};
use crate::recognition::Recognition;
use crate::sequence::SequenceNumber;
use crate::shard::{self, ShardId};
use crate::stream::StreamIdentifier;

pub mod event;
mod identity;
mod open_shards;
mod orders;
mod start;
pub mod state;
mod writing;

use event::{Effect, Event, Moment};
pub use event::{Error, Settings};
use state::State;

/// Creates and deletes the leases of one table.
#[derive(Clone)]
pub struct ShardSync {
    /// The leases of the stream.
    table: Arc<dyn Table>,
    /// The table of several streams.
    whole: Option<Arc<dyn Table>>,
    shards: Arc<dyn shard::Api>,
    recognition: Arc<Recognition>,
    settings: Settings,
    /// The stream, if the table holds the leases of several.
    stream: Option<StreamIdentifier>,
    typed: bool,
    /// The time at AWS, which dates orders that are brought to leases at `LATEST`.
    clock: ServiceClock,
    /// Number of lease rows created.
    made: Arc<AtomicUsize>,
    /// Leases whose key in the table belongs to an item that is no lease, with the reason. Each is
    /// reported once.
    occupied: Arc<Mutex<BTreeMap<LeaseKey, String>>>,
}

impl std::fmt::Debug for ShardSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardSync").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ShardSync {
    /// The shard sync of one table and one stream.
    pub fn new(
        table: Arc<dyn Table>,
        shards: Arc<dyn shard::Api>,
        recognition: Arc<Recognition>,
        settings: Settings,
    ) -> Self {
        let (made, occupied) = (Arc::default(), Arc::default());
        let clock = ServiceClock::new(clock::wall_millis, ServiceTime::default());
        let (whole, stream, typed) = (None, None, true);
        Self { table, whole, shards, recognition, settings, stream, typed, clock, made, occupied }
    }

    /// Looks after one of several streams: its part of the table, which `new` received as a whole.
    #[must_use]
    pub fn of_stream(self, stream: Option<&StreamIdentifier>) -> Self {
        match stream {
            Some(stream) => {
                let table = Arc::new(OfStream::new(self.table.clone(), stream.clone()));
                Self { table, whole: Some(self.table), stream: Some(stream.clone()), ..self }
            }
            None => self,
        }
    }

    /// Corrects the wall clock by the dates of AWS's responses.
    #[must_use]
    pub fn with_clock(self, clock: ServiceClock) -> Self {
        Self { clock, ..self }
    }

    /// Creates rows with or without a type ([`crate::lease::Lease::typed`]).
    #[must_use]
    pub fn typed(self, typed: bool) -> Self {
        Self { typed, ..self }
    }

    /// Number of lease rows created since the process started, even if others could not be created.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Runs audits and lease cleanup until `stop`.
    pub async fn run(
        self,
        mut seen: watch::Receiver<Snapshot>,
        coordinator: Handle,
        stop: CancellationToken,
    ) {
        let of_stream = |stream| coordinator.of_stream(stream);
        let coordinator = self.stream.as_ref().map_or_else(|| coordinator.clone(), of_stream);
        let mut state = State::new(self.settings.clone(), Instant::now());
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Before suspicions: a consumer whose read is always refused suspects for ever.
                () = sleep_until(state.audit_due()) => {
                    let seen = seen.borrow_and_update().clone();
                    Event::AuditDue(self.part(seen))
                }
                () = self.recognition.suspected(), if state.suspicion_due().is_none() => Event::Suspected,
                () = clock::reached(state.suspicion_due()) => Event::SuspicionDue,
            };
            tokio::select! {
                biased;
                // Work that is interrupted is planned again by the next audit.
                () = stop.cancelled() => return,
                () = self.handle(&mut state, event, &coordinator) => {}
            }
        }
    }

    /// The part of a scan that belongs to the stream. The owners of all leases decide who audits: as with Java, one worker
    /// for all streams. The leases of a stream that is left are not completed.
    fn part(&self, seen: Snapshot) -> Snapshot {
        let Some(stream) = &self.stream else { return seen };
        let leads = !self.recognition.is_left() && seen.audits(&self.settings.me, self.settings.failover);
        Snapshot { leads: Some(leads), ..seen.of_stream(stream) }
    }

    /// Handles an event, and the outcomes of the requests that follow from it.
    async fn handle(&self, state: &mut State, event: Event, coordinator: &Handle) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let moment = Moment {
                now: Instant::now(),
                past: self.clock.past(),
                identity: self.recognition.identity(),
            };
            for effect in state.on(&moment, event) {
                let outcome = self.perform(effect, coordinator).await;
                debug_assert!(next.is_none() || outcome.is_none(), "one request at a time");
                next = next.or(outcome);
            }
        }
    }

    /// Performs an effect. Returns the outcome of a request.
    async fn perform(&self, effect: Effect, coordinator: &Handle) -> Option<Event> {
        Some(match effect {
            Effect::List(listing, filter) => {
                Event::Listed(listing, self.shards.list(filter).await.map_err(Error::from))
            }
            Effect::Delete(leases) => Event::Deleted(self.delete(leases, coordinator).await),
            Effect::CompareIdentity(occasion, leases) => {
                Event::IdentityCompared(occasion, self.compare_identity(&leases).await)
            }
            Effect::Correct(correction, rows) => Event::Corrected(correction, self.correct(&rows).await),
            Effect::Reset(rows) => Event::Reset(self.reset(&rows).await),
            Effect::ReadRows(occasion) => {
                Event::RowsRead(occasion, self.table.list().await.map_err(Error::from))
            }
            Effect::VerifyNumbers(numbers) => Event::NumbersVerified(self.refused(numbers).await),
            Effect::Create(leases) => Event::Created(self.make(&leases).await),
            Effect::Scan => {
                coordinator.look();
                return None;
            }
            Effect::Emit(event) => {
                self.settings.sink.worker(event);
                return None;
            }
        })
    }

    /// The shards whose sequence numbers Kinesis refuses.
    async fn refused(&self, numbers: Vec<(ShardId, SequenceNumber)>) -> Result<BTreeSet<ShardId>, Error> {
        let mut refused = BTreeSet::new();
        for (shard, number) in numbers {
            if !self.shards.has_number(&shard, &number).await? {
                refused.insert(shard);
            }
        }
        Ok(refused)
    }
}

#[cfg(test)]
#[path = "shard_sync/tests.rs"]
mod tests;
