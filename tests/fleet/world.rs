//! The state that the workers of a simulation share: table, stream, network conditions, and the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use multilangd::fleet::memory::Rows;
use multilangd::fleet::rows::{Dated, Stage, StateLocation};
use multilangd::fleet::store::LockWrite;
use multilangd::lease::table::Error;
use multilangd::lease::update::{Change, Update};
use multilangd::lease::{Lease, LeaseKey, WorkerId};
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::{Filter, Shard};
use multilangd::stream::{StreamId, StreamIdentifier};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::ledger::Ledger;
use crate::oracle::Oracle;
use crate::stream::Stream;

/// `failoverTimeMillis` of every worker, unless a bug changes it.
pub const FAILOVER: Duration = Duration::from_secs(10);

/// The possible faults of a request, with their probabilities in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network {
    /// Minimum and maximum delay per direction, in milliseconds.
    pub delay: (u64, u64),
    pub refused: u32,
    pub throttled: u32,
    /// The request is executed, but the response is lost.
    pub answer_lost: u32,
    /// The request is executed so late that the sender has given up.
    pub late: u32,
    /// The request is executed, and retried by the sender's own client, which then sees its own write.
    pub retried: u32,
    /// A scan returns a row as it was up to a second ago.
    pub stale: u32,
    /// A child exits when it receives a message.
    pub child_dies: u32,
}

impl Denied {
    /// One or two of the faults, by number.
    pub fn of(number: usize) -> Self {
        let none = Self::default();
        match number % 7 {
            0 => Self { query: true, ..none },
            1 => Self { empty_index: true, ..none },
            2 => Self { lock_writes: true, ..none },
            3 => Self { lock_reads: true, lock_writes: true, ..none },
            4 => Self { report_reads: true, ..none },
            5 => Self { report_writes: true, ..none },
            _ => Self { query: true, lock_writes: true, report_reads: true, report_writes: true, ..none },
        }
    }
}

impl Network {
    pub const FINE: Self = Self {
        delay: (2, 15),
        refused: 0,
        throttled: 0,
        answer_lost: 0,
        late: 0,
        retried: 0,
        stale: 200,
        child_dies: 0,
    };
    pub const BAD: Self = Self {
        delay: (2, 400),
        refused: 40,
        throttled: 40,
        answer_lost: 40,
        late: 15,
        retried: 40,
        stale: 500,
        child_dies: 4,
    };
}

/// A fault that is injected into the program, to show that its invariant is effective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Each owner of a lease without a checkpoint begins at the latest record.
    BeginsAtLatestAgain,
    /// The table executes writes without checking their condition.
    IgnoresConditions,
    /// A worker assumes that every parent shard has ended.
    TakesParentsForEnded,
    /// Occasionally the first record of a response is omitted.
    SkipsARecord,
    /// A lease is assumed to be valid for four times its duration.
    TrustsALeaseTooLong,
    /// A row that exists is created again.
    MakesRowsAnew,
    /// The last response of a closed shard precedes its last records.
    EndsEarly,
    /// A worker assumes that every child shard has started.
    TakesChildrenForBegun,
    /// A worker that acquires a lease reads an old checkpoint.
    ForgetsTheCheckpoint,
    /// No worker acquires more than one lease.
    TakesTooLittle,
    /// No worker steals.
    NeverSteals,
    /// Workers assume a shorter duration of the leader lock than its holder does.
    ShortensTheLock,
    /// A scan hides a worker's own leases from it, unless it leads.
    HidesOwnLeases,
    /// If the leader lock cannot be written, its row shows a live leader.
    InventsALeader,
    /// Worker metrics that cannot be read appear as an empty list.
    EmptiesTheReports,
    /// Workers always see the identity of the first stream of the name.
    SeesOneStream,
    /// A worker with a wrong stream name treats its stream as the recreated one.
    TakesTheWrongStream,
    /// A shard whose row is finished is listed as closed.
    BelievesFinishedRows,
    /// Workers cannot determine whether a shard whose row was deleted still exists.
    ForgetsDeletedRows,
    /// The destination of dead letters acknowledges a letter without storing it.
    LosesLetters,
    /// The destination stores some of several dead letters and acknowledges all of them.
    ConfirmsTooMany,
    /// A child answers well at records that it cannot process.
    SwallowsErrors,
    /// A child checkpoints a batch before it processes it.
    CheckpointsFirst,
    /// Dead letters are written without end while every record fails.
    EmptiesTheStream,
    /// The clocks of all workers are an hour ahead, and no response has a date.
    ClockIsAhead,
    /// Workers never see the orders of an operator in the rows of their leases.
    HidesOrders,
    /// The table does not store where reading at the latest record began.
    ForgetsTheStart,
    /// The leases of the first stream lead to the records of another one.
    MixesStreams,
    /// A worker reads only the streams that it lists.
    ReadsListedOnly,
    /// Only the worker that moved the leader lock into the lease table notices the move.
    MissesTheMove,
}

