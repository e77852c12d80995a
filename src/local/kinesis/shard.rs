//! A shard: its records in order, its end, and reading from it.
//!
//! Invariants: the index and the position of a record are assigned under one lock, so that a reader never
//! sees a record before one with a lower number; arrival times never decrease within a shard; a record is in
//! the log file, if there is one, before it is in memory, and in memory before it is acknowledged; a closed
//! shard accepts no more records.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::clock::{Now, Timestamp, saturating_millis};
use super::hash::HashRange;
pub(super) use super::journal::{Record, shard_id, shard_number};
use super::limits::Limits;
use super::sequence::{LAST_INDEX, Sequence};
use super::store::{Restored, ShardFile};

/// The immutable properties of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Its number in the stream, in the order of creation.
    pub(super) number: u32,
    /// The shard that it was split from, or the first of the two that it was merged from.
    pub(super) parent: Option<u32>,
    /// The second of the two shards that it was merged from.
    pub(super) adjacent_parent: Option<u32>,
    pub(super) range: HashRange,
    /// See [`Sequence::epoch`].
    pub(super) epoch: u64,
    pub(super) opened: Timestamp,
}

/// A record to be put.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) partition_key: String,
    pub(super) data: Bytes,
}

/// Why a record was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A limit of the shard was exceeded.
    Throttled,
    /// The record could not be stored.
    Failed(String),
}

/// The end of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) at: Timestamp,
    pub(super) children: Vec<u32>,
}

/// The result of a read.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Arc<Record>>,
    /// Index at which to continue.
    pub(super) next: u64,
    /// Zero if no record is left to read.
    pub(super) behind: Duration,
    /// The sequence number before `next`, after which to continue.
    pub(super) last: Sequence,
    /// The child shards, if the shard is closed and no record is left.
    pub(super) end: Option<Vec<u32>>,
}

/// Limits of a read.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtMost {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// A shard and its records.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) lineage: Lineage,
    log: Mutex<Log>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Log {
    records: VecDeque<Arc<Record>>,
    next: u64,
    last_arrival: Timestamp,
    closed: Option<Closed>,
    accepted: u64,
    file: Option<ShardFile>,
    limits: Option<Limits>,
}

impl Shard {
    pub(super) fn new(lineage: Lineage, file: Option<ShardFile>, limits: Option<Limits>) -> Self {
        Self {
            log: Mutex::new(Log {
                records: VecDeque::new(),
                next: 1,
                last_arrival: lineage.opened,
                closed: None,
                accepted: 0,
                file,
                limits,
            }),
            lineage,
            changed: watch::Sender::new(()),
        }
    }

    /// Adds the records of an earlier run.
    pub(super) fn restore(&self, kept: Restored) {
        let mut log = self.log();
        log.last_arrival = kept.last_arrival.map_or(log.last_arrival, |last| last.max(log.last_arrival));
        log.records = kept.records.into_iter().map(Arc::new).collect();
        log.next = kept.next;
        log.file = Some(kept.file);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // No code under this lock panics between two dependent changes.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self) -> String {
        shard_id(self.lineage.number)
    }

    pub(super) fn sequence(&self, index: u64, arrival: Timestamp) -> Sequence {
        Sequence::new(self.lineage.epoch, self.lineage.number, index, arrival)
    }

    pub(super) fn starting_sequence(&self) -> Sequence {
        self.sequence(0, self.lineage.opened)
    }

    pub(super) fn ending_sequence(&self) -> Option<Sequence> {
        let closed = self.log().closed.clone()?;
        Some(self.sequence(LAST_INDEX, closed.at))
    }

    pub(super) fn closed(&self) -> Option<Closed> {
        self.log().closed.clone()
    }

    /// Number of records accepted in this run.
    pub(super) fn accepted(&self) -> u64 {
        self.log().accepted
    }

    /// Whether no record is stored.
    pub(super) fn is_empty(&self) -> bool {
        self.log().records.is_empty()
    }

