//! Compares messages that are decoded while they arrive with the SDK's decoder, which reads whole ones.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{fuzz, records};
use super::*;
use crate::batch::Records;
use crate::budget::Budget;

/// The contents of messages, and whether the bytes after them are unreadable.
#[derive(Debug, PartialEq)]
struct Read {
    messages: Vec<String>,
    is_broken: bool,
    /// Whether no bytes follow the messages.
    is_whole: bool,
}

#[test]
fn fuzz_frames_beside_the_sdk() {
    let messages = prop::collection::vec(message(), 1..4).prop_map(|messages| messages.concat());
    let inputs = (messages, prop::collection::vec(any::<Index>(), 0..8), any::<Index>(), any::<bool>());
    fuzz::run(&inputs, |(bytes, cuts, end, is_cut)| {
        let bytes = &bytes[..if is_cut { end.index(bytes.len() + 1) } else { bytes.len() }];
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let (sdk, ours) = (by_the_sdk(bytes), by_frames(bytes, &cuts));
        prop_assert_eq!(&ours.messages, &sdk.messages);
        prop_assert_eq!(ours.is_whole, sdk.is_whole);
        // An incomplete message may already be rejected for the part that arrived.
        prop_assert!(ours.is_broken || !sdk.is_broken, "only the SDK refuses {:?}", bytes);
        prop_assert!(!ours.is_broken || !sdk.is_whole, "only the SDK reads {:?}", bytes);
        Ok(())
    });
}

fn by_the_sdk(bytes: &[u8]) -> Read {
    let (mut rest, mut decoder, mut messages) = (bytes, MessageFrameDecoder::new(), Vec::new());
    loop {
        let is_whole = rest.is_empty();
        match decoder.decode_frame(&mut rest) {
            Ok(DecodedFrame::Incomplete) => return Read { messages, is_broken: false, is_whole },
            Err(_) => return Read { messages, is_broken: true, is_whole: false },
            Ok(DecodedFrame::Complete(message)) => {
                let headers = Headers(message.headers().to_vec());
                let is_event = headers.text(":message-type") == "event"
                    && headers.text(":event-type") == "SubscribeToShardEvent";
                messages.push(if is_event {
                    event(records::read(message.payload(), &Budget::new(usize::MAX)))
                } else {
                    other(&headers, message.payload())
                });
            }
        }
    }
}

fn by_frames(bytes: &[u8], cuts: &[usize]) -> Read {
    let (budget, mut frames, mut messages) = (Budget::new(usize::MAX), Frames::default(), Vec::new());
    let mut begin = 0;
    for end in cuts {
        let mut part = Bytes::copy_from_slice(&bytes[begin..*end]);
        begin = *end;
        while !part.is_empty() {
            match frames.push(&mut part, &mut Some(budget.take(10))) {
                Ok(None) => {}
                Ok(Some(Decoded::Event(answer))) => messages.push(event(answer)),
                Ok(Some(Decoded::Other(headers, payload))) => messages.push(other(&headers, &payload)),
                Err(_) => return Read { messages, is_broken: true, is_whole: false },
            }
        }
    }
    Read { messages, is_broken: false, is_whole: frames.head.is_empty() && frames.body.is_none() }
}

/// The reasons are not compared: they depend on how much was read.
fn event(answer: Result<Answer, String>) -> String {
    let one_by_one = |answer: Answer| Answer { records: Records::Decoded(answer.records.decode()), ..answer };
    answer.map_or_else(|_| "not an answer".to_owned(), |answer| format!("{:?}", one_by_one(answer)))
}

fn other(headers: &Headers, payload: &[u8]) -> String {
    format!("{:?} {payload:?}", headers.0)
}

fn header() -> impl Strategy<Value = Header> {
    let name =
        select(&[":message-type", ":event-type", ":exception-type", ":content-type", "", "n\u{e9}"][..]);
    let value = prop_oneof![
        select(&["event", "exception", "SubscribeToShardEvent", "initial-response", "", "k\u{e9}"][..])
            .prop_map(|text| HeaderValue::String(text.to_owned().into())),
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<i8>().prop_map(HeaderValue::Byte),
        any::<i16>().prop_map(HeaderValue::Int16),
        any::<i32>().prop_map(HeaderValue::Int32),
        any::<i64>().prop_map(HeaderValue::Int64),
        any::<u128>().prop_map(HeaderValue::Uuid),
        (-1_000_000_000i64..1_000_000_000)
            .prop_map(|seconds| HeaderValue::Timestamp(aws_smithy_types::DateTime::from_secs(seconds))),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| HeaderValue::ByteArray(bytes.into())),
    ];
    (name, value).prop_map(|(name, value)| Header::new(name, value))
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let text = select(
        &[
            "",
            "{}",
            r#"{"Records":[],"ContinuationSequenceNumber":"51","MillisBehindLatest":0}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":"aGk=","PartitionKey":"k"}],"ContinuationSequenceNumber":"1"}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":"aGk="},{"SequenceNumber":"2","Data":"84mawgAA"}], "ChildShards":null}"#,
        ][..],
    );
    fuzz::changed(text.prop_map(|text| text.as_bytes().to_vec()), b"{}[]\",: ")
}

/// A message, possibly with malformed headers, wrong lengths or wrong checksums.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let usual = |kind: &'static str, name: &'static str, value: &'static str| {
        let text = |text: &'static str| HeaderValue::String(text.into());
        vec![Header::new(":message-type", text(kind)), Header::new(name, text(value))]
    };
    let headers = prop_oneof![
        4 => Just(usual("event", ":event-type", "SubscribeToShardEvent")),
        2 => Just(usual("exception", ":exception-type", "InternalFailureException")),
        2 => prop::collection::vec(header(), 0..4),
    ];
    let headers = headers.prop_map(|headers| {
        let message = headers.into_iter().fold(Message::new(Bytes::new()), Message::add_header);
        let mut bytes = Vec::new();
        write_message_to(&message, &mut bytes).unwrap();
        bytes[PRELUDE..bytes.len() - CHECKSUM].to_vec()
    });
    let headers = fuzz::changed(headers, b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x7f\x80\xff:");
    let lie = prop_oneof![
        20 => Just(0i64), 1 => -20i64..20, 1 => select(&[-100_000_000, 65_536, 200_000, 70_000_000, 4_294_967_295][..]),
    ];
    let checksums = prop_oneof![20 => Just((0, 0)), 1 => any::<(u32, u32)>()];
    (headers, payload(), lie.clone(), lie, checksums).prop_map(
        |(headers, payload, total, of_headers, wrong)| {
            let number = |bytes: usize, lie: i64| {
                let number = i64::try_from(bytes).unwrap().saturating_add(lie);
                u32::try_from(number.clamp(0, u32::MAX.into())).unwrap().to_be_bytes()
            };
            let length = PRELUDE + headers.len() + payload.len() + CHECKSUM;
            let mut bytes = [number(length, total), number(headers.len(), of_headers)].concat();
            bytes.extend((crc32fast::hash(&bytes) ^ wrong.0).to_be_bytes());
            bytes.extend([headers, payload].concat());
            bytes.extend((crc32fast::hash(&bytes) ^ wrong.1).to_be_bytes());
            bytes
        },
    )
}
