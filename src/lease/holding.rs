//! The state of a held lease, and the effect of each answer of the table on it.
//!
//! Pure: [`super::Held`] sends the requests, the model check (`tests/model/`) plays every order of
//! answers. One write is a short conversation:
//!
//! ```text
//! plan -> (write) -> answered -+-> done
//!                              +-> failed, still ours
//!                              +-> look at the row -> (read) -> read -+-> done
//!                                                                     +-> again: plan
//!                                                                     +-> failed, still ours
//!                                                                     +-> lost
//! ```
//!
//! Rules: an ambiguous answer is followed by a consistent read; this worker owns the row if it is named as
//! the owner and the counter is its own, or its own plus the one write whose answer was lost; the proof of a
//! write starts when its first attempt did, so that no observer can measure a shorter period; a worker
//! without a proof for a failover time has lost the lease, whatever the table says later.
//!
//! In KCL: `DynamoDBLeaseRenewer.renewLease`, `updateLease`.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::held::Error;
use super::table;
use super::update::{self, Update};
use super::{Lease, Throughput, WorkerId};
use crate::sequence::Position;

/// The purpose of a write. Each increments the counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Intent {
    /// That we are alive.
    Renew,
    /// Progress.
    Checkpoint(Position),
}

/// The consequence of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is written.
    Done,
    /// Read the row, consistently.
    ReadBack,
    /// The row is one step ahead of what was known: plan anew.
    Again,
    /// Not written, or not known to be; or [`Error::Lost`].
    Failed(Error),
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holding {
    me: WorkerId,
    row: Lease,
    failover: Duration,
    expires: Instant,
    /// When the first of the writes began that are not known to have happened.
    unknown_since: Option<Instant>,
    /// The last answer said that the write may have been applied.
    ambiguous: Option<table::Error>,
    /// Whether `ownerSwitchesSinceCheckpoint` was incremented, which only a new owner or a nudge does.
    nudged: bool,
    lost: bool,
    /// The last write was refused, and no earlier one was unanswered.
    unexplained: bool,
}

impl Holding {
    /// A lease whose row was written by us in a request that began at `proven`.
    pub fn new(row: Lease, me: WorkerId, proven: Instant, failover: Duration) -> Self {
        Self {
            me,
            row,
            failover,
            expires: proven + failover,
            unknown_since: None,
            ambiguous: None,
            nudged: false,
            lost: false,
            unexplained: false,
        }
    }

    /// The row as it is known.
    pub fn row(&self) -> &Lease {
        &self.row
    }

    /// When it is lost unless something is written before.
    pub fn expires(&self) -> Instant {
        self.expires
    }

    /// Whether it may be used.
    pub fn is_live(&self, now: Instant) -> bool {
        !self.lost && now < self.expires
    }

    /// The throughput of the lease, to be stored by the next write.
    pub fn measured(&mut self, throughput: Option<Throughput>) {
        if throughput.is_some() {
            self.row.throughput = throughput;
        }
    }

    /// Whether the lease is to be handed over to the worker that its row names.
    pub fn is_handing_over(&self) -> bool {
        self.row.checkpoint_owner.is_some() && !self.lost
    }

    /// Whether a peer has called since the last question.
    pub fn take_nudge(&mut self) -> bool {
        std::mem::take(&mut self.nudged)
    }

    /// Gives it up.
    pub fn lose(&mut self) -> Error {
        self.lost = true;
        Error::Lost
    }

    /// The write that says so, if it may still be sent.
    ///
    /// # Errors
    /// [`Error::Lost`], or [`Error::Behind`] if the row is known to be further.
    pub fn plan(&mut self, now: Instant, intent: &Intent) -> Result<Update, Error> {
        if !self.is_live(now) {
            return Err(self.lose());
        }
        let update = match intent {
            Intent::Renew => update::renew(&self.row),
            Intent::Checkpoint(target) => match self.row.checkpoint.order(target) {
                Ordering::Greater => return Err(Error::Behind(self.row.checkpoint.clone())),
                Ordering::Equal | Ordering::Less => update::checkpoint(&self.row, target),
            },
        };
        // A counter that turns out to have moved may have been moved by an earlier attempt: only from that
        // one's start are we known to have been alive.
        self.unknown_since.get_or_insert(now);
        Ok(update.fenced(&self.row))
    }

