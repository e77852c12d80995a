//! Parses one value of the file as Java does for its type.

use std::fmt;
use std::time::Duration;

use multilangd_properties::value::{self, Read};
use serde_json::json;

use super::keys::{Absent, Kind};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Nothing,
    /// The text as written, or a keyword in upper case.
    Text(String),
    /// A number, a duration in milliseconds, or seconds since 1970.
    Number(i64),
    /// A floating-point number.
    Real(f64),
    /// A boolean.
    Bool(bool),
    /// A list of words.
    Words(Vec<String>),
    /// Names and values.
    Tags(Vec<(String, String)>),
    /// A duration in ISO 8601.
    Duration(Duration),
}

impl Value {
    /// The value that applies if the key is absent.
    pub(super) fn absent(absent: Absent, application: &str) -> Self {
        match absent {
            Absent::Required(_) | Absent::Nothing | Absent::Told(_) | Absent::Twice(_) => Value::Nothing,
            Absent::Number(number) => Value::Number(number),
            Absent::Real(number) => Value::Real(number),
            Absent::Bool(is) => Value::Bool(is),
            Absent::Text(text) => Value::Text(text.to_owned()),
            Absent::Words(words) => Value::Words(words.iter().map(|word| (*word).to_owned()).collect()),
            Absent::Seconds(seconds) => Value::Duration(Duration::from_secs(seconds)),
            Absent::Application(suffix) => Value::Text(format!("{application}{suffix}")),
        }
    }
}

/// A parsed value, with a remark.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The value that Java's bean would hold.
    pub value: Value,
    /// How the value may differ from the author's intention.
    pub odd: Option<String>,
}

/// Parses a text.
///
/// # Errors
/// Java refuses the text; what would be accepted.
pub fn convert(kind: Kind, text: &str) -> Result<Converted, String> {
    let plain = |value| Ok(Converted { value, odd: None });
    match kind {
        Kind::Text => plain(Value::Text(text.to_owned())),
        Kind::Int | Kind::BoxedInt => Ok(whole(value::int(text), "from -2147483648 to 2147483647")),
        Kind::Long | Kind::BoxedLong => Ok(whole(value::long(text), "of 64 bits")),
        Kind::Double => Ok(match value::double(text) {
            Read::Value(number) => Converted { value: Value::Real(number), odd: None },
            Read::Unreadable => Converted {
                value: Value::Real(0.0),
                odd: Some("is not a number: Java reads it as 0".to_owned()),
            },
        }),
        Kind::Bool | Kind::BoxedBool => Ok(match value::boolean(text) {
            Read::Value(is) => Converted { value: Value::Bool(is), odd: None },
            Read::Unreadable => Converted {
                value: Value::Bool(false),
                odd: Some("is neither true nor false: Java reads it as false".to_owned()),
            },
        }),
        Kind::Threads => match value::parse_int(text) {
            Ok(number) => plain(Value::Number(number.into())),
            Err(_) => Err("must be a whole number, without blanks".to_owned()),
        },
        Kind::Enum(words) => word(words, text),
        Kind::EpochSeconds => match value::parse_long(text) {
            // Java counts milliseconds in 64 bits; larger values would overflow.
            Ok(seconds) if seconds.checked_mul(1000).is_some() => plain(Value::Number(seconds)),
            _ => Err("must be whole seconds since 1970, as in 1700000000".to_owned()),
        },
        Kind::Duration => match value::duration(text) {
            Ok(duration) => plain(Value::Duration(duration)),
            Err(error) => Err(error.to_string()),
        },
        Kind::Words => plain(Value::Words(value::words(text))),
        Kind::Tags => {
            let tags = value::tags(text);
            let odd = (!tags.invalid.is_empty()).then(|| {
                format!("contains parts that are not NAME=VALUE and are ignored: {:?}", tags.invalid)
            });
            let tags = tags.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
            Ok(Converted { value: Value::Tags(tags), odd })
        }
        Kind::Region if text.trim().is_empty() => {
            Err("must not be blank (name a region, as in eu-central-1)".to_owned())
        }
        Kind::Region => plain(Value::Text(text.to_owned())),
        Kind::Uri => uri(text).map(|()| Converted { value: Value::Text(text.to_owned()), odd: None }),
        Kind::Unusable => {
            Err("cannot be set from a properties file, Java rejects every value (delete it)".to_owned())
        }
    }
}

