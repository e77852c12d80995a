//! Parses an answer while it arrives, so that its bytes are read once and not kept.
//!
//! Its records are encoded directly into the line for the child. From the point where that is not possible,
//! the rest of the answer is kept and parsed at the end.

use super::read_whole;
use super::scan::{Left, Read, Scan};
use crate::batch::{Encoder, Records};
use crate::budget::Reservation;
use crate::record::Record;
use crate::retrieval::Answer;

/// Bytes of a new part that are appended at first to an incomplete field or record.
const REST: usize = 512;

/// More bytes than a record of the default limit, 1 MiB of data in base64.
const LONGEST: usize = 2 * 1024 * 1024;

/// An answer that is arriving.
#[derive(Debug)]
pub(in super::super) struct Arriving {
    state: State,
    /// The announced length, if there is one, and the number of bytes received.
    length: Option<usize>,
    came: usize,
}

#[derive(Debug)]
enum State {
    Reading(Box<Reading>),
    Keeping(Keeping),
}

/// The state while the bytes are parsed.
#[derive(Debug)]
struct Reading {
    scan: Scan,
    /// Bytes received but not parsed: an incomplete field or record.
    kept: Vec<u8>,
    /// The reservation of `kept`, beyond the limit if necessary.
    beside: Reservation,
    /// The length of `kept` at which it is parsed again: each attempt reads all of it.
    look: usize,
}

/// The state from the point where the bytes cannot be parsed.
#[derive(Debug)]
struct Keeping {
    /// The records parsed before.
    records: Vec<Record>,
    /// A replacement for the parsed part, and the rest.
    body: Vec<u8>,
    room: Reservation,
    /// The offset in `body` at which a record must begin, because a comma precedes it that is not in `body`.
    record_at: Option<usize>,
}

impl Arriving {
    /// An answer with this announced length, if there is one, in the reservation `room`.
    pub(in super::super) fn new(room: Reservation, length: Option<usize>) -> Self {
        let beside = room.budget().nothing();
        let reading = Reading { scan: Scan::new(room), kept: Vec::new(), beside, look: REST };
        Self { state: State::Reading(Box::new(reading)), length, came: 0 }
    }

    /// Parses or keeps the next part.
    ///
    /// # Errors
    /// The number of bytes for which there is no memory.
    pub(in super::super) fn push(&mut self, part: &[u8]) -> Result<(), usize> {
        let left = self.length.map_or(part.len(), |length| length.saturating_sub(self.came));
        self.came += part.len();
        match &mut self.state {
            State::Reading(reading) => {
                let is_over = reading.push(part, left);
                // Large records are not worth copying unless the others are in a line already; and bytes that
                // cannot be parsed by then never can be.
                if is_over || reading.kept.len() >= reading.most() {
                    let left = self.length.map(|length| length.saturating_sub(self.came));
                    self.state = State::Keeping(reading.leave(left)?);
                }
                Ok(())
            }
            State::Keeping(keeping) => keeping.push(part),
        }
    }

    /// Finishes the answer.
    ///
    /// # Errors
    /// The answer is malformed: the fault, and the record.
    pub(in super::super) fn end(self) -> Result<Answer, String> {
        match self.state {
            State::Reading(reading) => reading.end(),
            State::Keeping(keeping) => keeping.end(self.length.is_some()),
        }
    }
}

impl Reading {
    /// Most bytes that are kept.
    fn most(&self) -> usize {
        if self.scan.has_line() { LONGEST } else { Encoder::LARGE }
    }

