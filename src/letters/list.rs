//! Letters read back from a file, and their list for people and programs.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::json;

use super::{Condition, Failure, Letter};
use crate::clock;
use crate::record::{Data, Record};
use crate::record_lines;
use crate::sequence::SequenceNumber;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    timestamp: String,
    request_context: Request,
    #[serde(rename = "KinesisBatchInfo")]
    batch: BatchInfo,
    multilangd: Own,
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    condition: String,
    approximate_invoke_count: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo {
    shard_id: String,
    start_sequence_number: String,
    stream_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    application: String,
    worker: String,
    lease_key: Option<String>,
    sub_sequence_number: u64,
    partition_key: String,
    arrival: Option<i64>,
    program: String,
    failures: Vec<OwnFailure>,
}

#[derive(Deserialize)]
struct OwnFailure {
    at: String,
    reason: String,
    stderr: Vec<String>,
}

/// The letters of a file, in order; for a line that is no letter, the reason with the line's number.
pub fn read(text: &[u8]) -> Vec<Result<Letter, String>> {
    let lines =
        text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    lines.map(|(index, line)| parse(line).map_err(|error| format!("line {}: {error}", index + 1))).collect()
}

fn parse(line: &[u8]) -> Result<Letter, String> {
    let line: Line = serde_json::from_slice(line).or_else(|error| {
        // `multilangd tail` prints the records of a stream of letters: a letter is the data of a record.
        let data = record_lines::parse(line).ok().map(|(_, data)| data);
        let letter = data.and_then(|data| serde_json::from_slice(&data).ok());
        letter.ok_or_else(|| format!("not a dead letter: {error}"))
    })?;
    let of = |name: &str| format!("not a dead letter: {name} is invalid");
    let conditions = [Condition::RetryAttemptsExhausted, Condition::RecordAgeExceeded];
    let condition = conditions.into_iter().find(|known| known.name() == line.request_context.condition);
    let time = |text: &str| clock::parse_utc(text).ok_or_else(|| of("a time"));
    let failures = line.multilangd.failures.into_iter().map(|failure| {
        Ok(Failure { at: time(&failure.at)?, reason: failure.reason, stderr: failure.stderr })
    });
    // Lines that name no lease are of a table of one stream.
    let lease = line.multilangd.lease_key.unwrap_or(line.batch.shard_id).as_str().into();
    Ok(Letter {
        condition: condition.ok_or_else(|| of("requestContext.condition"))?,
        at: time(&line.timestamp)?,
        lease,
        stream: line.batch.stream_arn,
        application: line.multilangd.application,
        worker: line.multilangd.worker,
        program: line.multilangd.program,
        record: Record {
            sequence: SequenceNumber::parse(&line.batch.start_sequence_number)
                .ok_or_else(|| of("KinesisBatchInfo.startSequenceNumber"))?,
            sub: line.multilangd.sub_sequence_number,
            partition_key: line.multilangd.partition_key.into(),
            data: Data::of_base64(line.data.into()).ok_or_else(|| of("data"))?,
            arrival: line.multilangd.arrival,
        },
        attempts: line.request_context.approximate_invoke_count,
        failures: failures.collect::<Result<_, String>>()?,
    })
}

/// One line for each letter, and a last line with their number.
pub fn text(letters: &[Letter]) -> String {
    let mut out = String::new();
    for letter in letters {
        let Letter { lease, record, .. } = letter;
        let _infallible = writeln!(
            out,
            "{}  {lease}  {}  {} bytes  {}",
            clock::utc(letter.at),
            record.position(),
            record.size(),
            letter.last_error()
        );
    }
    let _infallible = writeln!(out, "{} dead letters", letters.len());
    out
}

/// All letters as one JSON object, without the data.
pub fn json(letters: &[Letter]) -> serde_json::Value {
    let letters: Vec<_> = letters
        .iter()
        .map(|letter| {
            json!({
                "id": letter.id(), "at": clock::utc(letter.at), "shard": letter.lease.shard().as_str(),
                "lease": letter.lease.to_string(),
                "sequenceNumber": letter.record.sequence.as_str(), "subSequenceNumber": letter.record.sub,
                "bytes": letter.record.size(), "condition": letter.condition.name(),
                "error": letter.last_error(),
            })
        })
        .collect();
    json!({"letters": letters})
}

impl Letter {
    /// The last line on stderr, or the cause of the last failure.
    pub fn last_error(&self) -> &str {
        let last = self.failures.last();
        let line = last.and_then(|failure| failure.stderr.last().map(String::as_str));
        line.or(last.map(|failure| failure.reason.as_str())).unwrap_or(self.condition.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letters::tests::letter;

    #[test]
    fn letter_is_read_back_as_it_was_written() {
        let mut aged = letter(7);
        aged.condition = Condition::RecordAgeExceeded;
        (aged.failures, aged.stream, aged.record.arrival) = (Vec::new(), None, None);
        let lines = [letter(5).line(), b"\n{}\n".to_vec(), aged.line()].concat();
        let mut found = read(&lines);
        assert_eq!(found.remove(0).unwrap(), letter(5));
        assert!(
            found.remove(0).unwrap_err().starts_with("line 3: not a dead letter"),
            "the number of the line"
        );
        assert_eq!(found.remove(0).unwrap(), aged);
        assert!(found.is_empty());
    }

    #[test]
    fn letter_is_read_from_the_output_of_tail() {
        let mut line = letter(5).line();
        line.pop();
        for as_text in [false, true] {
            let mut printed = String::new();
            record_lines::write(&"s".into(), &Record::plain(9, "k", &line), as_text, &mut printed);
            assert_eq!(read(printed.as_bytes()), [Ok(letter(5))]);
        }
        let mut other = String::new();
        record_lines::write(&"s".into(), &Record::plain(9, "k", b"{}"), false, &mut other);
        assert!(read(other.as_bytes())[0].is_err());
    }

    #[test]
    fn list_names_shard_position_size_and_last_error() {
        let shown = text(&[letter(5)]);
        assert_eq!(
            shown,
            "2026-11-29T23:59:59.123Z  shardId-000000000001  5/2  4 bytes  ValueError: bad\n1 dead letters\n"
        );
        assert_eq!(json(&[letter(5)])["letters"][0]["error"], "ValueError: bad");
    }
}
