//! One lease kept alive, by a task of its own: nothing that happens to another lease, to a child or to a
//! log can hold it up.
//!
//! A checkpoint is a sign of life too and puts the next renewal off, so a busy shard costs no renewals. In
//! KCL: `DynamoDBLeaseRenewer`, whose passes wait for their slowest call.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::backoff::Backoff;
use crate::lease::{Held, held};

/// A third of the failover time: a renewal may fail twice. Java's is 25 ms shorter.
pub(super) fn pause(failover: Duration) -> Duration {
    (failover / 3).max(Duration::from_millis(1))
}

/// Renews until the lease is lost. A failure is retried with jitter until the lease expires.
pub(super) async fn keep(held: Arc<Held>, pause: Duration, first: Instant) {
    let mut backoff = Backoff::new(pause / 8, pause, fastrand::Rng::new());
    let mut known = held.proven();
    let mut next = first;
    loop {
        tokio::select! {
            biased;
            // Lost leases aren't renewed.
            () = held.lost().cancelled() => break,
            () = sleep_until(next.min(held.expires())) => {}
        }
        let proven = held.proven();
        if proven > std::mem::replace(&mut known, proven) && Instant::now() < proven + pause {
            next = proven + pause;
            continue;
        }
        let started = Instant::now();
        match held.renew().await {
            Ok(()) => {
                backoff.reset();
                (known, next) = (held.proven(), started + pause);
            }
            Err(held::Error::Lost) => {
                warn!(shard = %held.shard(), "the lease is lost");
                break;
            }
            Err(error) => {
                let again = backoff.pause();
                warn!(shard = %held.shard(), %error, ?again, "a renewal failed, will try again");
                next = Instant::now() + again;
            }
        }
    }
}
