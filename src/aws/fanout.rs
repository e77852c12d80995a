//! Enhanced fan-out over Kinesis: the consumer's registration, and subscriptions.
//!
//! A subscription's events are read here from the body of its answer, so that records are parts of them;
//! and the codes of errors within it are to be seen only here. Subscriptions are spread over connections of their
//! own: one whose child is slow fills the window of few others, and a connection that hangs isn't used again.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html>

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::types as sdk;
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::DateTime;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::event_stream::Message;
use bytes::BytesMut;
use serde::Deserialize;

use super::capture::{Capture, Captured};
use super::client;
use super::error::{Failure, failure};
use super::kinesis::Stream;
use super::records;
use crate::budget::Room;
use crate::retrieval::fanout::{Api, Subscription};
use crate::retrieval::registration::{Registered, Status};
use crate::retrieval::{Answer, Error, Start};
use crate::shard::{BoxFuture, ShardId};

/// No event is larger (AWS: 1 MiB or a single record of 10 MiB, in base64).
const LARGEST: usize = 64 * 1024 * 1024;

/// Connections that subscriptions are spread over at most. Each has certificates of its own in memory.
const CONNECTIONS: usize = 32;
/// So many subscriptions share one before another is opened: what Kinesis may send to them unasked (2 MB each) fits
/// into what it may send to the connection (5 MB), so that one that isn't read holds up no other.
const TOGETHER: usize = 2;
/// Memory that a subscription keeps between events.
const KEPT: usize = 16 * 1024;

/// HTTP stacks, each made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Vec<Connection>>);

#[derive(Debug)]
struct Connection {
    http: SharedHttpClient,
    seats: Arc<()>,
}

/// A place on a connection, until this is dropped.
#[derive(Debug)]
struct Seat(Arc<()>);

impl Connections {
    /// One with room, a new one, or the one with the fewest subscriptions.
    fn take(&self) -> (SharedHttpClient, Seat) {
        let mut made = self.lock();
        let users = |connection: &Connection| Arc::strong_count(&connection.seats) - 1;
        let fewest = (0..made.len()).min_by_key(|index| users(&made[*index]));
        let chosen = match fewest.filter(|index| users(&made[*index]) < TOGETHER || made.len() == CONNECTIONS)
        {
            Some(index) => index,
            None => {
                made.push(Connection { http: client::http(), seats: Arc::default() });
                made.len() - 1
            }
        };
        let connection = &made[chosen];
        (connection.http.clone(), Seat(connection.seats.clone()))
    }

    /// Nobody gets it again; who has it keeps it.
    fn forget(&self, seat: &Seat) {
        self.lock().retain(|connection| !Arc::ptr_eq(&connection.seats, &seat.0));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    async fn subscribe_to(
        &self,
        consumer: &str,
        shard: &ShardId,
        start: &Start,
    ) -> Result<Box<dyn Subscription>, Error> {
        use sdk::ShardIteratorType as Type;
        let at = sdk::StartingPosition::builder();
        let at = match start {
            Start::TrimHorizon => at.r#type(Type::TrimHorizon),
            Start::Latest => at.r#type(Type::Latest),
            Start::AtTimestamp(millis) => {
                at.r#type(Type::AtTimestamp).timestamp(DateTime::from_millis(*millis))
            }
            Start::At(number) => at.r#type(Type::AtSequenceNumber).sequence_number(number.as_str()),
            Start::After(number) => at.r#type(Type::AfterSequenceNumber).sequence_number(number.as_str()),
        };
        let at = at.build().map_err(|error| Error::Denied(error.to_string()))?;
        let capture = Capture::coming();
        let call = self.client.subscribe_to_shard();
        let call = call.consumer_arn(consumer).shard_id(shard.as_str()).starting_position(at).customize();
        let (http, connection) = self.connections.take();
        let call = call.config_override(Builder::new().http_client(http));
        match call.interceptor(capture.clone()).send().await {
            Err(error) => {
                let failure = failure(&error);
                if let Failure::Unanswered(_) = failure {
                    self.connections.forget(&connection);
                }
                Err(self.read_error(&failure, false))
            }
            Ok(_) => {
                let Captured::Coming(body) = capture.take() else {
                    let text = format!("stream {}: an answer without events", self.name);
                    return Err(Error::Unavailable(text));
                };
                let (buffer, decoder) = (BytesMut::new(), MessageFrameDecoder::new());
                let stream = self.clone();
                let events =
                    Events { stream, connection, body, buffer, decoder, is_begun: false, is_well: true };
                Ok(Box::new(events))
            }
        }
    }
}

impl Api for Stream {
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(async {
            let sent = self.client.describe_stream_summary().stream_name(&self.name).send().await;
            let answer = sent.map_err(|error| self.read_error(&failure(&error), false))?;
            let summary = answer.stream_description_summary;
            let missing = || Error::Unavailable(format!("stream {}: an answer without ARN", self.name));
            summary.map(|summary| summary.stream_arn).filter(|arn| !arn.is_empty()).ok_or_else(missing)
        })
    }

