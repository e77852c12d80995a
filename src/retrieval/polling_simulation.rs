//! Simulation: polling a shard on a service that never reports its end and fails at random, on a paused
//! clock, by seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;
use crate::budget::Budget;
use crate::record::Record;
use crate::retrieval::fanout::tests::{recognised, stream, the_shard};
use crate::retrieval::{Api, Feed, PrefetchLimits, Source, Start};
use crate::sequence::SequenceNumber;
use crate::shard::{self, BoxFuture, Filter, HashRange, Shard, ShardId};
use crate::stream::StreamId;

const WHOLE: HashRange = HashRange { start: 0, end: 9 };

struct World {
    began: Instant,
    /// When each record is put, and for how long the answers before it are empty and behind the tip.
    records: Vec<(Duration, Duration)>,
    /// When the child shard is listed. The parent accepts records for a while after that.
    splits: Duration,
    /// When the shard is closed; none for never.
    closes: Option<Duration>,
    /// Whether the shard is closed by the next listing after `closes`, directly after one more record was
    /// put.
    closes_while_listing: bool,
    random: Mutex<fastrand::Rng>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    put_while_listing: usize,
    /// When the reader first reached each record.
    reached: BTreeMap<usize, Instant>,
    lists: Vec<Duration>,
}

impl World {
    fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut at = Duration::ZERO;
        let records: Vec<_> = (0..30)
            .map(|_| {
                let few = random.u32(0..4) > 0;
                at += Duration::from_millis(random.u64(0..if few { 300 } else { 60_000 }));
                let gap = if random.u32(0..5) == 0 { random.u64(0..120) } else { 0 };
                (at, Duration::from_secs(gap))
            })
            .collect();
        Self {
            began: Instant::now(),
            splits: at.mul_f64(random.f64()),
            closes: Some(at + Duration::from_millis(random.u64(0..200_000))),
            closes_while_listing: seed.is_multiple_of(2),
            records,
            random: Mutex::new(random),
            state: Mutex::default(),
        }
    }

    fn put(&self, state: &State) -> usize {
        let now = self.began.elapsed();
        self.records.iter().filter(|(at, _)| *at <= now).count() + state.put_while_listing
    }

    /// A call, which takes a while and may fail.
    async fn call(&self, most: u64) -> Result<(), Error> {
        let (wait, dice) = {
            let mut random = self.random.lock().unwrap();
            (random.u64(1..most), random.u32(0..40))
        };
        sleep(Duration::from_millis(wait)).await;
        match dice {
            0 => Err(Error::Throttled("t".into())),
            1 => Err(Error::Unavailable("u".into())),
            2 => Err(Error::IteratorExpired("e".into())),
            _ => Ok(()),
        }
    }

    fn list(&self) -> Vec<Shard> {
        let now = self.began.elapsed();
        let mut state = self.state.lock().unwrap();
        if self.closes.is_some_and(|closes| now >= closes) && !state.closed {
            state.closed = true;
            state.put_while_listing = usize::from(self.closes_while_listing);
        }
        let ended = if self.closes_while_listing {
            state.closed
        } else {
            self.closes.is_some_and(|closes| now >= closes)
        };
        let shard = |id: &str, parent: Option<&str>, ended: bool| Shard {
            id: id.into(),
            parent: parent.map(Into::into),
            adjacent_parent: None,
            range: WHOLE,
            starting: number(0),
            ending: ended.then(|| number(99)),
        };
        let child = (now >= self.splits).then(|| shard("c", Some("s"), false));
        [shard("s", None, ended)].into_iter().chain(child).collect()
    }
}

fn number(n: usize) -> SequenceNumber {
    SequenceNumber::parse(&n.to_string()).unwrap()
}

