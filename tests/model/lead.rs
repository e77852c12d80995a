//! Model of the leader lock and of lease assignment: two workers that both stand for election, one lock row and
//! one lease. Requests arrive in any order and with any delay, even after their sender has given up or
//! restarted; responses get lost. A leader assigns the lease to either worker, or starts a graceful handoff,
//! based on a row that it read at any earlier time. The decisions are the daemon's own code: [`Election`],
//! [`update`].

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use multilangd::fleet::lock::{Election, Next, Terms};
use multilangd::fleet::memory::Rows;
use multilangd::fleet::rows::{Lock, StateLocation};
use multilangd::fleet::store::{LockWrite, Over};
use multilangd::lease::table::Error;
use multilangd::lease::update::{self, Update};
use multilangd::lease::{Lease, WorkerId};
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::HashRange;
use stateright::{Model, Property};
use tokio::time::Instant;

use crate::checker::{Checked, Seen, assert_no_violation, check};

/// The lock lasts for two ticks, and expires after three.
const TICK: Duration = Duration::from_secs(8);
const FAILOVER: Duration = Duration::from_secs(10);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A fault in the decisions, which the model must detect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    /// The lock of the other leader is considered expired after a quarter of its duration.
    Impatient,
    /// The lock is written without a condition on its version.
    NoVersion,
    /// A leader considers itself leader until it reads the lock of another one.
    NeverStops,
    /// A lease is assigned without a condition on its owner.
    NoOwner,
}

#[derive(Debug, Clone)]
struct Bounds {
    ticks: u8,
    /// Maximum number of election steps.
    steps: u8,
    /// Maximum number of lease assignments.
    assignments: u8,
    crashes: u8,
    fault: Option<Fault>,
    seen: Seen,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Worker {
    election: Election,
    /// The step whose response is pending; the inner value is none for a read.
    pending: Option<Option<LockWrite>>,
    /// Whether it considers itself leader, as of its last step.
    led: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    tick: u8,
    lock: Option<Lock>,
    row: Lease,
    workers: Vec<Worker>,
    /// Lock writes in flight whose sender has given up.
    late: Vec<LockWrite>,
    /// Assignments in flight: the leader, the row that it had read, and the update.
    assignments: Vec<(usize, Lease, Update)>,
    version: u8,
    steps: u8,
    assigned: u8,
    crashes: u8,
    violation: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    /// A worker begins its next election step.
    Step(usize),
    /// The step is executed; the flag says whether its response arrives.
    Arrive(usize, bool),
    /// The sender gives up before the request arrives.
    GiveUp(usize),
    /// A write whose sender has given up arrives.
    Late(usize),
    /// A leader assigns the lease to the given worker, or starts a graceful handoff (the flag).
    Assign(usize, usize, bool),
    /// The assignment arrives.
    ArriveAssignment(usize),
    /// The worker crashes and restarts under the same name.
    Crash(usize),
    /// The leader releases the lock.
    Leave(usize),
}

fn name(worker: usize) -> WorkerId {
    ["a", "b"][worker].into()
}

impl State {
    fn now(&self) -> Instant {
        *START + TICK * u32::from(self.tick)
    }

    fn leads(&self, worker: usize, bounds: &Bounds) -> bool {
        let Worker { election, led, .. } = &self.workers[worker];
        let forever = bounds.fault == Some(Fault::NeverStops) && *led && election.until().is_some();
        election.leads(self.now()) || forever
    }

    /// Only a version that is written is used up.
    fn version(&self) -> String {
        (self.version + 1).to_string()
    }

    fn write(&mut self, write: &LockWrite, bounds: &Bounds) -> Result<(), Error> {
        let mut rows = Rows::default();
        rows.lock.extend(self.lock.clone().map(|lock| (StateLocation::Leases, lock)));
        let mut write = write.clone();
        if bounds.fault == Some(Fault::NoVersion)
            && let Some(lock) = &self.lock
            && let LockWrite::Acquire { over: Over::Stale(was), .. } = &mut write
        {
            was.clone_from(&lock.version);
        }
        let outcome = rows.write_lock(StateLocation::Leases, &write);
        self.lock = rows.lock.remove(&StateLocation::Leases);
        outcome
    }

