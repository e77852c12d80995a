//! The AWS permissions that a daemon with given settings needs. `check` prints the rows of the table that
//! apply, `check --permissions` makes a policy of them, `check --aws` probes them, the documentation shows all, and
//! `deploy/policy.json` contains the same actions.

use std::fmt;

use super::keys::{kcl, own};
use super::letters;
use super::settings::Settings;
use super::streams;

/// A permission.
#[derive(Clone, Copy)]
pub struct Permission {
    /// The action, such as `kinesis:ListShards`.
    pub action: &'static str,
    /// The resource.
    pub on: On,
    /// The case in which it is needed, for the documentation.
    pub when: &'static str,
    /// How `check --aws` finds out whether it is granted.
    pub probe: Probe,
    applies: fn(&Settings) -> bool,
}

/// The resource of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// The stream.
    Stream,
    /// The stream, and its registered consumers.
    StreamAndConsumers,
    /// The registered consumers of the stream.
    Consumers,
    /// The streams of `multilangd.deadLetters`.
    LetterStreams,
    /// The lease table, and the two tables beside it that KCL 3.0 to 3.4 creates.
    Tables,
    /// The lease table.
    LeaseTable,
    /// The indexes of the lease table.
    LeaseTableIndex,
    /// Metrics, which are no resources.
    Metrics,
    /// All streams of the account.
    Account,
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "the stream",
            Self::StreamAndConsumers => "the stream and its consumers",
            Self::Consumers => "the consumers of the stream",
            Self::LetterStreams => "the stream of dead letters",
            Self::Tables => "the tables",
            Self::LeaseTable => "the lease table",
            Self::LeaseTableIndex => "the lease table's index",
            Self::Metrics => "*",
            Self::Account => "all streams of the account",
        })
    }
}

/// How `check --aws` finds out whether a permission is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// By this call, which has no effect.
    Call(&'static str),
    /// Not at all: every call would have this effect.
    Effect(&'static str),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(text) => f.write_str(text),
            Self::Effect(effect) => write!(f, "not checked: it would {effect}"),
        }
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action)
    }
}

fn lists_streams(settings: &Settings) -> bool {
    !streams::of(settings).prefixes.is_empty()
}

fn always(_: &Settings) -> bool {
    true
}

fn is_pushed(settings: &Settings) -> bool {
    settings.of(kcl::RETRIEVAL_MODE) == "FANOUT"
}

fn has_no_consumer(settings: &Settings) -> bool {
    let streams = streams::of(settings);
    let has_consumers = streams.named.iter().all(|stream| stream.consumer.is_some());
    let has_all = !streams.is_empty() && streams.prefixes.is_empty() && has_consumers;
    is_pushed(settings) && settings.of(kcl::CONSUMER_ARN).is_none() && !has_all
}

fn sends_metrics(settings: &Settings) -> bool {
    settings.of(kcl::METRICS_LEVEL) != "NONE"
}

fn writes_letters(settings: &Settings) -> bool {
    let destinations = letters::parse(&settings.of(own::DEAD_LETTERS)).unwrap_or_default();
    destinations.iter().any(|destination| matches!(destination, letters::Destination::Kinesis(_)))
}

fn writes_batches(settings: &Settings) -> bool {
    writes_letters(settings) && settings.of(own::MAX_RECORD_AGE) > 0
}

