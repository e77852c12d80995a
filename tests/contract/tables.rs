//! The contract of the lease table, for every implementation: in memory, and over DynamoDB's API.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use multilangd::aws::client;
use multilangd::aws::dynamodb::{Leases, Options};
use multilangd::lease::memory::Memory;
use multilangd::lease::orders::{self, Park, Pause};
use multilangd::lease::table::{Error, Found, Streams};
use multilangd::lease::{Lease, LeaseKey, ProcessId, Table, WorkerId, update};
use multilangd::local::tables::Tables;
use multilangd::metrics::{Board, Discard};
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::HashRange;
use tokio::task::JoinSet;

/// An implementation under test.
struct Subject {
    name: &'static str,
    table: Arc<dyn Table>,
    /// Keeps the endpoint alive.
    _endpoint: Option<Tables>,
}

async fn subjects() -> Vec<Subject> {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let leases = clients(&endpoint).await.leases("leases".to_owned(), Options::default());
    let other = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    // The endpoint does not support backups: the table must work without them.
    let options = Options { recoverable: true, segments: 3, ..Options::default() };
    let in_parts = Leases::new(dynamodb(&other).await, "leases".to_owned(), options);
    let subjects = vec![
        Subject { name: "memory", table: Arc::new(Memory::default()), _endpoint: None },
        Subject { name: "DynamoDB's API", table: Arc::new(leases), _endpoint: Some(endpoint) },
        Subject { name: "the same in parts", table: Arc::new(in_parts), _endpoint: Some(other) },
    ];
    for subject in &subjects {
        assert_eq!(subject.table.ensure().await.unwrap(), Found::Created, "{}", subject.name);
        let again = subject.table.ensure().await.unwrap();
        let young = |age| age < Duration::from_secs(60);
        assert!(matches!(again, Found::Existed(age) if young(age)), "{}: {again:?}", subject.name);
    }
    subjects
}

async fn clients(endpoint: &Tables) -> client::Clients {
    let url = endpoint.url();
    let settings = client::Settings::local(&url, &url, "us-east-1", Duration::from_secs(30));
    client::clients(&settings, Arc::new(Discard)).await.unwrap()
}

async fn dynamodb(endpoint: &Tables) -> aws_sdk_dynamodb::Client {
    clients(endpoint).await.dynamodb
}

#[tokio::test]
async fn calls_are_counted_and_failed_conditions_are_no_errors() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let url = endpoint.url();
    let settings = client::Settings::local(&url, &url, "us-east-1", Duration::from_secs(30));
    let board = Arc::new(Board::default());
    let clients = client::clients(&settings, board.clone()).await.unwrap();
    let table = clients.leases("leases".to_owned(), Options::default());
    assert!(table.list().await.is_err(), "there is no table yet");
    table.ensure().await.unwrap();
    assert_eq!(table.create(&lease("a")).await, Ok(true));
    assert_eq!(table.create(&lease("a")).await, Ok(false));
    let calls = board.of_worker().calls;
    let of = |operation: &str| {
        let calls = calls[&("DynamoDB".to_owned(), operation.to_owned())];
        (calls.ok, calls.failed)
    };
    assert_eq!((of("PutItem"), of("Scan")), ((2, 0), (0, 1)), "{calls:?}");
    // The second write is repeated.
    let renewal = update::renew(&lease("a"));
    table.update(&"a".into(), &renewal).await.unwrap();
    assert_eq!(table.update(&"a".into(), &renewal).await, Err(Error::Conflict("a".into())));
    let calls = board.of_worker().calls;
    let updates = calls[&("DynamoDB".to_owned(), "UpdateItem".to_owned())];
    assert_eq!((updates.ok, updates.failed), (2, 0));
    endpoint.stop().await;
}

#[tokio::test]
async fn cloudwatch_client_works_without_its_own_region() {
    let mut settings = client::Settings::local(
        "http://127.0.0.1:1",
        "http://127.0.0.1:1",
        "us-east-1",
        Duration::from_secs(30),
    );
    settings.cloudwatch = Some(multilangd::config::ClientConfig::default());
    let clients = client::clients(&settings, Arc::new(Discard)).await.unwrap();
    let region = clients.cloudwatch.unwrap().config().region().map(ToString::to_string);
    assert_eq!(region.as_deref(), Some("us-east-1"));
}

