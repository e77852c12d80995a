//! `multilangd local`: endpoints, a stream, records, and the daemon on them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::completion::{self, Decision, Judge, Puts};
use super::feed::{Form, Input};
use super::files::{self, Temporary};
use super::stdout::tell;
use super::streams::make_stream;
use super::{example, feed, kinesis, progress, tables, watch};
use crate::aws::{client, dynamodb, kinesis::Attempts, state::State};
use crate::clock;
use crate::config::{self, Config};
use crate::daemon::{self, Machine, Ports};
use crate::exit::Exit;
use crate::lease::Table;
use crate::lease::table::Streams;
use crate::letters;
use crate::metrics::{Board, Discard};
use crate::multilang::Program;
use crate::multilang::output::LogForm;
use crate::multilang::process::ProgramError;
use crate::sequence::Position;
use crate::shard::ShardId;
use crate::status::{self, Watch};
use crate::streams;

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
/// The worker id if the file sets none: a fixed one, so that the next run acquires its own leases without
/// waiting.
pub const WORKER: &str = "local";
/// Interval of the checks for `--exit-when-done`.
const LOOK: Duration = Duration::from_millis(100);

/// The options of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Number of shards, if the stream must be created.
    pub shards: i32,
    /// The input whose lines are put as records.
    pub put: Option<Input>,
    /// End once all records of `put` are checkpointed, or after this long without a checkpoint.
    pub exit_when_done: Option<Duration>,
    /// Whether the record processors are restarted when their files change.
    pub watch: bool,
    /// The folder for streams and tables; none for memory.
    pub data: Option<PathBuf>,
    /// Port of the Kinesis endpoint; 0 for any free one.
    pub kinesis_port: u16,
    /// Port of the DynamoDB endpoint; 0 for any free one.
    pub dynamodb_port: u16,
}

/// Why local mode failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that an option names cannot be used.
    #[error("failed to use {option} {}: {source} ({hint})", path.display())]
    Named {
        /// The option.
        option: &'static str,
        /// Its value.
        path: PathBuf,
        /// The error.
        source: io::Error,
        /// The remedy.
        hint: &'static str,
    },
    /// The records of `--put` could not be put.
    #[error("failed to put the lines of --put {input}: {source}")]
    Put {
        /// The option's value.
        input: Input,
        /// The error.
        source: feed::Unput,
    },
    /// Not all records of `--put` were checkpointed.
    #[error("--exit-when-done: {0}")]
    NotDone(String),
    /// Both endpoints have the same port.
    #[error(
        "--kinesis-port and --dynamodb-port are both {0} (choose different ports, or 0 for any free one)"
    )]
    SamePort(u16),
    /// The folder for the example could not be created.
    #[error("failed to write the example to a temporary folder: {0}")]
    Temporary(io::Error),
    /// The record processor cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A port cannot be listened on.
    #[error(
        "failed to listen on port {port} of 127.0.0.1 for the embedded {endpoint}: {reason} ({option} \
         sets another port; 0 takes any free one)"
    )]
    Port {
        /// The endpoint.
        endpoint: &'static str,
        /// The option that sets the port.
        option: &'static str,
        /// The port.
        port: u16,
        /// The error.
        reason: String,
    },
    /// The data of an earlier run cannot be used.
    #[error("failed to use --data: {0}")]
    Data(#[from] kinesis::DataError),
    /// The Kinesis endpoint failed.
    #[error("failed to start the embedded Kinesis: {0}")]
    Kinesis(kinesis::Error),
    /// The status endpoint failed.
    #[error(transparent)]
    Status(#[from] status::Taken),
    /// The DynamoDB endpoint failed.
    #[error(transparent)]
    Tables(tables::Error),
    /// Records of a file, and the end, belong to one stream.
    #[error(
        "--put and --exit-when-done need a properties file with streamName (with multilangd.streams, put records with \
         multilangd put STREAM --local --kinesis-port PORT)"
    )]
    SeveralStreams,
    /// The stream could not be created or read.
    #[error("failed to use the local stream {stream}: {reason}")]
    Stream {
        /// Name of the stream.
        stream: String,
        /// The error.
        reason: String,
    },
    /// The daemon failed.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
}

