//! Records in answers.
//!
//! Their JSON is written directly: these are the large answers, and this avoids a string for each base64 text
//! and its escaping.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::super::clock::Timestamp;
use super::super::codec::{Blob, Format};
use super::super::error::Exception;
use super::super::shard::{Record, Shard};

/// Records of one shard.
#[derive(Debug)]
pub(in super::super) struct Records {
    shard: Arc<Shard>,
    records: Vec<Arc<Record>>,
}

impl Records {
    pub(in super::super) const fn new(shard: Arc<Shard>, records: Vec<Arc<Record>>) -> Self {
        Self { shard, records }
    }

    fn number(&self, record: &Record) -> String {
        self.shard.sequence(record.index, record.arrival).to_string()
    }

    /// A JSON object with the records and the members of `rest`, of which there is at least one.
    pub(in super::super) fn write_json_with<T: Serialize>(&self, rest: &T) -> Result<Bytes, Exception> {
        let mut out = br#"{"Records":"#.to_vec();
        self.write_json(&mut out)?;
        out.push(b',');
        let rest = Format::Json.encode(rest)?;
        // The members follow the records; the opening brace is already written.
        out.extend_from_slice(rest.get(1..).unwrap_or_default());
        Ok(Bytes::from(out))
    }

    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), Exception> {
        let broken = |error: &dyn std::fmt::Display| {
            Exception::internal(format!("failed to write the records: {error}"))
        };
        let size: usize = self.records.iter().map(|record| record.size() * 4 / 3 + 256).sum();
        out.reserve(size);
        out.push(b'[');
        for (i, record) in self.records.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let millis = record.arrival.millis();
            write!(
                out,
                r#"{{"SequenceNumber":"{}","ApproximateArrivalTimestamp":{}.{:03},"Data":""#,
                self.number(record),
                millis / 1000,
                millis % 1000
            )
            .map_err(|e| broken(&e))?;
            let start = out.len();
            out.resize(start + record.data.len().div_ceil(3) * 4, 0);
            let room = out.get_mut(start..).unwrap_or_default();
            STANDARD.encode_slice(&record.data, room).map_err(|e| broken(&e))?;
            out.extend_from_slice(br#"","PartitionKey":"#);
            serde_json::to_writer(&mut *out, &record.partition_key).map_err(|e| broken(&e))?;
            out.push(b'}');
        }
        out.push(b']');
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RecordShape<'a> {
    sequence_number: String,
    approximate_arrival_timestamp: Timestamp,
    data: Blob,
    partition_key: &'a str,
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.records.len()))?;
        for record in &self.records {
            list.serialize_element(&RecordShape {
                sequence_number: self.number(record),
                approximate_arrival_timestamp: record.arrival,
                data: Blob(record.data.clone()),
                partition_key: &record.partition_key,
            })?;
        }
        list.end()
    }
}