    /// The answer to a write that was sent at `started`: the row as it was before, or why not.
    pub fn answered(
        &mut self,
        started: Instant,
        update: &Update,
        answer: Result<Lease, table::Error>,
    ) -> Step {
        self.ambiguous = None;
        self.unexplained = false;
        match answer {
            Ok(mut row) => {
                self.nudged |= row.owner_switches > self.row.owner_switches;
                update.apply(&mut row);
                self.row = row;
                self.prove(started);
                Step::Done
            }
            // Its conditions held, so this worker owned the lease. The other attributes remain those in memory.
            Err(table::Error::Written { .. }) => {
                update.apply(&mut self.row);
                self.prove(started);
                Step::Done
            }
            Err(table::Error::Conflict(_)) => {
                self.unexplained = self.unknown_since == Some(started);
                Step::ReadBack
            }
            Err(error @ table::Error::Ambiguous(_)) => {
                self.ambiguous = Some(error);
                Step::ReadBack
            }
            Err(error) => Step::Failed(error.into()),
        }
    }

    /// The row after an answer that was not a clear yes.
    pub fn read(&mut self, seen: Option<Lease>, intent: &Intent) -> Step {
        let before = self.row.counter;
        let ambiguous = self.ambiguous.take();
        let seen = match seen {
            Some(seen) if self.is_mine(&seen) => seen,
            Some(_) | None => return Step::Failed(self.lose()),
        };
        self.nudged |= seen.owner_switches > self.row.owner_switches;
        self.row = seen;
        if self.row.counter == before + 1 {
            self.prove(self.unknown_since.unwrap_or(self.expires - self.failover));
            let applied = match intent {
                Intent::Renew => true,
                Intent::Checkpoint(target) => self.row.checkpoint == *target,
            };
            return if applied { Step::Done } else { Step::Again };
        }
        match ambiguous {
            // Not applied, so far: it may still be on its way.
            Some(error) => Step::Failed(error.into()),
            // A hand-off was opened: a renewal that knows of it succeeds.
            None => Step::Again,
        }
    }

    /// The answer to a release that was not a clear yes was followed by a read.
    pub fn read_for_release(&mut self, seen: Option<Lease>) -> bool {
        match seen {
            Some(seen) if self.is_mine(&seen) => {
                self.row = seen;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Notes the result of storing the children's ids, which does not change the counter.
    pub fn note_children(&mut self, row: Lease) {
        self.row.children = row.children;
    }

    /// The row as it is made again after somebody has deleted it. A hand-off that was open is over.
    pub fn restored(&self) -> Lease {
        Lease {
            owner: Some(self.me.clone()),
            checkpoint_owner: None,
            pending: None,
            counter: self.row.counter + 1,
            ..self.row.clone()
        }
    }

    /// The row was made again, by a write that began then.
    pub fn note_restored(&mut self, row: Lease, started: Instant) {
        self.row = row;
        self.prove(started);
    }

    /// Whether a write of this process can have left the row so. One that was refused at its first attempt, while no
    /// other was unanswered, has not moved the counter; the SDK's own retries make that likely only, not sure.
    pub fn knows(&self, seen: &Lease) -> bool {
        self.is_mine(seen) && (seen.counter == self.row.counter || !self.unexplained)
    }

    fn is_mine(&self, seen: &Lease) -> bool {
        let steps = seen.counter - self.row.counter;
        let same = seen.process == self.row.process;
        seen.actual_owner() == Some(&self.me) && same && (steps == 0 || steps == 1)
    }

    fn prove(&mut self, started: Instant) {
        self.unknown_since = None;
        self.expires = self.expires.max(started + self.failover);
    }
}
