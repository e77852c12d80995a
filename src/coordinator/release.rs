//! Releases leases: one that is not needed any more, and all of them at the end of a shutdown.
//!
//! In KCL: nothing; there they must expire.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::event::{Effect, Event, Recipient};
use super::successors::{CHOOSE, Successors};
use super::{Coordinator, Done};
use crate::lease::update::{self, Next};
use crate::lease::{Held, LeaseKey, WorkerId, held};

/// Leases that are released at once: a stop has little time, and needs no memory afterwards.
pub(super) const AT_ONCE: usize = 32;
/// The last leases are released within this time.
const RELEASE: Duration = Duration::from_secs(3);
/// Time to pass on leases that were assigned during the shutdown, and as much to nudge the peers.
const NUDGE: Duration = Duration::from_secs(1);

impl Coordinator {
    /// The task that releases a lease.
    pub(super) fn release(
        &mut self,
        held: Arc<Held>,
        to: Recipient,
    ) -> impl Future<Output = Done> + Send + use<> {
        let permits = self.returns.clone();
        let (me, successors) = (self.settings.me.clone(), self.successors(&to));
        async move {
            let to = match (to, successors) {
                (Recipient::Namesake, _) => Next::Worker(me),
                (Recipient::Successor(_), Some(successors)) => successors.of(&held).await,
                (Recipient::Successor(_) | Recipient::Nobody, _) => Next::Nobody,
            };
            let _permit = permits.acquire().await;
            let to = give_back(&held, &to).await;
            Some(Event::Released(held.key().clone(), to))
        }
    }

    /// The choice of successors, which is the same for all leases of a shutdown.
    fn successors(&mut self, to: &Recipient) -> Option<Arc<Successors>> {
        let Recipient::Successor(history) = to else { return None };
        let new = || Arc::new(Successors::new(&self.tools, self.ask.clone(), history.clone()));
        Some(self.successors.get_or_insert_with(new).clone())
    }

    /// The end of the coordinator: every handle is gone.
    pub(super) async fn release_all(&mut self) {
        self.handle(Event::End).await;
        let limit = self.settings.stop.left(RELEASE);
        let all = async {
            while !self.state.has_ended() {
                let Some(done) = self.work.join_next_with_id().await else { break };
                self.work_ended(done).await;
            }
        };
        if timeout(limit, all).await.is_err() {
            warn!(
                event = "lease_release_timed_out",
                left = self.state.releasing(),
                "timed out releasing leases: they will expire"
            );
        }
        self.work.abort_all();
        while self.work.join_next().await.is_some() {}
        // However many there are, and even if DynamoDB does not respond.
        if timeout(self.settings.stop.left(NUDGE), self.pass_on()).await.is_err() {
            warn!(
                event = "lease_release_timed_out",
                "timed out releasing leases that were assigned during shutdown: they will expire"
            );
        }
        self.handle(Event::NudgeDue).await;
        if timeout(self.settings.stop.left(NUDGE), self.work.join_next()).await.is_err() {
            debug!("timed out nudging other workers");
        }
    }

    /// Passes leases that were assigned to this worker during its shutdown to the next one.
    async fn pass_on(&mut self) {
        self.refresh();
        if !self.state.passes_on() {
            return;
        }
        let Ok(Ok(leases)) = timeout(CHOOSE, self.tools.table.list()).await else {
            warn!(
                event = "lease_listing_failed",
                "failed to list the leases during shutdown: leases that were assigned to this worker \
                 meanwhile will expire"
            );
            return;
        };
        let mut writes = JoinSet::new();
        for effect in self.state.on(tokio::time::Instant::now(), Event::LastScan(leases)) {
            let Effect::PassOn(lease, to) = effect else { continue };
            let to = match self.successors(&to) {
                Some(successors) => match successors.ask().await {
                    Some(verdict) => successors.next(&verdict).await,
                    None => None,
                },
                None => None,
            };
            let to = to.map_or(Next::Nobody, Next::Worker);
            let table = self.tools.table.clone();
            let update = update::release(&lease, &to);
            writes.spawn(async move { table.update(&lease.key, &update).await.map(drop) });
        }
        let all = async {
            while let Some(written) = writes.join_next().await {
                if let Ok(Err(error)) = written {
                    debug!(%error, "failed to release a lease that was assigned during shutdown");
                }
            }
        };
        if timeout(CHOOSE, all).await.is_err() {
            debug!("timed out releasing leases that were assigned during shutdown");
        }
    }
}

async fn give_back(held: &Held, to: &Next) -> Option<WorkerId> {
    let key: &LeaseKey = held.key();
    match held.release(to).await {
        Ok(to) => {
            info!(event = "lease_released", shard = %key, to = to.as_ref().map(WorkerId::as_str), "released the lease");
            return to;
        }
        Err(held::Error::Lost) => debug!(shard = %key, "lost the lease before it could be released"),
        Err(error) => {
            warn!(event = "lease_release_failed", shard = %key, %error, "failed to release the lease: it will expire")
        }
    }
    None
}
