//! Child output for the log: cut, without control characters, and rate-limited.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use multilangd_protocol::{Line, Noise};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::shard::ShardId;

/// Most bytes of a logged line.
const MAX_SHOWN: usize = 4096;

/// Text for a log line: lossily decoded, cut, without line ends and without control characters that would
/// affect a terminal.
pub fn readable(bytes: &[u8]) -> String {
    let cut = bytes.len() > MAX_SHOWN;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SHOWN)]);
    let mut out: String = text
        .trim_end()
        .chars()
        .map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if cut {
        out.push_str(&format!(" … ({} bytes)", bytes.len()));
    }
    out
}

/// Sustained rate of lines that one pipe of one child may log.
const LINES_A_SECOND: f64 = 1_000.0;
/// Most lines that one pipe may log at once.
const BURST: f64 = 5_000.0;

/// The rate limit of one pipe of one child.
#[derive(Debug)]
struct Allowance {
    lines: f64,
    counted: Instant,
    left_out: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { lines: BURST, counted: now, left_out: 0 }
    }

    /// Takes a line of this many bytes from the allowance. Returns the number of lines dropped before it; none if it
    /// must be dropped. A longer line than [`MAX_SHOWN`] counts as several, so that the bytes are limited too.
    fn take(&mut self, now: Instant, bytes: usize) -> Option<u64> {
        let earned = now.duration_since(self.counted).as_secs_f64() * LINES_A_SECOND;
        self.lines = (self.lines + earned).min(BURST);
        self.counted = now;
        // After lines were dropped, a tenth of a second's lines must be available, so that not every line is
        // followed by a report of one dropped line.
        let charge = u32::try_from(bytes.div_ceil(MAX_SHOWN)).map_or(BURST, f64::from).clamp(1.0, BURST);
        let needed = if self.left_out > 0 { charge.max(LINES_A_SECOND / 10.0) } else { charge };
        if self.lines < needed {
            self.left_out += 1;
            return None;
        }
        self.lines -= charge;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Lines of stderr that are kept for each child, and characters of each.
const KEPT: (usize, usize) = (20, 500);

/// The last lines that a child wrote to stderr.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: CancellationToken,
}

impl Tail {
    /// The tail of a child without stderr.
    pub fn closed() -> Self {
        let tail = Self::default();
        tail.end();
        tail
    }

    /// The last lines, in order.
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// Whether stderr was read to its end.
    pub fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until stderr was read to its end. Cancel-safe.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn push(&self, line: &str) {
        let (lines, characters) = KEPT;
        if line.trim().is_empty() {
            return;
        }
        let mut kept = self.lock();
        if kept.len() == lines {
            kept.pop_front();
        }
        kept.push_back(line.chars().take(characters).collect());
    }

    fn end(&self) {
        self.ended.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines on stdout that are kept as examples of those that are no messages, and characters of each.
const EXAMPLES: (usize, usize) = (5, 200);

/// The lines on a child's stdout that were no messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strays {
    /// Their number.
    pub lines: u64,
    /// The first ones, cut.
    pub first: Vec<(String, Noise)>,
}

impl Strays {
    /// Counts a line.
    pub fn note(&mut self, line: &Line, noise: Noise) {
        let (examples, characters) = EXAMPLES;
        self.lines += 1;
        if self.first.len() < examples {
            let (Line::Whole(bytes) | Line::Cut { head: bytes, .. }) = line;
            self.first.push((readable(bytes).chars().take(characters).collect(), noise));
        }
    }
}

/// The form in which the output of children is logged (`multilangd.childLog`).
#[derive(Debug, Clone, Default)]
pub enum LogForm {
    /// Each line is a log entry.
    #[default]
    Lines,
    /// A line that is a JSON object is an entry whose message is the object, with the field [`OBJECT`].
    Json,
    /// Bytes without entries.
    Raw(RawLog),
}

/// The field of an entry whose message is a JSON object to be merged into the entry.
pub const OBJECT: &str = "object";

/// A log for bytes. Must not block.
#[derive(Clone)]
pub struct RawLog(Arc<WriteBytes>);

type WriteBytes = dyn Fn(&[u8]) + Send + Sync;

impl RawLog {
    /// A log that `write` writes.
    pub fn new(write: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl std::fmt::Debug for RawLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawLog")
    }
}

/// Most bytes of an unfinished raw line that are held: lines of several children are not mixed up to this length.
const HELD: usize = 64 * 1024;

/// Complete lines of raw output, with their ends.
#[derive(Debug, Default)]
struct Held(Vec<u8>);

impl Held {
    /// Adds bytes and returns what can be written: complete lines, or everything that exceeds [`HELD`].
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let end = match memchr::memrchr(b'\n', &self.0) {
            Some(at) => at + 1,
            None if self.0.len() > HELD => self.0.len(),
            None => 0,
        };
        self.0.drain(..end).collect()
    }

