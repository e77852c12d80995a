//! The port to a child's process: start, write, read, signal.
//!
//! Implementations: [`super::Program`] with real processes and pipes, and one in memory with which
//! `tests/fleet` simulates whole fleets.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use bytes::Bytes;
use multilangd_protocol::{BatchLine, Line};

use super::output::{LogForm, Tail};
use crate::batch::Records;
use crate::lease::LeaseKey;
use crate::record::Record;
use crate::shard::{BoxFuture, ShardId};

/// A program that was found but failed to start.
#[derive(Debug, thiserror::Error)]
#[error("failed to start record processor {program}: {source}")]
pub struct SpawnError {
    program: String,
    source: io::Error,
}

impl SpawnError {
    /// The program, and the error of its start.
    pub fn new(program: &impl fmt::Display, source: io::Error) -> Self {
        Self { program: program.to_string(), source }
    }

    /// Whether the machine or a limit of this process allows no further process. The program is not at fault.
    pub fn is_shortage(&self) -> bool {
        is_shortage(&self.source)
    }
}

/// Whether an error means that descriptors, processes or memory are short, which passes when others are
/// released.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| short.contains(&code))
}

/// The texts of the errors of [`is_shortage`] in C libraries, and their names.
const SHORTAGES: [&str; 9] = [
    "Resource temporarily unavailable",
    "Cannot allocate memory",
    "Too many open files",
    "No file descriptors available",
    "Out of memory",
    "EAGAIN",
    "EMFILE",
    "ENFILE",
    "ENOMEM",
];

/// Whether the last line of a program that could not start says that resources are short. A script that starts
/// further processes, such as the shim of a version manager, exits with such a line.
pub fn names_shortage(line: &str) -> bool {
    SHORTAGES.iter().any(|text| line.contains(text))
}

/// How a process group is stopped.
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

/// An event of a process.
#[derive(Debug)]
pub enum Happened {
    /// A line on stdout, or none once stdout is closed.
    Said(Option<Line>),
    /// Nothing can be written any more; with the reason if the pipe broke.
    InputClosed(Option<String>),
    /// The process has exited.
    Exited(io::Result<ExitStatus>),
}

/// The shard for which a process is started. The process gets these values as environment variables: no field is added
/// to a message, because some clients fail at fields that they do not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForShard {
    /// `MULTILANGD_SHARD_ID`.
    pub shard: ShardId,
    /// `MULTILANGD_LEASE_KEY`: the shard's id, which in a table of several streams follows the identifier of the stream.
    pub lease: String,
    /// `MULTILANGD_STREAM_NAME` in a table of several streams; otherwise all processes have the same.
    pub stream: Option<String>,
    /// `MULTILANGD_STREAM_ARN`: none while it is unknown.
    pub stream_arn: Option<String>,
    /// `MULTILANGD_CHILD_ATTEMPT`: 1 for the first process after a checkpoint was stored.
    pub attempt: u32,
}

impl ForShard {
    /// A first process of the shard of a lease. The ARN of the stream is unknown.
    pub fn of(lease: &LeaseKey) -> Self {
        Self {
            shard: lease.shard().clone(),
            lease: lease.to_string(),
            stream: lease.stream().map(|stream| stream.name().to_owned()),
            stream_arn: None,
            attempt: 1,
        }
    }

    /// The environment variables.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let known = [
            ("MULTILANGD_SHARD_ID", self.shard.to_string()),
            ("MULTILANGD_LEASE_KEY", self.lease.clone()),
            ("MULTILANGD_CHILD_ATTEMPT", self.attempt.to_string()),
        ];
        let stream = [
            self.stream.clone().map(|name| ("MULTILANGD_STREAM_NAME", name)),
            self.stream_arn.clone().map(|arn| ("MULTILANGD_STREAM_ARN", arn)),
        ];
        known.into_iter().chain(stream.into_iter().flatten())
    }
}

/// Starts record processors, one process for each shard.
pub trait Launch: fmt::Display + Send + Sync {
    /// Starts a process.
    ///
    /// # Errors
    /// The program failed to start.
    fn launch<'a>(&'a self, start: &'a ForShard) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>>;
}

/// A message to be written to a process.
#[derive(Debug)]
pub enum Outgoing {
    /// An encoded line.
    Line(Vec<u8>),
    /// The line of a batch, encoded while the batch was read.
    Encoded(Bytes),
    /// A batch that is encoded while it is written, so that its line is never in memory as a whole.
    Batch {
        /// The records.
        records: Vec<Record>,
        /// `MillisBehindLatest` of the batch.
        millis_behind_latest: Option<i64>,
    },
}

impl Outgoing {
    /// A batch, encoded or not.
    pub fn batch(records: Records, millis_behind_latest: Option<i64>) -> Self {
        match records {
            Records::Encoded(ready) => Self::Encoded(ready.line().clone()),
            Records::Decoded(records) => Self::Batch { records, millis_behind_latest },
        }
    }

    /// The encoded line.
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

/// A started process. Dropping it kills the process.
pub trait Process: fmt::Debug + Send {
    /// The process id.
    fn pid(&self) -> u32;

    /// Queues a message; does not block. A broken pipe is reported by [`Process::next`].
    fn write(&mut self, message: Outgoing);

    /// Closes stdin after everything queued is written.
    fn close_stdin(&mut self);

    /// The next event: lines if `listen`, the exit if `alive`. Cancel-safe; reaps the process.
    fn next(&mut self, listen: bool, alive: bool) -> BoxFuture<'_, Happened>;

    /// Signals the process and everything that it started in its group.
    fn stop(&self, stop: Stop);

    /// The form in which its output is logged.
    fn form(&self) -> LogForm {
        LogForm::default()
    }

    /// The last lines on stderr.
    fn stderr(&self) -> Tail {
        Tail::closed()
    }

    /// The number of errors that the process has reported on stderr so far, including all that it wrote
    /// before its last message; none if they are not counted. Cancel-safe.
    fn errors(&self) -> Option<BoxFuture<'static, u64>> {
        None
    }
}
