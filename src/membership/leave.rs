//! How a worker takes its leave of the fleet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::Member;
use super::begin::reports;
use super::event::{Effect, Event, Moment};
use crate::fleet::report::Recorder;

/// A request at the end of a stop takes no longer.
const FAREWELL: Duration = Duration::from_secs(1);

impl Member {
    /// The lock first, then that nothing more is wanted, then who else there is; and at the very end the
    /// report goes.
    pub(super) async fn take_leave(&mut self) {
        self.ends.coordinator = None;
        let mut lock = None;
        for effect in self.state.on(self.moment(), Event::Stop) {
            if let Effect::LastRelease(place, write) = effect {
                lock = Some((place, write));
            } else {
                self.perform(effect);
            }
        }
        self.work.abort_all();
        while self.work.join_next().await.is_some() {}
        let store = self.store.clone();
        if let Some((place, write)) = lock
            && !matches!(timeout(FAREWELL, store.write_lock(place, &write)).await, Ok(Ok(())))
        {
            warn!(event = "leader_lock_release_failed", "failed to release the leader lock: it will expire");
        }
        if !self.state.mode.reports() || self.ends.rival.borrow().is_some() {
            return;
        }
        let gone = self.ends.gone.clone();
        let mut due = Instant::now();
        let mut read: Option<Instant> = None;
        loop {
            if Instant::now() >= due {
                self.bid_farewell().await;
                due = Instant::now() + self.state.settings.rules.every;
            }
            tokio::select! {
                biased;
                () = gone.cancelled() => break,
                Some(question) = self.ends.successors.recv() => {
                    // One scan serves all leases that are released together.
                    if read.is_none_or(|at| Instant::now() > at + FAREWELL / 10) {
                        read = Some(Instant::now());
                        self.look_for_successors().await;
                    }
                    if question.send(self.state.verdict.clone()).is_err() {
                        debug!("the requester of a successor has given up waiting");
                    }
                }
                () = sleep_until(due) => {}
            }
        }
        if let Some(at) = self.state.reported {
            let retract = store.retract(self.state.writes, self.state.settings.me.as_str(), at);
            if !matches!(timeout(self.state.settings.stop.left(FAREWELL), retract).await, Ok(Ok(_))) {
                debug!("failed to delete the worker metrics of this worker: they become stale");
            }
        }
    }

    /// Nothing more is wanted.
    async fn bid_farewell(&mut self) {
        let at = self.moment().wall / 1_000;
        let report = Recorder::farewell(&self.state.settings.me, at);
        if matches!(timeout(FAREWELL, self.store.report(self.state.writes, &report)).await, Ok(Ok(()))) {
            self.state.reported = Some(at);
        }
    }

    async fn look_for_successors(&mut self) {
        self.state.verdict = match timeout(FAREWELL, reports(&*self.store, self.state.layout)).await {
            Ok(Ok(reports)) => {
                let Moment { now, wall, .. } = self.moment();
                let state = &mut self.state;
                Arc::new(state.ahead.judge(&reports, wall / 1_000, now, &state.settings.rules))
            }
            Ok(Err(_)) | Err(_) => Arc::default(),
        };
    }
}
