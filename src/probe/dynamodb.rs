//! The calls of DynamoDB, and lines about the tables.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use super::judge::{Judgement, is_harmless, is_missing, judge};
use super::port::{Api, Call, Found, Reply, Service, Table, TableFacts};
use super::report::{Line, Section, Status};
use super::session::Session;
use crate::config::permissions::{On, Permission};
use crate::exit::Exit;
use crate::fleet::layout::{Layout, TooEarly};
use crate::fleet::rows::{StateLocation, Word};
use crate::fleet::version::{self, Configured, Start};
use crate::fleet::{Mode, Store};
use crate::inspect::{self, Look};
use crate::lease::{self, Lease, WorkerId, of_stream, origin, table};
use crate::stream::{self, StreamId};

/// Time limit for reading the tables, which takes a scan of all rows.
const READ: Duration = Duration::from_secs(30);
/// Why no row of a table is written, not even with a condition.
const FOREIGN: &str = "the table is not a lease table of this application";

/// The settings that decide which calls are made.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The name of the lease table.
    pub leases: &'a str,
    /// The name of the coordinator's table of KCL 3.0 to 3.4.
    pub state: &'a str,
    /// The name of the table of worker metrics of KCL 3.0 to 3.4.
    pub reports: &'a str,
    /// `clientVersionConfig`.
    pub configured: Configured,
    /// `migrateAllEntitiesToLeaseTable`.
    pub migrate: bool,
    /// The permissions that the settings need.
    pub needed: &'a [&'static Permission],
    /// Why no calls can be made.
    pub ended: Option<String>,
}

impl Wanted<'_> {
    fn name(&self, table: Table) -> &str {
        match table {
            Table::Leases => self.leases,
            Table::State => self.state,
            Table::Reports => self.reports,
        }
    }
}

/// The result.
#[derive(Debug)]
pub struct Checked {
    /// The lines.
    pub lines: Vec<Line>,
    /// The leases, if they could be read.
    pub leases: Vec<Lease>,
}

/// A table that was described.
#[derive(Debug, Clone, PartialEq)]
enum Described {
    As(TableFacts),
    Missing,
    Denied(String),
    Unknown,
}

impl Described {
    fn of(reply: Option<&Reply>) -> Self {
        match reply {
            Some(Reply::Done(Found::Table(facts))) => Self::As(facts.clone()),
            Some(reply) if is_missing(reply) => Self::Missing,
            Some(reply) => {
                if let Judgement::Denied(why) = judge(reply) {
                    Self::Denied(why)
                } else {
                    Self::Unknown
                }
            }
            None => Self::Unknown,
        }
    }

    fn facts(&self) -> Option<&TableFacts> {
        if let Self::As(facts) = self { Some(facts) } else { None }
    }

    /// The ARN or the name.
    fn on(&self, name: &str) -> String {
        self.facts().and_then(|facts| facts.arn.clone()).unwrap_or_else(|| format!("table {name}"))
    }
}

/// The rows of the tables.
enum Content {
    /// As a worker reads them.
    All(Box<Look>),
    /// The leases alone: the tables beside the lease table are denied.
    Leases(Vec<Lease>),
    /// The table is not one of this application: the error.
    Foreign(String),
    /// Not read, and why.
    Unread(Status, String),
}

