//! The daemon as a whole: creates its parts, synchronises the leases, runs, and stops in the order of [`stop`].

use std::sync::Arc;
use std::time::Duration;

use multilangd_protocol::Dialect;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, error, error_span, info, warn};

use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::capacity::{Capacity, Pool};
use crate::clock::{self, ServiceClock, ServiceTime};
use crate::config::{ChildProtocol, Config, OnChildFailure, OnHopelessShard};
use crate::consumer::event::{MaxAge, Shape};
use crate::consumer::{Parts, Settings};
use crate::coordinator::overview::Overview;
use crate::coordinator::{self, Coordinator, Ends, Handle, Snapshot};
use crate::cpu::Surroundings;
use crate::fleet::{Mode, Store};
use crate::lease::held::Rival;
use crate::lease::sync::InitialPosition;
use crate::lease::table::Found;
use crate::lease::{LeaseKey, ProcessId, Table, WorkerId};
use crate::letters::Letters;
use crate::limits::Limits;
use crate::membership::{self, Begun};
use crate::metrics::of_stream::Sinks;
use crate::metrics::{FleetReader, OfWorker, Sink};
use crate::multilang::{Launch, Launcher, Program, output};
use crate::reach::Reaches;
use crate::recognition::Recognition;
use crate::replay;
use crate::retrieval::registration::StreamConsumer;
use crate::retrieval::{self, Source, push};
use crate::scheduler;
use crate::shard;
use crate::shard_sync::{self, ShardSync};
use crate::stream::ByStream;

mod attempts;
mod counted;
mod error;
pub mod stop;

use attempts::{Attempts, Progress};
use counted::{Counted, Noted};
pub use error::Error;
use stop::Running;

/// Most concurrent retrieval calls. Each has a timeout.
const CALLS: usize = 200;

/// KCL's `maxInitializationAttempts`. Here only attempts without progress count, because a throttled table
/// needs many.
const ATTEMPTS: u32 = 20;

/// An unreachable endpoint is awaited for at least this many times
/// `schedulerInitializationBackoffTimeMillis`: five minutes by default. Java's attempts with the SDK's
/// retries took more than 140 s.
const UNREACHABLE: u32 = 300;

/// The outside world of the daemon.
#[derive(Clone)]
pub struct Ports {
    /// The lease table.
    pub table: Arc<dyn Table>,
    /// The rows of the coordinator, beside the leases.
    pub state: Arc<dyn Store>,
    /// The streams to read.
    pub streams: ByStream<StreamPorts>,
    /// Starts record processors.
    pub children: Arc<dyn Launch>,
    /// Where dead letters are written; none without `multilangd.deadLetters`.
    pub letters: Option<Letters>,
    /// The number of leases that this process can hold.
    pub capacity: Arc<Capacity>,
    /// Receives events.
    pub sink: Arc<dyn Sink>,
    /// Limits the record data in memory.
    pub budget: Arc<Budget>,
    /// The wall clock, in milliseconds since 1970.
    pub wall: fn() -> i64,
    /// The time at AWS.
    pub service: ServiceTime,
    /// The platform, for host metrics; none for no measurement.
    pub surroundings: Option<Surroundings>,
}

/// The outside world of one stream.
#[derive(Clone)]
pub struct StreamPorts {
    /// The stream's shards.
    pub shards: Arc<dyn shard::Api>,
    /// Retrieval by polling.
    pub records: Arc<dyn retrieval::Api>,
    /// Retrieval by enhanced fan-out, where it is supported.
    pub fanout: Option<Arc<dyn push::Api>>,
}

impl std::fmt::Debug for StreamPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamPorts").finish_non_exhaustive()
    }
}

/// A stream, and whether it is still the same.
#[derive(Clone)]
struct Stream {
    ports: StreamPorts,
    recognition: Arc<Recognition>,
    /// Receives its events.
    sink: Arc<dyn Sink>,
}

