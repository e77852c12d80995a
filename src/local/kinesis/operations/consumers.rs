//! Operations of registered consumers: register, describe, list, deregister.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::clock::{Now, Timestamp};
use super::super::codec::Format;
use super::super::error::Exception;
use super::super::service::{Service, StreamRef};
use super::super::stream::{Change, Consumer, Stream};
use super::super::token::{self, ListToken};
use super::streams::open_token;
use super::{Request, Scope};

/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_RegisterStreamConsumer.html>
const MOST_CONSUMERS: usize = 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ConsumerShape {
    consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    consumer_status: &'static str,
    consumer_creation_timestamp: Timestamp,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<String>,
}

impl ConsumerShape {
    fn new(consumer: &Consumer, stream_arn: &str, status: &'static str) -> Self {
        Self {
            consumer_name: consumer.name.clone(),
            consumer_arn: consumer.arn(stream_arn),
            consumer_status: status,
            consumer_creation_timestamp: consumer.created(),
            stream_arn: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct RegisterStreamConsumer {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct RegisterStreamConsumerAnswer {
    consumer: ConsumerShape,
}

impl Request for RegisterStreamConsumer {
    type Answer = RegisterStreamConsumerAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(None, self.stream_arn.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<RegisterStreamConsumerAnswer, Exception> {
        let mut check = Check::new();
        check.required(self.stream_arn.as_ref(), "streamARN");
        check.required(self.consumer_name.as_ref(), "consumerName");
        check.name(self.consumer_name.as_deref(), "consumerName");
        check.done()?;
        let stream = StreamRef { name: None, arn: self.stream_arn.as_deref() };
        let stream = service.active(stream, now)?;
        let name = self.consumer_name.unwrap_or_default();
        let mut inner = stream.write();
        let stream_arn = service.arn(&stream.birth.name);
        let account = &service.settings.account;
        if inner.consumers.contains_key(&name) {
            return Err(Exception::in_use(format!(
                "Consumer {name} under stream {stream_arn} already exists for account {account}."
            )));
        }
        if inner.consumers.len() >= MOST_CONSUMERS {
            return Err(Exception::limit(format!(
                "Stream {stream_arn} under account {account} has {MOST_CONSUMERS} consumers, which is \
                 the most there can be."
            )));
        }
        let consumer = Consumer { name, created_millis: now.wall.millis() };
        // A description reports ACTIVE at once; the answer to the registration always reports CREATING.
        let shape = ConsumerShape::new(&consumer, &stream_arn, "CREATING");
        service.change(&stream, &mut inner, Change::Register(consumer))?;
        Ok(RegisterStreamConsumerAnswer { consumer: shape })
    }

    fn encode(answer: &RegisterStreamConsumerAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

/// A consumer by its ARN, or by its stream's ARN and its name.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct ConsumerRef<'a> {
    pub(in super::super) arn: Option<&'a str>,
    pub(in super::super) stream_arn: Option<&'a str>,
    pub(in super::super) name: Option<&'a str>,
}

impl Service {
    /// Resolves a reference to its stream and consumer.
    pub(in super::super) fn consumer(
        &self,
        consumer: ConsumerRef<'_>,
    ) -> Result<(Arc<Stream>, Consumer), Exception> {
        let mut check = Check::new();
        check.name(consumer.name, "consumerName");
        check.length(consumer.arn, "consumerARN", 1, 2048);
        check.done()?;
        let stream_of = |arn| self.stream(StreamRef { name: None, arn: Some(arn) });
        let (stream, found) = match (consumer.arn, consumer.stream_arn, consumer.name) {
            (Some(arn), _, _) => {
                let (stream_arn, _) = arn.split_once("/consumer/").ok_or_else(|| {
                    Exception::invalid_argument(format!("{arn} is not the ARN of a consumer."))
                })?;
                let stream = stream_of(stream_arn)?;
                let found = stream.read().consumers.values().find(|c| c.arn(stream_arn) == arn).cloned();
                (stream, found)
            }
            (None, Some(stream_arn), Some(name)) => {
                let stream = stream_of(stream_arn)?;
                let found = stream.read().consumers.get(name).cloned();
                (stream, found)
            }
            (None, _, _) => {
                return Err(Exception::invalid_argument(
                    "Either ConsumerARN, or StreamARN and ConsumerName must be provided.",
                ));
            }
        };
        let account = &self.settings.account;
        let found = found.ok_or_else(|| {
            let what = match (consumer.arn, consumer.name) {
                (Some(arn), _) => arn.to_owned(),
                (None, name) => {
                    format!("{} under stream {}", name.unwrap_or_default(), self.arn(&stream.birth.name))
                }
            };
            Exception::not_found(format!("Consumer {what} not found for account {account}."))
        })?;
        Ok((stream, found))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeStreamConsumer {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DescribeStreamConsumerAnswer {
    consumer_description: ConsumerShape,
}

impl Request for DescribeStreamConsumer {
    type Answer = DescribeStreamConsumerAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(None, self.stream_arn.as_deref().or(self.consumer_arn.as_deref()))
    }

    fn answer(self, service: &Service, _: Now) -> Result<DescribeStreamConsumerAnswer, Exception> {
        let (stream, consumer) = service.consumer(ConsumerRef {
            arn: self.consumer_arn.as_deref(),
            stream_arn: self.stream_arn.as_deref(),
            name: self.consumer_name.as_deref(),
        })?;
        let stream_arn = service.arn(&stream.birth.name);
        Ok(DescribeStreamConsumerAnswer {
            consumer_description: ConsumerShape {
                stream_arn: Some(stream_arn.clone()),
                ..ConsumerShape::new(&consumer, &stream_arn, "ACTIVE")
            },
        })
    }

    fn encode(answer: &DescribeStreamConsumerAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct DeregisterStreamConsumer {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
}

impl Request for DeregisterStreamConsumer {
    type Answer = ();

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(None, self.stream_arn.as_deref().or(self.consumer_arn.as_deref()))
    }

    fn answer(self, service: &Service, _: Now) -> Result<(), Exception> {
        let (stream, consumer) = service.consumer(ConsumerRef {
            arn: self.consumer_arn.as_deref(),
            stream_arn: self.stream_arn.as_deref(),
            name: self.consumer_name.as_deref(),
        })?;
        let change = Change::Deregister { consumer: consumer.name };
        service.change(&stream, &mut stream.write(), change)
    }

    fn encode((): &(), _: Format) -> Result<Bytes, Exception> {
        Ok(Bytes::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListStreamConsumers {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct ListStreamConsumersAnswer {
    consumers: Vec<ConsumerShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

impl Request for ListStreamConsumers {
    type Answer = ListStreamConsumersAnswer;

    fn scope(&self, _: &Service) -> Scope {
        Scope::stream(None, self.stream_arn.as_deref())
    }

    fn answer(self, service: &Service, now: Now) -> Result<ListStreamConsumersAnswer, Exception> {
        let mut check = Check::new();
        check.required(self.stream_arn.as_ref(), "streamARN");
        check.within(self.max_results, "maxResults", 1, 100);
        check.done()?;
        let stream = service.stream(StreamRef { name: None, arn: self.stream_arn.as_deref() })?;
        if let Some(created) = self.stream_creation_timestamp
            && created.seconds() != stream.birth.created().seconds()
        {
            return Err(service.no_stream(&stream.birth.name));
        }
        let after = match &self.next_token {
            Some(text) => Some(open_token::<String>(service, text, now)?),
            None => None,
        };
        let most = usize::try_from(self.max_results.unwrap_or(100)).unwrap_or(100);
        let stream_arn = service.arn(&stream.birth.name);
        let inner = stream.read();
        let mut rest = inner
            .consumers
            .values()
            .filter(|consumer| after.as_ref().is_none_or(|after| consumer.name > *after));
        let page: Vec<_> = rest.by_ref().take(most).collect();
        let more = rest.next().is_some();
        let next_token = page.last().filter(|_| more).map(|last| {
            token::write(&ListToken { issued: service.run.issue(now), position: last.name.clone() })
        });
        Ok(ListStreamConsumersAnswer {
            consumers: page.into_iter().map(|c| ConsumerShape::new(c, &stream_arn, "ACTIVE")).collect(),
            next_token,
        })
    }

    fn encode(answer: &ListStreamConsumersAnswer, format: Format) -> Result<Bytes, Exception> {
        super::body(answer, format)
    }
}
