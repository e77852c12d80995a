//! The position of a feed in its shard, and how it resumes after a failure. Shared by polling and enhanced
//! fan-out.
//!
//! In KCL: `IteratorBuilder`, `DataRetrievalUtil`.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::aggregation::{self, Expanded};
use super::failing::{Failing, Kind};
use super::port::{Answer, Error, Start};
use super::source::{ShardOfStream, Source};
use crate::batch::{Batch, Records};
use crate::metrics::OfShard;
use crate::sequence::SequenceNumber;
use crate::shard::{ChildShard, Filter, HashRange, Shard, ShardId};
use crate::stream::StreamId;

/// The longest pause between attempts that fail.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A wait for memory is reported after this time.
pub(super) const SHOWN: Duration = Duration::from_secs(1);
/// Bytes reserved for an answer without records.
pub(super) const LITTLE: usize = 4 * 1024;
/// The message about a failed read of polling.
pub(super) const GET_FAILED: &str = "failed to read the shard, retrying";
/// Interval between log lines about the same failure.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Place {
    pub(super) source: Source,
    pub(super) shard: ShardId,
    range: Option<HashRange>,
    /// The stream that the lease belongs to, by the mark of its row.
    stream: Option<StreamId>,
    start: Start,
    /// A time at which reading had not started yet, in milliseconds since 1970.
    opened: Option<i64>,
    last: Option<SequenceNumber>,
    /// When a failure was last logged.
    last_logged: Option<Instant>,
    failing: Failing,
}

impl Place {
    pub(super) fn new(source: Source, of: ShardOfStream, start: Start) -> Self {
        let ShardOfStream { id: shard, range, stream } = of;
        Self {
            source,
            shard,
            range,
            stream,
            start,
            opened: None,
            last: None,
            last_logged: None,
            failing: Failing::default(),
        }
    }

    /// The start for a new iterator or subscription.
    pub(super) fn start(&self) -> Start {
        match (&self.last, self.opened, &self.start) {
            (Some(last), ..) => Start::After(last.clone()),
            (None, Some(opened), Start::Latest) => Start::AtTimestamp(opened),
            (None, _, start) => start.clone(),
        }
    }

    /// Notes that an iterator or subscription, requested at that time, was opened.
    pub(super) fn opened(&mut self, asked: i64) {
        self.opened.get_or_insert(asked);
    }

    /// Turns an answer into a batch for the child and advances the position to `last`. `took` is the duration
    /// of the call.
    pub(super) fn batch(
        &mut self,
        answer: Answer,
        last: Option<SequenceNumber>,
        took: Option<Duration>,
    ) -> Batch {
        // A subscription may report the record at which it starts before that record was delivered.
        let at = match (&self.last, &self.start) {
            (None, Start::At(number)) if answer.records.is_empty() => Some(number),
            _ => None,
        };
        // No event moves the position back.
        if let Some(last) = last
            && at.is_none_or(|at| last.order(at) == Ordering::Greater)
            && self.last.as_ref().is_none_or(|before| last.order(before) != Ordering::Less)
        {
            self.last = Some(last);
        }
        self.last_logged = None;
        if let Some(lasted) = self.failing.recovered(Instant::now()) {
            info!(event = "shard_read_recovered", ?lasted, "reading the shard works again");
        }
        self.source.reach.answered(Instant::now());
        let end = answer.next.is_none().then_some(answer.children);
        let (records, dropped) = match answer.records {
            Records::Decoded(records) => {
                let Expanded { records, dropped } =
                    aggregation::expand(records, self.range, &self.shard, &self.source.budget);
                (Records::Decoded(records), dropped)
            }
            ready @ Records::Encoded(_) => (ready, 0),
        };
        if let Some(last) = records.greatest() {
            let last_arrival = records.end().and_then(|(_, arrival)| arrival);
            let received =
                OfShard::Received { first_arrival: records.first_arrival(), last: &last, last_arrival };
            self.source.sink.shard(&self.shard, received);
        }
        let fetched = OfShard::Fetched {
            records: records.len(),
            millis_behind_latest: answer.millis_behind_latest,
            took,
        };
        self.source.sink.shard(&self.shard, fetched);
        Batch { records, millis_behind_latest: answer.millis_behind_latest, end, dropped }
    }

