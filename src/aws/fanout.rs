//! Enhanced fan-out with Kinesis: registration of the consumer, and subscriptions.
//!
//! The events of a subscription are decoded here from the body of its answer while they arrive; the codes of
//! errors within it are visible only here.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html>

use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::types as sdk;
use aws_smithy_types::DateTime;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use serde::Deserialize;

use super::capture::{Capture, Captured};
use super::connections::Seat;
use super::error::{Failure, failure};
use super::frames::{Broken, Decoded, Frames, Headers};
use super::kinesis::Stream;
use crate::budget::Reservation;
use crate::retrieval::push::{Api, Registered, Status, Subscription};
use crate::retrieval::{Answer, Error, Start};
use crate::shard::{BoxFuture, ShardId};

impl Stream {
    /// The error for a failed call of enhanced fan-out.
    fn fanout_error(&self, failure: &Failure) -> Error {
        if failure.is_page() {
            return Error::Unsupported(format!("stream {}: {failure}", self.name));
        }
        self.read_error(failure, false)
    }

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
                Err(self.fanout_error(&failure))
            }
            Ok(_) => {
                let Captured::Coming(body) = capture.take() else {
                    let text = format!("stream {}: SubscribeToShard returned no event stream", self.name);
                    return Err(Error::Unavailable(text));
                };
                let (part, frames) = (Bytes::new(), Frames::default());
                Ok(Box::new(Events { stream: self.clone(), connection, body, part, frames, is_well: true }))
            }
        }
    }
}

impl Api for Stream {
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(async {
            let call = self.client.describe_stream_summary().set_stream_name(self.by_name());
            let sent = call.set_stream_arn(self.by_arn()).send().await;
            let answer = sent.map_err(|error| self.read_error(&failure(&error), false))?;
            let summary = answer.stream_description_summary;
            let missing =
                || Error::Unavailable(format!("stream {}: DescribeStreamSummary returned no ARN", self.name));
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
            match call.send().await.map_err(|error| self.fanout_error(&failure(&error))) {
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
            let answer = call.send().await.map_err(|error| self.fanout_error(&failure(&error)))?;
            let missing = || {
                Error::Unavailable(format!(
                    "stream {}: RegisterStreamConsumer returned no consumer",
                    self.name
                ))
            };
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
    /// Bytes received but not decoded.
    part: Bytes,
    frames: Frames,
    connection: Seat,
    /// Whether no part is being awaited, so that the end of the subscription means nothing about the
    /// connection.
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
    async fn next_answer(&mut self, room: Reservation) -> Result<Option<Answer>, Error> {
        let mut room = Some(room);
        loop {
            match self.frames.push(&mut self.part, &mut room) {
                Ok(Some(Decoded::Event(answer))) => {
                    return answer.map(Some).map_err(|error| self.unreadable(&error));
                }
                Ok(Some(Decoded::Other(headers, text))) => self.other(&headers, &text)?,
                Ok(None) => match self.next_part().await? {
                    Some(part) => self.part = part,
                    None => return Ok(None),
                },
                Err(Broken::Unreadable(what)) => return Err(self.unreadable(&what)),
                Err(Broken::NoRoom(bytes)) => return Err(Error::NoRoom(bytes)),
            }
        }
    }

    /// Handles a message without records.
    fn other(&self, headers: &Headers, text: &[u8]) -> Result<(), Error> {
        match headers.text(":message-type") {
            // "initial-response", and events that may be added later.
            "event" => Ok(()),
            "exception" => {
                let parsed: Result<Exception, _> = serde_json::from_slice(text);
                let parsed = parsed.map_or_else(|_| String::new(), |exception| exception.message);
                Err(self.refused(headers.text(":exception-type"), parsed))
            }
            _ => Err(self.refused(headers.text(":error-code"), headers.text(":error-message").to_owned())),
        }
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, Error> {
        // The decoded bytes are freed.
        self.part = Bytes::new();
        self.is_well = false;
        let part = self.body.next().await;
        self.is_well = !matches!(part, Some(Err(_)));
        // An incomplete message is sent again by the next subscription.
        part.transpose().map_err(|error| {
            Error::Unavailable(format!(
                "stream {}: the subscription was interrupted: {error}",
                self.stream.name
            ))
        })
    }

    fn unreadable(&self, what: &str) -> Error {
        Error::Denied(format!("stream {}: failed to decode an event: {what}", self.stream.name))
    }

    fn refused(&self, code: &str, message: String) -> Error {
        let service_fault = matches!(code, "InternalFailureException" | "InternalFailure" | "");
        self.stream.read_error(&Failure::Answered { code: code.to_owned(), message, service_fault }, false)
    }
}

impl Subscription for Events {
    fn next(&mut self, room: Reservation) -> BoxFuture<'_, Result<Option<Answer>, Error>> {
        Box::pin(self.next_answer(room))
    }
}

fn status(status: &sdk::ConsumerStatus) -> Status {
    if *status == sdk::ConsumerStatus::Active {
        Status::Active
    } else if *status == sdk::ConsumerStatus::Deleting {
        Status::Deleting
    } else {
        // Not active yet, or an unknown status.
        Status::Creating
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aws::client;

    /// An endpoint that answers every request with status 500 and this body.
    async fn failing(content: &'static str, body: &'static str) -> Stream {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 64 * 1024];
                // One read returns such a small request as a whole, or its rest does not matter.
                if connection.read(&mut request).await.is_err() {
                    continue;
                }
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 500 Internal Server Error\r\ncontent-type: {content}\r\n\
                     content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                if connection.write_all(answer.as_bytes()).await.is_err() {
                    continue;
                }
            }
        });
        server.detach_all();
        let settings = client::Settings::local(&url, &url, "us-east-1", std::time::Duration::from_secs(9));
        let clients = client::clients(&settings, Arc::new(crate::metrics::Discard)).await.unwrap();
        clients.stream("s".to_owned())
    }

    async fn errors(stream: &Stream) -> [Error; 3] {
        let subscribed = stream.subscribe("c", &"s".into(), &Start::Latest).await.map(drop);
        [
            stream.describe("arn", "n").await.unwrap_err(),
            stream.register("arn", "n").await.unwrap_err(),
            subscribed.unwrap_err(),
        ]
    }

    #[tokio::test]
    async fn html_page_means_unsupported_and_service_fault_does_not() {
        let stream = failing("text/html", "<!DOCTYPE html>\n<html><body>Error</body></html>").await;
        for error in errors(&stream).await {
            assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        }
        assert!(matches!(stream.stream_arn().await, Err(Error::Unavailable(_))), "not a call of fan-out");
        for body in ["{\"__type\":\"InternalFailure\"}", "", "{}"] {
            let stream = failing("application/x-amz-json-1.1", body).await;
            for error in errors(&stream).await {
                assert!(matches!(error, Error::Unavailable(_)), "{body}: {error:?}");
            }
        }
    }
}
