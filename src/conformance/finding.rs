//! The table of findings: faults of a record processor, with their severity, their effect and their remedy.

use std::fmt::Display;

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The program failed to start.
    NotStarted,
    /// No answer in time.
    NoAnswer,
    /// The answer names another action.
    WrongAnswer,
    /// A status that nothing asked for.
    ExtraStatus,
    /// An exit while the shard is read.
    Exited,
    /// No checkpoint at the end of a shard.
    NoCheckpointAtShardEnd,
    /// A checkpoint that the daemon refuses.
    RefusedCheckpoint,
    /// A checkpoint that precedes the stored one.
    OutdatedCheckpoint,
    /// Checkpoint requests without end.
    TooManyCheckpoints,
    /// stdin is closed too early.
    InputClosed,
    /// stdout is closed too early.
    OutputClosed,
    /// No exit after the end of stdin.
    NoExit,
    /// The word `null` as a line on stdout.
    NullLine,
    /// Lines on stdout that are no messages.
    OutputOnStdout,
    /// Messages with fields or values that the protocol does not know.
    UnreadableMessage,
    /// Another answer to `shutdownRequested`.
    WrongShutdownAnswer,
    /// An exit during a shutdown.
    ExitedWhileStopping,
    /// A checkpoint that arrives after the answer.
    LateCheckpoint,
    /// A checkpoint during `initialize` or `leaseLost`.
    MisplacedCheckpoint,
    /// A failed checkpoint of the end of a shard that is not requested again.
    NoRetryAtShardEnd,
    /// An exit with an error at the end of stdin.
    ExitCode,
    /// A message that only a daemon sends.
    ForeignMessage,
    /// A case that had no effect.
    NothingTested,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The daemon, or the Java daemon, stops or restarts the record processor, or records are not checkpointed.
    Failure,
    /// Both daemons tolerate it.
    Note,
}

/// A row of [`KINDS`].
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// Its name in reports.
    pub code: &'static str,
    /// Its severity.
    pub severity: Severity,
    /// The description.
    pub about: &'static str,
    /// The consequence under multilangd and under the Java daemon.
    pub effect: &'static str,
    /// How to mend it.
    pub remedy: &'static str,
}

