//! Sequence numbers, which have the form and the order of Kinesis's.
//!
//! A number is 47 hexadecimal digits, written in decimal:
//!
//! ```text
//! 2 | epoch: 9 | shard mod 16: 1 | index: 16 | 00 | arrival: 9 | shard: 8 | 2
//! ```
//!
//! - The leading `2` keeps every number between 2^185 and 1.5 * 2^185, so that each has 56 decimal digits and
//!   has the same order as text and as an integer.
//! - `epoch` is a second that belongs to the shard: not before its creation, and above the epoch of every
//!   parent, so that a child's numbers are above all numbers of its parents, however fast one reshard follows
//!   another.
//! - `index` counts the shard's records from 1. It alone determines the position in a shard. The starting
//!   number of a shard has index 0, its ending number the largest index.
//! - `arrival` is the second of arrival, for people who read the numbers.
//!
//! The widths are those observed in numbers of the service; AWS does not document their meaning, and nothing
//! else here depends on it.

use std::fmt;
use std::str::FromStr;

use super::clock::Timestamp;

/// The `index` of the ending sequence number of a shard.
pub(super) const LAST_INDEX: u64 = (1 << 63) - 1;

const SECONDS_BITS: u32 = 36;
const SECONDS_MAX: u64 = (1 << SECONDS_BITS) - 1;
const VERSION: u128 = 2;

/// A position in a shard that was, or could have been, assigned to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The shard's epoch, see the module.
    pub(super) epoch: u64,
    /// Number of the shard in its stream.
    pub(super) shard: u32,
    /// Position in the shard.
    pub(super) index: u64,
    /// Second of arrival.
    pub(super) arrival: u64,
}

impl Sequence {
    pub(super) fn new(epoch: u64, shard: u32, index: u64, arrival: Timestamp) -> Self {
        Self {
            epoch: epoch.min(SECONDS_MAX),
            shard,
            index: index.min(LAST_INDEX),
            arrival: arrival.seconds().min(SECONDS_MAX),
        }
    }

    /// The 188 bits as (upper 60, lower 128).
    fn bits(self) -> (u64, u128) {
        // Lower 128 bits, from the right: version 4, shard 32, arrival 36, zero 8, then the lower 48
        // of the index. The upper part holds the index's other 16, nibble, epoch, and the leading 2.
        let low = VERSION
            | u128::from(self.shard) << 4
            | u128::from(self.arrival) << 36
            | u128::from(self.index) << 80;
        let high = self.index >> 48 | u64::from(self.shard & 0xf) << 16 | self.epoch << 20 | 2 << 56;
        (high, low)
    }

    fn from_bits(high: u64, low: u128) -> Option<Self> {
        let field = |shift: u32, bits: u32| -> u64 {
            let mask = (1_u128 << bits) - 1;
            u64::try_from(low >> shift & mask).unwrap_or_default()
        };
        let sequence = Self {
            epoch: high >> 20 & SECONDS_MAX,
            shard: u32::try_from(field(4, 32)).ok()?,
            index: field(80, 48) | (high & 0xffff) << 48,
            arrival: field(36, SECONDS_BITS),
        };
        // A number that is not the image of a sequence was not issued by this endpoint.
        (sequence.index <= LAST_INDEX && sequence.bits() == (high, low)).then_some(sequence)
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bits().cmp(&other.bits())
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Number of digits of each chunk of the 56: the largest whose base fits in 64 bits with room to spare.
const CHUNK_DIGITS: usize = 14;
const CHUNK: u128 = 100_000_000_000_000;
const DIGITS: usize = 4 * CHUNK_DIGITS;

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.bits();
        let mut limbs = [u128::from(high), low >> 64, low & u128::from(u64::MAX)];
        let mut chunks = [0_u128; 4];
        for chunk in chunks.iter_mut().rev() {
            let mut rest = 0;
            for limb in &mut limbs {
                let value = rest << 64 | *limb;
                *limb = value / CHUNK;
                rest = value % CHUNK;
            }
            *chunk = rest;
        }
        let [a, b, c, d] = chunks;
        write!(f, "{a:014}{b:014}{c:014}{d:014}")
    }
}

/// The text is no sequence number of this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number")]
pub(super) struct NotASequence;

impl FromStr for Sequence {
    type Err = NotASequence;

    fn from_str(text: &str) -> Result<Self, NotASequence> {
        if text.len() != DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotASequence);
        }
        let mut limbs = [0_u128; 3];
        for start in (0..DIGITS).step_by(CHUNK_DIGITS) {
            let chunk = text.get(start..start + CHUNK_DIGITS).ok_or(NotASequence)?;
            let mut carry: u128 = chunk.parse().map_err(|_| NotASequence)?;
            for limb in limbs.iter_mut().rev() {
                let value = *limb * CHUNK + carry;
                *limb = value & u128::from(u64::MAX);
                carry = value >> 64;
            }
        }
        let [high, middle, low] = limbs;
        let high = u64::try_from(high).map_err(|_| NotASequence)?;
        Self::from_bits(high, middle << 64 | low).ok_or(NotASequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_sequence() -> impl Strategy<Value = Sequence> {
        (0..=SECONDS_MAX, any::<u32>(), 0..=LAST_INDEX, 0..=SECONDS_MAX)
            .prop_map(|(epoch, shard, index, arrival)| Sequence { epoch, shard, index, arrival })
    }

    proptest! {
        #[test]
        fn number_survives_display_and_parse(sequence in any_sequence()) {
            let text = sequence.to_string();
            prop_assert_eq!(text.len(), DIGITS);
            prop_assert_eq!(text.parse::<Sequence>(), Ok(sequence));
        }

        #[test]
        fn text_order_is_numeric_order(a in any_sequence(), b in any_sequence()) {
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn within_a_shard_the_index_decides(a in any_sequence(), b in any_sequence()) {
            let b = Sequence { epoch: a.epoch, shard: a.shard, ..b };
            prop_assume!(a.index != b.index);
            prop_assert_eq!(a.cmp(&b), a.index.cmp(&b.index));
        }

        #[test]
        fn later_epoch_is_above_all_earlier_numbers(a in any_sequence(), b in any_sequence()) {
            prop_assume!(a.epoch != b.epoch);
            prop_assert_eq!(a.cmp(&b), a.epoch.cmp(&b.epoch));
        }

        #[test]
        fn arbitrary_digits_are_rejected_or_parsed_exactly(text in "[0-9]{56}") {
            if let Ok(sequence) = text.parse::<Sequence>() {
                prop_assert_eq!(sequence.to_string(), text);
            }
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in ["", "0", "-1", "LATEST", "9".repeat(56).as_str(), "4".repeat(57).as_str()] {
            assert_eq!(text.parse::<Sequence>(), Err(NotASequence), "{text}");
        }
    }
}
