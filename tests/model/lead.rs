//! The leader's lock and what is given out under it: two workers that both want to lead, one lock row and one
//! lease. Requests arrive whenever they like, also after their sender has given up or come back under its name;
//! answers get lost; whoever leads gives the lease to this one or that one, or opens a hand-off, by a row that it
//! read at any time before. The decisions are the daemon's own: [`Election`], [`update`].

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};
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
use stateright::{Checker, Model, Property};
use tokio::time::Instant;

/// A lock lasts for two of them, and is abandoned after three.
const TICK: Duration = Duration::from_secs(8);
const FAILOVER: Duration = Duration::from_secs(10);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Broken {
    /// The lock of another is taken for a quarter as long as it is.
    Impatient,
    /// The lock is written whatever its version.
    NoVersion,
    /// Who has led leads until it hears of another.
    NeverStops,
    /// A lease is given out whoever has it.
    NoOwner,
}

#[derive(Debug, Clone)]
struct Bounds {
    ticks: u8,
    /// Steps of the election in all.
    steps: u8,
    /// Leases given out in all.
    gifts: u8,
    crashes: u8,
    broken: Option<Broken>,
    seen: Arc<Mutex<BTreeSet<&'static str>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Worker {
    election: Election,
    /// A step whose answer is waited for: none for a read.
    talk: Option<Option<LockWrite>>,
    /// Thinks that it leads, as of its last step.
    led: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    tick: u8,
    lock: Option<Lock>,
    row: Lease,
    workers: Vec<Worker>,
    /// Writes of the lock whose sender waits no longer.
    late: Vec<LockWrite>,
    /// Leases on their way to a new owner, by a row that the leader had read.
    gifts: Vec<(usize, Lease, Update)>,
    version: u8,
    steps: u8,
    given: u8,
    crashes: u8,
    wrong: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    /// The next step of an election is begun.
    Step(usize),
    /// It is carried out; its sender hears of it or not.
    Arrive(usize, bool),
    /// The sender gives up before it arrives.
    GiveUp(usize),
    /// A write that was given up arrives after all.
    Late(usize),
    /// A leader gives the lease to that worker, by assignment or by a hand-off.
    Give(usize, usize, bool),
    /// That arrives.
    Given(usize),
    /// Dies, and comes back by the same name.
    Crash(usize),
    /// Lets the lock go.
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
        let forever = bounds.broken == Some(Broken::NeverStops) && *led && election.until().is_some();
        election.leads(self.now()) || forever
    }

    /// Only what is written uses a version up.
    fn version(&self) -> String {
        (self.version + 1).to_string()
    }

    fn write(&mut self, write: &LockWrite, bounds: &Bounds) -> Result<(), Error> {
        let mut rows = Rows::default();
        rows.lock.extend(self.lock.clone().map(|lock| (StateLocation::Leases, lock)));
        let mut write = write.clone();
        if bounds.broken == Some(Broken::NoVersion)
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
        self.workers[worker].talk = match next {
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
            self.wrong.get_or_insert("two lead at once");
        }
    }
}

