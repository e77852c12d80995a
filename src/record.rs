//! Records on their way from Kinesis to a child.

use crate::sequence::{Position, SequenceNumber};
use crate::shard::ChildShard;

/// One record as the child will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The Kinesis record's sequence number; the user records of an aggregate share it.
    pub sequence: SequenceNumber,
    /// 0 for a plain record; 0, 1, 2 … within an aggregate.
    pub sub: u64,
    /// The partition key.
    pub partition_key: String,
    /// The data in standard base64: how Kinesis sends it and how the child wants it.
    pub data: String,
    /// Milliseconds since 1970.
    pub arrival: Option<i64>,
}

impl Record {
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
}
