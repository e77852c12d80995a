//! Shard iterators and paging tokens: opaque text that contains its whole state, so that the endpoint stores
//! none and tokens survive its restart.
//!
//! A token is base64 of a version, a checksum and its fields. Its age is determined by the monotonic clock if
//! this run issued it, and by wall time if an earlier run did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::clock::{Now, Timestamp, saturating_millis};

/// The first bytes of every token, as in AWS.
const VERSION: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const CHECK: usize = 8;

/// The text is no token of this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this endpoint")]
pub(super) struct NotAToken;

/// A position in a shard at which GetRecords continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardIterator {
    pub(super) issued: Issued,
    pub(super) stream: String,
    /// The stream's epoch, which distinguishes it from a later one of the same name.
    pub(super) epoch: u64,
    pub(super) shard: u32,
    /// Index of the next record.
    pub(super) next: u64,
}

/// The position at which a listing continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListToken<P> {
    pub(super) issued: Issued,
    pub(super) position: P,
}

/// When and by which run of an endpoint a token was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issued {
    run: u64,
    since_start: u64,
    wall: u64,
    generation: u64,
}

impl Issued {
    pub(super) const fn wall(self) -> Timestamp {
        Timestamp::from_millis(self.wall)
    }
}

/// A run of an endpoint, which issues tokens and determines their age.
#[derive(Debug)]
pub(super) struct Run {
    id: u64,
    started: Instant,
    generation: AtomicU64,
}

impl Run {
    pub(super) fn new() -> Self {
        Self { id: fastrand::u64(..), started: Instant::now(), generation: AtomicU64::new(0) }
    }

    pub(super) fn issue(&self, now: Now) -> Issued {
        Issued {
            run: self.id,
            since_start: saturating_millis(now.instant.saturating_duration_since(self.started)),
            wall: now.wall.millis(),
            generation: self.generation.load(Ordering::SeqCst),
        }
    }

    /// Makes everything issued so far expire.
    pub(super) fn expire_all(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn is_expired(&self, issued: Issued, lifetime: Duration, now: Now) -> bool {
        let current = self.generation.load(Ordering::SeqCst);
        let age = if issued.run == self.id {
            let since_start = now.instant.saturating_duration_since(self.started);
            since_start.saturating_sub(Duration::from_millis(issued.since_start))
        } else {
            now.wall.since(issued.wall())
        };
        age > lifetime || if issued.run == self.id { issued.generation < current } else { current > 0 }
    }
}

pub(super) fn write<T: Serialize>(token: &T) -> String {
    // Numbers and strings: JSON can represent all fields of a token.
    let fields = serde_json::to_vec(token).unwrap_or_default();
    let mut raw = Vec::with_capacity(VERSION.len() + CHECK + fields.len());
    raw.extend_from_slice(&VERSION);
    raw.extend_from_slice(&check(&fields));
    raw.extend_from_slice(&fields);
    STANDARD.encode(raw)
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, NotAToken> {
    let raw = STANDARD.decode(text).map_err(|_| NotAToken)?;
    let rest = raw.strip_prefix(&VERSION).ok_or(NotAToken)?;
    let (sum, fields) = rest.split_at_checked(CHECK).ok_or(NotAToken)?;
    if sum != check(fields) {
        return Err(NotAToken);
    }
    serde_json::from_slice(fields).map_err(|_| NotAToken)
}

fn check(fields: &[u8]) -> [u8; CHECK] {
    let digest: [u8; 16] = Md5::digest(fields).into();
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest[..CHECK]);
    check
}

/// `Thu Jan 22 01:22:02 UTC 2015`, the form of the creation time in messages of AWS.
pub(super) fn written_out(time: Timestamp) -> String {
    let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    let http = DateTime::from_secs(seconds).fmt(Format::HttpDate).unwrap_or_default();
    let parts: Vec<&str> = http.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [weekday, day, month, year, clock, _] => {
            format!("{weekday} {month} {day} {clock} UTC {year}")
        }
        _ => format!("{} seconds after the epoch", time.seconds()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;

    fn iterator(run: &Run, now: Now) -> ShardIterator {
        ShardIterator { issued: run.issue(now), stream: "s".to_owned(), epoch: 7, shard: 3, next: 42 }
    }

    fn later(now: Now, span: Duration) -> Now {
        Now { wall: now.wall.plus(span), instant: now.instant + span }
    }

    #[test]
    fn altered_token_is_rejected() {
        let now = clock::now();
        let token = iterator(&Run::new(), now);
        let text = write(&token);
        assert_eq!(read::<ShardIterator>(&text), Ok(token));
        let altered = format!("{}A{}", &text[..30], &text[31..]);
        if altered != text {
            assert_eq!(read::<ShardIterator>(&altered), Err(NotAToken));
        }
        for text in ["", "AAAA", "not base64!", "AAAAAAAAAAEAAAAAAAAAAA=="] {
            assert_eq!(read::<ShardIterator>(text), Err(NotAToken));
        }
    }

    #[test]
    fn token_expires_by_age_across_runs() {
        let lifetime = Duration::from_mins(5);
        let run = Run::new();
        let now = clock::now();
        let issued = iterator(&run, now).issued;
        for judge in [&run, &Run::new()] {
            let in_time = later(now, lifetime - Duration::from_millis(2));
            assert!(!judge.is_expired(issued, lifetime, in_time));
            let too_late = later(now, lifetime + Duration::from_secs(1));
            assert!(judge.is_expired(issued, lifetime, too_late));
        }
    }

    #[test]
    fn all_tokens_can_be_made_to_expire() {
        let run = Run::new();
        let now = clock::now();
        let before = run.issue(now);
        run.expire_all();
        assert!(run.is_expired(before, Duration::from_mins(5), now));
        assert!(!run.is_expired(run.issue(now), Duration::from_mins(5), now));
    }

    #[test]
    fn times_are_formatted_as_in_aws() {
        assert_eq!(written_out(Timestamp::from_millis(1_421_889_722_123)), "Thu Jan 22 01:22:02 UTC 2015");
    }
}
