//! Tests of the coordinator's state, event by event: no clock, no table, no task.

use super::*;
use crate::coordinator::tests::settings;
use crate::coordinator::{Snapshot, event};
use crate::fleet::Mode;
use crate::lease::Lease;
use crate::lease::held::Rival;
use crate::lease::update::Change;
use crate::sequence::{Position, Sequence};
use crate::shard::HashRange;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct Held {
    key: LeaseKey,
    number: usize,
    settled: bool,
}

impl event::Holding for Held {
    fn key(&self) -> &LeaseKey {
        &self.key
    }

    fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    fn is_settled(&self) -> bool {
        self.settled
    }
}

fn lease(key: &str, owner: Option<&str>, counter: i64) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let mut lease = Lease::new(key.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    (lease.owner, lease.counter) = (owner.map(Into::into), counter);
    // A marked row is not watched for a namesake.
    lease.process = Some(ProcessId::new(1, "x", &"x".into()));
    lease
}

fn held(key: &str, number: usize) -> Held {
    Held { key: key.into(), number, settled: true }
}

/// A coordinator of worker `me`, with a failover time of ten seconds.
struct Rig {
    state: State<Held>,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self { state: State::new(settings(), fastrand::Rng::with_seed(1), now), now }
    }

    /// A member of a KCL 3.x fleet.
    fn member() -> Self {
        let mut rig = Self::new();
        let standing = Standing { mode: Some(Mode::ThreeX), led: true, ..Standing::default() };
        assert_eq!(rig.on(Event::Standing(standing)), [""; 0]);
        rig
    }

    /// The leader of a fleet.
    fn leader() -> Self {
        let mut rig = Self::new();
        let until = crate::clock::Expiry::new(rig.now + SECOND * 3_600, crate::clock::slept());
        let leads_until = Some(until);
        rig.on(Event::Standing(Standing {
            mode: Some(Mode::ThreeX),
            leads_until,
            led: true,
            ..Standing::default()
        }));
        rig
    }

    /// The effects of an event, without log lines, metrics and what is published.
    fn on(&mut self, event: Event<Held>) -> Vec<String> {
        self.state.on(self.now, event).iter().filter_map(shown).collect()
    }

    /// The snapshot that a scan publishes.
    fn snapshot(&mut self, leases: Vec<Lease>) -> Snapshot {
        let effects = self.state.on(self.now, Event::Scanned(Ok(leases)));
        effects
            .into_iter()
            .find_map(|effect| if let Effect::Publish(shown) = effect { Some(shown) } else { None })
            .unwrap()
    }

    fn scan(&mut self, leases: &[Lease]) -> Vec<String> {
        self.on(Event::Scanned(Ok(leases.to_vec())))
    }

    /// Acquires a lease that was planned.
    fn holds(&mut self, holding: &Held) {
        let outcome = Ok((holding.clone(), self.now));
        assert_eq!(self.on(Event::Acquired(holding.key.clone(), outcome)), [format!("hold {}", holding.key)]);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// The time until the next look; none while one is in flight.
    fn pause(&self) -> Option<Duration> {
        self.state.scan_due().map(|at| at.saturating_duration_since(self.now))
    }
}

