//! One child: a record processor's process and the conversation with it.
//!
//! A [`Child`] joins the protocol's session (who may speak) with a process (pipes, exit). It reads
//! the child's stdout at all times, so that one that prints or dies while idle is noticed at once,
//! and never waits for the child in order to write to it.
//!
//! Invariants:
//! * every child is in a process group of its own: a Ctrl-C or a stop of the container reaches the
//!   daemon alone, which then asks each child to stop;
//! * what the child said before it exited is told before its exit;
//! * dropping a [`Child`] kills the process and stops its tasks.
//!
//! Messages from here to the consumer are [`Event`]s; the consumer decides what they mean. In KCL:
//! `MultiLangShardRecordProcessor`, `MultiLangProtocol`.

use std::time::Duration;

use multilangd_protocol::{CheckpointFailure, Dialect, Line, Session, ToChild, session};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::batch::Records;
use crate::clock;
use crate::shard::ShardId;

pub mod launch;
pub mod launcher;
pub mod orphans;
pub mod output;
pub mod process;
pub mod shebang;

use launch::{Happened, Process};
pub use launch::{Launch, Outgoing, SpawnError, Stop};
pub use launcher::Launcher;
pub use process::Program;

/// The end of a process, of its stdout and of its stdin come one after the other, in any order. This is
/// how long the next is waited for: after an exit the pipe can be in a grandchild's hands, and a
/// process that lives can have closed it.
const LEAK: Duration = Duration::from_secs(1);

/// What a child did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It said something. After a checkpoint [`Child::acknowledge`] is owed.
    Said(session::Event),
    /// Its stdin is broken: it can't be told anything any more.
    InputBroken(String),
    /// Its stdout is closed although it lives.
    OutputClosed,
    /// It is gone, and everything that it said was told.
    Exited(String),
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    process: Box<dyn Process>,
    session: Session,
    /// What it prints to stdout beside its messages.
    printed: output::Printed,
    output_open: bool,
    /// Why its stdin can't be written any more, and until when its last words and its end are waited for.
    broken: Option<(String, Instant)>,
    exited: Option<String>,
    /// Made once, when the first of the two ends is seen.
    leak: Option<Instant>,
    told_exit: bool,
    /// Its last lines on stderr; read before its exit is told.
    stderr: output::Tail,
    stderr_open: bool,
    /// A status that answered nothing was warned about: one that comes with each batch is one warning.
    told_stale: bool,
}

impl Child {
    /// Starts the program in a process group of its own.
    ///
    /// # Errors
    /// The program can't be started.
    pub async fn spawn(program: &dyn Launch, dialect: Dialect, shard: &ShardId) -> Result<Self, SpawnError> {
        let process = program.launch(shard).await?;
        debug!(pid = process.pid(), program = %program, "started record processor");
        Ok(Self {
            printed: output::Printed::new(shard.clone(), process.pid(), "stdout"),
            stderr: process.stderr(),
            stderr_open: true,
            process,
            session: Session::new(dialect),
            output_open: true,
            broken: None,
            exited: None,
            leak: None,
            told_exit: false,
            told_stale: false,
        })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Opens an action. Its line is handed to the writer; nothing is waited for.
    pub fn send(&mut self, message: &ToChild<'_>) {
        let mut line = Vec::new();
        match self.session.begin(message, &mut line) {
            Ok(()) => self.process.write(Outgoing::Line(line)),
            Err(busy) => {
                debug_assert!(false, "{busy}");
                tracing::error!(error = %busy,
                    "failed to send an action: another one is open");
            }
        }
    }

    /// Opens `processRecords`. Its line is there, or made by the writer as it goes.
    pub fn send_batch(&mut self, records: Records, millis_behind_latest: Option<i64>) {
        match self.session.begin_batch() {
            Ok(()) => self.process.write(Outgoing::batch(records, millis_behind_latest)),
            Err(busy) => {
                debug_assert!(false, "{busy}");
                tracing::error!(error = %busy,
                    "failed to send a batch: another action is open");
            }
        }
    }

    /// Answers the checkpoint that is owed.
    pub fn acknowledge(&mut self, outcome: Result<(), CheckpointFailure>) {
        let mut line = Vec::new();
        self.session.acknowledge(outcome, &mut line);
        self.process.write(Outgoing::Line(line));
    }

    /// Closes the child's stdin once everything written has gone through: it should then end. Whatever it
    /// asks for from now on can't be answered, so its end doesn't wait for an answer.
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

    /// The last lines that it has written to stderr, the last one last.
    pub fn last_stderr(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// What the child does next. Cancel-safe. After [`Event::Exited`] it waits for ever.
    pub async fn next(&mut self) -> Event {
        loop {
            let overdue = self.leak.is_some_and(|by| by <= Instant::now());
            // A grandchild may hold it open.
            self.stderr_open &= !(self.stderr.is_ended() || self.exited.is_some() && overdue);
            if let Some(event) = self.session.next() {
                self.note(&event);
                return Event::Said(event);
            }
            if let Some(event) = self.gone() {
                return event;
            }
            // What it said may lie behind an answer that is owed, and comes before its end.
            let owing = self.session.is_owing();
            let listen = self.output_open && (self.session.wants_input() || self.exited.is_some());
            // Checked here too: whoever holds the pipe may never stop talking.
            if self.exited.is_some() && self.output_open && overdue {
                warn!(
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
                // Last, so that whatever is in the pipe by then has been read.
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
            self.printed.tell(line);
            debug!(
                pid = self.pid(),
                reason = noise.reason(),
                "ignored a line on stdout that is not a protocol message"
            );
        }
    }

    /// What asks for nothing is worth a line here, where the child is known.
    fn note(&mut self, event: &session::Event) {
        if let session::Event::Stale { response_for } = event {
            if std::mem::replace(&mut self.told_stale, true) {
                debug!(pid = self.pid(), response_for, "ignored another status message");
            } else {
                warn!(pid = self.pid(), response_for, "ignored a status message that answers no action");
            }
        } else if let session::Event::Foreign { action } = event {
            debug!(pid = self.pid(), action, "ignored a message that only a daemon sends");
        }
    }

    /// Its end, or a pipe that broke while it lives; each is told once.
    fn gone(&mut self) -> Option<Event> {
        if self.session.is_owing() {
            return None;
        }
        match &self.exited {
            Some(end) if !self.output_open && !self.stderr_open && !self.told_exit => {
                self.told_exit = true;
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