impl Api for World {
    fn iterator<'a>(&'a self, _: &'a ShardId, start: &'a Start) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async {
            self.call(200).await?;
            match start {
                Start::TrimHorizon => Ok("0".to_owned()),
                Start::After(number) => Ok(number.as_str().to_owned()),
                Start::At(_) | Start::Latest | Start::AtTimestamp(_) => unreachable!("not begun so"),
            }
        })
    }

    /// Returns one record at a time. An iterator is the number of records before it.
    fn read<'a>(
        &'a self,
        iterator: &'a str,
        _: usize,
        _: Reservation,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async {
            let place: usize = iterator.parse().unwrap();
            let (there, reached) = {
                let mut state = self.state.lock().unwrap();
                let there = self.put(&state);
                (there, (place < there).then(|| *state.reached.entry(place).or_insert_with(Instant::now)))
            };
            let gap = self.records.get(place).map_or(Duration::ZERO, |(_, gap)| *gap);
            let comes = reached.is_some_and(|reached| reached.elapsed() >= gap);
            // Records that are put during the call are not in the answer.
            self.call(2_000).await?;
            let place = if comes { place + 1 } else { place };
            let records = comes.then(|| Record::plain(place, "p", &[0])).into_iter().collect();
            let millis_behind_latest = Some(if place < there { 500 } else { 0 });
            Ok(Answer { records, next: Some(place.to_string()), millis_behind_latest, children: Vec::new() })
        })
    }
}

impl shard::Api for World {
    fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(async {
            self.state.lock().unwrap().lists.push(self.began.elapsed());
            self.call(9_000).await.map_err(|error| shard::Error::Unavailable(error.to_string()))?;
            Ok(World::list(self))
        })
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(async { Ok(stream()) })
    }
}

fn source(world: &Arc<World>) -> Source {
    Source {
        api: world.clone(),
        shards: world.clone(),
        recognition: recognised(world.clone()),
        consumer: None,
        settings: Settings {
            max_records: 10,
            idle: Duration::from_secs(1),
            idle_behind: Duration::from_millis(200),
            near: Duration::ZERO,
            keep_empty: false,
            retry: Duration::from_millis(500),
            ahead: PrefetchLimits::default(),
        },
        budget: Budget::new(1_000_000),
        closed: Arc::default(),
        reach: Arc::default(),
        calls: Arc::new(Semaphore::new(9)),
        sink: Arc::new(crate::metrics::Discard),
        clock: crate::clock::ServiceClock::new(crate::clock::wall_millis, Default::default()),
    }
}

/// Asserts that listings are at least half a minute apart.
fn assert_lists_are_apart(world: &World, of: &str) {
    let state = world.state.lock().unwrap();
    for pair in state.lists.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_secs(30), "{of}: {:?}", state.lists);
    }
}

async fn read_all(seed: u64) {
    let world = Arc::new(World::of(seed));
    let of = format!("seed {seed}");
    let mut feed = Feed::open(&source(&world), the_shard(), Start::TrimHorizon);
    let mut seen = Vec::new();
    let children = loop {
        let batch = timeout(Duration::from_secs(7_200), feed.next()).await;
        let batch = batch.unwrap_or_else(|_| panic!("{of}: {} and no end", seen.len())).unwrap();
        seen.extend(batch.records.decode().iter().map(|record| record.sequence.clone()));
        if let Some(children) = batch.end {
            break children;
        }
    };
    let all = world.records.len() + usize::from(world.closes_while_listing);
    assert_eq!(seen, (1..=all).map(number).collect::<Vec<_>>(), "{of}");
    assert!(world.began.elapsed() >= world.closes.unwrap(), "{of}: an open shard has ended");
    assert_eq!(children.iter().map(|child| child.id.as_str()).collect::<Vec<_>>(), ["c"], "{of}");
    assert_lists_are_apart(&world, &of);
}

#[test]
fn closed_shard_is_ended_after_its_last_record() {
    for seed in 0..300 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(read_all(seed));
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_open_shards_never_end_and_are_listed_seldom() {
    let open = World { closes: None, splits: Duration::MAX, ..World::of(1) };
    let world = Arc::new(open);
    let source = source(&world);
    let mut feeds: Vec<Feed> =
        (0..4).map(|_| Feed::open(&source, the_shard(), Start::After(number(30)))).collect();
    assert!(timeout(Duration::from_secs(3_600), feeds[0].next()).await.is_err(), "there was nothing to come");
    assert_lists_are_apart(&world, "open");
    let lists = world.state.lock().unwrap().lists.len();
    assert!((5..=40).contains(&lists), "{lists} for four shards in an hour");
}
