//! One run by a seed: workers join, stop, die, are partitioned and freeze, shards split and merge, and the
//! network fails. Then the faults end, and the fleet must reach the expected state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use multilangd::capacity::Capacity;
use multilangd::clock::{ServiceClock, ServiceTime};
use multilangd::config::Config;
use multilangd::config::resolve::{Given, resolve};
use multilangd::daemon::{self, Open, Ports, StreamPorts, Streams};
use multilangd::fleet::rows::{Dated, Generation, Stage, StateLocation};
use multilangd::fleet::store::Legacy;
use multilangd::fleet::version::Configured;
use multilangd::lease::sync::InitialPosition;
use multilangd::lease::{Lease, LeaseKey, WorkerId};
use multilangd::letters::Letters;
use multilangd::metrics::Discard;
use multilangd::shard::ShardId;
use multilangd::stream::{Selection, Wanted};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::links::Link;
use crate::opening::ListedOnly;
use crate::stream::Stream;
use crate::world::{Bug, Denied, FAILOVER, Network, World};

mod faults;

thread_local! {
    static START: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

const SECOND: Duration = Duration::from_secs(1);
const MOST_WORKERS: usize = 4;
/// Seconds from the last fault until every record is read, every shard has a live owner and the shares are
/// even: lease expiry, two failures of a child with their backoff, and a steal every half failover time for
/// each lease that has to move.
const CALM: u32 = 150;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<String>,
    pub coverage: BTreeMap<&'static str, u64>,
    pub trace: u64,
    pub records: u64,
    pub deliveries: u64,
}

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// Duration of the faults, in seconds.
    pub faults: u32,
    /// Whether a leader assigns the leases (KCL 3.x).
    pub led: bool,
    /// Whether the fleet has its rows in three tables and migrates them into one.
    pub tables: bool,
    /// Whether minutes without faults follow, so that finished leases are deleted.
    pub long: bool,
    pub bug: Option<Bug>,
    /// Requests that are denied for the whole run, its end included.
    pub denied: Denied,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let (led, tables) = (seed % 2 == 1, seed % 4 == 3);
        let number = usize::try_from(seed / 8).unwrap();
        let denied = if seed % 8 == 5 || seed % 16 == 7 { Denied::of(number) } else { Denied::default() };
        Self { seed, faults: 90, led, tables, long: seed.is_multiple_of(10), bug: None, denied }
    }
}

/// As [`wall`], an hour ahead.
fn wall_ahead() -> i64 {
    wall() + 3_600_000
}

struct Worker {
    id: WorkerId,
    stop: CancellationToken,
    task: JoinSet<Result<(), daemon::Error>>,
}

pub struct Story {
    pub world: Arc<World>,
    config: Config,
    led: bool,
    workers: Vec<Worker>,
    stopping: Vec<Worker>,
    /// Workers with a wrong stream name.
    wrong: Vec<Worker>,
    born: usize,
    /// The number of leases that the limits of each worker allow.
    pub capacity: usize,
    /// Whether the clock of each worker is ahead, and the responses of AWS have dates.
    is_ahead: bool,
    /// The streams of the configurations of workers.
    pub listing: Listing,
}

/// The streams of the configurations of workers that start one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// All streams.
    All,
    /// The last stream is missing in the first ones.
    Added {
        /// Their number.
        after: usize,
    },
    /// The last stream is missing in all but the first ones.
    Removed {
        /// Their number.
        after: usize,
    },
}

/// The wall clock of the simulation, which follows its virtual time.
pub fn wall() -> i64 {
    let start = START.get().unwrap_or_else(Instant::now);
    1_795_000_000_000 + i64::try_from(start.elapsed().as_millis()).unwrap()
}

/// AWS's clock, which is [`wall`].
pub fn service_clock() -> ServiceClock {
    ServiceClock::new(wall, service_time())
}

fn service_time() -> ServiceTime {
    let time = ServiceTime::default();
    time.received(wall(), Instant::now());
    time
}

/// Runs on a paused clock; all randomness derives from the seed.
pub fn simulate<T>(seed: u64, story: impl Future<Output = T>) -> T {
    fastrand::seed(seed);
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _is_set = tracing_subscriber::fmt().with_env_filter(filter).try_init().is_err();
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(async {
        START.set(Some(Instant::now()));
        story.await
    });
    runtime.shutdown_background();
    outcome
}

