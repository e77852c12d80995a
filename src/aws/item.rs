//! Lease rows as DynamoDB items. The attributes' names stand here and nowhere else.
//!
//! In KCL: `DynamoDBLeaseSerializer`.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::lease::{Lease, ProcessId, Throughput};
use crate::sequence::{Position, Sequence};
use crate::shard::{HashRange, ShardId};
use crate::stream::StreamId;

pub(super) const KEY: &str = "leaseKey";
pub(super) const OWNER: &str = "leaseOwner";
pub(super) const COUNTER: &str = "leaseCounter";
pub(super) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const CHECKPOINT_SUB: &str = "checkpointSubSequenceNumber";
pub(super) const PENDING: &str = "pendingCheckpoint";
pub(super) const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
pub(super) const PENDING_STATE: &str = "pendingCheckpointState";
pub(super) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(super) const PARENTS: &str = "parentShardId";
pub(super) const CHILDREN: &str = "childShardIds";
pub(super) const RANGE_START: &str = "startingHashKey";
pub(super) const RANGE_END: &str = "endingHashKey";
pub(super) const THROUGHPUT: &str = "throughputKBps";
/// Attributes of our own, which every version of KCL preserves.
pub(super) const STREAM: &str = "multilangdStream";
pub(super) const PROCESS: &str = "multilangdProcess";
pub(super) const EARLIER: &str = "multilangdEarlierCheckpoint";
pub(super) const ENTITY: &str = "entityType";
/// The value of [`ENTITY`] on a lease. Other rows share the table since KCL 3.5.
pub(super) const LEASE: &str = "LEASE";

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(super) fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn ids(ids: &BTreeSet<ShardId>) -> AttributeValue {
    AttributeValue::Ss(ids.iter().map(ToString::to_string).collect())
}

/// A new row, as KCL 3.5 writes it; without a type as earlier versions do.
pub(super) fn new_row(lease: &Lease) -> Item {
    let mut item = Item::from([
        (KEY.to_owned(), text(lease.shard.as_str())),
        (COUNTER.to_owned(), number(lease.counter)),
        (OWNER_SWITCHES.to_owned(), number(lease.owner_switches)),
        (CHECKPOINT.to_owned(), text(lease.checkpoint.sequence.as_str())),
        (CHECKPOINT_SUB.to_owned(), number(lease.checkpoint.sub)),
    ]);
    if lease.typed {
        item.insert(ENTITY.to_owned(), text(LEASE));
    }
    if !lease.parents.is_empty() {
        item.insert(PARENTS.to_owned(), ids(&lease.parents));
    }
    if let Some(range) = lease.range {
        item.insert(RANGE_START.to_owned(), text(&range.start.to_string()));
        item.insert(RANGE_END.to_owned(), text(&range.end.to_string()));
    }
    // A row that its owner restores has more.
    let owner = lease.owner.as_ref().map(|owner| (OWNER, text(owner.as_str())));
    let children = (!lease.children.is_empty()).then(|| (CHILDREN, ids(&lease.children)));
    let throughput = lease.throughput.map(|throughput| (THROUGHPUT, number(throughput.kilobytes())));
    let stream = lease.stream.as_ref().map(|stream| (STREAM, text(&stream.to_string())));
    let process = lease.process.as_ref().map(|process| (PROCESS, text(&process.to_string())));
    let more = [owner, children, throughput, stream, process].into_iter().flatten();
    item.extend(more.map(|(name, value)| (name.to_owned(), value)));
    item
}

/// What a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    Lease(Box<Lease>),
    /// Another kind of row, or none that can be understood, and why.
    Other(Option<String>),
}

/// Reads a row. Unknown attributes are of no interest; all writes leave them as they are.
pub(super) fn row(item: &Item) -> Row {
    match get_text(item, ENTITY) {
        Some(entity) if entity != LEASE => return Row::Other(None),
        Some(_) | None => {}
    }
    match lease(item) {
        Ok(lease) => Row::Lease(Box::new(lease)),
        Err(missing) => {
            let key = get_text(item, KEY).unwrap_or("(no key)");
            Row::Other(Some(format!("the row {key} has no readable {missing}")))
        }
    }
}

