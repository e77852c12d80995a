//! The leases of one of several streams, as if they had a table of their own: their keys are the ids of the shards.
//!
//! Shard sync and lease cleanup are written for a table of one stream. Through this part they look after one of several.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::table::{Error, Found, Table};
use super::update::Update;
use super::{Lease, LeaseKey, WorkerId};
use crate::shard::BoxFuture;
use crate::stream::StreamIdentifier;

/// The part of a lease table that belongs to one of several streams.
#[derive(Clone)]
pub struct OfStream {
    table: Arc<dyn Table>,
    stream: StreamIdentifier,
}

impl std::fmt::Debug for OfStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The key as it is in the table.
pub fn in_table(key: &LeaseKey, stream: &StreamIdentifier) -> LeaseKey {
    LeaseKey::new(Some(stream.clone()), key.shard().clone())
}

/// The key as it would be in a table of the stream alone. None for a lease of another stream.
pub fn alone(key: &LeaseKey, stream: &StreamIdentifier) -> Option<LeaseKey> {
    (key.stream() == Some(stream)).then(|| key.shard().clone().into())
}

/// The leases of the stream.
pub fn leases(all: &[Lease], stream: &StreamIdentifier) -> Vec<Lease> {
    let of_stream = |lease: &Lease| Some(Lease { key: alone(&lease.key, stream)?, ..lease.clone() });
    all.iter().filter_map(of_stream).collect()
}

/// The keys of the stream.
pub fn keys(all: &BTreeSet<LeaseKey>, stream: &StreamIdentifier) -> BTreeSet<LeaseKey> {
    all.iter().filter_map(|key| alone(key, stream)).collect()
}

impl OfStream {
    /// The part of that stream.
    pub fn new(table: Arc<dyn Table>, stream: StreamIdentifier) -> Self {
        Self { table, stream }
    }

    fn in_table(&self, key: &LeaseKey) -> LeaseKey {
        in_table(key, &self.stream)
    }
}

/// The lease as it would be in a table of the stream alone.
fn stripped(lease: Lease) -> Lease {
    Lease { key: lease.shard().clone().into(), ..lease }
}

impl Table for OfStream {
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
        self.table.ensure()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
        Box::pin(async { Ok(leases(&self.table.list().await?, &self.stream)) })
    }

    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        Box::pin(async move { Ok(self.table.get(&self.in_table(key)).await?.map(stripped)) })
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let lease = Lease { key: self.in_table(&lease.key), ..lease.clone() };
            self.table.create(&lease).await
        })
    }

    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move { self.table.update(&self.in_table(key), update).await.map(stripped) })
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
        Box::pin(async move {
            let owned = self.table.owned(worker).await?;
            Ok(owned.iter().filter_map(|key| alone(key, &self.stream)).collect())
        })
    }

    fn index(&self, make: bool) -> BoxFuture<'_, Result<bool, Error>> {
        self.table.index(make)
    }

    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { self.table.delete(&self.in_table(key)).await })
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { self.table.forget(&self.in_table(key)).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::memory::Memory;
    use crate::lease::update;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    fn lease(key: &str) -> Lease {
        let at = Position::new(Sequence::TrimHorizon);
        Lease::new(key.into(), at, BTreeSet::from(["p".into()]), HashRange { start: 0, end: 9 })
    }

    #[tokio::test]
    async fn part_of_a_stream_is_a_table_of_its_own() {
        let rows = Arc::new(Memory::default());
        let other = lease("1:payments:5:a");
        rows.put(other.clone());
        let stream = StreamIdentifier::parse("1:orders:5").unwrap();
        let table = OfStream::new(rows.clone(), stream);
        let (alone, in_table) = (lease("a"), LeaseKey::from("1:orders:5:a"));
        assert_eq!((table.list().await, table.get(&alone.key).await), (Ok(Vec::new()), Ok(None)));
        assert_eq!(table.create(&alone).await, Ok(true));
        assert_eq!(table.create(&alone).await, Ok(false));
        assert_eq!(rows.row(&in_table), Some(lease("1:orders:5:a")));
        assert_eq!(table.list().await, Ok(vec![alone.clone()]));
        assert_eq!(table.get(&alone.key).await, Ok(Some(alone.clone())));
        let me = WorkerId::from("me");
        assert_eq!(table.update(&alone.key, &update::take(&alone, &me)).await, Ok(alone.clone()));
        rows.steal(&other.key, &me);
        assert_eq!(table.owned(&me).await, Ok(vec![alone.key.clone()]));
        let ended = update::checkpoint(&rows.row(&in_table).unwrap(), &Position::shard_end());
        table.update(&alone.key, &ended).await.unwrap();
        assert_eq!(table.delete(&alone.key).await, Ok(true));
        assert_eq!(rows.row(&in_table), None);
        assert!(
            rows.row(&other.key).is_some_and(|row| row.key == other.key),
            "the other stream is left alone"
        );
    }
}
