//! The present state of the worker and of each of its shards.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multilangd_protocol::Action;
use tokio::time::Instant;

use super::events::{Ending, LastLines, OfShard, OfWorker};
use super::fleet::FleetReader;
use super::histogram::Histogram;
use super::pending::{Oldest, Pending};
use super::rate::Rate;
use super::sink::Sink;
use crate::sequence::Position;
use crate::shard::ShardId;

/// Most shards that are kept after this worker has left them: the ones it left last.
const REMEMBERED: usize = 64;
/// Characters of an error that are kept.
const READ_ERROR: usize = 500;

/// The order of an operator by which a shard is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByOperator {
    /// Whether the whole application is paused.
    pub application: bool,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// The operator.
    pub by: String,
}

/// The state of one shard. All counters start at 0 with the process.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// When the lease was acquired, or when the shard was left.
    pub since: Option<Instant>,
    /// Process id of the running child.
    pub pid: Option<u32>,
    /// Number of children started.
    pub starts: u64,
    /// Number of failures of children.
    pub failures: u64,
    /// When the first of the present failures in a row occurred; none once a child has answered.
    pub failing_since: Option<Instant>,
    /// The cause of the last failure, and the child's last lines on stderr.
    pub failure: Option<(String, Vec<String>)>,
    /// Access to the stderr lines of the running child.
    pub stderr: LastLines,
    /// When the shard was parked.
    pub parked_since: Option<Instant>,
    /// The order of an operator by which the shard is parked.
    pub order: Option<ByOperator>,
    /// Since when a record at which children fail is searched, and the number of suspects.
    pub bisecting: Option<(Instant, usize)>,
    /// Number of batches that were delivered again in smaller ones.
    pub splits: u64,
    /// Number of dead letters written.
    pub dead_letters: u64,
    /// The last dead letter: the position of its record, the last error, and when it was written.
    pub dead_letter: Option<(Position, String, Instant)>,
    /// Number of records that were not delivered because they were too old.
    pub aged: u64,
    /// Number of dead letters that were rejected.
    pub letter_failures: u64,
    /// Since when the shard waits for the destination of a dead letter, and why it was rejected.
    pub refused: Option<(Instant, String)>,
    /// Since when no child can be started for lack of resources, and the resource.
    pub shortage: Option<(Instant, String)>,
    /// The open action of the child, and when it was sent.
    pub asked: Option<(Action, Instant)>,
    /// Total time that children took to answer.
    pub in_child: Duration,
    /// Number of actions that children answered.
    pub answers: u64,
    /// Number of answers of Kinesis.
    pub fetches: u64,
    /// Records that were fetched and not yet taken by the consumer.
    pub waiting: u64,
    /// Number of failed reads.
    pub fetch_failures: u64,
    /// Since when reads fail.
    pub unread_since: Option<Instant>,
    /// Since when the first read is in progress; none once something was read.
    pub opening_since: Option<Instant>,
    /// Since when the next read waits for memory.
    pub room_since: Option<Instant>,
    /// The error of the last failed read, and when it occurred.
    pub read_error: Option<(String, Instant)>,
    /// The last error of any kind, and when it occurred.
    pub last_error: Option<(String, Instant)>,
    /// Since when the end of the shard is delayed.
    pub end_delayed_since: Option<Instant>,
    /// `MillisBehindLatest` of the last answer.
    pub millis_behind_latest: Option<i64>,
    /// When the last answer arrived since the lease was acquired.
    pub fetched: Option<Instant>,
    /// Number of records delivered.
    pub delivered: u64,
    /// Decoded bytes of the data delivered.
    pub bytes: u64,
    /// Number of batches delivered.
    pub batches: u64,
    /// Number of user records dropped.
    pub dropped: u64,
    /// Recent rate of records delivered.
    pub record_rate: Rate,
    /// Recent rate of decoded bytes delivered.
    pub byte_rate: Rate,
    /// Position of the last record delivered.
    pub last: Option<Position>,
    /// Arrival time of the last record delivered, in milliseconds since 1970.
    pub last_arrival: Option<i64>,
    /// When the shard last made progress: a delivery, an answer or a checkpoint.
    pub moved: Option<Instant>,
    /// The stored checkpoint.
    pub checkpoint: Option<Position>,
    /// Number of checkpoints stored.
    pub checkpoints: u64,
    /// Number of checkpoints that failed.
    pub checkpoint_failures: u64,
    /// Why this worker left the shard; none while it holds the lease.
    pub over: Option<Ending>,
    /// The records in this process that are not checkpointed.
    pub pending: Pending,
}

