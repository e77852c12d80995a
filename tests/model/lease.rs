//! What a lease can go through: two workers and one row (and a second lease that only counts, so that there is something to steal).
//! Requests arrive whenever they like: after their sender has given up, died or come back; answers get lost;
//! a client tries a write twice and sees its own; scans show the row as it was a moment ago; a leader of KCL 3
//! opens a hand-off and forces it; a worker that does nothing for any time is a frozen one. The decisions are
//! the daemon's own: [`Holding`], [`update`], [`Asker`]. A model checker (stateright) visits every state.
//!
//! Each promise is shown to be watched by a variant that breaks it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use multilangd::lease::handoff::NONE;
use multilangd::lease::holding::{Holding, Intent, Step};
use multilangd::lease::table::Error;
use multilangd::lease::take::{Asker, Observations};
use multilangd::lease::update::{self, Change, Requirement, Update};
use multilangd::lease::{Lease, WorkerId};
use multilangd::sequence::{Position, Sequence, SequenceNumber};
use multilangd::shard::{HashRange, ShardId};
use stateright::{Model, Property};
use tokio::time::Instant;

mod checked;

/// The clock counts in these; nothing is finer.
const TICK: Duration = Duration::from_secs(1);
const FAILOVER: Duration = Duration::from_secs(2);
/// When the first tick is. Far from the machine's own beginning, so that times can be before it.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Broken {
    /// Writes go through whatever the counter.
    NoCounter,
    /// A lease is proven from the answer on, not from the request.
    ProvenByTheAnswer,
    /// Others' leases are taken without waiting for them to stand still.
    NeverWaits,
    /// A row that is read back is believed to be ours, whatever it says.
    BelievesAnyRow,
    /// A renewal does not look for a hand-off.
    IgnoresHandOffs,
    /// Whoever takes a lease believes that nothing is stored.
    ForgetsTheCheckpoint,
}

