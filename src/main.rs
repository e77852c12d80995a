//! The entry point: arguments in, exit code out. The only module that decides how the process ends.

mod cli;
mod commands;
mod files;
mod log;
mod run;
mod signal;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use multilangd::aws::client;
use multilangd::aws::dynamodb::{self, Leases};
use multilangd::aws::http;
use multilangd::aws::state::State;
use multilangd::config::resolve::{self, Resolved};
use multilangd::config::{Config, Remark};
use multilangd::exit::Exit;
use multilangd::install;
use multilangd::lease::table::Streams;
use multilangd::metrics::Sink;
use multilangd::multilang::launcher;
use multilangd::unique;
use multilangd::version;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use cli::{Command, Verb, Words};
use log::complain;

fn main() -> ExitCode {
    // A process that becomes a record processor does nothing else.
    if let Some(error) = launcher::become_program(std::env::args_os()) {
        complain(&error);
        return ExitCode::from(launcher::CANNOT_RUN);
    }
    let (command, words) = match cli::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Clean };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::Internal.into(),
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("failed to start the runtime: {error}"));
            return Exit::Internal.into();
        }
    };
    let exit = runtime.block_on(run(command, words));
    // After a clean shutdown nothing is left. After a second signal the dropped tasks kill their children
    // while the runtime's workers end, which must be awaited.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    log::end();
    exit.into()
}

async fn run(command: Command, words: Words) -> Exit {
    let stop = CancellationToken::new();
    let is_daemon = match command {
        Command::Run(_) => true,
        #[cfg(feature = "local")]
        Command::Local(_) => true,
        _ => false,
    };
    let signals = match signal::Signals::install(is_daemon) {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("failed to install signal handlers: {error}"));
            return Exit::Internal;
        }
    };
    let mut orphans = JoinSet::new();
    multilangd::multilang::orphans::wait_for(&mut orphans);
    let stops_in_order = match command {
        Command::Run(_) => true,
        Command::Leases(_) | Command::Print(_) | Command::Check { .. } => false,
        Command::Health { .. } | Command::Install(_) | Command::Letters(_) | Command::Test(_) => false,
        Command::Tail(_) => true,
        #[cfg(feature = "local")]
        Command::Local(_) | Command::Put(_) => true,
    };
    let asked = stops_in_order.then(|| stop.clone());
    tokio::select! {
        biased;
        // The work comes first: once it is done a second signal does not matter.
        exit = work(command, words, stop) => exit,
        // Dropping the work kills the remaining children.
        () = signals.serve(asked) => Exit::Interrupted,
    }
}

async fn work(command: Command, words: Words, stop: CancellationToken) -> Exit {
    match command {
        Command::Run(files) => Box::pin(run::daemon(&files, &words, stop)).await,
        Command::Leases(leases) => match &leases.verb {
            Some(Verb::Copy { from, dry_run }) => {
                Box::pin(commands::copy::run(&leases, from, *dry_run, &words)).await
            }
            Some(verb) => Box::pin(commands::leases::run(&leases, verb, &words)).await,
            None => Box::pin(commands::leases::show(&leases, &words)).await,
        },
        Command::Health { files, ready } => Box::pin(commands::health::check(&files, &words, ready)).await,
        Command::Letters(command) => Box::pin(commands::letters::run(&command, &words)).await,
        Command::Install(folder) => Box::pin(install_into(&folder, &words)).await,
        Command::Print(text) => print(&text),
        Command::Test(test) => Box::pin(commands::test::test(&test, &words)).await,
        Command::Check { files, json, aspects } if aspects.is_any() => {
            Box::pin(commands::aspects::check(&files, &words, json, aspects)).await
        }
        Command::Check { files, json, .. } => Box::pin(commands::check::check(&files, &words, json)).await,
        Command::Tail(tail) => Box::pin(commands::streams::tail(&tail, &words, stop)).await,
        #[cfg(feature = "local")]
        Command::Put(put) => Box::pin(commands::streams::put(&put, &words, stop)).await,
        #[cfg(feature = "local")]
        Command::Local(local) => Box::pin(run::local::run(&local, &words, stop)).await,
    }
}

/// Logs the remarks about the command line.
fn log_notices(words: &Words) {
    words.notices.iter().for_each(|notice| warn!(event = "setting_warned", "{notice}"));
}

