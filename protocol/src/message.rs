//! Every message of the protocol, both ways.
//!
//! To the child: compact JSON with the fields in Java's order, nulls written out, text raw but for
//! `"`, `\` and control characters. From the child: what Jackson makes of a line, which is a good
//! deal more than the documentation says (numbers for strings, trailing words, any order of keys)
//! and a little less (one unknown field and the whole line is noise).
//!
//! In KCL: package `software.amazon.kinesis.multilang.messages`, `JsonFriendlyRecord`.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::batch::BatchLine;
use crate::text::{open, put_key, put_number, put_string};

/// What the daemon asks of a child. Each ends with a `status` that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The first message: the shard and where it starts.
    Initialize,
    /// A batch of records.
    ProcessRecords,
    /// The worker stops, or hands the lease over: the last chance to checkpoint.
    ShutdownRequested,
    /// The lease is another's: no checkpoint any more.
    LeaseLost,
    /// Every record of the shard was delivered: checkpoint its end.
    ShardEnded,
}

impl Action {
    /// The name on the wire, as in `action` and `responseFor`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::ProcessRecords => "processRecords",
            Self::ShutdownRequested => "shutdownRequested",
            Self::LeaseLost => "leaseLost",
            Self::ShardEnded => "shardEnded",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the end of a shard and a lost lease are said. Everything else is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `shardEnded` and `leaseLost`: KCL 2.1 and later.
    #[default]
    Current,
    /// `shutdown` with the reason `TERMINATE` or `ZOMBIE`: KCL before 2.1. A child may checkpoint in
    /// both, though not with success once the lease is lost.
    Shutdown,
}

impl Dialect {
    /// What a child answers an action with.
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

/// One record within `processRecords`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The bytes in standard base64 with padding, without line breaks. Written as it is.
    pub data: &'a [u8],
    /// The record's partition key, or an aggregated user record's own.
    /// In UTF-8.
    pub partition_key: &'a [u8],
    /// The Kinesis sequence number, in decimal.
    pub sequence_number: &'a [u8],
    /// Milliseconds since 1970, absent only where Kinesis gave none.
    pub approximate_arrival_timestamp: Option<i64>,
    /// 0 for a plain record; 0, 1, 2 … within an aggregate.
    pub sub_sequence_number: u64,
}

/// A message to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToChild<'a> {
    /// Opens [`Action::Initialize`].
    Initialize {
        /// The shard.
        shard_id: &'a str,
        /// The lease's checkpoint: digits or `TRIM_HORIZON`, `LATEST`, `AT_TIMESTAMP`.
        sequence_number: Option<&'a str>,
        /// The checkpoint's sub-sequence number.
        sub_sequence_number: Option<u64>,
    },
    /// Opens [`Action::ProcessRecords`].
    ProcessRecords {
        /// In the order in which Kinesis returned them.
        records: &'a [Record<'a>],
        /// As Kinesis said with this answer.
        millis_behind_latest: Option<i64>,
    },
    /// Opens [`Action::ShutdownRequested`].
    ShutdownRequested,
    /// Opens [`Action::LeaseLost`].
    LeaseLost,
    /// Opens [`Action::ShardEnded`].
    ShardEnded,
    /// Answers a [`CheckpointRequest`], within the open action.
    Checkpoint {
        /// As the child gave it.
        sequence_number: Option<&'a str>,
        /// As the child gave it.
        sub_sequence_number: Option<i64>,
        /// Null on success, else a [`crate::CheckpointFailure`]'s name.
        error: Option<&'a str>,
    },
}

impl ToChild<'_> {
    /// The action that this message opens; none for a checkpoint's answer.
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

/// `ShutdownMessage` of KCL 1.x.
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

/// A child's wish to checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Digits or a sentinel's name; none means everything delivered so far.
    pub sequence_number: Option<String>,
    /// Within an aggregate; none means 0. Any 64-bit integer can come.
    pub sub_sequence_number: Option<i64>,
}

