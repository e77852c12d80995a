//! The records of a shard that are in this process and not yet checkpointed: when the oldest of them arrived in Kinesis.
//!
//! Kept by batches, not by records, and at most 32 of them: where more are pending, neighbours are merged. So
//! the answer is exact for the first record after a checkpointed batch, and may be too old, but never too young, by
//! the span of the batch, or of the merged ones, within which a checkpoint lies.
//!
//! A batch is noted when Kinesis returns it. That covers the records that wait in memory, those that were delivered,
//! and those that a failed child leaves to its successor. Kinesis returns the latter again, which adds nothing.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::sequence::Position;

/// Most batches that are kept.
const BATCHES: usize = 32;

/// Consecutive records. Times are in milliseconds since 1970; none where Kinesis reports none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Batch {
    /// No record of the batch arrived before.
    first_arrival: Option<i64>,
    /// The position of the last record.
    last: Position,
    /// The arrival time of the last record.
    last_arrival: Option<i64>,
}

/// The pending records of a shard, in batches with ascending positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    batches: VecDeque<Batch>,
    /// The arrival time of the last record before the checkpoint.
    checkpointed: Option<i64>,
}

/// The arrival time of the oldest pending record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oldest {
    /// All records in this process are checkpointed.
    Nothing,
    /// Milliseconds since 1970; none if Kinesis did not report it.
    Arrived(Option<i64>),
}

impl Pending {
    /// Notes records up to `last`, of which the first arrived at `first_arrival`. They follow `checkpoint`, the stored
    /// one, unless they were read again.
    pub fn note(
        &mut self,
        first_arrival: Option<i64>,
        last: &Position,
        last_arrival: Option<i64>,
        checkpoint: Option<&Position>,
    ) {
        if checkpoint.is_some_and(|stored| last.order(stored) != Ordering::Greater) {
            return;
        }
        let index = self.batches.partition_point(|batch| batch.last.order(last) == Ordering::Less);
        let first_arrival = match self.batches.get(index) {
            Some(batch) if batch.last.order(last) == Ordering::Equal => return,
            // A part of a known batch, which it divides.
            Some(batch) => batch.first_arrival,
            None => first_arrival,
        };
        self.batches.insert(index, Batch { first_arrival, last: last.clone(), last_arrival });
        if self.batches.len() > BATCHES {
            self.merge();
        }
    }

    /// Merges the two neighbours that together span the least time.
    fn merge(&mut self) {
        let span = |index: &usize| {
            let (one, next) = (self.batches.get(*index)?, self.batches.get(*index + 1)?);
            Some(next.last_arrival?.saturating_sub(one.first_arrival?))
        };
        let Some(index) = (0..self.batches.len().saturating_sub(1)).min_by_key(span) else { return };
        if let Some(one) = self.batches.remove(index)
            && let Some(next) = self.batches.get_mut(index)
        {
            next.first_arrival = one.first_arrival;
        }
    }

    /// A checkpoint was stored.
    pub fn checkpointed(&mut self, position: &Position) {
        let is_covered = |batch: &mut Batch| batch.last.order(position) != Ordering::Greater;
        while let Some(batch) = self.batches.pop_front_if(is_covered) {
            self.checkpointed = batch.last_arrival.or(self.checkpointed);
        }
        if self.batches.is_empty() {
            // A shard that once had many batches pending does not keep their memory.
            self.batches.shrink_to(4);
        }
    }

    /// The arrival time of the last record of the last batch that was checkpointed as a whole.
    pub fn checkpointed_arrival(&self) -> Option<i64> {
        self.checkpointed
    }

