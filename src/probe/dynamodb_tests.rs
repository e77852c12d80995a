//! Which calls are made, and the lines for their replies.

use std::collections::BTreeSet;

use super::super::memory::Scripted;
use super::super::report::Report;
use super::*;
use crate::config::permissions::{self, Probe};
use crate::config::resolve::{Given, resolve};
use crate::fleet::memory::Memory as State;
use crate::fleet::rows::{Dated, Generation};
use crate::fleet::store::Legacy;
use crate::lease::memory::Memory;
use crate::sequence::{Position, Sequence};
use crate::shard::HashRange;

const BESIDE: [Table; 2] = [Table::State, Table::Reports];

fn needed(more: &str) -> Vec<&'static Permission> {
    let file = format!("executableName = p\nstreamName = s\napplicationName = app\nregionName = r\n{more}");
    let settings = resolve(&Given { bytes: file.into_bytes(), ..Given::default() }).settings;
    permissions::needed(&settings).collect()
}

fn lease(typed: bool) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let lease = Lease::new("a".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    Lease { owner: Some("w".into()), typed, ..lease }
}

async fn checked_in(api: &Scripted, state: &State, table: &Memory, more: &str) -> Checked {
    let needed = needed(more);
    let wanted = Wanted {
        leases: "app",
        state: "app-CoordinatorState",
        reports: "app-WorkerMetricStats",
        configured: Configured::Default,
        migrate: more.contains("migrateAllEntitiesToLeaseTable"),
        needed: &needed,
        ended: None,
    };
    check(api, state, table, &wanted).await
}

async fn checked(api: &Scripted, more: &str) -> Checked {
    let (state, table) = (State::default(), Memory::default());
    table.put(lease(true));
    checked_in(api, &state, &table, more).await
}

fn of<'a>(checked: &'a Checked, action: &str) -> Vec<&'a Line> {
    checked.lines.iter().filter(|line| line.action == Some(action)).collect()
}

fn exit(checked: &Checked) -> Exit {
    Report { lines: checked.lines.clone() }.exit()
}

fn is_write(call: &Call) -> bool {
    matches!(call, Call::Delete(_) | Call::Put(_) | Call::Update(_))
}

#[tokio::test]
async fn every_needed_action_has_a_line() {
    let more = "migrateAllEntitiesToLeaseTable = true\nleaseTablePitrEnabled = true\n";
    for api in [Scripted::default().without(&BESIDE), Scripted::default()] {
        let checked = checked(&api, more).await;
        for permission in needed(more).iter().filter(|one| one.action.starts_with("dynamodb:")) {
            assert!(!of(&checked, permission.action).is_empty(), "{}", permission.action);
        }
        assert_eq!(exit(&checked), Exit::Clean, "{:?}", checked.lines);
    }
}

#[tokio::test]
async fn each_denied_action_is_named_with_the_table() {
    for permission in needed("") {
        let Probe::Call(_) = permission.probe else { continue };
        if !permission.action.starts_with("dynamodb:") {
            continue;
        }
        let api = Scripted::default().without(&BESIDE).refusing(permission.action, "AccessDeniedException");
        let checked = checked(&api, "").await;
        assert_eq!(exit(&checked), Exit::Denied, "{}", permission.action);
        let failed: Vec<&Line> =
            checked.lines.iter().filter(|line| matches!(line.status, Status::Failed(_))).collect();
        assert!(failed.iter().all(|line| line.action == Some(permission.action)), "{failed:?}");
        let is_named = |line: &&Line| line.resource.contains("table") && line.text.contains("AccessDenied");
        assert!(!failed.is_empty() && failed.iter().all(is_named), "{failed:?}");
    }
}

#[tokio::test]
async fn missing_lease_table_proves_the_permissions() {
    let (state, table) = (State::default(), Memory::default());
    let api = Scripted::default().without(&[Table::Leases, Table::State, Table::Reports]);
    let checked = checked_in(&api, &state, &table, "").await;
    assert_eq!(exit(&checked), Exit::Clean, "{:?}", checked.lines);
    for action in ["dynamodb:Scan", "dynamodb:PutItem", "dynamodb:Query"] {
        assert_eq!(of(&checked, action)[0].status, Status::Ok, "{action}");
    }
    assert_eq!(of(&checked, "dynamodb:CreateTable")[0].status, Status::NotChecked);
    assert!(!api.calls().contains(&Call::Table(Table::Reports)), "the daemon does not describe it");
}

