//! Model of two coordinators and the rows of two leases. Each scan, query, write and renewal ends at any time, with or
//! without a response; workers stop and crash. Without a leader the workers share the leases; with one, a leader assigns
//! them at any time. Every decision is a step of the daemon's own state machine, [`State::on`]; the model checker visits
//! every order of events within small bounds.
//!
//! | invariant | in words |
//! |---|---|
//! | one request | no second write of a row is sent while the first one is in flight, and none for a lease that is held |
//! | fair | in a shared fleet no lease of a live worker is acquired, unless that worker owns more than its share |
//! | assigned | in a led fleet a lease is acquired only if its row names this worker |
//! | stopped | after a stop nothing is acquired |
//! | released | each lease that was held is lost or released, once; after the end none is left |
//! | alive | from every state: once responses arrive, each lease is read by a live worker after some failover times |

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use multilangd::clock;
use multilangd::coordinator::event::{Effect, Event, Holding};
use multilangd::coordinator::state::State;
use multilangd::coordinator::{Settings, Standing};
use multilangd::fleet::Mode;
use multilangd::lease::table::Error;
use multilangd::lease::update::{self, Next, Update};
use multilangd::lease::{Lease, LeaseKey, ProcessId, WorkerId, handoff};
use multilangd::metrics::Discard;
use multilangd::recognition::Recognition;
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::{HashRange, Listed};
use multilangd::stream::ByStream;
use stateright::{Model, Property};
use tokio::time::Instant;

use crate::checker::{Checked, Seen};

mod checked;
mod world;

const TICK: Duration = Duration::from_secs(1);
const FAILOVER: Duration = Duration::from_secs(2);
/// Ticks after which a fleet without faults has settled, whatever happened before.
const SETTLED: u8 = 16;
static START: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(3_600));

/// A fault around the state machine, which the model must detect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    /// The end of an acquisition is not reported.
    ForgetsAcquisitions,
    /// The end of a release is not reported.
    ForgetsReleases,
    /// An acquisition is reported twice.
    ReportsTwice,
    /// A stop is not reported.
    ForgetsStops,
    /// A scan returns the counters of the first scan.
    SeesNoRenewals,
    /// A row that is scanned always names the worker that scans it.
    MisreadsOwners,
}

#[derive(Debug, Clone)]
struct Bounds {
    /// A leader assigns the leases.
    led: bool,
    ticks: u8,
    /// Most events of the workers.
    events: u8,
    /// Most responses that are lost.
    losses: u8,
    stops: u8,
    crashes: u8,
    assignments: u8,
    fault: Option<Fault>,
    seen: Seen,
}

/// A held lease; it stands for a `Held`.
#[derive(Debug, Clone)]
struct Hold {
    key: LeaseKey,
    id: u8,
}

impl Holding for Hold {
    fn key(&self) -> &LeaseKey {
        &self.key
    }

    fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    fn is_settled(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Held,
    Lost,
    Releasing,
    Released,
}

/// A hold as the table's side knows it.
#[derive(Debug, Clone)]
struct Known {
    key: LeaseKey,
    /// The counter of its last write.
    counter: i64,
    life: Life,
    /// Whether the end of its renewals was reported.
    over: bool,
}

#[derive(Debug, Clone)]
enum Request {
    Scan,
    ListOwned,
    Read(LeaseKey),
    CheckIndex(LeaseKey),
    Acquire(LeaseKey, Update, Instant),
    Release(Hold),
}

#[derive(Debug, Clone)]
struct Worker {
    name: WorkerId,
    state: State<Hold>,
    requests: Vec<Request>,
    holds: BTreeMap<u8, Known>,
    /// Since when each row is as it was last scanned or read: owner and counter.
    scanned: BTreeMap<LeaseKey, (Option<WorkerId>, i64, Instant)>,
    /// The first scan.
    first: Option<Vec<Lease>>,
    stopped: bool,
    crashed: bool,
}

#[derive(Debug, Clone)]
struct World {
    tick: u8,
    rows: BTreeMap<LeaseKey, Lease>,
    workers: Vec<Worker>,
    holds: u8,
    events: u8,
    losses: u8,
    assignments: u8,
    violation: Option<&'static str>,
    /// All of the above as text: states of the state machine have no order and no hash.
    print: String,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for World {}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Tick,
    /// The table is due to be looked at.
    Look(usize),
    /// A request ends; the flag says whether its response arrives.
    End(usize, usize, bool),
    /// A held lease is renewed, or found to be lost.
    Renew(usize, u8),
    /// The renewals of a lost or released lease end.
    RenewalEnds(usize, u8),
    Stop(usize),
    Crash(usize),
    /// The leader assigns the lease to that worker; the flag asks for a graceful handoff.
    Assign(usize, usize, bool),
}

fn name(worker: usize) -> WorkerId {
    ["a", "b"][worker].into()
}

fn keys() -> [LeaseKey; 2] {
    ["s".into(), "t".into()]
}

fn settings(worker: usize) -> Settings {
    Settings {
        me: name(worker),
        failover: FAILOVER,
        max_leases: 9,
        max_steals: 1,
        priority: true,
        handoff: handoff::Limits { hand_off: FAILOVER * 2, failover: FAILOVER },
        sink: Arc::new(Discard),
        recognitions: ByStream::One(Recognition::new(Arc::new(Listed::default()))),
        capacity: Arc::default(),
        reach: Arc::default(),
        stop: clock::Stop::within(Duration::from_secs(9)),
        process: ProcessId::new(5, "one", &name(worker)),
        clock: clock::ServiceClock::new(clock::wall_millis, Default::default()),
        resume_latest: false,
    }
}

impl Worker {
    fn is_live(&self) -> bool {
        !self.stopped && !self.crashed
    }

