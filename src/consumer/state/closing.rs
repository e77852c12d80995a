//! The way out of a child, and what follows: a restart, a parked shard, or the end of this holding.

use std::time::Duration;

use tokio::time::Instant;

use super::{Effects, LIVED_WELL, Phase, State, Step, Then};
use crate::consumer::event::{Effect, Outcome};
use crate::multilang::Stop;

impl State {
    /// The child can't go on. What follows depends on whether it was needed any longer.
    pub(super) fn fail(&mut self, now: Instant, reason: String) -> Effects {
        if self.lost || self.stop {
            let then = Then::Finish(self.end_of_holding());
            let mut effects = vec![Effect::FailedWhileStopping(reason)];
            effects.extend(self.close(now, then));
            return effects;
        }
        let mut effects = Vec::new();
        // A child that lived well and owed nothing begins a new row.
        let lived = self.started.is_some_and(|started| now.duration_since(started) >= LIVED_WELL);
        if lived && self.phase != Phase::Starting && self.progress.owes_nothing() {
            self.failures = 0;
            self.backoff.reset();
            effects.extend(self.recover());
        }
        self.failures += 1;
        effects.push(Effect::Failed(reason.clone(), self.failures));
        effects.extend(self.close(now, Then::Restart(reason)));
        effects
    }

    /// Sends the child on its way out.
    pub(super) fn close(&mut self, now: Instant, then: Then) -> Effects {
        self.answer_by = None;
        if !self.child_alive {
            return self.closed(now, then);
        }
        let grace = if self.stop { self.settings.kill_grace } else { self.settings.exit_grace };
        self.phase = Phase::Closing { then, step: Step::StdinClosed, by: now + grace };
        vec![Effect::CloseStdin]
    }

    pub(super) fn press(&mut self, now: Instant, then: Then, step: Step) -> Effects {
        let by = now + self.settings.kill_grace;
        match step {
            Step::StdinClosed => {
                self.phase = Phase::Closing { then, step: Step::Terminated, by };
                vec![Effect::Signal(Stop::Politely)]
            }
            Step::Terminated => {
                self.phase = Phase::Closing { then, step: Step::Killed, by };
                vec![Effect::Signal(Stop::AtOnce)]
            }
            // Not even SIGKILL ended it (a process in an uninterruptible wait): it can do no harm.
            Step::Killed | Step::Gone => self.closed(now, then),
        }
    }

    pub(super) fn closed(&mut self, now: Instant, then: Then) -> Effects {
        if self.storing {
            self.phase = Phase::Closing { then, step: Step::Gone, by: now + self.settings.kill_grace };
            return Vec::new();
        }
        match then {
            Then::Finish(outcome) => self.finish(outcome),
            Then::Restart(_) if self.progress.last().is_shard_end() => self.finish(Outcome::ShardEnded),
            Then::Restart(_) if self.lost || self.stop => self.finish(self.end_of_holding()),
            Then::Restart(_) if self.failures < self.settings.max_failures => {
                self.phase = Phase::BackingOff(now + self.backoff.pause());
                Vec::new()
            }
            Then::Restart(reason) => match self.settings.parked_pause {
                Some(longest) => self.park(now, reason, longest),
                None => self.finish(Outcome::Hopeless(reason)),
            },
        }
    }

    /// Keeps the lease, so that the record at which children fail does not walk through the fleet, and restarts the
    /// child after longer and longer pauses.
    fn park(&mut self, now: Instant, reason: String, longest: Duration) -> Effects {
        let pause = self.backoff.pause_up_to(longest);
        self.phase = Phase::BackingOff(now + pause);
        let mut effects = Vec::new();
        // Records that were fetched would be fetched again, and take the room of others. A feed of which nothing was handed
        // out may stand at LATEST, which is another place later.
        if self.feed_open && self.handed_out {
            self.feed_open = false;
            effects.push(Effect::CloseFeed);
        }
        if !std::mem::replace(&mut self.parked, true) {
            effects.push(Effect::Parked(reason, pause));
        }
        effects
    }

    /// When a parked shard whose child is idle counts as working again.
    pub(super) fn recovers_at(&self) -> Option<Instant> {
        self.started.filter(|_| self.parked).map(|started| started + LIVED_WELL)
    }

    /// A checkpoint was stored, or the child has lived for a while: the shard is not parked any more.
    pub(super) fn recover(&mut self) -> Effects {
        if std::mem::take(&mut self.parked) { vec![Effect::Recovered] } else { Vec::new() }
    }

    /// The machine has no room for the child now. The child is not at fault: nothing is counted.
    pub(super) fn wait_for_resources(&mut self, now: Instant, reason: String) -> Effects {
        let mut effects = vec![Effect::Shortage(reason)];
        if self.lost || self.stop {
            effects.extend(self.finish(self.end_of_holding()));
        } else {
            self.phase = Phase::BackingOff(now + self.shortage.pause());
        }
        effects
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Effects {
        self.phase = Phase::Finished;
        vec![Effect::CloseFeed, Effect::Finish(outcome)]
    }
}
