//! Converts the text of a value to what a Java setting of a given type would hold.
//!
//! Each function implements the rule of one type and takes the value as [`Entry::value`](crate::Entry::value)
//! returns it: a function trims if Java does. The caller decides what a zero or a `false` means.
//!
//! | function | Java type | by |
//! |---|---|---|
//! | [`int`], [`long`], [`double`] | `int`, `Integer`, `long`, `Long`, `double` of a bean | commons-beanutils `NumberConverter` |
//! | [`boolean`] | `boolean`, `Boolean` of a bean | commons-beanutils `BooleanConverter` |
//! | [`words`] | `String[]` of a bean | commons-beanutils `ArrayConverter` |
//! | [`parse_int`], [`parse_long`] | `int`, `long` read without a converter | `Integer.parseInt`, `Long.parseLong` |
//! | [`duration`] | `java.time.Duration` | KCL `DurationConverter` |
//! | [`tags`] | list of tags | KCL `TagConverter` |

mod duration;
mod list;
mod number;

pub use duration::{DurationError, duration};
pub use list::{Tag, Tags, tags, words};
pub use number::{NotANumber, double, int, long, parse_int, parse_long};

/// Words that [`boolean`] reads as true, ignoring case.
pub const TRUE_WORDS: [&str; 5] = ["true", "yes", "y", "on", "1"];
/// Words that [`boolean`] reads as false, ignoring case.
pub const FALSE_WORDS: [&str; 5] = ["false", "no", "n", "off", "0"];

/// The result of a lenient Java conversion.
///
/// For an unreadable text Java itself silently uses 0 or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Read<T> {
    /// The text is valid for the type.
    Value(T),
    /// The text is not valid; an empty or blank text never is.
    Unreadable,
}

impl<T> Read<T> {
    /// The value, if the text was readable.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unreadable => None,
        }
    }

    /// The value that Java uses: zero or `false` for an unreadable text.
    pub fn or_java(self) -> T
    where
        T: Default,
    {
        self.value().unwrap_or_default()
    }

    /// Whether Java would replace the text by zero or `false`.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable)
    }
}

impl<T> From<Option<T>> for Read<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unreadable, Self::Value)
    }
}

/// A `boolean` or `Boolean` of a bean: [`TRUE_WORDS`] and [`FALSE_WORDS`], ignoring case, **not** trimmed.
pub fn boolean(text: &str) -> Read<bool> {
    let is_one_of = |words: [&str; 5]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_one_of(TRUE_WORDS) {
        Read::Value(true)
    } else if is_one_of(FALSE_WORDS) {
        Read::Value(false)
    } else {
        Read::Unreadable
    }
}

/// `String.trim`: removes all characters up to U+0020 at both ends, and no others (a no-break space stays).
fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_words_in_any_case_and_not_trimmed() {
        for text in ["true", "TRUE", "Yes", "y", "ON", "1"] {
            assert_eq!(boolean(text), Read::Value(true), "{text}");
        }
        for text in ["false", "No", "N", "oFF", "0"] {
            assert_eq!(boolean(text), Read::Value(false), "{text}");
        }
        for text in ["", "T", "maybe", "true ", " 1", "01", "enabled"] {
            assert_eq!(boolean(text), Read::Unreadable, "{text:?}");
        }
    }

    #[test]
    fn unreadable_is_distinct_from_the_zero_of_java() {
        assert_eq!(Read::Value(0).value(), Some(0));
        assert_eq!(Read::<i32>::Unreadable.value(), None);
        assert_eq!(Read::<i32>::Unreadable.or_java(), 0);
        assert!(!Read::<bool>::Unreadable.or_java());
        assert!(boolean("T").is_unreadable());
    }
}