impl Totals {
    /// Whether the shard was processed to its end.
    pub fn ended(&self) -> bool {
        self.over == Some(Ending::ShardEnded)
    }

    /// Whether more was delivered than is checkpointed.
    pub fn is_unfinished(&self) -> bool {
        let behind =
            |last: &Position| self.checkpoint.as_ref().is_none_or(|stored| last.order(stored).is_gt());
        self.last.as_ref().is_some_and(behind)
    }

    /// The age in milliseconds, at `wall` in milliseconds since 1970, of the oldest record that is not checkpointed: one
    /// that is in this process or, if all of those are checkpointed, the next one to be read. 0 if everything in the
    /// shard is checkpointed; none if the age is unknown, as before the first read. While the shard cannot be read, a record
    /// may have arrived right after the last answer: the age is then the greatest possible.
    pub fn uncheckpointed_millis(&self, now: Instant, wall: i64) -> Option<i64> {
        let age = match self.pending.oldest() {
            // An answer to a read that was given up may come after the order.
            Oldest::Nothing if self.order.is_some() => return None,
            Oldest::Nothing => self.millis_behind_latest?.saturating_add(self.unread_millis(now)),
            Oldest::Arrived(arrival) => wall.saturating_sub(arrival?),
        };
        Some(age.max(0))
    }

    /// For how long the shard has not been read although it should be, in milliseconds.
    fn unread_millis(&self, now: Instant) -> i64 {
        let waits = self.unread_since.is_some() || self.room_since.is_some() || self.opening_since.is_some();
        let fetched = self.fetched.filter(|_| waits);
        let lasted = fetched.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        i64::try_from(lasted.as_millis()).unwrap_or(i64::MAX)
    }

    /// Notes an error by its cause and, if there is one, the last line of the child's stderr.
    fn failed(&mut self, now: Instant, what: &str, cause: &str, line: Option<&String>) {
        let colon = if cause.is_empty() { "" } else { ": " };
        let line = line.map(|line| format!(", last line on stderr: {line:?}")).unwrap_or_default();
        let error = format!("{what}{colon}{cause}{line}");
        self.last_error = Some((error.chars().take(READ_ERROR).collect(), now));
    }

