//! `multilangd leases FILE copy`: copies the leases of an application that reads one stream into the table of one that
//! reads several.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use multilangd::aws::client;
use multilangd::aws::dynamodb::Leases;
use multilangd::clock::{self, ServiceClock};
use multilangd::config::Config;
use multilangd::daemon;
use multilangd::edit::{self, copy};
use multilangd::exit::Exit;
use multilangd::lease::{Lease, Table, table};
use multilangd::metrics::Discard;
use multilangd::recognition::Recognition;
use multilangd::sequence::Sequence;
use multilangd::stream::{StreamId, StreamIdentifier, Wanted};
use multilangd::streams;
use multilangd::tail::shards::From;

use super::leases::{PATIENCE, Ports, failed, one_configuration, refuse, shown};
use crate::cli::{self, Words};
use crate::files;
use crate::{client_settings, clients, configured, tables};

/// Copies the leases of the application of `from` into the table of that of the other file.
pub(crate) async fn run(leases: &cli::Leases, from: &Path, dry_run: bool, words: &Words) -> Exit {
    let copied = async {
        let into = one_configuration(leases, "copy", words).await?;
        Box::pin(copy_leases(leases, &into, from, dry_run, words)).await
    };
    Box::pin(copied).await.err().unwrap_or(Exit::Clean)
}

async fn copy_leases(
    leases: &cli::Leases,
    into: &Config,
    from: &Path,
    dry_run: bool,
    words: &Words,
) -> Result<(), Exit> {
    if into.streams.is_empty() {
        return Err(refuse(Exit::Usage)(&"copy needs a properties file with multilangd.streams"));
    }
    let old = one(from, words).await?;
    if !old.streams.is_empty() {
        let text = format!("--from {}: a properties file with streamName is needed", from.display());
        return Err(refuse(Exit::Usage)(&text));
    }
    let (old_clients, old_rows) = open(&old).await?;
    let old_table: Arc<dyn Table> = Arc::new(old_rows.clone());
    // A table that belongs to another stream is refused.
    let ports = Ports { clients: &old_clients, config: &old, table: &old_table, stream: None };
    let target = Box::pin(ports.target(From::TrimHorizon, None, clock::wall_millis())).await?;
    let (new_clients, new_rows) = open(into).await?;
    let wanted = wanted(into, &old, target.recognition.current().as_ref(), from)?;
    let described = Box::pin(same_stream(&new_clients, into, &wanted, &target.recognition)).await?;

    // Both applications must stand still, and the tables are read after all that takes long.
    let patience = old.failover.max(into.failover);
    let between = edit::between(patience, leases.watch.map(std::time::Duration::from_secs), false);
    let (old_scans, new_scans) =
        tokio::join!(edit::scan(&old_rows, between), existing(edit::scan(&new_rows, between)));
    let (old_scans, new_scans) = (old_scans.map_err(failed)?, new_scans.map_err(failed)?);
    if old_scans.leases.is_empty() {
        return Err(refuse(Exit::ChildFailed)(&format!("table {} has no leases", old.table)));
    }
    let there = &new_scans.leases;
    let in_table = there.iter().filter_map(|lease| lease.key.stream().cloned()).collect();
    let stream: StreamIdentifier = wanted
        .identifier(described.as_ref(), &in_table)
        .map_err(|error| failed(daemon::Error::Unidentified(error)))?;
    let latest_from = ServiceClock::new(clock::wall_millis, new_clients.service.clone()).past();
    let steps = copy::plan(&old_scans.leases, there, &stream, latest_from);
    if !leases.json {
        shown(&copy::text(&steps))?;
    }
    let alive = |scans: &edit::Scans, table: &str| {
        scans.live.first().map(|worker| {
            format!(
                "worker {worker} renews leases of table {table} (stop all workers of both applications first)"
            )
        })
    };
    let unreadable = old_rows.unreadable().into_iter().next().map(|key| {
        format!("the row {key} of table {} cannot be read as a lease: its shard would begin anew", old.table)
    });
    let has_date = |lease: &Lease| lease.checkpoint.sequence == Sequence::AtTimestamp;
    let dated = old_scans.leases.iter().find(|lease| has_date(lease) && old.initial != into.initial);
    let dated = dated.map(|lease| {
        format!("the lease of {} begins at AT_TIMESTAMP, and the two files have different times", lease.key)
    });
    let refusal = alive(&old_scans, &old.table)
        .or_else(|| alive(&new_scans, &into.table))
        .or(unreadable)
        .or(dated)
        .or_else(|| copy::refusal(&steps, there, &stream));
    let written = if refusal.is_some() || dry_run { None } else { Some(create(&new_rows, &steps).await?) };
    if leases.json {
        shown(&format!("{:#}\n", copy::json(&into.table, &steps, written)))?;
    }
    if written.is_some() {
        let now = old_rows.list().await.map_err(failed)?;
        let moved = now.iter().find(|lease| old_scans.leases.iter().all(|seen| seen != *lease));
        if let Some(lease) = moved {
            return Err(refuse(Exit::ChildFailed)(&format!(
                "a worker changed the lease of {} in table {} meanwhile: stop it, delete the copied leases, and copy again",
                lease.key, old.table
            )));
        }
    }
    match (refusal, written) {
        (Some(refusal), _) => {
            Err(refuse(Exit::ChildFailed)(&format!("copy refused, nothing is written: {refusal}")))
        }
        (None, Some(written)) if !leases.json => shown(&format!("\nwrote {written} leases\n")),
        (None, None) if !leases.json => shown("\ndry run: nothing is written\n"),
        (None, _) => Ok(()),
    }
}

