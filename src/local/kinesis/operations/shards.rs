//! Operations of the shards of a stream: list, split, merge, update their number.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::clock::{Now, Timestamp};
use super::super::codec::Format;
use super::super::error::Exception;
use super::super::filter::Filter;
use super::super::hash::HashKeyRange;
use super::super::reshard::{Step, plan_uniform};
use super::super::service::{Service, StreamRef};
use super::super::shard::{Shard, shard_id, shard_number};
use super::super::stream::{Change, Inner, Stream, life};
use super::super::token::{self, ListToken};
use super::streams::open_token;
use super::{Request, Scope, about_stream};

/// A shard in answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShardShape {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRange,
    sequence_number_range: SequenceNumberRange,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<String>,
}

impl ShardShape {
    pub(super) fn of(shard: &Shard) -> Self {
        Self {
            shard_id: shard.id(),
            parent_shard_id: shard.lineage.parent.map(shard_id),
            adjacent_parent_shard_id: shard.lineage.adjacent_parent.map(shard_id),
            hash_key_range: shard.lineage.range.into(),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.starting_sequence().to_string(),
                ending_sequence_number: shard.ending_sequence().map(|end| end.to_string()),
            },
        }
    }
}

/// A child shard in the answer at the end of a shard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ChildShard {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeyRange,
}

