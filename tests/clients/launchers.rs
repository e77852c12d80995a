//! The start scripts of the clients, unmodified, with the binary as their `java`: records reach a child, and
//! SIGTERM to the daemon's pid stops everything cleanly.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::timeout;

use crate::client::{Client, part};
use crate::records::*;
use crate::rig::*;
use crate::table::{EASY_KCLPY, KCLPY, OLD_AWS_KCL, OLD_KCLPY, aws_kcl, kclpy};

const DAEMON: &str = env!("CARGO_BIN_EXE_multilangd");

/// A command, run in a folder other than that of the properties file, with the client's environment.
struct Launcher {
    program: &'static str,
    arguments: Vec<String>,
}

/// A shell that executes the output of a helper script, as the script's documentation describes.
fn backticks(package: &str, properties: &Path) -> Launcher {
    let helper = part(package).join("samples/amazon_kclpy_helper.py");
    let command = format!(
        "`python3 {} --print_command --java {DAEMON} --properties {}`",
        helper.display(),
        properties.display()
    );
    Launcher { program: "sh", arguments: vec!["-c".into(), command] }
}

/// `kcl-bootstrap`. It does not download jars that exist; here they are empty files.
fn kcl_bootstrap(package: &str, properties: &Path) -> Launcher {
    let (script, jars) = (part(package).join("node_modules/.bin/kcl-bootstrap"), part(package).join("jars"));
    let words = [
        script.as_os_str(),
        "--java".as_ref(),
        DAEMON.as_ref(),
        "--jar-path".as_ref(),
        jars.as_os_str(),
        "-e".as_ref(),
        "-p".as_ref(),
        properties.as_os_str(),
    ];
    Launcher { program: "node", arguments: words.map(|word| word.to_str().unwrap().to_owned()).to_vec() }
}

fn launch_multilangdaemon(properties: &Path) -> Launcher {
    let words = ["-m", "easy_kclpy.utils.launch_multilangdaemon", "--java", DAEMON, "--properties"];
    let mut arguments = words.map(str::to_owned).to_vec();
    arguments.push(properties.to_str().unwrap().to_owned());
    Launcher { program: "python3", arguments }
}

/// Starts the launcher, checks that records arrive, and stops the daemon.
async fn assert_launches(name: &str, client: &Client, launcher: impl FnOnce(&Path) -> Launcher) {
    let mut rig = Rig::start(name).await;
    rig.stream(2).await;
    let all = sample_records(100);
    rig.put(&all).await;
    let file = client.properties(&mut rig, "");
    let Launcher { program, arguments } = launcher(&file);
    let elsewhere = rig.folder.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let log = |name: &str| std::fs::File::create(rig.folder.join(name)).unwrap();
    let mut launched = Command::new(program)
        .args(arguments)
        .current_dir(&elsewhere)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("RUST_LOG")
        .envs(rig.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log("stdout.log"))
        .stderr(log("stderr.log"))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let launcher_ends_early = tokio::select! {
        status = launched.wait() => Some(status.unwrap()),
        () = rig.until("100 records", |log| count(log) >= 100 && alive(log) == 2) => None,
    };
    let printed = || std::fs::read_to_string(rig.folder.join("stdout.log")).unwrap();
    assert!(launcher_ends_early.is_none(), "{launcher_ends_early:?}\n{}\n{}", printed(), rig.daemon_log());

    let daemon = daemon_of(&rig.log);
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::TERM).unwrap();
    let status = timeout(LIMIT, launched.wait()).await.expect("the launcher ends with the daemon").unwrap();
    assert_eq!(status.code(), Some(0), "{}", rig.daemon_log());
    rig.until("all children gone", |log| alive(log) == 0).await;
    assert!(is_gone(daemon));
    assert!(pids(&rig.log).into_iter().all(is_gone));
    assert_eq!(said(&rig.log, "shutdownRequested").len(), 2, "{}", rig.daemon_log());
    assert_each_once(&rig.log, &all);
}

/// The common parent of all children, which must be our binary.
fn daemon_of(log: &[Report]) -> i32 {
    let parents: BTreeSet<i32> = pids(log).into_iter().map(parent).collect();
    let [daemon] = parents.into_iter().collect::<Vec<_>>()[..] else { panic!("one daemon") };
    #[cfg(target_os = "linux")]
    assert_eq!(
        std::fs::read_link(format!("/proc/{daemon}/exe")).unwrap(),
        std::fs::canonicalize(DAEMON).unwrap()
    );
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn kcl_bootstrap_of_aws_kcl_2_3_2() {
    let client = aws_kcl("aws-kcl-2.3.2", "v2");
    assert_launches("bootstrap-2.3.2", &client, |file| kcl_bootstrap("aws-kcl-2.3.2", file)).await;
}

/// Uses the old main class, and the properties file as the only argument.
#[tokio::test(flavor = "multi_thread")]
async fn kcl_bootstrap_of_aws_kcl_0_7_0() {
    assert_launches("bootstrap-0.7.0", &OLD_AWS_KCL, |file| kcl_bootstrap("aws-kcl-0.7.0", file)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helper_of_amazon_kclpy_3_2_0() {
    assert_launches("helper-3.2.0", &KCLPY, |file| backticks("amazon_kclpy-3.2.0", file)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helper_of_amazon_kclpy_2_1_5() {
    let client = kclpy("v3", &["amazon_kclpy-2.1.5"]);
    assert_launches("helper-2.1.5", &client, |file| backticks("amazon_kclpy-2.1.5", file)).await;
}

/// The helper passes only the file's name; the daemon finds the file in a folder of the class path.
#[tokio::test(flavor = "multi_thread")]
async fn helper_of_amazon_kclpy_1_5_1() {
    assert_launches("helper-1.5.1", &OLD_KCLPY, |file| backticks("amazon_kclpy-1.5.1", file)).await;
}

/// The last argument of the launcher is empty.
#[tokio::test(flavor = "multi_thread")]
async fn launch_multilangdaemon_of_easy_kclpy() {
    assert_launches("easy-launcher", &EASY_KCLPY, launch_multilangdaemon).await;
}