    /// Counts a failed read, and logs it unless that would be too often. All failures pass through here, so
    /// that no shard stops without a log line.
    pub(super) fn failed(
        &mut self,
        kind: Kind,
        took: Option<Duration>,
        what: &'static str,
        error: &dyn std::fmt::Display,
    ) {
        let now = Instant::now();
        let error = error.to_string();
        let mut kind = kind;
        if kind == Kind::Unreachable {
            let reach = &self.source.reach;
            reach.failed(now, &error);
            // If only this shard gets no answer, it is a failure of this shard.
            if !reach.is_out(now) {
                kind = Kind::Usual;
            }
        } else if kind == Kind::Unusual {
            // A rejection is a response.
            self.source.reach.answered(now);
        }
        let reported = self.failing.failed(now, kind);
        self.source.sink.shard(&self.shard, OfShard::FetchFailed { took, error: &error });
        let (lasted, times) = self.failing.lasted(now);
        if reported && what == GET_FAILED {
            warn!(event = "get_records_failed", error, failures = times, ?lasted, "{what}");
        } else if reported {
            warn!(event = "shard_read_failed", error, failures = times, ?lasted, "{what}");
        } else {
            debug!(error, failures = times, ?lasted, "{what}");
        }
    }

    /// Whether to log a repeated failure now: at most one line a minute and shard.
    pub(super) fn is_news(&mut self) -> bool {
        let news = self.last_logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if news {
            self.last_logged = Some(Instant::now());
        }
        news
    }

    /// Whether the answer is consistent: Kinesis ends a shard with both signs or none, and each child shard
    /// has parents (KCL's `DataRetrievalUtil`). Any other answer counts as a failed read.
    pub(super) fn believes(&mut self, answer: &Answer) -> bool {
        let orphan = answer.children.iter().any(|child| child.parents.is_empty());
        let believed = answer.next.is_some() == answer.children.is_empty() && !orphan;
        if !believed {
            let (next, children) = (answer.next.is_some(), answer.children.len());
            let error = format!("the response has a next position: {next}, and {children} child shards");
            self.failed(Kind::Unusual, None, "ignored an inconsistent end of the shard, retrying", &error);
        }
        believed
    }

    /// Reports the suspicion that the stream was deleted and created again: its shards have the same ids, and
    /// their sequence numbers begin after the stored ones. The shard sync then resets the leases, and this
    /// feed ends with its lease. Java requests the old number for ever.
    pub(super) async fn suspect_another_stream(&mut self, error: &Error) {
        let start = self.start();
        let (Start::At(number) | Start::After(number)) = &start else { return };
        if self.is_news() {
            warn!(event = "checkpoint_unusable", %error, checkpoint = %number,
                "Kinesis rejects the checkpoint as a starting position (a permission may be missing, or \
                 the stream may have been recreated)");
        }
        self.source.recognition.suspect();
    }

    /// The end of the shard if it no longer exists. Java treats "not found" as the end, even if the stream or
    /// the consumer is missing, and so skips records. Here a shard has ended only if the stream exists, is
    /// the one that the lease belongs to, and does not list the shard.
    pub(super) async fn end_if_gone(&mut self, reason: &str) -> Option<Batch> {
        match self.source.shards.list(Filter::All).await {
            Ok(shards) if !shards.is_empty() && shards.iter().all(|shard| shard.id != self.shard) => {
                if !self.source.recognition.is_still(self.stream.as_ref()).await {
                    if self.is_news() {
                        warn!(
                            event = "shard_not_listed",
                            error = reason,
                            "ListShards does not list the shard, but the identity of the stream is \
                             unknown: the shard does not count as ended, retrying"
                        );
                    }
                    self.source.recognition.suspect();
                    return None;
                }
                warn!(
                    event = "shard_expired",
                    error = reason,
                    "the shard is past the retention period and no longer listed: it counts as ended"
                );
                let of_this = |shard: &&Shard| shard.parents().any(|parent| *parent == self.shard);
                let child = |shard: &Shard| ChildShard {
                    id: shard.id.clone(),
                    parents: shard.parents().cloned().collect(),
                    range: shard.range,
                };
                let children = shards.iter().filter(of_this).map(child).collect();
                Some(Batch { end: Some(children), ..Batch::default() })
            }
            listed if self.is_news() => {
                let listed = listed
                    .map_or_else(|error| error.to_string(), |shards| format!("{} shards", shards.len()));
                warn!(
                    event = "shard_not_found",
                    error = reason,
                    list_shards = listed,
                    "Kinesis returned ResourceNotFoundException, but ListShards still lists the shard, \
                     retrying"
                );
                None
            }
            _ => None,
        }
    }
}
