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

const NO_TABLE: Use = NoEffect("KCL 3.5 makes no such table: everything is in the lease table");
const ON_DEMAND: Use = NoEffect("the lease table is billed on demand");

/// All keys of KCL.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // The daemon and its child.
    key("executableName", Kind::Text, Required("./processor.py"), DAEMON, Yes,
        "The program that processes records, with its arguments; split at blanks, found by PATH."),
    key("processingLanguage", Kind::Text, Nothing, DAEMON, NoEffect("Java only logs it"), "Informative."),
    key("maxActiveThreads", Kind::Threads, Number(0), DAEMON, Never("there is no thread pool here"),
        "Threads of the Java daemon."),
    key("timeoutInSeconds", Kind::BoxedInt, Nothing, DAEMON, Yes,
        "Seconds that a child has for each message while an action is open."),
    key("shutdownGraceMillis", Kind::Long, Number(5_000), DAEMON, Yes,
        "From a stop to the last answer of the children. Java 2.x and 3.x: 0."),

    // Identity.
    key("applicationName", Kind::Text, Required("order-reader"), COORDINATOR, Yes,
        "Names the lease table, unless tableName does."),
    key("streamName", Kind::Text, Required("orders (or streamArn)"), RETRIEVAL, Yes, "The stream."),
    key("streamArn", Kind::Text, Nothing, RETRIEVAL, Yes,
        "The stream; only the name in it is used. Wins over streamName."),
    key("tableName", Kind::Text, Application(""), LEASES, Yes, "The lease table."),
    Key { aliases: &["workerIdentifier"], ..key("workerId", Kind::Text, Told("a random UUID"), LEASES, Yes,
        "Names this worker; must differ between workers.") },

    // Access. Credentials and nested client settings have tables of their own.
    key("regionName", Kind::Region, Told("the SDK's chain"), "AwsClientBuilder", Yes, "The AWS region, of all clients."),
    key("kinesisEndpoint", Kind::Uri, Told("by region"), "KinesisAsyncClientBuilder", Yes, "Another address for Kinesis."),
    key("dynamoDBEndpoint", Kind::Uri, Told("by region"), "DynamoDbAsyncClientBuilder", Yes, "Another address for DynamoDB."),

    // Leases.
    key("failoverTimeMillis", Kind::Long, Number(10_000), LEASES, Yes,
        "How long a lease may stand still before others take it; it is renewed every two fifths of this (Java: every third). At least 78."),
    key("leaseAssignmentIntervalMillis", Kind::Long, Told("twice failoverTimeMillis"), LEASES, Yes,
        "Between rounds of a leader. What nobody has is given out at once; load is balanced after so many rounds (`varianceBalancingFrequency`)."),
    key("shardSyncIntervalMillis", Kind::Long, Number(60_000), LEASES, Yes,
        "The stream's shards are listed because of a missing lease no more often than this."),
    key("maxLeasesForWorker", Kind::Int, Number(2_147_483_647), LEASES, Yes, "Leases that this worker holds at most."),
    key("maxLeasesToStealAtOneTime", Kind::Int, Number(1), LEASES, Yes,
        "Leases taken from a busier worker in one round; an eighth of what is missing to the share, where that is more."),
    key("enablePriorityLeaseAssignment", Kind::BoxedBool, Absent::Bool(true), LEASES, Yes,
        "Take what has stood still for three failover times, whatever the share."),
    key("maxLeaseRenewalThreads", Kind::Int, Number(20), LEASES, Never("each lease is renewed by a task of its own"),
        "Threads that renew leases in Java; not 1."),
    key("cleanupLeasesUponShardCompletion", Kind::Bool, Absent::Bool(true), LEASES, Yes,
        "Delete the leases of finished shards, a minute later and once their children have begun. Java can't be told false by a file."),
    key("ignoreUnexpectedChildShards", Kind::Bool, Absent::Bool(false), LEASES, Yes,
        "Go on when a shard is listed whose parent is still open."),
    key("listShardsBackoffTimeInMillis", Kind::Long, Number(1_500), LEASES, Yes,
        "After a throttled ListShards."),
    key("maxListShardsRetryAttempts", Kind::Int, Number(50), LEASES, Yes,
        "Attempts at ListShards."),
    key("initialLeaseTableReadCapacity", Kind::Int, Number(10), LEASES, ON_DEMAND, "Read units."),
    key("initialLeaseTableWriteCapacity", Kind::Int, Number(10), LEASES, ON_DEMAND, "Write units."),
    key("leaseTableScanTotalSegments", Kind::Int, Number(0), LEASES, Yes,
        "Parts in which the lease table is read at once; 0 is one (Java: one for each 0.2 GB)."),
    key("leaseTableDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), LEASES, Yes,
        "Protect the lease table from deletion when it is made."),
    key("leaseTablePitrEnabled", Kind::BoxedBool, Absent::Bool(false), LEASES, Yes,
        "Switch on point-in-time recovery of the lease table at every start; a refusal is a warning."),
    within("gracefulLeaseHandoffConfigBean", key("isGracefulLeaseHandoffEnabled", Kind::BoxedBool, Absent::Bool(true), HANDOFF, Yes,
        "Let the old owner finish before a lease moves.")),
    within("gracefulLeaseHandoffConfigBean", key("gracefulLeaseHandoffTimeoutMillis", Kind::BoxedLong, Number(30_000), HANDOFF, Yes,
        "How long it may take for that.")),

    // Worker, shards, processing.
    key("initialPositionInStream", Kind::Enum(POSITIONS), Text("LATEST"), RETRIEVAL, Yes,
        "Where leases start that nobody has read: LATEST or TRIM_HORIZON."),
    key("initialPositionInStreamExtended", Kind::EpochSeconds, Nothing, RETRIEVAL, Yes,
        "Where leases start that nobody has read: seconds since 1970, not in the future."),
    key("parentShardPollIntervalMillis", Kind::Long, Number(10_000), COORDINATOR, Yes,
        "Between looks at parents that aren't finished."),
    key("skipShardSyncAtWorkerInitializationIfLeasesExist", Kind::Bool, Absent::Bool(false), COORDINATOR, Yes,
        "true: at the start the shards are not listed if there are leases; and, as in KCL 3, aggregated records aren't checked against the shard's hash keys."),
    key("schedulerInitializationBackoffTimeMillis", Kind::Long, Number(1_000), COORDINATOR, Yes,
        "Between the 20 attempts to start."),
    key("shardPrioritization", Kind::Unusable, Nothing, COORDINATOR, NoEffect("Java can't read any value of it"), "None."),
    key("clientVersionConfig", Kind::Enum(VERSIONS), Text("CLIENT_VERSION_CONFIG_3X"), COORDINATOR, Yes,
        "Which generation of workers this one gets along with. What the fleet has come to, in its tables, outweighs it."),
    key("migrateAllEntitiesToLeaseTable", Kind::Bool, Absent::Bool(false), COORDINATOR, Yes,
        "Move what earlier versions kept in three tables into one."),
    key("tableMigrationCompleteBakeTimeSeconds", Kind::Long, Number(86_400), COORDINATOR, Yes,
        "Rest before the last step of that; held within 3600 to 604800."),
    key("callProcessRecordsEvenForEmptyRecordList", Kind::Bool, Absent::Bool(false), "ProcessorConfig", Yes,
        "Whether children get empty batches."),
    key("taskBackoffTimeMillis", Kind::Long, Number(500), LIFECYCLE, Yes,
        "The first pause after a child failed or a step of ours did."),
    key("logWarningForTaskAfterMillis", Kind::BoxedLong, Nothing, LIFECYCLE, Yes,
        "Warn about a batch that takes longer; again every ten seconds (Java: every second)."),
    key("validateSequenceNumberBeforeCheckpointing", Kind::Bool, Nothing, "-", NoEffect("KCL 2 and 3 don't read it either"), "None."),

    // Retrieval.
    key("retrievalMode", Kind::Enum(&["DEFAULT", "POLLING", "FANOUT"]), Text("DEFAULT"), RETRIEVAL, Yes,
        "POLLING or FANOUT; DEFAULT is fan-out unless a polling key is set."),
    within("pollingConfig", key("maxRecords", Kind::Int, Number(10_000), POLLING, Yes,
        "Records a GetRecords call, at most 10000. A polling key.")),
    within("pollingConfig", key("idleTimeBetweenReadsInMillis", Kind::Long, Number(1_500), POLLING, Yes,
        "From one answer of Kinesis to the next call, a shard; at least 200. A polling key.")),
    within("pollingConfig", key("millisBehindLatestThresholdForReducedTps", Kind::Long, Number(0), POLLING, Yes,
        "Read more slowly when closer to the tip than this. A polling key.")),
    within("pollingConfig", key("retryGetRecordsInSeconds", Kind::BoxedInt, Nothing, POLLING, NoEffect("KCL 3 only takes it as a sign for polling"),
        "A polling key.")),
    within("pollingConfig", key("maxGetRecordsThreadPool", Kind::BoxedInt, Nothing, POLLING, NoEffect("KCL 3 only takes it as a sign for polling"),
        "A polling key.")),
    key("fanoutConfig.consumerArn", Kind::Text, Told("found or registered"), FANOUT, Yes, "The registered consumer."),
    key("fanoutConfig.consumerName", Kind::Text, Application(""), FANOUT, Yes, "Its name."),
    key("fanoutConfig.maxDescribeStreamSummaryRetries", Kind::Int, Number(10), FANOUT, Yes, "Attempts."),
    key("fanoutConfig.maxDescribeStreamConsumerRetries", Kind::Int, Number(10), FANOUT, Yes, "Attempts."),
    key("fanoutConfig.registerStreamConsumerRetries", Kind::Int, Number(10), FANOUT, Yes, "Attempts."),
    key("fanoutConfig.retryBackoffMillis", Kind::Long, Number(1_000), FANOUT, Yes, "Between them."),

    // Metrics.
    key("metricsLevel", Kind::Enum(&["NONE", "SUMMARY", "DETAILED"]), Text("DETAILED"), METRICS, Yes, "How much goes to CloudWatch."),
    key("metricsEnabledDimensions", Kind::Words, Words(&["ALL"]), METRICS, Yes,
        "Operation, ShardId, WorkerIdentifier, StreamId, ALL."),
    key("metricsBufferTimeMillis", Kind::Long, Number(10_000), METRICS, Yes, "Between sends."),
    key("metricsMaxQueueSize", Kind::Int, Number(10_000), METRICS, Yes, "Data that may wait."),

    // Balancing by load.
    within("workerUtilizationAwareAssignmentConfigBean", key("inMemoryWorkerMetricsCaptureFrequencyMillis", Kind::Long, Number(1_000), BALANCE, Yes,
        "Between looks at this worker's load.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("workerMetricsReporterFreqInMillis", Kind::Long, Number(30_000), BALANCE, Yes,
        "Between reports of it.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("noOfPersistedMetricsPerWorkerMetrics", Kind::Int, Number(10), BALANCE, Yes,
        "Values kept in a report.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("disableWorkerMetrics", Kind::BoxedBool, Absent::Bool(false), BALANCE, Yes,
        "Report no load.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("maxThroughputPerHostKBps", Kind::Double, Real(f64::MAX), BALANCE, Yes,
        "What a host may be given.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("dampeningPercentage", Kind::Int, Number(60), BALANCE, Yes,
        "Of an imbalance, what is moved at once.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("reBalanceThresholdPercentage", Kind::Int, Number(10), BALANCE, Yes,
        "Imbalance that is left alone.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("allowThroughputOvershoot", Kind::BoxedBool, Absent::Bool(true), BALANCE, Yes,
        "Move a lease even if that is more than is needed.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("varianceBalancingFrequency", Kind::Int, Number(3), BALANCE, Yes,
        "Every so many rounds the load is balanced.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("workerMetricsEMAAlpha", Kind::Double, Real(0.5), BALANCE, Yes,
        "Weight of the newest value.")),
    within("workerUtilizationAwareAssignmentConfigBean", key("staleWorkerMetricsEntryCleanupDuration", Kind::Duration, Seconds(86_400), BALANCE, Yes,
        "Age at which reports are deleted.")),

    // Tables of KCL before 3.5.
    within("workerMetricStatsTableConfigBean", key("workerMetricsTableName", Kind::Text, Application("-WorkerMetricStats"), METRICS_TABLE, Yes,
        "The table of reports, where an earlier version made one.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsBillingMode", Kind::Enum(BILLING), Text("PAY_PER_REQUEST"), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsReadCapacity", Kind::Long, Number(0), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsWriteCapacity", Kind::Long, Number(0), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsPointInTimeRecoveryEnabled", Kind::BoxedBool, Absent::Bool(false), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), METRICS_TABLE, NO_TABLE, "None.")),
    within("workerMetricStatsTableConfigBean", key("workerMetricsTags", Kind::Tags, Words(&[]), METRICS_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateTableName", Kind::Text, Application("-CoordinatorState"), STATE_TABLE, Yes,
        "The table of the coordinator, where an earlier version made one.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateBillingMode", Kind::Enum(BILLING), Text("PAY_PER_REQUEST"), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateReadCapacity", Kind::Long, Number(0), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateWriteCapacity", Kind::Long, Number(0), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStatePointInTimeRecoveryEnabled", Kind::BoxedBool, Absent::Bool(false), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), STATE_TABLE, NO_TABLE, "None.")),
    within("coordinatorStateTableConfigBean", key("coordinatorStateTags", Kind::Tags, Words(&[]), STATE_TABLE, NO_TABLE, "None.")),
];
