//! Audits and lease cleanup as a pure state machine: events in, effects out, no I/O, no clock.
//!
//! An audit is a sequence of requests, one at a time, in the order of this table. A request that is not needed is left
//! out; one that fails ends the audit, and the next audit plans the rest anew.
//!
//! | event | effects, of which the first that is needed comes next |
//! |---|---|
//! | `AuditDue` | `List` for the cleanup, `Delete`, `CompareIdentity`, `Correct` of orders; as the leader `List` for ranges, `CompareIdentity` for the comparison |
//! | `Listed` for the cleanup | `Delete`, and as above |
//! | `Deleted` | `CompareIdentity`, and as above |
//! | `IdentityCompared` in an audit | `Correct` of orders, and as above |
//! | `Corrected`, orders | `List` for ranges, and as above |
//! | `Listed` for ranges | `Correct` of ranges, and as above |
//! | `Corrected`, ranges | `CompareIdentity` for the comparison |
//! | `IdentityCompared` for the comparison | `List` for the comparison |
//! | `Listed` for the comparison | `Reset`, `ReadRows` |
//! | `Reset` | `ReadRows` |
//! | `RowsRead` for the comparison | `VerifyNumbers`, `List` of missing leases |
//! | `NumbersVerified` | `List` of missing leases |
//! | `Listed`, missing leases | `Create` |
//! | `Created` | none |
//! | `Suspected` | none: the suspicion is examined soon |
//! | `SuspicionDue` | `ReadRows` |
//! | `RowsRead` for a suspicion | `CompareIdentity` |
//! | `IdentityCompared` for a suspicion | none |
//!
//! `Scan` is an effect of the end of an audit that changed rows, and of `IdentityCompared` if leases started over. The
//! leader's audit ends with `Emit`. Any event can log. Events of an audit that has ended have no effect.
//!
//! The comparison of the stream's shards with the leases is in `open_shards`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::event::{Compared, Correction, Effect, Error, Event, Listing, Moment, Occasion, Settings};
use super::orders;
use crate::coordinator::Snapshot;
use crate::lease::origin::Foreign;
use crate::lease::outage::Outage;
use crate::lease::{Lease, LeaseKey, audit, cleanup, table, update};
use crate::metrics::{Coverage, OfWorker, Step};
use crate::reach::Reaches;
use crate::shard::{self, Filter, Shard, ShardId};
use crate::stream::StreamId;

/// Interval between audits. KCL's is two minutes, with a scan for each.
pub(super) const AUDIT: Duration = Duration::from_secs(30);
/// How long a finished lease is kept, so that operators can see it. KCL keeps it for five minutes, but its
/// 2.x workers count such rows as shares: the sooner they are deleted, the sooner a mixed fleet is balanced.
const FINISHED: Duration = Duration::from_secs(60);
/// KCL's `garbageLeaseCleanupIntervalMillis`: interval at which Kinesis is asked about finished leases that
/// cannot be deleted yet.
const DOUBTFUL: Duration = Duration::from_secs(30 * 60);
/// Interval between requests for an identity that was denied.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// Interval between reports of rows that belong to another stream.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Pause after a suspicion in vain, times the number of them in a row.
const SUSPECT_AGAIN: Duration = Duration::from_secs(2);
/// Time to collect the suspicions of many shards, which arise at once.
const GATHER: Duration = Duration::from_millis(200);

/// How an audit continues.
#[derive(Debug)]
pub(super) enum Next {
    /// With a request.
    Request(Effect),
    /// Not at all.
    End(Coverage),
}

/// An audit in progress.
#[derive(Debug)]
pub(super) struct Audit {
    pub(super) seen: Snapshot,
    pub(super) began: Instant,
    /// Whether this worker audits all leases; otherwise it looks after its own.
    leads: bool,
    /// The result, once the hash keys were checked.
    pub(super) coverage: Coverage,
    /// Leases of finished shards, which are deleted.
    finished: Vec<LeaseKey>,
    /// The stream's shards for the comparison, and when they were listed.
    pub(super) listed: Vec<Shard>,
    pub(super) listed_at: Instant,
    /// The rows as they were read again because leases are missing.
    pub(super) rows: Vec<Lease>,
    /// Leases to be created.
    pub(super) missing: Vec<Lease>,
    /// Whether rows were changed that the coordinator is to see.
    pub(super) changed: bool,
}

