//! The rows of the lease table as this worker has read them: each fact with the time since when it has been so.
//!
//! Clocks of workers are never compared. A worker that wants to know whether a lease is renewed watches the lease
//! counter: a lease whose counter has not changed for the failover time, by this worker's clock and counted from the
//! read that first showed the counter, has expired. The other facts are observed in the same way. This is the only
//! record of them; whoever needs one asks the history, or a copy of it.
//!
//! | fact | since when | question |
//! |---|---|---|
//! | the lease counter | it has not changed | [`History::unchanged_for`], [`History::expires_at`] |
//! | a pending graceful handoff | its owners and the checkpoint have not changed | [`History::handoff_open_for`] |
//! | the owner | it could renew the lease and has not; it last renewed it | [`History::unrenewed_since`], [`History::renewed_at`] |
//! | the end of the shard | it was checkpointed | [`History::finished_for`] |
//!
//! Of a row that was deleted before its shard ended, the last checkpoint is kept ([`History::deleted`]): a new lease
//! at the initial position would skip records if that is `LATEST`.
//!
//! The conclusions (which leases have expired, which workers are dead) are in [`super::liveness`].
//!
//! Pure. In KCL: the `lastScanTimeNanos` and `lastCounterIncrementNanos` of `DynamoDBLeaseTaker` and `Lease`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::orders::{Park, Pause};
use super::{Lease, LeaseKey, WorkerId, of_stream};
use crate::sequence::Position;
use crate::stream::{StreamId, StreamIdentifier};

/// A worker plans for the moment after a lease expires: expiry is strictly later than the limit, as in Java.
const AFTER: Duration = Duration::from_millis(1);
/// Most deleted rows whose checkpoints are kept.
const DELETED: usize = 10_000;

/// The rows of a lease table as this worker has read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct History {
    rows: BTreeMap<LeaseKey, Row>,
    /// The last checkpoints of rows that were deleted before their shards ended, and when that was seen.
    deleted: BTreeMap<LeaseKey, (Known, Instant)>,
    /// The last scan.
    scanned: Option<Instant>,
}

/// The checkpoint of a row, and the stream to which it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Known {
    /// The checkpoint.
    pub checkpoint: Position,
    /// The identity of the stream that the row was marked with.
    pub stream: Option<StreamId>,
    /// [`Lease::latest_from`].
    pub latest_from: Option<i64>,
    /// [`Lease::park`].
    pub park: Option<Park>,
    /// [`Lease::pause`].
    pub pause: Option<Pause>,
}

impl Known {
    fn of(lease: &Lease) -> Self {
        Self {
            checkpoint: lease.checkpoint.clone(),
            stream: lease.stream.clone(),
            latest_from: lease.latest_from,
            park: lease.park.clone(),
            pause: lease.pause.clone(),
        }
    }

    fn is_of(&self, lease: &Lease) -> bool {
        self.checkpoint == lease.checkpoint
            && self.stream == lease.stream
            && self.latest_from == lease.latest_from
            && self.park == lease.park
            && self.pause == lease.pause
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    known: Known,
    owner: Option<WorkerId>,
    checkpoint_owner: Option<WorkerId>,
    counter: i64,
    unchanged: Instant,
    /// While the owner has not renewed the lease: since when it could.
    unrenewed: Option<Instant>,
    /// When the present owner was last seen to have renewed the lease.
    renewed: Option<Instant>,
    /// The pending handoff of an open shard: the checkpoint, and since when it and the owners are unchanged.
    handoff: Option<Box<(Position, Instant)>>,
    finished: Option<Instant>,
}

impl Row {
    fn first(lease: &Lease, now: Instant) -> Self {
        Self {
            known: Known::of(lease),
            owner: lease.owner.clone(),
            checkpoint_owner: lease.checkpoint_owner.clone(),
            counter: lease.counter,
            unchanged: now,
            // Nothing is known of its past.
            unrenewed: None,
            renewed: None,
            handoff: has_open_handoff(lease).then(|| Box::new((lease.checkpoint.clone(), now))),
            finished: lease.is_complete().then_some(now),
        }
    }

    fn note(&mut self, lease: &Lease, now: Instant) {
        let (same_owner, same_counter) = (self.owner == lease.owner, self.counter == lease.counter);
        let was_handed_over = self.checkpoint_owner.is_some() && lease.checkpoint_owner.is_none();
        self.unrenewed = match (same_owner, same_counter) {
            (true, true) => self.unrenewed,
            // The previous owner has completed the handoff: the new owner has yet to begin.
            (true, false) if was_handed_over => Some(now),
            (true, false) => None,
            (false, _) => Some(now),
        };
        self.renewed = match (same_owner, same_counter) {
            (true, true) => self.renewed,
            (true, false) if !was_handed_over => Some(now),
            (true, false) | (false, _) => None,
        };
        if !has_open_handoff(lease) {
            self.handoff = None;
        } else if !self.has_handoff_of(lease) {
            self.handoff = Some(Box::new((lease.checkpoint.clone(), now)));
        }
        self.finished = lease.is_complete().then(|| self.finished.unwrap_or(now));
        if !self.known.is_of(lease) {
            self.known = Known::of(lease);
        }
        if !same_counter {
            (self.counter, self.unchanged) = (lease.counter, now);
        }
        if !same_owner {
            self.owner.clone_from(&lease.owner);
        }
        if self.checkpoint_owner != lease.checkpoint_owner {
            self.checkpoint_owner.clone_from(&lease.checkpoint_owner);
        }
    }

