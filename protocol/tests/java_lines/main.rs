//! Compares how the daemon and Java read lines of a child.
//!
//! * `rules.rs`: Java's rules, as an independent reader.
//! * `lines.tsv`: lines, and what `Lines.java` printed for each, with the message classes of KCL's multilang
//!   module (identical in 3.1.3 and 3.5.1) and Jackson 2.21.5 on JDK 17: random lines, lines of the
//!   transcripts, and corner cases. Both the rules and the daemon's reader must agree with this table.
//! * The fuzzer compares the daemon's reader with the rules, for the time that `tests/support/fuzz.rs` reads
//!   from the environment.
//!
//! To extend the table: `MULTILANGD_JAVA_LINES=FILE cargo test -p multilangd-protocol --test java_lines` writes
//! random lines to the file. `java -cp JARS Lines.java <FILE` prints their rows, where `JARS` are those of the
//! Java daemon.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

#[path = "../../../tests/support/fuzz.rs"]
mod fuzz;
mod rules;

use std::fmt::Write as _;

use multilangd_protocol::{CheckpointRequest, FromChild};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use rules::{Verdict, verdict};

/// Lines that the daemon reads differently from Java on purpose, with the reason. Such lines are not compared.
fn difference(line: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(line);
    let escaped = text.split("\\u").skip(1).filter_map(|rest| u32::from_str_radix(rest.get(..4)?, 16).ok());
    let mut chars = text.chars().chain(escaped.filter_map(char::from_u32));
    if text.trim_start().starts_with('[') {
        return Some("Jackson takes an array of a type and an object for a message; no client writes one");
    }
    if text.contains("-0") {
        return Some(
            "the number -0 in a text field is \"0\" for Jackson before the action and \"-0\" after it",
        );
    }
    chars.any(|char| !char.is_ascii() && char.is_numeric()).then_some("Java reads the digits of every script")
}

fn ours(line: &[u8]) -> Verdict {
    match FromChild::parse(line) {
        FromChild::Status { response_for } => Verdict::Status(response_for),
        FromChild::Checkpoint(CheckpointRequest { sequence_number, sub_sequence_number }) => {
            Verdict::Checkpoint(sequence_number, sub_sequence_number)
        }
        FromChild::Foreign { .. } | FromChild::Empty | FromChild::Noise(_) => Verdict::Nothing,
    }
}

/// Decodes a field of the table. `\xNN` is a byte that is not printable ASCII, or a backslash.
fn bytes(field: &str) -> Vec<u8> {
    let mut pieces = field.split("\\x");
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    bytes
}

/// Encodes bytes as a field of the table.
fn field(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        match byte {
            b' '..=b'~' if *byte != b'\\' => out.push(char::from(*byte)),
            _ => write!(out, "\\x{byte:02x}").unwrap(),
        }
        out
    })
}

/// Decodes a nullable text of the table: `-` is null, otherwise the text follows a `=`.
fn text(field: &str) -> Option<String> {
    field.strip_prefix('=').map(|text| String::from_utf8(bytes(text)).unwrap())
}

#[test]
fn lines_of_the_table_are_read_as_in_java() {
    let table = include_str!("lines.tsv");
    let mut faults = Vec::new();
    let (mut count, mut messages, mut different) = (0, 0, 0);
    for row in table.lines() {
        let cells: Vec<&str> = row.split('\t').collect();
        let java = match cells[1..] {
            ["status", response_for] => Verdict::Status(text(response_for)),
            ["checkpoint", sequence, sub] => Verdict::Checkpoint(text(sequence), sub.parse().ok()),
            // A line with only `null` ends the Java daemon.
            ["other" | "noise" | "null" | "empty"] => Verdict::Nothing,
            _ => panic!("{row}"),
        };
        count += 1;
        messages += usize::from(java != Verdict::Nothing);
        let line = bytes(cells[0]);
        if difference(&line).is_some() {
            different += 1;
            continue;
        }
        for (reader, found) in [("the rules", verdict(&line)), ("the daemon", ours(&line))] {
            if found != java {
                faults.push(format!("{reader}: {} is {java:?}, not {found:?}", cells[0]));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        count > 2_000 && messages > 500 && different < 50,
        "{count} lines, {messages} messages, {different} different"
    );
}

#[test]
fn fuzz_child_lines_beside_the_rules_of_java() {
    let lines = lines();
    if let Some(file) = std::env::var_os("MULTILANGD_JAVA_LINES") {
        let mut runner = TestRunner::default();
        let made = (0..2_000).map(|_| field(&lines.new_tree(&mut runner).unwrap().current()) + "\n");
        std::fs::write(file, made.collect::<String>()).unwrap();
    }
    fuzz::run(&lines, |line| {
        if difference(&line).is_none() {
            prop_assert_eq!(ours(&line), verdict(&line), "{}", field(&line));
        }
        Ok(())
    });
}

/// Whitespace between tokens: mostly none.
fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => Just(""), 1 => Just(" "), 1 => Just("\t "), 1 => Just("\u{b}")]
}

