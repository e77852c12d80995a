//! Parses answers of GetRecords and events of a subscription from their bytes while they arrive: into the
//! line for the child, or into records whose data are slices of the body.

mod arriving;
mod scan;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

pub(super) use self::arriving::Arriving;
use crate::batch::Records;
use crate::budget::Budget;
use crate::record::{self, Data, Text};
use crate::retrieval::Answer;
use crate::sequence::SequenceNumber;
use crate::shard::{ChildShard, HashRange};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(borrow, default)]
    records: Vec<Record<'a>>,
    #[serde(borrow)]
    next_shard_iterator: Option<Cow<'a, str>>,
    /// The next position in an event of a subscription; empty at the end of the shard.
    #[serde(borrow)]
    continuation_sequence_number: Option<Cow<'a, str>>,
    millis_behind_latest: Option<i64>,
    #[serde(borrow)]
    child_shards: Option<Vec<Child<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record<'a> {
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow)]
    data: Part<'a>,
    #[serde(borrow, default)]
    partition_key: Part<'a>,
    #[serde(borrow)]
    approximate_arrival_timestamp: Option<&'a RawValue>,
}

/// A text. A `Cow` within another type borrows only with this attribute.
#[derive(Deserialize, Default)]
struct Part<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Child<'a> {
    #[serde(borrow)]
    shard_id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent_shards: Vec<Part<'a>>,
    hash_key_range: Option<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    starting_hash_key: String,
    ending_hash_key: String,
}

/// Parses an answer or an event that arrived in one part, with memory of the budget.
///
/// # Errors
/// The answer is malformed: the fault, and the record.
pub fn read(body: &[u8], budget: &Arc<Budget>) -> Result<Answer, String> {
    let mut arriving = Arriving::new(budget.nothing(), Some(body.len()));
    arriving.push(body).map_err(|bytes| format!("no room for {bytes} bytes"))?;
    arriving.end()
}

/// Parses an answer into single records.
fn read_whole(body: &Bytes) -> Result<Answer, String> {
    scan::scan(body).map_or_else(|| parse(body), Ok)
}

/// Parses an answer of any form as JSON.
fn parse(body: &Bytes) -> Result<Answer, String> {
    let read: Body<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("failed to decode the GetRecords response: {error}"))?;
    let records = read.records.into_iter().map(|record| read_record(body, record));
    let children = read.child_shards.unwrap_or_default();
    let next = read.next_shard_iterator.or(read.continuation_sequence_number);
    Ok(Answer {
        records: records.collect::<Result<Records, _>>()?,
        next: next.filter(|next| !next.is_empty()).map(Cow::into_owned),
        millis_behind_latest: read.millis_behind_latest,
        children: children.iter().map(read_child).collect::<Result<_, _>>()?,
    })
}

impl Part<'_> {
    /// A slice of `body`, unless the text contains escapes.
    fn within(self, body: &Bytes) -> Bytes {
        match self.0 {
            Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        }
    }
}

fn read_record(body: &Bytes, record: Record<'_>) -> Result<record::Record, String> {
    let number = &record.sequence_number;
    let sequence =
        SequenceNumber::parse(number).ok_or_else(|| format!("sequence number {number:?} is not a number"))?;
    let data = Data::of_base64(record.data.within(body))
        .ok_or_else(|| format!("the data of record {number} is not valid base64"))?;
    Ok(record::Record {
        sequence,
        sub: 0,
        partition_key: Text::of_utf8(record.partition_key.within(body)).unwrap_or_default(),
        data,
        arrival: record.approximate_arrival_timestamp.and_then(|time| millis(time.get())),
    })
}

fn read_child(child: &Child<'_>) -> Result<ChildShard, String> {
    let id = &child.shard_id;
    let range = child.hash_key_range.as_ref().and_then(|range| {
        Some(HashRange {
            start: range.starting_hash_key.parse().ok()?,
            end: range.ending_hash_key.parse().ok()?,
        })
    });
    Ok(ChildShard {
        id: id.as_ref().into(),
        parents: child.parent_shards.iter().map(|parent| parent.0.as_ref().into()).collect(),
        range: range.ok_or_else(|| format!("child {id} has no readable hash keys"))?,
    })
}