    fn describe<'a>(
        &'a self,
        stream_arn: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Registered>, Error>> {
        Box::pin(async move {
            let call = self.client.describe_stream_consumer().stream_arn(stream_arn).consumer_name(name);
            match call.send().await.map_err(|error| self.read_error(&failure(&error), false)) {
                Ok(answer) => Ok(answer.consumer_description.map(|consumer| Registered {
                    arn: consumer.consumer_arn,
                    status: status(&consumer.consumer_status),
                })),
                Err(Error::ShardMissing(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn register<'a>(
        &'a self,
        stream_arn: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Registered, Error>> {
        Box::pin(async move {
            let call = self.client.register_stream_consumer().stream_arn(stream_arn).consumer_name(name);
            let answer = call.send().await.map_err(|error| self.read_error(&failure(&error), false))?;
            let missing = || Error::Unavailable(format!("stream {}: an answer without consumer", self.name));
            let consumer = answer.consumer.ok_or_else(missing)?;
            Ok(Registered { arn: consumer.consumer_arn, status: status(&consumer.consumer_status) })
        })
    }

    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        shard: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
        Box::pin(self.subscribe_to(consumer, shard, start))
    }
}

struct Events {
    stream: Stream,
    body: ByteStream,
    buffer: BytesMut,
    decoder: MessageFrameDecoder,
    /// The buffer has the beginning of a frame, or the decoder does.
    is_begun: bool,
    connection: Seat,
    /// Nothing is being waited for, so that its end says nothing against the connection.
    is_well: bool,
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.is_well {
            self.stream.connections.forget(&self.connection);
        }
    }
}

#[derive(Deserialize)]
struct Exception {
    #[serde(alias = "Message", default)]
    message: String,
}

impl Events {
    async fn next_answer(&mut self, mut room: Room) -> Result<Option<Answer>, Error> {
        while let Some(message) = self.message().await? {
            let header = |name: &str| {
                let found = message.headers().iter().find(|header| header.name().as_str() == name);
                found.and_then(|header| header.value().as_string().ok()).map_or("", |text| text.as_str())
            };
            match (header(":message-type"), header(":event-type")) {
                ("event", "SubscribeToShardEvent") => {
                    // Memory of its own, which the decoder made for it.
                    room.set(message.payload().len());
                    let budget = room.budget().clone();
                    let payload = room.fill(message.payload().clone());
                    return records::read(&payload, &budget)
                        .map(Some)
                        .map_err(|error| self.unreadable(&error));
                }
                // "initial-response", and whatever may come to be.
                ("event", _) => {}
                ("exception", _) => {
                    let told: Result<Exception, _> = serde_json::from_slice(message.payload());
                    let told = told.map_or_else(|_| String::new(), |exception| exception.message);
                    return Err(self.refused(header(":exception-type"), told));
                }
                _ => return Err(self.refused(header(":error-code"), header(":error-message").to_owned())),
            }
        }
        Ok(None)
    }

    /// The next whole frame; none at an end between two.
    async fn message(&mut self) -> Result<Option<Message>, Error> {
        loop {
            self.make_room();
            match self.decoder.decode_frame(&mut self.buffer) {
                Ok(DecodedFrame::Complete(message)) => {
                    self.is_begun = false;
                    return Ok(Some(message));
                }
                Ok(DecodedFrame::Incomplete) if self.buffer.len() > LARGEST => {
                    return Err(self.unreadable("an event without end"));
                }
                Ok(DecodedFrame::Incomplete) => {}
                Err(error) => return Err(self.unreadable(&error.to_string())),
            }
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
                self.buffer = BytesMut::new();
            }
            self.is_well = false;
            let part = self.body.next().await;
            self.is_well = !matches!(part, Some(Err(_)));
            match part {
                Some(Ok(part)) => self.buffer.extend_from_slice(&part),
                // What was begun comes again with the next subscription.
                Some(Err(error)) => {
                    let text = format!("stream {}: a subscription broke off: {error}", self.stream.name);
                    return Err(Error::Unavailable(text));
                }
                None => return Ok(None),
            }
        }
    }

    /// A frame begins with its length: it comes into place at once, instead of being moved each time that there is
    /// more of it.
    fn make_room(&mut self) {
        if let (false, Some(length)) = (self.is_begun, self.buffer.first_chunk()) {
            self.is_begun = true;
            let length = u32::from_be_bytes(*length) as usize;
            self.buffer.reserve(length.min(LARGEST).saturating_sub(self.buffer.len()));
        }
    }

    fn unreadable(&self, what: &str) -> Error {
        Error::Denied(format!("stream {}: an event that can't be understood: {what}", self.stream.name))
    }

    fn refused(&self, code: &str, message: String) -> Error {
        let service_fault = matches!(code, "InternalFailureException" | "InternalFailure" | "");
        self.stream.read_error(&Failure::Answered { code: code.to_owned(), message, service_fault }, false)
    }
}

impl Subscription for Events {
    fn next(&mut self, room: Room) -> BoxFuture<'_, Result<Option<Answer>, Error>> {
        Box::pin(self.next_answer(room))
    }
}

fn status(status: &sdk::ConsumerStatus) -> Status {
    if *status == sdk::ConsumerStatus::Active {
        Status::Active
    } else if *status == sdk::ConsumerStatus::Deleting {
        Status::Deleting
    } else {
        // Not yet, or a word that isn't known yet.
        Status::Creating
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_share_a_connection_until_there_are_many() {
        let connections = Connections::default();
        let mut seats: Vec<Seat> = (0..CONNECTIONS * TOGETHER).map(|_| connections.take().1).collect();
        assert_eq!(connections.lock().len(), CONNECTIONS);
        assert!(
            connections.lock().iter().all(|connection| Arc::strong_count(&connection.seats) == 1 + TOGETHER)
        );
        seats.push(connections.take().1);
        assert_eq!(connections.lock().len(), CONNECTIONS, "one more on one of them");
        seats.truncate(1);
        let (_, seat) = connections.take();
        assert!(!Arc::ptr_eq(&seat.0, &seats[0].0), "the one with the fewest");
    }

    #[test]
    fn one_that_hangs_is_given_to_nobody_again() {
        let connections = Connections::default();
        let (_, first) = connections.take();
        connections.forget(&first);
        let (_, second) = connections.take();
        assert!(!Arc::ptr_eq(&first.0, &second.0));
        connections.forget(&first);
        assert_eq!(connections.lock().len(), 1, "another has its place by now");
    }
}
