//! GetShardIterator and GetRecords.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::clock::{Now, Timestamp, saturating_millis};
use super::super::codec::Format;
use super::super::error::{Exception, Kind};
use super::super::sequence::{LAST_INDEX, Sequence};
use super::super::service::{Service, StreamRef};
use super::super::shard::{AtMost, Shard, shard_id};
use super::super::stream::Stream;
use super::super::token::{self, ShardIterator};
use super::records::Records;
use super::shards::{ChildShard, in_the_future};
use super::{Request, Scope};

/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html>
pub(in super::super) const MOST_RECORDS: usize = 10_000;
const MOST_BYTES: usize = 10 * 1024 * 1024;

const TYPES: [&str; 5] =
    ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"];

/// The start position of GetShardIterator or SubscribeToShard.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Start<'a> {
    /// The operation, for the messages.
    pub(in super::super) operation: &'static str,
    pub(in super::super) kind: &'a str,
    pub(in super::super) sequence: Option<&'a str>,
    pub(in super::super) timestamp: Option<Timestamp>,
}

impl Start<'_> {
    pub(in super::super) fn check(&self, check: &mut Check, at: [&str; 2]) {
        let [kind, sequence] = at;
        check.one_of(Some(self.kind), kind, &TYPES);
        check.decimal(self.sequence, sequence, 129);
    }

    /// Index of the first record to read. The order and the wording of the exceptions are those of AWS.
    pub(in super::super) fn index(
        &self,
        service: &Service,
        stream: &Stream,
        shard: &Shard,
        now: Now,
    ) -> Result<u64, Exception> {
        let kind = self.kind;
        match (kind, self.sequence) {
            ("AT_SEQUENCE_NUMBER", Some(text)) => {
                // The ending number belongs to no record: the end of the shard follows.
                Ok(self.known(service, stream, shard, text)?.index.max(1))
            }
            ("AFTER_SEQUENCE_NUMBER", Some(text)) => Ok(self.known(service, stream, shard, text)?.index + 1),
            ("AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER", None) => {
                Err(either_or(kind, "no StartingSequenceNumber"))
            }
            (_, Some(_)) => Err(either_or(kind, "also a StartingSequenceNumber")),
            ("TRIM_HORIZON", None) => Ok(1),
            ("LATEST", None) => Ok(shard.tip()),
            (_, None) => match self.timestamp {
                Some(time) if time > now.wall => Err(Exception::invalid_argument(in_the_future(time, now))),
                Some(time) => Ok(shard.at_time(time)),
                None => Err(Exception::invalid_argument(
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. \
                     Current request has no timestamp parameter.",
                )),
            },
        }
    }

    /// A sequence number that this shard has assigned, or its starting or ending number.
    fn known(
        &self,
        service: &Service,
        stream: &Stream,
        shard: &Shard,
        text: &str,
    ) -> Result<Sequence, Exception> {
        let invalid = |why: &str| {
            Exception::invalid_argument(format!(
                "StartingSequenceNumber {text} used in {} on shard {} in stream {} under account {} \
                 is invalid{why}",
                self.operation,
                shard.id(),
                stream.birth.name,
                service.settings.account
            ))
        };
        let sequence: Sequence = text.parse().map_err(|_| invalid("."))?;
        if sequence.shard != shard.lineage.number {
            return Err(Exception::invalid_argument(format!(
                "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a \
                 shard with {}",
                shard_id(sequence.shard),
                shard.id()
            )));
        }
        if sequence.epoch != shard.lineage.epoch {
            return Err(invalid(" because it did not come from this stream."));
        }
        // A number above all assigned ones would make a reader skip the next records.
        let given =
            sequence.index < shard.tip() || (sequence.index == LAST_INDEX && shard.closed().is_some());
        if given { Ok(sequence) } else { Err(invalid(".")) }
    }
}

