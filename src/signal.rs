//! Signals: the first one requests a shutdown, the second one ends the process at once. Signals that arrive
//! together count as one: tools that signal a process and then its group (`timeout`, supervisors) send two.
//!
//! SIGTERM, SIGINT and SIGHUP, as in Java; and SIGQUIT, which images set as `STOPSIGNAL` and whose default
//! action would end the process without releasing its leases (Java prints a thread dump). A signal that was
//! ignored when the process started (`nohup`, a background job of a shell) stays ignored.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Signals within this time after the first are one request.
const ONE: Duration = Duration::from_secs(1);

/// The signals that end the daemon.
pub(crate) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hang_up: Option<Signal>,
    quit: Option<Signal>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn install() -> io::Result<Self> {
        let ignored = ignored();
        let install = |kind: SignalKind| {
            let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(0);
            if ignored >> bit & 1 == 1 { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hang_up: install(SignalKind::hangup())?,
            quit: install(SignalKind::quit())?,
        })
    }

    /// Cancels `stop` at the first signal and returns at the second. Without `stop` it returns at the first.
    pub(crate) async fn serve(mut self, stop: Option<CancellationToken>) {
        let name = self.next().await;
        let Some(stop) = stop else { return };
        info!(event = "signal_received", signal = name, "received a signal, shutting down");
        stop.cancel();
        let until = Instant::now() + ONE;
        while timeout_at(until, self.next()).await.is_ok() {}
        let name = self.next().await;
        warn!(
            event = "second_signal_received",
            signal = name,
            "received a second signal, exiting now; leases not yet released will expire"
        );
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            // The order does not matter: all have the same meaning.
            () = came(&mut self.terminate) => "SIGTERM",
            () = came(&mut self.interrupt) => "SIGINT",
            () = came(&mut self.hang_up) => "SIGHUP",
            () = came(&mut self.quit) => "SIGQUIT",
        }
    }
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => match signal.recv().await {
            Some(()) => {}
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// The mask of ignored signals, bit 0 for signal 1 (proc(5), `SigIgn`). 0 without /proc, as on macOS: reading
/// the disposition of a signal (sigaction(2)) would need unsafe code, so all signals are handled there.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
