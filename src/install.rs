//! `multilangd install`: copies the running binary and its CA certificates into a folder, for the init
//! container of a pod whose image has neither.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::unique;

/// The name of the binary in the folder.
const BINARY: &str = "multilangd";
/// The name of the CA certificates in the folder.
const CERTIFICATES: &str = "ca-certificates.crt";

/// A file could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder does not exist or is no folder.
    #[error("failed to install into {folder}: {source} (create the folder first)")]
    Folder {
        /// The folder.
        folder: String,
        /// The cause.
        source: io::Error,
    },
    /// The running binary cannot be read.
    #[error("failed to read the running binary {path}: {source}")]
    Binary {
        /// Its path.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// Its path.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// Copies the running binary and the PEM text into a folder. Returns the paths written.
///
/// # Errors
/// The first file that could not be copied; the files before it stay.
pub fn install(folder: &Path, certificates: Option<&str>) -> Result<Vec<PathBuf>, Error> {
    let named = |source| Error::Folder { folder: folder.display().to_string(), source };
    let found = fs::metadata(folder).map_err(named)?;
    if !found.is_dir() {
        return Err(named(io::ErrorKind::NotADirectory.into()));
    }
    let running = std::env::current_exe();
    let path = running.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
    let binary = running.and_then(File::open).map_err(|source| Error::Binary { path, source })?;
    let mut written = vec![write(folder, BINARY, 0o755, binary)?];
    if let Some(text) = certificates {
        written.push(write(folder, CERTIFICATES, 0o644, text.as_bytes())?);
    }
    Ok(written)
}

/// Writes a file under a temporary name and renames it: a reader sees the old file or all of the new one, and a
/// link of that name is replaced, not followed.
fn write(folder: &Path, name: &str, mode: u32, mut content: impl Read) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    let failed = |source| Error::Write { path: path.display().to_string(), source };
    let temporary = folder.join(format!(".{name}.{:032x}", unique::random().map_err(failed)?));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = io::copy(&mut content, &mut file)
        // The mode of a new file is reduced by the umask.
        .and_then(|_bytes| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all());
    // Linux does not run a file that is open for writing.
    drop(file);
    if let Err(source) = written.and_then(|()| fs::rename(&temporary, &path)) {
        let _removed = fs::remove_file(&temporary).is_ok();
        return Err(failed(source));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("multilangd-install-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn links_are_replaced_and_no_temporary_file_remains() {
        let (folder, aside) = (folder("links"), folder("aside"));
        let kept = aside.join("kept");
        fs::write(&kept, "kept").unwrap();
        for name in [BINARY, CERTIFICATES] {
            std::os::unix::fs::symlink(&kept, folder.join(name)).unwrap();
        }
        let written = install(&folder, Some("PEM")).unwrap();
        assert_eq!(written, [folder.join(BINARY), folder.join(CERTIFICATES)]);
        assert_eq!((mode(&written[0]), mode(&written[1])), (0o755, 0o644));
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(fs::read(&written[0]).unwrap() == own && fs::read(&written[1]).unwrap() == b"PEM");
        assert_eq!(fs::read(&kept).unwrap(), b"kept");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(folder).unwrap();
        fs::remove_dir_all(aside).unwrap();
    }

    #[test]
    fn failed_installation_names_the_path_and_leaves_no_temporary_file() {
        let folder = folder("failed");
        fs::create_dir(folder.join(BINARY)).unwrap();
        let error = install(&folder, None).unwrap_err().to_string();
        assert!(error.contains(folder.join(BINARY).to_str().unwrap()), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let missing = install(&folder.join("none"), None).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("create the folder"), "{missing}");
        fs::remove_dir_all(folder).unwrap();
    }
}
