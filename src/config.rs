//! The configuration: a properties file becomes a [`Config`], or a list of all its errors.
//!
//! | module | holds |
//! |---|---|
//! | [`keys`] | the tables of keys, one row each |
//! | [`bean`] | the file's pairs set one after the other, as in Java's configuration object |
//! | [`value`] | parsing of a value by its type |
//! | [`credentials`] | parsing of a credentials key into a list of providers |
//! | [`letters`] | the values for dead letters |
//! | [`expand`] | `${NAME}`, if enabled |
//! | [`resolve`] | defaults, derived settings, limits; all errors and warnings at once |
//! | `made` | valid settings into the [`Config`] |
//! | [`sdk`] | AWS settings outside the file: system properties, the environment, the profile, proxies |
//! | [`permissions`] | the AWS permissions that a file needs |
//! | [`policy`] | these permissions as an IAM policy |
//! | [`diff`] | the settings that differ from their defaults |
//! | [`settings`] | all settings in force with their sources, as `check` prints them |
//! | [`several`] | conflicts between the files of one process |
//!
//! All stages are pure, so that every error is known before anything starts. In KCL:
//! `MultiLangDaemonConfiguration`, `MultiLangDaemonConfig`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::fleet::version::Configured;
use crate::fleet::{leader, report};
use crate::lease::WorkerId;
use crate::lease::sync::InitialPosition;
use crate::metrics::cloudwatch;
use crate::retrieval::registration;
use crate::stream::{ConfiguredArn, Selection};

mod arn;
pub mod bean;
pub mod credentials;
pub mod diff;
pub mod expand;
pub mod keys;
pub mod letters;
mod made;
mod names;
pub mod permissions;
pub mod policy;
mod position;
pub mod resolve;
pub mod sdk;
pub mod settings;
pub mod several;
pub mod streams;
pub mod value;

use credentials::Provider;

