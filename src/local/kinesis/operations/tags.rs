//! Operations of the tags of a stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::clock::Now;
use super::super::codec::Format;
use super::super::error::Exception;
use super::super::service::{Service, StreamRef};
use super::super::stream::Change;
use super::{Request, Scope, about_stream};

/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_AddTagsToStream.html>
const MOST_TAGS: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct AddTagsToStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

impl Request for AddTagsToStream {
    about_stream!(empty);

    fn answer(self, service: &Service, _: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.tags.as_ref(), "tags");
        let tags = self.tags.unwrap_or_default();
        for (key, value) in &tags {
            check.length(Some(key), "tags.key", 1, 128);
            check.length(Some(value), "tags.value", 0, 256);
        }
        check.done()?;
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        let mut inner = stream.write();
        let new = tags.keys().filter(|key| !inner.tags.contains_key(*key)).count();
        if inner.tags.len() + new > MOST_TAGS {
            return Err(Exception::invalid_argument(format!(
                "Failed to add tags to stream {} under account {} because a given stream cannot have \
                 more than {MOST_TAGS} tags associated with it.",
                stream.birth.name, service.settings.account
            )));
        }
        service.change(&stream, &mut inner, Change::Tag { tags })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct RemoveTagsFromStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    tag_keys: Option<Vec<String>>,
}

impl Request for RemoveTagsFromStream {
    about_stream!(empty);

    fn answer(self, service: &Service, _: Now) -> Result<(), Exception> {
        let mut check = Check::new();
        check.required(self.tag_keys.as_ref(), "tagKeys");
        check.done()?;
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        let keys = self.tag_keys.unwrap_or_default();
        service.change(&stream, &mut stream.write(), Change::Untag { keys })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListTagsForStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    exclusive_start_tag_key: Option<String>,
    limit: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListTagsForStreamAnswer {
    tags: Vec<Tag>,
    has_more_tags: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

impl Request for ListTagsForStream {
    about_stream!(answer = ListTagsForStreamAnswer);

    fn answer(self, service: &Service, _: Now) -> Result<ListTagsForStreamAnswer, Exception> {
        let mut check = Check::new();
        check.within(self.limit, "limit", 1, 50);
        check.length(self.exclusive_start_tag_key.as_deref(), "exclusiveStartTagKey", 1, 128);
        check.done()?;
        let stream = service
            .stream(StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() })?;
        let limit = usize::try_from(self.limit.unwrap_or(50)).unwrap_or(50);
        let inner = stream.read();
        let after = self.exclusive_start_tag_key;
        let mut rest = inner.tags.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let tags = rest
            .by_ref()
            .take(limit)
            .map(|(key, value)| Tag { key: key.clone(), value: value.clone() })
            .collect();
        Ok(ListTagsForStreamAnswer { tags, has_more_tags: rest.next().is_some() })
    }
}