fn shown(effect: &Effect<Held>) -> Option<String> {
    let to = |to: &Recipient| match to {
        Recipient::Nobody => "nobody",
        Recipient::Namesake => "namesake",
        Recipient::Successor(_) => "successor",
    };
    Some(match effect {
        Effect::Scan => "scan".to_owned(),
        Effect::ListOwned => "query".to_owned(),
        Effect::CheckIndex(key) => format!("check {key}"),
        Effect::Read(key) => format!("read {key}"),
        Effect::Acquire(key, _) => format!("acquire {key}"),
        Effect::Hold(held, _) => format!("hold {}", held.key),
        Effect::MarkLost(held) => format!("lose {} {}", held.key, held.number),
        Effect::Release(held, next) => format!("release {} to {}", held.key, to(next)),
        Effect::PassOn(lease, next) => format!("pass on {} to {}", lease.key, to(next)),
        Effect::Restore(held, _) => format!("restore {}", held.key),
        Effect::Nudge(rows) => format!("nudge {} rows", rows.len()),
        Effect::NudgeOwners(workers) => format!("nudge owners {workers:?}"),
        Effect::PassOnNudge => "pass on the nudge".to_owned(),
        Effect::SuspectStream(_) => "suspect the stream".to_owned(),
        Effect::GiveWay(_) => "give way".to_owned(),
        Effect::Publish(_)
        | Effect::PublishUnable(_)
        | Effect::NotePeers(_)
        | Effect::Emit(_)
        | Effect::Log(_) => return None,
    })
}

#[test]
fn scan_acquires_and_the_next_look_waits_for_the_writes() {
    let mut rig = Rig::new();
    assert_eq!((rig.pause(), rig.on(Event::ScanDue)), (Some(Duration::ZERO), vec!["scan".to_owned()]));
    assert_eq!((rig.pause(), rig.on(Event::ScanDue)), (None, vec![]));
    let leases = [lease("a", None, 0), lease("b", None, 0)];
    let mut acquired = rig.scan(&leases);
    acquired.sort();
    assert_eq!(acquired, ["acquire a", "acquire b"]);
    assert_eq!(rig.pause(), None);
    rig.holds(&held("a", 1));
    assert_eq!(rig.pause(), None, "b is in flight");
    let conflict = table::Error::Conflict("b".into());
    assert_eq!(rig.on(Event::Acquired("b".into(), Err(conflict))), [""; 0]);
    assert!(rig.pause().is_some());
    assert_eq!(rig.state.held().collect::<Vec<_>>(), [&LeaseKey::from("a")]);
}

#[test]
fn ambiguous_acquisition_is_followed_by_an_early_scan() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    rig.scan(&[lease("a", None, 0)]);
    rig.on(Event::Acquired("a".into(), Err(table::Error::Ambiguous(String::new()))));
    assert_eq!(rig.pause(), Some(MIN_PAUSE));
}

#[test]
fn failed_scan_is_repeated_and_published_as_inability() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    let effects = rig.state.on(rig.now, Event::Scanned(Err(table::Error::Denied(String::new()))));
    let since = rig.now;
    assert!(effects.iter().any(|effect| matches!(effect, Effect::PublishUnable(Some(at)) if *at == since)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Log(Line::CannotScan(_)))));
    assert_eq!(rig.pause(), Some(SECOND * 4));
    rig.wait(SECOND * 4);
    rig.on(Event::ScanDue);
    let effects = rig.state.on(rig.now, Event::Scanned(Ok(Vec::new())));
    let lasted = SECOND * 4;
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Log(Line::ScansAgain(time)) if *time == lasted))
    );
}

#[test]
fn snapshot_names_live_and_dead_workers() {
    let mut rig = Rig::new();
    let mut leases = vec![lease("a", Some("dead"), 1), lease("b", Some("x"), 1)];
    assert!(rig.snapshot(leases.clone()).dead_workers(SECOND * 10).is_empty());
    for _ in 0..3 {
        rig.wait(SECOND * 9);
        leases[1].counter += 1;
        rig.snapshot(leases.clone());
    }
    let shown = rig.snapshot(leases);
    assert_eq!(shown.live, BTreeSet::from(["me".into(), "x".into()]));
    assert_eq!((shown.leads, shown.at), (None, Some(rig.now)));
    assert_eq!(shown.dead_workers(SECOND * 10), BTreeSet::from(["dead".into()]));
}

