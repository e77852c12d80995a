//! `multilangd leases`: prints leases, and with a verb writes them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use multilangd::aws::client;
use multilangd::clock::{self, ServiceClock};
use multilangd::config::Config;
use multilangd::daemon;
use multilangd::edit::locate::{self, Bound};
use multilangd::edit::orders::{self, Operator};
use multilangd::edit::plan::{self, Rows, Step, To};
use multilangd::edit::{self, NewRows};
use multilangd::exit::Exit;
use multilangd::inspect;
use multilangd::lease::of_stream::{self, OfStream};
use multilangd::lease::origin;
use multilangd::lease::{Lease, Table, table};
use multilangd::metrics::Discard;
use multilangd::reach::Reaches;
use multilangd::recognition::Recognition;
use multilangd::shard::{self, Api as _, Filter, Shard, ShardId};
use multilangd::shard_sync::{self, ShardSync};
use multilangd::stream::StreamIdentifier;
use multilangd::streams;
use multilangd::tail::{self, shards::From};
use tokio::task::JoinSet;

use super::streams::stream_of;
use crate::cli::{Leases, Verb, Which, Words};
use crate::files::{self, File};
use crate::log::complain;
use crate::{client_settings, clients, configured, print, start_log, tables};

/// The pause between two reads of a shard: Kinesis allows five a second.
const IDLE: Duration = Duration::from_millis(200);
/// The time within which DynamoDB must answer is derived from this instead of `failoverTimeMillis`: a command has no lease
/// that expires while it waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Prints the state of the tables of each file's application. Nothing is written.
pub(crate) async fn show(leases: &Leases, words: &Words) -> Exit {
    let configs = match configurations(leases, words).await {
        Ok(configs) => configs,
        Err(exit) => return exit,
    };
    let is_one = configs.len() == 1;
    // Concurrently: most of the time is the pause between two scans.
    let mut tasks = JoinSet::new();
    for (index, (name, config)) in configs.into_iter().enumerate() {
        let between = leases.watch.map_or(config.failover / 2, Duration::from_secs);
        let stream = leases.stream.clone();
        tasks.spawn(async move { (index, name, inspected(&config, stream, between).await) });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(inspected) => all.push(inspected),
            Err(error) => {
                complain(&format!("internal error: {error}"));
                return Exit::Internal;
            }
        }
    }
    all.sort_by_key(|(index, ..)| *index);
    let (mut exit, mut objects) = (Exit::Clean, Vec::new());
    for (index, name, inspected) in all {
        let seen = match inspected {
            Ok(seen) => seen,
            Err((error, code)) => {
                complain(&if is_one { error } else { format!("{name}: {error}") });
                exit = code;
                continue;
            }
        };
        let printed = match (leases.json, is_one) {
            (true, true) => print(format!("{:#}\n", seen.json()).as_bytes()),
            (true, false) => {
                let mut object = seen.json();
                object["file"] = name.into();
                objects.push(object);
                Exit::Clean
            }
            (false, true) => print(seen.text().as_bytes()),
            (false, false) => {
                let line = if index > 0 { "\n" } else { "" };
                print(format!("{line}{name}:\n{}", seen.text()).as_bytes())
            }
        };
        if printed != Exit::Clean {
            return printed;
        }
    }
    if leases.json
        && !is_one
        && print(format!("{:#}\n", serde_json::Value::from(objects)).as_bytes()) != Exit::Clean
    {
        return Exit::Internal;
    }
    exit
}

/// The configurations of all files with their paths; starts the log by the settings of the first.
pub(super) async fn configurations(leases: &Leases, words: &Words) -> Result<Vec<(String, Config)>, Exit> {
    let files = files::read_all(&leases.files, words).await?;
    let first = files.first().ok_or(Exit::NoInput)?.resolved();
    start_log(&first)?;
    let config = |file: File| Ok((file.name.clone(), configured(file.resolved(), &file.name, words, "-")?));
    let all: Vec<Result<(String, Config), Exit>> = files.into_iter().map(config).collect();
    all.into_iter().collect()
}

/// The configuration of the only file.
pub(super) async fn one_configuration(leases: &Leases, verb: &str, words: &Words) -> Result<Config, Exit> {
    match <[_; 1]>::try_from(configurations(leases, words).await?) {
        Ok([(_, config)]) => Ok(config),
        Err(several) => {
            let text = format!("{verb} takes one properties file, not {} (name one)", several.len());
            Err(refuse(Exit::Usage)(&text))
        }
    }
}

