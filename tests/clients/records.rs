//! Sample records of all kinds, and assertions on the records that children received.

use std::collections::BTreeMap;

use crate::rig::*;

pub type Record = (String, Vec<u8>);

/// Mostly small records; some empty, binary or of one MiB; partition keys in several scripts. Each key occurs
/// once.
pub fn sample_records(count: usize) -> Vec<Record> {
    let one = |n: usize| {
        let key = match n % 7 {
            0 => format!("ключ-{n}"),
            1 => format!("鍵😀-{n}"),
            2 => format!("quote\"back\\slash/{n}\u{7f}"),
            _ => format!("key-{n}"),
        };
        let data = match (n % 1000, n % 100) {
            (3, _) if n < 4000 => vec![u8::try_from(n % 251).unwrap(); (1 << 20) - key.len()],
            (_, 1) => Vec::new(),
            (_, 2) => (0..=255).collect(),
            _ => format!("record {n}").into_bytes(),
        };
        (key, data)
    };
    (0..count).map(one).collect()
}

/// Asserts that each received record has the data that was put with its key.
pub fn assert_right_bytes(log: &[Report], put: &[Record]) {
    let put: BTreeMap<&str, &[u8]> = put.iter().map(|(key, data)| (key.as_str(), data.as_slice())).collect();
    for (shard, records) in records(log) {
        for record in &records {
            assert_eq!(put.get(record.key.as_str()), Some(&record.data.as_slice()), "{shard} {}", record.key);
        }
    }
}

/// Asserts that each shard's records are received once, in ascending order of sequence numbers.
pub fn assert_at_most_once_in_order(log: &[Report]) {
    for (shard, records) in records(log) {
        let rising = |pair: &[Seen]| pair[0].sequence < pair[1].sequence;
        assert!(records.windows(2).all(rising), "{shard}");
    }
}

/// Asserts that every record is received once, in order and unchanged.
pub fn assert_each_once(log: &[Report], put: &[Record]) {
    assert_eq!(count(log), put.len());
    assert_at_most_once_in_order(log);
    assert_right_bytes(log, put);
}

/// Splits the first of four shards and merges the next two.
pub async fn reshard(rig: &Rig) {
    let kinesis = &rig.clients.kinesis;
    let split = kinesis.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((1u128 << 125).to_string()).send().await.unwrap();
    let merge = kinesis.merge_shards().stream_name(STREAM).shard_to_merge("shardId-000000000001");
    merge.adjacent_shard_to_merge("shardId-000000000002").send().await.unwrap();
}

/// The shards that [`reshard`] closes, each with a child shard that must start after it.
pub const LINEAGE: [(&str, &str); 4] = [("000", "004"), ("000", "005"), ("001", "006"), ("002", "006")];

pub fn assert_children_after_parents(log: &[Report]) {
    for (parent, child) in LINEAGE {
        let place = |wanted: &str, of: &str| {
            let is = |report: &Report| matches!(report, Report::Said { shard, what, .. } if shard.ends_with(of) && what == wanted);
            log.iter().position(is).unwrap_or_else(|| panic!("{wanted} of {of}"))
        };
        assert!(place("shardEnded", parent) < place("initialize", child), "{child} only after {parent}");
    }
}
