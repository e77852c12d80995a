//! The contract of a destination of dead letters, for every implementation; and PutRecords with faults.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_sdk_kinesis::types::ShardIteratorType;
use multilangd::aws::client::{Clients, Settings, clients};
use multilangd::letters::exec::Exec;
use multilangd::letters::file::Folder;
use multilangd::letters::{self, All, Condition, Destination, Letter, list, memory};
use multilangd::local::kinesis::{Effect, Fault, Kinesis, Operation, Options};
use multilangd::multilang::Program;
use multilangd::record::{Data, Record};
use multilangd::sequence::SequenceNumber;

const STREAM: &str = "letters";
const LETTERS: usize = 1_203;

fn letter(number: usize, bytes: usize) -> Letter {
    Letter {
        condition: Condition::RecordAgeExceeded,
        at: 1_795_996_799_123,
        lease: "shardId-000000000001".into(),
        stream: None,
        application: "app".to_owned(),
        worker: "w".to_owned(),
        program: "p".to_owned(),
        record: Record {
            sequence: SequenceNumber::parse(&number.to_string()).unwrap(),
            sub: 0,
            partition_key: "k".into(),
            data: Data::encode(&vec![7; bytes]),
            arrival: Some(1),
        },
        attempts: 0,
        failures: Vec::new(),
    }
}

fn all(count: usize) -> Vec<Letter> {
    (1..=count).map(|number| letter(number, 100)).collect()
}

/// Sends letters until all are accepted, as a shard does, and returns the number of calls.
async fn send_all(destination: &dyn Destination, letters: &[Letter]) -> usize {
    let (mut sent, mut calls) = (0, 0);
    while sent < letters.len() {
        let accepted = destination.send(&letters[sent..]).await.unwrap();
        assert!((1..=letters.len() - sent).contains(&accepted), "{accepted}");
        (sent, calls) = (sent + accepted, calls + 1);
    }
    calls
}

fn folder(name: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("letters-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn in_files(folder: &Path) -> Vec<Letter> {
    let paths = letters::file::paths(&format!("file:{}", folder.display())).unwrap();
    let text: Vec<u8> = paths.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    list::read(&text).into_iter().map(Result::unwrap).collect()
}

fn file(folder: &Path) -> Folder {
    Folder::open(folder, "w").unwrap()
}

fn exec(command: &str) -> Exec {
    Exec(Program::find(command, Some("/bin:/usr/bin".as_ref())).unwrap())
}

/// A stream of letters at the embedded endpoint.
struct Queue {
    kinesis: Kinesis,
    clients: Clients,
}

impl Queue {
    async fn start() -> Self {
        let kinesis = Kinesis::start(Options::default()).await.unwrap();
        let settings =
            Settings::local(&kinesis.url(), &kinesis.url(), "us-east-1", std::time::Duration::from_secs(30));
        let clients = clients(&settings, Arc::new(multilangd::metrics::Discard)).await.unwrap();
        clients.kinesis.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
        Self { kinesis, clients }
    }

    fn destination(&self) -> impl Destination + use<> {
        self.clients.letter_stream(STREAM)
    }

    fn calls(&self, operation: Operation) -> u64 {
        self.kinesis.faults().calls(operation)
    }

    async fn stored(&self) -> Vec<Letter> {
        let kinesis = &self.clients.kinesis;
        let iterator = kinesis.get_shard_iterator().stream_name(STREAM).shard_id("shardId-000000000000");
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let (mut next, mut found) = (iterator.shard_iterator, Vec::new());
        loop {
            let read = kinesis.get_records().set_shard_iterator(next).send().await.unwrap();
            if read.records.is_empty() {
                return found;
            }
            for record in read.records {
                found.extend(list::read(record.data.as_ref()).into_iter().map(Result::unwrap));
            }
            next = read.next_shard_iterator;
        }
    }
}

#[tokio::test]
async fn batch_reaches_memory_once_and_in_order() {
    let memory = Arc::new(memory::Memory::default());
    let letters = all(LETTERS);
    send_all(&memory, &letters).await;
    assert_eq!(memory.letters(), letters);
    memory.set_down(true);
    assert!(memory.send(&letters).await.is_err());
}

#[tokio::test]
async fn batch_reaches_a_file_with_one_write() {
    let folder = folder("file");
    let letters = all(LETTERS);
    assert_eq!(send_all(&file(&folder), &letters).await, 1);
    assert_eq!(in_files(&folder), letters);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn batch_reaches_a_program_letter_by_letter() {
    let folder = folder("exec");
    let out = folder.join("dead-letters-out.jsonl");
    let letters = all(40);
    send_all(&exec(&format!("tee -a {}", out.display())), &letters).await;
    assert_eq!(in_files(&folder), letters);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn batch_reaches_a_stream_with_few_calls() {
    let queue = Queue::start().await;
    let letters = all(LETTERS);
    assert_eq!(send_all(&queue.destination(), &letters).await, 3);
    assert_eq!(queue.stored().await, letters);
    assert_eq!((queue.calls(Operation::PutRecords), queue.calls(Operation::PutRecord)), (3, 0));
}

#[tokio::test]
async fn batch_reaches_several_destinations_once_each() {
    let folder = folder("several");
    let (queue, memory) = (Queue::start().await, Arc::new(memory::Memory::default()));
    memory.set_most(7);
    let letters = all(LETTERS);
    let destinations: Vec<Box<dyn Destination>> =
        vec![Box::new(file(&folder)), Box::new(queue.destination()), Box::new(memory.clone())];
    send_all(&All::new(destinations), &letters).await;
    assert_eq!(
        (in_files(&folder), queue.stored().await, memory.letters()),
        (letters.clone(), letters.clone(), letters)
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn rejected_records_of_a_call_are_put_again() {
    let queue = Queue::start().await;
    let fault = Fault::on(Operation::PutRecords, Effect::Throttle).shard("shardId-000000000000");
    queue.kinesis.faults().add(fault.times(2));
    let letters = all(50);
    assert_eq!(queue.destination().send(&letters).await, Ok(50));
    assert!(queue.calls(Operation::PutRecords) >= 2);
    let mut stored = queue.stored().await;
    stored.sort_by_key(|letter| letter.record.sequence.as_str().parse::<u64>().unwrap());
    assert_eq!(stored, letters, "each once");
}

#[tokio::test]
async fn letters_without_putrecords_are_put_one_by_one() {
    let queue = Queue::start().await;
    queue.kinesis.faults().add(Fault::on(Operation::PutRecords, Effect::Unknown));
    let letters = all(3);
    assert_eq!(send_all(&queue.destination(), &letters).await, 3);
    assert_eq!(queue.stored().await, letters);
}

#[tokio::test]
async fn letter_that_is_too_large_delays_no_letter_before_it() {
    let queue = Queue::start().await;
    let mut letters = all(5);
    letters[3] = letter(4, 1 << 20);
    assert_eq!(queue.destination().send(&letters).await, Ok(3));
    let rejected = queue.destination().send(&letters[3..]).await.unwrap_err();
    assert!(rejected.reason.contains("maximum record size"), "{rejected}");
    assert_eq!(queue.stored().await, letters[..3]);
}

#[tokio::test]
async fn destination_that_is_missing_rejects_the_first_letter() {
    let queue = Queue::start().await;
    let rejected = queue.clients.letter_stream("none").send(&all(2)).await.unwrap_err();
    assert!(rejected.reason.contains("ResourceNotFoundException"), "{rejected}");
    assert!(exec("false").send(&all(2)).await.is_err());
}
