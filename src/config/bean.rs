//! Sets the file's pairs one after the other in Java's order: the content of its configuration object before
//! KCL's defaults apply.
//!
//! Every pair becomes a value, an error where Java refuses to start, or a warning; none is dropped silently.
//! In KCL: `MultiLangDaemonConfiguration`, `BeanUtilsBean`.

use std::collections::BTreeMap;

use super::credentials::{self, Provider};
use super::keys::client::{self, CLIENTS, Service};
use super::keys::{Use, kcl, names, nearest, own, retired};
use super::value::{Value, convert};
use super::{Remark, Source};

// Keys with an effect on others.
const POSITION: &str = kcl::POSITION.name();
const POSITION_EXTENDED: &str = kcl::POSITION_EXTENDED.name();
const REGION: &str = kcl::REGION.name();
const KINESIS_ENDPOINT: &str = kcl::KINESIS_ENDPOINT.name();
const DYNAMODB_ENDPOINT: &str = kcl::DYNAMODB_ENDPOINT.name();

/// One key and its value, with `${…}` replaced if enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub text: String,
    /// The source of the pair.
    pub source: Source,
}

/// A setting that was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Held<T = Value> {
    /// The key that set it last.
    pub key: String,
    /// The value.
    pub value: T,
    /// The source.
    pub source: Source,
}

/// The content of all pairs.
#[derive(Debug, Default)]
pub struct Bean {
    /// Settings by the first name of their key.
    pub kcl: BTreeMap<&'static str, Held>,
    /// The last set of `initialPositionInStream` and `initialPositionInStreamExtended`, which set one field.
    pub position: Option<&'static str>,
    /// Client settings by service and name after the client's prefix.
    pub clients: BTreeMap<(Service, &'static str), Held>,
    /// Credentials providers by service.
    pub credentials: BTreeMap<Service, Held<Vec<Provider>>>,
    /// Settings of multilangd, by their key in the file.
    pub own: BTreeMap<&'static str, Held<String>>,
    /// All keys in the file that have a meaning, with the name that `check` shows for each.
    pub written: BTreeMap<String, String>,
    /// Errors: Java or multilangd would not start.
    pub faults: Vec<Remark>,
    /// Warnings.
    pub warnings: Vec<Remark>,
}

impl Bean {
    /// Sets one pair.
    pub fn set(&mut self, pair: &Pair<'_>) {
        let key = pair.key;
        if let Some(service) = credentials_of(key) {
            return self.set_credentials(service, pair);
        }
        if key.starts_with(own::PREFIX) {
            return self.set_own(pair);
        }
        if let Some(known) = kcl::KEYS.iter().find(|known| known.answers_to(key)) {
            return self.set_kcl(known, pair);
        }
        if let Some((prefix, name)) = key.split_once('.') {
            if let Some((_, service)) = CLIENTS.iter().find(|(client, _)| *client == prefix) {
                return self.set_client(*service, name, pair);
            }
            if PROVIDER_PARTS.contains(&prefix) {
                return self.fault(
                    pair,
                    "is not supported (name a provider with AWSCredentialsProvider, \
                     AWSCredentialsProviderDynamoDB or AWSCredentialsProviderCloudWatch)",
                );
            }
        }
        self.unknown(pair);
    }

    fn fault(&mut self, pair: &Pair<'_>, text: &str) {
        self.faults.push(remark(pair, text));
    }

    fn warn(&mut self, pair: &Pair<'_>, text: &str) {
        self.warnings.push(remark(pair, text));
    }

