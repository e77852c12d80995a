//! `multilangd check FILE` with `--aws`, `--permissions` or `--diff`.

use std::path::PathBuf;
use std::sync::Arc;

use multilangd::aws::client::{self, DYNAMODB, KINESIS};
use multilangd::aws::http;
use multilangd::aws::probe::Names;
use multilangd::clock;
use multilangd::config::keys::{kcl, own};
use multilangd::config::letters::Destination;
use multilangd::config::permissions::{self, On, Permission};
use multilangd::config::resolve::{self, Given, Resolved};
use multilangd::config::sdk::network;
use multilangd::config::{ClientConfig, Config, Remark, diff, policy, settings};
use multilangd::exit::Exit;
use multilangd::limits::Limits;
use multilangd::metrics::Discard;
use multilangd::multilang::Launcher;
use multilangd::probe::port::{Api as _, Call, Service};
use multilangd::probe::report::{Line, Report, Section, Status};
use multilangd::probe::{dynamodb, kinesis, machine, session};
use multilangd::shard;
use multilangd::stream::Wanted;
use multilangd::streams;
use tokio::time::Instant;

use super::check::look_around;
use crate::cli::{Aspects, Words};
use crate::files::{self, File};
use crate::log::complain;
use crate::{client_settings, print, tables};

/// Variables that set the endpoint of STS.
const STS_ENDPOINT: [&str; 2] = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"];

/// Prints the selected parts. A file with errors is refused: the parts would be those of other settings.
pub(crate) async fn check(paths: &[PathBuf], words: &Words, json: bool, aspects: Aspects) -> Exit {
    let File { name: place, given } = match files::read_all(paths, words).await.map(<[_; 1]>::try_from) {
        Ok(Ok([file])) => file,
        Ok(Err(several)) => {
            complain(&format!(
                "--aws, --permissions and --diff take one properties file, not {} (name one)",
                several.len()
            ));
            return Exit::Usage;
        }
        Err(exit) => return exit,
    };
    let mut resolved = resolve::resolve(&given);
    let Resolved { settings, warnings, faults, sdk, .. } = &mut resolved;
    look_around(settings, sdk, warnings, faults);
    if !faults.is_empty() {
        if json {
            let shown = format!("{:#}\n", settings::json(settings, warnings, faults));
            return if print(shown.as_bytes()) == Exit::Clean { Exit::Config } else { Exit::Internal };
        }
        faults.iter().for_each(|fault| complain(&format!("{place}: {fault}")));
        return Exit::Config;
    }
    if aspects.permissions {
        return print(format!("{:#}\n", policy::policy(settings)).as_bytes());
    }
    if aspects.diff {
        let changed = diff::diff(settings);
        let shown = if json { format!("{:#}\n", diff::json(&changed)) } else { diff::text(&changed) };
        return print(shown.as_bytes());
    }
    Box::pin(check_aws(resolved, &given, &place, json)).await
}

async fn check_aws(resolved: Resolved, given: &Given, place: &str, json: bool) -> Exit {
    let settings = resolved.settings.clone();
    let needed: Vec<&'static Permission> = permissions::needed(&settings).collect();
    let (config, warnings) = match resolved.config("-") {
        Ok(configured) => configured,
        Err(faults) => {
            faults.faults.iter().for_each(|fault| complain(&format!("{place}: {fault}")));
            return Exit::Config;
        }
    };
    let is_local = config.kinesis.endpoint.as_deref().is_some_and(network::is_of_this_machine);
    // The credentials for an endpoint on this machine are most often none of AWS.
    let asks_identity = !is_local || STS_ENDPOINT.iter().any(|name| given.variables.contains_key(*name));
    let mut report = Report { lines: warnings.iter().map(warning).collect() };
    match Box::pin(findings(&config, &needed, asks_identity)).await {
        Ok(lines) => report.lines.extend(lines),
        Err(error) => {
            complain(&error);
            return Exit::Config;
        }
    }
    let shown = if json {
        let mut shown = settings::json(&settings, &warnings, &[]);
        shown["aws"] = report.json();
        format!("{shown:#}\n")
    } else {
        report.text()
    };
    if print(shown.as_bytes()) == Exit::Clean { report.exit() } else { Exit::Internal }
}

