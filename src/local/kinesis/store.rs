//! The data folder: a journal of streams and their changes, and a log for each shard.
//!
//! ```text
//! DIR/lock                                   held while a process uses the folder
//! DIR/closed                                 how long each file was when the folder was closed in order
//! DIR/journal.log                            frames of JSON: what streams there are
//! DIR/streams/NAME-EPOCH/shardId-….log       frames of records
//! ```
//!
//! A change is written to the journal before it is applied, and a record to its log before it is
//! acknowledged. At a start the journal is replayed and the logs are read. A torn tail, which a killed
//! process leaves, is removed; any other inconsistency prevents the start. Files that were truncated or
//! removed are detected by `closed` and the journal. After a run that was killed there is no `closed`, and
//! whole frames missing at the end of a file cannot be distinguished from frames that were never written.

mod closed;
mod frames;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::journal::{Birth, Change, Record, shard_number};
use crate::local::files;
use frames::{Damage, LogFile};

/// A log is rewritten if more than this many bytes, and more than half of it, are out of the retention
/// period.
const WORTH_REWRITING: usize = 16 << 20;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Another process uses the folder.
    #[error(
        "the data folder {} is in use by another process (stop that process, or use another folder)",
        folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is damaged.
    #[error(
        "{} is damaged at byte {offset}: {what}; nothing was changed (restore the file, or move the data \
         folder away to start empty)",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Offset of the first inconsistency.
        offset: u64,
        /// The inconsistency.
        what: String,
    },
    /// The system refused an operation.
    #[error("failed to use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl DataError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }

    fn damaged(file: &Path, Damage { offset, what }: Damage) -> Self {
        Self::Damaged { file: file.to_owned(), offset, what: what.to_owned() }
    }
}

/// An entry of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Event {
    Created(Birth),
    Changed { stream: String, epoch: u64, change: Change },
}

/// An open data folder.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    journal: Mutex<LogFile>,
    /// Unlocked when it is closed.
    _lock: File,
}

/// An entry of the journal with its offset, for the error if it contradicts earlier entries.
#[derive(Debug)]
pub(super) struct Journaled {
    pub(super) event: Event,
    offset: u64,
}

impl Store {
    /// Opens a folder, which is created if it does not exist. Returns the journal's entries.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Journaled>), DataError> {
        files::folder(folder).map_err(DataError::io(folder))?;
        let path = folder.join("lock");
        let options = &mut File::options();
        options.create(true).truncate(false).write(true);
        let lock = files::open(&path, options).map_err(DataError::io(&path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DataError::InUse { folder: folder.to_owned() },
            TryLockError::Error(source) => DataError::Io { path, source },
        })?;

