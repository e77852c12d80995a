//! Passes records that are too old to be delivered (`multilangd.maxRecordAgeMillis`): each is written to the dead
//! letters, or skipped if the settings say so.
//!
//! The child is idle meanwhile. A record is passed only once its letter has a durable copy. The position of passed
//! records is stored by the daemon as soon as everything before them is stored, otherwise by the child's next
//! checkpoint. If the child fails meanwhile, records without a letter are read again.

use tokio::time::Instant;

use super::{AgedStep, Effects, Phase, State};
use crate::batch::Records;
use crate::consumer::event::Effect;
use crate::consumer::suspects::MAX_UNSTORED;
use crate::record::Record;
use crate::sequence::{Position, Sequence};

/// The first records of a delivery, by their ages.
#[derive(Debug, Default)]
pub(super) struct ByAge {
    /// Records that are too old; empty if the first one is not.
    pub old: Vec<Record>,
    /// Records that are not, up to the next one that is; empty if the first one is.
    pub young: Records,
    /// All that follow.
    pub later: Records,
}

impl State {
    /// Sets the time by which ages of records are measured from now on, in milliseconds since 1970. Before the first
    /// call no record is too old.
    pub fn note_time(&mut self, millis: i64) {
        self.wall = Some(millis);
    }

    /// Divides records where their age passes the limit.
    pub(super) fn by_age(&self, records: Records) -> ByAge {
        let Some((limit, wall)) = self.settings.max_age.zip(self.wall) else {
            return ByAge { young: records, ..ByAge::default() };
        };
        // Only records in order directly follow what was delivered before.
        if self.progress.passed() >= MAX_UNSTORED || !records.is_ascending() {
            return ByAge { young: records, ..ByAge::default() };
        }
        let oldest = wall.saturating_sub(limit.millis);
        let is_old = |record: &Record| {
            record.arrival.is_some_and(|at| at < oldest) && self.progress.can_pass_next(&record.position())
        };
        let (mut all, encoded) = match records {
            Records::Decoded(all) => (all, None),
            Records::Encoded(line) => (line.decode(), Some(line)),
        };
        let is_first_old = all.first().is_some_and(is_old);
        let count = all.iter().take_while(|record| is_old(record) == is_first_old).count();
        let later = Records::Decoded(all.split_off(count));
        match encoded {
            _ if is_first_old => ByAge { old: all, young: Records::default(), later },
            // Its line need not be written again.
            Some(line) if later.is_empty() => ByAge { old: Vec::new(), young: Records::Encoded(line), later },
            _ => ByAge { old: Vec::new(), young: Records::Decoded(all), later },
        }
    }

    /// Passes records that are too old.
    pub(super) fn pass_aged(&mut self, now: Instant, old: Vec<Record>) -> Effects {
        let Some(first) = old.first() else { return self.settle(now) };
        // The feed does not return these records again to the next child.
        self.delivered = true;
        self.anchor.get_or_insert_with(|| Sequence::Number(first.sequence.clone()));
        if self.settings.max_age.is_some_and(|limit| limit.writes_letters) {
            self.aged = old.into();
            return self.write_aged(now);
        }
        let (first, records) = (first.position(), old.len());
        let mut last = first.clone();
        for record in &old {
            last = record.position();
            self.progress.pass_next(last.clone());
        }
        let mut effects = vec![Effect::Aged { records, first, last }];
        effects.extend(self.aged_passed(now));
        effects
    }

    /// Writes the letter of the first record that waits for one.
    pub(super) fn write_aged(&mut self, now: Instant) -> Effects {
        let Some(record) = self.aged.front() else { return self.aged_passed(now) };
        self.phase = Phase::Aged(AgedStep::Writing);
        vec![Effect::AgedLetter(Box::new(record.clone()))]
    }

    /// The letter of the record at `position` was accepted or rejected.
    pub(super) fn aged_lettered(
        &mut self,
        now: Instant,
        position: &Position,
        outcome: Result<(), String>,
    ) -> Effects {
        if self.aged.front().is_none_or(|record| record.position() != *position) {
            return Vec::new();
        }
        if let Err(reason) = outcome {
            let pause = self.refusals.pause();
            self.phase = Phase::Aged(AgedStep::Refused(now + pause));
            return vec![Effect::LetterRefused(reason, pause)];
        }
        self.refusals.reset();
        self.aged.pop_front();
        self.progress.pass_next(position.clone());
        let mut effects = vec![Effect::Aged { records: 1, first: position.clone(), last: position.clone() }];
        effects.extend(self.write_aged(now));
        effects
    }

    /// Stores the position of passed records if everything before them is stored: a worker that acquires the lease
    /// would read them again.
    fn aged_passed(&mut self, now: Instant) -> Effects {
        let reached = self.progress.beyond_passed(self.progress.last());
        if reached == *self.progress.last() {
            return self.settle(now);
        }
        self.phase = Phase::Aged(AgedStep::Storing);
        self.storing = true;
        vec![Effect::Store(reached)]
    }

    /// Whether old records are being passed in a way that a stop interrupts. A write that was begun is awaited,
    /// because its end must not be taken for that of a checkpoint of the child.
    pub(super) fn may_interrupt_aged(&self) -> bool {
        matches!(self.phase, Phase::Aged(AgedStep::Writing | AgedStep::Refused(_)))
    }
}
