//! What the daemon is told: a properties file becomes a [`Config`], or a list of everything that is
//! wrong with it.
//!
//! [`keys::KEYS`] is the table of keys, [`resolve`] reads a file against it. Both stages are pure:
//! all faults are known before anything starts. In KCL: `MultiLangDaemonConfiguration`.

use std::fmt;
use std::time::Duration;

use crate::lease::WorkerId;
use crate::lease::sync::InitialPosition;

pub mod keys;
pub mod resolve;

/// Every setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// `regionName`; else the SDK's own chain decides.
    pub region: Option<String>,
    /// `kinesisEndpoint`.
    pub kinesis_endpoint: Option<String>,
    /// `dynamoDBEndpoint`.
    pub dynamodb_endpoint: Option<String>,
    /// `initialPositionInStream`, `initialPositionInStreamExtended`.
    pub initial: InitialPosition,
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
    /// `timeoutInSeconds`.
    pub answer: Option<Duration>,
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
    /// `callProcessRecordsEvenForEmptyRecordList`.
    pub keep_empty: bool,
    /// `ignoreUnexpectedChildShards`.
    pub ignore_unexpected_children: bool,
    /// Not `skipShardSyncAtWorkerInitializationIfLeasesExist`, whose effect in KCL is this.
    pub check_hash_keys: bool,
    /// `multilangd.onChildFailure`.
    pub on_child_failure: OnChildFailure,
    /// `multilangd.maxChildFailures`.
    pub max_child_failures: u32,
    /// `multilangd.childProtocol`.
    pub child_protocol: ChildProtocol,
}

/// What a child's failure means for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChildFailure {
    /// Its shard alone starts anew, from what is stored.
    Restart,
    /// The daemon ends with exit code 1, as the Java daemon does.
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

/// Something in a file that is wrong or odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The line of the file, from 1; none for what is missing.
    pub line: Option<usize>,
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