impl Ports {
    fn clock(&self) -> ServiceClock {
        ServiceClock::new(self.wall, self.service.clone())
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// The shared part of all applications of this process: its limits, and the thread that starts record processors.
#[derive(Debug)]
pub struct Machine {
    launcher: Arc<Launcher>,
    pool: Arc<Pool>,
}

impl Machine {
    /// Raises the limits of this process to those of the system, unless record processors would inherit the raised
    /// limits, and determines how many leases they allow to the applications together.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn prepare(applications: usize) -> std::io::Result<Self> {
        let limits = if Launcher::restores_limits() {
            Limits::raise()
        } else {
            warn!(
                event = "open_files_not_raised",
                "failed to find the path of this binary: the soft limit of open files is not raised, and record \
                 processors are not killed with the daemon (mount /proc)"
            );
            Limits::current()
        };
        let leases = limits.leases(applications);
        info!(
            event = "limits_determined",
            leases, "the limits of this process allow {leases} leases: {limits}"
        );
        let launcher = Arc::new(Launcher::start(limits.original_files)?);
        Ok(Self { launcher, pool: Pool::new(leases, applications) })
    }

    /// The record processors of an application, and its part of the limits.
    pub fn equip(
        &self,
        program: Program,
        form: output::LogForm,
        config: &Config,
    ) -> (Arc<dyn Launch>, Arc<Capacity>) {
        let variables = vec![
            ("MULTILANGD_APPLICATION_NAME", config.application.clone()),
            ("MULTILANGD_STREAM_NAME", config.stream.clone()),
            ("MULTILANGD_WORKER_ID", config.worker.to_string()),
        ];
        let started = program.started_by(self.launcher.clone()).logging(form).with_variables(variables);
        let started = started.with_error_text(config.child_error_text.clone());
        (Arc::new(started), Arc::new(self.pool.capacity()))
    }
}

/// Runs until `stop`, or until a child fails permanently. The daemon cancels `stop` when it stops by itself, so that
/// the caller's own tasks end at the same time.
///
/// # Errors
/// Why it ended, if not by `stop`.
pub async fn run(config: &Config, mut ports: Ports, stop: CancellationToken) -> Result<(), Error> {
    let reaches = Reaches::at(config.kinesis.location(), config.dynamodb.location());
    ports.table =
        Arc::new(Counted { table: ports.table, sink: ports.sink.clone(), reach: reaches.dynamodb.clone() });
    let sinks = Sinks::new(ports.sink.clone());
    let streams = ports.streams.clone().map(|of, ports: StreamPorts| {
        let shards = Arc::new(Noted { shards: ports.shards, reach: reaches.kinesis.clone() });
        let recognition = Recognition::new(shards.clone());
        Stream { ports: StreamPorts { shards, ..ports }, recognition, sink: sinks.of(of) }
    });
    info!(
        event = "worker_starting",
        application = config.application, table = config.table, program = %ports.children, "starting worker"
    );
    // Time for a child: its grace period, then the end of its stdin, SIGTERM and SIGKILL.
    let stopping = clock::Stop::within(config.shutdown_grace + config.child_kill_grace * 2);
    let settings = shard_sync_settings(config, &ports, &reaches);
    let shard_syncs = streams.clone().map(|of, Stream { ports: stream, recognition, sink }| {
        let name = of.map_or(config.stream.clone(), |stream| stream.name().to_owned());
        let settings = shard_sync::Settings { stream: name, sink, ..settings.clone() };
        let shard_sync = ShardSync::new(ports.table.clone(), stream.shards, recognition, settings);
        shard_sync.of_stream(of).with_clock(ports.clock())
    });
    let member = member_settings(config, &ports, &reaches, stopping.clone());
    let begun = tokio::select! {
        biased;
        // No lease is held yet, so a stop need not wait.
        () = stop.cancelled() => return Ok(()),
        outcome = initialize(config, &ports, &member, &shard_syncs) => outcome?,
    };
    let is_typed = begun.mode != Mode::Phase1;
    let settings = coordinator::Settings {
        me: config.worker.clone(),
        failover: config.failover,
        max_leases: config.max_leases,
        max_steals: config.max_steals,
        priority: config.priority,
        handoff: config.rules.limits(),
        sink: ports.sink.clone(),
        recognitions: streams.clone().map(|_, stream| stream.recognition),
        capacity: ports.capacity.clone(),
        reach: reaches.dynamodb.clone(),
        stop: stopping.clone(),
        clock: ports.clock(),
        resume_latest: config.resume_latest,
        process: ProcessId::new((ports.wall)(), &format!("{:08x}", fastrand::u32(..)), &config.worker),
    };
    let (coordinator, ends) = Coordinator::new(ports.table.clone(), settings);
    let Ends { handle, leases, seen, standing, calls, successors, rival } = ends;
    let overview = Arc::new(Overview::new(seen.clone(), standing.subscribe()));
    let released = CancellationToken::new();
    let part = membership::Ends {
        standing,
        calls,
        seen: seen.clone(),
        coordinator: Some(handle.clone()),
        stop: stop.clone(),
        successors,
        gone: released.clone(),
        rival: rival.clone(),
    };
    // This worker's worker metrics must exist before the coordinator scans.
    let mut membership = JoinSet::new();
    membership.spawn(
        membership::run(ports.state.clone(), ports.table.clone(), member, begun, part).in_current_span(),
    );
    let mut coordination = JoinSet::new();
    coordination.spawn(coordinator.run(stop.clone()).in_current_span());
    let mut helpers = JoinSet::new();
    helpers.spawn(emit_seen(seen.clone(), overview, ports.sink.clone(), stop.clone()));
    for (of, shard_sync) in shard_syncs.iter() {
        // The log lines name shards, as those of the only stream.
        let span = of.map_or_else(Span::current, |stream| error_span!("stream", %stream));
        let shard_sync = shard_sync.clone().typed(is_typed);
        helpers.spawn(keep_in_step(shard_sync, seen.clone(), handle.clone(), stop.clone()).instrument(span));
    }
    let gave_up = Arc::new(Notify::new());
    let orders =
        scheduler::Orders { coordinator: handle.clone(), stop: stop.clone(), gave_up: gave_up.clone() };
    let scheduler = scheduler::run(parts(config, ports, streams, &reaches), orders, leases);
    let mut running = Running {
        scheduler: std::pin::pin!(scheduler),
        helpers,
        coordinator: coordination,
        handle,
        membership,
        released,
        stop: stop.clone(),
        clock: stopping,
    };
    let (mut cause, mut scheduled) = (None, None);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        // It ends by itself only after a stop.
        ended = &mut running.scheduler => scheduled = Some(ended),
        // A permanently failed shard stops the daemon as a signal does; the scheduler returns its failure.
        () = gave_up.notified() => {}
        // Nothing renews leases any more: children are stopped while the leases are valid.
        Some(ended) = running.coordinator.join_next() => cause = Some(broken("coordinator", ended)),
        // Two processes with one worker id would deliver every record twice and refuse each other's
        // checkpoints.
        lease = older(rival) => {
            cause = Some(Error::WorkerIdTwice { worker: config.worker.clone(), lease });
        }
        // Without it this worker is assigned no leases and follows no leader. After a stop it may have nothing left
        // to do.
        Some(ended) = running.membership.join_next() => {
            if !(stop.is_cancelled() && ended.is_ok()) {
                cause = Some(broken("fleet membership", ended));
            }
        }
    }
    running.stop(cause, scheduled).await
}

