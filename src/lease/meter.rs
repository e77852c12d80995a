//! The throughput of a lease, by which a leader balances.
//!
//! In KCL: `LeaseStatsRecorder`. There the time between two renewals is assumed; here it is measured.

use tokio::time::Instant;

use super::Throughput;

/// Weight of the newest measurement.
const ALPHA: f64 = 0.5;

/// Counts the bytes that are delivered to a record processor.
#[derive(Debug)]
pub struct Meter {
    since: Instant,
    bytes: u64,
    average: Option<f64>,
}

impl Meter {
    /// A meter that continues with the measurement of the previous owner.
    pub fn new(now: Instant, before: Option<Throughput>) -> Self {
        Self { since: now, bytes: 0, average: before.map(Throughput::kilobytes) }
    }

    /// Counts delivered bytes.
    pub fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The average until now; starts a new measurement. None if no bytes were ever delivered.
    pub fn read(&mut self, now: Instant) -> Option<Throughput> {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        if seconds > 0.5 && (self.bytes > 0 || self.average.is_some()) {
            #[expect(clippy::cast_precision_loss, reason = "an average")]
            let rate = self.bytes as f64 / 1024.0 / seconds;
            self.average = Some(self.average.map_or(rate, |average| ALPHA * rate + (1.0 - ALPHA) * average));
            (self.since, self.bytes) = (now, 0);
        }
        self.average.map(Throughput::from_kilobytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn average_continues_from_the_previous_owner() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut meter = Meter::new(start, Some(Throughput::from_kilobytes(8.0)));
        meter.count(4 * 1024);
        let read = |meter: &mut Meter, at| meter.read(at).map(Throughput::kilobytes);
        assert_eq!(read(&mut meter, start + second), Some(6.0));
        assert_eq!(read(&mut meter, start + second * 2), Some(3.0));
        let mut new = Meter::new(start, None);
        assert_eq!(read(&mut new, start + second), None, "nothing went through");
        new.count(1024);
        assert_eq!(read(&mut new, start + second), Some(1.0));
    }
}
