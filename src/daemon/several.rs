//! The streams of a lease table of several, which come and go.
//!
//! A worker reads every stream that has leases in the table, whether it is configured or not: the leader may have another
//! configuration, as during a deployment, and assigns leases of its streams to every worker. So does KCL. A stream is
//! admitted once it is identified: until then no lease of it is acquired. Each stream is identified, and its leases are
//! created, by a task of its own: one that cannot be reached delays no other.
//!
//! In KCL: `Scheduler.checkAndSyncStreamShardsAndLeases`, with `MultiStreamTracker`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span, info, warn};

use super::error::Error;
use super::identify::{Identified, Identify, Scan};
use super::in_step::keep_in_step;
use super::opener::{Opened, Opener, Place};
use super::ports::Open;
use crate::backoff::Backoff;
use crate::coordinator::{Handle, Snapshot};
use crate::exit::Exit;
use crate::lease::Table;
use crate::recognition::Recognitions;
use crate::retrieval::Source;
use crate::shard;
use crate::shard_sync::ShardSync;
use crate::stream::{ByStream, Selection, StreamId, StreamIdentifier, Wanted, read_twice};

/// Pauses between attempts to begin with a configured stream: the first one, and the longest. KCL asks for the list of
/// streams once a minute.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Interval between attempts to identify a stream by its leases.
const IDENTIFY_AGAIN: Duration = Duration::from_secs(10);
/// For this long, a failure to identify a stream by its leases is not reported: another attempt follows.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between reports about one stream.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Number of streams whose leases are created at the same time.
const AT_ONCE: usize = 8;
/// The start waits this long for the other streams, once there is one that can be read.
const START: Duration = Duration::from_secs(30);
/// Interval between listings of the streams of the account. KCL asks for the list of streams once a minute.
const LIST_AGAIN: Duration = Duration::from_secs(60);
/// The time to list the streams of the account, some pages of a thousand.
const LIST: Duration = Duration::from_secs(30);
/// The time to create the leases of one stream. Another attempt continues.
const CREATION: Duration = Duration::from_secs(120);

/// Streams of a table of several.
pub(super) struct Several {
    table: Arc<dyn Table>,
    identify: Identify,
    wanted: Vec<(Wanted, Stage)>,
    /// Streams are also those whose names begin so.
    selection: Selection,
    /// Whether all streams of the account were listed.
    is_listed: bool,
    admitted: BTreeMap<StreamIdentifier, ShardSync>,
    /// Those whose shard sync runs.
    kept: BTreeSet<StreamIdentifier>,
    /// Those whose first leases this worker has created, or found.
    begun: BTreeSet<StreamIdentifier>,
    /// The streams that had leases in the last scan.
    in_table: Arc<BTreeSet<StreamIdentifier>>,
    /// The streams to which dead letters are written.
    letters: Vec<Wanted>,
    pub(super) sources: ByStream<Source>,
    pub(super) recognitions: Recognitions,
    /// Attempts in progress.
    work: JoinSet<Outcome>,
    /// The subject of each.
    busy: HashMap<Id, Subject>,
    at_once: Arc<Semaphore>,
    /// Streams that have leases and could not be identified.
    unknown: BTreeMap<StreamIdentifier, Unknown>,
    /// When something was last reported about a stream.
    reported: BTreeMap<(StreamIdentifier, Topic), Instant>,
}

/// The progress of a configured stream.
enum Stage {
    /// Its identifier is unknown.
    Unidentified,
    /// It did not exist when it was looked for.
    Missing,
    /// It was selected by the beginning of its name, and is not listed any more.
    Gone,
    /// Its leases may be missing.
    Identified(StreamIdentifier, Option<StreamId>, Place),
    Begun,
}

/// A stream that has leases and could not be identified.
struct Unknown {
    first: Instant,
    last: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    /// A configured stream, by its index.
    Wanted(usize),
    /// A stream that has leases.
    Met(StreamIdentifier),
    /// All streams of the account.
    Account,
}

enum Outcome {
    Identified(Box<Result<Identified, Error>>),
    Begun(Result<(), Error>),
    Listed(Result<Vec<String>, Error>),
}

/// A part of the start.
#[derive(Clone, Copy)]
enum Phase<'a> {
    /// Streams are identified, with these leases.
    Identify(&'a Scan),
    /// Leases are created, with or without a type.
    Create { typed: bool },
}

/// The effect of an attempt.
enum Done {
    /// A configured stream is identified.
    Identified,
    /// Streams were selected by their names.
    Selected,
    /// An attempt with a configured stream failed.
    Failed(Error),
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Unreadable,
    ReadTwice,
}

