//! Concurrent writers and readers at the tip: no record is missed, duplicated or out of order.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use multilangd::local::kinesis::Options;
use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, ours, some, text};

const WRITERS: usize = 8;
const RECORDS: usize = 200_000;
const BATCH: usize = 500;

/// Puts the records of one writer and returns them in order.
async fn write(at: Endpoint, stream: String, writer: usize) -> Result<Vec<String>, Failure> {
    let mut numbers = Vec::new();
    for batch in 0..RECORDS / WRITERS / BATCH {
        let entries = (0..BATCH).map(|i| {
            let record = batch * BATCH + i;
            PutRecordsRequestEntry::builder()
                .partition_key(format!("{writer}-{}", record % 16))
                .data(Blob::new(format!("{writer}:{record}")))
                .build()
                .map_err(|error| Failure(error.to_string()))
        });
        let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
        let answer = at.client.put_records().stream_name(&stream).set_records(Some(entries)).send().await?;
        ensure_eq!(answer.failed_record_count, Some(0));
        numbers.extend(answer.records.into_iter().filter_map(|record| record.sequence_number));
    }
    Ok(numbers)
}

/// Reads a shard at its tip until the readers of all shards together have read `all` records.
async fn tail(
    at: Endpoint,
    stream: String,
    shard: String,
    mut seen_everywhere: tokio::sync::watch::Receiver<usize>,
    seen_here: tokio::sync::watch::Sender<usize>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut iterator = at.iterator(&stream, &shard, ShardIteratorType::TrimHorizon).await?;
    let mut seen = Vec::new();
    loop {
        let answer = at.client.get_records().shard_iterator(&iterator).send().await?;
        let count = answer.records.len();
        seen.extend(answer.records.iter().map(|r| (r.sequence_number.clone(), text(r))));
        seen_here.send_modify(|total| *total += count);
        if *seen_everywhere.borrow_and_update() >= RECORDS {
            return Ok(seen);
        }
        iterator = some(answer.next_shard_iterator, "the next iterator of an open shard")?;
    }
}

async fn load(at: Endpoint) -> Outcome {
    let stream = at.stream(4).await?;
    let (seen_here, seen_everywhere) = tokio::sync::watch::channel(0);
    let mut readers = JoinSet::new();
    for shard in at.shards(&stream).await? {
        readers.spawn(tail(
            at.clone(),
            stream.clone(),
            shard.shard_id,
            seen_everywhere.clone(),
            seen_here.clone(),
        ));
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(at.clone(), stream.clone(), writer));
    }
    let mut put = Vec::new();
    while let Some(written) = writers.join_next().await {
        put.extend(written.map_err(|error| Failure(error.to_string()))??);
    }
    let mut read = Vec::new();
    while let Some(seen) = readers.join_next().await {
        let seen = seen.map_err(|error| Failure(error.to_string()))??;
        ensure!(seen.is_sorted_by(|a, b| a.0 < b.0), "a shard's records are out of order");
        // The records of one writer with one partition key arrive in the order in which it put them.
        let mut last = std::collections::BTreeMap::new();
        for (_, text) in &seen {
            let (writer, record) = some(text.split_once(':'), "a record's number")?;
            let record: usize = record.parse().map_err(|_| Failure(text.clone()))?;
            let before = last.insert((writer, record % 16), record);
            ensure!(before.is_none_or(|before| before < record), "{text} came after {before:?}");
        }
        read.extend(seen.into_iter().map(|(number, _)| number));
    }
    ensure_eq!(read.len(), RECORDS);
    put.sort();
    read.sort();
    ensure!(put == read, "other records were read than put");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_and_readers_lose_and_reorder_nothing() {
    let kinesis = ours(Options::default()).await;
    let done = tokio::time::timeout(Duration::from_secs(120), load(Endpoint::of(&kinesis))).await;
    assert_eq!(kinesis.total_records(), 200_000);
    kinesis.stop().await;
    match done {
        Ok(Ok(())) => {}
        Ok(Err(Failure(why))) => panic!("{why}"),
        Err(_) => panic!("not done in time"),
    }
}
