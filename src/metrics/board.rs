//! The present state, by shard and of the worker.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multilangd_protocol::Action;
use tokio::time::Instant;

use super::{Ending, OfShard, OfWorker, Sink};
use crate::sequence::Position;
use crate::shard::ShardId;

/// Shards that are over are remembered, the newest of them.
const REMEMBERED: usize = 64;
/// Characters of an error that are kept.
const READ_ERROR: usize = 500;
/// Batches between what was delivered and what was checkpointed, of which the time is remembered.
const BATCHES: usize = 64;

/// The state of one shard.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Since when its lease is held.
    pub since: Option<Instant>,
    /// The running child's process id.
    pub pid: Option<u32>,
    /// Children started.
    pub starts: u64,
    /// Failures of children.
    pub failures: u64,
    /// When the first of the present row of failures was: none once a child has answered.
    pub failing_since: Option<Instant>,
    /// Why the child failed last, and its last lines on stderr.
    pub failure: Option<(String, Vec<String>)>,
    /// Since when the shard is parked.
    pub parked_since: Option<Instant>,
    /// Since when no child can be started for lack of resources, and of which.
    pub shortage: Option<(Instant, String)>,
    /// What the child is asked for, and since when.
    pub asked: Option<(Action, Instant)>,
    /// Time that children took to answer.
    pub in_child: Duration,
    /// Actions that they answered.
    pub answers: u64,
    /// Answers of Kinesis.
    pub fetches: u64,
    /// Records that were fetched and not yet taken by the consumer.
    pub waiting: u64,
    /// Readings that failed.
    pub fetch_failures: u64,
    /// Since when they fail.
    pub unread_since: Option<Instant>,
    /// Since when reading is being opened: nothing was read yet.
    pub opening_since: Option<Instant>,
    /// Since when reading waits for room in memory.
    pub room_since: Option<Instant>,
    /// Why the last reading that failed did, and when.
    pub read_error: Option<(String, Instant)>,
    /// Since when it can't come to its end.
    pub end_delayed_since: Option<Instant>,
    /// How far behind the tip the last answer was.
    pub millis_behind_latest: Option<i64>,
    /// Records handed out.
    pub delivered: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Batches of them.
    pub batches: u64,
    /// User records left out.
    pub dropped: u64,
    /// The last record that was handed out.
    pub last: Option<Position>,
    /// When it reached Kinesis.
    pub last_arrival: Option<i64>,
    /// When it was handed out, or an answer or a checkpoint came: the shard moves.
    pub moved: Option<Instant>,
    /// What is stored.
    pub checkpoint: Option<Position>,
    /// When the last record before it reached Kinesis, as far as batches tell.
    pub checkpoint_arrival: Option<i64>,
    /// Checkpoints stored.
    pub checkpoints: u64,
    /// Checkpoints that could not be stored.
    pub checkpoint_failures: u64,
    /// Why this worker left it, once it has.
    pub over: Option<Ending>,
    pub(crate) arrivals: VecDeque<(Position, i64)>,
}

impl Totals {
    /// Whether the shard was read to its end.
    pub fn ended(&self) -> bool {
        self.over == Some(Ending::ShardEnded)
    }

    /// Whether more was handed out than is checkpointed.
    pub fn is_unfinished(&self) -> bool {
        let behind =
            |last: &Position| self.checkpoint.as_ref().is_none_or(|stored| last.order(stored).is_gt());
        self.last.as_ref().is_some_and(behind)
    }

