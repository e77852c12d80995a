//! Reaps orphaned processes.
//!
//! Where the daemon is process 1, as in a container, it becomes the parent of the processes that record
//! processors started and left running. Each of them that ends stays in the process table until it is reaped.
//! The code that starts a process here reaps it at once, so a process that stayed ended for a whole round is
//! an orphan.

use std::collections::BTreeSet;

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tracing::debug;

use super::platform;

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
            let ended = platform::ended_children().unwrap_or_default();
            for pid in ended.intersection(&before).filter_map(|pid| Pid::from_raw(*pid)) {
                let _reaped = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).is_ok();
                debug!(pid = pid.as_raw_pid(), "reaped an orphaned process of a record processor");
            }
            before = ended;
        }
    });
}
