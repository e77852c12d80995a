//! Lease rows as DynamoDB items. The only module that contains the attribute names.
//!
//! In KCL: `DynamoDBLeaseSerializer`.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::lease::orders::{Park, Pause};
use crate::lease::sync::InitialPosition;
use crate::lease::table::Streams;
use crate::lease::{Lease, LeaseKey, ProcessId, Throughput};
use crate::sequence::{Position, Sequence};
use crate::shard::{HashRange, ShardId};
use crate::stream::{StreamId, StreamIdentifier};

pub(super) const KEY: &str = "leaseKey";
/// In a table of several streams only: the identifier of the stream, and the id of the shard.
pub(super) const STREAM_NAME: &str = "streamName";
const SHARD: &str = "shardId";
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
/// Attributes of multilangd, which every version of KCL preserves.
pub(super) const STREAM: &str = "multilangdStream";
pub(super) const PROCESS: &str = "multilangdProcess";
pub(super) const LATEST_FROM: &str = "multilangdLatestFrom";
pub(super) const INITIAL: &str = "multilangdInitialPosition";
pub(super) const PARK: &str = "multilangdParked";
pub(super) const PAUSE: &str = "multilangdPause";
pub(super) const EARLIER: &str = "multilangdEarlierCheckpoint";
pub(super) const ENTITY: &str = "entityType";
/// The value of [`ENTITY`] on a lease. Since KCL 3.5 other rows are in the same table.
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

/// A new row, as KCL 3.5 writes it; without a type as earlier versions write it.
pub(super) fn new_row(lease: &Lease) -> Item {
    let mut item = Item::from([
        (KEY.to_owned(), text(&lease.key.to_string())),
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
    let identifier = lease.key.stream().map(|identifier| (STREAM_NAME, text(identifier.as_str())));
    let shard = lease.key.stream().map(|_| (SHARD, text(lease.shard().as_str())));
    // A row that its owner restores has more attributes.
    let owner = lease.owner.as_ref().map(|owner| (OWNER, text(owner.as_str())));
    let children = (!lease.children.is_empty()).then(|| (CHILDREN, ids(&lease.children)));
    let throughput = lease.throughput.map(|throughput| (THROUGHPUT, number(throughput.kilobytes())));
    let stream = lease.stream.as_ref().map(|stream| (STREAM, text(&stream.to_string())));
    let process = lease.process.as_ref().map(|process| (PROCESS, text(&process.to_string())));
    let latest_from = lease.latest_from.map(|millis| (LATEST_FROM, number(millis)));
    let initial = lease.initial.map(|initial| (INITIAL, text(initial.sequence().as_str())));
    let park = lease.park.as_ref().map(|park| (PARK, text(&park.to_string())));
    let pause = lease.pause.as_ref().map(|pause| (PAUSE, text(&pause.to_string())));
    let of_kcl = [identifier, shard, owner, children, throughput];
    let of_ours = [stream, process, latest_from, initial, park, pause];
    let more = of_kcl.into_iter().chain(of_ours).flatten();
    item.extend(more.map(|(name, value)| (name.to_owned(), value)));
    item
}

/// The kind of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    /// A lease of an application that reads several streams, in a table that must hold those of one.
    OfSeveralStreams {
        lease: String,
        stream: String,
    },
    /// A lease of an application that reads one stream, in a table that must hold those of several.
    OfOneStream(String),
    Lease(Box<Lease>),
    /// A row of another kind, with its `entityType`.
    Other(String),
    /// A lease that is unreadable.
    Unreadable(Unreadable),
}

/// Why a lease is unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) key: String,
    pub(super) attribute: &'static str,
    /// The present value, as shown in messages.
    pub(super) found: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its attribute {} {}", self.attribute, self.found)
    }
}

/// Reads a row. Unknown attributes are ignored; all writes preserve them. `initial` is the checkpoint of a
/// lease without one: other libraries (zio-kinesis) create such rows.
pub(super) fn row(item: &Item, initial: &Sequence, streams: Streams) -> Row {
    match get_text(item, ENTITY) {
        Some(entity) if entity != LEASE => return Row::Other(entity.to_owned()),
        Some(_) | None => {}
    }
    let lease_key = get_text(item, KEY).unwrap_or_default();
    match (streams, stream_of(item, lease_key)) {
        (Streams::One, Some(stream)) => {
            return Row::OfSeveralStreams { lease: lease_key.to_owned(), stream: stream.to_owned() };
        }
        (Streams::Several, None) if !lease_key.is_empty() => return Row::OfOneStream(lease_key.to_owned()),
        (Streams::One | Streams::Several, _) => {}
    }
    lease(item, initial, streams).map_or_else(
        |attribute| {
            let key = get_text(item, KEY).unwrap_or("(no key)").to_owned();
            Row::Unreadable(Unreadable { key, attribute, found: found(item.get(attribute)) })
        },
        |lease| Row::Lease(Box::new(lease)),
    )
}

