//! One child through one case.
//!
//! The rules are those of the daemon: checkpoints are judged by [`Progress`], a wrong answer ends the life unless it
//! answers `shutdownRequested`, and an action without an answer in time ends it too. Every wait has a deadline.

use std::collections::VecDeque;
use std::time::Duration;

use multilangd_protocol::{
    Action, CheckpointFailure, CheckpointRequest, Dialect, FromChild, ToChild, session,
};
use tokio::time::{Instant, timeout_at};

use super::case::{Case, Pace, Start};
use super::samples;
use crate::batch::Records;
use crate::checkpoint::{Progress, Verdict};
use crate::multilang::output::Strays;
use crate::multilang::{Child, Event, ForShard, Launch, Outgoing, Stop};
use crate::record::Record;
use crate::sequence::{Position, Sequence};

/// The shard of all cases.
const SHARD: &str = "shardId-000000000000";
/// Most checkpoint requests during one action: a child that retries without a pause is cut short here.
const REQUESTS: usize = 10_000;
/// After each answer, the time for output that nothing asked for.
const QUIET: Duration = Duration::from_millis(20);
/// The pause between two pieces of a slow line.
const PAUSE: Duration = Duration::from_millis(10);
/// The time for an exit after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);
/// `MillisBehindLatest` of the batches.
const BEHIND: i64 = 1_000;

/// How the cases are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The protocol of the record processor.
    pub dialect: Dialect,
    /// The time for each answer and for the exit after the end of stdin.
    pub timeout: Duration,
    /// Records of the user, delivered by a case of their own.
    pub records: Vec<Record>,
}

/// A step of a life, in the order of occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The child failed to start, for this reason.
    NotStarted(String),
    /// The kit opened an action.
    Sent(Action, Content),
    /// The child answered the open action. For `shardEnded`: whether it has checkpointed the end.
    Answered(Action, bool),
    /// The child answered the open action with another name, or none.
    AnsweredWrongly(Action, Option<String>),
    /// The child requested a checkpoint, which was answered.
    Checkpoint(Checkpoint),
    /// The child sent a status that answers no action.
    ExtraStatus(Option<String>),
    /// The child sent a checkpoint after the last action.
    UnansweredCheckpoint,
    /// The child sent a message that only a daemon sends.
    Foreign(&'static str),
    /// The child requested too many checkpoints during one action.
    TooManyCheckpoints(Action),
    /// The child did not answer the action in time.
    NotAnswered(Action),
    /// The child's stdin broke, for this reason.
    InputBroken(String),
    /// The child closed its stdout.
    OutputClosed,
    /// The kit closed the child's stdin.
    StdinClosed,
    /// The child did not exit in time after the end of its stdin.
    NotExited,
    /// The kit killed the child.
    Killed,
    /// The child exited.
    Exited(String),
}

/// The content of a message, as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No more than the action.
    Bare,
    /// The position of `initialize`.
    At(Position),
    /// The number of records, and the bytes of their data.
    Records(usize, usize),
}

/// A checkpoint request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The action that was open.
    pub during: Action,
    /// The request.
    pub request: CheckpointRequest,
    /// Whether it was sent before that action.
    pub early: bool,
    /// Whether its position precedes the stored checkpoint.
    pub behind: bool,
    /// The answer.
    pub answer: Result<(), CheckpointFailure>,
    /// Whether the answer is the fault of the case.
    pub injected: bool,
}

/// The record of a life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Life {
    /// The steps.
    pub steps: Vec<Step>,
    /// Lines on stdout that were no messages.
    pub strays: Strays,
    /// The last lines on stderr.
    pub stderr: Vec<String>,
    /// Its duration.
    pub took: Duration,
}

/// Runs a case with a new child.
pub async fn play(program: &dyn Launch, case: &Case, settings: &Settings) -> Life {
    let begun = Instant::now();
    let mut child = match Child::spawn(program, settings.dialect, &ForShard::of(&SHARD.into())).await {
        Ok(child) => child,
        Err(error) => return Life { steps: vec![Step::NotStarted(error.to_string())], ..Life::default() },
    };
    let mut played = Played::new(case, settings);
    played.live(&mut child).await;
    played.end(&mut child).await;
    let stderr = child.last_stderr();
    Life { steps: played.steps, strays: child.strays().clone(), stderr, took: begun.elapsed() }
}

/// Whether the life continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

struct Played<'a> {
    case: &'a Case,
    settings: &'a Settings,
    progress: Progress,
    start: Position,
    /// Whether the fault of the case is still to come.
    fault: bool,
    steps: Vec<Step>,
}

impl<'a> Played<'a> {
    fn new(case: &'a Case, settings: &'a Settings) -> Self {
        let start = match case.start {
            Some(Start::Record(sub)) => Position::record(samples::number(0), sub),
            Some(Start::Sentinel(name)) => {
                Position::new(Sequence::parse(name).unwrap_or(Sequence::TrimHorizon))
            }
            None => Position::new(Sequence::TrimHorizon),
        };
        let progress = Progress::new(start.clone());
        Self { case, settings, progress, start, fault: case.fault.is_some(), steps: Vec::new() }
    }

