//! The steps of `copy`: the leases of an application that reads one stream become those of a stream in a table of several.
//! Pure.
//!
//! Rows are created, never changed or deleted. The old table stays as it is: until a worker of the new application has
//! stored a checkpoint, the old one can continue.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::lease::{Lease, LeaseKey};
use crate::stream::StreamIdentifier;

/// The copy of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// The row to create.
    Create(Box<Lease>),
    /// An equal row exists: an earlier run has created it.
    There(Box<Lease>),
    /// The row exists with another checkpoint.
    Differs {
        /// The row to create.
        new: Box<Lease>,
        /// Its checkpoint in the table.
        there: String,
    },
}

impl Copy {
    fn lease(&self) -> &Lease {
        match self {
            Self::Create(lease) | Self::There(lease) | Self::Differs { new: lease, .. } => lease,
        }
    }

    fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Create(_) => ("create", ""),
            Self::There(_) => ("none", "exists already"),
            Self::Differs { there, .. } => ("refused", there),
        }
    }
}

/// The steps, parents first. `from` are the leases of the old table, `into` those of the new one.
pub fn plan(from: &[Lease], into: &[Lease], stream: &StreamIdentifier, typed: bool) -> Vec<Copy> {
    let there: BTreeMap<&LeaseKey, &Lease> = into.iter().map(|lease| (&lease.key, lease)).collect();
    let mut steps: Vec<Copy> = from
        .iter()
        .map(|lease| {
            let new = Box::new(copied(lease, stream, typed));
            match there.get(&new.key) {
                None => Copy::Create(new),
                Some(row) if row.checkpoint == new.checkpoint => Copy::There(new),
                Some(row) => Copy::Differs { there: row.checkpoint.to_string(), new },
            }
        })
        .collect();
    // Shards are numbered in the order of their creation.
    steps.sort_by(|one, other| one.lease().key.cmp(&other.lease().key));
    steps
}

/// The lease without its owner.
fn copied(lease: &Lease, stream: &StreamIdentifier, typed: bool) -> Lease {
    Lease {
        key: LeaseKey::new(Some(stream.clone()), lease.shard().clone()),
        owner: None,
        counter: 0,
        owner_switches: 0,
        checkpoint_owner: None,
        process: None,
        throughput: None,
        typed,
        ..lease.clone()
    }
}

/// The rows to create.
pub fn creates(steps: &[Copy]) -> impl Iterator<Item = &Lease> {
    steps.iter().filter_map(|step| match step {
        Copy::Create(lease) => Some(&**lease),
        Copy::There(_) | Copy::Differs { .. } => None,
    })
}

/// The first row that exists with another checkpoint.
pub fn refusal(steps: &[Copy]) -> Option<String> {
    let differs = |step: &Copy| match step {
        Copy::Differs { new, there } => Some(format!(
            "the lease {} exists at {there}, not at {}: a worker of the new application has begun with it",
            new.key, new.checkpoint
        )),
        Copy::Create(_) | Copy::There(_) => None,
    };
    steps.iter().find_map(differs)
}

/// The plan as text.
pub fn text(steps: &[Copy]) -> String {
    let mut out = String::new();
    for step in steps {
        let ((action, note), lease) = (step.words(), step.lease());
        let _infallible = writeln!(out, "{}  {}  {action}  {note}", lease.key, lease.checkpoint);
    }
    out
}

/// The plan as JSON. `written` is the number of rows that were created, if any could be.
pub fn json(table: &str, steps: &[Copy], written: Option<usize>) -> Value {
    let steps = steps.iter().map(|step| {
        let ((action, note), lease) = (step.words(), step.lease());
        json!({"lease": lease.key.to_string(), "checkpoint": lease.checkpoint.to_string(), "action": action, "note": note})
    });
    json!({"table": table, "verb": "copy", "steps": steps.collect::<Vec<_>>(), "written": written})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    fn lease(shard: &str, parent: Option<&str>, checkpoint: Position) -> Lease {
        let parents = parent.into_iter().map(Into::into).collect::<BTreeSet<_>>();
        let lease = Lease::new(shard.into(), checkpoint, parents, HashRange { start: 0, end: 9 });
        Lease { owner: Some("java-1".into()), counter: 7, latest_from: Some(5), ..lease }
    }

    #[test]
    fn leases_are_copied_with_their_positions_and_without_their_owners() {
        let stream = StreamIdentifier::parse("1:orders:5").unwrap();
        let ended = lease("shardId-0", None, Position::shard_end());
        let child = lease("shardId-1", Some("shardId-0"), Position::new(Sequence::Latest));
        let from = [child.clone(), ended.clone()];
        let steps = plan(&from, &[], &stream, true);
        let created: Vec<Lease> = creates(&steps).cloned().collect();
        assert_eq!(created.len(), 2);
        assert_eq!(created[0].key, "1:orders:5:shardId-0".into(), "parents first");
        assert_eq!((&created[1].owner, created[1].counter), (&None, 0));
        assert_eq!((&created[1].parents, created[1].latest_from), (&child.parents, Some(5)));
        assert_eq!(created[0].checkpoint, ended.checkpoint);

        let again = plan(&from, &created, &stream, true);
        assert_eq!((creates(&again).count(), refusal(&again)), (0, None), "a second run");
        let cut = plan(&from, &created[..1], &stream, true);
        assert_eq!(creates(&cut).count(), 1, "a run that was interrupted is completed");
        let begun = Lease { checkpoint: Position::new(Sequence::TrimHorizon), ..created[1].clone() };
        let refused = plan(&from, &[begun], &stream, true);
        assert!(refusal(&refused).is_some());
    }
}
