//! Shard sync and lease cleanup: creates missing leases for the shards of the stream, and deletes the leases
//! of finished shards.
//!
//! One task, which uses the scans that the coordinator makes anyway. In KCL: `PeriodicShardSyncManager`,
//! `ShardSyncTask`, `LeaseCleanupManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, warn};

use crate::clock::{self, ServiceClock, ServiceTime};
use crate::coordinator::{Handle, Snapshot};
use crate::lease::orders::{in_force, include};
use crate::lease::origin::{self, Foreign};
use crate::lease::outage::Outage;
use crate::lease::sync::{self, InitialPosition};
use crate::lease::{Lease, LeaseKey, Table, WorkerId, audit, cleanup, table, update};
use crate::metrics::{Coverage, OfWorker, Sink, Step};
use crate::reach::Reaches;
use crate::recognition::Recognition;
use crate::sequence::Sequence;
use crate::shard::{self, Filter, Shard, ShardId};

mod identity;
mod open_shards;
mod orders;

/// Interval between audits. KCL's is two minutes, with a scan for each.
const AUDIT: Duration = Duration::from_secs(30);
/// How long a finished lease is kept, so that operators can see it. KCL keeps it for five minutes, but its
/// 2.x workers count such rows as shares: the sooner they are deleted, the sooner a mixed fleet is balanced.
const FINISHED: Duration = Duration::from_secs(60);
/// KCL's `garbageLeaseCleanupIntervalMillis`: interval at which Kinesis is asked about finished leases that
/// cannot be deleted yet.
const DOUBTFUL: Duration = Duration::from_secs(30 * 60);

/// Most rows that are created at a time.
const PARALLEL: usize = 8;

/// Settings of the shard sync.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `workerId`.
    pub me: WorkerId,
    /// `initialPositionInStream`, `initialPositionInStreamExtended`.
    pub initial: InitialPosition,
    /// `ignoreUnexpectedChildShards`.
    pub ignore_unexpected_children: bool,
    /// `skipShardSyncAtWorkerInitializationIfLeasesExist`.
    pub skip_if_leases_exist: bool,
    /// `shardSyncIntervalMillis`: least time between listings of the stream's shards.
    pub sync_pause: Duration,
    /// Name of the configured stream.
    pub stream: String,
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

/// Creates and deletes the leases of one table.
#[derive(Clone)]
pub struct ShardSync {
    table: Arc<dyn Table>,
    shards: Arc<dyn shard::Api>,
    recognition: Arc<Recognition>,
    settings: Settings,
    typed: bool,
    /// The time at AWS, which dates orders that are brought to leases at `LATEST`.
    clock: ServiceClock,
    /// Number of lease rows created.
    made: Arc<AtomicUsize>,
    /// Leases whose key in the table belongs to an item that is no lease, with the reason. Each is
    /// reported once.
    occupied: Arc<Mutex<BTreeMap<LeaseKey, String>>>,
}

/// The outcome of creating leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Made {
    /// Rows that this worker created.
    new: usize,
    /// Rows that another worker created first.
    there: usize,
    /// Items that exist and are no leases.
    occupied: usize,
}

