//! The leases of a shard's children, at its end: they exist before its own row becomes `SHARD_END`, so that no worker can
//! interfere. In KCL: `ShutdownTask`.

use crate::lease::orders::Pause;
use crate::lease::{self, Held, Lease, LeaseKey, Table, held, origin, table, update};
use crate::recognition::Recognition;
use crate::shard::ChildShard;

use super::event::EndError;

/// Creates the leases of a shard's children and stores their ids in the shard's own row. Idempotent.
///
/// # Errors
/// [`EndError::Lost`] if another worker owns the lease; otherwise retry.
pub async fn prepare(
    table: &dyn Table,
    held: &Held,
    children: &[ChildShard],
    recognition: &Recognition,
) -> Result<(), EndError> {
    if children.is_empty() {
        return Ok(());
    }
    for child in children {
        if child.parents.len() > 1 {
            both_or_none(table, held.key(), child, recognition).await?;
        }
    }
    // A pause of the application includes new leases.
    let pause = held.pause().await.filter(Pause::is_on);
    for mut lease in lease::sync::plan_children(held.key(), children) {
        lease.pause.clone_from(&pause);
        lease.typed = held.initial().typed;
        lease.stream = recognition.current();
        let made = table.create(&lease).await.map_err(not_now)?;
        if made {
            tracing::info!(event = "child_lease_created", child_shard = %lease.key,
                "created the lease of a child shard");
        } else {
            tracing::debug!(child_shard = %lease.key, "the lease of a child shard exists already");
            begin_again_if_earlier(table, lease, recognition).await?;
        }
    }
    let ids = children.iter().map(|child| child.id.clone()).collect();
    held.set_children(&ids).await.map_err(|error| match error {
        held::Error::Lost => EndError::Lost,
        error @ (held::Error::Table(_) | held::Error::Behind(_)) => EndError::NotNow(error.to_string()),
    })
}

/// Resets a child's row that existed before its parent ended, if it belongs to an earlier stream of that
/// name, or is finished although the child shard is open: the child is then read from its oldest record.
async fn begin_again_if_earlier(
    table: &dyn Table,
    planned: Lease,
    recognition: &Recognition,
) -> Result<(), EndError> {
    let current = recognition.current();
    let Some(row) = table.get(&planned.key).await.map_err(not_now)? else { return Ok(()) };
    let Some(range) = planned.range else { return Ok(()) };
    let earlier = origin::is_of_an_earlier_stream(&row, current.as_ref());
    let begins_again = earlier || row.is_complete() && recognition.is_open(row.shard()).await;
    if !begins_again {
        return Ok(());
    }
    tracing::warn!(
        event = "child_lease_reset",
        child_shard = %row.key, old_checkpoint = %row.checkpoint,
        "the lease of a child shard existed before its parent ended: reset it to TRIM_HORIZON"
    );
    match table.update(&row.key, &update::reset(&row, planned.parents, range, current.as_ref())).await {
        Ok(_) | Err(table::Error::Conflict(_)) => Ok(()),
        Err(error) => Err(not_now(error)),
    }
}

/// Delays the lease of a merged shard until both parents are known. It names both of them: created while one
/// is unknown, the child would start before that parent was read. If the other parent never had a lease, its
/// hash keys are a hole, which the audit fills.
async fn both_or_none(
    table: &dyn Table,
    parent: &LeaseKey,
    child: &ChildShard,
    recognition: &Recognition,
) -> Result<(), EndError> {
    // Rows of an earlier stream are ignored.
    let is_current = |row: &Lease| recognition.accepts(row.stream.as_ref());
    let row = table.get(&parent.relative(&child.id)).await.map_err(not_now)?.filter(is_current);
    if let Some(row) = row
        && (!row.is_complete() || !recognition.is_open(&child.id).await)
    {
        return Ok(());
    }
    let mut known = 0;
    for id in &child.parents {
        let row = table.get(&parent.relative(id)).await.map_err(not_now)?;
        known += usize::from(row.is_some_and(|row| is_current(&row)));
    }
    if known == 0 || known == child.parents.len() {
        return Ok(());
    }
    Err(EndError::NotNow(format!("only some parents of {} have a lease", child.id)))
}

fn not_now(error: table::Error) -> EndError {
    EndError::NotNow(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::consumer::parents::test_rows::{lease, owner, recognition};
    use crate::lease::memory::Memory;
    use crate::lease::{Lease, WorkerId};
    use crate::sequence::Sequence;
    use crate::shard::{HashRange, Listed};

    #[tokio::test(start_paused = true)]
    async fn child_leases_of_a_paused_application_are_paused() {
        let (table, me) = (Arc::new(Memory::default()), WorkerId::from("me"));
        let owner = owner(&table);
        let order = Pause::new(true, 5, "ann");
        let row = Lease { pause: Some(order.clone()), ..lease("p", Sequence::TrimHorizon, &[], Some(&me)) };
        table.put(row.clone());
        let held = Held::new(row, Instant::now(), crate::clock::slept(), &owner);
        let child =
            ChildShard { id: "c".into(), parents: vec!["p".into()], range: HashRange { start: 0, end: 9 } };
        assert_eq!(prepare(&*table, &held, &[child], &recognition(&owner)).await, Ok(()));
        assert_eq!(table.row(&"c".into()).unwrap().pause, Some(order));
    }

    #[tokio::test(start_paused = true)]
    async fn finished_child_does_not_delay_its_parents_end() {
        let table = Memory::default();
        table.put(lease("p", Sequence::TrimHorizon, &[], None));
        let child = ChildShard {
            id: "c".into(),
            parents: vec!["p".into(), "q".into()],
            range: HashRange { start: 0, end: 9 },
        };
        let recognition = Recognition::new(Arc::new(Listed::default()));
        let without = both_or_none(&table, &"p".into(), &child, &recognition).await;
        assert!(matches!(without, Err(EndError::NotNow(_))), "{without:?}");
        table.put(lease("c", Sequence::ShardEnd, &["p", "q"], None));
        assert_eq!(
            both_or_none(&table, &"p".into(), &child, &recognition).await,
            Ok(()),
            "q was cleaned away"
        );
    }
}
