//! `multilangd replay`: gives dead letters to a record processor, without a lease.
//!
//! Each record is a batch of its own, so that a record that fails again does not affect the others. Checkpoints
//! are acknowledged and dropped. The file of letters is only read; letters that fail again are appended to a
//! new file, each on the disk before the next record is delivered.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use multilangd_protocol::{CheckpointRequest, Dialect, ToChild, session};
use tokio::time::{Instant, timeout};

use crate::batch::Records;
use crate::clock;
use crate::letters::{self, Failure, Letter, file};
use crate::multilang::{Child, Event, ForShard, Launch, Stop};
use crate::sequence::{Position, Sequence};

/// Most files of letters that failed again, of one file of letters.
const FILES: u32 = 1_000;

/// How record processors are run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The names of the protocol's messages.
    pub dialect: Dialect,
    /// `timeoutInSeconds`: time for each message of the child.
    pub answer: Option<Duration>,
    /// From the end of the child's stdin to SIGTERM.
    pub exit_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub kill_grace: Duration,
}

/// The result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of records that were processed.
    pub processed: usize,
    /// Number of records that failed again.
    pub failed: usize,
    /// The file of the letters that failed again.
    pub file: Option<PathBuf>,
}

/// Gives the letters to record processors, one for each row of letters of one lease, in order. `progress`
/// receives each letter and why it failed again, if it did.
///
/// # Errors
/// The file of letters that failed again cannot be written: the record of the last letter is not processed.
pub async fn replay(
    letters: Vec<Letter>,
    program: &dyn Launch,
    settings: Settings,
    path: &Path,
    mut progress: impl FnMut(&Letter, Option<&str>),
) -> io::Result<Report> {
    let (mut report, mut again) = (Report::default(), Again { of: path, file: None });
    let mut left = letters.into_iter().peekable();
    while let Some(letter) = left.next() {
        let mut runner = Runner { program, settings, child: None, delivered: Vec::new() };
        let lease = letter.lease.clone();
        let mut next = Some(letter);
        while let Some(letter) = next {
            match runner.process(letter).await {
                Ok(()) => {
                    if let Some(answered) = runner.delivered.last() {
                        progress(&answered.letter, None);
                    }
                }
                Err(failure) => {
                    runner.end().await;
                    let failed = runner.delivered.pop();
                    // Records that the record processor collected are lost with it.
                    report.processed += runner.forget_checkpointed();
                    let reason =
                        format!("answered, but its record processor failed later: {}", failure.reason);
                    let collected = Failure { reason, ..failure.clone() };
                    let collected = runner.delivered.drain(..).map(|one| (one, collected.clone()));
                    for (Delivered { letter, .. }, failure) in
                        collected.chain(failed.map(|one| (one, failure)))
                    {
                        progress(&letter, Some(&failure.reason));
                        again.write(letter, failure)?;
                        report.failed += 1;
                    }
                }
            }
            next = left.next_if(|next| next.lease == lease);
        }
        // A record processor may process what it collected only now.
        let finished = runner.finish().await;
        report.processed += runner.forget_checkpointed();
        match finished {
            Ok(()) => report.processed += runner.delivered.len(),
            Err(failure) => {
                for Delivered { letter, .. } in runner.delivered {
                    progress(&letter, Some(&failure.reason));
                    again.write(letter, failure.clone())?;
                    report.failed += 1;
                }
            }
        }
    }
    report.file = again.file.map(|(path, _)| path);
    Ok(report)
}

/// The file of the letters that failed again, created with the first of them.
struct Again<'a> {
    of: &'a Path,
    file: Option<(PathBuf, File)>,
}

impl Again<'_> {
    fn write(&mut self, mut letter: Letter, failure: Failure) -> io::Result<()> {
        letter.at = failure.at;
        letter.attempts = letter.attempts.saturating_add(1);
        letters::note_failure(&mut letter.failures, failure);
        let (path, file) = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(self.of)?),
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        file.write_all(&letter.line()).and_then(|()| file.sync_all()).map_err(named)
    }
}