    /// The messages of the case, until its end or the end of the child.
    async fn live(&mut self, child: &mut Child) {
        if self.case.start.is_none() {
            return;
        }
        let start = self.start.clone();
        let message = ToChild::Initialize {
            shard_id: SHARD,
            sequence_number: Some(start.sequence.as_str()),
            sub_sequence_number: Some(start.sub),
        };
        child.send(&message);
        self.steps.push(Step::Sent(Action::Initialize, Content::At(start.clone())));
        if self.answered(child, Action::Initialize, VecDeque::new()).await == Next::End {
            return;
        }
        let mut number = 0;
        let batches = self.case.batches.iter();
        let batches: Vec<_> = batches
            .flat_map(|sample| samples::batches(*sample, &mut number, &self.settings.records))
            .collect();
        for records in batches {
            let pieces = self.deliver(child, records.into());
            if self.answered(child, Action::ProcessRecords, pieces).await == Next::End {
                return;
            }
        }
        for action in self.case.ending {
            if *action == Action::ShardEnded {
                self.progress.end_of_shard();
            } else {
                self.progress.begin_delivery();
            }
            child.send(match action {
                Action::ShardEnded => &ToChild::ShardEnded,
                Action::ShutdownRequested => &ToChild::ShutdownRequested,
                Action::LeaseLost | Action::Initialize | Action::ProcessRecords => &ToChild::LeaseLost,
            });
            self.steps.push(Step::Sent(*action, Content::Bare));
            if self.answered(child, *action, VecDeque::new()).await == Next::End {
                return;
            }
        }
    }

    /// Sends a batch. Returns the pieces that are still to be sent.
    fn deliver(&mut self, child: &mut Child, records: Records) -> VecDeque<Vec<u8>> {
        let sizes = records.sizes();
        self.progress.begin_delivery();
        self.progress.deliver(&records);
        self.steps.push(Step::Sent(Action::ProcessRecords, Content::Records(sizes.records, sizes.data)));
        match self.case.pace {
            Pace::Fast => {
                child.send_batch(records, Some(BEHIND));
                VecDeque::new()
            }
            Pace::Slow => {
                let mut pieces = pieces(&Outgoing::batch(records, Some(BEHIND)).into_line());
                child.begin_batch(pieces.pop_front().unwrap_or_default());
                pieces
            }
        }
    }

    /// Waits for the answer to the open action, and sends the rest of its line meanwhile.
    async fn answered(&mut self, child: &mut Child, action: Action, mut pieces: VecDeque<Vec<u8>>) -> Next {
        let mut requests = 0;
        let mut by = Instant::now() + self.settings.timeout;
        loop {
            let wait = if pieces.is_empty() { by } else { Instant::now() + PAUSE };
            let Ok(event) = timeout_at(wait, child.next()).await else {
                if let Some(piece) = pieces.pop_front() {
                    child.send_piece(piece);
                    by = Instant::now() + self.settings.timeout;
                    continue;
                }
                self.steps.push(Step::NotAnswered(action));
                return Next::End;
            };
            match event {
                Event::Said(session::Event::Done(done)) => {
                    self.steps.push(Step::Answered(done, self.progress.last().is_shard_end()));
                    return self.quiet(child).await;
                }
                Event::Said(session::Event::Wrong { open, response_for }) => {
                    self.steps.push(Step::AnsweredWrongly(open, response_for));
                    // The daemon, like Java, continues with leaseLost.
                    let continues = open == Action::ShutdownRequested;
                    return if continues { self.quiet(child).await } else { Next::End };
                }
                Event::Said(session::Event::Checkpoint { request, early }) => {
                    requests += 1;
                    if requests > REQUESTS {
                        self.steps.push(Step::TooManyCheckpoints(action));
                        return Next::End;
                    }
                    let answer = self.asked(action, request, early);
                    // A checkpoint may be requested before the batch arrives. Its answer must not be within the line.
                    pieces.drain(..).for_each(|piece| child.send_piece(piece));
                    child.acknowledge(answer);
                }
                Event::Said(session::Event::Stale { .. } | session::Event::Foreign { .. })
                | Event::Reported(_)
                | Event::InputBroken(_)
                | Event::OutputClosed
                | Event::Exited(_) => {
                    if self.note(event) == Next::End {
                        return Next::End;
                    }
                }
            }
        }
    }

    /// Notes events that need no answer.
    fn note(&mut self, event: Event) -> Next {
        let (step, next) = match event {
            Event::Said(session::Event::Stale { response_for }) => {
                (Step::ExtraStatus(response_for), Next::Continue)
            }
            Event::Said(session::Event::Foreign { action }) => (Step::Foreign(action), Next::Continue),
            // Answered where they occur.
            Event::Said(
                session::Event::Done(_) | session::Event::Wrong { .. } | session::Event::Checkpoint { .. },
            ) => return Next::Continue,
            // Not without multilangd.childErrorLine.
            Event::Reported(_) => return Next::Continue,
            Event::InputBroken(reason) => (Step::InputBroken(reason), Next::End),
            Event::OutputClosed => (Step::OutputClosed, Next::End),
            Event::Exited(code) => (Step::Exited(code), Next::End),
        };
        self.steps.push(step);
        next
    }