#[test]
fn lost_lease_is_removed_but_not_a_later_one() {
    let mut rig = Rig::new();
    rig.holds(&held("a", 1));
    rig.wait(SECOND);
    assert_eq!(rig.on(Event::RenewalEnded(held("a", 1))), ["lose a 1"]);
    assert_eq!(rig.state.held().count(), 0);
    assert_eq!(rig.pause(), Some(Duration::ZERO), "a scan was due already");
    rig.holds(&held("a", 2));
    let unsettled = Held { settled: false, ..held("a", 1) };
    assert_eq!(rig.on(Event::RenewalEnded(unsettled)), ["lose a 1", "restore a"]);
    assert_eq!(rig.state.held().count(), 1, "it is another holding");
}

#[test]
fn lease_is_not_acquired_during_its_release() {
    let mut rig = Rig::new();
    rig.holds(&held("a", 1));
    assert_eq!(rig.on(Event::ReleaseOrdered(held("a", 1))), ["release a to nobody"]);
    assert_eq!((rig.state.held().count(), rig.state.releasing()), (0, 1));
    rig.on(Event::ScanDue);
    assert_eq!(rig.scan(&[lease("a", None, 5)]), [""; 0]);
    assert_eq!(rig.on(Event::Released("a".into(), None)), [""; 0]);
    assert_eq!(rig.state.nudge_due(), Some(rig.now + GATHER));
    rig.on(Event::ScanDue);
    assert_eq!(rig.scan(&[lease("a", None, 5)]), ["acquire a"]);
}

#[test]
fn lease_lost_during_its_release_is_released_twice() {
    let mut rig = Rig::new();
    for number in [1, 2] {
        assert_eq!(rig.on(Event::ReleaseOrdered(held("a", number))), ["release a to nobody"]);
    }
    rig.on(Event::Released("a".into(), None));
    assert_eq!(rig.state.releasing(), 1);
    rig.on(Event::Released("a".into(), None));
    assert!(rig.state.has_ended());
}

#[test]
fn ordered_scan_is_due_at_once_and_deleted_lease_is_lost() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    rig.scan(&[lease("a", Some("me"), 1), lease("b", Some("x"), 1)]);
    rig.holds(&held("a", 1));
    assert!(rig.pause().unwrap() > Duration::ZERO);
    assert_eq!(rig.on(Event::ScanOrdered), [""; 0]);
    assert_eq!(rig.pause(), Some(Duration::ZERO));
    assert_eq!(rig.on(Event::ForgetOrdered("a".into())), ["lose a 1"]);
    assert_eq!(rig.on(Event::ForgetOrdered("a".into())), [""; 0]);
}

#[test]
fn nudged_worker_scans_at_once_and_then_after_growing_pauses() {
    let mut rig = Rig::member();
    let leases = [lease("a", Some("x"), 1)];
    rig.on(Event::ScanDue);
    rig.scan(&leases);
    rig.on(Event::NudgeDue);
    assert_eq!(rig.on(Event::Nudged), ["pass on the nudge"]);
    assert_eq!(rig.pause(), Some(Duration::ZERO));
    let mut pauses = Vec::new();
    for _ in 0..4 {
        assert_eq!(rig.on(Event::ScanDue), ["query"]);
        rig.on(Event::OwnedListed(Ok(Vec::new())));
        pauses.push(rig.pause().unwrap());
        rig.wait(rig.pause().unwrap());
    }
    for (pause, most) in pauses.into_iter().zip(ALERT) {
        assert!(pause <= most && pause >= most.mul_f64(0.9), "{pause:?}, at most {most:?}");
    }
}

#[test]
fn older_process_with_this_id_ends_this_one() {
    let mut rig = Rig::new();
    rig.holds(&held("a", 1));
    let older = ProcessId::new(1, "a", &"me".into());
    assert_eq!(rig.on(Event::RivalMet(Rival { key: "a".into(), process: Some(older) })), ["give way"]);
    assert_eq!(rig.on(Event::End), ["release a to namesake"]);
}