        let streams = folder.join(STREAMS);
        files::folder(&streams).map_err(DataError::io(&streams))?;
        closed::verify(folder)?;
        let path = journal(folder);
        let content = read(&path)?;
        let found = frames::read(&content).map_err(|damage| DataError::damaged(&path, damage))?;
        let events: Result<Vec<_>, _> = found
            .frames
            .into_iter()
            .map(|(offset, payload)| match serde_json::from_slice(&payload) {
                Ok(event) => Ok(Journaled { event, offset }),
                Err(error) => Err(DataError::Damaged { file: path.clone(), offset, what: error.to_string() }),
            })
            .collect();
        let events = events?;
        let log = open_log(&path, found.length, found.is_torn)?;
        let store = Self { folder: folder.to_owned(), journal: Mutex::new(log), _lock: lock };
        Ok((store, events))
    }

    /// Writes an event to the journal.
    pub(super) fn keep(&self, event: &Event) -> io::Result<()> {
        let payload = serde_json::to_vec(event)?;
        let mut frame = Vec::with_capacity(payload.len() + 16);
        frames::push(&mut frame, &[&payload])?;
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).append(&frame)
    }

    /// The folder of a stream's logs.
    pub(super) fn stream_folder(&self, birth: &Birth) -> PathBuf {
        self.folder.join(STREAMS).join(folder_name(birth))
    }

    /// Checks that the journal mentions everything in the folder: a truncated one does not. `known` are the
    /// folders of all streams that ever existed, with the number of shards of those that still exist.
    pub(super) fn check(&self, known: &BTreeMap<String, Option<usize>>) -> Result<(), DataError> {
        let journal = journal(&self.folder);
        let offset = self.journal.lock().unwrap_or_else(PoisonError::into_inner).length();
        let unknown = |path: PathBuf| DataError::Damaged {
            file: journal.clone(),
            offset,
            what: format!("the file ends without an entry for {}", path.display()),
        };
        for (path, name) in entries(&self.folder.join(STREAMS))? {
            let Some(shards) = known.get(&name) else {
                return Err(unknown(path));
            };
            let Some(shards) = shards else { continue };
            files::folder(&path).map_err(DataError::io(&path))?;
            for (path, name) in entries(&path)? {
                let number = name.strip_suffix(".log").and_then(shard_number);
                if number.is_some_and(|number| usize::try_from(number).is_ok_and(|n| n >= *shards)) {
                    return Err(unknown(path));
                }
            }
        }
        Ok(())
    }

    /// Removes `closed`, since the files may change from now on.
    pub(super) fn reopen(&self) -> Result<(), DataError> {
        closed::reopen(&self.folder)
    }

    /// Writes `closed` with the length of each file, so that the next start detects truncation. Nothing may
    /// be written afterwards.
    pub(super) fn close(&self) -> Result<(), DataError> {
        closed::write(&self.folder)
    }

    /// Deletes the logs of a deleted stream.
    pub(super) fn remove(&self, birth: &Birth) {
        let folder = self.stream_folder(birth);
        // A folder that remains does no harm: a later stream of that name has another one.
        if let Err(error) = remove_logs(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "failed to remove the folder of a deleted stream");
        }
    }

    /// The error for an entry that contradicts earlier ones.
    pub(super) fn misfit(&self, at: &Journaled, what: &str) -> DataError {
        DataError::Damaged { file: journal(&self.folder), offset: at.offset, what: what.to_owned() }
    }
}

/// The folder that contains the streams' folders.
const STREAMS: &str = "streams";

/// The name of a stream's folder.
pub(super) fn folder_name(birth: &Birth) -> String {
    format!("{}-{}", birth.name, birth.epoch)
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("journal.log")
}

fn read(path: &Path) -> Result<Bytes, DataError> {
    let content = files::read(path).map_err(DataError::io(path))?;
    Ok(content.map_or_else(Bytes::new, Bytes::from))
}

/// The entries of a folder, sorted by name; none if there is no folder.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>, DataError> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let listed = listed.map_err(DataError::io(folder))?;
    let named = listed.iter().map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()));
    let mut named: Vec<_> = named.collect();
    named.sort();
    Ok(named)
}

/// Removes a folder of logs. It remains if it contains anything else.
fn remove_logs(folder: &Path) -> Result<(), DataError> {
    for (path, name) in entries(folder)? {
        let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".new"));
        if stem.and_then(shard_number).is_some() {
            files::remove(&path).map_err(DataError::io(&path))?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(DataError::io(folder)),
    }
}

fn open_log(path: &Path, length: u64, is_torn: bool) -> Result<LogFile, DataError> {
    if is_torn {
        let file = path.display();
        tracing::warn!(%file, length, "truncated an incomplete write at the end of the file");
    }
    LogFile::open(path, length).map_err(DataError::io(path))
}

/// The log of a shard, which is created with the first record.
#[derive(Debug)]
pub(super) struct ShardFile {
    path: PathBuf,
    log: Option<LogFile>,
}

/// The content of a shard's log.
#[derive(Debug)]
pub(super) struct Restored {
    /// The records within the retention.
    pub(super) records: Vec<Record>,
    /// Index of the next record.
    pub(super) next: u64,
    /// Arrival time of the last record that was ever put.
    pub(super) last_arrival: Option<Timestamp>,
    pub(super) file: ShardFile,
}

