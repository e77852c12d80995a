//! Attempts to start, of which only those without progress are limited.

/// How far the attempts to start have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Which part of the start failed last: the table, the part in the fleet, the leases.
    pub(super) stage: u8,
    /// Lease rows that this worker has made since the process started.
    pub(super) rows: usize,
}

/// Counts failed attempts since the last progress.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    furthest: Progress,
}

impl Attempts {
    /// An attempt that came this far has failed. Returns the number of attempts without progress, this one included
    /// unless it made progress itself.
    ///
    /// A part of the start counts as progress when it is reached for the first time only: a table that becomes
    /// unusable again and again does not extend the limit.
    pub(super) fn failed(&mut self, progress: Progress) -> u32 {
        let moved = progress.stage > self.furthest.stage || progress.rows > self.furthest.rows;
        let stage = progress.stage.max(self.furthest.stage);
        self.furthest = Progress { stage, rows: progress.rows.max(self.furthest.rows) };
        self.failed = if moved { 0 } else { self.failed + 1 };
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stage: u8, rows: usize) -> Progress {
        Progress { stage, rows }
    }

    #[test]
    fn attempts_that_make_rows_do_not_count() {
        let mut attempts = Attempts::default();
        let counted: Vec<u32> = (1..=60).map(|rows| attempts.failed(at(2, rows))).collect();
        assert_eq!(counted, vec![0; 60]);
    }

    #[test]
    fn attempts_without_progress_count_until_rows_are_made() {
        let mut attempts = Attempts::default();
        assert_eq!([0, 0, 0].map(|rows| attempts.failed(at(0, rows))), [1, 2, 3]);
        assert_eq!([4, 4, 5, 5].map(|rows| attempts.failed(at(2, rows))), [0, 1, 0, 1]);
    }

    #[test]
    fn stage_that_was_reached_before_is_no_progress() {
        let mut attempts = Attempts::default();
        assert_eq!([1, 0, 1, 0, 1].map(|stage| attempts.failed(at(stage, 0))), [0, 1, 2, 3, 4]);
    }
}
