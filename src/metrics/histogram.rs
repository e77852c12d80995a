//! Durations, counted by fixed limits.

use std::time::Duration;

/// The upper limits of the buckets, in seconds. The last bucket has none.
pub const LIMITS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A count of durations by bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket, each without the ones before it.
    counts: [u64; LIMITS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts a duration.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let index = LIMITS.partition_point(|limit| *limit < seconds);
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        self.sum += took;
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The limits in ascending order, each with the number of durations up to it. The last bucket, of all durations, is
    /// not among them.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        LIMITS.into_iter().zip(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_its_bucket_and_all_later_ones() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 999, 1_000, 300_000, 300_001] {
            histogram.add(Duration::from_millis(millis));
        }
        let up_to = |limit: f64| histogram.cumulative().find(|(found, _)| *found >= limit).unwrap().1;
        assert_eq!([up_to(0.001), up_to(0.0025), up_to(0.5), up_to(1.0), up_to(300.0)], [2, 3, 3, 5, 6]);
        assert_eq!((histogram.count(), histogram.sum()), (7, Duration::from_millis(602_003)));
        assert!(LIMITS.is_sorted());
    }
}
