//! Decodes the messages of an event stream while they arrive: a message with records is never held as a
//! whole.
//!
//! A message consists of a prelude (its length, the length of its headers, a checksum of the two), headers, a
//! payload, and a checksum of everything before. The headers are decoded by the SDK.
//! <https://smithy.io/2.0/aws/amazon-eventstream.html>

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Header;
use bytes::{Buf as _, Bytes};
use crc32fast::Hasher;

use super::records::Arriving;
use crate::budget::Reservation;
use crate::retrieval::Answer;

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;
/// Most bytes of the headers (Smithy's limit), and of a payload without records (an error message).
const MOST: usize = 128 * 1024;
/// Most bytes of a message (AWS: 1 MiB or a single record of 10 MiB, in base64).
const LARGEST: usize = 64 * 1024 * 1024;

/// The state of the decoder.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Prelude and headers of the present message, as far as they have arrived.
    head: Vec<u8>,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    headers: Vec<Header>,
    sum: Hasher,
    payload: Payload,
    /// Bytes of the payload that have not arrived.
    left: usize,
    checksum: Vec<u8>,
}

#[derive(Debug)]
enum Payload {
    Records(Arriving),
    Other(Vec<u8>),
}

/// A complete message.
#[derive(Debug)]
pub(super) enum Decoded {
    /// An event with records, or why it is malformed.
    Event(Result<Answer, String>),
    /// Any other message: headers and payload.
    Other(Headers, Vec<u8>),
}

/// The headers of a message.
#[derive(Debug)]
pub(super) struct Headers(Vec<Header>);

impl Headers {
    /// The text of a header; empty if it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|header| header.name().as_str() == name);
        found.and_then(|header| header.value().as_string().ok()).map_or("", |text| text.as_str())
    }
}

/// Why no further messages can be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Unreadable(String),
    NoRoom(usize),
}

