//! Finds the position of a time or of a sequence number in a shard.
//!
//! A lease row cannot store a time: of `AT_TIMESTAMP` KCL stores only the name. A checkpoint names the last record that
//! needs no delivery, so the position is the last record that precedes the bound. Kinesis cannot read backwards, so the
//! shard is read up to the bound from earlier and earlier times, until a record precedes it. If none does, that is the
//! oldest record.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::plan::Found;
use crate::record::Record;
use crate::retrieval::{Feed, ShardOfStream, Source, Start};
use crate::sequence::{Position, SequenceNumber};
use crate::shard::{Shard, ShardId};

/// The first window before the bound, in milliseconds.
const FIRST: i64 = 1_000;
/// Factor from a window to the next one: at most this much is read again.
const GROWTH: i64 = 8;
/// No record is older: the longest retention is 365 days.
const LONGEST: i64 = 400 * 86_400_000;
/// Longest time for one shard.
const LIMIT: Duration = Duration::from_secs(120);
/// Most shards at a time.
const TOGETHER: usize = 16;

/// The first record to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The first record that arrived at that time or later, in milliseconds since 1970.
    Time(i64),
    /// The record with that sequence number.
    Number(SequenceNumber),
}

impl Bound {
    /// A record without an arrival time is treated as one that must be delivered.
    fn follows(&self, record: &Record) -> bool {
        match self {
            Self::Time(millis) => record.arrival.is_none_or(|arrival| arrival >= *millis),
            Self::Number(number) => record.sequence.order(number) != Ordering::Less,
        }
    }
}

/// A position was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to find the position in shard {shard} in {LIMIT:?} (nothing was written; check that Kinesis responds)"
)]
pub struct Unlocated {
    shard: ShardId,
}

/// A sequence number is none of the shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outside {
    /// It precedes the shard's first one.
    #[error("the sequence number precedes shard {0}, which starts at {1}")]
    Before(ShardId, Box<SequenceNumber>),
    /// It follows the shard's last one.
    #[error("the sequence number follows shard {0}, which ends at {1}")]
    After(ShardId, Box<SequenceNumber>),
    /// Kinesis rejects it.
    #[error("Kinesis rejects the sequence number for shard {0}")]
    Rejected(ShardId),
}

/// Checks that a sequence number is within the range with which the shard is listed.
///
/// # Errors
/// [`Outside`].
pub fn within(shard: &Shard, number: &SequenceNumber) -> Result<(), Outside> {
    if number.order(&shard.starting) == Ordering::Less {
        return Err(Outside::Before(shard.id.clone(), Box::new(shard.starting.clone())));
    }
    match &shard.ending {
        Some(ending) if number.order(ending) == Ordering::Greater => {
            Err(Outside::After(shard.id.clone(), Box::new(ending.clone())))
        }
        Some(_) | None => Ok(()),
    }
}

/// One pass over a part of a shard, up to the bound.
#[derive(Debug, Default)]
struct Pass {
    before: Option<Position>,
    /// The arrival of the first record that follows; the inner value is none if that record has none.
    first: Option<Option<i64>>,
}

impl Pass {
    /// Notes records in order. Returns whether the bound is reached.
    fn note(&mut self, records: &[Record], bound: &Bound) -> bool {
        for record in records {
            if bound.follows(record) {
                self.first = Some(record.arrival);
                return true;
            }
            self.before = Some(Position::record(record.sequence.clone(), record.sub));
        }
        false
    }
}

/// The windows before the bound, each longer than the one before.
fn windows() -> impl Iterator<Item = i64> {
    std::iter::successors(Some(FIRST), |window| (*window < LONGEST).then(|| (*window * GROWTH).min(LONGEST)))
}

