//! All messages of the protocol, in both directions.
//!
//! Messages to the child are compact JSON with the fields in Java's order, nulls included, and text unescaped
//! except `"`, `\` and control characters. A line from the child is read as Jackson reads it, which accepts
//! more than the documentation describes (numbers for strings, text after the object, any order of keys) and in
//! one case less: an unknown field makes the whole line noise.
//!
//! In KCL: package `software.amazon.kinesis.multilang.messages`, `JsonFriendlyRecord`.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::action::Action;
use crate::batch::BatchLine;
use crate::record::Record;
use crate::text::{open, put_key, put_number, put_string};

/// Which messages announce the end of a shard and a lost lease. All other messages are identical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `shardEnded` and `leaseLost`: KCL 2.1 and later.
    #[default]
    Current,
    /// `shutdown` with the reason `TERMINATE` or `ZOMBIE`: KCL before 2.1. A child may checkpoint in both, but
    /// the checkpoint fails once the lease is lost.
    Shutdown,
}

impl Dialect {
    /// The `responseFor` with which a child answers an action.
    pub fn answer_to(self, action: Action) -> &'static str {
        match (self, action) {
            (Self::Shutdown, Action::LeaseLost | Action::ShardEnded) => "shutdown",
            (
                _,
                Action::Initialize
                | Action::ProcessRecords
                | Action::ShutdownRequested
                | Action::LeaseLost
                | Action::ShardEnded,
            ) => action.name(),
        }
    }
}

/// A message to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToChild<'a> {
    /// Opens [`Action::Initialize`].
    Initialize {
        /// The shard id.
        shard_id: &'a str,
        /// The checkpoint of the lease: decimal digits or `TRIM_HORIZON`, `LATEST`, `AT_TIMESTAMP`.
        sequence_number: Option<&'a str>,
        /// The checkpoint's sub-sequence number.
        sub_sequence_number: Option<u64>,
    },
    /// Opens [`Action::ProcessRecords`].
    ProcessRecords {
        /// The records, in the order in which Kinesis returned them.
        records: &'a [Record<'a>],
        /// `MillisBehindLatest` of the same GetRecords response, in milliseconds.
        millis_behind_latest: Option<i64>,
    },
    /// Opens [`Action::ShutdownRequested`].
    ShutdownRequested,
    /// Opens [`Action::LeaseLost`].
    LeaseLost,
    /// Opens [`Action::ShardEnded`].
    ShardEnded,
    /// Answers a [`CheckpointRequest`]; sent while the action is open.
    Checkpoint {
        /// The sequence number of the request, unchanged.
        sequence_number: Option<&'a str>,
        /// The sub-sequence number of the request, unchanged.
        sub_sequence_number: Option<i64>,
        /// None on success, else the name of a [`crate::CheckpointFailure`].
        error: Option<&'a str>,
    },
}

