//! Stops a shard consumer: shutdown, graceful handoff, lost lease.

use tokio::time::Instant;

use super::{Effects, Phase, State};
use crate::consumer::event::{Effect, Outcome};

impl State {
    pub(super) fn stopped(&mut self, now: Instant) -> Effects {
        self.hurry_by(now + self.settings.shutdown_grace);
        if std::mem::replace(&mut self.stop, true) {
            return Vec::new();
        }
        let is_idle = self.is_idle();
        match &mut self.phase {
            Phase::Waiting(_) | Phase::BackingOff(_) | Phase::LetterRefused(_) | Phase::ParkedByOperator => {
                self.finish(Outcome::Stopped)
            }
            // Without a grace period no message is sent to the child: its stdin is closed.
            _ if is_idle && !self.settings.shutdown_grace.is_zero() => self.settle(now),
            Phase::Closing { by, .. } => {
                *by = (*by).min(now + self.settings.kill_grace);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// As a stop, but of this shard alone, with the time for a graceful handoff. In KCL:
    /// `LeaseGracefulShutdownHandler`.
    pub(super) fn wanted(&mut self, now: Instant) -> Effects {
        if std::mem::replace(&mut self.stop, true) {
            return Vec::new();
        }
        self.hurry_by(now + self.settings.hand_off);
        let is_idle = self.is_idle();
        match &mut self.phase {
            Phase::Waiting(_) | Phase::BackingOff(_) | Phase::LetterRefused(_) | Phase::ParkedByOperator => {
                self.finish(Outcome::Stopped)
            }
            _ if is_idle => self.settle(now),
            _ => Vec::new(),
        }
    }

    /// Whether the child can be sent another message at once.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle || self.may_interrupt_aged()
    }

    pub(super) fn lease_lost(&mut self, now: Instant) -> Effects {
        if std::mem::replace(&mut self.lost, true) {
            return Vec::new();
        }
        self.feed_open = false;
        self.drop_rest();
        self.hurry_by(now + self.settings.lost_grace);
        let mut effects = vec![Effect::CloseFeed];
        match self.phase {
            Phase::Waiting(_)
            | Phase::BackingOff(_)
            | Phase::Lettering
            | Phase::LetterRefused(_)
            | Phase::Passing
            | Phase::ParkedByOperator => effects.extend(self.finish(Outcome::LeaseLost)),
            _ if self.is_idle() => effects.extend(self.settle(now)),
            _ => {}
        }
        effects
    }

    pub(super) fn hurry_by(&mut self, by: Instant) {
        self.hurry = Some(self.hurry.map_or(by, |at| at.min(by)));
    }
}
