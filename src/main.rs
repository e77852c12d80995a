//! argv in, exit code out. The only place that decides how the process ends.

mod cli;
mod signal;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use multilangd::aws::client;
use multilangd::aws::dynamodb::Leases;
use multilangd::aws::kinesis::Stream;
use multilangd::config::{Config, resolve};
use multilangd::daemon::{self, Ports};
use multilangd::exit::Exit;
use multilangd::metrics::Discard;
use multilangd::multilang::Program;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

use cli::{Command, LogFormat};

fn main() -> ExitCode {
    let (command, format) = match cli::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Clean };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::Internal.into(),
            };
        }
    };
    log(format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the runtime can't start");
            return Exit::Internal.into();
        }
    };
    let exit = runtime.block_on(run(command));
    // After a clean stop nothing is left. After a second signal the dropped tasks kill their children
    // while the workers end, which must be waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    exit.into()
}

/// Lines go to stderr. Ours and the children's from INFO up, the SDK's from WARN, unless RUST_LOG
/// says otherwise.
fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,multilangd=info,child=info,dynoxide=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colours).with_target(false).init();
        }
    }
}

async fn run(command: Command) -> Exit {
    let stop = CancellationToken::new();
    let signals = match signal::Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals can't be handled");
            return Exit::Internal;
        }
    };
    tokio::select! {
        biased;
        // The work first: if it is done, a second signal doesn't matter.
        exit = work(command, stop.clone()) => exit,
        // Dropping the work kills what is left of the children.
        () = signals.serve(stop) => Exit::Interrupted,
    }
}

async fn work(command: Command, stop: CancellationToken) -> Exit {
    match command {
        Command::Run { file, notices } => {
            for notice in notices {
                warn!("{notice}");
            }
            run_daemon(&file, stop).await
        }
        #[cfg(feature = "local")]
        Command::Local(options) => match Box::pin(multilangd::local::run::run(options, stop)).await {
            Ok(()) => Exit::Clean,
            Err(error) => {
                complain(&error);
                error.exit()
            }
        },
    }
}

async fn run_daemon(file: &Path, stop: CancellationToken) -> Exit {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            complain(&format!("{}: the properties file can't be read: {error}", file.display()));
            return Exit::NoInput;
        }
    };
    // Two workers of one id would share leases: the id needs the system's randomness, not a clock's.
    let mut bits = [0; 16];
    let random = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bits));
    if let Err(error) = random {
        complain(&format!("no randomness for a worker id from /dev/urandom: {error}"));
        return Exit::Internal;
    }
    let worker = resolve::uuid(u128::from_ne_bytes(bits));
    let config = match resolve::resolve(&bytes, &worker) {
        Ok((config, warnings)) => {
            for warning in warnings {
                warn!("{}: {warning}", file.display());
            }
            config
        }
        Err(faults) => {
            for warning in &faults.warnings {
                warn!("{}: {warning}", file.display());
            }
            for fault in &faults.faults {
                complain(&format!("{}: {fault}", file.display()));
            }
            return Exit::Config;
        }
    };
    match start(&config, stop).await {
        Ok(()) => Exit::Clean,
        Err(exit) => exit,
    }
}

async fn start(config: &Config, stop: CancellationToken) -> Result<(), Exit> {
    let refuse = |error: &dyn std::fmt::Display| {
        complain(error);
        Exit::Config
    };
    let program =
        Program::find(&config.executable, std::env::var_os("PATH").as_deref()).map_err(|e| refuse(&e))?;
    let settings = client::Settings {
        region: config.region.clone(),
        kinesis_endpoint: config.kinesis_endpoint.clone(),
        dynamodb_endpoint: config.dynamodb_endpoint.clone(),
        credentials: None,
        failover: config.failover,
    };
    let clients = client::clients(&settings).await.map_err(|e| refuse(&e))?;
    let stream = Arc::new(Stream::new(clients.kinesis, config.stream.clone()));
    let ports = Ports {
        table: Arc::new(Leases::new(clients.dynamodb, config.table.clone())),
        shards: stream.clone(),
        records: stream,
        sink: Arc::new(Discard),
    };
    Box::pin(daemon::run(config, program, ports, stop)).await.map_err(|error| {
        complain(&error);
        error.exit()
    })
}

/// A fault that ends the process, in plain words on stderr, whatever the log's level is.
fn complain(error: &dyn std::fmt::Display) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "multilangd: {error}").is_err();
}
