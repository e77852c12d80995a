//! What the daemon is told: a properties file becomes a [`Config`], or a list of everything that is
//! wrong with it.
//!
//! | module | holds |
//! |---|---|
//! | [`keys`] | the tables: one row a key |
//! | [`bean`] | the file's pairs set one after the other, as Java's configuration object would be |
//! | [`value`] | one text read as its type |
//! | [`credentials`] | the text of a credentials key into a list of providers |
//! | [`expand`] | `${NAME}`, if asked for |
//! | [`resolve`] | defaults, what hangs on what, limits; every fault and warning at once |
//! | `made` | settings without a fault into the [`Config`] |
//! | [`sdk`] | AWS settings outside the file: system properties, the environment, the profile, proxies |
//! | [`permissions`] | the AWS permissions that a file needs |
//! | [`settings`] | all settings in force with their sources, as `check` prints them |
//!
//! All stages are pure: every fault is known before anything starts. In KCL:
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

mod arn;
pub mod bean;
pub mod credentials;
pub mod expand;
pub mod keys;
mod made;
mod names;
pub mod permissions;
mod position;
pub mod resolve;
pub mod sdk;
pub mod settings;
pub mod value;

use credentials::Provider;

/// Every setting in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `applicationName`.
    pub application: String,
    /// `streamName`, or the name within `streamArn`.
    pub stream: String,
    /// `tableName`, or the application's name.
    pub table: String,
    /// `workerId`, or a random UUID.
    pub worker: WorkerId,
    /// `executableName`, not yet looked up.
    pub executable: String,
    /// How Kinesis is reached.
    pub kinesis: ClientConfig,
    /// How DynamoDB is reached.
    pub dynamodb: ClientConfig,
    /// How CloudWatch is reached.
    pub cloudwatch: ClientConfig,
    /// AWS settings outside the file that no single client has for itself.
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
    /// How a leader gives leases out.
    pub rules: leader::Rules,
    /// How load is reported and judged.
    pub reports: report::Rules,
    /// `inMemoryWorkerMetricsCaptureFrequencyMillis`.
    pub sample_every: Duration,
    /// `noOfPersistedMetricsPerWorkerMetrics`.
    pub averages: usize,
    /// Not `disableWorkerMetrics`.
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
    /// `fanoutConfig`, if that is how records are read: `retrievalMode` or its absence.
    pub fanout: Option<registration::Settings>,
    /// `multilangd.bufferMegabytes`, in bytes.
    pub buffer: usize,
    /// `metricsLevel` and how; none for `NONE`.
    pub metrics: Option<cloudwatch::Settings>,
    /// `multilangd.status`; none for nowhere.
    pub status: Option<Status>,
    /// `multilangd.stuckAfterMillis`.
    pub stuck_after: Duration,
    /// `callProcessRecordsEvenForEmptyRecordList`.
    pub keep_empty: bool,
    /// `ignoreUnexpectedChildShards`.
    pub ignore_unexpected_children: bool,
    /// `skipShardSyncAtWorkerInitializationIfLeasesExist`: its effect in KCL is, besides, that the hash keys
    /// of user records within aggregates aren't checked.
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
    /// `multilangd.childProtocol`.
    pub child_protocol: ChildProtocol,
    /// `multilangd.childExitGraceMillis`.
    pub child_exit_grace: Duration,
    /// `multilangd.childKillGraceMillis`.
    pub child_kill_grace: Duration,
}

impl Config {
    /// The span of the worker: every log line of its tasks carries these fields.
    pub fn span(&self) -> tracing::Span {
        // Of the highest level, so that no filter for less than INFO takes the fields from a line.
        tracing::error_span!("worker", worker = %self.worker, stream = self.stream)
    }
}

/// Where the status endpoint listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// There.
    pub address: SocketAddr,
    /// Somebody asked for it.
    pub asked_for: bool,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientConfig {
    /// `regionName`, `….region`; else the SDK's own chain decides.
    pub region: Option<String>,
    /// `….endpointOverride`, `kinesisEndpoint`, `dynamoDBEndpoint`.
    pub endpoint: Option<String>,
    /// `….dualstackEnabled`, else what the environment says.
    pub dual_stack: Option<bool>,
    /// `….fipsEnabled`, else what the environment says.
    pub fips: Option<bool>,
    /// `….overrideConfiguration.apiCallTimeout`.
    pub call_timeout: Option<Duration>,
    /// `….overrideConfiguration.apiCallAttemptTimeout`.
    pub attempt_timeout: Option<Duration>,
    /// `AWSCredentialsProvider…`, in the order in which they are asked.
    pub providers: Vec<Provider>,
}

/// What a child's failure means for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChildFailure {
    /// Its shard alone starts anew, from what is stored.
    Restart,
    /// The daemon ends with exit code 1, as the Java daemon does.
    Exit,
}

/// The consequence once the child of a shard has failed `multilangd.maxChildFailures` times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHopelessShard {
    /// The shard is parked: the lease is kept, the child is restarted after longer and longer pauses.
    Park,
    /// The daemon exits with code 1.
    Exit,
}

/// How the end of a shard and a lost lease are told to children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildProtocol {
    /// `shardEnded` and `leaseLost`: KCL 2.1 and later.
    Current,
    /// `shutdown` with a reason, and a checkpointer in both: KCL before 2.1.
    Shutdown,
}

/// Where a setting came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This line of the file, from 1.
    File(usize),
    /// Nobody gave it.
    Default,
    /// An environment variable that sets a key of ours.
    Environment,
    /// The command line.
    Option,
    /// This environment variable of the AWS SDK.
    Variable(&'static str),
    /// This JVM system property.
    Property(&'static str),
    /// This key of the AWS profile.
    Profile(&'static str),
}

impl Source {
    /// The line, if it is one of the file.
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

    /// The name of the variable, the system property or the profile's key, if it is one of AWS.
    pub fn set_by(self) -> Option<&'static str> {
        match self {
            Self::Variable(name) | Self::Property(name) | Self::Profile(name) => Some(name),
            Self::File(_) | Self::Default | Self::Environment | Self::Option => None,
        }
    }

    /// In one word.
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

/// Something in a file that is wrong or odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The line of the file, from 1; none for what is missing or wasn't given there.
    pub line: Option<usize>,
    /// The key, the option or the variable that it is about.
    pub key: Option<String>,
    /// A sentence.
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

/// Why a file can't be used: all of it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// What must be put right.
    pub faults: Vec<Remark>,
    /// What was odd besides.
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
