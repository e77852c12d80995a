//! Reaps orphaned processes.
//!
//! Where the daemon is process 1, as in a container, it becomes the parent of the processes that record
//! processors started and left running. Each of them that ends stays in the process table until it is reaped.
//! The code that starts a process here reaps it at once, so a process that stayed ended for a whole round is
//! an orphan.

use std::collections::BTreeSet;
use std::io;

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tracing::debug;

/// Interval between rounds.
const ROUND: Duration = Duration::from_secs(10);

/// Reaps orphans in a task of `tasks`, if this is process 1.
pub fn wait_for(tasks: &mut JoinSet<()>) {
    if !getpid().is_init() {
        return;
    }
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tasks.spawn(async move {
        let mut before = BTreeSet::new();
        loop {
            rounds.tick().await;
            let ended = ended_children().unwrap_or_default();
            for pid in ended.intersection(&before).filter_map(|pid| Pid::from_raw(*pid)) {
                let _reaped = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).is_ok();
                debug!(pid = pid.as_raw_pid(), "reaped an orphaned process of a record processor");
            }
            before = ended;
        }
    });
}

/// Child processes of this process that have ended and are not reaped.
fn ended_children() -> io::Result<BTreeSet<i32>> {
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
