//! The user records of a KPL aggregate.
//!
//! An aggregate consists of four magic bytes, a protobuf message and the MD5 of the message. A record that
//! has the magic but is no aggregate (digest, syntax, or an index beyond its table) is delivered unchanged.
//! An aggregate with a user record whose hash key is outside the shard's range is dropped as a whole and
//! logged, as in Java: after a reshard that drops copies that were read through the wrong shard.
//!
//! In KCL: `AggregatorUtil`, `messages.proto`.

use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use tracing::warn;

use crate::budget::Budget;
use crate::record::{Data, Record, Text};
use crate::shard::{HashRange, ShardId};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// The magic in base64: the characters that do not depend on the byte that follows it.
const MAGIC_BASE64: &str = "84maw";
const DIGEST: usize = 16;

/// The result of expanding the aggregates of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// User records and plain records, in order.
    pub records: Vec<Record>,
    /// Number of user records of dropped aggregates.
    pub dropped: usize,
}

/// Replaces aggregates by their user records, in order. Their memory is taken from the budget beyond the
/// limit if necessary: they cannot be refused.
pub fn expand(
    records: Vec<Record>,
    range: Option<HashRange>,
    shard: &ShardId,
    budget: &Arc<Budget>,
) -> Expanded {
    if !records.iter().any(may_be_aggregate) {
        return Expanded { records, dropped: 0 };
    }
    let mut dropped = 0;
    let mut out = Vec::with_capacity(records.len());
    for record in records {
        match opened(&record) {
            None => out.push(record),
            Some(opened) => {
                let foreign = |user: &User| range.is_some_and(|range| !range.contains(user.hash_key));
                if opened.users.iter().any(foreign) {
                    dropped += opened.users.len();
                    warn!(event = "user_records_dropped",
                        %shard, sequence = %record.sequence, records = opened.users.len(),
                        "dropped user records of an aggregated record: an explicit hash key belongs to \
                         another shard");
                } else {
                    opened.within(&record, budget, &mut out);
                }
            }
        }
    }
    Expanded { records: out, dropped }
}

/// The user records of an aggregate; their keys and data are concatenated in one text.
struct Opened {
    text: String,
    users: Vec<User>,
}

struct User {
    partition_key: Range<usize>,
    hash_key: u128,
    data: Range<usize>,
}

impl Opened {
    fn within(self, outer: &Record, budget: &Arc<Budget>, out: &mut Vec<Record>) {
        let room = budget.take(self.text.capacity() + self.users.len() * size_of::<Record>());
        let text = room.fill(self.text);
        out.extend(self.users.into_iter().zip(0..).map(|(user, sub)| Record {
            sequence: outer.sequence.clone(),
            sub,
            partition_key: Text::of_utf8(text.slice(user.partition_key)).unwrap_or_default(),
            data: Data::of_base64(text.slice(user.data)).unwrap_or_default(),
            arrival: outer.arrival,
        }));
    }
}

/// Whether data may be an aggregate, by the first characters of its base64.
pub fn may_be(base64: &[u8]) -> bool {
    base64.starts_with(MAGIC_BASE64.as_bytes())
}

fn may_be_aggregate(record: &Record) -> bool {
    may_be(record.data.as_bytes())
}

fn opened(record: &Record) -> Option<Opened> {
    if !may_be_aggregate(record) {
        return None;
    }
    let bytes = STANDARD.decode(record.data.as_bytes()).ok()?;
    let body = bytes.strip_prefix(&MAGIC)?;
    let (message, digest) = body.split_at_checked(body.len().checked_sub(DIGEST)?)?;
    // As in Java, a magic followed by nothing but a digest is no aggregate.
    if message.is_empty() || Md5::digest(message).as_slice() != digest {
        return None;
    }
    Aggregate::parse(message)?.open()
}

#[derive(Default)]
struct Aggregate<'a> {
    partition_keys: Vec<&'a str>,
    hash_keys: Vec<&'a str>,
    records: Vec<Inner<'a>>,
}

struct Inner<'a> {
    partition_key: u64,
    hash_key: Option<u64>,
    data: &'a [u8],
}

impl<'a> Aggregate<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let mut aggregate = Self::default();
        for field in Fields(message) {
            match field? {
                (1, Value::Bytes(key)) => aggregate.partition_keys.push(std::str::from_utf8(key).ok()?),
                (2, Value::Bytes(key)) => aggregate.hash_keys.push(std::str::from_utf8(key).ok()?),
                (3, Value::Bytes(record)) => aggregate.records.push(Inner::parse(record)?),
                (1..=3, _) => return None,
                _ => {}
            }
        }
        Some(aggregate)
    }

    fn open(&self) -> Option<Opened> {
        let keys: usize = self.partition_keys.iter().map(|key| key.len()).sum();
        let data: usize = self.records.iter().map(|record| record.data.len().div_ceil(3) * 4).sum();
        let mut text = String::with_capacity(keys + data);
        // Each key is stored once, however many records have it; its hash is computed when first needed.
        let mut places: Vec<(Range<usize>, Option<u128>)> = Vec::with_capacity(self.partition_keys.len());
        for key in &self.partition_keys {
            text.push_str(key);
            places.push((text.len() - key.len()..text.len(), None));
        }
        let mut users = Vec::with_capacity(self.records.len());
        for record in &self.records {
            let index = usize::try_from(record.partition_key).ok()?;
            let (partition_key, hash) = places.get_mut(index)?;
            let hash_key = match record.hash_key {
                Some(index) => self.hash_keys.get(usize::try_from(index).ok()?)?.parse().ok()?,
                None => *hash.get_or_insert_with(|| {
                    u128::from_be_bytes(Md5::digest(&text[partition_key.clone()]).into())
                }),
            };
            let begin = text.len();
            STANDARD.encode_string(record.data, &mut text);
            users.push(User { partition_key: partition_key.clone(), hash_key, data: begin..text.len() });
        }
        Some(Opened { text, users })
    }
}

