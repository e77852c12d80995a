//! Letters in a folder: one file a day and worker, one letter a line.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{DEADLINE, Destination, Letter, Rejected};
use crate::clock;
use crate::config::keys::own;
use crate::config::letters;
use crate::shard::BoxFuture;

/// The names of the files begin so.
const PREFIX: &str = "dead-letters-";

/// A folder of letters.
#[derive(Debug)]
pub struct Folder {
    folder: PathBuf,
    worker: String,
    /// Held by the write in progress, also if it takes longer than its deadline.
    writing: Arc<Mutex<()>>,
}

impl Folder {
    /// The letters of a worker in an existing folder.
    ///
    /// # Errors
    /// The folder does not exist, or no file can be written in it.
    pub fn open(folder: &Path, worker: &str) -> Result<Self, String> {
        let failed = |what: &str, error: &io::Error| {
            format!(
                "failed to {what} {}: {error} (create the folder, readable and writable for the daemon)",
                folder.display()
            )
        };
        let found = fs::metadata(folder).map_err(|error| failed("open the folder", &error))?;
        if !found.is_dir() {
            return Err(format!("{} is not a folder", folder.display()));
        }
        // A folder that cannot be read cannot be synchronized.
        let needed = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(folder, needed).map_err(|error| failed("use the folder", &error.into()))?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let worker = worker.chars().take(100).map(plain).collect();
        Ok(Self { folder: folder.to_owned(), worker, writing: Arc::default() })
    }

    fn path(&self, at: i64) -> PathBuf {
        let time = clock::utc(at);
        let day = time.split('T').next().unwrap_or_default();
        self.folder.join(format!("{PREFIX}{day}-{}.jsonl", self.worker))
    }
}

/// The files of letters in the folders of `multilangd.deadLetters`, oldest first.
///
/// # Errors
/// There are no such folders, or one of them cannot be read.
pub fn paths(destinations: &str) -> Result<Vec<PathBuf>, String> {
    let parsed = letters::parse(destinations);
    let folders: Vec<PathBuf> = parsed
        .map_err(|fault| format!("{} = {destinations} {fault}", own::DEAD_LETTERS))?
        .into_iter()
        .filter_map(|destination| match destination {
            letters::Destination::File(folder) => Some(folder),
            letters::Destination::Exec(_) | letters::Destination::Kinesis(_) => None,
        })
        .collect();
    let mut paths = Vec::new();
    if folders.is_empty() {
        return Err(format!(
            "{} has no file:DIR (print the letters of kinesis:STREAM into a file with multilangd tail, and name that \
             file)",
            own::DEAD_LETTERS
        ));
    }
    for folder in folders {
        let failed = |error: io::Error| format!("failed to read the folder {}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(".jsonl") && !name.contains(".failed-") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

impl Destination for Folder {
    /// All letters of a day are written at once and reach the disk together, or as many as a full disk has room for.
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        let rejected = |reason| Rejected { destination: format!("file:{}", self.folder.display()), reason };
        Box::pin(async move {
            let Some(path) = letters.first().map(|letter| self.path(letter.at)) else { return Ok(0) };
            let of_day = letters.iter().take_while(|letter| self.path(letter.at) == path);
            let lines: Vec<Vec<u8>> = of_day.map(Letter::line).collect();
            let write = async {
                let writing = self.writing.clone().lock_owned().await;
                let written = tokio::task::spawn_blocking(move || {
                    let _writing = writing;
                    let written = as_many(lines.len(), |count| {
                        append(
                            &path,
                            &lines.iter().take(count).flatten().copied().collect::<Vec<_>>(),
                            finish,
                        )
                    });
                    written.map_err(|error| format!("{}: {error}", path.display()))
                });
                written.await.unwrap_or_else(|error| Err(error.to_string()))
            };
            let written = timeout(DEADLINE, write).await;
            let late = || format!("not written within {} s", DEADLINE.as_secs());
            written.unwrap_or_else(|_| Err(late())).map_err(rejected)
        })
    }
}

/// Writes the first letters of a batch: all of them, and half as many each time that the disk is full, down to one.
/// Returns their number.
fn as_many(all: usize, mut write: impl FnMut(usize) -> io::Result<()>) -> io::Result<usize> {
    let mut count = all;
    loop {
        match write(count) {
            Ok(()) => return Ok(count),
            Err(error) if count > 1 && is_full(&error) => count /= 2,
            Err(error) => return Err(error),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Appends lines with `finish`, which waits until they are on the disk. Begins a new line after one that was cut by a
/// crash. Leaves nothing of lines that failed: they are appended again, and would fill the disk.
fn append(
    path: &Path,
    lines: &[u8],
    finish: impl FnOnce(&mut fs::File, &[u8], &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // Another process with this worker id could append meanwhile: its letters must not be cut off. Some file systems have
    // no locks, there nothing is cut off.
    let lock = || rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive);
    let is_locked = rustix::io::retry_on_intr(lock).is_ok();
    let length = file.seek(SeekFrom::End(0))?;
    let mut text = Vec::with_capacity(lines.len() + 1);
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push(b'\n');
        }
    }
    text.extend_from_slice(lines);
    let finished = finish(&mut file, &text, path);
    if finished.is_err() && is_locked && ends_with_part_of(&mut file, length, &text).unwrap_or(false) {
        // The first error says more, and the lines that stay are whole or skipped as one that was cut.
        let _lines_stay = file.set_len(length).is_err();
    }
    finished
}

/// Whether the file has nothing from that place on but the beginning of a text.
fn ends_with_part_of(file: &mut fs::File, place: u64, text: &[u8]) -> io::Result<bool> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(place))?;
    file.take(text.len() as u64 + 1).read_to_end(&mut tail)?;
    Ok(!tail.is_empty() && text.starts_with(&tail))
}

fn finish(file: &mut fs::File, text: &[u8], path: &Path) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()?;
    // Always: an attempt that failed may have created the file.
    sync_folder(path)
}

