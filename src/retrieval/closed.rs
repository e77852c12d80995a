//! Which shards take no records any more, as `ListShards` tells: one listing for all readings, seldom made anew.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::shard::{self, Filter, ShardId};

/// From one listing to the next.
const APART: Duration = Duration::from_secs(30);
/// Whoever lists doesn't read meanwhile.
const LISTING: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Closed(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    /// The last listing that was answered, and when it was asked for.
    closed: Option<(Instant, BTreeSet<ShardId>)>,
}

impl Closed {
    /// Whether the shard is known to be closed, by a listing that was asked for after `since`: an earlier stream of the
    /// name may have had a shard of that name. While somebody lists, and when that fails, nothing is known.
    pub(super) async fn has(&self, shard: &ShardId, since: Instant, shards: &dyn shard::Api) -> bool {
        let Ok(mut known) = self.0.try_lock() else { return false };
        if known.asked.is_none_or(|asked| asked.elapsed() >= APART) {
            let asked = Instant::now();
            known.asked = Some(asked);
            match timeout(LISTING, shards.list(Filter::All)).await {
                Ok(Ok(listed)) => {
                    let closed = listed.into_iter().filter(|shard| shard.ending.is_some());
                    known.closed = Some((asked, closed.map(|shard| shard.id).collect()));
                }
                Ok(Err(error)) => debug!(%error, "which shards are closed isn't known"),
                Err(_) => debug!("which shards are closed isn't known: no answer in {LISTING:?}"),
            }
        }
        known.closed.as_ref().is_some_and(|(at, closed)| *at >= since && closed.contains(shard))
    }
}
