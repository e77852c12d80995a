//! Everything that the workers of a simulation share: table, stream, weather, and the oracle that watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use multilangd::fleet::memory::Rows;
use multilangd::fleet::rows::{Dated, Stage, StateLocation};
use multilangd::fleet::store::LockWrite;
use multilangd::lease::table::Error;
use multilangd::lease::update::Update;
use multilangd::lease::{Lease, WorkerId};
use multilangd::sequence::{Position, Sequence};
use multilangd::shard::{Filter, Shard, ShardId};
use multilangd::stream::StreamId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::oracle::Oracle;
use crate::stream::Stream;

/// `failoverTimeMillis` of every worker, unless a bug says otherwise.
pub const FAILOVER: Duration = Duration::from_secs(10);

/// What may happen to a request; chances in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Milliseconds to the other side, and back.
    pub delay: (u64, u64),
    pub refused: u32,
    pub throttled: u32,
    /// Carried out, the answer lost.
    pub answer_lost: u32,
    /// Carried out so late that the sender has given up.
    pub late: u32,
    /// Carried out, and tried again by the sender's own client, which then sees its own write.
    pub retried: u32,
    /// A scan shows a row as it was up to a second ago.
    pub stale: u32,
    /// A child ends at a message.
    pub child_dies: u32,
}

impl Denied {
    /// One or two of them, by number.
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

impl Weather {
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

/// A fault of the program, put in on purpose to see that its invariant is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The table carries out writes whatever their condition.
    IgnoresConditions,
    /// A worker believes that every parent has ended.
    TakesParentsForEnded,
    /// Now and then the first record of an answer is left out.
    SkipsARecord,
    /// A lease is believed to last four times as long as it does.
    TrustsALeaseTooLong,
    /// A row that exists is made again.
    MakesRowsAnew,
    /// A closed shard's last answer comes before its last records.
    EndsEarly,
    /// A worker believes that every child has begun.
    TakesChildrenForBegun,
    /// Whoever takes a lease is told an old checkpoint.
    ForgetsTheCheckpoint,
    /// Nobody takes more than one lease.
    TakesTooLittle,
    /// Nobody steals.
    NeverSteals,
    /// Observers of the leader's lock take it for shorter than it is.
    ShortensTheLock,
    /// A scan shows a worker none of its own leases, unless it leads.
    HidesOwnLeases,
    /// Where the leader lock can't be written, its row shows a leader that lives.
    InventsALeader,
    /// Worker metrics that can't be read are an empty list.
    EmptiesTheReports,
    /// Workers are told of the first stream of the name for ever.
    SeesOneStream,
    /// A worker with a wrong stream name takes its stream for the one that was created again.
    TakesTheWrongStream,
    /// A shard whose row is finished is listed as closed.
    BelievesFinishedRows,
    /// Nobody learns whether a shard whose row was deleted is still there.
    ForgetsDeletedRows,
    /// Nobody sees that the leader's lock has moved into the lease table, but for who moved it.
    MissesTheMove,
}

/// Requests that DynamoDB denies, or answers wrongly, while the others work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Denied {
    /// `Query` on the index of lease owners.
    pub query: bool,
    /// The index lists nothing.
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

/// What one worker suffers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Nothing gets through.
    pub partitioned: Option<Instant>,
    /// Whatever is under way stands still, and goes on then.
    pub frozen: Option<Instant>,
    /// Denied to this worker alone, until then.
    pub denied: Option<(Instant, Denied)>,
}

pub struct State {
    pub random: fastrand::Rng,
    pub stream: Stream,
    /// The stream that a worker with a wrong stream name reads.
    pub other: Stream,
    pub rows: BTreeMap<ShardId, Lease>,
    past: BTreeMap<ShardId, VecDeque<(Instant, Option<Lease>)>>,
    pub fleet: Rows,
    pub oracle: Oracle,
    pub weather: Weather,
    pub trouble: BTreeMap<WorkerId, Trouble>,
    /// For every worker, whatever the weather.
    pub denied: Denied,
    pub bug: Option<Bug>,
    /// Requests by operation.
    pub calls: BTreeMap<&'static str, u64>,
    pub next_pid: u32,
    /// How many children the machine of a worker has room for.
    pub rooms: BTreeMap<WorkerId, usize>,
    /// Children that run.
    pub running: BTreeMap<WorkerId, usize>,
}

pub struct World {
    state: Mutex<State>,
    /// Requests on their way: they arrive though their sender is gone.
    on_the_way: Mutex<JoinSet<()>>,
}

impl World {
    pub fn new(seed: u64, shards: u128, bug: Option<Bug>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                stream: Stream::new(shards),
                other: Stream::new(2),
                rows: BTreeMap::new(),
                past: BTreeMap::new(),
                fleet: Rows::default(),
                oracle: Oracle::default(),
                weather: Weather::FINE,
                trouble: BTreeMap::new(),
                denied: Denied::default(),
                bug,
                calls: BTreeMap::new(),
                next_pid: 1,
                rooms: BTreeMap::new(),
                running: BTreeMap::new(),
            }),
            on_the_way: Mutex::new(JoinSet::new()),
        })
    }

    /// Never held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn send(&self, request: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.on_the_way.lock().unwrap();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(request);
    }

    /// Until the worker isn't frozen.
    pub async fn thawed(&self, worker: &WorkerId) {
        loop {
            let until = self.state().trouble.get(worker).and_then(|trouble| trouble.frozen);
            match until {
                // In steps: when it calms down, whoever is frozen thaws before its time.
                Some(until) if until > Instant::now() => {
                    sleep_until(until.min(Instant::now() + Duration::from_millis(100))).await;
                }
                _ => return,
            }
        }
    }
}

