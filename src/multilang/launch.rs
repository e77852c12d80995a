//! The port to a child's process: started, written to, listened to, signalled.
//!
//! Implementations: [`super::Program`] with real processes and pipes, and one in memory on which whole
//! fleets are simulated (`tests/fleet`).

use std::fmt;
use std::io;
use std::process::ExitStatus;

use multilangd_protocol::Line;

use crate::shard::{BoxFuture, ShardId};

/// A program that was found could not be started after all.
#[derive(Debug, thiserror::Error)]
#[error("can't start {program}: {source}")]
pub struct SpawnError {
    program: String,
    source: io::Error,
}

impl SpawnError {
    /// What was to be started, and why it wasn't.
    pub fn new(program: &impl fmt::Display, source: io::Error) -> Self {
        Self { program: program.to_string(), source }
    }
}

/// How a process group is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM.
    Politely,
    /// SIGKILL.
    AtOnce,
}

/// What a process did.
#[derive(Debug)]
pub enum Happened {
    /// A line, or none once stdout is closed.
    Said(Option<Line>),
    /// Nothing can be written any more, with the reason if the pipe broke.
    InputClosed(Option<String>),
    /// It is gone.
    Exited(io::Result<ExitStatus>),
}

/// Starts record processors, one process for each shard.
pub trait Launch: fmt::Display + Send + Sync {
    /// Starts one.
    ///
    /// # Errors
    /// The program can't be started.
    fn launch(&self, shard: &ShardId) -> Result<Box<dyn Process>, SpawnError>;
}

/// A started process. Dropping it ends the process.
pub trait Process: fmt::Debug + Send {
    /// Its id.
    fn pid(&self) -> u32;

    /// Hands it a line; nothing is waited for. A broken pipe is told by [`Process::next`].
    fn write(&mut self, line: Vec<u8>);

    /// Closes its stdin once everything written has gone through.
    fn close_stdin(&mut self);

    /// What happens next: its lines if `listen`, its end if `alive`. Cancel-safe; reaps the process.
    fn next(&mut self, listen: bool, alive: bool) -> BoxFuture<'_, Happened>;

    /// Signals it and everything that it started.
    fn stop(&self, stop: Stop);
}
