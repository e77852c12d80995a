//! Processes that nobody else waits for.
//!
//! Where the daemon is process 1, as in a container, the system hands it whatever record processors have started
//! and left behind; what has ended and isn't waited for stays in the table of processes until that is full. Who
//! starts a process here waits for it at once, so one that has been waiting for a whole round is nobody's.

use std::collections::BTreeSet;
use std::io;

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tracing::debug;

/// Between rounds.
const ROUND: Duration = Duration::from_secs(10);

/// Waits for them within `tasks`, if this is process 1.
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

/// Children of this process that have ended and were not waited for.
fn ended_children() -> io::Result<BTreeSet<i32>> {
    let me = getpid().as_raw_pid();
    let mut ended = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have gone by now.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state_and_parent(&stat) == Some(('Z', me)) {
            ended.insert(pid);
        }
    }
    Ok(ended)
}

/// Of a line of `/proc/PID/stat` (proc(5)): they stand behind the name, in which anything can be.
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.parse().ok()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_reason_to_misread_the_state() {
        assert_eq!(state_and_parent("17 (sh) Z 1 17 17 0 -1"), Some(('Z', 1)));
        assert_eq!(state_and_parent("17 (a) S 4 (b) Z 42 17"), Some(('Z', 42)));
        assert_eq!(state_and_parent(""), None);
    }

    #[test]
    fn a_child_that_was_not_waited_for_is_found() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Waits for its end without taking it.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_raw(pid).unwrap()), look).unwrap();
        assert!(ended_children().unwrap().contains(&pid));
        assert!(child.wait().unwrap().success());
        assert!(!ended_children().unwrap().contains(&pid));
    }
}
