//! The ports of one worker: table, stream and children, with delays, lost messages and partitions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use multilangd::budget::Reservation;
use multilangd::fleet::rows::{Dated, Generation, Lock, Report, Stage, StateLocation};
use multilangd::fleet::store::{Generations, LeaderLock, Legacy, LockWrite, Reports, TableMigration};
use multilangd::lease::table::{Error, Found};
use multilangd::lease::update::Update;
use multilangd::lease::{Lease, LeaseKey, Table, WorkerId};
use multilangd::metrics::{OfShard, OfWorker, Sink};
use multilangd::multilang::launch::Process;
use multilangd::multilang::{ForShard, Launch, SpawnError};
use multilangd::record::{Data, Record};
use multilangd::retrieval::{self, Answer, Start};
use multilangd::sequence::{Position, Sequence, SequenceNumber};
use multilangd::shard::{self, BoxFuture, Filter, Shard, ShardId};
use multilangd::stream::{StreamId, StreamIdentifier};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::child::Child;
use crate::story::wall;
use crate::world::{Bug, Denied, World, stream_of};

/// The timeout of a request, as in the AWS client.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Link {
    pub world: Arc<World>,
    pub worker: WorkerId,
    /// The stream of this port, if the application reads several.
    pub stream: Option<StreamIdentifier>,
    /// Whether the worker is configured with another stream.
    pub foreign: bool,
}

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Refused,
    Throttled,
    AnswerLost,
    Late,
    Retried,
    Swallowed,
}

impl Link {
    fn fate(&self) -> Fate {
        let mut state = self.world.state();
        let faults = state.faults.get(&self.worker).copied().unwrap_or_default();
        if faults.partitioned.is_some_and(|until| until > Instant::now()) {
            // A request sent just before may have been executed.
            return if state.chance(100) { Fate::AnswerLost } else { Fate::Swallowed };
        }
        let network = state.network;
        let mut roll = state.random.u32(0..1000);
        for (chance, fate, what) in [
            (network.refused, Fate::Refused, "a request was rejected"),
            (network.throttled, Fate::Throttled, "a request was throttled"),
            (network.answer_lost, Fate::AnswerLost, "a response was lost"),
            (network.late, Fate::Late, "a write arrived late"),
            (network.retried, Fate::Retried, "a write was retried"),
        ] {
            if roll < chance {
                state.oracle.count(what);
                return fate;
            }
            roll -= chance;
        }
        Fate::Arrives
    }

    fn delay(&self) -> Duration {
        self.world.state().delay()
    }

    fn denied(&self, what: fn(&Denied) -> bool) -> Result<(), Error> {
        if self.world.state().denies(&self.worker, what) {
            return Err(Error::Denied("AccessDeniedException".to_owned()));
        }
        Ok(())
    }

    /// A write, executed by the world's task: it arrives even if its sender gives up or dies.
    pub async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        carry_out: impl Fn(&World) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.world.thawed(&self.worker).await;
        self.world.state().call(operation);
        let fate = self.fate();
        let (there, back) = (self.delay(), self.delay());
        let unknown = || Error::Ambiguous("no answer".to_owned());
        if self.foreign {
            let what = format!("{} writes to the table of another stream: {operation}", self.worker);
            self.world.state().oracle.violated("foreign-write", what);
        }
        match fate {
            Fate::Refused => {
                sleep(there).await;
                return Err(Error::Unavailable("a request was rejected".to_owned()));
            }
            Fate::Throttled => {
                sleep(there).await;
                return Err(Error::Throttled("a request was throttled".to_owned()));
            }
            Fate::Swallowed => {
                sleep(TIMEOUT).await;
                return Err(unknown());
            }
            Fate::Arrives | Fate::AnswerLost | Fate::Late | Fate::Retried => {}
        }
        let later = match fate {
            Fate::Late => Duration::from_millis(self.world.state().random.u64(3_000..60_000)),
            _ => there,
        };
        let (answer, answered) = oneshot::channel();
        let (world, worker) = (self.world.clone(), self.worker.clone());
        self.world.send(async move {
            sleep(later).await;
            world.thawed(&worker).await;
            let mut outcome = carry_out(&world);
            if fate == Fate::Retried {
                outcome = carry_out(&world);
            }
            sleep(back).await;
            world.thawed(&worker).await;
            if fate != Fate::AnswerLost {
                let _sender_is_gone = answer.send(outcome).is_err();
            }
        });
        match timeout(TIMEOUT, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }

