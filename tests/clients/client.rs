//! A published client: where it lies, how its child is started, what it can do.

use std::path::{Path, PathBuf};

use crate::rig::Rig;

/// A library and the record processor on it.
pub struct Client {
    pub runs: Runs,
    /// Lines of the properties file that this client needs.
    pub properties: &'static str,
    pub end: End,
    /// What its processor gets to hear of a stop, in order.
    pub stop: &'static [&'static str],
}

/// How a child starts.
pub enum Runs {
    /// A script of ours under Python, with packages on its path.
    Python { script: &'static str, packages: &'static [&'static str], interface: &'static str },
    /// Our script under Node, on a version of aws-kcl.
    Node { package: &'static str, interface: &'static str },
    /// A program that `get.sh` built.
    Binary(&'static str),
}

/// What comes of the end of a shard.
pub enum End {
    /// The processor checkpoints it, and the shard's children start.
    Checkpointed,
    /// The library can't checkpoint it. The daemon starts the child anew and in the end gives up with
    /// exit code 1; its log says this.
    Never(&'static str),
}

/// What the clients of today hear of a stop.
pub const FULL: &[&str] = &["shutdownRequested", "leaseLost"];

/// The folder that `get.sh` filled.
pub fn fetched() -> PathBuf {
    let folder = std::env::var_os("MULTILANGD_CLIENTS").map(PathBuf::from);
    folder.expect("MULTILANGD_CLIENTS must name the folder that tests/clients/get.sh filled")
}

/// Something in that folder.
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
    /// Writes the properties file for this client, and sets what its children find in their environment.
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
            // kcl-async leaves a folder behind in its working directory.
            Runs::Binary(name) => {
                format!("env --chdir={} {} {port}", rig.folder.display(), part(name).display())
            }
        };
        rig.properties(&command, &format!("{}{more}", self.properties))
    }
}
