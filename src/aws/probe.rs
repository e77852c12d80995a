//! The calls of a check, with the clients of a daemon. None has an effect: see [`crate::probe`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::{ConditionCheck, IndexStatus, TableDescription, TransactWriteItem};
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType, ShardIteratorType, StreamModeDetails};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use tokio::time::timeout;

use super::client::Clients;
use super::dynamodb::{INDEX, Leases};
use super::error::{Failure, failure};
use super::http::origin;
use super::item::{self, Item, text};
use super::kinesis::{Stream, nearest_millis};
use super::state::{REPORT_KEY, STATE_KEY};
use crate::probe::judge::FORBIDDEN;
use crate::probe::port::{Api, Call, Consumer, Found, Reply, Service, StreamFacts, Table, TableFacts};
use crate::shard::BoxFuture;
use crate::stream::StreamId;

/// Time limit of a call, retries included.
const CALL: Duration = Duration::from_secs(10);
/// The key of the row that is read and written. No shard and no worker has such a name.
const KEY: &str = "multilangd check --aws: no row";
/// The worker whose leases are asked for.
const NO_WORKER: &str = "multilangd check --aws: no worker";
/// Most characters of an answer in a message.
const MOST: usize = 300;
/// No row fulfils this: the key exists in each row that exists, and in no other.
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

/// The origin that the last call of each service was sent to.
#[derive(Debug, Clone, Default)]
struct Origins(Arc<Mutex<BTreeMap<Service, String>>>);

/// Notes the origin of the calls of one service.
#[derive(Debug, Clone)]
struct Note(Origins, Service);

impl Intercept for Note {
    fn name(&self) -> &'static str {
        "Note"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let called = origin(context.request().uri());
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.1, called);
        Ok(())
    }
}

/// Names of the tables.
#[derive(Debug, Clone)]
pub struct Names {
    /// The lease table.
    pub leases: String,
    /// The coordinator's table of KCL 3.0 to 3.4.
    pub state: String,
    /// The table of worker metrics of KCL 3.0 to 3.4.
    pub reports: String,
}

/// Makes the calls.
#[derive(Debug, Clone)]
pub struct Probes {
    sts: aws_sdk_sts::Client,
    stream: Stream,
    dynamodb: aws_sdk_dynamodb::Client,
    leases: Leases,
    names: Names,
    origins: Origins,
}

impl Clients {
    /// The calls of a check on this stream and these tables.
    pub fn probes(&self, stream: Stream, leases: Leases, names: Names) -> Probes {
        let sts = aws_sdk_sts::config::Builder::from(&self.sts.shared)
            .region(self.sts.region.clone())
            .retry_config(RetryConfig::disabled());
        let sts = match self.sts.credentials.clone() {
            Some(credentials) => sts.credentials_provider(credentials),
            None => sts.allow_no_auth(),
        };
        Probes {
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            stream,
            dynamodb: self.dynamodb.clone(),
            leases,
            names,
            origins: Origins::default(),
        }
    }
}

/// The reply for an answer of the SDK.
fn reply<T, E>(
    sent: Result<T, SdkError<E, HttpResponse>>,
    found: impl FnOnce(T) -> Result<Found, String>,
) -> Reply
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let sent = match sent {
        Ok(answer) => {
            return found(answer).map_or_else(|why| refused("IncompleteResponse", why), Reply::Done);
        }
        Err(error) => match forbidden(&error) {
            Some(refused) => return refused,
            None => failure(&error),
        },
    };
    match sent {
        Failure::Answered { code, message, service_fault } => Reply::Refused { code, message, service_fault },
        Failure::Unanswered(why) | Failure::NotSent(why) => Reply::Unreached(why),
    }
}

/// A status 403 without an error of the service's protocol, as proxies and emulators answer.
fn forbidden<E>(error: &SdkError<E, HttpResponse>) -> Option<Reply>
where
    E: ProvideErrorMetadata,
{
    let raw = error.raw_response().filter(|raw| raw.status().as_u16() == 403)?;
    if error.as_service_error().is_some_and(|error| error.code().is_some()) {
        return None;
    }
    let body = String::from_utf8_lossy(raw.body().bytes().unwrap_or_default());
    let message = body.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    let text = message.map_or(&*body, |(message, _)| message);
    Some(refused(FORBIDDEN, text.chars().take(MOST).collect()))
}

fn refused(code: &str, message: String) -> Reply {
    Reply::Refused { code: code.to_owned(), message, service_fault: false }
}