/// The state of the tables of an application, or the error with its exit code.
async fn inspected(
    config: &Config,
    stream: Option<String>,
    between: Duration,
) -> Result<inspect::Overview, (String, Exit)> {
    let settings = client::Settings { cloudwatch: None, failover: PATIENCE, ..client_settings(config) };
    let clients = clients(&settings, Arc::new(Discard)).await.map_err(|error| (error, Exit::Config))?;
    let (table, state) = tables(&clients, config);
    let rules = config.reports.clone();
    let failed = |error: table::Error| {
        let text = error.to_string();
        (text, daemon::Error::from(error).exit())
    };
    let of_stream;
    let shown: &dyn Table = match stream {
        None => &table,
        Some(wanted) => {
            let leases = table.list().await.map_err(failed)?;
            let streams: BTreeSet<_> = leases.iter().filter_map(|lease| lease.key.stream()).collect();
            let is_wanted =
                |stream: &&&StreamIdentifier| [stream.name(), stream.as_str()].contains(&&*wanted);
            if let [one, other, ..] = &streams.iter().filter(is_wanted).collect::<Vec<_>>()[..] {
                let text = format!("--stream {wanted} is ambiguous: {one} or {other}");
                return Err((text, Exit::Usage));
            }
            let named = streams.iter().find(is_wanted).copied();
            let none = || {
                (format!("table {} has no leases of the stream {wanted}", config.table), Exit::ChildFailed)
            };
            of_stream = OfStream::new(Arc::new(table.clone()), named.ok_or_else(none)?.clone());
            &of_stream
        }
    };
    match inspect::inspect(&config.table, &state, shown, between, rules, clock::wall_millis).await {
        Ok(seen) => Ok(seen),
        Err(refused @ table::Error::Denied(_)) => {
            // Only now, since a user who may only read rows may not be allowed to describe the table.
            Err(failed(match table.verify_key().await {
                Err(foreign) if foreign.is_foreign() => foreign,
                Ok(()) | Err(_) => refused,
            }))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Executes a verb.
pub(crate) async fn run(leases: &Leases, verb: &Verb, words: &Words) -> Exit {
    Box::pin(execute(leases, verb, words)).await.err().unwrap_or(Exit::Clean)
}

pub(super) fn refuse(exit: Exit) -> impl Fn(&dyn std::fmt::Display) -> Exit {
    move |error| {
        complain(error);
        exit
    }
}

pub(super) fn failed(error: impl Into<daemon::Error>) -> Exit {
    let error = error.into();
    complain(&error);
    error.exit()
}

async fn execute(leases: &Leases, verb: &Verb, words: &Words) -> Result<(), Exit> {
    let now = clock::wall_millis();
    let (name, from) = match verb {
        Verb::Seek { to, which } => ("seek", Some(position(to, which, now)?)),
        Verb::Release { .. } => ("release", None),
        Verb::Park { .. } => ("park", None),
        Verb::Unpark { .. } => ("unpark", None),
        Verb::Pause { .. } => ("pause", None),
        Verb::Resume { .. } => ("resume", None),
        Verb::Copy { .. } => ("copy", None),
    };
    let which = verb.which();
    let selected: BTreeSet<ShardId> = which.shards.iter().map(|id| ShardId::from(id.as_str())).collect();
    let selected = Some(selected).filter(|selected| !selected.is_empty());
    let config = one_configuration(leases, name, words).await?;
    let settings = client::Settings { cloudwatch: None, failover: PATIENCE, ..client_settings(&config) };
    let clients =
        clients(&settings, Arc::new(Discard)).await.map_err(|error| refuse(Exit::Config)(&error))?;
    let table: Arc<dyn Table> = Arc::new(tables(&clients, &config).0);
    let streams = concerned(leases, &config, &*table).await?;
    if (from.is_some() || selected.is_some()) && streams.len() > 1 {
        return Err(refuse(Exit::Usage)(&format!(
            "{name} concerns one of the streams (name it with --stream)"
        )));
    }
    if matches!(verb, Verb::Pause { .. } | Verb::Resume { .. }) && leases.stream.is_some() {
        let text =
            format!("{name} is an order for the whole application (for one stream, use park and unpark)");
        return Err(refuse(Exit::Usage)(&text));
    }
    let target = match (from, streams.first()) {
        (Some(from), Some(stream)) => {
            let table = part(&table, stream.as_ref());
            let ports = Ports { clients: &clients, config: &config, table: &table, stream: stream.as_ref() };
            Some(Box::pin(ports.target(from, selected.as_ref(), now)).await?)
        }
        (Some(_) | None, _) => None,
    };
    // The rows are read after all that takes long.
    let needs_dead_owners = matches!(verb, Verb::Seek { .. } | Verb::Release { .. }) && !which.force;
    let between = edit::between(config.failover, leases.watch.map(Duration::from_secs), !needs_dead_owners);
    let scans = edit::scan(&*table, between).await.map_err(failed)?;
    if scans.leases.is_empty() {
        return Err(refuse(Exit::ChildFailed)(&format!(
            "table {} has no leases (start a worker first; initialPositionInStream sets the position of new leases)",
            config.table
        )));
    }
    let by = operator();
    let clock = ServiceClock::new(clock::wall_millis, clients.service.clone());
    let operator = Operator { by: &by, now: clock::wall_millis(), latest_from: clock.past() };
    let edit = Edit {
        verb,
        name,
        table: &config.table,
        target: target.as_ref(),
        selected: selected.as_ref(),
        which: &which,
        operator,
        json: leases.json,
    };
    let parts: Vec<(&Option<StreamIdentifier>, edit::Scans)> = streams
        .iter()
        .map(|stream| {
            let leases = stream.as_ref().map(|stream| of_stream::leases(&scans.leases, stream));
            let leases = leases.unwrap_or_else(|| scans.leases.clone());
            (stream, edit::Scans { leases, live: scans.live.clone() })
        })
        .collect();
    // Nothing is written if the leases of one of the streams may not be.
    let is_refused = parts.iter().any(|(_, scans)| edit::refusals(&edit.plan(scans)).is_some());
    let mut objects = Vec::new();
    let mut outcome = Ok(());
    for (stream, scans) in &parts {
        if let (Some(stream), false) = (stream, leases.json) {
            shown(&format!("stream {stream}:\n"))?;
        }
        let (object, done) = edit.apply(&*part(&table, stream.as_ref()), scans, is_refused).await?;
        objects.extend(object.map(|mut object| {
            if let Some(stream) = stream {
                object["stream"] = stream.as_str().into();
            }
            object
        }));
        outcome = outcome.and(done);
        // A second run completes the rest.
        if outcome.is_err() && !is_refused {
            break;
        }
    }
    if leases.json {
        let object = match <[serde_json::Value; 1]>::try_from(objects) {
            Ok([object]) => object,
            Err(objects) => objects.into(),
        };
        shown(&format!("{object:#}\n"))?;
    }
    outcome
}

/// The streams whose leases a command concerns: none of several for a table of one stream.
async fn concerned(
    leases: &Leases,
    config: &Config,
    table: &dyn Table,
) -> Result<Vec<Option<StreamIdentifier>>, Exit> {
    let wanted = leases.stream.as_deref();
    if config.streams.is_empty() {
        return match wanted {
            Some(_) => Err(refuse(Exit::Usage)(&"--stream needs a properties file with multilangd.streams")),
            None => Ok(vec![None]),
        };
    }
    let rows = table.list().await.map_err(failed)?;
    let mut streams: Vec<_> = rows.iter().filter_map(|lease| lease.key.stream()).cloned().collect();
    streams.sort();
    streams.dedup();
    let is_wanted = |stream: &StreamIdentifier| {
        wanted.is_none_or(|wanted| [stream.name(), stream.as_str()].contains(&wanted))
    };
    streams.retain(is_wanted);
    if let (Some(wanted), [one, other, ..]) = (wanted, &streams[..]) {
        return Err(refuse(Exit::Usage)(&format!("--stream {wanted} is ambiguous: {one} or {other}")));
    }
    match (wanted, streams.is_empty()) {
        (Some(wanted), true) => Err(refuse(Exit::ChildFailed)(&format!(
            "table {} has no leases of the stream {wanted}",
            config.table
        ))),
        // The caller reports a table without leases.
        _ => Ok(streams.into_iter().map(Some).collect()),
    }
}

/// The leases of one of several streams, as a table of its own.
fn part(table: &Arc<dyn Table>, stream: Option<&StreamIdentifier>) -> Arc<dyn Table> {
    match stream {
        Some(stream) => Arc::new(OfStream::new(table.clone(), stream.clone())),
        None => table.clone(),
    }
}

/// A verb, and all that it needs besides the leases.
struct Edit<'a> {
    verb: &'a Verb,
    name: &'a str,
    /// The name of the table.
    table: &'a str,
    target: Option<&'a Target>,
    selected: Option<&'a BTreeSet<ShardId>>,
    which: &'a Which,
    operator: Operator<'a>,
    json: bool,
}

impl Edit<'_> {
    /// Plans the writes on the leases of one stream.
    fn plan<'b>(&'b self, scans: &'b edit::Scans) -> Vec<Step> {
        let (force, leases) = (self.which.force, &scans.leases);
        let rows = Rows { leases, live: &scans.live, selected: self.selected, force };
        match (self.verb, self.target) {
            (Verb::Park { .. }, _) => orders::park(&rows, self.operator),
            (Verb::Unpark { .. }, _) => orders::unpark(&rows),
            (Verb::Pause { .. }, _) => orders::pause(&rows, self.operator),
            (Verb::Resume { .. }, _) => orders::resume(&rows, self.operator),
            (_, Some(Target { listed, to, .. })) => plan::seek(&rows, listed, to),
            (_, None) => plan::release(&rows),
        }
    }

    /// Plans and writes the leases of one stream, unless those of another one are refused. Returns the JSON object, and the
    /// outcome.
    async fn apply(
        &self,
        table: &dyn Table,
        scans: &edit::Scans,
        is_refused: bool,
    ) -> Result<(Option<serde_json::Value>, Result<(), Exit>), Exit> {
        let Edit { name, which, operator, .. } = self;
        let steps = self.plan(scans);
        let refused = edit::refusals(&steps);
        let unknown = orders::disobedient(&steps, &scans.leases);
        if !self.json {
            shown(&edit::text(&steps))?;
            shown(&edit::warnings(&unknown))?;
        }
        let executed = if is_refused || which.dry_run {
            None
        } else {
            let stream = self.target.and_then(|target| target.recognition.current());
            let new = NewRows { typed: scans.leases.iter().any(|lease| lease.typed), stream };
            let executed = edit::execute(table, &steps, &new, which.force).await;
            Some(match (executed, orders::chosen(&steps)) {
                (Ok(written), Some(order)) => edit::follow(table, order, operator.latest_from, written).await,
                (executed, _) => executed,
            })
        };
        let object = self.json.then(|| {
            let written = executed.as_ref().map(|done| match done {
                Ok(written) => *written,
                Err(
                    edit::Error::Changed(_, written, _)
                    | edit::Error::Table(_, written, ..)
                    | edit::Error::Replaced { written, .. },
                ) => *written,
            });
            edit::json(self.table, name, &steps, &unknown, written)
        });
        if let Some(refused) = refused {
            let refused = refuse(Exit::ChildFailed)(&format!("{name} refused, {refused}"));
            return Ok((object, Err(refused)));
        }
        let outcome = match executed {
            Some(Err(error @ (edit::Error::Changed(..) | edit::Error::Replaced { .. }))) => {
                Err(refuse(Exit::ChildFailed)(&error))
            }
            Some(Err(error)) => {
                let edit::Error::Table(.., cause) = &error else { return Err(Exit::Internal) };
                Err(refuse(daemon::Error::from(cause.clone()).exit())(&error))
            }
            Some(Ok(written)) if !self.json => shown(&format!("\nwrote {written} leases\n")),
            None if !self.json && which.dry_run => shown("\ndry run: nothing is written\n"),
            // The refusal of another stream is reported with it.
            Some(Ok(_)) | None => Ok(()),
        };
        Ok((object, outcome))
    }
}