    fn set_kcl(&mut self, key: &'static super::keys::Key, pair: &Pair<'_>) {
        self.written.insert(pair.key.to_owned(), key.name.to_owned());
        let converted = match convert(key.kind, &pair.text) {
            Ok(converted) => converted,
            Err(why) => return self.fault(pair, &format!("= {:?} {why}", pair.text)),
        };
        if let Some(odd) = converted.odd {
            let dropped = if key.drops_zero() {
                format!(", which means \"not set\": {} stays", key.absent)
            } else {
                String::new()
            };
            // A timeout of 0 is rejected later, with its meaning.
            if key.name != kcl::TIMEOUT.name() {
                self.warn(pair, &format!("= {:?} {odd}{dropped}", pair.text));
            }
        } else if key.drops_zero() && converted.value.is_zero() && !key.absent.is_zero() {
            self.warn(
                pair,
                &format!("= {} means \"not set\" in Java: {} stays", pair.text.trim(), key.absent),
            );
        }
        match key.used {
            Use::Yes => {}
            Use::NotYet(instead) => self.warn(pair, &format!("is not supported yet: {instead}")),
            Use::NoEffect(why) => self.warn(pair, &format!("has no effect: {why}")),
            Use::Never(why) => self.warn(pair, &format!("is not supported: {why}")),
        }
        match key.name {
            POSITION | POSITION_EXTENDED => {
                if let Some(other) = self.position.replace(key.name) {
                    self.conflict(pair, other);
                }
            }
            REGION => CLIENTS
                .iter()
                .for_each(|(_, service)| self.client(*service, "region", converted.value.clone(), pair)),
            KINESIS_ENDPOINT => {
                self.client(Service::Kinesis, "endpointOverride", converted.value.clone(), pair)
            }
            DYNAMODB_ENDPOINT => {
                self.client(Service::DynamoDb, "endpointOverride", converted.value.clone(), pair)
            }
            _ => {}
        }
        let held = Held { key: pair.key.to_owned(), value: converted.value, source: pair.source };
        if let Some(before) = self.kcl.insert(key.name, held) {
            self.conflict(pair, &before.key);
        }
    }

    /// Two keys set one setting: the one that Java visits last applies.
    fn conflict(&mut self, pair: &Pair<'_>, before: &str) {
        self.warn(
            pair,
            &format!(
                "and {before} set the same; this one takes precedence, by the order in which Java walks its \
             table (delete one)"
            ),
        );
    }

    fn set_client(&mut self, service: Service, name: &str, pair: &Pair<'_>) {
        let found = client::KEYS.iter().find(|key| {
            key.name == name && (key.name != "endpointDiscoveryEnabled" || service == Service::DynamoDb)
        });
        let Some(key) = found else {
            let near = nearest(name, client::KEYS.iter().map(|key| key.name));
            let hint = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
            return self.fault(pair, &format!("cannot be set from a properties file, Java rejects it{hint}"));
        };
        self.written.insert(pair.key.to_owned(), pair.key.to_owned());
        let converted = match convert(key.kind, &pair.text) {
            Ok(converted) => converted,
            Err(why) => return self.fault(pair, &format!("= {:?} {why}", pair.text)),
        };
        if let Some(odd) = converted.odd {
            self.warn(pair, &format!("= {:?} {odd}", pair.text));
        }
        match key.used {
            Use::Yes => {}
            Use::NotYet(instead) => self.warn(pair, &format!("is not supported yet: {instead}")),
            Use::NoEffect(why) | Use::Never(why) => self.warn(pair, &format!("is not supported: {why}")),
        }
        self.client(service, key.name, converted.value, pair);
    }

    fn client(&mut self, service: Service, name: &'static str, value: Value, pair: &Pair<'_>) {
        let held = Held { key: pair.key.to_owned(), value, source: pair.source };
        if let Some(before) = self.clients.insert((service, name), held) {
            self.conflict(pair, &before.key);
        }
    }

    fn set_credentials(&mut self, service: Service, pair: &Pair<'_>) {
        self.written.insert(pair.key.to_owned(), credentials_key(service).to_owned());
        if let Some(before) = self.credentials.get(&service).map(|held| held.key.clone()) {
            return self.fault(
                pair,
                &format!("and {before} are the same key in Java, which rejects both (delete one)"),
            );
        }
        let providers = match credentials::chain(&pair.text) {
            Ok(chain) => {
                chain.warnings.iter().for_each(|text| self.warn(pair, &format!(": {text}")));
                chain.providers
            }
            Err(why) => {
                self.fault(pair, &format!(": {why}"));
                Vec::new()
            }
        };
        self.credentials
            .insert(service, Held { key: pair.key.to_owned(), value: providers, source: pair.source });
    }

