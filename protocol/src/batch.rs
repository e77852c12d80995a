//! Writes the line of `processRecords` piece by piece, so that a caller never has to hold the whole line in
//! memory or build it in one step. In KCL: `ProcessRecordsMessage` and `JsonFriendlyRecord`.

use std::ops::Range;

use crate::action::Action;
use crate::record::Record;
use crate::text::{open, put_number, put_string};

/// A plain (not aggregated) record. All fields must need no JSON escaping, because they are written verbatim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRecord<'a> {
    /// As in [`Record`]: standard base64 with padding.
    pub data: &'a [u8],
    /// As in [`Record`]: UTF-8.
    pub partition_key: &'a [u8],
    /// As in [`Record`]: decimal digits.
    pub sequence_number: &'a [u8],
    /// As in [`Record`]; milliseconds or seconds since 1970.
    pub approximate_arrival_timestamp: Option<Time<'a>>,
}

/// A point in time, in the representation in which the caller already has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time<'a> {
    /// Milliseconds since 1970.
    Millis(i64),
    /// Seconds since 1970, as text.
    Seconds(Seconds<'a>),
}

impl Time<'_> {
    /// Converts to milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        match self {
            Self::Millis(millis) => *millis,
            Self::Seconds(seconds) => seconds.millis(),
        }
    }
}

/// Seconds since 1970 with three decimals, as text: `1795405837.483` or `1.795405837483E9`, the forms in which
/// Kinesis and its emulators write current times.
///
/// A reference and not a parsed value: storing a parsed value in two parts and reloading it as one defeats the
/// store-to-load forwarding of the CPU, which then waits until the pending copy of the record's data is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds<'a>(&'a [u8; 16]);

impl<'a> Seconds<'a> {
    /// Number of digits; the text has a decimal point besides.
    const DIGITS: usize = 13;

    /// Reads the number at the beginning of `text`. None if `text` does not begin with a number in one of the
    /// two forms.
    pub fn read(text: &'a [u8; 16]) -> Option<Self> {
        let read = Self(text);
        if read.has_exponent() && !text.ends_with(b"E9") {
            return None;
        }
        // A digit is 0x30 to 0x39: its upper half is 3, and is still 3 after adding 6.
        const ONES: u128 = (1 << (8 * Seconds::DIGITS)) / 0xff;
        let (digits, upper) = (read.digits(), ONES * 0xf0);
        let is_all = digits & upper == ONES * 0x30 && (digits + ONES * 6) & upper == ONES * 0x30;
        let is_point = text[read.point()] == b'.';
        (is_all && is_point && text[0] != b'0').then_some(read)
    }

    /// Length of the number's text in bytes.
    pub fn length(&self) -> usize {
        if self.has_exponent() { 16 } else { 14 }
    }

    /// Whether the number is written in scientific notation.
    fn has_exponent(&self) -> bool {
        self.0[1] == b'.'
    }

    /// Index of the decimal point.
    fn point(&self) -> usize {
        if self.has_exponent() { 1 } else { 10 }
    }

    /// The digits of the time in milliseconds as ASCII, the first in the lowest byte.
    fn digits(&self) -> u128 {
        const ALL: u128 = (1 << (8 * Seconds::DIGITS)) - 1;
        let text = u128::from_le_bytes(*self.0);
        let before = (1 << (8 * self.point())) - 1;
        (text & before | (text >> 8) & !before) & ALL
    }

    /// Converts to milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        let digits = self.digits().to_le_bytes();
        digits[..Self::DIGITS].iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    }

    fn put_millis(&self, out: &mut Vec<u8>) {
        // Copies all 16 bytes, which is a single store, and cuts off the rest.
        out.extend_from_slice(&self.digits().to_le_bytes());
        out.truncate(out.len() - (size_of::<u128>() - Self::DIGITS));
    }
}

impl PlainRecord<'_> {
    /// Upper bound of the record's size in a line, in bytes.
    pub fn needed(&self) -> usize {
        self.data.len() + self.partition_key.len() + self.sequence_number.len() + BatchLine::AROUND
    }
}

/// The position of fields of the last record within a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// Decimal digits.
    pub sequence_number: Range<usize>,
    /// Decimal digits, with an optional sign, or `null`.
    pub approximate_arrival_timestamp: Range<usize>,
}

/// Writer of one line. [`BatchLine::begin`], [`BatchLine::record`] for each record and [`BatchLine::end`]
/// together produce the same bytes as [`crate::ToChild::write_line`].
#[derive(Debug)]
pub struct BatchLine {
    any: bool,
    last: Places,
}

impl BatchLine {
    /// Upper bound, in bytes, of what a record takes besides its fields, and of what begins and ends a line.
    pub const AROUND: usize = 144;

    /// Appends everything that precedes the records.
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

    /// Appends a record whose fields need no escaping.
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

    /// The field positions, within `out`, of the record that the last call of [`BatchLine::plain_record`]
    /// appended.
    pub fn last(&self) -> &Places {
        &self.last
    }

    /// Appends everything that precedes a record's data. The caller appends the data itself next.
    pub fn open_record(&mut self, out: &mut Vec<u8>) {
        let head: &[u8] =
            if std::mem::replace(&mut self.any, true) { b",{\"data\":\"" } else { b"{\"data\":\"" };
        out.extend_from_slice(head);
    }

    /// Appends everything that follows a record's data. `action` comes last, unlike in all other messages: this
    /// is Java's field order.
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

    /// Appends the end of the line, its `\n` included.
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
    fn seconds_in_both_notations_are_read_as_milliseconds() {
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
    fn seconds_with_any_wrong_byte_are_rejected() {
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
