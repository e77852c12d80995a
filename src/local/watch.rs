//! `--watch`: restarts the record processors when their files change.
//!
//! The files are those that `executableName` names, and all files in their folders, without subfolders. An
//! interpreter that is found in PATH is not one of them. Files that a run itself writes must not restart it for
//! ever: the files behind stdout and stderr, logs, and files that change after each restart are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::stdout::tell;
use crate::config::Config;
use crate::daemon::{self, Ports};

/// Interval of the polls.
const POLL: Duration = Duration::from_secs(1);
/// Most files that are watched.
const MOST: usize = 2_000;
/// A file that changes again within this time after it caused a restart may be an output of the record processors.
const AGAIN: Duration = Duration::from_secs(10);
/// Restarts in a row that such a file causes before it is left out.
const REPEATS: u32 = 3;
/// Endings of names of logs, and of temporary files of editors.
const LEFT_OUT: [&str; 4] = [".log", ".swp", ".swx", "~"];

/// Runs the daemon until `stop`. When the files of its record processors change it is stopped in order and started
/// again, with a new child for each shard. After a permanent failure a change of the files is awaited.
///
/// # Errors
/// Why it ended, if not by `stop`.
pub(super) async fn run(config: &Config, ports: Ports, stop: CancellationToken) -> Result<(), daemon::Error> {
    let mut files = Program::of(&config.executable);
    tell(&format!("watching the files in {}", files.folders()));
    loop {
        let round = stop.child_token();
        let mut daemon = Box::pin(daemon::run(config, ports.clone(), round.clone()));
        tokio::select! {
            biased;
            ended = &mut daemon => match ended {
                Err(daemon::Error::Hopeless(hopeless)) if !stop.is_cancelled() => {
                    tell(&format!("{hopeless}; waiting for a change of its files"));
                    let changed = stop.run_until_cancelled(files.changed()).await;
                    let Some(file) = changed else { return Ok(()) };
                    tell(&format!("{} changed: starting the record processors", file.display()));
                }
                ended => return ended,
            },
            file = files.changed() => {
                tell(&format!("{} changed: restarting the record processors", file.display()));
                round.cancel();
                match daemon.await {
                    // The changed program may work.
                    Ok(()) | Err(daemon::Error::Hopeless(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Time of the last modification and length of each file.
type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The files of a record processor.
#[derive(Debug)]
pub(super) struct Program {
    named: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    known: Files,
    /// Files that are outputs of the run, by their behaviour.
    outputs: BTreeSet<PathBuf>,
    /// The number of restarts in a row that a file caused, and the time of the last one.
    restarts: BTreeMap<PathBuf, (u32, Instant)>,
}

impl Program {
    /// The files that this `executableName` names.
    pub(super) fn of(executable: &str) -> Self {
        let mut words = executable.split(' ').filter(|word| !word.is_empty());
        let program = words.next().filter(|word| word.contains('/'));
        let is_file = |path: &PathBuf| path.is_file();
        let named: Vec<PathBuf> =
            program.into_iter().chain(words).map(PathBuf::from).filter(is_file).collect();
        let mut folders: Vec<PathBuf> = named.iter().map(|file| folder(file)).collect();
        folders.sort_unstable();
        folders.dedup();
        let known = look(&named, &folders, MOST);
        if known.len() >= MOST {
            warn!(
                most = MOST,
                "--watch: the folders of the record processor have too many files, watching some"
            );
        }
        Self { named, folders, known, outputs: BTreeSet::new(), restarts: BTreeMap::new() }
    }

    /// The folders, for people.
    pub(super) fn folders(&self) -> String {
        let shown: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        shown.join(", ")
    }

    /// Waits until a file has changed and, for one poll, changes no more: an editor or a compiler may write several
    /// times. Returns the file. Cancel-safe.
    pub(super) async fn changed(&mut self) -> PathBuf {
        let mut before = self.known.clone();
        loop {
            sleep(POLL).await;
            // At most 2,000 calls of some microseconds; no other task waits for them.
            let mut now = look(&self.named, &self.folders, MOST);
            now.retain(|file, _| !self.outputs.contains(file));
            if let Some(file) = settled(&self.known, &before, &now) {
                self.known.clone_from(&now);
                if !self.is_output(&file, Instant::now()) {
                    return file;
                }
                tell(&format!("{} changes after each restart: it is no longer watched", file.display()));
                self.known.remove(&file);
                now.remove(&file);
            }
            before = now;
        }
    }

    /// Whether a file that changed is an output of the run: it changed after each of the last restarts.
    fn is_output(&mut self, file: &Path, now: Instant) -> bool {
        if self.named.iter().any(|named| named.file_name() == file.file_name()) {
            return false;
        }
        let (times, last) = self.restarts.entry(file.to_owned()).or_insert((0, now));
        *times = if now.saturating_duration_since(*last) <= AGAIN { *times + 1 } else { 1 };
        *last = now;
        if *times > REPEATS {
            self.outputs.insert(file.to_owned());
        }
        *times > REPEATS
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// The named files, and those of the folders, up to a number. Files that cannot be read are left out.
fn look(named: &[PathBuf], folders: &[PathBuf], most: usize) -> Files {
    let identity = |about: &fs::Metadata| (about.dev(), about.ino());
    let own = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
    let own = own.into_iter().filter_map(|own| File::from(own.ok()?).metadata().ok());
    let own: Vec<(u64, u64)> = own.map(|own| identity(&own)).collect();
    let is_own = |about: &fs::Metadata| own.contains(&identity(about));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let found = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = found.filter(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        !LEFT_OUT.iter().any(|end| name.ends_with(end))
    });
    let all = named.iter().cloned().chain(found);
    let files = all.filter_map(|path| {
        let about = fs::metadata(&path).ok().filter(|about| about.is_file() && !is_own(about))?;
        Some((path, (about.modified().ok(), about.len())))
    });
    files.take(most).collect()
}

/// A file that is new, gone or modified since `known`, and the same in the last two polls.
fn settled(known: &Files, before: &Files, now: &Files) -> Option<PathBuf> {
    let is_settled =
        |file: &&PathBuf| known.get(*file) != now.get(*file) && before.get(*file) == now.get(*file);
    now.keys().chain(known.keys()).find(is_settled).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, u64)]) -> Files {
        all.iter().map(|(path, length)| (PathBuf::from(path), (None, *length))).collect()
    }

    #[test]
    fn file_causes_a_restart_once_it_is_settled() {
        let known = files(&[("a", 1), ("b", 2)]);
        assert_eq!(settled(&known, &known, &known), None);
        for (now, changed) in [
            (files(&[("a", 1), ("b", 3)]), "b"),
            (files(&[("a", 1)]), "b"),
            (files(&[("a", 1), ("b", 2), ("c", 0)]), "c"),
        ] {
            assert_eq!(settled(&known, &known, &now), None);
            assert_eq!(settled(&known, &now, &now), Some(PathBuf::from(changed)));
        }
        // File a is written all the time.
        let (before, now) = (files(&[("a", 5), ("b", 3)]), files(&[("a", 6), ("b", 3)]));
        assert_eq!(settled(&known, &before, &now), Some(PathBuf::from("b")));
    }

    #[test]
    fn file_that_changes_after_each_restart_is_left_out() {
        let mut program = Program::of("./examples/python/processor.py");
        let (start, output) = (Instant::now(), Path::new("examples/python/results"));
        let mut is_output =
            |file: &Path, seconds| program.is_output(file, start + Duration::from_secs(seconds));
        // Edits with pauses between them.
        assert!((0..9).all(|time| !is_output(output, time * 11)));
        assert!((200..210).all(|time| !is_output(Path::new("examples/python/processor.py"), time)));
        let found: Vec<bool> = (300..304).map(|time| is_output(output, time)).collect();
        assert_eq!(found, [false, false, false, true]);
        assert!(program.outputs.contains(output));
    }

    #[test]
    fn interpreter_found_in_path_is_not_watched() {
        let program = Program::of("python3 -u examples/python/processor.py no-such-file");
        assert_eq!(program.named, [PathBuf::from("examples/python/processor.py")]);
        assert_eq!(program.folders(), "examples/python");
        assert!(program.known.contains_key(Path::new("examples/python/kclpy_processor.py")));
    }

    #[test]
    fn number_of_watched_files_is_limited() {
        let folders = [PathBuf::from("src")];
        assert_eq!(look(&[], &folders, 3).len(), 3);
    }
}
