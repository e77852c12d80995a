//! The coordinator as a pure state machine: events in, effects out, no I/O, no clock.
//!
//! | event | effects |
//! |---|---|
//! | `Scanned` | `Publish`, `NotePeers`, `SuspectStream`; `Acquire` for each lease to acquire |
//! | `Scanned`, failed | `PublishUnable` |
//! | `OwnedListed` | `Read` for each new lease, `CheckIndex` for one that is missing |
//! | `OwnedListed`, failed | `Scan` |
//! | `IndexChecked` | none: the index is not queried for a while |
//! | `Acquired` | `Hold`, `PublishUnable`; during the last releases `Release` |
//! | `RowRead` | `Acquire`, if the lease is assigned to this worker or its handoff is stalled |
//! | `Released` | none: the peers are nudged soon |
//! | `RenewalEnded` | `MarkLost`, and `Restore` if the reason is unknown |
//! | `ReleaseOrdered` | `Release` |
//! | `ScanOrdered`, `NudgeOrdered` | none: a scan is due now, or a nudge soon |
//! | `ForgetOrdered` | `MarkLost` |
//! | `Nudged` | `PassOnNudge`; a scan is due now |
//! | `RivalMet` | `GiveWay`, if the other process is older |
//! | `NudgeDue` | `Nudge` in a KCL 2.x fleet, `NudgeOwners` in a KCL 3.x fleet |
//! | `ScanDue` | `ListOwned` or `Scan` |
//! | `Standing`, `Panicked`, `Stop` | none |
//! | `End` | `Release` for each lease |
//! | `LastScan` | `PassOn` for each lease that still names this worker |
//!
//! Any event can have `Log` and `Emit` as effects.
//!
//! Work in flight is one map: a shard and an [`Intent`]. The table is looked at again only when no acquisition of
//! the previous look is in flight. Capacity, recognition and reachability are values that the whole worker
//! shares; the state reads them and changes none.
//!
//! The two ways to share leases are `shared` (KCL 2.x) and `assigned` (KCL 3.x).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::assigned::Assigned;
use super::event::{Effect, Event, Holding, Intent, Line, Recipient, Work};
use super::marks::Rivals;
use super::{Settings, Standing, renewal};
use crate::backoff::Backoff;
use crate::lease::history::History;
use crate::lease::orders::{self, Pause};
use crate::lease::update::Update;
use crate::lease::{Lease, LeaseKey, ProcessId, handoff, table};

/// Nudges to workers that acquire nothing are at least this far apart.
pub(super) const NUDGE_AGAIN: Duration = Duration::from_secs(2);
/// Leases that are released within this time share one nudge of the peers.
pub(super) const GATHER: Duration = Duration::from_millis(100);
/// Two looks at the table are rarely closer than this, unless an order asks for one.
pub(super) const MIN_PAUSE: Duration = Duration::from_millis(250);
/// A nudged worker scans at once and then after these pauses: released leases come one by one.
pub(super) const ALERT: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
];
/// Pause between two attempts to restore a row, at first.
const RESTORE_PAUSE: Duration = Duration::from_millis(250);

/// The effects of one event.
pub(super) type Effects<H> = Vec<Effect<H>>;

/// The present look at the table.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) next: Instant,
    /// The scan or the query is in flight.
    pub(super) in_flight: bool,
    /// A write had no answer: the lease may be this worker's without being renewed.
    pub(super) unsure: bool,
    /// Number of [`ALERT`] scans still to come.
    pub(super) alert: usize,
}

/// A held lease.
#[derive(Debug, Clone)]
pub(super) struct Hold<H> {
    pub(super) holding: H,
    pub(super) since: Instant,
}

