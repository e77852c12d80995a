//! `multilangd tail`: prints the records of a stream as JSON lines, without leases.
//!
//! Each shard is read by a [`Feed`], which retries failed calls and takes KPL aggregates apart as for a record
//! processor. One batch of each shard waits at most, and the shared [`Budget`] bounds the rest. [`shards::Reading`] is
//! the pure part: which shards to open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, MOST_RECORDS};
use crate::budget::Budget;
use crate::clock::ServiceClock;
use crate::metrics::Discard;
use crate::reach::Reaches;
use crate::recognition::Recognition;
use crate::record::Record;
use crate::record_lines;
use crate::retrieval::{self, Feed, Source};
use crate::shard::{self, ShardId};

pub mod shards;

use shards::{From, Missing, Opening, Reading};

/// Most bytes of records in memory, those that are printed excluded.
const BUDGET: usize = 64 << 20;
/// Most calls at the same time.
const CALLS: usize = 16;
/// The pause between two calls of a shard: Kinesis allows five a second for all applications together.
const IDLE: Duration = Duration::from_millis(500);

/// The options of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The position at which reading starts.
    pub from: From,
    /// The only shard to read; none for all.
    pub shard: Option<ShardId>,
    /// Most records to print.
    pub limit: Option<u64>,
    /// Whether reading continues at the tip.
    pub follow: bool,
    /// Whether data that is valid UTF-8 is printed as text.
    pub text: bool,
}

/// Why records cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shards cannot be listed.
    #[error("failed to list the shards of the stream: {0}")]
    Shards(#[from] shard::Error),
    /// There is no such shard.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The output cannot be written.
    #[error("failed to write to stdout: {0}")]
    Output(#[from] io::Error),
}

/// The ports.
pub struct Ports {
    /// Lists the shards.
    pub shards: Arc<dyn shard::Api>,
    /// Reads them.
    pub records: Arc<dyn retrieval::Api>,
    /// The endpoint of Kinesis, for messages.
    pub location: String,
    /// AWS's clock.
    pub clock: ServiceClock,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Prints records until `stop`, the limit, or, unless it follows, the tip of every shard. `write` blocks. A reader
/// that has closed the output ends it without an error.
///
/// # Errors
/// [`Error`].
pub async fn run(
    ports: Ports,
    options: Options,
    write: impl Fn(&[u8]) -> io::Result<()> + Clone + Send + 'static,
    stop: CancellationToken,
) -> Result<(), Error> {
    let listed = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        listed = ports.shards.list(options.from.filter(options.shard.is_some())) => listed?,
    };
    let mut reading = Reading::default();
    let openings = reading.begin(listed, &options.from, options.shard.as_ref())?;
    let source = source(ports, IDLE);
    let (sender, mut batches) = mpsc::channel(1);
    let mut feeds = JoinSet::new();
    let mut open = |openings: Vec<Opening>| {
        for Opening { shard, start } in openings {
            let (feed, sender) = (Feed::open(&source, shard.clone(), start), sender.clone());
            feeds.spawn(pass_on(shard.id, feed, sender));
        }
    };
    open(openings);
    let mut left = options.limit.unwrap_or(u64::MAX);
    let mut writing = JoinSet::new();
    while left > 0 && !reading.is_over() {
        let (shard, batch) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            next = batches.recv() => match next {
                Some(next) => next,
                None => return Ok(()),
            },
        };
        let at_tip = batch.millis_behind_latest == Some(0) && !options.follow;
        let text = lines(&shard, batch.records.decode(), &mut left, options.text);
        if !text.is_empty() {
            let write = write.clone();
            writing.spawn_blocking(move || write(text.as_bytes()));
            let written = tokio::select! {
                biased;
                written = writing.join_next() => written,
                () = stop.cancelled() => return Ok(()),
            };
            match written {
                Some(Ok(Err(error))) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Some(Ok(written)) => written?,
                Some(Err(error)) => return Err(io::Error::other(error).into()),
                None => {}
            }
        }
        match batch.end {
            Some(children) if options.shard.is_none() => open(reading.ended(&shard, children)),
            Some(_) => open(reading.ended(&shard, Vec::new())),
            None if at_tip => reading.stopped(&shard),
            None => {}
        }
    }
    Ok(())
}

/// The parts that feeds without leases share. `idle` is the pause between two calls of a shard.
pub fn source(ports: Ports, idle: Duration) -> Source {
    let settings = retrieval::Settings {
        max_records: MOST_RECORDS,
        idle,
        idle_behind: idle,
        near: Duration::ZERO,
        // An empty answer shows that the tip is reached.
        keep_empty: true,
        retry: Duration::from_millis(500),
        ahead: retrieval::PrefetchLimits { batches: 1, ..retrieval::PrefetchLimits::default() },
    };
    let reach = Reaches::at(&ports.location, "-").kinesis;
    Source {
        api: ports.records,
        recognition: Recognition::new(ports.shards.clone()),
        shards: ports.shards,
        consumer: None,
        settings,
        budget: Budget::new(BUDGET),
        closed: Arc::default(),
        reach,
        calls: Arc::new(Semaphore::new(CALLS)),
        sink: Arc::new(Discard),
        clock: ports.clock,
    }
}

async fn pass_on(shard: ShardId, mut feed: Feed, sender: mpsc::Sender<(ShardId, Batch)>) {
    while let Some(batch) = feed.next().await {
        let is_end = batch.end.is_some();
        if sender.send((shard.clone(), batch)).await.is_err() || is_end {
            return;
        }
    }
}

/// The lines of the first records, one for each; `left` is reduced by their number.
fn lines(shard: &ShardId, records: Vec<Record>, left: &mut u64, as_text: bool) -> String {
    let mut out = String::new();
    for record in records {
        if *left == 0 {
            break;
        }
        *left -= 1;
        record_lines::write(shard, &record, as_text, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_base64_or_text_and_the_limit_counts() {
        let records = || {
            let mut user = Record::plain(7, "k\"", b"h\xc3\xa9");
            user.sub = 2;
            vec![user, Record::plain(8, "", b"\xff"), Record::plain(9, "", b"")]
        };
        let (shard, mut left) = (ShardId::from("s"), 2);
        let text = lines(&shard, records(), &mut left, true);
        let parsed: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((parsed.len(), left), (2, 0));
        assert_eq!(parsed[0]["text"], "h\u{e9}");
        assert_eq!((&parsed[0]["subSequenceNumber"], &parsed[0]["partitionKey"]), (&2.into(), &"k\"".into()));
        assert_eq!((&parsed[1]["data"], parsed[1].get("text")), (&"/w==".into(), None));
        let mut left = 9;
        assert!(lines(&shard, records(), &mut left, false).contains("\"data\":\"aMOp\"}\n"));
        assert_eq!(left, 6);
    }
}