    fn holds_of<'a>(&'a self, key: &'a LeaseKey) -> impl Iterator<Item = &'a Known> {
        self.holds.values().filter(move |hold| hold.key == *key && hold.life == Life::Held)
    }
}

impl Bounds {
    fn observe(&self, what: &'static str) {
        self.seen.lock().unwrap().insert(what);
    }
}

impl Checked for Bounds {
    fn violation(state: &World) -> Option<&'static str> {
        state.violation
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let worker = |index| {
            let random = fastrand::Rng::with_seed(index as u64);
            let mut state = State::new(settings(index), random, *START);
            if self.led {
                let standing = Standing { mode: Some(Mode::ThreeX), led: true, ..Standing::default() };
                assert!(state.on(*START, Event::Standing(standing)).is_empty());
            }
            Worker {
                name: name(index),
                state,
                requests: Vec::new(),
                holds: BTreeMap::new(),
                scanned: BTreeMap::new(),
                first: None,
                stopped: false,
                crashed: false,
            }
        };
        let range = HashRange { start: 0, end: 9 };
        let row = |key: LeaseKey| {
            let row = Lease::new(key.clone(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
            (key, row)
        };
        let world = World {
            tick: 0,
            rows: keys().into_iter().map(row).collect(),
            workers: vec![worker(0), worker(1)],
            holds: 0,
            events: 0,
            losses: 0,
            assignments: 0,
            violation: None,
            print: String::new(),
        };
        vec![world.finished()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.violation.is_some() {
            return;
        }
        if world.tick < self.ticks {
            actions.push(Action::Tick);
        }
        if world.events >= self.events {
            return;
        }
        for (index, at) in world.workers.iter().enumerate().filter(|(_, at)| !at.crashed) {
            if at.state.scan_due().is_some_and(|due| due <= world.now()) {
                actions.push(Action::Look(index));
            }
            for request in 0..at.requests.len() {
                actions.push(Action::End(index, request, true));
                if world.losses < self.losses {
                    actions.push(Action::End(index, request, false));
                }
            }
            for (id, hold) in &at.holds {
                match hold.life {
                    Life::Held => actions.push(Action::Renew(index, *id)),
                    Life::Lost | Life::Released if !hold.over => {
                        actions.push(Action::RenewalEnds(index, *id))
                    }
                    _ => {}
                }
            }
            let stopped = world.workers.iter().filter(|at| at.stopped).count();
            if !at.stopped && stopped < usize::from(self.stops) {
                actions.push(Action::Stop(index));
            }
            let crashed = world.workers.iter().filter(|at| at.crashed).count();
            if crashed < usize::from(self.crashes) && !at.holds.is_empty() {
                actions.push(Action::Crash(index));
            }
        }
        if self.led && world.assignments < self.assignments {
            for (lease, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                actions.extend([Action::Assign(lease, to, false), Action::Assign(lease, to, true)]);
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        if action != Action::Tick {
            world.events += 1;
        }
        match action {
            Action::Tick => world.tick += 1,
            Action::Look(worker) => world.on(worker, Event::ScanDue, self),
            Action::End(worker, request, arrives) => {
                world.losses += u8::from(!arrives);
                world.end(worker, request, arrives, self);
            }
            Action::Renew(worker, id) => world.renew(worker, id, self),
            Action::RenewalEnds(worker, id) => {
                let known = world.workers[worker].holds.get_mut(&id).unwrap();
                known.over = true;
                let hold = Hold { key: known.key.clone(), id };
                world.on(worker, Event::RenewalEnded(hold), self);
            }
            Action::Stop(worker) => world.stop(worker, self),
            Action::Crash(worker) => {
                world.workers[worker].crashed = true;
                self.observe("a worker crashed");
            }
            Action::Assign(lease, to, graceful) => {
                world.assignments += 1;
                if !world.assign(lease, to, graceful) {
                    return None;
                }
                self.observe("a lease was assigned");
            }
        }
        world.violation = world.violation.or_else(|| world.settles(self));
        Some(world.finished())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::<Self>::always("no violation", |_, world| world.violation.is_none())]
    }
}
