//! SubscribeToShard: records pushed to a registered consumer, from a position to the end of the shard.
//!
//! A subscription lasts five minutes and is opened again where it stood; what was pushed but not handed to the
//! child stays in the queue. While a child is slow nothing is read, and after a while the subscription is left:
//! what Kinesis has sent by then would lie in this process. In KCL: `FanOutRecordsPublisher`. Different on
//! purpose: "not found" ends a shard only if `ListShards` agrees (it may be the consumer that is missing);
//! failures are followed by pauses that grow; a connection on which nothing comes, not even the empty events of
//! an idle shard, is given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::place::Place;
use super::queue::Ahead;
use super::registration::{Registered, StreamConsumer};
use super::{Answer, Error, Start};
use crate::backoff::Backoff;
use crate::budget::Room;
use crate::sequence::SequenceNumber;
use crate::shard::{BoxFuture, ShardId};

const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Kinesis takes one call a second for a consumer and shard.
const ONE_CALL: Duration = Duration::from_secs(1);
/// Whoever took the subscription over can't lose it again for five seconds; if that is the lease's new owner,
/// this one will have heard of it by then.
const TAKEN_OVER: Duration = Duration::from_secs(6);
/// Kinesis sends an event without records every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a subscription is kept while the child is slow. What it was sent fills the window of its connection, and
/// others on that must not be silent for so long that they are taken for broken.
const STALL: Duration = Duration::from_secs(10);
/// Room for an event without records.
const LITTLE: usize = 4 * 1024;

/// Subscriptions to shards of the one stream, and the stream's registered consumers.
pub trait Api: Send + Sync {
    /// The stream's ARN, of `DescribeStreamSummary`.
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>>;

    /// `DescribeStreamConsumer`; none if there is no such consumer.
    fn describe<'a>(
        &'a self,
        stream_arn: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Registered>, Error>>;

    /// `RegisterStreamConsumer`; [`Error::Taken`] if there is one of that name.
    fn register<'a>(&'a self, stream_arn: &'a str, name: &'a str)
    -> BoxFuture<'a, Result<Registered, Error>>;

    /// `SubscribeToShard`, in the name of the consumer with that ARN.
    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        shard: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>>;
}

/// A subscription. Dropping it ends it.
pub trait Subscription: Send {
    /// The next event, whose `next` is a sequence number; none when Kinesis has closed it. The event takes the
    /// place of `room`, or as much as it needs. What came of an event before a cancelled call isn't lost.
    fn next(&mut self, room: Room) -> BoxFuture<'_, Result<Option<Answer>, Error>>;
}

pub(super) struct Fanout {
    place: Place,
    consumer: Arc<StreamConsumer>,
    backoff: Backoff,
    /// Bytes of the last event.
    expected: usize,
}

enum Step {
    /// The end of the shard was handed on, or nobody wants more.
    Done,
    At(Instant),
    /// This endpoint can't.
    Poll,
}

impl Fanout {
    pub(super) fn new(place: Place, consumer: Arc<StreamConsumer>) -> Self {
        let backoff = Backoff::new(place.source.settings.retry, MAX_PAUSE, fastrand::Rng::new());
        Self { place, consumer, backoff, expected: LITTLE }
    }

    /// Ends after the batch that ends the shard, or when nobody wants batches any more; or with the place from
    /// which to poll, where there is no fan-out.
    pub(super) async fn run(mut self, ahead: &Ahead) -> Option<Place> {
        let mut next = Instant::now();
        // As before each event: who leaves because there is no room comes back when there is.
        while ahead.room_for(self.expected).await {
            if self.consumer.is_unavailable() {
                return Some(self.place);
            }
            sleep_until(next).await;
            match self.subscribe(ahead).await {
                Step::Done => return None,
                Step::At(at) => next = at,
                Step::Poll => return Some(self.place),
            }
        }
        None
    }

    async fn subscribe(&mut self, ahead: &Ahead) -> Step {
        let consumer = match self.consumer.arn().await {
            Ok(arn) => arn,
            Err(error @ Error::Unsupported(_)) => return self.cannot(&error),
            Err(error) => return self.failed("no consumer for enhanced fan-out yet, will try again", &error),
        };
        let asked = Place::now();
        let (shard, start) = (self.place.shard.clone(), self.place.start());
        let began = Instant::now();
        let subscribed = {
            let _call = self.place.source.calls.acquire().await;
            self.consumer.api.subscribe(&consumer, &shard, &start).await
        };
        match subscribed {
            Ok(subscription) => {
                self.place.opened(asked);
                debug!(%shard, ?start, "subscribed");
                self.listen(subscription, &consumer, began, ahead).await
            }
            Err(error @ Error::Unsupported(_)) => self.cannot(&error),
            Err(Error::Taken(reason)) => {
                self.place.failed(None);
                debug!(%shard, reason, "not subscribed yet");
                Step::At(Instant::now() + ONE_CALL + Duration::from_millis(fastrand::u64(0..200)))
            }
            Err(Error::ShardMissing(reason)) => self.missing(&reason, &consumer, ahead).await,
            Err(error @ Error::Denied(_)) if self.place.is_of_an_earlier_stream(&error).await => {
                Step::At(began + ONE_CALL)
            }
            Err(error) => self.failed("can't subscribe, will try again", &error),
        }
    }

