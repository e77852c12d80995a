//! Tests of a member's state, event by event: no clock, no table, no task.

use std::collections::BTreeSet;

use super::*;
use crate::fleet::rows::{Dated, Generation, Lock, Report, Stage};
use crate::fleet::store::LockWrite;
use crate::fleet::table_migration::Step;
use crate::fleet::{leader, report};
use crate::lease::{LeaseKey, WorkerId, balance, table};
use crate::membership::event::Monitored;

const SECOND: Duration = Duration::from_secs(1);
const WALL: i64 = 1_795_000_000_000;

fn settings() -> Settings {
    Settings {
        me: "me".into(),
        failover: SECOND * 10,
        configured: crate::fleet::version::Configured::Default,
        migrate: true,
        bake: SECOND * 60,
        rules: report::Rules { every: SECOND * 30, alpha: 0.5, stale: SECOND * 86_400 },
        assignment: assignment(),
        sample_every: SECOND,
        averages: 10,
        wall: || WALL,
        sink: Arc::new(crate::metrics::Discard),
        capacity: Arc::default(),
        reach: Arc::default(),
        stop: crate::clock::Stop::within(SECOND),
        surroundings: None,
    }
}

pub(in crate::membership) fn assignment() -> leader::Rules {
    leader::Rules {
        failover: SECOND * 10,
        balance: balance::Rules {
            threshold: 10.0,
            dampening: 60.0,
            overshoot: true,
            max_throughput: f64::MAX,
            max_leases: 10,
        },
        balance_every: SECOND * 60,
        graceful: true,
        hand_off: SECOND * 30,
    }
}

struct Rig {
    state: State,
    moment: Moment,
    /// As last published.
    standing: Standing,
}

impl Rig {
    fn of(mode: Mode, layout: Layout) -> Self {
        let moment = Moment { now: Instant::now(), wall: WALL, slept: Duration::ZERO };
        let begun = Begun { mode, layout, alone: layout == Layout::Complete, indexed: true };
        let state = State::new(settings(), begun, fastrand::Rng::with_seed(1), moment);
        let mut rig = Self { state, moment, standing: Standing::default() };
        rig.on(Event::Begin);
        rig
    }

    fn new() -> Self {
        Self::of(Mode::ThreeX, Layout::Complete)
    }

    /// A worker that has acquired the lock, and whose requests are not in flight.
    fn leader(layout: Layout) -> Self {
        let mut rig = Self::of(Mode::ThreeX, layout);
        rig.on(Event::Wake);
        rig.on(Event::Reported(Ok(())));
        let place = rig.state.layout.lock();
        rig.on(Event::LockRead(place, Ok(None)));
        let shown = rig.on(rig.written(Ok(())));
        assert!(shown.contains(&"read reports".to_owned()), "{shown:?}");
        rig.on(Event::Judged(Ok(Vec::new())));
        rig
    }

    fn written(&self, outcome: Result<(), table::Error>) -> Event {
        let place = self.state.layout.lock();
        Event::LockWritten { place, action: "dynamodb:PutItem", outcome, stage: None }
    }

    fn on(&mut self, event: Event) -> Vec<String> {
        let effects = self.state.on(self.moment, event);
        for effect in &effects {
            if let Effect::Publish(standing) = effect {
                self.standing = Standing::clone(standing);
            }
        }
        effects.iter().filter_map(shown).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.moment.now += time;
        self.moment.wall += i64::try_from(time.as_millis()).unwrap();
    }

    fn leads(&self) -> bool {
        self.standing.leads_until.is_some_and(|until| self.moment.now < until.awake())
    }

    fn reports(&self, workers: &[&str]) -> Vec<Report> {
        let row = |worker: &&str| {
            Recorder::new(false, 1).report(&WorkerId::from(*worker), self.moment.wall / 1_000)
        };
        workers.iter().map(row).collect()
    }
}

