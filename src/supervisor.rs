//! When the applications of one process are started again, and when the process ends: a pure step machine, whose time
//! is an argument.
//!
//! An application that ends with an error is started again after a backoff, as a supervisor of the system does it for a
//! daemon. Only when all applications have failed does the process end, so that its supervisor sees it.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::exit::Exit;

/// The first pause before an application is started again.
pub const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause. An application that ran for this long begins with the first pause again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The applications of a process.
#[derive(Debug)]
pub struct Supervisor {
    applications: Vec<Application>,
    stopping: bool,
}

#[derive(Debug)]
struct Application {
    state: State,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs {
        since: Instant,
    },
    /// It ended with `exit`, and is started again at `until`.
    Failed {
        exit: Exit,
        until: Instant,
    },
    /// It ended because of the stop.
    Stopped(Exit),
}

/// The consequence of the end of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The application is started again after this pause.
    Restart(Duration),
    /// The others run on, or stop.
    Continue,
    /// The process ends.
    End(Exit),
}

impl Supervisor {
    /// Applications that run since `now`; `random` is a source of jitter.
    pub fn new(count: usize, now: Instant, random: &mut fastrand::Rng) -> Self {
        let application = |_| Application {
            state: State::Runs { since: now },
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, random.fork()),
        };
        Self { applications: (0..count).map(application).collect(), stopping: false }
    }

    /// A stop is requested: nothing is started any more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// An application has ended, with [`Exit::Clean`] because of a stop, otherwise by itself.
    pub fn ended(&mut self, index: usize, exit: Exit, now: Instant) -> Decision {
        let stopping = self.stopping;
        let Some(application) = self.applications.get_mut(index) else { return Decision::Continue };
        if stopping {
            application.state = State::Stopped(exit);
            let runs = self.states().any(|state| matches!(state, State::Runs { .. }));
            return if runs { Decision::Continue } else { Decision::End(self.stopped()) };
        }
        // Without a stop no end is clean.
        let exit = if exit == Exit::Clean { Exit::Internal } else { exit };
        if let State::Runs { since } = application.state
            && now.saturating_duration_since(since) >= LONGEST_PAUSE
        {
            application.backoff.reset();
        }
        let pause = application.backoff.pause();
        application.state = State::Failed { exit, until: now + pause };
        let failed = self.states().map(|state| match state {
            State::Failed { exit, .. } => Some(exit),
            State::Runs { .. } | State::Stopped(_) => None,
        });
        match failed.collect::<Option<Vec<Exit>>>() {
            Some(exits) => Decision::End(common(exits)),
            None => Decision::Restart(pause),
        }
    }

    /// The applications whose pause is over. They count as running.
    pub fn due(&mut self, now: Instant) -> Vec<usize> {
        if self.stopping {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (index, application) in self.applications.iter_mut().enumerate() {
            if let State::Failed { until, .. } = application.state
                && until <= now
            {
                application.state = State::Runs { since: now };
                due.push(index);
            }
        }
        due
    }

    /// When the next application is due; none while none waits.
    pub fn next(&self) -> Option<Instant> {
        let until = self.states().filter_map(|state| match state {
            State::Failed { until, .. } => Some(until),
            State::Runs { .. } | State::Stopped(_) => None,
        });
        until.min().filter(|_| !self.stopping)
    }

    fn states(&self) -> impl Iterator<Item = State> {
        self.applications.iter().map(|application| application.state)
    }

    /// The exit code after a stop: that of the applications that ran when it began.
    fn stopped(&self) -> Exit {
        let exits = self.states().filter_map(|state| match state {
            State::Stopped(exit) if exit != Exit::Clean => Some(exit),
            State::Stopped(_) | State::Failed { .. } | State::Runs { .. } => None,
        });
        common(exits.collect())
    }
}

