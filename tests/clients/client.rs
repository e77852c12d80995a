//! A published client: its location, how its child is started, and its limits.

use std::path::{Path, PathBuf};

use crate::rig::Rig;

/// A client library with a record processor that uses it.
pub struct Client {
    pub runs: Runs,
    /// Lines that this client needs in the properties file.
    pub properties: &'static str,
    pub end: End,
    /// The messages of a graceful shutdown that its processor receives, in order.
    pub stop: &'static [&'static str],
}

/// How a child is started.
pub enum Runs {
    /// A Python script of ours, with packages on `PYTHONPATH`.
    Python { script: &'static str, packages: &'static [&'static str], interface: &'static str },
    /// A Node script of ours, with a version of aws-kcl.
    Node { package: &'static str, interface: &'static str },
    /// A program built by `get.sh`.
    Binary(&'static str),
}

/// How the client handles the end of a shard.
pub enum End {
    /// The processor checkpoints the end, and the child shards start.
    Checkpointed,
    /// The library cannot checkpoint the end. The daemon restarts the child, gives up eventually and exits with
    /// code 1; its log contains this text.
    Never(&'static str),
}

/// The messages of a graceful shutdown in current clients.
pub const FULL: &[&str] = &["shutdownRequested", "leaseLost"];

/// The folder with the output of `get.sh`.
pub fn fetched() -> PathBuf {
    let folder = std::env::var_os("MULTILANGD_CLIENTS").map(PathBuf::from);
    folder.expect("MULTILANGD_CLIENTS must name the folder that tests/clients/get.sh filled")
}

/// A path within that folder.
pub fn part(name: &str) -> PathBuf {
    let path = fetched().join(name);
    assert!(
        path.exists(),
        "{} is not there: run tests/clients/get.sh {}",
        path.display(),
        fetched().display()
    );
    path
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/processors").join(name);
    path.to_str().unwrap().to_owned()
}

impl Client {
    /// Writes the properties file for this client, and sets the environment of its children.
    pub fn properties(&self, rig: &mut Rig, more: &str) -> PathBuf {
        let port = rig.port();
        let command = match &self.runs {
            Runs::Python { script: name, packages, interface } => {
                let path = std::env::join_paths(packages.iter().map(|package| part(package))).unwrap();
                rig.environment.push(("PYTHONPATH".into(), path));
                format!("python3 {} {port} {interface}", script(name))
            }
            Runs::Node { package, interface } => {
                let modules = part(package).join("node_modules");
                rig.environment.push(("NODE_PATH".into(), modules.into_os_string()));
                format!("node {} {port} {interface}", script("node.js"))
            }
            // kcl-async creates a folder in its working directory.
            Runs::Binary(name) => {
                format!("env --chdir={} {} {port}", rig.folder.display(), part(name).display())
            }
        };
        rig.properties(&command, &format!("{}{more}", self.properties))
    }
}
