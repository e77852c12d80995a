//! Processes one shard under one lease, from the acquisition to the exit of the child.
//!
//! [`state::State`] decides; this module waits and executes. One task per shard owns the child, the feed and
//! the requests in progress; nothing of them outlives the task.
//!
//! In KCL: `ShardConsumer` and its tasks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use multilangd_protocol::{Action, CheckpointFailure, Dialect, session};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, warn};

use crate::batch::Batch;
use crate::capacity::Capacity;
use crate::clock::{self, ServiceClock};
use crate::lease::{Held, Table};
use crate::letters::{Condition, Failure, Letters};
use crate::metrics::{Ending, LastLines, OfShard};
use crate::multilang::{self, Child, ForShard, Launch, SpawnError, launch};
use crate::retrieval::{Feed, Source};
use crate::shard::BoxFuture;
use crate::stream::ByStream;

pub mod ending;
pub mod event;
mod lettering;
pub mod parents;
mod parking;
pub mod program;
mod sending;
pub mod state;
pub mod suspects;

use event::{Effect, Event, NotSpawned};
pub use event::{Outcome, Settings};
pub use program::Standings;
use state::State;

/// A lease without resources for its child for this long is released to another worker, if there is one.
const SURPLUS: Duration = Duration::from_secs(10);
/// Interval between log lines about rejected checkpoints of one shard.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// The time between log lines about a shard that cannot begin or cannot end yet.
const DELAY_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Shared dependencies of all consumers of a daemon.
#[derive(Clone)]
pub struct Parts {
    /// The lease table, for the leases of parent and child shards.
    pub table: Arc<dyn Table>,
    /// Retrieval of the records of each stream.
    pub sources: ByStream<Source>,
    /// Starts record processors.
    pub program: Arc<dyn Launch>,
    /// The protocol's names for the end of a shard and a lost lease.
    pub dialect: Dialect,
    /// Times and limits.
    pub settings: Settings,
    /// The start for a lease at `AT_TIMESTAMP`, in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Whether the user records of aggregates are checked against the shard's hash keys.
    pub check_hash_keys: bool,
    /// Whether the program works, and which shards are parked.
    pub standings: Arc<Standings>,
    /// The number of leases that this worker can hold.
    pub capacity: Arc<Capacity>,
    /// Where dead letters are written; required if [`Settings::dead_letters`] is set.
    pub letters: Option<Letters>,
    /// The wall clock, in milliseconds since 1970.
    pub wall: fn() -> i64,
    /// The time at AWS, which bounds the wall clock where ages of records are measured.
    pub clock: ServiceClock,
}

/// Signals to a consumer from outside.
#[derive(Debug)]
pub struct Signals {
    /// Cancelled when the daemon shuts down.
    pub stop: CancellationToken,
    /// Receives a message whenever a shard of this daemon was finished.
    pub finished: broadcast::Receiver<()>,
}

/// Processes a shard until its end, the loss of its lease, a shutdown, or the permanent failure of its child.
pub async fn run(held: Arc<Held>, parts: Parts, signals: Signals) -> Outcome {
    match parts.sources.get(held.key().stream()) {
        Some(source) => Consumer::new(held, parts, source).run(signals).await,
        None => {
            debug_assert!(false, "only leases of the streams that this worker reads are acquired");
            Outcome::Stopped
        }
    }
}

type Spawning = BoxFuture<'static, Result<Child, SpawnError>>;

