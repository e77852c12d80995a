//! Model of the life of a lease: two workers and one row (and a second lease that only counts, so that there is
//! something to steal). Requests arrive in any order and with any delay, even after their sender has given up,
//! crashed or restarted; responses get lost; a client retries a write that had succeeded; a scan may return the
//! previous version of the row; a KCL 3.x leader starts a graceful handoff and forces it; a worker that takes
//! no step for a while models a frozen process. The decisions are the daemon's own code: [`Holding`],
//! [`update`], [`Asker`]. A model checker (stateright) visits every state.
//!
//! For each invariant, a variant with an injected fault shows that the model detects its violation.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use multilangd::lease::handoff::NONE;
use multilangd::lease::history::History;
use multilangd::lease::holding::{Holding, Intent, Step};
use multilangd::lease::table::Error;
use multilangd::lease::take::Asker;
use multilangd::lease::update::{self, Change, Requirement, Update};
use multilangd::lease::{Lease, LeaseKey, WorkerId};
use multilangd::sequence::{Position, Sequence, SequenceNumber};
use multilangd::shard::HashRange;
use stateright::{Model, Property};
use tokio::time::Instant;

use crate::checker::{Checked, Seen};

mod checked;

/// The resolution of the clock.
const TICK: Duration = Duration::from_secs(1);
const FAILOVER: Duration = Duration::from_secs(2);
/// The time of the first tick, later than the machine's boot so that earlier times exist.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A fault in the decisions, which the model must detect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    /// Writes have no condition on the lease counter.
    NoCounter,
    /// The lease validity starts at the response instead of the request.
    ProvenByTheAnswer,
    /// Leases of other workers are acquired before they expire.
    NeverWaits,
    /// A row that is read back counts as our own write, whatever it contains.
    BelievesAnyRow,
    /// A renewal has no condition on the graceful handoff.
    IgnoresHandoffs,
    /// A worker that acquires a lease ignores its checkpoint.
    ForgetsTheCheckpoint,
}

#[derive(Debug, Clone)]
struct Bounds {
    ticks: u8,
    /// Maximum number of requests in flight.
    requests: usize,
    /// Maximum number of requests in total.
    sends: u8,
    checkpoints: u64,
    crashes: u8,
    handoffs: u8,
    /// Responses may be delayed.
    slow: bool,
    /// The second worker follows Java's rules.
    java: bool,
    fault: Option<Fault>,
    seen: Seen,
}

