//! The account of a run with bad records: a record is settled once a child has processed it, or once its dead
//! letter has a durable copy.

use std::collections::{BTreeMap, BTreeSet};

use multilangd::lease::WorkerId;
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::ShardId;

use crate::stream::Stream;

#[derive(Debug, Default)]
pub struct Ledger {
    /// Records at which every child fails.
    pub bad: BTreeSet<u64>,
    /// Thousandths of records put that are bad.
    pub bad_rate: u32,
    /// Thousandths of batches at which a child fails, whatever they hold.
    pub flaky: u32,
    /// Every batch fails, as while a database is down.
    pub outage: bool,
    /// The destination rejects letters.
    pub is_down: bool,
    /// Letters that were accepted during the present outage, by worker and shard, since a record was processed.
    pub during_outage: BTreeMap<(WorkerId, ShardId), BTreeSet<u64>>,
    /// From which age records are not delivered, in milliseconds, and whether they are skipped then.
    pub max_age: Option<(i64, bool)>,
    /// When each record was put, by the wall clock of the simulation.
    pub put_at: BTreeMap<u64, i64>,
    skipped: BTreeMap<ShardId, BTreeSet<u64>>,
    processed: BTreeMap<ShardId, BTreeSet<u64>>,
    lettered: BTreeMap<ShardId, BTreeSet<u64>>,
}

impl Ledger {
    pub fn with_bad(bad_rate: u32) -> Self {
        Self { bad_rate, ..Self::default() }
    }

    /// Whether there is a destination of dead letters.
    pub fn writes_letters(&self) -> bool {
        !matches!(self.max_age, Some((_, true)))
    }

    pub fn processed(&mut self, shard: &ShardId, numbers: &[u64]) {
        self.processed.entry(shard.clone()).or_default().extend(numbers);
    }

    /// Whether this is the first letter of the record.
    pub fn lettered(&mut self, worker: &WorkerId, shard: &ShardId, number: u64) -> bool {
        if self.outage {
            self.during_outage.entry((worker.clone(), shard.clone())).or_default().insert(number);
        }
        self.lettered.entry(shard.clone()).or_default().insert(number)
    }

    pub fn has_letter(&self, shard: &ShardId, number: u64) -> bool {
        self.lettered.get(shard).is_some_and(|all| all.contains(&number))
    }

    /// Whether the record is too old at this time.
    pub fn is_old(&self, number: u64, wall: i64) -> bool {
        let put_at = self.put_at.get(&number).copied().unwrap_or(i64::MAX);
        self.max_age.is_some_and(|(millis, _)| put_at < wall.saturating_sub(millis))
    }

    /// A worker skipped these records of a shard. Returns them, and one that it must not skip.
    pub fn skipped(
        &mut self,
        stream: &Stream,
        shard: &ShardId,
        (first, last): (u64, u64),
        wall: i64,
    ) -> (Vec<u64>, Option<u64>) {
        let records = stream.shards.get(shard).into_iter().flat_map(|line| line.records.iter().copied());
        // Also those that a child has processed without a checkpoint: the next child does not get them again.
        let all: Vec<u64> = records.filter(|number| (first..=last).contains(number)).collect();
        let needless = all.iter().copied().find(|number| !self.is_old(*number, wall));
        self.skipped.entry(shard.clone()).or_default().extend(&all);
        (all, needless)
    }

    /// Whether the record is not delivered any more.
    pub fn is_passed(&self, shard: &ShardId, number: u64) -> bool {
        self.has_letter(shard, number) || self.skipped.get(shard).is_some_and(|all| all.contains(&number))
    }

    fn is_settled(&self, shard: &ShardId, number: u64) -> bool {
        self.is_passed(shard, number) || self.processed.get(shard).is_some_and(|all| all.contains(&number))
    }

    /// A record up to this position that is not settled.
    pub fn unsettled(&self, stream: &Stream, shard: &ShardId, up_to: &Position) -> Option<u64> {
        let reached = match &up_to.sequence {
            Sequence::Number(number) => number.as_str().parse().unwrap(),
            Sequence::ShardEnd => u64::MAX,
            _ => 0,
        };
        let records = stream.shards.get(shard)?.records.iter();
        records
            .copied()
            .take_while(|number| *number <= reached)
            .find(|number| !self.is_settled(shard, *number))
    }

    /// All records of the stream that are not settled.
    pub fn all_unsettled(&self, stream: &Stream) -> Vec<u64> {
        let of_line = |line: &crate::stream::Line| {
            let id = line.id.clone();
            line.records.clone().into_iter().filter(move |number| !self.is_settled(&id, *number)).collect()
        };
        stream.shards.values().flat_map(|line| -> Vec<u64> { of_line(line) }).collect()
    }

    /// Letters of records that children can process.
    pub fn needless(&self) -> Vec<u64> {
        self.lettered.values().flatten().copied().filter(|number| !self.bad.contains(number)).collect()
    }
}
