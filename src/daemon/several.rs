//! The streams of a lease table of several, which come and go.
//!
//! A worker reads every stream that has leases in the table, whether it is configured or not: the leader may have another
//! configuration, as during a deployment, and assigns leases of its streams to every worker. So does KCL. A stream is
//! admitted once it is identified: until then no lease of it is acquired. Each stream is identified, and its leases are
//! created, by a task of its own: one that cannot be reached delays no other.
//!
//! [`state`] decides, without I/O; this module waits for events and performs the effects.
//!
//! In KCL: `Scheduler.checkAndSyncStreamShardsAndLeases`, with `MultiStreamTracker`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error_span, info};

use super::error::Error;
use super::identify::{Identified, Identify, streams};
use super::in_step::keep_in_step;
use super::opener::{Opened, Opener};
use super::ports::Open;
use crate::clock;
use crate::config::{self, Config};
use crate::coordinator::{Handle, Snapshot};
use crate::lease::{Lease, Table, WorkerId};
use crate::recognition::Recognitions;
use crate::retrieval::Source;
use crate::shard;
use crate::shard_sync::ShardSync;
use crate::stream::{ByStream, Selection, StreamId, StreamIdentifier, Wanted};

mod former;
mod state;

use state::{Effect, Event, Ready, Rules, State, Subject, is_misconfigured};

/// Number of streams whose leases are created at the same time.
const AT_ONCE: usize = 8;
/// The start waits this long for the other streams, once there is one that can be read.
const START: Duration = Duration::from_secs(30);
/// The time to list the streams of the account, some pages of a thousand.
const LIST: Duration = Duration::from_secs(30);
/// The time to create, or to delete, the leases of one stream. Another attempt continues.
const CREATION: Duration = Duration::from_secs(120);

/// Streams of a table of several.
pub(super) struct Several {
    table: Arc<dyn Table>,
    me: WorkerId,
    failover: Duration,
    identify: Identify,
    state: State,
    admitted: BTreeMap<StreamIdentifier, ShardSync>,
    /// Those whose shard sync is to be run.
    to_keep: Vec<StreamIdentifier>,
    pub(super) sources: ByStream<Source>,
    pub(super) recognitions: Recognitions,
    /// Attempts in progress.
    work: JoinSet<Outcome>,
    /// The subject of each.
    subjects: HashMap<Id, Work>,
    at_once: Arc<Semaphore>,
    /// Whether rows are created with a type.
    typed: bool,
}

/// An attempt.
enum Work {
    List,
    Identify(Subject),
    /// Create the leases of a configured stream.
    Create(usize),
    /// Delete those of a former stream.
    Delete(StreamIdentifier),
}

enum Outcome {
    Listed(Result<Vec<String>, Error>),
    Identified(Box<Result<Identified, Error>>),
    Created(Result<(), Error>),
    Deleted(Result<usize, Error>),
}

/// The failure of the start: one that can pass, if there is one.
fn worst(failed: Vec<Error>) -> Option<Error> {
    failed.into_iter().max_by_key(|error| (error.may_pass(), error.is_unreachable()))
}

impl Several {
    /// No stream to which dead letters are written is read because it has leases.
    pub(super) fn new(
        config: &Config,
        selection: Selection,
        open: Arc<dyn Open>,
        table: Arc<dyn Table>,
        opener: Opener,
    ) -> Self {
        let rules = Rules {
            letters: config::letters::streams(&config.dead_letters),
            delete_former: config.delete_former,
        };
        Self {
            identify: Identify { table: table.clone(), opener: Arc::new(opener), open },
            table,
            me: config.worker.clone(),
            failover: config.failover,
            state: State::new(selection, rules, fastrand::Rng::new()),
            admitted: BTreeMap::new(),
            to_keep: Vec::new(),
            sources: ByStream::several(),
            recognitions: ByStream::several(),
            work: JoinSet::new(),
            subjects: HashMap::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            typed: true,
        }
    }

    /// Number of lease rows created since the process started.
    pub(super) fn made(&self) -> usize {
        self.admitted.values().map(ShardSync::made).sum()
    }

    /// Identifies the configured streams that are not identified yet.
    pub(super) async fn identify(&mut self) -> Result<(), Error> {
        // A table of one stream is refused, whether there are streams to be identified or not.
        self.table.list().await?;
        let failed = self.handle(Event::Begin, None);
        self.finish(failed, State::identified).await
    }

