//! PutRecord and PutRecords.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::clock::Now;
use super::super::codec::{Blob, Format};
use super::super::error::{Exception, Kind};
use super::super::faults::Effect;
use super::super::hash;
use super::super::sequence::Sequence;
use super::super::service::{Service, StreamRef};
use super::super::shard::{Entry, Refused, shard_id};
use super::super::stream::{Inner, Stream};
use super::{Operation, Request, Scope};

/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>
const MOST_RECORDS: usize = 500;
const MOST_BYTES: usize = 10 * 1024 * 1024;
/// Most bytes of a record in any stream.
const MOST_RECORD_BYTES: usize = 10 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct PutRecord {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    data: Option<Blob>,
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
    sequence_number_for_ordering: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct PutRecordAnswer {
    shard_id: String,
    sequence_number: String,
}

impl Request for PutRecord {
    type Answer = PutRecordAnswer;

    fn scope(&self, service: &Service) -> Scope {
        let scope = Scope::stream(self.stream_name.as_deref(), self.stream_arn.as_deref());
        let shard = || {
            let key = key_of(self.partition_key.as_deref()?, self.explicit_hash_key.as_deref()).ok()?;
            let stream = service.stream_named(scope.stream.as_deref()?).ok()?;
            let number = stream.read().route(key)?;
            Some(shard_id(number))
        };
        let shard = shard();
        scope.with_shard(shard.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<PutRecordAnswer, Exception> {
        let mut check = Check::new();
        check.required(self.data.as_ref(), "data");
        check.required(self.partition_key.as_ref(), "partitionKey");
        check.length(self.partition_key.as_deref(), "partitionKey", 1, 256);
        check.decimal(self.explicit_hash_key.as_deref(), "explicitHashKey", 39);
        check.decimal(self.sequence_number_for_ordering.as_deref(), "sequenceNumberForOrdering", 129);
        check.done()?;
        let stream = StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() };
        let stream = service.ready(stream, now)?;
        if let Some(text) = &self.sequence_number_for_ordering
            && text.parse::<Sequence>().is_err()
        {
            // The guarantee that it asks for, a larger sequence number, holds anyway: a shard's numbers only
            // increase.
            return Err(Exception::invalid_argument(format!(
                "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} under account \
                 {} is invalid.",
                stream.birth.name, service.settings.account
            )));
        }
        let partition_key = self.partition_key.unwrap_or_default();
        let key = key_of(&partition_key, self.explicit_hash_key.as_deref())?;
        let data = self.data.unwrap_or_default().0;
        let inner = stream.read();
        let most = most_record_bytes(&inner);
        let mut check = Check::new();
        check.blob(data.len() + partition_key.len(), "data", most);
        check.done()?;
        let entry = (key, Entry { partition_key, data });
        let mut outcomes = put(service, &stream, &inner, vec![entry], Operation::PutRecord, now)?;
        let Some((number, outcome)) = outcomes.pop() else {
            return Err(Exception::internal("the record had no outcome"));
        };
        match outcome {
            Ok(sequence) => {
                Ok(PutRecordAnswer { shard_id: shard_id(number), sequence_number: sequence.to_string() })
            }
            Err(Refused::Throttled) => Err(Exception::throughput(rate_exceeded(service, &stream, number))),
            Err(Refused::Failed(why)) => Err(Exception::internal(why)),
        }
    }

    fn encode(answer: &PutRecordAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct PutRecords {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    records: Option<Vec<PutRecordsEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecordsEntry {
    data: Option<Blob>,
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct PutRecordsAnswer {
    failed_record_count: usize,
    records: Vec<PutRecordsResult>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum PutRecordsResult {
    #[serde(rename_all = "PascalCase")]
    Taken { sequence_number: String, shard_id: String },
    #[serde(rename_all = "PascalCase")]
    Refused { error_code: &'static str, error_message: String },
}

impl Request for PutRecords {
    type Answer = PutRecordsAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(self.stream_name.as_deref(), self.stream_arn.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<PutRecordsAnswer, Exception> {
        let entries = self.records.unwrap_or_default();
        let mut check = Check::new();
        if entries.is_empty() || entries.len() > MOST_RECORDS {
            let value = format!("[{} records]", entries.len());
            let within = format!("have length between 1 and {MOST_RECORDS}");
            check.violated(value, "records", within);
        }
        for (i, entry) in entries.iter().enumerate() {
            // Member names are formatted only for entries that violate a constraint.
            if entry.is_plain() {
                continue;
            }
            let at = |member: &str| format!("records.{}.member.{member}", i + 1);
            check.required(entry.data.as_ref(), &at("data"));
            check.required(entry.partition_key.as_ref(), &at("partitionKey"));
            check.length(entry.partition_key.as_deref(), &at("partitionKey"), 1, 256);
            check.decimal(entry.explicit_hash_key.as_deref(), &at("explicitHashKey"), 39);
            let length = entry.data.as_ref().map_or(0, |data| data.0.len());
            check.blob(length, &at("data"), MOST_RECORD_BYTES);
        }
        check.done()?;
        let stream = StreamRef { name: self.stream_name.as_deref(), arn: self.stream_arn.as_deref() };
        let stream = service.ready(stream, now)?;
        let inner = stream.read();
        let most = most_record_bytes(&inner);
        let mut keyed = Vec::with_capacity(entries.len());
        let mut total = 0;
        for (i, entry) in entries.into_iter().enumerate() {
            let partition_key = entry.partition_key.unwrap_or_default();
            let data = entry.data.unwrap_or_default().0;
            let size = data.len() + partition_key.len();
            total += size;
            let mut check = Check::new();
            if size > most {
                check.blob(size, &format!("records.{}.member.data", i + 1), most);
            }
            check.done()?;
            let key = key_of(&partition_key, entry.explicit_hash_key.as_deref())?;
            keyed.push((key, Entry { partition_key, data }));
        }
        if total > MOST_BYTES {
            return Err(Exception::invalid_argument("Records size exceeds 10 MB limit"));
        }
        let outcomes = put(service, &stream, &inner, keyed, Operation::PutRecords, now)?;
        let records: Vec<_> = outcomes
            .into_iter()
            .map(|(number, outcome)| match outcome {
                Ok(sequence) => PutRecordsResult::Taken {
                    sequence_number: sequence.to_string(),
                    shard_id: shard_id(number),
                },
                Err(Refused::Throttled) => PutRecordsResult::Refused {
                    error_code: Kind::ProvisionedThroughputExceeded.name(),
                    error_message: rate_exceeded(service, &stream, number),
                },
                Err(Refused::Failed(_)) => PutRecordsResult::Refused {
                    error_code: Kind::InternalFailure.name(),
                    error_message: "Internal Service Failure".to_owned(),
                },
            })
            .collect();
        let refused = |result: &&PutRecordsResult| matches!(result, PutRecordsResult::Refused { .. });
        Ok(PutRecordsAnswer { failed_record_count: records.iter().filter(refused).count(), records })
    }

    fn encode(answer: &PutRecordsAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

impl PutRecordsEntry {
    /// Whether the entry violates no constraint.
    fn is_plain(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.0.len() <= MOST_RECORD_BYTES)
            && self.partition_key.as_ref().is_some_and(|k| !k.is_empty() && k.len() <= 256)
            && self.explicit_hash_key.is_none()
    }
}

fn most_record_bytes(inner: &Inner) -> usize {
    usize::try_from(inner.max_record_kib).unwrap_or(1024) * 1024
}

/// The hash key by which a record is routed.
fn key_of(partition_key: &str, explicit: Option<&str>) -> Result<u128, Exception> {
    match explicit {
        None => Ok(hash::of_partition_key(partition_key)),
        Some(text) => text.parse().map_err(|_| {
            Exception::invalid_argument(format!(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. \
                 Specified value was {text}"
            ))
        }),
    }
}

fn rate_exceeded(service: &Service, stream: &Stream, number: u32) -> String {
    format!(
        "Rate exceeded for shard {} in stream {} under account {}.",
        shard_id(number),
        stream.birth.name,
        service.settings.account
    )
}

type Outcome = (u32, Result<Sequence, Refused>);

/// Routes and appends the entries; those of one shard in the given order.
fn put(
    service: &Service,
    stream: &Stream,
    inner: &Inner,
    entries: Vec<(u128, Entry)>,
    operation: Operation,
    now: Now,
) -> Result<Vec<Outcome>, Exception> {
    if inner.deleted {
        return Err(service.no_stream(&stream.birth.name));
    }
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(entries.len());
    let mut by_shard: BTreeMap<u32, (Vec<usize>, Vec<Entry>)> = BTreeMap::new();
    for (place, (key, entry)) in entries.into_iter().enumerate() {
        let number = inner
            .route(key)
            .ok_or_else(|| Exception::internal(format!("no open shard takes hash key {key}")))?;
        outcomes.push((number, Err(Refused::Failed("the record was not put".to_owned()))));
        let (places, group) = by_shard.entry(number).or_default();
        places.push(place);
        group.push(entry);
    }
    for (number, (places, group)) in by_shard {
        let shard = inner
            .shard(number)
            .ok_or_else(|| Exception::internal(format!("shard {number} does not exist")))?;
        let scope = || Scope { stream: Some(stream.birth.name.clone()), shard: Some(shard_id(number)) };
        // A fault on a PutRecord was applied to the whole call.
        let effect = (operation == Operation::PutRecords)
            .then(|| service.faults.strike_shard(operation, scope))
            .flatten();
        let results = match effect {
            Some(Effect::Throttle) => vec![Err(Refused::Throttled); group.len()],
            Some(Effect::Fail) => vec![Err(Refused::Failed("injected fault".to_owned())); group.len()],
            Some(Effect::Delay(_) | Effect::LoseAnswer | Effect::CutAnswer | Effect::Unknown) | None => {
                shard.append(group, now)
            }
        };
        for (place, result) in places.into_iter().zip(results) {
            if let Some((_, outcome)) = outcomes.get_mut(place) {
                *outcome = result;
            }
        }
    }
    Ok(outcomes)
}