pub(super) fn shown(text: &str) -> Result<(), Exit> {
    let exit = print(text.as_bytes());
    if exit == Exit::Clean { Ok(()) } else { Err(exit) }
}

/// The operator, as the orders name them: `USER@HOST`.
fn operator() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    user.filter(|user| !user.is_empty()).map_or(host.clone(), |user| format!("{user}@{host}"))
}

/// The position of `--to`.
fn position(to: &str, which: &Which, now: i64) -> Result<From, Exit> {
    let refuse = refuse(Exit::Usage);
    let from = From::parse(to, now).map_err(|error| refuse(&format!("--to {to}: {error}")))?;
    match from {
        From::Number(_) if which.shards.len() != 1 => Err(refuse(
            &"--to with a sequence number needs one --shard: a sequence number belongs to one shard",
        )),
        From::Time(millis) if millis > now => {
            Err(refuse(&format!("--to {to} is in the future (to skip all records until now, use LATEST)")))
        }
        From::Time(_) | From::Number(_) | From::TrimHorizon | From::Latest => Ok(from),
    }
}

pub(super) struct Ports<'a> {
    pub(super) clients: &'a client::Clients,
    pub(super) config: &'a Config,
    pub(super) table: &'a Arc<dyn Table>,
    /// The stream, if the properties file names several.
    pub(super) stream: Option<&'a StreamIdentifier>,
}

