//! Compares the open shards of the stream with the leases. The stream is authoritative, not the table.
//!
//! Pure. Shards without a lease get one, a finished row of an open shard is reset, and shards that no worker reads are
//! counted.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tracing::warn;

use super::event::{Effect, Error, Listing, Moment, Occasion, Settings, Wrong};
use super::state::{AUDIT, Audit, Next, State};
use crate::lease::history::Known;
use crate::lease::orders::{Pause, in_force, include};
use crate::lease::{Lease, LeaseKey, origin, sync};
use crate::metrics::OfWorker;
use crate::recognition::Identity;
use crate::sequence::Sequence;
use crate::shard::{Filter, Shard, ShardId, some};

impl State {
    /// Counts the open shards that no worker reads, and resets rows that cannot be right.
    pub(super) fn compare(&mut self, moment: &Moment, audit: &mut Audit, listed: Vec<Shard>) -> Next {
        (audit.listed, audit.listed_at) = (listed, moment.now);
        let seen = &audit.seen;
        let mut unread: BTreeSet<ShardId> =
            origin::unread(&seen.leases, &audit.listed, &seen.live).into_iter().collect();
        // A row that became unreadable is in no scan, while its owner reads on.
        let is_held =
            |key: &LeaseKey| seen.held.contains(key) && seen.leases.iter().all(|lease| lease.key != *key);
        unread.retain(|shard| !is_held(&LeaseKey::from(shard.clone())));
        let lasting: BTreeSet<ShardId> = unread.intersection(&self.unread).cloned().collect();
        if !lasting.is_empty() {
            warn!(
                event = "open_shards_without_reader",
                count = lasting.len(),
                shards = some(&lasting),
                "no live worker reads some open shards"
            );
        }
        let counted = OfWorker::Unread { shards: Some(unread.len()), lasting: lasting.len() };
        self.effects.push(Effect::Emit(counted));
        self.unread = unread;
        // `ListShards` may lag behind the end of a shard.
        let is_settled = |key: &LeaseKey| seen.history.finished_for(key, moment.now) >= AUDIT;
        let wrong = wrong(&seen.leases, &audit.listed, &moment.identity, is_settled);
        if wrong.is_empty() {
            return self.look_for_rows(audit);
        }
        Next::Request(Effect::Reset(wrong))
    }

    /// Reads the present rows if leases are missing: the last scan may be some seconds old.
    pub(super) fn look_for_rows(&mut self, audit: &Audit) -> Next {
        if self.lacks_rows(audit) {
            return Next::Request(Effect::ReadRows(Occasion::Comparison));
        }
        self.end_comparison(audit, true)
    }

    /// Whether a shard that no worker reads has had no row for a failover time, and not only since this
    /// comparison. The owner of a lease whose row was deleted knows the position, and restores the row with
    /// its next renewal.
    fn lacks_rows(&mut self, audit: &Audit) -> bool {
        let (leases, now) = (&audit.seen.leases, audit.listed_at);
        let since = |shard: &ShardId| self.rowless.get(shard).copied().unwrap_or(now);
        let without = self.unread.iter().filter(|shard| !has_row(leases, shard));
        self.rowless = without.map(|shard| (shard.clone(), since(shard))).collect();
        let long = |since: &Instant| now > *since && now >= *since + self.settings.failover;
        self.rowless.values().any(long)
    }

    /// Plans the leases whose rows were deleted before their shards ended, with the last checkpoints that this worker has
    /// read. Their owners would have restored them at later ones.
    pub(super) fn restore(&mut self, identity: &Identity, audit: &mut Audit) -> Next {
        let with_row: BTreeSet<&ShardId> = audit.rows.iter().map(|row| row.shard()).collect();
        let (mut deleted, mut doubtful) = (Vec::new(), Vec::new());
        for shard in sync::in_order(&audit.listed).into_iter().filter(|shard| !with_row.contains(&shard.id)) {
            let new = sync::new_lease(shard, Sequence::TrimHorizon);
            let Some(known) = audit.seen.history.deleted(&new.key) else { continue };
            let lease = restored(new, known);
            // Java workers do not mark the rows of its children.
            let mut marks = [known.stream.as_ref(), None].into_iter();
            let was_finished = |mark| origin::was_finished(shard, &audit.rows, &audit.listed, mark);
            if !origin::is_within(&lease, shard) || marks.any(was_finished) {
                continue;
            }
            // Whether the row was one of this stream: by its mark, or by Kinesis if Java wrote it.
            match (&known.stream, &lease.checkpoint.sequence) {
                (None, Sequence::Number(number)) => doubtful.push((shard.id.clone(), number.clone())),
                (stream, _) if stream.as_ref() == identity.mark(&shard.id) => {}
                (_, _) => continue,
            }
            deleted.push(lease);
        }
        audit.missing = deleted;
        if doubtful.is_empty() {
            return self.list_missing(audit);
        }
        Next::Request(Effect::VerifyNumbers(doubtful))
    }

