//! Every key that reaches a setting in KCL 3.5, one row each: its handle, by which the code reads it, the type of what is
//! read, and its description. A table without logic.
//!
//! Sources: `MultiLangDaemonConfiguration` and the beans beside it, `MultiLangDaemonConfig`.

use super::Use::{Never, NoEffect, Yes};
use super::handle::{
    Count, Flag, Handle, Int, Maybe, Millis, Number, Percent, Real, Seconds, Text, Time, Times, Unread, Word,
    Words,
};
use super::{Absent, Key, Kind, Use, class};

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

/// Makes a handle of each row, and the table of all rows.
macro_rules! keys {
    ($(
        $handle:ident: $read:ty = ($name:literal, $kind:expr, $absent:expr, $sets:expr, $used:expr, $doc:expr)
            $(, in $bean:literal)? $(, also $alias:literal)?;
    )*) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub const $handle: Handle<$read> = Handle::of($name, class($kind, $absent));
        )*

        /// All keys of KCL.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            aliases: &[$($alias)?],
            bean: [$(Some($bean),)? None][0],
            kind: $kind,
            absent: $absent,
            sets: $sets,
            used: $used,
            doc: $doc,
        }),*];
    };
}

keys! {
    // The daemon and its child.
    EXECUTABLE: Text = ("executableName", Kind::Text, Absent::Required("./processor.py"), DAEMON, Yes,
        "The record processor and its arguments; split at blanks, looked up in PATH.");
    PROCESSING_LANGUAGE: Unread = ("processingLanguage", Kind::Text, Absent::Nothing, DAEMON, NoEffect("Java only logs it"), "Informative.");
    MAX_ACTIVE_THREADS: Unread = ("maxActiveThreads", Kind::Threads, Absent::Number(0), DAEMON, Never("multilangd has no thread pool"),
        "Maximum number of threads of the Java daemon.");
    TIMEOUT: Maybe<Seconds> = ("timeoutInSeconds", Kind::BoxedInt, Absent::Nothing, DAEMON, Yes,
        "Seconds that a child process may take to answer each message while an action is open.");
    SHUTDOWN_GRACE: Millis = ("shutdownGraceMillis", Kind::Long, Absent::Number(5_000), DAEMON, Yes,
        "Milliseconds that child processes may take to answer after shutdown starts. Java 2.x and 3.x: 0.");

    // Identity.
    APPLICATION: Text = ("applicationName", Kind::Text, Absent::Required("order-reader"), COORDINATOR, Yes,
        "Name of the application; also of the lease table, unless tableName is set.");
    STREAM: Text = ("streamName", Kind::Text, Absent::Required("orders (or streamArn)"), RETRIEVAL, Yes, "Name of the stream.");
    STREAM_ARN: Text = ("streamArn", Kind::Text, Absent::Nothing, RETRIEVAL, Yes,
        "ARN of the stream; takes precedence over streamName. Calls use the name in it, unless multilangd.useStreamArn is true.");
    TABLE: Text = ("tableName", Kind::Text, Absent::Application(""), LEASES, Yes, "Name of the lease table.");
    WORKER_ID: Text = ("workerId", Kind::Text, Absent::Told("a random UUID"), LEASES, Yes,
        "Id of this worker; must be unique in the application."), also "workerIdentifier";

    // Access. Credentials and nested client settings have tables of their own.
    REGION: Text = ("regionName", Kind::Region, Absent::Told("the SDK's chain"), "AwsClientBuilder", Yes, "The AWS region of all clients.");
    KINESIS_ENDPOINT: Text = ("kinesisEndpoint", Kind::Uri, Absent::Told("by region"), "KinesisAsyncClientBuilder", Yes, "Endpoint URL of Kinesis.");
    DYNAMODB_ENDPOINT: Text = ("dynamoDBEndpoint", Kind::Uri, Absent::Told("by region"), "DynamoDbAsyncClientBuilder", Yes, "Endpoint URL of DynamoDB.");

    // Leases.
    FAILOVER: Millis = ("failoverTimeMillis", Kind::Long, Absent::Number(10_000), LEASES, Yes,
        "Milliseconds without a renewal after which a lease expires and other workers may acquire it; a lease is renewed every two fifths of this (Java: every third). At least 78.");
    LEASE_ASSIGNMENT_INTERVAL: Millis = ("leaseAssignmentIntervalMillis", Kind::Long, Absent::Twice("failoverTimeMillis"), LEASES, Yes,
        "Milliseconds between two lease assignment rounds of the leader. Unassigned leases are assigned at once; load is rebalanced every varianceBalancingFrequency rounds.");
    SHARD_SYNC_INTERVAL: Millis = ("shardSyncIntervalMillis", Kind::Long, Absent::Number(60_000), LEASES, Yes,
        "Minimum milliseconds between two shard syncs that a missing lease causes.");
    MAX_LEASES: Count = ("maxLeasesForWorker", Kind::Int, Absent::Number(2_147_483_647), LEASES, Yes, "Maximum number of leases that this worker holds.");
    MAX_STEALS: Count = ("maxLeasesToStealAtOneTime", Kind::Int, Absent::Number(1), LEASES, Yes,
        "Maximum number of leases that are stolen from a busier worker in one round; an eighth of the leases that this worker lacks to its fair share, where that is more.");
    PRIORITY_ASSIGNMENT: Flag = ("enablePriorityLeaseAssignment", Kind::BoxedBool, Absent::Bool(true), LEASES, Yes,
        "Acquire leases that have been expired for three failover times even beyond the fair share of this worker.");
    MAX_RENEWAL_THREADS: Number = ("maxLeaseRenewalThreads", Kind::Int, Absent::Number(20), LEASES, Never("a task of its own renews each lease"),
        "Number of threads that renew leases in Java; not 1.");
    CLEANUP_LEASES: Unread = ("cleanupLeasesUponShardCompletion", Kind::Bool, Absent::Bool(true), LEASES, Yes,
        "Delete the lease of a finished shard after a minute, once its child shards are being processed. A properties file cannot set it to false in Java.");
    IGNORE_UNEXPECTED_CHILDREN: Flag = ("ignoreUnexpectedChildShards", Kind::Bool, Absent::Bool(false), LEASES, Yes,
        "Ignore a child shard that is listed while its parent is still open.");
    LIST_SHARDS_BACKOFF: Millis = ("listShardsBackoffTimeInMillis", Kind::Long, Absent::Number(1_500), LEASES, Yes,
        "Milliseconds to wait after ListShards was throttled.");
    LIST_SHARDS_ATTEMPTS: Times = ("maxListShardsRetryAttempts", Kind::Int, Absent::Number(50), LEASES, Yes,
        "Maximum number of attempts to call ListShards.");
    READ_CAPACITY: Unread = ("initialLeaseTableReadCapacity", Kind::Int, Absent::Number(10), LEASES, ON_DEMAND, "Read capacity units of the lease table.");
    WRITE_CAPACITY: Unread = ("initialLeaseTableWriteCapacity", Kind::Int, Absent::Number(10), LEASES, ON_DEMAND, "Write capacity units of the lease table.");
    SCAN_SEGMENTS: Int = ("leaseTableScanTotalSegments", Kind::Int, Absent::Number(0), LEASES, Yes,
        "Number of segments in which a parallel scan reads the lease table; 0 means one (Java: one for each 0.2 GB).");
    DELETION_PROTECTION: Flag = ("leaseTableDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), LEASES, Yes,
        "Enable deletion protection when the lease table is created.");
    POINT_IN_TIME_RECOVERY: Flag = ("leaseTablePitrEnabled", Kind::BoxedBool, Absent::Bool(false), LEASES, Yes,
        "Enable point-in-time recovery of the lease table at every start; a failure is logged as a warning.");
    GRACEFUL_HANDOFF: Flag = ("isGracefulLeaseHandoffEnabled", Kind::BoxedBool, Absent::Bool(true), HANDOFF, Yes,
        "Let the owner of a lease finish and checkpoint before the lease moves to another worker."), in "gracefulLeaseHandoffConfigBean";
    HANDOFF_TIMEOUT: Millis = ("gracefulLeaseHandoffTimeoutMillis", Kind::BoxedLong, Absent::Number(30_000), HANDOFF, Yes,
        "Milliseconds after which a graceful handoff times out."), in "gracefulLeaseHandoffConfigBean";

    // Worker, shards, processing.
    POSITION: Word = ("initialPositionInStream", Kind::Enum(POSITIONS), Absent::Text("LATEST"), RETRIEVAL, Yes,
        "Initial position of new leases: LATEST or TRIM_HORIZON.");
    POSITION_EXTENDED: Maybe<Number> = ("initialPositionInStreamExtended", Kind::EpochSeconds, Absent::Nothing, RETRIEVAL, Yes,
        "Initial position of new leases as a timestamp: seconds since 1970, not in the future.");
    PARENT_POLL_INTERVAL: Millis = ("parentShardPollIntervalMillis", Kind::Long, Absent::Number(10_000), COORDINATOR, Yes,
        "Milliseconds between two checks whether the parents of a shard are finished.");
    SKIP_SHARD_SYNC: Flag = ("skipShardSyncAtWorkerInitializationIfLeasesExist", Kind::Bool, Absent::Bool(false), COORDINATOR, Yes,
        "true: skip the shard sync at start if leases exist; and, as in KCL 3.x, do not check the hash keys of aggregated records against the shard.");
    INITIALIZATION_BACKOFF: Millis = ("schedulerInitializationBackoffTimeMillis", Kind::Long, Absent::Number(1_000), COORDINATOR, Yes,
        "Milliseconds between two of the 20 attempts to start.");
    SHARD_PRIORITIZATION: Unread = ("shardPrioritization", Kind::Unusable, Absent::Nothing, COORDINATOR, NoEffect("Java cannot read any value of it"), "None.");
    CLIENT_VERSION: Word = ("clientVersionConfig", Kind::Enum(VERSIONS), Absent::Text("CLIENT_VERSION_CONFIG_3X"), COORDINATOR, Yes,
        "KCL versions that this worker stays compatible with. The migration state stored in the tables takes precedence.");
    MIGRATE_TABLES: Flag = ("migrateAllEntitiesToLeaseTable", Kind::Bool, Absent::Bool(false), COORDINATOR, Yes,
        "Migrate what KCL 3.0 to 3.4 keeps in three tables into the lease table.");
    BAKE_TIME: Seconds = ("tableMigrationCompleteBakeTimeSeconds", Kind::Long, Absent::Number(86_400), COORDINATOR, Yes,
        "Seconds to wait before the last step of that migration; clamped to 3600 to 604800.");
    DELIVER_EMPTY_BATCHES: Flag = ("callProcessRecordsEvenForEmptyRecordList", Kind::Bool, Absent::Bool(false), "ProcessorConfig", Yes,
        "Deliver empty batches to child processes.");
    TASK_BACKOFF: Millis = ("taskBackoffTimeMillis", Kind::Long, Absent::Number(500), LIFECYCLE, Yes,
        "Initial milliseconds to wait before a failed child process or an internal task is restarted.");
    WARN_AFTER: Maybe<Millis> = ("logWarningForTaskAfterMillis", Kind::BoxedLong, Absent::Nothing, LIFECYCLE, Yes,
        "Milliseconds after which a batch that is still being processed is logged as a warning, repeated every ten seconds (Java: every second).");
    VALIDATE_SEQUENCE_NUMBER: Unread = ("validateSequenceNumberBeforeCheckpointing", Kind::Bool, Absent::Nothing, "-", NoEffect("KCL 2.x and 3.x do not read it either"), "None.");

    // Retrieval.
    RETRIEVAL_MODE: Word = ("retrievalMode", Kind::Enum(&["DEFAULT", "POLLING", "FANOUT"]), Absent::Text("DEFAULT"), RETRIEVAL, Yes,
        "POLLING or FANOUT (enhanced fan-out); DEFAULT is FANOUT unless a polling key is set.");
    MAX_RECORDS: Count = ("maxRecords", Kind::Int, Absent::Number(10_000), POLLING, Yes,
        "Maximum number of records that one GetRecords call returns; at most 10000. A polling key."), in "pollingConfig";
    IDLE_TIME: Millis = ("idleTimeBetweenReadsInMillis", Kind::Long, Absent::Number(1_500), POLLING, Yes,
        "Milliseconds between a GetRecords response and the next call for the same shard; at least 200. A polling key."), in "pollingConfig";
    REDUCED_TPS_THRESHOLD: Millis = ("millisBehindLatestThresholdForReducedTps", Kind::Long, Absent::Number(0), POLLING, Yes,
        "Reduce the rate of GetRecords calls while millisBehindLatest is below this. A polling key."), in "pollingConfig";
    RETRY_GET_RECORDS: Unread = ("retryGetRecordsInSeconds", Kind::BoxedInt, Absent::Nothing, POLLING, NoEffect("KCL 3.x only derives the retrieval mode from it"),
        "A polling key."), in "pollingConfig";
    GET_RECORDS_THREADS: Unread = ("maxGetRecordsThreadPool", Kind::BoxedInt, Absent::Nothing, POLLING, NoEffect("KCL 3.x only derives the retrieval mode from it"),
        "A polling key."), in "pollingConfig";
    CONSUMER_ARN: Text = ("fanoutConfig.consumerArn", Kind::Text, Absent::Told("found or registered"), FANOUT, Yes, "ARN of a registered enhanced fan-out consumer.");
    CONSUMER_NAME: Text = ("fanoutConfig.consumerName", Kind::Text, Absent::Application(""), FANOUT, Yes, "Name of the enhanced fan-out consumer to find or register.");
    DESCRIBE_STREAM_ATTEMPTS: Times = ("fanoutConfig.maxDescribeStreamSummaryRetries", Kind::Int, Absent::Number(10), FANOUT, Yes, "Maximum number of DescribeStreamSummary calls in a row.");
    DESCRIBE_CONSUMER_ATTEMPTS: Times = ("fanoutConfig.maxDescribeStreamConsumerRetries", Kind::Int, Absent::Number(10), FANOUT, Yes, "Maximum number of DescribeStreamConsumer calls in a row.");
    REGISTER_CONSUMER_ATTEMPTS: Times = ("fanoutConfig.registerStreamConsumerRetries", Kind::Int, Absent::Number(10), FANOUT, Yes, "Maximum number of RegisterStreamConsumer calls in a row.");
    CONSUMER_BACKOFF: Millis = ("fanoutConfig.retryBackoffMillis", Kind::Long, Absent::Number(1_000), FANOUT, Yes, "Milliseconds between these calls.");

    // Metrics.
    METRICS_LEVEL: Word = ("metricsLevel", Kind::Enum(&["NONE", "SUMMARY", "DETAILED"]), Absent::Text("DETAILED"), METRICS, Yes, "Metrics level of CloudWatch: NONE, SUMMARY or DETAILED.");
    METRICS_DIMENSIONS: Words = ("metricsEnabledDimensions", Kind::Words, Absent::Words(&["ALL"]), METRICS, Yes,
        "Dimensions of the CloudWatch metrics: Operation, ShardId, WorkerIdentifier, StreamId, ALL.");
    METRICS_BUFFER_TIME: Millis = ("metricsBufferTimeMillis", Kind::Long, Absent::Number(10_000), METRICS, Yes, "Milliseconds between two calls that publish metrics.");
    METRICS_QUEUE_SIZE: Count = ("metricsMaxQueueSize", Kind::Int, Absent::Number(10_000), METRICS, Yes, "Maximum number of metric data that wait to be published; more are dropped.");

    // Balancing by load.
    CPU_SAMPLE_INTERVAL: Millis = ("inMemoryWorkerMetricsCaptureFrequencyMillis", Kind::Long, Absent::Number(1_000), BALANCE, Yes,
        "Milliseconds between two samples of the CPU utilisation of this worker."), in "workerUtilizationAwareAssignmentConfigBean";
    REPORT_INTERVAL: Millis = ("workerMetricsReporterFreqInMillis", Kind::Long, Absent::Number(30_000), BALANCE, Yes,
        "Milliseconds between two reports of the worker metrics."), in "workerUtilizationAwareAssignmentConfigBean";
    REPORTED_VALUES: Count = ("noOfPersistedMetricsPerWorkerMetrics", Kind::Int, Absent::Number(10), BALANCE, Yes,
        "Number of values that a report of the worker metrics contains."), in "workerUtilizationAwareAssignmentConfigBean";
    DISABLE_WORKER_METRICS: Flag = ("disableWorkerMetrics", Kind::BoxedBool, Absent::Bool(false), BALANCE, Yes,
        "Report no CPU utilisation; leases are then balanced by throughput."), in "workerUtilizationAwareAssignmentConfigBean";
    MAX_THROUGHPUT: Real = ("maxThroughputPerHostKBps", Kind::Double, Absent::Real(f64::MAX), BALANCE, Yes,
        "Maximum throughput in KB/s that is assigned to one worker."), in "workerUtilizationAwareAssignmentConfigBean";
    DAMPENING: Percent = ("dampeningPercentage", Kind::Int, Absent::Number(60), BALANCE, Yes,
        "Percentage of an imbalance that one rebalancing round corrects."), in "workerUtilizationAwareAssignmentConfigBean";
    REBALANCE_THRESHOLD: Percent = ("reBalanceThresholdPercentage", Kind::Int, Absent::Number(10), BALANCE, Yes,
        "Percentage of deviation from the average load that is tolerated without rebalancing."), in "workerUtilizationAwareAssignmentConfigBean";
    THROUGHPUT_OVERSHOOT: Flag = ("allowThroughputOvershoot", Kind::BoxedBool, Absent::Bool(true), BALANCE, Yes,
        "Move a lease even if its throughput exceeds what has to be moved."), in "workerUtilizationAwareAssignmentConfigBean";
    BALANCING_FREQUENCY: Times = ("varianceBalancingFrequency", Kind::Int, Absent::Number(3), BALANCE, Yes,
        "Number of lease assignment rounds between two rebalancing rounds."), in "workerUtilizationAwareAssignmentConfigBean";
    EMA_ALPHA: Real = ("workerMetricsEMAAlpha", Kind::Double, Absent::Real(0.5), BALANCE, Yes,
        "Weight of the newest value in the exponential moving average of the worker metrics."), in "workerUtilizationAwareAssignmentConfigBean";
    STALE_METRICS_AGE: Time = ("staleWorkerMetricsEntryCleanupDuration", Kind::Duration, Absent::Seconds(86_400), BALANCE, Yes,
        "Age at which the metrics of a worker that no longer reports are deleted."), in "workerUtilizationAwareAssignmentConfigBean";

    // Tables of KCL before 3.5.
    WORKER_METRICS_TABLE: Text = ("workerMetricsTableName", Kind::Text, Absent::Application("-WorkerMetricStats"), METRICS_TABLE, Yes,
        "Name of the worker metrics table of KCL 3.0 to 3.4, where it exists."), in "workerMetricStatsTableConfigBean";
    WORKER_METRICS_BILLING: Unread = ("workerMetricsBillingMode", Kind::Enum(BILLING), Absent::Text("PAY_PER_REQUEST"), METRICS_TABLE, NO_TABLE, "None."), in "workerMetricStatsTableConfigBean";
    WORKER_METRICS_READ_CAPACITY: Unread = ("workerMetricsReadCapacity", Kind::Long, Absent::Number(0), METRICS_TABLE, NO_TABLE, "None."), in "workerMetricStatsTableConfigBean";
    WORKER_METRICS_WRITE_CAPACITY: Unread = ("workerMetricsWriteCapacity", Kind::Long, Absent::Number(0), METRICS_TABLE, NO_TABLE, "None."), in "workerMetricStatsTableConfigBean";
    WORKER_METRICS_RECOVERY: Unread = ("workerMetricsPointInTimeRecoveryEnabled", Kind::BoxedBool, Absent::Bool(false), METRICS_TABLE, NO_TABLE, "None."), in "workerMetricStatsTableConfigBean";
    WORKER_METRICS_PROTECTION: Unread = ("workerMetricsDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), METRICS_TABLE, NO_TABLE, "None."), in "workerMetricStatsTableConfigBean";
    WORKER_METRICS_TAGS: Unread = ("workerMetricsTags", Kind::Tags, Absent::Words(&[]), METRICS_TABLE, NO_TABLE, "None."), in "workerMetricStatsTableConfigBean";
    COORDINATOR_STATE_TABLE: Text = ("coordinatorStateTableName", Kind::Text, Absent::Application("-CoordinatorState"), STATE_TABLE, Yes,
        "Name of the coordinator state table of KCL 3.0 to 3.4, where it exists."), in "coordinatorStateTableConfigBean";
    COORDINATOR_STATE_BILLING: Unread = ("coordinatorStateBillingMode", Kind::Enum(BILLING), Absent::Text("PAY_PER_REQUEST"), STATE_TABLE, NO_TABLE, "None."), in "coordinatorStateTableConfigBean";
    COORDINATOR_STATE_READ_CAPACITY: Unread = ("coordinatorStateReadCapacity", Kind::Long, Absent::Number(0), STATE_TABLE, NO_TABLE, "None."), in "coordinatorStateTableConfigBean";
    COORDINATOR_STATE_WRITE_CAPACITY: Unread = ("coordinatorStateWriteCapacity", Kind::Long, Absent::Number(0), STATE_TABLE, NO_TABLE, "None."), in "coordinatorStateTableConfigBean";
    COORDINATOR_STATE_RECOVERY: Unread = ("coordinatorStatePointInTimeRecoveryEnabled", Kind::BoxedBool, Absent::Bool(false), STATE_TABLE, NO_TABLE, "None."), in "coordinatorStateTableConfigBean";
    COORDINATOR_STATE_PROTECTION: Unread = ("coordinatorStateDeletionProtectionEnabled", Kind::BoxedBool, Absent::Bool(false), STATE_TABLE, NO_TABLE, "None."), in "coordinatorStateTableConfigBean";
    COORDINATOR_STATE_TAGS: Unread = ("coordinatorStateTags", Kind::Tags, Absent::Words(&[]), STATE_TABLE, NO_TABLE, "None."), in "coordinatorStateTableConfigBean";
}
