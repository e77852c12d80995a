//! The life of a shard consumer as a pure state machine: events in, effects out, no I/O, no clock.
//!
//! ```text
//! waiting -> starting -> idle <-> processing -> preparing end -> ending -> closing -> finished
//!                         |  '-> notifying -> losing ------------------------^
//!                         '----------------------------> losing -------------'
//! any of these -> closing -> backing off -> starting      (the child failed; a parked shard has longer pauses)
//! idle <-> aged                                                         (records are too old to be delivered)
//! any of these -> closing -> parked by operator -> waiting or starting
//! closing -> lettering <-> letter refused; lettering -> passing -> starting       (a record fails for good)
//! ```
//!
//! Rules:
//! * at most one action is open with the child, and only a deadline ends an open action early;
//! * if several are due, the order is: lease lost, shard end, stop;
//! * a child that failed is restarted from the stored checkpoint; records that were delivered but not
//!   checkpointed are delivered again;
//! * a stop and a lost lease end every phase: waiting and backing off at once, the others when the child has
//!   answered or its time is over. An order of an operator to park the shard likewise, but the lease is kept.
//!
//! In KCL: `ConsumerStates`, `ShardConsumer`, `ShutdownTask`.

#![expect(clippy::wildcard_enum_match_arm, reason = "most events concern few phases")]

mod age;
mod closing;
mod deadlines;
mod delivery;
mod lettering;
mod parking;
mod stopping;

use std::collections::VecDeque;
use std::time::Duration;

use multilangd_protocol::{Action, CheckpointFailure, CheckpointRequest, session};
use tokio::time::Instant;

use super::event::{Effect, EndError, Event, Message, NotSpawned, Outcome, Settings};
use super::suspects::Suspects;
use crate::backoff::Backoff;
use crate::batch::{Batch, Records};
use crate::checkpoint::{self, Progress, Verdict};
use crate::lease::held;
use crate::lease::orders::Parking;
use crate::multilang;
use crate::record::Record;
use crate::sequence::{Position, Sequence};
use crate::shard::ChildShard;

/// A failure of a child that ran for this long, and has checkpointed everything delivered, starts a new row:
/// otherwise the failures of a shard without records would add up for ever.
const LIVED_WELL: Duration = Duration::from_secs(60);

/// The longest pause between restarts of a child whose shard is not parked.
const RESTART: Duration = Duration::from_secs(30);
/// The first pause after a child could not be started for lack of resources.
const SHORTAGE: Duration = Duration::from_secs(1);

/// Interval between warnings about one slow batch. Java: every second.
const WARN_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// For parents; when they are checked next, unless a check is in progress.
    Waiting(Option<Instant>),
    Starting,
    Idle,
    Processing,
    /// The leases of the child shards are being created, or will be at that time.
    PreparingEnd(Option<Instant>),
    Ending,
    Notifying,
    Losing,
    Closing {
        then: Then,
        step: Step,
        by: Instant,
    },
    BackingOff(Instant),
    /// A dead letter is being written. No child runs.
    Lettering,
    /// The dead letter was rejected and is written again at that time. No child runs.
    LetterRefused(Instant),
    /// The position of the record of a dead letter is being stored. No child runs.
    Passing,
    /// Records that are too old are being passed. The child is idle.
    Aged(AgedStep),
    /// An operator has parked the shard. No child runs, and nothing is read.
    ParkedByOperator,
    Finished,
}

/// The next phase once the child has exited.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    Restart(String),
    /// An operator parks the shard.
    Park,
    Finish(Outcome),
}

/// The steps of stopping a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    StdinClosed,
    Terminated,
    Killed,
    /// The child has exited; a checkpoint is still being written.
    Gone,
}

/// The steps of passing records that are too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AgedStep {
    /// The letters of the first of them are being written.
    Writing,
    /// The first letter was rejected; they are written again at that time.
    Refused(Instant),
    /// Their position is being stored.
    Storing,
}