/// A part that has ended although nothing stopped it.
fn broken(part: &'static str, ended: Result<(), JoinError>) -> Error {
    let reason = ended.err().map_or_else(|| "it ended unexpectedly".to_owned(), |error| error.to_string());
    Error::Broken(format!("{part} task failed: {reason}"))
}

/// Waits for a lease that shows that an older process has this worker's id.
async fn older(mut rival: watch::Receiver<Option<Rival>>) -> LeaseKey {
    match rival
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|met| met.as_ref().map(|rival| rival.key.clone()))
    {
        Some(key) => key,
        None => std::future::pending().await,
    }
}

/// Emits what the coordinator sees as events.
async fn emit_seen(
    mut seen: watch::Receiver<Snapshot>,
    overview: Arc<Overview>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) {
    let read = overview.clone();
    sink.worker(OfWorker::Fleet(&FleetReader::new(move || read.fleet())));
    sink.worker(OfWorker::Ready);
    loop {
        tokio::select! {
            () = stop.cancelled() => return sink.worker(OfWorker::Stopping),
            changed = seen.changed() => if changed.is_err() { return },
        }
        overview.note();
        let looked = {
            let seen = seen.borrow_and_update();
            let open = || seen.leases.iter().filter(|lease| !lease.is_complete());
            let alive = |owner: &WorkerId| seen.live.contains(owner);
            let free = open().filter(|lease| !lease.actual_owner().is_some_and(alive)).count();
            OfWorker::Looked { leases: open().count(), free, workers: seen.live.len(), leads: seen.leads }
        };
        sink.worker(looked);
    }
}

