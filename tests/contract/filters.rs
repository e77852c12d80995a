//! ListShards with filters.

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};

use crate::endpoint::{Endpoint, Failure, Outcome, ensure_eq, refused};

/// Creates a stream whose shard 0 is split into 1 and 2, which are then merged into 3. Returns its name.
async fn resharded(at: &Endpoint) -> Result<String, Failure> {
    let name = at.stream(1).await?;
    at.split(&name, "shardId-000000000000", "170141183460469231731687303715884105728").await?;
    at.merge(&name, "shardId-000000000001", "shardId-000000000002").await?;
    Ok(name)
}

fn filter(kind: ShardFilterType) -> aws_sdk_kinesis::types::builders::ShardFilterBuilder {
    ShardFilter::builder().r#type(kind)
}

async fn shown(
    at: &Endpoint,
    name: &str,
    filter: aws_sdk_kinesis::types::builders::ShardFilterBuilder,
) -> Result<Vec<u32>, Failure> {
    let filter = filter.build().map_err(|error| Failure(error.to_string()))?;
    let answer = at.client.list_shards().stream_name(name).shard_filter(filter).send().await?;
    let number = |id: &str| id.rsplit('-').next().and_then(|digits| digits.parse().ok());
    Ok(answer.shards.unwrap_or_default().iter().filter_map(|shard| number(&shard.shard_id)).collect())
}

pub(crate) async fn at_latest_shows_the_open_shards(at: Endpoint) -> Outcome {
    let name = resharded(&at).await?;
    ensure_eq!(shown(&at, &name, filter(ShardFilterType::AtLatest)).await?, [3]);
    Ok(())
}

pub(crate) async fn at_trim_horizon_shows_the_initial_shards(at: Endpoint) -> Outcome {
    let name = resharded(&at).await?;
    ensure_eq!(shown(&at, &name, filter(ShardFilterType::AtTrimHorizon)).await?, [0]);
    Ok(())
}

pub(crate) async fn from_trim_horizon_shows_all_retained_shards(at: Endpoint) -> Outcome {
    let name = resharded(&at).await?;
    ensure_eq!(shown(&at, &name, filter(ShardFilterType::FromTrimHorizon)).await?, [0, 1, 2, 3]);
    Ok(())
}

pub(crate) async fn after_a_shard_shows_those_with_higher_ids(at: Endpoint) -> Outcome {
    let name = resharded(&at).await?;
    let after = filter(ShardFilterType::AfterShardId).shard_id("shardId-000000000001");
    ensure_eq!(shown(&at, &name, after).await?, [2, 3]);
    Ok(())
}

pub(crate) async fn a_time_before_the_stream_is_its_beginning(at: Endpoint) -> Outcome {
    let name = resharded(&at).await?;
    let early = DateTime::from_secs(1_000_000_000);
    let from = filter(ShardFilterType::FromTimestamp).timestamp(early);
    ensure_eq!(shown(&at, &name, from).await?, [0, 1, 2, 3]);
    Ok(())
}

pub(crate) async fn a_filter_without_its_required_field_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    for kind in [ShardFilterType::AfterShardId, ShardFilterType::AtTimestamp, ShardFilterType::FromTimestamp]
    {
        let filter = filter(kind).build().map_err(|error| Failure(error.to_string()))?;
        let answer = at.client.list_shards().stream_name(&name).shard_filter(filter).send().await;
        ensure_eq!(refused(answer)?.0, "InvalidArgumentException");
    }
    Ok(())
}