fn log_warnings(name: &str, warnings: &[Remark]) {
    warnings.iter().for_each(|warning| warn!(event = "setting_warned", "{name}: {warning}"));
}

fn start_log(resolved: &Resolved) -> Result<(), Exit> {
    log::start(&resolved.settings).map_err(|error| {
        complain(&error);
        Exit::Config
    })
}

/// Starts the log of a daemon, whose first line names the build.
fn start_daemon_log(resolved: &Resolved) -> Result<(), Exit> {
    start_log(resolved)?;
    let (commit, target, features) = (version::COMMIT, version::TARGET, version::FEATURES);
    info!(
        event = "daemon_starting",
        version = version::VERSION,
        commit,
        target,
        features,
        "starting multilangd"
    );
    Ok(())
}

/// The configuration; reports all errors if there are any.
fn configured(resolved: Resolved, name: &str, words: &Words, worker: &str) -> Result<Config, Exit> {
    match resolved.config(worker) {
        Ok((config, warnings)) => {
            log_notices(words);
            log_warnings(name, &warnings);
            Ok(config)
        }
        Err(faults) => {
            log_notices(words);
            log_warnings(name, &faults.warnings);
            faults.faults.iter().for_each(|fault| complain(&format!("{name}: {fault}")));
            Err(Exit::Config)
        }
    }
}

/// Reads a properties file, starts the log by its settings, and returns the configuration.
async fn configuration(file: &Path, words: &Words, worker: &str) -> Result<Config, Exit> {
    let mut given = files::given(words).await;
    let place = files::read(file, words, &mut given)?;
    let resolved = resolve::resolve(&given);
    start_log(&resolved)?;
    configured(resolved, &place.display().to_string(), words, worker)
}

/// A random worker id; reports an error.
fn random_id() -> Result<String, Exit> {
    worker_id().map_err(|error| {
        complain(&error);
        Exit::Internal
    })
}

/// A random worker id.
fn worker_id() -> Result<String, String> {
    // Workers with the same id would share leases, so the id must come from the system's random numbers, not
    // from a clock.
    unique::random().map(unique::uuid).map_err(|error| format!("failed to generate a worker id: {error}"))
}

fn print(text: &[u8]) -> Exit {
    if std::io::stdout().lock().write_all(text).is_ok() { Exit::Clean } else { Exit::Internal }
}

/// Copies this binary and the CA certificates that a daemon with this environment uses.
async fn install_into(folder: &Path, words: &Words) -> Exit {
    let given = files::given(words).await;
    let network = resolve::resolve(&given).sdk.network;
    let certificates = match http::certificates_in_use(&network) {
        Ok(certificates) => certificates,
        Err(error) => {
            complain(&error);
            return Exit::Config;
        }
    };
    match install::install(folder, certificates.as_deref()) {
        Ok(written) => {
            let mut text: String = written.iter().map(|path| format!("wrote {}\n", path.display())).collect();
            if certificates.is_none() {
                text.push_str("found no file with CA certificates: wrote none\n");
            }
            print(text.as_bytes())
        }
        Err(error) => {
            complain(&error);
            Exit::NoInput
        }
    }
}

/// Creates the clients and loads their credentials.
///
/// # Errors
/// The message of a configuration error.
async fn clients(settings: &client::Settings, sink: Arc<dyn Sink>) -> Result<client::Clients, String> {
    let clients = client::clients(settings, sink).await.map_err(|error| error.to_string())?;
    clients.load_credentials().await.map_err(|error| error.to_string())?;
    Ok(clients)
}

fn client_settings(config: &Config) -> client::Settings {
    client::Settings {
        kinesis: config.kinesis.clone(),
        dynamodb: config.dynamodb.clone(),
        cloudwatch: config.metrics.as_ref().map(|_| config.cloudwatch.clone()),
        sdk: config.sdk.clone(),
        failover: config.failover,
    }
}

fn tables(clients: &client::Clients, config: &Config) -> (Leases, State) {
    let state = State::new(
        clients.dynamodb.clone(),
        config.table.clone(),
        config.state_table.clone(),
        config.reports_table.clone(),
    );
    let options = dynamodb::Options {
        protected: config.protect_table,
        recoverable: config.recover_table,
        segments: config.scan_segments,
        initial: config.initial.sequence(),
        streams: Streams::of(&config.streams),
    };
    (clients.leases(config.table.clone(), options), state)
}
