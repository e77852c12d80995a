//! The leases that this worker holds and their consumers as a pure state machine: events in, effects out, no I/O, no
//! clock.
//!
//! | event | effects |
//! |---|---|
//! | `Acquired` | `Start`; `MarkLost` for an expired lease; `Release` during a shutdown; none while the previous consumer of the shard runs |
//! | `Ended`, of a finished shard | `Announce`, `Keep`, `Scan` |
//! | `Ended`, of a lost lease | none |
//! | `Ended`, by the shutdown | `Release` |
//! | `Ended`, of a record processor that failed for good | `Release`, `GiveUp` |
//! | `Ended`, by a panic | `Release`, `Scan` |
//! | `KeptEnded` | `Release`, unless the lease is lost |
//! | `NeverWorked` | `GiveUp` |
//! | `Stop` | none |
//! | `Wake` | none |
//! | `Late` | `Release` |
//!
//! After `Ended` the effects of `Acquired` follow for a lease of the shard that was acquired meanwhile. An event can
//! also log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info};

use crate::consumer::Outcome;
use crate::lease::{Held, LeaseKey};
use crate::shard::some;

/// The time between log lines that name what a shutdown still waits for.
pub const NAMED_AGAIN: Duration = Duration::from_secs(1);

/// The child of a shard failed permanently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "record processor of {key} failed too many times in a row (multilangd.maxChildFailures); last \
     error: {reason}"
)]
pub struct Hopeless {
    /// The shard's lease.
    pub key: LeaseKey,
    /// The last failure.
    pub reason: String,
}

/// A lease that this worker holds, or held.
pub trait Holding {
    /// The key.
    fn key(&self) -> &LeaseKey;
    /// Whether it has not expired on the local clock and is not lost.
    fn is_live(&self, now: Instant) -> bool;
    /// Whether it is known to be lost.
    fn is_lost(&self) -> bool;
}

impl Holding for Arc<Held> {
    fn key(&self) -> &LeaseKey {
        Held::key(self)
    }

    fn is_live(&self, now: Instant) -> bool {
        Held::is_live(self, now)
    }

    fn is_lost(&self) -> bool {
        self.lost().is_cancelled()
    }
}

/// An event.
#[derive(Debug)]
pub enum Event<H> {
    /// The coordinator acquired a lease.
    Acquired(H),
    /// The consumer of a shard ended; none if by a panic.
    Ended(LeaseKey, Option<Outcome>),
    /// The lease of a finished shard is wanted by another worker, or lost.
    KeptEnded(H),
    /// Every shard is parked and no child has ever answered: this is one of them, and its last failure.
    NeverWorked(LeaseKey, String),
    /// The shutdown has begun.
    Stop,
    /// [`State::due`] is over.
    Wake,
    /// A lease arrived after the last consumer had ended.
    Late(H),
}

/// An effect.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<H> {
    /// Starts a consumer.
    Start(H),
    /// The lease is lost in memory.
    MarkLost(H),
    /// The lease is not needed any more: the coordinator releases it.
    Release(H),
    /// Holds the lease of a finished shard until it is lost or wanted: [`Event::KeptEnded`].
    Keep(H),
    /// Tells all consumers that a shard was finished: their shards may be its children.
    Announce,
    /// Asks the coordinator to scan the lease table.
    Scan,
    /// The whole daemon is to stop.
    GiveUp,
}

#[derive(Debug)]
struct Running<H> {
    held: H,
    /// A lease of the same shard that was acquired before this consumer ended.
    next: Option<H>,
}

/// The state of a scheduler.
#[derive(Debug)]
pub struct State<H> {
    running: BTreeMap<LeaseKey, Running<H>>,
    stopping: bool,
    hopeless: Option<Hopeless>,
    /// When the shards that still run are named next; none before the shutdown.
    named_at: Option<Instant>,
}

impl<H> Default for State<H> {
    fn default() -> Self {
        Self { running: BTreeMap::new(), stopping: false, hopeless: None, named_at: None }
    }
}

impl<H: Holding + Clone> State<H> {
    /// Whether the shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the shutdown has begun and no consumer runs.
    pub fn has_ended(&self) -> bool {
        self.stopping && self.running.is_empty()
    }

    /// When something is due: [`Event::Wake`].
    pub fn due(&self) -> Option<Instant> {
        self.named_at
    }

    /// The first record processor that failed permanently, if one did.
    pub fn into_failure(self) -> Option<Hopeless> {
        self.hopeless
    }

