//! SubscribeToShard: records pushed to a registered consumer, from a position to the end of the shard.
//!
//! A subscription lasts five minutes and is opened again where it stood; what was pushed but not handed to the
//! child stays in the queue. While a child is slow nothing is read, and after a while the subscription is left:
//! what Kinesis has sent by then would lie in this process. In KCL: `FanOutRecordsPublisher`. Different on
//! purpose: "not found" ends a shard only if `ListShards` agrees (it may be the consumer that is missing);
//! a closed shard whose subscription doesn't end is polled to its end (npm's kinesis-local never ends one);
//! failures are followed by pauses that grow; a connection on which nothing comes, not even the empty events of
//! an idle shard, is given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info};

use super::closed::QUIET;
use super::failing::Kind;
use super::place::Place;
use super::queue::Ahead;
use super::registration::{Registered, StreamConsumer};
use super::{Answer, Error, Start};
use crate::backoff::Backoff;
use crate::budget::Reservation;
use crate::metrics::OfShard;
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
/// Between two looks at a consumer that is waited for.
const CONSUMER: Duration = Duration::from_secs(10);
/// Room for an event without records.
/// A wait for room is shown after so long.
const SHOWN: Duration = Duration::from_secs(1);
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
    fn next(&mut self, room: Reservation) -> BoxFuture<'_, Result<Option<Answer>, Error>>;
}

pub(super) struct Fanout {
    place: Place,
    consumer: Arc<StreamConsumer>,
    backoff: Backoff,
    /// Bytes of the last event.
    expected: usize,
    /// Whether that stood at the tip.
    at_tip: bool,
    /// A subscription was silent from its beginning, and no event came since.
    silent: bool,
}

enum Step {
    /// The end of the shard was handed on, or nobody wants more.
    Done,
    At(Instant),
    /// This endpoint can't, or doesn't say the end of this shard.
    Poll,
}

impl Fanout {
    pub(super) fn new(place: Place, consumer: Arc<StreamConsumer>) -> Self {
        let backoff = Backoff::new(place.source.settings.retry, MAX_PAUSE, fastrand::Rng::new());
        Self { place, consumer, backoff, expected: LITTLE, at_tip: false, silent: false }
    }

