//! The port of enhanced fan-out: the consumers of a stream, and subscriptions to its shards.

use super::port::{Answer, Error, Start};
use crate::budget::Reservation;
use crate::shard::{BoxFuture, ShardId};

/// Subscribes to shards of one stream, and finds and registers its consumers.
pub trait Api: Send + Sync {
    /// The stream's ARN, of `DescribeStreamSummary`.
    fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>>;

    /// `DescribeStreamConsumer`; none if the consumer does not exist.
    fn describe<'a>(
        &'a self,
        stream_arn: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Registered>, Error>>;

    /// `RegisterStreamConsumer`; [`Error::Taken`] if a consumer of that name exists.
    fn register<'a>(&'a self, stream_arn: &'a str, name: &'a str)
    -> BoxFuture<'a, Result<Registered, Error>>;

    /// `SubscribeToShard`, for the consumer with that ARN.
    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        shard: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>>;
}

/// An open subscription. Dropping it closes it.
pub trait Subscription: Send {
    /// The next event, whose `next` is a sequence number; none when Kinesis has closed the subscription. The
    /// event uses the reservation `room`, or the part that it needs. The part of an event received before a
    /// cancelled call is kept.
    fn next(&mut self, room: Reservation) -> BoxFuture<'_, Result<Option<Answer>, Error>>;
}

/// A consumer as Kinesis describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The consumer's ARN.
    pub arn: String,
    /// Whether the consumer can subscribe.
    pub status: Status,
}

/// `ConsumerStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The consumer cannot subscribe yet.
    Creating,
    /// The consumer can subscribe.
    Active,
    /// The consumer is being deleted.
    Deleting,
}
