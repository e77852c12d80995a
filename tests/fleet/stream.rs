//! The stream: shards that split and merge, and their records, without time or faults.

use std::collections::BTreeMap;

use multilangd::lease::LeaseKey;
use multilangd::sequence::SequenceNumber;
use multilangd::shard::{ChildShard, Filter, HashRange, Shard, ShardId};
use multilangd::stream::{StreamId, StreamIdentifier};

use crate::story::wall;

/// A shard with all records ever put into it.
#[derive(Debug, Clone)]
pub struct Line {
    pub id: ShardId,
    pub parents: Vec<ShardId>,
    pub range: HashRange,
    pub starting: u64,
    pub ending: Option<u64>,
    /// Sequence numbers, in ascending order.
    pub records: Vec<u64>,
    /// The times at which they were put, in milliseconds since 1970.
    pub arrivals: Vec<i64>,
    pub children: Vec<ShardId>,
}

#[derive(Debug, Default)]
pub struct Stream {
    /// In the keys of its leases; none for the only stream.
    pub identifier: Option<StreamIdentifier>,
    pub shards: BTreeMap<ShardId, Line>,
    next_number: u64,
    /// Records of this stream have sequence numbers above this; those of an earlier stream of the same name
    /// have lower ones.
    pub first: u64,
    /// The number of times that the stream was created.
    pub created: i64,
}

fn number(value: u64) -> SequenceNumber {
    SequenceNumber::parse(&value.to_string()).unwrap()
}

impl Stream {
    pub fn new(shards: u128) -> Self {
        Self::created(shards, 100, 1)
    }

    /// One of several streams. Its sequence numbers follow `first`, so that no other stream has the same.
    pub fn named(name: &str, shards: u128, first: u64) -> Self {
        let identifier = StreamIdentifier::parse(&format!("123456789012:{name}:1"));
        Self { identifier, ..Self::created(shards, first, 1) }
    }

    fn created(shards: u128, first: u64, created: i64) -> Self {
        let mut stream =
            Self { identifier: None, shards: BTreeMap::new(), next_number: first, first, created };
        let width = u128::MAX / shards;
        for n in 0..shards {
            let end = if n + 1 == shards { u128::MAX } else { width * (n + 1) - 1 };
            stream.open(HashRange { start: width * n, end }, Vec::new());
        }
        stream
    }

    fn open(&mut self, range: HashRange, parents: Vec<ShardId>) -> ShardId {
        let id = ShardId::from(format!("shardId-{:012}", self.shards.len()).as_str());
        self.next_number += 1;
        let starting = self.next_number;
        let line = Line {
            id: id.clone(),
            parents,
            range,
            starting,
            ending: None,
            records: vec![],
            arrivals: vec![],
            children: vec![],
        };
        self.shards.insert(id.clone(), line);
        id
    }

    pub fn identity(&self) -> StreamId {
        let name = self.identifier.as_ref().map_or("simulated", StreamIdentifier::name);
        StreamId::new(&format!("arn:aws:kinesis:us-east-1:123456789012:stream/{name}"), self.created)
    }

    /// Deletes the stream with all its records and creates it again under the same name.
    pub fn create_again(&mut self, shards: u128) {
        let identifier = self.identifier.take();
        *self = Self { identifier, ..Self::created(shards, self.next_number + 100, self.created + 1) };
    }

    pub fn key(&self, shard: &ShardId) -> LeaseKey {
        LeaseKey::new(self.identifier.clone(), shard.clone())
    }

    pub fn open_shards(&self) -> Vec<ShardId> {
        self.shards.values().filter(|line| line.ending.is_none()).map(|line| line.id.clone()).collect()
    }

    /// Puts a record and returns its sequence number.
    pub fn put(&mut self, shard: &ShardId) -> u64 {
        self.next_number += 1;
        let line = self.shards.get_mut(shard).unwrap();
        assert!(line.ending.is_none());
        line.records.push(self.next_number);
        line.arrivals.push(wall());
        self.next_number
    }

    fn close(&mut self, shard: &ShardId, children: &[ShardId]) {
        self.next_number += 1;
        let line = self.shards.get_mut(shard).unwrap();
        line.ending = Some(self.next_number);
        line.children = children.to_vec();
    }

    pub fn split(&mut self, shard: &ShardId) -> bool {
        let HashRange { start, end } = self.shards[shard].range;
        if end - start < 4 {
            return false;
        }
        let middle = start + (end - start) / 2;
        let left = self.open(HashRange { start, end: middle }, vec![shard.clone()]);
        let right = self.open(HashRange { start: middle + 1, end }, vec![shard.clone()]);
        self.close(shard, &[left, right]);
        true
    }

    /// Merges a shard with its right neighbour, if there is one.
    pub fn merge(&mut self, shard: &ShardId) -> bool {
        let range = self.shards[shard].range;
        let neighbour = self
            .shards
            .values()
            .find(|line| line.ending.is_none() && Some(line.range.start) == range.end.checked_add(1));
        let Some((other, end)) = neighbour.map(|line| (line.id.clone(), line.range.end)) else {
            return false;
        };
        let child = self.open(HashRange { start: range.start, end }, vec![shard.clone(), other.clone()]);
        self.close(shard, std::slice::from_ref(&child));
        self.close(&other, &[child]);
        true
    }

    pub fn list(&self, filter: Filter) -> Vec<Shard> {
        let wanted = |line: &&Line| match filter {
            Filter::AtLatest => line.ending.is_none(),
            Filter::AtTrimHorizon => line.parents.is_empty(),
            Filter::All | Filter::AtTimestamp(_) => true,
        };
        let shard = |line: &Line| Shard {
            id: line.id.clone(),
            parent: line.parents.first().cloned(),
            adjacent_parent: line.parents.get(1).cloned(),
            range: line.range,
            starting: number(line.starting),
            ending: line.ending.map(number),
        };
        self.shards.values().filter(wanted).map(shard).collect()
    }

    pub fn children_of(&self, shard: &ShardId) -> Vec<ChildShard> {
        let child = |id: &ShardId| {
            let line = &self.shards[id];
            ChildShard { id: id.clone(), parents: line.parents.clone(), range: line.range }
        };
        self.shards[shard].children.iter().map(child).collect()
    }
}
