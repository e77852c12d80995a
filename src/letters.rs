//! Dead letters: durable copies of records that no child can process.
//!
//! A record is skipped only after its letter was accepted by every destination. A letter may be written more
//! than once, for example if the worker is killed before the position is stored; its id is the same then.
//!
//! | module | holds |
//! |---|---|
//! | [`envelope`] | the letter as JSON: Lambda's envelope for failed batches, and the fields of multilangd |
//! | [`mod@file`] | one file a day and worker, one letter a line |
//! | [`exec`] | a program that gets each letter on its stdin |
//! | [`memory`] | letters in memory, for tests |
//! | [`list`] | letters read back from a file |

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use crate::config::DeadLetterLimits as Limits;
use crate::config::keys::own;
use crate::config::{Config, letters};
use crate::lease::LeaseKey;
use crate::multilang::Program;
use crate::record::Record;
use crate::shard::BoxFuture;

pub mod envelope;
pub mod exec;
pub mod file;
pub mod list;
pub mod memory;

/// The maximum duration of one write.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Why a record became a dead letter, by Lambda's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It failed `multilangd.maxRecordFailures` times.
    RetryAttemptsExhausted,
    /// It was too old. Lambda writes such letters.
    RecordAgeExceeded,
}

/// A failure of a child at the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it occurred, in milliseconds since 1970.
    pub at: i64,
    /// The cause.
    pub reason: String,
    /// The child's last lines on stderr.
    pub stderr: Vec<String>,
}

/// Most failures that a letter keeps: the last ones.
const MAX_FAILURES: usize = 10;

/// Adds a failure, in place of the first one if there are too many.
pub fn note_failure(failures: &mut Vec<Failure>, failure: Failure) {
    failures.push(failure);
    let more = failures.len().saturating_sub(MAX_FAILURES);
    failures.drain(..more);
}

/// A record that is not delivered any more, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Why.
    pub condition: Condition,
    /// When the letter was written, in milliseconds since 1970.
    pub at: i64,
    /// The lease of the shard.
    pub lease: LeaseKey,
    /// The ARN of the stream; none if it is unknown.
    pub stream: Option<String>,
    /// `applicationName`.
    pub application: String,
    /// The worker's id.
    pub worker: String,
    /// The record processor.
    pub program: String,
    /// The record.
    pub record: Record,
    /// How often the record failed alone.
    pub attempts: u32,
    /// Its last failures.
    pub failures: Vec<Failure>,
}

/// Why a letter was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{destination} rejected the dead letter: {reason}")]
pub struct Rejected {
    /// The destination, as it is configured.
    pub destination: String,
    /// The cause.
    pub reason: String,
}

/// Stores letters.
pub trait Destination: fmt::Debug + Send + Sync {
    /// Stores letters of one shard, in order. Returns how many of them have a durable copy, counted from the first one:
    /// at least one, and fewer than given if one was rejected or time was up. Ends within [`DEADLINE`] for each letter.
    ///
    /// # Errors
    /// The first letter may have no durable copy.
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>>;
}

/// Several destinations, each of which must accept a letter, in order.
#[derive(Debug)]
pub struct All {
    destinations: Vec<Box<dyn Destination>>,
    accepted: Mutex<HashMap<LeaseKey, Accepted>>,
}

/// For each destination, the ids of the last letters of a shard that it has accepted but another one has not. It would
/// write them again at each attempt.
type Accepted = Vec<HashSet<String>>;

impl All {
    /// These destinations.
    pub fn new(destinations: Vec<Box<dyn Destination>>) -> Self {
        Self { destinations, accepted: Mutex::default() }
    }

