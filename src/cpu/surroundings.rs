//! The surroundings in which the platform is detected: files, and variables of the environment.

use std::path::PathBuf;

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

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surroundings_are_read_from_the_environment() {
        let of = |pairs: &'static [(&str, &str)]| {
            Surroundings::of(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let plain = of(&[("ECS_CONTAINER_METADATA_URI_V4", ""), ("ECS_CONTAINER_METADATA_URI", "")]);
        assert_eq!(
            (plain.root.as_path(), plain.ecs, plain.ecs_old),
            (std::path::Path::new("/"), None, false)
        );
        assert_eq!(plain.imds.as_deref(), Some("http://169.254.169.254"));
        let ecs =
            of(&[("ECS_CONTAINER_METADATA_URI_V4", "http://x/v4"), ("ECS_CONTAINER_METADATA_URI", "y")]);
        assert_eq!((ecs.ecs.as_deref(), ecs.ecs_old), (Some("http://x/v4"), true));
        assert_eq!(of(&[("AWS_EC2_METADATA_DISABLED", "True")]).imds, None);
        assert!(of(&[("AWS_EC2_METADATA_DISABLED", "false")]).imds.is_some());
    }
}
