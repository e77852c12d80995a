//! An answer that is read while it comes, so that its bytes are looked at once and not kept.
//!
//! Its records go straight into the line for the child. From where that can't be, what comes is kept as it is, and read
//! at the end.

use super::read_whole;
use super::scan::{Left, Read, Scan};
use crate::batch::{Encoder, Records};
use crate::budget::Reservation;
use crate::record::Record;
use crate::retrieval::Answer;

/// How much of a part is looked at, to begin with, for the rest of what came in two.
const REST: usize = 512;

/// Longer than a record of the usual limit, 1 MiB of data in base64.
const LONGEST: usize = 2 * 1024 * 1024;

/// An answer on its way.
#[derive(Debug)]
pub(in super::super) struct Arriving {
    state: State,
    /// How long it is, if that was promised, and how much came.
    length: Option<usize>,
    came: usize,
}

#[derive(Debug)]
enum State {
    Reading(Box<Reading>),
    Keeping(Keeping),
}

/// As long as what comes is read.
#[derive(Debug)]
struct Reading {
    scan: Scan,
    /// What came and wasn't read: the beginning of a field or of a record.
    kept: Vec<u8>,
    /// Its room, whatever is free.
    beside: Reservation,
    /// How long that is once it is worth another look: each costs as much as there is.
    look: usize,
}

/// From where that can't be read.
#[derive(Debug)]
struct Keeping {
    /// Records that were.
    records: Vec<Record>,
    /// What stands for the beginning, and the rest.
    body: Vec<u8>,
    room: Reservation,
    /// Where in the body a record must begin: a comma precedes it, which is not in the body.
    record_at: Option<usize>,
}

impl Arriving {
    /// An answer of that length, if it is known, in that room.
    pub(in super::super) fn new(room: Reservation, length: Option<usize>) -> Self {
        let beside = room.budget().nothing();
        let reading = Reading { scan: Scan::new(room), kept: Vec::new(), beside, look: REST };
        Self { state: State::Reading(Box::new(reading)), length, came: 0 }
    }

    /// The next part.
    ///
    /// # Errors
    /// There is no room for so many bytes.
    pub(in super::super) fn push(&mut self, part: &[u8]) -> Result<(), usize> {
        let left = self.length.map_or(part.len(), |length| length.saturating_sub(self.came));
        self.came += part.len();
        match &mut self.state {
            State::Reading(reading) => {
                let is_over = reading.push(part, left);
                // Large records aren't worth to be copied, but where the others are in a line; and what isn't understood
                // by then never will be.
                if is_over || reading.kept.len() >= reading.most() {
                    let left = self.length.map(|length| length.saturating_sub(self.came));
                    self.state = State::Keeping(reading.leave(left)?);
                }
                Ok(())
            }
            State::Keeping(keeping) => keeping.push(part),
        }
    }

    /// That was all.
    ///
    /// # Errors
    /// It can't be understood: what is wrong, and with which record.
    pub(in super::super) fn end(self) -> Result<Answer, String> {
        match self.state {
            State::Reading(reading) => reading.end(),
            State::Keeping(keeping) => keeping.end(self.length.is_some()),
        }
    }
}

impl Reading {
    /// As much as is kept.
    fn most(&self) -> usize {
        if self.scan.has_line() { LONGEST } else { Encoder::LARGE }
    }

    /// Reads what was kept with what follows it; whether that is all that can be read.
    fn push(&mut self, part: &[u8], left: usize) -> bool {
        let mut part = part;
        // Only as much is copied as belongs to what came in two.
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

    /// So many bytes are left, if that is known.
    fn leave(&mut self, left: Option<usize>) -> Result<Keeping, usize> {
        let has_line = self.scan.has_line();
        let Left { records, stands, wants_record, mut room } = self.scan.leave();
        let beginning = stands.len() + self.kept.len();
        let bytes = left.map_or(2 * beginning, |left| beginning + left);
        let mut body = match room.memory(bytes) {
            Some(memory) => memory,
            None if !has_line => return Err(bytes),
            // The line has the room that was meant for it.
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
        // What is there is the last of it.
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
            // They come again with it.
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
        self.records.extend(rest.records.each());
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

    /// What comes of an answer in parts that end there.
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
        Answer { records: Records::Decoded(answer.records.each()), ..answer }
    }

    fn record(number: u32, data: usize, key: &str) -> String {
        let data = "AAAA".repeat(data / 4);
        format!(
            r#"{{"SequenceNumber":"{number}","ApproximateArrivalTimestamp":1795405837.483,"Data":"{data}","PartitionKey":"{key}"}}"#
        )
    }

    /// By its beginning.
    fn aggregate(number: u32, data: usize) -> String {
        record(number, data, "k").replacen("AAAA", "84ma", 1).replacen("AAAA", "wAAA", 1)
    }

    fn answer(records: &[String], fields_first: bool) -> String {
        let records = format!(r#""Records":[{}]"#, records.join(","));
        let fields = r#""NextShardIterator":"AAAAAAAAAAAA","MillisBehindLatest":86399123"#;
        if fields_first { format!("{{{fields},{records}}}") } else { format!("{{{records},{fields}}}") }
    }

    #[test]
    fn wherever_it_is_cut_the_usual_form_goes_into_a_line() {
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
    fn what_comes_twice_or_behind_a_comma_is_refused_as_ever() {
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
    fn the_rest_of_what_is_half_in_a_line_holds_no_more_than_itself() {
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
    fn large_records_behind_a_small_one_are_looked_at_only_a_few_times() {
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
    fn who_has_no_room_for_the_rest_is_told_what_all_of_it_takes() {
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
        fn records_of_every_kind_are_read_as_any_json_is_however_they_come(
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
