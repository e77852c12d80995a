//! Every key that reaches a setting in KCL 3.5, one row each. A table without logic.
//!
//! Sources: `MultiLangDaemonConfiguration` and the beans beside it, `MultiLangDaemonConfig`.

use super::Absent::{Application, Nothing, Number, Real, Required, Seconds, Text, Told, Words};
use super::Use::{Never, NoEffect, Yes};
use super::{Absent, Key, Kind, Use};

const fn key(
    name: &'static str,
    kind: Kind,
    absent: Absent,
    sets: &'static str,
    used: Use,
    doc: &'static str,
) -> Key {
    Key { name, aliases: &[], bean: None, kind, absent, sets, used, doc }
}

const fn within(bean: &'static str, key: Key) -> Key {
    Key { bean: Some(bean), ..key }
}

const DAEMON: &str = "MultiLangDaemonConfig";
const LEASES: &str = "LeaseManagementConfig";
const COORDINATOR: &str = "CoordinatorConfig";
const LIFECYCLE: &str = "LifecycleConfig";
const METRICS: &str = "MetricsConfig";
const RETRIEVAL: &str = "RetrievalConfig";
const POLLING: &str = "PollingConfig";
const FANOUT: &str = "FanOutConfig";
const BALANCE: &str = "WorkerUtilizationAwareAssignmentConfig";
const HANDOFF: &str = "GracefulLeaseHandoffConfig";
const METRICS_TABLE: &str = "WorkerMetricsTableConfig";
const STATE_TABLE: &str = "CoordinatorStateTableConfig";

/// The values of `initialPositionInStream`.
pub const POSITIONS: &[&str] = &["LATEST", "TRIM_HORIZON"];
const BILLING: &[&str] = &["PROVISIONED", "PAY_PER_REQUEST"];
const VERSIONS: &[&str] = &[
    "CLIENT_VERSION_CONFIG_3X",
    "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X",
    "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1",
];

const NO_TABLE: Use = NoEffect("KCL 3.5 creates no such table: everything is in the lease table");
const ON_DEMAND: Use = NoEffect("the lease table is billed on demand");

