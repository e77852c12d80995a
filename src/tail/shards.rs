//! Which shards to read, and from where: pure steps.

use std::collections::BTreeSet;

use crate::retrieval::{ShardOfStream, Start};
use crate::sequence::SequenceNumber;
use crate::shard::{ChildShard, Filter, HashRange, Shard, ShardId};

/// `--from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The oldest record.
    TrimHorizon,
    /// Only new records.
    Latest,
    /// Records that arrived at that time or later, in milliseconds since 1970.
    Time(i64),
    /// The record with that sequence number, in one shard.
    Number(SequenceNumber),
}

/// A value of `--from` that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be TRIM_HORIZON, LATEST, seconds since 1970 (as in $(date -d '1 hour ago' +%s)), a time ago such as 90s, 15m, \
     2h or 1d, or a sequence number"
)]
pub struct Unknown;

impl From {
    /// Parses a value. Digits are a time or, if there are more than 12, a sequence number.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str, now_millis: i64) -> Result<Self, Unknown> {
        let ago = |digits: &str, seconds: i64| {
            let number: i64 = digits.parse().map_err(|_| Unknown)?;
            let millis = number.checked_mul(seconds * 1_000).ok_or(Unknown)?;
            Ok(Self::Time(now_millis.saturating_sub(millis)))
        };
        match text {
            "TRIM_HORIZON" => Ok(Self::TrimHorizon),
            "LATEST" => Ok(Self::Latest),
            _ if !text.starts_with(|c: char| c.is_ascii_digit()) => Err(Unknown),
            _ => {
                let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
                let of_unit = |(unit, seconds)| text.strip_suffix(unit).map(|digits| (digits, seconds));
                match units.into_iter().find_map(of_unit) {
                    Some((digits, seconds)) => ago(digits, seconds),
                    None if text.len() > 12 => SequenceNumber::parse(text).map(Self::Number).ok_or(Unknown),
                    None => text.parse().map(|seconds: i64| Self::Time(seconds * 1_000)).map_err(|_| Unknown),
                }
            }
        }
    }

    /// The shards to list.
    pub fn filter(&self, one_shard: bool) -> Filter {
        match self {
            _ if one_shard => Filter::All,
            Self::TrimHorizon => Filter::AtTrimHorizon,
            Self::Latest | Self::Number(_) => Filter::AtLatest,
            Self::Time(millis) => Filter::AtTimestamp(*millis),
        }
    }

    fn start(&self) -> Start {
        match self {
            Self::TrimHorizon => Start::TrimHorizon,
            Self::Latest => Start::Latest,
            Self::Time(millis) => Start::AtTimestamp(*millis),
            Self::Number(number) => Start::At(number.clone()),
        }
    }
}

/// A shard to read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The shard.
    pub shard: ShardOfStream,
    /// The position.
    pub start: Start,
}

/// The shard of `--shard` does not exist.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown shard {shard} (the stream has {shards})")]
pub struct Missing {
    shard: ShardId,
    shards: String,
}

/// The shards that are read.
#[derive(Debug, Default)]
pub struct Reading {
    open: BTreeSet<ShardId>,
    seen: BTreeSet<ShardId>,
}

impl Reading {
    /// The first shards: those that the listing contains, or `only`.
    ///
    /// # Errors
    /// The listing lacks `only`.
    pub fn begin(
        &mut self,
        listed: Vec<Shard>,
        from: &From,
        only: Option<&ShardId>,
    ) -> Result<Vec<Opening>, Missing> {
        let ids: Vec<ShardId> = listed.iter().map(|shard| shard.id.clone()).collect();
        let wanted: Vec<Shard> =
            listed.into_iter().filter(|shard| only.is_none_or(|id| *id == shard.id)).collect();
        match only {
            Some(shard) if wanted.is_empty() => {
                Err(Missing { shard: shard.clone(), shards: crate::shard::some(&ids) })
            }
            _ => Ok(wanted.into_iter().map(|shard| self.open(shard.id, shard.range, from.start())).collect()),
        }
    }

