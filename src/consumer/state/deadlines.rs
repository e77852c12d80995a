//! The deadlines of each phase.

use tokio::time::Instant;

use super::{AgedStep, Effects, Phase, State, Step, WARN_AGAIN};
use crate::consumer::event::Effect;
#[cfg(doc)]
use crate::consumer::event::Event;

impl State {
    /// When to send [`Event::Deadline`], unless another event occurs before.
    pub fn deadline(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Waiting(at) | Phase::PreparingEnd(at) => *at,
            Phase::BackingOff(until) | Phase::LetterRefused(until) => Some(*until),
            Phase::Aged(AgedStep::Refused(until)) => Some(*until),
            Phase::Lettering | Phase::Passing | Phase::Aged(_) | Phase::ParkedByOperator => None,
            Phase::Finished => return None,
            // A write has a deadline of its own, which a stop does not wait for.
            Phase::Closing { step: Step::Gone, by, .. } => return self.stop.then_some(*by),
            Phase::Closing { by, .. } => return Some(*by),
            Phase::Starting | Phase::Processing | Phase::Ending | Phase::Notifying | Phase::Losing => {
                self.answer_by
            }
            Phase::Idle => self.recovers_at().into_iter().chain(self.gathering).min(),
        };
        let slow = self.slow.filter(|_| self.phase == Phase::Processing).map(|(_, at)| at);
        own.into_iter().chain(self.hurry).chain(slow).min()
    }

    pub(super) fn deadline_passed(&mut self, now: Instant) -> Effects {
        match &self.phase {
            Phase::Finished => Vec::new(),
            Phase::Closing { then, step: Step::Gone, by } if self.stop && *by <= now => {
                let then = then.clone();
                self.storing = false;
                self.closed(now, then)
            }
            Phase::Closing { step: Step::Gone, .. } => Vec::new(),
            Phase::Closing { then, step, by } if *by <= now => {
                let (then, step) = (then.clone(), *step);
                self.press(now, then, step)
            }
            Phase::Closing { .. } => Vec::new(),
            Phase::Lettering | Phase::Passing if self.hurry.is_some_and(|by| by <= now) => {
                self.finish(self.end_of_holding())
            }
            _ if self.hurry.is_some_and(|by| by <= now) => {
                let then = self.after_halt();
                let mut effects = vec![Effect::StopTimedOut];
                effects.extend(self.close(now, then));
                effects
            }
            Phase::Waiting(Some(at)) if *at <= now => self.check_parents(),
            Phase::PreparingEnd(Some(at)) if *at <= now => self.settle(now),
            Phase::BackingOff(until) if *until <= now => self.start(),
            Phase::LetterRefused(until) if *until <= now => self.write_letter(),
            Phase::Aged(AgedStep::Refused(until)) if *until <= now => self.write_aged(now),
            // The rest is delivered next.
            Phase::Idle if self.gathering.take_if(|at| *at <= now).is_some() => Vec::new(),
            Phase::Idle if self.recovers_at().is_some_and(|at| at <= now) => {
                self.failures = 0;
                self.backoff.reset();
                self.recover()
            }
            Phase::Starting | Phase::Processing | Phase::Ending | Phase::Notifying | Phase::Losing
                if self.answer_by.is_some_and(|by| by <= now) =>
            {
                self.fail(now, "it did not answer within timeoutInSeconds".to_owned())
            }
            Phase::Processing => self.warn_if_slow(now),
            _ => Vec::new(),
        }
    }

    /// Repeated, as in Java.
    fn warn_if_slow(&mut self, now: Instant) -> Effects {
        match &mut self.slow {
            Some((since, at)) if *at <= now => {
                *at = now + WARN_AGAIN;
                vec![Effect::Slow(now.duration_since(*since))]
            }
            _ => Vec::new(),
        }
    }
}
