//! PutRecord and PutRecords.

use aws_sdk_kinesis::primitives::Blob;

use crate::endpoint::{Endpoint, Outcome, ensure_eq};

pub(crate) async fn an_explicit_hash_key_chooses_the_shard(at: Endpoint) -> Outcome {
    let name = at.stream(2).await?;
    for (key, shard) in [("0", "shardId-000000000000"), (MOST, "shardId-000000000001")] {
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

const MOST: &str = "340282366920938463463374607431768211455";
