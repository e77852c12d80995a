//! The leader's execution of the table migration, and how every worker follows it.
//!
//! The last step moves the leader lock: from before that write is sent until its result is known this worker
//! assigns nothing, because another worker may hold the new lock by then.
//!
//! For each step its inputs are read first, then [`crate::fleet::table_migration`] decides, then one write
//! follows; a step that fails is decided again.
//!
//! In KCL: `TableMigrationStateMachineImpl`, driven by `DynamoDBLockBasedLeaderDecider`.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::event::{Effect, Kind, Surveyed};
use super::state::State;
use crate::fleet::Store;
use crate::fleet::layout::Layout;
use crate::fleet::lock::{Election, Terms};
use crate::fleet::rows::{Dated, Stage, StateLocation};
use crate::fleet::table_migration::{Step, survey};
use crate::lease::{WorkerId, table};
use crate::metrics::{Move, OfWorker, Supporters, Tables};

/// Between the steps of a leader, in failover times: Java's leader loads the reports as often.
const EVERY: u32 = 2;

impl State {
    /// Whether there is a move to lead.
    pub(super) fn moves(&self, now: Instant) -> bool {
        self.layout != Layout::Complete && self.mode.is_led() && self.election.leads(now)
    }

    pub(super) fn survey(&mut self, now: Instant) {
        self.plan(Kind::TableMigration, Some(now + self.settings.failover * EVERY));
        self.begun(Kind::TableMigration);
        self.effects.push(Effect::Survey);
    }

    pub(super) fn cannot_survey(&mut self, error: &table::Error, took: Duration) {
        self.ended(Kind::TableMigration);
        self.effects.push(Effect::Emit(OfWorker::Surveyed { found: None, took }));
        warn!(event = "table_migration_failed", %error, "failed to read the status of the table migration");
    }

    /// The metrics of the move: the stored stage, and one table where there is nothing to move.
    pub(super) fn report_tables(&mut self, stored: Option<Stage>) {
        let tables = match (self.layout, stored) {
            (Layout::Complete, _) | (_, Some(Stage::Complete)) => Tables::Complete,
            (_, Some(Stage::Init)) => Tables::Init,
            (_, Some(Stage::Deployed)) => Tables::Deployed,
            (_, Some(Stage::Pending)) => Tables::Pending,
            (_, None) => Tables::Unknown,
        };
        self.effects.push(Effect::Emit(OfWorker::Tables(tables)));
    }

    pub(super) fn surveyed(&mut self, seen: Box<Surveyed>, took: Duration) {
        self.ended(Kind::TableMigration);
        self.finishing = false;
        let stored = seen.stage.as_ref().map(|row| row.now.state);
        self.adopt(stored);
        self.report_tables(stored);
        if !self.moves(self.now()) {
            return;
        }
        let wall = self.moment.wall;
        let table = &self.snapshot;
        let owners = table.leases.iter().filter_map(|lease| lease.owner.clone());
        let dead = table.dead_workers(self.settings.failover);
        let owners: BTreeSet<WorkerId> = owners.filter(|owner| !dead.contains(owner)).collect();
        let every = self.settings.rules.every;
        let found = survey(&owners, &seen.old, &seen.new, seen.left.len(), wall / 1_000, every);
        let step = self.mover.next(self.layout, seen.stage.as_ref(), found, wall, self.settings.bake);
        debug!(owners = found.owners, able = found.able, %step, "next step of the table migration");
        let found = Supporters {
            least: (found.owners > 0).then_some(found.support),
            owners: found.owners,
            able: found.able,
            moved: found.new_writers,
        };
        self.effects.push(Effect::Emit(OfWorker::Surveyed { found: Some(found), took }));
        if step == Step::Rest {
            return;
        }
        self.begun(Kind::TableMigration);
        self.finishing = step == Step::Finish;
        self.show();
        self.effects.push(Effect::Migrate(step, seen));
    }

    pub(super) fn moved(&mut self, step: Step, outcome: Result<(), table::Error>) {
        self.ended(Kind::TableMigration);
        match outcome {
            Ok(()) => {
                info!(event = "table_migration_advanced", %step, "completed a step of the table migration");
                // The next step may be due at once.
                self.plan(Kind::TableMigration, Some(self.now()));
                if step == Step::Finish {
                    self.adopt(Some(Stage::Complete));
                    self.finishing = false;
                }
            }
            Err(table::Error::Conflict(row)) => debug!(%row, %step,
                "another worker was faster with this step of the table migration"),
            Err(error @ table::Error::Denied(_)) => {
                error!(event = "table_migration_blocked", %error, %step, "table migration is blocked");
            }
            Err(error) => warn!(event = "table_migration_failed", %error, %step,
                "failed to carry out a step of the table migration, retrying"),
        }
    }

    /// The stored stage may move the lock. The holder of the old lock releases it.
    pub(super) fn adopt(&mut self, stage: Option<Stage>) {
        let layout = self.layout.after(stage, self.settings.migrate);
        if layout == self.layout {
            return;
        }
        info!(event = "table_migration_status_changed", from = %self.layout, to = %layout, "table migration status changed");
        if layout.lock() != self.layout.lock() {
            self.step_down();
            self.election = Election::new(Terms::new(self.settings.me.clone(), self.settings.failover));
            self.plan(Kind::Lock, Some(self.now()));
        }
        self.layout = layout;
        if layout == Layout::Complete {
            self.report_tables(stage);
        }
        // Whatever becomes of a last step that is under way, the lock that it moves is the new one now.
        self.finishing = false;
    }
}

/// The kind of row that a step writes, for the metrics.
pub(super) fn written(step: Step) -> Option<Move> {
    match step {
        Step::Rest => None,
        Step::Create(_) | Step::Set { .. } => Some(Move::Stage),
        Step::Withdraw => Some(Move::Withdrawal),
        Step::Relocate => Some(Move::Rows),
        Step::Finish => Some(Move::Completion),
    }
}

pub(super) async fn read_inputs(store: &dyn Store) -> Result<Surveyed, table::Error> {
    Ok(Surveyed {
        stage: store.stage().await?,
        old: store.reports(StateLocation::Legacy).await?,
        new: store.reports(StateLocation::Leases).await?,
        left: store.left().await?,
    })
}

pub(super) async fn carry_out(
    store: &dyn Store,
    me: &WorkerId,
    step: Step,
    seen: &Surveyed,
    wall: i64,
) -> Result<(), table::Error> {
    let next = |stage| match &seen.stage {
        Some(row) => row.next(stage, me, wall),
        None => Dated::first(stage, Stage::Init, me, wall),
    };
    match step {
        Step::Rest => Ok(()),
        Step::Create(stage) => store.write_stage(None, &next(stage)).await,
        Step::Withdraw => store.withdraw_stage().await,
        Step::Set { over, to } => store.write_stage(Some(over), &next(to)).await,
        Step::Relocate => store.relocate(me, &seen.left).await,
        Step::Finish => store.finish(me, &next(Stage::Complete)).await,
    }
}
