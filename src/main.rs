//! The entry point: arguments in, exit code out. The only module that decides how the process ends.

mod cli;
mod commands;
mod log;
mod signal;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use multilangd::aws::client;
use multilangd::aws::cloudwatch::CloudWatch;
use multilangd::aws::dynamodb::{self, Leases};
use multilangd::aws::http;
use multilangd::aws::kinesis::Attempts;
use multilangd::aws::state::State;
use multilangd::aws::{profile, region};
use multilangd::clock;
use multilangd::config::keys::own;
use multilangd::config::resolve::{self, Given, Resolved};
use multilangd::config::sdk::Sdk;
use multilangd::config::sdk::jvm::Properties;
use multilangd::config::settings::{self, Settings};
use multilangd::config::{Config, Remark, expand};
use multilangd::cpu::Surroundings;
use multilangd::daemon::{self, Ports};
use multilangd::exit::Exit;
use multilangd::health;
use multilangd::inspect;
use multilangd::install;
use multilangd::lease::table;
use multilangd::letters;
use multilangd::limits::Limits;
use multilangd::metrics::{Both, Discard, Sink, cloudwatch};
use multilangd::multilang::{Launcher, Program, launcher};
use multilangd::status::Watch;
use multilangd::unique;
use multilangd::version;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use cli::{Command, Words};
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
        Command::Run(file) => Box::pin(run_daemon(&file, &words, stop)).await,
        Command::Leases(leases) => match &leases.verb {
            Some(verb) => Box::pin(commands::leases::run(&leases, verb, &words)).await,
            None => Box::pin(show_leases(&leases, &words)).await,
        },
        Command::Health { file, ready } => Box::pin(check_health(file.as_deref(), &words, ready)).await,
        Command::Letters(command) => Box::pin(commands::letters::run(&command, &words)).await,
        Command::Install(folder) => Box::pin(install_into(&folder, &words)).await,
        Command::Print(text) => print(&text),
        Command::Test(test) => Box::pin(commands::test::test(&test, &words)).await,
        Command::Check { file, json, aspects } if aspects.is_any() => {
            Box::pin(commands::check::check(&file, &words, json, aspects)).await
        }
        Command::Check { file, json, .. } => check(&file, &words, json).await,
        Command::Tail(tail) => Box::pin(commands::streams::tail(&tail, &words, stop)).await,
        #[cfg(feature = "local")]
        Command::Put(put) => Box::pin(commands::streams::put(&put, &words, stop)).await,
        #[cfg(feature = "local")]
        Command::Local(local) => run_local(&local, &words, stop).await,
    }
}

/// The inputs of the configuration, except for the file's content.
async fn given(words: &Words) -> Given {
    let variables: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let asked = variables.get(expand::VARIABLE).is_some_and(|value| value == "true" || value == "1");
    let properties = Properties::read(&variables, &words.properties);
    let profile = profile::load(&variables, &properties).await;
    Given {
        bytes: Vec::new(),
        overrides: words.overrides.clone(),
        expand: words.expand || asked,
        options: words.options.clone(),
        variables,
        properties,
        profile,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// The path at which Java would find the file: a relative name is searched in each folder of the class path
/// first.
fn find(file: &Path, class_path: &[PathBuf]) -> PathBuf {
    let relative = file.is_relative();
    let mut places = class_path.iter().map(|folder| folder.join(file));
    places.find(|place| relative && place.is_file()).unwrap_or_else(|| file.to_owned())
}

/// Reads the file into the inputs of the configuration.
fn read(file: &Path, words: &Words, given: &mut Given) -> Result<PathBuf, Exit> {
    let place = find(file, &words.class_path);
    match std::fs::read(&place) {
        Ok(bytes) => given.bytes = bytes,
        Err(error) => {
            complain(&format!("failed to read the properties file {}: {error}", place.display()));
            return Err(Exit::NoInput);
        }
    }
    Ok(place)
}

fn log_warnings(name: &str, warnings: &[Remark], words: &Words) {
    words.notices.iter().for_each(|notice| warn!(event = "setting_warned", "{notice}"));
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
            log_warnings(name, &warnings, words);
            Ok(config)
        }
        Err(faults) => {
            log_warnings(name, &faults.warnings, words);
            faults.faults.iter().for_each(|fault| complain(&format!("{name}: {fault}")));
            Err(Exit::Config)
        }
    }
}

/// Reads a properties file, starts the log by its settings, and returns the configuration.
async fn configuration(file: &Path, words: &Words, worker: &str) -> Result<Config, Exit> {
    let mut given = given(words).await;
    let place = read(file, words, &mut given)?;
    let resolved = resolve::resolve(&given);
    start_log(&resolved)?;
    configured(resolved, &place.display().to_string(), words, worker)
}

/// A random worker id.
fn random_id() -> Result<String, Exit> {
    // Workers with the same id would share leases, so the id must come from the system's random numbers, not
    // from a clock.
    unique::random().map(unique::uuid).map_err(|error| {
        complain(&format!("failed to generate a worker id: {error}"));
        Exit::Internal
    })
}

