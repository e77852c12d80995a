//! Renews one lease, in a task of its own: nothing that happens to another lease, to a child or to a
//! log can hold it up.
//!
//! A checkpoint is a renewal too and puts the next one off, so a busy shard costs no renewals. In
//! KCL: `DynamoDBLeaseRenewer`, whose passes wait for their slowest call.

use std::collections::BTreeMap;
use std::iter::successors;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, debug, error_span, info, warn};

use crate::backoff::Backoff;
use crate::lease::outage::Outage;
use crate::lease::{Held, held};
use crate::reach::Reach;

/// Two fifths of the failover time: one renewal may fail altogether, and what fails is tried again at once.
/// Java's pause is a third less 25 ms, which costs a fifth more writes.
pub(super) fn pause(failover: Duration) -> Duration {
    (failover * 2 / 5).max(Duration::from_millis(1))
}

/// In a pause there are so many times for renewals at least, if there are as many leases.
const TIMES: usize = 8;
/// Number of leases that are renewed together. After a short idle time the CPU needs several times as long
/// for the first renewal as for the next ones, because its caches hold other data by then.
const TOGETHER: usize = 4;

/// Spreads a worker's renewals evenly, so that it never waits long for news of its rows, by which its peers
/// nudge it. Renewals of many leases are grouped, a few at a time: each concurrent call needs a connection. A
/// renewal that follows long after the previous one, or in too large a group, comes a little earlier in the
/// next round; never later, so that no lease is renewed less often.
#[derive(Debug)]
pub(super) struct Pace {
    begin: Instant,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// The number of leases that are renewed.
    leases: usize,
    /// When any lease was renewed last.
    last: Instant,
    /// How many are due at common times to come.
    due: BTreeMap<Instant, usize>,
}

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self::from(now))
    }

    fn from(begin: Instant) -> Self {
        Self { begin, times: Mutex::new(Times { leases: 0, last: begin, due: BTreeMap::new() }) }
    }

    /// A renewal began: when is the same lease's next, of so many?
    fn next(&self, started: Instant, pause: Duration, leases: usize) -> Instant {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = started.saturating_duration_since(std::mem::replace(&mut times.last, started));
        let count = leases.clamp(1, TIMES.max(leases / TOGETHER));
        let even = (pause / u32::try_from(count).unwrap_or(u32::MAX)).max(Duration::from_nanos(1));
        let excess = gap.saturating_sub(even + even / 8);
        let next = started + pause - (excess / 2).min(pause / 4);
        if count == leases {
            return next;
        }
        times.due = times.due.split_off(&started);
        let most = leases.div_ceil(count);
        let due = |at: &Instant| times.due.get(at).copied().unwrap_or(0);
        let latest = self.at_a_time(next, even);
        let earlier = successors(Some(latest), |at| at.checked_sub(even));
        let early_enough = earlier.take_while(|at| *at >= started + pause * 5 / 8);
        let free = early_enough.clone().find(|at| due(at) < most);
        let next = free.or_else(|| early_enough.min_by_key(due)).unwrap_or(latest);
        *times.due.entry(next).or_default() += 1;
        next
    }

    /// The last common time before that.
    fn at_a_time(&self, next: Instant, even: Duration) -> Instant {
        let since = next.saturating_duration_since(self.begin).as_nanos();
        let beyond = since.checked_rem(even.as_nanos()).unwrap_or_default();
        next - Duration::from_nanos(u64::try_from(beyond).unwrap_or_default())
    }
}

/// A lease that counts among those that are renewed, until this is dropped.
struct Paced(Arc<Pace>);

impl Paced {
    fn new(pace: Arc<Pace>) -> Self {
        pace.times.lock().unwrap_or_else(PoisonError::into_inner).leases += 1;
        Self(pace)
    }

    /// A renewal began: the time of the next one of this lease.
    fn next(&self, started: Instant, pause: Duration) -> Instant {
        let leases = self.0.times.lock().unwrap_or_else(PoisonError::into_inner).leases;
        self.0.next(started, pause, leases)
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.0.times.lock().unwrap_or_else(PoisonError::into_inner).leases -= 1;
    }
}

/// [`keep`] in a span of the lease.
pub(super) fn traced(
    held: Arc<Held>,
    pause: Duration,
    first: Instant,
    pace: Arc<Pace>,
    reach: Arc<Reach>,
) -> impl Future<Output = ()> {
    let span = error_span!("lease", shard = %held.key());
    keep(held, pause, first, Paced::new(pace), reach).instrument(span)
}