impl Error {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::SamePort(_) | Self::SeveralStreams => Exit::Usage,
            Self::NotDone(_) => Exit::ChildFailed,
            Self::Named { .. } | Self::Put { .. } => Exit::NoInput,
            Self::Program(_) | Self::Temporary(_) => Exit::Config,
            Self::Data(kinesis::DataError::InUse { .. }) => Exit::Taken,
            Self::Data(_) => Exit::NoInput,
            Self::Port { .. } | Self::Kinesis(_) | Self::Tables(_) | Self::Status(_) => Exit::Taken,
            Self::Stream { .. } => Exit::Unavailable,
            Self::Daemon(error) => error.exit(),
        }
    }

    fn kinesis(error: kinesis::Error, port: u16) -> Self {
        let port = |reason| Self::Port { endpoint: "Kinesis", option: "--kinesis-port", port, reason };
        match error {
            kinesis::Error::Data(error) => Self::Data(error),
            kinesis::Error::AddressInUse { .. } => port(IN_USE.to_owned()),
            kinesis::Error::Listen { source, .. } => port(source.to_string()),
            error @ kinesis::Error::NotLoopback { .. } => Self::Kinesis(error),
        }
    }

    fn tables(error: tables::Error, port: u16) -> Self {
        let port = |reason| Self::Port { endpoint: "DynamoDB", option: "--dynamodb-port", port, reason };
        match error {
            tables::Error::Data(error) => Self::Data(error),
            tables::Error::Taken { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                port(IN_USE.to_owned())
            }
            tables::Error::Taken { source, .. } => port(source.to_string()),
            error @ (tables::Error::NotLoopback(_) | tables::Error::Database(_)) => Self::Tables(error),
        }
    }
}

const IN_USE: &str = "another process uses it";

/// Runs until `stop`.
///
/// # Errors
/// Why it failed or ended earlier.
pub async fn run(home: Home, mut config: Config, stop: CancellationToken) -> Result<(), Error> {
    let options = &home.options;
    let program = Program::find(&config.executable, std::env::var_os("PATH").as_deref())?;
    let endpoints = Endpoints::start(options).await?;
    warn_about_endpoints(&config);
    endpoints.urls().adopt(&mut config);
    let ended = Box::pin(serve(&home, &config, program, &endpoints.kinesis, stop)).await;
    endpoints.stop().await;
    ended
}

/// The embedded endpoints.
#[derive(Debug)]
pub struct Endpoints {
    kinesis: kinesis::Kinesis,
    tables: tables::Tables,
}

impl Endpoints {
    /// Starts the endpoints and prints their URLs.
    ///
    /// # Errors
    /// An option, a port or the data folder cannot be used.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        // Before anything is created.
        options.check()?;
        let data = match &options.data {
            Some(data) => Some(open_data(data)?),
            None => None,
        };
        let file = data.as_ref().map(|data| data.join("dynamodb.sqlite"));
        if let (Some(data), Some(file)) = (&data, &file)
            && data.join("kinesis").exists()
            && !file.exists()
        {
            warn!(event = "tables_missing", file = %file.display(),
                "the data folder contains streams but no tables: starting with new leases and checkpoints");
        }
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let kinesis = kinesis::Kinesis::start(kinesis::Options {
            address: loopback(options.kinesis_port),
            data: data.as_ref().map(|data| data.join("kinesis")),
            region: REGION.to_owned(),
            account: ACCOUNT.to_owned(),
            ..kinesis::Options::default()
        })
        .await
        .map_err(|error| Error::kinesis(error, options.kinesis_port))?;
        let tables = match tables::Tables::start(loopback(options.dynamodb_port), file.as_deref()).await {
            Ok(tables) => tables,
            Err(error) => {
                kinesis.stop().await;
                return Err(Error::tables(error, options.dynamodb_port));
            }
        };
        let (url, tables_url) = (kinesis.url(), tables.url());
        tell(&format!("Kinesis at {url}, DynamoDB at {tables_url}; any region and credentials are accepted"));
        Ok(Self { kinesis, tables })
    }

    /// Their URLs.
    pub fn urls(&self) -> Urls {
        Urls { kinesis: self.kinesis.url(), dynamodb: self.tables.url() }
    }

    /// Creates the streams of an application that was pointed to the endpoints, unless they exist.
    ///
    /// # Errors
    /// A stream cannot be created.
    pub async fn make_streams(&self, config: &Config, shards: i32) -> Result<(), Error> {
        let failed = |reason: String| Error::Stream { stream: config.stream.clone(), reason };
        let clients = client::clients(&client_settings(config), Arc::new(Discard)).await;
        let kinesis = clients.map_err(|error| failed(error.to_string()))?.kinesis;
        for name in config.stream_names() {
            make_stream(&kinesis, name, shards).await.map_err(failed)?;
        }
        make_letter_streams(&kinesis, config).await
    }

    /// Stops the endpoints; calls in progress finish.
    pub async fn stop(self) {
        self.kinesis.stop().await;
        self.tables.stop().await;
    }
}

