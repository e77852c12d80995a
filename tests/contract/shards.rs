//! Shards: ListShards, SplitShard, MergeShards, UpdateShardCount.

use aws_sdk_kinesis::types::{ScalingType, Shard};

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, refused, some};

const FIRST: &str = "shardId-000000000000";
const SECOND: &str = "shardId-000000000001";
const HALF: &str = "170141183460469231731687303715884105728";

fn starts(shard: &Shard) -> Result<&str, Failure> {
    let range = some(shard.sequence_number_range.as_ref(), "the numbers")?;
    Ok(&range.starting_sequence_number)
}

fn ends(shard: &Shard) -> Option<&str> {
    shard.sequence_number_range.as_ref()?.ending_sequence_number.as_deref()
}

fn range(shard: &Shard) -> Result<(u128, u128), Failure> {
    let range = some(shard.hash_key_range.as_ref(), "the range")?;
    let number = |text: &str| text.parse::<u128>().map_err(|error| Failure(error.to_string()));
    Ok((number(&range.starting_hash_key)?, number(&range.ending_hash_key)?))
}

/// Checks that the open shards cover the hash key space and that each closed shard has children with higher
/// sequence numbers.
fn check_lineage(shards: &[Shard]) -> Outcome {
    let mut open = Vec::new();
    for shard in shards {
        let Some(end) = ends(shard) else {
            open.push(range(shard)?);
            continue;
        };
        let id = Some(shard.shard_id.as_str());
        let is_child = |child: &&Shard| {
            child.parent_shard_id.as_deref() == id || child.adjacent_parent_shard_id.as_deref() == id
        };
        let children: Vec<_> = shards.iter().filter(is_child).collect();
        ensure!(!children.is_empty(), "{id:?} is closed and has no children");
        for child in children {
            ensure!(starts(child)? > end, "{} starts before its parent ends", child.shard_id);
        }
    }
    open.sort_unstable();
    ensure_eq!(open.first().map(|range| range.0), Some(0));
    ensure_eq!(open.last().map(|range| range.1), Some(u128::MAX));
    for pair in open.windows(2) {
        ensure_eq!(pair[0].1 + 1, pair[1].0);
    }
    Ok(())
}

pub(crate) async fn a_split_shard_has_two_children_covering_its_range(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.split(&name, FIRST, HALF).await?;
    let shards = at.shards(&name).await?;
    ensure_eq!(shards.len(), 3);
    for child in &shards[1..] {
        ensure_eq!(child.parent_shard_id.as_deref(), Some(FIRST));
        ensure_eq!(child.adjacent_parent_shard_id, None);
        ensure_eq!(ends(child), None);
    }
    check_lineage(&shards)
}

pub(crate) async fn merged_shards_have_one_child_with_two_parents(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    at.merge(&name, FIRST, SECOND).await?;
    let shards = at.shards(&name).await?;
    ensure_eq!(shards.len(), 3);
    ensure_eq!(shards[2].parent_shard_id.as_deref(), Some(FIRST));
    ensure_eq!(shards[2].adjacent_parent_shard_id.as_deref(), Some(SECOND));
    ensure_eq!(range(&shards[2])?, (0, u128::MAX));
    check_lineage(&shards)
}

pub(crate) async fn a_split_outside_the_range_is_refused(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    let split = |key: &str| {
        at.client.split_shard().stream_name(&name).shard_to_split(FIRST).new_starting_hash_key(key).send()
    };
    ensure_eq!(refused(split(HALF).await)?.0, "InvalidArgumentException");
    ensure_eq!(refused(split("0").await)?.0, "InvalidArgumentException");
    ensure_eq!(refused(split("x").await)?.0, "ValidationException");
    Ok(())
}

pub(crate) async fn a_closed_shard_is_not_split_again(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.split(&name, FIRST, HALF).await?;
    let again =
        at.client.split_shard().stream_name(&name).shard_to_split(FIRST).new_starting_hash_key("1000");
    // AWS documents both error codes without saying which one applies here.
    let (code, _) = refused(again.send().await)?;
    ensure!(code == "InvalidArgumentException" || code == "ResourceInUseException", "{code}");
    ensure_eq!(at.shards(&name).await?.len(), 3);
    Ok(())
}

pub(crate) async fn merge_of_non_adjacent_shards_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(3).await?;
    let merge = at
        .client
        .merge_shards()
        .stream_name(&name)
        .shard_to_merge(FIRST)
        .adjacent_shard_to_merge("shardId-000000000002");
    ensure_eq!(refused(merge.send().await)?.0, "InvalidArgumentException");
    Ok(())
}

pub(crate) async fn an_unknown_shard_is_not_found(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let split = at.client.split_shard().stream_name(&name).shard_to_split("shardId-000000000009");
    ensure_eq!(refused(split.new_starting_hash_key(HALF).send().await)?.0, "ResourceNotFoundException");
    let iterator = at.client.get_shard_iterator().stream_name(&name).shard_id("shardId-000000000009");
    let iterator = iterator.shard_iterator_type("LATEST".into()).send().await;
    ensure_eq!(refused(iterator)?.0, "ResourceNotFoundException");
    Ok(())
}

pub(crate) async fn scaling_produces_uniform_shards_with_correct_lineage(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    for (current, target) in [(2, 4), (4, 3), (3, 5), (5, 3)] {
        let answer = at
            .client
            .update_shard_count()
            .stream_name(&name)
            .target_shard_count(target)
            .scaling_type(ScalingType::UniformScaling)
            .send()
            .await?;
        ensure_eq!(answer.current_shard_count, Some(current));
        ensure_eq!(answer.target_shard_count, Some(target));
        at.ready(&name).await?;
        let shards = at.shards(&name).await?;
        let open = shards.iter().filter(|shard| ends(shard).is_none()).count();
        ensure_eq!(i32::try_from(open).ok(), Some(target));
        check_lineage(&shards)?;
    }
    Ok(())
}

pub(crate) async fn scaling_by_more_than_double_or_half_is_refused(at: Endpoint) -> Outcome {
    let name = at.stream(4).await?;
    for target in [9, 1] {
        let answer = at
            .client
            .update_shard_count()
            .stream_name(&name)
            .target_shard_count(target)
            .scaling_type(ScalingType::UniformScaling)
            .send()
            .await;
        let (code, _) = refused(answer)?;
        ensure!(code == "InvalidArgumentException" || code == "LimitExceededException", "{code}");
    }
    Ok(())
}

pub(crate) async fn shards_are_listed_in_pages_by_token_alone(at: Endpoint) -> Outcome {
    let name = at.stream(5).await?;
    let first = at.client.list_shards().stream_name(&name).max_results(2).send().await?;
    ensure_eq!(first.shards.as_ref().map(Vec::len), Some(2));
    let token = some(first.next_token, "the token")?;
    let both = at.client.list_shards().stream_name(&name).next_token(&token).send().await;
    ensure_eq!(refused(both)?.0, "InvalidArgumentException");
    let second = at.client.list_shards().next_token(token).max_results(3).send().await?;
    ensure_eq!(second.next_token, None);
    let ids: Vec<_> = second.shards.unwrap_or_default().into_iter().map(|shard| shard.shard_id).collect();
    ensure_eq!(ids, ["shardId-000000000002", "shardId-000000000003", "shardId-000000000004"]);
    let bad = at.client.list_shards().next_token("bad").send().await;
    ensure_eq!(refused(bad)?.0, "InvalidArgumentException");
    Ok(())
}
