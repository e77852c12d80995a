//! Append-only files of frames that survive the death of the writing process.
//!
//! ```text
//! file  = "mlkines1" frame*
//! frame = length: u32 | check of the length: 4 bytes | check of the payload: 8 bytes | payload
//! ```
//!
//! Numbers are little-endian; a check is the beginning of an MD5. The length has a check of its own, so that
//! a damaged length is never mistaken for a frame that the end of the file truncated. Only a file that ends
//! within a frame with a valid beginning has a torn tail, which a killed writer leaves and which was never
//! acknowledged. Any other inconsistency is damage.
//!
//! A frame is passed to the system by write(2) before its content is acknowledged, so that it survives `kill
//! -9`. It is not synced: a power failure or a crash of the system may lose it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::local::files;

const MAGIC: &[u8; 8] = b"mlkines1";
const HEADER: usize = 16;
/// More than any record: a longer frame was never written.
const MOST_PAYLOAD: usize = 64 << 20;

/// Appends a frame to a buffer.
pub(super) fn push(out: &mut Vec<u8>, payload: &[&[u8]]) -> io::Result<()> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length)
        .ok()
        .filter(|length| usize::try_from(*length).is_ok_and(|length| length <= MOST_PAYLOAD))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too large"))?;
    let length = length.to_le_bytes();
    let mut hash = Md5::new();
    for part in payload {
        hash.update(part);
    }
    let payload_check: [u8; 16] = hash.finalize().into();
    out.extend_from_slice(&length);
    out.extend_from_slice(&check_of_length(length));
    out.extend_from_slice(&payload_check[..8]);
    for part in payload {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn check_of_length(length: [u8; 4]) -> [u8; 4] {
    let digest: [u8; 16] = Md5::digest(length).into();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// A file to which frames are appended.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    length: u64,
    is_broken: bool,
}

impl LogFile {
    /// Opens a file to append after its first `length` bytes, which are whole frames; creates it if `length`
    /// is 0.
    pub(super) fn open(path: &Path, length: u64) -> io::Result<Self> {
        let file = files::open(path, OpenOptions::new().create(true).append(true))?;
        let mut log = Self { file, length, is_broken: false };
        log.file.set_len(length)?;
        if length == 0 {
            log.append(MAGIC)?;
        }
        Ok(log)
    }

    /// Its length in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Appends whole frames, or nothing.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier write failed and could not be rolled back"));
        }
        match self.file.write_all(frames) {
            Ok(()) => {
                self.length += frames.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part may have been written; nothing after it could be read.
                self.is_broken = self.file.set_len(self.length).is_err();
                Err(error)
            }
        }
    }
}

/// An inconsistency in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

/// The content of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Offset and payload of each frame.
    pub(super) frames: Vec<(u64, Bytes)>,
    /// Offset of the end of the last whole frame.
    pub(super) length: u64,
    /// Whether a torn frame follows.
    pub(super) is_torn: bool,
}

/// Splits a file into frames.
pub(super) fn read(content: &Bytes) -> Result<Frames, Damage> {
    if content.len() < MAGIC.len() && MAGIC.starts_with(content) {
        return Ok(Frames { frames: Vec::new(), length: 0, is_torn: !content.is_empty() });
    }
    if !content.starts_with(MAGIC) {
        return Err(Damage {
            offset: 0,
            what: "the file does not start with the header of a log of this endpoint",
        });
    }
    let mut frames = Vec::new();
    let mut offset = MAGIC.len();
    loop {
        let at = offset as u64;
        let damage = |what| Damage { offset: at, what };
        let rest = content.get(offset..).unwrap_or_default();
        let torn = |frames| Ok(Frames { frames, length: at, is_torn: !rest.is_empty() });
        let Some((header, payload)) = rest.split_at_checked(HEADER) else {
            return torn(frames);
        };
        let &[a, b, c, d, e, f, g, h, ..] = header else {
            return torn(frames);
        };
        let length = [a, b, c, d];
        if [e, f, g, h] != check_of_length(length) {
            return Err(damage("the length of a frame is damaged"));
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MOST_PAYLOAD {
            return Err(damage("a frame exceeds the maximum length"));
        }
        let Some(payload) = payload.get(..length) else {
            return torn(frames);
        };
        let digest: [u8; 16] = Md5::digest(payload).into();
        if header.get(8..) != digest.get(..8) {
            return Err(damage("the content of a frame is damaged"));
        }
        let start = offset + HEADER;
        frames.push((at, content.slice(start..start + length)));
        offset = start + length;
    }
}

/// Replaces a file by one with these frames, atomically.
pub(super) fn replace(path: &Path, frames: &[u8]) -> io::Result<u64> {
    let mut next: PathBuf = path.to_owned();
    next.set_extension("new");
    let mut file = files::open(&next, OpenOptions::new().create(true).write(true).truncate(true))?;
    file.write_all(MAGIC)?;
    file.write_all(frames)?;
    drop(file);
    std::fs::rename(&next, path)?;
    Ok((MAGIC.len() + frames.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for payload in payloads {
            push(&mut out, &[payload]).unwrap();
        }
        out
    }

    fn payloads(frames: &Frames) -> Vec<Vec<u8>> {
        frames.frames.iter().map(|(_, payload)| payload.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn truncated_file_yields_the_frames_before_the_cut(
            written in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 0.0..1.0_f64,
        ) {
            let whole = file(&written);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a length")]
            let cut = (whole.len() as f64 * cut) as usize;
            let frames = read(&Bytes::copy_from_slice(&whole[..cut])).unwrap();
            let found = payloads(&frames);
            prop_assert_eq!(&found[..], &written[..found.len()]);
            prop_assert_eq!(frames.is_torn, frames.length != cut as u64);
            prop_assert!(read(&Bytes::from(whole)).unwrap().frames.len() == written.len());
        }

        #[test]
        fn changed_byte_is_detected(
            written in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            place in 0.0..1.0_f64,
            change in 1_u8..,
        ) {
            let mut whole = file(&written);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a length")]
            let place = (whole.len() as f64 * place) as usize;
            whole[place] ^= change;
            // Nothing is torn here, so not even the tail may be dropped.
            prop_assert!(read(&Bytes::from(whole)).is_err());
        }
    }
}
