//! `DIR/closed`: the length of each file of a data folder when it was closed in order.
//!
//! A log that was truncated between two frames is valid by itself. This file reveals the truncation, for
//! example by an incomplete copy or a full disk. It exists only while no process uses the folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::{DataError, STREAMS, entries, files, journal};

const NAME: &str = "closed";

/// Length of each file in bytes, by its path within the folder.
type Lengths = BTreeMap<String, u64>;

/// Compares the files with the lengths of an earlier run. Longer files were written by a later run.
pub(super) fn verify(folder: &Path) -> Result<(), DataError> {
    let path = folder.join(NAME);
    let Some(content) = files::read(&path).map_err(DataError::io(&path))? else {
        return Ok(());
    };
    let lengths: Lengths = serde_json::from_slice(&content).map_err(|error| DataError::Damaged {
        file: path,
        offset: 0,
        what: error.to_string(),
    })?;
    for (name, length) in lengths {
        let file = folder.join(name);
        let found = match fs::symlink_metadata(&file) {
            Ok(found) => Some(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(DataError::io(&file)(error)),
        };
        let what = match found {
            Some(found) if found >= length => continue,
            Some(_) => format!("the file ends here, but had {length} bytes when it was closed"),
            None => format!("the file is missing, but had {length} bytes when it was closed"),
        };
        return Err(DataError::Damaged { file, offset: found.unwrap_or_default(), what });
    }
    Ok(())
}

/// Removes the file, since the others may change from now on.
pub(super) fn reopen(folder: &Path) -> Result<(), DataError> {
    let path = folder.join(NAME);
    files::remove(&path).map_err(DataError::io(&path))
}

/// Writes the lengths of all files.
pub(super) fn write(folder: &Path) -> Result<(), DataError> {
    let mut paths = vec![journal(folder)];
    for (path, _) in entries(&folder.join(STREAMS))? {
        paths.extend(entries(&path)?.into_iter().map(|(path, _)| path));
    }
    let mut lengths = Lengths::new();
    for path in paths {
        let found = fs::symlink_metadata(&path).map_err(DataError::io(&path))?;
        let name = path.strip_prefix(folder).ok().and_then(Path::to_str).filter(|_| found.is_file());
        lengths.extend(name.map(|name| (name.to_owned(), found.len())));
    }
    let (path, next) = (folder.join(NAME), folder.join("closed.new"));
    let text = serde_json::to_vec(&lengths).map_err(|error| DataError::io(&path)(error.into()))?;
    let written = files::open(&next, fs::OpenOptions::new().create(true).write(true).truncate(true))
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&next, &path));
    written.map_err(DataError::io(&path))
}
