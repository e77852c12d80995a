//! PutRecord and PutRecords.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, refused, texts};

const FIRST: &str = "shardId-000000000000";
const SECOND: &str = "shardId-000000000001";
const MOST: &str = "340282366920938463463374607431768211455";

fn entry(data: &str, hash_key: &str) -> Result<PutRecordsRequestEntry, Failure> {
    PutRecordsRequestEntry::builder()
        .partition_key("k")
        .explicit_hash_key(hash_key)
        .data(Blob::new(data))
        .build()
        .map_err(|error| Failure(error.to_string()))
}

pub(crate) async fn an_explicit_hash_key_selects_the_shard(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    for (key, shard) in [("0", FIRST), (MOST, SECOND)] {
        let answer = at
            .client
            .put_record()
            .stream_name(&name)
            .partition_key("any")
            .explicit_hash_key(key)
            .data(Blob::new("x"))
            .send()
            .await?;
        ensure_eq!(answer.shard_id, shard);
    }
    Ok(())
}

pub(crate) async fn the_md5_of_the_partition_key_selects_the_shard(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    // The MD5 of "a" begins with 0c, that of "b" with 92.
    for (key, shard) in [("a", FIRST), ("b", SECOND)] {
        let put = at.client.put_record().stream_name(&name).partition_key(key).data(Blob::new("x"));
        ensure_eq!(put.send().await?.shard_id, shard);
    }
    Ok(())
}

pub(crate) async fn a_batch_keeps_its_order_in_each_shard(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    let entries = [entry("a", "0")?, entry("b", MOST)?, entry("c", "0")?, entry("d", MOST)?];
    let answer = at.client.put_records().stream_name(&name).set_records(Some(entries.into())).send().await?;
    ensure_eq!(answer.failed_record_count, Some(0));
    let shards: Vec<_> = answer.records.iter().filter_map(|result| result.shard_id.as_deref()).collect();
    ensure_eq!(shards, [FIRST, SECOND, FIRST, SECOND]);
    ensure!(answer.records[0].sequence_number < answer.records[2].sequence_number, "out of order");
    ensure_eq!(texts(&at.read_all(&name, FIRST).await?), ["a", "c"]);
    ensure_eq!(texts(&at.read_all(&name, SECOND).await?), ["b", "d"]);
    Ok(())
}

pub(crate) async fn a_batch_of_501_is_rejected_as_a_whole(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let entries: Result<Vec<_>, _> = (0..501).map(|_| entry("x", "0")).collect();
    let answer = at.client.put_records().stream_name(&name).set_records(Some(entries?)).send().await;
    let (code, _) = refused(answer)?;
    ensure!(code == "ValidationException" || code == "InvalidArgumentException", "{code}");
    ensure_eq!(at.read_all(&name, FIRST).await?.len(), 0);
    Ok(())
}

pub(crate) async fn a_record_over_a_mebibyte_is_refused(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let put = |size: usize| {
        let data = Blob::new(vec![b'x'; size]);
        at.client.put_record().stream_name(&name).partition_key("k").data(data).send()
    };
    put(1024 * 1024 - 1).await?;
    let (code, _) = refused(put(1024 * 1024 + 1).await)?;
    ensure!(code == "ValidationException" || code == "InvalidArgumentException", "{code}");
    ensure_eq!(at.read_all(&name, FIRST).await?.len(), 1);
    Ok(())
}

pub(crate) async fn a_hash_key_out_of_range_is_rejected(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let put = at.client.put_record().stream_name(&name).partition_key("k").data(Blob::new("x"));
    let answer = put.explicit_hash_key("340282366920938463463374607431768211456").send().await;
    ensure_eq!(refused(answer)?.0, "InvalidArgumentException");
    Ok(())
}

pub(crate) async fn partition_key_is_required_and_data_may_be_empty(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let put = at.client.put_record().stream_name(&name).partition_key("").data(Blob::new("x"));
    ensure_eq!(refused(put.send().await)?.0, "ValidationException");
    at.put(&name, "").await?;
    ensure_eq!(texts(&at.read_all(&name, FIRST).await?), [""]);
    Ok(())
}

pub(crate) async fn after_a_split_records_go_to_the_children(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    let before = at.put(&name, "before").await?;
    at.split(&name, FIRST, "170141183460469231731687303715884105728").await?;
    let after = at.put_with_hash_key(&name, "0", "after").await?;
    ensure!(before < after, "{before} is not below {after}");
    ensure_eq!(texts(&at.read_all(&name, FIRST).await?), ["before"]);
    ensure_eq!(texts(&at.read_all(&name, SECOND).await?), ["after"]);
    Ok(())
}