    fn set_own(&mut self, pair: &Pair<'_>) {
        let Some(key) = own::KEYS.iter().find(|key| key.name == pair.key) else {
            let near = nearest(pair.key, own::KEYS.iter().map(|key| key.name));
            let hint = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
            return self.warn(pair, &format!("is not a setting of multilangd{hint}"));
        };
        let text = pair.text.trim();
        match key.check(text) {
            Ok(()) => {
                let held = Held { key: pair.key.to_owned(), value: text.to_owned(), source: pair.source };
                self.own.insert(key.name, held);
            }
            Err(why) => self.fault(pair, &format!("= {text:?} {why}")),
        }
    }

    fn unknown(&mut self, pair: &Pair<'_>) {
        let key = pair.key;
        if let Some(why) = broken_expression(key) {
            return self.fault(pair, why);
        }
        let first = key.split('.').next().unwrap_or_default();
        if let Some(old) = retired::KEYS.iter().find(|old| old.name == key || old.name == first) {
            return self
                .warn(pair, &format!("is unknown to KCL 3.x and ignored, as in Java: {}", old.advice));
        }
        let nested = client::KEYS
            .iter()
            .flat_map(|known| CLIENTS.iter().map(|(client, _)| format!("{client}.{}", known.name)));
        let all: Vec<String> = names().map(str::to_owned).chain(nested).collect();
        let near = nearest(key, all.iter().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
        self.warn(pair, &format!("is an unknown key; Java ignores it too{hint}"));
    }
}

/// Properties of the bean that stand for a provider. Nested keys can construct it, if the order of Java's
/// hash table happens to begin with the class.
const PROVIDER_PARTS: [&str; 3] =
    ["kinesisCredentialsProvider", "dynamoDBCredentialsProvider", "cloudWatchCredentialsProvider"];

/// The key under which `check` shows the credentials of a service.
pub fn credentials_key(service: Service) -> &'static str {
    match service {
        Service::Kinesis => "AWSCredentialsProvider",
        Service::DynamoDb => "AWSCredentialsProviderDynamoDB",
        Service::CloudWatch => "AWSCredentialsProviderCloudWatch",
    }
}

/// Matches the first letters in any case, the rest in its exact case.
fn credentials_of(key: &str) -> Option<Service> {
    const BEGINNING: &str = "awscredentialsprovider";
    let (beginning, rest) = key.split_at_checked(BEGINNING.len())?;
    match rest {
        _ if !beginning.eq_ignore_ascii_case(BEGINNING) => None,
        "" => Some(Service::Kinesis),
        "DynamoDB" => Some(Service::DynamoDb),
        "CloudWatch" => Some(Service::CloudWatch),
        _ => None,
    }
}

/// Brackets are expressions in commons-beanutils, and an unmatched one is fatal (`DefaultResolver`).
fn broken_expression(key: &str) -> Option<&'static str> {
    if let Some((_, rest)) = key.split_once('(') {
        return (!rest.contains(')')).then_some("lacks its closing ), Java rejects it");
    }
    let (_, rest) = key.split_once('[')?;
    match rest.split_once(']') {
        None => Some("lacks its closing ], Java rejects it"),
        Some(("", _)) => Some("has no number in its [ ], Java rejects it"),
        Some((index, _)) => {
            index.parse::<i32>().is_err().then_some("has no number in its [ ], Java rejects it")
        }
    }
}

fn remark(pair: &Pair<'_>, text: &str) -> Remark {
    let gap = if text.starts_with(':') { "" } else { " " };
    Remark {
        line: pair.source.line(),
        key: Some(pair.key.to_owned()),
        text: format!("{}{gap}{text}", pair.key.escape_debug()),
    }
}
