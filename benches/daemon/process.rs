//! Daemons as processes, and their resource usage as reported by the kernel.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// The daemon to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    Ours,
    /// An earlier build of multilangd, which `MULTILANGD_EARLIER` names.
    Earlier,
    /// KCL 3.1.3 with its default memory settings.
    Java,
}

impl Daemon {
    /// multilangd, and the Java daemon if `MULTILANGD_PEER` names its folder.
    pub fn all() -> Vec<Self> {
        let java =
            std::env::var_os("MULTILANGD_PEER").filter(|folder| !folder.is_empty()).map(|_| Self::Java);
        if java.is_none() {
            println!("(the Java daemon is not measured: MULTILANGD_PEER does not name its folder)");
        }
        Self::builds().into_iter().chain(java).collect()
    }

    /// Ours, and the earlier build beside it where there is one.
    pub fn builds() -> Vec<Self> {
        let earlier =
            std::env::var_os("MULTILANGD_EARLIER").filter(|path| !path.is_empty()).map(|_| Self::Earlier);
        [Self::Ours].into_iter().chain(earlier).collect()
    }

    /// The name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "multilangd",
            Self::Earlier => "multilangd, the earlier build",
            Self::Java => "Java 3.1.3",
        }
    }

    /// Starts the daemon with a properties file; its log goes to a file beside it.
    pub fn start(self, file: &Path) -> Running {
        let mut command = match self {
            Self::Ours => Self::ours(),
            Self::Earlier => Command::new(std::env::var_os("MULTILANGD_EARLIER").unwrap()),
            Self::Java => {
                let jars = PathBuf::from(std::env::var_os("MULTILANGD_PEER").unwrap()).join("jars-3.1.3");
                let mut java = Command::new("java");
                // Java's SDK uses CBOR by default. With JSON both daemons read the same responses.
                java.args(["-Daws.cborEnabled=false", "-cp"]).arg(format!("{}/*", jars.display()));
                java.arg("software.amazon.kinesis.multilang.MultiLangDaemon");
                java
            }
        };
        command.arg("--properties-file").arg(file);
        Running::spawn(command, &file.with_extension("log"))
    }

    /// Starts multilangd with several properties files.
    pub fn start_on(self, files: &[PathBuf], log: &Path) -> Running {
        assert_eq!(self, Self::Ours, "only multilangd runs several");
        let mut command = Self::ours();
        command.args(files);
        Running::spawn(command, log)
    }

    fn ours() -> Command {
        let binary = std::env::var_os("MULTILANGD_BINARY");
        Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_multilangd").into()))
    }
}

/// A running daemon or raw reader.
pub struct Running {
    child: Child,
    pid: u32,
}

impl Running {
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = command
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs([crate::wire::trust()])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        Self { child, pid }
    }

    /// CPU seconds of this process so far, without its children.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The process name may contain spaces; the fields after it do not.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// A numeric line of `/proc/PID/status`: `VmRSS` and `VmHWM` in KiB, `Threads`.
    pub fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The proportional set size in KiB: memory that several processes map counts once for all of them.
    pub fn pss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Sends SIGTERM, and SIGKILL if the process has not ended after 30 s.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.pid).unwrap();
        assert!(pid > 1);
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        if tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.is_err() {
            self.child.kill().await.unwrap();
        }
    }
}