const fn row(
    (kind, code): (Kind, &'static str),
    severity: Severity,
    about: &'static str,
    effect: &'static str,
    remedy: &'static str,
) -> Row {
    Row { kind, code, severity, about, effect, remedy }
}

use Severity::{Failure, Note};

/// All kinds, failures first.
#[rustfmt::skip]
pub const KINDS: &[Row] = &[
    row((Kind::NotStarted, "not-started"), Failure,
        "the program failed to start",
        "no shard is processed",
        "check the path, the permissions and the interpreter of the program"),
    row((Kind::NoAnswer, "no-answer"), Failure,
        "an action is not answered in time",
        "the shard stands still; with `timeoutInSeconds` the daemon restarts the record processor and delivers the batch again",
        "answer each action with {\"action\":\"status\",\"responseFor\":ACTION} and a line end, and flush stdout after each message"),
    row((Kind::WrongAnswer, "wrong-answer"), Failure,
        "the answer names another action than the open one",
        "multilangd restarts the record processor; the Java daemon exits",
        "put the `action` of the message that is answered into `responseFor`, unchanged"),
    row((Kind::ExtraStatus, "extra-status"), Failure,
        "a status that answers no action",
        "multilangd drops it; the Java daemon takes it as the answer to the next action, so that a batch counts as processed too early",
        "send exactly one status for each action, after everything else for that action"),
    row((Kind::Exited, "exited"), Failure,
        "the record processor exits while its shard is read",
        "multilangd restarts it from the last checkpoint, and parks the shard if that happens again and again; the Java daemon exits",
        "handle the error in the record processor; the last lines on stderr show it"),
    row((Kind::NoCheckpointAtShardEnd, "no-checkpoint-at-shard-end"), Failure,
        "`shardEnded` is answered without a checkpoint",
        "the shard does not end, and its child shards are not read; multilangd restarts the record processor and parks the shard, the Java daemon keeps the lease for ever",
        "checkpoint without a sequence number during `shardEnded`, and wait for the answer, before the status"),
    row((Kind::RefusedCheckpoint, "refused-checkpoint"), Failure,
        "a checkpoint of a record that was not delivered, or at something that is no sequence number",
        "the daemon answers IllegalArgumentException and stores nothing, so the records are delivered again after a restart",
        "checkpoint the sequence number and sub-sequence number of a record of this batch, or without a number"),
    row((Kind::TooManyCheckpoints, "too-many-checkpoints"), Failure,
        "more than 10,000 checkpoint requests during one action",
        "each request is a write to DynamoDB, which throttles them",
        "retry a failed checkpoint only a few times, after a pause"),
    row((Kind::InputClosed, "stdin-closed"), Failure,
        "stdin is closed while messages arrive",
        "as an exit",
        "read stdin until it ends"),
    row((Kind::OutputClosed, "stdout-closed"), Failure,
        "stdout is closed while the record processor runs",
        "as an exit",
        "keep stdout open: it carries the answers"),
    row((Kind::NoExit, "no-exit"), Failure,
        "the record processor runs on after its stdin has ended",
        "multilangd stops it with SIGTERM and SIGKILL; the Java daemon waits for ever",
        "exit when a read of stdin returns the end of file; do not keep threads that prevent the exit"),
    row((Kind::NullLine, "null-on-stdout"), Failure,
        "a line on stdout that is the word null",
        "multilangd skips the line; the Java daemon exits",
        "print to stderr, which goes to the daemon's log"),
    row((Kind::OutputOnStdout, "output-on-stdout"), Note,
        "lines on stdout that are no messages",
        "both daemons skip the line; text without a line end before a message makes the daemon skip the message, too",
        "print to stderr, which goes to the daemon's log"),
    row((Kind::UnreadableMessage, "unreadable-message"), Note,
        "messages with a field or value that the protocol does not have",
        "both daemons skip the message, so that a checkpoint gets no answer",
        "send only the fields of the protocol, with its types"),
    row((Kind::WrongShutdownAnswer, "wrong-shutdown-answer"), Note,
        "`shutdownRequested` is answered with another name",
        "both daemons log it and continue the shutdown",
        "put shutdownRequested into `responseFor`"),
    row((Kind::ExitedWhileStopping, "exited-while-stopping"), Note,
        "the record processor exits during a shutdown, before the end of stdin",
        "both daemons log it and complete the shutdown; records without a checkpoint are delivered again by the next owner",
        "answer `shutdownRequested` and `leaseLost`, and exit when stdin ends"),
    row((Kind::LateCheckpoint, "late-checkpoint"), Note,
        "a checkpoint after the status of its action",
        "it is processed during the next action; the last one of a life is lost",
        "checkpoint before the status, and wait for the answer"),
    row((Kind::OutdatedCheckpoint, "outdated-checkpoint"), Note,
        "a checkpoint that precedes the stored one",
        "both daemons answer IllegalArgumentException and keep the stored checkpoint",
        "after a failed checkpoint, request only the last one again"),
    row((Kind::MisplacedCheckpoint, "misplaced-checkpoint"), Note,
        "a checkpoint during `initialize` or `leaseLost`",
        "both daemons answer InvalidStateException or ShutdownException and store nothing",
        "checkpoint during `processRecords`, `shutdownRequested` and `shardEnded` only"),
    row((Kind::NoRetryAtShardEnd, "no-retry-at-shard-end"), Note,
        "a checkpoint of the end of a shard that fails once is not requested again",
        "multilangd restarts the record processor, which gets `shardEnded` again; under the Java daemon the shard never ends",
        "after ThrottlingException and KinesisClientLibDependencyException, request the checkpoint again after a pause"),
    row((Kind::ExitCode, "exit-code"), Note,
        "an exit with an error at the end of stdin",
        "both daemons ignore it",
        "exit with code 0 when stdin ends"),
    row((Kind::ForeignMessage, "foreign-message"), Note,
        "a message that only a daemon sends",
        "both daemons ignore it",
        "send only `status` and `checkpoint`"),
    row((Kind::NothingTested, "nothing-tested"), Note,
        "no checkpoint was requested, so that none could fail",
        "-",
        "nothing needs to be mended if the record processor checkpoints rarely on purpose"),
];

impl Kind {
    /// The row of the kind.
    pub fn row(self) -> &'static Row {
        KINDS.iter().find(|row| row.kind == self).unwrap_or(&KINDS[0])
    }
}

/// A finding in one life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// The message before it.
    pub sent: String,
    /// The behaviour that the protocol requires.
    pub expected: String,
    /// The observed behaviour.
    pub came: String,
}

impl Finding {
    /// Its severity.
    pub fn severity(&self) -> Severity {
        self.kind.row().severity
    }
}

/// A number of things, with the plural in -s.
pub(super) fn count(number: u64, thing: impl Display) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_one_row_and_failures_come_first() {
        let kinds: BTreeSet<Kind> = KINDS.iter().map(|row| row.kind).collect();
        let codes: BTreeSet<&str> = KINDS.iter().map(|row| row.code).collect();
        assert_eq!((kinds.len(), codes.len()), (KINDS.len(), KINDS.len()));
        assert!(KINDS.windows(2).all(|pair| pair[0].severity <= pair[1].severity));
        assert!(KINDS.iter().all(|row| row.kind.row().code == row.code));
    }
}