fn warning(remark: &Remark) -> Line {
    Line::of(Section::Settings, Status::Warning, "", remark.to_string())
}

/// Calls AWS.
async fn findings(
    config: &Config,
    needed: &[&'static Permission],
    asks_identity: bool,
) -> Result<Vec<Line>, client::Error> {
    let clients = client::clients(&client_settings(config), Arc::new(Discard)).await?;
    let (table, state) = tables(&clients, config);
    let (selected, listed) = selected(&clients, config).await;
    let stream = match selected.first() {
        None => clients.stream(config.stream.clone()).with_arn(config.stream_arn.clone()),
        Some(first) => streams::named(&clients, config, &first.name, first.account.as_deref()),
    };
    let names = Names {
        leases: config.table.clone(),
        state: config.state_table.clone(),
        reports: config.reports_table.clone(),
    };
    let api = clients.probes(stream, table.clone(), names.clone());
    let located = clients.locate_credentials().await;
    let shares = config.kinesis.providers == config.dynamodb.providers;
    let ended = |service: &str| {
        let own = located.iter().find(|(of, _)| *of == service);
        let found = own.or_else(|| located.first().filter(|_| shares));
        found.filter(|(_, found)| found.is_err()).map(|_| "there are no credentials".to_owned())
    };
    let letters = config.dead_letters.iter().filter_map(|destination| match destination {
        Destination::Kinesis(stream) => Some(stream.as_str()),
        Destination::File(_) | Destination::Exec(_) => None,
    });
    let fanout = |stream: Option<&Wanted>| {
        let arn = stream.and_then(|stream| stream.consumer.as_deref());
        config.fanout.as_ref().map(|settings| settings.with_arn(arn))
    };
    let of_first = fanout(selected.first());
    let of_stream = kinesis::Wanted {
        stream: selected.first().map_or(&config.stream, |stream| &stream.name),
        arn: config.stream_arn.as_ref(),
        key: if config.streams.is_empty() { kcl::STREAM.name() } else { own::STREAMS.name() },
        fanout: of_first.as_ref(),
        letters: letters.collect(),
        needed,
        ended: ended(KINESIS),
    };
    // One after the other: AWS allows an account few of these calls a second.
    let more = async {
        let mut all = Vec::new();
        for other in selected.iter().skip(1) {
            let stream = streams::named(&clients, config, &other.name, other.account.as_deref());
            let api = clients.probes(stream, table.clone(), names.clone());
            let fanout = fanout(Some(other));
            let wanted = kinesis::Wanted {
                stream: &other.name,
                letters: Vec::new(),
                fanout: fanout.as_ref(),
                ..of_stream.clone()
            };
            all.push(kinesis::check(&api, &wanted).await);
        }
        all
    };
    let of_tables = dynamodb::Wanted {
        leases: &config.table,
        state: &config.state_table,
        reports: &config.reports_table,
        configured: config.generation,
        migrate: config.migrate,
        needed,
        ended: ended(DYNAMODB),
    };
    let identity = async {
        let is_asked = asks_identity && ended(KINESIS).is_none() && !located.is_empty();
        if is_asked { Some(api.call(&Call::Identity).await) } else { None }
    };
    let (identity, first, more, leases) = tokio::join!(
        identity,
        kinesis::check(&api, &of_stream),
        more,
        dynamodb::check(&api, &state, &table, &of_tables),
    );
    let mut lines = credentials(&located, shares);
    lines.extend(identity.as_ref().map(machine::identity));
    let checked: Vec<kinesis::Checked> = std::iter::once(first).chain(more).collect();
    let ids: Vec<_> =
        checked.iter().map(|stream| stream.stream.as_ref().map(|facts| facts.id.clone())).collect();
    let open_shards = checked.iter().map(|stream| stream.stream.as_ref()?.open_shards).sum::<Option<_>>();
    lines.extend(checked.into_iter().flat_map(|stream| stream.lines));
    lines.extend(leases.lines);
    match (config.streams.is_empty(), ids.first()) {
        (true, Some(id)) => {
            lines.extend(dynamodb::foreign(&config.table, &leases.leases, id.as_ref(), &config.stream));
        }
        _ => {
            let described = std::iter::zip(&selected, ids).filter_map(|(stream, id)| Some((stream, id?)));
            lines.extend(described.filter_map(|(stream, id)| {
                dynamodb::foreign_of_several(&config.table, &leases.leases, stream, &id)
            }));
        }
    }
    lines.extend(listed);
    let other = needed.iter().filter(|permission| permission.on == On::Metrics);
    lines.extend(other.filter_map(|permission| session::effect(permission, "*")));
    let services = [
        (Service::Sts, &ClientConfig { region: config.kinesis.region.clone(), ..ClientConfig::default() }),
        (Service::Kinesis, &config.kinesis),
        (Service::DynamoDb, &config.dynamodb),
    ];
    for (service, client) in services {
        let name = service.to_string();
        let is_named = lines.iter().any(|line| line.section == Section::Endpoints && line.resource == name);
        // A service that was not reached has a line, and another one is not called without credentials.
        if let (false, Some(origin)) = (is_named, api.origin(service)) {
            let network = &config.sdk.network;
            lines.push(machine::endpoint(&name, Some(&origin), client.region.as_deref(), network));
        }
    }
    if config.metrics.is_some() {
        let location = Some(config.cloudwatch.location());
        lines.push(machine::endpoint("CloudWatch", None, location, &config.sdk.network));
    }
    lines.push(machine::certificates(http::in_use(&config.sdk.network)));
    lines.push(machine::clock(clients.service.ahead(clock::wall_millis(), Instant::now())));
    let limits = if Launcher::restores_limits() { Limits::look() } else { Limits::current() };
    lines.push(machine::limits(&limits, open_shards));
    Ok(lines)
}

/// The streams that are checked, those included whose names begin as the configuration says, and a line for the permission to
/// list them.
async fn selected(clients: &client::Clients, config: &Config) -> (Vec<Wanted>, Option<Line>) {
    let mut named = config.streams.named.clone();
    if config.streams.prefixes.is_empty() {
        return (named, None);
    }
    let line = |status, text: String| Line::permission(status, "kinesis:ListStreams", "*", text);
    match streams::list(clients).await {
        Ok(names) => {
            let mut found: Vec<Wanted> =
                names.iter().filter_map(|name| config.streams.by_prefix(name)).collect();
            let count = found.len();
            found.retain(|found| named.iter().all(|named| named.name != found.name));
            named.extend(found);
            (named, Some(line(Status::Ok, format!("{count} streams match"))))
        }
        Err(error @ shard::Error::Denied(_)) => {
            (named, Some(line(Status::Failed(Exit::Denied), error.to_string())))
        }
        Err(error) => (named, Some(line(Status::Failed(Exit::Unavailable), error.to_string()))),
    }
}

/// A line for the credentials of each service, or of both.
fn credentials(located: &[(&'static str, Result<String, String>)], shares: bool) -> Vec<Line> {
    if located.is_empty() {
        return vec![Line::of(Section::Credentials, Status::Ok, "", "requests are not signed")];
    }
    let lines = located.iter().map(|(service, found)| {
        let both = format!("{KINESIS} and {DYNAMODB}");
        machine::credentials(if shares { &both } else { service }, found)
    });
    lines.collect()
}
