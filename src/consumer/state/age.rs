//! Passes records that are too old to be delivered (`multilangd.maxRecordAgeMillis`): they are written to the dead
//! letters, several at once, or skipped if the settings say so.
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

/// Most letters that are written at once: an answer then comes soon enough for a stop, and the copies take little
/// memory.
const MOST_LETTERS: usize = 500;
/// Most bytes of data in letters that are written at once, unless the first one has more.
const MOST_BYTES: usize = 3 << 20;

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

    /// Writes the letters of the first records that wait for them.
    pub(super) fn write_aged(&mut self, now: Instant) -> Effects {
        if self.aged.is_empty() {
            return self.aged_passed(now);
        }
        self.phase = Phase::Aged(AgedStep::Writing);
        let mut bytes = 0_usize;
        let fits = |(index, record): &(usize, &Record)| {
            bytes = bytes.saturating_add(record.size());
            *index == 0 || *index < MOST_LETTERS && bytes <= MOST_BYTES
        };
        let first = self.aged.iter().enumerate().take_while(fits).map(|(_, record)| record.clone());
        vec![Effect::AgedLetters(first.collect())]
    }

    /// The letters of records from the one at `first` on were written, or that one was rejected. The answer to letters
    /// of other records proves nothing about these: a child may have failed meanwhile, and the records were read again.
    pub(super) fn aged_lettered(
        &mut self,
        now: Instant,
        first: &Position,
        outcome: Result<Vec<Position>, String>,
    ) -> Effects {
        let is_first = self.aged.front().is_some_and(|record| record.position() == *first);
        if self.phase != Phase::Aged(AgedStep::Writing) || !is_first {
            return Vec::new();
        }
        let written = match outcome {
            Ok(written) => written,
            Err(reason) => {
                let pause = self.refusals.pause();
                self.phase = Phase::Aged(AgedStep::Refused(now + pause));
                return vec![Effect::LetterRefused(reason, pause)];
            }
        };
        self.refusals.reset();
        let mut passed = Vec::new();
        for position in written {
            if self.aged.pop_front_if(|record| record.position() == position).is_none() {
                break;
            }
            self.progress.pass_next(position.clone());
            passed.push(position);
        }
        let mut effects = Vec::new();
        if let Some(last) = passed.last().cloned() {
            effects.push(Effect::Aged { records: passed.len(), first: first.clone(), last });
        }
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
