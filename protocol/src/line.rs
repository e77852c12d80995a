//! Cuts the bytes of a pipe into lines, as Java's `BufferedReader.readLine` does: `\n`, `\r\n` and
//! a lone `\r` each end a line, and a last line without an end counts when the pipe closes.
//!
//! A line has a bound. What goes past it is counted and thrown away, so that a child that never
//! ends a line can't fill the daemon's memory.

/// Lines longer than this many bytes are cut. Java's JSON reader refuses strings over 20,000,000
/// characters, so no message of any length that Java takes is lost by it.
pub const MAX_LINE: usize = 20 * 1024 * 1024;

/// One line of the child, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line within the bound. Not necessarily UTF-8.
    Whole(Vec<u8>),
    /// A line past the bound: its first bytes and its whole length in bytes. Never a message.
    Cut {
        /// The first bytes, at most 1,024.
        head: Vec<u8>,
        /// How long the line was, without its end.
        length: usize,
    },
}

/// Turns chunks of bytes into [`Line`]s.
#[derive(Debug)]
pub struct LineSplitter {
    line: Vec<u8>,
    /// Bytes of the present line that were thrown away.
    dropped: usize,
    /// The last byte was `\r`: a `\n` that follows belongs to it.
    after_cr: bool,
    /// Bytes kept of a line.
    limit: usize,
}

impl Default for LineSplitter {
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl LineSplitter {
    /// A splitter whose lines are cut at `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), dropped: 0, after_cr: false, limit }
    }

    /// Takes the next bytes and appends the lines that they complete to `out`.
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

    /// The pipe is closed: what was left without an end is a line too.
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
    fn every_line_end_of_java_ends_a_line() {
        let lines = split(&[b"a\nb\r\nc\rd"]);
        assert_eq!(lines, [whole("a"), whole("b"), whole("c"), whole("d")]);
    }

    #[test]
    fn a_line_end_cut_in_two_is_one_line_end() {
        assert_eq!(split(&[b"a\r", b"\nb\n"]), [whole("a"), whole("b")]);
        assert_eq!(split(&[b"a\r", b"", b"\n\n"]), [whole("a"), whole("")]);
    }

    #[test]
    fn a_line_past_the_bound_is_cut_and_the_next_is_whole() {
        let mut splitter = LineSplitter::new(4);
        let mut out = Vec::new();
        splitter.push(b"abcdefgh\nxy\n", &mut out);
        assert_eq!(out, [Line::Cut { head: b"abcd".to_vec(), length: 8 }, whole("xy")]);
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..60), cut in 0usize..60) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(split(&[&bytes]), split(&[&bytes[..cut], &bytes[cut..]]));
        }
    }
}
