//! The streams of a table of several as a pure state machine: events in, effects out, no I/O, no clock.
//!
//! | event | effects |
//! |---|---|
//! | `Begin` | `List` of the streams of the account, `Identify` of the configured streams that are not identified |
//! | `CreationAllowed` | `Create` of the leases of the identified streams |
//! | `RetryDue` | `Identify`, `Create` and `Meet` of those that failed, `Leave` |
//! | `ListDue` | `List` |
//! | `Listed` | `Identify` of the streams that are selected by their names; `Failed` |
//! | `Identified`, a configured stream | `Admit`, `Create`, `Keep`; `Failed` |
//! | `Identified`, a stream that has leases | `Admit`, `Keep` |
//! | `Created` | `Keep`; `Failed` |
//! | `Scanned` | `Meet` of streams that have leases and are not admitted, `Keep`; `Delete` of former streams, `Leave` of one that has no leases any more |
//! | `Deleted` | none |
//!
//! Any event can log. An attempt in progress is noted, and none is begun twice at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::daemon::error::Error;
use crate::daemon::opener::Place;
use crate::exit::Exit;
use crate::shard;
use crate::stream::{Selection, StreamId, StreamIdentifier, Wanted, read_twice};

/// Pauses between attempts to begin with a configured stream: the first one, and the longest. KCL asks for the list of
/// streams once a minute.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Interval between attempts to identify a stream by its leases.
const IDENTIFY_AGAIN: Duration = Duration::from_secs(10);
/// For this long, a failure to identify a stream by its leases is not reported: another attempt follows.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between reports about one stream.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Interval between listings of the streams of the account. KCL asks for the list of streams once a minute.
const LIST_AGAIN: Duration = Duration::from_secs(60);

/// The subject of an attempt to identify a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A configured stream, by its index.
    Entry(usize),
    /// A stream that has leases.
    Met(StreamIdentifier),
}

/// An event.
#[derive(Debug)]
pub(super) enum Event {
    /// An attempt to start begins.
    Begin,
    /// The worker has joined the fleet: leases can be created.
    CreationAllowed,
    /// [`State::retry_due`] is reached.
    RetryDue,
    /// [`State::list_due`] is reached.
    ListDue,
    /// The streams of the account were listed.
    Listed(Result<Vec<String>, Error>),
    /// A stream was identified, as it was described.
    Identified(Subject, Result<(StreamIdentifier, Option<StreamId>), Error>),
    /// The leases of a configured stream were created.
    Created(usize, Result<(), Error>),
    /// The table was scanned.
    Scanned {
        /// The streams that have leases.
        streams: Arc<BTreeSet<StreamIdentifier>>,
        /// Whether this worker audits all leases.
        audits: bool,
    },
    /// The leases of a former stream were deleted: their number.
    Deleted(StreamIdentifier, Result<usize, Error>),
}

/// An effect.
#[derive(Debug)]
pub(super) enum Effect {
    /// List the streams of the account.
    List,
    /// Identify a configured stream.
    Identify(usize, Wanted, Place),
    /// Identify a stream by its leases.
    Meet(StreamIdentifier, Place),
    /// Create the leases of a configured stream, if the table has none of it under another key.
    Create(usize, Wanted, StreamIdentifier, Option<StreamId>),
    /// Make the stream that was just identified known to the other modules: its leases are acquired from now on.
    Admit(StreamIdentifier),
    /// Run the shard sync of an admitted stream.
    Keep(StreamIdentifier),
    /// Restore and complete rows of the stream no more, or again.
    Leave(StreamIdentifier, bool),
    /// Delete the leases of a former stream.
    Delete(StreamIdentifier),
    /// An attempt with the configuration failed.
    Failed(Error),
}

/// A stream of the configuration.
#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    stage: Stage,
    /// Whether an attempt is in progress.
    is_busy: bool,
}