pub(super) struct Target {
    listed: Vec<Shard>,
    to: To,
    pub(super) recognition: Arc<Recognition>,
}

impl Ports<'_> {
    /// The shards of the stream, and the position in each. A table that belongs to another stream is refused.
    pub(super) async fn target(
        &self,
        from: From,
        selected: Option<&BTreeSet<ShardId>>,
        now: i64,
    ) -> Result<Target, Exit> {
        let (clients, config) = (self.clients, self.config);
        let stream = match self.stream {
            Some(stream) => Arc::new(streams::named(clients, config, stream.name(), Some(stream.account()))),
            None => stream_of(clients, config).await?,
        };
        let recognition = Recognition::new(stream.clone());
        self.recognise(stream.clone(), recognition.clone()).await?;
        let listed = stream.list(Filter::All).await.map_err(failed)?;
        let bound = match from {
            From::TrimHorizon => return Ok(Target { listed, to: To::TrimHorizon, recognition }),
            From::Latest => return Ok(Target { listed, to: To::Latest, recognition }),
            From::Time(millis) => Bound::Time(millis),
            From::Number(number) => {
                let ids = selected.into_iter().flatten();
                for shard in ids.filter_map(|id| listed.iter().find(|shard| shard.id == *id)) {
                    let refuse = |error| refuse(Exit::Usage)(&format!("--to {number}: {error}"));
                    locate::within(shard, &number).map_err(refuse)?;
                    if !stream.has_number(&shard.id, &number).await.map_err(failed)? {
                        return Err(refuse(locate::Outside::Rejected(shard.id.clone())));
                    }
                }
                Bound::Number(number)
            }
        };
        let ports = tail::Ports {
            shards: stream.clone(),
            records: stream,
            location: config.kinesis.location().to_owned(),
            clock: ServiceClock::new(clock::wall_millis, clients.service.clone()),
        };
        let of = listed.iter().map(|shard| shard.id.clone());
        let of: Vec<ShardId> =
            of.filter(|id| selected.is_none_or(|selected| selected.contains(id))).collect();
        let located = locate::locate(&tail::source(ports, IDLE), of, &bound, now).await;
        let located = located.map_err(|error| refuse(Exit::Unavailable)(&error))?;
        Ok(Target { listed, to: To::Found(located.into_iter().collect()), recognition })
    }

    /// Compares the lease table with the stream, as a worker does at its start.
    async fn recognise(
        &self,
        shards: Arc<dyn shard::Api>,
        recognition: Arc<Recognition>,
    ) -> Result<(), Exit> {
        let config = self.config;
        let settings = shard_sync::Settings {
            me: "-".into(),
            initial: config.initial,
            first: None,
            ignore_unexpected_children: config.ignore_unexpected_children,
            skip_if_leases_exist: true,
            sync_pause: config.failover,
            stream: self.stream.map_or_else(|| config.stream.clone(), |stream| stream.name().to_owned()),
            listed: true,
            failover: config.failover,
            reaches: Reaches::at(config.kinesis.location(), config.dynamodb.location()),
            sink: Arc::new(Discard),
        };
        let sync = ShardSync::new(self.table.clone(), shards, recognition.clone(), settings);
        sync.recognise().await.map_err(failed)?;
        let current = recognition.current();
        let is_earlier = |lease: &&Lease| origin::is_of_an_earlier_stream(lease, current.as_ref());
        let rows = self.table.list().await.map_err(failed)?;
        match rows.iter().find(is_earlier) {
            Some(lease) => Err(refuse(Exit::Config)(&format!(
                "the lease of {} belongs to an earlier stream of this name (start a worker, which resets all leases)",
                lease.key
            ))),
            None => Ok(()),
        }
    }
}
