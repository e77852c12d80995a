//! What a key is: its name, how its text is read, what holds without it, what becomes of it.
//!
//! The tables are below: [`kcl::KEYS`] (every key that reaches a setting in KCL 3.5), [`client::KEYS`]
//! (what stands behind `kinesisClient.` and the like), [`retired::KEYS`] (what only KCL 1.x knew) and
//! [`own::KEYS`] (ours). `docs/configuration.md` shows all but the retired; `tests/tidy` compares.

use std::fmt;

pub mod client;
pub mod kcl;
pub mod own;
pub mod retired;

/// One key of the file that KCL knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// The name, in its exact case.
    pub name: &'static str,
    /// Other names for the same setting.
    pub aliases: &'static [&'static str],
    /// The part of Java's bean through which it can be reached too, as in `pollingConfig.maxRecords`.
    pub bean: Option<&'static str>,
    /// How the text is read.
    pub kind: Kind,
    /// What holds without the key.
    pub absent: Absent,
    /// Where Java puts it: a class of KCL's configuration, or the daemon itself.
    pub sets: &'static str,
    /// What becomes of it here.
    pub used: Use,
    /// What it does.
    pub doc: &'static str,
}

/// How Java reads a value. Conversions are in `multilangd_properties::value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it stands, blanks included.
    Text,
    /// `int`: what isn't one is 0, and 0 means "not given".
    Int,
    /// `long`: the same.
    Long,
    /// `double`: the same.
    Double,
    /// `boolean`: what isn't one is false, and false means "not given".
    Bool,
    /// `Integer`: what isn't one is 0, and 0 applies.
    BoxedInt,
    /// `Long`: the same.
    BoxedLong,
    /// `Boolean`: what isn't one is false, and false applies.
    BoxedBool,
    /// `Integer.parseInt`: not trimmed, anything else ends the start.
    Threads,
    /// One of these words, in any case, not trimmed.
    Enum(&'static [&'static str]),
    /// Whole seconds since 1970.
    EpochSeconds,
    /// ISO 8601, not negative.
    Duration,
    /// Words between anything that isn't part of one.
    Words,
    /// `k=v, k=v`.
    Tags,
    /// Any text but a blank one.
    Region,
    /// An absolute http or https address.
    Uri,
    /// Nothing: Java can't convert any text to it.
    Unusable,
}

/// What holds without a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Absent {
    /// The daemon doesn't start; an example of a value.
    Required(&'static str),
    /// Nothing.
    Nothing,
    /// Nothing fixed; in words.
    Told(&'static str),
    /// This number.
    Number(i64),
    /// This number.
    Real(f64),
    /// This.
    Bool(bool),
    /// This word.
    Text(&'static str),
    /// These words.
    Words(&'static [&'static str]),
    /// So many seconds.
    Seconds(u64),
    /// `applicationName` with this behind it.
    Application(&'static str),
}

impl Absent {
    /// Whether a primitive's 0 or false would change nothing.
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

/// What becomes of a key here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It does what it does in Java.
    Yes,
    /// Not built yet; this is what holds instead.
    NotYet(&'static str),
    /// It does nothing, for this reason; in Java neither.
    NoEffect(&'static str),
    /// Java honours it, we don't, for this reason.
    Never(&'static str),
}

impl Key {
    /// Whether the file's key means this one.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name
            || self.aliases.contains(&name)
            || self.bean.is_some_and(|bean| {
                name.strip_prefix(bean).and_then(|rest| rest.strip_prefix('.')) == Some(self.name)
            })
    }

    /// Whether Java takes 0 and false for "not given" (`ConfigurationSettableUtils`).
    pub fn drops_zero(&self) -> bool {
        // The one primitive that is used directly.
        matches!(self.kind, Kind::Int | Kind::Long | Kind::Double | Kind::Bool)
            && self.name != "shutdownGraceMillis"
    }
}

/// All names of KCL's keys that can be written, but for the nested ones.
pub fn names() -> impl Iterator<Item = &'static str> {
    let credentials =
        ["AWSCredentialsProvider", "AWSCredentialsProviderDynamoDB", "AWSCredentialsProviderCloudWatch"];
    let kcl = kcl::KEYS.iter().flat_map(|key| key.aliases.iter().chain([&key.name]).copied());
    kcl.chain(credentials).chain(own::KEYS.iter().map(|key| key.name))
}

/// Of some names the one that was most likely meant.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (name, far) =
        names.map(|name| (name, distance(name, written))).min_by_key(|(_, distance)| *distance)?;
    (name.eq_ignore_ascii_case(written) || far <= 2.max(written.len() / 6)).then_some(name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice_in_the_tables() {
        let mut all: Vec<&str> = names().chain(retired::KEYS.iter().map(|key| key.name)).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn the_nearest_name_is_found_by_case_and_by_letters() {
        assert_eq!(nearest("MaxRecords", names()), Some("maxRecords"));
        assert_eq!(nearest("failoverTimeMilis", names()), Some("failoverTimeMillis"));
        assert_eq!(nearest("dynamoDbEndpoint", names()), Some("dynamoDBEndpoint"));
        assert_eq!(nearest("zzz", names()), None);
    }

    #[test]
    fn a_key_is_reached_through_its_bean_too() {
        let key = kcl::KEYS.iter().find(|key| key.name == "maxRecords").unwrap();
        assert!(key.answers_to("maxRecords") && key.answers_to("pollingConfig.maxRecords"));
        assert!(!key.answers_to("fanoutConfig.maxRecords") && !key.answers_to("pollingConfigmaxRecords"));
        assert!(key.drops_zero());
    }
}
