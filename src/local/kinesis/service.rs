//! The account: its streams, and the parts that operations share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::check::Check;
use super::clock::Now;
use super::error::Exception;
use super::faults::Faults;
use super::shard::{Shard, shard_id, shard_number};
use super::store::{DataError, Event, Journaled, Store, folder_name};
use super::stream::{Birth, Change, Inner, Stream};
use super::subscribe::Subscriptions;
use super::token::Run;

/// Lifetime of paging tokens. <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ListShards.html>
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(300);

/// Most shards of a stream in the journal.
const MOST_SHARDS: u32 = 100_000;

/// Settings of the endpoint.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) region: String,
    pub(super) account: String,
    pub(super) service_limits: bool,
    pub(super) iterator_lifetime: Duration,
    pub(super) creation_delay: Duration,
    pub(super) subscription_length: Duration,
    pub(super) subscription_cooldown: Duration,
    pub(super) heartbeat: Duration,
}

/// The state of an endpoint.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) settings: Settings,
    pub(super) run: Run,
    pub(super) faults: Faults,
    pub(super) subscriptions: Subscriptions,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    /// The highest epoch of the streams of each name, so that a new stream's numbers are new.
    epochs: Mutex<BTreeMap<String, u64>>,
    store: Option<Store>,
}

/// A stream by name or ARN.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamRef<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) arn: Option<&'a str>,
}

