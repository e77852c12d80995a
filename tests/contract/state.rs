//! The rows beside the leases (leader lock, worker metrics, migration state): one suite for DynamoDB's API and
//! for the in-memory implementation.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use multilangd::aws::client;
use multilangd::aws::state::State;
use multilangd::fleet::Store;
use multilangd::fleet::memory::Memory;
use multilangd::fleet::report::Recorder;
use multilangd::fleet::rows::{Dated, Generation, Lock, Report, Stage, StateLocation};
use multilangd::fleet::store::{Legacy, LockWrite, Over};
use multilangd::lease::WorkerId;
use multilangd::lease::table::Error;
use multilangd::local::tables::Tables;

const BOTH: [StateLocation; 2] = [StateLocation::Legacy, StateLocation::Leases];
const NOW: i64 = 1_795_405_837_123;

/// An implementation under test.
struct Subject {
    name: &'static str,
    store: Box<dyn Store>,
    /// Keeps the endpoint alive; the client writes rows that the implementation itself would not write.
    endpoint: Option<(Tables, aws_sdk_dynamodb::Client)>,
}

/// Creates a table with a string hash key.
async fn make(client: &aws_sdk_dynamodb::Client, table: &str, key: &str) {
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    let string = AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
    let made = client.create_table().table_name(table).key_schema(schema);
    let made = made.attribute_definitions(string.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
    made.send().await.unwrap();
}

/// Both implementations, with or without the tables of KCL versions before 3.5.
async fn subjects(legacy: bool) -> Vec<Subject> {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let url = endpoint.url();
    let settings = client::Settings::local(&url, &url, "us-east-1", Duration::from_secs(30));
    let client =
        client::clients(&settings, std::sync::Arc::new(multilangd::metrics::Discard)).await.unwrap().dynamodb;
    make(&client, "app", "leaseKey").await;
    if legacy {
        make(&client, "app-state", "key").await;
    }
    let memory = Memory::default();
    memory.rows().legacy = Legacy { state: legacy, reports: false };
    let store = State::new(client.clone(), "app".into(), "app-state".into(), "app-reports".into());
    vec![
        Subject { name: "memory", store: Box::new(memory), endpoint: None },
        Subject { name: "DynamoDB's API", store: Box::new(store), endpoint: Some((endpoint, client)) },
    ]
}

fn lock(owner: &str, version: &str) -> Lock {
    Lock { owner: owner.into(), lease: Duration::from_secs(16), version: version.into(), released: false }
}

fn acquire(owner: &str, version: &str, over: Over) -> LockWrite {
    LockWrite::Acquire { row: lock(owner, version), over }
}

fn is_conflict(outcome: &Result<(), Error>) -> bool {
    matches!(outcome, Err(Error::Conflict(_)))
}

#[tokio::test]
async fn lock_is_acquired_renewed_and_released_by_its_version() {
    for Subject { name, store, .. } in &subjects(true).await {
        for place in BOTH {
            assert_eq!(store.lock(place).await, Ok(None), "{name}");
            let write = async |write| store.write_lock(place, &write).await;
            assert_eq!(write(acquire("a", "1", Over::Nothing)).await, Ok(()), "{name}");
            assert!(is_conflict(&write(acquire("b", "2", Over::Nothing)).await), "{name}");
            assert!(is_conflict(&write(acquire("b", "2", Over::Released)).await), "{name}");
            assert!(is_conflict(&write(acquire("b", "2", Over::Broken)).await), "{name}: it has a version");
            assert_eq!(store.lock(place).await, Ok(Some(lock("a", "1"))), "{name}");
            let beat = LockWrite::Beat { row: lock("a", "3"), was: "1".into() };
            assert_eq!(write(beat.clone()).await, Ok(()), "{name}");
            assert!(is_conflict(&write(beat).await), "{name}: the version has moved");
            assert!(is_conflict(&write(acquire("b", "4", Over::Stale("1".into()))).await), "{name}");
            assert_eq!(write(acquire("b", "4", Over::Stale("3".into()))).await, Ok(()), "{name}");
            let zombie = LockWrite::Beat { row: lock("a", "5"), was: "4".into() };
            assert!(is_conflict(&write(zombie).await), "{name}: another's");
            let release =
                |owner: &str, was: &str| LockWrite::Release { owner: owner.into(), was: was.into() };
            assert!(is_conflict(&write(release("a", "4")).await), "{name}");
            assert_eq!(write(release("b", "4")).await, Ok(()), "{name}");
            assert_eq!(store.lock(place).await, Ok(None), "{name}");
        }
    }
}

#[tokio::test]
async fn lock_row_without_a_version_is_replaced() {
    for Subject { name, store, endpoint } in &subjects(true).await {
        let Some((_, client)) = endpoint else { continue };
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let put =
            client.put_item().table_name("app").item("leaseKey", text("Leader")).item("ownerName", text("a"));
        put.send().await.unwrap();
        let found = store.lock(StateLocation::Leases).await.unwrap().unwrap();
        assert!(found.is_broken() && found.lease == Duration::from_secs(120), "{name}: {found:?}");
        let write = acquire("b", "1", Over::Broken);
        assert_eq!(store.write_lock(StateLocation::Leases, &write).await, Ok(()), "{name}");
        assert_eq!(store.lock(StateLocation::Leases).await, Ok(Some(lock("b", "1"))), "{name}");
        assert!(is_conflict(&store.write_lock(StateLocation::Leases, &write).await), "{name}");
    }
}

#[tokio::test]
async fn version_and_stage_writes_are_conditional() {
    let me = WorkerId::from("me");
    for Subject { name, store, .. } in &subjects(true).await {
        for place in BOTH {
            assert_eq!(store.generation(place).await, Ok(None), "{name}");
            let first = Dated::first(Generation::Upgrade, Generation::Init, &me, NOW);
            let next = first.next(Generation::Revocable, &me, NOW + 1);
            assert_eq!(store.write_generation(place, None, &first).await, Ok(()), "{name}");
            assert!(is_conflict(&store.write_generation(place, None, &first).await), "{name}");
            let late = store.write_generation(place, Some(Generation::TwoX), &next).await;
            assert!(is_conflict(&late), "{name}");
            let written = store.write_generation(place, Some(Generation::Upgrade), &next).await;
            assert_eq!(written, Ok(()), "{name}");
            assert_eq!(store.generation(place).await, Ok(Some(next)), "{name}");
        }
        let first = Dated::first(Stage::Init, Stage::Init, &me, NOW);
        assert_eq!(store.stage().await, Ok(None), "{name}");
        assert!(is_conflict(&store.withdraw_stage().await), "{name}");
        assert_eq!(store.write_stage(None, &first).await, Ok(()), "{name}");
        assert!(is_conflict(&store.write_stage(None, &first).await), "{name}");
        assert_eq!(store.withdraw_stage().await, Ok(()), "{name}");
        assert_eq!(store.write_stage(None, &first).await, Ok(()), "{name}");
        let next = first.next(Stage::Deployed, &me, NOW + 1);
        assert!(is_conflict(&store.write_stage(Some(Stage::Pending), &next).await), "{name}");
        assert_eq!(store.write_stage(Some(Stage::Init), &next).await, Ok(()), "{name}");
        assert!(is_conflict(&store.withdraw_stage().await), "{name}: it isn't the first any more");
        assert_eq!(store.stage().await, Ok(Some(next)), "{name}");
    }
}

#[tokio::test]
async fn worker_metrics_are_read_from_the_table_written_to() {
    for Subject { name, store, .. } in &subjects(true).await {
        assert_eq!(store.legacy().await, Ok(Legacy { state: true, reports: false }), "{name}");
        store.make_reports().await.unwrap();
        store.make_reports().await.unwrap();
        assert_eq!(store.legacy().await, Ok(Legacy { state: true, reports: true }), "{name}");
        for place in BOTH {
            assert_eq!(store.reports(place).await, Ok(vec![]), "{name}");
            let mut recorder = Recorder::new(true, 3);
            recorder.sample(12.5);
            let one = recorder.report(&"one".into(), 7);
            let other = Recorder::new(false, 3).report(&"other".into(), 8);
            let limited = Report { most: Some(250), ..one.clone() };
            assert_eq!(store.report(place, &limited).await, Ok(()), "{name}");
            assert_eq!(store.reports(place).await, Ok(vec![limited]), "{name}");
            assert_eq!(store.report(place, &one).await, Ok(()), "{name}: the limit is removed");
            assert_eq!(store.report(place, &other).await, Ok(()), "{name}");
            let mut read = store.reports(place).await.unwrap();
            read.sort_by_key(|report| report.at);
            assert_eq!(read, [one, other.clone()], "{name}");
            assert_eq!(store.retract(place, "one", 6).await, Ok(false), "{name}: it is another by now");
            assert_eq!(store.retract(place, "one", 7).await, Ok(true), "{name}");
            assert_eq!(store.reports(place).await, Ok(vec![other]), "{name}");
        }
    }
}

#[tokio::test]
async fn rows_move_only_for_the_leader() {
    let (me, other) = (WorkerId::from("me"), WorkerId::from("other"));
    for Subject { name, store, .. } in &subjects(true).await {
        let generation = Dated::first(Generation::ThreeX, Generation::Init, &me, NOW);
        store.write_generation(StateLocation::Legacy, None, &generation).await.unwrap();
        store.write_lock(StateLocation::Legacy, &acquire("me", "1", Over::Nothing)).await.unwrap();
        let stage = Dated::first(Stage::Deployed, Stage::Init, &me, NOW);
        store.write_stage(None, &stage).await.unwrap();
        let left = store.left().await.unwrap();
        assert_eq!(left, ["Migration3.0"], "{name}");
        assert!(is_conflict(&store.relocate(&other, &left).await), "{name}");
        assert_eq!(store.generation(StateLocation::Leases).await, Ok(None), "{name}");
        for _ in 0..2 {
            assert_eq!(store.relocate(&me, &left).await, Ok(()), "{name}: safe to repeat");
            assert_eq!(store.left().await, Ok(vec![]), "{name}");
            assert_eq!(store.generation(StateLocation::Legacy).await, Ok(None), "{name}");
            assert_eq!(store.generation(StateLocation::Leases).await, Ok(Some(generation.clone())), "{name}");
        }

        let last = stage.next(Stage::Complete, &me, NOW + 1);
        assert!(is_conflict(&store.finish(&me, &last).await), "{name}: not pending");
        let pending = stage.next(Stage::Pending, &me, NOW + 2);
        store.write_stage(Some(Stage::Deployed), &pending).await.unwrap();
        let last = pending.next(Stage::Complete, &me, NOW + 3);
        assert!(is_conflict(&store.finish(&other, &last).await), "{name}: not the leader");
        assert_eq!(store.finish(&me, &last).await, Ok(()), "{name}");
        assert_eq!(store.stage().await, Ok(Some(last)), "{name}");
        assert!(
            store.reports(StateLocation::Leases).await.unwrap().is_empty(),
            "{name}: no report came of it"
        );
    }
}

/// Only DynamoDB can contain rows that no worker of ours writes.
#[tokio::test]
async fn lease_like_row_stays_and_copied_row_is_deleted() {
    let Subject { store, endpoint, .. } = subjects(true).await.pop().unwrap();
    let (_tables, client) = endpoint.unwrap();
    store.write_lock(StateLocation::Legacy, &acquire("me", "1", Over::Nothing)).await.unwrap();
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let put = async |table: &str, attributes: &[(&str, &str)]| {
        let item = attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    };
    put("app-state", &[("key", "odd"), ("what", "nobody knows")]).await;
    put("app-state", &[("key", "s1"), ("entityType", "STREAM"), ("streamId", "s1")]).await;
    put("app-state", &[("key", "s2"), ("entityType", "STREAM"), ("streamId", "s2")]).await;
    put("app", &[("leaseKey", "s2"), ("entityType", "STREAM"), ("streamId", "s2")]).await;
    put("app-state", &[("key", "s3"), ("entityType", "STREAM"), ("streamId", "s3")]).await;
    put("app", &[("leaseKey", "s3"), ("entityType", "STREAM"), ("streamId", "another")]).await;
    let me = WorkerId::from("me");
    let named = |outcome: Result<(), Error>| match outcome {
        Err(Error::Denied(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(named(store.relocate(&me, &["odd".into()]).await).contains("row odd"));
    assert!(named(store.relocate(&me, &["s3".into()]).await).contains("the row s3"));
    assert_eq!(store.relocate(&me, &["s1".into(), "s2".into()]).await, Ok(()));
    let mut left = store.left().await.unwrap();
    left.sort_unstable();
    assert_eq!(left, ["odd", "s3"]);
}

#[tokio::test]
async fn missing_legacy_tables_hold_no_rows() {
    for Subject { name, store, .. } in &subjects(false).await {
        assert_eq!(store.legacy().await, Ok(Legacy::default()), "{name}");
        assert_eq!(store.lock(StateLocation::Legacy).await, Ok(None), "{name}");
        assert_eq!(store.generation(StateLocation::Legacy).await, Ok(None), "{name}");
        assert_eq!(store.stage().await, Ok(None), "{name}");
        assert_eq!(store.reports(StateLocation::Legacy).await, Ok(vec![]), "{name}");
        let write = acquire("me", "1", Over::Nothing);
        let refused = store.write_lock(StateLocation::Legacy, &write).await;
        assert!(matches!(refused, Err(Error::Missing(_))), "{name}: {refused:?}");
    }
}
