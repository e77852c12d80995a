//! The steps of `copy`: the leases of an application that reads one stream become those of a stream in a table of several.
//! Pure.
//!
//! Rows are created, never changed or deleted. The old table stays as it is: until a worker of the new application has
//! stored a checkpoint, the old one can continue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::lease::orders::{in_force, include};
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

/// The steps, parents first. `from` are the leases of the old table, `into` those of the new one. The order of an operator
/// for the old application stays there: that of the new one is in force, and dates leases at `LATEST` at `latest_from`.
pub fn plan(from: &[Lease], into: &[Lease], stream: &StreamIdentifier, latest_from: i64) -> Vec<Copy> {
    let there: BTreeMap<&LeaseKey, &Lease> = into.iter().map(|lease| (&lease.key, lease)).collect();
    let typed = into.is_empty() || into.iter().any(|lease| lease.typed);
    let mut steps: Vec<Copy> = from
        .iter()
        .map(|lease| {
            let mut new = Box::new(copied(lease, stream, typed));
            if let Some(order) = in_force(into) {
                include(&mut new, order, latest_from);
            }
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
        pause: None,
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

/// Why nothing is copied: a row exists with another checkpoint, or the new table has other leases of the stream. Its shards
/// would be read from elsewhere, or twice.
pub fn refusal(steps: &[Copy], into: &[Lease], stream: &StreamIdentifier) -> Option<String> {
    let copied: BTreeSet<&LeaseKey> = steps.iter().map(|step| &step.lease().key).collect();
    let is_same =
        |other: &StreamIdentifier| other.account() == stream.account() && other.name() == stream.name();
    let other = into
        .iter()
        .map(|lease| &lease.key)
        .find(|key| key.stream().is_some_and(is_same) && !copied.contains(key));
    if let Some(key) = other {
        return Some(format!("the lease {key} exists, which the other table does not have"));
    }
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
    use crate::lease::orders::Pause;
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
        let steps = plan(&from, &[], &stream, 9);
        let created: Vec<Lease> = creates(&steps).cloned().collect();
        assert_eq!(created.len(), 2);
        assert_eq!(created[0].key, "1:orders:5:shardId-0".into(), "parents first");
        assert_eq!((&created[1].owner, created[1].counter), (&None, 0));
        assert_eq!((&created[1].parents, created[1].latest_from), (&child.parents, Some(5)));
        assert_eq!(created[0].checkpoint, ended.checkpoint);

        let refused = |into: &[Lease]| refusal(&plan(&from, into, &stream, 9), into, &stream).is_some();
        let again = plan(&from, &created, &stream, 9);
        assert_eq!((creates(&again).count(), refused(&created)), (0, false), "a second run");
        let cut = plan(&from, &created[..1], &stream, 9);
        assert_eq!(creates(&cut).count(), 1, "a run that was interrupted is completed");
        let begun = Lease { checkpoint: Position::new(Sequence::TrimHorizon), ..created[1].clone() };
        assert!(refused(&[begun]));
        for key in ["1:orders:5:shardId-9", "1:orders:6:shardId-0"] {
            assert!(refused(&[Lease { key: key.into(), ..created[0].clone() }]), "{key}");
        }
        let other = Lease { key: "1:refunds:5:shardId-9".into(), ..created[0].clone() };
        assert!(!refused(&[other]), "of another stream");
    }

    #[test]
    fn order_of_the_new_application_is_in_force() {
        let stream = StreamIdentifier::parse("1:orders:5").unwrap();
        let paused = |millis: i64| Some(Pause::parse(&format!("paused {millis} operator")));
        let old =
            Lease { pause: paused(8), ..lease("shardId-0", None, Position::new(Sequence::TrimHorizon)) };
        let created =
            |into: &[Lease]| creates(&plan(std::slice::from_ref(&old), into, &stream, 9)).next().cloned();
        assert_eq!(created(&[]).unwrap().pause, None);
        let other = Lease { key: "1:refunds:5:s".into(), pause: paused(3), ..old.clone() };
        assert_eq!(created(&[other]).unwrap().pause, paused(3));
    }
}
