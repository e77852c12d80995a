//! What a child prints, made fit for a log: cut, without control characters, and no more of it than a
//! log can bear.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use multilangd_protocol::Line;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::shard::ShardId;

/// A logged line is cut at this many bytes.
const MAX_SHOWN: usize = 4096;

/// Text for a log line: lossy, cut, without line ends and without control characters that would
/// steer a terminal.
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

/// Lines a second that one pipe of one child may put into the log for long.
const LINES_A_SECOND: f64 = 1_000.0;
/// Lines that it may put there at once.
const BURST: f64 = 5_000.0;

/// What one pipe of one child may put into the log.
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

    /// Whether one more line may be shown, and how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.duration_since(self.counted).as_secs_f64() * LINES_A_SECOND;
        self.lines = (self.lines + earned).min(BURST);
        self.counted = now;
        // After a gap as many lines as make it worth while, else each would tell of one left out.
        let needed = if self.left_out > 0 { LINES_A_SECOND / 10.0 } else { 1.0 };
        if self.lines < needed {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// One pipe of one child on its way into the log.
#[derive(Debug)]
pub struct Printed {
    shard: ShardId,
    pid: u32,
    pipe: &'static str,
    allowance: Allowance,
}

impl Printed {
    /// `pipe` is `stdout` or `stderr`.
    pub fn new(shard: ShardId, pid: u32, pipe: &'static str) -> Self {
        Self { shard, pid, pipe, allowance: Allowance::new(Instant::now()) }
    }

    /// One line.
    pub fn tell(&mut self, line: &Line) {
        let Some(left_out) = self.allowance.take(Instant::now()) else { return };
        self.tell_left_out(left_out);
        let text = match line {
            Line::Whole(bytes) => readable(bytes),
            Line::Cut { head, length } => format!("{} … ({length} bytes)", readable(head)),
        };
        info!(target: "child", shard = %self.shard, pid = self.pid, pipe = self.pipe, "{text}");
    }

    /// The pipe ended.
    pub fn end(&mut self) {
        let left_out = std::mem::take(&mut self.allowance.left_out);
        self.tell_left_out(left_out);
    }

    fn tell_left_out(&self, lines: u64) {
        if lines > 0 {
            warn!(target: "child", shard = %self.shard, pid = self.pid, pipe = self.pipe, lines,
                "lines were left out: the record processor prints more than the log takes");
        }
    }
}

/// How a process ended, in words.
pub fn exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_no_control_characters_and_a_bound() {
        assert_eq!(readable(b"a\x1b[31m\tb\xff\n"), "a\u{fffd}[31m\tb\u{fffd}");
        assert_eq!(readable(&[b'x'; MAX_SHOWN + 1]).len(), MAX_SHOWN + " … (4097 bytes)".len());
    }

    #[test]
    fn a_flood_is_shown_in_part_and_what_was_left_out_is_counted() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let shown = (0..20_000).filter(|_| allowance.take(start).is_some()).count();
        assert_eq!(shown, 5_000);
        let later = start + std::time::Duration::from_secs(1);
        let told: Vec<_> = (0..2_000).filter_map(|_| allowance.take(later)).collect();
        assert_eq!((told.len(), told[0], told[1]), (1_000, 15_000, 0));
        assert_eq!(allowance.left_out, 1_000);
    }

    #[test]
    fn an_end_is_told_as_code_or_signal() {
        assert_eq!(exit(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(exit(ExitStatus::from_raw(9)), "signal 9");
    }
}
