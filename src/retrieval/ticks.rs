//! Common times for the reads of quiet shards.
//!
//! A read alone costs a cold start: the caches of the CPU hold something else by then, and the code that signs, sends
//! and reads an answer is large. Shards that are read at the same time share it. A read of a shard without new records
//! therefore moves to the nearest of some common times, by a sixteenth of its pause at most, so that neither the delay of
//! a record nor the number of calls changes on average. A shard that has records is never moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Pauses shorter than this are kept: `GetRecords` allows five calls a second and shard.
const SHORTEST: Duration = Duration::from_secs(1);
/// The least number of common times in a pause.
const TIMES: u32 = 8;
/// The number of shards that share a common time, where there are more shards than times: more at once would need more
/// connections, and delay the records of busy shards.
const TOGETHER: u32 = 8;

/// The common times of all shards that a worker polls.
#[derive(Debug)]
pub struct Ticks {
    begin: Instant,
    shards: AtomicU32,
}

impl Default for Ticks {
    fn default() -> Self {
        Self { begin: Instant::now(), shards: AtomicU32::new(0) }
    }
}

impl Ticks {
    /// Counts a shard that is polled, until the result is dropped.
    pub(super) fn join(self: &Arc<Self>) -> Polled {
        self.shards.fetch_add(1, Ordering::Relaxed);
        Polled(self.clone())
    }

    fn nearest(&self, next: Instant, pause: Duration) -> Instant {
        let times = TIMES.max(self.shards.load(Ordering::Relaxed) / TOGETHER);
        let tick = (pause / times).as_nanos();
        if pause < SHORTEST || tick == 0 {
            return next;
        }
        let since = next.saturating_duration_since(self.begin).as_nanos();
        let beyond = u64::try_from(since % tick).unwrap_or_default();
        let tick = u64::try_from(tick).unwrap_or_default();
        if beyond <= tick / 2 {
            next - Duration::from_nanos(beyond)
        } else {
            next + Duration::from_nanos(tick - beyond)
        }
    }
}

/// A shard that is polled.
#[derive(Debug)]
pub(super) struct Polled(Arc<Ticks>);

impl Polled {
    /// The common time that is nearest to `next`, which is `pause` after the last answer.
    pub(super) fn nearest(&self, next: Instant, pause: Duration) -> Instant {
        self.0.nearest(next, pause)
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.0.shards.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(1_500);

    #[test]
    fn quiet_shards_share_eight_times_in_a_pause() {
        let ticks = Arc::new(Ticks::default());
        let shards: Vec<_> = (0..32).map(|_| ticks.join()).collect();
        let mut times = BTreeMap::<Instant, usize>::new();
        for (index, shard) in (0_u32..).zip(&shards) {
            let next = ticks.begin + PAUSE * 7 + PAUSE * index / 32;
            *times.entry(shard.nearest(next, PAUSE)).or_default() += 1;
        }
        // The first and the last time hold a half each of what is between them and the next pause.
        assert_eq!(times.len(), 9, "{times:?}");
        drop(shards);
        assert_eq!(ticks.shards.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_pause_is_kept() {
        let ticks = Arc::new(Ticks::default());
        let shard = ticks.join();
        let next = ticks.begin + Duration::from_millis(777);
        assert_eq!(shard.nearest(next, Duration::from_millis(999)), next);
    }

    proptest! {
        #[test]
        fn read_moves_by_a_sixteenth_of_its_pause_at_most(
            at in 0_u64..10_000_000,
            pause in 1_000_u64..100_000,
            shards in 1_u32..2_000,
        ) {
            let ticks = Ticks { begin: Instant::now(), shards: AtomicU32::new(shards) };
            let (next, pause) = (ticks.begin + Duration::from_micros(at), Duration::from_millis(pause));
            let moved = ticks.nearest(next, pause);
            prop_assert!(moved.max(next) - moved.min(next) <= pause / 16 + Duration::from_nanos(2));
        }
    }
}
