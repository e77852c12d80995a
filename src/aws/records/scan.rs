//! Parses an answer in its usual form, in one pass and while it arrives.
//!
//! Kinesis writes neither blanks nor escapes and always the same few fields, and most of an answer is data
//! that need not be searched. Any other form is not parsed here: [`Scan`] then returns nothing, and the
//! answer is parsed as JSON. Both parsers agree on all answers that this one accepts, which a test checks.

use bytes::Bytes;
use memchr::memchr;
use multilangd_protocol::bytewise::{is_number, is_plain};
use multilangd_protocol::{PlainRecord, Seconds, Time};

use super::{Child, millis, read_child};
use crate::batch::{Encoder, MOST_RECORDS, Records};
use crate::budget::Reservation;
use crate::record::{self, Data, Record, Text};
use crate::retrieval::{Answer, aggregation};
use crate::sequence::SequenceNumber;
use crate::shard::ChildShard;

/// An incremental parser, which encodes the records into a line for the child.
#[derive(Debug)]
pub(super) struct Scan {
    state: State,
    /// Lengths of the previous record's data and sequence number, as estimates for the next one.
    like: (usize, usize),
    /// The reservation for the line; empty once the line is started.
    room: Reservation,
    line: Option<Encoder>,
    found: Found,
    /// The text of the parsed fields; for records only the fact that there were some.
    seen: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    /// Before a field name.
    Field,
    /// Before a record.
    Records,
    /// After a field's value.
    Value,
    End,
}

/// Parsed fields other than the line.
#[derive(Debug, Default)]
struct Found {
    records: Option<Vec<Record>>,
    next: Option<Option<String>>,
    behind: Option<i64>,
    children: Option<Vec<ChildShard>>,
}

/// The result of parsing a piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Read {
    pub(super) bytes: usize,
    /// Whether the bytes that follow cannot be parsed here, whatever comes after them.
    pub(super) is_over: bool,
}

impl Scan {
    /// A parser whose line is encoded in the reservation `room`.
    pub(super) fn new(room: Reservation) -> Self {
        Self {
            state: State::Begin,
            like: (0, 0),
            room,
            line: None,
            found: Found::default(),
            seen: Vec::new(),
        }
    }

    /// Whether records are in a line.
    pub(super) fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// Continues with `text`, which follows the parsed bytes. `left` is the number of bytes from there to the
    /// end of the answer.
    pub(super) fn more(&mut self, text: &[u8], left: usize) -> Read {
        let mut read = Read { bytes: 0, is_over: false };
        while self.state != State::End && !read.is_over {
            let mut cursor = Cursor { body: text, at: read.bytes, like: self.like };
            let Some(state) = self.step(&mut cursor, &mut read, left) else { break };
            if state == State::Value {
                // An empty list of records is a field like any other.
                let text =
                    if self.state == State::Field { &text[read.bytes..cursor.at] } else { b"\"Records\":[]" };
                self.seen.extend_from_slice(text);
                self.seen.push(b',');
            }
            (read.bytes, self.like, self.state) = (cursor.at, cursor.like, state);
        }
        read
    }

    /// Parses one step. None if that is impossible, or not possible yet; then nothing is changed, except for
    /// parsed records.
    fn step(&mut self, cursor: &mut Cursor<'_>, read: &mut Read, left: usize) -> Option<State> {
        match self.state {
            State::Begin => cursor.eat(b'{').map(|()| State::Field),
            State::Field => {
                let name = cursor.quoted()?;
                cursor.eat(b':')?;
                if name != b"Records" {
                    return self.found.field(name, cursor).map(|()| State::Value);
                }
                cursor.eat(b'[')?;
                if self.line.is_some() || self.found.records.is_some() {
                    return None;
                }
                if cursor.is_next(b']') {
                    cursor.at += 1;
                    self.found.records = Some(Vec::new());
                    return Some(State::Value);
                }
                // The list is not empty.
                cursor.is_next(b'{').then_some(State::Records)
            }
            // Parses all records that are complete, in one loop.
            State::Records => loop {
                (read.bytes, self.like) = (cursor.at, cursor.like);
                let record = cursor.record()?;
                let after = cursor.after(b']')?;
                let (rest, this) = (left.saturating_sub(read.bytes), cursor.at - read.bytes);
                if self.take(&record, || rest / this + 1).is_none() {
                    read.is_over = true;
                    return None;
                }
                if after {
                    return Some(State::Value);
                }
            },
            State::Value => cursor.after(b'}').map(|after| if after { State::End } else { State::Field }),
            State::End => None,
        }
    }