#[tokio::test]
async fn foreign_table_is_not_written_even_with_a_condition() {
    let api = Scripted::default().without(&BESIDE).with_foreign_table();
    let found = checked(&api, "").await;
    assert_eq!(exit(&found), Exit::Config);
    assert!(!api.calls().iter().any(is_write), "{:?}", api.calls());
    assert_eq!(of(&found, "dynamodb:PutItem")[0].status, Status::NotChecked);
}

#[tokio::test]
async fn endpoint_that_ignores_conditions_gets_no_row() {
    let api = Scripted::default().without(&BESIDE).ignoring_conditions();
    let checked = checked(&api, "").await;
    let writes: Vec<Call> = api.calls().into_iter().filter(is_write).collect();
    assert_eq!(writes, [Call::Delete(Table::Leases)]);
    assert_eq!(of(&checked, "dynamodb:PutItem")[0].status, Status::NotChecked);
    assert_eq!(of(&checked, "dynamodb:UpdateItem")[0].status, Status::NotChecked);
}

#[tokio::test]
async fn tables_of_kcl_3_0_are_probed_until_the_migration_is_complete() {
    let (state, table) = (State::default(), Memory::default());
    state.rows().legacy = Legacy { state: true, reports: true };
    table.put(lease(true));
    let api = Scripted::default();
    let checked = checked_in(&api, &state, &table, "").await;
    assert_eq!(exit(&checked), Exit::Clean, "{:?}", checked.lines);
    for call in [Call::Get(Table::State), Call::Put(Table::State), Call::Update(Table::Reports)] {
        assert!(api.calls().contains(&call), "{call:?}");
    }
    // The leader has not set the stage that permits it.
    let early = checked_in(&api, &state, &table, "migrateAllEntitiesToLeaseTable = true\n").await;
    assert_eq!(exit(&early), Exit::Config);
}

#[tokio::test]
async fn denied_tables_beside_kcl_2_are_a_warning() {
    let (state, table) = (State::default(), Memory::default().without_index());
    state.rows().legacy_denied = true;
    table.put(lease(false));
    // Only the table beside the lease table is denied.
    let api = Scripted::default().without_index().refusing_table(Table::State);
    let found = checked_in(&api, &state, &table, "").await;
    assert_eq!(exit(&found), Exit::Clean, "{:?}", found.lines);
    assert!(of(&found, "dynamodb:DescribeTable").iter().any(|line| line.status == Status::Warning));
    assert_eq!(found.leases.len(), 1);
    // Nor does a worker in KCL 2.x mode use the index.
    let api = api.refusing("dynamodb:Query", "AccessDeniedException");
    let found = checked_in(&api, &state, &table, "").await;
    assert_eq!(exit(&found), Exit::Clean, "{:?}", found.lines);
    table.put(lease(true));
    let found = checked_in(&api, &state, &table, "").await;
    assert_eq!(exit(&found), Exit::Denied);
}

#[tokio::test]
async fn generation_and_mode_are_named() {
    let (state, table) = (State::default(), Memory::default());
    table.put(lease(true));
    let row = Dated::first(Generation::ThreeX, Generation::Init, &"w".into(), 7);
    state.rows().generation.insert(StateLocation::Leases, row);
    let checked = checked_in(&Scripted::default().without(&BESIDE), &state, &table, "").await;
    let texts: Vec<&str> =
        checked.lines.iter().filter(|line| line.section == Section::Tables).map(|line| &*line.text).collect();
    assert!(texts[0].starts_with("1 leases, 0 of finished shards, 1 owners"), "{texts:?}");
    assert!(texts[1].contains("CLIENT_VERSION_3X") && texts[1].contains("leader-assigned"), "{texts:?}");
}

#[tokio::test]
async fn leases_of_another_stream_are_a_failure() {
    let id = |name: &str| StreamId::new(&format!("arn:aws:kinesis:r:123456789012:stream/{name}"), 1);
    let rows = [Lease { stream: Some(id("other")), ..lease(true) }];
    assert_eq!(foreign("app", &rows, Some(&id("s")), "s").unwrap().status, Status::Failed(Exit::Config));
    assert_eq!(foreign("app", &rows, Some(&id("other")), "other"), None);
    assert_eq!(foreign("app", &[lease(true)], Some(&id("s")), "s"), None);
}
