//! Starts the processes of record processors.
//!
//! One thread starts all of them, one after the other, so that hundreds of leases acquired at once do not
//! fork at once. The thread lives as long as the daemon: Linux kills a child when the *thread* that started
//! it ends, see below.
//!
//! The daemon starts its own binary first, which then becomes the program ([`become_program`]). So settings
//! of the child are made in the child, without code between fork and exec:
//! * the soft limit of open files, which the daemon has raised for itself, is restored;
//! * on Linux the kernel kills the child when the daemon is killed (`PR_SET_PDEATHSIG`): a child in the
//!   middle of a long batch would otherwise process it at the same time as the next owner's child. Elsewhere
//!   such a child ends when it next reads its stdin.
//!
//! Without the path of its own binary (on Linux without `/proc`) the daemon starts programs directly, and does
//! not raise its limit of open files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getpid, getppid, getrlimit, setrlimit};
use tokio::sync::oneshot;

use super::launch::is_shortage;
use super::{platform, shebang};

/// The first argument of a start that becomes the program.
const MARK: &str = "--become-record-processor";
/// Leaves the limit of open files unchanged.
const AS_IT_IS: &str = "-";
const ENOEXEC: i32 = 8;
/// Attempts to become the program while the system lacks resources, one a second.
const SHORTAGES: u32 = 60;
/// Exit code of a process that failed to become the program, as in shells.
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

/// The binary that becomes the program.
#[derive(Debug)]
struct Through {
    daemon: PathBuf,
    files: Option<u64>,
}

impl Launcher {
    /// Starts the thread; must be called within a runtime. `files` is the soft limit of open files for
    /// children.
    ///
    /// # Errors
    /// The thread failed to start.
    pub fn start(files: Option<u64>) -> io::Result<Self> {
        let (jobs, queue) = std::sync::mpsc::channel::<Job>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("launcher".to_owned()).spawn(move || {
            let _within = runtime.enter();
            while let Ok(Job { mut command, reply }) = queue.recv() {
                if reply.is_closed() {
                    continue;
                }
                // The consumer may have ended meanwhile; dropping the child kills it.
                let _unwanted = reply.send(command.spawn());
            }
        })?;
        Ok(Self { jobs, through: platform::own_program().map(|daemon| Through { daemon, files }) })
    }

    /// Whether children get the original limit of open files: the path of the running binary must be known,
    /// which on Linux requires `/proc`.
    pub fn restores_limits() -> bool {
        platform::own_program().is_some()
    }

    /// Starts programs directly, for binaries that cannot [`become_program`].
    ///
    /// # Errors
    /// The thread failed to start.
    pub fn direct() -> io::Result<Self> {
        Ok(Self { through: None, ..Self::start(None)? })
    }

    /// The command that runs the program.
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
    /// The system failed to start it.
    pub(super) async fn spawn(&self, command: tokio::process::Command) -> io::Result<tokio::process::Child> {
        let (reply, started) = oneshot::channel();
        let gone = |()| io::Error::other("the thread that starts processes has ended");
        self.jobs.send(Job { command, reply }).map_err(|_| gone(()))?;
        started.await.map_err(|_| gone(()))?.map_err(|error| self.explain(error))
    }

    /// Names the daemon's binary if that is the missing file. Without `/proc` an update can move it.
    fn explain(&self, error: io::Error) -> io::Error {
        match &self.through {
            Some(through) if error.kind() == io::ErrorKind::NotFound && !through.daemon.exists() => {
                let path = through.daemon.display();
                io::Error::other(format!(
                    "the daemon's binary {path} was moved or deleted (restart the daemon)"
                ))
            }
            _ => error,
        }
    }
}

/// Becomes the program that the arguments of this process name, in which case it does not return. None if
/// they name none.
///
/// # Errors
/// Why the program failed to run.
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
    // Memory or open files of the whole system are short. To the daemon this is a child that has not answered
    // yet.
    for _ in 0..SHORTAGES {
        if !is_shortage(&error) {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(1));
        error = Command::new(&program).args(&arguments).exec();
    }
    if error.raw_os_error() == Some(ENOEXEC) {
        // A text file without `#!` is run by the shell, as in Java and execvp.
        error = Command::new("/bin/sh").arg(&program).args(arguments).exec();
    }
    let program = Path::new(&program);
    let (shown, error) = (program.display(), shebang::explain(program, error));
    Some(io::Error::new(error.kind(), format!("failed to run record processor {shown}: {error}")))
}

/// Lets this process end with the daemon, whose pid is `daemon`, as far as the system supports it.
fn end_with_the_daemon(daemon: &OsStr) -> io::Result<()> {
    platform::die_with_parent()?;
    // The daemon may have been killed before.
    let parent = getppid().map(|parent| parent.as_raw_pid().to_string());
    if parent.as_deref() == daemon.to_str() { Ok(()) } else { Err(io::Error::other("the daemon has exited")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_binary_of_the_daemon_is_named_when_a_start_fails() {
        let launcher = |daemon: PathBuf| Launcher {
            jobs: std::sync::mpsc::channel().0,
            through: Some(Through { daemon, files: None }),
        };
        let explained =
            |daemon: PathBuf| launcher(daemon).explain(io::ErrorKind::NotFound.into()).to_string();
        let text = explained("/no/such/multilangd".into());
        assert!(text.contains("/no/such/multilangd") && text.contains("restart the daemon"), "{text}");
        let present = explained(std::env::current_exe().unwrap());
        assert_eq!(present, io::Error::from(io::ErrorKind::NotFound).to_string());
    }
}
