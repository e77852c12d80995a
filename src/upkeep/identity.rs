//! The lease table compared with the stream's identity: at the start, when something suggests that the stream is another
//! one than before, and in each audit.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::{Error, Memory, Upkeep, unrelated};
use crate::coordinator::Handle;
use crate::lease::origin::{self, Foreign, Marks, StartOver};
use crate::lease::{Lease, table, update};
use crate::shard::{self, Filter, ShardId};
use crate::stream::{Relation, StreamId};

/// Between two attempts to learn an identity that was denied.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// Between two reports of rows that belong to another stream.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Readings of many shards suspect the same at once.
const GATHER: Duration = Duration::from_millis(200);

impl Upkeep {
    /// Compares the lease table with the stream, before anything is written. The table is there.
    ///
    /// # Errors
    /// [`Error::Foreign`] if the table belongs to another stream; else table or stream can't be used now.
    pub async fn recognise(&self) -> Result<(), Error> {
        let current = self.recognition.describe().await?;
        let leases = self.table.list().await?;
        self.accept(&leases, current).await
    }

    async fn accept(&self, leases: &[Lease], mut current: Option<StreamId>) -> Result<(), Error> {
        let name = &self.settings.stream;
        let mut doubtful = BTreeSet::new();
        match origin::marks(leases, current.as_ref(), name)? {
            Marks::Same | Marks::CreatedAgain => {}
            Marks::None => {
                doubtful = origin::doubtful(leases, &self.shards.list(Filter::All).await?, name)?;
                for shard in &doubtful {
                    error!(
                        %shard,
                        "the lease's checkpoint is not of this stream: it is left alone. If the stream was deleted and \
                         created again, delete this row of the lease table"
                    );
                }
            }
            Marks::Later(later) => {
                warn!(
                    stored = %later, described = current.as_ref().map(ToString::to_string),
                    "leases are marked with a later creation time of the stream than DescribeStreamSummary gives: no \
                     lease is reset"
                );
                current = None;
            }
        }
        self.recognition.recognise(current, doubtful);
        Ok(())
    }

    /// Where the table is empty, two workers with different streams may both begin it: the first row decides whose it
    /// is, before any other is made.
    pub(super) async fn make_first(&self, leases: &[Lease]) -> Result<(), Error> {
        let Some(first) = leases.first() else { return Ok(()) };
        self.make(std::slice::from_ref(first)).await?;
        let row = self.table.get(&first.shard).await?;
        let mark = row.as_ref().and_then(|row| row.stream.as_ref());
        if let (Some(mark), Some(current)) = (mark, self.recognition.current())
            && mark.relation(&current) == Relation::Different
        {
            return Err(Error::Foreign(Foreign::Marked {
                shard: first.shard.clone(),
                stored: mark.arn().to_owned(),
                configured: current.arn().to_owned(),
            }));
        }
        Ok(())
    }

    /// Makes a table of an earlier stream of this name one of the present stream. Says whether anything was to be done.
    /// Safe to repeat, and to do beside others.
    pub(super) async fn start_over(&self, leases: &[Lease]) -> Result<bool, Error> {
        let Some(current) = self.recognition.current() else { return Ok(false) };
        let is_earlier = |lease: &Lease| origin::is_of_an_earlier_stream(lease, Some(&current));
        if !leases.iter().any(is_earlier) {
            return Ok(false);
        }
        let listed = self.shards.list(Filter::All).await?;
        // The list has no identity of its own.
        if self.recognition.describe().await?.as_ref() != Some(&current) {
            let changed = "the stream changed while its shards were listed".to_owned();
            return Err(shard::Error::Unavailable(changed).into());
        }
        let plan = origin::start_over(leases, &listed, &current);
        let StartOver { create, mark, reset, remark, remove } = &plan;
        warn!(
            stream = %current, created = create.len(), reset = reset.len(), removed = remove.len(),
            kept = remark.len(),
            "the stream was deleted and created again: its leases begin at the oldest record"
        );
        self.make(create).await?;
        self.rewrite(mark.iter().map(|(lease, earlier)| (*lease, update::remark(lease, earlier)))).await?;
        for together in unrelated(reset, |(_, shard)| (&shard.id, shard.parents())) {
            let reset = |(lease, shard): &(Lease, &'_ shard::Shard)| {
                update::reset(lease, shard.parents().cloned().collect(), shard.range, Some(&current))
            };
            self.rewrite(together.iter().map(|pair| (&pair.0, reset(pair)))).await?;
        }
        self.rewrite(remark.iter().map(|lease| (*lease, update::remark(lease, &current)))).await?;
        self.rewrite(remove.iter().map(|lease| (lease, update::retire(lease)))).await?;
        for lease in remove {
            self.table.delete(&lease.shard).await?;
        }
        Ok(!plan.is_empty())
    }

