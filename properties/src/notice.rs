//! Likely mistakes in a file that Java accepts silently.
//!
//! Notices concern the syntax only and never change the meaning of the file. Checks of what a key accepts (an
//! invalid number, an unknown key) belong to the crate that defines the keys.

use std::fmt;

use crate::entry::Entry;
use crate::syntax::{Pair, Position, Spot, is_blank};

/// The UTF-8 byte order mark. Java reads it as three characters of the first key.
const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A likely mistake, for the author of the file.
///
/// `Display` writes one sentence on one line, with the position and a suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The position at which the mistake begins.
    pub at: Position,
    /// The key of the pair, as Java reads it.
    pub key: String,
    /// The kind of mistake.
    pub kind: Kind,
}

/// The kinds of mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file begins with the UTF-8 byte order mark, which Java reads as part of the first key. A comment on
    /// the first line becomes a key.
    ByteOrderMark,
    /// Non-ASCII bytes that are valid UTF-8; Java reads each byte as one character.
    Utf8 {
        /// The half of the pair that contains them.
        part: Part,
        /// The half as written, decoded as UTF-8; escapes are not resolved.
        meant: String,
    },
    /// The key occurs again later, so this pair has no effect.
    Duplicate {
        /// The position of the key of the pair that takes effect.
        kept: Position,
    },
    /// A `\u` escape for one half of a surrogate pair without the other half, which is not a character.
    LoneSurrogate {
        /// The half of the pair that contains it.
        part: Part,
        /// The UTF-16 unit, 0xD800 to 0xDFFF.
        unit: u16,
    },
    /// Unescaped spaces, tabs or form feeds at the end of the value; Java keeps them.
    TrailingBlanks {
        /// Their number, at least 1.
        count: usize,
    },
    /// The value is enclosed in quotes; Java has no quoting and keeps them.
    Quoted {
        /// The quote character, `"` or `'`.
        quote: char,
    },
    /// A `#` after a blank in the value; Java recognises comments only on separate lines.
    Hash,
}

/// One half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The text before the separator.
    Key,
    /// The text after the separator.
    Value,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.escape_debug();
        write!(f, "{}: ", self.at)?;
        match &self.kind {
            Kind::ByteOrderMark => write!(
                f,
                "the file starts with a UTF-8 byte order mark, which becomes part of the first key, \
                 `{key}` (save the file without it)"
            ),
            Kind::Utf8 { part, meant } => write!(
                f,
                "the {part} of `{key}` looks like UTF-8 for `{}`, but the file is read as ISO-8859-1 \
                 (write \\uXXXX escapes for such characters)",
                meant.escape_debug()
            ),
            Kind::Duplicate { kept } => {
                write!(f, "`{key}` is set again at {kept}, which takes precedence (delete one of the two)")
            }
            Kind::LoneSurrogate { part, unit } => write!(
                f,
                "\\u{unit:04x} in the {part} of `{key}` is half of a surrogate pair (write both halves, \
                 as in \\ud83d\\ude00)"
            ),
            Kind::TrailingBlanks { count } => write!(
                f,
                "the value of `{key}` ends in {count} blank{}, part of the value (delete unintended ones, escape the \
                 others with \\)",
                if *count == 1 { "" } else { "s" }
            ),
            Kind::Quoted { quote } => write!(
                f,
                "the value of `{key}` is in {quote} quotes, which count as part of it (delete them unless \
                 intended)"
            ),
            Kind::Hash => write!(
                f,
                "the # in the value of `{key}` starts no comment and is part of the value (put comments \
                 on lines of their own)"
            ),
        }
    }
}

/// The notices that depend on this pair alone, in no particular order.
pub(crate) fn of_pair(pair: &Pair) -> Vec<Notice> {
    let mut found = Vec::new();
    let mut note = |at, kind| found.push(Notice { at, key: pair.key.string.clone(), kind });
    let mut key_raw = pair.key_raw.as_slice();
    if let Some(rest) = without_bom(pair) {
        note(pair.key_at, Kind::ByteOrderMark);
        key_raw = rest;
    }
    for (part, raw, text) in [(Part::Key, key_raw, &pair.key), (Part::Value, &pair.value_raw, &pair.value)] {
        if let Some((at, meant)) = utf8(raw) {
            note(at, Kind::Utf8 { part, meant });
        }
        for (unit, at) in &text.lone {
            note(*at, Kind::LoneSurrogate { part, unit: *unit });
        }
    }
    if let Some((at, count)) = trailing_blanks(&pair.value_raw) {
        note(at, Kind::TrailingBlanks { count });
    }
    if let Some((at, quote)) = quoted(&pair.value_raw) {
        note(at, Kind::Quoted { quote });
    }
    if let Some(at) = hash(&pair.value_raw) {
        note(at, Kind::Hash);
    }
    found
}

/// The notice for a pair whose key occurs again.
pub(crate) fn duplicate(old: &Entry, kept: &Entry) -> Notice {
    Notice { at: old.key_at(), key: old.key().to_owned(), kind: Kind::Duplicate { kept: kept.key_at() } }
}

/// The key without the byte order mark, if the pair begins the file with one.
fn without_bom(pair: &Pair) -> Option<&[Spot]> {
    let is_first = pair.key_at == Position { line: 1, column: 1 };
    let (mark, rest) = pair.key_raw.split_at_checked(BOM.len())?;
    (is_first && mark.iter().map(|spot| spot.byte).eq(BOM)).then_some(rest)
}

