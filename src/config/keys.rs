//! Every key that reaches a setting in KCL 3.5, one row each. A table, no logic.
//!
//! The README's table of properties is checked against it (`tests/tidy.rs`).

/// One key of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name, in its exact case.
    pub name: &'static str,
    /// Other names for the same setting.
    pub aliases: &'static [&'static str],
    /// How Java reads the value.
    pub kind: Kind,
    /// In words; what is in force without the key.
    pub default: &'static str,
    /// What becomes of it here.
    pub used: Use,
    /// What it does.
    pub doc: &'static str,
}

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it stands, blanks included.
    Text,
    /// A Java `int`: what isn't one is 0, and 0 means "not given".
    Int,
    /// A Java `Integer`.
    BoxedInt,
    /// A Java `long` of milliseconds: what isn't one is 0, and 0 means "not given".
    Millis,
    /// A Java `boolean`: what isn't one is false, and false means "not given".
    Bool,
    /// LATEST or TRIM_HORIZON.
    Position,
    /// Seconds since 1970.
    EpochSeconds,
    /// An absolute http or https address.
    Uri,
}

/// What becomes of a key here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It does what it does in Java.
    Yes,
    /// Not built yet: warned about.
    NotYet,
    /// It does nothing, for this reason; in Java neither.
    NoEffect(&'static str),
}

const fn key(name: &'static str, kind: Kind, default: &'static str, used: Use, doc: &'static str) -> Key {
    Key { name, aliases: &[], kind, default, used, doc }
}

