//! How a worker takes its leave of the fleet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::Member;
use super::begin::reports;
use crate::fleet::report::Recorder;

/// A request at the end of a stop takes no longer.
const FAREWELL: Duration = Duration::from_secs(1);

impl Member {
    /// The lock first, then that nothing more is wanted, then who else there is; and at the very end the
    /// report goes.
    pub(super) async fn take_leave(&mut self) {
        self.ends.coordinator = None;
        let lock = self.election.stand_back(Instant::now() + Duration::from_secs(3_600));
        self.show();
        self.work.abort_all();
        while self.work.join_next().await.is_some() {}
        let (store, place) = (self.store.clone(), self.layout.lock());
        if let Some(write) = lock
            && !matches!(timeout(FAREWELL, store.write_lock(place, &write)).await, Ok(Ok(())))
        {
            warn!("failed to release the leader lock: it will expire");
        }
        if !self.mode.reports() || self.ends.rival.borrow().is_some() {
            return;
        }
        let gone = self.ends.gone.clone();
        let mut due = Instant::now();
        let mut read: Option<Instant> = None;
        loop {
            if Instant::now() >= due {
                self.bid_farewell().await;
                due = Instant::now() + self.settings.rules.every;
            }
            tokio::select! {
                biased;
                () = gone.cancelled() => break,
                Some(question) = self.ends.successors.recv() => {
                    // One scan serves all leases that are released together.
                    if read.is_none_or(|at| Instant::now() > at + FAREWELL / 10) {
                        read = Some(Instant::now());
                        self.look_for_heirs().await;
                    }
                    if question.send(self.verdict.clone()).is_err() {
                        debug!("the requester of a successor has given up waiting");
                    }
                }
                () = sleep_until(due) => {}
            }
        }
        if let Some(at) = self.reported {
            let retract = store.retract(self.writes, self.settings.me.as_str(), at);
            if !matches!(timeout(self.settings.stop.left(FAREWELL), retract).await, Ok(Ok(_))) {
                debug!("failed to delete the worker metrics of this worker: they become stale");
            }
        }
    }

    /// Nothing more is wanted.
    async fn bid_farewell(&mut self) {
        let at = (self.settings.wall)() / 1_000;
        let report = Recorder::farewell(&self.settings.me, at);
        if matches!(timeout(FAREWELL, self.store.report(self.writes, &report)).await, Ok(Ok(()))) {
            self.reported = Some(at);
        }
    }

    async fn look_for_heirs(&mut self) {
        self.verdict = match timeout(FAREWELL, reports(&*self.store, self.layout)).await {
            Ok(Ok(reports)) => {
                let (wall, now) = ((self.settings.wall)() / 1_000, Instant::now());
                Arc::new(self.ahead.judge(&reports, wall, now, &self.settings.rules))
            }
            Ok(Err(_)) | Err(_) => Arc::default(),
        };
    }
}