impl ShardFile {
    pub(super) fn new(folder: &Path, shard_id: &str) -> Self {
        Self { path: folder.join(format!("{shard_id}.log")), log: None }
    }

    /// Writes records before they are acknowledged: all or none.
    pub(super) fn append(&mut self, records: &[Arc<Record>]) -> io::Result<()> {
        let mut out = Vec::with_capacity(records.iter().map(|record| record.size() + 64).sum());
        for record in records {
            push_record(&mut out, record)?;
        }
        if self.log.is_none() {
            if let Some(folder) = self.path.parent() {
                files::folder(folder)?;
            }
            self.log = Some(LogFile::open(&self.path, 0)?);
        }
        match &mut self.log {
            Some(log) => log.append(&out),
            None => Ok(()),
        }
    }

    /// Reads the records of earlier runs, except for those that arrived before `horizon`. `reopen` is called
    /// before anything is changed.
    pub(super) fn restore(
        mut self,
        horizon: Timestamp,
        reopen: &dyn Fn() -> Result<(), DataError>,
    ) -> Result<Restored, DataError> {
        let content = read(&self.path)?;
        let found = frames::read(&content).map_err(|damage| DataError::damaged(&self.path, damage))?;
        let mut records: Vec<Record> = Vec::with_capacity(found.frames.len());
        let mut expired = 0;
        let mut last: Option<(u64, Timestamp)> = None;
        for (offset, payload) in found.frames {
            let size = payload.len();
            let damaged = |what| DataError::damaged(&self.path, Damage { offset, what });
            let record = pull_record(payload).ok_or_else(|| damaged("failed to decode a record"))?;
            let follows =
                last.is_none_or(|(index, arrival)| record.index == index + 1 && record.arrival >= arrival);
            if !follows || record.index == 0 {
                return Err(damaged("a record is out of order"));
            }
            last = Some((record.index, record.arrival));
            if record.arrival < horizon {
                expired += size;
            } else {
                records.push(record);
            }
        }
        let mut length = found.length;
        let is_mostly_expired = expired > WORTH_REWRITING && expired > content.len() / 2;
        if is_mostly_expired && !found.is_torn && !records.is_empty() {
            reopen()?;
            length = self.rewrite(&records).map_err(DataError::io(&self.path))?;
        }
        if length > 0 || found.is_torn {
            self.log = Some(open_log(&self.path, length, found.is_torn)?);
        }
        Ok(Restored {
            records,
            next: last.map_or(1, |(index, _)| index + 1),
            last_arrival: last.map(|(_, arrival)| arrival),
            file: self,
        })
    }

    fn rewrite(&self, records: &[Record]) -> io::Result<u64> {
        let mut out = Vec::new();
        for record in records {
            push_record(&mut out, record)?;
        }
        frames::replace(&self.path, &out)
    }
}

