//! Judges a life: a pure function from its steps to findings.

use multilangd_protocol::{Action, CheckpointFailure, Noise};

use super::case::Case;
use super::finding::{Finding, Kind, count};
use super::life::{Checkpoint, Content, Life, Step};
use crate::multilang::output::EXIT_0;

/// The findings of a life, in the order of occurrence; each kind at most once.
pub fn judge(case: &Case, life: &Life) -> Vec<Finding> {
    let mut judged = Judged { life, at: At::default(), findings: Vec::new() };
    for step in &life.steps {
        judged.step(step);
    }
    judged.strays();
    let checkpoints = life.steps.iter().any(|step| matches!(step, Step::Checkpoint(one) if one.injected));
    if case.fault.is_some() && !checkpoints && judged.findings.is_empty() {
        judged.found(
            Kind::NothingTested,
            "a checkpoint request".to_owned(),
            "no checkpoint request".to_owned(),
        );
    }
    judged.findings
}

/// The point in a life that has been reached.
#[derive(Default)]
struct At {
    sent: Option<(Action, Content)>,
    /// Whether that action was answered.
    answered: bool,
    /// Whether the daemon shuts down.
    stopping: bool,
    /// The fault that the last checkpoint met.
    fault: Option<CheckpointFailure>,
    /// Whether stdin was closed or the child killed: its exit is expected.
    over: bool,
}

struct Judged<'a> {
    life: &'a Life,
    at: At,
    findings: Vec<Finding>,
}

