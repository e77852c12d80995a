//! The use of a container, by its control group, as part of what it may use. In KCL: `Cgroupv1CpuWorkerMetric`,
//! `Cgroupv2CpuWorkerMetric`.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One container.
#[derive(Debug)]
pub(super) struct Cgroup {
    base: PathBuf,
    version: Version,
    /// Processors that it may use; read once.
    limit: Option<f64>,
    /// Seconds used so far, and when that was read.
    last: Option<(f64, Instant)>,
}

impl Cgroup {
    pub(super) fn find(root: &Path) -> Option<Self> {
        let base = root.join("sys/fs/cgroup");
        let version = if base.join("cgroup.controllers").exists() {
            Version::Two
        } else if base.join("memory").exists() || base.join("cpu").exists() {
            Version::One
        } else {
            return None;
        };
        Some(Self { base, version, limit: None, last: None })
    }

    pub(super) fn measure(&mut self, now: Instant) -> Option<f64> {
        let limit = match self.limit {
            Some(limit) => limit,
            None => *self.limit.insert(self.read_limit()?),
        };
        let used = self.used()?;
        let Some((before, at)) = self.last.replace((used, now)) else { return Some(0.0) };
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if seconds <= 0.0 {
            return Some(0.0);
        }
        Some(((used - before).max(0.0) / seconds / limit * 100.0).min(100.0))
    }

    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.base.join(name)).ok().map(|text| text.trim().to_owned())
    }

    /// In seconds.
    fn used(&self) -> Option<f64> {
        match self.version {
            Version::One => self.text("cpu/cpuacct.usage")?.parse::<f64>().ok().map(|nanos| nanos / 1e9),
            Version::Two => {
                let text = self.text("cpu.stat")?;
                let micros = text.lines().next()?.strip_prefix("usage_usec ")?;
                micros.trim().parse::<f64>().ok().map(|micros| micros / 1e6)
            }
        }
    }

    fn read_limit(&self) -> Option<f64> {
        let (quota, period, set) = match self.version {
            Version::One => (
                self.text("cpu/cpu.cfs_quota_us")?,
                self.text("cpu/cpu.cfs_period_us")?,
                "cpuset/cpuset.effective_cpus",
            ),
            Version::Two => {
                let text = self.text("cpu.max")?;
                let (quota, period) = text.split_once(' ')?;
                (quota.to_owned(), period.to_owned(), "cpuset.cpus.effective")
            }
        };
        let limit = if quota == "max" || quota.starts_with('-') {
            processors(&self.text(set)?)?
        } else {
            quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?
        };
        (limit.is_finite() && limit > 0.0).then_some(limit)
    }
}

/// How many a list such as `0-3,7` names.
fn processors(list: &str) -> Option<f64> {
    let mut count = 0_u32;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Tree;
    use super::*;
    use std::time::Duration;

    /// Half a second of processor time within a second.
    fn measured(tree: &Tree, usage: &str, later: &str) -> f64 {
        let mut cgroup = Cgroup::find(&tree.0).unwrap();
        let now = Instant::now();
        assert_eq!(cgroup.measure(now), Some(0.0));
        tree.write(usage, later);
        cgroup.measure(now + Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn version_two_goes_by_its_quota_or_by_its_processors() {
        for (max, percent) in [("50000 100000", 100.0), ("100000 100000", 50.0), ("max 100000", 10.0)] {
            let tree = Tree::new(&[
                ("sys/fs/cgroup/cgroup.controllers", ""),
                ("sys/fs/cgroup/cpu.max", max),
                ("sys/fs/cgroup/cpuset.cpus.effective", "0-3,7\n"),
                ("sys/fs/cgroup/cpu.stat", "usage_usec 1000000\nuser_usec 1\n"),
            ]);
            let seen = measured(&tree, "sys/fs/cgroup/cpu.stat", "usage_usec 1500000\nuser_usec 1\n");
            assert!((seen - percent).abs() < 1e-6, "{max}: {seen}");
        }
    }

    #[test]
    fn version_one_goes_by_its_quota_or_by_its_processors_and_never_past_all_of_it() {
        for (quota, percent) in [("100000", 50.0), ("-1", 25.0), ("10000", 100.0)] {
            let tree = Tree::new(&[
                ("sys/fs/cgroup/memory/x", ""),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpuset/cpuset.effective_cpus", "0,2"),
                ("sys/fs/cgroup/cpu/cpuacct.usage", "1000000000\n"),
            ]);
            let seen = measured(&tree, "sys/fs/cgroup/cpu/cpuacct.usage", "1500000000\n");
            assert!((seen - percent).abs() < 1e-6, "{quota}: {seen}");
        }
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(processors("0-3,7"), Some(5.0));
        assert_eq!(processors("2"), Some(1.0));
        assert_eq!(processors("3-1"), None);
        assert_eq!(processors(""), None);
    }
}
