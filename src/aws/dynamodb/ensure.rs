//! The lease table made if it is missing, and waited for.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{Leases, TABLE_WAIT};
use crate::aws::error::failure;
use crate::aws::item;
use crate::lease::table::Error;

impl Leases {
    /// One key and nothing else; billed on demand, as KCL's default.
    async fn create_table(&self) -> Result<(), Error> {
        info!(table = self.table, "creating the lease table");
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
            Ok(_) => Ok(()),
            // Another worker was faster.
            Err(error) if failure(&error).code() == "ResourceInUseException" => Ok(()),
            Err(error) => Err(self.classify(&error, None)),
        }
    }

    fn check_shape(&self, table: &TableDescription) -> Result<(), Error> {
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

    pub(super) async fn wait_until_usable(&self) -> Result<(), Error> {
        let deadline = Instant::now() + TABLE_WAIT;
        let mut pause = Duration::from_millis(50);
        let mut made = false;
        loop {
            let status = match self.describe().await? {
                Some(table) => {
                    self.check_shape(&table)?;
                    table.table_status
                }
                None if made => None,
                None => {
                    self.create_table().await?;
                    made = true;
                    continue;
                }
            };
            match status {
                Some(TableStatus::Active | TableStatus::Updating) => {
                    self.make_recoverable().await;
                    return Ok(());
                }
                status if Instant::now() >= deadline => {
                    return Err(Error::Unavailable(format!(
                        "table {} is {status:?} after {TABLE_WAIT:?}",
                        self.table
                    )));
                }
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}