fn lease(key: &str) -> Lease {
    let parents = BTreeSet::from(["p".into(), "q".into()]);
    Lease::new(
        key.into(),
        Position::new(Sequence::TrimHorizon),
        parents,
        HashRange { start: 0, end: u128::MAX },
    )
}

#[tokio::test]
async fn row_is_created_once_and_reads_back_equal() {
    for Subject { name, table, .. } in &Box::pin(subjects()).await {
        assert_eq!(table.get(&"b".into()).await, Ok(None), "{name}");
        assert_eq!(table.create(&lease("b")).await, Ok(true), "{name}");
        assert_eq!(table.create(&Lease { counter: 7, ..lease("b") }).await, Ok(false), "{name}");
        let ordered =
            Lease { park: Some(Park::new(1, "a")), pause: Some(Pause::new(true, 2, "b")), ..lease("a") };
        assert_eq!(table.create(&ordered).await, Ok(true), "{name}");
        assert_eq!(table.get(&"b".into()).await, Ok(Some(lease("b"))), "{name}");
        assert_eq!(table.list().await, Ok(vec![ordered, lease("b")]), "{name}: in the order of the keys");
    }
}

#[tokio::test]
async fn every_write_applies_once_and_changes_its_fields() {
    for Subject { name, table, .. } in &Box::pin(subjects()).await {
        let key = LeaseKey::from("a");
        table.create(&lease("a")).await.unwrap();
        let mut row = lease("a");
        let me = WorkerId::from("me");
        let position = Position { sequence: Sequence::parse("12345").unwrap(), sub: 6 };
        let children = BTreeSet::from(["x".into(), "y".into()]);
        type Write = Box<dyn Fn(&Lease) -> update::Update>;
        let range = HashRange { start: 3, end: 4 };
        let (parked, paused) = (Park::new(7, "ann"), Pause::new(true, 8, "ann"));
        let lagging = paused.clone();
        let writes: [(&str, Write); 20] = [
            ("take", Box::new(move |row| update::take(row, &me))),
            ("renew", Box::new(update::renew)),
            ("checkpoint", Box::new(move |row| update::checkpoint(row, &position))),
            ("children", Box::new(move |_| update::children(children.clone()))),
            ("checkpoint with children", Box::new(|row| update::checkpoint(row, &Position::shard_end()))),
            ("take from another", Box::new(|row| update::take(row, &"other".into()))),
            ("nudge", Box::new(update::nudge)),
            ("range", Box::new(move |_| update::range(range))),
            ("adopt", Box::new(|row| update::adopt(row, &"other".into()))),
            ("assign", Box::new(|row| update::assign(row, &"third".into()))),
            ("initiate", Box::new(|row| update::initiate(row, &"fourth".into()))),
            ("renew in a hand-off", Box::new(update::renew)),
            ("close the hand-off", Box::new(|row| update::release(row, &update::Next::Nobody))),
            ("release to somebody", Box::new(|row| update::release(row, &update::Next::Worker("me".into())))),
            ("release", Box::new(|row| update::release(row, &update::Next::Nobody))),
            ("park", Box::new(move |row| orders::park(row, &parked, 9))),
            ("unpark", Box::new(orders::unpark)),
            ("pause", Box::new(move |row| orders::pause(row, &paused, 9))),
            ("resume", Box::new(|row| orders::pause(row, &Pause::new(false, 9, "bob"), 9))),
            ("correct", Box::new(move |row| orders::correct(row, &lagging, 9))),
        ];
        for (what, write) in &writes {
            let before = row.clone();
            let update = write(&row);
            assert_eq!(table.update(&key, &update).await, Ok(row.clone()), "{name}: {what}");
            update.apply(&mut row);
            assert_eq!(table.get(&key).await, Ok(Some(row.clone())), "{name}: {what}");
            if !["children", "nudge", "range"].contains(what) {
                let again = table.update(&key, &write(&before)).await;
                assert_eq!(again, Err(Error::Conflict(key.clone())), "{name}: {what} again");
                assert_eq!(table.get(&key).await, Ok(Some(row.clone())), "{name}: a conflict writes nothing");
            }
        }
    }
}