    /// A shard was read to its end. Returns its child shards whose other parent has ended, too.
    pub fn ended(&mut self, shard: &ShardId, children: Vec<ChildShard>) -> Vec<Opening> {
        self.open.remove(shard);
        let ready = |child: &ChildShard| child.parents.iter().all(|parent| !self.open.contains(parent));
        let ready: Vec<ChildShard> =
            children.into_iter().filter(|child| ready(child) && !self.seen.contains(&child.id)).collect();
        ready.into_iter().map(|child| self.open(child.id, child.range, Start::TrimHorizon)).collect()
    }

    /// A shard is not read any more.
    pub fn stopped(&mut self, shard: &ShardId) {
        self.open.remove(shard);
    }

    /// Whether no shard is read any more.
    pub fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    fn open(&mut self, id: ShardId, range: HashRange, start: Start) -> Opening {
        self.open.insert(id.clone());
        self.seen.insert(id.clone());
        Opening { shard: ShardOfStream { id, range: Some(range), stream: None }, start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: HashRange = HashRange { start: 0, end: 9 };

    fn shard(id: &str) -> Shard {
        let starting = SequenceNumber::parse("1").unwrap();
        Shard { id: id.into(), parent: None, adjacent_parent: None, range: RANGE, starting, ending: None }
    }

    fn child(id: &str, parents: &[&str]) -> ChildShard {
        ChildShard { id: id.into(), parents: parents.iter().map(|id| (*id).into()).collect(), range: RANGE }
    }

    fn ids(openings: &[Opening]) -> Vec<&str> {
        openings.iter().map(|opening| opening.shard.id.as_str()).collect()
    }

    #[test]
    fn from_is_a_sentinel_a_time_or_a_number() {
        let now = 1_700_000_000_000;
        let number = "49600000000000000000000000000000000000000000000000000001";
        for (text, expected) in [
            ("LATEST", Ok(From::Latest)),
            ("TRIM_HORIZON", Ok(From::TrimHorizon)),
            ("1699999999", Ok(From::Time(1_699_999_999_000))),
            ("90s", Ok(From::Time(now - 90_000))),
            ("2h", Ok(From::Time(now - 7_200_000))),
            ("1d", Ok(From::Time(now - 86_400_000))),
            (number, Ok(From::Number(SequenceNumber::parse(number).unwrap()))),
            ("latest", Err(Unknown)),
            ("", Err(Unknown)),
            ("-5m", Err(Unknown)),
            ("5x", Err(Unknown)),
            ("99999999999999999999d", Err(Unknown)),
            ("1é", Err(Unknown)),
        ] {
            assert_eq!(From::parse(text, now), expected, "{text}");
        }
    }

    #[test]
    fn child_of_a_merge_is_opened_after_both_parents() {
        let mut reading = Reading::default();
        let begun = reading.begin(vec![shard("a"), shard("b")], &From::Latest, None).unwrap();
        assert_eq!((ids(&begun), &begun[0].start), (vec!["a", "b"], &Start::Latest));
        let merged = || vec![child("c", &["a", "b"])];
        assert_eq!(ids(&reading.ended(&"a".into(), merged())), Vec::<&str>::new());
        let opened = reading.ended(&"b".into(), merged());
        assert_eq!((ids(&opened), &opened[0].start), (vec!["c"], &Start::TrimHorizon));
        assert_eq!(ids(&reading.ended(&"b".into(), merged())), Vec::<&str>::new(), "opened once");
        let split = vec![child("d", &["c"]), child("e", &["c"])];
        assert_eq!(ids(&reading.ended(&"c".into(), split)), ["d", "e"]);
        reading.stopped(&"d".into());
        assert!(!reading.is_over());
        assert!(reading.ended(&"e".into(), Vec::new()).is_empty() && reading.is_over());
    }

    #[test]
    fn one_shard_is_read_or_missing() {
        let both = || vec![shard("a"), shard("b")];
        let begin = |id: &str| Reading::default().begin(both(), &From::TrimHorizon, Some(&id.into()));
        assert_eq!(ids(&begin("b").unwrap()), ["b"]);
        assert!(begin("x").unwrap_err().to_string().contains("a, b"));
    }
}
