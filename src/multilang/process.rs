//! A child's process: pipes, process group, exit.
//!
//! The only module that signals record processors. Three tasks serve the pipes; the process's handle owns
//! them, and they end with it. In KCL: `MessageWriter`, `MessageReader`, `DrainChildSTDERRTask`.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use multilangd_protocol::{BatchLine, Line, LineSplitter};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{Instrument as _, warn};

use super::launch::{ForShard, Happened, Launch, Outgoing, Process, SpawnError, Stop, to_protocol};
use super::launcher::Launcher;
use super::output::{LogForm, Printed, Tail};
use super::stderr::{Reported, log_lines};
use super::{platform, shebang};
use crate::record::Record;
use crate::shard::BoxFuture;

/// Most lines that wait between the reader and the consumer.
const LINES: usize = 256;
/// KiB that these lines may hold together, except for a single line, which has a limit of its own.
const WAITING: u32 = 1024;
/// Bytes of the stdin pipe's buffer.
const PIPE: usize = 256 * 1024;
/// Most messages that a child may leave unread: one action, and answers to its checkpoint requests.
const UNREAD: usize = 1024;
/// Capacity for answers below which the child's lines are not read.
const ANSWERS: usize = 16;

/// `executableName`: a program that was found, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

/// Why `executableName` is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// It consists of blanks.
    #[error("executableName is empty (name the record processor, as in executableName = ./processor.py)")]
    Empty,
    /// No such file in PATH or at the path.
    #[error("executableName: program {0:?} not found{1}")]
    Missing(String, &'static str),
    /// The file is not executable.
    #[error("executableName: {0:?} is not executable (run chmod +x on it)")]
    NotExecutable(String),
    /// A script that the system cannot run.
    #[error("executableName: cannot run {0:?}: {1}")]
    Script(String, shebang::Fault),
}

impl Program {
    /// Splits `executable_name` at blanks, as Java does (no quotes, no variables), and finds the program: in
    /// PATH unless its name contains a `/`.
    ///
    /// # Errors
    /// The program does not exist or cannot be run.
    pub fn find(executable_name: &str, search: Option<&std::ffi::OsStr>) -> Result<Self, ProgramError> {
        Self::of(executable_name.split(' ').filter(|word| !word.is_empty()).map(str::to_owned), search)
    }

    /// As [`Program::find`], from the program's name and its arguments.
    ///
    /// # Errors
    /// The program does not exist or cannot be run.
    pub fn of(
        words: impl IntoIterator<Item = String>,
        search: Option<&std::ffi::OsStr>,
    ) -> Result<Self, ProgramError> {
        let mut words = words.into_iter();
        let name = words.next().filter(|name| !name.is_empty()).ok_or(ProgramError::Empty)?;
        let path = if name.contains('/') {
            runnable(Path::new(&name))?
        } else {
            let found = search.map(|path| {
                std::env::split_paths(path).map(|folder| runnable(&folder.join(&name))).find(Result::is_ok)
            });
            let missing =
                || ProgramError::Missing(name.clone(), " in PATH (give a path with a /, or extend PATH)");
            found.flatten().and_then(Result::ok).ok_or_else(missing)?
        };
        shebang::check(&path, search)
            .map_err(|fault| ProgramError::Script(path.display().to_string(), fault))?;
        Ok(Self { path, arguments: words.collect() })
    }

    /// Combines the program with the launcher that starts its processes.
    #[must_use]
    pub fn started_by(self, launcher: impl Into<Arc<Launcher>>) -> Started {
        let launcher = launcher.into();
        Started { program: self, launcher, form: LogForm::default(), error_text: None, variables: Vec::new() }
    }
}

/// A program and the launcher that starts it.
#[derive(Debug)]
pub struct Started {
    program: Program,
    launcher: Arc<Launcher>,
    form: LogForm,
    error_text: Option<Arc<str>>,
    variables: Vec<(&'static str, String)>,
}

impl Started {
    /// Logs the output of its processes in this form.
    #[must_use]
    pub fn logging(self, form: LogForm) -> Self {
        Self { form, ..self }
    }