async fn run_daemon(file: &Path, words: &Words, stop: CancellationToken) -> Exit {
    let mut given = given(words).await;
    let started = async {
        let place = read(file, words, &mut given)?;
        let name = place.display().to_string();
        let resolved = resolve::resolve(&given);
        start_daemon_log(&resolved)?;
        let config = configured(resolved, &name, words, &random_id()?)?;
        Box::pin(start(&config, stop).instrument(config.span())).await
    };
    Box::pin(started).await.err().unwrap_or(Exit::Clean)
}

#[cfg(feature = "local")]
async fn run_local(local: &cli::Local, words: &Words, stop: CancellationToken) -> Exit {
    let mut given = given(words).await;
    let mut place = None;
    if let Some(file) = local.file() {
        match read(file, words, &mut given) {
            Ok(found) => place = Some(found),
            Err(exit) => return exit,
        }
    }
    let mut home = multilangd::local::run::Home::new(local.options());
    let name = place.map_or("the example".to_owned(), |place| place.display().to_string());
    if local.file().is_none() {
        match home.example() {
            Ok(bytes) => given.bytes = bytes,
            Err(error) => {
                complain(&error);
                return error.exit();
            }
        }
    }
    let resolved = resolve::resolve(&given);
    if let Err(exit) = start_daemon_log(&resolved) {
        return exit;
    }
    let config = match configured(resolved, &name, words, multilangd::local::run::WORKER) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let span = config.span();
    match Box::pin(
        multilangd::local::run::run(home.logging(log::child_form(&config)), config, stop).instrument(span),
    )
    .await
    {
        Ok(()) => Exit::Clean,
        Err(error) => {
            complain(&error);
            error.exit()
        }
    }
}

fn print(text: &[u8]) -> Exit {
    if std::io::stdout().lock().write_all(text).is_ok() { Exit::Clean } else { Exit::Internal }
}

/// Prints the settings of a file. Starts nothing and calls nothing.
async fn check(file: &Path, words: &Words, json: bool) -> Exit {
    let mut given = given(words).await;
    if let Err(exit) = read(file, words, &mut given) {
        return exit;
    }
    let Resolved { settings, mut warnings, mut faults, sdk, .. } = resolve::resolve(&given);
    look_around(&settings, &sdk, &mut warnings, &mut faults);
    warnings.extend(words.notices.iter().map(|text| Remark {
        line: None,
        key: None,
        text: (*text).to_owned(),
    }));
    let limits = if Launcher::restores_limits() { Limits::look() } else { Limits::current() };
    let shown = if json {
        let mut shown = settings::json(&settings, &warnings, &faults);
        shown["limits"] = serde_json::json!({
            "leases": limits.leases(), "openFiles": limits.files, "processes": limits.processes,
        });
        format!("{shown:#}\n")
    } else {
        let limits = format!("limits on this machine: {limits}; they allow {} leases", limits.leases());
        settings::text(&settings, &limits, &warnings, &faults)
    };
    if print(shown.as_bytes()) == Exit::Internal {
        return Exit::Internal;
    }
    if faults.is_empty() { Exit::Clean } else { Exit::Config }
}

/// Calls the status endpoint of a daemon with these settings.
async fn check_health(file: Option<&Path>, words: &Words, ready: bool) -> Exit {
    let mut given = given(words).await;
    if let Some(file) = file
        && read(file, words, &mut given).is_err()
    {
        return Exit::ChildFailed;
    }
    let Resolved { settings, faults, .. } = resolve::resolve(&given);
    // Other settings do not matter to the endpoint.
    if let Some(fault) = faults.iter().find(|fault| fault.key.as_deref() == Some(own::STATUS)) {
        complain(fault);
        return Exit::ChildFailed;
    }
    let asked = async {
        let address = health::address(&settings.text(own::STATUS).unwrap_or_default())?;
        let asked = tokio::task::spawn_blocking(move || health::ask(address, ready));
        asked.await.unwrap_or_else(|error| Err(health::Error::Internal(error.to_string())))
    };
    match asked.await {
        Ok(()) => Exit::Clean,
        Err(error) => {
            complain(&error);
            Exit::ChildFailed
        }
    }
}