#[test]
fn peers_are_nudged_by_their_rows_without_a_leader() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    rig.scan(&[lease("a", Some("x"), 1), lease("b", Some("x"), 1), lease("c", Some("me"), 1)]);
    assert_eq!(rig.on(Event::NudgeDue), ["nudge 2 rows"]);
    assert_eq!(rig.state.nudge_due(), None);
}

#[test]
fn member_introduces_itself_and_then_queries_the_index() {
    let mut rig = Rig::member();
    assert_eq!(rig.on(Event::ScanDue), ["scan"], "the table was not scanned so far");
    assert_eq!(rig.scan(&[lease("a", Some("me"), 1), lease("b", Some("x"), 1)]), ["acquire a"]);
    rig.holds(&held("a", 1));
    assert_eq!(rig.on(Event::NudgeDue), ["nudge owners None"]);
    rig.wait(SECOND * 10);
    assert_eq!(rig.on(Event::ScanDue), ["query"]);
    assert_eq!(rig.on(Event::OwnedListed(Ok(vec!["a".into(), "b".into()]))), ["read b"]);
    assert_eq!(rig.pause(), None, "b is in flight");
    let mine = lease("b", Some("me"), 3);
    assert_eq!(rig.on(Event::RowRead("b".into(), Ok(Some(mine)))), ["acquire b"]);
    rig.holds(&held("b", 2));
    assert!(rig.pause().is_some());
}

#[test]
fn listed_lease_is_acquired_only_if_it_is_this_workers() {
    let mut rig = Rig::member();
    rig.on(Event::ScanDue);
    rig.scan(&[]);
    let mut finished = lease("a", Some("me"), 1);
    finished.checkpoint = Position::shard_end();
    let mut handed = lease("a", Some("me"), 1);
    handed.checkpoint_owner = Some("x".into());
    let denied = Err(table::Error::Denied(String::new()));
    for (read, again) in [
        (Ok(None), false),
        (Ok(Some(lease("a", Some("x"), 1))), false),
        (Ok(Some(finished)), false),
        (denied, false),
        (Ok(Some(handed)), true),
    ] {
        rig.wait(SECOND);
        rig.on(Event::ScanDue);
        assert_eq!(rig.on(Event::OwnedListed(Ok(vec!["a".into()]))), ["read a"]);
        assert_eq!(rig.on(Event::RowRead("a".into(), read)), [""; 0]);
        assert_eq!(
            rig.pause() == Some(SECOND * 3 / 2),
            again,
            "the time until it looks for a handed over lease"
        );
    }
}

#[test]
fn stalled_handoff_is_acquired_by_the_designated_worker() {
    let mut rig = Rig::member();
    rig.on(Event::ScanDue);
    rig.scan(&[]);
    let mut handed = lease("a", Some("me"), 1);
    handed.checkpoint_owner = Some("x".into());
    for second in [1, 80] {
        rig.wait(SECOND * second);
        handed.counter += 1;
        rig.on(Event::OwnedListed(Ok(vec!["a".into()])));
        assert_eq!(rig.on(Event::RowRead("a".into(), Ok(Some(handed.clone())))), [""; 0]);
    }
    rig.wait(SECOND);
    rig.on(Event::OwnedListed(Ok(vec!["a".into()])));
    assert_eq!(rig.on(Event::RowRead("a".into(), Ok(Some(handed)))), ["acquire a"]);
}

#[test]
fn failing_or_lagging_index_is_replaced_by_scans() {
    let mut rig = Rig::member();
    rig.on(Event::ScanDue);
    rig.scan(&[lease("a", Some("me"), 1)]);
    rig.holds(&held("a", 1));
    rig.wait(SECOND * 10);
    assert_eq!(rig.on(Event::ScanDue), ["query"]);
    assert_eq!(rig.on(Event::OwnedListed(Ok(Vec::new()))), ["check a"]);
    rig.on(Event::IndexChecked(Some(lease("a", Some("me"), 2))));
    assert_eq!((rig.pause(), rig.on(Event::ScanDue)), (Some(Duration::ZERO), vec!["scan".to_owned()]));
    let mut rig = Rig::member();
    rig.on(Event::ScanDue);
    rig.scan(&[]);
    rig.wait(SECOND);
    assert_eq!(rig.on(Event::ScanDue), ["query"]);
    assert_eq!(rig.on(Event::OwnedListed(Err(table::Error::Denied(String::new())))), ["scan"]);
    assert_eq!(rig.pause(), None);
}

