//! A record on its way from Kinesis to a child.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::sequence::{Position, Sequence, SequenceNumber};

/// Record data in standard base64, which is both Kinesis's and the child's encoding. Cheap to clone: a slice
/// of the answer's body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data(Bytes);

impl Data {
    /// Returns none if `text` is not base64.
    pub fn of_base64(text: Bytes) -> Option<Self> {
        is_base64(&text).then_some(Self(text))
    }

    /// A slice of `body` that [`is_base64`].
    pub fn within(body: &Bytes, text: &[u8]) -> Self {
        debug_assert!(is_base64(text), "unchecked");
        Self(body.slice_ref(text))
    }

    /// Encodes bytes as base64.
    pub fn encode(bytes: &[u8]) -> Self {
        Self(STANDARD.encode(bytes).into())
    }

    /// The data in base64.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The data in base64, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in base64, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether the text is base64 with padding at most at its end.
pub fn is_base64(text: &[u8]) -> bool {
    // The fast check, which nearly all data passes.
    if base64_simd::STANDARD.check(text).is_ok() {
        return true;
    }
    // Decoders may accept data that is not in canonical form, such as leftover bits that are not 0.
    let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let filled = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    text.len().is_multiple_of(4) && filled.iter().all(is_usual) && !filled.is_empty()
}

/// Length of the decoded data in bytes: four characters are three bytes, less the padding.
pub fn size(base64: &[u8]) -> usize {
    let fill = base64.iter().rev().take_while(|byte| **byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(fill)
}

/// UTF-8 text: a slice of the answer's body, or a short copy. Cheap to clone.
#[derive(Clone)]
pub struct Text(Storage);

/// Most bytes of a text that is stored inline.
const SHORT: usize = 30;

#[derive(Clone)]
enum Storage {
    /// The length, and the text padded with zeros.
    Inline(u8, [u8; SHORT]),
    Shared(Bytes),
}

impl Text {
    /// Returns none if `bytes` is not UTF-8.
    pub fn of_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes)
            .is_ok()
            .then(|| Self::here(&bytes).unwrap_or(Self(Storage::Shared(bytes))))
    }

    /// A copy or a slice of a part of `body`. Returns none if it is not UTF-8.
    pub fn within(body: &Bytes, text: &[u8]) -> Option<Self> {
        std::str::from_utf8(text)
            .is_ok()
            .then(|| Self::here(text).unwrap_or_else(|| Self(Storage::Shared(body.slice_ref(text)))))
    }

    fn here(text: &[u8]) -> Option<Self> {
        let mut here = [0; SHORT];
        here.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self(Storage::Inline(u8::try_from(text.len()).ok()?, here)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Storage::Inline(length, here) => &here[..usize::from(*length)],
            Storage::Shared(bytes) => bytes,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Text {
    fn default() -> Self {
        Self(Storage::Inline(0, [0; SHORT]))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::here(text.as_bytes()).unwrap_or_else(|| Self(Storage::Shared(text.into())))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A Kinesis record, which can be an aggregate, or a user record as it is delivered to the child. In KCL:
/// `KinesisClientRecord`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The Kinesis record's sequence number. The user records of an aggregate share it.
    pub sequence: SequenceNumber,
    /// Sub-sequence number: 0 for a plain record; 0, 1, 2 … within an aggregate.
    pub sub: u64,
    /// The partition key.
    pub partition_key: Text,
    /// The data.
    pub data: Data,
    /// Approximate arrival time, in milliseconds since 1970.
    pub arrival: Option<i64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "for tests")]
impl Record {
    /// A record with that sequence number, for tests.
    pub(crate) fn plain(number: usize, key: &str, data: &[u8]) -> Self {
        Self {
            sequence: SequenceNumber::parse(&number.to_string()).unwrap(),
            sub: 0,
            partition_key: key.into(),
            data: Data::encode(data),
            arrival: None,
        }
    }
}

impl Record {
    /// Length of the decoded data in bytes.
    pub fn size(&self) -> usize {
        size(self.data.as_bytes())
    }

    /// Approximate bytes of an answer that the record takes.
    pub fn weight(&self) -> usize {
        /// The field names, the arrival time, and a sequence number of 56 digits.
        const REST: usize = 190;
        self.data.len() + self.partition_key.len() + REST
    }

    /// Compares the record's position with another, as [`Position::order`] does.
    pub fn order(&self, position: &Position) -> Ordering {
        match &position.sequence {
            Sequence::Number(number) => self.sequence.order(number).then_with(|| self.sub.cmp(&position.sub)),
            Sequence::ShardEnd => Ordering::Less,
            Sequence::AtTimestamp | Sequence::TrimHorizon | Sequence::Latest => Ordering::Greater,
        }
    }

    /// A copy that does not keep the response of the record in memory.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            data: Data(Bytes::copy_from_slice(self.data.as_bytes())),
            partition_key: self.partition_key.as_str().to_owned().into(),
            ..self.clone()
        }
    }

    /// The record's position in its shard.
    pub fn position(&self) -> Position {
        Position::record(self.sequence.clone(), self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_accepts_only_base64() {
        for good in ["", "aGk=", "a/+=", "AAAA", "AB=="] {
            assert_eq!(Data::of_base64(good.into()).unwrap().as_str(), good);
        }
        for bad in ["aGk", "aGk\n", "aG\"=", "aG =", "aGé", "====", "A===", "=AAA", "AA=A", "AA==AAAA"] {
            assert_eq!(Data::of_base64(bad.into()), None, "{bad}");
        }
        assert_eq!(Data::encode(b"hi").as_str(), "aGk=");
        for length in 0..9 {
            let record = Record {
                sequence: SequenceNumber::parse("1").unwrap(),
                sub: 0,
                partition_key: Text::default(),
                data: Data::encode(&vec![1; length]),
                arrival: None,
            };
            assert_eq!(record.size(), length);
        }
        for byte in 0..=u8::MAX {
            let is_base64 = byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
            assert_eq!(Data::of_base64(vec![b'A', byte, b'A', b'A'].into()).is_some(), is_base64, "{byte}");
        }
    }
}