    async fn read<T>(&self, operation: &'static str, look: impl Fn(&World) -> T) -> Result<T, String> {
        self.world.thawed(&self.worker).await;
        self.world.state().call(operation);
        let fate = self.fate();
        sleep(self.delay()).await;
        match fate {
            Fate::Arrives | Fate::Retried => {}
            Fate::Refused | Fate::Throttled => return Err("a request was rejected".to_owned()),
            Fate::AnswerLost | Fate::Late | Fate::Swallowed => {
                sleep(TIMEOUT).await;
                return Err("no answer".to_owned());
            }
        }
        let seen = look(&self.world);
        sleep(self.delay()).await;
        self.world.thawed(&self.worker).await;
        Ok(seen)
    }
}

impl Table for Link {
    fn ensure(&self) -> BoxFuture<'_, Result<Found, Error>> {
        Box::pin(async {
            self.read("DescribeTable", |_| ()).await.map_err(Error::Unavailable)?;
            Ok(Found::Existed(Duration::MAX))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Lease>, Error>> {
        Box::pin(async {
            let leases = self.read("Scan", |world| world.state().scan()).await.map_err(Error::Unavailable)?;
            self.denied(|denied| denied.scan)?;
            let state = self.world.state();
            let hides = state.bug == Some(Bug::HidesOwnLeases)
                && !state.fleet.lock.values().any(|lock| lock.owner == self.worker);
            let shown = |lease: &Lease| !hides || lease.owner.as_ref() != Some(&self.worker);
            Ok(leases.into_iter().filter(shown).collect())
        })
    }

    fn get<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<Option<Lease>, Error>> {
        Box::pin(async move {
            let row = self.read("GetItem", |world| world.state().rows.get(key).cloned()).await;
            let mut row = row.map_err(Error::Unavailable)?;
            let lies = self.world.state().bug == Some(Bug::TakesParentsForEnded);
            if let Some(row) = row.as_mut().filter(|row| lies && row.actual_owner() != Some(&self.worker)) {
                row.checkpoint = Position::shard_end();
            }
            Ok(row)
        })
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, Error>> {
        let (lease, started) = (lease.clone(), Instant::now());
        Box::pin(self.write("PutItem", move |world| Ok(world.state().create(&lease, started))))
    }

    fn update<'a>(&'a self, key: &'a LeaseKey, update: &'a Update) -> BoxFuture<'a, Result<Lease, Error>> {
        let (worker, key, update) = (self.worker.clone(), key.clone(), update.clone());
        let started = Instant::now();
        let write = move |world: &World| world.state().write(&worker, started, &key, &update);
        Box::pin(async move {
            let answer = self.write("UpdateItem", write).await;
            if let Ok(row) = &answer {
                self.world.state().oracle.answered(&self.worker, row);
            }
            answer
        })
    }

    fn owned<'a>(&'a self, worker: &'a WorkerId) -> BoxFuture<'a, Result<Vec<LeaseKey>, Error>> {
        let worker = worker.clone();
        Box::pin(async move {
            let owned = self.read("Query", |world| {
                let leases = world.state().scan();
                let theirs = leases.into_iter().filter(|lease| lease.owner.as_ref() == Some(&worker));
                theirs.map(|lease| lease.key).collect()
            });
            let owned = owned.await.map_err(Error::Unavailable)?;
            self.denied(|denied| denied.query)?;
            let empty = self.world.state().denies(&self.worker, |denied| denied.empty_index);
            Ok(if empty { Vec::new() } else { owned })
        })
    }

    fn index(&self, _: bool) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { self.read("DescribeTable", |_| true).await.map_err(Error::Unavailable) })
    }

    fn delete<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        let key = key.clone();
        Box::pin(self.write("DeleteItem", move |world| Ok(world.state().delete(&key))))
    }

    fn forget<'a>(&'a self, key: &'a LeaseKey) -> BoxFuture<'a, Result<bool, Error>> {
        let key = key.clone();
        Box::pin(self.write("DeleteItem", move |world| Ok(world.state().rows.remove(&key).is_some())))
    }
}

