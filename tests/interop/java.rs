//! A Java worker as a process, with a properties file and a log of its own: the MultiLangDaemon, or
//! `worker/Worker.java`, which is a record processor on the KCL library.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::{LIMIT, Rig};

/// Which Java, and in which mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub version: &'static str,
    /// How Java's workers find their leases.
    pub mode: &'static str,
    /// How ours do, so that they agree.
    pub ours: &'static str,
}

const SHARES: &str = "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1\n";
const COMPATIBLE: &str = "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X\n";

pub const JAVA_2: Peer = Peer { version: "2.5.4", mode: "", ours: SHARES };
/// It leaves its leader's work undone, so that workers of KCL 2 get along with it.
/// Ours may come first: they write nothing that it can't read.
pub const JAVA_3: Peer = Peer { version: "3.1.3", mode: COMPATIBLE, ours: SHARES };
/// It comes first, and ours are given the same file.
pub const JAVA_3_FIRST: Peer = Peer { version: "3.1.3", mode: COMPATIBLE, ours: COMPATIBLE };
/// As it comes: one worker leads and assigns the leases.
pub const JAVA_3_LED: Peer = Peer { version: "3.1.3", mode: "", ours: "" };

/// The library worker in KCL 3.x mode. On a new application it uses a single table.
pub const LIBRARY_LED: Peer = Peer { version: LIBRARY, mode: "", ours: "" };
/// The library worker in the mode that is compatible with KCL 2.x.
pub const LIBRARY_COMPATIBLE: Peer = Peer { version: LIBRARY, mode: COMPATIBLE, ours: SHARES };

/// The newest KCL on Maven Central. Its MultiLangDaemon is not there.
const LIBRARY: &str = "3.5.1";

impl Peer {
    pub fn is_library(self) -> bool {
        self.version == LIBRARY
    }

    /// 2.5.4 knows the names of the first SDK only, 3.1.3 those of the second.
    fn credentials(self) -> &'static str {
        if self.version.starts_with('2') {
            "DefaultAWSCredentialsProviderChain"
        } else {
            "DefaultCredentialsProvider"
        }
    }
}

/// A properties file of its own for each worker, as each has a name. The record processors report it, too.
pub fn properties(rig: &Rig, worker: &str, more: &str) -> PathBuf {
    let script = rig.scripted(&format!("each as={worker}"));
    let file = rig.properties(&script, &format!("workerId = {worker}\n{more}"));
    let own = rig.folder.join(format!("{worker}.properties"));
    std::fs::rename(file, &own).unwrap();
    own
}

/// A log of its own for each worker, so that each tells one story.
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
        // A signal that is ignored where the tests run would stay ignored; env becomes the JVM, so the
        // process is the same. Only the first compiler and one collector thread, as a run is short.
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

    /// Signals the JVM alone, by its pid, and waits for its end.
    pub async fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.child.id().expect("it has ended by itself")).unwrap();
        assert!(pid > 1);
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        match timeout(LIMIT, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the Java worker does not end: see {}", self.log.display()),
        }
    }
}
