//! The records of one answer of Kinesis on their way to a child: decoded, or already encoded as the line that
//! the child reads.
//!
//! Most records need no treatment. Their line is encoded while the answer is parsed, when its bytes are in
//! the cache, and not read again. Records are decoded only if some of them must be filtered out, if they are
//! aggregates, or if they arrive out of order.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use multilangd_protocol::{BatchLine, PlainRecord};
use serde::Deserialize;

use crate::budget::Reservation;
use crate::record::{self, Data, Record, Text};
use crate::sequence::{self, Position, SequenceNumber};
use crate::shard::ChildShard;

/// Most records of a GetRecords answer.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html>
pub const MOST_RECORDS: usize = 10_000;

/// The records of one GetRecords answer or one SubscribeToShard event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The records in shard order. Can be empty.
    pub records: Records,
    /// `MillisBehindLatest` as Kinesis reported it.
    pub millis_behind_latest: Option<i64>,
    /// Present if this batch is the last of its shard: the child shards, of which there may be none.
    pub end: Option<Vec<ChildShard>>,
    /// Number of user records that were dropped with their aggregates, by KCL's rules.
    pub dropped: usize,
}

/// The records of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// Decoded records.
    Decoded(Vec<Record>),
    /// One line for the child: at least one record, no aggregate, in ascending order of sequence numbers.
    Encoded(Box<Encoded>),
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Number of records.
    pub records: usize,
    /// Bytes of their decoded data.
    pub data: usize,
    /// Approximate bytes of memory that they hold, data included.
    pub held: usize,
}

