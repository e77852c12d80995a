//! Shards and records with Kinesis.
//!
//! The stream is addressed by its name, as in KCL, or by its ARN (`multilangd.useStreamArn`). In KCL: `KinesisShardDetector`, `KinesisDataFetcher`.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::get_records::GetRecords;
use aws_sdk_kinesis::operation::list_streams::ListStreamsError;
use aws_sdk_kinesis::types as sdk;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::DateTime;
use tokio::time::sleep;
use tracing::debug;

use super::calls::Count;
use super::capture::{Capture, Captured};
use super::connections::Connections;
use super::error::{Failure, failure};
use super::http::Http;
use super::repeat::{Made, Observe, Repeat};
use crate::budget::Reservation;
use crate::record::{Data, Record};
use crate::retrieval::{self, Answer, Start};
use crate::sequence::SequenceNumber;
use crate::shard::{self, BoxFuture, ChildShard, Filter, HashRange, Shard, ShardId};
use crate::stream::{ConfiguredArn, StreamId};

/// Streams of one response of ListStreams.
const PAGE: i32 = 1_000;

/// One stream.
#[derive(Debug, Clone)]
pub struct Stream {
    pub(super) client: Client,
    pub(super) name: String,
    /// `streamArn`.
    arn: Option<ConfiguredArn>,
    pub(super) connections: Arc<Connections>,
    list: Attempts,
    repeat: Arc<Repeat<GetRecords>>,
}

/// Retries of a throttled ListShards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// `listShardsBackoffTimeInMillis`.
    pub pause: Duration,
    /// `maxListShardsRetryAttempts`.
    pub most: u32,
}

impl Default for Attempts {
    /// KCL's defaults.
    fn default() -> Self {
        Self { pause: Duration::from_millis(1_500), most: 50 }
    }
}

impl Stream {
    /// The stream of that name, at `endpoint` if it is not the usual one.
    pub(super) fn new(
        client: Client,
        name: String,
        endpoint: Option<String>,
        http: Http,
        count: Count,
    ) -> Self {
        let connections = Arc::new(Connections::to(endpoint.as_deref(), http));
        let repeat = Arc::new(Repeat::new(count, None));
        Self { client, name, arn: None, connections, list: Attempts::default(), repeat }
    }

    /// Compares the stream with this ARN, or addresses it by the ARN.
    #[must_use]
    pub fn with_arn(self, arn: Option<ConfiguredArn>) -> Self {
        Self { arn, ..self }
    }

    /// `StreamARN` of a call; none if the name is used.
    pub fn by_arn(&self) -> Option<String> {
        self.used_arn().map(str::to_owned)
    }

    fn used_arn(&self) -> Option<&str> {
        self.arn.as_ref().filter(|arn| arn.used).map(|arn| arn.arn.as_str())
    }

    /// `StreamName` of a call; none if the ARN is used.
    pub fn by_name(&self) -> Option<String> {
        self.by_arn().is_none().then(|| self.name.clone())
    }

    /// Changes the retries of ListShards.
    #[must_use]
    pub fn listing(self, list: Attempts) -> Self {
        Self { list, ..self }
    }

    /// The client, for calls that the daemon does not make.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Later pages are requested by their token alone (ListShards API reference, `NextToken`).
    async fn list_shards(&self, filter: Filter) -> Result<Vec<Shard>, shard::Error> {
        let mut shards = Vec::new();
        let mut token = None;
        let mut attempts = 0;
        loop {
            let request = self.client.list_shards();
            let request = match &token {
                Some(token) => request.next_token(token),
                None => request
                    .set_stream_name(self.by_name())
                    .set_stream_arn(self.by_arn())
                    .set_shard_filter(shard_filter(filter)),
            };
            match request.send().await {
                Ok(page) => {
                    for listed in page.shards() {
                        shards.push(read_shard(listed).map_err(shard::Error::Denied)?);
                    }
                    token = page.next_token;
                    if token.is_none() {
                        return Ok(shards);
                    }
                }
                Err(error) => {
                    let failure = failure(&error);
                    attempts += 1;
                    if !failure.is_throttling() || attempts >= self.list.most {
                        return Err(self.list_error(&failure));
                    }
                    debug!(error = %failure, attempts, "ListShards was throttled, retrying");
                    sleep(self.list.pause).await;
                }
            }
        }
    }