/// Whether the configuration is wrong. The leases of one stream that are not of it are reported instead: they concern no
/// other stream.
fn is_misconfigured(error: &Error) -> bool {
    !error.may_pass() && error.exit() == Exit::Config && !matches!(error, Error::Foreign(_))
}

/// The failure of the start: one that can pass, if there is one.
fn worst(failed: Vec<Error>) -> Option<Error> {
    failed.into_iter().max_by_key(|error| (error.may_pass(), error.is_unreachable()))
}

impl Several {
    pub(super) fn new(
        selection: Selection,
        open: Arc<dyn Open>,
        table: Arc<dyn Table>,
        opener: Opener,
        letters: Vec<Wanted>,
    ) -> Self {
        Self {
            table,
            identify: Identify { opener: Arc::new(opener), open },
            wanted: selection.named.iter().map(|wanted| (wanted.clone(), Stage::Unidentified)).collect(),
            selection,
            is_listed: false,
            admitted: BTreeMap::new(),
            kept: BTreeSet::new(),
            begun: BTreeSet::new(),
            in_table: Arc::default(),
            letters,
            sources: ByStream::several(),
            recognitions: ByStream::several(),
            work: JoinSet::new(),
            busy: HashMap::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            unknown: BTreeMap::new(),
            reported: BTreeMap::new(),
        }
    }

    /// Number of lease rows created since the process started.
    pub(super) fn made(&self) -> usize {
        self.admitted.values().map(ShardSync::made).sum()
    }

    async fn scan(&self) -> Result<Scan, Error> {
        Ok(Scan::new(Arc::new(self.table.list().await?)))
    }

    /// Identifies the configured streams that are not identified yet.
    pub(super) async fn identify(&mut self) -> Result<(), Error> {
        let scan = self.scan().await?;
        self.start_to_list();
        self.start_to_identify(&scan);
        let is_identified = |stage: &Stage| matches!(stage, Stage::Identified(..) | Stage::Begun);
        self.finish(Phase::Identify(&scan), is_identified).await
    }

    /// Creates the leases of the identified streams.
    pub(super) async fn begin(&mut self, typed: bool) -> Result<(), Error> {
        self.start_to_create(typed);
        self.finish(Phase::Create { typed }, |stage| matches!(stage, Stage::Begun)).await
    }

    /// Waits for the attempts in progress, or for some time once one of the streams is ready. The others continue.
    ///
    /// # Errors
    /// The configuration is wrong, or no stream is ready.
    async fn finish(&mut self, phase: Phase<'_>, is_ready: impl Fn(&Stage) -> bool) -> Result<(), Error> {
        let until = Instant::now() + START;
        let mut failed = Vec::new();
        loop {
            let is_any = self.wanted.iter().any(|(_, stage)| is_ready(stage));
            let wait = async { if is_any { sleep_until(until).await } else { std::future::pending().await } };
            let done = tokio::select! {
                biased;
                done = self.work.join_next_with_id() => done,
                () = wait => None,
            };
            let Some(done) = done else {
                let is_none = self.wanted.iter().all(|(_, stage)| matches!(stage, Stage::Gone));
                return match worst(failed) {
                    Some(error) if !is_any => Err(error),
                    None if !is_any && !is_none => {
                        Err(shard::Error::Unavailable("no stream is ready yet".to_owned()).into())
                    }
                    Some(_) | None => Ok(()),
                };
            };
            match self.done(done) {
                Done::Failed(error) if is_misconfigured(&error) => return Err(error),
                Done::Failed(error) => failed.push(error),
                Done::Selected | Done::Identified => match phase {
                    Phase::Identify(scan) => self.start_to_identify(scan),
                    Phase::Create { typed } => self.start_to_create(typed),
                },
                Done::Other => {}
            }
        }
    }

    fn spawn(&mut self, subject: Subject, task: impl Future<Output = Outcome> + Send + 'static) {
        let task = self.work.spawn(task.in_current_span());
        self.busy.insert(task.id(), subject);
    }

    fn is_busy(&self, subject: &Subject) -> bool {
        self.busy.values().any(|busy| busy == subject)
    }

