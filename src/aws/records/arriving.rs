//! An answer that is read while it comes, so that its bytes are looked at once and not kept.
//!
//! Its records go straight into the line for the child. From where that can't be, what comes is kept as it is, and read
//! at the end.

use bytes::Bytes;

use super::read_whole;
use super::scan::{Left, Read, Scan};
use crate::batch::{Making, Records};
use crate::budget::Room;
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
    /// What came and wasn't read, the beginning of a field or of a record, and its room, whatever is free.
    Reading(Scan, Vec<u8>, Room),
    /// What was read, and the rest with what stands for the beginning.
    Keeping(Answer, Vec<u8>, Room),
}

impl Arriving {
    /// An answer of that length, if it is known, in that room.
    pub(in super::super) fn new(room: Room, length: Option<usize>) -> Self {
        let beside = room.budget().nothing();
        Self { state: State::Reading(Scan::new(room), Vec::new(), beside), length, came: 0 }
    }

    /// The next part.
    ///
    /// # Errors
    /// There is no room for so many bytes.
    pub(in super::super) fn push(&mut self, part: &[u8]) -> Result<(), usize> {
        let left = self.length.map_or(part.len(), |length| length.saturating_sub(self.came));
        self.came += part.len();
        match &mut self.state {
            State::Reading(scan, kept, beside) => {
                let is_over = read_on(scan, kept, part, left);
                if kept.capacity() != beside.bytes() {
                    beside.set(kept.capacity());
                }
                // Large records aren't worth to be copied, but where the others are in a line; and what isn't understood
                // by then never will be.
                let most = if scan.has_line() { LONGEST } else { Making::LARGE };
                if is_over || kept.len() >= most {
                    let Left { answer, stands, room } = scan.leave();
                    let beginning = [stands, kept].concat();
                    let length = self.length.map(|length| beginning.len() + length.saturating_sub(self.came));
                    let (mut body, room) = memory(room, length.unwrap_or(2 * beginning.len()), &answer)?;
                    body.extend_from_slice(&beginning);
                    self.state = State::Keeping(answer, body, room);
                }
            }
            State::Keeping(_, body, room) => {
                let needed = body.len() + part.len();
                if needed > room.bytes() && !room.resize(needed * 2) && !room.resize(needed) {
                    return Err(needed * 2);
                }
                body.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// That was all.
    ///
    /// # Errors
    /// It can't be understood: what is wrong, and with which record.
    pub(in super::super) fn end(self) -> Result<Answer, String> {
        let (begun, rest) = match self.state {
            State::Reading(mut scan, kept, _) => {
                if kept.is_empty()
                    && let Some(answer) = scan.end()
                {
                    return Ok(answer);
                }
                let Left { answer, stands, .. } = scan.leave();
                (answer, Bytes::from([stands, &kept].concat()))
            }
            State::Keeping(answer, mut body, mut room) => {
                if self.length.is_none() {
                    body.shrink_to_fit();
                }
                room.set(body.capacity());
                (answer, room.fill_memory(body))
            }
        };
        both(begun, read_whole(&rest)?)
    }
}

/// Reads what was kept with what follows it; whether that is all that can be read.
fn read_on(scan: &mut Scan, kept: &mut Vec<u8>, part: &[u8], left: usize) -> bool {
    let (mut part, mut some) = (part, REST);
    // Only as much is copied as belongs to what came in two.
    while !kept.is_empty() && !part.is_empty() {
        let (before, (more, rest)) = (kept.len(), part.split_at(some.min(part.len())));
        kept.extend_from_slice(more);
        let Read { bytes, is_over } = scan.more(kept, left);
        if bytes < before || is_over {
            kept.drain(..bytes);
            (part, some) = (rest, some * 2);
        } else {
            kept.clear();
            part = &part[bytes - before..];
        }
        if is_over {
            kept.extend_from_slice(part);
            return true;
        }
    }
    let Read { bytes, is_over } = if kept.is_empty() { scan.more(part, left) } else { Read::default() };
    kept.extend_from_slice(&part[bytes..]);
    is_over
}

/// Memory for so many bytes. Beside records that have the answer's room it is taken, whatever is free.
fn memory(mut room: Room, bytes: usize, beside: &Answer) -> Result<(Vec<u8>, Room), usize> {
    match room.memory(bytes) {
        Some(memory) => Ok((memory, room)),
        None if beside.records.is_empty() => Err(bytes),
        None => {
            room.set(bytes);
            Ok((Vec::with_capacity(bytes), room))
        }
    }
}

/// One answer of two halves.
fn both(begun: Answer, rest: Answer) -> Result<Answer, String> {
    if begun == Answer::default() {
        return Ok(rest);
    }
    let twice = begun.next.is_some() && rest.next.is_some()
        || begun.millis_behind_latest.is_some() && rest.millis_behind_latest.is_some();
    if twice || !begun.children.is_empty() && !rest.children.is_empty() {
        return Err("an answer that can't be understood: a field comes twice".to_owned());
    }
    let records = begun.records.each().into_iter().chain(rest.records.each());
    Ok(Answer {
        records: Records::Each(records.collect()),
        next: begun.next.or(rest.next),
        millis_behind_latest: begun.millis_behind_latest.or(rest.millis_behind_latest),
        children: if begun.children.is_empty() { rest.children } else { begun.children },
    })
}
