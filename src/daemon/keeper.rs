//! Keeps the streams of the daemon: the only one, or those of a lease table of several, which come and go.
//!
//! A worker of several streams reads every stream that has leases in the table, whether it is configured or not: the
//! leader may have another configuration, as during a deployment, and assigns leases of its streams to every worker. So
//! does KCL. A stream is admitted once it is identified: until then no lease of it is acquired.
//!
//! In KCL: `Scheduler.checkAndSyncStreamShardsAndLeases`, with `MultiStreamTracker`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, error_span, info, warn};

use super::error::Error;
use super::ports::{Open, StreamPorts, Streams};
use super::streams::{Found, Opened, Opener};
use crate::backoff::Backoff;
use crate::coordinator::{Handle, Snapshot};
use crate::exit::Exit;
use crate::lease::{Lease, Table};
use crate::recognition::Recognitions;
use crate::retrieval::Source;
use crate::shard;
use crate::shard_sync::ShardSync;
use crate::stream::{ByStream, StreamId, StreamIdentifier, Wanted, read_twice};

/// Pauses between attempts to begin with a configured stream: the first one, and the longest. KCL asks for the list of
/// streams once a minute.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Interval between attempts to identify a stream that has leases and is not configured.
const IDENTIFY_AGAIN: Duration = Duration::from_secs(10);
/// Interval between reports of streams whose leases cannot be read, and of records that are delivered twice.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Number of streams whose leases are created at the same time.
const AT_ONCE: usize = 8;

/// The streams of a daemon.
pub(super) enum Keeper {
    One(Box<ShardSync>),
    Several(Box<Several>),
}

/// Streams of a table of several.
pub(super) struct Several {
    table: Arc<dyn Table>,
    opener: Arc<Opener>,
    open: Arc<dyn Open>,
    wanted: Vec<(Wanted, Stage)>,
    admitted: BTreeMap<StreamIdentifier, ShardSync>,
    sources: ByStream<Source>,
    recognitions: Recognitions,
    /// When a stream that is not configured was last tried in vain.
    tried: BTreeMap<StreamIdentifier, Instant>,
    /// When a stream that cannot be read, and one that is read twice, was last reported.
    reported: BTreeMap<StreamIdentifier, Instant>,
}

/// The progress of a configured stream.
enum Stage {
    /// Its identifier is unknown.
    Unidentified,
    /// Its leases may be missing.
    Identified(StreamIdentifier),
    Begun,
}

/// The streams, shared with the other modules.
pub(super) struct Shared {
    pub(super) sources: ByStream<Source>,
    pub(super) recognitions: Recognitions,
}

impl Keeper {
    /// Makes no call.
    pub(super) fn new(streams: Streams, table: Arc<dyn Table>, opener: Opener) -> (Self, Shared) {
        match streams {
            Streams::One(ports) => {
                let found = opener.find(ports);
                let Opened { recognition, source, shard_sync } = opener.open(None, found, true);
                let (sources, recognitions) = (ByStream::One(source), ByStream::One(recognition));
                (Self::One(Box::new(shard_sync)), Shared { sources, recognitions })
            }
            Streams::Several { wanted, open } => {
                let (sources, recognitions) = (ByStream::several(), ByStream::several());
                let several = Several {
                    table,
                    opener: Arc::new(opener),
                    open,
                    wanted: wanted.into_iter().map(|wanted| (wanted, Stage::Unidentified)).collect(),
                    admitted: BTreeMap::new(),
                    sources: sources.clone(),
                    recognitions: recognitions.clone(),
                    tried: BTreeMap::new(),
                    reported: BTreeMap::new(),
                };
                (Self::Several(Box::new(several)), Shared { sources, recognitions })
            }
        }
    }

    /// Compares the lease table, which exists, with the streams, before anything is written.
    ///
    /// # Errors
    /// The table belongs to other streams, or none of the streams can be used now.
    pub(super) async fn recognise(&mut self) -> Result<(), Error> {
        match self {
            Self::One(shard_sync) => Ok(shard_sync.recognise().await?),
            Self::Several(several) => several.identify().await,
        }
    }

    /// Creates the leases that the shards need at the start.
    ///
    /// # Errors
    /// The table belongs to other streams, or the leases of none of the streams can be created now.
    pub(super) async fn begin(&mut self, typed: bool) -> Result<(), Error> {
        match self {
            Self::One(shard_sync) => Ok(shard_sync.clone().typed(typed).begin().await?),
            Self::Several(several) => several.begin(typed).await,
        }
    }

    /// Number of lease rows created since the process started.
    pub(super) fn made(&self) -> usize {
        match self {
            Self::One(shard_sync) => shard_sync.made(),
            Self::Several(several) => several.admitted.values().map(ShardSync::made).sum(),
        }
    }

