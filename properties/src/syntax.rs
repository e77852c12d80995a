//! The grammar of a `.properties` file: from bytes to pairs of texts with their positions.
//!
//! Two layers, as in Java. *Natural* lines end at `\n`, `\r` or `\r\n`; comments and blank lines are recognised
//! at this layer. A *logical* line is one natural line plus those that continue it; key, separator, value and
//! escapes are found in the joined text, so a continuation may cut an escape in two.
//!
//! Java: `java.util.Properties.LineReader`, `load0` and `loadConvert`.

use std::fmt;

/// A position in a file. Line and column are counted from 1.
///
/// A column counts bytes, which Java treats as characters; an editor that shows the file as UTF-8 counts fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Natural line, from 1. `\n`, `\r` and `\r\n` each end one.
    pub line: usize,
    /// Byte within the line, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A `\u` that is not followed by four hexadecimal digits. Java rejects the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEscape {
    /// The position of the backslash.
    pub at: Position,
    /// The backslash, the `u` and up to four characters that follow in the same key or value.
    pub text: String,
}

impl fmt::Display for BadEscape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: `{}` is a malformed \\uxxxx escape (write four hexadecimal digits after \\u, or \\\\ \
             for a backslash)",
            self.at, self.text
        )
    }
}

/// One byte of a logical line and its position in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) byte: u8,
    pub(crate) at: Position,
}

/// A key or a value with its escapes resolved.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// The UTF-16 units that Java holds, including lone surrogates.
    pub(crate) units: Vec<u16>,
    /// This text with U+FFFD for each lone surrogate.
    pub(crate) string: String,
    /// The lone surrogates with their positions.
    pub(crate) lone: Vec<(u16, Position)>,
}

/// A logical line that is a pair.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) key: Text,
    pub(crate) value: Text,
    pub(crate) key_at: Position,
    /// The position of the value's first byte, or the position after the line if there is no value.
    pub(crate) value_at: Position,
    /// The key's bytes with escapes unresolved and continuations joined.
    pub(crate) key_raw: Vec<Spot>,
    /// The value's bytes with escapes unresolved and continuations joined.
    pub(crate) value_raw: Vec<Spot>,
    /// The part of the file from the key's first byte to the end of the last line, inner line ends included.
    pub(crate) raw: String,
    /// The malformed escapes, in order of position.
    pub(crate) bad: Vec<BadEscape>,
}

/// All pairs of a file, in file order.
pub(crate) fn pairs(bytes: &[u8]) -> Vec<Pair> {
    let mut reader = Reader { bytes, offset: 0, line: 1 };
    std::iter::from_fn(|| reader.logical()).map(|line| line.split(bytes)).collect()
}

/// Decodes each byte as one character (ISO-8859-1).
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Whether the byte is a space, a tab or a form feed: the only separators besides `=` and `:`.
pub(crate) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

/// A natural line without its line end.
struct Natural<'a> {
    text: &'a [u8],
    start: usize,
    line: usize,
    /// Whether nothing follows the first byte of the line end. After a trailing `\r\n` this is false: Java
    /// looks only one byte ahead, which matters for a last line that is a lone backslash.
    ends_file: bool,
}

