//! Batches fetched ahead of one child, within bounds.
//!
//! In KCL: `PrefetchRecordsPublisher.PrefetchCounters`.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::batch::{Batch, Sizes};
use crate::budget::{Awaited, Share};

/// What may wait for one child. One batch may always, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchLimits {
    /// Answers of Kinesis.
    pub batches: usize,
    /// Records.
    pub records: usize,
    /// Bytes of their data.
    pub bytes: usize,
}

impl Default for PrefetchLimits {
    /// `PollingConfig.maxPendingProcessRecordsInput`, `PrefetchRecordsPublisher`.
    fn default() -> Self {
        Self { batches: 4, records: 30_000, bytes: 8 * 1024 * 1024 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    batches: usize,
    records: usize,
    bytes: usize,
    /// Bytes that are held for it, data and all.
    held: usize,
    /// Nobody takes them any more.
    over: bool,
}

impl Waiting {
    fn of(batch: &Batch) -> Self {
        let Sizes { records, data: bytes, held } = batch.records.sizes();
        Self { batches: 1, records, bytes, held, over: false }
    }
}

/// Told how many records wait now, whenever that changes.
pub(super) type Tell = Arc<dyn Fn(usize) + Send + Sync>;

pub(super) fn queue(most: PrefetchLimits, share: Share, tell: Tell) -> (Ahead, Batches) {
    let (sender, batches) = mpsc::unbounded_channel();
    let waiting = Arc::new(watch::Sender::new(Waiting::default()));
    let (is_awaited, awaited) = Awaited::new();
    let ahead = Ahead { most, share, awaited, waiting: waiting.clone(), batches: sender, tell: tell.clone() };
    (ahead, Batches { waiting, batches, tell, is_awaited })
}

/// The reader's end.
pub(super) struct Ahead {
    most: PrefetchLimits,
    share: Share,
    awaited: Awaited,
    waiting: Arc<watch::Sender<Waiting>>,
    /// Bounded by [`Ahead::room`], before each fetch.
    batches: mpsc::UnboundedSender<(Waiting, Batch)>,
    tell: Tell,
}

impl Ahead {
    /// How many bytes may wait at most, and how many an answer may have.
    pub(super) fn part(&self) -> usize {
        self.share.part()
    }

    /// Whether the child waits for the next batch.
    pub(super) fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    /// Waits until one more batch may be fetched; false once nobody wants any more. Cancel-safe.
    pub(super) async fn room(&self) -> bool {
        self.room_for(0).await
    }

    /// The same for one that is not fetched but pushed, and takes so much of this shard's part.
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

    /// Hands a batch on; false once nobody wants any.
    pub(super) fn send(&self, batch: Batch) -> bool {
        let more = Waiting::of(&batch);
        self.waiting.send_modify(|waiting| {
            waiting.batches += more.batches;
            waiting.records += more.records;
            waiting.bytes += more.bytes;
            waiting.held += more.held;
            // Within the lock: what is told last is what is.
            if !waiting.over {
                (self.tell)(waiting.records);
            }
        });
        self.batches.send((more, batch)).is_ok()
    }
}

/// The consumer's end.
pub(super) struct Batches {
    waiting: Arc<watch::Sender<Waiting>>,
    batches: mpsc::UnboundedReceiver<(Waiting, Batch)>,
    tell: Tell,
    is_awaited: watch::Sender<bool>,
}

/// Until it is dropped, the next batch is waited for.
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
            (self.tell)(0);
        });
    }
}

impl Batches {
    /// The next; none once the reader is gone. Cancel-safe.
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
            (self.tell)(waiting.records);
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
    async fn each_bound_holds_back_the_next_fetch_until_something_is_taken() {
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
    async fn one_batch_may_wait_whatever_its_size_and_a_small_share_leaves_it_at_that() {
        let budget = Budget::new(600);
        let (ahead, mut batches) = queue(PrefetchLimits::default(), budget.share(), Arc::new(|_| ()));
        assert!(fits(&ahead).await);
        ahead.send(batch(1, 9));
        assert!(!fits(&ahead).await);
        batches.next().await.unwrap();
        assert!(fits(&ahead).await);
    }
}
