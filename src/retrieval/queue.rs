//! Batches prefetched for one child, within limits.
//!
//! In KCL: `PrefetchRecordsPublisher.PrefetchCounters`.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::batch::{Batch, Sizes};
use crate::budget::{Awaited, Share};

/// Limits of the batches that wait for one child. One batch may always wait, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchLimits {
    /// Most batches.
    pub batches: usize,
    /// Most records.
    pub records: usize,
    /// Most bytes of decoded data.
    pub bytes: usize,
}

impl Default for PrefetchLimits {
    /// The defaults of `PollingConfig.maxPendingProcessRecordsInput` and `PrefetchRecordsPublisher`.
    fn default() -> Self {
        Self { batches: 4, records: 30_000, bytes: 8 * 1024 * 1024 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    batches: usize,
    records: usize,
    bytes: usize,
    /// Approximate bytes of memory, data included.
    held: usize,
    /// Whether the shard consumer is gone.
    over: bool,
}

impl Waiting {
    fn of(batch: &Batch) -> Self {
        let Sizes { records, data: bytes, held } = batch.records.sizes();
        Self { batches: 1, records, bytes, held, over: false }
    }
}

/// Called with the number of waiting records whenever it changes.
pub(super) type OnChange = Arc<dyn Fn(usize) + Send + Sync>;

pub(super) fn queue(most: PrefetchLimits, share: Share, on_change: OnChange) -> (Ahead, Batches) {
    let (sender, batches) = mpsc::unbounded_channel();
    let waiting = Arc::new(watch::Sender::new(Waiting::default()));
    let (is_awaited, awaited) = Awaited::new();
    let ahead = Ahead {
        most,
        share,
        awaited,
        waiting: waiting.clone(),
        batches: sender,
        on_change: on_change.clone(),
    };
    (ahead, Batches { waiting, batches, on_change, is_awaited })
}

/// The retrieval's end of the queue.
pub(super) struct Ahead {
    most: PrefetchLimits,
    share: Share,
    awaited: Awaited,
    waiting: Arc<watch::Sender<Waiting>>,
    /// Limited by [`Ahead::room`], before each fetch.
    batches: mpsc::UnboundedSender<(Waiting, Batch)>,
    on_change: OnChange,
}

impl Ahead {
    /// Most bytes that may wait, and that the next answer may have.
    pub(super) fn part(&self) -> usize {
        self.share.part()
    }

    /// Whether the child waits for the next batch.
    pub(super) fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    /// Waits until one more batch may be fetched; false if the shard consumer is gone. Cancel-safe.
    pub(super) async fn room(&self) -> bool {
        self.room_for(0).await
    }

    /// As [`Ahead::room`], for an event of that size, which counts in this shard's part.
    pub(super) async fn room_for(&self, bytes: usize) -> bool {
        let mut waiting = self.waiting.subscribe();
        let has_room = waiting.wait_for(|waiting| {
            let fits = waiting.batches < self.most.batches
                && waiting.records < self.most.records
                && waiting.bytes < self.most.bytes
                && waiting.held + bytes < self.part();
            waiting.batches == 0 || fits
        });
        tokio::select! {
            biased;
            () = self.batches.closed() => false,
            has_room = has_room => has_room.is_ok(),
        }
    }

    /// Sends a batch to the shard consumer; false if the shard consumer is gone.
    pub(super) fn send(&self, batch: Batch) -> bool {
        let more = Waiting::of(&batch);
        self.waiting.send_modify(|waiting| {
            waiting.batches += more.batches;
            waiting.records += more.records;
            waiting.bytes += more.bytes;
            waiting.held += more.held;
            // Within the lock, so that the last reported number is the current one.
            if !waiting.over {
                (self.on_change)(waiting.records);
            }
        });
        self.batches.send((more, batch)).is_ok()
    }
}

/// The shard consumer's end of the queue.
pub(super) struct Batches {
    waiting: Arc<watch::Sender<Waiting>>,
    batches: mpsc::UnboundedReceiver<(Waiting, Batch)>,
    on_change: OnChange,
    is_awaited: watch::Sender<bool>,
}

/// Marks the next batch as awaited until it is dropped.
struct Waits<'a>(&'a watch::Sender<bool>);

impl<'a> Waits<'a> {
    fn for_a_batch(is_awaited: &'a watch::Sender<bool>) -> Self {
        is_awaited.send_replace(true);
        Self(is_awaited)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.waiting.send_modify(|waiting| {
            waiting.over = true;
            (self.on_change)(0);
        });
    }
}

impl Batches {
    /// The next batch; none if the retrieval task has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        let (less, batch) = match self.batches.try_recv() {
            Ok(next) => next,
            Err(_) => {
                let _waits = Waits::for_a_batch(&self.is_awaited);
                self.batches.recv().await?
            }
        };
        self.waiting.send_modify(|waiting| {
            waiting.batches -= less.batches;
            waiting.records -= less.records;
            waiting.bytes -= less.bytes;
            waiting.held -= less.held;
            (self.on_change)(waiting.records);
        });
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::record::{Data, Record};
    use crate::sequence::SequenceNumber;

    fn batch(records: usize, bytes: usize) -> Batch {
        let record = Record {
            sequence: SequenceNumber::parse("1").unwrap(),
            sub: 0,
            partition_key: "p".into(),
            data: Data::encode(&vec![0; bytes]),
            arrival: None,
        };
        Batch { records: vec![record; records].into(), ..Batch::default() }
    }

    async fn fits(ahead: &Ahead) -> bool {
        tokio::select! {
            biased;
            room = ahead.room() => room,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn each_limit_blocks_the_next_fetch() {
        let most = PrefetchLimits { batches: 3, records: 10, bytes: 90 };
        let budget = Budget::new(1_000_000);
        for (first, second) in [((1, 1), (1, 1)), ((5, 1), (5, 1)), ((1, 45), (1, 45))] {
            let (ahead, mut batches) = queue(most, budget.share(), Arc::new(|_| ()));
            assert!(fits(&ahead).await);
            ahead.send(batch(first.0, first.1));
            assert!(fits(&ahead).await);
            ahead.send(batch(second.0, second.1));
            if first == (1, 1) {
                ahead.send(batch(1, 1));
            }
            assert!(!fits(&ahead).await, "{first:?}");
            batches.next().await.unwrap();
            assert!(fits(&ahead).await, "{first:?}");
            drop(batches);
            assert!(!ahead.room().await, "nobody is there");
        }
    }

    #[tokio::test]
    async fn one_batch_may_always_wait() {
        let budget = Budget::new(600);
        let (ahead, mut batches) = queue(PrefetchLimits::default(), budget.share(), Arc::new(|_| ()));
        assert!(fits(&ahead).await);
        ahead.send(batch(1, 9));
        assert!(!fits(&ahead).await);
        batches.next().await.unwrap();
        assert!(fits(&ahead).await);
    }
}