impl ToChild<'_> {
    /// The action that this message opens; none for a checkpoint answer.
    pub fn action(&self) -> Option<Action> {
        match self {
            Self::Initialize { .. } => Some(Action::Initialize),
            Self::ProcessRecords { .. } => Some(Action::ProcessRecords),
            Self::ShutdownRequested => Some(Action::ShutdownRequested),
            Self::LeaseLost => Some(Action::LeaseLost),
            Self::ShardEnded => Some(Action::ShardEnded),
            Self::Checkpoint { .. } => None,
        }
    }

    /// Appends the message as one line, its `\n` included.
    pub fn write_line(&self, dialect: Dialect, out: &mut Vec<u8>) {
        match self {
            Self::LeaseLost if dialect == Dialect::Shutdown => shutdown(out, "ZOMBIE"),
            Self::ShardEnded if dialect == Dialect::Shutdown => shutdown(out, "TERMINATE"),
            Self::Initialize { shard_id, sequence_number, sub_sequence_number } => {
                open(out, "initialize");
                put_text(out, "shardId", Some(shard_id));
                put_text(out, "sequenceNumber", *sequence_number);
                put_number(out, "subSequenceNumber", *sub_sequence_number);
            }
            Self::ProcessRecords { records, millis_behind_latest } => {
                let size: usize = records
                    .iter()
                    .map(|r| r.data.len() + r.partition_key.len() + r.sequence_number.len() + 160)
                    .sum();
                out.reserve(size + 64);
                let mut batch = BatchLine::begin(out);
                records.iter().for_each(|record| batch.record(record, out));
                return batch.end(*millis_behind_latest, out);
            }
            Self::ShutdownRequested => open(out, "shutdownRequested"),
            Self::LeaseLost => open(out, "leaseLost"),
            Self::ShardEnded => open(out, "shardEnded"),
            Self::Checkpoint { sequence_number, sub_sequence_number, error } => {
                open(out, "checkpoint");
                put_text(out, "sequenceNumber", *sequence_number);
                put_number(out, "subSequenceNumber", *sub_sequence_number);
                put_text(out, "error", *error);
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Writes the `ShutdownMessage` of KCL 1.x.
fn shutdown(out: &mut Vec<u8>, reason: &str) {
    open(out, "shutdown");
    put_text(out, "reason", Some(reason));
}

fn put_text(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    put_key(out, key);
    match value {
        Some(text) => put_string(out, text.as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

/// A checkpoint request of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Decimal digits or a sentinel's name; none requests a checkpoint at the last delivered record.
    pub sequence_number: Option<String>,
    /// Index within a KPL aggregate; none means 0. A child can send any 64-bit integer.
    pub sub_sequence_number: Option<i64>,
}

/// A parsed line of the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromChild {
    /// `status`: the named action is done.
    Status {
        /// The action's name, as the child wrote it.
        response_for: Option<String>,
    },
    /// `checkpoint`: a sequence number to store. It requires an answer.
    Checkpoint(CheckpointRequest),
    /// A well-formed message that only a daemon sends. Java reads and ignores it.
    Foreign {
        /// The value of its `action` field.
        action: &'static str,
    },
    /// An empty line.
    Empty,
    /// Not a message.
    Noise(Noise),
}

/// The reason why a line is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Not a JSON object: text, another JSON value or an incomplete object.
    NotAnObject,
    /// No `action` field, or an unknown action. The comparison is case-sensitive.
    UnknownAction,
    /// A message with an unknown field. Java ignores the whole line as well. To read a checkpoint with a misspelt
    /// `sequenceNumber` as a checkpoint of everything delivered would skip records.
    UnknownField,
    /// A field whose value cannot be converted to the field's type.
    BadValue,
    /// Longer than [`crate::line::MAX_LINE`].
    TooLong,
}

impl Noise {
    /// The reason as a phrase for a log message.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAnObject => "not a JSON object",
            Self::UnknownAction => "no action that the protocol knows",
            Self::UnknownField => "a message with an unknown field",
            Self::BadValue => "a message with a value of the wrong type",
            Self::TooLong => "too long for a message",
        }
    }
}

impl FromChild {
    /// Parses one line, without its terminator. Never fails: a line that is not a message is
    /// [`FromChild::Noise`].
    pub fn parse(line: &[u8]) -> Self {
        if line.is_empty() {
            return Self::Empty;
        }
        // Java's reader replaces undecodable bytes too.
        let text = String::from_utf8_lossy(line);
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Fields<'_>>();
        // Everything that follows the first JSON value is ignored, even a second message, as in Java.
        match values.next() {
            Some(Ok(fields)) => fields.message().unwrap_or_else(Self::Noise),
            Some(Err(_)) | None => Self::Noise(Noise::NotAnObject),
        }
    }
}

/// Actions that only the daemon sends. A child that sends one is ignored, but the line is not noise.
const FOREIGN: [&str; 6] =
    ["initialize", "processRecords", "shutdown", "shutdownRequested", "leaseLost", "shardEnded"];

/// The fields of a JSON object, with their values as JSON text: a number of sixty digits must keep all of them.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Fields<'_> {
    fn message(&self) -> Result<FromChild, Noise> {
        let mut actions = self.values("action");
        let action = actions.next().ok_or(Noise::UnknownAction)?;
        let action: String = serde_json::from_str(action).map_err(|_| Noise::UnknownAction)?;
        // The first `action` names the type of the message. Jackson treats a second one as an unknown field.
        if actions.next().is_some() {
            return Err(Noise::UnknownField);
        }
        match action.as_str() {
            "status" => {
                self.only(&["responseFor"])?;
                Ok(FromChild::Status { response_for: self.text("responseFor")? })
            }
            "checkpoint" => {
                self.only(&["sequenceNumber", "subSequenceNumber", "error"])?;
                self.text("error")?;
                Ok(FromChild::Checkpoint(CheckpointRequest {
                    sequence_number: self.text("sequenceNumber")?,
                    sub_sequence_number: self.integer("subSequenceNumber")?,
                }))
            }
            other => match FOREIGN.iter().find(|name| **name == other) {
                Some(action) => Ok(FromChild::Foreign { action }),
                None => Err(Noise::UnknownAction),
            },
        }
    }

    /// The values of a key, as JSON text, in the order of the line.
    fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.get())
    }

    fn only(&self, known: &[&str]) -> Result<(), Noise> {
        let known = |name: &str| name == "action" || known.contains(&name);
        if self.0.iter().all(|(name, _)| known(name)) { Ok(()) } else { Err(Noise::UnknownField) }
    }

    /// The value of a field. If a key occurs more than once, the last value counts, but each must have the
    /// right type.
    fn last<T>(&self, key: &str, read: fn(&str) -> Result<Option<T>, Noise>) -> Result<Option<T>, Noise> {
        self.values(key).try_fold(None, |_, value| read(value))
    }

    fn text(&self, key: &str) -> Result<Option<String>, Noise> {
        self.last(key, text)
    }

    fn integer(&self, key: &str) -> Result<Option<i64>, Noise> {
        self.last(key, integer)
    }
}

