//! Invalid input: one clear message that names the cause and the remedy, a documented exit code, no hang.

use std::net::{Ipv4Addr, TcpListener};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};

use crate::rig::*;

/// Runs the binary to its end; returns the exit code and stderr.
async fn run(rig: &Rig, arguments: &[&str]) -> (i32, String) {
    let mut daemon = rig.command(arguments);
    let code = daemon.ended().await.code().unwrap();
    (code, std::fs::read_to_string(&daemon.stderr).unwrap())
}

fn assert_says(outcome: &(i32, String), code: i32, parts: &[&str]) {
    assert_eq!(outcome.0, code, "{}", outcome.1);
    for part in parts {
        assert!(outcome.1.contains(part), "{part:?} is not in:\n{}", outcome.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_unreadable_file_is_named_with_exit_code() {
    let rig = Rig::start("no-file").await;
    assert_says(&run(&rig, &["/no/such.properties"]).await, 66, &["/no/such.properties"]);
    assert_says(&run(&rig, &[rig.folder.to_str().unwrap()]).await, 66, &[rig.folder.to_str().unwrap()]);
    assert_says(&run(&rig, &[]).await, 64, &["multilangd local"]);
    assert_says(&run(&rig, &["--no-such-option"]).await, 64, &["--no-such-option"]);
    assert_says(&run(&rig, &["loacl"]).await, 64, &["loacl", "multilangd local"]);
    assert_says(&run(&rig, &["chek", "my.properties"]).await, 64, &["chek", "multilangd check"]);
    let class = "com.example.OtherMain";
    assert_says(&run(&rig, &["-cp", "x.jar", class, "f"]).await, 64, &[class, "MultiLangDaemon"]);
    assert_says(&run(&rig, &["-Xmx1g", "-jar", "x.jar", "f"]).await, 64, &["-jar", "MultiLangDaemon"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_errors_of_a_file_are_reported_at_once() {
    let rig = Rig::start("faults").await;
    let file = rig.folder.join("bad.properties");
    std::fs::write(&file, "maxRecords = 20000\nkinesisEndpoint = nowhere\nfailoverTimeMilis = 5\n").unwrap();
    let outcome = run(&rig, &[file.to_str().unwrap()]).await;
    let parts = [
        "executableName",
        "applicationName",
        "streamName",
        "line 1: maxRecords = 20000",
        "line 2: kinesisEndpoint",
        "line 3: failoverTimeMilis",
        "failoverTimeMillis",
    ];
    assert_says(&outcome, 78, &parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_aws_name_ends_start_and_check_with_78() {
    let rig = Rig::start("names").await;
    for (key, name) in
        [("streamName", "<STREAM_NAME>"), ("applicationName", "${STAGE}-app"), ("applicationName", "a")]
    {
        let file = rig.properties("cat", &format!("{key} = {name}\n"));
        assert_says(&run(&rig, &[file.to_str().unwrap()]).await, 78, &[key, name, "a-z A-Z 0-9 _ . -"]);
        let mut check = rig.command(&["check", "--json", file.to_str().unwrap()]);
        assert_eq!(check.ended().await.code(), Some(78), "{key} = {name}");
        let shown: serde_json::Value = serde_json::from_str(&check.printed.join("\n")).unwrap();
        let errors = shown["errors"].as_array().unwrap();
        assert_eq!(errors.iter().map(|error| &error["key"]).collect::<Vec<_>>(), [key], "{errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_non_executable_program_is_named() {
    let rig = Rig::start("program").await;
    for (program, part) in [
        ("no-such-program", "in PATH"),
        ("./no/such", "not found"),
        ("/etc/passwd", "chmod +x"),
        ("", "executableName"),
    ] {
        let file = rig.properties(program, "");
        assert_says(&run(&rig, &[file.to_str().unwrap()]).await, 78, &["executableName", part]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn script_without_a_runnable_interpreter_is_rejected() {
    let rig = Rig::start("shebang").await;
    let script = rig.folder.join("p.py");
    for (first, part) in [
        ("#!/usr/bin/python9.9\n", "/usr/bin/python9.9"),
        ("#!/usr/bin/env python9.9\n", "python9.9"),
        ("#!/bin/sh\r\n", "CRLF"),
    ] {
        std::fs::write(&script, first).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let file = rig.properties(script.to_str().unwrap(), "");
        let path = file.to_str().unwrap();
        assert_says(&run(&rig, &[path]).await, 78, &["executableName", "p.py", part]);
        let mut check = rig.command(&["check", "--json", path]);
        assert_eq!(check.ended().await.code(), Some(0), "the program may be on another machine");
        let shown: serde_json::Value = serde_json::from_str(&check.printed.join("\n")).unwrap();
        let warnings = shown["warnings"].as_array().unwrap();
        let warned = |warning: &&serde_json::Value| warning["key"] == "executableName";
        assert!(
            warnings.iter().find(warned).unwrap()["message"].as_str().unwrap().contains(part),
            "{warnings:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_stream_is_named_and_fails_after_twenty_attempts() {
    let rig = Rig::start("no-stream").await;
    let file = rig.properties("cat", "schedulerInitializationBackoffTimeMillis = 10\n");
    let outcome = run(&rig, &[file.to_str().unwrap()]).await;
    assert_says(&outcome, 69, &[STREAM, "streamName"]);
    let attempts = logged(&rig.folder.join("stderr.log"), "start_failed");
    let failed: Vec<_> = attempts.iter().filter_map(|line| line["failed_attempts"].as_u64()).collect();
    assert_eq!(failed, (1..20).collect::<Vec<_>>());
    assert!(attempts.iter().all(|line| line["max_attempts"] == 20), "{attempts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_endpoint_is_named() {
    let rig = Rig::start("no-service").await;
    let file = rig.folder.join("dead.properties");
    let text = "executableName = cat\nstreamName = s\napplicationName = app\nmetricsLevel = NONE\nregionName = us-east-1\n\
                dynamoDBEndpoint = http://127.0.0.1:9\nkinesisEndpoint = http://127.0.0.1:9\n\
                schedulerInitializationBackoffTimeMillis = 1\n";
    std::fs::write(&file, text).unwrap();
    assert_says(&run(&rig, &[file.to_str().unwrap()]).await, 69, &["table app", "http://127.0.0.1:9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_table_is_rejected_as_lease_table() {
    let rig = Rig::start("shape").await;
    rig.stream(1).await;
    let key =
        |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let string = |name: &str| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .unwrap()
    };
    let made = rig.clients.dynamodb.create_table().table_name(APPLICATION);
    let made = made.key_schema(key("customer", KeyType::Hash)).key_schema(key("order", KeyType::Range));
    let made = made.attribute_definitions(string("customer")).attribute_definitions(string("order"));
    made.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    let file = rig.properties("cat", "");
    let outcome = run(&rig, &[file.to_str().unwrap()]).await;
    assert_says(&outcome, 78, &["table app", "customer (HASH), order (RANGE)", "tableName"]);
    let mut leases = rig.command(&["leases", file.to_str().unwrap()]);
    assert_eq!(leases.ended().await.code(), Some(78), "{}", rig.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn port_in_use_stops_local_mode() {
    let rig = Rig::start("port").await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let outcome = run(&rig, &["local", "--kinesis-port", &port, "--dynamodb-port", "0"]).await;
    assert_says(&outcome, 71, &["Kinesis", &port, "port"]);
    let outcome = run(&rig, &["local", "--kinesis-port", "0", "--dynamodb-port", &port]).await;
    assert_says(&outcome, 71, &["DynamoDB", &port, "--dynamodb-port"]);
}

/// Every error in an option of local mode: the message contains the option and its value.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_option_of_local_mode_is_reported_with_value() {
    let rig = Rig::start("local-options").await;
    let at = |name: &str| rig.folder.join(name).to_str().unwrap().to_owned();
    let (folder, file, long, large) = (at("folder"), at("file"), at("long"), at("large"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&file, "one\n").unwrap();
    std::fs::write(&long, [b"short\n".to_vec(), vec![b'x'; 11 << 20]].concat()).unwrap();
    std::fs::write(&large, [b"short\n".to_vec(), vec![b'x'; 2 << 20]].concat()).unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let under = format!("{file}/under");
    let missing = at("missing");
    let free = ["--kinesis-port", "0", "--dynamodb-port", "0"];
    let cases: [(&[&str], i32, &[&str]); 13] = [
        (&["--kinesis-port", &port, "--dynamodb-port", "0"], 71, &["--kinesis-port", &port]),
        (&["--kinesis-port", "0", "--dynamodb-port", &port], 71, &["--dynamodb-port", &port]),
        (
            &["--kinesis-port", "4567", "--dynamodb-port", "4567"],
            64,
            &["--kinesis-port", "--dynamodb-port", "4567"],
        ),
        (&["--kinesis-port", "70000"], 64, &["--kinesis-port", "70000"]),
        (&["--shards", "0"], 64, &["--shards", "'0'"]),
        (&["--shards", "many"], 64, &["--shards", "many"]),
        (&["--put", &missing], 66, &["--put", &missing]),
        (&["--put", &folder], 66, &["--put", &folder]),
        (&["--put", &long], 66, &["--put", &long, "line 2", "10 MiB"]),
        (&["--put", &large], 66, &["--put", &large, "lines 1 to 2"]),
        (&["--data", &file], 66, &["--data", &file]),
        (&["--data", &under], 66, &["--data", &under]),
        (&["--data", ""], 64, &["--data"]),
    ];
    for (options, code, parts) in cases {
        let ports: &[&str] = if options[0].ends_with("-port") { &[] } else { &free };
        drop(std::fs::remove_file(rig.folder.join("stderr.log")));
        let outcome = run(&rig, &[&["local"], ports, options].concat()).await;
        assert_says(&outcome, code, parts);
    }
}

/// Containers that start together: the daemon retries connection failures more often than the twenty attempts
/// for error responses.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_waits_for_endpoints_that_start_later() {
    let mut rig = Rig::start("later").await;
    rig.stream(1).await;
    let later = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = later.local_addr().unwrap();
    drop(later);
    let file = rig.properties(&rig.scripted("each"), "schedulerInitializationBackoffTimeMillis = 100\n");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&rig.tables.url(), &format!("http://{address}"));
    std::fs::write(&file, text).unwrap();
    let mut daemon = rig.daemon(&file);
    rig.logged_where("start_failed", |line| line["failed_attempts"] == 22).await;
    // The endpoint starts.
    let forward = tokio::net::TcpListener::bind(address).await.unwrap();
    let there = rig.tables.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut forwarding = tokio::task::JoinSet::new();
    forwarding.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = forward.accept().await.unwrap();
            let there = there.clone();
            connections.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(there).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    rig.until("a child", |log| said(log, "initialize").len() == 1).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn multi_stream_lease_table_is_rejected_unchanged() {
    for with_attribute in [true, false] {
        let rig = Rig::start("several-streams").await;
        rig.stream(1).await;
        let file = rig.properties(&rig.scripted("each"), "");
        // A table as a single-stream worker creates it, and then the row of a multi-stream worker in it.
        let mut first = rig.daemon(&file);
        rig.logged("processors_started").await;
        assert_eq!(first.stop().await, Some(0));
        let key = "123456789012:orders:1700000000:shardId-000000000000";
        let single = rig.rows().await.into_values().next().unwrap();
        let mut row: std::collections::HashMap<_, _> = single.into_iter().collect();
        row.insert("leaseKey".into(), AttributeValue::S(key.into()));
        if with_attribute {
            row.insert("streamName".into(), AttributeValue::S("123456789012:orders:1700000000".into()));
            row.insert("shardId".into(), AttributeValue::S("shardId-000000000000".into()));
        }
        let put = rig.clients.dynamodb.put_item().table_name(APPLICATION).set_item(Some(row));
        put.send().await.unwrap();
        let before = rig.all_rows().await;
        let outcome = run(&rig, &[file.to_str().unwrap(), "--set", "leaseTablePitrEnabled=true"]).await;
        assert_says(&outcome, 78, &["orders"]);
        let file = rig.folder.join("stderr.log");
        let touched = ["point_in_time_recovery_enabled", "point_in_time_recovery_failed"];
        assert!(touched.iter().all(|event| logged(&file, event).is_empty()), "{}", outcome.1);
        assert_eq!(rig.all_rows().await, before, "nothing was written");
    }
}