/// Restarts the shard sync after a panic: a bug in it ends one round, not the daemon. The next round sees
/// what was missed.
async fn keep_in_step(
    shard_sync: ShardSync,
    seen: watch::Receiver<Snapshot>,
    handle: Handle,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let mut task = JoinSet::new();
        let run = shard_sync.clone().run(seen.clone(), handle.clone(), stop.clone());
        task.spawn(run.in_current_span());
        if let Some(Err(error)) = task.join_next().await {
            error!(event = "shard_sync_panicked", %error, "shard sync task panicked, restarting it");
        }
    }
}

fn shard_sync_settings(config: &Config, ports: &Ports, reaches: &Reaches) -> shard_sync::Settings {
    shard_sync::Settings {
        reaches: reaches.clone(),
        me: config.worker.clone(),
        initial: config.initial,
        ignore_unexpected_children: config.ignore_unexpected_children,
        skip_if_leases_exist: config.skip_sync_if_leases_exist,
        sync_pause: config.shard_sync_pause,
        stream: config.stream.clone(),
        failover: config.failover,
        sink: ports.sink.clone(),
    }
}

fn member_settings(
    config: &Config,
    ports: &Ports,
    reaches: &Reaches,
    stop: clock::Stop,
) -> membership::Settings {
    membership::Settings {
        me: config.worker.clone(),
        failover: config.failover,
        configured: config.generation,
        migrate: config.migrate,
        bake: config.bake,
        rules: config.reports.clone(),
        assignment: config.rules.clone(),
        sample_every: config.sample_every,
        averages: config.averages,
        wall: ports.wall,
        sink: ports.sink.clone(),
        capacity: ports.capacity.clone(),
        reach: reaches.dynamodb.clone(),
        stop,
        surroundings: ports.surroundings.clone().filter(|_| config.measure),
    }
}

/// The names of messages in a protocol of record processors.
pub fn dialect(protocol: ChildProtocol) -> Dialect {
    match protocol {
        ChildProtocol::Current => Dialect::Current,
        ChildProtocol::Shutdown => Dialect::Shutdown,
    }
}

/// How `multilangd replay` runs record processors.
pub fn replay_settings(config: &Config) -> replay::Settings {
    replay::Settings {
        dialect: dialect(config.child_protocol),
        answer: config.answer,
        exit_grace: config.child_exit_grace,
        kill_grace: config.child_kill_grace,
    }
}

