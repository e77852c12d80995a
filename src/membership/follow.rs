//! How a worker follows its fleet from one generation to the next.
//!
//! In KCL: `ClientVersionChangeMonitor`, `MigrationReadyMonitor`.

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::begin::{generation, reports};
use super::{Done, MONITOR, Member};
use crate::fleet::Mode;
use crate::fleet::layout::Layout;
use crate::fleet::rows::{Dated, Entry, Generation, Report, Stage};
use crate::fleet::version::{self, Readiness};
use crate::lease::audit;

/// The state that other workers write.
pub(super) struct Monitored {
    pub(super) generation: Option<Dated<Generation>>,
    pub(super) stage: Option<Stage>,
    pub(super) old: bool,
}

impl Member {
    /// Reads the state that other workers write: the generation, the stage of the table migration, whether
    /// old tables appeared.
    pub(super) fn monitor(&mut self, now: Instant) {
        self.due.monitor = now + MONITOR;
        self.busy.monitor = true;
        let (store, layout, changes, alone) =
            (self.store.clone(), self.layout, self.mode.may_change(), self.alone);
        self.spawn(async move {
            let look = async {
                let generation = if changes { generation(&*store, layout).await? } else { None };
                let stage = if layout == Layout::Complete { None } else { store.stage().await? };
                let old = alone && store.legacy().await?.state;
                Ok(Monitored {
                    generation: generation.map(|(_, row)| row),
                    stage: stage.map(|row| row.now.state),
                    old,
                })
            };
            Done::Monitored(look.await)
        });
        let seen = self.ends.seen.borrow().clone();
        if self.mode == Mode::Upgrade
            && audit::leads(&self.settings.me, &seen.leases, &seen.dead_workers(self.settings.failover))
        {
            let (store, table) = (self.store.clone(), self.table.clone());
            self.spawn(async move {
                let check = async { Ok((table.index(true).await?, reports(&*store, layout).await?)) };
                Done::Checked(check.await)
            });
        } else {
            self.readiness = Readiness::default();
        }
    }

    pub(super) fn monitored(&mut self, seen: &Monitored) {
        self.busy.monitor = false;
        if seen.old && !self.barred {
            error!(
                "a worker of KCL 3.0 to 3.4 created its own tables beside the single table of this \
                 application, which it cannot read: this worker does not become the leader (stop the KCL \
                 3.0 to 3.4 worker)"
            );
            self.barred = true;
            self.step_down();
        }
        if self.barred && !seen.old {
            self.barred = false;
        }
        self.adopt(seen.stage);
        let stored = seen.generation.as_ref().map(|row| row.now.state);
        if let Some(mode) = stored.and_then(|stored| version::follow(self.mode, stored)) {
            info!(from = %self.mode, to = %mode, "lease assignment mode changed");
            if self.mode.is_led() && !mode.is_led() {
                self.step_down();
            }
            if matches!(mode, Mode::Upgrade | Mode::ThreeX) {
                self.make_index();
            }
            self.mode = mode;
            self.due.lock = Instant::now();
            self.due.report = Instant::now();
            self.readiness = Readiness::default();
            self.show();
            self.look();
        }
    }

    pub(super) fn checked(&mut self, index: bool, reports: &[Report], now: Instant) {
        let wall = (self.settings.wall)();
        let verdict = self.ahead.judge(reports, wall / 1_000, now, &self.settings.rules);
        let leases = self.ends.seen.borrow().leases.clone();
        let ready = version::is_ready(index, &leases, &verdict.reporting);
        debug!(
            ready,
            index,
            reporting = verdict.reporting.len(),
            "checked whether all workers support KCL 3.x"
        );
        if !self.readiness.look(now, ready) || self.mode != Mode::Upgrade {
            return;
        }
        let (store, layout, me) = (self.store.clone(), self.layout, self.settings.me.clone());
        self.spawn(async move {
            let advance = async {
                let Some((place, row)) = generation(&*store, layout).await? else { return Ok(()) };
                let Entry { state: Generation::Upgrade, .. } = row.now else { return Ok(()) };
                let next = row.next(Generation::Revocable, &me, wall);
                store.write_generation(place, Some(Generation::Upgrade), &next).await
            };
            Done::Advanced(advance.await)
        });
    }
}
