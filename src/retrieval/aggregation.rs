//! The user records within a KPL aggregate.
//!
//! An aggregate is four magic bytes, a protobuf message and the MD5 of the message. What has the
//! magic but is no aggregate (digest, syntax, an index out of its table) is passed on as it came.
//! An aggregate with a user record whose hash key isn't the shard's is dropped as a whole, as Java
//! does (after a reshard that drops copies read through the wrong shard), and said in the log.
//!
//! In KCL: `AggregatorUtil`, `messages.proto`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use tracing::warn;

use crate::record::{Data, Record};
use crate::shard::{HashRange, ShardId};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// What base64 makes of the magic: all of its characters that don't depend on the byte after it.
const MAGIC_BASE64: &str = "84maw";
const DIGEST: usize = 16;

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// In order.
    pub records: Vec<Record>,
    /// User records of aggregates that were dropped.
    pub dropped: usize,
}

/// Puts user records in place of their aggregates, in order.
pub fn expand(records: Vec<Record>, range: Option<HashRange>, shard: &ShardId) -> Expanded {
    if !records.iter().any(may_be_aggregate) {
        return Expanded { records, dropped: 0 };
    }
    let mut dropped = 0;
    let mut out = Vec::with_capacity(records.len());
    for record in records {
        match user_records(&record) {
            None => out.push(record),
            Some(users) => {
                let foreign = |user: &User| range.is_some_and(|range| !range.contains(user.hash_key));
                if users.iter().any(foreign) {
                    dropped += users.len();
                    warn!(%shard, sequence = %record.sequence, records = users.len(),
                        "an aggregate with a hash key of another shard: dropped, as KCL does");
                } else {
                    out.extend(users.into_iter().zip(0..).map(|(user, sub)| user.within(&record, sub)));
                }
            }
        }
    }
    Expanded { records: out, dropped }
}

struct User {
    partition_key: String,
    hash_key: u128,
    data: Data,
}

impl User {
    fn within(self, outer: &Record, sub: u64) -> Record {
        Record {
            sequence: outer.sequence.clone(),
            sub,
            partition_key: self.partition_key.into(),
            data: self.data,
            arrival: outer.arrival,
        }
    }
}

fn may_be_aggregate(record: &Record) -> bool {
    record.data.as_bytes().starts_with(MAGIC_BASE64.as_bytes())
}

fn user_records(record: &Record) -> Option<Vec<User>> {
    if !may_be_aggregate(record) {
        return None;
    }
    let bytes = STANDARD.decode(record.data.as_bytes()).ok()?;
    let body = bytes.strip_prefix(&MAGIC)?;
    let (message, digest) = body.split_at_checked(body.len().checked_sub(DIGEST)?)?;
    // Java wants more than a digest after the magic.
    if message.is_empty() || Md5::digest(message).as_slice() != digest {
        return None;
    }
    let aggregate = Aggregate::parse(message)?;
    aggregate.records.iter().map(|record| aggregate.user(record)).collect()
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

    fn user(&self, record: &Inner<'_>) -> Option<User> {
        let at = |keys: &[&'a str], index: u64| keys.get(usize::try_from(index).ok()?).copied();
        let partition_key = at(&self.partition_keys, record.partition_key)?;
        let hash_key = match record.hash_key {
            Some(index) => at(&self.hash_keys, index)?.parse().ok()?,
            None => u128::from_be_bytes(Md5::digest(partition_key).into()),
        };
        Some(User { partition_key: partition_key.to_owned(), hash_key, data: Data::encode(record.data) })
    }
}

impl<'a> Inner<'a> {
    /// Field 4 holds tags, which no consumer gets to see.
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

/// The fields of a protobuf message; ends with a `None` where the bytes are not one.
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
        let expanded = expand(vec![record.clone()], range, &"s".into());
        let whole = expand(vec![record], None, &"s".into()).records;
        assert_eq!(expanded.records.len() + expanded.dropped, whole.len());
        expanded
            .records
            .into_iter()
            .map(|r| (r.sub, r.partition_key.as_str().to_owned(), STANDARD.decode(r.data.as_str()).unwrap()))
            .collect()
    }

    #[test]
    fn user_records_take_the_place_of_their_aggregate() {
        let message =
            [field(1, b"a"), field(1, b"b"), field(2, b"12"), inner(0, None, b"one"), inner(1, Some(0), b"")]
                .concat();
        let expected = vec![(0, "a".to_owned(), b"one".to_vec()), (1, "b".to_owned(), vec![])];
        assert_eq!(expanded(aggregate(&message), None), expected);
    }

    #[test]
    fn one_foreign_hash_key_drops_the_whole_aggregate() {
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
    fn what_is_no_aggregate_passes_as_it_came() {
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
        fn no_message_makes_it_panic(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(expanded(aggregate(&message), None).len() <= message.len().max(1));
        }

        #[test]
        fn the_magic_is_recognised_in_base64(rest in proptest::collection::vec(any::<u8>(), 0..5)) {
            prop_assert!(STANDARD.encode([&MAGIC[..], &rest].concat()).starts_with(MAGIC_BASE64));
        }
    }
}
