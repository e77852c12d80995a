//! SubscribeToShard: pushes records to a registered consumer as an event stream.
//!
//! A subscription is opened synchronously, so that a refusal is an ordinary answer. Then one task feeds it
//! until its time is over, the shard ends, the client disconnects, or another subscription of the same
//! consumer to the same shard replaces it.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::clock::{self, Now, Timestamp};
use super::codec::Format;
use super::error::Exception;
use super::http::Unanswered;
use super::operations::Scope;
use super::operations::consumers::ConsumerRef;
use super::operations::reading::{MOST_RECORDS, Start};
use super::operations::records::Records;
use super::operations::shards::ChildShard;
use super::service::Service;
use super::shard::{AtMost, Shard};
use super::stream::{Consumer, Stream};

/// Limits of one event. AWS pushes portions of about this size.
const AT_MOST: AtMost = AtMost { records: MOST_RECORDS, bytes: 1024 * 1024 };

/// How long the reason for the end waits for a client that has not read the events before it.
const LAST_WORD: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SubscribeToShard {
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    shard_id: Option<String>,
    starting_position: Option<StartingPosition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartingPosition {
    #[serde(rename = "Type")]
    kind: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<Timestamp>,
}

impl SubscribeToShard {
    pub(super) fn scope(&self) -> Scope {
        Scope::stream(None, self.consumer_arn.as_deref()).with_shard(self.shard_id.as_deref())
    }

    /// Opens the subscription, unless it is refused.
    pub(super) fn open(&self, service: &Service, now: Now) -> Result<Subscription, Exception> {
        let position = self.starting_position.as_ref();
        let kind = position.and_then(|position| position.kind.as_deref());
        let start = Start {
            operation: "SubscribeToShard",
            kind: kind.unwrap_or("LATEST"),
            sequence: position.and_then(|position| position.sequence_number.as_deref()),
            timestamp: position.and_then(|position| position.timestamp),
        };
        let mut check = Check::new();
        check.required(self.consumer_arn.as_ref(), "consumerARN");
        check.required(self.shard_id.as_ref(), "shardId");
        check.required(position, "startingPosition");
        if position.is_some() {
            check.required(kind.as_ref(), "startingPosition.type");
        }
        check.name(self.shard_id.as_deref(), "shardId");
        start.check(&mut check, ["startingPosition.type", "startingPosition.sequenceNumber"]);
        check.done()?;
        let consumer = ConsumerRef { arn: self.consumer_arn.as_deref(), stream_arn: None, name: None };
        let (stream, consumer) = service.consumer(consumer)?;
        if !stream.is_active(now) {
            return Err(service.no_stream(&stream.birth.name));
        }
        let inner = stream.read();
        let shard = service.shard(&stream, &inner, self.shard_id.as_deref().unwrap_or_default(), now)?;
        shard.trim(stream.trim_horizon(&inner, now.wall));
        let next = start.index(service, &stream, &shard, now)?;
        drop(inner);
        let key =
            Key { consumer: consumer.arn(&service.arn(&stream.birth.name)), shard: shard.lineage.number };
        let ended = service.subscriptions.take(&key, service.settings.subscription_cooldown, now).map_err(
            |Occupied| {
                Exception::in_use(format!(
                    "Another active subscription exists for this consumer: {}:{}:{}:{}",
                    service.settings.account,
                    stream.birth.name,
                    shard.id(),
                    consumer.name
                ))
            },
        )?;
        Ok(Subscription { stream, shard, consumer, next, ended, cut: false })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    consumer: String,
    shard: u32,
}

/// Why a subscription ends early.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Another subscription replaced it.
    Displaced,
    /// A fault was injected.
    Dropped,
}

#[derive(Debug)]
struct Occupied;

#[derive(Debug)]
struct Taken {
    since: Instant,
    end: Option<oneshot::Sender<Ending>>,
}

/// Subscriptions that are running or were opened recently.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(Mutex<BTreeMap<Key, Taken>>);

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of a subscription, and ends the present one unless that was opened only recently.
    fn take(&self, key: &Key, cooldown: Duration, now: Now) -> Result<oneshot::Receiver<Ending>, Occupied> {
        let mut taken = self.lock();
        let is_recent = |taken: &Taken| now.instant.saturating_duration_since(taken.since) < cooldown;
        taken.retain(|_, taken| is_recent(taken) || taken.end.as_ref().is_some_and(|end| !end.is_closed()));
        if taken.get(key).is_some_and(is_recent) {
            return Err(Occupied);
        }
        let (end, ended) = oneshot::channel();
        let place = Taken { since: now.instant, end: Some(end) };
        if let Some(mut before) = taken.insert(key.clone(), place) {
            before.finish(Ending::Displaced);
        }
        Ok(ended)
    }

    /// Ends the subscriptions to the wanted shards. Returns their number.
    pub(super) fn drop_where(&self, wanted: impl Fn(&str, u32) -> bool) -> usize {
        let mut taken = self.lock();
        let hit = taken.iter_mut().filter(|(key, _)| {
            let stream = key.consumer.split("stream/").nth(1).and_then(|rest| rest.split('/').next());
            wanted(stream.unwrap_or_default(), key.shard)
        });
        hit.map(|(_, taken)| usize::from(taken.finish(Ending::Dropped))).sum()
    }
}

