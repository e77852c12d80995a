//! Splits the bytes of a pipe into lines, as Java's `BufferedReader.readLine` does: `\n`, `\r\n` and a lone
//! `\r` each end a line, and an unterminated last line counts when the pipe closes.
//!
//! The length of a line is bounded. Bytes beyond the bound are counted and dropped, so that a child that never
//! ends a line cannot exhaust the daemon's memory.

/// Maximum length of a line, in bytes; longer lines are cut. Java's JSON reader rejects strings of more than
/// 20,000,000 characters, so no message that Java accepts is cut.
pub const MAX_LINE: usize = 20 * 1024 * 1024;

/// One line from the child, without its terminator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line within the bound, not necessarily UTF-8.
    Whole(Vec<u8>),
    /// A line beyond the bound. Never a message.
    Cut {
        /// The first bytes, at most 1,024.
        head: Vec<u8>,
        /// Length of the whole line in bytes, without its terminator.
        length: usize,
    },
}

/// Converts chunks of bytes into [`Line`]s.
#[derive(Debug)]
pub struct LineSplitter {
    line: Vec<u8>,
    /// Bytes of the current line that were dropped.
    dropped: usize,
    /// Whether the last byte was `\r`: a `\n` that follows belongs to the same terminator.
    after_cr: bool,
    /// Maximum number of bytes kept of a line.
    limit: usize,
}

impl Default for LineSplitter {
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl LineSplitter {
    /// Creates a splitter that cuts lines at `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), dropped: 0, after_cr: false, limit }
    }

    /// Processes the next bytes and appends the lines that they complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Line>) {
        if let ([first, rest @ ..], true) = (bytes, self.after_cr) {
            self.after_cr = false;
            if *first == b'\n' {
                bytes = rest;
            }
        }
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (head, tail) = bytes.split_at(end);
            self.keep(head);
            out.push(self.take());
            bytes = match tail {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => &[],
            };
        }
        self.keep(bytes);
    }

    /// Returns the unterminated last line, if any. Call it when the pipe is closed.
    pub fn finish(&mut self) -> Option<Line> {
        (!self.line.is_empty() || self.dropped > 0).then(|| self.take())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.dropped += bytes.len() - room;
    }

    fn take(&mut self) -> Line {
        let mut line = std::mem::take(&mut self.line);
        let dropped = std::mem::take(&mut self.dropped);
        if dropped == 0 {
            return Line::Whole(line);
        }
        let length = line.len() + dropped;
        line.truncate(1024);
        Line::Cut { head: line, length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    fn split(chunks: &[&[u8]]) -> Vec<Line> {
        let mut splitter = LineSplitter::default();
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, &mut out);
        }
        out.extend(splitter.finish());
        out
    }

    #[test]
    fn all_line_terminators_of_java_end_a_line() {
        let lines = split(&[b"a\nb\r\nc\rd"]);
        assert_eq!(lines, [whole("a"), whole("b"), whole("c"), whole("d")]);
    }

    #[test]
    fn crlf_across_two_chunks_is_one_terminator() {
        assert_eq!(split(&[b"a\r", b"\nb\n"]), [whole("a"), whole("b")]);
        assert_eq!(split(&[b"a\r", b"", b"\n\n"]), [whole("a"), whole("")]);
    }

    #[test]
    fn line_beyond_the_bound_is_cut_next_is_whole() {
        let mut splitter = LineSplitter::new(4);
        let mut out = Vec::new();
        splitter.push(b"abcdefgh\nxy\n", &mut out);
        assert_eq!(out, [Line::Cut { head: b"abcd".to_vec(), length: 8 }, whole("xy")]);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_chunking(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..60), cut in 0usize..60) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(split(&[&bytes]), split(&[&bytes[..cut], &bytes[cut..]]));
        }
    }
}