    fn note(&mut self, now: Instant, event: OfShard<'_>) {
        match event {
            OfShard::Held { checkpoint } => {
                // Counts go on where this worker held the shard before.
                (self.since, self.moved, self.over) = (Some(now), Some(now), None);
                (self.asked, self.failing_since, self.unread_since) = (None, None, None);
                (self.read_error, self.failure, self.parked_since, self.shortage) = (None, None, None, None);
                (self.checkpoint, self.checkpoint_arrival) = (Some(checkpoint.clone()), None);
                (self.last, self.last_arrival) = (None, None);
                (self.opening_since, self.room_since) = (None, None);
                self.arrivals.clear();
            }
            OfShard::ChildStarted { pid } => {
                self.pid = Some(pid);
                self.starts += 1;
                self.shortage = None;
            }
            OfShard::Parked => {
                self.parked_since.get_or_insert(now);
            }
            OfShard::Recovered => self.parked_since = None,
            OfShard::Shortage { reason } => {
                let since = self.shortage.take().map_or(now, |(since, _)| since);
                self.shortage = Some((since, reason.to_owned()));
            }
            OfShard::ChildFailed { times, reason, stderr } => {
                self.failures += 1;
                self.failure = Some((reason.to_owned(), stderr.to_vec()));
                if times == 1 {
                    self.failing_since = None;
                }
                self.failing_since.get_or_insert(now);
                self.asked = None;
            }
            OfShard::ChildGone => (self.pid, self.asked) = (None, None),
            OfShard::Asked(action) => (self.asked, self.end_delayed_since) = (Some((action, now)), None),
            OfShard::Answered { action, took } => {
                self.asked = None;
                self.in_child += took;
                self.answers += 1;
                self.moved = Some(now);
                if action != Action::Initialize {
                    self.failing_since = None;
                }
            }
            OfShard::Opening => (self.opening_since, self.room_since) = (Some(now), None),
            OfShard::WaitsForRoom(true) => {
                self.room_since.get_or_insert(now);
            }
            OfShard::WaitsForRoom(false) => self.room_since = None,
            OfShard::IteratorAsked { .. } => {}
            OfShard::Fetched { millis_behind_latest, .. } => {
                self.fetches += 1;
                (self.unread_since, self.opening_since, self.room_since) = (None, None, None);
                self.millis_behind_latest = millis_behind_latest.or(self.millis_behind_latest);
            }
            OfShard::FetchFailed { error, .. } => {
                self.read_error = Some((error.chars().take(READ_ERROR).collect(), now));
                self.fetch_failures += 1;
                self.unread_since.get_or_insert(now);
            }
            OfShard::Waiting { records } => self.waiting = records as u64,
            OfShard::Delivered { records, bytes, last, arrival } => {
                // The failures before concerned nothing that was owed.
                if !self.is_unfinished() {
                    self.failing_since = None;
                }
                self.delivered += records as u64;
                self.bytes += bytes as u64;
                self.batches += 1;
                self.moved = Some(now);
                (self.last, self.last_arrival) = (Some(last.clone()), arrival);
                if let Some(arrival) = arrival {
                    // What lies between two that are far apart is judged by the older.
                    if self.arrivals.len() == BATCHES {
                        self.arrivals.remove(BATCHES / 2);
                    }
                    self.arrivals.push_back((last.clone(), arrival));
                }
            }
            OfShard::Dropped { records } => self.dropped += records as u64,
            OfShard::Checkpointed { position, .. } => {
                self.checkpoints += 1;
                self.moved = Some(now);
                while let Some((_, arrival)) =
                    self.arrivals.pop_front_if(|(last, _)| last.order(position).is_le())
                {
                    self.checkpoint_arrival = Some(arrival);
                }
                self.checkpoint = Some(position.clone());
            }
            OfShard::CheckpointFailed { .. } => self.checkpoint_failures += 1,
            OfShard::EndDelayed => {
                self.end_delayed_since.get_or_insert(now);
            }
            OfShard::Over(ending) => {
                (self.end_delayed_since, self.parked_since, self.shortage) = (None, None, None);
                (self.opening_since, self.room_since) = (None, None);
                (self.over, self.pid, self.asked, self.waiting) = (Some(ending), None, None, 0);
                (self.since, self.moved) = (Some(now), Some(now));
            }
        }
    }
}

/// The state of the worker.
#[derive(Debug, Clone, Default)]
pub struct Worker {
    /// Leases can be taken.
    pub ready: bool,
    /// It stops.
    pub stopping: bool,
    /// When the lease table was looked at last, and what was there.
    pub looked: Option<Instant>,
    /// Leases of shards that aren't finished.
    pub leases: usize,
    /// Workers that keep theirs alive.
    pub workers: usize,
    /// Open shards that no live worker reads; none where another worker counts them.
    pub unread: Option<usize>,
    /// Those that no worker read at the audit before either.
    pub unread_for_long: usize,
    /// Whether this one looks after all leases.
    pub leads: bool,
    /// Leases taken.
    pub taken: u64,
    /// Leases that came to an end, by how.
    pub endings: BTreeMap<&'static str, u64>,
    /// Attempts at calls, by service and operation.
    pub calls: BTreeMap<(String, String), Calls>,
}

/// Attempts at one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Answered.
    pub ok: u64,
    /// Refused, or without an answer.
    pub failed: u64,
    /// How long all of them took.
    pub took: Duration,
}

/// Keeps the state.
#[derive(Debug, Default)]
pub struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, Totals>,
    worker: Worker,
}

