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
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use multilangd::clock;
use multilangd::coordinator::event::{Effect, Event, Holding};
use multilangd::coordinator::state::State;
use multilangd::coordinator::{Settings, Standing};
use multilangd::fleet::Mode;
use multilangd::lease::table::Error;
use multilangd::lease::update::{self, Next, Update};
use multilangd::lease::{Lease, ProcessId, WorkerId, handoff};
use multilangd::metrics::Discard;
use multilangd::recognition::Recognition;
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::{HashRange, Listed, ShardId};
use stateright::{Checker as _, Model, Property};
use tokio::time::Instant;

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
    seen: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// A held lease; it stands for a `Held`.
#[derive(Debug, Clone)]
struct Hold {
    shard: ShardId,
    id: u8,
}

impl Holding for Hold {
    fn shard(&self) -> &ShardId {
        &self.shard
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
    shard: ShardId,
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
    Read(ShardId),
    CheckIndex(ShardId),
    Acquire(ShardId, Update, Instant),
    Release(Hold),
}

#[derive(Debug, Clone)]
struct Worker {
    name: WorkerId,
    state: State<Hold>,
    requests: Vec<Request>,
    holds: BTreeMap<u8, Known>,
    /// Since when each row is as it was last scanned or read: owner and counter.
    scanned: BTreeMap<ShardId, (Option<WorkerId>, i64, Instant)>,
    /// The first scan.
    first: Option<Vec<Lease>>,
    stopped: bool,
    crashed: bool,
}

#[derive(Debug, Clone)]
struct World {
    tick: u8,
    rows: BTreeMap<ShardId, Lease>,
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

fn shards() -> [ShardId; 2] {
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
        recognition: Recognition::new(Arc::new(Listed::default())),
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

    fn holds_of<'a>(&'a self, shard: &'a ShardId) -> impl Iterator<Item = &'a Known> {
        self.holds.values().filter(move |hold| hold.shard == *shard && hold.life == Life::Held)
    }
}

impl World {
    fn now(&self) -> Instant {
        *START + TICK * u32::from(self.tick)
    }

    fn violates(&mut self, what: &'static str) {
        self.violation.get_or_insert(what);
    }

    fn finished(mut self) -> Self {
        let Self { tick, rows, workers, events, losses, assignments, violation, .. } = &self;
        self.print = format!("{:?}", (tick, rows, workers, events, losses, assignments, violation));
        self
    }

    /// One step of a worker's state machine, and the effects as far as they concern the table.
    fn on(&mut self, worker: usize, event: Event<Hold>, bounds: &Bounds) {
        let now = self.now();
        for effect in self.workers[worker].state.on(now, event) {
            self.perform(worker, effect, bounds);
        }
        let at = &self.workers[worker];
        if at.stopped && at.state.has_ended() && at.holds.values().any(|hold| hold.life == Life::Held) {
            self.violates("released: a lease is held after the end");
        }
    }

    fn perform(&mut self, worker: usize, effect: Effect<Hold>, bounds: &Bounds) {
        let now = self.now();
        match effect {
            Effect::Scan => self.workers[worker].requests.push(Request::Scan),
            Effect::ListOwned => self.workers[worker].requests.push(Request::ListOwned),
            Effect::Read(shard) => self.workers[worker].requests.push(Request::Read(shard)),
            Effect::CheckIndex(shard) => self.workers[worker].requests.push(Request::CheckIndex(shard)),
            Effect::Acquire(shard, update) => {
                self.judge_acquisition(worker, &shard, bounds);
                self.workers[worker].requests.push(Request::Acquire(shard, update, now));
            }
            Effect::Hold(hold, _) => {
                let known = &self.workers[worker].holds;
                let others = known.iter().any(|(id, known)| {
                    *id != hold.id && known.shard == hold.shard && known.life == Life::Held
                });
                if others {
                    self.violates("one request: two leases of one shard are held");
                }
            }
            Effect::MarkLost(hold) => {
                let known = self.workers[worker].holds.get_mut(&hold.id).unwrap();
                if known.life == Life::Held {
                    known.life = Life::Lost;
                }
            }
            Effect::Release(hold, _) => {
                let known = self.workers[worker].holds.get_mut(&hold.id).unwrap();
                if known.life != Life::Held {
                    self.violates("released: a lease is released twice");
                    return;
                }
                known.life = Life::Releasing;
                self.workers[worker].requests.push(Request::Release(hold));
            }
            _ => {}
        }
    }