    /// The last line. It gets an end, so that it does not run into the next entry.
    fn finish(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.0);
        if !rest.is_empty() {
            rest.push(b'\n');
        }
        rest
    }
}

/// Logs the lines of one pipe of one child.
#[derive(Debug)]
pub struct Printed {
    shard: ShardId,
    pid: u32,
    pipe: &'static str,
    allowance: Allowance,
    tail: Option<Tail>,
    form: LogForm,
    held: Held,
}

impl Printed {
    /// `pipe` is `stdout` or `stderr`.
    pub fn new(shard: ShardId, pid: u32, pipe: &'static str, form: LogForm) -> Self {
        let allowance = Allowance::new(Instant::now());
        Self { shard, pid, pipe, allowance, tail: None, form, held: Held::default() }
    }

    /// Keeps the last lines in `tail`.
    #[must_use]
    pub fn keeping(self, tail: Tail) -> Self {
        Self { tail: Some(tail), ..self }
    }

    /// Logs bytes that are not split into lines yet, if that is the form. The lines follow by [`Printed::log`], which
    /// then only keeps them.
    pub fn pass(&mut self, bytes: &[u8]) {
        let LogForm::Raw(log) = &self.form else { return };
        let log = log.clone();
        let ready = self.held.push(bytes);
        self.write(&log, &ready);
    }

    /// Writes raw lines, within the rate limit and unless the filter of the log excludes them.
    fn write(&mut self, log: &RawLog, lines: &[u8]) {
        if lines.is_empty() || !tracing::enabled!(target: "child", tracing::Level::INFO) {
            return;
        }
        let now = Instant::now();
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if let Some(left_out) = self.allowance.take(now, line.len()) {
                self.log_dropped(left_out);
                out.extend_from_slice(line);
            }
        }
        if !out.is_empty() {
            (log.0)(&out);
        }
    }

    /// A line of stdout, raw.
    fn write_line(&mut self, log: &RawLog, line: &Line) {
        let (Line::Whole(bytes) | Line::Cut { head: bytes, .. }) = line;
        self.write(log, &[bytes, &b"\n"[..]].concat());
    }

    /// Logs a line, within the rate limit.
    pub fn log(&mut self, line: &Line) {
        if let LogForm::Raw(log) = &self.form {
            let log = log.clone();
            match &self.tail {
                Some(tail) => tail.push(&shown(line)),
                None => self.write_line(&log, line),
            }
            return;
        }
        let bytes = match (&self.form, line) {
            (LogForm::Json, Line::Whole(bytes)) => bytes.len(),
            // Other lines are cut.
            _ => 0,
        };
        let left_out = self.allowance.take(Instant::now(), bytes);
        if left_out.is_none() && self.tail.is_none() {
            return;
        }
        let text = shown(line);
        if let Some(tail) = &self.tail {
            tail.push(&text);
        }
        let Some(left_out) = left_out else { return };
        self.log_dropped(left_out);
        if let (LogForm::Json, Some(object)) = (&self.form, object(line)) {
            info!(target: "child", shard = %self.shard, pid = self.pid, pipe = self.pipe, object = true, "{object}");
            return;
        }
        info!(target: "child", shard = %self.shard, pid = self.pid, pipe = self.pipe, "{text}");
    }

    /// The length at which lines are cut, in bytes.
    pub fn longest(&self) -> usize {
        match self.form {
            LogForm::Lines | LogForm::Raw(_) => 8 * 1024,
            LogForm::Json => HELD,
        }
    }

    /// Notes the end of the pipe.
    pub fn end(&mut self) {
        if let LogForm::Raw(log) = &self.form {
            let (log, rest) = (log.clone(), self.held.finish());
            self.write(&log, &rest);
        }
        let left_out = std::mem::take(&mut self.allowance.left_out);
        self.log_dropped(left_out);
        if let Some(tail) = &self.tail {
            tail.end();
        }
    }

    fn log_dropped(&self, lines: u64) {
        if lines > 0 {
            warn!(target: "child", event = "child_output_dropped",
                shard = %self.shard, pid = self.pid, pipe = self.pipe, lines,
                "dropped output of the record processor: it exceeds the rate limit of the log");
        }
    }
}

fn shown(line: &Line) -> String {
    match line {
        Line::Whole(bytes) => readable(bytes),
        Line::Cut { head, length } => format!("{} … ({length} bytes)", readable(head)),
    }
}

/// The text of a line that is a JSON object.
fn object(line: &Line) -> Option<&str> {
    let Line::Whole(bytes) = line else { return None };
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let is_object = text.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    is_object.then_some(text)
}

/// The description of a process that ended without an error.
pub const EXIT_0: &str = "exit code 0";

