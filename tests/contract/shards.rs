//! Shards: listing, splitting, merging, scaling.

use crate::endpoint::{Endpoint, Outcome, ensure, ensure_eq, some};

pub(crate) async fn a_split_shard_has_two_children_that_share_its_range(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.client
        .split_shard()
        .stream_name(&name)
        .shard_to_split("shardId-000000000000")
        .new_starting_hash_key("170141183460469231731687303715884105728")
        .send()
        .await?;
    at.ready(&name).await?;
    let shards = at.shards(&name).await?;
    ensure_eq!(shards.len(), 3);
    let parent = some(shards[0].sequence_number_range.clone(), "the numbers")?;
    let end = some(parent.ending_sequence_number, "the end of the parent")?;
    for child in &shards[1..] {
        ensure_eq!(child.parent_shard_id.as_deref(), Some("shardId-000000000000"));
        ensure_eq!(child.adjacent_parent_shard_id, None);
        let numbers = some(child.sequence_number_range.clone(), "the numbers")?;
        ensure!(numbers.starting_sequence_number > end, "{numbers:?} starts before {end}");
        ensure_eq!(numbers.ending_sequence_number, None);
    }
    Ok(())
}