/// Runs one plan from beginning to end.
pub fn run(plan: Plan) -> Report {
    simulate(plan.seed, async {
        let mut story = Story::new(plan.seed, 4, plan.bug, plan.led);
        if plan.tables {
            story.three_tables();
        }
        story.world.state().denied = plan.denied;
        story.inject_faults(plan.faults).await;
        story.calm(plan).await;
        story.end().await
    })
}

impl Story {
    pub fn new(seed: u64, shards: u128, bug: Option<Bug>, led: bool) -> Self {
        let most = if bug == Some(Bug::TakesTooLittle) { "maxLeasesForWorker = 1\n" } else { "" };
        let version =
            if led { "CLIENT_VERSION_CONFIG_3X" } else { "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1" };
        let text = format!(
            "executableName = p\nstreamName = s\napplicationName = app\nregionName = r\nmaxRecords = 100\n\
             AWSCredentialsProvider = DefaultCredentialsProvider\ninitialPositionInStream = TRIM_HORIZON\n\
             idleTimeBetweenReadsInMillis = 1000\nclientVersionConfig = {version}\n{most}"
        );
        let given = Given { bytes: text.into_bytes(), ..Given::default() };
        let (mut config, _) = resolve(&given).config("w").unwrap();
        assert_eq!(config.failover, FAILOVER);
        if bug == Some(Bug::TrustsALeaseTooLong) {
            config.failover = FAILOVER * 4;
        }
        config.resume_latest = bug != Some(Bug::BeginsAtLatestAgain);
        if bug == Some(Bug::NeverSteals) {
            config.max_steals = 0;
        }
        let world = World::new(seed, shards, bug);
        Self {
            world,
            config,
            led,
            workers: Vec::new(),
            stopping: Vec::new(),
            wrong: Vec::new(),
            born: 0,
            capacity: usize::MAX,
            listing: Listing::All,
            is_ahead: false,
        }
    }

    /// An application that reads several streams of so many shards each.
    pub fn of_streams(seed: u64, names: &[&str], shards: u128, bug: Option<Bug>, led: bool) -> Self {
        let story = Self::new(seed, shards, bug, led);
        {
            let mut state = story.world.state();
            let firsts = (1..).map(|number| number * 1_000_000);
            let mut streams =
                names.iter().zip(firsts).map(|(name, first)| Stream::named(name, shards, first));
            state.stream = streams.next().unwrap();
            state.more = streams.collect();
        }
        story
    }

    /// Adds the tables of KCL 3.4, which are not migrated.
    pub fn with_side_tables(&mut self) {
        let (java, now) = (WorkerId::from("java"), wall());
        let mut state = self.world.state();
        state.fleet.legacy = Legacy { state: true, reports: true };
        let generation = Dated::first(Generation::ThreeX, Generation::Init, &java, now);
        state.fleet.generation.insert(StateLocation::Legacy, generation);
        state.oracle.three_tables = true;
    }

    /// Adds the tables in the state in which KCL 3.4 workers, followed by one that supports the migration, leave
    /// them. All workers are configured to migrate.
    fn three_tables(&mut self) {
        let (java, now) = (WorkerId::from("java"), wall());
        let mut state = self.world.state();
        state.fleet.legacy = Legacy { state: true, reports: true };
        let generation = Dated::first(Generation::ThreeX, Generation::Init, &java, now);
        state.fleet.generation.insert(StateLocation::Legacy, generation);
        state.fleet.stage = Some(Dated::first(Stage::Deployed, Stage::Init, &java, now));
        state.oracle.three_tables = true;
        self.config.migrate = true;
    }

    /// Created leases begin at the latest record.
    pub fn begins_at_latest(&mut self) {
        self.config.initial = InitialPosition::Latest;
    }

    /// Children fail at some records; a parked shard is retried every 20 s.
    /// As KCL, workers do not store where they begin to read at the latest record.
    pub fn resumes_no_latest(&mut self) {
        self.config.resume_latest = false;
    }