/// The URLs of the embedded endpoints.
#[derive(Debug, Clone)]
pub struct Urls {
    kinesis: String,
    dynamodb: String,
}

impl Urls {
    /// Points an application to the endpoints, which have neither metrics nor backups nor streams of other accounts.
    pub fn adopt(&self, config: &mut Config) {
        let region = config.kinesis.region.clone().unwrap_or_else(|| REGION.to_owned());
        let settings = client::Settings::local(&self.kinesis, &self.dynamodb, &region, config.failover);
        (config.kinesis, config.dynamodb, config.sdk) = (settings.kinesis, settings.dynamodb, settings.sdk);
        (config.metrics, config.stream_arn, config.recover_table, config.measure) =
            (None, None, false, false);
        // ARNs of the file are of streams and consumers at AWS.
        config.use_stream_arn = false;
        config.streams.named.iter_mut().for_each(|stream| stream.consumer = None);
        if let Some(fanout) = &mut config.fanout {
            fanout.arn = None;
        }
    }
}

fn client_settings(config: &Config) -> client::Settings {
    client::Settings {
        kinesis: config.kinesis.clone(),
        dynamodb: config.dynamodb.clone(),
        cloudwatch: None,
        sdk: client::Settings::local_sdk(),
        failover: config.failover,
    }
}

/// Warns about endpoints of the file, which local mode ignores.
pub fn warn_about_endpoints(config: &Config) {
    if let (Some(given), _) | (None, Some(given)) = (&config.kinesis.endpoint, &config.dynamodb.endpoint) {
        warn!(event = "endpoint_ignored", given, "ignoring an endpoint of the properties file in local mode");
    }
}

/// Creates the streams of dead letters, unless they exist.
async fn make_letter_streams(kinesis: &aws_sdk_kinesis::Client, config: &Config) -> Result<(), Error> {
    for destination in &config.dead_letters {
        if let config::letters::Destination::Kinesis(stream) = destination
            && !stream.starts_with("arn:")
        {
            let failed = |reason| Error::Stream { stream: stream.clone(), reason };
            make_stream(kinesis, stream, 1).await.map_err(failed)?;
        }
    }
    Ok(())
}