fn either_or(kind: &str, but: &str) -> Exception {
    Exception::invalid_argument(format!(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
         StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request \
         specified {kind} and {but}."
    ))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct GetShardIterator {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_id: Option<String>,
    shard_iterator_type: Option<String>,
    starting_sequence_number: Option<String>,
    timestamp: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct GetShardIteratorAnswer {
    shard_iterator: String,
}

impl Request for GetShardIterator {
    type Answer = GetShardIteratorAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(self.stream_name.as_deref(), self.stream_arn.as_deref())
            .with_shard(self.shard_id.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<GetShardIteratorAnswer, Exception> {
        let start = Start {
            operation: "GetShardIterator",
            kind: self.shard_iterator_type.as_deref().unwrap_or("LATEST"),
            sequence: self.starting_sequence_number.as_deref(),
            timestamp: self.timestamp,
        };
        let mut check = Check::new();
        check.required(self.shard_id.as_ref(), "shardId");
        check.required(self.shard_iterator_type.as_ref(), "shardIteratorType");
        check.name(self.shard_id.as_deref(), "shardId");
        start.check(&mut check, ["shardIteratorType", "startingSequenceNumber"]);
        check.done()?;
        let stream = StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() };
        let stream = service.ready(stream, now)?;
        let inner = stream.read();
        let id = self.shard_id.unwrap_or_default();
        let shard = service.shard(&stream, &inner, &id, now)?;
        shard.trim(stream.trim_horizon(&inner, now.wall));
        let next = start.index(service, &stream, &shard, now)?;
        Ok(GetShardIteratorAnswer {
            shard_iterator: token::write(&ShardIterator {
                issued: service.run.issue(now),
                stream: stream.birth.name.clone(),
                epoch: stream.birth.epoch,
                shard: shard.lineage.number,
                next,
            }),
        })
    }

    fn encode(answer: &GetShardIteratorAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct GetRecords {
    shard_iterator: Option<String>,
    limit: Option<i64>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct GetRecordsAnswer {
    records: Records,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_shard_iterator: Option<String>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShard>>,
}

/// [`GetRecordsAnswer`] without its records, which are written separately.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_shard_iterator: Option<&'a str>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<&'a [ChildShard]>,
}

impl Request for GetRecords {
    type Answer = GetRecordsAnswer;

    fn scope(&self, _: &Service) -> Scope {
        let text = self.shard_iterator.as_deref().unwrap_or_default();
        match token::read::<ShardIterator>(text) {
            Ok(iterator) => Scope { stream: Some(iterator.stream), shard: Some(shard_id(iterator.shard)) },
            Err(token::NotAToken) => Scope::stream(None, self.stream_arn.as_deref()),
        }
    }

    fn answer(self, service: &Service, now: Now) -> Result<GetRecordsAnswer, Exception> {
        let mut check = Check::new();
        check.required(self.shard_iterator.as_ref(), "shardIterator");
        check.length(self.shard_iterator.as_deref(), "shardIterator", 1, 512);
        check.within(self.limit, "limit", 1, MOST_RECORDS as i64);
        check.done()?;
        let text = self.shard_iterator.as_deref().unwrap_or_default();
        let iterator: ShardIterator =
            token::read(text).map_err(|_| Exception::invalid_argument("Invalid ShardIterator."))?;
        let lifetime = service.settings.iterator_lifetime;
        if service.run.is_expired(iterator.issued, lifetime, now) {
            return Err(Exception::new(
                Kind::ExpiredIterator,
                format!(
                    "Iterator expired. The iterator was created at time {} while right now it is {} \
                     which is further in the future than the tolerated delay of {} milliseconds.",
                    token::written_out(iterator.issued.wall()),
                    token::written_out(now.wall),
                    saturating_millis(lifetime)
                ),
            ));
        }
        let stream = self.stream(service, &iterator)?;
        let inner = stream.read();
        let shard = service.shard(&stream, &inner, &shard_id(iterator.shard), now)?;
        shard.trim(stream.trim_horizon(&inner, now.wall));
        if !shard.admit_read(now) {
            return Err(Exception::throughput(format!(
                "Rate exceeded for shard {} in stream {} under account {}.",
                shard.id(),
                stream.birth.name,
                service.settings.account
            )));
        }
        let at_most = AtMost {
            records: self.limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(MOST_RECORDS),
            bytes: MOST_BYTES,
        };
        let batch = shard.read(iterator.next, at_most, now.wall);
        shard.has_read(batch.size());
        let next_shard_iterator = batch.end.is_none().then(|| {
            token::write(&ShardIterator { issued: service.run.issue(now), next: batch.next, ..iterator })
        });
        Ok(GetRecordsAnswer {
            next_shard_iterator,
            millis_behind_latest: batch.millis_behind(),
            child_shards: batch.end.map(|children| ChildShard::all(&inner, &children)),
            records: Records::new(shard, batch.records),
        })
    }

    fn encode(answer: &GetRecordsAnswer, format: Format) -> Result<Bytes, Exception> {
        if format == Format::Cbor {
            return super::body(answer, format);
        }
        answer.records.write_json_with(&Rest {
            next_shard_iterator: answer.next_shard_iterator.as_deref(),
            millis_behind_latest: answer.millis_behind_latest,
            child_shards: answer.child_shards.as_deref(),
        })
    }
}

impl GetRecords {
    /// The stream that the iterator belongs to, which may have been deleted or replaced since.
    fn stream(&self, service: &Service, iterator: &ShardIterator) -> Result<Arc<Stream>, Exception> {
        if self.stream_arn.is_some() {
            let arn = StreamRef { name: Some(&iterator.stream), arn: self.stream_arn.as_deref() };
            service.name(arn)?;
        }
        let stream = service.stream_named(&iterator.stream)?;
        if stream.birth.epoch == iterator.epoch {
            Ok(stream)
        } else {
            Err(service.no_stream(&iterator.stream))
        }
    }
}