    /// Parses the kept bytes together with `part`. Returns whether parsing cannot continue.
    fn push(&mut self, part: &[u8], left: usize) -> bool {
        let mut part = part;
        // Only the rest of the incomplete field or record is copied.
        while !self.kept.is_empty() {
            let before = self.kept.len();
            let (more, rest) = part.split_at(self.look.saturating_sub(before).min(part.len()));
            self.keep(more);
            if self.kept.len() < self.look {
                return false;
            }
            let Read { bytes, is_over } = self.scan.more(&self.kept, left);
            if bytes < before || is_over {
                self.kept.drain(..bytes);
                part = rest;
            } else {
                self.kept.clear();
                part = &part[bytes - before..];
            }
            self.look = self.next_look();
            if is_over {
                self.keep(part);
                return true;
            }
            if self.kept.len() >= self.most() {
                self.keep(part);
                return false;
            }
        }
        let Read { bytes, is_over } = self.scan.more(part, left);
        self.keep(&part[bytes..]);
        self.look = self.next_look();
        is_over
    }

    fn next_look(&self) -> usize {
        (self.kept.len() * 2).min(self.most()).max(self.kept.len() + 1).max(REST)
    }

    fn keep(&mut self, part: &[u8]) {
        self.kept.extend_from_slice(part);
        if self.kept.capacity() != self.beside.bytes() {
            self.beside.set(self.kept.capacity());
        }
    }

    /// Stops parsing. `left` is the number of bytes to come, if known.
    fn leave(&mut self, left: Option<usize>) -> Result<Keeping, usize> {
        let has_line = self.scan.has_line();
        let Left { records, stands, wants_record, mut room } = self.scan.leave();
        let beginning = stands.len() + self.kept.len();
        let bytes = left.map_or(2 * beginning, |left| beginning + left);
        let mut body = match room.memory(bytes) {
            Some(memory) => memory,
            None if !has_line => return Err(bytes),
            // The line uses the memory that was reserved for the answer.
            None => {
                room.set(bytes);
                Vec::with_capacity(bytes)
            }
        };
        body.extend_from_slice(&stands);
        body.extend_from_slice(&self.kept);
        Ok(Keeping { records, body, room, record_at: wants_record.then_some(stands.len()) })
    }

    fn end(mut self: Box<Self>) -> Result<Answer, String> {
        // Everything has arrived.
        let Read { bytes, .. } = self.scan.more(&self.kept, 0);
        self.kept.drain(..bytes);
        if self.kept.is_empty()
            && let Some(answer) = self.scan.end()
        {
            return Ok(answer);
        }
        let Left { records, stands, wants_record, .. } = self.scan.leave();
        let record_at = wants_record.then_some(stands.len());
        let body = [stands, self.kept].concat();
        Keeping { records, body, room: self.beside, record_at }.end(false)
    }
}

impl Keeping {
    fn push(&mut self, part: &[u8]) -> Result<(), usize> {
        let needed = self.body.len() + part.len();
        if needed > self.room.bytes() && !self.room.resize(needed * 2) && !self.room.resize(needed) {
            // The records are read again, with the whole answer.
            return Err(needed * 2 + self.records.iter().map(Record::weight).sum::<usize>());
        }
        self.body.extend_from_slice(part);
        Ok(())
    }