    /// Carries conditional writes out, a few at once. One that is refused was done by somebody else, or is planned again.
    pub(super) async fn rewrite<'a>(
        &self,
        updates: impl Iterator<Item = (&'a Lease, update::Update)>,
    ) -> Result<(), Error> {
        let updates: Vec<(&Lease, update::Update)> = updates.collect();
        for together in updates.chunks(super::PARALLEL) {
            let mut writes = JoinSet::new();
            for (lease, update) in together {
                let (table, shard, update) = (self.table.clone(), lease.shard.clone(), update.clone());
                let was = lease.checkpoint.clone();
                writes.spawn(async move {
                    let written = table.update(&shard, &update).await;
                    match written {
                        Ok(_) => {
                            info!(%shard, earlier = %was, "rewrote the lease");
                            Ok(())
                        }
                        Err(table::Error::Conflict(_)) => Ok(()),
                        Err(error) => Err(error),
                    }
                });
            }
            for written in writes.join_all().await {
                written?;
            }
        }
        Ok(())
    }

    /// A reading, or a look at the table, suspects that the stream is another one than before.
    pub(super) async fn suspicion(&self, memory: &mut Memory, coordinator: &Handle) {
        sleep(GATHER).await;
        let outcome = async {
            let leases = self.table.list().await?;
            self.compare_identity(&leases, memory, coordinator).await
        };
        if let Err(error) = outcome.await {
            warn!(%error, "failed to compare the lease table with the stream, will try again");
        }
    }

    /// In each audit, where a row is marked otherwise than it should be or the identity is unknown.
    pub(super) async fn follow(
        &self,
        leases: &[Lease],
        memory: &mut Memory,
        coordinator: &Handle,
    ) -> Result<(), Error> {
        let unknown = self.recognition.current().is_none();
        let due = memory.described.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        let odd = leases.iter().any(|lease| !self.recognition.accepts(lease.stream.as_ref()));
        if odd || unknown && due {
            memory.described = Some(Instant::now());
            self.compare_identity(leases, memory, coordinator).await?;
        }
        Ok(())
    }

    async fn compare_identity(
        &self,
        leases: &[Lease],
        memory: &mut Memory,
        coordinator: &Handle,
    ) -> Result<(), Error> {
        let Some(described) = self.recognition.describe().await? else { return Ok(()) };
        let current = self.recognition.current();
        if current.as_ref() != Some(&described) {
            match self.accept(leases, Some(described)).await {
                Err(Error::Foreign(foreign)) => self.report_foreign(&foreign, memory),
                accepted => accepted?,
            }
        } else if let Err(foreign) = origin::marks(leases, current.as_ref(), &self.settings.stream) {
            self.report_foreign(&foreign, memory);
        }
        if self.start_over(leases).await? {
            coordinator.look();
        }
        Ok(())
    }

    /// Rows of another stream are never acquired, and there is a reader less for this one.
    fn report_foreign(&self, foreign: &Foreign, memory: &mut Memory) {
        if memory.reported.is_none_or(|at| at.elapsed() >= REPORT_AGAIN) {
            memory.reported = Some(Instant::now());
            error!(error = %foreign, "workers of different streams use one lease table");
        }
    }
}

/// For log lines: not all of many.
pub(super) fn some(shards: &BTreeSet<ShardId>) -> Vec<&str> {
    shards.iter().take(10).map(ShardId::as_str).collect()
}
