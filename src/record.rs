//! A record on its way from Kinesis to a child.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::sequence::{Position, Sequence, SequenceNumber};

/// Data in standard base64: how Kinesis sends it and how the child wants it. Cheap to copy: it is a part of what
/// came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data(Bytes);

impl Data {
    /// None if there is anything in it that base64 has not.
    pub fn of_base64(text: Bytes) -> Option<Self> {
        is_base64(&text).then_some(Self(text))
    }

    /// A part of what came that [`is_base64`].
    pub fn within(body: &Bytes, text: &[u8]) -> Self {
        debug_assert!(is_base64(text), "unchecked");
        Self(body.slice_ref(text))
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

/// Whether there is nothing else in it.
pub fn is_base64(text: &[u8]) -> bool {
    // As good as always, and found out the fastest.
    if base64_simd::STANDARD.check(text).is_ok() {
        return true;
    }
    // Whoever decodes may take what isn't written as it should be, such as bits that are left over.
    let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let filled = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    text.len().is_multiple_of(4) && filled.iter().all(is_usual) && !filled.is_empty()
}

/// Bytes that base64 stands for: four characters are three, but for those that only fill up.
pub fn size(base64: &[u8]) -> usize {
    let fill = base64.iter().rev().take_while(|byte| **byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(fill)
}

/// Text that is a part of what came, or its own. Cheap to copy.
#[derive(Clone)]
pub struct Text(Storage);

/// Bytes that a text may have to stand in the record itself.
const SHORT: usize = 30;

#[derive(Clone)]
enum Storage {
    /// So many of them count.
    Inline(u8, [u8; SHORT]),
    Shared(Bytes),
}

impl Text {
    /// None if it isn't UTF-8.
    pub fn of_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes)
            .is_ok()
            .then(|| Self::here(&bytes).unwrap_or(Self(Storage::Shared(bytes))))
    }

    /// The same of a part of what came.
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

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Storage::Inline(length, here) => &here[..usize::from(*length)],
            Storage::Shared(bytes) => bytes,
        }
    }

    /// How many bytes it is.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there is none.
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

/// One record as it came, which can be an aggregate, or as the child will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The Kinesis record's sequence number. The user records of an aggregate share it.
    pub sequence: SequenceNumber,
    /// 0 for a plain record; 0, 1, 2 … within an aggregate.
    pub sub: u64,
    /// The partition key.
    pub partition_key: Text,
    /// The data.
    pub data: Data,
    /// Milliseconds since 1970.
    pub arrival: Option<i64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "for tests")]
impl Record {
    /// Of that number.
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
    /// Bytes of its data.
    pub fn size(&self) -> usize {
        size(self.data.as_bytes())
    }

    /// Bytes of an answer that it takes, about.
    pub fn weight(&self) -> usize {
        /// The names of its fields, its time, its number of 56 digits.
        const REST: usize = 190;
        self.data.len() + self.partition_key.len() + REST
    }

    /// Where it stands, as [`Position::order`] has it.
    pub fn order(&self, position: &Position) -> Ordering {
        match &position.sequence {
            Sequence::Number(number) => self.sequence.order(number).then_with(|| self.sub.cmp(&position.sub)),
            Sequence::ShardEnd => Ordering::Less,
            Sequence::AtTimestamp | Sequence::TrimHorizon | Sequence::Latest => Ordering::Greater,
        }
    }

    /// Where the record stands in its shard.
    pub fn position(&self) -> Position {
        Position::record(self.sequence.clone(), self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_base64_and_nothing_else() {
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