/// The scans of a table, which may not exist.
async fn existing(
    scans: impl Future<Output = Result<edit::Scans, table::Error>>,
) -> Result<edit::Scans, table::Error> {
    match scans.await {
        Err(table::Error::Missing(_)) => Ok(edit::Scans { leases: Vec::new(), live: BTreeSet::new() }),
        scans => scans,
    }
}

/// The entry of the new file for the stream of the old one.
fn wanted(into: &Config, old: &Config, described: Option<&StreamId>, from: &Path) -> Result<Wanted, Exit> {
    let named = || into.streams.named.iter().filter(|wanted| wanted.name == old.stream);
    let by_arn = named().find(|wanted| {
        let account = wanted.account.as_deref();
        account.is_some() && account == described.and_then(StreamId::account)
    });
    let by_name = named().find(|wanted| wanted.account.is_none());
    let of_prefix = into.streams.by_prefix(&old.stream);
    // A local endpoint knows no account.
    let at_local = named().next().filter(|_| described.is_some_and(|stream| stream.account().is_none()));
    by_arn.or(by_name).or(of_prefix.as_ref()).or(at_local).cloned().ok_or_else(|| {
        let text =
            format!("multilangd.streams does not name the stream {} of {}", old.stream, from.display());
        refuse(Exit::Config)(&text)
    })
}

/// The stream as the new application reaches it, which must be the one of the old application.
async fn same_stream(
    clients: &client::Clients,
    into: &Config,
    wanted: &Wanted,
    old: &Recognition,
) -> Result<Option<StreamId>, Exit> {
    let stream = streams::named(clients, into, &wanted.name, wanted.account.as_deref());
    let new = Recognition::new(Arc::new(stream)).describe().await.map_err(failed)?;
    match (new, old.current()) {
        (Some(new), Some(old)) if new != old => {
            let text = format!(
                "the files name two streams, {old} and {new} (compare regions, endpoints and accounts)"
            );
            Err(refuse(Exit::Config)(&text))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// Creates the rows, and the table if it does not exist. A second run completes one that was interrupted.
async fn create(table: &dyn Table, steps: &[copy::Copy]) -> Result<usize, Exit> {
    table.ensure().await.map_err(failed)?;
    let mut written = 0;
    for lease in copy::creates(steps) {
        if !table.create(lease).await.map_err(failed)? {
            let text =
                format!("{} was created by a worker meanwhile: {written} leases are written", lease.key);
            return Err(refuse(Exit::ChildFailed)(&text));
        }
        written += 1;
    }
    Ok(written)
}

async fn one(path: &Path, words: &Words) -> Result<Config, Exit> {
    let files = files::read_all(&[path.to_owned()], words).await?;
    match <[_; 1]>::try_from(files) {
        Ok([file]) => configured(file.resolved(), &file.name, words, "-"),
        Err(_) => Err(refuse(Exit::Usage)(&format!("--from {}: not one properties file", path.display()))),
    }
}

async fn open(config: &Config) -> Result<(client::Clients, Leases), Exit> {
    let settings = client::Settings { cloudwatch: None, failover: PATIENCE, ..client_settings(config) };
    let clients =
        clients(&settings, Arc::new(Discard)).await.map_err(|error| refuse(Exit::Config)(&error))?;
    let table = tables(&clients, config).0;
    Ok((clients, table))
}
