//! A shortage of processes (`ulimit -u`): running children continue, the daemon does not exit, and another worker
//! takes the leases whose children could not start.

use std::ffi::OsString;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::parked::{GAP, round};
use crate::rig::*;
use crate::status::{status, until};

/// Processes and threads that the user of the limited worker may have: the worker's estimate, which reserves 16
/// for itself, allows all eight leases.
const MOST: usize = 48;
/// Other processes of that user, which leave too few for eight children.
const OTHERS: usize = 38;
/// A user without processes, where the tests run as root: the limit does not apply to root.
const USER: &str = "61234";

/// The words that start a program under the limit. A root's program gets another user, and of root's rights only
/// that to read any file, because the interpreter may be in a folder that only root can open.
fn limited() -> Vec<OsString> {
    let (mut words, most) = if rustix::process::geteuid().is_root() {
        let user = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"];
        let rights = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"];
        (user.into_iter().chain(rights).map(OsString::from).collect(), MOST)
    } else {
        (Vec::new(), MOST + threads_of_this_user())
    };
    words.extend(["prlimit".into(), format!("--nproc={most}:{most}").into()]);
    words
}

fn threads_of_this_user() -> usize {
    let own = rustix::process::getuid().as_raw().to_string();
    let of = |status: String| {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        (field("Uid:")? == own).then(|| field("Threads:")?.parse::<usize>().ok()).flatten()
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| of(std::fs::read_to_string(process.path().join("status")).ok()?)).sum()
}

fn others() -> Vec<Child> {
    let start = |_| {
        let words = limited();
        Command::new(&words[0]).args(&words[1..]).args(["sleep", "600"]).kill_on_drop(true).spawn().unwrap()
    };
    (0..OTHERS).map(start).collect()
}

/// The interpreter itself: a version manager's `python3` is a script, which starts processes of its own.
fn without_shim(script: &str) -> String {
    let asked =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = String::from_utf8(asked.unwrap().stdout).unwrap();
    script.replacen("python3", python.trim(), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn shortage_of_processes_moves_leases_to_another_worker() {
    let mut rig = Rig::start("processes").await;
    rig.stream(8).await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    let file = rig.properties(
        &without_shim(&rig.scripted("each")),
        "failoverTimeMillis = 3000\nmultilangd.status = 0\n",
    );
    let others = others();
    rig.wrapper = limited();
    let mut short = rig.daemon(&file);
    let address = rig.status_address().await;
    let without_child = |shown: &Value| {
        let shards = shown["shards"].as_array().unwrap();
        shards.iter().filter(|shard| shard["held"] == true && shard["childPid"].is_null()).count()
    };
    rig.until("a child runs", |log| !said(log, "initialize").is_empty()).await;
    rig.logged("processor_start_deferred").await;

    rig.wrapper.clear();
    let mut second = rig.daemon(&file);
    let mut largest = Duration::ZERO;
    loop {
        let mut shards = said(&rig.log, "initialize");
        shards.sort_unstable();
        shards.dedup();
        if shards.len() == 8 {
            break;
        }
        // A shard whose child runs is not affected.
        let healthy = shards[0].rsplit('-').next().unwrap().parse().unwrap();
        largest = largest.max(round(&mut rig, &[healthy]).await);
    }
    eprintln!("largest gap of a running child: {largest:?}");
    assert!(largest < GAP, "{largest:?}");
    until(&address, "surplus leases have moved", |shown| without_child(shown) == 0).await;
    let shown = status(&address).await;
    let failures =
        shown["shards"].as_array().unwrap().iter().map(|shard| shard["child"]["failures"].as_u64().unwrap());
    assert_eq!(failures.sum::<u64>(), 0, "{shown:#}");
    drop(others);
    assert_eq!((short.stop().await, second.stop().await), (Some(0), Some(0)));
}
