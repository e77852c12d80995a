//! CPU utilisation of a container by its control group: the CPU time used, relative to the time that its
//! limit allows. In KCL: `Cgroupv1CpuWorkerMetric`, `Cgroupv2CpuWorkerMetric`, `Cgroup`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::reading::{exists, fault, first_line, listed, of_limit, usable};

#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    folder: PathBuf,
    /// Number of CPUs that may be used. Read once, as in Java.
    limit: f64,
    /// When the last sample was taken, and the CPU time used until then.
    last: Option<(Instant, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    pub(super) async fn find(root: &Path) -> io::Result<Self> {
        let folder = root.join("sys/fs/cgroup");
        let version = if exists(&folder.join("cgroup.controllers")).await {
            Version::Two
        } else if exists(&folder.join("memory")).await || exists(&folder.join("cpu")).await {
            Version::One
        } else {
            return Err(fault(format!("found no control groups in {}", folder.display())));
        };
        let limit = version.limit(&folder).await?;
        version.used(&folder).await?;
        Ok(Self { version, folder, limit, last: None })
    }

    pub(super) fn name(&self) -> &'static str {
        match self.version {
            Version::One => "cgroup v1",
            Version::Two => "cgroup v2",
        }
    }

    pub(super) async fn measure(&mut self, now: Instant) -> io::Result<f64> {
        let used = self.version.used(&self.folder).await?;
        let Some((then, before)) = self.last.replace((now, used)) else { return Ok(0.0) };
        let passed = now.saturating_duration_since(then);
        match used.checked_sub(before) {
            Some(_) if passed.is_zero() => Err(fault("no time passed since the last sample of the cgroup")),
            Some(more) => Ok(of_limit(more.as_secs_f64() / passed.as_secs_f64(), self.limit)),
            None => Err(fault(format!("the CPU time decreased from {before:?} to {used:?}"))),
        }
    }
}

impl Version {
    /// The number of CPUs that may be used, including fractions.
    async fn limit(self, folder: &Path) -> io::Result<f64> {
        let (limit, list) = match self {
            Self::One => {
                let quota = first_line(&folder.join("cpu/cpu.cfs_quota_us")).await?;
                let period = first_line(&folder.join("cpu/cpu.cfs_period_us")).await?;
                (format!("{} {}", quota.trim(), period.trim()), "cpuset/cpuset.effective_cpus")
            }
            Self::Two => (first_line(&folder.join("cpu.max")).await?, "cpuset.cpus.effective"),
        };
        let (quota, period) = limit.trim().split_once(' ').unwrap_or((&limit, ""));
        let (count, said) = if quota == self.unlimited() {
            let cpus = first_line(&folder.join(list)).await?;
            (listed(&cpus), format!("{list} {cpus:?}"))
        } else {
            let number = |text: &str| text.parse::<f64>().ok();
            (number(quota).zip(number(period)).map(|(quota, period)| quota / period), limit.clone())
        };
        count.and_then(usable).ok_or_else(|| fault(format!("no CPU limit: {said}")))
    }

