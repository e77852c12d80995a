//! Rows and their owner, for the tests of the leases of parents and children.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::lease::held::Owner;
use crate::lease::memory::Memory;
use crate::lease::{Lease, ProcessId, WorkerId};
use crate::recognition::Recognition;
use crate::sequence::{Position, Sequence};
use crate::shard::{HashRange, Listed};
use crate::stream::ByStream;

pub(in crate::consumer) fn lease(
    shard: &str,
    checkpoint: Sequence,
    parents: &[&str],
    owner: Option<&WorkerId>,
) -> Lease {
    let parents = parents.iter().map(|parent| (*parent).into()).collect();
    let range = HashRange { start: 0, end: 9 };
    Lease { owner: owner.cloned(), ..Lease::new(shard.into(), Position::new(checkpoint), parents, range) }
}

pub(in crate::consumer) fn recognition(owner: &Owner) -> Arc<Recognition> {
    owner.recognitions.get(None).unwrap().clone()
}

pub(in crate::consumer) fn owner(table: &Arc<Memory>) -> Owner {
    Owner {
        me: "me".into(),
        table: table.clone(),
        failover: Duration::from_secs(10),
        nudged: Arc::default(),
        process: ProcessId::new(5, "one", &"me".into()),
        rivals: mpsc::channel(1).0,
        recognitions: ByStream::One(Recognition::new(Arc::new(Listed::default()))),
    }
}
