//! Resolves a properties file against the tables of keys: all settings in force, all warnings and errors;
//! and, without errors, the [`super::Config`].
//!
//! Rules that surprise are Java's: for primitive settings an unreadable number is 0, and 0 and false mean
//! "not given" (`ConfigurationSettableUtils`). They are preserved, with warnings. Pure: nothing is called,
//! and clock and environment are read only from [`Given`].

mod clients;

use std::collections::BTreeMap;

use multilangd_properties::File;

use super::arn::stream_of_arn;
use super::bean::{Bean, Held, Pair, credentials_key};
use super::credentials::Provider;
use super::expand::{self, expand, lines_of};
use super::keys::client::{CLIENTS, KINESIS_REGION, Service};
use super::keys::handle::{Handle, Text};
use super::keys::{Absent, kcl, nearest, own};
use super::letters;
use super::names;
use super::position;
use super::sdk::jvm::Properties;
use super::sdk::{self, Outside, Profile, Sdk};
use super::settings::{Setting, Settings};
use super::streams;
use super::value::Value;
use super::{Remark, Source};
use crate::batch::MOST_RECORDS;
use crate::clock;

/// KCL raises a lower value to this: Kinesis allows five reads per second and shard.
const MIN_IDLE: i64 = 200;
/// Java cannot start with less: the pause between its renewals is a third of this less 25 ms.
const MIN_FAILOVER: i64 = 78;
/// Half of this less 25 ms is the pause between scans for new leases.
const MIN_ASSIGNMENT: i64 = 52;

/// The inputs of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The file.
    pub bytes: Vec<u8>,
    /// `--set KEY=VALUE`: treated as the last lines of the file.
    pub overrides: Vec<(String, String)>,
    /// Whether `${NAME}` in the file's values is replaced by an environment variable.
    pub expand: bool,
    /// Settings of multilangd that were given as options, by their key in the file.
    pub options: Vec<(&'static str, String)>,
    /// The environment variables.
    pub variables: BTreeMap<String, String>,
    /// JVM system properties.
    pub properties: Properties,
    /// The AWS profile.
    pub profile: Profile,
    /// This machine's host name, for `multilangd.workerIdSuffix`.
    pub hostname: String,
}

