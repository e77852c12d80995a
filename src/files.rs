//! The properties files of the command line: folders become their files, and each file an input of the configuration.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use multilangd::aws::profile;
use multilangd::config::expand;
use multilangd::config::resolve::{self, Given, Resolved};
use multilangd::config::sdk::jvm::Properties;
use multilangd::config::several::{self, Conflict};
use multilangd::exit::Exit;

use crate::cli::Words;
use crate::log::complain;

/// A properties file that was read.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Its path, as messages show it.
    pub(crate) name: String,
    /// The inputs of its configuration.
    pub(crate) given: Given,
}

impl File {
    /// The settings of the file.
    pub(crate) fn resolved(&self) -> Resolved {
        resolve::resolve(&self.given)
    }
}

/// The inputs of the configuration, except for the file's content.
pub(crate) async fn given(words: &Words) -> Given {
    let variables: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let asked = variables.get(expand::VARIABLE).is_some_and(|value| value == "true" || value == "1");
    let properties = Properties::read(&variables, &words.properties);
    let profile = profile::load(&variables, &properties).await;
    Given {
        bytes: Vec::new(),
        overrides: words.overrides.clone(),
        expand: words.expand || asked,
        options: words.options.clone(),
        variables,
        properties,
        profile,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// The path at which Java would find the file: a relative name is searched in each folder of the class path
/// first.
fn find(file: &Path, class_path: &[PathBuf]) -> PathBuf {
    let relative = file.is_relative();
    let mut places = class_path.iter().map(|folder| folder.join(file));
    places.find(|place| relative && place.is_file()).unwrap_or_else(|| file.to_owned())
}

fn read_failed(place: &Path, error: &io::Error) -> Exit {
    complain(&format!("failed to read the properties file {}: {error}", place.display()));
    Exit::NoInput
}

/// Reads the file into the inputs of the configuration.
pub(crate) fn read(file: &Path, words: &Words, given: &mut Given) -> Result<PathBuf, Exit> {
    let place = find(file, &words.class_path);
    given.bytes = std::fs::read(&place).map_err(|error| read_failed(&place, &error))?;
    Ok(place)
}

/// Reads the properties files, and those of folders. Reports each that cannot be read.
///
/// # Errors
/// One of them cannot be read, or a folder has none.
pub(crate) async fn read_all(paths: &[PathBuf], words: &Words) -> Result<Vec<File>, Exit> {
    let given = given(words).await;
    let (mut files, mut failed) = (Vec::new(), None);
    for path in paths {
        let place = find(path, &words.class_path);
        let found = if place.is_dir() { listed(&place) } else { Ok(vec![place]) };
        for place in found.unwrap_or_else(|exit| {
            failed = Some(exit);
            Vec::new()
        }) {
            let mut given = given.clone();
            match std::fs::read(&place) {
                Ok(bytes) => given.bytes = bytes,
                Err(error) => failed = Some(read_failed(&place, &error)),
            }
            files.push(File { name: place.display().to_string(), given });
        }
    }
    failed.map_or(Ok(files), Err)
}

/// The properties files of a folder, by name.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Exit> {
    let entries = std::fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = entries.map_err(|error| {
        complain(&format!("failed to read the folder {}: {error}", folder.display()));
        Exit::NoInput
    })?;
    paths.retain(|path| path.file_name().is_some_and(is_properties) && !path.is_dir());
    paths.sort();
    if paths.is_empty() {
        complain(&format!(
            "the folder {} has no properties file (the names of properties files end with .properties and do not \
             begin with a dot)",
            folder.display()
        ));
        return Err(Exit::NoInput);
    }
    Ok(paths)
}

/// Whether a file of a folder is a properties file, by its name.
fn is_properties(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".properties") && !name.starts_with(b".")
}

/// The conflicts between files. `is_local` means that all tables are in one place, whatever the files say.
pub(crate) fn conflicts(files: &[File], resolved: &[Resolved], is_local: bool) -> Vec<Conflict> {
    let both = files.iter().zip(resolved);
    let all: Vec<_> = both.map(|(file, resolved)| several::File { name: &file.name, resolved }).collect();
    several::conflicts(&all, is_local, |folder| folder.canonicalize().unwrap_or_else(|_| folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_files_of_a_folder_are_found_by_name() {
        for (name, is) in [
            ("a.properties", true),
            (".a.properties", false),
            (".properties", false),
            ("..data", false),
            ("a.properties~", false),
            ("a.props", false),
        ] {
            assert_eq!(is_properties(OsStr::new(name)), is, "{name}");
        }
    }
}