/// The item that already has the key of a lease to be created.
enum InTheWay {
    Lease,
    /// An item that is no lease, or cannot be read.
    Other,
    /// The row was deleted since: the lease was created at the second attempt.
    Nothing,
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
        Self { table, shards, recognition, settings, typed: true, clock, made, occupied }
    }

    /// Corrects the wall clock by the dates of AWS's responses.
    #[must_use]
    pub fn with_clock(self, clock: ServiceClock) -> Self {
        Self { clock, ..self }
    }

    /// Creates rows with or without a type ([`Lease::typed`]).
    #[must_use]
    pub fn typed(self, typed: bool) -> Self {
        Self { typed, ..self }
    }

    /// Number of lease rows created since the process started, even if others could not be created.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Creates the leases that the stream's shards need at the start, and the table itself.
    ///
    /// # Errors
    /// The table or the stream cannot be used now; another attempt is safe.
    pub async fn begin(&self) -> Result<(), Error> {
        let began = Instant::now();
        let outcome = self.sync().await;
        self.did(Step::Sync, began, outcome.is_ok());
        outcome
    }

    fn did(&self, step: Step, began: Instant, ok: bool) {
        self.settings.sink.worker(OfWorker::Did { step, took: began.elapsed(), ok });
    }

    async fn sync(&self) -> Result<(), Error> {
        self.table.ensure().await?;
        let mut leases = self.table.list().await?;
        // A worker of another stream may have created the first rows since the table was compared.
        origin::marks(&leases, self.recognition.current().as_ref(), &self.settings.stream)?;
        if self.start_over(&leases).await? {
            leases = self.table.list().await?;
        }
        if !leases.is_empty() && self.settings.skip_if_leases_exist {
            info!(
                event = "shard_sync_skipped",
                leases = leases.len(),
                "skipped the shard sync at start because leases exist \
                 (skipShardSyncAtWorkerInitializationIfLeasesExist)"
            );
            return Ok(());
        }
        // Sequence numbers are compared in the audits: a start lists no more than necessary.
        if leases.iter().any(Lease::is_complete) {
            // A shard with children may have ended just now: the audits check twice.
            let childless = |key: &LeaseKey| leases.iter().all(|lease| !lease.parents.contains(key.shard()));
            self.reopen(&leases, &self.shards.list(Filter::All).await?, childless).await?;
        }
        let mut missing = self.needed(&leases).await?;
        let skips = |lease: &Lease| lease.checkpoint.sequence != Sequence::TrimHorizon;
        if missing.iter().any(skips) && leases.iter().any(|lease| lease.owner.is_some()) {
            // The owner of a lease whose row was deleted knows the position, and restores the row with its
            // next renewal.
            sleep(self.settings.failover / 2).await;
            leases = self.table.list().await?;
            missing = self.needed(&leases).await?;
        }
        let first = if leases.is_empty() { self.make_first(&missing).await? } else { Made::default() };
        let made = self.make(&missing[first.new.min(missing.len())..]).await?;
        let new = first.new + made.new;
        let leases = leases.len() + new + made.there;
        if made.occupied > 0 {
            let unreadable = made.occupied;
            warn!(
                event = "shard_sync_incomplete",
                leases,
                created = new,
                unreadable,
                "completed the shard sync: some shards of the stream have no readable lease"
            );
        } else {
            info!(event = "shard_sync_completed", leases, created = new, "completed the shard sync");
        }
        Ok(())
    }

    /// The leases to be created. If there are none at all, the application is new or its rows were deleted.
    async fn needed(&self, leases: &[Lease]) -> Result<Vec<Lease>, Error> {
        if leases.is_empty() {
            let shards = self.shards.list(self.settings.initial.filter()).await?;
            return Ok(sync::plan_first(&shards, self.settings.initial)?);
        }
        let shards = self.shards.list(Filter::All).await?;
        let &Settings { initial, ignore_unexpected_children, .. } = &self.settings;
        let mut missing = sync::plan_missing(&shards, leases, initial, ignore_unexpected_children)?;
        missing.extend(origin::orphans(leases, &shards));
        if let Some(pause) = in_force(leases) {
            let from = self.clock.past();
            missing.iter_mut().for_each(|lease| include(lease, pause, from));
        }
        Ok(missing)
    }

    /// Creates leases: ancestors before descendants, so that after a crash the missing ones are planned
    /// again; unrelated ones at the same time.
    async fn make(&self, leases: &[Lease]) -> Result<Made, Error> {
        let mut outcome = Made::default();
        for together in unrelated(leases) {
            let mut making = JoinSet::new();
            for lease in together {
                let (table, count) = (self.table.clone(), self.made.clone());
                let stream = lease.stream.clone().or_else(|| self.recognition.current());
                let lease = Lease { typed: self.typed, stream, ..lease.clone() };
                let create = async move {
                    let made = table.create(&lease).await;
                    if let Ok(made) = made {
                        count.fetch_add(usize::from(made), Ordering::Relaxed);
                        let Lease { key, checkpoint, .. } = &lease;
                        let is_restored = matches!(checkpoint.sequence, Sequence::Number(_));
                        if made && is_restored {
                            warn!(event = "lease_restored", shard = %key, %checkpoint, "restored a deleted lease");
                        } else {
                            let what = if made { "created lease" } else { "lease exists already" };
                            debug!(shard = %key, %checkpoint, "{what}");
                        }
                    }
                    made.map(|made| (lease, made))
                };
                making.spawn(create.in_current_span());
            }
            for made in making.join_all().await {
                match made? {
                    (_, true) => outcome.new += 1,
                    (lease, false) => match self.in_the_way(&lease).await? {
                        InTheWay::Lease => outcome.there += 1,
                        InTheWay::Nothing => outcome.new += 1,
                        InTheWay::Other => outcome.occupied += 1,
                    },
                }
            }
        }
        Ok(outcome)
    }

    /// Determines why a lease cannot be created. If the item with its key is no lease, no worker reads the
    /// shard.
    async fn in_the_way(&self, lease: &Lease) -> Result<InTheWay, Error> {
        let key = &lease.key;
        let why = match self.table.get(key).await {
            Ok(Some(_)) => None,
            // The row may have been deleted meanwhile.
            Ok(None) if self.table.create(lease).await? => return Ok(InTheWay::Nothing),
            Ok(None) => Some("its entityType is not LEASE".to_owned()),
            Err(table::Error::Unreadable { why, .. }) => Some(why),
            Err(error) => return Err(error.into()),
        };
        let mut occupied = self.occupied.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = why else {
            occupied.remove(key);
            return Ok(InTheWay::Lease);
        };
        if occupied.get(key) != Some(&why) {
            error!(event = "lease_row_invalid",
                shard = %key, error = why,
                "no worker can acquire the lease of this shard: the row with its key in the lease table is not a \
                 valid lease (correct the attribute; a row that is deleted loses its checkpoint)"
            );
            occupied.insert(key.clone(), why);
        }
        Ok(InTheWay::Other)
    }

    /// Runs audits and lease cleanup until `stop`.
    pub async fn run(
        self,
        mut seen: watch::Receiver<Snapshot>,
        coordinator: Handle,
        stop: CancellationToken,
    ) {
        let mut ticks = interval_at(Instant::now() + AUDIT, AUDIT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut rounds, mut outage) = (Rounds::default(), Outage::default());
        let mut suspicion: Option<Instant> = None;
        loop {
            // Audits first: a consumer whose read is always refused reports suspicions for ever.
            let suspected = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => false,
                () = self.recognition.suspected(), if suspicion.is_none() => {
                    suspicion = Some(rounds.next_suspicion(Instant::now()));
                    continue;
                }
                () = sleep_until(suspicion.unwrap_or_else(Instant::now)), if suspicion.is_some() => true,
            };
            if suspected {
                suspicion = None;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.suspicion(&mut rounds, &coordinator) => continue,
                }
            }
            let now = seen.borrow_and_update().clone();
            if now.at.is_none() {
                continue;
            }
            tokio::select! {
                biased;
                // Work that is interrupted is planned again by the next audit.
                () = stop.cancelled() => return,
                outcome = self.round(&now, &mut rounds, &coordinator) => match outcome {
                    Ok(()) => {
                        if let Some(lasted) = outage.worked(Instant::now()) {
                            info!(event = "shard_sync_recovered", ?lasted, "the shard sync works again");
                        }
                    }
                    Err(error) if self.is_news(&error, &mut outage) => {
                        warn!(event = "shard_sync_failed", %error, "failed to synchronise the leases with the shards of the stream, retrying");
                    }
                    Err(error) => debug!(%error, "failed to synchronise the leases with the shards of the stream, retrying"),
                },
            }
        }
    }

    /// Whether a failed round is to be logged: not while DynamoDB or Kinesis answers nothing, which is logged once for all.
    fn is_news(&self, error: &Error, outage: &mut Outage) -> bool {
        let (now, Reaches { dynamodb, kinesis }) = (Instant::now(), &self.settings.reaches);
        match error {
            Error::Table(error) => outage.failed(now, error, dynamodb),
            Error::Stream(shard::Error::Unavailable(reason)) => {
                outage.failed(now, &table::Error::Unavailable(reason.clone()), kinesis)
            }
            Error::Stream(_) | Error::Shards(_) | Error::Foreign(_) => true,
        }
    }

    async fn round(&self, seen: &Snapshot, rounds: &mut Rounds, coordinator: &Handle) -> Result<(), Error> {
        let now = Instant::now();
        let leads = seen.leads.unwrap_or_else(|| {
            audit::leads(&self.settings.me, &seen.leases, &seen.dead_workers(self.settings.failover))
        });
        let outcome = self.audit(seen, leads, rounds, coordinator).await;
        if leads {
            let coverage = *outcome.as_ref().unwrap_or(&Coverage::Whole);
            self.did(Step::Audit(coverage), now, outcome.is_ok());
        }
        outcome.map(|_| ())
    }

    /// Compares the leases with the hash keys, and at the configured interval with the stream's shards.
    async fn audit(
        &self,
        seen: &Snapshot,
        leads: bool,
        rounds: &mut Rounds,
        coordinator: &Handle,
    ) -> Result<Coverage, Error> {
        let now = Instant::now();
        self.clean(seen, leads, rounds, coordinator).await?;
        self.follow(&seen.leases, rounds, coordinator).await?;
        self.bring_orders(&seen.leases, leads).await?;
        if !leads {
            rounds.holes = audit::HoleCount::default();
            self.forget_unread(rounds);
            return Ok(Coverage::Whole);
        }
        self.fill_ranges(&seen.leases).await?;
        let hole = rounds.holes.note(&seen.leases);
        let coverage = |synced| match hole {
            Some(_) => Coverage::Confirmed { synced },
            None if rounds.holes.has_hole() => Coverage::Hole,
            None => Coverage::Whole,
        };
        let (coverage, postponed) = (coverage(true), coverage(false));
        // A shard that was just found without a row is looked at again as soon as its owner must have restored it.
        let doubted = |since: &Instant| now < *since + self.settings.failover + AUDIT * 2;
        let is_early = rounds.synced.is_some_and(|last| now < last + self.settings.sync_pause);
        if is_early && !rounds.rowless.values().any(doubted) {
            return Ok(postponed);
        }
        if let Some(hole) = hole {
            warn!(
                event = "hash_keys_without_lease",
                after = hole.after,
                before = hole.before,
                "found hash keys without a lease, listing the shards"
            );
        }
        // A comparison that failed, or left something to be restored, is repeated by the next audit.
        if self.compare(seen, rounds, coordinator).await? {
            rounds.synced = Some(now);
        }
        Ok(coverage)
    }

    /// Fills in the hash key ranges that the audit needs: KCL wrote rows without them before 2.3.
    async fn fill_ranges(&self, leases: &[Lease]) -> Result<(), Error> {
        let without: BTreeMap<&ShardId, &LeaseKey> =
            audit::without_range(leases).map(|lease| (lease.shard(), &lease.key)).collect();
        if without.is_empty() {
            return Ok(());
        }
        for Shard { id, range, .. } in self.shards.list(Filter::All).await? {
            if let Some(key) = without.get(&id) {
                match self.table.update(key, &update::range(range)).await {
                    Ok(_) | Err(table::Error::Conflict(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Deletes finished leases: each worker its own, and the leader those without a live owner.
    async fn clean(
        &self,
        seen: &Snapshot,
        leads: bool,
        rounds: &mut Rounds,
        coordinator: &Handle,
    ) -> Result<(), Error> {
        let mine = |lease: &Lease| match &lease.owner {
            Some(owner) if *owner == self.settings.me => true,
            Some(owner) => leads && !seen.live.contains(owner),
            None => leads,
        };
        let now = Instant::now();
        // Rows of an earlier stream say nothing about the shards of this one.
        let current: Vec<Lease> = seen
            .leases
            .iter()
            .filter(|lease| self.recognition.accepts(lease.stream.as_ref()))
            .cloned()
            .collect();
        let mut going = cleanup::done(&current);
        going.retain(|lease| seen.history.finished_for(&lease.key, now) >= FINISHED);
        if rounds.asked.is_none_or(|last| now >= last + DOUBTFUL)
            && seen
                .leases
                .iter()
                .any(|lease| mine(lease) && seen.history.finished_for(&lease.key, now) >= DOUBTFUL)
        {
            rounds.asked = Some(now);
            let listed = self.shards.list(Filter::All).await?;
            going.extend(cleanup::forgotten(&seen.leases, &listed));
        }
        for lease in going.into_iter().filter(|lease| mine(lease)) {
            coordinator.forget(lease.key.clone());
            let deleted = self.table.delete(&lease.key).await?;
            info!(event = "lease_deleted", shard = %lease.key, deleted, "deleted the lease of a finished shard");
        }
        Ok(())
    }
}

/// The results of earlier rounds.
#[derive(Debug, Default)]
struct Rounds {
    holes: audit::HoleCount,
    /// When the stream's shards were last listed: to compare them with the leases, and for finished leases.
    synced: Option<Instant>,
    asked: Option<Instant>,
    /// Open shards that no worker read when they were last listed.
    unread: BTreeSet<ShardId>,
    /// Those of `unread` without a row, and when that was first seen.
    rowless: BTreeMap<ShardId, Instant>,
    /// When the stream's identity was last requested while it was unknown.
    described: Option<Instant>,
    /// When another stream was last suspected, and the number of suspicions in vain since.
    suspected: Option<Instant>,
    in_vain: u32,
    /// When rows of another stream were last reported.
    reported: Option<Instant>,
}

/// Splits leases in which ancestors come first into parts: no lease of a part is a parent of another one in
/// it.
fn unrelated(leases: &[Lease]) -> Vec<&[Lease]> {
    let (mut parts, mut rest) = (Vec::new(), leases);
    while !rest.is_empty() {
        let mut together: BTreeSet<&ShardId> = BTreeSet::new();
        let count = rest
            .iter()
            .take(PARALLEL)
            .take_while(|lease| {
                let unrelated = lease.parents.iter().all(|parent| !together.contains(parent));
                together.insert(lease.shard());
                unrelated
            })
            .count();
        // The first lease belongs to the part even if it is its own parent.
        let (part, later) = rest.split_at(count.max(1));
        parts.push(part);
        rest = later;
    }
    parts
}

#[cfg(test)]
#[path = "shard_sync/tests.rs"]
mod tests;