/// The result of the resolution.
#[derive(Debug)]
pub struct Resolved {
    /// The settings in force; of a file with errors, those that are valid.
    pub settings: Settings,
    /// Warnings, in the order of the lines.
    pub warnings: Vec<Remark>,
    /// Errors, in the order of the lines.
    pub faults: Vec<Remark>,
    pub(super) credentials: BTreeMap<Service, Vec<Provider>>,
    pub(super) clients: BTreeMap<(Service, &'static str), Held>,
    pub(super) hostname: String,
    /// AWS settings outside the file that are shared by all clients.
    pub sdk: Sdk,
}

/// Resolves all settings.
pub fn resolve(given: &Given) -> Resolved {
    let mut bean = Bean::default();
    let file = read(given, &mut bean);
    let last = lines_of(&given.bytes);
    warn_about_lines(&file, given, last, &mut bean);
    for entry in file.in_java_order() {
        let source = if entry.line() > last { Source::Option } else { Source::File(entry.line()) };
        let mut pair = Pair { key: entry.key(), text: entry.value().to_owned(), source };
        if given.expand && source != Source::Option {
            match expand(entry.value(), &given.variables) {
                Ok(text) => pair.text = text,
                Err(why) => {
                    let text = format!("{} {why}", entry.key());
                    bean.faults.push(Remark { line: source.line(), key: Some(entry.key().to_owned()), text });
                }
            }
        }
        bean.set(&pair);
    }
    own_from_outside(given, &mut bean);
    let outside =
        Outside { variables: &given.variables, properties: &given.properties, profile: &given.profile };
    let sdk = sdk::resolve(&outside, &mut bean.warnings, &mut bean.faults);
    clients_from_outside(&outside, &mut bean);
    let mut maker = Maker { settings: Settings::default(), bean };
    maker.fill();
    maker.show(&sdk);
    maker.check();
    Resolved { hostname: given.hostname.clone(), sdk, ..maker.done() }
}

/// The file followed by the overrides.
fn read(given: &Given, bean: &mut Bean) -> File {
    let mut bytes = given.bytes.clone();
    if !given.overrides.is_empty() {
        // An empty line ends a continuation at the end of the file.
        bytes.extend_from_slice(b"\n\n");
        for (key, value) in &given.overrides {
            bytes.extend_from_slice(
                format!("{}={}\n", expand::escaped(key), expand::escaped(value)).as_bytes(),
            );
        }
    }
    match File::read(&bytes) {
        Ok(file) => file,
        Err(malformed) => {
            for escape in &malformed.escapes {
                let text = escape.to_string();
                bean.faults.push(Remark { line: Some(escape.at.line), key: None, text });
            }
            malformed.rest
        }
    }
}

/// Warns about lines of the file. Lines beyond `last` are overrides, and an overridden key gets no warning.
fn warn_about_lines(file: &File, given: &Given, last: usize, bean: &mut Bean) {
    for notice in file.notices() {
        let overridden = given.overrides.iter().any(|(key, _)| *key == notice.key);
        if notice.at.line <= last && !overridden {
            let shown = notice.to_string();
            bean.warnings.push(Remark {
                line: Some(notice.at.line),
                key: Some(notice.key.clone()),
                text: shown.split_once(": ").map_or(shown.as_str(), |(_, text)| text).to_owned(),
            });
        }
    }
}

/// Settings of multilangd: options precede environment variables, and these the file.
fn own_from_outside(given: &Given, bean: &mut Bean) {
    let names: Vec<String> = own::KEYS.iter().map(own::Own::variable).collect();
    for key in own::KEYS {
        let variable = key.variable();
        let option = given.options.iter().find(|(name, _)| *name == key.name);
        let outside = match (option, given.variables.get(&variable)) {
            (Some((_, text)), _) => Some((format!("--{}", key.option()), text.clone(), Source::Option)),
            (None, Some(text)) => Some((variable, text.clone(), Source::Environment)),
            (None, None) => None,
        };
        let Some((shown, text, source)) = outside else { continue };
        match key.check(text.trim()) {
            Ok(()) => {
                // The user sees an option, but an environment variable may come from an image.
                let other = bean.own.get(key.name).filter(|held| held.value != text.trim());
                if let (Source::Environment, Some(other)) = (source, other) {
                    let text = format!(
                        "environment variable {shown} = {} takes precedence over {}",
                        text.trim(),
                        other.value
                    );
                    bean.warnings.push(Remark { line: None, key: Some(other.key.clone()), text });
                }
                bean.own.insert(key.name, Held { key: shown, value: text.trim().to_owned(), source });
            }
            Err(why) => bean.faults.push(Remark {
                line: None,
                key: Some(shown.clone()),
                text: format!("{shown} = {text:?} {why}"),
            }),
        }
    }
    for name in given.variables.keys().filter(|name| name.starts_with(own::VARIABLE_PREFIX)) {
        let known = names.contains(name) || name == expand::VARIABLE;
        if let (false, Some(near)) = (known, nearest(name, names.iter().map(String::as_str))) {
            let text = format!("unknown environment variable {name} (did you mean {near}?)");
            bean.warnings.push(Remark { line: None, key: Some(name.clone()), text });
        }
    }
}

/// Client settings that the file does not set, from outside. Of a value that the clients share, only the
/// first error is reported.
fn clients_from_outside(outside: &Outside<'_>, bean: &mut Bean) {
    for (_, service) in CLIENTS {
        let found = sdk::of_client(outside, *service, &mut bean.faults);
        let region = outside.find(sdk::REGION).map(|found| (found.value.to_owned(), found.source));
        let text = |(value, source)| (Value::Text(value), source);
        let is = |(value, source)| (Value::Bool(value), source);
        for (name, found) in [
            ("region", region.map(text)),
            ("endpointOverride", found.endpoint.map(text)),
            ("fipsEnabled", found.fips.map(is)),
            ("dualstackEnabled", found.dual_stack.map(is)),
        ] {
            if let Some((value, source)) = found {
                let held = || Held { key: source.to_string(), value, source };
                bean.clients.entry((*service, name)).or_insert_with(held);
            }
        }
    }
}

struct Maker {
    settings: Settings,
    bean: Bean,
}

impl Maker {
    fn fault(&mut self, key: &str, text: String) {
        let line = self.bean.kcl.get(key).and_then(|held| held.source.line());
        self.bean.faults.push(Remark { line, key: Some(key.to_owned()), text });
    }