    fn end(mut self, has_length: bool) -> Result<Answer, String> {
        let rest = self.record_at.and_then(|at| self.body.get(at..)).unwrap_or_default();
        if rest.trim_ascii_start().starts_with(b"]") {
            return Err("failed to decode the GetRecords response: no record follows a comma".to_owned());
        }
        if !has_length {
            self.body.shrink_to_fit();
        }
        self.room.set(self.body.capacity());
        let rest = read_whole(&self.room.fill_memory(self.body))?;
        if self.records.is_empty() {
            return Ok(rest);
        }
        self.records.extend(rest.records.decode());
        Ok(Answer { records: Records::Decoded(self.records), ..rest })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;
    use crate::budget::Budget;

    /// The result of an answer whose parts end at these offsets.
    fn arrived(
        text: &str,
        ends: &[usize],
        room: Reservation,
        length: Option<usize>,
    ) -> Result<Answer, String> {
        let mut arriving = Arriving::new(room, length);
        let mut begin = 0;
        for end in ends.iter().copied().chain([text.len()]) {
            let end = end.clamp(begin, text.len());
            arriving
                .push(&text.as_bytes()[begin..end])
                .map_err(|needed| format!("no room for {needed} bytes"))?;
            begin = end;
        }
        arriving.end()
    }

    fn one_by_one(answer: Answer) -> Answer {
        Answer { records: Records::Decoded(answer.records.decode()), ..answer }
    }

    fn record(number: u32, data: usize, key: &str) -> String {
        let data = "AAAA".repeat(data / 4);
        format!(
            r#"{{"SequenceNumber":"{number}","ApproximateArrivalTimestamp":1795405837.483,"Data":"{data}","PartitionKey":"{key}"}}"#
        )
    }

    /// An aggregate, by its first bytes.
    fn aggregate(number: u32, data: usize) -> String {
        record(number, data, "k").replacen("AAAA", "84ma", 1).replacen("AAAA", "wAAA", 1)
    }

    fn answer(records: &[String], fields_first: bool) -> String {
        let records = format!(r#""Records":[{}]"#, records.join(","));
        let fields = r#""NextShardIterator":"AAAAAAAAAAAA","MillisBehindLatest":86399123"#;
        if fields_first { format!("{{{fields},{records}}}") } else { format!("{{{records},{fields}}}") }
    }

    #[test]
    fn usual_answer_is_encoded_wherever_it_is_split() {
        let budget = Budget::new(1_000_000);
        for (fields_first, last) in [(false, 40), (true, 40), (false, 2_000), (true, 700)] {
            let text =
                answer(&[record(9, 40, "k"), record(10, 40, "k"), record(11, last, "k")], fields_first);
            let parsed = parse(&Bytes::from(text.clone())).unwrap();
            for at in 0..text.len() {
                for ends in [vec![at], vec![at, at + 1], vec![at, at + 514], (at..text.len()).collect()] {
                    let answer = arrived(&text, &ends, budget.nothing(), Some(text.len())).unwrap();
                    assert!(matches!(answer.records, Records::Encoded(_)), "{at}");
                    assert_eq!(one_by_one(answer), parsed, "{at}");
                }
            }
        }
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn duplicate_fields_and_stray_commas_are_rejected() {
        let one = record(5, 4, "k");
        for text in [
            format!(r#"{{"Records":[{one}],"Records":[{one}]}}"#),
            format!(r#"{{"Records":[{one}],"Records":[]}}"#),
            format!(r#"{{"Records":[],"Records":[{one}]}}"#),
            format!(r#"{{"Records":[{one},]}}"#),
            format!(r#"{{"Records":[{one}, ]}}"#),
            format!("{{\"Records\":[{one},{}\n]}}", " ".repeat(3_000)),
            r#"{"Records":[{"SequenceNumber":"1","Data":"","EncryptionType":"null}]}"#.to_owned(),
            format!(r#"{{"Records":[{one}],}}"#),
            format!(r#"{{"Records":[{one}],"NextShardIterator":"a","NextShardIterator":null}}"#),
            format!(r#"{{"MillisBehindLatest":1,"Records":[{one}],"MillisBehindLatest":1}}"#),
            format!(r#"{{"Records":[{one}]}}x"#),
            format!(r#"{{"Records":[{one}]"#),
        ] {
            assert!(parse(&Bytes::from(text.clone())).is_err(), "{text}");
            for part in [1, 7, 1_000] {
                let ends: Vec<usize> = (0..text.len()).step_by(part).collect();
                let room = Budget::new(100_000).nothing();
                assert!(arrived(&text, &ends, room, Some(text.len())).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn rest_of_a_half_encoded_answer_holds_only_itself() {
        let budget = Budget::new(usize::MAX);
        let plain = record(1, 400, "k");
        let aggregate = aggregate(2, 400);
        let text = answer(&[vec![plain], vec![aggregate; 5_000]].concat(), true);
        let read = arrived(&text, &[], budget.nothing(), Some(text.len())).unwrap();
        assert_eq!(read.records.len(), 5_001);
        assert!(budget.held() < text.len() + 600_000, "{} of {}", budget.held(), text.len());
        drop(read);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn large_records_are_scanned_only_a_few_times() {
        let text = answer(&[record(1, 40, "k"), record(2, 1_400_000, "k"), record(3, 1_400_000, "k")], false);
        let mut arriving = Arriving::new(Budget::new(100_000_000).nothing(), Some(text.len()));
        let mut looks = Vec::new();
        for part in text.as_bytes().chunks(64) {
            arriving.push(part).unwrap();
            let State::Reading(reading) = &arriving.state else { panic!("it is kept") };
            looks.push(reading.look);
        }
        looks.dedup();
        assert!(looks.len() < 60, "{looks:?}");
        let read = arriving.end().unwrap();
        assert!(matches!(read.records, Records::Encoded(_)));
        assert_eq!(read.records.len(), 3);
    }

    #[test]
    fn reports_total_size_when_the_budget_cannot_hold_the_rest() {
        let text = answer(&[record(1, 4_000, "k"), aggregate(2, 80), record(3, 40_000, "k")], false);
        let budget: Arc<Budget> = Budget::new(20_000);
        let _other = budget.take(1_000);
        let ends: Vec<usize> = (0..text.len()).step_by(1_000).collect();
        let error = arrived(&text, &ends, budget.nothing(), None).map(|read| read.records.len()).unwrap_err();
        let needed: usize = error.split(' ').nth(3).unwrap().parse().unwrap();
        assert!(needed > 20_000, "{error}");
        assert_eq!(budget.held(), 1_000);
    }

    #[derive(Debug, Clone)]
    enum Kind {
        Plain(usize),
        Aggregate,
        Escaped,
        Odd,
        Again,
        Back,
    }

    proptest! {
        #[test]
        fn arriving_answer_equals_parsed_json(
            kinds in proptest::collection::vec(
                prop_oneof![
                    8 => (0usize..600).prop_map(Kind::Plain),
                    1 => Just(Kind::Plain(40_000)),
                    1 => Just(Kind::Aggregate),
                    1 => Just(Kind::Escaped),
                    1 => Just(Kind::Odd),
                    1 => Just(Kind::Again),
                    1 => Just(Kind::Back),
                ],
                0..12,
            ),
            fields_first: bool, has_length: bool, part in 1usize..3_000,
            room in prop_oneof![Just(600), Just(9_000), Just(10_000_000)],
        ) {
            let mut number = 100;
            let records: Vec<String> = kinds.iter().map(|kind| {
                number += 1;
                match kind {
                    Kind::Plain(size) => record(number, *size, "kéy"),
                    Kind::Aggregate => aggregate(number, 80),
                    Kind::Escaped => record(number, 80, "\\u00e9\\\""),
                    Kind::Odd => record(number, 80, "k").replacen(":1795", ": 1795", 1),
                    Kind::Again => record(number - 1, 80, "k"),
                    Kind::Back => record(number - 5, 80, "k"),
                }
            }).collect();
            let text = answer(&records, fields_first);
            let budget = Budget::new(room);
            let other = budget.take(1);
            let ends: Vec<usize> = (0..text.len()).step_by(part).collect();
            let length = has_length.then_some(text.len());
            match arrived(&text, &ends, budget.nothing(), length) {
                Err(error) => prop_assert!(error.contains("no room") && room < 10_000_000, "{error}"),
                Ok(answer) => {
                    let is_plain = kinds.iter().all(|kind| matches!(kind, Kind::Plain(..=600)));
                    if is_plain && room == 10_000_000 && !kinds.is_empty() {
                        prop_assert!(matches!(answer.records, Records::Encoded(_)));
                    }
                    prop_assert_eq!(one_by_one(answer), parse(&Bytes::from(text)).unwrap());
                }
            }
            drop(other);
            prop_assert_eq!(budget.held(), 0);
        }
    }
}
