//! The tables' file: accessible only to this user, and checked before it is used.
//!
//! SQLite treats an empty file as a new database and detects other damage only when it reads that part, so
//! both are checked at the start. A new database is created under another name, so that a file with the final
//! name is never incomplete.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use dynoxide::Database;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::local::files;
use crate::local::kinesis::DataError;

/// Files that SQLite keeps beside an open database, or leaves when its process is killed.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Opens the tables in a file, which is created if it does not exist.
pub(super) fn open(file: &Path) -> Result<Database, DataError> {
    let mut left_behind = None;
    for ending in BESIDE {
        let path = with(file, ending);
        if length(&path)?.is_some_and(|length| length > 0) {
            left_behind = Some(path);
        }
    }
    match (length(file)?, left_behind) {
        (Some(0), _) => return Err(damaged(file, "the file is empty")),
        (Some(_), left) => check(file, left.is_some())?,
        (None, Some(_)) => {
            return Err(damaged(
                file,
                "the file is missing, but the files that SQLite keeps beside it exist",
            ));
        }
        (None, None) => create(file)?,
    }
    database(file)
}

fn with(file: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(ending);
    path.into()
}

/// The length of a file; none if it does not exist. A link, or anything else than a file, is an error.
fn length(path: &Path) -> Result<Option<u64>, DataError> {
    let found = match files::open(path, OpenOptions::new().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.and_then(|file| file.metadata()),
    };
    found.map(|found| Some(found.len())).map_err(|source| DataError::Io { path: path.to_owned(), source })
}

fn damaged(file: &Path, what: &str) -> DataError {
    DataError::Damaged { file: file.to_owned(), offset: 0, what: what.to_owned() }
}

fn create(file: &Path) -> Result<(), DataError> {
    let new = with(file, ".new");
    let made = (|| {
        for ending in ["", BESIDE[0], BESIDE[1], BESIDE[2]] {
            files::remove(&with(&new, ending))?;
        }
        // SQLite creates the files beside it with the same mode.
        files::open(&new, OpenOptions::new().write(true).create_new(true)).map(drop)
    })();
    made.map_err(|source| DataError::Io { path: new.clone(), source })?;
    drop(database(&new)?);
    fs::rename(&new, file).map_err(|source| DataError::Io { path: file.to_owned(), source })
}

fn database(file: &Path) -> Result<Database, DataError> {
    let failed = |source| DataError::Io { path: file.to_owned(), source };
    let path = file.to_str().ok_or_else(|| failed(io::Error::other("the name is not UTF-8")))?;
    Database::new(path).map_err(|error| failed(io::Error::other(error.to_string())))
}

/// Whether a file consists of whole pages of the size in its header.
/// <https://www.sqlite.org/fileformat.html#the_database_header>
fn is_whole(file: &Path) -> Result<bool, DataError> {
    let mut header = [0; 18];
    let read = files::open(file, OpenOptions::new().read(true)).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.read_exact(&mut header)?;
        Ok(length)
    });
    let length = match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read.map_err(|source| DataError::Io { path: file.to_owned(), source })?,
    };
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    // A page size of zero is not valid, which SQLite reports.
    Ok(length.checked_rem(size).is_none_or(|rest| rest == 0))
}

/// Lets SQLite read the whole file and compare its parts. Nothing is written, not even the changes that a
/// killed process left beside the file.
fn check(file: &Path, left_behind: bool) -> Result<(), DataError> {
    let found = || -> rusqlite::Result<String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, left_behind)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    // SQLite reads the missing part of the last page as zeros. A killed process may have been about to write
    // it.
    if !left_behind && !is_whole(file)? {
        return Err(damaged(file, "the file ends within a page"));
    }
    match found() {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(damaged(file, &found)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Err(DataError::InUse { folder: file.to_owned() })
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Err(damaged(file, &error.to_string()))
            }
            _ => Err(DataError::Io { path: file.to_owned(), source: io::Error::other(error) }),
        },
    }
}