    /// Starts its processes with these environment variables besides those of [`ForShard`].
    #[must_use]
    pub fn with_variables(self, variables: Vec<(&'static str, String)>) -> Self {
        Self { variables, ..self }
    }

    /// Counts the occurrences of a text on stderr, by which the program reports errors.
    #[must_use]
    pub fn with_error_text(self, text: Option<String>) -> Self {
        Self { error_text: text.map(Arc::from), ..self }
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.fmt(f)
    }
}

impl Launch for Started {
    fn launch<'a>(&'a self, start: &'a ForShard) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>> {
        Box::pin(async move { Ok(Box::new(Spawned::spawn(self, start).await?) as Box<dyn Process>) })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        // The arguments may be secrets inserted by `--expand-env`.
        match self.arguments.len() {
            0 => Ok(()),
            1 => f.write_str(" and an argument"),
            more => write!(f, " and {more} arguments"),
        }
    }
}

fn runnable(path: &Path) -> Result<PathBuf, ProgramError> {
    let shown = || path.display().to_string();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(ProgramError::NotExecutable(shown())),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Err(ProgramError::NotExecutable(shown())),
        Ok(_) => Ok(path.to_owned()),
        Err(_) => Err(ProgramError::Missing(shown(), " (the path is relative to the working directory)")),
    }
}

/// A running process with its pipes.
#[derive(Debug)]
struct Spawned {
    child: tokio::process::Child,
    pid: u32,
    alive: bool,
    group: Option<Pid>,
    lines: mpsc::Receiver<(Line, OwnedSemaphorePermit)>,
    input: Option<mpsc::Sender<Outgoing>>,
    /// Whether the child has left more messages unread than can ever be pending.
    clogged: bool,
    broken: Option<oneshot::Receiver<String>>,
    tail: Tail,
    form: LogForm,
    /// Asks the task that reads stderr to read all that is in the pipe; none if the errors do not matter.
    syncs: Option<mpsc::Sender<oneshot::Sender<u64>>>,
    /// The tasks of the pipes, stopped on drop.
    _pipes: JoinSet<()>,
}

