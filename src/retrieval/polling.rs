//! GetRecords at a pace, from a position to the end of the shard.
//!
//! In KCL: `PrefetchRecordsPublisher`, `KinesisDataFetcher`, `KinesisSleepTimeController`. Different on
//! purpose: a batch is fetched only when there is room for it, so that none is ever thrown away; a shard that
//! "does not exist" has ended only if `ListShards` agrees; and an expired `LATEST` goes on from the time when
//! it was opened.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::closed::{Next, Quiet};
use super::failing::Kind;
use super::place::Place;
use super::queue::Ahead;
use super::{Answer, Error, Settings};
use crate::backoff::Backoff;
use crate::batch::{Batch, Sizes};
use crate::budget::Room;
use crate::metrics::OfShard;
use crate::shard::ChildShard;

const FAILED: &str = "reading failed, will try again";
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Room for an answer without records.
const LITTLE: usize = 4 * 1024;
/// What a record is taken to need before one was seen.
const RECORD: usize = 1_400;
/// No answer is larger: 10 MiB of data, in base64, and what belongs to each of 10,000 records.
const LARGEST: usize = 18 * 1024 * 1024;

pub(super) struct Polling {
    place: Place,
    iterator: Option<String>,
    backoff: Backoff,
    /// Bytes of the last answer: what the next one is expected to need.
    expected: usize,
    /// Bytes that a record needs, by the last answers.
    record: usize,
    /// How many times as many they were once aggregates were taken apart.
    grown: usize,
    /// Records that fitted into a part, or may fit, after so many didn't.
    fitting: usize,
    quiet: Quiet,
}

enum Step {
    Batch(Batch),
    Again,
    After(Duration),
}

/// From an answer that stood that far behind the tip to the next call.
fn pace(settings: &Settings, behind: Option<i64>) -> Duration {
    match behind.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))) {
        Some(behind) if behind < settings.near => settings.idle.max(settings.near),
        Some(behind) if !behind.is_zero() => settings.idle.min(settings.idle_behind),
        Some(_) | None => settings.idle,
    }
}

/// As many records as fit into a shard's part of what may be held, once they have grown so many times.
fn limit(settings: &Settings, part: usize, record: usize, grown: usize) -> usize {
    let part = part / grown.max(1);
    if part >= LARGEST { settings.max_records } else { (part / record.max(1)).clamp(1, settings.max_records) }
}

impl Polling {
    pub(super) fn new(place: Place) -> Self {
        let backoff = Backoff::new(place.source.settings.retry, MAX_PAUSE, fastrand::Rng::new());
        Self {
            place,
            iterator: None,
            backoff,
            expected: LITTLE,
            record: RECORD,
            grown: 1,
            fitting: usize::MAX,
            quiet: Quiet::new(Instant::now()),
        }
    }

    /// Ends after the batch that ends the shard, or when nobody wants batches any more.
    pub(super) async fn run(mut self, ahead: &Ahead) {
        let mut next = Instant::now();
        while ahead.room().await {
            // A timer that is due already may wait for the next millisecond.
            if next > Instant::now() {
                sleep_until(next).await;
            }
            match self.step(ahead.part()).await {
                Step::Batch(batch) => {
                    next = Instant::now() + pace(&self.place.source.settings, batch.millis_behind_latest);
                    let ended = batch.end.is_some();
                    let wanted = ended || !batch.records.is_empty() || self.place.source.settings.keep_empty;
                    if wanted && !ahead.send(batch) || ended {
                        return;
                    }
                }
                Step::Again => {}
                Step::After(pause) => next = Instant::now() + pause,
            }
        }
    }

