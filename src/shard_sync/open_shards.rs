//! Compares the open shards of the stream with the leases. The stream is authoritative, not the table.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tracing::warn;

use super::{AUDIT, Error, Rounds, ShardSync};
use crate::coordinator::{Handle, Snapshot};
use crate::lease::history::Known;
use crate::lease::{Lease, LeaseKey, origin, sync, update};
use crate::metrics::OfWorker;
use crate::sequence::Sequence;
use crate::shard::{Filter, Shard, ShardId, some};

impl ShardSync {
    /// Runs one audit: shards without a lease get one, a finished row of an open shard is reset, and shards
    /// that no worker reads are counted. Calls `ListShards` once. Returns whether nothing was left to owners that may
    /// restore their rows.
    pub(super) async fn compare(
        &self,
        seen: &Snapshot,
        rounds: &mut Rounds,
        coordinator: &Handle,
    ) -> Result<bool, Error> {
        // Nothing else reveals a recreated stream whose leases can still be read.
        self.compare_identity(&seen.leases, rounds, coordinator).await?;
        let listed = self.shards.list(Filter::All).await?;
        let mut unread: BTreeSet<ShardId> =
            origin::unread(&seen.leases, &listed, &seen.live).into_iter().collect();
        // A row that became unreadable is in no scan, while its owner reads on.
        let is_held =
            |key: &LeaseKey| seen.held.contains(key) && seen.leases.iter().all(|lease| lease.key != *key);
        unread.retain(|shard| !is_held(&LeaseKey::from(shard.clone())));
        let lasting: BTreeSet<ShardId> = unread.intersection(&rounds.unread).cloned().collect();
        if !lasting.is_empty() {
            warn!(
                event = "open_shards_without_reader",
                count = lasting.len(),
                shards = some(&lasting),
                "no live worker reads some open shards"
            );
        }
        self.settings.sink.worker(OfWorker::Unread { shards: Some(unread.len()), lasting: lasting.len() });
        rounds.unread = unread;
        let now = Instant::now();
        // `ListShards` may lag behind the end of a shard.
        let mut changed =
            self.reopen(&seen.leases, &listed, |key| seen.history.finished_for(key, now) >= AUDIT).await?;
        let mut is_complete = true;
        if self.lacks_rows(seen, rounds, now) {
            // Uses the present rows: the last scan may be some seconds old.
            let mut rows = self.table.list().await?;
            let mut missing = self.deleted(&rows, seen, &listed).await?;
            rows.extend(missing.iter().cloned());
            missing.extend(self.needed(&rows).await?);
            // All in one comparison and ancestors first, because descendants must not start before them.
            let place: BTreeMap<&ShardId, usize> =
                sync::in_order(&listed).into_iter().map(|shard| &shard.id).zip(0..).collect();
            missing.sort_by_key(|lease| place.get(lease.shard()).copied());
            is_complete = !missing.iter().any(|lease| self.may_be_restored(lease, seen, rounds, now));
            if is_complete {
                let made = self.make(&missing).await?;
                changed |= made.new + made.there > 0;
            }
        }
        if changed {
            coordinator.look();
        }
        Ok(is_complete)
    }

    /// The leases whose rows were deleted before their shards ended, with the last checkpoints that this worker has read.
    /// Their owners would have restored them at later ones.
    async fn deleted(&self, rows: &[Lease], seen: &Snapshot, listed: &[Shard]) -> Result<Vec<Lease>, Error> {
        let with_row: BTreeSet<&ShardId> = rows.iter().map(|row| row.shard()).collect();
        let mut deleted = Vec::new();
        for shard in sync::in_order(listed).into_iter().filter(|shard| !with_row.contains(&shard.id)) {
            let mut lease = sync::new_lease(shard, Sequence::TrimHorizon);
            let Some(known) = seen.history.deleted(&lease.key) else { continue };
            lease.checkpoint = known.checkpoint.clone();
            lease.latest_from = known.latest_from;
            (lease.park, lease.pause) = (known.park.clone(), known.pause.clone());
            if !origin::is_within(&lease, shard) || !self.is_of_this_stream(&lease, known).await? {
                continue;
            }
            // Java workers do not mark the rows of its children.
            let marks = [known.stream.as_ref(), None];
            if !marks.into_iter().any(|mark| origin::was_finished(shard, rows, listed, mark)) {
                deleted.push(lease);
            }
        }
        Ok(deleted)
    }

