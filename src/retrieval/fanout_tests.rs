//! Tests of enhanced fan-out on a paused clock.

use super::*;
use crate::budget::Budget;
use crate::recognition::Recognition;
use crate::record::Record;
use crate::retrieval::push::{Api, Registered, Status};
use crate::retrieval::registration;
use crate::retrieval::{Feed, PrefetchLimits, Settings, ShardOfStream, Source, Start};
use crate::shard::{self, BoxFuture, ChildShard, Filter, HashRange, Shard, ShardId};
use crate::stream::StreamId;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use tokio::sync::Semaphore;

pub(super) type Event = Result<Option<Answer>, Error>;

/// A list of events for each subscription, or the error that it fails with; records the calls and their
/// times.
#[derive(Default)]
pub(super) struct Script {
    subscriptions: Mutex<VecDeque<Result<VecDeque<Event>, Error>>>,
    starts: Mutex<Vec<(Start, Duration)>>,
    registered: Mutex<u32>,
    listed: Vec<Shard>,
    began: Option<Instant>,
    /// Pause between two events.
    pause: Duration,
}

struct Scripted(VecDeque<Event>, Duration);

impl Subscription for Scripted {
    fn next(&mut self, _: Reservation) -> BoxFuture<'_, Event> {
        let pause = self.1;
        match self.0.pop_front() {
            Some(event) => Box::pin(async move {
                tokio::time::sleep(pause).await;
                event
            }),
            None => Box::pin(std::future::pending()),
        }
    }
}

impl Api for Script {
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(async { Ok("stream".to_owned()) })
    }
    fn describe<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<Registered>, Error>> {
        *self.registered.lock().unwrap() += 1;
        Box::pin(async { Ok(Some(Registered { arn: "arn".to_owned(), status: Status::Active })) })
    }
    fn register<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Registered, Error>> {
        unreachable!("it is there")
    }
    fn subscribe<'a>(
        &'a self,
        _: &'a str,
        _: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
        self.starts.lock().unwrap().push((start.clone(), self.began.unwrap().elapsed()));
        let next = self.subscriptions.lock().unwrap().pop_front().expect("a subscription too many");
        Box::pin(async {
            next.map(|events| -> Box<dyn Subscription> { Box::new(Scripted(events, self.pause)) })
        })
    }
}

impl crate::retrieval::Api for Script {
    fn iterator<'a>(&'a self, _: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
        self.starts.lock().unwrap().push((start.clone(), Duration::ZERO));
        Box::pin(async { Ok("iterator".to_owned()) })
    }
    fn read<'a>(&'a self, _: &'a str, _: usize, _: Reservation) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async { end().map(Option::unwrap) })
    }
}

impl shard::Api for Script {
    fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(async { Ok(self.listed.clone()) })
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(async { Ok(stream()) })
    }
}

/// The stream that all tests read.
pub(in crate::retrieval) fn stream() -> StreamId {
    StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/s", 1)
}

/// The shard that all tests read.
pub(in crate::retrieval) fn the_shard() -> ShardOfStream {
    ShardOfStream { id: "s".into(), range: None, stream: Some(stream()) }
}

/// A stream whose identity is known before reading starts.
pub(in crate::retrieval) fn recognised(shards: Arc<dyn shard::Api>) -> Arc<Recognition> {
    let recognition = Recognition::new(shards);
    recognition.recognise(Some(stream()), BTreeSet::new());
    recognition
}

pub(super) fn number(n: u32) -> SequenceNumber {
    SequenceNumber::parse(&n.to_string()).unwrap()
}

fn event(records: &[u32], on: &str) -> Event {
    let record = |n: &u32| Record::plain(*n as usize, "p", &[0]);
    let next = (!on.is_empty()).then(|| on.to_owned());
    Ok(Some(Answer { records: records.iter().map(record).collect(), next, ..Answer::default() }))
}

pub(super) fn end() -> Event {
    let child =
        ChildShard { id: "c".into(), parents: vec!["s".into()], range: HashRange { start: 0, end: 1 } };
    Ok(Some(Answer { children: vec![child], ..Answer::default() }))
}

pub(super) fn registration(arn: Option<String>) -> registration::Settings {
    registration::Settings {
        arn,
        name: "app".to_owned(),
        stream_attempts: 1,
        describe_attempts: 1,
        register_attempts: 1,
        pause: Duration::from_secs(1),
    }
}

pub(super) fn source(script: &Arc<Script>) -> Source {
    let settings = Settings {
        max_records: 10,
        idle: Duration::from_millis(200),
        idle_behind: Duration::from_millis(200),
        near: Duration::ZERO,
        keep_empty: false,
        retry: Duration::from_millis(500),
        ahead: PrefetchLimits::default(),
    };
    Source {
        api: script.clone(),
        shards: script.clone(),
        recognition: recognised(script.clone()),
        consumer: Some(Arc::new(StreamConsumer::new(script.clone(), registration(None)))),
        settings,
        budget: Budget::new(1_000_000),
        closed: Arc::default(),
        reach: Arc::default(),
        calls: Arc::new(Semaphore::new(1)),
        sink: Arc::new(crate::metrics::Discard),
        clock: crate::clock::ServiceClock::new(crate::clock::wall_millis, Default::default()),
    }
}