    /// Creates the leases of the identified streams.
    pub(super) async fn begin(&mut self, typed: bool) -> Result<(), Error> {
        self.typed = typed;
        let failed = self.handle(Event::CreationAllowed, None);
        self.finish(failed, State::begun).await
    }

    /// Waits for the attempts in progress, or for some time once one of the streams is ready. The others continue.
    ///
    /// # Errors
    /// The configuration is wrong, or no stream is ready.
    async fn finish(&mut self, mut failed: Vec<Error>, ready: impl Fn(&State) -> Ready) -> Result<(), Error> {
        let until = Instant::now() + START;
        loop {
            if let Some(at) = failed.iter().position(is_misconfigured) {
                return Err(failed.swap_remove(at));
            }
            let wait = (ready(&self.state) == Ready::Some).then_some(until);
            let done = tokio::select! {
                biased;
                done = self.work.join_next_with_id() => done,
                () = clock::reached(wait) => None,
            };
            let Some(done) = done else { break };
            failed.extend(self.done(done));
        }
        match (ready(&self.state), worst(failed)) {
            (Ready::None | Ready::Empty, Some(error)) => Err(error),
            (Ready::None, None) => Err(shard::Error::Unavailable("no stream is ready yet".to_owned()).into()),
            (Ready::Some, _) | (Ready::Empty, None) => Ok(()),
        }
    }

    /// Handles the end of an attempt. Returns the failures of configured streams.
    fn done(&mut self, done: Result<(Id, Outcome), JoinError>) -> Vec<Error> {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(Error::Broken(error.to_string()))),
        };
        let Some(work) = self.subjects.remove(&id) else { return Vec::new() };
        let mut found = None;
        let event = match (work, outcome) {
            (_, Ok(Outcome::Listed(listed))) => Event::Listed(listed),
            (Work::List, Err(error)) => Event::Listed(Err(error)),
            (Work::Identify(subject), Ok(Outcome::Identified(identified))) => {
                let identified = identified.map(|Identified { stream, opened, described }| {
                    found = Some(opened);
                    (stream, described)
                });
                Event::Identified(subject, identified)
            }
            (Work::Identify(subject), Err(error)) => Event::Identified(subject, Err(error)),
            (Work::Create(index), Ok(Outcome::Created(created))) => Event::Created(index, created),
            (Work::Create(index), Err(error)) => Event::Created(index, Err(error)),
            (Work::Delete(stream), Ok(Outcome::Deleted(deleted))) => Event::Deleted(stream, deleted),
            (Work::Delete(stream), Err(error)) => Event::Deleted(stream, Err(error)),
            (_, Ok(Outcome::Identified(_) | Outcome::Created(_) | Outcome::Deleted(_))) => return Vec::new(),
        };
        self.handle(event, found)
    }

    /// Handles an event, with the stream that was just identified. Returns the failures of configured streams.
    fn handle(&mut self, event: Event, mut found: Option<Opened>) -> Vec<Error> {
        let mut failed = Vec::new();
        for effect in self.state.on(Instant::now(), event) {
            match effect {
                Effect::List => {
                    let listed = list(self.identify.open.clone());
                    self.spawn(Work::List, async { Outcome::Listed(listed.await) });
                }
                Effect::Identify(index, wanted, place) => {
                    let identified = self.identify.clone().configured(wanted, place);
                    let work = async { Outcome::Identified(Box::new(identified.await)) };
                    self.spawn(Work::Identify(Subject::Entry(index)), work);
                }
                Effect::Meet(stream, place) => {
                    let identified = self.identify.clone().by_key(stream.clone(), place);
                    let work = async { Outcome::Identified(Box::new(identified.await)) };
                    self.spawn(Work::Identify(Subject::Met(stream)), work);
                }
                Effect::Create(index, wanted, stream, described) => {
                    let Some(shard_sync) = self.admitted.get(&stream).cloned() else { continue };
                    let (table, at_once) = (self.table.clone(), self.at_once.clone());
                    let shard_sync = shard_sync.typed(self.typed);
                    let work = async move {
                        let _turn = at_once.acquire_owned().await;
                        Outcome::Created(create(&*table, &shard_sync, &wanted, &stream, described).await)
                    };
                    self.spawn(Work::Create(index), work);
                }
                Effect::Admit(stream) => {
                    if let Some(opened) = found.take() {
                        self.sources.insert(stream.clone(), opened.source);
                        self.recognitions.insert(stream.clone(), opened.recognition);
                        self.admitted.insert(stream, opened.shard_sync);
                    }
                }
                Effect::Keep(stream) => self.to_keep.push(stream),
                Effect::Leave(stream, is_left) => {
                    if let Some(recognition) = self.recognitions.get(Some(&stream)) {
                        recognition.leave(is_left);
                    }
                }
                Effect::Delete(stream) => {
                    let (table, of, at_once) = (self.table.clone(), stream.clone(), self.at_once.clone());
                    let work = async move {
                        let _turn = at_once.acquire_owned().await;
                        Outcome::Deleted(delete(&*table, &of).await)
                    };
                    self.spawn(Work::Delete(stream), work);
                }
                Effect::Failed(error) => failed.push(error),
            }
        }
        failed
    }

    fn spawn(&mut self, work: Work, task: impl Future<Output = Outcome> + Send + 'static) {
        let task = self.work.spawn(task.in_current_span());
        self.subjects.insert(task.id(), work);
    }

    /// Looks after the streams until `stop`.
    pub(super) async fn run(
        mut self,
        mut seen: watch::Receiver<Snapshot>,
        handle: Handle,
        stop: CancellationToken,
    ) {
        let mut tasks = JoinSet::new();
        loop {
            for stream in std::mem::take(&mut self.to_keep) {
                let Some(shard_sync) = self.admitted.get(&stream) else { continue };
                let shard_sync = shard_sync.clone().typed(self.typed);
                let keep = keep_in_step(shard_sync, seen.clone(), handle.clone(), stop.clone());
                tasks.spawn(keep.instrument(error_span!("stream", %stream)));
            }
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.work.join_next_with_id() => {
                    self.done(done);
                    continue;
                }
                () = clock::reached(self.state.list_due()) => Event::ListDue,
                () = clock::reached(self.state.retry_due()) => Event::RetryDue,
                changed = seen.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    // The coordinator cannot publish while its snapshot is borrowed.
                    let (leases, audits) = {
                        let seen = seen.borrow_and_update();
                        (seen.leases.clone(), seen.audits(&self.me, self.failover))
                    };
                    Event::Scanned { streams: Arc::new(streams(&leases)), audits }
                }
            };
            self.handle(event, None);
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Lists the streams of the account.
async fn list(open: Arc<dyn Open>) -> Result<Vec<String>, Error> {
    let listed = timeout(LIST, open.names()).await;
    let listed = listed.unwrap_or_else(|_| {
        Err(shard::Error::Unavailable(format!("no response to ListStreams in {LIST:?}")))
    });
    Ok(listed?)
}