async fn serve(
    home: &Home,
    config: &Config,
    program: Program,
    endpoint: &kinesis::Kinesis,
    stop: CancellationToken,
) -> Result<(), Error> {
    let failed = |reason: String| Error::Stream { stream: config.stream.clone(), reason };
    let options = &home.options;
    let is_one = config.streams.is_empty();
    if !is_one && (options.put.is_some() || options.exit_when_done.is_some()) {
        return Err(Error::SeveralStreams);
    }
    let watch = Watch::start(config)?;
    let board = watch.board.clone();
    let clients = client::clients(&client_settings(config), board.clone())
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut made = false;
    for name in config.stream_names() {
        made |= make_stream(&clients.kinesis, name, options.shards).await.map_err(failed)?;
    }

    let list = Attempts { pause: config.list_shards_pause, most: config.list_shards_attempts };
    let stream = Arc::new(clients.stream(config.stream.clone()).listing(list));
    // Backups are not supported here.
    let table = dynamodb::Options {
        protected: config.protect_table,
        recoverable: false,
        segments: config.scan_segments,
        initial: config.initial.sequence(),
        streams: Streams::of(&config.streams),
    };
    let machine =
        Machine::prepare(1).map_err(|error| failed(format!("failed to start a thread: {error}")))?;
    let (children, capacity) = machine.equip(program, home.form.clone(), config);
    make_letter_streams(&clients.kinesis, config).await?;
    let letters = letters::open(config, |stream| Box::new(clients.letter_stream(stream))).map_err(failed)?;
    let ports = Ports {
        letters,
        table: Arc::new(clients.leases(config.table.clone(), table)),
        state: Arc::new(State::new(
            clients.dynamodb.clone(),
            config.table.clone(),
            config.state_table.clone(),
            config.reports_table.clone(),
        )),
        streams: streams::of(&clients, config),
        children,
        capacity,
        sink: board.clone(),
        budget: watch.budget.clone(),
        wall: clock::wall_millis,
        service: clients.service.clone(),
        surroundings: None,
    };
    let puts = Mutex::new(Puts::default());
    let put = async |input: &Input| {
        let put = feed::put_lines(&stream, input.clone(), Form::Plain, &puts).await;
        let lines = put.map_err(|source| Error::Put { input: input.clone(), source })?;
        tell(&format!("put {lines} lines of {} into {}", named(input), config.stream));
        Ok(())
    };
    let mut samples = JoinSet::new();
    match &options.put {
        // Its lines are put while the daemon runs.
        Some(Input::Stdin) => {}
        Some(file @ Input::File(_)) => put(file).await?,
        None if home.example.is_some() => {
            let from = if made { 0 } else { 1_000 };
            samples.spawn(feed::put_samples(stream.clone(), from, stop.clone()));
        }
        None => {
            for name in config.stream_names().filter(|name| endpoint.is_empty(name)) {
                tell(&how_to_put(endpoint, name));
            }
        }
    }
    let watched = Watched { board: &board, puts: &puts, table: ports.table.clone() };
    let mut judge = options.exit_when_done.map(Judge::new);
    let mut failed = None;
    let ended = {
        let daemon = async {
            if options.watch {
                watch::run(config, ports, stop.clone()).await
            } else {
                daemon::run(config, ports, stop.clone()).await
            }
        };
        let input = async {
            match &options.put {
                Some(Input::Stdin) => put(&Input::Stdin).await,
                Some(Input::File(_)) | None => Ok(()),
            }
        };
        let done = async {
            match &mut judge {
                Some(judge) => watched.until_done(judge).await,
                None => std::future::pending().await,
            }
        };
        let (mut daemon, mut input, mut done) = (Box::pin(daemon), Box::pin(input), Box::pin(done));
        let mut progress = Box::pin(progress::print(endpoint, config, &board));
        let (mut has_input, mut is_awaited) = (true, true);
        loop {
            tokio::select! {
                biased;
                ended = &mut daemon => break ended,
                // As the samples, the input ends first at a stop.
                put = &mut input, if has_input && !stop.is_cancelled() => {
                    has_input = false;
                    if let Err(error) = put {
                        failed = Some(error);
                        stop.cancel();
                    }
                }
                outcome = &mut done, if is_awaited && !stop.is_cancelled() => {
                    is_awaited = false;
                    failed = outcome.err().map(Error::NotDone);
                    stop.cancel();
                }
                // Never ends; it is last so that it does not print after the end.
                never = &mut progress => match never {},
            }
        }
    };
    tell(&progress::of(endpoint, config, &board));
    if let Some(error) = failed {
        if let Err(error) = ended {
            warn!(event = "worker_failed_at_shutdown", %error, "the daemon failed during its shutdown");
        }
        return Err(error);
    }
    ended?;
    let Some(judge) = &mut judge else { return Ok(()) };
    // A record processor may have checkpointed during the stop.
    watched.look(judge).await;
    let puts = completion::lock(&puts);
    match judge.unfinished(&puts, &board.totals()) {
        Some(why) => Err(Error::NotDone(format!("stopped before all records were checkpointed: {why}"))),
        None => {
            tell(&format!("done: {} records put, all checkpointed", puts.records()));
            Ok(())
        }
    }
}

/// The state that `--exit-when-done` observes.
struct Watched<'a> {
    board: &'a Board,
    puts: &'a Mutex<Puts>,
    table: Arc<dyn Table>,
}