/// Requests that DynamoDB denies or answers wrongly, while others work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Denied {
    /// `Query` on the index of lease owners.
    pub query: bool,
    /// The index returns no rows.
    pub empty_index: bool,
    /// `Scan` of the lease table.
    pub scan: bool,
    /// Writes of the leader lock.
    pub lock_writes: bool,
    /// Reads of the leader lock.
    pub lock_reads: bool,
    /// `Scan` of the worker metrics.
    pub report_reads: bool,
    /// `UpdateItem` of the worker metrics.
    pub report_writes: bool,
}

/// The faults of one worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Until then, no request gets through.
    pub partitioned: Option<Instant>,
    /// Until then, all tasks are suspended.
    pub frozen: Option<Instant>,
    /// Until then, these requests are denied to this worker.
    pub denied: Option<(Instant, Denied)>,
}

pub struct State {
    pub random: fastrand::Rng,
    pub stream: Stream,
    /// The other streams of an application that reads several.
    pub more: Vec<Stream>,
    /// The stream that a worker with a wrong stream name reads.
    pub other: Stream,
    pub rows: BTreeMap<LeaseKey, Lease>,
    past: BTreeMap<LeaseKey, VecDeque<(Instant, Option<Lease>)>>,
    pub fleet: Rows,
    pub oracle: Oracle,
    pub network: Network,
    pub faults: BTreeMap<WorkerId, Faults>,
    /// Requests that are denied to all workers.
    pub denied: Denied,
    pub bug: Option<Bug>,
    /// Number of requests by operation.
    pub calls: BTreeMap<&'static str, u64>,
    pub next_pid: u32,
    /// The account of a run with bad records; none if children process every record.
    pub ledger: Option<Ledger>,
    /// The number of children for which the machine of a worker has resources.
    pub child_limits: BTreeMap<WorkerId, usize>,
    /// The number of running children.
    pub running: BTreeMap<WorkerId, usize>,
}

pub struct World {
    state: Mutex<State>,
    /// Requests in flight: they arrive even if their sender is gone.
    in_flight: Mutex<JoinSet<()>>,
}

impl World {
    pub fn new(seed: u64, shards: u128, bug: Option<Bug>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                stream: Stream::new(shards),
                more: Vec::new(),
                other: Stream::new(2),
                rows: BTreeMap::new(),
                past: BTreeMap::new(),
                fleet: Rows::default(),
                oracle: Oracle::default(),
                network: Network::FINE,
                faults: BTreeMap::new(),
                denied: Denied::default(),
                bug,
                calls: BTreeMap::new(),
                next_pid: 1,
                ledger: None,
                child_limits: BTreeMap::new(),
                running: BTreeMap::new(),
            }),
            in_flight: Mutex::new(JoinSet::new()),
        })
    }

    /// The shared state. The guard must not be held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn send(&self, request: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.in_flight.lock().unwrap();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(request);
    }

    /// Waits until the worker is not frozen.
    pub async fn thawed(&self, worker: &WorkerId) {
        loop {
            let until = self.state().faults.get(worker).and_then(|faults| faults.frozen);
            match until {
                // In steps, because the end of the faults thaws a worker early.
                Some(until) if until > Instant::now() => {
                    sleep_until(until.min(Instant::now() + Duration::from_millis(100))).await;
                }
                _ => return,
            }
        }
    }
}

/// The stream that the key of a lease names.
pub fn stream_of<'a>(stream: &'a Stream, more: &'a [Stream], of: Option<&StreamIdentifier>) -> &'a Stream {
    let mut all = std::iter::once(stream).chain(more);
    all.find(|stream| stream.identifier.as_ref() == of).expect("a stream of the application")
}