fn shown(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::ScanNow => "scan now".to_owned(),
        Effect::NudgeSoon(worker) => format!("nudge {worker}"),
        Effect::Assign(next) => format!("{:?} {} to {}", next.how, next.lease.key, next.to),
        Effect::FindGauge => "find a gauge".to_owned(),
        Effect::Sample => "sample".to_owned(),
        Effect::ReadLock(_) => "read lock".to_owned(),
        Effect::WriteLock(_, LockWrite::Acquire { .. }, _) => "acquire lock".to_owned(),
        Effect::WriteLock(..) => "renew lock".to_owned(),
        Effect::ReleaseLock(..) => "release lock".to_owned(),
        Effect::LastRelease(..) => "release lock at last".to_owned(),
        Effect::Report(_, report) => {
            let wants_none =
                report.samples.iter().flat_map(|samples| samples.values()).flatten().any(|s| *s < 0.0);
            format!("report{}", if wants_none { ", accepting no leases" } else { "" })
        }
        Effect::ReadReports(_) => "read reports".to_owned(),
        Effect::Sweep(_, stale) => format!("sweep {}", stale.len()),
        Effect::Monitor { .. } => "monitor".to_owned(),
        Effect::Check(_) => "check".to_owned(),
        Effect::Advance(_) => "advance".to_owned(),
        Effect::MakeIndex => "make index".to_owned(),
        Effect::Survey => "survey".to_owned(),
        Effect::Migrate(step, _) => format!("migrate: {step}"),
        Effect::Publish(_) | Effect::Emit(_) => return None,
    })
}

fn lock(owner: &str, seconds: u64, version: &str) -> Lock {
    Lock {
        owner: owner.into(),
        lease: SECOND * u32::try_from(seconds).unwrap(),
        version: version.into(),
        released: false,
    }
}

#[test]
fn first_wake_reads_the_lock_and_reports() {
    let mut rig = Rig::new();
    assert_eq!(rig.on(Event::Wake), ["read lock", "report"]);
    assert_eq!(rig.on(Event::Wake), [""; 0], "both are in flight");
    assert_eq!(rig.standing.mode, Some(Mode::ThreeX));
}

#[test]
fn free_lock_is_acquired_and_the_reports_are_read() {
    let mut rig = Rig::leader(Layout::Complete);
    assert!(rig.leads() && rig.standing.led);
    rig.wait(SECOND * 7);
    assert_eq!(rig.on(Event::Wake), ["renew lock"]);
    rig.on(rig.written(Ok(())));
    rig.wait(SECOND * 20);
    rig.on(Event::Wake);
    assert!(!rig.leads(), "not renewed");
}

#[test]
fn lock_of_another_is_observed_and_suspected() {
    let mut rig = Rig::new();
    for second in [0, 5, 5] {
        rig.wait(SECOND * second);
        rig.on(Event::Wake);
        rig.on(Event::LockRead(StateLocation::Leases, Ok(Some(lock("x", 16, "v")))));
    }
    assert!(rig.standing.led && rig.standing.led_by_ours && !rig.leads());
    assert!(rig.standing.suspect, "unchanged for longer than half its duration");
    let mut rig = Rig::new();
    rig.on(Event::LockRead(StateLocation::Leases, Ok(Some(lock("java", 120, "v")))));
    assert!(rig.standing.led && !rig.standing.led_by_ours);
}

#[test]
fn failed_or_lost_lock_write_is_repeated_after_a_pause() {
    for (outcome, least, most) in [
        (table::Error::Conflict("Leader".into()), 200, 500),
        (table::Error::Throttled(String::new()), 1_000, 3_000),
    ] {
        let mut rig = Rig::new();
        rig.on(Event::Wake);
        rig.on(Event::Reported(Ok(())));
        assert_eq!(rig.on(Event::LockRead(StateLocation::Leases, Ok(None))), ["acquire lock"]);
        rig.on(rig.written(Err(outcome)));
        let pause = rig.state.request(Kind::Lock).due.unwrap() - rig.moment.now;
        assert!(pause.as_millis() >= least && pause.as_millis() <= most, "{pause:?}");
        assert!(!rig.leads());
    }
}