    fn start_to_identify(&mut self, scan: &Scan) {
        for index in 0..self.wanted.len() {
            let Some((wanted, stage)) = self.wanted.get(index) else { continue };
            let place = match stage {
                Stage::Unidentified if index >= self.selection.named.len() => Place::Selected,
                Stage::Unidentified => Place::Listed,
                Stage::Missing => Place::Created,
                Stage::Gone | Stage::Identified(..) | Stage::Begun => continue,
            };
            let subject = Subject::Wanted(index);
            if self.is_busy(&subject) {
                continue;
            }
            let identified = self.identify.clone().configured(wanted.clone(), place, scan.clone());
            self.spawn(subject, async { Outcome::Identified(Box::new(identified.await)) });
        }
    }

    /// Lists the streams of the account, if some are selected by the beginnings of their names.
    fn start_to_list(&mut self) {
        if self.selection.prefixes.is_empty() || self.is_busy(&Subject::Account) {
            return;
        }
        let open = self.identify.open.clone();
        let listed = async move {
            let unanswered = |_| shard::Error::Unavailable(format!("no response to ListStreams in {LIST:?}"));
            let listed = timeout(LIST, open.names()).await.map_err(unanswered);
            Outcome::Listed(listed.and_then(|listed| listed).map_err(Error::from))
        };
        self.spawn(Subject::Account, listed);
    }

    /// Adds the streams of the account that are selected by the beginnings of their names.
    fn select(&mut self, names: &[String]) {
        let was_listed = std::mem::replace(&mut self.is_listed, true);
        let named = self.selection.named.len();
        for (wanted, stage) in self.wanted.iter_mut().skip(named) {
            let is_there = names.contains(&wanted.name);
            match stage {
                Stage::Gone if is_there => *stage = Stage::Missing,
                Stage::Unidentified | Stage::Missing if !is_there => *stage = Stage::Gone,
                Stage::Unidentified | Stage::Missing | Stage::Gone => {}
                Stage::Identified(..) | Stage::Begun => {}
            }
        }
        for wanted in names.iter().filter_map(|name| self.selection.by_prefix(name)) {
            // One that is named by an ARN may be of this account: it would be read under two keys.
            if self.wanted.iter().any(|(other, _)| other.name == wanted.name) {
                continue;
            }
            // One that was not listed before was created since.
            let stage = if was_listed { Stage::Missing } else { Stage::Unidentified };
            info!(event = "stream_selected", stream = %wanted, "a stream is selected by its name");
            self.wanted.push((wanted, stage));
        }
    }

    /// Creates the leases of identified streams, if the table has none of them under another key.
    fn start_to_create(&mut self, typed: bool) {
        for index in 0..self.wanted.len() {
            let Some((wanted, Stage::Identified(stream, described, _))) = self.wanted.get(index) else {
                continue;
            };
            let subject = Subject::Wanted(index);
            let Some(shard_sync) = self.admitted.get(stream).cloned().filter(|_| !self.is_busy(&subject))
            else {
                continue;
            };
            let (at_once, span) = (self.at_once.clone(), error_span!("stream", %stream));
            let (stream, described, wanted) = (stream.clone(), described.clone(), wanted.clone());
            let table = self.table.clone();
            let created = async move {
                let _turn = at_once.acquire_owned().await;
                let create = async {
                    // Another worker may have created leases under another key since it was identified.
                    let scan = Scan::new(Arc::new(table.list().await?));
                    if wanted.identifier(described.as_ref(), &scan.streams)? != stream {
                        let text =
                            format!("stream {stream}: leases were created under another key meanwhile");
                        return Err(shard::Error::Unavailable(text).into());
                    }
                    shard_sync.typed(typed).begin().await.map_err(Error::from)
                };
                let created = timeout(CREATION, create.instrument(span)).await;
                Outcome::Begun(created.unwrap_or_else(|_| {
                    let text = format!("stream {stream}: its leases were not created in {CREATION:?}");
                    Err(shard::Error::Unavailable(text).into())
                }))
            };
            self.spawn(subject, created);
        }
    }

