//! The coordinator's rows in DynamoDB: in the lease table, or in the two tables of KCL before 3.5.
//!
//! In KCL: `CoordinatorStateDAO`, `WorkerMetricStatsDAO`, and the DynamoDB lock client.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tracing::warn;

use super::error::{Failure, classify, failure};
use super::item::{self, Item, number, text};
use crate::fleet::lock;
use crate::fleet::rows::{Dated, Entry, Generation, Lock, Report, Stage, StateLocation, Word};
use crate::fleet::store::{Generations, LeaderLock, Legacy, LockWrite, Over, Reports, TableMigration};
use crate::lease::table::Error;
use crate::lease::{LeaseKey, WorkerId};
use crate::shard::BoxFuture;

/// The key attribute of the tables before KCL 3.5.
pub(super) const STATE_KEY: &str = "key";
pub(super) const REPORT_KEY: &str = "wid";

pub(super) const LEADER: &str = "Leader";
pub(super) const GENERATION: &str = "Migration3.0";
pub(super) const STAGE: &str = "TableMigration3.5";

/// The `entityType` of rows that are no leases.
const LEADER_TYPE: &str = "LEADER";
pub(super) const GENERATION_TYPE: &str = "CLIENT_VERSION_MIGRATION";
pub(super) const STAGE_TYPE: &str = "TABLE_MIGRATION";
const REPORT_TYPE: &str = "WORKER_METRIC_STATS";
/// All values of `entityType` on rows that are no leases.
pub(super) const KINDS: [&str; 4] = [LEADER_TYPE, GENERATION_TYPE, STAGE_TYPE, REPORT_TYPE];

pub(super) const LOCK_OWNER: &str = "ownerName";
const LOCK_LEASE: &str = "leaseDuration";
const LOCK_VERSION: &str = "recordVersionNumber";
const LOCK_RELEASED: &str = "isReleased";

const REPORT_TIME: &str = "lut";
const REPORT_SAMPLES: &str = "sts";
const REPORT_LIMITS: &str = "opr";
const REPORT_SUPPORT: &str = "sup";
const REPORT_SUPPORT_TIME: &str = "slu";
/// An attribute of multilangd, which every version of KCL ignores.
const REPORT_MOST: &str = "multilangdMaxLeases";

/// The coordinator's rows of one application.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) client: Client,
    pub(super) leases: String,
    pub(super) state: String,
    pub(super) reports: String,
}

impl State {
    /// `leases` is the lease table; `state` and `reports` are the tables of KCL before 3.5, which need not
    /// exist.
    pub fn new(client: Client, leases: String, state: String, reports: String) -> Self {
        Self { client, leases, state, reports }
    }

    /// The table of the coordinator's rows, and its key attribute.
    fn states(&self, place: StateLocation) -> (&str, &'static str) {
        match place {
            StateLocation::Legacy => (&self.state, STATE_KEY),
            StateLocation::Leases => (&self.leases, item::KEY),
        }
    }

    fn reports_table(&self, place: StateLocation) -> (&str, &'static str) {
        match place {
            StateLocation::Legacy => (&self.reports, REPORT_KEY),
            StateLocation::Leases => (&self.leases, item::KEY),
        }
    }

    async fn exists(&self, table: &str) -> Result<bool, Error> {
        match self.client.describe_table().table_name(table).send().await {
            Ok(_) => Ok(true),
            Err(error) if failure(&error).code() == "ResourceNotFoundException" => Ok(false),
            Err(error) => {
                let classified = classify(table, &error, None);
                let is_denied = matches!(classified, Error::Denied(_));
                Err(if is_denied {
                    denied("dynamodb:DescribeTable", table, &failure(&error))
                } else {
                    classified
                })
            }
        }
    }

    pub(super) async fn row(&self, place: StateLocation, name: &str) -> Result<Option<Item>, Error> {
        let (table, key) = self.states(place);
        let sent =
            self.client.get_item().table_name(table).key(key, text(name)).consistent_read(true).send().await;
        match sent {
            Ok(answer) => Ok(answer.item),
            // The table does not exist, so the row does not either.
            Err(error) if is_absent(&error, place) => Ok(None),
            Err(error) => Err(classify(table, &error, None)),
        }
    }

