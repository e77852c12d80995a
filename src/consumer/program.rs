//! The program as seen by all shards of this worker: whether a child of it ever worked, and which shards are
//! parked.
//!
//! One bad record parks one shard, and the daemon continues. If no child has ever answered `initialize`, the
//! program itself is broken: once every shard is parked for that reason the daemon exits, so that a
//! supervisor notices.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::lease::LeaseKey;

/// Interval between log lines about a shortage.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// The parents are not finished: no child was started.
    Waiting,
    /// A child runs or is being restarted.
    Trying,
    /// Parked, with the reason.
    Parked(String),
}

#[derive(Debug, Default)]
struct Known {
    /// Whether a child has answered `initialize`.
    worked: bool,
    shards: BTreeMap<LeaseKey, Standing>,
    /// When a shortage was last logged.
    shortage: Option<Instant>,
}

/// The standing of each shard, shared by all consumers of a daemon.
#[derive(Debug, Default)]
pub struct Standings {
    known: Mutex<Known>,
    changed: Notify,
}

impl Standings {
    pub(super) fn waiting(&self, key: &LeaseKey) {
        self.set(key, Standing::Waiting);
    }

    /// Notes that a child was started. A parked shard stays parked until its child works.
    pub(super) fn trying(&self, key: &LeaseKey) {
        let mut known = self.known();
        if !matches!(known.shards.get(key), Some(Standing::Parked(_))) {
            known.shards.insert(key.clone(), Standing::Trying);
        }
    }

    pub(super) fn recovered(&self, key: &LeaseKey) {
        self.set(key, Standing::Trying);
    }

    pub(super) fn parked(&self, key: &LeaseKey, reason: String) {
        self.set(key, Standing::Parked(reason));
        self.changed.notify_one();
    }

    pub(super) fn worked(&self) {
        self.known().worked = true;
    }

    pub(super) fn over(&self, key: &LeaseKey) {
        self.known().shards.remove(key);
        self.changed.notify_one();
    }

    /// Whether to log a shortage now.
    pub(super) fn reports_shortage(&self, now: Instant) -> bool {
        let mut known = self.known();
        let due = known.shortage.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_AGAIN);
        if due {
            known.shortage = Some(now);
        }
        due
    }

    /// Waits until a shard was parked or its consumer ended. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A parked shard and its reason, if no child of any shard has ever answered `initialize` and every shard
    /// with a child is parked.
    pub fn never_worked(&self) -> Option<(LeaseKey, String)> {
        let known = self.known();
        if known.worked || known.shards.values().any(|standing| *standing == Standing::Trying) {
            return None;
        }
        known.shards.iter().find_map(|(key, standing)| match standing {
            Standing::Parked(reason) => Some((key.clone(), reason.clone())),
            Standing::Waiting | Standing::Trying => None,
        })
    }

    fn set(&self, key: &LeaseKey, standing: Standing) {
        self.known().shards.insert(key.clone(), standing);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_broken_once_every_started_shard_is_parked() {
        let standings = Standings::default();
        let [first, second, third] = ["1", "2", "3"].map(LeaseKey::from);
        standings.trying(&first);
        standings.trying(&second);
        standings.waiting(&third);
        standings.parked(&first, "exit code 1".to_owned());
        assert_eq!(standings.never_worked(), None, "the second is still tried");
        standings.parked(&second, "exit code 2".to_owned());
        assert_eq!(standings.never_worked(), Some((first.clone(), "exit code 1".to_owned())));
        standings.trying(&first);
        assert!(standings.never_worked().is_some(), "it is only tried again");
        standings.over(&first);
        assert_eq!(standings.never_worked(), Some((second, "exit code 2".to_owned())));
    }

    #[test]
    fn program_that_worked_once_is_not_broken() {
        let standings = Standings::default();
        standings.parked(&"1".into(), "exit code 1".to_owned());
        standings.recovered(&"1".into());
        assert_eq!(standings.never_worked(), None);
        standings.worked();
        standings.parked(&"1".into(), "exit code 1".to_owned());
        assert_eq!(standings.never_worked(), None);
    }

    #[test]
    fn shortage_is_logged_once_a_minute() {
        let (standings, start) = (Standings::default(), Instant::now());
        let reported = |second: &u64| standings.reports_shortage(start + Duration::from_secs(*second));
        assert_eq!((0..150).filter(reported).collect::<Vec<_>>(), [0, 60, 120]);
    }
}
