//! Finds the record at which a child fails: halves the failed batch until one record fails alone.
//!
//! Positions in the shard, in order: the stored checkpoint `S`, the greatest position that was answered well
//! `G`, and the smallest position whose action failed `B`. The record that fails is in `(G, B]`. A restarted
//! child gets `S…G` again as before, then half of `(G, B]`: success moves `G`, failure moves `B`. Nothing
//! beyond `B` is delivered meanwhile. So n suspects need at most ⌈log2 n⌉ failures until one of them has
//! failed alone.
//!
//! Nothing here skips a record: only a checkpoint or a dead letter does.

use std::cmp::Ordering;

use crate::batch::Records;
use crate::letters::Limits;
use crate::record::Record;
use crate::sequence::Position;

/// Most dead letters that may wait for the child's next checkpoint. A child that never checkpoints would
/// collect them without end.
pub const MAX_UNSTORED: usize = 1_000;

/// The meaning of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No record can be blamed: the failure counts as one of the child.
    OfTheChild,
    /// One of this many records failed.
    Several(usize),
    /// One record failed alone, for this many times in a row.
    Alone(u32),
    /// This record failed alone too often. Everything up to the position was processed before it.
    Poison(Box<Record>, Position),
    /// As [`Finding::Poison`], but too many dead letters in a row were written already.
    Outage,
}

/// The records of the open action.
#[derive(Debug, Clone)]
struct Open {
    count: usize,
    last: Position,
    /// The record, if there is one only.
    single: Option<Record>,
    is_ascending: bool,
}

/// The search in one shard.
#[derive(Debug, Clone)]
pub struct Suspects {
    limits: Limits,
    good: Option<Position>,
    bad: Option<Position>,
    /// How often the record at `bad` has failed alone.
    alone: u32,
    /// Dead letters since a record was last processed.
    in_a_row: u32,
    open: Option<Open>,
}

impl Suspects {
    /// No suspects.
    pub fn new(limits: Limits) -> Self {
        Self { limits, good: None, bad: None, alone: 0, in_a_row: 0, open: None }
    }

    /// Whether a record is being searched.
    pub fn is_searching(&self) -> bool {
        self.bad.is_some()
    }

    /// The greatest position that was answered well or stored.
    fn settled<'a>(&'a self, stored: &'a Position) -> &'a Position {
        self.good.as_ref().filter(|good| good.order(stored) == Ordering::Greater).unwrap_or(stored)
    }

    /// The records to deliver in one action, and the rest.
    pub fn portion(&mut self, records: Records, stored: &Position) -> (Records, Records) {
        // An empty batch says nothing about the suspects.
        let Some(bad) = self.bad.as_ref().filter(|_| !records.is_empty()) else {
            return (records, Records::default());
        };
        let all = records.decode();
        let up_to = |position: &Position| {
            all.iter().take_while(|record| record.order(position) != Ordering::Greater).count()
        };
        let (good, suspects) = (up_to(self.settled(stored)), up_to(bad));
        if good > 0 {
            return Records::Decoded(all).split(good);
        }
        if suspects == 0 {
            // The suspects are stored, or no longer in the stream.
            self.clear();
            return (Records::Decoded(all), Records::default());
        }
        Records::Decoded(all).split(suspects.div_ceil(2))
    }

    /// The records are about to be delivered.
    pub fn delivered(&mut self, records: &Records) {
        self.open = records.greatest().map(|last| {
            let count = records.len();
            let single = (count == 1).then(|| records.clone().decode().pop()).flatten();
            Open { count, last, single, is_ascending: records.is_ascending() }
        });
    }

    /// The open action ended well.
    pub fn succeeded(&mut self) {
        let Some(Open { last, .. }) = self.open.take() else { return };
        if self.good.as_ref().is_none_or(|good| last.order(good) == Ordering::Greater) {
            self.good = Some(last);
            self.in_a_row = 0;
        }
        let passed = |bad: &Position| self.good.as_ref().is_some_and(|good| bad.order(good).is_le());
        if self.bad.as_ref().is_some_and(passed) {
            self.clear();
        }
    }

    /// The child checkpointed records that have no letter: so it processed them, although the action may fail
    /// at a later one.
    pub fn checkpointed(&mut self) {
        self.in_a_row = 0;
    }

    /// The child failed, for a reason other than a stop. `stored` is the stored checkpoint.
    pub fn failed(&mut self, stored: &Position) -> Finding {
        let Some(open) = self.open.take().filter(|open| open.is_ascending) else {
            return Finding::OfTheChild;
        };
        if open.last.order(stored).is_le() {
            // The child has checkpointed all of it.
            if self.bad.as_ref().is_some_and(|bad| bad.order(stored).is_le()) {
                self.clear();
            }
            return Finding::OfTheChild;
        }
        if open.last.order(self.settled(stored)).is_le() {
            // Records fail that were answered well before: the failure does not depend on a record.
            (self.good, self.open) = (None, None);
            self.clear();
            return Finding::OfTheChild;
        }
        if self.bad.as_ref() != Some(&open.last) {
            self.alone = 0;
        }
        self.bad = Some(open.last);
        let Some(record) = open.single else {
            self.alone = 0;
            return Finding::Several(open.count);
        };
        self.alone = self.alone.saturating_add(1);
        if self.alone < self.limits.record_failures {
            Finding::Alone(self.alone)
        } else if self.in_a_row >= self.limits.in_a_row {
            Finding::Outage
        } else {
            Finding::Poison(Box::new(record.detached()), self.settled(stored).clone())
        }
    }