impl Spawned {
    async fn spawn(started: &Started, start: &ForShard) -> Result<Self, SpawnError> {
        let Started { program, launcher, form, error_text, variables } = started;
        let mut command = launcher.command(program.path.as_os_str(), &program.arguments);
        command
            .env_remove("MULTILANGD_STREAM_ARN")
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .envs(start.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let spawned = launcher.spawn(command).await;
        let failed = |source| SpawnError::new(program, shebang::explain(&program.path, source));
        let mut child = spawned.map_err(failed)?;
        let missing = |what| failed(io::Error::other(format!("the process has no {what}")));
        let pid = child.id().ok_or_else(|| missing("process id"))?;
        let stdin = child.stdin.take().ok_or_else(|| missing("stdin"))?;
        let stdout = child.stdout.take().ok_or_else(|| missing("stdout"))?;
        let stderr = child.stderr.take().ok_or_else(|| missing("stderr"))?;

        // A larger pipe needs fewer switches between the processes.
        platform::resize_pipe(&stdin, PIPE);
        let (lines_in, lines) = mpsc::channel(LINES);
        let (input, messages) = mpsc::channel(UNREAD);
        let (breaks, broken) = oneshot::channel();
        let mut pipes = JoinSet::new();
        pipes.spawn(read_lines(stdout, lines_in));
        pipes.spawn(write_messages(stdin, messages, breaks));
        let tail = Tail::default();
        let printed = Printed::new(start.shard.clone(), pid, "stderr", form.clone()).keeping(tail.clone());
        let (syncs, requests) = mpsc::channel(1);
        let reported = Reported::new(error_text.as_deref());
        pipes.spawn(log_lines(stderr, printed, reported, requests).in_current_span());
        let group = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
        Ok(Self {
            child,
            pid,
            alive: true,
            group,
            lines,
            input: Some(input),
            clogged: false,
            broken: Some(broken),
            tail,
            form: form.clone(),
            syncs: error_text.is_some().then_some(syncs),
            _pipes: pipes,
        })
    }

    async fn wait(&mut self, listen: bool, alive: bool) -> Happened {
        if std::mem::take(&mut self.clogged) {
            return Happened::InputClosed(Some(format!("it has not read {UNREAD} messages")));
        }
        let reason = loop {
            let broken = async {
                match &mut self.broken {
                    Some(broken) => broken.await.ok(),
                    None => std::future::pending().await,
                }
            };
            // Each line may need an answer: the lines of a child that leaves answers unread are not read
            // meanwhile.
            let full = self.input.as_ref().filter(|input| input.capacity() < ANSWERS && !input.is_closed());
            let room = async {
                match full {
                    Some(input) => drop(input.reserve_many(ANSWERS).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The two events that occur once come first: lines may never end. The caller orders them.
                status = self.child.wait(), if alive => {
                    self.alive = false;
                    self.end_group();
                    return Happened::Exited(status);
                }
                reason = broken => break reason,
                line = self.lines.recv(), if listen && full.is_none() => {
                    return Happened::Said(line.map(|(line, _room)| line));
                }
                () = room, if listen => {}
            }
        };
        // The writer ends once: the pipe broke, or the daemon closed it.
        self.broken = None;
        Happened::InputClosed(reason)
    }

    /// Kills the rest of the group after its leader exited: such a process (started by a wrapper script, for
    /// example) still has the shard's records and must not run beside the next child. While one exists, the
    /// group's id cannot be reused; the system assigns ids in ascending order, so an id that was freed a
    /// moment ago is not reused yet either.
    fn end_group(&self) {
        if let Some(group) = self.group
            && kill_process_group(group, Signal::KILL).is_ok()
        {
            warn!(
                event = "leftover_processes_killed",
                pid = self.pid,
                "killed processes that the record processor had left behind"
            );
        }
    }
}

impl Process for Spawned {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn write(&mut self, message: Outgoing) {
        if let (Some(input), false) = (&self.input, message.is_empty()) {
            self.clogged |= matches!(input.try_send(message), Err(mpsc::error::TrySendError::Full(_)));
        }
    }

    fn close_stdin(&mut self) {
        self.input = None;
    }

    fn next(&mut self, listen: bool, alive: bool) -> BoxFuture<'_, Happened> {
        Box::pin(self.wait(listen, alive))
    }

    /// Signals the group that [`Spawned::spawn`] created. A group id of 1 or less, which would address every
    /// process, is never stored.
    fn stop(&self, stop: Stop) {
        let signal = match stop {
            Stop::Politely => Signal::TERM,
            Stop::AtOnce => Signal::KILL,
        };
        if let Some(group) = self.group
            && let Err(error) = kill_process_group(group, signal)
            && error != rustix::io::Errno::SRCH
        {
            warn!(event = "signal_failed", pid = self.pid, %error, "failed to signal a process group");
        }
    }

    fn form(&self) -> LogForm {
        self.form.clone()
    }

    fn stderr(&self) -> Tail {
        self.tail.clone()
    }

    fn errors(&self) -> Option<BoxFuture<'static, u64>> {
        let syncs = self.syncs.clone()?;
        Some(Box::pin(async move {
            let (reply, count) = oneshot::channel();
            // Without the task nothing is known about stderr, so an answer counts as an error.
            match syncs.send(reply).await {
                Ok(()) => count.await.unwrap_or(u64::MAX),
                Err(_) => u64::MAX,
            }
        }))
    }
}

impl Drop for Spawned {
    /// `kill_on_drop` kills only the leader.
    fn drop(&mut self) {
        if self.alive {
            self.stop(Stop::AtOnce);
        }
    }
}

/// A process that gets one line. Its group is killed unless it has ended.
struct Fed {
    child: tokio::process::Child,
    alive: bool,
}

impl Drop for Fed {
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
        if let (true, Some(group)) = (self.alive, pid.and_then(Pid::from_raw)) {
            let _has_ended = kill_process_group(group, Signal::KILL).is_err();
        }
    }
}