/// The stream of a row of KCL's `MultiStreamLease`: the key is `ACCOUNT:STREAM:EPOCH:SHARD`, and `streamName` contains
/// all but the shard. It need not be well-formed.
fn stream_of<'a>(item: &'a Item, key: &'a str) -> Option<&'a str> {
    let of_key = key.rsplit_once(":shardId-").map(|(stream, _)| stream);
    get_text(item, STREAM_NAME).or(of_key)
}

/// The key of a lease in a table of one stream, or of several.
pub(super) fn key(text: &str, streams: Streams) -> LeaseKey {
    match streams {
        Streams::One => LeaseKey::new(None, text.into()),
        Streams::Several => text.into(),
    }
}

/// The key of a lease. In a table of several streams KCL takes stream and shard from their attributes, which it writes
/// with the key: a row in which they differ is unreadable.
fn get_key(item: &Item, streams: Streams) -> Result<LeaseKey, &'static str> {
    let text = get_text(item, KEY).ok_or(KEY)?;
    if streams == Streams::One {
        return Ok(key(text, streams));
    }
    let identifier = get_text(item, STREAM_NAME).and_then(StreamIdentifier::parse).ok_or(STREAM_NAME)?;
    let shard = get_text(item, SHARD).filter(|shard| !shard.is_empty()).ok_or(SHARD)?;
    let key = LeaseKey::new(Some(identifier), shard.into());
    if key.to_string() == text { Ok(key) } else { Err(KEY) }
}

fn found(value: Option<&AttributeValue>) -> String {
    match value {
        None => "is missing".to_owned(),
        Some(AttributeValue::Null(_)) => "is NULL".to_owned(),
        Some(AttributeValue::S(text)) => {
            format!("is the string {:?}", text.chars().take(60).collect::<String>())
        }
        Some(AttributeValue::N(number)) => format!("is the number {number}"),
        Some(_) => "has another type".to_owned(),
    }
}

