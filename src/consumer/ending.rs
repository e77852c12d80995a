//! What a shard's beginning and end have to do with the leases of its relatives.
//!
//! A shard starts only after all its parents ended; the leases of its children exist before its own
//! says `SHARD_END`, so that nobody can come between. In KCL: `BlockOnParentShardTask`,
//! `ShutdownTask`.

use std::collections::BTreeSet;

use crate::lease::{self, Held, Table, held, table};
use crate::shard::{ChildShard, ShardId};

use super::event::EndError;

/// Whether every parent is finished. A parent without a row was cleaned up, or never read here.
///
/// # Errors
/// The table couldn't be asked.
pub async fn parents_finished(table: &dyn Table, parents: &BTreeSet<ShardId>) -> Result<bool, String> {
    for parent in parents {
        match table.get(parent).await {
            Ok(Some(lease)) if !lease.is_complete() => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(true)
}

/// Makes the leases of a shard's children and notes them in the shard's own row. Safe to repeat.
///
/// # Errors
/// [`EndError::Lost`] if the lease is somebody else's; else try again.
pub async fn prepare(table: &dyn Table, held: &Held, children: &[ChildShard]) -> Result<(), EndError> {
    if children.is_empty() {
        return Ok(());
    }
    for child in children {
        if child.parents.len() > 1 {
            both_or_none(table, child).await?;
        }
    }
    for mut lease in lease::sync::plan_children(children) {
        lease.typed = held.initial().typed;
        let made = table.create(&lease).await.map_err(not_now)?;
        tracing::info!(shard = %held.shard(), child = %lease.shard, made, "the shard ended: lease of its child");
    }
    let ids = children.iter().map(|child| child.id.clone()).collect();
    held.set_children(&ids).await.map_err(|error| match error {
        held::Error::Lost => EndError::Lost,
        error @ (held::Error::Table(_) | held::Error::Behind(_)) => EndError::NotNow(error.to_string()),
    })
}

/// A merged shard's lease names both parents: making it while one of them isn't known yet would let
/// the child start before that parent was read. If the other never had a lease, its hash keys are a hole
/// that the audit fills.
async fn both_or_none(table: &dyn Table, child: &ChildShard) -> Result<(), EndError> {
    if table.get(&child.id).await.map_err(not_now)?.is_some() {
        return Ok(());
    }
    let mut known = 0;
    for parent in &child.parents {
        known += usize::from(table.get(parent).await.map_err(not_now)?.is_some());
    }
    if known == 0 || known == child.parents.len() {
        return Ok(());
    }
    Err(EndError::NotNow(format!("of the parents of {}, only some have a lease", child.id)))
}

fn not_now(error: table::Error) -> EndError {
    EndError::NotNow(error.to_string())
}
