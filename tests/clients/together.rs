//! Three published clients, in Python, Node and Go, as three applications of one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use multilangd::local::tables::Tables;
use serde_json::Value;

use crate::applications::*;
use crate::client::Runs::Binary;
use crate::client::{Client, End};
use crate::rig::*;
use crate::table::{KCLPY, aws_kcl};

/// The applications, named after the language of their record processors.
const ALL: [&str; 3] = ["python", "node", "go"];

/// The longest pause of an application while another one fails: less than the pauses of a restart or a failover.
const GAP: Duration = Duration::from_secs(2);

/// The command and the properties of a client.
fn started(rig: &mut Rig, client: &Client) -> (String, &'static str) {
    let text = std::fs::read_to_string(client.properties(rig, "")).unwrap();
    let command = text.lines().find_map(|line| line.strip_prefix("executableName = ")).unwrap();
    (command.to_owned(), client.properties)
}

/// Its table is deleted, its endpoint is stopped, its record processor is broken: the other two go on.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_one_client_do_not_pause_the_other_two() {
    let mut rig = Rig::start("together").await;
    let go = Client {
        runs: Binary("clever-go"),
        properties: "multilangd.childProtocol = shutdown\n",
        end: End::Checkpointed,
        stop: &["shutdownRequested"],
    };
    let clients = [KCLPY, aws_kcl("aws-kcl-2.3.2", "v2"), go];
    let clients = clients.each_ref().map(|client| started(&mut rig, client));
    let broken = rig.folder.join("broken");
    for (round, fault) in
        ["deleted table", "stopped endpoint", "broken record processor"].into_iter().enumerate()
    {
        let victim = ALL[round];
        let doomed = Tables::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None).await.unwrap();
        for (name, (command, properties)) in std::iter::zip(ALL, &clients) {
            // Streams and tables of a round of its own.
            let name = format!("{name}{round}");
            create(&rig, &name, 1).await;
            let script = rig.folder.join(format!("{name}.sh"));
            let check = if ALL[round] == name.trim_end_matches(char::is_numeric) {
                format!("[ ! -e {} ] || exit 3\n", broken.display())
            } else {
                String::new()
            };
            std::fs::write(&script, format!("#!/bin/sh\n{check}exec {command}\n")).unwrap();
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
            let endpoint = if fault == "stopped endpoint" && name.starts_with(victim) {
                format!("dynamoDBEndpoint = {}\n", doomed.url())
            } else {
                String::new()
            };
            let more =
                format!("failoverTimeMillis = 2000\ntaskBackoffTimeMillis = 50\n{endpoint}{properties}");
            write(&rig, &name, script.to_str().unwrap(), &more);
        }
        let names = ALL.map(|name| format!("{name}{round}"));
        let names = names.each_ref().map(String::as_str);
        let folder = rig.folder.join("apps");
        let from = rig.log.len();
        let mut daemon = rig.command(&[folder.to_str().unwrap()]);
        // All three work.
        feed(&mut rig, &names, 5, |rig| {
            names.iter().all(|name| !received(&rig.log[from..], name).is_empty())
        })
        .await;
        let victim = names[round];
        match fault {
            "deleted table" => {
                rig.clients.dynamodb.delete_table().table_name(victim).send().await.unwrap();
            }
            "stopped endpoint" => doomed.stop().await,
            _ => {
                std::fs::write(&broken, "").unwrap();
                let of_victim = |report: &Report| match report {
                    Report::Said { pid, .. }
                        if !received(std::slice::from_ref(report), victim).is_empty() =>
                    {
                        Some(*pid)
                    }
                    _ => None,
                };
                let pid = rustix::process::Pid::from_raw(rig.log[from..].iter().find_map(of_victim).unwrap())
                    .unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
        let others: Vec<&str> = names.into_iter().filter(|name| *name != victim).collect();
        let from = rig.log.len();
        let log = daemon.stderr.clone();
        let noticed = |_: &Rig| {
            let of_victim = |line: &Value| {
                line["application"] == victim && (line["level"] == "WARN" || line["level"] == "ERROR")
            };
            log_lines(&log).iter().any(of_victim)
        };
        let (count, gaps) = feed(&mut rig, &others, 80, noticed).await;
        for other in &others {
            let gap = gaps[*other];
            println!(
                "{fault} of {victim}: {count} records of {other}, largest gap between deliveries {gap:?}"
            );
            assert!(gap < GAP, "{other}: {gap:?}");
        }
        // The first records of the round had the same numbers.
        assert_received_since(&mut rig, from, &others, count).await;
        assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
        rig.until("all children are gone", |log| alive(log) == 0).await;
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(&daemon.stderr, rig.folder.join(format!("round-{round}.log"))).unwrap();
    }
}

/// Waits for the last record, and checks that none is missing and the order is kept.
async fn assert_received_since(rig: &mut Rig, from: usize, applications: &[&str], count: usize) {
    let last = |log: &[Report], name: &str| received(&log[from..], name).last() == Some(&count);
    rig.until("every record", |log| applications.iter().all(|name| last(log, name))).await;
    for application in applications {
        let mut numbers = received(&rig.log[from..], application);
        // Records of before the fault may have arrived late.
        let begin = numbers.iter().position(|number| *number == 1).unwrap();
        assert_eq!(numbers.split_off(begin), (1..=count).collect::<Vec<_>>(), "{application}");
    }
}
