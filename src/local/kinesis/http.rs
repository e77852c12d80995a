//! The HTTP side: maps requests to operations, and their results to responses.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::codec::Format;
use super::error::{Exception, Kind};
use super::faults::Effect;
use super::operations::{Operation, Request, consumers, reading, shards, streams, tags, writing};
use super::service::Service;
use super::subscribe::SubscribeToShard;
use crate::local::server::Tasks;
use crate::web::Rule;

/// Most bytes of a body. PutRecords allows 10 MiB of data, which is 13.4 MiB of base64, and 500 partition
/// keys that may need escaping.
const MOST_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The context of every call: the state, and the means to start tasks of the server.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) service: Arc<Service>,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

/// The call gets no answer: hyper closes the connection, or the stream in HTTP/2.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// A fault was injected.
    #[error("dropped the response (injected fault)")]
    Lost,
    /// The request was incomplete.
    #[error("failed to read the request: {0}")]
    Broken(String),
}

/// The body of an answer: complete, or events over time.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Option<Bytes>),
    /// The first half of a body, then the end of the connection. The number is the announced length.
    Cut(Option<Bytes>, u64),
    Events(mpsc::Receiver<Result<Bytes, Unanswered>>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Unanswered;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Cut(bytes, _) => Poll::Ready(Some(bytes.take().map(Frame::data).ok_or(Unanswered::Lost))),
            Self::Events(events) => events.poll_recv(cx).map(|event| Some(event?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Cut(..) | Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Cut(_, promised) => SizeHint::with_exact(*promised),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Answers one HTTP request.
pub(super) async fn answer(site: Site, request: HttpRequest<Incoming>) -> Result<Response<Body>, Unanswered> {
    let request_id = request_id();
    let content_type = header(&request, "content-type");
    let format = Format::of(&content_type);
    let target = header(&request, "x-amz-target");
    let received = match Rule::api().check(&request) {
        Ok(()) => read(request).await?,
        Err(refusal) => Err(Exception::new(Kind::AccessDenied, refusal.to_string())),
    };
    let outcome = match received {
        Ok((method, body)) => {
            let call = Call { site, format: format.unwrap_or(Format::Json), body };
            if method != Method::POST || target.is_empty() {
                Err(Exception::new(
                    Kind::MissingAction,
                    "The request must be a POST that names an action in X-Amz-Target.",
                ))
            } else if format.is_none() {
                Err(Exception::new(
                    Kind::UnknownOperation,
                    format!("The content type {content_type:?} is not known."),
                ))
            } else {
                call.dispatch(&target).await?
            }
        }
        Err(exception) => Err(exception),
    };
    let format = format.unwrap_or(Format::Json);
    Ok(match outcome {
        Ok(body) => {
            let content_type = match body {
                Body::Whole(_) | Body::Cut(..) => format.content_type(),
                Body::Events(_) => "application/vnd.amazon.eventstream",
            };
            respond(StatusCode::OK, content_type, &request_id, body)
        }
        Err(exception) => refuse(&exception, format, &request_id),
    })
}

fn header(request: &HttpRequest<Incoming>, name: &str) -> String {
    let value = request.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Reads the body, unless it is larger than any request may be.
async fn read(request: HttpRequest<Incoming>) -> Result<Result<(Method, Bytes), Exception>, Unanswered> {
    let (parts, body) = request.into_parts();
    match Limited::new(body, MOST_BODY_BYTES).collect().await {
        Ok(body) => Ok(Ok((parts.method, body.to_bytes()))),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(Err(Exception::new(
            Kind::RequestTooLarge,
            format!("The request is larger than {MOST_BODY_BYTES} bytes."),
        ))),
        Err(error) => Err(Unanswered::Broken(error.to_string())),
    }
}

fn respond(status: StatusCode, content_type: &'static str, request_id: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn refuse(exception: &Exception, format: Format, request_id: &str) -> Response<Body> {
    #[derive(serde::Serialize)]
    struct Shape<'a> {
        #[serde(rename = "__type")]
        kind: &'static str,
        message: &'a str,
    }
    let body = format.encode(&Shape { kind: exception.kind.name(), message: &exception.message });
    tracing::debug!(kind = exception.kind.name(), error = exception.message, "rejected a request");
    let status = StatusCode::from_u16(exception.kind.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let body = Body::Whole(body.ok());
    let mut response = respond(status, format.content_type(), request_id, body);
    let kind = HeaderValue::from_static(exception.kind.name());
    response.headers_mut().insert("x-amzn-errortype", kind);
    response
}

/// A random id in the form of a UUID.
fn request_id() -> String {
    let id = fastrand::u128(..);
    let field = |shift: u32, bits: u32| id >> shift & ((1 << bits) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        field(96, 32),
        field(80, 16),
        field(64, 16),
        field(48, 16),
        field(0, 48)
    )
}

/// A call of an operation.
struct Call {
    site: Site,
    format: Format,
    body: Bytes,
}

impl Call {
    async fn dispatch(self, target: &str) -> Result<Result<Body, Exception>, Unanswered> {
        let Some(operation) = Operation::of_target(target) else {
            return Ok(Err(Exception::new(
                Kind::UnknownOperation,
                format!("The operation {target} is not known."),
            )));
        };
        match operation {
            Operation::AddTagsToStream => self.run::<tags::AddTagsToStream>(operation).await,
            Operation::CreateStream => self.run::<streams::CreateStream>(operation).await,
            Operation::DecreaseStreamRetentionPeriod => {
                self.run::<streams::DecreaseStreamRetentionPeriod>(operation).await
            }
            Operation::DeleteStream => self.run::<streams::DeleteStream>(operation).await,
            Operation::DeregisterStreamConsumer => {
                self.run::<consumers::DeregisterStreamConsumer>(operation).await
            }
            Operation::DescribeLimits => self.run::<streams::DescribeLimits>(operation).await,
            Operation::DescribeStream => self.run::<streams::DescribeStream>(operation).await,
            Operation::DescribeStreamConsumer => {
                self.run::<consumers::DescribeStreamConsumer>(operation).await
            }
            Operation::DescribeStreamSummary => self.run::<streams::DescribeStreamSummary>(operation).await,
            Operation::GetRecords => self.run::<reading::GetRecords>(operation).await,
            Operation::GetShardIterator => self.run::<reading::GetShardIterator>(operation).await,
            Operation::IncreaseStreamRetentionPeriod => {
                self.run::<streams::IncreaseStreamRetentionPeriod>(operation).await
            }
            Operation::ListShards => self.run::<shards::ListShards>(operation).await,
            Operation::ListStreamConsumers => self.run::<consumers::ListStreamConsumers>(operation).await,
            Operation::ListStreams => self.run::<streams::ListStreams>(operation).await,
            Operation::ListTagsForStream => self.run::<tags::ListTagsForStream>(operation).await,
            Operation::MergeShards => self.run::<shards::MergeShards>(operation).await,
            Operation::PutRecord => self.run::<writing::PutRecord>(operation).await,
            Operation::PutRecords => self.run::<writing::PutRecords>(operation).await,
            Operation::RegisterStreamConsumer => {
                self.run::<consumers::RegisterStreamConsumer>(operation).await
            }
            Operation::RemoveTagsFromStream => self.run::<tags::RemoveTagsFromStream>(operation).await,
            Operation::SplitShard => self.run::<shards::SplitShard>(operation).await,
            Operation::SubscribeToShard => self.subscribe().await,
            Operation::UpdateMaxRecordSize => self.run::<streams::UpdateMaxRecordSize>(operation).await,
            Operation::UpdateShardCount => self.run::<shards::UpdateShardCount>(operation).await,
            Operation::UpdateStreamMode => self.run::<streams::UpdateStreamMode>(operation).await,
        }
    }

    async fn run<R: Request>(self, operation: Operation) -> Result<Result<Body, Exception>, Unanswered> {
        let Self { site: Site { service, .. }, format, body } = self;
        let request: R = match decode(format, &body) {
            Ok(request) => request,
            Err(exception) => return Ok(Err(exception)),
        };
        // The request contains all of it: the body need not be kept during a delay.
        drop(body);
        service.faults.count(operation);
        let effect = service.faults.strike(operation, || request.scope(&service));
        if let Some(refused) = strike(effect).await {
            return Ok(Err(refused));
        }
        let answer = request
            .answer(&service, clock::now())
            .and_then(|answer| R::encode(&answer, format))
            .map(|bytes| match effect {
                Some(Effect::CutAnswer) => {
                    Body::Cut(Some(bytes.slice(..bytes.len() / 2)), bytes.len() as u64)
                }
                _ => Body::Whole(Some(bytes)),
            });
        if effect == Some(Effect::LoseAnswer) {
            return Err(Unanswered::Lost);
        }
        Ok(answer)
    }

    async fn subscribe(self) -> Result<Result<Body, Exception>, Unanswered> {
        let Self { site, format, body } = self;
        let request: SubscribeToShard = match decode(format, &body) {
            Ok(request) => request,
            Err(exception) => return Ok(Err(exception)),
        };
        let faults = &site.service.faults;
        faults.count(Operation::SubscribeToShard);
        let effect = faults.strike(Operation::SubscribeToShard, || request.scope());
        if let Some(refused) = strike(effect).await {
            return Ok(Err(refused));
        }
        let mut subscription = match request.open(&site.service, clock::now()) {
            Ok(subscription) => subscription,
            Err(exception) => return Ok(Err(exception)),
        };
        if effect == Some(Effect::LoseAnswer) {
            return Err(Unanswered::Lost);
        }
        subscription.cut = effect == Some(Effect::CutAnswer);
        // One event is written while the next is encoded; no more are encoded for a client that does not
        // read.
        let (events, body) = mpsc::channel(1);
        site.tasks.start(subscription.feed(site.service, format, events, site.stop));
        Ok(Ok(Body::Events(body)))
    }
}

fn decode<R: DeserializeOwned>(format: Format, body: &[u8]) -> Result<R, Exception> {
    // Some operations have no parameters, and some clients then send no body.
    match (body, format) {
        ([], _) => Format::Json.decode(b"{}"),
        (body, format) => format.decode(body),
    }
}

/// Applies the effect of a fault before the call.
async fn strike(effect: Option<Effect>) -> Option<Exception> {
    match effect {
        Some(Effect::Delay(span)) => {
            tokio::time::sleep(span).await;
            None
        }
        Some(Effect::Throttle) => Some(Exception::throughput("Rate exceeded for shard (a fault).")),
        Some(Effect::Fail) => Some(Exception::internal("Internal Service Failure (a fault).")),
        Some(Effect::Unknown) => Some(Exception::new(Kind::UnknownOperation, "No such operation (a fault).")),
        Some(Effect::LoseAnswer | Effect::CutAnswer) | None => None,
    }
}
