//! The leader's requests to move the coordinator's rows into the lease table.
//!
//! A row is moved in one transaction, which fails if another worker holds the legacy leader lock, as in Java.
//! Stricter than Java: the old row is deleted only if it is unchanged, a row that was moved before does not
//! block the others, and a row that would be taken for a lease afterwards is not moved at all. In KCL:
//! `CoordinatorStateDAODelegate`, `TableMigrationStateMachineImpl`.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, ConditionCheck, Delete, KeySchemaElement, KeyType, Put,
    ScalarAttributeType, TableStatus, TransactWriteItem,
};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::dynamodb::TABLE_WAIT;
use super::error::{classify, failure};
use super::item::{self, Item, text};
use super::state::{
    GENERATION, GENERATION_TYPE, LEADER, LOCK_OWNER, REPORT_KEY, STAGE, STAGE_TYPE, STATE_KEY, State,
    dated_item,
};
use crate::fleet::rows::{Dated, Stage, StateLocation, Word};
use crate::lease::table::Error;
use crate::lease::{LeaseKey, WorkerId};

fn invalid(error: aws_sdk_dynamodb::error::BuildError) -> Error {
    Error::Denied(error.to_string())
}

impl State {
    /// Creates the table as KCL 3.4 does. Since 3.5 no worker creates it, and a worker without it would never
    /// report.
    pub(super) async fn create_reports(&self) -> Result<(), Error> {
        info!(
            event = "worker_metrics_table_recreated",
            table = self.reports,
            "recreating the worker metrics table, which was deleted"
        );
        let key = KeySchemaElement::builder().attribute_name(REPORT_KEY).key_type(KeyType::Hash).build();
        let kind = ScalarAttributeType::S;
        let definition =
            AttributeDefinition::builder().attribute_name(REPORT_KEY).attribute_type(kind).build();
        let sent = self
            .client
            .create_table()
            .table_name(&self.reports)
            .key_schema(key.map_err(invalid)?)
            .attribute_definitions(definition.map_err(invalid)?)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await;
        match sent {
            Ok(_) => {}
            // Another worker was faster.
            Err(error) if failure(&error).code() == "ResourceInUseException" => {}
            Err(error) => return Err(classify(&self.reports, &error, None)),
        }
        let deadline = Instant::now() + TABLE_WAIT;
        let mut pause = Duration::from_millis(50);
        loop {
            let described = self.client.describe_table().table_name(&self.reports).send().await;
            let described = described.map_err(|error| classify(&self.reports, &error, None))?;
            let status = described.table.and_then(|table| table.table_status);
            if status == Some(TableStatus::Active) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (table, status) = (&self.reports, status.as_ref().map_or("missing", TableStatus::as_str));
                return Err(Error::Unavailable(format!("table {table} is {status} after {TABLE_WAIT:?}")));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    pub(super) async fn put_stage(&self, over: Option<Stage>, row: &Dated<Stage>) -> Result<(), Error> {
        let mut put = self
            .client
            .put_item()
            .table_name(&self.state)
            .set_item(Some(stage_item(row, STATE_KEY)))
            .expression_attribute_names("#c", if over.is_some() { "tm" } else { STATE_KEY });
        put = match over {
            None => put.condition_expression("attribute_not_exists(#c)"),
            Some(over) => {
                put.condition_expression("#c = :was").expression_attribute_values(":was", text(over.word()))
            }
        };
        let sent = put.send().await;
        sent.map(drop).map_err(|error| classify(&self.state, &error, Some(&STAGE.into())))
    }

    pub(super) async fn delete_stage(&self) -> Result<(), Error> {
        let sent = self
            .client
            .delete_item()
            .table_name(&self.state)
            .key(STATE_KEY, text(STAGE))
            .condition_expression("#c = :was")
            .expression_attribute_names("#c", "tm")
            .expression_attribute_values(":was", text(Stage::Init.word()))
            .send()
            .await;
        sent.map(drop).map_err(|error| classify(&self.state, &error, Some(&STAGE.into())))
    }

    /// The names of all rows except for the lock and the stage.
    pub(super) async fn left_behind(&self) -> Result<Vec<String>, Error> {
        let mut pages =
            self.client.scan().table_name(&self.state).consistent_read(true).into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&self.state, &error, None))?;
            let found = page.items().iter().filter_map(|row| item::get_text(row, STATE_KEY));
            names.extend(found.filter(|name| ![LEADER, STAGE].contains(name)).map(str::to_owned));
        }
        Ok(names)
    }

    pub(super) async fn move_row(&self, leader: &WorkerId, name: &str) -> Result<(), Error> {
        // The row was moved meanwhile.
        let Some(old) = self.row(StateLocation::Legacy, name).await? else { return Ok(()) };
        let new = moved(name, &old).ok_or_else(|| {
            Error::Denied(format!(
                "table {}: unknown row {name}, which would be mistaken for a lease in the lease table \
                 (delete it; until then the application keeps three tables)",
                self.state
            ))
        })?;
        let mut steps = vec![self.only_as_leader(leader)?];
        match self.row(StateLocation::Leases, name).await? {
            None => {
                let put = Put::builder()
                    .table_name(&self.leases)
                    .set_item(Some(new))
                    .condition_expression("attribute_not_exists(#k)")
                    .expression_attribute_names("#k", item::KEY);
                steps.push(TransactWriteItem::builder().put(put.build().map_err(invalid)?).build());
            }
            Some(there) if there == new => {}
            Some(_) => {
                return Err(Error::Denied(format!(
                    "the row {name} exists in table {} and, with different values, in table {} (delete \
                     the outdated one)",
                    self.state, self.leases
                )));
            }
        }
        steps.push(TransactWriteItem::builder().delete(self.delete_as_read(name, old)?).build());
        let sent = self.client.transact_write_items().set_transact_items(Some(steps)).send().await;
        sent.map_err(|error| classify(&self.state, &error, Some(&name.into())))?;
        info!(event = "row_moved", row = name, "moved a row into the lease table");
        Ok(())
    }

    pub(super) async fn put_last_stage(&self, leader: &WorkerId, row: &Dated<Stage>) -> Result<(), Error> {
        let put =
            |table: &str, key: &str| Put::builder().table_name(table).set_item(Some(stage_item(row, key)));
        let new = put(&self.leases, item::KEY)
            .condition_expression("attribute_not_exists(#k)")
            .expression_attribute_names("#k", item::KEY);
        let old = put(&self.state, STATE_KEY)
            .condition_expression("#c = :was")
            .expression_attribute_names("#c", "tm")
            .expression_attribute_values(":was", text(Stage::Pending.word()));
        let sent = self
            .client
            .transact_write_items()
            .transact_items(self.only_as_leader(leader)?)
            .transact_items(TransactWriteItem::builder().put(new.build().map_err(invalid)?).build())
            .transact_items(TransactWriteItem::builder().put(old.build().map_err(invalid)?).build())
            .send()
            .await;
        sent.map(drop).map_err(|error| classify(&self.state, &error, Some(&LeaseKey::from(STAGE))))
    }

    fn only_as_leader(&self, leader: &WorkerId) -> Result<TransactWriteItem, Error> {
        let check = ConditionCheck::builder()
            .table_name(&self.state)
            .key(STATE_KEY, text(LEADER))
            .condition_expression("#o = :me")
            .expression_attribute_names("#o", LOCK_OWNER)
            .expression_attribute_values(":me", text(leader.as_str()));
        Ok(TransactWriteItem::builder().condition_check(check.build().map_err(invalid)?).build())
    }

    fn delete_as_read(&self, name: &str, old: Item) -> Result<Delete, Error> {
        let mut delete = Delete::builder().table_name(&self.state).key(STATE_KEY, text(name));
        let mut conditions = Vec::new();
        for (at, (attribute, value)) in BTreeMap::from_iter(old).into_iter().enumerate() {
            conditions.push(format!("#a{at} = :a{at}"));
            delete = delete
                .expression_attribute_names(format!("#a{at}"), attribute)
                .expression_attribute_values(format!(":a{at}"), value);
        }
        delete.condition_expression(conditions.join(" AND ")).build().map_err(invalid)
    }
}

