//! The surroundings in which the platform is detected: files, and variables of the environment.

use std::io;
use std::path::{Path, PathBuf};

/// The platform that this process runs on, as far as it matters for host metrics. In KCL:
/// `WorkerMetricsSelector`.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The folder that contains `/proc`, `/sys` and `/var`.
    pub root: PathBuf,
    /// The value of `ECS_CONTAINER_METADATA_URI_V4`.
    pub ecs: Option<String>,
    /// Whether `ECS_CONTAINER_METADATA_URI` is set: the older metadata of ECS, which have no CPU counters.
    pub ecs_old: bool,
    /// Address of the EC2 instance metadata service, as `http://host:port`. None if
    /// `AWS_EC2_METADATA_DISABLED` is set (Java calls it regardless).
    pub imds: Option<String>,
}

impl Surroundings {
    /// Reads the environment variables of this process.
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let forbidden = set("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        Self {
            root: PathBuf::from("/"),
            ecs: set("ECS_CONTAINER_METADATA_URI_V4"),
            ecs_old: set("ECS_CONTAINER_METADATA_URI").is_some(),
            imds: (!forbidden).then(|| "http://169.254.169.254".to_owned()),
        }
    }
}

/// A failure of a gauge. Its kind has no effect.
pub(super) fn fault(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

pub(super) async fn exists(file: &Path) -> bool {
    tokio::fs::try_exists(file).await.unwrap_or(false)
}
