//! The lease table in DynamoDB.
//!
//! Java sends the legacy parameters `Expected` and `AttributeUpdates`; the expressions here are equivalent.
//! In KCL: `DynamoDBLeaseRefresher`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItem, UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate,
    IndexStatus, KeySchemaElement, KeyType, PointInTimeRecoverySpecification, Projection, ProjectionType,
    ProvisionedThroughput, ReturnValue, ScalarAttributeType, TableDescription,
};
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::error::{classify, failure, table_error};
use super::item::{self, Item, Row};
use super::repeat::{Made, Observe, Repeat};
use super::reported::Reported;
use crate::lease::table::{Error, Found, Streams, Table};
use crate::lease::update::Update;
use crate::lease::{Lease, LeaseKey, WorkerId};
use crate::sequence::Sequence;
use crate::shard::BoxFuture;

mod ensure;
mod expression;

use expression::Expression;

/// The index by which a worker finds the leases that the leader assigned to it.
pub(super) const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// How long to wait for a new table, as in KCL.
pub(super) const TABLE_WAIT: Duration = Duration::from_secs(600);

/// Options for creating and reading the lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `leaseTableDeletionProtectionEnabled`: the table is protected from deletion.
    pub protected: bool,
    /// `leaseTablePitrEnabled`: point-in-time recovery is enabled at every start.
    pub recoverable: bool,
    /// `leaseTableScanTotalSegments`: number of segments that are scanned in parallel; at least one.
    pub segments: i32,
    /// `initialPositionInStream`: the checkpoint of rows without one.
    pub initial: Sequence,
    /// Whether the table holds the leases of one stream or of several.
    pub streams: Streams,
}

impl Default for Options {
    /// KCL's initial position is `LATEST`.
    fn default() -> Self {
        let streams = Streams::One;
        Self { protected: false, recoverable: false, segments: 1, initial: Sequence::Latest, streams }
    }
}

/// The lease table of one application.
#[derive(Debug, Clone)]
pub struct Leases {
    client: Client,
    table: String,
    options: Options,
    reported: Arc<Mutex<Reported>>,
    /// Whether point-in-time recovery is to be enabled once the rows show that the table is this application's.
    recovery_due: Arc<AtomicBool>,
    /// Repeats writes of rows: with renewals, they are most of the calls of an idle worker.
    repeat: Option<Arc<Repeat<UpdateItem>>>,
}

impl Leases {
    /// The table of that name.
    pub fn new(client: Client, table: String, options: Options) -> Self {
        Self { client, table, options, reported: Arc::default(), recovery_due: Arc::default(), repeat: None }
    }

    /// Repeats writes of rows without the SDK's orchestrator.
    pub(super) fn repeating(self, repeat: Repeat<UpdateItem>) -> Self {
        Self { repeat: Some(Arc::new(repeat)), ..self }
    }

    fn row(&self, item: &Item) -> Row {
        item::row(item, &self.options.initial, self.options.streams)
    }

    fn several_streams(&self, lease: String, stream: String) -> Error {
        Error::SeveralStreams { table: self.table.clone(), lease, stream }
    }

    fn one_stream(&self, lease: String) -> Error {
        Error::OneStream { table: self.table.clone(), lease }
    }

    async fn describe(&self) -> Result<Option<TableDescription>, Error> {
        match self.client.describe_table().table_name(&self.table).send().await {
            Ok(answer) => Ok(answer.table),
            Err(error) if failure(&error).code() == "ResourceNotFoundException" => Ok(None),
            Err(error) => Err(self.classify(&error, None)),
        }
    }

    /// Enables point-in-time recovery, at every start as in Java. A failure does not prevent the start.
    async fn make_recoverable(&self) {
        if !self.options.recoverable {
            return;
        }
        let on = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
        let Ok(on) = on else { return };
        let asked = self.client.update_continuous_backups().table_name(&self.table);
        match asked.point_in_time_recovery_specification(on).send().await {
            Ok(_) => info!(
                event = "point_in_time_recovery_enabled",
                table = self.table,
                "enabled point-in-time recovery of the lease table"
            ),
            Err(error) => {
                let error = self.classify(&error, None);
                warn!(event = "point_in_time_recovery_failed", %error,
                    "failed to enable point-in-time recovery of the lease table (leaseTablePitrEnabled; \
                     allow dynamodb:UpdateContinuousBackups)");
            }
        }
    }