struct Consumer {
    held: Arc<Held>,
    parts: Parts,
    /// Retrieval of the records of the shard's stream.
    source: Source,
    state: State,
    child: Option<Child>,
    /// The child that is being started.
    spawning: Option<Spawning>,
    /// Since when no child can be started for lack of resources.
    short_since: Option<Instant>,
    /// The number of processes that were started since a checkpoint was last stored.
    attempt: u32,
    /// Process id of the last child, which may have exited.
    pid: Option<u32>,
    /// The last stderr lines of a child that has exited.
    stderr: Vec<String>,
    /// Number of rejected checkpoints that were not logged, and when one was last logged.
    refused: (u64, Option<Instant>),
    /// Number of records that were passed for their age and not logged, and when that was last logged.
    aged: (u64, Option<Instant>),
    feed: Option<Feed>,
    /// When an action was last sent to the child.
    asked: Instant,
    /// When the delayed start or end of the shard was last logged.
    delay_logged: Option<Instant>,
    /// The failures of a child at one record, for its dead letter.
    failures: Vec<Failure>,
    /// How often that record has failed alone.
    alone: u32,
    /// Why the consumer ends, once known.
    ending: Option<Ending>,
    /// Whether the shard was read before.
    opened: bool,
    /// A time before reading began, in milliseconds since 1970.
    begun: i64,
    /// Whether an operator parked the shard since.
    was_parked: bool,
    /// Requests in progress; each ends with an event.
    work: JoinSet<Event>,
    events: VecDeque<Event>,
}

impl Consumer {
    fn new(held: Arc<Held>, parts: Parts, source: Source) -> Self {
        let (lease, begun) = (held.initial(), parts.clock.past());
        let state = State::new(
            parts.settings.clone(),
            lease.checkpoint.clone(),
            !lease.parents.is_empty(),
            fastrand::Rng::new(),
        );
        Self {
            held,
            parts,
            source,
            state,
            child: None,
            spawning: None,
            short_since: None,
            attempt: 0,
            opened: false,
            begun,
            was_parked: false,
            pid: None,
            stderr: Vec::new(),
            refused: (0, None),
            aged: (0, None),
            feed: None,
            asked: Instant::now(),
            delay_logged: None,
            failures: Vec::new(),
            alone: 0,
            ending: None,
            work: JoinSet::new(),
            events: VecDeque::new(),
        }
    }