/// Copies this binary and the CA certificates that a daemon with this environment uses.
async fn install_into(folder: &Path, words: &Words) -> Exit {
    let given = given(words).await;
    let has_folder = given.variables.contains_key("SSL_CERT_DIR");
    let network = resolve::resolve(&given).sdk.network;
    let certificates = match http::certificates_in_use(&network, has_folder) {
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

/// Prints the state of the tables. Nothing is written.
async fn show_leases(leases: &cli::Leases, words: &Words) -> Exit {
    let config = match configuration(&leases.file, words, "-").await {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let settings = client::Settings { cloudwatch: None, ..client_settings(&config) };
    let clients = match clients(&settings, Arc::new(Discard)).await {
        Ok(clients) => clients,
        Err(exit) => return exit,
    };
    let (table, state) = tables(&clients, &config);
    let between = leases.watch.map_or(config.failover / 2, Duration::from_secs);
    let rules = config.reports.clone();
    match inspect::inspect(&config.table, &state, &table, between, rules, clock::wall_millis).await {
        Ok(seen) => {
            let shown = if leases.json { format!("{:#}\n", seen.json()) } else { seen.text() };
            print(shown.as_bytes())
        }
        Err(refused @ table::Error::Denied(_)) => {
            // Only now, since a user who may only read rows may not be allowed to describe the table.
            let error = match table.verify_key().await {
                Err(foreign @ (table::Error::Shape { .. } | table::Error::SeveralStreams { .. })) => foreign,
                Ok(()) | Err(_) => refused,
            };
            complain(&error);
            daemon::Error::from(error).exit()
        }
        Err(error) => {
            complain(&error);
            daemon::Error::from(error).exit()
        }
    }
}

/// Creates the clients and loads their credentials; reports errors.
async fn clients(settings: &client::Settings, sink: Arc<dyn Sink>) -> Result<client::Clients, Exit> {
    let refuse = |error: &dyn std::fmt::Display| {
        complain(error);
        Exit::Config
    };
    let clients = client::clients(settings, sink).await.map_err(|error| refuse(&error))?;
    clients.load_credentials().await.map_err(|error| refuse(&error))?;
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
    };
    (clients.leases(config.table.clone(), options), state)
}

/// Checks what a file cannot contain: whether this machine has a region and the program.
fn look_around(settings: &Settings, sdk: &Sdk, warnings: &mut Vec<Remark>, faults: &mut Vec<Remark>) {
    let remark = |key: &str, text: String| Remark { line: None, key: Some(key.to_owned()), text };
    let is_reported =
        |key: &str, faults: &[Remark]| faults.iter().any(|fault| fault.key.as_deref() == Some(key));
    let has_none = |name: &&str| settings.text(name).is_none();
    if !is_reported("regionName", faults)
        && ["kinesisClient.region", "dynamoDbClient.region"].iter().any(has_none)
    {
        if region::may_have_metadata(sdk.no_metadata) {
            let text = "no region is set, it will be read from the instance metadata".to_owned();
            warnings.push(remark("regionName", text));
        } else {
            faults.push(remark("regionName", client::NoRegion.to_string()));
        }
    }
    if let Err(error) = http::check_bundle(&sdk.network) {
        faults.push(remark("network.caBundle", error.to_string()));
    }
    let search = std::env::var_os("PATH");
    let executable = settings.text("executableName").unwrap_or_default();
    if let (false, Err(error)) =
        (is_reported("executableName", faults), Program::find(&executable, search.as_deref()))
    {
        warnings.push(remark("executableName", format!("on this machine: {error}")));
    }
    warnings.extend(commands::letters::remarks(settings));
}

async fn start(config: &Config, stop: CancellationToken) -> Result<(), Exit> {
    let refuse = |error: &dyn std::fmt::Display| {
        complain(error);
        Exit::Config
    };
    let program =
        Program::find(&config.executable, std::env::var_os("PATH").as_deref()).map_err(|e| refuse(&e))?;
    let watch = Watch::start(config).map_err(|error| {
        complain(&error);
        Exit::Taken
    })?;
    let metrics = config.metrics.clone().map(|settings| Arc::new(cloudwatch::Queue::new(settings)));
    let sink: Arc<dyn Sink> = match &metrics {
        Some(metrics) => Arc::new(Both(watch.board.clone(), metrics.clone())),
        None => watch.board.clone(),
    };
    let clients = clients(&client_settings(config), sink.clone()).await?;
    let list = Attempts { pause: config.list_shards_pause, most: config.list_shards_attempts };
    let stream =
        Arc::new(clients.stream(config.stream.clone()).with_arn(config.stream_arn.clone()).listing(list));
    let (table, state) = tables(&clients, config);
    let form = log::child_form(config);
    let (children, capacity) = daemon::equip(program, form, config).map_err(|error| {
        complain(&format!("failed to start a thread: {error}"));
        Exit::Internal
    })?;
    let letters = letters::open(config, |stream| Box::new(clients.letter_stream(stream)))
        .map_err(|error| refuse(&error))?;
    let ports = Ports {
        letters,
        table: Arc::new(table),
        state: Arc::new(state),
        shards: stream.clone(),
        records: stream.clone(),
        fanout: Some(stream),
        children,
        capacity,
        sink,
        budget: watch.budget.clone(),
        wall: clock::wall_millis,
        service: clients.service.clone(),
        surroundings: Some(Surroundings::of_process()),
    };
    let mut reporting = JoinSet::new();
    reporting.spawn(signal::log_status(watch.subject.clone()).in_current_span());
    let (mut sending, done) = (JoinSet::new(), CancellationToken::new());
    if let (Some(metrics), Some(client)) = (metrics, clients.cloudwatch) {
        let publisher = Arc::new(CloudWatch { client, namespace: config.application.clone() });
        sending.spawn(cloudwatch::run(metrics, publisher, done.clone()));
    }
    let ended = Box::pin(daemon::run(config, ports, stop)).await;
    // Metrics are stopped last, so that they include the end.
    done.cancel();
    while sending.join_next().await.is_some() {}
    ended.map_err(|error| {
        complain(&error);
        error.exit()
    })
}