impl Judged<'_> {
    fn step(&mut self, step: &Step) {
        let status = |action: &Action| format!("a status with responseFor {action}");
        match step {
            Step::Sent(action, content) => {
                self.at.sent = Some((*action, content.clone()));
                (self.at.answered, self.at.fault) = (false, None);
                self.at.stopping |= *action == Action::ShutdownRequested;
            }
            Step::Answered(Action::ShardEnded, false) => {
                self.at.answered = true;
                if self.at.fault.is_some() {
                    let came = format!("no further checkpoint after {}", self.fault());
                    self.found(
                        Kind::NoRetryAtShardEnd,
                        "the checkpoint again, then the status".to_owned(),
                        came,
                    );
                } else {
                    let expected = "a checkpoint, then the status".to_owned();
                    self.found(Kind::NoCheckpointAtShardEnd, expected, "the status only".to_owned());
                }
            }
            Step::Answered(..) => self.at.answered = true,
            Step::AnsweredWrongly(action, answer) => {
                self.at.answered = true;
                let kind = match action {
                    Action::ShutdownRequested => Kind::WrongShutdownAnswer,
                    Action::Initialize | Action::ProcessRecords | Action::LeaseLost | Action::ShardEnded => {
                        Kind::WrongAnswer
                    }
                };
                self.found(kind, status(action), named(answer.as_deref()));
            }
            Step::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
            Step::ExtraStatus(answer) => {
                self.found(
                    Kind::ExtraStatus,
                    "one status for each action".to_owned(),
                    named(answer.as_deref()),
                );
            }
            Step::UnansweredCheckpoint => {
                let came = "a checkpoint after the last status, which gets no answer".to_owned();
                self.found(Kind::LateCheckpoint, "checkpoints before the status".to_owned(), came);
            }
            Step::Foreign(action) => {
                let expected = "only messages of a record processor".to_owned();
                self.found(Kind::ForeignMessage, expected, format!("a message {action}"));
            }
            Step::TooManyCheckpoints(action) => {
                self.at.over = true;
                self.found(
                    Kind::TooManyCheckpoints,
                    status(action),
                    "checkpoint requests without end".to_owned(),
                );
            }
            Step::NotAnswered(action) => {
                self.at.over = true;
                let came = format!("nothing in time{}", self.hint());
                self.found(Kind::NoAnswer, status(action), came);
            }
            Step::InputBroken(reason) => {
                self.at.over = true;
                let expected = "stdin is read until it ends".to_owned();
                self.found(Kind::InputClosed, expected, format!("a closed stdin: {reason}"));
            }
            Step::OutputClosed => {
                self.at.over = true;
                self.found(Kind::OutputClosed, "an open stdout".to_owned(), "a closed stdout".to_owned());
            }
            Step::NotStarted(reason) => {
                self.found(Kind::NotStarted, "a running program".to_owned(), reason.clone());
            }
            Step::StdinClosed => self.at.over = true,
            Step::NotExited => {
                self.found(Kind::NoExit, "an exit".to_owned(), "it still runs".to_owned());
            }
            // Its exit says nothing any more.
            Step::Killed => self.at.sent = None,
            Step::Exited(code) => self.exited(code),
        }
    }

    fn exited(&mut self, code: &str) {
        let stdin_ended = self.life.steps.contains(&Step::StdinClosed);
        if self.life.steps.contains(&Step::Killed) {
            return;
        }
        if self.at.over {
            if stdin_ended && code != EXIT_0 {
                self.found(Kind::ExitCode, "exit code 0 at the end of stdin".to_owned(), self.ended(code));
            }
            return;
        }
        let kind = match (&self.at.sent, self.at.answered) {
            // Nothing more would have come.
            (Some((Action::LeaseLost | Action::ShardEnded, _)), true) => return,
            _ if self.at.stopping => Kind::ExitedWhileStopping,
            _ => Kind::Exited,
        };
        let expected = match &self.at.sent {
            Some((action, _)) if !self.at.answered => format!("a status with responseFor {action}"),
            _ => "it waits for the next message".to_owned(),
        };
        let after = match &self.at.fault {
            Some(_) => format!(" after {}", self.fault()),
            None => String::new(),
        };
        let came = format!("{}{after}", self.ended(code));
        self.found(kind, expected, came);
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let Checkpoint { during, request, early, behind, answer, injected } = checkpoint;
        self.at.fault = answer.err().filter(|_| *injected);
        if *early {
            let came = "a checkpoint before the message was sent".to_owned();
            self.found(Kind::LateCheckpoint, "checkpoints before the status".to_owned(), came);
        }
        let place = match (&request.sequence_number, request.sub_sequence_number) {
            (None, _) => "a checkpoint without a number".to_owned(),
            (Some(number), None) => format!("a checkpoint at {number:?}"),
            (Some(number), Some(sub)) => format!("a checkpoint at {number:?}/{sub}"),
        };
        match answer {
            Err(CheckpointFailure::InvalidState) if !injected => {
                let expected = format!("no checkpoint during {during}");
                self.found(Kind::MisplacedCheckpoint, expected, place);
            }
            Err(_) if !injected => {
                let expected = "a checkpoint between the stored one and the last delivered record".to_owned();
                let kind = if *behind { Kind::OutdatedCheckpoint } else { Kind::RefusedCheckpoint };
                self.found(kind, expected, place);
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn strays(&mut self) {
        let readable = |noise: &Noise| matches!(noise, Noise::UnknownField | Noise::BadValue);
        let strays = &self.life.strays;
        let find = |wanted: bool| strays.first.iter().find(|(_, noise)| readable(noise) == wanted);
        let all = |line: &str, noise: Noise| {
            format!("{} that daemons skip, such as {line:?}: {}", count(strays.lines, "line"), noise.reason())
        };
        let expected = "only messages on stdout".to_owned();
        if strays.first.iter().any(|(line, _)| line == "null") {
            self.at.sent = None;
            self.found(Kind::NullLine, expected.clone(), "the line null".to_owned());
        }
        let (plain, message) = (find(false), find(true));
        self.at.sent = None;
        if let Some((line, noise)) = message {
            self.found(Kind::UnreadableMessage, "messages with known fields".to_owned(), all(line, *noise));
        }
        if let Some((line, noise)) = plain {
            self.found(Kind::OutputOnStdout, expected, all(line, *noise));
        }
    }

    /// Why there may be no answer.
    fn hint(&self) -> String {
        match (self.life.strays.first.last(), &self.at.fault) {
            (Some((line, noise)), _) => {
                format!("; the last line on stdout that daemons skip is {line:?}: {}", noise.reason())
            }
            (None, Some(_)) => format!(" after {}", self.fault()),
            (None, None) => String::new(),
        }
    }

    fn fault(&self) -> String {
        self.at.fault.map_or_else(String::new, |failure| format!("the checkpoint error {failure}"))
    }

    fn ended(&self, code: &str) -> String {
        match self.life.stderr.last() {
            Some(line) => format!("{code}; last line on stderr: {line:?}"),
            None => code.to_owned(),
        }
    }

    fn found(&mut self, kind: Kind, expected: String, came: String) {
        if self.findings.iter().any(|finding| finding.kind == kind) {
            return;
        }
        let sent = match &self.at.sent {
            Some((action, Content::Bare)) => action.name().to_owned(),
            Some((action, Content::At(position))) => format!("{action} at {position}"),
            Some((action, Content::Records(records, bytes))) => {
                format!("{action} with {}, {bytes} bytes of data", count(*records as u64, "record"))
            }
            None => "-".to_owned(),
        };
        let sent = if self.at.over && self.at.answered { "the end of stdin".to_owned() } else { sent };
        self.findings.push(Finding { kind, sent, expected, came });
    }
}

fn named(response_for: Option<&str>) -> String {
    response_for
        .map_or_else(|| "a status without responseFor".to_owned(), |name| format!("a status for {name:?}"))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
