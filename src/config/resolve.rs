//! A properties file, read against the table of keys.
//!
//! Rules that surprise are Java's: for primitive settings an unreadable number is 0, and 0 and false
//! mean "not given" (`ConfigurationSettableUtils`). They are kept, and warned about.

use std::collections::BTreeMap;
use std::time::Duration;

use multilangd_properties::value::{self, Read};
use multilangd_properties::{Entry, File};

use super::keys::{KEYS, Key, Kind, Use};
use super::{ChildProtocol, Config, Faults, OnChildFailure, Remark};
use crate::lease::WorkerId;
use crate::lease::sync::InitialPosition;

/// KCL refuses more.
const MAX_RECORDS: i64 = 10_000;
/// KCL raises less to this: five reads a second and shard is what Kinesis allows.
const MIN_IDLE: i64 = 200;
/// Providers that are all members of the default chain, by their short names of both generations.
const IN_DEFAULT_CHAIN: [&str; 11] = [
    "DefaultCredentialsProvider",
    "DefaultAWSCredentialsProviderChain",
    "EnvironmentVariableCredentialsProvider",
    "ProfileCredentialsProvider",
    "InstanceProfileCredentialsProvider",
    "ContainerCredentialsProvider",
    "EC2ContainerCredentialsProviderWrapper",
    "WebIdentityTokenFileCredentialsProvider",
    "WebIdentityTokenCredentialsProvider",
    "SystemPropertyCredentialsProvider",
    "SystemPropertiesCredentialsProvider",
];
/// Keys of ours; Java ignores them because nothing of that name is before the dot.
const OWN_PREFIX: &str = "multilangd.";

/// Reads a file's bytes. `default_worker` is the worker's id if the file gives none.
///
/// # Errors
/// Every fault at once.
pub fn resolve(bytes: &[u8], default_worker: &str) -> Result<(Config, Vec<Remark>), Faults> {
    let mut reader = Reader::default();
    let file = match File::read(bytes) {
        Ok(file) => file,
        Err(malformed) => {
            for escape in &malformed.escapes {
                reader.faults.push(Remark { line: Some(escape.at.line), text: escape.to_string() });
            }
            malformed.rest
        }
    };
    for notice in file.notices() {
        reader.warnings.push(Remark { line: Some(notice.at.line), text: notice.to_string() });
    }
    for entry in file.in_java_order() {
        reader.entry(entry);
    }
    let config = reader.config(default_worker);
    let Reader { mut faults, mut warnings, .. } = reader;
    faults.sort_by_key(|remark| remark.line);
    warnings.sort_by_key(|remark| remark.line);
    match config {
        Some(config) if faults.is_empty() => Ok((config, warnings)),
        _ => Err(Faults { faults, warnings }),
    }
}

/// A value that was given and counts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(i64),
    True,
    Initial(InitialPosition),
}

#[derive(Default)]
struct Reader {
    /// By the key's first name, in the order in which Java would have set them.
    values: BTreeMap<&'static str, (usize, Value)>,
    initial: Option<InitialPosition>,
    on_child_failure: Option<OnChildFailure>,
    child_protocol: Option<ChildProtocol>,
    max_child_failures: Option<u32>,
    faults: Vec<Remark>,
    warnings: Vec<Remark>,
}

impl Reader {
    fn fault(&mut self, line: usize, text: String) {
        self.faults.push(Remark { line: Some(line), text });
    }

    fn warn(&mut self, line: usize, text: String) {
        self.warnings.push(Remark { line: Some(line), text });
    }

    fn entry(&mut self, entry: &Entry) {
        let (name, line) = (entry.key(), entry.line());
        if name.to_ascii_lowercase().starts_with("awscredentialsprovider") {
            return self.credentials(entry);
        }
        let Some(key) = KEYS.iter().find(|key| key.name == name || key.aliases.contains(&name)) else {
            return self.unknown(name, entry, line);
        };
        match key.used {
            Use::Yes => {
                if let Some(value) = self.value(key, entry) {
                    if let Value::Initial(initial) = value {
                        self.initial = Some(initial);
                    } else {
                        self.values.insert(key.name, (line, value));
                    }
                }
            }
            Use::NotYet => self.warn(line, format!("{name} is known to KCL but not honoured here yet")),
            Use::NoEffect(why) => self.warn(line, format!("{name} has no effect: {why}")),
        }
    }

    fn unknown(&mut self, name: &str, entry: &Entry, line: usize) {
        if name.starts_with(OWN_PREFIX) {
            return self.own(name, entry.value(), line);
        }
        let names = || KEYS.iter().flat_map(|key| key.aliases.iter().chain([&key.name]).copied());
        let near = names().min_by_key(|known| distance(known, name)).filter(|known| {
            known.eq_ignore_ascii_case(name) || distance(known, name) <= 2.max(name.len() / 6)
        });
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        self.warn(line, format!("{name} is no key that KCL or multilangd knows, Java ignores it too{hint}"));
    }