    async fn scan(&self) -> Result<Vec<Lease>, Error> {
        let segments = self.options.segments.max(1);
        let mut parts = JoinSet::new();
        for segment in 0..segments {
            let scan = self.client.scan().table_name(&self.table);
            let scan = if segments > 1 { scan.segment(segment).total_segments(segments) } else { scan };
            let part = self.clone();
            parts.spawn(async move { part.scan_part(scan).await });
        }
        let mut leases = Vec::new();
        while let Some(part) = parts.join_next().await {
            leases.extend(part.map_err(|error| Error::Unavailable(error.to_string()))??);
        }
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        if self.recovery_due.swap(false, Ordering::Relaxed) {
            self.make_recoverable().await;
        }
        Ok(leases)
    }

    /// Logs once what a scan skips.
    /// The keys of rows that could not be read as leases when they were last scanned.
    pub fn unreadable(&self) -> Vec<String> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).rows().map(str::to_owned).collect()
    }

    fn report(&self, row: &Row) {
        let table = &self.table;
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        match row {
            Row::Lease(lease) => reported.is_readable(&lease.key.to_string()),
            Row::Unreadable(why) if reported.row(&why.key, why.to_string()) => {
                warn!(event = "lease_row_skipped", table, shard = why.key, error = %why,
                    "skipped a row that cannot be read as a lease");
            }
            Row::Other(kind) if !super::state::KINDS.contains(&kind.as_str()) && reported.kind(kind) => {
                info!(event = "rows_skipped", table, entity = %kind,
                    "skipped rows with an unknown entityType");
            }
            Row::Unreadable(_) | Row::Other(_) | Row::OfSeveralStreams { .. } | Row::OfOneStream(_) => {}
        }
    }

    async fn scan_part(&self, scan: ScanFluentBuilder) -> Result<Vec<Lease>, Error> {
        let mut leases = Vec::new();
        let mut pages = scan.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.classify(&error, None))?;
            for found in page.items() {
                let row = self.row(found);
                self.report(&row);
                match row {
                    Row::Lease(lease) => leases.push(*lease),
                    Row::OfSeveralStreams { lease, stream } => {
                        return Err(self.several_streams(lease, stream));
                    }
                    Row::OfOneStream(lease) => return Err(self.one_stream(lease)),
                    Row::Unreadable(_) | Row::Other(_) => {}
                }
            }
        }
        Ok(leases)
    }

    async fn read(&self, key: &LeaseKey) -> Result<Option<Lease>, Error> {
        let sent = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(item::KEY, item::text(&key.to_string()))
            .consistent_read(true)
            .send()
            .await;
        let answer = sent.map_err(|error| self.classify(&error, None))?;
        Ok(match answer.item().map(|item| self.row(item)) {
            Some(Row::Lease(lease)) => Some(*lease),
            // Not the same as no row: a parent with an unreadable row is not finished.
            Some(Row::Unreadable(why)) => {
                let why = why.to_string();
                return Err(Error::Unreadable { table: self.table.clone(), key: key.clone(), why });
            }
            // Nor is a row of another application.
            Some(Row::OfSeveralStreams { lease, stream }) => return Err(self.several_streams(lease, stream)),
            Some(Row::OfOneStream(lease)) => return Err(self.one_stream(lease)),
            Some(Row::Other(_)) | None => None,
        })
    }

    async fn insert(&self, lease: &Lease) -> Result<bool, Error> {
        // A row of the other kind would make the table unusable for all workers.
        match (self.options.streams, lease.key.stream()) {
            (Streams::One, Some(stream)) => {
                return Err(self.several_streams(lease.key.to_string(), stream.to_string()));
            }
            (Streams::Several, None) => return Err(self.one_stream(lease.key.to_string())),
            (Streams::One, None) | (Streams::Several, Some(_)) => {}
        }
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::new_row(lease)))
            .condition_expression("attribute_not_exists(#k)")
            .expression_attribute_names("#k", item::KEY)
            .send()
            .await;
        match sent.map_err(|error| self.classify(&error, Some(&lease.key))) {
            Ok(_) => Ok(true),
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, key: &LeaseKey, update: &Update) -> Result<Lease, Error> {
        let expression = Expression::of(update);
        let call = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(item::KEY, item::text(&key.to_string()))
            .condition_expression(expression.condition)
            .update_expression(expression.update)
            .set_expression_attribute_names(Some(expression.names))
            .set_expression_attribute_values(Some(expression.values).filter(|values| !values.is_empty()))
            .return_values(ReturnValue::AllOld);
        let answer = self.send(key, call).await?;
        match answer.attributes().map(|item| self.row(item)) {
            Some(Row::Lease(lease)) => Ok(*lease),
            Some(Row::Unreadable(why)) => Err(self.written(key, why.to_string())),
            Some(Row::OfSeveralStreams { lease, stream }) => Err(self.several_streams(lease, stream)),
            Some(Row::OfOneStream(lease)) => Err(self.one_stream(lease)),
            Some(Row::Other(kind)) => {
                Err(self.written(key, format!("its attribute {} is the string {kind:?}", item::ENTITY)))
            }
            None => Err(Error::Ambiguous(format!("table {}: the row {key} does not exist", self.table))),
        }
    }

    /// Sends a write: repeats the SDK's request if possible.
    async fn send(&self, key: &LeaseKey, call: UpdateItemFluentBuilder) -> Result<UpdateItemOutput, Error> {
        let of_sdk = |error: SdkError<UpdateItemError, HttpResponse>| self.classify(&error, Some(key));
        let Some(repeat) = &self.repeat else { return call.send().await.map_err(of_sdk) };
        let input = call.as_input().clone().build();
        let input = input.map_err(|error| Error::Denied(format!("table {}: {error}", self.table)))?;
        let left = match repeat.call(input, |_| {}).await {
            Made::Done(sent) => {
                return sent.map_err(|failure| table_error(&self.table, &failure, Some(key)));
            }
            Made::Not(left) => left,
        };
        let observe = Observe::default();
        let mut call = call.customize().interceptor(observe.clone());
        if let Some(left) = left {
            // With what the repeated attempt has taken, the call has its usual time.
            let attempt = TimeoutConfig::builder().operation_timeout(left).operation_attempt_timeout(left);
            call = call.config_override(Config::builder().timeout_config(attempt.build()));
        }
        let sent = call.send().await.map_err(of_sdk)?;
        // Not from a call with other timeouts.
        if left.is_none() {
            repeat.learn(&observe);
        }
        Ok(sent)
    }

    /// The answer to a write shows that the row was not readable as a lease: logged once for each row and reason.
    fn written(&self, key: &LeaseKey, why: String) -> Error {
        let table = self.table.clone();
        if self.reported.lock().unwrap_or_else(PoisonError::into_inner).row(&key.to_string(), why.clone()) {
            warn!(event = "lease_row_unreadable", table, shard = %key, error = why,
                "wrote a row that cannot be read as a lease (correct the attribute; without its checkpoint the row \
                 counts as new)");
        }
        Error::Written { table, key: key.clone(), why }
    }

    /// By the index if it is usable, otherwise by a scan, as long as the index is being created.
    async fn owned_by(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, Error> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("#o = :o")
            .expression_attribute_names("#o", item::OWNER)
            .expression_attribute_values(":o", item::text(worker.as_str()));
        let mut pages = query.into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => keys.extend(
                    page.items()
                        .iter()
                        .filter_map(|found| item::get_text(found, item::KEY))
                        .map(|key| item::key(key, self.options.streams)),
                ),
                Err(error) if failure(&error).code() == "ValidationException" => {
                    let leases = self.scan().await?;
                    let theirs = leases.into_iter().filter(|lease| lease.owner.as_ref() == Some(worker));
                    return Ok(theirs.map(|lease| lease.key).collect());
                }
                Err(error) => return Err(self.classify(&error, None)),
            }
        }
        Ok(keys)
    }

    /// KCL's `waitUntilLeaseOwnerToLeaseKeyIndexExists` delays the start until the index exists; here the
    /// table is scanned meanwhile.
    async fn has_index(&self, make: bool) -> Result<bool, Error> {
        let Some(table) = self.describe().await? else { return Ok(false) };
        let mut indexes = table.global_secondary_indexes().iter();
        if let Some(index) = indexes.find(|index| index.index_name() == Some(INDEX)) {
            return Ok(index.index_status() == Some(&IndexStatus::Active));
        }
        if make {
            info!(event = "owner_index_creating", table = %self.table, index = INDEX,
                "creating the index of lease owners");
            self.make_index(&table).await?;
        }
        Ok(false)
    }

    async fn make_index(&self, table: &TableDescription) -> Result<(), Error> {
        let invalid = |error: aws_sdk_dynamodb::error::BuildError| Error::Denied(error.to_string());
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let definition = |name: &str| {
            let kind = ScalarAttributeType::S;
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
        };
        // If the table has provisioned capacity, the index gets the same.
        let on_demand = table.billing_mode_summary().and_then(|billing| billing.billing_mode())
            == Some(&BillingMode::PayPerRequest);
        let capacity = table.provisioned_throughput().filter(|_| !on_demand).and_then(|capacity| {
            let (read, write) = (capacity.read_capacity_units()?, capacity.write_capacity_units()?);
            (read > 0).then(|| {
                ProvisionedThroughput::builder().read_capacity_units(read).write_capacity_units(write).build()
            })
        });
        let action = CreateGlobalSecondaryIndexAction::builder()
            .index_name(INDEX)
            .key_schema(key(item::OWNER, KeyType::Hash).map_err(invalid)?)
            .key_schema(key(item::KEY, KeyType::Range).map_err(invalid)?)
            .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
            .set_provisioned_throughput(capacity.transpose().map_err(invalid)?)
            .build()
            .map_err(invalid)?;
        let sent = self
            .client
            .update_table()
            .table_name(&self.table)
            .attribute_definitions(definition(item::OWNER).map_err(invalid)?)
            .attribute_definitions(definition(item::KEY).map_err(invalid)?)
            .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(action).build())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            // Another worker was faster; or the table is being changed, and the request is repeated.
            Err(error)
                if ["ResourceInUseException", "ValidationException", "LimitExceededException"]
                    .contains(&failure(&error).code()) =>
            {
                debug!(table = self.table, %error,
                    "failed to create the index of lease owners, retrying later");
                Ok(())
            }
            Err(error) => Err(self.classify(&error, None)),
        }
    }

    /// Deletes a row in which that attribute has that value. Java deletes without a condition; with one, a row that was
    /// created again meanwhile, or is none of that stream, is preserved.
    async fn remove(&self, key: &LeaseKey, attribute: &str, value: &str) -> Result<bool, Error> {
        let sent = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(item::KEY, item::text(&key.to_string()))
            .condition_expression("#a = :v")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":v", item::text(value))
            .send()
            .await;
        match sent.map_err(|error| self.classify(&error, Some(key))) {
            Ok(_) => Ok(true),
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn classify<E>(&self, error: &SdkError<E, HttpResponse>, written: Option<&LeaseKey>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        classify(&self.table, error, written)
    }
}

impl Table for Leases {
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
        Box::pin(self.wait_until_usable())
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
        Box::pin(self.scan())
    }

    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        Box::pin(self.read(key))
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.insert(lease))
    }

    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(self.write(key, update))
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
        Box::pin(self.owned_by(worker))
    }

    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.has_index(make))
    }

    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.remove(key, item::CHECKPOINT, Sequence::ShardEnd.as_str()))
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            match key.stream() {
                Some(stream) => self.remove(key, item::STREAM_NAME, stream.as_str()).await,
                None => Ok(false),
            }
        })
    }
}