/// Creates a file beside `of` that did not exist.
fn create(of: &Path) -> io::Result<(PathBuf, File)> {
    let stem = of.file_stem().unwrap_or_default().to_string_lossy();
    for number in 1..=FILES {
        let path = of.with_file_name(format!("{stem}.failed-{number}.jsonl"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                file::sync_folder(&path)?;
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        }
    }
    Err(io::Error::other(format!("{FILES} files of letters of {stem} that failed again exist")))
}

/// A letter that was delivered to the present child.
struct Delivered {
    letter: Letter,
    is_answered: bool,
    /// Whether the child has checkpointed the record: it is processed, even if the child fails.
    is_checkpointed: bool,
}

/// Marks the records that a checkpoint covers. Without a sequence number it covers all that were delivered. An
/// invalid position covers none. An `early` request was sent before the record of the open action was delivered.
fn checkpointed(delivered: &mut [Delivered], request: &CheckpointRequest, early: bool) {
    let up_to = match &request.sequence_number {
        None => None,
        Some(text) => match Sequence::parse(text) {
            Some(sequence @ Sequence::Number(_)) => {
                let Ok(sub) = u64::try_from(request.sub_sequence_number.unwrap_or_default()) else { return };
                Some(Position { sub, ..Position::new(sequence) })
            }
            _ => return,
        },
    };
    for one in delivered.iter_mut().filter(|one| one.is_answered || !early) {
        one.is_checkpointed |=
            up_to.as_ref().is_none_or(|up_to| one.letter.record.position().order(up_to).is_le());
    }
}

struct Runner<'a> {
    program: &'a dyn Launch,
    settings: Settings,
    child: Option<Child>,
    /// In the order of their delivery.
    delivered: Vec<Delivered>,
}

