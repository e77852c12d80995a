//! How busy the processors are that this process may use, in percent: the load by which a leader spreads
//! leases.
//!
//! Where the process runs is found out once; without a gauge the fleet goes by throughput, which isn't a
//! failure. A gauge that can't work is no gauge: a worker whose samples all fail gets no leases. So files are
//! read on trial, and ECS metadata that give no share of the processors are noticed, before a gauge is given
//! (Java reports failures, or writes no row at all). A sample is never NaN.
//!
//! In KCL: `WorkerMetricsSelector`, `OperatingRangeDataProvider`, `WorkerMetric`.

mod cgroup;
mod ecs;
mod host;
mod http;
#[cfg(test)]
mod made_up;
mod platform;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use platform::Platform;

/// Failures of a gauge are told no more often.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// Where this process runs, as far as the use of its processors can be told. In KCL: `WorkerMetricsSelector`.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// `/proc`, `/sys` and `/var` are looked up below it.
    pub root: PathBuf,
    /// `ECS_CONTAINER_METADATA_URI_V4`.
    pub ecs: Option<String>,
    /// `ECS_CONTAINER_METADATA_URI` is set: the older interface of ECS, which has nothing to measure by.
    pub ecs_old: bool,
    /// Where EC2 describes the instance, as `http://host:port`. None if asking is forbidden
    /// (`AWS_EC2_METADATA_DISABLED`; Java asks all the same).
    pub imds: Option<String>,
}

impl Surroundings {
    /// Those that the environment of this process names.
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

/// A gauge for where this process runs; none where none is known or where it can't work. Takes at most a few
/// seconds.
pub async fn detect(surroundings: &Surroundings) -> Option<Gauge> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    detect_within(surroundings, platform::LIMITS).await
}

async fn detect_within(surroundings: &Surroundings, imds: http::Limits) -> Option<Gauge> {
    let root = &surroundings.root;
    let found = match platform::find(surroundings, imds).await {
        Platform::Ecs(Some(uri)) => ecs::Ecs::find(uri).await.map(Source::Ecs),
        Platform::Ecs(None) => Err(fault("ECS does not set ECS_CONTAINER_METADATA_URI_V4")),
        Platform::Kubernetes => cgroup::Cgroup::find(root).await.map(Source::Cgroup),
        Platform::Ec2 => host::Host::find(root).await.map(Source::Host),
        Platform::Elsewhere => {
            info!(
                "CPU utilisation is not measured (found neither ECS, Kubernetes nor EC2): leases are \
                 balanced by throughput"
            );
            return None;
        }
    };
    match found {
        Ok(source) => Some(Gauge { source, told: None }),
        Err(error) => {
            warn!(%error,
                "failed to set up the measurement of CPU utilisation: leases are balanced by throughput");
            None
        }
    }
}

/// Measures how busy the processors are.
#[derive(Debug)]
pub struct Gauge {
    source: Source,
    /// When a failure was told last.
    told: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    Host(host::Host),
    Cgroup(cgroup::Cgroup),
    Ecs(ecs::Ecs),
}

impl Gauge {
    /// What it measures by.
    pub fn name(&self) -> &'static str {
        match &self.source {
            Source::Host(_) => "host /proc/stat",
            Source::Cgroup(cgroup) => cgroup.name(),
            Source::Ecs(_) => "ECS task metadata",
        }
    }

    /// Percent, 0 to 100, since the last call; 0 at the first, of ECS since its own last look. None if this
    /// sample failed.
    pub async fn measure(&mut self, now: Instant) -> Option<f64> {
        let sample = match &mut self.source {
            Source::Host(host) => host.measure().await,
            Source::Cgroup(cgroup) => cgroup.measure(now).await,
            Source::Ecs(ecs) => ecs.measure().await,
        };
        match sample.and_then(within) {
            Ok(percent) => Some(percent),
            Err(error) => {
                self.tell(&error, now);
                None
            }
        }
    }

    fn tell(&mut self, error: &io::Error, now: Instant) {
        if self.told.is_some_and(|told| now < told + TOLD_EVERY) {
            debug!(%error, source = self.name(), "failed to measure CPU utilisation");
        } else {
            self.told = Some(now);
            warn!(%error, source = self.name(), "failed to measure CPU utilisation, retrying");
        }
    }
}