#[test]
fn leader_scans_and_publishes_what_it_must_not_assign() {
    let mut rig = Rig::leader();
    assert_eq!(rig.on(Event::ScanDue), ["scan"]);
    rig.holds(&held("a", 1));
    rig.holds(&held("b", 2));
    rig.on(Event::ReleaseOrdered(held("b", 2)));
    let shown = rig.snapshot(vec![lease("a", Some("me"), 1), lease("b", Some("me"), 1), lease("c", None, 0)]);
    assert_eq!(shown.leads, Some(true));
    assert_eq!((shown.held.len(), (*shown.excluded).clone()), (1, BTreeSet::from(["b".into()])));
    let pause = rig.pause().unwrap();
    assert!(pause <= SECOND * 5 && pause >= SECOND * 4, "{pause:?}");
    rig.wait(SECOND * 3_600);
    assert_eq!(rig.snapshot(Vec::new()).leads, Some(false), "the lock has expired");
}

#[test]
fn worker_that_was_assigned_a_lease_is_nudged_soon() {
    let mut rig = Rig::leader();
    assert_eq!(rig.on(Event::NudgeOrdered("x".into())), [""; 0]);
    assert_eq!(rig.state.nudge_due(), Some(rig.now + GATHER));
    assert_eq!(rig.on(Event::NudgeDue), ["nudge owners Some([x])"]);
}

#[test]
fn panicked_work_is_no_longer_in_flight() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    assert_eq!(rig.on(Event::Panicked(Work::Look)), [""; 0]);
    assert!(rig.pause().is_some());
    assert_eq!(rig.scan(&[lease("a", None, 0)]), ["acquire a"]);
    assert_eq!(rig.on(Event::Panicked(Work::Lease("a".into(), Intent::Acquire))), [""; 0]);
    assert!(rig.pause().is_some());
    rig.on(Event::ReleaseOrdered(held("b", 1)));
    rig.on(Event::Panicked(Work::Lease("b".into(), Intent::Release)));
    rig.on(Event::Panicked(Work::Other));
    assert!(rig.state.has_ended());
}

#[test]
fn stopping_worker_acquires_nothing_and_offers_its_leases() {
    let mut rig = Rig::member();
    rig.on(Event::ScanDue);
    rig.scan(&[lease("a", Some("me"), 1)]);
    rig.holds(&held("a", 1));
    rig.wait(SECOND * 10);
    rig.on(Event::ScanDue);
    rig.on(Event::OwnedListed(Ok(vec!["a".into(), "b".into()])));
    rig.on(Event::Stop);
    assert_eq!(rig.pause(), None);
    assert_eq!(rig.on(Event::RowRead("b".into(), Ok(Some(lease("b", Some("me"), 1))))), [""; 0]);
    assert_eq!(rig.scan(&[lease("c", Some("me"), 1)]), [""; 0]);
    assert_eq!(rig.on(Event::ReleaseOrdered(held("a", 1))), ["release a to successor"]);
    assert_eq!(rig.on(Event::Released("a".into(), Some("x".into()))), [""; 0]);
    assert_eq!(rig.on(Event::NudgeDue), ["nudge owners None"]);
}

