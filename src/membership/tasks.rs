//! The requests of a member. Each is a task that ends with an event, or with none if its result decides nothing.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::begin::{generation, reports};
use super::event::{Assignment, Event, Monitored, Surveyed};
use super::lock::action;
use super::table_migration::{carry_out, read_inputs, written};
use crate::fleet::Store;
use crate::fleet::layout::Layout;
use crate::fleet::leader::How;
use crate::fleet::rows::{Entry, Generation, Report, StateLocation};
use crate::fleet::store::LockWrite;
use crate::fleet::table_migration::Step;
use crate::lease::{Table, WorkerId, table};
use crate::metrics::{self, OfWorker, Sink};

/// The context of all tasks.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) store: Arc<dyn Store>,
    pub(super) table: Arc<dyn Table>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) me: WorkerId,
}

impl Tools {
    pub(super) async fn write_lock(self, place: StateLocation, write: LockWrite, ask: bool) -> Event {
        let outcome = self.store.write_lock(place, &write).await;
        let stage = if ask { Some(self.store.stage().await) } else { None };
        let stage = stage.map(|read| read.map(|row| row.map(|row| row.now.state)));
        Event::LockWritten { place, action: action(&write), outcome, stage }
    }

    pub(super) async fn release_lock(self, place: StateLocation, write: LockWrite) {
        if let Err(error) = self.store.write_lock(place, &write).await {
            warn!(event = "leader_lock_release_failed", %error, "failed to release the leader lock: it will expire");
        }
    }

    pub(super) async fn assign(self, assignment: Assignment) -> Event {
        let Assignment { lease, update, to, how, leads_until } = assignment;
        let from = lease.actual_owner().map(ToString::to_string);
        let key = lease.key;
        // The machine may have been suspended since the plan was made.
        let leads = leads_until.is_some_and(|until| Instant::now() < until.instant());
        let outcome = if leads {
            self.table.update(&key, &update).await.map(drop)
        } else {
            Err(table::Error::Conflict(key.clone()))
        };
        match (&outcome, how) {
            (Ok(()), How::HandOff) => {
                info!(event = "handoff_requested", shard = %key, from, %to, "requested a graceful handoff")
            }
            (Ok(()), How::Assign) if from.is_some() => {
                info!(event = "lease_assigned", shard = %key, from, %to, "assigned a lease")
            }
            (Ok(()), How::Assign) => debug!(shard = %key, %to, "assigned a lease"),
            (Err(error), _) => debug!(shard = %key, %to, %error, "failed to assign a lease"),
        }
        Event::Assigned(key, outcome)
    }

    pub(super) async fn report(self, place: StateLocation, report: Report) -> Event {
        let began = Instant::now();
        let outcome = self.store.report(place, &report).await;
        let (step, took, ok) = (metrics::Step::Report, began.elapsed(), outcome.is_ok());
        self.sink.worker(OfWorker::Did { step, took, ok });
        Event::Reported(outcome)
    }

    pub(super) async fn monitor(self, layout: Layout, changes: bool, alone: bool) -> Event {
        let store = &*self.store;
        let look = async {
            let generation = if changes { generation(store, layout).await? } else { None };
            let stage = if layout == Layout::Complete { None } else { store.stage().await? };
            let old = alone && store.legacy().await?.state;
            Ok(Monitored {
                generation: generation.map(|(_, row)| row),
                stage: stage.map(|row| row.now.state),
                old,
            })
        };
        Event::Monitored(look.await)
    }

    pub(super) async fn check(self, layout: Layout) -> Event {
        let check = async { Ok((self.table.index(true).await?, reports(&*self.store, layout).await?)) };
        Event::Checked(check.await)
    }

    pub(super) async fn advance(self, layout: Layout, wall: i64) -> Event {
        let advance = async {
            let Some((place, row)) = generation(&*self.store, layout).await? else { return Ok(()) };
            let Entry { state: Generation::Upgrade, .. } = row.now else { return Ok(()) };
            let next = row.next(Generation::Revocable, &self.me, wall);
            self.store.write_generation(place, Some(Generation::Upgrade), &next).await
        };
        Event::Advanced(advance.await)
    }

    pub(super) async fn survey(self) -> Event {
        let began = Instant::now();
        let seen: Result<Surveyed, table::Error> = read_inputs(&*self.store).await;
        Event::Surveyed(seen.map(Box::new), began.elapsed())
    }

    pub(super) async fn migrate(self, step: Step, seen: Box<Surveyed>, wall: i64) -> Event {
        let began = Instant::now();
        let outcome = carry_out(&*self.store, &self.me, step, &seen, wall).await;
        if let Some(what) = written(step) {
            self.sink.worker(OfWorker::Moved { what, took: began.elapsed(), ok: outcome.is_ok() });
        }
        Event::Migrated(step, outcome)
    }

    pub(super) async fn sweep(self, layout: Layout, stale: Vec<(String, i64)>) {
        let began = Instant::now();
        let (reports, mut retracts) = (stale.len(), JoinSet::new());
        for (worker, at) in stale {
            info!(event = "worker_metrics_deleted", worker, "deleting the stale metrics of a dead worker");
            for place in layout.reads() {
                let (store, worker) = (self.store.clone(), worker.clone());
                retracts.spawn(async move {
                    if let Err(error) = store.retract(*place, &worker, at).await {
                        debug!(%error, worker, "failed to delete stale worker metrics");
                    }
                });
            }
        }
        while retracts.join_next().await.is_some() {}
        self.sink.worker(OfWorker::Swept { reports, took: began.elapsed() });
    }
}
