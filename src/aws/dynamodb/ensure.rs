//! Creates the lease table if it does not exist, and waits until it is usable.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus,
};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{Leases, TABLE_WAIT};
use crate::aws::error::failure;
use crate::aws::item;
use crate::clock::wall_millis;
use crate::lease::table::{Error, Found};

impl Leases {
    /// Creates the table with one key, billed on demand, which is KCL's default. Returns whether this call created
    /// it.
    async fn create_table(&self) -> Result<bool, Error> {
        info!(event = "lease_table_creating", table = self.table, "creating the lease table");
        let key = KeySchemaElement::builder().attribute_name(item::KEY).key_type(KeyType::Hash).build();
        let definition = AttributeDefinition::builder()
            .attribute_name(item::KEY)
            .attribute_type(ScalarAttributeType::S)
            .build();
        let invalid = |error: aws_sdk_dynamodb::error::BuildError| Error::Denied(error.to_string());
        let sent = self
            .client
            .create_table()
            .table_name(&self.table)
            .key_schema(key.map_err(invalid)?)
            .attribute_definitions(definition.map_err(invalid)?)
            .billing_mode(BillingMode::PayPerRequest)
            .deletion_protection_enabled(self.options.protected)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            // Another worker was faster.
            Err(error) if failure(&error).code() == "ResourceInUseException" => Ok(false),
            Err(error) => Err(self.classify(&error, None)),
        }
    }

    pub(in crate::aws) fn check_shape(&self, table: &TableDescription) -> Result<(), Error> {
        let keys: Vec<(&str, &KeyType)> =
            table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
        let types = table.attribute_definitions().iter();
        let key_type = types.filter(|a| a.attribute_name() == item::KEY).map(|a| a.attribute_type()).next();
        if keys == [(item::KEY, &KeyType::Hash)] && key_type == Some(&ScalarAttributeType::S) {
            return Ok(());
        }
        let found: Vec<String> = keys.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        Err(Error::Shape { table: self.table.clone(), found: format!("its key is {}", found.join(", ")) })
    }

    /// Checks whether a failed read is caused by the table's key: DynamoDB answers reads in a table with
    /// another key with a ValidationException that names no table.
    ///
    /// # Errors
    /// [`Error::Shape`] for a table that is no lease table; another error if it cannot be described.
    pub async fn verify_key(&self) -> Result<(), Error> {
        match self.describe().await? {
            Some(table) => self.check_shape(&table),
            None => Err(Error::Missing(self.table.clone())),
        }
    }

    pub(super) async fn wait_until_usable(&self) -> Result<Found, Error> {
        let deadline = Instant::now() + TABLE_WAIT;
        let mut pause = Duration::from_millis(50);
        // A table that is being deleted is created again once it is gone.
        let (mut found, mut created) = (None, false);
        let mut waited_for = None;
        loop {
            let status = match self.describe().await? {
                Some(table) => {
                    self.check_shape(&table)?;
                    found.get_or_insert_with(|| Found::Existed(age(&table)));
                    table.table_status
                }
                None if created => None,
                None => {
                    let by_this_call = self.create_table().await?;
                    found = Some(if by_this_call { Found::Created } else { Found::Existed(Duration::ZERO) });
                    created = true;
                    continue;
                }
            };
            let Some(status) = waiting(status) else {
                self.recovery_due.store(self.options.recoverable, Ordering::Relaxed);
                return Ok(found.unwrap_or(Found::Created));
            };
            if Instant::now() >= deadline {
                let hint = hint(&status);
                return Err(Error::Unavailable(format!(
                    "table {} is {status} after {TABLE_WAIT:?}{hint}",
                    self.table
                )));
            }
            if waited_for.as_ref() != Some(&status) {
                let hint = hint(&status);
                info!(
                    event = "lease_table_not_active",
                    table = self.table,
                    "waiting for the lease table to become ACTIVE, its status is {status}{hint}"
                );
                waited_for = Some(status);
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

/// The time since the table was created, by the clocks of DynamoDB and of this host. Long ago, if DynamoDB does
/// not say.
fn age(table: &TableDescription) -> Duration {
    let created = table.creation_date_time().and_then(|created| created.to_millis().ok());
    let since = created.map(|created| wall_millis().saturating_sub(created).max(0).unsigned_abs());
    since.map_or(Duration::MAX, Duration::from_millis)
}

/// The table state to be waited for; none if the table is usable.
fn waiting(status: Option<TableStatus>) -> Option<String> {
    match status {
        Some(TableStatus::Active | TableStatus::Updating) => None,
        Some(status) => Some(status.as_str().to_owned()),
        None => Some("not created yet".to_owned()),
    }
}

/// The action that ends a table state that is not temporary.
fn hint(status: &str) -> &'static str {
    match status {
        "INACCESSIBLE_ENCRYPTION_CREDENTIALS" => {
            " (DynamoDB cannot use the table's KMS key: enable the key, or grant DynamoDB access to it)"
        }
        "ARCHIVING" | "ARCHIVED" => {
            " (DynamoDB archived the table because its KMS key was inaccessible for 7 days: restore it from its backup, \
             or delete it)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unusable_table_state_is_named() {
        assert_eq!(waiting(Some(TableStatus::Active)), None);
        assert_eq!(waiting(Some(TableStatus::Updating)), None);
        for status in TableStatus::values().iter().filter(|name| !["ACTIVE", "UPDATING"].contains(name)) {
            assert_eq!(waiting(Some(TableStatus::from(*status))).as_deref(), Some(*status));
        }
        assert_eq!(waiting(Some(TableStatus::from("NEW_STATE"))).as_deref(), Some("NEW_STATE"));
        assert!(waiting(None).is_some());
    }

    #[test]
    fn permanent_table_states_have_a_hint() {
        let passing = ["CREATING", "DELETING", "ACTIVE", "UPDATING", "REPLICATION_NOT_AUTHORIZED"];
        for status in TableStatus::values() {
            assert_eq!(hint(status).is_empty(), passing.contains(status), "{status}");
        }
    }
}
