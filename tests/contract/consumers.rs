//! Registration of enhanced fan-out consumers.

use aws_sdk_kinesis::types::ConsumerStatus;

use crate::endpoint::{Endpoint, Outcome, ensure, ensure_eq, refused, some};

pub(crate) async fn a_registered_consumer_is_described_and_listed(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let stream = at.arn(&name).await?;
    let consumer = at.consumer(&stream, "c").await?;
    ensure!(consumer.starts_with(&format!("{stream}/consumer/c:")), "{consumer}");
    let by_arn = at.client.describe_stream_consumer().consumer_arn(&consumer).send().await?;
    let described = some(by_arn.consumer_description, "the description")?;
    ensure_eq!(described.consumer_name, "c");
    ensure_eq!(described.stream_arn, stream);
    ensure_eq!(described.consumer_status, ConsumerStatus::Active);
    let listed = at.client.list_stream_consumers().stream_arn(&stream).send().await?;
    ensure_eq!(listed.consumers.unwrap_or_default().len(), 1);
    let answer = at.client.describe_stream_summary().stream_name(&name).send().await?;
    let summary = some(answer.stream_description_summary, "the summary")?;
    ensure_eq!(summary.consumer_count, Some(1));
    Ok(())
}

pub(crate) async fn a_duplicate_consumer_name_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let stream = at.arn(&name).await?;
    at.consumer(&stream, "c").await?;
    let again = at.client.register_stream_consumer().stream_arn(&stream).consumer_name("c").send().await;
    ensure_eq!(refused(again)?.0, "ResourceInUseException");
    Ok(())
}

pub(crate) async fn an_unknown_consumer_is_not_found(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let stream = at.arn(&name).await?;
    let answer = at.client.describe_stream_consumer().stream_arn(&stream).consumer_name("c").send().await;
    ensure_eq!(refused(answer)?.0, "ResourceNotFoundException");
    Ok(())
}

pub(crate) async fn a_deregistered_consumer_is_not_found(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let stream = at.arn(&name).await?;
    let consumer = at.consumer(&stream, "c").await?;
    at.client.deregister_stream_consumer().consumer_arn(&consumer).send().await?;
    for _ in 0..10_000 {
        if at.client.describe_stream_consumer().consumer_arn(&consumer).send().await.is_err() {
            return Ok(());
        }
    }
    ensure!(false, "the consumer stays");
    Ok(())
}

pub(crate) async fn a_stream_with_consumers_is_deleted_only_by_force(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let stream = at.arn(&name).await?;
    at.consumer(&stream, "c").await?;
    let delete = at.client.delete_stream().stream_name(&name);
    ensure_eq!(refused(delete.clone().send().await)?.0, "ResourceInUseException");
    delete.enforce_consumer_deletion(true).send().await?;
    Ok(())
}
