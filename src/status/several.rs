//! The applications of a process that runs several, for its status endpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Show, Subject};
use crate::exit::Exit;
use crate::metrics::Board;
use crate::metrics::prometheus::{self, Among};

/// The applications of a process, in the order of their files.
#[derive(Debug, Clone)]
pub struct Applications(Arc<Vec<Application>>);

#[derive(Debug)]
struct Application {
    /// A name that no other application of the process has.
    name: String,
    /// The path of the properties file.
    file: String,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    subject: Subject,
    /// Number of starts.
    starts: u64,
    failed: Option<Failed>,
}

/// An application that ended with an error.
#[derive(Debug, Clone)]
struct Failed {
    exit: Exit,
    error: String,
    since: Instant,
    /// When it is started again.
    until: Instant,
}

impl Applications {
    /// Applications by unique name, path of the file, and state.
    pub fn new(applications: impl IntoIterator<Item = (String, String, Subject)>) -> Self {
        let application = |(name, file, subject)| {
            let state = Mutex::new(State { subject, starts: 0, failed: None });
            Application { name, file, state }
        };
        Self(Arc::new(applications.into_iter().map(application).collect()))
    }

    /// An application is started: from now on its state is that of `subject`.
    pub fn started(&self, index: usize, subject: Subject) {
        if let Some(application) = self.0.get(index) {
            let mut state = application.lock();
            let starts = state.starts + 1;
            *state = State { subject, starts, failed: None };
        }
    }

    /// An application has ended with an error, and is started again after a pause.
    pub fn failed(&self, index: usize, exit: Exit, error: String, pause: Duration) {
        if let Some(application) = self.0.get(index) {
            let (mut state, now) = (application.lock(), Instant::now());
            // Nothing of it runs any more.
            state.subject.board = Arc::new(Board::default());
            state.failed = Some(Failed { exit, error, since: now, until: now + pause });
        }
    }

    fn states(&self) -> impl Iterator<Item = (&Application, State)> {
        self.0.iter().map(|application| (application, application.lock().clone()))
    }
}

impl Application {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the application has failed, and was not ready since. It does not count until it is ready again: a process
    /// whose other applications work is not to be restarted for it.
    fn is_failed(&self) -> bool {
        self.failed.is_some() || self.starts > 1 && !self.subject.board.of_worker().ready
    }
}

/// Why a process with these applications is not ready: one that has not failed is not, or all have failed.
fn unready<'a>(applications: impl Iterator<Item = (&'a str, bool, Option<&'a str>)>) -> Option<String> {
    let mut runs = false;
    for (name, failed, reason) in applications {
        match reason {
            _ if failed => {}
            Some(reason) => return Some(format!("application {name}: {reason}")),
            None => runs = true,
        }
    }
    (!runs).then(|| "all applications have failed".to_owned())
}

impl Show for Applications {
    fn unready(&self) -> Option<String> {
        let states: Vec<_> = self.states().collect();
        unready(states.iter().map(|(application, state)| {
            (application.name.as_str(), state.is_failed(), state.subject.unready())
        }))
    }

    fn json(&self) -> Value {
        let now = Instant::now();
        let of = |(application, state): (&Application, State)| {
            let mut shown = state.subject.json();
            shown["name"] = application.name.as_str().into();
            shown["file"] = application.file.as_str().into();
            shown["starts"] = state.starts.into();
            shown["failed"] = state.failed.map_or(Value::Null, |failed| {
                json!({
                    "exitCode": failed.exit.code(),
                    "error": failed.error,
                    "secondsAgo": now.saturating_duration_since(failed.since).as_secs(),
                    "restartInSeconds": failed.until.saturating_duration_since(now).as_secs(),
                })
            });
            shown
        };
        json!({ "applications": self.states().map(of).collect::<Vec<_>>() })
    }

    fn prometheus(&self) -> String {
        let now = Instant::now();
        let states: Vec<_> = self.states().collect();
        let looks: Vec<_> = states.iter().map(|(_, state)| state.subject.look(now)).collect();
        let scenes = std::iter::zip(&states, &looks).map(|((application, state), look)| {
            let mut scene = state.subject.scene(look);
            let (failed, starts) = (state.failed.is_some(), state.starts);
            scene.among = Some(Among { name: &application.name, failed, starts });
            scene
        });
        prometheus::write(&scenes.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;
    use crate::budget::Budget;
    use crate::metrics::{OfShard, OfWorker, Sink as _};
    use crate::sequence::{Position, Sequence};
    use crate::shard::ShardId;

    fn subject() -> Subject {
        let identity =
            Identity { worker: "w".into(), application: "a".into(), stream: "s".into(), table: "t".into() };
        Subject {
            identity,
            board: Arc::default(),
            budget: Budget::new(1),
            stuck_after: Duration::from_secs(60),
            wall: || 0,
            started: Instant::now(),
        }
    }

    #[test]
    fn process_is_ready_while_every_application_that_runs_is() {
        let starting = Some("starting");
        for (applications, ready) in [
            (vec![("a", false, None), ("b", false, None)], true),
            (vec![("a", false, None), ("b", false, starting)], false),
            (vec![("a", false, None), ("b", true, starting)], true),
            (vec![("a", true, starting), ("b", true, None)], false),
        ] {
            assert_eq!(unready(applications.clone().into_iter()).is_none(), ready, "{applications:?}");
        }
        let reason = unready([("a", false, None), ("b", false, starting)].into_iter()).unwrap();
        assert!(reason.contains("application b: starting"), "{reason}");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_application_has_no_shards_and_its_error() {
        let all = Applications::new(["a", "b"].map(|name| (name.into(), format!("{name}.p"), subject())));
        let shard = ShardId::from("s");
        for index in 0..2 {
            let subject = subject();
            all.started(index, subject.clone());
            subject.board.worker(OfWorker::Ready);
            subject.board.shard(&shard, OfShard::Held { checkpoint: &Position::new(Sequence::TrimHorizon) });
        }
        assert_eq!(all.unready(), None);
        all.failed(1, Exit::Denied, "no access".to_owned(), Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(4)).await;
        let shown = all.json();
        let shards = |index: usize| shown["applications"][index]["shards"].as_array().unwrap().len();
        assert_eq!((shards(0), shards(1)), (1, 0));
        assert_eq!(shown["applications"][0]["failed"], Value::Null);
        assert_eq!(
            shown["applications"][1]["failed"],
            json!({ "exitCode": 77, "error": "no access", "secondsAgo": 4, "restartInSeconds": 6 })
        );
        assert_eq!(all.unready(), None, "the other one serves");
        let again = subject();
        all.started(1, again.clone());
        assert_eq!(all.unready(), None, "while the application starts again, too");
        again.board.worker(OfWorker::Ready);
        again.board.worker(OfWorker::Stopping);
        assert!(all.unready().is_some_and(|reason| reason.contains("application b")));
        let text = all.prometheus();
        assert!(text.contains("multilangd_application_starts_total{application=\"b\"} 2\n"), "{text}");
    }
}
