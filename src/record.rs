//! Records on their way from Kinesis to a child.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::sequence::{Position, SequenceNumber};
use crate::shard::ChildShard;

/// Data in standard base64: how Kinesis sends it and how the child wants it. Cheap to copy: it is a part of what
/// came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data(Bytes);

impl Data {
    /// None if there is anything in it that base64 has not.
    pub fn of_base64(text: Bytes) -> Option<Self> {
        // Without a way out in between and without a table, so that many bytes are looked at at once.
        let is_strange = |byte: u8| {
            let letter = (byte & !0x20).wrapping_sub(b'A') < 26;
            let digit = byte.wrapping_sub(b'0') < 10;
            u8::from(!(letter | digit | (byte == b'+') | (byte == b'/') | (byte == b'=')))
        };
        let strange = text.iter().fold(0, |strange, byte| strange | is_strange(*byte));
        (strange == 0 && text.len().is_multiple_of(4)).then_some(Self(text))
    }

    /// Of the bytes themselves.
    pub fn encode(bytes: &[u8]) -> Self {
        Self(STANDARD.encode(bytes).into())
    }

    /// In base64.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes it is in base64.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One record as the child will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The Kinesis record's sequence number; the user records of an aggregate share it.
    pub sequence: SequenceNumber,
    /// 0 for a plain record; 0, 1, 2 … within an aggregate.
    pub sub: u64,
    /// The partition key.
    pub partition_key: String,
    /// The data.
    pub data: Data,
    /// Milliseconds since 1970.
    pub arrival: Option<i64>,
}

impl Record {
    /// Bytes of its data: four characters of base64 are three.
    pub fn size(&self) -> usize {
        self.data.len() / 4 * 3
    }

    /// Where the record stands in its shard.
    pub fn position(&self) -> Position {
        Position::record(self.sequence.clone(), self.sub)
    }
}

/// One answer of Kinesis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// In the order of the shard. Can be empty.
    pub records: Vec<Record>,
    /// How far behind the tip the answer was, as Kinesis said.
    pub millis_behind_latest: Option<i64>,
    /// Present if nothing comes after this batch: the shard's children, which can be none.
    pub end: Option<Vec<ChildShard>>,
    /// User records that were left out with their aggregates, as KCL's rules want it.
    pub dropped: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_base64_and_nothing_else() {
        for good in ["", "aGk=", "a/+=", "AAAA"] {
            assert_eq!(Data::of_base64(good.into()).unwrap().as_str(), good);
        }
        for bad in ["aGk", "aGk\n", "aG\"=", "aG =", "aGé"] {
            assert_eq!(Data::of_base64(bad.into()), None, "{bad}");
        }
        assert_eq!(Data::encode(b"hi").as_str(), "aGk=");
        for byte in 0..=u8::MAX {
            let is_base64 = byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
            assert_eq!(Data::of_base64(vec![b'A', byte, b'A', b'A'].into()).is_some(), is_base64, "{byte}");
        }
    }
}