impl Service {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            run: Run::new(),
            faults: Faults::default(),
            subscriptions: Subscriptions::default(),
            streams: RwLock::new(BTreeMap::new()),
            epochs: Mutex::new(BTreeMap::new()),
            store: None,
        }
    }

    /// A service that continues where an earlier run ended.
    pub(super) fn restore(
        settings: Settings,
        store: Store,
        events: Vec<Journaled>,
        now: Now,
    ) -> Result<Self, DataError> {
        let service = Self { store: Some(store), ..Self::new(settings) };
        let mut known = BTreeMap::new();
        for journaled in events {
            if let Event::Created(birth) = &journaled.event {
                known.insert(folder_name(birth), None);
            }
            service.replay(journaled, now)?;
        }
        for stream in service.streams().values() {
            known.insert(folder_name(&stream.birth), Some(stream.read().shards().len()));
        }
        if let Some(store) = &service.store {
            store.check(&known)?;
            for stream in service.streams().values() {
                stream.restore(now.wall, &|| store.reopen())?;
            }
            store.reopen()?;
        }
        Ok(service)
    }

    fn replay(&self, journaled: Journaled, now: Now) -> Result<(), DataError> {
        let misfit = |what| match &self.store {
            Some(store) => Err(store.misfit(&journaled, what)),
            None => Ok(()),
        };
        match journaled.event.clone() {
            Event::Created(birth) => {
                // The name becomes that of a folder.
                let mut check = Check::new();
                check.name(Some(&birth.name), "StreamName");
                if check.done().is_err() || birth.shards > MOST_SHARDS {
                    return misfit("an entry creates an invalid stream");
                }
                if self.streams().contains_key(&birth.name) {
                    return misfit("an entry creates a stream that exists");
                }
                self.retire_epochs(&birth.name, birth.epoch);
                self.add(birth, now);
            }
            Event::Changed { stream: name, epoch, change } => {
                let present = self.streams().get(&name).cloned();
                let Some(stream) = present.filter(|stream| stream.birth.epoch == epoch) else {
                    return misfit("an entry changes a stream that does not exist");
                };
                let is_delete = matches!(change, Change::Delete);
                if !stream.write().change(change) {
                    return misfit("an entry changes a stream in an invalid way");
                }
                if is_delete {
                    self.forget(&stream);
                }
            }
        }
        Ok(())
    }

    pub(super) fn streams(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Stream>>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn streams_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<Stream>>> {
        self.streams.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arn(&self, name: &str) -> String {
        let Settings { region, account, .. } = &self.settings;
        format!("arn:aws:kinesis:{region}:{account}:stream/{name}")
    }

    /// Adds a stream.
    pub(super) fn create(&self, birth: Birth, now: Now) -> Result<Arc<Stream>, Exception> {
        // One creation at a time, so that the journal never contains a name twice.
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if self.streams().contains_key(&birth.name) {
            let (name, account) = (&birth.name, &self.settings.account);
            return Err(Exception::in_use(format!("Stream {name} under account {account} already exists.")));
        }
        // An epoch above those of all earlier streams of this name.
        let last = epochs.entry(birth.name.clone()).or_default();
        *last = now.wall.seconds().max(*last + 1);
        let birth = Birth { epoch: *last, ..birth };
        self.keep(&Event::Created(birth.clone()))?;
        Ok(self.add(birth, now))
    }

    fn add(&self, birth: Birth, now: Now) -> Arc<Stream> {
        let active_at = now.instant + self.settings.creation_delay;
        let name = birth.name.clone();
        let folder = self.store.as_ref().map(|store| store.stream_folder(&birth));
        let stream = Arc::new(Stream::new(birth, active_at, self.settings.service_limits, folder));
        self.streams_mut().insert(name, Arc::clone(&stream));
        stream
    }

    /// Writes a change to the journal and applies it.
    pub(super) fn change(&self, stream: &Stream, inner: &mut Inner, change: Change) -> Result<(), Exception> {
        if inner.deleted {
            return Err(self.no_stream(&stream.birth.name));
        }
        self.keep(&Event::Changed {
            stream: stream.birth.name.clone(),
            epoch: stream.birth.epoch,
            change: change.clone(),
        })?;
        if inner.change(change) {
            Ok(())
        } else {
            Err(Exception::internal(format!("invalid change of stream {}", stream.birth.name)))
        }
    }

    fn keep(&self, event: &Event) -> Result<(), Exception> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        store.keep(event).map_err(|error| {
            tracing::error!(%error, "failed to write the journal");
            Exception::internal(format!("failed to write the journal: {error}"))
        })
    }

    /// Closes the data folder. No call may be in progress.
    pub(super) fn close(&self) {
        if let Some(store) = &self.store
            && let Err(error) = store.close()
        {
            tracing::warn!(%error, "failed to close the data folder cleanly");
        }
    }

    /// Removes a deleted stream.
    pub(super) fn forget(&self, stream: &Arc<Stream>) {
        self.retire_epochs(&stream.birth.name, stream.read().highest_epoch());
        let mut streams = self.streams_mut();
        if streams.get(&stream.birth.name).is_some_and(|present| Arc::ptr_eq(present, stream)) {
            streams.remove(&stream.birth.name);
        }
        drop(streams);
        if let Some(store) = &self.store {
            store.remove(&stream.birth);
        }
    }

    /// Prevents the epochs of a deleted stream from being used again.
    pub(super) fn retire_epochs(&self, name: &str, highest: u64) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let last = epochs.entry(name.to_owned()).or_default();
        *last = highest.max(*last);
    }

    /// The name that a reference means.
    pub(super) fn name<'a>(&self, stream: StreamRef<'a>) -> Result<&'a str, Exception> {
        let mut check = Check::new();
        check.name(stream.name, "streamName");
        check.length(stream.arn, "streamARN", 1, 2048);
        check.done()?;
        let Some(arn) = stream.arn else {
            return stream.name.ok_or_else(|| {
                Exception::invalid_argument("Either StreamName or StreamARN must be provided.")
            });
        };
        let name = self.name_in_arn(arn)?;
        if stream.name.is_some_and(|other| other != name) {
            return Err(Exception::invalid_argument(format!(
                "StreamName {} and StreamARN {arn} name different streams.",
                stream.name.unwrap_or_default()
            )));
        }
        Ok(name)
    }

    fn name_in_arn<'a>(&self, arn: &'a str) -> Result<&'a str, Exception> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let &["arn", partition, "kinesis", region, account, resource] = parts.as_slice() else {
            return Err(malformed_arn(arn));
        };
        let name = resource.strip_prefix("stream/").filter(|name| !name.is_empty());
        let (Some(name), true) = (name, partition.starts_with("aws")) else {
            return Err(malformed_arn(arn));
        };
        if region != self.settings.region || account != self.settings.account {
            return Err(Exception::not_found(format!("Stream ARN {arn} not found.")));
        }
        Ok(name)
    }

    /// The stream that a reference means, whatever its status.
    pub(super) fn stream(&self, stream: StreamRef<'_>) -> Result<Arc<Stream>, Exception> {
        let name = self.name(stream)?;
        self.stream_named(name)
    }

    pub(super) fn stream_named(&self, name: &str) -> Result<Arc<Stream>, Exception> {
        self.streams().get(name).cloned().ok_or_else(|| self.no_stream(name))
    }

    /// The stream that a reference means, if records can be read and written.
    pub(super) fn ready(&self, stream: StreamRef<'_>, now: Now) -> Result<Arc<Stream>, Exception> {
        let stream = self.stream(stream)?;
        if stream.is_active(now) { Ok(stream) } else { Err(self.no_stream(&stream.birth.name)) }
    }

    /// The stream, if it may be changed.
    pub(super) fn active(&self, stream: StreamRef<'_>, now: Now) -> Result<Arc<Stream>, Exception> {
        let stream = self.stream(stream)?;
        if stream.is_active(now) {
            return Ok(stream);
        }
        let (name, account) = (&stream.birth.name, &self.settings.account);
        Err(Exception::in_use(format!(
            "Stream {name} under account {account} not ACTIVE, instead in state CREATING"
        )))
    }

    pub(super) fn no_stream(&self, name: &str) -> Exception {
        let account = &self.settings.account;
        Exception::not_found(format!("Stream {name} under account {account} not found."))
    }

    /// The shard of that id, while its records are kept. `inner` was trimmed.
    pub(super) fn shard(
        &self,
        stream: &Stream,
        inner: &Inner,
        id: &str,
        now: Now,
    ) -> Result<Arc<Shard>, Exception> {
        let (name, account) = (&stream.birth.name, &self.settings.account);
        let number = shard_number(id).ok_or_else(|| {
            Exception::not_found(format!(
                "Could not find shard {id} in stream {name} under account {account}."
            ))
        })?;
        let horizon = stream.trim_horizon(inner, now.wall);
        inner
            .shard(number)
            .filter(|_| !inner.deleted)
            .filter(|shard| super::stream::life(shard).is_listed(horizon))
            .cloned()
            .ok_or_else(|| {
                let id = shard_id(number);
                Exception::not_found(format!(
                    "Shard {id} in stream {name} under account {account} does not exist"
                ))
            })
    }
}

fn malformed_arn(arn: &str) -> Exception {
    let mut check = Check::new();
    check.one_of(Some(arn), "streamARN", &["arn:aws.*:kinesis:.*:\\d{12}:stream/\\S+"]);
    check.done().err().unwrap_or_else(|| Exception::validation("malformed ARN"))
}