fn stage_item(row: &Dated<Stage>, key: &str) -> Item {
    let mut item = dated_item(row, "tm");
    item.insert(item::ENTITY.to_owned(), text(STAGE_TYPE));
    item.insert(key.to_owned(), text(STAGE));
    item
}

/// A row in the form of the lease table; none if it would be taken for a lease there. Rows of KCL before 3.5
/// have no type.
fn moved(name: &str, old: &Item) -> Option<Item> {
    let mut new = old.clone();
    new.remove(STATE_KEY);
    new.insert(item::KEY.to_owned(), text(name));
    if name == GENERATION {
        new.insert(item::ENTITY.to_owned(), text(GENERATION_TYPE));
    }
    item::get_text(&new, item::ENTITY).is_some_and(|kind| kind != item::LEASE).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_that_resembles_a_lease_is_not_moved() {
        let row = |kind: Option<&str>| {
            let kind = kind.map(|kind| (item::ENTITY.to_owned(), text(kind)));
            Item::from_iter(kind.into_iter().chain([(STATE_KEY.to_owned(), text("x"))]))
        };
        assert_eq!(moved("x", &row(None)), None);
        assert_eq!(moved("x", &row(Some("LEASE"))), None);
        let stream = moved("x", &row(Some("STREAM"))).unwrap();
        assert_eq!((stream.len(), &stream[item::KEY]), (2, &text("x")));
        assert_eq!(moved(GENERATION, &row(None)).unwrap()[item::ENTITY], text(GENERATION_TYPE));
    }
}
