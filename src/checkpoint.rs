//! Decides which checkpoints of a child are valid, and what is then stored.
//!
//! The decision is pure; the write goes through [`crate::lease::Held`], which proves that this worker owns
//! the lease. In KCL: `ShardRecordProcessorCheckpointer`. Different on purpose: at the end of a shard the
//! stored position is compared with the position that would be *written*, so that a child that checkpoints
//! its last record twice still ends the shard (kcl#211); and `LATEST`, `TRIM_HORIZON` and `AT_TIMESTAMP` are
//! accepted only while they are the stored position, because a restart from `LATEST` skips undelivered
//! records.

use std::cmp::Ordering;

use multilangd_protocol::{CheckpointFailure, CheckpointRequest};

use crate::batch::Records;
use crate::lease::held;
use crate::lease::table;
use crate::record::Record;
use crate::sequence::{Position, Sequence};

/// The positions that bound the checkpoints of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The stored checkpoint.
    last: Position,
    /// The position of the last record delivered to the child.
    permitted: Position,
    /// `permitted` before the present action was opened.
    before: Position,
    /// The last delivered position, once `shardEnded` was sent to the child.
    at_shard_end: Option<Position>,
    /// The position that was assumed to be stored, once a later one turned out to be stored.
    overtaken: Option<Position>,
    /// Records after the stored checkpoint that are not delivered again, because they have a durable copy
    /// elsewhere; in order.
    passed: Vec<Passed>,
}

/// Consecutive records that are not delivered again; most often one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Passed {
    first: Position,
    position: Position,
    /// The greatest position before it: once that is stored, the record's own position may be.
    before: Position,
}

/// The decision about a checkpoint request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Already stored: report success without a write.
    Stored,
    /// Write this position.
    Write(Position),
}

impl Progress {
    /// The progress of a child that starts at a stored checkpoint.
    pub fn new(stored: Position) -> Self {
        let (permitted, before) = (stored.clone(), stored.clone());
        Self { permitted, before, last: stored, at_shard_end: None, overtaken: None, passed: Vec::new() }
    }

    /// The progress of the next child, which starts at the stored checkpoint.
    pub fn restart(&mut self) {
        *self = Self { passed: std::mem::take(&mut self.passed), ..Self::new(self.last.clone()) };
    }

    /// The record at `position` was stored elsewhere and is not delivered again. Everything up to `before`
    /// was delivered before it.
    pub fn pass(&mut self, position: Position, before: Position) {
        if position.order(&self.last) == Ordering::Greater {
            self.insert(Passed { first: position.clone(), position, before });
        }
    }

    /// The record at `position` directly follows everything that was delivered or passed before it, and is not
    /// delivered. The child's next checkpoint passes it.
    pub fn pass_next(&mut self, position: Position) {
        let follows = |other: &Position| position.order(other) == Ordering::Greater;
        let earlier = self.passed.iter().map(|passed| &passed.position).filter(|other| follows(other));
        let mut before = if follows(&self.permitted) { &self.permitted } else { &self.last };
        for other in earlier.chain([&self.last]) {
            if other.order(before) == Ordering::Greater {
                before = other;
            }
        }
        let before = before.clone();
        if let Some(run) = self.passed.iter_mut().find(|passed| passed.position == before) {
            run.position = position;
            return;
        }
        self.pass(position, before);
    }

    /// Whether the record can be passed by [`Progress::pass_next`]: records that arrive out of order cannot.
    pub fn can_pass_next(&self, position: &Position) -> bool {
        position.order(&self.permitted) == Ordering::Greater
            && position.order(&self.last) == Ordering::Greater
    }

    /// In order of positions.
    fn insert(&mut self, run: Passed) {
        let precedes = |other: &Passed| other.position.order(&run.position) == Ordering::Less;
        let index = self.passed.partition_point(precedes);
        self.passed.insert(index, run);
    }

    /// Number of runs of consecutive records after the stored checkpoint that are not delivered again.
    pub fn passed(&self) -> usize {
        self.passed.len()
    }

    /// The records that are still to be delivered: they follow the stored checkpoint and were not passed.
    pub fn undelivered(&self, records: Records) -> Records {
        let records = records.behind(&self.last);
        if self.passed.is_empty() {
            return records;
        }
        let is_passed = |record: &Record| {
            self.passed.iter().any(|passed| {
                record.order(&passed.first) != Ordering::Less
                    && record.order(&passed.position) != Ordering::Greater
            })
        };
        records.decode().into_iter().filter(|record| !is_passed(record)).collect()
    }