    fn note(&mut self, now: Instant, event: OfShard<'_>) {
        match event {
            OfShard::Held { checkpoint } => {
                // The counters continue if this worker held the shard before.
                (self.since, self.moved, self.over) = (Some(now), Some(now), None);
                (self.asked, self.failing_since, self.unread_since) = (None, None, None);
                (self.read_error, self.failure, self.parked_since, self.shortage) = (None, None, None, None);
                (self.bisecting, self.refused, self.order) = (None, None, None);
                (self.record_rate, self.byte_rate) = (Rate::since(now), Rate::since(now));
                (self.checkpoint, self.pending) = (Some(checkpoint.clone()), Pending::default());
                (self.last, self.last_arrival, self.millis_behind_latest) = (None, None, None);
                (self.opening_since, self.room_since) = (None, None);
                (self.fetched, self.last_error) = (None, None);
            }
            OfShard::ChildStarted { pid } => {
                self.pid = Some(pid);
                self.starts += 1;
                self.shortage = None;
            }
            OfShard::Parked => {
                self.parked_since.get_or_insert(now);
                self.bisecting = None;
            }
            OfShard::Bisecting { records } => {
                let since = self.bisecting.map_or(now, |(since, _)| since);
                self.bisecting = Some((since, records));
                self.splits += u64::from(records > 1);
            }
            OfShard::Bisected => self.bisecting = None,
            OfShard::DeadLetter { position, error } => {
                self.dead_letters += 1;
                let error = error.chars().take(READ_ERROR).collect();
                self.dead_letter = Some((position.clone(), error, now));
                (self.refused, self.moved) = (None, Some(now));
            }
            OfShard::Aged { records, .. } => {
                self.aged += records as u64;
                self.moved = Some(now);
            }
            OfShard::LetterRefused { reason } => {
                self.letter_failures += 1;
                self.failed(now, "dead letter was rejected", reason, None);
                let since = self.refused.take().map_or(now, |(since, _)| since);
                self.refused = Some((since, reason.chars().take(READ_ERROR).collect()));
            }
            OfShard::Recovered => self.parked_since = None,
            OfShard::ParkedByOperator { application, since, by } => {
                self.order = Some(ByOperator { application, since, by: by.to_owned() });
                (self.failing_since, self.parked_since, self.shortage) = (None, None, None);
                (self.bisecting, self.refused, self.asked) = (None, None, None);
                (self.unread_since, self.opening_since, self.room_since) = (None, None, None);
                // Nothing is read, so the distance from the tip is unknown.
                (self.end_delayed_since, self.millis_behind_latest, self.waiting) = (None, None, 0);
            }
            OfShard::UnparkedByOperator => (self.order, self.moved) = (None, Some(now)),
            OfShard::Shortage { reason } => {
                self.failed(now, "record processor could not be started", reason, None);
                let since = self.shortage.take().map_or(now, |(since, _)| since);
                self.shortage = Some((since, reason.to_owned()));
            }
            OfShard::ChildFailed { times, reason, stderr } => {
                self.failures += 1;
                self.failed(now, "record processor failed", reason, stderr.last());
                self.failure = Some((reason.to_owned(), stderr.to_vec()));
                if times == 1 {
                    self.failing_since = None;
                }
                self.failing_since.get_or_insert(now);
                self.asked = None;
            }
            OfShard::Stderr(lines) => self.stderr = lines.clone(),
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
                self.fetched = Some(now);
                (self.unread_since, self.opening_since, self.room_since) = (None, None, None);
                self.millis_behind_latest = millis_behind_latest.or(self.millis_behind_latest);
            }
            OfShard::Received { first_arrival, last, last_arrival } => {
                self.pending.note(first_arrival, last, last_arrival, self.checkpoint.as_ref());
            }
            OfShard::FetchFailed { error, .. } => {
                self.read_error = Some((error.chars().take(READ_ERROR).collect(), now));
                self.failed(now, "failed to read the shard", error, None);
                self.fetch_failures += 1;
                self.unread_since.get_or_insert(now);
            }
            OfShard::Waiting { records } => self.waiting = records as u64,
            OfShard::Delivered { records, bytes, last, arrival } => {
                // Everything delivered before is checkpointed: earlier failures concern no pending record.
                if !self.is_unfinished() {
                    self.failing_since = None;
                }
                self.delivered += records as u64;
                self.bytes += bytes as u64;
                self.batches += 1;
                self.record_rate.add(now, records);
                self.byte_rate.add(now, bytes);
                self.moved = Some(now);
                // A batch may be delivered in parts, each of which may be checkpointed.
                self.pending.note(arrival, last, arrival, self.checkpoint.as_ref());
                (self.last, self.last_arrival) = (Some(last.clone()), arrival);
            }
            OfShard::Dropped { records } => self.dropped += records as u64,
            OfShard::Checkpointed { position, .. } => {
                self.checkpoints += 1;
                self.moved = Some(now);
                self.pending.checkpointed(position);
                self.checkpoint = Some(position.clone());
            }
            OfShard::CheckpointFailed { .. } => {
                self.checkpoint_failures += 1;
                self.failed(now, "failed to store a checkpoint", "", None);
            }
            OfShard::EndDelayed => {
                self.end_delayed_since.get_or_insert(now);
            }
            OfShard::Over(ending) => {
                (self.end_delayed_since, self.parked_since, self.shortage) = (None, None, None);
                (self.opening_since, self.room_since) = (None, None);
                (self.bisecting, self.refused, self.order) = (None, None, None);
                (self.over, self.pid, self.asked, self.waiting) = (Some(ending), None, None, 0);
                self.pending = Pending::default();
                (self.since, self.moved) = (Some(now), Some(now));
            }
        }
    }
}

