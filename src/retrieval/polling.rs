//! Polling: GetRecords at a configured rate, from a position to the end of the shard.
//!
//! In KCL: `PrefetchRecordsPublisher`, `KinesisDataFetcher`, `KinesisSleepTimeController`. Different on
//! purpose: a batch is fetched only when there is room for it, so that none is discarded; a shard that "does
//! not exist" has ended only if `ListShards` agrees; and an expired `LATEST` resumes at the time when it was
//! opened.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::closed::{Next, Quiet};
use super::failing::Kind;
use super::place::{GET_FAILED, LITTLE, MAX_PAUSE, Place, SHOWN};
use super::port::{Answer, Error};
use super::queue::Ahead;
use super::source::Settings;
use crate::backoff::Backoff;
use crate::batch::{Batch, Sizes};
use crate::budget::{LARGEST, Reservation};
use crate::metrics::OfShard;
use crate::shard::ChildShard;

/// After this time a reservation is replaced by a smaller one.
const WAITS: Duration = Duration::from_secs(10);
/// Estimated bytes of a record before one was read.
const RECORD: usize = 1_400;
/// Kinesis accepts five calls a second and shard. This is the pause after an answer that the local limit cut
/// short.
const FOLLOWED: Duration = Duration::from_millis(200);

pub(super) struct Polling {
    place: Place,
    iterator: Option<String>,
    backoff: Backoff,
    /// Bytes of the last answer, as the estimate for the next one.
    expected: usize,
    /// Estimated bytes of a record, by the last answers.
    record: usize,
    /// Factor by which records grow when aggregates are expanded.
    grown: usize,
    quiet: Quiet,
    /// Whether a wait for memory was reported.
    waited: bool,
}

enum Step {
    /// A batch, and the time of the next call if the local limit cut the answer short.
    Batch(Batch, Option<Instant>),
    Again,
    After(Duration),
}

/// The pause between an answer with that `MillisBehindLatest` and the next call.
fn pace(settings: &Settings, behind: Option<i64>) -> Duration {
    match behind.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))) {
        Some(behind) if behind < settings.near => settings.idle.max(settings.near),
        Some(behind) if !behind.is_zero() => settings.idle.min(settings.idle_behind),
        Some(_) | None => settings.idle,
    }
}

/// Most records that fit into a shard's part of the budget once they have grown by that factor.
fn limit(settings: &Settings, part: usize, record: usize, grown: usize) -> usize {
    let part = part / grown.max(1);
    if part >= LARGEST { settings.max_records } else { (part / record.max(1)).clamp(1, settings.max_records) }
}

impl Polling {
    pub(super) fn new(place: Place) -> Self {
        let backoff = Backoff::new(place.source.settings.retry, MAX_PAUSE, fastrand::Rng::new());
        Self {
            place,
            iterator: None,
            backoff,
            expected: LITTLE,
            record: RECORD,
            grown: 1,
            quiet: Quiet::new(Instant::now()),
            waited: false,
        }
    }

    /// Runs until the batch that ends the shard was sent or the shard consumer is gone.
    pub(super) async fn run(mut self, ahead: &Ahead) {
        let mut next = Instant::now();
        while ahead.room().await {
            // A timer that is already due may still wait for the next millisecond.
            if next > Instant::now() {
                sleep_until(next).await;
            }
            match self.step(ahead).await {
                Step::Batch(batch, followed) => {
                    let usual =
                        Instant::now() + pace(&self.place.source.settings, batch.millis_behind_latest);
                    next = followed.map_or(usual, |at| at.min(usual));
                    let ended = batch.end.is_some();
                    let wanted = ended || !batch.records.is_empty() || self.place.source.settings.keep_empty;
                    if wanted && !ahead.send(batch) || ended {
                        return;
                    }
                }
                Step::Again => {}
                Step::After(pause) => next = Instant::now() + pause,
            }
        }
    }

    async fn step(&mut self, ahead: &Ahead) -> Step {
        let part = ahead.part();
        let limit = limit(&self.place.source.settings, part, self.record, self.grown);
        // A single record may exceed the part, and no answer is smaller.
        let most = if limit > 1 { part } else { part.max(self.record) };
        let expected = self.expected.min(most);
        let mut took = None;
        let outcome = match self.iterator.take() {
            None => self.open().await,
            Some(iterator) => {
                let Some(room) = self.room(expected, ahead).await else {
                    self.iterator = Some(iterator);
                    return Step::Again;
                };
                let began = Instant::now();
                match self.read(&iterator, limit, room).await {
                    Ok(answer) => return self.answered(answer, iterator, limit, began).await,
                    Err(error) => {
                        took = Some(began.elapsed());
                        if !matches!(error, Error::IteratorExpired(_)) {
                            self.iterator = Some(iterator);
                        }
                        Err(error)
                    }
                }
            }
        };
        match outcome {
            Ok(()) => Step::Again,
            Err(Error::NoRoom(bytes)) if bytes <= LARGEST * 2 => {
                debug!(bytes, limit, part, "dropped a response: no room in memory");
                // The size of the answer to that limit: the next one is limited to the records for which
                // there is room.
                (self.expected, self.record) = (bytes, (bytes / limit).max(self.record));
                Step::Again
            }
            Err(error @ Error::IteratorExpired(_)) => {
                self.place.failed(Kind::Usual, took, GET_FAILED, &error);
                // Paced like a failure: an iterator that is always refused must not cause a busy loop.
                Step::After(self.backoff.pause())
            }
            Err(Error::ShardMissing(reason)) => match self.place.end_if_gone(&reason).await {
                Some(end) => Step::Batch(end, None),
                None => {
                    // The iterator of a deleted stream would be refused until it expires.
                    self.iterator = None;
                    self.place.failed(Kind::Logged, took, GET_FAILED, &reason);
                    Step::After(self.backoff.pause())
                }
            },
            Err(error) => {
                self.place.failed(Kind::of(&error), took, GET_FAILED, &error);
                Step::After(self.backoff.pause())
            }
        }
    }

