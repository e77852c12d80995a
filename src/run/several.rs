//! Several applications in one process. Each runs as if it were alone; one that ends with an error is started again
//! while the others run on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use multilangd::aws::http;
use multilangd::budget::Budget;
use multilangd::config::Config;
use multilangd::config::resolve::Resolved;
use multilangd::config::several;
use multilangd::daemon::Machine;
use multilangd::exit::Exit;
use multilangd::letters;
use multilangd::multilang::Program;
use multilangd::status::several::Applications;
use multilangd::status::{Page, Show, Subject};
use multilangd::supervisor::{Decision, Supervisor};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, warn};

use super::application::{self, Failure, Host};
use crate::cli::Words;
use crate::files::{self, File};
use crate::log::complain;
use crate::{log_notices, log_warnings, random_id, signal, start_daemon_log, worker_id};

/// Changes the configuration of each application before it starts.
pub(super) type Adopt = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// Starts the log, and returns the files with their configurations. `is_local` means that all tables are in one place,
/// whatever the files say.
///
/// # Errors
/// A file has errors, or two files conflict. They are reported.
pub(super) fn configured(
    files: Vec<File>,
    words: &Words,
    is_local: bool,
) -> Result<Vec<(File, Config)>, Exit> {
    let resolved: Vec<Resolved> = files.iter().map(File::resolved).collect();
    let first = resolved.first().ok_or(Exit::NoInput)?;
    start_daemon_log(first)?;
    let found = faults(&files, &resolved, is_local);
    log_notices(words);
    std::iter::zip(&files, &resolved).for_each(|(file, one)| log_warnings(&file.name, &one.warnings));
    if !found.is_empty() {
        found.iter().for_each(|fault| complain(fault));
        return Err(Exit::Config);
    }
    let mut all = Vec::new();
    for (file, one) in std::iter::zip(files, resolved) {
        let (config, _) = one.config(&random_id()?).map_err(|faults| {
            complain(&faults);
            Exit::Config
        })?;
        all.push((file, config));
    }
    Ok(all)
}

/// Runs the applications until `stop`, or until all of them have failed.
pub(super) async fn run(all: Vec<(File, Config)>, adopt: Adopt, stop: CancellationToken) -> Result<(), Exit> {
    let (status, buffer) =
        all.first().map(|(_, config)| (config.status, config.buffer)).ok_or(Exit::NoInput)?;
    let names: Vec<(&str, &str)> =
        all.iter().map(|(file, config)| (file.name.as_str(), config.application.as_str())).collect();
    let names = several::names(&names);
    let budget = Budget::new(buffer);
    let shown = std::iter::zip(&names, &all).map(|(name, (file, config))| {
        (name.clone(), file.name.clone(), Subject::new(config, budget.clone()))
    });
    let shown = Applications::new(shown);
    let _page = Page::start(status, Arc::new(shown.clone())).map_err(|error| {
        complain(&error);
        Exit::Taken
    })?;
    let mut reporting = JoinSet::new();
    reporting.spawn(signal::log_status(Arc::new(shown.clone()) as Arc<dyn Show>));
    let machine = Machine::prepare(all.len()).map_err(|error| {
        complain(&format!("failed to start a thread: {error}"));
        Exit::Internal
    })?;
    let host = Arc::new(Host { machine: Some(machine), ..Host::default() });
    let files = all.into_iter().map(|(file, _)| Arc::new(file)).collect();
    let process = Process { files, names, adopt, shown, budget, host, stop, started: Instant::now() };
    Box::pin(process.supervise()).await
}

/// All errors of the files, and between them, before anything starts.
fn faults(files: &[File], resolved: &[Resolved], is_local: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (file, one) in std::iter::zip(files, resolved) {
        found.extend(one.faults.iter().map(|fault| format!("{}: {fault}", file.name)));
    }
    found.extend(files::conflicts(files, resolved, is_local).into_iter().map(|conflict| conflict.text));
    if !found.is_empty() {
        return found;
    }
    for file in files {
        let Ok((config, _)) = file.resolved().config("-") else { continue };
        found.extend(unusable(&config).into_iter().map(|fault| format!("{}: {fault}", file.name)));
    }
    found
}

/// The faults of an application on this machine.
fn unusable(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(application::program(config).err().map(|failure| failure.text));
    found.extend(http::check_bundle(&config.sdk.network).err().map(|error| error.to_string()));
    let worker = config.worker.to_string();
    found.extend(
        config.dead_letters.iter().filter_map(|destination| letters::check(destination, &worker).err()),
    );
    found
}

/// The applications of this process, by index.
struct Process {
    files: Vec<Arc<File>>,
    names: Vec<String>,
    adopt: Adopt,
    shown: Applications,
    budget: Arc<Budget>,
    host: Arc<Host>,
    stop: CancellationToken,
    started: Instant,
}

/// The applications that run.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Result<(), Failure>>,
    indices: HashMap<Id, usize>,
}

