//! Hash keys: the 128-bit space that the shards of a stream divide.

use md5::{Digest, Md5};
use serde::Serialize;

/// An inclusive range of hash keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashRange {
    pub(super) start: u128,
    pub(super) end: u128,
}

impl HashRange {
    #[cfg(test)]
    pub(super) const ALL: Self = Self { start: 0, end: u128::MAX };

    pub(super) const fn contains(&self, key: u128) -> bool {
        self.start <= key && key <= self.end
    }
}

/// A range in answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HashKeyRange {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<HashRange> for HashKeyRange {
    fn from(range: HashRange) -> Self {
        Self { starting_hash_key: range.start.to_string(), ending_hash_key: range.end.to_string() }
    }
}

/// The hash key of a partition key: its MD5 as a big-endian number.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html>
pub(super) fn of_partition_key(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

/// `count` ranges of equal size that cover the space, with the remainder in the last one, as CreateStream and
/// UNIFORM_SCALING assign them.
pub(super) fn uniform(count: u32) -> Vec<HashRange> {
    let count = u128::from(count.max(1));
    if count == 1 {
        return vec![HashRange { start: 0, end: u128::MAX }];
    }
    // floor(2^128 / count) without a 129-bit number.
    let size = (u128::MAX - count + 1) / count + 1;
    (0..count)
        .map(|i| HashRange {
            start: i * size,
            end: if i + 1 == count { u128::MAX } else { (i + 1) * size - 1 },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_ranges_cover_the_space_without_holes() {
        for count in [1, 2, 3, 4, 7, 1000] {
            let ranges = uniform(count);
            assert_eq!(ranges.len(), usize::try_from(count).unwrap());
            assert_eq!(ranges.first().unwrap().start, 0);
            assert_eq!(ranges.last().unwrap().end, u128::MAX);
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].end + 1, pair[1].start);
            }
        }
    }

    #[test]
    fn two_uniform_shards_meet_where_they_do_in_aws() {
        assert_eq!(uniform(2)[0].end, 170_141_183_460_469_231_731_687_303_715_884_105_727);
    }

    #[test]
    fn partition_key_hashes_to_its_md5() {
        assert_eq!(of_partition_key("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }
}
