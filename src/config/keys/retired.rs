//! Keys that only KCL 1.x knew, or that occur in files although no version knew them. Java ignores them
//! silently; here each gets one warning with its replacement. None is applied: the file means the same as to
//! Java 3.5.
//!
//! Source: `KinesisClientLibConfigurator` and `KinesisClientLibConfiguration` of KCL 1.14.

/// A retired key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// The name of the key.
    pub name: &'static str,
    /// The advice in the warning.
    pub advice: &'static str,
}

const fn retired(name: &'static str, advice: &'static str) -> Retired {
    Retired { name, advice }
}

const RANDOM: &str = "it had no effect in a properties file in KCL 1.x either (delete it)";

/// All retired keys.
#[rustfmt::skip]
pub const KEYS: &[Retired] = &[
    retired("timestampAtInitialPositionInStream", "set initialPositionInStreamExtended, in seconds since 1970"),
    retired("skipShardSyncAtStartupIfLeasesExist", "use its new name skipShardSyncAtWorkerInitializationIfLeasesExist"),
    retired("idleMillisBetweenCalls", "use its new name idleTimeBetweenReadsInMillis (which also switches DEFAULT to polling)"),
    retired("maxInitializationAttempts", "the value is fixed to 20 since KCL 2.x"),
    retired("leaseCleanupIntervalMillis", "the value is fixed to 60000"),
    retired("completedLeaseCleanupThresholdMillis", "the value is fixed to 300000"),
    retired("garbageLeaseCleanupThresholdMillis", "the value is fixed to 1800000"),
    retired("leasesRecoveryAuditorExecutionFrequencyMillis", "the value is fixed to 120000"),
    retired("leasesRecoveryAuditorInconsistencyConfidenceThreshold", "the value is fixed to 3"),
    retired("maxPendingProcessRecordsInput", "multilangd.bufferMegabytes limits the records that are read ahead"),
    retired("maxCacheByteSize", "multilangd.bufferMegabytes limits the records that are read ahead"),
    retired("maxRecordsCount", "multilangd.bufferMegabytes limits the records that are read ahead"),
    retired("dataFetchingStrategy", "records are always read ahead (delete it)"),
    retired("userAgent", "clients set their user agent themselves (delete it)"),
    retired("commonClientConfig", RANDOM),
    retired("kinesisClientConfig", RANDOM),
    retired("dynamoDBClientConfig", RANDOM),
    retired("cloudWatchClientConfig", RANDOM),
    retired("billingMode", RANDOM),
    retired("shardSyncStrategyType", RANDOM),
    retired("shardPrioritizationStrategy", RANDOM),
    retired("cloudwatchEndpoint", "set cloudWatchClient.endpointOverride"),
    retired("kinesisProtocol", "the protocol is part of kinesisEndpoint"),
    retired("dynamodbProtocol", "the protocol is part of dynamoDBEndpoint"),
    retired("disableCertChecking", "certificates are always verified (delete it)"),
    retired("leaseAssignmentStrategy", "no version of the daemon reads it from a properties file (delete it)"),
];