    fn accepted(&self) -> MutexGuard<'_, HashMap<LeaseKey, Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination for All {
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        Box::pin(async move {
            let Some(lease) = letters.first().map(|letter| letter.lease.clone()) else { return Ok(0) };
            let ids: Vec<String> = letters.iter().map(Letter::id).collect();
            let mut accepted = self.accepted().remove(&lease).unwrap_or_default();
            accepted.resize_with(self.destinations.len(), HashSet::new);
            let mut common = letters.len();
            let mut rejected = None;
            for (destination, accepted) in self.destinations.iter().zip(&mut accepted) {
                let mut count = ids.iter().take_while(|id| accepted.contains(*id)).count();
                if let Some(more) = letters.get(count..common).filter(|more| !more.is_empty()) {
                    match destination.send(more).await {
                        Ok(sent) => {
                            let sent = sent.min(more.len());
                            accepted.extend(ids.iter().skip(count).take(sent).cloned());
                            count += sent;
                        }
                        Err(error) => rejected = Some(error),
                    }
                }
                common = common.min(count);
                if common == 0 {
                    break;
                }
            }
            let rest: HashSet<&String> = ids.iter().skip(common).collect();
            for of_one in &mut accepted {
                of_one.retain(|id| rest.contains(id));
            }
            if accepted.iter().any(|of_one| !of_one.is_empty()) {
                self.accepted().insert(lease, accepted);
            }
            match rejected {
                Some(error) if common == 0 => Err(error),
                _ => Ok(common),
            }
        })
    }
}

/// Opens the destinations of `multilangd.deadLetters`; none if there are none. `stream` opens the stream of a name or
/// ARN.
///
/// # Errors
/// One of them cannot be used.
pub fn open(
    config: &Config,
    stream: impl Fn(&str) -> Box<dyn Destination>,
) -> Result<Option<Letters>, String> {
    if config.dead_letters.is_empty() {
        return Ok(None);
    }
    let worker = config.worker.to_string();
    let opened = config.dead_letters.iter().map(|destination| match destination {
        letters::Destination::Kinesis(name) => Ok(stream(name)),
        letters::Destination::File(folder) => open_folder(folder, &worker),
        letters::Destination::Exec(command) => open_program(command),
    });
    Ok(Some(Letters {
        destination: Arc::new(All::new(opened.collect::<Result<_, _>>()?)),
        application: config.application.clone(),
        worker,
    }))
}

/// Checks a destination of this machine; a stream is reached only when a letter is written.
///
/// # Errors
/// It cannot be used.
pub fn check(destination: &letters::Destination, worker: &str) -> Result<(), String> {
    match destination {
        letters::Destination::Kinesis(_) => Ok(()),
        letters::Destination::File(folder) => open_folder(folder, worker).map(drop),
        letters::Destination::Exec(command) => open_program(command).map(drop),
    }
}

fn open_folder(folder: &Path, worker: &str) -> Result<Box<dyn Destination>, String> {
    match file::Folder::open(folder, worker) {
        Ok(folder) => Ok(Box::new(folder)),
        Err(error) => Err(format!("{} = file:{}: {error}", own::DEAD_LETTERS, folder.display())),
    }
}

fn open_program(command: &str) -> Result<Box<dyn Destination>, String> {
    match Program::find(command, std::env::var_os("PATH").as_deref()) {
        Ok(program) => Ok(Box::new(exec::Exec(program))),
        Err(error) => {
            let error = error.to_string();
            let error = error.strip_prefix("executableName: ").unwrap_or(&error).to_owned();
            let destination = letters::Destination::Exec(command.to_owned());
            Err(format!("{} = {destination}: {error}", own::DEAD_LETTERS))
        }
    }
}

/// The destination of a worker's letters, and the fields that all its letters share.
#[derive(Debug, Clone)]
pub struct Letters {
    /// The destination.
    pub destination: Arc<dyn Destination>,
    /// `applicationName`.
    pub application: String,
    /// The worker's id.
    pub worker: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A letter of the record with that sequence number.
    pub(crate) fn letter(number: usize) -> Letter {
        let mut record = Record::plain(number, "key \"é\"", b"data");
        (record.sub, record.arrival) = (2, Some(1_795_910_000_456));
        Letter {
            condition: Condition::RetryAttemptsExhausted,
            at: 1_795_996_799_123,
            lease: "shardId-000000000001".into(),
            stream: Some("arn:aws:kinesis:us-east-1:1:stream/orders".to_owned()),
            application: "app".to_owned(),
            worker: "w".to_owned(),
            program: "p.py".to_owned(),
            record,
            attempts: 3,
            failures: vec![Failure {
                at: 1_795_996_798_000,
                reason: "exit code 1".to_owned(),
                stderr: vec!["Traceback:".to_owned(), "ValueError: bad".to_owned()],
            }],
        }
    }

