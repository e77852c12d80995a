//! The daemon as a whole: creates its parts, synchronises the leases, runs, and stops in the order of [`stop`].

use std::sync::Arc;
use std::time::Duration;

use multilangd_protocol::Dialect;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use crate::capacity::{Capacity, Pool};
use crate::clock::{self};
use crate::config::{ChildProtocol, Config, OnChildFailure, OnHopelessShard};
use crate::consumer::event::{MaxAge, Shape};
use crate::consumer::{Parts, Settings};
use crate::coordinator::overview::Overview;
use crate::coordinator::{self, Coordinator, Ends, Snapshot};
use crate::fleet::Mode;
use crate::lease::held::Rival;
use crate::lease::shared_scan::SharedScan;
use crate::lease::sync::InitialPosition;
use crate::lease::{LeaseKey, ProcessId, Table, WorkerId};
use crate::limits::Limits;
use crate::membership;
use crate::metrics::{FleetReader, OfWorker, Sink};
use crate::multilang::{Launch, Launcher, Program, output};
use crate::reach::Reaches;
use crate::replay;
use crate::retrieval::Source;
use crate::scheduler;
use crate::stream::ByStream;

mod attempts;
mod counted;
mod error;
mod identify;
mod in_step;
mod keeper;
mod opener;
mod ports;
mod several;
mod start;
pub mod stop;

use counted::Counted;
pub use error::Error;
use keeper::{Keeper, Shared};
use opener::Opener;
pub use ports::{Open, Ports, StreamPorts, Streams};
use stop::Running;

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
    info!(
        event = "worker_starting",
        application = config.application, table = config.table, program = %ports.children, "starting worker"
    );
    // Time for a child: its grace period, then the end of its stdin, SIGTERM and SIGKILL.
    let stopping = clock::Stop::within(config.shutdown_grace + config.child_kill_grace * 2);
    // The streams of one table are synchronised at the same time, and call AWS for one account.
    let (table, pace) = match &ports.streams {
        Streams::One(_) => (ports.table.clone(), None),
        Streams::Several { .. } => {
            let table: Arc<dyn Table> = Arc::new(SharedScan::new(ports.table.clone()));
            (table, Some(Arc::default()))
        }
    };
    let opener = Opener::new(config, &ports, table.clone(), &reaches, pace);
    let (mut keeper, shared) = Keeper::new(config, ports.streams.clone(), table, opener);
    let Shared { sources, recognitions } = shared;
    let member = member_settings(config, &ports, &reaches, stopping.clone());
    let begun = tokio::select! {
        biased;
        // No lease is held yet, so a stop need not wait.
        () = stop.cancelled() => return Ok(()),
        outcome = start::initialize(config, &ports, &member, &mut keeper) => outcome?,
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
        recognitions,
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
    let kept = keeper.run(seen.clone(), handle.clone(), is_typed, stop.clone());
    helpers.spawn(kept.in_current_span());
    let gave_up = Arc::new(Notify::new());
    let orders =
        scheduler::Orders { coordinator: handle.clone(), stop: stop.clone(), gave_up: gave_up.clone() };
    let scheduler = scheduler::run(parts(config, ports, sources), orders, leases);
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

fn parts(config: &Config, ports: Ports, sources: ByStream<Source>) -> Parts {
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
    let clock = ports.clock();
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
        clock,
    }
}
