//! A child: the process of a record processor and the protocol session with it.
//!
//! A [`Child`] combines the protocol's session (which side may send) with a process (pipes, exit). It reads
//! the child's stdout at all times, so that a child that prints or exits while idle is noticed at once, and
//! writing to it never blocks.
//!
//! Invariants:
//! * every child is in a process group of its own: a Ctrl-C or the stop of a container reaches only the
//!   daemon, which then stops each child;
//! * messages that the child sent before it exited are reported before its exit;
//! * dropping a [`Child`] kills the process and stops its tasks.
//!
//! Messages to the consumer are [`Event`]s, which it interprets. In KCL: `MultiLangShardRecordProcessor`,
//! `MultiLangProtocol`.

use std::time::Duration;

use multilangd_protocol::{Action, CheckpointFailure, Dialect, FromChild, Line, Session, ToChild, session};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::batch::Records;
use crate::clock;

pub mod launch;
pub mod launcher;
#[cfg(target_os = "linux")]
mod linux;
pub mod orphans;
#[cfg(not(target_os = "linux"))]
mod other;
pub mod output;
pub mod process;
pub mod shebang;
mod stderr;

use launch::{Happened, Process};
#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(not(target_os = "linux"))]
use other as platform;

pub use launch::{ForShard, Launch, Outgoing, SpawnError, Stop};
pub use launcher::Launcher;
pub use process::Program;

/// The exit of a process and the ends of its stdout and its stdin are seen in any order. After one of them
/// the others are awaited for this time: after an exit a grandchild can hold the pipe, and a living process
/// can have closed it.
const LEAK: Duration = Duration::from_secs(1);

/// An event of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The child sent a message. A checkpoint must be answered by [`Child::acknowledge`].
    Said(session::Event),
    /// The child answered an action, but reported an error on stderr before its answer.
    Reported(Action),
    /// The child's stdin is broken: it can receive no more messages. The reason.
    InputBroken(String),
    /// The child closed its stdout while it runs.
    OutputClosed,
    /// The child has exited, and all its messages were reported. The reason.
    Exited(String),
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    process: Box<dyn Process>,
    session: Session,
    /// Lines on stdout that are no messages.
    printed: output::Printed,
    /// The first of these lines.
    strays: output::Strays,
    output_open: bool,
    /// Why the child's stdin broke, and until when its last messages and its exit are awaited.
    broken: Option<(String, Instant)>,
    exited: Option<String>,
    /// Set once, when the exit or the end of stdout is seen first.
    leak: Option<Instant>,
    exit_reported: bool,
    /// The last lines on stderr, complete before the exit is reported.
    stderr: output::Tail,
    stderr_open: bool,
    /// Whether a stale status was logged as a warning: one with each batch is one warning.
    warned_stale: bool,
    /// The answer of the child whose errors on stderr are being counted, and their number at the last answer.
    answered: Option<Action>,
    errors: u64,
}

