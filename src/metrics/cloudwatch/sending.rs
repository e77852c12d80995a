//! Sends metrics to CloudWatch, as often as KCL does. Nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Key, Queue, Statistics};
use crate::shard::BoxFuture;

/// Most metrics in one request (`CloudWatchMetricsPublisher.BATCH_SIZE`).
const REQUEST: usize = 20;
/// Timeout of a request (`PUT_TIMEOUT_MILLIS`).
const LIMIT: Duration = Duration::from_secs(5);
/// Most time that a shutdown waits for the request in progress and the remaining metrics.
const LAST: Duration = Duration::from_secs(1);

/// Sends metrics.
pub trait Publisher: Send + Sync {
    /// Sends at most twenty metrics. Metrics that cannot be sent are dropped.
    fn put<'a>(&'a self, data: &'a [(Key, Statistics)]) -> BoxFuture<'a, Result<(), String>>;
}

/// Sends metrics until `stop`, then the remaining ones if that takes less than a second.
pub async fn run(queue: Arc<Queue>, publisher: Arc<dyn Publisher>, stop: CancellationToken) {
    let enough = async {
        stop.cancelled().await;
        sleep(LAST).await;
    };
    tokio::select! {
        biased;
        () = send(&queue, &*publisher, &stop) => {}
        () = enough => debug!("timed out sending the last metrics"),
    }
}

async fn send(queue: &Queue, publisher: &dyn Publisher, stop: &CancellationToken) {
    let mut flushes = interval(queue.settings.every.max(Duration::from_millis(10)));
    flushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    flushes.tick().await;
    let mut renewals = interval(queue.settings.renewals.max(Duration::from_millis(10)));
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = renewals.tick() => {
                queue.renewals();
                continue;
            }
            () = queue.full.notified() => {}
            _ = flushes.tick() => {}
        }
        loop {
            flush(queue, publisher, &mut failing).await;
            if stop.is_cancelled() || !queue.is_full() {
                break;
            }
        }
    }
    while !queue.lock().order.is_empty() {
        flush(queue, publisher, &mut failing).await;
    }
}

async fn flush(queue: &Queue, publisher: &dyn Publisher, failing: &mut bool) {
    let (data, dropped) = queue.drain();
    if dropped > 0 {
        warn!(event = "metrics_dropped", dropped, "dropped metrics: the queue is full (metricsMaxQueueSize)");
    }
    for some in data.chunks(REQUEST) {
        let sent = timeout(LIMIT, publisher.put(some)).await;
        match sent.unwrap_or_else(|_| Err(format!("no response within {LIMIT:?}"))) {
            Ok(()) => *failing = false,
            // Logged once until a request succeeds: nothing depends on the metrics.
            Err(error) if !std::mem::replace(failing, true) => {
                warn!(
                    event = "metrics_failed",
                    error, "failed to send metrics to CloudWatch: they are dropped until it succeeds"
                );
            }
            Err(error) => debug!(error, "failed to send metrics to CloudWatch, dropped them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::tests::{fetched, queue};
    use super::*;

    struct Slow;

    impl Publisher for Slow {
        fn put<'a>(&'a self, _: &'a [(Key, Statistics)]) -> BoxFuture<'a, Result<(), String>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unresponsive_cloudwatch_does_not_delay_shutdown() {
        let queue = Arc::new(queue(Level::Detailed, None));
        fetched(&queue, "a", 1);
        let stop = CancellationToken::new();
        stop.cancel();
        let begin = tokio::time::Instant::now();
        run(queue, Arc::new(Slow), stop).await;
        assert!(begin.elapsed() <= LAST);
    }

    #[tokio::test(start_paused = true)]
    async fn request_in_progress_does_not_delay_shutdown() {
        let queue = Arc::new(queue(Level::Detailed, None));
        for shard in 0..300 {
            fetched(&queue, &shard.to_string(), 1);
        }
        let stop = CancellationToken::new();
        let stopping = async {
            // Ten requests are sent, of five seconds each.
            tokio::time::sleep(Duration::from_secs(11)).await;
            stop.cancel();
            tokio::time::Instant::now()
        };
        let (begin, ()) = tokio::join!(stopping, run(queue.clone(), Arc::new(Slow), stop.clone()));
        assert!(begin.elapsed() <= LAST, "{:?}", begin.elapsed());
    }
}