    fn judge_acquisition(&mut self, worker: usize, shard: &ShardId, bounds: &Bounds) {
        let now = self.now();
        let at = &self.workers[worker];
        let is_written =
            |request: &Request| matches!(request, Request::Acquire(written, ..) if written == shard);
        if at.requests.iter().any(is_written) || at.holds_of(shard).next().is_some() {
            return self.violates("one request: a lease is acquired twice");
        }
        if at.stopped {
            return self.violates("stopped: a lease is acquired after the stop");
        }
        if bounds.led {
            if at.scanned.get(shard).is_none_or(|(owner, ..)| owner.as_ref() != Some(&at.name)) {
                self.violates("assigned: a lease of another worker is acquired");
            }
            return;
        }
        let Some((Some(owner), _, since)) = at.scanned.get(shard) else { return };
        let owned = at.scanned.values().filter(|(other, ..)| other.as_ref() == Some(owner)).count();
        if *owner != at.name && now < *since + FAILOVER {
            bounds.observe("a lease was stolen");
            if owned < shards().len() {
                self.violates("fair: a lease of a live worker is acquired");
            }
        }
    }

    /// The request is executed, and its response arrives or is lost.
    fn end(&mut self, worker: usize, request: usize, arrives: bool, bounds: &Bounds) {
        let now = self.now();
        let lost = || Error::Unavailable(String::new());
        let event = match self.workers[worker].requests.remove(request) {
            Request::Scan if arrives => {
                let mut rows: Vec<Lease> = self.rows.values().cloned().collect();
                let at = &mut self.workers[worker];
                let first = at.first.get_or_insert_with(|| rows.clone()).clone();
                for row in &rows {
                    let fact = (row.owner.clone(), row.counter, now);
                    let seen = at.scanned.entry(row.shard.clone()).or_insert_with(|| fact.clone());
                    if (&seen.0, seen.1) != (&row.owner, row.counter) {
                        *seen = fact;
                    }
                }
                if bounds.fault == Some(Fault::SeesNoRenewals) {
                    for (row, first) in
                        rows.iter_mut().zip(first).filter(|(row, first)| row.owner == first.owner)
                    {
                        row.counter = first.counter;
                    }
                }
                if bounds.fault == Some(Fault::MisreadsOwners) {
                    rows.iter_mut().for_each(|row| row.owner = Some(name(worker)));
                }
                Event::Scanned(Ok(rows))
            }
            Request::Scan => Event::Scanned(Err(lost())),
            Request::ListOwned if arrives => {
                let at = &self.workers[worker];
                let owned = self.rows.values().filter(|row| row.owner.as_ref() == Some(&at.name));
                Event::OwnedListed(Ok(owned.map(|row| row.shard.clone()).collect()))
            }
            Request::ListOwned => Event::OwnedListed(Err(lost())),
            Request::Read(shard) => {
                let row = self.rows[&shard].clone();
                let fact = (row.owner.clone(), row.counter, now);
                self.workers[worker].scanned.insert(shard.clone(), fact);
                Event::RowRead(shard, if arrives { Ok(Some(row)) } else { Err(lost()) })
            }
            Request::CheckIndex(shard) => {
                Event::IndexChecked(self.rows.get(&shard).filter(|_| arrives).cloned())
            }
            Request::Acquire(shard, update, began) => {
                let outcome = self.write(&shard, &update);
                let outcome = match outcome {
                    _ if !arrives => {
                        bounds.observe("a response was lost");
                        Err(Error::Ambiguous(String::new()))
                    }
                    Ok(()) => {
                        self.holds += 1;
                        let hold = Hold { shard: shard.clone(), id: self.holds };
                        let counter = self.rows[&shard].counter;
                        let known = Known { shard: shard.clone(), counter, life: Life::Held, over: false };
                        self.workers[worker].holds.insert(hold.id, known);
                        bounds.observe("a lease was acquired");
                        Ok((hold, began))
                    }
                    Err(error) => {
                        bounds.observe("another worker was faster");
                        Err(error)
                    }
                };
                match (bounds.fault, outcome) {
                    (Some(Fault::ForgetsAcquisitions), Err(_)) => return,
                    (Some(Fault::ReportsTwice), Ok((hold, began))) => {
                        self.on(worker, Event::Acquired(shard.clone(), Ok((hold, began))), bounds);
                        self.holds += 1;
                        let again = Hold { shard: shard.clone(), id: self.holds };
                        let counter = self.rows[&shard].counter;
                        let known = Known { shard: shard.clone(), counter, life: Life::Held, over: false };
                        self.workers[worker].holds.insert(again.id, known);
                        Event::Acquired(shard, Ok((again, began)))
                    }
                    (_, outcome) => Event::Acquired(shard, outcome),
                }
            }
            Request::Release(hold) => {
                let known = self.workers[worker].holds.get_mut(&hold.id).unwrap();
                known.life = Life::Released;
                let (counter, mine) = (known.counter, self.workers[worker].name.clone());
                let row = self.rows.get_mut(&hold.shard).unwrap();
                let is_mine =
                    row.counter == counter && [&row.owner, &row.checkpoint_owner].contains(&&Some(mine));
                if arrives && is_mine {
                    update::release(row, &Next::Nobody).apply(row);
                    bounds.observe("a lease was released");
                }
                if bounds.fault == Some(Fault::ForgetsReleases) {
                    return;
                }
                Event::Released(hold.shard, None)
            }
        };
        self.on(worker, event, bounds);
    }

