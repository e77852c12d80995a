//! SubscribeToShard.

use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{
    ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, refused, texts};

pub(crate) const FIRST: &str = "shardId-000000000000";

pub(crate) fn position(kind: ShardIteratorType, number: Option<&str>) -> Result<StartingPosition, Failure> {
    StartingPosition::builder()
        .r#type(kind)
        .set_sequence_number(number.map(str::to_owned))
        .build()
        .map_err(|error| Failure(error.to_string()))
}

pub(crate) async fn subscribe(
    at: &Endpoint,
    consumer: &str,
    from: StartingPosition,
) -> Result<SubscribeToShardOutput, Failure> {
    Ok(at
        .client
        .subscribe_to_shard()
        .consumer_arn(consumer)
        .shard_id(FIRST)
        .starting_position(from)
        .send()
        .await?)
}

/// The next event, or none if the subscription has ended.
pub(crate) async fn event(
    subscription: &mut SubscribeToShardOutput,
) -> Result<Option<SubscribeToShardEvent>, Failure> {
    match subscription.event_stream.recv().await? {
        Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => Ok(Some(event)),
        Some(other) => Err(Failure(format!("an unknown event: {other:?}"))),
        None => Ok(None),
    }
}

/// The next `count` records, and the continuation sequence number.
pub(crate) async fn take(
    subscription: &mut SubscribeToShardOutput,
    count: usize,
) -> Result<(Vec<String>, String), Failure> {
    let mut records = Vec::new();
    loop {
        let Some(event) = event(subscription).await? else {
            return Err(Failure(format!("the subscription ended after {records:?}")));
        };
        records.extend(texts(&event.records));
        if records.len() >= count {
            return Ok((records, event.continuation_sequence_number));
        }
    }
}

pub(crate) async fn records_are_pushed_as_they_arrive(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
    at.put(&name, "one").await?;
    let from = position(ShardIteratorType::TrimHorizon, None)?;
    let mut subscription = subscribe(&at, &consumer, from).await?;
    ensure_eq!(take(&mut subscription, 1).await?.0, ["one"]);
    at.put(&name, "two").await?;
    ensure_eq!(take(&mut subscription, 1).await?.0, ["two"]);
    Ok(())
}

pub(crate) async fn end_of_a_shard_ends_the_subscription_with_children(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
    at.put(&name, "one").await?;
    let from = position(ShardIteratorType::TrimHorizon, None)?;
    let mut subscription = subscribe(&at, &consumer, from).await?;
    ensure_eq!(take(&mut subscription, 1).await?.0, ["one"]);
    at.split(&name, FIRST, "1000").await?;
    let mut ended = false;
    while let Some(event) = event(&mut subscription).await? {
        let children = event.child_shards.unwrap_or_default();
        // The SDK represents a missing number as an empty string.
        ensure_eq!(event.continuation_sequence_number.is_empty(), !children.is_empty());
        ensure!(!ended, "an event after the end");
        ended = !children.is_empty();
        for child in children {
            ensure_eq!(child.parent_shards, [FIRST]);
        }
    }
    ensure!(ended, "no event announced the end");
    Ok(())
}

pub(crate) async fn an_unknown_consumer_can_not_subscribe(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let arn = format!("{}/consumer/c:1", at.arn(&name).await?);
    let from = position(ShardIteratorType::TrimHorizon, None)?;
    let subscribe = at.client.subscribe_to_shard().consumer_arn(arn).shard_id(FIRST).starting_position(from);
    let answer = subscribe.send().await.map(|_| ());
    ensure_eq!(refused(answer)?.0, "ResourceNotFoundException");
    Ok(())
}

pub(crate) async fn a_second_subscription_within_five_seconds_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
    let from = position(ShardIteratorType::TrimHorizon, None)?;
    let first = subscribe(&at, &consumer, from.clone()).await?;
    let second = at
        .client
        .subscribe_to_shard()
        .consumer_arn(&consumer)
        .shard_id(FIRST)
        .starting_position(from)
        .send()
        .await
        .map(|_| ());
    ensure_eq!(refused(second)?.0, "ResourceInUseException");
    drop(first);
    Ok(())
}
