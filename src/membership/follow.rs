//! How a worker follows its fleet from one generation to the next.
//!
//! In KCL: `ClientVersionChangeMonitor`, `MigrationReadyMonitor`.

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::event::{Effect, Kind, Monitored};
use super::state::{MONITOR, State};
use crate::fleet::Mode;
use crate::fleet::rows::Report;
use crate::fleet::version::{self, Readiness};
use crate::lease::audit;

impl State {
    /// Reads the state that other workers write: the generation, the stage of the table migration, whether
    /// old tables appeared.
    pub(super) fn monitor(&mut self, now: Instant) {
        self.plan(Kind::Monitor, Some(now + MONITOR));
        self.begun(Kind::Monitor);
        let (layout, changes, alone) = (self.layout, self.mode.may_change(), self.alone);
        self.effects.push(Effect::Monitor { layout, changes, alone });
        let seen = &self.snapshot;
        if self.mode == Mode::Upgrade
            && audit::leads(&self.settings.me, &seen.leases, &seen.dead_workers(self.settings.failover))
        {
            self.effects.push(Effect::Check(layout));
        } else {
            self.readiness = Readiness::default();
        }
    }

    pub(super) fn monitored(&mut self, seen: &Monitored) {
        self.ended(Kind::Monitor);
        if seen.old && !self.barred {
            error!(
                event = "layout_conflict",
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
            info!(event = "assignment_mode_changed", from = %self.mode, to = %mode, "lease assignment mode changed");
            if self.mode.is_led() && !mode.is_led() {
                self.step_down();
            }
            if matches!(mode, Mode::Upgrade | Mode::ThreeX) {
                self.make_index();
            }
            self.mode = mode;
            self.plan(Kind::Lock, Some(self.now()));
            self.plan(Kind::Report, Some(self.now()));
            self.readiness = Readiness::default();
            self.show();
            self.scan_now();
        }
    }

    pub(super) fn checked(&mut self, index: bool, reports: &[Report], now: Instant) {
        let verdict = self.ahead.judge(reports, self.moment.wall / 1_000, now, &self.settings.rules);
        let ready = version::is_ready(index, &self.snapshot.leases, &verdict.reporting);
        debug!(
            ready,
            index,
            reporting = verdict.reporting.len(),
            "checked whether all workers support KCL 3.x"
        );
        if !self.readiness.look(now, ready) || self.mode != Mode::Upgrade {
            return;
        }
        self.effects.push(Effect::Advance(self.layout));
    }
}