    async fn listen(
        &mut self,
        mut subscription: Box<dyn Subscription>,
        consumer: &str,
        began: Instant,
        ahead: &Ahead,
    ) -> Step {
        let mut events = 0;
        loop {
            let Ok(room) = timeout(STALL, self.room(ahead)).await else {
                debug!(shard = %self.place.shard, "the record processor is slow: left the subscription until it is ready");
                return Step::At(began + ONE_CALL);
            };
            let Some(room) = room else { return Step::Done };
            let answer = match timeout_at(Instant::now() + SILENCE, subscription.next(room)).await {
                Ok(Ok(Some(answer))) => answer,
                // Five minutes are over.
                Ok(Ok(None)) if events > 0 => return Step::At(began + ONE_CALL),
                Ok(Ok(None)) => {
                    self.place.failed(None);
                    return Step::At((began + ONE_CALL).max(Instant::now() + self.backoff.pause()));
                }
                Ok(Err(Error::Taken(reason))) => {
                    info!(shard = %self.place.shard, reason, "another worker took the subscription over");
                    return Step::At(Instant::now() + TAKEN_OVER);
                }
                Ok(Err(Error::ShardMissing(reason))) => return self.missing(&reason, consumer, ahead).await,
                Ok(Err(error)) => return self.failed("a subscription broke, will subscribe again", &error),
                Err(_) => {
                    let silence = Error::Unavailable(format!("nothing came for {SILENCE:?}"));
                    return self.failed("a subscription fell silent, will subscribe again", &silence);
                }
            };
            if !self.place.believes(&answer) {
                self.place.failed(None);
                return Step::At((began + ONE_CALL).max(Instant::now() + self.backoff.pause()));
            }
            events += 1;
            self.backoff.reset();
            if self.hand_on(answer, ahead) {
                return Step::Done;
            }
        }
    }

    /// Room for one more event; none if nobody wants any.
    async fn room(&self, ahead: &Ahead) -> Option<Room> {
        if !ahead.room_for(self.expected).await {
            return None;
        }
        Some(self.place.source.budget.reserve(self.expected).await)
    }

    /// Whether it was the last.
    fn hand_on(&mut self, answer: Answer, ahead: &Ahead) -> bool {
        // Moves on without records too. What isn't readable as a number, with records, is behind their last.
        let last = answer.records.last().cloned();
        let on = answer.next.as_deref().and_then(SequenceNumber::parse).or(last);
        let batch = self.place.batch(answer, on, None);
        // Aggregates have grown by now.
        self.expected = batch.records.sizes().held.max(LITTLE);
        let ended = batch.end.is_some();
        let wanted = ended || !batch.records.is_empty() || self.place.source.settings.keep_empty;
        (wanted && !ahead.send(batch)) || ended
    }

    fn failed(&mut self, what: &str, error: &Error) -> Step {
        let pause = self.backoff.pause().max(ONE_CALL / 2);
        self.place.failed(None);
        if self.place.is_news() {
            warn!(shard = %self.place.shard, %error, ?pause, "{what}");
        } else {
            debug!(shard = %self.place.shard, %error, ?pause, "{what}");
        }
        Step::At(Instant::now() + pause)
    }

    fn cannot(&self, error: &Error) -> Step {
        self.consumer.give_up(error);
        Step::Poll
    }

    /// The shard, the stream or the consumer.
    async fn missing(&mut self, reason: &str, consumer: &str, ahead: &Ahead) -> Step {
        if let Some(end) = self.place.end_if_gone(reason).await {
            ahead.send(end);
            return Step::Done;
        }
        self.place.failed(None);
        self.consumer.is_missing(consumer).await;
        Step::At(Instant::now() + self.backoff.pause().max(ONE_CALL))
    }
}

#[cfg(test)]
mod tests {
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
        fn describe<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<Registered>, Error>> {
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
        let expected =
            [Start::TrimHorizon, Start::TrimHorizon, Start::TrimHorizon, after(5), after(6), after(6)];
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
}
