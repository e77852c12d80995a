//! Tests of polling: failures, iterators, memory, the end of a shard.

use super::*;
use crate::budget::Budget;
use crate::clock::{self, ServiceClock};
use crate::recognition::Recognition;
use crate::record::{Data, Record};
use crate::retrieval::fanout::tests::{recognised, stream, the_shard};
use crate::retrieval::{Api, Feed, PrefetchLimits, Source, Start};
use crate::sequence::{Sequence, SequenceNumber};
use crate::shard::{self, BoxFuture, Filter, HashRange, Shard, ShardId};
use crate::stream::StreamId;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Answers from a script. The text of an iterator is the start that it was requested for.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Result<Answer, Error>>>,
    /// Refuses iterators at sequence numbers.
    refuses: bool,
    starts: Mutex<Vec<Start>>,
    listed: Vec<Shard>,
    /// The stream's identity is unknown.
    anonymous: bool,
}

impl Api for Script {
    fn iterator<'a>(&'a self, _: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
        self.starts.lock().unwrap().push(start.clone());
        let refused = self.refuses && matches!(start, Start::At(_) | Start::After(_));
        Box::pin(async move {
            if refused { Err(Error::Denied("no such number".into())) } else { Ok("i".to_owned()) }
        })
    }
    fn read<'a>(&'a self, _: &'a str, _: usize, _: Reservation) -> BoxFuture<'a, Result<Answer, Error>> {
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
    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        let known = !self.anonymous;
        Box::pin(async move {
            known.then(stream).ok_or_else(|| shard::Error::Denied("DescribeStreamSummary".to_owned()))
        })
    }
}

fn number(n: u32) -> SequenceNumber {
    SequenceNumber::parse(&n.to_string()).unwrap()
}

fn records(numbers: &[u32]) -> Result<Answer, Error> {
    let record = |n: &u32| Record::plain(*n as usize, "p", &[0]);
    Ok(Answer { records: numbers.iter().map(record).collect(), next: Some("i".into()), ..Answer::default() })
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
        ahead: PrefetchLimits::default(),
    }
}

fn source(script: &Arc<Script>) -> Source {
    let anonymous = script.anonymous;
    let recognition = if anonymous { Recognition::new(script.clone()) } else { recognised(script.clone()) };
    Source {
        api: script.clone(),
        shards: script.clone(),
        recognition,
        consumer: None,
        settings: settings(),
        budget: Budget::new(1_000_000),
        closed: Arc::default(),
        reach: Arc::default(),
        calls: Arc::new(Semaphore::new(1)),
        sink: Arc::new(crate::metrics::Discard),
        clock: crate::clock::ServiceClock::new(crate::clock::wall_millis, Default::default()),
    }
}