#[tokio::test]
async fn acquisition_does_not_replace_the_date_of_an_order() {
    for Subject { name, table, .. } in &Box::pin(subjects()).await {
        let key = LeaseKey::from("a");
        let row = Lease { checkpoint: Position::new(Sequence::Latest), ..lease("a") };
        table.create(&row).await.unwrap();
        let process = ProcessId::new(5, "one", &"me".into());
        let mark = update::Mark { stream: None, process, stores_start: true };
        let acquisition = |row: &Lease| {
            let mut update = update::take(row, &"me".into()).marked(row, &mark);
            update.date(20);
            update
        };
        let old = acquisition(&row);
        table.update(&key, &orders::park(&row, &Park::new(7, "ann"), 9)).await.unwrap();
        assert_eq!(table.update(&key, &old).await, Err(Error::Conflict(key.clone())), "{name}");
        let parked = table.get(&key).await.unwrap().unwrap();
        table.update(&key, &acquisition(&parked)).await.unwrap();
        let acquired = table.get(&key).await.unwrap().unwrap();
        assert_eq!((acquired.owner, acquired.latest_from), (Some("me".into()), Some(9)), "{name}");
        let new = Lease { checkpoint: Position::new(Sequence::Latest), ..lease("b") };
        table.create(&new).await.unwrap();
        table.update(&"b".into(), &acquisition(&new)).await.unwrap();
        assert_eq!(table.get(&"b".into()).await.unwrap().unwrap().latest_from, Some(20), "{name}");
    }
}

#[tokio::test]
async fn only_rows_of_finished_shards_are_deleted() {
    for Subject { name, table, .. } in &Box::pin(subjects()).await {
        let key = LeaseKey::from("a");
        assert_eq!(table.delete(&key).await, Ok(false), "{name}: nothing there");
        table.create(&lease("a")).await.unwrap();
        assert_eq!(table.delete(&key).await, Ok(false), "{name}: still open");
        table.update(&key, &update::checkpoint(&lease("a"), &Position::shard_end())).await.unwrap();
        assert_eq!(table.delete(&key).await, Ok(true), "{name}");
        assert_eq!(table.get(&key).await, Ok(None), "{name}");
    }
}

#[tokio::test]
async fn no_update_creates_a_row() {
    for Subject { name, table, .. } in &Box::pin(subjects()).await {
        let gone = lease("gone");
        let held = Lease { owner: Some("me".into()), ..gone.clone() };
        for update in [
            update::renew(&gone),
            update::take(&gone, &"me".into()),
            update::checkpoint(&gone, &Position::shard_end()),
            update::release(&gone, &update::Next::Nobody),
            update::release(&held, &update::Next::Instead(None)),
            update::adopt(&held, &"me".into()),
            update::assign(&gone, &"x".into()),
            update::initiate(&held, &"x".into()),
            update::release(&held, &update::Next::Nobody),
            update::children(BTreeSet::from(["x".into()])),
            update::nudge(&held),
            update::range(HashRange { start: 0, end: 1 }),
        ] {
            assert_eq!(table.update(&gone.key, &update).await, Err(Error::Conflict("gone".into())), "{name}");
        }
        assert_eq!(table.get(&gone.key).await, Ok(None), "{name}");
    }
}

#[tokio::test]
async fn concurrent_acquisitions_of_one_lease_have_one_winner() {
    for Subject { name, table, .. } in &Box::pin(subjects()).await {
        table.create(&lease("a")).await.unwrap();
        let mut takers = JoinSet::new();
        for n in 0..20 {
            let table = table.clone();
            takers.spawn(async move {
                table
                    .update(&"a".into(), &update::take(&lease("a"), &format!("w{n}").as_str().into()))
                    .await
                    .is_ok()
            });
        }
        let winners = takers.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(winners, 1, "{name}");
        assert_eq!(table.get(&"a".into()).await.unwrap().unwrap().counter, 1, "{name}");
    }
}

#[tokio::test]
async fn missing_table_is_reported_as_missing() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let table = Leases::new(dynamodb(&endpoint).await, "nowhere".to_owned(), Options::default());
    assert_eq!(table.list().await, Err(Error::Missing("nowhere".into())));
    assert_eq!(
        table.update(&"a".into(), &update::renew(&lease("a"))).await,
        Err(Error::Missing("nowhere".into()))
    );
}