    async fn run(mut self, mut signals: Signals) -> Outcome {
        let mut orders = self.held.orders();
        // Before the start, so that no child is started.
        let order = orders.borrow_and_update().clone();
        self.events.extend(order.map(Event::Park));
        self.events.push_back(Event::Begin);
        self.emit(OfShard::Held { checkpoint: self.state.stored() });
        if self.held.initial().parents.is_empty() {
            self.parts.standings.trying(self.held.key());
        } else {
            self.parts.standings.waiting(self.held.key());
        }
        let (mut stopping, mut wanted, mut lost) = (false, false, false);
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Event::Stored(_, Ok(())) = &event {
                    self.attempt = 0;
                }
                let now = Instant::now();
                if self.parts.settings.max_age.is_some() {
                    self.state.note_time(self.parts.clock.earliest());
                }
                for effect in self.state.on(now, event) {
                    if let Some(outcome) = self.perform(effect) {
                        return outcome;
                    }
                }
            }
            let deadline = self.state.deadline();
            let event = tokio::select! {
                biased;
                // A lost lease and a stop come first, because they change how the other events are handled.
                () = self.held.lost().cancelled(), if !lost => {
                    lost = true;
                    Event::LeaseLost
                }
                () = signals.stop.cancelled(), if !stopping => {
                    stopping = true;
                    Event::Stop
                }
                () = self.held.wanted().cancelled(), if !wanted => {
                    wanted = true;
                    info!(
                        event = "handoff_started",
                        "starting a graceful handoff, finishing the current batch");
                    Event::Wanted
                }
                Ok(()) = orders.changed() => {
                    let order = orders.borrow_and_update().clone();
                    order.map_or(Event::Unpark, Event::Park)
                }
                // Completed requests unblock a child that waits for an answer.
                Some(done) = self.work.join_next() => match done {
                    Ok(event) => event,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => continue,
                },
                // Before the child, so that a child that sends without end cannot delay a deadline.
                () = clock::reached(deadline) => Event::Deadline,
                outcome = spawned(&mut self.spawning) => self.spawned(outcome),
                event = next_of(&mut self.child) => self.child_event(event),
                Ok(()) | Err(RecvError::Lagged(_)) = signals.finished.recv() => Event::ShardFinished,
                // Records last: no batch is started while another event is pending.
                () = std::future::ready(()), if self.state.wants_rest() => {
                    if !self.held.is_live(Instant::now()) {
                        self.held.mark_lost();
                        continue;
                    }
                    Event::Rest
                }
                batch = batch_of(&mut self.feed), if self.state.wants_batch() => match batch {
                    // The lease may have expired without being noticed.
                    Some(_) if !self.held.is_live(Instant::now()) => {
                        self.held.mark_lost();
                        continue;
                    }
                    Some(batch) => {
                        if batch.dropped > 0 {
                            self.emit(OfShard::Dropped { records: batch.dropped });
                        }
                        Event::Batch(batch)
                    }
                    None => {
                        self.feed = None;
                        Event::FeedBroke
                    }
                },
            };
            self.events.push_back(event);
        }
    }

    fn emit(&self, event: OfShard<'_>) {
        self.source.sink.shard(self.held.shard(), event);
    }

    fn spawned(&mut self, outcome: Result<Child, SpawnError>) -> Event {
        self.stderr.clear();
        match outcome {
            Ok(child) => {
                self.emit(OfShard::ChildStarted { pid: child.pid() });
                let tail = child.stderr();
                self.emit(OfShard::Stderr(&LastLines::new(move || tail.lines())));
                if self.pid.is_some() {
                    info!(event = "processor_restarted", pid = child.pid(), "restarted record processor");
                }
                self.pid = Some(child.pid());
                self.child = Some(child);
                Event::Spawned
            }
            Err(error) => {
                self.pid = None;
                let reason = error.to_string();
                Event::NotSpawned(if error.is_shortage() {
                    NotSpawned::Shortage(reason)
                } else {
                    NotSpawned::Failed(reason)
                })
            }
        }
    }

    fn child_event(&mut self, event: multilang::Event) -> Event {
        if let multilang::Event::Said(session::Event::Done(action)) = &event {
            self.emit(OfShard::Answered { action: *action, took: self.asked.elapsed() });
            if *action == Action::Initialize {
                if self.short_since.take().is_some() {
                    self.parts.capacity.recovered();
                }
                self.parts.standings.worked();
            }
        }
        if let multilang::Event::Reported(action) = &event {
            self.emit(OfShard::Answered { action: *action, took: self.asked.elapsed() });
        }
        if let multilang::Event::Exited(end) = &event
            && let Some(child) = self.child.take()
        {
            self.stderr = child.last_stderr();
            self.emit(OfShard::ChildGone);
            info!(event = "processor_exited", pid = child.pid(), status = %end, "record processor exited");
            if let Some(line) = self.stderr.last().filter(|line| launch::names_shortage(line)) {
                return Event::Starved { end: end.clone(), line: line.clone() };
            }
        }
        Event::Child(event)
    }

    /// Starts a request in the span of the shard; its end is an event.
    fn spawn(&mut self, task: impl Future<Output = Event> + Send + 'static) {
        self.work.spawn(task.in_current_span());
    }

    fn perform(&mut self, effect: Effect) -> Option<Outcome> {
        match effect {
            Effect::CheckParents => {
                let (table, held) = (self.parts.table.clone(), self.held.clone());
                let recognition = self.source.recognition.clone();
                self.spawn(
                    async move { Event::Parents(parents::may_begin(&*table, &held, &recognition).await) },
                );
            }
            Effect::OpenFeed(sequence) => self.open_feed(&sequence),
            Effect::CloseFeed => self.feed = None,
            Effect::Spawn => {
                self.parts.standings.trying(self.held.key());
                self.attempt = self.attempt.saturating_add(1);
                let identity = self.source.recognition.current();
                let stream_arn = identity.map(|stream| stream.arn().to_owned());
                let start = ForShard { stream_arn, attempt: self.attempt, ..ForShard::of(self.held.key()) };
                let (program, dialect) = (self.parts.program.clone(), self.parts.dialect);
                self.spawning = Some(Box::pin(async move { Child::spawn(&*program, dialect, &start).await }));
            }
            Effect::Send(message) => self.send(message),
            Effect::Acknowledge(outcome) => {
                if let Err(failure) = &outcome {
                    self.refused(*failure);
                }
                if let Some(child) = &mut self.child {
                    child.acknowledge(outcome);
                }
            }
            Effect::Store(position) => {
                let (held, sink) = (self.held.clone(), self.source.sink.clone());
                self.spawn(async move {
                    let began = Instant::now();
                    let outcome = held.checkpoint(&position).await;
                    let took = began.elapsed();
                    match &outcome {
                        Ok(()) => {
                            sink.shard(held.shard(), OfShard::Checkpointed { position: &position, took });
                        }
                        Err(error) => {
                            sink.shard(held.shard(), OfShard::CheckpointFailed { took });
                            warn!(event = "checkpoint_failed", checkpoint = %position, %error,
                                "failed to store the checkpoint")
                        }
                    }
                    Event::Stored(position, outcome)
                });
            }
            Effect::PrepareEnd(children) => {
                let (table, held) = (self.parts.table.clone(), self.held.clone());
                let recognition = self.source.recognition.clone();
                self.spawn(async move {
                    Event::EndPrepared(ending::prepare(&*table, &held, &children, &recognition).await)
                });
            }
            Effect::CloseStdin => {
                if let Some(child) = &mut self.child {
                    child.close_stdin();
                }
            }
            Effect::Signal(stop) => {
                if let Some(child) = &self.child {
                    warn!(event = "processor_signaled", pid = child.pid(), signal = %stop,
                        "record processor did not exit in time, sending a signal");
                    child.stop(stop);
                }
            }
            Effect::Abandon => {
                if let Some(child) = self.child.take() {
                    self.stderr = child.last_stderr();
                    self.emit(OfShard::ChildGone);
                    warn!(
                        event = "processor_abandoned",
                        pid = child.pid(),
                        "record processor did not exit after SIGKILL, continuing without it"
                    );
                }
            }
            Effect::Failed(reason, times) => {
                let stderr = self.stderr();
                self.emit(OfShard::ChildFailed { times, reason: &reason, stderr: &stderr });
                warn!(event = "processor_failed",
                    pid = self.pid, error = reason, stderr = stderr.last(), failures = times,
                    max_failures = self.parts.settings.max_failures, checkpoint = %self.state.stored(),
                    "record processor failed, restarting it from the stored checkpoint");
            }
            Effect::Bisecting(reason, records, alone) => self.bisecting(reason, records, alone),
            Effect::Bisected => self.emit(OfShard::Bisected),
            Effect::Letter(record) => self.write_letters(vec![*record], Condition::RetryAttemptsExhausted),
            Effect::AgedLetters(records) => self.write_letters(records, Condition::RecordAgeExceeded),
            Effect::Aged { records, first, last } => self.aged(records, &first, &last),
            Effect::LetterRefused(error, retry_in) => {
                self.emit(OfShard::LetterRefused { reason: &error });
                warn!(
                    event = "dead_letter_failed",
                    error,
                    ?retry_in,
                    "failed to write a dead letter, the shard waits for its destination (multilangd.deadLetters)"
                );
            }
            Effect::Parked(reason, pause) => {
                self.emit(OfShard::Parked);
                let stderr = self.stderr();
                error!(event = "shard_parked",
                    error = reason, stderr = stderr.last(), checkpoint = %self.state.stored(), retry_in = ?pause,
                    "parked the shard: its record processor has failed too many times in a row \
                     (multilangd.maxChildFailures); other shards are not affected");
                self.parts.standings.parked(self.held.key(), with_stderr(reason, &stderr));
            }
            Effect::Recovered => {
                self.emit(OfShard::Recovered);
                self.parts.standings.recovered(self.held.key());
                info!(
                    event = "shard_resumed",
                    pid = self.pid,
                    "resumed a parked shard: its record processor makes progress again"
                );
            }
            Effect::ParkedByOperator(order) => self.parked_by_operator(&order),
            Effect::UnparkedByOperator => self.unparked_by_operator(),
            Effect::Shortage(reason) => {
                self.emit(OfShard::Shortage { reason: &reason });
                let now = Instant::now();
                self.parts.capacity.shortage(now);
                let since = *self.short_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= SURPLUS && self.parts.capacity.has_peers() {
                    info!(
                        event = "lease_released_for_resources",
                        "releasing the lease to another worker: this worker lacks the resources for \
                         another record processor"
                    );
                    self.events.push_back(Event::Surplus);
                }
                if self.parts.standings.reports_shortage(now) {
                    warn!(
                        event = "processor_start_deferred",
                        error = reason,
                        "cannot start another record processor for lack of resources, retrying"
                    );
                }
            }
            Effect::Slow(taken) => {
                warn!(event = "processor_slow", pid = self.pid, lasted = ?taken,
                    "record processor is still processing its batch");
            }
            Effect::EndDelayed(reason) => {
                self.emit(OfShard::EndDelayed);
                if self.delay_logged.is_none_or(|at| at.elapsed() >= DELAY_LOG_INTERVAL) {
                    self.delay_logged = Some(Instant::now());
                    warn!(
                        event = "child_leases_failed",
                        error = reason,
                        "the shard is read to its end, but failed to create the leases of its child \
                         shards, retrying"
                    );
                }
            }
            Effect::ParentsUnknown(error) => {
                if self.delay_logged.is_none_or(|at| at.elapsed() >= DELAY_LOG_INTERVAL) {
                    self.delay_logged = Some(Instant::now());
                    warn!(
                        event = "parent_leases_failed",
                        error, "failed to read the leases of the parent shards, retrying"
                    );
                }
            }
            Effect::ShutdownRefused(answer) => {
                warn!(
                    event = "shutdown_not_confirmed",
                    pid = self.pid,
                    answer,
                    "record processor did not confirm shutdownRequested"
                );
            }
            Effect::StopTimedOut => {
                warn!(
                    event = "shutdown_grace_exceeded",
                    pid = self.pid,
                    "record processor did not stop within shutdownGraceMillis, closing its stdin"
                );
            }
            Effect::FailedWhileStopping(error) => {
                warn!(
                    event = "processor_failed_at_shutdown",
                    pid = self.pid,
                    error,
                    "record processor failed during its shutdown"
                );
            }
            Effect::Finish(mut outcome) => {
                if let Outcome::Hopeless(reason) = &mut outcome {
                    *reason = with_stderr(std::mem::take(reason), &self.stderr());
                }
                self.ending = Some(match outcome {
                    Outcome::ShardEnded => Ending::ShardEnded,
                    Outcome::LeaseLost => Ending::Lost,
                    Outcome::Stopped if self.held.wanted().is_cancelled() => Ending::HandedOff,
                    Outcome::Stopped => Ending::Released,
                    Outcome::Hopeless(_) => Ending::Hopeless,
                });
                self.log_aged();
                return Some(outcome);
            }
        }
        None
    }

    /// The last lines that the present or the previous child wrote to stderr.
    fn stderr(&self) -> Vec<String> {
        self.child.as_ref().map_or_else(|| self.stderr.clone(), Child::last_stderr)
    }

    /// Logs a rejected checkpoint, at a limited rate: a child may request one with each record.
    fn refused(&mut self, failure: CheckpointFailure) {
        let now = Instant::now();
        let (count, logged) = &mut self.refused;
        *count += 1;
        if logged.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_AGAIN) {
            warn!(event = "checkpoint_rejected", pid = self.pid, error = failure.name(), count = *count,
                checkpoint = %self.state.stored(), "rejected a checkpoint of the record processor");
            (*count, *logged) = (0, Some(now));
        }
    }
}

impl Drop for Consumer {
    /// However the consumer ends, even by a panic, its lease is released.
    fn drop(&mut self) {
        self.emit(OfShard::Over(self.ending.unwrap_or(Ending::Released)));
        self.parts.standings.over(self.held.key());
    }
}

fn with_stderr(reason: String, stderr: &[String]) -> String {
    match stderr.last() {
        Some(line) => format!("{reason}; last line on stderr: {line:?}"),
        None => reason,
    }
}

/// Cancel-safe: the next call continues the start.
async fn spawned(spawning: &mut Option<Spawning>) -> Result<Child, SpawnError> {
    let Some(start) = spawning else { return std::future::pending().await };
    let outcome = start.await;
    *spawning = None;
    outcome
}

async fn next_of(child: &mut Option<Child>) -> multilang::Event {
    match child {
        Some(child) => child.next().await,
        None => std::future::pending().await,
    }
}

async fn batch_of(feed: &mut Option<Feed>) -> Option<Batch> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}