async fn pass(source: &Source, shard: &ShardId, start: Start, bound: &Bound) -> Pass {
    let of = ShardOfStream { id: shard.clone(), range: None, stream: None };
    let mut feed = Feed::open(source, of, start);
    let mut pass = Pass::default();
    while let Some(batch) = feed.next().await {
        let is_over = batch.end.is_some() || batch.millis_behind_latest == Some(0);
        if pass.note(&batch.records.decode(), bound) || is_over {
            break;
        }
    }
    pass
}

async fn find(source: &Source, shard: &ShardId, bound: &Bound, now: i64) -> Found {
    // Windows end at the time of the bound. That of a number is the arrival of its record.
    let end = match bound {
        Bound::Time(millis) => *millis,
        Bound::Number(number) => {
            let at = pass(source, shard, Start::At(number.clone()), bound).await;
            at.first.flatten().unwrap_or(now)
        }
    };
    let mut follows = false;
    for window in windows() {
        let start = Start::AtTimestamp(end.saturating_sub(window).max(0));
        let pass = pass(source, shard, start, bound).await;
        follows = pass.first.is_some();
        if pass.before.is_some() {
            return Found { before: pass.before, follows };
        }
    }
    Found { before: None, follows }
}

/// Finds the bound in each of the shards. `now` is the time at AWS, in milliseconds since 1970.
///
/// # Errors
/// [`Unlocated`] for one of the shards.
pub async fn locate(
    source: &Source,
    shards: impl IntoIterator<Item = ShardId>,
    bound: &Bound,
    now: i64,
) -> Result<Vec<(ShardId, Found)>, Unlocated> {
    let permits = Arc::new(Semaphore::new(TOGETHER));
    let mut finding = JoinSet::new();
    for shard in shards {
        let (source, bound, permits) = (source.clone(), bound.clone(), permits.clone());
        finding.spawn(async move {
            let _permit = permits.acquire_owned().await;
            match timeout(LIMIT, find(&source, &shard, &bound, now)).await {
                Ok(found) => Ok((shard, found)),
                Err(_) => Err(Unlocated { shard }),
            }
        });
    }
    finding.join_all().await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize, arrival: Option<i64>) -> Record {
        Record { arrival, ..Record::plain(number, "k", b"d") }
    }

    fn position(number: usize) -> Position {
        Position::record(SequenceNumber::parse(&number.to_string()).unwrap(), 0)
    }

    #[test]
    fn position_is_the_last_record_before_the_bound() {
        let records =
            [record(5, Some(100)), record(6, Some(200)), record(7, Some(200)), record(8, Some(300))];
        let at = |bound: Bound| {
            let mut pass = Pass::default();
            let reached = pass.note(&records, &bound);
            (reached, pass.before)
        };
        assert_eq!(at(Bound::Time(200)), (true, Some(position(5))));
        assert_eq!(at(Bound::Time(201)), (true, Some(position(7))));
        assert_eq!(at(Bound::Time(100)), (true, None));
        assert_eq!(at(Bound::Time(301)), (false, Some(position(8))));
        let number = |number: usize| Bound::Number(SequenceNumber::parse(&number.to_string()).unwrap());
        assert_eq!(at(number(7)), (true, Some(position(6))));
        assert_eq!(at(number(5)), (true, None));
    }

    #[test]
    fn record_after_a_later_one_is_not_skipped() {
        // Arrival times are approximate and need not ascend.
        let records = [record(5, Some(100)), record(6, Some(300)), record(7, Some(150))];
        let mut pass = Pass::default();
        assert!(pass.note(&records, &Bound::Time(200)));
        assert_eq!(pass.before, Some(position(5)));
        let mut pass = Pass::default();
        assert!(pass.note(&[record(1, None)], &Bound::Time(200)) && pass.before.is_none());
    }

    #[test]
    fn windows_grow_to_the_longest_retention() {
        let all: Vec<i64> = windows().collect();
        assert_eq!((all[0], all[1], *all.last().unwrap()), (1_000, 8_000, LONGEST));
        assert!(all.len() < 15, "{all:?}");
    }
}