/// The state of the shard sync: the results of earlier audits.
#[derive(Debug)]
pub struct State {
    pub(super) settings: Settings,
    pub(super) effects: Vec<Effect>,
    audit_due: Instant,
    audit: Option<Box<Audit>>,
    outage: Outage,
    holes: audit::HoleCount,
    /// When the stream's shards were last listed to compare them with the leases.
    pub(super) synced: Option<Instant>,
    /// When they were last listed because of finished leases.
    asked: Option<Instant>,
    /// Open shards that no worker read when they were last listed.
    pub(super) unread: BTreeSet<ShardId>,
    /// Those of `unread` without a row, and when that was first seen.
    pub(super) rowless: BTreeMap<ShardId, Instant>,
    /// When the stream's identity was last requested while it was unknown.
    described: Option<Instant>,
    suspicion_due: Option<Instant>,
    /// When another stream was last suspected, the identity before, and the number of suspicions in vain since.
    suspected: Option<Instant>,
    before: Option<StreamId>,
    in_vain: u32,
    /// When rows of another stream were last reported.
    reported: Option<Instant>,
}

impl State {
    /// The state of a shard sync that begins at `now`.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            effects: Vec::new(),
            audit_due: now + AUDIT,
            audit: None,
            outage: Outage::default(),
            holes: audit::HoleCount::default(),
            synced: None,
            asked: None,
            unread: BTreeSet::new(),
            rowless: BTreeMap::new(),
            described: None,
            suspicion_due: None,
            suspected: None,
            before: None,
            in_vain: 0,
            reported: None,
        }
    }

    /// When the next audit begins: [`Event::AuditDue`].
    pub fn audit_due(&self) -> Instant {
        self.audit_due
    }

    /// When a suspicion is examined: [`Event::SuspicionDue`]. None if there is none.
    pub fn suspicion_due(&self) -> Option<Instant> {
        self.suspicion_due
    }

    /// The effects of an event: at most one of them is a request.
    pub fn on(&mut self, moment: &Moment, event: Event) -> Vec<Effect> {
        match event {
            Event::AuditDue(seen) => {
                self.audit_due = moment.now + AUDIT;
                if seen.at.is_some() {
                    self.begin(moment, seen);
                }
            }
            Event::Suspected => self.suspicion_due = Some(self.next_suspicion(moment.now)),
            Event::SuspicionDue => {
                self.suspicion_due = None;
                (self.suspected, self.before) = (Some(moment.now), moment.identity.current().cloned());
                self.effects.push(Effect::ReadRows(Occasion::Suspicion));
            }
            Event::RowsRead(Occasion::Suspicion, Ok(rows)) => {
                self.effects.push(Effect::CompareIdentity(Occasion::Suspicion, Arc::new(rows)));
            }
            Event::RowsRead(Occasion::Suspicion, Err(error)) => self.examined(moment, Err(error)),
            Event::RowsRead(Occasion::Audit | Occasion::Comparison, outcome) => {
                self.advance(moment, |state, audit| {
                    audit.rows = outcome?;
                    Ok(state.restore(&moment.identity, audit))
                });
            }
            Event::IdentityCompared(occasion, compared) => {
                let outcome = self.compared(moment.now, compared);
                match occasion {
                    Occasion::Suspicion => self.examined(moment, outcome),
                    Occasion::Audit => self.advance(moment, |state, audit| {
                        outcome?;
                        Ok(state.bring_orders(moment, audit))
                    }),
                    Occasion::Comparison => self.advance(moment, |_, _| {
                        outcome?;
                        Ok(Next::Request(Effect::List(Listing::Comparison, Filter::All)))
                    }),
                }
            }
            Event::Listed(listing, outcome) => self.advance(moment, |state, audit| {
                let listed = outcome?;
                match listing {
                    Listing::Cleanup => {
                        let forgotten = cleanup::forgotten(&audit.seen.leases, &listed);
                        let mine = forgotten.into_iter().filter(|lease| state.is_mine(audit, lease));
                        let mine: Vec<LeaseKey> = mine.map(|lease| lease.key.clone()).collect();
                        audit.finished.extend(mine);
                        Ok(state.delete(moment, audit))
                    }
                    Listing::Ranges => Ok(state.filled_ranges(audit, &listed)),
                    Listing::Comparison => Ok(state.compare(moment, audit, listed)),
                    Listing::Missing => state.create_missing(moment, audit, &listed),
                }
            }),
            Event::Deleted(outcome) => self.advance(moment, |state, audit| {
                outcome?;
                Ok(state.follow(moment, audit))
            }),
            Event::Corrected(Correction::Orders, outcome) => self.advance(moment, |state, audit| {
                let corrected = outcome?;
                if let Some(pause) = audit.seen.in_force() {
                    orders::log_corrected(&corrected, pause);
                }
                Ok(state.search(audit))
            }),
            Event::Corrected(Correction::Ranges, outcome) => self.advance(moment, |state, audit| {
                outcome?;
                Ok(state.find_holes(audit))
            }),
            Event::Reset(outcome) => self.advance(moment, |state, audit| {
                audit.changed |= outcome?;
                Ok(state.look_for_rows(audit))
            }),
            Event::NumbersVerified(outcome) => self.advance(moment, |state, audit| {
                let refused = outcome?;
                audit.missing.retain(|lease| !refused.contains(lease.shard()));
                Ok(state.list_missing(audit))
            }),
            Event::Created(outcome) => self.advance(moment, |state, audit| {
                let made = outcome?;
                audit.changed |= made.new + made.there > 0;
                Ok(state.end_comparison(audit, true))
            }),
        }
        std::mem::take(&mut self.effects)
    }

    /// Continues the audit in progress.
    fn advance(&mut self, moment: &Moment, step: impl FnOnce(&mut Self, &mut Audit) -> Result<Next, Error>) {
        let Some(mut audit) = self.audit.take() else { return };
        match step(self, &mut audit) {
            Ok(Next::Request(request)) => {
                self.effects.push(request);
                self.audit = Some(audit);
            }
            Ok(Next::End(coverage)) => {
                self.emit_audit(moment, &audit, coverage, true);
                if let Some(lasted) = self.outage.worked(moment.now) {
                    info!(event = "shard_sync_recovered", ?lasted, "the shard sync works again");
                }
            }
            Err(error) => {
                self.emit_audit(moment, &audit, Coverage::Whole, false);
                if self.is_news(moment.now, &error) {
                    warn!(event = "shard_sync_failed", %error, "failed to synchronise the leases with the shards of the stream, retrying");
                } else {
                    debug!(%error, "failed to synchronise the leases with the shards of the stream, retrying");
                }
            }
        }
    }

    fn emit_audit(&mut self, moment: &Moment, audit: &Audit, coverage: Coverage, ok: bool) {
        if audit.leads {
            let took = moment.now.saturating_duration_since(audit.began);
            let step = Step::Audit(coverage);
            self.effects.push(Effect::Emit(OfWorker::Did { step, took, ok }));
        }
    }

    /// Whether a failed audit is to be logged: not while DynamoDB or Kinesis answers nothing, which is logged once for
    /// all.
    fn is_news(&mut self, now: Instant, error: &Error) -> bool {
        let Reaches { dynamodb, kinesis } = &self.settings.reaches;
        match error {
            Error::Table(error) => self.outage.failed(now, error, dynamodb),
            Error::Stream(shard::Error::Unavailable(reason)) => {
                self.outage.failed(now, &table::Error::Unavailable(reason.clone()), kinesis)
            }
            Error::Stream(_) | Error::Shards(_) | Error::Foreign(_) => true,
        }
    }

    fn begin(&mut self, moment: &Moment, seen: Snapshot) {
        let leads = seen.audits(&self.settings.me, self.settings.failover);
        self.audit = Some(Box::new(Audit {
            seen,
            began: moment.now,
            leads,
            coverage: Coverage::Whole,
            finished: Vec::new(),
            listed: Vec::new(),
            listed_at: moment.now,
            rows: Vec::new(),
            missing: Vec::new(),
            changed: false,
        }));
        self.advance(moment, |state, audit| Ok(state.clean(moment, audit)));
    }

    /// Whether this worker deletes a finished lease: each worker its own, and the leader those without a live owner.
    fn is_mine(&self, audit: &Audit, lease: &Lease) -> bool {
        match &lease.owner {
            Some(owner) if *owner == self.settings.me => true,
            Some(owner) => audit.leads && !audit.seen.live.contains(owner),
            None => audit.leads,
        }
    }

    /// Deletes finished leases.
    fn clean(&mut self, moment: &Moment, audit: &mut Audit) -> Next {
        let now = moment.now;
        let for_at_least =
            |lease: &Lease, time: Duration| audit.seen.history.finished_for(&lease.key, now) >= time;
        // Rows of an earlier stream say nothing about the shards of this one.
        let accepted = |lease: &&Lease| moment.identity.accepts(lease.stream.as_ref());
        let current: Vec<Lease> = audit.seen.leases.iter().filter(accepted).cloned().collect();
        let mut going = cleanup::done(&current);
        going.retain(|lease| for_at_least(lease, FINISHED) && self.is_mine(audit, lease));
        let going: Vec<LeaseKey> = going.into_iter().map(|lease| lease.key.clone()).collect();
        let is_kept = |lease: &Lease| self.is_mine(audit, lease) && for_at_least(lease, DOUBTFUL);
        let asks = self.asked.is_none_or(|last| now >= last + DOUBTFUL);
        let asks = asks && audit.seen.leases.iter().any(is_kept);
        audit.finished = going;
        if asks {
            self.asked = Some(now);
            return Next::Request(Effect::List(Listing::Cleanup, Filter::All));
        }
        self.delete(moment, audit)
    }

    fn delete(&mut self, moment: &Moment, audit: &mut Audit) -> Next {
        match std::mem::take(&mut audit.finished) {
            finished if finished.is_empty() => self.follow(moment, audit),
            finished => Next::Request(Effect::Delete(finished)),
        }
    }

    /// Compares the identity in each audit, if a row has an unexpected mark or the identity is unknown.
    fn follow(&mut self, moment: &Moment, audit: &mut Audit) -> Next {
        let unknown = moment.identity.current().is_none();
        let due = self.described.is_none_or(|at| moment.now >= at + ASK_AGAIN);
        let is_odd = |lease: &Lease| !moment.identity.accepts(lease.stream.as_ref());
        if audit.seen.leases.iter().any(is_odd) || unknown && due {
            self.described = Some(moment.now);
            return Next::Request(Effect::CompareIdentity(Occasion::Audit, audit.seen.leases.clone()));
        }
        self.bring_orders(moment, audit)
    }

    fn bring_orders(&mut self, moment: &Moment, audit: &mut Audit) -> Next {
        let only = (!audit.leads).then_some(&self.settings.me);
        let leases = &audit.seen.leases;
        let corrections = audit
            .seen
            .in_force()
            .map(|pause| orders::corrections(leases, pause, only, moment.past))
            .filter(|corrections| !corrections.is_empty());
        match corrections {
            Some(corrections) => Next::Request(Effect::Correct(Correction::Orders, corrections)),
            None => self.search(audit),
        }
    }

    /// Begins the search for hash keys without a lease, as the leader. The ranges that it needs are filled in first: KCL
    /// wrote rows without them before 2.3.
    fn search(&mut self, audit: &mut Audit) -> Next {
        // The last leases of a stream that is not configured were deleted.
        let is_former = !self.settings.listed && audit.seen.leases.is_empty();
        if !audit.leads || is_former {
            self.holes = audit::HoleCount::default();
            self.forget_unread();
            return Next::End(Coverage::Whole);
        }
        if audit::without_range(&audit.seen.leases).next().is_some() {
            return Next::Request(Effect::List(Listing::Ranges, Filter::All));
        }
        self.find_holes(audit)
    }

    fn filled_ranges(&mut self, audit: &mut Audit, listed: &[Shard]) -> Next {
        let without: BTreeMap<&ShardId, &LeaseKey> =
            audit::without_range(&audit.seen.leases).map(|lease| (lease.shard(), &lease.key)).collect();
        let range = |shard: &Shard| Some(((*without.get(&shard.id)?).clone(), update::range(shard.range)));
        let ranges: Vec<_> = listed.iter().filter_map(range).collect();
        if ranges.is_empty() {
            return self.find_holes(audit);
        }
        Next::Request(Effect::Correct(Correction::Ranges, ranges))
    }

    /// Looks for hash keys without a lease, and at the configured interval compares the stream's shards.
    fn find_holes(&mut self, audit: &mut Audit) -> Next {
        let hole = self.holes.note(&audit.seen.leases);
        let coverage = |synced| match hole {
            Some(_) => Coverage::Confirmed { synced },
            None if self.holes.has_hole() => Coverage::Hole,
            None => Coverage::Whole,
        };
        let (coverage, postponed) = (coverage(true), coverage(false));
        // A shard that was just found without a row is looked at again as soon as its owner must have restored it.
        let doubted = |since: &Instant| audit.began < *since + self.settings.failover + AUDIT * 2;
        let is_early = self.synced.is_some_and(|last| audit.began < last + self.settings.sync_pause);
        if is_early && !self.rowless.values().any(doubted) {
            return Next::End(postponed);
        }
        if let Some(hole) = hole {
            warn!(
                event = "hash_keys_without_lease",
                after = hole.after,
                before = hole.before,
                "found hash keys without a lease, listing the shards"
            );
        }
        audit.coverage = coverage;
        // Nothing else reveals a recreated stream whose leases can still be read.
        Next::Request(Effect::CompareIdentity(Occasion::Comparison, audit.seen.leases.clone()))
    }

    /// Ends the comparison of shards and leases. One that left something to be restored is repeated by the next audit.
    pub(super) fn end_comparison(&mut self, audit: &Audit, is_complete: bool) -> Next {
        if audit.changed {
            self.effects.push(Effect::Scan);
        }
        if is_complete {
            self.synced = Some(audit.began);
        }
        Next::End(audit.coverage)
    }

    fn compared(&mut self, now: Instant, compared: Compared) -> Result<(), Error> {
        if let Some(foreign) = compared.foreign {
            self.report_foreign(now, &foreign);
        }
        if compared.started_over? {
            self.effects.push(Effect::Scan);
        }
        Ok(())
    }

    /// Logs rows of another stream. Their leases are never acquired, so this stream has fewer readers.
    fn report_foreign(&mut self, now: Instant, foreign: &Foreign) {
        if self.reported.is_none_or(|at| now >= at + REPORT_AGAIN) {
            self.reported = Some(now);
            error!(event = "table_shared", error = %foreign,
                "another application uses the same lease table for a different stream");
        }
    }

    /// When a suspicion is examined. A pause follows one that was in vain: a consumer whose read is refused
    /// for another reason suspects for ever.
    fn next_suspicion(&self, now: Instant) -> Instant {
        let pause = (SUSPECT_AGAIN * self.in_vain).min(AUDIT * 2);
        self.suspected.map_or(now, |at| at + pause).max(now + GATHER)
    }

    /// A suspicion was examined.
    fn examined(&mut self, moment: &Moment, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            warn!(event = "stream_check_failed", %error, "failed to compare the lease table with the stream, retrying");
        }
        let changed = moment.identity.current() != self.before.as_ref();
        self.in_vain = if changed { 0 } else { self.in_vain.saturating_add(1) };
    }

    /// Another worker counts the unread shards from now on.
    fn forget_unread(&mut self) {
        self.unread.clear();
        self.rowless.clear();
        self.effects.push(Effect::Emit(OfWorker::Unread { shards: None, lasting: 0 }));
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
