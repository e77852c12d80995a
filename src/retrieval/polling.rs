//! GetRecords at a pace, from a position to the end of the shard.
//!
//! In KCL: `PrefetchRecordsPublisher`, `KinesisDataFetcher`. Different on purpose: a batch is
//! fetched only when there is room for it, so that none is ever thrown away; a shard that "does not
//! exist" has ended only if `ListShards` agrees; and an expired `LATEST` goes on from the time when
//! it was opened.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{Answer, Error, Source, Start, aggregation};
use crate::backoff::Backoff;
use crate::clock;
use crate::record::Batch;
use crate::sequence::SequenceNumber;
use crate::shard::{ChildShard, Filter, HashRange, Shard, ShardId};

/// Kinesis's clock and ours may differ by this much when a `LATEST` is opened again by time: AWS refuses
/// requests that are signed further off. Records from before the opening are the lesser evil.
const CLOCK_MARGIN_MILLIS: i64 = 5 * 60_000;
const MAX_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Polling {
    source: Source,
    shard: ShardId,
    range: Option<HashRange>,
    start: Start,
    /// When the first iterator was got, by the wall clock.
    opened: Option<i64>,
    last: Option<SequenceNumber>,
    iterator: Option<String>,
    backoff: Backoff,
}

enum Step {
    Batch(Batch),
    Again,
    After(Duration),
}

impl Polling {
    pub(super) fn new(source: Source, shard: ShardId, range: Option<HashRange>, start: Start) -> Self {
        let backoff = Backoff::new(source.settings.retry, MAX_PAUSE, fastrand::Rng::new());
        Self { source, shard, range, start, opened: None, last: None, iterator: None, backoff }
    }

    /// Ends after the batch that ends the shard, or when nobody wants batches any more.
    pub(super) async fn run(mut self, batches: mpsc::Sender<Batch>) {
        let mut next = Instant::now();
        loop {
            let Ok(room) = batches.reserve().await else { return };
            sleep_until(next).await;
            match self.step().await {
                Step::Batch(batch) => {
                    next = Instant::now() + self.source.settings.idle;
                    let ended = batch.end.is_some();
                    if ended || !batch.records.is_empty() || self.source.settings.keep_empty {
                        room.send(batch);
                    }
                    if ended {
                        return;
                    }
                }
                Step::Again => {}
                Step::After(pause) => next = Instant::now() + pause,
            }
        }
    }

