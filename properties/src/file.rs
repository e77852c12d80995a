//! A parsed `.properties` file: its pairs, their positions, which of them take effect, and the order in which
//! Java would iterate over them.
//!
//! Java: `java.util.Properties`. Tests: below, and `tests/java.rs`, which compares with stored output of Java.

use std::collections::BTreeMap;
use std::fmt;

use crate::entry::Entry;
use crate::notice::{self, Notice};
use crate::syntax::{self, BadEscape};
use crate::table;

/// A `.properties` file as `java.util.Properties.load(InputStream)` reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// All pairs, in file order.
    entries: Vec<Entry>,
    /// Index of the last entry of each key, by the key's UTF-16 units.
    last: BTreeMap<Vec<u16>, usize>,
    notices: Vec<Notice>,
}

impl File {
    /// Parses a whole file. Any bytes are valid, except malformed `\u` escapes.
    ///
    /// # Errors
    /// [`Malformed`], with all malformed `\u` escapes of the file. Java throws an `IllegalArgumentException` at
    /// the first one.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut file = Self::default();
        let mut escapes = Vec::new();
        for (index, mut pair) in syntax::pairs(bytes).into_iter().enumerate() {
            escapes.append(&mut pair.bad);
            file.notices.extend(notice::of_pair(&pair));
            file.last.insert(pair.key.units.clone(), index);
            file.entries.push(Entry {
                key: pair.key.string,
                value: pair.value.string,
                key_units: pair.key.units,
                key_at: pair.key_at,
                value_at: pair.value_at,
                raw: pair.raw,
                superseded_by: None,
            });
        }
        file.mark_superseded();
        if escapes.is_empty() { Ok(file) } else { Err(Malformed { escapes, rest: file }) }
    }

    fn mark_superseded(&mut self) {
        let mut winners = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            entry.superseded_by = self.last.get(&entry.key_units).copied().filter(|last| *last != index);
            winners.extend(entry.superseded_by.map(|last| (index, last)));
        }
        let pairs = winners
            .into_iter()
            .filter_map(|(old, kept)| Some((self.entries.get(old)?, self.entries.get(kept)?)));
        self.notices.extend(pairs.map(|(old, kept)| notice::duplicate(old, kept)));
        self.notices.sort_by_key(|notice| notice.at);
    }

    /// All pairs in file order, including superseded ones.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The pairs that Java keeps, one per key, in file order (by the last occurrence of each key).
    pub fn effective(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.superseded_by.is_none())
    }

    /// The pair that Java keeps for a key: the last one. Keys are compared exactly, and the comparison is
    /// case-sensitive.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let units: Vec<u16> = key.encode_utf16().collect();
        self.last.get(&units).and_then(|index| self.entries.get(*index))
    }

    /// The pairs that Java keeps, in the iteration order of `Properties.entrySet()` in JDK 9 and later.
    ///
    /// The order depends on all keys of the file, and within a hash bin on the first occurrence of each key.
    pub fn in_java_order(&self) -> Vec<&Entry> {
        let puts = self.entries.iter().enumerate().map(|(index, entry)| {
            (table::hash(entry.key_units.iter().copied()), entry.superseded_by.unwrap_or(index))
        });
        table::order(puts).into_iter().filter_map(|index| self.entries.get(index)).collect()
    }

    /// Each superseded pair with the pair that takes effect, in file order of the superseded ones.
    pub fn duplicates(&self) -> impl Iterator<Item = (&Entry, &Entry)> {
        self.entries.iter().filter_map(|entry| Some((entry, self.entries.get(entry.superseded_by?)?)))
    }

    /// Likely mistakes that Java accepts, in order of position.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }
}

/// A file that Java rejects: at least one `\u` is not followed by four hexadecimal digits.
///
/// Java: `IllegalArgumentException: Malformed \uxxxx encoding.`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// All malformed escapes in file order; never empty.
    pub escapes: Vec<BadEscape>,
    /// The file as if each malformed `\u` were U+FFFD, so that other errors can be reported at the same time.
    pub rest: File,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, escape) in self.escapes.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{escape}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<&'a str> {
        entries.into_iter().map(Entry::value).collect()
    }

    #[test]
    fn last_pair_of_a_key_counts_others_are_kept() -> Result<(), Malformed> {
        let file = File::read(b"a=1\nb=2\na=3\nc=4\na=5")?;
        assert_eq!(values(file.entries()), ["1", "2", "3", "4", "5"]);
        assert_eq!(values(file.effective()), ["2", "4", "5"]);
        assert_eq!(file.get("a").map(Entry::value), Some("5"));
        assert_eq!(file.get("A"), None);
        let duplicates: Vec<_> = file.duplicates().map(|(old, kept)| (old.line(), kept.line())).collect();
        assert_eq!(duplicates, [(1, 5), (3, 5)]);
        assert_eq!(
            file.entries().iter().map(Entry::superseded_by).collect::<Vec<_>>(),
            [Some(4), None, Some(4), None, None]
        );
        Ok(())
    }

    #[test]
    fn java_order_within_a_bin_follows_first_occurrences() -> Result<(), Malformed> {
        // `Aa` and `BB` have the same hash.
        assert_eq!(values(File::read(b"Aa=1\nBB=2\nAa=3")?.in_java_order()), ["3", "2"]);
        assert_eq!(values(File::read(b"BB=2\nAa=3")?.in_java_order()), ["2", "3"]);
        Ok(())
    }

    #[test]
    fn keys_with_different_lone_surrogates_are_different() -> Result<(), Malformed> {
        let file = File::read(b"\\ud800=1\n\\ud801=2\n\\ufffd=3")?;
        assert_eq!(file.effective().count(), 3);
        assert_eq!(file.get("\u{fffd}").map(Entry::value), Some("3"));
        Ok(())
    }

    #[test]
    fn raw_text_keeps_escapes_continuations_and_trailing_blanks() -> Result<(), Malformed> {
        let file = File::read(b"  a\\u0041 = 1 \\\r\n  2 \nb\xe9")?;
        assert_eq!(
            file.entries().iter().map(Entry::raw).collect::<Vec<_>>(),
            ["a\\u0041 = 1 \\\r\n  2 ", "b\u{e9}"]
        );
        Ok(())
    }

    #[test]
    fn malformed_file_reports_every_escape_and_its_pairs() {
        let refused = File::read(b"a = C:\\users\nb = 2\nc = \\u12").err();
        let message = refused.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(message.lines().count(), 2, "{message}");
        assert!(message.starts_with("line 1, column 7: `\\users` is a malformed"), "{message}");
        assert!(message.contains("line 3, column 5"), "{message}");
        assert_eq!(
            refused.map(|r| values(r.rest.entries()).join("|")),
            Some("C:\u{fffd}sers|2|\u{fffd}12".to_owned())
        );
    }
}
