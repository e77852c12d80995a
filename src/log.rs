//! Where log lines go: to stderr, through a thread of their own. A reader of stderr that is slow, or gone,
//! holds nobody up: lines that find no room are left out and counted. What the process has to say about
//! its own end goes past all that.

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use multilangd::config::keys::own;
use multilangd::config::settings::Settings;
use serde_json::json;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

mod line;

use line::Lines;

/// Lines that may wait for a slow reader.
const WAITING: usize = 8192;

/// For each of the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Dropping the guard writes what waits, for a second at most.
static RUNNING: Mutex<Option<(WorkerGuard, ErrorCounter)>> = Mutex::new(None);

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Ours and the children's from INFO up, the SDK's from WARN, unless RUST_LOG or `multilangd.log` says
/// otherwise.
///
/// # Errors
/// The filter isn't one.
pub(crate) fn start(settings: &Settings) -> Result<(), String> {
    let directives = settings.text(own::LOG).unwrap_or_default();
    // Empty, as environment files often have it, is as good as not there.
    let (name, directives) = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(given) if !given.trim().is_empty() => (EnvFilter::DEFAULT_ENV, given),
        _ => (own::LOG, directives),
    };
    // Whoever asks for something gets it all.
    let is_default = own::KEYS.iter().any(|key| key.name == name && key.default == directives);
    let quiet = if is_default { &format!("dynoxide=error,{},", multilangd::aws::QUIET) } else { "" };
    let filter = EnvFilter::try_new(format!("{quiet}{directives}"))
        .map_err(|error| format!("{name} = {directives:?} is not a log filter: {error}"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .thread_name("log")
        .finish(std::io::stderr());
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some((guard, writer.error_counter()));
    let json = settings.text(own::LOG_FORMAT).as_deref() == Some("json");
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

/// Whether a terminal is to be given colours: not with `NO_COLOR` set to anything but nothing (no-color.org), and not if
/// `TERM` says that it knows none.
fn takes_colours(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_none_or(|term| term != "dumb")
}

/// Writes what waits. Lines logged later are lost.
pub(crate) fn end() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((guard, counter)) = running {
        drop(guard);
        let left_out = counter.dropped_lines();
        if left_out > 0 {
            complain(&format!("dropped {left_out} log lines: stderr was read too slowly"));
        }
    }
}

/// A fault that ends the process, on stderr behind the log and in its format, whatever its level is.
pub(crate) fn complain(error: &dyn std::fmt::Display) {
    end();
    let text = if JSON.load(Ordering::Relaxed) {
        let mut timestamp = String::new();
        let _written = SystemTime.format_time(&mut Writer::new(&mut timestamp)).is_ok();
        let message = error.to_string();
        format!("{}\n", json!({"timestamp": timestamp, "level": "ERROR", "message": message}))
    } else {
        format!("multilangd: {error}\n")
    };
    let (done, written) = std::sync::mpsc::channel();
    // Nobody may read stderr. The thread is left behind then: the process ends.
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
    fn no_color_and_a_dumb_terminal_get_no_colours() {
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