fn nothing<T>(_: T) -> Result<Found, String> {
    Ok(Found::Nothing)
}

impl Probes {
    /// The origin to which the calls of a service were sent.
    pub fn origin(&self, service: Service) -> Option<String> {
        self.origins.0.lock().unwrap_or_else(PoisonError::into_inner).get(&service).cloned()
    }

    fn note(&self, service: Service) -> Note {
        Note(self.origins.clone(), service)
    }

    /// The table and its key attribute.
    fn table(&self, table: Table) -> (&str, &'static str) {
        match table {
            Table::Leases => (&self.names.leases, item::KEY),
            Table::State => (&self.names.state, STATE_KEY),
            Table::Reports => (&self.names.reports, REPORT_KEY),
        }
    }

    async fn send(&self, call: &Call) -> Reply {
        let sent = timeout(CALL, async {
            match call.service() {
                Service::Sts => self.identity().await,
                Service::Kinesis => self.of_stream(call).await,
                Service::DynamoDb => self.of_tables(call).await,
            }
        });
        let reply =
            sent.await.unwrap_or_else(|_| Reply::Unreached(format!("no answer within {} s", CALL.as_secs())));
        // An answer that cannot be read, and a time limit of the SDK, do not name the endpoint.
        match (reply, self.origin(call.service())) {
            (Reply::Unreached(why), Some(origin)) if !why.contains(&origin) => {
                Reply::Unreached(format!("failed to call {origin}: {why}"))
            }
            (reply, _) => reply,
        }
    }

    async fn identity(&self) -> Reply {
        let call = self.sts.get_caller_identity().customize().interceptor(self.note(Service::Sts));
        reply(call.send().await, |answer| {
            let missing = || "GetCallerIdentity returned no ARN".to_owned();
            let (arn, account) = answer.arn.zip(answer.account).ok_or_else(missing)?;
            Ok(Found::Identity { account, arn })
        })
    }

