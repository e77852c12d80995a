//! The description of a key: its name, its type, its default, and its effect here.
//!
//! The tables: [`kcl::KEYS`] (every key that reaches a setting in KCL 3.5), [`client::KEYS`] (keys with the
//! prefix `kinesisClient.` and the like), [`retired::KEYS`] (keys of KCL 1.x alone) and [`own::KEYS`] (keys
//! of multilangd). A row of the first and the last has a typed [`handle`], by which its setting is read.
//! `docs/configuration.md` shows both; `tests/tidy` compares.

use std::fmt;

use self::handle::Class;

pub mod client;
pub mod handle;
pub mod kcl;
pub mod own;
pub mod retired;

/// A key that KCL knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// The name, in its exact case.
    pub name: &'static str,
    /// Other names for the same setting.
    pub aliases: &'static [&'static str],
    /// The nested bean through which the key can be written too, as in `pollingConfig.maxRecords`.
    pub bean: Option<&'static str>,
    /// The type of the value.
    pub kind: Kind,
    /// The default.
    pub absent: Absent,
    /// The class of KCL's configuration that holds the setting, or the daemon itself.
    pub sets: &'static str,
    /// The effect of the key here.
    pub used: Use,
    /// The description for the documentation.
    pub doc: &'static str,
}

/// The type of a value in Java. Conversions are in `multilangd_properties::value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, blanks included.
    Text,
    /// `int`: an unreadable value is 0, and 0 means "not given".
    Int,
    /// `long`, with the same rules as `Int`.
    Long,
    /// `double`, with the same rules as `Int`.
    Double,
    /// `boolean`: an unreadable value is false, and false means "not given".
    Bool,
    /// `Integer`: an unreadable value is 0, and 0 applies.
    BoxedInt,
    /// `Long`, with the same rules as `BoxedInt`.
    BoxedLong,
    /// `Boolean`: an unreadable value is false, and false applies.
    BoxedBool,
    /// `Integer.parseInt`: not trimmed; an unreadable value is fatal.
    Threads,
    /// One of these keywords, in any case, not trimmed.
    Enum(&'static [&'static str]),
    /// Whole seconds since 1970.
    EpochSeconds,
    /// A duration in ISO 8601, not negative.
    Duration,
    /// Words, separated by any other characters.
    Words,
    /// `k=v, k=v`.
    Tags,
    /// Any text that is not blank.
    Region,
    /// An absolute http or https URL.
    Uri,
    /// A type to which Java cannot convert any text.
    Unusable,
}

