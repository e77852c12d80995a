//! An answer in its usual form, read in one pass.
//!
//! Kinesis writes neither blanks nor escapes and always the same few fields, most of it data in which nothing needs
//! to be looked for. Whatever is any different is not read here: [`scan`] then says nothing, and the answer is
//! read as any JSON is. What it does read, it reads as that would (a test holds them to each other).

use bytes::Bytes;
use memchr::memchr;

use super::millis;
use crate::bytewise::has_any;
use crate::record::{self, Data, Record, Text};
use crate::retrieval::Answer;
use crate::sequence::{self, SequenceNumber};

/// The most that an answer has.
const MOST_RECORDS: usize = 10_000;

/// None if it isn't in the usual form.
pub(super) fn scan(body: &Bytes) -> Option<Answer> {
    let mut cursor = Cursor { body, at: 0, like: (0, 0) };
    let (mut records, mut next, mut behind) = (None, None, None);
    cursor.object(|cursor, name| match name {
        b"Records" => once(&mut records, cursor.records()?),
        b"NextShardIterator" | b"ContinuationSequenceNumber" => once(&mut next, cursor.token()?),
        b"MillisBehindLatest" => {
            let number = std::str::from_utf8(cursor.number()?).ok()?;
            once(&mut behind, number.parse().ok()?)
        }
        b"ChildShards" => cursor.no_children(),
        _ => None,
    })?;
    (cursor.at == body.len()).then(|| Answer {
        records: records.unwrap_or_default(),
        next: next.flatten(),
        millis_behind_latest: behind,
        children: Vec::new(),
    })
}

/// A field that comes twice isn't usual.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

struct Cursor<'a> {
    body: &'a Bytes,
    at: usize,
    /// Of the record before: how long its data and its number are. The next's are probably as long.
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