    async fn of_stream(&self, call: &Call) -> Reply {
        let (client, note) = (&self.stream.client, self.note(Service::Kinesis));
        let (name, arn) = (self.stream.by_name(), self.stream.by_arn());
        match call {
            Call::Summary => {
                let call = client.describe_stream_summary().set_stream_name(name).set_stream_arn(arn);
                reply(call.customize().interceptor(note).send().await, |answer| {
                    let summary = answer.stream_description_summary.ok_or("the response has no stream")?;
                    Ok(Found::Stream(StreamFacts {
                        id: id(&summary.stream_arn, &summary.stream_creation_timestamp)?,
                        status: summary.stream_status.as_str().to_owned(),
                        mode: mode(summary.stream_mode_details.as_ref()),
                        open_shards: usize::try_from(summary.open_shard_count).ok(),
                        consumers: summary.consumer_count.and_then(|count| usize::try_from(count).ok()),
                        key: summary.key_id,
                        retention_hours: i64::from(summary.retention_period_hours),
                    }))
                })
            }
            Call::Description => {
                let call = client.describe_stream().set_stream_name(name).set_stream_arn(arn).limit(1);
                reply(call.customize().interceptor(note).send().await, |answer| {
                    let stream = answer.stream_description.ok_or("the response has no stream")?;
                    Ok(Found::Stream(StreamFacts {
                        id: id(&stream.stream_arn, &stream.stream_creation_timestamp)?,
                        status: stream.stream_status.as_str().to_owned(),
                        mode: mode(stream.stream_mode_details.as_ref()),
                        open_shards: None,
                        consumers: None,
                        key: stream.key_id,
                        retention_hours: i64::from(stream.retention_period_hours),
                    }))
                })
            }
            Call::Shards => {
                let open = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().ok();
                let call = client.list_shards().set_stream_name(name).set_stream_arn(arn);
                let call = call.set_shard_filter(open).max_results(1);
                reply(call.customize().interceptor(note).send().await, |answer| {
                    let shard = answer.shards().first().map(|shard| shard.shard_id().to_owned());
                    Ok(shard.map_or(Found::Nothing, Found::Shard))
                })
            }
            Call::Iterator(shard) => {
                let call = client.get_shard_iterator().set_stream_name(name).set_stream_arn(arn);
                let call = call.shard_id(shard).shard_iterator_type(ShardIteratorType::Latest);
                reply(call.customize().interceptor(note).send().await, |answer| {
                    Ok(answer.shard_iterator.map_or(Found::Nothing, Found::Iterator))
                })
            }
            Call::Records(iterator) => {
                let call = client.get_records().shard_iterator(iterator).limit(1).set_stream_arn(arn);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Consumer(consumer) => {
                let call = client.describe_stream_consumer();
                let call = match consumer {
                    Consumer::Arn(arn) => call.consumer_arn(arn),
                    Consumer::Of { stream, name } => call.stream_arn(stream).consumer_name(name),
                };
                reply(call.customize().interceptor(note).send().await, |answer| {
                    let consumer = answer.consumer_description.ok_or("the response has no consumer")?;
                    let status = consumer.consumer_status.as_str().to_owned();
                    Ok(Found::Consumer { arn: consumer.consumer_arn, status })
                })
            }
            Call::Identity
            | Call::Table(_)
            | Call::Scan(_)
            | Call::Query
            | Call::Get(_)
            | Call::Delete(_)
            | Call::Put(_)
            | Call::Update(_)
            | Call::Condition(_) => refused("UnknownOperationException", String::new()),
        }
    }

    async fn of_tables(&self, call: &Call) -> Reply {
        let (client, note) = (&self.dynamodb, self.note(Service::DynamoDb));
        match call {
            Call::Table(table) => {
                let call = client.describe_table().table_name(self.table(*table).0);
                reply(call.customize().interceptor(note).send().await, |answer| {
                    let described = answer.table.ok_or("the response has no table")?;
                    Ok(Found::Table(self.facts(*table, &described)))
                })
            }
            Call::Scan(table) => {
                let call = client.scan().table_name(self.table(*table).0).limit(1);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Query => {
                let call = client
                    .query()
                    .table_name(&self.names.leases)
                    .index_name(INDEX)
                    .key_condition_expression("#o = :o")
                    .expression_attribute_names("#o", item::OWNER)
                    .expression_attribute_values(":o", text(NO_WORKER))
                    .limit(1);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Get(table) => {
                let (name, key) = self.table(*table);
                let call = client.get_item().table_name(name).key(key, text(KEY)).consistent_read(true);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Delete(table) => {
                let (name, key) = self.table(*table);
                let call = client.delete_item().table_name(name).key(key, text(KEY));
                let call = call.condition_expression(NEVER).expression_attribute_names("#k", key);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Put(table) => {
                let (name, key) = self.table(*table);
                let row = Item::from([(key.to_owned(), text(KEY))]);
                let call = client.put_item().table_name(name).set_item(Some(row));
                let call = call.condition_expression(NEVER).expression_attribute_names("#k", key);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Update(table) => {
                let (name, key) = self.table(*table);
                let call = client.update_item().table_name(name).key(key, text(KEY));
                let call = call.condition_expression(NEVER).expression_attribute_names("#k", key);
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Condition(table) => {
                let (name, key) = self.table(*table);
                let check = ConditionCheck::builder().table_name(name).key(key, text(KEY));
                let check = check.condition_expression(NEVER).expression_attribute_names("#k", key).build();
                let step = check.map(|check| TransactWriteItem::builder().condition_check(check).build());
                let call = client.transact_write_items().set_transact_items(step.ok().map(|step| vec![step]));
                reply(call.customize().interceptor(note).send().await, nothing)
            }
            Call::Identity
            | Call::Summary
            | Call::Description
            | Call::Shards
            | Call::Iterator(_)
            | Call::Records(_)
            | Call::Consumer(_) => refused("UnknownOperationException", String::new()),
        }
    }

    fn facts(&self, table: Table, described: &TableDescription) -> TableFacts {
        let shape = match table {
            Table::Leases => self.leases.check_shape(described).err().map(|error| error.to_string()),
            Table::State | Table::Reports => None,
        };
        let is_usable = |index: &&aws_sdk_dynamodb::types::GlobalSecondaryIndexDescription| {
            index.index_name() == Some(INDEX) && index.index_status() == Some(&IndexStatus::Active)
        };
        TableFacts {
            arn: described.table_arn().map(str::to_owned),
            status: described.table_status().map_or("unknown", |status| status.as_str()).to_owned(),
            shape,
            index: described.global_secondary_indexes().iter().any(|index| is_usable(&index)),
        }
    }
}

fn id(arn: &str, created: &DateTime) -> Result<StreamId, String> {
    if arn.is_empty() {
        return Err("the response has no ARN".to_owned());
    }
    Ok(StreamId::new(arn, nearest_millis(created)))
}

fn mode(details: Option<&StreamModeDetails>) -> Option<String> {
    details.map(|details| details.stream_mode.as_str().to_owned())
}

impl Api for Probes {
    fn call<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(self.send(call))
    }
}