/// The progress of a configured stream.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Its identifier is unknown.
    Unidentified,
    /// It did not exist when it was looked for.
    Missing,
    /// It was selected by the beginning of its name, and is not listed any more.
    Gone,
    /// Its leases may be missing.
    Identified { stream: StreamIdentifier, described: Option<StreamId>, place: Place },
    /// It has leases.
    Begun,
}

/// A stream, by its identifier.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Whether it is read.
    pub(super) is_admitted: bool,
    /// Whether its shard sync runs.
    is_kept: bool,
    /// Whether this worker has created its first leases, or found them.
    is_begun: bool,
    /// Whether it is being identified by its leases.
    is_busy: bool,
    /// The attempts that failed to identify it: the first and the last one.
    failed: Option<(Instant, Instant)>,
    /// Whether it is not configured, although it has leases.
    pub(super) former: Option<Former>,
    /// Whether rows that are deleted stay so.
    pub(super) is_left: bool,
    /// Whether its leases are being deleted.
    pub(super) is_deleting: bool,
    /// When something was last reported about it.
    reported: BTreeMap<Topic, Instant>,
}

/// A stream that is not configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Former {
    pub(super) since: Instant,
    /// When its leases are deleted.
    pub(super) delete_at: Instant,
}

impl Stream {
    /// Whether a report is due.
    fn is_news(&mut self, topic: Topic, now: Instant) -> bool {
        let news = self.reported.get(&topic).is_none_or(|at| now >= *at + REPORT_AGAIN);
        if news {
            self.reported.insert(topic, now);
        }
        news
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Unreadable,
    ReadTwice,
}

/// The readiness of the configured streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// At least one is.
    Some,
    /// None is.
    None,
    /// There is none.
    Empty,
}

/// Settings beside the streams themselves.
#[derive(Debug)]
pub(super) struct Rules {
    /// The streams to which dead letters are written.
    pub(super) letters: Vec<Wanted>,
    /// `multilangd.deleteFormerStreamsAfterMillis`.
    pub(super) delete_former: Option<Duration>,
}

/// The state of the streams of a table of several.
#[derive(Debug)]
pub(super) struct State {
    /// Streams are also those whose names begin so.
    pub(super) selection: Selection,
    /// Those that are named, then those that were selected by their names.
    entries: Vec<Entry>,
    pub(super) streams: BTreeMap<StreamIdentifier, Stream>,
    /// The streams that had leases in the last scan.
    pub(super) in_table: Arc<BTreeSet<StreamIdentifier>>,
    pub(super) rules: Rules,
    /// Whether leases can be created.
    creates: bool,
    /// Whether all streams of the account were listed once.
    was_listed: bool,
    is_listing: bool,
    list_due: Option<Instant>,
    backoff: Backoff,
    /// When failed attempts with configured streams are repeated.
    entries_due: Option<Instant>,
    /// When failed attempts with other streams are repeated.
    meet_due: Option<Instant>,
    pub(super) effects: Vec<Effect>,
}

/// Whether the configuration is wrong. The leases of one stream that are not of it are reported instead: they concern no
/// other stream.
pub(super) fn is_misconfigured(error: &Error) -> bool {
    !error.may_pass() && error.exit() == Exit::Config && !matches!(error, Error::Foreign(_))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Stream(shard::Error::StreamMissing(_)))
}

impl State {
    pub(super) fn new(selection: Selection, rules: Rules, random: fastrand::Rng) -> Self {
        let entry =
            |wanted: &Wanted| Entry { wanted: wanted.clone(), stage: Stage::Unidentified, is_busy: false };
        Self {
            entries: selection.named.iter().map(entry).collect(),
            selection,
            streams: BTreeMap::new(),
            in_table: Arc::default(),
            rules,
            creates: false,
            was_listed: false,
            is_listing: false,
            list_due: None,
            backoff: Backoff::new(AGAIN.0, AGAIN.1, random),
            entries_due: None,
            meet_due: None,
            effects: Vec::new(),
        }
    }