    pub fn has_bad_records(&mut self, bad_rate: u32) {
        self.config.parked_pause = SECOND * 20;
        if self.world.state().bug == Some(Bug::EmptiesTheStream) {
            self.config.dead_letter_limits.in_a_row = u32::MAX;
        }
        self.world.state().ledger = Some(Ledger::with_bad(bad_rate));
    }

    /// Records are not delivered from this age on: they are skipped, or written to the dead letters. The clocks of the
    /// workers may be ahead.
    pub fn limits_age(&mut self, millis: i64, skips: bool, is_ahead: bool) {
        (self.config.max_age, self.config.skip_old_records) = (Some(millis), skips);
        self.is_ahead = is_ahead;
        self.world.state().ledger.as_mut().unwrap().max_age = Some((millis, skips));
    }

    /// Starts as a fleet of KCL 2.x whose workers can migrate to KCL 3.x.
    pub fn is_compatible(&mut self) {
        self.config.generation = Configured::Compatible;
    }

    /// A stream without records that is polled rarely, so that nearly all calls are those for leases.
    pub fn quiet(seed: u64, shards: u128) -> Self {
        let mut story = Self::new(seed, shards, None, false);
        story.config.idle = SECOND * 60;
        story.world.state().network.stale = 0;
        story
    }

    pub fn join(&mut self, id: Option<WorkerId>) -> WorkerId {
        let id = id.unwrap_or_else(|| {
            self.born += 1;
            WorkerId::from(format!("w{:03}", self.born).as_str())
        });
        self.start(id, false)
    }

    /// A worker with a wrong stream name joins, and is expected to exit at once.
    pub fn join_with_another_stream(&mut self) {
        self.born += 1;
        let id = WorkerId::from(format!("x{:03}", self.born).as_str());
        self.start(id, true);
        if let Some(wrong) = self.workers.pop() {
            self.wrong.push(wrong);
        }
        self.count("a worker with another stream started");
    }

    fn last_stream_has_leases(&self) -> bool {
        let state = self.world.state();
        let last = state.streams().last().and_then(|stream| stream.identifier.as_ref());
        state.rows.keys().any(|key| key.stream() == last)
    }

    /// The streams of the configuration of a worker that starts now; none for the only stream.
    fn wanted(&mut self) -> Vec<Wanted> {
        let names: Vec<String> = {
            let state = self.world.state();
            let named = state.streams().filter_map(|stream| stream.identifier.as_ref());
            named.map(|identifier| identifier.name().to_owned()).collect()
        };
        // The last stream is added or removed by workers that start later, with another configuration.
        let listed = match self.listing {
            Listing::All => names.len(),
            Listing::Added { after } | Listing::Removed { after } => {
                let is_late = self.born > after;
                let is_listed = is_late == matches!(self.listing, Listing::Added { .. });
                names.len() - usize::from(!is_listed)
            }
        };
        if listed < names.len() {
            self.count("a worker does not list a stream");
        }
        names.iter().take(listed).map(|name| Wanted::named(name)).collect()
    }

