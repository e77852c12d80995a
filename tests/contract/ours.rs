//! Requirements on the embedded endpoint only: its start, injected faults, expiry, limits, HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use multilangd::local::kinesis::{Effect, Error, Fault, Kinesis, Operation, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::endpoint::{Endpoint, Failure, ensure, ensure_eq, ours, refused, some, texts};
use crate::wire::{CBOR, call};

const FIRST: &str = "shardId-000000000000";

/// Runs a test body against an endpoint of its own, then stops the endpoint.
pub(crate) async fn with(
    options: Options,
    body: impl AsyncFnOnce(&Kinesis, &Endpoint) -> Result<(), Failure>,
) {
    let kinesis = ours(options).await;
    let at = Endpoint::of(&kinesis);
    let outcome = tokio::time::timeout(Duration::from_secs(60), body(&kinesis, &at)).await;
    kinesis.stop().await;
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(Failure(why))) => panic!("{why}"),
        Err(_) => panic!("not done in time"),
    }
}

#[tokio::test]
async fn only_loopback_addresses_are_accepted_for_listening() {
    let address: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = Kinesis::start(Options { address, ..Options::default() }).await.unwrap_err();
    assert!(matches!(error, Error::NotLoopback { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = ours(Options::default()).await;
    let taken = Options { address: first.address(), ..Options::default() };
    let error = Kinesis::start(taken).await.unwrap_err();
    assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
    first.stop().await;
}

#[tokio::test]
async fn error_messages_equal_those_of_aws() {
    with(Options::default(), async |_, at| {
        let (_, message) = refused(at.client.describe_stream().stream_name("none").send().await)?;
        ensure_eq!(message, "Stream none under account 000000000000 not found.");
        let name = at.stream(1).await?;
        let iterator = at.client.get_shard_iterator().stream_name(&name).shard_id(FIRST);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::AtTimestamp).send().await;
        let (_, message) = refused(iterator)?;
        ensure!(message.starts_with("Must specify timestampInMillis parameter"), "{message}");
        let (_, message) = refused(at.client.get_records().shard_iterator("AAAA").send().await)?;
        ensure_eq!(message, "Invalid ShardIterator.");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn injected_throttle_applies_to_its_calls_only() {
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(1).await?;
        let fault = Fault::on(Operation::GetRecords, Effect::Throttle).stream(&name).shard(FIRST);
        kinesis.faults().add(fault.times(1));
        let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
        let answer = at.client.get_records().shard_iterator(&iterator).send().await;
        ensure_eq!(refused(answer)?.0, "ProvisionedThroughputExceededException");
        at.client.get_records().shard_iterator(&iterator).send().await?;
        ensure_eq!(kinesis.faults().calls(Operation::GetRecords), 2);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn injected_failure_has_no_effect_on_the_stream() {
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(1).await?;
        kinesis.faults().add(Fault::on(Operation::PutRecord, Effect::Fail));
        let put = at.client.put_record().stream_name(&name).partition_key("k").data(Blob::new("x"));
        ensure_eq!(refused(put.send().await)?.0, "InternalFailure");
        ensure_eq!(kinesis.total_records(), 0);
        kinesis.faults().clear();
        at.put(&name, "x").await?;
        ensure_eq!(kinesis.total_records(), 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn injected_lost_response_follows_an_executed_call() {
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(1).await?;
        kinesis.faults().add(Fault::on(Operation::PutRecord, Effect::LoseAnswer).times(1));
        ensure!(at.put(&name, "one").await.is_err(), "the answer came");
        ensure_eq!(texts(&at.read_all(&name, FIRST).await?), ["one"]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn injected_delay_precedes_the_call() {
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(1).await?;
        let delay = Duration::from_millis(200);
        kinesis.faults().add(Fault::on(Operation::PutRecord, Effect::Delay(delay)).times(1));
        let start = tokio::time::Instant::now();
        at.put(&name, "one").await?;
        ensure!(start.elapsed() >= delay, "no delay");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn throttle_of_one_shard_fails_part_of_a_batch() {
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(2).await?;
        let fault = Fault::on(Operation::PutRecords, Effect::Throttle).shard(FIRST);
        kinesis.faults().add(fault.times(1));
        let entry = |hash_key: &str| {
            PutRecordsRequestEntry::builder()
                .partition_key("k")
                .explicit_hash_key(hash_key)
                .data(Blob::new("x"))
                .build()
                .map_err(|error| Failure(error.to_string()))
        };
        let most = u128::MAX.to_string();
        let entries = vec![entry("0")?, entry(&most)?];
        let put = at.client.put_records().stream_name(&name).set_records(Some(entries));
        let answer = put.send().await?;
        ensure_eq!(answer.failed_record_count, Some(1));
        let code = answer.records[0].error_code.as_deref();
        ensure_eq!(code, Some("ProvisionedThroughputExceededException"));
        ensure!(answer.records[1].sequence_number.is_some(), "the other record failed too");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn iterators_expire_by_age_and_on_demand() {
    let options = Options { iterator_lifetime: Duration::from_millis(100), ..Options::default() };
    with(options, async |_, at| {
        let name = at.stream(1).await?;
        let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
        let mut answer = at.client.get_records().shard_iterator(&iterator).send().await;
        while answer.is_ok() {
            answer = at.client.get_records().shard_iterator(&iterator).send().await;
        }
        let (code, message) = refused(answer)?;
        ensure_eq!(code, "ExpiredIteratorException");
        ensure!(message.contains("tolerated delay of 100 milliseconds"), "{message}");
        Ok(())
    })
    .await;
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(1).await?;
        let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
        kinesis.expire_iterators();
        let answer = at.client.get_records().shard_iterator(&iterator).send().await;
        ensure_eq!(refused(answer)?.0, "ExpiredIteratorException");
        let fresh = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
        at.client.get_records().shard_iterator(&fresh).send().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn paging_tokens_expire() {
    with(Options::default(), async |kinesis, at| {
        let name = at.stream(3).await?;
        let page = at.client.list_shards().stream_name(&name).max_results(1).send().await?;
        kinesis.expire_iterators();
        let next = at.client.list_shards().set_next_token(page.next_token).send().await;
        ensure_eq!(refused(next)?.0, "ExpiredNextTokenException");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn shard_limits_apply_when_enabled() {
    with(Options { service_limits: true, ..Options::default() }, async |_, at| {
        let name = at.stream(1).await?;
        let iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
        let mut refusals = 0;
        // More than five calls per second, however slow the machine is.
        for calls in futures_of(10, || at.client.get_records().shard_iterator(&iterator).send()).await {
            refusals += usize::from(calls.is_err());
        }
        ensure!(refusals >= 1, "ten reads at once were all admitted");
        let entry = || {
            PutRecordsRequestEntry::builder()
                .partition_key("k")
                .data(Blob::new(vec![0; 10_000]))
                .build()
                .map_err(|error| Failure(error.to_string()))
        };
        let entries: Result<Vec<_>, _> = (0..200).map(|_| entry()).collect();
        let put = at.client.put_records().stream_name(&name).set_records(Some(entries?));
        let answer = put.send().await?;
        ensure!(answer.failed_record_count > Some(0), "two megabytes were taken at once");
        let code = answer.records.last().and_then(|result| result.error_code.as_deref());
        ensure_eq!(code, Some("ProvisionedThroughputExceededException"));
        Ok(())
    })
    .await;
}

/// The responses of `count` concurrent calls.
async fn futures_of<F>(count: usize, call: impl Fn() -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let calls: tokio::task::JoinSet<_> = (0..count).map(|_| call()).collect();
    calls.join_all().await
}

#[tokio::test]
async fn stream_with_a_creation_delay_becomes_active_later() {
    let options = Options { creation_delay: Duration::from_millis(200), ..Options::default() };
    with(options, async |_, at| {
        let name = at.name();
        at.client.create_stream().stream_name(&name).shard_count(1).send().await?;
        let answer = at.client.describe_stream_summary().stream_name(&name).send().await?;
        let summary = some(answer.stream_description_summary, "the summary")?;
        ensure_eq!(summary.stream_status.as_str(), "CREATING");
        let put = at.client.put_record().stream_name(&name).partition_key("k").data(Blob::new("x"));
        ensure_eq!(refused(put.send().await)?.0, "ResourceNotFoundException");
        at.ready(&name).await?;
        at.put(&name, "x").await.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn oversized_request_body_is_rejected() {
    with(Options::default(), async |_, at| {
        let answer = call(at, "PutRecords", CBOR, &vec![0; 17 << 20]).await;
        // The rejection may arrive while the client still sends, which then finds the connection closed.
        ensure!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413), "it was taken");
        at.stream(1).await.map(|_| ())
    })
    .await;
}

/// Encodes an HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    out.extend_from_slice(payload);
    out
}

/// Encodes a header as an HPACK literal without indexing.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        out.push(u8::try_from(text.len()).unwrap_or(0));
        out.extend_from_slice(text.as_bytes());
    }
    out
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_supported() {
    with(Options::default(), async |kinesis, _| {
        let mut stream = TcpStream::connect(kinesis.address()).await?;
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        out.extend(frame(4, 0, 0, &[]));
        let headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "localhost"),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "Kinesis_20131202.ListStreams"),
        ];
        let block: Vec<u8> = headers.iter().flat_map(|(name, value)| header(name, value)).collect();
        out.extend(frame(1, 4, 1, &block));
        out.extend(frame(0, 1, 1, b"{}"));
        stream.write_all(&out).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
            stream.read_exact(&mut payload).await?;
            match head[3] {
                // The first header of the response is its status, 200, as index 8 of the HPACK static table.
                1 => ensure_eq!(payload.first(), Some(&0x88)),
                0 => {
                    let body = String::from_utf8_lossy(&payload).into_owned();
                    ensure!(body.contains("StreamNames"), "{body}");
                    return Ok(());
                }
                _ => {}
            }
        }
    })
    .await;
}
