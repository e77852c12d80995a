//! The identity of the stream that the daemon reads, shared by all modules that depend on it.
//!
//! The shard sync compares the lease table with the stream and decides which identity is valid. Acquiring a
//! lease marks its row with that identity. Shard consumers check that the stream is unchanged before they
//! treat a shard as ended, and report a suspicion. If the identity is unknown (`DescribeStreamSummary` is
//! denied), nothing is marked, nothing is reset, and no shard is treated as ended because it is not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::shard::{self, Filter, ShardId};
use crate::stream::{ByStream, StreamId, StreamIdentifier};

/// Interval between calls of `DescribeStreamSummary` for several streams: AWS allows an account twenty a second.
const PACE: Duration = Duration::from_millis(100);

/// Limits the rate of `DescribeStreamSummary` for several streams, and of the calls that find their consumers.
#[derive(Debug, Default)]
pub struct Pace(AsyncMutex<Option<Instant>>);

impl Pace {
    /// Waits for its turn, in the order of the calls.
    pub async fn turn(&self) {
        let mut last = self.0.lock().await;
        if let Some(last) = *last {
            sleep_until(last + PACE).await;
        }
        *last = Some(Instant::now());
    }
}

/// Shard consumers that suspect another stream share calls of `DescribeStreamSummary`, which are at least
/// this far apart.
const APART: Duration = Duration::from_secs(1);
/// Timeout of one call, its retries included.
const CALL: Duration = Duration::from_secs(10);

/// The identity of the stream that the daemon reads, shared by all components that depend on it.
pub struct Recognition {
    shards: Arc<dyn shard::Api>,
    state: Mutex<Known>,
    /// The last answer of `DescribeStreamSummary`, and when it was requested. Locked during the call, so that
    /// only one is made at a time.
    fresh: AsyncMutex<Option<(Instant, Option<StreamId>)>>,
    /// When the shards were last listed, and whether each was open.
    listed: AsyncMutex<Option<(Instant, BTreeMap<ShardId, bool>)>>,
    suspected: Notify,
    /// Shared with the other streams of the lease table.
    pace: Option<Arc<Pace>>,
}

/// The identity of the stream as it is recognised at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    current: Option<StreamId>,
    /// Shards whose rows contradict the identity: these rows are not marked with it.
    doubtful: BTreeSet<ShardId>,
}

impl Identity {
    /// That stream, of which the rows of these shards are doubtful.
    pub fn new(current: Option<StreamId>, doubtful: BTreeSet<ShardId>) -> Self {
        Self { current, doubtful }
    }

    /// The stream whose leases this worker acquires; none while it is unknown.
    pub fn current(&self) -> Option<&StreamId> {
        self.current.as_ref()
    }

    /// The identity with which a shard's row is marked when its lease is acquired.
    pub fn mark(&self, shard: &ShardId) -> Option<&StreamId> {
        self.current().filter(|_| !self.doubtful.contains(shard))
    }

    /// Whether a lease whose row has that mark may be acquired. A row without a mark may be: Java wrote it.
    pub fn accepts(&self, mark: Option<&StreamId>) -> bool {
        match (&self.current, mark) {
            (Some(current), Some(mark)) => current == mark,
            (None, _) | (_, None) => true,
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    identity: Identity,
    /// Whether the unknown identity has been logged.
    logged: bool,
    /// Whether the rows of the stream are to be deleted.
    is_left: bool,
}

impl fmt::Debug for Recognition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recognition").field("state", &self.known()).finish_non_exhaustive()
    }
}

/// The recognitions of all streams that the daemon reads.
pub type Recognitions = ByStream<Arc<Recognition>>;

impl Recognitions {
    /// Whether a lease of that stream whose row has that mark may be acquired: [`Recognition::accepts`]. Not if the stream
    /// is none of those.
    pub fn accept(&self, stream: Option<&StreamIdentifier>, mark: Option<&StreamId>) -> bool {
        self.get(stream).is_some_and(|recognition| recognition.accepts(mark))
    }

    /// Whether that stream has the shard: [`Recognition::has_shard`]. No other stream has shards here.
    ///
    /// # Errors
    /// The call failed.
    pub async fn have_shard(
        &self,
        stream: Option<&StreamIdentifier>,
        shard: &ShardId,
        mark: Option<&StreamId>,
    ) -> Result<bool, shard::Error> {
        match self.get(stream) {
            Some(recognition) => recognition.has_shard(shard, mark).await,
            None => Ok(false),
        }
    }
}

impl Recognition {
    /// A recognition that knows no identity yet.
    pub fn new(shards: Arc<dyn shard::Api>) -> Arc<Self> {
        Self::paced(shards, None)
    }