    fn own(&mut self, name: &str, value: &str, line: usize) {
        match (name, value.trim()) {
            ("multilangd.onChildFailure", "restart") => self.on_child_failure = None,
            ("multilangd.onChildFailure", "exit") => self.on_child_failure = Some(OnChildFailure::Exit),
            ("multilangd.childProtocol", "current") => self.child_protocol = None,
            ("multilangd.childProtocol", "shutdown") => self.child_protocol = Some(ChildProtocol::Shutdown),
            ("multilangd.maxChildFailures", text) => match text.parse() {
                Ok(number) => self.max_child_failures = Some(number),
                Err(_) => self.fault(line, format!("{name} = {text:?} must be a whole number")),
            },
            _ => self.warn(line, format!("{name} is not a setting of multilangd")),
        }
    }

    fn credentials(&mut self, entry: &Entry) {
        let line = entry.line();
        for piece in entry.value().split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
            let mut words = piece.split('|');
            let name = words.next().unwrap_or_default().rsplit('.').next().unwrap_or_default();
            if !IN_DEFAULT_CHAIN.contains(&name) || words.next().is_some_and(|word| !word.is_empty()) {
                self.fault(line, format!(
                    "{}: the provider {piece} is not supported yet; use DefaultCredentialsProvider and give its \
                     settings by environment or profile", entry.key()));
            } else if !name.starts_with("Default") {
                self.warn(
                    line,
                    format!("{}: {name} is used as part of the default chain, not alone", entry.key()),
                );
            }
        }
    }

    fn value(&mut self, key: &Key, entry: &Entry) -> Option<Value> {
        let (text, line) = (entry.value(), entry.line());
        match key.kind {
            Kind::Text => Some(Value::Text(text.to_owned())),
            Kind::Uri => {
                let good = text.starts_with("http://") || text.starts_with("https://");
                if !good || text.contains(char::is_whitespace) {
                    self.fault(
                        line,
                        format!("{} = {text:?} is not an address such as http://127.0.0.1:4567", key.name),
                    );
                    return None;
                }
                Some(Value::Text(text.to_owned()))
            }
            Kind::Int => self.primitive(key, entry, value::int(text).map_long()),
            Kind::Millis => self.primitive(key, entry, value::long(text)),
            Kind::BoxedInt => match value::int(text) {
                Read::Value(seconds) if seconds > 0 => Some(Value::Number(seconds.into())),
                Read::Value(_) | Read::Unreadable => {
                    self.fault(line, format!(
                        "{} = {text:?} must be a whole number above 0: Java reads this as 0 and dies at the first message",
                        key.name));
                    None
                }
            },
            Kind::Bool => match value::boolean(text) {
                Read::Value(true) => Some(Value::True),
                Read::Value(false) => None,
                Read::Unreadable => {
                    self.warn(
                        line,
                        format!("{} = {text:?} is not a boolean, Java reads it as false", key.name),
                    );
                    None
                }
            },
            Kind::Position => match text.to_uppercase().as_str() {
                "LATEST" => Some(Value::Initial(InitialPosition::Latest)),
                "TRIM_HORIZON" => Some(Value::Initial(InitialPosition::TrimHorizon)),
                _ => {
                    self.fault(line, format!("{} = {text:?} must be LATEST or TRIM_HORIZON", key.name));
                    None
                }
            },
            Kind::EpochSeconds => {
                match value::parse_long(text).ok().and_then(|seconds| seconds.checked_mul(1000)) {
                    Some(millis) => Some(Value::Initial(InitialPosition::AtTimestamp(millis))),
                    None => {
                        self.fault(line, format!("{} = {text:?} must be whole seconds since 1970", key.name));
                        None
                    }
                }
            }
        }
    }

    fn primitive(&mut self, key: &Key, entry: &Entry, read: Read<i64>) -> Option<Value> {
        let (text, line) = (entry.value(), entry.line());
        match read {
            // The one primitive whose 0 counts.
            Read::Value(0) if key.name == "shutdownGraceMillis" => Some(Value::Number(0)),
            Read::Value(0) => {
                self.warn(
                    line,
                    format!("{} = 0 means \"not given\" to Java: {} stays", key.name, key.default),
                );
                None
            }
            Read::Value(number) => Some(Value::Number(number)),
            Read::Unreadable => {
                self.warn(
                    line,
                    format!(
                        "{} = {text:?} is not a whole number, Java takes it as not given: {} stays",
                        key.name, key.default
                    ),
                );
                None
            }
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name) {
            Some((_, Value::Text(text))) => Some(text.clone()),
            _ => None,
        }
    }

    fn number(&self, name: &str, default: i64) -> i64 {
        match self.values.get(name) {
            Some((_, Value::Number(number))) => *number,
            _ => default,
        }
    }

    fn millis(&self, name: &str, default: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.number(name, default)).unwrap_or(0))
    }

    fn is_set(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some((_, Value::True)))
    }

    fn required(&mut self, name: &str, example: &str) -> Option<String> {
        let text = self.text(name).filter(|text| !text.trim().is_empty());
        if text.is_none() {
            self.faults
                .push(Remark { line: None, text: format!("{name} is missing, as in {name} = {example}") });
        }
        text
    }

    fn stream(&mut self) -> Option<String> {
        match self.text("streamArn").filter(|arn| !arn.trim().is_empty()) {
            Some(arn) => {
                let name = stream_of_arn(&arn);
                if name.is_none() {
                    let line = self.values.get("streamArn").map_or(0, |(line, _)| *line);
                    self.fault(line, format!(
                        "streamArn = {arn:?} is not of the form arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"));
                }
                name
            }
            None => self.required("streamName", "orders (or streamArn)"),
        }
    }

    fn check_bounds(&mut self) {
        if let Some((line, Value::Number(number))) = self.values.get("maxRecords").cloned()
            && !(1..=MAX_RECORDS).contains(&number)
        {
            self.fault(line, format!("maxRecords = {number} must be between 1 and {MAX_RECORDS}"));
        }
        if let Some((line, Value::Number(number))) = self.values.get("failoverTimeMillis").cloned()
            && number < 78
        {
            self.fault(
                line,
                format!("failoverTimeMillis = {number} is too short to renew leases in: at least 78"),
            );
        }
        if let Some((line, Value::Number(number))) = self.values.get("maxLeasesForWorker").cloned()
            && number < 0
        {
            self.fault(line, format!("maxLeasesForWorker = {number} should be at least 1"));
        }
        if let Some((line, Value::Number(number))) = self.values.get("idleTimeBetweenReadsInMillis").cloned()
            && number < MIN_IDLE
        {
            self.warn(
                line,
                format!("idleTimeBetweenReadsInMillis = {number} is raised to {MIN_IDLE}, as in KCL"),
            );
        }
    }

    fn config(&mut self, default_worker: &str) -> Option<Config> {
        let executable = self.required("executableName", "./processor.py");
        let application = self.required("applicationName", "my-application");
        let stream = self.stream();
        self.check_bounds();
        let (executable, application, stream) = (executable?, application?, stream?);
        let table =
            self.text("tableName").filter(|name| !name.is_empty()).unwrap_or_else(|| application.clone());
        let worker = self.text("workerId").unwrap_or_else(|| default_worker.to_owned());
        Some(Config {
            stream,
            table,
            worker: WorkerId::from(worker.as_str()),
            executable,
            region: self.text("regionName").filter(|region| !region.trim().is_empty()),
            kinesis_endpoint: self.text("kinesisEndpoint"),
            dynamodb_endpoint: self.text("dynamoDBEndpoint"),
            initial: self.initial.unwrap_or(InitialPosition::Latest),
            failover: self.millis("failoverTimeMillis", 10_000),
            max_leases: usize::try_from(self.number("maxLeasesForWorker", i64::from(i32::MAX))).unwrap_or(0),
            answer: self
                .values
                .contains_key("timeoutInSeconds")
                .then(|| self.millis("timeoutInSeconds", 0) * 1000),
            shutdown_grace: self.millis("shutdownGraceMillis", 5_000),
            task_backoff: self.millis("taskBackoffTimeMillis", 500),
            parent_poll: self.millis("parentShardPollIntervalMillis", 10_000),
            initialization_backoff: self.millis("schedulerInitializationBackoffTimeMillis", 1_000),
            max_records: usize::try_from(self.number("maxRecords", MAX_RECORDS)).unwrap_or(1),
            idle: self.millis("idleTimeBetweenReadsInMillis", 1_500).max(Duration::from_millis(200)),
            keep_empty: self.is_set("callProcessRecordsEvenForEmptyRecordList"),
            ignore_unexpected_children: self.is_set("ignoreUnexpectedChildShards"),
            check_hash_keys: !self.is_set("skipShardSyncAtWorkerInitializationIfLeasesExist"),
            on_child_failure: self.on_child_failure.unwrap_or(OnChildFailure::Restart),
            max_child_failures: self.max_child_failures.unwrap_or(5),
            child_protocol: self.child_protocol.unwrap_or(ChildProtocol::Current),
            application,
        })
    }
}