impl LeaderLock for Link {
    fn lock(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Lock>, Error>> {
        Box::pin(async move {
            let row = self.read("GetItem", |world| world.state().fleet.lock.get(&place).cloned()).await;
            let mut row = row.map_err(Error::Unavailable)?;
            self.denied(|denied| denied.lock_reads)?;
            let bug = self.world.state().bug;
            let writes = self.denied(|denied| denied.lock_writes);
            if bug == Some(Bug::InventsALeader) && writes.is_err() {
                let version = format!("{:?}", Instant::now());
                let lease = Duration::from_secs(16);
                return Ok(Some(Lock { owner: "nobody".into(), lease, version, released: false }));
            }
            let short = self.world.state().bug == Some(Bug::ShortensTheLock);
            if let Some(row) = row.as_mut().filter(|_| short) {
                row.lease /= 8;
            }
            Ok(row)
        })
    }

    fn write_lock<'a>(
        &'a self,
        place: StateLocation,
        write: &'a LockWrite,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let (worker, write, started) = (self.worker.clone(), write.clone(), Instant::now());
        Box::pin(async move {
            if let Err(error) = self.denied(|denied| denied.lock_writes) {
                self.world.state().call("LockItem");
                sleep(self.delay()).await;
                return Err(error);
            }
            let carry_out = move |world: &World| world.state().write_lock(&worker, place, started, &write);
            self.write("LockItem", carry_out).await
        })
    }
}

impl Generations for Link {
    fn generation(&self, place: StateLocation) -> BoxFuture<'_, Result<Option<Dated<Generation>>, Error>> {
        Box::pin(async move {
            let row = self.read("GetItem", |world| world.state().fleet.generation.get(&place).cloned()).await;
            row.map_err(Error::Unavailable)
        })
    }

    fn write_generation<'a>(
        &'a self,
        place: StateLocation,
        over: Option<Generation>,
        row: &'a Dated<Generation>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let row = row.clone();
        Box::pin(self.write("PutItem", move |world| world.state().fleet.write_generation(place, over, &row)))
    }
}

impl Reports for Link {
    fn make_reports(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.write("CreateTable", |world| {
            world.state().fleet.legacy.reports = true;
            Ok(())
        }))
    }

    fn reports(&self, place: StateLocation) -> BoxFuture<'_, Result<Vec<Report>, Error>> {
        Box::pin(async move {
            let rows = self.read("Scan", |world| world.state().fleet.reports_of(place)).await;
            let rows = rows.map_err(Error::Unavailable)?;
            match self.denied(|denied| denied.report_reads) {
                Err(_) if self.world.state().bug == Some(Bug::EmptiesTheReports) => Ok(Vec::new()),
                denied => denied.map(|()| rows),
            }
        })
    }

    fn report<'a>(&'a self, place: StateLocation, report: &'a Report) -> BoxFuture<'a, Result<(), Error>> {
        let report = report.clone();
        Box::pin(async move {
            if let Err(error) = self.denied(|denied| denied.report_writes) {
                self.world.state().call("UpdateItem");
                sleep(self.delay()).await;
                return Err(error);
            }
            let carry_out = move |world: &World| {
                world.state().fleet.reports.insert((place, report.worker.clone()), report.clone());
                Ok(())
            };
            self.write("UpdateItem", carry_out).await
        })
    }

    fn retract<'a>(
        &'a self,
        place: StateLocation,
        worker: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let worker = worker.to_owned();
        Box::pin(self.write("DeleteItem", move |world| Ok(world.state().fleet.retract(place, &worker, at))))
    }
}