    async fn dated<T: Word>(
        &self,
        place: StateLocation,
        name: &str,
        state: &str,
    ) -> Result<Option<Dated<T>>, Error> {
        let Some(item) = self.row(place, name).await? else { return Ok(None) };
        let (table, _) = self.states(place);
        let read = dated(&item, state)
            .ok_or_else(|| Error::Denied(format!("table {table}: failed to decode the row {name}")))?;
        Ok(Some(read))
    }

    async fn lock_write(&self, place: StateLocation, write: &LockWrite) -> Result<(), Error> {
        let (table, key) = self.states(place);
        let row: LeaseKey = LEADER.into();
        let fault = match write {
            LockWrite::Acquire { row: lock, over } => {
                let mut item = lock_item(lock);
                item.insert(key.to_owned(), text(LEADER));
                let mut put = self
                    .client
                    .put_item()
                    .table_name(table)
                    .set_item(Some(item))
                    .expression_attribute_names("#k", key);
                put = match over {
                    Over::Nothing => put.condition_expression("attribute_not_exists(#k)"),
                    Over::Released => put
                        .condition_expression("attribute_exists(#k) AND #r = :r")
                        .expression_attribute_names("#r", LOCK_RELEASED)
                        .expression_attribute_values(":r", text("1")),
                    Over::Stale(version) => put
                        .condition_expression("attribute_exists(#k) AND #v = :v")
                        .expression_attribute_names("#v", LOCK_VERSION)
                        .expression_attribute_values(":v", text(version)),
                    // A lock that was acquired since has a version.
                    Over::Broken => put
                        .condition_expression("attribute_exists(#k) AND NOT attribute_type(#v, :s)")
                        .expression_attribute_names("#v", LOCK_VERSION)
                        .expression_attribute_values(":s", text("S")),
                };
                put.send().await.err().map(|error| classify(table, &error, Some(&row)))
            }
            LockWrite::Beat { row: lock, was } => {
                let sent = self
                    .client
                    .update_item()
                    .table_name(table)
                    .key(key, text(LEADER))
                    .update_expression("SET #d = :d, #v = :new")
                    .condition_expression("attribute_exists(#k) AND #v = :v AND #o = :o")
                    .expression_attribute_names("#k", key)
                    .expression_attribute_names("#d", LOCK_LEASE)
                    .expression_attribute_names("#v", LOCK_VERSION)
                    .expression_attribute_names("#o", LOCK_OWNER)
                    .expression_attribute_values(":d", text(&lock.lease.as_millis().to_string()))
                    .expression_attribute_values(":new", text(&lock.version))
                    .expression_attribute_values(":v", text(was))
                    .expression_attribute_values(":o", text(lock.owner.as_str()))
                    .send()
                    .await;
                sent.err().map(|error| classify(table, &error, Some(&row)))
            }
            LockWrite::Release { owner, was } => {
                let sent = self
                    .client
                    .delete_item()
                    .table_name(table)
                    .key(key, text(LEADER))
                    .condition_expression("attribute_exists(#k) AND #v = :v AND #o = :o")
                    .expression_attribute_names("#k", key)
                    .expression_attribute_names("#v", LOCK_VERSION)
                    .expression_attribute_names("#o", LOCK_OWNER)
                    .expression_attribute_values(":v", text(was))
                    .expression_attribute_values(":o", text(owner.as_str()))
                    .send()
                    .await;
                sent.err().map(|error| classify(table, &error, Some(&row)))
            }
        };
        fault.map_or(Ok(()), Err)
    }

    async fn put_generation(
        &self,
        place: StateLocation,
        over: Option<Generation>,
        row: &Dated<Generation>,
    ) -> Result<(), Error> {
        let (table, key) = self.states(place);
        let mut item = dated_item(row, "cv");
        item.insert(item::ENTITY.to_owned(), text(GENERATION_TYPE));
        let name: LeaseKey = GENERATION.into();
        let Some(over) = over else {
            item.insert(key.to_owned(), text(GENERATION));
            let sent = self
                .client
                .put_item()
                .table_name(table)
                .set_item(Some(item))
                .condition_expression("attribute_not_exists(#k)")
                .expression_attribute_names("#k", key)
                .send()
                .await;
            return sent.map(drop).map_err(|error| classify(table, &error, Some(&name)));
        };
        // By attribute, so that attributes of later versions are preserved.
        let update = self
            .client
            .update_item()
            .table_name(table)
            .key(key, text(GENERATION))
            .condition_expression("attribute_exists(#k) AND #cv = :was")
            .expression_attribute_names("#k", key)
            .expression_attribute_values(":was", text(over.word()));
        let sent = set_all(update, item).send().await;
        sent.map(drop).map_err(|error| classify(table, &error, Some(&name)))
    }