    /// Lists the shards for the other leases that are missing.
    pub(super) fn list_missing(&mut self, audit: &mut Audit) -> Next {
        audit.rows.extend(audit.missing.iter().cloned());
        Next::Request(Effect::List(Listing::Missing, filter(&audit.rows, &self.settings)))
    }

    /// Creates all missing leases, unless one of them may be restored by its owner.
    pub(super) fn create_missing(
        &mut self,
        moment: &Moment,
        audit: &mut Audit,
        listed: &[Shard],
    ) -> Result<Next, Error> {
        let mut missing = std::mem::take(&mut audit.missing);
        let order = audit.seen.order.as_ref();
        missing.extend(needed(&audit.rows, listed, &self.settings, order, moment.past)?);
        // All in one comparison and ancestors first, because descendants must not start before them.
        let place: BTreeMap<&ShardId, usize> =
            sync::in_order(&audit.listed).into_iter().map(|shard| &shard.id).zip(0..).collect();
        missing.sort_by_key(|lease| place.get(lease.shard()).copied());
        if missing.iter().any(|lease| self.may_be_restored(lease, audit)) {
            return Ok(self.end_comparison(audit, false));
        }
        if missing.is_empty() {
            return Ok(self.end_comparison(audit, true));
        }
        Ok(Next::Request(Effect::Create(missing)))
    }

    /// Whether a row was deleted so recently that its owner may restore it.
    fn may_be_restored(&self, lease: &Lease, audit: &Audit) -> bool {
        let (seen, now, failover) = (&audit.seen, audit.listed_at, self.settings.failover);
        self.rowless.get(lease.shard()).is_some_and(|since| now < *since + failover)
            || seen.history.deleted_for(&lease.key, now).is_some_and(|time| time < failover)
            || seen.leases.iter().any(|row| row.key == lease.key)
    }
}

fn has_row(leases: &[Lease], shard: &ShardId) -> bool {
    leases.iter().any(|lease| lease.shard() == shard)
}

/// A new lease at the last known checkpoint.
fn restored(new: Lease, known: &Known) -> Lease {
    Lease {
        checkpoint: known.checkpoint.clone(),
        latest_from: known.latest_from,
        park: known.park.clone(),
        pause: known.pause.clone(),
        ..new
    }
}

/// Rows that cannot be right: `SHARD_END` for an open shard, or rows of an earlier stream. Their shards are read from
/// their oldest records. `is_settled` tells whether a finished row has been so for long enough.
pub(super) fn wrong(
    leases: &[Lease],
    listed: &[Shard],
    identity: &Identity,
    is_settled: impl Fn(&LeaseKey) -> bool,
) -> Vec<Wrong> {
    let mut found = Vec::new();
    for (lease, shard) in origin::impossible(leases, listed) {
        let Some(stream) = identity.mark(lease.shard()) else { continue };
        let settled = !lease.is_complete() || is_settled(&lease.key);
        // Of a row without a mark only `SHARD_END` is known to be wrong: a Java worker may hold it for
        // another stream.
        let ours = match &lease.stream {
            Some(mark) => mark == stream,
            None => lease.is_complete(),
        };
        if settled && ours {
            found.push(Wrong { lease: lease.clone(), shard: shard.clone(), stream: stream.clone() });
        }
    }
    found
}

/// The shards to be listed for [`needed`].
pub(super) fn filter(rows: &[Lease], settings: &Settings) -> Filter {
    if rows.is_empty() { settings.first.unwrap_or(settings.initial).filter() } else { Filter::All }
}

/// The leases to be created, with the order in force: that of the rows, or `order` of the other streams of the table. If
/// there are no rows at all, the application is new or its rows were deleted.
pub(super) fn needed(
    rows: &[Lease],
    listed: &[Shard],
    settings: &Settings,
    order: Option<&Pause>,
    past: i64,
) -> Result<Vec<Lease>, sync::Error> {
    let &Settings { initial, first, ignore_unexpected_children, .. } = settings;
    // Leases that another worker began to create, perhaps with another configuration, are completed as they were begun.
    let first = rows.iter().find_map(|row| row.initial).or(first);
    let initial = first.unwrap_or(initial);
    let mut missing = if rows.is_empty() {
        sync::plan_first(listed, initial)?
    } else {
        let mut missing = sync::plan_missing(listed, rows, initial, ignore_unexpected_children)?;
        missing.extend(origin::orphans(rows, listed));
        missing
    };
    missing.iter_mut().for_each(|lease| lease.initial = first);
    let orders = in_force(rows).into_iter().chain(order);
    if let Some(pause) = orders.reduce(|one, other| if one.covers(other) { one } else { other }) {
        missing.iter_mut().for_each(|lease| include(lease, pause, past));
    }
    Ok(missing)
}