    fn warn(&mut self, key: &str, text: String) {
        let line = self.bean.kcl.get(key).and_then(|held| held.source.line());
        self.bean.warnings.push(Remark { line, key: Some(key.to_owned()), text });
    }

    fn own_fault<T>(&mut self, key: Handle<T>, text: String) {
        let line = self.settings.source(key).line();
        self.bean.faults.push(Remark { line, key: Some(key.name().to_owned()), text });
    }

    /// The number of a setting, whatever its unit; 0 if it is absent.
    fn number(&self, name: &str) -> i64 {
        if let Value::Number(number) = self.settings.value(name) { *number } else { 0 }
    }

    /// Sets every setting to its given value, if that applies, or to its default.
    fn fill(&mut self) {
        let application = match self.bean.kcl.get(kcl::APPLICATION.name()).map(|held| &held.value) {
            Some(Value::Text(name)) => name.clone(),
            _ => String::new(),
        };
        for key in kcl::KEYS {
            match self.bean.kcl.get(key.name) {
                Some(held) if !(key.drops_zero() && held.value.is_zero()) => {
                    self.settings.put(key.name, held.value.clone(), held.source);
                }
                _ => self.settings.put(key.name, Value::absent(key.absent, &application), Source::Default),
            }
        }
        for key in own::KEYS {
            let (text, source) = match self.bean.own.get(key.name) {
                Some(held) => (held.value.clone(), held.source),
                None => (key.default.to_owned(), Source::Default),
            };
            let value = match key.kind {
                own::OwnKind::Number(_) => Value::Number(text.parse().unwrap_or_default()),
                own::OwnKind::Or(_) => text.parse().map_or(Value::Text(text), Value::Number),
                own::OwnKind::Word(_)
                | own::OwnKind::Switch
                | own::OwnKind::Address
                | own::OwnKind::Filter
                | own::OwnKind::Destinations
                | own::OwnKind::Streams
                | own::OwnKind::Text => Value::Text(text),
            };
            self.settings.put(key.name, value, source);
        }
        self.fill_derived(&application);
        self.fill_clients();
        self.fill_credentials();
        for (written, shown) in &self.bean.written {
            if let Some(setting) = self.settings.get(shown).cloned() {
                self.settings.put(written, setting.value, setting.source);
            }
        }
    }

    /// Settings whose default depends on other settings.
    fn fill_derived(&mut self, application: &str) {
        for key in kcl::KEYS {
            if let (Absent::Twice(of), Value::Nothing) = (key.absent, self.settings.value(key.name))
                && let Some(Setting { value: Value::Number(number), source }) = self.settings.get(of).cloned()
            {
                self.settings.put(key.name, Value::Number(number.saturating_mul(2)), source);
            }
        }
        if self.settings.of(kcl::TABLE).is_none() {
            let source = self.settings.source(kcl::APPLICATION);
            self.settings.put(kcl::TABLE.name(), Value::Text(application.to_owned()), source);
        }
        match self.bean.position {
            Some(name) if name == kcl::POSITION_EXTENDED.name() => {
                let source = self.settings.source(kcl::POSITION_EXTENDED);
                self.settings.put(kcl::POSITION.name(), Value::Text("AT_TIMESTAMP".to_owned()), source);
            }
            Some(_) => self.settings.put(kcl::POSITION_EXTENDED.name(), Value::Nothing, Source::Default),
            None => {}
        }
        if let Some(arn) = self.settings.of(kcl::STREAM_ARN) {
            match stream_of_arn(&arn) {
                Some(stream) => {
                    let source = self.settings.source(kcl::STREAM_ARN);
                    self.settings.put(kcl::STREAM.name(), Value::Text(stream.name), source);
                }
                None => self.fault(
                    kcl::STREAM_ARN.name(),
                    format!(
                        "streamArn = {arn:?} is not of the form arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
                    ),
                ),
            }
        }
        let mode = self.retrieval_mode();
        let source = self.settings.source(kcl::RETRIEVAL_MODE);
        self.settings.put(kcl::RETRIEVAL_MODE.name(), Value::Text(mode.to_owned()), source);
        let key = kcl::IDLE_TIME;
        let idle = self.number(key.name());
        if idle < MIN_IDLE {
            self.warn(key.name(), format!("{key} = {idle} is raised to {MIN_IDLE}, as in KCL"));
            let source = self.settings.source(key);
            self.settings.put(key.name(), Value::Number(MIN_IDLE), source);
        }
    }