    /// The position to store in place of `position`: that of the last record which directly follows it, or
    /// follows another one of these, and is not delivered again.
    pub fn beyond_passed(&self, position: &Position) -> Position {
        let mut reached = position.clone();
        for Passed { position, before, .. } in &self.passed {
            if before.order(&reached) != Ordering::Greater && position.order(&reached) == Ordering::Greater {
                reached.clone_from(position);
            }
        }
        reached
    }

    /// The stored checkpoint.
    pub fn last(&self) -> &Position {
        &self.last
    }

    /// Whether everything that was delivered is checkpointed.
    pub fn is_all_stored(&self) -> bool {
        self.permitted.order(&self.last) != Ordering::Greater
    }

    /// An action is opened: requests sent before it can only mean what was delivered so far.
    pub fn begin_delivery(&mut self) {
        self.before.clone_from(&self.permitted);
    }

    /// The records are about to be delivered to the child.
    pub fn deliver(&mut self, records: &Records) {
        if let Some(last) = records.greatest()
            && last.order(&self.permitted) == Ordering::Greater
        {
            self.permitted = last;
        }
    }

    /// `shardEnded` is about to be sent to the child.
    pub fn end_of_shard(&mut self) {
        self.begin_delivery();
        self.at_shard_end.get_or_insert_with(|| self.permitted.clone());
        self.permitted = Position::shard_end();
    }

    /// A write succeeded.
    pub fn stored(&mut self, position: Position) {
        debug_assert!(position.order(&self.last) != Ordering::Less, "a checkpoint went back");
        // The child may request the position again for which a later one was stored.
        if position.order(&self.permitted) == Ordering::Greater {
            self.overtaken.get_or_insert_with(|| self.last.clone());
        }
        self.passed.retain(|passed| passed.position.order(&position) == Ordering::Greater);
        self.last = position;
    }

    /// A write of this lease that was assumed to have failed, because its answer was lost, had succeeded: the
    /// checkpoint is `position`. The child may request positions in between.
    pub fn overtaken(&mut self, position: Position) {
        self.overtaken.get_or_insert_with(|| self.last.clone());
        self.stored(position);
    }

    /// Whether the position is a sentinel other than the stored one. Sentinels precede all sequence numbers,
    /// so the range check alone would accept them.
    fn moves_start(&self, asked: &Position) -> bool {
        let stored = self.overtaken.as_ref().unwrap_or(&self.last);
        let is_start =
            matches!(asked.sequence, Sequence::AtTimestamp | Sequence::TrimHorizon | Sequence::Latest);
        is_start && asked.sequence != stored.sequence
    }

    /// Decides about a request, in the order of Java's checks. An `early` request was sent before the present
    /// action was opened: it can reach neither the records of this action nor the end of the shard that it
    /// reports. Java treats it like any other request and so can skip records.
    ///
    /// # Errors
    /// The exception name for the answer to the child.
    pub fn judge(&self, request: &CheckpointRequest, early: bool) -> Result<Verdict, CheckpointFailure> {
        let bound = if early { &self.before } else { &self.permitted };
        let asked = match &request.sequence_number {
            None => bound.clone(),
            Some(text) => {
                let sub = u64::try_from(request.sub_sequence_number.unwrap_or(0));
                let sub = sub.map_err(|_| CheckpointFailure::IllegalArgument)?;
                let sequence = Sequence::parse(text).ok_or(CheckpointFailure::IllegalArgument)?;
                Position { sequence, sub }
            }
        };
        let behind = asked.order(&self.last) == Ordering::Less;
        let was_ahead = |from: &Position| asked.order(from) != Ordering::Less;
        let ends = !early && self.at_shard_end.as_ref() == Some(&asked);
        if !ends && self.moves_start(&asked) {
            return Err(CheckpointFailure::IllegalArgument);
        }
        if behind && !ends && self.overtaken.as_ref().is_some_and(was_ahead) {
            return Ok(Verdict::Stored);
        }
        if behind && !ends || asked.order(bound) == Ordering::Greater {
            return Err(CheckpointFailure::IllegalArgument);
        }
        let target = if ends { Position::shard_end() } else { self.beyond_passed(&asked) };
        Ok(if target == self.last { Verdict::Stored } else { Verdict::Write(target) })
    }
}