impl ChildShard {
    pub(in super::super) fn all(inner: &Inner, children: &[u32]) -> Vec<Self> {
        children
            .iter()
            .filter_map(|number| inner.shard(*number))
            .map(|child| Self {
                shard_id: child.id(),
                parent_shards: [child.lineage.parent, child.lineage.adjacent_parent]
                    .into_iter()
                    .flatten()
                    .map(shard_id)
                    .collect(),
                hash_key_range: child.lineage.range.into(),
            })
            .collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListShards {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    exclusive_start_shard_id: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<Timestamp>,
    shard_filter: Option<ShardFilter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardFilter {
    #[serde(rename = "Type")]
    kind: Option<String>,
    shard_id: Option<String>,
    timestamp: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListShardsAnswer {
    shards: Vec<ShardShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// The start and the filter of the next page of ListShards.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    stream: String,
    epoch: u64,
    after: Option<u32>,
    filter: Show,
}

/// A [`Filter`] in a token.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Show {
    AfterShard(u32),
    AtTrimHorizon,
    FromTrimHorizon,
    AtLatest,
    AtTimestamp(u64),
    FromTimestamp(u64),
}

impl From<Show> for Filter {
    fn from(show: Show) -> Self {
        match show {
            Show::AfterShard(number) => Self::AfterShard(number),
            Show::AtTrimHorizon => Self::AtTrimHorizon,
            Show::FromTrimHorizon => Self::FromTrimHorizon,
            Show::AtLatest => Self::AtLatest,
            Show::AtTimestamp(millis) => Self::AtTimestamp(Timestamp::from_millis(millis)),
            Show::FromTimestamp(millis) => Self::FromTimestamp(Timestamp::from_millis(millis)),
        }
    }
}

impl ListShards {
    fn first_page(&self, service: &Service, now: Now) -> Result<(Arc<Stream>, Page), Exception> {
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        if let Some(created) = self.stream_creation_timestamp
            && created.seconds() != stream.birth.created().seconds()
        {
            return Err(service.no_stream(&stream.birth.name));
        }
        let filter = match &self.shard_filter {
            Some(filter) => filter.show(now)?,
            None => Show::FromTrimHorizon,
        };
        let page = Page {
            stream: stream.birth.name.clone(),
            epoch: stream.birth.epoch,
            after: self.exclusive_start_shard_id.as_deref().and_then(shard_number),
            filter,
        };
        Ok((stream, page))
    }

    fn next_page(&self, service: &Service, now: Now) -> Result<(Arc<Stream>, Page), Exception> {
        let together = if self.stream_name.is_some() {
            Some("StreamName")
        } else if self.stream_creation_timestamp.is_some() {
            Some("StreamCreationTimestamp")
        } else if self.exclusive_start_shard_id.is_some() {
            Some("ExclusiveStartShardId")
        } else if self.shard_filter.is_some() {
            Some("ShardFilter")
        } else {
            None
        };
        if let Some(other) = together {
            return Err(Exception::invalid_argument(format!(
                "NextToken and {other} cannot be provided together."
            )));
        }
        let page: Page = open_token(service, self.next_token.as_deref().unwrap_or_default(), now)?;
        let stream = service.stream_named(&page.stream)?;
        if stream.birth.epoch != page.epoch {
            return Err(service.no_stream(&page.stream));
        }
        Ok((stream, page))
    }
}

impl ShardFilter {
    fn show(&self, now: Now) -> Result<Show, Exception> {
        let time = || match (self.timestamp, &self.shard_id) {
            (Some(time), None) if time > now.wall => {
                Err(Exception::invalid_argument(in_the_future(time, now)))
            }
            (Some(time), None) => Ok(time.millis()),
            (None, _) => Err(self.misfit("requires a Timestamp")),
            (Some(_), Some(_)) => Err(self.misfit("does not take a ShardId")),
        };
        let bare = |show| match (self.timestamp, &self.shard_id) {
            (None, None) => Ok(show),
            (Some(_), _) => Err(self.misfit("does not take a Timestamp")),
            (None, Some(_)) => Err(self.misfit("does not take a ShardId")),
        };
        match self.kind.as_deref().unwrap_or_default() {
            "AFTER_SHARD_ID" => match (self.shard_id.as_deref().map(shard_number), self.timestamp) {
                (Some(Some(number)), None) => Ok(Show::AfterShard(number)),
                (Some(None), None) => Err(self.misfit("requires the ShardId of a shard")),
                (None, _) => Err(self.misfit("requires a ShardId")),
                (Some(_), Some(_)) => Err(self.misfit("does not take a Timestamp")),
            },
            "AT_TRIM_HORIZON" => bare(Show::AtTrimHorizon),
            "FROM_TRIM_HORIZON" => bare(Show::FromTrimHorizon),
            "AT_LATEST" => bare(Show::AtLatest),
            "AT_TIMESTAMP" => Ok(Show::AtTimestamp(time()?)),
            _ => Ok(Show::FromTimestamp(time()?)),
        }
    }

    fn misfit(&self, why: &str) -> Exception {
        let kind = self.kind.as_deref().unwrap_or_default();
        Exception::invalid_argument(format!("ShardFilter of type {kind} {why}."))
    }
}

pub(super) fn in_the_future(time: Timestamp, now: Now) -> String {
    format!(
        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
         timestampInMillis: {}, currentTimestampInMillis: {}",
        time.millis(),
        now.wall.millis()
    )
}

impl Request for ListShards {
    type Answer = ListShardsAnswer;

    fn scope(&self, _: &Service) -> Scope {
        let of_token = || {
            let token: ListToken<Page> = token::read(self.next_token.as_deref()?).ok()?;
            Some(token.position.stream)
        };
        let scope = Scope::stream(self.stream_name.as_deref(), self.stream_arn.as_deref());
        Scope { stream: scope.stream.or_else(of_token), ..scope }
    }

    fn answer(self, service: &Service, now: Now) -> Result<ListShardsAnswer, Exception> {
        let mut check = Check::new();
        check.within(self.max_results, "maxResults", 1, 10_000);
        check.length(self.next_token.as_deref(), "nextToken", 1, 1_048_576);
        check.name(self.exclusive_start_shard_id.as_deref(), "exclusiveStartShardId");
        if let Some(filter) = &self.shard_filter {
            check.required(filter.kind.as_ref(), "shardFilter.type");
            let legal = [
                "AFTER_SHARD_ID",
                "AT_TRIM_HORIZON",
                "FROM_TRIM_HORIZON",
                "AT_LATEST",
                "AT_TIMESTAMP",
                "FROM_TIMESTAMP",
            ];
            check.one_of(filter.kind.as_deref(), "shardFilter.type", &legal);
            check.name(filter.shard_id.as_deref(), "shardFilter.shardId");
        }
        check.done()?;
        let (stream, page) = match self.next_token {
            Some(_) => self.next_page(service, now)?,
            None => self.first_page(service, now)?,
        };
        if !stream.is_active(now) {
            let (name, account) = (&stream.birth.name, &service.settings.account);
            return Err(Exception::in_use(format!(
                "Stream {name} under account {account} not ACTIVE, instead in state CREATING"
            )));
        }
        let most = usize::try_from(self.max_results.unwrap_or(1000)).unwrap_or(1000);
        let inner = stream.read();
        let horizon = stream.trim_horizon(&inner, now.wall);
        let filter = Filter::from(page.filter);
        let mut shown = inner
            .shards()
            .iter()
            .filter(|shard| page.after.is_none_or(|after| shard.lineage.number > after))
            .filter(|shard| filter.shows(life(shard), horizon));
        let shards: Vec<_> = shown.by_ref().take(most).collect();
        let more = shown.next().is_some();
        let next_token = shards.last().filter(|_| more).map(|last| {
            token::write(&ListToken {
                issued: service.run.issue(now),
                position: Page { after: Some(last.lineage.number), ..page },
            })
        });
        Ok(ListShardsAnswer {
            shards: shards.into_iter().map(|shard| ShardShape::of(shard)).collect(),
            next_token,
        })
    }

    fn encode(answer: &ListShardsAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct SplitShard {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_split: Option<String>,
    new_starting_hash_key: Option<String>,
}

impl Request for SplitShard {
    about_stream!(empty);

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.shard_to_split.as_ref(), "shardToSplit");
        check.required(self.new_starting_hash_key.as_ref(), "newStartingHashKey");
        check.name(self.shard_to_split.as_deref(), "shardToSplit");
        check.decimal(self.new_starting_hash_key.as_deref(), "newStartingHashKey", 39);
        check.done()?;
        let stream = service
            .active(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() }, now)?;
        let mut inner = stream.write();
        let id = self.shard_to_split.unwrap_or_default();
        let shard = find(service, &stream, &inner, &id)?;
        must_be_open(service, &stream, &shard)?;
        let range = shard.lineage.range;
        let wanted = self.new_starting_hash_key.unwrap_or_default();
        let at = wanted.parse::<u128>().ok();
        let Some(at) = at.filter(|at| *at > range.start.saturating_add(1) && *at < range.end) else {
            return Err(Exception::invalid_argument(format!(
                "NewStartingHashKey {wanted} used in SplitShard() on shard {} in stream {} under \
                 account {} is not both greater than one plus the shard's StartingHashKey {} and less \
                 than the shard's EndingHashKey {}.",
                shard.id(),
                stream.birth.name,
                service.settings.account,
                range.start,
                range.end
            )));
        };
        let shard = shard.lineage.number;
        reshard(service, &stream, &mut inner, vec![Step::Split { shard, at }], now)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct MergeShards {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_merge: Option<String>,
    adjacent_shard_to_merge: Option<String>,
}

impl Request for MergeShards {
    about_stream!(empty);

    fn answer(self, service: &Service, now: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.shard_to_merge.as_ref(), "shardToMerge");
        check.required(self.adjacent_shard_to_merge.as_ref(), "adjacentShardToMerge");
        check.name(self.shard_to_merge.as_deref(), "shardToMerge");
        check.name(self.adjacent_shard_to_merge.as_deref(), "adjacentShardToMerge");
        check.done()?;
        let stream = service
            .active(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() }, now)?;
        let mut inner = stream.write();
        let left = find(service, &stream, &inner, &self.shard_to_merge.unwrap_or_default())?;
        let adjacent = self.adjacent_shard_to_merge.unwrap_or_default();
        let right = find(service, &stream, &inner, &adjacent)?;
        must_be_open(service, &stream, &left)?;
        must_be_open(service, &stream, &right)?;
        if left.lineage.range.end.checked_add(1) != Some(right.lineage.range.start) {
            return Err(Exception::invalid_argument(format!(
                "Shards {} and {} in stream {} under account {} are not an adjacent pair of shards \
                 eligible for merging",
                left.id(),
                right.id(),
                stream.birth.name,
                service.settings.account
            )));
        }
        let step = Step::Merge { left: left.lineage.number, right: right.lineage.number };
        reshard(service, &stream, &mut inner, vec![step], now)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct UpdateShardCount {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    target_shard_count: Option<i64>,
    scaling_type: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct UpdateShardCountAnswer {
    stream_name: String,
    current_shard_count: usize,
    target_shard_count: u32,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

impl Request for UpdateShardCount {
    about_stream!(answer = UpdateShardCountAnswer);

    fn answer(self, service: &Service, now: Now) -> Result<UpdateShardCountAnswer, Exception> {
        let mut check = Check::new();
        check.required(self.target_shard_count.as_ref(), "targetShardCount");
        check.required(self.scaling_type.as_ref(), "scalingType");
        check.within(self.target_shard_count, "targetShardCount", 1, i64::from(i32::MAX));
        check.one_of(self.scaling_type.as_deref(), "scalingType", &["UNIFORM_SCALING"]);
        check.done()?;
        let stream = service
            .active(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() }, now)?;
        let mut inner = stream.write();
        let target = u32::try_from(self.target_shard_count.unwrap_or_default()).unwrap_or(u32::MAX);
        let open = inner.open();
        let current = u64::try_from(open.len()).unwrap_or(u64::MAX);
        // <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_UpdateShardCount.html>: at most
        // double, at least half.
        let unfit = if u64::from(target) > current * 2 {
            Some("up over double")
        } else if u64::from(target) < current.div_ceil(2) {
            Some("down below half")
        } else {
            None
        };
        if let Some(unfit) = unfit {
            return Err(Exception::invalid_argument(format!(
                "UpdateShardCount cannot scale {unfit} your current open shard count. Current open \
                 shard count: {current} Target shard count: {target}"
            )));
        }
        if inner.deleted {
            return Err(service.no_stream(&stream.birth.name));
        }
        let steps = plan_uniform(&open, inner.next_number(), target);
        reshard(service, &stream, &mut inner, steps, now)?;
        Ok(UpdateShardCountAnswer {
            stream_name: stream.birth.name.clone(),
            current_shard_count: open.len(),
            target_shard_count: target,
            stream_arn: service.arn(&stream.birth.name),
        })
    }
}

fn find(service: &Service, stream: &Stream, inner: &Inner, id: &str) -> Result<Arc<Shard>, Exception> {
    if inner.deleted {
        return Err(service.no_stream(&stream.birth.name));
    }
    shard_number(id).and_then(|number| inner.shard(number)).cloned().ok_or_else(|| {
        let (name, account) = (&stream.birth.name, &service.settings.account);
        let id = shard_number(id).map_or_else(|| id.to_owned(), shard_id);
        Exception::not_found(format!("Could not find shard {id} in stream {name} under account {account}."))
    })
}

fn must_be_open(service: &Service, stream: &Stream, shard: &Shard) -> Result<(), Exception> {
    if shard.closed().is_none() {
        return Ok(());
    }
    let (name, account, id) = (&stream.birth.name, &service.settings.account, shard.id());
    Err(Exception::invalid_argument(format!(
        "Shard {id} in stream {name} under account {account} has already been merged or split, and \
         thus is not eligible for merging or splitting."
    )))
}

fn reshard(
    service: &Service,
    stream: &Stream,
    inner: &mut Inner,
    steps: Vec<Step>,
    now: Now,
) -> Result<(), Exception> {
    if steps.is_empty() {
        return Ok(());
    }
    let at_millis = inner.date(now.wall).millis();
    service.change(stream, inner, Change::Reshard { at_millis, steps })
}