/// Runs a program with a line on its stdin. It must exit with 0 within the deadline.
///
/// # Errors
/// The reason, with the last line that the program wrote to stderr.
pub async fn feed(program: &Program, line: &[u8], deadline: std::time::Duration) -> Result<(), String> {
    let mut command = tokio::process::Command::new(&program.path);
    command.args(&program.arguments).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = async {
        let child = command.spawn().map_err(|error| shebang::explain(&program.path, error).to_string())?;
        let mut fed = Fed { child, alive: true };
        let (mut stdin, mut stderr) = (fed.child.stdin.take(), fed.child.stderr.take());
        // The last part of stderr; the program may exit without reading its stdin.
        let read = async {
            let (mut last, mut buffer) = (Vec::new(), [0; 2 * 1024]);
            while let Some(Ok(count @ 1..)) = read_some(&mut stderr, &mut buffer).await {
                last.extend_from_slice(&buffer[..count]);
                last.drain(..last.len().saturating_sub(buffer.len()));
            }
            last.rsplit(|byte| *byte == b'\n')
                .find(|line| !line.trim_ascii().is_empty())
                .map(super::output::readable)
        };
        let write = async {
            if let Some(stdin) = &mut stdin {
                let _exit_code_decides = stdin.write_all(line).await.is_err();
            }
            drop(stdin.take());
        };
        let (mut write, mut read) = (std::pin::pin!(write), std::pin::pin!(read));
        let (mut is_written, mut last) = (false, None);
        let status = loop {
            tokio::select! {
                biased;
                status = fed.child.wait() => break status,
                () = &mut write, if !is_written => is_written = true,
                line = &mut read, if last.is_none() => last = Some(line),
            }
        };
        fed.alive = false;
        let status = status.map_err(|error| error.to_string())?;
        // A process that the program left running may hold its stderr open.
        let last = match last {
            Some(line) => line,
            None => tokio::time::timeout(super::LEAK, read).await.unwrap_or_default(),
        };
        match last {
            _ if status.success() => Ok(()),
            Some(line) => Err(format!("{}; last line on stderr: {line:?}", super::output::exit(status))),
            None => Err(super::output::exit(status)),
        }
    };
    let late = || Err(format!("it did not exit within {deadline:?}"));
    tokio::time::timeout(deadline, run).await.unwrap_or_else(|_| late())
}

async fn read_some(stderr: &mut Option<ChildStderr>, buffer: &mut [u8]) -> Option<io::Result<usize>> {
    Some(stderr.as_mut()?.read(buffer).await)
}

async fn read_lines(mut stdout: ChildStdout, lines: mpsc::Sender<(Line, OwnedSemaphorePermit)>) {
    let mut splitter = LineSplitter::default();
    let mut buffer = vec![0; 4 * 1024];
    let mut out = Vec::new();
    let room = Arc::new(Semaphore::new(WAITING as usize));
    let hand_on = async |line: Line| {
        let size = match &line {
            Line::Whole(bytes) | Line::Cut { head: bytes, .. } => bytes.len() / 1024 + 1,
        };
        let needed = u32::try_from(size).unwrap_or(WAITING).min(WAITING);
        let Ok(room) = room.clone().acquire_many_owned(needed).await else { return false };
        lines.send((line, room)).await.is_ok()
    };
    loop {
        match stdout.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => splitter.push(&buffer[..count], &mut out),
        }
        for line in out.drain(..) {
            if !hand_on(line).await {
                return;
            }
        }
    }
    if let Some(line) = splitter.finish() {
        let _nobody_listens = !hand_on(line).await;
    }
}

async fn write_messages(
    mut stdin: ChildStdin,
    mut messages: mpsc::Receiver<Outgoing>,
    breaks: oneshot::Sender<String>,
) {
    while let Some(message) = messages.recv().await {
        let written = match message {
            Outgoing::Line(line) => stdin.write_all(&line).await,
            Outgoing::Encoded(line) => stdin.write_all(&line).await,
            Outgoing::Batch { records, millis_behind_latest } => {
                write_batch(&mut stdin, records, millis_behind_latest).await
            }
        };
        if let Err(error) = written {
            let _nobody_listens = breaks.send(error.to_string()).is_err();
            return;
        }
    }
}

