//! Streams on the embedded Kinesis.

use std::time::Duration;

use aws_sdk_kinesis::types::StreamStatus;
use tokio::time::{Instant, sleep};

use super::stdout::tell;

const STREAM_WAIT: Duration = Duration::from_secs(10);

/// Creates the stream, unless it exists. Returns whether it was created.
pub(super) async fn make_stream(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    shards: i32,
) -> Result<bool, String> {
    let shown = |error: &(dyn std::error::Error + 'static)| {
        aws_smithy_types::error::display::DisplayErrorContext(error).to_string()
    };
    let made = match client.create_stream().stream_name(stream).shard_count(shards).send().await {
        Ok(_) => true,
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => false,
        Err(error) => return Err(shown(&error)),
    };
    let deadline = Instant::now() + STREAM_WAIT;
    loop {
        let answer = client.describe_stream_summary().stream_name(stream).send().await;
        let summary = answer.map_err(|error| shown(&error))?.stream_description_summary;
        if let Some(summary) = summary
            && *summary.stream_status() == StreamStatus::Active
        {
            tell(&format!(
                "stream {stream} with {} open shards, {}",
                summary.open_shard_count(),
                if made { "created now" } else { "kept from before" }
            ));
            return Ok(made);
        }
        if Instant::now() >= deadline {
            return Err(format!("the stream is not ACTIVE after {STREAM_WAIT:?}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
