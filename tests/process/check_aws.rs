//! `multilangd check FILE` with `--aws`, `--permissions` and `--diff`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::denying::Denying;
use crate::rig::*;

/// The operations that have no effect: the only ones that a check may call. Writes have a condition.
const HARMLESS: [&str; 14] = [
    "DescribeStreamSummary",
    "DescribeStream",
    "ListShards",
    "GetShardIterator",
    "GetRecords",
    "DescribeStreamConsumer",
    "DescribeTable",
    "Scan",
    "Query",
    "GetItem",
    "DeleteItem",
    "PutItem",
    "UpdateItem",
    "TransactWriteItems",
];

async fn run(rig: &Rig, file: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["check", file.to_str().unwrap()], arguments].concat();
    let mut command = rig.command(&arguments);
    let code = command.ended().await.code();
    (code, command.printed.join("\n"))
}

/// The exit code and the report.
async fn checked(rig: &Rig, file: &Path) -> (Option<i32>, Value) {
    let (code, printed) = run(rig, file, &["--aws", "--json"]).await;
    let mut shown: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}"));
    let report = shown["aws"].take();
    assert_eq!(report["verdict"]["exit"].as_i64(), code.map(i64::from), "{report:#}");
    (code, report)
}

fn findings<'a>(report: &'a Value, section: &str, status: &str) -> Vec<&'a Value> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|one| one["section"] == section && one["status"] == status).collect()
}

fn actions(found: &[&Value]) -> BTreeSet<String> {
    found.iter().map(|one| one["action"].as_str().unwrap().to_owned()).collect()
}

/// The rows of all tables, by the table and the key.
async fn dump(rig: &Rig) -> BTreeMap<String, BTreeMap<String, HashMap<String, AttributeValue>>> {
    let names = rig.clients.dynamodb.list_tables().send().await.unwrap().table_names().to_vec();
    let mut tables = BTreeMap::new();
    for name in names {
        let rows = rig.clients.dynamodb.scan().table_name(&name).consistent_read(true).send().await.unwrap();
        let keyed = |row: &HashMap<String, AttributeValue>| {
            let key = ["leaseKey", "key", "wid"].iter().find_map(|key| row.get(*key)?.as_s().ok());
            (key.unwrap().clone(), row.clone())
        };
        tables.insert(name, rows.items().iter().map(keyed).collect());
    }
    tables
}

/// Runs a daemon until it has a checkpoint, and stops it.
async fn lease_table(rig: &mut Rig, more: &str) -> PathBuf {
    rig.put(&[("key".to_owned(), b"x".to_vec())]).await;
    let file = rig.properties(&rig.scripted("each"), more);
    let mut daemon = rig.daemon(&file);
    let is_checkpoint =
        |report: &Report| matches!(report, Report::Said { what, .. } if what == "checkpointed");
    rig.until("a checkpoint", |log| log.iter().any(is_checkpoint)).await;
    assert_eq!(daemon.stop().await, Some(0));
    file
}

