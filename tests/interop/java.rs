//! A Java daemon as a process.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::{LIMIT, Rig};

/// The lines that workers of both kinds are given. Small batches: what one that changes hands has in hand comes
/// twice.
pub const COMMON: &str = "failoverTimeMillis = 3000\nshardSyncIntervalMillis = 1000\nmetricsLevel = NONE\n\
                          maxRecords = 100\nshutdownGraceMillis = 5000\n";

/// Which Java, and in which mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub version: &'static str,
    pub mode: Option<&'static str>,
}

pub const JAVA_2: Peer = Peer { version: "2.5.4", mode: None };
pub const JAVA_3: Peer =
    Peer { version: "3.1.3", mode: Some("clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X\n") };
/// As it comes, that is led.
pub const JAVA_3_LED: Peer = Peer { version: "3.1.3", mode: None };

impl Peer {
    /// What both kinds of workers must agree about.
    pub fn mode(self) -> &'static str {
        self.mode.unwrap_or_default()
    }
}

/// A properties file of its own for each worker, as each has a name.
pub fn properties(rig: &Rig, worker: &str, more: &str) -> PathBuf {
    let file = rig.properties(&rig.scripted("each"), &format!("workerId = {worker}\n{more}"));
    let own = rig.folder.join(format!("{worker}.properties"));
    std::fs::rename(file, &own).unwrap();
    own
}

pub struct Java {
    child: Child,
    log: PathBuf,
}

impl Java {
    pub fn start(rig: &Rig, peer: Peer, worker: &str, more: &str) -> Self {
        let folder = std::env::var("MULTILANGD_PEER")
            .expect("MULTILANGD_PEER must name the folder that tests/interop/get.sh has filled");
        let jars = PathBuf::from(folder).join(format!("jars-{}", peer.version));
        assert!(jars.is_dir(), "{} is not there: run tests/interop/get.sh", jars.display());
        let file = properties(rig, worker, &format!("{}{more}", peer.mode()));
        // 2.5.4 knows the names of the first SDK only, 3.1.3 those of the second.
        let text = std::fs::read_to_string(&file).unwrap();
        let provider = if peer.version.starts_with('2') {
            "DefaultAWSCredentialsProviderChain"
        } else {
            "DefaultCredentialsProvider"
        };
        std::fs::write(&file, text.replace("DefaultCredentialsProvider", provider)).unwrap();
        let log = rig.folder.join(format!("{worker}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new("env")
            .args([
                "--default-signal=INT,HUP,TERM",
                "java",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ])
            .args(["-Daws.cborEnabled=false", "-cp"])
            .arg(format!("{}/*", jars.display()))
            .args(["software.amazon.kinesis.multilang.MultiLangDaemon", "--properties-file"])
            .arg(&file)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Signals the JVM alone, by its pid, and waits for its end.
    pub async fn end(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it has ended by itself")).unwrap();
        assert!(pid > 1);
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        let ended = timeout(LIMIT, self.child.wait()).await;
        assert!(ended.is_ok(), "the Java daemon does not end: see {}", self.log.display());
    }
}