    /// When attempts that failed are repeated, or a stream is left: [`Event::RetryDue`]. None if there are none.
    pub(super) fn retry_due(&self) -> Option<Instant> {
        [self.entries_due, self.meet_due, self.leave_due()].into_iter().flatten().min()
    }

    /// When the streams of the account are listed: [`Event::ListDue`]. None if no beginning of a name selects streams.
    pub(super) fn list_due(&self) -> Option<Instant> {
        self.list_due
    }

    /// Whether configured streams are identified.
    pub(super) fn identified(&self) -> Ready {
        self.ready(|stage| matches!(stage, Stage::Identified { .. } | Stage::Begun))
    }

    /// Whether configured streams have leases.
    pub(super) fn begun(&self) -> Ready {
        self.ready(|stage| matches!(stage, Stage::Begun))
    }

    fn ready(&self, is_ready: impl Fn(&Stage) -> bool) -> Ready {
        if self.entries.iter().any(|entry| is_ready(&entry.stage)) {
            Ready::Some
        } else if self.entries.iter().all(|entry| entry.stage == Stage::Gone) {
            Ready::Empty
        } else {
            Ready::None
        }
    }

    /// The effects of an event.
    pub(super) fn on(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            Event::Begin => {
                self.creates = false;
                self.list();
                self.attempt();
            }
            Event::CreationAllowed => {
                self.creates = true;
                self.attempt_to_create();
            }
            Event::RetryDue => {
                if self.entries_due.take_if(|due| *due <= now).is_some() {
                    self.attempt();
                }
                self.leave_former(now);
                if self.meet_due.take_if(|due| *due <= now).is_some() {
                    self.meet_all(now);
                }
            }
            Event::ListDue => self.list(),
            Event::Listed(listed) => self.listed(now, listed),
            Event::Identified(Subject::Entry(index), Ok((stream, described))) => {
                self.entry_identified(index, stream, described);
            }
            Event::Identified(Subject::Entry(index), Err(error)) | Event::Created(index, Err(error)) => {
                self.failed(now, index, error);
            }
            Event::Identified(Subject::Met(met), Ok((stream, _))) => {
                self.streams.entry(met).or_default().is_busy = false;
                self.admit(stream);
            }
            Event::Identified(Subject::Met(stream), Err(error)) => self.not_identified(now, stream, &error),
            Event::Created(index, Ok(())) => self.created(index),
            Event::Scanned { streams, audits } => {
                self.scanned(now, streams);
                self.delete_former(now, audits);
            }
            Event::Deleted(stream, deleted) => self.deleted(now, stream, deleted),
        }
        self.keep();
        let waits = |entry: &Entry| !matches!(entry.stage, Stage::Begun | Stage::Gone);
        if !self.entries.iter().any(waits) {
            self.backoff.reset();
        }
        std::mem::take(&mut self.effects)
    }

    /// Lists the streams of the account, if some are selected by the beginnings of their names.
    fn list(&mut self) {
        self.list_due = None;
        if !self.selection.prefixes.is_empty() && !self.is_listing {
            self.is_listing = true;
            self.effects.push(Effect::List);
        }
    }

    fn listed(&mut self, now: Instant, listed: Result<Vec<String>, Error>) {
        self.is_listing = false;
        match listed {
            Ok(names) => {
                self.list_due = Some(now + LIST_AGAIN);
                self.select(&names);
                self.attempt_to_identify();
            }
            Err(error) => {
                self.list_due = Some(now + if self.was_listed { LIST_AGAIN } else { AGAIN.0 });
                warn!(event = "streams_not_listed", %error,
                    "failed to list the streams of the account, retrying");
                self.effects.push(Effect::Failed(error));
            }
        }
    }

    /// Adds the streams of the account that are selected by the beginnings of their names.
    fn select(&mut self, names: &[String]) {
        let was_listed = std::mem::replace(&mut self.was_listed, true);
        let named = self.selection.named.len();
        for entry in self.entries.iter_mut().skip(named).filter(|entry| !entry.is_busy) {
            let is_there = names.contains(&entry.wanted.name);
            match entry.stage {
                Stage::Gone if is_there => entry.stage = Stage::Missing,
                Stage::Unidentified | Stage::Missing if !is_there => entry.stage = Stage::Gone,
                Stage::Unidentified | Stage::Missing | Stage::Gone => {}
                Stage::Identified { .. } | Stage::Begun => {}
            }
        }
        for wanted in names.iter().filter_map(|name| self.selection.by_prefix(name)) {
            // One that is named by an ARN may be of this account: it would be read under two keys.
            if self.entries.iter().any(|entry| entry.wanted.name == wanted.name) {
                continue;
            }
            // One that was not listed before was created since.
            let stage = if was_listed { Stage::Missing } else { Stage::Unidentified };
            info!(event = "stream_selected", stream = %wanted, "a stream is selected by its name");
            self.entries.push(Entry { wanted, stage, is_busy: false });
        }
    }

    fn attempt(&mut self) {
        self.attempt_to_create();
        self.attempt_to_identify();
    }

    fn attempt_to_identify(&mut self) {
        for (index, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| !entry.is_busy) {
            let place = match entry.stage {
                Stage::Unidentified if index >= self.selection.named.len() => Place::Selected,
                Stage::Unidentified => Place::Listed,
                Stage::Missing => Place::Created,
                Stage::Gone | Stage::Identified { .. } | Stage::Begun => continue,
            };
            entry.is_busy = true;
            self.effects.push(Effect::Identify(index, entry.wanted.clone(), place));
        }
    }

    fn attempt_to_create(&mut self) {
        if !self.creates {
            return;
        }
        for (index, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| !entry.is_busy) {
            let Stage::Identified { stream, described, .. } = &entry.stage else { continue };
            entry.is_busy = true;
            let (stream, described) = (stream.clone(), described.clone());
            self.effects.push(Effect::Create(index, entry.wanted.clone(), stream, described));
        }
    }

    fn entry_identified(&mut self, index: usize, stream: StreamIdentifier, described: Option<StreamId>) {
        self.admit(stream.clone());
        if let Some(entry) = self.entries.get_mut(index) {
            entry.is_busy = false;
            let place = if entry.stage == Stage::Missing { Place::Created } else { Place::Listed };
            entry.stage = Stage::Identified { stream, described, place };
        }
        self.attempt_to_create();
    }

    fn created(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.is_busy = false;
        if let Stage::Identified { stream, .. } = std::mem::replace(&mut entry.stage, Stage::Begun) {
            self.streams.entry(stream).or_default().is_begun = true;
        }
    }

    /// An attempt with a configured stream failed.
    fn failed(&mut self, now: Instant, index: usize, error: Error) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.is_busy = false;
        match &entry.stage {
            Stage::Unidentified | Stage::Identified { .. } if is_missing(&error) => {
                entry.stage = Stage::Missing;
            }
            // It is described again: it can be another stream of that name by then. Its first record is still the one to
            // begin with.
            Stage::Identified { place: Place::Created, .. } => entry.stage = Stage::Missing,
            Stage::Identified { .. } => entry.stage = Stage::Unidentified,
            Stage::Unidentified | Stage::Missing | Stage::Gone | Stage::Begun => {}
        }
        let stream = &entry.wanted.name;
        if error.may_pass() {
            warn!(event = "stream_unavailable", stream, %error, "failed to begin with a stream, retrying");
        } else {
            error!(event = "stream_unavailable", stream, %error, "failed to begin with a stream, retrying");
        }
        if self.entries_due.is_none() {
            self.entries_due = Some(now + self.backoff.pause());
        }
        self.effects.push(Effect::Failed(error));
    }

    /// Reads the stream that was just identified.
    fn admit(&mut self, stream: StreamIdentifier) {
        let is_in_table = self.in_table.contains(&stream);
        let known = self.streams.entry(stream.clone()).or_default();
        known.failed = None;
        // Nothing uses one whose shard sync does not run: it has no leases.
        if known.is_admitted && (known.is_kept || is_in_table) {
            return;
        }
        if !std::mem::replace(&mut known.is_admitted, true) {
            info!(event = "stream_admitted", %stream, "reading the leases of a stream");
        }
        self.effects.push(Effect::Admit(stream));
    }

    /// Runs the shard sync of the admitted streams. It can create leases, so that of a stream without any begins after this
    /// worker has created the first ones, under a key that no other leases of it contradict.
    fn keep(&mut self) {
        for (stream, known) in &mut self.streams {
            let has_leases = known.is_begun || self.in_table.contains(stream);
            if self.creates && known.is_admitted && !known.is_kept && has_leases {
                known.is_kept = true;
                self.effects.push(Effect::Keep(stream.clone()));
            }
        }
    }

    fn scanned(&mut self, now: Instant, in_table: Arc<BTreeSet<StreamIdentifier>>) {
        self.in_table = in_table.clone();
        for (stream, known) in &mut self.streams {
            if !in_table.contains(stream) {
                (known.failed, known.former) = (None, None);
                known.reported.clear();
                if std::mem::take(&mut known.is_left) {
                    self.effects.push(Effect::Leave(stream.clone(), false));
                }
            }
        }
        self.streams.retain(|stream, known| {
            in_table.contains(stream) || known.is_admitted || known.is_busy || known.is_deleting
        });
        for stream in read_twice(&in_table) {
            if self.streams.entry(stream.clone()).or_default().is_news(Topic::ReadTwice, now) {
                error!(event = "stream_read_twice", %stream,
                    "the lease table has leases of the stream under several epochs: each record is delivered once for \
                     each of them (stop all workers and delete the leases of all but one epoch)");
            }
        }
        self.meet_all(now);
    }

    fn meet_all(&mut self, now: Instant) {
        for stream in self.in_table.clone().iter() {
            self.meet(now, stream);
        }
    }

    /// Identifies a stream that has leases, if it is not known yet.
    fn meet(&mut self, now: Instant, stream: &StreamIdentifier) {
        let place = self.place(stream);
        let known = self.streams.entry(stream.clone()).or_default();
        let is_due = known.failed.is_none_or(|(_, last)| now >= last + IDENTIFY_AGAIN);
        if known.is_admitted || known.is_busy || !is_due {
            return;
        }
        if self.rules.letters.iter().any(|letters| letters.is(stream)) {
            if known.is_news(Topic::Unreadable, now) {
                error!(event = "stream_refused", %stream,
                    error = "it is a destination of multilangd.deadLetters",
                    "the lease table has leases of a stream that this worker cannot read");
            }
            return;
        }
        known.is_busy = true;
        self.effects.push(Effect::Meet(stream.clone(), place));
    }

    /// The place in the configuration of a stream that has leases.
    fn place(&self, stream: &StreamIdentifier) -> Place {
        let entry = self.entries.iter().find(|entry| entry.wanted.is(stream));
        match entry.map(|entry| &entry.stage) {
            Some(Stage::Missing | Stage::Gone) => Place::Created,
            Some(Stage::Unidentified | Stage::Identified { .. } | Stage::Begun) => Place::Listed,
            None if self.selection.by_prefix(stream.name()).is_some() => Place::Selected,
            None if self.selection.entry_of(stream).is_some() => Place::Listed,
            None => Place::Unlisted,
        }
    }

    /// An attempt to identify a stream by its leases failed.
    fn not_identified(&mut self, now: Instant, stream: StreamIdentifier, failed: &Error) {
        let known = self.streams.entry(stream.clone()).or_default();
        known.is_busy = false;
        self.meet_due.get_or_insert(now + IDENTIFY_AGAIN);
        let first = known.failed.map_or(now, |(first, _)| first);
        known.failed = Some((first, now));
        let is_new = now < first + PATIENCE;
        if is_new && !is_missing(failed) && failed.may_pass() || !known.is_news(Topic::Unreadable, now) {
            return;
        }
        if is_missing(failed) {
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
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