#[derive(Debug, Clone)]
struct Bounds {
    ticks: u8,
    /// Requests on their way at once.
    requests: usize,
    /// Requests in all.
    sends: u8,
    checkpoints: u64,
    crashes: u8,
    hand_offs: u8,
    /// Answers take their time.
    slow: bool,
    /// The second worker follows Java's rules.
    java: bool,
    broken: Option<Broken>,
    /// What has happened in any state, so that a check that never steals doesn't pass for one that does.
    seen: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Bounds {
    fn happened(&self, what: &'static str) {
        self.seen.lock().unwrap().insert(what);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Talk {
    Quiet,
    /// A write is under way.
    Writing {
        intent: Intent,
        update: Update,
        started: Instant,
    },
    /// The row must be read.
    Reading {
        intent: Intent,
    },
    Taking {
        update: Update,
        proven: Instant,
        expired: bool,
    },
    Releasing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Worker {
    holding: Option<Holding>,
    talk: Talk,
    seen: Observations,
    /// An answer that is on its way back.
    answer: Option<Result<Lease, Error>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    from: usize,
    update: Update,
    /// Taken because it stood still.
    expired: bool,
    /// Nobody waits for it any more.
    late: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    tick: u8,
    row: Lease,
    /// The row before its last change, which a scan may still show.
    old: Lease,
    workers: Vec<Worker>,
    requests: Vec<Request>,
    sends: u8,
    crashes: u8,
    hand_offs: u8,
    /// The broken promise, if one is.
    wrong: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Renew(usize),
    Checkpoint(usize),
    Release(usize),
    /// A scan, perhaps of the row as it was.
    Look(usize, bool),
    /// A request arrives; its answer gets through or not.
    Arrive(usize, bool),
    /// The client tries it twice, and hears of the second.
    ArriveTwice(usize),
    /// The answer arrives.
    Hear(usize),
    /// The sender waits no longer.
    GiveUp(usize),
    ReadBack(usize),
    Crash(usize),
    /// The leader: the next owner is to be the other.
    HandOff,
    Force,
}

fn name(worker: usize) -> WorkerId {
    ["a", "b"][worker].into()
}

fn number(value: u64) -> Position {
    Position::record(SequenceNumber::parse(&value.to_string()).unwrap(), 0)
}

fn lease(shard: &str, owner: Option<usize>, counter: i64) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let mut lease = Lease::new(shard.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    (lease.owner, lease.counter) = (owner.map(name), counter);
    lease
}

impl State {
    fn now(&self) -> Instant {
        *START + TICK * u32::from(self.tick)
    }

    fn wrong(&mut self, what: &'static str) {
        self.wrong.get_or_insert(what);
    }

    /// Carries a write out, as the table does.
    fn carry_out(&mut self, request: &Request, bounds: &Bounds) -> Result<Lease, Error> {
        let mut conditions = request.update.clone();
        if bounds.broken == Some(Broken::NoCounter) {
            conditions.requires.retain(|requirement| !matches!(requirement, Requirement::Counter(_)));
        }
        if !conditions.holds(&self.row) {
            if request.late {
                bounds.happened("a late write was refused");
            }
            return Err(Error::Conflict("s".into()));
        }
        let before = self.row.clone();
        let from = name(request.from);
        let known =
            self.workers[request.from].holding.as_ref().map(|holding| holding.row().checkpoint_owner.clone());
        if request.update.changes.len() == 1 && before.checkpoint_owner.is_some() && known == Some(None) {
            self.wrong("a renewal passed over a hand-off");
        }
        for change in &request.update.changes {
            match change {
                Change::SetCheckpoint(position) => {
                    if before.checkpoint.order(position) == Ordering::Greater {
                        self.wrong("a checkpoint moved back");
                    }
                    if before.actual_owner() != Some(&from) {
                        self.wrong("somebody else moved a checkpoint");
                    }
                }
                Change::SetOwner(owner) => {
                    let other = &self.workers[1 - request.from];
                    let still = other.holding.as_ref().is_some_and(|holding| holding.is_live(self.now()));
                    let other_is_java = bounds.java && request.from == 0;
                    if request.expired && still && !other_is_java {
                        self.wrong("a lease was taken for abandoned while its holder could use it");
                    }
                    match &before.owner {
                        None => bounds.happened("a free lease was taken"),
                        Some(old) if old == owner => bounds.happened("a lease was taken again by its owner"),
                        Some(_) if request.expired => bounds.happened("an abandoned lease was taken"),
                        Some(_) => bounds.happened("a lease was stolen"),
                    }
                }
                Change::ClearOwner => bounds.happened("a lease was given back"),
                Change::ClearCheckpointOwner if before.checkpoint_owner.is_some() => {
                    if before.checkpoint_owner.as_ref() != Some(&from) && !request.expired {
                        self.wrong("a hand-off was ended by somebody else");
                    }
                    bounds.happened("a hand-off was ended by its old owner");
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
                if bounds.broken == Some(Broken::IgnoresHandOffs) {
                    update.requires.retain(|requirement| matches!(requirement, Requirement::Counter(_)));
                }
                self.send(from, &update, false);
                self.workers[from].talk = Talk::Writing { intent, update, started: now };
            }
            Err(_) => self.lose(from, bounds),
        }
    }

    fn lose(&mut self, from: usize, bounds: &Bounds) {
        bounds.happened("a worker learned that its lease is lost");
        (self.workers[from].holding, self.workers[from].talk) = (None, Talk::Quiet);
    }

    fn step(&mut self, from: usize, step: Step, intent: Intent, bounds: &Bounds) {
        self.workers[from].talk = Talk::Quiet;
        match step {
            Step::Done => {}
            Step::ReadBack => self.workers[from].talk = Talk::Reading { intent },
            Step::Again => self.write(from, intent, bounds),
            Step::Failed(multilangd::lease::held::Error::Lost) => self.lose(from, bounds),
            Step::Failed(_) => {}
        }
    }

    /// The answer to the request that its sender waits for.
    fn answered(&mut self, from: usize, answer: Result<Lease, Error>, bounds: &Bounds) {
        let now = self.now();
        let java = bounds.java && from == 1;
        let talk = std::mem::replace(&mut self.workers[from].talk, Talk::Quiet);
        match talk {
            Talk::Writing { intent, update, started } => {
                let by_answer = java || bounds.broken == Some(Broken::ProvenByTheAnswer);
                let started = if by_answer { now } else { started };
                let conflict = matches!(answer, Err(Error::Conflict(_)));
                let unknown = matches!(answer, Err(Error::Ambiguous(_)));
                if java && matches!(intent, Intent::Checkpoint(_)) && conflict {
                    // Java drops the lease without reading back.
                    return self.lose(from, bounds);
                }
                if java && unknown {
                    return;
                }
                let Some(holding) = &mut self.workers[from].holding else { return };
                let step = holding.answered(started, &update, answer);
                self.step(from, step, intent, bounds);
            }
            Talk::Taking { update, proven, .. } => {
                if let Ok(mut row) = answer {
                    update.apply(&mut row);
                    if bounds.broken == Some(Broken::ForgetsTheCheckpoint) {
                        row.checkpoint = Position::new(Sequence::TrimHorizon);
                    }
                    let by_answer = java || bounds.broken == Some(Broken::ProvenByTheAnswer);
                    let proven = if by_answer { now } else { proven };
                    self.workers[from].holding = Some(Holding::new(row, name(from), proven, FAILOVER));
                }
            }
            Talk::Releasing | Talk::Quiet | Talk::Reading { .. } => {}
        }
    }

    fn look(&mut self, from: usize, stale: bool, bounds: &Bounds) {
        let now = self.now();
        let row = if stale { self.old.clone() } else { self.row.clone() };
        // It is renewed at every tick, by the first worker.
        let leases = vec![row, lease("t", Some(0), i64::from(self.tick))];
        self.workers[from].seen.note(&leases, now);
        let mut held = BTreeSet::<ShardId>::new();
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
        let later = if bounds.broken == Some(Broken::NeverWaits) { now + FAILOVER * 2 } else { now };
        // Chance is not the model's: both of two leases that could be stolen are tried.
        let plans = (0..4).map(|seed| {
            asker.view(&leases, &self.workers[from].seen, later).plan(&mut fastrand::Rng::with_seed(seed))
        });
        let wanted = plans.into_iter().find_map(|plan| {
            let of_s =
                |found: Vec<&Lease>| found.into_iter().find(|lease| lease.shard.as_str() == "s").cloned();
            let expired = of_s(plan.take).map(|lease| (lease, true));
            expired.or_else(|| of_s(plan.steal).map(|lease| (lease, false)))
        });
        let Some((lease, take)) = wanted else { return };
        let expired = take && lease.actual_owner().is_some_and(|owner| *owner != me);
        let update = update::take(&lease, &me);
        self.send(from, &update, expired);
        self.workers[from].talk = Talk::Taking { update, proven: now, expired };
    }

    fn read_back(&mut self, from: usize, bounds: &Bounds) {
        let talk = std::mem::replace(&mut self.workers[from].talk, Talk::Quiet);
        let (Talk::Reading { intent }, Some(holding)) = (talk, &mut self.workers[from].holding) else {
            return;
        };
        let counter = holding.row().counter;
        let mut seen = self.row.clone();
        if bounds.broken == Some(Broken::BelievesAnyRow) {
            (seen.owner, seen.checkpoint_owner, seen.counter) = (Some(name(from)), None, counter + 1);
        }
        let step = holding.read(Some(seen), &intent);
        if step == Step::Done {
            bounds.happened("a lost answer was made good by reading the row");
        }
        self.step(from, step, intent, bounds);
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let worker =
            || Worker { holding: None, talk: Talk::Quiet, seen: Observations::default(), answer: None };
        let mut row = lease("s", None, 0);
        if self.broken == Some(Broken::ForgetsTheCheckpoint) {
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
            hand_offs: 0,
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
            let Worker { holding, talk, .. } = &state.workers[worker];
            let may_send = state.requests.len() < self.requests && state.sends < self.sends;
            match (talk, holding) {
                (Talk::Quiet, Some(_)) if may_send => {
                    actions.extend([
                        Action::Renew(worker),
                        Action::Checkpoint(worker),
                        Action::Release(worker),
                    ]);
                }
                (Talk::Quiet, None) if may_send => {
                    actions.push(Action::Look(worker, false));
                    if state.old != state.row {
                        actions.push(Action::Look(worker, true));
                    }
                }
                (Talk::Reading { .. }, _) => actions.push(Action::ReadBack(worker)),
                _ if state.workers[worker].answer.is_some() => actions.push(Action::Hear(worker)),
                (Talk::Writing { .. } | Talk::Taking { .. } | Talk::Releasing, _) => {
                    actions.push(Action::GiveUp(worker));
                }
                _ => {}
            }
            if state.crashes < self.crashes && (holding.is_some() || *talk != Talk::Quiet) {
                actions.push(Action::Crash(worker));
            }
        }
        for index in 0..state.requests.len() {
            actions.push(Action::Arrive(index, true));
            if !state.requests[index].late {
                actions.extend([Action::Arrive(index, false), Action::ArriveTwice(index)]);
            }
        }
        if state.row.owner.is_some()
            && state.row.checkpoint_owner.is_none()
            && state.hand_offs < self.hand_offs
        {
            actions.push(Action::HandOff);
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
                state.workers[from].talk = Talk::Releasing;
            }
            Action::Look(from, stale) => state.look(from, stale, self),
            Action::Arrive(index, heard) => {
                let request = state.requests.remove(index);
                let answer = state.carry_out(&request, self);
                if !request.late {
                    let answer = if heard { answer } else { Err(Error::Ambiguous(String::new())) };
                    if self.slow && heard {
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
            Action::Hear(from) => {
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
                state.workers[from] =
                    Worker { holding: None, talk: Talk::Quiet, seen: Observations::default(), answer: None };
                state
                    .requests
                    .iter_mut()
                    .filter(|request| request.from == from)
                    .for_each(|request| request.late = true);
            }
            Action::HandOff => {
                state.hand_offs += 1;
                let owner = state.row.owner.clone()?;
                let next = if owner == name(0) { name(1) } else { name(0) };
                state.old = state.row.clone();
                (state.row.owner, state.row.checkpoint_owner) = (Some(next), Some(owner));
                self.happened("a leader opened a hand-off");
            }
            Action::Force => {
                state.old = state.row.clone();
                (state.row.checkpoint_owner, state.row.counter) = (None, state.row.counter + 1);
                self.happened("a leader forced a hand-off");
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::<Self>::always("nothing goes wrong", |_, state| state.wrong.is_none())]
    }
}