#[test]
fn last_leases_are_released_and_late_ones_passed_on() {
    let mut rig = Rig::member();
    rig.on(Event::ScanDue);
    rig.scan(&[lease("a", Some("me"), 1), lease("b", Some("me"), 1)]);
    rig.holds(&held("a", 1));
    rig.on(Event::Stop);
    assert_eq!(rig.on(Event::End), ["release a to successor"]);
    assert!(!rig.state.has_ended());
    let late = Ok((held("b", 2), rig.now));
    assert_eq!(rig.on(Event::Acquired("b".into(), late)), ["release b to successor"]);
    for key in ["a", "b"] {
        rig.on(Event::Released(key.into(), None));
    }
    assert!(rig.state.has_ended() && rig.state.passes_on());
    let later = ProcessId::new(i64::MAX, "later", &"me".into());
    let of_a_later = Lease { process: Some(later), ..lease("e", Some("me"), 1) };
    let left = vec![lease("c", Some("me"), 1), lease("d", Some("x"), 1), of_a_later];
    assert_eq!(rig.on(Event::LastScan(left)), ["pass on c to successor"]);
}

#[test]
fn rows_of_another_stream_are_suspected_once_a_minute() {
    let mut rig = Rig::new();
    let stream =
        |created| crate::stream::StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/s", created);
    rig.state.settings.recognitions.get(None).unwrap().recognise(Some(stream(5)), BTreeSet::new());
    let other = Lease { stream: Some(stream(4)), ..lease("a", None, 1) };
    for expected in [1, 0] {
        rig.on(Event::ScanDue);
        let suspected = rig
            .scan(std::slice::from_ref(&other))
            .iter()
            .filter(|shown| *shown == "suspect the stream")
            .count();
        assert_eq!(suspected, expected);
    }
}

#[test]
fn acquisition_carries_the_mark_of_this_process() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    let effects = rig.state.on(rig.now, Event::Scanned(Ok(vec![lease("a", None, 0)])));
    let process = rig.state.settings.process.clone();
    let is_marked = |effect: &Effect<Held>| matches!(effect, Effect::Acquire(_, update) if update.changes.contains(&Change::SetProcess(process.clone())));
    assert!(effects.iter().any(is_marked), "{effects:?}");
}

#[test]
fn order_of_an_old_scan_is_not_brought_to_a_new_lease() {
    for (age, is_brought) in [(SECOND * 9, true), (SECOND * 10, false)] {
        let mut rig = Rig::new();
        rig.on(Event::ScanDue);
        let on = Pause::new(true, 5, "ann");
        let ended = Lease { checkpoint: Position::shard_end(), pause: Some(on), ..lease("a", None, 0) };
        rig.on(Event::Scanned(Ok(vec![ended])));
        rig.now += age;
        rig.state.begun(&"c".into(), Intent::Read);
        let child = lease("c", Some("me"), 0);
        let effects = rig.state.on(rig.now, Event::RowRead("c".into(), Ok(Some(child))));
        let brings = |effect: &Effect<Held>| matches!(effect, Effect::Acquire(_, update) if update.changes.iter().any(|change| matches!(change, Change::SetPause(_))));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Acquire(..))), "{effects:?}");
        assert_eq!(effects.iter().any(brings), is_brought, "{age:?}");
    }
}

#[test]
fn lease_created_during_a_pause_is_acquired_paused() {
    let mut rig = Rig::new();
    rig.on(Event::ScanDue);
    let on = Pause::new(true, 5, "ann");
    let ended = Lease { checkpoint: Position::shard_end(), pause: Some(on.clone()), ..lease("a", None, 0) };
    let created = lease("b", None, 0);
    let effects = rig.state.on(rig.now, Event::Scanned(Ok(vec![ended, created.clone()])));
    let acquired = effects.iter().find_map(|effect| {
        let Effect::Acquire(_, update) = effect else { return None };
        Some(update)
    });
    let mut after = created.clone();
    assert!(acquired.unwrap().holds(&created));
    acquired.unwrap().apply(&mut after);
    assert_eq!(after.pause, Some(on));
    let resumed = Lease { pause: Some(Pause::new(false, 6, "ann")), ..created };
    assert!(!acquired.unwrap().holds(&resumed), "resumed since");
}
