//! Properties of the reader on random input: it never panics, escaped text round-trips, and positions match the
//! text.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use multilangd_properties::{File, value};
use proptest::prelude::*;

/// Escapes a text as `java.util.Properties.store` does.
fn escaped(text: &str, is_key: bool) -> String {
    let mut out = String::new();
    for (index, unit) in text.encode_utf16().enumerate() {
        match u8::try_from(unit) {
            Ok(b' ') if is_key || index == 0 => out.push_str("\\ "),
            Ok(b'\t') => out.push_str("\\t"),
            Ok(b'\n') => out.push_str("\\n"),
            Ok(b'\r') => out.push_str("\\r"),
            Ok(0x0c) => out.push_str("\\f"),
            Ok(byte @ (b'=' | b':' | b'#' | b'!' | b'\\')) => out.extend(['\\', char::from(byte)]),
            Ok(byte @ 0x20..=0x7e) => out.push(byte.into()),
            _ => out.push_str(&format!("\\u{unit:04X}")),
        }
    }
    out
}

/// One or more natural lines of a file: the text without its last line end, the number of natural lines, and,
/// if it is a pair, the key with the line and column of its value.
#[derive(Clone, Debug)]
struct Piece {
    text: String,
    lines: usize,
    pair: Option<(String, usize, usize)>,
}

fn piece() -> impl Strategy<Value = Piece> {
    let plain = |text: String| Piece { text, lines: 1, pair: None };
    prop_oneof![
        "[ \t\x0c]{0,3}".prop_map(plain),
        "[ \t]{0,2}[#!][a-z =\\\\]{0,8}".prop_map(plain),
        ("[ ]{0,3}", "[a-z]{1,4}", "[a-z]{1,4}").prop_map(|(indent, key, value)| Piece {
            text: format!("{indent}{key} = {value}"),
            lines: 1,
            pair: Some((key.clone(), 0, indent.len() + key.len() + 4)),
        }),
        ("[a-z]{1,4}", "[ \t]{0,3}", "[a-z]{1,4}").prop_map(|(key, indent, value)| Piece {
            text: format!("{key} = \\\u{1}{indent}{value}"),
            lines: 2,
            pair: Some((key, 1, indent.len() + 1)),
        }),
    ]
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("\n"), Just("\r"), Just("\r\n")]
}

/// Random bytes in which meaningful characters are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(b"\\\\\\u0Dd8=:#! \t\x0c\n\r\xef\xbb\xbf\"".to_vec());
    prop::collection::vec(prop_oneof![3 => telling, 1 => any::<u8>()], 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_any_bytes_does_not_panic(bytes in bytes()) {
        let file = File::read(&bytes).unwrap_or_else(|refused| {
            assert!(!refused.to_string().is_empty());
            refused.rest
        });
        let lines = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
        prop_assert!(file.entries().iter().all(|entry| entry.line() <= lines && entry.value_at().line <= lines));
        prop_assert!(file.entries().is_sorted_by_key(|entry| entry.key_at()));
        prop_assert!(file.notices().is_sorted_by_key(|notice| notice.at));
        prop_assert!(file.notices().iter().all(|notice| !notice.to_string().contains(['\n', '\r'])));
        prop_assert_eq!(file.effective().count(), file.in_java_order().len());
        prop_assert_eq!(file.effective().count() + file.duplicates().count(), file.entries().len());
    }

    #[test]
    fn converting_any_text_does_not_panic(text in "[-+ 0-9a-fxpPTDHMS.,=\"'\\\\/{}]{0,24}|\\PC{0,16}") {
        let (int, long) = (value::int(&text).value(), value::long(&text).value());
        prop_assert_eq!(int, long.and_then(|long| i32::try_from(long).ok()));
        prop_assert!(value::parse_long(&text).is_err() || value::parse_long(&text).ok() == long);
        prop_assert!(value::parse_int(&text).is_err() || value::parse_int(&text).ok() == int);
        prop_assert!(long.is_none() || !text.is_ascii() || !value::double(&text).is_unreadable());
        prop_assert!(value::boolean(&text).is_unreadable() || text.len() <= 5);
        prop_assert!(value::words(&text).len() <= text.len());
        let tags = value::tags(&text);
        prop_assert!(tags.tags.len() + tags.invalid.len() <= text.matches(',').count() + 1);
        prop_assert!(value::duration(&text).is_err() || text.contains(['P', 'p']));
    }

    #[test]
    fn decimal_doubles_round_trip(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
        prop_assert_eq!(value::double(&format!("{number:e}")), value::Read::Value(number));
    }

    #[test]
    fn escaped_text_round_trips(
        pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..30),
        end in line_end(),
    ) {
        let text: String =
            pairs.iter().map(|(key, value)| format!("{}={}{end}", escaped(key, true), escaped(value, false))).collect();
        let file = File::read(text.as_bytes()).unwrap();
        let read: Vec<_> = file.entries().iter().map(|e| (e.key().to_owned(), e.value().to_owned())).collect();
        prop_assert_eq!(&read, &pairs);
        for (key, _) in &pairs {
            let last = pairs.iter().rev().find(|(other, _)| other == key).map(|(_, value)| value.as_str());
            prop_assert_eq!(file.get(key).map(|entry| entry.value()), last);
        }
    }

    #[test]
    fn positions_match_the_text(pieces in prop::collection::vec((piece(), line_end()), 0..30)) {
        let mut text = String::new();
        let mut expected = Vec::new();
        let mut line = 1;
        for (piece, end) in &pieces {
            // After a `\r` and an empty line, a `\n` would combine with the `\r` to one line end.
            let end = if *end == "\n" && text.ends_with('\r') && piece.text.is_empty() { "\r" } else { end };
            text.push_str(&piece.text.replace('\u{1}', end));
            let pair = piece.pair.iter();
            expected.extend(pair.map(|(key, down, column)| (key.clone(), line, line + down, *column)));
            text.push_str(end);
            line += piece.lines;
        }
        let file = File::read(text.as_bytes()).unwrap();
        let found: Vec<_> = file
            .entries()
            .iter()
            .map(|e| (e.key().to_owned(), e.line(), e.value_at().line, e.value_at().column))
            .collect();
        prop_assert_eq!(found, expected);
    }
}