#[test]
fn fleet_without_a_leader_shares_leases_after_three_failover_times() {
    let mut rig = Rig::new();
    for second in [0, 10, 10] {
        rig.wait(SECOND * second);
        rig.on(Event::LockRead(StateLocation::Leases, Err(table::Error::Denied(String::new()))));
        assert_eq!(rig.standing.unled, None);
    }
    rig.wait(SECOND * 10);
    let shown = rig.on(Event::LockRead(StateLocation::Leases, Err(table::Error::Denied(String::new()))));
    assert_eq!((rig.standing.unled, shown), (Some(Unled::Unknown), vec!["scan now".to_owned()]));
}

#[test]
fn nudged_worker_reads_the_lock_at_once() {
    let mut rig = Rig::new();
    rig.on(Event::Wake);
    rig.on(Event::LockRead(StateLocation::Leases, Ok(Some(lock("x", 16, "v")))));
    assert_eq!(rig.on(Event::Wake), [""; 0]);
    assert_eq!((rig.on(Event::Nudged), rig.on(Event::Wake)), (vec![], vec!["read lock".to_owned()]));
    let mut rig = Rig::of(Mode::Phase1, Layout::Complete);
    rig.on(Event::Nudged);
    assert_eq!(rig.on(Event::Wake), [""; 0]);
}

#[test]
fn judged_reports_become_members_and_stale_ones_are_swept() {
    let mut rig = Rig::leader(Layout::Complete);
    let mut reports = rig.reports(&["me", "x", "old"]);
    reports[2].at = Some(1);
    let shown = rig.on(Event::Judged(Ok(reports)));
    assert_eq!(shown, ["sweep 1", "scan now"]);
    assert_eq!(rig.standing.verdict.reporting, BTreeSet::from(["me".into(), "x".into()]));
    rig.wait(SECOND * 12);
    rig.state.snapshot.renewing = BTreeSet::from(["y".into()]);
    rig.on(Event::Judged(Err(table::Error::Denied(String::new()))));
    assert_eq!(rig.standing.verdict.reporting.len(), 2, "the last reports are still fresh");
}

#[test]
fn worker_that_cannot_acquire_leases_reports_so() {
    let mut rig = Rig::new();
    rig.on(Event::Wake);
    assert_eq!(rig.on(Event::Reported(Ok(()))), [""; 0]);
    let unable = Snapshot { unable: Some(rig.moment.now), ..Snapshot::default() };
    assert_eq!(rig.on(Event::Scanned(unable)), [""; 0]);
    rig.wait(SECOND * 19);
    assert_eq!(rig.on(Event::Wake), [""; 0]);
    rig.wait(SECOND);
    assert_eq!(rig.on(Event::Wake), ["report, accepting no leases"]);
    rig.on(Event::Reported(Err(table::Error::Throttled(String::new()))));
    rig.on(Event::Scanned(Snapshot::default()));
    assert_eq!(rig.on(Event::Wake), ["report"], "it can again");
}

#[test]
fn leader_tries_itself_while_no_worker_accepts_leases() {
    let mut rig = Rig::leader(Layout::Complete);
    rig.on(Event::Wake);
    rig.on(Event::Reported(Ok(())));
    rig.state.withdrawn = true;
    let me = WorkerId::from("me");
    let farewell = |rig: &Rig| Recorder::farewell(&me, rig.moment.wall / 1_000);
    let mut reports = vec![farewell(&rig)];
    rig.on(Event::Judged(Ok(reports.clone())));
    let members = |rig: &Rig| -> Vec<String> {
        rig.standing.verdict.members.iter().map(|member| member.id.to_string()).collect()
    };
    assert_eq!(members(&rig), ["me"], "nothing else would show that it can acquire leases again");
    reports.extend(rig.reports(&["x"]));
    rig.on(Event::Judged(Ok(reports)));
    assert_eq!(members(&rig), ["x"]);
    // A worker that is not unable and asks for nothing gets nothing.
    rig.state.withdrawn = false;
    let reports = vec![farewell(&rig)];
    rig.on(Event::Judged(Ok(reports)));
    assert_eq!(members(&rig), [""; 0]);
}