impl Name {
    fn text(self) -> &'static [u8] {
        match self {
            Self::SequenceNumber => b"\"SequenceNumber\":",
            Self::Data => b"\"Data\":",
            Self::PartitionKey => b"\"PartitionKey\":",
            Self::ApproximateArrivalTimestamp => b"\"ApproximateArrivalTimestamp\":",
            Self::EncryptionType => b"\"EncryptionType\":",
        }
    }
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

    /// From one quote to the next. What is in between may end in a backslash, and so be only half of it: it is
    /// the caller's to know what it may be.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let rest = self.rest();
        let text = &rest[..memchr(b'"', rest)?];
        self.at += text.len() + 1;
        Some(text)
    }

    /// The same where it is as long as that and good, which nothing with a quote in it is.
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

    /// One of the names that a record has, with what stands around it.
    fn name(&mut self) -> Option<Name> {
        let rest = self.rest();
        // One byte tells them apart.
        let name = match rest.get(1)? {
            b'S' => Name::SequenceNumber,
            b'D' => Name::Data,
            b'P' => Name::PartitionKey,
            b'A' => Name::ApproximateArrivalTimestamp,
            b'E' => Name::EncryptionType,
            _ => return None,
        };
        self.eat_all(name.text())?;
        Some(name)
    }

    /// Text that means itself.
    fn text(&mut self) -> Option<&'a [u8]> {
        let text = self.quoted()?;
        let is_special = |byte: u8| (byte == b'\\') | (byte < 0x20);
        (!has_any(text, is_special)).then_some(text)
    }

    fn number(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let is_part = |byte: &&u8| byte.is_ascii_digit() || b".E-".contains(byte);
        let number = &rest[..rest.iter().take_while(is_part).count()];
        // JSON has no number like 007, .5, 5. or 1E; nobody writes one either.
        let [first, ..] = number else { return None };
        let is_usual = first.is_ascii_digit()
            && (*first != b'0' || number.len() == 1 || number[1] == b'.')
            && number.last()?.is_ascii_digit()
            && number.iter().zip(&number[1..]).all(|pair| pair.0.is_ascii_digit() || pair.1.is_ascii_digit());
        self.at += number.len();
        is_usual.then_some(number)
    }

    /// Seconds as Kinesis and others write them, in milliseconds: `1795405837.483` and `1.795405837483E9` are both
    /// 13 digits with a point. Any other number is [`millis`]'s to read.
    fn seconds(&mut self) -> Option<i64> {
        let (mut sum, mut digits, mut point) = (0_i64, 0, 0);
        let mut length = 0;
        for byte in self.rest() {
            match byte {
                b'0'..=b'9' if digits < 13 => {
                    sum = sum * 10 + i64::from(byte - b'0');
                    digits += 1;
                }
                b'.' if point == 0 && digits > 0 => point = digits,
                _ => break,
            }
            length += 1;
        }
        let rest = &self.rest()[length..];
        let end = match point {
            10 => 0,
            1 if rest.starts_with(b"E9") => 2,
            _ => usize::MAX,
        };
        if digits == 13 && !self.is_next(b'0') && matches!(rest.get(end), Some(b',' | b'}')) {
            self.at += length + end;
            return Some(sum);
        }
        millis(std::str::from_utf8(self.number()?).ok()?)
    }

    /// `null`, or text of which nothing means none.
    fn token(&mut self) -> Option<Option<String>> {
        if self.eat_all(b"null").is_some() {
            return Some(None);
        }
        let text = std::str::from_utf8(self.text()?).ok()?;
        Some((!text.is_empty()).then(|| text.to_owned()))
    }

    fn no_children(&mut self) -> Option<()> {
        self.eat_all(b"[]").or_else(|| self.eat_all(b"null"))
    }

    /// `field` reads the value that belongs to a name.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        loop {
            let name = self.quoted()?;
            self.eat(b':')?;
            field(self, name)?;
            if self.eat(b'}').is_some() {
                return Some(());
            }
            self.eat(b',')?;
        }
    }

    fn records(&mut self) -> Option<Vec<Record>> {
        self.eat(b'[')?;
        let mut records = Vec::new();
        if self.eat(b']').is_some() {
            return Some(records);
        }
        let begin = self.at;
        loop {
            self.record(&mut records)?;
            if records.len() == 1 {
                // The others are probably no shorter.
                records.reserve((self.rest().len() / (self.at - begin)).min(MOST_RECORDS));
            }
            if self.eat(b']').is_some() {
                return Some(records);
            }
            self.eat(b',')?;
        }
    }

    /// Made where it stays: a record is moved as seldom as can be.
    fn record(&mut self, records: &mut Vec<Record>) -> Option<()> {
        let (mut sequence, mut data, mut key, mut time) = (None, None, None, None);
        self.eat(b'{')?;
        loop {
            match self.name()? {
                Name::SequenceNumber => {
                    let number = self.quoted_like(self.like.1, sequence::is_number)?;
                    self.like.1 = number.len();
                    once(&mut sequence, number)?;
                }
                Name::Data => {
                    let base64 = self.quoted_like(self.like.0, record::is_base64)?;
                    self.like.0 = base64.len();
                    once(&mut data, base64)?;
                }
                Name::PartitionKey => once(&mut key, self.text()?)?,
                Name::ApproximateArrivalTimestamp => once(&mut time, self.seconds()?)?,
                Name::EncryptionType => self.text().map(|_| ()).or_else(|| self.eat_all(b"null"))?,
            }
            if self.eat(b'}').is_some() {
                break;
            }
            self.eat(b',')?;
        }
        records.push(Record {
            sequence: SequenceNumber::of_digits(sequence?)?,
            sub: 0,
            partition_key: Text::within(self.body, key.unwrap_or_default())?,
            data: Data::within(self.body, data?),
            arrival: time,
        });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    const USUAL: &str = r#"{"MillisBehindLatest":7,"NextShardIterator":"AAA","Records":[{"ApproximateArrivalTimestamp":1.795405837483E9,"Data":"aGk=","EncryptionType":"NONE","PartitionKey":"kéy","SequenceNumber":"49"},{"SequenceNumber":"50","Data":"a/+=","PartitionKey":"","ApproximateArrivalTimestamp":1795405837.483}]}"#;

    #[test]
    fn the_usual_form_is_read_and_as_any_json_is() {
        for usual in [
            USUAL,
            r#"{"Records":[],"NextShardIterator":null,"ChildShards":[],"MillisBehindLatest":0}"#,
            r#"{"ChildShards":null,"ContinuationSequenceNumber":"51","MillisBehindLatest":0,"Records":[]}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":""}]}"#,
        ] {
            let scanned = scan(&bytes(usual));
            assert!(scanned.is_some(), "{usual}");
            assert_eq!(scanned, parse(&bytes(usual)).ok());
        }
    }

    #[test]
    fn anything_else_is_left_to_others() {
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
            r#"{"Records":[],"ChildShards":[{"ShardId":"c"}]}"#,
        ] {
            assert_eq!(scan(&bytes(unusual)), None, "{unusual}");
        }
    }

    proptest! {
        /// A byte changed, taken out or put in: either it isn't read, or as the parser reads it.
        #[test]
        fn what_is_read_is_read_as_any_json_is(
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
            if let Some(scanned) = scan(&text) {
                prop_assert_eq!(Ok(scanned), parse(&text), "{:?}", text);
            }
        }
    }
}
