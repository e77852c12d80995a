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

const RANDOM: &str = "it had no effect from a file in KCL 1.x either: delete it";

/// All retired keys.
#[rustfmt::skip]
pub const KEYS: &[Retired] = &[
    retired("timestampAtInitialPositionInStream", "write initialPositionInStreamExtended, in seconds since 1970"),
    retired("skipShardSyncAtStartupIfLeasesExist", "it is called skipShardSyncAtWorkerInitializationIfLeasesExist now"),
    retired("idleMillisBetweenCalls", "it is called idleTimeBetweenReadsInMillis now (which also switches DEFAULT to polling)"),
    retired("maxInitializationAttempts", "it is 20, fixed, since KCL 2"),
    retired("leaseCleanupIntervalMillis", "it is 60000, fixed"),
    retired("completedLeaseCleanupThresholdMillis", "it is 300000, fixed"),
    retired("garbageLeaseCleanupThresholdMillis", "it is 1800000, fixed"),
    retired("leasesRecoveryAuditorExecutionFrequencyMillis", "it is 120000, fixed"),
    retired("leasesRecoveryAuditorInconsistencyConfidenceThreshold", "it is 3, fixed"),
    retired("maxPendingProcessRecordsInput", "what is read ahead is bounded without a key"),
    retired("maxCacheByteSize", "what is read ahead is bounded without a key"),
    retired("maxRecordsCount", "what is read ahead is bounded without a key"),
    retired("dataFetchingStrategy", "records are always read ahead: delete it"),
    retired("userAgent", "clients name themselves: delete it"),
    retired("commonClientConfig", RANDOM),
    retired("kinesisClientConfig", RANDOM),
    retired("dynamoDBClientConfig", RANDOM),
    retired("cloudWatchClientConfig", RANDOM),
    retired("billingMode", RANDOM),
    retired("shardSyncStrategyType", RANDOM),
    retired("shardPrioritizationStrategy", RANDOM),
    retired("cloudwatchEndpoint", "write cloudWatchClient.endpointOverride"),
    retired("kinesisProtocol", "the protocol is part of kinesisEndpoint"),
    retired("dynamodbProtocol", "the protocol is part of dynamoDBEndpoint"),
    retired("disableCertChecking", "certificates are always checked: delete it"),
    retired("leaseAssignmentStrategy", "no version of the daemon takes it from a file: delete it"),
];