fn key() -> impl Strategy<Value = &'static str> {
    let own = select(&["sequenceNumber", "subSequenceNumber", "responseFor", "error"][..]);
    let other = select(
        &[
            "\\u0061ction",
            "action",
            "Action",
            "extra",
            "",
            "shardId",
            "reason",
            "sequence\\u004eumber",
            "\\ud800",
        ][..],
    );
    prop_oneof![8 => own, 2 => other]
}

fn value() -> impl Strategy<Value = String> {
    let texts = select(
        &[
            "status",
            "checkpoint",
            "leaseLost",
            "initialize",
            "nope",
            "TRIM_HORIZON",
            "SHARD_END",
            "null",
            " null ",
            "NULL",
            "",
            " ",
            "0",
            "-1",
            "+7",
            "+-7",
            "-",
            "007",
            " 12\\t",
            "\\u0000 3",
            "\\u00a05",
            "1.0",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "49680479068778121708404180337939570614094700674019229698",
            "\\ud800",
            "\\udc00\\ud800",
            "\\ud83d\\ude00",
            "\\u0031",
            "é漢😀",
            "\\'",
            "\\\\",
            "a\\\"b",
            "\u{7f}",
            "\u{1f}",
            "\\b\\f\\/",
        ][..],
    );
    let raw = select(
        &[
            "null",
            "true",
            "false",
            "0",
            "-0",
            "7",
            "-7",
            "1.5",
            "-1.5",
            "1e3",
            "1E+3",
            "12e-1",
            "1e400",
            "1e-400",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "9223372036854775807.0",
            "9.2233720368547769e18",
            "-9223372036854775808.0",
            "9.3e18",
            "49680479068778121708404180337939570614094700674019229698",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "NaN",
            "[]",
            "{}",
            "[1,\"a\",{\"b\":null}]",
            "{\"action\":\"status\"}",
            "nul",
            "truex",
            "'a'",
            "",
        ][..],
    );
    let long =
        (998usize..1003, select(&["", "-", ".5", "e1", "\""][..])).prop_map(|(count, with)| match with {
            "-" => format!("-{}", "9".repeat(count)),
            "\"" => format!("\"{}5\"", "0".repeat(count)),
            _ => "9".repeat(count) + with,
        });
    let deep = (120usize..135).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth));
    prop_oneof![12 => texts.prop_map(|text| format!("\"{text}\"")), 12 => raw.prop_map(str::to_owned), 1 => long, 1 => deep]
}

fn action() -> impl Strategy<Value = String> {
    let usual = select(&["\"status\"", "\"checkpoint\"", "\"ch\\u0065ckpoint\""][..]).prop_map(str::to_owned);
    prop_oneof![12 => usual, 1 => value()]
}

/// A line that resembles a message, with some of its bytes replaced, removed or inserted.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let member = (blank(), key(), blank(), blank(), value(), blank())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}\"{key}\"{b}:{c}{value}{d}"));
    let members = prop::collection::vec(member, 0..4);
    let end = prop_oneof![12 => Just("}"), 1 => Just("} and more"), 1 => Just("}{}"), 1 => Just(",}"), 1 => Just("")];
    let begin =
        prop_oneof![20 => Just("{"), 1 => Just(" {"), 1 => Just("\u{feff}{"), 1 => Just("{,"), 1 => Just("")];
    let text =
        (begin, members, 0usize..4, action(), end).prop_map(|(begin, mut members, at, action, end)| {
            members.insert(at.min(members.len()), format!("\"action\":{action}"));
            format!("{begin}{}{end}", members.join(",")).into_bytes()
        });
    let lines = fuzz::changed(text, b"{}[]\",:\\/ \tu0159-+.eEnt\x00\x1f\x7f\xc3\xa9\xff");
    // Terminators are never part of a line.
    lines.prop_map(|mut line| {
        line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        line
    })
}
