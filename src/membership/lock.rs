//! How a worker stands for the lead: the leader lock is read and written as [`crate::fleet::lock`] decides.
//!
//! Writes that DynamoDB refuses wait longer each time, and are logged once a minute. While nobody leads and this worker
//! can't, the leases are shared without a leader ([`crate::fleet::vacancy`]).
//!
//! In KCL: `DynamoDBLockBasedLeaderDecider`.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::event::{Effect, Kind};
use super::state::{MONITOR, State};
use crate::fleet::layout::Layout;
use crate::fleet::lock::{self, Next, Terms};
use crate::fleet::rows::{Lock, Stage};
use crate::fleet::store::LockWrite;
use crate::lease::table;
use crate::unique::uuid;

/// The action that a role must allow for this write.
pub(super) fn action(write: &LockWrite) -> &'static str {
    match write {
        LockWrite::Acquire { .. } => "dynamodb:PutItem",
        LockWrite::Beat { .. } => "dynamodb:UpdateItem",
        LockWrite::Release { .. } => "dynamodb:DeleteItem",
    }
}

impl State {
    /// Carries a step of the election out; nothing to do ends the conversation.
    pub(super) fn lock(&mut self, next: Next) {
        let place = self.layout.lock();
        match next {
            Next::Read => self.effects.push(Effect::ReadLock(place)),
            Next::Write(LockWrite::Acquire { .. }) if self.barred => {
                self.election.stand_back(self.now() + MONITOR);
                self.lock_done();
                return;
            }
            Next::Write(write) => {
                // The legacy lock may be free only because the lock has moved to the lease table: the stage is read
                // after the write, before this worker leads by the new lock.
                self.slept.0 = self.moment.slept;
                let ask = matches!(write, LockWrite::Acquire { .. }) && self.layout != Layout::Complete;
                self.effects.push(Effect::WriteLock(place, write, ask));
            }
            Next::Nothing => {
                self.lock_done();
                return;
            }
        }
        self.begun(Kind::Lock);
    }

    pub(super) fn lock_done(&mut self) {
        self.ended(Kind::Lock);
        self.plan(Kind::Lock, Some(self.election.due(self.now())));
    }

    pub(super) fn lock_read(&mut self, outcome: &Result<Option<Lock>, table::Error>, now: Instant) {
        let row = match outcome {
            Ok(row) => row.as_ref(),
            Err(error) => {
                if self.outages.lock_reads.failed(now, error, &self.settings.reach) {
                    warn!(event = "leader_lock_failed", %error, action = "dynamodb:GetItem", "failed to read the leader lock");
                }
                self.vacancy.unreadable(now);
                self.lock_done();
                return;
            }
        };
        if let Some(lasted) = self.outages.lock_reads.worked(now) {
            info!(event = "leader_lock_recovered", ?lasted, "reading the leader lock works again");
        }
        self.led_by_ours = row.is_some_and(lock::is_of_multilangd);
        let (led, until) = (self.election.leads(now), self.election.until());
        let next = self.election.read(now, row, || uuid(self.random.u128(..)));
        self.led = !self.election.is_vacant(now, row);
        // A fleet with tables of its own has its leader lock there, which this worker does not read.
        self.vacancy.read(now, !self.led && !self.barred);
        self.prove(until);
        self.lock(next);
        self.tell_of_the_lead(led);
    }

    fn lock_answered(&mut self, now: Instant) {
        if let Some(lasted) = self.outages.lock_writes.worked(now) {
            info!(event = "leader_lock_recovered", ?lasted, "writing the leader lock works again");
        }
    }

    pub(super) fn lock_written(
        &mut self,
        action: &'static str,
        outcome: &Result<(), table::Error>,
        stage: Option<Result<Option<Stage>, table::Error>>,
        now: Instant,
    ) {
        let (led, until) = (self.election.leads(now), self.election.until());
        self.election.written(outcome);
        self.prove(until);
        match outcome {
            Ok(()) => {
                self.vacancy.leads();
                self.led = true;
                self.lock_answered(now);
            }
            Err(table::Error::Conflict(_)) => self.lock_answered(now),
            Err(table::Error::Ambiguous(_)) => {}
            Err(error) => {
                self.election.refused(now);
                if self.outages.lock_writes.failed(now, error, &self.settings.reach) {
                    warn!(event = "leader_lock_failed",
                        %error,
                        action,
                        "failed to write the leader lock: this worker cannot become the leader (check \
                         the permission and the capacity of the table)"
                    );
                }
            }
        }
        self.lock_confirmed(stage);
        self.lock_done();
        if let Err(error @ (table::Error::Conflict(_) | table::Error::Ambiguous(_))) = outcome {
            debug!(%error, "lost a write of the leader lock to another worker");
            let pause = self.settings.failover.mul_f64(0.02 + 0.03 * self.random.f64());
            self.plan(Kind::Lock, Some(now + pause));
        }
        self.tell_of_the_lead(led);
    }

    /// The lock lasts longer than it did: the last write has arrived.
    pub(super) fn prove(&mut self, before: Option<Instant>) {
        if self.election.until() != before {
            self.slept.1 = self.slept.0;
        }
    }

    /// Evaluates the migration stage after the lock was acquired in the old table.
    pub(super) fn lock_confirmed(&mut self, stage: Option<Result<Option<Stage>, table::Error>>) {
        match stage {
            None => {}
            Some(Ok(stage)) => self.adopt(stage),
            Some(Err(error)) => {
                warn!(event = "leader_lock_given_up", %error,
                    "failed to read the table migration status after acquiring the leader lock: \
                     releasing it");
                self.step_down();
            }
        }
    }

    pub(super) fn tell_of_the_lead(&mut self, led: bool) {
        let now = self.now();
        match (led, self.election.leads(now)) {
            (false, true) => {
                info!(event = "leadership_acquired", "this worker is now the leader");
                (self.verdict, self.read, self.judged) = (Arc::default(), Arc::default(), None);
                self.judge(now);
            }
            (true, false) => warn!(event = "leadership_lost", "this worker is no longer the leader"),
            _ => {}
        }
    }

    pub(super) fn step_down(&mut self) {
        let until = self.now() + Terms::new(self.settings.me.clone(), self.settings.failover).lease;
        if let Some(write) = self.election.stand_back(until) {
            self.effects.push(Effect::ReleaseLock(self.layout.lock(), write));
        }
    }
}
