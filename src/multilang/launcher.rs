//! How a record processor's process is started.
//!
//! One thread starts all of them, one after the other: hundreds of leases that are acquired at once make no storm of
//! forks, and the thread lives as long as the process (Linux ends a child with the *thread* that started it, see below).
//!
//! The daemon starts itself first, and that start becomes the program ([`become_program`]), so that what concerns the
//! child alone happens in the child, without code between fork and exec:
//! * it gets back the soft limit of open files that the daemon has raised for itself;
//! * on Linux the system kills it when the daemon is killed (`PR_SET_PDEATHSIG`): a child in the middle of a long batch
//!   would else process it beside its successor. Elsewhere such a child ends when it next reads its stdin.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getpid, getppid, getrlimit, setrlimit};
use tokio::sync::oneshot;

use super::launch::is_shortage;
use super::shebang;

/// The first argument of a start that becomes the program.
const MARK: &str = "--become-record-processor";
/// The limit of open files stays as it is.
const AS_IT_IS: &str = "-";
const ENOEXEC: i32 = 8;
/// Attempts to become the program, one a second, for which the system lacks resources.
const SHORTAGES: u32 = 60;
/// Exit code of a process that could not become the program, as in shells.
pub const CANNOT_RUN: u8 = 126;

struct Job {
    command: tokio::process::Command,
    reply: oneshot::Sender<io::Result<tokio::process::Child>>,
}

/// Starts processes on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Launcher {
    jobs: std::sync::mpsc::Sender<Job>,
    through: Option<Through>,
}

/// The binary that is run first.
#[derive(Debug)]
struct Through {
    daemon: PathBuf,
    files: Option<u64>,
}

impl Launcher {
    /// Within a runtime. `files` is the soft limit of open files that children get.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(files: Option<u64>) -> io::Result<Self> {
        let (jobs, queue) = std::sync::mpsc::channel::<Job>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("launcher".to_owned()).spawn(move || {
            let _within = runtime.enter();
            while let Ok(Job { mut command, reply }) = queue.recv() {
                if reply.is_closed() {
                    continue;
                }
                // The consumer may have ended meanwhile: the child is then killed by being dropped.
                let _unwanted = reply.send(command.spawn());
            }
        })?;
        Ok(Self { jobs, through: own_program().map(|daemon| Through { daemon, files }) })
    }

    /// Starts programs at once, for binaries that cannot [`become_program`].
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn direct() -> io::Result<Self> {
        Ok(Self { through: None, ..Self::start(None)? })
    }

    /// The command that runs this program.
    pub(super) fn command(&self, program: &OsStr, arguments: &[String]) -> tokio::process::Command {
        let Some(Through { daemon, files }) = &self.through else {
            let mut command = tokio::process::Command::new(program);
            command.args(arguments);
            return command;
        };
        let mut command = tokio::process::Command::new(daemon);
        let files = files.map_or(AS_IT_IS.to_owned(), |files| files.to_string());
        command.arg(MARK).arg(getpid().as_raw_pid().to_string()).arg(files).arg(program).args(arguments);
        command
    }

    /// Starts a process.
    ///
    /// # Errors
    /// The system could not start it.
    pub(super) async fn spawn(&self, command: tokio::process::Command) -> io::Result<tokio::process::Child> {
        let (reply, started) = oneshot::channel();
        let gone = |()| io::Error::other("the thread that starts processes has ended");
        self.jobs.send(Job { command, reply }).map_err(|_| gone(()))?;
        started.await.map_err(|_| gone(()))?
    }
}

/// The binary that runs, even if its file was replaced meanwhile. None where the system does not say.
fn own_program() -> Option<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Some(link) } else { std::env::current_exe().ok() }
}

/// If the arguments of this process say so, it becomes the program that they name, and this does not return.
///
/// # Errors
/// The program can't be run, and why.
pub fn become_program(arguments: impl IntoIterator<Item = OsString>) -> Option<io::Error> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != MARK {
        return None;
    }
    let [Some(daemon), Some(files), Some(program)] = [(); 3].map(|()| arguments.next()) else {
        return Some(io::Error::other("incomplete arguments"));
    };
    if let Err(error) = end_with_the_daemon(&daemon) {
        return Some(error);
    }
    if let Some(files) = files.to_str().and_then(|files| files.parse().ok()) {
        let limit = getrlimit(Resource::Nofile);
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum });
    }
    let arguments: Vec<OsString> = arguments.collect();
    let mut error = Command::new(&program).args(&arguments).exec();
    // For lack of memory or of open files in the whole system: the daemon sees a child that has not answered yet.
    for _ in 0..SHORTAGES {
        if !is_shortage(&error) {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(1));
        error = Command::new(&program).args(&arguments).exec();
    }
    if error.raw_os_error() == Some(ENOEXEC) {
        // A text file without `#!` is given to the shell, as Java and execvp do.
        error = Command::new("/bin/sh").arg(&program).args(arguments).exec();
    }
    let program = Path::new(&program);
    let (shown, error) = (program.display(), shebang::explain(program, error));
    Some(io::Error::new(error.kind(), format!("failed to run record processor {shown}: {error}")))
}

#[cfg(target_os = "linux")]
fn end_with_the_daemon(daemon: &OsStr) -> io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The daemon may have been killed before.
    let parent = getppid().map(|parent| parent.as_raw_pid().to_string());
    if parent.as_deref() == daemon.to_str() { Ok(()) } else { Err(io::Error::other("the daemon has exited")) }
}

#[cfg(not(target_os = "linux"))]
fn end_with_the_daemon(_: &OsStr) -> io::Result<()> {
    Ok(())
}