fn whole<T: Into<i64>>(read: Read<T>, range: &str) -> Converted {
    match read {
        Read::Value(number) => Converted { value: Value::Number(number.into()), odd: None },
        Read::Unreadable => Converted {
            value: Value::Number(0),
            odd: Some(format!("is not a whole number {range}: Java reads it as 0")),
        },
    }
}

fn word(words: &[&str], text: &str) -> Result<Converted, String> {
    let upper = text.to_uppercase();
    if words.contains(&upper.as_str()) {
        return Ok(Converted { value: Value::Text(upper), odd: None });
    }
    let hint = if words.contains(&upper.trim()) { " (delete the blanks around it)" } else { "" };
    Err(format!("must be {}{hint}", words.join(" or ")))
}

/// Checks the requirements of `java.net.URI` and of an endpoint: a scheme, and no character that a URI cannot
/// contain. Java would load a scheme other than http and https and fail at the first call.
pub(super) fn uri(text: &str) -> Result<(), String> {
    let foreign = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c);
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = authority.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if text.trim() != text && !text.trim().contains(foreign) {
        Err("has a leading or trailing blank (delete it)".to_owned())
    } else if text.contains(foreign) || host.is_none_or(str::is_empty) {
        Err("is not a URL such as http://127.0.0.1:4567".to_owned())
    } else {
        Ok(())
    }
}

impl Value {
    /// Whether Java treats the value as "not given", if its type is primitive.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Number(number) => *number == 0,
            Self::Real(number) => *number == 0.0,
            Self::Bool(is) => !is,
            Self::Nothing | Self::Text(_) | Self::Words(_) | Self::Tags(_) | Self::Duration(_) => false,
        }
    }

    /// The value for `check --json`.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Nothing => json!(null),
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            // JSON has no such numbers.
            Self::Real(number) if !number.is_finite() => json!(number.to_string()),
            Self::Real(number) => json!(number),
            Self::Bool(is) => json!(is),
            Self::Words(words) => json!(words),
            Self::Tags(tags) => {
                tags.iter().map(|(name, value)| json!({"key": name, "value": value})).collect()
            }
            Self::Duration(duration) => json!(iso(*duration)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("-"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => number.fmt(f),
            Self::Real(number) if *number == f64::MAX => f.write_str("unlimited"),
            Self::Real(number) => number.fmt(f),
            Self::Bool(is) => is.fmt(f),
            Self::Words(words) => write!(f, "[{}]", words.join(", ")),
            Self::Tags(tags) => {
                let shown: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", shown.join(", "))
            }
            Self::Duration(duration) => f.write_str(&iso(*duration)),
        }
    }
}

/// Hours, minutes and seconds, as `java.time.Duration.toString` writes them.
fn iso(duration: Duration) -> String {
    let (whole, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    let mut out = "PT".to_owned();
    for (count, unit) in [(hours, 'H'), (minutes, 'M')] {
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
        }
    }
    if nanos > 0 {
        let decimals = format!("{nanos:09}");
        out.push_str(&format!("{seconds}.{}S", decimals.trim_end_matches('0')));
    } else if seconds > 0 || out == "PT" {
        out.push_str(&format!("{seconds}S"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_java() {
        for (millis, text) in [
            (86_400_000, "PT24H"),
            (0, "PT0S"),
            (1_500, "PT1.5S"),
            (5_400_000, "PT1H30M"),
            (61_000, "PT1M1S"),
        ] {
            assert_eq!(iso(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn uris_are_checked_as_in_java_and_for_their_scheme() {
        for good in ["http://127.0.0.1:4567", "https://kinesis.example/", "http://[::1]:1"] {
            assert_eq!(uri(good), Ok(()), "{good}");
        }
        for bad in ["", "ht tp://x", "localhost:4567", "127.0.0.1:4567", "http://", "http://x ", "ftp://x"] {
            assert!(uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keywords_match_in_any_case_but_untrimmed() {
        let words = &["LATEST", "TRIM_HORIZON"];
        assert_eq!(word(words, "latest").unwrap().value, Value::Text("LATEST".into()));
        assert!(word(words, "LATEST ").unwrap_err().contains("delete the blanks"));
        assert!(word(words, "EARLIEST").unwrap_err().contains("LATEST or TRIM_HORIZON"));
    }
}