    async fn step(&mut self, part: usize) -> Step {
        let limit = limit(&self.place.source.settings, part, self.record, self.grown).min(self.fitting);
        // One record alone may be larger than a part.
        let most = if limit > 1 { part } else { part.max(LARGEST) };
        let mut took = None;
        let outcome = match self.iterator.take() {
            None => self.open().await,
            Some(iterator) => {
                let room = self.room(self.expected.min(most)).await.at_most(most);
                let began = Instant::now();
                match self.read(&iterator, limit, room).await {
                    Ok(answer) => return self.answered(answer, iterator, began).await,
                    Err(error) => {
                        took = Some(began.elapsed());
                        if !matches!(error, Error::IteratorExpired(_)) {
                            self.iterator = Some(iterator);
                        }
                        Err(error)
                    }
                }
            }
        };
        match outcome {
            Ok(()) => Step::Again,
            Err(Error::NoRoom(bytes)) if bytes <= most => {
                debug!(shard = %self.place.shard, bytes, "an answer waits for room");
                self.expected = bytes;
                Step::Again
            }
            Err(Error::NoRoom(bytes)) if limit > 1 => {
                debug!(shard = %self.place.shard, bytes, limit, part, "an answer is too large: asking for less");
                self.fitting = limit / 2;
                Step::After(self.place.source.settings.idle)
            }
            Err(error @ Error::IteratorExpired(_)) => {
                self.place.failed(Kind::Usual, took, FAILED, &error);
                // Paced like a failure: an iterator that is refused for ever must not become a hot loop.
                Step::After(self.backoff.pause())
            }
            Err(Error::ShardMissing(reason)) => match self.place.end_if_gone(&reason).await {
                Some(end) => Step::Batch(end),
                None => {
                    self.place.failed(Kind::Logged, took, FAILED, &reason);
                    Step::After(self.backoff.pause())
                }
            },
            Err(error) => {
                self.place.failed(Kind::Unusual, took, FAILED, &error);
                Step::After(self.backoff.pause())
            }
        }
    }

    async fn room(&self, bytes: usize) -> Room {
        let mut room = std::pin::pin!(self.place.source.budget.reserve(bytes));
        loop {
            match timeout(Duration::from_secs(10), &mut room).await {
                Ok(room) => return room,
                Err(_) => warn!(shard = %self.place.shard, bytes,
                    held = self.place.source.budget.held(),
                    "reading waits: what record processors have not taken fills multilangd.bufferMegabytes"),
            }
        }
    }

    async fn read(&self, iterator: &str, limit: usize, room: Room) -> Result<Answer, Error> {
        let source = &self.place.source;
        // Held for one call, which has a limit of time. Nobody closes it.
        let _call = source.calls.acquire().await;
        source.api.read(iterator, limit, room).await
    }

    async fn open(&mut self) -> Result<(), Error> {
        let asked = Place::now();
        let iterator = match self.get_iterator().await {
            Err(error @ Error::Denied(_)) if self.place.is_of_an_earlier_stream(&error).await => {
                self.get_iterator().await?
            }
            other => other?,
        };
        self.iterator = Some(iterator);
        self.quiet.moved(Instant::now());
        self.place.opened(asked);
        Ok(())
    }

    async fn get_iterator(&self) -> Result<String, Error> {
        let source = &self.place.source;
        let _call = source.calls.acquire().await;
        let began = Instant::now();
        let iterator = source.api.iterator(&self.place.shard, &self.place.start()).await;
        let asked = OfShard::IteratorAsked { took: began.elapsed(), ok: iterator.is_ok() };
        source.sink.shard(&self.place.shard, asked);
        iterator
    }

    async fn answered(&mut self, answer: Answer, iterator: String, began: Instant) -> Step {
        let took = began.elapsed();
        if !self.place.believes(&answer) {
            self.iterator = Some(iterator);
            return Step::After(self.backoff.pause());
        }
        self.backoff.reset();
        self.fitting = self.fitting.saturating_mul(2);
        let Sizes { records, held: bytes, .. } = answer.records.sizes();
        self.expected = bytes.max(LITTLE);
        if let Some(record) = bytes.checked_div(records) {
            // A large one is remembered for a while.
            self.record = record.max(self.record - self.record / 4);
        }
        self.iterator.clone_from(&answer.next);
        let last = answer.records.last().cloned();
        let ended = if answer.next.is_some() {
            self.ended_unsaid(began, records, answer.millis_behind_latest).await
        } else {
            None
        };
        let mut batch = self.place.batch(answer, last, Some(took));
        batch.end = batch.end.or(ended);
        let held = batch.records.sizes().held;
        // Remembered for a while, too.
        self.grown = held.div_ceil(bytes.max(1)).max(self.grown - self.grown / 4).max(1);
        Step::Batch(batch)
    }
}

impl Polling {
    /// What the shard became, if it is closed and has no more to give although Kinesis does not say its end.
    async fn ended_unsaid(
        &mut self,
        sent: Instant,
        records: usize,
        millis_behind_latest: Option<i64>,
    ) -> Option<Vec<ChildShard>> {
        let Place { source, shard, .. } = &self.place;
        match self.quiet.answered(sent, Instant::now(), records, millis_behind_latest) {
            Next::Read => None,
            Next::Ask(since) => {
                let state = source.closed.state(shard, since, &*source.shards).await;
                self.quiet.listed(Instant::now(), state);
                None
            }
            Next::End(children) => {
                info!(%shard, "the shard is closed and GetRecords says no end: taken as ended after its last record");
                Some(children)
            }
        }
    }
}