    /// Notified of each append and of the end.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Appends records in the given order. Each has its own result; the accepted ones are in the log, on disk
    /// if there is one, when this returns.
    pub(super) fn append(&self, entries: Vec<Entry>, now: Now) -> Vec<Result<Sequence, Refused>> {
        let mut log = self.log();
        if log.closed.is_some() {
            return refuse_all(entries.len(), "the shard is closed");
        }
        let arrival = now.wall.max(log.last_arrival);
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut taken = Vec::with_capacity(entries.len());
        let mut index = log.next;
        for entry in entries {
            let size = entry.data.len() + entry.partition_key.len();
            if log.limits.as_mut().is_some_and(|limits| !limits.write(size, now.instant)) {
                outcomes.push(Err(Refused::Throttled));
                continue;
            }
            outcomes.push(Ok(self.sequence(index, arrival)));
            taken.push(Arc::new(Record {
                index,
                arrival,
                partition_key: entry.partition_key,
                data: entry.data,
            }));
            index += 1;
        }
        if taken.is_empty() {
            return outcomes;
        }
        if let Some(file) = &mut log.file
            && let Err(error) = file.append(&taken)
        {
            tracing::error!(shard = self.id(), %error, "failed to write records");
            return refuse_all(outcomes.len(), &format!("failed to write records: {error}"));
        }
        log.next = index;
        log.last_arrival = arrival;
        log.accepted += taken.len() as u64;
        log.records.extend(taken);
        drop(log);
        self.changed.send_replace(());
        outcomes
    }

    /// Closes the shard. `at` must not be before the last arrival.
    pub(super) fn close(&self, at: Timestamp, children: Vec<u32>) {
        self.log().closed = Some(Closed { at, children });
        self.changed.send_replace(());
    }

    /// Wakes all tasks that wait for records, so that they check the stream's state.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn last_arrival(&self) -> Timestamp {
        self.log().last_arrival
    }

    /// Removes the records that arrived before `horizon`.
    pub(super) fn trim(&self, horizon: Timestamp) {
        let mut log = self.log();
        while log.records.front().is_some_and(|record| record.arrival < horizon) {
            log.records.pop_front();
        }
    }

    /// Index of the next record to arrive.
    pub(super) fn tip(&self) -> u64 {
        self.log().next
    }

    /// Index of the first record that arrived at `time` or later, or of the next one to arrive.
    pub(super) fn at_time(&self, time: Timestamp) -> u64 {
        let log = self.log();
        let place = log.records.partition_point(|record| record.arrival < time);
        log.records.get(place).map_or(log.next, |record| record.index)
    }

    /// Counts a GetRecords call; false if the shard's limits refuse it.
    pub(super) fn admit_read(&self, now: Now) -> bool {
        self.log().limits.as_mut().is_none_or(|limits| limits.read(now.instant))
    }

    /// Counts the bytes returned by a GetRecords call.
    pub(super) fn has_read(&self, bytes: usize) {
        if let Some(limits) = &mut self.log().limits {
            limits.has_read(bytes);
        }
    }

    /// Reads from index `from`; the first record is returned whatever its size.
    pub(super) fn read(&self, from: u64, at_most: AtMost, now: Timestamp) -> Batch {
        let log = self.log();
        let first = log.records.partition_point(|record| record.index < from);
        let mut records = Vec::new();
        let mut bytes = 0;
        for record in log.records.range(first..).take(at_most.records) {
            bytes += record.size();
            if bytes > at_most.bytes && !records.is_empty() {
                break;
            }
            records.push(Arc::clone(record));
        }
        let unread = log.records.get(first + records.len());
        // If no record is unread, everything before the tip was read or trimmed.
        let next = unread.map_or_else(|| from.max(log.next), |record| record.index);
        let behind = match (unread, records.last()) {
            // Never zero while a record is left: consumers interpret zero as "caught up".
            (Some(_), Some(last)) => now.since(last.arrival).max(Duration::from_millis(1)),
            (Some(unread), None) => now.since(unread.arrival).max(Duration::from_millis(1)),
            (None, _) => Duration::ZERO,
        };
        let end = match (&log.closed, unread) {
            (Some(closed), None) => Some(closed.children.clone()),
            (Some(_) | None, _) => None,
        };
        let last_arrival = records.last().map_or(log.last_arrival, |last| last.arrival);
        Batch {
            last: self.sequence(next.saturating_sub(1).min(log.next - 1), last_arrival),
            records,
            next,
            behind,
            end,
        }
    }
}

