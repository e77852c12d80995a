//! Where a reading of a shard stands, and how it goes on after trouble. The same for both ways of reading.
//!
//! In KCL: `IteratorBuilder`, `DataRetrievalUtil`.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::aggregation::{self, Expanded};
use super::failing::{Failing, Kind};
use super::{Answer, ShardOfStream, Source, Start};
use crate::batch::{Batch, Records};
use crate::clock;
use crate::metrics::OfShard;
use crate::sequence::SequenceNumber;
use crate::shard::{ChildShard, Filter, HashRange, Shard, ShardId};
use crate::stream::StreamId;

/// Kinesis's clock and ours may differ by this much when a `LATEST` is opened again by time: AWS refuses
/// requests that are signed further off. Records from before the opening are the lesser evil.
pub(super) const CLOCK_MARGIN_MILLIS: i64 = 5 * 60_000;

/// Between two words about the same trouble.
const TELL_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Place {
    pub(super) source: Source,
    pub(super) shard: ShardId,
    range: Option<HashRange>,
    /// The stream that the lease is of, as its row is marked.
    stream: Option<StreamId>,
    start: Start,
    /// When reading began, by the wall clock.
    opened: Option<i64>,
    last: Option<SequenceNumber>,
    /// When it was last told that reading fails.
    told: Option<Instant>,
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
            told: None,
            failing: Failing::default(),
        }
    }

    /// Where to open a reading now.
    pub(super) fn start(&self) -> Start {
        match (&self.last, self.opened, &self.start) {
            (Some(last), ..) => Start::After(last.clone()),
            (None, Some(opened), Start::Latest) => Start::AtTimestamp(opened - CLOCK_MARGIN_MILLIS),
            (None, _, start) => start.clone(),
        }
    }

    /// A reading was opened; asked for at that time.
    pub(super) fn opened(&mut self, asked: i64) {
        self.opened.get_or_insert(asked);
    }

    /// The answer, to a call that took so long, goes to the child: reading goes on behind `last`.
    pub(super) fn batch(
        &mut self,
        answer: Answer,
        last: Option<SequenceNumber>,
        took: Option<Duration>,
    ) -> Batch {
        // A subscription may name the very record that it begins at before that came: it is not read yet.
        let at = match (&self.last, &self.start) {
            (None, Start::At(number)) if answer.records.is_empty() => Some(number),
            _ => None,
        };
        // And no event leads back.
        if let Some(last) = last
            && at.is_none_or(|at| last.order(at) == Ordering::Greater)
            && self.last.as_ref().is_none_or(|before| last.order(before) != Ordering::Less)
        {
            self.last = Some(last);
        }
        self.told = None;
        if let Some(lasted) = self.failing.recovered(Instant::now()) {
            info!(?lasted, "reading the shard works again");
        }
        if let Some(lasted) = self.source.reach.answered(Instant::now()) {
            info!(?lasted, "Kinesis responds again");
        }
        let end = answer.next.is_none().then_some(answer.children);
        let (records, dropped) = match answer.records {
            Records::Decoded(records) => {
                let Expanded { records, dropped } =
                    aggregation::expand(records, self.range, &self.shard, &self.source.budget);
                (Records::Decoded(records), dropped)
            }
            ready @ Records::Encoded(_) => (ready, 0),
        };
        let fetched = OfShard::Fetched {
            records: records.len(),
            millis_behind_latest: answer.millis_behind_latest,
            took,
        };
        self.source.sink.shard(&self.shard, fetched);
        Batch { records, millis_behind_latest: answer.millis_behind_latest, end, dropped }
    }

    /// A read has failed: counted, and logged unless that would be too often. All failures go through here, so that no
    /// shard stands still without a log line.
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
            if let Some(lasted) = reach.failed(now) {
                warn!(error, ?lasted, "cannot reach Kinesis: no shard is read until it responds");
            }
            // One shard alone that gets no answer is a matter of its own.
            if !reach.is_out() {
                kind = Kind::Usual;
            }
        }
        let reported = self.failing.failed(now, kind);
        self.source.sink.shard(&self.shard, OfShard::FetchFailed { took, error: &error });
        let (lasted, times) = self.failing.lasted(now);
        if reported {
            warn!(error, failures = times, ?lasted, "{what}");
        } else {
            debug!(error, failures = times, ?lasted, "{what}");
        }
    }

    /// Whether trouble is worth a log line: a service that can't be reached for hours is one line a minute and shard.
    pub(super) fn is_news(&mut self) -> bool {
        let news = self.told.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
        if news {
            self.told = Some(Instant::now());
        }
        news
    }

    /// Kinesis ends a shard with both signs or none, and each child has parents (KCL's DataRetrievalUtil).
    /// Anything else is not believed: it counts as a failed read.
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

    /// A stream that was deleted and created again has shards of the same names, whose sequence numbers begin after the
    /// stored ones. The shard sync then resets the leases, and this reading ends with its lease. Java asks for the old
    /// number for ever.
    pub(super) async fn suspect_another_stream(&mut self, error: &super::Error) {
        let start = self.start();
        let (Start::At(number) | Start::After(number)) = &start else { return };
        if self.is_news() {
            warn!(%error, checkpoint = %number,
                "Kinesis rejects the checkpoint as a starting position (a permission may be missing, or \
                 the stream may have been recreated)");
        }
        self.source.recognition.suspect();
    }

    /// Java takes "no such shard" for its end, be it the stream or the consumer that is missing. That skips
    /// records: it has ended if the stream is there, is the one that the lease is of, and doesn't list it.
    pub(super) async fn end_if_gone(&mut self, reason: &str) -> Option<Batch> {
        match self.source.shards.list(Filter::All).await {
            Ok(shards) if !shards.is_empty() && shards.iter().all(|shard| shard.id != self.shard) => {
                if !self.source.recognition.is_still(self.stream.as_ref()).await {
                    if self.is_news() {
                        warn!(
                            error = reason,
                            "ListShards does not list the shard, but the identity of the stream is \
                             unknown: the shard does not count as ended, retrying"
                        );
                    }
                    self.source.recognition.suspect();
                    return None;
                }
                warn!(
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

    /// Now, as [`Place::opened`] wants it.
    pub(super) fn now() -> i64 {
        clock::wall_millis()
    }
}