impl Watched<'_> {
    /// Waits until every record is checkpointed. Returns the reason if that fails.
    async fn until_done(&self, judge: &mut Judge) -> Result<(), String> {
        loop {
            match self.look(judge).await {
                Decision::Wait => sleep(LOOK).await,
                Decision::Done => return Ok(()),
                Decision::Failed(why) => return Err(why),
            }
        }
    }

    async fn look(&self, judge: &mut Judge) -> Decision {
        let totals = self.board.totals();
        let has_foreign = judge.has_foreign(&completion::lock(self.puts), &totals);
        let mut leases: BTreeMap<ShardId, Position> = BTreeMap::new();
        if has_foreign {
            // Before the daemon's start there may be no table.
            match self.table.list().await {
                Ok(all) => {
                    leases.extend(all.into_iter().map(|lease| (lease.shard().clone(), lease.checkpoint)))
                }
                Err(error) => debug!(%error, "failed to read the checkpoints of other workers"),
            }
        }
        judge.decide(Instant::now(), &completion::lock(self.puts), &totals, &leases)
    }
}

fn named(input: &Input) -> String {
    match input {
        Input::Stdin => "stdin".to_owned(),
        Input::File(path) => path.display().to_string(),
    }
}

/// How to put a record into an empty stream.
fn how_to_put(endpoint: &kinesis::Kinesis, stream: &str) -> String {
    format!(
        "stream {stream} is empty; put records with --put FILE (each line is a record), with --put - (lines of \
         stdin), or with the AWS CLI: AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws kinesis put-record \
         --endpoint-url {} --region {REGION} --stream-name {stream} --partition-key k --data aGVsbG8=",
        endpoint.url()
    )
}

impl Options {
    /// Checks the options before anything is created.
    fn check(&self) -> Result<(), Error> {
        if self.kinesis_port != 0 && self.kinesis_port == self.dynamodb_port {
            return Err(Error::SamePort(self.kinesis_port));
        }
        let Some(Input::File(path)) = &self.put else { return Ok(()) };
        let readable = std::fs::metadata(path).and_then(|found| {
            if found.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            // A pipe is not opened early: that would end it for its writer.
            if found.is_file() { std::fs::File::open(path).map(drop) } else { Ok(()) }
        });
        let hint = "name a readable file, or - for stdin";
        readable.map_err(|source| Error::Named { option: "--put", path: path.clone(), source, hint })
    }
}

/// Creates the data folder, or warns if other users can access an existing one.
fn open_data(data: &Path) -> Result<PathBuf, Error> {
    let hint = "name a folder that you can write to; it is created if it does not exist";
    let named = |source| Error::Named { option: "--data", path: data.to_owned(), source, hint };
    if let Some(exposed) = files::named_folder(data).map_err(named)? {
        let files::Exposed { mode, owner } = exposed;
        let mode = format!("{mode:04o}");
        let folder = data.display();
        warn!(event = "data_folder_exposed", %folder, mode, owner,
            "other users have access to the data folder (chmod 0700 denies it)");
    }
    data.canonicalize().map_err(named)
}

/// The options of a run, and the folder of the example.
#[derive(Debug)]
pub struct Home {
    options: Options,
    example: Option<Temporary>,
    form: LogForm,
}

impl Home {
    /// For a properties file of the user.
    pub fn new(options: Options) -> Self {
        Self { options, example: None, form: LogForm::default() }
    }

    /// Logs the output of record processors in this form.
    #[must_use]
    pub fn logging(self, form: LogForm) -> Self {
        Self { form, ..self }
    }

    /// Writes the example and returns its properties.
    ///
    /// # Errors
    /// The example could not be written.
    pub fn example(&mut self) -> Result<Vec<u8>, Error> {
        // Not in the data folder, which other users may be able to access: the file is executed.
        let mut temporary = Temporary::new().map_err(Error::Temporary)?;
        let written = temporary.write(example::PROCESSOR_NAME, example::PROCESSOR.as_bytes());
        let properties = written.and_then(example::properties).map_err(Error::Temporary)?;
        self.example = Some(temporary);
        Ok(properties.into_bytes())
    }
}