/// Makes the calls, and reads the tables.
pub async fn check(
    api: &dyn Api,
    store: &dyn Store,
    table: &dyn lease::Table,
    wanted: &Wanted<'_>,
) -> Checked {
    let mut session = Session::new(api, Service::DynamoDb, wanted.ended.clone());
    let leases = describe(&mut session, wanted, Table::Leases).await;
    // Without the first table the daemon does not look for the second.
    let call = Call::Table(Table::State);
    let reply = session.call(&call).await;
    let state = Described::of(reply.as_ref());
    let content = match &leases {
        Described::As(facts) => match &facts.shape {
            Some(shape) => Some(Content::Foreign(shape.clone())),
            None => Some(read(store, table, &state).await),
        },
        Described::Missing | Described::Denied(_) | Described::Unknown => None,
    };
    let suffices = is_kcl_2(store, &leases, content.as_ref(), wanted).await;
    if let (Described::Denied(why), true) = (&state, suffices) {
        let text = format!("the lease table is one of KCL 2.x, its permissions suffice; {why}");
        session.line(Status::Warning, call.action(), &state.on(wanted.state), text);
    } else {
        session.judged(&call, &state.on(wanted.state), reply.as_ref());
    }
    let reports = match state {
        Described::As(_) => describe(&mut session, wanted, Table::Reports).await,
        Described::Missing | Described::Denied(_) | Described::Unknown => Described::Missing,
    };
    let is_foreign = matches!(content, Some(Content::Foreign(_)));
    let is_led = match &content {
        Some(Content::All(look)) => mode(look, wanted).is_ok_and(|(_, mode)| mode != Mode::Phase1),
        Some(Content::Leases(_)) => !suffices,
        Some(Content::Foreign(_) | Content::Unread(..)) | None => true,
    };
    if is_foreign {
        not_probed(&mut session, &leases, wanted);
    } else {
        probe_leases(&mut session, &leases, wanted, is_led).await;
    }
    let layout = match &content {
        Some(Content::All(look)) => look.layout(),
        _ => Layout::Init,
    };
    let is_beside = layout != Layout::Complete && !is_foreign;
    if is_beside && state.facts().is_some() {
        let calls = [Call::Get(Table::State), Call::Scan(Table::State)];
        probe_rows(&mut session, Table::State, &state.on(wanted.state), &calls, true).await;
    }
    if is_beside && reports.facts().is_some() {
        let calls = [Call::Scan(Table::Reports)];
        probe_rows(&mut session, Table::Reports, &reports.on(wanted.reports), &calls, false).await;
    }
    others(&mut session, wanted, &leases, state.facts().filter(|_| is_beside).is_some()).await;
    lines_of_tables(&mut session, wanted, &leases, content.as_ref());
    let leases = match content {
        Some(Content::All(look)) => look.leases().to_vec(),
        Some(Content::Leases(leases)) => leases,
        Some(Content::Foreign(_) | Content::Unread(..)) | None => Vec::new(),
    };
    Checked { lines: session.lines, leases }
}

async fn describe(session: &mut Session<'_>, wanted: &Wanted<'_>, table: Table) -> Described {
    let call = Call::Table(table);
    let reply = session.call(&call).await;
    let described = Described::of(reply.as_ref());
    session.judged(&call, &described.on(wanted.name(table)), reply.as_ref());
    described
}

/// Reads the rows once.
async fn read(store: &dyn Store, table: &dyn lease::Table, state: &Described) -> Content {
    let reading = async {
        if let Described::Denied(_) = state {
            return table.list().await.map(Content::Leases);
        }
        inspect::look(store, table).await.map(|look| Content::All(Box::new(look)))
    };
    match timeout(READ, reading).await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) if error.is_foreign() => Content::Foreign(error.to_string()),
        // The line of the permission names it.
        Ok(Err(table::Error::Denied(why))) => Content::Unread(Status::NotChecked, why),
        Ok(Err(table::Error::Throttled(why))) => Content::Unread(Status::Warning, why),
        Ok(Err(error)) => Content::Unread(Status::Failed(Exit::Unavailable), error.to_string()),
        Err(_) => {
            let text = format!("the rows were not read within {} s", READ.as_secs());
            Content::Unread(Status::Warning, text)
        }
    }
}