    /// Memory for an answer; none after a long wait. Other reservations wait behind this one meanwhile, and a
    /// smaller answer may fit by then.
    async fn room(&mut self, bytes: usize, ahead: &Ahead) -> Option<Reservation> {
        let got = {
            let Place { source, shard, .. } = &self.place;
            let mut room = std::pin::pin!(source.budget.reserve_for(bytes, ahead.awaited()));
            if let Ok(room) = timeout(SHOWN, &mut room).await {
                Some(room)
            } else {
                source.sink.shard(shard, OfShard::WaitsForRoom(true));
                self.waited = true;
                timeout(WAITS, room).await.ok()
            }
        };
        if got.is_some() {
            self.has_room();
        } else if self.place.is_news() {
            warn!(
                event = "reading_paused",
                bytes,
                held = self.place.source.budget.held(),
                "reading is paused: records that wait for record processors fill \
                 multilangd.bufferMegabytes"
            );
        }
        got
    }

    /// Reports the end of a wait for memory.
    fn has_room(&mut self) {
        if std::mem::take(&mut self.waited) {
            self.place.source.sink.shard(&self.place.shard, OfShard::WaitsForRoom(false));
        }
    }

    async fn read(&self, iterator: &str, limit: usize, room: Reservation) -> Result<Answer, Error> {
        let source = &self.place.source;
        // Held for one call, which has a timeout. The semaphore is never closed.
        let _call = source.calls.acquire().await;
        source.api.read(iterator, limit, room).await
    }

    async fn open(&mut self) -> Result<(), Error> {
        let asked = self.place.source.clock.past();
        let iterator = self.get_iterator().await;
        if let Err(error @ Error::Denied(_)) = &iterator {
            self.place.suspect_another_stream(error).await;
        }
        self.iterator = Some(iterator?);
        self.quiet.moved(Instant::now());
        self.place.opened(asked);
        Ok(())
    }

    async fn get_iterator(&self) -> Result<String, Error> {
        let source = &self.place.source;
        let _call = source.calls.acquire().await;
        let began = Instant::now();
        let iterator = source.api.iterator(&self.place.shard, &self.place.start()).await;
        let asked = OfShard::IteratorAsked { took: began.elapsed(), ok: iterator.is_ok() };
        source.sink.shard(&self.place.shard, asked);
        iterator
    }

    async fn answered(&mut self, answer: Answer, iterator: String, limit: usize, began: Instant) -> Step {
        let took = began.elapsed();
        if !self.place.believes(&answer) {
            self.iterator = Some(iterator);
            return Step::After(self.backoff.pause());
        }
        self.backoff.reset();
        let Sizes { records, held: bytes, .. } = answer.records.sizes();
        self.expected = bytes.max(LITTLE);
        if let Some(record) = bytes.checked_div(records) {
            // The next records are likely to be as large as the last ones; one large record says nothing
            // about later answers.
            self.record = record;
        }
        self.iterator.clone_from(&answer.next);
        let last = answer.records.last().cloned();
        let ended = if answer.next.is_some() {
            self.ended_unsaid(began, records, answer.millis_behind_latest).await
        } else {
            None
        };
        let mut batch = self.place.batch(answer, last, Some(took));
        batch.end = batch.end.or(ended);
        let held = batch.records.sizes().held;
        // The factor decays slowly, so that one answer without aggregates does not reset it.
        self.grown = held.div_ceil(bytes.max(1)).max(self.grown - self.grown / 4).max(1);
        let is_cut = records >= limit && limit < self.place.source.settings.max_records;
        Step::Batch(batch, is_cut.then_some(began + FOLLOWED))
    }
}

impl Polling {
    /// The children of the shard, if it is closed and fully read although `GetRecords` does not report its end.
    async fn ended_unsaid(
        &mut self,
        sent: Instant,
        records: usize,
        millis_behind_latest: Option<i64>,
    ) -> Option<Vec<ChildShard>> {
        let Place { source, shard, .. } = &self.place;
        match self.quiet.answered(sent, Instant::now(), records, millis_behind_latest) {
            Next::Read => None,
            Next::Ask(since) => {
                let state = source.closed.state(shard, since, &*source.shards).await;
                self.quiet.listed(Instant::now(), state);
                None
            }
            Next::End(children) => {
                info!(
                    event = "closed_shard_left",
                    "the shard is closed but GetRecords does not end: the shard counts as ended after \
                     its last record"
                );
                Some(children)
            }
        }
    }
}

#[cfg(test)]
#[path = "polling_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "polling_tests.rs"]
mod tests;