#[test]
fn leader_without_scans_releases_the_lock() {
    let mut rig = Rig::leader(Layout::Complete);
    let mut released = false;
    for _ in 0..16 {
        rig.wait(SECOND * 5);
        let shown = rig.on(Event::Wake);
        released |= shown.contains(&"release lock".to_owned());
        rig.on(rig.written(Ok(())));
    }
    assert!(released);
}

#[test]
fn monitored_generation_changes_the_mode() {
    let mut rig = Rig::of(Mode::Upgrade, Layout::Complete);
    rig.wait(SECOND * 100);
    assert_eq!(rig.on(Event::Wake), ["report", "monitor", "check"]);
    let (wall, me) = (rig.moment.wall, WorkerId::from("x"));
    let generation = Some(Dated::first(Generation::ThreeX, Generation::Upgrade, &me, wall));
    let shown = rig.on(Event::Monitored(Ok(Monitored { generation, stage: None, old: false })));
    assert_eq!(
        (rig.standing.mode, shown),
        (Some(Mode::ThreeX), vec!["make index".to_owned(), "scan now".to_owned()])
    );
    rig.wait(SECOND * 100);
    rig.on(Event::Wake);
    assert_eq!(rig.on(Event::Monitored(Err(table::Error::Denied(String::new())))), [""; 0]);
}

#[test]
fn tables_of_an_older_version_bar_from_leading() {
    let mut rig = Rig::leader(Layout::Complete);
    let seen = |old| Event::Monitored(Ok(Monitored { generation: None, stage: None, old }));
    assert_eq!(rig.on(seen(true)), ["release lock"]);
    rig.wait(SECOND * 30);
    rig.on(Event::Wake);
    assert_eq!(rig.on(Event::LockRead(StateLocation::Leases, Ok(None))), [""; 0]);
    assert!(!rig.leads());
}

#[test]
fn fleet_advances_once_all_workers_have_supported_it_long_enough() {
    let mut rig = Rig::of(Mode::Upgrade, Layout::Complete);
    let mut advanced = Vec::new();
    for minute in 0..15 {
        rig.wait(SECOND * 60);
        let reports = rig.reports(&["me"]);
        if rig.on(Event::Checked(Ok((true, reports)))) == ["advance"] {
            advanced.push(minute);
        }
    }
    assert!(!advanced.is_empty() && advanced[0] > 1, "{advanced:?}");
    assert_eq!(rig.on(Event::Advanced(Ok(()))), [""; 0]);
    rig.on(Event::Checked(Err(table::Error::Denied(String::new()))));
    let reports = rig.reports(&["me"]);
    assert_eq!(rig.on(Event::Checked(Ok((true, reports)))), [""; 0], "the time starts again");
}

#[test]
fn missing_index_is_created_until_it_exists() {
    let mut rig = Rig::new();
    rig.state.plan(Kind::Index, Some(rig.moment.now));
    assert_eq!(rig.on(Event::Wake), ["read lock", "report", "make index"]);
    rig.on(Event::Indexed(Ok(false)));
    rig.wait(MONITOR);
    assert!(rig.on(Event::Wake).contains(&"make index".to_owned()));
    rig.on(Event::Indexed(Err(table::Error::Denied(String::new()))));
    rig.wait(MONITOR);
    assert!(rig.on(Event::Wake).contains(&"make index".to_owned()));
    rig.on(Event::Indexed(Ok(true)));
    rig.wait(MONITOR);
    assert!(!rig.on(Event::Wake).contains(&"make index".to_owned()));
}

