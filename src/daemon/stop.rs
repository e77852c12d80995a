//! The stop of a worker: one sequence, whatever its cause.
//!
//! All parts are notified at the same time, by the token that the caller may have cancelled. Then the parts are awaited
//! in [`ORDER`], and each is notified of its last task once the part before it has ended. `Running::stop` is the only
//! place that does so.

use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::error::Error;
use crate::clock;
use crate::scheduler::Hopeless;
use crate::scheduler::state::NAMED_AGAIN;

/// A step of the stop: a part that is awaited.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Its name in log lines.
    pub part: &'static str,
    /// Its task from the beginning of the stop on.
    pub at_once: &'static str,
    /// Its further task once its turn comes.
    pub at_its_turn: &'static str,
    /// The longest time that its end is awaited in its turn; none if its own limits bound it.
    pub limit: Option<Duration>,
}

/// The part that is awaited first.
const RECORD_PROCESSORS: Step = Step {
    part: "record processors",
    at_once: "retrieval stops; each child gets `shutdownRequested` and can checkpoint, then `leaseLost`, the end of its \
              stdin, SIGTERM, SIGKILL; its lease is released, or assigned to a successor",
    at_its_turn: "-",
    limit: None,
};

const HELPERS: Step = Step {
    part: "shard sync",
    at_once: "a round in progress is given up; `/readyz` answers 503",
    at_its_turn: "-",
    limit: Some(Duration::from_secs(1)),
};

const COORDINATOR: Step = Step {
    part: "coordinator",
    at_once: "no more leases are acquired; leases are renewed",
    at_its_turn: "leases that were acquired or assigned meanwhile are released; other workers are nudged; renewing stops",
    limit: Some(Duration::from_secs(10)),
};

const MEMBERSHIP: Step = Step {
    part: "fleet membership",
    at_once: "a leader releases the leader lock; the worker reports that it accepts no leases, and finds successors",
    at_its_turn: "the worker metrics row is deleted",
    limit: Some(Duration::from_secs(5)),
};

/// The parts in the order in which they are awaited.
pub const ORDER: [Step; 4] = [RECORD_PROCESSORS, HELPERS, COORDINATOR, MEMBERSHIP];

/// The parts of a running worker.
pub(super) struct Running<'a, S, H> {
    /// Runs the record processors until `stop`.
    pub(super) scheduler: Pin<&'a mut S>,
    /// Tasks that end at `stop`.
    pub(super) helpers: JoinSet<()>,
    /// Ends once all its handles are dropped.
    pub(super) coordinator: JoinSet<()>,
    /// The last handle of the coordinator.
    pub(super) handle: H,
    /// Ends once `released` is cancelled.
    pub(super) membership: JoinSet<()>,
    /// Every lease is released.
    pub(super) released: CancellationToken,
    /// Notifies all parts. The caller of the daemon may cancel it, and otherwise this sequence alone.
    pub(super) stop: CancellationToken,
    /// Limits the last requests.
    pub(super) clock: clock::Stop,
}

impl<S, H> Running<'_, S, H>
where
    S: Future<Output = Result<(), Hopeless>>,
{
    /// Stops the parts in order. `scheduled` is the scheduler's result if it has ended already.
    ///
    /// # Errors
    /// The cause, the panic of a part, or the failure of a record processor, in this order.
    pub(super) async fn stop(
        mut self,
        cause: Option<Error>,
        scheduled: Option<Result<(), Hopeless>>,
    ) -> Result<(), Error> {
        self.clock.begin();
        self.stop.cancel();
        // The scheduler names the shards whose record processors still run.
        let scheduled = match scheduled {
            Some(ended) => ended,
            None => self.scheduler.await,
        };
        let helpers = end_of(&HELPERS, &mut self.helpers).await;
        drop(self.handle);
        let coordinator = end_of(&COORDINATOR, &mut self.coordinator).await;
        self.released.cancel();
        let membership = end_of(&MEMBERSHIP, &mut self.membership).await;
        info!(event = "worker_stopped", "stopped");
        match cause {
            Some(error) => Err(error),
            None => {
                [helpers, coordinator, membership].into_iter().collect::<Result<(), Error>>()?;
                Ok(scheduled?)
            }
        }
    }
}

