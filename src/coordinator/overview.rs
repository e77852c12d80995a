//! The whole fleet as this worker knows it, for people: the rows of its last scan of the lease table, and the worker
//! metrics, where it reads them as the leader. It reads nothing by itself.
//!
//! A member of a KCL 3.x fleet that is not the leader scans the table rarely, so what it shows of other workers may be a
//! few failover times old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Snapshot, Standing};
use crate::fleet::report::Verdict;
use crate::lease::{Lease, LeaseKey, WorkerId};
use crate::metrics::fleet::{Fleet, FleetLease, FleetWorker, LeaseState};
use crate::sequence::Position;

/// The facts of a lease that are shown with their duration.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    checkpoint: Position,
    /// Since when the checkpoint is unchanged.
    since: Instant,
    /// Since when no live worker owns the lease.
    unread: Option<Instant>,
}

/// Since when the facts of all leases have been so, by the scans of this worker.
#[derive(Debug, Clone, Default)]
struct Shown(BTreeMap<LeaseKey, Known>);

impl Shown {
    /// Notes a scan.
    fn note(&mut self, leases: &[Lease], live: &BTreeSet<WorkerId>, now: Instant) {
        for lease in leases {
            let is_unread = matches!(state(lease, live), LeaseState::Unowned | LeaseState::Expired);
            let known = self.0.entry(lease.key.clone()).or_insert_with(|| Known {
                checkpoint: lease.checkpoint.clone(),
                since: now,
                unread: None,
            });
            if known.checkpoint != lease.checkpoint {
                (known.checkpoint, known.since) = (lease.checkpoint.clone(), now);
            }
            known.unread = is_unread.then(|| known.unread.unwrap_or(now));
        }
        if self.0.len() > leases.len() {
            let scanned: BTreeSet<&LeaseKey> = leases.iter().map(|lease| &lease.key).collect();
            self.0.retain(|key, _| scanned.contains(key));
        }
    }
}

/// Composes the present picture of a fleet.
#[derive(Debug)]
pub struct Overview {
    seen: watch::Receiver<Snapshot>,
    standing: watch::Receiver<Standing>,
    shown: Mutex<Shown>,
}

impl Overview {
    /// The overview of a worker with these scans and this standing.
    pub fn new(seen: watch::Receiver<Snapshot>, standing: watch::Receiver<Standing>) -> Self {
        Self { seen, standing, shown: Mutex::default() }
    }

    /// Notes the last scan.
    pub fn note(&self) {
        // The coordinator cannot publish while its snapshot is borrowed.
        let (leases, live, at) = self.scanned();
        if let Some(at) = at {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.note(&leases, &live, at);
        }
    }

    /// The fleet; none before the first scan.
    pub fn fleet(&self) -> Option<Fleet> {
        let now = Instant::now();
        let (leases, live, at) = self.scanned();
        let verdict = {
            let standing = self.standing.borrow();
            // A worker that no longer leads does not read the metrics of others any more.
            if standing.leads(now) { standing.verdict.clone() } else { Arc::default() }
        };
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let scan = Scan { leases: &leases, live: &live, at: at? };
        Some(fleet(&scan, &verdict, &shown, now))
    }

    fn scanned(&self) -> (Arc<Vec<Lease>>, BTreeSet<WorkerId>, Option<Instant>) {
        let seen = self.seen.borrow();
        (seen.leases.clone(), seen.live.clone(), seen.at)
    }
}

/// The parts of a [`Snapshot`] that are shown. A copy of all of it would make the coordinator copy the history.
struct Scan<'a> {
    leases: &'a [Lease],
    live: &'a BTreeSet<WorkerId>,
    at: Instant,
}

/// The fleet by the last scan, at `now`.
fn fleet(seen: &Scan<'_>, verdict: &Verdict, shown: &Shown, now: Instant) -> Fleet {
    let mut leases: BTreeMap<&WorkerId, usize> = BTreeMap::new();
    for owner in seen.leases.iter().filter(|lease| !lease.is_complete()).filter_map(Lease::actual_owner) {
        *leases.entry(owner).or_default() += 1;
    }
    let all: BTreeSet<&WorkerId> =
        leases.keys().copied().chain(seen.live).chain(&verdict.reporting).collect();
    let members: BTreeMap<_, _> = verdict.members.iter().map(|member| (&member.id, member)).collect();
    let worker = |id: &&WorkerId| {
        let member = members.get(*id);
        let metrics = member.map(|member| member.metrics.as_slice()).unwrap_or_default();
        FleetWorker {
            worker: id.to_string(),
            leases: leases.get(id).copied().unwrap_or_default(),
            live: seen.live.contains(*id) || verdict.reporting.contains(*id),
            accepts_leases: verdict.reporting.contains(*id).then_some(member.is_some()),
            metrics: metrics.iter().map(|metric| (metric.name.clone(), metric.value)).collect(),
        }
    };
    let lease = |lease: &Lease| {
        let known = shown.0.get(&lease.key);
        FleetLease {
            key: lease.key.to_string(),
            owner: lease.actual_owner().map(ToString::to_string),
            next_owner: lease.checkpoint_owner.as_ref().and(lease.owner.as_ref()).map(ToString::to_string),
            state: state(lease, seen.live),
            checkpoint_unchanged: known
                .map_or(Duration::ZERO, |known| now.saturating_duration_since(known.since)),
            unread: known
                .and_then(|known| known.unread)
                .map(|since| seen.at.saturating_duration_since(since)),
            kilobytes_per_second: lease.throughput.map(|throughput| throughput.kilobytes()),
        }
    };
    Fleet {
        scanned: seen.at,
        workers: all.iter().map(worker).collect(),
        leases: seen.leases.iter().map(lease).collect(),
    }
}