impl Records {
    /// The number of records.
    pub fn len(&self) -> usize {
        match self {
            Self::Decoded(records) => records.len(),
            Self::Encoded(ready) => ready.sizes.records,
        }
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the records. Takes time linear in their number if they are decoded.
    pub fn sizes(&self) -> Sizes {
        match self {
            Self::Decoded(records) => records.iter().fold(Sizes::default(), |all, record| Sizes {
                records: all.records + 1,
                data: all.data + record.size(),
                held: all.held + record.weight(),
            }),
            Self::Encoded(ready) => ready.sizes,
        }
    }

    /// The sequence number of the first record.
    pub fn first(&self) -> Option<&SequenceNumber> {
        match self {
            Self::Decoded(records) => records.first().map(|record| &record.sequence),
            Self::Encoded(ready) => Some(&ready.first),
        }
    }

    /// The sequence number of the last record.
    pub fn last(&self) -> Option<&SequenceNumber> {
        match self {
            Self::Decoded(records) => records.last().map(|record| &record.sequence),
            Self::Encoded(ready) => Some(&ready.last),
        }
    }

    /// The position and the arrival time, in milliseconds since 1970, of the last record.
    pub fn end(&self) -> Option<(Position, Option<i64>)> {
        match self {
            Self::Decoded(records) => records.last().map(|record| (record.position(), record.arrival)),
            Self::Encoded(ready) => Some((Position::record(ready.last.clone(), 0), ready.arrival)),
        }
    }

    /// The arrival time of the first record, in milliseconds since 1970.
    pub fn first_arrival(&self) -> Option<i64> {
        match self {
            Self::Decoded(records) => records.first().and_then(|record| record.arrival),
            Self::Encoded(ready) => ready.first_arrival,
        }
    }

    /// The greatest position; out of order it need not be the position of the last record.
    pub fn greatest(&self) -> Option<Position> {
        match self {
            Self::Decoded(records) => {
                let by_position =
                    |a: &&Record, b: &&Record| a.sequence.order(&b.sequence).then_with(|| a.sub.cmp(&b.sub));
                records.iter().max_by(by_position).map(Record::position)
            }
            Self::Encoded(ready) => Some(Position::record(ready.last.clone(), 0)),
        }
    }

    /// Removes the records that do not follow `position`.
    #[must_use]
    pub fn behind(self, position: &Position) -> Self {
        let is_behind = |record: &Record| record.order(position) == Ordering::Greater;
        if let Self::Encoded(ready) = &self
            && Position::record(ready.first.clone(), 0).order(position) == Ordering::Greater
        {
            return self;
        }
        let mut records = self.decode();
        records.retain(is_behind);
        Self::Decoded(records)
    }

    /// The first records, at most `most` of them, and the rest.
    #[must_use]
    pub fn split(self, most: usize) -> (Self, Self) {
        if self.len() <= most {
            return (self, Self::default());
        }
        let mut records = self.decode();
        let rest = records.split_off(most);
        (Self::Decoded(records), Self::Decoded(rest))
    }

    /// The records in parts of at most `most` records, each of which is moved once.
    #[must_use]
    pub fn cut(self, most: usize) -> Vec<Self> {
        if self.is_empty() {
            return Vec::new();
        }
        if self.len() <= most {
            return vec![self];
        }
        let mut parts = Vec::with_capacity(self.len().div_ceil(most.max(1)));
        let mut records = self.decode().into_iter();
        loop {
            let part: Vec<Record> = records.by_ref().take(most.max(1)).collect();
            if part.is_empty() {
                return parts;
            }
            parts.push(Self::Decoded(part));
        }
    }

    /// These records, followed by others.
    #[must_use]
    pub fn joined(self, others: Self) -> Self {
        match (self.is_empty(), others.is_empty()) {
            (_, true) => self,
            (true, false) => others,
            (false, false) => {
                let mut records = self.decode();
                records.append(&mut others.decode());
                Self::Decoded(records)
            }
        }
    }

    /// Whether each record follows the one before it. Takes time linear in their number if they are decoded.
    pub fn is_ascending(&self) -> bool {
        match self {
            Self::Decoded(records) => records.is_sorted_by(|a, b| a.order(&b.position()) == Ordering::Less),
            Self::Encoded(_) => true,
        }
    }

    /// The decoded records.
    pub fn decode(self) -> Vec<Record> {
        match self {
            Self::Decoded(records) => records,
            Self::Encoded(ready) => ready.decode(),
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Decoded(Vec::new())
    }
}

impl From<Vec<Record>> for Records {
    fn from(records: Vec<Record>) -> Self {
        Self::Decoded(records)
    }
}

impl FromIterator<Record> for Records {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self::Decoded(records.into_iter().collect())
    }
}

/// Records encoded as the `processRecords` line that the child reads, with the line's end. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    line: Bytes,
    sizes: Sizes,
    first: SequenceNumber,
    last: SequenceNumber,
    /// The arrival time of the first record, in milliseconds since 1970.
    first_arrival: Option<i64>,
    /// The arrival time of the last record, in milliseconds since 1970.
    arrival: Option<i64>,
}

impl Encoded {
    /// The line, including the newline.
    pub fn line(&self) -> &Bytes {
        &self.line
    }

    /// The decoded records.
    pub fn decode(&self) -> Vec<Record> {
        #[derive(Deserialize)]
        struct Line<'a> {
            #[serde(borrow)]
            records: Vec<One<'a>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct One<'a> {
            data: &'a str,
            partition_key: &'a str,
            sequence_number: &'a str,
            approximate_arrival_timestamp: Option<i64>,
        }
        let record = |one: &One<'_>| {
            Some(Record {
                sequence: SequenceNumber::parse(one.sequence_number)?,
                sub: 0,
                partition_key: Text::within(&self.line, one.partition_key.as_bytes())?,
                data: Data::within(&self.line, one.data.as_bytes()),
                arrival: one.approximate_arrival_timestamp,
            })
        };
        let line = serde_json::from_slice(&self.line).ok();
        let records = line.and_then(|line: Line<'_>| line.records.iter().map(record).collect());
        records.unwrap_or_else(|| unreachable!("a line that was made here can be read"))
    }
}

/// Encodes records into the line of a batch, one record at a time.
#[derive(Debug)]
pub struct Encoder {
    room: Reservation,
    text: Vec<u8>,
    line: BatchLine,
    sizes: Sizes,
    /// Range of the first record's sequence number in `text`.
    first: Range<usize>,
    /// Range of the first record's arrival time in `text`.
    first_arrival: Range<usize>,
}

