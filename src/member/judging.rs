//! What the workers' reports say, for a worker that leads: who may be given leases, and whose report is old.
//!
//! In KCL: `WorkerMetricStatsDAO` as `LeaseAssignmentManager` reads it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info};

use super::begin::reports;
use super::{Done, JUDGE, JUDGE_APART, Member};
use crate::fleet::report::judge;
use crate::fleet::rows::{Place, Report};
use crate::lease::WorkerId;
use crate::metrics::OfWorker;

impl Member {
    pub(super) fn judge(&mut self, now: Instant) {
        self.due.judge = now
            + match self.writes {
                Place::Leases => JUDGE,
                Place::Legacy => JUDGE.min(self.settings.failover * JUDGE_APART),
            };
        self.busy.judge = true;
        let (store, layout) = (self.store.clone(), self.layout);
        self.work.spawn(async move { Done::Judged(reports(&*store, layout).await) });
    }

    pub(super) fn judged(&mut self, reports: &[Report]) {
        let now = (self.settings.wall)() / 1_000;
        let before: BTreeSet<WorkerId> = self.verdict.members.iter().map(|one| one.id.clone()).collect();
        let verdict = judge(reports, now, &self.settings.rules);
        let new = verdict.members.iter().any(|member| !before.contains(&member.id));
        self.sweep(verdict.stale.clone());
        (self.verdict, self.judged) = (Arc::new(verdict), Some(Instant::now()));
        if new {
            self.show();
            self.look();
        }
    }

    /// Deletes reports of workers that are long gone.
    fn sweep(&mut self, stale: Vec<(String, i64)>) {
        let (store, layout, sink) = (self.store.clone(), self.layout, self.settings.sink.clone());
        if stale.is_empty() {
            return sink.worker(OfWorker::Swept { reports: 0, took: Duration::ZERO });
        }
        let began = Instant::now();
        self.work.spawn(async move {
            let (reports, mut retracts) = (stale.len(), JoinSet::new());
            for (worker, at) in stale {
                info!(worker, "a worker has not reported for long: its report is deleted");
                for place in layout.reads() {
                    let (store, worker) = (store.clone(), worker.clone());
                    retracts.spawn(async move {
                        if let Err(error) = store.retract(*place, &worker, at).await {
                            debug!(%error, worker, "an old report was not deleted");
                        }
                    });
                }
            }
            while retracts.join_next().await.is_some() {}
            sink.worker(OfWorker::Swept { reports, took: began.elapsed() });
            Done::Retracted
        });
    }
}