    /// A recognition that knows no identity yet, whose calls of `DescribeStreamSummary` are at that pace.
    pub fn paced(shards: Arc<dyn shard::Api>, pace: Option<Arc<Pace>>) -> Arc<Self> {
        Arc::new(Self {
            pace,
            shards,
            state: Mutex::default(),
            fresh: AsyncMutex::default(),
            listed: AsyncMutex::default(),
            suspected: Notify::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity as it is recognised now.
    pub fn identity(&self) -> Identity {
        self.known().identity.clone()
    }

    /// [`Identity::current`].
    pub fn current(&self) -> Option<StreamId> {
        self.known().identity.current.clone()
    }

    /// [`Identity::mark`].
    pub fn mark(&self, shard: &ShardId) -> Option<StreamId> {
        self.known().identity.mark(shard).cloned()
    }

    /// [`Identity::accepts`].
    pub fn accepts(&self, mark: Option<&StreamId>) -> bool {
        self.known().identity.accepts(mark)
    }

    /// Sets the identity after the lease table was compared with the stream: leases of this stream are
    /// acquired from now on.
    pub fn recognise(&self, current: Option<StreamId>, doubtful: BTreeSet<ShardId>) {
        self.known().identity = Identity::new(current, doubtful);
    }

    /// The identity that `DescribeStreamSummary` reports now; none if the call is denied or not supported.
    ///
    /// # Errors
    /// The stream does not exist, or the call failed.
    pub async fn describe(&self) -> Result<Option<StreamId>, shard::Error> {
        let mut fresh = self.fresh.lock().await;
        self.ask(&mut fresh).await
    }

    async fn ask(
        &self,
        fresh: &mut Option<(Instant, Option<StreamId>)>,
    ) -> Result<Option<StreamId>, shard::Error> {
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
        let asked = Instant::now();
        let answer = match timeout(CALL, self.shards.identity()).await {
            Ok(Ok(id)) => Some(id),
            Ok(Err(shard::Error::Denied(reason))) => {
                if !std::mem::replace(&mut self.known().logged, true) {
                    warn!(
                        event = "stream_identity_unknown",
                        error = reason,
                        "the identity of the stream is unknown: no lease is reset, and no shard counts \
                         as ended because ListShards does not list it (allow \
                         kinesis:DescribeStreamSummary)"
                    );
                }
                None
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(shard::Error::Unavailable(format!(
                    "no response to DescribeStreamSummary in {CALL:?}"
                )));
            }
        };
        if answer.is_some() && std::mem::take(&mut self.known().logged) {
            info!(event = "stream_identity_known", "the identity of the stream is known again");
        }
        *fresh = Some((asked, answer.clone()));
        Ok(answer)
    }

    /// Whether the stream that can be read now is certainly the one whose leases this worker holds.
    /// Concurrent callers share one call.
    pub async fn is_unchanged(&self, shard: &ShardId) -> bool {
        self.is_the_same(shard).await.unwrap_or_else(|error| {
            debug!(%shard, %error, "failed to confirm the identity of the stream");
            false
        })
    }

    /// Whether the stream that can be read now is certainly the one that the mark of a lease row names.
    pub async fn is_still(&self, mark: Option<&StreamId>) -> bool {
        let Some(mark) = mark else { return false };
        self.is_now(mark).await.unwrap_or_else(|error| {
            debug!(%error, "failed to confirm the identity of the stream");
            false
        })
    }

    async fn is_the_same(&self, shard: &ShardId) -> Result<bool, shard::Error> {
        match self.mark(shard) {
            Some(mark) => self.is_now(&mark).await,
            None => Ok(false),
        }
    }

    async fn is_now(&self, mark: &StreamId) -> Result<bool, shard::Error> {
        Ok(self.described(mark).await?.is_some_and(|id| id == *mark))
    }

    /// The identity of the stream that can be read now, to compare with `mark`; none if it is unknown.
    async fn described(&self, mark: &StreamId) -> Result<Option<StreamId>, shard::Error> {
        let now = Instant::now();
        let mut fresh = self.fresh.lock().await;
        // An older answer may only deny: the stream may have been created again since.
        let shared = fresh.as_ref().filter(|(asked, answer)| {
            *asked >= now || asked.elapsed() < APART && answer.as_ref() != Some(mark)
        });
        match shared {
            Some((_, answer)) => Ok(answer.clone()),
            None => self.ask(&mut fresh).await,
        }
    }

    /// Whether the rows of the stream are to be deleted: such rows are neither restored nor completed.
    pub fn leave(&self, is_left: bool) {
        self.known().is_left = is_left;
    }

    /// Whether the rows of the stream are to be deleted.
    pub fn is_left(&self) -> bool {
        self.known().is_left
    }

    /// Whether the stream is read, has that shard now, and is not known to differ from the stream that the mark of the
    /// lease row names. Concurrent callers share one `ListShards`.
    ///
    /// # Errors
    /// The call failed.
    pub async fn has_shard(&self, shard: &ShardId, mark: Option<&StreamId>) -> Result<bool, shard::Error> {
        if self.is_left() {
            return Ok(false);
        }
        let listed = self.lists_as_open(shard).await?.is_some();
        Ok(listed
            && match mark {
                Some(mark) => self.described(mark).await?.is_none_or(|id| id == *mark),
                None => true,
            })
    }

    /// Whether the shard is open now and the stream is certainly unchanged.
    pub async fn is_open(&self, shard: &ShardId) -> bool {
        matches!(self.lists_as_open(shard).await, Ok(Some(true))) && self.is_unchanged(shard).await
    }

    async fn lists_as_open(&self, shard: &ShardId) -> Result<Option<bool>, shard::Error> {
        let now = Instant::now();
        let mut listed = self.listed.lock().await;
        if listed.as_ref().is_none_or(|(asked, _)| *asked < now) {
            let asked = Instant::now();
            let unanswered = |_| shard::Error::Unavailable(format!("no response to ListShards in {CALL:?}"));
            let shards = timeout(CALL, self.shards.list(Filter::All)).await.map_err(unanswered)??;
            *listed =
                Some((asked, shards.into_iter().map(|shard| (shard.id, shard.ending.is_none())).collect()));
        }
        Ok(listed.as_ref().and_then(|(_, shards)| shards.get(shard).copied()))
    }

    /// Reports that the stream, or a lease row, may be another than before: the shard sync runs at once.
    pub fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Waits for the next [`Recognition::suspect`]. Cancel-safe.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }
}