/// The table.
pub const KEYS: &[Key] = &[
    key(
        "executableName",
        Kind::Text,
        "required",
        Use::Yes,
        "The program that processes records, with its arguments; split at blanks, found by PATH.",
    ),
    key("processingLanguage", Kind::Text, "", Use::NoEffect("Java only logs it"), "Informative."),
    key(
        "maxActiveThreads",
        Kind::Int,
        "",
        Use::NoEffect("there is no thread pool here"),
        "Threads of the Java daemon.",
    ),
    key(
        "timeoutInSeconds",
        Kind::BoxedInt,
        "none",
        Use::Yes,
        "Seconds that a child has for each message while an action is open.",
    ),
    key(
        "shutdownGraceMillis",
        Kind::Millis,
        "5000",
        Use::Yes,
        "From a stop to the last answer of the children. Java 2.x and 3.x: 0.",
    ),
    key("applicationName", Kind::Text, "required", Use::Yes, "Names the lease table, unless tableName does."),
    key("streamName", Kind::Text, "required, or streamArn", Use::Yes, "The stream."),
    key(
        "streamArn",
        Kind::Text,
        "",
        Use::Yes,
        "The stream; only the name in it is used. Wins over streamName.",
    ),
    key("tableName", Kind::Text, "applicationName", Use::Yes, "The lease table."),
    Key {
        aliases: &["workerIdentifier"],
        ..key(
            "workerId",
            Kind::Text,
            "a random UUID",
            Use::Yes,
            "Names this worker; must differ between workers.",
        )
    },
    key("regionName", Kind::Text, "the SDK's chain", Use::Yes, "The AWS region."),
    key("kinesisEndpoint", Kind::Uri, "by region", Use::Yes, "Another address for Kinesis."),
    key("dynamoDBEndpoint", Kind::Uri, "by region", Use::Yes, "Another address for DynamoDB."),
    key(
        "initialPositionInStream",
        Kind::Position,
        "LATEST",
        Use::Yes,
        "Where leases start that nobody has read: LATEST or TRIM_HORIZON.",
    ),
    key(
        "initialPositionInStreamExtended",
        Kind::EpochSeconds,
        "",
        Use::Yes,
        "Where leases start that nobody has read: seconds since 1970.",
    ),
    key(
        "failoverTimeMillis",
        Kind::Millis,
        "10000",
        Use::Yes,
        "How long a lease may stand still before others take it; it is renewed every third of this.",
    ),
    key("maxLeasesForWorker", Kind::Int, "2147483647", Use::Yes, "Leases that this worker holds at most."),
    key(
        "taskBackoffTimeMillis",
        Kind::Millis,
        "500",
        Use::Yes,
        "The first pause after a child failed or a step of ours did.",
    ),
    key(
        "parentShardPollIntervalMillis",
        Kind::Millis,
        "10000",
        Use::Yes,
        "Between looks at parents that aren't finished.",
    ),
    key(
        "schedulerInitializationBackoffTimeMillis",
        Kind::Millis,
        "1000",
        Use::Yes,
        "Between the 20 attempts to start.",
    ),
    key("maxRecords", Kind::Int, "10000", Use::Yes, "Records a GetRecords call, at most 10000."),
    key(
        "idleTimeBetweenReadsInMillis",
        Kind::Millis,
        "1500",
        Use::Yes,
        "From one answer of Kinesis to the next call, a shard; at least 200.",
    ),
    key(
        "callProcessRecordsEvenForEmptyRecordList",
        Kind::Bool,
        "false",
        Use::Yes,
        "Whether children get empty batches.",
    ),
    key(
        "ignoreUnexpectedChildShards",
        Kind::Bool,
        "false",
        Use::Yes,
        "Go on when a shard is listed whose parent is still open.",
    ),
    key(
        "skipShardSyncAtWorkerInitializationIfLeasesExist",
        Kind::Bool,
        "false",
        Use::Yes,
        "As in KCL 3: true switches off the check of aggregated records against the shard's hash keys.",
    ),
    key(
        "validateSequenceNumberBeforeCheckpointing",
        Kind::Bool,
        "",
        Use::NoEffect("KCL 2 and 3 don't read it either"),
        "",
    ),
    key(
        "retryGetRecordsInSeconds",
        Kind::BoxedInt,
        "",
        Use::NoEffect("KCL 3 only takes it as a sign for polling"),
        "",
    ),
    key(
        "maxGetRecordsThreadPool",
        Kind::BoxedInt,
        "",
        Use::NoEffect("KCL 3 only takes it as a sign for polling"),
        "",
    ),
    key(
        "initialLeaseTableReadCapacity",
        Kind::Int,
        "",
        Use::NoEffect("the lease table is billed on demand"),
        "",
    ),
    key(
        "initialLeaseTableWriteCapacity",
        Kind::Int,
        "",
        Use::NoEffect("the lease table is billed on demand"),
        "",
    ),
    key("retrievalMode", Kind::Text, "", Use::NotYet, ""),
    key("millisBehindLatestThresholdForReducedTps", Kind::Millis, "", Use::NotYet, ""),
    key("leaseAssignmentIntervalMillis", Kind::Millis, "", Use::NotYet, ""),
    key("shardSyncIntervalMillis", Kind::Millis, "", Use::NotYet, ""),
    key("maxLeasesToStealAtOneTime", Kind::Int, "", Use::NotYet, ""),
    key("enablePriorityLeaseAssignment", Kind::Bool, "", Use::NotYet, ""),
    key("maxLeaseRenewalThreads", Kind::Int, "", Use::NotYet, ""),
    key("cleanupLeasesUponShardCompletion", Kind::Bool, "", Use::NotYet, ""),
    key("listShardsBackoffTimeInMillis", Kind::Millis, "", Use::NotYet, ""),
    key("maxListShardsRetryAttempts", Kind::Int, "", Use::NotYet, ""),
    key("leaseTableScanTotalSegments", Kind::Int, "", Use::NotYet, ""),
    key("leaseTableDeletionProtectionEnabled", Kind::Bool, "", Use::NotYet, ""),
    key("leaseTablePitrEnabled", Kind::Bool, "", Use::NotYet, ""),
    key("isGracefulLeaseHandoffEnabled", Kind::Bool, "", Use::NotYet, ""),
    key("gracefulLeaseHandoffTimeoutMillis", Kind::Millis, "", Use::NotYet, ""),
    key("shardPrioritization", Kind::Text, "", Use::NotYet, ""),
    key("clientVersionConfig", Kind::Text, "", Use::NotYet, ""),
    key("migrateAllEntitiesToLeaseTable", Kind::Bool, "", Use::NotYet, ""),
    key("tableMigrationCompleteBakeTimeSeconds", Kind::Int, "", Use::NotYet, ""),
    key("logWarningForTaskAfterMillis", Kind::Millis, "", Use::NotYet, ""),
    key("metricsLevel", Kind::Text, "", Use::NotYet, ""),
    key("metricsEnabledDimensions", Kind::Text, "", Use::NotYet, ""),
    key("metricsBufferTimeMillis", Kind::Millis, "", Use::NotYet, ""),
    key("metricsMaxQueueSize", Kind::Int, "", Use::NotYet, ""),
    key("inMemoryWorkerMetricsCaptureFrequencyMillis", Kind::Millis, "", Use::NotYet, ""),
    key("workerMetricsReporterFreqInMillis", Kind::Millis, "", Use::NotYet, ""),
    key("noOfPersistedMetricsPerWorkerMetrics", Kind::Int, "", Use::NotYet, ""),
    key("disableWorkerMetrics", Kind::Bool, "", Use::NotYet, ""),
    key("maxThroughputPerHostKBps", Kind::Text, "", Use::NotYet, ""),
    key("dampeningPercentage", Kind::Int, "", Use::NotYet, ""),
    key("reBalanceThresholdPercentage", Kind::Int, "", Use::NotYet, ""),
    key("allowThroughputOvershoot", Kind::Bool, "", Use::NotYet, ""),
    key("varianceBalancingFrequency", Kind::Int, "", Use::NotYet, ""),
    key("workerMetricsEMAAlpha", Kind::Text, "", Use::NotYet, ""),
    key("staleWorkerMetricsEntryCleanupDuration", Kind::Text, "", Use::NotYet, ""),
    key("workerMetricsTableName", Kind::Text, "", Use::NotYet, ""),
    key("coordinatorStateTableName", Kind::Text, "", Use::NotYet, ""),
    key("workerMetricsBillingMode", Kind::Text, "", Use::NoEffect("no such table is made since KCL 3.5"), ""),
    key("workerMetricsReadCapacity", Kind::Int, "", Use::NoEffect("no such table is made since KCL 3.5"), ""),
    key(
        "workerMetricsWriteCapacity",
        Kind::Int,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key(
        "workerMetricsPointInTimeRecoveryEnabled",
        Kind::Bool,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key(
        "workerMetricsDeletionProtectionEnabled",
        Kind::Bool,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key("workerMetricsTags", Kind::Text, "", Use::NoEffect("no such table is made since KCL 3.5"), ""),
    key(
        "coordinatorStateBillingMode",
        Kind::Text,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key(
        "coordinatorStateReadCapacity",
        Kind::Int,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key(
        "coordinatorStateWriteCapacity",
        Kind::Int,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key(
        "coordinatorStatePointInTimeRecoveryEnabled",
        Kind::Bool,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key(
        "coordinatorStateDeletionProtectionEnabled",
        Kind::Bool,
        "",
        Use::NoEffect("no such table is made since KCL 3.5"),
        "",
    ),
    key("coordinatorStateTags", Kind::Text, "", Use::NoEffect("no such table is made since KCL 3.5"), ""),
];
