//! Reads a child's stderr: logs its lines, and counts the texts by which the child reports errors.

use memchr::memmem::Finder;
use multilangd_protocol::{Line, LineSplitter};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};

use super::output::Printed;

/// Most bytes that are read at once to be up to date: the largest pipe that a process may have without
/// privileges.
const PIPE: usize = 1 << 20;

/// Counts the occurrences of a text within lines, in chunks of any size.
#[derive(Debug)]
pub(super) struct Reported {
    text: Option<Finder<'static>>,
    /// The end of the chunks so far, in which the text may have begun.
    end: Vec<u8>,
    count: u64,
}

impl Reported {
    /// Counts nothing without a text.
    pub(super) fn new(text: Option<&str>) -> Self {
        let text = text.filter(|text| !text.is_empty()).map(|text| Finder::new(text).into_owned());
        Self { text, end: Vec::new(), count: 0 }
    }

    fn push(&mut self, chunk: &[u8]) {
        let Some(text) = &self.text else { return };
        self.end.extend_from_slice(chunk);
        let mut from = 0;
        while let Some(at) = self.end.get(from..).and_then(|rest| text.find(rest)) {
            self.count += 1;
            from += at + text.needle().len();
        }
        let kept = self.end.len().saturating_sub(text.needle().len() - 1).max(from);
        self.end.drain(..kept);
    }
}

/// A pipe that can be read without waiting.
pub(super) trait Pipe: tokio::io::AsyncRead + Unpin + std::os::fd::AsFd + Send {}

impl<P: tokio::io::AsyncRead + Unpin + std::os::fd::AsFd + Send> Pipe for P {}

/// Logs the lines until the pipe ends. For each of `syncs` it first reads all that is in the pipe, and then
/// replies with the number of errors so far.
pub(super) async fn log_lines(
    mut stderr: impl Pipe,
    mut printed: Printed,
    mut reported: Reported,
    mut syncs: mpsc::Receiver<oneshot::Sender<u64>>,
) {
    // Only the first bytes of a line are logged, so no more of it is kept; a JSON object is logged as a whole.
    let mut splitter = LineSplitter::new(printed.longest());
    let mut buffer = vec![0; 2 * 1024];
    let mut out = Vec::new();
    let mut take = |chunk: &[u8], reported: &mut Reported, printed: &mut Printed| {
        reported.push(chunk);
        printed.pass(chunk);
        splitter.push(chunk, &mut out);
        out.drain(..).for_each(|line: Line| printed.log(&line));
    };
    loop {
        tokio::select! {
            biased;
            Some(reply) = syncs.recv() => {
                let mut left = PIPE;
                // The runtime may not know yet that the pipe can be read, so the pipe itself is asked.
                while let Ok(count @ 1..) = rustix::io::read(&stderr, &mut buffer[..]) {
                    take(&buffer[..count], &mut reported, &mut printed);
                    left = left.saturating_sub(count);
                    if left == 0 {
                        break;
                    }
                }
                let _child_is_gone = reply.send(reported.count).is_err();
            }
            read = stderr.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => take(&buffer[..count], &mut reported, &mut printed),
            },
        }
    }
    splitter.finish().iter().for_each(|line| printed.log(line));
    printed.end();
    // The child may answer after it closed its stderr.
    while let Some(reply) = syncs.recv().await {
        let _child_is_gone = reply.send(reported.count).is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::output::{LogForm, Tail};
    use super::*;

    #[test]
    fn text_is_counted_across_chunks_once() {
        let all = b"xCaught: aCaught: CauCaught: b\nCaught:";
        for size in 1..=all.len() {
            let mut reported = Reported::new(Some("Caught: "));
            all.chunks(size).for_each(|chunk| reported.push(chunk));
            assert_eq!(reported.count, 3, "chunks of {size}");
            assert!(reported.end.len() < 8);
        }
        let mut nothing = Reported::new(None);
        nothing.push(all);
        assert_eq!((nothing.count, nothing.end.len()), (0, 0));
    }

    #[tokio::test]
    async fn sync_counts_all_that_was_written_before_it() {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let pipe = tokio::net::UnixStream::from_std(theirs).unwrap();
        let (syncs, requests) = mpsc::channel(1);
        let printed = Printed::new("s".into(), 1, "stderr", LogForm::default()).keeping(Tail::default());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(log_lines(pipe, printed, Reported::new(Some("bad")), requests));
        for round in 1..=50 {
            // Nothing else runs between the write and the request.
            ours.write_all(b"text\nbad: 1\n").unwrap();
            let (reply, count) = oneshot::channel();
            syncs.send(reply).await.unwrap();
            assert_eq!(count.await.unwrap(), round);
        }
        drop(ours);
        drop(syncs);
        tasks.join_next().await.unwrap().unwrap();
    }
}