impl State {
    /// All streams of the application.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        std::iter::once(&self.stream).chain(&self.more)
    }

    pub fn stream_of(&self, of: Option<&StreamIdentifier>) -> &Stream {
        stream_of(&self.stream, &self.more, of)
    }

    pub fn stream_of_mut(&mut self, of: Option<&StreamIdentifier>) -> &mut Stream {
        let mut all = std::iter::once(&mut self.stream).chain(&mut self.more);
        all.find(|stream| stream.identifier.as_ref() == of).expect("a stream of the application")
    }

    /// One of the streams, at random.
    pub fn any_stream(&mut self) -> &mut Stream {
        match self.more.len() {
            0 => &mut self.stream,
            more => match self.random.usize(0..=more) {
                0 => &mut self.stream,
                index => &mut self.more[index - 1],
            },
        }
    }

    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.random.u32(0..1000) < thousandths
    }

    /// Whether a kind of request of a worker is denied now.
    pub fn denies(&mut self, worker: &WorkerId, what: fn(&Denied) -> bool) -> bool {
        let own = self.faults.get(worker).and_then(|faults| faults.denied);
        let own = own.filter(|(until, _)| *until > Instant::now()).map(|(_, denied)| denied);
        let denied = what(&self.denied) || own.is_some_and(|denied| what(&denied));
        if denied {
            self.oracle.count("denied a request");
        }
        denied
    }

    pub fn delay(&mut self) -> Duration {
        let (least, most) = self.network.delay;
        Duration::from_millis(self.random.u64(least..=most))
    }

    pub fn call(&mut self, operation: &'static str) {
        *self.calls.entry(operation).or_default() += 1;
    }

    fn remember(&mut self, key: &LeaseKey, before: Option<Lease>) {
        let past = self.past.entry(key.clone()).or_default();
        past.push_back((Instant::now(), before));
        if past.len() > 8 {
            past.pop_front();
        }
    }

    pub fn write(
        &mut self,
        worker: &WorkerId,
        started: Instant,
        key: &LeaseKey,
        update: &Update,
    ) -> Result<Lease, Error> {
        let conflict = || Error::Conflict(key.clone());
        let before = self.rows.get(key).cloned().ok_or_else(conflict)?;
        let ignored = self.bug == Some(Bug::IgnoresConditions) && self.random.u32(0..3) == 0;
        if !update.holds(&before) && !ignored {
            self.oracle.count("rejected a conditional write");
            return Err(conflict());
        }
        self.remember(key, Some(before.clone()));
        let stream = stream_of(&self.stream, &self.more, key.stream());
        self.oracle.written(worker, started, &self.rows, &before, update, stream);
        self.check_settled(key, update);
        if let Some(row) = self.rows.get_mut(key) {
            update.apply(row);
            if self.bug == Some(Bug::ForgetsTheStart) {
                row.latest_from = None;
            }
        }
        let mut returned = before;
        if self.bug == Some(Bug::HidesOrders) {
            (returned.park, returned.pause) = (None, None);
        }
        if self.bug == Some(Bug::ForgetsTheCheckpoint) && returned.owner.as_ref() != Some(worker) {
            returned.checkpoint = Position::new(Sequence::TrimHorizon);
        }
        Ok(returned)
    }

    /// Checks that every record up to a checkpoint is settled.
    fn check_settled(&mut self, key: &LeaseKey, update: &Update) {
        let Some(ledger) = &self.ledger else { return };
        for change in &update.changes {
            if let Change::SetCheckpoint(position) = change
                && let Some(number) = ledger.unsettled(&self.stream, key.shard(), position)
            {
                let what = format!("{position} of {key} is checkpointed before {number} is settled");
                self.oracle.violated("checkpoint-unsettled", what);
            }
        }
    }

    /// A batch reached a child: the number of records, from the first, that it can process.
    pub fn fails_at(&mut self, numbers: &[u64]) -> Option<usize> {
        let Some(ledger) = &self.ledger else { return None };
        let flaky = ledger.flaky;
        let outage = ledger.outage;
        let first = numbers.iter().position(|number| outage || ledger.bad.contains(number));
        if first.is_none() && self.chance(flaky) {
            return Some(self.random.usize(0..numbers.len().max(1)));
        }
        first
    }

    pub fn write_lock(
        &mut self,
        worker: &WorkerId,
        place: StateLocation,
        started: Instant,
        write: &LockWrite,
    ) -> Result<(), Error> {
        self.fleet.write_lock(place, write)?;
        self.oracle.led(worker, place, started, write);
        Ok(())
    }

    pub fn write_stage(&mut self, over: Option<Stage>, row: Option<&Dated<Stage>>) -> Result<(), Error> {
        self.fleet.write_stage(over, row)?;
        match (over, row.map(|row| row.now.state)) {
            (Some(Stage::Pending), Some(Stage::Deployed)) => self.oracle.count("went back to three tables"),
            (_, Some(Stage::Pending)) => self.oracle.count("moved the rows into one table"),
            _ => {}
        }
        Ok(())
    }

    pub fn relocate(&mut self, leader: &WorkerId) -> Result<(), Error> {
        self.fleet.relocate(leader)
    }

    pub fn finish(&mut self, leader: &WorkerId, row: &Dated<Stage>) -> Result<(), Error> {
        self.fleet.finish(leader, row)?;
        self.oracle.lock_moves();
        Ok(())
    }

    pub fn create(&mut self, lease: &Lease, started: Instant) -> bool {
        if self.rows.contains_key(&lease.key) && self.bug != Some(Bug::MakesRowsAnew) {
            return false;
        }
        self.remember(&lease.key, None);
        self.oracle.made(lease, started);
        self.rows.insert(lease.key.clone(), lease.clone());
        true
    }

    pub fn delete(&mut self, key: &LeaseKey) -> bool {
        let Some(lease) = self.rows.get(key).filter(|lease| lease.is_complete()).cloned() else {
            return false;
        };
        let stream = stream_of(&self.stream, &self.more, key.stream());
        self.oracle.deleted(&self.rows, &lease, stream);
        self.remember(key, Some(lease));
        self.rows.remove(key).is_some()
    }

    /// The shards of the stream, or of another one with which a worker is configured.
    pub fn list(&self, of: Option<&StreamIdentifier>, foreign: bool, filter: Filter) -> Vec<Shard> {
        if foreign {
            return self.other.list(filter);
        }
        let stream = self.stream_of(of);
        let mut shards = stream.list(filter);
        if self.bug == Some(Bug::BelievesFinishedRows) {
            for shard in &mut shards {
                let finished = self.rows.get(&stream.key(&shard.id)).is_some_and(Lease::is_complete);
                if finished && shard.ending.is_none() {
                    shard.ending = Some(shard.starting.clone());
                }
            }
        }
        if self.bug == Some(Bug::ForgetsDeletedRows) {
            shards.retain(|shard| self.rows.is_empty() || self.rows.contains_key(&stream.key(&shard.id)));
        }
        shards
    }

    /// The identity of the stream, or of that other one.
    pub fn identity(&self, of: Option<&StreamIdentifier>, foreign: bool) -> StreamId {
        let stream = self.stream_of(of);
        match (foreign, self.bug) {
            (false, Some(Bug::SeesOneStream)) => StreamId::new(stream.identity().arn(), 1),
            (false, _) => stream.identity(),
            (true, Some(Bug::TakesTheWrongStream)) => {
                StreamId::new(stream.identity().arn(), stream.created + 1)
            }
            (true, _) => StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/other", 9),
        }
    }

    /// The result of a scan: each row as it is, or as it was a moment ago.
    pub fn scan(&mut self) -> Vec<Lease> {
        if self.network.stale == 0 && self.bug.is_none() {
            return self.rows.values().cloned().collect();
        }
        let keys: BTreeSet<LeaseKey> = self.rows.keys().chain(self.past.keys()).cloned().collect();
        let mut leases = Vec::new();
        for key in keys {
            let stale = self.network.stale;
            let seen = if self.chance(stale) {
                let at = Instant::now() - Duration::from_millis(self.random.u64(0..1000));
                let past = self.past.get(&key);
                let then = past.and_then(|past| past.iter().find(|(until, _)| *until > at));
                then.map_or_else(|| self.rows.get(&key).cloned(), |(_, row)| row.clone())
            } else {
                self.rows.get(&key).cloned()
            };
            leases.extend(seen);
        }
        if self.bug == Some(Bug::TakesChildrenForBegun) {
            let begun = Position::new(Sequence::Latest);
            for lease in leases.iter_mut().filter(|l| l.checkpoint.sequence == Sequence::TrimHorizon) {
                lease.checkpoint = begun.clone();
            }
        }
        leases
    }
}
