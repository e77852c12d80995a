//! The AWS permissions that a daemon with given settings needs. `check` prints the rows of the table that
//! apply, the README shows all, and `deploy/policy.json` contains the same actions.

use super::keys::own;
use super::letters;
use super::settings::Settings;

/// A permission.
#[derive(Clone, Copy)]
pub struct Permission {
    /// The action, such as `kinesis:ListShards`.
    pub action: &'static str,
    /// The resource.
    pub on: &'static str,
    /// The case in which it is needed, for the documentation.
    pub when: &'static str,
    applies: fn(&Settings) -> bool,
}

impl std::fmt::Debug for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.action)
    }
}

fn always(_: &Settings) -> bool {
    true
}

fn is_pushed(settings: &Settings) -> bool {
    settings.text("retrievalMode").as_deref() == Some("FANOUT")
}

fn has_no_consumer(settings: &Settings) -> bool {
    is_pushed(settings) && settings.text("fanoutConfig.consumerArn").is_none()
}

fn sends_metrics(settings: &Settings) -> bool {
    settings.text("metricsLevel").as_deref() != Some("NONE")
}

fn writes_letters(settings: &Settings) -> bool {
    let destinations =
        letters::parse(&settings.text(own::DEAD_LETTERS).unwrap_or_default()).unwrap_or_default();
    destinations.iter().any(|destination| matches!(destination, letters::Destination::Kinesis(_)))
}

fn writes_batches(settings: &Settings) -> bool {
    writes_letters(settings) && settings.number(own::MAX_RECORD_AGE) > 0
}

/// All permissions.
#[rustfmt::skip]
pub const PERMISSIONS: &[Permission] = &[
    Permission { action: "kinesis:ListShards", on: "the stream", when: "always", applies: always },
    Permission { action: "kinesis:GetShardIterator", on: "the stream", when: "polling; also enhanced fan-out, which may fall back to polling", applies: always },
    Permission { action: "kinesis:GetRecords", on: "the stream", when: "polling; also enhanced fan-out, which may fall back to polling", applies: always },
    Permission { action: "kinesis:DescribeStreamSummary", on: "the stream", applies: always,
        when: "always: the identity of the stream, which detects a wrong streamName and a recreated stream. While it is denied, no lease is reset, and no shard counts as ended because it is not listed" },
    Permission { action: "kinesis:DescribeStream", on: "the stream", when: "instead of kinesis:DescribeStreamSummary, where that is denied", applies: |_| false },
    Permission { action: "kinesis:DescribeStreamConsumer", on: "the stream and its consumers", when: "enhanced fan-out, unless fanoutConfig.consumerArn is set", applies: has_no_consumer },
    Permission { action: "kinesis:RegisterStreamConsumer", on: "the stream", when: "enhanced fan-out, unless fanoutConfig.consumerArn is set or the consumer exists", applies: has_no_consumer },
    Permission { action: "kinesis:SubscribeToShard", on: "the consumers of the stream", when: "enhanced fan-out", applies: is_pushed },
    Permission { action: "kinesis:PutRecord", on: "the stream of dead letters", when: "multilangd.deadLetters = kinesis:STREAM", applies: writes_letters },
    Permission { action: "kinesis:PutRecords", on: "the stream of dead letters", when: "multilangd.deadLetters = kinesis:STREAM with multilangd.maxRecordAgeMillis: letters of old records are written in batches", applies: writes_batches },
    Permission { action: "dynamodb:DescribeTable", on: "the tables", when: "always", applies: always },
    Permission { action: "dynamodb:CreateTable", on: "the tables", when: "unless they exist", applies: always },
    Permission { action: "dynamodb:UpdateTable", on: "the lease table", when: "unless it has the index of lease owners; leaseTableDeletionProtectionEnabled", applies: always },
    Permission { action: "dynamodb:UpdateContinuousBackups", on: "the lease table", when: "leaseTablePitrEnabled", applies: |s| s.is("leaseTablePitrEnabled") },
    Permission { action: "dynamodb:Scan", on: "the tables", when: "always", applies: always },
    Permission { action: "dynamodb:Query", on: "the lease table's index", when: "lease assignment by a leader, as in KCL 3.x", applies: always },
    Permission { action: "dynamodb:GetItem", on: "the tables", when: "always", applies: always },
    Permission { action: "dynamodb:PutItem", on: "the tables", when: "always", applies: always },
    Permission { action: "dynamodb:UpdateItem", on: "the tables", when: "always", applies: always },
    Permission { action: "dynamodb:DeleteItem", on: "the tables", when: "always", applies: always },
    Permission { action: "dynamodb:ConditionCheckItem", on: "the tables", when: "migrateAllEntitiesToLeaseTable with tables of KCL 3.0 to 3.4", applies: |s| s.is("migrateAllEntitiesToLeaseTable") },
    Permission { action: "cloudwatch:PutMetricData", on: "*", when: "unless metricsLevel = NONE", applies: sends_metrics },
];

/// The permissions that these settings need.
pub fn needed(settings: &Settings) -> impl Iterator<Item = &'static Permission> {
    PERMISSIONS.iter().filter(|permission| (permission.applies)(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::{Given, resolve};

    #[test]
    fn needed_permissions_follow_the_settings() {
        let of = |more: &str| {
            let file =
                format!("executableName = p\nstreamName = s\napplicationName = app\nregionName = r\n{more}");
            let settings = resolve(&Given { bytes: file.into_bytes(), ..Given::default() }).settings;
            needed(&settings).map(|permission| permission.action).collect::<Vec<_>>()
        };
        let polled = of("retrievalMode = POLLING\nmetricsLevel = NONE\n");
        assert!(polled.contains(&"kinesis:DescribeStreamSummary"), "{polled:?}");
        assert!(
            !polled.contains(&"kinesis:SubscribeToShard") && !polled.contains(&"cloudwatch:PutMetricData")
        );
        let pushed = of("retrievalMode = FANOUT\nleaseTablePitrEnabled = true\n");
        assert!(pushed.contains(&"kinesis:RegisterStreamConsumer"), "{pushed:?}");
        assert!(pushed.contains(&"dynamodb:UpdateContinuousBackups"));
        assert!(
            !polled.contains(&"kinesis:PutRecord")
                && of("multilangd.deadLetters = kinesis:l\n").contains(&"kinesis:PutRecord")
        );
        let aged = of("multilangd.deadLetters = kinesis:l\nmultilangd.maxRecordAgeMillis = 1\n");
        let bad = of("multilangd.deadLetters = kinesis:l\n");
        assert!(aged.contains(&"kinesis:PutRecords") && !bad.contains(&"kinesis:PutRecords"));
        let arn = of("retrievalMode = FANOUT\nfanoutConfig.consumerArn = arn\n");
        assert!(
            arn.contains(&"kinesis:SubscribeToShard") && !arn.contains(&"kinesis:RegisterStreamConsumer")
        );
    }
}