/// The default of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Absent {
    /// Required: the daemon does not start without it. An example of a value.
    Required(&'static str),
    /// No value.
    Nothing,
    /// A default that is described in words.
    Told(&'static str),
    /// Twice the number of that key.
    Twice(&'static str),
    /// A number.
    Number(i64),
    /// A floating-point number.
    Real(f64),
    /// A boolean.
    Bool(bool),
    /// A keyword.
    Text(&'static str),
    /// Keywords.
    Words(&'static [&'static str]),
    /// A number of seconds.
    Seconds(u64),
    /// `applicationName` with this suffix.
    Application(&'static str),
}

impl Absent {
    /// Whether 0 or false of a primitive type equals the default.
    pub fn is_zero(&self) -> bool {
        matches!(self, Self::Nothing | Self::Number(0) | Self::Bool(false))
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required(_) => f.write_str("required"),
            Self::Nothing => f.write_str("-"),
            Self::Told(text) | Self::Text(text) => f.write_str(text),
            Self::Twice(other) => write!(f, "twice {other}"),
            Self::Number(number) => number.fmt(f),
            Self::Real(number) if *number == f64::MAX => f.write_str("unlimited"),
            Self::Real(number) => number.fmt(f),
            Self::Bool(is) => is.fmt(f),
            Self::Words([]) => f.write_str("-"),
            Self::Words(words) => f.write_str(&words.join(" ")),
            Self::Seconds(seconds) => write!(f, "PT{seconds}S"),
            Self::Application(suffix) => write!(f, "applicationName{suffix}"),
        }
    }
}

/// The class of a row's value.
const fn class(kind: Kind, absent: Absent) -> Class {
    match kind {
        Kind::Text | Kind::Region | Kind::Uri => Class::Text,
        Kind::Enum(_) => Class::Word,
        Kind::Int | Kind::Long | Kind::BoxedInt | Kind::BoxedLong | Kind::Threads | Kind::EpochSeconds => {
            match absent {
                Absent::Nothing | Absent::Told(_) => Class::MaybeNumber,
                Absent::Required(_)
                | Absent::Twice(_)
                | Absent::Number(_)
                | Absent::Real(_)
                | Absent::Bool(_)
                | Absent::Text(_)
                | Absent::Words(_)
                | Absent::Seconds(_)
                | Absent::Application(_) => Class::Number,
            }
        }
        Kind::Double => Class::Real,
        Kind::Bool | Kind::BoxedBool => Class::Flag,
        Kind::Duration => Class::Time,
        Kind::Words => Class::Words,
        Kind::Tags => Class::Tags,
        Kind::Unusable => Class::None,
    }
}

/// The effect of a key here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As in Java.
    Yes,
    /// Not implemented yet; the behaviour instead.
    NotYet(&'static str),
    /// No effect, as in Java; the reason.
    NoEffect(&'static str),
    /// Honoured by Java but not here; the reason.
    Never(&'static str),
}

impl Key {
    /// Whether a key of the file means this one.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name
            || self.aliases.contains(&name)
            || self.bean.is_some_and(|bean| {
                name.strip_prefix(bean).and_then(|rest| rest.strip_prefix('.')) == Some(self.name)
            })
    }

    /// Whether Java treats 0 and false as "not given" (`ConfigurationSettableUtils`).
    pub fn drops_zero(&self) -> bool {
        // The one primitive whose value Java uses directly.
        matches!(self.kind, Kind::Int | Kind::Long | Kind::Double | Kind::Bool)
            && self.name != kcl::SHUTDOWN_GRACE.name()
    }
}

/// All names of KCL's keys, except for nested ones.
pub fn names() -> impl Iterator<Item = &'static str> {
    let credentials =
        ["AWSCredentialsProvider", "AWSCredentialsProviderDynamoDB", "AWSCredentialsProviderCloudWatch"];
    let kcl = kcl::KEYS.iter().flat_map(|key| key.aliases.iter().chain([&key.name]).copied());
    kcl.chain(credentials).chain(own::KEYS.iter().map(|key| key.name))
}

/// The name that was most likely meant.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (name, far) =
        names.map(|name| (name, distance(name, written))).min_by_key(|(_, distance)| *distance)?;
    (name.eq_ignore_ascii_case(written) || far <= 2.max(written.len() / 6)).then_some(name)
}

/// The Levenshtein distance, ignoring case.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_across_the_tables() {
        let mut all: Vec<&str> = names().chain(retired::KEYS.iter().map(|key| key.name)).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn nearest_name_is_found_by_case_and_letters() {
        assert_eq!(nearest("MaxRecords", names()), Some("maxRecords"));
        assert_eq!(nearest("failoverTimeMilis", names()), Some("failoverTimeMillis"));
        assert_eq!(nearest("dynamoDbEndpoint", names()), Some("dynamoDBEndpoint"));
        assert_eq!(nearest("zzz", names()), None);
    }

    #[test]
    fn key_is_reached_through_its_bean() {
        let key = kcl::KEYS.iter().find(|key| key.name == "maxRecords").unwrap();
        assert!(key.answers_to("maxRecords") && key.answers_to("pollingConfig.maxRecords"));
        assert!(!key.answers_to("fanoutConfig.maxRecords") && !key.answers_to("pollingConfigmaxRecords"));
        assert!(key.drops_zero());
    }
}