/// The exit code of several failures: theirs if they have one, otherwise 1. Clean without a failure.
fn common(exits: Vec<Exit>) -> Exit {
    let Some(first) = exits.first().copied() else { return Exit::Clean };
    if exits.iter().all(|exit| *exit == first) { first } else { Exit::ChildFailed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(count: usize) -> (Supervisor, Instant) {
        let now = Instant::now();
        (Supervisor::new(count, now, &mut fastrand::Rng::with_seed(1)), now)
    }

    fn pause(decision: Decision) -> Duration {
        let Decision::Restart(pause) = decision else { panic!("{decision:?}") };
        pause
    }

    #[test]
    fn failed_application_restarts_after_growing_pauses() {
        let (mut all, mut now) = supervisor(2);
        assert_eq!(all.next(), None);
        for full in [10, 20, 40, 80, 160, 300, 300] {
            let given = pause(all.ended(0, Exit::Denied, now));
            let full = Duration::from_secs(full);
            assert!(given <= full && given >= full / 2, "{given:?} of {full:?}");
            assert_eq!(all.next(), Some(now + given));
            assert!(all.due(now + given - Duration::from_millis(1)).is_empty());
            now += given;
            assert_eq!((all.due(now), all.next()), (vec![0], None));
        }
    }

    #[test]
    fn pause_is_short_again_after_a_long_run() {
        let (mut all, mut now) = supervisor(2);
        for _ in 0..5 {
            now += pause(all.ended(0, Exit::Unavailable, now));
            all.due(now);
        }
        now += LONGEST_PAUSE;
        assert!(pause(all.ended(0, Exit::Unavailable, now)) <= FIRST_PAUSE);
    }

    #[test]
    fn process_ends_when_all_applications_have_failed() {
        for (first, last, code) in [
            (Exit::Denied, Exit::Denied, Exit::Denied),
            (Exit::Denied, Exit::Config, Exit::ChildFailed),
            // An end without a stop is a bug.
            (Exit::Clean, Exit::Internal, Exit::Internal),
        ] {
            let (mut all, now) = supervisor(3);
            pause(all.ended(0, first, now));
            pause(all.ended(2, first, now));
            assert_eq!(all.ended(1, last, now), Decision::End(code));
        }
        // One that runs again keeps the process.
        let (mut all, now) = supervisor(2);
        let later = now + pause(all.ended(0, Exit::Denied, now));
        assert_eq!(all.due(later), [0]);
        pause(all.ended(1, Exit::Denied, later));
    }

    #[test]
    fn stop_ends_with_the_code_of_those_that_ran() {
        let (mut all, now) = supervisor(3);
        pause(all.ended(2, Exit::Denied, now));
        all.stop();
        assert_eq!((all.next(), all.due(now + LONGEST_PAUSE)), (None, Vec::new()), "nothing is started");
        assert_eq!(all.ended(0, Exit::Clean, now), Decision::Continue);
        assert_eq!(all.ended(1, Exit::Clean, now), Decision::End(Exit::Clean));

        let (mut all, now) = supervisor(2);
        all.stop();
        assert_eq!(all.ended(0, Exit::Unavailable, now), Decision::Continue);
        assert_eq!(all.ended(1, Exit::Clean, now), Decision::End(Exit::Unavailable));
    }

    proptest::proptest! {
        #[test]
        fn process_ends_only_without_a_running_application(
            count in 1_usize..6, events in proptest::collection::vec((0_usize..6, 0_u64..400, proptest::bool::ANY), 1..60)
        ) {
            let (mut all, mut now) = supervisor(count);
            let mut runs = vec![true; count];
            for (index, seconds, is_end) in events {
                now += Duration::from_secs(seconds);
                for due in all.due(now) {
                    proptest::prop_assert!(!std::mem::replace(&mut runs[due], true));
                }
                proptest::prop_assert!(all.next().is_none_or(|next| next > now), "none is left waiting");
                let index = index % count;
                if !is_end || !runs[index] {
                    continue;
                }
                runs[index] = false;
                let decision = all.ended(index, Exit::Denied, now);
                if runs.iter().any(|runs| *runs) {
                    proptest::prop_assert!(matches!(decision, Decision::Restart(pause) if pause <= LONGEST_PAUSE));
                } else {
                    proptest::prop_assert_eq!(decision, Decision::End(Exit::Denied));
                    break;
                }
            }
        }
    }
}