    /// The effects of an event.
    pub fn on(&mut self, now: Instant, event: Event<H>) -> Vec<Effect<H>> {
        let mut effects = Vec::new();
        match event {
            Event::Acquired(held) => effects.extend(self.acquired(now, held)),
            Event::Ended(key, outcome) => self.ended(now, &key, outcome, &mut effects),
            // The leader had not seen the end of the shard: only the owner can release its lease.
            Event::KeptEnded(held) if !held.is_lost() => effects.push(Effect::Release(held)),
            Event::KeptEnded(_) => {}
            Event::NeverWorked(key, reason) => effects.push(self.give_up(Hopeless { key, reason })),
            Event::Stop => {
                self.stopping = true;
                self.named_at.get_or_insert(now + NAMED_AGAIN);
            }
            Event::Wake => self.wake(now),
            Event::Late(held) => effects.push(Effect::Release(held)),
        }
        effects
    }

    fn acquired(&mut self, now: Instant, held: H) -> Option<Effect<H>> {
        if !held.is_live(now) {
            return Some(Effect::MarkLost(held));
        }
        if self.stopping || self.hopeless.is_some() {
            return Some(Effect::Release(held));
        }
        if let Some(running) = self.running.get_mut(held.key()) {
            running.next = Some(held);
            return None;
        }
        self.running.insert(held.key().clone(), Running { held: held.clone(), next: None });
        Some(Effect::Start(held))
    }

    fn ended(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        outcome: Option<Outcome>,
        effects: &mut Vec<Effect<H>>,
    ) {
        let Some(Running { held, next }) = self.running.remove(key) else { return };
        match outcome {
            Some(Outcome::ShardEnded) => {
                info!(event = "shard_completed", shard = %key, "completed the shard");
                effects.extend([Effect::Announce, Effect::Keep(held), Effect::Scan]);
            }
            Some(Outcome::LeaseLost) => {
                info!(event = "processing_stopped", shard = %key, "stopped processing the shard: its lease is lost");
            }
            Some(Outcome::Stopped) => effects.push(Effect::Release(held)),
            Some(Outcome::Hopeless(reason)) => {
                effects.push(Effect::Release(held));
                effects.push(self.give_up(Hopeless { key: key.clone(), reason }));
            }
            None => effects.extend([Effect::Release(held), Effect::Scan]),
        }
        effects.extend(next.and_then(|next| self.acquired(now, next)));
    }

    fn give_up(&mut self, hopeless: Hopeless) -> Effect<H> {
        error!(event = "processor_failed_for_good", error = %hopeless, "shutting down: a record processor failed for good");
        self.hopeless.get_or_insert(hopeless);
        Effect::GiveUp
    }

