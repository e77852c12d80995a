//! The cases, as data.

use multilangd_protocol::{Action, CheckpointFailure};

use super::samples::Sample;
use crate::batch::MOST_RECORDS;

/// A life of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Its name: lower-case words, joined by hyphens.
    pub name: &'static str,
    /// Its description for the documentation, a noun phrase.
    pub about: &'static str,
    /// The position in `initialize`; none if stdin ends before any message.
    pub start: Option<Start>,
    /// The batches, in order.
    pub batches: &'static [Sample],
    /// How the batches are written.
    pub pace: Pace,
    /// A checkpoint that fails.
    pub fault: Option<Fault>,
    /// The messages after the batches. Then stdin ends.
    pub ending: &'static [Action],
}

/// A stored checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A sentinel's name.
    Sentinel(&'static str),
    /// A record and its sub-sequence number.
    Record(u64),
}

/// How batches are written to a child's stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the child reads.
    Fast,
    /// In pieces with pauses between them. Pieces end within characters, and before the end of the line.
    Slow,
}

/// A checkpoint that fails: the first one of a life, or the first one during an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The answer.
    pub failure: CheckpointFailure,
    /// The action during which the checkpoint is requested; none for the first one of a life.
    pub during: Option<Action>,
}

/// A shutdown of the daemon.
const STOP: &[Action] = &[Action::ShutdownRequested, Action::LeaseLost];

const BASE: Case = Case {
    name: "",
    about: "",
    start: Some(Start::Sentinel("TRIM_HORIZON")),
    batches: &[Sample::Plain],
    pace: Pace::Fast,
    fault: None,
    ending: STOP,
};

const fn starts(name: &'static str, about: &'static str, start: Start) -> Case {
    Case { name, about, start: Some(start), ..BASE }
}

const fn delivers(name: &'static str, about: &'static str, batches: &'static [Sample]) -> Case {
    Case { name, about, batches, ..BASE }
}

const fn ends(name: &'static str, about: &'static str, ending: &'static [Action]) -> Case {
    Case { name, about, ending, ..BASE }
}

const fn fails(name: &'static str, about: &'static str, failure: CheckpointFailure) -> Case {
    // The second batch shows that the child continues.
    let batches = &[Sample::Plain, Sample::Plain];
    Case { name, about, batches, fault: Some(Fault { failure, during: None }), ..BASE }
}

/// All cases, in the order in which they are run.
pub const CASES: &[Case] = &[
    starts("initialize-trim-horizon", "a start at the oldest record", Start::Sentinel("TRIM_HORIZON")),
    starts("initialize-latest", "a start at new records", Start::Sentinel("LATEST")),
    starts("initialize-at-timestamp", "a start at a time", Start::Sentinel("AT_TIMESTAMP")),
    starts("initialize-sequence-number", "a start after a checkpointed record", Start::Record(0)),
    starts("initialize-sub-sequence-number", "a start within a KPL aggregate", Start::Record(3)),
    delivers(
        "records-none",
        "a batch without records, as `callProcessRecordsEvenForEmptyRecordList` sends it",
        &[Sample::None, Sample::Plain],
    ),
    delivers("records-empty", "records with empty data", &[Sample::Empty]),
    delivers("records-binary", "records with every byte value, not valid UTF-8", &[Sample::Binary]),
    delivers(
        "records-unicode",
        "data and partition keys with characters of every script, quotes, U+2028, and control characters",
        &[Sample::Unicode],
    ),
    delivers("records-1-mib", "a record of 1 MiB", &[Sample::Large(1 << 20)]),
    delivers("records-10-mib", "a record of 10 MiB, the maximum of Kinesis", &[Sample::Large(10 << 20)]),
    delivers(
        "records-10000",
        "10,000 records in one batch, the maximum of GetRecords",
        &[Sample::Many(MOST_RECORDS)],
    ),
    delivers(
        "records-aggregated",
        "user records of KPL aggregates, which share a sequence number",
        &[Sample::Aggregated, Sample::Aggregated],
    ),
    Case {
        name: "records-slow-pipe",
        about: "a batch that arrives in small pieces, which end within characters",
        batches: &[Sample::Unicode, Sample::Plain],
        pace: Pace::Slow,
        ..BASE
    },
    delivers("records-own", "the records of `--records`", &[Sample::Own]),
    fails(
        "checkpoint-throttled",
        "a checkpoint that fails because DynamoDB throttles",
        CheckpointFailure::Throttling,
    ),
    fails(
        "checkpoint-dependency",
        "a checkpoint that fails because DynamoDB cannot be reached",
        CheckpointFailure::Dependency,
    ),
    fails(
        "checkpoint-invalid-state",
        "a checkpoint that fails because the lease table does not exist",
        CheckpointFailure::InvalidState,
    ),
    fails(
        "checkpoint-illegal-argument",
        "a checkpoint that fails because of its sequence number",
        CheckpointFailure::IllegalArgument,
    ),
    Case {
        name: "checkpoint-lease-lost",
        about: "a checkpoint that fails because the lease is lost, then `leaseLost`",
        ending: &[Action::LeaseLost],
        ..fails("", "", CheckpointFailure::Shutdown)
    },
    Case {
        name: "checkpoint-shard-end-throttled",
        about: "a checkpoint of the end of a shard that fails once",
        fault: Some(Fault { failure: CheckpointFailure::Throttling, during: Some(Action::ShardEnded) }),
        ending: &[Action::ShardEnded],
        ..BASE
    },
    ends("shard-ended", "the end of a shard, after records", &[Action::ShardEnded]),
    Case {
        name: "shard-ended-without-records",
        about: "the end of a shard that has no records left",
        batches: &[],
        start: Some(Start::Record(0)),
        ending: &[Action::ShardEnded],
        ..BASE
    },
    ends("lease-lost", "a lease that another worker has taken", &[Action::LeaseLost]),
    ends("shutdown-requested", "a shutdown or a graceful handoff, after records", STOP),
    Case {
        name: "shutdown-without-records",
        about: "a shutdown before the first record",
        batches: &[],
        ..BASE
    },
    ends("end-of-input", "the end of stdin between two batches, as without `shutdownGraceMillis`", &[]),
    Case {
        name: "end-of-input-at-start",
        about: "the end of stdin before any message",
        start: None,
        batches: &[],
        ending: &[],
        ..BASE
    },
];

impl Case {
    /// Whether the case needs records of the user.
    pub fn is_own(&self) -> bool {
        self.batches.contains(&Sample::Own)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_have_different_names_and_descriptions() {
        let texts: BTreeSet<&str> = CASES.iter().flat_map(|case| [case.name, case.about]).collect();
        assert_eq!(texts.len(), 2 * CASES.len());
        for case in CASES {
            assert!(case.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        }
    }

    #[test]
    fn every_action_and_every_checkpoint_failure_has_a_case() {
        for action in [Action::ShutdownRequested, Action::LeaseLost, Action::ShardEnded] {
            assert!(CASES.iter().any(|case| case.ending.contains(&action)), "{action}");
        }
        for failure in [
            CheckpointFailure::InvalidState,
            CheckpointFailure::Shutdown,
            CheckpointFailure::Throttling,
            CheckpointFailure::Dependency,
            CheckpointFailure::IllegalArgument,
        ] {
            assert!(CASES.iter().any(|case| case.fault.is_some_and(|fault| fault.failure == failure)));
        }
    }
}
