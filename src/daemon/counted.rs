//! The ports to the lease table and to the stream's shards, with each request noted: how long it took, and whether
//! the service responds.

use std::sync::Arc;

use tokio::time::Instant;

use crate::lease::table::{Error, Found};
use crate::lease::update::{Change, Update};
use crate::lease::{Lease, LeaseKey, Table, WorkerId};
use crate::metrics::{OfWorker, Sink, Step};
use crate::reach::Reach;
use crate::sequence::SequenceNumber;
use crate::shard::{self, BoxFuture, Filter, Shard, ShardId};
use crate::stream::StreamId;

/// Reports each request to a sink.
pub(super) struct Counted {
    pub(super) table: Arc<dyn Table>,
    pub(super) sink: Arc<dyn Sink>,
    /// Whether DynamoDB can be reached.
    pub(super) reach: Arc<Reach>,
}

impl Counted {
    async fn did<T>(&self, step: Option<Step>, request: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
        let began = Instant::now();
        let outcome = request.await;
        self.note(&outcome);
        if let Some(step) = step {
            self.sink.worker(OfWorker::Did { step, took: began.elapsed(), ok: outcome.is_ok() });
        }
        outcome
    }

    fn note<T>(&self, outcome: &Result<T, Error>) {
        let now = Instant::now();
        match outcome {
            Err(error) if error.is_unanswered() => self.reach.failed(now, error),
            Ok(_) | Err(_) => self.reach.answered(now),
        }
    }
}

/// Notes whether Kinesis answers the calls about shards.
pub(super) struct Noted {
    pub(super) shards: Arc<dyn shard::Api>,
    /// Whether Kinesis can be reached.
    pub(super) reach: Arc<Reach>,
}

impl Noted {
    async fn note<T>(&self, call: BoxFuture<'_, Result<T, shard::Error>>) -> Result<T, shard::Error> {
        let outcome = call.await;
        let now = Instant::now();
        match &outcome {
            Err(error @ shard::Error::Unavailable(_)) => self.reach.failed(now, error),
            Ok(_) | Err(_) => self.reach.answered(now),
        }
        outcome
    }
}

impl shard::Api for Noted {
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(self.note(self.shards.list(filter)))
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(self.note(self.shards.identity()))
    }

    fn has_number<'a>(
        &'a self,
        shard: &'a ShardId,
        number: &'a SequenceNumber,
    ) -> BoxFuture<'a, Result<bool, shard::Error>> {
        Box::pin(self.note(self.shards.has_number(shard, number)))
    }
}

/// The metrics step of a write; none for writes that are not counted, or counted by their caller.
fn step(update: &Update) -> Option<Step> {
    let has = |wanted: fn(&Change) -> bool| update.changes.iter().any(wanted);
    if has(|change| matches!(change, Change::SetOwner(_)))
        && has(|change| matches!(change, Change::SetCounter(_)))
    {
        return Some(Step::Take);
    }
    let counts = |change: &Change| matches!(change, Change::SetCounter(_) | Change::SetThroughput(_));
    let renews = has(|change| matches!(change, Change::SetCounter(_))) && update.changes.iter().all(counts);
    renews.then_some(Step::Renew)
}

fn begins(lease: &Lease) -> &'static str {
    lease.checkpoint.sequence.sentinel().unwrap_or("SEQUENCE_NUMBER")
}

impl Table for Counted {
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
        Box::pin(self.did(None, self.table.ensure()))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
        Box::pin(self.did(Some(Step::List), self.table.list()))
    }

    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        Box::pin(self.did(None, self.table.get(key)))
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.did(Some(Step::Create { at: begins(lease) }), self.table.create(lease)))
    }

    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(self.did(step(update), self.table.update(key, update)))
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
        Box::pin(self.did(Some(Step::Discover), self.table.owned(worker)))
    }

    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.did(None, self.table.index(make)))
    }

    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.did(None, self.table.delete(key)))
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.did(None, self.table.forget(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::update::{self, Next};
    use std::collections::BTreeSet;

    use crate::sequence::Position;
    use crate::shard::HashRange;

    #[test]
    fn writes_are_counted_by_step() {
        let range = HashRange { start: 0, end: 9 };
        let lease = Lease::new("s".into(), Position::shard_end(), BTreeSet::new(), range);
        assert_eq!(step(&update::renew(&lease)), Some(Step::Renew));
        assert_eq!(step(&update::take(&lease, &"w".into())), Some(Step::Take));
        assert_eq!(step(&update::checkpoint(&lease, &Position::shard_end())), None);
        assert_eq!(step(&update::release(&lease, &Next::Nobody)), None);
        assert_eq!(step(&update::release(&lease, &Next::Worker("w".into()))), None);
    }
    /// Answers each call with the same error.
    struct Failing(shard::Error);

    impl shard::Api for Failing {
        fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
            Box::pin(async { Err(self.0.clone()) })
        }

        fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
            Box::pin(async { Err(self.0.clone()) })
        }
    }

    #[tokio::test]
    async fn rejected_call_ends_an_outage_that_no_shard_read_would_end() {
        let reach: Arc<Reach> = Arc::default();
        let after = async |error: fn(String) -> shard::Error| {
            let shards = Arc::new(Failing(error(String::new())));
            let noted = Noted { shards, reach: reach.clone() };
            assert!(shard::Api::list(&noted, Filter::All).await.is_err());
            reach.is_silent(Instant::now())
        };
        assert!(after(shard::Error::Unavailable).await);
        assert!(!after(shard::Error::Throttled).await);
        assert!(after(shard::Error::Unavailable).await);
        assert!(!after(shard::Error::Denied).await);
    }
}
