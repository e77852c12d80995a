//! One application: its clients, its ports, and the daemon on them.

use std::sync::Arc;

use multilangd::aws::client;
use multilangd::aws::cloudwatch::CloudWatch;
use multilangd::clock;
use multilangd::config::Config;
use multilangd::cpu::Surroundings;
use multilangd::daemon::{self, Machine, Ports};
use multilangd::exit::Exit;
use multilangd::letters;
use multilangd::metrics::{Both, Sink, cloudwatch};
use multilangd::multilang::Program;
use multilangd::status::Subject;
use multilangd::streams;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{client_settings, log, tables};

/// Why an application ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code of a process with this application alone.
    pub(crate) exit: Exit,
    /// The message.
    pub(crate) text: String,
}

impl Failure {
    /// Makes a failure of an error.
    pub(crate) fn of<E: std::fmt::Display>(exit: Exit) -> impl Fn(E) -> Self {
        move |error| Self { exit, text: error.to_string() }
    }
}

/// The shared part of the applications of a process.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Connections and credentials.
    pub(crate) clients: client::Shared,
    /// The limits of the process; none until the only application of the process starts.
    pub(crate) machine: Option<Machine>,
}

/// The record processor that an application runs.
///
/// # Errors
/// It cannot be run on this machine.
pub(crate) fn program(config: &Config) -> Result<Program, Failure> {
    let search = std::env::var_os("PATH");
    Program::find(&config.executable, search.as_deref()).map_err(Failure::of(Exit::Config))
}

/// Runs an application until `stop`, or until it fails.
pub(crate) async fn run(
    config: &Config,
    program: Program,
    subject: &Subject,
    host: &Host,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let metrics = config.metrics.clone().map(|settings| Arc::new(cloudwatch::Queue::new(settings)));
    let sink: Arc<dyn Sink> = match &metrics {
        Some(metrics) => Arc::new(Both(subject.board.clone(), metrics.clone())),
        None => subject.board.clone(),
    };
    let clients = host.clients.clients(&client_settings(config), sink.clone()).await;
    let clients = clients.map_err(Failure::of(Exit::Config))?;
    clients.load_credentials().await.map_err(Failure::of(Exit::Config))?;
    let (table, state) = tables(&clients, config);
    let form = log::child_form(config);
    let (children, capacity) = match &host.machine {
        Some(machine) => machine.equip(program, form, config),
        None => {
            let failed =
                |error| Failure { exit: Exit::Internal, text: format!("failed to start a thread: {error}") };
            Machine::prepare(1).map_err(failed)?.equip(program, form, config)
        }
    };
    let letters = letters::open(config, |stream| Box::new(clients.letter_stream(stream)))
        .map_err(Failure::of(Exit::Config))?;
    let ports = Ports {
        letters,
        table: Arc::new(table),
        state: Arc::new(state),
        streams: streams::of(&clients, config),
        children,
        capacity,
        sink,
        budget: subject.budget.clone(),
        wall: clock::wall_millis,
        service: clients.service.clone(),
        surroundings: Some(Surroundings::of_process()),
    };
    let (mut sending, done) = (JoinSet::new(), CancellationToken::new());
    if let (Some(metrics), Some(client)) = (metrics, clients.cloudwatch) {
        let publisher = Arc::new(CloudWatch { client, namespace: config.application.clone() });
        sending.spawn(cloudwatch::run(metrics, publisher, done.clone()).in_current_span());
    }
    let ended = Box::pin(daemon::run(config, ports, stop)).await;
    // Metrics are stopped last, so that they include the end.
    done.cancel();
    while sending.join_next().await.is_some() {}
    ended.map_err(|error| Failure { exit: error.exit(), text: error.to_string() })
}
