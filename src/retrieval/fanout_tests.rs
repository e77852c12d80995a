//! Tests of reading by subscriptions, on a paused clock.

use super::*;
use crate::budget::Budget;
use crate::record::{Data, Record};
use crate::retrieval::registration::{self, Status};
use crate::retrieval::{Feed, Most, Settings, Source};
use crate::shard::{self, ChildShard, Filter, HashRange, Shard};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Semaphore;

type Event = Result<Option<Answer>, Error>;

/// One list of events a subscription, or why there is none; what was asked for, and when.
#[derive(Default)]
struct Script {
    subscriptions: Mutex<VecDeque<Result<VecDeque<Event>, Error>>>,
    starts: Mutex<Vec<(Start, Duration)>>,
    registered: Mutex<u32>,
    listed: Vec<Shard>,
    began: Option<Instant>,
}

struct Scripted(VecDeque<Event>);

impl Subscription for Scripted {
    fn next(&mut self, _: Room) -> BoxFuture<'_, Event> {
        match self.0.pop_front() {
            Some(event) => Box::pin(async { event }),
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
        Box::pin(async { next.map(|events| -> Box<dyn Subscription> { Box::new(Scripted(events)) }) })
    }
}

impl crate::retrieval::Api for Script {
    fn iterator<'a>(&'a self, _: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
        self.starts.lock().unwrap().push((start.clone(), Duration::ZERO));
        Box::pin(async { Ok("iterator".to_owned()) })
    }
    fn read<'a>(&'a self, _: &'a str, _: usize, _: Room) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async { end().map(Option::unwrap) })
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

fn event(records: &[u32], on: &str) -> Event {
    let record = |n: &u32| Record {
        sequence: number(*n),
        sub: 0,
        partition_key: "p".into(),
        data: Data::encode(&[0]),
        arrival: None,
    };
    let next = (!on.is_empty()).then(|| on.to_owned());
    Ok(Some(Answer { records: records.iter().map(record).collect(), next, ..Answer::default() }))
}

fn end() -> Event {
    let child =
        ChildShard { id: "c".into(), parents: vec!["s".into()], range: HashRange { start: 0, end: 1 } };
    Ok(Some(Answer { children: vec![child], ..Answer::default() }))
}

fn source(script: &Arc<Script>) -> Source {
    let settings = Settings {
        max_records: 10,
        idle: Duration::from_millis(200),
        idle_behind: Duration::from_millis(200),
        near: Duration::ZERO,
        keep_empty: false,
        retry: Duration::from_millis(500),
        ahead: Most::default(),
    };
    let registration = registration::Settings {
        arn: None,
        name: "app".to_owned(),
        stream_attempts: 1,
        describe_attempts: 1,
        register_attempts: 1,
        pause: Duration::from_secs(1),
    };
    Source {
        api: script.clone(),
        shards: script.clone(),
        consumer: Some(Arc::new(StreamConsumer::new(script.clone(), registration))),
        settings,
        budget: Budget::new(1_000_000),
        calls: Arc::new(Semaphore::new(1)),
        sink: Arc::new(crate::metrics::Discard),
    }
}

fn script(subscriptions: Vec<Result<Vec<Event>, Error>>, listed: Vec<Shard>) -> Arc<Script> {
    let subscriptions = subscriptions.into_iter().map(|one| one.map(VecDeque::from)).collect();
    let began = Some(Instant::now());
    Arc::new(Script { subscriptions: Mutex::new(subscriptions), listed, began, ..Script::default() })
}

