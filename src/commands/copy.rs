//! `multilangd leases FILE copy`: copies the leases of an application that reads one stream into the table of one that
//! reads several.

use std::path::Path;
use std::sync::Arc;

use multilangd::aws::client;
use multilangd::clock;
use multilangd::config::Config;
use multilangd::daemon;
use multilangd::edit::{self, copy};
use multilangd::exit::Exit;
use multilangd::lease::{Table, table};
use multilangd::metrics::Discard;
use multilangd::stream::{StreamIdentifier, Wanted};
use multilangd::tail::shards::From;

use super::leases::{PATIENCE, Ports, failed, one_configuration, refuse, shown};
use crate::cli::{Leases, Words};
use crate::files;
use crate::{client_settings, clients, configured, tables};

/// Copies the leases of the application of `from` into the table of that of the other file.
pub(crate) async fn run(leases: &Leases, from: &Path, dry_run: bool, words: &Words) -> Exit {
    let copied = async {
        let into = one_configuration(leases, "copy", words).await?;
        Box::pin(copy_leases(leases, &into, from, dry_run, words)).await
    };
    Box::pin(copied).await.err().unwrap_or(Exit::Clean)
}

async fn copy_leases(
    leases: &Leases,
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
    let (old_clients, old_table) = open(&old).await?;
    // A table that belongs to another stream is refused.
    let ports = Ports { clients: &old_clients, config: &old, table: &old_table, stream: None };
    let target = Box::pin(ports.target(From::TrimHorizon, None, clock::wall_millis())).await?;
    let (_, new_table) = open(into).await?;
    let there = match new_table.list().await {
        Err(table::Error::Missing(_)) => Vec::new(),
        listed => listed.map_err(failed)?,
    };
    let in_table = there.iter().filter_map(|lease| lease.key.stream().cloned()).collect();
    let described = target.recognition.current();
    let account = old.stream_arn.as_ref().and_then(|arn| arn.arn.split(':').nth(4));
    let is_same = |account_of: &Option<String>| match (account_of, account) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => true,
    };
    let wanted =
        into.streams.named.iter().find(|wanted| wanted.name == old.stream && is_same(&wanted.account));
    let of_prefix = Wanted { name: old.stream.clone(), account: None, epoch: None };
    let Some(wanted) = wanted.or(Some(&of_prefix).filter(|stream| into.streams.has_prefix_of(&stream.name)))
    else {
        let text =
            format!("multilangd.streams does not name the stream {} of {}", old.stream, from.display());
        return Err(refuse(Exit::Config)(&text));
    };
    let stream: StreamIdentifier = wanted
        .identifier(described.as_ref(), &in_table)
        .map_err(|error| failed(daemon::Error::Unidentified(error)))?;

    let between = edit::between(old.failover, leases.watch.map(std::time::Duration::from_secs), false);
    let scans = edit::scan(&*old_table, between).await.map_err(failed)?;
    if scans.leases.is_empty() {
        return Err(refuse(Exit::ChildFailed)(&format!("table {} has no leases", old.table)));
    }
    let steps = copy::plan(&scans.leases, &there, &stream, true);
    if !leases.json {
        shown(&copy::text(&steps))?;
    }
    let live = scans.live.first().map(|worker| {
        format!(
            "worker {worker} renews leases of table {} (stop all workers of that application first)",
            old.table
        )
    });
    let refusal = live.or_else(|| copy::refusal(&steps));
    let written = if refusal.is_some() || dry_run { None } else { Some(create(&*new_table, &steps).await?) };
    if leases.json {
        shown(&format!("{:#}\n", copy::json(&into.table, &steps, written)))?;
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

async fn open(config: &Config) -> Result<(client::Clients, Arc<dyn Table>), Exit> {
    let settings = client::Settings { cloudwatch: None, failover: PATIENCE, ..client_settings(config) };
    let clients =
        clients(&settings, Arc::new(Discard)).await.map_err(|error| refuse(Exit::Config)(&error))?;
    let table: Arc<dyn Table> = Arc::new(tables(&clients, config).0);
    Ok((clients, table))
}
