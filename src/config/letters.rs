//! The values of `multilangd.deadLetters` and `multilangd.childErrorLine`.

use std::fmt;
use std::path::PathBuf;

use super::arn::stream_of_arn;
use super::keys::{kcl, own};
use super::settings::Settings;
use super::streams;
use crate::stream::Wanted;

/// A destination of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A folder.
    File(PathBuf),
    /// A program and its arguments, separated by blanks.
    Exec(String),
    /// The name or the ARN of a stream.
    Kinesis(String),
}

impl fmt::Display for Destination {
    /// As it is configured, without the arguments of a program: they may be secrets inserted by `--expand-env`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(folder) => write!(f, "file:{}", folder.display()),
            Self::Exec(command) => write!(f, "exec:{}", command.split(' ').next().unwrap_or_default()),
            Self::Kinesis(stream) => write!(f, "kinesis:{stream}"),
        }
    }
}

const KINDS: [&str; 3] = ["file:", "exec:", "kinesis:"];

/// Parses destinations, separated by commas. A comma within the arguments of a program is part of them.
///
/// # Errors
/// The values that would be accepted.
pub fn parse(text: &str) -> Result<Vec<Destination>, String> {
    let expected = || {
        "must be none, file:DIR, kinesis:STREAM with a name or an ARN, exec:PROGRAM ARGUMENTS, or several of them \
         separated by commas"
            .to_owned()
    };
    if text == own::NONE {
        return Ok(Vec::new());
    }
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = KINDS.iter().any(|kind| part.trim_start().starts_with(kind));
        match parts.last_mut() {
            Some(last) if !begins => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    let parsed = parts.iter().map(|part| {
        let part = part.trim();
        let destination = match part.split_once(':') {
            Some(("file", folder)) if !folder.trim().is_empty() => Destination::File(folder.trim().into()),
            Some(("exec", command)) if !command.trim().is_empty() => {
                Destination::Exec(command.trim().to_owned())
            }
            Some(("kinesis", stream)) if is_stream(stream.trim()) => {
                Destination::Kinesis(stream.trim().to_owned())
            }
            _ => return Err(expected()),
        };
        Ok(destination)
    });
    parsed.collect()
}

/// The streams among destinations.
pub fn streams(destinations: &[Destination]) -> Vec<Wanted> {
    let stream = |destination: &Destination| match destination {
        Destination::Kinesis(stream) => Some(wanted(stream)),
        Destination::File(_) | Destination::Exec(_) => None,
    };
    destinations.iter().filter_map(stream).collect()
}

/// The stream of a name or an ARN.
fn wanted(stream: &str) -> Wanted {
    streams::of_arn(stream).unwrap_or_else(|| Wanted::named(stream))
}

/// Whether this is the ARN of a stream, or can be its name.
fn is_stream(text: &str) -> bool {
    streams::of_arn(text).is_some_and(|stream| stream.consumer.is_none()) || is_stream_name(text)
}

/// Whether this can be the name of a stream by the rules of Kinesis.
pub(super) fn is_stream_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(is_plain)
}

/// The text for a value of `multilangd.childErrorLine`; none if stderr is only logged.
///
/// amazon_kclpy 2.0 to 3.2 writes it before the message of the exception. aws-kclrb writes the class, the
/// message and the backtrace of the exception, which has a line for the method that called the record
/// processor.
pub fn error_text(value: &str) -> Option<String> {
    match value {
        own::NONE => None,
        "kclpy" => Some("Caught exception from action dispatch: ".to_owned()),
        "kclrb" => Some("dispatch_to_processor".to_owned()),
        text => Some(text.to_owned()),
    }
}

/// Why dead letters cannot be combined with another setting. A daemon that exits at the first failure has no
/// time for a search. A daemon that exits instead of parking a shard counts the dead letters in a row from 0 after each
/// restart, so that an outage would turn the whole stream into letters.
pub(super) fn conflict(settings: &Settings) -> Option<String> {
    let key = own::DEAD_LETTERS;
    let value = settings.of(key);
    if value == own::NONE {
        return None;
    }
    let destinations = parse(&value).unwrap_or_default();
    if let Some(own) = destinations.iter().find(|destination| may_be_read(destination, settings)) {
        return Some(format!(
            "{key} = {own} is the stream that is read: each letter would be a record of it (name another stream; a stream \
             of that name in another account is named by its ARN, and needs streamArn for the one that is read)"
        ));
    }
    let required = [(own::ON_CHILD_FAILURE, "restart"), (own::ON_HOPELESS_SHARD, "park")];
    let (other, value) = required.into_iter().find(|(other, _)| settings.of(*other) == "exit")?;
    Some(format!("{key} requires {other} = {value} (set {key} = none, or {other} = {value})"))
}

/// Whether a destination is, or can be, the stream that is read. A name alone is of an unknown account: that of the
/// credentials.
fn may_be_read(destination: &Destination, settings: &Settings) -> bool {
    let Destination::Kinesis(to) = destination else { return false };
    let selection = streams::of(settings);
    let is_one_of_several = |to: &Wanted| {
        selection.by_prefix(&to.name).is_some() || selection.named.iter().any(|stream| stream.may_be(to))
    };
    if is_one_of_several(&wanted(to)) {
        return true;
    }
    let name = settings.of(kcl::STREAM);
    let Some(to_arn) = stream_of_arn(to) else { return Some(to) == name.as_ref() };
    // The ARN of a consumer begins with that of its stream.
    let known = [kcl::STREAM_ARN, kcl::CONSUMER_ARN].into_iter();
    let known = known
        .filter_map(|key| stream_of_arn(&settings.of(key)?))
        .find(|arn| Some(&arn.name) == name.as_ref());
    known.map_or_else(|| Some(&to_arn.name) == name.as_ref(), |arn| arn == to_arn)
}

/// Why a greatest age of records cannot be used: records would be lost although no setting says so.
pub(super) fn unused_age(settings: &Settings) -> Option<String> {
    let (age, letters, skip) = (own::MAX_RECORD_AGE, own::DEAD_LETTERS, own::SKIP_OLD_RECORDS);
    let millis = settings.of(age);
    (millis > 0 && settings.of(letters) == own::NONE && !settings.of(skip)).then(|| {
        format!(
            "{age} = {millis} requires a destination of the older records (set {letters}, or {skip} = true, which \
             loses them)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_separated_by_commas() {
        let file = || Destination::File("/var/letters".into());
        assert_eq!(parse("file:/var/letters"), Ok(vec![file()]));
        let several = parse("exec:aws sqs --a b,c, file:/var/letters").unwrap();
        assert_eq!(several, [Destination::Exec("aws sqs --a b,c".to_owned()), file()]);
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/bad";
        for stream in ["order-letters", arn] {
            assert_eq!(
                parse(&format!("kinesis:{stream}")),
                Ok(vec![Destination::Kinesis(stream.to_owned())])
            );
        }
        for text in [
            "kinesis:",
            "kinesis:a b",
            "kinesis:arn:aws:kinesis:us-east-1:1:stream/x",
            "kinesis:arn:aws:kinesis:us-east-1:123456789012:stream/x=LATEST",
            "kinesis:arn:aws:kinesis:us-east-1:123456789012:stream/x/consumer/c:1",
            "",
            "file:",
            "exec: ",
            "stdout",
            "/var/letters",
            "sqs:x",
            "file:/a,,",
        ] {
            let is_folder = text == "file:/a,,";
            assert_eq!(parse(text).is_err(), !is_folder, "{text}");
        }
    }
}