impl Board {
    /// A copy of the shards' state as it is now.
    pub fn totals(&self) -> BTreeMap<ShardId, Totals> {
        self.lock().shards.clone()
    }

    /// A copy of the worker's.
    pub fn of_worker(&self) -> Worker {
        self.lock().worker.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old(&mut self) {
        let over = |totals: &Totals| totals.over.and(totals.since);
        while self.shards.values().filter(|totals| totals.over.is_some()).count() > REMEMBERED {
            let oldest = self.shards.iter().filter_map(|(shard, totals)| Some((over(totals)?, shard))).min();
            let Some(oldest) = oldest.map(|(_, shard)| shard.clone()) else { return };
            self.shards.remove(&oldest);
        }
    }
}

impl Sink for Board {
    fn shard(&self, shard: &ShardId, event: OfShard<'_>) {
        let mut state = self.lock();
        state.worker.taken += u64::from(matches!(event, OfShard::Held { .. }));
        state.shards.entry(shard.clone()).or_default().note(Instant::now(), event);
        if let OfShard::Over(ending) = event {
            *state.worker.endings.entry(ending.word()).or_default() += 1;
            state.forget_old();
        }
    }

    fn worker(&self, event: OfWorker<'_>) {
        let worker = &mut self.lock().worker;
        match event {
            OfWorker::Ready => worker.ready = true,
            OfWorker::Stopping => worker.stopping = true,
            OfWorker::Looked { leases, workers, leads, .. } => {
                worker.looked = Some(Instant::now());
                (worker.leases, worker.workers) = (leases, workers);
                worker.leads = leads.unwrap_or_default();
            }
            OfWorker::Unread { shards, lasting } => {
                (worker.unread, worker.unread_for_long) = (shards, lasting)
            }
            OfWorker::Discovered { .. }
            | OfWorker::Planned { .. }
            | OfWorker::GaveOut { .. }
            | OfWorker::Swept { .. }
            | OfWorker::Tables(_)
            | OfWorker::Surveyed { .. }
            | OfWorker::Moved { .. }
            | OfWorker::Did { .. } => {}
            OfWorker::Called { service, operation, took, ok } => {
                let calls = worker.calls.entry((service.to_owned(), operation.to_owned())).or_default();
                *(if ok { &mut calls.ok } else { &mut calls.failed }) += 1;
                calls.took += took;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceNumber;

    fn at(number: u32) -> Position {
        Position::record(SequenceNumber::parse(&number.to_string()).unwrap(), 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_is_as_old_as_the_last_batch_that_it_covers() {
        let board = Board::default();
        let shard = ShardId::from("s");
        board.shard(&shard, OfShard::Held { checkpoint: &at(1) });
        for number in 1..=3 {
            let last = &at(number * 10);
            let arrival = Some(i64::from(number) * 1_000);
            board.shard(&shard, OfShard::Delivered { records: 10, bytes: 100, last, arrival });
        }
        let stored = |position: u32| {
            let position = &at(position);
            board.shard(&shard, OfShard::Checkpointed { position, took: Duration::ZERO });
            board.totals()[&shard].checkpoint_arrival
        };
        assert_eq!(stored(5), None);
        assert_eq!(stored(20), Some(2_000));
        assert_eq!(stored(25), Some(2_000));
        assert_eq!(stored(30), Some(3_000));
        let totals = &board.totals()[&shard];
        assert_eq!((totals.delivered, totals.bytes, totals.batches, totals.checkpoints), (30, 300, 3, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_is_timed_from_question_to_answer() {
        let board = Board::default();
        let shard = ShardId::from("s");
        board.shard(&shard, OfShard::Asked(Action::ProcessRecords));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(board.totals()[&shard].asked.is_some());
        let took = Duration::from_secs(3);
        board.shard(&shard, OfShard::Answered { action: Action::ProcessRecords, took });
        let totals = &board.totals()[&shard];
        assert_eq!((totals.asked, totals.in_child), (None, Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn of_shards_that_are_over_the_newest_are_remembered() {
        let board = Board::default();
        for number in 0..REMEMBERED + 5 {
            tokio::time::advance(Duration::from_secs(1)).await;
            board.shard(&format!("{number:03}").as_str().into(), OfShard::Over(Ending::Lost));
        }
        let totals = board.totals();
        assert_eq!(totals.len(), REMEMBERED);
        assert_eq!(totals.keys().next().unwrap().as_str(), "005");
        assert_eq!(board.of_worker().endings["lost"], (REMEMBERED + 5) as u64);
    }
}