    /// `RetrievalMode`, `PollingConfigBean.anyPropertiesSet`.
    fn retrieval_mode(&self) -> &'static str {
        let given = |name: &str| self.bean.kcl.get(name);
        let nonzero = [kcl::MAX_RECORDS.name(), kcl::IDLE_TIME.name(), kcl::REDUCED_TPS_THRESHOLD.name()];
        let present = [kcl::RETRY_GET_RECORDS.name(), kcl::GET_RECORDS_THREADS.name()];
        let polling_key = nonzero.iter().any(|name| given(name).is_some_and(|held| !held.value.is_zero()))
            || present.iter().any(|name| given(name).is_some());
        match self.settings.of(kcl::RETRIEVAL_MODE).as_str() {
            "POLLING" => "POLLING",
            "FANOUT" => "FANOUT",
            _ if polling_key => "POLLING",
            _ => "FANOUT",
        }
    }

    /// Region and endpoint of each client, from any source.
    fn fill_clients(&mut self) {
        for (prefix, service) in CLIENTS {
            for name in ["region", "endpointOverride"] {
                let (value, source) = match self.bean.clients.get(&(*service, name)) {
                    Some(held) => (held.value.clone(), held.source),
                    None => (Value::Nothing, Source::Default),
                };
                self.settings.put(&format!("{prefix}.{name}"), value, source);
            }
        }
        for ((service, name), held) in &self.bean.clients {
            let prefix = CLIENTS.iter().find(|(_, of)| of == service).map_or("", |(prefix, _)| prefix);
            self.settings.put(&format!("{prefix}.{name}"), held.value.clone(), held.source);
        }
        for (key, nested) in [
            (kcl::REGION.name(), KINESIS_REGION.name()),
            (kcl::KINESIS_ENDPOINT.name(), "kinesisClient.endpointOverride"),
            (kcl::DYNAMODB_ENDPOINT.name(), "dynamoDbClient.endpointOverride"),
        ] {
            if let Some(setting) = self.settings.get(nested).cloned() {
                self.settings.put(key, setting.value, setting.source);
            }
        }
    }

    /// Shows the proxies and CA certificates, if there are any.
    fn show(&mut self, sdk: &Sdk) {
        let network = &sdk.network;
        let proxies = [("network.httpProxy", &network.http), ("network.httpsProxy", &network.https)];
        let mut shown: Vec<_> = proxies
            .into_iter()
            .filter_map(|(name, proxy)| proxy.as_ref().map(|proxy| (name, proxy.url.clone(), proxy.source)))
            .collect();
        let bundles = [("network.caBundle", &network.ca), ("network.caFile", &network.ca_file)];
        shown.extend(
            bundles.iter().filter_map(|(name, ca)| ca.as_ref().map(|ca| (*name, ca.file.clone(), ca.source))),
        );
        for (name, text, source) in shown {
            self.settings.put(name, Value::Text(text), source);
        }
    }

