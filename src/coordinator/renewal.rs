//! One lease kept alive, by a task of its own: nothing that happens to another lease, to a child or to a
//! log can hold it up.
//!
//! A checkpoint is a sign of life too and puts the next renewal off, so a busy shard costs no renewals. In
//! KCL: `DynamoDBLeaseRenewer`, whose passes wait for their slowest call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::backoff::Backoff;
use crate::lease::{Held, held};

/// Two fifths of the failover time: one renewal may fail altogether, and what fails is tried again at once.
/// Java's pause is a third less 25 ms, which costs a fifth more writes.
pub(super) fn pause(failover: Duration) -> Duration {
    (failover * 2 / 5).max(Duration::from_millis(1))
}

/// Keeps a worker's renewals evenly apart, so that it is never long without news of its rows, where its
/// peers call. Whoever comes long after the one before it comes a little earlier the next time; never later,
/// so that no lease is renewed less often.
#[derive(Debug)]
pub(super) struct Pace {
    /// When any lease was renewed last.
    last: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()) })
    }

    /// A renewal began: when is the same lease's next, of so many?
    fn next(&self, started: Instant, pause: Duration, leases: usize) -> Instant {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = started.saturating_duration_since(std::mem::replace(&mut *last, started));
        let even = pause / u32::try_from(leases.max(1)).unwrap_or(u32::MAX);
        let excess = gap.saturating_sub(even + even / 8);
        started + pause - (excess / 2).min(pause / 4)
    }
}

/// Renews until the lease is lost. A failure is retried with jitter until the lease expires.
pub(super) async fn keep(held: Arc<Held>, pause: Duration, first: Instant, pace: Arc<Pace>) {
    let mut backoff = Backoff::new(pause / 8, pause, fastrand::Rng::new());
    let mut known = held.proven();
    let mut next = first;
    loop {
        tokio::select! {
            biased;
            // Lost leases aren't renewed.
            () = held.lost().cancelled() => break,
            () = sleep_until(next.min(held.expires())) => {}
        }
        let proven = held.proven();
        if proven > std::mem::replace(&mut known, proven) && Instant::now() < proven + pause {
            next = proven + pause;
            continue;
        }
        let started = Instant::now();
        match held.renew().await {
            Ok(()) => {
                backoff.reset();
                // Every lease that is kept holds the pace, and the coordinator does.
                let leases = Arc::strong_count(&pace) - 1;
                (known, next) = (held.proven(), pace.next(started, pause, leases));
            }
            Err(held::Error::Lost) => {
                warn!(shard = %held.shard(), "the lease is lost");
                break;
            }
            Err(error) => {
                let again = backoff.pause();
                warn!(shard = %held.shard(), %error, ?again, "a renewal failed, will try again");
                next = Instant::now() + again;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn renewals_come_evenly_apart_after_some_rounds_and_then_keep_their_pace() {
        let pause = Duration::from_secs(4);
        let start = Instant::now();
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let leases = random.usize(2..10);
            let pace = Pace { last: Mutex::new(start) };
            // Next renewals, as they happen to come.
            let mut due: BTreeMap<(Instant, usize), ()> =
                (0..leases).map(|n| ((start + pause.mul_f64(random.f64() * 0.3), n), ())).collect();
            let mut times = Vec::new();
            for _ in 0..leases * 40 {
                let ((now, lease), ()) = due.pop_first().unwrap();
                times.push((now, lease));
                due.insert((pace.next(now, pause, leases), lease), ());
            }
            let settled = &times[leases * 30..];
            let longest = settled.windows(2).map(|two| two[1].0 - two[0].0).max().unwrap();
            let even = pause / u32::try_from(leases).unwrap();
            assert!(longest <= even.mul_f64(1.3), "{leases} leases: {longest:?}, evenly {even:?}");
            let mine: Vec<Instant> = settled.iter().filter(|(_, n)| *n == 0).map(|(at, _)| *at).collect();
            let periods: Vec<Duration> = mine.windows(2).map(|two| two[1] - two[0]).collect();
            assert!(
                periods.iter().all(|period| *period <= pause && *period > pause.mul_f64(0.9)),
                "{periods:?}"
            );
        }
    }
}