    fn write(&mut self, shard: &ShardId, update: &Update) -> Result<(), Error> {
        let row = self.rows.get_mut(shard).unwrap();
        if !update.holds(row) {
            return Err(Error::Conflict(shard.clone()));
        }
        update.apply(row);
        Ok(())
    }

    fn renew(&mut self, worker: usize, id: u8, bounds: &Bounds) {
        let known = self.workers[worker].holds.get_mut(&id).unwrap();
        let row = self.rows.get_mut(&known.shard).unwrap();
        if row.counter == known.counter {
            row.counter += 1;
            known.counter = row.counter;
            return;
        }
        known.over = true;
        let hold = Hold { shard: known.shard.clone(), id };
        bounds.observe("a lease was lost");
        self.on(worker, Event::RenewalEnded(hold), bounds);
    }

    fn stop(&mut self, worker: usize, bounds: &Bounds) {
        if bounds.fault != Some(Fault::ForgetsStops) {
            self.on(worker, Event::Stop, bounds);
        }
        self.workers[worker].stopped = true;
        if bounds.fault != Some(Fault::ForgetsStops) {
            self.on(worker, Event::End, bounds);
        }
    }

    /// The leader assigns what no live worker owns, once.
    fn assign(&mut self, shard: usize, to: usize, graceful: bool) -> bool {
        let row = self.rows.get_mut(&shards()[shard]).unwrap();
        let update = match graceful {
            false => update::assign(row, &name(to)),
            true if row.owner.is_some() && row.owner != Some(name(to)) && row.checkpoint_owner.is_none() => {
                update::initiate(row, &name(to))
            }
            true => return false,
        };
        update.apply(row);
        true
    }