fn lease(item: &Item) -> Result<Lease, &'static str> {
    let pending = get_text(item, PENDING).filter(|text| !text.is_empty()).and_then(Sequence::parse);
    let range = match (get_text(item, RANGE_START), get_text(item, RANGE_END)) {
        (Some(start), Some(end)) => {
            let start = start.parse().map_err(|_| RANGE_START)?;
            let end = end.parse().map_err(|_| RANGE_END)?;
            Some(HashRange { start, end })
        }
        _ => None,
    };
    Ok(Lease {
        shard: get_text(item, KEY).ok_or(KEY)?.into(),
        owner: get_text(item, OWNER).map(Into::into),
        counter: get_number(item, COUNTER).ok_or(COUNTER)?,
        owner_switches: get_number(item, OWNER_SWITCHES).ok_or(OWNER_SWITCHES)?,
        checkpoint: Position {
            sequence: get_text(item, CHECKPOINT).and_then(Sequence::parse).ok_or(CHECKPOINT)?,
            sub: sub(item, CHECKPOINT_SUB)?,
        },
        pending: match pending {
            Some(sequence) => Some(Position { sequence, sub: sub(item, PENDING_SUB)? }),
            None => None,
        },
        checkpoint_owner: get_text(item, CHECKPOINT_OWNER).map(Into::into),
        parents: get_ids(item, PARENTS),
        children: get_ids(item, CHILDREN),
        range,
        throughput: get_real(item, THROUGHPUT).map(Throughput::from_kilobytes),
        typed: item.contains_key(ENTITY),
        // A mark that cannot be read is another stream's.
        stream: get_text(item, STREAM)
            .map(|text| StreamId::parse(text).unwrap_or_else(|| StreamId::new(text, 0))),
        process: get_text(item, PROCESS).and_then(ProcessId::parse),
    })
}

pub(super) fn get_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn get_real(item: &Item, name: &str) -> Option<f64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(super) fn get_number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// Absent counts as 0.
fn sub(item: &Item, name: &'static str) -> Result<u64, &'static str> {
    if !item.contains_key(name) {
        return Ok(0);
    }
    get_number(item, name).and_then(|sub| u64::try_from(sub).ok()).ok_or(name)
}

fn get_ids(item: &Item, name: &str) -> BTreeSet<ShardId> {
    let ids = item.get(name).and_then(|value| value.as_ss().ok());
    ids.into_iter().flatten().map(|id| ShardId::from(id.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child() -> Lease {
        let parents = ["a".into(), "b".into()].into();
        Lease::new("c".into(), Position::new(Sequence::TrimHorizon), parents, HashRange { start: 0, end: 9 })
    }

    #[test]
    fn a_new_row_reads_as_the_lease_that_it_was() {
        assert_eq!(row(&new_row(&child())), Row::Lease(Box::new(child())));
    }

    #[test]
    fn rows_of_other_kinds_and_broken_ones_are_no_leases() {
        let mut item = new_row(&child());
        item.insert(ENTITY.into(), text("LEADER"));
        assert_eq!(row(&item), Row::Other(None));
        let mut item = new_row(&child());
        item.remove(COUNTER);
        assert!(matches!(row(&item), Row::Other(Some(why)) if why.contains(COUNTER)));
    }

    #[test]
    fn a_row_made_beside_kcl_2_has_no_type() {
        let child = Lease { typed: false, ..child() };
        assert!(!new_row(&child).contains_key(ENTITY));
        assert_eq!(row(&new_row(&child)), Row::Lease(Box::new(child)));
    }

    #[test]
    fn rows_of_kcl_2_have_no_entity_type_and_old_ones_no_range() {
        let mut item = new_row(&child());
        for name in [ENTITY, RANGE_START, RANGE_END, CHECKPOINT_SUB, PARENTS] {
            item.remove(name);
        }
        item.insert("somethingNew".into(), number(1));
        let expected = Lease { parents: BTreeSet::new(), range: None, typed: false, ..child() };
        assert_eq!(row(&item), Row::Lease(Box::new(expected)));
    }
}