/// Whether a worker would run in KCL 2.x mode, which needs the lease table alone.
async fn is_kcl_2(
    store: &dyn Store,
    leases: &Described,
    content: Option<&Content>,
    wanted: &Wanted<'_>,
) -> bool {
    let (Some(Content::Leases(rows)), Some(facts)) = (content, leases.facts()) else { return false };
    let is_stored = store.generation(StateLocation::Leases).await.map_or(true, |row| row.is_some());
    !is_stored && version::is_two_x_for_sure(wanted.configured, rows, facts.index)
}

fn not_probed(session: &mut Session<'_>, leases: &Described, wanted: &Wanted<'_>) {
    let table = Table::Leases;
    let reads = [Call::Query, Call::Get(table), Call::Scan(table)];
    for call in reads.iter().chain(&[Call::Delete(table), Call::Put(table), Call::Update(table)]) {
        session.line(Status::NotChecked, call.action(), &leases.on(wanted.leases), FOREIGN);
    }
}

/// `is_led`: whether the worker would find its leases by the index, as with lease assignment by a leader.
async fn probe_leases(session: &mut Session<'_>, leases: &Described, wanted: &Wanted<'_>, is_led: bool) {
    let on = leases.on(wanted.leases);
    let index = format!("{on}/index/*");
    let reads = [Call::Get(Table::Leases), Call::Scan(Table::Leases)];
    let reply = session.call(&Call::Query).await;
    let has_no_index = leases.facts().is_some_and(|facts| !facts.index);
    match reply.as_ref().map(judge) {
        Some(Judgement::Unknown(_)) if has_no_index => {
            let text = "the index of lease owners does not exist yet";
            session.line(Status::NotChecked, Call::Query.action(), &index, text);
        }
        Some(Judgement::Denied(why)) if !is_led => {
            let text = format!("not needed in KCL 2.x mode; {why}");
            session.line(Status::Warning, Call::Query.action(), &index, text);
        }
        _ => session.judged(&Call::Query, &index, reply.as_ref()),
    }
    probe_rows(session, Table::Leases, &on, &reads, true).await;
}

/// Makes these calls, and writes with conditions that no row fulfils.
async fn probe_rows(session: &mut Session<'_>, table: Table, on: &str, reads: &[Call], puts: bool) {
    for call in reads {
        session.probe(call, on).await;
    }
    let first = session.probe(&Call::Delete(table), on).await;
    let writes = puts.then_some(Call::Put(table)).into_iter().chain([Call::Update(table)]);
    for call in writes {
        if first.as_ref().is_none_or(is_harmless) {
            session.probe(&call, on).await;
        } else {
            let text = "DeleteItem was not refused for its condition, so no row is written";
            session.line(Status::NotChecked, call.action(), on, text);
        }
    }
}

/// The other permissions: those that can only be used with an effect, and transactions.
async fn others(session: &mut Session<'_>, wanted: &Wanted<'_>, leases: &Described, has_state: bool) {
    let on = leases.on(wanted.leases);
    let has_index = leases.facts().is_some_and(|facts| facts.index);
    for permission in wanted.needed {
        let not_needed = match permission.action {
            "dynamodb:CreateTable" if leases.facts().is_some() => Some("not needed while the table exists"),
            "dynamodb:UpdateTable" if has_index => Some("not needed while the index of lease owners exists"),
            "dynamodb:ConditionCheckItem" if !has_state && session.ended().is_none() => {
                Some("not needed without the tables of KCL 3.0 to 3.4")
            }
            _ => None,
        };
        match (not_needed, permission.on) {
            (Some(why), _) => session.line(Status::Ok, permission.action, &on, why),
            (None, _) if permission.action == "dynamodb:ConditionCheckItem" => {
                session.probe(&Call::Condition(Table::State), &format!("table {}", wanted.state)).await;
            }
            (None, On::Tables | On::LeaseTable | On::LeaseTableIndex) => session.effect(permission, &on),
            (None, On::Stream | On::StreamAndConsumers | On::Consumers) => {}
            (None, On::LetterStreams | On::Metrics | On::Account) => {}
        }
    }
}

