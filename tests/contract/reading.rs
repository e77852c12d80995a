//! Iterators and GetRecords.

use aws_sdk_kinesis::types::ShardIteratorType;

use crate::endpoint::{Endpoint, Outcome, ensure, ensure_eq, some, texts};

const FIRST: &str = "shardId-000000000000";

pub(crate) async fn records_are_read_as_they_were_put(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let first = at.put(&name, "one").await?;
    let second = at.put(&name, "two").await?;
    ensure!(first < second && first.len() == second.len(), "{first} {second}");
    let records = at.read_all(&name, FIRST).await?;
    ensure_eq!(texts(&records), ["one", "two"]);
    ensure_eq!(records[0].sequence_number, first);
    ensure_eq!(records[1].sequence_number, second);
    ensure_eq!(records[0].partition_key.as_deref(), Some("k"));
    ensure!(records[0].approximate_arrival_timestamp.is_some(), "no arrival time");
    Ok(())
}

pub(crate) async fn the_end_of_a_shard_names_its_children_and_no_iterator(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.put(&name, "one").await?;
    at.client
        .split_shard()
        .stream_name(&name)
        .shard_to_split(FIRST)
        .new_starting_hash_key("1000")
        .send()
        .await?;
    at.ready(&name).await?;
    let mut iterator = Some(at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?);
    let mut records = Vec::new();
    for _ in 0..10 {
        let Some(current) = iterator else { break };
        let answer = at.client.get_records().shard_iterator(current).send().await?;
        records.extend(answer.records);
        iterator = answer.next_shard_iterator;
        let children = answer.child_shards.unwrap_or_default();
        ensure_eq!(iterator.is_none(), !children.is_empty());
        for child in children {
            ensure_eq!(child.parent_shards, [FIRST]);
            some(child.hash_key_range, "the range of a child")?;
        }
    }
    ensure_eq!(iterator, None);
    ensure_eq!(texts(&records), ["one"]);
    Ok(())
}