/// The state of the worker.
#[derive(Debug, Clone, Default)]
pub struct Worker {
    /// Whether leases can be acquired.
    pub ready: bool,
    /// Whether the worker is shutting down.
    pub stopping: bool,
    /// When the lease table was last scanned.
    pub looked: Option<Instant>,
    /// Leases of shards that are not finished.
    pub leases: usize,
    /// Number of live workers.
    pub workers: usize,
    /// Open shards that no live worker reads; none if another worker counts them.
    pub unread: Option<usize>,
    /// Those of `unread` that no worker read at the previous audit either.
    pub unread_for_long: usize,
    /// Whether this worker is the leader.
    pub leads: bool,
    /// Number of leases acquired.
    pub taken: u64,
    /// Number of leases that this worker left, by reason.
    pub endings: BTreeMap<&'static str, u64>,
    /// Number of call attempts, by service and operation.
    pub calls: BTreeMap<(String, String), Calls>,
    /// Time that children took to answer, by action.
    pub answers: BTreeMap<&'static str, Histogram>,
    /// Access to what the worker knows of its fleet.
    pub fleet: FleetReader,
}

/// Attempts at one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Number of successful attempts.
    pub ok: u64,
    /// Number of attempts that were refused or not answered.
    pub failed: u64,
    /// Their durations.
    pub took: Histogram,
}

/// A sink that keeps the state.
#[derive(Debug, Default)]
pub struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, Totals>,
    worker: Worker,
}

impl Board {
    /// A copy of the state of all shards.
    pub fn totals(&self) -> BTreeMap<ShardId, Totals> {
        self.lock().shards.clone()
    }