impl TableMigration for Link {
    fn legacy(&self) -> BoxFuture<'_, Result<Legacy, Error>> {
        Box::pin(async {
            let seen = self.read("DescribeTable", |world| world.state().fleet.legacy).await;
            seen.map_err(Error::Unavailable)
        })
    }

    fn stage(&self) -> BoxFuture<'_, Result<Option<Dated<Stage>>, Error>> {
        Box::pin(async {
            let row = self.read("GetItem", |world| world.state().fleet.stage.clone()).await;
            let mut row = row.map_err(Error::Unavailable)?;
            if self.world.state().bug == Some(Bug::MissesTheMove) {
                row = row.filter(|row| row.now.state != Stage::Complete);
            }
            Ok(row)
        })
    }

    fn write_stage<'a>(
        &'a self,
        over: Option<Stage>,
        row: &'a Dated<Stage>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let row = row.clone();
        Box::pin(self.write("PutItem", move |world| world.state().write_stage(over, Some(&row))))
    }

    fn withdraw_stage(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.write("DeleteItem", |world| world.state().write_stage(Some(Stage::Init), None)))
    }

    fn left(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            let left = self.read("Scan", |world| world.state().fleet.left()).await;
            left.map_err(Error::Unavailable)
        })
    }

    fn relocate<'a>(&'a self, leader: &'a WorkerId, _: &'a [String]) -> BoxFuture<'a, Result<(), Error>> {
        let leader = leader.clone();
        Box::pin(self.write("TransactWriteItems", move |world| world.state().relocate(&leader)))
    }

    fn finish<'a>(&'a self, leader: &'a WorkerId, row: &'a Dated<Stage>) -> BoxFuture<'a, Result<(), Error>> {
        let (leader, row) = (leader.clone(), row.clone());
        Box::pin(self.write("TransactWriteItems", move |world| world.state().finish(&leader, &row)))
    }
}

impl shard::Api for Link {
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(async move {
            let foreign = self.foreign;
            let shards = self
                .read("ListShards", |world| world.state().list(self.stream.as_ref(), foreign, filter))
                .await;
            shards.map_err(shard::Error::Unavailable)
        })
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(async move {
            let foreign = self.foreign;
            let identity = self
                .read("DescribeStreamSummary", |world| world.state().identity(self.stream.as_ref(), foreign))
                .await;
            identity.map_err(shard::Error::Unavailable)
        })
    }
}

/// An iterator consists of the stream's creation count, a shard, and the index of the next record.
impl retrieval::Api for Link {
    fn iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        start: &'a Start,
    ) -> BoxFuture<'a, Result<String, retrieval::Error>> {
        Box::pin(async move {
            let index = self.read("GetShardIterator", |world| {
                let mut state = world.state();
                let state = &mut *state;
                let stream = stream_of(&state.stream, &state.more, self.stream.as_ref());
                let line = stream.shards.get(shard).ok_or_else(|| missing(shard))?;
                let place = |number: &SequenceNumber| number.as_str().parse::<u64>().unwrap();
                if let Start::At(number) | Start::After(number) = start
                    && place(number) < line.starting
                {
                    return Err(retrieval::Error::Denied(format!("{number} is not of {shard}")));
                }
                let index = match start {
                    Start::TrimHorizon => 0,
                    Start::AtTimestamp(from) => line.arrivals.partition_point(|at| at < from),
                    Start::Latest => {
                        let key = stream.key(shard);
                        state.oracle.begins_at_latest(&self.worker, &key, &line.records);
                        line.records.len()
                    }
                    Start::At(number) => line.records.partition_point(|n| *n < place(number)),
                    Start::After(number) => line.records.partition_point(|n| *n <= place(number)),
                };
                Ok(format!("{}/{shard}/{index}", stream.created))
            });
            index.await.map_err(retrieval::Error::Unavailable)?
        })
    }

    fn read<'a>(
        &'a self,
        iterator: &'a str,
        limit: usize,
        _: Reservation,
    ) -> BoxFuture<'a, Result<Answer, retrieval::Error>> {
        Box::pin(async move {
            let mut parts = iterator.split('/');
            let created: i64 = parts.next().unwrap().parse().unwrap();
            let shard = ShardId::from(parts.next().unwrap());
            let index: usize = parts.next().unwrap().parse().unwrap();
            if self.world.state().random.u32(0..2000) == 0 {
                return Err(retrieval::Error::IteratorExpired("five minutes are over".to_owned()));
            }
            let answer = Self::read(self, "GetRecords", |world| {
                if world.state().stream_of(self.stream.as_ref()).created != created {
                    return Err(missing(&shard));
                }
                Ok(answer(world, self.stream.as_ref(), &shard, index, limit.min(25)))
            });
            answer.await.map_err(retrieval::Error::Unavailable)?
        })
    }
}