    /// DynamoDB and CloudWatch use the credentials of Kinesis unless they have their own.
    fn fill_credentials(&mut self) {
        for (_, service) in CLIENTS {
            let held =
                self.bean.credentials.get(service).or_else(|| self.bean.credentials.get(&Service::Kinesis));
            let (providers, source) = match held {
                Some(held) => (held.value.clone(), held.source),
                None => (vec![Provider::Default], Source::Default),
            };
            let shown: Vec<String> = providers.iter().map(ToString::to_string).collect();
            self.settings.put(credentials_key(*service), Value::Text(shown.join(", ")), source);
        }
    }

    fn check(&mut self) {
        // An empty value is no error of the file to Java, but the program cannot be started, as here.
        if !self.bean.kcl.contains_key(kcl::EXECUTABLE.name()) {
            self.require(kcl::EXECUTABLE);
        }
        self.require(kcl::APPLICATION);
        let several = self.settings.of(own::STREAMS) != own::NONE;
        if let Some(text) = streams::conflict(&self.settings) {
            self.own_fault(own::STREAMS, text);
        }
        if self.settings.of(kcl::STREAM_ARN).is_none() && !several {
            self.require(kcl::STREAM);
        }
        self.check_numbers();
        if let Some(seconds) = self.settings.of(kcl::POSITION_EXTENDED)
            && let Some(text) = position::fault(seconds, clock::wall_millis())
        {
            self.fault(kcl::POSITION_EXTENDED.name(), text);
        }
        self.check_region();
        self.check_endpoints();
        let is_given = |bean: &Bean, service| bean.credentials.contains_key(&service);
        if !is_given(&self.bean, Service::Kinesis) {
            self.warn(
                "AWSCredentialsProvider",
                "AWSCredentialsProvider is missing: using the default chain of the SDK; Java refuses to \
                 start without it"
                    .to_owned(),
            );
        }
        self.check_worker();
        self.check_names();
        if let Some(text) = letters::conflict(&self.settings) {
            self.own_fault(own::DEAD_LETTERS, text);
        }
        if let Some(text) = letters::unused_age(&self.settings) {
            self.own_fault(own::MAX_RECORD_AGE, text);
        }
        self.bean.warnings.extend(own::no_child_log(&self.settings));
        self.bean.warnings.extend(streams::without_effect(&self.settings));
    }

    /// Checks each name that AWS must accept. A name derived from `applicationName` is an error of that key,
    /// reported once.
    fn check_names(&mut self) {
        let fanout = self.settings.of(kcl::RETRIEVAL_MODE) == "FANOUT"
            && self.settings.of(kcl::CONSUMER_ARN).is_none();
        let by_arn = self.settings.of(kcl::STREAM_ARN).is_some();
        let stream = if by_arn { kcl::STREAM_ARN.name() } else { kcl::STREAM.name() };
        for (setting, kind) in [
            (kcl::STREAM, names::Kind::Stream),
            (kcl::TABLE, names::Kind::Table),
            (kcl::COORDINATOR_STATE_TABLE, names::Kind::Table),
            (kcl::WORKER_METRICS_TABLE, names::Kind::Table),
            (kcl::CONSUMER_NAME, names::Kind::Consumer),
        ] {
            if kind == names::Kind::Consumer && !fanout {
                continue;
            }
            let Some(name) = self.settings.of(setting) else { continue };
            let Some(why) = names::fault(kind, &name) else { continue };
            let setting = setting.name();
            let given = self.bean.kcl.get(setting).map(|held| &held.value);
            let is_given = matches!(given, Some(Value::Text(text)) if !text.trim().is_empty());
            let key = match kind {
                names::Kind::Stream => stream,
                names::Kind::Table | names::Kind::Consumer if is_given => setting,
                names::Kind::Table | names::Kind::Consumer => kcl::APPLICATION.name(),
            };
            if self.bean.faults.iter().any(|fault| fault.key.as_deref() == Some(key)) {
                continue;
            }
            let text = if key == setting {
                format!("{key} = {name:?} {why}")
            } else if key == stream {
                format!("{key} names the stream {name:?}, which {why}")
            } else {
                format!("{key} sets {setting} = {name:?}, which {why} (correct {key}, or set {setting})")
            };
            self.fault(key, text);
        }
    }