/// The state of one shard consumer.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    has_parents: bool,
    phase: Phase,
    progress: Progress,
    /// The first record delivered while a sentinel is stored: where to read again.
    anchor: Option<Sequence>,
    feed_open: bool,
    /// Whether records of the present feed were delivered to a child.
    delivered: bool,
    /// The child shards, once the end of the shard was read.
    end: Option<Vec<ChildShard>>,
    /// The part of the last batch that is not delivered yet.
    rest: Option<Batch>,
    /// Parts of the batch that precede `rest`, each to be delivered at once. Empty if there is no rest.
    pieces: VecDeque<Records>,
    /// Records that are too old and wait for their dead letters, in order.
    aged: VecDeque<Record>,
    /// The time by which ages of records are measured, in milliseconds since 1970.
    wall: Option<i64>,
    /// Until when `rest` waits for more records.
    gathering: Option<Instant>,
    /// The search for records at which children fail; none without dead letters.
    suspects: Option<Suspects>,
    /// The record to be written to the dead letters, and the position before it.
    poison: Option<(Box<Record>, Position)>,
    /// Whether the last failure of the child was one of a search, after which pauses do not grow.
    is_narrowed: bool,
    narrowing: Backoff,
    /// Whether a checkpoint was rejected during the open action. A child that fails then may fail for that.
    has_rejected: bool,
    /// Pauses between attempts to write a dead letter.
    refusals: Backoff,
    storing: bool,
    child_alive: bool,
    answer_by: Option<Instant>,
    /// When the present batch was delivered, and when the next warning about it is due.
    slow: Option<(Instant, Instant)>,
    /// The deadline that a stop or a lost lease sets for everything in progress.
    hurry: Option<Instant>,
    stop: bool,
    lost: bool,
    /// The order of an operator by which the shard is parked, or will be.
    order: Option<Parking>,
    /// Whether the child is being ended for such an order.
    parking: bool,
    failures: u32,
    /// Whether the shard is parked: the child failed too often in a row, and has not shown since that it
    /// works.
    parked: bool,
    /// When the present child was started.
    started: Option<Instant>,
    backoff: Backoff,
    /// Pauses between attempts to start a child for lack of resources.
    shortage: Backoff,
    /// The number of children in a row that had no resources to start.
    starved: u32,
}

type Effects = Vec<Effect>;

impl State {
    /// The state for a lease that was just acquired, with its stored checkpoint.
    pub fn new(settings: Settings, stored: Position, has_parents: bool, random: fastrand::Rng) -> Self {
        let shortage = Backoff::new(SHORTAGE, SHORTAGE * 10, random.clone());
        let refusals = Backoff::new(SHORTAGE, RESTART, random.clone());
        let narrowing = Backoff::new(settings.task_backoff, RESTART, random.clone());
        let backoff = Backoff::new(settings.task_backoff, RESTART, random);
        let suspects = settings.dead_letters.map(Suspects::new);
        Self {
            settings,
            has_parents,
            phase: Phase::Waiting(None),
            progress: Progress::new(stored),
            anchor: None,
            feed_open: false,
            delivered: false,
            end: None,
            rest: None,
            pieces: VecDeque::new(),
            aged: VecDeque::new(),
            wall: None,
            gathering: None,
            suspects,
            poison: None,
            is_narrowed: false,
            narrowing,
            has_rejected: false,
            refusals,
            storing: false,
            child_alive: false,
            answer_by: None,
            slow: None,
            hurry: None,
            stop: false,
            lost: false,
            order: None,
            parking: false,
            failures: 0,
            parked: false,
            started: None,
            backoff,
            shortage,
            starved: 0,
        }
    }

    /// Whether the child is ready for records. A batch is taken from the feed only then.
    pub fn wants_batch(&self) -> bool {
        let has_room = self.rest.is_none() || self.gathering.is_some();
        self.phase == Phase::Idle && self.end.is_none() && has_room && !self.is_halting()
    }

    /// The stored checkpoint.
    pub fn stored(&self) -> &Position {
        self.progress.last()
    }

