//! The six filters of ListShards.
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ShardFilter.html>

use super::clock::Timestamp;

/// A filter and its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    AfterShard(u32),
    AtTrimHorizon,
    FromTrimHorizon,
    AtLatest,
    AtTimestamp(Timestamp),
    FromTimestamp(Timestamp),
}

/// When a shard was open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) number: u32,
    pub(super) opened: Timestamp,
    pub(super) closed: Option<Timestamp>,
}

impl Life {
    /// A closed shard is listed while it may hold records: until its end is before the trim horizon.
    pub(super) fn is_listed(self, trim_horizon: Timestamp) -> bool {
        self.closed.is_none_or(|closed| closed >= trim_horizon)
    }
}

impl Filter {
    /// Whether the filter includes the shard. A time before the trim horizon counts as the trim horizon: AWS
    /// documents that for FROM_TIMESTAMP, and otherwise AT_TIMESTAMP would include no shard at all.
    pub(super) fn shows(self, shard: Life, trim_horizon: Timestamp) -> bool {
        let open_at =
            |time: Timestamp| shard.opened <= time && shard.closed.is_none_or(|closed| closed >= time);
        shard.is_listed(trim_horizon)
            && match self {
                Self::AfterShard(number) => shard.number > number,
                Self::AtTrimHorizon => open_at(trim_horizon),
                Self::FromTrimHorizon => true,
                Self::AtLatest => shard.closed.is_none(),
                Self::AtTimestamp(time) => open_at(time.max(trim_horizon)),
                Self::FromTimestamp(time) => {
                    shard.closed.is_none_or(|closed| closed >= time.max(trim_horizon))
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shard 0 was split into 1 and 2 at 100, which were merged into 3 at 200.
    const SHARDS: [(u64, Option<u64>); 4] =
        [(10, Some(100)), (100, Some(200)), (100, Some(200)), (200, None)];

    fn shown(filter: Filter, trim_horizon: u64) -> Vec<u32> {
        (0..)
            .zip(SHARDS)
            .map(|(number, (opened, closed))| Life {
                number,
                opened: Timestamp::from_millis(opened),
                closed: closed.map(Timestamp::from_millis),
            })
            .filter(|shard| filter.shows(*shard, Timestamp::from_millis(trim_horizon)))
            .map(|shard| shard.number)
            .collect()
    }

    fn time(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn default_filter_includes_everything_within_the_retention() {
        assert_eq!(shown(Filter::FromTrimHorizon, 10), [0, 1, 2, 3]);
        assert_eq!(shown(Filter::FromTrimHorizon, 150), [1, 2, 3]);
        assert_eq!(shown(Filter::FromTrimHorizon, 201), [3]);
    }

    #[test]
    fn at_trim_horizon_includes_shards_open_then() {
        assert_eq!(shown(Filter::AtTrimHorizon, 10), [0]);
        assert_eq!(shown(Filter::AtTrimHorizon, 150), [1, 2]);
    }

    #[test]
    fn at_latest_includes_open_shards() {
        assert_eq!(shown(Filter::AtLatest, 10), [3]);
    }

    #[test]
    fn at_timestamp_includes_both_ends() {
        assert_eq!(shown(Filter::AtTimestamp(time(50)), 10), [0]);
        assert_eq!(shown(Filter::AtTimestamp(time(100)), 10), [0, 1, 2]);
        assert_eq!(shown(Filter::AtTimestamp(time(300)), 10), [3]);
        assert_eq!(shown(Filter::AtTimestamp(time(1)), 10), [0]);
    }

    #[test]
    fn from_timestamp_includes_shards_that_ended_later() {
        assert_eq!(shown(Filter::FromTimestamp(time(150)), 10), [1, 2, 3]);
        assert_eq!(shown(Filter::FromTimestamp(time(1)), 150), [1, 2, 3]);
    }

    #[test]
    fn after_shard_id_compares_ids() {
        assert_eq!(shown(Filter::AfterShard(1), 10), [2, 3]);
    }
}
