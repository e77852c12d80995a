//! The resource limits of the daemon: raised if possible, restored for children, and never a reason to exit.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::rig::*;
use crate::status::until;

/// Starts the daemon with the given limits of the shell.
fn limited(rig: &mut Rig, limits: &str) {
    let script = format!("{limits} && exec \"$@\"");
    rig.wrapper = ["sh", "-c", &script, "sh"].map(Into::into).to_vec();
}

/// The number of leases that the limits of a daemon allow, as it logged them.
fn allowed(daemon: &Daemon) -> u64 {
    let lines = logged(&daemon.stderr, "limits_determined");
    lines.last().unwrap_or_else(|| panic!("{lines:?}"))["leases"].as_u64().unwrap()
}

fn status_of(rig: &mut Rig) -> &'static str {
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    "multilangd.status = 0\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_is_raised_and_restored_for_children() {
    let mut rig = Rig::start("soft-limit").await;
    rig.stream(24).await;
    // With this soft limit, 24 shards do not fit.
    limited(&mut rig, "ulimit -Sn 100");
    let file = rig.properties(&rig.scripted("each limit"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("all children run", |log| said(log, "initialize").len() == 24).await;
    let limits = rig.log.iter().filter_map(|report| match report {
        Report::Said { what, body, .. } if what == "limit" => body.as_u64(),
        _ => None,
    });
    let limits: Vec<u64> = limits.collect();
    assert_eq!(limits, [100; 24]);
    assert_eq!(daemon.stop().await, Some(0));
    assert!(allowed(&daemon) > 24, "{}", rig.daemon_log());
}

/// Needs user namespaces; where the system forbids them, nothing is tested.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_is_not_raised_without_proc() {
    let namespaces = ["--user", "--map-root-user", "--mount"];
    if !Command::new("unshare").args(namespaces).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: user namespaces are not permitted");
        return;
    }
    let mut rig = Rig::start("no-proc").await;
    rig.stream(2).await;
    limited(&mut rig, "mount -t tmpfs none /proc && ulimit -Sn 100");
    let mut wrapper: Vec<_> = std::iter::once("unshare").chain(namespaces).map(Into::into).collect();
    wrapper.append(&mut rig.wrapper);
    rig.wrapper = wrapper;
    let file = rig.properties(&rig.scripted("each limit"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("both children run", |log| said(log, "initialize").len() == 2).await;
    let has_limit = |report: &Report| matches!(report, Report::Said { what, body, .. } if what == "limit" && *body == 100);
    assert_eq!(rig.log.iter().filter(|report| has_limit(report)).count(), 2, "{:?}", rig.log);
    assert_eq!(logged(&daemon.stderr, "open_files_not_raised").len(), 1, "{}", rig.daemon_log());
    assert_eq!(allowed(&daemon), 7, "64 of 100 descriptors are reserved, and each shard needs five");
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_limit_of_open_files_bounds_the_leases() {
    let mut rig = Rig::start("hard-limit").await;
    rig.stream(8).await;
    let more = format!("failoverTimeMillis = 3000\n{}", status_of(&mut rig));
    let file = rig.properties(&rig.scripted("each"), &more);
    // 64 descriptors are reserved, and each shard needs five.
    limited(&mut rig, "ulimit -n 80");
    let mut first = rig.daemon(&file);
    rig.until("its children run", |log| said(log, "initialize").len() == 3).await;
    assert_eq!(allowed(&first), 3);
    rig.wrapper.clear();
    let mut second = rig.daemon(&file);
    rig.until("all children run", |log| said(log, "initialize").len() == 8).await;
    assert_eq!((first.stop().await, second.stop().await), (Some(0), Some(0)));
}

/// Compiles the small record processor of the image's test, so that many children need little memory.
fn small_processor(rig: &Rig) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/image/child.rs");
    let out = rig.folder.join("child");
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let built = Command::new(rustc)
        .args(["--edition", "2024", "-O", "-C", "strip=symbols", "-C", "panic=abort", source, "-o"])
        .arg(&out)
        .status();
    assert!(built.unwrap().success());
    out.to_str().unwrap().to_owned()
}

/// Resident memory in MB, and CPU seconds so far.
fn cost(pid: u32) -> (u64, f64) {
    let field = |text: &str, n: usize| text.split_whitespace().nth(n).unwrap().parse::<u64>().unwrap();
    let memory = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks = field(after_name, 11) + field(after_name, 12);
    let seconds = f64::from(u32::try_from(ticks).unwrap()) / 100.0;
    (field(&memory, 1) * 4 / 1024, seconds)
}

/// 300 children by default; `MULTILANGD_MANY=1000 cargo test --release --test process hundreds -- --nocapture` starts more.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_children_run_in_one_daemon() {
    let many: i32 = std::env::var("MULTILANGD_MANY").map_or(300, |text| text.parse().unwrap());
    let mut rig = Rig::start("hundreds").await;
    rig.stream(many).await;
    limited(&mut rig, "ulimit -Sn 256");
    let program = small_processor(&rig);
    let more =
        format!("retrievalMode = POLLING\nidleTimeBetweenReadsInMillis = 1500\n{}", status_of(&mut rig));
    let file = rig.properties(&program, &more);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("idleTimeBetweenReadsInMillis = 200\n", "")).unwrap();
    let start = Instant::now();
    let mut daemon = rig.daemon(&file);
    let address = rig.status_address().await;
    let wanted = usize::try_from(many).unwrap();
    until(&address, "all children have answered", |status| {
        let shards = status["shards"].as_array().unwrap();
        shards.iter().filter(|shard| shard["child"]["answers"].as_u64() > Some(0)).count() == wanted
    })
    .await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let (memory, seconds) = cost(daemon.pid());
    eprintln!("{many} children after {:.1} s: {memory} MB, {seconds:.1} CPU seconds", took.as_secs_f64());

    // One of the shards is busy.
    let records: Vec<_> = (0..4_000).map(|_| ("k".to_owned(), vec![b'x'; 5_000])).collect();
    let start = Instant::now();
    rig.put(&records).await;
    until(&address, "the busy shard is read and checkpointed", |status| {
        let shards = status["shards"].as_array().unwrap();
        shards.iter().any(|shard| {
            shard["delivered"]["records"] == 4_000
                && shard["checkpoint"]["position"] == shard["delivered"]["position"]
        })
    })
    .await;
    let took = start.elapsed();
    eprintln!("20 MB in one of them: {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(10), "less than 2 MB a second: {took:?}");
    let status = crate::status::status(&address).await;
    let failures: u64 = status["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["child"]["failures"].as_u64().unwrap())
        .sum();
    assert_eq!(failures, 0);
    let stop = Instant::now();
    assert_eq!(daemon.stop().await, Some(0));
    eprintln!("stopped after {:.1} s", stop.elapsed().as_secs_f64());
}

// Elsewhere such a child ends when it next reads its stdin.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn busy_child_dies_with_a_killed_daemon() {
    let mut rig = Rig::start("orphan").await;
    rig.stream(1).await;
    rig.put(&[("k".to_owned(), b"x".to_vec())]).await;
    let file = rig.properties(&rig.scripted("hangs"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("a batch", |log| count(log) == 1).await;
    daemon.signal(rustix::process::Signal::KILL);
    daemon.ended().await;
    let start = Instant::now();
    rig.until("the child is gone", |log| alive(log) == 0).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_how_many_leases_the_limits_allow() {
    let mut rig = Rig::start("check-limits").await;
    limited(&mut rig, "ulimit -n 564");
    let file = rig.properties(&rig.scripted("each"), "");
    let mut check = rig.command(&["check", "--json", file.to_str().unwrap()]);
    assert_eq!(check.ended().await.code(), Some(0));
    let shown: Value = serde_json::from_str(&check.printed.join("\n")).unwrap();
    assert_eq!((&shown["limits"]["leases"], &shown["limits"]["openFiles"]), (&100.into(), &564.into()));
}