    /// Keeps the leases in step with the shards until `stop`.
    pub(super) async fn run(
        self,
        seen: watch::Receiver<Snapshot>,
        handle: Handle,
        typed: bool,
        stop: CancellationToken,
    ) {
        match self {
            Self::One(shard_sync) => keep_in_step(shard_sync.typed(typed), seen, handle, stop).await,
            Self::Several(several) => several.run(seen, handle, typed, stop).await,
        }
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

/// The streams that have leases.
fn in_table(leases: &[Lease]) -> BTreeSet<StreamIdentifier> {
    let mut streams: BTreeSet<StreamIdentifier> = BTreeSet::new();
    for stream in leases.iter().filter_map(|lease| lease.key.stream()) {
        if !streams.contains(stream) {
            streams.insert(stream.clone());
        }
    }
    streams
}

/// Whether the start must end: waiting would not help, and the other streams would not either.
fn is_fatal(error: &Error) -> bool {
    !error.may_pass() && error.exit() == Exit::Config
}

/// Identifies a configured stream and compares its leases with it.
async fn identify(
    opener: Arc<Opener>,
    ports: StreamPorts,
    wanted: Wanted,
    leases: Arc<Vec<Lease>>,
    in_table: Arc<BTreeSet<StreamIdentifier>>,
) -> Result<(StreamIdentifier, Opened), Error> {
    let found = opener.find(ports);
    let described = found.recognition.describe().await?;
    let identifier = wanted.identifier(described.as_ref(), &in_table)?;
    let opened = open(&opener, &identifier, found, true, &leases, described).await?;
    Ok((identifier, opened))
}

/// Identifies a stream by the key of its leases.
async fn identify_by_key(
    opener: &Opener,
    stream: &StreamIdentifier,
    ports: StreamPorts,
    listed: bool,
    leases: &[Lease],
) -> Result<Opened, Error> {
    let found = opener.find(ports);
    match found.recognition.describe().await {
        Ok(Some(described)) if !stream.may_be(&described) => {
            let (configured, found) = (stream.to_string(), described.arn().to_owned());
            Err(shard::Error::Namesake { configured, found }.into())
        }
        Ok(described) => open(opener, stream, found, listed, leases, described).await,
        Err(error) => Err(error.into()),
    }
}

/// Opens a stream, and compares its leases with it.
async fn open(
    opener: &Opener,
    stream: &StreamIdentifier,
    found: Found,
    listed: bool,
    leases: &[Lease],
    described: Option<StreamId>,
) -> Result<Opened, Error> {
    let opened = opener.open(Some(stream), found, listed);
    let span = error_span!("stream", %stream);
    opened.shard_sync.recognise_as(leases, described).instrument(span).await?;
    Ok(opened)
}

impl Several {
    /// Identifies the configured streams that are not identified yet.
    async fn identify(&mut self) -> Result<(), Error> {
        let leases = Arc::new(self.table.list().await?);
        let streams = Arc::new(in_table(&leases));
        let mut tasks = JoinSet::new();
        for (index, (wanted, _)) in
            self.wanted.iter().enumerate().filter(|(_, (_, stage))| matches!(stage, Stage::Unidentified))
        {
            let ports = self.open.open(&wanted.name, wanted.account.as_deref());
            let identified =
                identify(self.opener.clone(), ports, wanted.clone(), leases.clone(), streams.clone());
            tasks.spawn(async move { (index, identified.await) }.in_current_span());
        }
        let mut failed = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (index, outcome) = done.map_err(|error| Error::Broken(error.to_string()))?;
            match outcome {
                Ok((identifier, opened)) => {
                    self.admit(&identifier, opened);
                    if let Some((_, stage)) = self.wanted.get_mut(index) {
                        *stage = Stage::Identified(identifier);
                    }
                }
                Err(error) => failed.push((index, error)),
            }
        }
        let is_any = self.wanted.iter().any(|(_, stage)| !matches!(stage, Stage::Unidentified));
        self.report(failed, is_any)
    }

    /// Creates the leases of the identified streams.
    async fn begin(&mut self, typed: bool) -> Result<(), Error> {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for (index, (_, stage)) in self.wanted.iter().enumerate() {
            let Stage::Identified(stream) = stage else { continue };
            let Some(shard_sync) = self.admitted.get(stream).cloned() else { continue };
            let (at_once, span) = (at_once.clone(), error_span!("stream", %stream));
            let begun = async move {
                let _turn = at_once.acquire_owned().await;
                (index, shard_sync.typed(typed).begin().await)
            };
            tasks.spawn(begun.instrument(span));
        }
        let mut failed = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (index, outcome) = done.map_err(|error| Error::Broken(error.to_string()))?;
            match outcome {
                Ok(()) => {
                    if let Some((_, stage)) = self.wanted.get_mut(index) {
                        *stage = Stage::Begun;
                    }
                }
                Err(error) => failed.push((index, error.into())),
            }
        }
        let is_any = self.wanted.iter().any(|(_, stage)| matches!(stage, Stage::Begun));
        self.report(failed, is_any)
    }