fn lease(item: &Item, initial: &Sequence, streams: Streams) -> Result<Lease, &'static str> {
    let pending = get_text(item, PENDING).filter(|text| !text.is_empty()).and_then(Sequence::parse);
    let range = match (get_text(item, RANGE_START), get_text(item, RANGE_END)) {
        (Some(start), Some(end)) => {
            let start = start.parse().map_err(|_| RANGE_START)?;
            let end = end.parse().map_err(|_| RANGE_END)?;
            Some(HashRange { start, end })
        }
        _ => None,
    };
    let checkpoint = match item.get(CHECKPOINT) {
        None | Some(AttributeValue::Null(_)) => Position::new(initial.clone()),
        Some(_) => Position {
            sequence: get_text(item, CHECKPOINT).and_then(Sequence::parse).ok_or(CHECKPOINT)?,
            sub: sub(item, CHECKPOINT_SUB)?,
        },
    };
    // Every write of a lease without a checkpoint owner requires that the attribute is absent.
    if item.contains_key(CHECKPOINT_OWNER) && get_text(item, CHECKPOINT_OWNER).is_none() {
        return Err(CHECKPOINT_OWNER);
    }
    let owner_switches = match item.get(OWNER_SWITCHES) {
        None => 0,
        Some(_) => get_number(item, OWNER_SWITCHES).ok_or(OWNER_SWITCHES)?,
    };
    Ok(Lease {
        key: get_key(item, streams)?,
        owner: get_text(item, OWNER).map(Into::into),
        counter: get_number(item, COUNTER).ok_or(COUNTER)?,
        owner_switches,
        checkpoint,
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
        // An unreadable mark belongs to another stream.
        stream: get_text(item, STREAM)
            .map(|text| StreamId::parse(text).unwrap_or_else(|| StreamId::new(text, 0))),
        process: get_text(item, PROCESS).and_then(ProcessId::parse),
        latest_from: get_number(item, LATEST_FROM),
        initial: get_text(item, INITIAL).and_then(InitialPosition::named),
        park: get_text(item, PARK).map(Park::parse),
        pause: get_text(item, PAUSE).map(Pause::parse),
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

/// Absent or NULL counts as 0.
fn sub(item: &Item, name: &'static str) -> Result<u64, &'static str> {
    if matches!(item.get(name), None | Some(AttributeValue::Null(_))) {
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

    fn read(item: &Item) -> Row {
        row(item, &Sequence::Latest, Streams::One)
    }

    /// A row in the form that zio-kinesis 0.3x writes.
    #[test]
    fn row_without_checkpoint_starts_at_the_initial_position() {
        let null = AttributeValue::Null(true);
        for (checkpoint, sub) in
            [(Some(&null), None), (None, None), (None, Some(&null)), (Some(&null), Some(&null))]
        {
            let mut item = new_row(&child());
            for name in [OWNER_SWITCHES, CHECKPOINT, CHECKPOINT_SUB] {
                item.remove(name);
            }
            item.extend(checkpoint.map(|value| (CHECKPOINT.to_owned(), value.clone())));
            item.extend(sub.map(|value| (CHECKPOINT_SUB.to_owned(), value.clone())));
            for initial in [Sequence::Latest, Sequence::TrimHorizon, Sequence::AtTimestamp] {
                let expected = Lease { checkpoint: Position::new(initial.clone()), ..child() };
                assert_eq!(row(&item, &initial, Streams::One), Row::Lease(Box::new(expected)), "{item:?}");
            }
        }
    }

    #[test]
    fn unreadable_row_names_its_attribute() {
        let null = AttributeValue::Null(true);
        for (name, value) in [
            (COUNTER, null.clone()),
            (CHECKPOINT, text("soon")),
            (CHECKPOINT, number(5)),
            (CHECKPOINT_SUB, number(-1)),
            (OWNER_SWITCHES, null.clone()),
            (CHECKPOINT_OWNER, null),
            (RANGE_END, text("z")),
        ] {
            let mut item = new_row(&child());
            item.insert(name.to_owned(), value);
            assert!(matches!(read(&item), Row::Unreadable(why) if why.attribute == name), "{name}");
        }
    }

    #[test]
    fn new_row_is_read_as_the_same_lease() {
        assert_eq!(read(&new_row(&child())), Row::Lease(Box::new(child())));
    }

    /// A row as KCL 3.5.1 writes it for a lease of `MultiStreamTracker`, with its owner.
    fn of_several() -> Item {
        let [identifier, shard] = ["123456789012:orders:1700000000", "shardId-000000000003"];
        Item::from(
            [
                (KEY, text(&format!("{identifier}:{shard}"))),
                (STREAM_NAME, text(identifier)),
                (SHARD, text(shard)),
                (ENTITY, text(LEASE)),
                (COUNTER, number(7)),
                (OWNER_SWITCHES, number(0)),
                (CHECKPOINT, text("TRIM_HORIZON")),
                (CHECKPOINT_SUB, number(0)),
                (PARENTS, AttributeValue::Ss(vec!["shardId-000000000001".to_owned()])),
                (RANGE_START, text("0")),
                (RANGE_END, text("9")),
                (OWNER, text("worker")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    #[test]
    fn row_of_several_streams_is_read_and_written() {
        let item = of_several();
        let Row::Lease(lease) = row(&item, &Sequence::Latest, Streams::Several) else { panic!("{item:?}") };
        assert_eq!(lease.key.to_string(), "123456789012:orders:1700000000:shardId-000000000003");
        assert_eq!(lease.key.stream().map(StreamIdentifier::name), Some("orders"));
        assert_eq!(lease.shard().as_str(), "shardId-000000000003");
        assert_eq!(lease.parents, BTreeSet::from(["shardId-000000000001".into()]), "without the stream");
        assert_eq!(new_row(&lease), item);
    }

    /// The items of a dump of a table of KCL 3.5.1.
    fn items(dump: &str) -> Vec<Item> {
        let dump: serde_json::Value = serde_json::from_str(dump).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let attribute = |value: &serde_json::Value| match value.as_object().unwrap().iter().next().unwrap() {
            (kind, value) if kind == "S" => AttributeValue::S(text(value)),
            (kind, value) if kind == "N" => AttributeValue::N(text(value)),
            (_, value) => AttributeValue::Ss(value.as_array().unwrap().iter().map(text).collect()),
        };
        let items = dump["tables"]["app"]["items"].as_array().unwrap().iter();
        let is_lease = |item: &&serde_json::Value| item[ENTITY]["S"] == LEASE;
        let item = |item: &serde_json::Value| {
            item.as_object().unwrap().iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
        };
        items.filter(is_lease).map(item).collect()
    }

    #[test]
    fn rows_of_several_streams_equal_those_of_java() {
        let after_split = include_str!("../../tests/process/java-3.5.1/multi-stream-after-split.json");
        let handoff = include_str!("../../tests/process/java-3.5.1/multi-stream-handoff.json");
        let mut streams = BTreeSet::new();
        let (mut children, mut handoffs) = (0, 0);
        for mut item in items(after_split).into_iter().chain(items(handoff)) {
            let read = row(&item, &Sequence::Latest, Streams::Several);
            let Row::Lease(lease) = read else { panic!("{read:?}") };
            streams.insert(lease.key.stream().unwrap().name().to_owned());
            children += lease.children.len();
            handoffs += usize::from(lease.checkpoint_owner.is_some());
            // A row that is created has no handoff.
            item.remove(CHECKPOINT_OWNER);
            assert_eq!(new_row(&lease), item);
            assert!(matches!(row(&item, &Sequence::Latest, Streams::One), Row::OfSeveralStreams { .. }));
        }
        assert_eq!(streams, ["orders", "payments", "returns"].map(str::to_owned).into());
        assert!(children == 2 && handoffs > 0, "{children} children, {handoffs} handoffs");
    }

    #[test]
    fn row_of_the_other_kind_of_table_is_no_lease() {
        let mut item = of_several();
        let lease = "123456789012:orders:1700000000:shardId-000000000003".to_owned();
        let stream = "123456789012:orders:1700000000".to_owned();
        let expected = Row::OfSeveralStreams { lease, stream };
        assert_eq!(read(&item), expected);
        item.remove(STREAM_NAME);
        assert_eq!(read(&item), expected, "the key names it too");
        let one = new_row(&child());
        assert_eq!(row(&one, &Sequence::Latest, Streams::Several), Row::OfOneStream("c".to_owned()));
    }

    #[test]
    fn row_of_several_streams_with_inconsistent_key_is_unreadable() {
        for (name, value, blamed) in [
            (STREAM_NAME, None, STREAM_NAME),
            (STREAM_NAME, Some("orders"), STREAM_NAME),
            (STREAM_NAME, Some("123456789012:orders:0"), STREAM_NAME),
            (STREAM_NAME, Some("123456789012:payments:1700000000"), KEY),
            (SHARD, None, SHARD),
            (SHARD, Some(""), SHARD),
            (SHARD, Some("shardId-000000000004"), KEY),
        ] {
            let mut item = of_several();
            item.remove(name);
            item.extend(value.map(|value| (name.to_owned(), text(value))));
            let read = row(&item, &Sequence::Latest, Streams::Several);
            assert!(matches!(read, Row::Unreadable(why) if why.attribute == blamed), "{name} {value:?}");
        }
    }

    #[test]
    fn other_and_unreadable_rows_are_no_leases() {
        let mut item = new_row(&child());
        item.insert(ENTITY.into(), text("LEADER"));
        assert_eq!(read(&item), Row::Other("LEADER".to_owned()));
        let mut item = new_row(&child());
        item.remove(COUNTER);
        let Row::Unreadable(why) = read(&item) else { panic!("{item:?}") };
        assert_eq!((why.key.as_str(), why.attribute, why.found.as_str()), ("c", COUNTER, "is missing"));
    }

    #[test]
    fn row_created_beside_kcl_2_has_no_type() {
        let child = Lease { typed: false, ..child() };
        assert!(!new_row(&child).contains_key(ENTITY));
        assert_eq!(read(&new_row(&child)), Row::Lease(Box::new(child)));
    }

    #[test]
    fn rows_without_type_or_range_are_read() {
        let mut item = new_row(&child());
        for name in [ENTITY, RANGE_START, RANGE_END, CHECKPOINT_SUB, PARENTS] {
            item.remove(name);
        }
        item.insert("somethingNew".into(), number(1));
        let expected = Lease { parents: BTreeSet::new(), range: None, typed: false, ..child() };
        assert_eq!(read(&item), Row::Lease(Box::new(expected)));
    }
}