    fn check_worker(&mut self) {
        const KEY: &str = kcl::WORKER_ID.name();
        let Some(Held { value: Value::Text(id), .. }) = self.bean.kcl.get(KEY) else { return };
        let taken = ["Leader", "Migration3.0", "TableMigration3.5"];
        if id.is_empty() {
            let text = "workerId is empty, which DynamoDB rejects (leave the key out for a random id)";
            self.fault(KEY, text.to_owned());
        } else if taken.contains(&id.as_str()) || id.starts_with("shardId-") {
            let text =
                format!("workerId = {id} is the key of another row of the lease table (set another id)");
            self.fault(KEY, text);
        }
    }

    fn require(&mut self, key: Handle<Text>) {
        if self.settings.of(key).is_some() {
            return;
        }
        let key = key.name();
        let known = kcl::KEYS.iter().find(|known| known.name == key);
        let example = match known.map(|known| known.absent) {
            Some(Absent::Required(example)) => example,
            _ => "...",
        };
        let what = if self.bean.kcl.contains_key(key) { "is blank" } else { "is missing" };
        self.fault(key, format!("{key} {what}, as in {key} = {example}"));
    }

    fn check_numbers(&mut self) {
        let least = [
            (kcl::FAILOVER.name(), MIN_FAILOVER, "leases could not be renewed in time"),
            (kcl::LEASE_ASSIGNMENT_INTERVAL.name(), MIN_ASSIGNMENT, "leases could not be scanned in time"),
            (
                kcl::TIMEOUT.name(),
                1,
                "Java reads a value that is not a number as 0, and 0 ends the daemon at its first message",
            ),
            (kcl::MAX_LEASES.name(), 0, "it must not be negative"),
            (kcl::MAX_STEALS.name(), 0, "it must not be negative"),
            (kcl::READ_CAPACITY.name(), 0, "it must not be negative"),
            (kcl::WRITE_CAPACITY.name(), 0, "it must not be negative"),
            (kcl::SCAN_SEGMENTS.name(), 0, "leave it out for a number that depends on the size of the table"),
        ];
        for (key, least, why) in least {
            let given = self.bean.kcl.contains_key(key);
            let number = self.number(key);
            if given && number < least && *self.settings.value(key) != Value::Nothing {
                self.fault(key, format!("{key} = {number} must be at least {least}: {why}"));
            }
        }
        let polling = self.settings.of(kcl::RETRIEVAL_MODE) == "POLLING";
        let key = kcl::MAX_RECORDS;
        let records = self.number(key.name());
        // As in KCL.
        if polling && self.settings.of(key) > MOST_RECORDS {
            self.fault(key.name(), format!("{key} = {records} must be at most {MOST_RECORDS}"));
        }
        if polling && records < 0 {
            self.fault(key.name(), format!("{key} = {records} must be at least 1"));
        }
        let key = kcl::MAX_RENEWAL_THREADS;
        if self.settings.of(key) == 1 {
            let text = format!("{key} = 1 is invalid: the thread pool of Java needs at least 2");
            self.fault(key.name(), text);
        }
        for key in kcl::KEYS.iter().filter(|key| key.name.ends_with("Millis")) {
            let number = self.number(key.name);
            let is_refused =
                [kcl::FAILOVER.name(), kcl::LEASE_ASSIGNMENT_INTERVAL.name()].contains(&key.name);
            if number < 0 && !is_refused {
                self.warn(key.name, format!("{} = {number} is negative and counts as 0", key.name));
            }
        }
    }

    fn done(self) -> Resolved {
        let Self { settings, bean } = self;
        let (mut warnings, mut faults) = (bean.warnings, bean.faults);
        faults.sort_by_key(|remark| remark.line);
        warnings.sort_by_key(|remark| remark.line);
        let credentials = bean.credentials.into_iter().map(|(service, held)| (service, held.value)).collect();
        let hostname = String::new();
        let clients = bean.clients;
        Resolved { settings, warnings, faults, credentials, clients, hostname, sdk: Sdk::default() }
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