/// All settings in force, by the key that sets them.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `applicationName`.
    pub application: String,
    /// `streamName`, or the name within `streamArn`; the names of several streams, separated by commas.
    pub stream: String,
    /// `multilangd.streams`; none to read one stream.
    pub streams: Selection,
    /// `multilangd.deleteFormerStreamsAfterMillis`; none to keep the leases of former streams.
    pub delete_former: Option<Duration>,
    /// `multilangd.useStreamArn`.
    pub use_stream_arn: bool,
    /// `streamArn`, `multilangd.useStreamArn`.
    pub stream_arn: Option<ConfiguredArn>,
    /// `tableName`, or the application name.
    pub table: String,
    /// `workerId`, or a random UUID.
    pub worker: WorkerId,
    /// `executableName`, not yet searched in PATH.
    pub executable: String,
    /// Region, endpoint, timeouts and credentials of Kinesis.
    pub kinesis: ClientConfig,
    /// Region, endpoint, timeouts and credentials of DynamoDB.
    pub dynamodb: ClientConfig,
    /// Region, endpoint, timeouts and credentials of CloudWatch.
    pub cloudwatch: ClientConfig,
    /// AWS settings outside the file that are shared by all clients.
    pub sdk: sdk::Sdk,
    /// `initialPositionInStream`, `initialPositionInStreamExtended`.
    pub initial: InitialPosition,
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
    /// `maxLeasesToStealAtOneTime`.
    pub max_steals: usize,
    /// `enablePriorityLeaseAssignment`.
    pub priority: bool,
    /// `clientVersionConfig`.
    pub generation: Configured,
    /// `migrateAllEntitiesToLeaseTable`.
    pub migrate: bool,
    /// `tableMigrationCompleteBakeTimeSeconds`.
    pub bake: Duration,
    /// Rules of lease assignment by the leader.
    pub rules: leader::Rules,
    /// Rules of worker metrics.
    pub reports: report::Rules,
    /// `inMemoryWorkerMetricsCaptureFrequencyMillis`.
    pub sample_every: Duration,
    /// `noOfPersistedMetricsPerWorkerMetrics`.
    pub averages: usize,
    /// The negation of `disableWorkerMetrics`.
    pub measure: bool,
    /// `leaseTableDeletionProtectionEnabled`.
    pub protect_table: bool,
    /// `leaseTablePitrEnabled`.
    pub recover_table: bool,
    /// `leaseTableScanTotalSegments`.
    pub scan_segments: i32,
    /// `coordinatorStateTableName`.
    pub state_table: String,
    /// `workerMetricsTableName`.
    pub reports_table: String,
    /// `timeoutInSeconds`.
    pub answer: Option<Duration>,
    /// `logWarningForTaskAfterMillis`.
    pub warn_after: Option<Duration>,
    /// `shutdownGraceMillis`.
    pub shutdown_grace: Duration,
    /// `taskBackoffTimeMillis`.
    pub task_backoff: Duration,
    /// `parentShardPollIntervalMillis`.
    pub parent_poll: Duration,
    /// `schedulerInitializationBackoffTimeMillis`.
    pub initialization_backoff: Duration,
    /// `maxRecords`.
    pub max_records: usize,
    /// `idleTimeBetweenReadsInMillis`.
    pub idle: Duration,
    /// `multilangd.idleWhenBehindMillis`.
    pub idle_behind: Duration,
    /// `millisBehindLatestThresholdForReducedTps`.
    pub near: Duration,
    /// `fanoutConfig`, if `retrievalMode`, or the absence of polling keys, selects enhanced fan-out.
    pub fanout: Option<registration::Settings>,
    /// `multilangd.bufferMegabytes`, in bytes.
    pub buffer: usize,
    /// Settings of CloudWatch metrics; none if `metricsLevel` is `NONE`.
    pub metrics: Option<cloudwatch::Settings>,
    /// `multilangd.status`; none if it is off.
    pub status: Option<Status>,
    /// `multilangd.stuckAfterMillis`.
    pub stuck_after: Duration,
    /// `callProcessRecordsEvenForEmptyRecordList`.
    pub keep_empty: bool,
    /// `multilangd.resumeLatest`.
    pub resume_latest: bool,
    /// `ignoreUnexpectedChildShards`.
    pub ignore_unexpected_children: bool,
    /// `skipShardSyncAtWorkerInitializationIfLeasesExist`. In KCL it also disables the check of the hash keys
    /// of user records within aggregates.
    pub skip_sync_if_leases_exist: bool,
    /// `shardSyncIntervalMillis`.
    pub shard_sync_pause: Duration,
    /// `listShardsBackoffTimeInMillis`.
    pub list_shards_pause: Duration,
    /// `maxListShardsRetryAttempts`.
    pub list_shards_attempts: u32,
    /// `multilangd.onChildFailure`.
    pub on_child_failure: OnChildFailure,
    /// `multilangd.maxChildFailures`.
    pub max_child_failures: u32,
    /// `multilangd.onHopelessShard`.
    pub on_hopeless_shard: OnHopelessShard,
    /// `multilangd.maxParkedPauseMillis`.
    pub parked_pause: Duration,
    /// `multilangd.deadLetters`.
    pub dead_letters: Vec<letters::Destination>,
    /// `multilangd.maxRecordAgeMillis`: the greatest age of a record that is delivered, in milliseconds.
    pub max_age: Option<i64>,
    /// `multilangd.skipOldRecords`: whether older records may be skipped if there are no dead letters.
    pub skip_old_records: bool,
    /// `multilangd.maxRecordFailures`, `multilangd.maxDeadLettersInARow`.
    pub dead_letter_limits: DeadLetterLimits,
    /// `multilangd.maxBatchRecords`; none for all records of a response.
    pub max_batch_records: Option<usize>,
    /// `multilangd.batchWindowMillis`; none for none.
    pub batch_window: Option<Duration>,
    /// The text for `multilangd.childErrorLine`.
    pub child_error_text: Option<String>,
    /// `multilangd.childProtocol`.
    pub child_protocol: ChildProtocol,
    /// `multilangd.childLog`.
    pub child_log: ChildLog,
    /// `multilangd.childExitGraceMillis`.
    pub child_exit_grace: Duration,
    /// `multilangd.childKillGraceMillis`.
    pub child_kill_grace: Duration,
}

impl Config {
    /// The names of the streams, except for those that are selected by the beginnings of their names.
    pub fn stream_names(&self) -> impl Iterator<Item = &str> {
        let one = self.streams.is_empty().then_some(self.stream.as_str());
        one.into_iter().chain(self.streams.named.iter().map(|stream| stream.name.as_str()))
    }

    /// The span of the worker: every log line of its tasks carries these fields.
    pub fn span(&self) -> tracing::Span {
        // Of the highest level, so that no filter for less than INFO takes the fields from a line.
        tracing::error_span!("worker", worker = %self.worker, stream = self.only_stream())
    }

    /// The span of the worker of an application among several, with its unique name.
    pub fn span_among(&self, name: &str) -> tracing::Span {
        tracing::error_span!("worker", application = name, worker = %self.worker, stream = self.only_stream())
    }

    /// The name of the stream; none of several, of which each log line names its own.
    fn only_stream(&self) -> Option<&str> {
        self.streams.is_empty().then_some(self.stream.as_str())
    }
}