    fn list_error(&self, failure: &Failure) -> shard::Error {
        let text = format!("stream {}: {failure}", self.name);
        match failure {
            Failure::Answered { code, .. } if code == "ResourceNotFoundException" => {
                shard::Error::StreamMissing(self.name.clone())
            }
            failure if failure.is_throttling() => shard::Error::Throttled(text),
            Failure::Answered { code, .. } if code == "ResourceInUseException" => {
                shard::Error::Unavailable(text)
            }
            Failure::Answered { service_fault: true, .. } | Failure::Unanswered(_) => {
                shard::Error::Unavailable(text)
            }
            Failure::Answered { .. } | Failure::NotSent(_) => shard::Error::Denied(text),
        }
    }

    /// Uses `DescribeStream` if `DescribeStreamSummary` is denied: roles for KCL 2 may allow only the former,
    /// which returns the same.
    async fn describe_identity(&self) -> Result<StreamId, shard::Error> {
        let call = self.client.describe_stream_summary().set_stream_name(self.by_name());
        let sent = call.set_stream_arn(self.by_arn()).send().await;
        let refused = match sent {
            Ok(answer) => {
                let summary = answer.stream_description_summary;
                let found = summary.map(|summary| (summary.stream_arn, summary.stream_creation_timestamp));
                return self.identity_of(found);
            }
            Err(error) => self.identity_error(&failure(&error)),
        };
        let shard::Error::Denied(_) = refused else { return Err(refused) };
        let call =
            self.client.describe_stream().set_stream_name(self.by_name()).set_stream_arn(self.by_arn());
        match call.limit(1).send().await {
            Ok(answer) => {
                let found = answer.stream_description;
                self.identity_of(found.map(|stream| (stream.stream_arn, stream.stream_creation_timestamp)))
            }
            Err(_) => Err(refused),
        }
    }

    fn identity_of(&self, found: Option<(String, DateTime)>) -> Result<StreamId, shard::Error> {
        let found = found.filter(|(arn, _)| !arn.is_empty());
        let missing =
            || shard::Error::Denied(format!("stream {}: DescribeStreamSummary returned no ARN", self.name));
        let (arn, created) = found.ok_or_else(missing)?;
        match &self.arn {
            Some(configured) if configured.differs_from(&arn) => {
                Err(shard::Error::Namesake { configured: configured.arn.clone(), found: arn })
            }
            _ => Ok(StreamId::new(&arn, nearest_millis(&created))),
        }
    }

    fn identity_error(&self, failure: &Failure) -> shard::Error {
        if failure.is_unknown_call() {
            return shard::Error::Denied(format!("stream {}: {failure}", self.name));
        }
        self.list_error(failure)
    }

    async fn takes_number(&self, shard: &ShardId, number: &SequenceNumber) -> Result<bool, shard::Error> {
        let call = self.client.get_shard_iterator().shard_id(shard.as_str());
        let call = call.set_stream_name(self.by_name()).set_stream_arn(self.by_arn());
        let call = call.shard_iterator_type(sdk::ShardIteratorType::AtSequenceNumber);
        match call.starting_sequence_number(number.as_str()).send().await {
            Ok(_) => Ok(true),
            Err(error) => {
                let failure = failure(&error);
                match failure.code() {
                    "InvalidArgumentException" => Ok(false),
                    // The shard was removed after the listing.
                    "ResourceNotFoundException" => Ok(true),
                    _ => Err(self.list_error(&failure)),
                }
            }
        }
    }

    async fn get_iterator(&self, shard: &ShardId, start: &Start) -> Result<String, retrieval::Error> {
        use sdk::ShardIteratorType as Type;
        let (kind, sequence, timestamp) = match start {
            Start::TrimHorizon => (Type::TrimHorizon, None, None),
            Start::Latest => (Type::Latest, None, None),
            Start::AtTimestamp(millis) => (Type::AtTimestamp, None, Some(DateTime::from_millis(*millis))),
            Start::At(number) => (Type::AtSequenceNumber, Some(number.to_string()), None),
            Start::After(number) => (Type::AfterSequenceNumber, Some(number.to_string()), None),
        };
        let sent = self
            .client
            .get_shard_iterator()
            .set_stream_name(self.by_name())
            .set_stream_arn(self.by_arn())
            .shard_id(shard.as_str())
            .shard_iterator_type(kind)
            .set_starting_sequence_number(sequence)
            .set_timestamp(timestamp)
            .send()
            .await;
        let answer = sent.map_err(|error| self.read_error(&failure(&error), false))?;
        answer
            .shard_iterator
            .ok_or_else(|| retrieval::Error::Unavailable("GetShardIterator returned no iterator".to_owned()))
    }