/// Small records are gathered into pieces of about this many bytes; the data of large ones is written from
/// where it is.
const PIECE: usize = 64 * 1024;
/// Most large data that are passed to one system call.
const TOGETHER: usize = 16;

/// Gathered text, and large data to be inserted.
#[derive(Default)]
struct Piece<'a> {
    text: Vec<u8>,
    /// Each with its offset in the text.
    data: Vec<(usize, &'a [u8])>,
}

impl Piece<'_> {
    fn is_full(&self) -> bool {
        self.text.len() >= PIECE || self.data.len() >= TOGETHER
    }

    async fn write(&mut self, stdin: &mut ChildStdin) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * self.data.len() + 1);
        let mut begin = 0;
        for (end, data) in &self.data {
            slices.extend([IoSlice::new(&self.text[begin..*end]), IoSlice::new(data)]);
            begin = *end;
        }
        slices.push(IoSlice::new(&self.text[begin..]));
        let mut rest = &mut slices[..];
        // Skips slices that are empty at the start.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match stdin.write_vectored(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => IoSlice::advance_slices(&mut rest, count),
            }
        }
        self.text.clear();
        self.data.clear();
        Ok(())
    }
}

async fn write_batch(
    stdin: &mut ChildStdin,
    records: Vec<Record>,
    millis_behind_latest: Option<i64>,
) -> io::Result<()> {
    let mut piece = Piece::default();
    let mut line = BatchLine::begin(&mut piece.text);
    for record in &records {
        if record.data.len() < PIECE {
            line.record(&to_protocol(record), &mut piece.text);
        } else {
            line.open_record(&mut piece.text);
            piece.data.push((piece.text.len(), record.data.as_bytes()));
            BatchLine::close_record(&to_protocol(record), &mut piece.text);
        }
        if piece.is_full() {
            piece.write(stdin).await?;
        }
    }
    line.end(millis_behind_latest, &mut piece.text);
    piece.write(stdin).await
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn batch_of_any_record_sizes_is_written_as_one_line() {
        let sizes = [0, 10, PIECE / 4 * 3 - 3, PIECE / 4 * 3, 200_001];
        for count in [1, TOGETHER, TOGETHER + 1, 3 * TOGETHER + 2] {
            for turn in 0..sizes.len() {
                // Some batches consist of large records.
                let size =
                    |n: usize| if turn == 0 { sizes[4] } else { sizes[(n * turn + n / 3) % sizes.len()] };
                let record =
                    |n: usize| Record::plain(n + 1, "a key", &vec![u8::try_from(n % 251).unwrap(); size(n)]);
                let records: Vec<Record> = (0..count).map(record).collect();
                let line =
                    Outgoing::Batch { records: records.clone(), millis_behind_latest: Some(5) }.into_line();
                let mut cat = Command::new("cat");
                cat.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
                let mut cat = cat.spawn().unwrap();
                let (mut stdin, mut stdout) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
                let mut came = Vec::new();
                let write = async move { write_batch(&mut stdin, records, Some(5)).await };
                let (written, read) = tokio::join!(write, stdout.read_to_end(&mut came));
                written.unwrap();
                read.unwrap();
                assert!(came == line, "{count} records, turn {turn}: {} bytes of {}", came.len(), line.len());
                cat.wait().await.unwrap();
            }
        }
    }

    #[test]
    fn program_is_found_by_path_or_rejected_by_name() {
        let search = std::ffi::OsStr::new("/nowhere:/bin:/usr/bin");
        let found = Program::find("sh  -c  'exit 9' ", Some(search)).unwrap();
        assert_eq!(found.arguments, ["-c", "'exit", "9'"], "split at blanks only, as Java does");
        assert_eq!(Program::find("  ", Some(search)), Err(ProgramError::Empty));
        assert!(matches!(Program::find("no-such-program", Some(search)), Err(ProgramError::Missing(..))));
        assert!(matches!(Program::find("./no/such", Some(search)), Err(ProgramError::Missing(..))));
        assert!(matches!(Program::find("/etc/passwd", Some(search)), Err(ProgramError::NotExecutable(_))));
        assert!(matches!(Program::find("/etc", Some(search)), Err(ProgramError::NotExecutable(_))));
    }
}
