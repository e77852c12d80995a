//! Requests that an SDK cannot send: CBOR and malformed requests, over hand-written HTTP/1.1.

use std::io;
use std::time::Duration;

use ciborium::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::endpoint::{Endpoint, Failure, Outcome, ensure, ensure_eq, some};

pub(crate) const CBOR: &str = "application/x-amz-cbor-1.1";
pub(crate) const JSON: &str = "application/x-amz-json-1.1";

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(format!("the connection failed: {error}"))
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Sends one request on a connection of its own.
pub(crate) async fn call(
    at: &Endpoint,
    action: &str,
    content_type: &str,
    body: &[u8],
) -> Result<Answer, Failure> {
    let authority = some(at.url.strip_prefix("http://"), "the scheme")?.trim_end_matches('/');
    let mut stream = TcpStream::connect(authority).await?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {authority}\r\ncontent-type: {content_type}\r\n\
         x-amz-target: Kinesis_20131202.{action}\r\nx-amz-date: 20300101T000000Z\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=test/20300101/us-east-1/kinesis/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=00\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
        .await
        .map_err(|_| Failure("no answer".to_owned()))??;
    let place = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let place = some(place, "the end of the head")?;
    let head = String::from_utf8_lossy(&answer[..place]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut body = answer.split_off(place + 4);
    if head.contains("transfer-encoding: chunked") {
        body = dechunked(&body)?;
    }
    Ok(Answer { status: some(status, "the status")?, head, body })
}

fn dechunked(mut body: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    loop {
        let line = some(body.windows(2).position(|window| window == b"\r\n"), "the size of a chunk")?;
        let size = String::from_utf8_lossy(&body[..line]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).map_err(|e| Failure(e.to_string()))?;
        if size == 0 {
            return Ok(out);
        }
        out.extend_from_slice(some(body.get(line + 2..line + 2 + size), "a chunk")?);
        body = some(body.get(line + 4 + size..), "the next chunk")?;
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub(crate) fn map(members: Vec<(&str, Value)>) -> Value {
    Value::Map(members.into_iter().map(|(name, value)| (text(name), value)).collect())
}

pub(crate) fn member<'a>(value: &'a Value, name: &str) -> Result<&'a Value, Failure> {
    let members = some(value.as_map(), "the map")?;
    let found = members.iter().find(|(key, _)| key.as_text() == Some(name));
    Ok(&some(found, name)?.1)
}

pub(crate) async fn cbor(at: &Endpoint, action: &str, request: &Value) -> Result<Value, Failure> {
    let mut body = Vec::new();
    ciborium::into_writer(request, &mut body).map_err(|error| Failure(error.to_string()))?;
    let answer = call(at, action, CBOR, &body).await?;
    ensure!(answer.status == 200, "{} {}", answer.head, String::from_utf8_lossy(&answer.body));
    ensure!(answer.head.contains(CBOR), "{}", answer.head);
    ciborium::from_reader(answer.body.as_slice()).map_err(|error| Failure(error.to_string()))
}

pub(crate) async fn cbor_is_answered_in_cbor(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    // Jackson writes maps of indefinite length.
    let mut put = vec![0xbf];
    for (key, value) in [("StreamName", text(&name)), ("PartitionKey", text("k"))] {
        ciborium::into_writer(&text(key), &mut put).map_err(|error| Failure(error.to_string()))?;
        ciborium::into_writer(&value, &mut put).map_err(|error| Failure(error.to_string()))?;
    }
    put.extend_from_slice(b"\x64Data\x43\x00\xff\x01\xff");
    let answer = call(&at, "PutRecord", CBOR, &put).await?;
    ensure!(answer.status == 200, "{} {:?}", answer.head, answer.body);
    let put: Value =
        ciborium::from_reader(answer.body.as_slice()).map_err(|error| Failure(error.to_string()))?;
    let number = member(&put, "SequenceNumber")?;

    let iterator = cbor(
        &at,
        "GetShardIterator",
        &map(vec![
            ("StreamName", text(&name)),
            ("ShardId", text("shardId-000000000000")),
            ("ShardIteratorType", text("TRIM_HORIZON")),
        ]),
    )
    .await?;
    let iterator = member(&iterator, "ShardIterator")?.clone();
    let read = cbor(&at, "GetRecords", &map(vec![("ShardIterator", iterator)])).await?;
    let records = some(member(&read, "Records")?.as_array(), "the records")?;
    ensure_eq!(member(&records[0], "Data")?.as_bytes().map(Vec::as_slice), Some(&b"\x00\xff\x01"[..]));
    ensure_eq!(member(&records[0], "SequenceNumber")?, number);
    Ok(())
}

pub(crate) async fn cbor_times_are_milliseconds_under_tag_1(at: Endpoint) -> Outcome {
    let name = at.stream(1).await?;
    at.put(&name, "one").await?;
    let first = arrival(&at, &name, ("TRIM_HORIZON", None)).await?;
    let time = some(first.as_tag(), "the tag")?;
    ensure_eq!(time.0, 1);
    let millis = some(time.1.as_integer(), "an integer")?;
    let millis = i64::try_from(millis).map_err(|error| Failure(error.to_string()))?;

    // The SDK reads JSON's seconds as a double and truncates it, which may lose a millisecond.
    let records = at.read_all(&name, "shardId-000000000000").await?;
    let in_json = some(records[0].approximate_arrival_timestamp, "the arrival")?;
    let in_json = in_json.to_millis().map_err(|error| Failure(error.to_string()))?;
    ensure!((0..=1).contains(&(millis - in_json)), "{millis} in CBOR is {in_json} in JSON");

    let again = arrival(&at, &name, ("AT_TIMESTAMP", Some(first.clone()))).await?;
    ensure_eq!(again, first);
    Ok(())
}

/// The arrival time of the first record at a position.
async fn arrival(at: &Endpoint, stream: &str, from: (&str, Option<Value>)) -> Result<Value, Failure> {
    let (kind, time) = from;
    let mut request = vec![
        ("StreamName", text(stream)),
        ("ShardId", text("shardId-000000000000")),
        ("ShardIteratorType", text(kind)),
    ];
    request.extend(time.map(|time| ("Timestamp", time)));
    let iterator = cbor(at, "GetShardIterator", &map(request)).await?;
    let iterator = member(&iterator, "ShardIterator")?.clone();
    let read = cbor(at, "GetRecords", &map(vec![("ShardIterator", iterator)])).await?;
    let records = some(member(&read, "Records")?.as_array(), "the records")?;
    Ok(member(some(records.first(), "the record")?, "ApproximateArrivalTimestamp")?.clone())
}

pub(crate) async fn an_unknown_action_is_refused(at: Endpoint) -> Outcome {
    let answer = call(&at, "MakeCoffee", JSON, b"{}").await?;
    ensure_eq!(answer.status, 400);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(body.contains("UnknownOperationException"), "{body}");
    Ok(())
}

pub(crate) async fn broken_json_is_refused(at: Endpoint) -> Outcome {
    let answer = call(&at, "ListStreams", JSON, b"{\"Limit\":").await?;
    ensure_eq!(answer.status, 400);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(body.contains("SerializationException"), "{body}");
    ensure!(answer.head.contains("x-amzn-requestid: "), "{}", answer.head);
    Ok(())
}

pub(crate) async fn a_wrong_type_is_refused(at: Endpoint) -> Outcome {
    let answer = call(&at, "DescribeStream", JSON, b"{\"StreamName\":5}").await?;
    ensure_eq!(answer.status, 400);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(body.contains("SerializationException"), "{body}");
    Ok(())
}