#[test]
fn gauge_is_sampled_at_its_interval() {
    let mut rig = Rig::new();
    rig.on(Event::Wake);
    assert_eq!(rig.on(Event::GaugeFound("host")), [""; 0]);
    rig.wait(SECOND);
    assert_eq!(rig.on(Event::Wake), ["sample"]);
    rig.wait(SECOND * 2);
    assert_eq!(rig.on(Event::Wake), [""; 0], "in flight");
    rig.on(Event::Sampled(Some(50.0)));
    assert_eq!(rig.on(Event::Wake), ["sample"]);
}

#[test]
fn panicked_request_is_made_again() {
    let mut rig = Rig::new();
    assert_eq!(rig.on(Event::Wake), ["read lock", "report"]);
    rig.on(Event::Panicked(Some(Kind::Lock)));
    rig.on(Event::Panicked(Some(Kind::Report)));
    rig.on(Event::Panicked(None));
    rig.wait(SECOND * 30);
    assert_eq!(rig.on(Event::Wake), ["read lock", "report"]);
}

#[test]
fn leader_takes_the_steps_of_the_table_migration() {
    let mut rig = Rig::leader(Layout::Init);
    rig.wait(SECOND);
    let shown = rig.on(Event::Wake);
    assert!(shown.contains(&"survey".to_owned()), "{shown:?}");
    assert_eq!(rig.on(Event::Surveyed(Err(table::Error::Denied(String::new())), SECOND)), [""; 0]);
    rig.on(Event::Migrated(Step::Create(Stage::Init), Ok(())));
    assert!(rig.on(Event::Wake).contains(&"survey".to_owned()), "the next step may be due at once");
}

#[test]
fn lock_written_in_the_old_place_counts_no_more() {
    let mut rig = Rig::new();
    rig.on(Event::Wake);
    let event = Event::LockWritten { place: StateLocation::Legacy, action: "", outcome: Ok(()), stage: None };
    assert_eq!(rig.on(event), [""; 0]);
    assert!(!rig.leads() && !rig.state.is_in_flight(Kind::Lock));
}

#[test]
fn stopping_leader_releases_the_lock() {
    let mut rig = Rig::leader(Layout::Complete);
    assert_eq!(rig.on(Event::Stop), ["release lock at last"]);
    assert!(!rig.leads());
    assert_eq!(Rig::new().on(Event::Stop), [""; 0]);
}

fn lease(key: &str, owner: Option<&str>) -> crate::lease::Lease {
    let range = crate::shard::HashRange { start: 0, end: 9 };
    let at = crate::sequence::Position::new(crate::sequence::Sequence::TrimHorizon);
    let lease = crate::lease::Lease::new(key.into(), at, BTreeSet::new(), range);
    crate::lease::Lease { owner: owner.map(Into::into), ..lease }
}

/// The result of a scan, as the coordinator publishes it.
fn scanned(rig: &Rig, leases: Vec<crate::lease::Lease>) -> Event {
    let mut history = crate::lease::history::History::default();
    history.note_scan(&leases, rig.moment.now);
    let at = Some(rig.moment.now);
    Event::Scanned(Snapshot { leases: leases.into(), history: Arc::new(history), at, ..Snapshot::default() })
}

/// A leader that assigns leases to itself and to `x`.
fn assigning() -> Rig {
    let mut rig = Rig::leader(Layout::Complete);
    let reports = rig.reports(&["me", "x"]);
    rig.on(Event::Judged(Ok(reports)));
    rig
}

