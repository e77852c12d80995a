//! `multilangd local`: the first command of README.md.

use rustix::process::Signal;

use crate::rig::*;

/// The numbers of records put and delivered, if the line reports progress.
fn progress(line: &str) -> Option<(u64, u64)> {
    let number = |after: &str| {
        let rest = line.split(after).nth(1)?;
        rest.split(' ').next()?.parse().ok()
    };
    Some((number(": in ")?, number("delivered ")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn example_exits_cleanly_and_resumes_at_its_checkpoints() {
    let rig = Rig::start("local").await;
    let data = rig.folder.join("data");
    let arguments =
        ["local", "--kinesis-port", "0", "--dynamodb-port", "0", "--data", data.to_str().unwrap()];
    let mut daemon = rig.command(&arguments);
    daemon
        .until(|text| progress(text).is_some_and(|(taken, delivered)| taken >= 1000 && delivered >= 1000))
        .await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let (taken, delivered) = last(&daemon);
    assert!(delivered <= taken, "nothing is delivered twice");
    let log = std::fs::read_to_string(&daemon.stderr).unwrap();
    assert_eq!(log.matches("starting after TRIM_HORIZON").count(), 4, "{log}");

    std::fs::remove_file(&daemon.stderr).unwrap();
    let mut daemon = rig.command(&arguments);
    // Records put but not delivered when the first run ended are delivered now, and no others.
    let level = |(t, d): (u64, u64)| d >= 5 && delivered + d == taken + t;
    daemon.until(|line| progress(line).is_some_and(level)).await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
    let log = std::fs::read_to_string(&daemon.stderr).unwrap();
    assert_eq!(log.matches("starting after 49").count(), 4, "{log}");
    let (taken_then, delivered_then) = last(&daemon);
    assert!(
        delivered + delivered_then <= taken + taken_then,
        "nothing that was checkpointed is delivered again"
    );
}

/// The last line that reports progress.
fn last(daemon: &Daemon) -> (u64, u64) {
    daemon.printed.iter().rev().find_map(|line| progress(line)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_file_reach_the_users_processor() {
    let mut rig = Rig::start("local-put").await;
    let lines = rig.folder.join("lines.txt");
    std::fs::write(&lines, "one\ntwo\n\nfour").unwrap();
    let file = rig.properties(&rig.scripted("each"), "");
    let put = ["--put", lines.to_str().unwrap(), "--shards", "2"];
    let mut daemon = rig.command(
        &[&["local", file.to_str().unwrap(), "--kinesis-port", "0", "--dynamodb-port", "0"], &put[..]]
            .concat(),
    );
    rig.until("four records, two children", |log| count(log) == 4 && said(log, "initialize").len() == 2)
        .await;
    assert_eq!(daemon.stop().await, Some(0));
    let mut seen: Vec<Vec<u8>> =
        records(&rig.log).into_values().flatten().map(|record| record.data).collect();
    seen.sort();
    assert_eq!(seen, [&b""[..], b"four", b"one", b"two"]);
    assert_eq!(said(&rig.log, "initialize").len(), 2);
}