/// A logical line that holds a pair. `spots` contains no line ends, no continuation backslashes and no leading
/// blanks of continued lines.
struct Logical {
    spots: Vec<Spot>,
    from: usize,
    to: usize,
    start: Position,
    end: Position,
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn natural(&mut self) -> Option<Natural<'a>> {
        let rest = self.bytes.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(length);
        let line_end = match tail {
            [b'\r', b'\n', ..] => 2,
            [_, ..] => 1,
            [] => 0,
        };
        let natural = Natural { text, start: self.offset, line: self.line, ends_file: tail.len() <= 1 };
        self.offset += length + line_end;
        self.line += 1;
        Some(natural)
    }

    /// The next logical line that is a pair. The state before a line is the same as after a line that is only a
    /// backslash, so a comment or a blank line may follow either.
    fn logical(&mut self) -> Option<Logical> {
        let mut spots: Vec<Spot> = Vec::new();
        let mut bounds = None;
        while let Some(natural) = self.natural() {
            let indent = natural.text.iter().take_while(|byte| is_blank(**byte)).count();
            let text = natural.text.get(indent..).unwrap_or_default();
            if spots.is_empty() && matches!(text.first(), None | Some(b'#' | b'!')) {
                continue;
            }
            let place = |column: usize| Position { line: natural.line, column: column + 1 };
            let (from, start) =
                bounds.filter(|_| !spots.is_empty()).unwrap_or((natural.start + indent, place(indent)));
            bounds = Some((from, start));
            spots
                .extend(text.iter().enumerate().map(|(i, byte)| Spot { byte: *byte, at: place(indent + i) }));
            let continues = text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
            if continues {
                spots.pop();
            }
            let to = natural.start + natural.text.len();
            let end = place(natural.text.len());
            let file_is_over = natural.ends_file || self.offset >= self.bytes.len();
            // A lone backslash as the last byte is an empty pair in Java; before `\r\n` it is nothing.
            if !continues || natural.ends_file || (file_is_over && !spots.is_empty()) {
                return Some(Logical { spots, from, to, start, end });
            }
        }
        None
    }
}

impl Logical {
    fn split(self, file: &[u8]) -> Pair {
        let (key_end, value_start) = boundaries(&self.spots);
        let key_raw = self.spots.get(..key_end).unwrap_or_default().to_vec();
        let value_raw = self.spots.get(value_start..).unwrap_or_default().to_vec();
        let mut bad = Vec::new();
        Pair {
            key: unescape(&key_raw, &mut bad),
            value: unescape(&value_raw, &mut bad),
            key_at: self.start,
            value_at: value_raw.first().map_or(self.end, |spot| spot.at),
            key_raw,
            value_raw,
            raw: latin1(file.get(self.from..self.to).unwrap_or_default()),
            bad,
        }
    }
}

/// The index after the key, and the index of the value's first byte.
fn boundaries(spots: &[Spot]) -> (usize, usize) {
    let byte = |index: usize| spots.get(index).map(|spot| spot.byte);
    let is_separator = |byte: u8| matches!(byte, b'=' | b':');
    let skip_blanks = |mut index: usize| {
        while byte(index).is_some_and(is_blank) {
            index += 1;
        }
        index
    };
    let mut key_end = 0;
    while let Some(found) = byte(key_end) {
        if is_blank(found) || is_separator(found) {
            break;
        }
        key_end += if found == b'\\' { 2 } else { 1 };
    }
    let key_end = key_end.min(spots.len());
    let mut value_start = skip_blanks(key_end);
    if byte(value_start).is_some_and(is_separator) {
        value_start = skip_blanks(value_start + 1);
    }
    (key_end, value_start)
}

/// Resolves escapes. A malformed `\u` is added to `bad` and becomes U+FFFD, so that later ones are found too.
fn unescape(spots: &[Spot], bad: &mut Vec<BadEscape>) -> Text {
    let mut units: Vec<(u16, Position)> = Vec::with_capacity(spots.len());
    let mut rest = spots;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let [escaped, tail @ ..] = rest else {
            units.push((first.byte.into(), first.at));
            break;
        };
        if first.byte != b'\\' {
            units.push((first.byte.into(), first.at));
            continue;
        }
        rest = tail;
        let unit = match escaped.byte {
            b't' => 0x09,
            b'n' => 0x0a,
            b'r' => 0x0d,
            b'f' => 0x0c,
            b'u' => {
                if let Some(unit) = hexadecimal(rest) {
                    rest = rest.get(4..).unwrap_or_default();
                    unit
                } else {
                    let text: Vec<u8> = rest.iter().take(4).map(|spot| spot.byte).collect();
                    bad.push(BadEscape { at: first.at, text: format!("\\u{}", latin1(&text)) });
                    0xfffd
                }
            }
            other => other.into(),
        };
        units.push((unit, first.at));
    }
    text(&units)
}

/// The number in the first four bytes, which must be hexadecimal digits of either case.
fn hexadecimal(spots: &[Spot]) -> Option<u16> {
    spots.get(..4)?.iter().try_fold(0, |sum: u16, spot| {
        let digit = char::from(spot.byte).to_digit(16)?;
        Some(sum << 4 | u16::try_from(digit).ok()?)
    })
}

