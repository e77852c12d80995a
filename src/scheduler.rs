//! Runs a consumer for each lease that this worker holds.
//!
//! [`state`] decides, without I/O; this module waits for events and performs the effects. There is one consumer per
//! shard: a lease that is acquired again before its previous consumer has ended waits for that. If no child of the
//! program ever worked, the whole daemon exits, so that a supervisor notices.
//!
//! In KCL: `Scheduler`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span};

use crate::clock;
use crate::consumer::{self, Outcome, Parts, Signals};
use crate::coordinator::Handle;
use crate::lease::{Held, LeaseKey};

pub mod state;

pub use state::Hopeless;
use state::{Effect, Event, State};

/// The connections of the scheduler to the coordinator and to the daemon.
#[derive(Debug)]
pub struct Orders {
    /// Receives the leases that are not needed any more.
    pub coordinator: Handle,
    /// Stops all consumers.
    pub stop: CancellationToken,
    /// Notified once the whole daemon is to stop, because of a record processor.
    pub gave_up: Arc<Notify>,
}

struct Scheduler {
    state: State<Arc<Held>>,
    parts: Parts,
    orders: Orders,
    consumers: JoinSet<Outcome>,
    /// The lease of each consumer's task.
    tasks: BTreeMap<Id, LeaseKey>,
    /// Leases of finished shards, held until they are not needed; each task ends when its lease is to go to
    /// another worker.
    kept: JoinSet<Arc<Held>>,
    finished: broadcast::Sender<()>,
}

/// Runs a consumer for each lease received, until the stop; then stops all of them.
///
/// # Errors
/// [`Hopeless`] if a record processor failed permanently.
pub async fn run(
    parts: Parts,
    orders: Orders,
    mut leases: mpsc::Receiver<Arc<Held>>,
) -> Result<(), Hopeless> {
    let (standings, stop) = (parts.standings.clone(), orders.stop.clone());
    let mut scheduler = Scheduler {
        state: State::default(),
        parts,
        orders,
        consumers: JoinSet::new(),
        tasks: BTreeMap::new(),
        kept: JoinSet::new(),
        finished: broadcast::Sender::new(1),
    };
    loop {
        scheduler.refresh();
        if scheduler.state.has_ended() {
            break;
        }
        let runs = !scheduler.state.is_stopping();
        tokio::select! {
            biased;
            // Ends are handled before new leases, so that a shard's next consumer can start.
            Some(ended) = scheduler.consumers.join_next_with_id() => scheduler.ended(ended),
            () = stop.cancelled(), if runs => {}
            Some(Ok(held)) = scheduler.kept.join_next(), if runs => scheduler.handle(Event::KeptEnded(held)),
            Some(held) = leases.recv() => scheduler.handle(Event::Acquired(held)),
            () = standings.changed(), if runs => {
                if let Some((key, reason)) = standings.never_worked() {
                    scheduler.handle(Event::NeverWorked(key, reason));
                }
            }
            () = clock::reached(scheduler.state.due()) => scheduler.handle(Event::Wake),
        }
    }
    leases.close();
    while let Some(held) = leases.recv().await {
        scheduler.handle(Event::Late(held));
    }
    scheduler.state.into_failure().map_or(Ok(()), Err)
}

impl Scheduler {
    /// No consumer is started once a shutdown has begun.
    fn refresh(&mut self) {
        if self.orders.stop.is_cancelled() && !self.state.is_stopping() {
            self.step(Event::Stop);
        }
    }

    fn handle(&mut self, event: Event<Arc<Held>>) {
        self.refresh();
        self.step(event);
    }

    fn step(&mut self, event: Event<Arc<Held>>) {
        for effect in self.state.on(Instant::now(), event) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect<Arc<Held>>) {
        match effect {
            Effect::Start(held) => self.start(held),
            Effect::MarkLost(held) => held.mark_lost(),
            Effect::Release(held) => self.orders.coordinator.release(held),
            Effect::Keep(held) => {
                self.kept.spawn(async move {
                    tokio::select! {
                        biased;
                        () = held.lost().cancelled() => {}
                        () = held.wanted().cancelled() => {}
                    }
                    held
                });
            }
            Effect::Announce => {
                let _nobody_waits = self.finished.send(()).is_err();
            }
            Effect::Scan => self.orders.coordinator.look(),
            Effect::GiveUp => self.orders.gave_up.notify_one(),
        }
    }

    fn start(&mut self, held: Arc<Held>) {
        let key = held.key().clone();
        let signals = Signals { stop: self.orders.stop.clone(), finished: self.finished.subscribe() };
        let consumer = consumer::run(held, self.parts.clone(), signals);
        let task = self.consumers.spawn(consumer.instrument(error_span!("shard", shard = %key)));
        self.tasks.insert(task.id(), key);
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => {
                error!(event = "consumer_panicked", %error, "shard consumer panicked, restarting it");
                (error.id(), None)
            }
        };
        if let Some(key) = self.tasks.remove(&id) {
            self.handle(Event::Ended(key, outcome));
        }
    }
}