    async fn step(&mut self) -> Step {
        let outcome = match self.iterator.take() {
            None => self.open().await,
            Some(iterator) => match self.source.api.read(&iterator, self.source.settings.max_records).await {
                Ok(answer) => return self.answered(answer, iterator),
                Err(error) => {
                    if !matches!(error, Error::IteratorExpired(_)) {
                        self.iterator = Some(iterator);
                    }
                    Err(error)
                }
            },
        };
        match outcome {
            Ok(()) => Step::Again,
            Err(Error::IteratorExpired(reason)) => {
                debug!(shard = %self.shard, reason, "iterator expired");
                // Paced like a failure: an iterator that is refused for ever must not become a hot loop.
                Step::After(self.backoff.pause())
            }
            Err(Error::ShardMissing(reason)) => self.confirm_gone(&reason).await,
            Err(error) => {
                let pause = self.backoff.pause();
                warn!(shard = %self.shard, %error, ?pause, "reading failed, will try again");
                Step::After(pause)
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let start = match (&self.last, self.opened, &self.start) {
            (Some(last), ..) => Start::After(last.clone()),
            (None, Some(opened), Start::Latest) => Start::AtTimestamp(opened - CLOCK_MARGIN_MILLIS),
            (None, _, start) => start.clone(),
        };
        let now = clock::wall_millis();
        let iterator = match self.source.api.iterator(&self.shard, &start).await {
            Err(error @ Error::Denied(_)) if self.is_before_the_shard(&start).await => {
                warn!(shard = %self.shard, %error, ?start,
                    "the checkpoint is of an earlier stream of this name: reading this one from its oldest record");
                (self.start, self.last) = (Start::TrimHorizon, None);
                self.source.api.iterator(&self.shard, &self.start).await?
            }
            other => other?,
        };
        self.iterator = Some(iterator);
        self.opened.get_or_insert(now);
        Ok(())
    }

    /// A stream that was deleted and made again has shards of the same names whose numbers begin behind
    /// those of the old ones. Java asks for the old number for ever.
    async fn is_before_the_shard(&self, start: &Start) -> bool {
        let (Start::At(number) | Start::After(number)) = start else { return false };
        let listed = self.source.shards.list(Filter::All).await.unwrap_or_default();
        let this = listed.iter().find(|shard| shard.id == self.shard);
        this.is_some_and(|shard| number.order(&shard.starting) == Ordering::Less)
    }

    fn answered(&mut self, answer: Answer, iterator: String) -> Step {
        // Kinesis ends a shard with both signs or none (KCL's DataRetrievalUtil). Anything else is
        // not believed.
        if answer.next.is_some() != answer.children.is_empty() {
            warn!(shard = %self.shard, "an answer with only half of the end of a shard: asking again");
            self.iterator = Some(iterator);
            return Step::After(self.backoff.pause());
        }
        self.backoff.reset();
        if let Some(last) = answer.records.last() {
            self.last = Some(last.sequence.clone());
        }
        let end = answer.next.is_none().then_some(answer.children);
        self.iterator = answer.next;
        let records = aggregation::expand(answer.records, self.range, &self.shard);
        Step::Batch(Batch { records, millis_behind_latest: answer.millis_behind_latest, end })
    }

    /// Java takes "no such shard" for its end, be it the stream that is missing. That skips records.
    async fn confirm_gone(&mut self, reason: &str) -> Step {
        match self.source.shards.list(Filter::All).await {
            Ok(shards) if !shards.is_empty() && shards.iter().all(|shard| shard.id != self.shard) => {
                warn!(shard = %self.shard, reason, "the shard is past retention and gone: taken as ended");
                let of_this = |shard: &&Shard| shard.parents().any(|parent| *parent == self.shard);
                let child = |shard: &Shard| ChildShard {
                    id: shard.id.clone(),
                    parents: shard.parents().cloned().collect(),
                    range: shard.range,
                };
                let children = shards.iter().filter(of_this).map(child).collect();
                Step::Batch(Batch { end: Some(children), ..Batch::default() })
            }
            listed => {
                let listed = listed.map(|shards| shards.len());
                let pause = self.backoff.pause();
                warn!(shard = %self.shard, reason, ?listed, ?pause, "no such shard, but it isn't known to be gone: will try again");
                Step::After(pause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::{Api, Feed, RawRecord, Settings};
    use crate::sequence::Sequence;
    use crate::shard::{self, BoxFuture};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    /// Answers from a script; an iterator's text is the start that it was asked for.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Result<Answer, Error>>>,
        /// Refuses iterators at sequence numbers.
        refuses: bool,
        starts: Mutex<Vec<Start>>,
        listed: Vec<Shard>,
    }

    impl Api for Script {
        fn iterator<'a>(&'a self, _: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
            self.starts.lock().unwrap().push(start.clone());
            let refused = self.refuses && matches!(start, Start::At(_) | Start::After(_));
            Box::pin(async move {
                if refused { Err(Error::Denied("no such number".into())) } else { Ok("i".to_owned()) }
            })
        }
        fn read<'a>(&'a self, _: &'a str, _: usize) -> BoxFuture<'a, Result<Answer, Error>> {
            let answer = self.answers.lock().unwrap().pop_front();
            Box::pin(async {
                answer.unwrap_or_else(|| Ok(Answer { next: Some("i".into()), ..Answer::default() }))
            })
        }
    }

    impl shard::Api for Script {
        fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
            Box::pin(async { Ok(self.listed.clone()) })
        }
    }

    fn number(n: u32) -> SequenceNumber {
        SequenceNumber::parse(&n.to_string()).unwrap()
    }

    fn records(numbers: &[u32]) -> Result<Answer, Error> {
        let record = |n: &u32| RawRecord {
            sequence: number(*n),
            partition_key: "p".into(),
            data: crate::record::Data::encode(&[0]),
            arrival: None,
        };
        Ok(Answer {
            records: numbers.iter().map(record).collect(),
            next: Some("i".into()),
            ..Answer::default()
        })
    }

    fn end() -> Result<Answer, Error> {
        let child =
            ChildShard { id: "c".into(), parents: vec!["s".into()], range: HashRange { start: 0, end: 1 } };
        Ok(Answer { children: vec![child], ..Answer::default() })
    }

    async fn all(script: Script, start: Start) -> (Vec<String>, Vec<Start>) {
        let script = Arc::new(script);
        let settings = Settings {
            max_records: 10,
            idle: Duration::from_millis(200),
            keep_empty: false,
            retry: Duration::from_millis(100),
        };
        let source = Source { api: script.clone(), shards: script.clone(), settings };
        let mut feed = Feed::open(&source, "s".into(), None, start);
        let mut seen = Vec::new();
        loop {
            let batch = feed.next().await.unwrap();
            seen.extend(batch.records.iter().map(|r| r.sequence.to_string()));
            if let Some(children) = batch.end {
                seen.extend(children.iter().map(|child| format!("-> {}", child.id)));
                let starts = script.starts.lock().unwrap().clone();
                return (seen, starts);
            }
        }
    }

    fn script(answers: Vec<Result<Answer, Error>>) -> Script {
        Script { answers: Mutex::new(answers.into()), ..Script::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn every_record_comes_once_whatever_fails_on_the_way() {
        let answers = vec![
            records(&[1, 2]),
            Err(Error::Throttled("t".into())),
            Err(Error::Unavailable("u".into())),
            Ok(Answer { next: None, ..Answer::default() }),
            records(&[]),
            Err(Error::IteratorExpired("e".into())),
            records(&[3]),
            Err(Error::Denied("d".into())),
            end(),
        ];
        let (seen, starts) = all(script(answers), Start::TrimHorizon).await;
        assert_eq!(seen, ["1", "2", "3", "-> c"]);
        assert_eq!(starts, [Start::TrimHorizon, Start::After(number(2))]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_latest_does_not_jump_to_a_later_latest() {
        let before = clock::wall_millis();
        let (_, starts) =
            all(script(vec![Err(Error::IteratorExpired("e".into())), end()]), Start::Latest).await;
        let [Start::Latest, Start::AtTimestamp(millis)] = starts[..] else { panic!("{starts:?}") };
        assert!((before - CLOCK_MARGIN_MILLIS..=clock::wall_millis()).contains(&millis));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_is_missing_has_ended_only_if_it_is_not_listed() {
        let shard = Shard {
            id: "s".into(),
            parent: None,
            adjacent_parent: None,
            range: HashRange { start: 0, end: 9 },
            starting: number(1),
            ending: None,
        };
        let missing = || Err(Error::ShardMissing("m".into()));
        let mut listed = script(vec![missing(), records(&[1]), end()]);
        listed.listed = vec![shard.clone()];
        assert_eq!(all(listed, Start::TrimHorizon).await.0, ["1", "-> c"]);

        let stream_gone = script(vec![missing(), records(&[1]), end()]);
        assert_eq!(all(stream_gone, Start::TrimHorizon).await.0, ["1", "-> c"]);

        let mut other = script(vec![missing(), records(&[1]), end()]);
        other.listed = vec![Shard { id: "another".into(), ..shard }];
        assert_eq!(all(other, Start::TrimHorizon).await.0, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_of_an_earlier_stream_of_the_name_leads_to_the_oldest_record() {
        let shard = |starting| Shard {
            id: "s".into(),
            parent: None,
            adjacent_parent: None,
            range: HashRange { start: 0, end: 9 },
            starting: number(starting),
            ending: None,
        };
        let mut made_again = script(vec![records(&[101]), end()]);
        (made_again.refuses, made_again.listed) = (true, vec![shard(100)]);
        let (seen, starts) = all(made_again, Start::At(number(7))).await;
        assert_eq!(seen, ["101", "-> c"]);
        assert_eq!(starts, [Start::At(number(7)), Start::TrimHorizon]);

        let mut the_same = script(vec![records(&[101]), end()]);
        (the_same.refuses, the_same.listed) = (true, vec![shard(5)]);
        let asked = tokio::time::timeout(Duration::from_secs(60), all(the_same, Start::At(number(7)))).await;
        assert!(asked.is_err(), "a number within the shard is asked for again, never passed over");
    }

    #[test]
    fn reading_starts_at_the_checkpoint_itself() {
        let start = |sequence, timestamp| Start::of_checkpoint(&sequence, timestamp);
        assert_eq!(start(Sequence::Number(number(7)), None), Some(Start::At(number(7))));
        assert_eq!(start(Sequence::AtTimestamp, Some(5)), Some(Start::AtTimestamp(5)));
        assert_eq!(start(Sequence::AtTimestamp, None), None);
        assert_eq!(start(Sequence::ShardEnd, None), None);
    }
}