    async fn all_reports(&self, place: StateLocation) -> Result<Vec<Report>, Error> {
        let (table, key) = self.reports_table(place);
        let mut scan = self.client.scan().table_name(table);
        if place == StateLocation::Leases {
            scan = scan
                .filter_expression("#e = :e")
                .expression_attribute_names("#e", item::ENTITY)
                .expression_attribute_values(":e", text(REPORT_TYPE));
        }
        let mut pages = scan.into_paginator().send();
        let mut reports = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => reports.extend(page.items().iter().filter_map(|found| report(found, key))),
                Err(error) if is_absent(&error, place) => return Ok(Vec::new()),
                Err(error) => return Err(classify(table, &error, None)),
            }
        }
        Ok(reports)
    }

    async fn put_report(&self, place: StateLocation, report: &Report) -> Result<(), Error> {
        let (table, key) = self.reports_table(place);
        let update = self.client.update_item().table_name(table).key(key, text(&report.worker));
        let mut update = set_all(update, report_item(report));
        if report.most.is_none() {
            // An earlier process with this id may have had a limit.
            let sets = update.get_update_expression().clone().unwrap_or_default();
            update = update
                .update_expression(format!("{sets} REMOVE #{REPORT_MOST}"))
                .expression_attribute_names(format!("#{REPORT_MOST}"), REPORT_MOST);
        }
        let sent = update.send().await;
        sent.map(drop).map_err(|error| classify(table, &error, Some(&report.worker.as_str().into())))
    }

    async fn delete_report(&self, place: StateLocation, worker: &str, at: i64) -> Result<bool, Error> {
        let (table, key) = self.reports_table(place);
        let sent = self
            .client
            .delete_item()
            .table_name(table)
            .key(key, text(worker))
            .condition_expression("attribute_exists(#k) AND #t = :t")
            .expression_attribute_names("#k", key)
            .expression_attribute_names("#t", REPORT_TIME)
            .expression_attribute_values(":t", number(at))
            .send()
            .await;
        match sent.map_err(|error| classify(table, &error, Some(&worker.into()))) {
            Ok(_) => Ok(true),
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl LeaderLock for State {
    fn lock(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Lock>, Error>> {
        Box::pin(async move {
            let Some(item) = self.row(place, LEADER).await? else { return Ok(None) };
            Ok(Some(lock(&item)))
        })
    }

    fn write_lock<'a>(
        &'a self,
        place: StateLocation,
        write: &'a LockWrite,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.lock_write(place, write))
    }
}

impl Generations for State {
    fn generation(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Dated<Generation>>, Error>> {
        Box::pin(self.dated(place, GENERATION, "cv"))
    }

    fn write_generation<'a>(
        &'a self,
        place: StateLocation,
        over: Option<Generation>,
        row: &'a Dated<Generation>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.put_generation(place, over, row))
    }
}

impl Reports for State {
    fn make_reports(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.create_reports())
    }

    fn reports(&self, place: StateLocation) -> BoxFuture<'_, Result<Vec<Report>, Error>> {
        Box::pin(self.all_reports(place))
    }

    fn report<'a>(&'a self, place: StateLocation, report: &'a Report) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.put_report(place, report))
    }

    fn retract<'a>(
        &'a self,
        place: StateLocation,
        worker: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.delete_report(place, worker, at))
    }
}

impl TableMigration for State {
    fn legacy(&self) -> BoxFuture<'_, Result<Legacy, Error>> {
        Box::pin(async {
            let state = self.exists(&self.state).await?;
            Ok(Legacy { state, reports: state && self.exists(&self.reports).await? })
        })
    }

    fn stage(&self) -> BoxFuture<'_, Result<Option<Dated<Stage>>, Error>> {
        Box::pin(self.dated(StateLocation::Legacy, STAGE, "tm"))
    }

    fn write_stage<'a>(
        &'a self,
        over: Option<Stage>,
        row: &'a Dated<Stage>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.put_stage(over, row))
    }

    fn withdraw_stage(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.delete_stage())
    }

    fn left(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(self.left_behind())
    }

    fn relocate<'a>(&'a self, leader: &'a WorkerId, names: &'a [String]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            for name in names {
                self.move_row(leader, name).await?;
            }
            Ok(())
        })
    }

    fn finish<'a>(&'a self, leader: &'a WorkerId, row: &'a Dated<Stage>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.put_last_stage(leader, row))
    }
}