impl Batch {
    /// `MillisBehindLatest`.
    pub(super) fn millis_behind(&self) -> u64 {
        saturating_millis(self.behind)
    }

    /// Size of the records, as it counts against the limits.
    pub(super) fn size(&self) -> usize {
        self.records.iter().map(|record| record.size()).sum()
    }
}

fn refuse_all(count: usize, why: &str) -> Vec<Result<Sequence, Refused>> {
    vec![Err(Refused::Failed(why.to_owned())); count]
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;

    const EVERYTHING: AtMost = AtMost { records: 10_000, bytes: 10 << 20 };

    fn shard() -> Shard {
        let lineage = Lineage {
            number: 3,
            parent: None,
            adjacent_parent: None,
            range: HashRange::ALL,
            epoch: 1_700_000_000,
            opened: Timestamp::from_millis(1_700_000_000_000),
        };
        Shard::new(lineage, None, None)
    }

    fn at(millis: u64) -> Now {
        Now { wall: Timestamp::from_millis(1_700_000_000_000 + millis), instant: clock::now().instant }
    }

    fn put(shard: &Shard, data: &'static [u8], now: Now) -> Sequence {
        let entry = Entry { partition_key: "k".to_owned(), data: Bytes::from_static(data) };
        shard.append(vec![entry], now).remove(0).unwrap()
    }

    #[test]
    fn numbers_increase_between_start_and_end() {
        let shard = shard();
        let a = put(&shard, b"a", at(1));
        let b = put(&shard, b"b", at(1));
        shard.close(at(2).wall, vec![4, 5]);
        assert!(shard.starting_sequence() < a && a < b);
        assert!(b < shard.ending_sequence().unwrap());
    }

    #[test]
    fn arrival_never_decreases() {
        let shard = shard();
        put(&shard, b"a", at(10));
        put(&shard, b"b", at(5));
        let batch = shard.read(1, EVERYTHING, at(20).wall);
        assert_eq!(batch.records[1].arrival, at(10).wall);
    }

    #[test]
    fn read_returns_at_least_one_record() {
        let shard = shard();
        put(&shard, b"aaaaaaaaaa", at(1));
        put(&shard, b"bbbbbbbbbb", at(2));
        let at_most = AtMost { records: 10, bytes: 5 };
        let batch = shard.read(1, at_most, at(3).wall);
        assert_eq!((batch.records.len(), batch.next, batch.millis_behind()), (1, 2, 2));
    }

    #[test]
    fn answer_that_reaches_the_end_reports_it() {
        let shard = shard();
        put(&shard, b"a", at(1));
        shard.close(at(2).wall, vec![4, 5]);
        let batch = shard.read(1, EVERYTHING, at(3).wall);
        assert_eq!((batch.records.len(), batch.end), (1, Some(vec![4, 5])));
        let none = AtMost { records: 0, ..EVERYTHING };
        assert_eq!(shard.read(1, none, at(3).wall).end, None);
    }

    #[test]
    fn reading_continues_after_trimmed_records() {
        let shard = shard();
        put(&shard, b"a", at(1));
        put(&shard, b"b", at(2));
        shard.trim(at(2).wall);
        let batch = shard.read(1, EVERYTHING, at(3).wall);
        assert_eq!((batch.records.len(), batch.next), (1, 3));
        shard.trim(at(3).wall);
        assert_eq!(shard.read(1, EVERYTHING, at(4).wall).next, 3);
    }

    #[test]
    fn closed_shard_accepts_no_records() {
        let shard = shard();
        shard.close(at(1).wall, vec![4]);
        let entry = Entry { partition_key: "k".to_owned(), data: Bytes::new() };
        assert!(shard.append(vec![entry], at(2))[0].is_err());
    }

    #[test]
    fn time_finds_the_first_record_not_before_it() {
        let shard = shard();
        for millis in [10, 20, 20, 30] {
            put(&shard, b"x", at(millis));
        }
        let found = [0, 10, 11, 20, 30, 31].map(|millis| shard.at_time(at(millis).wall));
        assert_eq!(found, [1, 1, 2, 2, 4, 5]);
    }
}