    fn has_handoff_of(&self, lease: &Lease) -> bool {
        self.owner == lease.owner
            && self.checkpoint_owner == lease.checkpoint_owner
            && self.handoff.as_ref().is_some_and(|open| open.0 == lease.checkpoint)
    }
}

fn has_open_handoff(lease: &Lease) -> bool {
    lease.checkpoint_owner.is_some() && !lease.is_complete()
}

impl History {
    /// Notes a scan of the whole table. Rows that no longer exist are dropped, except for their checkpoints.
    pub fn note_scan(&mut self, leases: &[Lease], now: Instant) {
        self.scanned = Some(now);
        for lease in leases {
            self.note_row(lease, now);
        }
        // Rarely: a row was deleted.
        if self.rows.len() != leases.len() {
            let scanned: BTreeSet<&LeaseKey> = leases.iter().map(|lease| &lease.key).collect();
            let gone = self.rows.extract_if(.., |key, _| !scanned.contains(key));
            let unfinished = gone.filter(|(_, row)| row.finished.is_none());
            self.deleted.extend(unfinished.map(|(key, row)| (key, (row.known, now))));
            while self.deleted.len() > DELETED {
                self.deleted.pop_first();
            }
        }
    }

    /// The part of one of several streams, as of a table of its own ([`super::of_stream`]).
    pub fn of_stream(&self, stream: &StreamIdentifier) -> Self {
        let alone = |key: &LeaseKey| of_stream::alone(key, stream);
        Self {
            rows: self.rows.iter().filter_map(|(key, row)| Some((alone(key)?, row.clone()))).collect(),
            deleted: self.deleted.iter().filter_map(|(key, row)| Some((alone(key)?, row.clone()))).collect(),
            scanned: self.scanned,
        }
    }

    /// The last checkpoint of a row that was deleted before its shard ended, and was not seen again.
    pub fn deleted(&self, key: &LeaseKey) -> Option<&Known> {
        self.deleted.get(key).map(|(known, _)| known)
    }

    /// For how long a row that was deleted before its shard ended is known to be missing.
    pub fn deleted_for(&self, key: &LeaseKey, now: Instant) -> Option<Duration> {
        self.deleted.get(key).map(|(_, since)| now.saturating_duration_since(*since))
    }

    /// Notes a read of one row.
    pub fn note_row(&mut self, lease: &Lease, now: Instant) {
        match self.rows.get_mut(&lease.key) {
            Some(row) => row.note(lease, now),
            None => {
                self.deleted.remove(&lease.key);
                self.rows.insert(lease.key.clone(), Row::first(lease, now));
            }
        }
    }

    /// Notes that only these rows were seen to name this worker. A handoff of another row may have ended, so its time
    /// starts again if it is seen again.
    pub fn note_listed(self: &mut Arc<Self>, keys: &[LeaseKey]) {
        let is_unlisted = |(key, row): (&LeaseKey, &Row)| row.handoff.is_some() && !keys.contains(key);
        // Rarely: readers keep copies, so that a change costs a copy of all rows.
        if self.rows.iter().any(is_unlisted) {
            let rows = Arc::make_mut(self).rows.iter_mut();
            rows.filter(|(key, _)| !keys.contains(key)).for_each(|(_, row)| row.handoff = None);
        }
    }

    /// For how long the counter of a lease has not changed; none for a lease that was not read.
    pub fn unchanged_for(&self, key: &LeaseKey, now: Instant) -> Option<Duration> {
        self.rows.get(key).map(|row| now.saturating_duration_since(row.unchanged))
    }

    /// When a lease will have been unchanged for longer than `limit`. None if it has been for longer already, or if it
    /// was not seen unchanged so far: most leases are renewed before the next scan.
    pub fn expires_at(&self, key: &LeaseKey, limit: Duration, now: Instant) -> Option<Instant> {
        let row = self.rows.get(key).filter(|row| self.scanned.is_some_and(|last| row.unchanged < last))?;
        (now.saturating_duration_since(row.unchanged) <= limit).then(|| row.unchanged + limit + AFTER)
    }

    /// For how long the pending handoff of a lease has made no progress: neither the owners nor the checkpoint have
    /// changed. None if no handoff is pending, or if this row was not noted.
    pub fn handoff_open_for(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        let row = self.rows.get(&lease.key).filter(|row| row.has_handoff_of(lease))?;
        row.handoff.as_ref().map(|open| now.saturating_duration_since(open.1))
    }

    /// Whether a pending handoff designates this worker.
    pub fn is_designated(&self, worker: &WorkerId) -> bool {
        self.rows.values().any(|row| row.handoff.is_some() && row.owner.as_ref() == Some(worker))
    }

    /// Since when the owner of a lease could have renewed it and has not. None once it has, or if the change of the
    /// owner was not seen.
    pub fn unrenewed_since(&self, key: &LeaseKey) -> Option<Instant> {
        self.rows.get(key)?.unrenewed
    }

    /// When a lease was last seen to have been renewed by its owner, or by the previous owner during a handoff.
    pub fn renewed_at(&self, key: &LeaseKey) -> Option<Instant> {
        self.rows.get(key)?.renewed
    }

    /// For how long a lease is known to be finished; zero if it is not.
    pub fn finished_for(&self, key: &LeaseKey, now: Instant) -> Duration {
        let finished = self.rows.get(key).and_then(|row| row.finished);
        finished.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The owners of each row.
    pub(super) fn owners(&self) -> impl Iterator<Item = Owners<'_>> {
        self.rows.values().map(|row| Owners {
            owner: row.owner.as_ref(),
            checkpoint_owner: row.checkpoint_owner.as_ref(),
            unchanged: row.unchanged,
        })
    }
}

/// The owners of a row.
pub(super) struct Owners<'a> {
    pub(super) owner: Option<&'a WorkerId>,
    pub(super) checkpoint_owner: Option<&'a WorkerId>,
    /// Since when the counter has not changed.
    pub(super) unchanged: Instant,
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
