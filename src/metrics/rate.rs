//! Rates of the last minute, from single events, without a history.

use std::time::Duration;

use tokio::time::Instant;

/// After this time an event counts by a factor of e less.
const DECAY: Duration = Duration::from_secs(30);
/// A rate is measured for at least this long.
const LEAST: Duration = Duration::from_secs(1);

/// A sum whose parts decay exponentially.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    sum: f64,
    /// When the sum was last brought up to date, and when the measurement began.
    times: Option<(Instant, Instant)>,
}

impl Rate {
    /// A measurement that begins at `now`.
    pub fn since(now: Instant) -> Self {
        Self { sum: 0.0, times: Some((now, now)) }
    }

    /// Counts something at `now`.
    pub fn add(&mut self, now: Instant, count: usize) {
        let began = self.times.map_or(now, |(_, began)| began);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = count as f64;
        self.sum = self.sum_at(now) + count;
        self.times = Some((now, began));
    }

    fn sum_at(&self, now: Instant) -> f64 {
        let Some((at, _)) = self.times else { return 0.0 };
        let past = now.saturating_duration_since(at);
        self.sum * (-past.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    /// The rate per second at `now`.
    pub fn per_second(&self, now: Instant) -> f64 {
        let Some((_, began)) = self.times else { return 0.0 };
        let measured = now.saturating_duration_since(began).max(LEAST).as_secs_f64();
        // The integral of the weights since the measurement began.
        let decay = DECAY.as_secs_f64();
        self.sum_at(now) / (decay * (1.0 - (-measured / decay).exp()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate after so many seconds with 50 events in each.
    fn steady(seconds: u32) -> (Rate, Instant) {
        let start = Instant::now();
        let mut rate = Rate::since(start);
        let mut now = start;
        for _ in 0..seconds {
            now += Duration::from_secs(1);
            rate.add(now, 50);
        }
        (rate, now)
    }

    #[test]
    fn steady_rate_is_measured_from_the_first_second_on() {
        for seconds in [1, 2, 10, 60, 1_000] {
            let (rate, now) = steady(seconds);
            let measured = rate.per_second(now);
            assert!((49.0..53.0).contains(&measured), "{measured} after {seconds} s");
        }
    }

    #[test]
    fn rate_falls_to_zero_after_the_last_event() {
        let (rate, now) = steady(60);
        let after = |seconds| rate.per_second(now + Duration::from_secs(seconds));
        assert!((20.0..40.0).contains(&after(20)), "{}", after(20));
        assert!(after(300) < 0.01, "{}", after(300));
        assert!(Rate::default().per_second(now).abs() < f64::EPSILON);
    }
}