/// The state of a coordinator.
#[derive(Debug, Clone)]
pub struct State<H> {
    pub(super) settings: Settings,
    pub(super) random: fastrand::Rng,
    pub(super) standing: Standing,
    pub(super) stopping: bool,
    /// No handle is left: a lease that is acquired now is released.
    pub(super) ending: bool,
    pub(super) held: BTreeMap<LeaseKey, Hold<H>>,
    /// Requests about leases that have not ended, each with the number of them: a lease that is acquired and lost
    /// again during its release is released twice.
    pub(super) in_flight: BTreeMap<(LeaseKey, Intent), usize>,
    pub(super) look: Look,
    pub(super) history: Arc<History>,
    /// The last scan.
    pub(super) leases: Arc<Vec<Lease>>,
    /// When the peers are to be nudged, if they are.
    pub(super) nudge_at: Option<Instant>,
    pub(super) nudged_at: Option<Instant>,
    /// Leases of live workers are not stolen before, however often the table is scanned.
    pub(super) next_steal: Instant,
    pub(super) assigned: Assigned,
    pub(super) rivals: Rivals,
    /// The order for the whole application in force, by the last scan, and the time of the scan. A member of a KCL 3.x
    /// fleet scans rarely; an order that may have been replaced since is not brought to leases.
    pub(super) pause: Option<(Pause, Instant)>,
    /// When the stream was last suspected because of rows of another one.
    pub(super) other_streams: Option<Instant>,
}

impl<H: Holding> State<H> {
    /// The state of a coordinator that begins at `now`.
    pub fn new(settings: Settings, random: fastrand::Rng, now: Instant) -> Self {
        Self {
            settings,
            random,
            standing: Standing::default(),
            stopping: false,
            ending: false,
            held: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            look: Look { next: now, in_flight: false, unsure: false, alert: 0 },
            history: Arc::default(),
            leases: Arc::default(),
            nudge_at: None,
            nudged_at: None,
            next_steal: now,
            assigned: Assigned::default(),
            rivals: Rivals::default(),
            pause: None,
            other_streams: None,
        }
    }

    /// When the peers are to be nudged: [`Event::NudgeDue`].
    pub fn nudge_due(&self) -> Option<Instant> {
        self.nudge_at
    }

    /// When the table is to be looked at: [`Event::ScanDue`].
    pub fn scan_due(&self) -> Option<Instant> {
        (!self.is_looking() && !self.stopping).then_some(self.look.next)
    }

    /// Whether nothing is in flight that [`Event::End`] waits for.
    pub fn has_ended(&self) -> bool {
        self.in_flight.is_empty() && !self.look.in_flight
    }

    /// Whether leases that were assigned to this worker during its shutdown are passed on: [`Event::LastScan`]. With an
    /// older process of its id, they are held by that one.
    pub fn passes_on(&self) -> bool {
        self.standing.is_three_x() && !self.rivals.gives_way()
    }

    /// The history of the rows.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Number of leases whose release has not ended.
    pub fn releasing(&self) -> usize {
        self.in_flight.keys().filter(|(_, intent)| *intent == Intent::Release).count()
    }

    /// The leases that this worker holds.
    pub fn held(&self) -> impl Iterator<Item = &LeaseKey> {
        self.held.keys()
    }

    /// The effects of an event.
    pub fn on(&mut self, now: Instant, event: Event<H>) -> Vec<Effect<H>> {
        let mut effects = Vec::new();
        self.pause.take_if(|(_, scanned)| now >= *scanned + self.settings.failover);
        match event {
            Event::Scanned(outcome) => self.scanned(now, outcome, &mut effects),
            Event::OwnedListed(outcome) => self.owned_listed(now, outcome, &mut effects),
            Event::IndexChecked(lease) => self.index_checked(now, lease.as_ref(), &mut effects),
            Event::RowRead(key, outcome) => self.row_read(now, &key, outcome, &mut effects),
            Event::Acquired(key, outcome) => self.acquired(now, &key, outcome, &mut effects),
            Event::Released(key, to) => {
                self.assigned.newly_assigned.extend(to);
                self.ended(&key, Intent::Release);
                self.scan_within(now, MIN_PAUSE);
                self.nudge_soon(now);
            }
            Event::RenewalEnded(holding) => self.renewal_ended(now, holding, &mut effects),
            Event::ReleaseOrdered(holding) => self.release(holding, &mut effects),
            Event::ScanOrdered => self.look.next = now,
            Event::NudgeOrdered(worker) => {
                self.assigned.newly_assigned.insert(worker);
                self.nudge_soon(now);
            }
            Event::ForgetOrdered(key) => {
                let held = self.held.remove(&key);
                effects.extend(held.map(|hold| Effect::MarkLost(hold.holding)));
            }
            Event::Nudged => {
                effects.extend([Effect::Log(Line::Nudged), Effect::PassOnNudge]);
                (self.look.next, self.look.alert) = (now, ALERT.len());
                self.assigned.in_vain = true;
            }
            Event::RivalMet(rival) => effects.extend(self.rivals.met(now, &rival, &self.settings)),
            Event::Standing(standing) => self.standing = standing,
            Event::NudgeDue => self.nudge(now, &mut effects),
            Event::ScanDue => self.begin_look(now, &mut effects),
            Event::Panicked(Work::Look) => self.look.in_flight = false,
            Event::Panicked(Work::Lease(key, intent)) => self.ended(&key, intent),
            Event::Panicked(Work::Other) => {}
            Event::Stop => self.stopping = true,
            Event::End => self.end(&mut effects),
            Event::LastScan(leases) => self.pass_on(leases, &mut effects),
        }
        self.log_acquisitions(&mut effects);
        effects
    }

