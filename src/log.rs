//! The log, written to stderr by a thread of its own. A slow or blocked reader of stderr never stalls
//! processing: lines that do not fit in the queue are dropped and counted. Errors that end the process bypass
//! the queue.

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multilangd::config::keys::own;
use multilangd::config::settings::Settings;
use multilangd::config::{ChildLog, Config};
use multilangd::multilang::output::{LogForm, RawLog};
use serde_json::json;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

mod line;
mod waiting;

use line::Lines;
use waiting::{Back, Front, Waiting};

/// Capacity of the queue; more than may wait in it.
const QUEUE: usize = 8192;

/// Timeout for each write at the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Dropping the guard writes the waiting lines, for a second at most.
static RUNNING: Mutex<Option<(WorkerGuard, Front<NonBlocking>)>> = Mutex::new(None);

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Starts the log. The default filter is INFO for the daemon and the children, WARN for the SDK; RUST_LOG or
/// `multilangd.log` replaces it.
///
/// # Errors
/// The filter is invalid.
pub(crate) fn start(settings: &Settings) -> Result<(), String> {
    let directives = settings.of(own::LOG);
    // An empty variable, which is common in environment files, counts as unset.
    let (name, directives) = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(given) if !given.trim().is_empty() => (EnvFilter::DEFAULT_ENV, given),
        _ => (own::LOG.name(), directives),
    };
    // An explicit filter applies unchanged.
    let is_default = own::KEYS.iter().any(|key| key.name == name && key.default == directives);
    let quiet = if is_default { &format!("dynoxide=error,{},", multilangd::aws::QUIET) } else { "" };
    let filter = EnvFilter::try_new(format!("{quiet}{directives}"))
        .map_err(|error| format!("{name} = {directives:?} is not a log filter: {error}"))?;
    let waiting = Arc::new(Waiting::default());
    let (queue, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .thread_name("log")
        .finish(Back { to: std::io::stderr(), waiting: waiting.clone() });
    let writer = Front { queue, waiting };
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some((guard, writer.clone()));
    let json = settings.of(own::LOG_FORMAT) == "json";
    JSON.store(json, Ordering::Relaxed);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let variable = |name: &str| std::env::var_os(name);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(!json && is_terminal && takes_colours(variable("NO_COLOR"), variable("TERM")))
        .fmt_fields(JsonFields::new())
        .event_format(Lines { json })
        .init();
    Ok(())
}

/// The form of the output of record processors. Raw output takes the way of the log lines: it is never waited for, and
/// keeps its order among them.
pub(crate) fn child_form(config: &Config) -> LogForm {
    match config.child_log {
        ChildLog::Json if JSON.load(Ordering::Relaxed) => LogForm::Json,
        // A text log has no place for the fields of an object.
        ChildLog::Lines | ChildLog::Json => LogForm::Lines,
        ChildLog::Raw => {
            let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(writer) = running.as_ref().map(|(_, writer)| writer.clone()) else {
                return LogForm::Lines;
            };
            LogForm::Raw(RawLog::new(move |bytes| {
                let _dropped_and_counted = writer.clone().write_all(bytes).is_err();
            }))
        }
    }
}

/// Whether colours are written to a terminal: not if `NO_COLOR` is set to a non-empty value (no-color.org) or
/// `TERM` is a terminal without colours.
fn takes_colours(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_none_or(|term| term != "dumb")
}

/// Writes the waiting lines. Lines logged later are dropped.
pub(crate) fn end() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((guard, writer)) = running {
        let counter = writer.queue.error_counter();
        drop(guard);
        let left_out = counter.dropped_lines().saturating_add(writer.waiting.dropped());
        if left_out > 0 {
            report("log_lines_dropped", &format!("dropped {left_out} log lines: stderr was read too slowly"));
        }
    }
}

/// Reports an error that ends the process, after the log and in its format, whatever its filter is.
pub(crate) fn complain(error: &dyn std::fmt::Display) {
    report("fatal_error", error);
}

fn report(event: &'static str, error: &dyn std::fmt::Display) {
    end();
    let text = if JSON.load(Ordering::Relaxed) {
        let mut timestamp = String::new();
        let _written = SystemTime.format_time(&mut Writer::new(&mut timestamp)).is_ok();
        let message = error.to_string();
        format!("{}\n", json!({"timestamp": timestamp, "level": "ERROR", "event": event, "message": message}))
    } else {
        format!("multilangd: {error}\n")
    };
    let (done, written) = std::sync::mpsc::channel();
    // There may be no reader of stderr. The thread is then abandoned, since the process ends.
    std::thread::spawn(move || {
        let _nobody_reads = std::io::stderr().write_all(text.as_bytes()).is_err();
        let _nobody_waits = done.send(()).is_err();
    });
    let _not_read_in_time = written.recv_timeout(LAST_WORDS).is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_dumb_terminals_disable_colours() {
        for (no_color, term, colours) in [
            (None, Some("xterm"), true),
            (None, None, true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (Some("0"), None, false),
            (None, Some("dumb"), false),
        ] {
            let given = takes_colours(no_color.map(OsString::from), term.map(OsString::from));
            assert_eq!(given, colours, "NO_COLOR={no_color:?} TERM={term:?}");
        }
    }
}