    /// Whether the row of a lease was one of this stream: by its mark, or by Kinesis if Java wrote it.
    async fn is_of_this_stream(&self, lease: &Lease, known: &Known) -> Result<bool, Error> {
        match (&known.stream, &lease.checkpoint.sequence) {
            (None, Sequence::Number(number)) => Ok(self.shards.has_number(lease.shard(), number).await?),
            (stream, _) => Ok(*stream == self.recognition.mark(lease.shard())),
        }
    }

    /// Whether a row was deleted so recently that its owner may restore it.
    fn may_be_restored(&self, lease: &Lease, seen: &Snapshot, rounds: &Rounds, now: Instant) -> bool {
        let is_recent = |since: &Instant| now < *since + self.settings.failover;
        rounds.rowless.get(lease.shard()).is_some_and(is_recent)
            || seen.history.deleted_for(&lease.key, now).is_some_and(|time| time < self.settings.failover)
            || seen.leases.iter().any(|row| row.key == lease.key)
    }

    /// Whether a shard that no worker reads has had no row for a failover time, and not only since this
    /// comparison. The owner of a lease whose row was deleted knows the position, and restores the row with
    /// its next renewal.
    fn lacks_rows(&self, seen: &Snapshot, rounds: &mut Rounds, now: Instant) -> bool {
        let without = |shard: &&ShardId| seen.leases.iter().all(|lease| lease.shard() != *shard);
        let since = |shard: &ShardId| rounds.rowless.get(shard).copied().unwrap_or(now);
        rounds.rowless =
            rounds.unread.iter().filter(without).map(|shard| (shard.clone(), since(shard))).collect();
        let long = |since: &Instant| now > *since && now >= *since + self.settings.failover;
        rounds.rowless.values().any(long)
    }

    /// Resets rows that cannot be right: `SHARD_END` for an open shard, rows of an earlier stream, or wrong
    /// ones. These shards are read from their oldest records. Returns whether there were any.
    pub(super) async fn reopen(
        &self,
        leases: &[Lease],
        listed: &[Shard],
        is_settled: impl Fn(&LeaseKey) -> bool,
    ) -> Result<bool, Error> {
        let mut changed = false;
        for (lease, shard) in origin::impossible(leases, listed) {
            let Some(stream) = self.recognition.mark(lease.shard()) else { continue };
            let settled = !lease.is_complete() || is_settled(&lease.key);
            // Of a row without a mark only `SHARD_END` is known to be wrong: a Java worker may hold it for
            // another stream.
            let ours = match &lease.stream {
                Some(mark) => *mark == stream,
                None => lease.is_complete(),
            };
            if settled && ours && self.recognition.is_unchanged(lease.shard()).await {
                warn!(event = "lease_reset",
                    shard = %lease.key, checkpoint = %lease.checkpoint, starting = %shard.starting,
                    "the checkpoint of the lease does not belong to this shard: resetting it to \
                     TRIM_HORIZON"
                );
                let reset = |row: &Lease| {
                    update::reset(row, shard.parents().cloned().collect(), shard.range, Some(&stream))
                };
                self.rewrite(lease, reset).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Another worker counts the unread shards from now on.
    pub(super) fn forget_unread(&self, rounds: &mut Rounds) {
        rounds.unread.clear();
        rounds.rowless.clear();
        self.settings.sink.worker(OfWorker::Unread { shards: None, lasting: 0 });
    }
}