    fn unlimited(self) -> &'static str {
        match self {
            Self::One => "-1",
            Self::Two => "max",
        }
    }

    /// CPU time that the group has used on all CPUs.
    async fn used(self, folder: &Path) -> io::Result<Duration> {
        let file = folder.join(match self {
            Self::One => "cpu/cpuacct.usage",
            Self::Two => "cpu.stat",
        });
        let line = first_line(&file).await?;
        let used = match self {
            Self::One => line.trim().parse().ok().map(Duration::from_nanos),
            Self::Two => line
                .strip_prefix("usage_usec ")
                .and_then(|micros| micros.trim().parse().ok())
                .map(Duration::from_micros),
        };
        used.ok_or_else(|| fault(format!("{}: {line:?}", file.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::Tree;
    use super::*;

    const QUOTA: &str = "sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    const PERIOD: &str = "sys/fs/cgroup/cpu/cpu.cfs_period_us";
    const USAGE: &str = "sys/fs/cgroup/cpu/cpuacct.usage";
    const LIST: &str = "sys/fs/cgroup/cpuset/cpuset.effective_cpus";
    const MARK: &str = "sys/fs/cgroup/cgroup.controllers";
    const MAX: &str = "sys/fs/cgroup/cpu.max";
    const STAT: &str = "sys/fs/cgroup/cpu.stat";
    const LIST_TWO: &str = "sys/fs/cgroup/cpuset.cpus.effective";

    fn one(quota: &str) -> Tree {
        Tree::new(&[(QUOTA, quota), (PERIOD, "100000\n"), (USAGE, "1000000000\n"), (LIST, "0-3,7\n")])
    }

    fn two(max: &str) -> Tree {
        let stat = "usage_usec 5000000\nuser_usec 1\nsystem_usec 2\n";
        Tree::new(&[(MARK, "cpu\n"), (MAX, max), (STAT, stat), (LIST_TWO, "0-1\n")])
    }

    async fn found(tree: &Tree) -> (&'static str, f64) {
        let cgroup = Cgroup::find(tree.root()).await.unwrap();
        (cgroup.name(), cgroup.limit)
    }

    async fn refused(tree: &Tree, why: &str) {
        let error = Cgroup::find(tree.root()).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[tokio::test]
    async fn limit_is_the_quota_or_else_the_cpu_set() {
        assert_eq!(found(&one("150000\n")).await, ("cgroup v1", 1.5));
        assert_eq!(found(&one("-1\n")).await, ("cgroup v1", 5.0));
        assert_eq!(found(&two("50000 100000\n")).await, ("cgroup v2", 0.5));
        assert_eq!(found(&two("max 100000\n")).await, ("cgroup v2", 2.0));
    }

    #[tokio::test]
    async fn version_2_precedes_version_1() {
        let tree = two("max 100000\n");
        tree.write(USAGE, "1");
        assert_eq!(found(&tree).await.0, "cgroup v2");
    }

    #[tokio::test]
    async fn unusable_or_unreadable_limit_is_rejected() {
        for quota in ["0", "-2", "x", ""] {
            refused(&one(quota), "no CPU limit").await;
            refused(&two(&format!("{quota} 100000")), "no CPU limit").await;
        }
        refused(&two("50000 0"), "no CPU limit").await;
        refused(&two("50000"), "no CPU limit").await;
        let tree = two("max 100000");
        tree.write(LIST_TWO, "\n");
        refused(&tree, "cpuset.cpus.effective").await;
        tree.remove(MAX);
        refused(&tree, "cpu.max").await;
        let tree = two("max 100000");
        tree.write(STAT, "user_usec 1\n");
        refused(&tree, "cpu.stat").await;
        refused(&Tree::new(&[("sys/fs/cgroup/pids/x", "")]), "no control groups").await;
    }

    #[tokio::test]
    async fn sample_is_used_time_over_allowed_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let tree = one("200000");
        let mut cgroup = Cgroup::find(tree.root()).await.unwrap();
        assert_eq!(cgroup.measure(at(0)).await.unwrap(), 0.0);
        tree.write(USAGE, "1500000000");
        assert_eq!(cgroup.measure(at(1000)).await.unwrap(), 25.0);
        tree.write(USAGE, "9500000000");
        assert_eq!(cgroup.measure(at(2000)).await.unwrap(), 100.0, "a burst is capped");
        let tree = two("50000 100000");
        let mut cgroup = Cgroup::find(tree.root()).await.unwrap();
        assert_eq!(cgroup.measure(at(0)).await.unwrap(), 0.0);
        tree.write(STAT, "usage_usec 5250000\n");
        assert_eq!(cgroup.measure(at(2000)).await.unwrap(), 25.0);
    }

    #[tokio::test]
    async fn sample_fails_without_elapsed_time_or_with_counter_reset() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let tree = one("100000");
        let mut cgroup = Cgroup::find(tree.root()).await.unwrap();
        assert_eq!(cgroup.measure(start).await.unwrap(), 0.0);
        assert!(cgroup.measure(start).await.is_err());
        tree.write(USAGE, "0");
        assert!(cgroup.measure(start + second).await.is_err());
        tree.write(USAGE, "500000000");
        assert_eq!(cgroup.measure(start + second * 2).await.unwrap(), 50.0);
    }
}