/// Renews until the lease is lost. A failure is retried with jitter until the lease expires.
async fn keep(held: Arc<Held>, pause: Duration, first: Instant, pace: Paced, reach: Arc<Reach>) {
    let mut backoff = Backoff::new(pause / 8, pause, fastrand::Rng::new());
    let mut known = held.proven();
    let (mut next, mut outage) = (first, Outage::default());
    // The error of the last renewal, if that failed: why the lease expires.
    let mut failed: Option<String> = None;
    loop {
        tokio::select! {
            biased;
            // Lost leases aren't renewed.
            () = held.lost().cancelled() => {
                if let Some(error) = failed {
                    warn!(event = "lease_lost", error, "lost the lease after renewals that failed");
                }
                break;
            }
            () = sleep_until(next.min(held.expires())) => {}
        }
        let proven = held.proven();
        if proven > std::mem::replace(&mut known, proven) && Instant::now() < proven + pause {
            // A checkpoint renewed it.
            failed = None;
            backoff.reset();
            if let Some(lasted) = outage.worked(Instant::now()) {
                info!(event = "lease_renewal_recovered", ?lasted, "renewed the lease again");
            }
            next = proven + pause;
            continue;
        }
        let started = Instant::now();
        match held.renew().await {
            Ok(()) => {
                failed = None;
                backoff.reset();
                if let Some(lasted) = outage.worked(Instant::now()) {
                    info!(event = "lease_renewal_recovered", ?lasted, "renewed the lease again");
                }
                (known, next) = (held.proven(), pace.next(started, pause));
            }
            Err(held::Error::Lost) => {
                warn!(event = "lease_lost", error = failed, "lost the lease");
                break;
            }
            Err(error) => {
                let (now, again) = (Instant::now(), backoff.pause());
                let logs = match &error {
                    held::Error::Table(error) => outage.failed(now, error, &reach),
                    held::Error::Lost | held::Error::Behind(_) => true,
                };
                if logs {
                    warn!(event = "lease_renewal_failed", %error, retry_in = ?again, "failed to renew the lease, retrying");
                } else {
                    debug!(%error, retry_in = ?again, "failed to renew the lease, retrying");
                }
                failed = Some(error.to_string());
                next = now + again;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PAUSE: Duration = Duration::from_secs(4);

    /// Renewals of so many leases, as the pace has them, from the times on that chance or a stall gave them.
    struct Rounds {
        pace: Pace,
        leases: usize,
        due: BTreeSet<(Instant, usize)>,
        /// Of the last round.
        times: Vec<(Instant, usize)>,
        last: Vec<Instant>,
    }

    impl Rounds {
        fn new(leases: usize, mut first: impl FnMut() -> f64) -> Self {
            let start = Instant::now();
            let due = (0..leases).map(|lease| (start + PAUSE.mul_f64(first()), lease)).collect();
            Self { pace: Pace::from(start), leases, due, times: Vec::new(), last: vec![start; leases] }
        }

        /// Each is renewed so many times, and none before or after its time.
        fn run(&mut self, rounds: usize) {
            for _ in 0..rounds {
                self.times.clear();
                for _ in 0..self.leases {
                    let (now, lease) = self.due.pop_first().unwrap();
                    self.times.push((now, lease));
                    self.renewed(now, lease);
                }
            }
        }

        fn renewed(&mut self, now: Instant, lease: usize) {
            let next = self.pace.next(now, PAUSE, self.leases);
            assert!(next <= now + PAUSE && next >= now + PAUSE * 5 / 8 - PAUSE / 8, "{:?}", next - now);
            self.due.insert((next, lease));
            self.last[lease] = now;
        }

        /// Nothing happens for a while, and then all that is due.
        fn stall(&mut self, length: Duration) {
            let until = self.due.first().unwrap().0 + length;
            while self.due.first().unwrap().0 < until {
                let (_, lease) = self.due.pop_first().unwrap();
                self.renewed(until, lease);
            }
        }

        fn common(&self) -> usize {
            self.leases.min(8.max(self.leases / 4))
        }

        /// Half as many again as there would have to be.
        fn bound(&self) -> usize {
            let most = self.leases.div_ceil(self.common());
            most + most / 2
        }

        fn most_at_once(&self) -> usize {
            let mut count: BTreeMap<Instant, usize> = BTreeMap::new();
            self.times.iter().for_each(|(at, _)| *count.entry(*at).or_default() += 1);
            count.into_values().max().unwrap()
        }

        fn longest_gap(&self) -> Duration {
            self.times.windows(2).map(|two| two[1].0 - two[0].0).max().unwrap()
        }
    }

    #[test]
    fn renewals_become_evenly_spaced_and_stay_so() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let leases = random.usize(2..if seed % 2 == 0 { 10 } else { 100 });
            let mut rounds = Rounds::new(leases, || random.f64() * 0.3);
            rounds.run(30);
            let mut before = rounds.last.clone();
            for _ in 0..10 {
                rounds.run(1);
                let even = PAUSE / u32::try_from(rounds.common()).unwrap();
                let longest = rounds.longest_gap();
                assert!(longest <= even.mul_f64(1.3), "{leases} leases: {longest:?}, evenly {even:?}");
                let different: BTreeSet<Instant> = rounds.times.iter().map(|(at, _)| *at).collect();
                assert!(different.len() <= rounds.common() + 1, "{leases} leases: {} times", different.len());
                let most = rounds.most_at_once();
                assert!(most <= rounds.bound(), "{leases} leases: {most} at once");
                let early = before.iter().zip(&rounds.last).filter(|(a, b)| **b < **a + PAUSE.mul_f64(0.9));
                assert_eq!(early.count(), 0, "{leases} leases");
                before.clone_from(&rounds.last);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lease_counts_until_its_renewals_end() {
        let pace = Pace::new();
        let leases = || pace.times.lock().unwrap().leases;
        let (one, other) = (Paced::new(pace.clone()), Paced::new(pace.clone()));
        let _held_elsewhere = pace.clone();
        assert_eq!(leases(), 2);
        drop(one);
        assert_eq!(leases(), 1);
        drop(other);
        assert_eq!(leases(), 0);
    }

    /// A stall brings many together, each in need of a connection of its own.
    #[test]
    fn simultaneous_renewals_are_spread_after_a_few_rounds() {
        for leases in [9, 20, 40, 100, 300, 1_000] {
            let mut rounds = Rounds::new(leases, || 0.5);
            rounds.run(1);
            assert_eq!(rounds.most_at_once(), leases);
            let mut random = fastrand::Rng::with_seed(1);
            for length in [0.3, 1.0, 4.0] {
                rounds.run(8);
                let most = rounds.most_at_once();
                assert!(most <= rounds.bound(), "{leases} leases: {most} at once");
                rounds.run(random.usize(0..3));
                rounds.stall(PAUSE.mul_f64(length));
            }
        }
    }
}