impl Bounds {
    fn observe(&self, what: &'static str) {
        self.seen.lock().unwrap().insert(what);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pending {
    Idle,
    /// A write is in flight.
    Writing {
        intent: Intent,
        update: Update,
        started: Instant,
    },
    /// The row must be read back.
    Reading {
        intent: Intent,
    },
    Acquiring {
        update: Update,
        proven: Instant,
        expired: bool,
    },
    Releasing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Worker {
    holding: Option<Holding>,
    pending: Pending,
    history: History,
    /// A response in flight.
    answer: Option<Result<Lease, Error>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    from: usize,
    update: Update,
    /// Acquired because the lease expired.
    expired: bool,
    /// The sender has given up.
    late: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    tick: u8,
    row: Lease,
    /// The previous version of the row, which a scan may still return.
    old: Lease,
    workers: Vec<Worker>,
    requests: Vec<Request>,
    sends: u8,
    crashes: u8,
    handoffs: u8,
    /// The violated invariant, if any.
    violation: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Renew(usize),
    Checkpoint(usize),
    Release(usize),
    /// A scan, of the current or the previous version of the row.
    Scan(usize, bool),
    /// A request arrives; the flag says whether its response arrives.
    Arrive(usize, bool),
    /// The client sends the request twice, and receives the second response.
    ArriveTwice(usize),
    /// The response arrives.
    Receive(usize),
    /// The sender gives up.
    GiveUp(usize),
    ReadBack(usize),
    Crash(usize),
    /// The leader starts a graceful handoff to the other worker.
    Handoff,
    Force,
}

fn name(worker: usize) -> WorkerId {
    ["a", "b"][worker].into()
}

fn number(value: u64) -> Position {
    Position::record(SequenceNumber::parse(&value.to_string()).unwrap(), 0)
}

fn lease(key: &str, owner: Option<usize>, counter: i64) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let mut lease = Lease::new(key.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    (lease.owner, lease.counter) = (owner.map(name), counter);
    lease
}

impl State {
    fn now(&self) -> Instant {
        *START + TICK * u32::from(self.tick)
    }

    fn violate(&mut self, what: &'static str) {
        self.violation.get_or_insert(what);
    }

    /// Executes a conditional write, as the table does.
    fn carry_out(&mut self, request: &Request, bounds: &Bounds) -> Result<Lease, Error> {
        let mut conditions = request.update.clone();
        if bounds.fault == Some(Fault::NoCounter) {
            conditions.requires.retain(|requirement| !matches!(requirement, Requirement::Counter(_)));
        }
        if !conditions.holds(&self.row) {
            if request.late {
                bounds.observe("a late write was rejected");
            }
            return Err(Error::Conflict("s".into()));
        }
        let before = self.row.clone();
        let from = name(request.from);
        let known =
            self.workers[request.from].holding.as_ref().map(|holding| holding.row().checkpoint_owner.clone());
        if request.update.changes.len() == 1 && before.checkpoint_owner.is_some() && known == Some(None) {
            self.violate("a renewal overlooked a graceful handoff");
        }
        for change in &request.update.changes {
            match change {
                Change::SetCheckpoint(position) => {
                    if before.checkpoint.order(position) == Ordering::Greater {
                        self.violate("a checkpoint moved back");
                    }
                    if before.actual_owner() != Some(&from) {
                        self.violate("a worker without the lease stored a checkpoint");
                    }
                }
                Change::SetOwner(owner) => {
                    let other = &self.workers[1 - request.from];
                    let still = other.holding.as_ref().is_some_and(|holding| holding.is_live(self.now()));
                    let other_is_java = bounds.java && request.from == 0;
                    if request.expired && still && !other_is_java {
                        self.violate("a lease was treated as expired while its owner could use it");
                    }
                    match &before.owner {
                        None => bounds.observe("an unowned lease was acquired"),
                        Some(old) if old == owner => bounds.observe("a lease was reacquired by its owner"),
                        Some(_) if request.expired => bounds.observe("an expired lease was acquired"),
                        Some(_) => bounds.observe("a lease was stolen"),
                    }
                }
                Change::ClearOwner => bounds.observe("a lease was released"),
                Change::ClearCheckpointOwner if before.checkpoint_owner.is_some() => {
                    if before.checkpoint_owner.as_ref() != Some(&from) && !request.expired {
                        self.violate("a graceful handoff was completed by another worker");
                    }
                    bounds.observe("a graceful handoff was completed by its old owner");
                }
                _ => {}
            }
        }
        self.old = before.clone();
        request.update.apply(&mut self.row);
        Ok(before)
    }

    fn send(&mut self, from: usize, update: &Update, expired: bool) {
        self.sends += 1;
        self.requests.push(Request { from, update: update.clone(), expired, late: false });
        self.requests.sort_by_key(|request| (request.from, request.late));
    }

    fn write(&mut self, from: usize, intent: Intent, bounds: &Bounds) {
        let now = self.now();
        let Some(holding) = &mut self.workers[from].holding else { return };
        match holding.plan(now, &intent) {
            Ok(mut update) => {
                if bounds.fault == Some(Fault::IgnoresHandoffs) {
                    update.requires.retain(|requirement| matches!(requirement, Requirement::Counter(_)));
                }
                self.send(from, &update, false);
                self.workers[from].pending = Pending::Writing { intent, update, started: now };
            }
            Err(_) => self.lose(from, bounds),
        }
    }

    fn lose(&mut self, from: usize, bounds: &Bounds) {
        bounds.observe("a worker noticed that its lease is lost");
        (self.workers[from].holding, self.workers[from].pending) = (None, Pending::Idle);
    }

    fn step(&mut self, from: usize, step: Step, intent: Intent, bounds: &Bounds) {
        self.workers[from].pending = Pending::Idle;
        match step {
            Step::Done => {}
            Step::ReadBack => self.workers[from].pending = Pending::Reading { intent },
            Step::Again => self.write(from, intent, bounds),
            Step::Failed(multilangd::lease::held::Error::Lost) => self.lose(from, bounds),
            Step::Failed(_) => {}
        }
    }

    /// Processes the response to the pending request.
    fn answered(&mut self, from: usize, answer: Result<Lease, Error>, bounds: &Bounds) {
        let now = self.now();
        let java = bounds.java && from == 1;
        let pending = std::mem::replace(&mut self.workers[from].pending, Pending::Idle);
        match pending {
            Pending::Writing { intent, update, started } => {
                let by_answer = java || bounds.fault == Some(Fault::ProvenByTheAnswer);
                let started = if by_answer { now } else { started };
                let conflict = matches!(answer, Err(Error::Conflict(_)));
                let unknown = matches!(answer, Err(Error::Ambiguous(_)));
                if java && matches!(intent, Intent::Checkpoint(_)) && conflict {
                    // KCL drops the lease without reading it back.
                    return self.lose(from, bounds);
                }
                if java && unknown {
                    return;
                }
                let Some(holding) = &mut self.workers[from].holding else { return };
                let step = holding.answered(started, &update, answer);
                self.step(from, step, intent, bounds);
            }
            Pending::Acquiring { update, proven, .. } => {
                if let Ok(mut row) = answer {
                    update.apply(&mut row);
                    if bounds.fault == Some(Fault::ForgetsTheCheckpoint) {
                        row.checkpoint = Position::new(Sequence::TrimHorizon);
                    }
                    let by_answer = java || bounds.fault == Some(Fault::ProvenByTheAnswer);
                    let proven = if by_answer { now } else { proven };
                    self.workers[from].holding = Some(Holding::new(row, name(from), proven, FAILOVER));
                }
            }
            Pending::Releasing | Pending::Idle | Pending::Reading { .. } => {}
        }
    }

    fn scan(&mut self, from: usize, stale: bool, bounds: &Bounds) {
        let now = self.now();
        let row = if stale { self.old.clone() } else { self.row.clone() };
        // The first worker renews it at every tick.
        let leases = vec![row, lease("t", Some(0), i64::from(self.tick))];
        self.workers[from].history.note_scan(&leases, now);
        let mut held = BTreeSet::<LeaseKey>::new();
        if self.workers[from].holding.is_some() {
            held.insert("s".into());
        }
        if from == 0 {
            held.insert("t".into());
        }
        let me = name(from);
        let asker = Asker {
            me: &me,
            held: &held,
            failover: FAILOVER,
            max_leases: 9,
            max_steals: 1,
            priority: true,
            stalled: &NONE,
        };
        let later = if bounds.fault == Some(Fault::NeverWaits) { now + FAILOVER * 2 } else { now };
        // The model is deterministic: it tries several seeds, so that both stealable leases are considered.
        let plans = (0..4).map(|seed| {
            asker.view(&leases, &self.workers[from].history, later).plan(&mut fastrand::Rng::with_seed(seed))
        });
        let wanted = plans.into_iter().find_map(|plan| {
            let of_s = |found: Vec<&Lease>| found.into_iter().find(|lease| lease.key == "s".into()).cloned();
            let expired = of_s(plan.take).map(|lease| (lease, true));
            expired.or_else(|| of_s(plan.steal).map(|lease| (lease, false)))
        });
        let Some((lease, take)) = wanted else { return };
        let expired = take && lease.actual_owner().is_some_and(|owner| *owner != me);
        let update = update::take(&lease, &me);
        self.send(from, &update, expired);
        self.workers[from].pending = Pending::Acquiring { update, proven: now, expired };
    }

    fn read_back(&mut self, from: usize, bounds: &Bounds) {
        let pending = std::mem::replace(&mut self.workers[from].pending, Pending::Idle);
        let (Pending::Reading { intent }, Some(holding)) = (pending, &mut self.workers[from].holding) else {
            return;
        };
        let counter = holding.row().counter;
        let mut seen = self.row.clone();
        if bounds.fault == Some(Fault::BelievesAnyRow) {
            (seen.owner, seen.checkpoint_owner, seen.counter) = (Some(name(from)), None, counter + 1);
        }
        let step = holding.read(Some(seen), &intent);
        if step == Step::Done {
            bounds.observe("a lost response was resolved by reading the row");
        }
        self.step(from, step, intent, bounds);
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

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let worker =
            || Worker { holding: None, pending: Pending::Idle, history: History::default(), answer: None };
        let mut row = lease("s", None, 0);
        if self.fault == Some(Fault::ForgetsTheCheckpoint) {
            row.checkpoint = number(2);
        }
        vec![State {
            tick: 0,
            old: row.clone(),
            row,
            workers: vec![worker(), worker()],
            requests: Vec::new(),
            sends: 0,
            crashes: 0,
            handoffs: 0,
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
            let Worker { holding, pending, .. } = &state.workers[worker];
            let may_send = state.requests.len() < self.requests && state.sends < self.sends;
            match (pending, holding) {
                (Pending::Idle, Some(_)) if may_send => {
                    actions.extend([
                        Action::Renew(worker),
                        Action::Checkpoint(worker),
                        Action::Release(worker),
                    ]);
                }
                (Pending::Idle, None) if may_send => {
                    actions.push(Action::Scan(worker, false));
                    if state.old != state.row {
                        actions.push(Action::Scan(worker, true));
                    }
                }
                (Pending::Reading { .. }, _) => actions.push(Action::ReadBack(worker)),
                _ if state.workers[worker].answer.is_some() => actions.push(Action::Receive(worker)),
                (Pending::Writing { .. } | Pending::Acquiring { .. } | Pending::Releasing, _) => {
                    actions.push(Action::GiveUp(worker));
                }
                _ => {}
            }
            if state.crashes < self.crashes && (holding.is_some() || *pending != Pending::Idle) {
                actions.push(Action::Crash(worker));
            }
        }
        for index in 0..state.requests.len() {
            actions.push(Action::Arrive(index, true));
            if !state.requests[index].late {
                actions.extend([Action::Arrive(index, false), Action::ArriveTwice(index)]);
            }
        }
        if state.row.owner.is_some() && state.row.checkpoint_owner.is_none() && state.handoffs < self.handoffs
        {
            actions.push(Action::Handoff);
        }
        if state.row.checkpoint_owner.is_some() {
            actions.push(Action::Force);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now();
        match action {
            Action::Tick => state.tick += 1,
            Action::Renew(from) => state.write(from, Intent::Renew, self),
            Action::Checkpoint(from) => {
                let known = state.workers[from]
                    .holding
                    .as_ref()?
                    .row()
                    .checkpoint
                    .sequence
                    .as_str()
                    .parse()
                    .unwrap_or(0);
                if known >= self.checkpoints {
                    return None;
                }
                state.write(from, Intent::Checkpoint(number(known + 1)), self);
            }
            Action::Release(from) => {
                let holding = state.workers[from].holding.take()?;
                if !holding.is_live(now) {
                    return None;
                }
                state.send(from, &update::release(holding.row(), &update::Next::Nobody), false);
                state.workers[from].pending = Pending::Releasing;
            }
            Action::Scan(from, stale) => state.scan(from, stale, self),
            Action::Arrive(index, delivered) => {
                let request = state.requests.remove(index);
                let answer = state.carry_out(&request, self);
                if !request.late {
                    let answer = if delivered { answer } else { Err(Error::Ambiguous(String::new())) };
                    if self.slow && delivered {
                        state.workers[request.from].answer = Some(answer);
                    } else {
                        state.answered(request.from, answer, self);
                    }
                }
            }
            Action::ArriveTwice(index) => {
                let request = state.requests.remove(index);
                if state.carry_out(&request, self).is_err() {
                    return None;
                }
                let again = state.carry_out(&request, self);
                state.answered(request.from, again, self);
            }
            Action::Receive(from) => {
                let answer = state.workers[from].answer.take()?;
                state.answered(from, answer, self);
            }
            Action::GiveUp(from) => {
                let mine = state.requests.iter_mut().find(|request| request.from == from && !request.late);
                mine?.late = true;
                state.answered(from, Err(Error::Ambiguous(String::new())), self);
            }
            Action::ReadBack(from) => state.read_back(from, self),
            Action::Crash(from) => {
                state.crashes += 1;
                state.workers[from] = Worker {
                    holding: None,
                    pending: Pending::Idle,
                    history: History::default(),
                    answer: None,
                };
                state
                    .requests
                    .iter_mut()
                    .filter(|request| request.from == from)
                    .for_each(|request| request.late = true);
            }
            Action::Handoff => {
                state.handoffs += 1;
                let owner = state.row.owner.clone()?;
                let next = if owner == name(0) { name(1) } else { name(0) };
                state.old = state.row.clone();
                (state.row.owner, state.row.checkpoint_owner) = (Some(next), Some(owner));
                self.observe("a leader started a graceful handoff");
            }
            Action::Force => {
                state.old = state.row.clone();
                (state.row.checkpoint_owner, state.row.counter) = (None, state.row.counter + 1);
                self.observe("a leader forced a graceful handoff");
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::<Self>::always("no violation", |_, state| state.violation.is_none())]
    }
}
