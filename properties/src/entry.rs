//! One pair of a file, with its positions.

use crate::syntax::Position;

/// One pair of the file.
///
/// Two entries have the same key if Java holds the same UTF-16 units for both. That is stricter than equality
/// of [`key`](Self::key), in which every lone surrogate is U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) key_units: Vec<u16>,
    pub(crate) key_at: Position,
    pub(crate) value_at: Position,
    pub(crate) raw: String,
    pub(crate) superseded_by: Option<usize>,
}

impl Entry {
    /// The key with escapes resolved; may be empty. A lone surrogate is U+FFFD.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value with escapes resolved and trailing blanks kept; empty if the pair has no value. A lone
    /// surrogate is U+FFFD.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The natural line on which the key begins, counted from 1.
    pub fn line(&self) -> usize {
        self.key_at.line
    }

    /// The position of the key, or of the line's text if the key is empty.
    pub fn key_at(&self) -> Position {
        self.key_at
    }

    /// The position of the value, on a later line if the pair is continued; the position after the pair's last
    /// byte if there is no value.
    pub fn value_at(&self) -> Position {
        self.value_at
    }

    /// The pair as written, from the key's first byte to the last byte before the line end, with escapes,
    /// continuations (their line ends included) and trailing blanks. Each byte is one character (ISO-8859-1).
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// If the key occurs again later: the index, in [`File::entries`](crate::File::entries), of its last entry, which is the one that
    /// Java keeps.
    pub fn superseded_by(&self) -> Option<usize> {
        self.superseded_by
    }
}