impl Encoder {
    /// Batches whose first record has at least this many bytes are not pre-encoded: the extra copy would cost
    /// more than it saves.
    pub const LARGE: usize = 32 * 1024;

    /// Starts a line in which `count` records of the size of `like` are expected; `room` grows to that size.
    ///
    /// # Errors
    /// Returns `room` unchanged if the budget has no room of that size.
    pub fn begin(mut room: Reservation, like: &PlainRecord<'_>, count: usize) -> Result<Self, Reservation> {
        let bytes = like.needed().saturating_mul(count).saturating_add(2 * BatchLine::AROUND);
        let Some(mut text) = room.memory(bytes) else { return Err(room) };
        let line = BatchLine::begin(&mut text);
        Ok(Self { room, text, line, sizes: Sizes::default(), first: 0..0, first_arrival: 0..0 })
    }

    /// Adds a record whose fields are valid. Returns none if the record cannot follow in this line: its
    /// sequence number is not greater than the previous one, or the budget has no room for it.
    pub fn add(&mut self, record: &PlainRecord<'_>) -> Option<()> {
        let number = record.sequence_number;
        if self.sizes.records > 0
            && sequence::order(number, &self.text[self.line.last().sequence_number.clone()])
                != Ordering::Greater
        {
            return None;
        }
        let needed = self.text.len() + record.needed() + BatchLine::AROUND;
        if needed > self.text.capacity() {
            self.grow(needed)?;
        }
        self.line.plain_record(record, &mut self.text);
        if self.sizes.records == 0 {
            self.first = self.line.last().sequence_number.clone();
            self.first_arrival = self.line.last().approximate_arrival_timestamp.clone();
        }
        self.sizes.records += 1;
        self.sizes.data += record::size(record.data);
        Some(())
    }

    fn grow(&mut self, needed: usize) -> Option<()> {
        let roomy = needed + needed / 4;
        let to = [roomy, needed].into_iter().find(|bytes| self.room.resize(*bytes))?;
        self.text.reserve_exact(to - self.text.len());
        Some(())
    }

    /// The finished line; none if no record was added.
    pub fn end(mut self, millis_behind_latest: Option<i64>) -> Option<Encoded> {
        if self.sizes.records == 0 {
            return None;
        }
        // Returning none here would mean "no records" to the caller, which would skip them. A panic only ends
        // the retrieval of this shard.
        let number = |at: &Range<usize>| {
            SequenceNumber::of_digits(&self.text[at.clone()])
                .unwrap_or_else(|| unreachable!("a number of a record in the line is digits"))
        };
        let last = self.line.last();
        // None for `null`, which Kinesis does not send.
        let time = |at: &Range<usize>| std::str::from_utf8(&self.text[at.clone()]).ok()?.parse().ok();
        let (first_arrival, arrival) = (time(&self.first_arrival), time(&last.approximate_arrival_timestamp));
        let (first, last) = (number(&self.first), number(&last.sequence_number));
        self.line.end(millis_behind_latest, &mut self.text);
        // Fewer records arrived than were expected.
        if self.text.len() < self.text.capacity() / 2 {
            self.text.shrink_to_fit();
        }
        self.room.set(self.text.capacity());
        let sizes = Sizes { held: self.text.len(), ..self.sizes };
        Some(Encoded { line: self.room.fill_memory(self.text), sizes, first, last, first_arrival, arrival })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use multilangd_protocol::{Dialect, Seconds, Time, ToChild};
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Budget;
    use crate::sequence::Sequence;

    /// Decoded records with these sequence numbers and this many bytes of data each.
    fn each(numbers: &[u32], data: usize) -> Vec<Record> {
        let record = |number: &u32| Record {
            sequence: SequenceNumber::parse(&number.to_string()).unwrap(),
            sub: 0,
            partition_key: "é/key that is longer than most are".into(),
            data: Data::encode(&vec![b'x'; data]),
            arrival: (*number != 7).then_some(1_795_405_837_483),
        };
        numbers.iter().map(record).collect()
    }

    fn fields(record: &Record) -> multilangd_protocol::Record<'_> {
        multilangd_protocol::Record {
            data: record.data.as_bytes(),
            partition_key: record.partition_key.as_bytes(),
            sequence_number: record.sequence.as_bytes(),
            approximate_arrival_timestamp: record.arrival,
            sub_sequence_number: 0,
        }
    }