    /// Handles an event.
    pub fn on(&mut self, now: Instant, event: Event) -> Effects {
        if self.phase == Phase::Finished {
            return Vec::new();
        }
        match event {
            Event::Begin => self.begin(),
            Event::Parents(outcome) => self.parents(now, outcome),
            Event::ShardFinished => match self.phase {
                Phase::Waiting(Some(_)) => self.check_parents(),
                _ => Vec::new(),
            },
            Event::Spawned => self.spawned(now),
            Event::NotSpawned(_) if self.phase != Phase::Starting => Vec::new(),
            Event::NotSpawned(NotSpawned::Failed(reason)) => self.fail(now, reason),
            Event::NotSpawned(NotSpawned::Shortage(reason)) => self.wait_for_resources(now, reason),
            Event::Starved { end, line } => self.starved(now, end, &line),
            // A child that was started before is not stopped for this. At LATEST the next owner would start
            // at another position and skip the records in between.
            Event::Surplus => match self.phase {
                Phase::BackingOff(_) if self.progress.last().sequence != Sequence::Latest => {
                    self.finish(Outcome::Stopped)
                }
                _ => Vec::new(),
            },
            Event::Child(event) => self.child(now, event),
            Event::Batch(batch) => self.batch(now, batch),
            Event::Rest => self.deliver_rest(now),
            Event::Lettered(position, outcome) => self.lettered(now, &position, outcome),
            Event::AgedLettered { first, outcome } => self.aged_lettered(now, &first, outcome),
            Event::FeedBroke => {
                self.feed_open = false;
                self.fail(now, "the task that reads the shard panicked".to_owned())
            }
            Event::Stored(position, outcome) => self.was_stored(now, position, outcome),
            Event::EndPrepared(outcome) => self.end_prepared(now, outcome),
            Event::Stop => self.stopped(now),
            Event::Wanted => self.wanted(now),
            Event::Park(order) => self.park_ordered(now, order),
            Event::Unpark => self.unpark_ordered(),
            Event::LeaseLost => self.lease_lost(now),
            Event::Deadline => self.deadline_passed(now),
        }
    }

    fn begin(&mut self) -> Effects {
        if self.progress.last().is_shard_end() {
            return self.finish(Outcome::ShardEnded);
        }
        if self.order.is_some() {
            return Vec::new();
        }
        if self.has_parents { self.check_parents() } else { self.start() }
    }

    fn check_parents(&mut self) -> Effects {
        self.phase = Phase::Waiting(None);
        vec![Effect::CheckParents]
    }

    fn parents(&mut self, now: Instant, outcome: Result<bool, String>) -> Effects {
        let Phase::Waiting(_) = self.phase else { return Vec::new() };
        match outcome {
            Ok(true) => self.start(),
            Ok(false) => {
                self.phase = Phase::Waiting(Some(now + self.settings.parent_poll));
                Vec::new()
            }
            Err(reason) => {
                self.phase = Phase::Waiting(Some(now + self.settings.parent_poll));
                vec![Effect::ParentsUnknown(reason)]
            }
        }
    }

    /// Continues the feed if none of its records were delivered, otherwise reads again from the stored
    /// checkpoint.
    fn start(&mut self) -> Effects {
        if self.parking {
            return self.parked_by_operator();
        }
        self.phase = Phase::Starting;
        self.progress.restart();
        self.drop_rest();
        let mut effects = Vec::new();
        if !self.feed_open || self.delivered || self.end.is_some() {
            let stored = &self.progress.last().sequence;
            let from = match (stored, &self.anchor) {
                (Sequence::Number(_), _) | (_, None) => stored.clone(),
                (_, Some(anchor)) => anchor.clone(),
            };
            (self.feed_open, self.delivered, self.end) = (true, false, None);
            effects.push(Effect::OpenFeed(from));
        }
        effects.push(Effect::Spawn);
        effects
    }