fn missing(shard: &ShardId) -> retrieval::Error {
    retrieval::Error::ShardMissing(format!("{shard} in this stream"))
}

fn answer(
    world: &World,
    of: Option<&StreamIdentifier>,
    shard: &ShardId,
    index: usize,
    limit: usize,
) -> Answer {
    let mut state = world.state();
    let stream = state.stream_of(of);
    let line = &stream.shards[shard];
    let wanted = &line.records[index.min(line.records.len())..];
    let mut numbers: Vec<u64> = wanted.iter().copied().take(limit).collect();
    let mut next = index + numbers.len();
    let mut ended = line.ending.is_some() && next == line.records.len();
    let children = stream.children_of(shard);
    let (bug, created, is_closed) = (state.bug, stream.created, line.ending.is_some());
    match bug {
        Some(Bug::SkipsARecord) if numbers.len() > 1 && state.chance(100) => {
            numbers.remove(0);
        }
        Some(Bug::EndsEarly) if is_closed && !numbers.is_empty() => {
            (ended, next) = (true, index);
            numbers.clear();
        }
        _ => {}
    }
    let record = |number: u64| Record {
        sequence: SequenceNumber::parse(&number.to_string()).unwrap(),
        sub: 0,
        partition_key: "key".into(),
        data: Data::encode(&[0, 0, 0]),
        arrival: state.ledger.as_ref().and_then(|ledger| ledger.put_at.get(&number).copied()),
    };
    Answer {
        records: numbers.into_iter().map(record).collect(),
        next: (!ended).then(|| format!("{created}/{shard}/{next}")),
        millis_behind_latest: Some(0),
        children: if ended { children } else { Vec::new() },
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated record processor")
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Sink for Link {
    fn worker(&self, _: OfWorker<'_>) {}

    fn shard(&self, shard: &ShardId, event: OfShard<'_>) {
        let OfShard::Aged { first, last, .. } = event else { return };
        let mut state = self.world.state();
        let state = &mut *state;
        let Some(ledger) = state.ledger.as_mut().filter(|ledger| matches!(ledger.max_age, Some((_, true))))
        else {
            return;
        };
        state.oracle.count("skipped old records");
        let number = |position: &Position| match &position.sequence {
            Sequence::Number(number) => number.as_str().parse::<u64>().unwrap(),
            other => panic!("skipped at {other:?}"),
        };
        let (skipped, young) = ledger.skipped(&state.stream, shard, (number(first), number(last)), wall());
        state.oracle.passed(&state.stream.key(shard), skipped);
        if let Some(young) = young {
            state.oracle.violated("young-passed", format!("{young} of {shard} is skipped"));
        }
    }
}

impl Launch for Link {
    fn launch<'a>(&'a self, start: &'a ForShard) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>> {
        Box::pin(async {
            let has_room = {
                let mut state = self.world.state();
                let room = state.child_limits.get(&self.worker).copied().unwrap_or(usize::MAX);
                let running = state.running.entry(self.worker.clone()).or_default();
                let has_room = *running < room;
                *running += usize::from(has_room);
                has_room
            };
            if !has_room {
                self.world.state().oracle.count("a machine had no resources for a child");
                return Err(SpawnError::new(self, rustix::io::Errno::AGAIN.into()));
            }
            Ok(Box::new(Child::start(self.clone(), start.lease.as_str().into())) as Box<dyn Process>)
        })
    }
}
