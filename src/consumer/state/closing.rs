//! Stops a child, and decides what follows: a restart, a parked shard, or the end of the consumer.

use std::time::Duration;

use tokio::time::Instant;

use super::{Effects, LIVED_WELL, Phase, State, Step, Then};
use crate::consumer::event::{Effect, Outcome};
use crate::multilang::{self, Stop};

/// Children in a row that may exit with the words of a shortage before they answer `initialize`: about three minutes.
pub(super) const MAX_STARVED: u32 = 20;

impl State {
    /// Handles a failure of the child. The next phase depends on whether the child was still needed.
    pub(super) fn fail(&mut self, now: Instant, reason: String) -> Effects {
        if self.is_halting() {
            let then = self.after_halt();
            let mut effects = vec![Effect::FailedWhileStopping(reason)];
            effects.extend(self.close(now, then));
            return effects;
        }
        let reason = match self.suspect(reason) {
            Ok(mut effects) => {
                effects.extend(self.close(now, Then::Restart(String::new())));
                return effects;
            }
            Err(reason) => reason,
        };
        let mut effects = Vec::new();
        // A child that ran for long and checkpointed everything starts a new row.
        let lived = self.started.is_some_and(|started| now.duration_since(started) >= LIVED_WELL);
        if lived && self.phase != Phase::Starting && self.progress.is_all_stored() {
            self.failures = 0;
            self.backoff.reset();
            effects.extend(self.recover());
        }
        self.failures += 1;
        effects.push(Effect::Failed(reason.clone(), self.failures));
        effects.extend(self.close(now, Then::Restart(reason)));
        effects
    }

    /// Closes the child's stdin, as the first step of stopping it.
    pub(super) fn close(&mut self, now: Instant, then: Then) -> Effects {
        self.answer_by = None;
        self.drop_rest();
        if let Some(suspects) = &mut self.suspects {
            suspects.ended();
        }
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
            // Even SIGKILL did not end it (a process in an uninterruptible wait): it can do no harm. Its end may
            // be reported at any time, when a letter is being written or another child runs.
            Step::Killed | Step::Gone => {
                self.child_alive = false;
                let mut effects = vec![Effect::Abandon];
                effects.extend(self.closed(now, then));
                effects
            }
        }
    }

    pub(super) fn closed(&mut self, now: Instant, then: Then) -> Effects {
        if self.storing {
            self.phase = Phase::Closing { then, step: Step::Gone, by: now + self.settings.kill_grace };
            return Vec::new();
        }
        match then {
            Then::Finish(outcome) => self.finish(outcome),
            _ if self.progress.last().is_shard_end() => self.finish(Outcome::ShardEnded),
            _ if self.lost || self.stop => self.finish(self.end_of_holding()),
            Then::Park => self.parked_by_operator(),
            Then::Restart(_) if self.parking => self.parked_by_operator(),
            Then::Restart(_) if self.letter_is_due() => self.write_letter(),
            Then::Restart(_) if self.is_narrowed => {
                // The search makes progress, so pauses do not grow.
                let pause = self.narrowing.pause();
                self.narrowing.reset();
                self.phase = Phase::BackingOff(now + pause);
                Vec::new()
            }
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

    /// Keeps the lease, so that a record at which children fail does not move from worker to worker, and
    /// restarts the child after growing pauses.
    fn park(&mut self, now: Instant, reason: String, longest: Duration) -> Effects {
        let pause = self.backoff.pause_up_to(longest);
        self.phase = Phase::BackingOff(now + pause);
        let mut effects = Vec::new();
        // Prefetched records take the memory of other shards and can be fetched again. A feed without
        // deliveries is kept: it may have started at LATEST, which is another position later.
        if self.feed_open && self.delivered {
            self.feed_open = false;
            effects.push(Effect::CloseFeed);
        }
        if !std::mem::replace(&mut self.parked, true) {
            effects.push(Effect::Parked(reason, pause));
        }
        effects
    }

    /// When a parked shard whose child is idle counts as recovered.
    pub(super) fn recovers_at(&self) -> Option<Instant> {
        self.started.filter(|_| self.parked).map(|started| started + LIVED_WELL)
    }

    /// A checkpoint was stored, or the child ran for long enough: the shard is no longer parked.
    pub(super) fn recover(&mut self) -> Effects {
        if std::mem::take(&mut self.parked) { vec![Effect::Recovered] } else { Vec::new() }
    }

    /// Resources for the child are short. That is no failure of the child, so nothing is counted.
    pub(super) fn wait_for_resources(&mut self, now: Instant, reason: String) -> Effects {
        let mut effects = vec![Effect::Shortage(reason)];
        if self.lost || self.stop {
            effects.extend(self.finish(self.end_of_holding()));
        } else if self.parking {
            effects.extend(self.parked_by_operator());
        } else {
            self.phase = Phase::BackingOff(now + self.shortage.pause());
        }
        effects
    }

    /// The child's program had no resources to start, by its own words. Words are no proof: for ever would be too long.
    pub(super) fn starved(&mut self, now: Instant, end: String, line: &str) -> Effects {
        let is_needed = self.phase == Phase::Starting && !self.is_halting();
        let is_tolerated = self.settings.max_failures > 1 && self.starved < MAX_STARVED;
        if !is_needed || !is_tolerated {
            return self.child(now, multilang::Event::Exited(end));
        }
        self.starved += 1;
        self.child_alive = false;
        self.answer_by = None;
        self.wait_for_resources(now, format!("it exited with {end}: {line}"))
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Effects {
        self.phase = Phase::Finished;
        vec![Effect::CloseFeed, Effect::Finish(outcome)]
    }
}
