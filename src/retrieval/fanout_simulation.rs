//! A shard on a service that fails by chance, read by subscriptions on a paused clock, from seeds.

use std::sync::Mutex;

use super::tests::{Event, end, listed, number, recognised, registration, script, source, stream, the_shard};
use super::*;
use crate::record::Record;
use crate::retrieval::{Feed, Source};
use crate::shard::{self, Filter, Shard};
use crate::stream::StreamId;

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
    /// When, and from which place on.
    reads: Mutex<Vec<(Duration, usize)>>,
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

    /// In milliseconds, from the first record that is still to be read.
    fn behind(&self, place: usize) -> i64 {
        let first = self.records.get(place).map_or(Duration::MAX, |at| *at);
        i64::try_from(self.began.elapsed().saturating_sub(first).as_millis()).unwrap()
    }

    /// What has come by now, a few at most.
    fn from(&self, place: usize) -> Vec<Record> {
        let there = self.records.iter().filter(|record| **record <= self.began.elapsed()).count();
        let most = self.random.lock().unwrap().usize(1..5);
        (place..there.min(place + most)).map(|place| Record::plain((place + 1) * 1_000, "p", &[0])).collect()
    }
}

fn at(place: usize) -> SequenceNumber {
    number(u32::try_from((place + 1) * 1_000).unwrap())
}

struct Waves {
    shore: Arc<Shore>,
    place: usize,
    until: Instant,
    next: Instant,
}

impl Subscription for Waves {
    fn next(&mut self, _: Reservation) -> BoxFuture<'_, Event> {
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
            let millis_behind_latest = Some(self.shore.behind(self.place));
            let records = records.into_iter().collect();
            Ok(Some(Answer { records, next, millis_behind_latest, children: Vec::new() }))
        })
    }
}

struct Coast(Arc<Shore>);

impl Api for Coast {
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>> {
        unreachable!("the consumer's ARN is given")
    }
    fn describe<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<Registered>, Error>> {
        unreachable!("the consumer's ARN is given")
    }
    fn register<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Registered, Error>> {
        unreachable!("the consumer's ARN is given")
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
    fn read<'a>(
        &'a self,
        iterator: &'a str,
        _: usize,
        _: Reservation,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async {
            let place: usize = iterator.parse().unwrap();
            self.0.reads.lock().unwrap().push((self.0.began.elapsed(), place));
            self.0.call().await?;
            let records = self.0.from(place);
            let next = place + records.len();
            if self.0.is_closed() && next == 50 && records.is_empty() {
                return Ok(end()?.unwrap());
            }
            let records = records.into_iter().collect();
            Ok(Answer {
                records,
                next: Some(next.to_string()),
                millis_behind_latest: Some(self.0.behind(next)),
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
            Ok(vec![listed("s", self.0.is_closed().then_some(99_999_999))])
        })
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(async { Ok(stream()) })
    }
}

fn coast(shore: &Arc<Shore>) -> Source {
    let script = script(vec![], vec![]);
    let coast = Arc::new(Coast(shore.clone()));
    let source = source(&script);
    let consumer = StreamConsumer::new(coast.clone(), registration(Some("arn".to_owned())));
    let recognition = recognised(coast.clone());
    Source { api: coast.clone(), shards: coast, recognition, consumer: Some(Arc::new(consumer)), ..source }
}

/// One shard from its beginning to its end; how many reads there were with records still to come.
async fn read_all(seed: u64, ending: Ending) -> usize {
    let shore = Arc::new(Shore::of(seed, ending));
    let of = format!("seed {seed}, {ending:?}");
    let mut random = fastrand::Rng::with_seed(seed);
    let closed = shore.closes.unwrap();
    // Some begin when everything is there, and some are slow.
    tokio::time::sleep(if seed.is_multiple_of(3) {
        closed.mul_f64(random.f64() * 1.5)
    } else {
        Duration::ZERO
    })
    .await;
    let slow = if seed.is_multiple_of(5) { random.u64(0..20_000) } else { 0 };
    let mut feed = Feed::open(&coast(&shore), the_shard(), Start::TrimHorizon);
    let (mut seen, mut last) = (Vec::new(), Duration::ZERO);
    loop {
        let batch = timeout(Duration::from_secs(7_200), feed.next()).await;
        let batch = batch.unwrap_or_else(|_| panic!("{of}: {} and no end", seen.len())).unwrap();
        seen.extend(batch.records.each().iter().map(|record| record.sequence.clone()));
        if batch.end.is_some() {
            break;
        }
        last = shore.began.elapsed();
        tokio::time::sleep(Duration::from_millis(random.u64(0..=slow))).await;
    }
    assert_eq!(seen, (0..50).map(at).collect::<Vec<_>>(), "{of}");
    let waited = shore.began.elapsed().saturating_sub(closed.max(shore.fails_until).max(last));
    let longest = match ending {
        Ending::Said => 60,
        Ending::Unsaid => 100,
        Ending::Silent => 120,
    };
    assert!(waited <= Duration::from_secs(longest), "{of}: {waited:?}");
    let reads = shore.reads.lock().unwrap();
    assert!(reads.iter().all(|(at, _)| *at >= closed), "{of}: an open shard was polled");
    reads.iter().filter(|(_, place)| *place < 50).count()
}

#[test]
fn every_shard_is_read_to_its_end_once_whether_or_not_the_end_is_said() {
    let mut early = 0;
    for seed in 0..200 {
        for ending in [Ending::Said, Ending::Unsaid, Ending::Silent] {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().unwrap();
            early += usize::from(runtime.block_on(read_all(seed, ending)) > 0);
        }
    }
    // A subscription that twice falls silent before it has said anything: of 6,000 runs it is one in seventy.
    assert!(early <= 12, "{early} shards were polled with records still to come");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_shard_that_is_open_costs_two_listings_a_minute_and_is_not_polled() {
    let open = Shore { closes: None, fails_until: Duration::ZERO, ..Shore::of(1, Ending::Said) };
    let shore = Arc::new(open);
    let source = coast(&shore);
    let mut feeds: Vec<Feed> =
        (0..4).map(|_| Feed::open(&source, the_shard(), Start::After(at(49)))).collect();
    let none = timeout(Duration::from_secs(3_600), feeds[0].next()).await;
    assert!(none.is_err(), "there was nothing to come");
    assert_eq!(shore.reads.lock().unwrap().len(), 0);
    let lists = *shore.lists.lock().unwrap();
    assert!((100..=120).contains(&lists), "{lists}");
}
