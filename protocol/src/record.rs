//! One record, as `processRecords` contains it.
//!
//! In KCL: `JsonFriendlyRecord`.

/// One record of `processRecords`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's data in standard base64 with padding, without line breaks. Written verbatim.
    pub data: &'a [u8],
    /// The partition key, or the user record's own partition key if it comes from a KPL aggregate. UTF-8.
    pub partition_key: &'a [u8],
    /// The Kinesis sequence number, in decimal.
    pub sequence_number: &'a [u8],
    /// Milliseconds since 1970; none if Kinesis returned none.
    pub approximate_arrival_timestamp: Option<i64>,
    /// 0 for a plain record; the index of the user record within a KPL aggregate, from 0.
    pub sub_sequence_number: u64,
}