    fn wake(&mut self, now: Instant) {
        if self.named_at.is_some_and(|at| now >= at) {
            self.named_at = Some(now + NAMED_AGAIN);
            info!(shards = some(self.running.keys()), "waiting for record processors to stop");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease of a shard: its number tells it from others of the shard.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Lease {
        key: LeaseKey,
        number: u32,
        expires: Instant,
        lost: bool,
    }

    impl Holding for Lease {
        fn key(&self) -> &LeaseKey {
            &self.key
        }

        fn is_live(&self, now: Instant) -> bool {
            !self.lost && now < self.expires
        }

        fn is_lost(&self) -> bool {
            self.lost
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    struct Rig {
        state: State<Lease>,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            Self { state: State::default(), now: Instant::now() }
        }

        fn lease(&self, key: &str, number: u32) -> Lease {
            Lease { key: key.into(), number, expires: self.now + SECOND * 10, lost: false }
        }

        fn on(&mut self, event: Event<Lease>) -> Vec<Effect<Lease>> {
            self.state.on(self.now, event)
        }

        /// A state in which a consumer of this shard runs.
        fn running(key: &str) -> (Self, Lease) {
            let mut rig = Self::new();
            let lease = rig.lease(key, 1);
            assert_eq!(rig.on(Event::Acquired(lease.clone())), [Effect::Start(lease.clone())]);
            (rig, lease)
        }
    }

    #[test]
    fn acquired_lease_starts_one_consumer_per_shard() {
        let (mut rig, first) = Rig::running("a");
        let (second, third) = (rig.lease("a", 2), rig.lease("a", 3));
        assert_eq!(rig.on(Event::Acquired(second)), []);
        assert_eq!(rig.on(Event::Acquired(third.clone())), [], "the newest lease of the shard counts");
        let other = rig.lease("b", 4);
        assert_eq!(rig.on(Event::Acquired(other.clone())), [Effect::Start(other)]);
        assert_eq!(
            rig.on(Event::Ended("a".into(), Some(Outcome::Stopped))),
            [Effect::Release(first), Effect::Start(third)]
        );
    }

    #[test]
    fn expired_lease_is_marked_lost_instead_of_started() {
        let mut rig = Rig::new();
        let lease = rig.lease("a", 1);
        rig.now += SECOND * 10;
        assert_eq!(rig.on(Event::Acquired(lease.clone())), [Effect::MarkLost(lease)]);
    }

    #[test]
    fn lease_that_expires_behind_a_running_consumer_is_marked_lost() {
        let (mut rig, first) = Rig::running("a");
        let next = rig.lease("a", 2);
        rig.on(Event::Acquired(next.clone()));
        rig.now += SECOND * 10;
        assert_eq!(
            rig.on(Event::Ended("a".into(), None)),
            [Effect::Release(first), Effect::Scan, Effect::MarkLost(next)]
        );
    }

    #[test]
    fn each_outcome_of_a_consumer_has_its_effects() {
        let effects = |outcome| {
            let (mut rig, lease) = Rig::running("a");
            (rig.on(Event::Ended("a".into(), outcome)), lease)
        };
        let (found, lease) = effects(Some(Outcome::ShardEnded));
        assert_eq!(found, [Effect::Announce, Effect::Keep(lease), Effect::Scan]);
        let (found, _) = effects(Some(Outcome::LeaseLost));
        assert_eq!(found, []);
        let (found, lease) = effects(Some(Outcome::Stopped));
        assert_eq!(found, [Effect::Release(lease)]);
        let (found, lease) = effects(Some(Outcome::Hopeless("exit code 1".into())));
        assert_eq!(found, [Effect::Release(lease), Effect::GiveUp]);
        let (found, lease) = effects(None);
        assert_eq!(found, [Effect::Release(lease), Effect::Scan]);
    }

    #[test]
    fn end_of_an_unknown_consumer_has_no_effect() {
        assert_eq!(Rig::new().on(Event::Ended("a".into(), Some(Outcome::ShardEnded))), []);
    }

    #[test]
    fn lease_of_a_finished_shard_is_released_when_wanted_unless_lost() {
        let mut rig = Rig::new();
        let lease = rig.lease("a", 1);
        assert_eq!(rig.on(Event::KeptEnded(lease.clone())), [Effect::Release(lease.clone())]);
        assert_eq!(rig.on(Event::KeptEnded(Lease { lost: true, ..lease })), []);
    }

    #[test]
    fn first_permanent_failure_is_kept_and_ends_acquisitions() {
        let (mut rig, lease) = Rig::running("a");
        assert_eq!(rig.on(Event::NeverWorked("b".into(), "no such file".into())), [Effect::GiveUp]);
        let failed = Outcome::Hopeless("exit code 1".into());
        assert_eq!(rig.on(Event::Ended("a".into(), Some(failed))), [Effect::Release(lease), Effect::GiveUp]);
        let late = rig.lease("c", 2);
        assert_eq!(rig.on(Event::Acquired(late.clone())), [Effect::Release(late)]);
        let failure = rig.state.into_failure();
        assert_eq!(failure, Some(Hopeless { key: "b".into(), reason: "no such file".into() }));
    }

    #[test]
    fn shutdown_releases_new_leases_and_ends_with_the_last_consumer() {
        let (mut rig, first) = Rig::running("a");
        let next = rig.lease("a", 2);
        rig.on(Event::Acquired(next.clone()));
        assert_eq!((rig.state.is_stopping(), rig.state.has_ended()), (false, false));
        assert_eq!(rig.on(Event::Stop), []);
        assert_eq!((rig.state.is_stopping(), rig.state.has_ended()), (true, false));
        let other = rig.lease("b", 3);
        assert_eq!(rig.on(Event::Acquired(other.clone())), [Effect::Release(other)]);
        assert_eq!(
            rig.on(Event::Ended("a".into(), Some(Outcome::Stopped))),
            [Effect::Release(first), Effect::Release(next)]
        );
        assert!(rig.state.has_ended());
        rig.now += SECOND * 60;
        let expired = Lease { expires: rig.now, ..rig.lease("c", 4) };
        assert_eq!(rig.on(Event::Late(expired.clone())), [Effect::Release(expired)]);
        assert_eq!(rig.state.into_failure(), None);
    }

    #[test]
    fn running_shards_are_named_each_second_of_a_shutdown() {
        let (mut rig, _) = Rig::running("a");
        assert_eq!(rig.state.due(), None);
        rig.on(Event::Stop);
        let begun = rig.now;
        rig.now += SECOND / 2;
        rig.on(Event::Stop);
        assert_eq!(rig.state.due(), Some(begun + SECOND), "a second notice postpones nothing");
        assert_eq!(rig.on(Event::Wake), []);
        assert_eq!(rig.state.due(), Some(begun + SECOND), "not due yet");
        rig.now = begun + SECOND;
        assert_eq!(rig.on(Event::Wake), []);
        assert_eq!(rig.state.due(), Some(begun + SECOND * 2));
    }
}