async fn all(script: Script, start: Start) -> (Vec<String>, Vec<Start>) {
    let script = Arc::new(script);
    let source = source(&script);
    let mut feed = Feed::open(&source, the_shard(), start);
    let mut seen = Vec::new();
    loop {
        let batch = feed.next().await.unwrap();
        seen.extend(batch.records.decode().iter().map(|r| r.sequence.to_string()));
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
async fn every_record_is_delivered_once_across_failures() {
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
async fn expired_latest_resumes_at_its_first_timestamp() {
    let clock = ServiceClock::new(clock::wall_millis, Default::default());
    let before = clock.past();
    let (_, starts) = all(script(vec![Err(Error::IteratorExpired("e".into())), end()]), Start::Latest).await;
    let [Start::Latest, Start::AtTimestamp(millis)] = starts[..] else { panic!("{starts:?}") };
    assert!((before..=clock.past()).contains(&millis));
}

#[tokio::test(start_paused = true)]
async fn missing_shard_has_ended_only_if_not_listed() {
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
    other.listed = vec![Shard { id: "another".into(), ..shard.clone() }];
    assert_eq!(all(other, Start::TrimHorizon).await.0, [""; 0]);

    let mut anonymous = script(vec![missing(), records(&[1]), end()]);
    (anonymous.listed, anonymous.anonymous) = (vec![Shard { id: "another".into(), ..shard }], true);
    assert_eq!(
        all(anonymous, Start::TrimHorizon).await.0,
        ["1", "-> c"],
        "it may be another stream that does not list it"
    );
}

#[tokio::test(start_paused = true)]
async fn refused_checkpoint_is_suspected_and_never_skipped() {
    let shard = |starting| Shard {
        id: "s".into(),
        parent: None,
        adjacent_parent: None,
        range: HashRange { start: 0, end: 9 },
        starting: number(starting),
        ending: None,
    };
    for starting in [100, 5] {
        let mut script = script(vec![records(&[101]), end()]);
        (script.refuses, script.listed) = (true, vec![shard(starting)]);
        let source = source(&Arc::new(script));
        let mut feed = Feed::open(&source, the_shard(), Start::At(number(7)));
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, feed.next()).await.is_err(), "nothing is read instead");
        let suspected = tokio::time::timeout(Duration::ZERO, source.recognition.suspected()).await;
        assert!(suspected.is_ok(), "the shard begins at {starting}");
    }
}

#[tokio::test(start_paused = true)]
async fn iterator_of_a_deleted_stream_is_replaced_at_once() {
    let (seen, starts) =
        all(script(vec![records(&[1]), Err(Error::ShardMissing("m".into())), end()]), Start::TrimHorizon)
            .await;
    assert_eq!(seen, ["1", "-> c"]);
    assert_eq!(starts, [Start::TrimHorizon, Start::After(number(1))]);
}

/// The numbers of warnings and infos logged while a script that ends with a record and the end of the shard
/// is read.
async fn logged(failures: Vec<Result<Answer, Error>>) -> (usize, usize) {
    let (logged, _guard) = crate::retrieval::logged::Logged::start();
    let answers = failures.into_iter().chain([records(&[1]), end()]).collect();
    assert_eq!(all(script(answers), Start::TrimHorizon).await.0, ["1", "-> c"]);
    logged.counts()
}

/// Pauses grow to ten seconds, so forty failures take some minutes.
#[tokio::test(start_paused = true)]
async fn failing_reads_warn_once_a_minute_and_log_recovery() {
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
        // An unreachable service is logged once in ten minutes for all shards together.
        let least = if let Err(Error::Unavailable(_)) = failure() { 1 } else { 2 };
        assert!((least..=7).contains(&warnings), "{:?}: {warnings}", failure());
        assert_eq!(steps, 1, "{:?}", failure());
    }
}

#[tokio::test(start_paused = true)]
async fn single_expired_iterator_is_no_warning() {
    assert_eq!(logged(vec![Err(Error::IteratorExpired("e".into()))]).await, (0, 0));
    assert_eq!(logged(vec![Err(Error::Throttled("t".into()))]).await, (1, 1));
}

#[test]
fn pause_depends_on_millis_behind_latest() {
    let millis = Duration::from_millis;
    let settings = Settings { idle_behind: millis(0), near: millis(900), ..settings() };
    assert_eq!(pace(&settings, Some(0)), millis(900), "near the tip");
    assert_eq!(pace(&settings, Some(900)), millis(0), "there is more");
    assert_eq!(pace(&settings, None), millis(200));
    let java = Settings { idle_behind: settings.idle, near: Duration::ZERO, ..settings };
    assert!([None, Some(0), Some(1), Some(99_999)].iter().all(|behind| pace(&java, *behind) == millis(200)));
    let slow = Settings { idle: millis(300), idle_behind: millis(5_000), near: millis(100), ..java };
    assert_eq!(pace(&slow, Some(99)), millis(300), "only ever slower");
    assert_eq!(pace(&slow, Some(100)), millis(300), "never slower than idle");
}