    /// Handles the end of an attempt.
    fn done(&mut self, done: Result<(Id, Outcome), tokio::task::JoinError>) -> Done {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(Error::Broken(error.to_string()))),
        };
        let Some(subject) = self.busy.remove(&id) else { return Done::Other };
        let failed = match (outcome, &subject) {
            (Ok(Outcome::Identified(identified)), _) => match *identified {
                Ok(Identified { stream, opened, described }) => {
                    self.admit(&stream, opened);
                    let Subject::Wanted(index) = subject else { return Done::Other };
                    let was_missing = matches!(self.wanted.get(index), Some((_, Stage::Missing)));
                    let place = if was_missing { Place::Created } else { Place::Listed };
                    self.set(index, Stage::Identified(stream, described, place));
                    return Done::Identified;
                }
                Err(error) => error,
            },
            (Ok(Outcome::Begun(Ok(()))), Subject::Wanted(index)) => {
                if let Some((_, Stage::Identified(stream, ..))) = self.wanted.get(*index) {
                    self.begun.insert(stream.clone());
                }
                self.set(*index, Stage::Begun);
                return Done::Other;
            }
            (Ok(Outcome::Begun(Ok(()))), Subject::Met(_) | Subject::Account) => return Done::Other,
            (Ok(Outcome::Listed(Ok(names))), _) => {
                self.select(&names);
                return Done::Selected;
            }
            (Ok(Outcome::Begun(Err(error)) | Outcome::Listed(Err(error))) | Err(error), _) => error,
        };
        match subject {
            Subject::Wanted(index) => {
                let stage = self.wanted.get(index).map(|(_, stage)| stage);
                let is_missing = matches!(failed, Error::Stream(shard::Error::StreamMissing(_)));
                match stage {
                    Some(Stage::Unidentified | Stage::Identified(..)) if is_missing => {
                        self.set(index, Stage::Missing);
                    }
                    // It is described again: it can be another stream of that name by then. Its first record is still
                    // the one to begin with.
                    Some(Stage::Identified(.., Place::Created)) => self.set(index, Stage::Missing),
                    Some(Stage::Identified(..)) => self.set(index, Stage::Unidentified),
                    Some(Stage::Unidentified | Stage::Missing | Stage::Gone | Stage::Begun) | None => {}
                }
                let stream = self.wanted.get(index).map_or("", |(wanted, _)| &wanted.name);
                if failed.may_pass() {
                    warn!(event = "stream_unavailable", stream, error = %failed,
                        "failed to begin with a stream, retrying");
                } else {
                    error!(event = "stream_unavailable", stream, error = %failed,
                        "failed to begin with a stream, retrying");
                }
                Done::Failed(failed)
            }
            Subject::Met(stream) => {
                self.not_identified(&stream, &failed);
                Done::Other
            }
            Subject::Account => {
                warn!(event = "streams_not_listed", error = %failed,
                    "failed to list the streams of the account, retrying");
                Done::Failed(failed)
            }
        }
    }

    fn set(&mut self, index: usize, now: Stage) {
        if let Some((_, stage)) = self.wanted.get_mut(index) {
            *stage = now;
        }
    }

    /// Makes the stream known to the other modules: its leases are acquired from now on.
    fn admit(&mut self, stream: &StreamIdentifier, opened: Opened) {
        self.unknown.remove(stream);
        // Nothing uses one whose shard sync does not run: it has no leases.
        let is_used = self.kept.contains(stream) || self.in_table.contains(stream);
        if is_used && self.admitted.contains_key(stream) {
            return;
        }
        let Opened { recognition, source, shard_sync } = opened;
        self.sources.insert(stream.clone(), source);
        self.recognitions.insert(stream.clone(), recognition);
        if self.admitted.insert(stream.clone(), shard_sync).is_none() {
            info!(event = "stream_admitted", %stream, "reading the leases of a stream");
        }
    }

    fn not_identified(&mut self, stream: &StreamIdentifier, failed: &Error) {
        let now = Instant::now();
        let unknown = self.unknown.entry(stream.clone()).or_insert(Unknown { first: now, last: now });
        unknown.last = now;
        let is_new = now < unknown.first + PATIENCE;
        let is_missing = matches!(failed, Error::Stream(shard::Error::StreamMissing(_)));
        if is_new && !is_missing && failed.may_pass() || !self.is_news(stream, Topic::Unreadable) {
            return;
        }
        if is_missing {
            warn!(event = "stream_missing", %stream,
                "the lease table has leases of a stream that does not exist (stop all workers and delete these leases)");
        } else if failed.may_pass() {
            warn!(event = "stream_unavailable", %stream, error = %failed,
                "failed to begin with a stream, retrying");
        } else {
            error!(event = "stream_refused", %stream, error = %failed,
                "the lease table has leases of a stream that this worker cannot read");
        }
    }

    pub(super) async fn run(
        mut self,
        mut seen: watch::Receiver<Snapshot>,
        handle: Handle,
        typed: bool,
        stop: CancellationToken,
    ) {
        let mut tasks = JoinSet::new();
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1, fastrand::Rng::new());
        let mut again = Instant::now() + backoff.pause();
        let mut list = Instant::now() + if self.is_listed { LIST_AGAIN } else { AGAIN.0 };
        loop {
            for stream in self.to_keep() {
                let Some(shard_sync) = self.admitted.get(&stream) else { continue };
                let shard_sync = shard_sync.clone().typed(typed);
                let keep = keep_in_step(shard_sync, seen.clone(), handle.clone(), stop.clone());
                tasks.spawn(keep.instrument(error_span!("stream", %stream)));
                self.kept.insert(stream);
            }
            let waits = self.wanted.iter().any(|(_, stage)| !matches!(stage, Stage::Begun | Stage::Gone));
            let lists = !self.selection.prefixes.is_empty();
            if !waits {
                backoff.reset();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.work.join_next_with_id() => {
                    if matches!(self.done(done), Done::Identified | Done::Selected) {
                        // The next step follows at once.
                        again = Instant::now();
                    }
                    continue;
                }
                () = sleep_until(list), if lists => {
                    self.start_to_list();
                    list = Instant::now() + LIST_AGAIN;
                }
                () = sleep_until(again), if waits => {
                    let attempt = async {
                        self.start_to_create(typed);
                        let scan = self.scan().await?;
                        self.start_to_identify(&scan);
                        Ok::<_, Error>(())
                    };
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        outcome = attempt => if let Err(error) = outcome {
                            warn!(event = "stream_unavailable", stream = "", %error,
                                "failed to begin with a stream, retrying");
                        }
                    }
                    again = Instant::now() + backoff.pause();
                }
                changed = seen.changed() => if changed.is_err() { break },
            }
            let leases = seen.borrow_and_update().leases.clone();
            self.meet(&Scan::new(leases));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// The admitted streams whose shard sync is not running yet. It can create leases, so that of a stream without any
    /// begins after this worker has created the first ones, under a key that no other leases of it contradict.
    fn to_keep(&self) -> Vec<StreamIdentifier> {
        let has_leases =
            |stream: &StreamIdentifier| self.begun.contains(stream) || self.in_table.contains(stream);
        let is_due = |stream: &&StreamIdentifier| !self.kept.contains(*stream) && has_leases(stream);
        self.admitted.keys().filter(is_due).cloned().collect()
    }

    /// Identifies the streams that have leases and are not known yet.
    fn meet(&mut self, scan: &Scan) {
        self.in_table = scan.streams.clone();
        self.unknown.retain(|stream, _| scan.streams.contains(stream));
        self.reported.retain(|(stream, _), _| scan.streams.contains(stream));
        for stream in read_twice(&scan.streams) {
            if self.is_news(stream, Topic::ReadTwice) {
                error!(event = "stream_read_twice", %stream,
                    "the lease table has leases of the stream under several epochs: each record is delivered once for \
                     each of them (stop all workers and delete the leases of all but one epoch)");
            }
        }
        let now = Instant::now();
        let unknown: Vec<StreamIdentifier> =
            scan.streams.iter().filter(|stream| !self.admitted.contains_key(*stream)).cloned().collect();
        for stream in unknown {
            let is_due = self.unknown.get(&stream).is_none_or(|last| now >= last.last + IDENTIFY_AGAIN);
            let subject = Subject::Met(stream.clone());
            if !is_due || self.is_busy(&subject) {
                continue;
            }
            if self.letters.iter().any(|letters| letters.is(&stream)) {
                if self.is_news(&stream, Topic::Unreadable) {
                    error!(event = "stream_refused", %stream,
                        error = "it is a destination of multilangd.deadLetters",
                        "the lease table has leases of a stream that this worker cannot read");
                }
                continue;
            }
            let place = self.place(&stream);
            let identified = self.identify.clone().by_key(stream, place, scan.clone());
            self.spawn(subject, async { Outcome::Identified(Box::new(identified.await)) });
        }
    }

    /// The place in the configuration of a stream that has leases.
    fn place(&self, stream: &StreamIdentifier) -> Place {
        let wanted = self.wanted.iter().find(|(wanted, _)| wanted.is(stream));
        match wanted {
            Some((_, Stage::Missing | Stage::Gone)) => Place::Created,
            Some((_, Stage::Unidentified | Stage::Identified(..) | Stage::Begun)) => Place::Listed,
            None if self.selection.by_prefix(stream.name()).is_some() => Place::Selected,
            None => Place::Unlisted,
        }
    }

    fn is_news(&mut self, stream: &StreamIdentifier, topic: Topic) -> bool {
        let now = Instant::now();
        let key = (stream.clone(), topic);
        let news = self.reported.get(&key).is_none_or(|at| now >= *at + REPORT_AGAIN);
        if news {
            self.reported.insert(key, now);
        }
        news
    }
}
