//! Whether the parents of a shard have ended, so that it may start. The state of the shard asks again until they have:
//! `Phase::Waiting`.
//!
//! The row of a parent says `SHARD_END` once it was processed, and is deleted once its children have begun. In KCL:
//! `BlockOnParentShardTask`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lease::{Held, Lease, LeaseKey, Table, held};
use crate::recognition::{Identity, Recognition};
use crate::shard::ShardId;

#[cfg(test)]
pub(super) mod test_rows;

/// A lease whose ownership was confirmed within this time is not confirmed again.
const FRESH: Duration = Duration::from_secs(1);

/// Whether a parent with this row is finished. One without a row was cleaned up, or never read here. One that was
/// finished in an earlier stream of this name is processed again.
fn is_finished(row: Option<&Lease>, identity: &Identity) -> bool {
    row.is_none_or(|row| row.is_complete() && identity.accepts(row.stream.as_ref()))
}

/// Whether all parents of the shard with that lease are finished.
///
/// # Errors
/// The table could not be read.
async fn are_finished(
    table: &dyn Table,
    key: &LeaseKey,
    parents: &BTreeSet<ShardId>,
    recognition: &Recognition,
) -> Result<bool, String> {
    for parent in parents {
        let row = table.get(&key.relative(parent)).await;
        let row = row.map_err(|error| format!("failed to read the lease of its parent {parent}: {error}"))?;
        if !is_finished(row.as_ref(), &recognition.identity()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the parents are finished, and the lease is still owned after the wait for them: a worker that lost
/// it meanwhile learns so only from its next write, and would start a child beside the new owner's.
///
/// # Errors
/// The table could not be read.
pub async fn may_begin(table: &dyn Table, held: &Held, recognition: &Recognition) -> Result<bool, String> {
    // Of a recreated stream, the row may have got other parents since.
    let finished = are_finished(table, held.key(), &held.parents().await, recognition).await?;
    if !finished || held.proven().elapsed() < FRESH {
        return Ok(finished);
    }
    match held.renew().await {
        Ok(()) => Ok(true),
        Err(held::Error::Lost) => Ok(false),
        Err(error) => Err(format!("failed to renew the lease first: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::consumer::parents::test_rows::{lease, owner, recognition};
    use crate::lease::WorkerId;
    use crate::lease::memory::Memory;
    use crate::sequence::Sequence;
    use crate::stream::StreamId;

    #[test]
    fn parent_blocks_until_its_row_says_so_for_this_stream() {
        let stream =
            |created| Some(StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/s", created));
        let identity = Identity::new(stream(5), BTreeSet::new());
        let row = |at, mark| Lease { stream: mark, ..lease("parent", at, &[], None) };
        assert!(is_finished(None, &identity), "cleaned up");
        for (at, mark, finished) in [
            (Sequence::TrimHorizon, stream(5), false),
            (Sequence::ShardEnd, stream(5), true),
            (Sequence::ShardEnd, None, true),
            (Sequence::ShardEnd, stream(4), false),
        ] {
            assert_eq!(
                is_finished(Some(&row(at.clone(), mark.clone())), &identity),
                finished,
                "{at:?} {mark:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shard_starts_after_its_parents_only_if_still_owned() {
        let (table, me) = (Arc::new(Memory::default()), WorkerId::from("me"));
        let row = lease("child", Sequence::TrimHorizon, &["parent"], Some(&me));
        table.put(row.clone());
        table.put(lease("parent", Sequence::TrimHorizon, &[], None));
        let owner = owner(&table);
        let recognition = recognition(&owner);
        let held = Held::new(row, Instant::now(), crate::clock::slept(), &owner);
        assert_eq!(may_begin(&*table, &held, &recognition).await, Ok(false), "the parent isn't finished");
        table.put(lease("parent", Sequence::ShardEnd, &[], None));
        let writes = table.writes();
        assert_eq!(may_begin(&*table, &held, &recognition).await, Ok(true));
        assert_eq!(table.writes(), writes, "it was just taken");

        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(may_begin(&*table, &held, &recognition).await, Ok(true));
        assert_eq!(table.row(held.key()).unwrap().counter, 1, "renewed first");
        tokio::time::advance(Duration::from_secs(2)).await;
        table.steal(held.key(), &"thief".into());
        assert_eq!(may_begin(&*table, &held, &recognition).await, Ok(false));
        assert!(held.lost().is_cancelled());
    }
}