    /// A copy of the worker's state.
    pub fn of_worker(&self) -> Worker {
        self.lock().worker.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove_oldest(&mut self) {
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
        if let OfShard::Answered { action, took } = event {
            state.worker.answers.entry(action.name()).or_default().add(took);
        }
        if let OfShard::Over(ending) = event {
            *state.worker.endings.entry(ending.word()).or_default() += 1;
            state.remove_oldest();
        }
    }

    fn worker(&self, event: OfWorker<'_>) {
        let worker = &mut self.lock().worker;
        match event {
            // Local mode starts a daemon again after a stop.
            OfWorker::Ready => (worker.ready, worker.stopping) = (true, false),
            OfWorker::Stopping => worker.stopping = true,
            OfWorker::Fleet(fleet) => worker.fleet = fleet.clone(),
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
                calls.took.add(took);
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
    async fn checkpoint_has_the_arrival_time_of_its_last_batch() {
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
            board.totals()[&shard].pending.checkpointed_arrival()
        };
        assert_eq!(stored(5), None);
        assert_eq!(stored(20), Some(2_000));
        assert_eq!(stored(25), Some(2_000));
        assert_eq!(stored(30), Some(3_000));
        let totals = &board.totals()[&shard];
        assert_eq!((totals.delivered, totals.bytes, totals.batches, totals.checkpoints), (30, 300, 3, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn reader_at_the_tip_does_not_hide_records_without_checkpoint() {
        let board = Board::default();
        let shard = ShardId::from("s");
        let age = || board.totals()[&shard].uncheckpointed_millis(Instant::now(), 100_000);
        let fetched =
            |behind| OfShard::Fetched { records: 1, millis_behind_latest: Some(behind), took: None };
        board.shard(&shard, OfShard::Held { checkpoint: &at(1) });
        assert_eq!(age(), None, "nothing was read");
        board.shard(&shard, fetched(7_000));
        assert_eq!(age(), Some(7_000), "the next record to be read");
        let last = &at(10);
        board.shard(
            &shard,
            OfShard::Received { first_arrival: Some(60_000), last, last_arrival: Some(61_000) },
        );
        board.shard(&shard, fetched(0));
        assert_eq!(age(), Some(40_000), "in memory");
        board.shard(&shard, OfShard::Delivered { records: 9, bytes: 9, last, arrival: Some(61_000) });
        board.shard(&shard, OfShard::failed(1));
        assert_eq!(age(), Some(40_000), "the next child gets it");
        board.shard(&shard, OfShard::Checkpointed { position: last, took: Duration::ZERO });
        assert_eq!(age(), Some(0));
        board.shard(&shard, OfShard::Over(Ending::Lost));
        assert_eq!(board.totals()[&shard].pending, Pending::default());
    }

    #[tokio::test(start_paused = true)]
    async fn age_grows_while_the_shard_cannot_be_read() {
        let board = Board::default();
        let shard = ShardId::from("s");
        let age = || board.totals()[&shard].uncheckpointed_millis(Instant::now(), 100_000);
        let fetched = || {
            let read = OfShard::Fetched { records: 0, millis_behind_latest: Some(0), took: None };
            board.shard(&shard, read);
        };
        board.shard(&shard, OfShard::Held { checkpoint: &at(1) });
        fetched();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(age(), Some(0), "a subscription is quiet");
        for fails in [OfShard::FetchFailed { error: "denied", took: None }, OfShard::WaitsForRoom(true)] {
            fetched();
            board.shard(&shard, fails);
            tokio::time::advance(Duration::from_secs(600)).await;
            assert_eq!(age(), Some(600_000));
        }
        fetched();
        assert_eq!(age(), Some(0));
        board.shard(&shard, OfShard::ParkedByOperator { application: false, since: 0, by: "ann" });
        fetched();
        assert_eq!(age(), None, "the answer to a read that was given up");
    }

    #[tokio::test(start_paused = true)]
    async fn child_time_is_from_action_to_answer() {
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
    async fn last_error_is_the_newest_of_all_kinds() {
        let board = Board::default();
        let shard = ShardId::from("s");
        let newest = || board.totals()[&shard].last_error.clone();
        board.shard(&shard, OfShard::Held { checkpoint: &at(1) });
        assert_eq!(newest(), None);
        let stderr = ["first".to_owned(), "KeyError: 'x'".to_owned()];
        board.shard(&shard, OfShard::ChildFailed { times: 1, reason: "exit code 1", stderr: &stderr });
        let (error, at) = newest().unwrap();
        assert!(error.contains("exit code 1") && error.contains("KeyError") && !error.contains("first"));
        tokio::time::advance(Duration::from_secs(1)).await;
        board.shard(&shard, OfShard::FetchFailed { took: None, error: &"x".repeat(1_000) });
        let (error, later) = newest().unwrap();
        assert_eq!((error.chars().count(), later - at), (READ_ERROR, Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_an_operator_ends_failures_and_lag() {
        let board = Board::default();
        let shard = ShardId::from("s");
        board.shard(&shard, OfShard::Held { checkpoint: &at(1) });
        board.shard(&shard, OfShard::Fetched { records: 1, millis_behind_latest: Some(9_000), took: None });
        board.shard(&shard, OfShard::failed(5));
        board.shard(&shard, OfShard::Parked);
        board.shard(&shard, OfShard::ParkedByOperator { application: true, since: 7, by: "ann" });
        let totals = &board.totals()[&shard];
        assert_eq!(totals.order, Some(ByOperator { application: true, since: 7, by: "ann".to_owned() }));
        assert_eq!(
            (totals.parked_since, totals.failing_since, totals.millis_behind_latest),
            (None, None, None)
        );
        board.shard(&shard, OfShard::UnparkedByOperator);
        assert_eq!(board.totals()[&shard].order, None);
    }

    #[test]
    fn worker_that_starts_again_is_ready() {
        let board = Board::default();
        for event in [OfWorker::Ready, OfWorker::Stopping, OfWorker::Ready] {
            board.worker(event);
        }
        let worker = board.of_worker();
        assert_eq!((worker.ready, worker.stopping), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn newest_left_shards_are_kept() {
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
