//! How often a worker looks at the table, and whom it calls when there is something to take.
//!
//! Looking costs a scan, so nobody looks every second. Two things make up for it:
//! * a worker that releases leases, or creates more than it acquires, *nudges* its peers: one write on some of
//!   their rows ([`super::update::nudge`]), which they see at their next renewal of that row. A worker with
//!   `n` leases renews one of them every two fifths of the failover time divided by `n`, so it knows within a
//!   second or so, and a fleet at rest pays nothing for it;
//! * where a scan is one small page, every worker looks twice within a failover time: then it has seen the
//!   last renewal of a worker that dies half a failover time after it at the latest, and takes over a
//!   failover time later. In large tables only the first workers by name look so often.
//!
//! Java's workers look every two failover times, and call nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::take::View;
use super::{Lease, WorkerId};

/// A table of so many open leases is one cheap page.
const SMALL: usize = 100;
/// Number of workers that scan a large table for all.
const WATCHERS: usize = 2;
/// Number of rows by which each worker is nudged: it soon renews one of them.
const ROWS: usize = 8;
/// A nudge goes to so many rows at most.
const MOST: usize = 200;

/// From one look to the next, if nothing calls for an earlier one. The caller shortens it by a little
/// chance, so that workers don't look in step.
pub fn pause(view: &View<'_>) -> Duration {
    let (asker, counts, open, mine) = (view.asker(), view.counts(), view.open(), view.mine());
    let rank = counts.keys().position(|owner| *owner == asker.me);
    let often = asker.failover / 2;
    let seldom = asker.failover * 2;
    match mine {
        // A worker without leases cannot be nudged, and one with a single lease is nudged late.
        0 | 1 if open <= SMALL && (mine == 0 || counts.len() > 1) => asker.failover / 6,
        0 => often,
        // There is something to steal.
        _ if mine < (open / counts.len().max(1)).min(asker.max_leases) => often,
        _ if counts.len() == 1 => seldom,
        _ if open <= SMALL || rank.is_some_and(|rank| rank < WATCHERS) => often,
        _ => seldom,
    }
}

/// The rows by which every live peer is called.
pub fn nudged<'a>(view: &View<'a>, random: &mut fastrand::Rng) -> Vec<&'a Lease> {
    let (asker, counts) = (view.asker(), view.counts());
    let peer = |owner: &WorkerId| owner != asker.me && counts.contains_key(owner);
    let mut theirs: Vec<&Lease> = view
        .leases()
        .iter()
        .filter(|lease| lease.checkpoint_owner.is_none())
        .filter(|lease| lease.owner.as_ref().is_some_and(&peer))
        .collect();
    random.shuffle(&mut theirs);
    let mut rows = nudged_of(theirs, |_| true);
    rows.truncate(MOST);
    rows
}

/// The rows by which these workers are nudged: some of each. During a handoff the previous owner renews the lease.
pub fn nudged_of<'a>(
    leases: impl IntoIterator<Item = &'a Lease>,
    is_nudged: impl Fn(&WorkerId) -> bool,
) -> Vec<&'a Lease> {
    let mut counts = BTreeMap::<&WorkerId, usize>::new();
    let is_chosen = |lease: &&'a Lease| {
        let Some(owner) = lease.actual_owner().filter(|owner| is_nudged(owner)) else { return false };
        let count = counts.entry(owner).or_default();
        *count += 1;
        *count <= ROWS
    };
    leases.into_iter().filter(is_chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseKey;
    use crate::lease::handoff::NONE;
    use crate::lease::history::History;
    use crate::lease::take::Asker;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;
    use std::collections::BTreeSet;
    use tokio::time::Instant;

    const FAILOVER: Duration = Duration::from_secs(10);

    fn fleet(owners: &[(&str, usize)]) -> Vec<Lease> {
        let mut leases = Vec::new();
        for (owner, count) in owners {
            for index in 0..*count {
                let range = HashRange { start: 0, end: 9 };
                let key = LeaseKey::from(format!("{owner}-{index}").as_str());
                let at = Position::new(Sequence::TrimHorizon);
                let mut lease = Lease::new(key, at, BTreeSet::new(), range);
                lease.owner = Some(*owner).filter(|owner| *owner != "-").map(Into::into);
                leases.push(lease);
            }
        }
        leases
    }

    fn with<T>(owners: &[(&str, usize)], later: Duration, ask: impl Fn(&View<'_>) -> T) -> T {
        let leases = fleet(owners);
        let mine = leases.iter().filter(|lease| lease.owner == Some("me".into()));
        let held = mine.map(|lease| lease.key.clone()).collect();
        let asker = Asker {
            me: &"me".into(),
            held: &held,
            failover: FAILOVER,
            max_leases: usize::MAX,
            max_steals: 1,
            priority: true,
            stalled: &NONE,
        };
        let now = Instant::now();
        let mut history = History::default();
        history.note_scan(&leases, now);
        ask(&asker.view(&leases, &history, now + later))
    }

    fn seconds(owners: &[(&str, usize)]) -> f64 {
        with(owners, Duration::ZERO, pause).as_secs_f64()
    }

    #[test]
    fn scan_interval_depends_on_role_and_table_size() {
        assert!((seconds(&[("me", 4), ("x", 4)]) - 5.0).abs() < 0.01, "a small table");
        assert!((seconds(&[("me", 4)]) - 20.0).abs() < 0.01, "alone: nobody can die or leave");
        assert!(seconds(&[("me", 1), ("x", 1)]) < 1.7, "one lease: nudges come late");
        assert!(seconds(&[("x", 4)]) < 1.7, "a spare worker");
        assert!((seconds(&[("x", 400)]) - 5.0).abs() < 0.01, "a spare worker of a large table");
        assert!((seconds(&[("me", 200), ("x", 200)]) - 5.0).abs() < 0.01, "a watcher");
        assert!((seconds(&[("me", 200), ("a", 200), ("b", 200)]) - 20.0).abs() < 0.01, "watched by others");
        assert!((seconds(&[("me", 190), ("a", 200), ("b", 210)]) - 5.0).abs() < 0.01, "short of its share");
    }

    #[test]
    fn every_live_peer_is_nudged_by_a_few_rows() {
        let called = with(&[("me", 3), ("x", 2), ("y", 50), ("-", 7)], Duration::ZERO, |view| {
            let rows = nudged(view, &mut fastrand::Rng::with_seed(1));
            rows.iter().map(|lease| lease.owner.clone().unwrap().to_string()).collect::<Vec<_>>()
        });
        let of = |who: &str| called.iter().filter(|owner| *owner == who).count();
        assert_eq!((of("x"), of("y"), called.len()), (2, 8, 10), "{called:?}");
    }

    #[test]
    fn dead_workers_are_not_nudged() {
        let called = with(&[("me", 3), ("x", 2)], FAILOVER * 2, |view| {
            nudged(view, &mut fastrand::Rng::with_seed(1)).len()
        });
        assert_eq!(called, 0);
    }
}