    /// The child ends, whatever the cause: it cannot answer the open action any more.
    pub fn ended(&mut self) {
        self.open = None;
    }

    /// How often the last record has failed alone.
    pub fn alone(&self) -> u32 {
        self.alone
    }

    /// The record at `position` was written to the dead letters.
    pub fn lettered(&mut self, position: Position) {
        self.good = Some(position);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.clear();
    }

    fn clear(&mut self) {
        (self.bad, self.alone) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(numbers: std::ops::RangeInclusive<usize>) -> Records {
        numbers.map(|number| Record::plain(number, "k", b"")).collect()
    }

    fn at(number: usize) -> Position {
        Record::plain(number, "", b"").position()
    }

    fn suspects() -> Suspects {
        Suspects::new(Limits { record_failures: 3, in_a_row: 2 })
    }

    /// Delivers records of which one fails, to new children from the same checkpoint, until it is found; returns
    /// the number of failures.
    fn failures_until_found(count: usize, poison: usize) -> u32 {
        let (mut search, stored) = (suspects(), at(0));
        let mut failures = 0;
        loop {
            let mut left = records(1..=count);
            let finding = loop {
                let (now, rest) = search.portion(left, &stored);
                left = rest;
                search.delivered(&now);
                if now.decode().iter().any(|record| record.position() == at(poison)) {
                    break search.failed(&stored);
                }
                search.succeeded();
            };
            failures += 1;
            if let Finding::Poison(record, before) = finding {
                assert_eq!((record.position(), before), (at(poison), at(poison - 1)));
                return failures;
            }
        }
    }

    #[test]
    fn poison_is_found_after_log2_failures() {
        for count in [1usize, 2, 3, 4, 7, 25, 100, 300] {
            let most = count.next_power_of_two().ilog2() + 3;
            let largest = (1..=count).map(|poison| failures_until_found(count, poison)).max();
            assert!(largest.is_some_and(|largest| largest <= most), "{largest:?} of {count}");
        }
        assert!(failures_until_found(10_000, 7_777) <= 14 + 3);
    }

    #[test]
    fn failure_of_processed_records_blames_the_child() {
        let (mut search, stored) = (suspects(), at(0));
        search.delivered(&records(1..=4));
        search.succeeded();
        search.delivered(&records(5..=8));
        assert_eq!(search.failed(&stored), Finding::Several(4));
        assert_eq!(search.failed(&stored), Finding::OfTheChild, "no action was open");
        let (again, rest) = search.portion(records(1..=8), &stored);
        assert_eq!((again.len(), rest.len()), (4, 4), "as before");
        search.delivered(&again);
        assert_eq!(search.failed(&stored), Finding::OfTheChild);
        assert!(!search.is_searching());
        search.delivered(&records(1..=2));
        assert_eq!(search.failed(&at(2)), Finding::OfTheChild, "the child had checkpointed both");
    }

    #[test]
    fn outage_writes_no_more_letters_until_a_record_is_processed() {
        let (mut search, stored) = (suspects(), at(0));
        let fail = |search: &mut Suspects, number: usize| {
            (0..3)
                .map(|_| {
                    search.delivered(&records(number..=number));
                    search.failed(&stored)
                })
                .last()
        };
        for number in [1, 2] {
            assert!(matches!(fail(&mut search, number), Some(Finding::Poison(..))));
            search.lettered(at(number));
        }
        assert_eq!(fail(&mut search, 3), Some(Finding::Outage));
        search.delivered(&records(3..=3));
        search.succeeded();
        assert!(!search.is_searching());
        assert!(matches!(fail(&mut search, 4), Some(Finding::Poison(..))));
    }

    #[test]
    fn records_out_of_order_are_not_searched() {
        let mut search = suspects();
        search.delivered(&vec![Record::plain(2, "", b""), Record::plain(1, "", b"")].into());
        assert_eq!(search.failed(&at(0)), Finding::OfTheChild);
    }

    #[test]
    fn suspects_that_left_the_stream_end_the_search() {
        let mut search = suspects();
        search.delivered(&records(1..=4));
        search.failed(&at(0));
        assert!(search.portion(Records::default(), &at(0)).0.is_empty() && search.is_searching());
        assert_eq!(search.portion(records(9..=12), &at(0)).0.len(), 4);
        assert!(!search.is_searching());
    }
}