    /// Logs failures, which do not keep the daemon from reading the other streams.
    ///
    /// # Errors
    /// One of them is a wrong configuration, or no stream can be read.
    fn report(&self, failed: Vec<(usize, Error)>, is_any: bool) -> Result<(), Error> {
        let mut first = None;
        for (index, error) in failed {
            if is_fatal(&error) {
                return Err(error);
            }
            let stream = self.wanted.get(index).map_or("", |(wanted, _)| &wanted.name);
            warn!(event = "stream_unavailable", stream, %error, "failed to begin with a stream, retrying");
            first = first.or(Some(error));
        }
        match first {
            Some(error) if !is_any => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the stream known to the other modules: its leases are acquired from now on.
    fn admit(&mut self, stream: &StreamIdentifier, opened: Opened) {
        if self.admitted.contains_key(stream) {
            return;
        }
        let Opened { recognition, source, shard_sync } = opened;
        self.sources.insert(stream.clone(), source);
        self.recognitions.insert(stream.clone(), recognition);
        self.admitted.insert(stream.clone(), shard_sync);
        info!(event = "stream_admitted", %stream, "reading the leases of a stream");
    }

    async fn run(
        mut self,
        mut seen: watch::Receiver<Snapshot>,
        handle: Handle,
        typed: bool,
        stop: CancellationToken,
    ) {
        let mut kept = BTreeSet::new();
        let mut tasks = JoinSet::new();
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1, fastrand::Rng::new());
        let mut again = Instant::now() + backoff.pause();
        loop {
            for (stream, shard_sync) in &self.admitted {
                if kept.insert(stream.clone()) {
                    let shard_sync = shard_sync.clone().typed(typed);
                    let kept = keep_in_step(shard_sync, seen.clone(), handle.clone(), stop.clone());
                    tasks.spawn(kept.instrument(error_span!("stream", %stream)));
                }
            }
            let waits = self.wanted.iter().any(|(_, stage)| !matches!(stage, Stage::Begun));
            tokio::select! {
                () = stop.cancelled() => break,
                changed = seen.changed() => if changed.is_err() { break },
                () = sleep_until(again), if waits => {}
            }
            let snapshot = seen.borrow_and_update().clone();
            let is_due = waits && Instant::now() >= again;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = async {
                    self.meet(&snapshot.leases).await;
                    if is_due {
                        self.try_again(typed).await;
                    }
                } => {}
            }
            if is_due {
                again = Instant::now() + backoff.pause();
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Another attempt to begin with the configured streams that could not be read.
    async fn try_again(&mut self, typed: bool) {
        for outcome in [self.identify().await, self.begin(typed).await] {
            if let Err(error) = outcome {
                error!(event = "stream_unavailable", %error, "failed to begin with a stream, retrying");
            }
        }
    }

    /// Admits the streams that have leases and are not known yet.
    async fn meet(&mut self, leases: &Arc<Vec<Lease>>) {
        let streams = in_table(leases);
        self.tried.retain(|stream, _| streams.contains(stream));
        self.reported.retain(|stream, _| streams.contains(stream));
        for stream in read_twice(&streams) {
            if self.is_news(stream) {
                error!(event = "stream_read_twice", %stream,
                    "the lease table has leases of the stream under several epochs: each record is delivered once for \
                     each of them (stop all workers and delete the leases of all but one epoch)");
            }
        }
        let now = Instant::now();
        let is_due = |at: &Instant| now >= *at + IDENTIFY_AGAIN;
        let unknown: Vec<_> = streams
            .into_iter()
            .filter(|stream| !self.admitted.contains_key(stream) && self.tried.get(stream).is_none_or(is_due))
            .collect();
        let mut tasks = JoinSet::new();
        for stream in unknown {
            let listed = self.wanted.iter().any(|(wanted, _)| wanted.is(&stream));
            let ports = self.open.open(stream.name(), Some(stream.account()));
            let (opener, leases) = (self.opener.clone(), leases.clone());
            let identified = async move {
                let opened = identify_by_key(&opener, &stream, ports, listed, &leases).await;
                (stream, opened)
            };
            tasks.spawn(identified.in_current_span());
        }
        while let Some(done) = tasks.join_next().await {
            let Ok((stream, outcome)) = done else { continue };
            match outcome {
                Ok(opened) => self.admit(&stream, opened),
                Err(error) => {
                    self.tried.insert(stream.clone(), Instant::now());
                    let is_missing = matches!(error, Error::Stream(shard::Error::StreamMissing(_)));
                    if is_missing && self.is_news(&stream) {
                        warn!(event = "stream_missing", %stream,
                            "the lease table has leases of a stream that does not exist (stop all workers and delete \
                             these leases)");
                    } else if error.may_pass() {
                        debug!(%stream, %error, "failed to identify a stream that has leases, retrying");
                    } else if self.is_news(&stream) {
                        error!(event = "stream_refused", %stream, %error,
                            "the lease table has leases of a stream that this worker cannot read");
                    }
                }
            }
        }
    }

    fn is_news(&mut self, stream: &StreamIdentifier) -> bool {
        let now = Instant::now();
        let news = self.reported.get(stream).is_none_or(|at| now >= *at + REPORT_AGAIN);
        if news {
            self.reported.insert(stream.clone(), now);
        }
        news
    }
}