/// What a line of the child is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromChild {
    /// `status`: the named action is done.
    Status {
        /// The action's name as the child gave it.
        response_for: Option<String>,
    },
    /// `checkpoint`: progress to be stored, an answer owed.
    Checkpoint(CheckpointRequest),
    /// A well-formed message that only a daemon sends. Java reads it and does nothing.
    Foreign {
        /// Its `action`.
        action: &'static str,
    },
    /// Nothing but a line end.
    Empty,
    /// Not a message.
    Noise(Noise),
}

/// Why a line is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Not a JSON object: text, another JSON value, half an object.
    NotAnObject,
    /// No `action`, or none that the protocol knows in that case.
    UnknownAction,
    /// A message with a field that it doesn't have. Java skips the whole line; taking a checkpoint
    /// whose field name is misspelt for "everything so far" would skip records.
    UnknownField,
    /// A field whose value can't be of its type.
    BadValue,
    /// Longer than [`crate::line::MAX_LINE`].
    TooLong,
}

impl Noise {
    /// Half a sentence for a log line.
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
    /// Reads one line, without its end. Never fails: what isn't a message is [`FromChild::Noise`].
    pub fn parse(line: &[u8]) -> Self {
        if line.is_empty() {
            return Self::Empty;
        }
        // Java's reader replaces undecodable bytes too.
        let text = String::from_utf8_lossy(line);
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Fields<'_>>();
        // Whatever follows the first value is ignored, a second message included.
        match values.next() {
            Some(Ok(fields)) => fields.message().unwrap_or_else(Self::Noise),
            Some(Err(_)) | None => Self::Noise(Noise::NotAnObject),
        }
    }
}

/// Actions that only the daemon sends; a child that says them is not understood but not noisy.
const FOREIGN: [&str; 6] =
    ["initialize", "processRecords", "shutdown", "shutdownRequested", "leaseLost", "shardEnded"];

/// The fields of a JSON object with their values as text: a number of sixty digits must stay one.
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
        // The first `action` names the type of the message. To Jackson a second one is a field that no message has.
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

    /// A key given twice: the last value counts, but each must be of the right type.
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

/// Jackson's `String`: a string, or the text of a number or boolean.
fn text(value: &str) -> Result<Option<String>, Noise> {
    match value.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => string(value).map(Some),
        Some(b't' | b'f') => Ok(Some(value.to_owned())),
        Some(b'-' | b'0'..=b'9') if digits(value) <= MAX_DIGITS => Ok(Some(value.to_owned())),
        Some(_) | None => Err(Noise::BadValue),
    }
}

/// Jackson's `Long`: an integer, a float without its fraction, or a string that holds an integer or `null`.
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

/// Jackson refuses longer numbers (`StreamReadConstraints`).
const MAX_DIGITS: usize = 1000;

fn digits(number: &str) -> usize {
    number.bytes().filter(u8::is_ascii_digit).count()
}

/// The text of a JSON string. An unpaired surrogate, which only an escape can name, becomes `?`: Java accepts it, and
/// writes `?` for it in the answer.
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

/// UTF-8 in which unpaired surrogates are encoded like other characters.
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
    // The bounds are exact powers of two. The upper one is in range for Java, which compares with the float nearest to
    // the greatest integer; the conversion then gives that integer, there and here.
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
    fn text_is_escaped_as_jackson_does() {
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
    fn an_empty_batch_has_an_empty_array() {
        let written = line(&ToChild::ProcessRecords { records: &[], millis_behind_latest: Some(5) });
        assert_eq!(written, "{\"action\":\"processRecords\",\"records\":[],\"millisBehindLatest\":5}\n");
    }

    #[test]
    fn checkpoints_are_read_in_every_form_that_java_takes() {
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
    fn what_is_not_a_message_is_noise() {
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
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            FromChild::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_the_json_that_was_meant(key in any::<String>(), number in any::<Option<i64>>()) {
            let record = Record { data: b"cjA=", partition_key: key.as_bytes(), sequence_number: b"12", approximate_arrival_timestamp: number, sub_sequence_number: 3 };
            let written = line(&ToChild::ProcessRecords { records: &[record, record], millis_behind_latest: number });
            prop_assert_eq!(written.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(&value["records"][1]["partitionKey"], &serde_json::json!(key));
            prop_assert_eq!(&value["millisBehindLatest"], &serde_json::json!(number));
        }
    }
}