/// The state of a lease, which is the most urgent one of those that apply.
fn state(lease: &Lease, live: &BTreeSet<WorkerId>) -> LeaseState {
    match lease.actual_owner() {
        _ if lease.is_complete() => LeaseState::Ended,
        None => LeaseState::Unowned,
        Some(owner) if !live.contains(owner) => LeaseState::Expired,
        Some(_) if lease.park.is_some() || lease.pause.as_ref().is_some_and(|pause| pause.is_on()) => {
            LeaseState::Parked
        }
        Some(_) if lease.checkpoint_owner.is_some() => LeaseState::HandingOff,
        Some(_) => LeaseState::Owned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::balance::{Member, Metric};
    use crate::lease::orders::{Park, Pause};
    use crate::sequence::{Sequence, SequenceNumber};
    use crate::shard::HashRange;

    fn lease(shard: &str, owner: Option<&str>) -> Lease {
        let start = Position::new(Sequence::TrimHorizon);
        let range = HashRange { start: 0, end: 9 };
        Lease { owner: owner.map(Into::into), ..Lease::new(shard.into(), start, BTreeSet::new(), range) }
    }

    #[test]
    fn lease_has_its_most_urgent_state() {
        let live = BTreeSet::from(["a".into(), "b".into()]);
        let park = Some(Park::new(1, "ann"));
        let handed = Lease { checkpoint_owner: Some("a".into()), ..lease("s", Some("b")) };
        for (lease, expected) in [
            (lease("s", Some("a")), LeaseState::Owned),
            (lease("s", None), LeaseState::Unowned),
            (lease("s", Some("dead")), LeaseState::Expired),
            (handed.clone(), LeaseState::HandingOff),
            (Lease { checkpoint_owner: Some("dead".into()), ..handed.clone() }, LeaseState::Expired),
            (Lease { park: park.clone(), ..handed }, LeaseState::Parked),
            (Lease { park: park.clone(), ..lease("s", None) }, LeaseState::Unowned),
            (Lease { pause: Some(Pause::new(true, 1, "ann")), ..lease("s", Some("a")) }, LeaseState::Parked),
            (Lease { pause: Some(Pause::new(false, 1, "ann")), ..lease("s", Some("a")) }, LeaseState::Owned),
            (Lease { park, checkpoint: Position::shard_end(), ..lease("s", None) }, LeaseState::Ended),
        ] {
            assert_eq!(state(&lease, &live), expected, "{lease:?}");
        }
    }

    #[test]
    fn fleet_has_the_rows_of_all_workers_and_what_they_report() {
        let now = Instant::now();
        let ended = Lease { checkpoint: Position::shard_end(), ..lease("3", Some("b")) };
        let handed = Lease { checkpoint_owner: Some("a".into()), ..lease("1", Some("b")) };
        let leases = [lease("0", Some("a")), handed, lease("2", Some("gone")), ended];
        let seen = Scan { leases: &leases, live: &BTreeSet::from(["a".into()]), at: now };
        let metric = Metric { name: "C".to_owned(), value: 12.5, limit: 100.0 };
        let verdict = Verdict {
            members: vec![Member { id: "a".into(), metrics: vec![metric], most: 9 }],
            reporting: BTreeSet::from(["a".into(), "b".into()]),
            ..Verdict::default()
        };
        let fleet = fleet(&seen, &verdict, &Shown::default(), now);
        let workers =
            fleet.workers.iter().map(|one| (&*one.worker, one.leases, one.live, one.accepts_leases));
        assert_eq!(
            workers.collect::<Vec<_>>(),
            [("a", 2, true, Some(true)), ("b", 0, true, Some(false)), ("gone", 1, false, None)]
        );
        assert_eq!(fleet.workers[0].metrics, BTreeMap::from([("C".to_owned(), 12.5)]));
        let owners = fleet.leases.iter().map(|one| (one.owner.as_deref(), one.next_owner.as_deref()));
        assert_eq!(
            owners.collect::<Vec<_>>(),
            [(Some("a"), None), (Some("a"), Some("b")), (Some("gone"), None), (Some("b"), None)]
        );
    }

    #[test]
    fn checkpoint_is_unchanged_since_the_scan_that_first_showed_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut shown, live) = (Shown::default(), BTreeSet::new());
        let mut rows = vec![lease("0", None), lease("1", None)];
        shown.note(&rows, &live, at(0));
        rows[1].checkpoint = Position::record(SequenceNumber::parse("5").unwrap(), 0);
        shown.note(&rows, &live, at(10));
        shown.note(&rows, &live, at(20));
        let since =
            |shown: &Shown| ["0", "1"].map(|shard| shown.0.get(&shard.into()).map(|known| known.since));
        assert_eq!(since(&shown), [Some(at(0)), Some(at(10))]);
        shown.note(&rows[1..], &live, at(30));
        assert_eq!(since(&shown), [None, Some(at(10))]);
    }

    #[test]
    fn lease_is_unread_since_the_first_scan_without_a_live_owner() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut shown, live) = (Shown::default(), BTreeSet::from(["a".into()]));
        let unread = |shown: &Shown, now| {
            let scan = Scan { leases: &[lease("0", None)], live: &BTreeSet::new(), at: now };
            fleet(&scan, &Verdict::default(), shown, now).leases[0].unread
        };
        for (seconds, owner, expected) in [
            (0, Some("a"), None),
            (10, None, Some(0)),
            (20, Some("gone"), Some(10)),
            (30, Some("a"), None),
            (40, Some("gone"), Some(0)),
        ] {
            shown.note(&[lease("0", owner)], &live, at(seconds));
            assert_eq!(unread(&shown, at(seconds)), expected.map(Duration::from_secs), "{seconds}");
        }
    }
}