    /// Adds a record to the line, in which `count` are expected. None if it cannot be in a line.
    fn take(&mut self, record: &PlainRecord<'_>, count: impl FnOnce() -> usize) -> Option<()> {
        if aggregation::may_be(record.data) {
            return None;
        }
        if let Some(line) = &mut self.line {
            return line.add(record);
        }
        if record.data.len() >= Encoder::LARGE {
            return None;
        }
        let nothing = self.room.budget().nothing();
        match Encoder::begin(std::mem::replace(&mut self.room, nothing), record, count()) {
            Ok(line) => self.line.insert(line).add(record),
            Err(room) => {
                self.room = room;
                None
            }
        }
    }

    /// The answer, if all of it was parsed.
    pub(super) fn end(&mut self) -> Option<Answer> {
        if self.state != State::End {
            return None;
        }
        let behind = self.found.behind;
        let ready =
            self.line.take().map(|line| line.end(behind).map(|ready| Records::Encoded(Box::new(ready))));
        let answer = std::mem::take(&mut self.found).answer();
        match ready {
            Some(ready) => Some(Answer { records: ready?, ..answer }),
            None => Some(answer),
        }
    }

    /// Returns what was parsed so far, so that the rest can be parsed as JSON.
    pub(super) fn leave(&mut self) -> Left {
        let seen = &self.seen[..];
        let whole = seen.strip_suffix(b",").unwrap_or_default();
        let stands = match self.state {
            State::Begin => Vec::new(),
            State::Field => [b"{", seen].concat(),
            State::Records => [b"{", seen, b"\"Records\":["].concat(),
            State::Value => [b"{", whole].concat(),
            State::End => [b"{", whole, b"}"].concat(),
        };
        let (line, budget) = (self.line.take(), self.room.budget().clone());
        let records = line.and_then(|line| line.end(None)).map_or_else(Vec::new, |line| line.decode());
        let wants_record = self.state == State::Records;
        Left { records, stands, wants_record, room: std::mem::replace(&mut self.room, budget.nothing()) }
    }
}

/// The state of a [`Scan`] that stops.
#[derive(Debug)]
pub(super) struct Left {
    /// The records of the line.
    pub(super) records: Vec<Record>,
    /// The text before the rest of the answer. Together they are an answer without the records of the line.
    pub(super) stands: Vec<u8>,
    /// Whether the rest must begin with a record.
    pub(super) wants_record: bool,
    /// The reservation for the line; an empty one if the line was started.
    pub(super) room: Reservation,
}

/// Parses a complete answer into single records.
pub(super) fn scan(body: &Bytes) -> Option<Answer> {
    let mut cursor = Cursor { body, at: 0, like: (0, 0) };
    let mut found = Found::default();
    cursor.object(|cursor, name| match name {
        b"Records" => once(&mut found.records, cursor.records(body)?),
        name => found.field(name, cursor),
    })?;
    (cursor.at == body.len()).then(|| found.answer())
}

impl Found {
    fn answer(self) -> Answer {
        Answer {
            records: Records::Decoded(self.records.unwrap_or_default()),
            next: self.next.flatten(),
            millis_behind_latest: self.behind,
            children: self.children.unwrap_or_default(),
        }
    }

    /// Parses a field other than the records.
    fn field(&mut self, name: &[u8], cursor: &mut Cursor<'_>) -> Option<()> {
        match name {
            b"NextShardIterator" | b"ContinuationSequenceNumber" => once(&mut self.next, cursor.token()?),
            b"MillisBehindLatest" => {
                let number = std::str::from_utf8(cursor.number()?).ok()?;
                once(&mut self.behind, number.parse().ok()?)
            }
            b"ChildShards" => once(&mut self.children, cursor.children()?),
            _ => None,
        }
    }
}

