//! Leases without a leader: each worker acquires its share of them.
//!
//! In KCL: `DynamoDBLeaseTaker`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Snapshot;
use super::event::{Effect, Holding, Line};
use super::state::{ALERT, Effects, MIN_PAUSE, NUDGE_AGAIN, State};
use crate::fleet::vacancy::Unled;
use crate::lease::take::Asker;
use crate::lease::{Lease, LeaseKey, WorkerId, handoff, update, watch as rhythm};

/// When a look leaves more to acquire, the next is this soon.
const MORE: Duration = Duration::from_millis(500);
/// Where a leader may be at work, a lease counts as expired only after this number of failover times: the leader gives a
/// new owner as long to begin.
const UNSURE: u32 = 2;

/// The line about a stalled handoff.
pub(super) fn stalled_line(lease: &Lease) -> Line {
    Line::StalledHandoff(lease.key.clone(), lease.actual_owner().cloned())
}

impl<H: Holding> State<H> {
    fn asker<'a>(
        &'a self,
        held: &'a BTreeSet<LeaseKey>,
        stalled: &'a BTreeSet<LeaseKey>,
        may_steal: bool,
        now: Instant,
    ) -> Asker<'a> {
        Asker {
            me: &self.settings.me,
            held,
            failover: self.settings.failover * if self.is_unsure() { UNSURE } else { 1 },
            max_leases: self.settings.max_leases.min(self.most(now)),
            max_steals: if may_steal { self.settings.max_steals } else { 0 },
            priority: self.settings.priority,
            stalled,
        }
    }

    /// Whether it is unknown if there is a leader.
    fn is_unsure(&self) -> bool {
        self.standing.unled == Some(Unled::Unknown)
    }

    /// Decides what to acquire of what was scanned, and when to scan again.
    pub(super) fn scanned_shared(&mut self, now: Instant, effects: &mut Effects<H>) {
        self.evaluate_marks(now, effects);
        let leases = self.leases.clone();
        let stalled = self.stalled(&leases, now);
        let held: BTreeSet<LeaseKey> = self.held.keys().cloned().collect();
        let may_steal = now >= self.next_steal && !self.is_unsure();
        let mut random = self.random.fork();
        let asker = self.asker(&held, &stalled, may_steal, now);
        let view = asker.view(&leases, &self.history, now);
        let plan = view.plan(&mut random);
        let pause = rhythm::pause(&view).mul_f64(0.93 + 0.04 * random.f64());
        let expiry = view.next_expiry();
        let left = view.left(&plan) > 0;
        let live = view.live();
        let more = plan.more;
        let mut wanted: Vec<Lease> = plan.take.into_iter().chain(plan.steal).cloned().collect();
        // A release may read the row again and would take a new holding for the old one.
        wanted.retain(|lease| !self.is_releasing(&lease.key) && self.accepts(lease));

        if may_steal {
            self.next_steal = now + self.settings.failover / 2;
        }
        let pause = match self.look.alert {
            _ if more => MORE,
            0 => pause,
            alert => ALERT[ALERT.len() - alert].min(pause),
        };
        self.look.alert = self.look.alert.saturating_sub(1);
        let next = expiry.into_iter().chain(self.rivals.watches_until()).fold(now + pause, Instant::min);
        self.look.next = next.max(now + MIN_PAUSE);
        // Leases that others should have: they may not know.
        if left && !more && self.nudged_at.is_none_or(|last| now > last + NUDGE_AGAIN) {
            self.nudge_soon(now);
        }
        self.can_scan(now, effects);
        self.note_peers(&live, now, effects);
        effects.push(Effect::Publish(Snapshot {
            leases,
            history: self.history.clone(),
            renewing: live.clone(),
            live,
            held: Arc::new(held),
            excluded: Arc::default(),
            leads: None,
            at: Some(now),
            unable: self.unable(now),
            order: None,
        }));
        if self.stopping {
            return;
        }
        for lease in wanted {
            if stalled.contains(&lease.key) {
                effects.push(Effect::Log(stalled_line(&lease)));
            }
            let update = update::take(&lease, &self.settings.me);
            self.acquire(&lease, update, effects);
        }
    }

    /// Says whether other workers could have leases for which this one lacks resources.
    pub(super) fn note_peers(&self, live: &BTreeSet<WorkerId>, now: Instant, effects: &mut Effects<H>) {
        // A leader may have no leases and so not be seen to renew any.
        let led = self.standing.led && !self.standing.leads(now);
        effects.push(Effect::NotePeers(live.len() > 1 || led));
    }

    /// Nudges the live peers: there is something to acquire.
    pub(super) fn nudge(&mut self, now: Instant, effects: &mut Effects<H>) {
        (self.nudge_at, self.nudged_at) = (None, Some(now));
        if self.standing.is_led() {
            return self.nudge_assigned(effects);
        }
        let held: BTreeSet<LeaseKey> = self.held.keys().cloned().collect();
        let mut random = self.random.fork();
        let asker = self.asker(&held, &handoff::NONE, false, now);
        let rows = rhythm::nudged(&asker.view(&self.leases, &self.history, now), &mut random);
        let nudges: Vec<_> = rows.into_iter().map(|row| (row.key.clone(), update::nudge(row))).collect();
        if !nudges.is_empty() {
            effects.extend([Effect::Log(Line::Nudging(nudges.len())), Effect::Nudge(nudges)]);
        }
    }
}
