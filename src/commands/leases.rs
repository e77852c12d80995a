//! The verbs of `multilangd leases FILE`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use multilangd::aws::client;
use multilangd::clock::{self, ServiceClock};
use multilangd::config::Config;
use multilangd::daemon;
use multilangd::edit::locate::{self, Bound};
use multilangd::edit::orders::{self, Operator};
use multilangd::edit::plan::{self, Rows, To};
use multilangd::edit::{self, NewRows};
use multilangd::exit::Exit;
use multilangd::lease::origin;
use multilangd::lease::{Lease, Table};
use multilangd::metrics::Discard;
use multilangd::reach::Reaches;
use multilangd::recognition::Recognition;
use multilangd::shard::{self, Api as _, Filter, Shard, ShardId};
use multilangd::shard_sync::{self, ShardSync};
use multilangd::tail::{self, shards::From};

use super::streams::stream_of;
use crate::cli::{Leases, Verb, Which, Words};
use crate::log::complain;
use crate::{client_settings, clients, configuration, print, tables};

/// The pause between two reads of a shard: Kinesis allows five a second.
const IDLE: Duration = Duration::from_millis(200);

/// Executes a verb.
pub(crate) async fn run(leases: &Leases, verb: &Verb, words: &Words) -> Exit {
    Box::pin(execute(leases, verb, words)).await.err().unwrap_or(Exit::Clean)
}

fn refuse(exit: Exit) -> impl Fn(&dyn std::fmt::Display) -> Exit {
    move |error| {
        complain(error);
        exit
    }
}

fn failed(error: impl Into<daemon::Error>) -> Exit {
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
    };
    let which = verb.which();
    let selected: BTreeSet<ShardId> = which.shards.iter().map(|id| ShardId::from(id.as_str())).collect();
    let selected = Some(selected).filter(|selected| !selected.is_empty());
    let config = configuration(&leases.file, words, "-").await?;
    let settings = client::Settings { cloudwatch: None, ..client_settings(&config) };
    let clients = clients(&settings, Arc::new(Discard)).await?;
    let table: Arc<dyn Table> = Arc::new(tables(&clients, &config).0);
    let target = match from {
        Some(from) => {
            let ports = Ports { clients: &clients, config: &config, table: &table };
            Some(Box::pin(ports.target(from, selected.as_ref(), now)).await?)
        }
        None => None,
    };
    // The rows are read after all that takes long.
    let needs_dead_owners = matches!(verb, Verb::Seek { .. } | Verb::Release { .. }) && !which.force;
    let between = edit::between(config.failover, leases.watch.map(Duration::from_secs), !needs_dead_owners);
    let scans = edit::scan(&*table, between).await.map_err(failed)?;
    if scans.leases.is_empty() {
        return Err(refuse(Exit::ChildFailed)(&format!(
            "table {} has no leases (initialPositionInStream sets the position of new leases)",
            config.table
        )));
    }
    let by = operator();
    let clock = ServiceClock::new(clock::wall_millis, clients.service.clone());
    let operator = Operator { by: &by, now: clock::wall_millis(), latest_from: clock.past() };
    let plan = |leases: &[Lease]| {
        let rows = Rows { leases, live: &scans.live, selected: selected.as_ref(), force: which.force };
        match (verb, &target) {
            (Verb::Park { .. }, _) => orders::park(&rows, operator),
            (Verb::Unpark { .. }, _) => orders::unpark(&rows),
            (Verb::Pause { .. }, _) => orders::pause(&rows, operator),
            (Verb::Resume { .. }, _) => orders::resume(&rows, operator),
            (_, Some(Target { listed, to, .. })) => plan::seek(&rows, listed, to),
            (_, None) => plan::release(&rows),
        }
    };
    let steps = plan(&scans.leases);
    let refused = edit::refusals(&steps);
    let unknown = orders::disobedient(&steps, &scans.leases);
    if !leases.json {
        shown(&edit::text(&steps))?;
        shown(&edit::warnings(&unknown))?;
    }
    let executed = if refused.is_some() || which.dry_run {
        None
    } else {
        let stream = target.as_ref().and_then(|target| target.recognition.current());
        let new = NewRows { typed: scans.leases.iter().any(|lease| lease.typed), stream };
        let executed = edit::execute(&*table, &steps, &new, which.force).await;
        Some(match (executed, verb) {
            (Ok(written), Verb::Pause { .. } | Verb::Resume { .. }) => {
                edit::follow(&*table, plan, written).await
            }
            (executed, _) => executed,
        })
    };
    if leases.json {
        let written = executed.as_ref().map(|done| match done {
            Ok(written) => *written,
            Err(edit::Error::Changed(_, written, _) | edit::Error::Table(_, written, ..)) => *written,
        });
        shown(&format!("{:#}\n", edit::json(&config.table, name, &steps, &unknown, written)))?;
    }
    if let Some(refused) = refused {
        return Err(refuse(Exit::ChildFailed)(&format!("{name} refused, {refused}")));
    }
    match executed {
        Some(Err(error @ edit::Error::Changed(..))) => Err(refuse(Exit::ChildFailed)(&error)),
        Some(Err(error)) => {
            let edit::Error::Table(.., cause) = &error else { return Err(Exit::Internal) };
            Err(refuse(daemon::Error::from(cause.clone()).exit())(&error))
        }
        Some(Ok(written)) if !leases.json => shown(&format!("\nwrote {written} leases\n")),
        None if !leases.json => shown("\ndry run: nothing is written\n"),
        Some(Ok(_)) | None => Ok(()),
    }
}

fn shown(text: &str) -> Result<(), Exit> {
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

struct Ports<'a> {
    clients: &'a client::Clients,
    config: &'a Config,
    table: &'a Arc<dyn Table>,
}

struct Target {
    listed: Vec<Shard>,
    to: To,
    recognition: Arc<Recognition>,
}

impl Ports<'_> {
    /// The shards of the stream, and the position in each. A table that belongs to another stream is refused.
    async fn target(
        &self,
        from: From,
        selected: Option<&BTreeSet<ShardId>>,
        now: i64,
    ) -> Result<Target, Exit> {
        let (clients, config) = (self.clients, self.config);
        let stream = stream_of(clients, config).await?;
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
            ignore_unexpected_children: config.ignore_unexpected_children,
            skip_if_leases_exist: true,
            sync_pause: config.failover,
            stream: config.stream.clone(),
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
                lease.shard
            ))),
            None => Ok(()),
        }
    }
}