impl Bounds {
    fn happened(&self, what: &'static str) {
        self.seen.lock().unwrap().insert(what);
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let worker = |index| Worker {
            election: Election::new(Terms::new(name(index), FAILOVER)),
            talk: None,
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
            gifts: Vec::new(),
            version: 0,
            steps: 0,
            given: 0,
            crashes: 0,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        if state.tick < self.ticks {
            actions.push(Action::Tick);
        }
        for worker in 0..2 {
            match &state.workers[worker].talk {
                None if state.steps < self.steps => actions.push(Action::Step(worker)),
                None => {}
                Some(_) => {
                    actions.push(Action::Arrive(worker, true));
                    if state.workers[worker].talk != Some(None) {
                        actions.push(Action::Arrive(worker, false));
                        actions.extend(state.late.is_empty().then_some(Action::GiveUp(worker)));
                    }
                }
            }
            if state.leads(worker, self) {
                if state.given < self.gifts {
                    actions.extend([Action::Give(worker, 0, false), Action::Give(worker, 1, false)]);
                    actions.extend([Action::Give(worker, 0, true), Action::Give(worker, 1, true)]);
                }
                actions.push(Action::Leave(worker));
            }
            if state.crashes < self.crashes && state.workers[worker].election.until().is_some() {
                actions.push(Action::Crash(worker));
            }
        }
        actions.extend((0..state.late.len()).map(Action::Late));
        actions.extend((0..state.gifts.len()).map(Action::Given));
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
            Action::Arrive(worker, heard) => match state.workers[worker].talk.take()? {
                None if heard => {
                    let mut row = state.lock.clone();
                    if let Some(row) = row.as_mut().filter(|_| self.broken == Some(Broken::Impatient)) {
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
                            self.happened("an abandoned lock was taken");
                        }
                        (LockWrite::Acquire { .. }, Ok(())) => self.happened("a free lock was taken"),
                        (LockWrite::Beat { .. }, Ok(())) => self.happened("a lock was kept"),
                        (LockWrite::Release { .. }, Ok(())) => self.happened("a lock was given back"),
                        (_, Err(_)) => self.happened("a write of the lock was refused"),
                    }
                    let outcome = if heard { outcome } else { Err(Error::Ambiguous(String::new())) };
                    if !matches!(write, LockWrite::Release { .. }) {
                        state.workers[worker].election.written(&outcome);
                    }
                    state.check(self);
                }
            },
            Action::GiveUp(worker) => {
                let talk = state.workers[worker].talk.take()?;
                state.late.extend(talk);
                state.workers[worker].election.written(&Err(Error::Ambiguous(String::new())));
                state.check(self);
            }
            Action::Late(index) => {
                let write = state.late.remove(index);
                if state.write(&write, self).is_ok() {
                    self.happened("a lock was written late");
                }
            }
            Action::Give(leader, to, hand_off) => {
                let to = name(to);
                let row = state.row.clone();
                let update = match hand_off {
                    false => update::assign(&row, &to),
                    true if row.owner.is_some()
                        && row.owner.as_ref() != Some(&to)
                        && row.checkpoint_owner.is_none() =>
                    {
                        update::initiate(&row, &to)
                    }
                    true => return None,
                };
                state.given += 1;
                state.gifts.push((leader, row, update));
            }
            Action::Given(index) => {
                let (_, read, mut update) = state.gifts.remove(index);
                if self.broken == Some(Broken::NoOwner) {
                    update.requires.clear();
                }
                if !update.holds(&state.row) {
                    self.happened("a gift came too late");
                    return Some(state);
                }
                if (&read.owner, &read.checkpoint_owner) != (&state.row.owner, &state.row.checkpoint_owner) {
                    state.wrong.get_or_insert("a lease was given out that had changed hands");
                }
                update.apply(&mut state.row);
                self.happened(if state.row.checkpoint_owner.is_some() {
                    "a hand-off was opened"
                } else {
                    "a lease was assigned"
                });
                if state.row.owner.is_none() || state.row.checkpoint_owner == state.row.owner {
                    state.wrong.get_or_insert("a lease has no owner, or two that are one");
                }
            }
            Action::Crash(worker) => {
                state.crashes += 1;
                let talk = state.workers[worker].talk.take();
                state.late.extend(talk.flatten());
                state.workers[worker].election = Election::new(Terms::new(name(worker), FAILOVER));
                state.check(self);
            }
            Action::Leave(worker) => {
                let until = now + TICK;
                if let Some(write) = state.workers[worker].election.stand_back(until) {
                    let talk = state.workers[worker].talk.replace(Some(write));
                    state.late.extend(talk.flatten());
                }
                state.check(self);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::<Self>::always("nothing goes wrong", |_, state| state.wrong.is_none())]
    }
}

const HAPPENS: [&str; 9] = [
    "a free lock was taken",
    "an abandoned lock was taken",
    "a lock was kept",
    "a lock was given back",
    "a lock was written late",
    "a write of the lock was refused",
    "a lease was assigned",
    "a hand-off was opened",
    "a gift came too late",
];

fn locks() -> Bounds {
    Bounds { ticks: 4, steps: 4, gifts: 0, crashes: 0, broken: None, seen: Arc::default() }
}

fn gifts() -> Bounds {
    Bounds { ticks: 1, steps: 2, gifts: 2, ..locks() }
}

fn crashing() -> Bounds {
    Bounds { ticks: 4, steps: 3, crashes: 1, ..locks() }
}

fn check(bounds: &Bounds) -> (Option<&'static str>, usize) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = bounds.clone().checker().threads(threads).spawn_bfs().join();
    let wrong = checker.discovery("nothing goes wrong").map(|path| {
        let found = path.last_state().wrong.unwrap();
        println!("{found}:");
        for action in path.into_actions() {
            println!("  {action:?}");
        }
        found
    });
    (wrong, checker.unique_state_count())
}

#[test]
fn one_leads_at_a_time_in_every_order_of_events() {
    let mut seen = BTreeSet::new();
    for bounds in [locks(), gifts(), crashing()] {
        let (wrong, states) = check(&bounds);
        println!("{states} states");
        assert_eq!(wrong, None);
        seen.extend(bounds.seen.lock().unwrap().iter().copied());
    }
    for what in HAPPENS {
        assert!(seen.contains(what), "never: {what}");
    }
}

#[test]
fn each_promise_of_a_leader_is_found_broken_where_it_is() {
    let two = "two lead at once";
    for (broken, bounds, promise) in [
        (Broken::Impatient, locks(), two),
        (Broken::NoVersion, locks(), two),
        (Broken::NeverStops, locks(), two),
        (Broken::NoOwner, gifts(), "a lease was given out that had changed hands"),
    ] {
        let (wrong, states) = check(&Bounds { broken: Some(broken), ..bounds });
        println!("{broken:?}: {wrong:?} after {states} states");
        assert_eq!(wrong, Some(promise), "{broken:?}");
    }
}