#[tokio::test]
async fn rows_that_are_not_leases_are_skipped() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let client = dynamodb(&endpoint).await;
    let table = Leases::new(client.clone(), "leases".to_owned(), Options::default());
    table.ensure().await.unwrap();
    table.create(&lease("a")).await.unwrap();
    for (key, entity) in [("Leader", Some("LEADER")), ("broken", None)] {
        let put = client.put_item().table_name("leases").item("leaseKey", AttributeValue::S(key.into()));
        let put = entity
            .into_iter()
            .fold(put, |put, entity| put.item("entityType", AttributeValue::S(entity.into())));
        put.send().await.unwrap();
    }
    assert_eq!(table.list().await, Ok(vec![lease("a")]));
    assert_eq!(table.get(&"Leader".into()).await, Ok(None));
}

/// Rows as zio-kinesis writes them: without owner switches, and with a NULL checkpoint.
#[tokio::test]
async fn row_without_checkpoint_accepts_every_write() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let client = dynamodb(&endpoint).await;
    let options = Options { initial: Sequence::TrimHorizon, ..Options::default() };
    let table = Leases::new(client.clone(), "leases".to_owned(), options);
    table.ensure().await.unwrap();
    let text = |value: &str| AttributeValue::S(value.to_owned());
    for checkpoint in [Some(AttributeValue::Null(true)), None] {
        let put = client.put_item().table_name("leases").item("leaseKey", text("z"));
        let put = put.item("leaseCounter", AttributeValue::N("3".into())).item("notOurs", text("kept"));
        let put = checkpoint.into_iter().fold(put, |put, value| put.item("checkpoint", value));
        put.send().await.unwrap();
        let range = HashRange { start: 0, end: 1 };
        let mut row = Lease::new("z".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        (row.counter, row.range, row.typed) = (3, None, false);
        let position = Position { sequence: Sequence::parse("12345").unwrap(), sub: 6 };
        type Write = Box<dyn Fn(&Lease) -> update::Update>;
        let writes: [Write; 8] = [
            Box::new(|row| update::take(row, &"me".into())),
            Box::new(update::renew),
            Box::new(update::nudge),
            Box::new(|row| update::initiate(row, &"other".into())),
            Box::new(|row| update::release(row, &update::Next::Nobody)),
            Box::new(move |_| update::range(range)),
            Box::new(move |row| update::checkpoint(row, &position)),
            Box::new(|row| update::checkpoint(row, &Position::shard_end())),
        ];
        for write in &writes {
            assert_eq!(table.list().await, Ok(vec![row.clone()]));
            let update = write(&row);
            assert_eq!(table.update(&row.key, &update).await, Ok(row.clone()), "{update:?}");
            update.apply(&mut row);
            assert_eq!(table.get(&row.key).await, Ok(Some(row.clone())), "{update:?}");
        }
        let kept = client.get_item().table_name("leases").key("leaseKey", text("z")).send().await.unwrap();
        assert_eq!(kept.item().unwrap()["notOurs"], text("kept"));
        assert_eq!(table.delete(&row.key).await, Ok(true));
    }
    endpoint.stop().await;
}

#[tokio::test]
async fn unreadable_row_is_an_error_naming_the_attribute() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let client = dynamodb(&endpoint).await;
    let table = Leases::new(client.clone(), "leases".to_owned(), Options::default());
    table.ensure().await.unwrap();
    let key = AttributeValue::S("a".into());
    client.put_item().table_name("leases").item("leaseKey", key).send().await.unwrap();
    assert_eq!(table.create(&lease("a")).await, Ok(false));
    let Err(Error::Unreadable { key, why, .. }) = table.get(&"a".into()).await else { panic!("it was read") };
    assert!(key == "a".into() && why.contains("leaseCounter"), "{why}");
    endpoint.stop().await;
}

#[tokio::test]
async fn leases_of_several_streams_share_a_table() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let options = Options { streams: Streams::Several, ..Options::default() };
    let table = clients(&endpoint).await.leases("leases".to_owned(), options);
    table.ensure().await.unwrap();
    let [orders, payments] = ["1:orders:5:a", "1:payments:5:a"].map(lease);
    assert_eq!(table.create(&payments).await, Ok(true));
    assert_eq!(table.create(&orders).await, Ok(true), "another shard of the same id");
    assert_eq!(table.create(&orders).await, Ok(false));
    assert_eq!(table.list().await, Ok(vec![orders.clone(), payments.clone()]));
    let taken = update::take(&orders, &"me".into());
    assert_eq!(table.update(&orders.key, &taken).await, Ok(orders.clone()));
    assert_eq!(table.get(&payments.key).await, Ok(Some(payments.clone())), "the other one is unchanged");
    assert_eq!(table.owned(&"me".into()).await, Ok(vec![orders.key.clone()]));
    let ended = update::checkpoint(&payments, &Position::shard_end());
    table.update(&payments.key, &ended).await.unwrap();
    assert_eq!(table.delete(&orders.key).await, Ok(false), "it is open");
    assert_eq!(table.delete(&payments.key).await, Ok(true));
    endpoint.stop().await;
}

