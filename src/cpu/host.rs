//! CPU utilisation of the whole machine by `/proc/stat`. In KCL: `LinuxCpuWorkerMetric`.

use std::io;
use std::path::{Path, PathBuf};

use super::reading::{fault, first_line};

#[derive(Debug)]
pub(super) struct Host {
    file: PathBuf,
    last: Option<Ticks>,
}

/// CPU time since the start of the machine. Interrupts and stolen time are left out, as in Java, because all
/// workers of a fleet must measure alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    idle: u64,
    iowait: u64,
}

impl Host {
    pub(super) async fn find(root: &Path) -> io::Result<Self> {
        let host = Self { file: root.join("proc/stat"), last: None };
        host.read().await?;
        Ok(host)
    }

    pub(super) async fn measure(&mut self) -> io::Result<f64> {
        let now = self.read().await?;
        Ok(self.last.replace(now).map_or(0.0, |last| percent(last, now)))
    }

    async fn read(&self) -> io::Result<Ticks> {
        let line = first_line(&self.file).await?;
        Ticks::parse(&line).ok_or_else(|| fault(format!("{}: {line:?}", self.file.display())))
    }
}

impl Ticks {
    fn parse(line: &str) -> Option<Self> {
        let numbers = line.strip_prefix("cpu ")?.split_ascii_whitespace().take(5);
        let numbers: Vec<u64> = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [user, nice, system, idle, iowait] = numbers[..] else { return None };
        Some(Self { busy: user.checked_add(nice)?.checked_add(system)?, idle, iowait })
    }

    fn total(self) -> u64 {
        self.busy.saturating_add(self.idle).saturating_add(self.iowait)
    }
}

/// The result can be no percentage: the counters sometimes decrease, and the kernel documents that for idle
/// and iowait.
fn percent(last: Ticks, now: Ticks) -> f64 {
    let total = now.total().abs_diff(last.total());
    let idle = now.idle.abs_diff(last.idle);
    // If iowait decreases on an idle machine, the total is less than the time that passed.
    let taken_back = total < idle && now.iowait < last.iowait;
    if now == last || taken_back {
        return 0.0;
    }
    (total as f64 - idle as f64) / total as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::super::made_up::Tree;
    use super::super::within;
    use super::*;

    fn ticks(line: &str) -> Ticks {
        Ticks::parse(line).unwrap()
    }

    #[test]
    fn first_five_numbers_are_parsed() {
        let read = ticks("cpu  10 2 30 400 5 60 70 80 90 0");
        assert_eq!(read, Ticks { busy: 42, idle: 400, iowait: 5 });
        for line in ["", "cpu 1 2 3 4", "cpu 1 2 x 4 5", "cpu0 1 2 3 4 5", "intr 1 2 3 4 5"] {
            assert_eq!(Ticks::parse(line), None, "{line}");
        }
    }

    #[test]
    fn iowait_counts_as_busy_and_interrupts_are_ignored() {
        let last = ticks("cpu 100 0 100 1000 50 7 7 7");
        assert_eq!(percent(last, ticks("cpu 110 5 105 1060 70 9999 9 9")), 40.0);
        assert_eq!(percent(last, ticks("cpu 100 0 100 1100 50 7 7 7")), 0.0);
        assert_eq!(percent(last, ticks("cpu 120 0 100 1000 50 7 7 7")), 100.0);
    }

    #[test]
    fn unchanged_or_decreased_iowait_is_zero_percent() {
        let last = ticks("cpu 100 0 100 1000 50");
        assert_eq!(percent(last, ticks("cpu 100 0 100 1000 50 1 1")), 0.0);
        assert_eq!(percent(last, ticks("cpu 100 0 100 1100 40")), 0.0);
        assert_eq!(percent(last, ticks("cpu 100 0 100 1010 40")), 0.0, "no time went by, it seems");
    }

    #[test]
    fn other_decreases_are_no_sample() {
        let last = ticks("cpu 100 0 100 1000 50");
        for line in ["cpu 90 0 100 1020 50", "cpu 100 0 100 999 51", "cpu 99 0 100 1000 51"] {
            assert!(within(percent(last, ticks(line))).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn first_sample_is_zero() {
        let tree = Tree::new(&[("proc/stat", "cpu  100 0 0 900 0 0 0 0\ncpu0 1 1 1 1 1\n")]);
        let mut host = Host::find(tree.root()).await.unwrap();
        assert_eq!(host.measure().await.unwrap(), 0.0);
        tree.write("proc/stat", "cpu  125 0 0 975 0 0 0 0\n");
        assert_eq!(host.measure().await.unwrap(), 25.0);
        assert_eq!(host.measure().await.unwrap(), 0.0);
    }

    #[tokio::test]
    async fn unreadable_file_is_named_in_the_error() {
        let tree = Tree::new(&[("proc/stat", "nonsense")]);
        let error = Host::find(tree.root()).await.unwrap_err().to_string();
        assert!(error.contains("proc/stat") && error.contains("nonsense"), "{error}");
        tree.remove("proc/stat");
        let error = Host::find(tree.root()).await.unwrap_err().to_string();
        assert!(error.contains("proc/stat"), "{error}");
    }
}
