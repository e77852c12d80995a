//! Queries of tests to the system about processes: pidfds and `/proc` on Linux, signal 0 and `ps` elsewhere.

#![allow(dead_code, reason = "each test binary uses a part")]

use rustix::process::{Pid, test_kill_process};

pub use imp::*;

/// Whether no process with that id exists, not even as a zombie.
pub fn is_reaped(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_err()
}

#[cfg(target_os = "linux")]
mod imp {
    use std::os::fd::OwnedFd;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    /// A handle of a process.
    pub struct Watched(OwnedFd);

    /// Watches a process. None if it has ended and was reaped.
    pub fn watch(pid: i32) -> Option<Watched> {
        pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).ok().map(Watched)
    }

    impl Watched {
        /// Waits until the process has ended; it may still be a zombie.
        pub async fn ended(self) {
            #[expect(
                deprecated,
                reason = "its replacement is unsafe for types that could close their descriptor; OwnedFd can't"
            )]
            let process = tokio::io::unix::AsyncFd::new(self.0).unwrap();
            // The pidfd becomes readable once the process has ended.
            let _ended = process.readable().await.unwrap();
        }
    }

    /// Whether no process with that id runs any more. A process that outlives the daemon is reaped by the
    /// system's init, if at all.
    pub fn is_gone(pid: i32) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    }

    /// The parent of a process.
    pub fn parent(pid: i32) -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Program and arguments of a process, with blanks between them.
    pub fn command_line(pid: i32) -> String {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8_lossy(&line).replace('\0', " ")
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::process::Command;
    use std::time::Duration;

    use rustix::process::{Pid, WaitId, WaitIdOptions, test_kill_process, waitid};

    /// A process.
    pub struct Watched(i32);

    /// Watches a process. None if it has ended and was reaped.
    pub fn watch(pid: i32) -> Option<Watched> {
        (!is_gone(pid)).then_some(Watched(pid))
    }

    impl Watched {
        /// Waits until the process has ended; it may still be a zombie.
        pub async fn ended(self) {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            while !is_gone(self.0) {
                looks.tick().await;
            }
        }
    }

    /// Whether no process with that id runs any more.
    pub fn is_gone(pid: i32) -> bool {
        let process = Pid::from_raw(pid).unwrap();
        // A child of this process is a zombie until it is reaped, which is left to its owner.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        test_kill_process(process).is_err() || matches!(waitid(WaitId::Pid(process), look), Ok(Some(_)))
    }

    /// The parent of a process.
    pub fn parent(pid: i32) -> i32 {
        ps("ppid=", pid).trim().parse().unwrap()
    }

    /// Program and arguments of a process, with blanks between them.
    pub fn command_line(pid: i32) -> String {
        ps("command=", pid)
    }

    fn ps(column: &str, pid: i32) -> String {
        let shown = Command::new("ps").args(["-o", column, "-p", &pid.to_string()]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }
}