async fn all(script: &Arc<Script>, start: Start) -> Vec<String> {
    let mut feed = Feed::open(&source(script), "s".into(), None, start);
    let mut seen = Vec::new();
    loop {
        let batch = feed.next().await.unwrap();
        seen.extend(batch.records.each().iter().map(|r| r.sequence.to_string()));
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
async fn every_record_comes_once_whatever_ends_a_subscription() {
    let unavailable = || Err(Error::Unavailable("u".into()));
    let script = script(
        vec![
            unavailable(),
            Err(Error::Throttled("t".into())),
            Ok(vec![event(&[1, 2], "2"), event(&[], "5"), Ok(None)]),
            Ok(vec![event(&[6], "6"), unavailable_event()]),
            // Only half of an end.
            Ok(vec![event(&[], "")]),
            // It falls silent.
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
async fn a_subscription_that_names_its_own_beginning_has_not_read_it() {
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
async fn a_latest_that_broke_before_its_first_event_goes_on_from_then() {
    let script = script(vec![Ok(vec![unavailable_event()]), Ok(vec![end()])], vec![]);
    all(&script, Start::Latest).await;
    assert!(matches!(starts(&script)[..], [Start::Latest, Start::AtTimestamp(_)]));
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_ends_a_shard_only_if_it_is_the_shard() {
    let shard = |id: &str| Shard {
        id: id.into(),
        parent: None,
        adjacent_parent: None,
        range: HashRange { start: 0, end: 9 },
        starting: number(1),
        ending: None,
    };
    let missing = || Error::ShardMissing("no consumer".into());
    let there = script(
        vec![Err(missing()), Ok(vec![event(&[1], "1"), Err(missing())]), Ok(vec![end()])],
        vec![shard("s")],
    );
    assert_eq!(all(&there, Start::TrimHorizon).await, ["1", "-> c"]);
    assert_eq!(*there.registered.lock().unwrap(), 3, "the consumer is looked for each time");
    let gone = script(vec![Err(missing())], vec![shard("another")]);
    assert_eq!(all(&gone, Start::TrimHorizon).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_fan_out_records_are_polled_from_where_reading_stood() {
    let unsupported = || Err(Error::Unsupported("no such operation".into()));
    let script = script(vec![Ok(vec![event(&[3], "4"), unavailable_event()]), unsupported()], vec![]);
    assert_eq!(all(&script, Start::TrimHorizon).await, ["3", "-> c"]);
    assert_eq!(starts(&script)[2], Start::After(number(4)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_left_while_the_record_processor_is_slow() {
    let many = |from: u32| (from..from + 5).map(|n| event(&[n], &n.to_string())).collect::<Vec<_>>();
    let script = script(vec![Ok(many(1)), Ok([many(6), vec![end()]].concat())], vec![]);
    let mut feed = Feed::open(&source(&script), "s".into(), None, Start::TrimHorizon);
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
async fn a_subscription_is_not_opened_again_and_again_while_the_next_event_has_no_room() {
    let many = |from: u32| (from..from + 5).map(|n| event(&[n], &n.to_string())).collect::<Vec<_>>();
    let script = script(vec![Ok(many(1)), Ok(many(6)), Ok(vec![end()])], vec![]);
    // One batch fits into the part, with what an event is expected to take it doesn't.
    let source = Source { budget: Budget::new(3 * 250), ..source(&script) };
    let mut feed = Feed::open(&source, "s".into(), None, Start::TrimHorizon);
    assert_eq!(feed.next().await.unwrap().records.len(), 1);
    tokio::time::sleep(STALL * 10).await;
    assert_eq!(starts(&script).len(), 1);
}

/// How Kinesis tells a subscription that its shard has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    /// With the last event, as it should.
    Said,
    /// Not at all: events without records, for ever.
    Unsaid,
    /// Nothing comes any more.
    Silent,
}

/// A shard to which records come over time, on a service that fails by chance for a while.
struct Shore {
    began: Instant,
    /// When each record comes. Its number is its place, in thousands.
    records: Vec<Duration>,
    closes: Option<Duration>,
    ending: Ending,
    fails_until: Duration,
    random: Mutex<fastrand::Rng>,
    reads: Mutex<Vec<Duration>>,
    lists: Mutex<usize>,
}

impl Shore {
    /// By chance.
    fn of(seed: u64, ending: Ending) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut at = Duration::ZERO;
        let next = |_| {
            let few = random.u32(0..4) > 0;
            at += Duration::from_millis(if few { random.u64(0..300) } else { random.u64(0..60_000) });
            at
        };
        let records: Vec<Duration> = (0..50).map(next).collect();
        let closes = records[49] + Duration::from_millis(random.u64(0..400_000));
        Self {
            began: Instant::now(),
            records,
            closes: Some(closes),
            ending,
            fails_until: Duration::from_millis(random.u64(0..1_000_000)),
            random: Mutex::new(random),
            reads: Mutex::default(),
            lists: Mutex::default(),
        }
    }

    /// It takes a while and may fail.
    async fn call(&self) -> Result<(), Error> {
        let (wait, dice) = {
            let mut random = self.random.lock().unwrap();
            (random.u64(1..200), random.u32(0..12))
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if self.began.elapsed() >= self.fails_until {
            return Ok(());
        }
        match dice {
            0 => Err(Error::Throttled("t".into())),
            1 => Err(Error::Unavailable("u".into())),
            2 => Err(Error::Denied("d".into())),
            3 => Err(Error::Taken("t".into())),
            4 => {
                tokio::time::sleep(Duration::from_secs(40)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_closed(&self) -> bool {
        self.closes.is_some_and(|closes| self.began.elapsed() >= closes)
    }

    /// The place of the first record from there on.
    fn place(&self, start: &Start) -> usize {
        match start {
            Start::TrimHorizon => 0,
            Start::At(number) => (0..50).find(|place| at(*place).order(number).is_ge()).unwrap_or(50),
            Start::After(number) => (0..50).find(|place| at(*place).order(number).is_gt()).unwrap_or(50),
            Start::Latest | Start::AtTimestamp(_) => unreachable!("not begun so"),
        }
    }

    /// What has come by now, a few at most.
    fn from(&self, place: usize) -> Vec<Record> {
        let there = self.records.iter().filter(|record| **record <= self.began.elapsed()).count();
        let most = self.random.lock().unwrap().usize(1..5);
        (place..there.min(place + most)).map(|place| record(at(place))).collect()
    }
}

fn at(place: usize) -> SequenceNumber {
    number(u32::try_from((place + 1) * 1_000).unwrap())
}

fn record(sequence: SequenceNumber) -> Record {
    Record { sequence, sub: 0, partition_key: "p".into(), data: Data::encode(&[0]), arrival: None }
}

struct Waves {
    shore: Arc<Shore>,
    place: usize,
    until: Instant,
    next: Instant,
}

impl Subscription for Waves {
    fn next(&mut self, _: Room) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            sleep_until(self.next.min(self.until)).await;
            if Instant::now() >= self.until {
                return Ok(None);
            }
            self.next = Instant::now() + Duration::from_secs(1);
            let records = self.shore.from(self.place);
            let is_over = self.shore.is_closed() && self.place + records.len() == 50;
            match self.shore.ending {
                Ending::Said if is_over && records.is_empty() => return end(),
                Ending::Silent if is_over && records.is_empty() => std::future::pending().await,
                Ending::Said | Ending::Unsaid | Ending::Silent => {}
            }
            self.shore.call().await?;
            self.place += records.len();
            // Behind the last record, and before the next.
            let next = Some((self.place * 1_000 + 500).to_string());
            let (records, millis_behind_latest) = (records.into_iter().collect(), Some(0));
            Ok(Some(Answer { records, next, millis_behind_latest, children: Vec::new() }))
        })
    }
}

/// The other parts of the port are the script's.
struct Coast(Arc<Shore>, Arc<Script>);

impl Api for Coast {
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>> {
        self.1.stream_arn()
    }
    fn describe<'a>(
        &'a self,
        stream: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Registered>, Error>> {
        self.1.describe(stream, name)
    }
    fn register<'a>(&'a self, stream: &'a str, name: &'a str) -> BoxFuture<'a, Result<Registered, Error>> {
        self.1.register(stream, name)
    }
    fn subscribe<'a>(
        &'a self,
        _: &'a str,
        _: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
        Box::pin(async {
            self.0.call().await?;
            let (place, now) = (self.0.place(start), Instant::now());
            let waves =
                Waves { shore: self.0.clone(), place, until: now + Duration::from_secs(300), next: now };
            Ok::<Box<dyn Subscription>, _>(Box::new(waves))
        })
    }
}

impl crate::retrieval::Api for Coast {
    fn iterator<'a>(&'a self, _: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async {
            self.0.call().await?;
            Ok(self.0.place(start).to_string())
        })
    }
    fn read<'a>(&'a self, iterator: &'a str, _: usize, _: Room) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async {
            self.0.reads.lock().unwrap().push(self.0.began.elapsed());
            self.0.call().await?;
            let place: usize = iterator.parse().unwrap();
            let records = self.0.from(place);
            let next = place + records.len();
            if self.0.is_closed() && next == 50 && records.is_empty() {
                return Ok(end()?.unwrap());
            }
            let records = records.into_iter().collect();
            Ok(Answer {
                records,
                next: Some(next.to_string()),
                millis_behind_latest: Some(0),
                children: Vec::new(),
            })
        })
    }
}

impl shard::Api for Coast {
    fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(async {
            *self.0.lists.lock().unwrap() += 1;
            self.0.call().await.map_err(|error| shard::Error::Unavailable(error.to_string()))?;
            Ok(vec![Shard {
                id: "s".into(),
                parent: None,
                adjacent_parent: None,
                range: HashRange { start: 0, end: 9 },
                starting: number(1),
                ending: self.0.is_closed().then(|| number(99_999_999)),
            }])
        })
    }
}

fn coast(shore: &Arc<Shore>) -> Source {
    let script = script(vec![], vec![]);
    let coast = Arc::new(Coast(shore.clone(), script.clone()));
    let source = source(&script);
    let consumer = StreamConsumer::new(
        coast.clone(),
        registration::Settings {
            arn: Some("arn".to_owned()),
            name: "app".to_owned(),
            stream_attempts: 1,
            describe_attempts: 1,
            register_attempts: 1,
            pause: Duration::from_secs(1),
        },
    );
    Source { api: coast.clone(), shards: coast, consumer: Some(Arc::new(consumer)), ..source }
}

#[test]
fn every_shard_is_read_to_its_end_once_whether_or_not_the_end_is_said() {
    for seed in 0..200 {
        for ending in [Ending::Said, Ending::Unsaid, Ending::Silent] {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let shore = Arc::new(Shore::of(seed, ending));
                let mut feed = Feed::open(&coast(&shore), "s".into(), None, Start::TrimHorizon);
                let mut seen = Vec::new();
                loop {
                    let batch = timeout(Duration::from_secs(7_200), feed.next()).await;
                    let batch = batch
                        .unwrap_or_else(|_| panic!("seed {seed}, {ending:?}: {} and no end", seen.len()))
                        .unwrap();
                    seen.extend(batch.records.each().iter().map(|record| record.sequence.clone()));
                    if batch.end.is_some() {
                        break;
                    }
                }
                assert_eq!(seen, (0..50).map(at).collect::<Vec<_>>(), "seed {seed}, {ending:?}");
                let closed = shore.closes.unwrap();
                let waited = shore.began.elapsed().saturating_sub(closed.max(shore.fails_until));
                let longest = if ending == Ending::Said { 60 } else { 120 };
                assert!(waited <= Duration::from_secs(longest), "seed {seed}, {ending:?}: {waited:?}");
                let reads = shore.reads.lock().unwrap();
                assert!(
                    reads.iter().all(|read| *read >= closed),
                    "seed {seed}, {ending:?}: an open shard was polled"
                );
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_shard_that_is_open_costs_two_listings_a_minute_and_is_not_polled() {
    let open = Shore { closes: None, fails_until: Duration::ZERO, ..Shore::of(1, Ending::Said) };
    let shore = Arc::new(open);
    let source = coast(&shore);
    let mut feeds: Vec<Feed> =
        (0..4).map(|_| Feed::open(&source, "s".into(), None, Start::After(at(49)))).collect();
    let none = timeout(Duration::from_secs(3_600), feeds[0].next()).await;
    assert!(none.is_err(), "there was nothing to come");
    assert_eq!(shore.reads.lock().unwrap().len(), 0);
    let lists = *shore.lists.lock().unwrap();
    assert!((100..=120).contains(&lists), "{lists}");
}
