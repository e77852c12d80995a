//! Several properties files in one process: each is an application as if it ran alone.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use multilangd::local::tables::Tables;
use serde_json::Value;

use crate::local::kinesis_port;
use crate::rig::*;
use crate::several::*;
use crate::status::{get, metric, status, until};

/// The applications, which read streams of these names.
const ALL: [&str; 3] = ["orders", "clicks", "visits"];

/// Runs a command to its end; returns the exit code, its output, and its own lines on stderr.
async fn run(rig: &Rig, arguments: &[&str]) -> (Option<i32>, String, String) {
    let log = rig.folder.join("command.log");
    let mut command = rig.command_to(arguments, std::fs::File::create(&log).unwrap().into());
    let code = command.ended().await.code();
    (code, command.printed.join("\n"), std::fs::read_to_string(log).unwrap())
}

fn delivered(shown: &Value, name: &str) -> u64 {
    let shards = of(shown, name)["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["delivered"]["records"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_between_files_end_with_78_before_anything_starts() {
    let rig = Rig::start("conflicts").await;
    let child = rig.scripted("each");
    write(&rig, "orders", &child, "");
    write(&rig, "clicks", &child, "tableName = orders\nmultilangd.bufferMegabytes = 64\n");
    let visits = write(&rig, "visits", "/no/such/program", "maxRecords = 20000\n");
    let folder = rig.folder.join("apps");
    let folder = folder.to_str().unwrap();
    let (code, _, log) = run(&rig, &[folder]).await;
    assert_eq!(code, Some(78), "{log}");
    for named in
        ["orders.properties", "clicks.properties", "table, orders", "visits.properties", "maxRecords"]
    {
        assert!(log.contains(named), "{named} in {log}");
    }
    assert!(log.contains("multilangd.bufferMegabytes") && log.contains("64") && log.contains("256"), "{log}");
    assert!(!log.contains("worker_starting"), "{log}");

    // The program of one file is missing.
    let apart = write(&rig, "clicks", &child, "");
    write(&rig, "visits", "/no/such/program", "");
    let (code, _, log) = run(&rig, &[folder]).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("visits.properties") && log.contains("/no/such/program"), "{log}");
    assert!(!log.contains("worker_starting"), "{log}");

    // A value of the command line holds for all files.
    write(&rig, "orders", &child, "multilangd.bufferMegabytes = 64\n");
    let two = [visits.with_file_name("orders.properties"), apart];
    let two = two.each_ref().map(|path| path.to_str().unwrap());
    let (code, text, _) = run(&rig, &["check", two[0], two[1]]).await;
    assert_eq!(code, Some(78), "{text}");
    assert_eq!(text.matches("multilangd.bufferMegabytes belongs to the process").count(), 2, "{text}");
    let (code, text, _) = run(&rig, &["check", "--buffer-megabytes", "80", two[0], two[1]]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("{}:\n", two[0])) && text.contains(&format!("{}:\n", two[1])), "{text}");
    assert!(rig.clients.dynamodb.list_tables().send().await.unwrap().table_names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_of_a_folder_lists_its_files_by_name() {
    let rig = Rig::start("check-folder").await;
    let child = rig.scripted("each");
    for application in ALL {
        write(&rig, application, &child, "");
    }
    let folder = rig.folder.join("apps");
    std::fs::write(folder.join(".hidden.properties"), "damaged \\u00zz").unwrap();
    std::fs::write(folder.join("notes.txt"), "damaged \\u00zz").unwrap();
    std::fs::create_dir(folder.join("old.properties")).unwrap();
    let (code, text, _) = run(&rig, &["check", "--json", folder.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    let files: Vec<_> = shown.as_array().unwrap().iter().map(|one| one["file"].as_str().unwrap()).collect();
    let names: Vec<_> =
        files.iter().map(|file| Path::new(file).file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["clicks", "orders", "visits"]);
    let again = [files[0], folder.to_str().unwrap()];
    let (code, text, _) = run(&rig, &["check", again[0], again[1]]).await;
    assert_eq!(code, Some(78), "one file twice: {text}");
    let empty = rig.folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    for arguments in [&[empty.to_str().unwrap()][..], &["check", empty.to_str().unwrap()]] {
        let (code, _, log) = run(&rig, arguments).await;
        assert!(code == Some(66) && log.contains(empty.to_str().unwrap()), "{log}");
    }
}

/// A folder with one file is one application, in every respect.
#[tokio::test(flavor = "multi_thread")]
async fn folder_with_one_file_is_a_single_application() {
    let mut rig = Rig::start("folder-of-one").await;
    create(&rig, "orders", 1).await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    write(&rig, "orders", &rig.scripted("each"), "");
    let mut daemon = rig.command(&[rig.folder.join("apps").to_str().unwrap()]);
    let address = rig.status_address().await;
    let shown =
        until(&address, "a shard", |shown| shown["shards"].as_array().is_some_and(|all| !all.is_empty()))
            .await;
    assert_eq!(shown["application"], "orders");
    assert!(shown.get("applications").is_none() && shown.get("name").is_none());
    let text = get(&address, "/metrics").await;
    assert!(text.contains("\nmultilangd_ready 1\n") && !text.contains("multilangd_application_"), "{text}");
    assert_eq!(daemon.stop().await, Some(0));
    let of_worker = |line: &&Value| line.get("worker").is_some() && line["event"] != "worker_starting";
    let lines = log_lines(&daemon.stderr);
    let lines: Vec<_> = lines.iter().filter(of_worker).collect();
    assert!(lines.len() > 2 && lines.iter().all(|line| line.get("application").is_none()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_run_beside_each_other_and_stop_together() {
    let mut rig = Rig::start("applications").await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    for application in ALL {
        create(&rig, application, 2).await;
        put(&rig, application, 1).await;
        write(&rig, application, &rig.scripted("each environment"), "");
    }
    let folder = rig.folder.join("apps");
    let mut daemon = rig.command(&[folder.to_str().unwrap()]);
    let address = rig.status_address().await;
    let ready = |shown: &Value| {
        ALL.iter().all(|name| of(shown, name)["ready"] == true && delivered(shown, name) == 1)
    };
    let shown = until(&address, "all are ready", ready).await;
    assert!(get(&address, "/readyz").await.starts_with("HTTP/1.1 200"));
    let workers: BTreeSet<_> = ALL.iter().map(|name| of(&shown, name)["worker"].as_str().unwrap()).collect();
    assert_eq!(workers.len(), 3, "each application has a worker of its own: {shown:#}");
    for name in ALL {
        let one = of(&shown, name);
        assert_eq!(
            (&one["stream"], &one["table"], &one["failed"]),
            (&name.into(), &name.into(), &Value::Null)
        );
        assert!(one["file"].as_str().unwrap().ends_with(&format!("{name}.properties")));
        assert!(one["calls"].as_array().unwrap().iter().any(|call| call["operation"] == "UpdateItem"));
    }
    let text = get(&address, "/metrics").await;
    for name in ALL {
        assert!(metric(&text, &format!("multilangd_ready{{application=\"{name}\"}}")) > 0.9);
        assert!(metric(&text, &format!("multilangd_build_info{{application=\"{name}\",")) > 0.9);
        let begin = format!("multilangd_records_delivered_total{{application=\"{name}\",shard=");
        let all: f64 =
            text.lines().filter(|line| line.starts_with(&begin)).map(|line| metric(line, "m")).sum();
        assert!((all - 1.0).abs() < 0.1, "{all}");
    }
    assert!(
        text.contains("\nmultilangd_buffer_bytes ") && text.contains("\nmultilangd_uptime_seconds "),
        "{text}"
    );
    daemon.signal(rustix::process::Signal::USR1);
    let line = rig.logged("status_logged").await;
    let logged_status: Value = serde_json::from_str(line["status"].as_str().unwrap()).unwrap();
    assert_eq!(logged_status["applications"].as_array().unwrap().len(), 3);
    let folder = folder.to_str().unwrap();
    rig.environment.push(("MULTILANGD_STATUS".into(), address.clone().into()));
    assert_eq!(run(&rig, &["health", "--ready", folder]).await.0, Some(0));
    // Each table is that of the application, and its leases have its worker.
    let (code, text, _) = run(&rig, &["leases", "--json", "--watch", "0", folder]).await;
    assert_eq!(code, Some(0), "{text}");
    let tables: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(tables.as_array().unwrap().len(), 3, "{tables:#}");
    assert!(
        tables.as_array().unwrap().iter().all(|one| one["leases"].as_array().unwrap().len() == 2),
        "{tables:#}"
    );

    assert_eq!(daemon.stop().await, Some(0));
    // Stopped in order: every child could checkpoint, and every lease is free.
    rig.until("all children are gone", |log| alive(log) == 0 && said(log, "shutdownRequested").len() == 6)
        .await;
    for name in ALL {
        let rows = rig.clients.dynamodb.scan().table_name(name).consistent_read(true).send().await.unwrap();
        let leases: Vec<_> = rows.items().iter().filter(|row| row.contains_key("leaseCounter")).collect();
        assert!(leases.len() == 2 && leases.iter().all(|row| !row.contains_key("leaseOwner")), "{leases:?}");
        assert_eq!(received(&rig.log, name), [1]);
    }
    // Every line of a worker names its application.
    let lines = log_lines(&daemon.stderr);
    let of_workers: Vec<_> = lines.iter().filter(|line| line.get("worker").is_some()).collect();
    assert!(
        of_workers.len() > 9 && of_workers.iter().all(|line| line["application"] == line["stream"]),
        "{lines:#?}"
    );
}

/// A lost table, a dead endpoint and a broken record processor of one application leave the others alone.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_one_application_do_not_pause_the_others() {
    let mut rig = Rig::start("independent").await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    for application in ["orders", "clicks", "lost", "dark", "broken"] {
        create(&rig, application, 1).await;
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let doomed = Tables::start(any, None).await.unwrap();
    let child = rig.scripted("each");
    let quick = "failoverTimeMillis = 2000\n";
    write(&rig, "orders", &child, quick);
    // The second one by a shell script, as another kind of record processor.
    let shell = rig.folder.join("child.sh");
    std::fs::write(&shell, format!("#!/bin/sh\nexec {child}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&shell, mode).unwrap();
    write(&rig, "clicks", shell.to_str().unwrap(), quick);
    write(&rig, "lost", &child, quick);
    let dark = format!("{quick}dynamoDBEndpoint = {}\n", doomed.url());
    write(&rig, "dark", &child, &dark);
    let died = format!("each dies-once={}", rig.folder.join("died").display());
    write(&rig, "broken", &rig.scripted(&died), &format!("{quick}multilangd.onChildFailure = exit\n"));
    let mut daemon = rig.command(&[rig.folder.join("apps").to_str().unwrap()]);
    let address = rig.status_address().await;
    let ready = |shown: &Value| {
        ["orders", "clicks", "lost", "dark", "broken"].iter().all(|name| of(shown, name)["ready"] == true)
    };
    until(&address, "all are ready", ready).await;

    put(&rig, "broken", 1).await;
    rig.clients.dynamodb.delete_table().table_name("lost").send().await.unwrap();
    doomed.stop().await;
    let others = ["orders", "clicks"];
    // Until the broken one has failed, was started again, and has processed its record.
    let (count, gaps) = feed(&mut rig, &others, 80, |rig| received(&rig.log, "broken").len() == 2).await;
    let failed = logged(&daemon.stderr, "application_failed");
    assert_eq!(
        (&failed[0]["application"], &failed[0]["exit_code"]),
        (&"broken".into(), &1.into()),
        "{failed:?}"
    );
    assert!(failed[0]["level"] == "WARN" && failed[0]["retry_in"].is_string(), "{failed:?}");
    for (application, gap) in gaps {
        println!("{application}: {count} records, largest gap between deliveries {gap:?}");
        assert!(gap < Duration::from_secs(2), "{application}: {gap:?}");
    }
    let shown = status(&address).await;
    let broken = of(&shown, "broken");
    assert_eq!((&broken["failed"], &broken["starts"]), (&Value::Null, &2.into()), "{broken:#}");
    for name in ["lost", "dark"] {
        assert!(of(&shown, name)["lookedSecondsAgo"].as_u64() > Some(2), "{:#}", of(&shown, name));
    }
    assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200"));
    assert_all_received(&mut rig, 0, &others, count).await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn process_ends_when_all_applications_have_failed() {
    let rig = Rig::start("all-failed").await;
    for application in ["orders", "clicks"] {
        create(&rig, application, 1).await;
        put(&rig, application, 1).await;
        write(&rig, application, &rig.scripted("dies"), "multilangd.onChildFailure = exit\n");
    }
    let mut daemon = rig.command(&[rig.folder.join("apps").to_str().unwrap()]);
    assert_eq!(daemon.ended().await.code(), Some(1));
    assert_eq!(logged(&daemon.stderr, "application_failed").len(), 1, "{}", rig.daemon_log());
    let text = fatal_error(&daemon);
    assert!(text.contains("orders") || text.contains("clicks"), "{text}");
}

/// Starts applications with eight shards under a limit that suffices for six.
#[tokio::test(flavor = "multi_thread")]
async fn applications_share_the_limit_of_open_files() {
    let mut rig = Rig::start("shared-limit").await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    for application in ["orders", "clicks"] {
        create(&rig, application, 4).await;
        write(&rig, application, &rig.scripted("each"), "failoverTimeMillis = 2000\n");
    }
    let folder = rig.folder.join("apps");
    let folder = folder.to_str().unwrap();
    // 80 descriptors are reserved for two applications, and each shard needs five.
    rig.wrapper = ["sh", "-c", "ulimit -n 110 && exec \"$@\"", "sh"].map(Into::into).to_vec();
    let mut first = rig.command(&[folder]);
    assert_eq!(rig.logged("limits_determined").await["leases"], 6);
    let address = rig.status_address().await;
    let held = |shown: &Value| -> usize {
        let count = |name: &str| {
            let shards = of(shown, name)["shards"].as_array().unwrap();
            shards.iter().filter(|shard| shard["held"] == true).count()
        };
        ["orders", "clicks"].map(count).iter().sum()
    };
    until(&address, "six shards are held", |shown| held(shown) == 6).await;
    rig.until("six children run", |log| said(log, "initialize").len() == 6).await;
    rig.wrapper.clear();
    let mut second = rig.command(&[folder]);
    rig.until("a second process runs the others", |log| said(log, "initialize").len() >= 8).await;
    // Both applications may acquire the last free lease at the same time (`multilangd::capacity`).
    assert!(held(&status(&address).await) <= 7, "one more than the limit at most");
    let failures: Vec<_> = logged(&first.stderr, "processor_start_deferred");
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!((first.stop().await, second.stop().await), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_mode_runs_several_files_on_its_endpoints() {
    let mut rig = Rig::start("local-several").await;
    for application in ["orders", "clicks"] {
        write(&rig, application, &rig.scripted("each"), "");
    }
    let folder = rig.folder.join("apps");
    let ports = ["--kinesis-port", "0", "--dynamodb-port", "0", "--shards", "1"];
    let mut daemon = rig.command(&[&["local", folder.to_str().unwrap()][..], &ports].concat());
    let port = kinesis_port(&mut daemon).await;
    let lines = rig.folder.join("lines");
    // The streams are created in the order of the files.
    for application in ["clicks", "orders"] {
        daemon.until(|line| line.contains(&format!("stream {application} with 1 open shard"))).await;
        std::fs::write(&lines, format!("{application}-00001\n")).unwrap();
        let put = ["put", application, lines.to_str().unwrap(), "--local", "--kinesis-port", &port];
        let (code, _, log) = run(&rig, &put).await;
        assert_eq!(code, Some(0), "{log}");
    }
    rig.until("both records", |log| ["orders", "clicks"].iter().all(|name| received(log, name) == [1])).await;
    assert_eq!(daemon.stop().await, Some(0));
    let (code, _, log) =
        run(&rig, &["local", folder.to_str().unwrap(), "--put", lines.to_str().unwrap()]).await;
    assert!(code == Some(64) && log.contains("--put"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_kills_the_children_of_all_applications() {
    let mut rig = Rig::start("second-signal").await;
    for application in ["orders", "clicks"] {
        create(&rig, application, 1).await;
        put(&rig, application, 1).await;
        write(&rig, application, &rig.scripted("ignores-stop hangs"), "shutdownGraceMillis = 60000\n");
    }
    let mut daemon = rig.command(&[rig.folder.join("apps").to_str().unwrap()]);
    rig.until("a batch of each", |log| count(log) == 2).await;
    let mut asking = tokio::time::interval(Duration::from_millis(200));
    let asked = async {
        while logged(&daemon.stderr, "second_signal_received").is_empty() {
            asking.tick().await;
            daemon.signal(rustix::process::Signal::TERM);
        }
    };
    tokio::time::timeout(LIMIT, asked).await.expect("a second signal ends the shutdown");
    assert_eq!(daemon.ended().await.code(), Some(130));
    assert!(pids(&rig.log).into_iter().all(is_gone));
}
