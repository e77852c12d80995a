//! Compares the lease table with the stream's identity: at the start, when another stream is suspected, and
//! in each audit.

use std::collections::BTreeSet;

use tracing::{error, info, warn};

use super::ShardSync;
use super::event::{Compared, Error, Made};
use crate::lease::orders::{self, Pause};
use crate::lease::origin::{self, Foreign, Marks, StartOver, Step};
use crate::lease::update::{self, Change, Update};
use crate::lease::{Lease, of_stream, table};
use crate::shard::{self, Filter, Shard, ShardId};
use crate::stream::{Relation, StreamId};

/// Number of checkpoints that are verified with Kinesis if a table has no marks; all of them if Kinesis
/// refuses only some of these.
const PROBES: usize = 8;
/// Most attempts to write a row while its owner renews it.
const REWRITES: u32 = 3;

/// The outcome of a conditional write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rewritten {
    Done,
    /// The row had changed and was not written.
    Changed(Box<Lease>),
    /// The row does not exist.
    Gone,
}

impl ShardSync {
    /// Compares the lease table, which exists, with the stream, before anything is written.
    ///
    /// # Errors
    /// [`Error::Foreign`] if the table belongs to another stream; otherwise the table or the stream cannot be
    /// used now.
    pub async fn recognise(&self) -> Result<(), Error> {
        let current = self.recognition.describe().await?;
        let leases = self.table.list().await?;
        self.accept(&leases, current).await
    }

    /// Compares leases of the stream with it, as `DescribeStreamSummary` has described it: [`ShardSync::recognise`] for one
    /// of several streams.
    ///
    /// # Errors
    /// As for [`ShardSync::recognise`].
    pub async fn recognise_as(&self, all: &[Lease], described: Option<StreamId>) -> Result<(), Error> {
        match &self.stream {
            Some(stream) => self.accept(&of_stream::leases(all, stream), described).await,
            None => self.accept(all, described).await,
        }
    }

    async fn accept(&self, leases: &[Lease], mut current: Option<StreamId>) -> Result<(), Error> {
        let name = &self.settings.stream;
        let mut doubtful = BTreeSet::new();
        match origin::marks(leases, current.as_ref(), name)? {
            Marks::Same | Marks::CreatedAgain => {}
            Marks::None => {
                let mut found = origin::positions(leases, &self.shards.list(Filter::All).await?);
                for (asked, (shard, number)) in found.fit.clone().into_iter().enumerate() {
                    if asked >= PROBES && !found.is_mixed() {
                        break;
                    }
                    let has = self.shards.has_number(&shard, &number).await?;
                    found.answered(&shard, has);
                }
                doubtful = found.judge(name)?;
                for shard in &doubtful {
                    error!(event = "checkpoint_foreign",
                        %shard,
                        "the checkpoint of the lease does not belong to this stream and Kinesis rejects \
                         it: the shard is not read (if the stream was deleted and recreated, stop all \
                         workers and delete this row of the lease table)"
                    );
                }
            }
            Marks::Later(later) => {
                warn!(event = "stream_creation_time_older",
                    stored = %later, described = current.as_ref().map(ToString::to_string),
                    "leases name a later creation time of the stream than DescribeStreamSummary returns: \
                     no lease is reset"
                );
                current = None;
            }
        }
        self.recognition.recognise(current, doubtful);
        Ok(())
    }

    /// Creates the first row of an empty table. Two workers with different streams may both start with it:
    /// the first row decides which stream owns the table, before any other row is created.
    pub(super) async fn make_first(&self, leases: &[Lease]) -> Result<Made, Error> {
        let Some(first) = leases.first() else { return Ok(Made::default()) };
        let made = self.make(std::slice::from_ref(first)).await?;
        let row = self.table.get(&first.key).await?;
        let mark = row.as_ref().and_then(|row| row.stream.as_ref());
        if let (Some(mark), Some(current)) = (mark, self.recognition.current())
            && mark.relation(&current) == Relation::Different
        {
            return Err(Error::Foreign(Foreign::Marked {
                lease: first.key.clone(),
                stored: mark.arn().to_owned(),
                configured: current.arn().to_owned(),
            }));
        }
        Ok(made)
    }