/// All keys of KCL.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // The daemon and its child.
    key("executableName", Kind::Text, Required("./processor.py"), DAEMON, Yes,
        "The record processor and its arguments; split at blanks, looked up in PATH."),
    key("processingLanguage", Kind::Text, Nothing, DAEMON, NoEffect("Java only logs it"), "Informative."),
    key("maxActiveThreads", Kind::Threads, Number(0), DAEMON, Never("multilangd has no thread pool"),
        "Maximum number of threads of the Java daemon."),
    key("timeoutInSeconds", Kind::BoxedInt, Nothing, DAEMON, Yes,
        "Seconds that a child process may take to answer each message while an action is open."),
    key("shutdownGraceMillis", Kind::Long, Number(5_000), DAEMON, Yes,
        "Milliseconds that child processes may take to answer after shutdown starts. Java 2.x and 3.x: 0."),

    // Identity.
    key("applicationName", Kind::Text, Required("order-reader"), COORDINATOR, Yes,
        "Name of the application; also of the lease table, unless tableName is set."),
    key("streamName", Kind::Text, Required("orders (or streamArn)"), RETRIEVAL, Yes, "Name of the stream."),
    key("streamArn", Kind::Text, Nothing, RETRIEVAL, Yes,
        "ARN of the stream; takes precedence over streamName. Calls use the name in it, unless multilangd.useStreamArn is true."),
    key("tableName", Kind::Text, Application(""), LEASES, Yes, "Name of the lease table."),
    Key { aliases: &["workerIdentifier"], ..key("workerId", Kind::Text, Told("a random UUID"), LEASES, Yes,
        "Id of this worker; must be unique in the application.") },

    // Access. Credentials and nested client settings have tables of their own.
    key("regionName", Kind::Region, Told("the SDK's chain"), "AwsClientBuilder", Yes, "The AWS region of all clients."),
    key("kinesisEndpoint", Kind::Uri, Told("by region"), "KinesisAsyncClientBuilder", Yes, "Endpoint URL of Kinesis."),
    key("dynamoDBEndpoint", Kind::Uri, Told("by region"), "DynamoDbAsyncClientBuilder", Yes, "Endpoint URL of DynamoDB."),

    // Leases.
    key("failoverTimeMillis", Kind::Long, Number(10_000), LEASES, Yes,
        "Milliseconds without a renewal after which a lease expires and other workers may acquire it; a lease is renewed every two fifths of this (Java: every third). At least 78."),
    key("leaseAssignmentIntervalMillis", Kind::Long, Told("twice failoverTimeMillis"), LEASES, Yes,
        "Milliseconds between two lease assignment rounds of the leader. Unassigned leases are assigned at once; load is rebalanced every varianceBalancingFrequency rounds."),
    key("shardSyncIntervalMillis", Kind::Long, Number(60_000), LEASES, Yes,
        "Minimum milliseconds between two shard syncs that a missing lease causes."),
    key("maxLeasesForWorker", Kind::Int, Number(2_147_483_647), LEASES, Yes, "Maximum number of leases that this worker holds."),
    key("maxLeasesToStealAtOneTime", Kind::Int, Number(1), LEASES, Yes,
        "Maximum number of leases that are stolen from a busier worker in one round; an eighth of the leases that this worker lacks to its fair share, where that is more."),
    key("enablePriorityLeaseAssignment", Kind::BoxedBool, Absent::Bool(true), LEASES, Yes,
        "Acquire leases that have been expired for three failover times even beyond the fair share of this worker."),
    key("maxLeaseRenewalThreads", Kind::Int, Number(20), LEASES, Never("a task of its own renews each lease"),
        "Number of threads that renew leases in Java; not 1."),
    key("cleanupLeasesUponShardCompletion", Kind::Bool, Absent::Bool(true), LEASES, Yes,
        "Delete the lease of a finished shard after a minute, once its child shards are being processed. A properties file cannot set it to false in Java."),
    key("ignoreUnexpectedChildShards", Kind::Bool, Absent::Bool(false), LEASES, Yes,
        "Ignore a child shard that is listed while its parent is still open."),
    key("listShardsBackoffTimeInMillis", Kind::Long, Number(1_500), LEASES, Yes,
        "Milliseconds to wait after ListShards was throttled."),
    key("maxListShardsRetryAttempts", Kind::Int, Number(50), LEASES, Yes,
        "Maximum number of attempts to call ListShards."),
    key("initialLeaseTableReadCapacity", Kind::Int, Number(10), LEASES, ON_DEMAND, "Read capacity units of the lease table."),
    key("initialLeaseTableWriteCapacity", Kind::Int, Number(10), LEASES, ON_DEMAND, "Write capacity units of the lease table."),
    key("leaseTableScanTotalSegments", Kind::Int, Number(0), LEASES, Yes,
        "Number of segments in which a parallel scan reads the lease table; 0 means one (Java: one for each 0.2 GB)."),
    key("leaseTableDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), LEASES, Yes,
        "Enable deletion protection when the lease table is created."),
    key("leaseTablePitrEnabled", Kind::BoxedBool, Absent::Bool(false), LEASES, Yes,
        "Enable point-in-time recovery of the lease table at every start; a failure is logged as a warning."),
    within("gracefulLeaseHandoffConfigBean", key("isGracefulLeaseHandoffEnabled", Kind::BoxedBool, Absent::Bool(true), HANDOFF, Yes,
        "Let the owner of a lease finish and checkpoint before the lease moves to another worker.")),
    within("gracefulLeaseHandoffConfigBean", key("gracefulLeaseHandoffTimeoutMillis", Kind::BoxedLong, Number(30_000), HANDOFF, Yes,
        "Milliseconds after which a graceful handoff times out.")),

    // Worker, shards, processing.
    key("initialPositionInStream", Kind::Enum(POSITIONS), Text("LATEST"), RETRIEVAL, Yes,
        "Initial position of new leases: LATEST or TRIM_HORIZON."),
    key("initialPositionInStreamExtended", Kind::EpochSeconds, Nothing, RETRIEVAL, Yes,
        "Initial position of new leases as a timestamp: seconds since 1970, not in the future."),
    key("parentShardPollIntervalMillis", Kind::Long, Number(10_000), COORDINATOR, Yes,
        "Milliseconds between two checks whether the parents of a shard are finished."),
    key("skipShardSyncAtWorkerInitializationIfLeasesExist", Kind::Bool, Absent::Bool(false), COORDINATOR, Yes,
        "true: skip the shard sync at start if leases exist; and, as in KCL 3.x, do not check the hash keys of aggregated records against the shard."),
    key("schedulerInitializationBackoffTimeMillis", Kind::Long, Number(1_000), COORDINATOR, Yes,
        "Milliseconds between two of the 20 attempts to start."),
    key("shardPrioritization", Kind::Unusable, Nothing, COORDINATOR, NoEffect("Java cannot read any value of it"), "None."),
    key("clientVersionConfig", Kind::Enum(VERSIONS), Text("CLIENT_VERSION_CONFIG_3X"), COORDINATOR, Yes,
        "KCL versions that this worker stays compatible with. The migration state stored in the tables takes precedence."),
    key("migrateAllEntitiesToLeaseTable", Kind::Bool, Absent::Bool(false), COORDINATOR, Yes,
        "Migrate what KCL 3.0 to 3.4 keeps in three tables into the lease table."),
    key("tableMigrationCompleteBakeTimeSeconds", Kind::Long, Number(86_400), COORDINATOR, Yes,
        "Seconds to wait before the last step of that migration; clamped to 3600 to 604800."),
    key("callProcessRecordsEvenForEmptyRecordList", Kind::Bool, Absent::Bool(false), "ProcessorConfig", Yes,
        "Deliver empty batches to child processes."),
    key("taskBackoffTimeMillis", Kind::Long, Number(500), LIFECYCLE, Yes,
        "Initial milliseconds to wait before a failed child process or an internal task is restarted."),
    key("logWarningForTaskAfterMillis", Kind::BoxedLong, Nothing, LIFECYCLE, Yes,
        "Milliseconds after which a batch that is still being processed is logged as a warning, repeated every ten seconds (Java: every second)."),
    key("validateSequenceNumberBeforeCheckpointing", Kind::Bool, Nothing, "-", NoEffect("KCL 2.x and 3.x do not read it either"), "None."),

    // Retrieval.
    key("retrievalMode", Kind::Enum(&["DEFAULT", "POLLING", "FANOUT"]), Text("DEFAULT"), RETRIEVAL, Yes,
        "POLLING or FANOUT (enhanced fan-out); DEFAULT is FANOUT unless a polling key is set."),
    within("pollingConfig", key("maxRecords", Kind::Int, Number(10_000), POLLING, Yes,
        "Maximum number of records that one GetRecords call returns; at most 10000. A polling key.")),
    within("pollingConfig", key("idleTimeBetweenReadsInMillis", Kind::Long, Number(1_500), POLLING, Yes,
        "Milliseconds between a GetRecords response and the next call for the same shard; at least 200. A polling key.")),
    within("pollingConfig", key("millisBehindLatestThresholdForReducedTps", Kind::Long, Number(0), POLLING, Yes,
        "Reduce the rate of GetRecords calls while millisBehindLatest is below this. A polling key.")),
    within("pollingConfig", key("retryGetRecordsInSeconds", Kind::BoxedInt, Nothing, POLLING, NoEffect("KCL 3.x only derives the retrieval mode from it"),
        "A polling key.")),
    within("pollingConfig", key("maxGetRecordsThreadPool", Kind::BoxedInt, Nothing, POLLING, NoEffect("KCL 3.x only derives the retrieval mode from it"),
        "A polling key.")),
    key("fanoutConfig.consumerArn", Kind::Text, Told("found or registered"), FANOUT, Yes, "ARN of a registered enhanced fan-out consumer."),
    key("fanoutConfig.consumerName", Kind::Text, Application(""), FANOUT, Yes, "Name of the enhanced fan-out consumer to find or register."),
    key("fanoutConfig.maxDescribeStreamSummaryRetries", Kind::Int, Number(10), FANOUT, Yes, "Maximum number of DescribeStreamSummary calls in a row."),
    key("fanoutConfig.maxDescribeStreamConsumerRetries", Kind::Int, Number(10), FANOUT, Yes, "Maximum number of DescribeStreamConsumer calls in a row."),
    key("fanoutConfig.registerStreamConsumerRetries", Kind::Int, Number(10), FANOUT, Yes, "Maximum number of RegisterStreamConsumer calls in a row."),
    key("fanoutConfig.retryBackoffMillis", Kind::Long, Number(1_000), FANOUT, Yes, "Milliseconds between these calls."),

    // Metrics.
    key("metricsLevel", Kind::Enum(&["NONE", "SUMMARY", "DETAILED"]), Text("DETAILED"), METRICS, Yes, "Metrics level of CloudWatch: NONE, SUMMARY or DETAILED."),
    key("metricsEnabledDimensions", Kind::Words, Words(&["ALL"]), METRICS, Yes,
        "Dimensions of the CloudWatch metrics: Operation, ShardId, WorkerIdentifier, StreamId, ALL."),
    key("metricsBufferTimeMillis", Kind::Long, Number(10_000), METRICS, Yes, "Milliseconds between two calls that publish metrics."),
    key("metricsMaxQueueSize", Kind::Int, Number(10_000), METRICS, Yes, "Maximum number of metric data that wait to be published; more are dropped."),

    // Balancing by load.
    within("workerUtilizationAwareAssignmentConfigBean", key("inMemoryWorkerMetricsCaptureFrequencyMillis", Kind::Long, Number(1_000), BALANCE, Yes,
        "Milliseconds between two samples of the CPU utilisation of this worker.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("workerMetricsReporterFreqInMillis", Kind::Long, Number(30_000), BALANCE, Yes,
        "Milliseconds between two reports of the worker metrics.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("noOfPersistedMetricsPerWorkerMetrics", Kind::Int, Number(10), BALANCE, Yes,
        "Number of values that a report of the worker metrics contains.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("disableWorkerMetrics", Kind::BoxedBool, Absent::Bool(false), BALANCE, Yes,
        "Report no CPU utilisation; leases are then balanced by throughput.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("maxThroughputPerHostKBps", Kind::Double, Real(f64::MAX), BALANCE, Yes,
        "Maximum throughput in KB/s that is assigned to one worker.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("dampeningPercentage", Kind::Int, Number(60), BALANCE, Yes,
        "Percentage of an imbalance that one rebalancing round corrects.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("reBalanceThresholdPercentage", Kind::Int, Number(10), BALANCE, Yes,
        "Percentage of deviation from the average load that is tolerated without rebalancing.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("allowThroughputOvershoot", Kind::BoxedBool, Absent::Bool(true), BALANCE, Yes,
        "Move a lease even if its throughput exceeds what has to be moved.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("varianceBalancingFrequency", Kind::Int, Number(3), BALANCE, Yes,
        "Number of lease assignment rounds between two rebalancing rounds.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("workerMetricsEMAAlpha", Kind::Double, Real(0.5), BALANCE, Yes,
        "Weight of the newest value in the exponential moving average of the worker metrics.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("staleWorkerMetricsEntryCleanupDuration", Kind::Duration, Seconds(86_400), BALANCE, Yes,
        "Age at which the metrics of a worker that no longer reports are deleted.")),

    // Tables of KCL before 3.5.
    within("workerMetricStatsTableConfigBean", key("workerMetricsTableName", Kind::Text, Application("-WorkerMetricStats"), METRICS_TABLE, Yes,
        "Name of the worker metrics table of KCL 3.0 to 3.4, where it exists.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsBillingMode", Kind::Enum(BILLING), Text("PAY_PER_REQUEST"), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsReadCapacity", Kind::Long, Number(0), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsWriteCapacity", Kind::Long, Number(0), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsPointInTimeRecoveryEnabled", Kind::BoxedBool, Absent::Bool(false), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsTags", Kind::Tags, Words(&[]), METRICS_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateTableName", Kind::Text, Application("-CoordinatorState"), STATE_TABLE, Yes,
        "Name of the coordinator state table of KCL 3.0 to 3.4, where it exists.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateBillingMode", Kind::Enum(BILLING), Text("PAY_PER_REQUEST"), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateReadCapacity", Kind::Long, Number(0), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateWriteCapacity", Kind::Long, Number(0), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStatePointInTimeRecoveryEnabled", Kind::BoxedBool, Absent::Bool(false), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateTags", Kind::Tags, Words(&[]), STATE_TABLE, NO_TABLE, "None.")),
];
