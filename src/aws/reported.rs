//! Limits log lines about unreadable rows of the lease table: one per row, and another only if the reason
//! changes.

use std::collections::{BTreeMap, BTreeSet};

/// Most rows, and kinds of rows, that are remembered. Further ones are not logged.
const REMEMBERED: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Reported {
    /// The logged reason of each row, by its key.
    rows: BTreeMap<String, String>,
    kinds: BTreeSet<String>,
}

impl Reported {
    /// Whether to log the row now.
    pub(super) fn row(&mut self, key: &str, reason: String) -> bool {
        let is_full = self.rows.len() >= REMEMBERED;
        match self.rows.get_mut(key) {
            Some(before) if *before == reason => false,
            Some(before) => {
                *before = reason;
                true
            }
            None if is_full => false,
            None => {
                self.rows.insert(key.to_owned(), reason);
                true
            }
        }
    }

    /// The keys of the rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }

    /// Notes that the row is readable: a later fault of it is logged again.
    pub(super) fn is_readable(&mut self, key: &str) {
        if !self.rows.is_empty() {
            self.rows.remove(key);
        }
    }

    /// Whether to log rows of that `entityType` now.
    pub(super) fn kind(&mut self, kind: &str) -> bool {
        self.kinds.len() < REMEMBERED && self.kinds.insert(kind.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_is_logged_once_per_reason() {
        let mut reported = Reported::default();
        let mut row = |reason: &str| reported.row("s", reason.to_owned());
        assert_eq!([row("a"), row("a"), row("b"), row("b"), row("a")], [true, false, true, false, true]);
        reported.is_readable("s");
        assert!(reported.row("s", "a".to_owned()));
        assert!(reported.row("t", "a".to_owned()), "each row by itself");
    }

    #[test]
    fn number_of_remembered_rows_and_kinds_is_bounded() {
        let mut reported = Reported::default();
        for scan in 0..3 {
            let rows = (0..REMEMBERED + 9).filter(|n| reported.row(&n.to_string(), "a".to_owned())).count();
            let kinds = (0..REMEMBERED + 9).filter(|n| reported.kind(&n.to_string())).count();
            assert_eq!((rows, kinds), if scan == 0 { (REMEMBERED, REMEMBERED) } else { (0, 0) });
        }
    }
}