/// Describes how a process ended.
pub fn exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown exit status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_removes_control_characters_and_cuts() {
        assert_eq!(readable(b"a\x1b[31m\tb\xff\n"), "a\u{fffd}[31m\tb\u{fffd}");
        assert_eq!(readable(&[b'x'; MAX_SHOWN + 1]).len(), MAX_SHOWN + " … (4097 bytes)".len());
    }

    #[test]
    fn flood_is_rate_limited_and_dropped_lines_are_counted() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let shown = (0..20_000).filter(|_| allowance.take(start, 0).is_some()).count();
        assert_eq!(shown, 5_000);
        let later = start + std::time::Duration::from_secs(1);
        let dropped: Vec<_> = (0..2_000).filter_map(|_| allowance.take(later, MAX_SHOWN)).collect();
        assert_eq!((dropped.len(), dropped[0], dropped[1]), (1_000, 15_000, 0));
        assert_eq!(allowance.left_out, 1_000);
    }

    #[test]
    fn long_lines_take_more_of_the_rate_limit() {
        let start = Instant::now();
        let taken = |bytes| {
            let mut allowance = Allowance::new(start);
            (0..20_000).filter(|_| allowance.take(start, bytes).is_some()).count()
        };
        assert_eq!([0, MAX_SHOWN, MAX_SHOWN + 1, HELD].map(taken), [5_000, 5_000, 2_500, 312]);
        assert_eq!(taken(usize::MAX), 1, "a line of any length can be logged");
    }

    #[test]
    fn raw_lines_are_charged_by_their_bytes() {
        let written = Arc::new(Mutex::new(0));
        let count = written.clone();
        let log = RawLog::new(move |bytes| *count.lock().unwrap() += bytes.len());
        let mut printed = Printed::new("s".into(), 1, "stderr", LogForm::Raw(log.clone()));
        let subscriber = tracing_subscriber::registry();
        let began = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            let line = [vec![b'x'; HELD - 1], b"\n".to_vec()].concat();
            (0..1_000).for_each(|_| printed.pass(&line));
        });
        let written = *written.lock().unwrap();
        // As much as full lines in the form `lines`, and what is earned meanwhile.
        let lines = BURST + LINES_A_SECOND * began.elapsed().as_secs_f64();
        let most = lines * f64::from(u32::try_from(MAX_SHOWN).unwrap());
        let written = f64::from(u32::try_from(written).unwrap());
        assert!(written >= 65_536.0 && written <= most + 65_536.0, "{written} of {most}");
    }

    #[test]
    fn tail_keeps_the_last_lines_cut_without_blank_ones() {
        let tail = Tail::default();
        let mut printed = Printed::new("s".into(), 1, "stderr", LogForm::Lines).keeping(tail.clone());
        for n in 0..30 {
            printed.log(&Line::Whole(format!("line {n}").into_bytes()));
            printed.log(&Line::Whole(b"  ".to_vec()));
        }
        printed.log(&Line::Whole(vec![b'x'; 9_000]));
        assert!(!tail.is_ended());
        printed.end();
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].len()), (20, "line 11", 500));
        assert!(tail.is_ended());
    }

    #[test]
    fn strays_keep_the_first_lines_cut_and_count_all() {
        let mut strays = Strays::default();
        for n in 0..9 {
            strays.note(&Line::Whole(format!("{n}{}", "x".repeat(300)).into_bytes()), Noise::NotAnObject);
        }
        assert_eq!((strays.lines, strays.first.len(), strays.first[4].0.len()), (9, 5, 200));
    }

    #[test]
    fn raw_output_is_passed_in_complete_lines() {
        let mut held = Held::default();
        assert_eq!(held.push(b"a\xffb"), b"");
        assert_eq!(held.push(b"c\n\x1b[0m\r\nd"), b"a\xffbc\n\x1b[0m\r\n");
        assert_eq!(held.finish(), b"d\n");
        assert_eq!(held.finish(), b"");
        assert_eq!(
            held.push(&vec![b'x'; HELD + 1]).len(),
            HELD + 1,
            "a line of any length needs bounded memory"
        );
    }

    #[test]
    fn only_a_complete_json_object_is_one() {
        let whole = |text: &str| object(&Line::Whole(text.as_bytes().to_vec())).map(str::to_owned);
        assert_eq!(whole(" {\"a\":1} "), Some("{\"a\":1}".to_owned()));
        for text in ["", "{", "[1]", "1", "{\"a\":1} x", "{\"a\":1}{}"] {
            assert_eq!(whole(text), None, "{text}");
        }
        assert_eq!(object(&Line::Cut { head: b"{}".to_vec(), length: 9 }), None);
    }

    #[test]
    fn exit_is_described_by_code_or_signal() {
        assert_eq!(exit(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(exit(ExitStatus::from_raw(9)), "signal 9");
        assert_eq!(exit(ExitStatus::from_raw(0)), EXIT_0);
    }
}
