//! Operations of streams as a whole: create, describe, list, delete, and their settings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::clock::{Now, Timestamp};
use super::super::codec::Format;
use super::super::error::{Exception, Kind};
use super::super::service::{Service, StreamRef, TOKEN_LIFETIME};
use super::super::shard::shard_number;
use super::super::stream::{Birth, Change, Inner, Stream, life};
use super::super::token::{self, ListToken};
use super::shards::ShardShape;
use super::{Request, Scope, about_stream};

/// Number of shards of a new stream in on-demand mode.
/// <https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html>
const ON_DEMAND_SHARDS: u32 = 4;
const MOST_SHARDS: u32 = 10_000;
const DAY: u32 = 24;
const YEAR: u32 = 8760;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct StreamModeDetails {
    stream_mode: Option<String>,
}

impl StreamModeDetails {
    fn check(&self, check: &mut Check) {
        check.required(self.stream_mode.as_ref(), "streamModeDetails.streamMode");
        let legal = ["PROVISIONED", "ON_DEMAND"];
        check.one_of(self.stream_mode.as_deref(), "streamModeDetails.streamMode", &legal);
    }

    fn is_on_demand(&self) -> bool {
        self.stream_mode.as_deref() == Some("ON_DEMAND")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct CreateStream {
    stream_name: Option<String>,
    shard_count: Option<i64>,
    stream_mode_details: Option<StreamModeDetails>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: Option<i64>,
    #[serde(default)]
    tags: Option<std::collections::BTreeMap<String, String>>,
}

impl Request for CreateStream {
    type Answer = ();

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(self.stream_name.as_deref(), None)
    }

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.stream_name.as_ref(), "streamName");
        check.name(self.stream_name.as_deref(), "streamName");
        check.within(self.shard_count, "shardCount", 1, i64::from(i32::MAX));
        check.within(self.max_record_size, "maxRecordSizeInKiB", 1024, 10_240);
        if let Some(mode) = &self.stream_mode_details {
            mode.check(&mut check);
        }
        check.done()?;
        let on_demand = self.stream_mode_details.as_ref().is_some_and(StreamModeDetails::is_on_demand);
        let shards = match self.shard_count.map(u32::try_from) {
            Some(_) if on_demand => {
                return Err(Exception::validation(
                    "Shard count can not be set when stream mode is ON_DEMAND.",
                ));
            }
            None if on_demand => ON_DEMAND_SHARDS,
            None => {
                return Err(Exception::validation(
                    "ShardCount is a required field for the PROVISIONED stream mode.",
                ));
            }
            Some(Ok(count)) if count <= MOST_SHARDS => count,
            Some(count) => {
                return Err(Exception::limit(format!(
                    "This request would exceed the shard limit for the account {} in {}. Limit: \
                     {MOST_SHARDS}. Number of additional shards that would have resulted from this \
                     request: {}.",
                    service.settings.account,
                    service.settings.region,
                    count.unwrap_or(u32::MAX)
                )));
            }
        };
        let name = self.stream_name.unwrap_or_default();
        let max_record_kib = self.max_record_size.and_then(|kib| u32::try_from(kib).ok());
        let birth = Birth {
            epoch: 0,
            created_millis: now.wall.millis(),
            shards,
            on_demand,
            max_record_kib: max_record_kib.unwrap_or(1024),
            name,
        };
        let stream = service.create(birth, now)?;
        let tags = self.tags.unwrap_or_default();
        if !tags.is_empty() {
            service.change(&stream, &mut stream.write(), Change::Tag { tags })?;
        }
        Ok(())
    }

    fn encode((): &(), _: Format) -> Result<Bytes, Exception> {
        Ok(Bytes::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DeleteStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    enforce_consumer_deletion: Option<bool>,
}

impl Request for DeleteStream {
    about_stream!(empty);

    fn answer(self, service: &Service, _: Now) -> Result<(), Exception> {
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        let mut inner = stream.write();
        if !inner.consumers.is_empty() && self.enforce_consumer_deletion != Some(true) {
            return Err(Exception::in_use(format!(
                "Stream {} under account {} has registered consumers. Deregister them first, or set \
                 EnforceConsumerDeletion.",
                stream.birth.name, service.settings.account
            )));
        }
        service.change(&stream, &mut inner, Change::Delete)?;
        drop(inner);
        service.forget(&stream);
        Ok(())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Mode {
    stream_mode: &'static str,
}

impl Mode {
    const fn of(on_demand: bool) -> Self {
        Self { stream_mode: if on_demand { "ON_DEMAND" } else { "PROVISIONED" } }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EnhancedMetrics {
    shard_level_metrics: [&'static str; 0],
}

const NO_METRICS: [EnhancedMetrics; 1] = [EnhancedMetrics { shard_level_metrics: [] }];

fn status(stream: &Stream, now: Now) -> &'static str {
    if stream.is_active(now) { "ACTIVE" } else { "CREATING" }
}

fn hours(retention: Duration) -> u64 {
    retention.as_secs() / 3600
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    limit: Option<i64>,
    exclusive_start_shard_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeStreamAnswer {
    stream_description: StreamDescription,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescription {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: Mode,
    shards: Vec<ShardShape>,
    has_more_shards: bool,
    retention_period_hours: u64,
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: [EnhancedMetrics; 1],
    encryption_type: &'static str,
}

impl Request for DescribeStream {
    about_stream!(answer = DescribeStreamAnswer);

    fn answer(self, service: &Service, now: Now) -> Result<DescribeStreamAnswer, Exception> {
        let mut check = Check::new();
        check.within(self.limit, "limit", 1, 10_000);
        check.name(self.exclusive_start_shard_id.as_deref(), "exclusiveStartShardId");
        check.done()?;
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        // "The default value is 100. If you specify a value greater than 100, at most 100 results
        // are returned."
        let limit = usize::try_from(self.limit.unwrap_or(100)).unwrap_or(100).min(100);
        let after = self.exclusive_start_shard_id.as_deref().and_then(shard_number);
        let inner = stream.read();
        let horizon = stream.trim_horizon(&inner, now.wall);
        let active = stream.is_active(now);
        let mut listed = inner
            .shards()
            .iter()
            .filter(|_| active)
            .filter(|shard| life(shard).is_listed(horizon))
            .filter(|shard| after.is_none_or(|after| shard.lineage.number > after));
        let shards: Vec<_> = listed.by_ref().take(limit).map(|s| ShardShape::of(s)).collect();
        let has_more_shards = listed.next().is_some();
        Ok(DescribeStreamAnswer {
            stream_description: StreamDescription {
                stream_name: stream.birth.name.clone(),
                stream_arn: service.arn(&stream.birth.name),
                stream_status: status(&stream, now),
                stream_mode_details: Mode::of(inner.on_demand),
                shards,
                has_more_shards,
                retention_period_hours: hours(inner.retention),
                stream_creation_timestamp: stream.birth.created(),
                enhanced_monitoring: NO_METRICS,
                encryption_type: "NONE",
            },
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeStreamSummary {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeStreamSummaryAnswer {
    stream_description_summary: StreamDescriptionSummary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescriptionSummary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: Mode,
    retention_period_hours: u64,
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: [EnhancedMetrics; 1],
    encryption_type: &'static str,
    open_shard_count: usize,
    consumer_count: usize,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: u32,
}

impl Request for DescribeStreamSummary {
    about_stream!(answer = DescribeStreamSummaryAnswer);

    fn answer(self, service: &Service, now: Now) -> Result<DescribeStreamSummaryAnswer, Exception> {
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        let inner = stream.read();
        Ok(DescribeStreamSummaryAnswer {
            stream_description_summary: StreamDescriptionSummary {
                stream_name: stream.birth.name.clone(),
                stream_arn: service.arn(&stream.birth.name),
                stream_status: status(&stream, now),
                stream_mode_details: Mode::of(inner.on_demand),
                retention_period_hours: hours(inner.retention),
                stream_creation_timestamp: stream.birth.created(),
                enhanced_monitoring: NO_METRICS,
                encryption_type: "NONE",
                open_shard_count: if stream.is_active(now) { inner.open_count() } else { 0 },
                consumer_count: inner.consumers.len(),
                max_record_size: inner.max_record_kib,
            },
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListStreams {
    limit: Option<i64>,
    exclusive_start_stream_name: Option<String>,
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListStreamsAnswer {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<StreamSummary>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamSummary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: Mode,
    stream_creation_timestamp: Timestamp,
}

impl Request for ListStreams {
    type Answer = ListStreamsAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::default()
    }

    fn answer(self, service: &Service, now: Now) -> Result<ListStreamsAnswer, Exception> {
        let mut check = Check::new();
        check.within(self.limit, "limit", 1, 10_000);
        check.name(self.exclusive_start_stream_name.as_deref(), "exclusiveStartStreamName");
        check.length(self.next_token.as_deref(), "nextToken", 1, 1_048_576);
        check.done()?;
        let after = match &self.next_token {
            Some(text) => Some(open_token::<String>(service, text, now)?),
            None => self.exclusive_start_stream_name,
        };
        let limit = usize::try_from(self.limit.unwrap_or(100)).unwrap_or(100);
        let streams = service.streams();
        let mut rest = streams.values().filter(|s| after.as_ref().is_none_or(|after| s.birth.name > *after));
        let page: Vec<&Arc<Stream>> = rest.by_ref().take(limit).collect();
        let has_more_streams = rest.next().is_some();
        let next_token = page.last().filter(|_| has_more_streams).map(|last| {
            token::write(&ListToken { issued: service.run.issue(now), position: last.birth.name.clone() })
        });
        Ok(ListStreamsAnswer {
            stream_names: page.iter().map(|stream| stream.birth.name.clone()).collect(),
            has_more_streams,
            next_token,
            stream_summaries: page
                .into_iter()
                .map(|stream| StreamSummary {
                    stream_name: stream.birth.name.clone(),
                    stream_arn: service.arn(&stream.birth.name),
                    stream_status: status(stream, now),
                    stream_mode_details: Mode::of(stream.read().on_demand),
                    stream_creation_timestamp: stream.birth.created(),
                })
                .collect(),
        })
    }

    fn encode(answer: &ListStreamsAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

/// The position in a paging token that has not expired.
pub(super) fn open_token<P: serde::de::DeserializeOwned>(
    service: &Service,
    text: &str,
    now: Now,
) -> Result<P, Exception> {
    let token: ListToken<P> =
        token::read(text).map_err(|_| Exception::invalid_argument("Invalid NextToken."))?;
    if service.run.is_expired(token.issued, TOKEN_LIFETIME, now) {
        return Err(Exception::new(
            Kind::ExpiredNextToken,
            format!(
                "NextToken expired. The token was created at time {} while right now it is {} which \
                 is further in the future than the tolerated delay of {} milliseconds.",
                token::written_out(token.issued.wall()),
                token::written_out(now.wall),
                TOKEN_LIFETIME.as_millis()
            ),
        ));
    }
    Ok(token.position)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct IncreaseStreamRetentionPeriod {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    retention_period_hours: Option<i64>,
}

impl Request for IncreaseStreamRetentionPeriod {
    about_stream!(empty);

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let stream = StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() };
        let (stream, wanted) = retention(service, stream, self.retention_period_hours, now)?;
        let mut inner = stream.write();
        let present = hours(inner.retention);
        if u64::from(wanted) < present {
            return Err(unfit_retention(service, &stream, wanted, present, "less"));
        }
        set_retention(service, &stream, &mut inner, wanted)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DecreaseStreamRetentionPeriod {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    retention_period_hours: Option<i64>,
}

impl Request for DecreaseStreamRetentionPeriod {
    about_stream!(empty);

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let stream = StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() };
        let (stream, wanted) = retention(service, stream, self.retention_period_hours, now)?;
        let mut inner = stream.write();
        let present = hours(inner.retention);
        if u64::from(wanted) > present {
            return Err(unfit_retention(service, &stream, wanted, present, "greater"));
        }
        set_retention(service, &stream, &mut inner, wanted)
    }
}

fn retention(
    service: &Service,
    stream: StreamRef<'_>,
    wanted: Option<i64>,
    now: Now,
) -> Result<(Arc<Stream>, u32), Exception> {
    let mut check = Check::new();
    check.required(wanted.as_ref(), "retentionPeriodHours");
    check.done()?;
    let stream = service.active(stream, now)?;
    let hours = wanted.unwrap_or_default();
    match u32::try_from(hours) {
        Ok(hours @ DAY..=YEAR) => Ok((stream, hours)),
        Ok(_) | Err(_) if hours < i64::from(DAY) => Err(Exception::invalid_argument(format!(
            "Minimum allowed retention period is {DAY} hours. Requested retention period ({hours} \
             hours) is too short."
        ))),
        Ok(_) | Err(_) => Err(Exception::invalid_argument(format!(
            "Maximum allowed retention period is {YEAR} hours. Requested retention period ({hours} \
             hours) is too long."
        ))),
    }
}

fn unfit_retention(service: &Service, stream: &Stream, wanted: u32, present: u64, how: &str) -> Exception {
    Exception::invalid_argument(format!(
        "Requested retention period ({wanted} hours) for stream {} under account {} can not be {how} \
         than existing retention period ({present} hours).",
        stream.birth.name, service.settings.account
    ))
}

fn set_retention(service: &Service, stream: &Stream, inner: &mut Inner, hours: u32) -> Result<(), Exception> {
    service.change(stream, inner, Change::Retention { hours })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct UpdateStreamMode {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    stream_mode_details: Option<StreamModeDetails>,
}

impl Request for UpdateStreamMode {
    type Answer = ();

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(None, self.stream_arn.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.stream_arn.as_ref(), "streamARN");
        check.required(self.stream_mode_details.as_ref(), "streamModeDetails");
        if let Some(mode) = &self.stream_mode_details {
            mode.check(&mut check);
        }
        check.done()?;
        let stream = StreamRef { name: None, arn: self.stream_arn.as_deref() };
        let stream = service.active(stream, now)?;
        let on_demand = self.stream_mode_details.is_some_and(|mode| mode.is_on_demand());
        service.change(&stream, &mut stream.write(), Change::Mode { on_demand })
    }

    fn encode((): &(), _: Format) -> Result<Bytes, Exception> {
        Ok(Bytes::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct UpdateMaxRecordSize {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: Option<i64>,
}

impl Request for UpdateMaxRecordSize {
    type Answer = ();

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(None, self.stream_arn.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.max_record_size.as_ref(), "maxRecordSizeInKiB");
        check.within(self.max_record_size, "maxRecordSizeInKiB", 1024, 10_240);
        check.done()?;
        let stream = StreamRef { name: None, arn: self.stream_arn.as_deref() };
        let stream = service.active(stream, now)?;
        let kib = self.max_record_size.and_then(|kib| u32::try_from(kib).ok()).unwrap_or(1024);
        service.change(&stream, &mut stream.write(), Change::MaxRecord { kib })
    }

    fn encode((): &(), _: Format) -> Result<Bytes, Exception> {
        Ok(Bytes::new())
    }
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct DescribeLimits {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeLimitsAnswer {
    shard_limit: u32,
    open_shard_count: usize,
    on_demand_stream_count: usize,
    on_demand_stream_count_limit: usize,
}

impl Request for DescribeLimits {
    type Answer = DescribeLimitsAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::default()
    }

    fn answer(self, service: &Service, _: Now) -> Result<DescribeLimitsAnswer, Exception> {
        let streams = service.streams();
        Ok(DescribeLimitsAnswer {
            shard_limit: MOST_SHARDS,
            open_shard_count: streams.values().map(|stream| stream.read().open_count()).sum(),
            on_demand_stream_count: streams.values().filter(|s| s.read().on_demand).count(),
            on_demand_stream_count_limit: 50,
        })
    }

    fn encode(answer: &DescribeLimitsAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}
