//! Shard iterators and GetRecords.

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, refused, some, texts};

const FIRST: &str = "shardId-000000000000";
const SECOND: &str = "shardId-000000000001";

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

pub(crate) async fn end_of_a_shard_returns_children_and_no_iterator(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.put(&name, "one").await?;
    at.split(&name, FIRST, "1000").await?;
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

pub(crate) async fn end_of_either_merged_parent_returns_the_child(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    at.merge(&name, FIRST, SECOND).await?;
    for shard in [FIRST, SECOND] {
        let iterator = at.iterator(&name, shard, ShardIteratorType::Latest).await?;
        let answer = at.client.get_records().shard_iterator(iterator).send().await?;
        ensure_eq!(answer.next_shard_iterator, None);
        let children = answer.child_shards.unwrap_or_default();
        ensure_eq!(children.len(), 1);
        ensure_eq!(children[0].shard_id, "shardId-000000000002");
        ensure_eq!(children[0].parent_shards, [FIRST, SECOND]);
    }
    Ok(())
}

async fn from(
    at: &Endpoint,
    name: &str,
    kind: ShardIteratorType,
    number: &str,
) -> Result<Vec<String>, Failure> {
    let answer = at
        .client
        .get_shard_iterator()
        .stream_name(name)
        .shard_id(FIRST)
        .shard_iterator_type(kind)
        .starting_sequence_number(number)
        .send()
        .await?;
    let iterator = some(answer.shard_iterator, "the iterator")?;
    let answer = at.client.get_records().shard_iterator(iterator).send().await?;
    Ok(texts(&answer.records))
}

pub(crate) async fn at_and_after_sequence_number_start_reading_there(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let first = at.put(&name, "one").await?;
    let last = at.put(&name, "two").await?;
    let (on, after) = (ShardIteratorType::AtSequenceNumber, ShardIteratorType::AfterSequenceNumber);
    ensure_eq!(from(&at, &name, on.clone(), &first).await?, ["one", "two"]);
    ensure_eq!(from(&at, &name, after.clone(), &first).await?, ["two"]);
    ensure_eq!(from(&at, &name, after.clone(), &last).await?, Vec::<String>::new());
    let shards = at.shards(&name).await?;
    let start = some(shards[0].sequence_number_range.as_ref(), "the numbers")?;
    let start = &start.starting_sequence_number;
    ensure_eq!(from(&at, &name, on, start).await?, ["one", "two"]);
    ensure_eq!(from(&at, &name, after, start).await?, ["one", "two"]);
    Ok(())
}

pub(crate) async fn latest_shows_only_later_records(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.put(&name, "before").await?;
    let iterator = at.iterator(&name, FIRST, ShardIteratorType::Latest).await?;
    at.put(&name, "after").await?;
    let answer = at.client.get_records().shard_iterator(iterator).send().await?;
    ensure_eq!(texts(&answer.records), ["after"]);
    ensure_eq!(answer.millis_behind_latest, Some(0));
    Ok(())
}

pub(crate) async fn at_timestamp_starts_with_the_first_later_record(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.put(&name, "one").await?;
    at.put(&name, "two").await?;
    let records = at.read_all(&name, FIRST).await?;
    let arrivals: Vec<_> = records.iter().filter_map(|r| r.approximate_arrival_timestamp).collect();
    ensure_eq!(arrivals.len(), 2);
    for time in [arrivals[0], DateTime::from_secs(1_000_000_000)] {
        let answer = at
            .client
            .get_shard_iterator()
            .stream_name(&name)
            .shard_id(FIRST)
            .shard_iterator_type(ShardIteratorType::AtTimestamp)
            .timestamp(time)
            .send()
            .await?;
        let iterator = some(answer.shard_iterator, "the iterator")?;
        let answer = at.client.get_records().shard_iterator(iterator).send().await?;
        ensure_eq!(texts(&answer.records), ["one", "two"]);
    }
    Ok(())
}

pub(crate) async fn a_future_timestamp_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let answer = at
        .client
        .get_shard_iterator()
        .stream_name(&name)
        .shard_id(FIRST)
        .shard_iterator_type(ShardIteratorType::AtTimestamp)
        .timestamp(DateTime::from_secs(10_000_000_000))
        .send()
        .await;
    ensure_eq!(refused(answer)?.0, "InvalidArgumentException");
    Ok(())
}