    fn start(&mut self, id: WorkerId, foreign: bool) -> WorkerId {
        let link = Link { world: self.world.clone(), worker: id.clone(), stream: None, foreign };
        let mut config = Config { worker: id.clone(), ..self.config.clone() };
        // Some workers are configured not to migrate.
        config.migrate = config.migrate && self.pick(8) > 0;
        config.bake = SECOND * 3_600;
        let wanted = self.wanted();
        let streams = if wanted.is_empty() {
            let of = Arc::new(link.clone());
            Streams::One(StreamPorts { shards: of.clone(), records: of, fanout: None })
        } else {
            let open: Arc<dyn Open> = match self.world.state().bug {
                Some(Bug::ReadsListedOnly) => {
                    Arc::new(ListedOnly { link: link.clone(), listed: wanted.clone() })
                }
                _ => Arc::new(link.clone()),
            };
            Streams::Several { wanted: Selection { named: wanted, prefixes: Vec::new() }, open }
        };
        let link = Arc::new(link);
        let bug = self.world.state().bug;
        let service = if bug == Some(Bug::ClockIsAhead) { ServiceTime::default() } else { service_time() };
        let ports = Ports {
            table: link.clone(),
            streams,
            children: link.clone(),
            state: link.clone(),
            capacity: Arc::new(Capacity::new(self.capacity)),
            sink: if self.world.state().ledger.is_some() { link.clone() } else { Arc::new(Discard) },
            budget: multilangd::budget::Budget::new(config.buffer),
            wall: if bug == Some(Bug::ClockIsAhead) || self.is_ahead { wall_ahead } else { wall },
            service,
            surroundings: None,
            letters: self.world.state().ledger.as_ref().is_some_and(Ledger::writes_letters).then(|| {
                Letters { destination: link.clone(), application: "app".to_owned(), worker: id.to_string() }
            }),
        };
        let stop = CancellationToken::new();
        let token = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { daemon::run(&config, ports, token).await });
        self.workers.push(Worker { id: id.clone(), stop, task });
        id
    }

    /// Like SIGTERM.
    pub fn stop(&mut self, index: usize) -> WorkerId {
        let worker = self.workers.remove(index);
        worker.stop.cancel();
        let id = worker.id.clone();
        self.stopping.push(worker);
        id
    }

    /// Like SIGKILL: requests that it has sent may still arrive.
    pub fn kill(&mut self, index: usize) -> WorkerId {
        let mut worker = self.workers.remove(index);
        worker.task.abort_all();
        worker.id
    }

    /// The number of running workers.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    pub fn id(&self, index: usize) -> WorkerId {
        self.workers[index].id.clone()
    }

    pub fn count(&self, what: &'static str) {
        self.world.state().oracle.count(what);
    }

    pub fn pick(&self, bound: usize) -> usize {
        self.world.state().random.usize(0..bound)
    }

    pub fn put(&self, records: usize) {
        let mut state = self.world.state();
        for _ in 0..records {
            let stream = state.any_stream();
            let (of, open) = (stream.identifier.clone(), stream.open_shards());
            let shard = open[state.random.usize(0..open.len())].clone();
            let number = state.stream_of_mut(of.as_ref()).put(&shard);
            if let Some(ledger) = &mut state.ledger {
                ledger.put_at.insert(number, wall());
            }
            if let Some(rate) = state.ledger.as_ref().map(|ledger| ledger.bad_rate)
                && state.chance(rate)
            {
                state.ledger.as_mut().unwrap().bad.insert(number);
            }
        }
    }

    /// Replaces workers that ended by themselves, as a supervisor does.
    pub fn reap(&mut self) {
        for index in (0..self.workers.len()).rev() {
            if let Some(ended) = self.workers[index].task.try_join_next() {
                if let Err(error) = &ended
                    && error.is_panic()
                {
                    self.world.state().oracle.violated("panic", error.to_string());
                }
                self.count("a worker ended by itself");
                let worker = self.workers.remove(index);
                self.join(Some(worker.id));
            }
        }
        self.stopping.retain_mut(|worker| worker.task.try_join_next().is_none());
        let mut ends = Vec::new();
        self.wrong.retain_mut(|worker| {
            let ended = worker.task.try_join_next();
            let runs = ended.is_none();
            ends.extend(ended);
            runs
        });
        for end in ends {
            match end {
                Ok(Err(daemon::Error::Foreign(_))) => self.count("a worker with another stream exited"),
                // The table could not be read.
                Ok(Err(daemon::Error::Table(_) | daemon::Error::Stream(_))) => {}
                other => self.world.state().oracle.violated("foreign", format!("it ended with {other:?}")),
            }
        }
    }

    /// Ends all faults, and waits until the fleet is settled.
    pub async fn calm(&mut self, plan: Plan) {
        {
            let mut state = self.world.state();
            state.network = Network::FINE;
            state.faults.clear();
        }
        if self.workers.is_empty() {
            self.join(None);
        }
        if self.listing != Listing::All {
            // A stream that no worker has listed yet has no leases.
            let is_added = matches!(self.listing, Listing::Added { .. });
            self.listing = Listing::All;
            if is_added || !self.last_stream_has_leases() {
                self.join(None);
            }
        }
        // Requests in flight at the end of the faults have timed out by then; a graceful shutdown would not
        // wait for them.
        sleep(SECOND * 10).await;
        let mut left = CALM;
        while left > 0 && !(self.is_settled() && self.is_read()) {
            sleep(SECOND).await;
            self.reap();
            left -= 1;
        }
        if !self.is_settled() {
            let owners = self.owners();
            self.world.state().oracle.violated("unsettled", format!("after {CALM} s of calm: {owners:?}"));
        }
        if plan.long {
            sleep(SECOND * 60 * 12).await;
            self.reap();
            self.put(30);
            sleep(SECOND * 10).await;
        }
    }

    /// Whether a child was initialized for every open shard.
    pub fn is_begun(&self) -> bool {
        let state = self.world.state();
        let has_begun = |stream: &Stream, shard: &ShardId| state.oracle.begun.contains(&stream.key(shard));
        state.streams().all(|stream| stream.open_shards().iter().all(|shard| has_begun(stream, shard)))
    }

    pub fn is_read(&self) -> bool {
        let state = self.world.state();
        state.streams().all(|stream| state.oracle.is_delivered(stream))
    }

    /// Open leases by owner.
    pub fn owners(&self) -> BTreeMap<Option<WorkerId>, Vec<LeaseKey>> {
        let state = self.world.state();
        let mut owners: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for lease in state.rows.values().filter(|lease| !lease.is_complete()) {
            owners.entry(lease.owner.clone()).or_default().push(lease.key.clone());
        }
        owners
    }

    /// Whether every open lease is owned by a live worker.
    pub fn is_covered_by_live_workers(&self) -> bool {
        let living: BTreeSet<&WorkerId> = self.workers.iter().map(|worker| &worker.id).collect();
        self.owners().keys().all(|owner| owner.as_ref().is_some_and(|owner| living.contains(owner)))
    }

    /// Whether every open shard has a lease with a live owner, and shares differ by one lease at most.
    pub fn is_settled(&self) -> bool {
        let owners = self.owners();
        let living: BTreeSet<&WorkerId> = self.workers.iter().map(|worker| &worker.id).collect();
        let share = |id: &WorkerId| owners.get(&Some(id.clone())).map_or(0, Vec::len);
        let shares: Vec<usize> = living.iter().map(|id| share(id)).collect();
        // A leader balances by throughput, so shares may differ.
        let even = self.led || shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0) <= 1;
        let all_live = self.is_covered_by_live_workers();
        let state = self.world.state();
        let row = |stream: &Stream, shard: &ShardId| state.rows.get(&stream.key(shard));
        let is_open =
            |stream: &Stream, shard: &ShardId| row(stream, shard).is_some_and(|row| !row.is_complete());
        let covered =
            state.streams().all(|stream| stream.open_shards().iter().all(|shard| is_open(stream, shard)));
        // The designated owner of an open graceful handoff does not read yet.
        let handed = state.rows.values().all(|lease| lease.checkpoint_owner.is_none() || lease.is_complete());
        all_live && even && covered && handed
    }

    /// Stops all workers, and checks that all records are read and finished shards are marked as such.
    pub async fn end(mut self) -> Report {
        while !self.workers.is_empty() {
            self.stop(0);
        }
        for worker in &mut self.stopping {
            let ended = timeout(SECOND * 60, worker.task.join_next()).await;
            if !matches!(ended, Ok(None | Some(Ok(Ok(()))))) {
                self.world.state().oracle.violated("stop", format!("{} ended with {ended:?}", worker.id));
            }
        }
        let mut state = self.world.state();
        let state = &mut *state;
        let held = state.rows.values().filter(|lease| lease.owner.is_some() && !lease.is_complete());
        let held: Vec<&Lease> = held.filter(|lease| !state.oracle.was_just_given(&lease.key)).collect();
        if !held.is_empty() {
            let held = format!("{held:?}");
            state
                .oracle
                .violated("stop", format!("leases keep their owner after all workers stopped: {held}"));
        }
        for stream in std::iter::once(&state.stream).chain(&state.more) {
            state.oracle.finished(stream);
        }
        Report {
            violations: std::mem::take(&mut state.oracle.violations),
            coverage: std::mem::take(&mut state.oracle.coverage),
            trace: state.oracle.trace,
            records: state
                .streams()
                .flat_map(|stream| stream.shards.values())
                .map(|line| line.records.len() as u64)
                .sum(),
            deliveries: state.oracle.deliveries,
        }
    }
}