impl Runner<'_> {
    /// Delivers the letter, which is the last of the delivered ones then, also if that fails.
    async fn process(&mut self, letter: Letter) -> Result<(), Failure> {
        let start = ForShard { stream_arn: letter.stream.clone(), ..ForShard::of(&letter.lease) };
        let (shard, record) = (letter.lease.shard().clone(), letter.record.clone());
        self.delivered.push(Delivered { letter, is_answered: false, is_checkpointed: false });
        if self.child.is_none() {
            let child = Child::spawn(self.program, self.settings.dialect, &start).await;
            self.child = Some(child.map_err(|error| self.failure(error.to_string()))?);
            let initialize = ToChild::Initialize {
                shard_id: shard.as_str(),
                sequence_number: Some("TRIM_HORIZON"),
                sub_sequence_number: Some(0),
            };
            self.ask(|child| child.send(&initialize)).await?;
            // A checkpoint during `initialize` covers no record.
            self.delivered.iter_mut().for_each(|one| one.is_checkpointed = false);
        }
        let records = Records::Decoded(vec![record]);
        self.ask(|child| child.send_batch(records, Some(0))).await?;
        self.delivered.iter_mut().for_each(|one| one.is_answered = true);
        Ok(())
    }

    /// Removes the records that the child has checkpointed, and returns their number.
    fn forget_checkpointed(&mut self) -> usize {
        let before = self.delivered.len();
        self.delivered.retain(|one| !one.is_checkpointed);
        before - self.delivered.len()
    }

    /// Asks the child to shut down, which is its last chance to process and checkpoint.
    async fn finish(&mut self) -> Result<(), Failure> {
        if self.child.is_none() {
            return Ok(());
        }
        let asked = self.ask(|child| child.send(&ToChild::ShutdownRequested)).await;
        if asked.is_ok() {
            let _too_late = self.ask(|child| child.send(&ToChild::LeaseLost)).await.is_err();
        }
        self.end().await;
        asked
    }

    /// Opens an action and waits for its answer.
    async fn ask(&mut self, open: impl FnOnce(&mut Child)) -> Result<(), Failure> {
        let limit = self.settings.answer;
        let Some(child) = &mut self.child else { return Ok(()) };
        open(child);
        let reason = loop {
            let event = match limit {
                None => child.next().await,
                Some(limit) => match timeout(limit, child.next()).await {
                    Ok(event) => event,
                    Err(_) => break "it did not answer within timeoutInSeconds".to_owned(),
                },
            };
            match event {
                Event::Said(session::Event::Done(_)) => return Ok(()),
                Event::Said(session::Event::Checkpoint { request, early }) => {
                    checkpointed(&mut self.delivered, &request, early);
                    child.acknowledge(Ok(()));
                }
                Event::Said(session::Event::Stale { .. } | session::Event::Foreign { .. }) => {}
                Event::Said(session::Event::Wrong { open, response_for }) => {
                    break format!("it answered {open} with {response_for:?}");
                }
                Event::Reported(action) => {
                    break format!(
                        "it answered {action} after an error on stderr (multilangd.childErrorLine)"
                    );
                }
                Event::InputBroken(error) => break format!("failed to write to its stdin: {error}"),
                Event::OutputClosed => break "it closed its stdout".to_owned(),
                Event::Exited(end) => {
                    let failure = self.failure(format!("it exited with {end}"));
                    self.child = None;
                    return Err(failure);
                }
            }
        };
        Err(self.failure(reason))
    }

    fn failure(&self, reason: String) -> Failure {
        let stderr = self.child.as_ref().map(Child::last_stderr).unwrap_or_default();
        Failure { at: clock::wall_millis(), reason, stderr }
    }

    /// Ends the child: its stdin, then SIGTERM, then SIGKILL.
    async fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.close_stdin();
        let exited = |by: Instant, mut child: Child| async move {
            while let Ok(event) = tokio::time::timeout_at(by, child.next()).await {
                if let Event::Exited(_) = event {
                    return None;
                }
            }
            Some(child)
        };
        let Some(child) = exited(Instant::now() + self.settings.exit_grace, child).await else { return };
        child.stop(Stop::Politely);
        // Dropping the child kills it.
        drop(exited(Instant::now() + self.settings.kill_grace, child).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_covers_delivered_records_up_to_its_position() {
        let covered = |text: Option<&str>, sub, early| {
            let new = |number| Delivered {
                letter: crate::letters::tests::letter(number),
                is_answered: number != 9,
                is_checkpointed: false,
            };
            let mut delivered = [7, 5, 9].map(new);
            let sequence_number = text.map(str::to_owned);
            let request = CheckpointRequest { sequence_number, sub_sequence_number: sub };
            checkpointed(&mut delivered, &request, early);
            delivered.map(|one| one.is_checkpointed)
        };
        assert_eq!(covered(None, None, false), [true; 3]);
        for text in [None, Some("9")] {
            assert_eq!(covered(text, Some(2), true), [true, true, false], "the record was not delivered yet");
        }
        // The sub-sequence number of the letters is 2.
        assert_eq!(covered(Some("7"), Some(2), false), [true, true, false]);
        assert_eq!(covered(Some("7"), Some(1), false), [false, true, false]);
        assert_eq!(covered(Some("7"), None, false), [false, true, false]);
        for (text, sub) in [("x", None), ("SHARD_END", None), ("LATEST", None), ("9", Some(-1))] {
            assert_eq!(covered(Some(text), sub, false), [false; 3], "{text}");
        }
    }

    #[test]
    fn letters_that_fail_again_go_to_a_new_file() {
        let folder = crate::letters::tests::folder("again");
        let of = folder.join("letters.jsonl");
        let failure = || Failure { at: 1, reason: "exit code 1".to_owned(), stderr: Vec::new() };
        for number in 1..=2 {
            let mut again = Again { of: &of, file: None };
            for _ in 0..2 {
                again.write(crate::letters::tests::letter(number), failure()).unwrap();
            }
            let (path, _) = again.file.unwrap();
            assert_eq!(path, folder.join(format!("letters.failed-{number}.jsonl")));
            let found = crate::letters::list::read(&std::fs::read(path).unwrap());
            assert_eq!(found.len(), 2);
            let letter = found[0].as_ref().unwrap();
            assert_eq!((letter.attempts, letter.failures.len()), (4, 2));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
