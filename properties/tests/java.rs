//! Compares our reader with Java's, on stored output under `tests/goldens/`.
//!
//! * `in/*.properties` with `expected.tsv`: the input files of the Java MultiLangDaemon 3.5.1 (JDK 17), and the
//!   pairs of its `java.util.Properties` in Java's iteration order.
//! * `generated.tsv`: small random files that exercise the corner cases of the grammar and of the hash table,
//!   with the result of `Properties.load` of JDK 17.0.15.
//! * `values.tsv`: texts, and the result of each conversion of JDK 17.0.15: `Integer.valueOf` and
//!   `Long.valueOf` of the trimmed text, `Long.parseLong` of the text, the bits of `Double.valueOf`, seconds
//!   and nanoseconds of `Duration.parse` of the trimmed text (`-` if negative), words of a `StreamTokenizer`
//!   configured as in `ArrayConverter`, tags by `String.split` as in `TagConverter`, and `hashCode`. `!` is a
//!   rejection; each word is in brackets; tags are separated by `;`, an invalid one begins with `!`.
//!
//! The tables are lines of fields separated by tabs. A field is ASCII, with `\uXXXX` for each other UTF-16
//! unit, for backslashes, and for spaces at its ends. `case` begins a file and is followed by its name or its
//! content.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use multilangd_properties::value::{self, DurationError, Read};
use multilangd_properties::{File, java_hash};

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn table(name: &str) -> String {
    fs::read_to_string(goldens().join(name)).unwrap()
}

fn units(field: &str) -> Vec<u16> {
    let mut pieces = field.split("\\u");
    let mut units: Vec<u16> = pieces.next().unwrap().encode_utf16().collect();
    for piece in pieces {
        units.push(u16::from_str_radix(&piece[..4], 16).unwrap());
        units.extend(piece[4..].encode_utf16());
    }
    units
}

fn bytes(field: &str) -> Vec<u8> {
    units(field).into_iter().map(|unit| u8::try_from(unit).unwrap()).collect()
}

fn text(field: &str) -> String {
    String::from_utf16_lossy(&units(field))
}

fn escape(text: &str) -> String {
    let last = text.encode_utf16().count().saturating_sub(1);
    text.encode_utf16().enumerate().fold(String::new(), |mut out, (index, unit)| {
        match u8::try_from(unit) {
            Ok(b' ') if index > 0 && index < last => out.push(' '),
            Ok(byte) if byte.is_ascii_graphic() && byte != b'\\' => out.push(byte.into()),
            _ => write!(out, "\\u{unit:04x}").unwrap(),
        }
        out
    })
}

/// Java's result for a file: the pairs in its iteration order, or its error.
type View = Result<Vec<(String, String)>, String>;

fn cases(table: &str) -> Vec<(&str, View)> {
    let mut cases: Vec<(&str, View)> = Vec::new();
    for line in table.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        match (fields.as_slice(), cases.last_mut()) {
            (["case", name], _) => cases.push((name, Ok(Vec::new()))),
            (["pair", key, value], Some((_, Ok(pairs)))) => pairs.push((text(key), text(value))),
            (["error", message], Some((_, view))) => *view = Err(text(message)),
            _ => panic!("not a line of a golden table: {line}"),
        }
    }
    cases
}

fn ours(bytes: &[u8]) -> View {
    match File::read(bytes) {
        Ok(file) => {
            let pairs = file.in_java_order().into_iter().map(|e| (e.key().to_owned(), e.value().to_owned()));
            Ok(pairs.collect())
        }
        Err(refused) => {
            assert!(!refused.escapes.is_empty());
            Err("Malformed \\uxxxx encoding.".to_owned())
        }
    }
}

#[test]
fn input_files_of_the_java_daemon_read_as_in_java() {
    let table = table("expected.tsv");
    let expected = cases(&table);
    let mut names: Vec<_> = fs::read_dir(goldens().join("in"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "tests/goldens/in is empty");
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "one case a file, sorted");
    for (name, view) in expected {
        assert_eq!(ours(&fs::read(goldens().join("in").join(name)).unwrap()), view, "{name}");
    }
}

#[test]
fn generated_files_read_as_in_java() {
    let table = table("generated.tsv");
    let cases = cases(&table);
    assert!(cases.len() > 400, "only {} cases", cases.len());
    for (input, view) in cases {
        assert_eq!(ours(&bytes(input)), view, "{input}");
    }
}

#[test]
fn values_convert_as_in_java() {
    let table = table("values.tsv");
    assert!(table.lines().count() > 1000);
    for line in table.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [input, int, long, strict, double, duration, words, tags, hash] = fields[..] else {
            panic!("{line}")
        };
        let text = text(input);
        assert_eq!(shown(value::int(&text)), int, "int of {input}");
        assert_eq!(shown(value::long(&text)), long, "long of {input}");
        assert_eq!(shown(value::parse_long(&text).ok().into()), strict, "strict long of {input}");
        assert_eq!(shown_double(value::double(&text)), double, "double of {input}");
        assert_eq!(shown_duration(&text), duration, "duration of {input}");
        let found: String = value::words(&text).iter().map(|word| format!("[{}]", escape(word))).collect();
        assert_eq!(found, words, "words of {input}");
        assert_eq!(ours_as_tags(&text), sorted_tags(tags), "tags of {input}");
        assert_eq!(java_hash(&text).to_string(), hash, "hash of {input}");
    }
}

fn shown<T: ToString>(read: Read<T>) -> String {
    read.value().map_or_else(|| "!".to_owned(), |value| value.to_string())
}

fn shown_double(read: Read<f64>) -> String {
    match read {
        Read::Value(value) if value.is_nan() => "NaN".to_owned(),
        Read::Value(value) => format!("{:016x}", value.to_bits()),
        Read::Unreadable => "!".to_owned(),
    }
}

fn shown_duration(text: &str) -> String {
    match value::duration(text) {
        Ok(duration) => format!("{}.{}", duration.as_secs(), duration.subsec_nanos()),
        Err(DurationError::Negative(_)) => "-".to_owned(),
        Err(DurationError::Unreadable(_) | DurationError::TooLong(_)) => "!".to_owned(),
    }
}

/// Valid and invalid pieces, each kind in its order: the stored line mixes them, our result has two lists.
fn sorted_tags(field: &str) -> Vec<String> {
    let field = text(field);
    let mut pieces: Vec<String> =
        if field.is_empty() { Vec::new() } else { field.split(';').map(str::to_owned).collect() };
    pieces.sort_by_key(|piece| piece.starts_with('!'));
    pieces
}

fn ours_as_tags(text: &str) -> Vec<String> {
    let found = value::tags(text);
    let good = found.tags.iter().map(|tag| format!("[{}][{}]", tag.key, tag.value));
    let bad = found.invalid.iter().map(|piece| format!("!{piece}"));
    // A `;` in the text itself splits here as in the stored line.
    let joined: Vec<String> = good.chain(bad).collect();
    sorted_tags(&joined.join(";").replace('\\', "\\u005c"))
}