pub(super) fn script(subscriptions: Vec<Result<Vec<Event>, Error>>, listed: Vec<Shard>) -> Arc<Script> {
    let subscriptions = subscriptions.into_iter().map(|one| one.map(VecDeque::from)).collect();
    let began = Some(Instant::now());
    Arc::new(Script { subscriptions: Mutex::new(subscriptions), listed, began, ..Script::default() })
}

async fn all(script: &Arc<Script>, start: Start) -> Vec<String> {
    let mut feed = Feed::open(&source(script), the_shard(), start);
    let mut seen = Vec::new();
    loop {
        let batch = feed.next().await.unwrap();
        seen.extend(batch.records.decode().iter().map(|r| r.sequence.to_string()));
        if let Some(children) = batch.end {
            seen.extend(children.iter().map(|child| format!("-> {}", child.id)));
            return seen;
        }
    }
}

fn starts(script: &Script) -> Vec<Start> {
    script.starts.lock().unwrap().iter().map(|(start, _)| start.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_record_is_delivered_once_across_subscription_failures() {
    let unavailable = || Err(Error::Unavailable("u".into()));
    let script = script(
        vec![
            unavailable(),
            Err(Error::Throttled("t".into())),
            Ok(vec![event(&[1, 2], "2"), event(&[], "5"), Ok(None)]),
            Ok(vec![event(&[6], "6"), unavailable_event()]),
            // An end of the shard without child shards.
            Ok(vec![event(&[], "")]),
            // The subscription falls silent.
            Ok(vec![event(&[7], "7")]),
            Err(Error::Taken("in use".into())),
            Ok(vec![Err(Error::Taken("taken over".into()))]),
            Ok(vec![end()]),
        ],
        vec![],
    );
    assert_eq!(all(&script, Start::TrimHorizon).await, ["1", "2", "6", "7", "-> c"]);
    let after = |n| Start::After(number(n));
    let expected = [Start::TrimHorizon, Start::TrimHorizon, Start::TrimHorizon, after(5), after(6), after(6)];
    assert_eq!(starts(&script)[..6], expected);
    assert!(starts(&script)[6..].iter().all(|start| *start == after(7)));
    let times: Vec<Duration> = script.starts.lock().unwrap().iter().map(|(_, at)| *at).collect();
    let apart = |n: usize| times[n + 1].checked_sub(times[n]).unwrap();
    assert!(apart(2) <= ONE_CALL, "a renewal is no failure");
    assert!(apart(5) >= SILENCE && apart(7) >= TAKEN_OVER, "{times:?}");
}

fn unavailable_event() -> Event {
    Err(Error::Unavailable("cut".into()))
}

#[tokio::test(start_paused = true)]
async fn event_naming_the_start_record_does_not_skip_it() {
    let at = Start::At(number(7));
    let script = script(
        vec![
            Ok(vec![event(&[], "7"), unavailable_event()]),
            Ok(vec![event(&[], "7"), event(&[7], "7"), unavailable_event()]),
            Ok(vec![end()]),
        ],
        vec![],
    );
    assert_eq!(all(&script, at.clone()).await, ["7", "-> c"]);
    assert_eq!(starts(&script), [at.clone(), at, Start::After(number(7))]);
}

#[tokio::test(start_paused = true)]
async fn broken_latest_subscription_resumes_at_timestamp() {
    let script = script(vec![Ok(vec![unavailable_event()]), Ok(vec![end()])], vec![]);
    all(&script, Start::Latest).await;
    assert!(matches!(starts(&script)[..], [Start::Latest, Start::AtTimestamp(_)]));
}

#[tokio::test(start_paused = true)]
async fn missing_consumer_does_not_end_the_shard() {
    let missing = || Error::ShardMissing("no consumer".into());
    let there = script(
        vec![Err(missing()), Ok(vec![event(&[1], "1"), Err(missing())]), Ok(vec![end()])],
        vec![listed("s", None)],
    );
    assert_eq!(all(&there, Start::TrimHorizon).await, ["1", "-> c"]);
    assert_eq!(*there.registered.lock().unwrap(), 3, "the consumer is looked for each time");
    let gone = script(vec![Err(missing())], vec![listed("another", None)]);
    assert_eq!(all(&gone, Start::TrimHorizon).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn unsupported_fan_out_falls_back_to_polling_at_position() {
    let unsupported = || Err(Error::Unsupported("no such operation".into()));
    let script = script(vec![Ok(vec![event(&[3], "4"), unavailable_event()]), unsupported()], vec![]);
    assert_eq!(all(&script, Start::TrimHorizon).await, ["3", "-> c"]);
    assert_eq!(starts(&script)[2], Start::After(number(4)));
}

#[tokio::test(start_paused = true)]
async fn subscription_is_dropped_while_the_processor_is_slow() {
    let many = |from: u32| (from..from + 5).map(|n| event(&[n], &n.to_string())).collect::<Vec<_>>();
    let script = script(vec![Ok(many(1)), Ok([many(6), vec![end()]].concat())], vec![]);
    let mut feed = Feed::open(&source(&script), the_shard(), Start::TrimHorizon);
    assert_eq!(feed.next().await.unwrap().records.len(), 1);
    tokio::time::sleep(STALL * 3).await;
    assert_eq!(starts(&script).len(), 1, "nobody subscribes again before there is room");
    let mut seen = 1;
    while feed.next().await.unwrap().end.is_none() {
        seen += 1;
    }
    assert_eq!((seen, starts(&script)[1].clone()), (10, Start::After(number(5))));
}

#[tokio::test(start_paused = true)]
async fn no_resubscription_while_the_next_event_has_no_room() {
    let many = |from: u32| (from..from + 5).map(|n| event(&[n], &n.to_string())).collect::<Vec<_>>();
    let script = script(vec![Ok(many(1)), Ok(many(6)), Ok(vec![end()])], vec![]);
    // One batch fits into the part, but not together with the expected size of the next event.
    let source = Source { budget: Budget::new(3 * 250), ..source(&script) };
    let mut feed = Feed::open(&source, the_shard(), Start::TrimHorizon);
    assert_eq!(feed.next().await.unwrap().records.len(), 1);
    tokio::time::sleep(STALL * 10).await;
    assert_eq!(starts(&script).len(), 1);
}

pub(super) fn listed(id: &str, ending: Option<u32>) -> Shard {
    Shard {
        id: id.into(),
        parent: None,
        adjacent_parent: None,
        range: HashRange { start: 0, end: 9 },
        starting: number(1),
        ending: ending.map(number),
    }
}

fn far_from_the_tip() -> Event {
    event(&[], "1").map(|answer| answer.map(|answer| Answer { millis_behind_latest: Some(60_000), ..answer }))
}

#[tokio::test(start_paused = true)]
async fn closed_shard_behind_the_tip_is_not_polled() {
    let events = (0..30).map(|_| far_from_the_tip()).chain([event(&[5], "5"), far_from_the_tip()]).collect();
    // Then the connection hangs.
    let script = script(vec![Ok(events), Ok(vec![event(&[6], "6"), end()])], vec![listed("s", Some(9))]);
    let script = Arc::new(Script { pause: Duration::from_secs(1), ..Arc::into_inner(script).unwrap() });
    assert_eq!(all(&script, Start::TrimHorizon).await, ["5", "6", "-> c"]);
    assert_eq!(starts(&script), [Start::TrimHorizon, Start::After(number(5))], "nothing was polled");
}

#[tokio::test(start_paused = true)]
async fn closed_shard_is_polled_after_two_silent_subscriptions() {
    let script = script(vec![Ok(vec![]), Ok(vec![])], vec![listed("s", Some(9))]);
    assert_eq!(all(&script, Start::TrimHorizon).await, ["-> c"]);
    assert_eq!(starts(&script).len(), 3, "two subscriptions, one iterator");
}

/// Each subscription fails in the same way for about five minutes; then one delivers the end of the shard.
#[tokio::test(start_paused = true)]
async fn failing_subscriptions_warn_once_a_minute_and_log_recovery() {
    type Failure = fn() -> Result<VecDeque<Event>, Error>;
    let failures: [(Failure, usize); 7] = [
        (|| Err(Error::Taken("t".into())), 280),
        (|| Err(Error::Throttled("t".into())), 35),
        (|| Err(Error::Denied("d".into())), 35),
        (|| Ok([Ok(None)].into()), 35),
        (|| Ok([Err(Error::Taken("t".into()))].into()), 50),
        (|| Ok([Err(Error::Unavailable("u".into()))].into()), 35),
        (|| Ok([Ok(Some(Answer::default()))].into()), 35),
    ];
    for (failure, times) in failures {
        let (logged, _guard) = crate::retrieval::logged::Logged::start();
        let last = Ok(VecDeque::from([event(&[1], "1"), end()]));
        let subscriptions = (0..times).map(|_| failure()).chain([last]).collect();
        let script = Arc::new(Script {
            subscriptions: Mutex::new(subscriptions),
            began: Some(Instant::now()),
            ..Script::default()
        });
        let mut feed = Feed::open(&source(&script), the_shard(), Start::TrimHorizon);
        while feed.next().await.unwrap().end.is_none() {}
        let (warnings, steps) = logged.counts();
        // An unreachable service is logged once in ten minutes for all shards together.
        let unreachable =
            matches!(failure(), Ok(list) if matches!(list.front(), Some(Err(Error::Unavailable(_)))));
        let least = if unreachable { 1 } else { 2 };
        assert!((least..=8).contains(&warnings), "{:?}: {warnings}", failure());
        // "Found the consumer" and "the shard is read again".
        assert_eq!(steps, 2, "{:?}", failure());
    }
}