    /// Continues without faults for some failover times. Returns a violation, which includes a lease that no live worker
    /// holds by then.
    fn settles(&self, bounds: &Bounds) -> Option<&'static str> {
        let mut world = self.clone();
        for _ in 0..SETTLED {
            world.tick += 1;
            for worker in 0..world.workers.len() {
                if world.workers[worker].crashed {
                    continue;
                }
                let renewed: Vec<u8> = world.workers[worker]
                    .holds
                    .iter()
                    .filter(|(_, hold)| hold.life == Life::Held)
                    .map(|(id, _)| *id)
                    .collect();
                renewed.into_iter().for_each(|id| world.renew(worker, id, bounds));
                if world.workers[worker].state.scan_due().is_some_and(|due| due <= world.now()) {
                    world.on(worker, Event::ScanDue, bounds);
                }
                while !world.workers[worker].requests.is_empty() {
                    world.end(worker, 0, true, bounds);
                }
            }
            // The leader looks after leases whose owner is gone.
            if bounds.led
                && let Some(to) = (0..2).find(|worker| world.workers[*worker].is_live())
            {
                for shard in 0..2 {
                    let row = &world.rows[&shards()[shard]];
                    let live = |owner: &Option<WorkerId>| {
                        world.workers.iter().any(|at| at.is_live() && Some(&at.name) == owner.as_ref())
                    };
                    if !live(&row.owner) || row.checkpoint_owner.is_some() && !live(&row.checkpoint_owner) {
                        world.assign(shard, to, false);
                    }
                }
            }
        }
        let ended = |at: &Worker| at.crashed || !at.stopped || at.state.has_ended();
        let read = |shard: &ShardId| {
            world
                .workers
                .iter()
                .filter(|at| at.is_live())
                .any(|at| at.holds_of(shard).any(|hold| hold.counter == world.rows[shard].counter))
        };
        let any_live = world.workers.iter().any(Worker::is_live);
        if !world.workers.iter().all(ended) || any_live && !shards().iter().all(read) {
            world.violates("alive: a lease is not read, or a stop does not end");
        }
        world.violation
    }
}

impl Bounds {
    fn observe(&self, what: &'static str) {
        self.seen.lock().unwrap().insert(what);
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
        let row = |shard: ShardId| {
            let row = Lease::new(shard.clone(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
            (shard, row)
        };
        let world = World {
            tick: 0,
            rows: shards().into_iter().map(row).collect(),
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
            for (shard, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                actions.extend([Action::Assign(shard, to, false), Action::Assign(shard, to, true)]);
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
                let hold = Hold { shard: known.shard.clone(), id };
                world.on(worker, Event::RenewalEnded(hold), self);
            }
            Action::Stop(worker) => world.stop(worker, self),
            Action::Crash(worker) => {
                world.workers[worker].crashed = true;
                self.observe("a worker crashed");
            }
            Action::Assign(shard, to, graceful) => {
                world.assignments += 1;
                if !world.assign(shard, to, graceful) {
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

/// Most events of the workers: 6, or `MODEL_EVENTS`. With 8 the check takes minutes.
fn events() -> u8 {
    std::env::var("MODEL_EVENTS").map_or(6, |events| events.parse().unwrap())
}

fn shared() -> Bounds {
    Bounds {
        led: false,
        ticks: 3,
        events: events(),
        losses: 1,
        stops: 1,
        crashes: 1,
        assignments: 0,
        fault: None,
        seen: Arc::default(),
    }
}

fn led() -> Bounds {
    Bounds { led: true, ticks: 2, assignments: 2, ..shared() }
}

fn check(bounds: &Bounds) -> (Option<&'static str>, usize) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = bounds.clone().checker().threads(threads).spawn_bfs().join();
    let violation = checker.discovery("no violation").map(|path| {
        let found = path.last_state().violation.unwrap();
        println!("{found}:");
        for action in path.into_actions() {
            println!("  {action:?}");
        }
        found
    });
    (violation, checker.unique_state_count())
}

const EXPECTED_EVENTS: [&str; 7] = [
    "a lease was acquired",
    "a lease was stolen",
    "a lease was released",
    "a lease was lost",
    "a lease was assigned",
    "another worker was faster",
    "a response was lost",
];

#[test]
fn coordinators_keep_their_invariants_in_every_order_of_events() {
    let mut seen = BTreeSet::new();
    for bounds in [shared(), led()] {
        let (violation, states) = check(&bounds);
        println!("{states} states");
        assert_eq!(violation, None);
        seen.extend(bounds.seen.lock().unwrap().iter().copied());
    }
    for what in EXPECTED_EVENTS {
        assert!(seen.contains(what), "never: {what}");
    }
}

#[test]
fn each_fault_around_a_coordinator_violates_its_invariant() {
    for (fault, bounds, invariant) in [
        (Fault::ForgetsAcquisitions, shared(), "alive"),
        (Fault::ForgetsReleases, shared(), "alive"),
        (Fault::ReportsTwice, shared(), "one request"),
        (Fault::ForgetsStops, shared(), "stopped"),
        (Fault::SeesNoRenewals, shared(), "fair"),
        (Fault::MisreadsOwners, led(), "assigned"),
    ] {
        let (violation, states) = check(&Bounds { fault: Some(fault), ..bounds });
        println!("{fault:?}: {violation:?} after {states} states");
        assert!(violation.is_some_and(|found| found.starts_with(invariant)), "{fault:?}: {violation:?}");
    }
}