/// All permissions.
#[rustfmt::skip]
pub const PERMISSIONS: &[Permission] = &[
    Permission { action: "kinesis:ListShards", on: On::Stream, probe: Probe::Call("the call, for one shard"), when: "always", applies: always },
    Permission { action: "kinesis:GetShardIterator", on: On::Stream, probe: Probe::Call("the call, at LATEST of one shard"), when: "polling; also enhanced fan-out, which may fall back to polling", applies: always },
    Permission { action: "kinesis:GetRecords", on: On::Stream, probe: Probe::Call("the call, for one record at LATEST of one shard"), when: "polling; also enhanced fan-out, which may fall back to polling", applies: always },
    Permission { action: "kinesis:DescribeStreamSummary", on: On::Stream, probe: Probe::Call("the call"), applies: always,
        when: "always: the identity of the stream, which detects a wrong streamName and a recreated stream. While it is denied, no lease is reset, and no shard counts as ended because it is not listed" },
    Permission { action: "kinesis:DescribeStream", on: On::Stream, probe: Probe::Call("the call, where kinesis:DescribeStreamSummary is denied"), when: "instead of kinesis:DescribeStreamSummary, where that is denied", applies: |_| false },
    Permission { action: "kinesis:ListStreams", on: On::Account, probe: Probe::Call("the call"), when: "multilangd.streams with NAME*", applies: lists_streams },
    Permission { action: "kinesis:DescribeStreamConsumer", on: On::StreamAndConsumers, probe: Probe::Call("the call"), when: "enhanced fan-out, unless its ARN is set (fanoutConfig.consumerArn, multilangd.streams)", applies: has_no_consumer },
    Permission { action: "kinesis:RegisterStreamConsumer", on: On::Stream, probe: Probe::Effect("register the consumer"), when: "enhanced fan-out, unless the consumer exists, or its ARN is set (fanoutConfig.consumerArn, multilangd.streams)", applies: has_no_consumer },
    Permission { action: "kinesis:SubscribeToShard", on: On::Consumers, probe: Probe::Effect("end the subscription of the worker that reads the shard"), when: "enhanced fan-out", applies: is_pushed },
    Permission { action: "kinesis:PutRecord", on: On::LetterStreams, probe: Probe::Effect("write a record"), when: "multilangd.deadLetters = kinesis:STREAM", applies: writes_letters },
    Permission { action: "kinesis:PutRecords", on: On::LetterStreams, probe: Probe::Effect("write records"), when: "multilangd.deadLetters = kinesis:STREAM with multilangd.maxRecordAgeMillis: letters of old records are written in batches", applies: writes_batches },
    Permission { action: "dynamodb:DescribeTable", on: On::Tables, probe: Probe::Call("the call"), when: "always", applies: always },
    Permission { action: "dynamodb:CreateTable", on: On::Tables, probe: Probe::Effect("create the table"), when: "unless they exist", applies: always },
    Permission { action: "dynamodb:UpdateTable", on: On::LeaseTable, probe: Probe::Effect("change the table"), when: "unless it has the index of lease owners; leaseTableDeletionProtectionEnabled", applies: always },
    Permission { action: "dynamodb:UpdateContinuousBackups", on: On::LeaseTable, probe: Probe::Effect("change the table"), when: "leaseTablePitrEnabled", applies: |s| s.of(kcl::POINT_IN_TIME_RECOVERY) },
    Permission { action: "dynamodb:Scan", on: On::Tables, probe: Probe::Call("the call, for one row"), when: "always", applies: always },
    Permission { action: "dynamodb:Query", on: On::LeaseTableIndex, probe: Probe::Call("the call, for a worker that does not exist"), when: "lease assignment by a leader, as in KCL 3.x", applies: always },
    Permission { action: "dynamodb:GetItem", on: On::Tables, probe: Probe::Call("the call, for a row that does not exist"), when: "always", applies: always },
    Permission { action: "dynamodb:PutItem", on: On::Tables, probe: Probe::Call("the call, with a condition that no row fulfils"), when: "always", applies: always },
    Permission { action: "dynamodb:UpdateItem", on: On::Tables, probe: Probe::Call("the call, with a condition that no row fulfils"), when: "always", applies: always },
    Permission { action: "dynamodb:DeleteItem", on: On::Tables, probe: Probe::Call("the call, with a condition that no row fulfils"), when: "always", applies: always },
    Permission { action: "dynamodb:ConditionCheckItem", on: On::Tables, probe: Probe::Call("a transaction of such a condition alone"), when: "migrateAllEntitiesToLeaseTable with tables of KCL 3.0 to 3.4", applies: |s| s.of(kcl::MIGRATE_TABLES) },
    Permission { action: "cloudwatch:PutMetricData", on: On::Metrics, probe: Probe::Effect("send a metric"), when: "unless metricsLevel = NONE", applies: sends_metrics },
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