/// What a failure is told by. Nobody acts on its kind.
fn fault(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// NaN is not within. Java's check lets it pass, and its row is then never written.
fn within(percent: f64) -> io::Result<f64> {
    if (0.0..=100.0).contains(&percent) {
        Ok(percent)
    } else {
        Err(fault(format!("implausible CPU utilisation of {percent} percent")))
    }
}

/// Percent of the processors that may be used. More than all counts as all: it was lent, not granted.
fn of_limit(used: f64, limit: f64) -> f64 {
    let percent = used / limit * 100.0;
    // Not `min`, which makes 100 of NaN.
    if percent > 100.0 { 100.0 } else { percent }
}

/// A number of processors to divide by.
fn usable(limit: f64) -> Option<f64> {
    (limit.is_finite() && limit > 0.0).then_some(limit)
}

/// How many processors a list as `0-3,7` names.
fn listed(cpus: &str) -> Option<f64> {
    let mut sum = 0_u32;
    for group in cpus.trim().split(',') {
        let (first, last) = group.split_once('-').unwrap_or((group, group));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        sum = sum.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(f64::from(sum))
}

async fn first_line(file: &Path) -> io::Result<String> {
    match tokio::fs::read_to_string(file).await {
        Ok(text) => Ok(text.lines().next().unwrap_or_default().to_owned()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
    }
}

async fn exists(file: &Path) -> bool {
    tokio::fs::try_exists(file).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use made_up::Tree;

    #[test]
    fn only_percentages_are_samples() {
        for good in [0.0, 12.5, 100.0] {
            assert_eq!(within(good).unwrap(), good);
        }
        for bad in [-0.1, 100.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(within(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn more_than_the_limit_counts_as_all_of_it_but_nothing_of_nothing_does_not() {
        assert_eq!(of_limit(0.5, 2.0), 25.0);
        assert_eq!(of_limit(3.0, 2.0), 100.0);
        assert!(of_limit(0.0, 0.0).is_nan());
        assert_eq!(usable(0.25), Some(0.25));
        assert_eq!([0.0, -1.0, f64::NAN, f64::INFINITY].map(usable), [None; 4]);
    }

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, count) in [("0", 1.0), ("0-7", 8.0), ("0-3,7", 5.0), ("0-4,6,8-10\n", 9.0)] {
            assert_eq!(listed(list), Some(count), "{list}");
        }
        for list in ["", "a", "3-1", "0-", ",", "0-4294967295"] {
            assert_eq!(listed(list), None, "{list}");
        }
    }

    #[test]
    fn the_environment_names_the_surroundings() {
        let of = |pairs: &'static [(&str, &str)]| {
            Surroundings::of(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let plain = of(&[("ECS_CONTAINER_METADATA_URI_V4", ""), ("ECS_CONTAINER_METADATA_URI", "")]);
        assert_eq!((plain.root.as_path(), plain.ecs, plain.ecs_old), (Path::new("/"), None, false));
        assert_eq!(plain.imds.as_deref(), Some("http://169.254.169.254"));
        let ecs =
            of(&[("ECS_CONTAINER_METADATA_URI_V4", "http://x/v4"), ("ECS_CONTAINER_METADATA_URI", "y")]);
        assert_eq!((ecs.ecs.as_deref(), ecs.ecs_old), (Some("http://x/v4"), true));
        assert_eq!(of(&[("AWS_EC2_METADATA_DISABLED", "True")]).imds, None);
        assert!(of(&[("AWS_EC2_METADATA_DISABLED", "false")]).imds.is_some());
    }

    #[tokio::test]
    async fn a_failure_is_told_once_in_ten_minutes_and_a_later_sample_counts() {
        let tree = Tree::new(&[("proc/stat", "cpu 1 0 0 9 0\n")]);
        let source = Source::Host(host::Host::find(tree.root()).await.unwrap());
        let mut gauge = Gauge { source, told: None };
        let start = Instant::now();
        assert_eq!(gauge.measure(start).await, Some(0.0));
        tree.remove("proc/stat");
        for seconds in [1, 2, 599] {
            assert_eq!(gauge.measure(start + Duration::from_secs(seconds)).await, None);
            assert_eq!(gauge.told, Some(start + Duration::from_secs(1)));
        }
        assert_eq!(gauge.measure(start + Duration::from_secs(601)).await, None);
        assert_eq!(gauge.told, Some(start + Duration::from_secs(601)));
        tree.write("proc/stat", "cpu 2 0 0 10 0\n");
        assert_eq!(gauge.measure(start + Duration::from_secs(602)).await, Some(50.0));
    }
}