fn parts(config: &Config, ports: Ports, streams: ByStream<Stream>, reaches: &Reaches) -> Parts {
    let settings = Settings {
        parent_poll: config.parent_poll,
        task_backoff: config.task_backoff,
        answer: config.answer,
        warn_after: config.warn_after,
        shutdown_grace: config.shutdown_grace,
        hand_off: config.rules.hand_off,
        lost_grace: Duration::from_secs(30),
        exit_grace: config.child_exit_grace,
        // Twice this and the default grace are less than the ten seconds that containers get.
        kill_grace: config.child_kill_grace,
        keep_empty: config.keep_empty,
        max_failures: match config.on_child_failure {
            OnChildFailure::Restart => config.max_child_failures,
            OnChildFailure::Exit => 1,
        },
        parked_pause: match (config.on_child_failure, config.on_hopeless_shard) {
            (OnChildFailure::Restart, OnHopelessShard::Park) => Some(config.parked_pause),
            (OnChildFailure::Exit, _) | (_, OnHopelessShard::Exit) => None,
        },
        shape: Shape { most: config.max_batch_records, window: config.batch_window },
        dead_letters: ports.letters.as_ref().map(|_| config.dead_letter_limits),
        // Without a destination and without leave to skip them, records of any age are delivered.
        max_age: config
            .max_age
            .filter(|_| ports.letters.is_some() || config.skip_old_records)
            .map(|millis| MaxAge { millis, writes_letters: ports.letters.is_some() }),
    };
    let retrieval = retrieval::Settings {
        max_records: config.max_records,
        idle: config.idle,
        idle_behind: config.idle_behind,
        near: config.near,
        ahead: retrieval::PrefetchLimits::default(),
        keep_empty: config.keep_empty,
        retry: Duration::from_millis(500),
    };
    let service = ports.clock();
    let calls = Arc::new(Semaphore::new(CALLS));
    let sources = streams.map(|_, Stream { ports: of, recognition, sink }| {
        let consumer = of.fanout.zip(config.fanout.clone());
        Source {
            api: of.records,
            shards: of.shards,
            recognition,
            consumer: consumer.map(|(api, settings)| Arc::new(StreamConsumer::new(api, settings))),
            settings: retrieval.clone(),
            budget: ports.budget.clone(),
            closed: Arc::default(),
            reach: reaches.kinesis.clone(),
            calls: calls.clone(),
            sink,
            clock: service.clone(),
        }
    });
    let timestamp = match config.initial {
        InitialPosition::AtTimestamp(millis) => Some(millis),
        InitialPosition::Latest | InitialPosition::TrimHorizon => None,
    };
    Parts {
        table: ports.table,
        sources,
        program: ports.children,
        dialect: dialect(config.child_protocol),
        settings,
        timestamp,
        check_hash_keys: !config.skip_sync_if_leases_exist,
        standings: Arc::default(),
        capacity: ports.capacity,
        letters: ports.letters,
        wall: ports.wall,
        clock: service,
    }
}

/// Creates the table, reads the shards of the streams and creates their leases, with retries.
async fn initialize(
    config: &Config,
    ports: &Ports,
    member: &membership::Settings,
    shard_syncs: &ByStream<ShardSync>,
) -> Result<Begun, Error> {
    let mut attempts = Attempts::default();
    let mut backoff =
        Backoff::new(config.initialization_backoff, config.initialization_backoff * 10, fastrand::Rng::new());
    let began = Instant::now();
    let (mut stage, mut created) = (0, false);
    loop {
        let mut begin = async || -> Result<Begun, Error> {
            stage = 0;
            // An attempt that created the table may have failed afterwards.
            let mut found = ports.table.ensure().await?;
            created |= found == Found::Created;
            if created {
                found = Found::Created;
            }
            // Before anything is written.
            for shard_sync in shard_syncs.values() {
                shard_sync.recognise().await?;
            }
            stage = 1;
            let begun = membership::begin(&*ports.state, &*ports.table, found, member).await?;
            stage = 2;
            for shard_sync in shard_syncs.values() {
                shard_sync.clone().typed(begun.mode != Mode::Phase1).begin().await?;
            }
            Ok(begun)
        };
        let error = match begin().await {
            Ok(begun) => return Ok(begun),
            Err(error) => error,
        };
        let rows = shard_syncs.values().map(ShardSync::made).sum::<usize>();
        let without_progress = attempts.failed(Progress { stage, rows });
        // Wait for an endpoint that starts later, as in a set of containers.
        let waits = error.is_unreachable() && began.elapsed() < config.initialization_backoff * UNREACHABLE;
        if without_progress >= ATTEMPTS && !waits || !error.may_pass() {
            return Err(error);
        }
        let pause = if waits { backoff.pause() } else { config.initialization_backoff };
        let (kinesis, dynamodb) = (config.kinesis.location(), config.dynamodb.location());
        warn!(event = "start_failed",
            %error, kinesis, dynamodb, leases = rows, failed_attempts = without_progress,
            max_attempts = ATTEMPTS, retry_in = ?pause,
            "failed to start, retrying");
        tokio::time::sleep(pause).await;
    }
}
