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

/// In a pause there are so many times for renewals at least, if there are as many leases.
const TIMES: usize = 8;
/// So many leases have one of them in common. After a little while of doing nothing a processor needs several times
/// as long for the first of them as for the next: its caches hold something else by then.
const TOGETHER: usize = 4;

/// Keeps a worker's renewals evenly apart, so that it is never long without news of its rows, where its
/// peers call; those of many leases a few together. Whoever comes long after the one before it comes a little
/// earlier the next time; never later, so that no lease is renewed less often.
#[derive(Debug)]
pub(super) struct Pace {
    begin: Instant,
    /// When any lease was renewed last.
    last: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { begin: now, last: Mutex::new(now) })
    }

    /// A renewal began: when is the same lease's next, of so many?
    fn next(&self, started: Instant, pause: Duration, leases: usize) -> Instant {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = started.saturating_duration_since(std::mem::replace(&mut *last, started));
        let times = leases.clamp(1, TIMES.max(leases / TOGETHER));
        let even = pause / u32::try_from(times).unwrap_or(u32::MAX);
        let excess = gap.saturating_sub(even + even / 8);
        let next = started + pause - (excess / 2).min(pause / 4);
        if times == leases { next } else { self.at_a_time(next, even) }
    }

    /// The last common time before that.
    fn at_a_time(&self, next: Instant, even: Duration) -> Instant {
        let since = next.saturating_duration_since(self.begin).as_nanos();
        let beyond = since.checked_rem(even.as_nanos()).unwrap_or_default();
        next - Duration::from_nanos(u64::try_from(beyond).unwrap_or_default())
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
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn renewals_come_evenly_apart_after_some_rounds_and_then_keep_their_pace() {
        let pause = Duration::from_secs(4);
        let start = Instant::now();
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let leases = random.usize(2..if seed % 2 == 0 { 10 } else { 100 });
            let pace = Pace { begin: start, last: Mutex::new(start) };
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
            let common = leases.min(8.max(leases / 4));
            let even = pause / u32::try_from(common).unwrap();
            assert!(longest <= even.mul_f64(1.3), "{leases} leases: {longest:?}, evenly {even:?}");
            let different: BTreeSet<Instant> = settled.iter().map(|(at, _)| *at).collect();
            assert!(different.len() <= 10 * common + 1, "{leases} leases: {} times", different.len());
            let mine: Vec<Instant> = settled.iter().filter(|(_, n)| *n == 0).map(|(at, _)| *at).collect();
            let periods: Vec<Duration> = mine.windows(2).map(|two| two[1] - two[0]).collect();
            assert!(
                periods.iter().all(|period| *period <= pause && *period > pause.mul_f64(0.9)),
                "{periods:?}"
            );
        }
    }
}
