//! Takes the bodies of answers below the SDK.
//!
//! A child expects data in base64, which is how Kinesis sends it: decoding and encoding it again would be
//! most of the cost of reading. So for a call that carries a [`Capture`] the HTTP client takes the body of
//! the answer, and the SDK sees an empty answer. Signing, errors and timeouts remain the SDK's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::ConfigBag;
use tokio::time::timeout;

use super::records::Arriving;
use crate::budget::{LARGEST, Reservation};
use crate::retrieval::Answer;

/// How long an answer that is larger than expected waits for memory; after that it is requested again once
/// there is memory.
const WAIT: Duration = Duration::from_secs(5);

/// The answer that the SDK sees instead of the records.
const NOTHING: &str = r#"{"Records":[]}"#;

/// Takes the body of the answer to one call: an interceptor for that call.
#[derive(Debug, Clone)]
pub(super) struct Capture(Arc<Mutex<Slot>>);

#[derive(Debug)]
enum Slot {
    /// Records are expected, in this reservation.
    Wanted(Option<Reservation>),
    /// The body itself is expected, as a stream.
    Open,
    Answer(Result<Answer, String>),
    Coming(ByteStream),
    /// There was no memory for this many bytes.
    TooLarge(usize),
    Empty,
}

/// A captured body.
pub(super) enum Captured {
    Answer(Result<Answer, String>),
    Coming(ByteStream),
    TooLarge(usize),
    Nothing,
}

impl Capture {
    /// Captures records, which are read to their end, in the reservation `room`.
    pub(super) fn records(room: Reservation) -> Self {
        Self(Arc::new(Mutex::new(Slot::Wanted(Some(room)))))
    }

    /// Captures the body as a stream.
    pub(super) fn coming() -> Self {
        Self(Arc::new(Mutex::new(Slot::Open)))
    }

    /// The captured body, once the call has ended.
    pub(super) fn take(&self) -> Captured {
        match std::mem::replace(&mut *self.lock(), Slot::Empty) {
            Slot::Answer(answer) => Captured::Answer(answer),
            Slot::Coming(body) => Captured::Coming(body),
            Slot::TooLarge(bytes) => Captured::TooLarge(bytes),
            Slot::Wanted(_) | Slot::Open | Slot::Empty => Captured::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, slot: Slot) {
        *self.lock() = slot;
    }

    async fn fill_from(&self, mut response: HttpResponse) -> Result<HttpResponse, ConnectorError> {
        let room = if let Slot::Wanted(room) = &mut *self.lock() { room.take() } else { None };
        let Some(room) = room else {
            let body = std::mem::replace(response.body_mut(), SdkBody::empty());
            self.fill(Slot::Coming(ByteStream::new(body)));
            return Ok(response);
        };
        let length: Option<usize> =
            response.headers().get("content-length").and_then(|length| length.parse().ok());
        let body = std::mem::replace(response.body_mut(), SdkBody::from(NOTHING));
        let room = match length {
            // The child's line is a little larger than the body.
            Some(length) if length > room.bytes() => {
                let needed = (length + length / 4).min(LARGEST).max(length);
                // Until there is memory, and so also if the call is cancelled meanwhile.
                self.fill(Slot::TooLarge(needed));
                let Some(room) = timeout(WAIT, room.grown_in_connection(needed)).await.ok().flatten() else {
                    return Err(ConnectorError::other("no room for the answer".into(), None));
                };
                room
            }
            Some(_) | None => room,
        };
        match read(ByteStream::new(body), length, room).await? {
            Ok(answer) => {
                self.fill(Slot::Answer(answer));
                Ok(response)
            }
            Err(bytes) => {
                self.fill(Slot::TooLarge(bytes));
                Err(ConnectorError::other("no room for the answer".into(), None))
            }
        }
    }
}

/// Parses the body, or returns the memory that it needs. A truncated body counts as no answer.
async fn read(
    mut body: ByteStream,
    length: Option<usize>,
    room: Reservation,
) -> Result<Result<Result<Answer, String>, usize>, ConnectorError> {
    let mut answer = Arriving::new(room, length);
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| ConnectorError::io(error.into()))?;
        if let Err(needed) = answer.push(&part) {
            return Ok(Err(needed));
        }
    }
    Ok(Ok(answer.end()))
}

impl Intercept for Capture {
    fn name(&self) -> &'static str {
        "Capture"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().add_extension(self.clone());
        Ok(())
    }
}

/// An HTTP client that fills each [`Capture`]. Other calls are passed through.
#[derive(Debug, Clone)]
pub(super) struct Capturing(pub(super) SharedHttpClient);

impl HttpClient for Capturing {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct Connector(SharedHttpConnector);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let capture = request.extension::<Capture>().cloned();
        let answer = self.0.call(request);
        let Some(capture) = capture else { return answer };
        HttpConnectorFuture::new(async move {
            let response = answer.await?;
            if !response.status().is_success() {
                return Ok(response);
            }
            capture.fill_from(response).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use hyper::body::{Body, Frame};

    use super::*;
    use crate::budget::Budget;

    /// A body of these parts, possibly followed by a broken connection.
    fn body(parts: &[&'static str], is_cut: bool) -> ByteStream {
        let mut parts: Vec<Result<Bytes, std::io::Error>> =
            parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        parts.extend(is_cut.then(|| Err(std::io::ErrorKind::UnexpectedEof.into())));
        ByteStream::new(SdkBody::from_body_1_x(Parts(parts.into_iter())))
    }

    struct Parts(std::vec::IntoIter<Result<Bytes, std::io::Error>>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Ready(self.0.next().map(|part| part.map(Frame::data)))
        }
    }

    #[tokio::test]
    async fn truncated_body_is_an_error() {
        let whole = r#"{"Records":[],"NextShardIterator":"A","MillisBehindLatest":0}"#;
        let room = || Budget::new(10_000).nothing();
        for length in [None, Some(whole.len()), Some(whole.len() + 20)] {
            for parts in [&[whole][..], &[&whole[..20], &whole[20..]], &[&whole[..20]], &[]] {
                let error = read(body(parts, true), length, room()).await.err();
                assert!(error.is_some_and(|error| error.is_io()), "{parts:?} of {length:?}");
            }
        }
        let answer = read(body(&[whole], false), None, room()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.next.as_deref(), Some("A"));
    }
}
