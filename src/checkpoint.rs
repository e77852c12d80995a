//! Progress: what a child may checkpoint, and what is then written.
//!
//! The decision is pure; the write goes through [`crate::lease::Held`], which is the proof that the
//! lease is ours. In KCL: `ShardRecordProcessorCheckpointer`. On purpose different from it: at the
//! end of a shard the position that was already stored is compared with what would be *written*, so
//! that a child which checkpoints its last record twice still ends the shard (kcl#211); and `LATEST`, `TRIM_HORIZON` and
//! `AT_TIMESTAMP` are accepted only where they are stored, because a restart from `LATEST` skips undelivered records.

use std::cmp::Ordering;

use multilangd_protocol::{CheckpointFailure, CheckpointRequest};

use crate::batch::Records;
use crate::lease::held;
use crate::lease::table;
use crate::sequence::{Position, Sequence};

/// How far a child got and may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is stored.
    last: Position,
    /// The last position handed to the child.
    permitted: Position,
    /// What was permitted before the present action began.
    before: Position,
    /// Set once the child was told that the shard ended: what stood for it until then.
    at_shard_end: Option<Position>,
    /// Set once more turned out to be stored than was known: what was taken for it until then.
    overtaken: Option<Position>,
}

/// What to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Already stored: success, nothing to write.
    Stored,
    /// Write this.
    Write(Position),
}

impl Progress {
    /// A child that starts at a stored checkpoint.
    pub fn new(stored: Position) -> Self {
        let (permitted, before) = (stored.clone(), stored.clone());
        Self { permitted, before, last: stored, at_shard_end: None, overtaken: None }
    }

    /// What is stored.
    pub fn last(&self) -> &Position {
        &self.last
    }

    /// Whether everything that was handed out is stored.
    pub fn owes_nothing(&self) -> bool {
        self.permitted.order(&self.last) != Ordering::Greater
    }

    /// An action begins: what was delivered so far is all that earlier requests can mean.
    pub fn begin_delivery(&mut self) {
        self.before.clone_from(&self.permitted);
    }

    /// These are about to be handed to the child.
    pub fn deliver(&mut self, records: &Records) {
        if let Some(last) = records.greatest()
            && last.order(&self.permitted) == Ordering::Greater
        {
            self.permitted = last;
        }
    }

    /// The child is about to be told that the shard ended.
    pub fn end_of_shard(&mut self) {
        self.begin_delivery();
        self.at_shard_end.get_or_insert_with(|| self.permitted.clone());
        self.permitted = Position::shard_end();
    }

    /// A write succeeded.
    pub fn stored(&mut self, position: Position) {
        debug_assert!(position.order(&self.last) != Ordering::Less, "a checkpoint went back");
        self.last = position;
    }

    /// A write of this holding whose answer was lost had happened after all, when it was taken for failed: so much is
    /// stored. The child may ask for what lies in between.
    pub fn overtaken(&mut self, position: Position) {
        self.overtaken.get_or_insert_with(|| self.last.clone());
        self.stored(position);
    }

    /// Whether the position is a start position other than the stored one. Start positions order before all numbers, so
    /// the range alone would let them pass.
    fn moves_start(&self, asked: &Position) -> bool {
        let stored = self.overtaken.as_ref().unwrap_or(&self.last);
        let is_start =
            matches!(asked.sequence, Sequence::AtTimestamp | Sequence::TrimHorizon | Sequence::Latest);
        is_start && asked.sequence != stored.sequence
    }

    /// Judges a request, in the order of Java's checks. An `early` one was made before the present
    /// action began: it can reach neither the records that this action brings nor the end of the
    /// shard that it tells of. Java judges it like any other and so can skip records.
    ///
    /// # Errors
    /// The name with which the request is to be answered.
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
        let target = if ends { Position::shard_end() } else { asked };
        Ok(if target == self.last { Verdict::Stored } else { Verdict::Write(target) })
    }
}

/// What the child is told when a write failed.
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
    use crate::record::{Data, Record};
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

    const REFUSED: Result<Verdict, CheckpointFailure> = Err(CheckpointFailure::IllegalArgument);

    #[test]
    fn nothing_means_all_that_was_delivered() {
        assert_eq!(ask(&delivered(), None, Some(9)), Ok(Verdict::Write(at("20", 3))));
        assert_eq!(ask(&Progress::new(at("LATEST", 0)), None, None), Ok(Verdict::Stored));
    }

    #[test]
    fn what_turned_out_to_be_stored_already_is_success() {
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
        assert!(progress.owes_nothing());
        progress.end_of_shard();
        let end = Ok(Verdict::Write(Position::shard_end()));
        assert_eq!(ask(&progress, Some("20"), Some(3)), end, "the last that this child was given");
    }

    #[test]
    fn anything_between_what_is_stored_and_what_was_delivered_passes() {
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
    fn a_start_position_is_accepted_only_where_it_is_stored() {
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
    fn the_end_of_a_shard_is_written_for_nothing_for_its_name_and_for_the_last_record() {
        let mut progress = delivered();
        progress.end_of_shard();
        for (text, sub) in [(None, None), (Some("SHARD_END"), None), (Some("20"), Some(3))] {
            assert_eq!(ask(&progress, text, sub), Ok(Verdict::Write(Position::shard_end())), "{text:?}");
        }
        assert_eq!(ask(&progress, Some("10"), None), Ok(Verdict::Write(at("10", 0))));
    }

    #[test]
    fn a_request_from_before_an_action_reaches_nothing_that_the_action_brings() {
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
    fn the_last_record_checkpointed_twice_still_ends_the_shard() {
        let mut progress = delivered();
        progress.stored(at("20", 3));
        progress.end_of_shard();
        assert_eq!(ask(&progress, Some("20"), Some(3)), Ok(Verdict::Write(Position::shard_end())));
    }

    proptest! {
        #[test]
        fn a_checkpoint_never_goes_back_nor_past_what_was_delivered(
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