impl Taken {
    /// Ends the subscription; false if it had ended.
    fn finish(&mut self, ending: Ending) -> bool {
        self.end.take().is_some_and(|end| end.send(ending).is_ok())
    }
}

/// An open subscription without a task that feeds it.
#[derive(Debug)]
pub(super) struct Subscription {
    stream: Arc<Stream>,
    shard: Arc<Shard>,
    consumer: Consumer,
    next: u64,
    ended: oneshot::Receiver<Ending>,
    /// Whether an injected fault truncates its first event.
    pub(super) cut: bool,
}

/// The result of a check of the shard.
enum Look {
    Event { message: Bytes, is_last: bool },
    Quiet { message: Bytes },
    Refused { message: Bytes },
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    records: Records,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_sequence_number: Option<String>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShard>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventRest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_sequence_number: Option<&'a str>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<&'a [ChildShard]>,
}

impl Event {
    fn encode(&self, format: Format) -> Result<Bytes, Exception> {
        let rest = EventRest {
            continuation_sequence_number: self.continuation_sequence_number.as_deref(),
            millis_behind_latest: self.millis_behind_latest,
            child_shards: self.child_shards.as_deref(),
        };
        match format {
            Format::Json => self.records.write_json_with(&rest),
            Format::Cbor => format.encode(self),
        }
    }
}

impl Subscription {
    /// Feeds the subscription until it ends.
    pub(super) async fn feed(
        mut self,
        service: Arc<Service>,
        format: Format,
        events: mpsc::Sender<Result<Bytes, Unanswered>>,
        stop: CancellationToken,
    ) {
        let until = Instant::now() + service.settings.subscription_length;
        let mut changed = self.shard.watch();
        let mut heartbeat = Instant::now();
        let mut unsent = Some(first_message(format));
        let mut is_last = false;
        let mut is_event = false;
        loop {
            if unsent.is_none() {
                if is_last {
                    return;
                }
                changed.mark_unchanged();
                match self.look(&service, format, clock::now()) {
                    Look::Event { message, is_last: last } => {
                        unsent = Some(message);
                        is_last = last;
                    }
                    Look::Quiet { message } if heartbeat <= Instant::now() => unsent = Some(message),
                    Look::Quiet { .. } => {}
                    Look::Refused { message } => {
                        unsent = Some(message);
                        is_last = true;
                    }
                }
                is_event = true;
                if unsent.is_some() {
                    heartbeat = Instant::now() + service.settings.heartbeat;
                }
            }
            tokio::select! {
                // Events that end the subscription precede those that feed it; a disconnected client shows as
                // a closed channel.
                biased;
                () = stop.cancelled() => return,
                ending = &mut self.ended => {
                    end(ending.unwrap_or(Ending::Dropped), format, &events).await;
                    return;
                },
                () = tokio::time::sleep_until(until) => return,
                permit = events.reserve(), if unsent.is_some() => match (permit, unsent.take()) {
                    (Ok(permit), Some(message)) if self.cut && is_event => {
                        permit.send(Ok(message.slice(..message.len() / 2)));
                        end(Ending::Dropped, format, &events).await;
                        return;
                    }
                    (Ok(permit), Some(message)) => permit.send(Ok(message)),
                    (Ok(_) | Err(_), _) => return,
                },
                () = events.closed(), if unsent.is_none() => return,
                // The shard exists as long as this holds it.
                _ = changed.changed(), if unsent.is_none() => {},
                () = tokio::time::sleep_until(heartbeat), if unsent.is_none() => {},
            }
        }
    }

