//! The records of the cases, and records of the user.

use std::io::{self, BufRead};

use crate::batch::MOST_RECORDS;
use crate::record::{Data, Record};
use crate::record_lines;
use crate::sequence::SequenceNumber;

/// A batch of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// No records.
    None,
    /// A few short records.
    Plain,
    /// Records with empty data.
    Empty,
    /// Records with every byte value.
    Binary,
    /// Text of many scripts in data and partition keys.
    Unicode,
    /// A record with this many bytes.
    Large(usize),
    /// This many short records.
    Many(usize),
    /// User records of two KPL aggregates.
    Aggregated,
    /// The records of the user.
    Own,
}

/// Texts that decoders, line splitters and terminals mistake: scripts, direction marks, line separators of Unicode,
/// a character of four bytes, quotes and backslashes, control characters.
const TEXTS: [&str; 12] = [
    "Grüße, señor, Ångström",
    "Привет, κόσμε",
    "שלום مرحبا",
    "日本語 한국어 中文",
    "नमस्ते สวัสดี",
    "emoji 😀👩\u{200d}👩\u{200d}👧 and 𝒳",
    "line\u{2028}paragraph\u{2029}next\u{85}line",
    "quote \" backslash \\ slash / {\"action\":\"status\"}",
    "tab\tand\r\nline end\nin it",
    "\u{1}\u{1f}\u{7f} \u{feff}bom",
    "e\u{301} combined, \u{202e}reversed\u{202c}",
    "\u{10ffff}\u{fffd}",
];

/// Time at which the records arrived, in milliseconds since 1970.
const ARRIVAL: i64 = 1_700_000_000_000;

/// The sequence number of the n-th record, in the form of Kinesis.
pub fn number(n: u64) -> SequenceNumber {
    let digits = format!("49{:0>54}", 6_000_000_000 + n);
    SequenceNumber::parse(&digits).unwrap_or_else(|| unreachable!("digits"))
}

fn record(n: u64, sub: u64, key: &str, data: &[u8]) -> Record {
    let arrival = ARRIVAL.saturating_add_unsigned(n);
    Record {
        sequence: number(n),
        sub,
        partition_key: key.into(),
        data: Data::encode(data),
        arrival: Some(arrival),
    }
}

/// The records of a batch. `next` is the number of its first record, and is advanced.
pub fn records(sample: Sample, next: &mut u64, own: &[Record]) -> Vec<Record> {
    let mut next_number = || {
        *next += 1;
        *next
    };
    let mut plain = |key: &str, data: &[u8]| record(next_number(), 0, key, data);
    match sample {
        Sample::None => Vec::new(),
        Sample::Plain => {
            (1..=3).map(|n| plain(&format!("key-{n}"), format!("record {n}").as_bytes())).collect()
        }
        Sample::Empty => (1..=3).map(|n| plain(&format!("key-{n}"), b"")).collect(),
        Sample::Binary => {
            let all: Vec<u8> = (0..=u8::MAX).collect();
            let parts: [&[u8]; 5] = [&all, b"\0", b"\xff\xfe\xfd", b"\xc3\x28\xed\xa0\x80", b"\n\r\n"];
            parts.into_iter().map(|data| plain("binary", data)).collect()
        }
        Sample::Unicode => {
            let longest = "😀".repeat(256);
            TEXTS.iter().copied().chain([longest.as_str()]).map(|text| plain(text, text.as_bytes())).collect()
        }
        Sample::Large(bytes) => {
            let data: Vec<u8> = b"0123456789abcdef".iter().copied().cycle().take(bytes).collect();
            vec![plain("before", b"short"), plain("large", &data), plain("after", b"short")]
        }
        Sample::Many(count) => {
            (0..count).map(|n| plain(&format!("key-{}", n % 10), format!("record {n}").as_bytes())).collect()
        }
        Sample::Aggregated => {
            let mut all = Vec::new();
            for _ in 0..2 {
                let n = next_number();
                all.extend((0..4).map(|sub| record(n, sub, "user", format!("user record {sub}").as_bytes())));
            }
            all
        }
        Sample::Own => {
            own.iter().map(|record| Record { sequence: number(next_number()), ..record.clone() }).collect()
        }
    }
}

