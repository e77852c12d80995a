//! Puts records into the local stream: lines of a file or of stdin, or samples.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::completion::Puts;
use super::example;
use crate::aws::kinesis::Stream;
use crate::record_lines;
use crate::sequence::SequenceNumber;
use crate::shard::ShardId;

/// Most bytes of a record: UpdateMaxRecordSize allows no more.
const LONGEST: u64 = 10 << 20;
/// Most records of a PutRecords call.
const BATCH: usize = 500;
/// Most bytes of a PutRecords call with several records. Kinesis allows five MiB, or one larger record.
const CALL: usize = 4 << 20;
/// Bytes that one read of the input takes at most.
const READ: usize = 64 << 10;
/// Samples that are put at once at the first start; a few a second follow.
const FIRST: u64 = 1_000;
const THEN: u64 = 5;

/// A partition key and its data.
pub type KeyedRecord = (String, Vec<u8>);

/// The shard and the sequence number that Kinesis assigned to a record.
pub type Placed = (ShardId, SequenceNumber);

/// Puts all records; those refused for throughput are put again. `placed` receives the index of each record
/// and where it was put.
///
/// # Errors
/// Kinesis refuses a record for another reason.
pub async fn put(
    stream: &Stream,
    records: Vec<KeyedRecord>,
    mut placed: impl FnMut(usize, Placed),
) -> Result<(), String> {
    let mut left = Vec::new();
    for (index, (key, data)) in records.into_iter().enumerate() {
        let entry = PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build();
        left.push((index, entry.map_err(|error| error.to_string())?));
    }
    while !left.is_empty() {
        let entries = left.iter().map(|(_, entry)| entry.clone()).collect();
        let call = stream.client().put_records().set_records(Some(entries));
        let sent = call.set_stream_name(stream.by_name()).set_stream_arn(stream.by_arn()).send().await;
        let answer = sent.map_err(|error| match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => aws_smithy_types::error::display::DisplayErrorContext(error).to_string(),
        })?;
        let mut refused = Vec::new();
        for ((index, entry), result) in left.into_iter().zip(answer.records()) {
            let number = result.sequence_number().and_then(SequenceNumber::parse);
            match (result.error_code(), result.shard_id(), number) {
                (None, Some(shard), Some(number)) => placed(index, (shard.into(), number)),
                (None, ..) => return Err("the answer has no shard or sequence number".to_owned()),
                (Some(_), ..) => refused.push((index, entry)),
            }
        }
        left = refused;
        if !left.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// The value of `--put`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `-`: stdin.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl From<PathBuf> for Input {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Why the lines of an input were not put.
#[derive(Debug, thiserror::Error)]
pub enum Unput {
    /// The input cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// A line is longer than any record may be.
    #[error("line {0} is longer than 10 MiB, the maximum size of a record (split it)")]
    TooLong(u64),
    /// A line is no record.
    #[error("line {0}: {1}")]
    Line(u64, String),
    /// Kinesis refuses some lines.
    #[error("Kinesis rejected lines {first} to {last}: {reason}")]
    Refused {
        /// The first line of the call.
        first: u64,
        /// The last line of the call.
        last: u64,
        /// The answer of Kinesis.
        reason: String,
    },
}

/// Lines that are put by one call.
#[derive(Debug, Default, PartialEq, Eq)]
struct Batch {
    /// The number of the first line, from 1.
    first: u64,
    lines: Vec<Vec<u8>>,
}

/// Reads the lines of an input in batches.
struct Batches<R> {
    input: BufReader<R>,
    /// Whether a batch ends where the next read could block: lines of a terminal or pipe are put as they
    /// arrive.
    is_live: bool,
    /// Number of lines read.
    number: u64,
    /// A line that had no room in the previous batch.
    kept: Option<Vec<u8>>,
}

impl<R: Read> Batches<R> {
    fn new(input: R, is_live: bool) -> Self {
        Self { input: BufReader::with_capacity(READ, input), is_live, number: 0, kept: None }
    }

    /// The next lines; none at the end of the input.
    fn next(&mut self) -> Result<Option<Batch>, Unput> {
        let mut batch = Batch { first: self.number + 1, lines: Vec::new() };
        let mut size = 0;
        if let Some(line) = self.kept.take() {
            batch.first = self.number;
            size += line.len();
            batch.lines.push(line);
        }
        loop {
            let is_complete = self.input.buffer().contains(&b'\n');
            if batch.lines.len() == BATCH || self.is_live && !batch.lines.is_empty() && !is_complete {
                return Ok(Some(batch));
            }
            let Some(line) = self.line()? else {
                return Ok((!batch.lines.is_empty()).then_some(batch));
            };
            if !batch.lines.is_empty() && size + line.len() > CALL {
                self.kept = Some(line);
                return Ok(Some(batch));
            }
            // A partition key counts too.
            size += line.len() + 16;
            batch.lines.push(line);
        }
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, Unput> {
        let mut line = Vec::new();
        if self.input.by_ref().take(LONGEST + 2).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() as u64 > LONGEST {
            return Err(Unput::TooLong(self.number));
        }
        Ok(Some(line))
    }
}

/// Reads an input in a thread of its own, which is not awaited: a read of a terminal or pipe may block for
/// ever and cannot be cancelled. The thread is at most one batch ahead.
fn read(input: Input) -> io::Result<mpsc::Receiver<Result<Batch, Unput>>> {
    let (sender, batches) = mpsc::channel(1);
    let send = move |mut from: Batches<Box<dyn Read>>| {
        while let Some(batch) = from.next().transpose() {
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
    };
    let run = move || match input {
        Input::Stdin => send(Batches::new(Box::new(io::stdin()), true)),
        Input::File(path) => match File::open(path) {
            Ok(file) => send(Batches::new(Box::new(file), false)),
            // The receiver reports it as it reports a failed read.
            Err(error) => send(Batches::new(Box::new(Unopened(Some(error))), false)),
        },
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(run)?;
    Ok(batches)
}

/// An input whose only read fails.
struct Unopened(Option<io::Error>);

impl Read for Unopened {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// The form of the lines of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Each line is the data of a record, with the line number as its partition key.
    Plain,
    /// Each line is a record as JSON; without a partition key it gets the line number.
    Json,
}

impl Form {
    fn record(self, number: u64, line: Vec<u8>) -> Result<KeyedRecord, Unput> {
        match self {
            Self::Plain => Ok((number.to_string(), line)),
            Self::Json => {
                let (key, data) = record_lines::parse(&line).map_err(|why| Unput::Line(number, why))?;
                Ok((key.filter(|key| !key.is_empty()).unwrap_or_else(|| number.to_string()), data))
            }
        }
    }
}

/// Puts the lines of an input as records, and notes where. Returns the number of lines.
///
/// # Errors
/// The input cannot be read, a line is no record, or Kinesis refuses.
pub async fn put_lines(stream: &Stream, input: Input, form: Form, puts: &Mutex<Puts>) -> Result<u64, Unput> {
    let mut batches = read(input)?;
    let mut number = 0;
    while let Some(batch) = batches.recv().await {
        let Batch { first, lines } = batch?;
        let last = first + lines.len() as u64 - 1;
        let records: Result<Vec<KeyedRecord>, Unput> =
            (first..).zip(lines).map(|(number, line)| form.record(number, line)).collect();
        let note = |index, (shard, sequence)| {
            super::completion::lock(puts).note(shard, first + index as u64, sequence);
        };
        let put = put(stream, records?, note).await;
        put.map_err(|reason| Unput::Refused { first, last, reason })?;
        number = last;
    }
    super::completion::lock(puts).complete();
    Ok(number)
}

/// Puts samples with ascending numbers until `stop`: many at first if the stream is new, then a few a second.
pub async fn put_samples(stream: Arc<Stream>, from: u64, stop: CancellationToken) {
    let mut next = from;
    loop {
        let until = if next == 0 { FIRST } else { next + THEN };
        while next < until {
            let end = until.min(next + BATCH as u64);
            let samples = (next..end).map(example::record).collect();
            if let Err(error) = put(&stream, samples, |_, _| {}).await {
                warn!(error, "failed to put sample records");
                return;
            }
            next = end;
        }
        tokio::select! {
            biased;
            // A stop ends the samples first, so that the numbers of records put and delivered become equal.
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: impl Read, is_live: bool) -> Vec<(u64, usize)> {
        let mut batches = Batches::new(input, is_live);
        let next = || batches.next().unwrap().map(|batch| (batch.first, batch.lines.len()));
        std::iter::from_fn(next).collect()
    }

    /// Returns one piece with each read, as a pipe does.
    struct Pipe(Vec<&'static [u8]>);

    impl Read for Pipe {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn lines_of_a_pipe_are_put_as_they_arrive() {
        let pipe = || Pipe(vec![b"one\ntwo\nth", b"ree\n", b"four"]);
        assert_eq!(batches(pipe(), true), [(1, 2), (3, 1), (4, 1)]);
        assert_eq!(batches(pipe(), false), [(1, 4)]);
        assert_eq!(batches(&b""[..], true), []);
    }

    #[test]
    fn batch_is_limited_in_lines_and_bytes() {
        let lines = "x\n".repeat(1_200);
        assert_eq!(batches(lines.as_bytes(), true), [(1, 500), (501, 500), (1_001, 200)]);
        let line = "x".repeat(3 << 20);
        let large = format!("{line}\n{line}\ny\n");
        assert_eq!(batches(large.as_bytes(), false), [(1, 1), (2, 2)]);
    }

    #[test]
    fn line_beyond_10_mib_is_rejected_by_number() {
        let long = [&b"short\n"[..], &vec![b'x'; 11 << 20]].concat();
        let mut batches = Batches::new(&long[..], true);
        assert_eq!(batches.next().unwrap().unwrap().lines, [b"short"]);
        assert!(matches!(batches.next(), Err(Unput::TooLong(2))));
    }

    #[test]
    fn json_line_is_a_record_and_needs_no_key() {
        let json = |line: &str| Form::Json.record(7, line.into());
        assert_eq!(
            json("{\"partitionKey\":\"k\",\"data\":\"aGk=\"}").unwrap(),
            ("k".to_owned(), b"hi".to_vec())
        );
        assert_eq!(json("{\"text\":\"hi\"}").unwrap(), ("7".to_owned(), b"hi".to_vec()));
        assert!(matches!(json("hi"), Err(Unput::Line(7, _))));
        assert_eq!(Form::Plain.record(7, b"hi".to_vec()).unwrap(), ("7".to_owned(), b"hi".to_vec()));
    }

    #[test]
    fn hyphen_is_stdin() {
        assert_eq!(Input::from(PathBuf::from("-")), Input::Stdin);
        assert_eq!(Input::from(PathBuf::from("./-")).to_string(), "./-");
    }
}
