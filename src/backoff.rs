//! Exponential backoff with jitter, so that callers that failed at the same time do not retry at the same
//! time.

use std::time::Duration;

/// Pauses of `base · 2^(attempt-1)`, at most `max`; the upper half of each is random.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first pause is between half of `base` and `base`.
    pub fn new(base: Duration, max: Duration, random: fastrand::Rng) -> Self {
        Self { base, max, attempt: 0, random }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.pause_up_to(self.max)
    }

    /// The next pause, with another maximum.
    pub fn pause_up_to(&mut self, max: Duration) -> Duration {
        let factor = 1u32.checked_shl(self.attempt.min(16)).unwrap_or(u32::MAX);
        self.attempt = self.attempt.saturating_add(1);
        let full = self.base.saturating_mul(factor).min(max);
        full.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// Resets after a success: the next pause is a first one.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_with_jitter() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut firsts = Vec::new();
        for seed in 0..200 {
            let mut backoff = Backoff::new(base, max, fastrand::Rng::with_seed(seed));
            for full in [100, 200, 400, 800, 1000, 1000] {
                let pause = backoff.pause().as_millis();
                assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
            }
            backoff.reset();
            firsts.push(backoff.pause());
        }
        let (low, high) = (firsts.iter().min().unwrap(), firsts.iter().max().unwrap());
        assert!(*low < Duration::from_millis(55) && *high > Duration::from_millis(95));
    }

    #[test]
    fn a_hundred_failures_do_not_overflow() {
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(5), fastrand::Rng::with_seed(1));
        for _ in 0..100 {
            assert!(backoff.pause() <= Duration::from_secs(5));
        }
    }
}
