//! Positions in a shard: Kinesis's sequence numbers, KPL's sub-sequence numbers, and the sentinels for
//! positions without a number.
//!
//! In KCL: `ExtendedSequenceNumber`, `SentinelCheckpoint`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use multilangd_protocol::bytewise::is_number;

/// A sequence number: a decimal integer of any length, stored as the text that was received.
///
/// Two texts of one value (`7`, `007`) differ by `==` and are equal by [`SequenceNumber::order`], as in Java.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Digits);

/// Number of digits of the sequence numbers that Kinesis assigns.
const USUAL_LENGTH: u8 = 56;
const USUAL: usize = USUAL_LENGTH as usize;
/// Most digits that are stored inline: every record has a sequence number, and most are never kept, so an
/// allocation for each would be wasted.
const SHORT: usize = 62;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Digits {
    /// The length, and the digits padded with zeros.
    Short(u8, [u8; SHORT]),
    Long(Arc<str>),
}

impl SequenceNumber {
    /// Returns none unless the text consists of digits.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of_digits(text.as_bytes())
    }

    /// As [`SequenceNumber::parse`], from bytes.
    pub fn of_digits(text: &[u8]) -> Option<Self> {
        // With a length known at compile time the check and the copy need no loop.
        if let Ok(usual) = <&[u8; USUAL]>::try_from(text) {
            let digits = usual.iter().fold(true, |digits, byte| digits & byte.is_ascii_digit());
            let mut short = [0; SHORT];
            short[..USUAL].copy_from_slice(usual);
            return digits.then_some(Self(Digits::Short(USUAL_LENGTH, short)));
        }
        if is_number(text) { Digits::of(text).map(Self) } else { None }
    }

    /// The text that was received.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Digits::Long(text) => text,
            short @ Digits::Short(..) => std::str::from_utf8(short.as_bytes()).unwrap_or_default(),
        }
    }

    /// The text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Compares by value.
    pub fn order(&self, other: &Self) -> Ordering {
        order(self.as_bytes(), other.as_bytes())
    }
}

/// Compares two texts of digits by value.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    if a.len() == b.len() {
        return a.cmp(b);
    }
    let significant = |all: &[u8]| all.iter().position(|digit| *digit != b'0').unwrap_or(all.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl Digits {
    fn of(text: &[u8]) -> Option<Self> {
        let mut digits = [0; SHORT];
        match (digits.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text);
                Some(Self::Short(length, digits))
            }
            _ => std::str::from_utf8(text).ok().map(|text| Self::Long(text.into())),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, digits) => &digits[..usize::from(*length)],
            Self::Long(text) => text.as_bytes(),
        }
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SequenceNumber").field(&self.as_str()).finish()
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first part of a position. The order of the variants is the order of positions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sequence {
    /// Read from the configured timestamp.
    AtTimestamp,
    /// Read from the oldest record.
    TrimHorizon,
    /// Read only new records.
    Latest,
    /// The sequence number of a record.
    Number(SequenceNumber),
    /// The shard was processed to its end.
    ShardEnd,
}

impl Sequence {
    /// Parses digits, or a sentinel's name in its exact case.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "AT_TIMESTAMP" => Some(Self::AtTimestamp),
            "TRIM_HORIZON" => Some(Self::TrimHorizon),
            "LATEST" => Some(Self::Latest),
            "SHARD_END" => Some(Self::ShardEnd),
            digits => SequenceNumber::parse(digits).map(Self::Number),
        }
    }

    /// The text in a lease row and in the MultiLang protocol.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(number) => number.as_str(),
            Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::ShardEnd => {
                self.sentinel().unwrap_or_default()
            }
        }
    }

    /// The sentinel's name; none for a number.
    pub fn sentinel(&self) -> Option<&'static str> {
        match self {
            Self::AtTimestamp => Some("AT_TIMESTAMP"),
            Self::TrimHorizon => Some("TRIM_HORIZON"),
            Self::Latest => Some("LATEST"),
            Self::Number(_) => None,
            Self::ShardEnd => Some("SHARD_END"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::AtTimestamp => 0,
            Self::TrimHorizon => 1,
            Self::Latest => 2,
            Self::Number(_) => 3,
            Self::ShardEnd => 4,
        }
    }
}

/// The position of a record or a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The sequence number of the Kinesis record, or a sentinel.
    pub sequence: Sequence,
    /// The sub-sequence number: the user record within a KPL aggregate; 0 for plain records and sentinels.
    pub sub: u64,
}

impl Position {
    /// The position of a sentinel, or of a record's first user record.
    pub fn new(sequence: Sequence) -> Self {
        Self { sequence, sub: 0 }
    }

    /// The position `SHARD_END`.
    pub fn shard_end() -> Self {
        Self::new(Sequence::ShardEnd)
    }

    /// The position of a record.
    pub fn record(number: SequenceNumber, sub: u64) -> Self {
        Self { sequence: Sequence::Number(number), sub }
    }

    /// Whether the position is `SHARD_END`.
    pub fn is_shard_end(&self) -> bool {
        self.sequence == Sequence::ShardEnd
    }

    /// Compares as Java does: sentinels, then sequence numbers by value, then sub-sequence numbers. Two
    /// `SHARD_END` positions are equal, whatever their sub-sequence numbers.
    pub fn order(&self, other: &Self) -> Ordering {
        let first = match (&self.sequence, &other.sequence) {
            (Sequence::Number(a), Sequence::Number(b)) => a.order(b),
            (Sequence::ShardEnd, Sequence::ShardEnd) => return Ordering::Equal,
            (a, b) => a.rank().cmp(&b.rank()),
        };
        first.then_with(|| self.sub.cmp(&other.sub))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sequence.as_str())?;
        if self.sub > 0 { write!(f, "/{}", self.sub) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(text: &str, sub: u64) -> Position {
        Position { sequence: Sequence::parse(text).unwrap(), sub }
    }

    #[test]
    fn positions_are_ordered_as_in_java() {
        let ordered = [
            position("AT_TIMESTAMP", 0),
            position("TRIM_HORIZON", 0),
            position("LATEST", 0),
            position("9", 0),
            position("9", 3),
            position("10", 0),
            position("49680479068778121708404180337935943836635856786495111170", 0),
            position("SHARD_END", 0),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(a.order(b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(position("SHARD_END", 5).order(&position("SHARD_END", 0)), Ordering::Equal);
    }

    #[test]
    fn leading_zeros_are_equal_by_order_not_by_eq() {
        let (a, b) = (position("007", 0), position("7", 0));
        assert_eq!(a.order(&b), Ordering::Equal);
        assert_ne!(a, b);
    }

    #[test]
    fn parse_rejects_all_but_digits_and_sentinels() {
        for text in ["", " ", "-1", "+1", "1 ", "1.0", "latest", "Trim_Horizon", "٣"] {
            assert_eq!(Sequence::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_of_any_length_is_preserved(text in "[0-9]{1,80}") {
            let number = SequenceNumber::parse(&text).unwrap();
            prop_assert_eq!(number.as_str(), &text);
            prop_assert_eq!(&number, &number.clone());
            prop_assert_ne!(number, SequenceNumber::parse(&format!("0{text}")).unwrap());
        }

        #[test]
        fn numbers_are_ordered_by_value(a in any::<u128>(), b in any::<u128>(), zeros in 0usize..4) {
            let text = format!("{}{a}", "0".repeat(zeros));
            prop_assert_eq!(position(&text, 0).order(&position(&b.to_string(), 0)), a.cmp(&b));
        }
    }
}