impl<'a> Inner<'a> {
    /// Field 4 contains tags, which KCL does not deliver.
    fn parse(message: &'a [u8]) -> Option<Self> {
        let (mut partition_key, mut hash_key, mut data) = (None, None, None);
        for field in Fields(message) {
            match field? {
                (1, Value::Number(index)) => partition_key = Some(index),
                (2, Value::Number(index)) => hash_key = Some(index),
                (3, Value::Bytes(bytes)) => data = Some(bytes),
                (1..=3, _) => return None,
                _ => {}
            }
        }
        Some(Self { partition_key: partition_key?, hash_key, data: data? })
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Iterates over the fields of a protobuf message; yields a final `None` if the bytes are malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceNumber;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap());
        out.extend_from_slice(bytes);
        out
    }

    fn inner(key: u8, hash_key: Option<u8>, data: &[u8]) -> Vec<u8> {
        let mut record = vec![1 << 3, key];
        record.extend(hash_key.into_iter().flat_map(|index| [2 << 3, index]));
        record.extend(field(3, data));
        field(3, &record)
    }

    fn raw(bytes: &[u8]) -> Record {
        Record {
            sequence: SequenceNumber::parse("5").unwrap(),
            sub: 0,
            partition_key: "outer".into(),
            data: Data::encode(bytes),
            arrival: Some(7),
        }
    }

    fn aggregate(message: &[u8]) -> Record {
        raw(&[&MAGIC, message, Md5::digest(message).as_slice()].concat())
    }

    fn expanded(record: Record, range: Option<HashRange>) -> Vec<(u64, String, Vec<u8>)> {
        let budget = Budget::new(1);
        let expanded = expand(vec![record.clone()], range, &"s".into(), &budget);
        let whole = expand(vec![record], None, &"s".into(), &budget).records;
        assert_eq!(expanded.records.len() + expanded.dropped, whole.len());
        expanded
            .records
            .into_iter()
            .map(|r| (r.sub, r.partition_key.as_str().to_owned(), STANDARD.decode(r.data.as_str()).unwrap()))
            .collect()
    }

    #[test]
    fn user_records_replace_their_aggregate() {
        let message =
            [field(1, b"a"), field(1, b"b"), field(2, b"12"), inner(0, None, b"one"), inner(1, Some(0), b"")]
                .concat();
        let expected = vec![(0, "a".to_owned(), b"one".to_vec()), (1, "b".to_owned(), vec![])];
        assert_eq!(expanded(aggregate(&message), None), expected);
    }

    #[test]
    fn user_records_hold_memory_until_the_last_is_dropped() {
        let record = aggregate(&[field(1, b"a"), inner(0, None, b"one"), inner(0, None, b"two")].concat());
        let budget = Budget::new(1);
        let mut records = expand(vec![record], None, &"s".into(), &budget).records;
        let least = 2 * size_of::<Record>() + "a".len() + 2 * STANDARD.encode(b"one").len();
        assert!(budget.held() >= least, "{}", budget.held());
        records.pop();
        assert!(budget.held() >= least);
        drop(records);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn foreign_hash_key_drops_the_whole_aggregate() {
        let message = [
            field(1, b"a"),
            field(2, b"12"),
            field(2, b"99"),
            inner(0, Some(0), b"x"),
            inner(0, Some(1), b"y"),
        ]
        .concat();
        let narrow = HashRange { start: 0, end: 50 };
        let wide = HashRange { start: 12, end: 99 };
        assert_eq!(expanded(aggregate(&message), Some(narrow)), []);
        assert_eq!(expanded(aggregate(&message), Some(wide)).len(), 2);
    }

    #[test]
    fn non_aggregate_is_delivered_unchanged() {
        let good = aggregate(&[field(1, b"a"), inner(0, None, b"x")].concat());
        let mut wrong_digest = STANDARD.decode(good.data.as_str()).unwrap();
        *wrong_digest.last_mut().unwrap() ^= 1;
        let index_out_of_table = aggregate(&inner(4, None, b"x"));
        let no_data = aggregate(&[field(1, b"a"), field(3, &[8, 0])].concat());
        for record in [raw(&wrong_digest), raw(&MAGIC), raw(b"plain"), raw(b""), index_out_of_table, no_data]
        {
            let bytes = STANDARD.decode(record.data.as_str()).unwrap();
            assert_eq!(expanded(record, None), [(0, "outer".to_owned(), bytes)]);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_message_does_not_panic(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(expanded(aggregate(&message), None).len() <= message.len().max(1));
        }

        #[test]
        fn magic_is_recognised_in_base64(rest in proptest::collection::vec(any::<u8>(), 0..5)) {
            prop_assert!(STANDARD.encode([&MAGIC[..], &rest].concat()).starts_with(MAGIC_BASE64));
        }
    }
}