pub(crate) async fn an_iterator_type_requires_exactly_its_fields(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let number = at.put(&name, "one").await?;
    let iterator = |kind: ShardIteratorType, number: Option<&str>| {
        at.client
            .get_shard_iterator()
            .stream_name(&name)
            .shard_id(FIRST)
            .shard_iterator_type(kind)
            .set_starting_sequence_number(number.map(str::to_owned))
            .send()
    };
    for kind in [
        ShardIteratorType::AtSequenceNumber,
        ShardIteratorType::AfterSequenceNumber,
        ShardIteratorType::AtTimestamp,
    ] {
        ensure_eq!(refused(iterator(kind, None).await)?.0, "InvalidArgumentException");
    }
    let with_number = iterator(ShardIteratorType::TrimHorizon, Some(&number)).await;
    ensure_eq!(refused(with_number)?.0, "InvalidArgumentException");
    Ok(())
}

pub(crate) async fn a_sequence_number_of_another_shard_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    let put = at.put_with_hash_key(&name, "0", "one").await?;
    for (shard, number) in [(SECOND, put.as_str()), (FIRST, "1234")] {
        let answer = at
            .client
            .get_shard_iterator()
            .stream_name(&name)
            .shard_id(shard)
            .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
            .starting_sequence_number(number)
            .send()
            .await;
        ensure_eq!(refused(answer)?.0, "InvalidArgumentException");
    }
    Ok(())
}

pub(crate) async fn limited_read_is_continued_by_the_next_iterator(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    for data in ["one", "two", "three"] {
        at.put(&name, data).await?;
    }
    let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
    let answer = at.client.get_records().shard_iterator(iterator).limit(2).send().await?;
    ensure_eq!(texts(&answer.records), ["one", "two"]);
    ensure!(answer.millis_behind_latest > Some(0), "not behind with a record to come");
    let next = some(answer.next_shard_iterator, "the next iterator")?;
    let answer = at.client.get_records().shard_iterator(next).limit(2).send().await?;
    ensure_eq!(texts(&answer.records), ["three"]);
    ensure_eq!(answer.millis_behind_latest, Some(0));
    Ok(())
}

pub(crate) async fn an_invalid_iterator_is_rejected(at: Endpoint) -> Outcome {
    let answer = at.client.get_records().shard_iterator("AAAA").send().await;
    ensure_eq!(refused(answer)?.0, "InvalidArgumentException");
    let name = at.stream(1).await?;
    let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
    let answer = at.client.get_records().shard_iterator(iterator).limit(10_001).send().await;
    let (code, _) = refused(answer)?;
    ensure!(code == "ValidationException" || code == "InvalidArgumentException", "{code}");
    Ok(())
}

pub(crate) async fn an_empty_open_shard_always_returns_a_next_iterator(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let mut iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
    for _ in 0..3 {
        let answer = at.client.get_records().shard_iterator(iterator).send().await?;
        ensure_eq!((answer.records.len(), answer.millis_behind_latest), (0, Some(0)));
        ensure_eq!(answer.child_shards.unwrap_or_default().len(), 0);
        iterator = some(answer.next_shard_iterator, "the next iterator")?;
    }
    Ok(())
}

pub(crate) async fn a_response_holds_at_most_ten_mebibytes(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let data = "x".repeat(1024 * 1024 - 1);
    for _ in 0..11 {
        at.put(&name, &data).await?;
    }
    let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
    let first = at.client.get_records().shard_iterator(iterator).send().await?;
    // Whether the tenth record fits depends on which bytes AWS counts besides the data.
    ensure!((9..=10).contains(&first.records.len()), "{} records", first.records.len());
    let next = some(first.next_shard_iterator, "the next iterator")?;
    let second = at.client.get_records().shard_iterator(next).send().await?;
    ensure_eq!(first.records.len() + second.records.len(), 11);
    Ok(())
}