    /// Converts the table of an earlier stream of this name to the present stream. Returns whether anything
    /// had to be changed. Idempotent, and safe while other workers do the same.
    pub(super) async fn start_over(&self, leases: &[Lease]) -> Result<bool, Error> {
        let Some(current) = self.recognition.current() else { return Ok(false) };
        let is_earlier = |lease: &Lease| origin::is_of_an_earlier_stream(lease, Some(&current));
        if !leases.iter().any(is_earlier) {
            return Ok(false);
        }
        let listed = self.shards.list(Filter::All).await?;
        // The listing does not contain an identity.
        if self.recognition.describe().await?.as_ref() != Some(&current) {
            let changed = "the stream changed while its shards were listed".to_owned();
            return Err(shard::Error::Unavailable(changed).into());
        }
        let mut refused = BTreeSet::new();
        for (lease, number) in origin::to_ask(leases, &listed, &current) {
            if !self.shards.has_number(lease.shard(), number).await? {
                refused.insert(lease.shard().clone());
            }
        }
        let plan = origin::start_over(leases, &listed, &current, &refused);
        let StartOver { mark, steps, remark, remove } = &plan;
        warn!(event = "stream_recreated",
            stream = %current, leases = leases.len(), changes = steps.len(), removed = remove.len(),
            "the stream was deleted and recreated: resetting its leases to TRIM_HORIZON"
        );
        // The only row that stores the order in force may be one that is deleted.
        self.bring_orders(leases).await?;
        for (lease, earlier) in mark {
            self.rewrite(lease, |row| update::mark(row, earlier)).await?;
        }
        for step in steps {
            match step {
                Step::Create(lease) => {
                    self.make(std::slice::from_ref(lease)).await?;
                }
                Step::Reset(lease, shard) => {
                    let pause = orders::in_force(leases);
                    self.begin_again(lease, shard, &listed, &current, pause).await?;
                }
            }
        }
        for (lease, shard) in remark {
            let row = self.table.get(&lease.key).await?;
            // The owner may have written a refused number again meanwhile.
            let belongs = |row: &Lease| {
                let again = refused.contains(row.shard()) && row.checkpoint == lease.checkpoint;
                row.stream == lease.stream && origin::belongs(row, shard) && !again
            };
            if let Some(row) = row.filter(belongs) {
                let parents = shard.parents().cloned().collect();
                self.rewrite(&row, |row| update::remark(row, &parents, shard.range, &current)).await?;
            }
        }
        for lease in remove {
            if self.rewrite(lease, update::retire).await? == Rewritten::Done {
                self.table.delete(&lease.key).await?;
            }
        }
        Ok(!plan.is_empty())
    }

    /// Resets a row of an earlier stream. Must precede all changes that concern the shard's descendants,
    /// which would take the shard for finished.
    async fn begin_again(
        &self,
        lease: &Lease,
        shard: &Shard,
        listed: &[Shard],
        current: &StreamId,
        pause: Option<&Pause>,
    ) -> Result<(), Error> {
        let parents: BTreeSet<ShardId> = shard.parents().cloned().collect();
        let reset = |row: &Lease| update::reset(row, parents.clone(), shard.range, None);
        match self.rewrite(lease, reset).await? {
            Rewritten::Done => Ok(()),
            Rewritten::Changed(row)
                if row.stream.as_ref() == Some(current) || origin::belongs(&row, shard) =>
            {
                Ok(())
            }
            Rewritten::Gone => {
                // Another worker has reset it, and it was read to its end and deleted since.
                let rows = self.table.list().await?;
                if origin::was_finished(shard, &rows, listed, Some(current)) {
                    return Ok(());
                }
                let pause = orders::in_force(&rows).into_iter().chain(pause);
                let newest = pause.reduce(|one, other| if one.covers(other) { one } else { other });
                self.make(&[origin::first(shard, current, newest)]).await.map(drop)
            }
            Rewritten::Changed(row) => {
                let changed = format!("the lease of {} changed while it was reset", row.key);
                Err(table::Error::Unavailable(changed).into())
            }
        }
    }

    /// Executes a conditional write. A row that its owner has renewed meanwhile is read and written again, as
    /// long as it is otherwise unchanged.
    pub(super) async fn rewrite(
        &self,
        seen: &Lease,
        update: impl Fn(&Lease) -> Update,
    ) -> Result<Rewritten, Error> {
        let mut row = seen.clone();
        for _ in 0..REWRITES {
            let update = update(&row);
            match self.table.update(&row.key, &update).await {
                Ok(_) => {
                    // A write of marks alone leaves the position as it is.
                    if update.changes.iter().any(|change| matches!(change, Change::SetCheckpoint(_))) {
                        info!(event = "lease_reset", shard = %row.key, old_checkpoint = %row.checkpoint, "reset the lease");
                    }
                    return Ok(Rewritten::Done);
                }
                Err(table::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
            match self.table.get(&row.key).await? {
                Some(now) if now.checkpoint == seen.checkpoint && now.stream == seen.stream => row = now,
                Some(now) => return Ok(Rewritten::Changed(Box::new(now))),
                None => return Ok(Rewritten::Gone),
            }
        }
        Ok(Rewritten::Changed(Box::new(row)))
    }

    /// Requests the stream's identity. If it changed, or rows belong to an earlier stream, the leases start
    /// over.
    pub(super) async fn compare_identity(&self, leases: &[Lease]) -> Compared {
        let mut foreign = None;
        let started_over = self.compare_and_start_over(leases, &mut foreign).await;
        Compared { foreign, started_over }
    }

    async fn compare_and_start_over(
        &self,
        leases: &[Lease],
        foreign: &mut Option<Foreign>,
    ) -> Result<bool, Error> {
        let Some(described) = self.recognition.describe().await? else { return Ok(false) };
        let current = self.recognition.current();
        if current.as_ref() != Some(&described) {
            match self.accept(leases, Some(described)).await {
                Err(Error::Foreign(found)) => *foreign = Some(found),
                accepted => accepted?,
            }
        } else if let Err(found) = origin::marks(leases, current.as_ref(), &self.settings.stream) {
            *foreign = Some(found);
        }
        let is_earlier =
            |lease: &Lease| origin::is_of_an_earlier_stream(lease, self.recognition.current().as_ref());
        // Uses the present rows: conditional writes on the rows of a scan that is some seconds old would
        // fail.
        Ok(leases.iter().any(is_earlier) && self.start_over(&self.table.list().await?).await?)
    }
}
