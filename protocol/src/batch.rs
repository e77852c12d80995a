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
    pub approximate_arrival_timestamp: Option<Time<'a>>,
}

/// A time, in the form in which it is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time<'a> {
    /// Milliseconds since 1970.
    Millis(i64),
    /// Seconds, as they stand somewhere.
    Seconds(Seconds<'a>),
}

impl Time<'_> {
    /// Milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        match self {
            Self::Millis(millis) => *millis,
            Self::Seconds(seconds) => seconds.millis(),
        }
    }
}

/// `1795405837.483` or `1.795405837483E9`: seconds since 1970 as Kinesis and others write those of our days.
///
/// A place and not a value: a value would be put down in two pieces and taken up whole, for which a processor waits
/// until all that it wrote before has left it, and that is a record's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds<'a>(&'a [u8; 16]);

impl<'a> Seconds<'a> {
    /// There are so many, and a point among them.
    const DIGITS: usize = 13;

    /// None if it doesn't begin with such a number.
    pub fn read(text: &'a [u8; 16]) -> Option<Self> {
        let read = Self(text);
        if read.has_exponent() && !text.ends_with(b"E9") {
            return None;
        }
        // 0x30 to 0x39: the upper half is a three, and stays one with six more.
        const ONES: u128 = (1 << (8 * Seconds::DIGITS)) / 0xff;
        let (digits, upper) = (read.digits(), ONES * 0xf0);
        let is_all = digits & upper == ONES * 0x30 && (digits + ONES * 6) & upper == ONES * 0x30;
        let is_point = text[read.point()] == b'.';
        (is_all && is_point && text[0] != b'0').then_some(read)
    }

    /// Bytes of the text.
    pub fn length(&self) -> usize {
        if self.has_exponent() { 16 } else { 14 }
    }

    fn has_exponent(&self) -> bool {
        self.0[1] == b'.'
    }

    fn point(&self) -> usize {
        if self.has_exponent() { 1 } else { 10 }
    }

    /// Those of the milliseconds, the first in the lowest byte.
    fn digits(&self) -> u128 {
        const ALL: u128 = (1 << (8 * Seconds::DIGITS)) - 1;
        let text = u128::from_le_bytes(*self.0);
        let before = (1 << (8 * self.point())) - 1;
        (text & before | (text >> 8) & !before) & ALL
    }

    /// In milliseconds.
    pub fn millis(&self) -> i64 {
        let digits = self.digits().to_le_bytes();
        digits[..Self::DIGITS].iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    }

    fn put_millis(&self, out: &mut Vec<u8>) {
        // Whole, so that it is written at once.
        out.extend_from_slice(&self.digits().to_le_bytes());
        out.truncate(out.len() - (size_of::<u128>() - Self::DIGITS));
    }
}

impl PlainRecord<'_> {
    /// Bytes that it takes in a line, at most.
    pub fn needed(&self) -> usize {
        self.data.len() + self.partition_key.len() + self.sequence_number.len() + BatchLine::AROUND
    }
}

/// Where in a line a record has what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// Digits.
    pub sequence_number: Range<usize>,
    /// Digits, perhaps with a sign, or `null`.
    pub approximate_arrival_timestamp: Range<usize>,
}

/// [`BatchLine::begin`], for each record [`BatchLine::record`], [`BatchLine::end`]: together they are what
/// [`crate::ToChild::write_line`] writes.
#[derive(Debug)]
pub struct BatchLine {
    any: bool,
    last: Places,
}

impl BatchLine {
    /// No record takes more than this besides its texts, nor do the beginning and the end of a line.
    pub const AROUND: usize = 144;

    /// Appends what comes before the records.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        open(out, Action::ProcessRecords.name());
        out.extend_from_slice(b",\"records\":[");
        Self { any: false, last: Places::default() }
    }

    /// Appends a record.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.open_record(out);
        out.extend_from_slice(record.data);
        Self::close_record(record, out);
    }

    /// Appends a record.
    pub fn plain_record(&mut self, record: &PlainRecord<'_>, out: &mut Vec<u8>) {
        out.reserve(record.needed());
        self.open_record(out);
        out.extend_from_slice(record.data);
        out.extend_from_slice(b"\",\"partitionKey\":\"");
        out.extend_from_slice(record.partition_key);
        out.extend_from_slice(b"\",\"sequenceNumber\":\"");
        let begin = out.len();
        out.extend_from_slice(record.sequence_number);
        (self.last.sequence_number.start, self.last.sequence_number.end) = (begin, out.len());
        out.extend_from_slice(b"\",\"approximateArrivalTimestamp\":");
        let begin = out.len();
        match record.approximate_arrival_timestamp {
            Some(Time::Seconds(seconds)) => seconds.put_millis(out),
            Some(Time::Millis(millis)) => {
                out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
            }
            None => out.extend_from_slice(b"null"),
        }
        let time = &mut self.last.approximate_arrival_timestamp;
        (time.start, time.end) = (begin, out.len());
        out.extend_from_slice(b",\"subSequenceNumber\":0,\"action\":\"record\"}");
    }

    /// Where in `out` the last plain record has what.
    pub fn last(&self) -> &Places {
        &self.last
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

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &[u8; 16]) -> Option<(i64, usize, String)> {
        let read = Seconds::read(text)?;
        let mut out = Vec::new();
        read.put_millis(&mut out);
        Some((read.millis(), read.length(), String::from_utf8(out).unwrap()))
    }

    #[test]
    fn seconds_are_milliseconds_with_a_point() {
        let expected = (1_795_405_837_483, "1795405837483".to_owned());
        for (text, length) in
            [(b"1795405837.483,\"", 14), (b"1795405837.48399", 14), (b"1.795405837483E9", 16)]
        {
            assert_eq!(millis(text), Some((expected.0, length, expected.1.clone())));
        }
        for text in [
            b"0795405837.483,\"",
            b"0.795405837483E9",
            b"1.795405837483E8",
            b"17954058374.83,\"",
            b"1..95405837483E9",
        ] {
            assert_eq!(millis(text), None);
        }
    }

    #[test]
    fn every_byte_of_them_counts() {
        for at in 0..14 {
            for byte in 0..=u8::MAX {
                let mut text = *b"1795405837.483\xff\xff";
                text[at] = byte;
                let is_good = match at {
                    0 => matches!(byte, b'1'..=b'9'),
                    10 => byte == b'.',
                    _ => byte.is_ascii_digit(),
                };
                assert_eq!(Seconds::read(&text).is_some(), is_good, "{byte} at {at}");
            }
        }
    }
}