#[test]
fn leader_assigns_scanned_leases_and_nudges_their_owners() {
    let mut rig = assigning();
    let event = scanned(&rig, vec![lease("a", None), lease("b", None)]);
    let mut orders = rig.on(event);
    orders.sort();
    let (to_me, to_x) = (["Assign a to me", "Assign b to x"], ["Assign a to x", "Assign b to me"]);
    assert!(orders == to_me || orders == to_x, "{orders:?}");
    let mine: LeaseKey = if orders == to_me { "a".into() } else { "b".into() };
    let other: LeaseKey = if orders == to_me { "b".into() } else { "a".into() };
    assert_eq!(rig.on(Event::Assigned(mine, Ok(()))), [""; 0], "one is in flight");
    assert_eq!(rig.on(Event::Assigned(other, Ok(()))), ["nudge x", "scan now"]);
    let again = scanned(&rig, vec![lease("c", None)]);
    assert_eq!(rig.on(again), [""; 0], "that scan was planned for");
}

#[test]
fn rejected_assignment_is_followed_by_a_scan() {
    let mut rig = assigning();
    let event = scanned(&rig, vec![lease("a", None)]);
    rig.on(event);
    assert_eq!(rig.on(Event::Assigned("a".into(), Err(table::Error::Conflict("a".into())))), [""; 0]);
    rig.wait(SECOND / 4);
    assert_eq!(rig.on(Event::Wake), ["scan now"]);
    assert_eq!(rig.on(Event::Wake), [""; 0]);
}

#[test]
fn no_more_than_twelve_assignments_are_in_flight() {
    let mut rig = assigning();
    let leases = (0..20).map(|number| lease(&format!("{number:02}"), None)).collect();
    let event = scanned(&rig, leases);
    let begun = rig.on(event);
    assert_eq!(begun.len(), 12);
    let key = begun[0].split(' ').nth(1).unwrap().into();
    let next = rig.on(Event::Assigned(key, Err(table::Error::Denied(String::new()))));
    assert_eq!(next.len(), 1, "{next:?}");
    rig.wait(SECOND);
    let later = scanned(&rig, vec![lease("x", None)]);
    assert_eq!(rig.on(later), [""; 0], "no second plan before the first is written");
}

#[test]
fn worker_that_no_longer_leads_writes_no_assignment() {
    type Change = fn(&mut Rig);
    let changes: [Change; 4] = [
        |rig| rig.wait(SECOND * 16),
        |rig| rig.moment.slept += SECOND * 16,
        |rig| rig.state.finishing = true,
        |rig| drop(rig.on(Event::Stop)),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut rig = assigning();
        change(&mut rig);
        let event = scanned(&rig, vec![lease("a", None)]);
        assert_eq!(rig.on(event), [""; 0], "change {index}, before the plan");
        let mut rig = assigning();
        let leases = (0..20).map(|number| lease(&format!("{number:02}"), None)).collect();
        let event = scanned(&rig, leases);
        let begun = rig.on(event);
        change(&mut rig);
        for order in begun {
            let key = order.split(' ').nth(1).unwrap().into();
            let next = rig.on(Event::Assigned(key, Ok(())));
            assert!(!next.iter().any(|shown| shown.starts_with("Assign")), "change {index}: {next:?}");
        }
    }
}

#[test]
fn excluded_leases_and_old_scans_are_not_assigned() {
    let mut rig = assigning();
    let Event::Scanned(mut snapshot) = scanned(&rig, vec![lease("a", None), lease("b", None)]) else {
        panic!()
    };
    snapshot.excluded = Arc::new(BTreeSet::from(["a".into(), "b".into()]));
    assert_eq!(rig.on(Event::Scanned(snapshot)), [""; 0]);
    rig.wait(SECOND);
    let late = scanned(&rig, vec![lease("c", None)]);
    rig.wait(SECOND * 3);
    assert_eq!(rig.on(late), [""; 0]);
    rig.wait(SECOND);
    assert!(rig.on(Event::Wake).contains(&"scan now".to_owned()), "a new scan is asked for");
    // A machine that is always late must not lead without assigning.
    let late = scanned(&rig, vec![lease("c", None)]);
    rig.wait(SECOND * 3);
    assert!(rig.on(late).iter().any(|shown| shown.starts_with("Assign c")));
}