    /// Ends after the batch that ends the shard, or when nobody wants batches any more; or with the place from
    /// which to poll, where there is no fan-out or nothing more comes of it.
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
        let consumer = match self.consumer_arn().await {
            Ok(arn) => arn,
            Err(error @ Error::Unsupported(_)) => return self.cannot(&error),
            Err(error) => {
                return self
                    .failed("failed to find or register the enhanced fan-out consumer, retrying", &error);
            }
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
                debug!(%start, "subscribed to the shard");
                self.listen(subscription, &consumer, began, ahead).await
            }
            Err(error @ Error::Unsupported(_)) => self.cannot(&error),
            Err(error @ Error::Taken(_)) => {
                self.place.failed(Kind::Usual, None, "failed to subscribe to the shard, retrying", &error);
                Step::At(Instant::now() + ONE_CALL + Duration::from_millis(fastrand::u64(0..200)))
            }
            Err(Error::ShardMissing(reason)) => self.missing(&reason, &consumer, ahead).await,
            Err(error) => {
                if let Error::Denied(_) = error {
                    self.place.suspect_another_stream(&error).await;
                }
                self.failed("failed to subscribe to the shard, retrying", &error)
            }
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
        let mut last = Instant::now();
        loop {
            let Ok(room) = timeout(STALL, self.room(ahead)).await else {
                debug!("cancelled the subscription until the record processor catches up");
                return Step::At(began + ONE_CALL);
            };
            let Some(room) = room else { return Step::Done };
            let answer = match timeout_at(Instant::now() + SILENCE, subscription.next(room)).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) if events > 0 => {
                    debug!("the subscription expired after five minutes, subscribing again");
                    return Step::At(began + ONE_CALL);
                }
                Ok(Ok(None)) => {
                    let error = "the subscription ended before its first event";
                    self.place.failed(
                        Kind::Usual,
                        None,
                        "subscription was interrupted, subscribing again",
                        &error,
                    );
                    return Step::At((began + ONE_CALL).max(Instant::now() + self.backoff.pause()));
                }
                Ok(Err(error @ Error::Taken(_))) => {
                    self.place.failed(
                        Kind::Usual,
                        None,
                        "another worker took over the subscription, retrying",
                        &error,
                    );
                    return Step::At(Instant::now() + TAKEN_OVER);
                }
                Ok(Err(Error::ShardMissing(reason))) => return self.missing(&reason, consumer, ahead).await,
                Ok(Err(error)) => {
                    return self.failed("subscription was interrupted, subscribing again", &error);
                }
                Err(_) => {
                    // With more to come a connection that hangs is likelier, if not another after it too.
                    let again = events == 0 && self.silent;
                    self.silent |= events == 0;
                    if (self.at_tip || again) && self.ends_unsaid(last).await {
                        return Step::Poll;
                    }
                    let silence = Error::Unavailable(format!("no event for {SILENCE:?}"));
                    return self.failed("subscription delivers no events, subscribing again", &silence);
                }
            };
            if !self.place.believes(&answer) {
                return Step::At((began + ONE_CALL).max(Instant::now() + self.backoff.pause()));
            }
            events += 1;
            self.backoff.reset();
            self.silent = false;
            self.at_tip = answer.millis_behind_latest.is_none_or(|behind| behind <= 0);
            let is_quiet = answer.records.is_empty() && self.at_tip;
            if !is_quiet {
                last = Instant::now();
            }
            if self.hand_on(answer, ahead) {
                return Step::Done;
            }
            if is_quiet && self.ends_unsaid(last).await {
                return Step::Poll;
            }
        }
    }

    /// Whether there is nothing more to come, as far as `ListShards` knows, and there was nothing since then. What the
    /// subscription left out, be it the end alone, is read by `GetRecords`.
    async fn ends_unsaid(&self, since: Instant) -> bool {
        let Place { source, shard, .. } = &self.place;
        let ends = since.elapsed() >= QUIET && source.closed.has(shard, since, &*source.shards).await;
        if ends {
            info!("the shard is closed but its subscription does not end: polling the rest of the shard");
        }
        ends
    }

    /// Room for one more event; none if nobody wants any.
    async fn room(&self, ahead: &Ahead) -> Option<Reservation> {
        // At the tip the next event may be long in coming.
        let expected = if self.at_tip { LITTLE } else { self.expected };
        if !ahead.room_for(expected).await {
            return None;
        }
        let Place { source, shard, .. } = &self.place;
        let mut room = std::pin::pin!(source.budget.reserve_for(expected, ahead.awaited()));
        if let Ok(room) = timeout(SHOWN, &mut room).await {
            return Some(room);
        }
        // Shown until an event has come, also if the subscription is left meanwhile.
        source.sink.shard(shard, OfShard::WaitsForRoom(true));
        let room = room.await;
        source.sink.shard(shard, OfShard::WaitsForRoom(false));
        Some(room)
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

    /// Shards wait here while one of them looks for the consumer, or registers it.
    async fn consumer_arn(&mut self) -> Result<String, Error> {
        let consumer = self.consumer.clone();
        let mut arn = std::pin::pin!(consumer.arn());
        loop {
            match timeout(CONSUMER, &mut arn).await {
                Ok(found) => return found,
                Err(_) => {
                    let error = "the consumer is not registered and ACTIVE yet";
                    self.place.failed(
                        Kind::Usual,
                        None,
                        "waiting for the enhanced fan-out consumer to become ACTIVE",
                        &error,
                    );
                }
            }
        }
    }

    fn failed(&mut self, what: &'static str, error: &Error) -> Step {
        self.place.failed(Kind::of(error), None, what, error);
        Step::At(Instant::now() + self.backoff.pause().max(ONE_CALL / 2))
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
        self.place.failed(Kind::Logged, None, "failed to subscribe to the shard, retrying", &reason);
        self.consumer.is_missing(consumer).await;
        Step::At(Instant::now() + self.backoff.pause().max(ONE_CALL))
    }
}

#[cfg(test)]
#[path = "fanout_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "fanout_tests.rs"]
pub(super) mod tests;