    async fn get_records(
        &self,
        iterator: &str,
        limit: usize,
        room: Reservation,
    ) -> Result<Answer, retrieval::Error> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let capture = Capture::records(room);
        let unreadable = |what: String| retrieval::Error::Denied(format!("stream {}: {what}", self.name));
        let call = self.client.get_records().shard_iterator(iterator).limit(limit);
        let call = call.set_stream_arn(self.by_arn());
        let input = call.as_input().clone().build().map_err(|error| unreadable(error.to_string()))?;
        let capturing = |request: &mut HttpRequest| request.add_extension(capture.clone());
        if let Made::Done(sent) = self.repeat.call(input, capturing).await {
            return match (capture.take(), sent) {
                (Captured::TooLarge(bytes), _) => Err(retrieval::Error::NoRoom(bytes)),
                (_, Err(failure)) => Err(self.read_error(&failure, true)),
                (Captured::Answer(answer), Ok(_)) => answer.map_err(unreadable),
                (_, Ok(_)) => Err(unreadable("the response of GetRecords was not captured".to_owned())),
            };
        }
        let observe = Observe::default();
        let call = call.customize();
        let sent = call.interceptor(capture.clone()).interceptor(observe.clone()).send().await;
        let answer = match (capture.take(), sent) {
            (Captured::TooLarge(bytes), _) => return Err(retrieval::Error::NoRoom(bytes)),
            (_, Err(error)) => return Err(self.read_error(&failure(&error), true)),
            (Captured::Answer(answer), Ok(_)) => {
                self.repeat.learn(&observe);
                return answer.map_err(unreadable);
            }
            (_, Ok(answer)) => answer,
        };
        // The answer of a client from elsewhere, which does not use captures.
        Ok(Answer {
            records: answer.records.iter().map(read_record).collect::<Result<_, _>>().map_err(unreadable)?,
            children: answer
                .child_shards()
                .iter()
                .map(read_child)
                .collect::<Result<_, _>>()
                .map_err(unreadable)?,
            next: answer.next_shard_iterator.filter(|iterator| !iterator.is_empty()),
            millis_behind_latest: answer.millis_behind_latest,
        })
    }

    pub(super) fn read_error(&self, failure: &Failure, reading: bool) -> retrieval::Error {
        let text = format!("stream {}: {failure}", self.name);
        match failure {
            failure if failure.is_throttling() => retrieval::Error::Throttled(text),
            Failure::Answered { code, .. } if code == "ExpiredIteratorException" => {
                retrieval::Error::IteratorExpired(text)
            }
            // Kinesis does not accept the iterator any more: get another one.
            Failure::Answered { code, .. } if code == "InvalidArgumentException" && reading => {
                retrieval::Error::IteratorExpired(text)
            }
            Failure::Answered { code, .. } if code == "ResourceNotFoundException" => {
                retrieval::Error::ShardMissing(text)
            }
            Failure::Answered { code, .. } if code == "ResourceInUseException" => {
                retrieval::Error::Taken(text)
            }
            failure if failure.is_unknown_call() => retrieval::Error::Unsupported(text),
            Failure::Answered { service_fault: true, .. } | Failure::Unanswered(_) => {
                retrieval::Error::Unavailable(text)
            }
            Failure::Answered { .. } | Failure::NotSent(_) => retrieval::Error::Denied(text),
        }
    }
}

/// The names of all streams of the account.
///
/// # Errors
/// They cannot be listed.
pub(super) async fn stream_names(client: &Client) -> Result<Vec<String>, shard::Error> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let call = client.list_streams().limit(PAGE);
        let page = call.set_exclusive_start_stream_name(names.last().cloned()).send().await;
        let page = page.map_err(|error| list_streams_error(&error))?;
        let is_last = !page.has_more_streams || page.stream_names.is_empty();
        names.extend(page.stream_names);
        if is_last {
            return Ok(names);
        }
    }
}

