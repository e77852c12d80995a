//! A Java worker as a process, with its own properties file and log: the MultiLangDaemon, or
//! `worker/Worker.java`, a record processor that uses the KCL library.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::{LIMIT, Rig};

/// The Java version and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub version: &'static str,
    /// The `clientVersionConfig` of Java's workers.
    pub mode: &'static str,
    /// The `clientVersionConfig` of our workers, compatible with Java's.
    pub ours: &'static str,
}

const SHARES: &str = "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1\n";
const COMPATIBLE: &str = "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X\n";

pub const JAVA_2: Peer = Peer { version: "2.5.4", mode: "", ours: SHARES };
/// Does not assign leases as a leader, so that KCL 2.x workers can join. Our workers may start first: they
/// write nothing that it cannot read.
pub const JAVA_3: Peer = Peer { version: "3.1.3", mode: COMPATIBLE, ours: SHARES };
/// Starts first, and our workers use the same properties file.
pub const JAVA_3_FIRST: Peer = Peer { version: "3.1.3", mode: COMPATIBLE, ours: COMPATIBLE };
/// The default: one worker is the leader and assigns the leases.
pub const JAVA_3_LED: Peer = Peer { version: "3.1.3", mode: "", ours: "" };

/// The library worker in KCL 3.x mode. On a new application it uses a single table.
pub const LIBRARY_LED: Peer = Peer { version: LIBRARY, mode: "", ours: "" };
/// The library worker in the mode that is compatible with KCL 2.x.
pub const LIBRARY_COMPATIBLE: Peer = Peer { version: LIBRARY, mode: COMPATIBLE, ours: SHARES };

/// The newest KCL on Maven Central, where its MultiLangDaemon is not published.
const LIBRARY: &str = "3.5.1";

impl Peer {
    pub fn is_library(self) -> bool {
        self.version == LIBRARY
    }

    /// 2.5.4 knows only the class names of the AWS SDK 1.x, 3.1.3 those of 2.x.
    fn credentials(self) -> &'static str {
        if self.version.starts_with('2') {
            "DefaultAWSCredentialsProviderChain"
        } else {
            "DefaultCredentialsProvider"
        }
    }
}

/// One properties file per worker, which holds its id. The record processors report the id, too.
pub fn properties(rig: &Rig, worker: &str, more: &str) -> PathBuf {
    let script = rig.scripted(&format!("each as={worker}"));
    let file = rig.properties(&script, &format!("workerId = {worker}\n{more}"));
    let own = rig.folder.join(format!("{worker}.properties"));
    std::fs::rename(file, &own).unwrap();
    own
}

/// Replaces a part of a worker's properties file, which a multi-stream worker reads again.
pub fn rewrite(rig: &Rig, worker: &str, from: &str, to: &str) {
    let file = rig.folder.join(format!("{worker}.properties"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {text}");
    let new = rig.folder.join(format!("{worker}.properties.new"));
    std::fs::write(&new, text.replace(from, to)).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// One log file per worker.
pub fn log(rig: &Rig, worker: &str) -> (PathBuf, std::fs::File) {
    let path = rig.folder.join(format!("{worker}.log"));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    (path, file)
}

pub struct Java {
    child: Child,
    log: PathBuf,
    is_library: bool,
}

impl Java {
    /// Starts a worker. `more` are lines of its properties file.
    pub fn start(rig: &Rig, peer: Peer, worker: &str, more: &str) -> Self {
        let folder = std::env::var("MULTILANGD_PEER")
            .expect("MULTILANGD_PEER must name the folder that tests/interop/get.sh has filled");
        let kind = if peer.is_library() { "jars-core" } else { "jars" };
        let jars = PathBuf::from(folder).join(format!("{kind}-{}", peer.version));
        assert!(jars.is_dir(), "{} is not there: run tests/interop/get.sh", jars.display());
        let jars = jars.display();
        let (class_path, main, own) = if peer.is_library() {
            let report = format!("report = 127.0.0.1:{}\n", rig.port());
            (format!("{jars}/*:{jars}"), &["Worker"][..], report)
        } else {
            let daemon = &["software.amazon.kinesis.multilang.MultiLangDaemon", "--properties-file"][..];
            (format!("{jars}/*"), daemon, format!("AWSCredentialsProvider = {}\n", peer.credentials()))
        };
        let file = properties(rig, worker, &format!("{more}{}{own}", peer.mode));
        let (log, output) = log(rig, worker);
        // A signal that is ignored where the tests run would stay ignored. `env` is replaced by the JVM, so the
        // process is the same. Only the C1 compiler and one GC thread, because a run is short.
        let child = Command::new("env")
            .args(["--default-signal=INT,HUP,TERM", "java"])
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Daws.cborEnabled=false", "-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .args(["-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-cp", &class_path])
            .args(main)
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
        Self { child, log, is_library: peer.is_library() }
    }

    /// Stops the worker with SIGTERM. The library worker's exit code says whether its graceful shutdown completed.
    pub async fn stop(&mut self) {
        let code = self.end(Signal::TERM).await.code();
        assert!(!self.is_library || code == Some(0), "exit code {code:?}: see {}", self.log.display());
    }

    /// Sends a signal to the JVM alone, by its pid, and waits for its exit.
    pub async fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.child.id().expect("the worker has exited by itself")).unwrap();
        assert!(pid > 1);
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        match timeout(LIMIT, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the Java worker does not end: see {}", self.log.display()),
        }
    }
}