fn lines_of_tables(
    session: &mut Session<'_>,
    wanted: &Wanted<'_>,
    leases: &Described,
    content: Option<&Content>,
) {
    let mut add = |status, text: String| {
        session.lines.push(Line::of(Section::Tables, status, wanted.leases, text));
    };
    match leases {
        Described::Missing => add(Status::Ok, "does not exist, the daemon creates it".to_owned()),
        Described::As(facts) if !["ACTIVE", "UPDATING"].contains(&facts.status.as_str()) => {
            add(Status::Warning, format!("the status of the table is {}", facts.status));
        }
        Described::As(_) | Described::Denied(_) | Described::Unknown => {}
    }
    match content {
        Some(Content::Foreign(why)) => add(Status::Failed(Exit::Config), why.clone()),
        Some(Content::Unread(status, why)) => add(*status, format!("not read: {why}")),
        Some(Content::Leases(leases)) => add(Status::Ok, counted(leases)),
        Some(Content::All(look)) => {
            add(Status::Ok, counted(look.leases()));
            let (status, text) = generation(look, wanted);
            add(status, text);
        }
        None => {}
    }
}

/// The number of leases, and of their owners.
fn counted(leases: &[Lease]) -> String {
    let finished = leases.iter().filter(|lease| lease.is_complete()).count();
    let owners: BTreeSet<&WorkerId> = leases.iter().filter_map(|lease| lease.owner.as_ref()).collect();
    format!("{} leases, {finished} of finished shards, {} owners", leases.len(), owners.len())
}

/// The layout of the tables for a worker that starts, and its mode.
fn mode(look: &Look, wanted: &Wanted<'_>) -> Result<(Layout, Mode), TooEarly> {
    let stage = look.stage().map(|row| row.now.state);
    let old = stage.is_some() || look.layout() != Layout::Complete;
    let layout = Layout::at_start(old, stage, wanted.migrate)?;
    let stored = look.generation();
    let two_x = stored.is_none() && !old && version::is_two_x(look.leases());
    // The row that a worker would write is not used.
    let start = version::start(wanted.configured, stored, two_x, &WorkerId::from("-"), 0);
    let (Start::As(mode) | Start::Write { then: mode, .. }) = start;
    Ok((layout, mode))
}

/// The KCL version of the fleet, and the mode in which a worker would start.
fn generation(look: &Look, wanted: &Wanted<'_>) -> (Status, String) {
    let (layout, mode) = match mode(look, wanted) {
        Ok(found) => found,
        Err(error) => return (Status::Failed(Exit::Config), error.to_string()),
    };
    let stored = look.generation();
    let state = stored.map_or("no KCL 3.x state".to_owned(), |row| row.now.state.word().to_owned());
    (Status::Ok, format!("{state}, {layout}; a worker starts in the mode {mode}"))
}

/// Whether the leases belong to another stream.
pub fn foreign(table: &str, leases: &[Lease], stream: Option<&StreamId>, name: &str) -> Option<Line> {
    let error = origin::marks(leases, stream, name).err()?;
    Some(Line::of(Section::Tables, Status::Failed(Exit::Config), table, error.to_string()))
}

/// A line if leases of one of several streams are not of the described one, or are of another epoch than the configured
/// one.
pub fn foreign_of_several(
    table: &str,
    leases: &[Lease],
    wanted: &stream::Wanted,
    stream: &StreamId,
) -> Option<Line> {
    let in_table = leases.iter().filter_map(|lease| lease.key.stream().cloned()).collect();
    match wanted.identifier(Some(stream), &in_table) {
        Ok(identifier) => foreign(table, &of_stream::leases(leases, &identifier), Some(stream), &wanted.name),
        Err(error) => Some(Line::of(Section::Tables, Status::Failed(Exit::Config), table, error.to_string())),
    }
}

#[cfg(test)]
#[path = "dynamodb_tests.rs"]
mod tests;