/// Whether a table of an earlier version does not exist, which is no error.
fn is_absent<E>(error: &SdkError<E, HttpResponse>, place: StateLocation) -> bool
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    place == StateLocation::Legacy && failure(error).code() == "ResourceNotFoundException"
}

/// Sets all attributes of an item, and leaves others unchanged.
fn set_all(mut update: UpdateItemFluentBuilder, item: Item) -> UpdateItemFluentBuilder {
    let mut clauses = Vec::new();
    for (name, value) in BTreeMap::from_iter(item) {
        clauses.push(format!("#{name} = :{name}"));
        update = update
            .expression_attribute_names(format!("#{name}"), &name)
            .expression_attribute_values(format!(":{name}"), value);
    }
    update.update_expression(format!("SET {}", clauses.join(", ")))
}

fn lock_item(lock: &Lock) -> Item {
    Item::from([
        (item::ENTITY.to_owned(), text(LEADER_TYPE)),
        (LOCK_OWNER.to_owned(), text(lock.owner.as_str())),
        // As text: a number would make the check of every Java worker throw.
        (LOCK_LEASE.to_owned(), text(&lock.lease.as_millis().to_string())),
        (LOCK_VERSION.to_owned(), text(&lock.version)),
    ])
}

/// A lock row. If attributes are missing it counts as a lock with the longest duration: it may be taken over
/// once it has not changed for that time. Java throws at such a row.
fn lock(item: &Item) -> Lock {
    let millis = || {
        let value = item.get(LOCK_LEASE)?;
        value.as_s().or(value.as_n()).ok()?.trim().parse().ok()
    };
    Lock {
        owner: item::get_text(item, LOCK_OWNER).unwrap_or_default().into(),
        lease: millis().map_or(lock::JAVA, Duration::from_millis),
        version: item::get_text(item, LOCK_VERSION).unwrap_or_default().to_owned(),
        released: item.contains_key(LOCK_RELEASED),
    }
}

/// The error for a missing permission, with the action to allow.
fn denied(action: &str, table: &str, failure: &Failure) -> Error {
    Error::Denied(format!("table {table}: {failure} (allow {action} on this table)"))
}

pub(super) fn dated_item<T: Word>(row: &Dated<T>, state: &str) -> Item {
    let mut item = entry_item(&row.now, state);
    if !row.past.is_empty() {
        let past = row.past.iter().map(|entry| AttributeValue::M(entry_item(entry, state))).collect();
        item.insert("h".to_owned(), AttributeValue::L(past));
    }
    item
}

fn entry_item<T: Word>(entry: &Entry<T>, state: &str) -> Item {
    Item::from([
        (state.to_owned(), text(entry.state.word())),
        ("mb".to_owned(), text(&entry.by)),
        ("mts".to_owned(), number(entry.at)),
    ])
}

fn dated<T: Word>(item: &Item, state: &str) -> Option<Dated<T>> {
    let entry = |item: &Item| {
        Some(Entry {
            state: T::parse(item::get_text(item, state)?)?,
            by: item::get_text(item, "mb").unwrap_or_default().to_owned(),
            at: item::get_number(item, "mts").unwrap_or_default(),
        })
    };
    let past = item.get("h").and_then(|past| past.as_l().ok()).map(Vec::as_slice).unwrap_or_default();
    // Unreadable entries of the history are not needed.
    let past = past.iter().filter_map(|one| entry(one.as_m().ok()?)).collect();
    Some(Dated { now: entry(item)?, past })
}