#[tokio::test]
async fn table_holds_the_leases_of_one_or_of_several_streams() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let client = dynamodb(&endpoint).await;
    let rows = async |table: &str| {
        let found = client.scan().table_name(table).send().await.unwrap();
        found.items().to_vec()
    };
    for (streams, ours, theirs) in
        [(Streams::One, "a", "1:orders:5:shardId-0"), (Streams::Several, "1:orders:5:shardId-0", "a")]
    {
        let name = format!("{streams:?}");
        let table = Leases::new(client.clone(), name.clone(), Options { streams, ..Options::default() });
        let other = if streams == Streams::One { Streams::Several } else { Streams::One };
        let beside =
            Leases::new(client.clone(), name.clone(), Options { streams: other, ..Options::default() });
        table.ensure().await.unwrap();
        let refused = table.create(&lease(theirs)).await.unwrap_err();
        assert!(refused.is_foreign(), "{refused}");
        assert_eq!(rows(&name).await, [], "{name}");
        table.create(&lease(ours)).await.unwrap();
        let before = rows(&name).await;
        let refused = [
            beside.list().await.map(drop),
            beside.get(&lease(ours).key).await.map(drop),
            beside.create(&lease(ours)).await.map(drop),
        ];
        assert!(refused.into_iter().all(|refused| refused.is_err_and(|error| error.is_foreign())), "{name}");
        assert_eq!(rows(&name).await, before, "nothing is written");
    }
    endpoint.stop().await;
}

#[tokio::test]
async fn write_to_an_unreadable_row_names_the_attribute() {
    let endpoint = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
    let client = dynamodb(&endpoint).await;
    let table = Leases::new(client.clone(), "leases".to_owned(), Options::default());
    table.ensure().await.unwrap();
    let row = lease("a");
    table.create(&row).await.unwrap();
    let text = |value: &str| AttributeValue::S(value.to_owned());
    for (attribute, value) in [("checkpoint", "soon"), ("entityType", "ODD")] {
        let edit = client.update_item().table_name("leases").key("leaseKey", text("a"));
        let edit = edit
            .update_expression("SET #n = :v, leaseCounter = :c")
            .expression_attribute_names("#n", attribute);
        let edit = edit.expression_attribute_values(":v", text(value));
        let counter = AttributeValue::N(row.counter.to_string());
        edit.expression_attribute_values(":c", counter).send().await.unwrap();
        let written = table.update(&row.key, &update::renew(&row)).await;
        let Err(error) = written else { panic!("{written:?}") };
        assert!(!error.is_unanswered());
        let Error::Written { key, why, .. } = error else { panic!("{error:?}") };
        assert!(key == row.key && why.contains(attribute) && why.contains(value), "{why}");
        let stored = client.get_item().table_name("leases").key("leaseKey", text("a")).send().await.unwrap();
        let counter = AttributeValue::N((row.counter + 1).to_string());
        assert_eq!(stored.item().unwrap()["leaseCounter"], counter, "the write was applied");
    }
    endpoint.stop().await;
}

#[tokio::test]
async fn table_in_a_file_persists_across_starts() {
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("tables-{}.sqlite", std::process::id()));
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = Tables::start(loopback, Some(&file)).await.unwrap();
    let table = Leases::new(dynamodb(&endpoint).await, "leases".to_owned(), Options::default());
    table.ensure().await.unwrap();
    table.create(&lease("a")).await.unwrap();
    drop(table);
    endpoint.stop().await;
    let endpoint = Tables::start(loopback, Some(&file)).await.unwrap();
    let table = Leases::new(dynamodb(&endpoint).await, "leases".to_owned(), Options::default());
    assert_eq!(table.list().await, Ok(vec![lease("a")]));
    endpoint.stop().await;
    std::fs::remove_file(file).unwrap();
}