    fn spawned(&mut self, now: Instant) -> Effects {
        self.child_alive = true;
        if self.phase != Phase::Starting {
            // It was started before the shard was parked.
            self.parking = true;
            return self.close(now, self.after_halt());
        }
        self.started = Some(now);
        self.open(now, Message::Initialize(self.progress.last().clone()))
    }

    /// Opens an action and starts the wait for its answer.
    fn open(&mut self, now: Instant, message: Message) -> Effects {
        if message == Message::ShutdownRequested {
            self.progress.begin_delivery();
        }
        self.phase = match message {
            Message::Initialize(_) => Phase::Starting,
            Message::ProcessRecords(..) => Phase::Processing,
            Message::ShutdownRequested => Phase::Notifying,
            Message::LeaseLost => Phase::Losing,
            Message::ShardEnded => Phase::Ending,
        };
        self.has_rejected = false;
        self.wait_for_answer(now);
        self.slow = self.settings.warn_after.map(|limit| (now, now + limit));
        vec![Effect::Send(message)]
    }

    fn wait_for_answer(&mut self, now: Instant) {
        self.answer_by = self.settings.answer.map(|limit| now + limit);
    }

    /// Starts the next action, if none is open and one is due.
    fn settle(&mut self, now: Instant) -> Effects {
        self.answer_by = None;
        if self.lost {
            return self.open(now, Message::LeaseLost);
        }
        if let Some(children) = self.end.clone() {
            self.phase = Phase::PreparingEnd(None);
            return vec![Effect::PrepareEnd(children)];
        }
        if self.stop || self.parking {
            return self.open(now, Message::ShutdownRequested);
        }
        self.phase = Phase::Idle;
        Vec::new()
    }

    pub(super) fn child(&mut self, now: Instant, event: multilang::Event) -> Effects {
        if let multilang::Event::Exited(_) = event {
            self.child_alive = false;
        }
        if let Phase::Closing { then, .. } = &self.phase {
            let then = then.clone();
            return if self.child_alive { Vec::new() } else { self.closed(now, then) };
        }
        // No child runs: its failure must not start another letter or another pause.
        if let Phase::BackingOff(_)
        | Phase::Lettering
        | Phase::LetterRefused(_)
        | Phase::Passing
        | Phase::ParkedByOperator = self.phase
        {
            return Vec::new();
        }
        match event {
            multilang::Event::Said(message) => self.message(now, message),
            multilang::Event::Reported(Action::LeaseLost) => self.done(now, Action::LeaseLost),
            multilang::Event::Reported(action) => self.fail(
                now,
                format!("it answered {action} after an error on stderr (multilangd.childErrorLine)"),
            ),
            multilang::Event::InputBroken(reason) => {
                self.fail(now, format!("failed to write to its stdin: {reason}"))
            }
            multilang::Event::OutputClosed => self.fail(now, "it closed its stdout".to_owned()),
            multilang::Event::Exited(end) => self.fail(now, format!("it exited with {end}")),
        }
    }

    fn message(&mut self, now: Instant, message: session::Event) -> Effects {
        match message {
            session::Event::Done(action) => self.done(now, action),
            session::Event::Wrong { open: Action::ShutdownRequested, response_for } => {
                let answer = shown(response_for.as_deref());
                let mut effects = vec![Effect::ShutdownRefused(answer)];
                effects.extend(self.open(now, Message::LeaseLost));
                effects
            }
            session::Event::Wrong { open, response_for } => {
                self.fail(now, format!("it answered {open} with {}", shown(response_for.as_deref())))
            }
            session::Event::Checkpoint { request, early } => self.asked(now, &request, early),
            // Any message shows that the child is alive.
            session::Event::Stale { .. } | session::Event::Foreign { .. } => {
                self.wait_for_answer(now);
                Vec::new()
            }
        }
    }