/// Jackson's conversion to `String`: a string, or the text of a number or boolean.
fn text(value: &str) -> Result<Option<String>, Noise> {
    match value.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => string(value).map(Some),
        Some(b't' | b'f') => Ok(Some(value.to_owned())),
        Some(b'-' | b'0'..=b'9') if digits(value) <= MAX_DIGITS => Ok(Some(value.to_owned())),
        Some(_) | None => Err(Noise::BadValue),
    }
}

/// Jackson's conversion to `Long`: an integer, a float truncated, or a string that holds an integer or `null`.
fn integer(value: &str) -> Result<Option<i64>, Noise> {
    match value.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => match string(value)?.trim_matches(|char| char <= ' ') {
            "" | "null" => Ok(None),
            digits if digits.len() > MAX_DIGITS => Err(Noise::BadValue),
            digits => digits.parse().map(Some).map_err(|_| Noise::BadValue),
        },
        Some(b'-' | b'0'..=b'9') if digits(value) <= MAX_DIGITS => number(value).map(Some),
        Some(_) | None => Err(Noise::BadValue),
    }
}

/// Jackson rejects longer numbers (`StreamReadConstraints`).
const MAX_DIGITS: usize = 1000;

fn digits(number: &str) -> usize {
    number.bytes().filter(u8::is_ascii_digit).count()
}

/// The text of a JSON string. An unpaired surrogate, which only an escape can produce, becomes `?`: Java
/// accepts it, and writes `?` for it in the answer.
fn string(json: &str) -> Result<String, Noise> {
    let Wtf8(bytes) = serde_json::from_str(json).map_err(|_| Noise::BadValue)?;
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.into_bytes(),
    };
    let (mut text, mut rest) = (Vec::with_capacity(bytes.len()), &bytes[..]);
    while let [byte, after @ ..] = rest {
        let (byte, left) = match rest {
            [0xED, 0xA0..=0xBF, _, after @ ..] => (b'?', after),
            _ => (*byte, after),
        };
        text.push(byte);
        rest = left;
    }
    String::from_utf8(text).map_err(|_| Noise::BadValue)
}