    /// A new folder for a test.
    pub(crate) fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("multilangd-letters-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn retry_skips_destinations_that_accepted_the_letter() {
        let memories: Vec<_> = (0..3).map(|_| Arc::new(memory::Memory::default())).collect();
        let boxed = |memory: &Arc<memory::Memory>| Box::new(memory.clone()) as Box<dyn Destination>;
        let all = All::new(memories.iter().map(boxed).collect());
        memories[1].set_down(true);
        for _ in 0..3 {
            assert_eq!(all.send(&[letter(1)]).await.unwrap_err().destination, "memory");
        }
        let counts = || memories.iter().map(|memory| memory.letters().len()).collect::<Vec<_>>();
        assert_eq!(counts(), [1, 0, 0]);
        let other = [Letter { lease: "shardId-000000000002".into(), ..letter(1) }];
        all.send(&other).await.unwrap_err();
        memories[1].set_down(false);
        all.send(&[letter(1)]).await.unwrap();
        all.send(&other).await.unwrap();
        assert_eq!(counts(), [2, 2, 2]);
        all.send(&[letter(1)]).await.unwrap();
        assert_eq!(counts(), [3, 3, 3], "a letter that all accepted is no longer remembered");
        assert!(all.accepted().is_empty());
    }

    #[tokio::test]
    async fn letters_of_two_streams_with_equal_shards_are_told_apart() {
        let of = |key: &str| Letter { lease: key.into(), ..letter(1) };
        let (orders, refunds) =
            (of("1:orders:5:shardId-000000000001"), of("1:refunds:5:shardId-000000000001"));
        assert_ne!(orders.id(), refunds.id());
        let [json, other] = [&orders, &refunds].map(Letter::json);
        assert_eq!(json["KinesisBatchInfo"]["shardId"], other["KinesisBatchInfo"]["shardId"]);
        let memories: Vec<_> = (0..2).map(|_| Arc::new(memory::Memory::default())).collect();
        let boxed = |memory: &Arc<memory::Memory>| Box::new(memory.clone()) as Box<dyn Destination>;
        let all = All::new(memories.iter().map(boxed).collect());
        memories[1].set_down(true);
        all.send(std::slice::from_ref(&orders)).await.unwrap_err();
        memories[1].set_down(false);
        all.send(std::slice::from_ref(&refunds)).await.unwrap();
        all.send(std::slice::from_ref(&orders)).await.unwrap();
        for memory in memories {
            assert_eq!(memory.letters().len(), 2, "each once, of both streams");
        }
    }

    #[tokio::test]
    async fn batch_advances_with_its_slowest_destination() {
        let memories: Vec<_> = (0..3).map(|_| Arc::new(memory::Memory::default())).collect();
        let boxed = |memory: &Arc<memory::Memory>| Box::new(memory.clone()) as Box<dyn Destination>;
        let all = All::new(memories.iter().map(boxed).collect());
        memories[1].set_most(2);
        memories[2].set_down(true);
        let letters: Vec<_> = (1..=5).map(letter).collect();
        assert!(all.send(&letters).await.is_err());
        let counts = || memories.iter().map(|memory| memory.letters().len()).collect::<Vec<_>>();
        assert_eq!(counts(), [5, 2, 0]);
        memories[2].set_down(false);
        assert_eq!(all.send(&letters).await, Ok(4));
        assert_eq!(counts(), [5, 4, 4]);
        assert_eq!(all.send(&letters[4..]).await, Ok(1));
        for memory in &memories {
            assert_eq!(memory.letters(), letters, "each letter once, in order");
        }
        assert!(all.accepted().is_empty());
    }

    #[test]
    fn missing_program_is_reported_without_its_arguments() {
        let command = "/no/such/program --token hunter2".to_owned();
        let error = check(&letters::Destination::Exec(command), "w").unwrap_err();
        assert!(error.contains("/no/such/program") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn envelope_has_the_fields_of_lambda() {
        let json = letter(5).json();
        assert_eq!(json["requestContext"]["condition"], "RetryAttemptsExhausted");
        let batch = &json["KinesisBatchInfo"];
        assert_eq!(batch["startSequenceNumber"], "5");
        assert_eq!(batch["approximateArrivalOfFirstRecord"], "2026-11-28T23:53:20.456Z");
        assert_eq!((&batch["batchSize"], &batch["shardId"]), (&1.into(), &"shardId-000000000001".into()));
        assert_eq!(json["multilangd"]["id"], "app/shardId-000000000001/5/2");
        assert_eq!(letter(5).line().iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