#[test]
fn limit_is_what_fits_the_share() {
    let settings = Settings { max_records: 10_000, ..settings() };
    assert_eq!(limit(&settings, LARGEST, 10_000_000, 1), 10_000);
    assert_eq!(limit(&settings, 1_000_000, 1_000, 1), 1_000);
    assert_eq!(limit(&settings, 1_000_000, 1_000, 5), 200, "of aggregates");
    assert_eq!(limit(&settings, LARGEST, 10_000, 5), LARGEST / 50_000);
    assert_eq!(limit(&settings, 1_000, 1_000_000, 1), 1);
    assert_eq!(limit(&settings, 14_000_000, 1, 1), 10_000);
}

/// Serves records of that size without end; an answer reserves the memory that it needs.
struct Endless {
    size: usize,
    calls: AtomicUsize,
    /// Number of answers that were dropped for lack of memory.
    dropped: AtomicUsize,
}

/// 10 MiB of data in base64.
const MOST: usize = 14_000_000;

impl Api for Endless {
    fn iterator<'a>(&'a self, _: &'a ShardId, _: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async { Ok("0".to_owned()) })
    }
    fn read<'a>(
        &'a self,
        iterator: &'a str,
        limit: usize,
        mut room: Reservation,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        // Kinesis returns at most 10 MiB of data in one answer, but always at least one record.
        let count = limit.min(MOST / self.size).max(1);
        let (size, bytes) = (self.size, count * self.size);
        let first: u64 = iterator.parse().unwrap();
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if bytes > room.bytes() {
                room = match tokio::time::timeout(Duration::from_secs(5), room.grown(bytes)).await {
                    Ok(room) => room,
                    Err(_) => {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                        return Err(Error::NoRoom(bytes));
                    }
                };
            }
            room.set(bytes);
            let body = room.fill(vec![b'A'; bytes]);
            let record = |n: usize| Record {
                sequence: SequenceNumber::parse(&(first + n as u64).to_string()).unwrap(),
                sub: 0,
                partition_key: "p".into(),
                data: Data::of_base64(body.slice(n * size..(n + 1) * size)).unwrap(),
                arrival: None,
            };
            let records = (0..count).map(record).collect();
            let next = Some((first + count as u64).to_string());
            Ok(Answer { records, next, millis_behind_latest: Some(9), ..Answer::default() })
        })
    }
}

impl Endless {
    fn of(size: usize) -> Arc<Self> {
        Arc::new(Self { size, calls: AtomicUsize::new(0), dropped: AtomicUsize::new(0) })
    }
}

fn endless(records: Arc<Endless>, budget: Arc<Budget>, idle: u64) -> Source {
    Source {
        api: records,
        shards: Arc::new(Script::default()),
        recognition: recognised(Arc::new(Script::default())),
        consumer: None,
        settings: Settings {
            max_records: 10_000,
            idle: Duration::from_millis(idle),
            idle_behind: Duration::from_millis(idle),
            ..settings()
        },
        budget,
        closed: Arc::default(),
        reach: Arc::default(),
        calls: Arc::new(Semaphore::new(200)),
        sink: Arc::new(crate::metrics::Discard),
        clock: crate::clock::ServiceClock::new(crate::clock::wall_millis, Default::default()),
    }
}

