//! The service's limits per shard, to simulate throttling.
//!
//! A limit is a bucket that holds the amount of one second and drains at its rate: a call that would make it
//! overflow is refused. Reading is the exception that AWS documents: one GetRecords call may return more than
//! the amount of a second, and the next calls are refused until the excess has drained.
//! <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>

use tokio::time::Instant;

const READ_CALLS: f64 = 5.0;
const READ_BYTES: f64 = 2.0 * 1024.0 * 1024.0;
const WRITE_RECORDS: f64 = 1000.0;
const WRITE_BYTES: f64 = 1024.0 * 1024.0;

/// The state of a shard's limits.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    read_calls: Bucket,
    read_bytes: Bucket,
    write_records: Bucket,
    write_bytes: Bucket,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            read_calls: Bucket::new(READ_CALLS, now),
            read_bytes: Bucket::new(READ_BYTES, now),
            write_records: Bucket::new(WRITE_RECORDS, now),
            write_bytes: Bucket::new(WRITE_BYTES, now),
        }
    }

    /// Whether a record of this many bytes may be written; counts it if so.
    pub(super) fn write(&mut self, bytes: usize, now: Instant) -> bool {
        let fits = self.write_records.fits(1.0, now) && self.write_bytes.fits(bytes as f64, now);
        if fits {
            self.write_records.fill(1.0);
            self.write_bytes.fill(bytes as f64);
        }
        fits
    }

    /// Whether a GetRecords call may be made; counts it if so.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let fits = self.read_calls.fits(1.0, now) && self.read_bytes.fits(0.0, now);
        if fits {
            self.read_calls.fill(1.0);
        }
        fits
    }

    /// Counts the bytes returned by a call.
    pub(super) fn has_read(&mut self, bytes: usize) {
        self.read_bytes.fill(bytes as f64);
    }
}

#[derive(Clone, Debug)]
struct Bucket {
    a_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    const fn new(a_second: f64, at: Instant) -> Self {
        Self { a_second, level: 0.0, at }
    }

    fn fits(&mut self, amount: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level - passed * self.a_second).max(0.0);
        self.at = now;
        // A record larger than the whole bucket is accepted when the bucket is empty.
        self.level + amount <= self.a_second || self.level == 0.0
    }

    fn fill(&mut self, amount: f64) {
        self.level += amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sixth_read_in_a_second_is_refused() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        assert_eq!((0..6).filter(|_| limits.read(start)).count(), 5);
        assert!(limits.read(start + Duration::from_millis(201)));
    }

    #[test]
    fn large_answer_blocks_the_next_reads() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        assert!(limits.read(start));
        limits.has_read(10 * 1024 * 1024);
        assert!(!limits.read(start + Duration::from_secs(3)));
        assert!(limits.read(start + Duration::from_secs(5)));
    }

    #[test]
    fn shard_accepts_a_thousand_records_a_second() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        assert_eq!((0..1500).filter(|_| limits.write(10, start)).count(), 1000);
    }
}
