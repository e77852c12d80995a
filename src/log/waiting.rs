//! Bounds the log lines that wait for a slow reader of stderr, by number and by bytes: raw lines of record processors have
//! up to 64 KiB each. A line that does not fit is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_subscriber::fmt::MakeWriter;

/// Most lines and most bytes that wait.
pub(super) const LIMITS: (usize, usize) = (8_000, 32 << 20);

/// The lines that wait, and those that were dropped.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    dropped: AtomicUsize,
}

impl Waiting {
    /// Whether a line of this many bytes may wait; counts it if so. A line alone always may.
    fn admit(&self, bytes: usize, (most_lines, most_bytes): (usize, usize)) -> bool {
        let lines = self.lines.fetch_add(1, Ordering::AcqRel);
        let waiting = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let fits = lines < most_lines && (lines == 0 || waiting.saturating_add(bytes) <= most_bytes);
        if !fits {
            self.left(bytes);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn left(&self, bytes: usize) {
        self.lines.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// The number of lines that were dropped.
    pub(super) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The front of a queue: admits lines. Each write is one line.
#[derive(Debug, Clone)]
pub(super) struct Front<W> {
    pub(super) queue: W,
    pub(super) waiting: Arc<Waiting>,
}

impl<W: Write> Write for Front<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !line.is_empty() && self.waiting.admit(line.len(), LIMITS) {
            self.queue.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush()
    }
}

impl<'a, W: Write + Clone + 'a> MakeWriter<'a> for Front<W> {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The back of the queue: each write is a line that no longer waits once it is written, or could not be.
#[derive(Debug)]
pub(super) struct Back<W> {
    pub(super) to: W,
    pub(super) waiting: Arc<Waiting>,
}

impl<W: Write> Write for Back<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.to.write_all(line);
        self.waiting.left(line.len());
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_up_to_a_number_and_to_their_bytes() {
        let waiting = Waiting::default();
        assert!(waiting.admit(500, (3, 100)), "a line alone");
        assert!(!waiting.admit(1, (3, 100)));
        waiting.left(500);
        let admitted: Vec<bool> = [60, 41, 40, 0, 0].map(|bytes| waiting.admit(bytes, (3, 100))).to_vec();
        assert_eq!((admitted, waiting.dropped()), (vec![true, false, true, true, false], 3));
    }

    #[test]
    fn written_lines_make_room() {
        let waiting = Arc::new(Waiting::default());
        let mut front = Front { queue: Vec::new(), waiting: waiting.clone() };
        front.write_all(b"one\n").unwrap();
        front.write_all(b"").unwrap();
        assert_eq!((waiting.lines.load(Ordering::Relaxed), waiting.bytes.load(Ordering::Relaxed)), (1, 4));
        let mut back = Back { to: Vec::new(), waiting: waiting.clone() };
        back.write_all(&front.queue).unwrap();
        assert_eq!((back.to, waiting.lines.load(Ordering::Relaxed)), (b"one\n".to_vec(), 0));
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), 0);
    }
}
