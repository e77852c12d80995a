//! The start: creates the table, joins the fleet, and creates the leases of the shards, with retries.

use tokio::time::Instant;
use tracing::warn;

use super::attempts::{Attempts, Progress};
use super::error::Error;
use super::keeper::Keeper;
use super::ports::Ports;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::fleet::Mode;
use crate::lease::table::Found;
use crate::membership::{self, Begun};

/// KCL's `maxInitializationAttempts`. Here only attempts without progress count, because a throttled table
/// needs many.
const ATTEMPTS: u32 = 20;

/// An unreachable endpoint is awaited for at least this many times
/// `schedulerInitializationBackoffTimeMillis`: five minutes by default. Java's attempts with the SDK's
/// retries took more than 140 s.
const UNREACHABLE: u32 = 300;

/// Creates the table, reads the shards of the streams and creates their leases, with retries.
pub(super) async fn initialize(
    config: &Config,
    ports: &Ports,
    member: &membership::Settings,
    keeper: &mut Keeper,
) -> Result<Begun, Error> {
    let mut attempts = Attempts::default();
    let mut backoff =
        Backoff::new(config.initialization_backoff, config.initialization_backoff * 10, fastrand::Rng::new());
    let began = Instant::now();
    let (mut stage, mut created) = (0, false);
    loop {
        let mut begin = async || -> Result<Begun, Error> {
            stage = 0;
            // An attempt that created the table may have failed afterwards.
            let mut found = ports.table.ensure().await?;
            created |= found == Found::Created;
            if created {
                found = Found::Created;
            }
            // Before anything is written.
            keeper.recognise().await?;
            stage = 1;
            let begun = membership::begin(&*ports.state, &*ports.table, found, member).await?;
            stage = 2;
            keeper.begin(begun.mode != Mode::Phase1).await?;
            Ok(begun)
        };
        let error = match begin().await {
            Ok(begun) => return Ok(begun),
            Err(error) => error,
        };
        let rows = keeper.made();
        let without_progress = attempts.failed(Progress { stage, rows });
        // Wait for an endpoint that starts later, as in a set of containers.
        let waits = error.is_unreachable() && began.elapsed() < config.initialization_backoff * UNREACHABLE;
        if without_progress >= ATTEMPTS && !waits || !error.may_pass() {
            return Err(error);
        }
        let pause = if waits { backoff.pause() } else { config.initialization_backoff };
        let (kinesis, dynamodb) = (config.kinesis.location(), config.dynamodb.location());
        warn!(event = "start_failed",
            %error, kinesis, dynamodb, leases = rows, failed_attempts = without_progress,
            max_attempts = ATTEMPTS, retry_in = ?pause,
            "failed to start, retrying");
        tokio::time::sleep(pause).await;
    }
}