    /// While no action is open, the child can only end.
    async fn quiet(&mut self, child: &mut Child) -> Next {
        match timeout_at(Instant::now() + QUIET, child.next()).await {
            Ok(event) => self.note(event),
            Err(_) => Next::Continue,
        }
    }

    /// Judges a checkpoint as the daemon does, or lets it fail.
    fn asked(
        &mut self,
        during: Action,
        request: CheckpointRequest,
        early: bool,
    ) -> Result<(), CheckpointFailure> {
        let may = matches!(during, Action::ProcessRecords | Action::ShutdownRequested | Action::ShardEnded);
        let sub = u64::try_from(request.sub_sequence_number.unwrap_or(0)).unwrap_or(0);
        let asked = request.sequence_number.as_deref().and_then(Sequence::parse);
        let behind = asked
            .map(|sequence| Position { sequence, sub })
            .is_some_and(|asked| asked.order(self.progress.last()).is_lt());
        let mut answer = match self.progress.judge(&request, early) {
            _ if !may => Err(CheckpointFailure::InvalidState),
            Ok(verdict) => Ok(verdict),
            Err(failure) => Err(failure),
        };
        let due = self.case.fault.filter(|fault| self.fault && fault.during.is_none_or(|at| at == during));
        let injected = answer.is_ok() && due.is_some();
        if let (true, Some(fault)) = (injected, due) {
            self.fault = false;
            answer = Err(fault.failure);
        }
        if let Ok(Verdict::Write(position)) = &answer {
            self.progress.stored(position.clone());
        }
        let answer = answer.map(|_| ());
        self.steps.push(Step::Checkpoint(Checkpoint { during, request, early, behind, answer, injected }));
        answer
    }

    /// Closes the child's stdin, waits for its exit, and kills it if it does not exit.
    async fn end(&mut self, child: &mut Child) {
        let exited = |steps: &[Step]| matches!(steps.last(), Some(Step::Exited(_)));
        if !exited(&self.steps) {
            child.close_stdin();
            let is_well = !matches!(
                self.steps.last(),
                Some(
                    Step::NotAnswered(_)
                        | Step::TooManyCheckpoints(_)
                        | Step::AnsweredWrongly(..)
                        | Step::InputBroken(_)
                        | Step::OutputClosed
                )
            );
            if is_well {
                self.steps.push(Step::StdinClosed);
            }
            // A child that has failed is only given a moment: its life is over.
            let grace = if is_well { self.settings.timeout } else { QUIET };
            if !self.exits(child, grace).await {
                if is_well {
                    self.steps.push(Step::NotExited);
                }
                self.steps.push(Step::Killed);
                child.stop(Stop::AtOnce);
                let _ended = self.exits(child, KILLED).await;
            }
        }
        for message in child.unread() {
            self.steps.extend(match message {
                FromChild::Status { response_for } => Some(Step::ExtraStatus(response_for.clone())),
                FromChild::Checkpoint(_) => Some(Step::UnansweredCheckpoint),
                FromChild::Foreign { action } => Some(Step::Foreign(action)),
                FromChild::Empty | FromChild::Noise(_) => None,
            });
        }
    }

    async fn exits(&mut self, child: &mut Child, within: Duration) -> bool {
        let by = Instant::now() + within;
        while let Ok(event) = timeout_at(by, child.next()).await {
            if let Event::Exited(code) = event {
                self.steps.push(Step::Exited(code));
                return true;
            }
        }
        false
    }
}

/// The pieces of a slow line: a beginning of a few bytes, about forty more, and the line's end alone.
fn pieces(line: &[u8]) -> VecDeque<Vec<u8>> {
    let (body, end) = line.split_at(line.len().saturating_sub(1));
    let (first, rest) = body.split_at(body.len().min(7));
    // An odd size ends within characters of two to four bytes.
    let size = (rest.len() / 40).max(1) | 1;
    let mut pieces: VecDeque<Vec<u8>> = [first.to_vec()].into();
    pieces.extend(rest.chunks(size).map(<[u8]>::to_vec));
    pieces.push_back(end.to_vec());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_slow_line_are_the_line() {
        let line =
            Outgoing::batch(samples::records(samples::Sample::Unicode, &mut 0, &[]).into(), None).into_line();
        let all = pieces(&line);
        assert!(all.len() > 30 && all.len() < 100, "{}", all.len());
        assert!(all.iter().any(|piece| std::str::from_utf8(piece).is_err()), "within a character");
        assert_eq!(all.back().unwrap(), b"\n");
        assert_eq!(all.into_iter().flatten().collect::<Vec<u8>>(), line);
    }
}
