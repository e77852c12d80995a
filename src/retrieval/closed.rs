//! Which shards take no records any more, as `ListShards` tells: one listing for all readings, seldom made anew.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::shard::{self, Filter, ShardId};

/// What is listed is taken for true for so long. A shard that is closed stays so.
const GOOD: Duration = Duration::from_secs(30);
/// Whoever lists doesn't read meanwhile.
const LISTING: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Closed(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    closed: BTreeSet<ShardId>,
    asked: Option<Instant>,
}

impl Closed {
    /// Whether it is known of the shard. While somebody lists, and when that fails, nothing new is.
    pub(super) async fn has(&self, shard: &ShardId, shards: &dyn shard::Api) -> bool {
        let Ok(mut known) = self.0.try_lock() else { return false };
        if known.asked.is_none_or(|asked| asked.elapsed() >= GOOD) {
            known.asked = Some(Instant::now());
            match timeout(LISTING, shards.list(Filter::All)).await {
                Ok(Ok(listed)) => {
                    let closed = listed.into_iter().filter(|shard| shard.ending.is_some());
                    known.closed = closed.map(|shard| shard.id).collect();
                }
                Ok(Err(error)) => debug!(%error, "which shards are closed isn't known"),
                Err(_) => debug!("which shards are closed isn't known: no answer in {LISTING:?}"),
            }
        }
        known.closed.contains(shard)
    }
}