/// Parses seconds with a fraction and possibly an exponent, to the nearest millisecond. Plain digits are
/// parsed without floating-point numbers, which would make 0.483 slightly less.
fn millis(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(whole) || !is_plain(fraction) {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970")]
        let millis = |seconds: f64| (seconds.abs() < 1e15).then(|| (seconds * 1_000.0).round() as i64);
        return text.parse().ok().and_then(millis);
    }
    let digit = |at: usize| fraction.as_bytes().get(at).map_or(0, |byte| i64::from(byte - b'0'));
    let fraction = digit(0) * 100 + digit(1) * 10 + digit(2) + i64::from(digit(3) >= 5);
    whole.parse::<i64>().ok()?.checked_mul(1_000)?.checked_add(fraction)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Answer, String> {
        read(text.as_bytes(), &Budget::new(100_000))
    }

    #[test]
    fn answer_of_kinesis_is_parsed() {
        let read = answer(
            r#"{"Records":[{"SequenceNumber":"49","ApproximateArrivalTimestamp":1.795405837483E9,"Data":"aGk=",
            "PartitionKey":"k\"é","EncryptionType":"NONE"},{"SequenceNumber":"50","Data":"a\/+=","PartitionKey":""}],
            "NextShardIterator":"AAA","MillisBehindLatest":7}"#,
        )
        .unwrap();
        let records = read.records.decode();
        assert_eq!(records[0].data.as_str(), "aGk=");
        assert_eq!(records[0].partition_key.as_str(), "k\"é");
        assert_eq!(records[0].arrival, Some(1_795_405_837_483));
        assert_eq!((records[1].data.as_str(), records[1].arrival), ("a/+=", None));
        assert_eq!((read.next.as_deref(), read.millis_behind_latest), (Some("AAA"), Some(7)));
        let end = answer(
            r#"{"Records":[],"NextShardIterator":null,"MillisBehindLatest":0,"ChildShards":[{"ShardId":"c",
            "ParentShards":["p","q"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]}"#,
        )
        .unwrap();
        assert_eq!((end.next, end.children[0].parents.len()), (None, 2));
        assert_eq!(end.children[0].range, HashRange { start: 0, end: 9 });
        let event = answer(r#"{"Records":[],"ContinuationSequenceNumber":"51","MillisBehindLatest":0}"#);
        assert_eq!(event.unwrap().next.as_deref(), Some("51"));
        let last = answer(
            r#"{"Records":[],"ContinuationSequenceNumber":"","ChildShards":[],"MillisBehindLatest":0}"#,
        );
        assert_eq!(last.unwrap().next, None);
    }

    #[test]
    fn malformed_answer_is_an_error_that_names_the_fault() {
        let wrong = |text| answer(text).unwrap_err();
        assert!(wrong("").contains("failed to decode"));
        assert!(wrong(r#"{"Records":[{"SequenceNumber":"1","Data":"aGk="#).contains("failed to decode"));
        assert!(wrong(r#"{"Records":[{"SequenceNumber":"x","Data":""}]}"#).contains("\"x\" is not a number"));
        // A newline would end the line to the child.
        assert!(wrong(r#"{"Records":[{"SequenceNumber":"1","Data":"aGk=\n"}]}"#).contains("record 1"));
        assert!(
            wrong(r#"{"Records":[{"SequenceNumber":"1","Data":"aGk=\",\"x\":\""}]}"#).contains("record 1")
        );
    }

    #[test]
    fn times_are_parsed_to_the_millisecond() {
        for (text, expected) in [
            ("1.795405837483E9", 1_795_405_837_483),
            ("1795405837.483", 1_795_405_837_483),
            ("1795405837", 1_795_405_837_000),
            ("1795405837.4835", 1_795_405_837_484),
            ("1795405837.9999", 1_795_405_838_000),
            ("0.001", 1),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for absurd in ["\"x\"", "1E20", "-1e300", "99999999999999999999", "NaN"] {
            assert_eq!(millis(absurd), None, "{absurd}");
        }
    }
}
