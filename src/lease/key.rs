//! The key of a lease row.
//!
//! In a table of one stream it is the id of the shard; in a table of several streams, the identifier of the stream and
//! the id of the shard. The rows name parents and children by the ids of their shards alone: their keys are relative
//! to the row ([`LeaseKey::relative`]).
//!
//! In KCL: `Lease.leaseKey`, `MultiStreamLease.getLeaseKey`.

use std::fmt;

use crate::shard::ShardId;
use crate::stream::StreamIdentifier;

/// The key of a lease row, `leaseKey`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// None in a table of one stream.
    stream: Option<StreamIdentifier>,
    shard: ShardId,
}

impl LeaseKey {
    /// The key of a shard of that stream; of the only stream for none.
    pub fn new(stream: Option<StreamIdentifier>, shard: ShardId) -> Self {
        Self { stream, shard }
    }

    /// The stream; none in a table of one stream.
    pub fn stream(&self) -> Option<&StreamIdentifier> {
        self.stream.as_ref()
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// The key of another shard of the same stream: of a parent or a child.
    pub fn relative(&self, shard: &ShardId) -> Self {
        Self { stream: self.stream.clone(), shard: shard.clone() }
    }
}

impl From<ShardId> for LeaseKey {
    /// The key in a table of one stream.
    fn from(shard: ShardId) -> Self {
        Self::new(None, shard)
    }
}

impl From<&str> for LeaseKey {
    /// A text that does not begin with the identifier of a stream is the id of a shard of the only stream.
    fn from(text: &str) -> Self {
        match StreamIdentifier::split(text) {
            Some((stream, shard)) => Self::new(Some(stream), shard.into()),
            None => Self::new(None, text.into()),
        }
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stream {
            Some(stream) => write!(f, "{stream}:{}", self.shard),
            None => fmt::Display::fmt(&self.shard, f),
        }
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_survives_display_and_parse() {
        let of_several = "123456789012:orders:1700000000:shardId-000000000003";
        for (text, stream, shard) in [
            ("shardId-000000000003", None, "shardId-000000000003"),
            (of_several, Some("123456789012:orders:1700000000"), "shardId-000000000003"),
            ("orders:shardId-000000000003", None, "orders:shardId-000000000003"),
        ] {
            let key = LeaseKey::from(text);
            assert_eq!(key.to_string(), text);
            assert_eq!(key.stream().map(StreamIdentifier::as_str), stream);
            assert_eq!(key.shard().as_str(), shard);
        }
    }

    #[test]
    fn relative_is_of_the_same_stream() {
        let child = ShardId::from("shardId-000000000004");
        let key = LeaseKey::from("1:orders:5:shardId-000000000003");
        assert_eq!(key.relative(&child), "1:orders:5:shardId-000000000004".into());
        let alone = LeaseKey::from("shardId-000000000003");
        assert_eq!(alone.relative(&child), "shardId-000000000004".into());
    }
}
