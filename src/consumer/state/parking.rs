//! Parks a shard by the order of an operator, and continues it.
//!
//! The child is ended as in a stop, but the lease is kept, and nothing is read. When the operator ends the order, the
//! shard begins again at its checkpoint: an order that came while the child was being ended is followed after that. A
//! search for a record that fails begins anew then, as after a restart of the daemon.

use tokio::time::Instant;

use super::{Effects, Phase, State, Suspects, Then};
use crate::consumer::event::Effect;
use crate::lease::orders::Parking;

impl State {
    /// An operator has parked the shard, or there is another order by which it is parked.
    pub(super) fn park_ordered(&mut self, now: Instant, order: Parking) -> Effects {
        let is_news = self.order.as_ref() != Some(&order);
        self.order = Some(order.clone());
        if self.phase == Phase::ParkedByOperator {
            return if is_news { vec![Effect::ParkedByOperator(order)] } else { Vec::new() };
        }
        if self.is_halting() {
            return Vec::new();
        }
        self.parking = true;
        let is_idle = self.is_idle();
        let grace = self.settings.shutdown_grace;
        match &mut self.phase {
            Phase::Waiting(_) | Phase::BackingOff(_) | Phase::LetterRefused(_) => self.parked_by_operator(),
            // No child runs, and these writes have deadlines of their own.
            Phase::Lettering | Phase::Passing | Phase::Finished => Vec::new(),
            Phase::Closing { by, .. } => {
                *by = (*by).min(now + self.settings.kill_grace);
                Vec::new()
            }
            _ => {
                self.hurry_by(now + grace);
                if is_idle && !grace.is_zero() { self.settle(now) } else { Vec::new() }
            }
        }
    }

    /// The operator has ended the order.
    pub(super) fn unpark_ordered(&mut self) -> Effects {
        let was_parked = self.order.take().is_some();
        if !was_parked || self.phase != Phase::ParkedByOperator {
            return Vec::new();
        }
        let mut effects = vec![Effect::UnparkedByOperator];
        effects.extend(self.begin());
        effects
    }

    /// Whether the child is being ended, for whatever reason.
    pub(super) fn is_halting(&self) -> bool {
        self.stop || self.lost || self.parking
    }

    /// The next step once a child that is being ended has exited.
    pub(super) fn after_halt(&self) -> Then {
        if self.stop || self.lost { Then::Finish(self.end_of_holding()) } else { Then::Park }
    }

    /// No child runs any more.
    pub(super) fn parked_by_operator(&mut self) -> Effects {
        (self.parking, self.hurry, self.answer_by) = (false, None, None);
        // A record whose letter was due when the order came is no longer known to fail: the letter is not written after a
        // failure of a later child at other records.
        self.suspects = self.settings.dead_letters.map(Suspects::new);
        (self.poison, self.is_narrowed) = (None, false);
        let Some(order) = self.order.clone() else { return self.begin() };
        self.drop_rest();
        // The next child begins at the checkpoint or, before the first one, at the first record delivered.
        (self.feed_open, self.delivered, self.end) = (false, false, None);
        (self.failures, self.starved, self.parked) = (0, 0, false);
        for backoff in [&mut self.backoff, &mut self.narrowing, &mut self.refusals, &mut self.shortage] {
            backoff.reset();
        }
        self.phase = Phase::ParkedByOperator;
        vec![Effect::CloseFeed, Effect::ParkedByOperator(order)]
    }
}
