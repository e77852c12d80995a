//! The reading of numbers that all gauges share: files, CPUs, and shares of a limit.

use std::io;
use std::path::Path;

/// A failure of a gauge. Its kind has no effect.
pub(super) fn fault(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

pub(super) async fn exists(file: &Path) -> bool {
    tokio::fs::try_exists(file).await.unwrap_or(false)
}

/// Utilisation of the granted CPUs in percent. More than 100 % counts as 100: the surplus was borrowed, not
/// granted.
pub(super) fn of_limit(used: f64, limit: f64) -> f64 {
    let percent = used / limit * 100.0;
    // `min` would turn NaN into 100.
    if percent > 100.0 { 100.0 } else { percent }
}

/// The number of CPUs, if it can be a divisor.
pub(super) fn usable(limit: f64) -> Option<f64> {
    (limit.is_finite() && limit > 0.0).then_some(limit)
}

/// The number of CPUs in a list such as `0-3,7`.
pub(super) fn listed(cpus: &str) -> Option<f64> {
    let mut sum = 0_u32;
    for group in cpus.trim().split(',') {
        let (first, last) = group.split_once('-').unwrap_or((group, group));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        sum = sum.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(f64::from(sum))
}

pub(super) async fn first_line(file: &Path) -> io::Result<String> {
    match tokio::fs::read_to_string(file).await {
        Ok(text) => Ok(text.lines().next().unwrap_or_default().to_owned()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_above_the_limit_is_100_percent_and_zero_over_zero_is_no_sample() {
        assert_eq!(of_limit(0.5, 2.0), 25.0);
        assert_eq!(of_limit(3.0, 2.0), 100.0);
        assert!(of_limit(0.0, 0.0).is_nan());
        assert_eq!(usable(0.25), Some(0.25));
        assert_eq!([0.0, -1.0, f64::NAN, f64::INFINITY].map(usable), [None; 4]);
    }

    #[test]
    fn cpu_lists_are_counted() {
        for (list, count) in [("0", 1.0), ("0-7", 8.0), ("0-3,7", 5.0), ("0-4,6,8-10\n", 9.0)] {
            assert_eq!(listed(list), Some(count), "{list}");
        }
        for list in ["", "a", "3-1", "0-", ",", "0-4294967295"] {
            assert_eq!(listed(list), None, "{list}");
        }
    }
}