/// The error that is sent to the child after a failed write.
pub fn failure(error: &held::Error) -> CheckpointFailure {
    match error {
        held::Error::Lost => CheckpointFailure::Shutdown,
        held::Error::Behind(_) => CheckpointFailure::IllegalArgument,
        held::Error::Table(table::Error::Throttled(_)) => CheckpointFailure::Throttling,
        held::Error::Table(table::Error::Missing(_)) => CheckpointFailure::InvalidState,
        held::Error::Table(_) => CheckpointFailure::Dependency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Data;
    use crate::sequence::SequenceNumber;
    use proptest::prelude::*;

    fn at(text: &str, sub: u64) -> Position {
        Position { sequence: Sequence::parse(text).unwrap(), sub }
    }

    fn record(number: &str, sub: u64) -> Record {
        Record {
            sequence: SequenceNumber::parse(number).unwrap(),
            sub,
            partition_key: "p".into(),
            data: Data::default(),
            arrival: None,
        }
    }

    fn ask(progress: &Progress, text: Option<&str>, sub: Option<i64>) -> Result<Verdict, CheckpointFailure> {
        progress.judge(
            &CheckpointRequest { sequence_number: text.map(str::to_owned), sub_sequence_number: sub },
            false,
        )
    }

    fn delivered() -> Progress {
        let mut progress = Progress::new(at("TRIM_HORIZON", 0));
        progress.deliver(&vec![record("10", 0), record("20", 3)].into());
        progress
    }

    #[test]
    fn passed_records_form_runs_that_the_next_checkpoint_passes() {
        let mut progress = Progress::new(at("TRIM_HORIZON", 0));
        progress.pass_next(at("1", 0));
        progress.pass_next(at("2", 0));
        assert_eq!((progress.passed(), progress.beyond_passed(progress.last())), (1, at("2", 0)));
        progress.deliver(&vec![record("3", 0)].into());
        progress.pass_next(at("4", 0));
        progress.pass_next(at("4", 1));
        assert_eq!(progress.passed(), 2);
        let all: Records = ["1", "2", "3", "4", "5"].map(|number| record(number, 0)).to_vec().into();
        let left: Vec<_> = progress.undelivered(all).decode().iter().map(Record::position).collect();
        assert_eq!(left, [at("3", 0), at("5", 0)]);
        assert_eq!(ask(&progress, None, None), Ok(Verdict::Write(at("4", 1))));
        // The next child gets record 3 again, which is too old by now.
        progress.restart();
        progress.pass_next(at("3", 0));
        assert_eq!(progress.beyond_passed(progress.last()), at("4", 1));
        assert!(!progress.can_pass_next(&at("TRIM_HORIZON", 0)) && progress.can_pass_next(&at("5", 0)));
    }

    const REFUSED: Result<Verdict, CheckpointFailure> = Err(CheckpointFailure::IllegalArgument);

    #[test]
    fn request_without_number_means_all_delivered() {
        assert_eq!(ask(&delivered(), None, Some(9)), Ok(Verdict::Write(at("20", 3))));
        assert_eq!(ask(&Progress::new(at("LATEST", 0)), None, None), Ok(Verdict::Stored));
    }

    #[test]
    fn already_stored_position_is_success() {
        let mut progress = delivered();
        progress.stored(at("10", 0));
        progress.overtaken(at("20", 1));
        for (text, sub, expected) in [
            ("9", 0, REFUSED),
            ("10", 0, Ok(Verdict::Stored)),
            ("15", 0, Ok(Verdict::Stored)),
            ("20", 1, Ok(Verdict::Stored)),
            ("20", 2, Ok(Verdict::Write(at("20", 2)))),
            ("21", 0, REFUSED),
        ] {
            assert_eq!(ask(&progress, Some(text), Some(sub)), expected, "{text}");
        }
        progress.overtaken(at("30", 0));
        assert_eq!(ask(&progress, None, None), Ok(Verdict::Stored), "all that was delivered, and more");
        assert!(progress.is_all_stored());
        progress.end_of_shard();
        let end = Ok(Verdict::Write(Position::shard_end()));
        assert_eq!(ask(&progress, Some("20"), Some(3)), end, "the last that this child was given");
    }

    #[test]
    fn positions_from_stored_to_delivered_are_accepted() {
        let mut progress = delivered();
        for (text, sub) in [("0", 0), ("7", 0), ("20", 3), ("TRIM_HORIZON", 1), ("010", 0)] {
            let expected = Ok(Verdict::Write(at(text, sub)));
            assert_eq!(ask(&progress, Some(text), i64::try_from(sub).ok()), expected, "{text}");
        }
        progress.stored(at("10", 0));
        assert_eq!(ask(&progress, Some("10"), None), Ok(Verdict::Stored));
        for (text, sub) in [
            ("9", None),
            ("20", Some(4)),
            ("21", None),
            ("SHARD_END", None),
            ("20", Some(-1)),
            ("", None),
            (" 20", None),
            ("+20", None),
            ("x", None),
            ("trim_horizon", None),
        ] {
            assert_eq!(ask(&progress, Some(text), sub), REFUSED, "{text}/{sub:?}");
        }
    }

    #[test]
    fn sentinel_is_accepted_only_if_stored() {
        let starts = ["AT_TIMESTAMP", "TRIM_HORIZON", "LATEST"];
        for stored in starts {
            let mut progress = Progress::new(at(stored, 0));
            for phase in ["nothing delivered", "a batch delivered", "shard end", "a number stored"] {
                match phase {
                    "a batch delivered" => progress.deliver(&vec![record("10", 0)].into()),
                    "shard end" => progress.end_of_shard(),
                    "a number stored" => progress.stored(at("5", 0)),
                    _ => {}
                }
                let is_stored = progress.last() == &at(stored, 0);
                for asked in starts {
                    let expected = if asked == stored && is_stored { Ok(Verdict::Stored) } else { REFUSED };
                    assert_eq!(ask(&progress, Some(asked), None), expected, "{asked} over {stored}: {phase}");
                }
            }
        }
        let mut progress = delivered();
        progress.overtaken(at("15", 0));
        assert_eq!(ask(&progress, Some("LATEST"), None), REFUSED, "nor after a write whose answer was lost");
        assert_eq!(ask(&progress, Some("TRIM_HORIZON"), None), Ok(Verdict::Stored));
    }

    #[test]
    fn shard_end_is_written_for_every_form_of_request() {
        let mut progress = delivered();
        progress.end_of_shard();
        for (text, sub) in [(None, None), (Some("SHARD_END"), None), (Some("20"), Some(3))] {
            assert_eq!(ask(&progress, text, sub), Ok(Verdict::Write(Position::shard_end())), "{text:?}");
        }
        assert_eq!(ask(&progress, Some("10"), None), Ok(Verdict::Write(at("10", 0))));
    }

    #[test]
    fn early_request_does_not_reach_the_present_action() {
        let mut progress = delivered();
        let everything = CheckpointRequest { sequence_number: None, sub_sequence_number: None };
        progress.begin_delivery();
        progress.deliver(&vec![record("30", 0)].into());
        assert_eq!(progress.judge(&everything, true), Ok(Verdict::Write(at("20", 3))));
        assert_eq!(progress.judge(&everything, false), Ok(Verdict::Write(at("30", 0))));
        progress.end_of_shard();
        assert_eq!(progress.judge(&everything, true), Ok(Verdict::Write(at("30", 0))));
        assert_eq!(progress.judge(&everything, false), Ok(Verdict::Write(Position::shard_end())));
    }

    #[test]
    fn last_record_checkpointed_twice_ends_the_shard() {
        let mut progress = delivered();
        progress.stored(at("20", 3));
        progress.end_of_shard();
        assert_eq!(ask(&progress, Some("20"), Some(3)), Ok(Verdict::Write(Position::shard_end())));
    }

    proptest! {
        #[test]
        fn checkpoint_never_moves_back_or_beyond_delivered(
            deliveries in proptest::collection::vec((0u32..50, 0u64..3), 0..8),
            requests in proptest::collection::vec((proptest::option::of(0u32..60), proptest::option::of(-1i64..4)), 0..20),
        ) {
            let mut progress = Progress::new(at("TRIM_HORIZON", 0));
            for (number, sub) in deliveries {
                progress.deliver(&vec![record(&number.to_string(), sub)].into());
            }
            for (number, sub) in requests {
                let before = progress.last().clone();
                let text = number.map(|n| n.to_string());
                if let Ok(Verdict::Write(target)) = ask(&progress, text.as_deref(), sub) {
                    prop_assert!(target.order(&before) != Ordering::Less);
                    prop_assert!(target.order(&progress.permitted) != Ordering::Greater);
                    progress.stored(target);
                }
            }
        }
    }
}
