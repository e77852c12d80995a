//! Features of Linux for child processes: larger pipes, a signal at the death of the parent, `/proc`.
//! `other.rs` has the same functions for other systems.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::process::{Signal, getpid, set_parent_process_death_signal};

/// Sets the size of a pipe's buffer, in bytes. The size stays unchanged if the system refuses: users have a
/// limit.
pub(super) fn resize_pipe(pipe: impl AsFd, bytes: usize) {
    let _unchanged = rustix::pipe::fcntl_setpipe_size(pipe, bytes).is_err();
}

/// The running binary, even if its file was replaced meanwhile. None without `/proc`.
pub(super) fn own_program() -> Option<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Some(link) } else { std::env::current_exe().ok() }
}

/// Requests that the kernel kills this process when the thread that started it ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Child processes of this process that have ended and are not reaped.
pub(super) fn ended_children() -> io::Result<BTreeSet<i32>> {
    let me = getpid().as_raw_pid();
    let mut ended = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The process may have disappeared meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state_and_parent(&stat) == Some(('Z', me)) {
            ended.insert(pid);
        }
    }
    Ok(ended)
}

/// State and parent in a line of `/proc/PID/stat` (proc(5)): they follow the name, which can contain
/// anything.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.parse().ok()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn state_is_read_after_any_process_name() {
        assert_eq!(state_and_parent("17 (sh) Z 1 17 17 0 -1"), Some(('Z', 1)));
        assert_eq!(state_and_parent("17 (a) S 4 (b) Z 42 17"), Some(('Z', 42)));
        assert_eq!(state_and_parent(""), None);
    }

    #[test]
    fn ended_child_is_found() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Waits for the exit without reaping the process.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_raw(pid).unwrap()), look).unwrap();
        assert!(ended_children().unwrap().contains(&pid));
        assert!(child.wait().unwrap().success());
        assert!(!ended_children().unwrap().contains(&pid));
    }
}
