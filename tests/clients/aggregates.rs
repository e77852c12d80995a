//! Compares our deaggregation of KPL aggregates, record by record, with PyPI's `aws-kinesis-agg`.

use std::process::Command;

use multilangd::budget::Budget;
use multilangd::record::Data;
use multilangd::record::Record;
use multilangd::retrieval::aggregation;
use multilangd::sequence::SequenceNumber;
use serde_json::Value;

use crate::client::part;

#[test]
fn random_aggregates_expand_as_by_aws_kinesis_agg() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/aggregates.py");
    for seed in ["1", "2"] {
        let made = Command::new(part("aggregates/bin/python")).args([script, seed]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let lines = String::from_utf8(made.stdout).unwrap();
        assert_eq!(lines.lines().count(), 1_000);
        let (mut users, mut whole) = (0, 0);
        for (number, line) in lines.lines().enumerate() {
            let expected: Value = serde_json::from_str(line).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let raw = Record {
                sequence: SequenceNumber::parse(&number.to_string()).unwrap(),
                sub: 0,
                partition_key: text(&expected["partitionKey"]).into(),
                data: Data::of_base64(text(&expected["data"]).into()).unwrap(),
                arrival: Some(1),
            };
            let ours = aggregation::expand(vec![raw.clone()], None, &"shard".into(), &Budget::new(1)).records;
            let theirs = expected["records"].as_array().unwrap();
            assert_eq!(ours.len(), theirs.len(), "aggregate {number} of seed {seed}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours.partition_key.as_str(), text(&theirs["partitionKey"]));
                assert_eq!(ours.data.as_str(), text(&theirs["data"]));
                assert_eq!(ours.sub, theirs["sub"].as_u64().unwrap());
                assert_eq!((&ours.sequence, ours.arrival), (&raw.sequence, raw.arrival));
            }
            users += ours.len();
            whole += usize::from(ours.len() == 1 && ours[0].data == raw.data);
        }
        assert_eq!(whole, 100, "an aggregate with a flipped bit is delivered as a plain record");
        assert!(users > 10_000, "{users}");
    }
}
