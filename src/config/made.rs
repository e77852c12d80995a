//! Converts valid settings into the [`Config`].

use std::time::Duration;

use super::credentials::Provider;
use super::keys::client::Service;
use super::keys::own;
use super::resolve::Resolved;
use super::value::Value;
use super::{
    ChildLog, ChildProtocol, ClientConfig, Config, DeadLetterLimits, Faults, OnChildFailure, OnHopelessShard,
    Remark, Source, Status, letters,
};
use crate::fleet::version::Configured;
use crate::fleet::{leader, report};
use crate::lease::WorkerId;
use crate::lease::sync::InitialPosition;
use crate::metrics::cloudwatch;
use crate::retrieval::registration;
use crate::stream::ConfiguredArn;

impl Resolved {
    /// The configuration, with `default_worker` as the worker id if the file has none.
    ///
    /// # Errors
    /// All errors at once.
    pub fn config(self, default_worker: &str) -> Result<(Config, Vec<Remark>), Faults> {
        if !self.faults.is_empty() {
            return Err(Faults { faults: self.faults, warnings: self.warnings });
        }
        let s = &self.settings;
        let text = |name: &str| s.text(name).unwrap_or_default();
        let millis = |name: &str| Duration::from_millis(u64::try_from(s.number(name)).unwrap_or(0));
        let count = |name: &str| usize::try_from(s.number(name)).unwrap_or(0);
        let initial =
            match (s.value("initialPositionInStreamExtended"), text("initialPositionInStream").as_str()) {
                (Value::Number(seconds), _) => InitialPosition::AtTimestamp(seconds.saturating_mul(1000)),
                (_, "TRIM_HORIZON") => InitialPosition::TrimHorizon,
                _ => InitialPosition::Latest,
            };
        let worker = self.worker(default_worker);
        let config = Config {
            application: text("applicationName"),
            stream: text("streamName"),
            stream_arn: s
                .text("streamArn")
                .map(|arn| ConfiguredArn { arn, used: text(own::USE_STREAM_ARN) == own::TRUE }),
            table: text("tableName"),
            worker: WorkerId::from(worker.as_str()),
            executable: text("executableName"),
            kinesis: self.client(Service::Kinesis),
            dynamodb: self.client(Service::DynamoDb),
            cloudwatch: self.client(Service::CloudWatch),
            sdk: self.sdk.clone(),
            initial,
            failover: millis("failoverTimeMillis"),
            max_leases: count("maxLeasesForWorker"),
            max_steals: count("maxLeasesToStealAtOneTime"),
            priority: s.is("enablePriorityLeaseAssignment"),
            generation: match text("clientVersionConfig").as_str() {
                "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1" => Configured::Phase1,
                "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X" => Configured::Compatible,
                _ if s.get("clientVersionConfig").is_some_and(|given| given.source == Source::Default) => {
                    Configured::Default
                }
                _ => Configured::ThreeX,
            },
            migrate: s.is("migrateAllEntitiesToLeaseTable"),
            bake: millis("tableMigrationCompleteBakeTimeSeconds").saturating_mul(1_000),
            rules: self.rules(),
            reports: report::Rules {
                every: millis("workerMetricsReporterFreqInMillis"),
                alpha: s.real("workerMetricsEMAAlpha"),
                stale: s.duration("staleWorkerMetricsEntryCleanupDuration"),
            },
            sample_every: millis("inMemoryWorkerMetricsCaptureFrequencyMillis"),
            averages: count("noOfPersistedMetricsPerWorkerMetrics"),
            measure: !s.is("disableWorkerMetrics"),
            protect_table: s.is("leaseTableDeletionProtectionEnabled"),
            recover_table: s.is("leaseTablePitrEnabled"),
            scan_segments: i32::try_from(s.number("leaseTableScanTotalSegments")).unwrap_or(0),
            state_table: text("coordinatorStateTableName"),
            reports_table: text("workerMetricsTableName"),
            answer: (*s.value("timeoutInSeconds") != Value::Nothing)
                .then(|| Duration::from_secs(u64::try_from(s.number("timeoutInSeconds")).unwrap_or(0))),
            warn_after: (*s.value("logWarningForTaskAfterMillis") != Value::Nothing)
                .then(|| millis("logWarningForTaskAfterMillis")),
            shutdown_grace: millis("shutdownGraceMillis"),
            task_backoff: millis("taskBackoffTimeMillis"),
            parent_poll: millis("parentShardPollIntervalMillis"),
            initialization_backoff: millis("schedulerInitializationBackoffTimeMillis"),
            // Java does not use it with FANOUT.
            max_records: count("maxRecords").clamp(1, 10_000),
            idle: millis("idleTimeBetweenReadsInMillis"),
            idle_behind: if let Value::Number(_) = s.value(own::IDLE_BEHIND) {
                millis(own::IDLE_BEHIND)
            } else {
                millis("idleTimeBetweenReadsInMillis")
            },
            near: millis("millisBehindLatestThresholdForReducedTps"),
            fanout: self.fanout(),
            buffer: count(own::BUFFER).saturating_mul(1024 * 1024),
            metrics: self.metrics(&worker),
            status: own::address(&text(own::STATUS)).map(|address| Status {
                address,
                asked_for: s.get(own::STATUS).is_some_and(|setting| setting.source != Source::Default),
            }),
            stuck_after: millis(own::STUCK_AFTER),
            keep_empty: s.is("callProcessRecordsEvenForEmptyRecordList"),
            resume_latest: text(own::RESUME_LATEST) == own::TRUE,
            ignore_unexpected_children: s.is("ignoreUnexpectedChildShards"),
            skip_sync_if_leases_exist: s.is("skipShardSyncAtWorkerInitializationIfLeasesExist"),
            shard_sync_pause: millis("shardSyncIntervalMillis"),
            list_shards_pause: millis("listShardsBackoffTimeInMillis"),
            list_shards_attempts: u32::try_from(s.number("maxListShardsRetryAttempts")).unwrap_or(1),
            on_child_failure: match text(own::ON_CHILD_FAILURE).as_str() {
                "exit" => OnChildFailure::Exit,
                _ => OnChildFailure::Restart,
            },
            on_hopeless_shard: match text(own::ON_HOPELESS_SHARD).as_str() {
                "exit" => OnHopelessShard::Exit,
                _ => OnHopelessShard::Park,
            },
            dead_letters: letters::parse(&text(own::DEAD_LETTERS)).unwrap_or_default(),
            max_age: Some(s.number(own::MAX_RECORD_AGE)).filter(|millis| *millis > 0),
            skip_old_records: text(own::SKIP_OLD_RECORDS) == own::TRUE,
            dead_letter_limits: DeadLetterLimits {
                record_failures: u32::try_from(s.number(own::MAX_RECORD_FAILURES)).unwrap_or(1),
                in_a_row: u32::try_from(s.number(own::MAX_DEAD_LETTERS_IN_A_ROW)).unwrap_or(1),
            },
            max_batch_records: Some(count(own::MAX_BATCH_RECORDS)).filter(|most| *most > 0),
            batch_window: Some(millis(own::BATCH_WINDOW)).filter(|window| !window.is_zero()),
            child_error_text: letters::error_text(&text(own::CHILD_ERROR_LINE)),
            parked_pause: Duration::from_millis(u64::try_from(s.number(own::MAX_PARKED_PAUSE)).unwrap_or(1)),
            max_child_failures: u32::try_from(s.number(own::MAX_CHILD_FAILURES)).unwrap_or(1),
            child_protocol: ChildProtocol::of(&text(own::CHILD_PROTOCOL)),
            child_log: match text(own::CHILD_LOG).as_str() {
                "raw" => ChildLog::Raw,
                "json" => ChildLog::Json,
                _ => ChildLog::Lines,
            },
            child_exit_grace: millis(own::CHILD_EXIT_GRACE),
            child_kill_grace: millis(own::CHILD_KILL_GRACE),
        };
        Ok((config, self.warnings))
    }

