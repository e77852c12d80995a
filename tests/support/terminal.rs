//! The command blocks of docs/getting-started.md, run as they are printed.
//!
//! A block runs under `sh` in a folder that has `examples`, with a `cargo` that starts the binary under test instead of
//! building it. That `cargo` replaces the ports of the page by free ones, because tests run at the same time.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

const LIMIT: Duration = Duration::from_secs(90);

const CARGO: &str = r#"#!/bin/sh
[ "$1 $2" = "run --" ] || { echo "not a command of the page: cargo $*" >&2; exit 64; }
shift 2
for argument do
  shift
  case $argument in
    local) set -- "$@" local --kinesis-port "$KINESIS" --dynamodb-port "$DYNAMODB" ;;
    kinesisEndpoint=http://127.0.0.1:4567) set -- "$@" "kinesisEndpoint=http://127.0.0.1:$KINESIS" ;;
    dynamoDBEndpoint=http://127.0.0.1:4568) set -- "$@" "dynamoDBEndpoint=http://127.0.0.1:$DYNAMODB" ;;
    9466) set -- "$@" 0 ;;
    *) set -- "$@" "$argument" ;;
  esac
done
echo $$ > "$DAEMON.part" && mv "$DAEMON.part" "$DAEMON"
exec env --default-signal=INT,HUP,QUIT,TERM "$MULTILANGD" "$@"
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command blocks of the page with the headings above them, as in `Python/Without a library`.
pub fn blocks() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join("docs/getting-started.md")).unwrap();
    let (mut section, mut part) = (String::new(), String::new());
    let (mut found, mut fence) = (Vec::new(), None::<(bool, String)>);
    for line in page.lines() {
        match &mut fence {
            Some(_) if line == "```" => {
                let (commands, text) = fence.take().unwrap();
                if commands {
                    found.push((format!("{section}{part}"), text));
                }
            }
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
            None if line.starts_with("```") => fence = Some((line == "```sh", String::new())),
            None => {
                if let Some(title) = line.strip_prefix("## ") {
                    (section, part) = (title.to_owned(), String::new());
                } else if let Some(title) = line.strip_prefix("### ") {
                    part = format!("/{title}");
                }
            }
        }
    }
    found
}

/// The command blocks under a heading.
pub fn under(heading: &str) -> Vec<String> {
    let found: Vec<String> =
        blocks().into_iter().filter(|(place, _)| place == heading).map(|(_, text)| text).collect();
    assert!(!found.is_empty(), "docs/getting-started.md has no commands under {heading}");
    found
}

/// A folder in which commands run, with ports of its own.
pub struct Desk {
    pub folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
    terminals: usize,
}

/// A block that runs.
pub struct Terminal {
    child: Child,
    output: PathBuf,
    daemon: PathBuf,
}

impl Desk {
    pub fn new(name: &str) -> Self {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        // Of an earlier run with the same process id.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        symlink(root().join("examples"), folder.join("examples")).unwrap();
        let cargo = folder.join("bin/cargo");
        std::fs::write(&cargo, CARGO).unwrap();
        std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [kinesis, dynamodb] = listeners.map(|one| one.local_addr().unwrap().port().to_string());
        let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
        let environment = [
            ("PATH", path),
            ("KINESIS", kinesis),
            ("DYNAMODB", dynamodb),
            ("MULTILANGD", env!("CARGO_BIN_EXE_multilangd").to_owned()),
            ("MULTILANGD_STATUS", "off".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.into(), value.into())).to_vec();
        Self { folder, environment, terminals: 0 }
    }

    /// Adds a folder to PATH.
    pub fn search(&mut self, folder: &Path) {
        let (_, path) = &mut self.environment[0];
        path.push(":");
        path.push(folder);
    }

    /// Starts a block.
    pub fn start(&mut self, block: &str) -> Terminal {
        self.terminals += 1;
        let output = self.folder.join(format!("output-{}", self.terminals));
        let daemon = self.folder.join(format!("daemon-{}", self.terminals));
        let file = std::fs::File::create(&output).unwrap();
        let mut command = Command::new("sh");
        let outer = |name: &str| {
            let name = name.to_lowercase();
            name.starts_with("aws_") || name.ends_with("_proxy") || name.ends_with("java_options")
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(outer)) {
            command.env_remove(name);
        }
        let child = command
            .args(["-e", "-c", block])
            .current_dir(&self.folder)
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().cloned())
            .env("DAEMON", &daemon)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Terminal { child, output, daemon }
    }
}

impl Terminal {
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap()).into_owned()
    }

    /// Waits until a line of the output satisfies a condition, which the daemon's end does not.
    pub async fn until(&mut self, what: &str, reached: impl Fn(&str) -> bool) {
        let wait = async {
            let mut looks = interval(Duration::from_millis(50));
            loop {
                looks.tick().await;
                let ended = self.child.try_wait().unwrap();
                if self.output().lines().any(&reached) {
                    return;
                }
                assert!(ended.is_none(), "{ended:?} before {what}:\n{}", self.output());
            }
        };
        let waited = timeout(LIMIT, wait).await.is_ok();
        assert!(waited, "no {what} in\n{}", self.output());
    }

    /// Waits until local mode reports this many delivered records.
    pub async fn until_delivered(&mut self, records: u64) {
        let delivered = |line: &str| {
            let number = line.split("delivered ").nth(1)?.split(' ').next()?;
            number.parse::<u64>().ok()
        };
        let enough = |line: &str| delivered(line).is_some_and(|number| number >= records);
        self.until(&format!("{records} records delivered"), enough).await;
    }

    /// The exit code of a block that ends by itself.
    pub async fn end(&mut self) -> Option<i32> {
        timeout(LIMIT, self.child.wait()).await.expect("the command ends").unwrap().code()
    }

    /// Stops the daemon that the block started, as Ctrl-C does: the block's exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(&self.daemon).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        self.end().await
    }
}

/// Runs the one block under a heading on 20,000 records.
pub async fn delivers_all(desk: &mut Desk, heading: &str) {
    let [block] = &under(heading)[..] else { panic!("one block under {heading}") };
    let mut terminal = desk.start(block);
    terminal.until_delivered(20_000).await;
    assert_eq!(terminal.stop().await, Some(0), "{}", terminal.output());
    // The output of the examples, and the mark of a failed child in the lines of local mode.
    for failure in ["checkpoint failed", "\u{2717}"] {
        assert!(!terminal.output().contains(failure), "{}", terminal.output());
    }
}