/// Waits until the name of a file is on the disk.
///
/// # Errors
/// Its folder cannot be opened or synchronized.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letters::list;
    use crate::letters::tests::letter;

    #[tokio::test]
    async fn letters_are_appended_after_a_line_that_was_cut() {
        let folder = crate::letters::tests::folder("append");
        let destination = Folder::open(&folder, "host:1/é").unwrap();
        destination.send(&[letter(1)]).await.unwrap();
        let path = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        assert_eq!(path.file_name().unwrap(), "dead-letters-2026-11-29-host_1__.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &whole[..50]].concat()).unwrap();
        destination.send(&[letter(2)]).await.unwrap();
        let mut found = list::read(&fs::read(&path).unwrap());
        assert_eq!(found.len(), 3);
        assert_eq!(found.remove(0).unwrap(), letter(1));
        assert!(found.remove(0).is_err());
        assert_eq!(found.remove(0).unwrap(), letter(2));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn failed_append_leaves_the_file_as_it_was() {
        let folder = crate::letters::tests::folder("failed");
        let path = folder.join("letters.jsonl");
        let failing = |kept: usize| {
            move |file: &mut fs::File, text: &[u8], _: &Path| {
                file.write_all(&text[..kept])?;
                Err(io::ErrorKind::StorageFull.into())
            }
        };
        assert!(append(&path, b"one\n", failing(2)).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"");
        append(&path, b"one\n", finish).unwrap();
        for kept in [0, 3, 4] {
            assert_eq!(
                append(&path, b"two\n", failing(kept)).unwrap_err().kind(),
                io::ErrorKind::StorageFull
            );
            assert_eq!(fs::read(&path).unwrap(), b"one\n");
        }
        append(&path, b"two\n", finish).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        fs::write(&path, "one\ncut").unwrap();
        assert!(append(&path, b"two\n", failing(2)).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one\ncut");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn file_that_others_changed_is_not_cut() {
        let folder = crate::letters::tests::folder("shrank");
        let path = folder.join("letters.jsonl");
        append(&path, b"one\n", finish).unwrap();
        let truncated = |file: &mut fs::File, _: &[u8], _: &Path| {
            file.set_len(0)?;
            Err(io::ErrorKind::Other.into())
        };
        assert!(append(&path, b"two\n", truncated).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"");
        let with_others = |file: &mut fs::File, _: &[u8], _: &Path| {
            file.write_all(b"two\nother\n")?;
            Err(io::ErrorKind::Other.into())
        };
        assert!(append(&path, b"two\n", with_others).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"two\nother\n", "lines of another writer");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn full_disk_halves_the_batch_down_to_one() {
        let with_room = |room: usize| {
            let mut tried = Vec::new();
            let written = as_many(500, |count| {
                tried.push(count);
                if count <= room { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
            });
            (written.ok(), tried)
        };
        assert_eq!(with_room(500), (Some(500), vec![500]));
        assert_eq!(with_room(130), (Some(125), vec![500, 250, 125]));
        assert_eq!(with_room(1), (Some(1), vec![500, 250, 125, 62, 31, 15, 7, 3, 1]));
        assert_eq!(with_room(0).0, None);
        let mut calls = 0;
        let denied = as_many(500, |_| {
            calls += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert!(denied.is_err() && calls == 1, "only a full disk has room for fewer");
    }

    #[tokio::test]
    async fn letters_of_two_days_are_accepted_day_by_day() {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let folder = crate::letters::tests::folder("days");
        let destination = Folder::open(&folder, "w").unwrap();
        let mut letters = [1, 2, 3, 4].map(letter);
        letters[2].at += DAY;
        letters[3].at += DAY;
        assert_eq!(destination.send(&letters).await, Ok(2));
        assert_eq!(destination.send(&letters[2..]).await, Ok(2));
        let day = |letter: &Letter| list::read(&fs::read(destination.path(letter.at)).unwrap());
        for days in letters.chunks(2) {
            let found: Vec<_> = day(&days[0]).into_iter().map(Result::unwrap).collect();
            assert_eq!(found, days);
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn folder_of_a_plain_file_name_is_the_working_directory() {
        sync_folder(Path::new("letters.jsonl")).unwrap();
        assert!(sync_folder(Path::new("/no/such/folder/letters.jsonl")).is_err());
    }

    #[tokio::test]
    async fn missing_folder_is_rejected() {
        let folder = crate::letters::tests::folder("missing");
        let destination = Folder::open(&folder, "w").unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(Folder::open(&folder, "w").is_err());
        let rejected = destination.send(&[letter(1)]).await.unwrap_err();
        assert!(rejected.reason.contains("dead-letters-"), "{rejected}");
    }
}
