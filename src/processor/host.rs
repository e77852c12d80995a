//! The use of a whole machine, by `/proc/stat`. In KCL: `LinuxCpuWorkerMetric`, which leaves interrupts and stolen
//! time out.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    total: u64,
    idle: u64,
}

/// One machine.
#[derive(Debug)]
pub(super) struct Host {
    path: PathBuf,
    last: Option<Ticks>,
}

impl Host {
    pub(super) fn new(root: &Path) -> Self {
        Self { path: root.join("proc/stat"), last: None }
    }

    pub(super) fn measure(&mut self) -> Option<f64> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let now = ticks(&text)?;
        let last = self.last.replace(now);
        Some(last.map_or(0.0, |last| busy(last, now)))
    }
}

/// Of the first line: user and nice, system, idle, waiting.
fn ticks(text: &str) -> Option<Ticks> {
    let mut words = text.lines().next()?.split_whitespace();
    if words.next() != Some("cpu") {
        return None;
    }
    let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).take(5).collect();
    let [user, nice, system, idle, waiting] = numbers[..] else { return None };
    Some(Ticks { total: user + nice + system + idle + waiting, idle })
}

#[expect(clippy::cast_precision_loss, reason = "percent of a second's ticks")]
fn busy(last: Ticks, now: Ticks) -> f64 {
    let total = now.total.saturating_sub(last.total);
    let idle = now.idle.saturating_sub(last.idle);
    // Waiting may go back.
    if total == 0 || total < idle { 0.0 } else { (total - idle) as f64 / total as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_idle_is_busy() {
        let at = |text| ticks(text).unwrap();
        let start = at("cpu  100 10 40 800 50 7 7 7\nirrelevant\n");
        assert_eq!(start, Ticks { total: 1_000, idle: 800 });
        assert!((busy(start, at("cpu 120 10 50 860 60 99 99 99")) - 40.0).abs() < 1e-9);
        assert!(busy(start, start).abs() < 1e-9);
        assert!(busy(start, at("cpu 100 10 40 860 0")).abs() < 1e-9, "waiting went back");
        assert_eq!(ticks("cpu0 1 2 3 4 5"), None);
        assert_eq!(ticks("cpu 1 2 3"), None);
    }
}
