//! Values that are lists: words by commons-beanutils, and KCL's tags.

use std::iter::Peekable;
use std::str::Chars;

use super::trim;

/// A `String[]` of a bean, in order and with repetitions.
///
/// Blanks at both ends and one pair of braces around the rest are dropped. Letters, digits, `.`, `-` and
/// characters from U+00A0 on form words; `"…"` and `'…'` each form one word, which may be empty and may contain
/// the escapes of Java and C, and which ends at the end of the line at the latest; `/` starts a comment up to
/// the end of its line. All other characters, `_` too, separate words and are dropped. No text is rejected.
///
/// Java: commons-beanutils `ArrayConverter` on a `java.io.StreamTokenizer`.
pub fn words(text: &str) -> Vec<String> {
    let text = trim(text);
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let mut rest = text.chars().peekable();
    let mut words = Vec::new();
    while let Some(c) = rest.next() {
        if is_word(c) {
            let mut word = String::from(c);
            word.extend(std::iter::from_fn(|| rest.next_if(|c| is_word(*c))));
            words.push(word);
        } else if matches!(c, '"' | '\'') {
            words.push(quoted(c, &mut rest));
        } else if c == '/' {
            while rest.next_if(|c| !is_line_end(*c)).is_some() {}
        }
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '\u{a0}'..)
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

/// Reads the word after an opening quote, and consumes the closing quote.
fn quoted(quote: char, rest: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| *c != quote && !is_line_end(*c)) {
        word.push(if c == '\\' { escaped(rest) } else { c });
    }
    rest.next_if_eq(&quote);
    word
}

/// The character for what follows a backslash: one to three octal digits up to 377, a letter, or the character
/// itself.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> char {
    // Java converts its end-of-input marker (-1) to a character too.
    let Some(c) = rest.next() else { return '\u{ffff}' };
    match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '0'..='7' => {
            let most = if c <= '3' { 3 } else { 2 };
            let mut code = c.to_digit(8).unwrap_or_default();
            for _ in 1..most {
                let Some(digit) = rest.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8)) else { break };
                code = code * 8 + digit;
            }
            char::from_u32(code).unwrap_or_default()
        }
        other => other,
    }
}

/// The result of reading a list of tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// The tags in order, repetitions included.
    pub tags: Vec<Tag>,
    /// The pieces between commas that are not tags, untrimmed. Java logs `Invalid tag {piece}, ignoring it`.
    pub invalid: Vec<String>,
}

/// A tag: a name and a value, both trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// May be empty (`=v`): Java accepts it.
    pub key: String,
    /// Empty only if a blank and another `=` follow it (`k= =`).
    pub value: String,
}

/// A list of tags: `k=v` pieces separated by commas. Blanks around pieces, keys and values are dropped.
///
/// A piece is a tag if splitting it at `=` yields two parts after dropping empty parts at its end: `k=v=` is a
/// tag, `k=` and `a=b=c` are not. Empty pieces at the end of the list are ignored.
///
/// Java: KCL `TagConverter`, `String.split`.
pub fn tags(text: &str) -> Tags {
    let mut found = Tags::default();
    for piece in java_split(trim(text), ',') {
        match java_split(trim(piece), '=').as_slice() {
            [key, value] => found.tags.push(Tag { key: trim(key).to_owned(), value: trim(value).to_owned() }),
            _ => found.invalid.push(piece.to_owned()),
        }
    }
    found
}

/// `String.split`: drops empty parts at the end; a text without the separator is one part, even if it is empty.
fn java_split(text: &str, separator: char) -> Vec<&str> {
    match text.trim_end_matches(separator) {
        "" if !text.is_empty() => Vec::new(),
        kept => kept.split(separator).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_consist_of_letters_digits_points_and_hyphens() {
        assert_eq!(words(" {A, B-1.x C_D} "), ["A", "B-1.x", "C", "D"]);
        assert_eq!(words("\u{e9}t\u{e9}|\u{6f22};\u{85}x"), ["\u{e9}t\u{e9}", "\u{6f22}", "x"]);
        assert_eq!(words("{A"), ["A"]);
        assert_eq!(words(" {} "), [""; 0]);
    }

    #[test]
    fn quoted_text_is_one_word_even_if_empty() {
        assert_eq!(words(r#"'a b',"c,d"'' e'f'"#), ["a b", "c,d", "", "e", "f"]);
        assert_eq!(words("'open"), ["open"]);
        assert_eq!(words("'a\nb'"), ["a", "b", ""]);
        assert_eq!(words(r"'it\'s \101\60\1234\477\8\n\q\"), ["it's A0S4'78\nq\u{ffff}"]);
    }

    #[test]
    fn slash_comments_out_the_rest_of_the_line() {
        assert_eq!(words("a/b, c\nd 'e/f'"), ["a", "d", "e/f"]);
    }

    fn shown(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let Tags { tags, invalid } = tags(text);
        (tags.into_iter().map(|tag| (tag.key, tag.value)).collect(), invalid)
    }

    #[test]
    fn tags_need_one_equals_sign() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let list = |pieces: &[&str]| pieces.iter().map(|piece| (*piece).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            shown("a=b, c=d,bad,e=f=g"),
            (vec![pair("a", "b"), pair("c", "d")], list(&["bad", "e=f=g"]))
        );
        assert_eq!(shown(" k = v w ,"), (vec![pair("k", "v w")], vec![]));
        assert_eq!(shown("=b,a=b=,k= ="), (vec![pair("", "b"), pair("a", "b"), pair("k", "")], vec![]));
        assert_eq!(shown("a=, =,x"), (vec![], list(&["a=", " =", "x"])));
        assert_eq!(shown(" "), (vec![], list(&[""])));
        assert_eq!(shown(",,"), (vec![], vec![]));
    }
}
