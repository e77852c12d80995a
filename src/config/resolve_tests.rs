//! Tests of rules that no recorded output of Java shows. Recorded behaviour of Java is in `tests/settings/`.

use std::time::Duration;

use super::*;
use crate::config::keys::client;
use crate::config::{ChildLog, Config, OnChildFailure};
use crate::lease::sync::InitialPosition;

const MINIMUM: &str = "executableName = p.py\nstreamName = s\napplicationName = app\n\
                       AWSCredentialsProvider = DefaultCredentialsProvider\nmaxRecords = 100\n";

fn resolved(text: &str) -> Resolved {
    resolve(&Given { bytes: text.as_bytes().to_vec(), ..Given::default() })
}

fn with(text: &str) -> (Config, Vec<String>) {
    let (config, warnings) = resolved(&format!("{MINIMUM}{text}")).config("w").unwrap();
    (config, warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn minimal_file_yields_all_defaults() {
    let (config, warnings) = with("");
    assert_eq!(warnings, [""; 0]);
    assert_eq!((config.table.as_str(), config.initial), ("app", InitialPosition::Latest));
    assert_eq!((config.failover.as_millis(), config.shutdown_grace.as_millis()), (10_000, 5_000));
    assert_eq!((config.max_records, config.idle.as_millis(), config.answer), (100, 1_500, None));
    assert_eq!((config.worker.as_str(), config.max_child_failures), ("w", 5));
    assert_eq!(config.kinesis.providers, [Provider::Default]);
}

#[test]
fn all_errors_are_reported_at_once_with_their_lines() {
    let found = resolved(
        "streamArn = arn:nope\nmaxRecords = 20000\ninitialPositionInStream = NEWEST\ntimeoutInSeconds = ten\n\
         x = \\u12\nmetricsLevel = LOUD\nkinesisEndpoint = localhost\nretrievalMode = push\nregionName =\n\
         AWSCredentialsProvider = my.Own\nmaxActiveThreads = x\nfailoverTimeMillis = 5\nworkerId =\n",
    );
    let lines: Vec<_> = found.faults.iter().map(|fault| fault.line).collect();
    let mut expected = vec![None, None];
    expected.extend((1..=13).map(Some));
    assert_eq!(lines, expected, "{:#?}", found.faults);
    assert!(found.config("w").is_err());
}

#[test]
fn zero_or_unreadable_number_keeps_the_default_with_warning() {
    let (config, warnings) =
        with("failoverTimeMillis = 0\ntaskBackoffTimeMillis = ten\nshutdownGraceMillis = 0\n");
    assert_eq!((config.failover.as_millis(), config.task_backoff.as_millis()), (10_000, 500));
    assert_eq!(config.shutdown_grace.as_millis(), 0, "the one primitive whose 0 counts");
    assert!(warnings[0].starts_with("line 6: failoverTimeMillis = 0"), "{warnings:?}");
    assert!(warnings[1].starts_with("line 7: taskBackoffTimeMillis = \"ten\""), "{warnings:?}");
    assert_eq!(warnings.len(), 2);
}

#[test]
fn json_of_children_warns_without_a_json_log() {
    let (config, warnings) = with("multilangd.childLog = json\n");
    assert_eq!(config.child_log, ChildLog::Json);
    assert!(warnings.len() == 1 && warnings[0].contains("multilangd.logFormat"), "{warnings:?}");
    assert_eq!(with("multilangd.childLog = json\nmultilangd.logFormat = json\n").1, [""; 0]);
    assert_eq!(with("multilangd.childLog = raw\n").1, [""; 0]);
}

#[test]
fn ineffective_key_warns_with_the_nearest_name() {
    let (_, warnings) = with(
        "MaxRecords = 5\nfailoverTimeMilis = 5\nzzz = 1\nmultilangd.x = 1\nmaxActiveThreads = 5\n\
         userAgent = x\nkinesisClientConfig.maxConnections = 5\nfanoutConfig.nope = 3\n",
    );
    let expected = [
        "did you mean maxRecords?",
        "did you mean failoverTimeMillis?",
        "Java ignores it too",
        "not a setting of multilangd",
        "is not supported: multilangd has no thread pool",
        "unknown to KCL 3.x",
        "unknown to KCL 3.x",
        "is an unknown key",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (index, (warning, part)) in warnings.iter().zip(expected).enumerate() {
        assert!(warning.starts_with(&format!("line {}: ", index + 6)) && warning.contains(part), "{warning}");
    }
}

#[test]
fn unknown_client_keys_and_unmatched_brackets_are_errors() {
    let found = resolved(&format!(
        "{MINIMUM}kinesisClient.regoin = x\nfoo[1 = 2\nfoo[x] = 2\nfoo(a = 1\ndynamoDBCredentialsProvider.class = X\n"
    ));
    let lines: Vec<_> = found.faults.iter().filter_map(|fault| fault.line).collect();
    assert_eq!(lines, [6, 7, 8, 9, 10], "{:?}", found.faults);
    assert!(found.faults[0].text.contains("did you mean region?"));
}

#[test]
fn last_of_two_keys_in_javas_order_applies() {
    let (config, warnings) = with("workerId = a\nworkerIdentifier = b\n");
    assert_eq!(config.worker.as_str(), "b", "with fewer than 12 keys");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let found = resolved(&format!("{MINIMUM}regionName = eu-west-1\ndynamoDbClient.region = eu-west-2\n"));
    assert_eq!(found.settings.of(client::KINESIS_REGION).as_deref(), Some("eu-west-1"));
    assert_eq!(found.settings.of(client::DYNAMODB_REGION).as_deref(), Some("eu-west-2"));
    // 0 through one name removes the value of another name.
    let found = resolved(&format!("{MINIMUM}pollingConfig.maxRecords = 0\n"));
    assert_eq!(found.settings.of(kcl::MAX_RECORDS), 10_000);
    assert_eq!(found.settings.of(kcl::RETRIEVAL_MODE), "FANOUT");
}

#[test]
fn worker_id_gets_the_configured_suffix() {
    let id = |more: &str| {
        let bytes = format!("{MINIMUM}{more}").into_bytes();
        let given = Given { bytes, hostname: "host".to_owned(), ..Given::default() };
        resolve(&given).config("aaaa-bbbb").unwrap().0.worker.to_string()
    };
    assert_eq!(id(""), "aaaa-bbbb");
    assert_eq!(id("multilangd.workerIdSuffix = hostname\n"), "aaaa-bbbb", "random anyway");
    assert_eq!(id("workerId = w\n"), "w");
    assert_eq!(id("workerId = w\nmultilangd.workerIdSuffix = hostname\n"), "w-host");
    assert_eq!(id("workerId = w\nmultilangd.workerIdSuffix = random\n"), "w-bbbb");
}

#[test]
fn stream_arn_precedes_name_and_sets_only_the_name() {
    let arn = "streamArn = arn:aws-cn:kinesis:cn-north-1:123456789012:stream/t/consumer/c:1\n";
    assert_eq!(with(arn).0.stream, "t");
    let (_, warnings) = with(&format!("{arn}regionName = eu-west-1\n"));
    assert!(warnings.len() == 1 && warnings[0].contains("cn-north-1"), "{warnings:?}");
}

#[test]
fn calls_by_arn_need_an_arn_of_the_region_of_requests() {
    let by_arn = "multilangd.useStreamArn = true\n";
    let arn = format!("{by_arn}streamArn = arn:aws:kinesis:eu-west-1:123456789012:stream/t\n");
    assert!(with(&format!("{arn}regionName = eu-west-1\n")).0.stream_arn.is_some_and(|arn| arn.used));
    for (more, key) in
        [(by_arn, "multilangd.useStreamArn"), (&format!("{arn}regionName = eu-west-2\n"), "streamArn")]
    {
        let found = resolved(&format!("{MINIMUM}{more}"));
        assert_eq!(found.faults.iter().map(|fault| fault.key.as_deref()).collect::<Vec<_>>(), [Some(key)]);
    }
}

#[test]
fn kinesis_credentials_are_the_default_of_other_clients() {
    let (config, _) = with("AWScredentialsProviderDynamoDB = EnvironmentVariableCredentialsProvider\n");
    assert_eq!(config.dynamodb.providers, [Provider::Environment]);
    assert_eq!(config.cloudwatch.providers, [Provider::Default]);
    let found = resolved(&format!("{MINIMUM}AwsCredentialsProvider = ProfileCredentialsProvider\n"));
    assert!(found.faults.len() == 1 && found.faults[0].text.contains("the same key"), "{:?}", found.faults);
    let found = resolved("executableName = p\nstreamName = s\napplicationName = app\nmaxRecords = 1\n");
    assert!(found.faults.is_empty() && found.warnings[0].text.contains("default chain"));
}

#[test]
fn dead_letters_require_a_daemon_that_parks_shards() {
    for (line, key) in [
        ("", None),
        ("multilangd.onHopelessShard = park\n", None),
        ("multilangd.onHopelessShard = exit\n", Some(own::ON_HOPELESS_SHARD.name())),
        ("multilangd.onChildFailure = exit\n", Some(own::ON_CHILD_FAILURE.name())),
    ] {
        let found = resolved(&format!("{MINIMUM}{line}multilangd.deadLetters = exec:true\n"));
        let named: Vec<_> =
            found.faults.iter().map(|fault| key.is_some_and(|key| fault.text.contains(key))).collect();
        assert_eq!(named, vec![true; usize::from(key.is_some())], "{line}: {:?}", found.faults);
        let without = resolved(&format!("{MINIMUM}{line}"));
        assert!(without.faults.is_empty(), "{line}: {:?}", without.faults);
    }
}

#[test]
fn dead_letters_cannot_go_to_the_stream_that_is_read() {
    let arn = "arn:aws:kinesis:us-east-1:123456789012:stream";
    let other = |region: &str, account: &str| format!("arn:aws:kinesis:{region}:{account}:stream/s");
    let lines = |own: &str, to: &str| {
        format!("executableName = p\napplicationName = a\n{own}\nmultilangd.deadLetters = kinesis:{to}\n")
    };
    for (own, to, is_refused) in [
        ("streamName = s", "s".to_owned(), true),
        ("streamName = s", format!("{arn}/s"), true),
        ("streamName = s", "s-letters".to_owned(), false),
        (&format!("streamArn = {arn}/s"), format!("{arn}/s"), true),
        // The ARN of a consumer names its stream too.
        (&format!("streamArn = {arn}/s/consumer/c:1"), format!("{arn}/s"), true),
        (
            &format!("streamName = s\nfanoutConfig.consumerArn = {arn}/s/consumer/c:1"),
            format!("{arn}/s"),
            true,
        ),
        // Of another account or region; a name alone is of an unknown account.
        (&format!("streamArn = {arn}/s"), other("us-east-1", "999999999999"), false),
        (&format!("streamArn = {arn}/s"), other("eu-west-1", "123456789012"), false),
        (
            &format!("streamName = s\nfanoutConfig.consumerArn = {arn}/s/consumer/c:1"),
            other("us-east-1", "999999999999"),
            false,
        ),
        ("streamName = s", other("us-east-1", "999999999999"), true),
        (&format!("streamArn = {arn}/s"), "s".to_owned(), true),
    ] {
        let found = resolved(&lines(own, &to));
        let refused = found.faults.iter().any(|fault| fault.key.as_deref() == Some(own::DEAD_LETTERS.name()));
        assert_eq!(refused, is_refused, "{own} {to}: {:?}", found.faults);
    }
}

#[test]
fn max_record_age_requires_dead_letters_or_skip_old_records() {
    for (lines, is_refused) in [
        ("multilangd.maxRecordAgeMillis = 1\n", true),
        ("multilangd.maxRecordAgeMillis = 1\nmultilangd.skipOldRecords = false\n", true),
        ("multilangd.maxRecordAgeMillis = 1\nmultilangd.skipOldRecords = true\n", false),
        ("multilangd.maxRecordAgeMillis = 1\nmultilangd.deadLetters = exec:true\n", false),
        ("multilangd.maxRecordAgeMillis = 0\n", false),
        ("multilangd.skipOldRecords = true\n", false),
    ] {
        let found = resolved(&format!("{MINIMUM}{lines}"));
        let keys: Vec<_> = found.faults.iter().filter_map(|fault| fault.key.as_deref()).collect();
        assert_eq!(
            keys,
            vec![own::MAX_RECORD_AGE.name(); usize::from(is_refused)],
            "{lines}: {:?}",
            found.faults
        );
    }
}

#[test]
fn own_settings_prefer_options_then_variables_then_file() {
    let mut given = Given {
        bytes: format!("{MINIMUM}multilangd.maxChildFailures = 2\nmultilangd.onChildFailure = exit\n")
            .into_bytes(),
        ..Given::default()
    };
    let take = |given: &Given| {
        let setting = resolve(given).settings.get(own::MAX_CHILD_FAILURES.name()).cloned().unwrap();
        (setting.value, setting.source)
    };
    assert_eq!(take(&given), (Value::Number(2), Source::File(6)));
    given.variables.insert("MULTILANGD_MAX_CHILD_FAILURES".into(), "3".into());
    assert_eq!(take(&given), (Value::Number(3), Source::Environment));
    given.options.push((own::MAX_CHILD_FAILURES.name(), "4".into()));
    assert_eq!(take(&given), (Value::Number(4), Source::Option));
    let config = resolve(&given).config("w").unwrap().0;
    assert_eq!((config.max_child_failures, config.on_child_failure), (4, OnChildFailure::Exit));
    given.variables.insert("MULTILANGD_CHILD_PROTOCOL".into(), "old".into());
    given.variables.insert("MULTILANGD_CHILD_PROTOCOLL".into(), "old".into());
    given.variables.insert("MULTILANGD_SERVICE_HOST".into(), "10.0.0.1".into());
    let found = resolve(&given);
    assert!(
        found.faults.len() == 1 && found.faults[0].text.starts_with("MULTILANGD_CHILD_PROTOCOL = \"old\"")
    );
    assert!(
        found.warnings.len() == 1 && found.warnings[0].text.contains("did you mean"),
        "{:?}",
        found.warnings
    );
}

#[test]
fn overrides_act_as_last_lines_of_the_file() {
    let given = Given {
        bytes: format!("{MINIMUM}tableName = one \\").into_bytes(),
        overrides: vec![("tableName".into(), "two = ü".into()), ("maxRecords".into(), "7".into())],
        ..Given::default()
    };
    let found = resolve(&given);
    assert_eq!(found.warnings, []);
    let setting = found.settings.get("tableName").unwrap();
    assert_eq!((&setting.value, setting.source), (&Value::Text("two = ü".into()), Source::Option));
    assert_eq!(found.settings.of(kcl::MAX_RECORDS), 7);
}

#[test]
fn variables_are_expanded_only_if_enabled() {
    let mut given =
        Given { bytes: format!("{MINIMUM}tableName = t-${{STAGE}}\n").into_bytes(), ..Given::default() };
    given.variables.insert("STAGE".into(), "prod".into());
    assert_eq!(resolve(&given).settings.of(kcl::TABLE).as_deref(), Some("t-${STAGE}"));
    given.expand = true;
    assert_eq!(resolve(&given).settings.of(kcl::TABLE).as_deref(), Some("t-prod"));
    given.variables.clear();
    assert_eq!(resolve(&given).faults[0].line, Some(6));
}

#[test]
fn extended_position_sets_the_start_timestamp() {
    assert_eq!(
        with("initialPositionInStreamExtended = 1700000000\n").0.initial,
        InitialPosition::AtTimestamp(1_700_000_000_000)
    );
    assert_eq!(with("initialPositionInStream = trim_horizon\n").0.initial, InitialPosition::TrimHorizon);
}

#[test]
fn invalid_start_timestamp_is_an_error_of_its_line() {
    let key = "initialPositionInStreamExtended";
    let faults = |seconds: i64| {
        let mut faults = resolved(&format!("{key} = {seconds}\n")).faults;
        faults.retain(|fault| fault.key.as_deref() == Some(key));
        faults
    };
    for seconds in [1_700_000_000_000, 99_999_999_999] {
        let [fault] = &faults(seconds)[..] else { panic!("{:?}", faults(seconds)) };
        assert!(fault.line.is_some() && fault.text.contains(&seconds.to_string()), "{fault:?}");
    }
    assert_eq!(faults(1_700_000_000), []);
}

proptest::proptest! {
    #[test]
    fn arbitrary_file_does_not_panic(text in "([a-zA-Z.\\[\\]()]{0,12}(maxRecords|AWSCredentialsProvider|workerId|kinesisClient\\.|streamArn|fanoutConfig\\.)?[ =:]{1,3}[ -~]{0,20}\n){0,8}") {
        let found = resolved(&text);
        let lines = text.lines().count();
        for remark in found.faults.iter().chain(&found.warnings) {
            proptest::prop_assert!(remark.line.is_none_or(|line| (1..=lines).contains(&line)));
        }
    }
}

#[test]
fn reserved_worker_id_is_an_error() {
    for (name, faults) in [("Leader", 1), ("shardId-000000000001", 1), ("leader-1", 0)] {
        let found = resolved(&format!("workerId = {name}\n"));
        assert_eq!(
            found.faults.iter().filter(|fault| fault.key.as_deref() == Some("workerId")).count(),
            faults
        );
    }
}

#[test]
fn invalid_names_are_errors_of_their_keys() {
    let found = |text: &str| -> Vec<(Option<usize>, String)> {
        let faults = resolved(text).faults.into_iter();
        faults.map(|fault| (fault.line, fault.key.unwrap())).collect()
    };
    let key = |line, key: &str| vec![(Some(line), key.to_owned())];
    assert_eq!(found(&MINIMUM.replace("= s\n", "= <STREAM_NAME>\n")), key(2, "streamName"));
    assert_eq!(
        found(&MINIMUM.replace("= app", "= ${STAGE}-app")),
        key(3, "applicationName"),
        "once, not per table"
    );
    assert_eq!(found(&MINIMUM.replace("= app", "= a")), key(3, "applicationName"));
    let named = format!("{}tableName = leases\n", MINIMUM.replace("= app", "= a"));
    assert_eq!(found(&named), [], "a-CoordinatorState is long enough");
    for line in ["tableName = x y\n", "coordinatorStateTableName = x\n", "workerMetricsTableName = a/b\n"] {
        let name = line.split(' ').next().unwrap();
        assert_eq!(found(&format!("{MINIMUM}{line}")), key(6, name), "{line}");
    }
    // 255 characters are allowed for a lease table, but not for its WorkerMetricStats table or a consumer.
    let long = MINIMUM.replace("= app", &format!("= {}", "a".repeat(255)));
    assert_eq!(found(&long), key(3, "applicationName"));
    let fanout = |more: &str| {
        format!(
            "{}retrievalMode = FANOUT\n{more}",
            MINIMUM.replace("= app", &format!("= {}", "a".repeat(129)))
        )
    };
    assert_eq!(found(&fanout("")), key(3, "applicationName"));
    assert_eq!(found(&fanout("fanoutConfig.consumerName = c\n")), []);
    assert_eq!(found(&fanout("fanoutConfig.consumerName = c d\n")), key(7, "fanoutConfig.consumerName"));
    let arn = format!("{MINIMUM}streamArn = arn:aws:kinesis:eu-west-1:123456789012:stream/a b\n");
    assert_eq!(found(&arn), key(6, "streamArn"));
}

#[test]
fn fan_out_and_pacing_settings_are_applied() {
    let (config, _) = with(
        "retrievalMode = fanout\nfanoutConfig.consumerName = reader\nfanoutConfig.retryBackoffMillis = 70\n",
    );
    let fanout = config.fanout.unwrap();
    assert_eq!((fanout.name.as_str(), fanout.arn, fanout.stream_attempts), ("reader", None, 10));
    assert_eq!(fanout.pause, Duration::from_millis(70));
    assert_eq!(with("retrievalMode = fanout\n").0.fanout.unwrap().name, "app", "the application's");
    assert_eq!(with("").0.fanout, None, "there is a polling key");
    let (config, _) = with("idleTimeBetweenReadsInMillis = 900\n");
    assert_eq!(config.idle_behind, Duration::from_millis(900));
    let own = "multilangd.idleWhenBehindMillis = 0\nmultilangd.bufferMegabytes = 40\n";
    let (config, _) = with(&format!("{own}millisBehindLatestThresholdForReducedTps = 5000\n"));
    assert_eq!((config.idle_behind, config.near), (Duration::ZERO, Duration::from_secs(5)));
    assert_eq!((config.buffer, config.fanout), (40 << 20, None));
}