fn list_streams_error(error: &SdkError<ListStreamsError, HttpResponse>) -> shard::Error {
    let failure = failure(error);
    let text = format!("ListStreams: {failure}");
    match &failure {
        failure if failure.is_throttling() => shard::Error::Throttled(text),
        Failure::Answered { service_fault: true, .. } | Failure::Unanswered(_) => {
            shard::Error::Unavailable(text)
        }
        Failure::Answered { .. } | Failure::NotSent(_) => shard::Error::Denied(text),
    }
}

impl shard::Api for Stream {
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(self.list_shards(filter))
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(self.describe_identity())
    }

    fn has_number<'a>(
        &'a self,
        shard: &'a ShardId,
        number: &'a SequenceNumber,
    ) -> BoxFuture<'a, Result<bool, shard::Error>> {
        Box::pin(self.takes_number(shard, number))
    }
}

impl retrieval::Api for Stream {
    fn iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<String, retrieval::Error>> {
        Box::pin(self.get_iterator(shard, start))
    }

    fn read<'a>(
        &'a self,
        iterator: &'a str,
        limit: usize,
        room: Reservation,
    ) -> BoxFuture<'a, Result<Answer, retrieval::Error>> {
        Box::pin(self.get_records(iterator, limit, room))
    }
}

fn shard_filter(filter: Filter) -> Option<sdk::ShardFilter> {
    let builder = sdk::ShardFilter::builder();
    let builder = match filter {
        Filter::All => return None,
        Filter::AtLatest => builder.r#type(sdk::ShardFilterType::AtLatest),
        Filter::AtTrimHorizon => builder.r#type(sdk::ShardFilterType::AtTrimHorizon),
        Filter::AtTimestamp(millis) => {
            builder.r#type(sdk::ShardFilterType::AtTimestamp).timestamp(DateTime::from_millis(millis))
        }
    };
    builder.build().ok()
}

fn read_range(range: Option<&sdk::HashKeyRange>) -> Option<HashRange> {
    let range = range?;
    Some(HashRange {
        start: range.starting_hash_key().parse().ok()?,
        end: range.ending_hash_key().parse().ok()?,
    })
}

fn read_shard(shard: &sdk::Shard) -> Result<Shard, String> {
    let id = shard.shard_id();
    let numbers = shard.sequence_number_range();
    let number = |text: Option<&str>| text.and_then(SequenceNumber::parse);
    Ok(Shard {
        id: id.into(),
        parent: shard.parent_shard_id().map(Into::into),
        adjacent_parent: shard.adjacent_parent_shard_id().map(Into::into),
        range: read_range(shard.hash_key_range())
            .ok_or_else(|| format!("shard {id} has no readable hash keys"))?,
        starting: number(numbers.map(|n| n.starting_sequence_number()))
            .ok_or_else(|| format!("shard {id} has no readable starting sequence number"))?,
        ending: number(numbers.and_then(|n| n.ending_sequence_number())),
    })
}

fn read_child(child: &sdk::ChildShard) -> Result<ChildShard, String> {
    let id = child.shard_id();
    Ok(ChildShard {
        id: id.into(),
        parents: child.parent_shards().iter().map(|parent| parent.as_str().into()).collect(),
        range: read_range(child.hash_key_range())
            .ok_or_else(|| format!("child {id} has no readable hash keys"))?,
    })
}

fn read_record(record: &sdk::Record) -> Result<Record, String> {
    let number = record.sequence_number();
    Ok(Record {
        sequence: SequenceNumber::parse(number)
            .ok_or_else(|| format!("sequence number {number:?} is not a number"))?,
        sub: 0,
        partition_key: record.partition_key().unwrap_or_default().into(),
        data: Data::encode(record.data().as_ref()),
        arrival: record.approximate_arrival_timestamp().map(nearest_millis),
    })
}

/// Kinesis sends seconds with a fraction, which the SDK truncates to nanoseconds: 0.483 becomes 0.482999999.
pub(super) fn nearest_millis(time: &DateTime) -> i64 {
    time.secs() * 1000 + i64::from((time.subsec_nanos() + 500_000) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrival_times_are_rounded_to_the_nearest_millisecond() {
        for (nanos, millis) in [(482_999_904, 1483), (483_000_000, 1483), (0, 1000), (999_999_999, 2000)] {
            assert_eq!(nearest_millis(&DateTime::from_secs_and_nanos(1, nanos)), millis);
        }
    }
}
