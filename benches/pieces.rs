//! Benchmarks of the stages of a record's path: `cargo bench --bench pieces`.
//!
//! | stage | input and output |
//! |---|---|
//! | read | a GetRecords response to the line for the child, or to records if they are large |
//! | write | records to the line for the child |
//! | expand | a response with KPL aggregates to user records |
//!
//! Each stage is repeated for half a second, three times. The fastest of the three counts, because noise only
//! ever slows a run down.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark ends at the first error"
)]

use std::hint::black_box;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use multilangd::aws::records;
use multilangd::budget::Budget;
use multilangd::multilang::Outgoing;
use multilangd::record::Record;
use multilangd::retrieval::aggregation;
use tokio::time::Instant;

const RECORDS: usize = 10_000;
/// User records per KPL aggregate.
const PER_AGGREGATE: usize = 100;

fn main() {
    let budget = Budget::new(usize::MAX);
    println!("| stage | record | ns per record | MB of data per second |\n|---|---|---|---|");
    for (label, size, count) in [("100 B", 100, RECORDS), ("1 KB", 1_000, RECORDS), ("100 KB", 100_000, 100)]
    {
        let body = answer(count, &vec![7; size]);
        let records = records::read(&body, &budget).unwrap().records;
        assert_eq!(records.len(), count);
        let each = records.decode();
        row("read", label, count, size, || records::read(black_box(&body), &budget).unwrap().records.len());
        row("write", label, count, size, || {
            let batch = Outgoing::batch(each.clone().into(), Some(0));
            batch.into_line().len()
        });
    }
    let body = answer(RECORDS / PER_AGGREGATE, &aggregate(PER_AGGREGATE, &[7; 100]));
    let aggregates = records::read(&body, &budget).unwrap().records.decode();
    let expand =
        |records: Vec<Record>| aggregation::expand(records, None, &"s".into(), &budget).records.len();
    assert_eq!(expand(aggregates.clone()), RECORDS);
    row("expand", "100 B", RECORDS, 100, || expand(black_box(aggregates.clone())));
}

/// Measures one stage and prints its row.
fn row(stage: &str, label: &str, records: usize, size: usize, mut work: impl FnMut() -> usize) {
    let run = |work: &mut dyn FnMut() -> usize| {
        let (start, mut rounds) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(500) {
            black_box(work());
            rounds += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(rounds) / records as f64
    };
    let fastest = (0..3).map(|_| run(&mut work)).fold(f64::MAX, f64::min);
    println!("| {stage} | {label} | {:.0} | {:.0} |", fastest * 1e9, size as f64 / fastest / 1e6);
}

/// A GetRecords response as Kinesis formats it.
fn answer(count: usize, data: &[u8]) -> Bytes {
    let data = STANDARD.encode(data);
    let record = |number: usize| {
        format!(
            "{{\"SequenceNumber\":\"{number:056}\",\"ApproximateArrivalTimestamp\":1.795405837483E9,\"Data\":\"{data}\",\
             \"PartitionKey\":\"key-{number}\"}}"
        )
    };
    let records: Vec<String> = (0..count).map(record).collect();
    format!("{{\"Records\":[{}],\"NextShardIterator\":\"AAAA\",\"MillisBehindLatest\":0}}", records.join(","))
        .into()
}

/// A KPL aggregate: magic number, protobuf message, MD5 digest. All user records have the same partition key.
fn aggregate(count: usize, data: &[u8]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        assert!(bytes.len() < 128);
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    };
    let record = [&[1 << 3, 0][..], &field(3, data)].concat();
    let mut message = field(1, b"key");
    (0..count).for_each(|_| message.extend(field(3, &record)));
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, Md5::digest(&message).as_slice()].concat()
}
