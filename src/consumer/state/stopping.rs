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
        match &mut self.phase {
            Phase::Waiting(_) | Phase::BackingOff(_) | Phase::LetterRefused(_) => {
                self.finish(Outcome::Stopped)
            }
            // Without a grace period no message is sent to the child: its stdin is closed.
            Phase::Idle if !self.settings.shutdown_grace.is_zero() => self.settle(now),
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
        match &mut self.phase {
            Phase::Waiting(_) | Phase::BackingOff(_) | Phase::LetterRefused(_) => {
                self.finish(Outcome::Stopped)
            }
            Phase::Idle => self.settle(now),
            _ => Vec::new(),
        }
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
            | Phase::Passing => effects.extend(self.finish(Outcome::LeaseLost)),
            Phase::Idle => effects.extend(self.settle(now)),
            _ => {}
        }
        effects
    }

    fn hurry_by(&mut self, by: Instant) {
        self.hurry = Some(self.hurry.map_or(by, |at| at.min(by)));
    }
}