/// The position of the first non-ASCII byte, and the decoded text, if there is one and the bytes are valid
/// UTF-8.
fn utf8(raw: &[Spot]) -> Option<(Position, String)> {
    let first = raw.iter().find(|spot| !spot.byte.is_ascii())?;
    let meant = String::from_utf8(raw.iter().map(|spot| spot.byte).collect()).ok()?;
    Some((first.at, meant))
}

/// The position of the first trailing blank, and the number of trailing blanks. An escaped blank is intentional
/// and not counted.
fn trailing_blanks(raw: &[Spot]) -> Option<(Position, usize)> {
    let blanks = raw.iter().rev().take_while(|spot| is_blank(spot.byte)).count();
    let (text, blanks) = raw.split_at_checked(raw.len().checked_sub(blanks)?)?;
    let backslashes = text.iter().rev().take_while(|spot| spot.byte == b'\\').count();
    let meant = backslashes % 2;
    let blanks = blanks.get(meant..)?;
    Some((blanks.first()?.at, blanks.len()))
}

fn quoted(raw: &[Spot]) -> Option<(Position, char)> {
    let (first, last) = (raw.first()?, raw.get(1..)?.iter().rev().find(|spot| !is_blank(spot.byte))?);
    let is_quote = matches!(first.byte, b'"' | b'\'') && first.byte == last.byte;
    is_quote.then_some((first.at, first.byte.into()))
}

fn hash(raw: &[Spot]) -> Option<Position> {
    let followers = raw.iter().zip(raw.get(1..)?);
    followers
        .filter(|(before, _)| is_blank(before.byte))
        .find(|(_, spot)| spot.byte == b'#')
        .map(|(_, spot)| spot.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::File;

    fn notices(text: &[u8]) -> Vec<(usize, usize, Kind)> {
        let file = File::read(text).unwrap_or_default();
        file.notices().iter().map(|notice| (notice.at.line, notice.at.column, notice.kind.clone())).collect()
    }

    #[test]
    fn ordinary_file_has_no_notices() {
        assert_eq!(
            notices(b"# caf\xc3\xa9 \na = b\\ \nC = C#\nd=it's\ne=\xe9t\xe9\nf=\\ud83d\\ude00\ng=\"\n"),
            []
        );
    }

    #[test]
    fn byte_order_mark_is_reported_once() {
        assert_eq!(notices(b"\xef\xbb\xbfa = 1"), [(1, 1, Kind::ByteOrderMark)]);
        assert_eq!(notices(b"\xef\xbb\xbf# c=1"), [(1, 1, Kind::ByteOrderMark)]);
        assert_eq!(notices(b"\xef\xbb\xbf"), [(1, 1, Kind::ByteOrderMark)]);
    }

    #[test]
    fn utf8_is_reported_at_its_first_byte() {
        let meant = |part, text: &str| Kind::Utf8 { part, meant: text.to_owned() };
        assert_eq!(notices(b"a = x\xc3\xa9t\xc3\xa9"), [(1, 6, meant(Part::Value, "x\u{e9}t\u{e9}"))]);
        assert_eq!(notices(b"\n\xe6\xbc\xa2=1"), [(2, 1, meant(Part::Key, "\u{6f22}"))]);
        assert_eq!(notices(b"a=\xc3\xa9\xe9"), []);
    }

    #[test]
    fn superseded_pairs_are_reported_in_order_of_position() {
        let kept = Position { line: 3, column: 1 };
        let expected = [
            (1, 1, Kind::Duplicate { kept }),
            (1, 3, Kind::Quoted { quote: '"' }),
            (2, 1, Kind::Duplicate { kept }),
        ];
        assert_eq!(notices(b"a=\"1\"\na=2\na=3"), expected);
    }

    #[test]
    fn trailing_blanks_count_from_the_first_unescaped_one() {
        let blanks = |count| Kind::TrailingBlanks { count };
        assert_eq!(notices(b"a=x \t"), [(1, 4, blanks(2))]);
        assert_eq!(notices(b"a=x\\  "), [(1, 6, blanks(1))]);
        assert_eq!(notices(b"a=x\\\\ "), [(1, 6, blanks(1))]);
        assert_eq!(notices(b"a=   "), []);
    }

    #[test]
    fn quotes_before_trailing_blanks_are_reported() {
        let expected = [(1, 3, Kind::Quoted { quote: '\'' }), (1, 6, Kind::TrailingBlanks { count: 1 })];
        assert_eq!(notices(b"a='b' "), expected);
    }

    #[test]
    fn hash_after_a_blank_is_reported() {
        assert_eq!(notices(b"a=b # c"), [(1, 5, Kind::Hash)]);
    }

    #[test]
    fn lone_surrogates_are_reported_by_part() {
        let lone = |part, unit| Kind::LoneSurrogate { part, unit };
        let expected = [(1, 1, lone(Part::Key, 0xd83d)), (1, 8, lone(Part::Value, 0xde00))];
        assert_eq!(notices(b"\\ud83d=\\ude00"), expected);
    }

    #[test]
    fn notice_is_a_sentence_with_its_position() {
        let file = File::read(b"\na = b ").unwrap_or_default();
        let shown: Vec<_> = file.notices().iter().map(ToString::to_string).collect();
        let expected = "line 2, column 6: the value of `a` ends in 1 blank, part of the value \
                        (delete unintended ones, escape the others with \\)";
        assert_eq!(shown, [expected]);
    }
}