    fn begin(&mut self, worker: usize, next: Next, bounds: &Bounds) {
        self.workers[worker].pending = match next {
            Next::Read => Some(None),
            Next::Write(write) => {
                self.version += 1;
                Some(Some(write))
            }
            Next::Nothing => None,
        };
        self.check(bounds);
    }

    fn check(&mut self, bounds: &Bounds) {
        for worker in 0..2 {
            self.workers[worker].led = self.leads(worker, bounds);
        }
        if self.workers.iter().all(|worker| worker.led) {
            self.violation.get_or_insert("two leaders at once");
        }
    }
}

impl Bounds {
    fn observe(&self, what: &'static str) {
        self.seen.lock().unwrap().insert(what);
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let worker = |index| Worker {
            election: Election::new(Terms::new(name(index), FAILOVER)),
            pending: None,
            led: false,
        };
        let range = HashRange { start: 0, end: 9 };
        let row = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        vec![State {
            tick: 0,
            lock: None,
            row,
            workers: vec![worker(0), worker(1)],
            late: Vec::new(),
            assignments: Vec::new(),
            version: 0,
            steps: 0,
            assigned: 0,
            crashes: 0,
            violation: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        if state.tick < self.ticks {
            actions.push(Action::Tick);
        }
        for worker in 0..2 {
            match &state.workers[worker].pending {
                None if state.steps < self.steps => actions.push(Action::Step(worker)),
                None => {}
                Some(_) => {
                    actions.push(Action::Arrive(worker, true));
                    if state.workers[worker].pending != Some(None) {
                        actions.push(Action::Arrive(worker, false));
                        actions.extend(state.late.is_empty().then_some(Action::GiveUp(worker)));
                    }
                }
            }
            if state.leads(worker, self) {
                if state.assigned < self.assignments {
                    actions.extend([Action::Assign(worker, 0, false), Action::Assign(worker, 1, false)]);
                    actions.extend([Action::Assign(worker, 0, true), Action::Assign(worker, 1, true)]);
                }
                actions.push(Action::Leave(worker));
            }
            if state.crashes < self.crashes && state.workers[worker].election.until().is_some() {
                actions.push(Action::Crash(worker));
            }
        }
        actions.extend((0..state.late.len()).map(Action::Late));
        actions.extend((0..state.assignments.len()).map(Action::ArriveAssignment));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now();
        match action {
            Action::Tick => {
                state.tick += 1;
                state.check(self);
            }
            Action::Step(worker) => {
                state.steps += 1;
                let version = state.version();
                let next = state.workers[worker].election.next(now, || version);
                state.begin(worker, next, self);
            }
            Action::Arrive(worker, delivered) => match state.workers[worker].pending.take()? {
                None if delivered => {
                    let mut row = state.lock.clone();
                    if let Some(row) = row.as_mut().filter(|_| self.fault == Some(Fault::Impatient)) {
                        row.lease /= 4;
                    }
                    let version = state.version();
                    let next = state.workers[worker].election.read(now, row.as_ref(), || version);
                    state.begin(worker, next, self);
                }
                None => {}
                Some(write) => {
                    let outcome = state.write(&write, self);
                    match (&write, &outcome) {
                        (LockWrite::Acquire { over: Over::Stale(_), .. }, Ok(())) => {
                            self.observe("an expired lock was acquired");
                        }
                        (LockWrite::Acquire { .. }, Ok(())) => self.observe("a free lock was acquired"),
                        (LockWrite::Beat { .. }, Ok(())) => self.observe("a lock was renewed"),
                        (LockWrite::Release { .. }, Ok(())) => self.observe("a lock was released"),
                        (_, Err(_)) => self.observe("a write of the lock was rejected"),
                    }
                    let outcome = if delivered { outcome } else { Err(Error::Ambiguous(String::new())) };
                    if !matches!(write, LockWrite::Release { .. }) {
                        state.workers[worker].election.written(&outcome);
                    }
                    state.check(self);
                }
            },
            Action::GiveUp(worker) => {
                let pending = state.workers[worker].pending.take()?;
                state.late.extend(pending);
                state.workers[worker].election.written(&Err(Error::Ambiguous(String::new())));
                state.check(self);
            }
            Action::Late(index) => {
                let write = state.late.remove(index);
                if state.write(&write, self).is_ok() {
                    self.observe("a late write of the lock succeeded");
                }
            }
            Action::Assign(leader, to, handoff) => {
                let to = name(to);
                let row = state.row.clone();
                let update = match handoff {
                    false => update::assign(&row, &to),
                    true if row.owner.is_some()
                        && row.owner.as_ref() != Some(&to)
                        && row.checkpoint_owner.is_none() =>
                    {
                        update::initiate(&row, &to)
                    }
                    true => return None,
                };
                state.assigned += 1;
                state.assignments.push((leader, row, update));
            }
            Action::ArriveAssignment(index) => {
                let (_, read, mut update) = state.assignments.remove(index);
                if self.fault == Some(Fault::NoOwner) {
                    update.requires.clear();
                }
                if !update.holds(&state.row) {
                    self.observe("an assignment arrived too late");
                    return Some(state);
                }
                if (&read.owner, &read.checkpoint_owner) != (&state.row.owner, &state.row.checkpoint_owner) {
                    state.violation.get_or_insert("a lease was assigned although its owner had changed");
                }
                update.apply(&mut state.row);
                self.observe(if state.row.checkpoint_owner.is_some() {
                    "a graceful handoff was started"
                } else {
                    "a lease was assigned"
                });
                if state.row.owner.is_none() || state.row.checkpoint_owner == state.row.owner {
                    state.violation.get_or_insert("a lease has no owner, or hands off to its own owner");
                }
            }
            Action::Crash(worker) => {
                state.crashes += 1;
                let pending = state.workers[worker].pending.take();
                state.late.extend(pending.flatten());
                state.workers[worker].election = Election::new(Terms::new(name(worker), FAILOVER));
                state.check(self);
            }
            Action::Leave(worker) => {
                let until = now + TICK;
                if let Some(write) = state.workers[worker].election.stand_back(until) {
                    let pending = state.workers[worker].pending.replace(Some(write));
                    state.late.extend(pending.flatten());
                }
                state.check(self);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::<Self>::always("no violation", |_, state| state.violation.is_none())]
    }
}

impl Checked for Bounds {
    fn violation(state: &State) -> Option<&'static str> {
        state.violation
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

const EXPECTED_EVENTS: [&str; 9] = [
    "a free lock was acquired",
    "an expired lock was acquired",
    "a lock was renewed",
    "a lock was released",
    "a late write of the lock succeeded",
    "a write of the lock was rejected",
    "a lease was assigned",
    "a graceful handoff was started",
    "an assignment arrived too late",
];

fn locks() -> Bounds {
    Bounds { ticks: 4, steps: 4, assignments: 0, crashes: 0, fault: None, seen: Arc::default() }
}

fn assignments() -> Bounds {
    Bounds { ticks: 1, steps: 2, assignments: 2, ..locks() }
}

fn crashing() -> Bounds {
    Bounds { ticks: 4, steps: 3, crashes: 1, ..locks() }
}

#[test]
fn at_most_one_leader_in_every_order_of_events() {
    assert_no_violation(&[locks(), assignments(), crashing()], &EXPECTED_EVENTS);
}

#[test]
fn each_fault_of_a_leader_violates_its_invariant() {
    let two = "two leaders at once";
    for (fault, bounds, invariant) in [
        (Fault::Impatient, locks(), two),
        (Fault::NoVersion, locks(), two),
        (Fault::NeverStops, locks(), two),
        (Fault::NoOwner, assignments(), "a lease was assigned although its owner had changed"),
    ] {
        let (violation, states) = check(&Bounds { fault: Some(fault), ..bounds });
        println!("{fault:?}: {violation:?} after {states} states");
        assert_eq!(violation, Some(invariant), "{fault:?}");
    }
}
