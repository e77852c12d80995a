//! The line of `processRecords` in parts, so that nobody needs to hold all of it, or to make it at once.

use std::ops::Range;

use crate::message::{Action, Record};
use crate::text::{open, put_number, put_string};

/// A record of its own, whose parts are written as they are: JSON has an escape for nothing that is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRecord<'a> {
    /// As in [`Record`].
    pub data: &'a [u8],
    /// As in [`Record`].
    pub partition_key: &'a [u8],
    /// As in [`Record`].
    pub sequence_number: &'a [u8],
    /// As in [`Record`].
    pub approximate_arrival_timestamp: Option<Millis>,
}

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Millis {
    /// In digits, of which a time of our days has so many.
    Digits([u8; 13]),
    /// As a number.
    Number(i64),
}

impl Millis {
    /// The number.
    pub fn number(&self) -> i64 {
        match self {
            Self::Digits(digits) => digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')),
            Self::Number(number) => *number,
        }
    }
}

impl PlainRecord<'_> {
    /// Bytes that it takes in a line, at most.
    pub fn needed(&self) -> usize {
        self.data.len() + self.partition_key.len() + self.sequence_number.len() + BatchLine::AROUND
    }
}

/// [`BatchLine::begin`], for each record [`BatchLine::record`], [`BatchLine::end`]: together they are what
/// [`crate::ToChild::write_line`] writes.
#[derive(Debug)]
pub struct BatchLine {
    any: bool,
}

impl BatchLine {
    /// No record takes more than this besides its texts, nor do the beginning and the end of a line.
    pub const AROUND: usize = 144;

    /// Appends what comes before the records.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        open(out, Action::ProcessRecords.name());
        out.extend_from_slice(b",\"records\":[");
        Self { any: false }
    }

    /// Appends a record.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.open_record(out);
        out.extend_from_slice(record.data);
        Self::close_record(record, out);
    }

    /// Appends a record, and says where in `out` its number is.
    pub fn plain_record(&mut self, record: &PlainRecord<'_>, out: &mut Vec<u8>) -> Range<usize> {
        out.reserve(record.needed());
        self.open_record(out);
        out.extend_from_slice(record.data);
        out.extend_from_slice(b"\",\"partitionKey\":\"");
        out.extend_from_slice(record.partition_key);
        out.extend_from_slice(b"\",\"sequenceNumber\":\"");
        let begin = out.len();
        out.extend_from_slice(record.sequence_number);
        let number = begin..out.len();
        out.extend_from_slice(b"\",\"approximateArrivalTimestamp\":");
        match record.approximate_arrival_timestamp {
            Some(Millis::Digits(digits)) => out.extend_from_slice(&digits),
            Some(Millis::Number(number)) => {
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"subSequenceNumber\":0,\"action\":\"record\"}");
        number
    }

    /// Appends what comes before a record's data; the data itself comes next, from wherever it is.
    pub fn open_record(&mut self, out: &mut Vec<u8>) {
        let head: &[u8] =
            if std::mem::replace(&mut self.any, true) { b",{\"data\":\"" } else { b"{\"data\":\"" };
        out.extend_from_slice(head);
    }

    /// Appends what comes after a record's data. Its `action` comes last, unlike everyone else's: Java's field
    /// order.
    pub fn close_record(record: &Record<'_>, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"\",\"partitionKey\":");
        put_string(out, record.partition_key);
        out.extend_from_slice(b",\"sequenceNumber\":");
        put_string(out, record.sequence_number);
        out.extend_from_slice(b",\"approximateArrivalTimestamp\":");
        let time = record.approximate_arrival_timestamp.map_or("null", |time| number.format(time));
        out.extend_from_slice(time.as_bytes());
        out.extend_from_slice(b",\"subSequenceNumber\":");
        out.extend_from_slice(number.format(record.sub_sequence_number).as_bytes());
        out.extend_from_slice(b",\"action\":\"record\"}");
    }

    /// Appends the rest, its `\n` included.
    pub fn end(self, millis_behind_latest: Option<i64>, out: &mut Vec<u8>) {
        out.push(b']');
        put_number(out, "millisBehindLatest", millis_behind_latest);
        out.extend_from_slice(b"}\n");
    }
}