/// UTF-8 in which unpaired surrogates are encoded like other characters (WTF-8).
struct Wtf8(Vec<u8>);

impl<'de> serde::Deserialize<'de> for Wtf8 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Wtf8;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Wtf8, E> {
                Ok(Wtf8(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

fn number(text: &str) -> Result<i64, Noise> {
    if let Ok(integer) = text.parse() {
        return Ok(integer);
    }
    if !text.contains(['.', 'e', 'E']) {
        return Err(Noise::BadValue);
    }
    let float: f64 = text.parse().map_err(|_| Noise::BadValue)?;
    // The bounds are exact powers of two. Java accepts the upper one, because it compares with the float
    // nearest to `Long.MAX_VALUE`; the conversion then saturates to that integer in Java and in Rust.
    if (-9_223_372_036_854_775_808.0..=9_223_372_036_854_775_808.0).contains(&float) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be within 64 bits; the fraction is meant to go"
        )]
        let integer = float as i64;
        Ok(integer)
    } else {
        Err(Noise::BadValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(message: &ToChild<'_>) -> String {
        let mut out = Vec::new();
        message.write_line(Dialect::Current, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn checkpoint(sequence: Option<&str>, sub: Option<i64>) -> FromChild {
        FromChild::Checkpoint(CheckpointRequest {
            sequence_number: sequence.map(str::to_owned),
            sub_sequence_number: sub,
        })
    }

    #[test]
    fn text_is_escaped_as_jackson_escapes_it() {
        let key = "\"\\/\u{8}\t\n\u{c}\r\u{0}\u{1f}\u{7f}\u{2028}é😀";
        let record = Record {
            data: b"",
            partition_key: key.as_bytes(),
            sequence_number: b"1",
            approximate_arrival_timestamp: None,
            sub_sequence_number: 0,
        };
        let written = line(&ToChild::ProcessRecords { records: &[record], millis_behind_latest: None });
        let expected = r#""partitionKey":"\"\\/\b\t\n\f\r\u0000\u001F"#.to_owned() + "\u{7f}\u{2028}é😀\"";
        assert!(written.contains(&expected), "{written}");
        assert!(written.contains(r#""approximateArrivalTimestamp":null,"#));
    }

    #[test]
    fn empty_batch_writes_an_empty_array() {
        let written = line(&ToChild::ProcessRecords { records: &[], millis_behind_latest: Some(5) });
        assert_eq!(written, "{\"action\":\"processRecords\",\"records\":[],\"millisBehindLatest\":5}\n");
    }

    #[test]
    fn checkpoint_in_every_form_of_java_is_read() {
        for (text, expected) in [
            (r#"{"action":"checkpoint"}"#, checkpoint(None, None)),
            (
                r#"{"action":"checkpoint","sequenceNumber":null,"subSequenceNumber":3}"#,
                checkpoint(None, Some(3)),
            ),
            (
                r#"{"action":"checkpoint","sequenceNumber":49680479068778121708404180337939570614094700674019229698}"#,
                checkpoint(Some("49680479068778121708404180337939570614094700674019229698"), None),
            ),
            (
                r#"{"subSequenceNumber":"7", "sequenceNumber":true , "action":"checkpoint"} and more"#,
                checkpoint(Some("true"), Some(7)),
            ),
            (r#"{"action":"checkpoint","subSequenceNumber":0.9,"error":1}"#, checkpoint(None, Some(0))),
            (
                r#"{"action":"checkpoint","sequenceNumber":"1","sequenceNumber":"2"}"#,
                checkpoint(Some("2"), None),
            ),
            (r#"{"action":"checkpoint","subSequenceNumber":"null"}"#, checkpoint(None, None)),
            (r#"{"action":"checkpoint","subSequenceNumber":" null\t"}"#, checkpoint(None, None)),
            (r#"{"action":"checkpoint","subSequenceNumber":"\u00015\u0002"}"#, checkpoint(None, Some(5))),
            (
                r#"{"action":"checkpoint","subSequenceNumber":9223372036854775807.0}"#,
                checkpoint(None, Some(i64::MAX)),
            ),
            (r#"{"action":"checkpoint","sequenceNumber":"\udc00x\ud800"}"#, checkpoint(Some("?x?"), None)),
            (r#"{"action":"checkpoint","sequenceNumber":"\ud83d\ude00"}"#, checkpoint(Some("😀"), None)),
        ] {
            assert_eq!(FromChild::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn malformed_lines_are_noise() {
        use Noise::*;
        for (text, reason) in [
            ("null", NotAnObject),
            ("   ", NotAnObject),
            ("42", NotAnObject),
            ("[1,2,3]", NotAnObject),
            ("\u{feff}{\"action\":\"status\"}", NotAnObject),
            ("{'action':'status'}", NotAnObject),
            (r#"{"action":"status","responseFor":"initialize""#, NotAnObject),
            ("{}", UnknownAction),
            (r#"{"action":null}"#, UnknownAction),
            (r#"{"action":"Status"}"#, UnknownAction),
            (r#"{"action":"checkpoint","checkpoint":"1"}"#, UnknownField),
            (r#"{"action":"status","responseFor":"initialize","extra":1}"#, UnknownField),
            (r#"{"action":"status","responseFor":{}}"#, BadValue),
            (r#"{"action":"checkpoint","subSequenceNumber":true}"#, BadValue),
            (r#"{"action":"checkpoint","subSequenceNumber":9223372036854775808}"#, BadValue),
            (r#"{"action":"checkpoint","subSequenceNumber":"x"}"#, BadValue),
            (r#"{"action":"checkpoint","subSequenceNumber":"\u00a05"}"#, BadValue),
            (r#"{"action":"checkpoint","subSequenceNumber":9.2233720368547769e18}"#, BadValue),
            (r#"{"action":"checkpoint","subSequenceNumber":true,"subSequenceNumber":1}"#, BadValue),
            (r#"{"responseFor":[],"action":"status","responseFor":"x"}"#, BadValue),
            (r#"{"action":"nope","action":"checkpoint"}"#, UnknownField),
            (r#"{"action":null,"action":"checkpoint"}"#, UnknownAction),
            (r#"{"action":"checkpoint","action":"nope"}"#, UnknownField),
            (r#"{"action":"status","action":"status"}"#, UnknownField),
            (r#"{"action":"record"}"#, UnknownAction),
        ] {
            assert_eq!(FromChild::parse(text.as_bytes()), FromChild::Noise(reason), "{text}");
        }
        let long = format!(r#"{{"action":"checkpoint","sequenceNumber":{}}}"#, "9".repeat(1001));
        assert_eq!(FromChild::parse(long.as_bytes()), FromChild::Noise(BadValue));
        let zeros = format!(r#"{{"action":"checkpoint","subSequenceNumber":"{}5"}}"#, "0".repeat(1000));
        assert_eq!(FromChild::parse(zeros.as_bytes()), FromChild::Noise(BadValue));
        assert_eq!(FromChild::parse(b""), FromChild::Empty);
        assert_eq!(
            FromChild::parse(br#"{"action":"leaseLost"}"#),
            FromChild::Foreign { action: "leaseLost" }
        );
    }

    proptest! {
        #[test]
        fn parsing_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            FromChild::parse(&bytes);
        }

        #[test]
        fn written_messages_parse_back_as_json(key in any::<String>(), number in any::<Option<i64>>()) {
            let record = Record { data: b"cjA=", partition_key: key.as_bytes(), sequence_number: b"12", approximate_arrival_timestamp: number, sub_sequence_number: 3 };
            let written = line(&ToChild::ProcessRecords { records: &[record, record], millis_behind_latest: number });
            prop_assert_eq!(written.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(&value["records"][1]["partitionKey"], &serde_json::json!(key));
            prop_assert_eq!(&value["millisBehindLatest"], &serde_json::json!(number));
        }
    }
}
