//! Runs a consumer for each lease that this worker holds.
//!
//! There is one consumer per shard: a lease that is acquired again before its previous consumer has ended
//! waits for that. If no child of the program ever worked, the whole daemon exits, so that a supervisor
//! notices.
//!
//! In KCL: `Scheduler`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span, info};

use crate::consumer::{self, Outcome, Parts, Signals};
use crate::coordinator::Handle;
use crate::lease::{Held, LeaseKey};
use crate::shard::some;

/// The child of a shard failed permanently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "record processor of {key} failed too many times in a row (multilangd.maxChildFailures); last \
     error: {reason}"
)]
pub struct Hopeless {
    /// The shard.
    pub key: LeaseKey,
    /// The last failure.
    pub reason: String,
}

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

struct Running {
    held: Arc<Held>,
    /// A lease of the same shard that was acquired before this consumer ended.
    next: Option<Arc<Held>>,
}

struct Scheduler {
    parts: Parts,
    coordinator: Handle,
    stop: CancellationToken,
    gave_up: Arc<Notify>,
    consumers: JoinSet<Outcome>,
    /// Leases of finished shards, held until they are not needed; each task ends when its lease is to go to
    /// another worker.
    kept: JoinSet<Arc<Held>>,
    running: BTreeMap<LeaseKey, Running>,
    tasks: BTreeMap<Id, LeaseKey>,
    finished: broadcast::Sender<()>,
    hopeless: Option<Hopeless>,
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
    let Orders { coordinator, stop, gave_up } = orders;
    let mut scheduler = Scheduler {
        parts,
        coordinator,
        stop,
        gave_up,
        consumers: JoinSet::new(),
        kept: JoinSet::new(),
        running: BTreeMap::new(),
        tasks: BTreeMap::new(),
        finished: broadcast::Sender::new(1),
        hopeless: None,
    };
    let standings = scheduler.parts.standings.clone();
    let second = Duration::from_secs(1);
    let mut waiting = interval_at(Instant::now() + second, second);
    waiting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = scheduler.stop.is_cancelled();
        if stopping && scheduler.consumers.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            // Ends are handled before new leases, so that a shard's next consumer can start.
            Some(ended) = scheduler.consumers.join_next_with_id() => scheduler.ended(ended),
            () = scheduler.stop.cancelled(), if !stopping => waiting.reset(),
            // The leader had not seen the end of the shard: only the owner can release its lease.
            Some(Ok(held)) = scheduler.kept.join_next(), if !stopping => {
                if !held.lost().is_cancelled() {
                    scheduler.coordinator.release(held);
                }
            }
            Some(held) = leases.recv() => scheduler.held(held),
            () = standings.changed(), if !stopping => scheduler.give_up_if_nothing_works(),
            _ = waiting.tick(), if stopping => {
                let shards = some(scheduler.running.keys());
                info!(shards, "waiting for record processors to stop");
            }
        }
    }
    // Leases received after the last consumer ended.
    leases.close();
    while let Some(held) = leases.recv().await {
        scheduler.coordinator.release(held);
    }
    scheduler.hopeless.map_or(Ok(()), Err)
}

impl Scheduler {
    fn held(&mut self, held: Arc<Held>) {
        if !held.is_live(Instant::now()) {
            held.mark_lost();
        } else if self.stop.is_cancelled() || self.hopeless.is_some() {
            self.coordinator.release(held);
        } else if let Some(running) = self.running.get_mut(held.key()) {
            running.next = Some(held);
        } else {
            self.start(held);
        }
    }

    /// Exits if every shard is parked and no child has ever answered: the program is broken, not a record.
    fn give_up_if_nothing_works(&mut self) {
        if let Some((key, reason)) = self.parts.standings.never_worked() {
            self.give_up(Hopeless { key, reason });
        }
    }

    fn give_up(&mut self, hopeless: Hopeless) {
        error!(event = "processor_failed_for_good", error = %hopeless, "shutting down: a record processor failed for good");
        self.hopeless.get_or_insert(hopeless);
        self.gave_up.notify_one();
    }

    fn start(&mut self, held: Arc<Held>) {
        let signals = Signals { stop: self.stop.clone(), finished: self.finished.subscribe() };
        let consumer = consumer::run(held.clone(), self.parts.clone(), signals);
        let task = self.consumers.spawn(consumer.instrument(error_span!("shard", shard = %held.key())));
        self.tasks.insert(task.id(), held.key().clone());
        self.running.insert(held.key().clone(), Running { held, next: None });
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => {
                error!(event = "consumer_panicked", %error, "shard consumer panicked, restarting it");
                (error.id(), None)
            }
        };
        let Some(Running { held, next }) = self.tasks.remove(&id).and_then(|key| self.running.remove(&key))
        else {
            return;
        };
        match outcome {
            Some(Outcome::ShardEnded) => {
                info!(event = "shard_completed", shard = %held.key(), "completed the shard");
                let _nobody_waits = self.finished.send(()).is_err();
                self.kept.spawn(async move {
                    tokio::select! {
                        biased;
                        () = held.lost().cancelled() => {}
                        () = held.wanted().cancelled() => {}
                    }
                    held
                });
                self.coordinator.look();
            }
            Some(Outcome::LeaseLost) => info!(event = "processing_stopped", shard = %held.key(),
                "stopped processing the shard: its lease is lost"),
            Some(Outcome::Stopped) => self.coordinator.release(held),
            Some(Outcome::Hopeless(reason)) => {
                let key = held.key().clone();
                self.coordinator.release(held);
                self.give_up(Hopeless { key, reason });
            }
            None => {
                self.coordinator.release(held);
                self.coordinator.look();
            }
        }
        if let Some(next) = next {
            self.held(next);
        }
    }
}