/// The name in `arn:aws[…]:kinesis:region:account:stream/NAME[/…]`.
fn stream_of_arn(arn: &str) -> Option<String> {
    let mut parts = arn.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let region_is = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = arn == "arn"
        && partition.starts_with("aws")
        && service == "kinesis"
        && !region.is_empty()
        && region.chars().all(region_is)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit());
    let name = resource.strip_prefix("stream/")?.split('/').next()?;
    (good && !name.is_empty()).then(|| name.to_owned())
}

/// A UUID of version 4 of random bits.
pub fn uuid(random: u128) -> String {
    let bits = random & !(0xF << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Levenshtein's distance, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

trait MapLong {
    fn map_long(self) -> Read<i64>;
}

impl MapLong for Read<i32> {
    fn map_long(self) -> Read<i64> {
        match self {
            Self::Value(number) => Read::Value(number.into()),
            Self::Unreadable => Read::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: &str = "executableName = p.py\nstreamName = s\napplicationName = a\n";

    fn read(text: &str) -> Result<(Config, Vec<Remark>), Faults> {
        resolve(text.as_bytes(), "w")
    }

    fn with(text: &str) -> (Config, Vec<String>) {
        let (config, warnings) = read(&format!("{MINIMUM}{text}")).unwrap();
        (config, warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_smallest_file_gives_every_default() {
        let (config, warnings) = with("");
        assert_eq!(warnings, [""; 0]);
        assert_eq!((config.table.as_str(), config.initial), ("a", InitialPosition::Latest));
        assert_eq!((config.failover.as_millis(), config.shutdown_grace.as_millis()), (10_000, 5_000));
        assert_eq!((config.max_records, config.idle.as_millis(), config.answer), (10_000, 1_500, None));
        assert_eq!(config.worker.as_str(), "w");
        let id = uuid(u128::MAX);
        assert!(id.len() == 36 && &id[14..15] == "4" && "89ab".contains(&id[19..20]), "{id}");
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_lines() {
        let faults = read(
            "streamArn = arn:nope\nmaxRecords = 20000\ninitialPositionInStream = NEWEST\ntimeoutInSeconds = ten\nx = \\u12\n",
        );
        let lines: Vec<_> = faults.unwrap_err().faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [None, None, Some(1), Some(2), Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn zero_and_what_is_no_number_keep_the_default_and_are_warned_about() {
        let (config, warnings) = with("failoverTimeMillis = 0\nmaxRecords = ten\nshutdownGraceMillis = 0\n");
        assert_eq!(
            (config.failover.as_millis(), config.max_records, config.shutdown_grace.as_millis()),
            (10_000, 10_000, 0)
        );
        assert!(warnings[0].starts_with("line 4: failoverTimeMillis = 0"), "{warnings:?}");
        assert!(warnings[1].starts_with("line 5: maxRecords = \"ten\""), "{warnings:?}");
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_warned_about_with_the_nearest_name() {
        let (_, warnings) =
            with("MaxRecords = 5\nfailoverTimeMilis = 5\nzzz = 1\nmultilangd.x = 1\nmetricsLevel = NONE\n");
        assert!(warnings[0].contains("did you mean maxRecords?"), "{warnings:?}");
        assert!(warnings[1].contains("did you mean failoverTimeMillis?"), "{warnings:?}");
        assert!(!warnings[2].contains("did you mean"), "{warnings:?}");
        assert!(
            warnings[3].contains("not a setting of multilangd")
                && warnings[4].contains("not honoured here yet")
        );
    }

    #[test]
    fn an_arn_wins_over_a_name_and_gives_only_its_name() {
        let (config, _) =
            with("streamArn = arn:aws-cn:kinesis:cn-north-1:123456789012:stream/t/consumer/c:1\n");
        assert_eq!(config.stream, "t");
    }

    #[test]
    fn a_time_in_seconds_is_where_new_leases_start() {
        assert_eq!(
            with("initialPositionInStreamExtended = 1700000000\n").0.initial,
            InitialPosition::AtTimestamp(1_700_000_000_000)
        );
        assert_eq!(with("initialPositionInStream = trim_horizon\n").0.initial, InitialPosition::TrimHorizon);
    }

    #[test]
    fn providers_of_the_default_chain_pass_and_others_are_refused() {
        assert_eq!(with("AWSCredentialsProvider = DefaultCredentialsProvider\n").1, [""; 0]);
        assert_eq!(
            with("AwsCredentialsProviderDynamoDB = com.amazonaws.auth.DefaultAWSCredentialsProviderChain\n")
                .1,
            [""; 0]
        );
        assert_eq!(with("AWSCredentialsProvider = ProfileCredentialsProvider\n").1.len(), 1);
        assert!(
            read(&format!("{MINIMUM}AWSCredentialsProvider = StsAssumeRoleCredentialsProvider|a|b\n"))
                .is_err()
        );
    }

    #[test]
    fn no_key_stands_twice_in_the_table() {
        let mut names: Vec<_> = KEYS.iter().flat_map(|key| key.aliases.iter().chain([&key.name])).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
