//! Reads and judges the worker metrics for the leader: the workers that may be assigned leases, and outdated
//! rows.
//!
//! In KCL: `WorkerMetricStatsDAO` as `LeaseAssignmentManager` reads it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::event::{Effect, Kind};
use super::state::State;
use crate::fleet::report::{Verdict, with_renewing};
use crate::fleet::rows::{Report, StateLocation};
use crate::lease::{WorkerId, table};
use crate::metrics::OfWorker;

/// The time between two reads of the worker metrics by the leader; the nudge of a worker that joins also causes one.
const JUDGE: Duration = Duration::from_secs(45);
/// The number of failover times between two reads where worker metrics have a table of their own, as in Java: a read
/// costs little there, and some workers of the fleet do not nudge.
const JUDGE_APART: u32 = 2;
/// A worker that can acquire no lease for so many failover times wants none.
const UNABLE: u32 = 2;

impl State {
    pub(super) fn judge(&mut self, now: Instant) {
        let pause = match self.writes {
            StateLocation::Leases => JUDGE,
            StateLocation::Legacy => JUDGE.min(self.settings.failover * JUDGE_APART),
        };
        self.plan(Kind::Judge, Some(now + pause));
        self.begun(Kind::Judge);
        self.effects.push(Effect::ReadReports(self.layout));
    }

    pub(super) fn judged(&mut self, reports: &[Report]) {
        let (wall, now) = (self.wall_seconds(), self.now());
        if let Some(lasted) = self.outages.report_reads.worked(now) {
            info!(event = "worker_metrics_recovered", ?lasted, "reading the worker metrics works again");
        }
        let verdict = self.ahead.judge(reports, wall, now, &self.settings.rules);
        for (worker, at) in &verdict.ahead {
            warn!(
                event = "worker_metrics_deleted",
                worker,
                lut = at,
                now = wall,
                "deleting worker metrics that are dated in the future and do not change (check the clock \
                 of the host of this worker)"
            );
        }
        self.sweep(verdict.stale.iter().chain(&verdict.ahead).cloned().collect());
        (self.read, self.judged) = (Arc::new(verdict), Some(now));
        self.compose(now);
    }

    /// The reports can't be read: the leader knows itself, and sees who renews leases.
    pub(super) fn cannot_judge(&mut self, error: &table::Error, now: Instant) {
        if self.outages.report_reads.failed(now, error, &self.settings.reach) {
            warn!(event = "worker_metrics_failed",
                %error,
                action = "dynamodb:Scan",
                "failed to read the worker metrics: assigning leases to the workers that renew leases"
            );
        }
        let failover = self.settings.failover;
        let pause = self.outages.report_reads.pause(failover / 4, failover * 2);
        self.plan(Kind::Judge, Some(now + pause));
        self.compose(now);
    }

    /// This worker's report was written, or not.
    pub(super) fn noted(&mut self, outcome: &Result<(), table::Error>, now: Instant) {
        match outcome {
            Ok(()) => {
                if let Some(lasted) = self.outages.report_writes.worked(now) {
                    info!(
                        event = "worker_metrics_recovered",
                        ?lasted,
                        "writing the worker metrics works again"
                    );
                }
            }
            Err(error) => {
                if self.outages.report_writes.failed(now, error, &self.settings.reach) {
                    warn!(event = "worker_metrics_failed",
                        %error,
                        action = "dynamodb:UpdateItem",
                        "failed to write the worker metrics: another leader assigns no leases to this \
                         worker"
                    );
                }
                let pause =
                    self.outages.report_writes.pause(self.settings.failover / 2, self.settings.rules.every);
                self.plan(Kind::Report, Some(now + pause));
            }
        }
        self.compose(now);
    }

    /// Composes the list of workers that may be assigned leases: those that the reports name and, where reports fail, those
    /// that this worker knows to be live.
    fn compose(&mut self, now: Instant) {
        if !self.election.leads(now) {
            return;
        }
        let grace = self.settings.failover / 2;
        let limit = self.settings.rules.every * 2;
        let fresh = self.judged.is_some_and(|at| now <= at + limit);
        let unread = !fresh && self.outages.report_reads.lasts(now, grace);
        let unwritten = self.outages.report_writes.lasts(now, grace);
        let verdict = if unread || unwritten {
            let read = if unread { Verdict::default() } else { Verdict::clone(&self.read) };
            let mut renewing = self.snapshot.renewing.clone();
            renewing.remove(&self.settings.me);
            // Where nobody else is known it tries again itself: nothing else would show that it can.
            let alone = read.members.is_empty() && renewing.is_empty();
            let me = (alone || !self.withdrawn).then_some(&self.settings.me);
            Arc::new(with_renewing(read, me, &renewing))
        } else if self.withdrawn && self.read.members.is_empty() {
            // No worker accepts leases. Unless this one tries again, nothing shows that it can.
            Arc::new(with_renewing(Verdict::clone(&self.read), Some(&self.settings.me), &BTreeSet::new()))
        } else {
            self.read.clone()
        };
        let ids = |verdict: &Verdict| -> BTreeSet<WorkerId> {
            verdict.members.iter().map(|member| member.id.clone()).collect()
        };
        let new = !ids(&verdict).is_subset(&ids(&self.verdict));
        self.verdict = verdict;
        if new {
            self.show();
            self.scan_now();
        }
    }

    /// Whether this worker has been unable to acquire leases for so long that it must be given none.
    pub(super) fn is_unable(&self, now: Instant) -> bool {
        let unable = self.snapshot.unable;
        self.mode.is_led() && unable.is_some_and(|since| now >= since + self.settings.failover * UNABLE)
    }

    /// Decides whether the next report says that this worker wants no leases.
    pub(super) fn withdraw(&mut self, now: Instant) {
        let (unable, short) = (self.is_unable(now), self.settings.capacity.is_short(now));
        let withdraws = unable || short;
        if std::mem::replace(&mut self.withdrawn, withdraws) == withdraws {
            return;
        }
        if unable && self.settings.reach.is_silent(now) {
            // One line for all requests says that DynamoDB does not respond.
            debug!("this worker cannot acquire leases: DynamoDB does not respond");
        } else if unable {
            warn!(
                event = "worker_unavailable",
                "this worker cannot acquire leases: its worker metrics report that it accepts none until \
                 it can"
            );
        } else if short {
            warn!(
                event = "worker_unavailable",
                "this worker lacks resources for its leases: its worker metrics report that it accepts \
                 no more"
            );
        } else {
            info!(event = "worker_available", "this worker can acquire leases again");
        }
    }

    /// Deletes reports of workers that are long gone.
    fn sweep(&mut self, stale: Vec<(String, i64)>) {
        self.effects.push(match stale.is_empty() {
            true => Effect::Emit(OfWorker::Swept { reports: 0, took: Duration::ZERO }),
            false => Effect::Sweep(self.layout, stale),
        });
    }
}