impl Frames {
    /// Consumes the bytes of `part` up to the end of the present message. The records of a message that
    /// starts here use the reservation `room`.
    pub(super) fn push(
        &mut self,
        part: &mut Bytes,
        room: &mut Option<Reservation>,
    ) -> Result<Option<Decoded>, Broken> {
        while !part.is_empty() {
            let Some(body) = &mut self.body else {
                let missing = self.missing()?;
                take(part, missing, &mut self.head);
                if self.missing()? == 0 {
                    self.body = Some(Body::begin(&self.head, room)?);
                }
                continue;
            };
            let piece = part.split_to(body.left.min(part.len()));
            body.sum.update(&piece);
            body.left -= piece.len();
            match &mut body.payload {
                Payload::Records(answer) if !piece.is_empty() => {
                    answer.push(&piece).map_err(Broken::NoRoom)?
                }
                Payload::Records(_) => {}
                Payload::Other(text) => text.extend_from_slice(&piece),
            }
            if body.left == 0 {
                take(part, CHECKSUM - body.checksum.len(), &mut body.checksum);
                if body.checksum.len() == CHECKSUM
                    && let Some(body) = self.body.take()
                {
                    self.head.clear();
                    return body.end().map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Bytes of the prelude, or then of the headers, that have not arrived.
    fn missing(&self) -> Result<usize, Broken> {
        if self.head.len() < PRELUDE {
            return Ok(PRELUDE - self.head.len());
        }
        let (_, headers) = lengths(&self.head)?;
        Ok(PRELUDE + headers - self.head.len())
    }
}

fn take(part: &mut Bytes, count: usize, to: &mut Vec<u8>) {
    to.extend_from_slice(&part.split_to(count.min(part.len())));
}

/// Lengths of the payload and of the headers.
fn lengths(head: &[u8]) -> Result<(usize, usize), Broken> {
    let unreadable = |what: String| Err(Broken::Unreadable(what));
    let mut prelude = &head[..PRELUDE];
    let (length, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
    if prelude.get_u32() != crc32fast::hash(&head[..PRELUDE - CHECKSUM]) {
        return unreadable("checksum mismatch in the prelude of a message".to_owned());
    }
    match length.checked_sub(PRELUDE + headers + CHECKSUM) {
        Some(payload) if length <= LARGEST && headers <= MOST => Ok((payload, headers)),
        _ => unreadable(format!("a message of {length} bytes, {headers} of them headers")),
    }
}

impl Body {
    fn begin(head: &[u8], room: &mut Option<Reservation>) -> Result<Self, Broken> {
        let (left, _) = lengths(head)?;
        let headers = Headers(read_headers(head)?);
        let is_records = headers.text(":message-type") == "event"
            && headers.text(":event-type") == "SubscribeToShardEvent";
        let payload = if is_records {
            let mut room = room.take().ok_or(Broken::NoRoom(left))?;
            // Kinesis cannot be asked for less. The replacement of a parsed part takes a little more.
            room.set(room.bytes().max(left + PRELUDE));
            Payload::Records(Arriving::new(room, Some(left)))
        } else if left <= MOST {
            Payload::Other(Vec::new())
        } else {
            return Err(Broken::Unreadable(format!("a message of {left} bytes without records")));
        };
        let mut sum = Hasher::new();
        sum.update(head);
        Ok(Self { headers: headers.0, sum, payload, left, checksum: Vec::new() })
    }

    fn end(self) -> Result<Decoded, Broken> {
        if self.checksum[..] != self.sum.finalize().to_be_bytes() {
            return Err(Broken::Unreadable("checksum mismatch in a message".to_owned()));
        }
        Ok(match self.payload {
            Payload::Records(answer) => Decoded::Event(answer.end()),
            Payload::Other(text) => Decoded::Other(Headers(self.headers), text),
        })
    }
}

/// Decodes headers with the SDK, which needs a whole message: one without a payload.
fn read_headers(head: &[u8]) -> Result<Vec<Header>, Broken> {
    let headers = &head[PRELUDE..];
    let unreadable = |what: &dyn std::fmt::Display| Broken::Unreadable(what.to_string());
    let length = |bytes: usize| u32::try_from(bytes).map_err(|error| unreadable(&error));
    let mut message = Vec::with_capacity(head.len() + CHECKSUM);
    message.extend(length(head.len() + CHECKSUM)?.to_be_bytes());
    message.extend(length(headers.len())?.to_be_bytes());
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(headers);
    message.extend(crc32fast::hash(&message).to_be_bytes());
    let message = read_message_from(&mut &message[..]).map_err(|error| unreadable(&error))?;
    Ok(message.headers().to_vec())
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{HeaderValue, Message};
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Budget;

    fn message(kind: &str, name: &str, value: &str, payload: String) -> Vec<u8> {
        let text = |text: &str| HeaderValue::String(text.to_owned().into());
        let message = Message::new(payload)
            .add_header(Header::new(":message-type", text(kind)))
            .add_header(Header::new(name.to_owned(), text(value)));
        let mut out = Vec::new();
        write_message_to(&message, &mut out).unwrap();
        out
    }

    /// An event with records of these sizes.
    fn event(sizes: &[usize], number: usize) -> Vec<u8> {
        let record = |(index, size): (usize, &usize)| {
            let data = "A".repeat(size / 4 * 4);
            format!(r#"{{"SequenceNumber":"{}","Data":"{data}","PartitionKey":"k"}}"#, index + 100)
        };
        let records: Vec<String> = sizes.iter().enumerate().map(record).collect();
        let text =
            format!(r#"{{"Records":[{}],"ContinuationSequenceNumber":"{number}"}}"#, records.join(","));
        message("event", ":event-type", "SubscribeToShardEvent", text)
    }

    /// The messages decoded from bytes that arrive in parts.
    fn decoded(bytes: &[u8], part: usize, budget: usize) -> Vec<String> {
        let (budget, mut frames, mut decoded) = (Budget::new(budget), Frames::default(), Vec::new());
        for part in bytes.chunks(part) {
            let mut part = Bytes::copy_from_slice(part);
            while !part.is_empty() {
                match frames.push(&mut part, &mut Some(budget.take(10))) {
                    Ok(None) => {}
                    Ok(Some(Decoded::Event(answer))) => {
                        let answer = answer.unwrap();
                        let sizes: Vec<usize> =
                            answer.records.decode().iter().map(|one| one.data.len()).collect();
                        decoded.push(format!("{sizes:?} {}", answer.next.unwrap()));
                    }
                    Ok(Some(Decoded::Other(headers, text))) => {
                        let kind = headers.text(":exception-type");
                        decoded.push(format!("{kind} {}", String::from_utf8_lossy(&text)));
                    }
                    Err(broken) => {
                        decoded.push(format!("{broken:?}"));
                        return decoded;
                    }
                }
            }
        }
        assert_eq!(budget.held(), 0, "but for what is on its way");
        decoded
    }

    #[test]
    fn incomplete_or_corrupt_message_is_not_decoded() {
        let whole = event(&[4, 8], 1);
        assert_eq!(decoded(&whole, 1, 1_000), ["[4, 8] 1"]);
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            let decoded = decoded(&[broken, event(&[], 2)].concat(), 9, 1_000);
            assert!(decoded.len() == 1 && decoded[0].starts_with("Unreadable"), "{at}: {decoded:?}");
        }
        let (mut frames, mut part) = (Frames::default(), Bytes::from(whole));
        assert!(matches!(frames.push(&mut part, &mut None), Err(Broken::NoRoom(_))), "never without records");
        let large = message("event", ":event-type", "Other", "x".repeat(MOST + 1));
        assert!(decoded(&large, 1_000, 1_000)[0].contains("without records"));
    }

    proptest! {
        #[test]
        fn messages_are_decoded_however_they_are_split(
            sizes in proptest::collection::vec(proptest::collection::vec(0usize..200, 0..6), 1..6),
            large in 0usize..100_000, part in 1usize..400, room in prop_oneof![Just(100), Just(10_000_000)],
        ) {
            let mut sizes = sizes;
            sizes[0].push(large);
            let mut bytes = message("event", ":event-type", "initial-response", String::new());
            let mut expected = vec![" ".to_owned()];
            for (number, sizes) in sizes.iter().enumerate() {
                bytes.extend(event(sizes, number));
                let whole: Vec<usize> = sizes.iter().map(|size| size / 4 * 4).collect();
                expected.push(format!("{whole:?} {number}"));
            }
            bytes.extend(message("exception", ":exception-type", "E", "{}".to_owned()));
            expected.push("E {}".to_owned());
            prop_assert_eq!(decoded(&bytes, part, room), expected);
        }
    }
}
