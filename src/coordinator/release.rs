//! Releases leases: one that is not needed any more, and all of them at the end of a shutdown.
//!
//! In KCL: nothing; there they must expire.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{Coordinator, Done};
use crate::lease::update::Next;
use crate::lease::{Held, WorkerId, held};

/// Leases that are released at once: a stop has little time, and needs no memory afterwards.
pub(super) const AT_ONCE: usize = 32;
/// Giving everything back at the end of a stop takes no longer than this.
const RELEASE: Duration = Duration::from_secs(3);
/// Passing on what came too late, and calling the peers, at the end of a stop: no longer than this each.
const CALL: Duration = Duration::from_secs(1);

impl Coordinator {
    pub(super) fn release(&mut self, held: Arc<Held>) {
        self.forget(&held);
        self.releasing.insert(held.shard().clone());
        let returns = self.returns.clone();
        // The older process with this worker id continues to read the shard.
        let stays = self.rivals.gives_way().then(|| Next::Worker(self.settings.me.clone()));
        let successors = self.successors();
        let shard = held.shard().clone();
        let task = self.spawn(async move {
            let to = match (stays, successors) {
                (Some(to), _) => to,
                (None, Some(successors)) => successors.of(&held).await,
                (None, None) => Next::Nobody,
            };
            let _permit = returns.acquire().await;
            let to = give_back(&held, &to).await;
            Done::Released(held.shard().clone(), to)
        });
        self.releases.insert(task.id(), shard);
    }

    pub(super) async fn release_all(&mut self) {
        let held: Vec<Arc<Held>> = std::mem::take(&mut self.held).into_values().collect();
        for held in held {
            self.release(held);
        }
        let limit = self.settings.stop.left(RELEASE);
        let all = async {
            while !self.releasing.is_empty() || self.look.under_way > 0 {
                match self.work.join_next().await {
                    Some(Ok(Done::Released(shard, to))) => {
                        self.releasing.remove(&shard);
                        self.gave_back(to);
                    }
                    // Taken in the last moment.
                    Some(Ok(Done::Took(taken))) => {
                        self.look.under_way = self.look.under_way.saturating_sub(1);
                        if taken.outcome.is_ok() {
                            self.release(Held::new(taken.lease, taken.proven, &self.owner()));
                        }
                    }
                    Some(Ok(Done::Looked(_) | Done::Found(_)) | Err(_)) => self.look.under_way = 0,
                    Some(Ok(Done::Given(..) | Done::Passed | Done::Named(_))) => {
                        self.look.under_way = self.look.under_way.saturating_sub(1)
                    }
                    Some(Ok(Done::Called | Done::Unlisted(_))) => {}
                    None => break,
                }
            }
        };
        if timeout(limit, all).await.is_err() {
            warn!(left = self.releasing.len(), "timed out releasing leases: they will expire");
        }
        self.work.abort_all();
        while self.work.join_next().await.is_some() {}
        // However many there are, and whoever doesn't answer.
        if timeout(self.settings.stop.left(CALL), self.pass_on()).await.is_err() {
            warn!("timed out releasing leases that were assigned during shutdown: they will expire");
        }
        self.call_peers();
        if timeout(self.settings.stop.left(CALL), self.work.join_next()).await.is_err() {
            debug!("timed out nudging other workers");
        }
    }
}

async fn give_back(held: &Held, to: &Next) -> Option<WorkerId> {
    match held.release(to).await {
        Ok(to) => {
            info!(shard = %held.shard(), to = to.as_ref().map(WorkerId::as_str), "released the lease");
            return to;
        }
        Err(held::Error::Lost) => {
            debug!(shard = %held.shard(), "lost the lease before it could be released")
        }
        Err(error) => {
            warn!(shard = %held.shard(), %error, "failed to release the lease: it will expire")
        }
    }
    None
}
