//! Enhanced fan-out over Kinesis: the consumer's registration, and subscriptions.
//!
//! A subscription's events are read here from the body of its answer, for the sake of [`Capture`]'s fast way;
//! and the codes of errors within it are to be seen only here. Each subscription has a connection of its own:
//! one whose child is slow fills no window that others need, and one that hangs goes with it.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html>

use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::types as sdk;
use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
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
        let call = call.config_override(Builder::new().http_client(client::http()));
        match call.interceptor(capture.clone()).send().await {
            Err(error) => Err(self.read_error(&failure(&error), false)),
            Ok(_) => match capture.take() {
                Captured::Coming(body) => Ok(Box::new(Events {
                    stream: self.clone(),
                    body,
                    buffer: BytesMut::new(),
                    decoder: MessageFrameDecoder::new(),
                })),
                _ => Err(Error::Unavailable(format!("stream {}: an answer without events", self.name))),
            },
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
                    // A copy of its own, so that its room is all that it holds.
                    room.set(message.payload().len());
                    let payload = room.fill(message.payload().to_vec());
                    return records::read(&payload).map(Some).map_err(|error| self.unreadable(&error));
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
            match self.decoder.decode_frame(&mut self.buffer) {
                Ok(DecodedFrame::Complete(message)) => return Ok(Some(message)),
                Ok(DecodedFrame::Incomplete) if self.buffer.len() > LARGEST => {
                    return Err(self.unreadable("an event without end"));
                }
                Ok(DecodedFrame::Incomplete) => {}
                Err(error) => return Err(self.unreadable(&error.to_string())),
            }
            match self.body.next().await {
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
    match status {
        sdk::ConsumerStatus::Active => Status::Active,
        sdk::ConsumerStatus::Deleting => Status::Deleting,
        // Not yet, or a word that isn't known yet.
        _ => Status::Creating,
    }
}