/// Fifteen of sixteen children hold a batch and take no more, whatever the size of the records.
#[tokio::test(start_paused = true)]
async fn stuck_shards_leave_memory_for_others() {
    for size in [4_000, 40_000, 160_000] {
        let budget = Budget::new(64 << 20);
        let mut source = endless(Endless::of(size), budget.clone(), 200);
        // Answers of at most 4 MB keep the test short; 15 times four of them exceed the limit.
        source.settings.max_records = 4_000_000 / size.max(4_000);
        let open = || Feed::open(&source, the_shard(), Start::TrimHorizon);
        let (mut stuck, mut in_hand) = ((0..15).map(|_| open()).collect::<Vec<_>>(), Vec::new());
        let mut other = open();
        for feed in &mut stuck {
            in_hand.push(feed.next().await.unwrap());
        }
        // By now each stuck feed has prefetched as much as it may.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut next = 0_u64;
        for _ in 0..20 {
            let batch = tokio::time::timeout(Duration::from_secs(5), other.next()).await.unwrap().unwrap();
            for record in batch.records.decode() {
                assert_eq!(record.sequence.as_str(), next.to_string());
                next += 1;
            }
            assert!(budget.held() <= 64 << 20, "{} are held", budget.held());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn record_larger_than_the_share_is_read_alone() {
    let budget = Budget::new(64 << 20);
    let _others: Vec<_> = (0..30).map(|_| budget.share()).collect();
    let source = endless(Endless::of(13_000_000), budget, 200);
    let mut feed = Feed::open(&source, the_shard(), Start::TrimHorizon);
    for _ in 0..5 {
        let batch = tokio::time::timeout(Duration::from_secs(60), feed.next()).await.unwrap().unwrap();
        assert_eq!(batch.records.len(), 1);
    }
}

/// MB per second of one busy shard, whose child takes each batch at once, among idle shards.
async fn drained(leases: usize, size: usize) -> f64 {
    let budget = Budget::new(256 << 20);
    let _idle: Vec<_> = (1..leases).map(|_| budget.share()).collect();
    let source = endless(Endless::of(size), budget, 1_500);
    let mut feed = Feed::open(&source, the_shard(), Start::TrimHorizon);
    let (start, mut bytes) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(20) {
        bytes += feed.next().await.unwrap().records.sizes().data;
    }
    f64::from(u32::try_from(bytes / 1_000).unwrap()) / 1_000.0 / start.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn busy_shard_reads_at_full_rate_among_idle_ones() {
    for (leases, size) in
        [(1, 1_000), (16, 1_000), (64, 100_000), (256, 1_000), (1_000, 1_000), (1_000, 100_000)]
    {
        let rate = drained(leases, size).await;
        assert!(rate >= 2.0, "{leases} leases, records of {size}: {rate} MB/s");
    }
}

/// All shards have a backlog at once, larger than the limit.
#[tokio::test(start_paused = true)]
async fn no_answer_is_dropped_while_children_take_their_batches() {
    for (leases, size) in [(8, 400_000), (30, 400_000), (30, 13_000_000)] {
        let records = Endless::of(size);
        let budget = Budget::new(256 << 20);
        let source = endless(records.clone(), budget.clone(), 1_500);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..leases {
            let mut feed = Feed::open(&source, the_shard(), Start::TrimHorizon);
            tasks.spawn(async move {
                for _ in 0..2 {
                    drop(feed.next().await.unwrap());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(records.dropped.load(Ordering::Relaxed), 0, "{leases} leases, records of {size}");
        assert_eq!(budget.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn short_answer_is_followed_at_five_calls_a_second() {
    let records = Endless::of(40_000);
    let budget = Budget::new(40 << 20);
    // Other shards hold the shared part.
    let _shares: Vec<_> = (0..10).map(|_| budget.share()).collect();
    let _held = budget.take(12 << 20);
    let source = endless(records.clone(), budget, 1_500);
    let mut feed = Feed::open(&source, the_shard(), Start::TrimHorizon);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        drop(feed.next().await.unwrap());
    }
    let calls = records.calls.load(Ordering::Relaxed);
    assert!((40..=51).contains(&calls), "{calls}");
}

#[test]
fn reading_starts_at_the_checkpoint_itself() {
    let start = |sequence, timestamp| Start::of_checkpoint(&sequence, timestamp);
    assert_eq!(start(Sequence::Number(number(7)), None), Some(Start::At(number(7))));
    assert_eq!(start(Sequence::AtTimestamp, Some(5)), Some(Start::AtTimestamp(5)));
    assert_eq!(start(Sequence::AtTimestamp, None), None);
    assert_eq!(start(Sequence::ShardEnd, None), None);
}