    /// The worker id: the file's with its suffix, or the random one.
    fn worker(&self, random: &str) -> String {
        let Some(id) = self.settings.text("workerId") else { return random.to_owned() };
        match self.settings.text(own::WORKER_ID_SUFFIX).as_deref() {
            // The last part of a UUID.
            Some("random") => format!("{id}-{}", random.rsplit('-').next().unwrap_or(random)),
            Some("hostname") => format!("{id}-{}", self.hostname),
            _ => id,
        }
    }

    fn rules(&self) -> leader::Rules {
        let s = &self.settings;
        let millis = |name: &str| Duration::from_millis(u64::try_from(s.number(name)).unwrap_or(0));
        let failover = millis("failoverTimeMillis");
        let interval = match millis("leaseAssignmentIntervalMillis") {
            Duration::ZERO => failover * 2,
            given => given,
        };
        leader::Rules {
            failover,
            threshold: percent(s.number("reBalanceThresholdPercentage")),
            dampening: percent(s.number("dampeningPercentage")),
            overshoot: s.is("allowThroughputOvershoot"),
            max_throughput: s.real("maxThroughputPerHostKBps"),
            max_leases: usize::try_from(s.number("maxLeasesForWorker")).unwrap_or(0),
            balance_every: interval
                * u32::try_from(s.number("varianceBalancingFrequency")).unwrap_or(1).max(1),
            graceful: s.is("isGracefulLeaseHandoffEnabled"),
            hand_off: millis("gracefulLeaseHandoffTimeoutMillis"),
        }
    }