impl Child {
    /// Starts the program in a process group of its own.
    ///
    /// # Errors
    /// The program failed to start.
    pub async fn spawn(program: &dyn Launch, dialect: Dialect, start: &ForShard) -> Result<Self, SpawnError> {
        let process = program.launch(start).await?;
        debug!(pid = process.pid(), program = %program, "started record processor");
        Ok(Self {
            printed: output::Printed::new(start.shard.clone(), process.pid(), "stdout", process.form()),
            strays: output::Strays::default(),
            stderr: process.stderr(),
            stderr_open: true,
            process,
            session: Session::new(dialect),
            output_open: true,
            broken: None,
            exited: None,
            leak: None,
            exit_reported: false,
            warned_stale: false,
            answered: None,
            errors: 0,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Opens an action. The line is queued for the writer; does not block.
    pub fn send(&mut self, message: &ToChild<'_>) {
        let mut line = Vec::new();
        match self.session.begin(message, &mut line) {
            Ok(()) => self.process.write(Outgoing::Line(line)),
            Err(busy) => {
                debug_assert!(false, "{busy}");
                tracing::error!(event = "action_refused", error = %busy,
                    "failed to send an action: another one is open");
            }
        }
    }

    /// Opens `processRecords`. The line is already encoded, or encoded by the writer while it writes.
    pub fn send_batch(&mut self, records: Records, millis_behind_latest: Option<i64>) {
        match self.session.begin_batch() {
            Ok(()) => self.process.write(Outgoing::batch(records, millis_behind_latest)),
            Err(busy) => {
                debug_assert!(false, "{busy}");
                tracing::error!(event = "action_refused", error = %busy,
                    "failed to send a batch: another action is open");
            }
        }
    }

    /// Opens `processRecords` with the beginning of its line, whose other pieces [`Child::send_piece`] sends.
    pub fn begin_batch(&mut self, beginning: Vec<u8>) {
        match self.session.begin_batch() {
            Ok(()) => self.process.write(Outgoing::Line(beginning)),
            Err(busy) => debug_assert!(false, "{busy}"),
        }
    }

    /// Sends another piece of the line that [`Child::begin_batch`] began.
    pub fn send_piece(&mut self, piece: Vec<u8>) {
        self.process.write(Outgoing::Line(piece));
    }

    /// Answers the pending checkpoint request.
    pub fn acknowledge(&mut self, outcome: Result<(), CheckpointFailure>) {
        let mut line = Vec::new();
        self.session.acknowledge(outcome, &mut line);
        self.process.write(Outgoing::Line(line));
    }

    /// Closes the child's stdin after everything queued is written; the child should then exit. Its further
    /// requests cannot be answered, so its exit does not wait for an answer.
    pub fn close_stdin(&mut self) {
        self.session.hang_up();
        self.process.close_stdin();
    }

    /// Signals the child's process group.
    pub fn stop(&self, stop: Stop) {
        if self.exited.is_none() {
            self.process.stop(stop);
        }
    }

    /// The stderr lines of the child, while it lives and after.
    pub fn stderr(&self) -> output::Tail {
        self.stderr.clone()
    }

    /// The lines on stdout that were no messages.
    pub fn strays(&self) -> &output::Strays {
        &self.strays
    }

    /// Messages of the child that belong to no action.
    pub fn unread(&self) -> impl Iterator<Item = &FromChild> {
        self.session.waiting()
    }

    /// The last lines that the child wrote to stderr, in order.
    pub fn last_stderr(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// The child's next event. Cancel-safe. After [`Event::Exited`] it never completes.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(action) = self.answered {
                let errors = match self.process.errors() {
                    Some(count) => count.await,
                    None => self.errors,
                };
                self.answered = None;
                let before = std::mem::replace(&mut self.errors, errors);
                return if self.errors > before {
                    Event::Reported(action)
                } else {
                    Event::Said(session::Event::Done(action))
                };
            }
            let overdue = self.leak.is_some_and(|by| by <= Instant::now());
            // A grandchild may hold stderr open.
            self.stderr_open &= !(self.stderr.is_ended() || self.exited.is_some() && overdue);
            if let Some(event) = self.session.next() {
                if let session::Event::Done(action) = event {
                    self.answered = Some(action);
                    continue;
                }
                self.note(&event);
                return Event::Said(event);
            }
            if let Some(event) = self.gone() {
                return event;
            }
            // A message may follow a request that is not answered yet, and must be reported before the exit.
            let owing = self.session.is_owing();
            let listen = self.output_open && (self.session.wants_input() || self.exited.is_some());
            // Also checked here: the process that holds the pipe may never stop writing.
            if self.exited.is_some() && self.output_open && overdue {
                warn!(
                    event = "stdout_held_open",
                    pid = self.pid(),
                    "record processor exited, but another process holds its stdout open: no longer \
                     reading it"
                );
                self.output_open = false;
                continue;
            }
            let given_up = self.broken.as_ref().map(|(_, by)| *by);
            let happened = tokio::select! {
                biased;
                happened = self.process.next(listen, self.exited.is_none()) => happened,
                () = self.stderr.ended(), if self.exited.is_some() && !self.output_open && self.stderr_open => continue,
                () = clock::reached(self.leak), if self.exited.is_some() && !self.output_open && self.stderr_open => continue,
                // Last, so that everything in the pipe has been read by then.
                () = clock::reached(given_up), if self.exited.is_none() && !owing => continue,
                () = clock::reached(self.leak), if self.output_open == self.exited.is_some() && !owing => {
                    if self.output_open {
                        continue;
                    }
                    self.leak = None;
                    return Event::OutputClosed;
                }
            };
            match happened {
                Happened::Said(Some(line)) => self.heard(&line),
                Happened::Said(None) => {
                    self.printed.end();
                    self.output_open = false;
                    self.leak.get_or_insert(Instant::now() + LEAK);
                }
                Happened::InputClosed(reason) => {
                    self.broken = reason.map(|reason| (reason, Instant::now() + LEAK));
                }
                Happened::Exited(status) => {
                    self.exited = Some(status.map_or_else(|error| error.to_string(), output::exit));
                    self.leak.get_or_insert(Instant::now() + LEAK);
                }
            }
        }
    }

    fn heard(&mut self, line: &Line) {
        if let session::Received::Noise(noise) = self.session.receive(line) {
            self.printed.log(line);
            self.strays.note(line, noise);
            debug!(
                pid = self.pid(),
                reason = noise.reason(),
                "ignored a line on stdout that is not a protocol message"
            );
        }
    }

    /// Logs events that need no answer, because the shard and the pid are known here.
    fn note(&mut self, event: &session::Event) {
        if let session::Event::Stale { response_for } = event {
            if std::mem::replace(&mut self.warned_stale, true) {
                debug!(pid = self.pid(), response_for, "ignored another status message");
            } else {
                warn!(
                    event = "status_message_ignored",
                    pid = self.pid(),
                    response_for,
                    "ignored a status message that answers no action"
                );
            }
        } else if let session::Event::Foreign { action } = event {
            debug!(pid = self.pid(), action, "ignored a message that only a daemon sends");
        }
    }

    /// The exit, or a pipe that broke while the child runs; each is reported once.
    fn gone(&mut self) -> Option<Event> {
        if self.session.is_owing() {
            return None;
        }
        match &self.exited {
            Some(end) if !self.output_open && !self.stderr_open && !self.exit_reported => {
                self.exit_reported = true;
                Some(Event::Exited(end.clone()))
            }
            Some(_) => None,
            None => {
                let (reason, _) = self.broken.take_if(|(_, by)| *by <= Instant::now())?;
                Some(Event::InputBroken(reason))
            }
        }
    }
}
