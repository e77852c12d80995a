//! The port to a child's process: started, written to, listened to, signalled.
//!
//! Implementations: [`super::Program`] with real processes and pipes, and one in memory on which whole
//! fleets are simulated (`tests/fleet`).

use std::fmt;
use std::io;
use std::process::ExitStatus;

use bytes::Bytes;
use multilangd_protocol::{BatchLine, Line};

use super::output::Tail;
use crate::batch::Records;
use crate::record::Record;
use crate::shard::{BoxFuture, ShardId};

/// A program that was found could not be started after all.
#[derive(Debug, thiserror::Error)]
#[error("failed to start record processor {program}: {source}")]
pub struct SpawnError {
    program: String,
    source: io::Error,
}

impl SpawnError {
    /// What was to be started, and why it wasn't.
    pub fn new(program: &impl fmt::Display, source: io::Error) -> Self {
        Self { program: program.to_string(), source }
    }

    /// Whether the machine or a limit of this process had no room for another process. The program is not at fault.
    pub fn is_shortage(&self) -> bool {
        is_shortage(&self.source)
    }
}

/// Whether an error says that descriptors, processes or memory are short: it passes when others let go of theirs.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| short.contains(&code))
}

/// How a process group is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM.
    Politely,
    /// SIGKILL.
    AtOnce,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Politely => "SIGTERM",
            Self::AtOnce => "SIGKILL",
        })
    }
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
    fn launch<'a>(&'a self, shard: &'a ShardId) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>>;
}

/// A message on its way to a process.
#[derive(Debug)]
pub enum Outgoing {
    /// A line.
    Line(Vec<u8>),
    /// The line of a batch, as it was made when the batch was read.
    Encoded(Bytes),
    /// The line of a batch, made while it is written: nobody holds it whole.
    Batch {
        /// The records.
        records: Vec<Record>,
        /// As Kinesis said with them.
        millis_behind_latest: Option<i64>,
    },
}

impl Outgoing {
    /// A batch.
    pub fn batch(records: Records, millis_behind_latest: Option<i64>) -> Self {
        match records {
            Records::Encoded(ready) => Self::Encoded(ready.line().clone()),
            Records::Decoded(records) => Self::Batch { records, millis_behind_latest },
        }
    }

    /// The whole line.
    pub fn into_line(self) -> Vec<u8> {
        match self {
            Self::Line(line) => line,
            Self::Encoded(line) => line.into(),
            Self::Batch { records, millis_behind_latest } => {
                let mut out = Vec::new();
                let mut line = BatchLine::begin(&mut out);
                records.iter().for_each(|record| line.record(&to_protocol(record), &mut out));
                line.end(millis_behind_latest, &mut out);
                out
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Line(line) if line.is_empty())
    }
}

pub(super) fn to_protocol(record: &Record) -> multilangd_protocol::Record<'_> {
    multilangd_protocol::Record {
        data: record.data.as_bytes(),
        partition_key: record.partition_key.as_bytes(),
        sequence_number: record.sequence.as_bytes(),
        approximate_arrival_timestamp: record.arrival,
        sub_sequence_number: record.sub,
    }
}

/// A started process. Dropping it ends the process.
pub trait Process: fmt::Debug + Send {
    /// Its id.
    fn pid(&self) -> u32;

    /// Hands it a message; nothing is waited for. A broken pipe is told by [`Process::next`].
    fn write(&mut self, message: Outgoing);

    /// Closes its stdin once everything written has gone through.
    fn close_stdin(&mut self);

    /// What happens next: its lines if `listen`, its end if `alive`. Cancel-safe; reaps the process.
    fn next(&mut self, listen: bool, alive: bool) -> BoxFuture<'_, Happened>;

    /// Signals it and everything that it started.
    fn stop(&self, stop: Stop);

    /// Its last lines on stderr.
    fn stderr(&self) -> Tail {
        Tail::closed()
    }
}
