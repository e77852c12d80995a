//! Streams as a whole.

use aws_sdk_kinesis::types::{StreamMode, StreamStatus};

use crate::endpoint::{Endpoint, Outcome, ensure, ensure_eq, some};

pub(crate) async fn a_new_stream_is_described_as_it_was_asked_for(at: Endpoint) -> Outcome {
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
