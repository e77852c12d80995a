//! Converts valid settings into the [`Config`].

use super::credentials::Provider;
use super::keys::client::Service;
use super::keys::{kcl, own};
use super::resolve::Resolved;
use super::value::Value;
use super::{
    ChildLog, ChildProtocol, ClientConfig, Config, DeadLetterLimits, Faults, OnChildFailure, OnHopelessShard,
    Remark, Source, Status, letters, streams,
};
use crate::batch::MOST_RECORDS;
use crate::fleet::version::Configured;
use crate::fleet::{leader, report};
use crate::lease::sync::InitialPosition;
use crate::lease::{WorkerId, balance};
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
        let initial = match (s.of(kcl::POSITION_EXTENDED), s.of(kcl::POSITION).as_str()) {
            (Some(seconds), _) => InitialPosition::AtTimestamp(seconds.saturating_mul(1000)),
            (None, "TRIM_HORIZON") => InitialPosition::TrimHorizon,
            (None, _) => InitialPosition::Latest,
        };
        let idle = s.of(kcl::IDLE_TIME);
        let worker = self.worker(default_worker);
        let config = Config {
            application: s.of(kcl::APPLICATION).unwrap_or_default(),
            stream: s.of(kcl::STREAM).unwrap_or_else(|| streams::of(s).words().collect::<Vec<_>>().join(",")),
            streams: streams::of(s),
            delete_former: Some(s.of(own::DELETE_FORMER)).filter(|after| !after.is_zero()),
            use_stream_arn: s.of(own::USE_STREAM_ARN),
            stream_arn: s
                .of(kcl::STREAM_ARN)
                .map(|arn| ConfiguredArn { arn, used: s.of(own::USE_STREAM_ARN) }),
            table: s.of(kcl::TABLE).unwrap_or_default(),
            worker: WorkerId::from(worker.as_str()),
            executable: s.of(kcl::EXECUTABLE).unwrap_or_default(),
            kinesis: self.client(Service::Kinesis),
            dynamodb: self.client(Service::DynamoDb),
            cloudwatch: self.client(Service::CloudWatch),
            sdk: self.sdk.clone(),
            initial,
            failover: s.of(kcl::FAILOVER),
            max_leases: s.of(kcl::MAX_LEASES),
            max_steals: s.of(kcl::MAX_STEALS),
            priority: s.of(kcl::PRIORITY_ASSIGNMENT),
            generation: match s.of(kcl::CLIENT_VERSION).as_str() {
                "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1" => Configured::Phase1,
                "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X" => Configured::Compatible,
                _ if s.source(kcl::CLIENT_VERSION) == Source::Default => Configured::Default,
                _ => Configured::ThreeX,
            },
            migrate: s.of(kcl::MIGRATE_TABLES),
            bake: s.of(kcl::BAKE_TIME),
            rules: self.rules(),
            reports: report::Rules {
                every: s.of(kcl::REPORT_INTERVAL),
                alpha: s.of(kcl::EMA_ALPHA),
                stale: s.of(kcl::STALE_METRICS_AGE),
            },
            sample_every: s.of(kcl::CPU_SAMPLE_INTERVAL),
            averages: s.of(kcl::REPORTED_VALUES),
            measure: !s.of(kcl::DISABLE_WORKER_METRICS),
            protect_table: s.of(kcl::DELETION_PROTECTION),
            recover_table: s.of(kcl::POINT_IN_TIME_RECOVERY),
            scan_segments: s.of(kcl::SCAN_SEGMENTS),
            state_table: s.of(kcl::COORDINATOR_STATE_TABLE).unwrap_or_default(),
            reports_table: s.of(kcl::WORKER_METRICS_TABLE).unwrap_or_default(),
            answer: s.of(kcl::TIMEOUT),
            warn_after: s.of(kcl::WARN_AFTER),
            shutdown_grace: s.of(kcl::SHUTDOWN_GRACE),
            task_backoff: s.of(kcl::TASK_BACKOFF),
            parent_poll: s.of(kcl::PARENT_POLL_INTERVAL),
            initialization_backoff: s.of(kcl::INITIALIZATION_BACKOFF),
            // Java does not use it with FANOUT.
            max_records: s.of(kcl::MAX_RECORDS).clamp(1, MOST_RECORDS),
            idle,
            idle_behind: s.of(own::IDLE_BEHIND).unwrap_or(idle),
            near: s.of(kcl::REDUCED_TPS_THRESHOLD),
            fanout: self.fanout(),
            buffer: s.of(own::BUFFER).saturating_mul(1024 * 1024),
            metrics: self.metrics(&worker),
            status: own::address(&s.of(own::STATUS))
                .map(|address| Status { address, asked_for: s.source(own::STATUS) != Source::Default }),
            stuck_after: s.of(own::STUCK_AFTER),
            keep_empty: s.of(kcl::DELIVER_EMPTY_BATCHES),
            resume_latest: s.of(own::RESUME_LATEST),
            ignore_unexpected_children: s.of(kcl::IGNORE_UNEXPECTED_CHILDREN),
            skip_sync_if_leases_exist: s.of(kcl::SKIP_SHARD_SYNC),
            shard_sync_pause: s.of(kcl::SHARD_SYNC_INTERVAL),
            list_shards_pause: s.of(kcl::LIST_SHARDS_BACKOFF),
            list_shards_attempts: s.of(kcl::LIST_SHARDS_ATTEMPTS).max(1),
            on_child_failure: match s.of(own::ON_CHILD_FAILURE).as_str() {
                "exit" => OnChildFailure::Exit,
                _ => OnChildFailure::Restart,
            },
            on_hopeless_shard: match s.of(own::ON_HOPELESS_SHARD).as_str() {
                "exit" => OnHopelessShard::Exit,
                _ => OnHopelessShard::Park,
            },
            dead_letters: letters::parse(&s.of(own::DEAD_LETTERS)).unwrap_or_default(),
            max_age: Some(s.of(own::MAX_RECORD_AGE)).filter(|millis| *millis > 0),
            skip_old_records: s.of(own::SKIP_OLD_RECORDS),
            dead_letter_limits: DeadLetterLimits {
                record_failures: s.of(own::MAX_RECORD_FAILURES),
                in_a_row: s.of(own::MAX_DEAD_LETTERS_IN_A_ROW),
            },
            max_batch_records: Some(s.of(own::MAX_BATCH_RECORDS)).filter(|most| *most > 0),
            batch_window: Some(s.of(own::BATCH_WINDOW)).filter(|window| !window.is_zero()),
            child_error_text: letters::error_text(&s.of(own::CHILD_ERROR_LINE)),
            parked_pause: s.of(own::MAX_PARKED_PAUSE),
            max_child_failures: s.of(own::MAX_CHILD_FAILURES),
            child_protocol: ChildProtocol::of(&s.of(own::CHILD_PROTOCOL)),
            child_log: match s.of(own::CHILD_LOG).as_str() {
                "raw" => ChildLog::Raw,
                "json" => ChildLog::Json,
                _ => ChildLog::Lines,
            },
            child_exit_grace: s.of(own::CHILD_EXIT_GRACE),
            child_kill_grace: s.of(own::CHILD_KILL_GRACE),
        };
        Ok((config, self.warnings))
    }

    /// The worker id: the file's with its suffix, or the random one.
    fn worker(&self, random: &str) -> String {
        let Some(id) = self.settings.of(kcl::WORKER_ID) else { return random.to_owned() };
        match self.settings.of(own::WORKER_ID_SUFFIX).as_str() {
            // The last part of a UUID.
            "random" => format!("{id}-{}", random.rsplit('-').next().unwrap_or(random)),
            "hostname" => format!("{id}-{}", self.hostname),
            _ => id,
        }
    }

    fn rules(&self) -> leader::Rules {
        let s = &self.settings;
        leader::Rules {
            failover: s.of(kcl::FAILOVER),
            balance: balance::Rules {
                threshold: s.of(kcl::REBALANCE_THRESHOLD),
                dampening: s.of(kcl::DAMPENING),
                overshoot: s.of(kcl::THROUGHPUT_OVERSHOOT),
                max_throughput: s.of(kcl::MAX_THROUGHPUT),
                max_leases: s.of(kcl::MAX_LEASES),
            },
            balance_every: s.of(kcl::LEASE_ASSIGNMENT_INTERVAL) * s.of(kcl::BALANCING_FREQUENCY).max(1),
            graceful: s.of(kcl::GRACEFUL_HANDOFF),
            hand_off: s.of(kcl::HANDOFF_TIMEOUT),
        }
    }

    /// The CloudWatch settings; none if no metrics are sent.
    fn metrics(&self, worker: &str) -> Option<cloudwatch::Settings> {
        let s = &self.settings;
        let level = match s.of(kcl::METRICS_LEVEL).as_str() {
            "DETAILED" => cloudwatch::Level::Detailed,
            "SUMMARY" => cloudwatch::Level::Summary,
            _ => return None,
        };
        let words = s.of(kcl::METRICS_DIMENSIONS);
        let all = words.iter().any(|word| word == "ALL");
        let dimensions = (!all).then(|| words.into_iter().collect());
        Some(cloudwatch::Settings {
            level,
            dimensions,
            every: s.of(kcl::METRICS_BUFFER_TIME),
            most: s.of(kcl::METRICS_QUEUE_SIZE),
            worker: worker.to_owned(),
            max_leases: s.of(kcl::MAX_LEASES),
            renewals: s.of(kcl::FAILOVER) / 3,
        })
    }

    /// The fan-out settings; none if records are polled.
    fn fanout(&self) -> Option<registration::Settings> {
        let s = &self.settings;
        let name = s.of(kcl::CONSUMER_NAME).or_else(|| s.of(kcl::APPLICATION));
        (s.of(kcl::RETRIEVAL_MODE) == "FANOUT").then(|| registration::Settings {
            arn: s.of(kcl::CONSUMER_ARN),
            name: name.unwrap_or_default(),
            stream_attempts: s.of(kcl::DESCRIBE_STREAM_ATTEMPTS),
            describe_attempts: s.of(kcl::DESCRIBE_CONSUMER_ATTEMPTS),
            register_attempts: s.of(kcl::REGISTER_CONSUMER_ATTEMPTS),
            pause: s.of(kcl::CONSUMER_BACKOFF),
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
