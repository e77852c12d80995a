//! Enhanced fan-out: SubscribeToShard for a registered consumer, from a position to the end of the shard.
//!
//! A subscription lasts five minutes and is renewed at its last position. Events that were not delivered to
//! the child yet stay in the queue. While a child is slow no event is read, and after a while the
//! subscription is dropped: otherwise everything that Kinesis sends until then would be held in this process.
//! In KCL: `FanOutRecordsPublisher`. Different on purpose: "not found" ends a shard only if `ListShards`
//! agrees (the consumer may be missing instead); a closed shard whose subscription does not end is polled to
//! its end (npm's kinesis-local never ends one); pauses after failures grow; and a connection on which
//! nothing arrives, not even the empty events of an idle shard, is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info};

use super::closed::QUIET;
use super::failing::Kind;
use super::place::{LITTLE, MAX_PAUSE, Place, SHOWN};
use super::port::{Answer, Error};
use super::push::Subscription;
use super::queue::Ahead;
use super::registration::StreamConsumer;
use crate::backoff::Backoff;
use crate::budget::Reservation;
use crate::metrics::OfShard;
use crate::sequence::SequenceNumber;

/// Kinesis accepts one call per second, consumer and shard.
const ONE_CALL: Duration = Duration::from_secs(1);
/// Another subscription that took the shard over cannot be replaced for five seconds. If it belongs to the
/// lease's new owner, this worker has lost the lease by then.
const TAKEN_OVER: Duration = Duration::from_secs(6);
/// Timeout for the next event: Kinesis sends an event without records every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a subscription is kept while the child is slow. Its events fill the window of the connection, and
/// other subscriptions on that connection must not be silent for so long that they are taken for broken.
const STALL: Duration = Duration::from_secs(10);
/// Interval between checks for a consumer that is not available yet.
const CONSUMER: Duration = Duration::from_secs(10);

pub(super) struct Fanout {
    place: Place,
    consumer: Arc<StreamConsumer>,
    backoff: Backoff,
    /// Bytes of the last event, as the estimate for the next one.
    expected: usize,
    /// Whether the last event was at the tip.
    at_tip: bool,
    /// Whether a subscription was silent from its start and no event came since.
    silent: bool,
}

enum Step {
    /// The end of the shard was delivered, or the shard consumer is gone.
    Done,
    At(Instant),
    /// The endpoint does not support fan-out, or does not report the end of this shard.
    Poll,
}

impl Fanout {
    pub(super) fn new(place: Place, consumer: Arc<StreamConsumer>) -> Self {
        let backoff = Backoff::new(place.source.settings.retry, MAX_PAUSE, fastrand::Rng::new());
        Self { place, consumer, backoff, expected: LITTLE, at_tip: false, silent: false }
    }

    /// Runs until the end of the shard was delivered or the shard consumer is gone. Returns the place from which to
    /// poll if the endpoint has no fan-out or the subscription does not report the end.
    pub(super) async fn run(mut self, ahead: &Ahead) -> Option<Place> {
        let mut next = Instant::now();
        // As before each event: a subscription that was dropped for lack of room is opened again when there
        // is room.
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
        let asked = self.place.source.clock.past();
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
                    debug!(
                        event = "subscription_expired",
                        "the subscription expired after five minutes, subscribing again"
                    );
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
                    // With more records to come a broken connection is likelier, unless the next one is
                    // silent too.
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

    /// Whether the shard is closed by `ListShards` and nothing came since. `GetRecords` then
    /// reads the rest, even if that is only the end.
    async fn ends_unsaid(&self, since: Instant) -> bool {
        let Place { source, shard, .. } = &self.place;
        let ends = since.elapsed() >= QUIET && source.closed.has(shard, since, &*source.shards).await;
        if ends {
            info!(
                event = "closed_subscription_left",
                "the shard is closed but its subscription does not end: polling the rest of the shard"
            );
        }
        ends
    }

    /// Memory for one more event; none if the shard consumer is gone.
    async fn room(&self, ahead: &Ahead) -> Option<Reservation> {
        // At the tip the next event may take long to come.
        let expected = if self.at_tip { LITTLE } else { self.expected };
        if !ahead.room_for(expected).await {
            return None;
        }
        let Place { source, shard, .. } = &self.place;
        let mut room = std::pin::pin!(source.budget.reserve_for(expected, ahead.awaited()));
        if let Ok(room) = timeout(SHOWN, &mut room).await {
            return Some(room);
        }
        // Reported until an event has come, even if the subscription is dropped meanwhile.
        source.sink.shard(shard, OfShard::WaitsForRoom(true));
        let room = room.await;
        source.sink.shard(shard, OfShard::WaitsForRoom(false));
        Some(room)
    }

    /// Sends an answer to the shard consumer. Returns whether it was the last one.
    fn hand_on(&mut self, answer: Answer, ahead: &Ahead) -> bool {
        // The position advances without records too. If it is no number, the position is the last record.
        let last = answer.records.last().cloned();
        let on = answer.next.as_deref().and_then(SequenceNumber::parse).or(last);
        let batch = self.place.batch(answer, on, None);
        // Aggregates have been expanded by now.
        self.expected = batch.records.sizes().held.max(LITTLE);
        let ended = batch.end.is_some();
        let wanted = ended || !batch.records.is_empty() || self.place.source.settings.keep_empty;
        (wanted && !ahead.send(batch)) || ended
    }

    /// The ARN of the consumer. Other shards wait here while one of them finds or registers it.
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

    /// Handles "not found", which can mean the shard, the stream or the consumer.
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