/// Deletes the leases of a stream. Returns their number. Children come before their parents, whose ids are lower: a child
/// without its parent's lease would begin before the parent was read.
async fn delete(table: &dyn Table, stream: &StreamIdentifier) -> Result<usize, Error> {
    let delete = async {
        let scan = table.list().await?;
        let mut leases: Vec<&Lease> =
            scan.iter().filter(|lease| lease.key.stream() == Some(stream)).collect();
        leases.sort_by(|one, other| other.shard().cmp(one.shard()));
        let (mut deleted, mut failed) = (0, None);
        for Lease { key, checkpoint, .. } in leases {
            match table.forget(key).await {
                Ok(false) => {}
                Ok(true) => {
                    deleted += 1;
                    info!(event = "former_lease_deleted", shard = %key, %checkpoint,
                        "deleted the lease of a stream that is not configured");
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(deleted), |error| Err(error.into()))
    };
    timeout(CREATION, delete).await.unwrap_or_else(|_| {
        let text = format!("stream {stream}: its leases were not deleted in {CREATION:?}");
        Err(shard::Error::Unavailable(text).into())
    })
}

/// Creates the leases of a stream, if the table has none of it under another key.
async fn create(
    table: &dyn Table,
    shard_sync: &ShardSync,
    wanted: &Wanted,
    stream: &StreamIdentifier,
    described: Option<StreamId>,
) -> Result<(), Error> {
    let create = async {
        // Another worker may have created leases under another key since it was identified.
        if wanted.identifier(described.as_ref(), &streams(&table.list().await?))? != *stream {
            let text = format!("stream {stream}: leases were created under another key meanwhile");
            return Err(shard::Error::Unavailable(text).into());
        }
        shard_sync.begin().await.map_err(Error::from)
    };
    let created = timeout(CREATION, create.instrument(error_span!("stream", %stream))).await;
    created.unwrap_or_else(|_| {
        let text = format!("stream {stream}: its leases were not created in {CREATION:?}");
        Err(shard::Error::Unavailable(text).into())
    })
}
