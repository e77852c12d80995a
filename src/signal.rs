//! Signals: the first one requests a shutdown, the second one ends the process at once. Signals that arrive
//! together count as one: tools that signal a process and then its group (`timeout`, supervisors) send two.
//!
//! SIGTERM and SIGINT, as in Java; SIGHUP of a terminal that goes away, while a SIGHUP that asks for a reload is only
//! logged (Java stops at it); and SIGQUIT, which images set as `STOPSIGNAL` and whose default
//! action would end the process without releasing its leases (Java prints a thread dump). A signal that was
//! ignored when the process started (`nohup`, a background job of a shell) stays ignored.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use multilangd::status::Show;
use serde_json::Value;
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
    /// Whether the process had a controlling terminal when it started.
    has_terminal: bool,
    /// Whether only a terminal that goes away makes SIGHUP a request to stop.
    is_daemon: bool,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn install(is_daemon: bool) -> io::Result<Self> {
        // By default it would end the process. The handler remains.
        drop(install(SignalKind::user_defined1())?);
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hang_up: install(SignalKind::hangup())?,
            quit: install(SignalKind::quit())?,
            has_terminal: has_terminal(),
            is_daemon,
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

    /// The next signal that requests a stop.
    async fn next(&mut self) -> &'static str {
        loop {
            return tokio::select! {
                biased;
                // The order does not matter: all have the same meaning.
                () = came(&mut self.terminate) => "SIGTERM",
                () = came(&mut self.interrupt) => "SIGINT",
                () = came(&mut self.hang_up) => {
                    if asks_for_reload(self.is_daemon, self.has_terminal, has_terminal()) {
                        warn!(
                            event = "reload_not_supported",
                            "received SIGHUP, continuing: the properties file is read only at start (restart the daemon)"
                        );
                        continue;
                    }
                    "SIGHUP"
                },
                () = came(&mut self.quit) => "SIGQUIT",
            };
        }
    }
}

/// Whether SIGHUP comes from a program or a person. A terminal that goes away is no longer the controlling terminal of
/// its processes when they get the signal.
fn asks_for_reload(is_daemon: bool, had_terminal: bool, has_terminal: bool) -> bool {
    is_daemon && (!had_terminal || has_terminal)
}

/// Whether the process has a controlling terminal (tty(4)).
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Installs the handler of a signal, unless it was ignored when the process started.
fn install(kind: SignalKind) -> io::Result<Option<Signal>> {
    let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(0);
    if ignored() >> bit & 1 == 1 { Ok(None) } else { signal(kind).map(Some) }
}

/// Logs the state of the daemon whenever SIGUSR1 arrives.
pub(crate) async fn log_status(status: Arc<dyn Show>) {
    let Ok(mut asked) = install(SignalKind::user_defined1()) else { return };
    loop {
        came(&mut asked).await;
        info!(event = "status_logged", status = %without_fleets(status.json()), "received SIGUSR1, logging the status");
    }
}

/// The status without the leases of other workers: log collectors cut lines of some ten KB.
fn without_fleets(mut status: Value) -> Value {
    let applications = status.get_mut("applications").and_then(Value::as_array_mut);
    for application in applications.into_iter().flatten() {
        *application = without_fleets(application.take());
    }
    if let Some(fields) = status.as_object_mut() {
        fields.remove("fleet");
    }
    status
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hang_up_is_a_stop_only_if_the_terminal_is_gone() {
        for (had_terminal, has_terminal, is_reload) in
            [(true, false, false), (true, true, true), (false, false, true), (false, true, true)]
        {
            assert_eq!(asks_for_reload(true, had_terminal, has_terminal), is_reload);
            assert!(!asks_for_reload(false, had_terminal, has_terminal), "other commands end");
        }
    }
}
