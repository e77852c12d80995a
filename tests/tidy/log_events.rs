//! The event codes of log lines: the table in `docs/log-events.md` equals the calls in the source.
//!
//! A code is the field `event` of a log call. Its levels and fields are read from the calls. The column that says when
//! the event is logged is written by hand, and kept when the table is generated.

use std::collections::BTreeMap;

use crate::generated::{code, table};
use crate::{cells, page, read, root, shown, sources};

pub(crate) const PAGE: &str = "docs/log-events.md";
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// A log call.
struct Call {
    /// File and line.
    place: String,
    /// In capitals.
    level: String,
    event: Option<String>,
    /// The names of its fields, except `event`.
    fields: Vec<String>,
}

/// The arguments of a call, from behind its opening parenthesis, split at the commas outside brackets and strings.
fn arguments(text: &str) -> Vec<&str> {
    let (mut found, mut begin, mut depth, mut bytes) = (Vec::new(), 0, 0_u32, text.bytes().enumerate());
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, within)) = bytes.next().filter(|(_, within)| *within != b'"') {
                    if within == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                found.push(text[begin..at].trim());
                return found;
            }
            b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                found.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    panic!("a call without an end: {}", &text[..text.len().min(80)])
}

/// The log calls of a file, up to its tests.
fn calls(name: &str, text: &str) -> Vec<Call> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut found = Vec::new();
    for level in LEVELS {
        let begin = format!("{level}!(");
        for (at, _) in code.match_indices(&begin) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let mut call = Call {
                place: format!("{name}:{line}"),
                level: level.to_uppercase(),
                event: None,
                fields: Vec::new(),
            };
            for argument in arguments(&code[at + begin.len()..]) {
                // The message ends the fields.
                if argument.starts_with('"') {
                    break;
                }
                if argument.starts_with("target:") {
                    continue;
                }
                let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
                let name = name.trim().trim_start_matches(['%', '?']).rsplit('.').next().unwrap();
                if name == "event" {
                    call.event = Some(value.trim().trim_matches('"').to_owned());
                } else {
                    call.fields.push(name.to_owned());
                }
            }
            found.push(call);
        }
    }
    // The errors that end the process bypass the log macros.
    if name == "src/log.rs" {
        for rest in code.split("report(\"").skip(1) {
            let (event, _) = rest.split_once('"').unwrap();
            let (place, level) = (name.to_owned(), "ERROR".to_owned());
            found.push(Call { place, level, event: Some(event.to_owned()), fields: Vec::new() });
        }
    }
    found
}

fn all_calls() -> Vec<Call> {
    let inside = sources().into_iter().filter(|path| path.starts_with(root().join("src")));
    let found: Vec<Call> = inside.flat_map(|path| calls(&shown(&path), &read(&path))).collect();
    assert!(found.len() > 200, "{}", found.len());
    found
}

/// The rows that the page has: code, and when the event is logged.
fn written() -> BTreeMap<String, String> {
    let text = page(PAGE);
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let pair = |row: &str| {
        let cells: Vec<&str> = cells(row).collect();
        (cells[0].trim_matches('`').to_owned(), (*cells.last().unwrap()).to_owned())
    };
    rows.map(pair).collect()
}

/// The table: code, levels, fields, when.
pub(crate) fn rows() -> String {
    let mut events: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for call in all_calls() {
        let Some(event) = call.event else { continue };
        let (levels, fields) = events.entry(event).or_default();
        for (value, known) in [(vec![call.level], levels), (call.fields, fields)] {
            let new: Vec<_> = value.into_iter().filter(|value| !known.contains(value)).collect();
            known.extend(new);
        }
    }
    let written = written();
    let rows = events.into_iter().map(|(event, (levels, fields))| {
        let when = written.get(&event).cloned().unwrap_or_default();
        let fields: Vec<String> = fields.iter().map(|field| code(field)).collect();
        let fields = if fields.is_empty() { "-".to_owned() } else { fields.join(", ") };
        vec![code(&event), levels.join(", "), fields, when]
    });
    table(&["event", "level", "fields", "when"], rows)
}

/// An alert on an event whose meaning nobody wrote down cannot be answered.
#[test]
fn every_log_event_has_an_explanation() {
    let missing: Vec<_> = written().into_iter().filter(|(_, when)| when.is_empty()).collect();
    assert!(missing.is_empty(), "{PAGE}: write when these are logged: {missing:?}");
}

/// An alert needs a code. The embedded endpoints of local mode alert nobody.
#[test]
fn warnings_and_errors_have_event_codes() {
    let alerts = |call: &Call| ["WARN", "ERROR"].contains(&call.level.as_str());
    let bare = all_calls().into_iter().filter(|call| alerts(call) && call.event.is_none());
    let bare: Vec<_> = bare.map(|call| call.place).filter(|place| !place.starts_with("src/local/")).collect();
    assert!(bare.is_empty(), "these log calls need the field `event`: {bare:#?}");
}

#[test]
fn event_codes_are_snake_case() {
    for call in all_calls() {
        let Some(event) = call.event else { continue };
        let plain = event.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(plain && event.contains('_'), "{}: {event}", call.place);
    }
}
