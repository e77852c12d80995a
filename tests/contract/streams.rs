//! Streams: creation, description, deletion, retention, tags.

use std::collections::BTreeMap;

use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails, StreamStatus};

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, refused, some};

pub(crate) async fn a_new_stream_is_described_as_requested(at: Endpoint) -> Outcome {
    let name = at.stream(3).await?;
    let answer = at.client.describe_stream().stream_name(&name).send().await?;
    let described = some(answer.stream_description, "the description")?;
    ensure_eq!(described.stream_name, name);
    ensure_eq!(described.stream_status, StreamStatus::Active);
    ensure_eq!(described.retention_period_hours, 24);
    ensure_eq!(described.has_more_shards, false);
    let mode = described.stream_mode_details.map(|details| details.stream_mode);
    ensure_eq!(mode, Some(StreamMode::Provisioned));
    ensure!(described.stream_arn.ends_with(&format!(":stream/{name}")), "{}", described.stream_arn);
    let ids: Vec<_> = described.shards.iter().map(|shard| shard.shard_id.clone()).collect();
    let wanted = ["shardId-000000000000", "shardId-000000000001", "shardId-000000000002"];
    ensure_eq!(ids, wanted);

    let answer = at.client.describe_stream_summary().stream_name(&name).send().await?;
    let summary = some(answer.stream_description_summary, "the summary")?;
    ensure_eq!(summary.open_shard_count, 3);
    ensure_eq!(summary.consumer_count, Some(0));
    Ok(())
}

pub(crate) async fn an_on_demand_stream_has_four_shards(at: Endpoint) -> Outcome {
    let name = at.name();
    let details = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build();
    let details = details.map_err(|error| Failure(error.to_string()))?;
    at.client.create_stream().stream_name(&name).stream_mode_details(details).send().await?;
    at.ready(&name).await?;
    ensure_eq!(at.shards(&name).await?.len(), 4);
    Ok(())
}

pub(crate) async fn an_unknown_stream_is_not_found(at: Endpoint) -> Outcome {
    let name = at.name();
    let (code, message) = refused(at.client.describe_stream().stream_name(&name).send().await)?;
    ensure_eq!(code, "ResourceNotFoundException");
    ensure!(message.contains(&name), "{message}");
    let (code, _) = refused(at.client.list_shards().stream_name(&name).send().await)?;
    ensure_eq!(code, "ResourceNotFoundException");
    let (code, _) = refused(at.client.delete_stream().stream_name(&name).send().await)?;
    ensure_eq!(code, "ResourceNotFoundException");
    Ok(())
}

pub(crate) async fn a_duplicate_stream_name_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let again = at.client.create_stream().stream_name(&name).shard_count(1).send().await;
    ensure_eq!(refused(again)?.0, "ResourceInUseException");
    Ok(())
}

pub(crate) async fn an_illegal_name_violates_a_constraint(at: Endpoint) -> Outcome {
    let (code, message) = refused(at.client.describe_stream().stream_name("a b").send().await)?;
    ensure_eq!(code, "ValidationException");
    ensure!(message.contains("streamName"), "{message}");
    Ok(())
}

pub(crate) async fn a_deleted_stream_frees_its_name(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let number = at.put(&name, "old").await?;
    at.client.delete_stream().stream_name(&name).send().await?;
    for _ in 0..10_000 {
        if at.client.describe_stream_summary().stream_name(&name).send().await.is_err() {
            break;
        }
    }
    at.client.create_stream().stream_name(&name).shard_count(1).send().await?;
    at.ready(&name).await?;
    ensure_eq!(at.read_all(&name, "shardId-000000000000").await?.len(), 0);
    let old = at
        .client
        .get_shard_iterator()
        .stream_name(&name)
        .shard_id("shardId-000000000000")
        .shard_iterator_type("AFTER_SEQUENCE_NUMBER".into())
        .starting_sequence_number(number)
        .send()
        .await;
    ensure_eq!(refused(old)?.0, "InvalidArgumentException");
    Ok(())
}

pub(crate) async fn streams_are_listed_in_pages(at: Endpoint) -> Outcome {
    let mut wanted = [at.stream(1).await?, at.stream(1).await?, at.stream(1).await?];
    wanted.sort();
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    for _ in 0..1000 {
        let answer =
            at.client.list_streams().limit(2).set_exclusive_start_stream_name(after.take()).send().await?;
        ensure!(answer.stream_names.len() <= 2, "{:?}", answer.stream_names);
        found.extend(answer.stream_names);
        if !answer.has_more_streams {
            break;
        }
        after = found.last().cloned();
    }
    ensure!(found.is_sorted(), "{found:?}");
    for name in &wanted {
        ensure!(found.contains(name), "{name} is missing in {found:?}");
    }
    Ok(())
}

pub(crate) async fn shards_are_described_in_pages(at: Endpoint) -> Outcome {
    let name = at.stream(3).await?;
    let first = at.client.describe_stream().stream_name(&name).limit(2).send().await?;
    let first = some(first.stream_description, "the description")?;
    ensure_eq!((first.shards.len(), first.has_more_shards), (2, true));
    let second = at
        .client
        .describe_stream()
        .stream_name(&name)
        .exclusive_start_shard_id("shardId-000000000001")
        .send()
        .await?;
    let second = some(second.stream_description, "the description")?;
    ensure_eq!((second.shards.len(), second.has_more_shards), (1, false));
    Ok(())
}

pub(crate) async fn a_stream_is_accepted_by_its_arn(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let arn = at.arn(&name).await?;
    let answer = at.client.list_shards().stream_arn(&arn).send().await?;
    ensure_eq!(answer.shards.unwrap_or_default().len(), 1);
    let answer = at.client.describe_stream_summary().stream_arn(&arn).send().await?;
    ensure_eq!(answer.stream_description_summary.map(|summary| summary.stream_name), Some(name));
    Ok(())
}

pub(crate) async fn retention_goes_up_and_down_within_its_limits(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let client = &at.client;
    let increase =
        |hours| client.increase_stream_retention_period().stream_name(&name).retention_period_hours(hours);
    let decrease =
        |hours| client.decrease_stream_retention_period().stream_name(&name).retention_period_hours(hours);
    increase(48).send().await?;
    at.ready(&name).await?;
    ensure_eq!(refused(increase(36).send().await)?.0, "InvalidArgumentException");
    ensure_eq!(refused(decrease(72).send().await)?.0, "InvalidArgumentException");
    decrease(24).send().await?;
    at.ready(&name).await?;
    let answer = at.client.describe_stream_summary().stream_name(&name).send().await?;
    let summary = some(answer.stream_description_summary, "the summary")?;
    ensure_eq!(summary.retention_period_hours, 24);
    Ok(())
}

pub(crate) async fn tags_are_added_listed_and_removed(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.client.add_tags_to_stream().stream_name(&name).tags("a", "1").tags("b", "2").send().await?;
    at.client.remove_tags_from_stream().stream_name(&name).tag_keys("a").send().await?;
    let answer = at.client.list_tags_for_stream().stream_name(&name).send().await?;
    let tags: BTreeMap<_, _> = answer.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    ensure_eq!(tags, BTreeMap::from([("b".to_owned(), Some("2".to_owned()))]));
    Ok(())
}