    fn ready(budget: &Arc<Budget>, records: &[Record]) -> Option<Records> {
        let mut line = None;
        for (index, record) in records.iter().enumerate() {
            let seconds = |_| Time::Seconds(Seconds::read(b"1795405837.483,\"").unwrap());
            let time = if index % 2 == 0 { seconds } else { Time::Millis };
            let plain = PlainRecord {
                data: record.data.as_bytes(),
                partition_key: record.partition_key.as_bytes(),
                sequence_number: record.sequence.as_bytes(),
                approximate_arrival_timestamp: record.arrival.map(time),
            };
            if line.is_none() {
                line = Some(Encoder::begin(budget.nothing(), &plain, 1).ok()?);
            }
            line.as_mut().unwrap().add(&plain)?;
        }
        line?.end(Some(9)).map(|ready| Records::Encoded(Box::new(ready)))
    }

    #[test]
    fn encoded_batch_equals_decoded_batch() {
        let budget = Budget::new(1_000_000);
        for (numbers, data) in [(&[7][..], 0), (&[5, 7, 11], 2), (&[9, 10, 100, 101], 5_000)] {
            let each = each(numbers, data);
            let ready = ready(&budget, &each).unwrap();
            let records: Vec<_> = each.iter().map(fields).collect();
            let mut line = Vec::new();
            let message = ToChild::ProcessRecords { records: &records, millis_behind_latest: Some(9) };
            message.write_line(Dialect::Current, &mut line);
            let Records::Encoded(as_line) = &ready else { panic!("{ready:?}") };
            assert_eq!(*as_line.line(), line);
            assert!(budget.held() >= line.len());
            let each = Records::Decoded(each);
            assert_eq!((ready.len(), ready.is_empty()), (each.len(), each.is_empty()));
            assert_eq!((ready.first(), ready.last(), ready.end()), (each.first(), each.last(), each.end()));
            assert_eq!(ready.first_arrival(), each.first_arrival());
            assert_eq!(ready.greatest(), each.greatest());
            assert_eq!(ready.sizes().data, each.sizes().data);
            assert_eq!(ready.decode(), each.decode());
        }
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn encoding_fails_out_of_order_or_without_room() {
        let budget = Budget::new(10_000);
        assert_eq!(ready(&budget, &each(&[5, 5], 1)), None);
        assert_eq!(ready(&budget, &each(&[5, 7, 6], 1)), None);
        let _full = budget.take(9_500);
        assert_eq!(ready(&budget, &each(&[5], 1_000)), None, "no beginning");
        assert_eq!(ready(&budget, &[each(&[5], 1), each(&[6], 1_000)].concat()), None, "no more");
        assert_eq!(budget.held(), 9_500);
    }

    proptest! {
        #[test]
        fn behind_removes_the_same_from_encoded_and_decoded_records(
            steps in proptest::collection::vec(1u32..4, 1..9), at in 0u32..30, sub in 0u64..2, sentinel in 0..9,
        ) {
            let numbers: Vec<u32> = steps.iter().scan(4, |sum, step| { *sum += step; Some(*sum) }).collect();
            let each = each(&numbers, 3);
            let ready = ready(&Budget::new(1_000_000), &each).unwrap();
            let position = match sentinel {
                0 => Position::new(Sequence::TrimHorizon),
                1 => Position::shard_end(),
                _ => Position::record(SequenceNumber::parse(&at.to_string()).unwrap(), sub),
            };
            let expected = Records::Decoded(each).behind(&position).decode();
            prop_assert!(expected.iter().all(|record| record.order(&position) == Ordering::Greater));
            prop_assert_eq!(ready.behind(&position).decode(), expected);
        }
    }
}