    /// The oldest record that is not checkpointed.
    pub fn oldest(&self) -> Oldest {
        match self.batches.front() {
            None => Oldest::Nothing,
            // Records arrive in the order of their positions: none that follows the checkpoint is older than its record.
            Some(batch) => Oldest::Arrived(
                batch
                    .first_arrival
                    .map(|first| self.checkpointed.map_or(first, |checkpointed| first.max(checkpointed))),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sequence::SequenceNumber;

    fn at(number: u32) -> Position {
        Position::record(SequenceNumber::parse(&number.to_string()).unwrap(), 0)
    }

    /// Notes the records `first..=last`, each of which arrived at 1,000 times its number.
    fn note(pending: &mut Pending, first: u32, last: u32, checkpoint: &Position) {
        let arrival = |number: u32| Some(i64::from(number) * 1_000);
        pending.note(arrival(first), &at(last), arrival(last), Some(checkpoint));
    }

    #[test]
    fn oldest_pending_record_is_the_first_after_the_checkpoint() {
        let (mut pending, start) = (Pending::default(), at(0));
        assert_eq!(pending.oldest(), Oldest::Nothing);
        note(&mut pending, 1, 10, &start);
        note(&mut pending, 11, 20, &start);
        assert_eq!(pending.oldest(), Oldest::Arrived(Some(1_000)));
        pending.checkpointed(&at(10));
        assert_eq!(pending.oldest(), Oldest::Arrived(Some(11_000)));
        pending.checkpointed(&at(15));
        assert_eq!(pending.oldest(), Oldest::Arrived(Some(11_000)), "known by batches");
        pending.checkpointed(&at(20));
        assert_eq!((pending.oldest(), pending.checkpointed_arrival()), (Oldest::Nothing, Some(20_000)));
    }

    #[test]
    fn delivered_part_of_a_batch_divides_it() {
        let (mut pending, start) = (Pending::default(), at(0));
        note(&mut pending, 1, 100, &start);
        pending.note(None, &at(40), Some(40_000), Some(&start));
        pending.checkpointed(&at(40));
        assert_eq!(pending.oldest(), Oldest::Arrived(Some(40_000)));
        assert_eq!(pending.checkpointed_arrival(), Some(40_000));
    }

    #[test]
    fn records_read_again_after_a_failure_keep_their_age() {
        let (mut pending, start) = (Pending::default(), at(0));
        for _ in 0..100 {
            note(&mut pending, 1, 10, &start);
            note(&mut pending, 11, 30, &start);
            note(&mut pending, 1, 5, &start);
        }
        assert_eq!(pending.oldest(), Oldest::Arrived(Some(1_000)));
        assert_eq!(pending.batches.len(), 3);
        pending.checkpointed(&at(30));
        note(&mut pending, 11, 30, &at(30));
        assert_eq!(pending.oldest(), Oldest::Nothing, "they are checkpointed by now");
    }

    #[test]
    fn batch_without_arrival_times_is_pending_at_an_unknown_age() {
        let mut pending = Pending::default();
        pending.note(None, &at(10), None, None);
        assert_eq!(pending.oldest(), Oldest::Arrived(None));
        pending.checkpointed(&Position::shard_end());
        assert_eq!((pending.oldest(), pending.checkpointed_arrival()), (Oldest::Nothing, None));
    }

    proptest! {
        /// Never too young, and too old by the span of a batch at most.
        #[test]
        fn age_of_the_oldest_record_is_never_too_low(
            steps in prop::collection::vec((1_u32..40, prop::option::of(0_u32..400)), 1..120),
        ) {
            let (mut pending, mut read, mut stored) = (Pending::default(), 0, 0);
            for (records, behind) in steps {
                note(&mut pending, read + 1, read + records, &at(stored));
                read += records;
                if let Some(behind) = behind
                    && read.saturating_sub(behind) > stored
                {
                    stored = read - behind;
                    pending.checkpointed(&at(stored));
                }
                prop_assert!(pending.batches.len() <= BATCHES);
                let exact = (stored < read).then(|| i64::from(stored + 1) * 1_000);
                match (pending.oldest(), exact) {
                    (Oldest::Nothing, None) => {}
                    (Oldest::Arrived(Some(oldest)), Some(exact)) => {
                        prop_assert!(oldest <= exact, "{oldest} > {exact}");
                        // Of 33 batches the two neighbours that are merged span a sixteenth of all at most.
                        let widest = 40_000.max(i64::from(read) * 1_000 / 16 + 1_000);
                        prop_assert!(exact - oldest <= widest, "{oldest} < {exact}");
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