/// Most records of a batch of the user's records, and most bytes of their base64, except for a single record: as
/// GetRecords returns them.
const BATCH: (usize, usize) = (MOST_RECORDS, 10 << 20);

/// The batches of a sample: one, or several if it consists of many records of the user.
pub fn batches(sample: Sample, next: &mut u64, own: &[Record]) -> Vec<Vec<Record>> {
    let all = records(sample, next, own);
    if sample != Sample::Own {
        return vec![all];
    }
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for record in all {
        bytes += record.data.len();
        let full = batches
            .last()
            .is_some_and(|last: &Vec<Record>| last.len() == BATCH.0 || !last.is_empty() && bytes > BATCH.1);
        if full {
            bytes = record.data.len();
            batches.push(Vec::new());
        }
        batches.last_mut().into_iter().for_each(|last| last.push(record.clone()));
    }
    batches
}

/// Most bytes of a file of records.
const MOST: u64 = 64 << 20;

/// Why a file of records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("failed to read: {0}")]
    Read(#[from] io::Error),
    /// A line is no record.
    #[error("line {0}: {1}")]
    Line(usize, String),
    /// It is too large.
    #[error("has more than 64 MiB (cut it, as in head -n 1000)")]
    Size,
    /// It has no records.
    #[error("has no records")]
    Empty,
}

/// Reads records: one JSON object a line.
///
/// # Errors
/// The first line that is no record, or why the input cannot be read.
pub fn read(input: impl BufRead) -> Result<Vec<Record>, Unusable> {
    let mut records = Vec::new();
    let mut input = input.take(MOST + 1);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if input.limit() == 0 {
            return Err(Unusable::Size);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (key, data) = record_lines::parse(&line).map_err(|why| Unusable::Line(number, why))?;
        records.push(record(0, 0, &key.unwrap_or_default(), &data));
    }
    if records.is_empty() { Err(Unusable::Empty) } else { Ok(records) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_batches_ascend() {
        let mut next = 0;
        let own = read(&br#"{"partitionKey":"k","text":"a"}"#[..]).unwrap();
        let samples = [Sample::Plain, Sample::Aggregated, Sample::Unicode, Sample::Many(20), Sample::Own];
        let all: Vec<Record> = samples.iter().flat_map(|sample| records(*sample, &mut next, &own)).collect();
        for pair in all.windows(2) {
            assert!(pair[1].order(&pair[0].position()).is_gt(), "{pair:?}");
        }
        assert_eq!(number(1).as_str().len(), 56);
        assert!(records(Sample::None, &mut next, &[]).is_empty());
    }

    #[test]
    fn own_records_are_split_into_batches_of_get_records() {
        let sizes = |own: &[Record]| -> Vec<usize> {
            batches(Sample::Own, &mut 0, own).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&vec![record(0, 0, "k", b"x"); 20_001]), [10_000, 10_000, 1]);
        let large = record(0, 0, "k", &vec![0; 6 << 20]);
        assert_eq!(sizes(&[large.clone(), large, record(0, 0, "k", b"x")]), [1, 2]);
        assert_eq!(batches(Sample::None, &mut 0, &[]), [vec![]]);
    }

    #[test]
    fn file_of_records_is_read_or_its_line_named() {
        let read = |text: &str| super::read(text.as_bytes());
        let all =
            read("{\"partitionKey\":\"k\",\"data\":\"aGk=\",\"shard\":\"s\"}\n\n{\"text\":\"h\u{e9}\"}\n")
                .unwrap();
        let seen: Vec<(&str, usize)> = all.iter().map(|r| (r.partition_key.as_str(), r.size())).collect();
        assert_eq!(seen, [("k", 2), ("", 3)]);
        for (text, line) in
            [("{\"text\":\"a\"}\nx\n", 2), ("{\"data\":\"?\"}", 1), ("{\"partitionKey\":\"k\"}", 1)]
        {
            assert!(matches!(read(text), Err(Unusable::Line(at, _)) if at == line), "{text}");
        }
        assert!(matches!(read("\n"), Err(Unusable::Empty)));
    }
}