fn text(placed: &[(u16, Position)]) -> Text {
    let units: Vec<u16> = placed.iter().map(|(unit, _)| *unit).collect();
    let mut string = String::with_capacity(units.len());
    let mut lone = Vec::new();
    let mut index = 0;
    for decoded in char::decode_utf16(units.iter().copied()) {
        let read = decoded.unwrap_or_else(|error| {
            lone.extend(placed.get(index).map(|(_, at)| (error.unpaired_surrogate(), *at)));
            char::REPLACEMENT_CHARACTER
        });
        string.push(read);
        index += read.len_utf16();
    }
    Text { units, string, lone }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(String, String)> {
        pairs(text).into_iter().map(|pair| (pair.key.string, pair.value.string)).collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_separator_and_its_blanks_are_removed() {
        let text = b"a==v\nb:=v\nc =:v\nd   v w\ne\nk\\=ey = v\n=x\nt = v \t";
        let expected = [
            ("a", "=v"),
            ("b", "=v"),
            ("c", ":v"),
            ("d", "v w"),
            ("e", ""),
            ("k=ey", "v"),
            ("", "x"),
            ("t", "v \t"),
        ];
        assert_eq!(read(text), owned(&expected));
    }

    #[test]
    fn only_space_tab_and_form_feed_separate() {
        assert_eq!(read(b"a\x0cv\nb\x0bv\nc\xa0v"), owned(&[("a", "v"), ("b\u{b}v", ""), ("c\u{a0}v", "")]));
    }

    #[test]
    fn comment_after_a_non_empty_continuation_is_text() {
        assert_eq!(read(b"a=1\\\n #2\n\\\n #3\\\nb"), owned(&[("a", "1#2"), ("b", "")]));
    }

    #[test]
    fn lone_backslash_at_end_of_file_is_empty_pair() {
        assert_eq!(read(b"\\"), owned(&[("", "")]));
        assert_eq!(read(b"\\\n"), owned(&[("", "")]));
        assert_eq!(read(b"\\\r\n"), owned(&[]));
        assert_eq!(read(b"a\\\r\n"), owned(&[("a", "")]));
    }

    #[test]
    fn continuation_may_cut_an_escape() {
        assert_eq!(read(b"k\\u00\\\n  41 = \\ud83d\\\r\n\\ude00"), owned(&[("kA", "\u{1f600}")]));
    }

    #[test]
    fn lone_surrogate_is_replaced_and_recorded() {
        let found = pairs(b"a=x\\ude00\\ud83dy");
        let lone: Vec<_> = found.iter().flat_map(|pair| pair.value.lone.clone()).collect();
        assert_eq!(read(b"a=x\\ude00\\ud83dy"), owned(&[("a", "x\u{fffd}\u{fffd}y")]));
        assert_eq!(
            lone,
            [(0xde00, Position { line: 1, column: 4 }), (0xd83d, Position { line: 1, column: 10 })]
        );
    }

    #[test]
    fn every_malformed_escape_is_found_in_keys_and_values() {
        let bad: Vec<_> =
            pairs(b"\\u00=41\na=1\nb = C:\\users\\\n \\ugly").into_iter().flat_map(|p| p.bad).collect();
        let expected = [((1, 1), "\\u00"), ((3, 7), "\\users"), ((4, 2), "\\ugly")];
        let found: Vec<_> = bad.iter().map(|b| ((b.at.line, b.at.column), b.text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn positions_count_natural_lines_of_every_kind() {
        let found: Vec<_> = pairs(b"a\r\n\r b = 1\r\n#\n\\\n  c=\\\n   2\nd=")
            .iter()
            .map(|p| {
                (p.key.string.clone(), (p.key_at.line, p.key_at.column), (p.value_at.line, p.value_at.column))
            })
            .collect();
        let expected =
            [("a", (1, 1), (1, 2)), ("b", (3, 2), (3, 6)), ("c", (6, 3), (7, 4)), ("d", (8, 1), (8, 3))];
        assert_eq!(found, expected.map(|(key, at, value)| (key.to_owned(), at, value)));
    }
}
