//! Random bytes and random messages: nothing panics, memory is bounded, chunking does not matter, and a message
//! that one side writes is read back unchanged by the other.
#![allow(clippy::unwrap_used, reason = "test code")]

use multilangd_protocol::{CheckpointRequest, Dialect, FromChild, Line, LineSplitter, Record, ToChild};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Random bytes in which meaningful characters are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling =
        prop::sample::select(b"{}[]\":,\n\r\\ actionstatuschekpoirF0159-.eE\xef\xbb\xbf\xff\x00".to_vec());
    prop::collection::vec(prop_oneof![4 => telling, 1 => any::<u8>()], 0..400)
}

fn lines(splitter: &mut LineSplitter, chunks: &[&[u8]]) -> Vec<Line> {
    let mut out = Vec::new();
    chunks.iter().for_each(|chunk| splitter.push(chunk, &mut out));
    out.extend(splitter.finish());
    out
}

/// The expected lines of a text, by a simple byte-by-byte loop: `\n`, `\r\n` and `\r` each end a line.
fn expected(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut lines, mut line, mut rest) = (Vec::new(), Vec::new(), bytes.iter().peekable());
    let mut open = false;
    while let Some(byte) = rest.next() {
        if *byte == b'\r' {
            rest.next_if(|next| **next == b'\n');
        }
        open = !matches!(byte, b'\n' | b'\r');
        if open {
            line.push(*byte);
        } else {
            lines.push(std::mem::take(&mut line));
        }
    }
    lines.extend(open.then_some(line));
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn lines_do_not_depend_on_chunks(bytes in bytes(), cuts in prop::collection::vec(0usize..400, 0..8)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&bytes[from..cut]);
            from = cut;
        }
        chunks.push(&bytes[from..]);
        let whole: Vec<Line> = expected(&bytes).into_iter().map(Line::Whole).collect();
        prop_assert_eq!(lines(&mut LineSplitter::default(), &chunks), whole);
    }

    #[test]
    fn line_keeps_no_more_than_its_bound(bytes in bytes(), bound in 1usize..50) {
        let found = lines(&mut LineSplitter::new(bound), &[&bytes]);
        let expected = expected(&bytes);
        prop_assert_eq!(found.len(), expected.len());
        for (line, text) in found.iter().zip(&expected) {
            match line {
                Line::Whole(kept) => prop_assert!(kept == text && kept.len() <= bound),
                Line::Cut { head, length } => {
                    prop_assert!(text.len() > bound && *length == text.len());
                    prop_assert!(head.len() <= bound && text.starts_with(head));
                }
            }
        }
    }

    #[test]
    fn reading_any_line_does_not_panic(bytes in bytes()) {
        let _anything = FromChild::parse(&bytes);
    }

    #[test]
    fn checkpoint_request_round_trips(sequence in prop::option::of(any::<String>()), sub in prop::option::of(any::<i64>())) {
        let line = json!({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub}).to_string();
        let request = CheckpointRequest { sequence_number: sequence, sub_sequence_number: sub };
        prop_assert_eq!(FromChild::parse(line.as_bytes()), FromChild::Checkpoint(request));
    }

    #[test]
    fn status_round_trips(response_for in prop::option::of(any::<String>())) {
        let line = json!({"responseFor": response_for, "action": "status"}).to_string();
        prop_assert_eq!(FromChild::parse(line.as_bytes()), FromChild::Status { response_for });
    }

    #[test]
    fn written_message_is_one_line_of_equal_json(
        texts in prop::collection::vec(any::<(String, String, Option<i64>, u64)>(), 0..5),
        millis in prop::option::of(any::<i64>()),
        error in prop::option::of(any::<String>()),
    ) {
        let records: Vec<Record<'_>> = texts
            .iter()
            .map(|(key, number, arrival, sub)| Record {
                data: b"eA==",
                partition_key: key.as_bytes(),
                sequence_number: number.as_bytes(),
                approximate_arrival_timestamp: *arrival,
                sub_sequence_number: *sub,
            })
            .collect();
        let written = |message: ToChild<'_>| {
            let mut out = Vec::new();
            message.write_line(Dialect::Current, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.ends_with('\n') && !text.trim_end_matches('\n').contains(['\n', '\r']), "{text}");
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let batch = written(ToChild::ProcessRecords { records: &records, millis_behind_latest: millis });
        let expected: Vec<Value> = texts
            .iter()
            .map(|(key, number, arrival, sub)| json!({
                "data": "eA==", "partitionKey": key, "sequenceNumber": number,
                "approximateArrivalTimestamp": arrival, "subSequenceNumber": sub, "action": "record",
            }))
            .collect();
        prop_assert_eq!(batch, json!({"action": "processRecords", "records": expected, "millisBehindLatest": millis}));
        let answer = written(ToChild::Checkpoint { sequence_number: error.as_deref(), sub_sequence_number: millis, error: error.as_deref() });
        prop_assert_eq!(answer, json!({"action": "checkpoint", "sequenceNumber": error, "subSequenceNumber": millis, "error": error}));
    }
}