impl Process {
    async fn supervise(self) -> Result<(), Exit> {
        let (mut running, mut stopping) = (Running::default(), false);
        let mut supervisor = Supervisor::new(self.files.len(), Instant::now(), &mut fastrand::Rng::new());
        for index in 0..self.files.len() {
            self.start(index, &mut running);
        }
        loop {
            let due = supervisor.next();
            let waited = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    supervisor.stop();
                }
                Some(ended) = running.tasks.join_next_with_id() => {
                    let Some((index, ended)) = running.ended(ended) else { continue };
                    // It may have ended because of a stop that came after the first branch was polled.
                    if self.stop.is_cancelled() {
                        stopping = true;
                        supervisor.stop();
                    }
                    let exit = ended.as_ref().err().map_or(Exit::Clean, |failure| failure.exit);
                    let decision = supervisor.ended(index, exit, Instant::now());
                    if let Some(exit) = self.act(index, ended, decision) {
                        return if exit == Exit::Clean { Ok(()) } else { Err(exit) };
                    }
                }
                () = waited => {
                    for index in supervisor.due(Instant::now()) {
                        info!(event = "application_restarting", application = self.name(index),
                            "starting the application again");
                        self.start(index, &mut running);
                    }
                }
            }
        }
    }

    fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    /// Logs and shows the end of an application. Returns the exit code at the end of the process.
    fn act(&self, index: usize, ended: Result<(), Failure>, decision: Decision) -> Option<Exit> {
        let application = self.name(index);
        let failure = ended.err();
        let text = failure.as_ref().map(|failure| failure.text.as_str());
        let text = text.unwrap_or("the application ended without a stop");
        match decision {
            Decision::Restart(pause) => {
                let exit = failure.as_ref().map_or(Exit::Internal, |failure| failure.exit);
                self.failed(index, exit, text, pause);
                None
            }
            Decision::Continue | Decision::End(_) if self.stop.is_cancelled() => {
                if let Some(failure) = failure {
                    error!(
                        event = "application_failed_at_shutdown",
                        application,
                        exit_code = failure.exit.code(),
                        error = failure.text,
                        "application failed during the shutdown"
                    );
                }
                if let Decision::End(exit) = decision { Some(exit) } else { None }
            }
            Decision::Continue => None,
            Decision::End(exit) => {
                complain(&format!(
                    "all {} applications have failed; the last, {application}: {text}",
                    self.files.len()
                ));
                Some(exit)
            }
        }
    }

    fn failed(&self, index: usize, exit: Exit, error: &str, pause: Duration) {
        self.shown.failed(index, exit, error.to_owned(), pause);
        warn!(event = "application_failed", application = self.name(index), exit_code = exit.code(), error,
            retry_in = ?pause, "application failed, starting it again");
    }

    /// Starts an application in a task of its own, so that a panic ends only this application.
    fn start(&self, index: usize, running: &mut Running) {
        let (Some(file), Some(name)) = (self.files.get(index).cloned(), self.names.get(index).cloned())
        else {
            return;
        };
        let (shown, budget, host) = (self.shown.clone(), self.budget.clone(), self.host.clone());
        let (adopt, stop, started) = (self.adopt.clone(), self.stop.child_token(), self.started);
        let task = running.tasks.spawn(async move {
            // Each start has an id of its own, as each start of a daemon.
            let worker = worker_id().map_err(Failure::of(Exit::Internal))?;
            let (mut config, _) = file.resolved().config(&worker).map_err(Failure::of(Exit::Config))?;
            adopt(&mut config);
            let subject = Subject { started, ..Subject::new(&config, budget) };
            shown.started(index, subject.clone());
            let span = config.span_among(&name);
            let run = async {
                let program: Program = application::program(&config)?;
                let mut alarms = JoinSet::new();
                alarms.spawn(subject.clone().watch().in_current_span());
                application::run(&config, program, &subject, &host, stop).await
            };
            Box::pin(run.instrument(span)).await
        });
        running.indices.insert(task.id(), index);
    }
}

impl Running {
    /// The application of a task that has ended, and how it ended.
    fn ended(
        &mut self,
        ended: Result<(Id, Result<(), Failure>), JoinError>,
    ) -> Option<(usize, Result<(), Failure>)> {
        let (id, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let text = format!("internal error: {error}");
                (error.id(), Err(Failure { exit: Exit::Internal, text }))
            }
        };
        Some((self.indices.remove(&id)?, ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_an_application_ends_only_its_task() {
        let mut running = Running::default();
        let quiet = CancellationToken::new();
        let stopped = quiet.clone();
        for index in 0..2 {
            let stopped = stopped.clone();
            let task = running.tasks.spawn(async move {
                assert_eq!(index, 1, "a bug");
                stopped.cancelled().await;
                Ok(())
            });
            running.indices.insert(task.id(), index);
        }
        let ended = running.tasks.join_next_with_id().await.unwrap();
        let (index, failure) = running.ended(ended).unwrap();
        let failure = failure.unwrap_err();
        assert_eq!((index, failure.exit), (0, Exit::Internal));
        assert!(failure.text.contains("a bug"), "{failure:?}");
        quiet.cancel();
        let ended = running.tasks.join_next_with_id().await.unwrap();
        assert_eq!(running.ended(ended), Some((1, Ok(()))));
    }
}