impl State {
    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.random.u32(0..1000) < thousandths
    }

    /// Whether a kind of request of a worker is denied now.
    pub fn denies(&mut self, worker: &WorkerId, what: fn(&Denied) -> bool) -> bool {
        let own = self.trouble.get(worker).and_then(|trouble| trouble.denied);
        let own = own.filter(|(until, _)| *until > Instant::now()).map(|(_, denied)| denied);
        let denied = what(&self.denied) || own.is_some_and(|denied| what(&denied));
        if denied {
            self.oracle.count("denied a request");
        }
        denied
    }

    pub fn delay(&mut self) -> Duration {
        let (least, most) = self.weather.delay;
        Duration::from_millis(self.random.u64(least..=most))
    }

    pub fn call(&mut self, operation: &'static str) {
        *self.calls.entry(operation).or_default() += 1;
    }

    fn remember(&mut self, shard: &ShardId, before: Option<Lease>) {
        let past = self.past.entry(shard.clone()).or_default();
        past.push_back((Instant::now(), before));
        if past.len() > 8 {
            past.pop_front();
        }
    }

    pub fn write(
        &mut self,
        worker: &WorkerId,
        started: Instant,
        shard: &ShardId,
        update: &Update,
    ) -> Result<Lease, Error> {
        let conflict = || Error::Conflict(shard.clone());
        let before = self.rows.get(shard).cloned().ok_or_else(conflict)?;
        let ignored = self.bug == Some(Bug::IgnoresConditions) && self.random.u32(0..3) == 0;
        if !update.holds(&before) && !ignored {
            self.oracle.count("refused a write");
            return Err(conflict());
        }
        self.remember(shard, Some(before.clone()));
        self.oracle.written(worker, started, &self.rows, &before, update, &self.stream);
        if let Some(row) = self.rows.get_mut(shard) {
            update.apply(row);
        }
        let mut told = before;
        if self.bug == Some(Bug::ForgetsTheCheckpoint) && told.owner.as_ref() != Some(worker) {
            told.checkpoint = Position::new(Sequence::TrimHorizon);
        }
        Ok(told)
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
        if self.rows.contains_key(&lease.shard) && self.bug != Some(Bug::MakesRowsAnew) {
            return false;
        }
        self.remember(&lease.shard, None);
        self.oracle.made(lease, started);
        self.rows.insert(lease.shard.clone(), lease.clone());
        true
    }

    pub fn delete(&mut self, shard: &ShardId) -> bool {
        let Some(lease) = self.rows.get(shard).filter(|lease| lease.is_complete()).cloned() else {
            return false;
        };
        self.oracle.deleted(&self.rows, &lease, &self.stream);
        self.remember(shard, Some(lease));
        self.rows.remove(shard).is_some()
    }

    /// The shards of the stream, or of another one that a worker is configured with.
    pub fn list(&self, foreign: bool, filter: Filter) -> Vec<Shard> {
        if foreign {
            return self.other.list(filter);
        }
        let mut shards = self.stream.list(filter);
        if self.bug == Some(Bug::BelievesFinishedRows) {
            for shard in &mut shards {
                let finished = self.rows.get(&shard.id).is_some_and(Lease::is_complete);
                if finished && shard.ending.is_none() {
                    shard.ending = Some(shard.starting.clone());
                }
            }
        }
        if self.bug == Some(Bug::ForgetsDeletedRows) {
            shards.retain(|shard| self.rows.is_empty() || self.rows.contains_key(&shard.id));
        }
        shards
    }

    /// The identity of the stream, or of that other one.
    pub fn identity(&self, foreign: bool) -> StreamId {
        match (foreign, self.bug) {
            (false, Some(Bug::SeesOneStream)) => StreamId::new(self.stream.identity().arn(), 1),
            (false, _) => self.stream.identity(),
            (true, Some(Bug::TakesTheWrongStream)) => {
                StreamId::new(self.stream.identity().arn(), self.stream.created + 1)
            }
            (true, _) => StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/other", 9),
        }
    }

    /// What a scan shows: each row as it is, or as it was a moment ago.
    pub fn scan(&mut self) -> Vec<Lease> {
        if self.weather.stale == 0 && self.bug.is_none() {
            return self.rows.values().cloned().collect();
        }
        let shards: BTreeSet<ShardId> = self.rows.keys().chain(self.past.keys()).cloned().collect();
        let mut leases = Vec::new();
        for shard in shards {
            let stale = self.weather.stale;
            let seen = if self.chance(stale) {
                let at = Instant::now() - Duration::from_millis(self.random.u64(0..1000));
                let past = self.past.get(&shard);
                let then = past.and_then(|past| past.iter().find(|(until, _)| *until > at));
                then.map_or_else(|| self.rows.get(&shard).cloned(), |(_, row)| row.clone())
            } else {
                self.rows.get(&shard).cloned()
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