    fn done(&mut self, now: Instant, action: Action) -> Effects {
        match action {
            Action::Initialize => {
                self.shortage.reset();
                self.starved = 0;
                self.settle(now)
            }
            Action::ProcessRecords => self.processed(now),
            Action::ShutdownRequested => self.open(now, Message::LeaseLost),
            Action::LeaseLost => self.close(now, self.after_halt()),
            Action::ShardEnded if self.progress.last().is_shard_end() => {
                self.close(now, Then::Finish(Outcome::ShardEnded))
            }
            Action::ShardEnded if self.lost => self.close(now, Then::Finish(Outcome::LeaseLost)),
            Action::ShardEnded => self.fail(
                now,
                "it answered shardEnded without a checkpoint (a record processor must checkpoint at the \
                 end of a shard)"
                    .to_owned(),
            ),
        }
    }

    fn end_of_holding(&self) -> Outcome {
        if self.lost { Outcome::LeaseLost } else { Outcome::Stopped }
    }

    fn asked(&mut self, now: Instant, request: &CheckpointRequest, early: bool) -> Effects {
        self.wait_for_answer(now);
        let may = matches!(self.phase, Phase::Processing | Phase::Notifying | Phase::Ending);
        if !may {
            return vec![Effect::Acknowledge(Err(CheckpointFailure::InvalidState))];
        }
        match self.progress.judge(request, early) {
            Ok(Verdict::Stored) => vec![Effect::Acknowledge(Ok(()))],
            Ok(Verdict::Write(position)) => {
                self.storing = true;
                // The time that DynamoDB takes is not counted as the child's.
                self.answer_by = None;
                vec![Effect::Store(position)]
            }
            Err(failure) => {
                self.has_rejected = true;
                vec![Effect::Acknowledge(Err(failure))]
            }
        }
    }

    fn was_stored(&mut self, now: Instant, position: Position, outcome: Result<(), held::Error>) -> Effects {
        self.storing = false;
        let mut effects = Vec::new();
        let reached = self.progress.beyond_passed(self.progress.last());
        if let Some(suspects) = &mut self.suspects
            && outcome.is_ok()
            && position.order(&reached).is_gt()
        {
            suspects.checkpointed();
        }
        let outcome = match outcome {
            Ok(()) => {
                self.progress.stored(position);
                Ok(())
            }
            Err(held::Error::Behind(stored)) => {
                self.progress.overtaken(stored);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if self.phase == Phase::Passing {
            return self.resume();
        }
        if self.phase == Phase::Aged(AgedStep::Storing) {
            return self.settle(now);
        }
        if outcome.is_ok() {
            // A failure during the write starts a new row; it is the last one too if one is enough.
            let failing = matches!(&self.phase, Phase::Closing { then: Then::Restart(_), .. });
            self.failures = u32::from(failing);
            self.backoff.reset();
            if !failing {
                effects.extend(self.recover());
            }
        }
        match &self.phase {
            Phase::Closing { then, step: Step::Gone, .. } => {
                let then = then.clone();
                effects.extend(self.closed(now, then));
            }
            Phase::Closing { .. } => {}
            _ => {
                self.wait_for_answer(now);
                self.has_rejected |= outcome.is_err();
                effects.push(Effect::Acknowledge(outcome.map_err(|error| checkpoint::failure(&error))));
            }
        }
        effects
    }

    fn end_prepared(&mut self, now: Instant, outcome: Result<(), EndError>) -> Effects {
        let Phase::PreparingEnd(_) = self.phase else { return Vec::new() };
        match outcome {
            _ if self.lost => self.settle(now),
            Ok(()) => {
                self.progress.end_of_shard();
                self.open(now, Message::ShardEnded)
            }
            Err(EndError::Lost) => {
                self.lost = true;
                self.settle(now)
            }
            Err(EndError::NotNow(reason)) => {
                self.phase = Phase::PreparingEnd(Some(now + self.settings.task_backoff));
                vec![Effect::EndDelayed(reason)]
            }
        }
    }
}

fn shown(response_for: Option<&str>) -> String {
    response_for.map_or_else(|| "a status without responseFor".to_owned(), |name| format!("{name:?}"))
}

#[cfg(test)]
mod parking_tests;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
