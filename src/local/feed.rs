//! Puts records into the local stream: lines of a file, or samples.

use std::io;
use std::path::Path;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::example;

/// Most bytes of a record: UpdateMaxRecordSize allows no more.
const LONGEST: u64 = 10 << 20;
/// Most records of a PutRecords call.
const BATCH: usize = 500;
/// Samples that are put at once at the first start; a few a second follow.
const FIRST: u64 = 1_000;
const THEN: u64 = 5;

/// A partition key and its data.
pub type KeyedRecord = (String, Vec<u8>);

/// Puts all records; those refused for throughput are put again.
///
/// # Errors
/// Kinesis refuses a record for another reason.
pub async fn put(client: &Client, stream: &str, records: Vec<KeyedRecord>) -> Result<(), String> {
    let mut left = Vec::new();
    for (key, data) in records {
        let entry = PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build();
        left.push(entry.map_err(|error| error.to_string())?);
    }
    while !left.is_empty() {
        let sent = client.put_records().stream_name(stream).set_records(Some(left.clone())).send().await;
        let answer = sent.map_err(|error| match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => aws_smithy_types::error::display::DisplayErrorContext(error).to_string(),
        })?;
        let refused: Vec<bool> =
            answer.records().iter().map(|result| result.error_code().is_some()).collect();
        left =
            left.into_iter().zip(refused).filter(|(_, refused)| *refused).map(|(entry, _)| entry).collect();
        if !left.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Why the lines of a file were not put.
#[derive(Debug, thiserror::Error)]
pub enum Unput {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A line is longer than any record may be.
    #[error("line {0} is longer than 10 MiB, the maximum size of a record")]
    TooLong(u64),
    /// Kinesis refuses some lines.
    #[error("Kinesis rejected lines {first} to {last}: {reason}")]
    Refused {
        /// The first line of the call.
        first: u64,
        /// The last line of the call.
        last: u64,
        /// The answer of Kinesis.
        reason: String,
    },
}

/// Puts each line of a file as a record, with the line number as its partition key. Returns the number of
/// lines.
///
/// # Errors
/// The file cannot be read, or Kinesis refuses.
pub async fn put_lines(client: &Client, stream: &str, file: &Path) -> Result<u64, Unput> {
    let mut lines = BufReader::new(tokio::fs::File::open(file).await?);
    let (mut number, mut batch, mut size) = (0, Vec::new(), 0);
    let send = async |batch: &mut Vec<KeyedRecord>, last: u64| {
        let first = last + 1 - batch.len() as u64;
        let put = put(client, stream, std::mem::take(batch)).await;
        put.map_err(|reason| Unput::Refused { first, last, reason })
    };
    loop {
        let mut line = Vec::new();
        if (&mut lines).take(LONGEST + 2).read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() as u64 > LONGEST {
            return Err(Unput::TooLong(number));
        }
        // Kinesis also limits a call to five MiB, or one larger record.
        if !batch.is_empty() && (batch.len() == BATCH || size + line.len() > 4 * 1024 * 1024) {
            send(&mut batch, number - 1).await?;
            size = 0;
        }
        size += line.len() + 16;
        batch.push((number.to_string(), line));
    }
    send(&mut batch, number).await?;
    Ok(number)
}

/// Puts samples with ascending numbers until `stop`: many at first if the stream is new, then a few a second.
pub async fn put_samples(client: Client, stream: String, from: u64, stop: CancellationToken) {
    let mut next = from;
    loop {
        let until = if next == 0 { FIRST } else { next + THEN };
        while next < until {
            let end = until.min(next + BATCH as u64);
            if let Err(error) = put(&client, &stream, (next..end).map(example::record).collect()).await {
                warn!(error, "failed to put sample records");
                return;
            }
            next = end;
        }
        tokio::select! {
            biased;
            // A stop ends the samples first, so that the numbers of records put and delivered become equal.
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