async fn table(rig: &Rig, name: &str, key: &str) {
    let element = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    let definition =
        AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
    let create = rig.clients.dynamodb.create_table().table_name(name).key_schema(element);
    let create = create.attribute_definitions(definition.build().unwrap());
    create.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_denied_permission_is_named_and_nothing_is_written() {
    let mut rig = Rig::start("check-denied").await;
    rig.stream(2).await;
    let mode = "retrievalMode = FANOUT\n";
    lease_table(&mut rig, mode).await;
    let before = dump(&rig).await;
    let (kinesis, dynamodb) = (Denying::before(&rig.url).await, Denying::before(&rig.tables.url()).await);
    let endpoints = format!("kinesisEndpoint = {}\ndynamoDBEndpoint = {}\n", kinesis.url, dynamodb.url);
    let file = rig.properties("cat", &format!("{mode}{endpoints}"));
    let (code, report) = checked(&rig, &file).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert!(findings(&report, "permissions", "denied").is_empty(), "{report:#}");
    let granted = actions(&findings(&report, "permissions", "ok"));
    let called: BTreeSet<String> = kinesis.take().into_iter().chain(dynamodb.take()).collect();
    assert!(called.iter().all(|operation| HARMLESS.contains(&operation.as_str())), "{called:?}");
    assert!(granted.len() >= 12, "{granted:?}");
    let mut denied_actions = 0;
    for operation in called {
        let is_stream = ["Stream", "Shard", "Records"].iter().any(|part| operation.contains(part));
        let (proxy, service, resource) =
            if is_stream { (&kinesis, "kinesis", STREAM) } else { (&dynamodb, "dynamodb", APPLICATION) };
        let action = format!("{service}:{operation}");
        if !granted.contains(&action) {
            continue;
        }
        proxy.deny(&operation, "AccessDeniedException");
        let (code, report) = checked(&rig, &file).await;
        proxy.deny("", "");
        assert_eq!(code, Some(77), "{action}: {report:#}");
        let denied = findings(&report, "permissions", "denied");
        assert_eq!(actions(&denied), BTreeSet::from([action.clone()]), "{report:#}");
        for one in denied {
            assert!(one["resource"].as_str().unwrap().contains(resource), "{one}");
            let message = one["message"].as_str().unwrap();
            assert!(message.contains("AccessDeniedException") && message.contains("user/u"), "{one}");
        }
        denied_actions += 1;
    }
    assert!(denied_actions >= 12, "{denied_actions}");
    assert_eq!(dump(&rig).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_kcl_3_0_are_checked_and_not_written() {
    let mut rig = Rig::start("check-legacy").await;
    rig.stream(1).await;
    lease_table(&mut rig, "retrievalMode = POLLING\n").await;
    table(&rig, "app-CoordinatorState", "key").await;
    table(&rig, "app-WorkerMetricStats", "wid").await;
    let before = dump(&rig).await;
    assert_eq!(before.len(), 3);
    let (code, report) =
        checked(&rig, &rig.properties("cat", "migrateAllEntitiesToLeaseTable = true\n")).await;
    assert_eq!(code, Some(78), "no leader has permitted the migration: {report:#}");
    assert_eq!(findings(&report, "tables", "failed").len(), 1, "{report:#}");
    let granted = findings(&report, "permissions", "ok");
    assert!(actions(&granted).contains("dynamodb:ConditionCheckItem"), "{report:#}");
    for (action, table) in [
        ("dynamodb:PutItem", "app-CoordinatorState"),
        ("dynamodb:DeleteItem", "app-CoordinatorState"),
        ("dynamodb:Scan", "app-WorkerMetricStats"),
        ("dynamodb:UpdateItem", "app-WorkerMetricStats"),
    ] {
        let is_it =
            |one: &&&Value| one["action"] == action && one["resource"].as_str().unwrap().ends_with(table);
        assert_eq!(granted.iter().filter(is_it).count(), 1, "{action} on {table}: {report:#}");
    }
    assert!(findings(&report, "permissions", "denied").is_empty(), "{report:#}");
    assert_eq!(dump(&rig).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_do_not_exist_are_not_created() {
    let rig = Rig::start("check-new").await;
    rig.stream(3).await;
    let file = rig.properties("cat", "");
    let (code, printed) = run(&rig, &file, &["--aws"]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.lines().last().unwrap().starts_with("verdict: clean"), "{printed}");
    assert!(printed.contains("3 open shards"), "{printed}");
    assert!(rig.clients.dynamodb.list_tables().send().await.unwrap().table_names().is_empty());
    let stream = rig.clients.kinesis.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    assert_eq!(stream.stream_description_summary.unwrap().consumer_count, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_credentials_and_kms_errors_are_denials() {
    let rig = Rig::start("check-rejected").await;
    rig.stream(1).await;
    let kinesis = Denying::before(&rig.url).await;
    let file = rig.properties("cat", &format!("kinesisEndpoint = {}\n", kinesis.url));
    for (operation, code) in [
        ("DescribeStreamSummary", "UnrecognizedClientException"),
        ("ListShards", "ExpiredTokenException"),
        ("GetRecords", "KMSAccessDeniedException"),
    ] {
        kinesis.deny(operation, code);
        let (exit, report) = checked(&rig, &file).await;
        assert_eq!(exit, Some(77), "{report:#}");
        let denied = findings(&report, "permissions", "denied");
        assert_eq!(actions(&denied), BTreeSet::from([format!("kinesis:{operation}")]), "{report:#}");
        assert!(denied[0]["message"].as_str().unwrap().starts_with(code), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_403_without_a_code_is_a_denial() {
    let rig = Rig::start("check-403").await;
    rig.stream(1).await;
    let (kinesis, dynamodb) = (Denying::before(&rig.url).await, Denying::before(&rig.tables.url()).await);
    let endpoints = format!("kinesisEndpoint = {}\ndynamoDBEndpoint = {}\n", kinesis.url, dynamodb.url);
    let file = rig.properties("cat", &endpoints);
    kinesis.deny("ListShards", "XML");
    dynamodb.deny("Scan", "XML");
    let (code, report) = checked(&rig, &file).await;
    assert_eq!(code, Some(77), "{report:#}");
    let denied = findings(&report, "permissions", "denied");
    let expected = ["dynamodb:Scan", "kinesis:ListShards"].map(str::to_owned);
    assert_eq!(actions(&denied), BTreeSet::from(expected), "{report:#}");
    let is_named = |one: &&Value| one["message"] == "status 403: user/u may not";
    assert!(denied.iter().all(is_named), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_differs_from_dynamodb_is_a_warning() {
    let rig = Rig::start("check-clock").await;
    rig.stream(1).await;
    let dynamodb = Denying::before(&rig.tables.url()).await;
    dynamodb.set_date("Mon, 23 Nov 2020 12:00:00 GMT");
    let (code, report) =
        checked(&rig, &rig.properties("cat", &format!("dynamoDBEndpoint = {}\n", dynamodb.url))).await;
    assert_eq!(code, Some(0), "{report:#}");
    let warnings = findings(&report, "machine", "warning");
    assert_eq!(warnings.len(), 1, "{report:#}");
    assert_eq!(warnings[0]["resource"], "clock");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_stream_fails_with_69() {
    let rig = Rig::start("check-no-stream").await;
    let (code, report) = checked(&rig, &rig.properties("cat", "")).await;
    assert_eq!(code, Some(69), "{report:#}");
    let failed = findings(&report, "stream", "failed");
    assert_eq!(failed.len(), 1, "{report:#}");
    assert!(failed[0]["resource"].as_str().unwrap().contains(STREAM), "{report:#}");
    assert!(findings(&report, "permissions", "denied").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_several_streams_or_of_another_kind_fails_with_78() {
    for (name, key, row) in [
        ("check-streams", "leaseKey", "111122223333:orders:1700000000:shardId-000000000000"),
        ("check-foreign", "id", "row"),
    ] {
        let rig = Rig::start(name).await;
        rig.stream(1).await;
        table(&rig, APPLICATION, key).await;
        let put = rig.clients.dynamodb.put_item().table_name(APPLICATION);
        let put = put.item(key, AttributeValue::S(row.to_owned()));
        let put = put.item("streamName", AttributeValue::S("111122223333:orders:1700000000".to_owned()));
        put.item("leaseCounter", AttributeValue::N("1".to_owned())).send().await.unwrap();
        let dynamodb = Denying::before(&rig.tables.url()).await;
        let file = rig.properties("cat", &format!("dynamoDBEndpoint = {}\n", dynamodb.url));
        let (code, report) = checked(&rig, &file).await;
        assert_eq!(code, Some(78), "{report:#}");
        let failed = findings(&report, "tables", "failed");
        assert_eq!(failed.len(), 1, "{report:#}");
        assert_eq!(failed[0]["resource"], APPLICATION);
        let called = dynamodb.take();
        assert!(!called.iter().any(|name| name.ends_with("Item") && name != "GetItem"), "{called:?}");
        let rows = rig.clients.dynamodb.scan().table_name(APPLICATION).send().await.unwrap();
        assert_eq!(rows.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_is_not_reached_or_silent_is_one_line() {
    let rig = Rig::start("check-unreached").await;
    rig.stream(1).await;
    // Bound and not accepted from: connections are established, and no request is answered.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed_url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for (more, service, url) in [
        (format!("dynamoDBEndpoint = {closed_url}\n"), "DynamoDB", &closed_url),
        (
            format!(
                "kinesisEndpoint = {silent}\n\
                 kinesisClient.overrideConfiguration.apiCallTimeout = PT1S\n"
            ),
            "Kinesis",
            &silent,
        ),
    ] {
        let (code, report) = checked(&rig, &rig.properties("cat", &more)).await;
        assert_eq!(code, Some(69), "{report:#}");
        let failed = findings(&report, "endpoints", "failed");
        assert_eq!(failed.len(), 1, "{report:#}");
        assert_eq!(failed[0]["resource"], service);
        assert!(failed[0]["message"].as_str().unwrap().contains(url.as_str()), "{report:#}");
        // The other service is checked, and this one is not.
        let (prefix, other) =
            if service == "Kinesis" { ("kinesis:", "dynamodb:") } else { ("dynamodb:", "kinesis:") };
        let ok = actions(&findings(&report, "permissions", "ok"));
        assert!(ok.iter().any(|action| action.starts_with(other)), "{ok:?}");
        assert!(!ok.iter().any(|action| action.starts_with(prefix)), "{ok:?}");
    }
}

/// Answers every request as STS answers GetCallerIdentity.
async fn sts() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            if client.read(&mut request).await.is_err() {
                continue;
            }
            let body = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                        <GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/me</Arn><UserId>U</UserId>\
                        <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _client_left = client.write_all(answer.as_bytes()).await.is_err();
        }
    });
    (url, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_source_of_credentials_are_named() {
    let mut rig = Rig::start("check-identity").await;
    rig.stream(1).await;
    let file = rig.properties("cat", "");
    let (_, report) = checked(&rig, &file).await;
    let loaded = findings(&report, "credentials", "ok");
    assert_eq!(loaded.len(), 1, "STS is not called for endpoints on this machine: {report:#}");
    assert!(loaded[0]["message"].as_str().unwrap().contains("AWS_ACCESS_KEY_ID"), "{report:#}");
    let (url, _task) = sts().await;
    rig.environment.push(("AWS_ENDPOINT_URL_STS".into(), url.clone().into()));
    let (code, report) = checked(&rig, &file).await;
    assert_eq!(code, Some(0), "{report:#}");
    let identity = findings(&report, "credentials", "ok");
    let identity = identity.iter().find(|one| one["resource"] == "identity").unwrap();
    assert!(
        identity["message"].as_str().unwrap().contains("arn:aws:iam::123456789012:user/me"),
        "{report:#}"
    );
    let endpoints = findings(&report, "endpoints", "ok");
    let is_sts = |one: &&&Value| one["resource"] == "STS" && one["message"].as_str().unwrap().contains(&url);
    assert_eq!(endpoints.iter().filter(is_sts).count(), 1, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_fail_with_78_without_a_call() {
    let mut rig = Rig::start("check-no-credentials").await;
    rig.stream(1).await;
    let kinesis = Denying::before(&rig.url).await;
    rig.environment.push(("AWS_CONFIG_FILE".into(), rig.folder.join("none").into()));
    rig.environment.push(("AWS_SHARED_CREDENTIALS_FILE".into(), rig.folder.join("none").into()));
    let more = format!(
        "AWSCredentialsProvider = ProfileCredentialsProvider|absent\nkinesisEndpoint = {}\n",
        kinesis.url
    );
    let (code, report) = checked(&rig, &rig.properties("cat", &more)).await;
    assert_eq!(code, Some(78), "{report:#}");
    let failed = findings(&report, "credentials", "failed");
    assert!(failed[0]["message"].as_str().unwrap().contains("absent"), "{report:#}");
    assert_eq!(kinesis.take(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_differences_are_printed_without_a_call() {
    let rig = Rig::start("check-parts").await;
    let file = rig.properties("cat", "failoverTimeMillis = 20000\nretrievalMode = FANOUT\n");
    let (code, printed) = run(&rig, &file, &["--permissions"]).await;
    assert_eq!(code, Some(0), "{printed}");
    let policy: Value = serde_json::from_str(&printed).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let resources: Vec<&str> = statements
        .flat_map(|one| one["Resource"].as_array().unwrap())
        .map(|one| one.as_str().unwrap())
        .collect();
    assert!(resources.contains(&"arn:aws:kinesis:us-east-1:<ACCOUNT>:stream/orders"), "{printed}");
    assert!(resources.contains(&"arn:aws:dynamodb:us-east-1:<ACCOUNT>:table/app"), "{printed}");
    let (code, printed) = run(&rig, &file, &["--diff", "--json"]).await;
    assert_eq!(code, Some(0), "{printed}");
    let changed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(changed["failoverTimeMillis"]["default"], 10_000);
    assert_eq!(changed["failoverTimeMillis"]["value"], 20_000);
    assert!(changed.get("maxRecords").is_none(), "{printed}");
    let bad = rig.properties("cat", "streamName = <STREAM>\n");
    for part in ["--permissions", "--diff", "--aws"] {
        assert_eq!(run(&rig, &bad, &[part]).await.0, Some(78), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_works_with_the_printed_permissions_alone() {
    for mode in ["POLLING", "FANOUT"] {
        let mut rig = Rig::start("check-policy").await;
        rig.stream(1).await;
        let (kinesis, dynamodb) = (Denying::before(&rig.url).await, Denying::before(&rig.tables.url()).await);
        // SubscribeToShard is answered with a stream of events, which the proxy does not forward.
        let stream = if mode == "POLLING" { &kinesis.url } else { &rig.url };
        let more = format!(
            "retrievalMode = {mode}\nkinesisEndpoint = {stream}\ndynamoDBEndpoint = {}\n",
            dynamodb.url
        );
        let file = rig.properties("cat", &more);
        let policy: Value = serde_json::from_str(&run(&rig, &file, &["--permissions"]).await.1).unwrap();
        let statements = policy["Statement"].as_array().unwrap().iter();
        let allowed = statements.flat_map(|one| one["Action"].as_array().unwrap());
        let operations: BTreeSet<String> =
            allowed.map(|action| action.as_str().unwrap().split(':').nth(1).unwrap().to_owned()).collect();
        kinesis.permit_only(operations.clone());
        dynamodb.permit_only(operations);
        lease_table(&mut rig, &more).await;
        assert!(!rig.daemon_log().contains("AccessDeniedException"), "{}", rig.daemon_log());
    }
}