    /// The CloudWatch settings; none if no metrics are sent.
    fn metrics(&self, worker: &str) -> Option<cloudwatch::Settings> {
        let s = &self.settings;
        let number = |name: &str| u64::try_from(s.number(name)).unwrap_or(0);
        let level = match s.text("metricsLevel").as_deref() {
            Some("DETAILED") => cloudwatch::Level::Detailed,
            Some("SUMMARY") => cloudwatch::Level::Summary,
            _ => return None,
        };
        let enabled = s.value("metricsEnabledDimensions");
        let words = if let Value::Words(words) = enabled { words.as_slice() } else { &[] };
        let all = words.iter().any(|word| word == "ALL");
        let dimensions = (!all).then(|| words.iter().cloned().collect());
        Some(cloudwatch::Settings {
            level,
            dimensions,
            every: Duration::from_millis(number("metricsBufferTimeMillis")),
            most: usize::try_from(s.number("metricsMaxQueueSize")).unwrap_or(0),
            worker: worker.to_owned(),
            max_leases: usize::try_from(s.number("maxLeasesForWorker")).unwrap_or(0),
            renewals: Duration::from_millis(number("failoverTimeMillis")) / 3,
        })
    }

    /// The fan-out settings; none if records are polled.
    fn fanout(&self) -> Option<registration::Settings> {
        let s = &self.settings;
        let attempts = |name: &str| u32::try_from(s.number(name)).unwrap_or(0);
        let name = s.text("fanoutConfig.consumerName").or_else(|| s.text("applicationName"));
        (s.text("retrievalMode").as_deref() == Some("FANOUT")).then(|| registration::Settings {
            arn: s.text("fanoutConfig.consumerArn"),
            name: name.unwrap_or_default(),
            stream_attempts: attempts("fanoutConfig.maxDescribeStreamSummaryRetries"),
            describe_attempts: attempts("fanoutConfig.maxDescribeStreamConsumerRetries"),
            register_attempts: attempts("fanoutConfig.registerStreamConsumerRetries"),
            pause: Duration::from_millis(
                u64::try_from(s.number("fanoutConfig.retryBackoffMillis")).unwrap_or(0),
            ),
        })
    }

    pub(super) fn client(&self, service: Service) -> ClientConfig {
        let value = |name: &'static str| self.clients.get(&(service, name)).map(|held| &held.value);
        let text = |name| match value(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let is = |name| match value(name) {
            Some(Value::Bool(is)) => Some(*is),
            _ => None,
        };
        let time = |name| match value(name) {
            Some(Value::Duration(duration)) => Some(*duration),
            _ => None,
        };
        let own = self.credentials.get(&service).or_else(|| self.credentials.get(&Service::Kinesis));
        ClientConfig {
            region: text("region"),
            endpoint: text("endpointOverride"),
            dual_stack: is("dualstackEnabled"),
            fips: is("fipsEnabled"),
            call_timeout: time("overrideConfiguration.apiCallTimeout"),
            attempt_timeout: time("overrideConfiguration.apiCallAttemptTimeout"),
            providers: own.cloned().unwrap_or_else(|| vec![Provider::Default]),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn percent(number: i64) -> f64 {
    number as f64
}