/// Waits until the tasks of a part have ended, names the part while they have not, and aborts them at its limit.
async fn end_of(step: &Step, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let start = Instant::now();
    let limit = step.limit.map(|limit| start + limit);
    let mut named = interval_at(start + NAMED_AGAIN, NAMED_AGAIN);
    named.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            biased;
            ended = tasks.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => outcome = Err(Error::Broken(format!("{} task failed: {error}", step.part))),
                None => return outcome,
            },
            () = clock::reached(limit) => {
                let lasted = start.elapsed();
                warn!(event = "stop_timed_out", part = step.part, ?lasted, "a part did not stop in time, aborting it");
                tasks.shutdown().await;
                return outcome;
            }
            _ = named.tick() => {
                let lasted = start.elapsed();
                info!(event = "stop_delayed", part = step.part, ?lasted, "waiting for a part to stop");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;

    type Ended = Arc<Mutex<Vec<&'static str>>>;

    const SECOND: Duration = Duration::from_secs(1);

    fn task(
        ended: &Ended,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) -> JoinSet<()> {
        let ended = ended.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            part.await;
            ended.lock().unwrap().push(name);
        });
        tasks
    }

    /// Stops parts that need these times from their notification on. Returns them in the order of their ends, and the
    /// outcome.
    async fn stopped(seconds: [u32; 4], cause: Option<Error>) -> (Vec<&'static str>, Result<(), Error>) {
        let ended = Ended::default();
        let (stop, released) = (CancellationToken::new(), CancellationToken::new());
        let (handle, dropped) = oneshot::channel::<()>();
        let pause = |index: usize| tokio::time::sleep(SECOND * seconds[index]);
        let (told, order) = (stop.clone(), ended.clone());
        let mut scheduler = pin!(async {
            told.cancelled().await;
            pause(0).await;
            order.lock().unwrap().push("scheduler");
            Ok(())
        });
        let (told, freed) = (stop.clone(), released.clone());
        let [helpers, coordinator, membership] = [1, 2, 3].map(|index| SECOND * seconds[index]);
        let running = Running {
            scheduler: scheduler.as_mut(),
            helpers: task(&ended, "helpers", async move {
                told.cancelled().await;
                tokio::time::sleep(helpers).await;
            }),
            coordinator: task(&ended, "coordinator", async move {
                let _dropped = dropped.await.is_err();
                tokio::time::sleep(coordinator).await;
            }),
            handle,
            membership: task(&ended, "membership", async move {
                freed.cancelled().await;
                tokio::time::sleep(membership).await;
            }),
            released,
            stop,
            clock: clock::Stop::within(SECOND),
        };
        let outcome = running.stop(cause, None).await;
        let order = ended.lock().unwrap().clone();
        (order, outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn parts_end_in_order_and_one_after_another() {
        let start = Instant::now();
        let (order, outcome) = stopped([5, 0, 3, 2], None).await;
        assert_eq!(order, ["helpers", "scheduler", "coordinator", "membership"]);
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(start.elapsed(), SECOND * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn part_that_does_not_end_is_aborted_at_its_limit() {
        let start = Instant::now();
        let (order, outcome) = stopped([0, 600, 600, 600], None).await;
        assert_eq!(order, ["scheduler"]);
        assert!(outcome.is_ok(), "{outcome:?}");
        let limits: Duration = ORDER.iter().filter_map(|step| step.limit).sum();
        assert_eq!(start.elapsed(), limits);
    }

    #[tokio::test(start_paused = true)]
    async fn cause_is_returned_after_all_parts_have_ended() {
        let cause = Error::Hopeless(Hopeless { key: "s".into(), reason: "exit code 1".to_owned() });
        let (order, outcome) = stopped([1, 0, 0, 0], Some(cause)).await;
        assert_eq!(order.len(), 4);
        assert!(matches!(outcome, Err(Error::Hopeless(_))), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn panicked_part_is_an_internal_error() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("a bug") });
        let outcome = end_of(&COORDINATOR, &mut tasks).await;
        assert!(matches!(outcome, Err(Error::Broken(_))), "{outcome:?}");
    }
}
