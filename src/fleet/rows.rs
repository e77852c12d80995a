//! The rows that a fleet of KCL 3 keeps beside its leases.
//!
//! Until KCL 3.4 in two tables of their own ([`StateLocation::Legacy`]), since 3.5 in the lease table
//! ([`StateLocation::Leases`]). In KCL: `CoordinatorState` and what extends it, `WorkerMetricStats`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lease::WorkerId;

/// Where a row is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateLocation {
    /// `…-CoordinatorState` and `…-WorkerMetricStats`.
    Legacy,
    /// The lease table.
    Leases,
}

/// The leader's lock. In KCL: the row `Leader` of the DynamoDB lock client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lock {
    /// `ownerName`.
    pub owner: WorkerId,
    /// `leaseDuration`, of the owner's choosing: milliseconds, as text.
    pub lease: Duration,
    /// `recordVersionNumber`: new with every heartbeat. Empty in a broken row, which nobody can hold.
    pub version: String,
    /// `isReleased` is there.
    pub released: bool,
}

impl Lock {
    /// Whether the row lacks the version by which its holder proves that it is its own.
    pub fn is_broken(&self) -> bool {
        self.version.is_empty()
    }
}

/// A word of a state machine that all workers share.
pub trait Word: Copy + PartialEq + Sized + 'static {
    /// Every word, as it is stored.
    const WORDS: &'static [(Self, &'static str)];

    /// As it is stored.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(one, _)| *one == self).map_or("", |(_, word)| word)
    }

    /// From what is stored.
    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, one)| *one == word).map(|(one, _)| *one)
    }
}

/// `cv` of the row `Migration3.0`. In KCL: `ClientVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// Never the state, but the first entry of each history.
    Init,
    /// Rolled back.
    TwoX,
    /// On the way.
    Upgrade,
    /// Led, with a way back.
    Revocable,
    /// Led for good.
    ThreeX,
}

impl Word for Generation {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Init, "CLIENT_VERSION_INIT"),
        (Self::TwoX, "CLIENT_VERSION_2X"),
        (Self::Upgrade, "CLIENT_VERSION_UPGRADE_FROM_2X"),
        (Self::Revocable, "CLIENT_VERSION_3X_WITH_ROLLBACK"),
        (Self::ThreeX, "CLIENT_VERSION_3X"),
    ];
}

/// `tm` of the row `TableMigration3.5`. In KCL: `TableMigrationStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Every worker could; nobody does.
    Init,
    /// Every worker may migrate.
    Deployed,
    /// The rows have moved, but for the lock.
    Pending,
    /// All is in the lease table.
    Complete,
}

impl Word for Stage {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Init, "TABLE_MIGRATION_STATUS_INIT"),
        (Self::Deployed, "TABLE_MIGRATION_STATUS_DEPLOYED"),
        (Self::Pending, "TABLE_MIGRATION_STATUS_PENDING"),
        (Self::Complete, "TABLE_MIGRATION_STATUS_COMPLETE"),
    ];
}

/// A state, and who set it when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry<T> {
    /// The state.
    pub state: T,
    /// `mb`.
    pub by: String,
    /// `mts`: wall clock, milliseconds since 1970.
    pub at: i64,
}

/// A shared state with its past.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dated<T> {
    /// The present entry.
    pub now: Entry<T>,
    /// `h`: the earlier states, newest first.
    pub past: Vec<Entry<T>>,
}

/// Java keeps as many.
const PAST: usize = 10;

impl<T: Word> Dated<T> {
    /// A state that is stored for the first time. As in Java it has a past: `before`.
    pub fn first(state: T, before: T, by: &WorkerId, at: i64) -> Self {
        let entry = |state| Entry { state, by: by.to_string(), at };
        Self { now: entry(state), past: vec![entry(before)] }
    }

    /// The state that follows.
    #[must_use]
    pub fn next(&self, state: T, by: &WorkerId, at: i64) -> Self {
        let mut past = vec![self.now.clone()];
        past.extend(self.past.iter().cloned());
        past.truncate(PAST);
        Self { now: Entry { state, by: by.to_string(), at }, past }
    }
}

/// The worker metrics of one worker. In KCL: `WorkerMetricStats`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// `wid`, or the key.
    pub worker: String,
    /// `lut`: when it was written, by the writer's wall clock, in seconds since 1970.
    pub at: Option<i64>,
    /// `sts`: the last averages of each metric, oldest first; -1 where there was no sample.
    pub samples: Option<BTreeMap<String, Vec<f64>>>,
    /// `opr`: the most that each metric should be, first.
    pub limits: Option<BTreeMap<String, Vec<f64>>>,
    /// `sup`: 1 for a worker that can do with one table.
    pub support: Option<i64>,
    /// `slu`: when `sup` was written, in seconds since 1970.
    pub support_at: Option<i64>,
    /// `multilangdMaxLeases`: the most leases that the limits of the worker's process allow, where there are any. KCL
    /// has no such attribute and ignores it.
    pub most: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parsed_as_written() {
        for (state, word) in Generation::WORDS {
            assert_eq!((Generation::parse(word), state.word()), (Some(*state), *word));
        }
        assert_eq!(Stage::parse("TABLE_MIGRATION_STATUS_UNKNOWN"), None);
    }

    #[test]
    fn history_starts_with_init_and_keeps_ten() {
        let me = WorkerId::from("me");
        let mut row = Dated::first(Generation::Upgrade, Generation::Init, &me, 1);
        assert_eq!(row.past, [Entry { state: Generation::Init, by: "me".into(), at: 1 }]);
        for at in 2..30 {
            row = row.next(Generation::TwoX, &me, at);
        }
        assert_eq!((row.now.at, row.past.len(), row.past[0].at), (29, 10, 28));
    }
}
