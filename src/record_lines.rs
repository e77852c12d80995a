//! Records as JSON lines: `multilangd tail` prints them, `multilangd put --json` and `multilangd test --records` read
//! them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::record::Record;
use crate::shard::ShardId;

/// The fields that are read. All others are ignored: Kinesis assigns them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    data: Option<String>,
    text: Option<String>,
    partition_key: Option<String>,
}

/// Parses a line. Returns the partition key, if there is one, and the data.
///
/// # Errors
/// Why the line is no record.
pub fn parse(line: &[u8]) -> Result<(Option<String>, Vec<u8>), String> {
    const FORM: &str = "each line is a JSON object with partitionKey, and data in base64 or text, as multilangd tail \
                        prints it";
    let read: Line = serde_json::from_slice(line).map_err(|error| format!("{error} ({FORM})"))?;
    let data = match (read.data, read.text) {
        (Some(data), _) => {
            STANDARD.decode(data).map_err(|error| format!("data is not base64: {error} ({FORM})"))?
        }
        (None, Some(text)) => text.into_bytes(),
        (None, None) => return Err(format!("has neither data nor text ({FORM})")),
    };
    Ok((read.partition_key, data))
}

/// Appends a record as one line. `as_text` writes data that is valid UTF-8 as text.
pub fn write(shard: &ShardId, record: &Record, as_text: bool, out: &mut String) {
    // Writing to a text does not fail.
    let _written = try_write(shard, record, as_text, out).is_ok();
}

fn try_write(shard: &ShardId, record: &Record, as_text: bool, out: &mut String) -> std::fmt::Result {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    write!(
        out,
        "{{\"shard\":{},\"sequenceNumber\":\"{}\",\"subSequenceNumber\":{},\"partitionKey\":{}",
        quoted(shard.as_str()),
        record.sequence,
        record.sub,
        quoted(record.partition_key.as_str())
    )?;
    match record.arrival {
        Some(millis) => write!(out, ",\"approximateArrivalTimestamp\":{millis}")?,
        None => out.push_str(",\"approximateArrivalTimestamp\":null"),
    }
    let decoded = as_text.then(|| STANDARD.decode(record.data.as_bytes()).ok()).flatten();
    match decoded.and_then(|data| String::from_utf8(data).ok()) {
        Some(text) => writeln!(out, ",\"text\":{}}}", quoted(&text)),
        // Base64 needs no escapes.
        None => writeln!(out, ",\"data\":\"{}\"}}", record.data.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_without_data_is_rejected() {
        for line in ["", "x", "[]", "{}", "{\"data\":\"?\"}", "{\"data\":7}", "{\"text\":\"a\"} x"] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert_eq!(parse(b"{\"text\":\"\"}"), Ok((None, Vec::new())));
    }

    proptest! {
        #[test]
        fn written_line_is_parsed_to_the_same_record(
            key in ".{0,20}", data in proptest::collection::vec(any::<u8>(), 0..40), text in ".{0,20}",
            as_text in any::<bool>(), arrival in any::<Option<i64>>(),
        ) {
            for data in [data, text.into_bytes()] {
                let record = Record { arrival, ..Record::plain(7, &key, &data) };
                let mut line = String::new();
                write(&"s".into(), &record, as_text, &mut line);
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert_eq!(parse(line.as_bytes()), Ok((Some(key.clone()), data)));
            }
        }
    }
}