/// `index: u64 | arrival: u64 | length of the key: u16 | key | data`, little-endian.
fn push_record(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let key = record.partition_key.as_bytes();
    let length = u16::try_from(key.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the partition key is too long"))?;
    frames::push(
        out,
        &[
            &record.index.to_le_bytes(),
            &record.arrival.millis().to_le_bytes(),
            &length.to_le_bytes(),
            key,
            &record.data,
        ],
    )
}

fn pull_record(mut payload: Bytes) -> Option<Record> {
    let index = payload.try_get_u64_le().ok()?;
    let arrival = Timestamp::from_millis(payload.try_get_u64_le().ok()?);
    let length = usize::from(payload.try_get_u16_le().ok()?);
    if payload.len() < length {
        return None;
    }
    let key = payload.split_to(length);
    let partition_key = String::from_utf8(key.to_vec()).ok()?;
    Some(Record { index, arrival, partition_key, data: payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("multilangd-store-{}-{:x}", std::process::id(), fastrand::u64(..));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // A folder that a failed test leaves is in the system's temporary folder.
            fs::remove_dir_all(&self.0).unwrap_or_default();
        }
    }

    fn record(index: u64, arrival: u64) -> Arc<Record> {
        Arc::new(Record {
            index,
            arrival: Timestamp::from_millis(arrival),
            partition_key: "clé".to_owned(),
            data: Bytes::from(vec![7; 100]),
        })
    }

    fn written(folder: &Folder, records: &[Arc<Record>]) -> PathBuf {
        let mut file = ShardFile::new(&folder.0, "shard");
        file.append(records).unwrap();
        file.path
    }

    fn restored(folder: &Folder, horizon: u64) -> Result<Restored, DataError> {
        ShardFile::new(&folder.0, "shard").restore(Timestamp::from_millis(horizon), &|| Ok(()))
    }

    #[test]
    fn records_are_restored_and_appended_to() {
        let folder = Folder::new();
        written(&folder, &[record(1, 10), record(2, 20)]);
        let mut first = restored(&folder, 0).unwrap();
        assert_eq!((first.next, first.last_arrival), (3, Some(Timestamp::from_millis(20))));
        first.file.append(&[record(3, 30)]).unwrap();
        let second = restored(&folder, 0).unwrap();
        let wanted: Vec<_> = [record(1, 10), record(2, 20), record(3, 30)].into();
        assert_eq!(second.records.into_iter().map(Arc::new).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn torn_tail_is_removed_and_overwritten() {
        let folder = Folder::new();
        let path = written(&folder, &[record(1, 10), record(2, 20)]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut first = restored(&folder, 0).unwrap();
        assert_eq!((first.records.len(), first.next), (1, 2));
        first.file.append(&[record(2, 30)]).unwrap();
        assert_eq!(restored(&folder, 0).unwrap().records.len(), 2);
    }

    #[test]
    fn damage_is_reported_with_its_offset_and_unchanged() {
        let folder = Folder::new();
        let path = written(&folder, &[record(1, 10), record(2, 20)]);
        let mut whole = fs::read(&path).unwrap();
        whole[60] ^= 1;
        fs::write(&path, &whole).unwrap();
        let error = restored(&folder, 0).unwrap_err().to_string();
        assert!(error.contains("shard.log is damaged at byte 8"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn missing_record_is_damage() {
        let folder = Folder::new();
        written(&folder, &[record(1, 10), record(3, 20)]);
        let error = restored(&folder, 0).unwrap_err().to_string();
        assert!(error.contains("out of order"), "{error}");
    }

    #[test]
    fn expired_records_are_dropped_without_reusing_numbers() {
        let folder = Folder::new();
        written(&folder, &[record(1, 10), record(2, 20)]);
        let found = restored(&folder, 100).unwrap();
        assert_eq!((found.records.len(), found.next), (0, 3));
    }

    #[test]
    fn folder_is_used_by_one_process_at_a_time() {
        let folder = Folder::new();
        let first = Store::open(&folder.0).unwrap();
        let error = Store::open(&folder.0).unwrap_err();
        assert!(matches!(error, DataError::InUse { .. }), "{error}");
        drop(first);
        assert!(Store::open(&folder.0).is_ok());
    }

    #[test]
    fn journal_is_read_as_written() {
        use super::super::reshard::Step;
        let folder = Folder::new();
        let (store, _) = Store::open(&folder.0).unwrap();
        let steps = vec![Step::Split { shard: 0, at: u128::MAX - 1 }];
        let change = Change::Reshard { at_millis: 5, steps };
        store.keep(&Event::Changed { stream: "s".to_owned(), epoch: 9, change }).unwrap();
        drop(store);
        let (_, events) = Store::open(&folder.0).unwrap();
        assert_eq!(events.len(), 1);
        let text = serde_json::to_string(&events[0].event).unwrap();
        assert!(text.contains("340282366920938463463374607431768211454"), "{text}");
    }
}
