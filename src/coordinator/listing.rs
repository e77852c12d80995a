//! Degraded operation: the worker can't list its leases, or can't write them.
//!
//! The index of lease owners is replaced by scans while it fails or lags ([`super::index`]). A worker that can
//! acquire nothing for long publishes it in [`Snapshot::unable`](super::Snapshot::unable), so that it is assigned
//! nothing.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::event::{Effect, Holding, Line};
use super::index::SETTLED;
use super::renewal::pause;
use super::state::{Effects, MIN_PAUSE, State};
use crate::lease::{Lease, LeaseKey, table};

/// Failed writes older than this many failover times say nothing.
const FORGOTTEN: u32 = 30;

impl<H: Holding> State<H> {
    pub(super) fn cannot_scan(&mut self, now: Instant, error: table::Error, effects: &mut Effects<H>) {
        if self.assigned.listing.failed(now, &error, &self.settings.reach) {
            effects.push(Effect::Log(Line::CannotScan(error)));
        }
        effects.push(Effect::PublishUnable(self.unable(now)));
        self.look.next = now + MIN_PAUSE.max(pause(self.settings.failover));
    }

    pub(super) fn can_scan(&mut self, now: Instant, effects: &mut Effects<H>) {
        let lasted = self.assigned.listing.worked(now);
        effects.extend(lasted.map(|lasted| Effect::Log(Line::ScansAgain(lasted))));
    }

    /// The index is of no use now: the table is scanned at once.
    pub(super) fn cannot_query(&mut self, now: Instant, error: table::Error, effects: &mut Effects<H>) {
        let (failover, reach) = (self.settings.failover, &self.settings.reach);
        if self.assigned.index.failed(now, &error, failover, reach) {
            effects.push(Effect::Log(Line::CannotQuery(error)));
        }
        effects.push(Effect::Scan);
    }

    /// A lease that this worker holds is not in the index: is it this worker's?
    pub(super) fn index_checked(&mut self, now: Instant, lease: Option<&Lease>, effects: &mut Effects<H>) {
        let me = &self.settings.me;
        let mine = |lease: &&Lease| lease.owner.as_ref() == Some(me) && lease.checkpoint_owner.is_none();
        let Some(lease) = lease.filter(mine).filter(|lease| self.held.contains_key(&lease.key)) else {
            return;
        };
        if self.assigned.index.lags(now) {
            effects.push(Effect::Log(Line::IndexLacks(lease.key.clone())));
        }
        self.look.next = now;
    }

    /// Reads a lease that the index must list and does not.
    pub(super) fn check_index(&mut self, listed: &[LeaseKey], now: Instant, effects: &mut Effects<H>) {
        let listed: BTreeSet<&LeaseKey> = listed.iter().collect();
        let settled = self.held.iter().filter(|(_, hold)| now >= hold.since + SETTLED);
        let mut missing = settled.filter(|(key, _)| !listed.contains(key) && !self.is_releasing(key));
        if let Some((key, _)) = missing.next() {
            effects.push(Effect::CheckIndex(key.clone()));
        } else if let Some(lasted) = self.assigned.index.answered(now, !self.held.is_empty()) {
            effects.push(Effect::Log(Line::QueriesAgain(lasted)));
        }
    }

    /// A write that acquires a lease has ended.
    pub(super) fn tried(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        outcome: &Result<(), table::Error>,
        effects: &mut Effects<H>,
    ) {
        match outcome {
            Err(error)
                if !matches!(
                    error,
                    table::Error::Conflict(_) | table::Error::Ambiguous(_) | table::Error::Written { .. }
                ) =>
            {
                if self.assigned.acquiring.failed(now, error, &self.settings.reach) {
                    effects.push(Effect::Log(Line::CannotAcquire(error.clone())));
                }
            }
            Ok(()) | Err(_) => {
                let lasted = self.assigned.acquiring.worked(now);
                effects.extend(lasted.map(|lasted| Effect::Log(Line::AcquiresAgain(lasted))));
            }
        }
        effects.push(Effect::PublishUnable(self.unable(now)));
        if outcome.is_ok() {
            self.assigned.acquired.push(key.clone());
        }
    }

    /// Since when this worker can acquire no lease. A worker that wants none is assigned none and so attempts
    /// no writes, so failed writes count only for a while.
    pub(super) fn unable(&self, now: Instant) -> Option<Instant> {
        let (acquiring, limit) = (&self.assigned.acquiring, self.settings.failover * FORGOTTEN);
        let recent = acquiring.last().is_some_and(|last| now < last + limit);
        // One failure says little, and a worker that is assigned nothing has no second one.
        let repeated = |since: &Instant| acquiring.last().is_some_and(|last| last > *since);
        let acquiring = acquiring.since().filter(|since| recent && repeated(since));
        self.assigned.listing.since().into_iter().chain(acquiring).min()
    }
}
