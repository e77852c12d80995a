//! The words of the journal and of the log files, as they are written to the data folder and read again.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::reshard::Step;

/// `shardId-000000000012`.
pub(super) fn shard_id(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// The number in a shard id. AWS accepts any text before the hyphen, and none.
pub(super) fn shard_number(id: &str) -> Option<u32> {
    let digits = id.rsplit_once('-').map_or(id, |(_, digits)| digits);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number <= 0x7fff_ffff)
}

/// A stored record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) index: u64,
    pub(super) arrival: Timestamp,
    pub(super) partition_key: String,
    pub(super) data: Bytes,
}

impl Record {
    /// The size that counts against the limits: data and partition key.
    pub(super) fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// The immutable identity of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Birth {
    pub(super) name: String,
    /// The epoch of its first shards, which distinguishes it from a deleted stream of the same name.
    pub(super) epoch: u64,
    pub(super) created_millis: u64,
    pub(super) shards: u32,
    pub(super) on_demand: bool,
    pub(super) max_record_kib: u32,
}

impl Birth {
    pub(super) const fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created_millis)
    }
}

/// A registered consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Consumer {
    pub(super) name: String,
    pub(super) created_millis: u64,
}

impl Consumer {
    pub(super) const fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created_millis)
    }

    pub(super) fn arn(&self, stream_arn: &str) -> String {
        format!("{stream_arn}/consumer/{}:{}", self.name, self.created().seconds())
    }
}

/// A change of a stream, as written to and replayed from the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Change {
    Delete,
    Reshard { at_millis: u64, steps: Vec<Step> },
    Retention { hours: u32 },
    Mode { on_demand: bool },
    MaxRecord { kib: u32 },
    Tag { tags: BTreeMap<String, String> },
    Untag { keys: Vec<String> },
    Register(Consumer),
    Deregister { consumer: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_are_parsed_as_in_aws() {
        assert_eq!(shard_number("shardId-000000000012"), Some(12));
        assert_eq!(shard_number("shardId-12"), Some(12));
        assert_eq!(shard_number("shardId-"), None);
        assert_eq!(shard_number("shardId-99999999999"), None);
    }
}