/// The status endpoint's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Whether the address was set explicitly.
    pub asked_for: bool,
}

/// Settings of the client of one AWS service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientConfig {
    /// `regionName` or `….region`; none for the SDK's region chain.
    pub region: Option<String>,
    /// `….endpointOverride`, `kinesisEndpoint`, `dynamoDBEndpoint`.
    pub endpoint: Option<String>,
    /// `….dualstackEnabled`, or the setting of the environment.
    pub dual_stack: Option<bool>,
    /// `….fipsEnabled`, or the setting of the environment.
    pub fips: Option<bool>,
    /// `….overrideConfiguration.apiCallTimeout`.
    pub call_timeout: Option<Duration>,
    /// `….overrideConfiguration.apiCallAttemptTimeout`.
    pub attempt_timeout: Option<Duration>,
    /// `AWSCredentialsProvider…`, in the order in which they are tried.
    pub providers: Vec<Provider>,
}

impl ClientConfig {
    /// Where the service is, for log lines: the URL of its endpoint, or its region.
    pub fn location(&self) -> &str {
        let region = self.region.as_deref().unwrap_or("the default region");
        self.endpoint.as_deref().unwrap_or(region)
    }
}

/// The reaction to a failure of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChildFailure {
    /// The child is restarted from the checkpoint; other shards are not affected.
    Restart,
    /// The daemon exits with code 1, as the Java daemon does.
    Exit,
}

/// The reaction to `multilangd.maxChildFailures` failures of a shard's child in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHopelessShard {
    /// The shard is parked: the lease is kept, and the child is restarted after growing pauses.
    Park,
    /// The daemon exits with code 1.
    Exit,
}

/// The form of the output of children in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildLog {
    /// Each line is a log entry.
    Lines,
    /// Byte for byte, without log entries.
    Raw,
    /// JSON objects with their own fields, other lines as entries.
    Json,
}

/// When a record becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterLimits {
    /// `multilangd.maxRecordFailures`: a record that failed alone this often, each time in a new child,
    /// becomes a dead letter.
    pub record_failures: u32,
    /// `multilangd.maxDeadLettersInARow`: after this many dead letters without a processed record between
    /// them no more are written.
    pub in_a_row: u32,
}

/// The messages by which children learn of the end of a shard and of a lost lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildProtocol {
    /// `shardEnded` and `leaseLost`: KCL 2.1 and later.
    Current,
    /// `shutdown` with a reason, and a checkpointer in both cases: KCL before 2.1.
    Shutdown,
}

impl ChildProtocol {
    /// The protocol of a value of `multilangd.childProtocol`.
    pub fn of(value: &str) -> Self {
        if value == "shutdown" { Self::Shutdown } else { Self::Current }
    }
}

/// The source of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A line of the file, counted from 1.
    File(usize),
    /// The default.
    Default,
    /// An environment variable of multilangd.
    Environment,
    /// The command line.
    Option,
    /// An environment variable of the AWS SDK.
    Variable(&'static str),
    /// A JVM system property.
    Property(&'static str),
    /// A key of the AWS profile.
    Profile(&'static str),
}

impl Source {
    /// The line of the file; none for other sources.
    pub fn line(self) -> Option<usize> {
        match self {
            Self::File(line) => Some(line),
            Self::Default
            | Self::Environment
            | Self::Option
            | Self::Variable(_)
            | Self::Property(_)
            | Self::Profile(_) => None,
        }
    }

    /// The name of the AWS variable, system property or profile key; none for other sources.
    pub fn set_by(self) -> Option<&'static str> {
        match self {
            Self::Variable(name) | Self::Property(name) | Self::Profile(name) => Some(name),
            Self::File(_) | Self::Default | Self::Environment | Self::Option => None,
        }
    }

    /// The name of the source in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Default => "default",
            Self::Environment | Self::Variable(_) => "environment",
            Self::Option => "option",
            Self::Property(_) => "system property",
            Self::Profile(_) => "profile",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(line) => write!(f, "line {line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Property(name) => write!(f, "-D{name}"),
            Self::Profile(key) => write!(f, "profile key {key}"),
            other @ (Self::Default | Self::Environment | Self::Option) => f.write_str(other.name()),
        }
    }
}

/// An error or a warning about a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The line of the file, counted from 1; none for a missing key or another source.
    pub line: Option<usize>,
    /// The key, the option or the variable.
    pub key: Option<String>,
    /// The message.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// All errors of an unusable file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The errors.
    pub faults: Vec<Remark>,
    /// The warnings.
    pub warnings: Vec<Remark>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
