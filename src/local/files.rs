//! Folders and files that only this user can access.
//!
//! New folders have mode 0700, new files 0600. Links are not followed, except for a folder that the user
//! names: otherwise a user who can write to a folder in the path could have another file overwritten. The
//! temporary folder has an unpredictable name and must be new, and only files that were created in it are
//! deleted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tracing::warn;

use crate::unique;

const FOLDER: u32 = 0o700;
const FILE: u32 = 0o600;

/// A folder that other users can read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exposed {
    /// The permission bits.
    pub(super) mode: u32,
    /// The owner's user id.
    pub(super) owner: u32,
}

/// Creates a folder and its parents if they do not exist. Returns whether an existing one is accessible to
/// other users. It may be a link to a folder.
pub(super) fn named_folder(path: &Path) -> io::Result<Option<Exposed>> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(exposed(found.mode(), found.uid(), me())),
        Ok(_) => Err(io::Error::new(io::ErrorKind::NotADirectory, "not a folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(FOLDER).create(path).map(|()| None)
        }
        Err(error) => Err(error),
    }
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn exposed(mode: u32, owner: u32, me: u32) -> Option<Exposed> {
    let mode = mode & 0o7777;
    (mode & 0o077 != 0 || owner != me).then_some(Exposed { mode, owner })
}

/// Creates a folder in an existing one, unless it exists. A link is refused.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path)?;
            if found.is_dir() { Ok(()) } else { Err(unfit(found.is_symlink(), "folder")) }
        }
        made => made,
    }
}

fn unfit(is_link: bool, wanted: &str) -> io::Error {
    let what = if is_link {
        format!("it is a symbolic link, which is not followed (put the {wanted} itself there)")
    } else {
        format!("it is not a {wanted}")
    };
    io::Error::other(what)
}

/// Opens a file with these options and the properties that all files here have.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // A pipe would block until its other end is opened.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = options.mode(FILE).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => unfit(true, "file"),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(unfit(false, "file")) }
}

/// Reads a file; none if it does not exist.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match open(path, OpenOptions::new().read(true)) {
        Ok(mut file) => {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            Ok(Some(content))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file, if it exists.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A folder that is removed on drop.
#[derive(Debug)]
pub(super) struct Temporary {
    folder: PathBuf,
    /// Device and inode, so that only the folder that was created is removed, not another one of that name.
    identity: (u64, u64),
    files: Vec<PathBuf>,
}

impl Temporary {
    /// Creates one in the system's temporary folder (`TMPDIR`).
    pub(super) fn new() -> io::Result<Self> {
        let within = std::env::temp_dir();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", within.display()));
        let within = within.canonicalize().map_err(named)?;
        let found = fs::metadata(&within).map_err(named)?;
        if let Some(why) = distrust(found.mode(), found.uid(), me()) {
            let text = format!("{}: {why} (set TMPDIR to a folder of your own)", within.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let folder = within.join(format!("multilangd-local-{:032x}", unique::random()?));
        // Fails if anything with this name exists.
        DirBuilder::new().mode(FOLDER).create(&folder).map_err(named)?;
        let made = fs::symlink_metadata(&folder)?;
        Ok(Self { folder, identity: (made.dev(), made.ino()), files: Vec::new() })
    }

    /// Writes a new file and returns its path.
    pub(super) fn write(&mut self, name: &str, content: &[u8]) -> io::Result<&Path> {
        let path = self.folder.join(name);
        open(&path, OpenOptions::new().write(true).create_new(true))?.write_all(content)?;
        self.files.push(path);
        Ok(self.files.last().map_or(&self.folder, |path| path))
    }
}

/// Why a folder cannot contain a temporary one: its owner, and everybody if it is not sticky, can replace it.
fn distrust(mode: u32, owner: u32, me: u32) -> Option<&'static str> {
    if owner != me && owner != 0 {
        Some("the folder for temporary files belongs to another user")
    } else if mode & 0o1002 == 0o0002 {
        Some("the folder for temporary files is writable by everyone and has no sticky bit")
    } else {
        None
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let removed = fs::symlink_metadata(&self.folder).and_then(|found| {
            if (found.dev(), found.ino()) != self.identity {
                return Err(io::Error::other("it was replaced by another folder"));
            }
            self.files.iter().try_for_each(|file| remove(file))?;
            fs::remove_dir(&self.folder)
        });
        if let Err(error) = removed {
            warn!(folder = %self.folder.display(), %error, "failed to remove the temporary folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_folder_is_not_exposed() {
        assert_eq!(exposed(0o40700, 7, 7), None);
        for (mode, owner) in [(0o40750, 7), (0o40701, 7), (0o40777, 7), (0o40700, 8)] {
            assert_eq!(exposed(mode, owner, 7), Some(Exposed { mode: mode & 0o777, owner }));
        }
    }

    #[test]
    fn temporary_folder_is_created_only_where_it_is_safe() {
        for (mode, owner) in [(0o41777, 0), (0o40755, 0), (0o40700, 7), (0o41777, 7), (0o40775, 7)] {
            assert_eq!(distrust(mode, owner, 7), None, "{mode:o} {owner}");
        }
        for (mode, owner) in [(0o40777, 0), (0o40777, 7), (0o41777, 8), (0o40700, 8)] {
            assert!(distrust(mode, owner, 7).is_some(), "{mode:o} {owner}");
        }
    }

    #[test]
    fn temporary_folder_removes_only_its_own_files() {
        let mut temporary = Temporary::new().unwrap();
        let folder = temporary.folder.clone();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let file = temporary.write("a", b"x").unwrap().to_owned();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(temporary.write("a", b"y").is_err(), "never over another file");
        let other = folder.join("not-ours");
        fs::write(&other, "").unwrap();
        drop(temporary);
        assert!(other.exists() && !file.exists());
        fs::remove_file(other).unwrap();
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn replaced_temporary_folder_is_left_alone() {
        let mut temporary = Temporary::new().unwrap();
        let folder = temporary.folder.clone();
        let file = temporary.write("a", b"x").unwrap().to_owned();
        let aside = folder.with_extension("aside");
        fs::rename(&folder, &aside).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "not ours").unwrap();
        drop(temporary);
        assert_eq!(fs::read_to_string(&file).unwrap(), "not ours");
        fs::remove_dir_all(folder).unwrap();
        fs::remove_dir_all(aside).unwrap();
    }

    #[test]
    fn links_and_pipes_are_not_opened() {
        let mut temporary = Temporary::new().unwrap();
        let target = temporary.write("target", b"kept").unwrap().to_owned();
        let at = |name: &str| temporary.folder.join(name);
        std::os::unix::fs::symlink(&target, at("link")).unwrap();
        std::os::unix::fs::symlink(&temporary.folder, at("folder")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
        assert!(made.unwrap().success());
        for name in ["link", "pipe"] {
            assert!(read(&at(name)).is_err(), "{name}");
            assert!(open(&at(name), OpenOptions::new().append(true).create(true)).is_err(), "{name}");
        }
        assert!(folder(&at("folder")).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(read(&target).unwrap().unwrap(), b"kept");
        for name in ["link", "folder", "pipe"] {
            remove(&at(name)).unwrap();
        }
    }
}
