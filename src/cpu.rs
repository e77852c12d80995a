//! The CPU utilisation of the machine or container that this process runs on, in percent: the load by which
//! the leader assigns leases.
//!
//! The platform is detected once. Without a gauge the leader assigns leases by throughput, which is no
//! failure. A gauge that never works is worse than none: a worker whose samples all fail is assigned no
//! leases. So files are read on trial and ECS metadata without a CPU share are detected before a gauge is
//! returned (Java reports failures, or writes no row at all). A sample is never NaN.
//!
//! In KCL: `WorkerMetricsSelector`, `OperatingRangeDataProvider`, `WorkerMetric`.

mod cgroup;
mod ecs;
mod host;
mod http;
#[cfg(test)]
mod made_up;
mod platform;
mod reading;
mod surroundings;

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use platform::Platform;
use reading::fault;
pub use surroundings::Surroundings;

/// Failures of a gauge are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(600);

/// Detects the platform and returns its gauge; none if the platform is unknown or its gauge does not work.
/// Takes at most a few seconds.
pub async fn detect(surroundings: &Surroundings) -> Option<Gauge> {
    if !cfg!(target_os = "linux") {
        info!(
            event = "cpu_not_measured",
            "CPU utilisation is measured only on Linux: leases are balanced by throughput"
        );
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
                event = "cpu_not_measured",
                "CPU utilisation is not measured (found neither ECS, Kubernetes nor EC2): leases are \
                 balanced by throughput"
            );
            return None;
        }
    };
    match found {
        Ok(source) => Some(Gauge { source, last_logged: None }),
        Err(error) => {
            warn!(event = "cpu_not_measured", %error,
                "failed to set up the measurement of CPU utilisation: leases are balanced by throughput");
            None
        }
    }
}

/// Measures the CPU utilisation.
#[derive(Debug)]
pub struct Gauge {
    source: Source,
    /// When a failure was last logged.
    last_logged: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    Host(host::Host),
    Cgroup(cgroup::Cgroup),
    Ecs(ecs::Ecs),
}

impl Gauge {
    /// The source of the measurement, for logs.
    pub fn name(&self) -> &'static str {
        match &self.source {
            Source::Host(_) => "host /proc/stat",
            Source::Cgroup(cgroup) => cgroup.name(),
            Source::Ecs(_) => "ECS task metadata",
        }
    }

    /// Utilisation since the last call in percent, 0 to 100. 0 at the first call; for ECS since its own
    /// previous sample. None if the sample failed.
    pub async fn measure(&mut self, now: Instant) -> Option<f64> {
        let sample = match &mut self.source {
            Source::Host(host) => host.measure().await,
            Source::Cgroup(cgroup) => cgroup.measure(now).await,
            Source::Ecs(ecs) => ecs.measure().await,
        };
        match sample.and_then(within) {
            Ok(percent) => Some(percent),
            Err(error) => {
                self.log_failure(&error, now);
                None
            }
        }
    }

    fn log_failure(&mut self, error: &io::Error, now: Instant) {
        if self.last_logged.is_some_and(|last_logged| now < last_logged + LOG_INTERVAL) {
            debug!(%error, source = self.name(), "failed to measure CPU utilisation");
        } else {
            self.last_logged = Some(now);
            warn!(event = "cpu_measurement_failed", %error, source = self.name(),
                "failed to measure CPU utilisation, retrying");
        }
    }
}

/// NaN is rejected. Java's check accepts it, and its row is then never written.
fn within(percent: f64) -> io::Result<f64> {
    if (0.0..=100.0).contains(&percent) {
        Ok(percent)
    } else {
        Err(fault(format!("implausible CPU utilisation of {percent} percent")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use made_up::Tree;

    #[test]
    fn sample_outside_0_to_100_is_rejected() {
        for good in [0.0, 12.5, 100.0] {
            assert_eq!(within(good).unwrap(), good);
        }
        for bad in [-0.1, 100.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(within(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn failure_is_logged_every_ten_minutes_and_measuring_continues() {
        let tree = Tree::new(&[("proc/stat", "cpu 1 0 0 9 0\n")]);
        let source = Source::Host(host::Host::find(tree.root()).await.unwrap());
        let mut gauge = Gauge { source, last_logged: None };
        let start = Instant::now();
        assert_eq!(gauge.measure(start).await, Some(0.0));
        tree.remove("proc/stat");
        for seconds in [1, 2, 599] {
            assert_eq!(gauge.measure(start + Duration::from_secs(seconds)).await, None);
            assert_eq!(gauge.last_logged, Some(start + Duration::from_secs(1)));
        }
        assert_eq!(gauge.measure(start + Duration::from_secs(601)).await, None);
        assert_eq!(gauge.last_logged, Some(start + Duration::from_secs(601)));
        tree.write("proc/stat", "cpu 2 0 0 10 0\n");
        assert_eq!(gauge.measure(start + Duration::from_secs(602)).await, Some(50.0));
    }
}
