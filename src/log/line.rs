//! One log line: an event, followed by the fields of the spans around it, as text or as JSON.
//!
//! A field has one name and one place in both formats, whether the event or a span sets it: `shard=…` at the end of a
//! text line, a member of the object in JSON. If both set it, the event's value counts. The code of the event, for
//! programs, is in JSON only.

use std::fmt::{self, Debug, Write as _};

use multilangd::multilang::output::OBJECT;
use serde::de::{self, Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The format of log lines. Span fields must be kept as JSON (`JsonFields`).
pub(super) struct Lines {
    /// JSON instead of text.
    pub(super) json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(kept) = extensions.get::<FormattedFields<N>>() else { continue };
            if let Ok(Value::Object(fields)) = serde_json::from_str(&kept.fields) {
                fields.into_iter().for_each(|(name, value)| line.add(&name, value));
            }
        }
        let metadata = event.metadata();
        if self.json && line.take_object() {
            line.merged(writer, metadata.level(), metadata.target())
        } else if self.json {
            line.json(writer, metadata.level(), metadata.target())
        } else {
            line.text(writer, metadata.level())
        }
    }
}

/// The message, the event code and the fields of a line, in order.
#[derive(Default)]
struct Line {
    message: String,
    /// A stable code for programs, which text lines leave out.
    event: Option<String>,
    fields: Vec<(String, Value)>,
}

impl Line {
    fn add(&mut self, name: &str, value: Value) {
        if self.fields.iter().all(|(known, _)| known != name) {
            self.fields.push((name.to_owned(), value));
        }
    }

    /// Removes the mark of a message that is a JSON object. Returns whether there was one.
    fn take_object(&mut self) -> bool {
        let fields = self.fields.len();
        self.fields.retain(|(name, _)| name != OBJECT);
        self.fields.len() < fields
    }

    /// The object of the message with the fields of the line. A name that the object uses keeps the object's value, as
    /// it was written: numbers of any size keep all digits.
    fn merged(&self, mut writer: Writer<'_>, level: &Level, target: &str) -> fmt::Result {
        let Ok(Object(own)) = serde_json::from_str(&self.message) else {
            return self.json(writer, level, target);
        };
        let is_free = |name: &str| own.iter().all(|(used, _)| used != name);
        let mut separator = '{';
        let mut put = |name: &str, value: &dyn fmt::Display| {
            write!(writer, "{separator}{}:{value}", Value::from(name))?;
            separator = ',';
            Ok::<(), fmt::Error>(())
        };
        if is_free("timestamp") {
            let mut now = String::new();
            SystemTime.format_time(&mut Writer::new(&mut now))?;
            put("timestamp", &Value::from(now))?;
        }
        if is_free("level") {
            put("level", &Value::from(level.as_str()))?;
        }
        for (name, value) in &own {
            put(name, &value.get())?;
        }
        for (name, value) in self.fields.iter().filter(|(name, _)| is_free(name)) {
            put(name, value)?;
        }
        if is_free("target") {
            put("target", &Value::from(target))?;
        }
        writer.write_str("}\n")
    }

    fn text(&self, mut writer: Writer<'_>, level: &Level) -> fmt::Result {
        let colours = writer.has_ansi_escapes();
        let (dim, end) = if colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let colour = match *level {
            _ if !colours => "",
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            Level::INFO => "\x1b[32m",
            Level::DEBUG => "\x1b[34m",
            Level::TRACE => "\x1b[35m",
        };
        writer.write_str(dim)?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "{end} {colour}{level:>5}{end} {}", Escaped(&self.message))?;
        for (name, value) in &self.fields {
            write!(writer, " {dim}{name}={end}")?;
            match value.as_str() {
                Some(text) if is_plain(text) => writer.write_str(text)?,
                Some(text) => write!(writer, "{text:?}")?,
                None => write!(writer, "{value}")?,
            }
        }
        writer.write_char('\n')
    }

    fn json(&self, mut writer: Writer<'_>, level: &Level, target: &str) -> fmt::Result {
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\",\"level\":\"{level}\"")?;
        if let Some(event) = &self.event {
            write!(writer, ",\"event\":{}", Value::from(event.as_str()))?;
        }
        write!(writer, ",\"message\":{}", Value::from(self.message.as_str()))?;
        for (name, value) in &self.fields {
            write!(writer, ",{}:{value}", Value::from(name.as_str()))?;
        }
        // The first line of a daemon names the target that it was built for.
        if self.fields.iter().all(|(name, _)| name != "target") {
            write!(writer, ",\"target\":{}", Value::from(target))?;
        }
        writer.write_str("}\n")
    }
}

/// A JSON object with its fields in order and their values as JSON text; of a repeated name the last value.
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> de::Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    match fields.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = value,
                        None => fields.push((name, value)),
                    }
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Whether a value needs no quotes in a text line.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || steers(c) || c == '"')
}

/// A message on one line: control characters, which could steer a terminal, are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() || steers(c) { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

/// Whether a character changes the direction of what follows, or ends a line in some viewers.
fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field.name(), Value::from(text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "event" => self.event = Some(value.to_owned()),
            name => self.add(name, Value::from(value)),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let (message, event) = ("lost\nthe lease".to_owned(), Some("lease_lost".to_owned()));
        let mut line = Line { message, event, fields: Vec::new() };
        line.add("shard", Value::from("s-0"));
        line.add("error", Value::from("two words"));
        line.add("count", Value::from(3));
        line.add("shard", Value::from("of the span"));
        line
    }

    #[test]
    fn text_line_quotes_values_and_has_no_event_code() {
        let mut out = String::new();
        line().text(Writer::new(&mut out), &Level::INFO).unwrap();
        let (_, rest) = out.split_once(' ').unwrap();
        assert_eq!(rest, " INFO lost\\nthe lease shard=s-0 error=\"two words\" count=3\n");
    }

    #[test]
    fn object_of_a_child_is_merged_and_keeps_its_values() {
        let message = r#"{"level":"debug","n": 12345678901234567890.10,"shard":"mine","n2":[1, 2]}"#;
        let mut line = Line { message: message.to_owned(), ..line() };
        line.add(OBJECT, Value::from(true));
        assert!(line.take_object() && !line.take_object());
        let mut out = String::new();
        line.merged(Writer::new(&mut out), &Level::INFO, "child").unwrap();
        assert!(
            out.contains("\"n\":12345678901234567890.10,") && out.ends_with("\"target\":\"child\"}\n"),
            "{out}"
        );
        let shown: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&shown["level"], &shown["shard"], &shown["count"]),
            (&"debug".into(), &"mine".into(), &3.into())
        );
        assert!(shown["timestamp"].is_string() && shown.get("message").is_none());
    }

    #[test]
    fn json_line_has_each_field_once_at_the_top_level() {
        let mut out = String::new();
        line().json(Writer::new(&mut out), &Level::WARN, "multilangd").unwrap();
        let shown: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out.matches("\"shard\"").count(), 1);
        assert_eq!((&shown["shard"], &shown["count"]), (&Value::from("s-0"), &Value::from(3)));
        assert_eq!((&shown["level"], &shown["message"]), (&"WARN".into(), &"lost\nthe lease".into()));
        assert_eq!(shown["event"], "lease_lost");
        assert_eq!(shown["target"], "multilangd");
        let mut first = line();
        first.add("target", Value::from("x86_64"));
        let mut out = String::new();
        first.json(Writer::new(&mut out), &Level::INFO, "multilangd").unwrap();
        assert!(out.matches("\"target\"").count() == 1 && out.ends_with("\"target\":\"x86_64\"}\n"), "{out}");
    }
}