#[cfg(test)]
#[path = "polling_simulation.rs"]
mod simulation;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::clock;
    use crate::record::{Data, Record};
    use crate::retrieval::place::CLOCK_MARGIN_MILLIS;
    use crate::retrieval::{Api, Feed, Most, Source, Start};
    use crate::sequence::{Sequence, SequenceNumber};
    use crate::shard::{self, BoxFuture, Filter, HashRange, Shard, ShardId};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use tokio::sync::Semaphore;

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
        fn read<'a>(&'a self, _: &'a str, _: usize, _: Room) -> BoxFuture<'a, Result<Answer, Error>> {
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
        let record = |n: &u32| Record::plain(*n as usize, "p", &[0]);
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

    fn settings() -> Settings {
        Settings {
            max_records: 10,
            idle: Duration::from_millis(200),
            idle_behind: Duration::from_millis(200),
            near: Duration::ZERO,
            keep_empty: false,
            retry: Duration::from_millis(100),
            ahead: Most::default(),
        }
    }

    async fn all(script: Script, start: Start) -> (Vec<String>, Vec<Start>) {
        let script = Arc::new(script);
        let source = Source {
            api: script.clone(),
            shards: script.clone(),
            consumer: None,
            settings: settings(),
            budget: Budget::new(1_000_000),
            closed: Arc::default(),
            calls: Arc::new(Semaphore::new(1)),
            sink: Arc::new(crate::metrics::Discard),
        };
        let mut feed = Feed::open(&source, "s".into(), None, start);
        let mut seen = Vec::new();
        loop {
            let batch = feed.next().await.unwrap();
            seen.extend(batch.records.each().iter().map(|r| r.sequence.to_string()));
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
            Err(Error::NoRoom(900_000)),
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

    /// Warnings and steps logged while a script that ends in a record and the end of the shard is read.
    async fn logged(failures: Vec<Result<Answer, Error>>) -> (usize, usize) {
        let (logged, _guard) = crate::retrieval::logged::Logged::start();
        let answers = failures.into_iter().chain([records(&[1]), end()]).collect();
        assert_eq!(all(script(answers), Start::TrimHorizon).await.0, ["1", "-> c"]);
        logged.counts()
    }

    /// Pauses grow to ten seconds: forty failures take some minutes.
    #[tokio::test(start_paused = true)]
    async fn reads_that_keep_failing_are_warned_of_once_a_minute_and_recovery_is_logged() {
        let half = || Ok(Answer { next: None, ..Answer::default() });
        let failures: [fn() -> Result<Answer, Error>; 6] = [
            || Err(Error::IteratorExpired("e".into())),
            || Err(Error::Denied("d".into())),
            || Err(Error::Throttled("t".into())),
            || Err(Error::Unavailable("u".into())),
            || Err(Error::NoRoom(99_000_000)),
            half,
        ];
        for failure in failures {
            let (warnings, steps) = logged((0..40).map(|_| failure()).collect()).await;
            assert!((2..=7).contains(&warnings), "{:?}: {warnings}", failure());
            assert_eq!(steps, 1, "{:?}", failure());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_expired_iterator_is_no_warning() {
        assert_eq!(logged(vec![Err(Error::IteratorExpired("e".into()))]).await, (0, 0));
        assert_eq!(logged(vec![Err(Error::Throttled("t".into()))]).await, (1, 1));
    }

    #[test]
    fn the_pace_follows_the_distance_to_the_tip() {
        let millis = Duration::from_millis;
        let settings = Settings { idle_behind: millis(0), near: millis(900), ..settings() };
        assert_eq!(pace(&settings, Some(0)), millis(900), "near the tip");
        assert_eq!(pace(&settings, Some(900)), millis(0), "there is more");
        assert_eq!(pace(&settings, None), millis(200));
        let java = Settings { idle_behind: settings.idle, near: Duration::ZERO, ..settings };
        assert!(
            [None, Some(0), Some(1), Some(99_999)].iter().all(|behind| pace(&java, *behind) == millis(200))
        );
        let slow = Settings { idle: millis(300), idle_behind: millis(5_000), near: millis(100), ..java };
        assert_eq!(pace(&slow, Some(99)), millis(300), "only ever slower");
        assert_eq!(pace(&slow, Some(100)), millis(300), "never slower than idle");
    }

    #[test]
    fn no_more_is_asked_for_than_fits_a_small_share() {
        let settings = Settings { max_records: 10_000, ..settings() };
        assert_eq!(limit(&settings, LARGEST, 10_000_000, 1), 10_000);
        assert_eq!(limit(&settings, 1_000_000, 1_000, 1), 1_000);
        assert_eq!(limit(&settings, 1_000_000, 1_000, 5), 200, "of aggregates");
        assert_eq!(limit(&settings, LARGEST, 10_000, 5), LARGEST / 50_000);
        assert_eq!(limit(&settings, 1_000, 1_000_000, 1), 1);
        assert_eq!(limit(&settings, 14_000_000, 1, 1), 10_000);
    }

    /// Has records of that size without end; an answer takes the room that it needs.
    struct Endless(usize);

    impl Api for Endless {
        fn iterator<'a>(&'a self, _: &'a ShardId, _: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
            Box::pin(async { Ok("0".to_owned()) })
        }
        fn read<'a>(
            &'a self,
            iterator: &'a str,
            limit: usize,
            mut room: Room,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            let bytes = limit * self.0;
            if !room.resize(bytes) {
                return Box::pin(async move { Err(Error::NoRoom(bytes)) });
            }
            let first: u64 = iterator.parse().unwrap();
            let body = room.fill(vec![b'A'; bytes]);
            let record = |n: usize| Record {
                sequence: SequenceNumber::parse(&(first + n as u64).to_string()).unwrap(),
                sub: 0,
                partition_key: "p".into(),
                data: Data::of_base64(body.slice(n * self.0..(n + 1) * self.0)).unwrap(),
                arrival: None,
            };
            let records = (0..limit).map(record).collect();
            let next = Some((first + limit as u64).to_string());
            Box::pin(async { Ok(Answer { records, next, ..Answer::default() }) })
        }
    }

    /// Fifteen of sixteen children have a batch in hand and take no more, whatever the size of the records.
    #[tokio::test(start_paused = true)]
    async fn those_that_are_stuck_leave_the_others_their_part() {
        for size in [400, 4_000, 40_000] {
            let budget = Budget::new(16 << 20);
            let source = Source {
                api: Arc::new(Endless(size)),
                shards: Arc::new(Script::default()),
                consumer: None,
                settings: Settings { max_records: 10_000, ..settings() },
                budget: budget.clone(),
                closed: Arc::default(),
                calls: Arc::new(Semaphore::new(100)),
                sink: Arc::new(crate::metrics::Discard),
            };
            let open = || Feed::open(&source, "s".into(), None, Start::TrimHorizon);
            let (mut stuck, mut in_hand) = ((0..15).map(|_| open()).collect::<Vec<_>>(), Vec::new());
            let mut other = open();
            for feed in &mut stuck {
                in_hand.push(feed.next().await.unwrap());
            }
            // Whoever is stuck has fetched all that it may by now.
            tokio::time::sleep(Duration::from_secs(60)).await;
            let mut next = 0_u64;
            for _ in 0..100 {
                let batch =
                    tokio::time::timeout(Duration::from_secs(5), other.next()).await.unwrap().unwrap();
                for record in batch.records.each() {
                    assert_eq!(record.sequence.as_str(), next.to_string());
                    next += 1;
                }
                assert!(budget.held() <= 16 << 20, "{} are held", budget.held());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_larger_than_a_part_comes_alone() {
        let budget = Budget::new(16 << 20);
        let _others: Vec<_> = (0..30).map(|_| budget.share()).collect();
        let source = Source {
            api: Arc::new(Endless(13_000_000)),
            shards: Arc::new(Script::default()),
            consumer: None,
            settings: Settings { max_records: 10_000, ..settings() },
            budget,
            closed: Arc::default(),
            calls: Arc::new(Semaphore::new(1)),
            sink: Arc::new(crate::metrics::Discard),
        };
        let mut feed = Feed::open(&source, "s".into(), None, Start::TrimHorizon);
        for _ in 0..5 {
            let batch = tokio::time::timeout(Duration::from_secs(60), feed.next()).await.unwrap().unwrap();
            assert_eq!(batch.records.len(), 1);
        }
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