/// None if the field occurs twice, which is not the usual form.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.is_none().then(|| *place = Some(value))
}

struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
    like: (usize, usize),
}

#[derive(Clone, Copy)]
enum Name {
    SequenceNumber,
    Data,
    PartitionKey,
    ApproximateArrivalTimestamp,
    EncryptionType,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    fn is_next(&self, byte: u8) -> bool {
        self.body.get(self.at) == Some(&byte)
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.is_next(byte).then(|| self.at += 1)
    }

    fn eat_all(&mut self, text: &[u8]) -> Option<()> {
        self.rest().starts_with(text).then(|| self.at += text.len())
    }

    /// Whether `end` follows, rather than a comma.
    fn after(&mut self, end: u8) -> Option<bool> {
        let is_end = self.is_next(end);
        if !is_end && !self.is_next(b',') {
            return None;
        }
        self.at += 1;
        Some(is_end)
    }

    /// The text between two quotes. It may end in a backslash and so be incomplete: the caller checks the
    /// characters.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let rest = self.rest();
        let text = &rest[..memchr(b'"', rest)?];
        self.at += text.len() + 1;
        Some(text)
    }

    /// As [`Cursor::quoted`], if the text has this length and is valid; text with a quote in it is never
    /// valid.
    fn quoted_like(&mut self, length: usize, is_good: impl Fn(&[u8]) -> bool) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let rest = self.rest();
        if rest.get(length) == Some(&b'"') && is_good(&rest[..length]) {
            self.at += length + 1;
            return Some(&rest[..length]);
        }
        self.at -= 1;
        self.quoted().filter(|text| is_good(text))
    }

    /// A field name of a record, with its quotes and colon.
    fn name(&mut self) -> Option<Name> {
        // With lengths known at compile time each name is compared at once.
        macro_rules! name {
            ($text:literal, $name:expr) => {
                if self.rest().first_chunk() == Some($text) {
                    self.at += $text.len();
                    return Some($name);
                }
            };
        }
        name!(b"\"SequenceNumber\":", Name::SequenceNumber);
        name!(b"\"ApproximateArrivalTimestamp\":", Name::ApproximateArrivalTimestamp);
        name!(b"\"Data\":", Name::Data);
        name!(b"\"PartitionKey\":", Name::PartitionKey);
        name!(b"\"EncryptionType\":", Name::EncryptionType);
        None
    }

    /// Text without escapes.
    fn text(&mut self) -> Option<&'a [u8]> {
        let text = self.quoted()?;
        let is_special = |byte: &u8| *byte == b'\\' || *byte < 0x20;
        let is_good = is_plain(text) || (!text.iter().any(is_special) && std::str::from_utf8(text).is_ok());
        is_good.then_some(text)
    }

    fn number(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let is_part = |byte: &&u8| byte.is_ascii_digit() || b".E-".contains(byte);
        let number = &rest[..rest.iter().take_while(is_part).count()];
        // JSON does not allow numbers such as 007, .5, 5. or 1E.
        let [first, ..] = number else { return None };
        let is_usual = first.is_ascii_digit()
            && (*first != b'0' || number.len() == 1 || number[1] == b'.')
            && number.last()?.is_ascii_digit()
            && number.iter().zip(&number[1..]).all(|pair| pair.0.is_ascii_digit() || pair.1.is_ascii_digit());
        self.at += number.len();
        // The number may be incomplete.
        (is_usual && (self.is_next(b',') || self.is_next(b'}'))).then_some(number)
    }

    /// A time other than [`Seconds`] is parsed by [`millis`].
    #[inline(always)]
    fn time(&mut self) -> Option<Time<'a>> {
        let rest = self.rest();
        let seconds = rest.first_chunk().and_then(Seconds::read);
        match seconds.filter(|seconds| matches!(rest.get(seconds.length()), Some(b',' | b'}'))) {
            Some(seconds) => {
                self.at += seconds.length();
                Some(Time::Seconds(seconds))
            }
            None => self.any_time(),
        }
    }

    #[cold]
    fn any_time(&mut self) -> Option<Time<'a>> {
        let number = std::str::from_utf8(self.number()?).ok()?;
        millis(number).map(Time::Millis)
    }

    /// `null` or a text; an empty text means none.
    fn token(&mut self) -> Option<Option<String>> {
        if self.eat_all(b"null").is_some() {
            return Some(None);
        }
        let text = std::str::from_utf8(self.text()?).ok()?;
        Some((!text.is_empty()).then(|| text.to_owned()))
    }

    /// Rare, and so parsed by `serde_json`.
    fn children(&mut self) -> Option<Vec<ChildShard>> {
        let mut values =
            serde_json::Deserializer::from_slice(self.rest()).into_iter::<Option<Vec<Child<'_>>>>();
        let children = values.next()?.ok()?.unwrap_or_default();
        self.at += values.byte_offset();
        children.iter().map(read_child).collect::<Result<_, _>>().ok()
    }

    /// Parses an object; `field` parses the value of each name.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        loop {
            let name = self.quoted()?;
            self.eat(b':')?;
            field(self, name)?;
            if self.after(b'}')? {
                return Some(());
            }
        }
    }

    /// Single records, as slices of the body.
    fn records(&mut self, body: &Bytes) -> Option<Vec<Record>> {
        self.eat(b'[')?;
        let mut records = Vec::new();
        if self.eat(b']').is_some() {
            return Some(records);
        }
        let begin = self.at;
        loop {
            let record = self.record()?;
            records.push(Record {
                sequence: SequenceNumber::of_digits(record.sequence_number)?,
                sub: 0,
                partition_key: Text::within(body, record.partition_key)?,
                data: Data::within(body, record.data),
                arrival: record.approximate_arrival_timestamp.map(|time| time.millis()),
            });
            if records.len() == 1 {
                // The other records are probably not shorter.
                records.reserve((self.rest().len() / (self.at - begin)).min(MOST_RECORDS));
            }
            if self.after(b']')? {
                return Some(records);
            }
        }
    }

    /// A record with a numeric sequence number, base64 data, and text without escapes.
    #[inline(always)]
    fn record(&mut self) -> Option<PlainRecord<'a>> {
        let (mut number, mut data, mut key, mut time) = (None, None, None, None);
        self.eat(b'{')?;
        loop {
            match self.name()? {
                Name::SequenceNumber => {
                    let digits = self.quoted_like(self.like.1, is_number)?;
                    self.like.1 = digits.len();
                    once(&mut number, digits)?;
                }
                Name::Data => {
                    let base64 = self.quoted_like(self.like.0, record::is_base64)?;
                    self.like.0 = base64.len();
                    once(&mut data, base64)?;
                }
                Name::PartitionKey => once(&mut key, self.text()?)?,
                Name::ApproximateArrivalTimestamp => once(&mut time, self.time()?)?,
                // `text` has consumed its quote when it fails, so `null` comes first.
                Name::EncryptionType => self.eat_all(b"null").or_else(|| self.text().map(|_| ()))?,
            }
            if self.after(b'}')? {
                break;
            }
        }
        Some(PlainRecord {
            data: data?,
            partition_key: key.unwrap_or_default(),
            sequence_number: number?,
            approximate_arrival_timestamp: time,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Arriving, parse};
    use super::*;
    use crate::budget::Budget;
    use std::sync::Arc;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    /// The result for an answer that arrives in parts of this size.
    fn arrived(body: &Bytes, budget: &Arc<Budget>, part: usize) -> Result<Answer, String> {
        let mut arriving = Arriving::new(budget.nothing(), Some(body.len()));
        for part in body.chunks(part) {
            arriving.push(part).map_err(|needed| format!("no room for {needed}"))?;
        }
        arriving.end()
    }

    fn scan(body: &Bytes, budget: &Arc<Budget>) -> Option<Answer> {
        let mut scan = Scan::new(budget.nothing());
        (scan.more(body, body.len()).bytes == body.len()).then(|| scan.end()).flatten()
    }

    /// A budget with this limit.
    fn budget(room: usize) -> Arc<Budget> {
        let budget = Budget::new(room);
        // A reservation that is alone in the budget has no limit.
        std::mem::forget(budget.take(1));
        budget
    }

    fn one_by_one(answer: Answer) -> Answer {
        Answer { records: Records::Decoded(answer.records.decode()), ..answer }
    }

    const USUAL: &str = r#"{"MillisBehindLatest":7,"NextShardIterator":"AAA","Records":[{"ApproximateArrivalTimestamp":1.795405837483E9,"Data":"aGk=","EncryptionType":"NONE","PartitionKey":"kéy","SequenceNumber":"49"},{"SequenceNumber":"50","Data":"a/+=","PartitionKey":"","ApproximateArrivalTimestamp":1795405837.483}]}"#;

    #[test]
    fn usual_form_is_parsed_as_by_serde_json() {
        for usual in [
            USUAL,
            r#"{"Records":[],"NextShardIterator":null,"ChildShards":[],"MillisBehindLatest":0}"#,
            r#"{"ChildShards":null,"ContinuationSequenceNumber":"51","MillisBehindLatest":0,"Records":[]}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":""}]}"#,
            r#"{"ChildShards":[{"ShardId":"c","ParentShards":["p", "q"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}],"Records":[{"SequenceNumber":"1","Data":""}]}"#,
        ] {
            let scanned = scan(&bytes(usual), &Budget::new(100_000)).unwrap_or_else(|| panic!("{usual}"));
            assert!(scanned.records.is_empty() || matches!(scanned.records, Records::Encoded(_)), "{usual}");
            assert_eq!(Ok(one_by_one(scanned)), parse(&bytes(usual)));
        }
    }

    #[test]
    fn unusual_forms_are_not_parsed() {
        for unusual in [
            "",
            "{}",
            r#"{"Records":[]"#,
            r#"{"Records":[]} "#,
            r#"{"Records":[],"Records":[]}"#,
            r#"{"Records": []}"#,
            r#"{"Records":[],"New":1}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":"aGk=","PartitionKey":"a\"b"}]}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":"aG\/="}]}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":"aGk"}]}"#,
            r#"{"Records":[{"SequenceNumber":"x","Data":""}]}"#,
            r#"{"Records":[{"SequenceNumber":"1"}]}"#,
            r#"{"Records":[],"MillisBehindLatest":-1}"#,
            r#"{"Records":[],"MillisBehindLatest":007}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":"","EncryptionType":"null}]}"#,
            r#"{"Records":[],"ChildShards":[{"ShardId":"c"}]}"#,
            r#"{"ChildShards":[{"ShardId":"c","ParentShards":["p"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"x"}}]}"#,
        ] {
            assert_eq!(scan(&bytes(unusual), &Budget::new(100_000)), None, "{unusual}");
        }
    }

    proptest! {
        /// With bytes changed, removed or inserted the text is either not parsed, or parsed as by
        /// `serde_json`.
        #[test]
        fn scanned_answer_equals_parsed_json(
            changes in proptest::collection::vec((0..USUAL.len(), 0..3, any::<u8>()), 1..4),
            plain in proptest::sample::subsequence(br#"\"{}[],:.E-0129AaGk= null"#.to_vec(), 3),
        ) {
            let mut text = USUAL.as_bytes().to_vec();
            for (index, (at, what, byte)) in changes.into_iter().enumerate() {
                let at = at.min(text.len() - 1);
                let byte = plain.get(index).copied().filter(|_| byte > 40).unwrap_or(byte);
                match what {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => drop(text.remove(at)),
                }
            }
            let text = Bytes::from(text);
            let parsed = parse(&text);
            for room in [0, 500, 100_000] {
                if let Some(scanned) = scan(&text, &budget(room)) {
                    prop_assert_eq!(Ok(one_by_one(scanned)), parsed.clone(), "{:?}", text);
                }
            }
            if let Some(scanned) = super::scan(&text) {
                prop_assert_eq!(Ok(scanned), parsed.clone(), "{:?}", text);
            }
            for (room, part) in [(100_000, 1_000), (100_000, 1), (100_000, 37), (700, 37), (2_000, 100)] {
                match arrived(&text, &budget(room), part) {
                    Err(error) if error.contains("no room") => prop_assert!(room < 100_000),
                    Err(error) => prop_assert!(parsed.is_err(), "{error} {:?}", text),
                    Ok(answer) => prop_assert_eq!(Ok(one_by_one(answer)), parsed.clone(), "{:?}", text),
                }
            }
        }
    }
}
