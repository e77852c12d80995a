//! What a child prints, made fit for a log.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

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
    fn an_end_is_told_as_code_or_signal() {
        assert_eq!(exit(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(exit(ExitStatus::from_raw(9)), "signal 9");
    }
}
