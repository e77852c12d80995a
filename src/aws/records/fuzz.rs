//! Compares answers that are parsed while they arrive with the same answers parsed as a whole by
//! `serde_json`.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::fuzz;
use super::{Arriving, parse, scan};
use crate::batch::Records;
use crate::budget::Budget;
use crate::retrieval::Answer;

fn one_by_one(answer: Answer) -> Answer {
    Answer { records: Records::Decoded(answer.records.decode()), ..answer }
}

#[test]
fn fuzz_answers_beside_serde_json() {
    let room = select(&[0usize, 600, 2_000, 9_000, 10_000_000][..]);
    let inputs = (answers(), prop::collection::vec(any::<Index>(), 0..6), room, any::<bool>());
    fuzz::run(&inputs, |(text, cuts, room, has_length)| {
        let text = Bytes::from(text);
        let parsed = parse(&text);
        if let Some(scanned) = scan::scan(&text) {
            prop_assert_eq!(Ok(scanned), parsed.clone(), "{:?}", text);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let budget = Budget::new(room);
        // A reservation that is alone in the budget has no limit.
        let other = budget.take(1);
        match arrived(&text, &cuts, &budget, has_length) {
            Err(None) => prop_assert!(room < 10_000_000, "no room for {:?}", text),
            Err(Some(error)) => prop_assert!(parsed.is_err(), "{error}: {:?}", text),
            Ok(answer) => prop_assert_eq!(Ok(one_by_one(answer)), parsed, "{:?}", text),
        }
        drop(other);
        prop_assert_eq!(budget.held(), 0);
        Ok(())
    });
}

/// None if there was no memory.
fn arrived(
    text: &Bytes,
    cuts: &[usize],
    budget: &std::sync::Arc<Budget>,
    has_length: bool,
) -> Result<Answer, Option<String>> {
    let mut arriving = Arriving::new(budget.nothing(), has_length.then_some(text.len()));
    let mut begin = 0;
    for end in cuts {
        arriving.push(&text[begin..*end]).map_err(|_| None)?;
        begin = *end;
    }
    arriving.end().map_err(Some)
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![40 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\u{c}")]
}

/// Mostly the values that Kinesis writes for a field, some unusual ones, and some that are no JSON.
fn value(usual: &'static [&'static str]) -> impl Strategy<Value = String> {
    const OTHER: [&str; 26] = [
        "null",
        "\"null\"",
        "\"\"",
        "\"a\\\"b\"",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "\"k\u{e9}y\"",
        "\"\u{1}\"",
        "\"1\"",
        "\"0012\"",
        "\"x\"",
        "\"aGk\"",
        "\"aG\\/=\"",
        "\"===\"",
        "7",
        "-7",
        "007",
        "1.",
        ".5",
        "1E400",
        "99999999999999999999",
        "[]",
        "{}",
        "true",
        "\"null",
        "nul",
    ];
    let long =
        select(&[40usize, 600, 5_000, 40_000][..]).prop_map(|size| format!("\"{}\"", "A".repeat(size)));
    prop_oneof![
        30 => select(usual).prop_map(str::to_owned),
        2 => select(&OTHER[..]).prop_map(str::to_owned),
        1 => long,
    ]
}

fn member(name: &'static str, usual: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    let value = value(usual).boxed();
    (blank(), blank(), value, blank())
        .prop_map(move |(a, b, value, c)| format!("\"{name}\"{a}:{b}{value}{c}"))
        .boxed()
}

fn record() -> impl Strategy<Value = String> {
    let number =
        member("SequenceNumber", &["\"49\"", "\"50\"", "\"4968047906877812170840418033793594383663585678\""]);
    let data = member("Data", &["\"aGk=\"", "\"\"", "\"a/+=\"", "\"84mawgAA\"", "\"QUJDREVGR0hJSktMTU5P\""]);
    let key = member("PartitionKey", &["\"k\"", "\"\"", "\"k\u{e9}y\"", "\"'; drop\""]);
    let time =
        member("ApproximateArrivalTimestamp", &["1795405837.483", "1.795405837483E9", "1795405837", "1e9"]);
    let encryption = member("EncryptionType", &["\"NONE\"", "\"KMS\"", "null"]);
    let other = member("Other", &["1", "{\"a\":[]}"]);
    let optional = prop_oneof![3 => time, 3 => key.clone(), 2 => encryption, 1 => data.clone(), 1 => other];
    let order = (number, data, key, prop::collection::vec(optional, 0..3))
        .prop_map(|(a, b, c, rest)| [vec![a, b, c], rest].concat());
    // Sometimes a field is missing.
    (
        prop_oneof![4 => order.clone().prop_shuffle(), 1 => order.prop_map(|mut all| { all.pop(); all })],
        comma(),
    )
        .prop_map(|(members, comma)| format!("{{{}}}", members.join(comma)))
}

fn comma() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just(","), 1 => Just(" ,"), 1 => Just(", "), 1 => Just(""), 1 => Just(",,")]
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![40 => Just("]"), 1 => Just(",]"), 1 => Just(", ]"), 1 => Just(" ]"), 1 => Just("")];
    let records = (prop::collection::vec(record(), 0..6), comma(), end)
        .prop_map(|(records, comma, end)| format!("\"Records\":[{}{end}", records.join(comma)));
    let next = member("NextShardIterator", &["\"AAAA\"", "null", "\"\""]);
    let number = member("ContinuationSequenceNumber", &["\"51\"", "\"\""]);
    let behind = member("MillisBehindLatest", &["0", "7", "86399123"]);
    let children = member(
        "ChildShards",
        &[
            "[]",
            "null",
            r#"[{"ShardId":"c","ParentShards":["p", "q"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]"#,
            r#"[{"ShardId":"c"}]"#,
            r#"[{"ShardId":"c","ParentShards":[],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"x"}} ,]"#,
        ],
    );
    let other = member("New", &["1", "[{}]"]);
    let fields = prop_oneof![4 => next, 2 => number, 4 => behind, 2 => children, 1 => other];
    let members = (records, prop::collection::vec(fields, 0..4))
        .prop_map(|(records, mut fields)| {
            fields.push(records);
            fields
        })
        .prop_shuffle();
    let end = prop_oneof![40 => Just("}"), 1 => Just("} "), 1 => Just("}x"), 1 => Just(",}"), 1 => Just(" }"), 1 => Just("")];
    let text = (members, comma(), end)
        .prop_map(|(members, comma, end)| format!("{{{}{end}", members.join(comma)).into_bytes());
    fuzz::changed(text, b"{}[]\",:\\.E-0129AaGk= nul\x00\xc3\xa9\xff")
}
