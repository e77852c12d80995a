//! Interprets failures of a child while dead letters are enabled, and writes a record to them.

use tokio::time::Instant;

use super::{Effects, Phase, State};
use crate::consumer::event::Effect;
use crate::consumer::suspects::{Finding, MAX_UNSTORED};
use crate::sequence::Position;

impl State {
    /// Interprets a failure by the records of the open action. Returns none if it counts as a failure of the
    /// child, with its reason.
    pub(super) fn suspect(&mut self, reason: String) -> Result<Effects, String> {
        self.is_narrowed = false;
        let Some(suspects) = &mut self.suspects else { return Err(reason) };
        if self.phase != Phase::Processing || self.has_rejected {
            return Err(reason);
        }
        let was_searching = suspects.is_searching();
        let (records, alone) = match suspects.failed(self.progress.last()) {
            Finding::OfTheChild if was_searching && !suspects.is_searching() => {
                return Err(format!("{reason} (at records that were processed before)"));
            }
            Finding::OfTheChild => return Err(reason),
            Finding::Several(records) => (records, 0),
            Finding::Alone(times) => (1, times),
            Finding::Outage => {
                self.failures = self.failures.max(self.settings.max_failures.saturating_sub(1));
                return Err(format!(
                    "{reason} (too many dead letters in a row, multilangd.maxDeadLettersInARow: writing no \
                     more of them until a record is processed)"
                ));
            }
            Finding::Poison(..) if self.progress.passed() >= MAX_UNSTORED => {
                self.failures = self.failures.max(self.settings.max_failures.saturating_sub(1));
                return Err(format!(
                    "{reason} ({MAX_UNSTORED} dead letters were written since the last checkpoint: the record \
                     processor must checkpoint)"
                ));
            }
            Finding::Poison(record, before) => {
                self.poison = Some((record, before));
                (1, suspects.alone())
            }
        };
        self.is_narrowed = true;
        Ok(vec![Effect::Bisecting(reason, records, alone)])
    }

    /// Writes the letter of a record that fails for good, once the child has exited; none if there is no such
    /// record, or it was checkpointed at the last moment.
    pub(super) fn letter_is_due(&mut self) -> bool {
        let stored = self.progress.last();
        self.poison.take_if(|(record, _)| record.position().order(stored).is_le());
        self.poison.is_some()
    }

    pub(super) fn write_letter(&mut self) -> Effects {
        let Some((record, _)) = &self.poison else { return self.start() };
        self.phase = Phase::Lettering;
        vec![Effect::Letter(record.clone())]
    }

    /// The record is passed only now that its letter has a durable copy. The answer to a letter of another record
    /// proves nothing about this one.
    pub(super) fn lettered(
        &mut self,
        now: Instant,
        position: &Position,
        outcome: Result<(), String>,
    ) -> Effects {
        let is_pending = self.poison.as_ref().is_some_and(|(record, _)| record.position() == *position);
        if self.phase != Phase::Lettering || !is_pending {
            return Vec::new();
        }
        if let Err(reason) = outcome {
            if self.is_halting() {
                return self.resume();
            }
            let pause = self.refusals.pause();
            self.phase = Phase::LetterRefused(now + pause);
            let mut effects = vec![Effect::LetterRefused(reason, pause)];
            // Prefetched records take the memory of other shards and can be fetched again.
            if std::mem::take(&mut self.feed_open) {
                effects.push(Effect::CloseFeed);
            }
            return effects;
        }
        self.refusals.reset();
        let mut effects = Vec::new();
        if let (Some((record, before)), Some(suspects)) = (self.poison.take(), &mut self.suspects) {
            suspects.lettered(record.position());
            self.progress.pass(record.position(), before);
            effects.push(Effect::Bisected);
        }
        // If everything before the record is stored, so may the record be: a worker that acquires the lease
        // would meet it again.
        let reached = self.progress.beyond_passed(self.progress.last());
        if reached == *self.progress.last() {
            effects.extend(self.resume());
        } else {
            self.phase = Phase::Passing;
            self.storing = true;
            effects.push(Effect::Store(reached));
        }
        effects
    }

    /// Starts the next child after a dead letter.
    pub(super) fn resume(&mut self) -> Effects {
        if self.lost || self.stop { self.finish(self.end_of_holding()) } else { self.start() }
    }
}