    /// Reads the next records and encodes them as a message.
    fn look(&mut self, service: &Service, format: Format, now: Now) -> Look {
        let inner = self.stream.read();
        let (name, account) = (&self.stream.birth.name, &service.settings.account);
        let gone = if inner.deleted {
            Some(service.no_stream(name))
        } else if inner.consumers.get(&self.consumer.name) == Some(&self.consumer) {
            None
        } else {
            let arn = self.consumer.arn(&service.arn(name));
            Some(Exception::not_found(format!("Consumer {arn} not found for account {account}.")))
        };
        if let Some(exception) = gone {
            return Look::Refused { message: exception_message(&exception, format) };
        }
        self.shard.trim(self.stream.trim_horizon(&inner, now.wall));
        let batch = self.shard.read(self.next, AT_MOST, now.wall);
        let is_quiet = batch.records.is_empty() && batch.end.is_none();
        let is_last = batch.end.is_some();
        let event = Event {
            continuation_sequence_number: batch.end.is_none().then(|| batch.last.to_string()),
            millis_behind_latest: batch.millis_behind(),
            child_shards: batch.end.as_ref().map(|children| ChildShard::all(&inner, children)),
            records: Records::new(Arc::clone(&self.shard), batch.records),
        };
        match event.encode(format) {
            Ok(payload) => {
                self.next = batch.next;
                let message = message("event", ":event-type", "SubscribeToShardEvent", payload, format);
                if is_quiet { Look::Quiet { message } } else { Look::Event { message, is_last } }
            }
            Err(exception) => Look::Refused { message: exception_message(&exception, format) },
        }
    }
}

/// Sends the reason for the end to the client, if it reads within a short time.
async fn end(ending: Ending, format: Format, events: &mpsc::Sender<Result<Bytes, Unanswered>>) {
    let last = match ending {
        Ending::Displaced => {
            let exception = Exception::in_use("Another subscription of this consumer took over.");
            Ok(exception_message(&exception, format))
        }
        Ending::Dropped => Err(Unanswered::Lost),
    };
    // A client that does not read finds the end of the stream instead.
    match tokio::time::timeout(LAST_WORD, events.send(last)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!("dropped a subscription (injected fault)"),
    }
}

/// The first message of an event stream over JSON-RPC: the members of the answer itself, of which there are
/// none.
fn first_message(format: Format) -> Bytes {
    let payload = match format {
        Format::Json => Bytes::from_static(b"{}"),
        Format::Cbor => Bytes::from_static(&[0xa0]),
    };
    message("event", ":event-type", "initial-response", payload, format)
}

fn exception_message(exception: &Exception, format: Format) -> Bytes {
    #[derive(Serialize)]
    struct Shape<'a> {
        message: &'a str,
    }
    let payload = format.encode(&Shape { message: &exception.message }).unwrap_or_default();
    message("exception", ":exception-type", exception.kind.name(), payload, format)
}

fn message(
    kind: &'static str,
    type_header: &'static str,
    type_name: &'static str,
    payload: Bytes,
    format: Format,
) -> Bytes {
    let text = |value: &'static str| HeaderValue::String(value.into());
    let mut out = Vec::with_capacity(payload.len() + 256);
    let message = Message::new(payload)
        .add_header(Header::new(":message-type", text(kind)))
        .add_header(Header::new(type_header, text(type_name)))
        .add_header(Header::new(":content-type", text(format.content_type())));
    if let Err(error) = write_message_to(&message, &mut out) {
        // Headers and payload are far below the format's limits.
        tracing::error!(%error, "failed to encode an event");
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(5);

    fn key() -> Key {
        Key { consumer: "arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/c:1".to_owned(), shard: 1 }
    }

    fn later(now: Now, span: Duration) -> Now {
        Now { instant: now.instant + span, ..now }
    }

    #[test]
    fn second_subscription_within_the_cooldown_is_refused() {
        let subscriptions = Subscriptions::default();
        let now = clock::now();
        let mut first = subscriptions.take(&key(), COOLDOWN, now).unwrap();
        assert!(subscriptions.take(&key(), COOLDOWN, later(now, Duration::from_secs(4))).is_err());
        assert!(first.try_recv().is_err());
    }

    #[test]
    fn later_subscription_replaces_the_first() {
        let subscriptions = Subscriptions::default();
        let now = clock::now();
        let mut first = subscriptions.take(&key(), COOLDOWN, now).unwrap();
        let second = subscriptions.take(&key(), COOLDOWN, later(now, COOLDOWN));
        assert!(matches!(first.try_recv(), Ok(Ending::Displaced)));
        assert!(second.is_ok());
    }

    #[test]
    fn subscriptions_are_dropped_by_stream_and_shard() {
        let subscriptions = Subscriptions::default();
        let mut first = subscriptions.take(&key(), COOLDOWN, clock::now()).unwrap();
        assert_eq!(subscriptions.drop_where(|stream, _| stream == "t"), 0);
        assert_eq!(subscriptions.drop_where(|stream, shard| stream == "s" && shard == 1), 1);
        assert!(matches!(first.try_recv(), Ok(Ending::Dropped)));
        assert_eq!(subscriptions.drop_where(|_, _| true), 0);
    }
}