    /// Whether a look, or an acquisition that follows from it, is in flight.
    pub(super) fn is_looking(&self) -> bool {
        self.look.in_flight || self.in_flight.keys().any(|(_, intent)| *intent != Intent::Release)
    }

    pub(super) fn is_releasing(&self, key: &LeaseKey) -> bool {
        self.in_flight.contains_key(&(key.clone(), Intent::Release))
    }

    pub(super) fn begun(&mut self, key: &LeaseKey, intent: Intent) {
        *self.in_flight.entry((key.clone(), intent)).or_default() += 1;
    }

    /// Another request of the same kind may still be in flight.
    pub(super) fn ended(&mut self, key: &LeaseKey, intent: Intent) {
        let key = (key.clone(), intent);
        match self.in_flight.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(self.in_flight.remove(&key)),
        }
    }

    pub(super) fn scan_within(&mut self, now: Instant, pause: Duration) {
        self.look.next = self.look.next.min(now + pause);
    }

    pub(super) fn nudge_soon(&mut self, now: Instant) {
        self.nudge_at.get_or_insert(now + GATHER);
    }

    fn scanned(&mut self, now: Instant, outcome: Result<Vec<Lease>, table::Error>, effects: &mut Effects<H>) {
        self.look.in_flight = false;
        match outcome {
            _ if self.ending => {}
            Ok(leases) => {
                Arc::make_mut(&mut self.history).note_scan(&leases, now);
                self.pause = orders::in_force(&leases).cloned().map(|pause| (pause, now));
                self.leases = Arc::new(leases);
                if self.standing.is_led() {
                    self.scanned_assigned(now, effects);
                } else {
                    self.scanned_shared(now, effects);
                }
            }
            Err(error) => self.cannot_scan(now, error, effects),
        }
    }

    fn begin_look(&mut self, now: Instant, effects: &mut Effects<H>) {
        if self.is_looking() {
            return;
        }
        self.look.in_flight = true;
        // Should the scan's task panic, the next is due all the same.
        self.look.next = now + self.settings.failover;
        effects.push(if self.may_query_the_index(now) { Effect::ListOwned } else { Effect::Scan });
    }

    /// Writes a row to acquire its lease, with the marks.
    pub(super) fn acquire(&mut self, lease: &Lease, update: Update, effects: &mut Effects<H>) {
        let update = self.marked(update, lease);
        self.begun(&lease.key, Intent::Acquire);
        effects.push(Effect::Acquire(lease.key.clone(), update));
    }

    fn acquired(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        outcome: Result<(H, Instant), table::Error>,
        effects: &mut Effects<H>,
    ) {
        self.ended(key, Intent::Acquire);
        match outcome {
            // Acquired at the last moment.
            Ok((holding, _)) if self.ending => return self.release(holding, effects),
            Err(_) if self.ending => return,
            Ok((holding, proven)) => {
                self.tried(now, key, &Ok(()), effects);
                self.hold(now, holding, proven, effects);
            }
            Err(error) => {
                self.look.unsure |= matches!(error, table::Error::Ambiguous(_));
                self.tried(now, key, &Err(error.clone()), effects);
                effects.push(Effect::Log(Line::NotAcquired(key.clone(), error)));
            }
        }
        // A lease acquired by an ambiguous write is owned but not renewed: the next scan acquires it.
        if !self.is_looking() && std::mem::take(&mut self.look.unsure) {
            self.look.next = now + MIN_PAUSE;
        }
    }

    fn hold(&mut self, now: Instant, holding: H, proven: Instant, effects: &mut Effects<H>) {
        let pause = renewal::pause(self.settings.failover);
        let first = proven + pause.mul_f64(0.2 + 0.8 * self.random.f64());
        let hold = Hold { holding: holding.clone(), since: now };
        self.held.insert(holding.key().clone(), hold);
        effects.push(Effect::Hold(holding, first));
    }

    /// Renewing a lease has ended: the lease is lost, whatever the reason.
    fn renewal_ended(&mut self, now: Instant, holding: H, effects: &mut Effects<H>) {
        effects.push(Effect::MarkLost(holding.clone()));
        if !holding.is_settled() {
            let backoff = Backoff::new(RESTORE_PAUSE, RESTORE_PAUSE * 8, self.random.fork());
            effects.push(Effect::Restore(holding.clone(), backoff));
        }
        if self.forget(&holding) {
            // Another worker exists, which may not have existed at the last scan.
            self.scan_within(now, MIN_PAUSE);
        }
    }

    /// Removes a holding, but not a later one of the same shard.
    fn forget(&mut self, holding: &H) -> bool {
        let is_known = self.held.get(holding.key()).is_some_and(|hold| hold.holding.is(holding));
        is_known && self.held.remove(holding.key()).is_some()
    }

    fn release(&mut self, holding: H, effects: &mut Effects<H>) {
        self.forget(&holding);
        self.begun(holding.key(), Intent::Release);
        self.assigned.nudge_all |= self.waits_for_a_leader();
        let to = self.recipient();
        effects.push(Effect::Release(holding, to));
    }

    fn end(&mut self, effects: &mut Effects<H>) {
        self.ending = true;
        for (_, hold) in std::mem::take(&mut self.held) {
            self.release(hold.holding, effects);
        }
    }

    /// Passes leases that were assigned to this worker during its shutdown to the next one.
    fn pass_on(&mut self, leases: Vec<Lease>, effects: &mut Effects<H>) {
        let (me, mine) = (&self.settings.me, &self.settings.process);
        let of_a_later = |process: &ProcessId| process.is_of(me) && process > mine;
        let is_left = |lease: &Lease| {
            lease.owner.as_ref() == Some(me)
                && lease.checkpoint_owner.is_none()
                && !lease.is_complete()
                && !lease.process.as_ref().is_some_and(of_a_later)
        };
        let left: Vec<Lease> = leases.into_iter().filter(is_left).collect();
        self.assigned.nudge_all |= self.waits_for_a_leader() && !left.is_empty();
        let to = self.recipient();
        effects.extend(left.into_iter().map(|lease| Effect::PassOn(Box::new(lease), to.clone())));
    }

    /// Whether the leases that this worker releases wait for a leader.
    fn waits_for_a_leader(&self) -> bool {
        self.stopping && self.standing.is_three_x()
    }

    fn recipient(&self) -> Recipient {
        if self.rivals.gives_way() {
            // The older process with this worker id continues to read the shard.
            Recipient::Namesake
        } else if self.waits_for_a_leader() {
            Recipient::Successor(self.history.clone())
        } else {
            Recipient::Nobody
        }
    }

    /// Number of held leases of shards that are not finished: each needs a record processor.
    pub(super) fn open(&self) -> usize {
        let finished =
            self.leases.iter().filter(|lease| lease.is_complete() && self.held.contains_key(&lease.key));
        self.held.len() - finished.count()
    }

    /// How many leases this worker may hold.
    pub(super) fn most(&self, now: Instant) -> usize {
        self.settings.capacity.most(self.open(), now)
    }

    /// Stalled handoffs, except for those of this worker.
    pub(super) fn stalled(&self, leases: &[Lease], now: Instant) -> BTreeSet<LeaseKey> {
        let mut stalled = handoff::stalled(leases, &self.history, self.settings.handoff, now);
        stalled.retain(|key| !self.held.contains_key(key) && !self.is_releasing(key));
        stalled
    }

    /// Logs the leases that were acquired since the last such line, once nothing is in flight.
    fn log_acquisitions(&mut self, effects: &mut Effects<H>) {
        if !self.assigned.acquired.is_empty() && !self.is_looking() {
            let acquired = std::mem::take(&mut self.assigned.acquired);
            effects.push(Effect::Log(Line::Acquired(acquired, self.held.len())));
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