fn report_item(report: &Report) -> Item {
    let lists = |lists: &BTreeMap<String, Vec<f64>>| {
        let entries = lists
            .iter()
            .map(|(name, values)| (name.clone(), AttributeValue::L(values.iter().map(number).collect())));
        AttributeValue::M(HashMap::from_iter(entries))
    };
    let mut item = Item::from([(item::ENTITY.to_owned(), text(REPORT_TYPE))]);
    let attributes = [
        (REPORT_TIME, report.at.map(number)),
        (REPORT_SAMPLES, report.samples.as_ref().map(lists)),
        (REPORT_LIMITS, report.limits.as_ref().map(lists)),
        (REPORT_SUPPORT, report.support.map(number)),
        (REPORT_SUPPORT_TIME, report.support_at.map(number)),
        (REPORT_MOST, report.most.map(number)),
    ];
    item.extend(attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    item
}

/// A worker's row; none if it has no name. Unreadable attributes count as absent, and the leader decides
/// about that.
fn report(item: &Item, key: &str) -> Option<Report> {
    let worker = item::get_text(item, key)?.to_owned();
    let lists = |name: &str| {
        let lists = item.get(name)?.as_m().ok()?.iter().map(|(metric, values)| {
            let values = values.as_l().ok()?.iter().map(|value| value.as_n().ok()?.parse::<f64>().ok());
            Some((metric.clone(), values.collect::<Option<Vec<f64>>>()?))
        });
        let lists = lists.collect::<Option<BTreeMap<_, _>>>();
        if lists.is_none() {
            warn!(
                event = "worker_metrics_unreadable",
                worker,
                attribute = name,
                "failed to decode the worker metrics of a worker, ignoring them"
            );
        }
        lists
    };
    Some(Report {
        at: item::get_number(item, REPORT_TIME),
        samples: lists(REPORT_SAMPLES),
        limits: lists(REPORT_LIMITS),
        support: item::get_number(item, REPORT_SUPPORT),
        support_at: item::get_number(item, REPORT_SUPPORT_TIME),
        most: item::get_number(item, REPORT_MOST).and_then(|most| usize::try_from(most).ok()),
        worker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::report::Recorder;

    #[test]
    fn written_rows_are_read_unchanged() {
        let row = Lock {
            owner: "w".into(),
            lease: Duration::from_millis(12_000),
            version: "131ddde0".into(),
            released: false,
        };
        assert_eq!(lock_item(&row)[LOCK_LEASE], text("12000"));
        assert_eq!(lock(&lock_item(&row)), row);
        let row = Dated::first(Generation::ThreeX, Generation::Init, &"w".into(), 1_795_404_893_186);
        assert_eq!(dated(&dated_item(&row, "cv"), "cv"), Some(row));
        let mut recorder = Recorder::new(true, 10);
        recorder.sample(12.345_678);
        for most in [None, Some(0), Some(250)] {
            let row = Report { most, ..recorder.report(&"w".into(), 7) };
            let mut item = report_item(&row);
            item.insert(item::KEY.into(), text("w"));
            assert_eq!(item.contains_key(REPORT_MOST), most.is_some());
            assert_eq!(report(&item, item::KEY), Some(row.clone()));
            item.insert(REPORT_MOST.into(), number(-1));
            assert_eq!(report(&item, item::KEY), Some(Report { most: None, ..row }));
        }
    }

    #[test]
    fn lock_row_with_missing_or_numeric_attributes_is_read() {
        let whole = Lock {
            owner: "w".into(),
            lease: Duration::from_millis(12_000),
            version: "131ddde0".into(),
            released: false,
        };
        let mut numeric = lock_item(&whole);
        numeric.insert(LOCK_LEASE.to_owned(), number(12_000));
        assert_eq!(lock(&numeric), whole);
        let without = |name: &str| {
            let mut item = lock_item(&whole);
            item.remove(name);
            lock(&item)
        };
        assert_eq!(without(LOCK_LEASE), Lock { lease: lock::JAVA, ..whole.clone() });
        assert_eq!(without(LOCK_OWNER), Lock { owner: "".into(), ..whole.clone() });
        assert!(without(LOCK_VERSION).is_broken());
    }

    #[test]
    fn limits_are_whole_numbers() {
        let item = report_item(&Recorder::farewell(&"w".into(), 7));
        let limits = item[REPORT_LIMITS].as_m().unwrap();
        assert_eq!(limits["C"], AttributeValue::L(vec![AttributeValue::N("100".into())]));
        let samples = item[REPORT_SAMPLES].as_m().unwrap();
        assert_eq!(samples["C"], AttributeValue::L(vec![AttributeValue::N("-1".into())]));
    }
}
